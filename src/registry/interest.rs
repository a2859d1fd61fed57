//! What a subscriber wants to hear: everything, nothing, or the union of its filters.
//!
//! A filter is an object: `event` is the event's name, any other member one of its data. Each must be there with exactly
//! that value; an array gives several, of which one must be.

use crate::matcher::Match;
use serde_json::{Map, Value};

/// Filters of a connection at most.
pub const MAX_FILTERS: usize = 1000;

type Fields = Map<String, Value>;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Interest {
    /// Everything, because nothing was said yet.
    #[default]
    Unsaid,
    /// Everything.
    All,
    /// What one of these lets through; with none of them nothing.
    Some(Vec<Fields>),
}

/// Why a subscription is not taken.
#[derive(Debug, PartialEq)]
pub enum Wrong {
    /// It has no meaning.
    Form,
    /// There are [`MAX_FILTERS`] already.
    TooMany,
}

impl Interest {
    /// Adds what `wanted` names: `true`, a filter, an event's name, or an array of the latter two.
    ///
    /// # Errors
    /// See [`Wrong`]; then nothing has changed.
    pub fn add(&mut self, wanted: &Value) -> Result<(), Wrong> {
        let more = if *wanted == Value::Bool(true) { vec![Fields::new()] } else { alternatives(wanted)? };
        if more.iter().any(Fields::is_empty) {
            *self = Interest::All;
        }
        let mut filters = match self {
            Interest::All => return Ok(()),
            Interest::Unsaid => Vec::new(),
            Interest::Some(filters) => filters.clone(),
        };
        for filter in more {
            if !filters.contains(&filter) {
                filters.push(filter);
            }
        }
        if filters.len() > MAX_FILTERS {
            return Err(Wrong::TooMany);
        }
        *self = Interest::Some(filters);
        Ok(())
    }

    /// Takes away everything (`true`), or the filters that were added as this.
    ///
    /// # Errors
    /// See [`Wrong`].
    pub fn remove(&mut self, unwanted: &Value) -> Result<(), Wrong> {
        if *unwanted == Value::Bool(true) {
            *self = Interest::Some(Vec::new());
            return Ok(());
        }
        let gone = alternatives(unwanted)?;
        if let Interest::Some(filters) = self {
            filters.retain(|filter| !gone.contains(filter));
        } else if gone.iter().any(Fields::is_empty) {
            *self = Interest::Some(Vec::new());
        }
        Ok(())
    }

    /// Whether it names an event whose name begins so.
    pub fn names(&self, prefix: &str) -> bool {
        let named =
            |filter: &Fields| filter.get("event").and_then(Value::as_str).is_some_and(|name| name.starts_with(prefix));
        matches!(self, Interest::Some(filters) if filters.iter().any(named))
    }

    /// As readers of a topic say it.
    pub fn to_match(&self) -> Option<Match> {
        match self {
            Interest::Unsaid | Interest::All => None,
            Interest::Some(filters) => Some(Match::any(filters.clone())),
        }
    }
}

/// What one filter, or several, stand for.
fn alternatives(wanted: &Value) -> Result<Vec<Fields>, Wrong> {
    match wanted {
        Value::Array(several) if !several.is_empty() && !several.iter().any(Value::is_array) => {
            let mut all = Vec::new();
            for one in several {
                all.extend(alternatives(one)?);
                if all.len() > MAX_FILTERS {
                    return Err(Wrong::TooMany);
                }
            }
            Ok(all)
        }
        Value::String(event) => Ok(vec![Fields::from_iter([("event".to_owned(), event.as_str().into())])]),
        Value::Object(filter) => expanded(filter),
        _ => Err(Wrong::Form),
    }
}

