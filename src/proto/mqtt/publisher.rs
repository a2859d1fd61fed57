//! The publisher: a topic's events to somebody else's broker, with QoS 1 and never retained.
//!
//! What waits while the broker is away waits in the topic's log, behind a cursor; what the log lets go of meanwhile is
//! lost for the broker, counted, and said.

use super::{
    naming::{Header, Naming},
    packet::{Fault, Version, kind},
    read,
    session::{Identifiers, Reader},
    write,
};
use crate::{
    audience::Viewer,
    event::Batch,
    log::Entry,
    net::{self, Dialer, Io, redacted},
    site::Site,
    source::{
        health::{Health, State},
        upstream::delay,
    },
    topic::Topic,
};
use bytes::{Buf, BufMut, BytesMut};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::timeout,
};
use tracing::{info, warn};
use url::Url;

/// Messages that may wait for an acknowledgement.
const WINDOW: usize = 64;
/// Bytes that are written at once.
const ENOUGH: usize = 64 << 10;
/// Seconds of silence that the broker is promised at most, and how often we say that we are there.
const KEEP_ALIVE: u16 = 60;
const PING_EVERY: Duration = Duration::from_secs(20);
/// A broker that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// What a broker's packet may have, in bytes.
const MAX_PACKET: usize = 64 << 10;

/// A broker, and how it goes with it.
pub struct Publisher {
    /// `mqtt` or `mqtts`.
    pub url: Url,
    /// How to connect.
    pub dialer: Dialer,
    /// The longest pause between attempts.
    pub retry_max: Duration,
    /// How the connection is doing.
    pub health: Health,
    topic: Arc<Topic>,
    published: AtomicU64,
    lost: AtomicU64,
    /// The offset below which the broker has everything.
    reached: AtomicU64,
}

impl Publisher {
    /// Tells this broker what the topic says from now on.
    pub fn new(url: Url, dialer: Dialer, retry_max: Duration, topic: Arc<Topic>) -> Self {
        let (published, lost, reached) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(topic.log.end()));
        Publisher { url, dialer, retry_max, health: Health::default(), topic, published, lost, reached }
    }

    /// Events that the broker has acknowledged.
    pub fn published(&self) -> u64 {
        self.published.load(Relaxed)
    }

    /// Events that it never got: the window had passed them.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Events that wait for it.
    pub fn behind(&self) -> u64 {
        self.topic.log.end().saturating_sub(self.reached.load(Relaxed))
    }

    /// Whether events wait for a broker that is there, or may be.
    pub fn owes(&self) -> bool {
        self.behind() > 0 && self.health.get().state != State::Down
    }

    /// For the status.
    pub fn describe(&self) -> Value {
        let known = self.health.get();
        let error = known.last_error.as_ref().map(|(time, text)| json!({ "time": time, "text": text }));
        json!({
            "url": redacted(&self.url),
            "state": known.state.to_string(),
            "since": known.since,
            "connects": known.connects,
            "failures": known.failures,
            "last_error": error,
            "published_events": self.published(),
            "lost_events": self.lost(),
            "behind_events": self.behind(),
        })
    }

    /// Goes on for ever.
    pub async fn run(self: Arc<Self>, site: Arc<Site>) {
        let naming = Naming::of(&site, &self.topic);
        let (cursor, changes) = (self.reached.load(Relaxed), self.topic.log.watch());
        let mut outbox = Outbox { to: self.clone(), naming, changes, cursor, sent: VecDeque::new() };
        let (broker, mut failures) = (redacted(&self.url), 0);
        loop {
            let ended = outbox.connect_and_go_on(&site.instance).await;
            let reason = net::plain_words(&ended);
            outbox.go_back();
            let was = self.health.get().state;
            failures = if was == State::Connected { 0 } else { failures + 1 };
            self.health.fail(&reason);
            self.health.turn(State::Down);
            if was != State::Down {
                warn!(%broker, %reason, "{}", if was == State::Connected { "lost" } else { "cannot connect" });
            }
            tokio::time::sleep(delay(failures, self.retry_max)).await;
        }
    }
}

/// What goes to the broker.
struct Outbox {
    to: Arc<Publisher>,
    naming: Naming,
    changes: watch::Receiver<u64>,
    cursor: u64,
    /// Identifier and offset of what is not acknowledged.
    sent: VecDeque<(u16, u64)>,
}

