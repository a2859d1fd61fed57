//! Bad input ends the connection that it came from, with the right code and one log line; everyone else keeps streaming.

mod common;

use common::{
    Running, Wsevent, eventually,
    raw::{self, Answer, BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Raw, Server, TEXT, header_of},
};
use std::{io::Write, net::TcpStream, thread, time::Duration};

/// A producer with two readers who did nothing wrong.
struct House {
    producer: Running,
    by_websocket: Raw,
    by_event_stream: Raw,
    said: u32,
}

impl House {
    fn new(options: &str) -> Self {
        let line = Wsevent::line("--produce - --slow-reader disconnect").args(options.split_whitespace());
        House::of(line.piped().serve())
    }

    fn of(producer: Running) -> Self {
        let by_websocket = Raw::websocket(&producer.ws_url());
        let by_event_stream = event_stream(&producer);
        let mut house = House { producer, by_websocket, by_event_stream, said: 0 };
        house.is_fine();
        house
    }

    /// The neighbours get the next event.
    fn is_fine(&mut self) {
        self.said += 1;
        let event = format!("event {}", self.said);
        self.producer.write(format!("{event}\n"));
        self.heard(&event);
    }

    fn heard(&mut self, event: &str) {
        let got = self.by_websocket.read_message().map(|frame| frame.text());
        assert_eq!(got.as_deref(), Some(event), "the neighbour on WebSocket");
        self.by_event_stream.read_until(&format!("data: {event}\n\n"));
    }

    /// A reader that is about to do something wrong.
    fn visitor(&self) -> Raw {
        Raw::websocket(&self.producer.ws_url())
    }

    fn address(&self) -> String {
        self.producer.address()
    }

    /// Bytes on a connection of their own, and what is answered.
    fn answers(&self, request: &str) -> Answer {
        let mut raw = Raw::connect("localhost", self.producer.port());
        raw.send(request.replace("HOST", &self.address()));
        raw.read_head()
    }

    /// Log lines about the peer that used this connection, once there is one.
    fn log_lines_about(&self, visitor: &Raw) -> usize {
        let peer = visitor.stream.local_addr().expect("an address").to_string();
        eventually("a log line", || {
            let lines = self.producer.stderr().lines().filter(|line| line.contains(&peer)).count();
            (lines > 0).then_some(lines)
        })
    }
}

fn event_stream(producer: &Running) -> Raw {
    let mut raw = Raw::connect("localhost", producer.port());
    let path = raw::split_url(producer.url()).2;
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", producer.address()));
    raw.read_until("\r\n\r\n");
    raw
}

fn frame(opcode: u8, payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(opcode, payload)
}

fn part(opcode: u8, payload: impl Into<Vec<u8>>) -> Frame {
    Frame { fin: false, ..Frame::new(opcode, payload) }
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::to_bytes).collect()
}

/// Every kind of malformed input, and the close code that it deserves. The limit for messages is 1,000 bytes.
fn faults() -> Vec<(&'static str, Vec<u8>, u16)> {
    let unmasked = |opcode, payload: &str| Frame::from_server(opcode, payload);
    let reserved = |rsv| Frame { rsv, ..frame(TEXT, "x") };
    let mut faults = vec![
        ("an unmasked text", unmasked(TEXT, "x").to_bytes(), 1002),
        ("an unmasked ping", unmasked(PING, "").to_bytes(), 1002),
        ("an unmasked close", Frame { masked: false, ..Frame::close(1000, "") }.to_bytes(), 1002),
        ("RSV1 without compression", reserved(4).to_bytes(), 1002),
        ("RSV2", reserved(2).to_bytes(), 1002),
        ("RSV3", reserved(1).to_bytes(), 1002),
        ("RSV1 on a ping", Frame { rsv: 4, ..frame(PING, "x") }.to_bytes(), 1002),
        ("a fragmented ping", part(PING, "x").to_bytes(), 1002),
        ("a ping of 126 bytes", frame(PING, [0; 126]).to_bytes(), 1002),
        ("a continuation of nothing", frame(CONTINUATION, "x").to_bytes(), 1002),
        ("a message inside a message", bytes(&[part(TEXT, "x"), frame(TEXT, "y")]), 1002),
        ("a close of one byte", frame(CLOSE, [3]).to_bytes(), 1002),
        ("a close whose reason is not UTF-8", frame(CLOSE, b"\x03\xe8\xff").to_bytes(), 1007),
        ("a length with its top bit set", [&[0x81, 0xff][..], &[0xff; 8], &[0; 4]].concat(), 1002),
        ("a length of nearly everything", [&[0x82, 0xff, 0x7f][..], &[0xff; 7], &[0; 4]].concat(), 1009),
        ("one byte over the limit", frame(BINARY, [0; 1001]).to_bytes(), 1009),
        ("fragments over the limit", bytes(&[part(BINARY, [0; 600]), part(CONTINUATION, [0; 401])]), 1009),
        ("HTTP after the upgrade", b"GET /events HTTP/1.1\r\n\r\n".to_vec(), 1002),
    ];
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        faults.push(("a reserved opcode", frame(opcode, "x").to_bytes(), 1002));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535] {
        faults.push(("a close code that must not be sent", Frame::close(code, "").to_bytes(), 1002));
    }
    let not_utf8: [&[u8]; 8] = [
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"ok \x80 ok",
        b"\xf0\x8f\xbf\xbf",
        b"12345678901234567890123456789012345678901234567890123456789012345678901234567890\xfe",
    ];
    for text in not_utf8 {
        faults.push(("text that is not UTF-8", frame(TEXT, text).to_bytes(), 1007));
        let (head, tail) = text.split_at(text.len() / 2);
        let fragments = bytes(&[part(TEXT, head), part(CONTINUATION, ""), frame(CONTINUATION, tail)]);
        faults.push(("fragmented text that is not UTF-8", fragments, 1007));
    }
    faults
}

