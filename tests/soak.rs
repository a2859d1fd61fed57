//! A chain under load for as long as is wanted, beside readers that behave badly in every way: they ping, close, reset,
//! hang up in the middle of a frame, talk nonsense, or do not read. Whoever reads on has every byte of every event.
//!
//! `WSEVENT_SOAK=600 cargo test --profile fast --test soak` is ten minutes of it; without the variable it is seconds.

mod common;

use common::{
    Running, Wsevent, eventually,
    raw::{Frame, PING, Raw, TEXT, split_url},
};
use socket2::SockRef;
use std::{
    fmt::Write as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Resident memory of any process, in KiB: a window of 64 MiB in up to three encodings, twice that for what stalled
/// readers hold and what the allocator does not give back, and the program.
const HIGHEST: u64 = 450 << 10;
/// Written at once, every 20 ms: 500 events a second.
const AT_ONCE: u64 = 10;

fn seconds() -> u64 {
    std::env::var("WSEVENT_SOAK").map_or(8, |seconds| seconds.parse().expect("WSEVENT_SOAK is a number of seconds"))
}

/// Its length and its letters follow from its number.
fn event(n: u64) -> String {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let len = if n.is_multiple_of(997) { 100_000 } else { mixed >> 52 };
    let mut text = format!("{n} ");
    text.extend((0..len).map(|i| char::from(b'a' + ((mixed >> (i % 48)) % 26) as u8)));
    text
}

fn number(event: &str) -> u64 {
    event.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no number: {event:.40}"))
}

/// Everything from the first that came, in order, byte by byte.
#[derive(Default)]
struct Check {
    next: Option<u64>,
}

impl Check {
    fn take(&mut self, text: &str) {
        let n = self.next.unwrap_or_else(|| number(text));
        assert!(text == event(n), "event {n} came as {:.60} ({} bytes)", text, text.len());
        self.next = Some(n + 1);
    }
}

struct Soak {
    ends: AtomicBool,
    /// Connections that were opened to be broken.
    broken: AtomicU64,
}

impl Soak {
    fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::Relaxed)
    }

    /// Reads to the orderly end, pinging on the way; the number behind the last event.
    fn steady(&self, url: &str) -> u64 {
        let mut raw = Raw::websocket(url);
        let mut check = Check::default();
        while let Some(frame) = raw.read_message() {
            check.take(&frame.text());
            if check.next.is_some_and(|n| n % 300 == 0) {
                raw.send_frame(&Frame::new(PING, "are you there"));
            }
        }
        check.next.expect("some events")
    }

    /// Server-Sent Events, resumed by id after connections that were broken; never a gap, never a repetition.
    fn resuming(&self, url: &str, seed: u64) {
        let (mut check, mut last, mut round) = (Check::default(), None, seed);
        while self.goes_on() {
            let mut raw = open_sse(url, last.as_deref());
            round += 1;
            for _ in 0..round * 37 % 400 {
                let Some((id, data)) = next_sse(&mut raw) else { break };
                check.take(&data);
                last = Some(id);
            }
            self.hang_up(raw, round);
        }
        assert!(check.next.is_some(), "not a single event");
    }

    /// A WebSocket for a while, then an end of some kind.
    fn rude(&self, url: &str, seed: u64) {
        let mut round = seed;
        while self.goes_on() {
            let mut raw = Raw::websocket(url);
            round += 1;
            let mut check = Check::default();
            for _ in 0..round * 13 % 60 {
                let Some(frame) = raw.read_message() else { break };
                check.take(&frame.text());
            }
            let last = match round % 5 {
                0 => Frame::close(1000, "enough"),
                1 => Frame { masked: false, ..Frame::new(TEXT, "not masked") },
                2 => Frame { rsv: 7, ..Frame::new(TEXT, "reserved") },
                3 => Frame { fin: false, ..Frame::new(PING, "a fragment of a ping") },
                _ => Frame::new(TEXT, "half of a frame"),
            };
            let bytes = last.to_bytes();
            let _ = raw.try_send(&bytes[..bytes.len() / if round % 5 == 4 { 2 } else { 1 }]);
            if round.is_multiple_of(5) {
                assert_eq!(raw.read_close().map(|close| close.close_code()), Some(1000), "the close is answered");
            }
            self.hang_up(raw, round / 5);
        }
    }

    /// Opens and does not read.
    fn asleep(&self, url: &str) {
        while self.goes_on() {
            let raw = Raw::websocket(url);
            let woken = Instant::now() + Duration::from_secs(3);
            while self.goes_on() && Instant::now() < woken {
                thread::sleep(Duration::from_millis(50));
            }
            self.hang_up(raw, 1);
        }
    }

    /// In order, with a reset, or with the writing side first.
    fn hang_up(&self, raw: Raw, how: u64) {
        self.broken.fetch_add(1, Ordering::Relaxed);
        match how % 3 {
            0 => {}
            1 => SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).expect("an open socket"),
            _ => raw.finish_sending(),
        }
    }
}

