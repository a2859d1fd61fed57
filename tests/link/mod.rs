//! The other ends of a link, made of bytes: a reader that holds the server to every word of `wsevent.v1`, an upstream
//! that says what a test wants, and an SSE reader. They share no code with the program.

// Each test file uses a part of it.
#![allow(dead_code)]

use super::common::{
    PATIENCE,
    raw::{self, Answer, BINARY, CLOSE, Frame, PING, PONG, Raw, TEXT},
};
use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A position as it is written: epoch, number, part (0 for a whole event).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub epoch: String,
    pub n: u64,
    pub k: u64,
}

impl Id {
    pub fn new(epoch: &str, n: u64) -> Self {
        Id { epoch: epoch.into(), n, k: 0 }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, seq) = text.split_once('-')?;
        let (n, k) = seq.split_once('.').unwrap_or((seq, "0"));
        (epoch.len() == 23 && epoch.starts_with('e')).then_some(())?;
        Some(Id { epoch: epoch.into(), n: n.parse().ok()?, k: k.parse().ok()? })
    }

    pub fn read(text: &str) -> Self {
        Id::parse(text).unwrap_or_else(|| panic!("not an id: {text:?}"))
    }

    /// The next whole position.
    pub fn next(&self) -> Self {
        Id { n: self.n + 1, k: 0, ..self.clone() }
    }

    /// The whole position before this one.
    pub fn before(&self) -> Self {
        Id { n: self.n - 1, k: 0, ..self.clone() }
    }

    pub fn at(&self, n: u64) -> Self {
        Id { n, k: 0, ..self.clone() }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.n)?;
        if self.k > 0 { write!(f, ".{}", self.k) } else { Ok(()) }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The epoch's end tells lives apart; all of it would hide the number.
        write!(f, "…{}-{}.{}", self.epoch.get(18..).unwrap_or(""), self.n, self.k)
    }
}

/// What a link's server says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Event {
        id: Id,
        text: String,
        attrs: Option<String>,
    },
    Position {
        next: Id,
        n: u64,
    },
    Gap {
        from: Id,
        to: Id,
        count: Option<u64>,
    },
    End(Id),
    Changed,
    /// A ping without a word of ours.
    Ping,
    Close(u16, String),
    /// The connection is gone without a close.
    Gone,
}

/// A link's reader. Every answer is checked against the protocol's rules.
pub struct Link {
    pub raw: Raw,
    pub answer: Answer,
    /// Whether pings are answered.
    pub pongs: bool,
    /// The newest data message as it came.
    pub message: Frame,
    next: Option<Id>,
    /// The newest position that was named, for what must not go back.
    newest: Option<Id>,
    count: u64,
    announced: Option<Id>,
    attrs: Option<String>,
    ended: bool,
    /// The last thing said was a position.
    told: bool,
}

impl Link {
    pub fn open(url: &str) -> Self {
        Link::open_with(url, "")
    }

    /// With more header lines (each ending in CRLF).
    pub fn open_with(url: &str, headers: &str) -> Self {
        Link::try_open(url, headers).unwrap_or_else(|answer| panic!("open {url}: {answer:?}"))
    }

    pub fn since(url: &str, since: impl fmt::Display) -> Self {
        Link::open(&format!("{url}?since={since}"))
    }

