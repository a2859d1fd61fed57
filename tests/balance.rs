//! The balancer as its clients and its back ends see it.

mod balancer;
mod certs;
mod common;

use balancer::{backend, hub, in_front_of, nobody, producer};
use certs::{Authority, Identity, Kind};
use common::{
    Running, Wsevent, eventually,
    raw::{self, Answer, Frame, Raw, Server, TEXT, header_of},
    run,
};
use std::process::Command;

/// Sends a request as it stands on a connection of its own.
fn says(balancer: &Running, request: &str) -> Answer {
    let mut raw = Raw::connect("localhost", balancer.port());
    raw.send(request);
    raw.finish_sending();
    let mut answer = raw.read_head();
    answer.body = raw.read_to_end();
    answer
}

#[test]
fn connections_are_spread_evenly_and_stay_where_they_are() {
    let producers = [producer(), producer(), producer()];
    let addresses = producers.each_ref().map(Running::address);
    let balancer = in_front_of(&addresses, "");
    let mut readers: Vec<Raw> = (0..9).map(|_| Raw::websocket(balancer.url())).collect();
    for reader in &mut readers {
        assert!(reader.read_message().is_some());
    }
    for producer in &producers {
        producer.has("readers", 3);
    }
    assert!(addresses.iter().all(|address| backend(&balancer, address)["active"] == 3));
    drop(readers);
    eventually("free back ends", || addresses.iter().all(|a| backend(&balancer, a)["active"] == 0).then_some(()));
}

