//! Positions told and acknowledgements heard (LINKS 10-13).

use super::{Shard, conn::Place};
use crate::{id::Id, proto::wire::WIRES, units::now_ms};
use std::time::Instant;

impl Shard {
    /// Links always, others while they are pinned.
    pub(super) fn is_tracked(&self, key: usize) -> bool {
        let conn = &self.conns[key];
        conn.wire.is_link() || conn.more.as_ref().is_some_and(|more| more.pin.is_some())
    }

    /// Sends a `p` and remembers it; for chunked protocols what was written counts as received.
    pub(super) fn tell_position(&mut self, key: usize, last: Option<&Id>, offset: u64) -> bool {
        let now = Instant::now();
        let lane = &self.lanes[self.conns[key].lane];
        let (lane_events, lane_bytes) = (lane.events, lane.bytes);
        let log = lane.topic.clone();
        let conn = &mut self.conns[key];
        let at_tip = matches!(conn.place, Place::Tip(_));
        let n = if at_tip { lane_events.wrapping_sub(conn.mark) } else { conn.mark };
        let websocket = conn.wire.is_websocket();
        let more = conn.more();
        more.since_told = if at_tip { lane_bytes } else { 0 };
        more.told_at = now;
        if !websocket {
            if let Some(pin) = more.pin {
                log.log.ack(pin, offset);
            }
            return true;
        }
        more.told.push_back((n, offset));
        let clock = more.clock;
        let ms = now_ms().saturating_add_signed(clock);
        self.send(key, |wire| wire.position(last, n, ms))
    }

    pub(super) fn tell_positions_when_due(&mut self, lane: usize, last: Option<&Id>, offset: u64) {
        let (bytes, every) = (self.lanes[lane].bytes, self.lanes[lane].told_every);
        let lane_blocks = self.lanes[lane].topic.log.is_blocking();
        let tracked = WIRES.into_iter().filter(|wire| wire.is_link() || lane_blocks);
        let told = |key: usize| self.conns[key].more.as_ref().map_or(0, |more| more.since_told);
        let due: Vec<usize> = tracked
            .flat_map(|wire| self.lanes[lane].tip_of(wire))
            .filter(|&key| bytes.wrapping_sub(told(key)) >= every)
            .collect();
        for key in due {
            self.tell_position(key, last, offset);
        }
    }
}
