//! Topics of back ends, read once and served from a log of our own.
//!
//! One link reads one back end at a time. When it goes away another one is asked to go on where we stand, by id: where
//! epoch and view agree (forwarders of one origin, LINKS 3, 5, 6) no reader notices. Where nobody goes on there, another
//! origin's stream follows behind a gap, and is numbered here.

use super::{Balancer, health, lease::Lease, pool::Wish, search::Hold};
use crate::{
    net::redacted,
    site::Site,
    source::{
        feed::{Feed, Taken},
        health::State,
        upstream::{self, Failure, Upstream},
    },
    units::printable,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tracing::{info, warn};
use url::Url;

/// A back end that was read for so long did well.
const STABLE: Duration = Duration::from_secs(5);

/// What the back ends' topic turned out to be, or was said to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// No back end has answered yet.
    Undecided,
    /// Its events have ids of ours: read once, served from here.
    Stream,
    /// Bytes.
    Relay,
}

impl Mode {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Undecided => "undecided",
            Mode::Stream => "stream",
            Mode::Relay => "relay",
        }
    }
}

/// What reads the back ends of a balancer.
pub struct Reading {
    /// Whose.
    pub balancer: Arc<Balancer>,
    /// Where what is read is seen.
    pub site: Arc<Site>,
    /// How a back end is consumed; its URL is the one that is read.
    pub upstream: Upstream,
    /// Where events go.
    pub feed: Feed,
    /// The stream has ended, and the log was told so.
    pub ended: bool,
}

/// What came of asking every back end once.
enum Round {
    /// This one was read for so long, and lost.
    Lost(u64, Duration),
    /// Some answered, but none of them goes on where we stand.
    Strangers,
    /// The stream has ended wherever it was asked for.
    Ended,
    /// Nobody answered.
    Nobody,
}

/// What came of asking one.
enum Asked {
    Lost(Duration),
    Stranger,
    Ended,
    Failed,
}

impl Reading {
    /// Reads for ever, or until it is found that these back ends can only be relayed. `connected` turns true when the
    /// first has answered.
    pub async fn run(mut self, connected: watch::Sender<bool>) {
        // Whoever has no ids is taken only where that was asked for.
        let first = if self.mode() == Mode::Stream { Taken::Any } else { Taken::Ids };
        self.feed.health = self.upstream.health.clone();
        let mut trying = JoinSet::new();
        let (pool, dialer) = (self.balancer.pool.clone(), self.balancer.dialer.clone());
        trying.spawn(health::try_again(pool, dialer, self.balancer.settings.deadlines.answer));
        let (mut lost, mut failures, mut arrivals) = (None, 0u32, self.balancer.pool.arrivals());
        loop {
            arrivals.borrow_and_update();
            self.feed.takes = if self.feed.position().is_some() { Taken::Kin } else { first };
            match self.round(lost.take(), &connected).await {
                Round::Lost(whom, lasted) => {
                    self.ended = false;
                    lost = Some(whom);
                    failures = if lasted >= STABLE { 0 } else { failures + 1 };
                }
                Round::Strangers if self.mode() == Mode::Undecided => {
                    info!("the back ends give no ids: relaying bytes");
                    self.balancer.decide(Mode::Relay);
                    connected.send_replace(true);
                    return;
                }
                Round::Strangers if self.feed.takes == Taken::Kin => {
                    warn!("no back end goes on where the last one was lost: another stream follows behind a gap");
                    self.feed.change_origin();
                    continue;
                }
                Round::Ended => {
                    if !std::mem::replace(&mut self.ended, true) {
                        info!("the stream has ended at every back end");
                    }
                    self.feed.topic.log.finish();
                    failures = failures.max(3);
                }
                Round::Strangers | Round::Nobody => failures += 1,
            }
            // Everyone gets a chance at once.
            let hasty = failures.saturating_sub(self.balancer.pool.backends().len() as u32);
            if hasty > 0 {
                // Who is new is asked at once.
                let pause = upstream::delay(hasty - 1, self.upstream.retry_max);
                let _ = timeout(pause, arrivals.changed()).await;
            }
        }
    }

