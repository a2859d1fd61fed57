//! Events that arrived together, numbered.

use super::{Attrs, Event, Run};
use crate::id::{Epoch, Id, Seq};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::{Arc, OnceLock};

/// How a batch's events are numbered within its epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum Seqs {
    /// `n, n+1, n+2 …`: the common case.
    From(u64),
    /// One by one, rising: after a stage left holes or split events.
    Each(Box<[Seq]>),
}

impl Seqs {
    /// The short form where the numbers are whole and follow each other.
    pub fn of(seqs: Vec<Seq>) -> Self {
        let follows = |pair: &[Seq]| pair[1] == Seq::whole(pair[0].n + 1);
        match seqs.first() {
            Some(first) if first.k == 0 && seqs.windows(2).all(follows) => Seqs::From(first.n),
            _ => Seqs::Each(seqs.into()),
        }
    }
}

/// How many encodings a batch can cache beside its frames: the common ones, and those that few ask for.
pub const FORMS: usize = 3;
const RARE_FORMS: usize = 7;

/// Events that arrived together: the unit of publish, of the log, of encoding and of a write. Never changes once it is
/// in a log; its encodings only fill.
#[derive(Debug)]
pub struct Batch {
    epoch: Epoch,
    seqs: Seqs,
    time: u64,
    run: Run,
    attrs: Box<[(u32, Arc<Attrs>)]>,
    forms: [OnceLock<Bytes>; FORMS],
    rare: OnceLock<Box<[OnceLock<Bytes>; RARE_FORMS]>>,
}

impl Batch {
    /// `attrs` pairs an index with what is known of that event, indices rising; `time` is when the first event was
    /// published, in Unix milliseconds.
    pub fn new(epoch: Epoch, seqs: Seqs, time: u64, run: Run, attrs: Vec<(u32, Arc<Attrs>)>) -> Self {
        debug_assert!(!run.is_empty());
        Batch { epoch, seqs, time, run, attrs: attrs.into(), forms: Default::default(), rare: OnceLock::new() }
    }

    /// Who numbered these events.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// How they are numbered.
    pub fn seqs(&self) -> &Seqs {
        &self.seqs
    }

    /// When the first of them was published, in Unix milliseconds by the origin's clock.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The payloads.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// How many events; at least one.
    pub fn len(&self) -> usize {
        self.run.len()
    }

    /// Never: a batch holds at least one event.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The i-th event's place.
    pub fn seq(&self, i: usize) -> Seq {
        match &self.seqs {
            Seqs::From(first) => Seq::whole(first + i as u64),
            Seqs::Each(seqs) => seqs[i],
        }
    }

    /// The i-th event's name.
    pub fn id(&self, i: usize) -> Id {
        Id { epoch: self.epoch.clone(), seq: self.seq(i) }
    }

    /// The last event's place.
    pub fn last_seq(&self) -> Seq {
        self.seq(self.len() - 1)
    }

    /// How many of the events are at or below `seq`.
    pub fn count_to(&self, seq: Seq) -> usize {
        match &self.seqs {
            Seqs::From(first) => (seq.n + 1).saturating_sub(*first).min(self.len() as u64) as usize,
            Seqs::Each(seqs) => seqs.partition_point(|s| *s <= seq),
        }
    }

    /// What is known of each event that has attributes, by index.
    pub fn attrs(&self) -> &[(u32, Arc<Attrs>)] {
        &self.attrs
    }

    /// The i-th event's attributes.
    pub fn attrs_of(&self, i: usize) -> Option<&Arc<Attrs>> {
        self.attrs.binary_search_by_key(&(i as u32), |(at, _)| *at).ok().map(|at| &self.attrs[at].1)
    }

    /// Every event with its index.
    pub fn events(&self) -> impl Iterator<Item = (usize, Event)> {
        self.run.messages().enumerate().map(|(i, m)| {
            let payload = self.run.bytes().slice(m.payload);
            (i, Event { payload, text: m.text, attrs: self.attrs_of(i).cloned() })
        })
    }

    /// A batch of only these events, by rising index; `None` without any.
    pub fn pick(&self, indices: &[usize]) -> Option<Batch> {
        let (mut bytes, mut seqs, mut attrs) = (BytesMut::new(), Vec::new(), Vec::new());
        for (i, message) in self.run.messages().enumerate().filter(|(i, _)| indices.binary_search(i).is_ok()) {
            attrs.extend(self.attrs_of(i).map(|known| (seqs.len() as u32, known.clone())));
            seqs.push(self.seq(i));
            bytes.put_slice(&self.run.bytes()[message.frame]);
        }
        let run = Run::from_frames(bytes.freeze(), seqs.len() as u32);
        (!run.is_empty()).then(|| Batch::new(self.epoch.clone(), Seqs::of(seqs), self.time, run, attrs))
    }

    /// Whether some event has an audience.
    pub fn is_addressed(&self) -> bool {
        self.attrs.iter().any(|(_, attrs)| attrs.to.is_some())
    }

    /// The encoding in the given slot, made by the first who asks.
    pub fn form(&self, slot: usize, encode: impl FnOnce(&Batch) -> Bytes) -> &Bytes {
        let rare = || &self.rare.get_or_init(Box::default)[slot - FORMS];
        self.forms.get(slot).unwrap_or_else(rare).get_or_init(|| encode(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_run_gives_back_what_was_laid_into_it(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20)) {
            let events: Vec<Event> = payloads.into_iter().map(Event::new).collect();
            let run = Run::of(&events);
            let batch = Batch::new(Epoch::new(1, 2), Seqs::From(1), 0, run, vec![]);
            let back: Vec<Event> = batch.events().map(|(_, e)| e).collect();
            prop_assert_eq!(back, events);
        }
    }

    #[test]
    fn counting_to_a_position_respects_holes_and_parts() {
        let seqs = [Seq::whole(3), Seq { n: 5, k: 1 }, Seq { n: 5, k: 2 }, Seq::whole(9)];
        let events = vec![Event::new("x"); 4];
        let batch = Batch::new(Epoch::new(1, 2), Seqs::Each(seqs.into()), 0, Run::of(&events), vec![]);
        let counts = [(2, 0), (3, 1), (4, 1), (5, 3), (8, 3), (9, 4), (10, 4)];
        for (n, count) in counts {
            assert_eq!(batch.count_to(Seq::end_of(n)), count, "{n}");
        }
        assert_eq!(batch.count_to(Seq { n: 5, k: 1 }), 2);
    }
}
