//! When a reader must go, and its goodbye.

use super::{Place, Step, Steps};
use crate::{
    link::GoAway,
    proto::{
        shard::{NO_PONG, STALLED, ending},
        wire::{Farewell, Wire},
    },
    sys::Kernel,
    tally::Ending,
    topic::Policy,
};
use bytes::Bytes;
use rand::RngExt;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

impl Steps {
    /// What the kernel knows of a pinned reader's connection: a paused one is there, a dead one is not (LINKS 21).
    pub fn see_kernel(&mut self, view: Option<Kernel>) {
        self.kernel = view;
    }

    /// The process drains: this reader's turn is somewhere in that time.
    pub(super) fn note_drain(&mut self, now: Instant) {
        if let Some(spread) = *self.drain.borrow_and_update() {
            let share = spread.mul_f64(rand::rng().random_range(0.0..=1.0));
            self.leaves.get_or_insert(now + share);
        }
    }

    /// Whether the peer is not there any more: then there is nobody to say goodbye to.
    pub(super) fn is_gone(&self, now: Instant) -> Option<&'static str> {
        let dead = |view: Kernel| !view.all_received() && view.last_ack >= STALLED;
        if self.is_pinned() && self.kernel.is_some_and(dead) {
            return Some("its kernel is silent");
        }
        let patience = (self.tasks.tuning.ping_interval * 3).max(Duration::from_secs(3));
        let silent = self.wire.is_websocket() && now.duration_since(self.heard) > patience;
        // A client that knows no pongs is there as long as its kernel acknowledges our pings.
        let answers = |view: Kernel| view.all_received() || view.last_ack <= patience;
        let mute = !self.ponged && self.kernel.is_some_and(answers);
        // A pinned reader may be paused on purpose (LINKS 22).
        (silent && self.is_reading() && !self.is_pinned() && !mute).then_some("no pong")
    }

    pub(super) fn must_leave(&mut self, now: Instant, clear: bool) -> Option<Farewell> {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if is_due(self.expires) {
            return Some(Farewell::Expired);
        }
        if is_due(self.leaves) {
            return Some(Farewell::Restart(1000));
        }
        match self.place {
            Place::New(..) | Place::Gone => None,
            Place::Parked(_, deadline) => is_due(deadline).then_some(Farewell::GoAway(GoAway::Retry(1000))),
            Place::Reading if self.ended && self.is_done() => Some(Farewell::Done),
            Place::Reading => {
                let slow = self.is_too_slow(now, clear);
                slow.then(|| Farewell::GoAway(GoAway::Slow(self.standing().1)))
            }
        }
    }

    fn is_too_slow(&mut self, now: Instant, clear: bool) -> bool {
        if self.is_pinned() {
            return self.holds_up(now, clear);
        }
        if self.skip {
            return false;
        }
        let (log, policy) = (&self.topic.log, self.topic.policy());
        let evicted = policy == Policy::Disconnect && self.cursor < log.base();
        let backlog = self.tasks.tuning.backlog.filter(|_| !clear && policy != Policy::Block);
        evicted || backlog.is_some_and(|limit| log.bytes_behind(self.cursor) > limit)
    }

    /// Who may hold the publisher up, and how long (LINKS 21).
    fn holds_up(&mut self, now: Instant, clear: bool) -> bool {
        let waited = self.told.waited(self.cursor, now);
        if self.tasks.tuning.block_timeout.is_some_and(|timeout| waited >= timeout) {
            return true;
        }
        // A client that knows no pongs acknowledges by its kernel: weaker, but it cannot resume anyway.
        let received = self.kernel.is_some_and(|view| view.all_received());
        if self.wire.protocol() == Wire::Ws && !self.ponged && clear && waited >= NO_PONG && received {
            self.told.begin(self.cursor, now);
            if let Some(pin) = self.pin {
                self.topic.log.ack(pin, self.cursor);
            }
        }
        false
    }

    /// Whether everything was received, as far as anybody waits for that.
    pub(super) fn is_done(&self) -> bool {
        self.pin.is_none_or(|pin| self.topic.log.is_pin_drained(pin))
    }

    /// The goodbye in the protocol's form. A link hears where it stands before every close (LINKS 11).
    pub fn leave(&mut self, why: &Farewell) -> Step {
        let stands = self.wire.is_link() && self.is_reading();
        let told = match stands {
            true => {
                let (offset, last) = self.standing();
                self.tell(last.as_ref(), offset, Instant::now())
            }
            false => Bytes::new(),
        };
        if let Farewell::GoAway(_) | Farewell::Fault(_) = why {
            tracing::info!(peer = ?self.peer, topic = %self.topic.path, reason = %why.reason(), "reader closed");
        }
        let done = *why == Farewell::Done;
        self.uncount(ending(why));
        self.release(done);
        self.give_pump_back();
        let position = if done { self.topic.log.last() } else { None };
        Step::Last([told, self.wire.farewell(why)].concat().into(), position)
    }

    /// Who has heard the goodbye is no reader any more.
    pub(super) fn uncount(&mut self, how: Ending) {
        if matches!(std::mem::replace(&mut self.place, Place::Gone), Place::Gone) {
            return;
        }
        self.topic.tally.end(how);
        self.topic.readers.fetch_sub(1, Ordering::Relaxed);
        self.straggler = None;
        if let Some(place) = self.listed.take() {
            self.topic.roll.leave(place);
        }
    }

    /// What a publisher said is published from here on, and nobody waits for it as a reader: it would wait for itself
    /// (LINKS 23). For not reading what it said it is not closed: it skips ahead, and is told.
    pub fn turn_publisher(&mut self) {
        self.release(true);
        self.skip = true;
    }

    /// The topic need not wait for this reader any more.
    pub(super) fn release(&mut self, done: bool) {
        if let Some(pin) = self.pin.take() {
            self.topic.log.unpin(pin, done);
        }
    }
}
