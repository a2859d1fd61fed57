//! Who watches a registry: from a list on, and only what was named.

mod common;
mod services;

use common::{
    Running,
    raw::{self, Raw},
    reader::Reader,
};
use serde_json::{Value, json};
use services::{at, get, history, post, register, registry, timeless, told};
use std::{collections::BTreeSet, thread};

fn ids(list: &Value) -> Vec<String> {
    let instances = list["services"].as_array().expect("services").iter().flat_map(|service| {
        service["instances"]
            .as_array()
            .expect("instances")
            .iter()
            .map(|node| node["nodeId"].as_str().expect("an id").to_owned())
    });
    instances.collect()
}

/// Lists, and reads by SSE from the list's position until the last registration.
fn list_and_watch(registry: &Running, last: &str) {
    let list = raw::get(&at(registry, "/services"));
    let position = list.header("wsevent-position").map(str::to_owned);
    let listed = ids(&serde_json::from_slice(&list.body).expect("JSON"));
    let resume =
        position.map_or("Last-Event-ID: oldest\r\n".into(), |position| format!("Last-Event-ID: {position}\r\n"));
    let mut sse = Raw::connect("localhost", registry.port());
    sse.send(format!("GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{resume}\r\n"));
    let text = sse.read_until(last);
    let watched: Vec<String> =
        text.split("\"nodeId\":\"").skip(1).filter_map(|rest| Some(rest.split('"').next()?.to_owned())).collect();
    let all: BTreeSet<&String> = listed.iter().chain(&watched).collect();
    assert_eq!(
        (all.len(), listed.len() + watched.len()),
        (400, 400),
        "each once: {} and {}",
        listed.len(),
        watched.len()
    );
}

#[test]
fn a_list_and_the_watch_behind_it_miss_nothing_and_repeat_nothing() {
    let registry = registry("--heartbeat-timeout 1h");
    thread::scope(|scope| {
        for service in ["a", "b"] {
            let registry = &registry;
            scope.spawn(move || (1..=199).for_each(|port| register(registry, service, port)));
        }
        for _ in 0..8 {
            let registry = &registry;
            scope.spawn(move || list_and_watch(registry, "last:localhost:2"));
        }
        let both = || history(&registry).len() >= 398;
        common::eventually("all registrations", || both().then_some(()));
        register(&registry, "last", 1);
        register(&registry, "last", 2);
    });
}

#[tokio::test]
async fn readers_name_what_they_want() {
    let registry = registry("");
    let mut named = Reader::open(&at(&registry, "/events?serviceName=api&event=service_registered")).await;
    register(&registry, "web", 1);
    register(&registry, "api", 1);
    post(&registry, "/heartbeat", &json!({"nodeId": "api:localhost:1"}));
    register(&registry, "api", 2);
    let heard =
        [named.text().await, named.text().await].map(|text| timeless(&serde_json::from_str(&text).expect("JSON")));
    assert_eq!(heard, [told("service_registered", "api", 1), told("service_registered", "api", 2)]);
    let found = |query: &str| get(&registry, &format!("/events?{query}")).1.as_array().expect("events").len();
    for (query, count) in [
        ("event=service_registered", 3),
        ("event=service_heartbeat", 1),
        ("serviceName=api", 3),
        ("nodeId=api:localhost:1", 2),
        ("nodeId=api%3Alocalhost%3A1&event=service_registered", 1),
        ("serviceName=ap", 0),
        ("event=service_registered&limit=2", 2),
        ("event=nothing", 0),
        ("match=%7B%22data.serviceName%22%3A%22web%22%7D", 1),
        ("", 4),
    ] {
        assert_eq!(found(query), count, "{query}");
    }
    let first = get(&registry, "/events?event=service_registered&since=0&limit=1").1;
    assert_eq!(timeless(&first[0]), told("service_registered", "api", 2), "the newest");
}
