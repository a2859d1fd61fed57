//! Room: publishers that may wait do not outrun the fan-out, so that readers who keep up lose nothing at any offered rate.

use super::Log;
use crate::pins::Pins;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A source stays so few bytes ahead of whoever is foremost: what it read is written while it is still in the processor's
/// cache.
const LEAD: u64 = 512 << 10;
/// Where nobody stands.
const NOBODY: u64 = u64::MAX;

/// How far the readers of one fan-out thread have come, or one reader of another kind; kept by them.
pub struct Pump {
    foremost: AtomicU64,
    hindmost: AtomicU64,
}

impl Pump {
    /// Who has come furthest, and who has not but is still waited for; says whether that is news.
    pub fn stand(&self, at: Option<(u64, u64)>) -> bool {
        let (foremost, hindmost) = at.unwrap_or((NOBODY, NOBODY));
        let moved = self.foremost.swap(foremost, Ordering::SeqCst) != foremost;
        (self.hindmost.swap(hindmost, Ordering::SeqCst) != hindmost) | moved
    }
}

/// Somebody who waits for room, for as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Log {
    /// A place to say how far readers have come.
    pub fn add_pump(&self) -> Arc<Pump> {
        let pump = Arc::new(Pump { foremost: AtomicU64::new(NOBODY), hindmost: AtomicU64::new(NOBODY) });
        self.pumps.lock().unwrap_or_else(|p| p.into_inner()).push(pump.clone());
        pump
    }

    /// The owner of a pump moved it. Who waits for room is woken when there is enough of it to be worth while.
    pub fn pump_moved(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 && self.is_led_by_less_than(LEAD / 2) {
            self.signal_room();
        }
    }

    /// Waits until a publisher that can wait may append: at once unless every reader is [`LEAD`] behind, or one who only
    /// just fell behind is half a window, or the policy is `block` and the unacknowledged part fills the window
    /// (LINKS 19). Returns how many pins of departed readers were given up.
    pub async fn room(&self) -> usize {
        if self.is_led_by_less_than(LEAD) {
            return 0;
        }
        let mut acks = self.watch_acks();
        let _waiting = Waiting::of(&self.waiting);
        let mut expired = 0;
        while !self.is_led_by_less_than(LEAD / 2) {
            // The second is for pins whose grace ends without any event.
            let _ = tokio::time::timeout(Duration::from_secs(1), acks.changed()).await;
            expired += self.expire_pins(Instant::now());
        }
        expired
    }

    /// Whether a publisher may append that had better not wait.
    pub fn has_room(&self) -> bool {
        self.is_led_by_less_than(u64::MAX)
    }

    /// Whether an append would be less than that far ahead of the foremost reader, within half a window of the hindmost,
    /// and not against `block`.
    fn is_led_by_less_than(&self, lead: u64) -> bool {
        let (mut foremost, mut hindmost) = (None, NOBODY);
        for pump in self.pumps.lock().unwrap_or_else(|p| p.into_inner()).iter() {
            let at = pump.foremost.load(Ordering::SeqCst);
            foremost = foremost.max(Some(at).filter(|&at| at != NOBODY));
            hindmost = hindmost.min(pump.hindmost.load(Ordering::SeqCst));
        }
        let state = self.state();
        let low = state.pins.as_ref().and_then(Pins::low);
        let behind = |offset: u64| state.totals.bytes - state.bytes_before(offset.min(state.end));
        let limits = &state.limits;
        low.is_none_or(|low| behind(low) < limits.bytes)
            && foremost.is_none_or(|foremost| behind(foremost) < lead)
            && (hindmost >= state.end
                || behind(hindmost) < limits.bytes / 2 && state.end - hindmost < limits.events / 2)
    }
}
