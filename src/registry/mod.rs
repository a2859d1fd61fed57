//! The registry: services, heartbeats, configuration and circuit breakers as live events.
//!
//! Commands come in over HTTP, facts go out as events on one topic, which every protocol serves. A command's change and
//! its facts are one step under one lock: who has heard of a change finds it, and all protocols tell the same order.

pub mod access;
mod check;
mod config;
mod conversation;
mod events;
mod guard;
pub mod http;
mod interest;
mod memory;
pub mod node;
mod nodes;
mod pick;
pub mod proxy;
mod rate;
mod registration;
mod routes;
pub mod users;

use crate::{
    net::Dialer,
    recorder::{AppendError, Notes, Vitals},
    topic::Topic,
};
use access::Access;
use config::Configs;
use events::Fact;
use node::{Moment, Patience};
use nodes::Nodes;
use rate::Rates;
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, Semaphore};

/// Nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What the registry is to be like.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// With instances.
    pub patience: Patience,
    /// New registrations per second and address; 0 is any number.
    pub register_rate: u32,
    /// Who may sign in.
    pub users: Option<PathBuf>,
    /// How long a token lasts that is given here.
    pub token_ttl: Duration,
    /// How long a client of the WebSocket may take to say who it is.
    pub auth_deadline: Duration,
    /// Whether every change needs a token, not only that of configuration.
    pub protect_writes: bool,
    /// How requests are passed on to instances.
    pub proxy: proxy::Settings,
}

/// See the module's text.
pub struct Registry {
    settings: Settings,
    topic: Arc<Topic>,
    /// Where access is controlled.
    access: Option<Arc<Access>>,
    state: Mutex<State>,
    /// Something is due earlier than it was.
    sooner: Notify,
    /// To instances.
    dialer: Dialer,
    relayed: Arc<()>,
    /// One permit per active check.
    checks: Semaphore,
    started: Instant,
    requests: AtomicU64,
    errors: AtomicU64,
}

struct State {
    nodes: Nodes,
    configs: Configs,
    rates: Rates,
    /// Circuits that changed while the journal could not be written: the newest fact of each instance.
    untold: Vec<Fact>,
}

impl Registry {
    /// One that tells its facts on this topic, and knows what a journal kept of it; instances are reached by `dialer`.
    pub fn new(settings: Settings, topic: Arc<Topic>, access: Option<Access>, kept: &Notes, dialer: Dialer) -> Self {
        let (mut nodes, mut configs) = (Nodes::new(settings.patience), Configs::default());
        memory::restore(kept, &mut nodes, &mut configs, Moment::now());
        nodes.take_changed();
        nodes.commit();
        Registry {
            settings,
            topic,
            access: access.map(Arc::new),
            state: Mutex::new(State { nodes, configs, rates: Rates::default(), untold: Vec::new() }),
            sooner: Notify::new(),
            dialer,
            relayed: Arc::default(),
            checks: Semaphore::new(check::AT_ONCE),
            started: Instant::now(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    /// Where its facts are told.
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// WebSockets that are passed on to instances now.
    pub fn relayed(&self) -> usize {
        Arc::strong_count(&self.relayed) - 1
    }

    /// Lets time pass for ever: who is silent for too long goes, circuits become half open, who wants it is asked whether
    /// it is well.
    pub async fn run(self: Arc<Self>) {
        loop {
            for (id, check) in self.act(|state, now| (state.nodes.due_checks(now), None)).unwrap_or_default() {
                tokio::spawn(self.clone().check(id, check));
            }
            let due = self.state().nodes.due().unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                // A clock tick later it is surely behind.
                () = tokio::time::sleep_until((due + Duration::from_millis(1)).into()) => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// One step: what was due and its facts, then the change that a command makes and its facts.
    ///
    /// # Errors
    /// When the journal does not take the command's facts: then nothing has changed. Nobody expires meanwhile.
    fn act<T>(&self, change: impl FnOnce(&mut State, Moment) -> (T, Option<Fact>)) -> Result<T, AppendError> {
        let mut state = self.state();
        let now = Moment::now();
        let before = state.nodes.due();
        let facts = state.nodes.tick(now, self.topic.log.vitals().is_none_or(Vitals::is_well));
        if let Err(error) = self.tell(&facts, &mut state, now) {
            tracing::debug!(%error, "who is silent for too long stays");
        }
        let (answer, fact) = change(&mut state, now);
        let told = self.tell(fact.as_slice(), &mut state, now);
        let due = state.nodes.due();
        drop(state);
        if due.is_some_and(|due| before.is_none_or(|before| due < before)) {
            self.sooner.notify_one();
        }
        told.map(|()| answer)
    }

    /// Before anybody can know of a change, the journal does; one that it does not take is taken back.
    fn tell(&self, facts: &[Fact], state: &mut State, now: Moment) -> Result<(), AppendError> {
        let changed = state.nodes.take_changed();
        if facts.is_empty() && changed.is_empty() && state.untold.is_empty() {
            state.commit();
            return Ok(());
        }
        let mut group: Vec<_> = state.untold.iter().map(|fact| (vec![fact.event(now.ms)], None)).collect();
        let nodes = changed.iter().filter_map(|id| state.nodes.get(id));
        group.extend(nodes.map(|node| (Vec::new(), Some(memory::note_of_node(node)))));
        group.extend(facts.iter().map(|fact| (vec![fact.event(now.ms)], memory::note_of(fact, &state.nodes))));
        let told = self.topic.publish_group(group, now.ms);
        match told {
            Ok(_) => {
                state.untold.clear();
                state.commit();
                Ok(())
            }
            Err(error) => {
                state.roll_back(now);
                let lasting = facts.iter().filter(|fact| !state.postpone(fact)).count();
                if lasting == 0 && changed.is_empty() { Ok(()) } else { Err(error) }
            }
        }
    }

    fn count(&self, failed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
    }
}

impl State {
    fn commit(&mut self) {
        self.nodes.commit();
        self.configs.commit();
    }

    fn roll_back(&mut self, now: Moment) {
        self.nodes.roll_back(now);
        self.configs.roll_back();
    }

    /// A circuit protects its instance whether or not the journal can be written: what it did is told later. Says whether
    /// the fact is of this kind.
    fn postpone(&mut self, fact: &Fact) -> bool {
        let Some(of) = fact.circuit() else { return false };
        self.untold.retain(|earlier| earlier.circuit() != Some(of));
        self.untold.push(fact.clone());
        true
    }
}