#[test]
fn an_upgrade_passes_whole_and_says_who_asked() {
    let server = Server::new();
    let balancer = in_front_of([&server.address()], "");
    let host = balancer.address();
    let client = std::thread::spawn({
        let url = format!("http://{host}/any/path?q=1&r=%20");
        move || {
            let fields = "Sec-WebSocket-Protocol: chat, v2\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                          Cookie: a=b\r\nAuthorization: Bearer x\r\ntraceparent: 00-1-2-01\r\nX-Forwarded-For: 10.1.1.1\r\n\
                          Keep-Alive: 5\r\n";
            Raw::websocket_with(&url, fields)
        }
    });
    let (mut there, head) = server.accept_websocket("Sec-WebSocket-Protocol: v2\r\nSet-Cookie: s=1\r\n");
    assert!(head.starts_with("GET /any/path?q=1&r=%20 HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", host.as_str()),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-protocol", "chat, v2"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("cookie", "a=b"),
        ("authorization", "Bearer x"),
        ("traceparent", "00-1-2-01"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", host.as_str()),
        ("via", "1.1 wsevent"),
    ] {
        assert_eq!(header_of(&head, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(header_of(&head, "keep-alive"), None);
    let through = header_of(&head, "x-forwarded-for").expect("who asked");
    assert!(through.starts_with("10.1.1.1, "), "{through}");
    let (mut here, answer) = client.join().expect("a client");
    assert_eq!((answer.header("sec-websocket-protocol"), answer.header("set-cookie")), (Some("v2"), Some("s=1")));
    here.send_frame(&Frame::new(TEXT, "there"));
    assert_eq!(there.read_frame().expect("a frame").text(), "there");
    let large = Frame::from_server(TEXT, "x".repeat(3 << 20));
    there.send_frame(&large);
    assert_eq!(here.read_frame().expect("a frame"), large);
    drop(there);
    assert_eq!(here.read_frame(), None);
}

#[test]
fn streams_posts_and_pages_pass() {
    let hub = hub();
    let balancer = in_front_of([&hub.address()], "");
    let url = balancer.url();
    let mut streams: Vec<Raw> = ["text/event-stream", "application/x-ndjson"]
        .into_iter()
        .map(|kind| {
            let mut raw = Raw::connect("localhost", balancer.port());
            raw.send(format!("GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: {kind}\r\n\r\n"));
            let answer = raw.read_head();
            assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{answer:?}");
            raw
        })
        .collect();
    hub.has("readers", 2);
    assert_eq!(raw::post(url, "first").status, 200);
    for stream in &mut streams {
        stream.read_until("first");
    }
    // Two requests on one connection, then an upgrade on it.
    let mut kept = Raw::connect("localhost", balancer.port());
    for event in ["second", "third"] {
        let length = event.len();
        kept.send(format!("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{event}"));
        assert_eq!(kept.read_head().status, 200);
        kept.read_until("}");
    }
    kept.send(
        "GET /events?since=oldest HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(kept.read_head().status, 101);
    for event in ["first", "second", "third"] {
        assert_eq!(kept.read_message().expect("an event").text(), event);
    }
    let page = raw::get(url);
    assert_eq!(page.text(), r#"["first","second","third"]"#);
    assert_eq!(raw::get(&format!("http://{}/nowhere", balancer.address())).status, 404);
    assert_eq!(balancer.own("healthz").status, 200);
    drop(streams);
    hub.has("readers", 1);
}

#[test]
fn the_next_back_end_is_asked_while_nothing_was_answered() {
    let (good, silent) = (producer(), Server::new());
    let garbage = Server::new().answer_all("220 mail.example ESMTP\r\n\r\n");
    let half = Server::new();
    let half_address = half.address();
    let half = std::thread::spawn(move || half.accept().0.send("HTTP/1.1 200 OK\r\nContent-"));
    let upset = Server::new().answer_all("HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n");
    let (refusing, silent_address) = (nobody(), silent.address());
    let backends = [&refusing, &silent_address, &garbage, &half_address, &upset, &good.address()];
    let balancer =
        in_front_of(backends, "--handshake-timeout 300ms --breaker-failures 2 --breaker-base 1h --breaker-cap 1h");
    for _ in 0..12 {
        assert!(Raw::websocket(balancer.url()).read_message().is_some());
        assert_eq!(raw::get(balancer.url()).status, 200);
    }
    half.join().expect("half an answer");
    for address in [&refusing, &silent_address, &garbage, &upset] {
        let known = backend(&balancer, address);
        assert_eq!((&known["breaker"], &known["failures"]), (&"open".into(), &2.into()), "{known}");
    }
    assert_eq!(backend(&balancer, &good.address())["failed"], 0);
    let news = raw::get(&format!("http://{}/-/balancer", balancer.address())).text();
    assert!(news.contains("circuit_open") && news.contains(&refusing), "{news}");
}

#[test]
fn all_down_is_told_and_needs_no_restart() {
    let mut back = producer();
    let balancer = in_front_of([&back.address(), &nobody()], "--breaker-failures 1 --breaker-base 1h --breaker-cap 1h");
    back.kill9();
    for _ in 0..3 {
        for headers in ["", "Accept: text/event-stream\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n"] {
            let answer = raw::request("GET", balancer.url(), headers, b"");
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{headers}");
        }
        assert_eq!(raw::post(balancer.url(), "x").status, 503);
    }
    back.start_again();
    // Its breaker is open for an hour: the least bad one is tried anyway.
    assert!(Raw::websocket(balancer.url()).read_message().is_some());
    assert_eq!(backend(&balancer, &back.address())["breaker"], "closed");
}

#[test]
fn requests_that_two_servers_could_read_differently_go_nowhere() {
    let server = Server::new();
    let balancer = in_front_of([&server.address()], "");
    let mut wrong = vec![
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_owned(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +4\r\n\r\nabcd".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n folded: b\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: localhost\r\nX : a\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\nContent-Length: 4\r\n\r\nabcd".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4, 5\r\n\r\nabcde".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x4\r\n\r\nabcd".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551616\r\n\r\nabcd".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length\0: 4\r\n\r\nabcd".into(),
        "GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        "GET / HTTP/1.1\r\n Host: localhost\r\n\r\n".into(),
    ];
    wrong.push(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100 << 10)));
    for request in wrong {
        let answer = says(&balancer, &request);
        assert!((400..500).contains(&answer.status), "{request:.120}: {answer:?}");
    }
    assert_eq!(backend(&balancer, &server.address())["taken"], 0);
}

#[test]
fn what_lies_behind_a_streams_request_is_not_passed_on() {
    let server = Server::new();
    let balancer = in_front_of([&server.address()], "");
    let mut client = Raw::connect("localhost", balancer.port());
    client.send("GET /a HTTP/1.1\nHost: localhost\nAccept: text/event-stream\n\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (mut there, head) = server.accept();
    assert!(head.starts_with("GET /a HTTP/1.1\r\n") && !head.contains("smuggled"), "{head}");
    there.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n");
    client.read_until("data: x\n\n");
    drop(client);
    eventually("the relay's end", || there.try_send("data: y\n\n").is_err().then_some(()));
    assert_eq!(there.read_to_end(), b"");
    assert_eq!(backend(&balancer, &server.address())["taken"], 1);
}

#[test]
fn a_back_end_that_breaks_off_ends_its_own_reader_only() {
    let server = Server::new();
    let balancer = in_front_of([&server.address()], "");
    let open = |kind: &'static str| {
        let url = format!("http://{}/{kind}", balancer.address());
        std::thread::spawn(move || Raw::websocket(&url))
    };
    let reader = open("first");
    let (mut broken, _) = server.accept_websocket("");
    let mut reader = reader.join().expect("a client");
    let other = open("second");
    let (mut whole, _) = server.accept_websocket("");
    let mut other = other.join().expect("a client");
    // Half a frame, then nothing more.
    broken.send([0x81, 0x7e, 0x01]);
    drop(broken);
    assert_eq!(reader.read_frame(), None);
    whole.send_frame(&Frame::from_server(TEXT, "still here"));
    assert_eq!(other.read_frame().expect("a frame").text(), "still here");
    // A client that says nothing more frees its back end, too.
    drop(other);
    assert_eq!(whole.read_frame(), None);
}

#[test]
fn a_request_that_does_not_come_is_not_waited_for() {
    let server = Server::new();
    let balancer = in_front_of([&server.address()], "--handshake-timeout 200ms");
    let mut slow = Raw::connect("localhost", balancer.port());
    slow.send("GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    assert_eq!(slow.read_head().status, 408);
    assert_eq!(backend(&balancer, &server.address())["taken"], 0);
}

/// LINKS 24: a link from this machine gets everything, but not one that a proxy on this machine brought from elsewhere.
#[test]
fn what_is_for_others_does_not_pass_to_a_relayed_link() {
    let hub = hub();
    let balancer = in_front_of([&hub.address()], "");
    let read = |url: String| Wsevent::new(["--consume", &url, "--no-serve"]).start();
    let (direct, relayed) = (read(hub.ws_url()), read(balancer.ws_url()));
    hub.has("readers", 2);
    assert_eq!(raw::post(&format!("{}?role=admin", hub.url()), "for admins\n").status, 200);
    assert_eq!(raw::post(hub.url(), "for all\n").status, 200);
    assert_eq!(direct.lines(2), ["for admins", "for all"]);
    assert_eq!(relayed.lines(1), ["for all"]);
}

#[test]
fn who_traces_a_relay_is_told_whom_to_trace() {
    let hub = hub();
    let whole = in_front_of([hub.address()], "");
    let topic = in_front_of([hub.url()], "--balance-mode relay --serve-path /room");
    for url in [whole.ws_url(), topic.ws_url()] {
        let done = Wsevent::new(["trace", "--count", "1", &url]).run();
        let hint = format!("a balancer relays bytes there: trace {}\n", hub.url());
        assert!(done.code != 0 && done.stderr.ends_with(&hint), "{done:?}");
    }
}

#[test]
fn tls_stands_on_either_side() {
    let authority = Authority::new();
    let Identity { cert, key } = authority.issue(Kind::Good);
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let ca = authority.ca();
    let hub = Wsevent::line("--no-produce --accept-publish").args(tls).serve();
    let server = hub.url().trim_end_matches("/events").to_owned();
    let relay = Wsevent::new(["--balance", &server, "--ca", &ca]).args(tls).serve();
    let stream = Wsevent::new(["--balance", hub.url(), "--ca", &ca]).args(tls).serve();
    let consumers = [&relay, &stream].into_iter().flat_map(|balancer| {
        let schemes = ["wss", "sse+https", "ndjson+https"];
        schemes.map(|scheme| {
            let url = balancer.url().replacen("https", scheme, 1);
            Wsevent::new(["--consume", &url, "--no-serve", "--ca", &ca]).start()
        })
    });
    let consumers: Vec<Running> = consumers.collect();
    for consumer in &consumers {
        consumer.said("connected");
    }
    for (balancer, event) in [(&relay, "one"), (&stream, "two")] {
        // Over HTTP/2, where the program knows it.
        let mut curl = Command::new("curl");
        let posted = run({
            curl.args(["-sS", "--fail", "--cacert", &ca, "-d", &format!("{event}\n"), balancer.url()]);
            curl
        });
        assert_eq!(posted.code, 0, "{}", posted.stderr);
    }
    for consumer in &consumers {
        assert_eq!(consumer.lines(2), ["one", "two"]);
    }
}

#[test]
fn a_proxy_says_for_whom_it_connects() {
    let hub = Wsevent::line("--no-produce --proxy-protocol").serve();
    let server = Server::new();
    let checks = "--health-path /-/healthz --health-interval 2s --health-fall 1";
    let to_hub = in_front_of([&hub.address()], &format!("--balance-proxy-protocol {checks}"));
    assert_eq!(raw::post(to_hub.url(), "x").status, 200);
    assert!(Raw::websocket(&format!("{}?since=oldest", to_hub.url())).read_message().is_some());
    // By hand, version 2, TCP over IPv4 from 203.0.113.7.
    let balancer = in_front_of([&server.address()], "--proxy-protocol");
    let mut client = Raw::connect("localhost", balancer.port());
    client.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x7f\0\0\x01\x12\x34\0\x50");
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    let (_there, head) = server.accept();
    assert_eq!(header_of(&head, "x-forwarded-for").as_deref(), Some("203.0.113.7"));
    // Whoever says nothing of the kind is nobody's proxy.
    assert_eq!(says(&balancer, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 0);
    let known = backend(&to_hub, &hub.address());
    assert_eq!((&known["healthy"], &known["failed"]), (&true.into(), &0.into()), "its checks say so, too");
}

#[test]
fn a_topic_is_relayed_however_its_path_is_spelled() {
    let backend = Server::new().answer_all("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhere");
    let balancer = in_front_of([format!("http://{backend}/events")], "--balance-mode relay");
    for path in ["/events", "/%65vents"] {
        let answer = raw::get(&format!("http://{}{path}", balancer.address()));
        assert_eq!((answer.status, answer.text().as_str()), (200, "here"), "{path}");
    }
}
