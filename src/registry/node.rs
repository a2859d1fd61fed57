//! One instance: what is known of it, and whether somebody may be sent there.

use super::{
    check::{Check, Checked},
    events::Instance,
};
use crate::{
    balance::breaker::{self, Breaker, State},
    units::now_ms,
};
use serde_json::{Map, Value};
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// Now, by the clock that never jumps and by the one that people read.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For what is decided.
    pub at: Instant,
    /// Unix milliseconds, for what is shown.
    pub ms: u64,
}

impl Moment {
    /// As it is.
    pub fn now() -> Self {
        Moment { at: Instant::now(), ms: now_ms() }
    }
}

/// One instance.
#[derive(Debug)]
pub struct Node {
    /// Service and id.
    pub instance: Instance,
    /// `host:port`.
    pub address: String,
    /// What it says about itself.
    pub metadata: Map<String, Value>,
    /// Its last sign of life.
    pub heard: Moment,
    /// Kept, but nobody is sent to it.
    pub maintenance: bool,
    /// Whether it is left alone.
    pub breaker: Breaker,
    /// Unix milliseconds; 0 before the first.
    pub last_failure: u64,
    /// While it is left alone: until when, in Unix milliseconds; else 0.
    pub next_try: u64,
    /// How it is asked whether it is well, if it is.
    pub check: Option<Arc<Check>>,
    /// What it said last.
    pub checked: Option<Checked>,
    /// When it is asked next, unless it is being asked.
    pub next_check: Option<Instant>,
    /// What is passed on to it now.
    pub traffic: Traffic,
    /// Milliseconds, of late.
    pub response_time: Option<f64>,
    /// Its place among its service's instances, by registration.
    pub place: u64,
    /// Its own time-out, if it said one.
    pub ttl: Option<Duration>,
    /// When its silence is looked at next.
    pub look: Instant,
}

impl Node {
    /// Whether somebody may be sent to it.
    pub fn is_available(&self) -> bool {
        !self.maintenance && !matches!(self.breaker.state(), State::Open(_))
    }

    /// Whether a request may be passed on to it: while its circuit is half open, one at a time finds out.
    pub fn is_free(&self) -> bool {
        self.is_available() && !(self.breaker.state() == State::HalfOpen && self.traffic.has_trial())
    }

    /// One more request is passed on to it, for as long as this is held.
    pub fn hold(&mut self) -> Passing {
        self.traffic.hold(self.breaker.state() == State::HalfOpen)
    }

    /// Its version, if it has one.
    pub fn version(&self) -> Option<&str> {
        self.metadata.get("version").and_then(Value::as_str)
    }

    /// Whether it has this tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.metadata.get("tags").and_then(Value::as_array).is_some_and(|tags| tags.iter().any(|own| own == tag))
    }

    /// Its share of the traffic, from 1 to 10.
    pub fn weight(&self) -> f64 {
        self.metadata.get("weight").and_then(Value::as_f64).unwrap_or(1.0)
    }
}

/// Requests that are passed on to one instance.
#[derive(Debug, Default)]
pub struct Traffic {
    all: Arc<()>,
    /// The one that finds out whether it is well again.
    trial: Weak<()>,
}

/// One such request.
#[derive(Debug)]
pub struct Passing {
    _one: Arc<()>,
    _trial: Option<Arc<()>>,
}

impl Traffic {
    fn hold(&mut self, on_trial: bool) -> Passing {
        let trial = on_trial.then(Arc::default);
        if let Some(trial) = &trial {
            self.trial = Arc::downgrade(trial);
        }
        Passing { _one: self.all.clone(), _trial: trial }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        Arc::strong_count(&self.all) - 1
    }

    fn has_trial(&self) -> bool {
        self.trial.strong_count() > 0
    }

    /// What it was to find out is known.
    pub fn end_trial(&mut self) {
        self.trial = Weak::new();
    }
}

/// What holds for all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// Silence after which an instance is removed.
    pub heartbeat_timeout: Duration,
    /// See [`Guard`].
    pub expiry_guard: u32,
    /// When an instance is left alone.
    pub breaker: breaker::Settings,
}
