//! The chain up to the origin: each instance asks its upstreams, which ask theirs.
//!
//! Every hop adds what it measured of the way to the next one. The result is a flat list, each instance once, so that
//! it stays as long as the house is large however the hops are wired.

use super::{
    asked::Asked,
    fetch::{self, Silence, Told},
    status::unix_us,
};
use crate::{
    link::{MAX_HOPS, PATH_HEADER},
    site::Site,
    source::{health::Known, upstream::Upstream},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, time::timeout};

/// Who asks again so soon gets the same answer: a hop costs its upstream two questions a second at most.
const FRESH: Duration = Duration::from_millis(500);
/// Instances listed at most.
const MAX_INSTANCES: usize = 256;

/// What the upstreams said.
#[derive(Debug, Default)]
pub struct Collected {
    /// Of each upstream, in their order: what was found out about the way to it.
    pub hops: Vec<Value>,
    /// The status of each instance above us, the nearest first.
    pub chain: Vec<Value>,
}

/// The newest answer; whoever asks meanwhile waits for it.
#[derive(Default)]
pub struct Cache(Mutex<Option<(Instant, Arc<Collected>)>>);

/// Asks the upstreams, unless that was just done.
pub async fn collect(site: &Site, asked: &Asked) -> Arc<Collected> {
    // A loop of hops is refused by the links; a question must end all the same.
    if asked.path.contains(&site.instance) || asked.path.len() >= MAX_HOPS {
        return Arc::default();
    }
    let Ok(mut cached) = timeout(asked.wait, site.inside.chain.0.lock()).await else { return Arc::default() };
    if let Some((_, collected)) = cached.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        return collected.clone();
    }
    let collected = Arc::new(ask_all(site, asked).await);
    *cached = Some((Instant::now(), collected.clone()));
    collected
}

async fn ask_all(site: &Site, asked: &Asked) -> Collected {
    let upstreams = site.inside.upstreams();
    let answers = upstreams.iter().map(|(_, upstream)| ask_upstream(site, asked, upstream));
    let mut collected = Collected::default();
    for (hop, instances) in join_all(answers).await {
        collected.hops.push(hop);
        instances.into_iter().for_each(|status| collected.add(status, &site.instance));
    }
    collected
}

impl Collected {
    /// Each instance once; the nearest is the one that knows.
    fn add(&mut self, status: Value, us: &str) {
        let name = |status: &Value| status.get("instance").and_then(Value::as_str).map(String::from);
        let instance = name(&status);
        let known =
            |instance: &str| instance == us || self.chain.iter().any(|one| name(one).as_deref() == Some(instance));
        if self.chain.len() < MAX_INSTANCES && instance.is_some_and(|instance| !known(&instance)) {
            self.chain.push(status);
        }
    }
}

/// What was found out about the way to an upstream, and the instances that it knows.
async fn ask_upstream(site: &Site, asked: &Asked, upstream: &Upstream) -> (Value, Vec<Value>) {
    let known = upstream.health.get();
    match ask_one(site, asked, upstream, &known).await {
        Err(silence) => (json!({ "answered": false, "why": silence.to_string() }), Vec::new()),
        Ok(mut told) => {
            let hop = describe(site, upstream, &known, &told);
            let mut part = |name: &str| told.status.as_object_mut().and_then(|status| status.remove(name));
            let (chain, _) = (part("chain"), part("clock"));
            let above = match chain {
                Some(Value::Array(above)) => above,
                _ => Vec::new(),
            };
            (hop, std::iter::once(told.status).chain(above).collect())
        }
    }
}

async fn ask_one(site: &Site, asked: &Asked, upstream: &Upstream, known: &Known) -> Result<Told, Silence> {
    // Whoever is nearer must still be waiting when the farther ones have answered.
    let wait = asked.wait * 9 / 10;
    let (text, path) = (format!("{}ms", wait.as_millis()), upstream.url.path());
    let mut query = vec![("chain", "1"), ("wait", text.as_str()), ("topic", path)];
    let at = known.event.as_ref().map(|(id, _)| id.to_string());
    query.extend(at.as_deref().map(|at| ("at", at)));
    let no_url = || Silence::NoStatus("its URL cannot be asked for a status".into());
    let url = fetch::status_url(&upstream.url, &query).ok_or_else(no_url)?;
    let headers = upstream.credentials.lines(&upstream.url);
    let mut headers = headers.map_err(|error| Silence::Refused(error.to_string()))?;
    let passed = asked.path.iter().chain([&site.instance]).map(String::as_str).collect::<Vec<_>>().join(",");
    headers.push((PATH_HEADER.into(), passed));
    fetch::ask(&upstream.dialer, &url, &headers, wait).await
}

fn describe(site: &Site, upstream: &Upstream, known: &Known, told: &Told) -> Value {
    let (distance, topic) = (told.distance(), topic_of(&told.status, upstream.url.path()));
    let lag = topic.and_then(|topic| lag_of(topic, &site.instance));
    let lag = |name: &str| lag.and_then(|lag| lag.get(name)).cloned();
    json!({
        "answered": true,
        "instance": told.status.get("instance"),
        "topic": topic.and_then(|topic| topic.get("path")),
        "round_trip_ms": distance.map(|distance| millis(distance.round_trip)),
        "clock_ms": distance.map(|distance| distance.clock as f64 / 1000.0),
        "delay_ms": delay(known, told).map(millis),
        "lag_events": lag("lag_events"),
        "lag_bytes": lag("lag_bytes"),
    })
}

fn millis(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// The topic that we read there: by its path, or, where something between us changes paths, the only one.
pub fn topic_of<'a>(status: &'a Value, path: &str) -> Option<&'a Value> {
    let topics = status.get("topics")?.as_array()?;
    let named = topics.iter().find(|topic| topic.get("path").and_then(Value::as_str) == Some(path));
    named.or(topics.first().filter(|_| topics.len() == 1))
}

/// How far we are behind, as the upstream sees it.
fn lag_of<'a>(topic: &'a Value, us: &str) -> Option<&'a Value> {
    let hops = topic.get("hops")?.as_array()?;
    hops.iter().find(|hop| hop.get("instance").and_then(Value::as_str) == Some(us))
}

/// How long after the upstream's our newest event was here, in microseconds: only for an event that came live, not for
/// one that we fetched from the upstream's window when we connected.
fn delay(known: &Known, told: &Told) -> Option<u64> {
    let here = unix_us(known.event.as_ref()?.1);
    let there = told.status.get("clock")?.get("arrived")?.as_u64()?;
    let there = there.saturating_add_signed(-told.distance()?.clock);
    (there / 1000 > known.since).then(|| here.saturating_sub(there))
}
