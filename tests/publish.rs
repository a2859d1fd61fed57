//! What is said to a hub: bodies of every kind, keys against saying it twice, CloudEvents, and what is refused.

mod common;
mod link;

use common::{
    Wsevent, eventually,
    raw::{self, Answer, Frame, Raw, TEXT},
};
use serde_json::{Value, json};

const LINES: &str = "Content-Type: application/x-ndjson\r\n";
const CLOUD_EVENT: &str = "Content-Type: application/cloudevents+json; charset=utf-8\r\n";
const CLOUD_EVENTS: &str = "Content-Type: application/cloudevents-batch+json\r\n";

fn post(url: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
    raw::request("POST", url, headers, body.as_ref())
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn accepted(url: &str, headers: &str, body: impl AsRef<[u8]>) -> Value {
    let answer = post(url, headers, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    json_of(&answer)
}

fn refused(url: &str, headers: &str, body: impl AsRef<[u8]>) -> (u16, String) {
    let answer = post(url, headers, body);
    (answer.status, json_of(&answer)["error"].as_str().expect("an error").to_owned())
}

fn history(url: &str) -> Value {
    json_of(&raw::get(url))
}

/// The retained events as NDJSON tells them.
fn told(url: &str, n: usize) -> Vec<Value> {
    let (host, port, path) = raw::split_url(url);
    let mut raw = Raw::connect(&host, port);
    let query = "?since=oldest";
    raw.send(format!("GET {path}{query} HTTP/1.0\r\nHost: {host}\r\nAccept: application/x-ndjson\r\n\r\n"));
    raw.read_head();
    (0..n).map(|_| serde_json::from_str(&raw.read_until("\n")).expect("JSON")).collect()
}

#[test]
fn the_answer_says_what_it_is_called_and_whom_it_reached() {
    let hub = Wsevent::line("--no-produce").serve();
    let _reader = Raw::websocket(&format!("{}?room=a", hub.ws_url()));
    let _other = Raw::websocket(&hub.ws_url());
    hub.has("readers", 2);
    let one = accepted(hub.url(), "", "one");
    assert!(one["id"].as_str().is_some_and(|id| id.ends_with("-1")), "{one}");
    assert_eq!((&one["readers"], one.as_object().map(|one| one.len())), (&json!(2), Some(2)));
    let addressed = accepted(&format!("{}?room=a", hub.url()), "", "two");
    assert_eq!(addressed["readers"], 1);
    let many = accepted(hub.url(), LINES, "{\"a\": 1}\n\n not json \r\n3");
    let number = |name: &str| many[name].as_str().and_then(|id| id.rsplit('-').next()?.parse::<u64>().ok());
    assert_eq!((number("first"), number("id"), &many["count"]), (Some(3), Some(5), &json!(3)));
    assert_eq!(history(hub.url()), json!(["one", {"a": 1}, " not json \r", 3]), "{many}");
}

#[test]
fn type_time_and_id_come_as_headers() {
    let hub = Wsevent::line("--no-produce").serve();
    let headers = "Event-Type: alert\r\nEvent-Time: 1700000000000\r\nEvent-Id: mine\r\n";
    accepted(hub.url(), &format!("{headers}{LINES}"), "1\n2");
    for line in told(hub.url(), 2) {
        assert_eq!((&line["type"], &line["time"]), (&json!("alert"), &json!(1_700_000_000_000_u64)));
    }
    for (name, bad) in [
        ("Event-Type", "a\tb"),
        ("Event-Type", ""),
        ("Event-Id", "\u{85}"),
        ("Event-Time", "yesterday"),
        ("Event-Time", "-1"),
        ("Idempotency-Key", "a\tb"),
        ("Idempotency-Key", &"k".repeat(256)),
    ] {
        let (status, error) = refused(hub.url(), &format!("{name}: {bad}\r\n"), "x");
        assert_eq!((status, error), (400, format!("Invalid {}", name.to_lowercase())), "{bad:?}");
    }
    // What would end a header is no request at all.
    for bad in ["Event-Type: a\0b\r\n", "Event-Id: a\rb\r\n"] {
        assert_eq!(post(hub.url(), bad, "x").status, 400, "{bad:?}");
    }
    assert_eq!(history(hub.url()), json!([1, 2]));
}

#[test]
fn what_is_said_twice_under_a_key_is_published_once() {
    let hub = Wsevent::line("--no-produce --history 3").serve();
    let key = |key: &str| format!("Idempotency-Key: {key}\r\n");
    let first = accepted(hub.url(), &key("a"), "one");
    assert_eq!(accepted(hub.url(), &key("a"), "one"), first);
    let many = accepted(hub.url(), &format!("{}{LINES}", key("b")), "two\nthree");
    assert_eq!(accepted(hub.url(), &format!("{}{LINES}", key("b")), "two\nthree"), many);
    assert_eq!(history(hub.url()), json!(["one", "two", "three"]));
    for (headers, query) in [(key("a"), ""), (format!("{}Event-Type: x\r\n", key("a")), ""), (key("a"), "?to=me")] {
        let body = if headers.len() + query.len() == key("a").len() { "other" } else { "one" };
        assert_eq!(refused(&format!("{}{query}", hub.url()), &headers, body).0, 422, "{headers} {query}");
    }
    // Behind the window a key is forgotten with its event.
    for event in ["4", "5", "6", "7"] {
        accepted(hub.url(), "", event);
    }
    assert_ne!(accepted(hub.url(), &key("a"), "one")["id"], first["id"]);
    assert_eq!(history(hub.url()), json!([6, 7, "one"]));
}

#[test]
fn many_who_say_the_same_at_once_are_published_once() {
    let hub = Wsevent::line("--no-produce").serve();
    let lines: String = (0..2000).map(|n| format!("{n}\n")).collect();
    let said = || {
        eventually("an answer", || {
            let answer = post(hub.url(), &format!("Idempotency-Key: k\r\n{LINES}"), &lines);
            assert!(matches!(answer.status, 200 | 409), "{}", answer.text());
            (answer.status == 200).then(|| json_of(&answer))
        })
    };
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(said)).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer["count"] == 2000), "{answers:?}");
    assert_eq!(hub.topic()["events"], 2000);
}

