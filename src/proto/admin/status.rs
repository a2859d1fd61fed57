//! `/-/status`: everything that is known inside, as JSON. The field names are promised in docs/inside.md.

use super::{
    asked::Asked,
    chain::{self, Collected},
    feeds, topics,
};
use crate::{
    logging, panics,
    proto::subscribe::Refusal,
    script::{fault::Limits, runner::Figures},
    site::Site,
    units::{now_ms, now_us},
};
use hyper::http::request::Parts;
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// The answer to a request.
///
/// # Errors
/// 400 with the name of a parameter that cannot be read.
pub async fn answer(site: &Site, parts: &Parts) -> Result<Value, Refusal> {
    let received = now_us();
    let asked = Asked::read(parts)?;
    let collected = if asked.chain { Some(chain::collect(site, &asked).await) } else { None };
    let mut status = own(site, collected.as_deref()).await;
    if let Some(collected) = collected {
        status["chain"] = collected.chain.clone().into();
    }
    let arrived = asked.arrival.as_ref().and_then(|(path, id)| site.topic(path)?.log.arrived(id)).map(unix_us);
    status["clock"] = json!({ "received": received, "arrived": arrived, "answered": now_us() });
    Ok(status)
}

/// A moment of this process by the system's clock as it is now.
pub fn unix_us(moment: Instant) -> u64 {
    now_us().saturating_sub(moment.elapsed().as_micros() as u64)
}

async fn own(site: &Site, collected: Option<&Collected>) -> Value {
    let (inside, hops) = (&site.inside, site.hops().await);
    let topics: Vec<Value> = site.topics().iter().map(|topic| topics::describe(site, topic, &hops)).collect();
    let upstreams = inside.upstreams();
    let upstreams = upstreams.iter().enumerate().map(|(i, (topic, upstream))| {
        let mut described = feeds::describe(site, topic, upstream);
        if let Some(hop) = collected.and_then(|collected| collected.hops.get(i)) {
            described["hop"] = hop.clone();
        }
        described
    });
    json!({
        "instance": site.instance,
        "version": env!("CARGO_PKG_VERSION"),
        "host": inside.host,
        "time": now_ms(),
        "started": inside.started.1,
        "uptime": rounded(inside.started.0.elapsed().as_secs_f64()),
        "ready": site.is_ready(),
        "panics": panics::count(),
        "connections": site.connections(),
        "max_connections": site.rules.max_connections,
        "log": { "dropped_lines": logging::dropped_lines() },
        "mqtt": site.mqtt.describe(),
        "topics": topics,
        "upstreams": upstreams.collect::<Vec<_>>(),
        "scripts": scripts(site),
        "balancer": site.balancer.as_ref().map(|balancer| balancer.describe()),
    })
}

/// The scripts that name streams and routes, then those that are stages.
fn scripts(site: &Site) -> Vec<Value> {
    let all = &site.scripts;
    let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let figures = |name: &str, figures: &Figures, limits: &Limits| {
        json!({
            "file": name,
            "calls": number(&figures.calls),
            "errors": number(&figures.errors),
            "timeouts": number(&figures.timeouts),
            "memory": number(&figures.memory),
            "memory_limit": limits.memory,
        })
    };
    let files = all.files().iter().map(|script| {
        let mut described = figures(&script.name, &script.figures, &script.limits);
        (described["streams"], described["routes"]) = (script.streams().into(), script.routes().into());
        described
    });
    files.chain(all.stages().iter().map(|stage| figures(&stage.name, &stage.figures, &stage.limits))).collect()
}

/// People and charts need no more.
pub fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
