//! Requests that a registry passes on to instances, and what that does to their circuits.

mod balancer;
mod common;
mod services;

use balancer::{hub, nobody};
use common::{
    Running, Scratch, Wsevent, eventually,
    raw::{self, Frame, Raw, Server, TEXT, header_of, split_url},
};
use serde_json::{Value, json};
use services::{at, get, history, post, register, registry, signed_in, told};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn port(address: &str) -> u16 {
    split_url(&format!("http://{address}/")).1
}

fn state(registry: &Running, port: u16) -> Value {
    get(registry, &format!("/circuit-breaker/web:localhost:{port}")).1["state"].clone()
}

/// The names of the events that are about circuits.
fn circuits(registry: &Running) -> Vec<Value> {
    let names = history(registry).into_iter().map(|event| event["event"].clone());
    names.filter(|name| name.as_str().is_some_and(|name| name.starts_with("circuit"))).collect()
}

#[test]
fn requests_go_to_instances_in_turn_as_they_are() {
    let registry = registry("");
    assert_eq!(get(&registry, "/proxy/web/x"), (404, json!({"message": "Service unavailable"})));
    assert_eq!(get(&registry, "/proxy/"), (404, json!({"message": "Service unavailable"})));
    let answers = ["a", "b"].map(|name| {
        let address = Server::new()
            .answer_all(format!("HTTP/1.1 201 Created\r\nX-Own: {name}\r\nContent-Length: 1\r\n\r\n{name}"));
        register(&registry, "web", port(&address));
    });
    let asked: String =
        answers.iter().chain(&answers).map(|()| raw::get(&at(&registry, "/proxy/web/x")).text()).collect();
    assert_eq!(asked, "abab");
    let answer = raw::get(&at(&registry, "/proxy/web"));
    assert_eq!((answer.status, answer.header("x-own")), (201, Some("a")));

    let server = Server::new();
    register(&registry, "api", port(&server.address()));
    let client = std::thread::spawn({
        let url = at(&registry, "/proxy/api/any/p%20th:1?q=1&r=%20");
        move || {
            raw::request(
                "PATCH",
                &url,
                "Authorization: Bearer x\r\nKeep-Alive: 5\r\n",
                ("x".repeat(200_000) + "end").as_bytes(),
            )
        }
    });
    let (mut there, head) = server.accept();
    assert!(head.starts_with("PATCH /any/p%20th:1?q=1&r=%20 HTTP/1.1\r\n"), "{head}");
    assert_eq!(header_of(&head, "authorization").as_deref(), Some("Bearer x"));
    assert_eq!((header_of(&head, "keep-alive"), header_of(&head, "via").as_deref()), (None, Some("1.1 wsevent")));
    there.read_until("end");
    there.send("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope");
    let answer = client.join().expect("a client");
    assert_eq!((answer.status, answer.text().as_str()), (404, "nope"), "what the service says of a path is no failure");
    assert_eq!(get(&registry, &format!("/circuit-breaker/api:{}", server.address())).1["failures"], 0);
}

#[test]
fn failures_open_the_circuit_and_a_success_closes_it() {
    let registry = registry("--breaker-failures 2 --breaker-base 50ms --breaker-cap 100ms");
    let dead = port(&nobody());
    register(&registry, "web", dead);
    assert_eq!(get(&registry, "/proxy/web/"), (500, json!({"error": "Proxy error"})));
    assert_eq!(get(&registry, &format!("/circuit-breaker/web:localhost:{dead}")).1["failureCount"], 1);
    assert_eq!(get(&registry, "/proxy/web/").0, 500);
    eventually("an open circuit that is tried again", || (circuits(&registry).len() >= 2).then_some(()));
    assert_eq!(json!(circuits(&registry)[..2]), json!(["circuit_open", "circuit_half_open"]));
    let _risen = Wsevent::new(["--no-produce", "--serve-address", &format!("localhost:{dead}")]).serve();
    eventually("a trial", || (get(&registry, "/proxy/web/-/healthz").0 == 200).then_some(()));
    assert_eq!((state(&registry, dead), circuits(&registry).last()), (json!("closed"), Some(&json!("circuit_closed"))));
}

#[test]
fn a_failing_instance_is_left_for_the_next_one() {
    let registry = registry("--breaker-failures 1 --breaker-base 1h --breaker-cap 1h --handshake-timeout 300ms");
    let (dead, busy) =
        (port(&nobody()), port(&Server::new().answer_all("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")));
    let silent = Server::new();
    let well = port(&Server::new().answer_all(OK));
    for port in [dead, busy, port(&silent.address()), well] {
        register(&registry, "web", port);
    }
    assert_eq!(raw::get(&at(&registry, "/proxy/web/")).text(), "ok");
    for port in [dead, busy, port(&silent.address())] {
        assert_eq!(state(&registry, port), "open", "{port}");
    }
    assert_eq!(json!(circuits(&registry)), json!(["circuit_open", "circuit_open", "circuit_open"]));
    assert_eq!(get(&registry, "/discover?serviceName=web").1["address"], format!("localhost:{well}"));
    post(&registry, "/maintenance", &json!({"nodeId": format!("web:localhost:{well}"), "maintenance": true}));
    assert_eq!(get(&registry, "/proxy/web/"), (404, json!({"message": "Service unavailable"})));
}