#[test]
fn malformed_frames_end_their_connection_with_the_right_code_and_one_log_line() {
    let mut house = House::new("--max-message 1000");
    for (what, bytes, code) in faults() {
        let mut visitor = house.visitor();
        visitor.send(&bytes);
        let close = visitor.read_close().unwrap_or_else(|| panic!("{what}: no close frame"));
        assert_eq!(close.close_code(), code, "{what}: {}", close.text());
        assert_eq!(house.log_lines_about(&visitor), 1, "{what}");
        house.is_fine();
    }
}

#[test]
fn a_byte_at_a_time_makes_no_difference() {
    let mut house = House::new("--max-message 1000");
    for (what, bytes, code) in faults().into_iter().step_by(5) {
        let mut visitor = house.visitor();
        for byte in bytes {
            if visitor.try_send([byte]).is_err() {
                break;
            }
        }
        assert_eq!(visitor.read_close().map(|close| close.close_code()), Some(code), "{what}");
    }
    house.is_fine();
}

#[test]
fn publishers_are_held_to_the_same_rules_and_nothing_of_theirs_is_published() {
    let hub = Wsevent::line("--no-produce --max-message 1000").serve();
    let mut neighbour = Raw::websocket(&hub.ws_url());
    for (what, bytes, code) in faults() {
        let mut visitor = Raw::websocket(&hub.ws_url());
        visitor.send(&bytes);
        let close = visitor.read_close().unwrap_or_else(|| panic!("{what}: no close frame"));
        assert_eq!(close.close_code(), code, "{what}: {}", close.text());
        raw::post(hub.url(), what);
        assert_eq!(neighbour.read_message().map(|frame| frame.text()).as_deref(), Some(what));
    }
}

#[test]
fn what_a_publisher_said_before_its_mistake_counts() {
    let hub = Wsevent::line("--no-produce").serve();
    let (mut neighbour, mut visitor) = (Raw::websocket(&hub.ws_url()), Raw::websocket(&hub.ws_url()));
    visitor.send(bytes(&[
        frame(TEXT, "one"),
        frame(BINARY, "two"),
        Frame::from_server(TEXT, "unmasked"),
        frame(TEXT, "four"),
    ]));
    assert_eq!(visitor.read_close().map(|close| close.close_code()), Some(1002));
    raw::post(hub.url(), "after");
    let heard: Vec<String> = (0..3).map(|_| neighbour.read_message().expect("an event").text()).collect();
    assert_eq!(heard, ["one", "two", "after"]);
}

#[test]
fn what_looks_odd_but_is_allowed_is_served() {
    let hub = Wsevent::line("--no-produce --max-message 1000").serve();
    let mut visitor = Raw::websocket(&hub.ws_url());
    let mut hears = |frames: &[Frame], expected: Frame| {
        visitor.send(bytes(frames));
        let heard = std::iter::from_fn(|| visitor.read_frame()).find(|frame| frame.opcode != PING);
        assert_eq!(heard, Some(Frame { masked: false, ..expected }));
    };
    hears(&[frame(PING, "")], frame(PONG, ""));
    hears(&[frame(PING, [7; 125])], frame(PONG, [7; 125]));
    hears(&[frame(PONG, "unasked"), frame(TEXT, "x")], frame(TEXT, "x"));
    hears(&[frame(TEXT, "")], frame(TEXT, ""));
    hears(&[frame(BINARY, b"\xff")], frame(BINARY, b"\xff"));
    hears(&[frame(TEXT, "x".repeat(1000))], frame(TEXT, "x".repeat(1000)));
    hears(&[part(TEXT, b"\xe2"), part(CONTINUATION, b"\x82"), frame(CONTINUATION, b"\xac")], frame(TEXT, "€"));
    hears(&[part(TEXT, ""), part(CONTINUATION, ""), frame(CONTINUATION, "")], frame(TEXT, ""));
    hears(&[part(TEXT, "a"), frame(PONG, "between"), frame(CONTINUATION, "b")], frame(TEXT, "ab"));
    // The limit is for messages: a control frame between its fragments is none.
    hears(&[part(TEXT, "x".repeat(1000)), frame(PING, "full")], frame(PONG, "full"));
    hears(&[frame(CONTINUATION, "")], frame(TEXT, "x".repeat(1000)));
}

