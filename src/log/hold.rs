//! Who waits for whom: readers for news, and under `block` publishers for acknowledgements (LINKS 19-21).

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
    sync::{MutexGuard, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::watch;

impl Log {
    // --- waiting ---------------------------------------------------------------------------------------------------

    /// A number that rises with every change: compare it to know whether there is anything to do.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// For tasks: resolves when [`Log::version`] moves.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// For threads with a poller of their own: called when there is news, which may be several changes in one, and outside
    /// the state's lock.
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
        let version = self.version();
        self.changed.send_modify(|told| *told = version.max(*told));
        for take in self.watchers.lock().unwrap_or_else(|p| p.into_inner()).iter() {
            take(news);
        }
    }

    /// Whatever is appended within is told once, behind it, and readers take it in one piece; so is what others append
    /// meanwhile, for which it must not take long. Nothing that readers need may be locked here (their topic's roll, for
    /// one): see [`News::Deliver`].
    pub fn at_once<T>(&self, append: impl FnOnce() -> T) -> T {
        struct Held<'a>(&'a Log);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.0.holding.fetch_sub(1, Ordering::SeqCst);
                // Not what was appended here, but what was not told: others may have counted on us.
                if self.0.version() != *self.0.changed.borrow() {
                    self.0.tell(News::Deliver);
                }
            }
        }
        self.holding.fetch_add(1, Ordering::SeqCst);
        let _held = Held(self);
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
