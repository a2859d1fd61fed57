//! What MQTT promises beyond messages: sessions, acknowledgements, limits, goodbyes; and what bad packets come to.

mod common;
mod mqtt_client;

use common::{Running, Scratch, Wsevent, eventually, raw};
use mqtt_client::{CONNACK, Client, PUBACK, packet, text};
use std::io::Write;

const GOODBYE: u8 = 0xe0;

fn hub(options: &str) -> Running {
    Wsevent::line(&format!("--no-produce --mqtt-listen localhost:0 {options}")).serve()
}

fn post(hub: &Running, body: &str) {
    assert_eq!(raw::post(hub.url(), body).status, 200);
}

/// The properties of a 5.0 message as text, and its payload.
fn halves(rest: &[u8]) -> (String, String) {
    let (properties, payload) = rest[1..].split_at(usize::from(rest[0]));
    (String::from_utf8_lossy(properties).into_owned(), String::from_utf8_lossy(payload).into_owned())
}

#[test]
fn what_was_not_acknowledged_comes_again_and_then_what_was_missed() {
    let hub = hub("");
    let port = hub.port_of("mqtt");
    let (mut client, known) = Client::connect(port, "reader", false);
    assert!(!known);
    assert_eq!((client.subscribe("events", 1), client.subscribe("nothing/#", 0)), (1, 0));
    ["one", "two", "three"].iter().for_each(|said| post(&hub, said));
    let first = [client.message(), client.message(), client.message()];
    assert_eq!(first.iter().map(|said| said.text()).collect::<Vec<_>>(), ["one", "two", "three"]);
    client.acknowledge(first[1].id.expect("an identifier"));
    client.heard_nothing();
    drop(client);
    hub.has("readers", 0);
    post(&hub, "four");

    let (mut client, known) = Client::connect(port, "reader", false);
    assert!(known);
    for (said, again) in [(&first[0], true), (&first[2], true)] {
        let repeated = client.message();
        assert_eq!((repeated.again, repeated.id, repeated.text()), (again, said.id, said.text()));
    }
    let missed = client.message();
    assert_eq!((missed.again, missed.text()), (false, "four".into()));
    assert!(first.iter().filter(|said| said.text() != "two").all(|said| said.id != missed.id), "in use");
    client.send(GOODBYE, b"");
    client.closed();

    let (mut client, known) = Client::connect(port, "reader", true);
    assert!(!known, "a clean session forgets");
    post(&hub, "five");
    client.heard_nothing();
    drop(client);
    assert!(!Client::connect(port, "reader", false).1, "and leaves nothing");
}

#[test]
fn qos_0_is_for_who_is_there() {
    let hub = hub("");
    let port = hub.port_of("mqtt");
    let (mut client, _) = Client::connect(port, "reader", false);
    client.subscribe("events", 0);
    post(&hub, "one");
    assert_eq!(client.message().text(), "one");
    drop(client);
    hub.has("readers", 0);
    post(&hub, "two");
    let (mut client, known) = Client::connect(port, "reader", false);
    assert!(known);
    post(&hub, "three");
    assert_eq!(client.message().text(), "three");
}

#[test]
fn the_newest_connection_has_the_session() {
    let hub = hub("");
    let port = hub.port_of("mqtt");
    let expiry = b"\x11\0\0\0\x3c";
    let (mut first, _) = Client::connect5(port, "twin", true, expiry);
    assert_eq!(first.subscribe5("events", 1), 1);
    let (mut second, answer) = Client::connect5(port, "twin", false, expiry);
    assert_eq!(answer.body[0], 1, "the session goes on");
    assert_eq!(first.dismissed(), 0x8e);
    post(&hub, "one");
    assert_eq!(halves(&second.message().rest).1, "one");
    // With its goodbye a client may end its session.
    second.send(GOODBYE, b"\0\x05\x11\0\0\0\0");
    second.closed();
    assert_eq!(Client::connect5(port, "twin", false, expiry).1.body[0], 0);
    let status: serde_json::Value = serde_json::from_slice(&hub.own("status").body).expect("JSON");
    assert_eq!(status["mqtt"]["publisher"], serde_json::Value::Null);
}

