//! CloudEvents 1.0 in their structured JSON form: what an event looks like in one, and what one says.
//!
//! `type`, `time` and `id` are an event's own attributes; all other context attributes travel beside it and come out
//! again as they went in.

use crate::{
    event::{Attrs, Event},
    id::Id,
};
use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::BASE64;
use jiff::Timestamp;
use serde_json::{Map, Value, value::RawValue};
use std::{collections::BTreeMap, str::FromStr, sync::Arc};

/// `--envelope`: what events are told in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Envelope {
    /// Each in a CloudEvent.
    CloudEvents,
}

impl FromStr for Envelope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cloudevents" => Ok(Envelope::CloudEvents),
            _ => Err(format!("`{text}` is not an envelope: type cloudevents")),
        }
    }
}

/// The media type of one.
pub const ONE: &str = "application/cloudevents+json";
/// The media type of an array of them.
pub const MANY: &str = "application/cloudevents-batch+json";
/// The WebSocket subprotocol for one per message, of the CloudEvents WebSocket binding.
pub const SUBPROTOCOL: &str = "cloudevents.json";
/// The `type` of an event that has none, as in an `EventSource`.
const NO_TYPE: &str = "message";
/// The extension attribute that holds the position, which `id` is not where the publisher gave one.
const POSITION: &str = "wseventid";

/// Reads one.
///
/// # Errors
/// What is wrong, with the attribute's name.
pub fn read(json: &[u8]) -> Result<Event, String> {
    let members = serde_json::from_slice(json).map_err(|error| format!("a CloudEvent is a JSON object: {error}"))?;
    Members(members).event()
}

/// Reads an array of them.
///
/// # Errors
/// As [`read`].
pub fn read_all(json: &[u8]) -> Result<Vec<Event>, String> {
    let each: Vec<&RawValue> = serde_json::from_slice(json).map_err(|error| format!("a batch is an array: {error}"))?;
    each.into_iter().map(|one| read(one.get().as_bytes())).collect()
}