    fn mode(&self) -> Mode {
        self.balancer.mode()
    }

    /// Asks every back end, the one that was just `lost` last, until one is read.
    async fn round(&mut self, mut lost: Option<u64>, connected: &watch::Sender<bool>) -> Round {
        let mut tried: Vec<u64> = lost.into_iter().collect();
        let (mut strangers, mut ended) = (false, false);
        loop {
            let Some(lease) = self.balancer.pool.take(Wish::default(), &tried) else {
                match lost.take() {
                    Some(last) => tried.retain(|name| *name != last),
                    None if strangers => return Round::Strangers,
                    None if ended => return Round::Ended,
                    None => return Round::Nobody,
                }
                continue;
            };
            let name = lease.backend().name();
            tried.push(name);
            match self.read(&lease, connected).await {
                Asked::Lost(lasted) => return Round::Lost(name, lasted),
                Asked::Stranger => strangers = true,
                Asked::Ended => ended = true,
                Asked::Failed => {}
            }
        }
    }

    /// Reads one back end until it is lost.
    async fn read(&mut self, lease: &Lease, connected: &watch::Sender<bool>) -> Asked {
        let member = &lease.backend().member;
        let url = link_url(&member.url);
        if (&self.upstream.url, self.upstream.dialer.at) != (&url, member.at) {
            self.feed.forget_foreign_id();
            self.upstream.url = url;
            self.upstream.dialer = self.upstream.dialer.at(member.at);
        }
        let (name, balancer, health) =
            (redacted(&self.upstream.url), self.balancer.clone(), self.upstream.health.clone());
        let told_end = self.ended;
        self.site.inside.move_upstream(&self.feed.topic.path, self.upstream.clone());
        loop {
            let mut opened = None;
            let mut on_open = || {
                opened = Some(Instant::now());
                if !told_end {
                    info!(upstream = %name, "connected");
                }
                lease.succeeded();
                health.opened(State::Connected);
                balancer.decide(Mode::Stream);
                connected.send_replace(true);
            };
            let ended = tokio::select! {
                ended = upstream::consume(&self.upstream, &mut self.feed, &mut on_open) => ended,
                () = self.balancer.pool.is_better_elsewhere(lease.backend()) => Failure::lost(&"others are well, it is not"),
            };
            if matches!(ended, Failure::Moved) {
                continue;
            }
            health.turn(if matches!(ended, Failure::Ended) { State::Ended } else { State::Down });
            return came_of(ended, opened, lease, &self.upstream);
        }
    }
}

/// What one connection's end means.
fn came_of(ended: Failure, opened: Option<Instant>, lease: &Lease, upstream: &Upstream) -> Asked {
    let failed = |reason: &str| {
        let reason = printable(reason);
        upstream.health.fail(&reason);
        lease.failed(&reason);
    };
    match (ended, opened) {
        (Failure::Ended, _) => {
            lease.succeeded();
            Asked::Ended
        }
        (Failure::Lost(reason, _), Some(opened)) => {
            let reason = printable(&reason);
            warn!(upstream = %redacted(&upstream.url), %reason, "lost");
            upstream.health.fail(&reason);
            Asked::Lost(opened.elapsed())
        }
        (Failure::Lost(reason, _), None) => {
            failed(&reason);
            Asked::Failed
        }
        (Failure::Refused(reason) | Failure::NoStream(reason), _) => {
            failed(&reason);
            Asked::Stranger
        }
        (Failure::Stranger | Failure::Moved, _) => {
            lease.succeeded();
            Asked::Stranger
        }
    }
}

/// A topic is read over a link where it can be.
pub(super) fn link_url(url: &Url) -> Url {
    let text = url.as_str().replacen("http", "ws", 1);
    Url::parse(&text).unwrap_or_else(|_| url.clone())
}
