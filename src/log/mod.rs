//! The log: the bounded, ordered window of a topic, and the only place where positions are given.
//!
//! A reader is an *offset* into it, one number; it never has a queue. Live delivery, replay and history are one
//! [`Log::read`] with different starts. An entry never changes after append. Loss is an entry too (LINKS 15), so every
//! cursor that crosses it tells it.

mod append;
mod hold;
mod room;
mod seek;
mod state;
mod words;

pub use room::Pump;
pub use words::{Entry, Gap, Item, Joined, Limits, Lost, News, Numbering, Part, Read, Start, Totals, Window};

use crate::{
    id::{Epoch, Id, Seq, Since},
    panics,
    pins::Pins,
    recorder::{AppendError, Note, Record, Recorded, Recorder, Restored, Vitals},
};
use state::State;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::Instant,
};
use tokio::sync::watch;
use words::Horizon;

/// Who keeps what is appended, and how that goes.
struct Kept {
    /// Held while something is appended: it is the order of the log, and readers need not wait for a disk.
    recorder: Mutex<Box<dyn Recorder>>,
    vitals: Arc<Vitals>,
}

/// The turn to append; empty where nobody keeps anything.
type Turn<'a> = Option<MutexGuard<'a, Box<dyn Recorder>>>;

/// Somebody with a poller of its own, who hears of every change.
type Watcher = Box<dyn Fn(News) + Send + Sync>;

/// See the module's text.
pub struct Log {
    kept: OnceLock<Kept>,
    state: Mutex<State>,
    version: AtomicU64,
    changed: watch::Sender<u64>,
    room: watch::Sender<u64>,
    /// How many wait for room.
    waiting: AtomicUsize,
    /// How many hold news back for a moment.
    holding: AtomicUsize,
    /// Who waits for the recorder, in order.
    held_up: tokio::sync::Mutex<()>,
    watchers: Mutex<Vec<Watcher>>,
    /// How far readers have come, by fan-out thread.
    pumps: Mutex<Vec<Arc<Pump>>>,
}

