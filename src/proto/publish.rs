//! POST to a topic's URL: one event per body, one per NDJSON line, or CloudEvents.

use super::{
    auth, body, cloudevents,
    mqtt::packet::is_connect,
    origin,
    repeats::{Kept, Turn},
    subscribe::{self, Refusal, query_pairs},
    wire::Wire,
    ws::frame::{Fault, code},
};
use crate::{
    audience,
    event::{Attrs, Event},
    id::Id,
    recorder::AppendError,
    site::Site,
    topic::Topic,
    units::now_ms,
};
use bytes::Bytes;
use hyper::{HeaderMap, StatusCode, body::Incoming, header, http::request::Parts};
use serde_json::{Map, Value, json};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// What a body of many events may have, in bytes.
const MAX_MANY: usize = 16 << 20;
/// What an `Idempotency-Key` may have, in bytes.
const MAX_KEY: usize = 255;

/// What a body holds, by its `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Payload,
    Lines,
    CloudEvent,
    CloudEvents,
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/x-ndjson" => Form::Lines,
            cloudevents::ONE => Form::CloudEvent,
            cloudevents::MANY => Form::CloudEvents,
            _ => Form::Payload,
        }
    }

    fn is_many(self) -> bool {
        matches!(self, Form::Lines | Form::CloudEvents)
    }

    fn read(self, body: &Bytes, max: usize) -> Result<Vec<Event>, Refusal> {
        let events = match self {
            Form::Payload => Ok(vec![Event::new(body.clone())]),
            Form::Lines => Ok(lines(body)),
            Form::CloudEvent => cloudevents::read(body).map(|event| vec![event]),
            Form::CloudEvents => cloudevents::read_all(body),
        };
        let events =
            events.map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, format!("Invalid CloudEvent: {why}")))?;
        if events.is_empty() {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the body has no event"));
        }
        if events.iter().any(|event| event.payload.len() > max) {
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("an event is larger than {max} bytes")));
        }
        Ok(events)
    }
}

/// Publishes the body; answers `{"id","readers"}`, for a body of many events also `first` and `count`.
///
/// # Errors
/// 404, 405 where peers may not publish, 413 over the limit, 400 for a body without an event and for what cannot be
/// read, 409 and 422 for an `Idempotency-Key` that is in use or stands for something else, 503 for what a journal does not
/// take.
pub async fn publish(site: &Arc<Site>, parts: &Parts, body: Incoming) -> Result<Value, Refusal> {
    let topic = subscribe::find_topic(site, parts)?;
    if !auth::may_publish(site, parts) {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "publishing is off here: see --accept-publish");
        return Err(refusal.with(header::ALLOW, "GET"));
    }
    origin::check_origin(&site.rules, &parts.headers)?;
    let (key, said) = (key_of(&parts.headers)?, attributes(parts)?);
    let (form, max) = (Form::of(&parts.headers), site.rules.max_message);
    let limit = if form.is_many() { MAX_MANY.max(max) } else { max };
    let body = body::read(body, limit, site.rules.handshake_timeout).await?;
    let events = form.read(&body, max)?;
    let post = Post { topic, events: with_attributes(events, &said), to: said.to, many: form.is_many() };
    let Some(key) = key else { return post.publish(None).await };
    let fingerprint = post.fingerprint();
    match site.repeats.begin(&post.topic, &key, fingerprint) {
        Turn::First => {}
        Turn::Again(answer) => return Ok(answer),
        Turn::Busy => return Err(Refusal::new(StatusCode::CONFLICT, "this Idempotency-Key is being published")),
        Turn::Another => {
            let why = "this Idempotency-Key stands for something else";
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, why));
        }
    }
    let site = site.clone();
    // Goes on though the peer hangs up: what a key stands for is published whole.
    let published = tokio::spawn(async move {
        let topic = post.topic.clone();
        let answer = post.publish(Some((&key, fingerprint))).await;
        match &answer {
            Ok(answer) => site.repeats.settle(&topic, &key, answer.clone()),
            Err(_) => site.repeats.give_up(&topic, &key),
        }
        answer
    });
    published.await.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
}

/// What is to be published.
struct Post {
    topic: Arc<Topic>,
    events: Vec<Event>,
    to: Option<Map<String, Value>>,
    many: bool,
}

