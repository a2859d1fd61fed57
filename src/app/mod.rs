//! Runs a plan: builds the topic, starts what supplies it and what serves it, and ends them in order.

mod balancing;
mod consuming;
mod doors;
mod journaling;
mod producing;
mod registering;
mod scripting;
mod telling;

pub use self::scripting::check;

use self::journaling::Past;
use crate::{
    cli::StageArg,
    files::{self, Check, Watched},
    matcher::{Match, MatchStage},
    panics,
    plan::Plan,
    proto::{mqtt::Mqtt, print, shard::Shards},
    script::stage::ScriptStage,
    site::Site,
    source::{
        cursor::CursorFile,
        place::{Place, Trail},
    },
    stage::{
        flow::{Dedupe, Sample, Throttle},
        jq::{Keep, Map, Program},
        prefix::Prefix,
    },
    tls::Identity,
    token::Keys,
    topic::{Policy, Stage, Topic},
};
use std::{fmt, io, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tracing::error;

/// Time that a consumer waits at the end of a stream until its upstream has heard that it has everything, and for a standard
/// output that takes nothing.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How long a listener may take to let in who is at the door already.
const LAST_IN: Duration = Duration::from_secs(1);
/// How long, when every reader has heard the goodbye, requests may take to be answered and goodbyes to be heard out: who
/// speaks to a process that is gone loses what its kernel still has for it.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Why a run ended, as `main` turns it into an exit code.
#[derive(Debug, PartialEq)]
pub enum Exit {
    /// All done.
    Done,
    /// Something failed; it was said.
    Failed,
    /// The upstream cannot be reached.
    Unreachable,
    /// The upstream's answer was no stream.
    NoStream,
    /// The upstream refused us.
    Refused,
    /// `--timeout`.
    TimedOut,
    /// The shutdown was asked for.
    Asked,
}

/// A failure at start: what was attempted on what.
#[derive(Debug)]
pub enum StartError {
    /// Something outside.
    Failed(String),
    /// A script that does not load.
    Misconfigured(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (StartError::Failed(why) | StartError::Misconfigured(why)) = self;
        f.write_str(why)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::Failed(error.to_string())
    }
}

/// Runs until there is nothing more to do, or `shutdown` turns true; a change of `reload` asks to read certificates,
/// keys and lists of back ends again.
///
/// # Errors
/// What could not be started.
pub async fn run(
    mut plan: Plan,
    shutdown: watch::Receiver<bool>,
    reload: watch::Receiver<u64>,
) -> Result<Exit, StartError> {
    let instance = format!("{:016x}", rand::random::<u64>());
    let threads = if plan.serve.is_some() { std::thread::available_parallelism().map_or(1, usize::from) } else { 0 };
    let shards = Shards::start(threads, &plan.tuning)?;
    let mut site = Site::new(plan.rules.clone(), plan.tuning.clone(), shards, instance);
    let mut watched: Vec<Arc<dyn Check>> = Vec::new();
    site.mqtt = Mqtt::new(plan.mqtt.base.clone());
    let identity = secure(&mut site, &plan, &mut watched)?;
    watched.extend(balancing::set_up(&mut site, &mut plan, identity.clone()).await?);
    let script_stages = scripting::load_stages(&plan, &mut watched)?;
    let (topic, mut past) = build_topic(&plan, &script_stages)?;
    site.repeats.restore(&topic.path, std::mem::take(&mut past.tags));
    let topic = Arc::new(topic);
    telling::set_up(&mut site, &plan, &topic)?;
    registering::set_up(&mut site, &plan, &topic, &past.notes, &mut watched)?;
    if plan.has_topic() {
        site.add(topic.clone());
    }
    // What scripts name takes the place of what is there.
    scripting::set_up(&mut site, &plan, script_stages, &mut watched)?;
    tokio::spawn(panics::vital("the files that may change", files::watch(watched, reload)));
    let site = Arc::new(site);
    tokio::spawn(panics::vital("what forgets", site.clone().keep_house()));

    let (stop, stopped) = watch::channel(false);
    // Goes on during a drain, so that readiness can be asked then, too.
    let (_open, never) = watch::channel(false);
    let listening = doors::open_all(&site, &plan, stopped, never).await?;
    let mut running = Running { plan: &plan, site: &site, topic, past, identity, shutdown };
    let exit = running.until_end().await?;
    running.drain(&stop, listening, &exit).await;
    running.topic.log.close();
    Ok(exit)
}

/// Reads certificates and keys, which are to be `watched` from here on. Returns who we are to upstreams.
fn secure(
    site: &mut Site,
    plan: &Plan,
    watched: &mut Vec<Arc<dyn Check>>,
) -> Result<Option<Arc<Watched<Identity>>>, StartError> {
    let mut identity = None;
    if let Some(files) = plan.tls.clone() {
        let open = Watched::open(files.paths(), move || Identity::load(&files))?;
        let open = identity.insert(Arc::new(open)).clone();
        watched.push(open.clone());
        site.tls = plan.serve.is_some().then_some(open);
    }
    if !plan.keys.paths().is_empty() {
        let files = plan.keys.clone();
        let keys = Arc::new(Watched::open(files.paths(), move || Keys::load(&files))?);
        watched.push(keys.clone());
        site.keys = Some(keys);
    }
    Ok(identity)
}

fn build_topic(plan: &Plan, scripts: &[ScriptStage]) -> Result<(Topic, Past), StartError> {
    let mut scripts = scripts.iter();
    let stages = plan.stages.iter().map(|stage| build_stage(stage, &mut scripts));
    let stages = stages.collect::<Result<Vec<_>, _>>().map_err(StartError::Failed)?;
    // A name that no request can ask for.
    let path = plan.serve.as_ref().map_or("stdout", |serve| &serve.path);
    let policy = plan.policy.clone().unwrap_or(Policy::Disconnect);
    let view: Vec<String> = plan.stages.iter().map(|stage| format!("{stage:?}")).collect();
    let (log, past) = journaling::build_log(plan, path)?;
    let topic = Topic::new(path.to_owned(), log, stages, &view.join("\n"), policy.clone());
    // Standard output is a reader that is never skipped: the pressure goes upstream.
    if policy == Policy::Block || plan.print.is_some() {
        topic.block(plan.wait_readers.max(1), plan.pin_grace);
    }
    Ok((topic, past))
}

/// Scripts are loaded already, in the same order.
fn build_stage<'a>(
    stage: &StageArg,
    scripts: &mut impl Iterator<Item = &'a ScriptStage>,
) -> Result<Box<dyn Stage>, String> {
    Ok(match stage {
        StageArg::Match(text) => Box::new(MatchStage(Match::parse(text)?)),
        StageArg::Filter(text) => Box::new(Keep::new(Program::compile(text)?)),
        StageArg::Map(text) => Box::new(Map::new(Program::compile(text)?)),
        StageArg::Sample(every) => Box::new(Sample::new(*every)),
        StageArg::Throttle(rate) => Box::new(Throttle::new(*rate)),
        StageArg::Dedupe(pointer) => Box::new(Dedupe::new(pointer.clone())),
        StageArg::HopPrefix => Box::new(Prefix::new()),
        StageArg::Script(file) => Box::new(scripts.next().cloned().ok_or_else(|| format!("load {}", file.display()))?),
    })
}

