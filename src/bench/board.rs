//! What all readers and the source of one run know together. One thread, so cells instead of locks.

use super::{histogram::Histogram, stamp::Stamp, window::Window};
use crate::units::now_us;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};
use tokio::sync::Notify;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Board {
    /// Readers whose handshake was answered.
    pub connected: Cell<usize>,
    /// Readers whose connection has ended since, whoever ended it.
    pub ended: Cell<usize>,
    /// Readers that got no stream.
    pub failed: Cell<usize>,
    /// Why readers got none, or lost theirs, and how many.
    pub failures: RefCell<BTreeMap<String, usize>>,
    /// From dialling to the answer's head.
    pub handshakes: RefCell<Histogram>,
    /// Events that readers received.
    pub events: Cell<u64>,
    /// Bytes that readers received, with everything around the events.
    pub bytes: Cell<u64>,
    /// Of the events, those with a stamp.
    pub stamped: Cell<u64>,
    /// From stamp to receipt, since [`Board::measures`].
    pub latencies: RefCell<Histogram>,
    /// Whether times count: not while connections are made.
    pub measures: Cell<bool>,
    /// Events that our own source said, and the number of its stamps.
    pub published: Cell<u64>,
    /// See above.
    pub source: Cell<Option<u32>>,
    /// The closed loop, if there is one.
    pub window: RefCell<Option<Window>>,
    /// Rung when it has room, or a reader has come or gone.
    pub bell: Notify,
    /// The highest number that each source said to anybody.
    ends: RefCell<Vec<(u32, u64)>>,
}

impl Board {
    /// An event of this stamp, read at `now` (Unix microseconds).
    pub fn take(&self, stamp: &Stamp, now: u64) {
        add(&self.stamped, 1);
        if self.measures.get() {
            self.latencies.borrow_mut().add(now.saturating_sub(stamp.time));
        }
        let mut ends = self.ends.borrow_mut();
        match ends.iter_mut().find(|(source, _)| *source == stamp.source) {
            Some((_, end)) => *end = stamp.number.max(*end),
            None => ends.push((stamp.source, stamp.number)),
        }
        let made_room = self.source.get() == Some(stamp.source)
            && self.window.borrow_mut().as_mut().is_some_and(|window| window.arrived(stamp.number));
        if made_room {
            self.bell.notify_waiters();
        }
    }

    /// The last number of each source, our own one's by what it said and not by what came.
    pub fn ends(&self) -> Vec<(u32, u64)> {
        let own = self.source.get().zip(self.published.get().checked_sub(1));
        let others =
            self.ends.borrow().iter().filter(|(source, _)| Some(*source) != self.source.get()).copied().collect();
        own.into_iter().chain::<Vec<_>>(others).collect()
    }

    /// A reader that did not come, or went without a goodbye.
    pub fn fail(&self, why: String) {
        *self.failures.borrow_mut().entry(why).or_default() += 1;
        self.bell.notify_waiters();
    }

    /// The handshake's duration of a reader that is there now.
    pub fn connected(&self, since: u64) {
        add(&self.connected, 1);
        self.handshakes.borrow_mut().add(now_us().saturating_sub(since));
        self.bell.notify_waiters();
    }
}

/// Raises a counter.
pub fn add<T: Copy + std::ops::Add<Output = T>>(counter: &Cell<T>, n: T) {
    counter.set(counter.get() + n);
}
