//! Connections that came to us. What can be done with one at once is done without the poller: most readers have asked by the
//! time they are accepted, and are a shard's from then on.

use crate::{
    sys::{self, Kernel},
    tls::HTTP2,
};
use futures_util::FutureExt;
use socket2::{SockRef, TcpKeepalive};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    sync::Notify,
    task::coop::poll_proceed,
    time::{Sleep, sleep},
};
use tokio_rustls::server::TlsStream;

/// Between two looks at a connection that is not read any more.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After this long the system asks a peer that is not read any more whether it is there, and again after each such time.
const ASK_EVERY: Duration = Duration::from_secs(15);

/// A reader's connection.
pub enum Stream {
    /// As it was accepted; registered with the poller only once there is something to wait for, which is never for most
    /// of those that a shard takes over. Always there.
    Fresh(Option<std::net::TcpStream>),
    /// The same, registered.
    Plain(TcpStream),
    /// Behind a handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// A connection that nobody has waited for; it must not block.
    pub fn fresh(socket: std::net::TcpStream) -> Self {
        Stream::Fresh(Some(socket))
    }

    /// Whether the peer chose HTTP/2 in its handshake.
    pub fn is_http2(&self) -> bool {
        match self {
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(HTTP2),
            _ => false,
        }
    }

    /// The other end.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.socket()?.peer_addr().ok()?.as_socket()
    }

    /// Our end.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket()?.local_addr().ok()?.as_socket()
    }

    /// What the system knows of it.
    pub fn kernel_view(&self) -> Option<Kernel> {
        sys::kernel_view(&*self.socket()?)
    }

    /// Resolves once there is something to read; says whether that is the end of the input.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.register()?;
        let socket = match self {
            Stream::Fresh(_) => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        ready!(socket.poll_read_ready(cx))?;
        let known = socket.ready(Interest::READABLE).now_or_never().transpose()?;
        Poll::Ready(Ok(known.is_some_and(|ready| ready.is_read_closed())))
    }

    fn is_closed(&self) -> bool {
        self.kernel_view().is_some_and(|view| view.closed)
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        Some(match self {
            Stream::Fresh(socket) => SockRef::from(socket.as_ref()?),
            Stream::Plain(stream) => SockRef::from(stream),
            Stream::Tls(stream) => SockRef::from(stream.get_ref().0),
        })
    }

    /// The same, registered.
    ///
    /// # Errors
    /// When the poller does not take it.
    pub fn registered(mut self) -> io::Result<Self> {
        self.register()?;
        Ok(self)
    }

    fn register(&mut self) -> io::Result<()> {
        if let Stream::Fresh(socket) = self {
            let socket = socket.take().ok_or(io::ErrorKind::NotConnected)?;
            *self = Stream::Plain(TcpStream::from_std(socket)?);
        }
        Ok(())
    }

    /// What can be done without waiting, within the task's budget; `None` when that is nothing, and from now on the poller
    /// says when.
    fn try_fresh<T>(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(&std::net::TcpStream) -> io::Result<T>,
    ) -> Poll<Option<io::Result<T>>> {
        let Stream::Fresh(Some(socket)) = self else { return Poll::Ready(None) };
        let budget = ready!(poll_proceed(cx));
        match act(socket) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Poll::Ready(self.register().err().map(Err))
            }
            done => {
                budget.made_progress();
                Poll::Ready(Some(done))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(read) = ready!(self.try_fresh(cx, |mut socket| socket.read(buf.initialize_unfilled()))) {
            return Poll::Ready(read.map(|n| buf.advance(n)));
        }
        match &mut *self {
            Stream::Fresh(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(wrote) = ready!(self.try_fresh(cx, |mut socket| socket.write(buf))) {
            return Poll::Ready(wrote);
        }
        match &mut *self {
            Stream::Fresh(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Fresh(_) => Poll::Ready(Ok(())),
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            // As with a registered one: who is gone needs no goodbye.
            Stream::Fresh(socket) => match socket.as_ref().map_or(Ok(()), |socket| socket.shutdown(Shutdown::Write)) {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
                done => Poll::Ready(done),
            },
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Asks the system to find out soon whether the peer of a connection that is not read any more is still there
/// (`TCP_KEEPIDLE`, tcp(7)): one that is gone without a word answers with a reset.
pub fn ask_peer<'a>(socket: impl Into<SockRef<'a>>) {
    let often = TcpKeepalive::new().with_time(ASK_EVERY).with_interval(ASK_EVERY);
    if let Err(error) = socket.into().set_tcp_keepalive(&often) {
        tracing::debug!(%error, "a peer is not asked whether it is there");
    }
}

/// Tells an answer that is being written that its client has closed its sending side.
#[derive(Clone, Default)]
pub struct InputEnd(Arc<Notify>);

impl InputEnd {
    fn tell(&self) {
        self.0.notify_one();
    }

    /// Resolves when that is told; never without anybody who could.
    pub async fn told(this: Option<&Self>) {
        match this {
            Some(end) => end.0.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// Watches a connection that nobody reads from: first for the end of its input, then for its loss, which nothing else
/// tells while nothing is written.
#[derive(Default)]
pub struct Lookout {
    ended: bool,
    next_look: Option<Pin<Box<Sleep>>>,
}

impl Lookout {
    /// For a connection whose input has ended.
    pub fn behind_end(stream: &Stream) -> Self {
        let mut lookout = Lookout::default();
        lookout.note_end(stream);
        lookout
    }

    /// Resolves with what ended the connection. The end of the input is told to whoever writes to it.
    pub fn poll_loss(&mut self, cx: &mut Context<'_>, stream: &mut Stream, input_end: &InputEnd) -> Poll<io::Error> {
        loop {
            if let Some(look) = &mut self.next_look {
                ready!(look.as_mut().poll(cx));
            }
            if !self.ended {
                match ready!(stream.poll_input(cx)) {
                    Ok(true) => {
                        self.note_end(stream);
                        input_end.tell();
                    }
                    Ok(false) => {}
                    Err(error) => return Poll::Ready(error),
                }
            }
            if self.ended && stream.is_closed() {
                return Poll::Ready(io::ErrorKind::ConnectionReset.into());
            }
            self.next_look = Some(Box::pin(sleep(LOOK_EVERY)));
        }
    }

    fn note_end(&mut self, stream: &Stream) {
        self.ended = true;
        if let Some(socket) = stream.socket() {
            ask_peer(socket);
        }
    }
}

/// A client's connection on which an answer goes on behind the end of the client's input: to read on there is to wait, and
/// fails once the connection is lost.
pub struct ReplyStream {
    stream: Stream,
    behind_end: Option<Lookout>,
}

impl ReplyStream {
    /// The input has not ended yet, as far as it is known.
    pub fn new(stream: Stream) -> Self {
        ReplyStream { stream, behind_end: None }
    }
}

impl AsyncRead for ReplyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ReplyStream { stream, behind_end } = &mut *self;
        if let Some(lookout) = behind_end {
            return lookout.poll_loss(cx, stream, &InputEnd::default()).map(Err);
        }
        let before = buf.filled().len();
        ready!(poll_read_or_end(stream, cx, buf))?;
        if buf.filled().len() == before {
            *behind_end = Some(Lookout::behind_end(stream));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReplyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Reads, and takes a TLS peer's end without a `close_notify` for an end, too: nothing that the input says depends on it.
///
/// # Errors
/// The connection's.
pub fn poll_read_or_end(stream: &mut Stream, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    match ready!(Pin::new(stream).poll_read(cx, buf)) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
        read => Poll::Ready(read),
    }
}
