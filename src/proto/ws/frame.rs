//! Reading frames: one header parser, one assembler for what the general path needs, one scanner that finds the
//! stretch of a server's bytes that can be passed on as it is.

use crate::event::{is_utf8, put_header};
use bytes::{Bytes, BytesMut};

/// Opcodes of RFC 6455 §5.2.
#[allow(missing_docs)]
pub mod op {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// Close codes of RFC 6455 §7.4.1 and the IANA registry, as this program uses them.
#[allow(missing_docs)]
pub mod code {
    pub const DONE: u16 = 1000;
    pub const AWAY: u16 = 1001;
    pub const PROTOCOL: u16 = 1002;
    pub const UNSUPPORTED: u16 = 1003;
    pub const NO_STATUS: u16 = 1005;
    pub const NOT_UTF8: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const FAULT: u16 = 1011;
    pub const RESTART: u16 = 1012;
    pub const TRY_LATER: u16 = 1013;
}

/// The peer broke the protocol, or a limit: close with this code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// The close code that says so.
    pub code: u16,
    /// What was wrong.
    pub reason: &'static str,
}

impl Fault {
    const fn protocol(reason: &'static str) -> Self {
        Fault { code: code::PROTOCOL, reason }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (close {})", self.reason, self.code)
    }
}

impl std::error::Error for Fault {}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// The last frame of its message.
    pub fin: bool,
    /// RSV1 (compression), never RSV2 or RSV3.
    pub compressed: bool,
    /// One of [`op`].
    pub op: u8,
    /// The masking key, present on what clients send.
    pub mask: Option<[u8; 4]>,
    /// Bytes of this header.
    pub len: usize,
    /// Bytes of payload behind it.
    pub payload: usize,
}

impl Header {
    /// `Ok(None)` when more bytes are needed.
    ///
    /// # Errors
    /// Reserved bits or opcodes, and control frames that are long or fragmented (RFC 6455 §5.2, §5.5).
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Fault> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let (fin, op) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x30 != 0 {
            return Err(Fault::protocol("reserved bits are set"));
        }
        if matches!(op, 3..=7 | 11..) {
            return Err(Fault::protocol("reserved opcode"));
        }
        let short = second & 0x7f;
        if op >= op::CLOSE && (!fin || short > 125) {
            return Err(Fault::protocol("control frame is fragmented or too long"));
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & 0x80 != 0;
        let len = 2 + extended + if masked { 4 } else { 0 };
        let Some(header) = bytes.get(..len) else { return Ok(None) };
        let payload = match extended {
            0 => u64::from(short),
            n => header[2..2 + n].iter().fold(0, |len, &b| len << 8 | u64::from(b)),
        };
        if payload >> 63 != 0 {
            return Err(Fault::protocol("length has its top bit set"));
        }
        let mask = masked.then(|| [header[len - 4], header[len - 3], header[len - 2], header[len - 1]]);
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        Ok(Some(Header { fin, compressed: first & 0x40 != 0, op, mask, len, payload }))
    }

    /// Header and payload together.
    pub fn total(&self) -> usize {
        self.len.saturating_add(self.payload)
    }
}

/// XORs the payload with the key (RFC 6455 §5.3).
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// What the peer said.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// A whole message.
    Message {
        /// Text or binary.
        text: bool,
        /// Unmasked, checked to be UTF-8 if text.
        payload: Bytes,
    },
    /// To be answered with the same payload.
    Ping(Bytes),
    /// The answer to one of our pings, or unasked.
    Pong(Bytes),
    /// The peer closes, with this code and reason.
    Close(u16, String),
}

/// Assembles messages of one peer from its bytes.
#[derive(Debug)]
pub struct Assembler {
    /// Bytes of a frame that is not whole yet, or not looked at yet.
    pub buf: BytesMut,
    fragments: Option<(bool, BytesMut)>,
    max: usize,
    masked: bool,
    /// Bytes of a refused frame that are still to come.
    skip: usize,
    /// The rest of a refused message is dropped, up to its last fragment.
    dropping: bool,
}

impl Assembler {
    /// For a server, which reads masked frames (`masked`), or a client. `max` bounds a message in bytes.
    pub fn new(masked: bool, max: usize) -> Self {
        Assembler { buf: BytesMut::new(), fragments: None, max, masked, skip: 0, dropping: false }
    }

    /// Whether nothing is half read, so that the assembler may be forgotten.
    pub fn is_idle(&self) -> bool {
        self.buf.is_empty() && !self.is_inside_message()
    }

    /// Whether a message is under way that only this assembler can finish.
    pub fn is_inside_message(&self) -> bool {
        self.fragments.is_some() || self.skip > 0 || self.dropping
    }