    /// # Errors
    /// The answer, if it is no link; status 0 when there was none.
    pub fn try_open(url: &str, headers: &str) -> Result<Self, Answer> {
        let (host, port, path) = raw::split_url(url);
        let none = |_: io::Error| Answer::default();
        let mut raw = Raw::over(TcpStream::connect((host.as_str(), port)).map_err(none)?);
        let asked = raw.try_send(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: wsevent.v1\r\n{headers}\r\n"
        ));
        asked.map_err(none)?;
        let answer = raw.read_head();
        if answer.status != 101 || answer.header("sec-websocket-protocol") != Some("wsevent.v1") {
            return Err(answer);
        }
        Ok(Link {
            raw,
            answer,
            pongs: true,
            message: Frame::new(TEXT, ""),
            next: None,
            newest: None,
            count: 0,
            announced: None,
            attrs: None,
            ended: false,
            told: false,
        })
    }

    /// `Wsevent-Window`: oldest and next.
    pub fn window(&self) -> (Id, Id) {
        let text = self.answer.header("wsevent-window").expect("a window");
        let (oldest, next) = text.split_once(' ').expect("two ids");
        (Id::read(oldest), Id::read(next))
    }

    /// The next thing that the server says.
    pub fn hear(&mut self) -> Said {
        loop {
            let Some(frame) = self.raw.read_frame() else { return Said::Gone };
            assert!(!frame.masked && frame.rsv == 0 && frame.fin, "a server's frame: {frame:?}");
            match frame.opcode {
                PING => {
                    assert!(frame.payload.len() <= 125, "LINKS 10: {frame:?}");
                    let heard = self.take_ping(&frame.text());
                    if self.pongs {
                        let _ = self.raw.try_send(Frame::new(PONG, frame.payload).to_bytes());
                    }
                    if let Some(said) = heard {
                        return said;
                    }
                }
                TEXT | BINARY => {
                    let said = self.take_message(frame.text());
                    self.message = frame;
                    if let Some(said) = said {
                        return said;
                    }
                }
                CLOSE => {
                    let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or(b"")).into_owned();
                    if frame.close_code() == 1000 {
                        assert!(self.ended, "LINKS 18: `e` stands before a close with 1000");
                    }
                    let _ = self.raw.try_send(Frame::new(CLOSE, frame.payload.clone()).to_bytes());
                    return Said::Close(frame.close_code(), reason);
                }
                PONG => {}
                other => panic!("opcode {other}"),
            }
        }
    }

    fn take_ping(&mut self, text: &str) -> Option<Said> {
        assert!(self.announced.is_none(), "LINKS 12: `{text}` between an `a` and its event");
        let words: Vec<&str> = text.split(' ').collect();
        self.told = matches!(words[..], ["p", ..]);
        let said = match words[..] {
            ["p", next, ms, n] => {
                let (next, n) = (Id::read(next), n.parse().expect("n"));
                assert!(ms.parse::<u64>().is_ok(), "{text}");
                assert_eq!(n, self.count, "LINKS 10: n counts the data messages so far: `{text}`");
                self.must_not_go_back(&next);
                self.next = Some(next.clone());
                Said::Position { next, n }
            }
            ["g", from, to, count] => {
                let count = (count != "?").then(|| count.parse().expect("a count"));
                let (from, to) = (Id::read(from), Id::read(to));
                assert!(from.epoch != to.epoch || from <= to, "a gap's ends: `{text}`");
                self.must_not_go_back(&to);
                self.newest = Some(to.clone());
                self.next = None;
                Said::Gap { from, to, count }
            }
            ["a", id] => {
                self.announced = Some(Id::read(id));
                return None;
            }
            ["e", id] => {
                self.ended = true;
                Said::End(Id::read(id))
            }
            ["u"] => Said::Changed,
            _ => Said::Ping,
        };
        Some(said)
    }

    /// LINKS 11: a position names the next event, so it lies behind everything named before.
    fn must_not_go_back(&self, next: &Id) {
        if let Some(newest) = self.newest.as_ref().filter(|newest| newest.epoch == next.epoch) {
            assert!(next > newest, "LINKS 11: {next} behind {newest}");
        }
    }

    fn take_message(&mut self, text: String) -> Option<Said> {
        if self.announced.is_some() && self.attrs.is_none() {
            self.attrs = Some(text);
            return None;
        }
        let id = self.next.clone().unwrap_or_else(|| panic!("LINKS 11: a message without a position: {text:?}"));
        if let Some(announced) = self.announced.take() {
            assert_eq!(announced, id, "LINKS 10: `a` names the event behind it");
        }
        self.count += 1;
        self.told = false;
        self.newest = Some(id.clone());
        self.next = Some(id.next());
        Some(Said::Event { id, text, attrs: self.attrs.take() })
    }

    /// The next event, gap or end; how the connection ended. Panics when there is no sign but those of life for long.
    pub fn news(&mut self) -> Said {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            match self.hear() {
                Said::Position { .. } | Said::Ping | Said::Changed => {
                    assert!(Instant::now() < deadline, "no news for {:?}", 2 * PATIENCE);
                }
                said => return said,
            }
        }
    }

    /// The next event; panics at anything but positions before it.
    pub fn event(&mut self) -> (Id, String) {
        match self.news() {
            Said::Event { id, text, .. } => (id, text),
            other => panic!("no event: {other:?}"),
        }
    }

    pub fn events(&mut self, n: usize) -> Vec<(Id, String)> {
        (0..n).map(|_| self.event()).collect()
    }

    pub fn texts(&mut self, n: usize) -> Vec<String> {
        self.events(n).into_iter().map(|(_, text)| text).collect()
    }

    /// The position that is told next; panics at anything else.
    pub fn position(&mut self) -> Id {
        match self.hear() {
            Said::Position { next, .. } => next,
            other => panic!("no position: {other:?}"),
        }
    }

    /// The gap that is told next, possibly behind positions.
    pub fn gap(&mut self) -> (Id, Id, Option<u64>) {
        match self.news() {
            Said::Gap { from, to, count } => (from, to, count),
            other => panic!("no gap: {other:?}"),
        }
    }

    /// Everything up to the close, and whether a position stood right before it.
    pub fn close(&mut self) -> (Vec<Said>, u16, String, bool) {
        let mut before = Vec::new();
        loop {
            let told = self.told;
            match self.news() {
                Said::Close(code, reason) => return (before, code, reason, told || self.told),
                Said::Gone => panic!("no close, but: {before:?}"),
                said => before.push(said),
            }
        }
    }

    /// `k`: nobody at or behind us needs anything up to here.
    pub fn keep(&mut self, id: &Id) {
        let _ = self.raw.try_send(Frame::new(PING, format!("k {id}")).to_bytes());
    }

    /// What a client may say, masked.
    pub fn say(&mut self, opcode: u8, payload: impl Into<Vec<u8>>) {
        self.raw.send_frame(&Frame::new(opcode, payload));
    }
}

