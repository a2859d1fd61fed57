//! A registry that is killed and comes back.

mod common;
mod services;

use common::{Running, Scratch, eventually, raw};
use serde_json::{Value, json};
use services::{at, get, history, post, register, registry, send, timeless, told};
use std::thread;

fn journaled(scratch: &Scratch, options: &str) -> Running {
    registry(&format!("--journal {} {options}", scratch.arg("journal")))
}

/// The newest position.
fn position(registry: &Running) -> String {
    raw::get(&at(registry, "/servers")).header("wsevent-position").expect("a position").to_owned()
}

#[test]
fn what_was_answered_is_there_again() {
    let scratch = Scratch::new();
    let mut registry = journaled(&scratch, "");
    for port in [3, 1, 2] {
        register(&registry, "web", port);
    }
    let changed = json!({"serviceName": "web", "host": "localhost", "port": 1, "metadata": {"version": "2.0"}});
    assert_eq!(post(&registry, "/register", &changed).0, 200);
    assert_eq!(send(&registry, "DELETE", "/deregister", &json!({"nodeId": "web:localhost:2"})).1["success"], true);
    let set = |registry: &Running, key: &str| {
        post(registry, "/config/set", &json!({"serviceName": "web", "key": key, "value": {"n": 1}})).1
    };
    set(&registry, "k");
    let kept = set(&registry, "k");
    set(&registry, "gone");
    assert_eq!(send(&registry, "DELETE", "/config/delete?serviceName=web&key=gone", &json!({})).0, 200);
    let maintained = json!({"nodeId": "web:localhost:3", "maintenance": true});
    assert_eq!(post(&registry, "/maintenance", &maintained).1["success"], true);
    let (events, last) = (history(&registry), position(&registry));

    registry.restart();
    assert_eq!((history(&registry), position(&registry)), (events, last.clone()));
    let instances = get(&registry, "/services/web").1["instances"].clone();
    let shown: Vec<_> = instances.as_array().expect("instances").iter().map(|node| &node["address"]).collect();
    assert_eq!(json!(shown), json!(["localhost:3", "localhost:1"]), "in the order of their registration");
    assert_eq!((&instances[0]["maintenance"], &instances[1]["metadata"]), (&json!(true), &json!({"version": "2.0"})));
    assert_eq!(get(&registry, "/config/all?serviceName=web").1, json!({ "k": kept }));
    assert_eq!(set(&registry, "k")["version"], 3);
    register(&registry, "web", 1);
    register(&registry, "web", 2);
    let after = get(&registry, &format!("/events?after={last}")).1;
    let after: Vec<Value> = after.as_array().expect("events").iter().map(timeless).collect();
    assert_eq!(after.len(), 2, "{after:?}");
    assert_eq!(after[1], told("service_registered", "web", 2), "the other one was there");
}

#[test]
fn who_is_not_heard_again_is_removed() {
    let scratch = Scratch::new();
    let mut registry = journaled(&scratch, "--heartbeat-timeout 1s");
    register(&registry, "web", 1);
    registry.restart();
    eventually("the expiry", || {
        (history(&registry).last() == Some(&told("service_unhealthy", "web", 1))).then_some(())
    });
    registry.restart();
    assert_eq!(get(&registry, "/health").1["nodes"], 0);
}

#[test]
fn kills_under_load_lose_nothing_that_was_answered() {
    let scratch = Scratch::new();
    let mut registry = journaled(&scratch, "--history-bytes 64KiB");
    let mut answered = Vec::new();
    for round in 0..5u16 {
        let url = at(&registry, "/register");
        let client = thread::spawn(move || {
            let mut ports = Vec::new();
            for port in (1 + round * 1000)..(1000 + round * 1000) {
                let body = json!({"serviceName": "web", "host": "localhost", "port": port}).to_string();
                let Some(200) = try_post(&url, &body) else { break };
                ports.push(port);
            }
            ports
        });
        eventually("some registrations", || {
            (get(&registry, "/health").1["nodes"].as_u64() > Some(answered.len() as u64 + 20)).then_some(())
        });
        registry.kill9();
        answered.extend(client.join().expect("no panic"));
        registry.start_again();
        let (_, service) = get(&registry, "/services/web");
        let there: Vec<&str> = service["instances"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|node| node["address"].as_str())
            .collect();
        for port in &answered {
            assert!(there.contains(&format!("localhost:{port}").as_str()), "lost {port} in round {round}");
        }
    }
}

/// The status; `None` when there is no whole answer.
fn try_post(url: &str, body: &str) -> Option<u16> {
    use std::io::{Read, Write};
    let (host, port, path) = raw::split_url(url);
    let mut stream = std::net::TcpStream::connect((host.as_str(), port)).ok()?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}
