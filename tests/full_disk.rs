//! A disk that is full, or fails: what is not written is not published, whoever said it, and nothing that was
//! acknowledged or seen is lost.

mod common;
mod disk;
mod link;
mod mqtt_client;
mod services;

use common::{
    Running, Scratch, Wsevent, eventually,
    raw::{self, Frame, Raw, TEXT},
};
use disk::{FailingDisk, SmallDisk};
use link::{Follower, Heard, How, Id};
use mqtt_client::{Client, PUBACK, text};
use serde_json::{Value, json};
use services::{at, get, history, post, register, registry, told};
use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, thread, time::Duration};

// --- words -----------------------------------------------------------------------------------------------------------

/// More than fits on a disk that is full, also where its last page has some room.
fn big() -> String {
    "x".repeat(8192)
}

fn hub(scratch: &Scratch, options: &str) -> Wsevent {
    Wsevent::line("--no-produce").args(["--journal", &scratch.arg("journal")]).args(options.split_whitespace())
}

/// Serves, and is ready.
fn served(line: Wsevent) -> Running {
    let running = line.serve();
    becomes(&running, true);
    running
}

/// Publishes; the id if it was acknowledged, else the reason of a 503.
fn try_say(hub: &Running, text: &str) -> Result<Id, String> {
    let answer = raw::post(hub.url(), text);
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    match answer.status {
        200 => Ok(Id::read(body["id"].as_str().expect("an id"))),
        503 => Err(body["error"].as_str().expect("a reason").to_owned()),
        other => panic!("{other}: {body}"),
    }
}

fn say(hub: &Running, text: &str) -> Id {
    try_say(hub, text).expect("acknowledged")
}

/// Says it until it is acknowledged.
fn say_again(hub: &Running, text: &str) -> Id {
    eventually("an acknowledgement", || try_say(hub, text).ok())
}

/// All that a reader from the beginning gets, up to an event with this text.
fn all(running: &Running, last: &str) -> Vec<Heard> {
    let follower = Follower::start(How::Link, running.url(), "oldest");
    let is_last = |heard: &Heard| matches!(heard, Heard::Event(_, text) if text == last);
    eventually(last, || follower.heard().iter().any(is_last).then_some(()));
    follower.leave()
}

fn texts(heard: &[Heard]) -> Vec<&str> {
    heard.iter().map(|heard| if let Heard::Event(_, text) = heard { text } else { "gap" }).collect()
}

fn is_ready(running: &Running) -> bool {
    running.own("readyz").status == 200
}

/// Waits until it is known that nothing can be written, or that something can.
fn becomes(running: &Running, ready: bool) {
    eventually("readiness", || {
        let works = running.topic()["journal"]["ok"] != false;
        (is_ready(running) == ready && works == ready).then_some(())
    });
}

/// The topic's newest segment.
fn segment(scratch: &Scratch) -> PathBuf {
    let files = fs::read_dir(scratch.path("journal/topic-events")).expect("a journal");
    let files = files.map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "segment")).max().expect("a segment")
}

/// The inodes of the topic's files.
fn inodes(scratch: &Scratch) -> Vec<u64> {
    let files = fs::read_dir(scratch.path("journal/topic-events")).expect("a journal");
    files.map(|entry| entry.expect("an entry").metadata().expect("a file").ino()).collect()
}

/// The newest segment's inode, which no other file gets as long as this test runs.
fn inode(scratch: &Scratch) -> u64 {
    let name = format!("inode-{}", scratch.path("").read_dir().expect("a directory").count());
    fs::hard_link(segment(scratch), scratch.path(&name)).expect("a link");
    fs::metadata(scratch.path(&name)).expect("a file").ino()
}

fn has_promise(scratch: &Scratch) -> bool {
    scratch.path("journal/topic-events/state").exists()
}

// --- POST ------------------------------------------------------------------------------------------------------------

