//! What a log tells whoever keeps it beyond this process, and what it takes back (LINKS 4).
//!
//! The log knows no file: a [`Recorder`] hears of each entry before any reader can see it. `journal` is the one there is.

use crate::{event::Batch, id::Id, log::Gap};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Something that goes on where it stood after a restart keeps it under a name, beside the events that it belongs to:
/// the place in an upstream of a topic that numbers anew (LINKS 2), or what a stage remembers. The newest of each name
/// counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Whose it is.
    pub name: String,
    /// What it says; nothing, when a lasting one is to be forgotten.
    pub value: Bytes,
    /// It outlives its events; else it is given back only beside them, as a [`Tag`].
    pub lasting: bool,
}

/// A note that lives as long as the events that it was kept with.
#[derive(Clone, Debug)]
pub struct Tag {
    /// What the note is called.
    pub name: String,
    /// What it says.
    pub value: Bytes,
    /// The first of its batch.
    pub first: Id,
    /// The last.
    pub last: Id,
}

/// The newest lasting note of each name.
pub type Notes = BTreeMap<String, Bytes>;

/// Takes a lasting note to the others; one that says nothing takes its predecessor away.
pub fn learn(notes: &mut Notes, note: Note) {
    match note.value.is_empty() {
        true => notes.remove(&note.name),
        false => notes.insert(note.name, note.value),
    };
}

/// What happens to a log.
#[derive(Clone, Debug)]
pub enum Record<'a> {
    /// Events are appended.
    Batch(&'a Batch),
    /// A loss is appended.
    Gap(&'a Gap),
    /// The log stands here, without an entry; `own` when it numbers this epoch itself.
    Place(&'a Id, Own),
    /// Only a note.
    Nothing,
}

/// Whether the log numbers an epoch itself.
pub type Own = bool;

/// Where the log's offsets stand when something is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// What lies below is forgotten.
    pub base: u64,
    /// Where the entry will begin.
    pub end: u64,
}

/// Keeps what happens to a log, in order. It never fails its caller: what it cannot keep it counts, and says so.
pub trait Recorder: Send {
    /// Called before anybody can see the entry; the note is kept with it, both or neither.
    fn record(&mut self, record: &Record<'_>, note: Option<Note>, extent: Extent);

    /// What lies below this offset is no longer needed, and `end` is where the log ends.
    fn forget(&mut self, extent: Extent);

    /// Nothing more will come: the next start finds everything.
    fn close(&mut self);
}

/// What a recorder gives back, in order.
#[derive(Debug)]
pub enum Recorded {
    /// Events.
    Batch(Batch),
    /// A loss.
    Gap(Gap),
    /// See [`Record::Place`].
    Place(Id, Own),
    /// Only a note.
    Nothing,
}

/// [`Recorded`], and how long ago it was recorded.
#[derive(Debug)]
pub struct Restored {
    /// What happened.
    pub what: Recorded,
    /// How long ago.
    pub age: Duration,
}

/// How a recorder is doing, for status and metrics.
#[derive(Debug, Default)]
pub struct Vitals {
    /// How it was set up, in words.
    pub mode: String,
    /// Recording may take as long as a disk does.
    pub waits: bool,
    /// Bytes kept.
    pub bytes: AtomicU64,
    /// Times that keeping failed after it had worked.
    pub failures: AtomicU64,
    /// Events that could not be kept.
    pub missed: AtomicU64,
    /// Pieces that were found damaged and set aside.
    pub set_aside: AtomicU64,
    errors: Mutex<BTreeMap<Work, String>>,
}

/// What may go wrong by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Keeping what comes.
    Writing,
    /// Making it safe against the machine's death.
    Syncing,
}

impl Vitals {
    /// Set up like this, all well.
    pub fn new(mode: String, waits: bool) -> Self {
        Vitals { mode, waits, ..Vitals::default() }
    }

    /// What is wrong now; `None` when all is well.
    pub fn error(&self) -> Option<String> {
        self.errors().values().next().cloned()
    }

    /// It failed; says whether it had worked until now.
    pub fn fail(&self, work: Work, why: String) -> bool {
        let before = self.errors().insert(work, why);
        if before.is_none() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        before.is_none()
    }

    /// It works; says whether it had not until now.
    pub fn mend(&self, work: Work) -> bool {
        self.errors().remove(&work).is_some()
    }

    fn errors(&self) -> MutexGuard<'_, BTreeMap<Work, String>> {
        self.errors.lock().unwrap_or_else(|p| p.into_inner())
    }
}
