//! How much of everything per second: totals are looked at once a second, and nothing else is ever counted for it.

use crate::{site::Site, topic::Topic};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks that a rate is taken over.
const SPAN: usize = 5;
/// Looks that are kept.
const KEPT: usize = 61;

/// Totals at one moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    events: u64,
    bytes: u64,
    delivered: u64,
}

/// Per second, over the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Events that came in.
    pub events: f64,
    /// Their bytes.
    pub bytes: f64,
    /// Events that went out, to all readers together.
    pub delivered: f64,
}

/// The looks so far, by topic.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<String, VecDeque<Look>>>);

impl Look {
    fn take(topic: &Topic, at: Instant) -> Self {
        let totals = topic.log.totals();
        Look { at, events: totals.events, bytes: totals.bytes, delivered: topic.tally.all().events }
    }

    fn rate_since(&self, before: &Look) -> Rate {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(0.001);
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Rate {
            events: per_second(self.events, before.events),
            bytes: per_second(self.bytes, before.bytes),
            delivered: per_second(self.delivered, before.delivered),
        }
    }
}

impl Rates {
    fn looks(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Look>>> {
        self.0.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn look(&self, topics: &[Arc<Topic>], now: Instant) {
        let mut all = self.looks();
        all.retain(|path, _| topics.iter().any(|topic| topic.path == *path));
        for topic in topics {
            let looks = all.entry(topic.path.clone()).or_default();
            if looks.len() == KEPT {
                looks.pop_front();
            }
            looks.push_back(Look::take(topic, now));
        }
    }

    /// What a topic does now.
    pub fn of(&self, topic: &Topic, now: Instant) -> Rate {
        let all = self.looks();
        let looks = all.get(&topic.path);
        let before = looks.and_then(|looks| looks.get(looks.len().saturating_sub(SPAN)));
        before.map_or_else(Rate::default, |before| Look::take(topic, now).rate_since(before))
    }

    /// Events per second in each of the last seconds, oldest first.
    pub fn recent(&self, topic: &Topic) -> Vec<f64> {
        let all = self.looks();
        let Some(looks) = all.get(&topic.path) else { return Vec::new() };
        looks.iter().zip(looks.iter().skip(1)).map(|(then, now)| now.rate_since(then).events).collect()
    }
}

/// Looks until the process ends.
pub async fn run(site: Arc<Site>) {
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        site.inside.rates.look(&site.topics(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Event,
        id::Epoch,
        log::{Limits, Log, Numbering},
        topic::Policy,
    };

    fn topic() -> Arc<Topic> {
        let log = Log::new(Numbering::Own(Epoch::new(1, 2)), Limits::default());
        Arc::new(Topic::new("/t".into(), log, Vec::new(), "", Policy::Disconnect))
    }

    #[test]
    fn rates_are_over_the_last_seconds() {
        let (rates, topic, start) = (Rates::default(), topic(), Instant::now());
        let at = |seconds: u64| start + EVERY * seconds as u32;
        assert_eq!(rates.of(&topic, start), Rate::default());
        for second in 0..100 {
            rates.look(std::slice::from_ref(&topic), at(second));
            // Twenty a second at first, then ten.
            let events = if second < 50 { 20 } else { 10 };
            (0..events).for_each(|_| drop(topic.publish(vec![Event::new("x")], 0)));
        }
        let rate = rates.of(&topic, at(100));
        assert!((rate.events - 10.0).abs() < 0.1, "{rate:?}");
        let recent = rates.recent(&topic);
        assert_eq!(recent.len(), KEPT - 1);
        assert!((recent[0] - 20.0).abs() < 0.1 && (recent[59] - 10.0).abs() < 0.1, "{recent:?}");
    }
}
