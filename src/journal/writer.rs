//! The side of a journal that is written: a log's [`Recorder`].

use super::{
    Found, Store, SyncPolicy,
    identity::{Promise, sync_dir},
    outage::Outage,
    record::{self, Encoded},
    recover::Piece,
    segment::{self, Ordinal, Segment},
    sync::Syncer,
};
use crate::{
    id::Id,
    log::{Limits, Log},
    recorder::{AppendError, Extent, Note, Notes, Own, Record, Recorder, Vitals, learn},
    units::now_ms,
};
use std::{
    collections::{BTreeSet, VecDeque},
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
/// A segment that is only read again.
pub(super) struct Closed {
    pub(super) ordinal: Ordinal,
    pub(super) len: u64,
    /// All its entries lie below this offset of the log.
    end: u64,
}

/// Whether somebody may go on with the numbers that stand in the journal.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Promised {
    /// We said so.
    Ours,
    /// It may stand there from an earlier process, or from when we closed.
    Earlier,
    /// Certainly not.
    Withdrawn,
}

/// See the module's text.
pub struct Journal {
    pub(super) dir: PathBuf,
    sync: SyncPolicy,
    limits: Limits,
    pub(super) closed: VecDeque<Closed>,
    /// None before the first record.
    pub(super) active: Option<Segment>,
    /// When the active segment was begun.
    begun: Instant,
    next: Ordinal,
    place: Option<(Id, Own)>,
    notes: Notes,
    pub(super) promise: Promise,
    pub(super) promised: Promised,
    /// The active segment holds some.
    entries: bool,
    /// The place and the notes are not written yet where the numbers begin.
    owes_standing: bool,
    /// While nothing is taken.
    pub(super) outage: Option<Outage>,
    /// Segments whose files may lack what was written to them: they are written anew before anything else is.
    pub(super) doubtful: BTreeSet<Ordinal>,
    /// The active segment takes nothing more.
    pub(super) spent: bool,
    pub(super) syncer: Option<Arc<Syncer>>,
    pub(super) vitals: Arc<Vitals>,
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
            SyncPolicy::Interval(every) => Syncer::start(every, dir.clone(), vitals.clone())
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
            owes_standing: false,
            outage: None,
            doubtful: BTreeSet::new(),
            spent: false,
            syncer,
            vitals,
            _lock: store.lock.clone(),
        };
        journal.vitals.set_aside.store(found.set_aside, Ordering::Relaxed);
        journal.measure();
        Ok(journal)
    }

    pub(super) fn measure(&self) {
        let closed: u64 = self.closed.iter().map(|segment| segment.len).sum();
        let active = self.active.as_ref().map_or(0, |segment| segment.len);
        self.vitals.bytes.store(closed + active, Ordering::Relaxed);
    }

    /// All of these records in one write, or none.
    fn try_record(&mut self, records: &[(Record<'_>, Option<&Note>)], extent: Extent) -> Result<(), Failed> {
        if self.is_full() {
            self.begin_segment(extent.end).map_err(|error| Failed { error, bytes: 0 })?;
        }
        let now = now_ms();
        let mut encoded = if self.owes_standing { self.standing(now) } else { Vec::with_capacity(records.len()) };
        encoded.extend(records.iter().map(|(record, note)| record::encode(record, *note, now)));
        let entries = records.iter().any(|(record, _)| matches!(record, Record::Batch(_) | Record::Gap(_)));
        // A place alone is told again by whoever told it.
        let counts = entries || records.iter().any(|(_, note)| note.is_some());
        let bytes = encoded.iter().map(|record| record.len() as u64).sum();
        self.append(&encoded, counts).map_err(|error| Failed { error, bytes })?;
        self.entries |= entries;
        self.owes_standing = false;
        Ok(())
    }

    /// Where the log stands and what was noted: what must not go with the segments that said it.
    fn standing(&self, now: u64) -> Vec<Encoded> {
        let place = self.place.iter().map(|(id, own)| record::encode(&Record::Place(id, *own), None, now));
        let notes =
            self.notes.iter().map(|(name, value)| Note { name: name.clone(), value: value.clone(), lasting: true });
        place.chain(notes.map(|note| record::encode(&Record::Nothing, Some(&note), now))).collect()
    }

    /// `counts` when somebody is told that it is kept.
    fn append(&mut self, records: &[Encoded], counts: bool) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Err(io::ErrorKind::NotFound.into()) };
        let before = active.len;
        active.append(records)?;
        if counts
            && self.sync == SyncPolicy::Always
            && let Err(error) = active.file.sync_data()
        {
            let _ = active.cut(before);
            self.doubtful.insert(active.ordinal);
            return Err(error);
        }
        // The promise comes last: until it stands, nobody goes on with these numbers.
        if self.promised != Promised::Ours {
            self.promise.give(false).inspect_err(|_| drop(active.cut(before)))?;
            self.promised = Promised::Ours;
        }
        if let Some(syncer) = &self.syncer {
            syncer.note(active.ordinal, &active.file);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let size = (self.limits.bytes / PARTS).clamp(MIN_SEGMENT, MAX_SEGMENT);
        let old = self.limits.age.map_or(Duration::MAX, |age| age / PARTS as u32);
        self.active.as_ref().is_none_or(|active| self.spent || active.len >= size || self.begun.elapsed() > old)
    }

    fn begin_segment(&mut self, end: u64) -> io::Result<()> {
        let head = self.standing(now_ms());
        if let Some(active) = &mut self.active {
            active.mend()?;
            // Places at its end may not have been: a torn segment that others follow is damage.
            if self.sync == SyncPolicy::Always
                && let Err(error) = active.file.sync_data()
            {
                self.doubtful.insert(active.ordinal);
                return Err(error);
            }
        }
        let segment = Segment::create(&self.dir, self.next, &head)?;
        if self.sync == SyncPolicy::Always {
            sync_dir(&self.dir).inspect_err(|_| drop(fs::remove_file(segment::path(&self.dir, self.next))))?;
        }
        self.next += 1;
        self.begun = Instant::now();
        self.entries = false;
        self.spent = false;
        if let Some(before) = self.active.replace(segment) {
            self.closed.push_back(Closed { ordinal: before.ordinal, len: before.len, end });
        }
        Ok(())
    }

    /// Places and notes go along with what comes later.
    fn remember(&mut self, record: &Record<'_>, note: Option<&Note>) {
        match record {
            Record::Batch(batch) => self.stand(batch.id(batch.len() - 1)),
            Record::Gap(gap) => self.stand(gap.to.clone()),
            Record::Place(id, own) => self.place = Some(((*id).clone(), *own)),
            Record::Nothing => {}
        }
        if let Some(note) = note.filter(|note| note.lasting) {
            learn(&mut self.notes, note.clone());
        }
    }

    fn stand(&mut self, id: Id) {
        let own = self.place.as_ref().is_some_and(|(before, own)| *own && before.epoch == id.epoch);
        self.place = Some((id, own));
    }

    fn drop_segments(&mut self, base: u64) {
        while let Some(oldest) = self.closed.front().filter(|oldest| oldest.end <= base) {
            match fs::remove_file(segment::path(&self.dir, oldest.ordinal)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return,
                _ => {
                    self.doubtful.remove(&oldest.ordinal);
                    self.closed.pop_front();
                }
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

/// An append that failed.
pub(super) struct Failed {
    pub(super) error: io::Error,
    /// So many were to be written.
    pub(super) bytes: u64,
}

impl Recorder for Journal {
    fn record(&mut self, records: &[(Record<'_>, Option<&Note>)], extent: Extent) -> Result<(), AppendError> {
        self.drop_segments(extent.base);
        self.check()
            .and_then(|()| self.try_record(records, extent).map_err(|failed| self.fail(&failed)))
            .inspect_err(|_| self.count_refused(records))?;
        for (record, note) in records {
            self.remember(record, *note);
        }
        self.measure();
        Ok(())
    }

    fn begin_own(&mut self, id: &Id, extent: Extent) {
        let place = Record::Place(id, true);
        let kept = self.record(&[(place.clone(), None)], extent);
        self.owes_standing |= kept.is_err();
        self.remember(&place, None);
    }

    fn forget(&mut self, extent: Extent) {
        let works = self.check().is_ok();
        // Everything is too old: also what the active segment holds.
        if self.entries && extent.base == extent.end && works && self.begin_segment(extent.end).is_err() {
            return;
        }
        self.drop_segments(extent.base);
        self.measure();
    }

    fn close(&mut self) {
        self.hear_syncer();
        if !self.doubtful.is_empty() {
            return;
        }
        let closed = self.sync_all().inspect_err(|_| drop(self.promise.withdraw()));
        if let Err(error) = closed.and_then(|()| self.promise.give(true)) {
            tracing::error!(journal = %self.dir.display(), %error, "the journal could not be closed in order");
        }
        self.promised = Promised::Earlier;
    }
}
