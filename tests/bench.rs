//! `wsevent bench` measures what is there, and finds what is missing.

mod certs;
mod common;

use certs::{Authority, Kind};
use common::{
    Done, Running, Scratch, Wsevent, binary, eventually, find_program,
    raw::{self, Frame, Server},
};
use serde_json::{Value, json};
use std::{net::TcpStream, thread};

fn hub() -> Running {
    Wsevent::line("--no-produce").serve()
}

/// What a bench run says as JSON, and its exit code.
fn measured(line: &str) -> (Value, Done) {
    let done = Wsevent::line(&format!("bench --output json {line}")).run();
    let report = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    (report, done)
}

fn stamped(source: u32, number: u64) -> Vec<u8> {
    Frame::from_server(raw::TEXT, format!("#{source:08x}.{number:012x}.{:014x} ", 1)).to_bytes()
}

/// A server of one reader, to whom it says these numbers and then closes.
fn says(numbers: &'static [u64], code: u16) -> String {
    let server = Server::new();
    let url = format!("ws://{}/events", server.address());
    thread::spawn(move || {
        let (mut reader, _) = server.accept_websocket("");
        numbers.iter().for_each(|&number| reader.send(stamped(7, number)));
        reader.send(Frame { masked: false, ..Frame::close(code, "") }.to_bytes());
        let _ = reader.read_close();
    });
    url
}

#[test]
fn every_wire_brings_every_event_to_every_reader() {
    let hub = hub();
    let (ws, http) = (hub.ws_url(), hub.url().to_owned());
    for (read, publish) in [(&ws, &ws), (&http, &http), (&format!("ndjson+{http}"), &ws)] {
        let line = format!("{read} --readers 20 --publish {publish} --rate 200 --count 100 --size 300 --verify");
        let (report, done) = measured(&line);
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{report}");
        assert_eq!(report["readers"]["connected"], 20);
        assert_eq!(
            (&report["events"], &report["stamped"], &report["published"]),
            (&json!(2000), &json!(2000), &json!(100))
        );
        assert_eq!(report["faults"], json!({ "lost": 0, "repeated": 0, "out_of_order": 0 }));
        assert!(report["bytes"].as_u64() > Some(2000 * 300), "{report}");
        for times in [&report["latency_us"], &report["handshake_us"]] {
            let of = |name: &str| times[name].as_u64().expect("a time");
            assert!(0 < of("p50") && of("p50") <= of("p99") && of("p99") <= of("max"), "{report}");
        }
        assert_eq!(report["cost"], Value::Null);
    }
}

/// Measured beside ours, so they must be measured right.
#[test]
fn brokers_are_read_and_published_to() {
    for (program, scheme, settings) in [
        ("mosquitto", "mqtt", "listener PORT 127.0.0.1\nallow_anonymous true\nlog_type none\n"),
        ("nats-server", "nats", "listen: 127.0.0.1:PORT\n"),
    ] {
        let found = find_program(program).unwrap_or_else(|| panic!("{program} is missing: scripts/test installs it"));
        let (scratch, port) = (Scratch::new(), raw::split_url(&format!("http://{}", Server::new().address())).1);
        let settings = scratch.file("settings", settings.replace("PORT", &port.to_string()));
        let _broker = Wsevent::program(found).args(["-c", &settings]).start();
        eventually(program, || TcpStream::connect(("127.0.0.1", port)).ok());
        let url = format!("{scheme}://127.0.0.1:{port}/events");
        let line = format!("{url} --readers 20 --publish {url} --rate 200 --count 100 --size 300 --verify");
        let (report, done) = measured(&line);
        assert_eq!((done.code, &report["events"], &report["published"]), (0, &json!(2000), &json!(100)), "{done:?}");
        assert_eq!(report["faults"], json!({ "lost": 0, "repeated": 0, "out_of_order": 0 }), "{program}");
    }
}

#[test]
fn a_loss_made_on_purpose_is_found() {
    // Every second event is taken out on the way; the source runs until the server goes.
    let source = format!("exec:{} bench --emit --rate 200", binary().display());
    let server = Wsevent::new(["--produce", &source, "--sample", "2", "--slow-reader", "disconnect"]).serve();
    let (report, done) = measured(&format!("{} --readers 3 --for 1s --verify", server.ws_url()));
    assert_eq!(done.code, 1, "{report}");
    assert!(done.stderr.contains("3 readers at fault"), "{done:?}");
    assert!(report["faults"]["lost"].as_u64() > Some(0) && report["faulty_readers"] == 3, "{report}");
    let (_, unasked) = measured(&format!("{} --for 100ms", server.ws_url()));
    assert_eq!(unasked.code, 0, "{unasked:?}");
}

