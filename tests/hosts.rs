//! Requests for another host than this machine: refused by every role, service and transport of a server on loopback,
//! before anything is read or done (DNS rebinding).

mod common;
mod services;
mod tokens;

use common::{Running, Scratch, Wsevent, door, raw, run};
use std::{net::UdpSocket, process::Command};
use tokens::STATIC;

const FOREIGN: &str = "evil.example";

/// A request for this host, on a connection of its own.
fn ask(server: &Running, request: &str, host: &str, headers: &str, body: &str) -> raw::Answer {
    let mut raw = raw::Raw::connect("localhost", server.port());
    let length = body.len();
    raw.send(format!("{request} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"));
    raw.read_head()
}

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SSE: &str = "Accept: text/event-stream\r\n";
const NDJSON: &str = "Accept: application/x-ndjson\r\n";
const FROM_THERE: &str = "Origin: http://evil.example\r\n";

/// Refuses every way in for another host, and answers the same for this machine.
fn check(server: &Running, requests: &[(&str, &str)]) {
    for (request, headers) in requests {
        for headers in [(*headers).to_owned(), format!("{headers}{FROM_THERE}")] {
            let answer = ask(server, request, FOREIGN, &headers, "");
            assert_eq!(answer.status, 421, "{request} {headers}: {answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{request} {headers}");
        }
        assert_ne!(ask(server, request, "localhost", headers, "").status, 421, "{request}");
    }
}

#[test]
fn a_foreign_host_is_refused_by_every_role() {
    let mqtt = format!("{WEBSOCKET}Sec-WebSocket-Protocol: mqtt\r\n");
    let link = format!("{WEBSOCKET}Sec-WebSocket-Protocol: wsevent.v1\r\n");
    let streams = [("GET /events", SSE), ("GET /events", NDJSON), ("GET /events", WEBSOCKET), ("GET /events", &link)];
    let others = [
        ("GET /events", ""),
        ("HEAD /events", ""),
        ("POST /events", ""),
        ("OPTIONS /events", "Access-Control-Request-Method: POST\r\n"),
        ("DELETE /events", ""),
        ("GET /", &mqtt),
        ("GET /mqtt", &mqtt),
        ("GET /-/status", ""),
        ("GET /-/metrics", ""),
        ("GET /-/healthz", ""),
        ("GET /-/", ""),
        ("GET /nothing", ""),
    ];
    let hub = Wsevent::line("--no-produce").serve();
    let forwarder = Wsevent::new(["--consume", &hub.ws_url()]).serve();
    let relay = Wsevent::line("--balance-mode relay --balance").arg(format!("http://{}", hub.address())).serve();
    let balancer = Wsevent::line("--balance-mode stream --balance").arg(hub.url()).serve();
    for server in [&hub, &Wsevent::line("").serve(), &forwarder, &relay, &balancer] {
        check(server, &streams);
        check(server, &others);
    }
    assert_eq!(
        raw::get(&format!("{}?limit=9", hub.url())).text(),
        r#"["","",""]"#,
        "from hub and balancers the local ones"
    );
}

#[test]
fn a_foreign_host_is_refused_by_every_service() {
    let scratch = Scratch::new();
    let source =
        "registerWebStream('/named'); register('/route', 'f'); register('/route', 'f', 'POST'); const f = () => 'yes';
                  graphQLRegistry.registerSubscription('live', 'type Subscription { live: String }', 'first');
                  function first() { return 'now'; }";
    let app = scratch.file("app.js", source);
    scratch.file("index.html", "a page");
    let folder = scratch.path("").to_string_lossy().into_owned();
    let all = services::registry(&format!("--script {app} --static {folder}"));
    check(
        &all,
        &[
            ("GET /named", ""),
            ("GET /named", WEBSOCKET),
            ("GET /route", ""),
            ("POST /route", ""),
            ("GET /graphql", WEBSOCKET),
            ("GET /graphql/sse?query=subscription%7Blive%7D", ""),
            ("GET /", WEBSOCKET),
            ("GET /servers", ""),
            ("POST /register", ""),
            ("POST /proxy/web/x", ""),
            ("GET /-/openapi.json", ""),
            ("GET /index.html", ""),
        ],
    );
    let body = r#"{"serviceName":"web","host":"localhost","port":1}"#;
    assert_eq!(ask(&all, "POST /register", FOREIGN, "", body).status, 421);
    assert_eq!(services::get(&all, "/servers"), (200, serde_json::json!({"services": []})), "nothing was registered");
}

