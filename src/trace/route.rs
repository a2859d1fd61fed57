//! From the statuses of a chain to its hops in order. They come from strangers: whatever is not there or not of the
//! expected form is left blank.

use crate::{
    net::redacted,
    proto::admin::{
        chain::topic_of,
        fetch::{Silence, Told},
    },
};
use serde_json::Value;
use url::Url;

/// Hops to the origin and altogether at most, whatever the statuses say.
const MAX_DEPTH: usize = 64;
const MAX_LINES: usize = 512;

/// One instance on the way, and how the one before it reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hop {
    /// 1 is the instance that was asked.
    pub number: usize,
    /// What it calls itself, where that is known.
    pub instance: Option<String>,
    /// As the hop before it knows it.
    pub url: String,
    /// Of the connection that reads it.
    pub state: String,
    /// Whether that is as it should be.
    pub is_up: bool,
    /// Events per second.
    pub rate: Option<f64>,
    /// Events that the hop before it has not acknowledged.
    pub lag: Option<u64>,
    /// Milliseconds from its log to that of the hop before it, the middle one of the looks.
    pub delay: Option<f64>,
    /// Milliseconds there and back, likewise.
    pub round_trip: Option<f64>,
    /// What else there is to say.
    pub note: String,
}

/// All of it.
#[derive(Debug, PartialEq)]
pub struct Route {
    /// Depth first: a merge's upstreams have the same number.
    pub hops: Vec<Hop>,
}

impl Route {
    /// Reads the way from a topic's URL out of what its server told.
    ///
    /// # Errors
    /// When the topic is not there.
    pub(super) fn read(url: &Url, told: &Told) -> Result<Self, Silence> {
        let topics = |status: &Value| {
            let topics = status.get("topics").and_then(Value::as_array).into_iter().flatten();
            topics.filter_map(|topic| text(topic, "path")).collect::<Vec<_>>().join(", ")
        };
        if let Some(backends) = relaying_to(&told.status, url.path()) {
            return Err(Silence::NoStatus(format!("a balancer relays bytes there: trace {backends}")));
        }
        let path = topic_of(&told.status, url.path()).and_then(|topic| text(topic, "path"));
        let path = path.filter(|path| path == url.path());
        let path = path.ok_or_else(|| {
            Silence::NoStatus(format!("no topic at {} there, but: {}", url.path(), topics(&told.status)))
        })?;
        let first = Hop {
            number: 1,
            url: redacted(url),
            state: "answers".into(),
            is_up: true,
            round_trip: told.distance().map(|distance| distance.round_trip as f64 / 1000.0),
            ..Hop::default()
        };
        let mut walk = Walk { told: &told.status, hops: Vec::new() };
        walk.visit(&told.status, &path, first);
        Ok(Route { hops: walk.hops })
    }

    /// The newest look, with the middle one of the times of all.
    pub(super) fn merged(looks: Vec<Route>) -> Self {
        let same = |hop: &Hop| (hop.number, hop.instance.clone(), hop.url.clone());
        let times = |of: &Hop, time: fn(&Hop) -> Option<f64>| {
            let hops = looks.iter().filter_map(|look| look.hops.iter().find(|hop| same(hop) == same(of)));
            let mut times: Vec<f64> = hops.filter_map(time).collect();
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied()
        };
        let last = looks.last().map_or(&[][..], |look| &look.hops);
        let hops = last.iter().map(|hop| Hop {
            delay: times(hop, |hop| hop.delay),
            round_trip: times(hop, |hop| hop.round_trip),
            ..hop.clone()
        });
        Route { hops: hops.collect() }
    }
}

/// The topics behind a balancer that knows nothing of what passes through it.
fn relaying_to(status: &Value, path: &str) -> Option<String> {
    let balancer = status.get("balancer").filter(|balancer| balancer["mode"] == "relay")?;
    let backends = balancer.get("backends").and_then(Value::as_array).into_iter().flatten();
    let topic = |backend: &Value| {
        let mut url = Url::parse(&text(backend, "url")?).ok()?;
        if url.path() == "/" {
            url.set_path(path);
        }
        Some(redacted(&url))
    };
    Some(backends.filter_map(topic).collect::<Vec<_>>().join(" or "))
}

struct Walk<'a> {
    told: &'a Value,
    hops: Vec<Hop>,
}

