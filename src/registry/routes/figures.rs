//! `/health` and `/metrics`: how much there is of everything.

use super::super::{
    Registry,
    http::{Answer, Asked},
};
use hyper::header;
use serde_json::json;
use std::sync::atomic::Ordering;

/// Text 0.0.4 of Prometheus.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub fn health(registry: &Registry, _: &Asked) -> Result<Answer, Answer> {
    let state = registry.state();
    let (services, nodes) = (state.nodes.services().len(), state.nodes.len());
    Ok(Answer::ok(&json!({ "status": "ok", "services": services, "nodes": nodes })))
}

pub fn metrics(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let figures = Figures::of(registry);
    let accept = asked.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let scraped = accept.contains("text/plain") || accept.contains("openmetrics");
    if scraped || asked.param("format") == Some("prometheus") {
        let body = figures.to_text().into();
        return Ok(Answer { body, ..Answer::ok(&json!(null)) }.with(header::CONTENT_TYPE, PROMETHEUS));
    }
    Ok(Answer::ok(&json!({
        "uptime": registry.started.elapsed().as_secs_f64(),
        "requests": figures.requests,
        "errors": figures.errors,
        "services": figures.services,
        "nodes": figures.nodes,
        "openCircuits": figures.open_circuits,
        "persistenceEnabled": figures.journaled,
        "persistenceType": if figures.journaled { "journal" } else { "none" },
        "wsConnections": figures.readers,
        "eventsBroadcasted": figures.events,
        "cacheHits": 0,
        "cacheMisses": 0,
    })))
}

struct Figures {
    requests: u64,
    errors: u64,
    services: usize,
    nodes: usize,
    open_circuits: usize,
    readers: usize,
    events: u64,
    journaled: bool,
}

impl Figures {
    fn of(registry: &Registry) -> Self {
        let state = registry.state();
        Figures {
            requests: registry.requests.load(Ordering::Relaxed),
            errors: registry.errors.load(Ordering::Relaxed),
            services: state.nodes.services().len(),
            nodes: state.nodes.len(),
            open_circuits: state.nodes.open_circuits(),
            readers: registry.topic.reader_count(),
            events: registry.topic.log.totals().events,
            journaled: registry.topic.log.vitals().is_some(),
        }
    }

    fn to_text(&self) -> String {
        let families = [
            ("services", "gauge", self.services as u64),
            ("nodes", "gauge", self.nodes as u64),
            ("open_circuits", "gauge", self.open_circuits as u64),
            ("readers", "gauge", self.readers as u64),
            ("requests_total", "counter", self.requests),
            ("errors_total", "counter", self.errors),
            ("events_total", "counter", self.events),
        ];
        let family = |(name, kind, value): (&str, &str, u64)| {
            format!("# TYPE wsevent_registry_{name} {kind}\nwsevent_registry_{name} {value}\n")
        };
        families.map(family).concat()
    }
}