/// An upstream that says what the test wants it to say.
pub struct Upstream {
    listener: TcpListener,
}

/// One connection to it.
pub struct Served {
    pub raw: Raw,
    /// The request's head.
    pub asked: String,
}

impl Upstream {
    pub fn new() -> Self {
        Upstream { listener: TcpListener::bind("127.0.0.1:0").expect("a port") }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().expect("bound").to_string()
    }

    pub fn ws_url(&self) -> String {
        format!("ws://{}/events", self.address())
    }

    pub fn sse_url(&self) -> String {
        format!("sse+http://{}/events", self.address())
    }

    /// The next connection and what it asks, unanswered.
    pub fn asked(&self) -> Served {
        self.listener.set_nonblocking(true).expect("a socket option");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("a socket option");
                    let mut raw = Raw::over(stream);
                    let asked = raw.read_head_text().expect("a request");
                    return Served { raw, asked };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("accept: {error}"),
            }
            assert!(Instant::now() < deadline, "nobody connects");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Accepts as a link that holds `oldest..next`.
    pub fn link(&self, oldest: &Id, next: &Id) -> Served {
        self.link_with(&format!("Wsevent-Window: {oldest} {next}\r\n"))
    }

    /// Accepts as a link with these header lines.
    pub fn link_with(&self, headers: &str) -> Served {
        let mut served = self.asked();
        served.upgrade(&format!("Sec-WebSocket-Protocol: wsevent.v1\r\nWsevent: v1\r\n{headers}"));
        served
    }

    /// Accepts as any server's stream.
    pub fn plain(&self) -> Served {
        let mut served = self.asked();
        served.upgrade("");
        served
    }

    /// Answers with an event stream (until the connection closes) and these header lines.
    pub fn sse(&self, headers: &str) -> Served {
        let mut served = self.asked();
        served
            .raw
            .send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n{headers}\r\n"));
        served
    }
}

