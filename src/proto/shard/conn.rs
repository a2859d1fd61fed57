//! One reader's connection as a shard holds it: a socket, a place, and the little that is not sent yet.

use crate::{
    audience::Viewer,
    id::{Id, Since},
    log::{Log, Start},
    pins::PinId,
    proto::{wire::Wire, ws::assemble::Assembler},
    roll::{self, Straggler},
    sys,
    topic::Topic,
};
use bytes::Bytes;
use mio::{Interest, Registry, Token, net::TcpStream};
use std::{
    any::Any,
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

/// A stream subscription that the listener has accepted and hands to a shard.
pub struct Reader {
    /// Non-blocking.
    pub socket: std::net::TcpStream,
    /// What it reads.
    pub topic: Arc<Topic>,
    /// How.
    pub wire: Wire,
    /// From where, as the log answered before the peer heard anything: what comes after the answer's head is seen.
    pub start: Start,
    /// What was asked, to ask again for a position that has not arrived.
    pub since: Option<Since>,
    /// The answer's head, sent first.
    pub head: Bytes,
    /// Whether the body goes in chunks (HTTP/1.1) or ends with the connection (HTTP/1.0).
    pub chunked: bool,
    /// What the peer sent behind its request already.
    pub early: Bytes,
    /// What the peer's process calls itself.
    pub owner: Option<String>,
    /// What it may and wants to see.
    pub viewer: Arc<Viewer>,
    /// Whether its messages are published.
    pub may_publish: bool,
    /// Skip what is gone instead of being closed.
    pub skip: bool,
    /// When its token ends.
    pub expires: Option<Instant>,
    /// Released when the connection ends.
    pub permit: Box<dyn Any + Send>,
}

/// Where a connection stands in its lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// Just adopted.
    New,
    /// Has everything that the lane sent; gets the shared bytes. Index into the group of its wire form.
    Tip(usize),
    /// Reads on from its own cursor when its socket has room. Index into the lane's list.
    Behind(usize),
    /// Its position has not arrived yet. Index into the lane's list.
    Parked(usize),
    /// The goodbye is said.
    Leaving,
}

/// What only some connections need.
pub struct More {
    /// Pinned under `block`.
    pub pin: Option<PinId>,
    /// Positions told and not yet acknowledged: messages sent so far, and the log's offset there.
    pub told: VecDeque<(u64, u64)>,
    /// Everything below was acknowledged.
    pub acked: u64,
    /// When that last moved, or everything was acknowledged.
    pub acked_at: Instant,
    /// Bytes of the lane when the last `p` was sent (at the tip), or bytes since then (elsewhere).
    pub since_told: u64,
    /// When.
    pub told_at: Instant,
    /// The origin's clock less ours, in milliseconds, as the link was told it (LINKS 9).
    pub clock: i64,
    /// What a link believes to come next, while it is not at the tip.
    pub expected: Option<Id>,
    /// Half-read messages of a publisher.
    pub inbound: Option<Assembler>,
    /// What it waits for, while parked.
    pub waits_for: Option<Since>,
    /// The end of the stream was told; close once everything is acknowledged.
    pub ended: bool,
    /// The peer's process.
    pub owner: Option<String>,
    /// Says where it stands, on the roll of a named stream.
    pub straggler: Option<Arc<Straggler>>,
}

impl More {
    pub(super) fn new(owner: Option<String>) -> Self {
        More {
            pin: None,
            told: VecDeque::new(),
            acked: 0,
            acked_at: Instant::now(),
            since_told: 0,
            told_at: Instant::now(),
            clock: 0,
            expected: None,
            inbound: None,
            waits_for: None,
            ended: false,
            owner,
            straggler: None,
        }
    }
}

impl More {
    /// Whether the link would by itself give an event of this time that time, within so many milliseconds.
    pub(super) fn keeps_time(&self, time: u64, now: u64, tolerance: u64) -> bool {
        now.saturating_add_signed(self.clock).abs_diff(time) <= tolerance
    }

