//! `wsevent bench`: many readers of a URL, a source of stamped events, or both, and what came of it.
//!
//! One thread does all: readers are tasks on it that share a read buffer, and what they know is plain cells. So it costs
//! little beside the server that it measures, and one core is all that it ever takes from it.

mod board;
mod body;
mod broker;
mod cost;
mod histogram;
mod open;
mod progress;
mod reader;
mod report;
mod sink;
mod source;
pub mod stamp;
mod track;
mod window;
mod wire;

use crate::{net::Dialer, source::credentials::Credentials};
use board::Board;
use cost::{Cost, Usage};
use open::Target;
use progress::Progress;
pub use report::Report;
use report::Timing;
use sink::{Sink, Untaken};
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinSet, LocalSet},
    time::{Instant, sleep, sleep_until},
};
use track::Tracks;
use url::Url;

/// Handshakes under way at once.
const AT_ONCE: usize = 256;
/// For what is under way when the time is over.
const SETTLING: Duration = Duration::from_secs(5);
/// What is under way has gone when nothing came for so long.
const SILENCE: Duration = Duration::from_secs(1);
/// Before memory is looked at: servers tidy up behind a handshake.
const TIDYING: Duration = Duration::from_millis(500);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is read, if anything.
    pub url: Option<Url>,
    /// What its server, and the one that is published to, are shown.
    pub credentials: Credentials,
    /// Connections that read it.
    pub readers: usize,
    /// How many of them never do.
    pub stalled: usize,
    /// Connections per second.
    pub connect_rate: Option<u32>,
    /// `None`: for ever.
    pub duration: Option<Duration>,
    /// Processes whose cost counts.
    pub pids: Vec<u32>,
    /// What says events, if anything.
    pub source: Option<Sourcing>,
}

/// A source of stamped events.
#[derive(Clone, Debug)]
pub struct Sourcing {
    /// The topic; `None` is standard output.
    pub to: Option<Url>,
    /// When the next one is due.
    pub pace: Pace,
    /// Bytes of each.
    pub size: usize,
    /// `None`: without end.
    pub count: Option<u64>,
}

/// When the next event is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as the last one is taken.
    Free,
    /// So many a second.
    Rate(f64),
    /// When all readers have the one so many before it.
    Window(usize),
}

/// Measures until the time is over, the source or the stream has ended, or `stop` says so.
///
/// # Errors
/// Why nothing can be measured.
pub async fn run(settings: &Settings, dialer: Dialer, stop: watch::Receiver<bool>) -> Result<Report, String> {
    let source = settings.source.as_ref().map(|_| rand::random());
    let tracks = || Rc::new(RefCell::new(source.map_or_else(Tracks::default, Tracks::expecting)));
    let board = Board::default();
    board.source.set(source);
    let tracks = (0..settings.readers).map(|_| tracks()).collect();
    let bench = Bench { settings, dialer, board: Rc::new(board), tracks, stop, progress: Progress::new() };
    LocalSet::new().run_until(bench.run()).await
}

struct Bench<'a> {
    settings: &'a Settings,
    dialer: Dialer,
    board: Rc<Board>,
    tracks: Vec<Rc<RefCell<Tracks>>>,
    stop: watch::Receiver<bool>,
    progress: Progress,
}

