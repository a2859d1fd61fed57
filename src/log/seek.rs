//! From a position to a place: where a reader begins, what a cursor has seen, what is missing (LINKS 5-8).

use super::{
    state::{EpochRun, Slot, State},
    words::{Entry, Gap, Horizon, Lost, Start, Window},
};
use crate::{
    id::{Id, Seq, Since},
    pins::Pins,
};
use std::ops::Range;

impl State {
    pub(super) fn window(&self) -> Option<Window> {
        let next = |id: Id| Id { seq: id.seq.after(), ..id };
        match &self.horizon {
            Horizon::Unknown => None,
            Horizon::Until(until) => {
                let oldest = self.upstream_oldest.clone().unwrap_or_else(|| next(until.clone()));
                Some(Window { oldest, next: next(until.clone()) })
            }
            Horizon::Reached => {
                let first = self.runs.front()?;
                let oldest = next(Id { epoch: first.epoch.clone(), seq: first.floor });
                Some(Window { oldest, next: next(self.last_id()?) })
            }
        }
    }

    /// What a cursor at `offset` has seen.
    pub(super) fn position(&self, offset: u64) -> Option<Id> {
        let run = self.runs.iter().rfind(|run| run.start < offset).or(self.runs.front())?;
        let at = self.slots.partition_point(|slot| slot.start < offset);
        let seq = match at.checked_sub(1).map(|before| &self.slots[before]) {
            Some(slot) if slot.start + slot.entry.width() > offset => match &slot.entry {
                Entry::Batch(batch) => batch.seq((offset - slot.start) as usize - 1),
                _ => slot.last,
            },
            Some(slot) if slot.start >= run.start => slot.last,
            _ => run.floor,
        };
        Some(Id { epoch: run.epoch.clone(), seq })
    }

    pub(super) fn lost(&self, offset: u64, base: u64) -> Lost {
        let exact = self.exact && offset >= self.evicted_gap;
        let gapless = self.exact && !self.evicted_unknown;
        Lost { resume: base, to: self.position(base), count: exact.then_some(base - offset), gapless }
    }

    pub(super) fn pinned_start(&self) -> u64 {
        self.pins.as_ref().and_then(Pins::low).unwrap_or(self.end).max(self.base())
    }

    /// *Now* is the upstream's end when the reader came, not the local end of a mirror that is filling (LINKS 8).
    pub(super) fn seek_now(&self) -> Start {
        match &self.horizon {
            Horizon::Reached if self.ended => Start::At(self.end - 1),
            Horizon::Reached => Start::At(self.end),
            Horizon::Until(id) => Start::Ahead(Since::After(id.clone())),
            Horizon::Unknown => Start::Unknown,
        }
    }

    pub(super) fn seek_id(&self, id: &Id) -> Start {
        let after = id.seq.covering();
        let Some(at) = self.runs.iter().rposition(|run| run.epoch == id.epoch) else { return self.seek_foreign(id) };
        let run = &self.runs[at];
        if after < run.floor {
            return self.gone(id, run, run.start.max(self.base()));
        }
        let limit = self.runs.get(at + 1).map_or(self.end, |next| next.start);
        let from = self.slots.partition_point(|slot| slot.start < run.start);
        let to = self.slots.partition_point(|slot| slot.start < limit);
        let found = self.first_behind(after, from..to);
        match self.slots.get(found).filter(|_| found < to) {
            Some(slot) => match &slot.entry {
                Entry::Batch(batch) => Start::At(slot.start + batch.count_to(after) as u64),
                // Positions passed behind it do not make it news again.
                Entry::Gap(gap) if gap.to.seq <= after => Start::At(slot.start + 1),
                _ => Start::At(slot.start),
            },
            None if limit == self.end && self.ended => Start::At(self.end - 1),
            None if limit < self.end || self.last().is_some_and(|last| last.covering() >= after) => Start::At(limit),
            None => Start::Ahead(Since::After(id.clone())),
        }
    }

    /// The first of these slots, all of one epoch, that reaches beyond the position.
    pub(super) fn first_behind(&self, after: Seq, slots: Range<usize>) -> usize {
        let Range { mut start, mut end } = slots;
        while start < end {
            let middle = start.midpoint(end);
            if self.slots[middle].last <= after { start = middle + 1 } else { end = middle }
        }
        start
    }

    /// The epoch is not here: unknown while the mirror fills, else another life of the origin (LINKS 5, 6).
    pub(super) fn seek_foreign(&self, id: &Id) -> Start {
        match (&self.horizon, self.runs.front()) {
            (Horizon::Reached, Some(run)) => self.gone(id, run, self.base()),
            _ => Start::Unknown,
        }
    }

    pub(super) fn gone(&self, id: &Id, run: &EpochRun, offset: u64) -> Start {
        let to = Id { epoch: run.epoch.clone(), seq: run.floor };
        let whole = id.epoch == to.epoch && self.exact && id.seq.k == 0 && to.seq.k == 0;
        let count = (whole && !self.evicted_unknown).then(|| to.seq.n.saturating_sub(id.seq.n));
        let from = Id { epoch: id.epoch.clone(), seq: id.seq.after() };
        Start::Gap(Gap { from, to, count, reason: "no longer retained".into() }, offset)
    }

    pub(super) fn offset_behind(&self, id: &Id) -> Option<u64> {
        match self.seek_id(id) {
            Start::At(offset) => Some(offset),
            _ => None,
        }
    }

    pub(super) fn offset_of_time(&self, ms: u64) -> u64 {
        let published = |slot: &Slot| match &slot.entry {
            Entry::Batch(batch) => batch.time() > ms,
            _ => false,
        };
        self.slots.iter().find(|slot| published(slot)).map_or(self.end, |slot| slot.start)
    }

    pub(super) fn offset_of_last(&self, n: u64) -> u64 {
        let mut left = n;
        for slot in self.slots.iter().rev() {
            let Entry::Batch(batch) = &slot.entry else { continue };
            let len = batch.len() as u64;
            if left <= len {
                return slot.start + (len - left);
            }
            left -= len;
        }
        self.base()
    }
}
