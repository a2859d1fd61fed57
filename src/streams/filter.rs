//! Whom a selective send is for: `{"key": "value", …}`, all of which must be in a reader's metadata.

use crate::event::Attrs;
use serde_json::{Map, Value, value::RawValue};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// A parsed filter; by default everybody.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(Option<Arc<Attrs>>);

/// Why a text is no filter: nobody gets what was to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct BadFilter(String);

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the filter {}", self.0)
    }
}

impl Filter {
    /// Reads a JSON object of strings. Numbers and booleans are compared by their JSON text, since metadata is text; the
    /// last of a repeated key counts. Nothing, an empty text and `{}` are everybody.
    ///
    /// # Errors
    /// When it is anything else: to guess would send private messages to everybody.
    pub fn parse(text: Option<&str>) -> Result<Self, BadFilter> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Filter::default()) };
        if !text.trim_start().starts_with('{') {
            return Err(BadFilter(format!("is not a JSON object but {}", shortened(text))));
        }
        let pairs: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(text).map_err(|why| BadFilter(format!("is not JSON: {why}")))?;
        let pairs: Map<String, Value> =
            pairs.into_iter().map(|(key, value)| Ok((key.clone(), simple(&key, &value)?))).collect::<Result<_, _>>()?;
        let attrs = (!pairs.is_empty()).then(|| Arc::new(Attrs { to: Some(pairs), ..Attrs::default() }));
        Ok(Filter(attrs))
    }

    /// Whether it leaves nobody out.
    pub fn is_everybody(&self) -> bool {
        self.0.is_none()
    }

    /// The audience as what is known of an event.
    pub(super) fn attrs(&self) -> Option<&Arc<Attrs>> {
        self.0.as_ref()
    }
}

fn simple(key: &str, value: &RawValue) -> Result<Value, BadFilter> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map_err(|why| BadFilter(format!("is not JSON: {why}"))),
        Some(b'n' | b'[' | b'{') | None => {
            Err(BadFilter(format!("says {} for {key:?}: type a string, a number or a boolean", shortened(text))))
        }
        Some(_) => Ok(text.into()),
    }
}

/// Enough of a text to know it again.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_filter_may_be() {
        for everybody in [None, Some(""), Some("{}"), Some(" { } ")] {
            assert!(Filter::parse(everybody).expect("a filter").is_everybody(), "{everybody:?}");
        }
        for (text, to) in [
            (r#"{"user_id":"u1"}"#, json!({"user_id": "u1"})),
            (
                r#"{"n":5,"f":5.0,"e":1e3,"t":true,"g":false}"#,
                json!({"n": "5", "f": "5.0", "e": "1e3", "t": "true", "g": "false"}),
            ),
            (r#"{"k":"a","k":"b"}"#, json!({"k": "b"})),
            (r#"{"k":"","é":"\u00e9\n"}"#, json!({"k": "", "é": "é\n"})),
        ] {
            let filter = Filter::parse(Some(text)).expect("a filter");
            let said = filter.attrs().and_then(|attrs| attrs.to.clone()).expect("an audience");
            assert_eq!(Value::from(said), to, "{text}");
        }
        for bad in
            ["[]", "5", "\"x\"", "null", "{", "{'a':'b'}", "{\"a\":null}", "{\"a\":[]}", "{\"a\":{}}", "{} x", " "]
        {
            let why = Filter::parse(Some(bad)).expect_err(bad).to_string();
            assert!(why.starts_with("the filter "), "{why}");
        }
    }
}
