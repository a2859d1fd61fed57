//! The least that a fan-out can do: one thread, one epoll, one `send` per reader and event, no rules, no memory.
//!
//! `floor H:P [--coalesce]` serves WebSocket readers, and event streams to whoever accepts those; what is published as
//! WebSocket messages at `/pub` goes to all of them. With `--coalesce`, what was read at once is written at once.
//! `floor H:P --blast SIZE` says stamped events to its first reader, two seconds after it came (so that whoever is behind
//! a hop is there, too) and then as fast as they are taken. With `--defer`, a connection is accepted once it has said
//! something.

use mio::{
    Events, Interest, Poll, Registry, Token,
    net::{TcpListener, TcpStream},
};
use socket2::SockRef;
use std::{
    io::{self, Read, Write},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const DOOR: Token = Token(usize::MAX);

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Asking,
    Publisher,
    Messages,
    EventStream,
}

struct Peer {
    socket: TcpStream,
    role: Role,
    /// Bytes of a request or a frame that is not whole.
    inbound: Vec<u8>,
    /// What the socket did not take.
    outbound: Vec<u8>,
    /// We are told when it takes more.
    watched: bool,
}

struct Floor {
    poll: Poll,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    coalesce: bool,
    /// Bytes of an event of the blast; who gets it, and the next number.
    blast: Option<usize>,
    blasted: Option<usize>,
    next: u64,
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let at = |name: &str| args.iter().position(|arg| arg == name);
    let address = args.first().and_then(|arg| arg.parse().ok()).expect("an address to listen on");
    let mut door = TcpListener::bind(address)?;
    // Every connection inherits it.
    SockRef::from(&door).set_tcp_nodelay(true)?;
    if at("--defer").is_some() {
        defer(&door)?;
    }
    let poll = Poll::new()?;
    poll.registry().register(&mut door, DOOR, Interest::READABLE)?;
    let blast = at("--blast").map(|i| args.get(i + 1).and_then(|arg| arg.parse().ok()).expect("--blast SIZE"));
    let coalesce = at("--coalesce").is_some();
    let mut floor = Floor { poll, peers: Vec::new(), free: Vec::new(), coalesce, blast, blasted: None, next: 0 };
    let mut events = Events::with_capacity(1024);
    let mut buf = vec![0; 256 << 10];
    loop {
        floor.poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                DOOR => floor.accept(&door)?,
                Token(i) => {
                    if event.is_writable() {
                        floor.write_rest(i);
                    }
                    if event.is_readable() {
                        floor.read(i, &mut buf);
                    }
                }
            }
        }
    }
}

