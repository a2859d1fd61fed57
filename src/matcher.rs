//! Match: one JSON object `{field: value}`, all must be equal, `{}` matches everything.
//!
//! Fields are dotted paths into the payload's JSON. A payload that is not JSON, or lacks a field, does not match.

use crate::{
    event::{self, Event},
    topic::Stage,
};
use serde_json::{Map, Value};

/// A parsed match: the objects of which one must match.
#[derive(Clone, Debug, PartialEq)]
pub struct Match(Vec<Map<String, Value>>);

impl Match {
    /// Reads the object.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn parse(text: &str) -> Result<Self, String> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Match(vec![fields])),
            Ok(_) => Err(format!("`{text}` is not a JSON object: type {{\"field\": \"value\"}}")),
            Err(error) => Err(format!("`{text}` is not JSON: {error}")),
        }
    }

    /// Matches what one of these matches: with none of them, nothing.
    pub fn any(alternatives: Vec<Map<String, Value>>) -> Self {
        Match(alternatives)
    }

    /// Of these one must match: what must be there, by name or dotted path.
    pub fn alternatives(&self) -> &[Map<String, Value>] {
        &self.0
    }

    /// Whether every field of an alternative is there and equal.
    pub fn matches(&self, payload: &[u8]) -> bool {
        if self.0.is_empty() || self.0.iter().any(Map::is_empty) {
            return !self.0.is_empty();
        }
        let Some(value) = event::value_of(payload) else { return false };
        let fits =
            |fields: &Map<String, Value>| fields.iter().all(|(path, wanted)| field(&value, path) == Some(wanted));
        self.0.iter().any(fits)
    }
}

/// A member by its whole name, else by its dotted path.
fn field<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    value.get(path).or_else(|| {
        let (head, rest) = path.split_once('.')?;
        field(value.get(head)?, rest)
    })
}

/// `--match`: lets through what matches.
pub struct MatchStage(pub Match);

impl Stage for MatchStage {
    fn apply(&mut self, event: Event, out: &mut Vec<Event>) {
        if self.0.matches(&event.payload) {
            out.push(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_must_be_there_and_equal() {
        let payload = br#"{"a": 1, "b": {"c": "x", "d.e": true}, "n": null}"#;
        for (text, matches) in [
            ("{}", true),
            (r#"{"a": 1}"#, true),
            (r#"{"a": "1"}"#, false),
            (r#"{"b.c": "x", "a": 1}"#, true),
            (r#"{"b.c": "x", "a": 2}"#, false),
            (r#"{"b.d.e": true}"#, true),
            (r#"{"n": null}"#, true),
            (r#"{"m": null}"#, false),
        ] {
            assert_eq!(Match::parse(text).expect("an object").matches(payload), matches, "{text}");
        }
        assert!(Match::parse("{}").expect("an object").matches(b"not json"));
        let one = |text: &str| Match::parse(text).expect("an object").0.remove(0);
        let any = Match::any(vec![one(r#"{"a": 2}"#), one(r#"{"n": null}"#)]);
        assert!(any.matches(payload) && !any.matches(b"{}") && !Match::any(Vec::new()).matches(payload));
        for bad in ["[]", "5", "{", ""] {
            assert!(Match::parse(bad).is_err(), "{bad}");
        }
    }
}
