//! Live delivery: what is new, in shared bytes, to everybody at the tip.

use super::{
    Shard, TURN_BYTES,
    conn::{Conn, More, Place, Wrote},
    lane::Lane,
};
use crate::{
    event::Batch,
    id::Id,
    link::Signal,
    log::{Entry, Item},
    proto::{
        wire::{LINKS, WIRES, Wire, chunked},
        ws::encode,
    },
    topic::Manner,
    units::now_ms,
};
use bytes::Bytes;
use std::time::Instant;

impl Shard {
    pub(super) fn pump(&mut self) {
        for lane in 0..self.lanes.len() {
            let version = self.lanes[lane].topic.log.version();
            if std::mem::replace(&mut self.lanes[lane].version, version) != version {
                self.tell_moves(lane);
                self.wake_parked(lane);
                let from = self.lanes[lane].live;
                self.deliver(lane);
                self.enforce(lane);
                // Readers that began ahead of this thread, and those of a stream that had ended: it may go on.
                let is_due = |key: &usize| {
                    let conn = &self.conns[*key];
                    conn.is_clear() && (conn.cursor > from || self.is_ended(*key))
                };
                let due: Vec<usize> = self.lanes[lane].behind.iter().copied().filter(is_due).collect();
                self.ready.extend(due);
            }
        }
    }

    /// `u`: links check for loops again (LINKS 25).
    pub(super) fn tell_moves(&mut self, lane: usize) {
        let moves = self.lanes[lane].topic.moves();
        if std::mem::replace(&mut self.lanes[lane].moves, moves) == moves {
            return;
        }
        let is_link =
            |(_, conn): &(usize, &Conn)| conn.lane == lane && conn.wire.is_link() && conn.place != Place::Leaving;
        let links: Vec<usize> = self.conns.iter().filter(is_link).map(|(key, _)| key).collect();
        for key in links {
            self.send(key, |_| encode::ping(&Signal::PathChanged).freeze());
        }
    }

    pub(super) fn wake_parked(&mut self, lane: usize) {
        for key in self.lanes[lane].parked.clone() {
            let since = self.conns[key].more().waits_for.clone();
            let deadline = self.conns[key].cursor;
            let start = self.lanes[lane].topic.log.seek(since.as_ref(), now_ms());
            self.begin(key, start, since.as_ref());
            if matches!(self.conns.get(key).map(|conn| conn.place), Some(Place::Parked(_))) {
                self.conns[key].cursor = deadline;
            }
        }
    }

    /// Sends what is new to everybody at the tip.
    pub(super) fn deliver(&mut self, lane: usize) {
        loop {
            let mut items = std::mem::take(&mut self.items);
            items.clear();
            let topic = self.lanes[lane].topic.clone();
            let from = self.lanes[lane].live;
            // Pinned readers hear positions in between, or a whole turn would stay unacknowledged.
            let turn = if topic.log.is_blocking() { self.lanes[lane].told_every as usize } else { TURN_BYTES };
            let read = topic.log.read(from, turn, &mut items);
            // Told by the same look at the log: a moment later the place may be gone.
            let (held, next, passed) =
                read.map_or_else(|lost| (false, lost.resume, lost.to), |read| (true, read.next, read.last));
            if next == from {
                self.items = items;
                return;
            }
            let plain = held && items.iter().all(|item| matches!(item.entry, Entry::Batch(_)));
            if plain {
                self.deliver_batches(lane, &items, next, passed.as_ref());
            } else {
                self.send_tip_behind(lane, |_| true);
            }
            let last = if held { items.iter().rev().find_map(last_of) } else { passed.clone() };
            self.items = items;
            let lane = &mut self.lanes[lane];
            lane.live = next;
            lane.last = last.or(lane.last.take());
            lane.passed = passed;
            lane.quiet_since = Instant::now();
        }
    }

    /// Turns readers at the tip into readers with a cursor of their own, for what the shared path does not do.
    pub(super) fn send_tip_behind(&mut self, lane: usize, which: impl Fn(&Conn) -> bool) {
        let (offset, last) = (self.lanes[lane].live, self.lanes[lane].last.clone());
        let tip = self.lanes[lane].tip.iter().flatten().copied();
        let keys: Vec<usize> = tip.filter(|&key| which(&self.conns[key])).collect();
        for key in keys {
            self.leave_tip(key, offset, last.as_ref());
            self.ready.push_back(key);
        }
    }

