//! The balancer: one URL in front of several back ends (docs/balancer.md).
//!
//! Whole servers are relayed: a request goes to a chosen back end, and what is answered comes back as it is. Streams
//! and WebSockets on a fresh connection are bytes between two sockets ([`relay`]); everything else is taken apart and
//! put together again by the HTTP library ([`http`]). A topic whose events have ids of ours is read once and served from
//! a log here, so that its readers do not notice which back end is there ([`stream`]).

pub mod answer;
pub mod backend;
pub mod breaker;
pub mod choice;
pub mod headers;
pub mod health;
pub mod http;
pub mod lease;
pub mod member;
pub mod members;
pub mod names;
pub mod pool;
pub mod registered;
pub mod relay;
pub mod search;
mod splice;
pub mod sticky;
pub mod stream;
mod upload;

use crate::{
    net::{Connection, Dialer},
    panics,
    proto::{
        proxied,
        subscribe::{Peer, Refusal, query_pairs, wanted_wire},
    },
    topics::comparable,
};
use choice::{Key, Policy};
use health::Checks;
use hyper::{
    Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use lease::Lease;
use member::Member;
use pool::{Habits, Pool, Wish};
use registered::{Follower, Service};
use search::{Deadlines, Hold, Search};
use serde_json::{Value, json};
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use stream::Mode;
use tokio::{sync::watch, time::timeout};

/// Where breakers tell what becomes of back ends.
pub const NEWS: &str = "/-/balancer";
/// When nobody answers, a client may ask again after so many seconds.
const RETRY_AFTER: &str = "1";

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The back ends to begin with.
    pub members: Vec<Member>,
    /// Where they are listed instead.
    pub file: Option<PathBuf>,
    /// Or which registry lists them, and under which name.
    pub service: Option<Service>,
    /// How often names are looked up, so that each address is a back end; without it, at each connection.
    pub lookups: Option<Duration>,
    /// What holds for them.
    pub habits: Habits,
    /// How a topic is served; [`Mode::Undecided`] finds out.
    pub mode: Mode,
    /// How they are asked whether they are well, if they are.
    pub checks: Option<Checks>,
    /// The cookie that brings a client back to where it was.
    pub sticky: Option<String>,
    /// Whether back ends are told for whom a connection is (PROXY protocol).
    pub proxied: bool,
    /// For a connection to a back end, TLS included.
    pub connect_timeout: Duration,
    /// For what is said on it.
    pub deadlines: Deadlines,
}

