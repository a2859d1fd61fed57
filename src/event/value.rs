//! A payload's JSON value, however deeply parts of it are nested.

use serde_json::{Map, Value, value::RawValue};
use std::collections::BTreeMap;

/// Levels that are opened one by one where a payload is nested deeper than the parser goes (127).
const LEVELS: usize = 16;

/// The payload's JSON value; `None` when it is not JSON. What is nested too deeply for the parser, further down than 16
/// levels, is taken as its text: what stands beside it is found all the same.
pub fn value_of(payload: &[u8]) -> Option<Value> {
    let parsed = serde_json::from_slice(payload);
    parsed.ok().or_else(|| opened(std::str::from_utf8(payload).ok()?, LEVELS))
}

fn opened(text: &str, levels: usize) -> Option<Value> {
    let below = |raw: &RawValue| {
        let parsed = serde_json::from_str(raw.get());
        parsed.ok().or_else(|| opened(raw.get(), levels.checked_sub(1)?)).or_else(|| Some(raw.get().into()))
    };
    match text.trim_start().as_bytes().first()? {
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
            let members = members.into_iter().map(|(name, raw)| Some((name, below(raw)?)));
            members.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            items.into_iter().map(below).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn members_beside_what_is_too_deep_are_found() {
        for levels in [127, 128, 200, 10_000] {
            let payload = format!(r#" {{"deep":{},"b":[1,{{"c":"x"}}]}}"#, nested(levels));
            let value = value_of(payload.as_bytes()).expect("JSON");
            assert_eq!(value.pointer("/b/1/c"), Some(&"x".into()), "{levels}");
        }
    }

    #[test]
    fn what_is_too_deep_stays_different_from_others() {
        let value = |levels| value_of(nested(levels).as_bytes()).expect("JSON");
        assert_ne!(value(1000), value(1001));
        assert_eq!(value(1000), value(1000));
    }

    #[test]
    fn what_is_no_json_has_no_value() {
        for bad in ["", "plain", "{", "[1,", "{\"a\":[}", &"[".repeat(10_000), &format!("{}x", nested(200))] {
            assert_eq!(value_of(bad.as_bytes()), None);
        }
        assert_eq!(value_of(b"\xff"), None);
        assert_eq!(value_of(b"5"), Some(5.into()));
    }
}