impl Served {
    pub fn upgrade(&mut self, headers: &str) {
        let key = self.header("sec-websocket-key").expect("a key");
        let accept = derive_accept_key(key.as_bytes());
        self.raw.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{headers}\r\n"
        ));
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let fits = |line: &&str| line.to_lowercase().starts_with(&format!("{}:", name.to_lowercase()));
        let line = self.asked.lines().find(fits)?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    }

    /// What it asked for with `since`.
    pub fn since(&self) -> Option<String> {
        let target = self.asked.split(' ').nth(1)?;
        target.split_once("since=").map(|(_, since)| since.split('&').next().unwrap_or("").to_owned())
    }

    pub fn ping(&mut self, text: impl Into<String>) {
        self.raw.send_frame(&Frame::from_server(PING, text.into()));
    }

    pub fn position(&mut self, next: &Id, n: u64) {
        self.ping(format!("p {next} {} {n}", now_ms()));
    }

    pub fn text(&mut self, text: impl Into<String>) {
        self.raw.send_frame(&Frame::from_server(TEXT, text.into()));
    }

    pub fn texts(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let frames = numbers.into_iter().map(|n| Frame::from_server(TEXT, n.to_string()).to_bytes());
        self.raw.send(frames.collect::<Vec<_>>().concat());
    }

    pub fn close(&mut self, code: u16, reason: &str) {
        let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
        let _ = self.raw.try_send(Frame::from_server(CLOSE, payload).to_bytes());
    }

    /// Reads until a ping says this.
    pub fn hears_ping(&mut self, text: &str) {
        loop {
            let frame = self.raw.read_frame().unwrap_or_else(|| panic!("the peer left before it said `{text}`"));
            assert!(frame.masked, "a client's frame");
            if frame.opcode == PING && frame.text() == text {
                return;
            }
        }
    }

    /// Waits until the peer has taken everything said so far.
    pub fn hears_ping_answered(&mut self) {
        assert!(self.is_answered(), "the peer left");
    }

    /// The same of a peer that may prefer to leave.
    pub fn hears_ping_answered_or_gone(&mut self) {
        self.is_answered();
    }

    fn is_answered(&mut self) -> bool {
        let _ = self.raw.try_send(Frame::from_server(PING, "heard?").to_bytes());
        loop {
            match self.raw.read_frame() {
                Some(frame) if frame.opcode == PONG && frame.text() == "heard?" => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Reads until the peer closes; its code.
    pub fn hears_close(&mut self) -> Option<u16> {
        loop {
            let frame = self.raw.read_frame()?;
            if frame.opcode == CLOSE {
                return Some(frame.close_code());
            }
        }
    }

    /// Waits until the connection is gone.
    pub fn hears_nothing_more(&mut self) {
        while self.raw.read_frame().is_some() {}
    }
}

/// A fresh epoch's first position, `E-0`.
pub fn origin() -> Id {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let spell = |value: u64, digits: u32| -> String {
        let digit = |place| DIGITS[(u128::from(value) >> (5 * place)) as usize & 31];
        (0..digits).rev().map(|place| char::from(digit(place))).collect()
    };
    Id::new(&format!("e{}{}", spell(now_ms(), 9), spell(rand::random(), 13)), 0)
}

pub fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A block of an event stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    pub id: Option<Id>,
    pub kind: Option<String>,
    pub data: Option<String>,
    pub retry: Option<u64>,
}

/// An SSE reader on HTTP/1.1.
pub struct Sse {
    stream: TcpStream,
    pub answer: Answer,
    raw: Vec<u8>,
    text: Vec<u8>,
    ended: bool,
}

impl Sse {
    pub fn open(url: &str) -> Self {
        Sse::open_with(url, "")
    }

    pub fn open_with(url: &str, headers: &str) -> Self {
        let sse = Sse::try_open(url, headers).unwrap_or_else(|error| panic!("open {url}: {error}"));
        assert_eq!(sse.answer.status, 200, "{:?}", sse.answer);
        sse
    }

    pub fn after(url: &str, id: &Id) -> Self {
        Sse::open_with(url, &format!("Last-Event-ID: {id}\r\n"))
    }

    /// # Errors
    /// When nothing answers.
    pub fn try_open(url: &str, headers: &str) -> io::Result<Self> {
        let (host, port, path) = raw::split_url(url);
        let mut stream = TcpStream::connect((host.as_str(), port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let ask = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n{headers}\r\n");
        stream.write_all(ask.as_bytes())?;
        let mut sse = Sse { stream, answer: Answer::default(), raw: Vec::new(), text: Vec::new(), ended: false };
        sse.read_head().map(|()| sse)
    }

    fn read_head(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.raw.drain(..end + 4).collect();
                let head = String::from_utf8_lossy(&head).into_owned();
                let pairs = head.lines().skip(1).filter_map(|line| line.split_once(':'));
                self.answer.headers = pairs.map(|(name, value)| (name.to_lowercase(), value.trim().into())).collect();
                self.answer.status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
                return Ok(());
            }
            if !self.more() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Whether there was more to read.
    fn more(&mut self) -> bool {
        let mut more = [0; 16 << 10];
        match self.stream.read(&mut more) {
            Ok(n) => {
                self.raw.extend_from_slice(&more[..n]);
                n > 0
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("read: {error}"),
        }
    }

    /// The next block, comments left out; `None` at the end of the stream.
    pub fn block(&mut self) -> Option<Block> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nothing but comments");
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                let block = parse_block(&String::from_utf8_lossy(&block));
                if block != Block::default() {
                    return Some(block);
                }
            } else if !self.fill() {
                return None;
            }
        }
    }

    /// The next block with data.
    pub fn event(&mut self) -> Option<(Id, String)> {
        loop {
            let block = self.block()?;
            assert!(block.kind.as_deref() != Some("gap"), "a gap: {block:?}");
            if let (Some(id), Some(data)) = (block.id, block.data) {
                return Some((id, data));
            }
        }
    }

    pub fn texts(&mut self, n: usize) -> Vec<String> {
        (0..n).map(|_| self.event().expect("an event").1).collect()
    }

    /// One more chunk.
    fn fill(&mut self) -> bool {
        loop {
            if self.ended {
                return false;
            }
            if let Some(end) = self.raw.windows(2).position(|two| two == b"\r\n") {
                let len =
                    usize::from_str_radix(&String::from_utf8_lossy(&self.raw[..end]), 16).expect("a chunk's length");
                if self.raw.len() >= end + 4 + len {
                    self.text.extend_from_slice(&self.raw[end + 2..end + 2 + len]);
                    self.raw.drain(..end + 4 + len);
                    self.ended = len == 0;
                    return len > 0;
                }
            }
            self.ended = !self.more();
        }
    }
}

fn parse_block(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines().filter(|line| !line.starts_with(':') && !line.is_empty()) {
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        match field {
            "id" => block.id = Some(Id::read(value)),
            "event" => block.kind = Some(value.into()),
            "data" => match &mut block.data {
                Some(data) => *data = format!("{data}\n{value}"),
                none => *none = Some(value.into()),
            },
            "retry" => block.retry = value.parse().ok(),
            _ => {}
        }
    }
    block
}

/// What a reader that comes back got.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Event(Id, String),
    Gap(Id, Id, Option<u64>),
}