    /// Whether a reader at the tip could not do without.
    pub(super) fn is_needed(&self) -> bool {
        self.pin.is_some() || self.inbound.is_some() || self.owner.is_some()
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wrote {
    /// All of it is with the kernel.
    All,
    /// Only so many bytes; the socket is full.
    Part(usize),
    /// The connection is dead.
    Dead,
}

/// See the module's text. Small, because there may be a hundred thousand.
pub struct Conn {
    pub(super) socket: TcpStream,
    poller: Arc<Registry>,
    token: Token,
    /// Whether the poller tells us of room: only once there was none.
    awaits_room: bool,
    pub(super) lane: usize,
    pub(super) place: Place,
    pub(super) wire: Wire,
    pub(super) chunked: bool,
    pub(super) viewer: Arc<Viewer>,
    /// Its place on the topic's roll.
    pub(super) listed: Option<roll::Place>,
    pub(super) may_publish: bool,
    /// It has answered a ping.
    pub(super) ponged: bool,
    pub(super) skip: bool,
    /// It has closed its sending side, and may read on.
    pub(super) half_closed: bool,
    /// The offset to read on from, unless at the tip.
    pub(super) cursor: u64,
    /// Messages sent; at the tip the lane's count when it would have been zero.
    pub(super) mark: u64,
    /// Millisecond (of the shard's clock) at which it came to its place.
    pub(super) fell: u32,
    /// Second (of the shard's clock) at which to say something, or to give up when leaving.
    pub(super) due: u32,
    /// Second at which the peer was last heard.
    pub(super) heard: u32,
    /// Second at which its token has ended.
    pub(super) expires: u32,
    out: Option<Box<Out>>,
    pub(super) more: Option<Box<More>>,
    pub(super) _permit: Box<dyn Any + Send>,
}

impl Conn {
    /// Registered for what it says only: to write to it there is room, until there is none.
    ///
    /// # Errors
    /// When the poller does not take it.
    pub(super) fn new(
        mut socket: TcpStream,
        (poller, token): (Arc<Registry>, Token),
        lane: usize,
        reader: ReaderParts,
    ) -> io::Result<Self> {
        poller.register(&mut socket, token, Interest::READABLE)?;
        Ok(Conn {
            socket,
            poller,
            token,
            awaits_room: false,
            lane,
            place: Place::New,
            wire: reader.wire,
            chunked: reader.chunked,
            viewer: reader.viewer,
            listed: None,
            may_publish: reader.may_publish,
            ponged: false,
            skip: reader.skip,
            half_closed: false,
            cursor: 0,
            mark: 0,
            fell: 0,
            due: 0,
            heard: 0,
            expires: u32::MAX,
            out: None,
            more: None,
            _permit: reader.permit,
        })
    }

    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_with(|| Box::new(More::new(None)))
    }

    /// From here on it is known as one that is behind, or no more.
    pub(super) fn note_straggler(&mut self, straggler: Option<Arc<Straggler>>) {
        match straggler {
            Some(straggler) => self.more().straggler = Some(straggler),
            None => drop(self.more.as_mut().and_then(|more| more.straggler.take())),
        }
    }

    /// It has everything below this offset.
    pub(super) fn moves_to(&mut self, offset: u64) {
        self.cursor = offset;
        if let Some(straggler) = self.more.as_ref().and_then(|more| more.straggler.as_ref()) {
            straggler.stands_at(offset);
        }
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()
    }

    pub(super) fn is_clear(&self) -> bool {
        self.out.is_none()
    }

    /// While leaving: whether the peer has taken some of what waits for it since it was asked the last time, which the
    /// cursor remembers. Who is cut off in the middle of that loses what the kernel still has.
    pub(super) fn is_taking(&mut self) -> bool {
        let kernel = sys::kernel_view(&self.socket).map_or(0, |view| view.waiting);
        let waiting = (self.waiting() + kernel) as u64;
        std::mem::replace(&mut self.cursor, waiting) > waiting && waiting > 0
    }

    /// Bytes that wait for the socket.
    pub(super) fn waiting(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.iter().map(Bytes::len).sum())
    }

