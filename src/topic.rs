//! A topic: what one event URL stands for. Stages in front, a log behind.

mod publish;

use crate::{event::Event, log::Log, roll::Roll, tally::Tally, wanted::Wishes};
use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::runtime::{Handle, RuntimeFlavor};

/// What happens to a reader that does not keep up.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// It is closed with its last position, so that it can resume.
    Disconnect,
    /// It skips ahead and is told how many it missed.
    DropOldest,
    /// The publisher waits for it: lossless.
    Block,
    /// It gets the newest event per value at this JSON pointer (RFC 6901).
    Conflate(String),
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Disconnect => f.write_str("disconnect"),
            Policy::DropOldest => f.write_str("drop-oldest"),
            Policy::Block => f.write_str("block"),
            Policy::Conflate(pointer) => write!(f, "conflate:{pointer}"),
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "disconnect" => Ok(Policy::Disconnect),
            None if text == "drop-oldest" => Ok(Policy::DropOldest),
            None if text == "block" => Ok(Policy::Block),
            Some(("conflate", pointer)) if pointer.starts_with('/') => Ok(Policy::Conflate(pointer.into())),
            _ => Err(format!("`{text}` is not a policy: type disconnect, drop-oldest, block or conflate:/pointer")),
        }
    }
}

/// What requests for a topic mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Manner {
    /// The URL's parameters may say what is wanted.
    #[default]
    Asked,
    /// Whoever comes, from whatever page, wants the stream, and all parameters are about the reader: a named stream.
    Open,
}

/// Events in, events out; never waits.
pub trait Stage: Send {
    /// Pushes what becomes of the event: nothing, itself, another, or several.
    fn apply(&mut self, event: Event, out: &mut Vec<Event>);

    /// Whether the same event always gives the same result. A stage that is not pure makes the topic renumber
    /// (LINKS 3).
    fn is_pure(&self) -> bool {
        true
    }

    /// Whether it may take as long as other work should not wait for.
    fn may_dawdle(&self) -> bool {
        false
    }

    /// Counts the events on which it failed, if it can fail.
    fn errors(&self) -> Option<Arc<AtomicU64>> {
        None
    }
}

/// See the module's text.
pub struct Topic {
    /// The path, with its leading slash.
    pub path: String,
    /// Events in order.
    pub log: Log,
    /// What requests for it mean.
    pub manner: Manner,
    stages: Mutex<Vec<Box<dyn Stage>>>,
    staged: bool,
    dawdles: bool,
    /// Our stages and the upstream's view.
    view: Mutex<(String, String)>,
    policy: Mutex<Policy>,
    /// By upstream: instances from it to the origin, comma separated (LINKS 25).
    provenance: Mutex<BTreeMap<usize, String>>,
    moves: AtomicU64,
    /// Readers connected now.
    pub readers: AtomicUsize,
    /// Whom an event reaches.
    pub roll: Roll,
    /// What readers want to see of it.
    pub wishes: Wishes,
    /// What became of the readers.
    pub tally: Tally,
    stage_errors: Vec<Arc<AtomicU64>>,
}

