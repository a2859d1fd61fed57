//! What was published under an `Idempotency-Key`: who says the same again within the window gets the same answer, and
//! nothing is published twice. Keys live as long as the events that they stand for; across a restart where a journal kept
//! them beside these.

use crate::{
    id::{Id, Seq, Since},
    log::Start,
    recorder::{Note, Tag},
    topic::Topic,
    units::now_ms,
};
use serde_json::{Value, json};
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

/// What a journal's notes about keys are called, up to which one.
const KEY: &str = "key ";

/// What a journal keeps of a key: enough for the answer, once the ids are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Of what was said.
    pub fingerprint: u64,
    /// The answer tells the first id and the count, too.
    pub many: bool,
    /// Events.
    pub count: usize,
    /// Whom they reached.
    pub readers: usize,
    /// The first id, where it is not `count` whole numbers before the last one of the batch beside which this is kept.
    pub first: Option<String>,
}

impl Kept {
    /// As a note beside the last batch.
    pub fn note(&self, key: &str) -> Note {
        let value = json!({
            "fingerprint": self.fingerprint,
            "many": self.many,
            "count": self.count,
            "readers": self.readers,
            "first": self.first,
        });
        Note { name: format!("{KEY}{key}"), value: value.to_string().into(), lasting: false }
    }

    fn read(value: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(value).ok()?;
        let number = |name: &str| value.get(name).and_then(Value::as_u64);
        Some(Kept {
            fingerprint: number("fingerprint")?,
            many: value.get("many")?.as_bool()?,
            count: number("count")? as usize,
            readers: number("readers")? as usize,
            first: value.get("first").and_then(Value::as_str).map(String::from),
        })
    }

    /// What the publisher is told; the ids are those of the last batch.
    pub fn answer(&self, first: &Id, last: &Id) -> Value {
        if !self.many {
            return json!({ "id": last.to_string(), "readers": self.readers });
        }
        let first = self.first.clone().unwrap_or_else(|| first.to_string());
        json!({ "id": last.to_string(), "readers": self.readers, "first": first, "count": self.count })
    }
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

    /// Takes back what a journal kept.
    pub fn restore(&self, path: &str, tags: Vec<Tag>) {
        let mut topics = self.topics();
        let keys = topics.entry(path.to_owned()).or_default();
        for tag in tags {
            let (Some(key), Some(kept)) = (tag.name.strip_prefix(KEY), Kept::read(&tag.value)) else { continue };
            let behind = tag.last.seq.n.saturating_sub(kept.count.saturating_sub(1) as u64);
            let first = Id { seq: Seq::whole(behind.min(tag.first.seq.n)), ..tag.first };
            let answer = Some((Some(tag.last.clone()), kept.answer(&first, &tag.last)));
            keys.by_key.insert(key.to_owned(), Entry { fingerprint: kept.fingerprint, answer });
            keys.settled.push_back(key.to_owned());
        }
    }

    /// Nothing came of it: who says the same again is the first.
    pub fn give_up(&self, topic: &Topic, key: &str) {
        if let Some(keys) = self.topics().get_mut(&topic.path) {
            keys.by_key.remove(key);
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
