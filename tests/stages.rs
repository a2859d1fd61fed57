//! What stages and readers' matches cost and tell: errors are counted, and equal matches are judged together.

mod common;
mod link;

use common::{
    Running, Wsevent, eventually,
    raw::{self, Raw},
};
use link::{Link, Sse};
use serde_json::Value;
use std::time::Instant;

fn metric(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse().ok())
}

#[test]
fn a_stage_that_fails_drops_that_event_counts_it_and_says_so_once_a_second() {
    let begun = Instant::now();
    let hub = Wsevent::line("--no-produce --log-format json --filter .ok --map .n").serve();
    let bad: String = (0..500).map(|n| format!("[{n}]\n")).collect();
    let good = "{\"ok\":true,\"n\":1}\n\"no object\"\n{\"ok\":false}\n{\"ok\":true,\"n\":2}\n";
    let answer = raw::request("POST", hub.url(), "Content-Type: application/x-ndjson\r\n", (bad + good).as_bytes());
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(answer["count"], 2);
    assert_eq!(raw::get(hub.url()).text(), "[1,2]", "the stream goes on");
    assert_eq!(hub.topic()["stage_errors"], 501);
    assert_eq!(metric(&hub.own("metrics").text(), "wsevent_stage_errors_total"), Some(501));
    let seconds = begun.elapsed().as_secs();
    hub.said("\"events\":");
    let told: Vec<Value> = hub.stderr().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told: Vec<u64> = told.iter().filter_map(|line| line["fields"]["events"].as_u64()).collect();
    assert!(!told.is_empty() && told.len() as u64 <= seconds + 1, "{told:?} in {seconds} s");
    assert!(told.iter().sum::<u64>() <= 501, "{told:?}");
}

#[test]
fn equal_matches_are_judged_once_per_event_however_many_readers_share_them() {
    let hub = Wsevent::line("--no-produce").serve();
    let [a, b] = ["%7B%22k%22:%22a%22,%22n%22:1%7D", "%7B%22n%22:%201,%20%22k%22:%20%22a%22%7D"];
    let url = |text: &str| format!("{}?match={text}", hub.url());
    let mut sockets: Vec<Raw> = (0..10).map(|n| Raw::websocket(&url([a, b][n % 2]))).collect();
    let mut links: Vec<Link> = (0..10).map(|n| Link::open(&url([a, b][n % 2]))).collect();
    let mut streams: Vec<Sse> = (0..10).map(|n| Sse::open(&url([a, b][n % 2]))).collect();
    hub.has("readers", 30);
    for n in 0..40 {
        let kind = if n % 2 == 0 { "a" } else { "b" };
        let event = format!("{{\"k\":\"{kind}\",\"n\":1,\"at\":{n}}}");
        assert_eq!(raw::post(hub.url(), &event).status, 200);
        if n % 2 == 0 {
            sockets.iter_mut().for_each(|raw| assert_eq!(raw.read_message().expect("an event").text(), event));
            links.iter_mut().for_each(|link| assert_eq!(link.event().1, event));
            streams.iter_mut().for_each(|sse| assert_eq!(sse.event().expect("an event").1, event));
        }
    }
    let topic = hub.topic();
    assert_eq!((topic["matches"].as_u64(), topic["matches_evaluated"].as_u64()), (Some(1), Some(40)));
    drop((sockets, links, streams));
    eventually("no match", || (hub.topic()["matches"] == 0).then_some(()));
}

/// An event for which every program here has one result.
const GOOD: &str = r#"{"n":1}"#;