#[test]
fn what_is_acknowledged_while_the_disk_fills_up_survives_a_kill_and_nobody_saw_more() {
    for sync in ["always", "interval:1s", "never"] {
        let Some(disk) = SmallDisk::new("1m") else { return };
        let mut hub = served(hub(&disk.0, &format!("--journal-sync {sync}")));
        let followers = [How::Link, How::Sse].map(|how| Follower::start(how, hub.url(), "oldest"));
        let (mut acknowledged, mut refused) = (Vec::new(), 0);
        for n in 0..400 {
            let text = format!("{n} {}", "x".repeat(4096));
            match try_say(&hub, &text) {
                Ok(id) => acknowledged.push((id, text)),
                Err(why) => {
                    assert!(why.contains("the journal cannot be written: No space left on device"), "{why}");
                    refused += 1;
                }
            }
        }
        assert!(acknowledged.len() > 100 && refused > 100, "{sync}: {} and {refused}", acknowledged.len());
        assert!(!is_ready(&hub), "{sync}");
        assert_eq!(hub.stderr().matches("the journal cannot be written").count(), 1, "{sync}: {}", hub.stderr());
        eventually("what is there", || {
            followers.iter().all(|follower| follower.count() >= acknowledged.len()).then_some(())
        });
        hub.restart();
        let (_, last) = acknowledged.last().expect("more than a hundred");
        let expected: Vec<Heard> =
            acknowledged.iter().map(|(id, text)| Heard::Event(id.clone(), text.clone())).collect();
        assert_eq!(all(&hub, last), expected, "{sync}: each of them, and nothing else");
        for follower in followers {
            assert!(follower.leave() == expected, "{sync}: a reader saw something else");
        }
    }
}

#[test]
fn publishing_goes_on_without_a_restart_and_each_failure_is_told_once() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let mut hub = served(hub(&disk.0, "--journal-sync always"));
    let first = say(&hub, "1");
    for outage in 1..3 {
        disk.fill();
        (0..50).for_each(|_| assert!(try_say(&hub, &big()).is_err()));
        assert!(!is_ready(&hub));
        disk.clear();
        becomes(&hub, true);
        assert_eq!(say(&hub, &outage.to_string()), first.at(1 + outage));
        let lines = |words: &str| hub.stderr().matches(words).count() as u64;
        eventually("the line", || (lines("the journal can be written again") == outage).then_some(()));
        assert_eq!(lines("the journal cannot be written"), outage, "{}", hub.stderr());
    }
    hub.restart();
    say(&hub, "last");
    assert_eq!(texts(&all(&hub, "last")), ["1", "1", "2", "last"]);
}

#[test]
fn a_key_that_was_refused_is_published_once_when_it_is_said_again() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let mut hub = served(hub(&disk.0, "--journal-sync always"));
    say(&hub, "1");
    let paid = big();
    let post = |hub: &Running| raw::request("POST", hub.url(), "Idempotency-Key: order-17\r\n", paid.as_bytes());
    disk.fill();
    assert_eq!((post(&hub).status, post(&hub).status), (503, 503), "it is not remembered as done");
    disk.clear();
    becomes(&hub, true);
    let answer = post(&hub);
    assert_eq!(answer.status, 200);
    assert_eq!(post(&hub).text(), answer.text());
    hub.restart();
    assert_eq!(post(&hub).text(), answer.text());
    say(&hub, "last");
    assert_eq!(texts(&all(&hub, "last")), ["1", &paid, "last"]);
}

