//! The guides that people have: their pages, the blocks that run in pages, and their lines for a shell, as they stand,
//! with chromium, bash and curl against scripts.

mod common;
mod link;
mod scripted;

use common::{Scratch, Wsevent, eventually};
use scripted::{Scripted, browser::Browser, guide::Guides, reach, said, send};
use serde_json::{Value, json};

/// What stands around a block in its page, what the page then does, and what it does once the server was killed.
struct Row {
    /// The first is the page's name. Blocks with `=` between them are the same; those with `+` are one program.
    blocks: &'static str,
    before: &'static str,
    behind: &'static str,
    check: fn(&Stage, &str),
    again: Option<fn(&Stage, &str)>,
}

const fn row(blocks: &'static str, before: &'static str, behind: &'static str, check: fn(&Stage, &str)) -> Row {
    Row { blocks, before, behind, check, again: None }
}

impl Row {
    const fn again(mut self, again: fn(&Stage, &str)) -> Self {
        self.again = Some(again);
        self
    }

    fn page(&self) -> &'static str {
        self.blocks.split_once(' ').map_or(self.blocks, |(page, _)| page)
    }

    /// The page's text.
    fn html(&self, guides: &Guides) -> String {
        let mut texts = self.blocks.split(" = ").map(|one| one.split('+').map(|name| guides.block(name)).collect());
        let text: String = texts.next().expect("a block");
        assert!(texts.all(|other: String| other == text), "{}", self.blocks);
        format!("<!doctype html>\n<script>\n{}\n{text}\n{}\n</script>\n", self.before, self.behind)
    }
}

/// The pages' server and browser.
struct Stage {
    app: Scripted,
    browser: Browser,
}

impl Stage {
    /// Sends until one reader got it.
    fn reach(&self, to: &str, data: Value, filter: Value) {
        reach(&self.app, to, data, filter, 1);
    }

    /// The same to the stream that a page opened for its block.
    fn reach_own(&self, page: &str, data: Value) {
        self.reach("/own", data, json!({ "page": page }));
    }

    /// Waits until the page has told this so often.
    fn times(&self, page: &str, part: &str, times: usize) {
        eventually(&format!("{page}: {part}"), || (self.browser.count(page, part) == times).then_some(()));
    }
}

/// What a script registers beside a block's own names, and the route by which we send.
const SERVER: &str = r#"
for (const path of ["/your-stream-path", "/notifications", "/chat", "/updates", "/test-metadata", "/own"])
  routeRegistry.registerStreamRoute(path);
graphQLRegistry.registerSubscription("chatMessages", "type Subscription { chatMessages: String }", "nowhere");
function send(context) {
  const { to, data, filter } = JSON.parse(context.request.body);
  return to.startsWith("/") ? sendStreamMessageFiltered(to, data, filter) : sendSubscriptionMessageFiltered(to, data, filter);
}
register("/send", "send", "POST");
register("/fire", "triggerEvent", "POST");
"#;

const OWN: &str = "const eventSource = new EventSource(`/own?page=${location.hash.slice(1)}`);";
const OWN_SHOWING: &str = "const eventSource = new EventSource(`/own?page=${location.hash.slice(1)}`);
const shower = (what) => (data) => say(what, data.n ?? data);
const [showNotification, updateUI, handleError, showErrorMessage] = ['notification', 'update', 'fault', 'lost'].map(shower);
const data = { n: 1 };";
const SHOWING: &str = "const showNotification = (...words) => say('notification', ...words);
const updateUI = (data) => say('update', data.n);";
const HEAR: &str = "eventSource.onmessage = ({ data }) => say('heard', data);";
/// Tells what a `fetch` is answered, part by part.
const POSTED: &str = "const request = fetch;
window.fetch = async (...asked) => {
  const response = await request(...asked);
  const reader = response.clone().body.pipeThrough(new TextDecoderStream()).getReader();
  const tell = ({ done, value }) => done || (say('posted', value), reader.read().then(tell));
  reader.read().then(tell);
  return response;
};";

