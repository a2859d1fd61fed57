//! Stages that thin a stream out: `--sample`, `--throttle`, `--dedupe`. What they let through depends on what came
//! before, so a topic with one of them numbers its events itself (LINKS 3).

use crate::{
    event::{self, Event},
    topic::Stage,
    units,
};
use std::{
    collections::{HashSet, VecDeque},
    str::FromStr,
    time::{Duration, Instant},
};

/// `--sample N`: every N-th event.
pub struct Sample {
    every: u64,
    seen: u64,
}

impl Sample {
    /// 1 is all of them.
    pub fn new(every: u64) -> Self {
        Sample { every: every.max(1), seen: 0 }
    }
}

impl Stage for Sample {
    fn apply(&mut self, event: Event, out: &mut Vec<Event>) {
        if self.seen.is_multiple_of(self.every) {
            out.push(event);
        }
        self.seen += 1;
    }

    fn is_pure(&self) -> bool {
        false
    }
}

/// At most so many events in so long, as in `10/s`, `1/5m`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Events.
    pub events: u32,
    /// In this time.
    pub per: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a rate: type for instance 10/s or 1/5m");
        let (events, per) = text.split_once('/').ok_or_else(wrong)?;
        let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
        let events = events.parse().map_err(|_| wrong())?;
        let per = units::duration(&per).map_err(|_| wrong())?;
        if events == 0 || per.is_zero() { Err(wrong()) } else { Ok(Rate { events, per }) }
    }
}

/// `--throttle RATE`: the first ones of each stretch of time, the rest is dropped.
pub struct Throttle {
    rate: Rate,
    since: Option<Instant>,
    passed: u32,
}

impl Throttle {
    /// At that rate.
    pub fn new(rate: Rate) -> Self {
        Throttle { rate, since: None, passed: 0 }
    }

    fn admits(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= self.rate.per) {
            (self.since, self.passed) = (Some(now), 0);
        }
        self.passed += 1;
        self.passed <= self.rate.events
    }
}

impl Stage for Throttle {
    fn apply(&mut self, event: Event, out: &mut Vec<Event>) {
        if self.admits(Instant::now()) {
            out.push(event);
        }
    }

    fn is_pure(&self) -> bool {
        false
    }
}

/// How many values `--dedupe` remembers.
const REMEMBERED: usize = 65_536;

/// `--dedupe POINTER`: drops an event whose value at the JSON pointer (RFC 6901) was seen among the newest 65,536.
/// Events without that value pass.
pub struct Dedupe {
    pointer: String,
    seen: HashSet<String>,
    order: VecDeque<String>,
}

impl Dedupe {
    /// Compares values at this pointer; the empty one is the whole payload.
    pub fn new(pointer: String) -> Self {
        Dedupe { pointer, seen: HashSet::new(), order: VecDeque::new() }
    }

    fn is_new(&mut self, value: String) -> bool {
        if !self.seen.insert(value.clone()) {
            return false;
        }
        self.order.push_back(value);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

impl Stage for Dedupe {
    fn apply(&mut self, event: Event, out: &mut Vec<Event>) {
        let value = event::value_of(&event.payload);
        let value = value.as_ref().and_then(|value| value.pointer(&self.pointer)).map(ToString::to_string);
        if value.is_none_or(|value| self.is_new(value)) {
            out.push(event);
        }
    }

    fn is_pure(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(mut stage: impl Stage, payloads: &[&str]) -> Vec<String> {
        let mut out = Vec::new();
        for payload in payloads {
            stage.apply(Event::new(payload.as_bytes().to_vec()), &mut out);
        }
        out.iter().map(|event| String::from_utf8_lossy(&event.payload).into_owned()).collect()
    }

    #[test]
    fn sample_passes_every_nth() {
        assert_eq!(through(Sample::new(3), &["1", "2", "3", "4", "5"]), ["1", "4"]);
    }

    #[test]
    fn dedupe_drops_repeats_of_the_value() {
        let payloads = [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":1,"x":2}"#, "no json", "no json", r#"{"id":3}"#];
        let kept = [payloads[0], payloads[1], payloads[3], payloads[4], payloads[5]];
        assert_eq!(through(Dedupe::new("/id".into()), &payloads), kept);
    }

    #[test]
    fn throttle_starts_anew_with_each_stretch() {
        let mut throttle = Throttle::new(Rate { events: 2, per: Duration::from_secs(1) });
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let admitted: Vec<bool> = [0, 10, 20, 999, 1000, 1500, 1600].map(|ms| throttle.admits(at(ms))).into();
        assert_eq!(admitted, [true, true, false, false, true, true, false]);
    }

    #[test]
    fn rates() {
        let rate = |events, secs| Ok(Rate { events, per: Duration::from_secs(secs) });
        assert_eq!("10/s".parse(), rate(10, 1));
        assert_eq!("1/5m".parse(), rate(1, 300));
        for bad in ["", "10", "0/s", "x/s", "1/", "1/0s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
