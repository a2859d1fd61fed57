//! The publisher, against mosquitto as the broker.

mod certs;
mod common;
mod mqtt_client;
mod services;

use certs::{Authority, Identity, Kind};
use common::{Running, Scratch, Wsevent, eventually, raw};
use mqtt_client::Client;
use serde_json::{Value, json};
use services::{register, registry};
use std::net::TcpListener;

/// A broker of our own on a port that was free a moment ago.
fn broker(scratch: &Scratch, port: u16) -> Running {
    let config = format!("listener {port} localhost\nallow_anonymous true\npersistence false\nuser root\n");
    let running = Wsevent::program("mosquitto").args(["-c", &scratch.file("mosquitto.conf", config)]).start();
    eventually("the broker", || std::net::TcpStream::connect(("localhost", port)).ok());
    running
}

fn free_port() -> u16 {
    TcpListener::bind(("localhost", 0)).and_then(|free| free.local_addr()).expect("a free port").port()
}

fn publisher(registry: &Running) -> Value {
    let status: Value = serde_json::from_slice(&registry.own("status").body).expect("JSON");
    status["mqtt"]["publisher"].clone()
}

#[test]
fn a_broker_is_told_everything_also_what_happened_while_it_was_away() {
    let (scratch, port) = (Scratch::new(), free_port());
    let registry = registry(&format!("--mqtt-publish mqtt://localhost:{port} --retry-max 200ms --mqtt-topic a/b"));
    registry.said("cannot connect");
    register(&registry, "web", 1);
    let first = broker(&scratch, port);
    // It was not there when this happened, and still gets it: but nobody listens yet.
    eventually("the first event", || (publisher(&registry)["published_events"] == 1).then_some(()));
    let (mut subscriber, _) = Client::connect(port, "subscriber", true);
    assert_eq!(subscriber.subscribe("#", 1), 1);
    register(&registry, "web", 2);
    let heard = subscriber.next().expect("a message");
    assert_eq!(heard.first, 0x32, "QoS 1, not retained");
    let said = heard.message();
    assert_eq!(said.topic, "a/b/service_registered");
    assert!(said.text().contains("web:localhost:2"));
    eventually("an acknowledgement", || (publisher(&registry)["behind_events"] == 0).then_some(()));

    drop(first);
    eventually("the loss", || (publisher(&registry)["state"] == "down").then_some(()));
    (3..=5).for_each(|n| register(&registry, "web", n));
    eventually("what waits", || (publisher(&registry)["behind_events"].as_u64() >= Some(3)).then_some(()));
    let _second = broker(&scratch, port);
    eventually("all of it", || (publisher(&registry)["published_events"] == 5).then_some(()));
    let known = publisher(&registry);
    assert_eq!((&known["lost_events"], &known["connects"]), (&json!(0), &json!(2)));
    let metrics = registry.own("metrics").text();
    assert!(metrics.contains("wsevent_mqtt_published_events_total 5"), "{metrics}");
    assert!(metrics.contains("wsevent_mqtt_publisher_connected 1"));
}

#[test]
fn the_end_of_the_input_waits_for_a_broker_that_is_there() {
    let (scratch, port) = (Scratch::new(), free_port());
    let _broker = broker(&scratch, port);
    let (mut subscriber, _) = Client::connect(port, "subscriber", true);
    assert_eq!(subscriber.subscribe("#", 0), 0);
    let lines: String = (1..=500).map(|n| format!("{n}\n")).collect();
    let mut producer = Wsevent::line(&format!(
        "--produce - --slow-reader disconnect --mqtt-listen off --mqtt-publish mqtt://localhost:{port}"
    ))
    .args(["--serve-address", "localhost:0"])
    .input(lines)
    .start();
    assert_eq!(producer.wait(), 0);
    for n in 1..=500 {
        assert_eq!(subscriber.next().expect("a message").message().text(), n.to_string());
    }
}

#[test]
fn what_the_window_lets_go_of_is_counted() {
    let (scratch, port) = (Scratch::new(), free_port());
    let registry = registry(&format!("--mqtt-publish mqtt://localhost:{port} --retry-max 200ms --history 3"));
    registry.said("cannot connect");
    (1..=10).for_each(|n| register(&registry, "web", n));
    let _broker = broker(&scratch, port);
    eventually("the rest", || (publisher(&registry)["published_events"] == 3).then_some(()));
    assert_eq!(publisher(&registry)["lost_events"], 7);
    registry.said("events are lost: the broker was away for too long");
}

#[test]
fn a_broker_hears_who_we_are_and_the_log_does_not() {
    let (scratch, port) = (Scratch::new(), free_port());
    let mut hashed = std::process::Command::new("mosquitto_passwd");
    hashed.args(["-b", "-c", &scratch.arg("passwords"), "ada", "hidden"]);
    assert_eq!(common::run(hashed).code, 0);
    let config = format!(
        "listener {port} localhost\nallow_anonymous false\npersistence false\nuser root\npassword_file {}\n",
        scratch.arg("passwords")
    );
    let _broker = Wsevent::program("mosquitto").args(["-c", &scratch.file("mosquitto.conf", config)]).start();
    eventually("the broker", || std::net::TcpStream::connect(("localhost", port)).ok());
    let hub = |password: &str| {
        let url = format!("mqtt://ada:{password}@localhost:{port}");
        Wsevent::line("--no-produce --retry-max 200ms").env("WSEVENT_MQTT_PUBLISH", &url).serve()
    };
    let (known, stranger) = (hub("hidden"), hub("nonsense"));
    eventually("a connection", || (publisher(&known)["state"] == "connected").then_some(()));
    stranger.said("refused by the broker");
    for hub in [&known, &stranger] {
        let told = format!("{}{}", hub.stderr(), publisher(hub));
        assert!(!told.contains("hidden") && !told.contains("nonsense") && !told.contains("ada"), "{told}");
    }
}

#[test]
fn both_sides_speak_mqtt_over_tls() {
    let authority = Authority::new();
    let Identity { cert, key } = authority.issue(Kind::Good);
    let hub = Wsevent::line("--no-produce --mqtt-listen localhost:0");
    let hub = hub.args(["--tls-cert", &cert, "--tls-key", &key]).serve();
    let port = hub.port_of("mqtts").to_string();
    let reader = ["-h", "localhost", "-p", &port, "--cafile", &authority.ca(), "-t", "events", "-F", "%p"];
    let heard = Wsevent::program("mosquitto_sub").args(reader).start();
    let source = Wsevent::line("--no-produce --retry-max 200ms").args(["--ca", &authority.ca()]);
    let source = source.arg("--mqtt-publish").arg(format!("mqtts://localhost:{port}")).serve();
    // Until the subscription is there.
    eventually("a message", || {
        raw::post(source.url(), "over TLS");
        heard.stdout().contains("over TLS").then_some(())
    });
    assert!(publisher(&source)["published_events"].as_u64() > Some(0));
}
