//! The side of a journal that is written: a log's [`Recorder`].

use super::{
    Found, Store, SyncPolicy,
    identity::{Promise, sync_dir},
    record::{self, Encoded},
    recover::Piece,
    segment::{self, Ordinal, Segment},
    sync::Syncer,
};
use crate::{
    id::Id,
    log::{Gap, Limits, Log},
    recorder::{Extent, Note, Notes, Own, Record, Recorder, Vitals, Work, learn},
    units::now_ms,
};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Segments are this part of the window, so that the disk holds little more than it.
const PARTS: u64 = 8;
/// No smaller than this, whatever the window.
const MIN_SEGMENT: u64 = 64 << 10;
/// No larger.
const MAX_SEGMENT: u64 = 16 << 20;
/// Between two attempts on a disk that takes nothing.
const RETRY: Duration = Duration::from_secs(1);

/// A segment that is only read again.
struct Closed {
    ordinal: Ordinal,
    len: u64,
    /// All its entries lie below this offset of the log.
    end: u64,
}

/// What could not be kept.
struct Missed {
    /// First and last position, and the number of events.
    lost: Option<Gap>,
    retry: Instant,
}

/// Whether somebody may go on with the numbers that stand in the journal.
#[derive(Clone, Copy, PartialEq)]
enum Promised {
    /// We said so.
    Ours,
    /// It may stand there from an earlier process, or from when we closed.
    Earlier,
    /// Certainly not.
    Withdrawn,
}

/// See the module's text.
pub struct Journal {
    dir: PathBuf,
    sync: SyncPolicy,
    limits: Limits,
    closed: VecDeque<Closed>,
    /// None before the first record.
    active: Option<Segment>,
    /// When the active segment was begun.
    begun: Instant,
    next: Ordinal,
    place: Option<(Id, Own)>,
    notes: Notes,
    promise: Promise,
    promised: Promised,
    /// The active segment holds some.
    entries: bool,
    missed: Option<Missed>,
    syncer: Option<Arc<Syncer>>,
    vitals: Arc<Vitals>,
    /// Held as long as anything may be written.
    _lock: Arc<File>,
}

impl Journal {
    /// Goes on behind what was found.
    ///
    /// # Errors
    /// When the last segment cannot be written to.
    pub(super) fn open(dir: PathBuf, store: &Store, found: &Found, log: &Log, vitals: Arc<Vitals>) -> io::Result<Self> {
        let own = |id: Id| (id.clone(), found.own == Some(id.epoch));
        let closed = |piece: &Piece| Closed { ordinal: piece.ordinal, len: piece.len, end: piece.end };
        let (last, before) = match found.segments.split_last() {
            Some((last, before)) => (Some(Segment::open(&dir, last.ordinal, last.len)?), before),
            None => (None, &found.segments[..]),
        };
        let syncer = match store.sync {
            SyncPolicy::Interval(every) => Syncer::start(every, vitals.clone())
                .inspect_err(|error| tracing::error!(%error, "the journal is not synced: no thread for it"))
                .ok(),
            _ => None,
        };
        let journal = Journal {
            promise: Promise::new(dir.clone(), store.machine.clone(), store.sync),
            dir,
            sync: store.sync,
            limits: log.limits(),
            closed: before.iter().map(closed).collect(),
            active: last,
            begun: Instant::now(),
            next: found.segments.last().map_or(1, |last| last.ordinal + 1),
            place: log.last().map(own),
            notes: found.notes.clone(),
            promised: Promised::Earlier,
            entries: log.end() > 0,
            missed: None,
            syncer,
            vitals,
            _lock: store.lock.clone(),
        };
        journal.vitals.set_aside.store(found.set_aside, Ordering::Relaxed);
        journal.measure();
        Ok(journal)
    }

    fn measure(&self) {
        let closed: u64 = self.closed.iter().map(|segment| segment.len).sum();
        let active = self.active.as_ref().map_or(0, |segment| segment.len);
        self.vitals.bytes.store(closed + active, Ordering::Relaxed);
    }

    fn try_record(&mut self, record: &Record<'_>, note: Option<&Note>, extent: Extent) -> io::Result<()> {
        if self.is_full() {
            self.begin_segment(extent.end)?;
        }
        let now = now_ms();
        let mut records = Vec::with_capacity(1);
        if let Some(missed) = &self.missed {
            records.extend(missed.lost.as_ref().map(|lost| record::encode(&Record::Gap(lost), None, now)));
            records.extend(self.standing(now));
        }
        records.push(record::encode(record, note, now));
        self.append(&records, record)
    }

    /// Where the log stands and what was noted: what must not go with the segments that said it.
    fn standing(&self, now: u64) -> Vec<Encoded> {
        let place = self.place.iter().map(|(id, own)| record::encode(&Record::Place(id, *own), None, now));
        let notes =
            self.notes.iter().map(|(name, value)| Note { name: name.clone(), value: value.clone(), lasting: true });
        place.chain(notes.map(|note| record::encode(&Record::Nothing, Some(&note), now))).collect()
    }