#[test]
fn a_tiny_limit_is_a_limit() {
    let hub = Wsevent::line("--no-produce --max-message 10").serve();
    let mut visitor = Raw::websocket(&hub.ws_url());
    visitor.send_frame(&frame(TEXT, "eleven long"));
    assert_eq!(visitor.read_close().map(|close| close.close_code()), Some(1009));
    assert_eq!(raw::post(hub.url(), "eleven long").status, 413);
    assert_eq!(raw::post(hub.url(), "ten bytes.").status, 200);
}

#[test]
fn a_close_is_answered_with_its_code() {
    let house = House::new("");
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4999] {
        let mut visitor = house.visitor();
        visitor.send_frame(&Frame::close(code, "bye"));
        assert_eq!(visitor.read_close().map(|close| close.close_code()), Some(code));
        assert!(visitor.read_to_end().is_empty(), "nothing follows a close");
    }
    let mut silent = house.visitor();
    silent.send_frame(&frame(CLOSE, ""));
    assert_eq!(silent.read_close().map(|close| close.payload), Some(vec![]));
}

/// The default limit, and a payload of which every piece looks like pings on the wire.
#[test]
fn an_oversized_message_is_refused_by_its_header_and_the_rest_of_it_is_no_input() {
    let mut house = House::new("");
    for filler in [&b"\x89\x80\0\0\0\0"[..], b"\x88\x80\0\0\0\0", b"\x81\x80\0\0\0\0"] {
        let mut visitor = house.visitor();
        let header = [&[0x82, 0xff][..], &(8u64 << 20).to_be_bytes(), &[0; 4]].concat();
        visitor.send(header);
        let flood = filler.repeat((8 << 20) / filler.len());
        let mut sender = visitor.stream.try_clone().expect("a socket");
        let sending = thread::spawn(move || drop(sender.write_all(&flood)));
        let close = visitor.read_close().expect("a close frame, not a reset");
        assert_eq!(close.close_code(), 1009);
        sending.join().expect("sent");
        house.is_fine();
    }
    let mut honest = house.visitor();
    honest.send_frame(&frame(BINARY, vec![0; 1 << 20]));
    honest.send_frame(&frame(PING, "still here"));
    while honest.read_frame().expect("a pong").opcode != PONG {}
}

#[test]
fn a_flood_of_pings_that_nobody_reads_costs_nothing() {
    let mut house = House::new("");
    let before = house.producer.memory();
    let visitor = house.visitor();
    visitor.stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a time-out");
    let pings = frame(PING, [0; 125]).to_bytes().repeat(1000);
    let mut visitor = visitor;
    for _ in 0..300 {
        if visitor.try_send(&pings).is_err() {
            break;
        }
    }
    house.is_fine();
    let grown = house.producer.memory().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB for 39 MB of pings");
}

// --- handshakes ------------------------------------------------------------------------------------------------------

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn bad_handshakes_get_the_right_status() {
    let mut house = House::new("");
    let get = |headers: &str| format!("GET /events HTTP/1.1\r\nHost: HOST\r\n{headers}\r\n");
    let table: [(&str, String, u16); 16] = [
        ("another version", get(&format!("{UPGRADE}{KEY}Sec-WebSocket-Version: 12\r\n")), 426),
        ("no version", get(&format!("{UPGRADE}{KEY}")), 426),
        ("no key", get(&format!("{UPGRADE}{VERSION}")), 400),
        ("an empty key", get(&format!("{UPGRADE}{VERSION}Sec-WebSocket-Key: \r\n")), 400),
        ("no Connection", get(&format!("Upgrade: websocket\r\n{KEY}{VERSION}")), 400),
        ("another Connection", get(&format!("Connection: close\r\nUpgrade: websocket\r\n{KEY}{VERSION}")), 400),
        ("a foreign origin", get(&format!("{UPGRADE}{KEY}{VERSION}Origin: http://evil.example\r\n")), 403),
        ("no origin at all, said aloud", get(&format!("{UPGRADE}{KEY}{VERSION}Origin: null\r\n")), 403),
        ("another port's origin", get(&format!("{UPGRADE}{KEY}{VERSION}Origin: http://localhost:1\r\n")), 403),
        ("a wrong path", get(&format!("{UPGRADE}{KEY}{VERSION}")).replace("/events", "/other"), 404),
        ("a path below", get(&format!("{UPGRADE}{KEY}{VERSION}")).replace("/events", "/events/"), 404),
        ("HTTP/1.0", get(&format!("{UPGRADE}{KEY}{VERSION}")).replace("/1.1", "/1.0"), 400),
        ("no Host", get(&format!("{UPGRADE}{KEY}{VERSION}")).replace("Host: HOST\r\n", ""), 400),
        ("POST", get(&format!("{UPGRADE}{KEY}{VERSION}Content-Length: 0\r\n")).replace("GET", "POST"), 405),
        (
            "a foreign origin on an event stream",
            get("Accept: text/event-stream\r\nOrigin: http://evil.example\r\n"),
            403,
        ),
        ("a foreign origin on history", get("Origin: http://evil.example\r\n"), 403),
    ];
    for (what, request, status) in table {
        let answer = house.answers(&request);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{what}");
        }
        if status == 405 {
            assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{what}: {answer:?}");
        }
    }
    house.is_fine();
}

