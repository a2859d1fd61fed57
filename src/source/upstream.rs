//! An upstream and the patience with it: connect, read, lose, wait, resume.

use super::{
    credentials::Credentials,
    feed::Feed,
    health::{Health, State},
    http, ws,
};
use crate::{
    net::{self, Dialer, redacted},
    panics,
    units::printable,
};
use rand::RngExt;
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tracing::{info, warn};
use url::Url;

/// The first delay is up to this, doubling up to `--retry-max`.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// A connection that held for so long starts the delays anew.
const STABLE: Duration = Duration::from_secs(5);
/// Different failures that are logged until it answers again; what a peer says can vary for ever.
const MAX_TOLD: usize = 8;

/// What is consumed, and how.
#[derive(Clone)]
pub struct Upstream {
    /// `ws wss http https`, the latter also as `sse+…` and `ndjson+…`.
    pub url: Url,
    /// What it is shown about us.
    pub credentials: Credentials,
    /// How to connect.
    pub dialer: Dialer,
    /// Names this process.
    pub instance: String,
    /// Which of its upstreams this is, from 0.
    pub ordinal: usize,
    /// Bytes that one event may have.
    pub max_message: usize,
    /// Silence after which the connection is given up; pings and comments count as sound.
    pub idle_timeout: Option<Duration>,
    /// Failed attempts in a row before giving up; `None` never.
    pub retries: Option<u32>,
    /// The longest delay.
    pub retry_max: Duration,
    /// Offer compression (RFC 7692).
    pub deflate: bool,
    /// Send every message back with its opcode.
    pub echo: bool,
    /// A consumer gives up where a serving process keeps trying.
    pub terminal: bool,
    /// Adopt the upstream's `block` policy: how many readers to await, how long to keep a departed one's pin.
    pub adopt_block: Option<(usize, Duration)>,
    /// How it is doing.
    pub health: Arc<Health>,
}

impl Upstream {
    /// What the reader calls itself: two of one process must not take over each other's pins (LINKS 21).
    pub fn reader_name(&self) -> String {
        if self.ordinal == 0 { self.instance.clone() } else { format!("{} {}", self.instance, self.ordinal) }
    }
}

/// How one connection ended.
#[derive(Debug)]
pub enum Failure {
    /// Not reached, or lost: try again, not before the given delay.
    Lost(String, Option<Duration>),
    /// 401, 403, or closed with 1008.
    Refused(String),
    /// What answered is no stream.
    NoStream(String),
    /// The stream has ended: nothing will follow (LINKS 18).
    Ended,
    /// The path upstream changed: connect again at once, to check for a loop (LINKS 25).
    Moved,
    /// It answered, but is none of those that the feed takes.
    Stranger,
}

impl Failure {
    /// A connection that broke or was not made.
    pub fn lost(error: &dyn std::fmt::Display) -> Self {
        Failure::Lost(error.to_string(), None)
    }

    /// Waits at least that long.
    pub fn not_before(self, wait: Option<Duration>) -> Self {
        match self {
            Failure::Lost(reason, None) => Failure::Lost(reason, wait),
            other => other,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Lost(net::plain_words(&error), None)
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        use std::error::Error;
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        Failure::Lost(cause.map_or_else(|| error.to_string(), net::plain_words), None)
    }
}

/// How consuming ended.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// The upstream's stream has ended.
    Ended,
    /// Not reached within `--retries`: who, and why. So the others.
    Unreachable(String),
    /// Refused by authorisation.
    Refused(String),
    /// The answer was no stream.
    NoStream(String),
}

/// Consumes until there is nothing more to hope for. `connected` turns true when the upstream has answered once.
pub async fn run(upstream: Upstream, mut feed: Feed, connected: watch::Sender<bool>) -> Outcome {
    let mut news = News::new(&upstream.url);
    let mut failures = 0u32;
    feed.health = upstream.health.clone();
    loop {
        let began = Instant::now();
        let mut on_open = || {
            news.opened();
            upstream.health.opened(news.state);
            connected.send_replace(true);
        };
        let ended = consume(&upstream, &mut feed, &mut on_open).await;
        if news.state == State::Ended && !feed.has_ended() {
            news.state = State::Connected;
        }
        if news.state == State::Connected && began.elapsed() >= STABLE {
            failures = 0;
        }
        let (reason, wait) = match ended {
            Failure::Moved => continue,
            Failure::Ended if upstream.terminal => return Outcome::Ended,
            Failure::Ended => {
                news.ended();
                feed.end();
                failures = failures.max(3);
                (String::new(), None)
            }
            Failure::Refused(reason) if upstream.terminal => return Outcome::Refused(news.about(&reason)),
            Failure::NoStream(reason) if upstream.terminal => return Outcome::NoStream(news.about(&reason)),
            Failure::Refused(reason) | Failure::NoStream(reason) => (printable(&reason), Some(upstream.retry_max)),
            Failure::Lost(reason, wait) => (printable(&reason), wait),
            Failure::Stranger => ("another stream than before".into(), Some(upstream.retry_max)),
        };
        if news.state != State::Ended {
            upstream.health.fail(&reason);
            news.failed(&reason);
        }
        upstream.health.turn(news.state);
        if upstream.retries.is_some_and(|retries| failures >= retries) {
            return Outcome::Unreachable(news.about(&reason));
        }
        tokio::time::sleep(delay(failures, upstream.retry_max).max(wait.unwrap_or_default())).await;
        failures += 1;
    }
}