fn rows() -> Vec<Row> {
    let all = "[eventSource, adminSource, tenantSource].forEach((source) => (source.onmessage = (e) => say('heard', e.data)));";
    let user = "const getCurrentUser = () => ({ id: 'u7', role: 'editor', tenantId: 't&9' });";
    let both = "[notifications, chat].forEach((source) => (source.onmessage = (e) => say('heard', e.data)));";
    let unload = "eventSource.onmessage = () => {
        dispatchEvent(new Event('beforeunload'));
        say('state', eventSource.readyState);
    };";
    let switches = "switchRoom('first'); switchRoom('a b&c'); eventSource.onmessage = (e) => say('heard', e.data);";
    vec![
        row("A6 = B21b", "", "", event_source).again(event_source_again),
        row("A7 = B22", SHOWING, "", manager).again(manager_again),
        row("A16 = B31", OWN_SHOWING, "", by_type),
        row("A17 = B32", OWN, unload, |stage, page| {
            stage.reach_own(page, json!(1));
            stage.browser.tells(page, "state 2");
            reach(&stage.app, "/own", 2, json!({ "page": page }), 0);
        }),
        row("A19 = B34", OWN_SHOWING, "", |stage, page| stage.reach_own(page, json!(1))).again(|stage, page| {
            stage.browser.tells(page, "error Stream error:");
            stage.browser.tells(page, "lost Connection lost");
        }),
        row("A21 = B36", OWN, "", |stage, page| stage.reach_own(page, json!(1))).again(|stage, page| {
            stage.browser.tells(page, "error EventSource failed:");
            stage.browser.tells(page, "log ReadyState: 0");
        }),
        row("A23 = B38", OWN_SHOWING, "", |stage, page| {
            stage.browser.tells(page, "log EventSource state: 0");
            stage.browser.tells(page, "log Received message:");
        }),
        row("A24 = B39", OWN, "", count).again(|stage, page| stage.browser.tells(page, "log Connections: 2")),
        row("A28", POSTED, HEAR, subscribed),
        row("B11", "", all, |stage, page| {
            hears(stage, page, "/chat", json!({"user_id": "user123", "room": "general"}));
            hears(stage, page, "/notifications", json!({"role": "admin", "department": "engineering"}));
            hears(stage, page, "/updates", json!({"tenant_id": "tenant123", "environment": "production"}));
        }),
        row("B13", "", "stream.onmessage = (e) => say('heard', e.data);", |stage, page| {
            hears(stage, page, "/chat", json!({"user_id": "user123", "room": "general", "role": "member"}));
        }),
        row("B13+B14", user, both, |stage, page| {
            for path in ["/notifications", "/chat"] {
                hears(stage, page, path, json!({"user_id": "u7", "role": "editor", "tenant_id": "t&9"}));
            }
        }),
        row("B15", "let eventSource = null;", switches, |stage, page| {
            hears(stage, page, "/chat", json!({"user_id": "user123", "room": "a b&c"}));
            reach(&stage.app, "/chat", 1, json!({"room": "first"}), 0);
        }),
        row("B16", "const urlWithMetadata = '/a?b=c';", "", |stage, page| {
            stage.browser.tells(page, "log Connecting to: /a?b=c");
            stage.reach("/test-metadata", json!({"n": 1}), json!({"debug": "true", "user_id": "test"}));
            stage.browser.tells(page, r#"log Connection metadata: {"n":1}"#);
        }),
        row("B42", POSTED, HEAR, selected),
    ]
}

