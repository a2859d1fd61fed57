//! What the kernel knows of a connection, and how one is accepted. The only file with `unsafe`.

#![allow(unsafe_code)]

use std::{io, os::fd::AsRawFd, time::Duration};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpListener,
};

/// A listening socket whose connections come without being registered with the poller, which those that a shard takes
/// over have no use for: measured, three to four hundredths of what a connection costs.
///
/// # Errors
/// When the poller does not take it.
pub fn watched(listener: TcpListener) -> io::Result<AsyncFd<mio::net::TcpListener>> {
    let listener = mio::net::TcpListener::from_std(listener.into_std()?);
    // SAFETY: the listener owns its descriptor and always gives the same one; the `AsyncFd` owns the listener, so that
    // the descriptor stays open until the `AsyncFd` has let go of it.
    Ok(unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?)
}

/// Connections are accepted once they have said something, so that nobody wakes and waits for them twice
/// (`TCP_DEFER_ACCEPT`, tcp(7)): measured, a quarter of what a connection costs. Those that say nothing come after a second.
/// Only for protocols in which the client speaks first.
///
/// # Errors
/// When the system does not know how.
pub fn accept_when_heard(listener: &impl AsRawFd) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `listener` is borrowed; the kernel reads one `int` and keeps no pointer.
    let status = unsafe {
        let seconds = (&raw const seconds).cast();
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds, len)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The state of a connection that is over, in `TCP_INFO` (netinet/tcp.h).
const TCP_CLOSE: u8 = 7;

/// A connection's state below the program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kernel {
    /// Since the peer's kernel last acknowledged anything, probes of a closed window included.
    pub last_ack: Duration,
    /// Bytes that were written and not acknowledged, those that could not be sent yet included.
    pub waiting: usize,
    /// It is over in both directions: reset by the peer, or given up.
    pub closed: bool,
}

impl Kernel {
    /// Whether everything that was written has been acknowledged.
    pub fn all_received(&self) -> bool {
        self.waiting == 0
    }
}

/// Asks for it (`TCP_INFO` and `SIOCOUTQ`, tcp(7)); `None` where the system does not say. A reader that is paused keeps acknowledging
/// probes, one that is gone does not: nothing else tells the two apart (LINKS 21).
pub fn kernel_view(socket: &impl AsRawFd) -> Option<Kernel> {
    // SAFETY: `tcp_info` is plain integers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel writes at most `len` bytes, which is the
    // size of `info`, and keeps neither pointer.
    let status = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len)
    };
    let mut waiting: libc::c_int = 0;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel writes one `int` and keeps no pointer.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    (status == 0 && asked == 0).then(|| Kernel {
        last_ack: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        waiting: waiting.try_into().unwrap_or(0),
        closed: info.tcpi_state == TCP_CLOSE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn a_connection_that_was_read_is_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (mut server, _) = listener.accept().expect("accepts");
        client.write_all(b"x").expect("writes");
        server.read_exact(&mut [0]).expect("reads");
        let view = kernel_view(&client).expect("Linux says");
        assert!(view.all_received() && view.last_ack < Duration::from_secs(60), "{view:?}");
    }

    #[test]
    fn a_reset_shows_behind_the_end_of_input_and_the_end_alone_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (mut server, _) = listener.accept().expect("accepts");
        client.shutdown(std::net::Shutdown::Write).expect("half of it");
        assert_eq!(server.read(&mut [0]).expect("reads"), 0);
        assert!(!kernel_view(&server).expect("Linux says").closed);
        drop(client);
        assert!(!kernel_view(&server).expect("Linux says").closed, "nobody can know");
        server.write_all(b"x").expect("is taken");
        let mut looks = std::iter::repeat_with(|| kernel_view(&server).expect("Linux says").closed).take(5000);
        assert!(looks.any(|closed| {
            std::thread::sleep(Duration::from_millis(1));
            closed
        }));
    }

    #[test]
    fn what_a_paused_reader_has_no_room_for_is_not_received() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (mut server, _) = listener.accept().expect("accepts");
        client.set_nonblocking(true).expect("a flag");
        while client.write(&[0; 1 << 16]).is_ok() {}
        let full = kernel_view(&client).expect("Linux says").waiting;
        assert!(full > 0, "the window is closed");
        server.read_exact(&mut vec![0; full]).expect("reads");
        assert!(kernel_view(&client).expect("Linux says").waiting < full);
    }
}