impl Outbox {
    async fn connect_and_go_on(&mut self, instance: &str) -> io::Error {
        match self.open(instance).await {
            Ok((mut connection, mut inbound)) => {
                info!(broker = %redacted(&self.to.url), "connected");
                self.to.health.opened(State::Connected);
                match self.go_on(&mut *connection, &mut inbound).await {
                    Ok(()) => io::ErrorKind::UnexpectedEof.into(),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        }
    }

    /// Connects and shakes hands.
    async fn open(&self, instance: &str) -> io::Result<(Box<dyn Io>, BytesMut)> {
        let Publisher { url, dialer, .. } = &*self.to;
        let mut connection = dialer.dial(url).await?;
        let (mut out, mut inbound) = (BytesMut::new(), BytesMut::new());
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(plain);
        let login = user.map(|user| (user, url.password().map(plain).unwrap_or_default()));
        write::connect(&mut out, &format!("wsevent-{instance}"), KEEP_ALIVE, login.as_ref());
        let shake_hands = async {
            connection.write_all(&out).await?;
            connection.flush().await?;
            loop {
                if let Some(frame) = read::frame(&mut inbound, MAX_PACKET).map_err(wrong)? {
                    return Ok::<_, io::Error>(frame);
                }
                if connection.read_buf(&mut inbound).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        };
        let answer = timeout(dialer.timeout, shake_hands).await.map_err(|_| io::ErrorKind::TimedOut)??;
        match (answer.kind, &answer.body[..]) {
            (kind::CONNACK, [_, 0]) => Ok((connection, inbound)),
            (kind::CONNACK, [_, code]) => Err(io::Error::other(format!("refused by the broker (return code {code})"))),
            _ => Err(io::Error::other("no MQTT broker there")),
        }
    }

    /// Publishes and hears acknowledgements until the connection ends.
    async fn go_on(&mut self, connection: &mut dyn Io, inbound: &mut BytesMut) -> io::Result<()> {
        let (mut identifiers, mut heard, mut spoke) = (Identifiers::default(), Instant::now(), Instant::now());
        loop {
            let mut out = BytesMut::new();
            self.fill(&mut identifiers, &mut out);
            if out.is_empty() && spoke.elapsed() >= PING_EVERY {
                write::pingreq(&mut out);
            }
            if !out.is_empty() {
                let written = async {
                    connection.write_all(&out).await?;
                    connection.flush().await
                };
                timeout(SILENCE, written).await.map_err(|_| io::ErrorKind::TimedOut)??;
                spoke = Instant::now();
            }
            let held = self.sent.len() >= WINDOW;
            tokio::select! {
                read = connection.read_buf(inbound) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    heard = Instant::now();
                    self.hear(inbound, &mut identifiers)?;
                }
                _ = self.changes.changed(), if !held => {}
                () = tokio::time::sleep(PING_EVERY) => {}
            }
            if heard.elapsed() >= SILENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn hear(&mut self, inbound: &mut BytesMut, identifiers: &mut Identifiers) -> io::Result<()> {
        while let Some(mut frame) = read::frame(inbound, MAX_PACKET).map_err(wrong)? {
            if frame.kind != kind::PUBACK || frame.body.len() < 2 {
                continue;
            }
            let id = frame.body.get_u16();
            identifiers.take_back(id);
            let before = self.sent.len();
            self.sent.retain(|(sent, _)| *sent != id);
            self.to.published.fetch_add((before - self.sent.len()) as u64, Relaxed);
        }
        Ok(())
    }

    /// Writes what is new, as far as it may.
    fn fill(&mut self, identifiers: &mut Identifiers, out: &mut BytesMut) {
        self.changes.borrow_and_update();
        let mut items = Vec::new();
        while self.sent.len() < WINDOW && out.len() < ENOUGH {
            items.clear();
            match self.to.topic.log.read(self.cursor, ENOUGH, &mut items) {
                Err(lost) => {
                    let count = lost.resume - self.cursor;
                    warn!(broker = %redacted(&self.to.url), count, "events are lost: the broker was away for too long");
                    self.to.lost.fetch_add(count, Relaxed);
                    self.cursor = lost.resume;
                }
                Ok(_) if items.is_empty() => break,
                Ok(_) => {
                    for item in &items {
                        match &item.entry {
                            // What is behind a batch that did not fit whole waits behind it.
                            _ if self.sent.len() >= WINDOW => break,
                            Entry::Batch(batch) => self.put(batch, item.offset, identifiers, out),
                            _ => self.cursor = item.offset + 1,
                        }
                    }
                }
            }
        }
        self.to.reached.store(self.sent.front().map_or(self.cursor, |(_, first)| *first), Relaxed);
    }

    /// Events for some readers only, and those for a role, are not for a broker, which knows neither.
    fn put(&mut self, batch: &Batch, offset: u64, identifiers: &mut Identifiers, out: &mut BytesMut) {
        let from = self.cursor.saturating_sub(offset) as usize;
        let anybody = Reader::anybody();
        let seen = Viewer::default().of(batch, from);
        for (i, laid) in self.naming.packets(batch, Version::V4).enumerate().skip(from) {
            if self.sent.len() >= WINDOW {
                return;
            }
            self.cursor = offset + i as u64 + 1;
            if seen.has(i) && self.naming.may_hear(&laid, &anybody) {
                let id = identifiers.give();
                Header { qos: 1, again: false, id: Some(id), name: laid.name() }.put(out, laid.behind().len());
                out.put_slice(laid.behind());
                self.sent.push_back((id, offset + i as u64));
            }
        }
    }

    /// A new connection begins with what is not acknowledged.
    fn go_back(&mut self) {
        if let Some((_, first)) = self.sent.front() {
            self.cursor = *first;
        }
        self.sent.clear();
    }
}

fn wrong(fault: Fault) -> io::Error {
    io::Error::other(fault.why)
}
