//! MQTT, as the clients that people have see it: mosquitto's, and those of npm and Python.

mod common;
mod services;

use common::{Running, Wsevent, eventually};
use serde_json::{Value, json};
use services::{history, register, registry, timeless, told};

/// A registry with an MQTT port.
fn with_mqtt(options: &str) -> Running {
    registry(&format!("--mqtt-listen localhost:0 {options}"))
}

/// One of mosquitto's clients.
fn mosquitto(program: &str, at: &Running, options: &str) -> Wsevent {
    let port = at.port_of("mqtt").to_string();
    Wsevent::program(format!("mosquitto_{program}")).args(["-p", &port]).args(options.split_whitespace())
}

/// A subscriber; it has subscribed when this returns.
fn subscriber(at: &Running, options: &str) -> Running {
    let before = at.topic()["readers_ever"].as_u64().expect("a number");
    let running = mosquitto("sub", at, options).start();
    eventually("a subscription", || (at.topic()["readers_ever"].as_u64() > Some(before)).then_some(()));
    running
}

/// Topic and envelope of a printed message.
fn message(line: &str) -> (&str, Value) {
    let (topic, payload) = line.split_once('|').unwrap_or_else(|| panic!("no message: {line:?}"));
    (topic, serde_json::from_str(payload).expect("JSON"))
}

#[test]
fn a_subscriber_hears_each_change_by_its_name() {
    let registry = with_mqtt("");
    for (version, qos) in [("311", 0), ("311", 1), ("5", 0), ("5", 1)] {
        let options = format!("-V {version} -q {qos} -F %t|%p -t maxine/registry/events/+");
        let heard = subscriber(&registry, &options);
        register(&registry, "web", 1);
        services::post(&registry, "/deregister", &json!({"nodeId": "web:localhost:1"}));
        let lines = heard.lines(2);
        for (line, name) in lines.iter().zip(["service_registered", "service_deregistered"]) {
            let (topic, envelope) = message(line);
            assert_eq!(topic, format!("maxine/registry/events/{name}"), "{options}");
            assert_eq!(timeless(&envelope), told(name, "web", 1));
        }
    }
    assert_eq!(history(&registry).len(), 8);
}