/// HTTP/1.0, so that the stream comes without chunks.
fn open_sse(url: &str, last: Option<&str>) -> Raw {
    let (host, port, path) = split_url(url);
    let mut raw = Raw::connect(&host, port);
    let resume = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    raw.send(format!("GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n{resume}\r\n"));
    assert_eq!(raw.read_head().status, 200);
    raw
}

/// The next event's id and data; `None` at the end.
fn next_sse(raw: &mut Raw) -> Option<(String, String)> {
    loop {
        let block = raw.read_until_or_end("\n\n")?;
        assert!(!block.contains("event: gap"), "{block}");
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
            return Some((id, data));
        }
    }
}

/// Writes events until the time is over; how many.
fn feed(producer: &mut Running, until: Instant) -> u64 {
    let mut n = 0;
    while Instant::now() < until {
        let mut block = String::new();
        for _ in 0..AT_ONCE {
            writeln!(block, "{}", event(n)).expect("room");
            n += 1;
        }
        producer.write(block);
        thread::sleep(Duration::from_millis(20));
    }
    n
}

fn descriptors(server: &Running) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("a process's files").count()
}

#[test]
fn whoever_reads_on_has_every_byte_beside_readers_that_behave_badly() {
    let window = "--history 100000 --history-bytes 64MiB --slow-reader disconnect --retry-max 50ms --ping-interval 1s";
    let options = || window.split(' ');
    let mut origin = Wsevent::line("--produce - --deflate").args(options()).piped().serve();
    let first = Wsevent::new(["--deflate", "--consume", &origin.ws_url()]).args(options()).serve();
    let second = Wsevent::new(["--consume", &first.ws_url()]).args(options()).serve();
    let soak = Soak { ends: AtomicBool::new(false), broken: AtomicU64::new(0) };
    let urls = [origin.ws_url(), first.ws_url(), second.ws_url()];
    let (written, ends) = thread::scope(|scope| {
        let soak = &soak;
        let mut steady = Vec::new();
        for url in &urls {
            steady.extend([0, 1].map(|_| scope.spawn(move || soak.steady(url))));
        }
        // They see the very first event.
        for (server, readers) in [(&origin, 3), (&first, 3), (&second, 2)] {
            eventually("the readers", || (server.topic()["readers"] == readers).then_some(()));
        }
        let calm = [descriptors(&origin), descriptors(&first), descriptors(&second)];
        let mut rest = Vec::new();
        for (seed, url) in urls.iter().enumerate() {
            let seed = seed as u64;
            rest.push(scope.spawn(move || soak.rude(url, seed)));
            rest.push(scope.spawn(move || soak.rude(url, seed + 2)));
            rest.push(scope.spawn(move || soak.asleep(url)));
            rest.push(scope.spawn(move || soak.asleep(url)));
            rest.push(scope.spawn(move || soak.resuming(url, seed * 5)));
            rest.push(scope.spawn(move || soak.resuming(url, seed * 5 + 2)));
        }
        let written = feed(&mut origin, Instant::now() + Duration::from_secs(seconds()));
        for server in [&origin, &first, &second] {
            assert!(server.memory() < HIGHEST, "{} KiB", server.memory());
        }
        soak.ends.store(true, Ordering::Relaxed);
        // They wait for events, too.
        let more = (written..written + 2000).map(|n| event(n) + "\n").collect::<String>();
        origin.write(more);
        rest.into_iter().for_each(|reader| reader.join().expect("a reader that was told the truth"));
        for (server, calm) in [&origin, &first, &second].into_iter().zip(calm) {
            eventually("nothing left of those who went", || (descriptors(server) <= calm + 1).then_some(()));
        }
        origin.close_stdin();
        (written + 2000, steady.into_iter().map(|reader| reader.join().expect("a reader")).collect::<Vec<_>>())
    });
    assert_eq!(ends, [written; 6], "each steady reader had the last event");
    assert!(soak.broken.load(Ordering::Relaxed) > seconds() * 3, "hardly anybody hung up");
    eprintln!("{written} events, {} connections broken", soak.broken.load(Ordering::Relaxed));
}