#[test]
fn a_foreign_host_is_refused_on_kept_connections_and_in_absolute_form() {
    let hub = Wsevent::line("--no-produce").serve();
    let mut kept = raw::Raw::connect("localhost", hub.port());
    kept.send("GET /-/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(kept.read_head().status, 200);
    kept.read_until("}");
    kept.send("GET /events HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(kept.read_head().status, 421);
    assert_eq!(ask(&hub, "GET http://evil.example/events", "localhost", "", "").status, 421);
    assert_eq!(ask(&hub, "GET http://localhost/events", "localhost", "", "").status, 200);
    assert_eq!(ask(&hub, "GET /events", "localhost", "Host: evil.example\r\n", "").status, 421);
}

#[test]
fn a_foreign_host_is_refused_over_tls_and_http2() {
    let hub = Wsevent::line("--no-produce").args(door::args()).serve();
    let behind = raw::split_url(&hub.url().replace("https:", "http:")).1;
    for version in ["--http1.1", "--http2"] {
        for (host, status) in [(FOREIGN, "421"), ("localhost", "200")] {
            let mut curl = Command::new("curl");
            curl.args(["-sk", version, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--max-time", "20"]);
            curl.args(["--connect-to", &format!("::localhost:{behind}"), &format!("https://{host}/events")]);
            let done = run(curl);
            let number = if version == "--http2" { "2" } else { "1.1" };
            assert_eq!(done.stdout, format!("{status} {number}"), "{host} {version}: {}", done.stderr);
        }
    }
}

#[test]
fn hosts_that_the_operator_named_are_served() {
    let named = Wsevent::line("--no-produce --allow-host events.example --allow-origin https://pages.example").serve();
    let host = |host: &str| ask(&named, "GET /events", host, "", "").status;
    assert_eq!((host("events.example"), host("Events.Example:81"), host("pages.example")), (200, 200, 200));
    assert_eq!((host(FOREIGN), host("events.example.evil.example")), (421, 421));
    let any = Wsevent::line("--no-produce --allow-host *").serve();
    assert_eq!(ask(&any, "GET /events", FOREIGN, "", "").status, 200);
    let told = raw::request("GET", named.url(), "Host: evil.example\r\n", b"");
    let error = r#"{"error":"this server does not answer for the host \"evil.example\": name it with --allow-host"}"#;
    assert_eq!((told.status, &*told.text()), (421, error));
}

#[test]
fn servers_behind_tokens_or_beyond_loopback_answer_for_every_host() {
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", format!("{STATIC}\n"));
    let hub = Wsevent::line(&format!("--no-produce --token-file {tokens}")).serve();
    assert_eq!(ask(&hub, "GET /events", FOREIGN, "", "").status, 401);
    assert_eq!(ask(&hub, "GET /events", FOREIGN, &format!("Authorization: Bearer {STATIC}\r\n"), "").status, 200);
    let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("an address").port();
    let wide = Wsevent::line(&format!("--no-produce --serve-address 0.0.0.0:{free}")).serve();
    assert_eq!(ask(&wide, "GET /events", FOREIGN, "", "").status, 200);
}

#[test]
fn a_word_that_is_no_host_is_refused_at_the_start() {
    for wrong in ["http://events.example", "a/b", "user@host", ""] {
        let done = Wsevent::new(["--no-produce", "--allow-host", wrong]).run();
        assert_eq!(done.code, 2, "{wrong}");
        assert!(done.stderr.contains(&format!("--allow-host `{wrong}` is no host")), "{}", done.stderr);
    }
}
