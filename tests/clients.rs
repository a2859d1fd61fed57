//! Clients and servers of other people's making, against the binary: curl, websocat, Python's `websockets`, npm's `ws`
//! and `eventsource`, and chromium. The programs are in `tests/clients`; `scripts/test` installs what they need.

mod common;

use common::{
    Running, Scratch, Wsevent, bash, eventually, find_program,
    raw::{self, Server},
    root,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
};

// --- the clients -----------------------------------------------------------------------------------------------------

/// Why a test cannot run, and what to type.
fn missing(what: &str, by_hand: &str) -> ! {
    panic!("{what} is missing: run scripts/test, which installs it, or type: {by_hand}")
}

fn program(name: &str, by_hand: &str) -> PathBuf {
    find_program(name).unwrap_or_else(|| missing(name, by_hand))
}

fn curl(args: &[&str]) -> Wsevent {
    Wsevent::program(program("curl", "sudo apt-get install curl"))
        .args(["--silent", "--show-error", "--no-buffer"])
        .args(args)
}

fn websocat(args: &[&str]) -> Wsevent {
    let cached = PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/wsevent-test/bin/websocat");
    let found = find_program("websocat").or_else(|| Some(cached).filter(|file| file.is_file()));
    Wsevent::program(found.unwrap_or_else(|| missing("websocat", "cargo install --locked websocat"))).args(args)
}

fn client(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}

