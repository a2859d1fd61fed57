//! How a stream reader is told things: the wire forms, and what each says at its start, for a gap and at the end.

use super::{
    cloudevents, json, sse,
    ws::{
        deflate::{self, Inflater},
        encode, frame,
    },
};
use crate::{
    event::{Batch, put_header},
    id::Id,
    link::{END_TRAILER, EXPIRED, GoAway, Signal},
    log::Gap,
    units::now_ms,
};
use bytes::{BufMut, Bytes, BytesMut};

/// How events are written to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// WebSocket: one message per event.
    Ws,
    /// The same frames with positions in pings (subprotocol `wsevent.v1`).
    Link,
    /// Server-Sent Events.
    Sse,
    /// One JSON object per line.
    Ndjson,
    /// WebSocket: one CloudEvent per message (subprotocol `cloudevents.json`, `--envelope cloudevents`).
    CloudWs,
    /// Server-Sent Events with a CloudEvent each.
    CloudSse,
    /// One CloudEvent per line.
    CloudLines,
    /// [`Wire::Ws`] with compressed messages (permessage-deflate, RFC 7692).
    DeflatedWs,
    /// [`Wire::Link`] with compressed messages.
    DeflatedLink,
}

/// Every wire form, in the order of [`Wire::index`].
pub const WIRES: [Wire; 9] = [
    Wire::Ws,
    Wire::Link,
    Wire::Sse,
    Wire::Ndjson,
    Wire::CloudWs,
    Wire::CloudSse,
    Wire::CloudLines,
    Wire::DeflatedWs,
    Wire::DeflatedLink,
];
/// The first of the batch's cache slots for the forms that are not in [`PROTOCOLS`].
const RARE_FORMS: usize = 3;
/// Those that have an instance of ours at the other end.
pub const LINKS: [Wire; 2] = [Wire::Link, Wire::DeflatedLink];
/// The wire forms without an envelope and uncompressed, which come first.
pub const PROTOCOLS: [Wire; 4] = [Wire::Ws, Wire::Link, Wire::Sse, Wire::Ndjson];
/// The batch's cache slots that all of these take; MQTT's are behind them.
pub const WIRE_SLOTS: usize = RARE_FORMS + WIRES.len() - PROTOCOLS.len();
/// The place of MQTT's readers in the tally, behind those of [`PROTOCOLS`].
pub const MQTT_FORM: usize = PROTOCOLS.len();

impl Wire {
    /// Its place in [`WIRES`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The same with each event in a CloudEvent; links stay as they are.
    pub fn enveloped(self) -> Self {
        match self {
            Wire::Ws => Wire::CloudWs,
            Wire::Sse => Wire::CloudSse,
            Wire::Ndjson => Wire::CloudLines,
            other => other,
        }
    }

    /// The same with compressed messages, where there is such a form.
    pub fn deflated(self) -> Option<Self> {
        match self {
            Wire::Ws => Some(Wire::DeflatedWs),
            Wire::Link => Some(Wire::DeflatedLink),
            _ => None,
        }
    }

    /// The same without envelope and compression.
    pub fn protocol(self) -> Self {
        match self {
            Wire::CloudWs | Wire::DeflatedWs => Wire::Ws,
            Wire::DeflatedLink => Wire::Link,
            Wire::CloudSse => Wire::Sse,
            Wire::CloudLines => Wire::Ndjson,
            other => other,
        }
    }

    /// WebSocket framing, plain or link.
    pub fn is_websocket(self) -> bool {
        matches!(self.protocol(), Wire::Ws | Wire::Link)
    }

    /// An instance of ours at the other end.
    pub fn is_link(self) -> bool {
        self.protocol() == Wire::Link
    }

    /// For what the peer sends.
    pub fn inflater(self) -> Option<Inflater> {
        matches!(self, Wire::DeflatedWs | Wire::DeflatedLink).then(Inflater::without_context)
    }

    /// A link's frames, compressed where that was agreed on.
    pub fn packed(self, frames: Bytes) -> Bytes {
        if self == Wire::DeflatedLink { deflate::frames(&frames) } else { frames }
    }

    /// The batch's events from index `from` on. A link's must have been announced (see [`encode`]).
    pub fn events(self, batch: &Batch, from: usize) -> Bytes {
        match (self, from) {
            (Wire::Ws, _) => batch.run().bytes().slice(batch.run().start_of(from)..),
            (Wire::Link, _) => encode::link_frames(batch, from),
            (Wire::Sse, 0) => batch.form(sse::SSE_FORM, |batch| sse::events(batch, 0)).clone(),
            (Wire::Sse, _) => sse::events(batch, from),
            (Wire::Ndjson, 0) => batch.form(json::NDJSON_FORM, |batch| json::lines(batch, 0)).clone(),
            (Wire::Ndjson, _) => json::lines(batch, from),
            (rare, 0) => {
                batch.form(RARE_FORMS + rare.index() - PROTOCOLS.len(), |batch| rare.rare_events(batch, 0)).clone()
            }
            (rare, _) => rare.rare_events(batch, from),
        }
    }

    fn rare_events(self, batch: &Batch, from: usize) -> Bytes {
        match self {
            Wire::DeflatedWs | Wire::DeflatedLink => deflate::frames(&self.protocol().events(batch, from)),
            _ => self.cloud_events(batch, from),
        }
    }

