//! Where the upstreams of a topic that numbers anew stand: shared by its inputs, and noted by a journal (LINKS 2).

use crate::{
    id::{Epoch, Id, Seq},
    recorder::Notes,
    topic::fnv1a,
};
use std::{
    collections::HashMap,
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

/// Where an upstream stands, as a journal notes it.
#[derive(Debug, PartialEq)]
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