impl Floor {
    fn accept(&mut self, door: &TcpListener) -> io::Result<()> {
        loop {
            let mut socket = match door.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => continue,
            };
            let i = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            self.poll.registry().register(&mut socket, Token(i), Interest::READABLE)?;
            let peer = Peer { socket, role: Role::Asking, inbound: Vec::new(), outbound: Vec::new(), watched: false };
            self.peers[i] = Some(peer);
        }
    }

    fn read(&mut self, i: usize, buf: &mut [u8]) {
        while let Some(peer) = &mut self.peers[i] {
            match peer.socket.read(buf) {
                Ok(0) => return self.remove(i),
                Ok(n) => self.take(i, &buf[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.remove(i),
            }
        }
    }

    fn remove(&mut self, i: usize) {
        self.peers[i] = None;
        self.free.push(i);
    }

    fn take(&mut self, i: usize, bytes: &[u8]) {
        let Some(peer) = &mut self.peers[i] else { return };
        match peer.role {
            Role::Asking => {
                peer.inbound.extend_from_slice(bytes);
                let Some((answer, role)) = answer(&peer.inbound) else { return };
                (peer.role, peer.inbound) = (role, Vec::new());
                send(self.poll.registry(), i, peer, answer.as_bytes());
                self.write_rest(i);
            }
            Role::Publisher => {
                peer.inbound.extend_from_slice(bytes);
                let mut inbound = std::mem::take(&mut peer.inbound);
                let (used, payloads) = messages(&mut inbound);
                self.publish(&inbound, &payloads);
                inbound.drain(..used);
                if let Some(peer) = &mut self.peers[i] {
                    peer.inbound = inbound;
                }
            }
            // Pongs and closes: a reader that goes closes its socket, too.
            Role::Messages | Role::EventStream => {}
        }
    }

    fn publish(&mut self, bytes: &[u8], payloads: &[std::ops::Range<usize>]) {
        let at_once = if self.coalesce { payloads.len().max(1) } else { 1 };
        for group in payloads.chunks(at_once) {
            let (mut frames, mut blocks) = (Vec::new(), Vec::new());
            for payload in group {
                put_frame(&mut frames, &bytes[payload.clone()]);
                blocks.extend_from_slice(b"data: ");
                blocks.extend_from_slice(&bytes[payload.clone()]);
                blocks.extend_from_slice(b"\n\n");
            }
            for (i, peer) in self.peers.iter_mut().enumerate() {
                let Some(peer) = peer else { continue };
                match peer.role {
                    Role::Messages => send(self.poll.registry(), i, peer, &frames),
                    Role::EventStream => send(self.poll.registry(), i, peer, &blocks),
                    Role::Asking | Role::Publisher => {}
                }
            }
        }
    }

    /// Writes what waits, and as much of the blast as is taken.
    fn write_rest(&mut self, i: usize) {
        let Some(peer) = &mut self.peers[i] else { return };
        let waiting = std::mem::take(&mut peer.outbound);
        send(self.poll.registry(), i, peer, &waiting);
        let Some(size) = self.blast.filter(|_| peer.role == Role::Messages) else { return };
        if self.blasted.is_none() {
            thread::sleep(Duration::from_secs(2));
        }
        while peer.outbound.is_empty() && *self.blasted.get_or_insert(i) == i {
            send(self.poll.registry(), i, peer, &stamped(self.next..self.next + 512, size));
            self.next += 512;
        }
    }
}

/// One `send`; what is not taken waits for room.
fn send(registry: &Registry, i: usize, peer: &mut Peer, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let taken = if peer.outbound.is_empty() { peer.socket.write(bytes).unwrap_or(0) } else { 0 };
    peer.outbound.extend_from_slice(&bytes[taken..]);
    if !peer.outbound.is_empty() && !peer.watched {
        let both = Interest::READABLE | Interest::WRITABLE;
        peer.watched = registry.reregister(&mut peer.socket, Token(i), both).is_ok();
    }
}

/// `TCP_DEFER_ACCEPT` (tcp(7)), for a second.
fn defer(door: &TcpListener) -> io::Result<()> {
    let (seconds, len) = (1 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the descriptor is open while `door` is borrowed; the kernel reads one `int` and keeps no pointer.
    let status = unsafe {
        let seconds = (&raw const seconds).cast();
        libc::setsockopt(door.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds, len)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The answer to a whole request, and what the peer is then.
fn answer(request: &[u8]) -> Option<(String, Role)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut fields);
    if parsed.parse(request).ok()?.is_partial() {
        return None;
    }
    let key = parsed.headers.iter().find(|field| field.name.eq_ignore_ascii_case("sec-websocket-key"));
    let Some(key) = key else {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        return Some((head.into(), Role::EventStream));
    };
    let role = if parsed.path == Some("/pub") { Role::Publisher } else { Role::Messages };
    let accept = derive_accept_key(key.value);
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    Some((format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n"), role))
}

/// Unmasks the whole frames at the front, in place; says how long they are and where the text messages stand.
fn messages(bytes: &mut [u8]) -> (usize, Vec<std::ops::Range<usize>>) {
    let (mut at, mut found) = (0, Vec::new());
    while let [first, second, rest @ ..] = &bytes[at..] {
        let (extended, len) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (2, usize::from(u16::from_be_bytes([*a, *b]))),
            (127, [_, _, _, _, a, b, c, d, ..]) => (8, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
            (126 | 127, _) => break,
            (len, _) => (0, usize::from(len)),
        };
        let (text, start) = (first & 0x0f == 1, at + 2 + extended + 4);
        if bytes.len() < start + len {
            break;
        }
        let key: [u8; 4] = std::array::from_fn(|i| bytes[start - 4 + i]);
        bytes[start..start + len].iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        if text {
            found.push(start..start + len);
        }
        at = start + len;
    }
    (at, found)
}

fn put_frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x81);
    match payload.len() {
        len @ 0..=125 => out.push(len as u8),
        len @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Frames as `wsevent bench` reads them; without a clock, for only the numbers count here.
fn stamped(numbers: std::ops::Range<u64>, size: usize) -> Vec<u8> {
    let mut payload = vec![b'.'; size.max(38)];
    payload[..38].copy_from_slice(format!("#{:08x}.{:012x}.{:014x} ", 1, 0, 0).as_bytes());
    let mut out = Vec::with_capacity((size + 10) * 512);
    for number in numbers {
        for (i, digit) in payload[10..22].iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (4 * i) & 15) as usize];
        }
        put_frame(&mut out, &payload);
    }
    out
}
