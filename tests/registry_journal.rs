//! A registry that is killed and comes back.

mod common;
mod services;

use common::{Running, Scratch, eventually, raw};
use serde_json::{Value, json};
use services::{at, get, history, post, register, registry, send, timeless, told};
use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

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

/// What was seen by a reader that goes on where it stood whenever the connection ends: ids and texts.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// Reads by SSE until it is told to stop.
fn follow(port: u16, seen: &Seen, stop: &AtomicBool) {
    let mut last = String::from("oldest");
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(("localhost", port)) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let request =
            format!("GET /events?since={last} HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
        let asked = stream.set_read_timeout(Some(Duration::from_millis(500)));
        if asked.and_then(|()| stream.write_all(request.as_bytes())).is_err() {
            continue;
        }
        let (mut id, mut data) = (None, None);
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = Some(text.to_owned());
            } else if line.is_empty() {
                last = id.take().unwrap_or(last);
                seen.lock().expect("no panic").extend(data.take().map(|data| (last.clone(), data)));
            }
        }
    }
}

/// Registers and configures until nobody answers; the numbers that were answered.
fn change(registry: &str, from: u16) -> Vec<u16> {
    let mut answered = Vec::new();
    for n in from..from + 999 {
        let register = json!({"serviceName": "web", "host": "localhost", "port": n}).to_string();
        let set = json!({"serviceName": "web", "key": format!("k{n}"), "value": n}).to_string();
        let both = [("/register", register), ("/config/set", set)];
        if !both.iter().all(|(path, body)| try_post(&format!("{registry}{path}"), body) == Some(200)) {
            break;
        }
        answered.push(n);
    }
    answered
}

#[test]
fn fifty_kills_under_load_lose_nothing_that_was_answered_and_repeat_nothing() {
    let scratch = Scratch::new();
    let mut registry = journaled(&scratch, "--heartbeat-timeout 1h --history 100000 --history-bytes 64MiB");
    let (seen, stop, port) = (Seen::default(), Arc::new(AtomicBool::new(false)), registry.port());
    let following = thread::spawn({
        let (seen, stop) = (seen.clone(), stop.clone());
        move || follow(port, &seen, &stop)
    });
    let mut answered = Vec::new();
    for round in 0..50u16 {
        let nodes = |registry: &Running| get(registry, "/health").1["nodes"].as_u64().expect("a number");
        let (url, before) = (at(&registry, ""), nodes(&registry));
        let client = thread::spawn(move || change(&url, 1 + round * 1000));
        eventually("some changes", || (nodes(&registry) > before + 5).then_some(()));
        registry.kill9();
        answered.extend(client.join().expect("no panic"));
        registry.start_again();
        let (service, configs) = (get(&registry, "/services/web").1, get(&registry, "/config/all?serviceName=web").1);
        let instances = service["instances"].as_array().expect("a list").iter();
        let there: HashSet<&str> = instances.filter_map(|node| node["address"].as_str()).collect();
        for n in &answered {
            assert!(there.contains(format!("localhost:{n}").as_str()), "lost instance {n} in round {round}");
            assert_eq!(configs[format!("k{n}")]["value"], *n, "lost key {n} in round {round}");
        }
    }
    register(&registry, "end", 1);
    let texts = || seen.lock().expect("no panic").iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
    eventually("the last event", || texts().last().is_some_and(|text| text.contains("end:localhost:1")).then_some(()));
    stop.store(true, Ordering::Relaxed);
    registry.kill9();
    following.join().expect("no panic");
    registry.start_again();
    let ids: HashSet<String> = seen.lock().expect("no panic").iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(ids.len(), texts().len(), "no id twice");
    let told = get(&registry, "/events?limit=100000").1;
    let told: Vec<String> = told.as_array().expect("events").iter().map(Value::to_string).collect();
    assert!(told == texts(), "what a reader saw that came back is what there is: {} and {}", told.len(), texts().len());
}

/// The status; `None` when there is no whole answer.
fn try_post(url: &str, body: &str) -> Option<u16> {
    use std::io::Read;
    let (host, port, path) = raw::split_url(url);
    let mut stream = TcpStream::connect((host.as_str(), port)).ok()?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}
