//! The log: the bounded, ordered window of a topic, and the only place where positions are given.
//!
//! A reader is an *offset* into it, one number; it never has a queue. Live delivery, replay and history are one
//! [`Log::read`] with different starts. An entry never changes after append. Loss is an entry too (LINKS 15), so every
//! cursor that crosses it tells it.

use crate::{
    event::{Attrs, Batch, Run, Seqs},
    id::{Epoch, Id, Seq, Since},
    pins::{PinId, Pins},
    recorder::{Extent, Note, Record, Recorded, Recorder, Restored, Vitals},
};
use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

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
    fn width(&self) -> u64 {
        self.events().max(1)
    }

    fn events(&self) -> u64 {
        match self {
            Entry::Batch(batch) => batch.len() as u64,
            _ => 0,
        }
    }

    fn size(&self) -> u64 {
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

/// How far a mirror of an upstream's window has come (LINKS 8).
#[derive(Clone, Debug, PartialEq)]
enum Horizon {
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

struct Slot {
    start: u64,
    bytes_before: u64,
    added: Instant,
    /// The position of the log behind this slot.
    last: Seq,
    entry: Entry,
}

/// A stretch of one epoch (LINKS 5).
struct EpochRun {
    epoch: Epoch,
    start: u64,
    /// The position before the first retained event of this epoch.
    floor: Seq,
}

struct State {
    slots: VecDeque<Slot>,
    runs: VecDeque<EpochRun>,
    end: u64,
    totals: Totals,
    limits: Limits,
    numbering: Numbering,
    next_own: u64,
    horizon: Horizon,
    upstream_oldest: Option<Id>,
    /// Offset behind the newest evicted gap: offsets across it do not count events.
    evicted_gap: u64,
    /// A gap of unknown size was evicted: numbers do not count events either.
    evicted_unknown: bool,
    /// False once events may be missing for a reason other than loss: filters upstream or here.
    exact: bool,
    pins: Option<Pins>,
    ended: bool,
}

/// Who keeps what is appended, and how that goes.
struct Kept {
    /// Held while something is appended: it is the order of the log, and readers need not wait for a disk.
    recorder: Mutex<Box<dyn Recorder>>,
    vitals: Arc<Vitals>,
}

/// The turn to append; empty where nobody keeps anything.
type Turn<'a> = Option<MutexGuard<'a, Box<dyn Recorder>>>;

/// See the module's text.
pub struct Log {
    kept: OnceLock<Kept>,
    state: Mutex<State>,
    version: AtomicU64,
    changed: watch::Sender<u64>,
    room: watch::Sender<u64>,
    watchers: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
    /// How far each fan-out thread has come; `u64::MAX` for one without readers.
    pumps: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Log {
    /// An empty log. An origin's first event will be `<epoch>-1`.
    pub fn new(numbering: Numbering, limits: Limits) -> Self {
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
        };
        if let Numbering::Own(epoch) = numbering {
            state.begin_own(epoch);
        }
        Log {
            kept: OnceLock::new(),
            state: Mutex::new(state),
            version: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            room: watch::Sender::new(0),
            watchers: Mutex::new(Vec::new()),
            pumps: Mutex::new(Vec::new()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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
                if let Some(batch) = state.unseen(batch) {
                    state.take_batch(Arc::new(batch), Some(added));
                }
            }
            Recorded::Gap(gap) if !state.has_passed(&gap.to) => state.take_gap(gap, Some(added)),
            Recorded::Place(id, _) if !state.has_passed(&id) => state.take_place(&id),
            Recorded::Gap(_) | Recorded::Place(..) | Recorded::Nothing => {}
        }
    }

    /// Keeps a note that belongs to no entry.
    pub fn note(&self, note: Note) {
        let (mut turn, state) = (self.turn(), self.state());
        drop(self.record(&mut turn, state, &Record::Nothing, Some(note)));
    }

    /// Nothing more will be appended: the recorder may close.
    pub fn close(&self) {
        if let Some(mut recorder) = self.turn() {
            recorder.close();
        }
    }

    fn turn(&self) -> Turn<'_> {
        let kept = self.kept.get()?;
        Some(kept.recorder.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Hands over what is about to be appended. Readers go on meanwhile; nothing else is appended, for it is our turn.
    fn record<'a>(
        &'a self,
        turn: &mut Turn<'_>,
        state: MutexGuard<'a, State>,
        record: &Record<'_>,
        note: Option<Note>,
    ) -> MutexGuard<'a, State> {
        let Some(recorder) = turn else { return state };
        let extent = state.extent();
        drop(state);
        recorder.record(record, note, extent);
        self.state()
    }

    // --- writing ---------------------------------------------------------------------------------------------------

    /// Numbers and appends events that the origin publishes; returns the batch. A run longer than
    /// [`crate::event::MAX_BATCH`] is the caller's to split.
    pub fn publish(&self, run: Run, attrs: Vec<(u32, Arc<Attrs>)>, time: u64) -> Option<Arc<Batch>> {
        self.publish_noted(run, attrs, time, None)
    }

    /// The same with a note that is kept with the events.
    pub fn publish_noted(
        &self,
        run: Run,
        attrs: Vec<(u32, Arc<Attrs>)>,
        time: u64,
        note: Option<Note>,
    ) -> Option<Arc<Batch>> {
        let mut turn = self.turn();
        let mut state = self.state();
        let Numbering::Own(epoch) = state.numbering.clone() else { return None };
        let seqs = Seqs::From(state.next_own);
        state.next_own += run.len() as u64;
        let batch = Arc::new(Batch::new(epoch, seqs, time, run, attrs));
        state = self.record(&mut turn, state, &Record::Batch(&batch), note);
        state.push(batch.last_seq(), Entry::Batch(batch.clone()), None);
        self.announce(state);
        Some(batch)
    }

    /// Appends events that an upstream numbered; what the log already has, by position, is dropped. Says whether
    /// anything was new. An epoch enters once: one that was left for another does not come back (LINKS 5).
    pub fn keep(&self, batch: Batch) -> bool {
        let mut turn = self.turn();
        let mut state = self.state();
        let Some(batch) = state.unseen(batch).map(Arc::new) else { return false };
        state = self.record(&mut turn, state, &Record::Batch(&batch), None);
        state.take_batch(batch, None);
        state.arrive();
        self.announce(state);
        true
    }

    /// Appends a loss that an upstream told, or that we noticed on the way (LINKS 15, 17).
    pub fn keep_gap(&self, gap: Gap) {
        let mut turn = self.turn();
        let mut state = self.state();
        if state.has_passed(&gap.to) {
            return;
        }
        state = self.record(&mut turn, state, &Record::Gap(&gap), None);
        state.take_gap(gap, None);
        state.arrive();
        self.announce(state);
    }

    /// The origin itself lost something: the gap takes a number of its own, so that it has a place in order.
    pub fn publish_gap(&self, count: Option<u64>, reason: &str) {
        let mut turn = self.turn();
        let mut state = self.state();
        let Numbering::Own(epoch) = state.numbering.clone() else { return };
        let from = Seq::whole(state.next_own);
        // A count from the wire must not use the numbers up.
        state.next_own += count.unwrap_or(1).clamp(1, 1 << 32);
        let to = Seq::whole(state.next_own - 1);
        let id = |seq| Id { epoch: epoch.clone(), seq };
        let gap = Gap { from: id(from), to: id(to), count, reason: reason.into() };
        state = self.record(&mut turn, state, &Record::Gap(&gap), None);
        state.take_gap(gap, None);
        self.announce(state);
    }

    /// Nothing of ours is missing up to here, though no event stands there: an upstream or a stage left it out (LINKS 7).
    pub fn advance(&self, id: &Id) {
        let mut turn = self.turn();
        let mut state = self.state();
        if state.has_passed(id) {
            return;
        }
        state = self.record(&mut turn, state, &Record::Place(id, false), None);
        state.take_place(id);
        state.arrive();
        self.announce(state);
        self.signal_room();
    }

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

    /// Wakes whoever watches, though nothing was appended.
    pub fn touch(&self) {
        self.announce(self.state());
    }

    /// From here on the log numbers events itself, behind what it holds (LINKS 2).
    pub fn become_origin(&self, epoch: Epoch) {
        let mut turn = self.turn();
        let id = Id { epoch, seq: Seq::whole(0) };
        let mut state = self.record(&mut turn, self.state(), &Record::Place(&id, true), None);
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
    }

    // --- waiting ---------------------------------------------------------------------------------------------------

    /// A number that rises with every change: compare it to know whether there is anything to do.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// For tasks: resolves when [`Log::version`] moves.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// For threads with a poller of their own: called after every change, outside all locks but its own.
    pub fn on_change(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.watchers.lock().unwrap_or_else(|p| p.into_inner()).push(Box::new(wake));
    }

    fn announce(&self, state: MutexGuard<'_, State>) {
        drop(state);
        let version = self.version.fetch_add(1, Ordering::AcqRel) + 1;
        self.changed.send_replace(version);
        for wake in self.watchers.lock().unwrap_or_else(|p| p.into_inner()).iter() {
            wake();
        }
    }

    // --- block -----------------------------------------------------------------------------------------------------

    /// From now on nothing above the lowest acknowledgement is evicted, and publishers wait (LINKS 19).
    pub fn block(&self, awaited: usize, grace: Duration) {
        let mut state = self.state();
        if state.pins.is_none() {
            state.pins = Some(Pins::new(state.base(), awaited, grace));
        }
    }

    /// Whether the policy is `block`.
    pub fn is_blocking(&self) -> bool {
        self.state().pins.is_some()
    }

    /// A reader begins at `offset`, which [`Log::seek`] found: under `block` its cursor is pinned there. Who `resumes`
    /// has what lies before (LINKS 20). `None` when the place has been evicted since: seek again.
    pub fn join(&self, offset: u64, owner: Option<String>, resumes: bool) -> Option<Joined> {
        let joined = {
            let mut state = self.state();
            if offset < state.base() {
                return None;
            }
            let last = state.position(offset);
            let pin = state.pins.as_mut().map(|pins| {
                if resumes {
                    pins.arrive();
                }
                pins.join(offset, owner)
            });
            Joined { pin, last }
        };
        self.signal_room();
        Some(joined)
    }

    /// Pins a reader's cursor; `None` when the policy is another.
    pub fn pin(&self, offset: u64, owner: Option<String>) -> Option<PinId> {
        let pin = self.state().pins.as_mut().map(|pins| pins.join(offset, owner));
        self.signal_room();
        pin
    }

    /// Everything below `offset` was received.
    pub fn ack(&self, pin: PinId, offset: u64) {
        let moved = self.state().pins.as_mut().is_some_and(|pins| pins.ack(pin, offset));
        if moved {
            self.signal_room();
        }
    }

    /// Everything up to and including this position was received.
    pub fn ack_id(&self, pin: PinId, id: &Id) {
        let offset = self.state().offset_behind(id);
        if let Some(offset) = offset {
            self.ack(pin, offset);
        }
    }

    /// The reader disconnected; or, when `done`, needs nothing more.
    pub fn unpin(&self, pin: PinId, done: bool) {
        if let Some(pins) = self.state().pins.as_mut() {
            if done { pins.release(pin) } else { pins.leave(pin, Instant::now()) }
        }
        self.signal_room();
    }

    /// The offset below which every pinned reader has everything.
    pub fn acknowledged_offset(&self) -> Option<u64> {
        self.state().pins.as_ref()?.acknowledged()
    }

    /// The newest position that every pinned reader has acknowledged; `None` without readers (LINKS 10, `k`).
    pub fn acknowledged(&self) -> Option<Id> {
        let state = self.state();
        let offset = state.pins.as_ref()?.acknowledged()?;
        // The end counts as reached by who has everything before it.
        let behind_events = state.end - u64::from(state.ended);
        if offset >= behind_events { state.last_id() } else { state.position(offset) }
    }

    /// For tasks: resolves when a pin moved.
    pub fn watch_acks(&self) -> watch::Receiver<u64> {
        self.room.subscribe()
    }

    /// A fan-out thread's progress, kept by it: publishers that may wait do not run further ahead than half the window,
    /// so that readers who keep up lose nothing at any offered rate.
    pub fn add_pump(&self) -> Arc<AtomicU64> {
        let pump = Arc::new(AtomicU64::new(u64::MAX));
        self.pumps.lock().unwrap_or_else(|p| p.into_inner()).push(pump.clone());
        pump
    }

    /// The owner of a pump moved it.
    pub fn pump_moved(&self) {
        if self.room.receiver_count() > 0 {
            self.signal_room();
        }
    }

    /// Waits until a publisher may append: at once unless a fan-out thread is far behind, or the policy is `block` and
    /// the unacknowledged part fills the window (LINKS 19). Returns how many pins of departed readers were given up.
    pub async fn room(&self) -> usize {
        let mut acks = self.watch_acks();
        let mut expired = 0;
        while !self.has_room() {
            // The second is for pins whose grace ends without any event.
            let _ = tokio::time::timeout(Duration::from_secs(1), acks.changed()).await;
            expired += self.expire_pins(Instant::now());
        }
        expired
    }

    /// Whether [`Log::room`] would return at once.
    pub fn has_room(&self) -> bool {
        let pumped = self.pumps.lock().unwrap_or_else(|p| p.into_inner());
        let pumped = pumped.iter().map(|pump| pump.load(Ordering::Acquire)).min().unwrap_or(u64::MAX);
        let state = self.state();
        let low = state.pins.as_ref().and_then(Pins::low);
        let behind = |offset: u64| state.totals.bytes - state.bytes_before(offset);
        low.is_none_or(|low| behind(low) < state.limits.bytes)
            && (pumped >= state.end
                || behind(pumped) < state.limits.bytes / 2 && state.end - pumped < state.limits.events / 2)
    }

    /// Whether this pinned reader has acknowledged everything.
    pub fn is_pin_drained(&self, pin: PinId) -> bool {
        let state = self.state();
        let behind_events = state.end - u64::from(state.ended);
        state.pins.as_ref().is_none_or(|pins| pins.at(pin).is_none_or(|at| at >= behind_events))
    }

    /// Gives up the pins of readers that stayed away too long; says how many.
    pub fn expire_pins(&self, now: Instant) -> usize {
        let expired = self.state().pins.as_mut().map_or(0, |pins| pins.expire(now));
        if expired > 0 {
            self.signal_room();
        }
        expired
    }

    /// Whether every pinned reader has acknowledged everything (LINKS 21, at EOF).
    pub fn is_drained(&self) -> bool {
        let state = self.state();
        let behind_events = state.end - u64::from(state.ended);
        state.pins.as_ref().and_then(Pins::low).is_none_or(|low| low >= behind_events)
    }

    fn signal_room(&self) {
        self.room.send_modify(|n| *n += 1);
    }
}

impl State {
    fn base(&self) -> u64 {
        self.slots.front().map_or(self.end, |slot| slot.start)
    }

    /// The log's place within its newest epoch.
    fn last(&self) -> Option<Seq> {
        let run = self.runs.back()?;
        let slot = self.slots.back().filter(|slot| slot.start >= run.start);
        Some(slot.map_or(run.floor, |slot| slot.last))
    }

    fn last_id(&self) -> Option<Id> {
        Some(Id { epoch: self.runs.back()?.epoch.clone(), seq: self.last()? })
    }

    fn slot_at(&self, offset: u64) -> usize {
        self.slots.partition_point(|slot| slot.start + slot.entry.width() <= offset)
    }

    /// The first entry of its epoch that reaches this position.
    fn slot_of(&self, id: &Id) -> Option<&Slot> {
        let at = self.runs.iter().rposition(|run| run.epoch == id.epoch)?;
        let start = self.runs[at].start;
        let limit = self.runs.get(at + 1).map_or(self.end, |next| next.start);
        let is_before = |slot: &Slot| slot.start < start || (slot.start < limit && slot.last < id.seq);
        let slot = self.slots.get(self.slots.partition_point(is_before))?;
        (slot.start < limit && self.runs[at].floor < id.seq).then_some(slot)
    }

    fn bytes_before(&self, offset: u64) -> u64 {
        let Some(slot) = self.slots.get(self.slot_at(offset)) else { return self.totals.bytes };
        let inside = offset.saturating_sub(slot.start) as usize;
        match &slot.entry {
            Entry::Batch(batch) if inside > 0 => slot.bytes_before + batch.run().start_of(inside) as u64,
            _ => slot.bytes_before,
        }
    }

    fn begin_own(&mut self, epoch: Epoch) {
        self.runs.push_back(EpochRun { epoch: epoch.clone(), start: self.end, floor: Seq::whole(0) });
        self.numbering = Numbering::Own(epoch);
        self.next_own = 1;
    }

    fn extent(&self) -> Extent {
        Extent { base: self.base(), end: self.end }
    }

    /// Whether the log stands at this position or behind it.
    fn has_passed(&self, id: &Id) -> bool {
        self.runs.back().is_some_and(|run| run.epoch == id.epoch) && self.last() >= Some(id.seq)
    }

    fn take_batch(&mut self, batch: Arc<Batch>, added: Option<Instant>) {
        self.enter(batch.epoch(), batch.seq(0).before());
        self.push(batch.last_seq(), Entry::Batch(batch), added);
    }

    fn take_gap(&mut self, gap: Gap, added: Option<Instant>) {
        let floor = if gap.from.epoch == gap.to.epoch { gap.from.seq.before() } else { Seq::whole(0) };
        self.enter(&gap.to.epoch, floor);
        self.totals.gaps += 1;
        self.push(gap.to.seq, Entry::Gap(Arc::new(gap)), added);
    }

    fn take_place(&mut self, id: &Id) {
        self.enter(&id.epoch, id.seq);
        self.pass(id.seq);
    }

    /// Begins a new stretch when the epoch is not the current one.
    fn enter(&mut self, epoch: &Epoch, floor: Seq) {
        if self.runs.back().is_none_or(|run| run.epoch != *epoch) {
            self.runs.push_back(EpochRun { epoch: epoch.clone(), start: self.end, floor });
        }
    }

    /// The position moves on without an entry.
    fn pass(&mut self, seq: Seq) {
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
    fn unseen(&self, batch: Batch) -> Option<Batch> {
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
        (!events.is_empty()).then(|| Batch::new(batch.epoch().clone(), Seqs::Each(seqs), batch.time(), run, attrs))
    }

    /// `added` where it was long ago: what is restored.
    fn push(&mut self, last: Seq, entry: Entry, added: Option<Instant>) {
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
    fn evict(&mut self, now: Instant) {
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

    fn drop_front(&mut self) {
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

    fn forget(&mut self, slot: &Slot, behind: u64) {
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
    fn arrive(&mut self) {
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

    fn window(&self) -> Option<Window> {
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
    fn position(&self, offset: u64) -> Option<Id> {
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

    fn lost(&self, offset: u64, base: u64) -> Lost {
        let exact = self.exact && offset >= self.evicted_gap;
        let gapless = self.exact && !self.evicted_unknown;
        Lost { resume: base, to: self.position(base), count: exact.then_some(base - offset), gapless }
    }

    fn pinned_start(&self) -> u64 {
        self.pins.as_ref().and_then(Pins::low).unwrap_or(self.end).max(self.base())
    }

    /// *Now* is the upstream's end when the reader came, not the local end of a mirror that is filling (LINKS 8).
    fn seek_now(&self) -> Start {
        match &self.horizon {
            Horizon::Reached if self.ended => Start::At(self.end - 1),
            Horizon::Reached => Start::At(self.end),
            Horizon::Until(id) => Start::Ahead(Since::After(id.clone())),
            Horizon::Unknown => Start::Unknown,
        }
    }

    fn seek_id(&self, id: &Id) -> Start {
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
    fn first_behind(&self, after: Seq, slots: Range<usize>) -> usize {
        let Range { mut start, mut end } = slots;
        while start < end {
            let middle = start.midpoint(end);
            if self.slots[middle].last <= after { start = middle + 1 } else { end = middle }
        }
        start
    }

    /// The epoch is not here: unknown while the mirror fills, else another life of the origin (LINKS 5, 6).
    fn seek_foreign(&self, id: &Id) -> Start {
        match (&self.horizon, self.runs.front()) {
            (Horizon::Reached, Some(run)) => self.gone(id, run, self.base()),
            _ => Start::Unknown,
        }
    }

    fn gone(&self, id: &Id, run: &EpochRun, offset: u64) -> Start {
        let to = Id { epoch: run.epoch.clone(), seq: run.floor };
        let whole = id.epoch == to.epoch && self.exact && id.seq.k == 0 && to.seq.k == 0;
        let count = (whole && !self.evicted_unknown).then(|| to.seq.n.saturating_sub(id.seq.n));
        let from = Id { epoch: id.epoch.clone(), seq: id.seq.after() };
        Start::Gap(Gap { from, to, count, reason: "no longer retained".into() }, offset)
    }

    fn offset_behind(&self, id: &Id) -> Option<u64> {
        match self.seek_id(id) {
            Start::At(offset) => Some(offset),
            _ => None,
        }
    }

    fn offset_of_time(&self, ms: u64) -> u64 {
        let published = |slot: &Slot| match &slot.entry {
            Entry::Batch(batch) => batch.time() > ms,
            _ => false,
        };
        self.slots.iter().find(|slot| published(slot)).map_or(self.end, |slot| slot.start)
    }

    fn offset_of_last(&self, n: u64) -> u64 {
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
