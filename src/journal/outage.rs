//! A disk that takes nothing: what is said about it, and how the journal finds out that it works again (LINKS 4).
//!
//! An append that cannot be written is refused, so that nobody sees what a restart would lose. What a failed sync left behind is
//! in doubt: the kernel gives up what it could not write and may call the next sync of the same file a success. So such
//! a file is never synced again: what it should hold is written to a new one, which takes its place.

use super::{
    identity::{self, sync_dir},
    recover::{Ending, read_segment},
    segment::{self, Ordinal, Segment},
    writer::{Failed, Journal, Promised},
};
use crate::recorder::{AppendError, Record, Work};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes that must fit on the disk before anything is taken again, so that it does not end at once.
const HEADROOM: usize = 64 << 10;
/// A file that shows whether they fit.
const PROBE: &str = "probe";
/// Ending of the name of a file that is to take the place of a segment.
pub const ANEW: &str = ".segment.anew";

/// See the module's text.
pub(super) struct Outage {
    why: AppendError,
    retry: Instant,
}

fn refusal(error: &io::Error) -> AppendError {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let full = matches!(error.kind(), StorageFull | QuotaExceeded);
    AppendError::Unrecordable { reason: error.to_string().into(), full }
}

impl Journal {
    /// Tells whether something may be written; during an outage that is tried every now and then.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&mut self) -> Result<(), AppendError> {
        self.hear_syncer();
        let Some(outage) = &mut self.outage else { return Ok(()) };
        if Instant::now() < outage.retry {
            return Err(outage.why.clone());
        }
        match self.write_doubtful_anew().and_then(|()| probe(&self.dir)).and_then(|()| self.promise_again()) {
            Ok(()) => {
                self.outage = None;
                let mended = [Work::Writing, Work::Syncing].map(|work| self.vitals.mend(work));
                if mended.contains(&true) {
                    tracing::warn!(journal = %self.dir.display(), "the journal can be written again");
                }
                Ok(())
            }
            Err(error) => Err(self.fail(&Failed { error, bytes: 0 })),
        }
    }

    /// The thread that syncs says which files it could not.
    pub(super) fn hear_syncer(&mut self) {
        let Some((ordinals, error)) = self.syncer.as_ref().and_then(|syncer| syncer.take_failed()) else { return };
        self.doubtful.extend(ordinals);
        self.withdraw();
        self.vitals.fail(Work::Syncing, error.to_string());
        self.outage = Some(Outage { why: refusal(&error), retry: Instant::now() + RETRY });
    }

    /// What was seen may be missing on the disk: the next start must not go on with these numbers.
    fn withdraw(&mut self) {
        if self.promised != Promised::Withdrawn
            && let Err(error) = self.promise.withdraw()
        {
            tracing::debug!(journal = %self.dir.display(), %error, "the journal's state may survive");
        }
        self.promised = Promised::Withdrawn;
    }

    /// Takes note of a failure; says what to tell whoever wanted to append. Something large that does not fit is refused
    /// without an outage where there is room for others.
    pub(super) fn fail(&mut self, failed: &Failed) -> AppendError {
        let (error, why) = (&failed.error, refusal(&failed.error));
        if let Some(active) = self.active.as_ref().filter(|active| active.is_torn()) {
            self.doubtful.insert(active.ordinal);
        }
        let full = matches!(why, AppendError::Unrecordable { full: true, .. });
        if full && self.doubtful.is_empty() && failed.bytes > HEADROOM as u64 && probe(&self.dir).is_ok() {
            return why;
        }
        if self.vitals.fail(Work::Writing, error.to_string()) {
            let journal = self.dir.display();
            tracing::error!(%journal, %error, "the journal cannot be written: nothing is published until it can");
        }
        self.spent |= !full;
        self.outage = Some(Outage { why: why.clone(), retry: Instant::now() + RETRY });
        why
    }

    pub(super) fn count_refused<N>(&self, records: &[(Record<'_>, N)]) {
        let events = |record: &Record<'_>| if let Record::Batch(batch) = record { batch.len() as u64 } else { 0 };
        let refused = records.iter().map(|(record, _)| events(record)).sum();
        self.vitals.missed.fetch_add(refused, Ordering::Relaxed);
    }

    /// Nothing that was seen is in doubt any more.
    fn promise_again(&mut self) -> io::Result<()> {
        if self.promised == Promised::Withdrawn {
            self.promise.give(false)?;
            self.promised = Promised::Ours;
        }
        Ok(())
    }

    fn write_doubtful_anew(&mut self) -> io::Result<()> {
        while let Some(&ordinal) = self.doubtful.first() {
            let closed = self.closed.iter().find(|closed| closed.ordinal == ordinal).map(|closed| closed.len);
            let active = self.active.as_ref().filter(|active| active.ordinal == ordinal).map(|active| active.len);
            if let Some(len) = closed.or(active) {
                write_anew(&self.dir, ordinal, len)?;
            }
            if let (Some(syncer), Some(_)) = (&self.syncer, closed.or(active)) {
                syncer.forget(ordinal);
            }
            if let Some(len) = active {
                self.active = Some(Segment::open(&self.dir, ordinal, len)?);
            }
            self.doubtful.remove(&ordinal);
        }
        Ok(())
    }
}

/// What the segment should hold, in a file of its own: `len` bytes that fit their checks.
fn write_anew(dir: &Path, ordinal: Ordinal, len: u64) -> io::Result<()> {
    let path = segment::path(dir, ordinal);
    let mut bytes = fs::read(&path)?;
    bytes.truncate(len as usize);
    let bytes = Bytes::from(bytes);
    if read_segment(&bytes, &mut |_| ()) != (len as usize, Ending::Whole) {
        let what = format!("{} cannot be read as it was written: start again", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let anew = dir.join(format!("{ordinal:016}{ANEW}"));
    let written = write_synced(&anew, &bytes).and_then(|()| fs::rename(&anew, &path));
    written.inspect_err(|_| drop(fs::remove_file(&anew)))?;
    sync_dir(dir)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whether something can be written and synced now.
fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(PROBE);
    let written = write_synced(&path, &[0; HEADROOM]);
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Removes what a process left that died during an outage.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == PROBE || name.to_string_lossy().ends_with(ANEW) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// The promise may not stand for what a sync left in doubt.
pub(super) fn withdraw_for(dir: &Path, error: &io::Error) {
    if let Err(why) = identity::withdraw(dir) {
        tracing::error!(journal = %dir.display(), %error, %why, "the journal's state cannot be removed");
    }
}
