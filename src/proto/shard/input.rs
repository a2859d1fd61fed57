//! What readers say: pongs, closes, and the messages of those who may publish.

use super::{
    Shard, TURN_READS,
    conn::{Conn, Place, Wrote},
};
use crate::{
    event::Event,
    inbound,
    link::Signal,
    panics,
    proto::{
        publish,
        wire::{Farewell, Wire},
        ws::{
            assemble::{Assembler, Got},
            frame,
        },
    },
    topic::Topic,
    units::now_ms,
};
use bytes::Bytes;
use std::{sync::Arc, time::Instant};

impl Shard {
    /// `lost` when the connection is over in both directions.
    pub(super) fn on_event(&mut self, key: usize, readable: bool, writable: bool, lost: bool) {
        if writable {
            match self.conns.get_mut(key).map(Conn::flush) {
                Some(Wrote::All) => self.on_flushed(key),
                Some(Wrote::Dead) => return self.drop_conn(key, "connection lost"),
                Some(Wrote::Part(_)) | None => {}
            }
        }
        if readable && self.conns.contains(key) {
            self.on_readable(key);
        }
        // Reading does not tell it of one whose input had ended before. What a WebSocket's peer said last is heard first.
        if lost && self.conns.get(key).is_some_and(|conn| !conn.wire.is_websocket()) {
            self.drop_conn(key, "connection lost");
        }
    }

    /// There is nothing more to read. A WebSocket that ends so is gone (RFC 6455 §7.1.1); a reader of an HTTP answer may have
    /// closed its sending side only, and reads on: one that is gone answers a probe with a reset.
    fn end_input(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.wire.is_websocket() {
            return self.drop_conn(key, "closed by the peer");
        }
        if !std::mem::replace(&mut conn.half_closed, true) && conn.place != Place::Leaving {
            inbound::ask_peer(&conn.socket);
            self.send(key, Wire::probe);
        }
    }

    pub(super) fn on_flushed(&mut self, key: usize) {
        match self.conns[key].place {
            Place::Behind(_) => self.ready.push_back(key),
            Place::Leaving => self.after_goodbye(key),
            _ => {}
        }
    }

    pub(super) fn on_readable(&mut self, key: usize) {
        if self.is_waiting(key) {
            // What it says next comes behind what waits.
            return;
        }
        let mut buf = std::mem::take(&mut self.buf);
        for turn in 0.. {
            if turn == TURN_READS {
                // Edge-triggered: nobody will tell us again.
                self.readable.push(key);
                break;
            }
            let Some(conn) = self.conns.get_mut(key) else { break };
            match conn.read(&mut buf) {
                None => break,
                Some(Ok(0)) => {
                    self.end_input(key);
                    break;
                }
                Some(Ok(n)) => {
                    conn.heard = self.born.elapsed().as_secs() as u32;
                    self.take_input(key, &buf[..n]);
                }
                Some(Err(error)) => {
                    self.drop_conn(key, &error.to_string());
                    break;
                }
            }
            if self.is_waiting(key) {
                break;
            }
        }
        self.buf = buf;
    }

