//! What stages and readers' matches cost and tell: errors are counted, and equal matches are judged together.

mod common;
mod link;

use common::{
    Wsevent, eventually,
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
