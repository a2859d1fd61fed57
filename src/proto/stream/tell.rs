//! Positions told and acknowledgements heard (LINKS 10-13), and the signs of life of both sides.

use super::Steps;
use crate::{
    event::Batch,
    id::Id,
    link::{POSITION_EVERY, Signal},
    proto::{wire::Wire, ws::encode},
    units::now_ms,
};
use bytes::Bytes;
use rand::RngExt;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// While something is unacknowledged (LINKS 11).
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Positions remembered for a peer that never answers; any later answer acknowledges the older ones, too.
const MAX_WAITING: usize = 4096;
/// How far the time that a link would give an event may be off.
const TOLERANCE_MS: u64 = 250;

/// What a reader was told.
pub(super) struct Told {
    /// Messages sent.
    pub n: u64,
    /// What is believed to come next.
    pub expected: Option<Id>,
    /// The origin's clock less ours, in milliseconds (LINKS 9).
    pub clock: i64,
    /// Bytes since the last `p`, and those after which the next is due: few enough that a small window does not run dry
    /// meanwhile.
    pub bytes: u64,
    pub every: u64,
    /// Something was read since the reader was at the tip.
    pub fresh: bool,
    at: Instant,
    /// By messages sent: the log's offset there, not acknowledged yet.
    waiting: VecDeque<(u64, u64)>,
    acked: u64,
    acked_at: Instant,
}

impl Told {
    /// For a log that retains so many bytes.
    pub(super) fn new(retained: u64, now: Instant) -> Self {
        Told {
            n: 0,
            expected: None,
            clock: 0,
            bytes: 0,
            every: POSITION_EVERY.min(retained / 4),
            fresh: false,
            at: now,
            waiting: VecDeque::new(),
            acked: 0,
            acked_at: now,
        }
    }

    /// The reader has everything below `offset`.
    pub(super) fn begin(&mut self, offset: u64, now: Instant) {
        (self.acked, self.acked_at) = (offset, now);
    }

    /// Whether a link gives these events their ids and times by itself.
    pub(super) fn goes_on(&self, batch: &Batch, from: usize, expected: Option<&Id>, now: u64) -> bool {
        let time = now.saturating_add_signed(self.clock);
        encode::is_contiguous(batch, from, expected) && time.abs_diff(batch.time()) <= TOLERANCE_MS
    }

    /// Everything below was received by a reader whose cursor this is: once every position told is acknowledged, what
    /// the kernel took since counts, too.
    pub(super) fn received(&self, cursor: u64) -> u64 {
        if self.waiting.is_empty() { cursor } else { self.acked.min(cursor) }
    }

    /// The newest offset that was named.
    fn named(&self) -> u64 {
        self.waiting.back().map_or(self.acked, |(_, offset)| *offset)
    }

    /// Any pong acknowledges everything before it, and never moves back (LINKS 13).
    fn acknowledge(&mut self, n: u64, now: Instant) -> Option<u64> {
        let mut moved = None;
        while self.waiting.front().is_some_and(|(told, _)| *told <= n) {
            moved = self.waiting.pop_front().map(|(_, offset)| offset);
        }
        self.acked_at = now;
        let moved = moved.filter(|&offset| offset > self.acked)?;
        self.acked = moved;
        Some(moved)
    }

    /// How long the reader has owed an acknowledgement of what is below `offset`.
    pub(super) fn waited(&mut self, offset: u64, now: Instant) -> Duration {
        if self.acked >= offset {
            self.acked_at = now;
        }
        now.duration_since(self.acked_at)
    }
}

impl Steps {
    /// A `p`; for protocols without one, what was written counts as received.
    pub(super) fn tell(&mut self, last: Option<&Id>, offset: u64, now: Instant) -> Bytes {
        (self.told.bytes, self.told.at) = (0, now);
        if !self.wire.is_websocket() {
            self.told.begin(offset, now);
            if let Some(pin) = self.pin {
                self.topic.log.ack(pin, offset);
            }
            return Bytes::new();
        }
        if self.told.waiting.len() == MAX_WAITING {
            self.told.waiting.pop_front();
        }
        self.told.waiting.push_back((self.told.n, offset));
        self.wire.position(last, self.told.n, now_ms().saturating_add_signed(self.told.clock))
    }

