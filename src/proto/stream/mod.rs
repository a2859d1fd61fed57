//! One reader's way through a topic, step by step: for readers that have a task of their own because a shard cannot
//! hold them (TLS, HTTP/2, a stream behind another request on its connection).
//!
//! The rules are those of the shards, and so is what the reader sees; only who writes to the socket differs. Time is a
//! parameter of every decision, and nothing here knows a connection.

mod hops;
mod leave;
mod pace;
mod read;
mod tell;

use super::{shard::Tuning, subscribe::Subscription, wire::Wire};
use crate::{
    audience::Viewer,
    id::{Id, Since},
    inbound::InputEnd,
    log::Start,
    matcher::Match,
    pins::PinId,
    roll::{self, Straggler},
    sys::Kernel,
    tally::Ending,
    topic::{Manner, Policy, Topic},
    units::now_ms,
};
use bytes::Bytes;
use pace::Pace;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tell::Told;
use tokio::sync::watch;

/// A reader whose socket is full is looked after this often.
const STALLED_LOOK: Duration = Duration::from_millis(250);
/// Nothing is due.
const NEVER: Duration = Duration::from_secs(3600);

/// The readers of a process that have a task each.
pub struct Tasks {
    tuning: Tuning,
    count: AtomicUsize,
    drain: watch::Sender<Option<Duration>>,
    pumps: pace::Pumps,
    cards: hops::Cards,
}

impl Tasks {
    /// None yet.
    pub fn new(tuning: Tuning) -> Self {
        Tasks {
            tuning,
            count: AtomicUsize::new(0),
            drain: watch::Sender::new(None),
            pumps: pace::Pumps::default(),
            cards: hops::Cards::default(),
        }
    }

