//! Connections that came to us. What can be done with one at once is done without the poller: most readers have asked by the
//! time they are accepted, and are a shard's from then on.

use crate::{
    sys::{self, Kernel},
    tls::HTTP2,
};
use socket2::SockRef;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::coop::poll_proceed,
};
use tokio_rustls::server::TlsStream;

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
