//! The journal: a topic's window and its numbers on disk, so that both survive a restart (LINKS 4).
//!
//! A directory holds one sub-directory per topic; in it numbered segments, each a row of checksummed records
//! ([`record`]), and a file that says whether numbers may go on ([`identity`]). An event is written before any reader
//! sees it. Reading stops at the first damaged record ([`recover`]). What the disk does not take is refused, and the
//! journal goes on when there is room again.
//!
//! Left out on purpose: the end of a stream, because a process that starts again has a source that starts again.

mod identity;
mod outage;
pub mod record;
pub mod recover;
mod segment;
mod sync;
mod writer;

pub use identity::{Machine, this_machine};
use recover::Found;
pub use sync::SyncPolicy;
pub use writer::Journal;

use crate::{log::Log, recorder::Vitals};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A directory of journals, ours alone as long as this lives.
pub struct Store {
    dir: PathBuf,
    sync: SyncPolicy,
    machine: Machine,
    lock: Arc<File>,
}

/// A journal that was opened, and what it held.
pub struct Opened {
    /// Takes what comes next.
    pub journal: Journal,
    /// What was found.
    pub found: Found,
    /// Numbers may go on where they stood; else what comes is of another epoch (LINKS 4).
    pub continues: bool,
    /// How it will be doing.
    pub vitals: Arc<Vitals>,
}

impl Opened {
    /// Says what was found to who looks after it.
    pub fn report(&self, topic: &str, log: &Log) {
        let (found, totals, next) = (&self.found, log.totals(), log.last().map(|last| last.next()));
        let next = next.map_or_else(|| "none".into(), |next| next.to_string());
        tracing::info!(topic, events = totals.held_events, bytes = totals.held_bytes, next, "journal read");
        if found.torn > 0 {
            tracing::info!(topic, bytes = found.torn, "the journal ended inside a record: cut off, nobody has seen it");
        }
        if let Some(damage) = &found.damage {
            let aside: Vec<String> = damage.set_aside.iter().map(|path| path.display().to_string()).collect();
            let aside = aside.join(", ");
            tracing::error!(topic, damage = %damage.what, %aside, "the journal is damaged: what is before is served, the rest is set aside");
        }
    }
}

impl Store {
    /// Takes the directory, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made or locked, or another process has it.
    pub fn open(dir: &Path, sync: SyncPolicy, machine: Machine) -> io::Result<Self> {
        let wrong = |error: io::Error| io::Error::new(error.kind(), format!("open {}: {error}", dir.display()));
        create_dir(dir).map_err(wrong)?;
        let lock = File::options().create(true).append(true).open(dir.join("lock")).map_err(wrong)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("the journal {} is in use by another process: give each its own", dir.display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            Err(TryLockError::Error(error)) => return Err(wrong(error)),
        }
        Ok(Store { dir: dir.to_owned(), sync, machine, lock: Arc::new(lock) })
    }

    /// Gives back to an empty log what was kept of it, and opens the journal for what follows.
    ///
    /// # Errors
    /// When what is there can be neither read nor set aside.
    pub fn open_topic(&self, path: &str, log: &Log) -> io::Result<Opened> {
        let dir = self.dir.join(directory_name(path));
        let wrong = |error: io::Error| io::Error::new(error.kind(), format!("journal {}: {error}", dir.display()));
        create_dir(&dir).map_err(wrong)?;
        outage::clear(&dir).map_err(wrong)?;
        let found = recover::recover(&dir, log).map_err(wrong)?;
        let last = log.last();
        let numbered_here = found.own.is_some() && found.own == last.map(|last| last.epoch);
        let continues = numbered_here && found.damage.is_none() && identity::may_continue(&dir, &self.machine);
        let vitals = Arc::new(Vitals::new(self.sync.to_string(), self.sync == SyncPolicy::Always));
        let journal = Journal::open(dir.clone(), self, &found, log, vitals.clone()).map_err(wrong)?;
        Ok(Opened { journal, found, continues, vitals })
    }
}

/// For nobody else's eyes: payloads will be in it. One that is there already is left as it is.
fn create_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Its name should survive, too; a parent that is not ours to read makes us no poorer than before.
    let _ = identity::sync_dir(parent);
    Ok(())
}

/// A topic's path as the name of a directory: letters, digits, `-` and `_` stand for themselves.
fn directory_name(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let spell = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") };
    let spelled: String = path.trim_start_matches('/').bytes().map(spell).collect();
    format!("topic-{spelled}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_directory_of_its_own_below_the_store() {
        let table = [
            ("/events", "topic-events"),
            ("/", "topic-"),
            ("/a/../b", "topic-a%2f%2e%2e%2fb"),
            ("/a%2fb", "topic-a%252fb"),
        ];
        for (path, name) in table {
            assert_eq!(directory_name(path), name);
        }
    }
}