#[test]
fn spellings_that_are_correct_are_served() {
    let mut house = House::new("");
    for headers in [
        "connection: keep-alive, upgrade\r\nUPGRADE: WebSocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n",
        "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\nOrigin: http://HOST\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
    ] {
        let answer = house.answers(&format!("GET /events HTTP/1.1\r\nHost: HOST\r\n{headers}\r\n"));
        assert_eq!(answer.status, 101, "{headers}: {answer:?}");
        assert_eq!(answer.header("sec-websocket-protocol"), None, "nothing of what was offered is spoken here");
        assert_eq!(answer.header("sec-websocket-extensions"), None);
    }
    let absolute = house.answers("GET http://HOST/events HTTP/1.1\r\nHost: HOST\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(absolute.status, 200, "absolute form (RFC 9112 §3.2.2): {absolute:?}");
    house.is_fine();
}

#[test]
fn allow_origin_lets_the_named_pages_in() {
    let mut house = House::new("--allow-origin http://friend.example --allow-origin https://other.example:444");
    let ask = |origin: &str, accept: &str| {
        house.answers(&format!("GET /events HTTP/1.1\r\nHost: HOST\r\nOrigin: {origin}\r\nAccept: {accept}\r\n\r\n"))
    };
    for accept in ["text/event-stream", "application/x-ndjson", "application/json"] {
        for origin in ["http://friend.example", "https://other.example:444"] {
            let answer = ask(origin, accept);
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(origin)), "{accept}");
            assert_eq!(answer.header("vary"), Some("Origin"), "{accept}");
        }
        for origin in
            ["http://enemy.example", "http://friend.example.evil", "https://friend.example", "http://other.example"]
        {
            let answer = ask(origin, accept);
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None), "{origin} {accept}");
        }
    }
    house.is_fine();
    let open = Wsevent::line("--allow-origin *").serve();
    let headers = "Origin: https://anybody.example\r\n";
    assert_eq!(Raw::ask_websocket(&open.ws_url(), headers).1.status, 101);
}

#[test]
fn a_wrong_path_is_404_on_every_protocol() {
    let mut house = House::new("");
    let port = house.producer.port();
    for path in
        ["/", "/event", "/events/", "/Events", "/events%20", "/%65vents", "//events", "/../events", "/-", "/-/secret"]
    {
        for accept in ["text/event-stream", "application/x-ndjson", "application/json", "*/*"] {
            let answer =
                raw::request("GET", &format!("http://localhost:{port}{path}"), &format!("Accept: {accept}\r\n"), b"");
            assert_eq!(answer.status, 404, "{path} {accept}: {}", answer.text());
        }
        let post = raw::post(&format!("http://localhost:{port}{path}"), "x");
        assert_eq!(post.status, 404, "POST {path}: {}", post.text());
    }
    house.is_fine();
}

#[test]
fn what_is_not_http_is_400_or_hung_up() {
    let mut house = House::new("");
    let not_http: [&[u8]; 9] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /events\r\n\r\n",
        b"GET /events HTTP/3.7\r\n\r\n",
        b"GET /ev ents HTTP/1.1\r\n\r\n",
        b"GET /events HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ];
    for bytes in not_http {
        let mut raw = Raw::connect("localhost", house.producer.port());
        raw.send(bytes);
        let answer = raw.read_head();
        assert_eq!(answer.status, 400, "{:?}: {answer:?}", String::from_utf8_lossy(bytes));
        house.is_fine();
    }
    let mut silent = Raw::connect("localhost", house.producer.port());
    silent.finish_sending();
    assert!(silent.read_to_end().is_empty(), "who says nothing is answered nothing");
    let mut half = Raw::connect("localhost", house.producer.port());
    half.send("GET /events HT");
    half.finish_sending();
    half.read_to_end();
    house.is_fine();
}

