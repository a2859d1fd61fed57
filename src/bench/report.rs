//! What came of a run: as a table for people, as an object for programs, and what of it should not be.

use super::{Bench, cost::Cost, histogram::Percentiles, track::Faults};
use crate::units::printable;
use serde_json::{Value, json};
use std::{fmt, time::Duration};

/// Readers that are named one by one.
const NAMED: usize = 100;

/// How long things took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// From the first connection to the last answer.
    pub connecting: Duration,
    /// From then to the last event.
    pub measured: Duration,
    /// Events that had come when that began.
    pub events_before: u64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Report {
    url: Option<String>,
    asked: usize,
    connected: usize,
    stalled: usize,
    failed: usize,
    failures: Vec<(String, usize)>,
    connecting: Duration,
    handshakes: Option<Percentiles>,
    measured: Duration,
    /// While it was measured; all of them are more.
    rate: f64,
    events: u64,
    bytes: u64,
    stamped: u64,
    latencies: Option<Percentiles>,
    faults: Faults,
    /// Readers by number, with what is wrong with each.
    faulty: Vec<(usize, Faults)>,
    silent: usize,
    published: Option<u64>,
    /// Per event, per connection (both in microseconds), and in bytes per reader.
    cost: Option<[f64; 3]>,
}

impl Report {
    pub(super) fn new(bench: &Bench, timing: Timing, cost: Cost) -> Self {
        let (settings, board, ends) = (bench.settings, &bench.board, bench.board.ends());
        let during = board.events.get() - timing.events_before;
        let reading = || bench.tracks.iter().enumerate().skip(settings.stalled).map(|(i, tracks)| (i, tracks.borrow()));
        let judged = reading().map(|(i, tracks)| (i, tracks.judge(&ends)));
        let faulty: Vec<_> = judged.filter(|(_, faults)| !faults.is_none()).collect();
        let mut faults = Faults::default();
        faulty.iter().for_each(|(_, one)| faults += *one);
        let per = |time: Duration, n: u64| time.as_secs_f64() * 1e6 / n.max(1) as f64;
        let readers = board.connected.get() as u64;
        let costs =
            [per(cost.serving, during), per(cost.connecting, readers), cost.memory as f64 / readers.max(1) as f64];
        Report {
            url: settings.url.as_ref().map(crate::net::redacted),
            asked: settings.readers,
            connected: board.connected.get(),
            stalled: settings.stalled,
            failed: board.failed.get(),
            failures: board.failures.borrow().iter().map(|(why, n)| (why.clone(), *n)).collect(),
            connecting: timing.connecting,
            handshakes: board.handshakes.borrow().percentiles(),
            measured: timing.measured,
            rate: during as f64 / timing.measured.as_secs_f64().max(1e-6),
            events: board.events.get(),
            bytes: board.bytes.get(),
            stamped: board.stamped.get(),
            latencies: board.latencies.borrow().percentiles(),
            faults,
            faulty,
            silent: if ends.is_empty() { 0 } else { reading().filter(|(_, tracks)| tracks.is_silent()).count() },
            published: board.source.get().map(|_| board.published.get()),
            cost: (!settings.pids.is_empty()).then_some(costs),
        }
    }

    /// Whether there was anybody to measure.
    pub fn is_connected(&self) -> bool {
        self.connected > 0 || self.asked == 0
    }

    /// What `--verify` finds.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self.failures.iter().map(|(why, n)| format!("{n} readers: {why}")).collect();
        let Faults { lost, repeated, late } = self.faults;
        if !self.faults.is_none() {
            let readers = self.faulty.len();
            wrong.push(format!("{readers} readers at fault: {lost} lost, {repeated} repeated, {late} out of order"));
        }
        if self.silent > 0 {
            wrong.push(format!("{} readers got no stamped event", self.silent));
        }
        if self.stamped == 0 {
            wrong.push("no event carried a stamp, so nothing can be verified".into());
        }
        wrong
    }

    /// As an object; times in microseconds but where it says seconds.
    pub fn to_json(&self) -> Value {
        let percentiles = |of: Option<Percentiles>| of.map(Percentiles::to_json);
        let faults = |of: &Faults| json!({ "lost": of.lost, "repeated": of.repeated, "out_of_order": of.late });
        let faulty =
            self.faulty.iter().take(NAMED).map(|(reader, of)| json!({ "reader": reader, "faults": faults(of) }));
        let failures = self.failures.iter().map(|(why, n)| json!({ "why": why, "readers": n }));
        json!({
            "url": self.url,
            "readers": {
                "asked": self.asked, "connected": self.connected, "failed": self.failed, "stalled": self.stalled,
                "silent": self.silent, "failures": failures.collect::<Vec<_>>(),
            },
            "connect_seconds": self.connecting.as_secs_f64(),
            "handshake_us": percentiles(self.handshakes),
            "seconds": self.measured.as_secs_f64(),
            "events": self.events,
            "bytes": self.bytes,
            "events_per_second": self.rate,
            "stamped": self.stamped,
            "latency_us": percentiles(self.latencies),
            "faults": faults(&self.faults),
            "faulty_readers": self.faulty.len(),
            "faulty": faulty.collect::<Vec<_>>(),
            "published": self.published,
            "cost": self.cost.map(|[event, connection, memory]| json!({
                "cpu_us_per_event": event, "cpu_us_per_connection": connection, "memory_per_reader": memory,
            })),
        })
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        if self.asked > 0 {
            let stalled =
                if self.stalled > 0 { format!(", {} of them never read", self.stalled) } else { String::new() };
            let seconds = self.connecting.as_secs_f64();
            let (asked, connected) = (self.asked, self.connected);
            rows.push(("readers", format!("{connected} of {asked} connected in {seconds:.2} s{stalled}")));
            rows.extend(self.failures.iter().map(|(why, n)| ("", format!("{n}: {}", printable(why)))));
            rows.extend(self.handshakes.map(|times| ("handshake", times.to_string())));
            let (seconds, megabytes) = (self.measured.as_secs_f64(), self.bytes as f64 / 1e6);
            let (events, rate) = (self.events, self.rate);
            rows.push(("events", format!("{events}, {rate:.0}/s over {seconds:.1} s, {megabytes:.1} MB")));
            rows.extend(self.latencies.map(|times| ("latency", times.to_string())));
        }
        if self.stamped > 0 {
            let Faults { lost, repeated, late } = self.faults;
            let readers = self.faulty.len() + self.silent;
            let at_fault = if readers > 0 { format!(", at {readers} readers") } else { String::new() };
            rows.push(("stamps", format!("{lost} lost, {repeated} repeated, {late} out of order{at_fault}")));
        }
        rows.extend(self.published.map(|n| ("published", format!("{n} events"))));
        rows.extend(self.cost.map(|[event, connection, memory]| {
            let words = format!("{event:.3} µs per event, {connection:.1} µs per connection, {memory:.0} B per reader");
            ("cost", words)
        }));
        rows
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows().iter().try_for_each(|(name, value)| writeln!(f, "{name:<10} {value}"))
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        let Percentiles { p50, p90, p99, max } = *self;
        write!(f, "p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, max {:.2} ms", ms(p50), ms(p90), ms(p99), ms(max))
    }
}
