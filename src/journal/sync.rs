//! When what was written is made safe against the machine's own death: `--journal-sync`.

use super::{outage, segment::Ordinal};
use crate::{
    panics,
    recorder::{Vitals, Work},
    units,
};
use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// When the kernel is told to bring written bytes to the disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SyncPolicy {
    /// Before any reader sees an event or its publisher is answered.
    Always,
    /// Behind their backs, so often.
    Interval(Duration),
    /// When the kernel likes to.
    Never,
}

impl Default for SyncPolicy {
    /// A second: what a power cut may cost, at no price per event.
    fn default() -> Self {
        SyncPolicy::Interval(Duration::from_secs(1))
    }
}

impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncPolicy::Always => f.write_str("always"),
            SyncPolicy::Interval(interval) => write!(f, "interval:{}ms", interval.as_millis()),
            SyncPolicy::Never => f.write_str("never"),
        }
    }
}

impl FromStr for SyncPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let interval = |text| units::duration(text).ok().filter(|interval| !interval.is_zero());
        match text.split_once(':') {
            None if text == "always" => Ok(SyncPolicy::Always),
            None if text == "never" => Ok(SyncPolicy::Never),
            Some(("interval", every)) if interval(every).is_some() => {
                Ok(SyncPolicy::Interval(interval(every).unwrap_or_default()))
            }
            _ => Err(format!("`{text}` is no sync policy: type always, interval:1s or never")),
        }
    }
}

/// Syncs files every now and then on a thread of its own, until its owner is gone.
pub struct Syncer {
    due: Mutex<Vec<(Ordinal, Arc<File>)>>,
    failed: Mutex<Option<Doubt>>,
    /// Whether there is something in it.
    has_failed: AtomicBool,
}

/// Segments that could not be synced, and why the last of them could not.
type Doubt = (Vec<Ordinal>, io::Error);

impl Syncer {
    /// Starts the thread for the journal in this directory.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(every: Duration, dir: PathBuf, vitals: Arc<Vitals>) -> io::Result<Arc<Self>> {
        let syncer =
            Arc::new(Syncer { due: Mutex::default(), failed: Mutex::default(), has_failed: AtomicBool::new(false) });
        let owned = Arc::downgrade(&syncer);
        let syncing = move || panics::contain(|| run(&owned, every, &dir, &vitals));
        let vital = move || syncing().unwrap_or_else(|| panics::give_up("the journal's syncing"));
        thread::Builder::new().name("journal".into()).spawn(vital)?;
        Ok(syncer)
    }

    fn due(&self) -> MutexGuard<'_, Vec<(Ordinal, Arc<File>)>> {
        self.due.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// The segment's file was written to.
    pub fn note(&self, ordinal: Ordinal, file: &Arc<File>) {
        let mut due = self.due();
        if due.last().is_none_or(|(_, last)| !Arc::ptr_eq(last, file)) {
            due.push((ordinal, file.clone()));
        }
    }

    /// Another file, which is synced, has taken the place of the segment's.
    pub fn forget(&self, ordinal: Ordinal) {
        self.due().retain(|(due, _)| *due != ordinal);
    }

    /// What could not be synced since this was asked last: it must not be synced again, for that may succeed without it.
    pub fn take_failed(&self) -> Option<Doubt> {
        if !self.has_failed.load(Ordering::Acquire) {
            return None;
        }
        self.has_failed.store(false, Ordering::Release);
        self.failed.lock().unwrap_or_else(|p| p.into_inner()).take()
    }

    /// Whoever learns of it by the vitals finds it here.
    fn doubt(&self, ordinal: Ordinal, error: io::Error, dir: &Path, vitals: &Vitals) {
        let mut failed = self.failed.lock().unwrap_or_else(|p| p.into_inner());
        self.has_failed.store(true, Ordering::Release);
        if vitals.fail(Work::Syncing, error.to_string()) {
            let journal = dir.display();
            tracing::error!(%journal, %error, "the journal cannot be synced: nothing is published until it can");
        }
        let mut ordinals = failed.take().map(|(ordinals, _)| ordinals).unwrap_or_default();
        ordinals.push(ordinal);
        *failed = Some((ordinals, error));
    }
}

fn run(owned: &Weak<Syncer>, every: Duration, dir: &Path, vitals: &Vitals) {
    loop {
        thread::sleep(every);
        let Some(syncer) = owned.upgrade() else { return };
        let due = std::mem::take(&mut *syncer.due());
        for (ordinal, file) in due {
            let Err(error) = file.sync_data() else { continue };
            outage::withdraw_for(dir, &error);
            syncer.doubt(ordinal, error, dir, vitals);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        for policy in [SyncPolicy::Always, SyncPolicy::Never, SyncPolicy::default()] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        for wrong in ["", "sometimes", "interval", "interval:", "interval:0", "interval:x", "always:1s"] {
            assert!(wrong.parse::<SyncPolicy>().is_err(), "{wrong}");
        }
    }
}