#[test]
fn request_heads_that_are_too_large_are_431() {
    let mut house = House::new("");
    let long_field = format!("GET /events HTTP/1.1\r\nHost: HOST\r\nX-Long: {}\r\n\r\n", "x".repeat(100_000));
    let many_fields = format!("GET /events HTTP/1.1\r\nHost: HOST\r\n{}\r\n", "X-Many: x\r\n".repeat(1000));
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: HOST\r\n\r\n", "x".repeat(100_000));
    for (what, request) in [("a long field", &long_field), ("many fields", &many_fields), ("a long path", &long_path)] {
        let status = house.answers(request).status;
        assert!(status == 431 || (what == "a long path" && status == 414), "{what}: {status}");
        house.is_fine();
    }
    let mut endless = Raw::connect("localhost", house.producer.port());
    while endless.try_send("x".repeat(1 << 16)).is_ok() {}
    house.is_fine();
    let reasonable = format!("GET /events HTTP/1.1\r\nHost: HOST\r\nCookie: {}\r\n\r\n", "x".repeat(8_000));
    assert_eq!(house.answers(&reasonable).status, 200, "8 kB of cookies are usual");
}

#[test]
fn query_parameters_that_cannot_be_read_are_400_and_absurd_ones_do_no_harm() {
    let mut house = House::new("");
    let port = house.producer.port();
    let ask = |query: &str, accept: &str| {
        let mut raw = Raw::connect("localhost", port);
        raw.send(format!("GET /events?{query} HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: {accept}\r\n\r\n"));
        raw.read_head().status
    };
    let epoch = "e000000000000000000000z";
    for accept in ["application/json", "text/event-stream", "application/x-ndjson"] {
        for query in ["since=yesterday", "since=last:x", "since=-1", "since=5y", "last_event_id=42x", "since=%ff%fe"] {
            assert_eq!(ask(query, accept), 400, "{query} {accept}");
        }
        for query in [
            "since=18446744073709551615",
            "since=0",
            "since=last:18446744073709551615",
            "since=584942417d",
            "since=99999999999999999999999h",
            &format!("since={epoch}-9007199254740991"),
            &format!("since={epoch}-9007199254740991.4294967294"),
            &format!("since={epoch}-0"),
            "since=",
            "=&&=&since",
        ] {
            let status = ask(query, accept);
            assert!([200, 400].contains(&status), "{query} {accept}: {status}");
        }
    }
    for query in ["limit=x", "limit=-1", "after=5", "wait=soon&poll=1"] {
        assert_eq!(ask(query, "application/json"), 400, "{query}");
    }
    for query in ["limit=18446744073709551615", "limit=0", "poll=0&wait=99999999h"] {
        assert_eq!(ask(query, "application/json"), 200, "{query}");
    }
    house.is_fine();
}

// --- slowness and floods ---------------------------------------------------------------------------------------------

#[test]
fn a_slow_handshake_is_given_up() {
    let mut house = House::new("--handshake-timeout 300ms");
    let port = house.producer.port();
    let mut silent = Raw::connect("localhost", port);
    let mut half = Raw::connect("localhost", port);
    half.send("GET /events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n");
    house.is_fine();
    assert!([0, 408].contains(&silent.read_head().status));
    assert_eq!(half.read_head().status, 408);
    let mut trickle = Raw::connect("localhost", port);
    let head = "GET /events HTTP/1.1\r\nX-Slow: ".chars().chain(std::iter::repeat('x'));
    for letter in head {
        // The pace of a client that never comes to the end of its head.
        thread::sleep(Duration::from_millis(20));
        if trickle.try_send(letter.to_string()).is_err() {
            break;
        }
    }
    house.is_fine();
}

#[test]
fn a_slow_body_is_given_up() {
    let hub = Wsevent::line("--no-produce --handshake-timeout 300ms --max-connections 3").serve();
    let mut neighbour = Raw::websocket(&hub.ws_url());
    let mut slow = Raw::connect("localhost", hub.port());
    slow.send("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nnever more");
    let status = slow.read_head().status;
    assert!([0, 400, 408].contains(&status), "{status}");
    assert_eq!(raw::post(hub.url(), "fine").status, 200);
    assert_eq!(neighbour.read_message().map(|frame| frame.text()).as_deref(), Some("fine"));
}

