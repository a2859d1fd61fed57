//! An upstream's part of the status.

use super::status::unix_us;
use crate::{
    log::Log,
    net::redacted,
    site::Site,
    source::{health::Known, upstream::Upstream},
};
use serde_json::{Value, json};

/// Everything that is known of what supplies the topic at `path`.
pub fn describe(site: &Site, path: &str, upstream: &Upstream) -> Value {
    let known = upstream.health.get();
    let error = known.last_error.as_ref().map(|(time, text)| json!({ "time": time, "text": text }));
    let position = known.position.as_ref().map(ToString::to_string).or_else(|| known.foreign_id.clone());
    json!({
        "topic": path,
        "url": redacted(&upstream.url),
        "state": known.state.to_string(),
        "since": known.since,
        "kind": kind(upstream, &known),
        "instance": known.path.first(),
        "path": known.path,
        "connects": known.connects,
        "reconnects": known.connects.saturating_sub(1),
        "failures": known.failures,
        "last_error": error,
        "position": position,
        "arrived": known.event.as_ref().map(|(_, at)| unix_us(*at) / 1000),
        "lag_events": site.topic(path).and_then(|topic| missing(&topic.log)),
    })
}

/// How an upstream is read: an instance of ours as a `link`, or over `sse` or `ndjson`; or a `foreign` server.
fn kind(upstream: &Upstream, known: &Known) -> &'static str {
    match (known.ours, upstream.url.scheme()) {
        (None, _) => "unknown",
        (Some(false), _) => "foreign",
        (_, "ws" | "wss") => "link",
        (_, scheme) if scheme.starts_with("ndjson") => "ndjson",
        _ => "sse",
    }
}

/// Events of the upstream's window, as it was when we connected, that have not arrived yet.
fn missing(log: &Log) -> Option<u64> {
    let (window, last) = (log.window()?, log.last());
    match last {
        Some(last) if last.epoch == window.next.epoch => Some((window.next.seq.n - 1).saturating_sub(last.seq.n)),
        Some(_) => None,
        None if window.oldest.epoch == window.next.epoch => Some(window.next.seq.n.saturating_sub(window.oldest.seq.n)),
        None => None,
    }
}
