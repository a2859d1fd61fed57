//! Instances that are asked now and then whether they are well, beside what their heartbeats say.
//!
//! What comes of it counts for their circuits, like any other request to them.

use super::{Registry, proxy};
use crate::{
    balance::health,
    net::{Dialer, plain_words},
};
use serde_json::{Map, Value};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use url::{Position, Url};

/// Checks at once; others wait for their turn.
pub const AT_ONCE: usize = 256;
/// What is asked for unless it is said.
const PATH: &str = "/health";
/// How often, in milliseconds, and the least that may be said.
const INTERVAL: (u64, u64) = (30_000, 1000);
/// The same for how long an answer may take.
const TIMEOUT: (u64, u64) = (5000, 100);

/// How one instance is asked.
#[derive(Debug, PartialEq)]
pub struct Check {
    /// `http` or `https`: an answer below 400 is a good one; `tcp`: a connection is.
    url: Url,
    /// Between an answer and the next question.
    pub interval: Duration,
    timeout: Duration,
}

/// What came of the last one.
#[derive(Debug)]
pub struct Checked {
    /// Unix milliseconds.
    pub at: u64,
    /// What was wrong, if anything was.
    pub fault: Option<String>,
}

impl Check {
    /// What the metadata of the instance at this address ask for.
    pub fn of(metadata: &Map<String, Value>, address: &str) -> Option<Self> {
        let said = metadata.get("healthCheck")?.as_object()?;
        let ms = |name: &str, usual| Duration::from_millis(said.get(name).and_then(Value::as_u64).unwrap_or(usual));
        let url = said.get("url").and_then(Value::as_str).unwrap_or(PATH);
        Some(Check {
            url: target(url, address)?,
            interval: ms("interval", INTERVAL.0),
            timeout: ms("timeout", TIMEOUT.0),
        })
    }

    async fn ask(&self, dialer: &Dialer) -> Result<(), String> {
        if self.url.scheme() == "tcp" {
            return dialer.connect(&self.url, &[]).await.map(drop).map_err(|error| plain_words(&error));
        }
        health::ask(&self.url, &self.url[Position::BeforePath..Position::AfterQuery], dialer, &[]).await
    }
}

/// A path at the instance, or a URL.
fn target(url: &str, address: &str) -> Option<Url> {
    if url.starts_with('/') {
        return proxy::url(address)?.join(url).ok().filter(|joined| joined.scheme() == "http");
    }
    let url = Url::parse(url).ok()?;
    let known = match url.scheme() {
        "http" | "https" => true,
        "tcp" => url.port().is_some(),
        _ => false,
    };
    Some(url).filter(|url| known && url.has_host())
}

/// Whether this says how to ask.
pub fn is_in_order(value: &Value) -> bool {
    let Some(said) = value.as_object() else { return false };
    let given = |name: &str| said.get(name).filter(|value| !value.is_null());
    let at_least = |name: &str, least| given(name).is_none_or(|value| value.as_u64().is_some_and(|ms| ms >= least));
    let is_target = |url: &Value| url.as_str().is_some_and(|url| target(url, "localhost:1").is_some());
    given("url").is_none_or(is_target) && at_least("interval", INTERVAL.1) && at_least("timeout", TIMEOUT.1)
}

impl Registry {
    /// Asks an instance whether it is well, and remembers what came of it.
    pub(super) async fn check(self: Arc<Self>, id: Arc<str>, check: Arc<Check>) {
        let Ok(_turn) = self.checks.acquire().await else { return };
        let asked = timeout(check.timeout, check.ask(&self.dialer)).await;
        let fault = asked.unwrap_or_else(|_| Err("no answer to the check in time".into())).err();
        let _ = self.act(|state, now| ((), state.nodes.checked(&id, fault, now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_check_is_a_path_or_a_url() {
        let check = |said: Value| {
            let metadata = Map::from_iter([("healthCheck".to_owned(), said)]);
            Check::of(&metadata, "[::1]:3000").map(|check| check.url.to_string())
        };
        for (said, url) in [
            (json!({}), Some("http://[::1]:3000/health")),
            (json!({"url": "/up?deep=1"}), Some("http://[::1]:3000/up?deep=1")),
            (json!({"url": "https://h/x"}), Some("https://h/x")),
            (json!({"url": "tcp://h:5432"}), Some("tcp://h:5432")),
            (json!(null), None),
        ] {
            assert_eq!(check(said.clone()).as_deref(), url, "{said}");
            assert!(said.is_null() || is_in_order(&said), "{said}");
        }
        for wrong in [
            json!(5),
            json!({"url": "up"}),
            json!({"url": "ftp://h/"}),
            json!({"url": "tcp://h"}),
            json!({"url": 5}),
            json!({"interval": 999}),
            json!({"timeout": 99}),
        ] {
            assert!(!is_in_order(&wrong), "{wrong}");
        }
    }
}
