//! A reader on a WebSocket that is spoken with: what it says decides what it sees.

use crate::{id::Since, matcher::Match};
use std::time::Instant;

/// What is done about a message, in order.
#[derive(Debug)]
pub enum Said {
    /// It gets this text message.
    Text(String),
    /// From here on it sees what this matches; without one everything.
    See(Option<Match>),
    /// It goes on from there, whatever it has seen.
    From(Since),
    /// It must say something good before then.
    Await(Option<Instant>),
    /// What lets it in ends then.
    Expire(Option<Instant>),
    /// It must go.
    Refuse,
}

/// The other end of a conversation; one for each connection.
pub trait Dialog: Send {
    /// What is done before anything is said.
    fn begin(&mut self) -> Vec<Said>;

    /// A message came.
    fn hear(&mut self, message: &[u8]) -> Vec<Said>;
}
