//! GraphQL subscriptions: the frames that each kind of client reads, the protocols of graphql-sse and graphql-ws, and what
//! becomes of bad input.

mod common;
mod link;
mod scripted;
mod tokens;

use common::{
    Running, Wsevent, eventually, find_program,
    raw::{self, Answer, Frame, Raw, TEXT},
    root,
};
use scripted::Scripted;
use serde_json::{Value, json};
use tokens::{Keys, claims};

/// Sends what is posted: `{name, data, filter}`.
const SENDER: &str = r#"
graphQLRegistry.registerSubscription("live", "type Subscription { live(n: Int): String }", "first");
graphQLRegistry.registerSubscription("quiet", "quiet: Message", "notThere");
graphQLRegistry.registerSubscription("broken", "type Subscription { broken: String }", "fails");
function first(context) {
  const who = context.request.query.user_id;
  return who && `${who} asks ${JSON.stringify(context.args)} of ${context.kind}`;
}
function fails() { throw new Error("a secret"); }
function send(context) {
  const { name, data, filter } = JSON.parse(context.request.body);
  return graphQLRegistry.sendSubscriptionMessageFiltered(name, data, filter);
}
routeRegistry.registerRoute("/send", "send", "POST");
"#;

fn send(app: &Scripted, name: &str, data: impl Into<Value>) -> String {
    let what = json!({ "name": name, "data": data.into() });
    app.send("/send", "application/json", &what.to_string()).text()
}

/// Sends until so many subscribers were reached.
fn reach(app: &Scripted, name: &str, data: &str, readers: usize) {
    let all = format!(": {readers} successful");
    eventually(&format!("{readers} subscribers of {name}"), || send(app, name, data).contains(&all).then_some(()));
}

/// A request on a connection that stays open.
fn ask(app: &Scripted, line: &str, headers: &str, body: &str) -> (Answer, Raw) {
    let mut raw = Raw::connect("localhost", app.running.port());
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    raw.send(format!("{line} HTTP/1.1\r\nHost: localhost\r\n{length}{headers}\r\n{body}"));
    (raw.read_head(), raw)
}

fn operation(query: &str) -> String {
    json!({ "query": query }).to_string()
}

const STREAM: &str = "Accept: text/event-stream\r\nContent-Type: application/json; charset=utf-8\r\n";

#[test]
fn each_kind_of_client_gets_its_frames() {
    let app = Scripted::serve(SENDER);
    let live = operation("subscription { live }");
    let named = "event: next\ndata: {\"data\":{\"live\":\"hi\"}}\n\n";
    for (line, headers, body, frame) in [
        ("POST /graphql/sse", STREAM, &*live, named),
        ("GET /graphql/sse?query=subscription+%7Blive%7D", "", "", named),
        ("POST /graphql/sse", "Accept: */*\r\n", &live, "data: {\"data\":{\"live\":\"hi\"}}\n\n"),
        ("POST /graphql/sse", "", &live, "data: {\"data\":{\"live\":\"hi\"}}\n\n"),
        ("GET /graphql/sse", "Accept: text/event-stream\r\n", "", "data: {\"data\":{\"live\":\"hi\"}}\n\n"),
        ("GET /graphql/subscription/live", "", "", "data: hi\n\n"),
        ("GET /engine/graphql/subscription/live", "Accept: text/event-stream\r\n", "", "data: hi\n\n"),
    ] {
        let (answer, mut raw) = ask(&app, line, headers, body);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")), "{line}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{line}");
        assert_eq!(send(&app, "live", "hi"), "Broadcast to 'live': 1 successful, 0 failed (1 matching)", "{line}");
        let all = raw.read_until(frame);
        assert_eq!(all.contains("event:"), frame.contains("event:"), "{line}: {all}");
        drop(raw);
        eventually("it has left", || send(&app, "live", "gone").contains("(0 matching)").then_some(()));
    }
}

#[test]
fn what_is_selected_is_taken_from_the_payload() {
    let app = Scripted::serve(SENDER);
    let (_, mut raw) =
        ask(&app, "POST /graphql/sse", STREAM, &operation("subscription { m: quiet { id text sender } }"));
    assert!(send(&app, "quiet", json!({"text": "x", "id": 1, "more": [2]})).contains(": 1 successful"));
    raw.read_until("data: {\"data\":{\"m\":{\"id\":1,\"text\":\"x\",\"sender\":null}}}\n\n");
    send(&app, "quiet", "{\"id\":2}");
    raw.read_until("data: {\"data\":{\"m\":{\"id\":2,\"text\":null,\"sender\":null}}}\n\n");
}