/// Every combination of a filter's values.
fn expanded(filter: &Fields) -> Result<Vec<Fields>, Wrong> {
    let mut all = vec![Fields::new()];
    for (name, value) in filter {
        let values = match value {
            Value::Array(values) if !values.is_empty() => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        if values.iter().any(|value| value.is_null() || value.is_array() || value.is_object()) {
            return Err(Wrong::Form);
        }
        if all.len() * values.len() > MAX_FILTERS {
            return Err(Wrong::TooMany);
        }
        let path = if name == "event" { name.clone() } else { format!("data.{name}") };
        let with = |fields: &Fields, value: &Value| {
            let mut fields = fields.clone();
            fields.insert(path.clone(), value.clone());
            fields
        };
        all = all.iter().flat_map(|fields| values.iter().map(|value| with(fields, value))).collect();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The events that are heard, by number, after these additions.
    fn heard(wanted: &[Value]) -> Vec<usize> {
        let mut interest = Interest::default();
        wanted.iter().for_each(|wanted| interest.add(wanted).expect("a filter"));
        hears(&interest)
    }

    fn hears(interest: &Interest) -> Vec<usize> {
        let event = |name: &str, data: Value| json!({"event": name, "data": data, "timestamp": 1}).to_string();
        let events = [
            event("service_registered", json!({"serviceName": "a", "nodeId": "a:h:1"})),
            event("service_registered", json!({"serviceName": "b", "nodeId": "b:h:1"})),
            event("service_heartbeat", json!({"serviceName": "a", "nodeId": "a:h:1"})),
            event("config_deleted", json!({"serviceName": "a", "key": "k"})),
        ];
        let wanted = interest.to_match();
        let is_heard = |text: &String| wanted.as_ref().is_none_or(|wanted| wanted.matches(text.as_bytes()));
        (0..events.len()).filter(|&i| is_heard(&events[i])).collect()
    }

    #[test]
    fn filters_add_up_and_are_strict() {
        assert_eq!(heard(&[]), [0, 1, 2, 3]);
        assert_eq!(heard(&[json!(true)]), [0, 1, 2, 3]);
        assert_eq!(heard(&[json!({})]), [0, 1, 2, 3]);
        assert_eq!(heard(&[json!({"event": "service_registered"})]), [0, 1]);
        assert_eq!(heard(&[json!({"serviceName": "a"})]), [0, 2, 3]);
        assert_eq!(heard(&[json!({"nodeId": "a:h:1"})]), [0, 2], "what has no such member does not match");
        assert_eq!(heard(&[json!({"event": "service_registered", "serviceName": "b"})]), [1]);
        assert_eq!(heard(&[json!("service_heartbeat"), json!({"serviceName": "b"})]), [1, 2]);
        assert_eq!(heard(&[json!(["service_heartbeat", {"key": "k"}])]), [2, 3]);
        assert_eq!(heard(&[json!({"event": ["service_heartbeat", "config_deleted"]})]), [2, 3]);
        assert_eq!(heard(&[json!({"serviceName": "b"}), json!(true), json!("nothing")]), [0, 1, 2, 3]);
        assert_eq!(heard(&[json!({"serviceName": "A"})]), [0; 0]);
    }

    #[test]
    fn what_is_taken_away_is_heard_no_more() {
        let mut interest = Interest::default();
        interest.add(&json!([{"serviceName": "b"}, "service_heartbeat"])).expect("filters");
        interest.remove(&json!({"serviceName": "b"})).expect("a filter");
        assert_eq!(hears(&interest), [2]);
        interest.remove(&json!(true)).expect("all");
        assert_eq!(hears(&interest), [0; 0]);
        interest.add(&json!("config_deleted")).expect("a filter");
        assert_eq!(hears(&interest), [3]);
    }

    #[test]
    fn nonsense_and_floods_change_nothing() {
        let mut interest = Interest::default();
        for wrong in [json!(false), json!(null), json!(5), json!([]), json!([[]]), json!({"event": null})] {
            assert_eq!(interest.add(&wrong), Err(Wrong::Form), "{wrong}");
        }
        let many: Vec<Value> = (0..MAX_FILTERS).map(|n| json!({ "nodeId": n.to_string() })).collect();
        interest.add(&Value::from(many.clone())).expect("as many as there may be");
        interest.add(&many[0]).expect("one of them again");
        assert_eq!(interest.add(&json!("one more")), Err(Wrong::TooMany));
        let names: Vec<usize> = (0..100).collect();
        let product = json!({"event": names, "nodeId": names});
        assert_eq!(Interest::default().add(&product), Err(Wrong::TooMany));
    }
}
