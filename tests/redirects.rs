//! Redirects of an upstream: which of them are followed, and what goes along. Whoever an upstream redirects to is a server
//! that the test plays, or nginx.

mod certs;
mod common;

use certs::{Authority, Kind, nginx::Nginx};
use common::{
    Running, Scratch, Wsevent, eventually,
    raw::{Raw, Server, header_of},
};

/// How a stream is asked for, and an answer that is one.
const STREAMS: [(&str, &str); 3] = [
    ("http", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: arrived\n\n"),
    ("sse+http", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: arrived\n\n"),
    ("ndjson+http", "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\narrived\n"),
];

/// What is shown about us: by the URL, by options, and how it looks in a request.
struct Shown {
    login: &'static str,
    args: Vec<String>,
    secrets: &'static [&'static str],
}

fn every_way(scratch: &Scratch) -> [Shown; 3] {
    let fields =
        ["X-Api-Key: typed-key", "Authorization: Bearer typed-token", "Cookie: session=typed-cookie", "Via: me"];
    let fields = fields.iter().flat_map(|field| ["-H".to_owned(), (*field).to_owned()]).collect();
    let token = ["--consume-token-file".into(), scratch.file("token", "token-of-a-file\n")];
    [
        Shown { login: "", args: fields, secrets: &["typed-key", "typed-token", "typed-cookie", "Via: me"] },
        Shown { login: "", args: token.into(), secrets: &["Bearer token-of-a-file"] },
        // `user:password` by RFC 7617.
        Shown { login: "user:password@", args: Vec::new(), secrets: &["Basic dXNlcjpwYXNzd29yZA=="] },
    ]
}

impl Shown {
    fn consume(&self, scheme: &str, address: &str) -> Wsevent {
        let url = format!("{scheme}://{}{address}/events", self.login);
        Wsevent::new(["--consume", &url, "--retries", "0"]).args(self.args.clone())
    }

    fn assert_in(&self, head: &str) {
        for secret in self.secrets {
            assert!(head.to_lowercase().contains(&secret.to_lowercase()), "{secret} is missing:\n{head}");
        }
    }
}

fn assert_nothing_shown(what: &str, head: &str) {
    for name in ["authorization", "cookie", "x-api-key", "via"] {
        assert_eq!(header_of(head, name), None, "{what}: {head}");
    }
}

/// Answers with a redirect.
fn send_to(mut raw: Raw, status: u16, location: &str) {
    raw.send(format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"));
}

#[test]
fn another_origin_gets_no_header_token_or_password_and_neither_does_the_way_back() {
    let scratch = Scratch::new();
    for (scheme, stream) in STREAMS {
        for shown in every_way(&scratch) {
            for (status, before) in [(302, "http:"), (307, ""), (301, "http://own:word@")] {
                let (first, other) = (Server::new(), Server::new());
                let address = if before.contains('@') { other.address() } else { format!("//{}", other.address()) };
                let consumer = shown.consume(scheme, &first.address()).arg("--no-serve").start();
                let (raw, head) = first.accept();
                shown.assert_in(&head);
                send_to(raw, status, &format!("{before}{address}/elsewhere"));
                let (raw, head) = other.accept();
                assert!(head.starts_with("GET /elsewhere"), "{head}");
                assert_eq!(header_of(&head, "host"), Some(other.address()));
                assert_nothing_shown(scheme, &head);
                send_to(raw, status, &format!("http://{}/back", first.address()));
                let (mut raw, head) = first.accept();
                assert!(head.starts_with("GET /back"), "{head}");
                assert_nothing_shown(scheme, &head);
                raw.send(stream);
                assert_eq!(consumer.lines(1), ["arrived"]);
            }
        }
    }
}

#[test]
fn the_same_origin_is_shown_what_the_upstream_was() {
    let scratch = Scratch::new();
    for (scheme, stream) in STREAMS {
        for shown in every_way(&scratch) {
            for absolute in [false, true] {
                let first = Server::new();
                let consumer = shown.consume(scheme, &first.address()).arg("--no-serve").start();
                let (raw, _) = first.accept();
                let before = if absolute { format!("http://{}", first.address()) } else { String::new() };
                send_to(raw, 308, &format!("{before}/moved"));
                let (mut raw, head) = first.accept();
                assert!(head.starts_with("GET /moved"), "{head}");
                shown.assert_in(&head);
                raw.send(stream);
                assert_eq!(consumer.lines(1), ["arrived"]);
            }
        }
    }
}

#[test]
fn a_forwarder_shows_another_origin_as_little_and_says_why_it_is_refused() {
    let scratch = Scratch::new();
    let [shown, ..] = every_way(&scratch);
    let (first, other) = (Server::new(), Server::new());
    let hop = shown.consume("http", &first.address()).start();
    send_to(first.accept().0, 302, &format!("http://{}/", other.address()));
    let (mut raw, head) = other.accept();
    assert_nothing_shown("a forwarder", &head);
    raw.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    hop.said("credentials are not shown there");
}

/// What must end without a word to the other server.
fn assert_not_followed(mut running: Running, other: &Server, hint: &str) {
    assert_eq!(running.wait(), 76, "{}", running.stderr());
    assert!(running.stderr().contains(hint), "{}", running.stderr());
    assert!(other.is_untouched(), "{hint}");
}

#[test]
fn a_websocket_and_a_question_for_the_status_follow_no_redirect() {
    let scratch = Scratch::new();
    for shown in every_way(&scratch) {
        let (first, other) = (Server::new(), Server::new());
        let elsewhere = format!("http://{}/events", other.address());
        let consumer = shown.consume("ws", &first.address()).arg("--no-serve").start();
        let (raw, head) = first.accept();
        shown.assert_in(&head);
        send_to(raw, 302, &elsewhere);
        assert_not_followed(consumer, &other, "the server answered 302");
        let url = format!("http://{}{}/events", shown.login, first.address());
        let args = shown.args.iter().map(|arg| arg.replace("--consume-token-file", "--token-file"));
        let trace = Wsevent::new(["trace", &url]).args(args).start();
        let (raw, head) = first.accept();
        assert!(head.starts_with("GET /-/status"), "{head}");
        shown.assert_in(&head);
        send_to(raw, 302, &elsewhere);
        assert_not_followed(trace, &other, "302");
    }
}

#[test]
fn a_registry_that_redirects_is_no_list() {
    let scratch = Scratch::new();
    let (first, other) = (Server::new(), Server::new());
    let service = format!("registry+http://{}/web", first.address());
    let token = scratch.file("token", "token-of-a-file\n");
    let line = ["--balance", &service, "--balance-registry-token-file", &token, "--serve-address", "localhost:0"];
    let balancer = Wsevent::new(line).start();
    let (raw, head) = first.accept();
    assert_eq!(header_of(&head, "authorization").as_deref(), Some("Bearer token-of-a-file"));
    send_to(raw, 302, &format!("http://{}/services/web", other.address()));
    balancer.said("302");
    assert!(other.is_untouched());
}

#[test]
fn nothing_leads_from_tls_to_plain_or_to_another_protocol() {
    let authority = Authority::new();
    let identity = authority.issue(Kind::Good);
    let other = Server::new();
    let plain = format!("http://{}/events", other.address());
    let nginx = Nginx::with(&identity, format!("location / {{ return 302 {plain}; }}"));
    for scheme in ["https", "sse+https", "ndjson+https", "wss"] {
        let url = nginx.url(scheme, "localhost");
        let line = ["--consume", &url, "--ca", &authority.ca(), "--no-serve", "--retries", "0"];
        let hint = if scheme == "wss" { "the server answered 302" } else { "a redirect from https to http" };
        assert_not_followed(Wsevent::new(line).start(), &other, hint);
    }
    for location in [format!("ws://{}/events", other.address()), "file:///etc/hostname".into()] {
        let first = Server::new();
        let consumer = Wsevent::new(["--consume", &format!("http://{}/events", first.address()), "--no-serve"]);
        let consumer = consumer.args(["--retries", "0"]).start();
        send_to(first.accept().0, 302, &location);
        assert_not_followed(consumer, &other, "is not followed");
    }
}

#[test]
fn a_forwarder_stays_where_a_redirect_would_leave_tls() {
    let authority = Authority::new();
    let other = Server::new();
    let lines = format!("location / {{ return 302 http://{}/events; }}", other.address());
    let nginx = Nginx::with(&authority.issue(Kind::Good), lines);
    let hop = Wsevent::new(["--consume", &nginx.url("https", "localhost"), "--ca", &authority.ca()]).serve();
    hop.said("a redirect from https to http is not followed");
    eventually("not ready", || (hop.own("readyz").status == 503).then_some(()));
    assert!(other.is_untouched());
}

#[test]
fn our_certificate_is_for_the_origin_that_was_typed() {
    let authority = Authority::new();
    let (server, ours) = (authority.issue(Kind::Good), authority.issue(Kind::Both));
    let asks = "ssl_verify_client optional_no_ca; default_type text/event-stream;";
    let says = r#"return 200 "data: $ssl_client_verify\n\n";"#;
    let other = Nginx::with(&server, format!("{asks} location / {{ {says} }}"));
    let away = format!("location /events {{ return 302 {}; }}", other.url("https", "localhost"));
    let here = "location /moved { return 302 /own; }";
    let first = Nginx::with(&server, format!("{asks} location / {{ {says} }} {away} {here}"));
    let heard = |path: &str| {
        let url = first.url("https", "localhost").replace("/events", path);
        let line = ["--consume", &url, "--no-serve", "--ca", &authority.ca()];
        let consumer = Wsevent::new(line).args(["--tls-cert", &ours.cert, "--tls-key", &ours.key]).start();
        consumer.lines(1).remove(0)
    };
    assert_ne!(heard("/own"), "NONE");
    assert_ne!(heard("/moved"), "NONE");
    assert_eq!(heard("/events"), "NONE");
}
