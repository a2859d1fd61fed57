//! Readers of a balanced topic do not notice that back ends die, come back, or never were the same.

mod balancer;
mod common;
mod netns;

use balancer::{forwarder, hub, read_by, readers, ready, status, topic};
use common::{
    Running, Wsevent, eventually,
    raw::{self, Raw, Server},
};
use netns::Machine;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

fn in_front_of(backends: &[&Running], options: &str) -> Running {
    balancer::in_front_of(backends.iter().map(|backend| backend.url()), options)
}

fn post(hub: &Running, event: impl ToString) {
    assert_eq!(raw::post(hub.url(), event.to_string()).status, 200);
}

fn sse(url: &str) -> Raw {
    let (host, port, path) = raw::split_url(url);
    let mut raw = Raw::connect(&host, port);
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n"));
    assert_eq!(raw.read_head().status, 200);
    raw
}

/// The next event's text of an event stream; what is no event is passed over.
fn sse_event(raw: &mut Raw) -> String {
    loop {
        let block = raw.read_until("\n\n");
        assert!(!block.contains("event: gap"), "{block}");
        if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data: ")) {
            return data.to_owned();
        }
    }
}

/// Reads numbers on one connection until `last`: each once, in order, none missing.
fn count_to(last: Arc<AtomicU64>, mut next: impl FnMut() -> String + Send + 'static) -> JoinHandle<u64> {
    thread::spawn(move || {
        let mut expected = 1;
        loop {
            assert_eq!(next().parse(), Ok(expected), "in order, without a gap");
            if expected == last.load(Ordering::Relaxed) {
                return expected;
            }
            expected += 1;
        }
    })
}

