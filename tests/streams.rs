//! Named streams and selective sends: who gets what, who is counted, and how they are asked for.

mod common;
mod link;
mod scripted;

use common::{
    eventually,
    raw::{self, Answer, PING, PONG, Raw},
};
use link::{Block, Link, Said, Sse};
use scripted::{Scripted, said};
use serde_json::{Value, json};

/// Sends what is posted: `{path | name, data, filter}`.
const SENDER: &str = r#"
routeRegistry.registerStreamRoute("/s");
graphQLRegistry.registerSubscription("live", "type Subscription { live: String }");
function send(context) {
  const { path, name, data, filter } = JSON.parse(context.request.body);
  return path
    ? routeRegistry.sendStreamMessageFiltered(path, data, filter)
    : graphQLRegistry.sendSubscriptionMessageFiltered(name, data, filter);
}
routeRegistry.registerRoute("/send", "send", "POST");
"#;

/// What a send says about itself.
fn send(app: &Scripted, what: Value) -> String {
    let answer = app.send("/send", "application/json", &what.to_string());
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    answer.text()
}

fn told(name: &str, successful: usize) -> String {
    format!("Broadcast to '{name}': {successful} successful, 0 failed ({successful} matching)")
}

/// One reader of each kind with the same metadata: two of the stream, two of the subscription.
struct Readers {
    sse: Sse,
    socket: Raw,
    direct: Sse,
    operation: Sse,
}

impl Readers {
    fn open(app: &Scripted, query: &str) -> Self {
        let with = |path: &str, separator: &str| match query {
            "" => app.url(path),
            query => format!("{}{separator}{query}", app.url(path)),
        };
        let socket = Raw::websocket(&with("/s", "?"));
        let operation = Sse::open(&with("/graphql/sse?query=subscription%7Blive%7D", "&"));
        Readers {
            sse: Sse::open(&with("/s", "?")),
            socket,
            direct: Sse::open(&with("/graphql/subscription/live", "?")),
            operation,
        }
    }

    /// What each got before the text `end`.
    fn heard(&mut self) -> [Vec<String>; 4] {
        let until_end = |next: &mut dyn FnMut() -> String| {
            let next = std::iter::from_fn(|| Some(next()).filter(|text| text != "end"));
            next.collect::<Vec<_>>()
        };
        let operation = || {
            let result: Value = serde_json::from_str(&data(&mut self.operation)).expect("JSON");
            result["data"]["live"].as_str().expect("a string").to_owned()
        };
        [
            until_end(&mut || data(&mut self.sse)),
            until_end(&mut || self.socket.read_message().expect("a message").text()),
            until_end(&mut || data(&mut self.direct)),
            until_end(&mut { operation }),
        ]
    }
}

fn data(stream: &mut Sse) -> String {
    loop {
        if let Block { data: Some(data), .. } = stream.block().expect("an event") {
            return data;
        }
    }
}

/// Sends to the stream and to the subscription; both reach two readers for each that matches.
fn send_both(app: &Scripted, data: &str, filter: &Value, matching: usize) {
    for (key, name) in [("path", "/s"), ("name", "live")] {
        let what = json!({ key: name, "data": data, "filter": filter });
        assert_eq!(send(app, what.clone()), told(name, 2 * matching), "{what}");
    }
}

