//! `--cursor-file`: the position of what was handled, so that the next start begins behind it (LINKS 27).

use crate::files;
use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Between two writes; the last one of a run is never skipped. A crash repeats at most what came within it.
const PACE: Duration = Duration::from_millis(20);

/// Written by rename, so that a crash leaves the old or the new one.
pub struct CursorFile {
    path: PathBuf,
    pending: Option<String>,
    written: Option<Instant>,
    failed: bool,
}

impl CursorFile {
    /// The file need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        CursorFile { path, pending: None, written: None, failed: false }
    }

    /// What it holds.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    pub fn read(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io::Error::new(error.kind(), format!("read {}: {error}", self.path.display()))),
        }
    }

    /// Everything up to this position is handled.
    pub fn note(&mut self, position: &str) {
        self.pending = Some(position.to_owned());
        if self.written.is_none_or(|written| written.elapsed() >= PACE) {
            self.flush();
        }
    }

    /// Writes what is pending.
    pub fn flush(&mut self) {
        let Some(position) = self.pending.take() else { return };
        let written = files::write_whole(&self.path, &format!("{position}\n"));
        self.written = Some(Instant::now());
        let Err(error) = written else { return };
        if !std::mem::replace(&mut self.failed, true) {
            tracing::error!(path = %self.path.display(), %error, "cannot write the cursor file");
        }
    }
}

impl Drop for CursorFile {
    fn drop(&mut self) {
        self.flush();
    }
}
