//! When what was written is made safe against the machine's own death: `--journal-sync`.

use crate::{
    recorder::{Vitals, Work},
    units,
};
use std::{
    fmt,
    fs::File,
    str::FromStr,
    sync::{Arc, Mutex, Weak},
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
    due: Mutex<Vec<Arc<File>>>,
}

impl Syncer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(every: Duration, vitals: Arc<Vitals>) -> std::io::Result<Arc<Self>> {
        let syncer = Arc::new(Syncer { due: Mutex::default() });
        let owned = Arc::downgrade(&syncer);
        thread::Builder::new().name("journal".into()).spawn(move || run(&owned, every, &vitals))?;
        Ok(syncer)
    }

    /// The file was written to.
    pub fn note(&self, file: &Arc<File>) {
        let mut due = self.due.lock().unwrap_or_else(|p| p.into_inner());
        if due.last().is_none_or(|last| !Arc::ptr_eq(last, file)) {
            due.push(file.clone());
        }
    }
}

fn run(owned: &Weak<Syncer>, every: Duration, vitals: &Vitals) {
    loop {
        thread::sleep(every);
        let Some(syncer) = owned.upgrade() else { return };
        let due = std::mem::take(&mut *syncer.due.lock().unwrap_or_else(|p| p.into_inner()));
        for file in due {
            match file.sync_data() {
                Err(error) if vitals.fail(Work::Syncing, error.to_string()) => {
                    tracing::error!(%error, "the journal cannot be synced: a power cut may cost what it holds");
                }
                Ok(()) if vitals.mend(Work::Syncing) => tracing::warn!("the journal can be synced again"),
                _ => {}
            }
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
