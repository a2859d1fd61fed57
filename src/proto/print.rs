//! Standard output as a reader: data only, flushed per batch.

use super::{cloudevents, json, sse};
use crate::{
    id::Id,
    log::{Entry, Item},
    source::{cursor::CursorFile, place::Trail},
    stage::jq::{Program, Until},
    stdio,
    topic::Topic,
};
use bytes::{BufMut, BytesMut};
use std::{io, str::FromStr, sync::Arc};

/// How events are printed.
#[derive(Debug, Clone, PartialEq)]
pub struct Print {
    /// In which form.
    pub output: Output,
    /// At most so many.
    pub count: Option<u64>,
    /// Up to the first that matches.
    pub until: Option<String>,
}

/// The forms of printed events.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Output {
    /// The payload, and a line feed where it lacks one.
    #[default]
    Raw,
    /// One JSON object per line.
    Ndjson,
    /// Server-Sent Events.
    Sse,
    /// One CloudEvent per line.
    CloudEvents,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "raw" => Ok(Output::Raw),
            "ndjson" => Ok(Output::Ndjson),
            "sse" => Ok(Output::Sse),
            _ => Err(format!("`{text}` is not a form: type raw, ndjson or sse")),
        }
    }
}

/// Bytes of the log per write.
const TURN: usize = 256 << 10;

/// Why printing ended.
#[derive(Debug, PartialEq)]
pub enum Ended {
    /// `--count` or `--until` is reached.
    Reached,
    /// The stream has ended, or nobody reads any more (EPIPE).
    Done,
    /// Standard output failed.
    Failed(String),
}

/// Prints the topic from its beginning. Everything printed is acknowledged behind the flush (LINKS 19, 27).
pub async fn run(topic: Arc<Topic>, print: Print, mut cursor_file: Option<CursorFile>, trail: Arc<Trail>) -> Ended {
    let until = print.until.as_deref().and_then(|program| Program::compile(program).ok());
    let mut until = until.map(Until::new);
    let mut left = print.count.unwrap_or(u64::MAX);
    let mut changes = topic.log.watch();
    let mut pin = None;
    let (mut cursor, mut items, mut ended) = (topic.log.base(), Vec::new(), Ended::Reached);
    while left > 0 {
        changes.borrow_and_update();
        if pin.is_none() && topic.log.is_blocking() {
            pin = topic.log.pin(cursor, None);
        }
        items.clear();
        let next = match topic.log.read(cursor, TURN, &mut items) {
            Ok(read) => read.next,
            Err(lost) => {
                tracing::warn!(count = ?lost.count, "standard output is slow: events were lost");
                cursor = lost.resume;
                continue;
            }
        };
        if next == cursor {
            if changes.changed().await.is_err() {
                return Ended::Done;
            }
            continue;
        }
        let mut page = Page { out: BytesMut::new(), last: None, end: cursor, left, stop: false, matched: false };
        for item in &items {
            page.put(item, cursor, print.output, until.as_mut());
        }
        if let Err(error) = stdio::print_aside(page.out).await {
            return if error.kind() == io::ErrorKind::BrokenPipe {
                Ended::Done
            } else {
                Ended::Failed(error.to_string())
            };
        }
        left = page.left;
        cursor = next;
        if let Some(pin) = pin {
            topic.log.ack(pin, cursor);
        }
        let handled = page.last.and_then(|last| trail.up_to(page.end, last));
        if let (Some(file), Some(place)) = (&mut cursor_file, handled) {
            file.note(&place.to_string());
        }
        if page.stop {
            ended = if page.matched || left == 0 { Ended::Reached } else { Ended::Done };
            break;
        }
    }
    if let Some(file) = &mut cursor_file {
        file.flush();
    }
    ended
}

/// What one turn prints.
struct Page {
    out: BytesMut,
    last: Option<Id>,
    /// The offset behind that.
    end: u64,
    left: u64,
    stop: bool,
    /// `--until` found its event.
    matched: bool,
}

impl Page {
    fn put(&mut self, item: &Item, cursor: u64, output: Output, mut until: Option<&mut Until>) {
        if self.left == 0 || self.stop {
            return;
        }
        let batch = match &item.entry {
            Entry::Batch(batch) => batch,
            Entry::Gap(gap) => {
                tracing::warn!(from = %gap.from, to = %gap.to, count = ?gap.count, reason = %gap.reason, "gap");
                match output {
                    Output::Raw => {}
                    Output::Ndjson | Output::CloudEvents => self.out.put_slice(json::gap_line(gap).as_bytes()),
                    Output::Sse => self.out.put_slice(sse::gap(gap).as_bytes()),
                }
                return;
            }
            Entry::End => {
                self.stop = true;
                return;
            }
        };
        for (i, event) in batch.events().skip(cursor.saturating_sub(item.offset) as usize) {
            if self.left == 0 || self.stop {
                return;
            }
            match output {
                Output::Raw => {
                    self.out.put_slice(&event.payload);
                    if event.payload.last() != Some(&b'\n') {
                        self.out.put_u8(b'\n');
                    }
                }
                Output::Ndjson => json::put_line(&mut self.out, &batch.id(i), batch.time(), &event),
                Output::Sse => sse::put_event(&mut self.out, &batch.id(i), &event),
                Output::CloudEvents => {
                    cloudevents::put(&mut self.out, &batch.id(i), batch.time(), &event);
                    self.out.put_u8(b'\n');
                }
            }
            self.left -= 1;
            (self.last, self.end) = (Some(batch.id(i)), item.offset + i as u64 + 1);
            self.matched = until.as_mut().is_some_and(|until| until.is_reached(&event.payload));
            self.stop = self.matched;
        }
    }
}