    pub(super) fn deliver_batches(&mut self, lane: usize, items: &[Item], end: u64, last: Option<&Id>) {
        if LINKS.into_iter().any(|wire| self.lanes[lane].tip_of(wire).next().is_some()) {
            let addressed = is_addressed(items);
            let shared = self.links_go_shared(lane, items);
            let (now, times) = (now_ms(), times(items));
            self.send_tip_behind(lane, |conn| {
                let in_time = |more: &More| times.iter().all(|&time| more.keeps_time(time, now, LIVE_TOLERANCE_MS));
                // Holes are told by positions, which the shared bytes do not have.
                let whole = conn.viewer.wanted.is_none() && (conn.viewer.relay || !addressed);
                conn.wire.is_link() && !(whole && shared && conn.more.as_deref().is_some_and(in_time))
            });
        }
        let is_selected = self.lanes[lane].topic.manner == Manner::Open && is_all_addressed(items);
        if is_selected {
            self.deliver_selected(lane, items);
        }
        for wire in WIRES.into_iter().filter(|wire| !is_selected || wire.is_link()) {
            for in_chunks in [false, true] {
                self.deliver_wire(lane, wire, in_chunks, items);
            }
        }
        let batches = items.iter().filter_map(|item| match &item.entry {
            Entry::Batch(batch) => Some(batch),
            _ => None,
        });
        let (mut events, mut bytes) = (0, 0);
        for batch in batches {
            events += batch.len() as u64;
            bytes += batch.run().bytes().len() as u64;
        }
        if is_selected {
            // The lane counts what all of them were sent: links have more.
            for key in LINKS.into_iter().flat_map(|wire| self.lanes[lane].tip_of(wire)) {
                self.conns[key].mark = self.conns[key].mark.wrapping_sub(events);
            }
        } else {
            self.lanes[lane].events += events;
        }
        self.lanes[lane].bytes += bytes;
        self.tell_positions_when_due(lane, last, end);
    }

    fn deliver_wire(&mut self, lane: usize, wire: Wire, in_chunks: bool, items: &[Item]) {
        let group = Lane::group(wire, in_chunks, false);
        if !self.lanes[lane].tip[group].is_empty() {
            // Links with the right to everything are all that is left of their kind here.
            if is_addressed(items) && !wire.is_link() {
                self.deliver_each(lane, group, wire, in_chunks, items);
            } else {
                let readers = self.lanes[lane].tip[group].len();
                self.deliver_shared(lane, group, &Shared::new(items, wire, in_chunks, readers));
            }
        }
        let picky = Lane::group(wire, in_chunks, true);
        if !self.lanes[lane].tip[picky].is_empty() {
            self.deliver_each(lane, picky, wire, in_chunks, items);
        }
    }

    /// Whether links need no `p` of their own within these entries.
    pub(super) fn links_go_shared(&self, lane: usize, items: &[Item]) -> bool {
        let mut expected = self.lanes[lane].last.as_ref().map(Id::next);
        items.iter().all(|item| {
            let Entry::Batch(batch) = &item.entry else { return false };
            let shared = encode::is_contiguous(batch, 0, expected.as_ref());
            expected = Some(batch.id(batch.len() - 1).next());
            shared
        })
    }

    pub(super) fn deliver_shared(&mut self, lane: usize, group: usize, shared: &Shared) {
        let mut at = 0;
        while let Some(&key) = self.lanes[lane].tip[group].get(at) {
            let conn = &mut self.conns[key];
            // A frame of its own may still be waiting.
            let wrote = if conn.is_clear() { shared.write(conn) } else { Wrote::Part(0) };
            match wrote {
                Wrote::All => at += 1,
                Wrote::Part(n) => self.fall_behind(key, shared, n),
                Wrote::Dead => self.drop_conn(key, "connection lost"),
            }
        }
        let events = shared.places.iter().map(|place| place.events).sum();
        self.lanes[lane].topic.tally.sent(WIRES[group / 4].protocol().index(), at as u64, events, shared.len as u64);
    }

