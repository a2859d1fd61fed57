//! Events as JSON: `{"id","time","type"?,"data"}` lines (NDJSON and `--output ndjson`) and history's bare elements.

use crate::{
    event::{Attrs, Batch, Event},
    id::Id,
    log::Gap,
};
use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::BASE64;
use serde_json::{Value, json};

/// The batch's cache slot for its NDJSON form.
pub const NDJSON_FORM: usize = 1;

/// One NDJSON line for each event from index `from` on.
pub fn lines(batch: &Batch, from: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(batch.run().bytes().len() * 2);
    for (i, event) in batch.events().skip(from) {
        put_line(&mut out, &batch.id(i), batch.time(), &event);
    }
    out.freeze()
}

/// `{"id","time","type"?,"data"|"data_base64"}` and a line feed.
pub fn put_line(out: &mut BytesMut, id: &Id, time: u64, event: &Event) {
    let kind = event.attrs.as_deref().and_then(|attrs| attrs.kind.as_ref());
    let time = event.attrs.as_deref().and_then(|attrs: &Attrs| attrs.time).unwrap_or(time);
    out.put_slice(format!(r#"{{"id":"{id}","time":{time},"#).as_bytes());
    if let Some(kind) = kind {
        out.put_slice(format!(r#""type":{},"#, Value::from(kind.as_str())).as_bytes());
    }
    put_data(out, event);
    out.put_slice(b"}\n");
}

/// `"data":"…"`, or `"data_base64":"…"` for a binary payload.
pub fn put_data(out: &mut BytesMut, event: &Event) {
    match std::str::from_utf8(&event.payload) {
        Ok(text) if event.text => {
            out.put_slice(br#""data":"#);
            out.put_slice(Value::from(text).to_string().as_bytes());
        }
        _ => {
            out.put_slice(br#""data_base64":""#);
            out.put_slice(BASE64.encode(&event.payload).as_bytes());
            out.put_u8(b'"');
        }
    }
}

/// `{"gap":{"from","to","count"}}` and a line feed; an unknown count is `null`.
pub fn gap_line(gap: &Gap) -> String {
    format!("{}\n", json!({ "gap": gap_object(gap) }))
}

/// `{"from","to","count"}`.
pub fn gap_object(gap: &Gap) -> Value {
    json!({ "from": gap.from.to_string(), "to": gap.to.to_string(), "count": gap.count })
}

/// History's form: the payload's JSON value if it parses, else a string; binary as `{"data_base64":…}`.
pub fn put_element(out: &mut BytesMut, event: &Event) {
    let text = std::str::from_utf8(&event.payload).ok().filter(|_| event.text);
    match text.map(|text| (text, serde_json::from_str::<&serde_json::value::RawValue>(text))) {
        Some((_, Ok(raw))) => out.put_slice(raw.get().as_bytes()),
        Some((text, Err(_))) => out.put_slice(Value::from(text).to_string().as_bytes()),
        None => {
            out.put_u8(b'{');
            put_data(out, event);
            out.put_u8(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn elements_are_values_strings_or_base64() {
        for (payload, element) in [
            (&br#"{"a": 1}"#[..], r#"{"a": 1}"#),
            (b"12", "12"),
            (b"plain\n", r#""plain\n""#),
            (b"{broken", r#""{broken""#),
            (&[0xff, 0], r#"{"data_base64":"/wA="}"#),
        ] {
            let mut out = BytesMut::new();
            put_element(&mut out, &Event::new(payload.to_vec()));
            assert_eq!(out, element);
        }
    }
}
