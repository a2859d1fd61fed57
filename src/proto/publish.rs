//! POST to a topic's URL: one event per body, or one per NDJSON line.

use super::{
    auth,
    subscribe::{self, Refusal, query_pairs},
};
use crate::{
    audience,
    event::{Attrs, Event},
    site::Site,
    units::now_ms,
};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{StatusCode, body::Incoming, header, http::request::Parts};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// What one NDJSON body may have, in bytes.
const MAX_NDJSON: usize = 16 << 20;

/// Publishes the body; answers `{"id","readers"}`, for NDJSON also `first` and `count`.
///
/// # Errors
/// 404, 405 where peers may not publish, 413 over the limit, 400 for a body without an event.
pub async fn publish(site: &Site, parts: &Parts, body: Incoming) -> Result<Value, Refusal> {
    let topic = subscribe::find_topic(site, parts)?;
    if !auth::may_publish(site, parts) {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "publishing is off here: see --accept-publish");
        return Err(refusal.with(header::ALLOW, "GET"));
    }
    subscribe::check_origin(&site.rules, &parts.headers)?;
    let ndjson = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let ndjson = ndjson.is_some_and(|value| value.starts_with("application/x-ndjson"));
    let max = site.rules.max_message;
    let limit = if ndjson { MAX_NDJSON.max(max) } else { max };
    let body = read(body, limit, site.rules.handshake_timeout).await?;
    let events = if ndjson { lines(&body, max)? } else { vec![Event::new(body)] };
    let known = attributes(parts)?.map(Arc::new);
    let to = known.as_deref().and_then(|known| known.to.clone());
    let events = events.into_iter().map(|event| Event { attrs: known.clone(), ..event }).collect();
    let time = known.as_deref().and_then(|known| known.time).unwrap_or_else(now_ms);
    let published = topic.publish_with_patience(events, time).await;
    let readers = topic.roll.reached(to.as_ref());
    Ok(match published {
        Some((first, last, count)) if ndjson => {
            json!({ "id": last.to_string(), "readers": readers, "first": first.to_string(), "count": count })
        }
        Some((_, last, _)) => json!({ "id": last.to_string(), "readers": readers }),
        None => json!({ "id": null, "readers": readers }),
    })
}

/// What is said about the events beside their payloads: the query string is their audience, the mirror of a
/// subscriber's metadata; `Event-Type`, `Event-Time` (Unix milliseconds) and `Event-Id` are headers.
fn attributes(parts: &Parts) -> Result<Option<Attrs>, Refusal> {
    let audience = audience::from_query(query_pairs(parts));
    let to: Map<String, Value> = audience.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
    let attrs = Attrs {
        kind: line(parts, "event-type")?,
        to: Some(to).filter(|to| !to.is_empty()),
        time: line(parts, "event-time")?.map(|text| text.parse()).transpose().map_err(|_| invalid("event-time"))?,
        id: line(parts, "event-id")?,
    };
    Ok(Some(attrs).filter(|attrs| *attrs != Attrs::default()))
}

fn invalid(name: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("Invalid {name}"))
}

/// A header that becomes one line of an event stream: no control characters.
fn line(parts: &Parts, name: &str) -> Result<Option<String>, Refusal> {
    let Some(value) = parts.headers.get(name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).ok().map(str::trim);
    match text.filter(|text| !text.is_empty() && !text.contains(char::is_control)) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(invalid(name)),
    }
}

/// The whole body; given up when nothing of it comes for `patience`.
async fn read(body: Incoming, max: usize, patience: Duration) -> Result<Bytes, Refusal> {
    let mut body = Limited::new(body, max);
    let mut whole = BytesMut::new();
    loop {
        let frame = timeout(patience, body.frame()).await;
        let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
        match frame.map_err(late)? {
            None => return Ok(whole.freeze()),
            Some(Ok(frame)) => whole.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(Refusal::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is larger than {max} bytes"),
                ));
            }
            Some(Err(error)) => {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the body did not arrive: {error}")));
            }
        }
    }
}

/// Each line is one payload, verbatim.
fn lines(body: &Bytes, max: usize) -> Result<Vec<Event>, Refusal> {
    let lines = body.split(|&b| b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let events: Vec<Event> = lines.map(|line| Event::new(body.slice_ref(line))).collect();
    if events.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the body has no line"));
    }
    if events.iter().any(|event| event.payload.len() > max) {
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a line is larger than {max} bytes")));
    }
    Ok(events)
}
