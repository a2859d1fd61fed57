//! A script on a thread of its own: calls wait in line, and one that goes wrong delays nobody but its own line.

use super::{
    fault::{Fault, Host, Limits, Source},
    runner::{Figures, Runner},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc as blocking,
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Calls that may wait in line.
const LINE: usize = 1024;
/// What a thread has: the engine's own bound on recursion lies well below.
const STACK: usize = 4 << 20;
/// So much longer than a script may take, on a busy machine.
const UNHURRIED: Duration = Duration::from_secs(10);

/// A way to call a script that runs; the thread ends when the last one goes.
pub struct Engine {
    line: mpsc::Sender<Call>,
    limits: Limits,
    /// When the call that runs began, in milliseconds since `born`; 0 while none runs.
    begun: Arc<AtomicU64>,
    born: Instant,
}

struct Call {
    entry: &'static str,
    argument: String,
    reply: oneshot::Sender<Result<String, Fault>>,
}

impl Engine {
    /// Loads the script in a new thread.
    ///
    /// # Errors
    /// Why it does not load.
    pub fn start(source: Source, limits: Limits, host: Arc<dyn Host>, figures: Arc<Figures>) -> io::Result<Self> {
        let (line, calls) = mpsc::channel(LINE);
        let (tell, told) = blocking::channel();
        let (begun, born) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let running = begun.clone();
        let run = move || match Runner::load(source, limits, host, figures) {
            Ok(runner) => {
                let _ = tell.send(Ok(()));
                work(runner, calls, &running, born);
            }
            Err(fault) => drop(tell.send(Err(fault))),
        };
        thread::Builder::new().name("script".into()).stack_size(STACK).spawn(run)?;
        // The script and its `init` have a bound each; what nobody can interrupt must not hold up whoever waits here.
        let loaded = told.recv_timeout(2 * limits.time + UNHURRIED).unwrap_or(Err(Fault::TimedOut(limits.time)));
        loaded.map_err(io::Error::other)?;
        Ok(Engine { line, limits, begun, born })
    }

    /// Calls one of the entries with JSON, in its turn.
    ///
    /// # Errors
    /// What came of it instead.
    pub async fn call(&self, entry: &'static str, argument: String) -> Result<String, Fault> {
        let (reply, mut answer) = oneshot::channel();
        self.line.try_send(Call { entry, argument, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Fault::Busy,
            mpsc::error::TrySendError::Closed(_) => Fault::Gone,
        })?;
        loop {
            match timeout(self.limits.time, &mut answer).await {
                Ok(result) => return result.unwrap_or(Err(Fault::Gone)),
                Err(_) if self.is_stuck() => return Err(Fault::TimedOut(self.limits.time)),
                Err(_) => {}
            }
        }
    }

    /// A few of the engine's own functions can be interrupted by nobody.
    fn is_stuck(&self) -> bool {
        let (begun, now) = (self.begun.load(Relaxed), self.born.elapsed().as_millis() as u64);
        begun > 0 && now.saturating_sub(begun) > 2 * self.limits.time.as_millis() as u64
    }
}

/// Calls, one by one, until nobody can make any.
fn work(mut runner: Runner, mut calls: mpsc::Receiver<Call>, begun: &AtomicU64, born: Instant) {
    while let Some(call) = calls.blocking_recv() {
        // Whoever asked may be gone by now.
        if call.reply.is_closed() {
            continue;
        }
        begun.store((born.elapsed().as_millis() as u64).max(1), Relaxed);
        let result = runner.call(call.entry, &call.argument);
        begun.store(0, Relaxed);
        let _ = call.reply.send(result);
    }
}
