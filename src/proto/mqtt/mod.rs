//! MQTT 3.1.1 and 5.0: topics for MQTT clients, on a port of their own or over WebSocket, and a publisher to a broker.
//!
//! A client's session is a cursor per topic: what it has not got yet waits in the log, as for every other reader. There
//! are no retained messages and no QoS 2.

pub mod channel;
mod connection;
mod fields;
mod filter;
mod handshake;
mod naming;
pub mod packet;
mod place;
pub mod publisher;
pub mod read;
mod seats;
mod session;
mod speech;
pub mod upgrade;
mod write;

pub use connection::serve;

use publisher::Publisher;
use seats::Seats;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// What a process keeps of its MQTT clients.
#[derive(Default)]
pub struct Mqtt {
    /// A registry's events are called below this name.
    pub base: String,
    /// Who tells a broker.
    pub publisher: Option<Arc<Publisher>>,
    seats: Seats,
    clients: AtomicUsize,
}

/// Whether a topic may be called so (MQTT 5 §4.7).
pub fn is_topic_name(name: &str) -> bool {
    !name.is_empty() && name.len() < 1024 && !name.contains(['+', '#', '\0'])
}

impl Mqtt {
    /// One whose registry's events are called below this name.
    pub fn new(base: String) -> Self {
        Mqtt { base, ..Mqtt::default() }
    }

    /// Clients connected now.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Forgets sessions whose time is over.
    pub fn expire(&self, now: Instant) {
        self.seats.expire(now);
    }

    /// For the status.
    pub fn describe(&self) -> Value {
        json!({
            "clients": self.clients(),
            "sessions_away": self.seats.away(),
            "publisher": self.publisher.as_ref().map(|publisher| publisher.describe()),
        })
    }
}
