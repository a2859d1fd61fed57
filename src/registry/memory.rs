//! What a journal keeps of the registry, as notes beside the facts: one for each instance and each key, forgotten when it
//! goes. Breakers begin anew.

use super::{
    config::{Configs, Entry},
    events::Fact,
    node::{Moment, Node},
    nodes::Nodes,
    registration::Registration,
};
use crate::recorder::{Note, Notes};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// What begins an instance's note.
const NODE: &str = "node ";
/// What begins a key's note.
const KEY: &str = "config ";

/// What is to be kept beside a fact. `nodes` are those behind it.
pub fn note_of(fact: &Fact, nodes: &Nodes) -> Option<Note> {
    match fact {
        Fact::Registered(of) => nodes.get(&of.node).map(note_of_node),
        Fact::Deregistered(of) | Fact::Unhealthy(of) => Some(note(format!("{NODE}{}", of.node), None)),
        Fact::ConfigChanged(service, key, entry) => Some(note(name_of_key(service, key), Some(&entry.to_json()))),
        Fact::ConfigDeleted(service, key) => Some(note(name_of_key(service, key), None)),
        Fact::Heartbeat(_) | Fact::CircuitOpen(..) | Fact::CircuitHalfOpen(_) | Fact::CircuitClosed(_) => None,
    }
}

/// What is to be kept of an instance.
pub fn note_of_node(node: &Node) -> Note {
    let value = json!({
        "service": *node.instance.service, "address": node.address, "metadata": node.metadata,
        "ttl": node.ttl.map(|ttl| ttl.as_millis() as u64), "maintenance": node.maintenance, "place": node.place,
    });
    note(format!("{NODE}{}", node.instance.node), Some(&value))
}

fn name_of_key(service: &str, key: &str) -> String {
    format!("{KEY}{}", json!([service, key]))
}

fn note(name: String, value: Option<&Value>) -> Note {
    Note { name, value: value.map(Value::to_string).unwrap_or_default().into(), lasting: true }
}

/// Takes everything back: instances have a full time-out again.
pub fn restore(notes: &Notes, nodes: &mut Nodes, configs: &mut Configs, now: Moment) {
    let mut kept = Vec::new();
    for (name, value) in notes {
        let Ok(value) = serde_json::from_slice::<Value>(value) else { continue };
        if let Some(key) = name.strip_prefix(KEY) {
            restore_key(key, &value, configs);
        } else if name.starts_with(NODE) {
            kept.push(value);
        }
    }
    kept.sort_by_key(|node| node["place"].as_u64());
    for node in &kept {
        restore_node(node, nodes, now);
    }
}

fn restore_node(kept: &Value, nodes: &mut Nodes, now: Moment) -> Option<()> {
    let registration = Registration {
        service: kept["service"].as_str()?.to_owned(),
        address: kept["address"].as_str()?.to_owned(),
        metadata: kept["metadata"].as_object()?.clone(),
        ttl: kept["ttl"].as_u64().map(Duration::from_millis),
    };
    let (id, _) = nodes.register(registration, now);
    if kept["maintenance"] == true {
        nodes.set_maintenance(&id, true);
    }
    Some(())
}

fn restore_key(name: &str, kept: &Value, configs: &mut Configs) -> Option<()> {
    let (service, key): (Arc<str>, String) = match serde_json::from_str(name).ok()? {
        Value::Array(names) => (names.first()?.as_str()?.into(), names.get(1)?.as_str()?.to_owned()),
        _ => return None,
    };
    let entry = Entry {
        value: kept["value"].clone(),
        version: kept["version"].as_u64()?,
        metadata: kept["metadata"].as_object()?.clone(),
        updated_at: kept["updatedAt"].as_u64()?,
    };
    configs.restore(service, key, entry);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{recorder::learn, registry::node::Patience};
    use serde_json::Map;
    use std::time::Instant;

    fn nobody() -> Nodes {
        let heartbeat_timeout = Duration::from_secs(30);
        Nodes::new(Patience { heartbeat_timeout, expiry_guard: 100, breaker: Default::default() })
    }

    #[test]
    fn what_was_kept_comes_back_and_what_went_does_not() {
        let now = Moment { at: Instant::now(), ms: 7 };
        let (mut nodes, mut configs, mut notes) = (nobody(), Configs::default(), Notes::new());
        let mut keep = |note: Option<Note>| learn(&mut notes, note.expect("a note"));
        for (port, ttl) in [(2, Some(500)), (10, None), (1, None)] {
            let body = json!({"serviceName": "a", "host": "h", "port": port, "ttl": ttl, "version": "1"});
            let read = Registration::read(body.as_object().expect("an object")).expect("in order");
            let (_, fact) = nodes.register(read, now);
            keep(note_of(&fact.expect("new"), &nodes));
        }
        nodes.set_maintenance("h:10", true);
        keep(nodes.get("h:10").map(note_of_node));
        let gone = nodes.deregister("h:1").expect("known");
        keep(note_of(&gone, &nodes));
        let odd = "k \"\n";
        for _ in 0..2 {
            let entry = configs.set(&"s".into(), odd.into(), Value::Null, Map::new(), 7);
            keep(note_of(&Fact::ConfigChanged("s".into(), odd.into(), entry), &nodes));
        }
        let (mut again, mut keys) = (nobody(), Configs::default());
        restore(&notes, &mut again, &mut keys, now);
        let shown: Vec<_> =
            again.of("a").expect("there").map(|node| (&*node.address, node.ttl, node.maintenance)).collect();
        assert_eq!(shown, [("h:2", Some(Duration::from_millis(500)), false), ("h:10", None, true)]);
        assert_eq!(keys.get("s", odd), configs.get("s", odd));
        assert_eq!(again.get("h:2").and_then(Node::version), Some("1"));
    }
}
