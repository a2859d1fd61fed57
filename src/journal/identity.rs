//! Whether numbers may go on where they stood (LINKS 4).
//!
//! They may if everything that was numbered is certainly in the journal: the machine has not been down since, or all
//! was synced before it was seen, or the last process closed the journal in order. A file says under which conditions
//! the journal is written; while it is not there, the journal does not hold everything.

use super::SyncPolicy;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

const FILE: &str = "state";

/// What tells one machine, and one run of it, from another; `None` where the system does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Stays over its restarts.
    pub id: Option<String>,
    /// New at each.
    pub boot: Option<String>,
}

/// As the kernel and the system say it.
pub fn this_machine() -> Machine {
    let read = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    Machine { id: read("/etc/machine-id"), boot: read("/proc/sys/kernel/random/boot_id") }
}

/// The promise that the journal holds whatever was numbered, as a file.
pub struct Promise {
    dir: PathBuf,
    machine: Machine,
    sync: SyncPolicy,
}

impl Promise {
    /// Nothing is written yet.
    pub fn new(dir: PathBuf, machine: Machine, sync: SyncPolicy) -> Self {
        Promise { dir, machine, sync }
    }

    /// From here on; `closed` when nothing will be numbered any more and all is synced.
    ///
    /// # Errors
    /// When it cannot be written, and survive.
    pub fn give(&self, closed: bool) -> io::Result<()> {
        let line =
            |name: &str, value: &Option<String>| value.as_ref().map_or(String::new(), |v| format!("{name} {v}\n"));
        let (machine, boot) = (line("machine", &self.machine.id), line("boot", &self.machine.boot));
        let text = format!("{machine}{boot}sync {}\n{}", self.sync, if closed { "closed\n" } else { "" });
        let temporary = self.dir.join("state.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, self.dir.join(FILE))?;
        sync_dir(&self.dir)
    }

    /// Something is numbered that the journal does not hold.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn withdraw(&self) -> io::Result<()> {
        withdraw(&self.dir)
    }
}

/// Whoever comes does not go on with the numbers that stand in this directory.
///
/// # Errors
/// When the file cannot be removed.
pub fn withdraw(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_dir(dir),
    }
}

/// Makes names in a directory survive.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether the promise that stands in the directory was kept until now.
pub fn may_continue(dir: &Path, now: &Machine) -> bool {
    let Ok(text) = fs::read_to_string(dir.join(FILE)) else { return false };
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let same = |name: &str, now: &Option<String>| now.is_some() && value(name) == now.as_deref();
    let is_whole = value("sync") == Some("always") || text.lines().any(|line| line == "closed");
    same("boot", &now.boot) || (same("machine", &now.id) && is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: &str, boot: &str) -> Machine {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Machine { id: some(id), boot: some(boot) }
    }

    #[test]
    fn links_4_numbers_go_on_only_where_nothing_can_be_missing() {
        let dir = std::env::temp_dir().join(format!("wsevent-promise-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let (always, now_and_then) = (SyncPolicy::Always, SyncPolicy::default());
        let table = [
            (now_and_then, false, machine("m", "b"), true),
            (now_and_then, false, machine("m", "c"), false),
            (now_and_then, true, machine("m", "c"), true),
            (always, false, machine("m", "c"), true),
            (always, false, machine("n", "c"), false),
            (always, false, machine("", "c"), false),
            (always, true, machine("", ""), false),
        ];
        for (sync, closed, now, continues) in table {
            let promise = Promise::new(dir.clone(), machine("m", "b"), sync);
            promise.give(closed).expect("a writable directory");
            assert_eq!(may_continue(&dir, &now), continues, "{sync} {closed} {now:?}");
            promise.withdraw().expect("a writable directory");
            assert!(!may_continue(&dir, &now), "withdrawn");
        }
        let _ = fs::remove_dir_all(&dir);
    }
}