struct Running<'a> {
    plan: &'a Plan,
    site: &'a Arc<Site>,
    topic: Arc<Topic>,
    /// What a journal gave back beside events.
    past: Past,
    identity: Option<Arc<Watched<Identity>>>,
    shutdown: watch::Receiver<bool>,
}

impl Running<'_> {
    async fn until_end(&mut self) -> Result<Exit, StartError> {
        let cursor_file = self.plan.consuming.cursor_file.clone().map(CursorFile::new);
        let (printed_to, fed_to) = if self.plan.print.is_some() { (cursor_file, None) } else { (None, cursor_file) };
        let remembered = printed_to.as_ref().map(CursorFile::read).transpose()?.flatten();
        let nonsense = |text: &str| StartError::Failed(format!("read the cursor file: `{text}` is no position"));
        let remembered = remembered.map(|text| Place::read(text.as_bytes()).ok_or_else(|| nonsense(&text)));
        let trail = Arc::<Trail>::default();
        let mut upstreams = self.start_upstreams(remembered.transpose()?, &trail, fed_to)?;
        self.start_telling();
        let mut producer = self.start_producer();
        let mut printer =
            self.plan.print.clone().map(|print| tokio::spawn(print::run(self.topic.clone(), print, printed_to, trail)));
        let deadline = self.plan.timeout.unwrap_or(Duration::MAX);
        let mut shutdown = self.shutdown.clone();
        let timed_out = tokio::time::sleep(deadline);
        tokio::pin!(timed_out);
        let mut verdict = None;
        loop {
            tokio::select! {
                () = asked(&mut shutdown) => return Ok(self.print_rest(printer, Exit::Asked).await),
                () = &mut timed_out => return Ok(self.print_rest(printer, Exit::TimedOut).await),
                ended = finished(&mut printer) => {
                    if self.topic.log.ended() && matches!(verdict, None | Some(Exit::Failed)) {
                        // The upstream waits for the last acknowledgement before it closes (LINKS 21).
                        let _ = timeout(LAST_WORD, upstreams.join_next()).await;
                    }
                    return Ok(printed(&ended, verdict.unwrap_or(Exit::Done)));
                }
                Some(ended) = upstreams.join_next() => {
                    let ended = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                    match self.upstream_ended(ended, upstreams.is_empty()) {
                        Some(exit) if printer.is_none() => return Ok(exit),
                        Some(exit) => verdict = self.give_up(verdict, exit),
                        None => {}
                    }
                }
                ended = finished(&mut producer) => {
                    producer = None;
                    match self.input_ended(&ended) {
                        Some(exit) if printer.is_none() => return Ok(exit),
                        Some(exit @ Exit::Failed) => verdict = self.give_up(verdict, exit),
                        // The printer ends at the end of the log, by itself.
                        Some(_) | None => {}
                    }
                }
            }
        }
    }

    /// Ends the log of a consumer that gives up: its printer prints what was received, and only then the exit code is
    /// chosen. The first reason to give up counts.
    fn give_up(&self, before: Option<Exit>, why: Exit) -> Option<Exit> {
        self.topic.log.finish();
        before.or(Some(why))
    }

    /// Prints what was received before this process was told to end, for as long as standard output takes it, and
    /// chooses the exit code.
    async fn print_rest(&self, mut printer: Option<JoinHandle<print::Ended>>, why: Exit) -> Exit {
        if printer.is_none() {
            return why;
        }
        let log = &self.topic.log;
        log.finish();
        loop {
            let printed_to = log.acknowledged_offset();
            match timeout(LAST_WORD, finished(&mut printer)).await {
                Ok(ended) => return printed(&ended, why),
                Err(_) if log.acknowledged_offset() == printed_to => return why,
                Err(_) => {}
            }
        }
    }

    /// No new connections; the readers get what is there and a goodbye.
    async fn drain(&self, stop: &watch::Sender<bool>, listening: JoinSet<()>, exit: &Exit) {
        self.site.set_ready(false);
        if self.plan.serve.is_none() {
            return;
        }
        let log = &self.topic.log;
        if *exit == Exit::Done && log.is_blocking() {
            self.wait_for_pins().await;
        }
        stop.send_replace(true);
        let _ = timeout(LAST_IN, listening.join_all()).await;
        if *exit == Exit::Done {
            let _ = timeout(self.plan.drain_timeout, self.readers_gone()).await;
        }
        self.site.drain(self.plan.drain_spread);
        if timeout(self.plan.drain_spread + self.plan.drain_timeout, self.readers_gone()).await.is_ok() {
            let heard_out = if *exit == Exit::Done { self.plan.drain_timeout } else { LAST_ANSWERS };
            let _ = timeout(heard_out.min(self.plan.drain_timeout), self.connections_gone()).await;
        }
    }

    /// LINKS 21: at EOF the origin waits until every pinned reader has everything; for ever, as a pipe does.
    async fn wait_for_pins(&self) {
        let mut acks = self.topic.log.watch_acks();
        let mut shutdown = self.shutdown.clone();
        let drained = async {
            while !self.topic.log.is_drained() {
                let _ = timeout(Duration::from_secs(1), acks.changed()).await;
                self.topic.log.expire_pins(std::time::Instant::now());
            }
        };
        tokio::select! {
            () = drained => {}
            () = asked(&mut shutdown) => {}
        }
    }

    async fn readers_gone(&self) {
        let relayed = || self.site.balancer.as_ref().map_or(0, |balancer| balancer.relayed());
        let passed_on = || self.site.registry.as_ref().map_or(0, |registry| registry.relayed());
        let owes = || self.site.mqtt.publisher.as_ref().is_some_and(|publisher| publisher.owes());
        while self.site.readers() + relayed() + passed_on() > 0 || owes() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn connections_gone(&self) {
        while self.site.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Whether to go on serving.
type KeepOpen = bool;

/// The exit code of a run that ends for this reason, and has printed so far.
fn printed(ended: &print::Ended, why: Exit) -> Exit {
    match ended {
        print::Ended::Reached => Exit::Done,
        print::Ended::Done => why,
        print::Ended::Failed(error) => {
            error!(%error, "write to standard output");
            Exit::Failed
        }
    }
}

/// Resolves when the shutdown is asked for.
async fn asked(shutdown: &mut watch::Receiver<bool>) {
    if shutdown.wait_for(|asked| *asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The task's result, once; never without a task.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> T {
    match task {
        Some(handle) => match handle.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        },
        None => std::future::pending().await,
    }
}