    fn cloud_events(self, batch: &Batch, from: usize) -> Bytes {
        let (mut out, mut one) = (BytesMut::new(), BytesMut::new());
        for (i, event) in batch.events().skip(from) {
            cloudevents::put(&mut one, &batch.id(i), batch.time(), &event);
            match self.protocol() {
                Wire::Sse => sse::put_text(&mut out, &batch.id(i), &event, &one),
                Wire::Ndjson => {
                    out.put_slice(&one);
                    out.put_u8(b'\n');
                }
                _ => {
                    put_header(&mut out, 0x80 | frame::op::TEXT, one.len());
                    out.put_slice(&one);
                }
            }
            one.clear();
        }
        out.freeze()
    }

    /// What a reader hears when events are lost for it, and may go on. A plain WebSocket gets the ping of a link, which
    /// it need not understand.
    pub fn gap(self, gap: &Gap) -> Bytes {
        match self.protocol() {
            Wire::Ws | Wire::Link => encode::ping(&Signal::from(gap)).freeze(),
            Wire::Sse => sse::gap(gap).into(),
            _ => json::gap_line(gap).into(),
        }
    }

    /// Where the stream stands, for a reader whose next event follows `last` (LINKS 7); also the keep-alive. `ms` is the
    /// origin's clock now, as far as this reader was told it.
    pub fn position(self, last: Option<&Id>, n: u64, ms: u64) -> Bytes {
        let next = || last.map(Id::next);
        match self.protocol() {
            Wire::Ws | Wire::Link => match next() {
                Some(next) => encode::position(next, ms, n).freeze(),
                None => frame::control(frame::op::PING, b"").freeze(),
            },
            Wire::Sse => last.map_or_else(|| Bytes::from_static(b":\n\n"), |id| sse::position(id).into()),
            _ => Bytes::new(),
        }
    }

    /// A line that means nothing, between two lines: sent to a reader that has closed its sending side, it makes the
    /// system of one that is gone answer with a reset. A WebSocket's peer is gone by then.
    pub fn probe(self) -> Bytes {
        match self.protocol() {
            Wire::Sse => Bytes::from_static(b":\n"),
            Wire::Ndjson => Bytes::from_static(b"\n"),
            _ => Bytes::new(),
        }
    }

    /// What a reader hears first: where it stands (LINKS 7), and how soon to come back if the connection breaks.
    pub fn hello(self, last: Option<&Id>) -> Bytes {
        match self.protocol() {
            Wire::Sse => [&b"retry: 1000\n"[..], &self.position(last, 0, now_ms())].concat().into(),
            _ => self.position(last, 0, now_ms()),
        }
    }

    /// What stands right before the close when the stream has ended (LINKS 18).
    pub fn end(self, last: Option<&Id>) -> Bytes {
        match (self.protocol(), last) {
            (Wire::Link, Some(last)) => encode::ping(&Signal::End(last.clone())).freeze(),
            _ => Bytes::new(),
        }
    }

    /// How the server says goodbye.
    pub fn farewell(self, farewell: &Farewell) -> Bytes {
        match (self.protocol(), farewell) {
            (Wire::Ws | Wire::Link, Farewell::Echo(frame::code::NO_STATUS)) => {
                frame::control(frame::op::CLOSE, b"").freeze()
            }
            (Wire::Ws | Wire::Link, farewell) => frame::close_frame(farewell.code(), &farewell.reason()).freeze(),
            (Wire::Sse, Farewell::Restart(ms) | Farewell::GoAway(GoAway::Retry(ms))) => {
                format!("retry: {ms}\n\n").into()
            }
            _ => Bytes::new(),
        }
    }
}

/// Why a reader's connection is closed.
#[derive(Clone, Debug, PartialEq)]
pub enum Farewell {
    /// The stream has ended.
    Done,
    /// This process ends; come back after so many milliseconds.
    Restart(u64),
    /// See [`GoAway`].
    GoAway(GoAway),
    /// The token that let the reader in has ended.
    Expired,
    /// The reader did not say who it is.
    Refused,
    /// What the peer published was not taken: the journal cannot be written.
    Unrecorded,
    /// The peer broke a rule.
    Fault(frame::Fault),
    /// The peer closed first: its code comes back (RFC 6455 §5.5.1).
    Echo(u16),
}

impl Farewell {
    fn code(&self) -> u16 {
        match self {
            Farewell::Done => frame::code::DONE,
            Farewell::Restart(_) => frame::code::RESTART,
            Farewell::GoAway(_) | Farewell::Unrecorded => frame::code::TRY_LATER,
            Farewell::Expired | Farewell::Refused => frame::code::POLICY,
            Farewell::Fault(fault) => fault.code,
            Farewell::Echo(code) => *code,
        }
    }

    /// The close reason, and the word for the log line.
    pub fn reason(&self) -> String {
        match self {
            Farewell::Done => String::new(),
            Farewell::Restart(_) => "restart".into(),
            Farewell::GoAway(why) => why.to_text(),
            Farewell::Expired => EXPIRED.into(),
            Farewell::Refused => "authentication needed".into(),
            Farewell::Unrecorded => format!("{} the journal cannot be written", GoAway::Retry(1000).to_text()),
            Farewell::Fault(fault) => fault.reason.into(),
            Farewell::Echo(_) => String::new(),
        }
    }
}

/// HTTP/1.1 chunked framing (RFC 9112 §7.1): each piece is one chunk.
pub fn chunked(piece: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(piece.len() + 16);
    out.put_slice(format!("{:x}\r\n", piece.len()).as_bytes());
    out.put_slice(piece);
    out.put_slice(b"\r\n");
    out.freeze()
}

/// The last chunk; behind it, for a stream that has ended, its last position as a trailer field (RFC 9112 §7.1.2).
pub fn last_chunk(end: Option<Id>) -> Vec<u8> {
    match end {
        Some(id) => format!("0\r\n{END_TRAILER}: {id}\r\n\r\n").into_bytes(),
        None => b"0\r\n\r\n".to_vec(),
    }
}
