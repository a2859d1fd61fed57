//! A reader on a WebSocket that is spoken with: what it says decides what it sees.

use crate::matcher::Match;

/// What is done about a message, in order.
#[derive(Debug)]
pub enum Said {
    /// It gets this text message.
    Text(String),
    /// From here on it sees what this matches; without one everything.
    See(Option<Match>),
}

/// The other end of a conversation; one for each connection.
pub trait Dialog: Send {
    /// A message came.
    fn hear(&mut self, message: &[u8]) -> Vec<Said>;
}