#[test]
fn the_truth_table_holds_on_every_protocol() {
    let app = Scripted::serve(SENDER);
    let metadata = ["", "user_id=u1", "user_id=u1&room=g", "user_id=u2"];
    let mut readers = metadata.map(|query| Readers::open(&app, query));
    let table = [
        (json!("{}"), [true, true, true, true]),
        (json!(""), [true, true, true, true]),
        (json!(null), [true, true, true, true]),
        (json!({}), [true, true, true, true]),
        (json!(r#"{"user_id":"u1"}"#), [false, true, true, false]),
        (json!({"user_id": "u1", "room": "g"}), [false, false, true, false]),
        (json!({"room": "g"}), [false, false, true, false]),
        (json!({"user_id": "u3"}), [false, false, false, false]),
        (json!({"User_id": "u1"}), [false, false, false, false]),
        (json!({"user_id": "U1"}), [false, false, false, false]),
    ];
    for (i, (filter, sees)) in table.iter().enumerate() {
        send_both(&app, &format!("m{i}"), filter, sees.iter().filter(|sees| **sees).count());
    }
    send_both(&app, "end", &Value::Null, 4);
    for (reader, readers) in readers.iter_mut().enumerate() {
        let expected: Vec<String> =
            table.iter().enumerate().filter(|(_, (_, sees))| sees[reader]).map(|(i, _)| format!("m{i}")).collect();
        for heard in readers.heard() {
            assert_eq!(heard, expected, "{:?}", metadata[reader]);
        }
    }
}

#[test]
fn metadata_is_decoded_as_forms_are() {
    let app = Scripted::serve(SENDER);
    for (query, filter) in [
        ("room=a+b", json!({"room": "a b"})),
        ("room=a%2Bb", json!({"room": "a+b"})),
        ("room=a%20b", json!({"room": "a b"})),
        ("name=%C3%A9%F0%9F%98%80", json!({"name": "é😀"})),
        ("k=", json!({"k": ""})),
        ("k", json!({"k": ""})),
        ("a=1&a=2", json!({"a": "2"})),
        ("&&a=1&", json!({"a": 1})),
        ("b=false&n=5", json!({"b": false, "n": 5})),
        ("since=x&match=1&limit=y&last_event_id=z", json!({"since": "x", "match": "1", "last_event_id": "z"})),
        ("a%3Db=c%26d", json!({"a=b": "c&d"})),
    ] {
        let mut readers = Readers::open(&app, query);
        send_both(&app, "hit", &filter, 1);
        let mut missed = filter.clone();
        for (_, value) in missed.as_object_mut().expect("an object").iter_mut().take(1) {
            *value = "another".into();
        }
        send_both(&app, "miss", &missed, 0);
        send_both(&app, "end", &filter, 1);
        for heard in readers.heard() {
            assert_eq!(heard, ["hit"], "{query}");
        }
        drop(readers);
        // Who has left is not counted, and nothing had to fail for that.
        eventually("nobody", || {
            let none = |key: &str, name: &str| send(&app, json!({ key: name, "data": "gone" })) == told(name, 0);
            (none("path", "/s") && none("name", "live")).then_some(())
        });
    }
}

#[test]
fn a_filter_that_cannot_be_read_throws_and_reaches_nobody() {
    let app = Scripted::serve(SENDER);
    let mut readers = Readers::open(&app, "a=1");
    for filter in
        [json!("{"), json!("[]"), json!("5"), json!("null"), json!("{\"a\":null}"), json!({"a": [1]}), json!({"a": {}})]
    {
        for (key, name) in [("path", "/s"), ("name", "live")] {
            let what = json!({ key: name, "data": "secret", "filter": filter }).to_string();
            assert_eq!(app.send("/send", "application/json", &what).status, 500, "{what}");
        }
    }
    send_both(&app, "end", &json!({"a": 1}), 1);
    assert_eq!(readers.heard(), [const { Vec::<String>::new() }; 4]);
}

#[test]
fn positions_count_what_each_reader_got() {
    let app = Scripted::serve_with(SENDER, "--ping-interval 1s");
    let (mut link, mut socket) = (Link::open(&app.url("/s")), Raw::websocket(&app.url("/s?u=1")));
    let mut other = app.sse("/s?u=2");
    let to = [
        json!({"u": 1}),
        json!({"u": 2}),
        json!({}),
        json!({"u": 1}),
        json!({"u": 3}),
        json!({"u": 2}),
        json!({"u": 1}),
    ];
    for (i, filter) in to.iter().enumerate() {
        send(&app, json!({"path": "/s", "data": i.to_string(), "filter": filter}));
    }
    // A link from this machine gets everything, with its audience; it holds each position to what it has counted.
    assert_eq!(link.texts(to.len()), (0..to.len()).map(|i| i.to_string()).collect::<Vec<_>>());
    assert_eq!(other.texts(3), ["1", "2", "5"]);
    let mut got = Vec::new();
    let n = loop {
        let frame = socket.read_frame().expect("a frame");
        match frame.opcode {
            PING if got.len() == 4 => break frame.text().split(' ').nth(3).map(String::from),
            PING => socket.send_frame(&raw::Frame::new(PONG, frame.payload)),
            _ => got.push(frame.text()),
        }
    };
    assert_eq!((got, n.as_deref()), (["0", "2", "3", "6"].map(String::from).to_vec(), Some("4")));
    while !matches!(link.hear(), Said::Position { n, .. } if n == to.len() as u64) {}
    send(&app, json!({"path": "/s", "data": "last", "filter": {"u": "1"}}));
    assert_eq!((link.event().1.as_str(), socket.read_message().expect("a message").text().as_str()), ("last", "last"));
}

/// A GET of a stream with these headers, on a connection that stays open.
fn ask(app: &Scripted, path: &str, headers: &str) -> (Answer, Raw) {
    let mut raw = Raw::connect("localhost", app.running.port());
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
    (raw.read_head(), raw)
}

#[test]
fn whoever_comes_gets_the_stream() {
    let app = Scripted::serve(SENDER);
    for headers in [
        "",
        "Accept: */*\r\n",
        "Accept: text/html\r\n",
        "Accept: text/event-stream\r\n",
        "Origin: http://elsewhere.example\r\n",
    ] {
        let (answer, mut raw) = ask(&app, "/s?since=never&match=nothing", headers);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")), "{headers}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{headers}");
        assert_eq!(answer.header("x-accel-buffering"), Some("no"));
        send(&app, json!({"path": "/s", "data": {"a": [1]}}));
        let event = raw.read_until("data: {\"a\":[1]}\n\n");
        assert!(!event.contains("event:"), "{event}");
    }
    let (lines, mut raw) = ask(&app, "/s", "Accept: application/x-ndjson\r\n");
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    send(&app, json!({"path": "/s", "data": "line"}));
    raw.read_until("\"line\"");
    let page = raw::request("GET", &app.url("/s"), "Accept: application/json\r\n", b"");
    assert_eq!((page.status, page.header("access-control-allow-origin")), (200, Some("*")));
    assert!(
        serde_json::from_slice::<Vec<Value>>(&page.body).is_ok_and(|page| page.contains(&json!("line"))),
        "{page:?}"
    );
}

#[test]
fn pages_elsewhere_are_named_or_all_may_read() {
    let asked = "Origin: http://there.example\r\nAccess-Control-Request-Method: GET\r\n";
    let app = Scripted::serve(SENDER);
    for path in ["/s", "/graphql/sse", "/graphql/subscription/live"] {
        let answer = raw::request("OPTIONS", &app.url(path), asked, b"");
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("*")), "{path}");
    }
    let app = Scripted::serve_with(SENDER, "--allow-origin http://there.example");
    for path in ["/s", "/graphql/sse", "/graphql/subscription/live"] {
        let (answer, _) = ask(&app, path, asked);
        assert_eq!(answer.header("access-control-allow-origin"), Some("http://there.example"), "{path}");
        let (answer, _) = ask(&app, path, "Origin: http://other.example\r\n");
        assert_eq!(answer.status, 403, "{path}");
    }
}

