//! A chain of five forwarders whose processes are killed at random: who reads at its end gets every event exactly once
//! and in order, as long as an outage fits the window; else it is told how much is missing.
//!
//! `WSEVENT_SEED` repeats a run, `WSEVENT_SECONDS` makes it longer.

mod common;
mod link;

use common::{Running, Wsevent, eventually};
use link::{Follower, Heard, How, assert_numbers, numbers_of};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    io::Write,
    process::ChildStdin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const HOPS: usize = 5;

/// A producer and a line of forwarders behind it.
struct Chain {
    producer: Running,
    hops: Vec<Running>,
}

impl Chain {
    fn start(options: &str) -> Self {
        let producer = Wsevent::line(&format!("--produce - --slow-reader disconnect {options}")).piped().serve();
        let mut hops: Vec<Running> = Vec::new();
        for _ in 0..HOPS {
            let upstream = hops.last().map_or_else(|| producer.ws_url(), Running::ws_url);
            let line = Wsevent::new(["--consume", &upstream, "--retry-max", "200ms"]);
            hops.push(line.args(options.split_whitespace()).serve());
        }
        Chain { producer, hops }
    }

    /// Where the chain ends.
    fn last(&self) -> &Running {
        &self.hops[HOPS - 1]
    }

    fn consumer(&self, options: &str) -> Running {
        let line = Wsevent::new(["--consume", &self.last().ws_url(), "--no-serve", "--retry-max", "200ms"]);
        line.args(options.split_whitespace()).start()
    }

    /// Waits until every hop has connected once.
    fn await_ready(&self) {
        for hop in &self.hops {
            eventually("the chain", || (hop.own("readyz").status == 200).then_some(()));
        }
    }
}

/// Numbers at 1,000 a second until it is told to stop; returns standard input and how many there were.
fn pace(mut stdin: ChildStdin, stop: Arc<AtomicBool>, written: Arc<AtomicU64>) -> thread::JoinHandle<ChildStdin> {
    thread::spawn(move || {
        let began = Instant::now();
        while !stop.load(Ordering::Acquire) {
            let due = began.elapsed().as_millis() as u64;
            let from = written.load(Ordering::Acquire);
            let lines: String = (from + 1..=due).map(|n| format!("{n}\n")).collect();
            stdin.write_all(lines.as_bytes()).expect("the producer reads");
            written.store(due.max(from), Ordering::Release);
            thread::sleep(Duration::from_millis(5));
        }
        stdin
    })
}

fn seed() -> u64 {
    let seed = std::env::var("WSEVENT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("WSEVENT_SEED={seed}");
    seed
}

fn duration() -> Duration {
    let seconds = std::env::var("WSEVENT_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(25))
}

/// When each dead hop comes back.
type Outages = Vec<Option<Instant>>;

/// Kills somebody, now and then all at once; wakes who has been dead long enough.
fn torment(chain: &mut Chain, random: &mut StdRng, until: Instant) -> u32 {
    let (mut dead, mut kills): (Outages, u32) = (vec![None; HOPS], 0);
    let mut next = Instant::now();
    while Instant::now() < until {
        let now = Instant::now();
        if now >= next {
            let all = random.random_bool(0.1);
            let victim = random.random_range(0..HOPS);
            for hop in (0..HOPS).filter(|&hop| all || hop == victim) {
                if dead[hop].is_none() {
                    chain.hops[hop].kill9();
                    kills += 1;
                    dead[hop] = Some(now + Duration::from_millis(random.random_range(0..3000)));
                }
            }
            next = now + Duration::from_millis(random.random_range(100..1500));
        }
        revive(chain, &mut dead, now);
        thread::sleep(Duration::from_millis(5));
    }
    revive(chain, &mut dead, Instant::now() + Duration::from_secs(3600));
    kills
}

fn revive(chain: &mut Chain, dead: &mut Outages, now: Instant) {
    for (hop, dead) in dead.iter_mut().enumerate() {
        if dead.is_some_and(|until| now >= until) {
            *dead = None;
            chain.hops[hop].start_again();
        }
    }
}

#[test]
fn a_tormented_chain_loses_nothing_and_repeats_nothing() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut chain = Chain::start("");
    chain.await_ready();
    let mut consumer = chain.consumer("");
    let ndjson = chain.consumer("--output ndjson --since oldest");
    let url = chain.last().url().to_owned();
    let followers = [(How::Link, "now"), (How::Sse, "now"), (How::Link, "oldest"), (How::Sse, "oldest")]
        .map(|(how, since)| Follower::start(how, &url, since));
    consumer.said("connected");
    ndjson.said("connected");
    eventually("all readers", || (readers(chain.last()) == 6).then_some(()));

    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let pacer = pace(chain.producer.take_stdin(), stop.clone(), written.clone());
    let kills = torment(&mut chain, &mut random, Instant::now() + duration());
    stop.store(true, Ordering::Release);
    let stdin = pacer.join().expect("no panic");
    let events = written.load(Ordering::Acquire);
    println!("{kills} kills, {events} events");

    // Everything has arrived, or never will: then the end may come.
    let arrived = |follower: &Follower| follower.count() >= events as usize;
    eventually("all events everywhere", || {
        let printed = [&consumer, &ndjson].iter().all(|reader| lines(reader) >= events as usize);
        (printed && followers.iter().all(arrived)).then_some(())
    });
    drop(stdin);
    assert_eq!(consumer.wait(), 0);
    let printed = consumer.stdout();
    assert_numbers("consumer", &parse(&printed), 1..=events);
    assert_eq!(lines(&ndjson) as u64, events);
    assert!(!ndjson.stdout().contains("\"gap\""));
    for follower in followers {
        assert_numbers("follower", &numbers_of(&follower.join()), 1..=events);
    }
    assert_eq!(chain.producer.wait(), 0);
}

fn readers(server: &Running) -> u64 {
    let status: serde_json::Value = serde_json::from_slice(&server.own("status").body).expect("JSON");
    status["topics"][0]["readers"].as_u64().unwrap_or(0)
}

fn lines(reader: &Running) -> usize {
    reader.stdout_bytes().iter().filter(|&&byte| byte == b'\n').count()
}

fn parse(printed: &str) -> Vec<u64> {
    printed.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("not a number: {line:?}"))).collect()
}

