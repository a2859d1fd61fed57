//! A balancer under test, and what it says about itself.

// Each test file uses a part of it.
#![allow(dead_code)]

use crate::common::{Running, Wsevent, eventually, raw::Server};
use serde_json::Value;

/// In front of these back ends: addresses of whole servers, or URLs of topics.
pub fn in_front_of<S: ToString>(backends: impl IntoIterator<Item = S>, options: &str) -> Running {
    let backends = backends.into_iter().flat_map(|backend| ["--balance".to_owned(), backend.to_string()]);
    Wsevent::new(backends).args(options.split_whitespace()).serve()
}

/// Dummy events.
pub fn producer() -> Running {
    Wsevent::line("").serve()
}

/// What peers publish.
pub fn hub() -> Running {
    Wsevent::line("--no-produce").serve()
}

/// A forwarder that has connected.
pub fn forwarder(of: &Running) -> Running {
    let forwarder = Wsevent::new(["--consume", of.url()]).serve();
    ready(&forwarder);
    forwarder
}

pub fn ready(running: &Running) {
    eventually("readiness", || (running.own("readyz").status == 200).then_some(()));
}

/// An address at which nobody listens.
pub fn nobody() -> String {
    Server::new().address()
}

pub fn status(running: &Running) -> Value {
    serde_json::from_slice(&running.own("status").body).expect("JSON")
}

/// What is known of the back end with this address.
pub fn backend(balancer: &Running, address: &str) -> Value {
    let backends = status(balancer)["balancer"]["backends"].as_array().expect("back ends").clone();
    let found = backends.into_iter().find(|backend| backend["url"] == format!("http://{address}"));
    found.unwrap_or_else(|| panic!("no back end {address}"))
}

/// What is known of the balanced topic.
pub fn topic(balancer: &Running) -> Value {
    let topics = status(balancer)["topics"].as_array().expect("topics").clone();
    topics.into_iter().find(|topic| topic["path"] == "/events").expect("the topic")
}

/// Waits for so many readers of the balanced topic.
pub fn readers(balancer: &Running, count: usize) {
    eventually("readers", || (topic(balancer)["readers"] == count).then_some(()));
}

/// Which of these the balancer reads now.
pub fn read_by<'a>(balancer: &Running, backends: &'a mut [Running]) -> &'a mut Running {
    let url = eventually("a back end that is read", || {
        let upstream = status(balancer)["upstreams"][0].clone();
        (upstream["state"] == "connected").then(|| upstream["url"].as_str().expect("a URL").to_owned())
    });
    backends.iter_mut().find(|backend| backend.ws_url() == url).expect("one of ours")
}
