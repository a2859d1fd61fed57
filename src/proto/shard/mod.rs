//! The fan-out: one thread per core that has its readers and writes shared bytes to each socket directly.
//!
//! A reader costs a socket, a place and a few words; nothing is queued for it and no task is woken per event. Readers
//! that have everything (*at the tip*) get the same bytes in one write each. A reader whose socket is full keeps the rest
//! of its current batch and a cursor; it reads on from the log when there is room, by the same code as replay. What is
//! slow (handshakes, history, stages of other topics) runs on the async side and cannot delay this thread.

mod catch_up;
mod conn;
mod deliver;
mod hops;
mod inbox;
mod input;
mod lane;
mod leave;
mod positions;
mod selective;
mod time;

pub use conn::Reader;
pub use hops::Hop;
pub use inbox::Shards;
pub(super) use leave::ending;

use crate::{
    event::Event,
    link::POSITION_EVERY,
    log::Item,
    roll::Pairs,
    topic::{Manner, Topic},
};
use conn::{Conn, More, ReaderParts, Wrote};
use inbox::{Command, Inbox};
use lane::Lane;
use mio::{Events, Registry, Token};
use slab::Slab;
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Token of the inbox; connections use their slab key.
const INBOX: Token = Token(usize::MAX);
/// What one turn reads from the log for one group or one reader.
const TURN_BYTES: usize = 256 << 10;
/// Reads of one publisher before others get their turn.
const TURN_READS: usize = 16;
/// So many readers, of all shards, may be delivered to in a thread's place, and so many topics looked at.
const FEW: usize = 8;
/// How long a position may stay unknown while a mirror is catching up (LINKS 6).
pub(super) const UNKNOWN_SECS: u32 = 10;
/// How long publishers that may wait are considerate of a reader that fell behind.
pub(super) const PATIENCE_MS: u32 = 250;
/// How long a goodbye may take.
const LEAVE_SECS: u32 = 5;
/// A pinned reader without any acknowledgement from its kernel for so long is dead (LINKS 21).
pub(super) const STALLED: Duration = Duration::from_secs(300);
/// After this long without a pong, a plain pinned reader's kernel answers for it.
pub(super) const NO_PONG: Duration = Duration::from_secs(3);

/// What holds for all readers of a process.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Between pings, jittered.
    pub ping_interval: Duration,
    /// Of silence before an SSE comment.
    pub keep_alive: Duration,
    /// Bytes that a reader may be behind.
    pub backlog: Option<u64>,
    /// Bytes that one message of a publisher may have.
    pub max_message: usize,
    /// How long a living pinned reader may hold up the publisher; `None` is for ever.
    pub block_timeout: Option<Duration>,
}

struct Shard {
    registry: Arc<Registry>,
    inbox: Arc<Inbox>,
    tuning: Tuning,
    conns: Slab<Conn>,
    lanes: Vec<Lane>,
    born: Instant,
    /// Connections that go on without waiting for their socket.
    ready: VecDeque<usize>,
    /// Publishers with more to read.
    readable: Vec<usize>,
    /// Publishers that wait for room under `block`, with what they said.
    waiting: Vec<(usize, Arc<Topic>, Vec<Event>)>,
    items: Vec<Item>,
    buf: Box<[u8]>,
    next_tick: Instant,
    draining: bool,
    /// Publishers wait for somebody who fell behind.
    patient: bool,
    /// Who asks about the hops behind us.
    asking: Vec<oneshot::Sender<Vec<Hop>>>,
}

impl Shard {
    fn new(registry: Registry, inbox: Arc<Inbox>, tuning: Tuning) -> Self {
        Shard {
            registry: Arc::new(registry),
            inbox,
            tuning,
            conns: Slab::new(),
            lanes: Vec::new(),
            born: Instant::now(),
            ready: VecDeque::new(),
            readable: Vec::new(),
            waiting: Vec::new(),
            items: Vec::new(),
            buf: vec![0; 64 << 10].into(),
            next_tick: Instant::now() + Duration::from_secs(1),
            draining: false,
            patient: false,
            asking: Vec::new(),
        }
    }

