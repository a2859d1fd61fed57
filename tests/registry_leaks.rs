//! Nothing leaks: whoever may not hear a registry hears nothing of it, whatever it asks and however.

mod common;
mod services;
mod tokens;

use common::{
    Done, Running, Wsevent,
    raw::{self, Raw},
};
use serde_json::json;
use services::{SECRET, at, post, register, registry};
use std::sync::atomic::{AtomicBool, Ordering};
use tokens::{Keys, claims, now};

/// What no stranger may see anywhere.
const HIDDEN: &str = "hidden";

/// A way to listen: from a token's header line to everything that came.
type Way = fn(&Running, &str) -> String;

/// Asks and reads until the server ends the connection.
fn asked(registry: &Running, path: &str, headers: &str) -> String {
    let mut raw = Raw::connect("localhost", registry.port());
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"));
    String::from_utf8_lossy(&raw.read_to_end()).into_owned()
}

fn upgraded(registry: &Running, path: &str, headers: &str) -> String {
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut raw = Raw::connect("localhost", registry.port());
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n{upgrade}{headers}\r\n"));
    String::from_utf8_lossy(&raw.read_to_end()).into_owned()
}

const WAYS: [(&str, Way); 9] = [
    ("the WebSocket at /", |registry, token| upgraded(registry, "/", token)),
    ("its whole past", |registry, token| upgraded(registry, "/?since=oldest", token)),
    ("a plain WebSocket", |registry, token| upgraded(registry, "/events?since=oldest", token)),
    ("a link", |registry, token| {
        upgraded(registry, "/events?since=oldest", &format!("Sec-WebSocket-Protocol: wsevent.v1\r\n{token}"))
    }),
    ("CloudEvents", |registry, token| {
        upgraded(registry, "/?since=oldest", &format!("Sec-WebSocket-Protocol: cloudevents.json\r\n{token}"))
    }),
    ("SSE", |registry, token| {
        asked(registry, "/events?since=oldest", &format!("Accept: text/event-stream\r\n{token}"))
    }),
    ("NDJSON", |registry, token| {
        asked(registry, "/events?since=oldest", &format!("Accept: application/x-ndjson\r\n{token}"))
    }),
    ("history", |registry, token| asked(registry, "/events?since=0", token)),
    ("a long poll", |registry, token| asked(registry, "/events?since=oldest&poll=1&wait=100ms", token)),
];

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A registry that has told something, and tells more; a message of its WebSocket must come soon.
fn guarded(keys: &Keys) -> Running {
    let registry = registry(&format!("--jwt-secret-file {} --auth-deadline 300ms", keys.write("own", SECRET)));
    register(&registry, HIDDEN, 1);
    registry
}

/// Header lines that are no good token.
fn strangers(keys: &Keys) -> Vec<(&'static str, String)> {
    let admin = |exp: u64| json!({"username": "eve", "role": "admin", "exp": exp});
    let good = keys.sign("HS256", SECRET, json!({}), &admin(now() + 60));
    let (head, rest) = good.split_once('.').expect("parts");
    let body = rest.split_once('.').expect("parts").0;
    let none = data_encoding::BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"none"}"#);
    vec![
        ("nothing", String::new()),
        ("garbage", bearer("garbage")),
        ("expired", bearer(&keys.sign("HS256", SECRET, json!({}), &admin(now() - 60)))),
        ("no end", bearer(&keys.sign("HS256", SECRET, json!({}), &json!({"username": "eve", "role": "admin"})))),
        (
            "another key",
            bearer(&keys.sign("HS256", "another secret that is long enough", json!({}), &admin(now() + 60))),
        ),
        ("no algorithm", bearer(&format!("{none}.{body}."))),
        ("no signature", bearer(&format!("{head}.{body}."))),
        ("another path", bearer(&keys.sign("HS256", SECRET, json!({}), &claims(json!({"subscribe": ["/elsewhere"]}))))),
        ("a header of its own", "X-Token: none\r\n".into()),
        ("a cookie", "Cookie: wsevent_token=garbage\r\n".into()),
        ("a subprotocol", "Sec-WebSocket-Protocol: bearer.garbage\r\n".into()),
    ]
}