#[test]
fn a_body_that_does_not_fit_is_refused_as_a_whole_and_others_go_on() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let mut hub = served(hub(&disk.0, "--journal-sync always"));
    let first = say(&hub, "1");
    let lines = (0..40).map(|n| format!("{n}{}\n", "x".repeat(10_000))).collect::<String>();
    let many = |hub: &Running| {
        let headers = "Content-Type: application/x-ndjson\r\nIdempotency-Key: many\r\n";
        raw::request("POST", hub.url(), headers, lines.as_bytes())
    };
    disk.fill_but(250_000);
    assert_eq!(many(&hub).status, 503);
    assert_eq!(say(&hub, "2"), first.at(2), "there is room for this");
    assert!(is_ready(&hub));
    disk.clear();
    let answer = many(&hub);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let ids = [told["first"].as_str(), told["id"].as_str()].map(|id| Id::read(id.expect("an id")));
    assert_eq!((ids, &told["count"]), ([first.at(3), first.at(42)], &json!(40)));
    hub.restart();
    assert_eq!(many(&hub).text(), answer.text(), "answered as before, also where it is several records");
    say(&hub, "last");
    assert_eq!(all(&hub, "last").len(), 2 + 40 + 1);
}

// --- WebSocket and MQTT ------------------------------------------------------------------------------------------------

#[test]
fn a_websocket_that_publishes_on_a_full_disk_is_told_to_come_again() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let mut hub = served(hub(&disk.0, "--journal-sync always"));
    let first = say(&hub, "1");
    disk.fill();
    let mut publisher = Raw::websocket(&hub.ws_url());
    publisher.send_frame(&Frame::new(TEXT, big()));
    let close = publisher.read_close().expect("a close");
    assert_eq!(close.close_code(), 1013);
    assert_eq!(String::from_utf8_lossy(&close.payload[2..]), "retry 1000 the journal cannot be written");
    disk.clear();
    becomes(&hub, true);
    let mut publisher = Raw::websocket(&hub.ws_url());
    publisher.send_frame(&Frame::new(TEXT, "2"));
    hub.has("events", 2);
    hub.restart();
    assert_eq!(say(&hub, "last"), first.at(3));
    assert_eq!(texts(&all(&hub, "last")), ["1", "2", "last"]);
}

#[test]
fn an_mqtt_message_that_is_not_written_is_not_acknowledged() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let mut hub = served(hub(&disk.0, "--journal-sync always --mqtt-listen 127.0.0.1:0"));
    let first = say(&hub, "1");
    let port = hub.port_of("mqtt");
    disk.fill();
    let (mut old, _) = Client::connect(port, "old", true);
    old.send(0x32, &[&text("events")[..], b"\0\x07", big().as_bytes()].concat());
    assert_eq!(old.next(), None, "3.1.1 has no word for it: closed without an acknowledgement");
    let (mut new, _) = Client::connect5(port, "new", true, b"");
    let said = [&text("events")[..], b"\0\x07\0", big().as_bytes()].concat();
    new.send(0x32, &said);
    let answer = new.next().expect("an answer");
    assert_eq!((answer.first, &answer.body[..]), (PUBACK, &b"\0\x07\x97"[..]), "quota exceeded");
    disk.clear();
    becomes(&hub, true);
    new.send(0x32, &said);
    let answer = new.next().expect("an answer");
    assert_eq!((answer.first, &answer.body[..]), (PUBACK, &b"\0\x07"[..]));
    hub.restart();
    assert_eq!(say(&hub, "last"), first.at(3));
    assert_eq!(texts(&all(&hub, "last")), ["1", &big(), "last"]);
}

// --- sources -----------------------------------------------------------------------------------------------------------

#[test]
fn standard_input_waits_for_room_and_loses_no_line() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let journal = disk.0.arg("journal");
    let line = Wsevent::line("--produce - --journal-sync always --slow-reader disconnect --dedupe /n");
    let mut producer = served(line.args(["--journal", &journal]).piped());
    let numbered = |n: u64| json!({"n": n, "x": "x".repeat(4096)}).to_string();
    producer.write(numbered(0) + "\n");
    producer.has("events", 1);
    disk.fill();
    let mut stdin = producer.take_stdin();
    let writer = thread::spawn(move || {
        use std::io::Write;
        (1..60).for_each(|n| writeln!(stdin, "{}", numbered(n)).expect("it is read in the end"));
        stdin
    });
    becomes(&producer, false);
    let follower = Follower::start(How::Sse, producer.url(), "oldest");
    eventually("the first", || (follower.count() == 1).then_some(()));
    disk.clear();
    let stdin = writer.join().expect("no panic");
    eventually("all lines", || (follower.count() == 60).then_some(()));
    let heard = follower.leave();
    producer.restart();
    assert_eq!(all(&producer, &numbered(59)), heard);
    let expected: Vec<String> = (0..60).map(numbered).collect();
    assert_eq!(texts(&heard), expected, "each once and in order, though a stage had seen them before");
    drop(stdin);
}

