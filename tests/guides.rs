//! The guides that people have: each of their server blocks runs as it stands, with the names that it leaves open defined
//! before it and, where it registers nothing, a registration behind it.

mod common;
mod link;
mod scripted;

use common::raw;
use scripted::{
    Scripted,
    guide::{Guides, blocks},
    next, said,
};
use serde_json::{Value, json};

/// What stands around a block, and what it then does.
struct Row {
    /// The guide's letter and the block's number, from 1.
    block: &'static str,
    before: &'static str,
    behind: &'static str,
    check: fn(&Scripted),
}

const fn row(block: &'static str, before: &'static str, behind: &'static str, check: fn(&Scripted)) -> Row {
    Row { block, before, behind, check }
}

const DATA: &str = "const data = { type: 'stub', message: 'hello' };\n";
const ROOM: &str = "const data = { type: 'stub' }, filter = JSON.stringify({ room: 'a' });\n";
const ACTION: &str = "\nregister('/action', 'handleUserAction', 'POST');\n";
const LOADED: &str = "\nregister('/loaded', 'loaded');\nfunction loaded() { return 'loaded'; }\n";

fn rows() -> Vec<Row> {
    let safe = "\nregisterWebStream('/notifications');\nregister('/safe', 'safeHandler', 'POST');\n";
    let broadcast = "\nregisterWebStream('/chat');\nregister('/safe', 'safeBroadcast', 'POST');\n";
    let ids = "function generateId() { return 'one'; }\n";
    vec![
        row("A2", "", "", quick_start),
        row("B2", "", "\nregisterWebStream('/other');\n", quick_start),
        row("A4", "", "", three_streams),
        row("B4", "", "", three_streams),
        row("A5", "", LOADED, loaded),
        row("B5", "", LOADED, loaded),
        row("B6", "", LOADED, loaded),
        row("B7", "", LOADED, loaded),
        row("B8", "", LOADED, loaded),
        row("B10", DATA, LOADED, loaded),
        row("B12", "", LOADED, loaded),
        row("A14", ids, LOADED, loaded),
        row("B29", ids, LOADED, loaded),
        row("B43", DATA, LOADED, loaded),
        row("B21a", ROOM, LOADED, |app| {
            loaded(app);
            app.says("Broadcast result: Broadcast to '/test'");
            assert_eq!(app.said("Broadcast result: Broadcast to '/test': 0 successful, 0 failed"), 1);
        }),
        row("B9", "", "", personal),
        row("A9", "", "", alerts),
        row("B24", "", "", alerts),
        row("A10", "", "", dashboard),
        row("B25", "", "", dashboard),
        row("A11", "", "", chat),
        row("B26", "", "", chat),
        row("A12", "", "", feed),
        row("B27", "", "", feed),
        row("A13", "", "", five_streams),
        row("B28", "", "", five_streams),
        row("B17", "", "", rooms),
        row("B18", "", "", roles),
        row("B19", "", "", tenants),
        row("A18", "", safe, unsafe_handler),
        row("B33", "", safe, unsafe_handler),
        row("A18", "const result = [1];\n", safe, safe_handler),
        row("B33", "const result = [1];\n", safe, safe_handler),
        row("B20", "", broadcast, |app| {
            assert_eq!(said(&app.post("/safe")), (500, "Broadcast failed".into()));
            app.says("Broadcast failed: data is not defined");
        }),
        row("B20", ROOM, broadcast, |app| {
            let (mut inside, answer) = (app.sse("/chat?room=a"), app.post("/safe"));
            assert_eq!(answer.status, 200);
            assert_eq!(next(&mut inside), json!({"type": "stub"}));
            app.says("Broadcast result: ");
        }),
        row("A20", "", "", lines_in_order),
        row("B35", "", "", lines_in_order),
        row("A22", DATA, LOADED, two_lines),
        row("B37", DATA, LOADED, two_lines),
        row("A25", "", ACTION, |app| {
            let mut streams = ["/notifications", "/system-status", "/chat"].map(|path| app.sse(path));
            act(app);
            for stream in &mut streams {
                assert_eq!(next(stream)["type"], "user_action");
                assert_eq!(next(stream)["type"], "system_status");
            }
        }),
        row("B40", "", ACTION, |app| {
            let [mut users, mut system] = ["/notifications", "/system-status"].map(|path| app.sse(path));
            act(app);
            assert_eq!(next(&mut users)["type"], "user_action");
            assert_eq!(next(&mut system)["type"], "system_status");
            assert_eq!(events(app, "/chat"), json!([]));
            assert_eq!(events(app, "/notifications").as_array().map(Vec::len), Some(1));
        }),
        row("A26", "", "", webhook),
        row("B41", "", "", webhook),
        row("A27", "", "\nregister('/fire', 'triggerEvent', 'POST');\n", |app| {
            let mut stream = app.sse("/graphql/subscription/liveEvents");
            assert_eq!(app.post("/fire").status, 200);
            assert_eq!(next(&mut stream)["event"], "user_joined");
        }),
    ]
}