/// The members of the object as they were written.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Members<'a> {
    fn event(mut self) -> Result<Event, String> {
        self.0.retain(|_, value| value.get() != "null");
        if self.needed("specversion")? != "1.0" {
            return Err("specversion is not 1.0".into());
        }
        let (id, kind, time) = (self.needed("id")?, self.needed("type")?, self.line("time")?);
        let time =
            time.map(|time| time.parse::<Timestamp>().ok().and_then(|time| time.as_millisecond().try_into().ok()));
        let time = time.map(|time| time.ok_or("time is not an RFC 3339 time since 1970")).transpose()?;
        let (data, bytes) = (self.0.remove("data"), self.0.remove("data_base64"));
        let context = self.context()?;
        let content = context.get("datacontenttype").and_then(Value::as_str);
        let payload = match (data, bytes) {
            (Some(_), Some(_)) => return Err("data and data_base64 are both there".into()),
            (Some(data), None) => payload_of(data, content),
            (None, Some(bytes)) => {
                let text: Option<String> = serde_json::from_str(bytes.get()).ok();
                let bytes = text.and_then(|text| BASE64.decode(text.as_bytes()).ok());
                Event { text: false, ..Event::new(bytes.ok_or("data_base64 is not Base64")?) }
            }
            (None, None) => Event::new(Bytes::new()),
        };
        let attrs = Attrs { kind: Some(kind), time, id: Some(id), to: None, context: Some(context) };
        Ok(Event { attrs: Some(Arc::new(attrs)), ..payload })
    }

    /// A text of one line.
    fn line(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(value) = self.0.remove(name) else { return Ok(None) };
        let text: Option<String> = serde_json::from_str(value.get()).ok();
        let text = text.filter(|text| !text.is_empty() && !text.contains(char::is_control));
        text.map(Some).ok_or_else(|| format!("{name} is not a text without control characters"))
    }

    fn needed(&mut self, name: &str) -> Result<String, String> {
        self.line(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    /// All other attributes; the source first.
    fn context(mut self) -> Result<Map<String, Value>, String> {
        let mut context = Map::new();
        context.insert("source".into(), self.needed("source")?.into());
        self.0.remove(POSITION);
        for (name, value) in &self.0 {
            let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let value: Option<Value> = serde_json::from_str(value.get()).ok();
            let scalar = value.filter(|value| value.is_string() || value.is_boolean() || value.is_i64());
            let scalar = scalar.filter(|value| !value.as_str().is_some_and(|text| text.contains(char::is_control)));
            match scalar.filter(|_| named) {
                Some(value) => context.insert(name.clone(), value),
                None => return Err(format!("{name:?} is not an attribute with a simple value")),
            };
        }
        Ok(context)
    }
}

/// JSON as it was written; a string of another content type is its text.
fn payload_of(data: &RawValue, content: Option<&str>) -> Event {
    let text =
        content.filter(|content| !is_json(content)).and_then(|_| serde_json::from_str::<String>(data.get()).ok());
    Event::new(text.unwrap_or_else(|| data.get().to_owned()))
}

/// `…/json` or `…+json`, with or without parameters.
fn is_json(content: &str) -> bool {
    let media = content.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.ends_with("/json") || media.ends_with("+json")
}

/// An event as one; `time` is its batch's.
pub fn put(out: &mut BytesMut, id: &Id, time: u64, event: &Event) {
    let (attrs, nothing, none) = (event.attrs.as_deref(), Attrs::default(), Map::new());
    let attrs = attrs.unwrap_or(&nothing);
    let context = attrs.context.as_ref().unwrap_or(&none);
    let mut head = Map::new();
    head.insert("specversion".into(), "1.0".into());
    head.insert("id".into(), attrs.id.clone().unwrap_or_else(|| id.to_string()).into());
    head.insert("source".into(), format!("urn:wsevent:{}", id.epoch).into());
    head.insert("type".into(), attrs.kind.as_deref().unwrap_or(NO_TYPE).into());
    let time = Timestamp::from_millisecond(attrs.time.unwrap_or(time) as i64);
    head.extend(time.ok().map(|time| ("time".to_owned(), format!("{time:.3}").into())));
    head.extend(context.clone());
    head.insert(POSITION.into(), id.to_string().into());
    let data = data_of(event, context.get("datacontenttype").and_then(Value::as_str));
    head.entry("datacontenttype").or_insert_with(|| data.content.into());
    let head = Value::Object(head).to_string();
    out.put_slice(&head.as_bytes()[..head.len() - 1]);
    out.put_slice(format!(r#","{}":"#, data.name).as_bytes());
    out.put_slice(data.json.as_bytes());
    out.put_u8(b'}');
}

/// How a payload is told.
struct Data {
    name: &'static str,
    content: &'static str,
    json: String,
}

fn data_of(event: &Event, content: Option<&str>) -> Data {
    let Some(text) = std::str::from_utf8(&event.payload).ok().filter(|_| event.text) else {
        let json = format!("\"{}\"", BASE64.encode(&event.payload));
        return Data { name: "data_base64", content: "application/octet-stream", json };
    };
    let raw = || serde_json::from_str::<&RawValue>(text).ok().filter(|_| content.is_none_or(is_json));
    match raw() {
        Some(raw) => Data { name: "data", content: "application/json", json: raw.get().to_owned() },
        None => Data { name: "data", content: "text/plain", json: Value::from(text).to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, Seq};
    use serde_json::json;

    const MINIMAL: &str = r#"{"specversion":"1.0","id":"a1","source":"/sensors","type":"measured""#;

    fn with(more: &str) -> String {
        format!("{MINIMAL}{more}}}")
    }

    fn written(event: Event) -> Value {
        let (mut out, id) = (BytesMut::new(), Id { epoch: Epoch::new(1, 2), seq: Seq::whole(7) });
        put(&mut out, &id, 1_700_000_000_123, &event);
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn payloads_are_what_data_says() {
        for (more, payload, text) in [
            ("", &b""[..], true),
            (r#","data":null"#, b"", true),
            (r#","data":{"a":  1.0}"#, br#"{"a":  1.0}"#, true),
            (r#","data":"x""#, br#""x""#, true),
            (r#","data":"x","datacontenttype":"text/plain""#, b"x", true),
            (r#","data":"x","datacontenttype":"application/vnd.a+json; charset=utf-8""#, br#""x""#, true),
            (r#","data":[1],"datacontenttype":"text/plain""#, b"[1]", true),
            (r#","data_base64":"/wA=""#, b"\xff\x00", false),
            (r#","data_base64":"YQ==""#, b"a", false),
        ] {
            let event = read(with(more).as_bytes()).expect("a CloudEvent");
            assert_eq!((&event.payload[..], event.text), (payload, text), "{more}");
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let more = json!({
            "specversion": "1.0", "id": "a1", "source": "/sensors", "type": "measured", "subject": "s",
            "time": "2023-11-14T22:13:20.123Z", "sampled": true, "rate": 5, "data": {"a": [1, null]},
        });
        let event = read(more.to_string().as_bytes()).expect("a CloudEvent");
        assert_eq!(event.attrs.as_deref().and_then(|attrs| attrs.time), Some(1_700_000_000_123));
        let mut out = written(event);
        let out = out.as_object_mut().expect("an object");
        let position = out.shift_remove(POSITION).expect("a position");
        assert!(position.as_str().is_some_and(|id| id.ends_with("-7")), "{position}");
        assert_eq!(out.shift_remove("datacontenttype"), Some("application/json".into()));
        assert_eq!(Value::Object(out.clone()), more);
    }

    #[test]
    fn every_event_has_what_a_cloudevent_needs() {
        for (payload, content, name, data) in [
            (&b"{\"a\": 1}"[..], "application/json", "data", json!({"a": 1})),
            (b"plain", "text/plain", "data", json!("plain")),
            (b"\xff\x00", "application/octet-stream", "data_base64", json!("/wA=")),
        ] {
            let out = written(Event::new(payload.to_vec()));
            assert_eq!((&out["specversion"], &out["type"]), (&"1.0".into(), &NO_TYPE.into()));
            assert_eq!((&out["datacontenttype"], &out[name]), (&content.into(), &data), "{out}");
            assert_eq!((&out["id"], &out["time"]), (&out[POSITION], &"2023-11-14T22:13:20.123Z".into()));
            assert!(out["source"].as_str().is_some_and(|source| source.starts_with("urn:wsevent:e")), "{out}");
        }
    }

    #[test]
    fn what_is_no_cloudevent_is_said() {
        for (bad, why) in [
            ("[]".to_owned(), "object"),
            (r#"{"specversion":"1.0"}"#.into(), "id is missing"),
            (with("").replace("1.0", "0.3"), "specversion"),
            (with("").replace("a1", ""), "id"),
            (with("").replace("a1", r"a\n"), "id"),
            (with("").replace("measured", r"a\u0000"), "type"),
            (with("").replace("\"/sensors\"", "5"), "source"),
            (with(r#","time":"yesterday""#), "time"),
            (with(r#","time":"1969-12-31T23:59:59Z""#), "time"),
            (with(r#","data":1,"data_base64":"YQ==""#), "both"),
            (with(r#","data_base64":"?""#), "Base64"),
            (with(r#","Upper":"x""#), "Upper"),
            (with(r#","nested":{}"#), "nested"),
            (with(r#","split":"a\r\nb""#), "split"),
        ] {
            let error = read(bad.as_bytes()).expect_err(&bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