#[test]
fn each_fault_is_counted_as_what_it_is() {
    let table: [(&[u64], u16, i32, Value); 5] = [
        (&[3, 4, 5], 1000, 0, json!({ "lost": 0, "repeated": 0, "out_of_order": 0 })),
        (&[3, 5, 6], 1000, 1, json!({ "lost": 1, "repeated": 0, "out_of_order": 0 })),
        (&[3, 4, 4, 5], 1000, 1, json!({ "lost": 0, "repeated": 1, "out_of_order": 0 })),
        (&[3, 5, 4], 1000, 1, json!({ "lost": 0, "repeated": 0, "out_of_order": 1 })),
        (&[3, 4], 1013, 1, json!({ "lost": 0, "repeated": 0, "out_of_order": 0 })),
    ];
    for (numbers, close, code, faults) in table {
        let (report, done) = measured(&format!("{} --verify", says(numbers, close)));
        assert_eq!((done.code, &report["faults"]), (code, &faults), "{numbers:?} {close}: {done:?}");
        assert_eq!(report["events"], numbers.len());
    }
}

#[test]
fn nothing_to_verify_is_no_success() {
    let dummies = Wsevent::line("").serve();
    let (report, done) = measured(&format!("{} --for 300ms --verify", dummies.ws_url()));
    assert!(done.code == 1 && done.stderr.contains("no event carried a stamp"), "{done:?}");
    assert_eq!((&report["stamped"], &report["latency_us"]), (&json!(0), &Value::Null));
}

#[test]
fn a_closed_loop_waits_for_every_reader() {
    let hub = hub();
    let (url, pid) = (hub.ws_url(), hub.pid());
    let line = format!("{url} --readers 5 --publish {url} --window 4 --count 300 --verify --pid {pid}");
    let (report, done) = measured(&line);
    assert_eq!((done.code, &report["events"]), (0, &json!(1500)), "{done:?}");
    for cost in ["cpu_us_per_event", "cpu_us_per_connection"] {
        assert!(report["cost"][cost].as_f64().is_some_and(|us| us > 0.0), "{report}");
    }
}

#[test]
fn stalled_readers_are_not_waited_for() {
    let hub = hub();
    let url = hub.ws_url();
    let line = format!("{url} --readers 4 --stalled 2 --publish {url} --window 2 --count 50 --verify");
    let (report, done) = measured(&line);
    assert_eq!((done.code, &report["events"], &report["readers"]["stalled"]), (0, &json!(100), &json!(2)), "{done:?}");
}

#[test]
fn tls_is_just_another_url() {
    let authority = Authority::new();
    let own = authority.issue(Kind::Good);
    let hub = Wsevent::new(["--no-produce", "--tls-cert", &own.cert, "--tls-key", &own.key]).serve();
    for url in [hub.ws_url(), hub.url().to_owned()] {
        let line = format!("{url} --readers 5 --publish {url} --count 40 --rate 400 --verify");
        let (report, done) = measured(&format!("{line} --ca {}", authority.ca()));
        assert_eq!((done.code, &report["events"]), (0, &json!(200)), "{done:?}");
        let untrusted = Wsevent::line(&format!("bench {url} --for 1s")).run();
        assert!(untrusted.code == 69 && untrusted.stdout.contains("--ca"), "{untrusted:?}");
    }
}

#[test]
fn the_source_prints_numbered_lines_of_one_length() {
    let done = Wsevent::line("bench --emit --count 300 --size 60").run();
    assert_eq!((done.code, done.stdout.lines().count()), (0, 300));
    let number = |line: &str| u64::from_str_radix(&line[10..22], 16).expect("a number");
    for (i, line) in done.stdout.lines().enumerate() {
        assert_eq!((line.len(), number(line)), (60, i as u64));
    }
}

#[test]
fn bench_ends_as_a_shell_expects() {
    let refusing = Server::new().answer_all("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let page = Server::new().answer_all("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n");
    let table = [
        ("ws://localhost:1/events".to_owned(), 69, "refused"),
        (format!("ws://{refusing}/events"), 69, "403"),
        (format!("http://{page}/events"), 69, "text/html"),
        ("--emit --size 3".into(), 2, "38"),
        ("".into(), 2, "name a URL"),
        ("--publish ws://localhost:1/x".into(), 1, "refused"),
    ];
    for (line, code, hint) in table {
        let done = Wsevent::line(&format!("bench {line}")).run();
        assert_eq!(done.code, code, "{line}: {done:?}");
        assert!([done.stdout, done.stderr].concat().contains(hint), "{line}");
    }
    let hub = hub();
    let mut asked = Wsevent::line(&format!("bench {} --readers 3 --for 1h", hub.ws_url())).start();
    hub.has("readers", 3);
    asked.signal("INT");
    assert_eq!(asked.wait(), 130);
    assert!(asked.stdout().contains("3 of 3 connected"), "{}", asked.stdout());
}
