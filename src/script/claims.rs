//! Who named a stream or a subscription: it is there for as long as any version of any script names it.

use crate::{
    graphql::{Resolve, Subscriptions},
    streams::Streams,
    topics::comparable,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

/// Each is memory that no bound of an engine sees.
pub const MAX_NAMED: usize = 10_000;

/// What can be named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Named {
    Stream(String),
    Subscription(String),
}

/// What all scripts have named, and how many versions name each.
pub struct Ledger {
    streams: Arc<Streams>,
    subscriptions: Arc<Subscriptions>,
    claimed: Mutex<HashMap<Named, usize>>,
}

impl Ledger {
    /// Nothing is claimed.
    pub fn new(streams: Arc<Streams>, subscriptions: Arc<Subscriptions>) -> Self {
        Ledger { streams, subscriptions, claimed: Mutex::default() }
    }

    fn remove(&self, named: &Named) {
        match named {
            Named::Stream(path) => self.streams.remove(path),
            Named::Subscription(name) => self.subscriptions.remove(name),
        }
    }
}

/// What one version of a script names; it ends with it, unless somebody else names it, too.
pub struct Claims {
    ledger: Arc<Ledger>,
    own: Mutex<BTreeSet<Named>>,
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
    pub fn stream(&self, path: &str) -> Result<(), String> {
        let register = |ledger: &Ledger| ledger.streams.register(path).map(drop).map_err(|bad| bad.to_string());
        self.claim(Named::Stream(comparable(path).into_owned()), register)
    }

    /// Names a subscription, once or again.
    ///
    /// # Errors
    /// When there can be no such one, or no more.
    pub fn subscription(&self, name: &str, sdl: &str, resolver: Option<Arc<dyn Resolve>>) -> Result<(), String> {
        let register = |ledger: &Ledger| ledger.subscriptions.register(name, sdl, resolver);
        let register = |ledger: &Ledger| register(ledger).map_err(|refusal| refusal.to_string());
        self.claim(Named::Subscription(name.into()), register)
    }

    fn claim(&self, named: Named, register: impl FnOnce(&Ledger) -> Result<(), String>) -> Result<(), String> {
        let mut own = self.own.lock().unwrap_or_else(|p| p.into_inner());
        if own.len() >= MAX_NAMED && !own.contains(&named) {
            return Err(format!("a script names at most {MAX_NAMED} streams"));
        }
        // Nobody may give it up between the two.
        let mut claimed = self.ledger.claimed.lock().unwrap_or_else(|p| p.into_inner());
        register(&self.ledger)?;
        if own.insert(named.clone()) {
            *claimed.entry(named).or_default() += 1;
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
        for named in self.own.get_mut().unwrap_or_else(|p| p.into_inner()).iter() {
            let Some(count) = claimed.get_mut(named) else { continue };
            *count -= 1;
            if *count == 0 {
                claimed.remove(named);
                self.ledger.remove(named);
            }
        }
    }
}
