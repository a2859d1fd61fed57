//! The window itself, behind the log's lock: slots in order, epochs in order, what may go.

use super::{
    append::Owed,
    words::{Entry, Gap, Horizon, Limits, Numbering, Totals},
};
use crate::{
    event::{Batch, Run, Seqs},
    id::{Epoch, Id, Seq},
    pins::Pins,
    recorder::Extent,
};
use std::{collections::VecDeque, sync::Arc, time::Instant};

pub(super) struct Slot {
    pub(super) start: u64,
    pub(super) bytes_before: u64,
    pub(super) added: Instant,
    /// The position of the log behind this slot.
    pub(super) last: Seq,
    pub(super) entry: Entry,
}

/// A stretch of one epoch (LINKS 5).
pub(super) struct EpochRun {
    pub(super) epoch: Epoch,
    pub(super) start: u64,
    /// The position before the first retained event of this epoch.
    pub(super) floor: Seq,
}

pub(super) struct State {
    pub(super) slots: VecDeque<Slot>,
    pub(super) runs: VecDeque<EpochRun>,
    pub(super) end: u64,
    pub(super) totals: Totals,
    pub(super) limits: Limits,
    pub(super) numbering: Numbering,
    pub(super) next_own: u64,
    pub(super) horizon: Horizon,
    pub(super) upstream_oldest: Option<Id>,
    /// Offset behind the newest evicted gap: offsets across it do not count events.
    pub(super) evicted_gap: u64,
    /// A gap of unknown size was evicted: numbers do not count events either.
    pub(super) evicted_unknown: bool,
    /// False once events may be missing for a reason other than loss: filters upstream or here.
    pub(super) exact: bool,
    pub(super) pins: Option<Pins>,
    pub(super) ended: bool,
    /// A loss of the origin's that no entry tells yet: its recorder did not take it.
    pub(super) owed: Option<Owed>,
}

impl State {
    /// Nothing yet. An origin's first event will be `<epoch>-1`.
    pub(super) fn new(numbering: Numbering, limits: Limits) -> Self {
        let horizon = if matches!(numbering, Numbering::Keep) { Horizon::Unknown } else { Horizon::Reached };
        let mut state = State {
            slots: VecDeque::new(),
            runs: VecDeque::new(),
            end: 0,
            totals: Totals::default(),
            limits,
            numbering: Numbering::Keep,
            next_own: 1,
            horizon,
            upstream_oldest: None,
            evicted_gap: 0,
            evicted_unknown: false,
            exact: true,
            pins: None,
            ended: false,
            owed: None,
        };
        if let Numbering::Own(epoch) = numbering {
            state.begin_own(epoch);
        }
        state
    }

    pub(super) fn base(&self) -> u64 {
        self.slots.front().map_or(self.end, |slot| slot.start)
    }

    /// The log's place within its newest epoch.
    pub(super) fn last(&self) -> Option<Seq> {
        let run = self.runs.back()?;
        let slot = self.slots.back().filter(|slot| slot.start >= run.start);
        Some(slot.map_or(run.floor, |slot| slot.last))
    }

    pub(super) fn last_id(&self) -> Option<Id> {
        Some(Id { epoch: self.runs.back()?.epoch.clone(), seq: self.last()? })
    }

    pub(super) fn slot_at(&self, offset: u64) -> usize {
        self.slots.partition_point(|slot| slot.start + slot.entry.width() <= offset)
    }

    /// The first entry of its epoch that reaches this position.
    pub(super) fn slot_of(&self, id: &Id) -> Option<&Slot> {
        let at = self.runs.iter().rposition(|run| run.epoch == id.epoch)?;
        let start = self.runs[at].start;
        let limit = self.runs.get(at + 1).map_or(self.end, |next| next.start);
        let is_before = |slot: &Slot| slot.start < start || (slot.start < limit && slot.last < id.seq);
        let slot = self.slots.get(self.slots.partition_point(is_before))?;
        (slot.start < limit && self.runs[at].floor < id.seq).then_some(slot)
    }

    pub(super) fn bytes_before(&self, offset: u64) -> u64 {
        let Some(slot) = self.slots.get(self.slot_at(offset)) else { return self.totals.bytes };
        let inside = offset.saturating_sub(slot.start) as usize;
        match &slot.entry {
            Entry::Batch(batch) if inside > 0 => slot.bytes_before + batch.run().start_of(inside) as u64,
            _ => slot.bytes_before,
        }
    }

    pub(super) fn begin_own(&mut self, epoch: Epoch) {
        self.runs.push_back(EpochRun { epoch: epoch.clone(), start: self.end, floor: Seq::whole(0) });
        self.numbering = Numbering::Own(epoch);
        self.next_own = 1;
    }

    pub(super) fn extent(&self) -> Extent {
        Extent { base: self.base(), end: self.end }
    }

    /// Whether the log stands at this position or behind it.
    pub(super) fn has_passed(&self, id: &Id) -> bool {
        self.runs.back().is_some_and(|run| run.epoch == id.epoch) && self.last() >= Some(id.seq)
    }

    pub(super) fn take_batch(&mut self, batch: Arc<Batch>, added: Option<Instant>) {
        self.enter(batch.epoch(), batch.seq(0).before());
        self.push(batch.last_seq(), Entry::Batch(batch), added);
    }

