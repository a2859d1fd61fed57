//! Single connection mode of graphql-sse: a client reserves a stream, opens it, and starts and stops operations beside
//! it, all under a token.

use super::{frames::Frames, operation::Operation};
use bytes::Bytes;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::AbortHandle};

/// Operations of one stream.
pub const MAX_OPERATIONS: usize = 1000;
/// Streams that are reserved or open.
const MAX_STREAMS: usize = 10_000;
/// How long a stream may be reserved that is not opened.
const PATIENCE: Duration = Duration::from_secs(60);
/// Frames that wait for the stream; then operations wait, each behind its cursor.
const WAITING: usize = 16;

/// The streams by token.
#[derive(Default)]
pub struct Shared(Mutex<HashMap<String, Stream>>);

struct Stream {
    frames: mpsc::Sender<Bytes>,
    /// Until it is opened.
    unopened: Option<mpsc::Receiver<Bytes>>,
    reserved: Instant,
    operations: HashMap<String, AbortHandle>,
}

/// Why something cannot be done under a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wrong {
    /// Nobody reserved that.
    Unknown,
    /// It is open, or the operation runs.
    Taken,
    /// There are too many.
    TooMany,
}

/// An open stream; its operations end with it.
pub struct Open {
    /// What to write.
    pub frames: mpsc::Receiver<Bytes>,
    token: String,
    shared: Arc<Shared>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let stream = self.shared.streams().remove(&self.token);
        stream.into_iter().flat_map(|stream| stream.operations).for_each(|(_, operation)| operation.abort());
    }
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, HashMap<String, Stream>> {
        self.0.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Reserves a stream; its token.
    ///
    /// # Errors
    /// When there are too many.
    pub fn reserve(&self) -> Result<String, Wrong> {
        let mut streams = self.streams();
        let now = Instant::now();
        if streams.len() >= MAX_STREAMS {
            streams.retain(|_, stream| stream.unopened.is_none() || now.duration_since(stream.reserved) < PATIENCE);
        }
        if streams.len() >= MAX_STREAMS {
            return Err(Wrong::TooMany);
        }
        let token = format!("{:032x}", rand::random::<u128>());
        let (frames, unopened) = mpsc::channel(WAITING);
        let stream = Stream { frames, unopened: Some(unopened), reserved: now, operations: HashMap::new() };
        streams.insert(token.clone(), stream);
        Ok(token)
    }

    /// Opens a reserved stream, once.
    ///
    /// # Errors
    /// When it is unknown or open.
    pub fn open(self: &Arc<Self>, token: &str) -> Result<Open, Wrong> {
        let mut streams = self.streams();
        let stream = streams.get_mut(token).ok_or(Wrong::Unknown)?;
        let frames = stream.unopened.take().ok_or(Wrong::Taken)?;
        Ok(Open { frames, token: token.to_owned(), shared: self.clone() })
    }

    /// Whether the stream is there and has room for an operation of this name.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, token: &str, id: &str) -> Result<(), Wrong> {
        let streams = self.streams();
        let stream = streams.get(token).ok_or(Wrong::Unknown)?;
        match stream.operations.contains_key(id) {
            true => Err(Wrong::Taken),
            false if stream.operations.len() >= MAX_OPERATIONS => Err(Wrong::TooMany),
            false => Ok(()),
        }
    }

    /// Lets an operation run beside a stream, or tells it why it cannot.
    ///
    /// # Errors
    /// As [`Shared::check`].
    pub fn start(self: &Arc<Self>, token: &str, id: &str, begun: Result<Operation, String>) -> Result<(), Wrong> {
        self.check(token, id)?;
        let mut streams = self.streams();
        let stream = streams.get_mut(token).ok_or(Wrong::Unknown)?;
        let (shared, frames, owner) = (self.clone(), stream.frames.clone(), (token.to_owned(), id.to_owned()));
        let running = tokio::spawn(async move {
            run(&frames, Frames::Shared(owner.1.clone()), begun).await;
            if let Some(stream) = shared.streams().get_mut(&owner.0) {
                stream.operations.remove(&owner.1);
            }
        });
        stream.operations.insert(id.to_owned(), running.abort_handle());
        Ok(())
    }

    /// Ends an operation.
    ///
    /// # Errors
    /// When the stream is unknown; an operation may have ended by itself.
    pub fn stop(&self, token: &str, id: &str) -> Result<(), Wrong> {
        let mut streams = self.streams();
        let stream = streams.get_mut(token).ok_or(Wrong::Unknown)?;
        if let Some(operation) = stream.operations.remove(id) {
            operation.abort();
        }
        Ok(())
    }
}

async fn run(stream: &mpsc::Sender<Bytes>, frames: Frames, begun: Result<Operation, String>) {
    let mut operation = match begun {
        Ok(operation) => operation,
        Err(why) => return drop(stream.send(frames.failure(&why)).await),
    };
    loop {
        let (bytes, last) = frames.write(operation.next().await);
        if stream.send(bytes).await.is_err() || last {
            return;
        }
    }
}