    /// What holds for readers.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// How many there are now.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// One more, for as long as what this returns lives.
    pub fn enter(self: &Arc<Self>) -> Counted {
        self.count.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// Says goodbye to every one, spread over that long.
    pub fn drain(&self, spread: Duration) {
        self.drain.send_replace(Some(spread));
    }
}

/// A reader that counts.
pub struct Counted(Arc<Tasks>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the reader is to get next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// This, and then more.
    Piece(Bytes),
    /// This, and then the end of the connection; the position if the stream has ended there.
    Last(Bytes, Option<Id>),
    /// Nothing: it is not there any more.
    Gone(&'static str),
}

/// Where a reader stands.
#[derive(Debug)]
enum Place {
    /// As the log answered before the peer heard anything.
    New(Start, Option<Since>),
    /// Its position has not arrived yet; at the deadline it must go.
    Parked(Option<Since>, Option<Instant>),
    /// Behind its cursor.
    Reading,
    /// The goodbye is said.
    Gone,
}

/// See the module's text.
pub struct Steps {
    tasks: Arc<Tasks>,
    _counted: Counted,
    topic: Arc<Topic>,
    wire: Wire,
    viewer: Arc<Viewer>,
    listed: Option<roll::Place>,
    /// Says where it stands, on the roll of a named stream.
    straggler: Option<Arc<Straggler>>,
    owner: Option<String>,
    peer: Option<SocketAddr>,
    place: Place,
    cursor: u64,
    changes: watch::Receiver<u64>,
    /// Path changes that a link was told.
    moves: u64,
    told: Told,
    pin: Option<PinId>,
    /// Skips what is gone instead of being closed.
    skip: bool,
    pace: Pace,
    card: Option<Arc<hops::Card>>,
    /// What the kernel said last of a pinned reader's connection.
    kernel: Option<Kernel>,
    /// The end of the stream was told; it goes once everything is acknowledged.
    ended: bool,
    /// When its token ends.
    expires: Option<Instant>,
    drain: watch::Receiver<Option<Duration>>,
    /// When the drain's goodbye is due.
    leaves: Option<Instant>,
    /// Tells that the peer has closed its sending side, where somebody else reads the connection.
    input_end: Option<InputEnd>,
    /// A probe is to be sent.
    probes: bool,
    heard: Instant,
    /// It has answered a ping.
    ponged: bool,
    ping_due: Instant,
    /// When anything was last sent.
    spoke: Instant,
}

impl Steps {
    /// Begins where the subscription says; the first piece tells the position (LINKS 7).
    pub fn new(tasks: Arc<Tasks>, subscription: Subscription, peer: Option<SocketAddr>) -> Self {
        let Subscription { topic, wire, start, since, viewer, owner, expires, .. } = subscription;
        topic.readers.fetch_add(1, Ordering::Relaxed);
        topic.tally.enter(wire.protocol().index());
        let (skip, retained) = (topic.policy() == Policy::DropOldest, topic.log.limits().bytes);
        let now = Instant::now();
        let mut steps = Steps {
            listed: (!wire.is_link()).then(|| topic.roll.enter(&viewer)),
            straggler: (topic.manner == Manner::Open).then(|| topic.roll.straggle(&viewer, u64::MAX)),
            changes: topic.log.watch(),
            moves: topic.moves(),
            drain: tasks.drain.subscribe(),
            _counted: tasks.enter(),
            tasks,
            topic,
            wire,
            viewer,
            owner,
            peer,
            place: Place::New(start, since),
            cursor: 0,
            told: Told::new(retained, now),
            pin: None,
            skip,
            pace: Pace::default(),
            card: None,
            kernel: None,
            ended: false,
            expires,
            leaves: None,
            input_end: None,
            probes: false,
            heard: now,
            ponged: false,
            ping_due: now,
            spoke: now,
        };
        steps.ping_due = now + steps.ping_interval();
        steps.drain.mark_changed();
        steps.take_card();
        steps
    }

    /// Probes the peer once it has closed its sending side.
    pub fn with_input_end(mut self, input_end: Option<InputEnd>) -> Self {
        self.input_end = input_end;
        self
    }

    /// The next step, as soon as there is one. While the reader's socket is full (not `clear`) that can only be the
    /// last. Nothing is lost when this is dropped in between.
    pub async fn next(&mut self, clear: bool) -> Step {
        loop {
            self.changes.borrow_and_update();
            let now = Instant::now();
            if self.drain.has_changed().unwrap_or(false) {
                self.note_drain(now);
            }
            match self.step(now, clear) {
                // A filter may have to look at much: others want to run, too.
                Some(Step::Piece(piece)) if piece.is_empty() => tokio::task::yield_now().await,
                Some(step) => return step,
                None => self.wait(now, clear).await,
            }
        }
    }

    async fn wait(&mut self, now: Instant, clear: bool) {
        let due = tokio::time::sleep_until(self.due(now, clear).into());
        tokio::select! {
            _ = self.changes.changed(), if clear => {}
            _ = self.drain.changed() => self.drain.mark_changed(),
            () = InputEnd::told(self.input_end.as_ref()), if clear => self.probes = true,
            () = due => {}
        }
    }

    fn step(&mut self, now: Instant, clear: bool) -> Option<Step> {
        if let Some(why) = self.is_gone(now) {
            self.uncount(Ending::Silent);
            return Some(Step::Gone(why));
        }
        if let Some(why) = self.must_leave(now, clear) {
            return Some(self.leave(&why));
        }
        if !clear && !matches!(self.place, Place::New(..)) {
            self.keep_pace(now);
            return None;
        }
        let step = self.begin(now).or_else(|| self.read(now)).or_else(|| self.say(now).map(Step::Piece));
        if !matches!(&step, Some(Step::Piece(piece)) if piece.is_empty()) && step.is_some() {
            self.spoke = now;
        }
        self.note_standing();
        self.note_straggling();
        self.pace.is_behind(matches!(step, Some(Step::Piece(_))), now);
        self.keep_pace(now);
        step
    }

    /// When to look again though nothing changed.
    fn due(&self, now: Instant, clear: bool) -> Instant {
        let parked = match self.place {
            Place::Parked(_, deadline) => deadline,
            _ => None,
        };
        let pinned = self.pin.map(|_| now + Duration::from_secs(1));
        let always = [parked, pinned, self.expires, self.leaves].into_iter().flatten().min().unwrap_or(now + NEVER);
        if !clear {
            return always.min(now + STALLED_LOOK);
        }
        let told = [self.told_due(), self.ping_due(), self.keep_alive_due()];
        told.into_iter().flatten().min().map_or(always, |told| told.min(always))
    }

    /// From here on it sees what this matches; without one everything.
    pub fn see(&mut self, wanted: Option<Match>) {
        let wanted = wanted.map(|wanted| self.topic.wishes.share(wanted));
        let Viewer { metadata, relay, .. } = &*self.viewer;
        self.viewer = Arc::new(Viewer { metadata: metadata.clone(), relay: *relay, wanted });
    }

    /// It goes on from there, whatever it has seen.
    pub fn seek(&mut self, since: Since) {
        if !matches!(self.place, Place::Gone) {
            self.release(true);
            self.place = Place::New(self.topic.log.seek(Some(&since), now_ms()), Some(since));
        }
    }

    /// What lets it in ends then.
    pub fn expire(&mut self, when: Option<Instant>) {
        self.expires = when;
    }

    /// Whether the topic waits for this reader.
    pub fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }

    /// Links always, others while they are pinned.
    fn is_tracked(&self) -> bool {
        self.wire.is_link() || self.pin.is_some()
    }

    fn is_reading(&self) -> bool {
        matches!(self.place, Place::Reading)
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.release(false);
        self.give_pump_back();
        self.topic.tally.leave(self.wire.protocol().index());
        self.uncount(Ending::Left);
    }
}