    /// All that is to be done after these events.
    fn turn(&mut self, events: &Events) {
        for event in events {
            if event.token() != INBOX {
                let lost = event.is_write_closed() || event.is_error();
                self.on_event(
                    event.token().0,
                    event.is_readable() || event.is_read_closed(),
                    event.is_writable(),
                    lost,
                );
            }
        }
        self.take_commands();
        for key in std::mem::take(&mut self.readable) {
            self.on_readable(key);
        }
        self.retry_publishers();
        self.pump();
        self.go_on();
        self.answer_askers();
        self.tell_all_pumped();
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + if self.draining { Duration::from_millis(100) } else { Duration::from_secs(1) };
            self.tick(now);
        }
    }

    /// Whether nothing waits for the thread, and a look at everything takes no time.
    fn is_at_rest(&self) -> bool {
        self.lanes.len() <= FEW && self.ready.is_empty() && self.readable.is_empty()
    }

    /// The part of a turn that news call for; says whether nothing is left to do.
    fn deliver_news(&mut self) -> bool {
        let was_patient = self.patient;
        self.pump();
        self.tell_all_pumped();
        self.ready.is_empty() && self.patient == was_patient
    }

    fn tell_all_pumped(&mut self) {
        self.patient = (0..self.lanes.len()).fold(false, |patient, lane| self.tell_pumped(lane) | patient);
    }

    /// How long to wait for events.
    fn timeout(&self) -> Duration {
        if !self.ready.is_empty() || !self.readable.is_empty() {
            return Duration::ZERO;
        }
        let wait = self.next_tick.saturating_duration_since(Instant::now());
        if self.waiting.is_empty() && !self.patient { wait } else { wait.min(Duration::from_millis(10)) }
    }

    fn millis(&self) -> u32 {
        self.born.elapsed().as_millis() as u32
    }

    fn second(&self) -> u32 {
        self.born.elapsed().as_secs() as u32
    }

    /// The second by which that time has come; far off for what never comes.
    fn second_of(&self, time: Option<Instant>) -> u32 {
        let since = time.map(|time| time.saturating_duration_since(self.born).as_millis().div_ceil(1000));
        since.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(u32::MAX)
    }

    fn take_commands(&mut self) {
        for command in self.inbox.commands() {
            match command {
                Command::Serve(reader) => {
                    if let Err(error) = self.adopt(*reader) {
                        self.inbox.leave();
                        tracing::debug!(%error, "reader not adopted");
                    }
                }
                Command::Drain { spread } => self.drain(spread),
                Command::Describe(asking) => self.asking.push(asking),
            }
        }
    }

    fn adopt(&mut self, reader: Reader) -> io::Result<()> {
        let socket = mio::net::TcpStream::from_std(reader.socket);
        let lane = self.lane(&reader.topic);
        let entry = self.conns.vacant_entry();
        let key = entry.key();
        let viewer = reader.viewer;
        let Reader { wire, chunked, may_publish, skip, permit, .. } = reader;
        let parts = ReaderParts { wire, chunked, viewer, may_publish, skip, permit };
        let mut conn = Conn::new(socket, (self.registry.clone(), Token(key)), lane, parts)?;
        if wire.is_link() || reader.owner.is_some() {
            conn.more = Some(Box::new(More::new(reader.owner)));
        }
        // Who knows that it reads is counted from then on.
        reader.topic.readers.fetch_add(1, Ordering::Relaxed);
        reader.topic.tally.enter(wire.protocol().index());
        conn.listed = (!wire.is_link()).then(|| reader.topic.roll.enter(&conn.viewer));
        if conn.listed.is_some() && reader.topic.manner == Manner::Open {
            self.lanes[lane].by_pair.insert(key, &conn.viewer.metadata);
        }
        let wrote = conn.send(reader.head);
        entry.insert(conn);
        self.conns[key].heard = self.second();
        // Who shook hands before a drain and comes behind its beginning is told, too.
        self.conns[key].due = if self.draining { self.second() } else { self.next_ping() };
        self.conns[key].expires = self.second_of(reader.expires);
        if wrote == Wrote::Dead {
            self.drop_conn(key, "connection lost");
            return Ok(());
        }
        self.begin(key, reader.start, reader.since.as_ref());
        if !reader.early.is_empty() {
            self.take_input(key, &reader.early);
        }
        Ok(())
    }

    fn lane(&mut self, topic: &Arc<Topic>) -> usize {
        if let Some(lane) = self.lanes.iter().position(|lane| Arc::ptr_eq(&lane.topic, topic)) {
            return lane;
        }
        let inbox = self.inbox.clone();
        topic.log.on_change(move |news| inbox.take(news));
        let tip = topic.log.tip();
        self.lanes.push(Lane {
            topic: topic.clone(),
            version: 0,
            moves: topic.moves(),
            live: tip.next,
            last: tip.last.clone(),
            passed: tip.last,
            events: 0,
            bytes: 0,
            pumped: topic.log.add_pump(),
            tip: [const { Vec::new() }; _],
            by_pair: Pairs::default(),
            behind: Vec::new(),
            parked: Vec::new(),
            told_every: POSITION_EVERY.min(topic.log.limits().bytes / 4),
            quiet_since: Instant::now(),
        });
        self.lanes.len() - 1
    }
}
