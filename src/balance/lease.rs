//! One request's or connection's hold on a back end, and what comes of it.

use super::{backend::Backend, breaker::State, pool::Pool, search::Hold};
use std::{sync::Arc, time::Instant};
use tracing::{debug, warn};

/// See the module's text.
pub struct Lease {
    pool: Arc<Pool>,
    pub(super) backend: Arc<Backend>,
    /// This is the one that finds out whether a half open one is well.
    trial: bool,
}

impl Lease {
    pub(super) fn new(pool: Arc<Pool>, backend: Arc<Backend>) -> Self {
        let mut known = backend.known();
        known.active += 1;
        known.taken += 1;
        let trial = known.breaker.state() == State::HalfOpen && !known.trial;
        known.trial |= trial;
        drop(known);
        Lease { pool, backend, trial }
    }

    /// Who it is.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }
}

impl Hold for Lease {
    fn succeeded(&self) {
        let mut known = self.backend.known();
        known.trial = false;
        let turned = known.breaker.succeeded();
        if turned.is_some() {
            known.since = Some(Instant::now());
        }
        drop(known);
        self.pool.turned(&self.backend, turned);
    }

    fn failed(&self, why: &str) {
        let mut known = self.backend.known();
        known.trial = false;
        known.fail(why);
        let turned = known.breaker.failed(Instant::now());
        let is_news = known.breaker.failures() == 1;
        drop(known);
        if is_news {
            warn!(backend = %self.backend.member, why, "failed");
        } else {
            debug!(backend = %self.backend.member, why, "failed again");
        }
        self.pool.turned(&self.backend, turned);
    }

    /// `--max-age`: only the surplus moves.
    async fn has_aged(&self) {
        let Some(max_age) = self.pool.habits().max_age else { return std::future::pending().await };
        loop {
            // Not all at once: between the half and the whole of it.
            tokio::time::sleep(max_age.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            if self.pool.has_surplus(&self.backend) {
                return;
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut known = self.backend.known();
        known.active -= 1;
        let given_up = self.trial && std::mem::take(&mut known.trial);
        drop(known);
        if given_up {
            self.pool.triable.notify_one();
        }
    }
}