/// One connection of the page has this metadata, and hears what is meant for it.
fn hears(stage: &Stage, page: &str, path: &str, metadata: Value) {
    stage.reach(path, json!({ "on": path }), metadata);
    stage.browser.tells(page, &format!(r#"heard {{"on":"{path}"}}"#));
}

fn event_source(stage: &Stage, page: &str) {
    stage.reach("/your-stream-path", json!({"n": 1}), json!({}));
    stage.times(page, "log Stream connected", 1);
    stage.times(page, "log Received:", 1);
}

fn event_source_again(stage: &Stage, page: &str) {
    stage.browser.tells(page, "error Stream error:");
    stage.reach("/your-stream-path", json!({"n": 2}), json!({}));
    stage.times(page, "log Stream connected", 2);
    stage.browser.tells(page, "log Received: {n: 2}");
}

fn manager(stage: &Stage, page: &str) {
    stage.reach("/notifications", json!({"type": "other"}), json!({}));
    stage.reach("/notifications", json!({"type": "update", "n": 1}), json!({}));
    stage.reach("/notifications", json!({"type": "notification", "title": "t", "body": "b"}), json!({}));
    stage.browser.tells(page, "update 1");
    stage.browser.tells(page, "notification t b");
}

/// It opens a connection beside the one that the browser opens by itself, and earlier, so that its counter is at 0 again.
fn manager_again(stage: &Stage, page: &str) {
    stage.browser.tells(page, "log Reconnecting... (attempt ");
    eventually("the page to come back", || {
        send(&stage.app, "/notifications", json!({"type": "update", "n": 2}), json!({}));
        (stage.browser.count(page, "update 2") > 0).then_some(())
    });
}

fn by_type(stage: &Stage, page: &str) {
    for kind in ["notification", "update", "error", "other"] {
        stage.reach_own(page, json!({"type": kind, "n": 1}));
    }
    for told in ["notification 1", "update 1", "fault 1", "warning Unknown message type: other"] {
        stage.times(page, told, 1);
    }
}

fn count(stage: &Stage, page: &str) {
    for n in 0..100 {
        stage.reach_own(page, json!(n));
    }
    stage.browser.tells(page, "log Connections: 1");
    stage.browser.tells(page, "log Messages received: 100");
}

fn subscribed(stage: &Stage, page: &str) {
    reach(&stage.app, "liveEvents", "both", json!({}), 2);
    assert_eq!(stage.app.post("/fire").status, 200);
    stage.browser.tells(page, r#"heard {"event":"user_joined""#);
    stage.browser.tells(page, r#"{"data":{"liveEvents":"{\"event\":\"user_joined\""#);
}

fn selected(stage: &Stage, page: &str) {
    let message = json!({"id": 1, "text": "t", "sender": "s", "more": 2});
    reach(&stage.app, "chatMessages", message, json!({"user_id": "user123", "room": "general"}), 2);
    stage.browser.tells(page, r#"data: {"data":{"chatMessages":{"id":1,"text":"t","sender":"s"}}}"#);
    stage.browser.tells(page, r#"heard {"data":{"chatMessages":"#);
    reach(&stage.app, "chatMessages", "for members", json!({"role": "member"}), 1);
    reach(&stage.app, "chatMessages", "for others", json!({"user_id": "other"}), 0);
}

#[test]
fn every_block_for_pages_does_what_its_guide_says() {
    let Some(guides) = Guides::read() else { return };
    let (rows, www) = (rows(), Scratch::new());
    for row in &rows {
        www.file(&format!("{}.html", row.page()), row.html(&guides));
    }
    let app = Scripted::serve_with(&[guides.block("A27"), SERVER].concat(), &format!("--static {}", www.arg("")));
    let mut stage = Stage { app, browser: Browser::start() };
    for row in &rows {
        let page = row.page();
        println!("{}", row.blocks);
        stage.browser.open(page, &stage.app.url(&format!("/{page}.html#{page}")));
        (row.check)(&stage, page);
        assert_eq!(stage.browser.count(page, "thrown "), 0, "{page}");
        if row.again.is_none() {
            stage.browser.close(page);
        }
    }
    stage.app.running.restart();
    for row in &rows {
        let Some(again) = row.again else { continue };
        println!("{}, again", row.blocks);
        again(&stage, row.page());
    }
}

#[test]
fn the_first_page_shows_what_is_triggered() {
    let Some(guides) = Guides::read() else { return };
    let mut browser = Browser::start();
    for (script, page) in [("A2", "A3"), ("B2", "B3")] {
        let www = Scratch::new();
        www.file("index.html", guides.block(page));
        let app = Scripted::serve_with(guides.block(script), &format!("--static {}", www.arg("")));
        browser.open(page, &app.url("/"));
        eventually("the event in the page", || {
            assert_eq!(said(&app.post("/trigger")), (200, "Event sent".into()));
            (browser.count(page, "shows Something happened! at 20") > 0).then_some(())
        });
        browser.close(page);
    }
}

#[test]
fn the_lines_for_a_shell_stream_and_trigger() {
    let Some(guides) = Guides::read() else { return };
    let lines = guides.block("A8");
    assert_eq!(lines, guides.block("B23"));
    let app = Scripted::serve(
        "registerWebStream('/notifications');
        register('/trigger-notification', 'trigger', 'POST');
        const trigger = () => routeRegistry.sendStreamMessage('/notifications', { n: 1 });",
    );
    let lines = lines.replace(":3000/", &format!(":{}/", app.running.port()));
    let mut commands = lines.lines().filter(|line| line.starts_with("curl ")).map(|line| {
        // So that ending bash ends curl.
        Wsevent::program("bash").args(["-c", &format!("exec {line}")])
    });
    let (stream, trigger) = (commands.next().expect("a line").start(), commands.next().expect("two lines"));
    eventually("the trigger to reach the stream", || {
        let done = trigger.clone().run();
        assert_eq!(done.code, 0, "{done:?}");
        done.stdout.contains("1 successful").then_some(())
    });
    eventually("the event", || stream.stdout().contains("data: {\"n\":1}\n").then_some(()));
}
