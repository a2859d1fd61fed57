//! A script among the stages of a topic: what it drops, changes and splits, and what becomes of events on which it fails.

mod common;
mod link;
mod scripted;

use common::{Scratch, Wsevent, eventually, raw};
use scripted::Scripted;
use serde_json::{Value, json};

const STAGE: &str = r#"
let seen = 0;
function onEvent(event) {
  seen += 1;
  const { data } = event;
  switch (data.do) {
    case "drop": return;
    case "keep": return event;
    case "data": event.data.seen = seen; return event;
    case "payload": event.payload = "own"; return event;
    case "split": return [event, { data: { part: 2 } }, "three"];
    case "throw": throw new Error("on purpose");
    case "number": return 5;
    case "loop": while (true);
    default: return typeof data === "string" ? `text ${data}` : { payload: JSON.stringify(Object.keys(event)) };
  }
}
"#;

/// A hub behind the script, with these options before and behind it.
fn hub(before: &str, behind: &str) -> Scripted {
    let scratch = Scratch::new();
    let file = scratch.file("app.js", STAGE);
    let line = Wsevent::line(&format!("--no-produce --script-timeout 300ms {before}"));
    let running = line.args(["--stage-script", &file]).args(behind.split_whitespace()).serve();
    Scripted { running, scratch }
}

fn post(app: &Scripted, event: &str) {
    assert_eq!(raw::post(app.running.url(), event).status, 200, "{event}");
}

fn events(app: &Scripted) -> Value {
    serde_json::from_slice(&raw::get(app.running.url()).body).expect("JSON")
}

#[test]
fn events_are_dropped_changed_and_split() {
    let app = hub("", "");
    for event in [
        r#"{"do": "keep",  "a": 1}"#,
        r#"{"do":"drop"}"#,
        r#"{"do": "data"}"#,
        r#"{"do":"payload"}"#,
        r#"{"do": "split"}"#,
        "plain",
        "{}",
    ] {
        post(&app, event);
    }
    let texts = [
        r#"{"do": "keep",  "a": 1}"#,
        r#"{"do":"data","seen":3}"#,
        "own",
        r#"{"do": "split"}"#,
        r#"{"part":2}"#,
        "three",
        "text plain",
        r#"["id","type","time","payload","data"]"#,
    ];
    let mut stream = raw::Raw::websocket(&format!("{}?since=oldest", app.running.url()));
    for text in texts {
        assert_eq!(stream.read_message().expect("an event").text(), text);
    }
}

#[test]
fn it_stands_where_it_was_typed() {
    let app = hub("--map .in", "--map .seen");
    post(&app, r#"{"in":{"do":"data"}}"#);
    post(&app, r#"{"in":{"do":"data"}}"#);
    assert_eq!(events(&app), json!([1, 2]));
}

#[test]
fn an_event_on_which_it_fails_is_dropped_and_counted() {
    let app = hub("", "");
    for event in [r#"{"do":"throw"}"#, r#"{"do":"number"}"#, r#"{"do":"loop"}"#, r#"{"do":"keep"}"#] {
        post(&app, event);
    }
    assert_eq!(events(&app), json!([{"do": "keep"}]), "the stream goes on");
    assert_eq!(app.running.topic()["stage_errors"], 3);
    app.says("Error: on purpose");
    app.says("app.js:12:");
    let status: Value = serde_json::from_slice(&app.running.own("status").body).expect("JSON");
    assert_eq!((&status["scripts"][0]["calls"], &status["scripts"][0]["timeouts"]), (&json!(4), &json!(1)));
}

#[test]
fn a_slow_one_delays_its_own_topic_alone() {
    let app = hub("", "");
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..8).map(|_| scope.spawn(|| post(&app, r#"{"do":"loop"}"#))).collect();
        // More of them than there are threads for tasks.
        while !slow.iter().all(|slow| slow.is_finished()) {
            assert_eq!(app.running.own("healthz").status, 200);
        }
    });
    assert_eq!(app.running.topic()["stage_errors"], 8);
}

#[test]
fn a_type_can_be_given_and_taken() {
    let scratch = Scratch::new();
    let file =
        scratch.file("app.js", "const onEvent = (event) => ({ ...event, type: event.type === 'a' ? 'b' : null });");
    let running = Wsevent::new(["--no-produce", "--stage-script", &file]).serve();
    let app = Scripted { running, scratch };
    for kind in ["a", "c"] {
        let answer = raw::request("POST", app.running.url(), &format!("Event-Type: {kind}\r\n"), b"x");
        assert_eq!(answer.status, 200);
    }
    let mut stream = link::Sse::open(&format!("{}?since=oldest", app.running.url()));
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let block = stream.block().expect("a block");
        kinds.extend(block.data.map(|_| block.kind));
    }
    assert_eq!(kinds, [Some("b".to_owned()), None]);
}

#[test]
fn a_changed_stage_holds_and_a_broken_one_does_not() {
    let app = hub("", "");
    app.change("function onEvent(event) { return 'new'; }");
    post(&app, "1");
    app.scratch.file("app.js", "function onEvent(");
    common::bash(&format!("kill -HUP {}", app.running.pid()));
    app.says("not taken");
    post(&app, "2");
    assert_eq!(raw::get(app.running.url()).text(), r#"["new","new"]"#);
    app.scratch.file("app.js", "");
    common::bash(&format!("kill -HUP {}", app.running.pid()));
    eventually("a script without onEvent", || {
        post(&app, "3");
        (app.running.topic()["stage_errors"].as_u64() > Some(0)).then_some(())
    });
    app.says("no function is named onEvent");
}

#[test]
fn it_has_the_log_and_names_nothing() {
    let scratch = Scratch::new();
    let file = scratch
        .file("app.js", "console.log('here'); const onEvent = () => typeof registerWebStream + typeof writeLog;");
    let done = Wsevent::new(["--produce", "-", "--no-serve", "--stage-script", &file]).input("1\n").run();
    assert_eq!((done.code, done.stdout.as_str()), (0, "undefinedfunction\n"), "{done:?}");
    assert!(done.stderr.contains("here"), "{done:?}");
    let refused = Wsevent::new(["--script", &file, "--no-serve"]).run();
    assert_eq!((refused.code, refused.stderr.contains("drop --no-serve")), (2, true), "{refused:?}");
}
