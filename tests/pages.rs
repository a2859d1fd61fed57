//! Pages that read a script's streams, in chromium, and the same outside of browsers with npm's `eventsource`.

mod common;
mod link;
mod scripted;

use common::{Running, Wsevent, eventually, find_program, root};
use scripted::{Scripted, browser::Browser, reach};
use serde_json::{Value, json};

/// Our pages and the script that they are about.
fn serve() -> Scripted {
    let pages = root().join("tests/clients/pages");
    let source = std::fs::read_to_string(pages.join("app.js")).expect("a script");
    Scripted::serve_with(&source, &format!("--static {}", pages.display()))
}

/// One of the pages, and the browser that it is in.
fn page(name: &str) -> (Scripted, Browser) {
    let (app, mut browser) = (serve(), Browser::start());
    browser.open("page", &app.url(&format!("/{name}")));
    (app, browser)
}

fn everyone() -> Value {
    json!({})
}

#[test]
fn alerts_are_shown_by_their_level() {
    let (app, browser) = page("alerts.html");
    reach(&app, "/alerts", json!({"level": "info", "text": "tea is ready"}), everyone(), 1);
    browser.tells("page", "shows For information: tea is ready");
    reach(&app, "/alerts", json!({"level": "odd", "text": "?"}), everyone(), 1);
    browser.tells("page", "warning no such level: odd");
    reach(&app, "/alerts", json!({"level": "urgent", "text": "<b>out of tea</b>"}), everyone(), 1);
    browser.tells("page", "shows Urgent: <b>out of tea</b>\nFor information: tea is ready");
}

#[test]
fn a_dashboard_reads_two_streams() {
    let (app, browser) = page("dashboard.html");
    reach(&app, "/metrics", json!({"cups": 3, "pots": 1}), everyone(), 1);
    reach(&app, "/load", json!({"kettle": 0.5}), everyone(), 1);
    reach(&app, "/metrics", json!({"cups": 4}), everyone(), 1);
    browser.tells("page", "shows cups 4\nkettle 0.5\npots 1");
}

#[test]
fn a_chat_hears_its_room_and_itself() {
    let (app, mut browser) = page("chat.html?who=ann&room=tea");
    browser.open("bob", &app.url("/chat.html?who=bob&room=tea"));
    let say = |text: &str| json!({"from": "cat", "text": text});
    reach(&app, "/room", say("hello"), json!({"room": "tea"}), 2);
    reach(&app, "/room", say("psst"), json!({"room": "tea", "who": "ann"}), 1);
    reach(&app, "/room", json!({"move": "a&b=c d+é"}), json!({"who": "ann"}), 1);
    browser.tells("page", "shows ann in a&b=c d+é");
    reach(&app, "/room", say("up here"), json!({"room": "a&b=c d+é"}), 1);
    reach(&app, "/room", say("who is left"), json!({"room": "tea"}), 1);
    reach(&app, "/room", say("all"), everyone(), 2);
    browser.tells("page", "cat: psst\ncat: up here\ncat: all");
    browser.tells("bob", "cat: who is left\ncat: all");
    assert_eq!(
        browser.count("bob", "psst") + browser.count("bob", "up here") + browser.count("page", "who is left"),
        0
    );
}

#[test]
fn a_page_comes_back_by_its_own_clock() {
    let (mut app, browser) = page("backoff.html");
    reach(&app, "/alerts", json!({"text": "before"}), everyone(), 1);
    browser.tells("page", "before on connection 1");
    app.running.kill9();
    browser.tells("page", "again in 200 ms");
    app.running.start_again();
    reach(&app, "/alerts", json!({"text": "after"}), everyone(), 1);
    browser.tells("page", "after on connection 2");
}

#[test]
fn a_page_subscribes_in_four_ways() {
    let (app, browser) = page("graphql.html");
    let goal = json!({"of": "home", "goals": 1, "scorer": "ann"});
    reach(&app, "score", goal, json!({"side": "home"}), 4);
    for way in ["post", "get"] {
        browser.tells("page", &format!("{way} {}", r#"{"of":"home","goals":0}"#));
        browser.tells("page", &format!("{way} {}", r#"{"of":"home","goals":1}"#));
    }
    browser.tells("page", "all 1");
    browser.tells("page", "bare 1");
    reach(&app, "score", "none", json!({"side": "away"}), 0);
}

fn event_source(url: &str) -> Running {
    let node = find_program("node").expect("node is missing: run scripts/test, which installs it");
    let clients = root().join("tests/clients");
    let there = clients.join("node_modules/eventsource").is_dir();
    assert!(there, "the npm package eventsource is missing: run scripts/test, which installs it");
    Wsevent::program(node).args([clients.join("eventsource_reader.js").into_os_string(), url.into()]).start()
}

#[test]
fn an_event_source_outside_of_browsers_hears_the_same() {
    let mut app = serve();
    let paths = ["/room", "/graphql/subscription/score", "/graphql/sse"];
    let readers = paths.map(|path| event_source(&app.url(&format!("{path}?who=ann"))));
    for text in ["before", "after"] {
        reach(&app, "/room", text, json!({"who": "ann"}), 1);
        reach(&app, "score", text, json!({"who": "ann"}), 2);
        reach(&app, "score", "for bob", json!({"who": "bob"}), 0);
        let score = json!({"data": {"score": text}}).to_string();
        for (reader, data) in readers.iter().zip([text, text, &score]) {
            let told = format!("[\"text\",{},", json!(data));
            eventually(&told, || reader.stdout().contains(&told).then_some(()));
            assert!(!reader.stdout().contains("for bob"));
        }
        app.running.restart();
    }
}