    pub(super) fn take_input(&mut self, key: usize, bytes: &[u8]) {
        let max = self.tuning.max_message;
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.wire.is_websocket()) else { return };
        let kept = conn.more.as_mut().and_then(|more| more.inbound.take());
        let mut inbound = kept.unwrap_or_else(|| Assembler::new(true, max).inflating(conn.wire.inflater()));
        inbound.buf.extend_from_slice(bytes);
        let Some((events, fault, closing)) = panics::contain(|| self.hear(key, &mut inbound)) else {
            return self.drop_conn(key, "a fault of this program");
        };
        // What was said before a close, or before a fault, counts.
        self.publish(key, events);
        match (fault, closing) {
            (Some(fault), _) => self.leave(key, &Farewell::Fault(fault)),
            (None, Some(code)) => self.on_close(key, code),
            (None, None) => {
                if let Some(conn) = self.conns.get_mut(key)
                    && (conn.may_publish || !inbound.is_idle())
                {
                    conn.more().inbound = Some(inbound);
                }
            }
        }
    }

    /// Takes apart what it said: what is to be published, what is wrong with it, and with which code it closes.
    fn hear(&mut self, key: usize, inbound: &mut Assembler) -> (Vec<Event>, Option<frame::Fault>, Option<u16>) {
        let mut events = Vec::new();
        loop {
            match inbound.next() {
                Ok(None) => return (events, None, None),
                Ok(Some(Got::Message { text, payload })) => match self.take_message(key, text, payload) {
                    Ok(event) => events.extend(event),
                    Err(fault) => return (events, Some(fault), None),
                },
                Ok(Some(Got::Ping(payload))) => self.on_ping(key, &payload),
                Ok(Some(Got::Pong(payload))) => self.on_pong(key, &payload),
                Ok(Some(Got::Close(code, _))) => return (events, None, Some(code)),
                Err(fault) => return (events, Some(fault), None),
            }
        }
    }

    /// What is to be published of what it said.
    fn take_message(&mut self, key: usize, text: bool, payload: Bytes) -> Result<Option<Event>, frame::Fault> {
        let publisher = self.conns.get(key).filter(|conn| conn.may_publish && conn.place != Place::Leaving);
        publisher.map(|conn| publish::message(conn.wire, text, payload)).transpose()
    }

    pub(super) fn on_ping(&mut self, key: usize, payload: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let pin = conn.more.as_ref().and_then(|more| more.pin);
        if let (Some(pin), Some(Signal::Keep(id))) = (pin, Signal::parse(payload)) {
            self.lanes[conn.lane].topic.log.ack_id(pin, &id);
            conn.more().acked_at = Instant::now();
            self.close_when_drained(key);
        }
        let pong = frame::control(frame::op::PONG, payload).freeze();
        // Nothing is said behind a close (RFC 6455 §5.5.1).
        let hears = |conn: &&mut Conn| conn.place != Place::Leaving && conn.waiting() < 64 << 10;
        if let Some(conn) = self.conns.get_mut(key).filter(hears)
            && conn.send(pong) == Wrote::Dead
        {
            self.drop_conn(key, "connection lost");
        }
    }

    /// LINKS 13; a plain pinned reader's pong moves its pin, a link's pin moves by `k` only (LINKS 19).
    pub(super) fn on_pong(&mut self, key: usize, payload: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.ponged = true;
        let Some(Signal::Position { n, .. }) = Signal::parse(payload) else { return };
        let Some(offset) = conn.acknowledge(n) else { return };
        let pin = conn.more.as_ref().and_then(|more| more.pin);
        if let (Wire::Ws, Some(pin)) = (conn.wire.protocol(), pin) {
            self.lanes[conn.lane].topic.log.ack(pin, offset);
            self.close_when_drained(key);
        }
    }

    pub(super) fn on_close(&mut self, key: usize, code: u16) {
        let Some(conn) = self.conns.get(key) else { return };
        if conn.place == Place::Leaving {
            return self.drop_conn(key, "closed");
        }
        self.leave(key, &Farewell::Echo(code));
        if self.conns.get(key).is_some_and(Conn::is_clear) {
            self.drop_conn(key, "closed by the peer");
        }
    }

    pub(super) fn publish(&mut self, key: usize, events: Vec<Event>) {
        let Some(conn) = self.conns.get(key).filter(|_| !events.is_empty()) else { return };
        let topic = self.lanes[conn.lane].topic.clone();
        // Who publishes holds nobody as a reader, which would be waiting for itself (LINKS 23), and is not closed for
        // not reading what it said: it skips ahead, and is told.
        self.conns[key].unpin(&topic.log, true);
        self.conns[key].skip = true;
        self.publish_or_wait(key, topic, events);
    }

    fn publish_or_wait(&mut self, key: usize, topic: Arc<Topic>, events: Vec<Event>) {
        if !topic.log.has_room() {
            self.waiting.push((key, topic, events));
        } else if topic.publish(events, now_ms()).is_err() {
            self.leave(key, &Farewell::Unrecorded);
        }
    }

    fn is_waiting(&self, key: usize) -> bool {
        self.waiting.iter().any(|(waiting, ..)| *waiting == key)
    }

    /// What was said before the connection ended is published all the same.
    pub(super) fn retry_publishers(&mut self) {
        for (key, topic, events) in std::mem::take(&mut self.waiting) {
            self.publish_or_wait(key, topic, events);
            if !self.is_waiting(key) && self.conns.contains(key) {
                self.on_readable(key);
            }
        }
    }
}
