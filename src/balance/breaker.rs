//! A circuit breaker: after some failures in a row its owner is left alone for a while, then tried again.
//!
//! Pure: time is a parameter, and what to do about a change of state is the caller's business.

use std::time::{Duration, Instant};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Failures in a row.
    pub failures: u32,
    /// Open for `base · 2^(n−1)` behind the n-th failure in a row …
    pub base: Duration,
    /// … but never for longer than this.
    pub cap: Duration,
}

impl Default for Settings {
    /// Five failures; 16 seconds first, then 30.
    fn default() -> Self {
        Settings { failures: 5, base: Duration::from_secs(1), cap: Duration::from_secs(30) }
    }
}

/// Whether its owner is to be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    /// Yes.
    Closed,
    /// Not before that time.
    Open(Instant),
    /// Yes, to see whether it is well again.
    HalfOpen,
}

impl State {
    /// What the state is called in status and events.
    pub fn name(&self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open(_) => "open",
            State::HalfOpen => "half_open",
        }
    }
}

/// See the module's text. What changes its state returns the new one, once per change.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: Settings,
    state: State,
    failures: u32,
}

impl Breaker {
    /// Closed.
    pub fn new(settings: Settings) -> Self {
        Breaker { settings, state: State::Closed, failures: 0 }
    }

    /// As it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// In a row, up to now.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Time passes: an open one is half open once its delay is over.
    pub fn tick(&mut self, now: Instant) -> Option<State> {
        match self.state {
            State::Open(until) if now >= until => self.turn(State::HalfOpen),
            _ => None,
        }
    }

    /// Its owner did what it was asked.
    pub fn succeeded(&mut self) -> Option<State> {
        self.failures = 0;
        if self.state == State::Closed { None } else { self.turn(State::Closed) }
    }

    /// Its owner did not. What fails while it is open was tried for lack of a better one, and changes nothing.
    pub fn failed(&mut self, now: Instant) -> Option<State> {
        if matches!(self.state, State::Open(_)) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let opens = self.state == State::HalfOpen || self.failures >= self.settings.failures;
        if opens { self.turn(State::Open(now + self.delay())) } else { None }
    }

    fn turn(&mut self, state: State) -> Option<State> {
        self.state = state;
        Some(state)
    }

    fn delay(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(31);
        self.settings.base.saturating_mul(1 << doublings).min(self.settings.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened(breaker: &mut Breaker, now: Instant) -> Option<Duration> {
        match breaker.failed(now) {
            Some(State::Open(until)) => Some(until - now),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn five_failures_open_it_for_sixteen_seconds_then_for_thirty() {
        let (mut breaker, now) = (Breaker::new(Settings::default()), Instant::now());
        for _ in 0..4 {
            assert_eq!(opened(&mut breaker, now), None);
        }
        assert_eq!(opened(&mut breaker, now), Some(16 * SECOND));
        assert_eq!(breaker.failures(), 5);
        assert_eq!(breaker.tick(now + 15 * SECOND), None);
        assert_eq!(breaker.tick(now + 16 * SECOND), Some(State::HalfOpen));
        assert_eq!(breaker.tick(now + 17 * SECOND), None, "told once");
        assert_eq!(opened(&mut breaker, now), Some(30 * SECOND));
    }

    #[test]
    fn a_success_closes_it_and_forgets() {
        let (mut breaker, now) = (Breaker::new(Settings { failures: 2, ..Settings::default() }), Instant::now());
        breaker.failed(now);
        assert_eq!(breaker.succeeded(), None, "it was closed");
        assert_eq!(breaker.failed(now), None, "the first in a row");
        assert!(matches!(breaker.failed(now), Some(State::Open(_))));
        assert_eq!(breaker.failed(now), None, "open already");
        assert_eq!(breaker.failures(), 2);
        assert_eq!(breaker.succeeded(), Some(State::Closed));
        assert_eq!(breaker.failures(), 0);
    }

    #[test]
    fn delays_do_not_overflow() {
        let settings = Settings { failures: 1, base: Duration::MAX / 2, cap: Duration::from_secs(5) };
        let (mut breaker, now) = (Breaker::new(settings), Instant::now());
        for _ in 0..100 {
            assert_eq!(opened(&mut breaker, now), Some(5 * SECOND));
            breaker.tick(now + 5 * SECOND);
        }
    }
}
