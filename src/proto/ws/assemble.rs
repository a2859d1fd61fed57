//! Messages from a peer's bytes: what the general path needs.

use super::{
    deflate::Inflater,
    frame::{Fault, Header, code, op, unmask},
};
use crate::event::is_utf8;
use bytes::{Bytes, BytesMut};

/// What the peer said.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// A whole message.
    Message {
        /// Text or binary.
        text: bool,
        /// Unmasked, inflated, checked to be UTF-8 if text.
        payload: Bytes,
    },
    /// To be answered with the same payload.
    Ping(Bytes),
    /// The answer to one of our pings, or unasked.
    Pong(Bytes),
    /// The peer closes, with this code and reason.
    Close(u16, String),
}

/// A message whose last fragment has not come.
#[derive(Debug)]
struct Unfinished {
    text: bool,
    compressed: bool,
    bytes: BytesMut,
}

/// Assembles messages of one peer from its bytes.
#[derive(Debug)]
pub struct Assembler {
    /// Bytes of a frame that is not whole yet, or not looked at yet.
    pub buf: BytesMut,
    unfinished: Option<Unfinished>,
    max: usize,
    masked: bool,
    /// Present where compression was agreed on.
    inflater: Option<Inflater>,
    /// Bytes of a refused frame that are still to come.
    skip: usize,
    /// The rest of a refused message is dropped, up to its last fragment.
    dropping: bool,
}

impl Assembler {
    /// For a server, which reads masked frames (`masked`), or a client. `max` bounds a message in bytes.
    pub fn new(masked: bool, max: usize) -> Self {
        Assembler { buf: BytesMut::new(), unfinished: None, max, masked, inflater: None, skip: 0, dropping: false }
    }

    /// With what was agreed on about compression.
    pub fn inflating(self, inflater: Option<Inflater>) -> Self {
        Assembler { inflater, ..self }
    }

    /// Whether nothing is half read, so that the assembler may be forgotten.
    pub fn is_idle(&self) -> bool {
        self.buf.is_empty() && !self.is_inside_message()
    }

    /// Whether a message is under way that only this assembler can finish.
    pub fn is_inside_message(&self) -> bool {
        self.unfinished.is_some() || self.skip > 0 || self.dropping
    }

    /// After a fault about a data message (too big, not UTF-8): drops that message, all of it, and goes on behind it.
    /// Says whether there was one; any other fault is the connection's end.
    pub fn refuse(&mut self, fault: &Fault) -> bool {
        match (*fault, Header::parse(&self.buf)) {
            (NOT_UTF8, _) => true,
            (INFLATES_TOO_BIG, _) => !self.inflater.as_ref().is_some_and(Inflater::keeps_context),
            (TOO_BIG, Ok(Some(header))) => {
                self.unfinished = None;
                self.skip = header.total();
                self.dropping = !header.fin;
                true
            }
            _ => false,
        }
    }

    /// Drops what is refused, as far as it has come; false while more of it must come.
    fn skip_refused(&mut self) -> Result<bool, Fault> {
        loop {
            let n = self.skip.min(self.buf.len());
            let _ = self.buf.split_to(n);
            self.skip -= n;
            if self.skip > 0 {
                return Ok(false);
            }
            let Some(header) = Header::parse(&self.buf)?.filter(|header| self.dropping && header.op < op::CLOSE) else {
                return Ok(true);
            };
            self.skip = header.total();
            self.dropping = !header.fin;
        }
    }

    /// The next thing the peer said; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The fault to close the connection with.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Got>, Fault> {
        loop {
            if !self.skip_refused()? {
                return Ok(None);
            }
            let Some(header) = Header::parse(&self.buf)? else { return Ok(None) };
            self.check(&header)?;
            if self.buf.len() < header.total() {
                // A header alone must not cost memory: the bytes have to come, too.
                self.buf.reserve((header.total() - self.buf.len()).min(RESERVE));
                return Ok(None);
            }
            let mut payload = self.buf.split_to(header.total()).split_off(header.len);
            if let Some(key) = header.mask {
                unmask(&mut payload, key);
            }
            if let Some(got) = self.take(&header, payload)? {
                return Ok(Some(got));
            }
        }
    }

    fn check(&self, header: &Header) -> Result<(), Fault> {
        if header.mask.is_some() != self.masked {
            return Err(Fault::protocol(if self.masked {
                "client frame is not masked"
            } else {
                "server frame is masked"
            }));
        }
        // RFC 7692 §6.1: said once, by a message's first frame.
        if header.compressed && (self.inflater.is_none() || !matches!(header.op, op::TEXT | op::BINARY)) {
            return Err(Fault::protocol("compressed frame without agreement"));
        }
        let so_far = self.unfinished.as_ref().map_or(0, |message| message.bytes.len());
        if header.op < op::CLOSE && so_far.saturating_add(header.payload) > self.max {
            return Err(TOO_BIG);
        }
        match (header.op, &self.unfinished) {
            (op::CONTINUATION, None) => Err(Fault::protocol("continuation of nothing")),
            (op::TEXT | op::BINARY, Some(_)) => Err(Fault::protocol("message inside a message")),
            _ => Ok(()),
        }
    }

    fn take(&mut self, header: &Header, payload: BytesMut) -> Result<Option<Got>, Fault> {
        let message = match header.op {
            op::PING => return Ok(Some(Got::Ping(payload.freeze()))),
            op::PONG => return Ok(Some(Got::Pong(payload.freeze()))),
            op::CLOSE => return close(&payload).map(Some),
            op::CONTINUATION => {
                let Some(mut message) = self.unfinished.take() else { return Ok(None) };
                message.bytes.extend_from_slice(&payload);
                message
            }
            kind => Unfinished { text: kind == op::TEXT, compressed: header.compressed, bytes: payload },
        };
        if header.fin {
            return self.finish(message).map(Some);
        }
        self.unfinished = Some(message);
        Ok(None)
    }

    fn finish(&mut self, message: Unfinished) -> Result<Got, Fault> {
        let payload = match self.inflater.as_mut().filter(|_| message.compressed) {
            Some(inflater) => inflater.inflate(&message.bytes, self.max)?,
            None => message.bytes.freeze(),
        };
        if message.text && !is_utf8(&payload) {
            return Err(NOT_UTF8);
        }
        Ok(Got::Message { text: message.text, payload })
    }
}

