//! Who may hold whom under `block` (LINKS 19-21): the cursors below which nothing is evicted.
//!
//! Offsets only: this file knows neither events nor connections, and time is a parameter.

use std::time::{Duration, Instant};

/// Names one reader's pin for the life of the log.
pub type PinId = u64;

#[derive(Debug)]
struct Pin {
    id: PinId,
    /// Everything below was acknowledged.
    at: u64,
    /// What the reader calls itself, so that it finds its pin again.
    owner: Option<String>,
    /// When it disconnected.
    left: Option<Instant>,
}

/// The pins of one log.
#[derive(Debug)]
pub struct Pins {
    /// How long a departed reader's pin stays.
    grace: Duration,
    /// Readers that must still come before the virtual pin goes (LINKS 20).
    awaited: usize,
    /// Where the virtual pin stands.
    first: u64,
    held: Vec<Pin>,
    next: PinId,
    /// The highest that a reader who went had acknowledged: with none here it stays (LINKS 10).
    settled: Option<u64>,
}

impl Pins {
    /// A virtual pin at `first` until `awaited` readers have come.
    pub fn new(first: u64, awaited: usize, grace: Duration) -> Self {
        Pins { grace, awaited, first, held: Vec::new(), next: 1, settled: None }
    }

    /// The lowest pin: nothing from here on may be evicted.
    pub fn low(&self) -> Option<u64> {
        let first = (self.awaited > 0).then_some(self.first);
        self.held.iter().map(|pin| pin.at).chain(first).min()
    }

    /// The lowest acknowledged offset of real readers: what upstream may be told (LINKS 10, `k`).
    pub fn acknowledged(&self) -> Option<u64> {
        self.held.iter().map(|pin| pin.at).min().or(self.settled).filter(|_| self.awaited == 0)
    }

    /// Whether the first readers are still to come.
    pub fn awaiting(&self) -> bool {
        self.awaited > 0
    }

    /// Readers connected now.
    pub fn present(&self) -> usize {
        self.held.iter().filter(|pin| pin.left.is_none()).count()
    }

    /// A reader begins at `at`. It takes over the pin that it left behind: its own by name, even where nobody noticed
    /// yet that it left; else, for a reader without a name, the highest one that was left at or below its start.
    pub fn join(&mut self, at: u64, owner: Option<String>) -> PinId {
        let id = self.next;
        self.next += 1;
        // Who begins at the virtual pin takes it over; who only wants what comes from now on does not.
        if at <= self.first {
            self.arrive();
        }
        let gone = |pin: &Pin| pin.left.is_some() || owner.is_some();
        let orphan = |pin: &&Pin| gone(pin) && pin.at <= at && pin.owner == owner;
        if let Some(old) = self.held.iter().filter(orphan).max_by_key(|pin| pin.at).map(|pin| pin.id) {
            self.release(old);
        }
        self.held.push(Pin { id, at, owner, left: None });
        id
    }

    /// One of the awaited readers is here: also one that resumes, having what lies before its start.
    pub fn arrive(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
    }

    /// Everything below `at` was received; never moves back. Says whether the pin moved.
    pub fn ack(&mut self, id: PinId, at: u64) -> bool {
        match self.held.iter_mut().find(|pin| pin.id == id) {
            Some(pin) if at > pin.at => {
                pin.at = at;
                true
            }
            _ => false,
        }
    }

    /// Where a reader's pin stands.
    pub fn at(&self, id: PinId) -> Option<u64> {
        self.held.iter().find(|pin| pin.id == id).map(|pin| pin.at)
    }

    /// The reader disconnected: its pin stays for the grace time (LINKS 21).
    pub fn leave(&mut self, id: PinId, now: Instant) {
        if let Some(pin) = self.held.iter_mut().find(|pin| pin.id == id) {
            pin.left = Some(now);
        }
    }

    /// The reader is done: it needs nothing more.
    pub fn release(&mut self, id: PinId) {
        self.drop_where(|pin| pin.id == id);
    }

    /// Drops the pins of readers that stayed away too long; says how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let grace = self.grace;
        self.drop_where(|pin| pin.left.is_some_and(|left| now.duration_since(left) >= grace))
    }

    fn drop_where(&mut self, gone: impl Fn(&Pin) -> bool) -> usize {
        let before = self.held.len();
        self.settled = self.held.iter().filter(|pin| gone(pin)).map(|pin| pin.at).chain(self.settled).max();
        self.held.retain(|pin| !gone(pin));
        before - self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[test]
    fn links_20_the_virtual_pin_holds_until_the_awaited_readers_came() {
        let mut pins = Pins::new(5, 2, GRACE);
        assert_eq!(pins.low(), Some(5));
        let a = pins.join(5, None);
        pins.ack(a, 9);
        assert_eq!((pins.low(), pins.acknowledged()), (Some(5), None));
        pins.join(7, None);
        assert_eq!(pins.low(), Some(5), "it did not ask for what the virtual pin holds");
        pins.join(5, None);
        assert_eq!((pins.low(), pins.acknowledged()), (Some(5), Some(5)));
    }

    #[test]
    fn links_21_a_departed_pin_stays_for_the_grace_and_is_taken_over_on_return() {
        let start = Instant::now();
        let mut pins = Pins::new(0, 1, GRACE);
        let a = pins.join(0, Some("a".into()));
        pins.ack(a, 10);
        pins.leave(a, start);
        assert_eq!(pins.expire(start + GRACE / 2), 0);
        assert_eq!(pins.low(), Some(10));
        let again = pins.join(12, Some("a".into()));
        assert_eq!(pins.low(), Some(12), "its old pin went");
        pins.leave(again, start);
        assert_eq!(pins.expire(start + GRACE), 1);
        assert_eq!(pins.low(), None);
    }

    #[test]
    fn links_13_acknowledgements_never_move_back() {
        let mut pins = Pins::new(3, 1, GRACE);
        let a = pins.join(3, None);
        assert!(pins.ack(a, 8) && !pins.ack(a, 6) && !pins.ack(99, 20));
        assert_eq!(pins.low(), Some(8));
    }

    #[test]
    fn links_10_what_was_acknowledged_stays_when_the_last_reader_goes() {
        let mut pins = Pins::new(0, 1, GRACE);
        let a = pins.join(0, None);
        pins.ack(a, 9);
        pins.release(a);
        assert_eq!((pins.low(), pins.acknowledged()), (None, Some(9)));
    }

    #[test]
    fn a_stranger_does_not_take_over_a_named_pin() {
        let mut pins = Pins::new(0, 1, GRACE);
        let a = pins.join(0, Some("a".into()));
        pins.leave(a, Instant::now());
        pins.join(4, Some("b".into()));
        assert_eq!(pins.low(), Some(0));
    }

    #[test]
    fn links_21_what_was_given_up_does_not_hold_back_what_others_acknowledged() {
        let start = Instant::now();
        let mut pins = Pins::new(0, 1, GRACE);
        let gone = pins.join(0, Some("gone".into()));
        pins.leave(gone, start);
        let done = pins.join(0, Some("done".into()));
        pins.ack(done, 9);
        pins.release(done);
        assert_eq!(pins.acknowledged(), Some(0), "somebody may come back");
        pins.expire(start + GRACE);
        assert_eq!(pins.acknowledged(), Some(9));
    }

    #[test]
    fn links_21_a_named_reader_takes_over_its_pin_before_anybody_noticed_that_it_left() {
        let mut pins = Pins::new(0, 1, GRACE);
        pins.join(0, Some("a".into()));
        pins.join(4, Some("a".into()));
        assert_eq!(pins.low(), Some(4));
    }
}
