//! `--journal`: what a topic knew before its process died, it knows afterwards. (What its files hold is the matter of
//! `journal_files.rs`.)
//!
//! `WSEVENT_SEED` repeats a run, `WSEVENT_KILLS` says how many times a process is killed.

mod common;
mod disk;
mod link;

use common::{
    Running, Scratch, Wsevent, eventually,
    raw::{self, Raw},
};
use disk::SmallDisk;
use link::{Follower, Heard, How, Id};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::HashMap,
    fs,
    io::Write,
    net::TcpStream,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

// --- words -----------------------------------------------------------------------------------------------------------

fn hub(scratch: &Scratch, options: &str) -> Wsevent {
    Wsevent::line("--no-produce").args(["--journal", &scratch.arg("journal")]).args(options.split_whitespace())
}

fn say(hub: &Running, text: &str) -> Id {
    let answer = raw::post(hub.url(), text);
    assert_eq!(answer.status, 200, "{}", answer.text());
    id_of(&answer)
}

fn id_of(answer: &raw::Answer) -> Id {
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    Id::read(answer["id"].as_str().expect("an id"))
}

/// All that a reader from the beginning gets, up to an event with this text.
fn all(running: &Running, last: &str) -> Vec<Heard> {
    let follower = Follower::start(How::Link, running.url(), "oldest");
    let is_last = |heard: &Heard| matches!(heard, Heard::Event(_, text) if text == last);
    eventually(last, || follower.heard().iter().any(is_last).then_some(()));
    follower.leave()
}

/// What was heard, in words.
fn texts(heard: &[Heard]) -> Vec<&str> {
    heard.iter().map(|heard| if let Heard::Event(_, text) = heard { text } else { "gap" }).collect()
}

/// The topic's newest segment.
fn segment(scratch: &Scratch) -> PathBuf {
    let dir = scratch.path("journal/topic-events");
    let files = fs::read_dir(dir).expect("a journal").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "segment")).max().expect("a segment")
}

fn damaged(scratch: &Scratch) -> usize {
    let files = fs::read_dir(scratch.path("journal/topic-events")).expect("a journal");
    files
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".damaged")))
        .count()
}

