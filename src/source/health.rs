//! How an upstream is doing: written by its task, read by whoever asks for status.

use crate::{id::Id, units::now_ms};
use std::{
    fmt,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

/// Where an upstream's connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum State {
    /// Never connected, no failure yet.
    #[default]
    Connecting,
    /// Reading.
    Connected,
    /// Lost, refused or not reached; tried again.
    Down,
    /// Its stream has ended.
    Ended,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Connecting => "connecting",
            State::Connected => "connected",
            State::Down => "down",
            State::Ended => "ended",
        })
    }
}

/// What is known of an upstream at one moment.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Where its connection stands.
    pub state: State,
    /// Since when, in Unix milliseconds.
    pub since: u64,
    /// Times that it answered with a stream.
    pub connects: u64,
    /// Attempts and connections that failed.
    pub failures: u64,
    /// The newest failure, and when.
    pub last_error: Option<(u64, String)>,
    /// Whether its ids are ours (LINKS 1); `None` before it has answered.
    pub ours: Option<bool>,
    /// Instances from it to the origin.
    pub path: Vec<String>,
    /// The newest position that was read.
    pub position: Option<Id>,
    /// The newest event that was read, and when.
    pub event: Option<(Id, Instant)>,
    /// The newest id of a server that numbers in its own way.
    pub foreign_id: Option<String>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Health(Mutex<Known>);

impl Default for Health {
    fn default() -> Self {
        Health(Mutex::new(Known { since: now_ms(), ..Known::default() }))
    }
}

impl Health {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// What is known now.
    pub fn get(&self) -> Known {
        self.known().clone()
    }

    /// It answered with a stream, which may be one that has ended.
    pub fn opened(&self, state: State) {
        self.known().connects += 1;
        self.turn(state);
    }

    /// The connection's state, changed or confirmed.
    pub fn turn(&self, state: State) {
        let mut known = self.known();
        if known.state != state {
            (known.state, known.since) = (state, now_ms());
        }
    }

    /// An attempt or a connection failed.
    pub fn fail(&self, reason: &str) {
        let mut known = self.known();
        known.failures += 1;
        known.last_error = Some((now_ms(), reason.to_owned()));
    }

    /// What the answer says about the server.
    pub fn answered(&self, ours: bool, path: &str) {
        let mut known = self.known();
        known.ours = Some(ours);
        known.path = path.split(',').filter(|hop| !hop.is_empty()).map(String::from).collect();
    }

    /// Everything up to here was read.
    pub fn passed(&self, position: &Id) {
        self.known().position = Some(position.clone());
    }

    /// The event at the position that was passed last was just read.
    pub fn took_event(&self) {
        let mut known = self.known();
        if known.state == State::Ended {
            (known.state, known.since) = (State::Connected, now_ms());
        }
        known.event = known.position.clone().map(|position| (position, Instant::now()));
    }

    /// The newest id of a server that numbers in its own way.
    pub fn passed_foreign(&self, id: &str) {
        id.clone_into(self.known().foreign_id.get_or_insert_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_known() {
        let health = Health::default();
        assert_eq!(health.get().state, State::Connecting);
        health.fail("refused");
        health.turn(State::Down);
        health.answered(true, "a,b");
        health.opened(State::Connected);
        health.turn(State::Ended);
        health.opened(State::Ended);
        health.took_event();
        let known = health.get();
        assert_eq!((known.state, known.connects, known.failures), (State::Connected, 2, 1));
        assert_eq!(known.last_error.map(|(_, why)| why).as_deref(), Some("refused"));
        assert_eq!(known.path, ["a", "b"]);
    }
}