    fn append(&mut self, records: &[Encoded], last: &Record<'_>) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Err(io::ErrorKind::NotFound.into()) };
        let before = active.len;
        active.append(records)?;
        let entry = matches!(last, Record::Batch(_) | Record::Gap(_));
        let synced = if entry && self.sync == SyncPolicy::Always { active.file.sync_data() } else { Ok(()) };
        // The promise comes last: until it stands, nobody goes on with these numbers.
        let stands = self.promised == Promised::Ours;
        let promised = synced.and_then(|()| if stands { Ok(()) } else { self.promise.give(false) });
        if promised.is_err() {
            let _ = active.cut(before);
            return promised;
        }
        self.promised = Promised::Ours;
        self.entries |= entry;
        if let Some(syncer) = &self.syncer {
            syncer.note(&active.file);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let size = (self.limits.bytes / PARTS).clamp(MIN_SEGMENT, MAX_SEGMENT);
        let old = self.limits.age.map_or(Duration::MAX, |age| age / PARTS as u32);
        self.active.as_ref().is_none_or(|active| active.len >= size || self.begun.elapsed() > old)
    }

    fn begin_segment(&mut self, end: u64) -> io::Result<()> {
        // What was missed comes first, and brings the place and the notes behind it.
        let head = if self.missed.is_some() { Vec::new() } else { self.standing(now_ms()) };
        if let Some(active) = &mut self.active {
            active.mend()?;
            // Notes at its end may not have been: a torn segment that others follow is damage.
            if self.sync == SyncPolicy::Always {
                active.file.sync_data()?;
            }
        }
        let segment = Segment::create(&self.dir, self.next, &head)?;
        if self.sync == SyncPolicy::Always {
            sync_dir(&self.dir)?;
        }
        self.next += 1;
        self.begun = Instant::now();
        self.entries = false;
        if let Some(before) = self.active.replace(segment) {
            self.closed.push_back(Closed { ordinal: before.ordinal, len: before.len, end });
        }
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) {
        if self.vitals.fail(Work::Writing, error.to_string()) {
            let journal = self.dir.display();
            tracing::error!(%journal, %error, "the journal takes nothing more: the stream goes on without it");
        }
        let lost = self.missed.take().and_then(|missed| missed.lost);
        self.missed = Some(Missed { lost, retry: Instant::now() + RETRY });
        // What is numbered from here on is not on disk: the next start must not go on with these numbers.
        if self.promised != Promised::Withdrawn {
            match self.promise.withdraw() {
                Ok(()) => self.promised = Promised::Withdrawn,
                Err(why) => {
                    self.vitals.fail(Work::Writing, format!("{error}; and its state cannot be removed: {why}"));
                }
            }
        }
    }

    fn miss(&mut self, record: &Record<'_>) {
        let Some(missed) = &mut self.missed else { return };
        if let Record::Batch(batch) = record {
            self.vitals.missed.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
        missed.lost = joined(missed.lost.take(), record);
    }

    /// Places and notes go along with what comes later.
    fn remember(&mut self, record: &Record<'_>, note: Option<Note>) {
        match record {
            Record::Batch(batch) => self.stand(batch.id(batch.len() - 1)),
            Record::Gap(gap) => self.stand(gap.to.clone()),
            Record::Place(id, own) => self.place = Some(((*id).clone(), *own)),
            Record::Nothing => {}
        }
        if let Some(note) = note.filter(|note| note.lasting) {
            learn(&mut self.notes, note);
        }
    }

    fn stand(&mut self, id: Id) {
        let own = self.place.as_ref().is_some_and(|(before, own)| *own && before.epoch == id.epoch);
        self.place = Some((id, own));
    }

    fn is_waiting(&self) -> bool {
        self.missed.as_ref().is_some_and(|missed| Instant::now() < missed.retry)
    }

    fn drop_segments(&mut self, base: u64) {
        while let Some(oldest) = self.closed.front().filter(|oldest| oldest.end <= base) {
            match fs::remove_file(segment::path(&self.dir, oldest.ordinal)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return,
                _ => drop(self.closed.pop_front()),
            }
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        for closed in &self.closed {
            File::open(segment::path(&self.dir, closed.ordinal))?.sync_all()?;
        }
        self.active.as_ref().map_or(Ok(()), |active| active.file.sync_all())
    }
}

impl Recorder for Journal {
    fn record(&mut self, record: &Record<'_>, note: Option<Note>, extent: Extent) {
        self.drop_segments(extent.base);
        if !self.is_waiting() {
            match self.try_record(record, note.as_ref(), extent) {
                Ok(()) if self.missed.take().is_some() && self.vitals.mend(Work::Writing) => {
                    tracing::warn!(journal = %self.dir.display(), "the journal takes events again, behind a gap");
                }
                Ok(()) => {}
                Err(error) => self.fail(&error),
            }
        }
        self.miss(record);
        self.remember(record, note);
        self.measure();
    }

    fn forget(&mut self, extent: Extent) {
        // Everything is too old: also what the active segment holds.
        if self.entries && extent.base == extent.end && self.missed.is_none() && self.begin_segment(extent.end).is_err()
        {
            return;
        }
        self.drop_segments(extent.base);
        self.measure();
    }

    fn close(&mut self) {
        if self.missed.is_some() {
            return;
        }
        if let Err(error) = self.sync_all().and_then(|()| self.promise.give(true)) {
            tracing::error!(journal = %self.dir.display(), %error, "the journal could not be closed in order");
        }
        self.promised = Promised::Earlier;
    }
}

/// One gap over both.
fn joined(before: Option<Gap>, record: &Record<'_>) -> Option<Gap> {
    let (from, to, count) = match record {
        Record::Batch(batch) => (batch.id(0), batch.id(batch.len() - 1), Some(batch.len() as u64)),
        Record::Gap(gap) => (gap.from.clone(), gap.to.clone(), gap.count),
        Record::Place(..) | Record::Nothing => return before,
    };
    let (from, count) = match before {
        None => (from, count),
        Some(Gap { from: first, count: already, .. }) => {
            let sum = already.zip(count).map(|(already, count)| already + count);
            let count = sum.filter(|_| first.epoch == to.epoch);
            (first, count)
        }
    };
    Some(Gap { from, to, count, reason: "the journal could not keep it".into() })
}