#[test]
fn a_command_waits_for_room() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let journal = disk.0.arg("journal");
    fs::write(disk.0.path("journal/ballast"), vec![0; 900_000]).expect("ballast");
    let numbers = "exec:seq -f %08.0f 1 40000";
    let line = Wsevent::new(["--produce", numbers, "--keep-open", "--journal", &journal]);
    let producer = line.args(["--journal-sync", "never", "--history", "100000"]).serve();
    becomes(&producer, false);
    let held = producer.topic()["events"].as_u64().expect("a number");
    assert!(held < 40_000, "{held}");
    disk.clear();
    producer.has("events", 40_000);
    assert_eq!(producer.topic()["gaps"], 0);
}

/// An origin, and a hop with a journal on the disk.
fn chain(disk: &SmallDisk, options: &str) -> (Running, Running) {
    let origin = Wsevent::line("--no-produce").serve();
    let line = ["--consume", &origin.ws_url(), "--journal", &disk.0.arg("journal"), "--retry-max", "100ms"];
    let hop = Wsevent::new(line).args(options.split_whitespace()).serve();
    becomes(&hop, true);
    (origin, hop)
}

#[test]
fn a_hop_whose_disk_is_full_stops_reading_and_goes_on_where_it_stood() {
    // With the origin's numbers, and with numbers of its own behind a stage that remembers.
    for options in ["--journal-sync always", "--journal-sync always --throttle 100000/s --slow-reader disconnect"] {
        let Some(disk) = SmallDisk::new("1m") else { return };
        let (origin, mut hop) = chain(&disk, options);
        say(&origin, "first");
        hop.has("events", 1);
        let follower = Follower::start(How::Link, hop.url(), "oldest");
        disk.fill();
        let said: Vec<String> = (0..20).map(|n| format!("{n} {}", big())).collect();
        for text in &said {
            say(&origin, text);
            thread::sleep(Duration::from_millis(3));
        }
        becomes(&hop, false);
        let seen = follower.count();
        assert!(seen < 10, "{options}: {seen} events cannot have been written");
        hop.restart();
        disk.clear();
        becomes(&hop, true);
        eventually("all events", || (follower.count() == 21).then_some(()));
        let heard = follower.leave();
        assert_eq!(texts(&heard)[0], "first");
        assert_eq!(texts(&heard)[1..], said, "{options}: each once and in order");
        hop.restart();
        assert_eq!(all(&hop, said.last().expect("twenty")), heard, "{options}");
    }
}

#[test]
fn a_hop_over_another_servers_streams_waits_and_loses_nothing() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let (plain, sse) = (link::Upstream::new(), link::Upstream::new());
    let line = ["--consume", &plain.ws_url(), "--consume", &sse.sse_url(), "--journal", &disk.0.arg("journal")];
    let mut hop = Wsevent::new(line).serve();
    let (mut plain, mut sse) = (plain.plain(), sse.sse(""));
    plain.text("first");
    sse.raw.send("id: red\ndata: second\n\n");
    hop.has("events", 2);
    disk.fill();
    (0..10).for_each(|n| plain.text(format!("plain {n} {}", big())));
    (0..10).for_each(|n| sse.raw.send(format!("id: green{n}\ndata: sse {n} {}\n\n", big())));
    becomes(&hop, false);
    disk.clear();
    becomes(&hop, true);
    plain.text("plain last");
    sse.raw.send("id: blue\ndata: sse last\n\n");
    hop.has("events", 24);
    assert_eq!(hop.topic()["gaps"], 0);
    hop.kill9();
    hop.start_again();
    hop.has("held_events", 24);
    for word in ["plain", "sse"] {
        let follower = Follower::start(How::Link, hop.url(), "oldest");
        eventually("all events", || (follower.count() >= 24).then_some(()));
        let heard = follower.leave();
        let own: Vec<&str> = texts(&heard).into_iter().filter_map(|text| text.strip_prefix(word)).collect();
        let numbers: Vec<&str> = own.iter().filter_map(|text| text.split(' ').nth(1)).collect();
        assert_eq!(numbers, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "last"], "{word}");
    }
}

