//! Reading on from a cursor: replay, recovery, and what the shared path does not do.

use super::{
    Shard, TURN_BYTES,
    conn::{Conn, Place},
};
use crate::{
    audience::Seen,
    event::{self, Batch},
    id::Id,
    link::GoAway,
    log::{Entry, Gap, Item, Lost},
    proto::{wire::Farewell, ws::encode},
    topic::Policy,
    units::now_ms,
};
use std::collections::HashMap;

/// The offsets that an entry occupies.
pub(super) fn width(item: &Item) -> u64 {
    match &item.entry {
        Entry::Batch(batch) => batch.len() as u64,
        _ => 1,
    }
}

impl Shard {
    pub(super) fn go_on(&mut self) {
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            if matches!(self.conns.get(key).map(|conn| conn.place), Some(Place::Behind(_))) {
                self.catch_up(key);
            }
        }
    }

    /// Reads from the log for one reader until its socket is full, the turn is over, or it is at the tip.
    pub(super) fn catch_up(&mut self, key: usize) {
        let lane = self.conns[key].lane;
        let topic = self.lanes[lane].topic.clone();
        let live = self.lanes[lane].live;
        if !self.conns[key].is_clear() {
            return;
        }
        let cursor = self.conns[key].cursor;
        if cursor >= live {
            if cursor == live && !self.is_ended(key) && self.tell_before_tip(key) {
                self.join_tip(key);
            }
            return;
        }
        if let Some(more) = &mut self.conns[key].more {
            // It was told the end, and the stream went on.
            more.ended = false;
        }
        let mut items = std::mem::take(&mut self.items);
        items.clear();
        let read = topic.log.read(cursor, TURN_BYTES, &mut items);
        let goes_on = match read {
            Ok(_) => self.send_items(key, &items, live),
            Err(lost) => self.tell_lost(key, &lost),
        };
        self.items = items;
        if goes_on {
            self.ready.push_back(key);
        }
    }

    /// A link that did not see the newest events hears what comes next before it shares the others' bytes (LINKS 11).
    fn tell_before_tip(&mut self, key: usize) -> bool {
        let (conn, lane) = (&self.conns[key], &self.lanes[self.conns[key].lane]);
        let (live, passed) = (lane.live, lane.passed.clone());
        let expected = conn.more.as_ref().and_then(|more| more.expected.as_ref());
        let next = |last: &Option<Id>| last.as_ref().map(Id::next);
        let knows_more = |next: Id| expected.is_some_and(|known| known.epoch == next.epoch && known.seq > next.seq);
        !conn.wire.is_link()
            || expected == next(&lane.last).as_ref()
            || next(&passed).is_some_and(knows_more)
            || self.tell_position(key, passed.as_ref(), live)
    }

    /// Whether the reader may go on at once.
    pub(super) fn send_items(&mut self, key: usize, items: &[Item], live: u64) -> bool {
        let lane = self.conns[key].lane;
        if let Policy::Conflate(pointer) = self.lanes[lane].topic.policy()
            && items.len() > 1
        {
            return self.send_newest(key, items, live, &pointer);
        }
        for item in items.iter().take_while(|item| item.offset < live) {
            let wrote = match &item.entry {
                Entry::Batch(batch) => {
                    let from = self.conns[key].cursor.saturating_sub(item.offset) as usize;
                    self.send_batch(key, batch, from)
                }
                Entry::Gap(gap) => self.send_gap(key, gap),
                Entry::End => {
                    let is_last = item.offset + 1 == live;
                    if is_last {
                        self.end_stream(key);
                        return false;
                    }
                    true
                }
            };
            if !wrote {
                return false;
            }
            self.conns[key].moves_to(item.offset + width(item));
            if !self.tell_when_due(key) || !self.conns[key].is_clear() {
                return false;
            }
        }
        true
    }

    /// What this reader sees of a batch, from index `from` on.
    pub(super) fn send_batch(&mut self, key: usize, batch: &Batch, from: usize) -> bool {
        match self.conns[key].viewer.of(batch, from) {
            Seen::All => self.send_events(key, batch, from),
            Seen::Some(indices) => match batch.pick(&indices) {
                Some(picked) => self.send_events(key, &picked, 0),
                None => true,
            },
        }
    }

    fn send_events(&mut self, key: usize, batch: &Batch, from: usize) -> bool {
        let conn = &mut self.conns[key];
        let n = conn.mark;
        let last = batch.id(batch.len() - 1);
        let expected = conn.more().expected.replace(last.next());
        let (wire, now) = (conn.wire, now_ms());
        let goes_on = |conn: &mut Conn| {
            encode::is_contiguous(batch, from, expected.as_ref()) && conn.more().keeps_time(batch.time(), now, 1)
        };
        let bytes = if !wire.is_link() || goes_on(conn) {
            wire.events(batch, from)
        } else {
            conn.more().clock = batch.time() as i64 - now as i64;
            wire.packed(encode::link_frames_with_positions(batch, from, n))
        };
        conn.mark += (batch.len() - from) as u64;
        conn.more().since_told += bytes.len() as u64;
        let (form, tally) = (conn.wire.protocol().index(), &self.lanes[conn.lane].topic.tally);
        tally.sent(form, 1, (batch.len() - from) as u64, bytes.len() as u64);
        self.send(key, |_| bytes)
    }

    /// A `p` after every 256 KiB (LINKS 11); the cursor stands behind what was sent.
    fn tell_when_due(&mut self, key: usize) -> bool {
        let every = self.lanes[self.conns[key].lane].told_every;
        let due = self.conns[key].more().since_told >= every && self.is_tracked(key);
        let (cursor, last) = self.standing(key);
        !due || self.tell_position(key, last.as_ref(), cursor)
    }

    /// A loss entry, told in the protocol's form (LINKS 15); a link hears at once where it goes on (LINKS 11).
    pub(super) fn send_gap(&mut self, key: usize, gap: &Gap) -> bool {
        let conn = &mut self.conns[key];
        conn.more().expected = Some(gap.to.next());
        let (cursor, link) = (conn.cursor, conn.wire.is_link());
        self.lanes[conn.lane].topic.tally.tell_gap();
        self.send(key, |wire| wire.gap(gap)) && (!link || self.tell_position(key, Some(&gap.to), cursor))
    }

    /// The cursor's place is gone: by policy (design section 5).
    pub(super) fn tell_lost(&mut self, key: usize, lost: &Lost) -> bool {
        let topic = self.lanes[self.conns[key].lane].topic.clone();
        let from = self.conns[key].more().expected.clone();
        let skips = self.conns[key].skip || matches!(topic.policy(), Policy::DropOldest | Policy::Conflate(_));
        match (from, lost.to.clone()) {
            (Some(from), Some(to)) if skips => {
                // Nobody knows how many of them a match would have let through.
                let count = lost.count_from(&from).filter(|_| self.conns[key].viewer.wanted.is_none());
                let gap = Gap { from, to, count, reason: "slow reader".into() };
                tracing::debug!(peer = ?self.conns[key].peer(), ?count, "slow reader skips ahead");
                self.conns[key].moves_to(lost.resume);
                topic.tally.skip(count.unwrap_or(0));
                self.send_gap(key, &gap)
            }
            _ => {
                let (_, last) = self.standing(key);
                self.leave(key, &Farewell::GoAway(GoAway::Slow(last)));
                false
            }
        }
    }

    /// Where a reader stands: the offset to read on from, and the position before it.
    pub(super) fn standing(&mut self, key: usize) -> (u64, Option<Id>) {
        let conn = &self.conns[key];
        let lane = &mut self.lanes[conn.lane];
        match conn.place {
            Place::Tip(_) => {
                lane.passed = lane.topic.log.last_at(lane.live).or(lane.passed.take());
                (lane.live, lane.passed.clone())
            }
            _ => {
                let expected = conn.more.as_ref().and_then(|more| more.expected.as_ref());
                (conn.cursor, expected.map(Id::previous))
            }
        }
    }

    /// `conflate`: of what waits, only the newest per key, in order.
    pub(super) fn send_newest(&mut self, key: usize, items: &[Item], live: u64, pointer: &str) -> bool {
        let cursor = self.conns[key].cursor;
        let (mut newest, mut events) = (HashMap::new(), Vec::new());
        for item in items.iter().take_while(|item| item.offset < live) {
            let Entry::Batch(batch) = &item.entry else { break };
            let from = cursor.saturating_sub(item.offset) as usize;
            let viewer = self.conns[key].viewer.clone();
            let seen = viewer.of(batch, from);
            for (i, event) in batch.events().skip(from).filter(|(i, _)| seen.has(*i)) {
                let value = event::value_of(&event.payload);
                let value = value.as_ref().and_then(|value| value.pointer(pointer)).map(ToString::to_string);
                let superseded = value.and_then(|value| newest.insert(value, events.len()));
                if let Some(superseded) = superseded {
                    events[superseded] = None;
                }
                events.push(Some((batch.clone(), i)));
            }
            self.conns[key].moves_to(item.offset + width(item));
        }
        if events.is_empty() {
            let Some(item) = items.first() else { return true };
            return self.send_items(key, std::slice::from_ref(item), live);
        }
        for (batch, i) in events.into_iter().flatten() {
            let one = batch.pick(&[i]);
            if !one.is_none_or(|one| self.send_events(key, &one, 0)) {
                return false;
            }
        }
        self.conns[key].is_clear()
    }
}