    /// The socket took only `n` bytes: finish the batch it was in, then read on from behind it.
    pub(super) fn fall_behind(&mut self, key: usize, shared: &Shared, n: usize) {
        let lane = &self.lanes[self.conns[key].lane];
        let (live, last) = (lane.live, lane.last.clone());
        if n == 0 {
            return self.leave_tip(key, live, last.as_ref());
        }
        let (piece, rest) = shared.split(n);
        let done = &shared.places[piece];
        let sent = n + rest.len();
        self.conns[key].keep_rest(rest);
        self.leave_tip(key, done.offset, Some(&done.last));
        let events: u64 = shared.places[..=piece].iter().map(|place| place.events).sum();
        let bytes: u64 = shared.places[..=piece].iter().map(|place| place.bytes).sum();
        self.count_sent(key, events, bytes);
        let conn = &self.conns[key];
        self.lanes[conn.lane].topic.tally.sent(conn.wire.protocol().index(), 1, events, sent as u64);
    }
}

/// So many bytes for each reader are copied into one piece rather than handed to the kernel as several.
const JOIN_BELOW: usize = 16 << 10;
/// What a link's own clock may be wrong about a live event; what is replayed gets its exact time.
const LIVE_TOLERANCE_MS: u64 = 250;

/// The position that an entry ends with.
fn last_of(item: &Item) -> Option<Id> {
    match &item.entry {
        Entry::Batch(batch) => Some(batch.id(batch.len() - 1)),
        Entry::Gap(gap) => Some(gap.to.clone()),
        Entry::End => None,
    }
}

/// Whether some event has an audience.
fn is_addressed(items: &[Item]) -> bool {
    items.iter().any(|item| matches!(&item.entry, Entry::Batch(batch) if batch.is_addressed()))
}

/// Whether every event has one, which is not everybody.
fn is_all_addressed(items: &[Item]) -> bool {
    let is_addressed = |batch: &Batch, i| {
        let to = batch.attrs_of(i).and_then(|attrs| attrs.to.as_ref());
        to.is_some_and(|to| !to.is_empty())
    };
    items.iter().all(|item| match &item.entry {
        Entry::Batch(batch) => (0..batch.len()).all(|i| is_addressed(batch, i)),
        _ => false,
    })
}

/// When the first and the last of these events were published.
fn times(items: &[Item]) -> Vec<u64> {
    let time = |item: &Item| match &item.entry {
        Entry::Batch(batch) => Some(batch.time()),
        _ => None,
    };
    items.first().into_iter().chain(items.last()).filter_map(time).collect()
}

/// The place behind one batch.
pub(super) struct Behind {
    offset: u64,
    last: Id,
    events: u64,
    bytes: u64,
}

/// What a group of readers is sent: each batch's encoding, and all of them in one piece if that is worth a copy.
pub(super) struct Shared {
    pieces: Vec<Bytes>,
    places: Vec<Behind>,
    len: usize,
    joined: Option<Bytes>,
}

impl Shared {
    fn new(items: &[Item], wire: Wire, in_chunks: bool, readers: usize) -> Self {
        let (mut pieces, mut places) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for item in items {
            let Entry::Batch(batch) = &item.entry else { continue };
            let bytes = wire.events(batch, 0);
            pieces.push(if in_chunks { chunked(&bytes) } else { bytes });
            places.push(Behind {
                offset: item.offset + batch.len() as u64,
                last: batch.id(batch.len() - 1),
                events: batch.len() as u64,
                bytes: batch.run().bytes().len() as u64,
            });
        }
        let len = pieces.iter().map(Bytes::len).sum();
        let joined = match &pieces[..] {
            [one] => Some(one.clone()),
            _ if len > JOIN_BELOW * readers => None,
            several => Some(several.concat().into()),
        };
        Shared { pieces, places, len, joined }
    }

    fn write(&self, conn: &mut Conn) -> Wrote {
        match &self.joined {
            Some(joined) => conn.try_write(joined),
            None => conn.try_write_pieces(&self.pieces),
        }
    }

    /// The piece that byte `n` is in, and what is missing of it.
    fn split(&self, n: usize) -> (usize, Bytes) {
        let mut start = 0;
        for (i, piece) in self.pieces.iter().enumerate() {
            if n <= start + piece.len() {
                return (i, piece.slice(n - start..));
            }
            start += piece.len();
        }
        (self.pieces.len() - 1, Bytes::new())
    }
}
