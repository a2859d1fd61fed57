//! Which instance of a service a client is sent to.

use super::{node::Node, nodes::Nodes};
use crate::balance::choice::{self, Candidate, Key, Policy};

/// What a client asks for.
#[derive(Debug, Default, PartialEq)]
pub struct Ask<'a> {
    /// The service.
    pub service: &'a str,
    /// Exactly this version, or `latest`.
    pub version: Option<&'a str>,
    /// All of these.
    pub tags: Vec<&'a str>,
    /// How to choose; what is unknown is in turn.
    pub strategy: &'a str,
    /// The same client gets the same instance where the strategy hashes.
    pub client: &'a str,
}

/// The chosen one of the instances that may be; `None` when there is none. `random` gives numbers from 0 up to 1.
pub fn pick<'n>(
    nodes: &'n mut Nodes,
    ask: &Ask,
    may_be: impl Fn(&Node) -> bool,
    random: impl FnMut() -> f64,
) -> Option<&'n Node> {
    let latest = match ask.version {
        Some("latest") => {
            let versions = versions(nodes, ask.service);
            Some(versions.iter().rev().find(|version| !numbers(version).is_empty()).or(versions.last())?.clone())
        }
        _ => None,
    };
    let fits = |node: &Node| {
        let version = match (ask.version, &latest) {
            (_, Some(latest)) => node.version().unwrap_or(DEFAULT) == latest,
            (Some(version), None) => node.version().unwrap_or(DEFAULT) == version,
            (None, None) => true,
        };
        version && may_be(node) && ask.tags.iter().all(|tag| node.has_tag(tag))
    };
    let Some(policy) = policy(ask.strategy) else { return in_turn(nodes, ask, fits) };
    let fitting: Vec<&Node> = nodes.of(ask.service)?.filter(|node| fits(node)).collect();
    if ask.strategy == "least-response-time" {
        let time = |node: &Node| node.response_time.unwrap_or(0.0);
        return fitting.into_iter().min_by(|a, b| time(a).total_cmp(&time(b)));
    }
    let weighted = ask.strategy != "random";
    let candidate = |node: &&Node| Candidate {
        name: choice::hash(node.instance.node.as_bytes()),
        weight: if weighted { node.weight() } else { 1.0 },
        active: node.traffic.count(),
        credit: 0.0,
    };
    let mut candidates: Vec<Candidate> = fitting.iter().map(candidate).collect();
    let chosen = choice::choose(&policy, &mut candidates, choice::hash(ask.client.as_bytes()), random)?;
    fitting.get(chosen).copied()
}

/// What an instance without a version has.
pub const DEFAULT: &str = "default";

/// The policy of a strategy that does not go in turn.
fn policy(strategy: &str) -> Option<Policy> {
    match strategy {
        "random" | "weighted-random" => Some(Policy::Random),
        "least-connections" | "weighted-least-connections" | "least-response-time" => Some(Policy::LeastConnections),
        "power-of-two-choices" => Some(Policy::TwoChoices),
        "consistent-hash" | "ip-hash" => Some(Policy::Hash(Key::Ip)),
        _ => None,
    }
}

/// Strictly in turn, in the order of registration.
fn in_turn<'n>(nodes: &'n mut Nodes, ask: &Ask, fits: impl Fn(&Node) -> bool) -> Option<&'n Node> {
    let turn = nodes.service_mut(ask.service)?.turn;
    let found = nodes.from(ask.service, turn)?.find(|(_, node)| fits(node));
    let (place, id) = found.map(|(place, node)| (place, node.instance.node.clone()))?;
    nodes.service_mut(ask.service)?.turn = place + 1;
    nodes.get(&id)
}

/// The versions of a service's instances, rising by number; behind them those without one.
pub fn versions(nodes: &Nodes, service: &str) -> Vec<String> {
    let all = nodes.of(service).into_iter().flatten();
    let mut versions: Vec<String> = all.map(|node| node.version().unwrap_or(DEFAULT).to_owned()).collect();
    versions.sort_by_cached_key(|version| (numbers(version).is_empty(), numbers(version), version.clone()));
    versions.dedup();
    versions
}

