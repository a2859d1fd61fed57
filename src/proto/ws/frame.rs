//! Frames: one header parser, one scanner that finds the stretch of a server's bytes that can be passed on as it is, and
//! the frames that are made here.

use crate::event::{is_utf8, put_header};
use bytes::BytesMut;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The close code that says so.
    pub code: u16,
    /// What was wrong.
    pub reason: &'static str,
}

impl Fault {
    pub(super) const fn protocol(reason: &'static str) -> Self {
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

/// The stretch at the front of a server's bytes that is whole, unmasked, FIN, RSV-free data frames (LINKS 12).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stretch {
    /// Bytes.
    pub len: usize,
    /// Messages.
    pub count: u32,
}

/// FIN and the opcode of a text message that is one frame.
const WHOLE_TEXT: u8 = 0x80 | op::TEXT;

/// Measures that stretch, up to `limit` bytes or one message. What ends it (a control frame, a fragment, a message that
/// is too big or not UTF-8, an unfinished frame) is the general path's to judge.
pub fn scan(bytes: &[u8], limit: usize, max_message: usize) -> Stretch {
    let mut stretch = Stretch::default();
    while let Some(len) = plain_message(&bytes[stretch.len..], max_message) {
        let end = stretch.len + len;
        if end > limit && stretch.count > 0 {
            break;
        }
        stretch = Stretch { len: end, count: stretch.count + 1 };
    }
    stretch
}

/// How long the message at the front is, header included; `None` unless it is whole and plain.
fn plain_message(bytes: &[u8], max: usize) -> Option<usize> {
    let (is_text, header, payload) = match *bytes {
        // What most messages begin with needs no taking apart.
        [WHOLE_TEXT, len @ ..126, ..] => (true, 2, usize::from(len)),
        _ => {
            let header = Header::parse(bytes).ok()??;
            let is_data = matches!(header.op, op::TEXT | op::BINARY);
            if !is_data || !header.fin || header.compressed || header.mask.is_some() {
                return None;
            }
            (header.op == op::TEXT, header.len, header.payload)
        }
    };
    let end = header.checked_add(payload).filter(|_| payload <= max)?;
    let payload = bytes.get(header..end)?;
    (!is_text || is_utf8(payload)).then_some(end)
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
}
