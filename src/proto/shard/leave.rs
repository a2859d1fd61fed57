//! Goodbyes.

use super::{
    LEAVE_SECS, Shard,
    conn::{Conn, Place, Wrote},
};
use crate::{
    link::GoAway,
    proto::wire::{Farewell, Wire, chunked, last_chunk},
    tally::Ending,
};
use bytes::{Bytes, BytesMut};
use std::{net::Shutdown, sync::atomic::Ordering};

/// Why a connection is dropped whose peer does not answer.
pub(super) const SILENT: &str = "silent for too long";

/// How that counts.
pub(in crate::proto) fn ending(why: &Farewell) -> Ending {
    match why {
        Farewell::Done => Ending::Done,
        Farewell::Restart(_) => Ending::Restart,
        Farewell::GoAway(GoAway::Slow(_)) => Ending::Slow,
        Farewell::GoAway(GoAway::Gone(_)) => Ending::Gone,
        Farewell::GoAway(GoAway::Retry(_)) | Farewell::Unrecorded => Ending::Retry,
        Farewell::Expired | Farewell::Refused => Ending::Refused,
        Farewell::Fault(_) => Ending::Fault,
        Farewell::Echo(_) => Ending::Left,
    }
}

/// In the connection's transfer coding.
pub(super) fn wrapped(conn: &Conn, bytes: Bytes) -> Bytes {
    if conn.chunked && !bytes.is_empty() { chunked(&bytes) } else { bytes }
}

impl Shard {
    pub(super) fn is_ended(&self, key: usize) -> bool {
        self.conns[key].more.as_ref().is_some_and(|more| more.ended)
    }

    /// The stream has ended: told with its last position, then closed; a pinned reader is closed once it has
    /// acknowledged everything (LINKS 11, 18, 21).
    pub(super) fn end_stream(&mut self, key: usize) {
        if self.is_ended(key) {
            return;
        }
        let lane = &self.lanes[self.conns[key].lane];
        let (last, end) = (lane.topic.log.last(), lane.live);
        self.conns[key].more().ended = true;
        self.conns[key].cursor = end;
        if self.is_tracked(key) && !self.tell_position(key, last.as_ref(), end) {
            return;
        }
        if self.send(key, |wire| wire.end(last.as_ref())) {
            let pinned = self.conns[key].more().pin.is_some();
            if pinned {
                self.close_when_drained(key);
            } else {
                self.leave(key, &Farewell::Done);
            }
        }
    }

    pub(super) fn close_when_drained(&mut self, key: usize) {
        let Some(conn) = self.conns.get(key) else { return };
        let log = &self.lanes[conn.lane].topic.log;
        let pin = conn.more.as_ref().and_then(|more| more.pin);
        if self.is_ended(key) && conn.place != Place::Leaving && pin.is_some_and(|pin| log.is_pin_drained(pin)) {
            self.leave(key, &Farewell::Done);
        }
    }

    /// Says goodbye in the protocol's form; the connection goes when the peer answers, or soon.
    pub(super) fn leave(&mut self, key: usize, why: &Farewell) {
        let Some(conn) = self.conns.get(key).filter(|conn| conn.place != Place::Leaving) else { return };
        // A link hears where it stands before every close (LINKS 11).
        if conn.wire.is_link() && matches!(conn.place, Place::Tip(_) | Place::Behind(_)) {
            let (offset, last) = self.standing(key);
            if !self.tell_position(key, last.as_ref(), offset) {
                return;
            }
        }
        let done = *why == Farewell::Done;
        match why {
            Farewell::GoAway(_) | Farewell::Fault(_) => {
                let (peer, topic) = (self.conns[key].peer(), &self.lanes[self.conns[key].lane].topic.path);
                tracing::info!(?peer, %topic, reason = %why.reason(), "reader closed");
            }
            _ => {}
        }
        self.uncount(key);
        self.place(key, Place::Leaving);
        let due = self.second() + LEAVE_SECS;
        let conn = &mut self.conns[key];
        self.lanes[conn.lane].topic.tally.end(ending(why));
        conn.due = due;
        conn.is_taking();
        let log = &self.lanes[conn.lane].topic.log;
        conn.unpin(log, done);
        let mut bytes = BytesMut::from(&wrapped(conn, conn.wire.farewell(why))[..]);
        if conn.chunked {
            bytes.extend_from_slice(&last_chunk(if done { log.last() } else { None }));
        }
        match conn.send(bytes.freeze()) {
            Wrote::All => self.after_goodbye(key),
            Wrote::Part(_) => {}
            Wrote::Dead => self.drop_conn(key, "connection lost"),
        }
    }

    /// Who has heard the goodbye is no reader any more.
    fn uncount(&mut self, key: usize) {
        let conn = &mut self.conns[key];
        if conn.place == Place::Leaving {
            return;
        }
        let lane = &mut self.lanes[conn.lane];
        lane.topic.readers.fetch_sub(1, Ordering::Relaxed);
        if let Some(place) = conn.listed.take() {
            lane.topic.roll.leave(place);
            lane.by_pair.remove(key, &conn.viewer.metadata);
        }
    }

    /// A WebSocket waits for the peer's close frame; HTTP ends here.
    pub(super) fn after_goodbye(&mut self, key: usize) {
        let conn = &mut self.conns[key];
        let _ = conn.socket.shutdown(Shutdown::Write);
        if !conn.wire.is_websocket() {
            self.drop_conn(key, "done");
        }
    }

    pub(super) fn drop_conn(&mut self, key: usize, why: &str) {
        let Some(conn) = self.conns.get(key) else { return };
        let tally = &self.lanes[conn.lane].topic.tally;
        tally.leave(conn.wire.protocol().index());
        if conn.place != Place::Leaving {
            tally.end(if why == SILENT { Ending::Silent } else { Ending::Left });
        }
        self.uncount(key);
        self.place(key, Place::Leaving);
        let mut conn = self.conns.remove(key);
        let lane = &self.lanes[conn.lane];
        tracing::debug!(peer = ?conn.peer(), topic = %lane.topic.path, why, "reader gone");
        conn.unpin(&lane.topic.log, false);
        conn.deregister();
        self.inbox.leave();
    }

    /// Sends a piece in the connection's own wire form; false when the connection is gone.
    pub(super) fn send(&mut self, key: usize, piece: impl FnOnce(Wire) -> Bytes) -> bool {
        let conn = &mut self.conns[key];
        let bytes = piece(conn.wire);
        let bytes = wrapped(conn, bytes);
        if conn.send(bytes) == Wrote::Dead {
            self.drop_conn(key, "connection lost");
            return false;
        }
        true
    }
}
