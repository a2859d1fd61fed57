//! One reader: a task that costs a socket and its place in the numbers. All readers read into one buffer, and what is
//! not whole is put aside until the rest comes.

use super::{
    board::{Board, add},
    body::Body,
    open::{Opened, Target},
    stamp::Stamp,
    track::Tracks,
    wire::Wire,
};
use crate::{
    net::{Io, plain_words},
    units::now_us,
};
use bytes::BytesMut;
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    sync::OwnedSemaphorePermit,
};

/// What is read at once.
const READ: usize = 256 << 10;

thread_local! {
    /// The buffer of all readers: nothing stays in it between two polls.
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// One of the readers of a run.
pub struct Reader {
    board: Rc<Board>,
    tracks: Rc<RefCell<Tracks>>,
    io: Box<dyn Io>,
    wire: Wire,
    body: Body,
    /// The part of an event that has come.
    part: Vec<u8>,
    answers: BytesMut,
}

/// How a connection ended.
#[derive(Debug, PartialEq)]
pub enum Ended {
    /// The stream is over, and the server said so.
    Orderly,
    /// What happened instead.
    Broken(String),
}

impl Reader {
    /// Reads a stream whose head was read, until the connection ends.
    pub async fn run(board: Rc<Board>, tracks: Rc<RefCell<Tracks>>, opened: Opened) -> Ended {
        let Opened { io, wire, body, mut rest } = opened;
        let mut reader = Reader { board, tracks, io, wire, body, part: Vec::new(), answers: BytesMut::new() };
        let mut read = reader.take(&mut rest, 0);
        loop {
            if let Err(error) = reader.answer().await {
                return Ended::Broken(plain_words(&error));
            }
            match read {
                Ok(None) => {}
                Ok(Some(ended)) => return ended,
                Err(why) => return Ended::Broken(why),
            }
            read = poll_fn(|cx| SHARED.with_borrow_mut(|shared| reader.poll(cx, shared))).await;
        }
    }

    async fn answer(&mut self) -> io::Result<()> {
        let answers = std::mem::take(&mut self.answers);
        if answers.is_empty() { Ok(()) } else { self.io.write_all(&answers).await }
    }

    /// Reads once, behind what was put aside.
    fn poll(&mut self, cx: &mut Context<'_>, shared: &mut Vec<u8>) -> Poll<Result<Option<Ended>, String>> {
        let held = self.part.len();
        if shared.len() < held + READ / 2 {
            shared.resize(held + READ, 0);
        }
        let mut space = ReadBuf::new(&mut shared[held..]);
        let read: io::Result<()> = ready!(Pin::new(&mut self.io).poll_read(cx, &mut space));
        let n = space.filled().len();
        if let Err(error) = read {
            return Poll::Ready(Err(plain_words(&error)));
        }
        if n == 0 {
            let orderly =
                self.body == Body::End || (self.body == Body::Plain && matches!(self.wire, Wire::Sse | Wire::Ndjson));
            let ended = if orderly { Ended::Orderly } else { Ended::Broken("closed without a goodbye".into()) };
            return Poll::Ready(Ok(Some(ended)));
        }
        add(&self.board.bytes, n as u64);
        shared[..held].copy_from_slice(&self.part);
        Poll::Ready(self.take(&mut shared[..held + n], held))
    }

    /// Takes events out of `bytes`, of which the first `held` were seen before, and puts the rest aside.
    fn take(&mut self, bytes: &mut [u8], held: usize) -> Result<Option<Ended>, String> {
        let len = held + self.body.strip(&mut bytes[held..])?;
        let (board, now, mut tracks) = (&self.board, now_us(), self.tracks.borrow_mut());
        let mut events = 0;
        let mut on_event = |payload: &[u8]| {
            events += 1;
            if let Some(stamp) = Stamp::find(payload) {
                tracks.take(&stamp);
                board.take(&stamp, now);
            }
        };
        let read = self.wire.read(&bytes[..len], &mut on_event, &mut self.answers)?;
        add(&board.events, events);
        self.part.clear();
        self.part.extend_from_slice(&bytes[read.len..len]);
        if self.part.is_empty() && self.part.capacity() > READ {
            self.part = Vec::new();
        }
        let end = read.end.or((self.body == Body::End).then_some(true));
        Ok(end.map(|orderly| if orderly { Ended::Orderly } else { Ended::Broken("closed early".into()) }))
    }
}

/// Opens a reader, gives the slot back, and lets it read until its end; a `stalled` one never reads.
pub async fn run(
    target: &Target,
    board: &Rc<Board>,
    tracks: &Rc<RefCell<Tracks>>,
    slot: OwnedSemaphorePermit,
    stalled: bool,
) {
    let began = now_us();
    let opened = target.open().await;
    drop(slot);
    let opened = match opened {
        Ok(opened) => opened,
        Err(why) => {
            add(&board.failed, 1);
            return board.fail(why);
        }
    };
    board.connected(began);
    if stalled {
        let _held = opened.io;
        return std::future::pending().await;
    }
    let ended = Reader::run(board.clone(), tracks.clone(), opened).await;
    add(&board.ended, 1);
    if let Ended::Broken(why) = ended {
        board.fail(why);
    }
    board.bell.notify_waiters();
}