fn seed() -> u64 {
    let seed = std::env::var("WSEVENT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("WSEVENT_SEED={seed}");
    seed
}

fn kills(default: u32) -> u32 {
    std::env::var("WSEVENT_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(default)
}

/// Every event once, under rising ids of one epoch.
fn assert_once(who: &str, heard: &[Heard]) -> Vec<(Id, String)> {
    let event = |heard: &Heard| match heard {
        Heard::Event(id, text) => (id.clone(), text.clone()),
        Heard::Gap(..) => panic!("{who}: {heard:?}"),
    };
    let events: Vec<_> = heard.iter().map(event).collect();
    for pair in events.windows(2) {
        assert_eq!(pair[1].0, pair[0].0.next(), "{who}: ids go on without a hole");
    }
    events
}

// --- restarts --------------------------------------------------------------------------------------------------------

#[test]
fn a_restart_keeps_ids_and_window() {
    let scratch = Scratch::new();
    let mut hub = hub(&scratch, "").serve();
    let first = say(&hub, "1");
    say(&hub, "2");
    let follower = Follower::start(How::Sse, hub.url(), "oldest");
    eventually("both", || (follower.count() == 2).then_some(()));

    hub.restart();
    assert_eq!(say(&hub, "3"), first.at(3), "numbers go on after a kill");
    hub.signal("TERM");
    assert_eq!(hub.wait(), 143);
    hub.start_again();
    assert_eq!(say(&hub, "4"), first.at(4), "and after an orderly end");

    eventually("what came later", || (follower.count() == 4).then_some(()));
    let heard = follower.leave();
    assert_once("follower", &heard);
    assert_eq!(texts(&heard), ["1", "2", "3", "4"]);
    assert_eq!(texts(&all(&hub, "4")), ["1", "2", "3", "4"]);
    let after = raw::get(&format!("{}?since={}", hub.url(), first.at(2)));
    assert_eq!(after.text(), "[3,4]", "history knows them, too");
}

#[test]
fn an_event_keeps_its_type_time_and_audience() {
    let scratch = Scratch::new();
    let mut hub = hub(&scratch, "").serve();
    let headers = "Event-Type: alert\r\nEvent-Id: mine\r\nEvent-Time: 1700000000000\r\n";
    let answer = raw::request("POST", &format!("{}?room=a", hub.url()), headers, "zwölf".as_bytes());
    assert_eq!(answer.status, 200);
    hub.restart();
    let mut link = link::Link::since(hub.url(), "oldest");
    let attrs = loop {
        match link.news() {
            link::Said::Event { text, attrs, .. } => break (text, attrs.expect("attributes")),
            other => assert!(!matches!(other, link::Said::Gone), "{other:?}"),
        }
    };
    assert_eq!(attrs.0, "zwölf");
    let attrs: serde_json::Value = serde_json::from_str(&attrs.1).expect("JSON");
    assert_eq!(
        attrs,
        serde_json::json!({"type": "alert", "to": {"room": "a"}, "time": 1_700_000_000_000u64, "id": "mine"})
    );
}

#[test]
fn a_publisher_that_was_not_answered_says_it_again_under_its_key() {
    let scratch = Scratch::new();
    let mut hub = hub(&scratch, "").serve();
    let post = |hub: &Running, kind: &str, key: &str, body: &str| {
        let headers = format!("Content-Type: {kind}\r\nIdempotency-Key: {key}\r\n");
        raw::request("POST", hub.url(), &headers, body.as_bytes())
    };
    let many = "application/x-ndjson";
    let long = (0..3).map(|n| format!("\"{n}{}\"\n", "x".repeat(40_000))).collect::<String>();
    let said = [("text/plain", "one", "1"), (many, "two", "2\n3\n"), (many, "long", &*long)];
    let answers = said.map(|(kind, key, body)| post(&hub, kind, key, body).text());
    hub.restart();
    let again = said.map(|(kind, key, body)| post(&hub, kind, key, body).text());
    assert_eq!(again, answers, "answered as before");
    assert_eq!(post(&hub, "text/plain", "one", "another").status, 422);
    say(&hub, "last");
    assert_eq!(all(&hub, "last").len(), 1 + 2 + 3 + 1, "nothing is published twice");
}

#[test]
fn a_second_process_is_refused_and_harms_nothing() {
    let scratch = Scratch::new();
    let mut first = hub(&scratch, "").serve();
    say(&first, "1");
    let second = hub(&scratch, "--serve-address localhost:0").run();
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("in use by another process"), "{}", second.stderr);
    say(&first, "2");
    first.restart();
    assert_eq!(texts(&all(&first, "2")), ["1", "2"]);
}

/// As if the machine had been started again: the journal was written under another boot.
fn reboot(scratch: &Scratch) {
    let path = scratch.path("journal/topic-events/state");
    let state = fs::read_to_string(&path).expect("a state");
    let other = |line: &str| if line.starts_with("boot ") { "boot another".to_owned() } else { line.to_owned() };
    fs::write(&path, state.lines().map(|line| other(line) + "\n").collect::<String>()).expect("write");
}

#[test]
fn after_a_power_cut_numbers_go_on_only_where_all_was_synced() {
    if fs::read_to_string("/etc/machine-id").is_ok_and(|id| id.trim().is_empty())
        || !fs::exists("/etc/machine-id").unwrap_or(false)
    {
        return eprintln!("SKIPPED: without a machine id every boot is another machine");
    }
    for (sync, signal, continues) in [
        ("always", "KILL", true),
        ("interval:1s", "KILL", false),
        ("interval:1s", "TERM", true),
        ("never", "KILL", false),
        ("never", "TERM", true),
    ] {
        let scratch = Scratch::new();
        let mut hub = hub(&scratch, &format!("--journal-sync {sync}")).serve();
        let first = say(&hub, "1");
        hub.signal(signal);
        hub.wait();
        reboot(&scratch);
        hub.start_again();
        let next = say(&hub, "2");
        assert_eq!(next == first.next(), continues, "{sync} {signal}: {next:?}");
        let expected: &[&str] = if continues { &["1", "2"] } else { &["1", "gap", "2"] };
        assert_eq!(texts(&all(&hub, "2")), expected, "{sync} {signal}");
    }
}

#[test]
fn always_synced_events_survive_kills_of_a_busy_process() {
    let scratch = Scratch::new();
    let mut hub = hub(&scratch, "--journal-sync always").serve();
    say(&hub, "first");
    let (numbers, stop, told) = (Arc::default(), Arc::new(AtomicBool::new(false)), Acknowledged::default());
    let publishers: Vec<_> = (0..4).map(|_| publisher(hub.url(), &numbers, &stop, &told)).collect();
    torment(&mut hub, kills(10));
    stop.store(true, Ordering::Release);
    publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
    say(&hub, "last");
    let events = assert_once("afterwards", &all(&hub, "last"));
    let told = told.lock().expect("no panic");
    assert!(!told.is_empty() && told.iter().all(|acknowledged| events.contains(acknowledged)));
}

// --- kill -9 ---------------------------------------------------------------------------------------------------------

/// What publishers were told: the id of each text.
type Acknowledged = Arc<Mutex<Vec<(Id, String)>>>;

/// Publishes numbers, each once, whether or not anybody is there to take them.
fn publisher(
    url: &str,
    numbers: &Arc<AtomicU64>,
    stop: &Arc<AtomicBool>,
    told: &Acknowledged,
) -> thread::JoinHandle<()> {
    let (url, numbers, stop, told) = (url.to_owned(), numbers.clone(), stop.clone(), told.clone());
    thread::spawn(move || {
        while !stop.load(Ordering::Acquire) {
            let text = numbers.fetch_add(1, Ordering::AcqRel).to_string();
            match try_post(&url, &text) {
                Some(id) => told.lock().expect("no panic").push((id, text)),
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    })
}

/// The id, if the answer came.
fn try_post(url: &str, body: &str) -> Option<Id> {
    let (host, port, path) = raw::split_url(url);
    let mut raw = Raw::over(TcpStream::connect((host.as_str(), port)).ok()?);
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    raw.try_send(head + body).ok()?;
    let mut answer = raw.read_head();
    (answer.status == 200).then_some(())?;
    answer.body = raw.read_to_end();
    Some(id_of(&answer))
}

/// Kills it at any moment and starts it again, so many times.
fn torment(victim: &mut Running, kills: u32) {
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..kills {
        thread::sleep(Duration::from_millis(random.random_range(0..60)));
        victim.restart();
    }
}

#[test]
fn whatever_was_acknowledged_survives_200_kills_and_is_told_once() {
    let scratch = Scratch::new();
    // Small segments, so that kills meet their beginnings and ends, too.
    let mut hub = hub(&scratch, "--history-bytes 1MiB").serve();
    say(&hub, "first");
    let followers = [How::Link, How::Sse].map(|how| Follower::start(how, hub.url(), "oldest"));
    let (numbers, stop, told) = (Arc::default(), Arc::new(AtomicBool::new(false)), Acknowledged::default());
    let publishers: Vec<_> = (0..2).map(|_| publisher(hub.url(), &numbers, &stop, &told)).collect();
    torment(&mut hub, kills(200));
    stop.store(true, Ordering::Release);
    publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
    say(&hub, "last");
    let told = told.lock().expect("no panic").clone();
    println!("{} acknowledged of {}", told.len(), numbers.load(Ordering::Acquire));
    assert!(told.len() > 20, "{} acknowledged", told.len());

    let is_last = |heard: &Heard| matches!(heard, Heard::Event(_, text) if text == "last");
    for follower in followers {
        eventually("the last event", || follower.heard().last().is_some_and(is_last).then_some(()));
        let events = assert_once("follower", &follower.leave());
        let mut texts: Vec<&str> = events.iter().map(|(_, text)| &**text).collect();
        texts.sort_unstable();
        assert!(texts.windows(2).all(|pair| pair[0] != pair[1]), "nothing is told twice");
        for acknowledged in &told {
            assert!(events.contains(acknowledged), "acknowledged, and not told: {acknowledged:?}");
        }
    }
}

#[test]
fn lines_go_on_behind_a_kill_and_nobody_hears_one_twice() {
    let scratch = Scratch::new();
    let line = Wsevent::line("--produce - --slow-reader disconnect").args(["--journal", &scratch.arg("journal")]);
    let mut producer = line.piped().serve();
    let followers = [How::Link, How::Sse].map(|how| Follower::start(how, producer.url(), "oldest"));
    let mut random = StdRng::seed_from_u64(seed());
    let mut n = 0u64;
    for _ in 0..kills(25) {
        let mut stdin = producer.take_stdin();
        let writer = thread::spawn(move || {
            // Until the pipe breaks.
            while (n..n + 20).map(|n| format!("{n}\n")).all(|line| stdin.write_all(line.as_bytes()).is_ok()) {
                n += 20;
                thread::sleep(Duration::from_millis(1));
            }
            n + 20
        });
        thread::sleep(Duration::from_millis(random.random_range(5..80)));
        producer.kill9();
        n = writer.join().expect("no panic");
        producer.start_again();
    }
    producer.write("last\n");
    let is_last = |heard: &Heard| matches!(heard, Heard::Event(_, text) if text == "last");
    let heard = followers.map(|follower| {
        eventually("the last line", || follower.heard().last().is_some_and(is_last).then_some(()));
        assert_once("follower", &follower.leave())
    });
    let kept = assert_once("afterwards", &all(&producer, "last"));
    assert_eq!(heard[0], kept);
    assert_eq!(heard[1], kept);
    let numbers: Vec<u64> = kept.iter().filter_map(|(_, text)| text.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "lines keep their order, each once");
    println!("{} of {n} lines were taken", numbers.len());
}

// --- hops ------------------------------------------------------------------------------------------------------------

#[test]
fn a_hop_serves_its_journal_before_its_upstream_is_back_and_goes_on_behind_it() {
    let scratch = Scratch::new();
    let mut origin = Wsevent::line("--no-produce").serve();
    let line =
        Wsevent::new(["--consume", &origin.ws_url(), "--journal", &scratch.arg("journal"), "--retry-max", "100ms"]);
    let mut hop = line.serve();
    say(&origin, "1");
    let second = say(&origin, "2");
    hop.has("events", 2);
    origin.kill9();
    hop.restart();
    let mut sse = link::Sse::open(&format!("{}?since=oldest", hop.url()));
    assert_eq!(sse.texts(2), ["1", "2"], "though nobody is above");

    // An origin without a journal comes back with an epoch of its own: that is a gap, told by it.
    origin.start_again();
    let follower = Follower::start(How::Link, hop.url(), "oldest");
    let third = say(&origin, "3");
    eventually("all of it", || (follower.count() == 4).then_some(()));
    let heard = follower.leave();
    assert_eq!(texts(&heard), ["1", "2", "gap", "3"]);
    assert_eq!(heard[1], Heard::Event(second, "2".into()));
    assert_eq!(heard[3], Heard::Event(third, "3".into()));
    hop.restart();
    assert_eq!(all(&hop, "3"), heard, "the gap is kept, too");
}

#[test]
fn a_chain_whose_origin_has_a_journal_loses_nothing_to_kills() {
    let scratch = Scratch::new();
    let mut origin = hub(&scratch, "").serve();
    let hop_scratch = Scratch::new();
    let upstream = origin.ws_url();
    let line =
        |journal: &str| Wsevent::new(["--consume", &upstream, "--retry-max", "50ms"]).args(journal.split_whitespace());
    let mut hops = [line(&format!("--journal {}", hop_scratch.arg("journal"))).serve(), line("").serve()];
    say(&origin, "first");
    let followers = [0, 1].map(|hop| Follower::start(How::Link, hops[hop].url(), "oldest"));
    let (numbers, stop, told) = (Arc::default(), Arc::new(AtomicBool::new(false)), Acknowledged::default());
    let publisher = publisher(origin.url(), &numbers, &stop, &told);
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..kills(30) {
        thread::sleep(Duration::from_millis(random.random_range(0..60)));
        match random.random_range(0..3) {
            0 => origin.restart(),
            hop => hops[hop - 1].restart(),
        }
    }
    stop.store(true, Ordering::Release);
    publisher.join().expect("no panic");
    say(&origin, "last");
    let told = told.lock().expect("no panic").clone();
    let is_last = |heard: &Heard| matches!(heard, Heard::Event(_, text) if text == "last");
    for follower in followers {
        eventually("the last event", || follower.heard().last().is_some_and(is_last).then_some(()));
        let events = assert_once("follower", &follower.leave());
        assert!(told.iter().all(|acknowledged| events.contains(acknowledged)));
    }
}

#[test]
fn a_merge_goes_on_where_each_of_its_upstreams_stood() {
    let scratch = Scratch::new();
    let origins = [0, 1].map(|_| Wsevent::line("--no-produce").serve());
    // The copy shows what the first origin shows: what one has brought, the other does not bring again.
    let copy = Wsevent::new(["--consume", &origins[0].ws_url()]).serve();
    let urls = [origins[0].ws_url(), origins[1].ws_url(), copy.ws_url()];
    let consume = urls.iter().flat_map(|url| ["--consume", url]);
    let line = Wsevent::new(consume).args(["--journal", &scratch.arg("journal"), "--retry-max", "50ms"]);
    let mut merge = line.serve();
    eventually("all upstreams", || (merge.own("readyz").status == 200).then_some(()));
    origins.iter().for_each(|origin| drop(say(origin, "first")));
    let followers = [How::Link, How::Sse].map(|how| Follower::start(how, merge.url(), "oldest"));
    let (numbers, stop, told) = (Arc::default(), Arc::new(AtomicBool::new(false)), Acknowledged::default());
    let publishers: Vec<_> = origins.iter().map(|origin| publisher(origin.url(), &numbers, &stop, &told)).collect();
    torment(&mut merge, kills(30));
    stop.store(true, Ordering::Release);
    publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
    origins.iter().for_each(|origin| drop(say(origin, "last")));

    let mut expected: Vec<String> = told.lock().expect("no panic").iter().map(|(_, text)| text.clone()).collect();
    expected.extend(["first", "first", "last", "last"].map(String::from));
    expected.sort_unstable();
    for follower in followers {
        eventually("everything", || (follower.count() >= expected.len()).then_some(()));
        let events = assert_once("follower", &follower.leave());
        let mut texts: Vec<String> = events.into_iter().map(|(_, text)| text).collect();
        texts.sort_unstable();
        assert_eq!(texts, expected, "each event of each origin once");
    }
}

#[test]
fn another_servers_stream_goes_on_behind_its_newest_id() {
    let scratch = Scratch::new();
    let upstream = link::Upstream::new();
    let line =
        Wsevent::new(["--consume", &upstream.sse_url(), "--journal", &scratch.arg("journal"), "--retry-max", "50ms"]);
    let mut hop = line.serve();
    let mut served = upstream.sse("");
    assert_eq!(served.header("last-event-id"), None);
    served.raw.send("id: red\ndata: 1\n\nid: green\ndata: 2\n\ndata: 3\n\n");
    hop.has("events", 3);
    hop.restart();
    let mut served = upstream.sse("");
    assert_eq!(served.header("last-event-id").as_deref(), Some("green"));
    served.raw.send("id: blue\ndata: 4\n\n");
    let heard = all(&hop, "4");
    assert_eq!(texts(&heard), ["1", "2", "3", "4"], "nothing is unknown: no gap");
}

#[test]
fn what_a_plain_upstream_said_while_its_hop_was_away_is_a_gap() {
    let scratch = Scratch::new();
    let upstream = link::Upstream::new();
    let mut hop = Wsevent::new(["--consume", &upstream.ws_url(), "--journal", &scratch.arg("journal")]).serve();
    let mut served = upstream.plain();
    served.text("1");
    hop.has("events", 1);
    hop.kill9();
    hop.start_again();
    let mut served = upstream.plain();
    served.text("3");
    assert_eq!(texts(&all(&hop, "3")), ["1", "gap", "3"]);
}

// --- damage ----------------------------------------------------------------------------------------------------------

#[test]
fn a_torn_tail_is_repaired_and_numbers_go_on() {
    let scratch = Scratch::new();
    let mut hub = hub(&scratch, "").serve();
    let first = say(&hub, "1");
    say(&hub, "2");
    hub.kill9();
    let (path, torn) = (segment(&scratch), "not written to its end");
    let whole = fs::read(&path).expect("a segment");
    // What a write that was cut short leaves: the beginning of a record.
    let begun = [&whole[..], &whole[18..18 + 20]].concat();
    fs::write(&path, begun).expect(torn);
    hub.start_again();
    hub.said("ended inside a record");
    assert_eq!(damaged(&scratch), 0);
    assert_eq!(say(&hub, "3"), first.at(3));
    hub.restart();
    assert_eq!(texts(&all(&hub, "3")), ["1", "2", "3"]);
}

#[test]
fn damage_is_set_aside_and_told_and_no_id_is_used_again() {
    let scratch = Scratch::new();
    let mut hub = hub(&scratch, "").serve();
    let first = say(&hub, "before");
    let behind = segment(&scratch);
    let at = fs::metadata(&behind).expect("a segment").len() as usize;
    say(&hub, "damaged");
    let last = say(&hub, "behind");
    let follower = Follower::start(How::Link, hub.url(), "oldest");
    eventually("all three", || (follower.count() == 3).then_some(()));
    hub.kill9();
    let mut bytes = fs::read(&behind).expect("a segment");
    bytes[at + 40] ^= 1;
    fs::write(&behind, &bytes).expect("write");

    hub.start_again();
    hub.said("the journal is damaged");
    let journal = &hub.topic()["journal"];
    assert_eq!(journal["set_aside"], 1);
    assert_eq!(damaged(&scratch), 1);
    let next = say(&hub, "new");
    assert_ne!(next.epoch, first.epoch, "2 and 3 may have been seen: they are not given again");
    let heard = all(&hub, "new");
    assert_eq!(texts(&heard), ["before", "gap", "new"]);

    eventually("the reader's return", || (follower.count() == 5).then_some(()));
    let heard = follower.leave();
    assert_eq!(heard[2], Heard::Event(last, "behind".into()));
    assert!(matches!(heard[3], Heard::Gap(..)), "it is told: {heard:?}");
    assert_eq!(heard[4], Heard::Event(next.clone(), "new".into()));

    hub.restart();
    assert_eq!(say(&hub, "newer"), next.next(), "damage is met once");
}

// --- a full disk -----------------------------------------------------------------------------------------------------

#[test]
fn a_full_disk_refuses_what_comes_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new("256k") else { return };
    let mut hub = hub(&disk.0, "").serve();
    let first = say(&hub, "1");
    let follower = Follower::start(How::Link, hub.url(), "oldest");
    disk.fill();
    let big = "x".repeat(8192);
    for _ in 0..3 {
        let refusal = raw::post(hub.url(), &big);
        assert_eq!((refusal.status, refusal.header("retry-after")), (503, Some("1")));
        assert!(
            refusal.text().contains("not published: the journal cannot be written: No space"),
            "{}",
            refusal.text()
        );
    }
    let journal = hub.topic()["journal"].clone();
    assert_eq!((&journal["ok"], &journal["missed_events"]), (&false.into(), &3.into()), "{journal}");
    assert!(journal["error"].as_str().is_some_and(|error| error.contains("space")), "{journal}");
    let metrics = hub.own("metrics").text();
    assert!(metrics.contains("wsevent_journal_ok{topic=\"/events\"} 0"), "{metrics}");
    assert!(metrics.contains("wsevent_journal_missed_events_total{topic=\"/events\"} 3"), "{metrics}");
    assert!(metrics.contains("wsevent_ready 0"), "{metrics}");
    let ready = hub.own("readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("the journal of /events cannot be written: No space"), "{}", ready.text());
    assert_eq!(hub.own("healthz").status, 200);
    assert_eq!(hub.stderr().matches("the journal cannot be written").count(), 1, "{}", hub.stderr());

    // Room again: it is found out without a publisher.
    disk.clear();
    hub.said("the journal can be written again");
    assert_eq!(hub.own("readyz").status, 200);
    assert_eq!(say(&hub, &big), first.at(2), "no number is used up by what was refused");
    assert_eq!(hub.stderr().matches("the journal can").count(), 2, "a line each: {}", hub.stderr());
    hub.restart();
    assert_eq!(say(&hub, "last"), first.at(3));
    eventually("all three", || (follower.count() == 3).then_some(()));
    assert_eq!(texts(&follower.leave()), ["1", &big, "last"]);
    assert_eq!(texts(&all(&hub, "last")), ["1", &big, "last"]);
}

#[test]
fn a_kill_on_a_full_disk_loses_nothing_and_numbers_go_on() {
    kill_on_a_full_disk(false);
}

#[test]
fn so_does_one_of_a_process_that_met_a_full_disk_already_at_its_start() {
    kill_on_a_full_disk(true);
}

fn kill_on_a_full_disk(from_the_start: bool) {
    let Some(disk) = SmallDisk::new("256k") else { return };
    let mut hub = hub(&disk.0, "").serve();
    let first = say(&hub, "1");
    disk.fill();
    if from_the_start {
        hub.restart();
    }
    assert_eq!(raw::post(hub.url(), "x".repeat(8192)).status, 503);
    let follower = Follower::start(How::Link, hub.url(), "oldest");
    eventually("the first", || (follower.count() == 1).then_some(()));
    hub.restart();
    assert_eq!(raw::post(hub.url(), "x".repeat(8192)).status, 503);
    disk.clear();
    hub.said("the journal can be written again");
    let next = say(&hub, "new");
    assert_eq!(next, first.next(), "nothing was seen that the journal does not know");
    eventually("the reader's return", || (follower.count() == 2).then_some(()));
    assert_eq!(follower.leave(), [Heard::Event(first, "1".into()), Heard::Event(next, "new".into())]);
}

#[test]
fn numbers_that_begin_anew_on_a_full_disk_do_so_behind_a_gap() {
    let Some(disk) = SmallDisk::new("256k") else { return };
    let mut hub = hub(&disk.0, "").serve();
    let first = say(&hub, "1");
    hub.kill9();
    reboot(&disk.0);
    disk.fill();
    hub.start_again();
    assert_eq!(raw::post(hub.url(), "x".repeat(8192)).status, 503);
    disk.clear();
    hub.said("the journal can be written again");
    let next = say(&hub, "2");
    assert_ne!(next.epoch, first.epoch);
    assert_eq!(texts(&all(&hub, "2")), ["1", "gap", "2"]);
    hub.restart();
    assert_eq!(say(&hub, "3"), next.next());
    assert_eq!(texts(&all(&hub, "3")), ["1", "gap", "2", "3"]);
}

#[test]
fn kills_on_a_disk_that_is_full_now_and_then_never_use_an_id_again() {
    let Some(disk) = SmallDisk::new("512k") else { return };
    let mut hub = hub(&disk.0, "--history-bytes 128KiB").serve();
    say(&hub, "first");
    let followers = [How::Link, How::Sse].map(|how| Follower::start(how, hub.url(), "oldest"));
    let (numbers, stop, told) = (Arc::default(), Arc::new(AtomicBool::new(false)), Acknowledged::default());
    let publisher = publisher(hub.url(), &numbers, &stop, &told);
    let (ballast, mut random) = (disk.0.path("journal/ballast"), StdRng::seed_from_u64(seed()));
    for _ in 0..kills(40) {
        let _ = if random.random_bool(0.5) { fs::write(&ballast, vec![0; 1 << 20]) } else { fs::remove_file(&ballast) };
        thread::sleep(Duration::from_millis(random.random_range(0..60)));
        if random.random_bool(0.7) {
            hub.restart();
        }
    }
    stop.store(true, Ordering::Release);
    publisher.join().expect("no panic");
    let _ = fs::remove_file(&ballast);
    eventually("room", || (raw::post(hub.url(), "last").status == 200).then_some(()));

    let told: HashMap<Id, String> = told.lock().expect("no panic").iter().cloned().collect();
    let mut names = told.clone();
    let acknowledged = names.len();
    let is_last = |heard: &Heard| matches!(heard, Heard::Event(_, text) if text == "last");
    for follower in followers {
        eventually("the last event", || follower.heard().last().is_some_and(is_last).then_some(()));
        let mut newest: Option<Id> = None;
        let all = follower.leave();
        for (id, text) in &told {
            assert!(all.contains(&Heard::Event(id.clone(), text.clone())), "acknowledged, and not told: {id:?}");
        }
        for heard in all {
            let (id, end) = match &heard {
                Heard::Event(id, text) => {
                    let named = names.entry(id.clone()).or_insert_with(|| text.clone());
                    assert_eq!(named, text, "an id names one event: {id:?}");
                    (id.clone(), id.clone())
                }
                Heard::Gap(from, to, _) => (from.clone(), to.clone()),
            };
            let before = newest.replace(end);
            let follows = before.is_none_or(|before| id == before.next() || id.epoch != before.epoch && id.n <= 1);
            assert!(follows, "nothing is left out untold before {heard:?}");
        }
    }
    println!("{acknowledged} acknowledged, {} known", names.len());
}