#[test]
fn an_idle_connection_between_two_requests_is_given_up() {
    let mut house = House::new("--handshake-timeout 300ms");
    let mut lingering = Raw::connect("localhost", house.producer.port());
    lingering.send("GET /-/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(lingering.read_head().status, 200);
    lingering.read_to_end();
    house.is_fine();
}

#[test]
fn a_connection_over_the_limit_is_told_to_come_back_before_any_upgrade() {
    // Two neighbours, one visitor.
    let mut house = House::new("--max-connections 3");
    let visitor = house.visitor();
    for _ in 0..3 {
        let (_, answer) = Raw::ask_websocket(&house.producer.ws_url(), "");
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{answer:?}");
    }
    house.is_fine();
    drop(visitor);
    eventually("a free place", || (Raw::ask_websocket(&house.producer.ws_url(), "").1.status == 101).then_some(()));
    house.is_fine();
}

#[test]
fn a_flood_of_connections_leaves_the_readers_alone() {
    let mut house = House::new("--max-connections 20 --handshake-timeout 300ms");
    let port = house.producer.port();
    for round in 0..3 {
        let mut flood: Vec<TcpStream> = (0..500).filter_map(|_| TcpStream::connect(("localhost", port)).ok()).collect();
        if round == 1 {
            flood.iter_mut().for_each(|stream| drop(stream.write_all(b"GET /events HTTP/1.1\r\n")));
        }
        house.is_fine();
        eventually("a free place while the flood stands", || {
            (Raw::ask_websocket(&house.producer.ws_url(), "").1.status == 101).then_some(())
        });
        house.is_fine();
    }
}

#[test]
fn a_subscriber_that_never_reads_is_closed_and_nobody_else_notices() {
    let mut house = House::new("--history-bytes 1MiB");
    let mut stalled = [house.visitor(), event_stream(&house.producer)];
    let event = "x".repeat(1 << 16);
    let peer = stalled[0].stream.local_addr().expect("an address").to_string();
    // Until all buffers between the two are full: the neighbours take each event before the next is made.
    eventually("the goodbye in the log", || {
        house.producer.write(format!("{event}\n"));
        house.heard(&event);
        house.producer.stderr().contains(&peer).then_some(())
    });
    let close = stalled[0].read_close().expect("a close frame");
    assert_eq!(close.close_code(), 1013);
    assert!(close.payload[2..].starts_with(b"slow e"), "with the place to resume behind: {}", close.text());
    stalled[1].read_to_end();
    house.is_fine();
    assert!(house.producer.memory() < 100 << 10, "{} KiB", house.producer.memory());
}

#[test]
fn hundreds_of_subscribers_that_never_read_cost_no_memory() {
    let mut house = House::new("--history-bytes 1MiB --max-connections 1000");
    let _stalled: Vec<Raw> = (0..300).map(|_| house.visitor()).collect();
    let before = house.producer.memory();
    let event = "x".repeat(1 << 16);
    for _ in 0..200 {
        house.producer.write(format!("{event}\n"));
        house.heard(&event);
    }
    let grown = house.producer.memory().saturating_sub(before);
    assert!(grown < 40 << 10, "{grown} KiB more");
    house.is_fine();
}

#[test]
fn readers_that_come_and_vanish_leave_nothing_behind() {
    let mut house = House::new("");
    for _ in 0..200 {
        drop(house.visitor());
        let (raw, _) = Raw::ask_websocket(&house.producer.ws_url(), "Sec-WebSocket-Protocol: wsevent.v1\r\n");
        drop(raw);
    }
    house.is_fine();
    house.producer.has("readers", 2);
}

// --- upstreams that send garbage -------------------------------------------------------------------------------------

/// A hop that merges a good upstream and one that the test plays, with readers behind it.
struct Merge {
    good: Running,
    bad: Server,
    hop: Running,
    reader: Raw,
    said: u32,
}

impl Merge {
    fn new(scheme: &str) -> Self {
        let good = Wsevent::line("--produce - --slow-reader disconnect").piped().serve();
        let bad = Server::new();
        let hop = Wsevent::line("--max-message 1000 --retry-max 50ms --handshake-timeout 1s")
            .args(["--consume", &good.ws_url(), "--consume", &format!("{scheme}{}/bad", bad.address())])
            .serve();
        hop.said("connected");
        let reader = Raw::websocket(&hop.ws_url());
        Merge { good, bad, hop, reader, said: 0 }
    }

    /// The events of the good upstream still come; those of the bad one may be among them.
    fn is_fine(&mut self) {
        self.said += 1;
        let event = format!("good {}", self.said);
        self.good.write(format!("{event}\n"));
        while self.reader.read_message().expect("an event").text() != event {}
    }
}

#[test]
fn an_upstream_that_breaks_the_protocol_is_closed_with_the_right_code() {
    let mut merge = Merge::new("ws://");
    let from_server = |frame: Frame| Frame { masked: false, ..frame }.to_bytes();
    let table: [(&str, Vec<u8>, u16); 9] = [
        ("a masked frame", frame(TEXT, "x").to_bytes(), 1002),
        ("reserved bits", from_server(Frame { rsv: 4, ..frame(TEXT, "x") }), 1002),
        ("a reserved opcode", from_server(frame(7, "x")), 1002),
        ("a long ping", from_server(frame(PING, [0; 126])), 1002),
        ("a continuation of nothing", from_server(frame(CONTINUATION, "x")), 1002),
        ("text that is not UTF-8", from_server(frame(TEXT, b"\xff")), 1007),
        ("an event over the limit", from_server(frame(TEXT, "x".repeat(1001))), 1009),
        ("a length of nearly everything", [&[0x82, 0x7f, 0x7f][..], &[0xff; 7]].concat(), 1009),
        ("no WebSocket at all", b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), 1002),
    ];
    for (what, bytes, code) in table {
        let (mut connection, _) = merge.bad.accept_websocket("");
        connection.send(from_server(frame(TEXT, format!("before {what}"))));
        while merge.reader.read_message().expect("an event").text() != format!("before {what}") {}
        connection.send(bytes);
        let close = connection.read_close().unwrap_or_else(|| panic!("{what}: no close frame"));
        assert_eq!(close.close_code(), code, "{what}");
        drop(connection);
        merge.is_fine();
    }
}