// --- the registry ------------------------------------------------------------------------------------------------------

#[test]
fn a_registry_on_a_full_disk_refuses_changes_and_stays_as_it_is() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let options = format!("--journal-sync always --heartbeat-timeout 1s --journal {}", disk.0.arg("journal"));
    let mut registry = registry(&options);
    becomes(&registry, true);
    register(&registry, "web", 1);
    let set = |registry: &Running, value: &Value| {
        post(registry, "/config/set", &json!({"serviceName": "web", "key": "k", "value": value}))
    };
    assert_eq!(set(&registry, &json!(1)).0, 200);
    let instance = |port: u16, note: &str| json!({"serviceName": "web", "host": "localhost", "port": port, "ttl": 500, "metadata": {"note": note}});
    let events = history(&registry);
    let config = get(&registry, "/config/all?serviceName=web");
    disk.fill();
    assert_eq!(set(&registry, &json!(big())).0, 503);
    let refused = post(&registry, "/register", &instance(2, "new"));
    assert_eq!(refused.0, 503);
    assert!(refused.1["error"].as_str().is_some_and(|why| why.contains("not changed: the journal")), "{}", refused.1);
    assert_eq!(post(&registry, "/register", &instance(1, "changed")).0, 503);
    assert_eq!(post(&registry, "/maintenance", &json!({"nodeId": "web:localhost:1", "maintenance": true})).0, 503);
    assert_eq!(post(&registry, "/deregister", &json!({"nodeId": "web:localhost:1"})).0, 503);
    assert_eq!(post(&registry, "/heartbeat", &json!({"nodeId": "web:localhost:1"})).0, 503);
    thread::sleep(Duration::from_millis(2500));
    let shown = get(&registry, "/services/web").1["instances"].clone();
    let shown: Vec<_> =
        shown.as_array().expect("instances").iter().map(|node| (&node["address"], &node["metadata"])).collect();
    assert_eq!(json!(shown), json!([["localhost:1", {}]]), "nobody came, went, changed or expired");
    assert_eq!(get(&registry, "/services/web").1["instances"][0]["maintenance"], false);
    assert_eq!(get(&registry, "/config/all?serviceName=web"), config);
    assert_eq!(history(&registry), events, "and nobody heard of anything");

    disk.clear();
    becomes(&registry, true);
    let mut expected = events.clone();
    expected.push(told("service_unhealthy", "web", 1));
    eventually("the expiry", || (history(&registry) == expected).then_some(()));
    let kept = json!({"serviceName": "web", "host": "localhost", "port": 2});
    assert_eq!(post(&registry, "/register", &kept).0, 200);
    assert_eq!(set(&registry, &json!(2)).1["version"], 2, "the refused one was none");
    registry.restart();
    assert_eq!(get(&registry, "/services/web").1["instances"][0]["address"], "localhost:2");
    assert_eq!(get(&registry, "/config/all?serviceName=web").1["k"]["value"], 2);
    assert_eq!(raw::get(&at(&registry, "/health")).status, 200);
}

// --- a disk that fails -------------------------------------------------------------------------------------------------