/// Python with the package `websockets`: the tests' own, else the system's.
fn python(script: &str) -> Wsevent {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let knows_websockets = |python: &PathBuf| {
        let mut command = Command::new(python);
        let tried = command.args(["-c", "import websockets"]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let own = root().join("target/clients/venv/bin/python");
    let found = FOUND.get_or_init(|| [own, "python3".into()].into_iter().find(knows_websockets));
    let python = found.clone().unwrap_or_else(|| {
        missing(
            "the Python package websockets",
            "python3 -m venv target/clients/venv && target/clients/venv/bin/pip install -r tests/clients/requirements.txt",
        )
    });
    Wsevent::program(python).arg(client(script))
}

fn node(script: &str, package: &str) -> Wsevent {
    let node = program("node", "sudo apt-get install nodejs npm");
    if !client("node_modules").join(package).is_dir() {
        missing(&format!("the npm package {package}"), "npm install --no-package-lock --prefix tests/clients");
    }
    Wsevent::program(node).arg(client(script))
}

/// A page of `origin` that reads the topic.
fn page(page_url: &str, how: &str, topic: &str) -> Wsevent {
    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
    if !fs::exists(&chromium).is_ok_and(|there| there) {
        missing("chromium", "sudo apt-get install chromium (or set CHROMIUM to one)");
    }
    node("page.js", "playwright-core").args([page_url, how, topic]).env("CHROMIUM", &chromium).piped()
}

/// A page that our own listener serves, so that it has the topic's origin.
fn own_page(server: &Running) -> String {
    format!("http://{}/-/healthz", server.address())
}

/// The names of the WebSocket clients, and what starts each on a topic with messages to send.
type Start = fn(&Running, &[&str]) -> Wsevent;
const WEBSOCKET_CLIENTS: [(&str, Start); 3] = [
    ("Python websockets", |server, messages| python("websockets_reader.py").arg(server.ws_url()).args(messages)),
    ("npm ws", |server, messages| node("ws_reader.js", "ws").arg(server.ws_url()).args(messages)),
    ("chromium", |server, messages| page(&own_page(server), "websocket", &server.ws_url()).args(messages)),
];

/// What a client has told, line by line: `["text", …]`, `["binary", base64]`, `["close", code]`.
fn told(client: &Running, lines: usize) -> Vec<Value> {
    client.lines(lines).iter().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// Ends a page's browser in order; the others just go.
fn end(mut client: Running) {
    if client.is_piped() {
        client.close_stdin();
        client.wait();
    }
}

fn producer(options: &str) -> Running {
    Wsevent::line("--produce - --slow-reader disconnect").args(options.split_whitespace()).piped().serve()
}

/// Payloads that go wrong easily, cut at zero bytes.
const TRICKY: &[u8] = b"plain\0with a line feed\n\0{\"a\": [1, 2]}\0\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\0\0carriage\r\nreturn\r\0\xff\xfe binary\0  spaces  \0";

fn long_event() -> String {
    "0123456789".repeat(20_000)
}

fn tricky_as_told() -> Vec<Value> {
    vec![
        json!(["text", "plain"]),
        json!(["text", "with a line feed\n"]),
        json!(["text", "{\"a\": [1, 2]}"]),
        json!(["text", "ä€😀"]),
        json!(["text", ""]),
        json!(["text", "carriage\r\nreturn\r"]),
        json!(["binary", "//4gYmluYXJ5"]),
        json!(["text", "  spaces  "]),
        json!(["text", long_event()]),
    ]
}

// --- WebSocket clients -----------------------------------------------------------------------------------------------

#[test]
fn every_websocket_client_gets_every_payload_unchanged_and_the_end() {
    every_payload_unchanged("");
}

/// These clients all offer compression.
#[test]
fn every_websocket_client_gets_every_payload_unchanged_when_it_is_compressed() {
    every_payload_unchanged(" --deflate");
}

fn every_payload_unchanged(compression: &str) {
    let mut producer = producer(&format!("--framing nul{compression}"));
    let clients = WEBSOCKET_CLIENTS.map(|(name, start)| (name, start(&producer, &[]).start()));
    clients.iter().for_each(|(_, client)| assert_eq!(told(client, 1), [json!(["open"])]));
    producer.write(TRICKY);
    producer.write(long_event());
    producer.close_stdin();
    let mut expected = vec![json!(["open"])];
    expected.extend(tricky_as_told());
    expected.push(json!(["close", 1000]));
    for (name, client) in clients {
        assert_eq!(told(&client, expected.len()), expected, "{name}");
        end(client);
    }
    assert_eq!(producer.wait(), 0);
}

#[test]
fn every_websocket_client_can_publish_and_hears_itself() {
    // An argument may have 128 KiB.
    let long = long_event()[..20_000].to_owned();
    let said = ["from me", "ä€😀", "", &long];
    for (name, start) in WEBSOCKET_CLIENTS {
        for compression in ["--deflate=false", "--deflate"] {
            let hub = Wsevent::line("--no-produce").arg(compression).serve();
            let client = start(&hub, &said).start();
            let echo = said.map(|text| json!(["text", text]));
            assert_eq!(told(&client, 5)[1..], echo, "{name} {compression}");
            end(client);
        }
    }
}

#[test]
fn every_websocket_client_answers_pings_and_so_stays() {
    // Once all are there, events come for longer than a client may be silent (three intervals).
    let scratch = Scratch::new();
    let events = "for i in 1 2 3 4 5 6; do echo $i; sleep 1; done";
    let command = format!("exec:until [ -e {} ]; do sleep 0.1; done; {events}", scratch.arg("go"));
    let producer = Wsevent::line("--ping-interval 1s --keep-open --produce").arg(command).serve();
    let clients = WEBSOCKET_CLIENTS.map(|(name, start)| (name, start(&producer, &[]).start()));
    let websocat = websocat(&["-t", &producer.ws_url()]).piped().start();
    clients.iter().for_each(|(_, client)| drop(told(client, 1)));
    producer.has("readers", 4);
    scratch.file("go", "");
    for (name, client) in clients {
        let expected: Vec<Value> = (1..=6).map(|n| json!(["text", n.to_string()])).collect();
        assert_eq!(told(&client, 7)[1..], expected, "{name}");
        assert!(!client.stdout().contains("close"), "{name}: {}", client.stdout());
        end(client);
    }
    eventually("websocat's last event", || websocat.stdout().ends_with("6\n").then_some(()));
}

/// curl does the upgrade and no more. Its kernel acknowledges what comes.
#[test]
fn a_client_that_cannot_answer_pings_stays() {
    let scratch = Scratch::new();
    let events = "for i in 1 2 3 4 5 6; do echo $i; sleep 1; done; echo the end";
    let command = format!("exec:until [ -e {} ]; do sleep 0.1; done; {events}", scratch.arg("go"));
    let producer = Wsevent::line("--ping-interval 1s --keep-open --produce").arg(command).serve();
    let upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"];
    let curl = curl(&[producer.url()]).args(upgrade.iter().flat_map(|header| ["-H", header])).start();
    producer.has("readers", 1);
    scratch.file("go", "");
    eventually("the last event", || curl.stdout().contains("the end").then_some(()));
}

#[test]
fn every_websocket_client_is_told_of_a_restart() {
    let mut producer = producer("");
    let clients = WEBSOCKET_CLIENTS.map(|(name, start)| (name, start(&producer, &[]).start()));
    clients.iter().for_each(|(_, client)| drop(told(client, 1)));
    producer.signal("TERM");
    for (name, client) in clients {
        assert_eq!(told(&client, 2)[1], json!(["close", 1012]), "{name}");
        end(client);
    }
    assert_eq!(producer.wait(), 143);
}

#[test]
fn websocat_reads_and_publishes() {
    let mut hub = Wsevent::line("--no-produce").serve();
    let mut chat = websocat(&["-t", &hub.ws_url()]).piped().start();
    chat.write("one\ntwo\n");
    assert_eq!(chat.lines(2), ["one", "two"]);
    raw::post(hub.url(), "three");
    assert_eq!(chat.lines(3)[2], "three");
    chat.close_stdin();
    chat.wait();
    hub.signal("TERM");
    assert_eq!(hub.wait(), 143);
}

// --- event stream clients --------------------------------------------------------------------------------------------

fn event_source(server: &Running) -> [(&'static str, Running); 2] {
    [
        ("npm eventsource", node("eventsource_reader.js", "eventsource").arg(server.url()).start()),
        ("chromium", page(&own_page(server), "eventsource", server.url()).start()),
    ]
}

fn texts(told: &[Value]) -> Vec<&str> {
    told.iter().filter(|line| line[0] == "text").filter_map(|line| line[1].as_str()).collect()
}

#[test]
fn event_sources_get_text_and_ids() {
    let mut producer = producer("--framing nul");
    let clients = event_source(&producer);
    clients.iter().for_each(|(_, client)| drop(told(client, 1)));
    producer.write("one\0two\nlines\0ä€😀\0\0{\"a\":1}\0");
    for (name, client) in clients {
        let told = told(&client, 6);
        assert_eq!(texts(&told), ["one", "two\nlines", "ä€😀", "", "{\"a\":1}"], "{name}");
        let ids: Vec<_> =
            told[1..].iter().filter_map(|line| line[2].as_str()).filter_map(|id| id.rsplit_once('-')).collect();
        assert_eq!(ids.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"], "{name}");
        end(client);
    }
}

/// The browser reconnects by itself and sends the last id; the hop has its window again from the origin.
#[test]
fn event_sources_lose_nothing_when_a_hop_is_killed() {
    let mut producer = producer("");
    let mut hop = Wsevent::new(["--consume", &producer.ws_url(), "--retry-max", "50ms"]).serve();
    let clients = event_source(&hop);
    clients.iter().for_each(|(_, client)| drop(told(client, 1)));
    producer.write("1\n2\n");
    clients.iter().for_each(|(_, client)| drop(told(client, 3)));
    hop.kill9();
    producer.write("3\n4\n");
    hop.start_again();
    producer.write("5\n");
    for (name, client) in clients {
        eventually(name, || client.stdout().contains("\"5\"").then_some(()));
        let lines = client.stdout().lines().count();
        assert_eq!(texts(&told(&client, lines)), ["1", "2", "3", "4", "5"], "{name}");
        end(client);
    }
}

/// Two forwarders in a row are restarted one after the other, in order, while the count goes on.
#[test]
fn a_page_keeps_its_count_through_a_rolling_restart_of_two_forwarders() {
    let mut producer = producer("");
    let hop = |upstream: &Running| Wsevent::new(["--consume", &upstream.ws_url(), "--retry-max", "50ms"]).serve();
    let first = hop(&producer);
    let second = hop(&first);
    let (page_url, ws_url, url) = (own_page(&second), second.ws_url(), second.url().to_owned());
    let clients =
        [("resuming", ws_url), ("eventsource", url)].map(|(how, url)| (how, page(&page_url, how, &url).start()));
    clients.iter().for_each(|(_, client)| drop(told(client, 1)));
    let mut count = 0;
    let mut say = |n: u32| {
        let lines: String = (count + 1..=count + n).map(|n| format!("{n}\n")).collect();
        count += n;
        producer.write(lines);
        count
    };
    say(10);
    let mut forwarders = [first, second];
    for round in 0..4 {
        let forwarder = &mut forwarders[round % 2];
        say(10);
        forwarder.signal("TERM");
        say(10);
        assert_eq!(forwarder.wait(), 143);
        say(10);
        forwarder.start_again();
        let all = say(10).to_string();
        for (name, client) in &clients {
            let has_all = || client.stdout().lines().any(|line| line.starts_with(&format!("[\"text\",\"{all}\",")));
            eventually(&format!("{name}: {all} in round {round}"), || has_all().then_some(()));
        }
    }
    let all: Vec<String> = (1..=say(0)).map(|n| n.to_string()).collect();
    for (name, client) in clients {
        let lines = client.stdout().lines().count();
        let told = told(&client, lines);
        assert_eq!(texts(&told), all, "{name}");
        assert!(told.iter().filter(|line| line[0] == "open").count() >= 3, "{name} came back: {told:?}");
        end(client);
    }
}

#[test]
fn a_page_reads_the_history() {
    let mut producer = producer("");
    producer.write("{\"a\":1}\ntext\n");
    producer.has("events", 2);
    let client = page(&own_page(&producer), "history", producer.url()).start();
    assert_eq!(told(&client, 1), [json!(["history", [{"a": 1}, "text"]])]);
    end(client);
}

/// A page on the web must not read a stream on somebody's localhost, unless it was allowed to.
#[test]
fn pages_of_other_origins_are_kept_out_until_they_are_allowed() {
    let page_server = Server::new();
    let origin = format!("http://{}", page_server.address());
    page_server
        .answer_all("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
    let (shut, open) = (producer(""), producer(&format!("--allow-origin {origin}")));
    for (how, refusal) in
        [("websocket", json!(["close", 1006])), ("eventsource", json!(["refused"])), ("history", json!(["refused"]))]
    {
        let url = |server: &Running| if how == "websocket" { server.ws_url() } else { server.url().to_owned() };
        let kept_out = page(&origin, how, &url(&shut)).start();
        assert_eq!(told(&kept_out, 1), [refusal], "{how}");
        end(kept_out);
        let let_in = page(&origin, how, &url(&open)).start();
        let expected = if how == "history" { json!(["history", []]) } else { json!(["open"]) };
        assert_eq!(told(&let_in, 1), [expected], "{how}");
        end(let_in);
    }
}

// --- curl ------------------------------------------------------------------------------------------------------------

#[test]
fn curl_reads_an_event_stream() {
    let mut producer = producer("");
    let curl = curl(&["--include", "-H", "Accept: text/event-stream", producer.url()]).start();
    eventually("the answer's head", || curl.stdout().contains("\r\n\r\n").then_some(()));
    producer.write("one\ntwo\n");
    producer.close_stdin();
    eventually("the end", || curl.stdout().contains("data: two\n\n").then_some(()));
    let told = curl.stdout();
    for line in [
        "content-type: text/event-stream\r\n",
        "cache-control: no-store, no-transform\r\n",
        "x-accel-buffering: no\r\n",
        "retry: ",
        "data: one\n\n",
    ] {
        assert!(told.contains(line), "{line:?}: {told}");
    }
}

#[test]
fn curl_reads_ndjson_and_ends_well_at_the_end() {
    let mut producer = producer("");
    let mut curl = curl(&["-H", "Accept: application/x-ndjson", producer.url()]).start();
    producer.has("readers", 1);
    producer.write("one\n{\"a\":1}\n");
    let lines: Vec<Value> = curl.lines(2).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["data"], &lines[1]["data"]), (&json!("one"), &json!("{\"a\":1}")));
    assert!(lines.iter().all(|line| line["id"].is_string() && line["time"].is_u64()), "{lines:?}");
    producer.close_stdin();
    assert_eq!((curl.wait(), producer.wait()), (0, 0));
}

#[test]
fn curl_resumes_behind_an_id() {
    let mut producer = producer("");
    producer.write("one\ntwo\nthree\n");
    let ndjson = ["-H", "Accept: application/x-ndjson"];
    let all = curl(&ndjson).arg(format!("{}?since=oldest", producer.url())).start();
    let first: Value = serde_json::from_str(&all.lines(3)[0]).expect("JSON");
    let id = first["id"].as_str().expect("an id");
    for resume in [
        curl(&ndjson).args(["-H", &format!("Last-Event-ID: {id}"), producer.url()]),
        curl(&ndjson).arg(format!("{}?since={id}", producer.url())),
        curl(&ndjson).arg(format!("{}?last_event_id={id}", producer.url())),
    ] {
        assert_eq!(resume.start().lines(2), all.lines(3)[1..]);
    }
}

#[test]
fn curl_pages_through_the_history_and_polls() {
    let mut producer = producer("");
    producer.write((1..=250).map(|n| format!("{n}\n")).collect::<String>());
    producer.has("events", 250);
    let page = |query: &str| {
        let mut curl = curl(&["--include", &format!("{}?{query}", producer.url())]).start();
        assert_eq!(curl.wait(), 0);
        let text = curl.stdout();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let events: Vec<u64> = serde_json::from_str(body).expect("an array of numbers");
        let header = |name: &str| raw::header_of(head, name).unwrap_or_else(|| panic!("{name}: {head}"));
        (events, header("wsevent-position"), header("wsevent-more"))
    };
    assert_eq!(page("").0, (151..=250).collect::<Vec<u64>>(), "the newest hundred, ascending");
    assert_eq!(page("limit=3").0, [248, 249, 250]);
    let (_, newest, _) = page("limit=1");
    let epoch = newest.rsplit_once('-').expect("an id").0.to_owned();
    let (mut seen, mut position) = (Vec::new(), format!("{epoch}-0"));
    loop {
        let (events, next, more) = page(&format!("after={position}&limit=60"));
        seen.extend(events);
        position = next;
        if more == "0" {
            break;
        }
    }
    assert_eq!(seen, (1..=250).collect::<Vec<u64>>(), "page by page");
    assert_eq!(page(&format!("after={position}")), (vec![], position.clone(), "0".into()));
    let mut poll = curl(&[&format!("{}?after={position}&poll=1&wait=60s", producer.url())]).start();
    producer.write("251\n");
    assert_eq!((poll.wait(), poll.stdout().as_str()), (0, "[251]"));
}

#[test]
fn a_long_poll_brings_what_it_waited_for_and_nothing_else() {
    let hub = Wsevent::line("--no-produce").serve();
    let post = |event: &str| drop(raw::request("POST", hub.url(), "", event.as_bytes()));
    post("{\"old\":1}");
    for query in ["poll=1", "since=now&poll=1", "match=%7B%22wanted%22:1%7D&poll=1"] {
        let mut poll = curl(&["--include", &format!("{}?{query}&wait=60s", hub.url())]).start();
        // Until it is there to hear it.
        eventually("the answer", || {
            post("{\"other\":1}");
            post("{\"wanted\":1}");
            poll.ended()
        });
        let text = poll.stdout();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let events: Vec<Value> = serde_json::from_str(body).expect("an array");
        assert!(!events.is_empty() && !events.contains(&json!({ "old": 1 })), "{query}: {body}");
        if query.starts_with("match") {
            assert!(events.iter().all(|event| event["wanted"] == 1), "{body}");
        }
        let position = raw::header_of(head, "wsevent-position").expect("a position");
        assert_eq!(raw::get(&format!("{}?after={position}", hub.url())).status, 200, "{query}");
    }
}

#[test]
fn curl_publishes() {
    let hub = Wsevent::line("--no-produce").serve();
    let reader = Wsevent::new(["--no-serve", "--since", "oldest", "--consume", &hub.ws_url()]).start();
    let post = |args: &[&str]| {
        let mut curl = curl(args).arg(hub.url()).start();
        assert_eq!(curl.wait(), 0);
        serde_json::from_str::<Value>(&curl.stdout()).unwrap_or_else(|error| panic!("{error}: {}", curl.stdout()))
    };
    assert!(post(&["--data-binary", "one"])["id"].as_str().is_some_and(|id| id.ends_with("-1")));
    let many = post(&["-H", "Content-Type: application/x-ndjson", "--data-binary", "2\n3\n"]);
    assert_eq!((&many["count"], many["id"].as_str().map(|id| id.ends_with("-3"))), (&json!(2), Some(true)));
    // A body in chunks, and one that waits for `100 Continue`.
    post(&["-H", "Transfer-Encoding: chunked", "--data-binary", "chunked"]);
    post(&["-H", "Expect: 100-continue", "--data-binary", "expected"]);
    assert_eq!(reader.lines(5), ["one", "2", "3", "chunked", "expected"]);
}

#[test]
fn curl_uses_one_connection_for_many_requests() {
    let mut producer = producer("");
    producer.write("one\n");
    producer.has("events", 1);
    let url = producer.url();
    let mut twice = curl(&["-w", " %{num_connects} ", url, url, &format!("{url}/wrong"), url]).start();
    assert_eq!(twice.wait(), 0);
    assert!(twice.stdout().starts_with("[\"one\"] 1 [\"one\"] 0 "), "{}", twice.stdout());
    let mut head = curl(&["--head", url]).start();
    assert_eq!(head.wait(), 0);
    assert!(head.stdout().starts_with("HTTP/1.1 200 OK\r\n"), "{}", head.stdout());
}

#[test]
fn curl_speaks_http_1_0_too() {
    let mut producer = producer("");
    let mut curl = curl(&["--http1.0", "-H", "Accept: text/event-stream", producer.url()]).start();
    producer.has("readers", 1);
    producer.write("one\n");
    producer.close_stdin();
    assert_eq!(curl.wait(), 0);
    assert!(curl.stdout().ends_with("data: one\n\n"), "no chunks: {:?}", curl.stdout());
}

// --- servers of other people's making --------------------------------------------------------------------------------

/// Starts a server and reads the URL that it prints.
fn server(line: Wsevent) -> (Running, String) {
    let running = line.start();
    let url = running.lines(1)[0].clone();
    (running, url)
}

#[test]
fn any_websocket_server_can_be_consumed() {
    let servers: [(_, fn() -> Wsevent); 2] =
        [("Python websockets", || python("websockets_server.py")), ("npm ws", || node("ws_server.js", "ws"))];
    for ((name, line), compression) in
        servers.into_iter().flat_map(|server| [(server, "--deflate=false"), (server, "--deflate")])
    {
        let (_server, url) = server(line());
        let mut consumer = Wsevent::new([compression, "--no-serve", "--output", "ndjson", "--consume", &url]).start();
        assert_eq!(consumer.wait(), 0, "{name}: a close 1000 is the end: {}", consumer.stderr());
        let lines = told(&consumer, 4);
        assert_eq!(lines[0]["data"], "text: ä", "{name}");
        assert_eq!(lines[1]["data_base64"], "/wA=", "{name}");
        assert_eq!(lines[2]["data"], "in three fragments", "{name}");
        assert_eq!(lines[3]["data"], "pong", "{name}");
    }
}

#[test]
fn websocat_can_be_consumed() {
    let port = Server::new().address();
    let listen = format!("ws-l:{}", port.replace("localhost", "127.0.0.1"));
    let mut websocat = websocat(&["-t", &listen, "stdio:"]).piped().start();
    let consumer = Wsevent::new(["--no-serve", "--retry-max", "50ms", "--consume", &port]).start();
    consumer.said("connected");
    websocat.write("one\ntwo\n");
    assert_eq!(consumer.lines(2), ["one", "two"]);
}

/// A certificate authority of one's own, and a server certificate by it.
fn private_ca(scratch: &Scratch) -> (String, String, String) {
    let [ca_key, ca, key, request, certificate, names] =
        ["ca.key", "ca.pem", "server.key", "server.csr", "server.pem", "names"].map(|name| scratch.arg(name));
    scratch.file("names", "subjectAltName=DNS:localhost\n");
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let done = bash(&format!(
        "set -e; openssl req -x509 {new_key} -keyout {ca_key} -out {ca} -days 2 -subj /CN=private
         openssl req {new_key} -keyout {key} -out {request} -subj /CN=localhost
         openssl x509 -req -in {request} -CA {ca} -CAkey {ca_key} -CAcreateserial -days 2 -extfile {names} -out {certificate}"
    ));
    assert_eq!(done.code, 0, "{}", done.stderr);
    (ca, certificate, key)
}

#[test]
fn servers_with_a_private_ca_are_trusted_when_told_so() {
    program("openssl", "sudo apt-get install openssl");
    let scratch = Scratch::new();
    let (ca, certificate, key) = private_ca(&scratch);
    let (_server, url) = server(python("websockets_server.py").args([&certificate, &key]));
    assert!(url.starts_with("wss://localhost:"), "{url}");
    let consumer =
        |url: &str, options: &[&str]| Wsevent::new(["--no-serve", "--retries=0", "--consume", url]).args(options).run();
    let trusting = consumer(&url, &["--ca", &ca, "--count", "1"]);
    assert_eq!((trusting.code, trusting.stdout.as_str()), (0, "text: ä\n"), "{}", trusting.stderr);
    let wary = consumer(&url, &[]);
    assert_eq!((wary.code, wary.stdout.as_str()), (69, ""), "{}", wary.stderr);
    assert!(wary.stderr.contains("certificate"), "{}", wary.stderr);
    let other_name = consumer(&url.replace("localhost", "127.0.0.1"), &["--ca", &ca]);
    assert_eq!((other_name.code, other_name.stdout.as_str()), (69, ""), "{}", other_name.stderr);
    for (file, what) in [(scratch.file("empty", ""), "empty"), (scratch.arg("missing"), "missing")] {
        let done = consumer(&url, &["--ca", &file]);
        assert!(done.code != 0 && done.stderr.contains(&file), "{what}: {done:?}");
    }
}

/// Its ids mean nothing to us: they go back to it, and events are numbered anew.
#[test]
fn another_servers_event_stream_is_resumed_by_its_own_ids() {
    let (_server, url) = server(node("sse_server.js", "ws"));
    let consumer = Wsevent::new(["--no-serve", "--output", "ndjson", "--retry-max", "50ms", "--consume", &url]).start();
    let lines = told(&consumer, 7);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["data"], format!("first line of {}\nsecond line", i + 1));
        assert_eq!(line["type"], "row");
        assert!(
            line["id"].as_str().is_some_and(|id| id.starts_with('e') && id.ends_with(&format!("-{}", i + 1))),
            "{line}"
        );
    }
}
