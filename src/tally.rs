//! What became of a topic's readers, in numbers. Whoever serves them counts: once per wake, per batch on the way back to
//! the tip, and per connection, never per event and reader. The core only keeps the sums, by wire form.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Wire forms that are told apart; which is which is not the core's business.
pub const FORMS: usize = 5;

/// How a reader's connection ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    /// The stream had ended, and the reader had all of it.
    Done,
    /// The peer closed, or the connection broke.
    Left,
    /// It did not keep up.
    Slow,
    /// Its position was no longer retained.
    Gone,
    /// It was asked to come back later.
    Retry,
    /// It broke a rule.
    Fault,
    /// It did not answer.
    Silent,
    /// This process ends.
    Restart,
    /// It may not read any more.
    Refused,
}

/// Every ending with its name.
pub const ENDINGS: [(Ending, &str); 9] = [
    (Ending::Done, "done"),
    (Ending::Left, "left"),
    (Ending::Slow, "slow"),
    (Ending::Gone, "gone"),
    (Ending::Retry, "retry"),
    (Ending::Fault, "fault"),
    (Ending::Silent, "silent"),
    (Ending::Restart, "restart"),
    (Ending::Refused, "refused"),
];

/// One wire form's readers.
#[derive(Debug, Default)]
struct Form {
    came: AtomicU64,
    went: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Tally {
    forms: [Form; FORMS],
    endings: [AtomicU64; ENDINGS.len()],
    gaps_told: AtomicU64,
    skipped: AtomicU64,
}

/// A wire form's sums at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Readers connected now.
    pub readers: u64,
    /// Readers that ever came.
    pub came: u64,
    /// Events handed to sockets.
    pub events: u64,
    /// Bytes of them, as encoded.
    pub bytes: u64,
}

impl Tally {
    /// A reader was adopted.
    pub fn enter(&self, form: usize) {
        self.forms[form].came.fetch_add(1, Relaxed);
    }

    /// A reader's connection is gone.
    pub fn leave(&self, form: usize) {
        self.forms[form].went.fetch_add(1, Relaxed);
    }

    /// Why a reader's connection ended, once per connection.
    pub fn end(&self, ending: Ending) {
        self.endings[ending as usize].fetch_add(1, Relaxed);
    }

    /// So many events in so many bytes went to each of so many readers.
    pub fn sent(&self, form: usize, readers: u64, events: u64, bytes: u64) {
        if readers > 0 {
            self.forms[form].events.fetch_add(readers * events, Relaxed);
            self.forms[form].bytes.fetch_add(readers * bytes, Relaxed);
        }
    }

    /// A reader was told of a loss.
    pub fn tell_gap(&self) {
        self.gaps_told.fetch_add(1, Relaxed);
    }

    /// A slow reader skipped so many events.
    pub fn skip(&self, events: u64) {
        self.skipped.fetch_add(events, Relaxed);
    }

    /// The sums of one wire form.
    pub fn form(&self, form: usize) -> Sums {
        let form = &self.forms[form];
        // Read in this order, so that nobody has left who never came.
        let went = form.went.load(Relaxed);
        let came = form.came.load(Relaxed);
        let readers = came.saturating_sub(went);
        Sums { readers, came, events: form.events.load(Relaxed), bytes: form.bytes.load(Relaxed) }
    }

    /// The sums of all wire forms.
    pub fn all(&self) -> Sums {
        (0..FORMS).map(|form| self.form(form)).fold(Sums::default(), |sum, form| Sums {
            readers: sum.readers + form.readers,
            came: sum.came + form.came,
            events: sum.events + form.events,
            bytes: sum.bytes + form.bytes,
        })
    }

    /// Connections that ended so.
    pub fn ended(&self, ending: Ending) -> u64 {
        self.endings[ending as usize].load(Relaxed)
    }

    /// Times that a reader was told of a loss.
    pub fn gaps_told(&self) -> u64 {
        self.gaps_told.load(Relaxed)
    }

    /// Events that slow readers skipped, where they could be counted.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_kept_by_form_and_together() {
        let tally = Tally::default();
        tally.enter(0);
        tally.enter(0);
        tally.enter(3);
        tally.leave(0);
        tally.sent(0, 2, 10, 500);
        tally.sent(3, 1, 10, 900);
        tally.sent(1, 0, 10, 500);
        assert_eq!(tally.form(0), Sums { readers: 1, came: 2, events: 20, bytes: 1000 });
        assert_eq!(tally.form(1), Sums::default());
        assert_eq!(tally.all(), Sums { readers: 2, came: 3, events: 30, bytes: 1900 });
    }

    #[test]
    fn every_ending_has_its_own_count() {
        let tally = Tally::default();
        ENDINGS.iter().enumerate().for_each(|(n, (ending, _))| (0..n).for_each(|_| tally.end(*ending)));
        let counted: Vec<u64> = ENDINGS.iter().map(|(ending, _)| tally.ended(*ending)).collect();
        assert_eq!(counted, (0..ENDINGS.len() as u64).collect::<Vec<_>>());
    }
}
