//! Server-Sent Events (WHATWG HTML §9.2): what a batch looks like, and the parser for upstreams.
//!
//! `data:` cannot carry every payload: a carriage return ends a line, bytes need not be text. Such an event also has
//! the line `wsevent: {"data":…}` with the exact payload; fields that a parser does not know are ignored by the standard.

use super::json;
use crate::{
    event::{Batch, Event},
    id::Id,
    log::Gap,
};
use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::BASE64;

/// The batch's cache slot for its SSE form.
pub const SSE_FORM: usize = 2;

/// The events from index `from` on.
pub fn events(batch: &Batch, from: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(batch.run().bytes().len() * 2);
    for (i, event) in batch.events().skip(from) {
        put_event(&mut out, &batch.id(i), &event);
    }
    out.freeze()
}

fn put_head(out: &mut BytesMut, id: &Id, event: &Event) {
    out.put_slice(format!("id: {id}\n").as_bytes());
    if let Some(kind) = event.attrs.as_deref().and_then(|attrs| attrs.kind.as_ref()) {
        out.put_slice(format!("event: {kind}\n").as_bytes());
    }
}

/// An event of which another text is told.
pub fn put_text(out: &mut BytesMut, id: &Id, event: &Event, text: &[u8]) {
    put_head(out, id, event);
    put_data(out, text);
    out.put_u8(b'\n');
}

/// One event: id, type, data lines, a blank line.
pub fn put_event(out: &mut BytesMut, id: &Id, event: &Event) {
    put_head(out, id, event);
    let exact = event.text && !event.payload.contains(&b'\r');
    if event.text {
        put_data(out, &event.payload);
    } else {
        let mut element = BytesMut::new();
        json::put_element(&mut element, event);
        put_data(out, &element);
    }
    if !exact {
        out.put_slice(b"wsevent: {");
        json::put_data(out, event);
        out.put_slice(b"}\n");
    }
    out.put_u8(b'\n');
}

/// One `data:` line per piece between CRLF, LF or CR.
fn put_data(out: &mut BytesMut, payload: &[u8]) {
    let mut rest = payload;
    loop {
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        out.put_slice(b"data: ");
        out.put_slice(&rest[..end]);
        out.put_u8(b'\n');
        match &rest[end..] {
            [] => return,
            [b'\r', b'\n', after @ ..] | [_, after @ ..] => rest = after,
        }
    }
}

/// A position without an event: sets the browser's last id and fires nothing (LINKS 7).
pub fn position(id: &Id) -> String {
    format!("id: {id}\n\n")
}

/// `event: gap` with `{"from","to","count"}`; its id is the gap's end.
pub fn gap(gap: &Gap) -> String {
    format!("id: {}\nevent: gap\ndata: {}\n\n", gap.to, json::gap_object(gap))
}

/// One dispatched event, or what stands for one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The last `id:` of the block, if it had one.
    pub id: Option<String>,
    /// `event:`.
    pub kind: Option<String>,
    /// `data:` lines joined by line feeds; `None` for a block without data.
    pub data: Option<String>,
    /// `retry:` in milliseconds.
    pub retry: Option<u64>,
    /// The exact payload, from a `wsevent:` line.
    pub exact: Option<Event>,
}

/// Parses a stream chunk by chunk.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    block: Parsed,
    after_cr: bool,
    begun: bool,
    max: usize,
    size: usize,
}

/// A block is larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TooBig;

impl Parser {
    /// `max` bounds one block in bytes.
    pub fn new(max: usize) -> Self {
        Parser { max, ..Parser::default() }
    }

    /// Takes bytes as they come; pushes each block that ended.
    ///
    /// # Errors
    /// [`TooBig`] when a block grows over the limit.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<Parsed>) -> Result<(), TooBig> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            self.size += piece.len();
            if self.size > self.max {
                return Err(TooBig);
            }
            self.line.extend_from_slice(piece);
            let Some(end) = end else { return Ok(()) };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line(out);
        }
        Ok(())
    }

    fn end_line(&mut self, out: &mut Vec<Parsed>) {
        let line = std::mem::take(&mut self.line);
        let mut line = &line[..];
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.size = 0;
            let block = std::mem::take(&mut self.block);
            if block != Parsed::default() {
                out.push(block);
            }
            return;
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        self.set(field, String::from_utf8_lossy(value).into_owned());
    }

    fn set(&mut self, field: &[u8], value: String) {
        match field {
            b"data" => match &mut self.block.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                none => *none = Some(value),
            },
            b"id" if !value.contains('\0') => self.block.id = Some(value),
            b"event" => self.block.kind = Some(value).filter(|kind| !kind.is_empty()),
            b"retry" => self.block.retry = value.parse().ok().filter(|_| value.bytes().all(|b| b.is_ascii_digit())),
            b"wsevent" => self.block.exact = exact(&value),
            _ => {}
        }
    }
}

fn exact(value: &str) -> Option<Event> {
    let value: serde_json::Value = serde_json::from_str(value).ok()?;
    let text = value.get("data").and_then(|data| data.as_str());
    let bytes = || BASE64.decode(value.get("data_base64")?.as_str()?.as_bytes()).ok();
    match text {
        Some(text) => Some(Event { payload: text.to_owned().into(), text: true, attrs: None }),
        None => Some(Event { payload: bytes()?.into(), text: false, attrs: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Run, Seqs},
        id::Epoch,
    };
    use proptest::prelude::*;

    fn parse(text: &[u8], step: usize) -> Vec<Parsed> {
        let (mut parser, mut out) = (Parser::new(1 << 20), Vec::new());
        for piece in text.chunks(step) {
            assert_eq!(parser.feed(piece, &mut out), Ok(()));
        }
        out
    }

    proptest! {
        #[test]
        fn every_payload_survives(payload in prop_oneof![prop::collection::vec(any::<u8>(), 0..40), "[a\r\n: ]{0,20}".prop_map(String::into_bytes)], step in 1usize..7) {
            let event = Event::new(payload);
            let batch = Batch::new(Epoch::new(1, 2), Seqs::From(7), 0, Run::of([&event]), vec![]);
            let parsed = parse(&events(&batch, 0), step);
            prop_assert_eq!(parsed.len(), 1);
            let back = parsed[0].exact.clone().unwrap_or_else(|| Event::new(parsed[0].data.clone().unwrap_or_default()));
            prop_assert_eq!(back, event);
            prop_assert_eq!(parsed[0].id.clone(), Some(batch.id(0).to_string()));
        }
    }

    #[test]
    fn the_standards_own_corners() {
        let one = |data: &str| Parsed { data: Some(data.into()), ..Parsed::default() };
        for step in [1, 100] {
            assert_eq!(parse(b"\xef\xbb\xbfdata: a\r\ndata:b\rdata\n\n", step), [one("a\nb\n")]);
            assert_eq!(parse(b": comment\n\nfoo: bar\n\ndata:  x\n\n", step), [one(" x")]);
            assert_eq!(parse(b"id: 5\n\n", step), [Parsed { id: Some("5".into()), ..Parsed::default() }]);
            assert_eq!(parse(b"retry: 10x\n\nretry: 10\n\n", step), [Parsed { retry: Some(10), ..Parsed::default() }]);
            assert_eq!(parse(b"data: unfinished\n", step), []);
        }
    }

    #[test]
    fn a_block_is_bounded() {
        let mut parser = Parser::new(10);
        assert_eq!(parser.feed(b"data: 12345678901", &mut vec![]), Err(TooBig));
    }
}
