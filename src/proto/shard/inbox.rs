//! How others reach a shard: what they ask of its thread, and what they may do in the thread's place.

use super::{FEW, Hop, INBOX, Shard, Tuning, conn::Reader};
use crate::{log::News, panics};
use mio::{Events, Poll, Waker};
use std::{
    io,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

pub(super) enum Command {
    Serve(Box<Reader>),
    Drain { spread: Duration },
    Describe(oneshot::Sender<Vec<Hop>>),
}

pub(super) struct Inbox {
    commands: Mutex<Vec<Command>>,
    signalled: AtomicBool,
    waker: Waker,
    /// Readers that it has, or will have at once, and those of all shards.
    load: AtomicUsize,
    crowd: Arc<AtomicUsize>,
    /// What the thread works on, for whoever takes a turn in its place.
    shard: OnceLock<Weak<Mutex<Shard>>>,
}

impl Inbox {
    fn enter(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
        self.crowd.fetch_add(1, Ordering::Relaxed);
    }

    /// A reader is gone.
    pub(super) fn leave(&self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.crowd.fetch_sub(1, Ordering::Relaxed);
    }

    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            let _ = self.waker.wake();
        }
    }

    pub(super) fn take(&self, news: News) {
        if news == News::Wake || !self.stand_in() {
            self.signal();
        }
    }

    /// What was asked of the thread since it took that the last time.
    pub(super) fn commands(&self) -> Vec<Command> {
        self.signalled.store(false, Ordering::Release);
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(|p| p.into_inner()))
    }

    /// Says whether it is the only one that waits.
    fn push(&self, command: Command) -> bool {
        let mut commands = self.commands.lock().unwrap_or_else(|p| p.into_inner());
        commands.push(command);
        commands.len() == 1
    }

    pub(super) fn send(&self, command: Command) {
        self.push(command);
        self.signal();
    }

    /// Many who come at once are handed over together: the thread wakes once for all whose tasks are ready by now.
    async fn serve(&self, reader: Box<Reader>) {
        if self.push(Command::Serve(reader)) {
            let _signal = SignalAtLast(self);
            tokio::task::yield_now().await;
        }
    }

    /// Does a little of the thread's work in its place, which saves a switch, unless it is at work itself or has much to
    /// do. Says whether nothing is left for it.
    fn stand_in(&self) -> bool {
        // Whoever is asked something is about to do it; and all shards' few are one task's to write to.
        if self.signalled.load(Ordering::Acquire) || self.crowd.load(Ordering::Relaxed) > FEW {
            return false;
        }
        let Some(shard) = self.shard.get().and_then(Weak::upgrade) else { return false };
        let Ok(mut shard) = shard.try_lock() else { return false };
        shard.is_at_rest() && shard.deliver_news()
    }
}

/// Signals when it goes, whatever happens to the task meanwhile.
struct SignalAtLast<'a>(&'a Inbox);

impl Drop for SignalAtLast<'_> {
    fn drop(&mut self) {
        self.0.signal();
    }
}

/// The shards of this process.
pub struct Shards {
    pub(super) inboxes: Vec<Arc<Inbox>>,
    /// Readers connected now.
    crowd: Arc<AtomicUsize>,
}

impl Shards {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system gives no poller or thread.
    pub fn start(count: usize, tuning: &Tuning) -> io::Result<Self> {
        let crowd = Arc::new(AtomicUsize::new(0));
        let start = |i: usize| {
            let poll = Poll::new()?;
            let inbox = Arc::new(Inbox {
                commands: Mutex::default(),
                signalled: AtomicBool::new(false),
                waker: Waker::new(poll.registry(), INBOX)?,
                load: AtomicUsize::new(0),
                crowd: crowd.clone(),
                shard: OnceLock::new(),
            });
            let shard = Shard::new(poll.registry().try_clone()?, inbox.clone(), tuning.clone());
            let shard = Arc::new(Mutex::new(shard));
            let _ = inbox.shard.set(Arc::downgrade(&shard));
            std::thread::Builder::new().name(format!("shard-{i}")).spawn(move || run(poll, &shard))?;
            Ok(inbox)
        };
        Ok(Shards { inboxes: (0..count).map(start).collect::<io::Result<_>>()?, crowd })
    }

    /// Hands a reader to the shard that has the fewest.
    pub async fn serve(&self, reader: Box<Reader>) {
        if let Some(inbox) = self.inboxes.iter().min_by_key(|inbox| inbox.load.load(Ordering::Relaxed)) {
            inbox.enter();
            inbox.serve(reader).await;
        }
    }

    /// Says goodbye to every reader, spread over that long.
    pub fn drain(&self, spread: Duration) {
        for inbox in &self.inboxes {
            inbox.send(Command::Drain { spread });
        }
    }

    /// Readers connected now.
    pub fn readers(&self) -> usize {
        self.crowd.load(Ordering::Relaxed)
    }
}

/// The thread: waits for events, and takes a turn after them.
fn run(mut poll: Poll, shard: &Mutex<Shard>) {
    let mut events = Events::with_capacity(1024);
    let mut timeout = Duration::ZERO;
    loop {
        if let Err(error) = poll.poll(&mut events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "poll");
            return;
        }
        // What a panic left, here or in who stood in, is nothing to deliver from.
        let turn = || {
            let mut shard = shard.lock().ok()?;
            shard.turn(&events);
            Some(shard.timeout())
        };
        timeout = panics::contain(turn).flatten().unwrap_or_else(|| panics::give_up("the fan-out"));
    }
}
