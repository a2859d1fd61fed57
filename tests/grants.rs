//! What a grant covers: in whatever shape its claims come, and however its patterns and a path are spelled, on every
//! protocol.

mod common;
mod link;
mod mqtt_client;
mod scripted;
mod services;
mod tokens;

use common::{
    Running, Wsevent, eventually,
    raw::{self, Raw, Server},
    reader::Reader,
};
use mqtt_client::{Client, PUBACK, text};
use scripted::Scripted;
use serde_json::{Value, json};
use tokens::{Keys, STATIC, claims};

/// A topic's path, and what else it is called.
const PATH: &str = "/gr%C3%B6%C3%9Fe/~a+b";
const ASKED: [&str; 3] = [PATH, "/gr%c3%b6%c3%9fe/~a+b", "/gr%C3%b6%c3%9Fe/~a+b"];
/// What covers it, and what does not.
const PATTERNS: [&str; 4] = ["/größe/~a+b", "größe/%7ea+b", "gr%c3%b6%c3%9fe/*", PATH];
const OTHERS: [&str; 3] = ["/größe/~a%2Bb", "/Größe/*", "/gr%C3%B6%C3%9Fe%2F*"];
const WAYS: [(&str, u16); 6] = [
    ("websocket", 101),
    ("link", 101),
    ("text/event-stream", 200),
    ("application/x-ndjson", 200),
    ("history", 200),
    ("POST", 200),
];

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn hub(keys: &Keys, options: &str) -> Running {
    Wsevent::line(&format!("--no-produce --serve-path größe/~a+b {options}")).args(keys.args()).serve()
}