/// How a [`Follower`] reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    Link,
    Sse,
}

/// A reader in a thread of its own that comes back, with its position, until the stream has ended.
pub struct Follower {
    shared: Arc<Shared>,
    thread: thread::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    heard: Mutex<Vec<Heard>>,
    connection: Mutex<Option<TcpStream>>,
    /// It knows where it stands: a relative start was resolved.
    placed: AtomicBool,
    paused: AtomicBool,
    given_up: AtomicBool,
}

impl Shared {
    fn hear(&self, heard: Heard) {
        self.heard.lock().expect("no panic").push(heard);
    }

    fn connected(&self, stream: &TcpStream) {
        *self.connection.lock().expect("no panic") = stream.try_clone().ok();
    }

    /// Reads nothing while it is paused.
    fn rest(&self) {
        while self.paused.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Follower {
    /// Begins at `since`.
    pub fn start(how: How, url: &str, since: &str) -> Self {
        let shared: Arc<Shared> = Arc::default();
        let (inside, url, since) = (shared.clone(), url.to_owned(), since.to_owned());
        let thread = thread::spawn(move || {
            let mut place = since;
            while !inside.given_up.load(Ordering::Acquire)
                && !match how {
                    How::Link => follow_link(&url, &mut place, &inside),
                    How::Sse => follow_sse(&url, &mut place, &inside),
                }
            {
                // Whoever is killed needs a moment to come back; asking more often would only cost time.
                thread::sleep(Duration::from_millis(20));
            }
        });
        Follower { shared, thread }
    }

    /// How many events and gaps it has heard so far.
    pub fn count(&self) -> usize {
        self.shared.heard.lock().expect("no panic").len()
    }

    /// What it has heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().expect("no panic").clone()
    }

    /// Loses its connection.
    pub fn cut(&self) {
        if let Some(stream) = self.shared.connection.lock().expect("no panic").take() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Stops or goes on reading.
    pub fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Release);
    }

