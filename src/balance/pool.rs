//! The back ends: who is there, and who is next.

use super::{
    backend::Backend,
    breaker::{self, State},
    choice::{Candidate, Policy, choose},
    lease::Lease,
    member::Member,
};
use crate::{event::Event, topic::Topic, units::now_ms};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

/// Between two looks for a better one.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What holds for all back ends.
#[derive(Clone, Debug)]
pub struct Habits {
    /// How one is chosen.
    pub policy: Policy,
    /// When one is left alone.
    pub breaker: breaker::Settings,
    /// How long the share of one that comes, or comes back, grows to what it is to be.
    pub slow_start: Duration,
    /// How long a relayed stream stays where others have room.
    pub max_age: Option<Duration>,
}

/// See the module's text.
pub struct Pool {
    habits: Habits,
    backends: Mutex<Vec<Arc<Backend>>>,
    /// How many have come since the start.
    arrivals: watch::Sender<u64>,
    /// One of them may be tried again, and nobody does.
    pub(super) triable: Notify,
    /// Tells what becomes of them.
    news: Arc<Topic>,
}

/// Whom a request wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// What a hashing policy goes by.
    pub key: u64,
    /// Where it was before: there again, if that one is well.
    pub before: Option<u64>,
}

impl Pool {
    /// All taken for well.
    pub fn new(habits: Habits, members: Vec<Member>, news: Arc<Topic>) -> Self {
        let backends = members.into_iter().map(|member| Arc::new(Backend::new(member, habits.breaker, None))).collect();
        Pool { habits, backends: Mutex::new(backends), arrivals: watch::Sender::new(0), triable: Notify::new(), news }
    }

    /// The back ends now.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.list().clone()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Backend>>> {
        self.backends.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Changes when a member comes.
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    /// What holds for all.
    pub fn habits(&self) -> &Habits {
        &self.habits
    }

    /// These are the members from now on. Who stays keeps what is known of it; who goes keeps the connections it has.
    pub fn set_members(&self, members: &[Member]) {
        let mut list = self.list();
        let before = std::mem::take(&mut *list);
        for member in members {
            match before.iter().find(|backend| backend.member.is(member)) {
                Some(backend) => {
                    backend.known().weight = member.weight;
                    list.push(backend.clone());
                }
                None => {
                    info!(backend = %member, "added");
                    self.tell("backend_added", json!({ "backend": member.to_string() }));
                    list.push(Arc::new(Backend::new(member.clone(), self.habits.breaker, Some(Instant::now()))));
                    self.arrivals.send_modify(|arrivals| *arrivals += 1);
                }
            }
        }
        for gone in before.iter().filter(|backend| !list.iter().any(|kept| Arc::ptr_eq(kept, backend))) {
            info!(backend = %gone.member, "removed");
            self.tell("backend_removed", json!({ "backend": gone.member.to_string() }));
            gone.remove();
        }
    }

    /// The next one that was not `tried` yet. When none is well, the least bad: what could still serve is never refused.
    pub fn take(self: &Arc<Self>, wish: Wish, tried: &[u64]) -> Option<Lease> {
        let (list, now) = (self.list(), Instant::now());
        let untried: Vec<_> = list.iter().filter(|backend| !tried.contains(&backend.name())).collect();
        let mut well: Vec<_> = untried.iter().copied().filter(|backend| backend.is_available()).collect();
        if let Some(again) = well.iter().find(|backend| wish.before == Some(backend.name())) {
            return Some(Lease::new(self.clone(), (*again).clone()));
        }
        if well.is_empty() {
            well.extend(untried.into_iter().min_by_key(|backend| backend.known().breaker.failures()));
        }
        let mut candidates = self.candidates(&mut well, now);
        let chosen = choose(&self.habits.policy, &mut candidates, wish.key, rand::random::<f64>)?;
        for (backend, candidate) in well.iter().zip(&candidates) {
            backend.known().credit = candidate.credit;
        }
        Some(Lease::new(self.clone(), well[chosen].clone()))
    }

    /// What is known of these. Where streams move on by age, those that have their share already are left out.
    fn candidates(&self, of: &mut Vec<&Arc<Backend>>, now: Instant) -> Vec<Candidate> {
        let look = |backend: &&Arc<Backend>| backend.candidate(self.habits.slow_start, now);
        let all: Vec<Candidate> = of.iter().map(look).collect();
        if self.habits.max_age.is_none() || matches!(self.habits.policy, Policy::Hash(_)) {
            return all;
        }
        let share = shares(&all, 1);
        let mut room = all.iter().map(|candidate| (candidate.active as f64) < share * candidate.weight);
        of.retain(|_| room.next().unwrap_or(true));
        of.iter().map(look).collect()
    }

