//! A request's body on its way from a client to a back end, and what tells whose fault it is when that ends early.
//!
//! The beginning of a body is read before anybody is asked: a short body that is malformed or breaks off goes nowhere.

use crate::{
    net::Io,
    proto::{body, subscribe::Refusal},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};

/// Bytes of a body that are read before a back end is asked.
const AHEAD: usize = 64 << 10;
/// The longest wait for them.
const AHEAD_FOR: Duration = Duration::from_millis(100);

/// State of an upload, for whoever waits for the answer.
#[derive(Debug, Default)]
pub struct UploadProgress {
    pieces: AtomicU64,
    awaits_client: AtomicBool,
    failure: OnceLock<String>,
}

impl UploadProgress {
    /// Pieces of the body that the connection to the back end has taken.
    pub fn pieces(&self) -> u64 {
        self.pieces.load(Ordering::Relaxed)
    }

    /// Tells whether the back end has taken everything so far and the client owes the rest.
    pub fn awaits_client(&self) -> bool {
        self.awaits_client.load(Ordering::Relaxed)
    }

    /// The refusal of a body that could not be read to its end.
    pub fn refusal(&self) -> Option<Refusal> {
        self.failure.get().map(|why| body::broken(why))
    }

    fn note(&self, polled: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
        self.awaits_client.store(polled.is_pending(), Ordering::Relaxed);
        match polled {
            Poll::Pending => {}
            Poll::Ready(Some(Err(error))) => {
                self.failure.get_or_init(|| error.to_string());
            }
            Poll::Ready(_) => {
                self.pieces.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A request's body: the part that was read ahead, then the rest as it comes.
pub struct Upload {
    ahead: VecDeque<Frame<Bytes>>,
    /// `None` once it was read to its end.
    rest: Option<Incoming>,
    /// Tells whether the length was known from the start.
    exact: bool,
    progress: Arc<UploadProgress>,
}

impl Upload {
    /// A body of which nothing has been read.
    pub fn new(body: Incoming) -> Self {
        let exact = body.size_hint().exact().is_some();
        Upload { ahead: VecDeque::new(), rest: Some(body), exact, progress: Arc::default() }
    }

    /// A body whose beginning has been read, as far as it came soon.
    ///
    /// # Errors
    /// 400 when it is malformed or breaks off within that.
    pub async fn read_ahead(body: Incoming) -> Result<Self, Refusal> {
        let mut upload = Upload::new(body);
        // What came until the time was over is kept.
        timeout(AHEAD_FOR, upload.fill()).await.unwrap_or(Ok(()))?;
        Ok(upload)
    }

    async fn fill(&mut self) -> Result<(), Refusal> {
        let mut size = 0;
        while let Some(rest) = self.rest.as_mut().filter(|rest| size < AHEAD && !rest.is_end_stream()) {
            match rest.frame().await {
                Some(frame) => {
                    let frame = frame.map_err(|error| body::broken(&error))?;
                    size += frame.data_ref().map_or(0, Bytes::len);
                    self.ahead.push_back(frame);
                }
                None => self.rest = None,
            }
        }
        Ok(())
    }

    /// State that outlives the body.
    pub fn progress(&self) -> Arc<UploadProgress> {
        self.progress.clone()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = match (self.ahead.pop_front(), &mut self.rest) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Some(rest)) => Pin::new(rest).poll_frame(cx),
            (None, None) => Poll::Ready(None),
        };
        self.progress.note(&polled);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead: usize = self.ahead.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        let rest = self.rest.as_ref().map_or(0, |rest| rest.size_hint().lower());
        let mut hint = SizeHint::new();
        hint.set_lower(ahead as u64 + rest);
        if self.exact {
            hint.set_exact(ahead as u64 + rest);
        }
        hint
    }
}

/// A back end's connection on which a failed write ends nothing: reading tells how it ended, and whether an answer came
/// before. A server that answers early and closes lets the rest of a request bounce.
pub struct EarlyAnswerIo {
    io: Box<dyn Io>,
    deaf: bool,
}

impl EarlyAnswerIo {
    /// Over this connection.
    pub fn new(io: Box<dyn Io>) -> Self {
        EarlyAnswerIo { io, deaf: false }
    }

    /// The outcome of a write; `all` is what a deaf peer is taken to have heard.
    fn heard<T>(&mut self, outcome: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        let outcome = ready!(outcome);
        self.deaf |= outcome.is_err();
        Poll::Ready(Ok(outcome.unwrap_or(all)))
    }
}

impl AsyncRead for EarlyAnswerIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for EarlyAnswerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.heard(outcome, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = bufs.iter().map(|buf| buf.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(all));
        }
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.heard(outcome, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.heard(outcome, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