#[test]
fn limits_of_the_client_hold() {
    let hub = hub("");
    let port = hub.port_of("mqtt");
    // Two messages at once, packets of at most 120 bytes.
    let (mut client, answer) = Client::connect5(port, "", true, b"\x21\0\x02\x27\0\0\0\x78");
    assert!(String::from_utf8_lossy(&answer.body).contains("wsevent-"), "it was given a name");
    assert_eq!(client.subscribe5("events", 2), 1, "there is no QoS 2");
    ["one", "two"].iter().for_each(|said| post(&hub, said));
    post(&hub, &"x".repeat(200));
    post(&hub, "three");
    let sent = [client.message(), client.message()];
    client.heard_nothing();
    client.acknowledge(sent[0].id.expect("an identifier"));
    let (properties, payload) = halves(&client.message().rest);
    assert_eq!(payload, "three");
    assert!(properties.contains("gap\0\x011"), "{properties:?}");
    client.heard_nothing();
}

#[test]
fn who_is_too_slow_is_told_what_is_lost() {
    let hub = hub("--history 10");
    let (mut client, _) = Client::connect5(hub.port_of("mqtt"), "slow", true, b"\x21\0\x01");
    assert_eq!(client.subscribe5("events", 1), 1);
    post(&hub, "first");
    let first = client.message();
    (0..50).for_each(|n| post(&hub, &n.to_string()));
    client.acknowledge(first.id.expect("an identifier"));
    let next = client.message();
    let (properties, payload) = halves(&next.rest);
    assert_eq!(payload, "40");
    assert!(properties.contains("gap\0\x0240"), "{properties:?}");
    client.acknowledge(next.id.expect("an identifier"));
    assert!(!halves(&client.message().rest).0.contains("gap"));
    let topic = hub.topic();
    assert_eq!((&topic["skipped_events"], &topic["gaps_told"]), (&40.into(), &1.into()));
}

#[test]
fn who_does_not_read_holds_nobody_up_and_misses_nothing_that_the_window_holds() {
    let hub = hub("--history-bytes 64MiB");
    let port = hub.port_of("mqtt");
    let (mut stuck, _) = Client::connect(port, "stuck", true);
    let (mut reader, _) = Client::connect(port, "reader", true);
    assert_eq!((stuck.subscribe("#", 0), reader.subscribe("#", 0)), (0, 0));
    // More than two sockets hold.
    let payload = |n: usize| format!("{n:06}{}", "x".repeat(200_000));
    for n in 0..150 {
        post(&hub, &payload(n));
        assert!(reader.message().text() == payload(n), "message {n}");
    }
    for n in 0..150 {
        assert!(stuck.message().text() == payload(n), "message {n}");
    }
    assert_eq!(hub.topic()["skipped_events"], 0);
}

#[test]
fn a_lossless_topic_waits_for_its_mqtt_readers() {
    let mut producer =
        Wsevent::line("--produce - --keep-open --history-bytes 4KiB --mqtt-listen localhost:0").piped().serve();
    let (mut client, _) = Client::connect(producer.port_of("mqtt"), "reader", true);
    assert_eq!(client.subscribe("events", 1), 1);
    let mut stdin = producer.take_stdin();
    let writer = std::thread::spawn(move || (0..5000).try_for_each(|n| writeln!(stdin, "{n}")));
    for n in 0..5000 {
        let said = client.message();
        assert_eq!(said.text(), n.to_string());
        client.acknowledge(said.id.expect("an identifier"));
    }
    assert!(writer.join().expect("no panic").is_ok());
}

#[test]
fn an_audience_is_who_has_its_metadata() {
    let hub = hub("");
    let port = hub.port_of("mqtt");
    let (mut addressed, _) = Client::connect5(port, "a", true, b"\x26\0\x04room\0\x01a");
    let (mut other, _) = Client::connect(port, "b", true);
    assert_eq!((addressed.subscribe5("#", 0), other.subscribe("#", 0)), (0, 0));
    let answer = raw::post(&format!("{}?room=a", hub.url()), "one");
    assert!(answer.text().contains("\"readers\":1"), "{}", answer.text());
    post(&hub, "all");
    assert_eq!(halves(&addressed.message().rest).1, "one");
    assert_eq!(halves(&addressed.message().rest).1, "all");
    assert_eq!(other.message().text(), "all");
}

