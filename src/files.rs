//! Files that may change under a running process: certificates and keys are read again when they did, or when asked to.
//!
//! What cannot be read, or makes no sense, leaves in service what was read before, with one line in the log per change.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, RwLock},
    time::{Duration, SystemTime},
};
use tokio::sync::watch;
use tracing::{error, info};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What tells one content of a file from another without reading it.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Writes a file by rename: who reads it finds the old or the new text, whole.
///
/// # Errors
/// What the system says.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path))
}

/// Something made from files, made anew when they change.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> io::Result<T> + Send + Sync>,
    current: RwLock<Arc<T>>,
    stamps: Mutex<Vec<Stamp>>,
}

impl<T> Watched<T> {
    /// Makes it for the first time.
    ///
    /// # Errors
    /// What `load` says.
    pub fn open(paths: Vec<PathBuf>, load: impl Fn() -> io::Result<T> + Send + Sync + 'static) -> io::Result<Self> {
        let stamps = stamps(&paths);
        let current = RwLock::new(Arc::new(load()?));
        Ok(Watched { paths, load: Box::new(load), current, stamps: Mutex::new(stamps) })
    }

    /// What holds now.
    pub fn get(&self) -> Arc<T> {
        self.current.read().unwrap_or_else(|p| p.into_inner()).clone()
    }

    fn stamps(&self) -> MutexGuard<'_, Vec<Stamp>> {
        self.stamps.lock().unwrap_or_else(|p| p.into_inner())
    }
}

/// What [`watch`] looks after.
pub trait Check: Send + Sync {
    /// Reads the files again if they changed, or if somebody `asked`.
    fn check(&self, asked: bool);
}

impl<T: Send + Sync> Check for Watched<T> {
    fn check(&self, asked: bool) {
        // Before reading: what changes meanwhile is seen the next time.
        let now = stamps(&self.paths);
        let changed = std::mem::replace(&mut *self.stamps(), now.clone()) != now;
        if !changed && !asked {
            return;
        }
        let files = self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        match (self.load)() {
            Ok(next) => {
                *self.current.write().unwrap_or_else(|p| p.into_inner()) = Arc::new(next);
                info!(%files, "read again");
            }
            Err(reason) => error!(%files, %reason, "not taken: what was read before stays in service"),
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let known = fs::metadata(path).ok()?;
        Some((known.modified().ok()?, known.ino(), known.len()))
    };
    paths.iter().map(stamp).collect()
}

/// Looks after them until the process ends; a change of `asked` is a request to read them all again.
pub async fn watch(all: Vec<Arc<dyn Check>>, mut asked: watch::Receiver<u64>) {
    if all.is_empty() {
        return;
    }
    loop {
        let by_request = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => false,
            Ok(()) = asked.changed() => true,
        };
        let all = all.clone();
        // A file system may be slow to answer.
        let _ = tokio::task::spawn_blocking(move || all.iter().for_each(|one| one.check(by_request))).await;
    }
}

/// Reads a file that an option names.
///
/// # Errors
/// Which option and file, and why.
pub fn read(option: &str, path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| wrong(option, path, &error))
}

/// What is wrong with a file that an option names.
pub fn wrong(option: &str, path: &Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("read {option} {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_new_file_keeps_the_old_content() {
        let path = std::env::temp_dir().join(format!("wsevent-files-{}", std::process::id()));
        let write = |text: &str| fs::write(&path, text).expect("a scratch file");
        write("7");
        let file = path.clone();
        let number = move || fs::read_to_string(&file)?.parse::<u64>().map_err(io::Error::other);
        let watched = Watched::open(vec![path.clone()], number).expect("a number");
        for (content, kept) in [("12", 12), ("none", 12), ("", 12), ("345", 345)] {
            write(content);
            watched.check(false);
            assert_eq!(*watched.get(), kept, "{content:?}");
        }
        fs::remove_file(&path).expect("was there");
        watched.check(false);
        watched.check(true);
        assert_eq!(*watched.get(), 345);
    }
}
