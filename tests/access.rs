//! Who may read, publish and connect: tokens of every kind, their end, TLS of both sides, and what is not told.

mod certs;
mod common;
mod link;
mod rights;
mod tokens;

use certs::{Authority, Identity, Kind};
use common::{
    Done, PATIENCE, Running, Scratch, Wsevent, bash,
    door::{self, Door},
    eventually,
    raw::{self, Answer, Frame, Raw, TEXT},
    run,
};
use link::{Link, Said};
use rights::{Need, Way};
use serde_json::{Value, json};
use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};
use tokens::{Keys, STATIC, claims, now};

/// A hub that wants tokens, and its plain URL, which is a door in front of TLS if asked for.
struct Hub {
    running: Running,
    url: String,
}

impl Hub {
    fn new(keys: &Keys, options: &str, tls: bool) -> Self {
        let line = Wsevent::line(&format!("-vv --no-produce {options}")).args(keys.args());
        let running = if tls { line.args(door::args()).serve() } else { line.serve() };
        let url = match running.url().starts_with("https:") {
            true => format!("http://localhost:{}/events", Door::open(running.port()).port),
            false => running.url().to_owned(),
        };
        Hub { running, url }
    }

    fn publish(&self, event: &str) {
        let answer = raw::request("POST", &self.url, &bearer(STATIC), event.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn at(&self, path: &str) -> String {
        self.url.replace("/events", path)
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// How a topic may be asked for: the answer to each way, by name.
fn ask(way: &str, url: &str, headers: &str) -> Answer {
    match way {
        "websocket" => Raw::ask_websocket(url, headers).1,
        "link" => Raw::ask_websocket(url, &format!("Sec-WebSocket-Protocol: wsevent.v1\r\n{headers}")).1,
        "POST" => raw::request("POST", url, headers, b"forged"),
        "history" => raw::request("GET", url, headers, b""),
        "HEAD" => raw::request("HEAD", url, headers, b""),
        "DELETE" => raw::request("DELETE", url, headers, b""),
        // A stream goes on: only its head is waited for.
        accept => {
            let (host, port, path) = raw::split_url(url);
            let mut raw = Raw::connect(&host, port);
            raw.send(format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: {accept}\r\n{headers}\r\n"));
            raw.read_head()
        }
    }
}

const SSE: &str = "text/event-stream";
const NDJSON: &str = "application/x-ndjson";
const WAYS: [&str; 8] = ["websocket", "link", SSE, NDJSON, "history", "HEAD", "DELETE", "POST"];

#[test]
fn every_wrong_token_is_401_whatever_is_asked_for() {
    let keys = Keys::new();
    let hub = Hub::new(&keys, "", false);
    let wrong: Vec<_> = keys.wrong().into_iter().map(|(what, token)| (what, bearer(&token))).collect();
    let missing = [("missing", String::new()), ("another scheme", "Authorization: Basic YTpi\r\n".into())];
    for (what, headers) in wrong.into_iter().chain(missing) {
        for path in ["/events", "/-/status", "/nothing-here", "/-/nothing"] {
            // One way tells as much as all of them, except on the topic.
            for way in WAYS.iter().filter(|way| path == "/events" || **way == "history") {
                let answer = ask(way, &hub.at(path), &headers);
                assert_eq!(answer.status, 401, "{what}: {way} {path}: {answer:?}");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}: {way} {path}");
                if *way == "history" {
                    assert_eq!(answer.text(), r#"{"error":"a valid token is needed"}"#, "{what}: {path}");
                }
            }
        }
    }
    let events = raw::request("GET", &hub.url, &bearer(STATIC), b"");
    assert_eq!(events.text(), "[]", "nothing of this was published");
}

#[test]
fn a_route_asks_for_its_right() {
    let keys = Keys::new();
    let reader = keys.hs256(&json!({ "exp": now() + 600, "role": "viewer" }));
    let back_end = Wsevent::line("--no-produce").serve();
    for services in rights::combinations() {
        let scratch = Scratch::new();
        let server = services.serve(&keys, &back_end, &scratch);
        for (path, method, way) in every_request() {
            let need = services.need(method, path, way);
            for (token, told) in [("", "no token"), (&*bearer(&reader), "a reader's token")] {
                let ask = |kept| rights::ask(&server, (method, path, way), token, kept);
                let (fresh, kept) = (ask(false), ask(true));
                let what =
                    format!("{services:?}: {method} {path} {way:?} with {told} needs {need:?}: {fresh:?} {kept:?}");
                assert_eq!(fresh.0, kept.0, "{what}");
                assert_ne!(fresh.0, 0, "{what}");
                let allowed = match need {
                    Need::Nothing | Need::Later => true,
                    Need::Read => !token.is_empty(),
                    Need::Publish | Need::Change => false,
                };
                let refusal = if token.is_empty() { 401 } else { 403 };
                if allowed {
                    assert!(![401, 403].contains(&fresh.0), "{what}");
                } else {
                    assert_eq!(fresh.0, refusal, "{what}");
                }
            }
        }
    }
}

fn every_request() -> impl Iterator<Item = (&'static str, &'static str, Way)> {
    let pairs = rights::PATHS.into_iter().flat_map(|path| rights::METHODS.map(|method| (path, method)));
    pairs.flat_map(|(path, method)| rights::WAYS.map(|way| (path, method, way)))
}

#[test]
fn a_token_in_the_url_is_no_token() {
    let keys = Keys::new();
    let hub = Hub::new(&keys, "", false);
    for name in ["token", "access_token", "wsevent_token", "authorization"] {
        for way in WAYS {
            assert_eq!(ask(way, &format!("{}?{name}={STATIC}", hub.url), "").status, 401, "{name} {way}");
        }
    }
}

#[test]
fn health_and_what_browsers_ask_first_need_no_token() {
    let keys = Keys::new();
    let hub = Hub::new(&keys, "--allow-origin https://app.test", false);
    for path in ["/-/healthz", "/-/readyz"] {
        eventually(path, || (raw::get(&hub.at(path)).status == 200).then_some(()));
    }
    let preflight = raw::request("OPTIONS", &hub.url, "Origin: https://app.test\r\n", b"");
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-headers").is_some_and(|allowed| allowed.contains("Authorization")));
}

#[test]
fn every_kind_of_token_lets_in_on_every_protocol() {
    let keys = Keys::new();
    let hub = Hub::new(&keys, "--jwt-audience us", false);
    let all = claims(json!({ "publish": ["*"] }));
    let tokens = [
        STATIC.to_owned(),
        keys.hs256(&all),
        keys.sign("RS256", "rsa", json!({}), &all),
        keys.sign("RS256", "rsa", json!({ "kid": "rsa" }), &all),
        keys.sign("ES256", "ec", json!({ "kid": "ec" }), &all),
        keys.sign("EdDSA", "ed", json!({}), &all),
        keys.hs256(&claims(json!({ "publish": ["*"], "aud": ["them", "us"], "nbf": now() + 5 }))),
    ];
    for token in &tokens {
        for (way, status) in [
            ("websocket", 101),
            ("link", 101),
            (SSE, 200),
            (NDJSON, 200),
            ("history", 200),
            ("DELETE", 405),
            ("POST", 200),
        ] {
            assert_eq!(ask(way, &hub.url, &bearer(token)).status, status, "{way} {token}");
        }
        assert_eq!(raw::request("GET", &hub.at("/-/status"), &bearer(token), b"").status, 200);
        assert_eq!(raw::request("GET", &hub.at("/nothing"), &bearer(token), b"").status, 404);
    }
}

#[test]
fn a_token_may_come_as_a_cookie_or_a_subprotocol() {
    let keys = Keys::new();
    let hub = Hub::new(&keys, "--allow-origin * --allow-origin https://app.test", false);
    let token = keys.hs256(&claims(json!({})));
    let cookie = format!("Cookie: theme=dark; wsevent_token={token}\r\n");
    for way in ["websocket", SSE, "history"] {
        assert!(ask(way, &hub.url, &cookie).status < 300, "{way}");
    }
    // A browser sends a cookie with whatever page asks it to.
    for (origin, status) in [("https://app.test", 101), ("https://evil.test", 401), ("http://localhost:1", 401)] {
        let (_, answer) = Raw::ask_websocket(&hub.url, &format!("{cookie}Origin: {origin}\r\n"));
        assert_eq!(answer.status, status, "{origin}");
    }
    let named = raw::request("GET", &hub.url, &format!("{cookie}Origin: https://app.test\r\n"), b"");
    assert_eq!(named.header("access-control-allow-credentials"), Some("true"));
    for (offered, chosen) in [
        (format!("bearer.{token}"), None),
        (format!("bearer.{token}, wsevent.plain"), Some("wsevent.plain")),
        (format!("wsevent.v1, bearer.{token}"), Some("wsevent.v1")),
    ] {
        let (_, answer) = Raw::ask_websocket(&hub.url, &format!("Sec-WebSocket-Protocol: {offered}\r\n"));
        assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, chosen), "{offered}");
    }
}

#[test]
fn a_token_for_another_path_is_403_and_tells_nothing() {
    let keys = Keys::new();
    let hub = Hub::new(&keys, "", false);
    let elsewhere = bearer(&keys.hs256(&claims(json!({ "subscribe": ["/other/*"], "publish": ["/other/*"] }))));
    let mut answers = Vec::new();
    for path in ["/events", "/nothing-here", "/-/status"] {
        for way in WAYS {
            assert_eq!(ask(way, &hub.at(path), &elsewhere).status, 403, "{way} {path}");
        }
        answers.push(ask("history", &hub.at(path), &elsewhere).text());
    }
    answers.dedup();
    assert_eq!(answers, [r#"{"error":"the token does not cover this"}"#]);
    assert_eq!(ask("history", &hub.at("/other/topic"), &elsewhere).status, 404);
    let events = keys.hs256(&claims(json!({ "subscribe": ["events"] })));
    assert_eq!(ask("history", &hub.url, &bearer(&events)).status, 200);
    let nothing = keys.hs256(&claims(json!({ "subscribe": [] })));
    assert_eq!(ask("history", &hub.url, &bearer(&nothing)).status, 403);
}

#[test]
fn publishing_needs_a_claim_that_names_the_path() {
    let keys = Keys::new();
    for tls in [false, true] {
        let hub = Hub::new(&keys, "", tls);
        let reads = bearer(&keys.hs256(&claims(json!({}))));
        let writes = bearer(&keys.hs256(&claims(json!({ "publish": ["/ev*"] }))));
        assert_eq!(ask("POST", &hub.url, &reads).status, 403);
        assert_eq!(raw::request("POST", &hub.url, &writes, b"one").status, 200);
        for (token, event) in [(&reads, "dropped"), (&writes, "two")] {
            let (mut raw, _) = Raw::websocket_with(&hub.url, token);
            raw.send_frame(&Frame::new(TEXT, event));
            raw.send_frame(&Frame::close(1000, ""));
            raw.read_close().expect("an answer to the close");
        }
        hub.publish("three");
        assert_eq!(raw::request("GET", &hub.url, &reads, b"").text(), r#"["one","two",3]"#.replace('3', "\"three\""));
    }
}

#[test]
fn where_peers_do_not_publish_a_claim_lets_them_and_a_static_token_does_not() {
    let keys = Keys::new();
    let writes = bearer(&keys.hs256(&claims(json!({ "publish": ["*"] }))));
    let producer = Wsevent::line("--produce - --slow-reader disconnect").args(keys.args()).piped().serve();
    assert_eq!(raw::request("POST", producer.url(), &writes, b"one").status, 200);
    assert_eq!(raw::request("POST", producer.url(), &bearer(STATIC), b"two").status, 405);
    assert_eq!(raw::request("GET", producer.url(), &writes, b"").text(), r#"["one"]"#);
    // A hop keeps its upstream's ids: there is no place for events of its own.
    let line = Wsevent::new(["--consume", &producer.ws_url(), "--consume-token-file", &keys.file("token")]);
    fs::write(keys.file("token"), STATIC).expect("a token file");
    let hop = line.args(keys.args()).serve();
    assert_eq!(raw::request("POST", hop.url(), &writes, b"three").status, 405);
}

/// A token that ends soon, and when it does.
fn short_lived(keys: &Keys) -> (String, Instant) {
    let ends = now() + 3;
    let end = Instant::now() + Duration::from_secs(ends).saturating_sub(since_1970());
    (keys.hs256(&json!({ "exp": ends, "publish": ["*"] })), end)
}

fn since_1970() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970")
}

/// Not before the token's end, and soon after it.
fn assert_on_time(what: &str, end: Instant) {
    let late = Instant::now().checked_duration_since(end);
    assert!(late.is_some_and(|late| late < Duration::from_secs(3)), "{what}: {late:?} after the token's end");
}

#[test]
fn a_connection_ends_with_its_token() {
    let keys = Keys::new();
    for tls in [false, true] {
        let hub = Hub::new(&keys, "", tls);
        hub.publish("before");
        let (token, end) = short_lived(&keys);
        let url = format!("{}?since=oldest", hub.url);
        let (mut plain, _) = Raw::websocket_with(&url, &bearer(&token));
        let mut link = Link::open_with(&url, &bearer(&token));
        let open = |accept: &str| {
            let (host, port, path) = raw::split_url(&url);
            let mut raw = Raw::connect(&host, port);
            raw.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n{}\r\n", bearer(&token)));
            assert_eq!(raw.read_head().status, 200);
            raw
        };
        let (mut sse, mut ndjson) = (open(SSE), open(NDJSON));
        let close = plain.read_close().expect("a close frame");
        assert_eq!((close.close_code(), &close.payload[2..]), (1008, &b"token expired"[..]));
        assert_on_time("websocket", end);
        assert_eq!(link.event().1, "before");
        let (_, code, reason, told) = link.close();
        assert_eq!((code, reason.as_str(), told), (1008, "token expired", true), "LINKS 11: a position first");
        for (what, raw) in [("SSE", &mut sse), ("NDJSON", &mut ndjson)] {
            let rest = String::from_utf8_lossy(&raw.read_to_end()).into_owned();
            assert!(rest.contains("before") && rest.ends_with("0\r\n\r\n"), "{what}: {rest}");
            assert_on_time(what, end);
        }
        assert_eq!(ask("history", &hub.url, &bearer(&token)).status, 401);
        eventually("nobody is there", || (status(&hub)["topics"][0]["readers"] == 0).then_some(()));
    }
}

fn status(hub: &Hub) -> Value {
    let answer = raw::request("GET", &hub.at("/-/status"), &bearer(STATIC), b"");
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

#[test]
fn a_parked_reader_and_a_publisher_end_with_their_token_too() {
    let keys = Keys::new();
    for tls in [false, true] {
        let hub = Hub::new(&keys, "", tls);
        hub.publish("one");
        let next = status(&hub)["topics"][0]["next"].as_str().expect("an id").to_owned();
        let ahead = next.replace("-2", "-100");
        let (token, end) = short_lived(&keys);
        let (mut parked, _) = Raw::websocket_with(&format!("{}?since={ahead}", hub.url), &bearer(&token));
        let (mut publisher, _) = Raw::websocket_with(&hub.url, &bearer(&token));
        publisher.send_frame(&Frame::new(TEXT, "two"));
        for raw in [&mut parked, &mut publisher] {
            assert_eq!(raw.read_close().map(|close| close.close_code()), Some(1008));
            assert_on_time("close", end);
        }
    }
}

#[test]
fn a_stream_over_http_2_ends_with_its_token() {
    let keys = Keys::new();
    let hub = Wsevent::line("--no-produce").args(keys.args()).args(door::args()).serve();
    let (token, end) = short_lived(&keys);
    let done = curl(
        &hub,
        &["--http2", "-N", "-H", &format!("Authorization: Bearer {token}"), "-H", "Accept: text/event-stream"],
    );
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("retry: 1000") && done.stdout.ends_with("HTTP/2"), "{}", done.stdout);
    assert_on_time("HTTP/2", end);
}

/// curl of the server's topic; prints the protocol's version behind the body.
fn curl(server: &Running, args: &[&str]) -> Done {
    let mut command = Command::new("curl");
    let [_, cert, ..] = door::args();
    command.args(["-sS", "--cacert", &cert, "-m", &PATIENCE.as_secs().to_string(), "-w", "HTTP/%{http_version}"]);
    command.args(args).arg(server.url());
    run(command)
}

#[test]
fn http_2_serves_what_http_1_does() {
    let hub = Wsevent::line("--no-produce --allow-origin https://app.test").args(door::args()).serve();
    let posted = curl(&hub, &["--http2", "-d", "one"]);
    assert!(posted.stdout.contains("\"id\":") && posted.stdout.ends_with("HTTP/2"), "{posted:?}");
    assert_eq!(curl(&hub, &["--http2"]).stdout, "[\"one\"]HTTP/2");
    assert_eq!(curl(&hub, &["--http1.1"]).stdout, "[\"one\"]HTTP/1.1");
    let head = curl(&hub, &["--http2", "-I", "-H", "Accept: application/json"]).stdout;
    assert!(head.contains("wsevent-position: e") && !head.to_lowercase().contains("transfer-encoding"), "{head}");
    let own = hub.url().replace("/events", "");
    for (origin, status) in [(own.as_str(), "200"), ("https://app.test", "200"), ("https://evil.test", "403")] {
        let origin = format!("Origin: {origin}");
        let answer = curl(&hub, &["--http2", "-o", "/dev/null", "-w", "%{http_code}", "-H", &origin]);
        assert_eq!(answer.stdout, status, "{origin}");
    }
}

#[test]
fn a_stream_over_http_2_is_live_and_resumes() {
    let hub = Wsevent::line("--no-produce").args(door::args()).serve();
    let publish = |event: &str| assert_eq!(curl(&hub, &["-d", event]).code, 0);
    publish("one");
    let [_, cert, ..] = door::args();
    let line = ["-sSN", "--http2", "--cacert", &cert, "-H", "Accept: text/event-stream"];
    let reader = Wsevent::program("curl").args(line).arg(format!("{}?since=oldest", hub.url())).start();
    // An id line without data, then: id, data, blank.
    let first = reader.lines(6);
    assert_eq!((first[0].as_str(), first[4].as_str()), ("retry: 1000", "data: one"));
    publish("two");
    assert_eq!(reader.lines(8)[7], "data: two");
    let id = first[3].trim_start_matches("id: ").to_owned();
    let resumed =
        Wsevent::program("curl").args(line).args(["-H", &format!("Last-Event-ID: {id}")]).arg(hub.url()).start();
    assert_eq!(resumed.lines(5)[4], "data: two");
    let ndjson = ["-sSN", "--http2", "--cacert", &cert, "-H", "Accept: application/x-ndjson"];
    let lines = Wsevent::program("curl").args(ndjson).arg(format!("{}?since=oldest", hub.url())).start();
    assert!(lines.lines(2)[1].ends_with("\"data\":\"two\"}"));
    hub.signal("TERM");
    let mut reader = reader;
    assert_eq!(reader.wait(), 0, "the stream is ended, not cut: {}", reader.stderr());
}

#[test]
fn selective_events_go_to_links_with_the_right_to_them() {
    let keys = Keys::new();
    for tls in [false, true] {
        let hub = Hub::new(&keys, "", tls);
        let relay = keys.hs256(&claims(json!({ "relay": true })));
        let plain = keys.hs256(&claims(json!({})));
        let mut links = [&relay, STATIC, &plain].map(|token| Link::open_with(&hub.url, &bearer(token)));
        let url = format!("{}?user=a", hub.url);
        assert_eq!(raw::request("POST", &url, &bearer(STATIC), b"for a").status, 200);
        hub.publish("for all");
        for (i, link) in links.iter_mut().enumerate() {
            let (id, text) = link.event();
            let expected = if i < 2 { (1, "for a") } else { (2, "for all") };
            assert_eq!((id.n, text.as_str()), expected, "link {i}");
        }
    }
}

#[test]
fn keys_are_read_again_and_nobody_is_dropped() {
    let keys = Keys::new();
    let hub = Hub::new(&keys, "", false);
    let (mut reader, _) = Raw::websocket_with(&hub.url, &bearer(STATIC));
    let other = "another-token-0123456789";
    let is_let_in = |token: &str| ask("history", &hub.url, &bearer(token)).status == 200;
    let took = |times: usize| {
        eventually("the keys to be read again", || {
            (hub.running.stderr().matches("read again").count() >= times).then_some(())
        });
    };
    keys.write("tokens", &format!("{STATIC}\n{other}\n"));
    took(1);
    assert!(is_let_in(other) && is_let_in(STATIC), "by itself");
    keys.write("tokens", &format!("{STATIC}\n"));
    hub.running.signal("HUP");
    took(2);
    assert!(!is_let_in(other) && is_let_in(STATIC), "on request");
    keys.write("jwks", "{ not JSON");
    hub.running.said("not taken");
    assert!(is_let_in(STATIC) && is_let_in(&keys.sign("RS256", "rsa", json!({}), &claims(json!({})))), "the old ones");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(hub.running.stderr().matches("not taken").count(), 1, "one line per change");
    hub.publish("still there");
    assert_eq!(reader.read_message().expect("an event").text(), "still there");
}

#[test]
fn check_token_says_what_a_server_would() {
    let keys = Keys::new();
    let check = |token: &str| Wsevent::new(["check-token"]).args(keys.args()).input(format!("{token}\n")).run();
    let good = claims(json!({ "subscribe": ["/events"], "sub": "me" }));
    for (algorithm, key) in [("HS256", tokens::SECRET), ("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")] {
        let done = check(&keys.sign(algorithm, key, json!({}), &good));
        assert_eq!(done.code, 0, "{algorithm}: {}", done.stderr);
        let printed: Value = serde_json::from_str(&done.stdout).expect("JSON");
        assert_eq!(printed, good);
    }
    assert_eq!(check(STATIC).code, 0);
    for (what, token) in keys.wrong() {
        let done = check(&token);
        assert_eq!((done.code, done.stdout.as_str()), (77, ""), "{what}: {}", done.stderr);
        assert!(done.stderr.contains("the token is refused: "), "{what}: {}", done.stderr);
        assert!(token.len() < 4 || !done.stderr.contains(&token), "{what}: {}", done.stderr);
    }
    let expired = check(&keys.hs256(&json!({ "exp": 1 })));
    assert!(expired.stderr.contains("expired"), "{}", expired.stderr);
    assert_eq!(Wsevent::new(["check-token"]).input(STATIC).run().code, 2, "without keys");
    let none = Wsevent::new(["check-token", "--jwks", "/nonexistent"]).input(STATIC).run();
    assert!(none.code == 78 && none.stderr.contains("/nonexistent"), "{none:?}");
    let by_environment = Wsevent::new(["check-token"]).env("WSEVENT_JWKS", &keys.file("jwks"));
    let token = keys.sign("ES256", "ec", json!({}), &good);
    assert_eq!(by_environment.input(token).run().code, 0);
}

#[test]
fn what_cannot_be_meant_or_read_is_refused_at_start() {
    let keys = Keys::new();
    let (short, empty) = (keys.write("short", "a token\n"), keys.write("empty", "\n"));
    let [_, cert, _, key] = door::args();
    for (line, code, hint) in [
        (format!("--tls-cert {cert}"), 2, "--tls-key"),
        (format!("--tls-key {key}"), 2, "--tls-cert"),
        (format!("--tls-client-ca {cert}"), 2, "--tls-cert"),
        (format!("--consume localhost:1 --no-serve --token-file {short}"), 2, "--no-serve"),
        (format!("--consume localhost:1 --no-serve --tls-cert {cert} --tls-key {key}"), 2, "wss"),
        (format!("--consume-token-file {short}"), 2, "--consume"),
        (format!("--consume localhost:1 -H Authorization:x --consume-token-file {short}"), 2, "one way"),
        (format!("--tls-cert /nonexistent --tls-key {key}"), 1, "/nonexistent"),
        (format!("--tls-cert {cert} --tls-key {cert}"), 1, "--tls-key"),
        (format!("--tls-cert {key} --tls-key {key}"), 1, "no certificate"),
        (format!("--token-file {short}"), 1, "line 1"),
        (format!("--jwt-secret-file {empty}"), 1, "empty"),
        (format!("--jwks {short}"), 1, "--jwks"),
        (format!("--consume localhost:1 --consume-token-file {short}"), 1, "--consume-token-file"),
    ] {
        let done = Wsevent::line(
            &format!("--serve-address localhost:0 {line}")
                .replace(if line.contains("--no-serve") { "--serve-address localhost:0" } else { "\0" }, ""),
        );
        let done = done.run();
        assert_eq!(done.code, code, "{line}: {}", done.stderr);
        assert!(done.stderr.contains(hint), "{line}: {}", done.stderr);
    }
    let authority = Authority::new();
    let other = authority.issue(Kind::Good);
    let mismatch = Wsevent::new(["--serve-address", "localhost:0", "--tls-cert", &cert, "--tls-key", &other.key]).run();
    assert!(mismatch.code == 1 && mismatch.stderr.contains("--tls-cert"), "{mismatch:?}");
}

// --- TLS --------------------------------------------------------------------------------------------------------------

fn serve_tls(identity: &Identity, line: &str) -> Running {
    Wsevent::line(line).args(["--tls-cert", &identity.cert, "--tls-key", &identity.key]).serve()
}

fn consumer(server: &Running, authority: &Authority) -> Wsevent {
    let url = server.url().replacen("https", "wss", 1);
    Wsevent::new([
        "--consume",
        &url,
        "--ca",
        &authority.ca(),
        "--no-serve",
        "--since",
        "oldest",
        "--retry-max",
        "100ms",
    ])
}

#[test]
fn only_readers_with_a_certificate_of_the_authority_connect() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let line = format!("--no-produce --tls-client-ca {}", authority.ca());
    let hub = serve_tls(&authority.issue(Kind::Good), &line);
    let curl = |identity: Option<&Identity>| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--cacert", &authority.ca(), "-d", "one", hub.url()]);
        if let Some(identity) = identity {
            command.args(["--cert", &identity.cert, "--key", &identity.key]);
        }
        run(command)
    };
    assert_ne!(curl(None).code, 0);
    assert_ne!(curl(Some(&stranger.issue(Kind::Client))).code, 0);
    assert_ne!(curl(Some(&authority.issue(Kind::Good))).code, 0, "a server's certificate is no reader's");
    let done = curl(Some(&authority.issue(Kind::Client)));
    assert_eq!(done.code, 0, "{}", done.stderr);

    // An instance shows its own: to serve, and to read.
    let refused = consumer(&hub, &authority).args(["--retries", "0"]).run();
    assert_eq!(refused.code, 69, "{}", refused.stderr);
    let both = authority.issue(Kind::Both);
    let show = ["--tls-cert", &both.cert, "--tls-key", &both.key];
    let read = consumer(&hub, &authority).args(show).args(["--count", "1"]).run();
    assert_eq!((read.code, read.stdout.as_str()), (0, "one\n"), "{}", read.stderr);
    let url = hub.url().replacen("https", "wss", 1);
    let hop = Wsevent::new(["--consume", &url, "--ca", &authority.ca(), "--tls-client-ca", &authority.ca()]);
    let hop = hop.args(show).serve();
    let read = consumer(&hop, &authority).args(show).args(["--count", "1"]).run();
    assert_eq!((read.code, read.stdout.as_str()), (0, "one\n"), "{}", read.stderr);
}

/// The serial number of the certificate that a server shows.
fn serial(port: u16) -> String {
    let done = bash(&format!(
        "openssl s_client -connect localhost:{port} < /dev/null 2>/dev/null | openssl x509 -noout -serial"
    ));
    assert!(done.stdout.starts_with("serial="), "{done:?}");
    done.stdout
}

#[test]
fn a_new_certificate_is_shown_and_nobody_is_dropped() {
    let authority = Authority::new();
    let identity = authority.issue(Kind::Good);
    let mut producer = Wsevent::line("--produce - --slow-reader disconnect --tls-cert").arg(&identity.cert);
    producer = producer.args(["--tls-key", &identity.key]).piped();
    let mut producer = producer.serve();
    let reader = consumer(&producer, &authority).start();
    producer.write("one\n");
    reader.lines(1);
    let first = serial(producer.port());
    let put = |identity: &Identity, cert: &str, key: &str| {
        fs::copy(cert, format!("{}.new", identity.cert)).expect("a copy");
        fs::copy(key, format!("{}.new", identity.key)).expect("a copy");
        fs::rename(format!("{}.new", identity.cert), &identity.cert).expect("replaced");
        fs::rename(format!("{}.new", identity.key), &identity.key).expect("replaced");
    };
    let next = authority.issue(Kind::Both);
    put(&identity, &next.cert, &next.key);
    producer.signal("HUP");
    eventually("the new certificate", || (serial(producer.port()) != first).then_some(()));
    let second = serial(producer.port());

    fs::write(&identity.cert, "no certificate").expect("replaced");
    producer.said("not taken");
    assert_eq!(serial(producer.port()), second, "the old one stays in service");
    let third = authority.issue(Kind::Client);
    put(&identity, &third.cert, &third.key);
    eventually("the newest certificate, by itself", || (serial(producer.port()) != second).then_some(()));
    assert_eq!(producer.stderr().matches("not taken").count(), 1, "one line: {}", producer.stderr());

    producer.write("two\n");
    assert_eq!(reader.lines(2), ["one", "two"]);
    assert!(!reader.stderr().contains("lost"), "the reader was dropped: {}", reader.stderr());
}

#[test]
fn old_versions_of_tls_and_other_traffic_are_refused() {
    let authority = Authority::new();
    let hub = serve_tls(&authority.issue(Kind::Good), "--no-produce --handshake-timeout 1s");
    for (version, works) in [("1.0", false), ("1.1", false), ("1.2", true), ("1.3", true)] {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "--cacert",
            &authority.ca(),
            &format!("--tlsv{version}"),
            "--tls-max",
            version,
            hub.url(),
        ]);
        command.args(["--ciphers", "DEFAULT@SECLEVEL=0"]);
        let done = run(command);
        assert_eq!(done.code == 0, works, "{version}: {}", done.stderr);
    }
    // Whoever says nothing, or something else, only ends its own connection.
    let mut silent = Raw::connect("localhost", hub.port());
    let mut plain = Raw::connect("localhost", hub.port());
    plain.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!String::from_utf8_lossy(&plain.read_to_end()).contains("HTTP/1.1 200"));
    assert!(silent.read_to_end().is_empty());
    assert_eq!(serial(hub.port()).matches("serial").count(), 1);
}

#[test]
fn links_over_tls_survive_the_death_of_any_hop() {
    let (authority, keys) = (Authority::new(), Keys::new());
    let identity = authority.issue(Kind::Good);
    let token = keys.write("token", &keys.hs256(&claims(json!({ "exp": now() + 3600, "relay": true }))));
    let secure =
        |line: Wsevent| line.args(["--tls-cert", &identity.cert, "--tls-key", &identity.key]).args(keys.args());
    let hop = |upstream: &Running| {
        let url = upstream.url().replacen("https", "wss", 1);
        let line = Wsevent::new(["--consume", &url, "--ca", &authority.ca(), "--consume-token-file", &token]);
        secure(line.args(["--retry-max", "100ms", "--pin-grace", "2s"])).serve()
    };
    // At the end, the place of a hop that was killed is kept for so long.
    let mut producer = secure(Wsevent::line("--produce - --pin-grace 2s")).piped().serve();
    let mut hops = vec![hop(&producer)];
    hops.push(hop(&hops[0]));
    let last = consumer(&hops[1], &authority).args(["--consume-token-file", &token]).start();
    let lines = |range: std::ops::Range<u32>| range.map(|n| format!("event {n}\n")).collect::<String>();
    producer.write(lines(0..1000));
    for (round, victim) in [0, 1, 0, 1].into_iter().enumerate() {
        let from = 1000 * (round as u32 + 1);
        last.lines(from as usize);
        producer.write(lines(from..from + 500));
        hops[victim].kill9();
        producer.write(lines(from + 500..from + 1000));
        hops[victim].start_again();
    }
    let printed = last.lines(5000);
    for (n, line) in printed.iter().enumerate() {
        assert_eq!(*line, format!("event {n}"));
    }
    producer.close_stdin();
    assert_eq!(producer.wait(), 0, "the end crosses, and is acknowledged");
}

#[test]
fn a_drain_tells_tls_readers_to_come_back() {
    let keys = Keys::new();
    let mut hub = Hub::new(&keys, "", true);
    let (mut plain, _) = Raw::websocket_with(&hub.url, &bearer(STATIC));
    let mut link = Link::open_with(&hub.url, &bearer(STATIC));
    hub.publish("one");
    assert_eq!(plain.read_message().expect("an event").text(), "one");
    assert_eq!(link.event().1, "one");
    hub.running.signal("TERM");
    assert_eq!(plain.read_close().map(|close| close.close_code()), Some(1012));
    assert!(matches!(link.news(), Said::Close(1012, _)));
    assert_eq!(hub.running.wait(), 128 + 15);
}

#[test]
fn a_refused_consumer_says_so_and_a_new_token_is_taken_at_the_next_connect() {
    let keys = Keys::new();
    let mut hub = Hub::new(&keys, "", false);
    let url = hub.running.ws_url();
    let token = keys.write("token", "another-token\nsecond line\n");
    let consume = |url: &str| Wsevent::new(["--consume", url, "--consume-token-file", &token, "--retry-max", "50ms"]);
    for scheme in ["ws", "http", "ndjson+http"] {
        let done = consume(&url.replacen("ws", scheme, 1)).arg("--no-serve").run();
        assert_eq!(done.code, 77, "{scheme}: {}", done.stderr);
    }
    let hop = consume(&url).serve();
    hop.said("401");
    keys.write("token", &format!("{STATIC}\n"));
    hop.said("connected");
    // What ends with the token begins again with the next.
    hub.publish("one");
    eventually("the event", || raw::get(hop.url()).text().contains("one").then_some(()));
    hub.running.restart();
    hub.publish("two");
    eventually("the event", || raw::get(hop.url()).text().contains("two").then_some(()));
}

#[test]
fn a_consumer_outlives_its_token_where_the_file_has_the_next_one() {
    let keys = Keys::new();
    let hub = Hub::new(&keys, "", false);
    let (first, _) = short_lived(&keys);
    let token = keys.write("token", &first);
    let line = ["--no-serve", "--retry-max", "50ms", "--consume-token-file", &token, "--consume"];
    let consumer = Wsevent::new(line).arg(hub.running.ws_url()).start();
    consumer.said("connected");
    keys.write("token", &keys.hs256(&claims(json!({ "exp": now() + 3600 }))));
    consumer.said("token expired");
    eventually("the next connection", || (consumer.stderr().matches("connected").count() == 2).then_some(()));
    hub.publish("behind it");
    assert_eq!(consumer.lines(1), ["behind it"]);
}

#[test]
fn secrets_stand_in_no_log() {
    let (keys, authority) = (Keys::new(), Authority::new());
    let identity = authority.issue(Kind::Good);
    let good = keys.hs256(&claims(json!({ "publish": ["*"] })));
    let bad = keys.hs256(&json!({ "exp": 1 }));
    let tls = ["--tls-cert", &identity.cert, "--tls-key", &identity.key];
    let hub = Wsevent::line("-vv --no-produce").args(keys.args()).args(tls).serve();
    for token in [&good, &bad, STATIC, "unknown-token-of-somebody"] {
        for version in ["--http1.1", "--http2"] {
            for place in [format!("Authorization: Bearer {token}"), format!("Cookie: wsevent_token={token}")] {
                let mut command = Command::new("curl");
                command.args(["-sS", "--cacert", &authority.ca(), version, "-H", &place, hub.url()]);
                assert_eq!(run(command).code, 0);
            }
        }
        let door = format!("http://localhost:{}/events", hub.port());
        let _ = Command::new("curl").args(["-s", "-H", &format!("Authorization: Bearer {token}"), &door]).output();
    }
    let token = keys.write("token", &good);
    let readers = ["wss", "https"].map(|scheme| {
        let url = hub.url().replacen("https", scheme, 1);
        let line = Wsevent::new(["-vv", "--consume", &url, "--ca", &authority.ca(), "--consume-token-file", &token]);
        let reader = line.arg("--no-serve").start();
        reader.said("connected");
        reader
    });
    hub.signal("HUP");
    hub.said("read again");
    let logs = [hub.stderr(), readers[0].stderr(), readers[1].stderr()].concat();
    assert!(logs.contains("token refused"), "{logs}");
    for secret in [&good, &bad, STATIC, tokens::SECRET, "unknown-token-of-somebody", "PRIVATE KEY"] {
        assert!(!logs.contains(secret), "{secret} stands in the log:\n{logs}");
        let signature = secret.rsplit('.').next().expect("a part");
        assert!(!logs.contains(signature), "{signature} stands in the log:\n{logs}");
    }
    let args = fs::read_to_string(format!("/proc/{}/cmdline", readers[0].pid())).expect("a command line");
    assert!(!args.contains(&good), "nor on the command line");
}
