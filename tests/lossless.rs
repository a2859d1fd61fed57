//! `seq 1000000 | wsevent --produce -` through two forwarders into a consumer, with no policy on any hop: nothing is
//! lost, nobody's memory grows, everybody ends with 0; also when a hop is killed or a reader is paused in the middle.

mod common;

use common::{PATIENCE, Running, Scratch, Wsevent, eventually};
use std::{
    fmt::Write as _,
    fs::{self, File},
    hash::{DefaultHasher, Hasher},
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const LINES: u64 = 1_000_000;
/// Resident memory of any process at its highest, in KiB: two windows of 16 MiB, the program, and what a debug build
/// and the allocator add to that.
const HIGHEST: u64 = 150 << 10;

/// A producer of `seq 1 LINES`, two forwarders, and a consumer that prints into a file.
struct Pipe {
    producer: Running,
    hops: [Running; 2],
    consumer: Child,
    _scratch: Scratch,
    printed: std::path::PathBuf,
    feeder: Option<thread::JoinHandle<u64>>,
}

impl Pipe {
    fn start() -> Self {
        let mut producer = Wsevent::line("--produce -").piped().serve();
        let first = hop(&producer);
        let second = hop(&first);
        let scratch = Scratch::new();
        let printed = scratch.path("printed");
        let consumer = consumer(&second, &printed);
        let stdin = producer.take_stdin();
        let feeder = Some(thread::spawn(move || feed(stdin)));
        Pipe { producer, hops: [first, second], consumer, _scratch: scratch, printed, feeder }
    }

    /// Waits until the consumer has printed that many bytes.
    fn await_printed(&self, bytes: u64) {
        eventually("the consumer's output", || (self.len() >= bytes).then_some(()));
    }

    fn len(&self) -> u64 {
        fs::metadata(&self.printed).map_or(0, |file| file.len())
    }

    /// Waits for everybody's end; progress resets the patience.
    fn finish(mut self) {
        let status = patiently(&self.printed, || self.consumer.try_wait().expect("a child's status"));
        let status = status.unwrap_or_else(|| self.stuck());
        assert!(status.success(), "the consumer: {status}");
        let sum = self.feeder.take().expect("running").join().expect("no panic");
        // A hop that was killed has left a pin behind, which is kept for half a minute.
        let code = patiently(&self.printed, || self.producer.ended()).unwrap_or_else(|| self.stuck());
        assert_eq!(code, 0, "the producer");
        for hop in &self.hops {
            assert!(highest(hop.pid()) < HIGHEST, "a hop used {} KiB", highest(hop.pid()));
        }
        check(&self.printed, sum);
    }

    /// Says who waits for whom.
    fn stuck(&self) -> ! {
        for hop in [&self.producer, &self.hops[0], &self.hops[1]] {
            eprintln!("{}", hop.own("status").text());
        }
        panic!("no progress behind {} bytes", self.len());
    }

    fn check_memory(&self) {
        for pid in [self.producer.pid(), self.hops[0].pid(), self.hops[1].pid(), self.consumer.id()] {
            assert!(highest(pid) < HIGHEST, "{} KiB", highest(pid));
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = self.consumer.kill();
        let _ = self.consumer.wait();
    }
}

fn hop(upstream: &Running) -> Running {
    Wsevent::new(["--consume", &upstream.ws_url(), "--retry-max", "200ms"]).serve()
}

fn consumer(upstream: &Running, printed: &Path) -> Child {
    let mut command = Command::new(common::binary());
    command.args(["--consume", &upstream.ws_url(), "--no-serve", "--retry-max", "200ms"]);
    let file = File::create(printed).expect("a scratch file");
    command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null()).spawn().expect("starts")
}

/// Writes all lines; returns their checksum.
fn feed(mut stdin: impl Write) -> u64 {
    let mut sum = DefaultHasher::new();
    for block in 0..LINES / 1000 {
        let mut text = String::new();
        for n in block * 1000 + 1..=(block + 1) * 1000 {
            writeln!(text, "{n}").expect("memory");
        }
        sum.write(text.as_bytes());
        stdin.write_all(text.as_bytes()).expect("the producer reads");
    }
    sum.finish()
}

/// The same lines, the same sum; else says where they part.
fn check(printed: &Path, sum: u64) {
    let mut reader = BufReader::new(File::open(printed).expect("the output"));
    let (mut hasher, mut block) = (DefaultHasher::new(), Vec::new());
    reader.read_to_end(&mut block).expect("the output");
    // Hashed as it was written: the hasher minds how its input is cut.
    let mut lines = 0;
    let mut start = 0;
    for at in block.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1) {
        lines += 1;
        if lines % 1000 == 0 {
            hasher.write(&block[start..at]);
            start = at;
        }
    }
    hasher.write(&block[start..]);
    if hasher.finish() != sum || lines != LINES {
        part(&block);
        panic!("{lines} lines, and another checksum");
    }
}