#[test]
fn no_local_and_wills() {
    let hub = hub("");
    let port = hub.port_of("mqtt");
    let (mut client, _) = Client::connect5(port, "a", true, b"");
    assert_eq!(client.subscribe5("events", 0b101), 1);
    client.send(0x32, &[&text("events")[..], b"\0\x07\0mine"].concat());
    assert_eq!(client.next().map(|answer| answer.first), Some(PUBACK));
    post(&hub, "yours");
    assert_eq!(halves(&client.message().rest).1, "yours");

    let mut dying = Client::open(port);
    let will = [text("dying"), text("events"), text("gone")].concat();
    dying.send(0x10, &[&b"\0\x04MQTT\x04\x06\0\0"[..], &will].concat());
    assert_eq!(dying.next().map(|answer| answer.first), Some(CONNACK));
    drop(dying);
    assert_eq!(halves(&client.message().rest).1, "gone");
    let mut leaving = Client::open(port);
    leaving.send(0x10, &[&b"\0\x04MQTT\x04\x06\0\0"[..], &will].concat());
    leaving.next();
    leaving.send(GOODBYE, b"");
    leaving.closed();
    post(&hub, "last");
    assert_eq!(halves(&client.message().rest).1, "last", "who says goodbye has no will");
}

#[test]
fn silence_ends_a_connection_and_so_does_the_end() {
    let hub = hub("");
    let port = hub.port_of("mqtt");
    let mut silent = Client::open(port);
    silent.send(0x10, &[&b"\0\x04MQTT\x05\x02\0\x01\0"[..], &text("silent")].concat());
    assert_eq!(silent.next().map(|answer| answer.first), Some(CONNACK));
    assert_eq!(silent.dismissed(), 0x8d);
    let (mut reader, _) = Client::connect5(port, "reader", true, b"");
    assert_eq!(reader.subscribe5("#", 1), 1);
    hub.signal("TERM");
    assert_eq!(reader.dismissed(), 0x8b);

    let mut ending = Wsevent::line("--produce - --mqtt-listen localhost:0").piped().serve();
    let (mut reader, _) = Client::connect5(ending.port_of("mqtt"), "reader", true, b"");
    assert_eq!(reader.subscribe5("#", 1), 1);
    ending.write("last\n");
    ending.close_stdin();
    let last = reader.message();
    assert_eq!(halves(&last.rest).1, "last");
    reader.acknowledge(last.id.expect("an identifier"));
    assert_eq!((reader.dismissed(), ending.wait()), (0x8b, 0));
}

