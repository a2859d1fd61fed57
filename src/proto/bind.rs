//! The sockets that readers come in by: bound here, or given to us, and given up so that nobody is turned away.

use crate::sys;
use socket2::{SockFilter, SockRef, Socket};
use std::{io, net::SocketAddr, os::fd::AsFd};
use tokio::net::TcpListener;

/// What becomes of a listening socket when this process ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Succession {
    /// Nobody listens there then.
    None,
    /// Another process has a socket of its own on the same port (`--reuse-port`).
    Beside,
    /// It is not ours alone: whoever gave it to us keeps it (`LISTEN_FDS`).
    Inherited,
}

/// Listening sockets that the process was started with, as systemd passes them (sd_listen_fds(3)).
///
/// # Errors
/// When one of them is none.
pub fn inherited() -> io::Result<Vec<TcpListener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for place in 0..passed.len() {
        let listener = passed.take_tcp_listener(place);
        let listener =
            listener.map_err(|error| io::Error::new(error.kind(), format!("LISTEN_FDS, number {place}: {error}")))?;
        if let Some(listener) = listener {
            listener.set_nonblocking(true)?;
            prepare(&SockRef::from(&listener), Succession::Inherited)?;
            listeners.push(TcpListener::from_std(listener)?);
        }
    }
    Ok(listeners)
}

/// From now on this socket gets no new connections, those that are being made go on: whoever knocks is not answered, and
/// knocks again where another process listens by then.
pub fn hush(listener: &impl AsFd) -> io::Result<()> {
    // The flags of a TCP header (RFC 9293 §3.1): SYN without ACK is dropped.
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, FLAGS_AT),
        SockFilter::new((libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, 0, 0, SYN | ACK),
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, SYN),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
    ])
}

/// Tries for a free port that both address families have.
const FREE_PORT_TRIES: usize = 20;

/// Binds with a deep backlog. `localhost` is both address families, and needs no `/etc/hosts` (RFC 6761).
///
/// # Errors
/// What was attempted on which address.
pub async fn bind(host: &str, port: u16, succession: Succession) -> io::Result<Vec<TcpListener>> {
    let addresses = crate::net::resolve(host, port).await?;
    let mut tries = if port == 0 { FREE_PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_all(&addresses, succession) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            done => return done,
        }
    }
}

/// All on one port; a machine may lack one of the families.
fn bind_all(addresses: &[SocketAddr], succession: Succession) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let port =
            listeners.first().map_or(Ok(address.port()), |first| first.local_addr().map(|bound| bound.port()))?;
        let address = SocketAddr::new(address.ip(), port);
        match bind_one(address, succession) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                let taken = matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
                failure = io::Error::new(error.kind(), format!("listen on {address}: {error}"));
                if taken {
                    return Err(failure);
                }
            }
        }
    }
    if listeners.is_empty() { Err(failure) } else { Ok(listeners) }
}

/// What each connection inherits from its listening socket (tcp(7) and socket(7) leave it to the system; Linux copies
/// both), so that it costs no call of its own; and when it is accepted. Who has connected and not asked yet is turned away
/// when a socket that waits for it closes, which must not happen where another process goes on beside this one.
fn prepare(socket: &Socket, succession: Succession) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    if succession != Succession::Beside
        && let Err(error) = sys::accept_when_heard(socket)
    {
        tracing::debug!(%error, "connections are accepted before they are heard");
    }
    Ok(())
}

fn bind_one(address: SocketAddr, succession: Succession) -> io::Result<TcpListener> {
    let socket = Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(succession == Succession::Beside)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    prepare(&socket, succession)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}
