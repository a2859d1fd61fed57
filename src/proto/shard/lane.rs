//! Where a reader begins, and where it stands: at the tip, behind, or parked.

use super::{
    PATIENCE_MS, Shard, UNKNOWN_SECS,
    conn::{Conn, Place},
};
use crate::{
    id::{Id, Since},
    link::GoAway,
    log::{Gap, Joined, Pump, Start},
    proto::wire::{Farewell, WIRES, Wire},
    roll::Pairs,
    topic::{Manner, Topic},
    units::now_ms,
};
use std::{sync::Arc, time::Instant};

/// One topic's readers on one shard.
pub(super) struct Lane {
    pub(super) topic: Arc<Topic>,
    pub(super) version: u64,
    /// The topic's count of path changes that the links were told.
    pub(super) moves: u64,
    /// Everything below was sent to the readers at the tip.
    pub(super) live: u64,
    /// The last event or gap below `live`: where readers stand who count what they are sent.
    pub(super) last: Option<Id>,
    /// The position at `live` as far as anybody may have been told it: what stages and audiences left out is passed, too.
    pub(super) passed: Option<Id>,
    /// Events and bytes sent to the tip so far.
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// Shared with the log, so that publishers do not outrun this thread.
    pub(super) pumped: Arc<Pump>,
    /// Readers at the tip by wire form, in chunks or not, with a match of their own or not.
    pub(super) tip: [Vec<usize>; 4 * WIRES.len()],
    /// On a named stream, all of them by their metadata.
    pub(super) by_pair: Pairs,
    pub(super) behind: Vec<usize>,
    pub(super) parked: Vec<usize>,
    /// Unacknowledged bytes after which a `p` is due: few enough that a small window does not run dry meanwhile.
    pub(super) told_every: u64,
    pub(super) quiet_since: Instant,
}

impl Lane {
    pub(super) fn group(wire: Wire, chunked: bool, picky: bool) -> usize {
        wire.index() * 4 + usize::from(chunked) * 2 + usize::from(picky)
    }

    fn group_of(conn: &Conn) -> usize {
        Lane::group(conn.wire, conn.chunked, conn.viewer.wanted.is_some())
    }

    /// The readers at the tip of one wire form.
    pub(super) fn tip_of(&self, wire: Wire) -> impl Iterator<Item = usize> {
        self.tip[wire.index() * 4..][..4].iter().flatten().copied()
    }

    pub(super) fn list(&mut self, conn: &Conn) -> Option<&mut Vec<usize>> {
        match conn.place {
            Place::Tip(_) => Some(&mut self.tip[Lane::group_of(conn)]),
            Place::Behind(_) => Some(&mut self.behind),
            Place::Parked(_) => Some(&mut self.parked),
            Place::New | Place::Leaving => None,
        }
    }

    pub(super) fn at_tip(&self) -> usize {
        self.tip.iter().map(Vec::len).sum()
    }
}

impl Shard {
    /// Puts a connection without a place where its position says.
    pub(super) fn begin(&mut self, key: usize, start: Start, since: Option<&Since>) {
        let topic = self.lanes[self.conns[key].lane].topic.clone();
        match start {
            Start::At(offset) => self.begin_at(key, None, offset, since),
            Start::Gap(gap, offset) => {
                let conn = &self.conns[key];
                if conn.wire.protocol() == Wire::Ws && !conn.skip {
                    let oldest = topic.log.window().map(|window| window.oldest);
                    return self.leave(key, &Farewell::GoAway(GoAway::Gone(oldest)));
                }
                self.begin_at(key, Some(&gap), offset, since);
            }
            Start::Ahead(since) => self.park(key, since, u32::MAX),
            Start::Unknown => {
                let deadline = self.second() + UNKNOWN_SECS;
                // A plain reader that wants *now* may wait as long as it takes; a position must become known.
                let patient = matches!(since, None | Some(Since::Now));
                self.park(key, since.cloned().unwrap_or(Since::Now), if patient { u32::MAX } else { deadline });
            }
        }
    }

    /// Tells what is missing and the position at once (LINKS 7), then reads on from there.
    fn begin_at(&mut self, key: usize, gap: Option<&Gap>, offset: u64, since: Option<&Since>) {
        let topic = self.lanes[self.conns[key].lane].topic.clone();
        let owner = self.conns[key].more().owner.clone();
        let Some(Joined { pin, last }) = topic.log.join(offset, owner, matches!(since, Some(Since::After(_)))) else {
            return self.begin(key, topic.log.seek(since, now_ms()), since);
        };
        self.conns[key].more().pin = pin;
        if let Some(gap) = gap {
            topic.tally.tell_gap();
            if !self.send(key, |wire| wire.gap(gap)) {
                return;
            }
        }
        let conn = &mut self.conns[key];
        conn.cursor = offset;
        conn.more().acked = offset;
        conn.more().expected = last.as_ref().map(Id::next);
        let sent = match conn.wire.protocol() {
            Wire::Link => self.tell_position(key, last.as_ref(), offset),
            Wire::Sse => self.send(key, |wire| wire.hello(last.as_ref())),
            _ => true,
        };
        if sent {
            self.place(key, Place::Behind(0));
            self.ready.push_back(key);
        }
    }

