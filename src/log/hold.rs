//! Who waits for whom: readers for news, publishers for readers (LINKS 19-21).

use super::{
    Log,
    state::State,
    words::{Joined, News},
};
use crate::{
    id::Id,
    pins::{PinId, Pins},
};
use std::{
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A source that waits for room stays so few bytes ahead of the fan-out: what it read is written while it is still in
/// the processor's cache.
const LEAD: u64 = 512 << 10;

/// Somebody who waits for room, for as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Log {
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
    pub fn on_change(&self, take: impl Fn(News) + Send + Sync + 'static) {
        self.watchers.lock().unwrap_or_else(|p| p.into_inner()).push(Box::new(take));
    }

    pub(super) fn announce(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.version.fetch_add(1, Ordering::SeqCst);
        // Who holds the news back tells it afterwards.
        if self.holding.load(Ordering::SeqCst) == 0 {
            self.tell(News::Wake);
        }
    }

    fn tell(&self, news: News) {
        self.changed.send_replace(self.version());
        for take in self.watchers.lock().unwrap_or_else(|p| p.into_inner()).iter() {
            take(news);
        }
    }

    /// Whatever is appended within is told once, behind it, and readers take it in one piece. Nothing that they need may
    /// be locked here: see [`News::Deliver`].
    pub fn at_once<T>(&self, append: impl FnOnce() -> T) -> T {
        struct Held<'a>(&'a Log, u64);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                let Held(log, before) = self;
                log.holding.fetch_sub(1, Ordering::SeqCst);
                if log.version() != *before {
                    log.tell(News::Deliver);
                }
            }
        }
        self.holding.fetch_add(1, Ordering::SeqCst);
        let _held = Held(self, self.version());
        append()
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

    /// The owner of a pump moved it. Who waits for room is woken when there is enough of it to be worth while.
    pub fn pump_moved(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 && self.is_led_by_less_than(LEAD / 2) {
            self.signal_room();
        }
    }

    /// Waits until a publisher that can wait may append: at once unless a fan-out thread is behind by [`LEAD`], or the
    /// policy is `block` and the unacknowledged part fills the window (LINKS 19). Returns how many pins of departed
    /// readers were given up.
    pub async fn room(&self) -> usize {
        if self.is_led_by_less_than(LEAD) {
            return 0;
        }
        let mut acks = self.watch_acks();
        let _waiting = Waiting::of(&self.waiting);
        let mut expired = 0;
        while !self.is_led_by_less_than(LEAD / 2) {
            // The second is for pins whose grace ends without any event.
            let _ = tokio::time::timeout(Duration::from_secs(1), acks.changed()).await;
            expired += self.expire_pins(Instant::now());
        }
        expired
    }

    /// Whether a publisher may append that had better not wait: no fan-out thread is half a window behind.
    pub fn has_room(&self) -> bool {
        self.is_led_by_less_than(u64::MAX)
    }

    /// Whether no fan-out thread is that many bytes behind, or half a window, nor `block` in force.
    fn is_led_by_less_than(&self, bytes: u64) -> bool {
        let pumped = self.pumps.lock().unwrap_or_else(|p| p.into_inner());
        let pumped = pumped.iter().map(|pump| pump.load(Ordering::SeqCst)).min().unwrap_or(u64::MAX);
        let state = self.state();
        let low = state.pins.as_ref().and_then(Pins::low);
        let behind = |offset: u64| state.totals.bytes - state.bytes_before(offset);
        let (events, bytes) = (state.limits.events / 2, bytes.min(state.limits.bytes / 2));
        low.is_none_or(|low| behind(low) < state.limits.bytes)
            && (pumped >= state.end || behind(pumped) < bytes && state.end - pumped < events)
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

    pub(super) fn signal_room(&self) {
        self.room.send_modify(|n| *n += 1);
    }
}
