//! Who named a stream: it is there for as long as any version of any script names it.

use crate::streams::Streams;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

/// Each is memory that no bound of an engine sees.
pub const MAX_NAMED: usize = 10_000;

/// The streams of all scripts, and how many versions name each.
pub struct Ledger {
    streams: Arc<Streams>,
    claimed: Mutex<HashMap<String, usize>>,
}

impl Ledger {
    /// Nothing is claimed.
    pub fn new(streams: Arc<Streams>) -> Self {
        Ledger { streams, claimed: Mutex::default() }
    }
}

/// The streams of one version of a script; they end with it, unless somebody else names them, too.
pub struct Claims {
    ledger: Arc<Ledger>,
    own: Mutex<BTreeSet<String>>,
}

impl Claims {
    /// None yet.
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Claims { ledger, own: Mutex::default() }
    }

    /// Names a stream, once or again.
    ///
    /// # Errors
    /// When there can be none at this path, or no more.
    pub fn claim(&self, path: &str) -> Result<(), String> {
        let mut own = self.own.lock().unwrap_or_else(|p| p.into_inner());
        if own.len() >= MAX_NAMED && !own.contains(path) {
            return Err(format!("a script names at most {MAX_NAMED} streams"));
        }
        // Nobody may give it up between the two.
        let mut claimed = self.ledger.claimed.lock().unwrap_or_else(|p| p.into_inner());
        self.ledger.streams.register(path).map_err(|bad| bad.to_string())?;
        if own.insert(path.to_owned()) {
            *claimed.entry(path.to_owned()).or_default() += 1;
        }
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.own.lock().unwrap_or_else(|p| p.into_inner()).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        let mut claimed = self.ledger.claimed.lock().unwrap_or_else(|p| p.into_inner());
        for path in self.own.get_mut().unwrap_or_else(|p| p.into_inner()).iter() {
            let Some(count) = claimed.get_mut(path) else { continue };
            *count -= 1;
            if *count == 0 {
                claimed.remove(path);
                self.ledger.streams.remove(path);
            }
        }
    }
}
