//! Events, and the batches in which they travel.
//!
//! A [`Run`] lays payloads end to end, each behind a length header. The header is the unmasked data-frame header of
//! RFC 6455 §5.2, chosen so that what an upstream server sent is byte for byte what our readers must get: a forwarder
//! neither decodes nor copies it. Whoever wants payloads walks the run.

use crate::id::{Epoch, Id, Seq};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};
use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

/// A batch is at most this long, or one event (LINKS 26): what is evicted, kept for a stalled reader, or joined.
pub const MAX_BATCH: usize = 64 << 10;
/// FIN, RSV1-3 and opcode of a whole text message.
const TEXT: u8 = 0x81;
/// The same of a whole binary message.
const BINARY: u8 = 0x82;

/// What a source says: one payload and what is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The bytes, exactly as the source gave them.
    pub payload: Bytes,
    /// Whether the payload is text, which implies valid UTF-8.
    pub text: bool,
    /// Type, audience and the like; most events have none.
    pub attrs: Option<Arc<Attrs>>,
}

impl Event {
    /// Text if the bytes are UTF-8, else binary.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        Event { text: is_utf8(&payload), payload, attrs: None }
    }
}

/// Whether the bytes are valid UTF-8 (RFC 3629).
pub fn is_utf8(bytes: &[u8]) -> bool {
    // The fast check has a price of its own, which counts for short texts; most of those are plain.
    const SHORT: usize = 256;
    (bytes.len() <= SHORT && is_ascii(bytes)) || simdutf8::basic::from_utf8(bytes).is_ok()
}

/// The same as `<[u8]>::is_ascii`, which takes what is left behind its blocks byte by byte: measured, 5 ns instead of 25
/// for 100 bytes.
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH_BITS: u128 = u128::from_ne_bytes([0x80; 16]);
    let Some(last) = bytes.last_chunk::<16>() else { return bytes.iter().fold(0, |all, byte| all | byte) < 0x80 };
    let (chunks, _) = bytes.as_chunks::<16>();
    let all = chunks.iter().fold(u128::from_ne_bytes(*last), |all, chunk| all | u128::from_ne_bytes(*chunk));
    all & HIGH_BITS == 0
}

/// What travels beside a payload: `{"type","to","time","id","context"}`, each optional.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attrs {
    /// The event's type; one line without control characters.
    pub kind: Option<String>,
    /// The audience: who may see it, as exact metadata values.
    pub to: Option<Map<String, Value>>,
    /// When it happened, in Unix milliseconds, where the publisher said so.
    pub time: Option<u64>,
    /// The publisher's own name for it.
    pub id: Option<String>,
    /// What else the publisher said about it: simple values by name.
    pub context: Option<Map<String, Value>>,
}

impl Attrs {
    /// The one-line JSON that crosses a link.
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| value.map(|value| map.insert(key.into(), value));
        put("type", self.kind.clone().map(Value::from));
        put("to", self.to.clone().map(Value::from));
        put("time", self.time.map(Value::from));
        put("id", self.id.clone().map(Value::from));
        put("context", self.context.clone().map(Value::from));
        Value::from(map).to_string()
    }

    /// `None` when it is not a JSON object; unknown members are ignored.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let map = value.as_object()?;
        let line = |key: &str| map.get(key)?.as_str().filter(|s| !s.contains(char::is_control)).map(String::from);
        Some(Attrs {
            kind: line("type"),
            to: map.get("to").and_then(Value::as_object).cloned(),
            time: map.get("time").and_then(Value::as_u64),
            id: line("id"),
            context: map.get("context").and_then(Value::as_object).cloned(),
        })
    }
}

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

/// How a batch's events are numbered within its epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum Seqs {
    /// `n, n+1, n+2 …`: the common case.
    From(u64),
    /// One by one, rising: after a stage left holes or split events.
    Each(Box<[Seq]>),
}

impl Seqs {
    /// The short form where the numbers are whole and follow each other.
    pub fn of(seqs: Vec<Seq>) -> Self {
        let follows = |pair: &[Seq]| pair[1] == Seq::whole(pair[0].n + 1);
        match seqs.first() {
            Some(first) if first.k == 0 && seqs.windows(2).all(follows) => Seqs::From(first.n),
            _ => Seqs::Each(seqs.into()),
        }
    }
}

/// How many encodings a batch can cache beside its frames: the common ones, and those that few ask for.
pub const FORMS: usize = 3;
const RARE_FORMS: usize = 7;

/// Events that arrived together: the unit of publish, of the log, of encoding and of a write. Never changes once it is
/// in a log; its encodings only fill.
#[derive(Debug)]
pub struct Batch {
    epoch: Epoch,
    seqs: Seqs,
    time: u64,
    run: Run,
    attrs: Box<[(u32, Arc<Attrs>)]>,
    forms: [OnceLock<Bytes>; FORMS],
    rare: OnceLock<Box<[OnceLock<Bytes>; RARE_FORMS]>>,
}

impl Batch {
    /// `attrs` pairs an index with what is known of that event, indices rising; `time` is when the first event was
    /// published, in Unix milliseconds.
    pub fn new(epoch: Epoch, seqs: Seqs, time: u64, run: Run, attrs: Vec<(u32, Arc<Attrs>)>) -> Self {
        debug_assert!(!run.is_empty());
        Batch { epoch, seqs, time, run, attrs: attrs.into(), forms: Default::default(), rare: OnceLock::new() }
    }

    /// Who numbered these events.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// How they are numbered.
    pub fn seqs(&self) -> &Seqs {
        &self.seqs
    }