/// Bodies that no parser on the stack survives, and then one like any other.
fn deep_and_good() -> [String; 3] {
    let nested = |open: &str, inner: &str, close: &str| [&open.repeat(5000), inner, &close.repeat(5000)].concat();
    [nested("[", "", "]"), nested(r#"{"a":"#, "1", "}"), GOOD.into()]
}

fn post_deep_and_good(hub: &Running) {
    for body in deep_and_good() {
        assert_eq!(raw::post(hub.url(), &body).status, 200);
    }
}

const PROGRAMS: [(&str, &str); 4] = [("--map", "."), ("--map", "tojson"), ("--filter", "true"), ("--filter", "..|.n?")];

#[test]
fn a_deep_body_is_dropped_and_counted_by_a_hub_and_the_next_event_comes_through() {
    for (option, program) in PROGRAMS {
        let hub = Wsevent::line("--no-produce").args([option, program]).serve();
        post_deep_and_good(&hub);
        assert_eq!(raw::get(hub.url()).text(), format!("[{GOOD}]"), "{option} {program}");
        assert_eq!(hub.topic()["stage_errors"], 2, "{option} {program}");
        assert_eq!(metric(&hub.own("metrics").text(), "wsevent_panics_total"), Some(0));
    }
}

#[test]
fn a_deep_body_said_upstream_is_dropped_and_counted_by_each_hop_below() {
    let hub = Wsevent::line("--no-produce").serve();
    let hops = PROGRAMS.map(|stage| Wsevent::new(["--consume", &hub.ws_url()]).args([stage.0, stage.1]).serve());
    hub.has("readers", 4);
    post_deep_and_good(&hub);
    for hop in hops {
        eventually("the good event", || (raw::get(hop.url()).text() == format!("[{GOOD}]")).then_some(()));
        assert_eq!(hop.topic()["stage_errors"], 2);
    }
}

#[test]
fn a_deep_body_ends_neither_a_consumer_nor_a_pipe() {
    let hub = Wsevent::line("--no-produce").serve();
    post_deep_and_good(&hub);
    let all = deep_and_good();
    let consumer = Wsevent::new(["--consume", &hub.ws_url(), "--no-serve", "--since", "oldest"]);
    let pipe = Wsevent::line("--produce - --no-serve").input(all.join("\n"));
    for line in [consumer, pipe] {
        for (option, program) in PROGRAMS {
            let done = line.clone().args([option, program, "--count", "1"]).run();
            assert_eq!((done.code, done.stdout), (0, format!("{GOOD}\n")), "{option} {program}: {}", done.stderr);
            assert!(done.stderr.contains("deeper than 1000 levels"), "{}", done.stderr);
        }
        let done = line.args(["--until", ".n == 1"]).run();
        assert_eq!((done.code, done.stdout), (0, all.join("\n") + "\n"), "{}", done.stderr);
        assert!(done.stderr.contains("deeper than 1000 levels"), "{}", done.stderr);
    }
}

#[test]
fn a_panic_of_the_jq_library_drops_that_event_and_is_counted_without_what_it_said() {
    // Groups that match in another order than they are written in.
    let hub = Wsevent::line("--no-produce").args(["--map", r#"[match("(?:(b)|(a))*").string]"#]).serve();
    for body in [r#""ab""#, r#""b""#] {
        assert_eq!(raw::post(hub.url(), body).status, 200);
    }
    assert_eq!(raw::get(hub.url()).text(), r#"[["b"]]"#);
    assert_eq!(hub.topic()["stage_errors"], 1);
    assert_eq!(metric(&hub.own("metrics").text(), "wsevent_panics_total"), Some(1));
    let status: Value = serde_json::from_slice(&hub.own("status").body).expect("JSON");
    assert_eq!(status["panics"], 1);
    hub.said("panic: a fault of this program");
}

#[test]
fn members_beside_a_deep_value_match_and_can_be_told_apart() {
    let hub = Wsevent::line("--no-produce").args(["--match", r#"{"k":"a"}"#, "--dedupe", "/n"]).serve();
    let event = |n: u32| format!(r#"{{"deep":{}{},"n":{n},"k":"a"}}"#, "[".repeat(5000), "]".repeat(5000));
    let events = [event(1), event(1), event(2)];
    for event in &events {
        assert_eq!(raw::post(hub.url(), event).status, 200);
    }
    assert_eq!(raw::get(hub.url()).text(), format!("[{},{}]", events[0], events[2]));
}

#[test]
fn a_program_that_the_library_cannot_run_is_a_usage_error() {
    let nested = ["(1)", "[", "1|"].map(|text| match text {
        "[" => "[".repeat(2000) + &"]".repeat(2000),
        text => text.repeat(2000) + "1",
    });
    let long = format!("1{}", " ".repeat(40_000));
    let table = [
        (r#"import "a" as a; a::f"#, "no modules"),
        (r#"import "a" as $a; $a"#, "no modules"),
        (r#"include "a"; f"#, "no modules"),
        ("module {}; .", "no modules"),
        ("halt", "`halt`"),
        ("halt(1)", "`halt`"),
        ("halt_error", "`halt_error`"),
        ("input", "`input`"),
        ("inputs", "`inputs`"),
        ("$__loc__", "`$__loc__`"),
        ("$ENV.PATH", "`$ENV`"),
        ("input_filename", "`input_filename`"),
        ("break $out", "`$out`"),
        ("reduce . as $x (0)", "`reduce`"),
        (&nested[0], "expected"),
        (&nested[1], "deeper than 1000 levels"),
        (&nested[2], "deeper than 1000 levels"),
        (&long, "32768 bytes"),
    ];
    for (program, hint) in table {
        for option in ["--map", "--filter", "--until"] {
            let done = Wsevent::line("--produce - --no-serve").args([option, program]).input("1\n").run();
            assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{option} {program:.60}: {}", done.stderr);
            assert!(done.stderr.contains(hint), "{option} {program:.60} should say {hint}: {:.200}", done.stderr);
        }
    }
}

#[test]
fn a_program_that_calls_itself_for_ever_drops_the_event_and_ends_nothing() {
    let pipe = Wsevent::line("--produce - --no-serve").input("1\n{\"n\":1}\n");
    for program in ["def f: f + 1; f", "def f: [f]; f", "reduce range(1e6) as $i (.; [.]) | .n"] {
        let done = pipe.clone().args(["--map", &format!("if . == 1 then {program} else . end")]).run();
        assert_eq!((done.code, done.stdout), (0, format!("{GOOD}\n")), "{program}: {}", done.stderr);
        assert!(done.stderr.contains("deep"), "{program}: {}", done.stderr);
    }
}