    pub(super) fn park(&mut self, key: usize, since: Since, deadline: u32) {
        let conn = &mut self.conns[key];
        conn.more().waits_for = Some(since);
        conn.cursor = u64::from(deadline);
        self.place(key, Place::Parked(0));
    }

    /// Moves a connection to a list of its lane; the index inside `to` is filled in here.
    pub(super) fn place(&mut self, key: usize, to: Place) {
        let now = self.millis();
        let lane = &mut self.lanes[self.conns[key].lane];
        if let (Place::Tip(at) | Place::Behind(at) | Place::Parked(at), Some(list)) =
            (self.conns[key].place, lane.list(&self.conns[key]))
        {
            list.swap_remove(at);
            if let Some(&moved) = list.get(at) {
                self.conns[moved].place = match self.conns[moved].place {
                    Place::Tip(_) => Place::Tip(at),
                    Place::Behind(_) => Place::Behind(at),
                    _ => Place::Parked(at),
                };
            }
        }
        self.conns[key].place = to;
        self.conns[key].fell = now;
        if lane.topic.manner == Manner::Open {
            let (viewer, cursor) = (self.conns[key].viewer.clone(), self.conns[key].cursor);
            let behind = matches!(to, Place::Behind(_));
            let straggler = behind.then(|| lane.topic.roll.straggle(&viewer, cursor));
            self.conns[key].note_straggler(straggler);
        }
        if let Some(list) = lane.list(&self.conns[key]) {
            list.push(key);
            let at = list.len() - 1;
            self.conns[key].place = match to {
                Place::Tip(_) => Place::Tip(at),
                Place::Behind(_) => Place::Behind(at),
                _ => Place::Parked(at),
            };
        }
    }

    /// Says how far the lane has come: to its live end, and to the readers that only just fell behind. A publisher that
    /// may wait stays within half a window of these, so that a stumble of milliseconds loses nobody a stream that fills
    /// the window in milliseconds, and near to the foremost. Says whether it waits for one that fell behind.
    pub(super) fn tell_pumped(&mut self, lane: usize) -> bool {
        let now = self.millis();
        let lane = &self.lanes[lane];
        let fresh = |key: &&usize| now.wrapping_sub(self.conns[**key].fell) < PATIENCE_MS;
        let behind = lane.behind.iter().filter(fresh).map(|&key| self.conns[key].cursor);
        let tip = (lane.at_tip() > 0).then_some(lane.live);
        let (mut places, mut patient) = (tip.map(|live| (live, live)), false);
        for cursor in behind {
            let (foremost, hindmost) = places.unwrap_or((cursor, cursor));
            (places, patient) = (Some((foremost.max(cursor), hindmost.min(cursor))), true);
        }
        if lane.pumped.stand(places) {
            lane.topic.log.pump_moved();
        }
        patient
    }

    /// From its own cursor to the shared bytes: it has everything that the lane sent.
    pub(super) fn join_tip(&mut self, key: usize) {
        let lane = &self.lanes[self.conns[key].lane];
        let (events, bytes) = (lane.events, lane.bytes);
        let conn = &mut self.conns[key];
        conn.mark = events.wrapping_sub(conn.mark);
        // Most readers need nothing more from here on.
        conn.more = conn.more.take().filter(|more| conn.wire.is_link() || conn.may_publish || more.is_needed());
        if let Some(more) = &mut conn.more {
            more.since_told = bytes.wrapping_sub(more.since_told);
        }
        self.place(key, Place::Tip(0));
    }

    /// The reverse; `offset` is where its cursor stands.
    pub(super) fn leave_tip(&mut self, key: usize, offset: u64, expected: Option<&Id>) {
        let lane = &self.lanes[self.conns[key].lane];
        let (events, bytes) = (lane.events, lane.bytes);
        let conn = &mut self.conns[key];
        conn.mark = events.wrapping_sub(conn.mark);
        conn.cursor = offset;
        let more = conn.more();
        more.since_told = bytes.wrapping_sub(more.since_told);
        more.expected = expected.map(Id::next);
        self.place(key, Place::Behind(0));
    }
}