    /// When the first of them was published, in Unix milliseconds by the origin's clock.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The payloads.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// How many events; at least one.
    pub fn len(&self) -> usize {
        self.run.len()
    }

    /// Never: a batch holds at least one event.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The i-th event's place.
    pub fn seq(&self, i: usize) -> Seq {
        match &self.seqs {
            Seqs::From(first) => Seq::whole(first + i as u64),
            Seqs::Each(seqs) => seqs[i],
        }
    }

    /// The i-th event's name.
    pub fn id(&self, i: usize) -> Id {
        Id { epoch: self.epoch.clone(), seq: self.seq(i) }
    }

    /// The last event's place.
    pub fn last_seq(&self) -> Seq {
        self.seq(self.len() - 1)
    }

    /// How many of the events are at or below `seq`.
    pub fn count_to(&self, seq: Seq) -> usize {
        match &self.seqs {
            Seqs::From(first) => (seq.n + 1).saturating_sub(*first).min(self.len() as u64) as usize,
            Seqs::Each(seqs) => seqs.partition_point(|s| *s <= seq),
        }
    }

    /// What is known of each event that has attributes, by index.
    pub fn attrs(&self) -> &[(u32, Arc<Attrs>)] {
        &self.attrs
    }

    /// The i-th event's attributes.
    pub fn attrs_of(&self, i: usize) -> Option<&Arc<Attrs>> {
        self.attrs.binary_search_by_key(&(i as u32), |(at, _)| *at).ok().map(|at| &self.attrs[at].1)
    }

    /// Every event with its index.
    pub fn events(&self) -> impl Iterator<Item = (usize, Event)> {
        self.run.messages().enumerate().map(|(i, m)| {
            let payload = self.run.bytes.slice(m.payload);
            (i, Event { payload, text: m.text, attrs: self.attrs_of(i).cloned() })
        })
    }

    /// A batch of only these events, by rising index; `None` without any.
    pub fn pick(&self, indices: &[usize]) -> Option<Batch> {
        let (mut bytes, mut seqs, mut attrs) = (BytesMut::new(), Vec::new(), Vec::new());
        for (i, message) in self.run.messages().enumerate().filter(|(i, _)| indices.binary_search(i).is_ok()) {
            attrs.extend(self.attrs_of(i).map(|known| (seqs.len() as u32, known.clone())));
            seqs.push(self.seq(i));
            bytes.put_slice(&self.run.bytes[message.frame]);
        }
        let run = Run { bytes: bytes.freeze(), count: seqs.len() as u32 };
        (!run.is_empty()).then(|| Batch::new(self.epoch.clone(), Seqs::of(seqs), self.time, run, attrs))
    }

    /// Whether some event has an audience.
    pub fn is_addressed(&self) -> bool {
        self.attrs.iter().any(|(_, attrs)| attrs.to.is_some())
    }

    /// The encoding in the given slot, made by the first who asks.
    pub fn form(&self, slot: usize, encode: impl FnOnce(&Batch) -> Bytes) -> &Bytes {
        let rare = || &self.rare.get_or_init(Box::default)[slot - FORMS];
        self.forms.get(slot).unwrap_or_else(rare).get_or_init(|| encode(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_run_gives_back_what_was_laid_into_it(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20)) {
            let events: Vec<Event> = payloads.into_iter().map(Event::new).collect();
            let run = Run::of(&events);
            let batch = Batch::new(Epoch::new(1, 2), Seqs::From(1), 0, run, vec![]);
            let back: Vec<Event> = batch.events().map(|(_, e)| e).collect();
            prop_assert_eq!(back, events);
        }
    }

    proptest! {
        #[test]
        fn texts_are_checked_whatever_their_length(plain in prop::collection::vec(0..0x80u8, 0..400), other in any::<Option<(u16, u8)>>()) {
            let mut bytes = plain;
            if let Some((at, byte)) = other.filter(|_| !bytes.is_empty()) {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
            prop_assert_eq!(is_utf8(&bytes), std::str::from_utf8(&bytes).is_ok());
            prop_assert_eq!(is_ascii(&bytes), bytes.is_ascii());
        }
    }

    #[test]
    fn headers_take_the_shortest_form() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)] {
            let run = Run::of(&[Event::new(vec![b'x'; len])]);
            assert_eq!(run.bytes().len(), header + len);
            assert_eq!(run.messages().next().map(|m| m.payload.len()), Some(len));
        }
    }

    #[test]
    fn counting_to_a_position_respects_holes_and_parts() {
        let seqs = [Seq::whole(3), Seq { n: 5, k: 1 }, Seq { n: 5, k: 2 }, Seq::whole(9)];
        let events = vec![Event::new("x"); 4];
        let batch = Batch::new(Epoch::new(1, 2), Seqs::Each(seqs.into()), 0, Run::of(&events), vec![]);
        let counts = [(2, 0), (3, 1), (4, 1), (5, 3), (8, 3), (9, 4), (10, 4)];
        for (n, count) in counts {
            assert_eq!(batch.count_to(Seq::end_of(n)), count, "{n}");
        }
        assert_eq!(batch.count_to(Seq { n: 5, k: 1 }), 2);
    }

    #[test]
    fn attributes_survive_a_link() {
        let to = serde_json::json!({"room": "a"}).as_object().cloned();
        let attrs = Attrs { kind: Some("alert".into()), to, time: Some(7), ..Attrs::default() };
        assert_eq!(Attrs::from_json(attrs.to_json().as_bytes()), Some(attrs));
        assert_eq!(Attrs::from_json(b"[1]"), None);
        assert_eq!(Attrs::from_json(br#"{"type":"a\nb"}"#), Some(Attrs::default()));
    }
}
