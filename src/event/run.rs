//! Payloads laid end to end, each behind a length header.
//!
//! The header is the unmasked data-frame header of RFC 6455 §5.2, chosen so that what an upstream server sent is byte for
//! byte what our readers must get: a forwarder neither decodes nor copies it. Whoever wants payloads walks the run.

use super::{Event, is_utf8};
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;

/// FIN, RSV1-3 and opcode of a whole text message.
const TEXT: u8 = 0x81;
/// The same of a whole binary message.
const BINARY: u8 = 0x82;

/// Whole messages laid end to end; see the module's text for the form.
#[derive(Clone, Debug, Default)]
pub struct Run {
    bytes: Bytes,
    count: u32,
}

/// Where one message stands in its run.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Header and payload.
    pub frame: Range<usize>,
    /// The payload alone.
    pub payload: Range<usize>,
    /// Text or binary.
    pub text: bool,
}

impl Run {
    /// Takes bytes that a caller has checked to be `count` whole unmasked FIN data frames.
    pub fn from_frames(bytes: Bytes, count: u32) -> Self {
        debug_assert_eq!(Messages { bytes: &bytes, at: 0 }.count(), count as usize);
        Run { bytes, count }
    }

    /// `None` unless the bytes are exactly `count` whole unmasked FIN data frames, text in UTF-8.
    pub fn parse(bytes: Bytes, count: u32) -> Option<Self> {
        let (mut found, mut end) = (0, 0);
        for message in (Messages { bytes: &bytes, at: 0 }) {
            let masked = bytes[message.frame.start + 1] >= 0x80;
            let valid = match bytes[message.frame.start] {
                TEXT => is_utf8(&bytes[message.payload]),
                first => first == BINARY,
            };
            if masked || !valid {
                return None;
            }
            (found, end) = (found + 1, message.frame.end);
        }
        (found == count && end == bytes.len()).then_some(Run { bytes, count })
    }

    /// Lays one event after another.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut run = RunBuilder::default();
        for event in events {
            run.push(event.text, &event.payload);
        }
        run.finish()
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The frames as they go to a WebSocket.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where each message stands.
    pub fn messages(&self) -> Messages<'_> {
        Messages { bytes: &self.bytes, at: 0 }
    }

    /// Where the n-th message begins; the end for `n == len`.
    pub fn start_of(&self, n: usize) -> usize {
        if n == self.len() {
            self.bytes.len()
        } else {
            self.messages().nth(n).map_or(self.bytes.len(), |m| m.frame.start)
        }
    }
}

/// Walks a run.
pub struct Messages<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let rest = &self.bytes[self.at..];
        let (&first, &second) = (rest.first()?, rest.get(1)?);
        let (header, len) = match second {
            126 => (4, usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(rest.get(2..10)?.try_into().ok()?) as usize),
            len => (2, usize::from(len)),
        };
        let (start, payload) = (self.at, self.at + header);
        self.at = payload.checked_add(len).filter(|&end| end <= self.bytes.len())?;
        Some(Message { frame: start..self.at, payload: payload..self.at, text: first == TEXT })
    }
}

/// Builds a [`Run`] message by message.
#[derive(Default)]
pub struct RunBuilder {
    bytes: BytesMut,
    count: u32,
}

impl RunBuilder {
    /// Appends one message.
    pub fn push(&mut self, text: bool, payload: &[u8]) {
        self.bytes.reserve(payload.len() + 10);
        put_header(&mut self.bytes, if text { TEXT } else { BINARY }, payload.len());
        self.bytes.put_slice(payload);
        self.count += 1;
    }

    /// Messages so far.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether nothing was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far, headers included.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// What was pushed; the builder is empty afterwards.
    pub fn finish(&mut self) -> Run {
        Run { bytes: self.bytes.split().freeze(), count: std::mem::take(&mut self.count) }
    }
}

/// Writes an unmasked frame header in its shortest form (RFC 6455 §5.2).
pub fn put_header(out: &mut BytesMut, first: u8, len: usize) {
    out.put_u8(first);
    match len {
        0..126 => out.put_u8(len as u8),
        126..65536 => {
            out.put_u8(126);
            out.put_u16(len as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_take_the_shortest_form() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)] {
            let run = Run::of(&[Event::new(vec![b'x'; len])]);
            assert_eq!(run.bytes().len(), header + len);
            assert_eq!(run.messages().next().map(|m| m.payload.len()), Some(len));
        }
    }
}