#[test]
fn bad_packets_end_their_connection_only() {
    let hub = hub("--max-message 1KiB --handshake-timeout 1s");
    let port = hub.port_of("mqtt");
    let (mut witness, _) = Client::connect(port, "witness", true);
    assert_eq!(witness.subscribe("#", 1), 1);
    let half_open: Vec<Client> = (0..20).map(|_| Client::open(port)).collect();
    for opening in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\xc0\0",
        b"\x00\0",
        b"\x10\xff\xff\xff\xff",
        b"\x10\xff\xff\xff\x7f",
        b"\x10\x0c\0\x04MQTX\x04\x02\0\0\0\0",
        &packet(0x10, b"\0\x04MQTT\x04\x03\0\0\0\0"),
        &packet(0x10, b"\0\x04MQTT\x04\x02\0\0\0\x09a"),
    ] {
        let mut client = Client::open(port);
        client.say(opening);
        assert_eq!(client.next(), None, "{opening:x?}");
    }
    for (level, code) in [(3, 1), (6, 1)] {
        let mut client = Client::open(port);
        client.send(0x10, &[&b"\0\x04MQTT"[..], &[level, 2, 0, 0, 0, 1, b'a']].concat());
        assert_eq!((client.next().map(|answer| answer.body[1]), client.next()), (Some(code), None));
    }
    let mut nameless = Client::open(port);
    nameless.send(0x10, b"\0\x04MQTT\x04\0\0\0\0\0");
    assert_eq!(nameless.next().map(|answer| answer.body[1]), Some(2));
    for (bytes, reason) in [
        (packet(0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\x01b"), 0x82),
        (packet(0x36, b"\0\x01t\0\x01\0x"), 0x81),
        (packet(0x30, b"\0\x01\xff\0x"), 0x81),
        (packet(0x30, b"\0\x02t+\0x"), 0x90),
        (packet(0x33, b"\0\x06events\0\x01\0x"), 0x9a),
        (packet(0x34, b"\0\x06events\0\x01\0x"), 0x9b),
        (packet(0x30, b"\0\0\x03\x23\0\x01x"), 0x94),
        (packet(0x80, b"\0\x01\0\0\x01a\0"), 0x81),
        (packet(0x82, b"\0\x01\0"), 0x82),
        (packet(0x82, b"\0\x01\x02\x0b\x01\0\x01a\0"), 0xa1),
        (packet(0x62, b"\0\x01"), 0x82),
        (packet(0xf0, b""), 0x82),
        (b"\x30\xff\xff\xff\x7f".to_vec(), 0x95),
        (b"\x30\xff\xff\xff\xff\x01".to_vec(), 0x81),
    ] {
        let (mut client, _) = Client::connect5(port, "", true, b"");
        client.say(&bytes);
        assert_eq!(client.dismissed(), reason, "{bytes:x?}");
    }
    let (mut flood, _) = Client::connect(port, "flood", true);
    let codes: Vec<u8> = (0..1010).map(|n| flood.subscribe(&format!("f/{n}"), 0)).collect();
    assert_eq!((codes.iter().filter(|code| **code == 0).count(), codes[1009]), (1000, 0x80));
    for filter in ["a#", "#/a", "+a", "", "$share/g/a"] {
        assert_eq!(flood.subscribe(filter, 0), 0x80, "{filter}");
    }
    for mut client in half_open {
        assert_eq!(client.next(), None);
    }
    post(&hub, "still here");
    assert_eq!(witness.message().text(), "still here");
    eventually("only two connections", || {
        let status: serde_json::Value = serde_json::from_slice(&hub.own("status").body).ok()?;
        (status["mqtt"]["clients"] == 2).then_some(())
    });
}

#[test]
fn a_filter_may_be_there_before_its_topic() {
    let scratch = Scratch::new();
    let script = r#"
        function make(req) { registerWebStream("/late/one"); return "made"; }
        function say(req) { return String(sendStreamMessage({ said: 1 })); }
        register("/make", "make", "POST");
        register("/say", "say", "POST");
    "#;
    let host = Wsevent::line("--mqtt-listen localhost:0").args(["--script", &scratch.file("app.js", script)]).serve();
    let (mut client, _) = Client::connect(host.port_of("mqtt"), "early", true);
    assert_eq!(client.subscribe("late/+", 1), 1);
    let at = |path: &str| format!("http://{}{path}", host.address());
    assert_eq!(raw::post(&at("/make"), "").status, 200);
    eventually("a reader of the new topic", || (raw::post(&at("/say"), "").text() != "0").then_some(()));
    let said = client.message();
    assert_eq!((&said.topic[..], said.text()), ("late/one", r#"{"said":1}"#.to_owned()));
}

#[test]
fn packets_may_span_and_share_websocket_messages() {
    use common::raw::{BINARY, Frame, Raw, TEXT};
    let hub = hub("");
    let url = format!("http://{}/mqtt", hub.address());
    let open = || Raw::websocket_with(&url, "Sec-WebSocket-Protocol: mqtt\r\n").0;
    let next = |socket: &mut Raw| socket.read_frame().expect("a frame").payload;
    let mut socket = open();
    let said = [packet(0x10, b"\0\x04MQTT\x04\x02\0\0\0\x01w"), packet(0x82, b"\0\x01\0\x06events\0")].concat();
    said.chunks(5).for_each(|part| socket.send_frame(&Frame::new(BINARY, part)));
    assert_eq!(next(&mut socket), b"\x20\x02\0\0");
    assert_eq!(next(&mut socket), b"\x90\x03\0\x01\0");
    socket.send_frame(&Frame::new(BINARY, [packet(0xc0, b""), packet(0xc0, b"")].concat()));
    assert_eq!(next(&mut socket), b"\xd0\0\xd0\0");
    post(&hub, "one");
    assert_eq!(next(&mut socket), packet(0x30, b"\0\x06eventsone"));
    let mut rude = open();
    rude.send_frame(&Frame::new(TEXT, "{}"));
    assert_eq!(rude.read_close().map(|close| close.close_code()), Some(1003));
}