impl Bench<'_> {
    async fn run(mut self) -> Result<Report, String> {
        let idle = Usage::of(&self.settings.pids)?;
        let began = Instant::now();
        let mut readers = JoinSet::new();
        self.connect(&mut readers).await;
        let connecting = began.elapsed();
        let connected = Usage::of(&self.settings.pids)?;
        if !self.settings.pids.is_empty() {
            sleep(TIDYING).await;
        }
        let tidy = Usage::of(&self.settings.pids)?;
        let (events, began) = (self.board.events.get(), Instant::now());
        self.board.measures.set(true);
        self.measure(began).await?;
        let measured = self.settle().await - began;
        self.board.measures.set(false);
        let served = Usage::of(&self.settings.pids)?;
        self.progress.end();
        let cost = Cost {
            connecting: connected.cpu.saturating_sub(idle.cpu),
            serving: served.cpu.saturating_sub(tidy.cpu),
            memory: tidy.memory.saturating_sub(idle.memory),
        };
        Ok(Report::new(&self, Timing { connecting, measured, events_before: events }, cost))
    }

    /// Opens all readers, as fast as asked, and waits until each has a stream or none.
    async fn connect(&mut self, readers: &mut JoinSet<()>) {
        let Some(url) = &self.settings.url else { return };
        let target = Rc::new(self.target(url));
        let (slots, began) = (Arc::new(Semaphore::new(AT_ONCE)), Instant::now());
        for (i, tracks) in self.tracks.iter().enumerate() {
            if let Some(rate) = self.settings.connect_rate {
                sleep_until(began + Duration::from_secs_f64(i as f64 / f64::from(rate))).await;
            }
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            if *self.stop.borrow() {
                return;
            }
            let (target, board, tracks) = (target.clone(), self.board.clone(), tracks.clone());
            let stalled = i < self.settings.stalled;
            readers.spawn_local(async move { reader::run(&target, &board, &tracks, slot, stalled).await });
            self.progress.connecting(&self.board, self.settings.readers);
        }
        let stopped = &mut self.stop.clone();
        while self.board.connected.get() + self.board.failed.get() < self.settings.readers && !*stopped.borrow() {
            tokio::select! {
                () = self.board.bell.notified() => self.progress.connecting(&self.board, self.settings.readers),
                _ = stopped.changed() => {}
            }
        }
    }

    fn target(&self, url: &Url) -> Target {
        Target { url: url.clone(), credentials: self.settings.credentials.clone(), dialer: self.dialer.clone() }
    }

    /// Until the time is over, or nothing more can come.
    async fn measure(&mut self, began: Instant) -> Result<(), String> {
        let until = self.settings.duration.map_or_else(far_away, |duration| began + duration);
        let mut stopped = self.stop.clone();
        let (board, reads) = (self.board.clone(), self.settings.url.is_some());
        let all_gone = async {
            while !reads || board.ended.get() < board.connected.get() || self.settings.source.is_some() {
                board.bell.notified().await;
            }
        };
        let says = self.say(until);
        let reports = self.progress.measuring(&self.board);
        tokio::select! {
            said = says => said,
            () = all_gone => Ok(()),
            () = reports => Ok(()),
            () = sleep_until(until + SILENCE) => Ok(()),
            _ = stopped.wait_for(|stop| *stop) => Ok(()),
        }
    }

    /// What the source does; without one it is the time that ends the measurement.
    async fn say(&self, until: Instant) -> Result<(), String> {
        let Some(plan) = &self.settings.source else {
            sleep_until(until).await;
            return Ok(());
        };
        if let Pace::Window(size) = plan.pace {
            let readers = self.board.connected.get().saturating_sub(self.settings.stalled);
            *self.board.window.borrow_mut() = Some(window::Window::new(size, readers));
        }
        let mut sink = match &plan.to {
            None => Sink::lines(),
            Some(url) => Sink::open(&self.target(url)).await?,
        };
        match source::run(plan, &self.board, &mut sink, until).await {
            Err(Untaken::Failed(why)) => Err(why),
            Ok(()) | Err(Untaken::HungUp) => Ok(()),
        }
    }

    /// Lets readers come to where the sources are now; says when the last event came.
    async fn settle(&self) -> Instant {
        let ends = self.board.ends();
        let reached =
            || self.tracks.iter().skip(self.settings.stalled).all(|tracks| tracks.borrow().has_reached(&ends));
        let deadline = Instant::now() + SETTLING;
        let (mut events, mut heard) = (self.board.events.get(), Instant::now());
        while !reached() && Instant::now() < deadline && heard.elapsed() < SILENCE {
            sleep(Duration::from_millis(5)).await;
            if self.board.events.get() != events {
                (events, heard) = (self.board.events.get(), Instant::now());
            }
        }
        heard
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(365 * 86400)
}
