//! How far a run is, on a terminal's last line.

use super::board::Board;
use crate::logging::LogWriter;
use std::{
    io::{IsTerminal, Write, stderr},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Between two looks.
const PACE: Duration = Duration::from_millis(200);

/// Says nothing where standard error is no terminal.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    last: Option<Instant>,
}

impl Progress {
    /// Looks where standard error goes.
    pub fn new() -> Self {
        Progress { shown: stderr().is_terminal(), last: None }
    }

    /// How many of the readers are there.
    pub fn connecting(&mut self, board: &Board, readers: usize) {
        if self.last.is_none_or(|last| last.elapsed() >= PACE) {
            self.last = Some(Instant::now());
            let failed = board.failed.get();
            let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
            self.say(&format!("connecting: {} of {readers}{failed}", board.connected.get()));
        }
    }

    /// How many events come; never returns.
    pub async fn measuring(&self, board: &Board) {
        let began = Instant::now();
        loop {
            let before = board.events.get();
            sleep(PACE * 5).await;
            let rate = board.events.get() - before;
            let late = board.latencies.borrow().percentiles();
            let late = late.map_or_else(String::new, |late| format!(", p99 {:.1} ms", late.p99 as f64 / 1000.0));
            self.say(&format!(
                "{} s: {} readers, {rate} events/s{late}",
                began.elapsed().as_secs(),
                board.connected.get() - board.ended.get()
            ));
        }
    }

    /// Leaves the line empty.
    pub fn end(&self) {
        self.say("");
    }

    fn say(&self, text: &str) {
        if self.shown {
            let _ = LogWriter::default().write_all(format!("\r\x1b[K{text}").as_bytes());
        }
    }
}