#[test]
fn cloud_events_go_in() {
    let hub = Wsevent::line("--no-produce").serve();
    let event = |id: &str, data: Value| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t", "time": "2023-11-14T22:13:20Z", "data": data});
    accepted(hub.url(), CLOUD_EVENT, event("1", json!({"a": [1]})).to_string());
    let many = json!([event("2", json!(2)), event("3", json!("three"))]);
    assert_eq!(accepted(hub.url(), CLOUD_EVENTS, many.to_string())["count"], 2);
    assert_eq!(history(hub.url()), json!([{"a": [1]}, 2, "three"]));
    for line in told(hub.url(), 3) {
        assert_eq!((&line["type"], &line["time"]), (&json!("t"), &json!(1_700_000_000_000_u64)));
    }
    let wrong = event("1", json!(1)).to_string();
    for (headers, body, why) in [
        (CLOUD_EVENT, wrong.replace("\"1\"", "\"a\\u0000\""), "id"),
        (CLOUD_EVENT, wrong.replace("\"t\"", "\"a\\r\\n\""), "type"),
        (CLOUD_EVENT, wrong.replace("source", "sauce"), "source"),
        (CLOUD_EVENT, "{}".into(), "specversion"),
        (CLOUD_EVENT, many.to_string(), "object"),
        (CLOUD_EVENTS, wrong.clone(), "array"),
        (CLOUD_EVENTS, format!("[{wrong},5]"), "object"),
        (CLOUD_EVENTS, "[]".into(), "no event"),
    ] {
        let (status, error) = refused(hub.url(), headers, &body);
        assert!(status == 400 && error.contains(why), "{body}: {status} {error}");
    }
    assert_eq!(hub.topic()["events"], 3, "nothing of a batch that is refused");
}

#[test]
fn what_is_too_large_is_413() {
    let hub = Wsevent::line("--no-produce --max-message 1KiB").serve();
    let (most, more) = ("x".repeat(1024), "x".repeat(1025));
    accepted(hub.url(), "", &most);
    accepted(hub.url(), LINES, format!("{most}\n{most}"));
    assert_eq!(refused(hub.url(), "", &more).0, 413);
    assert_eq!(refused(hub.url(), LINES, format!("1\n{more}")).0, 413, "no line of it");
    assert_eq!(refused(hub.url(), LINES, "\n \n").0, 400);
    assert_eq!(hub.topic()["events"], 3);
}

