//! What a log takes and gives: entries, places, answers.

use crate::{
    event::{Attrs, Batch, Run},
    id::{Epoch, Id, Since},
    pins::PinId,
    recorder::Note,
};
use std::{sync::Arc, time::Duration};

/// How much a log retains: whichever bound is met first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Events at most.
    pub events: u64,
    /// Bytes at most, frame headers included.
    pub bytes: u64,
    /// Nothing older than this.
    pub age: Option<Duration>,
}

impl Default for Limits {
    /// 65,536 events or 16 MiB (LINKS 26).
    fn default() -> Self {
        Limits { events: 65_536, bytes: 16 << 20, age: None }
    }
}

/// What is lost for whoever crosses it: `from..=to`, with the exact count where it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// First missing position.
    pub from: Id,
    /// Last missing position.
    pub to: Id,
    /// How many events, exact or unknown.
    pub count: Option<u64>,
    /// Why, for the log line.
    pub reason: Arc<str>,
}

/// One part of what is appended at once: events, and what a recorder keeps with them.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// At most [`crate::event::MAX_BATCH`] bytes of events, or one; `None` where there is only a note.
    pub run: Option<Run>,
    /// Attributes by the index of their event.
    pub attrs: Vec<(u32, Arc<Attrs>)>,
    /// Kept beside them.
    pub note: Option<Note>,
}

/// One element of a log.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Events; occupies one offset each.
    Batch(Arc<Batch>),
    /// Loss; occupies one offset.
    Gap(Arc<Gap>),
    /// The stream has ended; nothing follows (LINKS 18). Occupies one offset.
    End,
}

impl Entry {
    pub(super) fn width(&self) -> u64 {
        self.events().max(1)
    }

    pub(super) fn events(&self) -> u64 {
        match self {
            Entry::Batch(batch) => batch.len() as u64,
            _ => 0,
        }
    }

    pub(super) fn size(&self) -> u64 {
        match self {
            Entry::Batch(batch) => batch.run().bytes().len() as u64,
            _ => 0,
        }
    }
}

/// An entry as read: where it begins, and the position of its last event.
#[derive(Clone, Debug)]
pub struct Item {
    /// The entry's first offset; below the asked one when the cursor stood inside the batch.
    pub offset: u64,
    /// What stands there.
    pub entry: Entry,
}

/// How a log numbers its events (LINKS 2).
#[derive(Clone, Debug)]
pub enum Numbering {
    /// It is the origin.
    Own(Epoch),
    /// One link upstream, whose ids are kept.
    Keep,
}

/// How who watches a log from a thread of its own is told that it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Wake that thread: whoever tells is in the middle of something.
    Wake,
    /// Whoever tells holds no lock and can do a little of that thread's work itself, which saves the switch.
    Deliver,
}

/// How far a mirror of an upstream's window has come (LINKS 8).
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Horizon {
    /// Not connected yet: what the upstream holds is unknown.
    Unknown,
    /// Connected; complete once this position is reached.
    Until(Id),
    /// All there.
    Reached,
}

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// Read from this offset.
    At(u64),
    /// First tell the gap, then read from this offset.
    Gap(Gap, u64),
    /// The position is ahead of what has arrived: ask again when the log moves (LINKS 6).
    Ahead(Since),
    /// Still catching up: ask again when the log moves, within bounds.
    Unknown,
}

/// Where a cursor stands after a read.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The offset to go on from.
    pub next: u64,
    /// The position before it: what the cursor has seen.
    pub last: Option<Id>,
}

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// Its pin, if the policy is `block`.
    pub pin: Option<PinId>,
    /// The position before its first event.
    pub last: Option<Id>,
}

/// A cursor's place is no longer retained.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    /// The oldest retained offset.
    pub resume: u64,
    /// The last position that is gone.
    pub to: Option<Id>,
    /// How many events lay between; `None` when an older gap is among them.
    pub count: Option<u64>,
    /// Whether every number of an epoch stands for an event.
    pub gapless: bool,
}

impl Lost {
    /// How many events are lost for a reader whose next one was `from`, if anybody knows (LINKS 15).
    pub fn count_from(&self, from: &Id) -> Option<u64> {
        let to = self.to.as_ref().filter(|to| self.gapless && to.epoch == from.epoch);
        let whole = to.filter(|to| to.seq.k == 0 && from.seq.k == 0);
        whole.map_or(self.count, |to| Some((to.seq.n + 1).saturating_sub(from.seq.n)))
    }
}

/// The positions a log holds: `oldest` is the first retained, `next` the one to come.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// The first event that can still be read.
    pub oldest: Id,
    /// The next event's position.
    pub next: Id,
}

/// Counters for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Events ever appended.
    pub events: u64,
    /// Bytes ever appended.
    pub bytes: u64,
    /// Gap entries ever appended.
    pub gaps: u64,
    /// Events retained.
    pub held_events: u64,
    /// Bytes retained.
    pub held_bytes: u64,
}
