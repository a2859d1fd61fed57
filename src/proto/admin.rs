//! The endpoints under `/-/`: health, readiness, status.

use super::subscribe::Refusal;
use crate::{site::Site, topic::Topic};
use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};
use serde_json::{Value, json};

/// An answer of ours.
pub struct Answer {
    /// Beside the usual ones.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// `None` when the path is a user's.
///
/// # Errors
/// 404 for what is unknown under `/-/`, 503 while not ready.
pub fn answer(site: &Site, parts: &Parts) -> Result<Option<Answer>, Refusal> {
    let Some(name) = parts.uri.path().strip_prefix("/-/") else { return Ok(None) };
    let body = match name {
        "healthz" => json!({ "status": "ok" }),
        "readyz" if site.is_ready() => json!({ "status": "ready" }),
        "readyz" => {
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not ready");
            return Err(refusal.with(header::RETRY_AFTER, "1"));
        }
        "status" => status(site),
        _ => return Err(Refusal::new(StatusCode::NOT_FOUND, format!("nothing at /-/{name}"))),
    };
    let headers = HeaderMap::from_iter([(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))]);
    Ok(Some(Answer { headers, body: body.to_string().into() }))
}

fn status(site: &Site) -> Value {
    let topics: Vec<Value> = site.topics().iter().map(|topic| describe(topic)).collect();
    json!({ "instance": site.instance, "version": env!("CARGO_PKG_VERSION"), "ready": site.is_ready(), "topics": topics })
}

fn describe(topic: &Topic) -> Value {
    let totals = topic.log.totals();
    let window = topic.log.window();
    json!({
        "path": topic.path,
        "policy": topic.policy().to_string(),
        "readers": topic.reader_count(),
        "upstream_path": topic.provenance(),
        "oldest": window.as_ref().map(|window| window.oldest.to_string()),
        "next": window.as_ref().map(|window| window.next.to_string()),
        "events": totals.events,
        "bytes": totals.bytes,
        "gaps": totals.gaps,
        "held_events": totals.held_events,
        "held_bytes": totals.held_bytes,
        "ended": topic.log.ended(),
    })
}
