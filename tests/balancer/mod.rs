//! A balancer under test, and what it says about itself.

// Each test file uses a part of it.
#![allow(dead_code)]

use crate::common::{
    Running, Wsevent, eventually,
    raw::{self, Raw, Server},
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

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

/// Reads numbers over SSE until `last`, coming back behind the last one whenever the stream ends: each once, none missing.
/// The newest number, and how many connections that took.
pub fn count_to(url: &str, last: Arc<AtomicU64>) -> JoinHandle<(u64, u64)> {
    let (host, port, path) = raw::split_url(url);
    thread::spawn(move || {
        let (mut id, mut newest, mut connections) = (String::new(), 0, 0);
        loop {
            let mut raw = Raw::connect(&host, port);
            raw.send(format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\nLast-Event-ID: {id}\r\n\r\n"
            ));
            let mut lines = BufReader::new(raw.stream).lines().map_while(Result::ok);
            assert_eq!(lines.next().as_deref(), Some("HTTP/1.1 200 OK"));
            connections += 1;
            let (mut position, mut number) = (None, None);
            for line in lines {
                assert!(!line.contains("event: gap"), "behind {newest}");
                if let Some(text) = line.strip_prefix("id: ") {
                    position = Some(text.to_owned());
                } else if let Some(text) = line.strip_prefix("data: ") {
                    number = Some(text.to_owned());
                } else if line.is_empty() {
                    // What a stream breaks off in the middle of was no event.
                    id = position.take().unwrap_or(id);
                    if let Some(number) = number.take() {
                        newest += 1;
                        assert_eq!(number.parse(), Ok(newest));
                    }
                }
                if newest > 0 && newest == last.load(Ordering::Relaxed) {
                    return (newest, connections);
                }
            }
        }
    })
}

/// Numbers from 1, about 500 a second, until there are `enough`; the last one is told before it is published.
pub fn publish(hub: &Running, enough: Arc<AtomicBool>, last: Arc<AtomicU64>) -> JoinHandle<u64> {
    let url = hub.url().to_owned();
    thread::spawn(move || {
        for next in 1.. {
            let done = enough.load(Ordering::Relaxed);
            if done {
                last.store(next, Ordering::Relaxed);
            }
            assert_eq!(raw::post(&url, next.to_string()).status, 200);
            if done {
                return next;
            }
            thread::sleep(Duration::from_millis(2));
        }
        unreachable!("there are enough numbers")
    })
}