impl Settings {
    /// Takes what a file lists, and finds out what kind of back ends these are.
    ///
    /// # Errors
    /// What is wrong with the file, or with what was asked for.
    pub fn settle(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            self.members = members::read(file)?;
        }
        let topic = self.topic().is_some();
        if self.members.iter().any(|member| member.topic().is_some() != topic) {
            return Err(io::Error::other(
                "back ends are either whole servers (http://H:P) or one topic on each (http://H:P/PATH)",
            ));
        }
        match (self.mode, topic) {
            (Mode::Undecided | Mode::Stream, true) if self.proxied => {
                Err(io::Error::other("--balance-proxy-protocol is about single clients: add --balance-mode relay"))
            }
            (Mode::Stream, false) => {
                Err(io::Error::other("--balance-mode stream reads one topic: say which, as in http://H:P/PATH"))
            }
            (Mode::Undecided, false) => {
                self.mode = Mode::Relay;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The path of the back ends' topic; `None` where they are whole servers.
    pub fn topic(&self) -> Option<&str> {
        match &self.service {
            Some(service) => service.topic.as_deref(),
            None => self.members.first().and_then(Member::topic),
        }
    }
}

/// See the module's text.
pub struct Balancer {
    /// The back ends.
    pub pool: Arc<Pool>,
    /// What follows the registry that lists them.
    pub follower: Option<Arc<Follower>>,
    settings: Settings,
    dialer: Dialer,
    /// The path under which a topic of the back ends is served; `None` where they are whole servers.
    path: Option<String>,
    mode: watch::Sender<Mode>,
    relayed: Arc<()>,
}

impl Balancer {
    /// In front of `pool`, serving its members' topic at `path`; checks begin.
    pub fn new(
        settings: Settings,
        pool: Arc<Pool>,
        follower: Option<Arc<Follower>>,
        dialer: Dialer,
        path: &str,
    ) -> Self {
        let path = settings.topic().map(|_| path.to_owned());
        let dialer = Dialer { timeout: settings.connect_timeout, ..dialer };
        let mode = watch::Sender::new(settings.mode);
        if let Some(checks) = settings.checks.clone() {
            let preface = if settings.proxied { proxied::header(None) } else { Vec::new() };
            let checking = health::run(pool.clone(), checks, dialer.clone(), preface);
            tokio::spawn(panics::vital("the health checks", checking));
        }
        Balancer { pool, follower, settings, dialer, path, mode, relayed: Arc::new(()) }
    }

    /// Whether a request goes to a back end. What is under `/-/` is ours; of a topic that is served from here, only what
    /// is to change something. While nobody knows which it is, this waits.
    pub async fn relays(&self, parts: &Parts) -> bool {
        let path = parts.uri.path();
        let own = path == "/-" || path.starts_with("/-/");
        match &self.path {
            _ if own => false,
            None => true,
            Some(served) if comparable(served) != comparable(path) => false,
            Some(_) => match self.decided().await {
                Mode::Relay => true,
                Mode::Stream => !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS),
                // Readers of streams wait here until a back end has answered.
                Mode::Undecided => wanted_wire(parts).is_none(),
            },
        }
    }

    /// How the topic is served, as far as that is known.
    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    /// It turned out how the topic is to be served.
    pub fn decide(&self, mode: Mode) {
        self.mode.send_if_modified(|known| *known == Mode::Undecided && std::mem::replace(known, mode) != mode);
    }

    async fn decided(&self) -> Mode {
        let mut mode = self.mode.subscribe();
        let known = timeout(self.settings.deadlines.answer, mode.wait_for(|mode| *mode != Mode::Undecided)).await;
        known.ok().and_then(Result::ok).map_or(Mode::Undecided, |mode| *mode)
    }

    /// Streams that are relayed now.
    pub fn relayed(&self) -> usize {
        Arc::strong_count(&self.relayed) - 1
    }

    /// One more, for as long as this is held.
    fn count_relay(&self) -> Arc<()> {
        self.relayed.clone()
    }

    /// For the status.
    pub fn describe(&self) -> Value {
        json!({
            "mode": self.mode().name(),
            "policy": self.pool.habits().policy.to_string(),
            "relayed": self.relayed(),
            "registry": self.follower.as_ref().map(|follower| follower.describe()),
            "backends": self.pool.describe(),
        })
    }

    /// Where a request should go, if that is possible.
    fn wish(&self, parts: &Parts) -> Wish {
        let before = self.settings.sticky.as_ref().and_then(|cookie| sticky::read(cookie, &parts.headers));
        Wish { key: self.key(parts), before }
    }

    /// What a hashing policy goes by.
    fn key(&self, parts: &Parts) -> u64 {
        let Policy::Hash(key) = &self.pool.habits().policy else { return 0 };
        let text = match key {
            Key::Ip => parts.extensions.get::<Peer>().map(|peer| peer.0.to_canonical().to_string()),
            Key::Header(name) => HeaderName::from_bytes(name.as_bytes())
                .ok()
                .and_then(|name| parts.headers.get(name))
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            Key::Query(name) => query_pairs(parts).find(|(known, _)| known == name).map(|(_, value)| value),
        };
        choice::hash(text.unwrap_or_default().as_bytes())
    }

    /// Looks for a back end that takes this request.
    pub fn search(&self, parts: &Parts) -> Round<'_> {
        let client = parts.extensions.get::<Peer>().map(|peer| peer.0);
        let preface = if self.settings.proxied { proxied::header(client) } else { Vec::new() };
        Round { balancer: self, wish: self.wish(parts), preface, tried: Vec::new() }
    }
}

/// One request's way through the back ends.
pub struct Round<'a> {
    balancer: &'a Balancer,
    wish: Wish,
    /// What each connection begins with.
    preface: Vec<u8>,
    tried: Vec<u64>,
}

impl Search for Round<'_> {
    type Hold = Lease;

    async fn next(&mut self) -> Result<(Lease, Connection), Refusal> {
        loop {
            let lease = self.balancer.pool.take(self.wish, &self.tried).ok_or_else(nobody)?;
            self.tried.push(lease.backend().name());
            let member = &lease.backend().member;
            match self.balancer.dialer.at(member.at).connect(&member.url, &self.preface).await {
                Ok(io) => return Ok((lease, io)),
                Err(error) => lease.failed(&crate::net::plain_words(&error)),
            }
        }
    }

    fn target(&self, lease: &Lease, parts: &Parts) -> String {
        let path = lease.backend().member.topic().unwrap_or_else(|| parts.uri.path());
        match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    fn has_more(&self) -> bool {
        self.tried.len() < self.balancer.pool.backends().len()
    }

    fn deadlines(&self) -> Deadlines {
        self.balancer.settings.deadlines
    }

    fn cookie(&self, lease: &Lease, tls: bool) -> Option<HeaderValue> {
        let (cookie, name) = (self.balancer.settings.sticky.as_ref()?, lease.backend().name());
        sticky::write(cookie, name, tls).filter(|_| self.wish.before != Some(name))
    }

    fn count_relay(&self) -> Arc<()> {
        self.balancer.count_relay()
    }
}

fn nobody() -> Refusal {
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no back end answers");
    refusal.with(header::RETRY_AFTER, RETRY_AFTER)
}

/// An answer that says that the back end cannot do its work now, though it is there.
fn is_failure(status: u16) -> bool {
    matches!(status, 502..=504)
}
