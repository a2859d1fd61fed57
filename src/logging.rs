//! The way of log lines to standard error: a bounded queue, and a thread that empties it.
//!
//! Logging never waits for the reader of the log. Lines that find no room, or that standard error does not take, are
//! dropped and counted; a line of its own says so once writing works again.

use crate::stdio::Patient;
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, Write},
    mem,
    panic::{self, PanicHookInfo},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait for standard error.
const ROOM: usize = 1 << 20;
/// Room beyond that, for the notice of a loss and for the last words of the process.
const RESERVE: usize = 16 << 10;
/// Time that standard error has to take the last lines before an exit.
const LAST_LINES: Duration = Duration::from_secs(1);

static QUEUE: LineQueue = LineQueue::new();

/// Starts the thread that writes log lines; a panic is told as they are.
pub fn start() {
    let spawned = thread::Builder::new().name("log".into()).spawn(|| {
        let mut outlet = Outlet::new(Patient(io::stderr()));
        loop {
            QUEUE.turn(&mut outlet, tell_loss);
        }
    });
    QUEUE.lock().has_thread = spawned.is_ok();
    panic::set_hook(Box::new(tell_panic));
}

/// Puts text for people behind the log lines that are on their way.
pub fn say(text: &str) {
    QUEUE.push(text.as_bytes(), ROOM + RESERVE);
}

/// Waits until everything is written, for a second at most.
pub fn flush() {
    QUEUE.flush();
}

/// Lines that were dropped since the start.
pub fn dropped_lines() -> u64 {
    QUEUE.dropped.load(Relaxed)
}

/// The log's writer: puts each line into the queue, and never fails.
#[derive(Clone, Copy, Debug)]
pub struct LogWriter {
    room: usize,
}

impl Default for LogWriter {
    fn default() -> Self {
        LogWriter { room: ROOM }
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&self) -> LogWriter {
        *self
    }

