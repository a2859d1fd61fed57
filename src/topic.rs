//! A topic: what one event URL stands for. Stages in front, a log behind.

use crate::{
    event::{Attrs, Batch, Event, MAX_BATCH, Run, RunBuilder, Seqs},
    id::{Id, Seq},
    log::Log,
    recorder::Note,
    roll::Roll,
    tally::Tally,
    wanted::Wishes,
};
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

    /// Numbers and appends what a source says, without waiting; callers that may wait ask [`Log::room`] first. Returns
    /// the first and the last id and the count; `None` when the stages left nothing.
    pub fn publish(&self, events: Vec<Event>, time: u64) -> Option<(Id, Id, usize)> {
        self.publish_noted(events, time, None)
    }

    /// The same with a note that a journal keeps with them: with the last, so that whoever finds it finds all.
    pub fn publish_noted(&self, events: Vec<Event>, time: u64, mut note: Option<Note>) -> Option<(Id, Id, usize)> {
        let mut runs = batches(self.through_stages(events)).into_iter().peekable();
        let mut published = Vec::new();
        while let Some((run, attrs)) = runs.next() {
            let note = note.take_if(|_| runs.peek().is_none());
            published.extend(self.log.publish_noted(run, attrs, time, note));
        }
        if let Some(note) = note {
            self.log.note(note);
        }
        let (first, last) = (published.first()?, published.last()?);
        Some((first.id(0), last.id(last.len() - 1), published.iter().map(|batch| batch.len()).sum()))
    }

    /// Publishes batch by batch, each when there is room for it, so that one large input overruns nobody.
    pub async fn publish_with_patience(&self, events: Vec<Event>, time: u64) -> Option<(Id, Id, usize)> {
        self.publish_patiently_noted(events, time, |_, _| None).await
    }

    /// The same with a note beside the last batch, made from the first id, where another batch has it, and the count.
    pub async fn publish_patiently_noted(
        &self,
        events: Vec<Event>,
        time: u64,
        note: impl FnOnce(Option<&Id>, usize) -> Option<Note>,
    ) -> Option<(Id, Id, usize)> {
        let (mut ids, mut count, mut note) = (None::<(Id, Id)>, 0, Some(note));
        let mut runs = batches(self.through_stages(events)).into_iter().peekable();
        while let Some((run, attrs)) = runs.next() {
            self.log.room().await;
            let last = note.take_if(|_| runs.peek().is_none());
            let note = last.and_then(|note| note(ids.as_ref().map(|(first, _)| first), count + run.len()));
            let waits = self.log.vitals().is_some_and(|vitals| vitals.waits);
            let Some(batch) = aside(waits, || self.log.publish_noted(run, attrs, time, note)) else { continue };
            let (first, last) = (batch.id(0), batch.id(batch.len() - 1));
            count += batch.len();
            ids = Some((ids.map_or(first, |(first, _)| first), last));
        }
        ids.map(|(first, last)| (first, last, count))
    }

    /// Like [`Topic::publish_noted`] for messages that are already laid out.
    pub fn publish_run(&self, run: Run, time: u64, note: Option<Note>) {
        if !self.staged && run.bytes().len() <= MAX_BATCH {
            self.log.publish_noted(run, Vec::new(), time, note);
        } else {
            self.publish_noted(events_of(run), time, note);
        }
    }

    /// Whether an append takes no time to speak of: there is no stage, and no disk.
    pub fn takes_at_once(&self) -> bool {
        !self.staged && self.log.vitals().is_none()
    }

    /// Appends what an upstream numbered. A stage that drops an event leaves a hole, one that splits it gives
    /// `S.1 … S.n` (LINKS 3).
    pub fn keep(&self, batch: Batch) {
        if !self.staged {
            self.log.keep(batch);
            return;
        }
        let (mut events, mut seqs) = (Vec::new(), Vec::new());
        for (i, event) in batch.events() {
            let results = self.through_stages(vec![event]);
            seqs.extend(names(batch.seq(i), results.len()));
            events.extend(results);
        }
        let mut seqs = seqs.into_iter();
        for (run, attrs) in batches(events) {
            let numbers = Seqs::of(seqs.by_ref().take(run.len()).collect());
            self.log.keep(Batch::new(batch.epoch().clone(), numbers, batch.time(), run, attrs));
        }
        self.log.advance(&batch.id(batch.len() - 1));
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

/// What a stage's results for one event are called: itself, or `S.1 … S.n`. The parts of a part get a range of their own,
/// in order, so that no name is given twice.
fn names(seq: Seq, results: usize) -> Vec<Seq> {
    let part = |j: usize| Seq { n: seq.n, k: (seq.k << 16) + j as u32 };
    match (seq.k, results) {
        (0, 1) => vec![seq],
        _ => (1..=results).map(part).collect(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_3_no_name_is_given_twice_and_order_holds() {
        let once: Vec<Seq> = [1, 3].into_iter().flat_map(|n| names(Seq::whole(n), 3)).collect();
        let twice: Vec<Seq> = once.iter().flat_map(|seq| names(*seq, 2)).collect();
        for named in [once, twice] {
            assert!(named.windows(2).all(|pair| pair[0] < pair[1]), "{named:?}");
        }
        assert_eq!(names(Seq::whole(5), 1), [Seq::whole(5)]);
        assert_eq!(names(Seq::whole(5), 0), []);
    }
}