#[test]
fn a_stranger_hears_nothing_on_any_protocol() {
    let keys = Keys::new();
    let registry = guarded(&keys);
    let strangers = strangers(&keys);
    std::thread::scope(|scope| {
        for (how, way) in WAYS {
            let (registry, strangers) = (&registry, &strangers);
            scope.spawn(move || {
                for (who, token) in strangers {
                    let heard = way(registry, token);
                    assert!(!heard.contains(HIDDEN), "{who} by {how}: {heard}");
                    let refused =
                        ["HTTP/1.1 401", "HTTP/1.1 403", "HTTP/1.1 101"].iter().any(|status| heard.starts_with(status));
                    assert!(refused, "{who} by {how}: {heard}");
                }
            });
        }
        // Things happen meanwhile, too.
        for port in 2..100 {
            register(&registry, HIDDEN, port);
        }
    });
    // Each way shows it to who may see it: the table is not empty.
    std::thread::scope(|scope| {
        for (how, way) in WAYS.into_iter().filter(|(how, _)| *how != "the WebSocket at /") {
            let viewer = json!({"username": "ada", "role": "viewer", "exp": now() + 5});
            let (registry, good) = (&registry, bearer(&keys.sign("HS256", SECRET, json!({}), &viewer)));
            scope.spawn(move || assert!(way(registry, &good).contains(HIDDEN), "{how}"));
        }
    });
}

/// What mosquitto's client says that subscribes to everything with this token as its password.
fn by_mqtt(registry: &Running, token: &str, options: &str) -> Done {
    let port = registry.port_of("mqtt").to_string();
    let client = Wsevent::program("mosquitto_sub").args(["-p", &port, "-t", "#", "-t", "maxine/#", "-W", "3"]);
    let client = client.args(options.split_whitespace());
    if token.is_empty() { client.run() } else { client.args(["-u", "eve", "-P", token]).run() }
}

#[test]
fn a_stranger_hears_nothing_over_mqtt() {
    let keys = Keys::new();
    let registry = registry(&format!("--jwt-secret-file {} --mqtt-listen localhost:0", keys.write("own", SECRET)));
    let good = keys.sign("HS256", SECRET, json!({}), &json!({"username": "ada", "role": "viewer", "exp": now() + 60}));
    let strangers = strangers(&keys);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                register(&registry, HIDDEN, 1);
                post(&registry, "/heartbeat", &json!({"nodeId": format!("{HIDDEN}:localhost:1")}));
            }
        });
        let mut leaks = Vec::new();
        for (who, header) in &strangers {
            let token = header.trim_end().rsplit([' ', '=']).next().unwrap_or_default();
            for version in ["-V 311", "-V 5"] {
                let done = by_mqtt(&registry, token, version);
                if done.code == 0 || done.stdout.contains(HIDDEN) {
                    leaks.push(format!("{who} with {version}: {done:?}"));
                }
            }
        }
        let admitted = by_mqtt(&registry, &good, "-C 1");
        stop.store(true, Ordering::Relaxed);
        assert_eq!(leaks, Vec::<String>::new());
        assert!(admitted.stdout.contains(HIDDEN), "{admitted:?}");
    });
}

#[test]
fn a_message_that_is_no_token_ends_the_connection_unheard() {
    let keys = Keys::new();
    let registry = guarded(&keys);
    for (who, token) in strangers(&keys) {
        let token = token.trim_end().rsplit(' ').next().unwrap_or_default().to_owned();
        for message in [
            json!({"auth": token}).to_string(),
            json!({"auth": token, "subscribe": true}).to_string(),
            json!({"subscribe": {"event": "service_registered"}}).to_string(),
            json!({"resume": "oldest"}).to_string(),
            token,
        ] {
            let mut raw = Raw::websocket(&at(&registry, "/?since=oldest"));
            raw.send_frame(&raw::Frame::new(raw::TEXT, message.as_bytes()));
            register(&registry, HIDDEN, 2);
            post(&registry, "/deregister", &json!({"nodeId": format!("{HIDDEN}:localhost:2")}));
            let heard = String::from_utf8_lossy(&raw.read_to_end()).into_owned();
            assert!(!heard.contains(HIDDEN) && heard.contains("auth_"), "{who} {message}: {heard}");
        }
    }
}

#[test]
fn a_viewer_hears_nothing_that_is_for_admins() {
    let keys = Keys::new();
    let registry = guarded(&keys);
    let token = keys.sign("HS256", SECRET, json!({}), &json!({"username": "bob", "role": "viewer", "exp": now() + 60}));
    let mut raw = Raw::websocket_with(&at(&registry, "/"), &bearer(&token)).0;
    assert!(raw.read_message().is_some_and(|message| message.text().contains("authenticated")));
    for pattern in [json!("admin_event"), json!({"event": "admin_x"}), json!([{"event": ["a", "admin_b"]}])] {
        raw.send_frame(&raw::Frame::new(raw::TEXT, json!({"subscribe": pattern}).to_string()));
        let answer = raw.read_message().expect("an answer").text();
        assert_eq!(answer, r#"{"type":"error","message":"Insufficient permissions"}"#, "{pattern}");
    }
    let named = asked(&registry, "/events?event=admin_event", &bearer(&token));
    assert!(named.ends_with("[]"), "{named}");
}
