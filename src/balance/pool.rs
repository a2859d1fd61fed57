//! The back ends: who is there, who is well, who is next.

use super::{
    breaker::{self, Breaker, State},
    choice::{self, Candidate, Policy, choose},
    member::Member,
};
use crate::{event::Event, topic::Topic, units::now_ms};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// A back end that has just come begins with this part of its share.
const FIRST_SHARE: f64 = 0.1;

/// What holds for all back ends.
#[derive(Clone, Debug)]
pub struct Habits {
    /// How one is chosen.
    pub policy: Policy,
    /// When one is left alone.
    pub breaker: breaker::Settings,
    /// How long the share of one that comes, or comes back, grows to what it is to be.
    pub slow_start: Duration,
}

/// See the module's text.
pub struct Pool {
    habits: Habits,
    backends: Mutex<Vec<Arc<Backend>>>,
    /// Tells what becomes of them.
    news: Arc<Topic>,
}

/// One of them.
pub struct Backend {
    /// Where it is.
    pub member: Member,
    name: u64,
    known: Mutex<Known>,
}

struct Known {
    breaker: Breaker,
    /// Somebody is finding out whether it is well again.
    trial: bool,
    /// What active checks say.
    well: bool,
    weight: f64,
    credit: f64,
    active: usize,
    /// Since when it gets its share.
    since: Option<Instant>,
    taken: u64,
    failed: u64,
    last_error: Option<(u64, String)>,
}

