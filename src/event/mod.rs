//! Events, and the batches in which they travel.
//!
//! What a source says is an [`Event`]; what arrived together is laid out as a [`Run`]; numbered, that is a [`Batch`].

mod batch;
mod run;
mod value;

pub use batch::{Batch, FORMS, Seqs};
pub use run::{Message, Messages, Run, RunBuilder, put_header};
pub use value::value_of;

use bytes::Bytes;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A batch is at most this long, or one event (LINKS 26): what is evicted, kept for a stalled reader, or joined.
pub const MAX_BATCH: usize = 64 << 10;

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    fn attributes_survive_a_link() {
        let to = serde_json::json!({"room": "a"}).as_object().cloned();
        let attrs = Attrs { kind: Some("alert".into()), to, time: Some(7), ..Attrs::default() };
        assert_eq!(Attrs::from_json(attrs.to_json().as_bytes()), Some(attrs));
        assert_eq!(Attrs::from_json(b"[1]"), None);
        assert_eq!(Attrs::from_json(br#"{"type":"a\nb"}"#), Some(Attrs::default()));
    }
}
