//! Bytes between two sockets, unread.
//!
//! Between plain sockets an idle pair holds no buffer: what is readable is read into a block that the thread owns, and
//! only what the other side does not take at once is kept.

use crate::{
    inbound::{self, ReplyStream, Stream},
    net::Connection,
};
use bytes::Bytes;
use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::tcp::{ReadHalf, WriteHalf},
    time::timeout,
};

/// What is read at once from a plain socket.
const BLOCK: usize = 64 << 10;
/// The same where TLS stands between, per connection and direction.
const TLS_BLOCK: usize = 8 << 10;
/// One side has said all; the other one's last words are awaited for so long.
const LAST_WORDS: Duration = Duration::from_secs(10);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BLOCK].into_boxed_slice());
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ways {
    /// Both: what was upgraded.
    Both,
    /// To the client. What it still says is heard by nobody, and where it ends the answer goes on.
    Answer,
    /// Relays the answer; where the client's input ends, the back end is told, which asks whether the client is there.
    Probed,
}

/// Carries bytes until one side ends, or nothing moved for `idle`.
///
/// # Errors
/// What broke the connection.
pub async fn run(client: Stream, backend: Connection, ways: Ways, idle: Option<Duration>) -> io::Result<()> {
    if ways == Ways::Probed {
        backend.reset_on_drop();
    }
    match (client.registered()?, backend) {
        (Stream::Plain(mut client), Connection::Plain(mut backend)) => {
            let (moved, client, backend) = (AtomicU64::new(0), client.split(), backend.split());
            let asking = pin!(carry_plain(client.0, Some(backend.1).filter(|_| ways != Ways::Answer), ways, &moved));
            let answering = pin!(carry_plain(backend.0, Some(client.1), Ways::Both, &moved));
            join(ways, idle, &moved, asking, answering).await
        }
        // In a place of its own: it is larger than what plain sockets need.
        (client, backend) if ways != Ways::Both => {
            Box::pin(between(ReplyStream::new(client), backend.boxed(), ways, idle)).await
        }
        (client, backend) => Box::pin(between(client, backend.boxed(), ways, idle)).await,
    }
}

/// The same for whatever can be read and written.
///
/// # Errors
/// What broke the connection.
pub async fn between(
    client: impl AsyncRead + AsyncWrite,
    backend: impl AsyncRead + AsyncWrite,
    ways: Ways,
    idle: Option<Duration>,
) -> io::Result<()> {
    let (client, backend) = (tokio::io::split(client), tokio::io::split(backend));
    let moved = AtomicU64::new(0);
    let asking = pin!(carry(client.0, Some(backend.1).filter(|_| ways != Ways::Answer), ways, &moved));
    let answering = pin!(carry(backend.0, Some(client.1), Ways::Both, &moved));
    join(ways, idle, &moved, asking, answering).await
}

/// Both directions until they are done. They stay where they are: a future that is moved into another one takes its place
/// twice, and there is one of these for each stream.
async fn join(
    ways: Ways,
    idle: Option<Duration>,
    moved: &AtomicU64,
    mut asking: Pin<&mut impl Future<Output = io::Result<()>>>,
    mut answering: Pin<&mut impl Future<Output = io::Result<()>>>,
) -> io::Result<()> {
    let asked_last = tokio::select! {
        ended = &mut answering => ended.map(|()| true)?,
        ended = &mut asking => ended.map(|()| false)?,
        () = silence(idle, moved) => return Ok(()),
    };
    match ways {
        Ways::Answer | Ways::Probed => Ok(()),
        Ways::Both if asked_last => timeout(LAST_WORDS, asking).await.unwrap_or(Ok(())),
        Ways::Both => timeout(LAST_WORDS, answering).await.unwrap_or(Ok(())),
    }
}

/// Resolves once nothing has moved for that long.
async fn silence(idle: Option<Duration>, moved: &AtomicU64) {
    let Some(idle) = idle else { return std::future::pending().await };
    let mut before = moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(idle).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

/// One direction; what comes is forgotten unless it goes both ways. Behind the end of what is forgotten only a loss is an
/// end.
async fn carry_plain(
    from: ReadHalf<'_>,
    mut to: Option<WriteHalf<'_>>,
    ways: Ways,
    moved: &AtomicU64,
) -> io::Result<()> {
    loop {
        from.readable().await?;
        let step = BUFFER.with_borrow_mut(|block| -> io::Result<(usize, Bytes)> {
            let read = from.try_read(block)?;
            let written = match to.as_ref().filter(|_| ways == Ways::Both) {
                None => read,
                Some(to) => match to.try_write(&block[..read]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    written => written?,
                },
            };
            Ok((read, Bytes::copy_from_slice(&block[written..read])))
        });
        match step {
            Ok((0, _)) => break,
            Ok((read, rest)) => {
                moved.fetch_add(read as u64, Ordering::Relaxed);
                if let Some(to) = to.as_mut().filter(|_| !rest.is_empty()) {
                    to.write_all(&rest).await?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(to) = &mut to {
        to.shutdown().await?;
    }
    if ways == Ways::Both { Ok(()) } else { Err(await_loss(&from).await) }
}

/// Resolves once the connection of a client that has closed its sending side is lost.
async fn await_loss(client: &ReadHalf<'_>) -> io::Error {
    inbound::ask_peer(client.as_ref());
    client.ready(Interest::ERROR).await.err().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
}

/// Relays between whatever can be read and written; from a [`ReplyStream`] where only the answer is carried.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: Option<impl AsyncWrite + Unpin>,
    ways: Ways,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut block = vec![0; TLS_BLOCK];
    loop {
        let read = from.read(&mut block).await?;
        moved.fetch_add(read as u64, Ordering::Relaxed);
        match &mut to {
            Some(to) if read == 0 => to.shutdown().await?,
            Some(to) if ways == Ways::Both => {
                to.write_all(&block[..read]).await?;
                to.flush().await?;
            }
            Some(_) | None => {}
        }
        if read == 0 && ways == Ways::Both {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    /// There is one for each stream, idle for most of its life.
    #[tokio::test]
    async fn a_pair_takes_little() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let [client, backend] = [TcpStream::connect(address).await, TcpStream::connect(address).await];
        let [client, backend] = [client, backend].map(|stream| stream.expect("a connection"));
        let spliced = run(Stream::Plain(client), Connection::Plain(backend), Ways::Both, None);
        let bytes = size_of_val(&spliced);
        assert!(bytes <= 1200, "{bytes}");
    }
}
