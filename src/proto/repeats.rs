//! What was published under an `Idempotency-Key`: who says the same again within the window gets the same answer, and
//! nothing is published twice. Keys live as long as the events that they stand for, and not across a restart.

use crate::{
    id::{Id, Since},
    log::Start,
    topic::Topic,
    units::now_ms,
};
use serde_json::Value;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard},
};

/// What a request with a key is.
#[derive(Debug, PartialEq)]
pub enum Turn {
    /// New: it is to be published and [settled](Repeats::settle).
    First,
    /// Answered before, so.
    Again(Value),
    /// Still being published.
    Busy,
    /// The key stands for something else.
    Another,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Repeats {
    topics: Mutex<HashMap<String, Keys>>,
}

/// One topic's.
#[derive(Debug, Default)]
struct Keys {
    by_key: HashMap<String, Entry>,
    /// Oldest first.
    settled: VecDeque<String>,
}

#[derive(Debug)]
struct Entry {
    /// Of what was said.
    fingerprint: u64,
    /// Where the topic stood then, and the answer; `None` while it is being published.
    answer: Option<(Option<Id>, Value)>,
}

impl Repeats {
    fn topics(&self) -> MutexGuard<'_, HashMap<String, Keys>> {
        self.topics.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Whose turn a request with this key is.
    pub fn begin(&self, topic: &Topic, key: &str, fingerprint: u64) -> Turn {
        let mut topics = self.topics();
        let keys = topics.entry(topic.path.clone()).or_default();
        keys.forget(topic);
        match keys.by_key.get(key) {
            None => {
                keys.by_key.insert(key.to_owned(), Entry { fingerprint, answer: None });
                Turn::First
            }
            Some(entry) if entry.fingerprint != fingerprint => Turn::Another,
            Some(Entry { answer: Some((_, answer)), .. }) => Turn::Again(answer.clone()),
            Some(_) => Turn::Busy,
        }
    }

    /// What came of it.
    pub fn settle(&self, topic: &Topic, key: &str, answer: Value) {
        let mut topics = self.topics();
        let keys = topics.entry(topic.path.clone()).or_default();
        if let Some(entry) = keys.by_key.get_mut(key) {
            entry.answer = Some((topic.log.last(), answer));
            keys.settled.push_back(key.to_owned());
        }
    }
}

impl Keys {
    /// What lies behind the window.
    fn forget(&mut self, topic: &Topic) {
        while let Some(key) = self.settled.front() {
            let place = self.by_key.get(key).and_then(|entry| entry.answer.as_ref()?.0.clone());
            let is_gone = |id| matches!(topic.log.seek(Some(&Since::After(id)), now_ms()), Start::Gap(..));
            if !place.is_some_and(is_gone) {
                return;
            }
            self.by_key.remove(key);
            self.settled.pop_front();
        }
    }
}
