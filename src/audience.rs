//! Who may see an event: its audience against a reader's metadata, and a reader's own match.
//!
//! A subscriber's query parameters are its metadata; a publisher's query string is the audience. A reader sees an
//! addressed event when each of the audience's keys is in its metadata with exactly that value. The test is made at
//! every read of a cursor, replay included (LINKS 24).

use crate::{
    event::{Attrs, Batch},
    wanted::Wanted,
};
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::HashMap, sync::Arc};

/// What one reader may and wants to see.
#[derive(Debug, Default)]
pub struct Viewer {
    /// The subscriber's metadata: always text.
    pub metadata: HashMap<String, String>,
    /// A hop with the right to everything, whatever the audience.
    pub relay: bool,
    /// Only events that match.
    pub wanted: Option<Arc<Wanted>>,
}

/// Which events of a batch a reader sees.
#[derive(Debug, PartialEq)]
pub enum Seen {
    /// Every one.
    All,
    /// Those with these indices, rising; maybe none.
    Some(Vec<usize>),
}

impl Seen {
    /// Whether the event with this index is among them.
    pub fn has(&self, index: usize) -> bool {
        match self {
            Seen::All => true,
            Seen::Some(indices) => indices.binary_search(&index).is_ok(),
        }
    }
}

impl Viewer {
    /// Whether an event with these attributes may be seen.
    pub fn admits(&self, attrs: Option<&Attrs>) -> bool {
        match attrs.and_then(|attrs| attrs.to.as_ref()) {
            None => true,
            Some(_) if self.relay => true,
            Some(to) => addresses(to, &self.metadata),
        }
    }

    /// The events from index `from` on that this reader sees.
    pub fn of(&self, batch: &Batch, from: usize) -> Seen {
        if self.wanted.is_none() && (self.relay || !batch.is_addressed()) {
            return Seen::All;
        }
        let admitted = |i: &usize| *i >= from && self.admits(batch.attrs_of(*i).map(|attrs| &**attrs));
        let indices: Vec<usize> = match &self.wanted {
            Some(wanted) => wanted.of(batch).iter().map(|&i| i as usize).filter(admitted).collect(),
            None => (from..batch.len()).filter(admitted).collect(),
        };
        if indices.len() == batch.len() - from { Seen::All } else { Seen::Some(indices) }
    }
}

/// Whether every key of the audience is in the metadata with exactly that value; an empty audience is everybody.
pub fn addresses(to: &Map<String, Value>, metadata: &HashMap<String, String>) -> bool {
    to.iter().all(|(key, wanted)| match (metadata.get(key), text_of(wanted)) {
        (Some(value), Some(wanted)) => *value == wanted,
        _ => false,
    })
}

/// What a value of an audience is as metadata, which is text: numbers and booleans are their JSON text, and nothing else
/// can be said there.
pub fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string().into()),
        _ => None,
    }
}

/// Metadata or an audience from a query string: form decoding, the last of a repeated key counts, empty pairs do not.
pub fn from_query(pairs: impl Iterator<Item = (String, String)>) -> HashMap<String, String> {
    pairs.filter(|(key, value)| !key.is_empty() || !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn query(text: &str) -> HashMap<String, String> {
        from_query(url::form_urlencoded::parse(text.as_bytes()).into_owned())
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn the_truth_table() {
        for (metadata, to, seen) in [
            ("", json!({}), true),
            ("", json!({"user_id": "u1"}), false),
            ("user_id=u1", json!({}), true),
            ("user_id=u1", json!({"user_id": "u1"}), true),
            ("user_id=u1", json!({"user_id": "u1", "room": "g"}), false),
            ("user_id=u1&room=g", json!({"user_id": "u1"}), true),
            ("user_id=u1&room=g", json!({"user_id": "u1", "room": "g"}), true),
            ("user_id=u2", json!({"user_id": "u1"}), false),
            ("User_id=u1", json!({"user_id": "u1"}), false),
            ("n=5&b=false", json!({"n": 5, "b": false}), true),
            ("n=null", json!({"n": null}), false),
            ("k=", json!({"k": ""}), true),
        ] {
            assert_eq!(addresses(&object(to.clone()), &query(metadata)), seen, "{metadata} {to}");
        }
    }

    #[test]
    fn queries_decode_as_forms_do() {
        let table = [("a=1&a=2", "a", "2"), ("k", "k", ""), ("s=a+b%2Bc", "s", "a b+c"), ("u=%C3%A9", "u", "é")];
        for (text, key, value) in table {
            assert_eq!(query(text).get(key).map(String::as_str), Some(value), "{text}");
        }
        assert_eq!(query("&&a=1&").len(), 1);
    }
}
