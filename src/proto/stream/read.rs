//! Reading on from the cursor: what the reader gets to see.

use super::{Place, Step, Steps};
use crate::{
    audience::{Seen, Viewer},
    event::{self, Batch},
    id::{Id, Since},
    link::GoAway,
    log::{Entry, Gap, Item, Joined, Lost, Start},
    proto::{
        shard::UNKNOWN_SECS,
        wire::{Farewell, Wire},
        ws::encode,
    },
    topic::Policy,
    units::now_ms,
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes of the log per piece.
const PIECE: usize = 64 << 10;

impl Steps {
    /// Where the reader's position says; parks it until that is known (LINKS 6).
    pub(super) fn begin(&mut self, now: Instant) -> Option<Step> {
        let (start, since, deadline) = match &self.place {
            Place::New(start, since) => (start.clone(), since.clone(), None),
            Place::Parked(since, deadline) => (self.topic.log.seek(since.as_ref(), now_ms()), since.clone(), *deadline),
            Place::Reading | Place::Gone => return None,
        };
        match start {
            Start::At(offset) => self.begin_at(None, offset, since, now),
            Start::Gap(gap, offset) => {
                if self.wire.protocol() == Wire::Ws && !self.skip {
                    let oldest = self.topic.log.window().map(|window| window.oldest);
                    return Some(self.leave(&Farewell::GoAway(GoAway::Gone(oldest))));
                }
                self.begin_at(Some(&gap), offset, since, now)
            }
            Start::Ahead(since) => self.park(Some(since), deadline, now),
            Start::Unknown => {
                // A reader that wants *now* may wait as long as it takes; a position must become known.
                let patient = matches!(since, None | Some(Since::Now));
                let late = now + Duration::from_secs(u64::from(UNKNOWN_SECS));
                self.park(since.or(Some(Since::Now)), deadline.or((!patient).then_some(late)), now)
            }
        }
    }

    fn park(&mut self, since: Option<Since>, deadline: Option<Instant>, now: Instant) -> Option<Step> {
        let place = std::mem::replace(&mut self.place, Place::Parked(since, deadline));
        // What arrived since the log was asked has woken nobody.
        if matches!(place, Place::New(..)) { self.begin(now) } else { None }
    }

    /// Tells what is missing and the position at once (LINKS 7).
    fn begin_at(&mut self, gap: Option<&Gap>, offset: u64, since: Option<Since>, now: Instant) -> Option<Step> {
        let resumes = matches!(since, Some(Since::After(_)));
        let Some(Joined { pin, last }) = self.topic.log.join(offset, self.owner.clone(), resumes) else {
            // Evicted since it was found.
            self.place = Place::New(self.topic.log.seek(since.as_ref(), now_ms()), since);
            return self.begin(now);
        };
        self.pin = pin;
        self.place = Place::Reading;
        self.cursor = offset;
        // Nobody asked it anything while it was parked.
        self.heard = now;
        self.told.begin(offset, now);
        self.told.expected = last.as_ref().map(Id::next);
        let told = gap.map(|gap| {
            self.topic.tally.tell_gap();
            self.wire.gap(gap)
        });
        let hello = match self.wire.protocol() {
            Wire::Link => self.tell(last.as_ref(), offset, now),
            Wire::Sse => self.wire.hello(last.as_ref()),
            _ => Bytes::new(),
        };
        piece(joined(told.into_iter().chain([hello]).collect()))
    }

    /// What is new; empty when the reader sees nothing of it.
    pub(super) fn read(&mut self, now: Instant) -> Option<Step> {
        if !matches!(self.place, Place::Reading) {
            return None;
        }
        let mut items = Vec::new();
        if let Err(lost) = self.topic.log.read(self.cursor, self.turn(), &mut items) {
            return Some(self.lose(&lost, now));
        }
        if items.is_empty() {
            return None;
        }
        self.told.fresh = true;
        let many = items.len() > 1 && matches!(items[0].entry, Entry::Batch(_));
        let pieces = match self.topic.policy() {
            Policy::Conflate(pointer) if many => self.newest(&items, &pointer, now),
            _ => self.entries(&items, now),
        };
        if self.ended && self.is_done() {
            let Step::Last(goodbye, position) = self.leave(&Farewell::Done) else { return None };
            return Some(Step::Last(joined([pieces, vec![goodbye]].concat()), position));
        }
        Some(Step::Piece(joined(pieces)))
    }

    /// Small enough that a publisher who waits for acknowledgements gets them in time.
    fn turn(&self) -> usize {
        if self.topic.log.is_blocking() { PIECE.min(self.told.every as usize) } else { PIECE }
    }

    fn entries(&mut self, items: &[Item], now: Instant) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        for item in items {
            let width = match &item.entry {
                Entry::Batch(batch) => {
                    let from = self.cursor.saturating_sub(item.offset) as usize;
                    pieces.extend(self.events(batch, from));
                    batch.len() as u64
                }
                Entry::Gap(gap) => {
                    pieces.extend(self.gap(gap, item.offset + 1, now));
                    1
                }
                Entry::End => 1,
            };
            self.cursor = item.offset + width;
            match &item.entry {
                // What was taken for the end may not have been.
                Entry::End if self.cursor == self.topic.log.end() => pieces.extend(self.end(now)),
                _ => pieces.extend(self.tell_when_due(now)),
            }
        }
        pieces
    }

    /// What this reader sees of a batch, from index `from` on.
    fn events(&mut self, batch: &Batch, from: usize) -> Option<Bytes> {
        match self.viewer.of(batch, from) {
            Seen::All => Some(self.encode(batch, from)),
            Seen::Some(indices) => batch.pick(&indices).map(|picked| self.encode(&picked, 0)),
        }
    }

    fn encode(&mut self, batch: &Batch, from: usize) -> Bytes {
        let (n, last, now) = (self.told.n, batch.id(batch.len() - 1), now_ms());
        let expected = self.told.expected.replace(last.next());
        let bytes = if !self.wire.is_link() || self.told.goes_on(batch, from, expected.as_ref(), now) {
            self.wire.events(batch, from)
        } else {
            self.told.clock = batch.time() as i64 - now as i64;
            self.wire.packed(encode::link_frames_with_positions(batch, from, n))
        };
        let (events, size) = ((batch.len() - from) as u64, bytes.len() as u64);
        self.told.n += events;
        self.told.bytes += size;
        self.topic.tally.sent(self.wire.protocol().index(), 1, events, size);
        bytes
    }

    /// A loss entry in the protocol's form (LINKS 15); a link hears at once where it goes on (LINKS 11).
    fn gap(&mut self, gap: &Gap, behind: u64, now: Instant) -> Vec<Bytes> {
        self.told.expected = Some(gap.to.next());
        self.topic.tally.tell_gap();
        let mut pieces = vec![self.wire.gap(gap)];
        if self.wire.is_link() {
            pieces.push(self.tell(Some(&gap.to), behind, now));
        }
        pieces
    }

    /// The cursor's place is gone: by policy.
    fn lose(&mut self, lost: &Lost, now: Instant) -> Step {
        let skips = self.skip || matches!(self.topic.policy(), Policy::DropOldest | Policy::Conflate(_));
        match (self.told.expected.clone(), lost.to.clone()) {
            (Some(from), Some(to)) if skips => {
                // Nobody knows how many of them a match would have let through.
                let count = lost.count_from(&from).filter(|_| self.viewer.wanted.is_none());
                tracing::debug!(peer = ?self.peer, ?count, "slow reader skips ahead");
                self.cursor = lost.resume;
                self.topic.tally.skip(count.unwrap_or(0));
                let gap = Gap { from, to, count, reason: "slow reader".into() };
                Step::Piece(joined(self.gap(&gap, lost.resume, now)))
            }
            _ => {
                let (_, last) = self.standing();
                self.leave(&Farewell::GoAway(GoAway::Slow(last)))
            }
        }
    }

    /// The stream has ended (LINKS 11, 18).
    fn end(&mut self, now: Instant) -> Vec<Bytes> {
        let last = self.topic.log.last();
        let told = if self.is_tracked() { self.tell(last.as_ref(), self.cursor, now) } else { Bytes::new() };
        self.ended = true;
        vec![told, self.wire.end(last.as_ref())]
    }

    /// `conflate`: of the batches that wait, only the newest event per key, in order.
    fn newest(&mut self, items: &[Item], pointer: &str, now: Instant) -> Vec<Bytes> {
        let batches = items.iter().map_while(|item| match &item.entry {
            Entry::Batch(batch) => Some((item.offset, batch)),
            _ => None,
        });
        let mut newest = Newest::default();
        for (offset, batch) in batches {
            newest.take(batch, self.cursor.saturating_sub(offset) as usize, &self.viewer, pointer);
            self.cursor = offset + batch.len() as u64;
        }
        let mut pieces = Vec::new();
        for (batch, i) in newest.events.into_iter().flatten() {
            pieces.extend(batch.pick(&[i]).map(|one| self.encode(&one, 0)));
        }
        pieces.extend(self.tell_when_due(now));
        pieces
    }
}

/// The newest event per key.
#[derive(Default)]
struct Newest {
    by_key: HashMap<String, usize>,
    events: Vec<Option<(Arc<Batch>, usize)>>,
}

impl Newest {
    fn take(&mut self, batch: &Arc<Batch>, from: usize, viewer: &Viewer, pointer: &str) {
        let seen = viewer.of(batch, from);
        for (i, event) in batch.events().skip(from) {
            if !seen.has(i) {
                continue;
            }
            let value = event::value_of(&event.payload);
            let key = value.as_ref().and_then(|value| value.pointer(pointer)).map(ToString::to_string);
            if let Some(superseded) = key.and_then(|key| self.by_key.insert(key, self.events.len())) {
                self.events[superseded] = None;
            }
            self.events.push(Some((batch.clone(), i)));
        }
    }
}

/// `None` for an empty piece: there may be more to say at once.
fn piece(bytes: Bytes) -> Option<Step> {
    (!bytes.is_empty()).then_some(Step::Piece(bytes))
}

/// One piece of many; a lone one is not copied.
fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    pieces.retain(|piece| !piece.is_empty());
    if pieces.len() < 2 {
        return pieces.pop().unwrap_or_default();
    }
    let mut out = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    out.freeze()
}
