//! What can be seen inside: status, metrics, the page and `wsevent trace` say the same, and what is true.

mod common;

use common::{
    Running, Scratch, Wsevent, eventually, find_program,
    raw::{self, Raw, Server},
    root,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use wsevent::{
    event::{Event, Run},
    id::{Epoch, Id, Seq},
    log::{Limits, Log, Numbering},
};

// --- looking ---------------------------------------------------------------------------------------------------------

fn json_of(answer: &raw::Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

fn status(running: &Running) -> Value {
    json_of(&running.own("status"))
}

fn chain(running: &Running) -> Value {
    json_of(&running.own("status?chain=1"))
}

/// The one topic of a status.
fn topic(status: &Value) -> &Value {
    &status["topics"][0]
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn close_to(value: &Value, expected: f64) -> bool {
    value.as_f64().is_some_and(|value| (value - expected).abs() <= expected * 0.15)
}

/// Once its upstreams have connected.
fn ready(running: Running) -> Running {
    eventually("readiness", || (running.own("readyz").status == 200).then_some(()));
    running
}

/// Once its upstreams are known, connected or not.
fn supplied(running: Running) -> Running {
    eventually("an upstream", || (!array(&status(&running)["upstreams"]).is_empty()).then_some(()));
    running
}

/// An origin with ten events a second, and hops behind it.
fn chain_of(hops: usize) -> Vec<Running> {
    let mut chain = vec![Wsevent::line("--serve localhost:0/hop1").serve()];
    for n in 2..=hops {
        let above = chain.last().expect("an origin").ws_url();
        chain.push(ready(Wsevent::line(&format!("--consume {above} --serve localhost:0/hop{n}")).serve()));
    }
    chain
}

/// Looks at the last hop until every rate has settled.
fn settled(last: &Running, hops: usize) -> Value {
    eventually("settled rates", || {
        let status = chain(last);
        let all: Vec<&Value> = std::iter::once(&status).chain(array(&status["chain"])).collect();
        let settled = all.len() == hops && all.iter().all(|one| close_to(&topic(one)["rate"]["events"], 10.0));
        settled.then(|| status.clone()).or_else(|| {
            thread::sleep(Duration::from_millis(300));
            None
        })
    })
}

// --- a chain of five -------------------------------------------------------------------------------------------------

#[test]
fn five_hops_tell_the_whole_chain() {
    let hops = chain_of(5);
    let told = settled(&hops[4], 5);
    let all: Vec<&Value> = std::iter::once(&told).chain(array(&told["chain"])).collect();
    let path: Vec<&Value> = all.iter().map(|one| &one["instance"]).collect();
    assert_eq!(array(&topic(&told)["upstream_path"]).iter().collect::<Vec<_>>(), path[1..]);
    for (i, one) in all.iter().enumerate() {
        let (hop, topic) = (&hops[4 - i], topic(one));
        assert_eq!(status(hop)["instance"], one["instance"], "nearest first");
        assert_eq!(topic["path"], format!("/hop{}", 5 - i));
        assert_eq!(array(&topic["upstream_path"]).len(), 4 - i);
        assert_eq!((&topic["gaps"], &topic["gaps_told"], &topic["skipped_events"]), (&json!(0), &json!(0), &json!(0)));
        assert_eq!(
            (&topic["policy"], &topic["ended"], &one["ready"]),
            (&json!("disconnect"), &json!(false), &json!(true))
        );
        assert!(one["uptime"].as_f64().is_some_and(|up| up > 0.0 && up < 120.0), "{one}");
        assert!(one.get("chain").is_none() || i == 0, "only the answer itself has the list");
        let feeds = array(&one["upstreams"]);
        assert_eq!(feeds.len(), usize::from(i < 4), "{feeds:?}");
        for feed in feeds {
            assert_eq!((&feed["state"], &feed["kind"]), (&json!("connected"), &json!("link")));
            assert_eq!((&feed["connects"], &feed["reconnects"], &feed["failures"]), (&json!(1), &json!(0), &json!(0)));
            assert_eq!((&feed["lag_events"], &feed["last_error"]), (&json!(0), &Value::Null));
            assert_eq!(feed["instance"], all[i + 1]["instance"]);
            assert_eq!(feed["hop"]["answered"], true, "{feed}");
            assert_eq!(feed["hop"]["instance"], all[i + 1]["instance"]);
            assert_eq!(feed["hop"]["topic"], format!("/hop{}", 4 - i));
            for (name, most) in [("round_trip_ms", 500.0), ("delay_ms", 500.0)] {
                assert!(feed["hop"][name].as_f64().is_some_and(|ms| (0.0..most).contains(&ms)), "{name}: {feed}");
            }
            let clock = feed["hop"]["clock_ms"].as_f64().expect("one machine has one clock");
            assert!(clock.abs() < 100.0, "{clock}");
        }
    }
    eventually("no lag", || {
        let told = chain(&hops[4]);
        array(&told["chain"]).iter().all(|one| array(&topic(one)["hops"])[0]["lag_events"] == 0).then_some(())
    });
    let link = &array(&topic(all[1])["hops"])[0];
    assert_eq!((&link["instance"], &link["wire"], &link["place"]), (&told["instance"], &json!("link"), &json!("tip")));
    assert!(link["address"].as_str().is_some_and(|address| address.parse::<std::net::SocketAddr>().is_ok()), "{link}");
}

#[test]
fn trace_prints_what_the_status_says() {
    let hops = chain_of(5);
    let told = settled(&hops[4], 5);
    let instances: Vec<String> = std::iter::once(&told)
        .chain(array(&told["chain"]))
        .map(|one| one["instance"].as_str().expect("a name").to_owned())
        .collect();
    for url in [hops[4].ws_url(), hops[4].url().to_owned(), hops[4].ws_url().replacen("ws://", "", 1)] {
        let done = Wsevent::new(["trace", "--count", "2", &url]).run();
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{}", done.stdout);
        let lines: Vec<Vec<&str>> = done.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..4], ["hop", "instance", "state", "events/s"], "{}", done.stdout);
        for (i, instance) in instances.iter().enumerate() {
            let line = &lines[1 + i];
            let state = if i == 0 { "answers" } else { "connected" };
            assert_eq!(line[..3], [(i + 1).to_string().as_str(), instance, state], "{}", done.stdout);
            assert!(close_to(&json!(line[3].parse::<f64>().expect("a rate")), 10.0), "{}", done.stdout);
            if i > 0 {
                let lag: u64 = line[4].parse().expect("a lag");
                let delay: f64 = line[5].parse().expect("a delay");
                assert!(lag < 20 && (0.0..500.0).contains(&delay) && line[6] == "ms", "{}", done.stdout);
                assert!(line.contains(&hops[4 - i].ws_url().as_str()), "{}", done.stdout);
            }
        }
        assert_eq!(lines[5].last(), Some(&"(origin)"));
        assert!(done.stdout.contains("From the origin to hop 1 an event takes"), "{}", done.stdout);
    }
}

#[test]
fn trace_ends_as_a_shell_expects() {
    let origin = Wsevent::line("").serve();
    let silent = Server::new().answer_all("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    let refusing = Server::new().answer_all("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    let table = [
        (format!("http://{}/nothing", origin.address()), 76, "/events"),
        (format!("http://{silent}/events"), 76, "no status"),
        (format!("http://{refusing}/events"), 77, "401"),
        ("ws://localhost:1/events".into(), 69, "refused"),
        ("ftp://localhost/events".into(), 2, "ftp"),
    ];
    for (url, code, hint) in table {
        let done = Wsevent::new(["trace", "--count", "1", &url]).run();
        assert_eq!((done.code, done.stdout.as_str()), (code, ""), "{url}: {}", done.stderr);
        assert!(done.stderr.contains(hint), "{url}: {}", done.stderr);
    }
    let help = Wsevent::line("trace --help").run();
    assert!(help.code == 0 && help.stdout.contains("--count"), "{help:?}");
    let late = Server::new();
    let done = Wsevent::new(["trace", "--timeout", "300ms", &format!("ws://{}/x", late.address())]).run();
    assert_eq!(done.code, 69, "{}", done.stderr);
}

// --- the page --------------------------------------------------------------------------------------------------------

fn missing(what: &str, by_hand: &str) -> ! {
    panic!("{what} is missing: run scripts/test, which installs it, or type: {by_hand}")
}

/// What a browser shows, and a picture of it for people.
fn look(url: &str, hops: usize, name: &str, how: &[&str]) -> Value {
    let node = find_program("node").unwrap_or_else(|| missing("node", "sudo apt-get install nodejs npm"));
    let clients = root().join("tests/clients");
    if !clients.join("node_modules/playwright-core").is_dir() {
        missing("playwright-core", "npm install --no-package-lock --prefix tests/clients");
    }
    let picture = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = Command::new(node);
    command.arg(clients.join("page.mjs")).args([url, &hops.to_string()]).arg(&picture).args(how);
    let done = common::run(command);
    assert_eq!(done.code, 0, "{} {}", done.stdout, done.stderr);
    let size = fs::metadata(&picture).expect("a picture").len();
    assert!(size > 20_000, "{size} bytes in {}", picture.display());
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", done.stdout))
}

#[test]
fn the_page_draws_the_chain_and_the_last_events() {
    let hops = chain_of(5);
    let told = settled(&hops[4], 5);
    let mut instances: Vec<&str> = array(&told["chain"]).iter().filter_map(|one| one["instance"].as_str()).collect();
    instances.reverse();
    instances.push(told["instance"].as_str().expect("a name"));
    for (name, how) in [
        ("page.png", &["1280x800", "light"][..]),
        ("page-dark.png", &["1280x800", "dark"]),
        ("page-phone.png", &["390x844", "light"]),
    ] {
        let shown = look(&format!("http://{}/-/", hops[4].address()), 5, name, how);
        assert_eq!((&shown["errors"], &shown["foreign"]), (&json!([]), &json!([])), "{shown}");
        assert_eq!(shown["overflow"], false, "nothing sticks out of the window");
        let cards = array(&shown["cards"]);
        assert_eq!(cards.len(), 5);
        for (i, (card, instance)) in cards.iter().zip(&instances).enumerate() {
            assert!(instance.starts_with(card["instance"].as_str().expect("a name")), "{card}");
            assert_eq!(card["path"], format!("/hop{}", i + 1));
            assert_eq!(card["role"], ["origin", "hop", "hop", "hop", "here"][i]);
            assert_eq!(card["place"], hops[i].address());
            assert!(close_to(&card["rate"], 10.0) && card["inside"] == true, "{card}");
            assert_eq!(card["figures"], json!(["1", "0", "0"]), "readers, lag, lost: {card}");
        }
        let edges = array(&shown["edges"]);
        assert_eq!(edges.len(), 5, "{edges:?}");
        for edge in &edges[..4] {
            assert!(edge[0].as_str().is_some_and(|delay| delay.ends_with(" ms")), "{edge}");
            assert_eq!(edge[1], "lag 0");
        }
        assert_eq!((&shown["readers"], &shown["tail"]), (&json!("1"), &json!("live")));
        assert!(array(&shown["events"]).len() > 20, "{shown}");
        let newest = shown["events"][0].as_str().expect("a payload");
        assert!(newest.contains(": localhost:0: "), "{newest}");
        assert!(shown["title"].as_str().is_some_and(|title| title.ends_with("/s /hop5 · wsevent")), "{shown}");
    }
    // The page is a reader like any other, and gone with the browser.
    eventually("no readers", || (topic(&status(&hops[4]))["readers"] == 0).then_some(()));
    assert_eq!(topic(&status(&hops[4]))["closed"]["left"], 3);
}

#[test]
fn the_page_holds_up_no_lossless_topic() {
    let mut log = Wsevent::line("--produce - --serve localhost:0/log").piped().serve();
    let pace = thread::spawn({
        let mut stdin = log.take_stdin();
        move || {
            for n in 0..2000 {
                if std::io::Write::write_all(&mut stdin, format!("line {n}\n").as_bytes()).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    });
    let shown = look(&format!("http://{}/-/", log.address()), 1, "page-lossless.png", &[]);
    assert_eq!((&shown["tail"], &shown["errors"]), (&json!("a look once a second"), &json!([])));
    assert!(shown["events"][0].as_str().is_some_and(|event| event.starts_with("line ")), "{shown}");
    let told = status(&log);
    assert_eq!((&topic(&told)["readers_ever"], &topic(&told)["policy"]), (&json!(0), &json!("block")));
    let first = Wsevent::new(["--consume", &log.ws_url(), "--no-serve", "--count", "1"]).run();
    assert_eq!(first.stdout, "line 0\n", "the first reader still gets everything");
    drop(log);
    let _ = pace.join();
}

#[test]
fn the_page_may_run_nothing_but_itself() {
    let origin = Wsevent::line("").serve();
    let (one, other) = (origin.own(""), origin.own(""));
    let policy = |answer: &raw::Answer| answer.header("content-security-policy").expect("a policy").to_owned();
    assert!(policy(&one).contains("default-src 'none'") && policy(&one) != policy(&other), "a number used once");
    assert_eq!(one.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(one.header("x-content-type-options"), Some("nosniff"));
    let nonce =
        policy(&one).split("script-src 'nonce-").nth(1).and_then(|rest| rest.split('\'').next().map(String::from));
    let nonce = nonce.expect("a number");
    assert!(one.text().contains(&format!("<script nonce=\"{nonce}\">")), "{nonce}");
    let told = Wsevent::line("--no-produce --serve localhost:0/hub").serve();
    raw::post(told.url(), "<img src=x onerror=alert(1)><script>document.title='x'</script>");
    let pace = thread::spawn({
        let url = told.url().to_owned();
        move || {
            let until = Instant::now() + Duration::from_secs(25);
            while Instant::now() < until
                && raw::request("POST", &url, "Event-Type: <b>\r\n", b"<b>&amp;</b>").status == 200
            {
                thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let shown = look(&format!("http://{}/-/", told.address()), 1, "page-hostile.png", &[]);
    assert_eq!(shown["errors"], json!([]));
    assert_eq!(shown["events"][0], "<b><b>&amp;</b>", "the type, then the payload, as they are");
    drop(told);
    let _ = pace.join();
}

// --- metrics ---------------------------------------------------------------------------------------------------------

/// The value of a metric with exactly these labels, in their order.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in:\n{text}")).parse().expect("a number")
}

fn promtool(text: &str) {
    let promtool = find_program("promtool").unwrap_or_else(|| missing("promtool", "sudo apt-get install prometheus"));
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), text.as_bytes()).expect("promtool reads");
    let done = child.wait_with_output().expect("promtool ends");
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}

#[test]
fn metrics_pass_promtool_in_both_forms() {
    let origin = Wsevent::line("").serve();
    let hop = ready(Wsevent::line(&format!("--consume {} --serve localhost:0/hop", origin.ws_url())).serve());
    let consumer = Wsevent::new(["--consume", &hop.ws_url(), "--no-serve"]).start();
    consumer.lines(5);
    for running in [&origin, &hop] {
        let plain = running.own("metrics");
        assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        promtool(&plain.text());
        let url = format!("http://{}/-/metrics", running.address());
        let open = raw::request("GET", &url, "Accept: application/openmetrics-text;version=1.0.0\r\n", b"");
        assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
        assert!(open.text().ends_with("# EOF\n"), "{}", open.text());
        assert!(
            open.text().contains("# TYPE wsevent_events counter\n# ")
                || open.text().contains("# TYPE wsevent_events counter\nwsevent_events_total{")
        );
        let names = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(names(&plain.text()), names(&open.text()));
    }
    let (text, told) = (hop.own("metrics").text(), status(&hop));
    let upstream = format!(r#"{{topic="/hop",upstream="{}"}}"#, origin.ws_url());
    assert_eq!(metric(&text, &format!("wsevent_upstream_connected{upstream}")), 1.0);
    assert_eq!(metric(&text, &format!("wsevent_upstream_connects_total{upstream}")), 1.0);
    assert_eq!(metric(&text, r#"wsevent_readers{topic="/hop",wire="link"}"#), 1.0);
    assert_eq!(metric(&text, r#"wsevent_hops{topic="/hop"}"#), 1.0);
    assert_eq!(metric(&text, "wsevent_ready"), 1.0);
    let events = metric(&text, r#"wsevent_events_total{topic="/hop"}"#);
    assert!(events >= 5.0 && events <= topic(&told)["events"].as_f64().expect("a count"), "{text}");
    assert_eq!(
        metric(
            &text,
            &format!(
                "wsevent_build_info{{version=\"{}\",instance_id={}}}",
                env!("CARGO_PKG_VERSION"),
                told["instance"]
            )
        ),
        1.0
    );
}

#[test]
fn upstreams_that_look_the_same_are_told_apart() {
    let origin = Wsevent::line("").serve();
    let line = format!("--consume {0}?a=1 --consume {0}?a=2 --consume {0} --serve localhost:0/merge", origin.ws_url());
    let merge = ready(Wsevent::line(&line).serve());
    let text = merge.own("metrics").text();
    promtool(&text);
    let series: Vec<&str> = text.lines().filter(|line| line.starts_with("wsevent_upstream_connected{")).collect();
    assert!(series.len() == 3 && series[0] != series[1], "{series:?}");
}

#[test]
fn arrivals_are_known_by_position() {
    let epoch = Epoch::new(1, 2);
    let log = Log::new(Numbering::Own(epoch.clone()), Limits { events: 4, ..Limits::default() });
    let id = |n| Id { epoch: epoch.clone(), seq: Seq::whole(n) };
    assert_eq!(log.arrived(&id(1)), None);
    let before = Instant::now();
    let two = || Run::of(&[Event::new("a"), Event::new("b")]);
    log.publish(two(), Vec::new(), 0).expect("it is taken");
    let between = Instant::now();
    log.publish_gap(Some(3), "a test");
    log.publish(two(), Vec::new(), 0).expect("it is taken");
    for (n, early) in [(1, true), (2, true), (3, false), (5, false), (6, false), (7, false)] {
        let arrived = log.arrived(&id(n)).unwrap_or_else(|| panic!("{n} is there"));
        assert!(arrived >= before && (arrived <= between) == early, "{n}");
    }
    assert_eq!(log.arrived(&id(8)), None, "not there yet");
    assert_eq!(log.arrived(&Id { epoch: Epoch::new(1, 3), seq: Seq::whole(1) }), None, "somebody else's");
    log.publish(two(), Vec::new(), 0).expect("it is taken");
    assert_eq!(log.arrived(&id(2)), None, "no longer retained");
    assert!(log.arrived(&id(9)).is_some());
}

#[test]
fn every_delivery_is_counted_once_per_reader_and_wire() {
    const EVENTS: u64 = 500;
    let hub = Wsevent::line("--no-produce --serve localhost:0/hub").serve();
    let sse = |accept: &str| {
        let mut raw = Raw::connect("localhost", hub.port());
        raw.send(format!("GET /hub HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"));
        assert_eq!(raw.read_head().status, 200);
        raw
    };
    let mut ws = [Raw::websocket(&hub.ws_url()), Raw::websocket(&hub.ws_url())];
    let mut picky = Raw::websocket(&format!("{}?match=%7B%22n%22%3A7%7D", hub.ws_url()));
    let (mut events, mut lines) = (sse("text/event-stream"), sse("application/x-ndjson"));
    let copy = Wsevent::new(["--consume", &hub.ws_url(), "--no-serve", "--count", &EVENTS.to_string()]).start();
    hub.has("readers", 6);
    for n in 0..EVENTS {
        assert_eq!(raw::post(hub.url(), format!("{{\"n\":{}}}", n % 10)).status, 200);
    }
    ws.iter_mut().for_each(|ws| (0..EVENTS).for_each(|_| drop(ws.read_message().expect("an event"))));
    (0..EVENTS / 10).for_each(|_| drop(picky.read_message().expect("an event")));
    events.read_until(&format!("-{EVENTS}\ndata"));
    lines.read_until(&format!("-{EVENTS}\""));
    assert_eq!(copy.lines(EVENTS as usize).len(), EVENTS as usize);
    let expected =
        [("ws", 2 * EVENTS + EVENTS / 10, 3), ("link", EVENTS, 1), ("sse", EVENTS, 1), ("ndjson", EVENTS, 1)];
    eventually("the link to be gone", || (topic(&status(&hub))["readers_by_wire"]["link"] == 0).then_some(()));
    let text = hub.own("metrics").text();
    for (wire, delivered, came) in expected {
        let of = |name: &str| metric(&text, &format!("wsevent_{name}{{topic=\"/hub\",wire=\"{wire}\"}}"));
        assert_eq!(of("delivered_events_total"), delivered as f64, "{wire}");
        assert_eq!(of("readers_opened_total"), f64::from(came), "{wire}");
        assert!(of("delivered_bytes_total") > delivered as f64 * 7.0, "{wire}");
    }
    let told = status(&hub);
    assert_eq!(topic(&told)["delivered_events"], expected.iter().map(|(_, delivered, _)| delivered).sum::<u64>());
    assert_eq!(topic(&told)["readers_by_wire"], json!({"ws": 3, "link": 0, "sse": 1, "ndjson": 1, "mqtt": 0}));
    assert_eq!((&topic(&told)["events"], &topic(&told)["readers"]), (&json!(EVENTS), &json!(5)));
    drop((ws, picky, events, lines));
    hub.has("readers", 0);
    let closed = topic(&status(&hub))["closed"].clone();
    assert_eq!(closed.as_object().expect("reasons").values().filter_map(Value::as_u64).sum::<u64>(), 6, "{closed}");
}

#[test]
fn losses_and_slow_readers_are_counted() {
    let hub = Wsevent::line("--no-produce --serve localhost:0/hub --history-bytes 256KiB --max-message 1MiB").serve();
    let first = json_of(&raw::post(hub.url(), "first"))["id"].as_str().expect("an id").to_owned();
    let stalled = Raw::websocket(&hub.ws_url());
    hub.has("readers", 1);
    let large = "x".repeat(1 << 20);
    eventually("the stalled reader's end", || {
        assert_eq!(raw::post(hub.url(), &large).status, 200);
        (topic(&status(&hub))["closed"]["slow"] == 1).then_some(())
    });
    let mut late = Raw::connect("localhost", hub.port());
    late.send(format!(
        "GET /hub HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nLast-Event-ID: {first}\r\n\r\n"
    ));
    late.read_until("event: gap");
    assert_eq!(topic(&status(&hub))["gaps_told"], 1);
    let (mut gone, _) = Raw::ask_websocket(&format!("{}?since={first}", hub.ws_url()), "");
    assert_eq!(gone.read_close().map(|close| close.close_code()), Some(1013));
    let text = hub.own("metrics").text();
    for (reason, count) in [("slow", 1.0), ("gone", 1.0), ("fault", 0.0)] {
        assert_eq!(
            metric(&text, &format!("wsevent_readers_closed_total{{topic=\"/hub\",reason=\"{reason}\"}}")),
            count
        );
    }
    assert_eq!(metric(&text, "wsevent_gaps_told_total{topic=\"/hub\"}"), 1.0);
    drop(stalled);
}

// --- upstreams that are not well -------------------------------------------------------------------------------------

#[test]
fn an_upstream_that_goes_and_comes_back_is_told() {
    let mut origin = Wsevent::line("--serve-address localhost:0").serve();
    let hop =
        Wsevent::line(&format!("--consume {} --serve localhost:0/hop --retry-max 200ms", origin.ws_url())).serve();
    let feed = || status(&hop)["upstreams"][0].clone();
    eventually("a connection", || (feed()["state"] == "connected").then_some(()));
    let before = feed();
    origin.kill9();
    eventually("the loss", || (feed()["state"] == "down").then_some(()));
    let down = chain(&hop);
    let lost = &down["upstreams"][0];
    assert_eq!((&lost["hop"]["answered"], array(&down["chain"]).len()), (&json!(false), 0));
    assert!(lost["last_error"]["text"].as_str().is_some_and(|why| !why.is_empty()), "{lost}");
    assert!(lost["since"].as_u64() > before["since"].as_u64() && lost["failures"].as_u64() >= Some(1), "{lost}");
    let done = Wsevent::new(["trace", "--count", "1", &hop.ws_url()]).run();
    assert_eq!(done.code, 69, "{}", done.stderr);
    assert!(done.stdout.contains("down") && done.stdout.contains(&origin.ws_url()), "{}", done.stdout);
    origin.start_again();
    eventually("the return", || (feed()["state"] == "connected").then_some(()));
    let back = feed();
    assert_eq!((&back["connects"], &back["reconnects"]), (&json!(2), &json!(1)));
    assert_ne!(back["instance"], before["instance"], "the origin's new life has a new name");
}

#[test]
fn who_tells_no_status_is_shown_as_such() {
    let apart = Wsevent::line("--serve localhost:0/apart --admin-address localhost:0").serve();
    let behind = Wsevent::line(&format!("--consume {} --serve localhost:0/behind", apart.ws_url())).serve();
    let stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: 1\ndata: x\n\n";
    let foreign = Server::new().answer_all(stream);
    let merge = format!("--consume {} --consume http://{foreign}/s --serve localhost:0/merge", behind.ws_url());
    let merge = Wsevent::line(&merge).serve();
    let told = eventually("both upstreams", || {
        let told = chain(&merge);
        (told["upstreams"][0]["hop"]["answered"] == true && told["upstreams"][1]["kind"] == "foreign").then_some(told)
    });
    assert_eq!(array(&told["chain"]).len(), 1, "{told}");
    assert_eq!(told["upstreams"][1]["hop"]["answered"], false);
    let done = Wsevent::new(["trace", "--count", "1", &merge.ws_url()]).run();
    let silent = &array(&told["chain"])[0]["upstreams"][0];
    assert_eq!((&silent["state"], &silent["hop"]["answered"]), (&json!("connected"), &json!(false)), "{silent}");
    let instance = silent["instance"].as_str().expect("the link says who it is");
    assert!(done.stdout.contains(instance) && done.stdout.contains("404"), "{}", done.stdout);
    assert!(done.stdout.contains("merge of 2"), "{}", done.stdout);
    let shown = look(&format!("http://{}/-/", merge.address()), 4, "page-merge.png", &[]);
    let roles: Vec<&str> = array(&shown["cards"]).iter().filter_map(|card| card["role"].as_str()).collect();
    assert!(roles.contains(&"here") && roles.contains(&"instance") && roles.contains(&"hop"), "{roles:?}");
    assert!(roles.iter().any(|role| matches!(*role, "foreign server" | "down")), "{roles:?}");
}

#[test]
fn a_hostile_status_harms_nobody() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let twin = r#"{"instance":"t","topics":[{"path":"/s"}],"upstreams":[],"chain":null}"#;
    let many = format!(r#"{{"instance":"m","chain":[{}]}}"#, vec![twin; 5000].join(","));
    let looped = r#"{"instance":"l","topics":[{"path":"/s"}],"upstreams":[{"topic":"/s","url":"x","state":"connected",
        "hop":{"answered":true,"instance":"l","topic":"/s"}}],"chain":[{"instance":"l"}]}"#;
    let table = [
        ("", 0),
        ("null", 0),
        ("[]", 0),
        (r#"{"instance":5}"#, 0),
        (r#"{"instance":"x","topics":7,"upstreams":"y","clock":{"received":-1,"answered":"z"}}"#, 1),
        (looped, 1),
        (&many, 2),
        (&deep, 0),
        (&"x".repeat(8 << 20), 0),
    ];
    for (body, instances) in table {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let upstream = Server::new().answer_all(answer);
        let hop = supplied(Wsevent::line(&format!("--consume http://{upstream}/s --serve localhost:0/hop")).serve());
        let told = chain(&hop);
        assert_eq!(array(&told["chain"]).len(), instances, "{}", &body[..body.len().min(100)]);
        let done = Wsevent::new(["trace", "--count", "1", &hop.ws_url()]).run();
        assert_eq!(done.code, 69, "what is no stream is not read: {}", done.stdout);
        assert!(done.stdout.lines().count() < 80, "{}", done.stdout);
    }
}

#[test]
fn many_questions_cost_the_upstream_few() {
    let (upstream, asked) = (Server::new(), Arc::new(AtomicUsize::new(0)));
    let address = upstream.address();
    let count = asked.clone();
    thread::spawn(move || {
        loop {
            let (mut raw, head) = upstream.accept();
            let count = count.clone();
            thread::spawn(move || {
                if head.contains("/-/status") {
                    count.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(200));
                    let _ = raw.try_send("HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"instance\":\"u\"}");
                }
            });
        }
    });
    let hop = supplied(Wsevent::line(&format!("--consume ws://{address}/s --serve localhost:0/hop")).serve());
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| assert_eq!(array(&chain(&hop)["chain"]).len(), 1));
        }
    });
    let most = 2 + began.elapsed().as_millis() as usize / 500;
    assert!((1..=most).contains(&asked.load(Ordering::Relaxed)), "{asked:?} questions, {most} at most");
}

#[test]
fn a_question_that_comes_around_ends() {
    let hops = chain_of(2);
    let instance = status(&hops[1])["instance"].as_str().expect("a name").to_owned();
    let ask = |path: &str| {
        let url = format!("http://{}/-/status?chain=1", hops[1].address());
        json_of(&raw::request("GET", &url, &format!("Wsevent-Path: {path}\r\n"), b""))
    };
    assert_eq!(array(&ask(&format!("x,{instance},y"))["chain"]).len(), 0);
    assert_eq!(array(&ask(&vec!["x"; 32].join(","))["chain"]).len(), 0);
    assert_eq!(array(&ask("x")["chain"]).len(), 1);
}

// --- the endpoints ---------------------------------------------------------------------------------------------------

#[test]
fn bad_questions_are_answered_with_what_is_wrong() {
    let origin = ready(Wsevent::line("").serve());
    let url = |name: &str| format!("http://{}/-/{name}", origin.address());
    for (name, wrong) in [("status?wait=soon", "wait"), ("status?at=7", "at"), ("status?chain=1&wait=-1s", "wait")] {
        let answer = raw::get(&url(name));
        assert_eq!(answer.status, 400, "{name}");
        assert!(answer.text().contains(wrong), "{}", answer.text());
    }
    for name in ["status", "metrics", "healthz", "readyz", ""] {
        let answer = raw::post(&url(name), "x");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{name}");
        let head = raw::request("HEAD", &url(name), "", b"");
        assert_eq!((head.status, head.body.len()), (200, 0), "{name}");
    }
    for name in ["nothing", "status/", "Status", "../-/x"] {
        assert_eq!(raw::get(&url(name)).status, 404, "{name}");
    }
    let evil = raw::request("GET", &url("status"), "Origin: https://evil.example\r\n", b"");
    assert_eq!(evil.header("access-control-allow-origin"), None, "a page elsewhere cannot read it");
}

#[test]
fn a_status_has_no_secrets() {
    let origin = Wsevent::line("").serve();
    let secret = origin.ws_url().replacen("ws://", "ws://user:hunter2@", 1) + "?token=hunter3";
    let hop = Wsevent::new(["--consume", &secret, "--serve", "localhost:0/hop", "-H", "X-Key: hunter4"]).serve();
    eventually("a connection", || (status(&hop)["upstreams"][0]["state"] == "connected").then_some(()));
    for told in [chain(&hop).to_string(), hop.own("metrics").text()] {
        assert!(told.contains("?…") && !told.contains("hunter") && !told.contains("user:"), "{told}");
    }
    let traced =
        Wsevent::new(["trace", "--count", "1", &hop.ws_url().replacen("ws://", "ws://user:hunter5@", 1)]).run();
    assert!(traced.code == 0 && !traced.stdout.contains("hunter"), "{traced:?}");
}

/// Where `/-/` is served, as the log says.
fn inside_of(running: &Running) -> String {
    running.said("inside");
    let stderr = running.stderr();
    let line = stderr.lines().find(|line| line.contains("inside")).expect("said");
    let url = line.split("url=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a URL");
    url.trim_matches('"').to_owned()
}

#[test]
fn an_admin_address_takes_everything_under_the_own_path() {
    let apart = Wsevent::line("--admin-address localhost:0").serve();
    let inside = inside_of(&apart);
    eventually("readiness", || (raw::get(&format!("{inside}readyz")).status == 200).then_some(()));
    for name in ["healthz", "readyz", "status", "metrics", ""] {
        assert_eq!(apart.own(name).status, 404, "{name} on the main port");
        assert_eq!(raw::get(&format!("{inside}{name}")).status, 200, "{name} on its own");
    }
    assert_eq!(raw::get(apart.url()).status, 200, "the topic stays");
    let shown = look(&inside, 1, "page-apart.png", &[]);
    assert_eq!((&shown["errors"], &shown["tail"]), (&json!([]), &json!("live")), "the page reads the topic, too");
}

#[test]
fn the_ready_file_names_the_admin_address_behind_the_topic() {
    let scratch = Scratch::new();
    let line = format!("--serve localhost:0/t --admin-address localhost:0 --ready-file {}", scratch.arg("ready"));
    let running = Wsevent::line(&line).start();
    let ready = eventually("the ready file", || scratch.read("ready"));
    let urls: Vec<&str> = ready.lines().collect();
    assert!(urls.len() == 2 && urls[0].ends_with("/t") && urls[1] == inside_of(&running), "{urls:?}");
}

#[test]
fn a_consumer_can_be_looked_at() {
    let origin = Wsevent::line("").serve();
    let line = format!("--consume {} --no-serve --admin-address localhost:0", origin.ws_url());
    let consumer = Wsevent::line(&line).start();
    consumer.lines(3);
    let inside = inside_of(&consumer);
    let told = json_of(&raw::get(&format!("{inside}status?chain=1")));
    assert_eq!((&told["upstreams"][0]["state"], array(&told["chain"]).len()), (&json!("connected"), 1));
    assert!(topic(&told)["events"].as_u64() >= Some(3), "{told}");
    let base = inside.trim_end_matches("/-/");
    for path in ["/events", "/stdout", "/"] {
        assert_eq!(raw::get(&format!("{base}{path}")).status, 404, "{path}: it serves nothing");
    }
    promtool(&raw::get(&format!("{inside}metrics")).text());
}

#[test]
fn readiness_can_be_asked_during_a_drain() {
    let mut apart = Wsevent::line("--admin-address localhost:0 --drain-timeout 2s").serve();
    let inside = inside_of(&apart);
    eventually("readiness", || (raw::get(&format!("{inside}readyz")).status == 200).then_some(()));
    // It says nothing to the goodbye.
    let _stubborn = Raw::websocket(&apart.ws_url());
    let readers = || topic(&json_of(&raw::get(&format!("{inside}status"))))["readers"].clone();
    eventually("the reader", || (readers() == 1).then_some(()));
    apart.signal("TERM");
    eventually("the drain to be told", || (raw::get(&format!("{inside}readyz")).status == 503).then_some(()));
    assert_eq!(raw::get(&format!("{inside}healthz")).status, 200);
    assert_eq!(apart.wait(), 128 + 15);
}
