//! Dummy events: `<n>: <serve-address>: <10 random letters>` and a line feed, every 100 ms.

use crate::{event::Event, topic::Topic, units::now_ms};
use rand::RngExt;
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

const PACE: Duration = Duration::from_millis(100);
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Publishes for ever.
pub async fn run(topic: Arc<Topic>, serve_address: String) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for n in 0u64.. {
        pace.tick().await;
        topic.publish_with_patience(vec![Event::new(dummy(n, &serve_address))], now_ms()).await;
    }
}

fn dummy(n: u64, serve_address: &str) -> String {
    let mut random = rand::rng();
    let letters = (0..10).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]));
    format!("{n}: {serve_address}: {}\n", letters.collect::<String>())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_dummy_event_has_its_documented_form() {
        let event = super::dummy(7, "localhost:8080");
        let letters = event.strip_prefix("7: localhost:8080: ").and_then(|rest| rest.strip_suffix('\n'));
        let letters = letters.expect("the documented form");
        assert!(letters.len() == 10 && letters.bytes().all(|b| b.is_ascii_alphabetic()), "{event:?}");
    }
}
