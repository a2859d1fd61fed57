//! Events on which a stage's program fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// What becomes of them: they are counted, dropped, and told at most once a second.
#[derive(Default)]
pub struct Failures {
    /// How many there were.
    pub all: Arc<AtomicU64>,
    since_told: u64,
    told: Option<Instant>,
}

impl Failures {
    /// One more; `what` is said of the program in the log.
    pub fn count(&mut self, what: &str, program: &str, error: &str) {
        self.all.fetch_add(1, Relaxed);
        self.since_told += 1;
        if self.told.is_none_or(|told| told.elapsed() >= Duration::from_secs(1)) {
            tracing::warn!(program, error, events = self.since_told, "{what}");
            self.since_told = 0;
            self.told = Some(Instant::now());
        }
    }
}