    /// Whether it was told where it stands.
    pub fn is_placed(&self) -> bool {
        self.shared.placed.load(Ordering::Acquire)
    }

    /// Whether the stream has ended for it.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// All of it, at the end of the stream.
    pub fn join(self) -> Vec<Heard> {
        self.thread.join().expect("no panic");
        let heard = self.shared.heard.lock().expect("no panic");
        heard.clone()
    }

    /// What it has heard, when nothing more is wanted.
    pub fn leave(self) -> Vec<Heard> {
        self.shared.given_up.store(true, Ordering::Release);
        self.pause(false);
        self.cut();
        self.join()
    }
}

/// One connection; says whether the stream has ended.
fn follow_link(url: &str, place: &mut String, shared: &Shared) -> bool {
    let Ok(mut link) = Link::try_open(&format!("{url}?since={place}"), "") else { return false };
    shared.connected(&link.raw.stream);
    loop {
        shared.rest();
        match link.hear() {
            Said::Event { id, text, .. } => {
                *place = id.to_string();
                shared.hear(Heard::Event(id, text));
            }
            Said::Gap { from, to, count } => {
                *place = to.to_string();
                shared.hear(Heard::Gap(from, to, count));
            }
            // A relative start is a place from here on (LINKS 7).
            Said::Position { next, .. } => {
                *place = next.before().to_string();
                shared.placed.store(true, Ordering::Release);
                link.keep(&next.before());
            }
            Said::End(last) => link.keep(&last),
            Said::Close(1000, _) => return true,
            Said::Close(..) | Said::Gone => return false,
            Said::Changed | Said::Ping => {}
        }
    }
}

fn follow_sse(url: &str, place: &mut String, shared: &Shared) -> bool {
    let relative = Id::parse(place).is_none();
    let opened = if relative {
        Sse::try_open(&format!("{url}?since={place}"), "")
    } else {
        Sse::try_open(url, &format!("Last-Event-ID: {place}\r\n"))
    };
    let Ok(mut sse) = opened else { return false };
    if sse.answer.status != 200 {
        return sse.answer.status == 204;
    }
    shared.connected(&sse.stream);
    while let Some(block) = sse.block() {
        shared.rest();
        if let Some(id) = &block.id {
            *place = id.to_string();
            shared.placed.store(true, Ordering::Release);
        }
        match (block.kind.as_deref(), block.id, block.data) {
            (Some("gap"), _, Some(data)) => {
                let data: serde_json::Value = serde_json::from_str(&data).expect("JSON");
                let end = |name: &str| Id::read(data[name].as_str().expect("an id"));
                shared.hear(Heard::Gap(end("from"), end("to"), data["count"].as_u64()));
            }
            (_, Some(id), Some(data)) => shared.hear(Heard::Event(id, data)),
            _ => {}
        }
    }
    false
}

/// The numbers that were heard, in order; panics at a gap.
pub fn numbers_of(heard: &[Heard]) -> Vec<u64> {
    let number = |heard: &Heard| match heard {
        Heard::Event(_, text) => text.parse().unwrap_or_else(|_| panic!("not a number: {text:?}")),
        Heard::Gap(..) => panic!("a gap: {heard:?}"),
    };
    heard.iter().map(number).collect()
}

/// Where two runs of numbers part, for a message that fits a screen.
pub fn assert_numbers(who: &str, got: &[u64], expected: impl IntoIterator<Item = u64>) {
    let expected: Vec<u64> = expected.into_iter().collect();
    let at =
        got.iter().zip(&expected).position(|(got, expected)| got != expected).unwrap_or(got.len().min(expected.len()));
    let around =
        |numbers: &[u64]| numbers[at.saturating_sub(3).min(numbers.len())..(at + 4).min(numbers.len())].to_vec();
    assert!(
        got == expected,
        "{who}: {} events, {} expected; they part at index {at}: {:?} is not {:?}",
        got.len(),
        expected.len(),
        around(got),
        around(&expected)
    );
}
