//! The endpoints under `/-/`: health, readiness, status, metrics, and a page that draws them (docs/inside.md).

mod asked;
pub mod chain;
mod feeds;
pub mod fetch;
mod figures;
mod metrics;
mod page;
pub mod rates;
mod status;
mod topics;

use super::subscribe::Refusal;
use crate::{registry, site::Site, source::upstream::Upstream, units::now_ms};
use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{OnceLock, RwLock},
    time::Instant,
};

/// What only these endpoints need to know of the process.
pub struct Inside {
    /// By the clock of the process, and in Unix milliseconds.
    started: (Instant, u64),
    /// What supplies which topic.
    upstreams: RwLock<Vec<(String, Upstream)>>,
    /// How much of everything.
    pub rates: rates::Rates,
    chain: chain::Cache,
    /// Where alone these endpoints are served, if not everywhere.
    doors: OnceLock<Vec<SocketAddr>>,
    host: String,
}

impl Default for Inside {
    fn default() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Inside {
            started: (Instant::now(), now_ms()),
            upstreams: RwLock::default(),
            rates: rates::Rates::default(),
            chain: chain::Cache::default(),
            doors: OnceLock::new(),
            host: host.trim().to_owned(),
        }
    }
}

impl Inside {
    /// An upstream supplies this topic.
    pub fn add_upstream(&self, topic: &str, upstream: Upstream) {
        self.upstreams.write().unwrap_or_else(|p| p.into_inner()).push((topic.to_owned(), upstream));
    }

    /// The upstream of this topic is this one now.
    pub fn move_upstream(&self, topic: &str, upstream: Upstream) {
        let mut upstreams = self.upstreams.write().unwrap_or_else(|p| p.into_inner());
        upstreams.retain(|(supplied, _)| supplied != topic);
        upstreams.push((topic.to_owned(), upstream));
    }

    fn upstreams(&self) -> Vec<(String, Upstream)> {
        self.upstreams.read().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// From now on these endpoints are served only where these listen.
    pub fn move_to(&self, doors: Vec<SocketAddr>) {
        let _ = self.doors.set(doors);
    }

    /// Whether a connection to this address of ours may see them.
    fn is_open_at(&self, local: Option<SocketAddr>) -> bool {
        let Some(doors) = self.doors.get() else { return true };
        let is_door = |door: &SocketAddr, local: SocketAddr| {
            door.port() == local.port() && (door.ip().is_unspecified() || door.ip() == local.ip().to_canonical())
        };
        local.is_some_and(|local| doors.iter().any(|door| is_door(door, local)))
    }
}

/// Where a request came in, in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Door(pub Option<SocketAddr>);

/// An answer of ours.
pub struct Answer {
    /// Beside the usual ones.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    fn json(value: &Value) -> Self {
        Answer { headers: HeaderMap::new(), body: value.to_string().into() }
    }

    fn text(kind: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        Answer { headers, body: body.into() }
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// Answers a request for a path under `/-/`.
///
/// # Errors
/// 404 for what is unknown there, 405 for what is not a GET, 503 while not ready.
pub async fn answer(site: &Site, parts: &Parts) -> Result<Answer, Refusal> {
    let name = parts.uri.path().strip_prefix("/-/").unwrap_or_default();
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, format!("nothing at /-/{name}"));
    let door = parts.extensions.get::<Door>().and_then(|door| door.0);
    let known = match name {
        "openapi.json" => site.registry.is_some(),
        _ => matches!(name, "" | "healthz" | "readyz" | "status" | "metrics"),
    };
    if !known || !site.inside.is_open_at(door) {
        return Err(unknown());
    }
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this can only be read");
        return Err(refusal.with(header::ALLOW, "GET, HEAD"));
    }
    let answer = match name {
        "healthz" => Answer::json(&json!({ "status": "ok" })),
        "readyz" => ready(site)?,
        "status" => Answer::json(&status::answer(site, parts).await?),
        "openapi.json" => Answer::text("application/json", registry::http::OPENAPI),
        "metrics" => metrics::answer(site, parts).await,
        _ => page::answer(),
    };
    Ok(answer.with(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
}

fn ready(site: &Site) -> Result<Answer, Refusal> {
    if site.is_ready() {
        return Ok(Answer::json(&json!({ "status": "ready" })));
    }
    let why = site.journal_fault().map_or_else(|| "not ready".into(), |why| format!("not ready: {why}"));
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why).with(header::RETRY_AFTER, "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_its_own_is_the_only_door() {
        let address = |text: &str| Some(text.parse::<SocketAddr>().expect(text));
        let inside = Inside::default();
        assert!(inside.is_open_at(address("10.0.0.1:8080")) && inside.is_open_at(None));
        inside.move_to([address("127.0.0.1:9100"), address("[::]:9200")].into_iter().flatten().collect());
        for (local, open) in [
            ("127.0.0.1:9100", true),
            ("[::ffff:127.0.0.1]:9100", true),
            ("10.0.0.1:9100", false),
            ("127.0.0.1:8080", false),
            ("10.0.0.1:9200", true),
        ] {
            assert_eq!(inside.is_open_at(address(local)), open, "{local}");
        }
        assert!(!inside.is_open_at(None));
    }
}
