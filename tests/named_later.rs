//! Subscriptions that come before what they are for: who was told that it listens gets the first message, too.

mod common;
mod link;
mod mqtt_client;
mod scripted;

use common::{Wsevent, eventually, raw::Raw};
use link::Sse;
use mqtt_client::Client;
use scripted::Scripted;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names streams, and says something there in the same breath.
const MAKER: &str = r#"
function make(context) {
  const { paths, said } = JSON.parse(context.request.body);
  for (const path of paths) {
    routeRegistry.registerStreamRoute(path);
    for (const data of said) routeRegistry.sendStreamMessage(path, data);
  }
  return "made";
}
routeRegistry.registerRoute("/make", "make", "POST");
function tell(context) {
  const { name, data } = JSON.parse(context.request.body);
  graphQLRegistry.registerSubscription(name, `type Subscription { ${name}: String }`);
  return graphQLRegistry.sendSubscriptionMessage(name, data);
}
routeRegistry.registerRoute("/tell", "tell", "POST");
"#;

fn app() -> Scripted {
    Scripted::serve_with(MAKER, "--mqtt-listen localhost:0")
}

fn make(app: &Scripted, paths: &[&str], said: &[&str]) {
    let what = json!({ "paths": paths, "said": said });
    assert_eq!(app.send("/make", "application/json", &what.to_string()).text(), "made");
}

fn client(app: &Scripted, name: &str, clean: bool) -> (Client, bool) {
    Client::connect(app.running.port_of("mqtt"), name, clean)
}

/// The next message's topic and payload, acknowledged where it wants that.
fn hear(client: &mut Client) -> (String, String) {
    let message = client.message();
    message.id.into_iter().for_each(|id| client.acknowledge(id));
    let text = message.text();
    (message.topic, text)
}

fn heard(topic: &str, text: &str) -> (String, String) {
    (topic.into(), text.into())
}

/// The next block with data, which has no position.
fn value(all: &mut Sse) -> Value {
    let data = std::iter::from_fn(|| all.block()).find_map(|block| block.data);
    serde_json::from_str(&data.expect("a value")).expect("JSON")
}

/// Waits until the session of who has gone is kept.
fn is_away(app: &Scripted) {
    eventually("a session whose client is away", || {
        let status: Value = serde_json::from_slice(&app.running.own("status").body).expect("JSON");
        (status["mqtt"]["sessions_away"] == 1).then_some(())
    });
}

#[test]
fn topics_that_are_named_and_published_at_once_arrive_whole() {
    let app = app();
    let mut readers: Vec<Client> = ["zero", "one"].iter().map(|name| client(&app, name, true).0).collect();
    for (qos, reader) in (0..).zip(&mut readers) {
        assert_eq!(reader.subscribe("made/#", qos), qos);
    }
    let paths: Vec<String> = (0..200).map(|n| format!("/made/{n}")).collect();
    make(&app, &paths.iter().map(String::as_str).collect::<Vec<_>>(), &["first", "second"]);
    for reader in &mut readers {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for _ in 0..400 {
            let (topic, text) = hear(reader);
            all.entry(format!("/{topic}")).or_default().push(text);
        }
        assert_eq!(all.len(), 200);
        assert!(paths.iter().all(|path| all[path] == ["first", "second"]), "{all:?}");
        reader.heard_nothing();
    }
}

#[test]
fn what_one_request_names_and_the_next_publishes_arrives() {
    let app = app();
    let (mut reader, _) = client(&app, "reader", true);
    assert_eq!(reader.subscribe("made/+", 1), 1);
    for n in 0..150 {
        let path = format!("/made/{n}");
        make(&app, &[&path], &[]);
        make(&app, &[&path], &["first"]);
        assert_eq!(hear(&mut reader), heard(&path[1..], "first"));
    }
}

#[test]
fn a_real_subscriber_gets_the_first_messages() {
    let app = app();
    let port = app.running.port_of("mqtt").to_string();
    make(&app, &["/made/before"], &[]);
    let line = ["-h", "localhost", "-p", &port, "-t", "made/#", "-q", "1", "-C", "50", "-F", "%t=%p"];
    let mut subscriber = Wsevent::program("mosquitto_sub").args(line).start();
    eventually("a subscription", || {
        let status: Value = serde_json::from_slice(&app.running.own("status").body).expect("JSON");
        let topics = status["topics"].as_array().expect("topics");
        topics.iter().any(|topic| topic["path"] == "/made/before" && topic["readers"] == 1).then_some(())
    });
    let paths: Vec<String> = (0..50).map(|n| format!("/made/{n}")).collect();
    make(&app, &paths.iter().map(String::as_str).collect::<Vec<_>>(), &["first"]);
    subscriber.wait();
    let lines = subscriber.stdout();
    assert!((0..50).all(|n| lines.lines().any(|line| line == format!("made/{n}=first"))), "{lines}");
}