/// What is reserved ahead of a long frame.
const RESERVE: usize = 64 << 10;
const TOO_BIG: Fault = Fault { code: code::TOO_BIG, reason: "message is larger than --max-message" };
/// The same, found out behind the message's bytes.
pub(super) const INFLATES_TOO_BIG: Fault =
    Fault { code: code::TOO_BIG, reason: "message inflates to more than --max-message" };
const NOT_UTF8: Fault = Fault { code: code::NOT_UTF8, reason: "text message is not UTF-8" };

/// RFC 6455 §5.5.1 and §7.4: no body, or a code that may be sent and a UTF-8 reason.
fn close(payload: &[u8]) -> Result<Got, Fault> {
    let Some((code, reason)) = payload.split_at_checked(2) else {
        return if payload.is_empty() {
            Ok(Got::Close(code::NO_STATUS, String::new()))
        } else {
            Err(Fault::protocol("close frame of one byte"))
        };
    };
    let code = u16::from_be_bytes([code[0], code[1]]);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::protocol("close code that must not be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Got::Close(code, reason.into())),
        Err(_) => Err(Fault { code: code::NOT_UTF8, reason: "close reason is not UTF-8" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Event, put_header},
        proto::ws::frame::{masked, scan},
    };
    use proptest::prelude::*;

    fn assemble(masked: bool, bytes: &[u8], step: usize) -> (Vec<Got>, Option<Fault>) {
        let mut assembler = Assembler::new(masked, 1 << 20);
        let mut got = Vec::new();
        for piece in bytes.chunks(step) {
            assembler.buf.extend_from_slice(piece);
            loop {
                match assembler.next() {
                    Ok(Some(one)) => got.push(one),
                    Ok(None) => break,
                    Err(fault) => return (got, Some(fault)),
                }
            }
        }
        (got, None)
    }

    proptest! {
        #[test]
        fn messages_survive_masking_and_any_split(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8), key: [u8; 4], step in 1usize..9) {
            let events: Vec<Event> = payloads.into_iter().map(Event::new).collect();
            let mut wire = BytesMut::new();
            for event in &events {
                wire.extend_from_slice(&masked(if event.text { op::TEXT } else { op::BINARY }, &event.payload, key));
            }
            let (got, fault) = assemble(true, &wire, step);
            prop_assert_eq!(fault, None);
            let want: Vec<Got> = events.iter().map(|e| Got::Message { text: e.text, payload: e.payload.clone() }).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn what_the_scanner_passes_on_the_assembler_agrees_with(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let stretch = scan(&bytes, usize::MAX, 1 << 20);
            let (got, fault) = assemble(false, &bytes[..stretch.len], usize::MAX);
            prop_assert_eq!(fault, None);
            prop_assert_eq!(got.len(), stretch.count as usize);
        }
    }

    #[test]
    fn faults_have_the_codes_of_the_rfc() {
        let table: [(&[u8], u16); 9] = [
            (&[0x81, 0x01, b'x'], code::PROTOCOL),
            (&[0xb1, 0x80, 0, 0, 0, 0], code::PROTOCOL),
            (&[0x83, 0x80, 0, 0, 0, 0], code::PROTOCOL),
            (&[0x09, 0x80, 0, 0, 0, 0], code::PROTOCOL),
            (&[0x80, 0x80, 0, 0, 0, 0], code::PROTOCOL),
            (&[0x88, 0x81, 0, 0, 0, 0, 1], code::PROTOCOL),
            (&[0x88, 0x82, 0, 0, 0, 0, 3, 0xed], code::PROTOCOL),
            (&[0x81, 0x81, 0, 0, 0, 0, 0xff], code::NOT_UTF8),
            (&[0x82, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0], code::TOO_BIG),
        ];
        for (bytes, expected) in table {
            assert_eq!(assemble(true, bytes, 1).1.map(|f| f.code), Some(expected), "{bytes:?}");
        }
    }

    #[test]
    fn fragments_join_and_control_frames_pass_between_them() {
        let mut wire = BytesMut::new();
        for (first, payload) in [(0x01u8, &b"a"[..]), (0x89, b"?"), (0x00, b"b"), (0x80, b"c")] {
            put_header(&mut wire, first, payload.len());
            wire.extend_from_slice(payload);
        }
        let (got, fault) = assemble(false, &wire, 1);
        let message = Got::Message { text: true, payload: "abc".into() };
        assert_eq!((got, fault), (vec![Got::Ping("?".into()), message], None));
    }
}