    /// The socket is full: the poller tells us when it is not. Edge-triggered, and told at once if it is not by now.
    fn await_room(&mut self, taken: usize) -> Wrote {
        if !self.awaits_room {
            let both = Interest::READABLE | Interest::WRITABLE;
            if self.poller.reregister(&mut self.socket, self.token, both).is_err() {
                return Wrote::Dead;
            }
            self.awaits_room = true;
        }
        Wrote::Part(taken)
    }

    /// Takes it from the poller.
    pub(super) fn deregister(&mut self) {
        let _ = self.poller.deregister(&mut self.socket);
    }

    /// Hands bytes to the kernel, as many as it takes.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> Wrote {
        loop {
            match self.socket.write(bytes) {
                Ok(n) if n == bytes.len() => return Wrote::All,
                // A short write is tried again only when the kernel says that there is room: edge-triggered.
                Ok(n) => match self.try_write(&bytes[n..]) {
                    Wrote::Part(more) => return Wrote::Part(n + more),
                    done => return done,
                },
                Err(e) if e.kind() == ErrorKind::WouldBlock => return self.await_room(0),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Wrote::Dead,
            }
        }
    }

    /// The same for several pieces, as if they were one.
    pub(super) fn try_write_pieces(&mut self, pieces: &[Bytes]) -> Wrote {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let (mut rest, mut taken) = (&mut slices[..], 0);
        while !rest.is_empty() {
            match self.socket.write_vectored(rest) {
                Ok(n) => {
                    taken += n;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return self.await_room(taken),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Wrote::Dead,
            }
        }
        Wrote::All
    }

    /// Keeps what the kernel did not take. A short rest is copied, so that it does not hold a whole batch.
    pub(super) fn keep_rest(&mut self, rest: Bytes) {
        const COPY_BELOW: usize = 4096;
        let rest = if rest.len() < COPY_BELOW { Bytes::copy_from_slice(&rest) } else { rest };
        self.out.get_or_insert_default().push_back(rest);
    }

    /// Writes, or queues behind what waits: for a reader's own frames, and one batch at a time.
    pub(super) fn send(&mut self, bytes: Bytes) -> Wrote {
        if bytes.is_empty() {
            return Wrote::All;
        }
        if !self.is_clear() {
            self.keep_rest(bytes);
            return Wrote::Part(0);
        }
        let wrote = self.try_write(&bytes);
        if let Wrote::Part(n) = wrote {
            self.keep_rest(bytes.slice(n..));
        }
        wrote
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> Wrote {
        while let Some(front) = self.out.as_mut().and_then(|out| out.pop_front()) {
            match self.try_write(&front) {
                Wrote::All => {}
                Wrote::Part(n) => {
                    self.out.get_or_insert_default().push_front(front.slice(n..));
                    return Wrote::Part(n);
                }
                Wrote::Dead => return Wrote::Dead,
            }
        }
        self.out = None;
        Wrote::All
    }

    /// `None` when there is nothing to read now, 0 at the end of the stream.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        loop {
            match self.socket.read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => return Some(done),
            }
        }
    }

    /// The pong of a `p` came back: everything before it was received (LINKS 13). Returns the acknowledged offset if
    /// it moved.
    pub(super) fn acknowledge(&mut self, n: u64) -> Option<u64> {
        let more = self.more.as_mut()?;
        let mut moved = None;
        while more.told.front().is_some_and(|(told, _)| *told <= n) {
            moved = more.told.pop_front().map(|(_, offset)| offset);
        }
        more.acked_at = Instant::now();
        moved.filter(|&offset| offset > std::mem::replace(&mut more.acked, offset))
    }

    pub(super) fn unpin(&mut self, log: &Log, done: bool) {
        if let Some(pin) = self.more.as_mut().and_then(|more| more.pin.take()) {
            log.unpin(pin, done);
        }
    }
}

/// Pieces that wait for the socket; boxed in [`Conn`], because hardly any connection has some.
type Out = VecDeque<Bytes>;

/// What of a [`Reader`] stays with its connection.
pub(super) struct ReaderParts {
    pub wire: Wire,
    pub chunked: bool,
    pub viewer: Arc<Viewer>,
    pub may_publish: bool,
    pub skip: bool,
    pub permit: Box<dyn Any + Send>,
}
