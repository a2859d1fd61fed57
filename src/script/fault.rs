//! What a script may use, whom it may ask, and how it fails.

use std::{fmt, fs, io, path::Path, time::Duration};

/// What one script may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// How long one call may take.
    pub time: Duration,
    /// Bytes of memory.
    pub memory: usize,
}

/// A script as it was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file, as it was named.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Reads a script.
    ///
    /// # Errors
    /// Which file, and why.
    pub fn read(path: &Path) -> io::Result<Self> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path);
        let text = text.map_err(|error| io::Error::new(error.kind(), format!("read {name}: {error}")))?;
        Ok(Source { name, text })
    }
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// It threw: what, and where in the script.
    Threw(String),
    /// It took longer than it may.
    TimedOut(Duration),
    /// It wanted more memory than it may have.
    OutOfMemory(usize),
    /// A promise that nothing will ever settle.
    NeverSettled,
    /// Too many calls wait already.
    Busy,
    /// The script cannot run any more, or scripts cannot run here at all.
    Gone,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Threw(what) => f.write_str(what),
            Fault::TimedOut(limit) => write!(f, "took longer than {limit:?}: see --script-timeout"),
            Fault::OutOfMemory(limit) => write!(f, "wanted more than {limit} bytes of memory: see --script-memory"),
            Fault::NeverSettled => f.write_str("returned a promise that is never settled"),
            Fault::Busy => f.write_str("too many calls are waiting for the script"),
            Fault::Gone => f.write_str("the script does not run"),
        }
    }
}

impl std::error::Error for Fault {}

/// Who answers what a script asks of the world outside.
pub trait Host: Send + Sync {
    /// Does what is asked, by name; the text that it comes to, if any.
    ///
    /// # Errors
    /// The message of the exception that is thrown in the script.
    fn ask(&self, what: &str, args: &[String]) -> Result<Option<String>, String>;
}