/// The status of an answer.
fn ask(way: &str, url: &str, headers: &str) -> u16 {
    match way {
        "websocket" => Raw::ask_websocket(url, headers).1.status,
        "link" => Raw::ask_websocket(url, &format!("Sec-WebSocket-Protocol: wsevent.v1\r\n{headers}")).1.status,
        "history" => raw::request("GET", url, headers, b"").status,
        "POST" => raw::request("POST", url, headers, b"said").status,
        // A stream goes on: only its head is waited for.
        accept => {
            let (host, port, path) = raw::split_url(url);
            let mut raw = Raw::connect(&host, port);
            raw.send(format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: {accept}\r\n{headers}\r\n"));
            raw.read_head().status
        }
    }
}

#[test]
fn a_pattern_covers_its_topic_however_both_are_spelled_over_http() {
    let keys = Keys::new();
    let hub = hub(&keys, "");
    let at = |path: &str| format!("http://{}{path}", hub.address());
    for (patterns, covers) in [(&PATTERNS[..], true), (&OTHERS[..], false)] {
        for pattern in patterns {
            // One text is a list of one.
            let token = bearer(&keys.hs256(&claims(json!({"subscribe": pattern, "publish": pattern}))));
            for path in ASKED {
                for (way, status) in WAYS {
                    let expected = if covers { status } else { 403 };
                    assert_eq!(ask(way, &at(path), &token), expected, "{pattern} {path} {way}");
                }
            }
        }
    }
}

#[test]
fn a_pattern_covers_its_topic_over_a_link() {
    let keys = Keys::new();
    let hub = hub(&keys, "");
    let upstream = |path: &str| format!("ws://{}{path}", hub.address());
    let said = raw::request("POST", &upstream(PATH), &bearer(STATIC), b"over a link");
    assert_eq!(said.status, 200);
    for path in ASKED {
        let token = keys.write("token", &keys.hs256(&claims(json!({"subscribe": ["größe/~*"]}))));
        let line = ["--consume", &upstream(path), "--consume-token-file", &token, "--no-serve", "--since", "oldest"];
        assert_eq!(Wsevent::new(line).start().lines(1), ["over a link"], "{path}");
    }
}

#[test]
fn a_pattern_covers_its_topic_over_mqtt() {
    let keys = Keys::new();
    let hub = hub(&keys, "--mqtt-listen localhost:0");
    let log_in = |pattern: &str| {
        let token = keys.hs256(&claims(json!({"subscribe": pattern, "publish": [pattern]})));
        Client::log_in(hub.port_of("mqtt"), "", &token)
    };
    // A + is a wildcard there: the topic's name has it escaped.
    let name = "größe/~a%2Bb";
    let say = [&text(name)[..], b"\0\x01\0one"].concat();
    for pattern in PATTERNS {
        let mut client = log_in(pattern);
        assert_eq!(client.subscribe5(name, 0), 0, "{pattern}");
        client.send(0x32, &say);
        let answers = [client.next(), client.next()].map(|answer| answer.expect("an answer"));
        assert!(
            answers.iter().any(|answer| answer.first == PUBACK && answer.body.get(2).is_none_or(|code| *code == 0))
        );
        assert!(answers.iter().any(|answer| answer.is_message() && answer.message().topic == name), "{pattern}");
    }
    for pattern in OTHERS {
        let mut client = log_in(pattern);
        assert_eq!(client.subscribe5(name, 0), 0x87, "{pattern}");
        client.send(0x32, &say);
        assert_eq!(client.next().map(|answer| answer.body), Some(b"\0\x01\x87".to_vec()), "{pattern}");
    }
}

/// A stream, a route and a subscription.
const SCRIPT: &str = "
registerWebStream('/größe');
register('/weg/größe', 'weg'); const weg = () => 'da';
graphQLRegistry.registerSubscription('live', 'type Subscription { live: String }', 'none');
register('/send', 'send', 'POST'); const send = () => graphQLRegistry.sendSubscriptionMessageFiltered('live', 'x', '{}');
";
const OPERATION: &str = r#"{"query":"subscription { live }"}"#;

#[test]
fn a_pattern_covers_named_streams_routes_and_operations() {
    let keys = Keys::new();
    let app = Scripted::serve_with(SCRIPT, &format!("--jwt-secret-file {}", keys.file("secret")));
    let statuses = |token: &str| {
        let stream = |path: &str| ask("text/event-stream", &app.url(path), token);
        let route = ask("history", &app.url("/weg/gr%C3%B6%C3%9F%65"), token);
        [stream("/gr%c3%b6%c3%9fe"), route, stream("/graphql/subscription/live")]
    };
    let operation = |token: &str| format!("Content-Type: application/json\r\nAccept: text/event-stream\r\n{token}");
    let covered = json!({"subscribe": ["größe", "weg/gr%c3%b6*", "%67raphql/s*"], "publish": "s%65nd"});
    let covered = bearer(&keys.hs256(&claims(covered)));
    assert_eq!(statuses(&covered), [200, 200, 200]);
    let mut live = Raw::connect("localhost", app.running.port());
    let (head, length) = (operation(&covered), OPERATION.len());
    let line = "POST /graphql/sse HTTP/1.1\r\nHost: localhost";
    live.send(format!("{line}\r\nContent-Length: {length}\r\n{head}\r\n{OPERATION}"));
    assert_eq!(live.read_head().status, 200);
    eventually("a subscriber", || {
        let sent = raw::request("POST", &app.url("/send"), &format!("Content-Length: 0\r\n{covered}"), b"");
        assert_eq!(sent.status, 200, "{}", sent.text());
        (!sent.text().contains(": 0 successful")).then_some(())
    });
    live.read_until(r#""live":"#);
    let other = json!({"subscribe": ["Größe", "/weg%2F*", "/graphql/s%73e"]});
    let other = bearer(&keys.hs256(&claims(other)));
    assert_eq!(statuses(&other), [403, 403, 403]);
    let refused = raw::request("POST", &app.url("/graphql/sse"), &operation(&other), OPERATION.as_bytes());
    assert!(refused.text().contains("the token does not cover /graphql/subscription/live"), "{}", refused.text());
}

#[tokio::test]
async fn a_pattern_covers_a_registrys_events() {
    let keys = Keys::new();
    let registry = services::registry(&format!("--jwt-secret-file {}", keys.file("secret")));
    for (pattern, status, kind) in [("%65vents", 200, "authenticated"), ("/event%2A", 403, "auth_failed")] {
        let token = keys.hs256(&claims(json!({"subscribe": pattern, "username": "ada"})));
        let events = services::at(&registry, "/events");
        assert_eq!(raw::request("GET", &events, &bearer(&token), b"").status, status, "{pattern}");
        let mut reader: Reader = services::listener(&registry).await;
        reader.send(json!({"auth": token}).to_string()).await;
        let said: Value = serde_json::from_str(&reader.text().await).expect("JSON");
        assert_eq!(said["type"], kind, "{pattern}");
    }
}

#[test]
fn who_is_only_a_viewer_changes_no_configuration_in_whatever_shape_that_is_said() {
    let keys = Keys::new();
    let registry = services::registry(&format!("--jwt-secret-file {}", keys.file("secret")));
    let body = json!({"serviceName": "web", "key": "k", "value": 1}).to_string();
    for (said, status) in [
        (json!({"role": "viewer"}), 403),
        (json!({"role": ["viewer"]}), 403),
        (json!({"roles": "viewer"}), 403),
        (json!({"roles": ["viewer"]}), 403),
        (json!({"role": ["viewer"], "roles": null}), 403),
        (json!({"role": 5}), 401),
        (json!({"role": {"viewer": true}}), 401),
        (json!({"role": [["editor"]]}), 401),
        (json!({"roles": {"editor": true}}), 401),
        (json!({"roles": ["viewer", null]}), 401),
        (json!({"role": ["editor"]}), 200),
        (json!({"roles": "editor"}), 200),
        (json!({"role": null}), 200),
    ] {
        let token = bearer(&keys.hs256(&claims(said.clone())));
        let answer = raw::request("POST", &services::at(&registry, "/config/set"), &token, body.as_bytes());
        assert_eq!(answer.status, status, "{said}: {}", answer.text());
    }
}

#[test]
fn what_a_claim_does_not_say_it_does_not_give() {
    let keys = Keys::new();
    let hub = hub(&keys, "");
    let url = format!("http://{}{PATH}", hub.address());
    for (said, reads, publishes) in [
        (json!({}), 200, 403),
        (json!({"subscribe": null, "publish": null}), 403, 403),
        (json!({"subscribe": [], "publish": []}), 403, 403),
        (json!({"subscribe": null, "publish": "*"}), 403, 200),
        (json!({"nbf": null, "aud": null, "relay": null, "roles": null}), 200, 403),
        (json!({"subscribe": {"*": true}}), 401, 401),
        (json!({"subscribe": true, "publish": "*"}), 401, 401),
        (json!({"publish": true}), 401, 401),
        (json!({"relay": "true"}), 401, 401),
    ] {
        let token = bearer(&keys.hs256(&claims(said.clone())));
        assert_eq!((ask("history", &url, &token), ask("POST", &url, &token)), (reads, publishes), "{said}");
    }
}

#[test]
fn a_path_that_a_back_end_takes_for_another_one_is_not_covered() {
    let keys = Keys::new();
    let backend = Server::new().answer_all("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhere");
    let secret = keys.file("secret");
    let balancer = Wsevent::new(["--balance", &format!("http://{backend}"), "--jwt-secret-file", &secret]).serve();
    let status = |token: &str, path: &str, way: &str| ask(way, &format!("http://{}{path}", balancer.address()), token);
    let some = bearer(&keys.hs256(&claims(json!({"subscribe": "/public/*", "publish": "/public/*"}))));
    let all = bearer(&keys.hs256(&claims(json!({"publish": "*"}))));
    for way in ["history", "text/event-stream", "POST"] {
        assert_eq!(status(&some, "/public/a.b", way), 200, "{way}");
        for path in ["/public/../admin", "/public/%2e%2E/admin", "/public/x%2F..%2f../admin", "/public/..%5Cadmin"] {
            assert_eq!(status(&some, path, way), 403, "{way} {path}");
            assert_eq!(status(&all, path, way), 200, "{way} {path}");
        }
    }
}