fn part(printed: &[u8]) {
    for (expected, line) in (1u64..).zip(printed.lines()) {
        let line = line.expect("UTF-8");
        assert_eq!(line, expected.to_string(), "the first line that is wrong");
    }
}

/// Highest resident memory so far, in KiB.
fn highest(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// Asks until the answer is there; `None` when the file has not grown for too long.
fn patiently<T>(growing: &Path, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let (mut len, mut since) = (0, Instant::now());
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        let now = fs::metadata(growing).map_or(0, |file| file.len());
        if now != len {
            (len, since) = (now, Instant::now());
        }
        if since.elapsed() > 3 * PATIENCE {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// About the middle of the output.
const MIDDLE: u64 = 3 << 20;

#[test]
fn a_million_lines_cross_two_hops() {
    let pipe = Pipe::start();
    pipe.await_printed(MIDDLE);
    pipe.check_memory();
    pipe.finish();
}

#[test]
fn a_hop_that_is_killed_in_the_middle_costs_nothing() {
    for victim in [0, 1] {
        let mut pipe = Pipe::start();
        pipe.await_printed(MIDDLE / 2);
        pipe.hops[victim].kill9();
        pipe.hops[victim].start_again();
        pipe.await_printed(MIDDLE);
        pipe.check_memory();
        pipe.finish();
    }
}

#[test]
fn both_hops_killed_at_once_cost_nothing() {
    let mut pipe = Pipe::start();
    pipe.await_printed(MIDDLE / 2);
    for hop in &mut pipe.hops {
        hop.kill9();
    }
    for hop in &mut pipe.hops {
        hop.start_again();
    }
    pipe.finish();
}

#[test]
fn a_consumer_that_is_paused_holds_everybody_and_loses_nothing() {
    let pipe = Pipe::start();
    pipe.await_printed(MIDDLE / 4);
    signal(pipe.consumer.id(), "STOP");
    let paused = Instant::now();
    eventually("a few seconds to pass", || (paused.elapsed() > Duration::from_secs(5)).then_some(()));
    pipe.check_memory();
    signal(pipe.consumer.id(), "CONT");
    pipe.finish();
}

#[test]
fn a_hop_that_is_paused_loses_nothing() {
    let pipe = Pipe::start();
    pipe.await_printed(MIDDLE / 4);
    pipe.hops[0].signal("STOP");
    let paused = Instant::now();
    eventually("a few seconds to pass", || (paused.elapsed() > Duration::from_secs(4)).then_some(()));
    pipe.hops[0].signal("CONT");
    pipe.finish();
}

#[test]
fn an_output_that_nobody_reads_holds_the_input() {
    // A pipe as standard output, which fills at once: the producer stands still, then everything comes.
    let mut producer = Wsevent::line("--produce -").piped().serve();
    let hop = hop(&producer);
    let mut consumer = Command::new(common::binary())
        .args(["--consume", &hop.ws_url(), "--no-serve"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let stdin = producer.take_stdin();
    let lines = 400_000u64;
    // 200 bytes a line: 80 MB, where three windows hold 48.
    let feeder = thread::spawn(move || {
        let mut stdin = stdin;
        for block in 0..lines / 100 {
            let text: String = (block * 100 + 1..=(block + 1) * 100).map(|n| format!("{n:0199}\n")).collect();
            stdin.write_all(text.as_bytes()).expect("the producer reads");
        }
    });
    let (mut before, mut since) = (u64::MAX, Instant::now());
    eventually("the input to stand still", || {
        let status: serde_json::Value = serde_json::from_slice(&producer.own("status").body).expect("JSON");
        let events = status["topics"][0]["events"].as_u64()?;
        if events != before {
            (before, since) = (events, Instant::now());
        }
        (events > 0 && since.elapsed() > Duration::from_secs(2)).then_some(())
    });
    assert!(before < lines && !feeder.is_finished(), "{before} events went somewhere");
    for pid in [producer.pid(), hop.pid(), consumer.id()] {
        assert!(highest(pid) < HIGHEST, "{} KiB", highest(pid));
    }
    let mut next = 0u64;
    for line in BufReader::new(consumer.stdout.take().expect("piped")).lines() {
        next += 1;
        assert_eq!(line.expect("UTF-8").trim_start_matches('0'), next.to_string());
    }
    assert_eq!(next, lines);
    assert!(consumer.wait().expect("a child's status").success());
    feeder.join().expect("no panic");
    assert_eq!(producer.wait(), 0);
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "send {name} to {pid}");
}