    fn make_writer_for(&self, of: &Metadata<'_>) -> LogWriter {
        if of.target() == module_path!() { LogWriter { room: ROOM + RESERVE } } else { *self }
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line, self.room);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs how many lines were dropped so far: as an error, which `--quiet` lets through.
fn tell_loss(dropped_lines: u64) {
    tracing::error!(dropped_lines, "log lines were dropped since the start: standard error did not take them");
}

/// Tells of a panic as the standard library does, without its wait for standard error.
fn tell_panic(info: &PanicHookInfo<'_>) {
    let trace = Backtrace::capture();
    let trace = if trace.status() == BacktraceStatus::Captured { format!("{trace}\n") } else { String::new() };
    say(&format!("thread '{}' {info}\n{trace}", thread::current().name().unwrap_or("<unnamed>")));
    if cfg!(panic = "abort") {
        flush();
    }
}

/// Lines on their way to one writer.
struct LineQueue {
    lines: Mutex<WaitingLines>,
    filled: Condvar,
    emptied: Condvar,
    dropped: AtomicU64,
}

struct WaitingLines {
    text: Vec<u8>,
    /// The thread has lines that it took from `text`.
    is_writing: bool,
    has_thread: bool,
}

impl LineQueue {
    const fn new() -> Self {
        LineQueue {
            lines: Mutex::new(WaitingLines { text: Vec::new(), is_writing: false, has_thread: false }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingLines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the text where it and what waits already need more room; a long text may wait alone.
    fn push(&self, text: &[u8], room: usize) {
        let mut lines = self.lock();
        if !lines.text.is_empty() && lines.text.len() + text.len() > room {
            self.dropped.fetch_add(count_lines(text), Relaxed);
            return;
        }
        lines.text.extend_from_slice(text);
        self.filled.notify_one();
    }

    /// Writes what waits, once there is something; tells of a loss behind the lines that came before it.
    fn turn<W: Write>(&self, outlet: &mut Outlet<W>, tell: impl Fn(u64)) {
        let dropped = self.dropped.load(Relaxed);
        if !outlet.is_failing && dropped > outlet.told {
            outlet.told = dropped;
            tell(dropped);
        }
        let lost = outlet.write(&self.take());
        self.dropped.fetch_add(lost, Relaxed);
    }

    fn take(&self) -> Vec<u8> {
        let mut lines = self.lock();
        lines.is_writing = false;
        if lines.text.is_empty() {
            self.emptied.notify_all();
        }
        let waited = self.filled.wait_while(lines, |lines| lines.text.is_empty());
        lines = waited.unwrap_or_else(PoisonError::into_inner);
        lines.is_writing = true;
        mem::take(&mut lines.text)
    }

    fn flush(&self) {
        let mut lines = self.lock();
        if lines.has_thread {
            let is_busy = |lines: &mut WaitingLines| lines.is_writing || !lines.text.is_empty();
            drop(self.emptied.wait_timeout_while(lines, LAST_LINES, is_busy));
        } else {
            Outlet::new(Patient(io::stderr())).write(&mem::take(&mut lines.text));
        }
    }
}

/// A writer that may fail, and what it owes.
struct Outlet<W> {
    out: W,
    /// The last write failed.
    is_failing: bool,
    /// The last line was written in part.
    is_torn: bool,
    /// Dropped lines that were told of.
    told: u64,
}

impl<W: Write> Outlet<W> {
    fn new(out: W) -> Self {
        Outlet { out, is_failing: false, is_torn: false, told: 0 }
    }

    /// Writes lines and returns how many were not written.
    fn write(&mut self, text: &[u8]) -> u64 {
        // A line does not go on where another one was torn.
        if self.is_torn {
            self.is_torn = self.put(b"\n") > 0;
        }
        let left = if self.is_torn { text.len() } else { self.put(text) };
        let (written, rest) = text.split_at(text.len() - left);
        self.is_failing = left > 0;
        self.is_torn = self.is_torn || left > 0 && written.last().is_some_and(|last| *last != b'\n');
        count_lines(rest)
    }

    /// Returns how many bytes could not be written.
    fn put(&mut self, text: &[u8]) -> usize {
        let mut rest = text;
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(n @ 1..) => rest = rest.get(n..).unwrap_or_default(),
                _ => break,
            }
        }
        rest.len()
    }
}

fn count_lines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes and refuses all others.
    #[derive(Default)]
    struct Limited {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            self.written.extend_from_slice(&bytes[..taken]);
            self.room -= taken;
            if taken > 0 { Ok(taken) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A queue whose notices are `dropped N`.
    struct Bench {
        queue: LineQueue,
        outlet: Outlet<Limited>,
    }

    impl Bench {
        fn new(room: usize) -> Self {
            Bench { queue: LineQueue::new(), outlet: Outlet::new(Limited { written: Vec::new(), room }) }
        }

        fn push(&self, line: &str) {
            self.queue.push(line.as_bytes(), 8);
        }

        fn turn(&mut self) {
            let tell = |dropped| self.queue.push(format!("dropped {dropped}\n").as_bytes(), 100);
            self.queue.turn(&mut self.outlet, tell);
        }

        fn written(&self) -> &str {
            std::str::from_utf8(&self.outlet.out.written).expect("text")
        }
    }

    #[test]
    fn lines_without_room_are_dropped_and_told_where_they_are_missing() {
        let mut bench = Bench::new(1000);
        bench.push("first\n");
        bench.push("second\n");
        bench.push("third\n");
        bench.turn();
        bench.push("fourth\n");
        bench.turn();
        assert_eq!(bench.written(), "first\ndropped 2\nfourth\n");
    }

    #[test]
    fn a_line_of_any_length_may_wait_alone() {
        let mut bench = Bench::new(1000);
        bench.push("longer than all the room\n");
        bench.turn();
        assert_eq!((bench.written(), bench.queue.dropped.load(Relaxed)), ("longer than all the room\n", 0));
    }

    #[test]
    fn lines_that_are_refused_are_counted_and_told_once_writing_works() {
        let mut bench = Bench::new(0);
        bench.push("a\nb\n");
        bench.turn();
        bench.push("c\n");
        bench.turn();
        assert_eq!((bench.written(), bench.queue.dropped.load(Relaxed)), ("", 3), "no notice that is lost, too");
        bench.outlet.out.room = 1000;
        bench.push("d\n");
        bench.turn();
        bench.turn();
        bench.push("e\n");
        bench.turn();
        assert_eq!(bench.written(), "d\ndropped 3\ne\n");
    }

    #[test]
    fn a_line_begins_behind_the_end_of_a_torn_one() {
        let mut bench = Bench::new(3);
        bench.push("abcdef\n");
        bench.turn();
        bench.push("g\n");
        bench.turn();
        assert_eq!((bench.written(), bench.queue.dropped.load(Relaxed)), ("abc", 2));
        bench.outlet.out.room = 1000;
        bench.push("h\n");
        bench.turn();
        assert_eq!(bench.written(), "abc\nh\n");
    }
}
