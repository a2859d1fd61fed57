//! One back end: where it is, how it is doing, how much of it is in use.

use super::{
    breaker::{self, Breaker, State},
    choice::{self, Candidate},
    member::Member,
};
use crate::{net::redacted, units::now_ms};
use serde_json::{Value, json};
use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A back end that has just come begins with this part of its share.
const FIRST_SHARE: f64 = 0.1;

/// See the module's text.
pub struct Backend {
    /// Where it is.
    pub member: Member,
    name: u64,
    known: Mutex<Known>,
    /// Whether what reads it for long is to look for another one.
    leave: watch::Sender<bool>,
}

/// What changes.
pub(super) struct Known {
    pub breaker: Breaker,
    /// Somebody is finding out whether it is well again.
    pub trial: bool,
    /// What active checks say.
    pub well: bool,
    pub weight: f64,
    pub credit: f64,
    pub active: usize,
    /// Since when it gets its share; `None` if it was there from the start.
    pub since: Option<Instant>,
    pub taken: u64,
    pub failed: u64,
    pub last_error: Option<(u64, String)>,
}

impl Known {
    /// It did not do what it was asked.
    pub fn fail(&mut self, why: &str) {
        self.failed += 1;
        self.last_error = Some((now_ms(), why.to_owned()));
    }
}

impl Backend {
    /// Taken for well; `since` is when it came, if not at the start.
    pub fn new(member: Member, breaker: breaker::Settings, since: Option<Instant>) -> Self {
        let known = Known {
            breaker: Breaker::new(breaker),
            trial: false,
            well: true,
            weight: member.weight,
            credit: 0.0,
            active: 0,
            since,
            taken: 0,
            failed: 0,
            last_error: None,
        };
        let address = member.at.map(|at| at.to_string()).unwrap_or_default();
        let name = choice::hash(format!("{}{address}", member.url).as_bytes());
        Backend { name, member, known: Mutex::new(known), leave: watch::Sender::new(false) }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// The same for the same URL and address, whoever else is there.
    pub fn name(&self) -> u64 {
        self.name
    }

    /// What counts when one is chosen.
    pub fn candidate(&self, slow_start: Duration, now: Instant) -> Candidate {
        let known = self.known();
        let age = known.since.map_or(slow_start, |since| now.saturating_duration_since(since));
        let grown = if age >= slow_start { 1.0 } else { age.as_secs_f64() / slow_start.as_secs_f64() };
        let weight = known.weight * grown.max(FIRST_SHARE);
        Candidate { name: self.name, weight, active: known.active, credit: known.credit }
    }

    /// Whether it is to be asked at all.
    pub fn is_available(&self) -> bool {
        let known = self.known();
        known.well
            && match known.breaker.state() {
                State::Closed => true,
                State::HalfOpen => !known.trial,
                State::Open(_) => false,
            }
    }

    /// Whether somebody may find out that it is well again, and nobody does.
    pub(super) fn is_to_be_tried(&self) -> bool {
        let known = self.known();
        known.breaker.state() == State::HalfOpen && !known.trial
    }

    /// What an active check found, `fall` bad ones or `rise` good ones in a row. Says whether that is new.
    pub(super) fn set_well(&self, well: bool) -> bool {
        let mut known = self.known();
        if well && !known.well {
            known.since = Some(Instant::now());
        }
        let changed = std::mem::replace(&mut known.well, well) != well;
        drop(known);
        self.leave.send_replace(!well);
        changed
    }

    /// It is no member any more.
    pub(super) fn remove(&self) {
        self.leave.send_replace(true);
    }

    /// Whether it is no member any more, or unwell.
    pub fn is_leaving(&self) -> bool {
        *self.leave.borrow()
    }

    /// Resolves once what reads it for long is to look for another one.
    pub async fn is_to_be_left(&self) {
        if self.leave.subscribe().wait_for(|leave| *leave).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Its part of the status.
    pub fn describe(&self) -> Value {
        let known = self.known();
        let error = known.last_error.as_ref().map(|(time, text)| json!({ "time": time, "text": text }));
        json!({
            "url": redacted(&self.member.url).trim_end_matches('/'),
            "address": self.member.at.map(|at| at.to_string()),
            "weight": known.weight,
            "healthy": known.well,
            "breaker": known.breaker.state().name(),
            "failures": known.breaker.failures(),
            "active": known.active,
            "taken": known.taken,
            "failed": known.failed,
            "last_error": error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_slowly_from_when_it_came() {
        let (slow, now) = (Duration::from_secs(10), Instant::now());
        let member = "a:1 weight=2".parse().expect("a member");
        let backend = Backend::new(member, breaker::Settings::default(), Some(now));
        let weight = |seconds| backend.candidate(slow, now + Duration::from_secs(seconds)).weight;
        assert_eq!([weight(0), weight(5), weight(10), weight(60)], [0.2, 1.0, 2.0, 2.0]);
    }
}