#[test]
fn who_was_away_gets_what_was_named_meanwhile() {
    let app = app();
    let (mut reader, _) = client(&app, "reader", false);
    assert_eq!((reader.subscribe("made/#", 1), reader.subscribe("quiet/#", 0)), (1, 0));
    drop(reader);
    is_away(&app);
    make(&app, &["/quiet/a"], &["lost: QoS 0 is for who is there"]);
    make(&app, &["/made/a"], &["one", "two"]);
    let (mut reader, known) = client(&app, "reader", false);
    assert!(known);
    assert_eq!(hear(&mut reader), heard("made/a", "one"));
    assert_eq!(hear(&mut reader), heard("made/a", "two"));
    make(&app, &["/quiet/a"], &["three"]);
    assert_eq!(hear(&mut reader), heard("quiet/a", "three"));
}

#[test]
fn a_subscription_begins_where_it_was_acknowledged() {
    let app = app();
    let (mut reader, _) = client(&app, "reader", true);
    assert_eq!(reader.subscribe("made/#", 0), 0);
    // The session has seen this one come and go by, unwanted; and then it is wanted.
    make(&app, &["/late/a"], &["before"]);
    assert_eq!(reader.subscribe("late/#", 1), 1);
    reader.heard_nothing();
    make(&app, &["/late/a"], &["behind"]);
    assert_eq!(hear(&mut reader), heard("late/a", "behind"));
    // Two filters, one message, the better QoS.
    assert_eq!(reader.subscribe("made/+", 1), 1);
    make(&app, &["/made/a"], &["once"]);
    let message = reader.message();
    assert_eq!((message.text(), message.id.is_some()), ("once".into(), true));
    reader.acknowledge(message.id.expect("an identifier"));
    // Taken back, and subscribed to again: what came between is for nobody.
    reader.send(0xa2, &[&b"\0\x07"[..], &mqtt_client::text("late/#")].concat());
    assert_eq!(reader.next().map(|packet| packet.first), Some(0xb0));
    make(&app, &["/late/a"], &["between"]);
    assert_eq!(reader.subscribe("late/a", 0), 0);
    make(&app, &["/late/a"], &["again"]);
    assert_eq!(hear(&mut reader), heard("late/a", "again"));
}

#[test]
fn a_topic_that_goes_and_comes_back_is_waited_for() {
    let app = app();
    let (mut kept, _) = client(&app, "kept", false);
    assert_eq!(kept.subscribe("made/#", 1), 1);
    make(&app, &["/made/a"], &["one"]);
    assert_eq!(hear(&mut kept), heard("made/a", "one"));
    for n in 0..4 {
        // What the version before has named ends with it.
        app.change(&format!("{MAKER}// {n}"));
        kept.closed();
        is_away(&app);
        let (mut fresh, _) = client(&app, "fresh", true);
        assert_eq!(fresh.subscribe("made/a", 0), 0);
        let said = format!("back {n}");
        make(&app, &["/made/a"], &[&said]);
        assert_eq!(hear(&mut fresh), heard("made/a", &said));
        let known;
        (kept, known) = client(&app, "kept", false);
        assert!(known);
        assert_eq!(hear(&mut kept), heard("made/a", &said));
    }
}

#[test]
fn a_session_waits_for_a_topic_that_has_gone() {
    let app = app();
    let (mut kept, _) = client(&app, "kept", false);
    assert_eq!(kept.subscribe("made/a", 1), 1);
    make(&app, &["/made/a"], &["one"]);
    assert_eq!(hear(&mut kept), heard("made/a", "one"));
    app.change(&format!("{MAKER}// again"));
    kept.closed();
    let (mut kept, known) = client(&app, "kept", false);
    assert!(known);
    kept.heard_nothing();
    make(&app, &["/made/a"], &["two"]);
    assert_eq!(hear(&mut kept), heard("made/a", "two"));
}

#[test]
fn a_stream_that_is_named_again_has_not_ended() {
    let app = app();
    make(&app, &["/made/a"], &["one"]);
    app.change(&format!("{MAKER}// again"));
    assert_eq!(app.get("/made/a").status, 404);
    make(&app, &["/made/a"], &[]);
    assert!(app.streams("/made/a"), "nothing was said since");
    let (mut sse, mut socket) = (app.sse("/made/a"), Raw::websocket(&app.url("/made/a")));
    let (mut reader, _) = client(&app, "reader", true);
    assert_eq!(reader.subscribe("made/a", 0), 0);
    reader.heard_nothing();
    make(&app, &["/made/a"], &["two"]);
    assert_eq!(sse.event().expect("an event").1, "two");
    assert_eq!(socket.read_message().expect("a message").text(), "two");
    assert_eq!(hear(&mut reader), heard("made/a", "two"));
}

#[test]
fn who_listens_to_all_subscriptions_gets_their_first_values() {
    let app = app();
    let mut all = app.sse("/graphql/sse");
    let tell = |name: &str, data: &str| {
        let what = json!({ "name": name, "data": data });
        assert_eq!(app.send("/tell", "application/json", &what.to_string()).status, 200);
    };
    for n in 0..50 {
        let name = format!("n{n}");
        tell(&name, "first");
        assert_eq!(value(&mut all), json!({ "data": { &name: "first" } }));
    }
    // Gone, and there again.
    app.change(&format!("{MAKER}// again"));
    for n in 0..50 {
        let name = format!("n{n}");
        tell(&name, "again");
        assert_eq!(value(&mut all), json!({ "data": { &name: "again" } }));
    }
}