    pub(super) fn take_gap(&mut self, gap: Gap, added: Option<Instant>) {
        let floor = if gap.from.epoch == gap.to.epoch { gap.from.seq.before() } else { Seq::whole(0) };
        self.enter(&gap.to.epoch, floor);
        self.totals.gaps += 1;
        self.push(gap.to.seq, Entry::Gap(Arc::new(gap)), added);
    }

    pub(super) fn take_place(&mut self, id: &Id) {
        self.enter(&id.epoch, id.seq);
        self.pass(id.seq);
    }

    /// Begins a new stretch when the epoch is not the current one.
    pub(super) fn enter(&mut self, epoch: &Epoch, floor: Seq) {
        if self.runs.back().is_none_or(|run| run.epoch != *epoch) {
            self.runs.push_back(EpochRun { epoch: epoch.clone(), start: self.end, floor });
        }
    }

    /// The position moves on without an entry.
    pub(super) fn pass(&mut self, seq: Seq) {
        let start = self.runs.back().map_or(self.end, |run| run.start);
        match self.slots.back_mut().filter(|slot| slot.start >= start) {
            Some(slot) => slot.last = slot.last.max(seq),
            None => {
                if let Some(run) = self.runs.back_mut() {
                    run.floor = run.floor.max(seq);
                }
            }
        }
    }

    /// The part of a kept batch that is new; `None` when nothing is.
    pub(super) fn unseen(&self, batch: Arc<Batch>) -> Option<Arc<Batch>> {
        let Some(run) = self.runs.iter().rfind(|run| run.epoch == *batch.epoch()) else { return Some(batch) };
        if self.runs.back().is_some_and(|back| back.epoch != run.epoch) {
            return None;
        }
        let seen = self.last().map_or(0, |last| batch.count_to(last));
        if seen == 0 {
            return Some(batch);
        }
        let events: Vec<_> = batch.events().skip(seen).collect();
        let attrs = events.iter().filter_map(|(i, e)| Some(((i - seen) as u32, e.attrs.clone()?))).collect();
        let seqs = (seen..batch.len()).map(|i| batch.seq(i)).collect();
        let run = Run::of(events.iter().map(|(_, event)| event));
        let rest = || Batch::new(batch.epoch().clone(), Seqs::Each(seqs), batch.time(), run, attrs);
        (!events.is_empty()).then(|| Arc::new(rest()))
    }

    /// `added` where it was long ago: what is restored.
    pub(super) fn push(&mut self, last: Seq, entry: Entry, added: Option<Instant>) {
        let now = Instant::now();
        let added = added.unwrap_or(now);
        let (start, bytes_before) = (self.end, self.totals.bytes);
        self.end += entry.width();
        self.totals.bytes += entry.size();
        self.totals.held_bytes += entry.size();
        // What was taken for the end was not.
        self.ended = matches!(entry, Entry::End);
        self.totals.events += entry.events();
        self.totals.held_events += entry.events();
        self.slots.push_back(Slot { start, bytes_before, added, last, entry });
        self.evict(now);
    }

    /// Whole entries, oldest first; never what a pin still needs, never the newest events, whatever the bounds.
    pub(super) fn evict(&mut self, now: Instant) {
        let low = self.pins.as_ref().and_then(Pins::low);
        while let Some(front) = self.slots.front() {
            let limits = &self.limits;
            let over = self.totals.held_events > limits.events || self.totals.held_bytes > limits.bytes;
            let old = limits.age.is_some_and(|age| now.duration_since(front.added) > age);
            let pinned = low.is_some_and(|low| front.start + front.entry.width() > low);
            let newest = front.entry.events() == self.totals.held_events;
            if !(over || old) || pinned || (newest && !old) {
                break;
            }
            self.drop_front();
        }
    }

    pub(super) fn drop_front(&mut self) {
        let Some(slot) = self.slots.pop_front() else { return };
        let behind = slot.start + slot.entry.width();
        self.forget(&slot, behind);
        while self.runs.get(1).is_some_and(|next| next.start <= slot.start) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut() {
            run.floor = slot.last;
        }
    }

    pub(super) fn forget(&mut self, slot: &Slot, behind: u64) {
        self.totals.held_bytes -= slot.entry.size();
        self.totals.held_events -= slot.entry.events();
        if slot.entry.events() == 0 {
            self.evicted_gap = behind;
        }
        if let Entry::Gap(gap) = &slot.entry {
            self.evicted_unknown |= gap.count.is_none();
        }
    }

    /// The mirror is complete once the upstream's end, as it was when we connected, is here.
    pub(super) fn arrive(&mut self) {
        let Horizon::Until(until) = &self.horizon else { return };
        let here = self.runs.back().is_some_and(|run| run.epoch == until.epoch) && self.last() >= Some(until.seq);
        // Nothing to mirror: the upstream's window is empty.
        let empty = self.upstream_oldest.as_ref().is_some_and(|o| o.epoch == until.epoch && o.seq > until.seq);
        if here || empty {
            if self.runs.is_empty() {
                let until = until.clone();
                self.enter(&until.epoch, until.seq);
            }
            self.horizon = Horizon::Reached;
        }
    }
}