fn quick_start(app: &Scripted) {
    let mut stream = app.sse("/events");
    assert_eq!(said(&app.post("/trigger")), (200, "Event sent".into()));
    let event = next(&mut stream);
    assert_eq!((&event["type"], &event["message"]), (&json!("event"), &json!("Something happened!")));
}

fn are_streams(app: &Scripted, paths: &[&str]) {
    for path in paths {
        assert_eq!(app.sse(path).answer.header("content-type"), Some("text/event-stream"), "{path}");
    }
}

fn three_streams(app: &Scripted) {
    are_streams(app, &["/notifications", "/chat/room1", "/status/server1"]);
}

fn five_streams(app: &Scripted) {
    let good = ["/notifications/user123", "/chat/room/general", "/status/server/production"];
    are_streams(app, &good);
    are_streams(app, &["/stream1", "/s"]);
}

fn loaded(app: &Scripted) {
    assert_eq!(app.get("/loaded").text(), "loaded");
}

/// What a stream retains.
fn events(app: &Scripted, path: &str) -> Value {
    let answer = raw::request("GET", &app.url(path), "Accept: application/json\r\n", b"");
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn alerts(app: &Scripted) {
    let mut stream = app.sse("/notifications");
    assert_eq!(said(&app.form("/send-alert", "type=disk&message=full+up")), (200, "Alert sent".into()));
    let alert = next(&mut stream);
    assert_eq!(
        (&alert["alertType"], &alert["message"], &alert["priority"]),
        (&json!("disk"), &json!("full up"), &json!("normal"))
    );
}

fn dashboard(app: &Scripted) {
    let mut stream = app.sse("/dashboard");
    assert_eq!(said(&app.post("/update-metrics")), (200, "Metrics updated".into()));
    let metrics = next(&mut stream);
    assert!(metrics["cpu"].as_f64().is_some_and(|cpu| (0.0..100.0).contains(&cpu)), "{metrics}");
}

fn chat(app: &Scripted) {
    let mut stream = app.sse("/chat");
    assert_eq!(said(&app.form("/chat/send", "user=ann&room=a&message=hi")), (200, "Message sent".into()));
    let message = next(&mut stream);
    assert_eq!((&message["user"], &message["room"], &message["message"]), (&json!("ann"), &json!("a"), &json!("hi")));
}

fn feed(app: &Scripted) {
    let mut stream = app.sse("/data-feed");
    assert_eq!(said(&app.get("/broadcast-data?sensor=s%201")), (200, "Data broadcasted".into()));
    let update = next(&mut stream);
    assert_eq!((&update["sensor_id"], &update["unit"]), (&json!("s 1"), &json!("celsius")));
    app.get("/broadcast-data");
    assert_eq!(next(&mut stream).get("sensor_id"), None, "what was not asked is left out");
}

/// Of two readers only the first hears of it.
fn only(app: &Scripted, path: &str, metadata: [&str; 2], post: (&str, &str)) -> String {
    let [mut one, _other] = metadata.map(|metadata| app.sse(&format!("{path}?{metadata}")));
    let answer = app.form(post.0, post.1);
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("1 successful, 0 failed"), "{}", answer.text());
    next(&mut one)["type"].as_str().expect("a type").to_owned()
}

fn personal(app: &Scripted) {
    let kind = only(app, "/chat", ["user_id=u1", "user_id=u2"], ("/chat/personal", "targetUser=u1&message=hi"));
    assert_eq!(kind, "personal_message");
}

fn rooms(app: &Scripted) {
    let [u1, u2] = ["user_id=u1&room=a", "user_id=u2&room=b"];
    assert_eq!(only(app, "/chat", [u1, u2], ("/chat/room", "room=a&message=m&sender=s")), "room_message");
    assert_eq!(only(app, "/chat", [u2, u1], ("/chat/private", "targetUser=u2&message=m&sender=s")), "private_message");
}