#[test]
fn one_log_line_per_change_however_often_an_upstream_fails() {
    let mut merge = Merge::new("ws://");
    for _ in 0..10 {
        let (mut connection, _) = merge.bad.accept();
        connection.send("HTTP/1.1 500 Sorry\r\nContent-Length: 0\r\n\r\n");
        merge.is_fine();
    }
    let log = merge.hop.stderr();
    assert_eq!(log.lines().filter(|line| line.contains("/bad")).count(), 1, "{log}");
}

#[test]
fn what_a_peer_says_stays_on_one_log_line() {
    let upstream = Server::new();
    let hop = Wsevent::new(["-vv", "--retry-max", "10ms", "--consume", &upstream.address()]).serve();
    let (mut connection, _) = upstream.accept_websocket("");
    let forged = "bye\n2026-01-01T00:00:00Z ERROR forged \u{1b}[31m\r\nforged";
    connection.send_frame(&Frame { masked: false, ..Frame::close(1011, forged) });
    hop.said("bye");
    let (mut connection, _) = upstream.accept();
    connection.send("HTTP/1.1 500 bye\u{1b}[31m\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
    let _ = upstream.accept();
    let log = hop.stderr();
    assert!(log.lines().all(|line| line.starts_with("20") && !line.starts_with("2026-01-01T00")), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[test]
fn answers_that_are_no_handshake_are_tried_again_and_again() {
    let mut merge = Merge::new("ws://");
    let accept = |value: &str| {
        format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{value}\r\n")
    };
    let answers = [
        accept("Sec-WebSocket-Accept: bm90IHRoZSBhbnN3ZXI=\r\n"),
        accept(""),
        "SSH-2.0-OpenSSH_9.2\r\n\r\n".into(),
        "\0\u{1}\u{2}".repeat(100),
        "HTTP/1.1 301 Moved\r\nLocation: /elsewhere\r\n\r\n".into(),
        "HTTP/1.1 999 What\r\n\r\n".into(),
        "HTTP/1.1 101 Switching Protocols\r\n".repeat(2000),
        format!("HTTP/1.1 101 Switching Protocols\r\nX: {}", "x".repeat(1 << 20)),
        "HTTP/1.1 503 Busy\r\nRetry-After: nonsense\r\n\r\n".into(),
        String::new(),
    ];
    for answer in answers {
        let (mut connection, _) = merge.bad.accept();
        let _ = connection.try_send(&answer);
        merge.is_fine();
    }
    assert_eq!(merge.hop.ended(), None);
}

#[test]
fn an_upstream_that_never_answers_is_given_up() {
    let mut merge = Merge::new("ws://");
    let (mut silent, _) = merge.bad.accept();
    silent.read_to_end();
    merge.is_fine();
    let (mut again, _) = merge.bad.accept();
    again.send("HTTP/1.1 101 Switching Protocols\r\n");
    again.read_to_end();
    merge.is_fine();
}

#[test]
fn an_endless_answer_costs_no_memory() {
    let mut merge = Merge::new("ws://");
    let before = merge.hop.memory();
    let (mut connection, _) = merge.bad.accept();
    while connection.try_send([b'x'; 1 << 16]).is_ok() {}
    merge.is_fine();
    for scheme in ["sse+http://", "ndjson+http://"] {
        let mut merge = Merge::new(scheme);
        let (mut connection, _) = merge.bad.accept();
        let kind = if scheme.starts_with("sse") { "text/event-stream" } else { "application/x-ndjson" };
        let _ = connection.try_send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n"));
        while connection.try_send([b'x'; 1 << 16]).is_ok() {}
        merge.is_fine();
        assert!(merge.hop.memory() < before + (32 << 10), "{scheme}: {} KiB", merge.hop.memory());
    }
}

#[test]
fn event_streams_of_garbage_are_read_as_far_as_they_make_sense() {
    let mut merge = Merge::new("sse+http://");
    let bodies = [
        "data: before\n\ngarbage\n\0\0\0\nid\nevent\nretry: never\nretry: 99999999999999999999\ndata: after\n\n",
        "data: before\n\nid: \u{0}\nwsevent: {broken\nwsevent: {\"data_base64\":\"!!!\"}\ndata: after\n\n",
        "data: before\n\nevent: gap\ndata: {\"from\":1}\n\nevent: gap\ndata: nonsense\n\ndata: after\n\n",
    ];
    for body in bodies {
        let (mut connection, head) = merge.bad.accept();
        assert_eq!(header_of(&head, "accept").as_deref(), Some("text/event-stream"));
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{body}"));
        drop(connection);
        while merge.reader.read_message().expect("an event").text() != "before" {}
        while merge.reader.read_message().expect("an event").text() != "after" {}
        merge.is_fine();
    }
}

#[test]
fn broken_chunks_and_other_answers_do_not_stop_the_others() {
    for scheme in ["sse+http://", "ndjson+http://", "http://"] {
        let mut merge = Merge::new(scheme);
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
            "HTTP/1.1 302 Found\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n{broken\n[]\n{\"data\":1}\n\n\0\n",
            "garbage\r\n\r\n",
        ] {
            let (mut connection, _) = merge.bad.accept();
            let _ = connection.try_send(answer);
            drop(connection);
            merge.is_fine();
        }
    }
}

/// A server that claims to be one of ours and lies about positions.
#[test]
fn a_link_that_lies_does_no_harm() {
    let epoch = "e000000000000000000000z";
    let huge = format!("p {epoch}-9007199254740991 18446744073709551615 0");
    let lies: [&[&str]; 9] = [
        &["p nonsense"],
        &[&huge],
        &["p e000000000000000000000z-5 1 7"],
        &["g e000000000000000000000z-9 e000000000000000000000z-1 18446744073709551615"],
        &["p e000000000000000000000z-9 1 0", "p e000000000000000000000z-3 1 0"],
        &["a e000000000000000000000z-1"],
        &["e e000000000000000000000z-1"],
        &["u", "u", "u"],
        &["k e000000000000000000000z-9007199254740991.4294967294"],
    ];
    let headers = "Sec-WebSocket-Protocol: wsevent.v1\r\nWsevent: v1\r\nWsevent-Window: e000000000000000000000z-9 e000000000000000000000z-3\r\nWsevent-Path: x\r\nWsevent-Policy: nonsense\r\n";
    for lie in lies {
        let bad = Server::new();
        let hop = Wsevent::new(["--retry-max", "10ms", "--consume", &bad.address()]).serve();
        let (mut connection, _) = bad.accept_websocket(headers);
        for ping in lie {
            let _ = connection.try_send(Frame::from_server(PING, *ping).to_bytes());
        }
        for event in ["one", "two"] {
            let _ = connection.try_send(Frame::from_server(TEXT, event).to_bytes());
        }
        let _ = connection.try_send(Frame { masked: false, ..Frame::close(1000, "") }.to_bytes());
        connection.read_to_end();
        let (mut again, _) = bad.accept_websocket("");
        // Who comes while the stream counts as ended is told so, and comes again.
        eventually("the truth", || {
            let mut reader = Raw::websocket(&hop.ws_url());
            again.send_frame(&Frame::from_server(TEXT, "the truth"));
            std::iter::from_fn(|| reader.read_message()).find(|frame| frame.text() == "the truth")
        });
    }
}

#[test]
fn a_reader_that_waits_for_an_upstream_that_was_replaced_goes_on_with_the_new_one() {
    let (first, second) = ("e000000000000000000000a", "e000000000000000000000b");
    let link = |window: &str| {
        format!("Sec-WebSocket-Protocol: wsevent.v1\r\nWsevent: v1\r\nWsevent-Window: {window}\r\nWsevent-Path: x\r\n")
    };
    let other_link = (link(&format!("{second}-1 {second}-1")), format!("p {second}-1 1 0"));
    let plain_server = (String::new(), "unlike a link".to_owned());
    for (headers, ping) in [other_link, plain_server] {
        let upstream = Server::new();
        let hop = Wsevent::new(["--retry-max", "10ms", "--consume", &upstream.address()]).serve();
        let (mut connection, _) = upstream.accept_websocket(&link(&format!("{first}-1 {first}-100")));
        connection.send_frame(&Frame::from_server(PING, format!("p {first}-1 1 0")));
        connection.send_frame(&Frame::from_server(TEXT, "one of a hundred"));
        hop.has("events", 1);
        let mut reader = Raw::websocket(&hop.ws_url());
        drop(connection);
        let (mut connection, _) = upstream.accept_websocket(&headers);
        connection.send_frame(&Frame::from_server(PING, ping));
        connection.send_frame(&Frame::from_server(TEXT, "of the new one"));
        let heard = reader.read_message().map(|frame| frame.text());
        assert_eq!(heard.as_deref(), Some("of the new one"), "{headers}");
    }
}