#[test]
fn pages_of_allowed_origins_may_publish_and_read_the_answer() {
    let hub = Wsevent::line("--no-produce --allow-origin https://app.test").serve();
    let (app, evil) = ("Origin: https://app.test\r\n", "Origin: https://evil.test\r\n");
    let asks = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: idempotency-key\r\n";
    let preflight = raw::request("OPTIONS", hub.url(), &format!("{app}{asks}"), b"");
    let list = |name: &str| preflight.header(name).unwrap_or_default().to_lowercase();
    assert_eq!(preflight.status, 204);
    for name in ["last-event-id", "authorization", "content-type", "event-type", "idempotency-key"] {
        assert!(list("access-control-allow-headers").split(", ").any(|allowed| allowed == name), "{name}");
    }
    assert!(list("access-control-allow-methods").contains("post"));
    for (origin, body, status) in [(app, "x", 200), (app, "", 200), (evil, "x", 403)] {
        let answer = post(hub.url(), origin, body);
        assert_eq!(answer.status, status);
        let allowed = (status == 200).then_some("https://app.test");
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{origin}");
    }
    let refused = post(hub.url(), &format!("{app}Event-Time: x\r\n"), "x");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (400, Some("https://app.test")));
    let page = raw::request("GET", hub.url(), app, b"");
    assert!(page.header("access-control-expose-headers").is_some_and(|names| names.contains("Wsevent-Position")));
    let foreign = raw::request("OPTIONS", hub.url(), &format!("{evil}{asks}"), b"");
    assert_eq!(foreign.header("access-control-allow-headers"), None);
}

#[test]
fn cloud_events_come_out_over_a_websocket_that_asks_for_them() {
    let hub = Wsevent::line("--no-produce").serve();
    let asks = "Sec-WebSocket-Protocol: mqtt, cloudevents.json\r\n";
    let (mut cloud, answer) = Raw::websocket_with(&hub.ws_url(), asks);
    assert_eq!(answer.header("sec-websocket-protocol"), Some("cloudevents.json"));
    let mut plain = Raw::websocket(&hub.ws_url());
    let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "x", "data": {"a": 1}});
    cloud.send_frame(&Frame::new(TEXT, event.to_string()));
    assert_eq!(plain.read_message().expect("an event").text(), r#"{"a":1}"#);
    let mut echo: Value = serde_json::from_str(&cloud.read_message().expect("an event").text()).expect("JSON");
    let position = echo["wseventid"].take();
    for (name, value) in event.as_object().expect("an object") {
        assert_eq!(&echo[name], value, "{name}");
    }
    accepted(hub.url(), "", b"\xff\x00");
    let binary: Value = serde_json::from_str(&cloud.read_message().expect("an event").text()).expect("JSON");
    assert_eq!((&binary["data_base64"], &binary["type"]), (&json!("/wA="), &json!("message")));
    let after = format!("{}?since={}", hub.ws_url(), position.as_str().expect("a position"));
    let (mut resumed, _) = Raw::websocket_with(&after, asks);
    assert_eq!(resumed.read_message().expect("an event").text(), binary.to_string());
    cloud.send_frame(&Frame::new(TEXT, "{}"));
    assert_eq!(cloud.read_close().map(|close| close.close_code()), Some(1007));
}

#[test]
fn an_envelope_is_put_around_what_every_reader_gets_except_hops() {
    let hub = Wsevent::line("--no-produce --envelope cloudevents").serve();
    let id = accepted(hub.url(), "Event-Type: alert\r\n", r#"{"a":  1}"#)["id"].clone();
    let is_it = |text: &str| {
        let event: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!((&event["type"], &event["data"], &event["wseventid"]), (&json!("alert"), &json!({"a": 1}), &id));
        assert!(text.contains(r#""data":{"a":  1}}"#), "as it was written: {text}");
    };
    let since = format!("{}?since=oldest", hub.ws_url());
    is_it(&Raw::websocket(&since).read_message().expect("an event").text());
    is_it(&told(hub.url(), 1)[0].to_string().replace(r#"{"a":1}}"#, r#"{"a":  1}}"#));
    let page = raw::get(hub.url()).text();
    is_it(page.trim_start_matches('[').trim_end_matches(']'));
    let mut sse = link::Sse::open(&format!("{}?since=oldest", hub.url()));
    is_it(&sse.event().expect("an event").1);
    let mut hop = link::Link::open(&since);
    assert_eq!(hop.event().1, r#"{"a":  1}"#);
    let consume = ["--consume", &hub.ws_url(), "--no-serve", "--since", "oldest", "--count", "1"];
    assert_eq!(Wsevent::new(consume).run().stdout, "{\"a\":  1}\n");
    is_it(Wsevent::new(consume).args(["--envelope", "cloudevents"]).run().stdout.trim_end());
    let both = Wsevent::new(consume).args(["--envelope", "cloudevents", "--output", "sse"]).run();
    assert_eq!(both.code, 2, "{}", both.stderr);
}
