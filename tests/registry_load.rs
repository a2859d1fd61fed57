//! Many listeners of one registry: they all see the same, in the same order, whatever some of them do.

mod common;
mod services;

use common::{
    PATIENCE, Running, Wsevent, find_program,
    raw::{Frame, Raw, TEXT},
    reader::Reader,
    root,
};
use serde_json::Value;
use services::{at, get, listener, register, registry};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

const EVENTS: usize = 1000;
/// Listeners on each protocol of HTTP, and over MQTT.
const EACH: usize = 200;
const MQTT: usize = 50;

/// Which instance a text is about.
fn node(text: &str) -> String {
    let event: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    event["data"]["nodeId"].as_str().expect("an id").to_owned()
}

async fn by_websocket(mut reader: Reader) -> Vec<String> {
    reader.texts(EVENTS).await.iter().map(|text| node(text)).collect()
}

/// A stream that has begun.
async fn event_source(registry: &Running) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(("localhost", registry.port())).await.expect("connect");
    let request = "GET /events HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        timeout(PATIENCE, stream.read_line(&mut line)).await.expect("a head in time").expect("a line");
    }
    stream
}

async fn by_event_source(mut stream: BufReader<TcpStream>) -> Vec<String> {
    let (mut seen, mut line) = (Vec::new(), String::new());
    while seen.len() < EVENTS {
        line.clear();
        let read = timeout(PATIENCE, stream.read_line(&mut line)).await.expect("a line in time").expect("a line");
        assert!(read > 0, "the stream ended behind {} events", seen.len());
        seen.extend(line.strip_prefix("data: ").map(node));
    }
    seen
}

/// All of them in one process.
fn by_mqtt(registry: &Running) -> Running {
    let node = find_program("node").expect("node is missing: run scripts/test, which installs it");
    let url = format!("mqtt://localhost:{}", registry.port_of("mqtt"));
    let script = root().join("tests/clients/mqtt_readers.mjs");
    let readers = Wsevent::program(node).arg(script).args([url, MQTT.to_string(), EVENTS.to_string()]).start();
    assert_eq!(readers.lines(1), ["ready"]);
    readers
}

/// Says what means nothing until it is thrown out, again and again.
fn annoy(url: &str) {
    for round in 0..20 {
        let mut rude = Raw::websocket(url);
        rude.send_frame(&Frame::new(TEXT, "no JSON"));
        rude.send_frame(&Frame::new(TEXT, format!("{{\"subscribe\":{{\"nodeId\":\"{round}\"}}}}")));
        let _ = match round % 3 {
            0 => rude.try_send([0xff; 2000]),
            1 => rude.try_send(b"\x81\x05hello"),
            _ => rude.try_send(b"\xc1\x80\0\0\0\0"),
        };
        assert!(rude.read_close().is_some(), "a protocol error ends the connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_sees_the_same_in_the_same_order() {
    let registry = registry("--history 2000 --heartbeat-timeout 1h --mqtt-listen localhost:0");
    let over_mqtt = by_mqtt(&registry);
    let mut seen = JoinSet::new();
    for _ in 0..EACH {
        seen.spawn(by_websocket(listener(&registry).await));
        seen.spawn(by_event_source(event_source(&registry).await));
    }
    let _never_reads = Raw::websocket(&at(&registry, "/"));
    let url = at(&registry, "/");
    let annoying = std::thread::spawn(move || annoy(&url));
    let registry = tokio::task::spawn_blocking(move || {
        (0..EVENTS).for_each(|n| register(&registry, ["a", "b", "c"][n % 3], 1 + n as u16));
        registry
    });
    let registry = registry.await.expect("all registered");
    annoying.join().expect("it annoyed nobody else");
    let history = get(&registry, "/events?limit=2000").1;
    let told: Vec<String> = history.as_array().expect("events").iter().map(|event| node(&event.to_string())).collect();
    assert_eq!(told.len(), EVENTS);
    for seen in seen.join_all().await {
        assert!(seen == told, "somebody saw something else");
    }
    for line in &over_mqtt.lines(1 + MQTT)[1..] {
        assert!(
            serde_json::from_str::<Vec<String>>(line).expect("JSON") == told,
            "somebody saw something else by MQTT"
        );
    }
}