/// `1.10` is above `1.9`.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.trim_start_matches('v').split(['.', '-', '+']);
    parts.map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{
        node::{Moment, Patience},
        registration::Registration,
    };
    use super::*;
    use serde_json::{Value, json};
    use std::time::{Duration, Instant};

    fn nodes(metadata: &[Value]) -> Nodes {
        let heartbeat_timeout = Duration::from_secs(30);
        let mut nodes = Nodes::new(Patience { heartbeat_timeout, expiry_guard: 100, breaker: Default::default() });
        for (port, metadata) in (1..).zip(metadata) {
            let body = json!({"serviceName": "a", "host": "h", "port": port, "metadata": metadata});
            let read = Registration::read(body.as_object().expect("an object")).expect("in order");
            nodes.register(read, Moment { at: Instant::now(), ms: 0 });
        }
        nodes
    }

    fn picked(nodes: &mut Nodes, ask: &Ask, times: usize) -> String {
        let name = |nodes: &mut Nodes| {
            pick(nodes, ask, Node::is_available, || 0.5).map_or("-".into(), |node| node.address[2..].to_owned())
        };
        (0..times).map(|_| name(nodes)).collect()
    }

    #[test]
    fn in_turn_over_those_that_fit() {
        let mut all = nodes(&[json!({"tags": ["x", "y"]}), json!({}), json!({"tags": ["x"]})]);
        let ask = Ask { service: "a", ..Ask::default() };
        assert_eq!(picked(&mut all, &ask, 7), "1231231");
        let tagged = |tags: &[&'static str]| Ask { service: "a", tags: tags.to_vec(), ..Ask::default() };
        assert_eq!(picked(&mut all, &tagged(&["x"]), 3), "313");
        assert_eq!(picked(&mut all, &tagged(&["x", "y"]), 2), "11");
        assert_eq!(picked(&mut all, &tagged(&["z"]), 1), "-");
        all.set_maintenance("a:h:2", true);
        assert_eq!(picked(&mut all, &ask, 3), "313");
        assert_eq!(picked(&mut all, &Ask { service: "b", ..Ask::default() }, 1), "-");
    }

    #[test]
    fn versions_are_numbers() {
        let version = |version: &str| json!({ "version": version });
        let mut all = nodes(&[version("1.9"), version("1.10"), json!({}), version("1.9")]);
        assert_eq!(versions(&all, "a"), ["1.9", "1.10", "default"]);
        let ask = |version| Ask { service: "a", version: Some(version), ..Ask::default() };
        assert_eq!(picked(&mut all, &ask("1.9"), 2), "14");
        assert_eq!(picked(&mut all, &ask("latest"), 2), "22");
        assert_eq!(picked(&mut all, &ask("default"), 1), "3");
        assert_eq!(picked(&mut all, &ask("2"), 1), "-");
    }

    #[test]
    fn every_strategy_finds_somebody_and_a_key_stays_where_it_is() {
        let mut all = nodes(&[json!({"weight": 10}), json!({}), json!({})]);
        let ask = |strategy, client| Ask { service: "a", strategy, client, ..Ask::default() };
        for strategy in [
            "random",
            "weighted-random",
            "least-connections",
            "consistent-hash",
            "ip-hash",
            "power-of-two-choices",
            "least-response-time",
            "whatever",
        ] {
            assert_ne!(picked(&mut all, &ask(strategy, "c"), 1), "-", "{strategy}");
        }
        let first = picked(&mut all, &ask("consistent-hash", "me"), 1);
        assert_eq!(picked(&mut all, &ask("consistent-hash", "me"), 3), first.repeat(3));
        for (name, ms) in [("h:1", 20.0), ("h:2", 5.0), ("h:3", 9.0)] {
            assert!(all.note_response_time(name, ms));
        }
        assert_eq!(picked(&mut all, &ask("least-response-time", ""), 1), "2");
        assert_eq!(picked(&mut all, &ask("weighted-random", ""), 1), "1");
        assert_eq!(picked(&mut all, &ask("random", ""), 1), "2");
    }
}
