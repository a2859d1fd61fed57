//! A request's way through those that could answer it, whoever they are: back ends of a balancer, or instances of a
//! registered service.

use crate::{net::Connection, proto::subscribe::Refusal};
use hyper::{header::HeaderValue, http::request::Parts};
use std::{sync::Arc, time::Duration};

/// How long those who are asked may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deadlines {
    /// To begin an answer.
    pub answer: Duration,
    /// To say something more once both sides are a WebSocket; `None` is any time.
    pub idle: Option<Duration>,
}

/// Each is tried at most once.
pub trait Search: Send {
    /// See [`Hold`].
    type Hold: Hold;

    /// A connection to the next one that takes one.
    ///
    /// # Errors
    /// When there is none left.
    fn next(&mut self) -> impl Future<Output = Result<(Self::Hold, Connection), Refusal>> + Send;

    /// The request target there.
    fn target(&self, hold: &Self::Hold, parts: &Parts) -> String;

    /// Whether somebody is left to ask.
    fn has_more(&self) -> bool;

    /// How long they may take.
    fn deadlines(&self) -> Deadlines;

    /// What tells the client that it was here, where it does not know yet.
    fn cookie(&self, hold: &Self::Hold, tls: bool) -> Option<HeaderValue>;

    /// One more stream is relayed, for as long as this is held.
    fn count_relay(&self) -> Arc<()>;
}

/// A hold on who was found. What came of it is said by one of the two; what was given up for other reasons says nothing.
pub trait Hold: Send + Sync + 'static {
    /// It answered.
    fn succeeded(&self);

    /// It did not do what it was asked.
    fn failed(&self, why: &str);

    /// Resolves once a stream has been here for long and others have room for it.
    fn has_aged(&self) -> impl Future<Output = ()> + Send;
}
