//! The roll of a topic: who reads it now, with which metadata, and who of them does not keep up.
//!
//! Whom an event reaches is asked for each one that is published to some only. So readers stand by each pair of their
//! metadata: to find one of ten thousand costs a look, not ten thousand.

use crate::{
    audience::{Viewer, addresses, text_of},
    event::Attrs,
};
use serde_json::{Map, Value};
use slab::Slab;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// The readers of one topic. Those without metadata only count.
#[derive(Debug, Default)]
pub struct Roll {
    listed: Mutex<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    plain: usize,
    addressable: Slab<Arc<Viewer>>,
    by_pair: Pairs,
    stragglers: Vec<Arc<Straggler>>,
    /// At this length those who caught up are forgotten.
    prune_at: usize,
}

/// Readers, by each key and value of their metadata.
#[derive(Debug, Default)]
pub struct Pairs(HashMap<String, HashMap<String, BTreeSet<usize>>>);

impl Pairs {
    /// A reader comes, under this number.
    pub fn insert(&mut self, reader: usize, metadata: &HashMap<String, String>) {
        for (key, value) in metadata {
            self.0.entry(key.clone()).or_default().entry(value.clone()).or_default().insert(reader);
        }
    }

    /// It goes.
    pub fn remove(&mut self, reader: usize, metadata: &HashMap<String, String>) {
        for (key, value) in metadata {
            let Some(values) = self.0.get_mut(key) else { continue };
            if let Some(readers) = values.get_mut(value) {
                readers.remove(&reader);
                if readers.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// The readers that have the rarest pair of an audience: all that it may be for are among them. `None` for nobody.
    pub fn having(&self, to: &Map<String, Value>) -> Option<&BTreeSet<usize>> {
        let mut fewest: Option<&BTreeSet<usize>> = None;
        for (key, value) in to {
            let having = text_of(value).and_then(|value| self.0.get(key)?.get(&*value))?;
            if fewest.is_none_or(|fewest| having.len() < fewest.len()) {
                fewest = Some(having);
            }
        }
        fewest
    }
}

/// A reader's place on the roll.
pub type Place = Option<usize>;

/// A reader that does not have everything; no more once nobody else holds it.
#[derive(Debug)]
pub struct Straggler {
    viewer: Arc<Viewer>,
    cursor: AtomicU64,
}

impl Straggler {
    /// It has come to this offset of the log.
    pub fn stands_at(&self, offset: u64) {
        self.cursor.store(offset, Ordering::Release);
    }

    fn is_below(&self, base: u64) -> bool {
        self.cursor.load(Ordering::Acquire) < base
    }
}

impl Roll {
    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// A reader comes. Links do not count.
    pub fn enter(&self, view: &Arc<Viewer>) -> Place {
        let mut listed = self.listed();
        if view.metadata.is_empty() {
            listed.plain += 1;
            return None;
        }
        let place = listed.addressable.insert(view.clone());
        listed.by_pair.insert(place, &view.metadata);
        Some(place)
    }

    /// A reader goes.
    pub fn leave(&self, place: Place) {
        let mut listed = self.listed();
        let Some(place) = place else {
            listed.plain -= 1;
            return;
        };
        let view = listed.addressable.remove(place);
        listed.by_pair.remove(place, &view.metadata);
    }

    /// A reader falls behind; it says where it stands, until it drops what it gets here.
    pub fn straggle(&self, view: &Arc<Viewer>, cursor: u64) -> Arc<Straggler> {
        let straggler = Arc::new(Straggler { viewer: view.clone(), cursor: AtomicU64::new(cursor) });
        let mut listed = self.listed();
        if listed.stragglers.len() >= listed.prune_at {
            listed.prune();
        }
        listed.stragglers.push(straggler.clone());
        straggler
    }

    /// How many readers an event with this audience reaches.
    pub fn reached(&self, to: Option<&Map<String, Value>>) -> usize {
        self.listed().reached(to)
    }

    /// How many readers an event with these attributes is for, and how many of them cannot take it: they stand before the
    /// oldest offset that is retained when `publish`, which says it, has published it. Nobody comes or goes meanwhile.
    pub fn reached_by(&self, attrs: Option<&Attrs>, publish: impl FnOnce() -> u64) -> (usize, usize) {
        let mut listed = self.listed();
        let reached = listed.reached(attrs.and_then(|attrs| attrs.to.as_ref()));
        let base = publish();
        listed.prune();
        let missed = |straggler: &&Arc<Straggler>| straggler.is_below(base) && straggler.viewer.admits(attrs);
        let missed = listed.stragglers.iter().filter(missed).count();
        (reached, missed.min(reached))
    }
}

impl Listed {
    fn reached(&self, to: Option<&Map<String, Value>>) -> usize {
        match to.filter(|to| !to.is_empty()) {
            None => self.plain + self.addressable.len(),
            Some(to) => self.addressed(to),
        }
    }

    fn addressed(&self, to: &Map<String, Value>) -> usize {
        let viewers = self.by_pair.having(to).into_iter().flatten().filter_map(|&place| self.addressable.get(place));
        viewers.filter(|view| addresses(to, &view.metadata)).count()
    }

    fn prune(&mut self) {
        self.stragglers.retain(|straggler| Arc::strong_count(straggler) > 1);
        self.prune_at = 2 * self.stragglers.len() + 16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audience::from_query;
    use serde_json::json;

    fn view(query: &str) -> Arc<Viewer> {
        let metadata = from_query(url::form_urlencoded::parse(query.as_bytes()).into_owned());
        Arc::new(Viewer { metadata, ..Viewer::default() })
    }

    fn to(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn the_roll_counts_who_is_reached() {
        let roll = Roll::default();
        let places = ["", "room=a", "room=b", "room=a&n=5"].map(|query| roll.enter(&view(query)));
        for (audience, reached) in [
            (json!({}), 4),
            (json!({"room": "a"}), 2),
            (json!({"room": "a", "n": 5}), 1),
            (json!({"n": "5"}), 1),
            (json!({"room": "c"}), 0),
            (json!({"other": "a"}), 0),
            (json!({"room": null}), 0),
        ] {
            assert_eq!(roll.reached(Some(&to(audience.clone()))), reached, "{audience}");
        }
        assert_eq!(roll.reached(None), 4);
        roll.leave(places[1]);
        assert_eq!(roll.reached(Some(&to(json!({"room": "a"})))), 1);
        for i in [0, 2, 3] {
            roll.leave(places[i]);
        }
        assert_eq!(roll.reached(None), 0);
        assert!(roll.listed().by_pair.0.is_empty());
    }

    #[test]
    fn who_fell_out_of_the_window_is_missed() {
        let roll = Roll::default();
        let to_a = Attrs { to: Some(to(json!({"room": "a"}))), ..Attrs::default() };
        let views = ["room=a", "room=b"].map(view);
        let [one, other] = [5, 9].map(|cursor| roll.straggle(&views[usize::from(cursor == 9)], cursor));
        for view in &views {
            roll.enter(view);
        }
        let reached = |attrs, base| roll.reached_by(attrs, || base);
        assert_eq!((reached(None, 5), reached(None, 6), reached(None, 10)), ((2, 0), (2, 1), (2, 2)));
        assert_eq!(reached(Some(&to_a), 10), (1, 1));
        one.stands_at(10);
        assert_eq!((reached(None, 10), reached(Some(&to_a), 10)), ((2, 1), (1, 0)));
        drop((one, other));
        assert_eq!(reached(None, 10), (2, 0));
        for n in 0..1000 {
            drop(roll.straggle(&view(""), n));
        }
        assert!(roll.listed().stragglers.len() < 64);
    }
}