/// One connection, from its request to its end; `on_open` is called when a stream was answered.
pub async fn consume(upstream: &Upstream, feed: &mut Feed, on_open: &mut (dyn FnMut() + Send)) -> Failure {
    let websocket = matches!(upstream.url.scheme(), "ws" | "wss");
    let consumed = panics::contain_future(async {
        if websocket {
            ws::consume(upstream, feed, on_open).await
        } else {
            http::consume(upstream, feed, on_open).await
        }
    });
    let ended = consumed.await.unwrap_or_else(|| Err(Failure::lost(&"a fault of this program")));
    ended.err().unwrap_or(Failure::Ended)
}

/// What the log was told of an upstream: one line per change, not per attempt.
struct News {
    upstream: String,
    state: State,
    /// Why, since it last answered.
    reasons: Vec<String>,
}

impl News {
    fn new(url: &Url) -> Self {
        News { upstream: redacted(url), state: State::Connecting, reasons: Vec::new() }
    }

    /// It answered. A stream that has ended is worth a word again when it goes on, which the feed sees.
    fn opened(&mut self) {
        self.reasons.clear();
        if self.state != State::Ended && self.turn(State::Connected) {
            info!(upstream = %self.upstream, "connected");
        }
    }

    fn ended(&mut self) {
        if self.turn(State::Ended) {
            info!(upstream = %self.upstream, "the stream has ended");
        }
    }

    fn failed(&mut self, reason: &str) {
        let what = if self.state == State::Connected { "lost" } else { "cannot connect" };
        self.turn(State::Down);
        if self.reasons.len() < MAX_TOLD && !self.reasons.iter().any(|told| told == reason) {
            self.reasons.push(reason.to_owned());
            warn!(upstream = %self.upstream, %reason, "{what}");
        }
    }

    /// What to say where nobody else names the upstream.
    fn about(&self, reason: &str) -> String {
        format!("{}: {}", self.upstream, printable(reason))
    }

    fn turn(&mut self, to: State) -> bool {
        std::mem::replace(&mut self.state, to) != to
    }
}

/// Exponential backoff with full jitter.
pub fn delay(failures: u32, max: Duration) -> Duration {
    let ceiling = FIRST_DELAY.saturating_mul(1 << failures.min(16)).min(max);
    ceiling.mul_f64(rand::rng().random_range(0.0..1.0))
}

/// What was agreed with an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Its ids are ours.
    pub ours: bool,
    /// It forgets nothing that we have not acknowledged.
    pub blocks: bool,
}

/// What an answer's headers say about the stream behind it.
pub struct Answer {
    /// Its ids are ours.
    pub ours: bool,
    /// What it holds.
    pub window: Option<crate::log::Window>,
    /// Instances up to the origin.
    pub path: String,
    /// Its slow-reader policy is `block`.
    pub blocks: bool,
    /// Names the stages so far.
    pub view: String,
}

impl Answer {
    /// Reads the headers by name.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Self {
        use crate::link::{PATH_HEADER, POLICY_HEADER, VERSION_HEADER, VIEW_HEADER, WINDOW_HEADER, parse_window};
        Answer {
            ours: get(VERSION_HEADER) == Some("v1"),
            window: get(WINDOW_HEADER).and_then(parse_window),
            path: get(PATH_HEADER).unwrap_or("").to_owned(),
            blocks: get(POLICY_HEADER) == Some("block"),
            view: get(VIEW_HEADER).unwrap_or("").to_owned(),
        }
    }

    /// Takes the answer into the topic: loops are refused (LINKS 25), the policy travels.
    ///
    /// # Errors
    /// [`Failure::Stranger`] for one that the feed does not take, [`Failure::Lost`] for a loop.
    pub fn apply(self, upstream: &Upstream, feed: &mut Feed) -> Result<Opened, Failure> {
        if !feed.admits(self.ours, self.window.as_ref(), &self.view) {
            return Err(Failure::Stranger);
        }
        self.check_path(upstream, feed)?;
        upstream.health.answered(self.ours, &self.path);
        if let (true, true, Some((awaited, grace))) = (self.ours, self.blocks, upstream.adopt_block) {
            feed.topic.block(awaited, grace);
        }
        feed.topic.set_upstream_view(&self.view);
        feed.open(self.ours, self.window);
        Ok(Opened { ours: self.ours, blocks: self.blocks })
    }

    /// Refuses loops; also an answer that refuses us says where it stands (LINKS 25).
    ///
    /// # Errors
    /// [`Failure::Lost`] for a loop.
    pub fn check_path(&self, upstream: &Upstream, feed: &Feed) -> Result<(), Failure> {
        let hops = self.path.split(',').filter(|hop| !hop.is_empty()).count();
        if self.path.split(',').any(|hop| hop == upstream.instance) {
            return Err(Failure::Lost(
                "this instance is its own upstream: refusing the loop".into(),
                Some(upstream.retry_max),
            ));
        }
        if hops > crate::link::MAX_HOPS {
            return Err(Failure::Lost(format!("{hops} hops to the origin: refusing"), Some(upstream.retry_max)));
        }
        feed.topic.set_provenance(upstream.ordinal, self.path.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let max = Duration::from_secs(5);
        for (failures, ceiling) in [(0, 250), (1, 500), (4, 4000), (5, 5000), (60, 5000)] {
            for _ in 0..50 {
                assert!(delay(failures, max) <= Duration::from_millis(ceiling));
            }
        }
    }
}
