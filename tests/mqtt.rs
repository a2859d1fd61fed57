//! MQTT, as the clients that people have see it: mosquitto's, and those of npm and Python.

mod common;
mod mqtt_client;
mod services;
mod tokens;

use common::{Running, Scratch, Wsevent, eventually, raw, root};
use mqtt_client::{Client, PUBACK, text};
use serde_json::{Value, json};
use services::{at, history, register, registry, signed_in, timeless, told};
use std::{net::TcpListener, path::PathBuf};

/// What a registry's events are called below.
const BASE: &str = "maxine/registry/events";

/// A registry with an MQTT port.
fn with_mqtt(options: &str) -> Running {
    registry(&format!("--mqtt-listen localhost:0 {options}"))
}

/// A hub with an MQTT port.
fn hub(options: &str) -> Running {
    Wsevent::line(&format!("--no-produce --mqtt-listen localhost:0 {options}")).serve()
}

/// One of mosquitto's clients.
fn mosquitto(program: &str, at: &Running, options: &str) -> Wsevent {
    let port = at.port_of("mqtt").to_string();
    Wsevent::program(format!("mosquitto_{program}")).args(["-p", &port]).args(options.split_whitespace())
}

/// Readers that the first topic ever had.
fn readers_ever(at: &Running) -> u64 {
    at.topic()["readers_ever"].as_u64().expect("a number")
}

/// Starts so many subscribers; they have subscribed when this returns.
fn subscribed(at: &Running, subscribers: Vec<Wsevent>) -> Vec<Running> {
    let expected = readers_ever(at) + subscribers.len() as u64;
    let running: Vec<Running> = subscribers.into_iter().map(Wsevent::start).collect();
    eventually("subscriptions", || (readers_ever(at) == expected).then_some(()));
    running
}

fn subscriber(at: &Running, options: &str) -> Running {
    subscribed(at, vec![mosquitto("sub", at, options)]).remove(0)
}

/// Topic and envelope of a printed message.
fn message(line: &str) -> (&str, Value) {
    let (topic, payload) = line.split_once([' ', '|']).unwrap_or_else(|| panic!("no message: {line:?}"));
    (topic, serde_json::from_str(payload).expect("JSON"))
}

fn publish(at: &Running, options: &str) -> common::Done {
    mosquitto("pub", at, options).run()
}

#[test]
fn a_subscriber_hears_each_change_by_its_name() {
    let registry = with_mqtt("");
    for (version, qos) in [("311", 0), ("311", 1), ("5", 0), ("5", 1)] {
        let options = format!("-V {version} -q {qos} -F %t|%p -t {BASE}/+");
        let heard = subscriber(&registry, &options);
        register(&registry, "web", 1);
        services::post(&registry, "/deregister", &json!({"nodeId": "web:localhost:1"}));
        let lines = heard.lines(2);
        for (line, name) in lines.iter().zip(["service_registered", "service_deregistered"]) {
            let (topic, envelope) = message(line);
            assert_eq!(topic, format!("{BASE}/{name}"), "{options}");
            assert_eq!(timeless(&envelope), told(name, "web", 1));
        }
    }
    assert_eq!(history(&registry).len(), 8);
}

#[test]
fn filters_choose_by_name() {
    let registry = with_mqtt("--mqtt-topic a/b");
    let filters =
        ["#", "a/#", "+/b/+", "a/b/service_registered", "a/b/circuit_open", "events", "+", "$share", "/a/b/+"];
    let format = |filter| mosquitto("sub", &registry, &format!("-F %t -t {filter}"));
    let hearing = subscribed(&registry, filters[..5].iter().map(&format).collect());
    let deaf: Vec<Running> = filters[5..].iter().map(|filter| format(filter).start()).collect();
    register(&registry, "web", 1);
    register(&registry, "web", 2);
    services::post(&registry, "/circuit-breaker/web:localhost:1", &json!({"success": true}));
    for subscriber in &hearing[..4] {
        assert_eq!(subscriber.lines(2), ["a/b/service_registered"; 2]);
    }
    for subscriber in hearing[4..].iter().chain(&deaf) {
        assert_eq!(subscriber.stdout(), "");
    }
}

