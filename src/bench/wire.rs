//! Bytes of a stream to its events, in place. What a reader gets is looked at once and not kept.
//!
//! The lines of SSE may end in CRLF or LF; a lone CR, which the standard also allows, nobody sends.

use super::broker;
use crate::proto::ws::frame::{Fault, Header, masked, op};
use bytes::BytesMut;

/// How a stream brings its events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire {
    /// WebSocket messages.
    Ws,
    /// Server-Sent Events.
    Sse,
    /// Lines.
    Ndjson,
    /// Messages of a NATS server.
    Nats,
    /// Messages of an MQTT broker.
    Mqtt,
}

/// A frame or an event of more bytes than this ends the reader.
const MAX: usize = 64 << 20;

/// What there was at the front of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Read {
    /// Bytes that are done with.
    pub len: usize,
    /// The other side said that this is the end, orderly if so.
    pub end: Option<bool>,
}

impl Wire {
    /// Hands out the payload of each event that is whole; puts into `answers` what has to be sent back.
    ///
    /// # Errors
    /// What breaks the protocol.
    pub fn read(self, bytes: &[u8], on_event: &mut dyn FnMut(&[u8]), answers: &mut BytesMut) -> Result<Read, String> {
        let read = match self {
            Wire::Ws => frames(bytes, on_event, answers).map_err(|fault| fault.to_string())?,
            Wire::Sse => Read { len: blocks(bytes, on_event), end: None },
            Wire::Ndjson => Read { len: lines(bytes, on_event), end: None },
            Wire::Nats | Wire::Mqtt => broker::messages(self, bytes, on_event, answers)?,
        };
        if bytes.len() - read.len > MAX { Err("an event without end".into()) } else { Ok(read) }
    }
}

/// A message counts with its first frame, where the stamp is.
fn frames(bytes: &[u8], on_event: &mut dyn FnMut(&[u8]), answers: &mut BytesMut) -> Result<Read, Fault> {
    let mut read = Read::default();
    while let Some(header) = Header::parse(&bytes[read.len..])? {
        let start = read.len + header.len;
        let Some(payload) = bytes.get(start..start.saturating_add(header.payload)) else { break };
        match header.op {
            op::TEXT | op::BINARY => on_event(payload),
            op::PING => answers.extend_from_slice(&masked(op::PONG, payload, rand::random())),
            op::CLOSE => {
                answers.extend_from_slice(&masked(op::CLOSE, payload.get(..2).unwrap_or_default(), rand::random()));
                read.end = Some(payload.starts_with(&1000u16.to_be_bytes()));
                break;
            }
            _ => {}
        }
        read.len += header.total();
    }
    Ok(read)
}

/// A block without data is a position or a comment, one of the type `gap` tells a loss.
fn blocks(bytes: &[u8], on_event: &mut dyn FnMut(&[u8])) -> usize {
    let (mut done, mut line, mut data, mut gap) = (0, 0, None, false);
    for end in memchr::memchr_iter(b'\n', bytes) {
        let text = bytes[line..end].strip_suffix(b"\r").unwrap_or(&bytes[line..end]);
        match text {
            b"" => {
                if let Some(start) = data.take().filter(|_| !gap) {
                    on_event(&bytes[start..line]);
                }
                (done, gap) = (end + 1, false);
            }
            [b'd', b'a', b't', b'a', b':', ..] => data = data.or(Some(line)),
            b"event: gap" => gap = true,
            _ => {}
        }
        line = end + 1;
    }
    done
}

fn lines(bytes: &[u8], on_event: &mut dyn FnMut(&[u8])) -> usize {
    let mut line = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        let text = bytes[line..end].trim_ascii();
        if !text.is_empty() && !text.starts_with(b"{\"gap\":") {
            on_event(text);
        }
        line = end + 1;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Run};

    fn read(wire: Wire, bytes: &[u8]) -> (Vec<String>, Read, Vec<u8>) {
        let (mut events, mut answers) = (Vec::new(), BytesMut::new());
        let mut take = |payload: &[u8]| events.push(String::from_utf8_lossy(payload).into_owned());
        let read = wire.read(bytes, &mut take, &mut answers).expect("well formed");
        (events, read, answers.to_vec())
    }

    #[test]
    fn half_an_event_waits() {
        let ws = Run::of(&[Event::new("one"), Event::new("two")]).bytes().to_vec();
        let table: [(Wire, &[u8], [&str; 2]); 4] = [
            (Wire::Ws, &ws, ["one", "two"]),
            (Wire::Sse, b"data: one\n\ndata: two\n\n", ["data: one\n", "data: two\n"]),
            (
                Wire::Sse,
                b"id: 1\n\nid: 2\r\ndata: one\r\n\r\n:\n\nevent: gap\ndata: {}\n\ndata: two\n\n",
                ["data: one\r\n", "data: two\n"],
            ),
            (Wire::Ndjson, b"one\n\n{\"gap\":{}}\ntwo\r\n", ["one", "two"]),
        ];
        for (wire, bytes, events) in table {
            assert_eq!(
                read(wire, bytes),
                (events.map(String::from).into(), Read { len: bytes.len(), end: None }, vec![])
            );
            let mut got = Vec::new();
            for cut in 0..bytes.len() {
                let (first, done, _) = read(wire, &bytes[..cut]);
                let (second, ..) = read(wire, &bytes[done.len..]);
                got.push([first, second].concat());
            }
            assert!(got.iter().all(|got| got[..] == events), "{got:?}");
        }
    }

    #[test]
    fn pings_and_closes_are_answered() {
        let (events, done, answers) = read(Wire::Ws, &[0x89, 1, b'p', 0x88, 2, 3, 0xe8, 0x81, 0]);
        assert!(events.is_empty() && done == Read { len: 3, end: Some(true) });
        assert_eq!((answers[0], answers[7]), (0x8a, 0x88));
        assert_eq!(read(Wire::Ws, &[0x88, 2, 3, 0xf5]).1.end, Some(false));
        let fault = Wire::Ws.read(&[0xff, 0], &mut |_| {}, &mut BytesMut::new());
        assert!(fault.is_err());
    }
}
