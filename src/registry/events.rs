//! The facts that the registry tells, and the one form in which every protocol carries them:
//! `{"event":…,"data":{…},"timestamp":…}`.

use super::config::Entry;
use crate::event::Event;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// An instance, as events name it.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its service.
    pub service: Arc<str>,
    /// `service:host:port`.
    pub node: Arc<str>,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// An instance is new.
    Registered(Instance),
    /// It was taken out.
    Deregistered(Instance),
    /// It is there.
    Heartbeat(Instance),
    /// It was silent for too long, and is gone.
    Unhealthy(Instance),
    /// A service's key was set.
    ConfigChanged(Arc<str>, String, Entry),
    /// A service's key was deleted.
    ConfigDeleted(Arc<str>, String),
    /// An instance is left alone after so many failures in a row.
    CircuitOpen(Instance, u32),
    /// It is tried again.
    CircuitHalfOpen(Instance),
    /// It is well again.
    CircuitClosed(Instance),
}

impl Fact {
    /// The event's name.
    pub fn name(&self) -> &'static str {
        match self {
            Fact::Registered(_) => "service_registered",
            Fact::Deregistered(_) => "service_deregistered",
            Fact::Heartbeat(_) => "service_heartbeat",
            Fact::Unhealthy(_) => "service_unhealthy",
            Fact::ConfigChanged(..) => "config_changed",
            Fact::ConfigDeleted(..) => "config_deleted",
            Fact::CircuitOpen(..) => "circuit_open",
            Fact::CircuitHalfOpen(_) => "circuit_half_open",
            Fact::CircuitClosed(_) => "circuit_closed",
        }
    }

    /// The instance whose circuit has changed, if that is what has happened.
    pub fn circuit(&self) -> Option<&Instance> {
        match self {
            Fact::CircuitOpen(of, _) | Fact::CircuitHalfOpen(of) | Fact::CircuitClosed(of) => Some(of),
            _ => None,
        }
    }

    fn data(&self) -> Value {
        match self {
            Fact::Registered(of)
            | Fact::Deregistered(of)
            | Fact::Heartbeat(of)
            | Fact::Unhealthy(of)
            | Fact::CircuitHalfOpen(of)
            | Fact::CircuitClosed(of) => json!({ "serviceName": *of.service, "nodeId": *of.node }),
            Fact::CircuitOpen(of, failures) => {
                json!({ "serviceName": *of.service, "nodeId": *of.node, "failures": failures })
            }
            Fact::ConfigChanged(service, key, entry) => json!({
                "serviceName": **service, "key": key, "value": entry.value, "version": entry.version,
                "metadata": entry.metadata,
            }),
            Fact::ConfigDeleted(service, key) => json!({ "serviceName": **service, "key": key }),
        }
    }

    /// The event, at this time in Unix milliseconds.
    pub fn event(&self, timestamp: u64) -> Event {
        let mut envelope = Map::new();
        envelope.insert("event".into(), self.name().into());
        envelope.insert("data".into(), self.data());
        envelope.insert("timestamp".into(), timestamp.into());
        Event { payload: Value::from(envelope).to_string().into(), text: true, attrs: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_has_exactly_its_three_members_in_order() {
        let of = Instance { service: "a".into(), node: "a:h:1".into() };
        let text = |fact: Fact| String::from_utf8(fact.event(7).payload.to_vec()).expect("text");
        assert_eq!(
            text(Fact::Registered(of.clone())),
            r#"{"event":"service_registered","data":{"serviceName":"a","nodeId":"a:h:1"},"timestamp":7}"#
        );
        assert_eq!(
            text(Fact::CircuitOpen(of, 5)),
            r#"{"event":"circuit_open","data":{"serviceName":"a","nodeId":"a:h:1","failures":5},"timestamp":7}"#
        );
    }
}