#[test]
fn a_resolver_says_the_first_value() {
    let app = Scripted::serve(SENDER);
    let query = json!({"query": "subscription($n: Int) { live(n: $n) }", "variables": {"n": 7}}).to_string();
    let (_, mut raw) = ask(&app, "POST /graphql/sse?user_id=u1", STREAM, &query);
    raw.read_until(r#"data: {"data":{"live":"u1 asks {\"n\":7} of graphqlSubscription"}}"#);
    // One that says nothing, one that is not there, and one that throws.
    for (name, answer) in [("live", None), ("quiet", None), ("broken", Some("the resolver fails failed"))] {
        let (_, mut raw) = ask(&app, "POST /graphql/sse", STREAM, &operation(&format!("subscription {{ {name} }}")));
        match answer {
            Some(why) => {
                let all = raw.read_until("event: complete\ndata:\n\n");
                assert!(all.contains(&format!("data: {{\"errors\":[{{\"message\":\"{why}\"}}]}}")), "{all}");
            }
            None => {
                reach(&app, name, "later", if name == "live" { 2 } else { 1 });
                let all = raw.read_until("\"later\"");
                assert_eq!(all.matches("event: next").count(), 1, "{all}");
            }
        }
    }
    app.says("a secret");
}

#[test]
fn who_names_nothing_hears_everything_that_is_meant_for_it() {
    let app = Scripted::serve(SENDER);
    let (_, mut raw) = ask(&app, "GET /graphql/sse?user_id=u1", "", "");
    for (name, data, user) in [("live", "a", "u1"), ("quiet", "b", "u2"), ("quiet", "c", "u1")] {
        let what = json!({ "name": name, "data": data, "filter": {"user_id": user} });
        app.send("/send", "application/json", &what.to_string());
    }
    let all = raw.read_until("{\"data\":{\"quiet\":\"c\"}}");
    assert!(all.contains("{\"data\":{\"live\":\"a\"}}") && !all.contains("\"b\""), "{all}");
    // What a new version of the script adds is heard, too.
    app.change(&format!("{SENDER}\nregisterGraphQLSubscription('more', 'more: String', '');"));
    reach(&app, "more", "new", 1);
    raw.read_until("{\"data\":{\"more\":\"new\"}}");
}

#[test]
fn bad_input_is_answered_and_hurts_nobody() {
    let app = Scripted::serve(SENDER);
    let (_, mut healthy) = ask(&app, "POST /graphql/sse", STREAM, &operation("subscription { live }"));
    let url = app.url("/graphql/sse");
    for (headers, body, status) in [
        ("", "no json", 400),
        ("", "[]", 400),
        ("", "{}", 400),
        ("", r#"{"query":"{ live }"}"#, 400),
        ("", r#"{"query":"subscription {"}"#, 400),
        (STREAM, "no json", 400),
        (STREAM, r#"{"query":"subscription { live }","variables":[]}"#, 400),
        ("X-GraphQL-Event-Stream-Token: nobody\r\n", r#"{"query":"x","extensions":{"operationId":"1"}}"#, 404),
        ("X-GraphQL-Event-Stream-Token: nobody\r\n", r#"{"query":"x"}"#, 400),
    ] {
        assert_eq!(raw::request("POST", &url, headers, body.as_bytes()).status, status, "{headers}{body}");
    }
    assert_eq!(raw::request("POST", &url, STREAM, &vec![b' '; 10 << 20]).status, 413);
    assert_eq!(raw::request("PATCH", &url, "", b"").status, 405);
    assert_eq!(raw::request("GET", &app.url("/graphql"), "", b"").status, 426);
    assert_eq!(raw::request("GET", &app.url("/graphql/subscription/nobody"), "", b"").status, 404);
    let deep = format!("subscription {{ live {} }}", "{ a ".repeat(5000));
    for query in ["subscription {", "subscription { a b }", "subscription { nobody }", "mutation { live }", "", &deep] {
        let answer = raw::request("POST", &url, STREAM, operation(query).as_bytes());
        let text = answer.text();
        assert_eq!(answer.status, 200, "{query:.40}");
        assert!(
            text.contains("event: next\ndata: {\"errors\":[{\"message\":")
                && text.ends_with("event: complete\ndata:\n\n"),
            "{text}"
        );
    }
    let broken = raw::get(&format!("{url}?query=subscription%7Blive%7D&variables=%7B"));
    assert!(broken.text().contains("{\"errors\":["), "{}", broken.text());
    assert!(send(&app, "live", "still").contains(": 1 successful"));
    healthy.read_until("\"still\"");
}

#[test]
fn operations_share_a_stream_under_a_token() {
    let app = Scripted::serve(SENDER);
    let url = app.url("/graphql/sse");
    let reserved = raw::request("PUT", &url, "", b"");
    assert_eq!(reserved.status, 201);
    let token = format!("X-GraphQL-Event-Stream-Token: {}\r\n", reserved.text());
    let start = |id: &str, query: &str, more: &str| {
        let body = json!({ "query": query, "extensions": {"operationId": id} }).to_string();
        raw::request("POST", &format!("{url}{more}"), &token, body.as_bytes()).status
    };
    let (answer, mut stream) = ask(&app, "GET /graphql/sse?user_id=u1", &token, "");
    assert_eq!(answer.status, 200);
    assert_eq!(ask(&app, "GET /graphql/sse", &token, "").0.status, 409, "it is open already");
    assert_eq!(ask(&app, "GET /graphql/sse?token=nobody", "", "").0.status, 404);
    assert_eq!(
        (start("a", "subscription { quiet }", "?user_id=u1"), start("a", "subscription { live }", "")),
        (202, 409)
    );
    assert_eq!(start("b", "subscription { nobody }", ""), 202);
    let error = stream.read_until("event: complete\ndata: {\"id\":\"b\"}\n\n");
    assert!(error.contains("event: next\ndata: {\"id\":\"b\",\"payload\":{\"errors\":["), "{error}");
    reach(&app, "quiet", "one", 1);
    stream.read_until("event: next\ndata: {\"id\":\"a\",\"payload\":{\"data\":{\"quiet\":\"one\"}}}\n\n");
    // As graphql-sse makes it of a URL that has a query.
    assert_eq!(raw::request("DELETE", &format!("{url}?user_id=u1?operationId=a"), &token, b"").status, 200);
    reach(&app, "quiet", "two", 0);
    assert_eq!(start("a", "subscription { live }", ""), 202, "its name is free again");
    reach(&app, "live", "three", 1);
    let all = stream.read_until("three");
    assert!(!all.contains("two"), "{all}");
    drop(stream);
    eventually("the token is forgotten", || (start("c", "subscription { live }", "") == 404).then_some(()));
    reach(&app, "live", "four", 0);
}

#[test]
fn a_stream_has_room_for_a_thousand_operations() {
    let app = Scripted::serve(SENDER);
    let mut socket = Socket::open(&app, "");
    for id in 0..=1000 {
        socket.subscribe(&id.to_string(), "subscription { quiet }");
    }
    let refused = socket.hear();
    assert_eq!((&refused["id"], &refused["type"]), (&json!("1000"), &json!("error")));
    reach(&app, "quiet", "x", 1000);
    for _ in 0..1000 {
        assert_eq!(socket.hear()["type"], "next");
    }
}

#[test]
fn a_crowd_of_subscribers_waits_for_its_first_values() {
    let slow = "function slow() { const end = Date.now() + 1; while (Date.now() < end); return 'first'; }";
    let app = Scripted::serve(&format!("{slow}\nregisterGraphQLSubscription('slow', 'slow: String', 'slow');"));
    // More than may stand in a script's line.
    let mut sockets = [(); 2].map(|()| Socket::open(&app, ""));
    for socket in &mut sockets {
        (0..1000).for_each(|id| socket.subscribe(&id.to_string(), "subscription { slow }"));
    }
    for socket in &mut sockets {
        for _ in 0..1000 {
            assert_eq!(socket.hear()["payload"], json!({"data": {"slow": "first"}}));
        }
    }
}

/// A client of the WebSocket at `/graphql`, made of bytes.
struct Socket(Raw);

impl Socket {
    fn connect(app: &Scripted, query: &str) -> Self {
        let protocol = "Sec-WebSocket-Protocol: graphql-transport-ws\r\n";
        let (raw, answer) = Raw::websocket_with(&format!("{}{query}", app.url("/graphql")), protocol);
        assert_eq!(answer.header("sec-websocket-protocol"), Some("graphql-transport-ws"));
        Socket(raw)
    }

    fn open(app: &Scripted, query: &str) -> Self {
        let mut socket = Socket::connect(app, query);
        socket.say(json!({"type": "connection_init"}));
        assert_eq!(socket.hear(), json!({"type": "connection_ack"}));
        socket
    }

    fn say(&mut self, what: Value) {
        self.0.send_frame(&Frame::new(TEXT, what.to_string()));
    }

    fn subscribe(&mut self, id: &str, query: &str) {
        self.say(json!({"id": id, "type": "subscribe", "payload": {"query": query}}));
    }

    fn hear(&mut self) -> Value {
        let message = self.0.read_message().expect("a message");
        serde_json::from_str(&message.text()).expect("JSON")
    }

    fn close_code(mut self) -> u16 {
        self.0.read_close().expect("a close").close_code()
    }
}

#[test]
fn many_operations_on_one_websocket() {
    let app = Scripted::serve(SENDER);
    let mut socket = Socket::open(&app, "?user_id=u1");
    socket.subscribe("a", "subscription { live(n: 1) }");
    let first = json!({"data": {"live": "u1 asks {\"n\":1} of graphqlSubscription"}});
    assert_eq!(socket.hear(), json!({"id": "a", "type": "next", "payload": first}));
    socket.subscribe("b", "subscription { x: quiet { id } }");
    reach(&app, "quiet", "{\"id\":5}", 1);
    let heard = socket.hear();
    assert_eq!(heard, json!({"id": "b", "type": "next", "payload": {"data": {"x": {"id": 5}}}}));
    socket.say(json!({"type": "ping", "payload": {}}));
    assert_eq!(socket.hear(), json!({"type": "pong"}));
    socket.subscribe("c", "subscription { nobody }");
    assert_eq!(socket.hear()["payload"], json!([{"message": "there is no subscription nobody"}]));
    socket.subscribe("d", "subscription { broken }");
    assert_eq!(
        socket.hear(),
        json!({"id": "d", "type": "error", "payload": [{"message": "the resolver fails failed"}]})
    );
    socket.say(json!({"id": "b", "type": "complete"}));
    reach(&app, "quiet", "unheard", 0);
    send(&app, "live", "now");
    assert_eq!(socket.hear()["payload"], json!({"data": {"live": "now"}}));
    // A subscription that a new version of the script does not name is complete.
    app.change("registerWebStream('/s');");
    assert_eq!(socket.hear(), json!({"id": "a", "type": "complete"}));
}

#[test]
fn who_breaks_the_websockets_rules_is_told_by_a_code() {
    let app = Scripted::serve(SENDER);
    let subscribe = json!({"id": "1", "type": "subscribe", "payload": {"query": "subscription { quiet }"}});
    let init = json!({"type": "connection_init"});
    for (said, code) in [
        (vec![subscribe.clone()], 4401),
        (vec![init.clone(), init.clone()], 4429),
        (vec![init.clone(), subscribe.clone(), subscribe.clone()], 4409),
        (vec![json!([])], 4400),
        (vec![init.clone(), json!({"type": "unknown"})], 4400),
        (vec![init.clone(), json!({"type": "subscribe", "payload": {"query": "x"}})], 4400),
        (vec![init.clone(), json!({"id": "1", "type": "subscribe"})], 4400),
        (vec![], 4408),
    ] {
        let mut socket = Socket::connect(&app, "");
        said.iter().for_each(|what| socket.say(what.clone()));
        assert_eq!(socket.close_code(), code, "{said:?}");
    }
    let (_, answer) = Raw::ask_websocket(&app.url("/graphql"), "");
    assert_eq!(answer.status, 400);
}

#[test]
fn a_token_covers_the_operations_that_it_names() {
    let keys = Keys::new();
    let rights = json!({"subscribe": ["/graphql", "/graphql/sse", "/graphql/subscription/live"], "publish": ["/send"]});
    let bearer = format!("Authorization: Bearer {}\r\n", keys.hs256(&claims(rights)));
    for options in ["", "--registry "] {
        let app = Scripted::serve_with(SENDER, &format!("{options}--jwt-secret-file {}", keys.file("secret")));
        let live = operation("subscription { live }");
        for (line, body) in [("POST /graphql/sse", &*live), ("GET /graphql/sse", ""), ("PUT /graphql/sse", "")] {
            assert_eq!(ask(&app, line, STREAM, body).0.status, 401, "{options}{line}");
        }
        assert_eq!(ask(&app, "POST /send", "", "{}").0.status, 401, "{options}");
        let refused = raw::request(
            "POST",
            &app.url("/graphql/sse"),
            &format!("{bearer}{STREAM}"),
            operation("subscription { quiet }").as_bytes(),
        );
        assert!(refused.text().contains("the token does not cover /graphql/subscription/quiet"), "{}", refused.text());
        let (_, mut all) = ask(&app, "GET /graphql/sse", &bearer, "");
        let (_, mut one) = ask(&app, "POST /graphql/sse", &format!("{bearer}{STREAM}"), &live);
        for (name, reached) in [("quiet", 0), ("live", 2)] {
            let body = json!({"name": name, "data": name}).to_string();
            let counts = raw::request("POST", &app.url("/send"), &bearer, body.as_bytes()).text();
            assert!(counts.contains(&format!(": {reached} successful")), "{options}{counts}");
        }
        assert!(!all.read_until("{\"live\":\"live\"}").contains("quiet"));
        one.read_until("{\"live\":\"live\"}");
    }
}

// --- clients of other people's making --------------------------------------------------------------------------------

/// The npm packages: two ways of graphql-sse, and graphql-ws.
const CLIENTS: [(&str, &str, &str); 3] =
    [("distinct", "http", "/graphql/sse"), ("single", "http", "/graphql/sse"), ("ws", "ws", "/graphql")];

fn client(app: &Scripted, (how, scheme, path): (&str, &str, &str), query: &str) -> Running {
    let node = find_program("node").expect("node is missing: run scripts/test, which installs it");
    let clients = root().join("tests/clients");
    for package in ["graphql", "graphql-sse", "graphql-ws"] {
        let there = clients.join("node_modules").join(package).is_dir();
        assert!(there, "the npm package {package} is missing: run scripts/test, which installs it");
    }
    let url = app.url(path).replacen("http", scheme, 1);
    Wsevent::program(node)
        .arg(clients.join("graphql_reader.js"))
        .args([how, &format!("{url}?user_id=u1"), query])
        .start()
}

/// The last of so many things that it was told.
fn told(client: &Running, n: usize) -> Value {
    serde_json::from_str(&client.lines(n)[n - 1]).expect("a JSON line")
}

#[test]
fn clients_of_graphql_hear_results_errors_and_the_end() {
    let app = Scripted::serve(SENDER);
    for kind in CLIENTS {
        let (subscriber, failing) =
            (client(&app, kind, "subscription { quiet { id } }"), client(&app, kind, "subscription { nobody }"));
        reach(&app, "quiet", r#"{"id":1}"#, 1);
        assert_eq!(told(&subscriber, 1), json!(["next", {"data": {"quiet": {"id": 1}}}]), "{kind:?}");
        let errors = json!([{"message": "there is no subscription nobody"}]);
        let expected = if kind.0 == "ws" { json!(["error", errors]) } else { json!(["next", {"errors": errors}]) };
        assert_eq!(told(&failing, 1), expected, "{kind:?}");
        app.change("register('/none', 'none');");
        assert_eq!(told(&subscriber, 2), json!(["complete"]), "{kind:?}");
        app.change(SENDER);
    }
}

#[test]
fn clients_of_graphql_come_back() {
    for kind in CLIENTS {
        let mut app = Scripted::serve(SENDER);
        let subscriber = client(&app, kind, "subscription { quiet }");
        reach(&app, "quiet", "before", 1);
        assert_eq!(told(&subscriber, 1), json!(["next", {"data": {"quiet": "before"}}]), "{kind:?}");
        app.running.restart();
        reach(&app, "quiet", "after", 1);
        assert_eq!(told(&subscriber, 2), json!(["next", {"data": {"quiet": "after"}}]), "{kind:?}");
    }
}