fn roles(app: &Scripted) {
    let [admin, user] = ["role=admin&user_id=a", "role=user&user_id=b"];
    assert_eq!(only(app, "/notifications", [admin, user], ("/notify/admin", "message=m&priority=p")), "admin_alert");
    assert_eq!(only(app, "/notifications", [user, admin], ("/notify/user", "userId=b&message=m")), "user_notification");
}

fn tenants(app: &Scripted) {
    let tenants = ["tenant_id=t1", "tenant_id=t2"];
    assert_eq!(only(app, "/tenant-updates", tenants, ("/tenant/broadcast", "tenantId=t1&message=m")), "tenant_update");
}

fn unsafe_handler(app: &Scripted) {
    let mut stream = app.sse("/notifications");
    assert_eq!(said(&app.post("/safe")), (500, "Error occurred".into()));
    assert_eq!(next(&mut stream)["type"], "error");
    app.says("Error in handler: result is not defined");
}

fn safe_handler(app: &Scripted) {
    let mut stream = app.sse("/notifications");
    assert_eq!(said(&app.post("/safe")), (200, "OK".into()));
    assert_eq!(next(&mut stream), json!({"type": "success", "data": [1]}));
}

fn lines_in_order(app: &Scripted) {
    are_streams(app, &["/my-stream"]);
    app.says("Message sent");
    let log = app.running.stderr();
    let said = ["Registering stream...", "Stream registered", "Sending message...", "Message sent"];
    let places: Vec<_> = said.iter().map(|line| log.find(line).unwrap_or_else(|| panic!("{line}: {log}"))).collect();
    assert!(places.is_sorted(), "{log}");
}

fn two_lines(app: &Scripted) {
    loaded(app);
    app.says("Stream registered: /my-stream");
    app.says(r#"Broadcasting message: {"#);
}

fn act(app: &Scripted) {
    let answer = app.form("/action", "action=critical_operation&user=ann");
    assert_eq!(said(&answer), (200, "Action processed".into()));
}

fn webhook(app: &Scripted) {
    let mut stream = app.sse("/external-updates");
    let hook = r#"{"action":"opened","repository":{"name":"wsevent"}}"#;
    assert_eq!(said(&app.send("/webhook/github", "application/json", hook)), (200, "Webhook processed".into()));
    let update = next(&mut stream);
    assert_eq!((&update["event"], &update["repository"]), (&json!("opened"), &json!("wsevent")));
    assert_eq!(app.send("/webhook/github", "application/json", "no JSON").status, 500);
}

#[test]
fn every_server_block_does_what_its_guide_says() {
    let Some(guides) = Guides::read() else { return };
    for row in rows() {
        println!("{}", row.block);
        let source = [row.before, guides.block(row.block), row.behind].concat();
        (row.check)(&Scripted::serve(&source));
    }
}

/// The addresses that a block has in comments, each with the metadata of who comes to it.
#[test]
fn an_address_says_who_reads_as_the_guide_has_it() {
    let Some(guides) = Guides::read() else { return };
    let behind =
        |word: &str| guides.block("B12").lines().filter_map(|line| line.strip_prefix(word)).collect::<Vec<_>>();
    let (addresses, metadata) = (behind("// URL: "), behind("// Metadata: "));
    assert_eq!((addresses.len(), metadata.len()), (3, 3));
    let app = Scripted::serve(&format!(
        "const addresses = {addresses:?}, metadata = [{}];
        const path = (address) => address.split('?')[0];
        addresses.map(path).forEach(registerWebStream);
        const send = ({{ query: {{ n }} }}) => sendStreamMessageFiltered(path(addresses[n]), n, metadata[n]);
        register('/send', 'send');",
        metadata.join(", ")
    ));
    for (n, address) in addresses.iter().enumerate() {
        let (mut reader, answer) = (app.sse(address), app.get(&format!("/send?n={n}")).text());
        assert!(answer.contains("1 successful"), "{address}: {answer}");
        assert_eq!(next(&mut reader), json!(n));
    }
}

#[test]
fn blocks_are_found_as_commonmark_finds_them() {
    let text =
        "a\n```js\none\n  two\n```\n1. b\n\n   ```bash x\n   three\n     four\n   ```\n````js\n```\nfive\n````\n";
    let found: Vec<_> = blocks(text).into_iter().map(|block| (block.kind, block.text)).collect();
    let wanted = [("js", "one\n  two\n"), ("bash", "three\n  four\n"), ("js", "```\nfive\n")];
    assert_eq!(found, wanted.map(|(kind, text)| (kind.to_owned(), text.to_owned())));
}
