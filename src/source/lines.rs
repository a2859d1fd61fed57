//! Events from bytes: standard input and files, cut by `--framing`.

use crate::{
    event::{Event, MAX_BATCH},
    topic::Topic,
    units::now_ms,
};
use bytes::{Bytes, BytesMut};
use std::{io, str::FromStr, sync::Arc};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Where one event ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    /// At a line feed; a carriage return before it is payload.
    Line,
    /// At a zero byte.
    Nul,
    /// Behind each JSON value, whatever is between them.
    Json,
}

impl FromStr for Framing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "line" => Ok(Framing::Line),
            "nul" => Ok(Framing::Nul),
            "json" => Ok(Framing::Json),
            _ => Err(format!("`{text}` is not a framing: type line, nul or json")),
        }
    }
}

/// Reads to the end and publishes each event; waits where the topic's policy says so.
///
/// # Errors
/// The reader's.
pub async fn run(
    topic: &Arc<Topic>,
    mut input: impl AsyncRead + Unpin,
    framing: Framing,
    max: usize,
) -> io::Result<()> {
    let mut cutter = Cutter::new(framing, max);
    loop {
        cutter.buf.reserve(MAX_BATCH);
        let end = input.read_buf(&mut cutter.buf).await? == 0;
        let events = cutter.cut(end);
        if !events.is_empty() {
            topic.publish_with_patience(events, now_ms()).await;
        }
        if end {
            return Ok(());
        }
    }
}

/// Cuts bytes into events.
struct Cutter {
    buf: BytesMut,
    framing: Framing,
    max: usize,
    /// Bytes at the front that hold no delimiter.
    searched: usize,
    /// Inside an event that is too large: dropped up to its delimiter.
    skipping: bool,
    refused: u64,
}

impl Cutter {
    fn new(framing: Framing, max: usize) -> Self {
        Cutter { buf: BytesMut::new(), framing, max, searched: 0, skipping: false, refused: 0 }
    }

    /// The events that are whole; at the end also what has no delimiter.
    fn cut(&mut self, end: bool) -> Vec<Event> {
        let mut events = Vec::new();
        match self.framing {
            Framing::Line => self.delimited(b'\n', end, &mut events),
            Framing::Nul => self.delimited(0, end, &mut events),
            Framing::Json => self.values(end, &mut events),
        }
        events
    }

    fn delimited(&mut self, delimiter: u8, end: bool, events: &mut Vec<Event>) {
        // One reference-counted block for all events of this read.
        let last = memchr::memrchr(delimiter, &self.buf[self.searched..]).map(|at| self.searched + at + 1);
        let whole = last.map(|last| self.buf.split_to(last).freeze()).unwrap_or_default();
        let mut start = 0;
        for at in memchr::memchr_iter(delimiter, &whole) {
            let payload = whole.slice(start..at);
            start = at + 1;
            self.take(payload, events);
        }
        self.searched = self.buf.len();
        if self.buf.len() > self.max {
            self.buf.clear();
            self.searched = 0;
            if !std::mem::replace(&mut self.skipping, true) {
                self.refuse();
            }
        }
        if end && !self.buf.is_empty() {
            let rest = self.buf.split().freeze();
            self.take(rest, events);
        }
    }

    fn take(&mut self, payload: Bytes, events: &mut Vec<Event>) {
        if std::mem::take(&mut self.skipping) {
            return;
        }
        if payload.len() > self.max {
            self.refuse();
        } else {
            events.push(Event::new(payload));
        }
    }

    fn values(&mut self, end: bool, events: &mut Vec<Event>) {
        loop {
            let blank = self.buf.iter().take_while(|b| b.is_ascii_whitespace()).count();
            let _ = self.buf.split_to(blank);
            let mut values =
                serde_json::Deserializer::from_slice(&self.buf).into_iter::<&serde_json::value::RawValue>();
            let len = match values.next() {
                Some(Ok(raw)) => raw.get().len(),
                Some(Err(error)) if error.is_eof() && !end && self.buf.len() <= self.max => return,
                None => return,
                Some(Err(error)) => {
                    tracing::warn!(%error, "input is not JSON: skipping to the next line");
                    let line = memchr::memchr(b'\n', &self.buf).map_or(self.buf.len(), |at| at + 1);
                    let _ = self.buf.split_to(line);
                    continue;
                }
            };
            // A number at the end of what was read may go on.
            if len == self.buf.len() && !end && self.buf[0] != b'{' && self.buf[0] != b'[' && self.buf[0] != b'"' {
                return;
            }
            let payload = self.buf.split_to(len).freeze();
            self.take(payload, events);
        }
    }

    /// Validated before it gets a number (LINKS 17).
    fn refuse(&mut self) {
        self.refused += 1;
        tracing::warn!(refused = self.refused, max = self.max, "input event is larger than --max-message: dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(framing: Framing, input: &[u8], step: usize, max: usize) -> Vec<String> {
        let mut cutter = Cutter::new(framing, max);
        let mut events = Vec::new();
        for piece in input.chunks(step) {
            cutter.buf.extend_from_slice(piece);
            events.extend(cutter.cut(false));
        }
        events.extend(cutter.cut(true));
        events.iter().map(|event| String::from_utf8_lossy(&event.payload).into_owned()).collect()
    }

    #[test]
    fn framing_in_pieces_of_any_size() {
        for step in [1, 2, 3, 100] {
            assert_eq!(cut(Framing::Line, b"a\r\n\nb\nc", step, 100), ["a\r", "", "b", "c"]);
            assert_eq!(cut(Framing::Nul, b"a\nb\0\0c\0", step, 100), ["a\nb", "", "c"]);
            assert_eq!(
                cut(Framing::Json, b" {\"a\": 1}\n[2]3 \"x\"\n12", step, 100),
                ["{\"a\": 1}", "[2]", "3", "\"x\"", "12"]
            );
        }
    }

    #[test]
    fn an_event_over_the_limit_is_dropped_and_the_next_is_not() {
        for step in [1, 3, 100] {
            assert_eq!(cut(Framing::Line, b"0123456789abc\nok\n0123456789abc", step, 5), ["ok"]);
        }
    }
}