impl Backend {
    fn new(member: Member, breaker: breaker::Settings, since: Option<Instant>) -> Self {
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
        Backend { name: choice::hash(member.url.as_str().as_bytes()), member, known: Mutex::new(known) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// The same for the same URL, whoever else is there.
    pub fn name(&self) -> u64 {
        self.name
    }

    fn candidate(&self, slow_start: Duration, now: Instant) -> Candidate {
        let known = self.known();
        let age = known.since.map_or(slow_start, |since| now.saturating_duration_since(since));
        let grown = if age >= slow_start { 1.0 } else { age.as_secs_f64() / slow_start.as_secs_f64() };
        let weight = known.weight * grown.max(FIRST_SHARE);
        Candidate { name: self.name, weight, active: known.active, credit: known.credit }
    }

    fn is_available(&self) -> bool {
        let known = self.known();
        known.well
            && match known.breaker.state() {
                State::Closed => true,
                State::HalfOpen => !known.trial,
                State::Open(_) => false,
            }
    }

    fn describe(&self) -> Value {
        let known = self.known();
        let error = known.last_error.as_ref().map(|(time, text)| json!({ "time": time, "text": text }));
        json!({
            "url": self.member.to_string(),
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

impl Pool {
    /// All taken for well.
    pub fn new(habits: Habits, members: Vec<Member>, news: Arc<Topic>) -> Self {
        let backends = members.into_iter().map(|member| Arc::new(Backend::new(member, habits.breaker, None)));
        let backends = Mutex::new(backends.collect());
        Pool { habits, backends, news }
    }

    /// The back ends now.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.list().clone()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Backend>>> {
        self.backends.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// How one is chosen.
    pub fn policy(&self) -> &Policy {
        &self.habits.policy
    }

    /// The next one that was not `tried` yet. When none is well, the least bad: what could still serve is never refused.
    pub fn take(self: &Arc<Self>, key: u64, tried: &[u64]) -> Option<Lease> {
        let (list, now) = (self.list(), Instant::now());
        let untried: Vec<_> = list.iter().filter(|backend| !tried.contains(&backend.name)).collect();
        let mut well: Vec<_> = untried.iter().copied().filter(|backend| backend.is_available()).collect();
        if well.is_empty() {
            well.extend(untried.into_iter().min_by_key(|backend| backend.known().breaker.failures()));
        }
        let mut candidates: Vec<_> =
            well.iter().map(|backend| backend.candidate(self.habits.slow_start, now)).collect();
        let chosen = choose(&self.habits.policy, &mut candidates, key, rand::random::<f64>)?;
        for (backend, candidate) in well.iter().zip(&candidates) {
            backend.known().credit = candidate.credit;
        }
        Some(Lease::new(self.clone(), well[chosen].clone()))
    }

    /// What is known of all of them, for the status.
    pub fn describe(&self) -> Vec<Value> {
        self.list().iter().map(|backend| backend.describe()).collect()
    }

    fn turned(self: &Arc<Self>, backend: &Arc<Backend>, to: Option<State>) {
        let Some(state) = to else { return };
        let name = backend.member.to_string();
        match state {
            State::Open(until) => {
                warn!(backend = %name, "left alone: too many failures in a row");
                let (pool, backend) = (self.clone(), backend.clone());
                tokio::spawn(async move {
                    tokio::time::sleep_until(until.into()).await;
                    let turned = backend.known().breaker.tick(Instant::now());
                    pool.turned(&backend, turned);
                });
            }
            State::HalfOpen => info!(backend = %name, "tried again"),
            State::Closed => info!(backend = %name, "well again"),
        }
        let mut data = json!({ "backend": name });
        if matches!(state, State::Open(_)) {
            data["failures"] = backend.known().breaker.failures().into();
        }
        self.tell(&format!("circuit_{}", state.name()), data);
    }

    fn tell(&self, event: &str, data: Value) {
        let now = now_ms();
        let payload = json!({ "event": event, "data": data, "timestamp": now }).to_string();
        self.news.publish(vec![Event { payload: Bytes::from(payload), text: true, attrs: None }], now);
    }
}

/// One request's or connection's hold on a back end. What came of it must be said once: [`Lease::succeeded`] or
/// [`Lease::failed`]; what was given up for other reasons says nothing.
pub struct Lease {
    pool: Arc<Pool>,
    backend: Arc<Backend>,
}

impl Lease {
    fn new(pool: Arc<Pool>, backend: Arc<Backend>) -> Self {
        let mut known = backend.known();
        known.active += 1;
        known.taken += 1;
        known.trial |= known.breaker.state() == State::HalfOpen;
        drop(known);
        Lease { pool, backend }
    }

    /// Who it is.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// It answered.
    pub fn succeeded(&self) {
        let mut known = self.backend.known();
        known.trial = false;
        let turned = known.breaker.succeeded();
        if turned.is_some() {
            known.since = Some(Instant::now());
        }
        drop(known);
        self.pool.turned(&self.backend, turned);
    }

    /// It did not.
    pub fn failed(&self, why: &str) {
        let mut known = self.backend.known();
        known.trial = false;
        known.failed += 1;
        known.last_error = Some((now_ms(), why.to_owned()));
        let turned = known.breaker.failed(Instant::now());
        drop(known);
        self.pool.turned(&self.backend, turned);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut known = self.backend.known();
        known.active -= 1;
        known.trial = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::Epoch,
        log::{Limits, Log, Numbering},
    };

    fn pool(names: &[&str], failures: u32, slow_start: Duration) -> Arc<Pool> {
        let members = names.iter().map(|name| name.parse().expect("a member")).collect();
        let log = Log::new(Numbering::Own(Epoch::new(0, 0)), Limits::default());
        let news = Topic::new("/-/balancer".into(), log, Vec::new(), "", crate::topic::Policy::Disconnect);
        let breaker = breaker::Settings { failures, base: Duration::from_secs(100), cap: Duration::from_secs(100) };
        Arc::new(Pool::new(Habits { policy: Policy::RoundRobin, breaker, slow_start }, members, Arc::new(news)))
    }

    fn names(pool: &Arc<Pool>, times: usize) -> Vec<String> {
        (0..times).filter_map(|_| Some(pool.take(0, &[])?.backend().member.to_string())).collect()
    }

    #[tokio::test]
    async fn an_open_breaker_is_passed_over_until_nobody_else_is_left() {
        let pool = pool(&["a:1", "b:1"], 1, Duration::ZERO);
        pool.take(0, &[]).expect("one").failed("no");
        assert_eq!(names(&pool, 3), ["http://b:1"; 3]);
        let b = pool.take(0, &[]).expect("one");
        assert_eq!(pool.take(0, &[b.backend().name()]).expect("the other").backend().member.to_string(), "http://a:1");
        b.failed("no");
        assert_eq!(names(&pool, 2).len(), 2, "the least bad one is tried anyway");
        pool.take(0, &[]).expect("one").succeeded();
        assert_eq!(pool.news.log.totals().events, 3, "open, open, closed");
    }

    #[tokio::test]
    async fn a_half_open_one_gets_one_trial_at_a_time() {
        let pool = pool(&["a:1", "b:1"], 1, Duration::ZERO);
        pool.take(0, &[]).expect("one").failed("no");
        let turned = pool.backends()[0].known().breaker.tick(Instant::now() + Duration::from_secs(100));
        assert_eq!(turned, Some(State::HalfOpen));
        let a =
            (0..2).filter_map(|_| pool.take(0, &[])).find(|lease| lease.backend().member.url.host_str() == Some("a"));
        assert!(a.is_some());
        assert_eq!(names(&pool, 3), ["http://b:1"; 3]);
        drop(a);
        assert!(names(&pool, 3).contains(&"http://a:1".to_owned()));
    }

    #[test]
    fn a_share_grows_slowly_from_when_it_came() {
        let (slow, now) = (Duration::from_secs(10), Instant::now());
        let member = "a:1 weight=2".parse().expect("a member");
        let backend = Backend::new(member, breaker::Settings::default(), Some(now));
        let weight = |seconds| backend.candidate(slow, now + Duration::from_secs(seconds)).weight;
        assert_eq!([weight(0), weight(5), weight(10), weight(60)], [0.2, 1.0, 2.0, 2.0]);
    }
}