#[test]
fn an_mqtt_client_is_served_at_every_path() {
    let hub = hub("");
    for path in ["/", "/mqtt", "/mqtt/", "/ws", "/events", "/foo"] {
        let url = format!("ws://{}{path}", hub.address());
        let client = Wsevent::program("node").arg(root().join("tests/clients/mqtt_connect.js")).arg(&url).run();
        assert_eq!(client.stdout, "connected\n", "{path}: {}", client.stderr);
    }
    assert_eq!(raw::get(hub.url()).text(), "[]", "no CONNECT was published");
}

/// A CONNECT of the version, with the password `hunter2`.
fn connect_with_password(version: u8) -> Vec<u8> {
    let name: &[u8] = if version == 3 { b"\0\x06MQIsdp" } else { b"\0\x04MQTT" };
    let properties: &[u8] = if version == 5 { b"\0" } else { b"" };
    let rest = b"\0\x03ann\0\x03ann\0\x07hunter2";
    let body = [name, &[version, 0xc2, 0, 60], properties, rest].concat();
    mqtt_client::packet(0x10, &body)
}

#[test]
fn a_connect_packet_is_published_on_no_path_and_under_no_name() {
    let hub = hub("");
    let balancer = Wsevent::line("--balance-mode stream --balance").arg(hub.url()).serve();
    let offers = [
        "",
        "mqttv3.1",
        "MQTTv3.1",
        "wsevent.v1, mqtt",
        "wsevent.plain, mqttv5",
        "chat",
        "cloudevents.json",
        "mqtt, cloudevents.json",
    ];
    for server in [&hub, &balancer] {
        for version in [3, 4, 5] {
            for offer in offers {
                let field =
                    if offer.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {offer}\r\n") };
                let (mut raw, answer) = raw::Raw::ask_websocket(&server.ws_url(), &field);
                if answer.status == 101 {
                    raw.send_frame(&raw::Frame::new(raw::BINARY, connect_with_password(version)));
                    raw.send_frame(&raw::Frame::close(1000, ""));
                    raw.read_to_end();
                } else {
                    assert_eq!(answer.status, 400, "{offer}");
                }
            }
        }
    }
    assert_eq!(raw::post(hub.url(), "the end").status, 200);
    assert_eq!(raw::get(hub.url()).text(), r#"["the end"]"#);
}

#[test]
fn clients_of_other_making_hear_the_same() {
    let registry = with_mqtt("");
    let (mqtt, http) = (registry.port_of("mqtt").to_string(), registry.port());
    let node = |url: &str, qos: &str, version: &str| {
        assert!(root().join("tests/clients/node_modules/mqtt").is_dir(), "npm's mqtt is missing: run scripts/test");
        let words = [url, "maxine/registry/events/+", qos, "3", version];
        Wsevent::program("node").arg(root().join("tests/clients/mqtt_reader.js")).args(words)
    };
    let paho = |qos: &str, version: &str| {
        let python: PathBuf = root().join("target/clients/venv/bin/python");
        let words = ["localhost", &mqtt, "maxine/registry/events/#", qos, "3", version];
        Wsevent::program(python).arg(root().join("tests/clients/paho_reader.py")).args(words)
    };
    let clients = vec![
        node(&format!("mqtt://localhost:{mqtt}"), "0", "4"),
        node(&format!("mqtt://localhost:{mqtt}"), "1", "5"),
        node(&format!("ws://localhost:{http}"), "1", "4"),
        node(&format!("ws://localhost:{http}/mqtt"), "1", "5"),
        paho("0", "5"),
        paho("1", "3"),
    ];
    let mut clients = subscribed(&registry, clients);
    for port in 1..=3 {
        register(&registry, "web", port);
    }
    let said: Vec<Vec<String>> = clients.iter().map(|client| client.lines(3)).collect();
    assert!(said.iter().all(|lines| *lines == said[0]), "{said:#?}");
    for (line, port) in said[0].iter().zip(1..) {
        let (topic, envelope) = message(line);
        assert_eq!(
            (topic, timeless(&envelope)),
            ("maxine/registry/events/service_registered", told("service_registered", "web", port))
        );
    }
    for client in &mut clients {
        assert_eq!(client.wait(), 0);
    }
}

#[test]
fn fifty_readers_hear_one_order() {
    let registry = with_mqtt("");
    let options =
        |n: usize| format!("-V {} -q {} -F %p -t #", if n.is_multiple_of(2) { "311" } else { "5" }, n / 2 % 2);
    let readers = subscribed(&registry, (0..50).map(|n| mosquitto("sub", &registry, &options(n))).collect());
    for port in 1..=200 {
        register(&registry, "web", port);
    }
    let told: Vec<String> = {
        let answer = raw::get(&at(&registry, "/events?limit=1000"));
        let events: Vec<Value> = serde_json::from_slice(&answer.body).expect("JSON");
        events.iter().map(Value::to_string).collect()
    };
    assert_eq!(told.len(), 200);
    for reader in &readers {
        assert_eq!(reader.lines(200), told);
    }
    let topic = registry.topic();
    assert_eq!((&topic["readers"], &topic["readers_by_wire"]["mqtt"]), (&json!(50), &json!(50)));
    drop(readers);
    registry.has("readers", 0);
    assert_eq!(registry.topic()["delivered_events"], 50 * 200);
}

#[test]
fn who_may_publish_is_heard_by_everybody() {
    let hub = hub("--serve-path a/größe");
    let heard = subscriber(&hub, "-F %t|%p -q 1 -t a/+");
    for (n, options) in ["-V 311 -q 0", "-V 311 -q 1", "-V 5 -q 0", "-V 5 -q 1"].into_iter().enumerate() {
        let done = publish(&hub, &format!("{options} -t a/größe -m {n}"));
        assert_eq!((done.code, &done.stderr[..]), (0, ""), "{options}");
        hub.has("events", n as u64 + 1);
    }
    assert_eq!(heard.lines(4), ["a/größe|0", "a/größe|1", "a/größe|2", "a/größe|3"]);
    let kinds = publish(&hub, "-V 5 -q 1 -t a/größe -m typed -D publish user-property type alert");
    assert_eq!(kinds.code, 0);
    assert_eq!(hub.topic()["recent_types"], json!(["alert"]));
    for (options, why) in [("-V 5 -q 1 -t elsewhere -m x", "Topic Name invalid"), ("-V 5 -q 2 -t a/größe -m x", "QoS")]
    {
        let refused = publish(&hub, options);
        assert!(
            format!("{}{}", refused.stdout, refused.stderr).to_lowercase().contains(&why.to_lowercase()),
            "{options}: {refused:?}"
        );
    }
    assert_eq!(hub.topic()["events"], 5);
}

#[test]
fn nobody_says_what_a_registry_says() {
    let registry = with_mqtt("");
    for (topic, why) in
        [(format!("{BASE}/service_registered"), "Not authorized"), ("events".into(), "Topic Name invalid")]
    {
        let refused = publish(&registry, &format!("-V 5 -q 1 -t {topic} -m x"));
        assert!(refused.stderr.contains(why), "{topic}: {refused:?}");
        // 3.1.1 has no words for it, and is not left in the belief that it was heard.
        assert_ne!(publish(&registry, &format!("-V 311 -q 1 -t {topic} -m x")).code, 0, "{topic}");
        assert_eq!(publish(&registry, &format!("-V 311 -q 0 -t {topic} -m x")).code, 0, "{topic}");
    }
    let closed = Wsevent::line("--mqtt-listen localhost:0").serve();
    assert!(publish(&closed, "-V 5 -q 1 -t events -m x").stderr.contains("Not authorized"));
    assert_eq!(registry.topic()["events"], 0);
}

#[test]
fn a_password_is_a_token() {
    let scratch = Scratch::new();
    let (registry, token) = signed_in(&scratch, "--mqtt-listen localhost:0");
    let filter = format!("-F %p -t {BASE}/+");
    for version in ["311", "5"] {
        for (login, why) in [("", "not authori"), ("-u any -P nonsense", "bad user name or password")] {
            let refused = mosquitto("sub", &registry, &format!("-V {version} {login} {filter}")).run();
            assert!(refused.stderr.to_lowercase().contains(why), "{version} {login}: {refused:?}");
        }
    }
    let mut client = Client::log_in(registry.port_of("mqtt"), "", &token);
    assert_eq!(client.subscribe5(&format!("{BASE}/admin_x"), 0), 0x87, "for another role");
    assert_eq!(client.subscribe5(&format!("{BASE}/+"), 0), 0);
    let old = mosquitto("sub", &registry, &format!("-V 311 -u any -P {token} -C 1 {filter}")).start();
    register(&registry, "web", 1);
    assert!(client.message().text().ends_with('}'));
    // It may have come too late for the first one.
    let heard = eventually("a message", || {
        services::post(&registry, "/heartbeat", &json!({"nodeId": "web:localhost:1"}));
        old.stdout().lines().next().map(String::from)
    });
    assert!(heard.starts_with(r#"{"event":"service_"#), "{heard}");
}

#[test]
fn a_token_covers_paths_and_ends() {
    let keys = tokens::Keys::new();
    let hub = Wsevent::line("--accept-publish --no-produce --mqtt-listen localhost:0").args(keys.args()).serve();
    let log_in = |claims: Value| Client::log_in(hub.port_of("mqtt"), "twin", &keys.hs256(&tokens::claims(claims)));
    // They call themselves by one name, and take nothing from each other.
    let mut ending = log_in(json!({"sub": "a", "exp": tokens::now() + 3}));
    let mut both = log_in(json!({"sub": "b", "publish": ["/events"]}));
    let mut other = log_in(json!({"sub": "c", "subscribe": ["/other"]}));
    assert_eq!((both.subscribe5("events", 0), ending.subscribe5("nothing/#", 0)), (0, 0));
    assert_eq!((other.subscribe5("events", 0), other.subscribe5("#", 0)), (0x87, 0));
    let say = [&text("events")[..], b"\0\x01\0one"].concat();
    other.send(0x32, &say);
    assert_eq!(other.next().map(|answer| answer.body), Some(b"\0\x01\x87".to_vec()));
    both.send(0x32, &say);
    let answers = [both.next(), both.next()].map(|answer| answer.expect("an answer").first);
    assert!(answers.contains(&0x30) && answers.contains(&PUBACK), "{answers:x?}");
    other.heard_nothing();
    assert_eq!(ending.dismissed(), 0xa0);
}

#[test]
fn the_usual_port_may_be_taken_and_a_chosen_one_may_not() {
    // Whoever has it: somebody does.
    let _taken = TcpListener::bind(("127.0.0.1", 1883));
    let registry = Wsevent::line("--registry").serve();
    registry.said("no MQTT: --mqtt-listen");
    register(&registry, "web", 1);
    let holder = with_mqtt("");
    let port = holder.port_of("mqtt");
    let refused =
        Wsevent::line(&format!("--registry --serve-address localhost:0 --mqtt-listen localhost:{port}")).run();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains(&format!("listen on 127.0.0.1:{port}")), "{}", refused.stderr);
    let hub = Wsevent::line("--no-produce").serve();
    hub.said("serving");
    assert!(!hub.stderr().contains("mqtt"));
}
