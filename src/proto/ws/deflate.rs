//! permessage-deflate (RFC 7692): what is agreed on, frames that are compressed once for all readers, and inflation
//! with a bound.
//!
//! This side never carries a context from one message to the next, so that one compressed frame serves every reader;
//! as a client it follows a server that does.

use super::{
    assemble::INFLATES_TOO_BIG,
    frame::{Fault, Header, code, op},
};
use crate::event::put_header;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::{cell::RefCell, fmt};

/// The extension's name; alone, a client's offer without conditions (RFC 7692 §7.1).
pub const EXTENSION: &str = "permessage-deflate";
/// RSV1 in a frame's first byte.
const COMPRESSED: u8 = 0x40;
/// Where a message's last, empty block ends; not sent (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Payloads below are not worth a try.
const SMALLEST: usize = 32;
/// Output is taken in steps of this.
const STEP: usize = 16 << 10;

/// A server's answer to a client's offers, best first; `None` if none can be taken.
pub fn accept<'a>(offers: impl Iterator<Item = &'a str>) -> Option<String> {
    offers.flat_map(|field| field.split(',')).find_map(accept_one)
}

/// RFC 7692 §7.1: an offer with a parameter that is unknown, doubled or wrong is declined.
fn accept_one(offer: &str) -> Option<String> {
    let (name, parameters) = parameters(offer);
    let mut seen = Vec::new();
    let mut answer = format!("{EXTENSION}; server_no_context_takeover; client_no_context_takeover");
    for (key, value) in parameters {
        match (key, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) | ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(bits)) if is_window(bits) => {}
            // The encoder has the whole window only.
            ("server_max_window_bits", Some("15")) => answer.push_str("; server_max_window_bits=15"),
            _ => return None,
        }
        if seen.contains(&key) {
            return None;
        }
        seen.push(key);
    }
    (name == EXTENSION).then_some(answer)
}

/// An extension's name and its parameters.
fn parameters(element: &str) -> (&str, impl Iterator<Item = (&str, Option<&str>)>) {
    let mut parts = element.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let pairs = parts.map(|part| match part.split_once('=') {
        Some((key, value)) => (key.trim_end(), Some(value.trim_start().trim_matches('"'))),
        None => (part, None),
    });
    (name, pairs)
}

/// RFC 7692 §7.1.2: 8 to 15, without leading zeroes.
fn is_window(bits: &str) -> bool {
    matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

thread_local! {
    static DEFLATER: RefCell<(Compress, Vec<u8>)> =
        RefCell::new((Compress::new(Compression::default(), false), Vec::new()));
}

/// A server's frames with each message compressed that gets smaller by it; others, and control frames, as they are.
pub fn frames(plain: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(plain.len());
    let mut rest = plain;
    while let Ok(Some(header)) = Header::parse(rest) {
        let Some((frame, behind)) = rest.split_at_checked(header.total()) else { break };
        put_smaller(&mut out, &header, frame);
        rest = behind;
    }
    out.put_slice(rest);
    out.freeze()
}

fn put_smaller(out: &mut BytesMut, header: &Header, frame: &[u8]) {
    let payload = &frame[header.len..];
    let whole = header.fin && matches!(header.op, op::TEXT | op::BINARY) && payload.len() >= SMALLEST;
    let compressed = |deflated: &[u8]| {
        put_header(out, frame[0] | COMPRESSED, deflated.len());
        out.put_slice(deflated);
    };
    if !(whole && deflate(payload, compressed)) {
        out.put_slice(frame);
    }
}

/// Hands over the payload compressed, without its tail, if that is smaller.
fn deflate(payload: &[u8], then: impl FnOnce(&[u8])) -> bool {
    DEFLATER.with_borrow_mut(|(state, out)| {
        state.reset();
        out.clear();
        // What does not fit is not smaller.
        out.reserve(payload.len() + TAIL.len());
        let done = state.compress_vec(payload, out, FlushCompress::Sync);
        let whole = done.is_ok() && state.total_in() == payload.len() as u64;
        match out.strip_suffix(&TAIL) {
            Some(deflated) if whole && deflated.len() < payload.len() => then(deflated),
            _ => return false,
        }
        true
    })
}

/// Inflates one peer's messages.
pub struct Inflater {
    /// Where the peer carries its context on from message to message (RFC 7692 §7.1.1).
    context: Option<Box<Decompress>>,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("keeps_context", &self.keeps_context()).finish()
    }
}

