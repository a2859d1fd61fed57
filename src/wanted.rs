//! Readers' own matches: readers with an equal one share it, and each batch is judged once for all of them.
//!
//! What was found out about a batch is remembered for the newest batches only: readers at the tip of a topic need no
//! more, and a reader costs no memory by what it asks for.

use crate::{event::Batch, id::Id, matcher::Match};
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Batches, and indices in all of them, that are remembered for each match.
const REMEMBERED: usize = 256;
const REMEMBERED_INDICES: usize = 16_384;

/// A match that readers share.
#[derive(Debug)]
pub struct Wanted {
    wanted: Match,
    judged: Mutex<Judged>,
    evaluated: Arc<AtomicU64>,
}

/// Which events of the newest batches match, by the name of the batch's first event.
#[derive(Debug, Default)]
struct Judged {
    verdicts: VecDeque<(Id, Arc<[u32]>)>,
    indices: usize,
}

impl Wanted {
    /// The indices of the events that match, rising.
    pub fn of(&self, batch: &Batch) -> Arc<[u32]> {
        let mut judged = self.judged.lock().unwrap_or_else(|p| p.into_inner());
        let first = batch.id(0);
        if let Some((_, verdict)) = judged.verdicts.iter().rev().find(|(id, _)| *id == first) {
            return verdict.clone();
        }
        // Under the lock: whoever else asks now needs this very answer.
        self.evaluated.fetch_add(batch.len() as u64, Relaxed);
        let matching = batch.events().filter(|(_, event)| self.wanted.matches(&event.payload));
        let verdict: Arc<[u32]> = matching.map(|(i, _)| i as u32).collect();
        judged.remember(first, verdict.clone());
        verdict
    }
}

impl Judged {
    fn remember(&mut self, first: Id, verdict: Arc<[u32]>) {
        self.indices += verdict.len();
        self.verdicts.push_back((first, verdict));
        while self.verdicts.len() > REMEMBERED || (self.indices > REMEMBERED_INDICES && self.verdicts.len() > 1) {
            self.indices -= self.verdicts.pop_front().map_or(0, |(_, verdict)| verdict.len());
        }
    }
}

/// The matches of one topic's readers.
#[derive(Debug, Default)]
pub struct Wishes {
    known: Mutex<Known>,
    evaluated: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Known {
    by_text: HashMap<String, Weak<Wanted>>,
    /// At this length those without readers are forgotten.
    prune_at: usize,
}

impl Wishes {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// The match as all readers with an equal one have it.
    pub fn share(&self, wanted: Match) -> Arc<Wanted> {
        let (text, mut known) = (wanted.to_text(), self.known());
        if let Some(shared) = known.by_text.get(&text).and_then(Weak::upgrade) {
            return shared;
        }
        let shared = Arc::new(Wanted { wanted, judged: Mutex::default(), evaluated: self.evaluated.clone() });
        known.by_text.insert(text, Arc::downgrade(&shared));
        if known.by_text.len() >= known.prune_at {
            known.by_text.retain(|_, wanted| wanted.strong_count() > 0);
            known.prune_at = 2 * known.by_text.len() + 16;
        }
        shared
    }

    /// How many different ones readers have now.
    pub fn count(&self) -> usize {
        self.known().by_text.values().filter(|wanted| wanted.strong_count() > 0).count()
    }

    /// Events that were held against a match so far.
    pub fn evaluated(&self) -> u64 {
        self.evaluated.load(Relaxed)
    }
}

impl Match {
    /// The same text for equal matches, however they were written.
    fn to_text(&self) -> String {
        let sorted = |fields: &Map<String, Value>| {
            let mut fields: Vec<(String, Value)> = fields.clone().into_iter().collect();
            fields.sort_by(|one, other| one.0.cmp(&other.0));
            fields
        };
        let alternatives: Vec<_> = self.alternatives().iter().map(sorted).collect();
        serde_json::to_string(&alternatives).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Event, Run, Seqs},
        id::Epoch,
    };

    fn batch(first: u64) -> Batch {
        let events = ["{\"a\":1}", "no", "{\"a\":1,\"b\":2}"].map(Event::new);
        Batch::new(Epoch::new(1, 2), Seqs::From(first), 0, Run::of(&events), vec![])
    }

    fn parse(text: &str) -> Match {
        Match::parse(text).expect("a match")
    }

    #[test]
    fn equal_matches_are_judged_together_and_once() {
        let wishes = Wishes::default();
        let one = wishes.share(parse(r#"{"a":1,"b":2}"#));
        let same = wishes.share(parse(r#"{"b": 2, "a": 1}"#));
        let other = wishes.share(parse(r#"{"a":1}"#));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        for _ in 0..3 {
            assert_eq!((&*one.of(&batch(1)), &*same.of(&batch(1))), (&[2][..], &[2][..]));
        }
        assert_eq!((wishes.evaluated(), wishes.count()), (3, 2));
        assert_eq!(&*other.of(&batch(1)), [0, 2]);
        drop((one, same));
        assert_eq!((wishes.evaluated(), wishes.count()), (6, 1));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let wishes = Wishes::default();
        let wanted = wishes.share(parse("{}"));
        for n in 0..10_000 {
            wanted.of(&batch(1 + 3 * n));
        }
        let judged = wanted.judged.lock().expect("no panic");
        assert_eq!((judged.verdicts.len(), judged.indices), (REMEMBERED, 3 * REMEMBERED));
        drop(judged);
        for n in 0..1000 {
            drop(wishes.share(parse(&format!(r#"{{"n":{n}}}"#))));
        }
        assert!(wishes.known().by_text.len() < 64);
    }
}