impl Post {
    /// A journal keeps the key, and what is said under it, beside the events.
    async fn publish(self, key: Option<(&str, u64)>) -> Result<Value, Refusal> {
        let Post { topic, events, to, many } = self;
        let readers = || topic.roll.reached(to.as_ref());
        let kept = |fingerprint, count, first: Option<&Id>| Kept {
            fingerprint,
            many,
            count,
            readers: readers(),
            first: first.map(Id::to_string),
        };
        let key = key.filter(|_| topic.log.vitals().is_some());
        let note = |first: Option<&Id>, count| key.map(|(key, said)| kept(said, count, first).note(key));
        Ok(match topic.publish_patiently_noted(events, now_ms(), note).await.map_err(|error| unwritten(&error))? {
            Some((first, last, count)) => kept(0, count, None).answer(&first, &last),
            None => json!({ "id": null, "readers": readers() }),
        })
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for event in &self.events {
            event.payload.hash(&mut hasher);
            event.attrs.as_deref().map(Attrs::to_json).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// What is not written is not published, and is to be said again.
pub fn unwritten(error: &AppendError) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("not published: {error}")).with(header::RETRY_AFTER, "1")
}

/// What a WebSocket message says.
///
/// # Errors
/// Close with 1007 for what is no CloudEvent where one is expected, with 1002 for an MQTT client that did not offer its
/// subprotocol: its first packet, with the password in it, is not for readers.
pub fn message(wire: Wire, text: bool, payload: Bytes) -> Result<Event, Fault> {
    if !text && is_connect(&payload) {
        return Err(Fault { code: code::PROTOCOL, reason: "MQTT needs the subprotocol mqtt" });
    }
    if wire != Wire::CloudWs {
        return Ok(Event { payload, text, attrs: None });
    }
    let wrong = |_| Fault { code: code::NOT_UTF8, reason: "message is not a CloudEvent" };
    cloudevents::read(&payload).map_err(wrong)
}

/// # Errors
/// 400 for a key that is no line of text, or too long to be remembered.
fn key_of(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let key = line(headers, "idempotency-key")?;
    if key.as_ref().is_some_and(|key| key.len() > MAX_KEY) { Err(invalid("idempotency-key")) } else { Ok(key) }
}

/// What is said about the events beside their payloads: the query string is their audience, the mirror of a
/// subscriber's metadata; `Event-Type`, `Event-Time` (Unix milliseconds) and `Event-Id` are headers.
fn attributes(parts: &Parts) -> Result<Attrs, Refusal> {
    let (audience, headers) = (audience::from_query(query_pairs(parts)), &parts.headers);
    let to: Map<String, Value> = audience.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
    Ok(Attrs {
        kind: line(headers, "event-type")?,
        to: Some(to).filter(|to| !to.is_empty()),
        time: line(headers, "event-time")?.map(|text| text.parse()).transpose().map_err(|_| invalid("event-time"))?,
        id: line(headers, "event-id")?,
        context: None,
    })
}

/// What an event says about itself counts more than what was said about all of them.
fn with_attributes(events: Vec<Event>, said: &Attrs) -> Vec<Event> {
    let shared = Some(said).filter(|said| **said != Attrs::default()).map(|said| Arc::new(said.clone()));
    let both = |own: &Attrs| Attrs {
        kind: own.kind.clone().or_else(|| said.kind.clone()),
        to: said.to.clone(),
        time: own.time.or(said.time),
        id: own.id.clone().or_else(|| said.id.clone()),
        context: own.context.clone(),
    };
    let attrs = |event: &Event| event.attrs.as_deref().map(|own| Arc::new(both(own))).or_else(|| shared.clone());
    events.into_iter().map(|event| Event { attrs: attrs(&event), ..event }).collect()
}

fn invalid(name: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("Invalid {name}"))
}

/// A header that becomes one line of an event stream: no control characters.
fn line(headers: &HeaderMap, name: &str) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).ok().map(str::trim);
    match text.filter(|text| !text.is_empty() && !text.contains(char::is_control)) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(invalid(name)),
    }
}

/// Each line is one payload, verbatim.
fn lines(body: &Bytes) -> Vec<Event> {
    let lines = body.split(|&b| b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines.map(|line| Event::new(body.slice_ref(line))).collect()
}