thread_local! {
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

impl Inflater {
    /// For a peer that begins each message anew; costs nothing while nothing is inflated.
    pub fn without_context() -> Self {
        Inflater { context: None }
    }

    /// What a server's answer to the bare offer agrees on.
    ///
    /// # Errors
    /// An answer that the offer does not allow.
    pub fn agreed(answer: &str) -> Result<Self, String> {
        let (name, parameters) = parameters(answer);
        let mut keeps = true;
        let refuse = || Err(format!("the server chose an extension that was not offered: {answer}"));
        if name != EXTENSION || answer.contains(',') {
            return refuse();
        }
        for (key, value) in parameters {
            match (key, value) {
                ("server_no_context_takeover", None) => keeps = false,
                ("client_no_context_takeover", None) => {}
                ("server_max_window_bits", Some(bits)) if is_window(bits) => {}
                _ => return refuse(),
            }
        }
        Ok(Inflater { context: keeps.then(|| Box::new(Decompress::new(false))) })
    }

    /// Whether a message that is not inflated to its end leaves the next ones unreadable.
    pub fn keeps_context(&self) -> bool {
        self.context.is_some()
    }

    /// One message's payload, of at most `max` bytes.
    ///
    /// # Errors
    /// More than `max` bytes, or no deflate stream.
    pub fn inflate(&mut self, payload: &[u8], max: usize) -> Result<Bytes, Fault> {
        match &mut self.context {
            Some(state) => inflate(state, payload, max),
            None => INFLATER.with_borrow_mut(|state| {
                state.reset(false);
                inflate(state, payload, max)
            }),
        }
    }
}

fn inflate(state: &mut Decompress, payload: &[u8], max: usize) -> Result<Bytes, Fault> {
    let broken = Fault { code: code::NOT_UTF8, reason: "compressed message is broken" };
    let mut out = Vec::with_capacity(payload.len().saturating_mul(2).min(max));
    for mut input in [payload, &TAIL] {
        loop {
            if out.len() == out.capacity() {
                out.reserve(STEP);
            }
            let (read, written) = (state.total_in(), out.len());
            let status = state.decompress_vec(input, &mut out, FlushDecompress::Sync).map_err(|_| broken)?;
            let read = (state.total_in() - read) as usize;
            input = &input[read..];
            if out.len() > max {
                return Err(INFLATES_TOO_BIG);
            }
            match status {
                // RFC 7692 §7.2.3.4: a block may say that it is the last, and be followed by others all the same.
                Status::StreamEnd => state.reset(false),
                _ if input.is_empty() && out.len() < out.capacity() => break,
                _ if read == 0 && out.len() == written && out.len() < out.capacity() => return Err(broken),
                _ => {}
            }
            if input.is_empty() && matches!(status, Status::StreamEnd) {
                break;
            }
        }
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Event, Run},
        proto::ws::assemble::{Assembler, Got},
    };
    use proptest::prelude::*;

    fn read(bytes: &[u8], max: usize) -> (Vec<Bytes>, Option<Fault>) {
        let mut assembler = Assembler::new(false, max).inflating(Some(Inflater::without_context()));
        assembler.buf.extend_from_slice(bytes);
        let mut got = Vec::new();
        loop {
            match assembler.next() {
                Ok(Some(Got::Message { payload, .. })) => got.push(payload),
                Ok(Some(_)) => {}
                Ok(None) => return (got, None),
                Err(fault) => return (got, Some(fault)),
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_compressed_comes_back(payloads in prop::collection::vec(prop::collection::vec(0u8..8, 0..3000), 1..6)) {
            let events: Vec<Event> = payloads.into_iter().map(Event::new).collect();
            let run = Run::of(&events);
            let packed = frames(run.bytes());
            prop_assert!(packed.len() <= run.bytes().len());
            let want: Vec<Bytes> = events.iter().map(|event| event.payload.clone()).collect();
            prop_assert_eq!(read(&packed, 1 << 20), (want, None));
        }

        #[test]
        fn garbage_is_a_fault_and_never_more_than_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            if let Ok(out) = Inflater::without_context().inflate(&bytes, 1000) {
                prop_assert!(out.len() <= 1000);
            }
        }
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7692 §7.2.3.1, §7.2.3.3 (no compression), §7.2.3.4 (a final block).
        let mut inflater = Inflater::without_context();
        for payload in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        ] {
            assert_eq!(inflater.inflate(payload, 100), Ok("Hello".into()), "{payload:x?}");
        }
        // §7.2.3.2: the second message points into the first.
        let mut inflater = Inflater::agreed(EXTENSION).expect("the bare answer");
        for payload in [&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], &[0xf2, 0x00, 0x11, 0x00, 0x00]] {
            assert_eq!(inflater.inflate(payload, 100), Ok("Hello".into()), "{payload:x?}");
        }
    }

    #[test]
    fn a_bomb_ends_at_the_bound() {
        let event = Event::new(vec![b'a'; 4 << 20]);
        let packed = frames(Run::of(&[event]).bytes());
        assert!(packed.len() < 10_000);
        assert_eq!(read(&packed, 1 << 20), (vec![], Some(INFLATES_TOO_BIG)));
        assert_eq!(read(&packed, 4 << 20).0.len(), 1);
    }

    #[test]
    fn offers_are_taken_or_declined_as_the_rfc_says() {
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for (offer, answer) in [
            ("permessage-deflate", Some(plain)),
            ("permessage-deflate; client_max_window_bits", Some(plain)),
            ("permessage-deflate;client_max_window_bits=\"10\" ; server_no_context_takeover", Some(plain)),
            ("permessage-deflate; server_max_window_bits=10", None),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", Some(plain)),
            ("permessage-deflate; client_max_window_bits=99", None),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; colour=blue", None),
            ("x-webkit-deflate-frame", None),
            ("", None),
        ] {
            assert_eq!(accept([offer].into_iter()).as_deref(), answer, "{offer}");
        }
        let window = accept(["permessage-deflate; server_max_window_bits=15"].into_iter());
        assert_eq!(window, Some(format!("{plain}; server_max_window_bits=15")));
    }

    #[test]
    fn answers_that_were_not_offered_are_refused() {
        for (answer, keeps) in [
            ("permessage-deflate", Some(true)),
            ("permessage-deflate; server_no_context_takeover; server_max_window_bits=12", Some(false)),
            ("permessage-deflate; client_max_window_bits=12", None),
            ("permessage-deflate, permessage-deflate", None),
            ("gzip", None),
        ] {
            assert_eq!(Inflater::agreed(answer).ok().map(|agreed| agreed.keeps_context()), keeps, "{answer}");
        }
    }
}