impl Log {
    /// An empty log. An origin's first event will be `<epoch>-1`.
    pub fn new(numbering: Numbering, limits: Limits) -> Self {
        Log {
            kept: OnceLock::new(),
            state: Mutex::new(State::new(numbering, limits)),
            version: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            room: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            holding: AtomicUsize::new(0),
            held_up: tokio::sync::Mutex::new(()),
            watchers: Mutex::new(Vec::new()),
            pumps: Mutex::new(Vec::new()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Half an entry must not reach anybody.
        self.state.lock().unwrap_or_else(|_| panics::give_up("the log"))
    }

    // --- keeping ---------------------------------------------------------------------------------------------------

    /// From here on the recorder hears of everything before a reader can see it (LINKS 4). The first one stays.
    pub fn record_to(&self, recorder: Box<dyn Recorder>, vitals: Arc<Vitals>) {
        let _ = self.kept.set(Kept { recorder: Mutex::new(recorder), vitals });
    }

    /// How the recorder is doing; `None` without one.
    pub fn vitals(&self) -> Option<&Vitals> {
        self.kept.get().map(|kept| &*kept.vitals)
    }

    /// Takes back what a recorder kept, in order, before anything else is appended.
    pub fn restore(&self, restored: Restored) {
        let now = Instant::now();
        let added = now.checked_sub(restored.age).unwrap_or(now);
        let mut state = self.state();
        match restored.what {
            Recorded::Batch(batch) => {
                if let Some(batch) = state.unseen(Arc::new(batch)) {
                    state.take_batch(batch, Some(added));
                }
            }
            Recorded::Gap(gap) if !state.has_passed(&gap.to) => state.take_gap(gap, Some(added)),
            Recorded::Place(id, _) if !state.has_passed(&id) => state.take_place(&id),
            Recorded::Gap(_) | Recorded::Place(..) | Recorded::Nothing => {}
        }
    }

    /// Nothing more will be appended: the recorder may close.
    pub fn close(&self) {
        if let Some(mut recorder) = self.turn() {
            recorder.close();
        }
    }

    fn turn(&self) -> Turn<'_> {
        let kept = self.kept.get()?;
        Some(kept.recorder.lock().unwrap_or_else(|_| panics::give_up("the journal")))
    }

    /// Hands over what is about to be appended. Readers go on meanwhile; nothing else is appended, for it is our turn.
    /// Where it is refused, the log stays as it is.
    fn record<'a>(
        &'a self,
        turn: &mut Turn<'_>,
        state: MutexGuard<'a, State>,
        records: &[(Record<'_>, Option<&Note>)],
    ) -> Result<MutexGuard<'a, State>, AppendError> {
        let Some(recorder) = turn else { return Ok(state) };
        let extent = state.extent();
        drop(state);
        recorder.record(records, extent)?;
        Ok(self.state())
    }

    // --- writing ---------------------------------------------------------------------------------------------------

    /// Nothing will follow (LINKS 18). It is not kept: a source that starts again has more to say.
    pub fn finish(&self) {
        let _turn = self.turn();
        let mut state = self.state();
        if !state.ended {
            let last = state.last().unwrap_or(Seq::whole(0));
            state.push(last, Entry::End, None);
        }
        self.announce(state);
    }

    /// Something will follow after all: who comes from now on waits for it, instead of being told the end.
    pub fn reopen(&self) {
        let _turn = self.turn();
        let mut state = self.state();
        state.ended = false;
        self.announce(state);
    }

    /// Wakes whoever watches, though nothing was appended.
    pub fn touch(&self) {
        self.announce(self.state());
    }

    /// From here on the log numbers events itself, behind what it holds (LINKS 2).
    pub fn become_origin(&self, epoch: Epoch) {
        let mut turn = self.turn();
        let id = Id { epoch, seq: Seq::whole(0) };
        if let Some(recorder) = &mut turn {
            let extent = self.state().extent();
            recorder.begin_own(&id, extent);
        }
        let mut state = self.state();
        state.begin_own(id.epoch);
        state.horizon = Horizon::Reached;
        self.announce(state);
    }

    /// The same in the epoch that it was restored with, behind its newest number (LINKS 4).
    pub fn continue_as_origin(&self) {
        let _turn = self.turn();
        let mut state = self.state();
        let Some(last) = state.last_id() else { return };
        state.next_own = last.seq.after().n;
        state.numbering = Numbering::Own(last.epoch);
        state.horizon = Horizon::Reached;
        self.announce(state);
    }

    /// The upstream said what it holds: mirror until its `next` is reached. `None` when it does not say.
    pub fn set_upstream_window(&self, window: Option<Window>) {
        let mut state = self.state();
        state.upstream_oldest = window.as_ref().map(|w| w.oldest.clone());
        state.horizon = window.map_or(Horizon::Reached, |w| Horizon::Until(Id { seq: w.next.seq.before(), ..w.next }));
        state.arrive();
        self.announce(state);
    }

    /// Events may be missing for reasons other than loss, so gaps cannot be counted any more.
    pub fn set_inexact(&self) {
        self.state().exact = false;
    }

    // --- reading ---------------------------------------------------------------------------------------------------

    /// Copies entries from `offset` on into `out`, at least one if there is any, up to about `max_bytes`.
    ///
    /// # Errors
    /// [`Lost`] when the place is no longer retained.
    pub fn read(&self, offset: u64, max_bytes: usize, out: &mut Vec<Item>) -> Result<Read, Lost> {
        let state = self.state();
        if offset >= state.end {
            return Ok(Read { next: state.end, last: state.last_id() });
        }
        let base = state.base();
        if offset < base {
            return Err(state.lost(offset, base));
        }
        let (mut bytes, mut next) = (0, offset);
        for slot in state.slots.range(state.slot_at(offset)..) {
            if next > offset && bytes >= max_bytes as u64 {
                break;
            }
            bytes += slot.entry.size();
            next = slot.start + slot.entry.width();
            out.push(Item { offset: slot.start, entry: slot.entry.clone() });
        }
        Ok(Read { next, last: state.position(next) })
    }

    /// Where a reader that asks for `since` begins. `None` is a reader that does not say: *now*, or under `block` the
    /// first retained event while the first readers are awaited (LINKS 20).
    pub fn seek(&self, since: Option<&Since>, now_ms: u64) -> Start {
        let state = self.state();
        match since {
            None if state.pins.as_ref().is_some_and(Pins::awaiting) => Start::At(state.pinned_start()),
            None | Some(Since::Now) => state.seek_now(),
            Some(Since::Oldest) if state.horizon == Horizon::Unknown && state.slots.is_empty() => Start::Unknown,
            Some(Since::Oldest) => Start::At(state.base()),
            Some(Since::After(id)) => state.seek_id(id),
            Some(_) if state.horizon != Horizon::Reached => Start::Unknown,
            Some(Since::Time(ms)) => Start::At(state.offset_of_time(*ms)),
            Some(Since::Ago(ago)) => Start::At(state.offset_of_time(now_ms.saturating_sub(ago.as_millis() as u64))),
            Some(Since::Last(n)) => Start::At(state.offset_of_last(*n)),
        }
    }

    /// How much is retained.
    pub fn limits(&self) -> Limits {
        self.state().limits
    }

    /// The oldest retained offset.
    pub fn base(&self) -> u64 {
        self.state().base()
    }

    /// The offset behind the newest entry.
    pub fn end(&self) -> u64 {
        self.state().end
    }

    /// Where a cursor stands that has read everything.
    pub fn tip(&self) -> Read {
        let state = self.state();
        Read { next: state.end, last: state.last_id() }
    }

    /// The newest position, if `offset` is still the end.
    pub fn last_at(&self, offset: u64) -> Option<Id> {
        let state = self.state();
        state.last_id().filter(|_| offset == state.end)
    }

    /// When the entry of this position was appended here; `None` when it is not retained.
    pub fn arrived(&self, id: &Id) -> Option<Instant> {
        self.state().slot_of(id).map(|slot| slot.added)
    }

    /// The newest position, and `None` before the first.
    pub fn last(&self) -> Option<Id> {
        self.state().last_id()
    }

    /// What can be resumed from: the upstream's values while catching up, `None` when unknown.
    pub fn window(&self) -> Option<Window> {
        self.state().window()
    }

    /// Bytes between `offset` and the end.
    pub fn bytes_behind(&self, offset: u64) -> u64 {
        let state = self.state();
        state.totals.bytes - state.bytes_before(offset)
    }

    /// Counters.
    pub fn totals(&self) -> Totals {
        self.state().totals
    }

    /// Whether [`Log::finish`] was called.
    pub fn ended(&self) -> bool {
        self.state().ended
    }

    /// Drops what is older than the age bound at `now`.
    pub fn expire(&self, now: Instant) {
        let mut turn = self.turn();
        let mut state = self.state();
        state.evict(now);
        let extent = state.extent();
        drop(state);
        if let Some(recorder) = &mut turn {
            recorder.forget(extent);
        }
        drop(turn);
        self.settle_gap();
    }
}
