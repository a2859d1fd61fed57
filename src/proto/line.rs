//! A connection that is read and written by one task, and what waits for it.

use crate::inbound::{InputEnd, Lookout, Stream, poll_read_or_end};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

/// What is read at once.
const BLOCK: usize = 8 << 10;
/// How long a goodbye may take from a peer that takes nothing.
const GOODBYE: Duration = Duration::from_secs(5);

/// The connection and what waits for it.
pub struct Line {
    /// The connection.
    pub stream: Stream,
    out: VecDeque<Bytes>,
    unflushed: bool,
    /// Behind the end of an input after which the answer goes on.
    lookout: Option<Lookout>,
}

/// What became of the connection.
pub enum Moved {
    /// So many bytes came; with 0 no more will.
    Read(usize),
    /// All that waited is with the kernel.
    Flushed,
}

impl Line {
    /// A connection that is to be sent this first.
    pub fn new(stream: Stream, first: Bytes) -> Self {
        let mut line = Line { stream, out: VecDeque::new(), unflushed: false, lookout: None };
        line.send(first);
        line
    }

    /// Whether all that was sent is with the kernel.
    pub fn is_clear(&self) -> bool {
        self.out.is_empty() && !self.unflushed
    }

    /// Bytes that are not.
    pub fn waiting(&self) -> usize {
        self.out.iter().map(Bytes::len).sum()
    }

    /// Bytes that the peer has not got.
    fn unreceived(&self) -> usize {
        self.waiting() + self.stream.kernel_view().map_or(0, |view| view.waiting)
    }

    /// Sends this behind what waits.
    pub fn send(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out.push_back(bytes);
            self.unflushed = true;
        }
    }

    /// From here on there is nothing to read: only the connection's loss is an end.
    pub fn await_loss(&mut self) {
        self.lookout = Some(Lookout::behind_end(&self.stream));
    }

    /// Writes what waits, and reads if asked to. Nothing is lost when this is dropped in between.
    ///
    /// # Errors
    /// What ended the connection.
    pub async fn go_on(&mut self, inbound: &mut BytesMut, reads: bool) -> io::Result<Moved> {
        poll_fn(|cx| self.poll(cx, reads.then_some(&mut *inbound))).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, inbound: Option<&mut BytesMut>) -> Poll<io::Result<Moved>> {
        while let Some(front) = self.out.front_mut() {
            match Pin::new(&mut self.stream).poll_write(cx, front)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(n) => front.advance(n),
                Poll::Pending => break,
            }
            if front.is_empty() {
                self.out.pop_front();
            }
        }
        if self.out.is_empty() && self.unflushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
            return Poll::Ready(Ok(Moved::Flushed));
        }
        if let Some(lookout) = &mut self.lookout {
            return lookout.poll_loss(cx, &mut self.stream, &InputEnd::default()).map(Err);
        }
        let Some(inbound) = inbound else { return Poll::Pending };
        let mut block = [const { MaybeUninit::uninit() }; BLOCK];
        let mut read = ReadBuf::uninit(&mut block);
        std::task::ready!(poll_read_or_end(&mut self.stream, cx, &mut read))?;
        inbound.extend_from_slice(read.filled());
        Poll::Ready(Ok(Moved::Read(read.filled().len())))
    }

    /// Writes what waits and closes; with `awaits_peer` waits for its end, too. False if it did not come to that. Who is
    /// cut off while it takes what waits for it would lose what the kernel still has.
    pub async fn see_off(&mut self, awaits_peer: bool) -> bool {
        let mut waited = usize::MAX;
        while timeout(GOODBYE, self.close(awaits_peer)).await.is_err() {
            let waiting = self.unreceived();
            if waiting == 0 || waiting >= std::mem::replace(&mut waited, waiting) {
                return false;
            }
        }
        true
    }

    /// Sends what waits, and closes; a peer whose turn it is to close first is waited for.
    ///
    /// # Errors
    /// What ended the connection.
    async fn close(&mut self, awaits_peer: bool) -> io::Result<()> {
        let mut rest = BytesMut::new();
        while !self.is_clear() {
            self.go_on(&mut rest, false).await?;
        }
        self.stream.shutdown().await?;
        while awaits_peer && !matches!(self.go_on(&mut rest, true).await?, Moved::Read(0)) {
            rest.clear();
        }
        Ok(())
    }
}