    /// After every so many bytes (LINKS 11).
    pub(super) fn tell_when_due(&mut self, now: Instant) -> Option<Bytes> {
        let due = self.told.bytes >= self.told.every && self.is_tracked();
        due.then(|| self.tell_standing(now))
    }

    fn tell_standing(&mut self, now: Instant) -> Bytes {
        let (offset, last) = self.standing();
        self.tell(last.as_ref(), offset, now)
    }

    /// The offset to read on from, and the position before it.
    pub(super) fn standing(&self) -> (u64, Option<Id>) {
        let expected = || self.told.expected.as_ref().map(Id::previous);
        (self.cursor, self.topic.log.last_at(self.cursor).or_else(expected))
    }

    /// What there is to say when there is nothing to read.
    pub(super) fn say(&mut self, now: Instant) -> Option<Bytes> {
        if std::mem::take(&mut self.probes) {
            return Some(self.wire.probe());
        }
        if self.keep_alive_due().is_some_and(|due| due <= now) {
            // With the position, which may have passed events that a stage or an audience left out (LINKS 7).
            let last = if self.is_reading() { self.standing().1 } else { None };
            return Some([&b":\n"[..], &self.wire.position(last.as_ref(), 0, 0)].concat().into());
        }
        if !self.is_reading() {
            return None;
        }
        let moves = self.topic.moves();
        if std::mem::replace(&mut self.moves, moves) != moves && self.wire.is_link() {
            return Some(encode::ping(&Signal::PathChanged).freeze());
        }
        let (misled, ping) = (self.is_misled(), self.ping_due().is_some_and(|due| due <= now));
        if ping {
            self.ping_due = now + self.ping_interval();
        }
        let due = misled || ping || self.told_due().is_some_and(|due| due <= now);
        due.then(|| self.tell_standing(now)).filter(|piece| !piece.is_empty())
    }

    /// A link that did not see the newest events hears what comes next (LINKS 11).
    fn is_misled(&mut self) -> bool {
        if !std::mem::take(&mut self.told.fresh) || !self.wire.is_link() {
            return false;
        }
        let (_, last) = self.standing();
        let next = last.as_ref().map(Id::next);
        let misled = self.told.expected != next;
        self.told.expected = next;
        misled
    }

    pub(super) fn told_due(&self) -> Option<Instant> {
        let due = self.is_tracked() && self.is_reading() && self.cursor > self.told.named();
        due.then(|| self.told.at + TELL_EVERY)
    }

    pub(super) fn ping_due(&self) -> Option<Instant> {
        (self.wire.is_websocket() && self.is_reading()).then_some(self.ping_due)
    }

    /// A comment on an event stream that is silent.
    pub(super) fn keep_alive_due(&self) -> Option<Instant> {
        (self.wire.protocol() == Wire::Sse).then(|| self.spoke + self.tasks.tuning.keep_alive)
    }

    /// Jittered.
    pub(super) fn ping_interval(&self) -> Duration {
        self.tasks.tuning.ping_interval.mul_f64(rand::rng().random_range(0.8..1.2)).max(Duration::from_secs(1))
    }

    /// The peer said something.
    pub fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The pong of a `p`. A plain pinned reader's moves its pin, a link's pin moves by `k` only (LINKS 19).
    pub fn take_pong(&mut self, payload: &[u8], now: Instant) {
        self.ponged = true;
        let Some(Signal::Position { n, .. }) = Signal::parse(payload) else { return };
        let Some(offset) = self.told.acknowledge(n, now) else { return };
        if let (Wire::Ws, Some(pin)) = (self.wire.protocol(), self.pin) {
            self.topic.log.ack(pin, offset);
        }
    }

    /// A ping of the peer's, which may be a `k`.
    pub fn take_ping(&mut self, payload: &[u8], now: Instant) {
        if let (Some(pin), Some(Signal::Keep(id))) = (self.pin, Signal::parse(payload)) {
            self.topic.log.ack_id(pin, &id);
            self.told.acked_at = now;
        }
    }
}