#[test]
fn who_comes_back_gets_the_rest_that_is_meant_for_it() {
    let app = Scripted::serve(SENDER);
    let mut stream = app.sse("/s?u=1");
    send(&app, json!({"path": "/s", "data": "one"}));
    let (id, first) = stream.event().expect("an event");
    assert_eq!(first, "one");
    drop(stream);
    for (data, to) in [("two", "1"), ("other", "2"), ("three", "1")] {
        send(&app, json!({"path": "/s", "data": data, "filter": {"u": to}}));
    }
    assert_eq!(Sse::after(&app.url("/s?u=1"), &id).texts(2), ["two", "three"]);
    // Who comes without a position gets nothing of before.
    let mut fresh = app.sse("/s?u=1");
    send(&app, json!({"path": "/s", "data": "now"}));
    assert_eq!(fresh.event().expect("an event").1, "now");
}

#[test]
fn who_does_not_keep_up_has_failed_and_is_gone() {
    let app = Scripted::serve_with(SENDER, "--history-bytes 4MiB --max-message 2MiB");
    let healthy = app.url("/s?who=healthy");
    let mut stream = Sse::open(&healthy);
    let (answer, stalled) = ask(&app, "/s?who=stalled", "");
    assert_eq!(answer.status, 200);
    let large = "x".repeat(100 << 10);
    let failed = (0..1000).find_map(|_| {
        let counts = send(&app, json!({"path": "/s", "data": large, "filter": {"who": "stalled"}}));
        (!counts.contains(": 1 successful, 0 failed (1 matching)")).then_some(counts)
    });
    assert_eq!(failed.as_deref(), Some("Broadcast to '/s': 0 successful, 1 failed (1 matching)"));
    eventually("the slow reader is sent away", || {
        let counts = send(&app, json!({"path": "/s", "data": "x", "filter": {"who": "stalled"}}));
        (counts == told("/s", 0)).then_some(())
    });
    drop(stalled);
    assert_eq!(send(&app, json!({"path": "/s", "data": "well"})), told("/s", 1));
    assert_eq!(stream.event().expect("an event").1, "well");
}

#[test]
fn a_burst_of_one_call_reaches_a_healthy_reader_whole() {
    let source = format!(
        "{SENDER}\nregister('/burst', 'burst', 'POST');\nfunction burst() {{ for (let i = 0; i < 5000; i++) sendStreamMessage({{ i }}); }}"
    );
    let app = Scripted::serve(&source);
    let mut stream = app.sse("/s");
    assert_eq!(said(&app.post("/burst")).0, 200);
    for i in 0..5000 {
        assert_eq!(stream.event().expect("an event").1, json!({ "i": i }).to_string());
    }
}
