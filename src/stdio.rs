//! Standard input and output that may be non-blocking, as pipes and terminals are that other programs share with us.
//!
//! The flag belongs to whoever set it and is left alone: a descriptor that is not ready is waited for by poll(2).

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, retry_on_intr},
};
use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    task::{JoinHandle, spawn_blocking},
};

/// A descriptor whose reads and writes block, also where it is non-blocking itself. Nothing is buffered.
#[derive(Clone, Copy, Debug)]
pub struct Patient<T>(pub T);

impl<T: AsFd> Read for Patient<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match retry_on_intr(|| rustix::io::read(&self.0, &mut *into)) {
                Err(Errno::AGAIN) => await_ready(&self.0, PollFlags::IN)?,
                done => return Ok(done?),
            }
        }
    }
}

impl<T: AsFd> Write for Patient<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match retry_on_intr(|| rustix::io::write(&self.0, bytes)) {
                Err(Errno::AGAIN) => await_ready(&self.0, PollFlags::OUT)?,
                done => return Ok(done?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Blocks until the descriptor is ready or has failed, which the next read or write tells.
fn await_ready(descriptor: impl AsFd, wanted: PollFlags) -> io::Result<()> {
    retry_on_intr(|| poll(&mut [PollFd::new(&descriptor, wanted)], None))?;
    Ok(())
}

/// Writes everything to standard output.
///
/// # Errors
/// The system's; `BrokenPipe` where nobody reads any more.
pub fn print(bytes: impl AsRef<[u8]>) -> io::Result<()> {
    Patient(io::stdout()).write_all(bytes.as_ref())
}

/// Writes everything to standard output on a thread that may block.
///
/// # Errors
/// As of [`print()`].
pub async fn print_aside(bytes: impl AsRef<[u8]> + Send + 'static) -> io::Result<()> {
    spawn_blocking(move || print(bytes)).await.map_err(io::Error::other)?
}

/// Reads standard input to its end as text.
///
/// # Errors
/// The system's, and bytes that are no UTF-8.
pub fn read_text() -> io::Result<String> {
    let mut text = String::new();
    Patient(io::stdin()).read_to_string(&mut text)?;
    Ok(text)
}

/// Standard input as a task reads it.
pub struct StandardInput {
    stdin: tokio::io::Stdin,
    /// Runs while there is nothing to read from a non-blocking input.
    wait: Option<JoinHandle<io::Result<()>>>,
}

impl StandardInput {
    /// The input of this process, from where it stands.
    pub fn open() -> Self {
        StandardInput { stdin: tokio::io::stdin(), wait: None }
    }
}

impl AsyncRead for StandardInput {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(wait) = &mut self.wait {
                let waited = ready!(Pin::new(wait).poll(cx));
                self.wait = None;
                waited.map_err(io::Error::other)??;
            }
            match ready!(Pin::new(&mut self.stdin).poll_read(cx, into)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait = Some(spawn_blocking(|| await_ready(io::stdin(), PollFlags::IN)));
                }
                done => return Poll::Ready(done),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::ioctl_fionbio;
    use std::thread;

    #[test]
    fn a_full_pipe_that_does_not_block_is_waited_for() {
        let (mut reads, writes) = io::pipe().expect("a pipe");
        ioctl_fionbio(&writes, true).expect("a flag");
        let written = thread::spawn(move || Patient(writes).write_all(&[7; 300_000]));
        let mut read = Vec::new();
        reads.read_to_end(&mut read).expect("reads");
        assert!(written.join().expect("no panic").is_ok() && read == [7; 300_000], "{} bytes", read.len());
    }

    #[test]
    fn an_empty_pipe_that_does_not_block_is_waited_for() {
        let (reads, mut writes) = io::pipe().expect("a pipe");
        ioctl_fionbio(&reads, true).expect("a flag");
        let read = thread::spawn(move || {
            let mut text = String::new();
            Patient(reads).read_to_string(&mut text).map(|_| text)
        });
        for piece in ["a", "b", "c"] {
            writes.write_all(piece.as_bytes()).expect("writes");
            thread::yield_now();
        }
        drop(writes);
        assert_eq!(read.join().expect("no panic").expect("reads"), "abc");
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_broken() {
        let (reads, writes) = io::pipe().expect("a pipe");
        drop(reads);
        let error = Patient(writes).write_all(b"x").expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