#[test]
fn what_cannot_be_repeated_is_not() {
    let registry = registry("");
    let server = Server::new();
    register(&registry, "web", port(&server.address()));
    register(&registry, "web", port(&Server::new().answer_all(OK)));
    let client = std::thread::spawn({
        let url = at(&registry, "/proxy/web/");
        move || raw::post(&url, "once")
    });
    drop(server.accept());
    let answer = client.join().expect("a client");
    assert_eq!((answer.status, answer.text().as_str()), (500, r#"{"error":"Proxy error"}"#));
}

#[test]
fn half_open_admits_one_trial_at_a_time() {
    let registry = registry("--breaker-failures 1 --breaker-base 10ms --breaker-cap 10ms");
    let server = Server::new();
    let own = port(&server.address());
    register(&registry, "web", own);
    post(&registry, &format!("/circuit-breaker/web:localhost:{own}"), &json!({"success": false}));
    eventually("half open", || (state(&registry, own) == "half-open").then_some(()));
    let trial = std::thread::spawn({
        let url = at(&registry, "/proxy/web/");
        move || raw::get(&url)
    });
    let (mut there, _) = server.accept();
    assert_eq!(get(&registry, "/proxy/web/").0, 404, "somebody finds out already");
    assert_eq!(get(&registry, "/discover?serviceName=web").0, 200);
    there.send(OK);
    assert_eq!(trial.join().expect("a client").status, 200);
    assert_eq!(state(&registry, own), "closed");
}

#[test]
fn streams_and_websockets_pass() {
    let (registry, hub) = (registry(""), hub());
    register(&registry, "hub", hub.port());
    let mut socket = Raw::websocket(&at(&registry, "/proxy/hub/events"));
    let mut streams = ["text/event-stream", "application/x-ndjson"].map(|kind| {
        let mut raw = Raw::connect("localhost", registry.port());
        raw.send(format!("GET /proxy/hub/events HTTP/1.1\r\nHost: localhost\r\nAccept: {kind}\r\n\r\n"));
        assert_eq!(raw.read_head().header("content-type"), Some(kind));
        raw
    });
    hub.has("readers", 3);
    assert_eq!(raw::post(&at(&registry, "/proxy/hub/events"), "hello").status, 200);
    assert_eq!(socket.read_message().map(|frame| frame.text()).as_deref(), Some("hello"));
    streams.iter_mut().for_each(|stream| drop(stream.read_until("hello")));
    drop((socket, streams));
    hub.has("readers", 0);

    let server = Server::new();
    register(&registry, "echo", port(&server.address()));
    let client = std::thread::spawn({
        let url = at(&registry, "/proxy/echo/chat");
        move || Raw::websocket_with(&url, "Sec-WebSocket-Protocol: chat\r\n").0
    });
    let (mut there, _) = server.accept_websocket("Sec-WebSocket-Protocol: chat\r\n");
    let mut here = client.join().expect("a client");
    here.send_frame(&Frame::new(TEXT, "there"));
    assert_eq!(there.read_frame().expect("a frame").text(), "there");
    there.send_frame(&Frame::from_server(TEXT, "here"));
    assert_eq!(here.read_frame().expect("a frame").text(), "here");
    assert_eq!(
        history(&registry),
        [told("service_registered", "hub", hub.port()), told("service_registered", "echo", port(&server.address()))]
    );
}

#[test]
fn who_has_the_fewest_requests_to_answer_is_found() {
    let registry = registry("");
    let hubs = [hub(), hub()];
    hubs.iter().for_each(|hub| register(&registry, "web", hub.port()));
    let least = || get(&registry, "/discover?serviceName=web&loadBalancing=least-connections").1["address"].clone();
    for (busy, idle) in [(0, 1), (1, 0)] {
        // The turn goes round: one of the two has the stream.
        let mut streams: Vec<Raw> = Vec::new();
        while hubs[busy].topic()["readers"] == 0 {
            streams = vec![Raw::websocket(&at(&registry, "/proxy/web/events"))];
            eventually("one stream", || {
                let readers = hubs.each_ref().map(|hub| hub.topic()["readers"].as_u64());
                (readers.iter().flatten().sum::<u64>() == 1).then_some(())
            });
        }
        eventually("the other one", || (least() == format!("localhost:{}", hubs[idle].port())).then_some(()));
        drop(streams);
        hubs[busy].has("readers", 0);
    }
}

#[test]
fn what_is_passed_on_needs_a_token_where_every_change_does() {
    let scratch = Scratch::new();
    let (registry, token) = signed_in(&scratch, "");
    let own = port(&Server::new().answer_all(OK));
    register(&registry, "web", own);
    assert_eq!(raw::post(&at(&registry, "/proxy/web/"), "x").status, 200);
    assert_eq!(
        raw::get(&at(&registry, "/-/status")).status,
        401,
        "only what is below /proxy/ is the service's business"
    );

    let closed = services::registry(&format!(
        "--token-file {} --protect-writes",
        scratch.file("tokens", "a-line-of-the-file\n")
    ));
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let body = json!({"serviceName": "web", "host": "localhost", "port": own}).to_string();
    let register =
        |token: &str| raw::request("POST", &at(&closed, "/register"), &bearer(token), body.as_bytes()).status;
    assert_eq!((register(&token), register("a-line-of-the-file")), (401, 200));
    let passed = |method: &str, headers: &str| raw::request(method, &at(&closed, "/proxy/web/"), headers, b"").status;
    assert_eq!((passed("GET", ""), passed("POST", ""), passed("DELETE", &bearer("none"))), (200, 401, 401));
    assert_eq!(passed("POST", &bearer("a-line-of-the-file")), 200);
}

#[test]
fn an_address_that_is_none_is_a_failure() {
    let registry = registry("");
    for host in ["a/b", "user@localhost", "a?b", "a#b"] {
        post(&registry, "/register", &json!({"serviceName": "web", "host": host, "port": 1}));
        assert_eq!(get(&registry, "/proxy/web/").0, 500, "{host}");
        post(&registry, "/deregister", &json!({"nodeId": format!("web:{host}:1")}));
    }
}
