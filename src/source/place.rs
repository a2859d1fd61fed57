//! Where the upstreams of a topic that numbers anew stand: shared by its inputs, and noted by a journal (LINKS 2).

use crate::{
    id::{Epoch, Id, Seq},
    recorder::Notes,
    topic::fnv1a,
};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex},
};

/// The highest number taken of each epoch, shared by the inputs of a merge: inputs that show the same epoch are copies
/// (LINKS 2).
pub type Marks = Arc<Mutex<HashMap<Epoch, Seq>>>;

/// What a journal's notes about upstreams are called, up to which one.
const PLACE: &str = "upstream ";

/// The name of a journal's note about the `nth` input with this URL. It does not give away what the URL may hold.
pub fn name(url: &str, nth: usize) -> String {
    format!("{PLACE}{:016x} {nth}", fnv1a(url.as_bytes()))
}

/// The marks as they stood when a journal was left.
pub fn marks_of(notes: &Notes) -> Marks {
    let mut marks = HashMap::new();
    for value in notes.iter().filter(|(name, _)| name.starts_with(PLACE)).map(|(_, value)| value) {
        if let Some(Place::Ours(id)) = Place::read(value) {
            let mark = marks.entry(id.epoch).or_insert(id.seq);
            *mark = id.seq.max(*mark);
        }
    }
    Arc::new(Mutex::new(marks))
}

/// Where the upstream of a log that numbers anew stands: offsets of that log, and the places behind them. For whoever
/// remembers how far it has come.
#[derive(Debug, Default)]
pub struct Trail(Mutex<Option<VecDeque<(u64, Place)>>>);

impl Trail {
    /// From here on the log's own ids mean nothing to the upstream.
    pub fn begin(&self) {
        self.0.lock().unwrap_or_else(|p| p.into_inner()).get_or_insert_default();
    }

    /// Everything before this offset is at or before that place.
    pub fn put(&self, offset: u64, place: Place) {
        if let Some(trail) = &mut *self.0.lock().unwrap_or_else(|p| p.into_inner()) {
            // Places without events replace each other.
            trail.pop_back_if(|(end, _)| *end == offset);
            trail.push_back((offset, place));
        }
    }

    /// What to remember once everything before this offset is handled, the last of it being `last`; `None` when that is
    /// nothing that the upstream knows.
    pub fn up_to(&self, offset: u64, last: Id) -> Option<Place> {
        let mut trail = self.0.lock().unwrap_or_else(|p| p.into_inner());
        let Some(trail) = &mut *trail else { return Some(Place::Ours(last)) };
        let behind = trail.partition_point(|(end, _)| *end <= offset);
        trail.drain(..behind).next_back().map(|(_, place)| place)
    }
}

/// Where an upstream stands, as a journal notes it, and a cursor file of what was printed.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A position of ours.
    Ours(Id),
    /// In its own words.
    Foreign(String),
}

impl Place {
    /// `None` for what no journal of ours noted.
    pub fn read(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        match text.strip_prefix('=') {
            Some(foreign) => Some(Place::Foreign(foreign.into())),
            None => Id::parse(text).map(Place::Ours),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Ours(id) => id.fmt(f),
            Place::Foreign(id) => write!(f, "={id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let id = Id { epoch: Epoch::new(1, 2), seq: Seq::whole(3) };
        for place in [Place::Ours(id.clone()), Place::Foreign(id.to_string()), Place::Foreign("=".into())] {
            assert_eq!(Place::read(place.to_string().as_bytes()), Some(place));
        }
        assert_eq!(Place::read(b"42"), None);
    }

    #[test]
    fn a_trail_says_what_the_upstream_knows() {
        let (trail, last) = (Trail::default(), Id { epoch: Epoch::new(1, 1), seq: Seq::whole(3) });
        let up_to = |offset| trail.up_to(offset, last.clone());
        assert_eq!(up_to(3), Some(Place::Ours(last.clone())));
        trail.begin();
        assert_eq!(up_to(3), None);
        for (offset, id) in [(4, "a"), (6, "-"), (6, "b"), (7, "c")] {
            trail.put(offset, Place::Foreign(id.into()));
        }
        assert_eq!(
            [3, 6, 6, 9].map(up_to),
            [None, Some(Place::Foreign("b".into())), None, Some(Place::Foreign("c".into()))]
        );
    }

    #[test]
    fn marks_are_the_highest_of_each_epoch() {
        let (a, b) = (Epoch::new(1, 1), Epoch::new(2, 2));
        let note = |nth, epoch: &Epoch, n| {
            let place = Place::Ours(Id { epoch: epoch.clone(), seq: Seq::whole(n) });
            (name("ws://a/b", nth), place.to_string().into())
        };
        let marks = marks_of(&Notes::from([note(0, &a, 5), note(1, &a, 9), note(2, &b, 3)]));
        let expected = HashMap::from([(a, Seq::whole(9)), (b, Seq::whole(3))]);
        assert_eq!(*marks.lock().expect("no panic"), expected);
    }
}
