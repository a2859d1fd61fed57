//! The guard against mass expiry: when a large share falls silent at once, it is more likely that their heartbeats do
//! not reach us than that all of them died.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Counts who expired within the last time-out.
#[derive(Debug)]
pub struct Guard {
    /// The share in percent that may go within a time-out; from 100 on there is no guard.
    percent: u32,
    window: Duration,
    recent: VecDeque<(Instant, usize)>,
    holding: bool,
}

impl Guard {
    /// Lets go at most `percent` of the instances within `window`.
    pub fn new(percent: u32, window: Duration) -> Self {
        Guard { percent, window, recent: VecDeque::new(), holding: false }
    }

    /// Whether these many of the instances that are present may go now.
    pub fn lets_go(&mut self, overdue: usize, present: usize, now: Instant) -> bool {
        while self.recent.front().is_some_and(|(then, _)| now.duration_since(*then) > self.window) {
            self.recent.pop_front();
        }
        let gone: usize = self.recent.iter().map(|(_, count)| count).sum();
        let too_many = (gone + overdue) * 100 > self.percent as usize * (gone + present);
        let holds = self.percent < 100 && too_many;
        if holds != self.holding {
            self.holding = holds;
            match holds {
                true => tracing::warn!(overdue, present, "too many instances are silent at once: none is removed"),
                false => tracing::info!("most instances are heard again: silent ones are removed"),
            }
        }
        if !holds && self.percent < 100 {
            self.recent.push_back((now, overdue));
        }
        !holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_share_is_held_also_when_it_goes_one_by_one() {
        let (window, start) = (Duration::from_secs(30), Instant::now());
        let second = |n: u64| start + Duration::from_secs(n);
        let mut guard = Guard::new(20, window);
        assert!(guard.lets_go(1, 10, second(0)));
        assert!(guard.lets_go(1, 9, second(1)));
        assert!(!guard.lets_go(1, 8, second(2)), "the third of ten");
        assert!(guard.lets_go(1, 8, second(32)), "the first two are long gone");
        assert!(!guard.lets_go(8, 8, second(33)));
        assert!(Guard::new(100, window).lets_go(8, 8, start));
    }
}
