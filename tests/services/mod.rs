//! A registry under test, and what its users say to it.

// Each test file uses a part of it.
#![allow(dead_code)]

use crate::common::{
    Running, Scratch, Wsevent,
    raw::{self, Answer},
    reader::Reader,
};
use serde_json::{Value, json};

pub const SECRET: &str = "a secret of the tests that is long enough";
/// `secret` by bcrypt, as another program hashed it.
pub const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// A registry with a user, bob, and his token. What it reads of this is in the scratch directory.
pub fn signed_in(scratch: &Scratch, options: &str) -> (Running, String) {
    let (users, secret) = (scratch.file("users", format!("bob:{BCRYPT}:viewer\n")), scratch.file("secret", SECRET));
    let registry = registry(&format!("--users {users} --jwt-secret-file {secret} {options}"));
    let (_, answer) = post(&registry, "/signin", &json!({"username": "bob", "password": "secret"}));
    let token = answer["token"].as_str().expect("a token").to_owned();
    (registry, token)
}

/// Without MQTT unless the options say more: there is only one usual port.
pub fn registry(options: &str) -> Running {
    let mqtt = if options.contains("--mqtt-listen") { "" } else { " --mqtt-listen off" };
    Wsevent::line(&format!("--registry{mqtt}")).args(options.split_whitespace()).serve()
}

pub fn at(registry: &Running, path: &str) -> String {
    format!("http://{}{path}", registry.address())
}

/// Status and JSON of an answer.
pub fn answered(answer: &Answer) -> (u16, Value) {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}")))
}

pub fn get(registry: &Running, path: &str) -> (u16, Value) {
    answered(&raw::get(&at(registry, path)))
}

pub fn send(registry: &Running, method: &str, path: &str, body: &Value) -> (u16, Value) {
    answered(&raw::request(method, &at(registry, path), "", body.to_string().as_bytes()))
}

pub fn post(registry: &Running, path: &str, body: &Value) -> (u16, Value) {
    send(registry, "POST", path, body)
}

pub fn register(registry: &Running, service: &str, port: u16) {
    let body = json!({"serviceName": service, "host": "localhost", "port": port});
    let id = format!("{service}:localhost:{port}");
    assert_eq!(post(registry, "/register", &body), (200, json!({"nodeId": id, "status": "registered"})));
}

/// The events so far, without their times.
pub fn history(registry: &Running) -> Vec<Value> {
    let (status, events) = get(registry, "/events?limit=1000");
    assert_eq!(status, 200);
    events.as_array().expect("an array").iter().map(timeless).collect()
}

/// An envelope without its time, which must be there.
pub fn timeless(event: &Value) -> Value {
    let mut event = event.as_object().expect("an object").clone();
    assert_eq!(event.keys().collect::<Vec<_>>(), ["event", "data", "timestamp"]);
    assert!(event.remove("timestamp").is_some_and(|time| time.is_u64()));
    event.into()
}

pub fn told(name: &str, service: &str, port: u16) -> Value {
    json!({"event": name, "data": {"serviceName": service, "nodeId": format!("{service}:localhost:{port}")}})
}

/// A client of the WebSocket at `/`.
pub async fn listener(registry: &Running) -> Reader {
    Reader::open(&at(registry, "/")).await
}

pub async fn next(reader: &mut Reader) -> Value {
    serde_json::from_str(&reader.text().await).expect("JSON")
}

pub async fn ask(reader: &mut Reader, message: Value) -> Value {
    reader.send(message.to_string()).await;
    next(reader).await
}
