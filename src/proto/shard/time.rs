//! What the clock brings: pings, keep-alives, give-ups, the drain.

use super::{LEAVE_SECS, NO_PONG, STALLED, Shard, conn::Place, leave::SILENT};
use crate::{
    link::GoAway,
    proto::wire::{Farewell, Wire},
    sys::{self, Kernel},
    topic::Policy,
};
use rand::RngExt;
use std::time::{Duration, Instant};

impl Shard {
    pub(super) fn next_ping(&self) -> u32 {
        let interval = self.tuning.ping_interval.as_secs_f64();
        self.second().saturating_add((interval * rand::rng().random_range(0.8..1.2)).ceil().max(1.0) as u32)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let second = self.second();
        let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            if self.conns.contains(key) {
                self.tick_conn(key, second, now);
            }
        }
        for lane in 0..self.lanes.len() {
            self.lanes[lane].topic.log.expire(now);
            let expired = self.lanes[lane].topic.log.expire_pins(now);
            if expired > 0 {
                tracing::warn!(topic = %self.lanes[lane].topic.path, readers = expired, "gave up waiting for the return of slow readers");
            }
            if now.duration_since(self.lanes[lane].quiet_since) >= self.tuning.keep_alive {
                self.lanes[lane].quiet_since = now;
                self.keep_alive(lane);
            }
            self.enforce_backlog(lane);
        }
    }

    pub(super) fn tick_conn(&mut self, key: usize, second: u32, now: Instant) {
        let conn = &mut self.conns[key];
        let (due, place) = (second >= conn.due, conn.place);
        match place {
            Place::New => {}
            Place::Leaving if !due => {}
            Place::Leaving if conn.is_taking() => conn.due = second + LEAVE_SECS,
            Place::Leaving => self.drop_conn(key, "no answer to the goodbye"),
            _ if second >= conn.expires => self.leave(key, &Farewell::Expired),
            Place::Parked(_) if u64::from(second) >= conn.cursor => {
                self.leave(key, &Farewell::GoAway(GoAway::Retry(1000)));
            }
            _ if self.draining && due => self.leave(key, &Farewell::Restart(1000)),
            _ if self.draining => {}
            _ => {
                if self.is_tracked(key) {
                    self.tick_tracked(key, now);
                }
                if self.conns.contains(key) && due {
                    self.ping(key, second);
                }
            }
        }
    }

    /// A `p` at least every second while something is unacknowledged (LINKS 11).
    pub(super) fn tick_tracked(&mut self, key: usize, now: Instant) {
        let conn = &self.conns[key];
        let Some(more) = &conn.more else { return };
        let lane = &self.lanes[conn.lane];
        let offset = if matches!(conn.place, Place::Tip(_)) { lane.live } else { conn.cursor };
        let told = more.told.back().map_or(more.acked, |(_, offset)| *offset);
        let due = now.duration_since(more.told_at) >= Duration::from_secs(1);
        if conn.is_clear() && due && offset > told && !matches!(conn.place, Place::Parked(_)) {
            let (offset, last) = self.standing(key);
            if !self.tell_position(key, last.as_ref(), offset) {
                return;
            }
        }
        if self.conns[key].more().pin.is_some() {
            self.tick_pinned(key, offset, now);
        }
    }

    /// Who may hold the publisher up, and how long (LINKS 21).
    fn tick_pinned(&mut self, key: usize, offset: u64, now: Instant) {
        let conn = &mut self.conns[key];
        let view = sys::kernel_view(&conn.socket);
        let clear = conn.is_clear();
        let (mute, more) = (conn.wire.protocol() == Wire::Ws && !conn.ponged, conn.more());
        if more.acked >= offset {
            more.acked_at = now;
        }
        let waited = now.duration_since(more.acked_at);
        if view.is_some_and(|view| !view.all_received() && view.last_ack >= STALLED) {
            return self.drop_conn(key, SILENT);
        }
        if self.tuning.block_timeout.is_some_and(|timeout| waited >= timeout) {
            let (_, last) = self.standing(key);
            return self.leave(key, &Farewell::GoAway(GoAway::Slow(last)));
        }
        // A client that knows no pongs acknowledges by its kernel: weaker, but it cannot resume anyway.
        if mute && clear && waited >= NO_PONG && view.is_some_and(|view| view.all_received()) {
            let (lane, more) = (self.conns[key].lane, self.conns[key].more());
            (more.acked, more.acked_at) = (offset, now);
            if let Some(pin) = more.pin {
                self.lanes[lane].topic.log.ack(pin, offset);
                self.close_when_drained(key);
            }
        }
    }

    /// Asks a WebSocket reader whether it is there; closes it when it did not answer the last time. Not while bytes
    /// wait for it, if it is pinned: it may be paused on purpose (LINKS 22).
    pub(super) fn ping(&mut self, key: usize, second: u32) {
        self.conns[key].due = self.next_ping();
        let silent = second.saturating_sub(self.conns[key].heard);
        let conn = &self.conns[key];
        let pinned = conn.more.as_ref().is_some_and(|more| more.pin.is_some());
        if !conn.wire.is_websocket() {
            return;
        }
        let patience = u32::try_from(self.tuning.ping_interval.as_secs()).unwrap_or(u32::MAX).saturating_mul(3).max(3);
        // A client that knows no pongs is there as long as its kernel acknowledges our pings.
        let answers = |view: Kernel| view.all_received() || view.last_ack <= Duration::from_secs(patience.into());
        let mute = || !conn.ponged && sys::kernel_view(&conn.socket).is_some_and(answers);
        if silent > patience && !pinned && !mute() {
            return self.drop_conn(key, SILENT);
        }
        if !conn.is_clear() || matches!(conn.place, Place::Parked(_)) {
            return;
        }
        let (offset, last) = self.standing(key);
        self.tell_position(key, last.as_ref(), offset);
    }

    pub(super) fn keep_alive(&mut self, lane: usize) {
        let lane = &self.lanes[lane];
        let keys: Vec<usize> =
            lane.tip_of(Wire::Sse).chain(lane.tip_of(Wire::CloudSse)).chain(lane.parked.iter().copied()).collect();
        for key in keys {
            if self.conns[key].wire.protocol() == Wire::Sse {
                // With the position, which may have passed events that a stage or an audience left out (LINKS 7).
                let (_, last) = self.standing(key);
                self.send(key, |wire| [&b":\n"[..], &wire.position(last.as_ref(), 0, 0)].concat().into());
            }
        }
    }

    /// Readers whose place was evicted are told at once, not when their socket has room again.
    pub(super) fn enforce(&mut self, lane: usize) {
        let base = self.lanes[lane].topic.log.base();
        let disconnect = self.lanes[lane].topic.policy() == Policy::Disconnect;
        if disconnect {
            let slow = |key: &usize| self.conns[*key].cursor < base && !self.conns[*key].skip;
            let keys: Vec<usize> = self.lanes[lane].behind.iter().copied().filter(slow).collect();
            for key in keys {
                let (_, last) = self.standing(key);
                self.leave(key, &Farewell::GoAway(GoAway::Slow(last)));
            }
        }
    }

    /// `--reader-backlog`: how far behind a reader may be.
    pub(super) fn enforce_backlog(&mut self, lane: usize) {
        let Some(limit) = self.tuning.backlog else { return };
        let topic = self.lanes[lane].topic.clone();
        if topic.policy() == Policy::Block {
            return;
        }
        for key in self.lanes[lane].behind.clone() {
            let conn = &self.conns[key];
            if topic.log.bytes_behind(conn.cursor) > limit && !conn.is_clear() && !conn.skip {
                let (_, last) = self.standing(key);
                self.leave(key, &Farewell::GoAway(GoAway::Slow(last)));
            }
        }
    }

    pub(super) fn drain(&mut self, spread: Duration) {
        self.draining = true;
        let spread = u32::try_from(spread.as_secs()).unwrap_or(u32::MAX);
        let now = self.second();
        for (_, conn) in &mut self.conns {
            if conn.place != Place::Leaving {
                conn.due = now.saturating_add(rand::rng().random_range(0..=spread));
            }
        }
    }
}