impl Topic {
    /// A topic that applies `stages` in order to whatever is published.
    ///
    /// `view` names the stages, so that replicas with the same ones can tell (LINKS 3).
    pub fn new(path: String, log: Log, stages: Vec<Box<dyn Stage>>, view: &str, policy: Policy) -> Self {
        let stage_errors = stages.iter().filter_map(|stage| stage.errors()).collect();
        let staged = !stages.is_empty();
        let dawdles = stages.iter().any(|stage| stage.may_dawdle());
        if staged {
            log.set_inexact();
        }
        Topic {
            path,
            log,
            manner: Manner::default(),
            stages: Mutex::new(stages),
            staged,
            dawdles,
            view: Mutex::new((view.to_owned(), String::new())),
            policy: Mutex::new(policy),
            provenance: Mutex::default(),
            moves: AtomicU64::new(0),
            readers: AtomicUsize::new(0),
            roll: Roll::default(),
            wishes: Wishes::default(),
            tally: Tally::default(),
            stage_errors,
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        self.policy.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// Turns to `block`, because the flags or the upstream say so (the policy travels).
    pub fn block(&self, awaited_readers: usize, pin_grace: Duration) {
        *self.policy.lock().unwrap_or_else(|p| p.into_inner()) = Policy::Block;
        self.log.block(awaited_readers, pin_grace);
    }

    /// Instances from the upstreams to their origins, each once.
    pub fn provenance(&self) -> String {
        let paths = self.provenance.lock().unwrap_or_else(|p| p.into_inner());
        let mut instances: Vec<&str> = Vec::new();
        for instance in paths.values().flat_map(|path| path.split(',')).filter(|instance| !instance.is_empty()) {
            if !instances.contains(&instance) {
                instances.push(instance);
            }
        }
        instances.join(",")
    }

    /// Where the events of one upstream, by its number, come from; readers are told when that changed.
    pub fn set_provenance(&self, upstream: usize, path: String) {
        let mut provenance = self.provenance.lock().unwrap_or_else(|p| p.into_inner());
        let moved = provenance.insert(upstream, path.clone()) != Some(path);
        drop(provenance);
        if moved {
            self.moves.fetch_add(1, Ordering::AcqRel);
            self.log.touch();
        }
    }

    /// What the upstream's stages make of the stream.
    pub fn set_upstream_view(&self, view: &str) {
        if !view.is_empty() {
            self.log.set_inexact();
        }
        view.clone_into(&mut self.view.lock().unwrap_or_else(|p| p.into_inner()).1);
    }

    /// What the upstream's stages were called.
    pub fn upstream_view(&self) -> String {
        self.view.lock().unwrap_or_else(|p| p.into_inner()).1.clone()
    }

    /// Names all stages up to the origin; `None` without any.
    pub fn view(&self) -> Option<String> {
        let view = self.view.lock().unwrap_or_else(|p| p.into_inner());
        let (own, upstream) = &*view;
        match own.is_empty() {
            true => Some(upstream.clone()).filter(|view| !view.is_empty()),
            false => Some(format!("{:016x}", fnv1a(&[upstream.as_bytes(), b"\0", own.as_bytes()].concat()))),
        }
    }

    /// How often the path to the origin has changed.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// Events on which a stage failed: they were dropped.
    pub fn stage_errors(&self) -> u64 {
        self.stage_errors.iter().map(|errors| errors.load(Ordering::Relaxed)).sum()
    }

    /// Readers connected now.
    pub fn reader_count(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    /// Whether an append takes no time to speak of: there is no stage, and no disk.
    pub fn takes_at_once(&self) -> bool {
        !self.staged && self.log.vitals().is_none()
    }

    fn through_stages(&self, events: Vec<Event>) -> Vec<Event> {
        if !self.staged {
            return events;
        }
        aside(self.dawdles, || apply(&mut self.stages.lock().unwrap_or_else(|p| p.into_inner()), events))
    }
}

/// Lets other tasks go on where this one `waits`, for a disk or for a stage.
fn aside<T>(waits: bool, run: impl FnOnce() -> T) -> T {
    let flavor = || Handle::try_current().map(|handle| handle.runtime_flavor());
    match waits.then(flavor) {
        Some(Ok(RuntimeFlavor::MultiThread)) => tokio::task::block_in_place(run),
        _ => run(),
    }
}

fn apply(stages: &mut [Box<dyn Stage>], mut events: Vec<Event>) -> Vec<Event> {
    for stage in stages {
        let mut out = Vec::with_capacity(events.len());
        for event in events {
            stage.apply(event, &mut out);
        }
        events = out;
    }
    events
}

/// FNV-1a, 64 bits: a name that is the same on every machine and version.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