    /// After a fault about a data message (too big, not UTF-8): drops that message, all of it, and goes on behind it.
    /// Says whether there was one; any other fault is the connection's end.
    pub fn refuse(&mut self, fault: &Fault) -> bool {
        match (fault.code, Header::parse(&self.buf)) {
            (code::TOO_BIG, Ok(Some(header))) => {
                self.fragments = None;
                self.skip = header.total();
                self.dropping = !header.fin;
                true
            }
            (code::NOT_UTF8, _) => fault.reason == MESSAGE_NOT_UTF8,
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
        if header.compressed {
            return Err(Fault::protocol("compressed frame without agreement"));
        }
        let so_far = self.fragments.as_ref().map_or(0, |(_, bytes)| bytes.len());
        if header.op < op::CLOSE && so_far.saturating_add(header.payload) > self.max {
            return Err(Fault { code: code::TOO_BIG, reason: "message is larger than --max-message" });
        }
        match (header.op, &self.fragments) {
            (op::CONTINUATION, None) => Err(Fault::protocol("continuation of nothing")),
            (op::TEXT | op::BINARY, Some(_)) => Err(Fault::protocol("message inside a message")),
            _ => Ok(()),
        }
    }

    fn take(&mut self, header: &Header, payload: BytesMut) -> Result<Option<Got>, Fault> {
        let got = match header.op {
            op::PING => Got::Ping(payload.freeze()),
            op::PONG => Got::Pong(payload.freeze()),
            op::CLOSE => close(&payload)?,
            op::CONTINUATION => {
                let Some((text, mut bytes)) = self.fragments.take() else { return Ok(None) };
                bytes.extend_from_slice(&payload);
                if !header.fin {
                    self.fragments = Some((text, bytes));
                    return Ok(None);
                }
                message(text, bytes)?
            }
            kind if !header.fin => {
                self.fragments = Some((kind == op::TEXT, payload));
                return Ok(None);
            }
            kind => message(kind == op::TEXT, payload)?,
        };
        Ok(Some(got))
    }
}

/// What is reserved ahead of a long frame.
const RESERVE: usize = 64 << 10;
const MESSAGE_NOT_UTF8: &str = "text message is not UTF-8";

fn message(text: bool, payload: BytesMut) -> Result<Got, Fault> {
    if text && !is_utf8(&payload) {
        return Err(Fault { code: code::NOT_UTF8, reason: MESSAGE_NOT_UTF8 });
    }
    Ok(Got::Message { text, payload: payload.freeze() })
}

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

/// The stretch at the front of a server's bytes that is whole, unmasked, FIN, RSV-free data frames (LINKS 12).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stretch {
    /// Bytes.
    pub len: usize,
    /// Messages.
    pub count: u32,
}

/// Measures that stretch, up to `limit` bytes or one message. What ends it (a control frame, a fragment, a message that
/// is too big or not UTF-8, an unfinished frame) is the general path's to judge.
pub fn scan(bytes: &[u8], limit: usize, max_message: usize) -> Stretch {
    let mut stretch = Stretch::default();
    while let Ok(Some(header)) = Header::parse(&bytes[stretch.len..]) {
        let data = matches!(header.op, op::TEXT | op::BINARY);
        let end = stretch.len.saturating_add(header.total());
        let whole = end <= bytes.len() && header.payload <= max_message;
        let fits = end <= limit || stretch.count == 0;
        if !(data && header.fin && header.mask.is_none() && !header.compressed && whole && fits) {
            break;
        }
        if header.op == op::TEXT && !is_utf8(&bytes[stretch.len + header.len..end]) {
            break;
        }
        stretch = Stretch { len: end, count: stretch.count + 1 };
    }
    stretch
}

/// A control frame as a server sends it. `payload` is cut at 125 bytes.
pub fn control(op: u8, payload: &[u8]) -> BytesMut {
    let payload = &payload[..payload.len().min(125)];
    let mut out = BytesMut::with_capacity(payload.len() + 2);
    put_header(&mut out, 0x80 | op, payload.len());
    out.extend_from_slice(payload);
    out
}

/// A close frame as a server sends it.
pub fn close_frame(code: u16, reason: &str) -> BytesMut {
    let mut body = code.to_be_bytes().to_vec();
    let cut = reason.floor_char_boundary(reason.len().min(123));
    body.extend_from_slice(&reason.as_bytes()[..cut]);
    control(op::CLOSE, &body)
}

/// Any frame as a client sends it: masked with `key` (RFC 6455 §5.3).
pub fn masked(op: u8, payload: &[u8], key: [u8; 4]) -> BytesMut {
    let mut out = BytesMut::with_capacity(payload.len() + 14);
    put_masked(&mut out, op, payload, key);
    out
}

/// Appends the same.
pub fn put_masked(out: &mut BytesMut, op: u8, payload: &[u8], key: [u8; 4]) {
    let head = out.len();
    put_header(out, 0x80 | op, payload.len());
    out[head + 1] |= 0x80;
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Run};
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
    fn the_scanner_stops_before_whatever_is_not_a_whole_plain_message() {
        let run = Run::of(&[Event::new("one"), Event::new("two")]);
        let whole = Stretch { len: run.bytes().len(), count: 2 };
        let ends: [&[u8]; 6] =
            [&control(op::PING, b"p"), &[0x01, 1, b'x'], &[0x81, 2, b'x'], &[0xc1, 1, b'x'], &[0x81, 1, 0xff], b""];
        for end in ends {
            let bytes = [run.bytes(), end].concat();
            assert_eq!(scan(&bytes, usize::MAX, 1024), whole, "{end:?}");
        }
        assert_eq!(scan(run.bytes(), 6, 1024).count, 1, "at most the limit");
        assert_eq!(scan(run.bytes(), 1, 1024).count, 1, "but at least one message");
        assert_eq!(scan(run.bytes(), 99, 2).count, 0, "too big is the general path's to refuse");
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
