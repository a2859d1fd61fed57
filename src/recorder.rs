//! What a log tells whoever keeps it beyond this process, and what it takes back (LINKS 4).
//!
//! The log knows no file: a [`Recorder`] hears of each entry before any reader can see it. `journal` is the one there is.

use crate::{event::Batch, id::Id, log::Gap};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
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

/// The reason why something was not appended. No reader sees it and no number is used up: it may be tried again.
#[derive(Clone, Debug, PartialEq)]
pub enum AppendError {
    /// The log keeps its upstream's numbers and gives none itself.
    NotOrigin,
    /// The recorder cannot keep it.
    Unrecordable {
        /// The fault in words.
        reason: Arc<str>,
        /// Storage is used up; else it fails.
        full: bool,
    },
}

impl AppendError {
    /// The same for the rest of a body of which `count` events are published.
    #[must_use]
    pub fn behind(self, count: usize) -> Self {
        match self {
            AppendError::Unrecordable { reason, full } if count > 0 => {
                let reason = format!("{reason} (the first {count} events of the body are published)").into();
                AppendError::Unrecordable { reason, full }
            }
            other => other,
        }
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::NotOrigin => f.write_str("the topic takes its events from its upstream only"),
            AppendError::Unrecordable { reason, .. } => write!(f, "the journal cannot be written: {reason}"),
        }
    }
}

/// Keeps what happens to a log, in order.
pub trait Recorder: Send {
    /// Keeps these records, each with its note: all of them or none. Called before anybody can see an entry.
    ///
    /// # Errors
    /// [`AppendError::Unrecordable`]: nothing of it is found by the next start, unless this process dies right now.
    fn record(&mut self, records: &[(Record<'_>, Option<&Note>)], extent: Extent) -> Result<(), AppendError>;

    /// The log numbers events itself behind this position, with the next record at the latest.
    fn begin_own(&mut self, id: &Id, extent: Extent);

    /// What lies below this offset is no longer needed, and `end` is where the log ends. Called every now and then, so
    /// that a recorder that failed can find out whether it works again.
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
    /// Events that were refused because they could not be kept.
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

    /// Whether it keeps what comes.
    pub fn is_well(&self) -> bool {
        self.errors().is_empty()
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
