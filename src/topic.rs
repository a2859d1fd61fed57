//! A topic: what one event URL stands for. Stages in front, a log behind.

use crate::{
    event::{Attrs, Batch, Event, MAX_BATCH, Run, RunBuilder, Seqs},
    id::{Id, Seq},
    log::Log,
};
use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

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

/// Events in, events out; never waits.
pub trait Stage: Send {
    /// Pushes what becomes of the event: nothing, itself, another, or several.
    fn apply(&mut self, event: Event, out: &mut Vec<Event>);

    /// Whether the same event always gives the same result. A stage that is not pure makes the topic renumber
    /// (LINKS 3).
    fn is_pure(&self) -> bool {
        true
    }
}

/// See the module's text.
pub struct Topic {
    /// The path, with its leading slash.
    pub path: String,
    /// Events in order.
    pub log: Log,
    stages: Mutex<Vec<Box<dyn Stage>>>,
    staged: bool,
    policy: Mutex<Policy>,
    /// Instances from the upstream to the origin, comma separated (LINKS 25).
    provenance: Mutex<String>,
    moves: AtomicU64,
    /// Readers connected now.
    pub readers: AtomicUsize,
}

impl Topic {
    /// A topic that applies `stages` in order to whatever is published.
    pub fn new(path: String, log: Log, stages: Vec<Box<dyn Stage>>, policy: Policy) -> Self {
        let staged = !stages.is_empty();
        if staged {
            log.set_inexact();
        }
        Topic {
            path,
            log,
            stages: Mutex::new(stages),
            staged,
            policy: Mutex::new(policy),
            provenance: Mutex::default(),
            moves: AtomicU64::new(0),
            readers: AtomicUsize::new(0),
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

    /// Instances from the upstream to the origin.
    pub fn provenance(&self) -> String {
        self.provenance.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// Where the upstream's events come from; readers are told when that changed.
    pub fn set_provenance(&self, path: String) {
        let mut provenance = self.provenance.lock().unwrap_or_else(|p| p.into_inner());
        let moved = std::mem::replace(&mut *provenance, path.clone()) != path;
        drop(provenance);
        if moved {
            self.moves.fetch_add(1, Ordering::AcqRel);
            self.log.touch();
        }
    }

    /// How often the path to the origin has changed.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// Readers connected now.
    pub fn reader_count(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    /// Numbers and appends what a source says, without waiting; callers that may wait ask [`Log::room`] first. Returns
    /// the first and the last id and the count; `None` when the stages left nothing.
    pub fn publish(&self, events: Vec<Event>, time: u64) -> Option<(Id, Id, usize)> {
        let runs = batches(self.through_stages(events)).into_iter();
        let published: Vec<_> = runs.filter_map(|(run, attrs)| self.log.publish(run, attrs, time)).collect();
        let (first, last) = (published.first()?, published.last()?);
        Some((first.id(0), last.id(last.len() - 1), published.iter().map(|batch| batch.len()).sum()))
    }

    /// Like [`Topic::publish`] for messages that are already laid out.
    pub fn publish_run(&self, run: Run, time: u64) {
        if !self.staged && run.bytes().len() <= MAX_BATCH {
            self.log.publish(run, Vec::new(), time);
        } else {
            self.publish(events_of(run), time);
        }
    }

    /// Appends what an upstream numbered. A stage that drops an event leaves a hole, one that splits it gives
    /// `S.1 … S.n` (LINKS 3).
    pub fn keep(&self, batch: Batch) {
        if !self.staged {
            self.log.keep(batch);
            return;
        }
        let mut stages = self.stages.lock().unwrap_or_else(|p| p.into_inner());
        let (mut events, mut seqs) = (Vec::new(), Vec::new());
        for (i, event) in batch.events() {
            let before = events.len();
            let single = apply(&mut stages, vec![event]);
            let whole = batch.seq(i);
            match single.len() {
                1 => seqs.push(whole),
                n => seqs.extend((1..=n as u32).map(|k| Seq { n: whole.n, k })),
            }
            events.extend(single);
            debug_assert_eq!(events.len() - before, seqs.len() - before);
        }
        let mut seqs = seqs.into_iter();
        for (run, attrs) in batches(events) {
            let numbers = Seqs::Each(seqs.by_ref().take(run.len()).collect());
            self.log.keep(Batch::new(batch.epoch().clone(), numbers, batch.time(), run, attrs));
        }
    }

    fn through_stages(&self, events: Vec<Event>) -> Vec<Event> {
        if !self.staged {
            return events;
        }
        apply(&mut self.stages.lock().unwrap_or_else(|p| p.into_inner()), events)
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

fn events_of(run: Run) -> Vec<Event> {
    let event = |m: crate::event::Message| Event { payload: run.bytes().slice(m.payload), text: m.text, attrs: None };
    run.messages().map(event).collect()
}

/// What is known of each event that has attributes, by its index in the run.
type RunAttrs = Vec<(u32, Arc<Attrs>)>;

/// Lays events into runs of at most [`MAX_BATCH`] bytes, or one event.
fn batches(events: Vec<Event>) -> Vec<(Run, RunAttrs)> {
    let (mut done, mut run, mut attrs) = (Vec::new(), RunBuilder::default(), Vec::new());
    for event in events {
        if run.size() > 0 && run.size() + event.payload.len() + 10 > MAX_BATCH {
            done.push((run.finish(), std::mem::take(&mut attrs)));
        }
        if let Some(known) = event.attrs {
            attrs.push((run.len() as u32, known));
        }
        run.push(event.text, &event.payload);
    }
    if run.size() > 0 {
        done.push((run.finish(), attrs));
    }
    done
}