    /// Whether this one has more connections than its share of all.
    pub(super) fn has_surplus(&self, backend: &Arc<Backend>) -> bool {
        if matches!(self.habits.policy, Policy::Hash(_)) {
            return false;
        }
        let list = self.list();
        if !list.iter().any(|other| Arc::ptr_eq(other, backend)) {
            return true;
        }
        let (now, slow_start) = (Instant::now(), self.habits.slow_start);
        let well = list.iter().filter(|other| other.is_available() || Arc::ptr_eq(other, backend));
        let all: Vec<Candidate> = well.map(|backend| backend.candidate(slow_start, now)).collect();
        let own = backend.candidate(slow_start, now);
        own.active as f64 >= shares(&all, 0) * own.weight + 1.0
    }

    /// Resolves once this one is no member any more, or unwell, and another one could do its work.
    pub async fn is_better_elsewhere(&self, than: &Backend) {
        loop {
            than.is_to_be_left().await;
            if self.list().iter().any(|other| other.name() != than.name() && other.is_available()) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// One that may be tried again, and that nobody tries; waits for it.
    pub async fn take_to_try(self: &Arc<Self>) -> Lease {
        loop {
            let found = self.list().iter().find(|backend| backend.is_to_be_tried()).cloned();
            match found {
                Some(backend) => return Lease::new(self.clone(), backend),
                None => self.triable.notified().await,
            }
        }
    }

    /// What active checks found out about one.
    pub fn judge(&self, backend: &Backend, well: bool, why: &str) {
        if !well {
            backend.known().fail(why);
        }
        if backend.set_well(well) {
            let name = backend.member.to_string();
            if well {
                info!(backend = %name, "healthy")
            } else {
                warn!(backend = %name, why, "unhealthy")
            }
            self.tell(if well { "backend_healthy" } else { "backend_unhealthy" }, json!({ "backend": name }));
        }
    }

    /// What is known of all of them, for the status.
    pub fn describe(&self) -> Vec<Value> {
        self.list().iter().map(|backend| backend.describe()).collect()
    }

    pub(super) fn turned(self: &Arc<Self>, backend: &Arc<Backend>, to: Option<State>) {
        let Some(state) = to else { return };
        let name = backend.member.to_string();
        match state {
            State::Open(until) => {
                warn!(backend = %name, "left alone: too many failures in a row");
                let (pool, backend) = (self.clone(), backend.clone());
                tokio::spawn(async move {
                    tokio::time::sleep_until(until.into()).await;
                    let turned = backend.known().breaker.tick(Instant::now());
                    pool.turned(&backend, turned);
                });
            }
            State::HalfOpen => {
                info!(backend = %name, "tried again");
                self.triable.notify_one();
            }
            State::Closed => info!(backend = %name, "well again"),
        }
        let mut data = json!({ "backend": name });
        if matches!(state, State::Open(_)) {
            data["failures"] = backend.known().breaker.failures().into();
        }
        self.tell(&format!("circuit_{}", state.name()), data);
    }

    fn tell(&self, event: &str, data: Value) {
        let now = now_ms();
        let payload = json!({ "event": event, "data": data, "timestamp": now }).to_string();
        let _ = self.news.publish(vec![Event { payload: Bytes::from(payload), text: true, attrs: None }], now);
    }
}

/// Connections per weight, if `more` came to all that there are.
fn shares(all: &[Candidate], more: usize) -> f64 {
    let weight: f64 = all.iter().map(|candidate| candidate.weight).sum();
    let active: usize = all.iter().map(|candidate| candidate.active).sum();
    (active + more) as f64 / weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        balance::search::Hold,
        id::Epoch,
        log::{Limits, Log, Numbering},
    };

    fn pool(names: &[&str], failures: u32, max_age: Option<Duration>) -> Arc<Pool> {
        let members = names.iter().map(|name| name.parse().expect("a member")).collect();
        let log = Log::new(Numbering::Own(Epoch::new(0, 0)), Limits::default());
        let news = Topic::new("/-/balancer".into(), log, Vec::new(), "", crate::topic::Policy::Disconnect);
        let breaker = breaker::Settings { failures, base: Duration::from_secs(100), cap: Duration::from_secs(100) };
        let habits = Habits { policy: Policy::RoundRobin, breaker, slow_start: Duration::ZERO, max_age };
        Arc::new(Pool::new(habits, members, Arc::new(news)))
    }

    fn take(pool: &Arc<Pool>) -> Lease {
        pool.take(Wish::default(), &[]).expect("one")
    }

    fn name(lease: &Lease) -> String {
        lease.backend().member.to_string()
    }

    fn names(pool: &Arc<Pool>, times: usize) -> Vec<String> {
        (0..times).map(|_| name(&take(pool))).collect()
    }

    #[tokio::test]
    async fn an_open_breaker_is_passed_over_until_nobody_else_is_left() {
        let pool = pool(&["a:1", "b:1"], 1, None);
        take(&pool).failed("no");
        assert_eq!(names(&pool, 3), ["http://b:1"; 3]);
        let b = take(&pool);
        let other = pool.take(Wish::default(), &[b.backend().name()]).expect("the other");
        assert_eq!(name(&other), "http://a:1");
        b.failed("no");
        assert_eq!(names(&pool, 2).len(), 2, "the least bad one is tried anyway");
        take(&pool).succeeded();
        assert_eq!(pool.news.log.totals().events, 3, "open, open, closed");
    }

    #[tokio::test]
    async fn a_half_open_one_gets_one_trial_at_a_time() {
        let pool = pool(&["a:1", "b:1"], 1, None);
        take(&pool).failed("no");
        let turned = pool.backends()[0].known().breaker.tick(Instant::now() + Duration::from_secs(100));
        assert_eq!(turned, Some(State::HalfOpen));
        let a = (0..2).map(|_| take(&pool)).find(|lease| name(lease) == "http://a:1");
        assert!(a.is_some());
        assert_eq!(names(&pool, 3), ["http://b:1"; 3]);
        drop(a);
        assert!(names(&pool, 3).contains(&"http://a:1".to_owned()));
    }

    #[tokio::test]
    async fn who_held_on_from_before_is_no_trial() {
        let pool = pool(&["a:1", "b:1"], 1, None);
        let (before, _b) = (take(&pool), take(&pool));
        before.failed("no");
        pool.backends()[0].known().breaker.tick(Instant::now() + Duration::from_secs(100));
        let trial = (0..2).map(|_| take(&pool)).find(|lease| name(lease) == "http://a:1");
        assert!(trial.is_some());
        drop(before);
        assert_eq!(names(&pool, 3), ["http://b:1"; 3]);
    }

    #[test]
    fn members_come_and_go_and_who_stays_is_known() {
        let pool = pool(&["a:1", "b:1"], 1, None);
        let (a, b) = (take(&pool), take(&pool));
        let members = ["b:1 weight=3", "c:1"].map(|text| text.parse().expect("a member"));
        pool.set_members(&members);
        let described = pool.describe();
        let b_now = &described[0];
        assert_eq!((&b_now["url"], &b_now["active"], &b_now["weight"]), (&"http://b:1".into(), &1.into(), &3.0.into()));
        assert!(pool.has_surplus(&a.backend) && described.len() == 2);
        assert!(a.backend().is_leaving() && !b.backend().is_leaving());
    }

    #[test]
    fn where_it_was_before_is_where_it_goes_while_that_is_well() {
        let pool = pool(&["a:1", "b:1"], 1, None);
        let before = pool.backends()[1].name();
        let again = || pool.take(Wish { before: Some(before), key: 0 }, &[]).map(|lease| name(&lease));
        assert_eq!([again(), again()], [Some("http://b:1".into()), Some("http://b:1".into())]);
        pool.judge(&pool.backends()[1], false, "ill");
        assert_eq!(again(), Some("http://a:1".into()));
    }

    #[test]
    fn streams_move_only_from_a_surplus_to_where_there_is_room() {
        let pool = pool(&["a:1", "b:1"], 1, Some(Duration::from_secs(1)));
        let mut held: Vec<Lease> = (0..40).map(|_| take(&pool)).collect();
        assert!(pool.backends().iter().all(|backend| !pool.has_surplus(backend)));
        pool.set_members(&["a:1", "b:1", "c:1", "d:1"].map(|text| text.parse().expect("a member")));
        while let Some(surplus) = held.iter().position(|lease| pool.has_surplus(&lease.backend)) {
            drop(held.swap_remove(surplus));
            held.push(take(&pool));
        }
        assert!(pool.describe().iter().all(|backend| backend["active"] == 10), "{:?}", pool.describe());
    }
}