/// Checks that what was heard and what was told as missing are together everything, in order; returns what is missing.
fn account(who: &str, heard: &[Heard], events: u64) -> u64 {
    let (mut next, mut missing) = (1, 0);
    for one in heard {
        match one {
            Heard::Event(id, text) => {
                assert_eq!((id.n, text.parse()), (next, Ok(next)), "{who}");
                next += 1;
            }
            Heard::Gap(from, to, count) => {
                assert_eq!(from.n, next, "{who}: a gap begins where the events stop: {one:?}");
                assert_eq!(*count, Some(to.n - from.n + 1), "{who}: its count is exact");
                missing += to.n - from.n + 1;
                next = to.n + 1;
            }
        }
    }
    assert_eq!(next, events + 1, "{who}: nothing is missing at the end");
    missing
}

fn ndjson(printed: &str) -> Vec<Heard> {
    let parse = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let id = |value: &serde_json::Value| link::Id::read(value.as_str().expect("an id"));
        match line.get("gap") {
            Some(gap) => Heard::Gap(id(&gap["from"]), id(&gap["to"]), gap["count"].as_u64()),
            None => Heard::Event(id(&line["id"]), line["data"].as_str().expect("data").into()),
        }
    };
    printed.lines().map(parse).collect()
}

#[test]
fn an_outage_beyond_the_window_is_told_with_an_exact_count() {
    for victim in [0, 2, HOPS - 1] {
        let mut chain = Chain::start("--history 300");
        chain.await_ready();
        let mut consumer = chain.consumer("--output ndjson");
        let url = chain.last().url().to_owned();
        let followers = [How::Link, How::Sse].map(|how| Follower::start(how, &url, "now"));
        eventually("all readers", || (readers(chain.last()) == 3).then_some(()));
        let mut stdin = chain.producer.take_stdin();
        let mut said = 0;
        let mut say = |n: u64| {
            for _ in 0..n {
                said += 1;
                writeln!(stdin, "{said}").expect("the producer reads");
                // One at a time, so that the window is no coarser than its limit.
                stdin.flush().expect("the producer reads");
                thread::sleep(Duration::from_micros(300));
            }
        };
        say(100);
        eventually("the first events", || (lines(&consumer) == 100).then_some(()));
        eventually("the first events", || followers.iter().all(|follower| follower.count() == 100).then_some(()));
        chain.hops[victim].kill9();
        say(2000);
        chain.hops[victim].start_again();
        let newest = || Heard::Event(link::Id::new("", 0), "2100".into());
        let has = |heard: &[Heard]| matches!((heard.last(), newest()), (Some(Heard::Event(_, a)), Heard::Event(_, b)) if *a == b);
        eventually("what is left", || has(&ndjson(&whole_lines(&consumer))).then_some(()));
        for follower in &followers {
            eventually("what is left", || has(&follower.heard()).then_some(()));
        }
        drop(stdin);
        assert_eq!(consumer.wait(), 0);
        let missing = account("consumer", &ndjson(&consumer.stdout()), 2100);
        assert!((1500..=1800).contains(&missing), "{missing} missing with a window of 300");
        for follower in followers {
            account("follower", &follower.join(), 2100);
        }
    }
}

/// Standard output up to its last line feed.
fn whole_lines(reader: &Running) -> String {
    let printed = reader.stdout();
    printed[..printed.rfind('\n').map_or(0, |at| at + 1)].to_owned()
}