impl Walk<'_> {
    /// An instance whose status is known, and what is above it.
    fn visit(&mut self, status: &Value, path: &str, hop: Hop) {
        let topic = topic_of(status, path);
        let feeds = status.get("upstreams").and_then(Value::as_array).into_iter().flatten();
        let feeds: Vec<&Value> = feeds.filter(|feed| text(feed, "topic").as_deref() == Some(path)).collect();
        let note = match feeds.len() {
            0 => "origin".into(),
            1 => String::new(),
            n => format!("merge of {n}"),
        };
        let rate = topic.and_then(|topic| topic.get("rate")?.get("events")?.as_f64());
        let number = hop.number;
        self.hops.push(Hop { instance: text(status, "instance"), rate, note, ..hop });
        for feed in feeds.into_iter().filter(|_| number < MAX_DEPTH) {
            if self.hops.len() < MAX_LINES {
                self.follow(feed, number + 1);
            }
        }
    }

    fn follow(&mut self, feed: &Value, number: usize) {
        let answer = feed.get("hop");
        let float = |name: &str| answer?.get(name)?.as_f64();
        let state = text(feed, "state").unwrap_or_else(|| "unknown".into());
        let hop = Hop {
            number,
            url: text(feed, "url").unwrap_or_default(),
            is_up: state == "connected",
            state,
            lag: answer.and_then(|answer| answer.get("lag_events")?.as_u64()),
            delay: float("delay_ms"),
            round_trip: float("round_trip_ms"),
            ..Hop::default()
        };
        let named = |name: &str| answer.and_then(|answer| text(answer, name));
        let chain = self.told.get("chain").and_then(Value::as_array).into_iter().flatten();
        let status = chain.into_iter().find(|status| text(status, "instance") == named("instance"));
        match (status.filter(|_| named("instance").is_some()), named("topic")) {
            (Some(status), Some(path)) => self.visit(status, &path, hop),
            _ => self.pass(feed, hop),
        }
    }

    /// Instances that keep their status to themselves, as far as the links know them.
    fn pass(&mut self, feed: &Value, hop: Hop) {
        let why = feed.get("hop").and_then(|answer| text(answer, "why"));
        let error = feed.get("last_error").and_then(|error| text(error, "text"));
        let note = match (hop.is_up, text(feed, "kind").as_deref()) {
            (false, _) => error.unwrap_or_default(),
            (true, Some("foreign")) => "a foreign server".into(),
            (true, _) => why.unwrap_or_default(),
        };
        let number = hop.number;
        let mut path = feed.get("path").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        self.hops.push(Hop { instance: path.next().map(String::from), note, ..hop });
        for (i, instance) in path.take(MAX_DEPTH).enumerate() {
            let (state, note) = ("told".into(), "known by the links only".into());
            let instance = Some(instance.to_owned());
            self.hops.push(Hop { number: number + 1 + i, instance, state, is_up: true, note, ..Hop::default() });
        }
    }
}

fn text(value: &Value, name: &str) -> Option<String> {
    // Whatever a stranger's status says, it stays on its line of the terminal.
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    value.get(name)?.as_str().map(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(status: Value) -> Told {
        Told { status, sent: 1000, got: 3000 }
    }

    fn traced(status: Value) -> Route {
        let url = Url::parse("ws://user:secret@a:1/x").expect("a URL");
        Route::merged(vec![Route::read(&url, &told(status)).expect("a route")])
    }

    fn status(instance: &str, path: &str, upstreams: Value, chain: Value) -> Value {
        json!({
            "instance": instance, "upstreams": upstreams, "chain": chain,
            "topics": [{"path": path, "rate": {"events": 10.0}}], "clock": {"received": 1900, "answered": 2100},
        })
    }

    fn feed(topic: &str, url: &str, instance: &str, path: &str) -> Value {
        let hop = json!({
            "answered": true, "instance": instance, "topic": path, "delay_ms": 0.25, "round_trip_ms": 1.0, "lag_events": 3,
        });
        json!({"topic": topic, "url": url, "state": "connected", "kind": "link", "hop": hop})
    }

    #[test]
    fn a_chain_is_a_line_per_hop() {
        let above = json!([
            status("b", "/y", json!([feed("/y", "ws://c/z", "c", "/z")]), json!(null)),
            status("c", "/z", json!([]), json!(null)),
        ]);
        let route = traced(status("a", "/x", json!([feed("/x", "ws://b/y", "b", "/y")]), above));
        let expected = "\
hop  instance  state      events/s  lag   delay  round trip  url
  1  a         answers        10.0    -       -      1.8 ms  ws://a:1/x
  2  b         connected      10.0    3  0.2 ms      1.0 ms  ws://b/y
  3  c         connected      10.0    3  0.2 ms      1.0 ms  ws://c/z  (origin)
From the origin to hop 1 an event takes 0.5 ms.
";
        assert_eq!(route.to_string(), expected);
        assert!(route.is_whole());
    }

    #[test]
    fn a_merge_gives_its_upstreams_one_number_and_silence_a_reason() {
        let silent = json!({"topic": "/x", "url": "ws://d/q", "state": "connected", "kind": "link", "path": ["d", "e"],
            "hop": {"answered": false, "why": "404"}});
        let down = json!({"topic": "/x", "url": "ws://f/", "state": "down", "last_error": {"text": "re\u{1b}fused"}});
        let other = json!({"topic": "/other", "url": "ws://g/", "state": "connected"});
        let route = traced(status("a", "/x", json!([silent, down, other]), json!([])));
        let lines: Vec<_> =
            route.hops.iter().map(|hop| (hop.number, hop.instance.as_deref(), hop.note.as_str())).collect();
        let expected = [
            (1, Some("a"), "merge of 2"),
            (2, Some("d"), "404"),
            (3, Some("e"), "known by the links only"),
            (2, None, "re fused"),
        ];
        assert_eq!(lines, expected);
        assert!(!route.is_whole() && route.delay().is_none());
    }

    #[test]
    fn a_status_that_lies_ends() {
        let looped = json!([status("b", "/y", json!([feed("/y", "ws://b/y", "b", "/y")]), json!(null))]);
        let route = traced(status("a", "/x", json!([feed("/x", "ws://b/y", "b", "/y")]), looped));
        assert_eq!(route.hops.len(), MAX_DEPTH);
        let twice = json!([feed("/y", "ws://b/y", "b", "/y"), feed("/y", "ws://c/y", "b", "/y")]);
        let forked = json!([status("b", "/y", twice, json!(null))]);
        let route = traced(status("a", "/x", json!([feed("/x", "ws://b/y", "b", "/y")]), forked));
        assert_eq!(route.hops.len(), MAX_LINES);
        for nonsense in [json!({"topics": [{"path": "/x"}], "upstreams": 5}), json!({"topics": [{"path": "/x"}, 7]})] {
            assert_eq!(traced(nonsense).hops.len(), 1);
        }
    }
}
