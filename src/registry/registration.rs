//! What an instance says about itself, judged as a whole: a refusal lists everything that is wrong with it.

use super::check;
use serde_json::{Map, Value};
use std::time::Duration;

const MAX_NAME: usize = 255;
const MAX_HOST: usize = 253;
const MAX_TAGS: usize = 10;
const MAX_TAG: usize = 50;
/// A `ttl` of more than a year is a mistake in the unit.
const MAX_TTL_MS: u64 = 365 * 86_400_000;

/// A registration that is in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// The service's name.
    pub service: String,
    /// `host:port`, an IPv6 host in brackets.
    pub address: String,
    /// What was said beside that; `tags` and `version` are here, wherever they stood.
    pub metadata: Map<String, Value>,
    /// Its own heartbeat time-out.
    pub ttl: Option<Duration>,
}

impl Registration {
    /// Reads a registration's body. A member that is `null` is absent.
    ///
    /// # Errors
    /// What is wrong, a sentence each.
    pub fn read(body: &Map<String, Value>) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let given = |name: &str| body.get(name).filter(|value| !value.is_null());
        let service = given("serviceName").map(Value::as_str);
        if !service.is_some_and(|name| name.is_some_and(is_service_name)) {
            wrong.push(format!("serviceName must be 1 to {MAX_NAME} letters, digits, `_` or `-`"));
        }
        let host = given("host").or_else(|| given("hostName")).and_then(Value::as_str);
        if !host.is_some_and(is_host) {
            wrong.push(format!("host must be 1 to {MAX_HOST} characters without white space"));
        }
        let port = given("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        if port.is_none_or(|port| port == 0) {
            wrong.push("port must be an integer from 1 to 65535".into());
        }
        let ttl = given("ttl").map(|ttl| ttl.as_u64().filter(|ttl| (1..=MAX_TTL_MS).contains(ttl)));
        if ttl == Some(None) {
            wrong.push(format!("ttl must be an integer from 1 to {MAX_TTL_MS}, in milliseconds"));
        }
        let metadata = metadata(body, &mut wrong);
        match (service.flatten(), host, port) {
            (Some(service), Some(host), Some(port)) if wrong.is_empty() => Ok(Registration {
                service: service.to_owned(),
                address: format!("{}:{port}", bracketed(host)),
                metadata,
                ttl: ttl.flatten().map(Duration::from_millis),
            }),
            _ => Err(wrong),
        }
    }

    /// What the instance is called everywhere.
    pub fn node_id(&self) -> String {
        format!("{}:{}", self.service, self.address)
    }
}

/// Without a colon, so that the name is what stands before an id's first one.
pub fn is_service_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(allowed)
}

fn is_host(host: &str) -> bool {
    let foreign = |c: char| c.is_whitespace() || c.is_control();
    (1..=MAX_HOST).contains(&host.chars().count()) && !host.contains(foreign)
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

type Check = fn(&Value) -> bool;

fn metadata(body: &Map<String, Value>, wrong: &mut Vec<String>) -> Map<String, Value> {
    let mut metadata = match body.get("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(given)) => given.clone(),
        Some(_) => {
            wrong.push("metadata must be an object".into());
            Map::new()
        }
    };
    for name in ["version", "tags"] {
        if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
            metadata.insert(name.into(), value.clone());
        }
    }
    let checks: [(&str, Check, &str); 4] = [
        ("version", is_version, "version must be a string of 1 to 50 characters"),
        ("weight", is_weight, "weight must be a number from 1 to 10"),
        ("tags", are_tags, "tags must be at most 10 strings of at most 50 characters"),
        (
            "healthCheck",
            check::is_in_order,
            "healthCheck must be {url (a path, or http, https, tcp), interval from 1000, timeout from 100}",
        ),
    ];
    for (name, is_right, sentence) in checks {
        if metadata.get(name).is_some_and(|value| !value.is_null() && !is_right(value)) {
            wrong.push(sentence.into());
        }
    }
    metadata
}

fn is_version(value: &Value) -> bool {
    value.as_str().is_some_and(|version| (1..=50).contains(&version.chars().count()))
}

fn is_weight(value: &Value) -> bool {
    value.as_f64().is_some_and(|weight| (1.0..=10.0).contains(&weight))
}

fn are_tags(value: &Value) -> bool {
    let is_tag = |tag: &Value| tag.as_str().is_some_and(|tag| tag.chars().count() <= MAX_TAG);
    value.as_array().is_some_and(|tags| tags.len() <= MAX_TAGS && tags.iter().all(is_tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<Registration, Vec<String>> {
        Registration::read(body.as_object().expect("an object"))
    }

    #[test]
    fn what_is_in_order_is_taken() {
        let full = json!({
            "serviceName": "a-B_1", "hostName": "::1", "port": 65535, "ttl": 500, "version": "1.0", "tags": ["x"],
            "metadata": {"weight": 2.5, "healthCheck": {"url": "/up", "interval": 1000, "timeout": null}, "own": [1]},
            "environment": null, "namespace": "n",
        });
        let read_it = read(full).expect("in order");
        assert_eq!(read_it.node_id(), "a-B_1:[::1]:65535");
        assert_eq!(read_it.ttl, Some(Duration::from_millis(500)));
        assert_eq!(read_it.metadata["version"], "1.0");
        let bare = read(json!({"serviceName": "a", "host": "h", "port": 1, "metadata": null, "ttl": null}));
        assert!(bare.expect("in order").metadata.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            (json!({"host": "h", "port": 1}), "serviceName"),
            (json!({"serviceName": "a:b", "host": "h", "port": 1}), "serviceName"),
            (json!({"serviceName": "a".repeat(256), "host": "h", "port": 1}), "serviceName"),
            (json!({"serviceName": ["a"], "host": "h", "port": 1}), "serviceName"),
            (json!({"serviceName": "a", "host": "h h", "port": 1}), "host"),
            (json!({"serviceName": "a", "port": 1}), "host"),
            (json!({"serviceName": "a", "host": "h", "port": "80"}), "port"),
            (json!({"serviceName": "a", "host": "h", "port": 0}), "port"),
            (json!({"serviceName": "a", "host": "h", "port": 65536}), "port"),
            (json!({"serviceName": "a", "host": "h", "port": 1.5}), "port"),
            (json!({"serviceName": "a", "host": "h", "port": 1, "ttl": 0}), "ttl"),
            (json!({"serviceName": "a", "host": "h", "port": 1, "metadata": []}), "metadata"),
            (json!({"serviceName": "a", "host": "h", "port": 1, "metadata": {"weight": 11}}), "weight"),
            (json!({"serviceName": "a", "host": "h", "port": 1, "tags": ["x".repeat(51)]}), "tags"),
            (json!({"serviceName": "a", "host": "h", "port": 1, "version": 1}), "version"),
            (json!({"serviceName": "a", "host": "h", "port": 1, "metadata": {"healthCheck": 5}}), "healthCheck"),
        ];
        for (body, name) in table {
            let wrong = read(body.clone()).expect_err(name);
            assert!(wrong.len() == 1 && wrong[0].starts_with(name), "{body}: {wrong:?}");
        }
        assert_eq!(read(json!({})).expect_err("empty").len(), 3);
    }
}