#[test]
fn a_reader_does_not_notice_that_its_back_end_dies() {
    let hub = hub();
    let mut forwarders = [forwarder(&hub), forwarder(&hub)];
    post(&hub, "before");
    let [a, b] = &forwarders;
    let balancer = in_front_of(&[a, b], "");
    ready(&balancer);
    let mut early = Raw::websocket(&format!("{}?since=oldest", balancer.url()));
    let mut socket = Raw::websocket(balancer.url());
    let mut stream = sse(balancer.url());
    assert_eq!(early.read_message().expect("what was there").text(), "before");
    readers(&balancer, 3);
    for event in ["one", "two", "three"] {
        post(&hub, event);
        assert_eq!(socket.read_message().expect("an event").text(), event);
        assert_eq!(early.read_message().expect("an event").text(), event);
        assert_eq!(sse_event(&mut stream), event);
        read_by(&balancer, &mut forwarders).restart();
    }
    assert_eq!(status(&balancer)["balancer"]["mode"], "stream");
    assert_eq!(topic(&balancer)["gaps"], 0);
    assert_eq!(raw::get(balancer.url()).text(), r#"["before","one","two","three"]"#);
}

/// The whole promise at once: forwarders are killed and come back in turn, under load, and nobody notices.
#[test]
fn rolling_kills_cost_no_reader_anything() {
    const READERS: usize = 200;
    let hub = hub();
    let mut forwarders = [forwarder(&hub), forwarder(&hub), forwarder(&hub)];
    let [a, b, c] = &forwarders;
    let balancer = in_front_of(&[a, b, c], "");
    ready(&balancer);
    let last = Arc::new(AtomicU64::new(0));
    let mut counting = Vec::new();
    for i in 0..READERS {
        counting.push(if i % 2 == 0 {
            let mut socket = Raw::websocket(balancer.url());
            count_to(last.clone(), move || socket.read_message().expect("no disconnect").text())
        } else {
            let mut stream = sse(balancer.url());
            count_to(last.clone(), move || sse_event(&mut stream))
        });
    }
    readers(&balancer, READERS);
    let enough = Arc::new(AtomicBool::new(false));
    let publisher = publish_numbers(&hub, enough.clone(), last.clone());
    for _ in 0..3 {
        for forwarder in &mut forwarders {
            forwarder.restart();
            ready(forwarder);
        }
        // And one that is certainly read.
        read_by(&balancer, &mut forwarders).restart();
    }
    enough.store(true, Ordering::Relaxed);
    let published = publisher.join().expect("a publisher");
    for reader in counting {
        assert_eq!(reader.join().expect("a reader that lost nothing"), published);
    }
    assert_eq!(topic(&balancer)["gaps"], 0);
    let reconnects = status(&balancer)["upstreams"][0]["reconnects"].as_u64().expect("a number");
    assert!(reconnects >= 3, "{reconnects}");
}

/// About 500 a second, numbered from 1, until there are `enough`; the last number is told before it is published.
fn publish_numbers(hub: &Running, enough: Arc<AtomicBool>, last: Arc<AtomicU64>) -> JoinHandle<u64> {
    let url = hub.url().to_owned();
    thread::spawn(move || {
        let mut next = 1;
        loop {
            let done = enough.load(Ordering::Relaxed);
            let batch: Vec<String> = (next..next + 10).map(|n| n.to_string()).collect();
            next += 10;
            if done {
                last.store(next - 1, Ordering::Relaxed);
            }
            let kind = "Content-Type: application/x-ndjson\r\n";
            assert_eq!(raw::request("POST", &url, kind, batch.join("\n").as_bytes()).status, 200);
            if done {
                return next - 1;
            }
            thread::sleep(Duration::from_millis(20));
        }
    })
}

/// A stream's reader asks nobody while it has somebody: who was left alone is tried all the same.
#[test]
fn a_back_end_that_nobody_needs_is_found_well_again() {
    let hub = hub();
    let [mut a, mut b] = [forwarder(&hub), forwarder(&hub)];
    let options = "--breaker-failures 1 --breaker-base 200ms --breaker-cap 200ms";
    let balancer = in_front_of(&[&a, &b], options);
    ready(&balancer);
    let (at_a, at_b) = (format!("{}/events", a.address()), format!("{}/events", b.address()));
    a.kill9();
    b.kill9();
    let is = |address: &str, closed: bool| {
        let state = || balancer::backend(&balancer, address)["breaker"].clone();
        eventually("a verdict", || ((state() == "closed") == closed).then_some(()));
    };
    is(&at_a, false);
    is(&at_b, false);
    b.start_again();
    let read = || status(&balancer)["upstreams"][0].clone();
    eventually("the one that is back", || (read()["state"] == "connected").then_some(()));
    assert_eq!(read()["url"], b.ws_url());
    a.start_again();
    is(&at_a, true);
    assert_eq!(read()["url"], b.ws_url());
}

#[test]
fn another_origin_goes_on_behind_a_gap_without_a_disconnect() {
    let mut hubs = [hub(), hub()];
    let [a, b] = &hubs;
    let balancer = in_front_of(&[a, b], "");
    ready(&balancer);
    let mut socket = Raw::websocket(balancer.url());
    let mut stream = sse(balancer.url());
    readers(&balancer, 2);
    post(b, "old news");
    post(a, "old news");
    let first = read_by(&balancer, &mut hubs);
    post(first, "first");
    let at = first.url().to_owned();
    for expected in ["old news", "first"] {
        assert_eq!(socket.read_message().expect("an event").text(), expected);
        assert_eq!(sse_event(&mut stream), expected);
    }
    first.kill9();
    let block = stream.read_until("event: gap");
    assert!(!block.contains("data: "), "{block}");
    let second = read_by(&balancer, &mut hubs);
    assert_ne!(second.url(), at);
    post(second, "second");
    assert_eq!(socket.read_message().expect("no disconnect").text(), "second");
    assert!(stream.read_until("second").contains("count"), "the gap's data");
    // Its first back end comes back as another origin again, when this one goes.
    let dead = hubs.iter_mut().find(|hub| hub.url() == at).expect("the first");
    dead.start_again();
    read_by(&balancer, &mut hubs).kill9();
    let third = read_by(&balancer, &mut hubs);
    post(third, "third");
    assert_eq!(socket.read_message().expect("no disconnect").text(), "third");
}

/// An epoch enters a log once (LINKS 5): one that comes back is heard all the same.
#[test]
fn an_origin_that_was_only_away_is_heard_again() {
    let mut hubs = [hub(), hub()];
    let [a, b] = &hubs;
    let balancer = in_front_of(&[a, b], "--idle-timeout 1s --handshake-timeout 1s --breaker-failures 100");
    ready(&balancer);
    let mut socket = Raw::websocket(balancer.url());
    let away = read_by(&balancer, &mut hubs);
    post(away, "first");
    assert_eq!(socket.read_message().expect("an event").text(), "first");
    away.signal("STOP");
    let at = away.url().to_owned();
    eventually("the other one", || (read_by(&balancer, &mut hubs).url() != at).then_some(()));
    let other = read_by(&balancer, &mut hubs);
    post(other, "second");
    assert_eq!(socket.read_message().expect("no disconnect").text(), "second");
    hubs.iter().find(|hub| hub.url() == at).expect("the first").signal("CONT");
    hubs.iter_mut().find(|hub| hub.url() != at).expect("the second").kill9();
    let again = eventually("the first one", || {
        Some(read_by(&balancer, &mut hubs)).filter(|hub| hub.url() == at).map(|hub| hub.url().to_owned())
    });
    assert_eq!(raw::post(&again, "third").status, 200);
    assert_eq!(socket.read_message().expect("no disconnect").text(), "third");
}

#[test]
fn back_ends_that_are_none_are_left_for_the_next_one() {
    let hub = hub();
    let refusing = balancer::nobody();
    let silent = Server::new();
    let garbage = Server::new().answer_all("SSH-2.0-OpenSSH_9.2\r\n");
    let page = Server::new().answer_all("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let half = Server::new().answer_all("HTTP/1.1 101 Switching Protocols\r\nUpgr");
    let addresses = [refusing, silent.address(), garbage, page, half];
    let urls = addresses.iter().map(|address| format!("http://{address}/events")).chain([hub.url().to_owned()]);
    // The half one keeps the connection open: it is given up like the silent one.
    let balancer = balancer::in_front_of(urls, "--handshake-timeout 300ms --balance-mode stream");
    ready(&balancer);
    let mut socket = Raw::websocket(balancer.url());
    readers(&balancer, 1);
    post(&hub, "hello");
    assert_eq!(socket.read_message().expect("an event").text(), "hello");
}

#[test]
fn a_stream_ends_when_every_back_end_says_so() {
    let mut origin = Wsevent::line("--produce - --keep-open=false --pin-grace 100ms").piped().serve();
    let forwarders = [forwarder(&origin), forwarder(&origin)];
    let [a, b] = &forwarders;
    let balancer = in_front_of(&[a, b], "");
    ready(&balancer);
    let consumer = Wsevent::new(["--consume", &balancer.ws_url(), "--no-serve"]).start();
    readers(&balancer, 1);
    origin.write("last words\n");
    assert_eq!(consumer.lines(1), ["last words"]);
    origin.close_stdin();
    let mut consumer = consumer;
    assert_eq!(consumer.wait(), 0);
}

#[test]
fn back_ends_without_ids_are_relayed() {
    let server = Server::new();
    let url = format!("http://{}/chat", server.address());
    let balancer = Wsevent::new(["--balance", &url, "--serve-path", "/room"]).serve();
    // What it asks to find out: no ids in the answer.
    let (_asked, head) = server.accept_websocket("");
    assert!(head.starts_with("GET /chat?since=oldest "), "{head}");
    let address = balancer.url().to_owned();
    let client = thread::spawn(move || Raw::websocket(&format!("{address}?a=b")));
    let (_there, head) = server.accept_websocket("");
    assert!(head.starts_with("GET /chat?a=b "), "{head}");
    client.join().expect("a client");
    assert_eq!(status(&balancer)["balancer"]["mode"], "relay");
    assert_eq!(raw::get(&format!("http://{}/events", balancer.address())).status, 404);
}

#[test]
fn what_is_published_goes_to_a_back_end_and_comes_back() {
    let hub = hub();
    let balancer = in_front_of(&[&hub], "");
    ready(&balancer);
    let mut socket = Raw::websocket(balancer.url());
    post(&balancer, "hello");
    assert_eq!(socket.read_message().expect("an event").text(), "hello");
}

#[test]
fn readers_wait_for_the_first_back_end() {
    let mut hub = hub();
    hub.kill9();
    let balancer = in_front_of(&[&hub], "--handshake-timeout 500ms");
    let answer = raw::request("GET", balancer.url(), "Accept: text/event-stream\r\nWsevent-Instance: x\r\n", b"");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let mut stream = sse(balancer.url());
    hub.start_again();
    ready(&balancer);
    readers(&balancer, 1);
    post(&hub, "at last");
    assert_eq!(sse_event(&mut stream), "at last");
}

/// Two forwarders of this hub on machines of their own; none where there can be no such machines.
fn far_forwarders(hub: &Running) -> Option<([Machine; 2], [Running; 2])> {
    let machines = [Machine::new()?, Machine::new()?];
    let forwarders = machines.each_ref().map(|machine| {
        let upstream = format!("http://{}:{}/events", machine.our_address(), hub.port());
        machine.wsevent(&format!("--consume {upstream}")).serve()
    });
    // By their own addresses, not as `localhost`.
    let is_ready = |far: &Running| raw::get(&far.url().replace("/events", "/-/readyz")).status == 200;
    forwarders.iter().for_each(|far| eventually("readiness", || is_ready(far).then_some(())));
    Some((machines, forwarders))
}

/// A machine that loses its network says no goodbye: no FIN, no reset, nothing.
#[test]
fn a_reader_does_not_notice_that_a_machine_vanishes() {
    let hub = Wsevent::line("--no-produce --serve-address :0").serve();
    let Some((machines, mut forwarders)) = far_forwarders(&hub) else { return };
    let urls = forwarders.each_ref().map(|far| far.url().to_owned());
    let options = "--health-path /-/readyz --health-interval 200ms --connect-timeout 1s --handshake-timeout 1s";
    let balancer = balancer::in_front_of(&urls, options);
    ready(&balancer);
    let last = Arc::new(AtomicU64::new(0));
    let mut counting = Vec::new();
    for _ in 0..2 {
        let (mut socket, mut stream) = (Raw::websocket(balancer.url()), sse(balancer.url()));
        counting.push(count_to(last.clone(), move || socket.read_message().expect("no disconnect").text()));
        counting.push(count_to(last.clone(), move || sse_event(&mut stream)));
    }
    readers(&balancer, counting.len());
    let enough = Arc::new(AtomicBool::new(false));
    let publisher = publish_numbers(&hub, enough.clone(), last.clone());
    for _ in 0..2 {
        let vanished = read_by(&balancer, &mut forwarders).url().to_owned();
        let machine = &machines[urls.iter().position(|url| *url == vanished).expect("one of them")];
        machine.cut();
        eventually("the other one", || (read_by(&balancer, &mut forwarders).url() != vanished).then_some(()));
        machine.mend();
        let well = || balancer::backend(&balancer, vanished.trim_start_matches("http://"))["healthy"] == true;
        eventually("its return", || well().then_some(()));
    }
    enough.store(true, Ordering::Relaxed);
    let published = publisher.join().expect("a publisher");
    for reader in counting {
        assert_eq!(reader.join().expect("a reader that lost nothing"), published);
    }
    assert_eq!(topic(&balancer)["gaps"], 0);
}

#[test]
fn new_connections_go_elsewhere_when_a_machine_vanishes() {
    let hub = Wsevent::line("--no-produce --serve-address :0").serve();
    let Some((machines, forwarders)) = far_forwarders(&hub) else { return };
    let addresses = forwarders.each_ref().map(|far| {
        let (host, port, _) = raw::split_url(far.url());
        format!("{host}:{port}")
    });
    let balancer = balancer::in_front_of(
        &addresses,
        "--connect-timeout 500ms --breaker-failures 1 --breaker-base 1h --breaker-cap 1h",
    );
    let mut before = [Raw::websocket(balancer.url()), Raw::websocket(balancer.url())];
    let taken = |nth: usize| balancer::backend(&balancer, &addresses[nth])["active"].clone();
    assert_eq!([taken(0), taken(1)], [1, 1]);
    machines[0].cut();
    let mut after: Vec<Raw> = (0..4).map(|_| Raw::websocket(balancer.url())).collect();
    assert_eq!(balancer::backend(&balancer, &addresses[0])["breaker"], "open");
    assert_eq!(taken(1), 5);
    post(&hub, "on the other one");
    for socket in &mut after {
        assert_eq!(socket.read_message().expect("an event").text(), "on the other one");
    }
    // Who is on a line that was cut hears of nothing, until it is mended.
    machines[0].mend();
    for socket in &mut before {
        assert_eq!(socket.read_message().expect("an event").text(), "on the other one");
    }
}