#[test]
fn what_cannot_be_synced_is_not_acknowledged_and_its_file_is_never_synced_again() {
    let Some(disk) = FailingDisk::new() else { return };
    let mut hub = served(disk.under(hub(&disk.0, "--journal-sync always")));
    let first = say(&hub, "1");
    let follower = Follower::start(How::Link, hub.url(), "oldest");
    let before = inode(&disk.0);
    disk.fail("sync-once");
    let why = try_say(&hub, "2").expect_err("it is not synced");
    assert!(why.contains("Input/output error"), "{why}");
    assert!(disk.has_failed("sync-once"));
    assert!(!is_ready(&hub));
    becomes(&hub, true);
    assert_eq!(say(&hub, "3"), first.at(2), "nobody saw what was refused");
    assert!(!inodes(&disk.0).contains(&before), "what a failed sync left in doubt is written anew");
    hub.restart();
    assert_eq!(say(&hub, "4"), first.at(3));
    eventually("all", || (follower.count() == 3).then_some(()));
    assert_eq!(texts(&follower.leave()), ["1", "3", "4"]);
    assert_eq!(texts(&all(&hub, "4")), ["1", "3", "4"]);
}

#[test]
fn what_was_seen_before_a_sync_failed_is_in_doubt_until_it_is_written_anew() {
    let Some(disk) = FailingDisk::new() else { return };
    let mut hub = served(disk.under(hub(&disk.0, "--journal-sync interval:100ms")));
    let first = say(&hub, "1");
    let before = inode(&disk.0);
    eventually("a promise", || has_promise(&disk.0).then_some(()));
    disk.fail("sync-once");
    say_again(&hub, "2");
    eventually("a failure", || disk.has_failed("sync-once").then_some(()));
    hub.said("the journal cannot be synced");
    hub.said("the journal can be written again");
    becomes(&hub, true);
    assert!(!inodes(&disk.0).contains(&before), "it is written anew");
    assert!(has_promise(&disk.0));
    hub.restart();
    assert_eq!(say(&hub, "3"), first.at(3), "nothing is in doubt any more");
    assert_eq!(texts(&all(&hub, "3")), ["1", "2", "3"]);
}

#[test]
fn a_kill_while_a_sync_has_failed_begins_a_new_epoch_behind_a_gap() {
    let Some(disk) = FailingDisk::new() else { return };
    let mut hub = served(disk.under(hub(&disk.0, "--journal-sync interval:100ms")));
    let first = say(&hub, "1");
    let follower = Follower::start(How::Link, hub.url(), "oldest");
    eventually("the first", || (follower.count() == 1).then_some(()));
    disk.fail("sync");
    say_again(&hub, "2");
    becomes(&hub, false);
    assert!(try_say(&hub, "3").is_err());
    assert!(!has_promise(&disk.0), "the next start must not go on with these numbers");
    hub.kill9();
    disk.mend("sync");
    hub.start_again();
    let next = say(&hub, "4");
    assert_ne!(next.epoch, first.epoch);
    eventually("all", || (follower.count() == 4).then_some(()));
    assert_eq!(texts(&follower.leave()), ["1", "2", "gap", "4"]);
}

#[test]
fn a_write_that_fails_is_not_acknowledged_and_the_next_segment_goes_on() {
    for sync in ["always", "never"] {
        let Some(disk) = FailingDisk::new() else { return };
        let mut hub = served(disk.under(hub(&disk.0, &format!("--journal-sync {sync}"))));
        let first = say(&hub, "1");
        let before = segment(&disk.0);
        disk.fail("write");
        let why = try_say(&hub, "2").expect_err("it is not written");
        assert!(why.contains("Input/output error"), "{why}");
        disk.mend("write");
        becomes(&hub, true);
        assert_eq!(say(&hub, "3"), first.at(2));
        assert_ne!(segment(&disk.0), before, "{sync}");
        hub.restart();
        assert_eq!(say(&hub, "4"), first.at(3));
        assert_eq!(texts(&all(&hub, "4")), ["1", "3", "4"], "{sync}");
    }
}
