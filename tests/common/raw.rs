//! A client made of bytes: says anything, well-formed or not, and reads what comes back.

use super::PATIENCE;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    time::Instant,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Host, port and path (with its query) of an `http` or `ws` URL.
pub fn split_url(url: &str) -> (String, u16, String) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, path) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, path.into()));
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    (host.to_owned(), port.parse().expect("a port"), format!("/{path}"))
}

/// One WebSocket frame (RFC 6455 §5.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub fin: bool,
    /// The three reserved bits, as 0..=7.
    pub rsv: u8,
    pub opcode: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole, masked frame, as a client must send it.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Frame { fin: true, rsv: 0, opcode, masked: true, payload: payload.into() }
    }

    /// A whole frame as a server sends it.
    pub fn from_server(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Frame { masked: false, ..Frame::new(opcode, payload) }
    }

    pub fn close(code: u16, reason: &str) -> Self {
        Frame::new(CLOSE, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The code of a close frame; 1005 when it has none.
    pub fn close_code(&self) -> u16 {
        self.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mask_bit = if self.masked { 0x80 } else { 0 };
        let mut bytes = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        match self.payload.len() {
            len @ 0..=125 => bytes.push(mask_bit | len as u8),
            len @ 126..=0xffff => {
                bytes.push(mask_bit | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(mask_bit | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        if self.masked {
            let key = [0x11, 0x22, 0x33, 0x44];
            bytes.extend(key);
            bytes.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            bytes.extend(&self.payload);
        }
        bytes
    }
}

/// An HTTP answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn parse(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let pair =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        Answer { status: status.unwrap_or(0), headers: lines.filter_map(pair).collect(), body: Vec::new() }
    }
}

/// A connection. Reading gives up (panics) after [`PATIENCE`].
pub struct Raw {
    pub stream: TcpStream,
    buf: Vec<u8>,
}

impl Raw {
    pub fn connect(host: &str, port: u16) -> Self {
        let stream = TcpStream::connect((host, port)).unwrap_or_else(|error| panic!("connect {host}:{port}: {error}"));
        Raw::over(stream)
    }

    /// Takes over an accepted or connected socket.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Raw { stream, buf: Vec::new() }
    }

    /// A WebSocket as any client opens it; panics unless it is accepted.
    pub fn websocket(url: &str) -> Self {
        Raw::websocket_with(url, "").0
    }

    /// With more header lines (each ending in CRLF); also hands out the answer.
    pub fn websocket_with(url: &str, headers: &str) -> (Self, Answer) {
        let (raw, answer) = Raw::ask_websocket(url, headers);
        assert_eq!(answer.status, 101, "upgrade {url}: {answer:?} {}", String::from_utf8_lossy(&raw.buf));
        (raw, answer)
    }

    /// The upgrade and whatever is answered.
    pub fn ask_websocket(url: &str, headers: &str) -> (Self, Answer) {
        let (host, port, path) = split_url(url);
        let mut raw = Raw::connect(&host, port);
        raw.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        ));
        let answer = raw.read_head();
        (raw, answer)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("send");
    }

    /// For peers that may hang up meanwhile.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    pub fn send_frame(&mut self, frame: &Frame) {
        self.send(frame.to_bytes());
    }

    pub fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads until there is more; false at the end of the stream (a reset counts as one).
    fn fill(&mut self) -> bool {
        let mut block = [0; 16 << 10];
        match self.stream.read(&mut block) {
            Ok(n) => {
                self.buf.extend_from_slice(&block[..n]);
                n > 0
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("read: {error} (with {} bytes unread)", self.buf.len()),
        }
    }

    /// An answer's (or a request's) head. Status 0 when the connection ended before it was whole.
    pub fn read_head(&mut self) -> Answer {
        self.read_head_text().map_or_else(Answer::default, |head| Answer::parse(&head))
    }

    /// The head's text with its last blank line.
    pub fn read_head_text(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buf.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buf.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The next frame; `None` when the connection has ended.
    pub fn read_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, len)) = parse_frame(&self.buf) {
                self.buf.drain(..len);
                return Some(frame);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The next data message, pings answered on the way; `None` at a close or the end.
    pub fn read_message(&mut self) -> Option<Frame> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "only control frames for {PATIENCE:?}");
            let frame = self.read_frame()?;
            match frame.opcode {
                TEXT | BINARY => return Some(frame),
                PING => self.send_frame(&Frame::new(PONG, frame.payload)),
                CLOSE => return None,
                _ => {}
            }
        }
    }

    /// Skips everything until the close frame; `None` when the connection ended without one.
    pub fn read_close(&mut self) -> Option<Frame> {
        loop {
            let frame = self.read_frame()?;
            if frame.opcode == CLOSE {
                return Some(frame);
            }
        }
    }

    /// So many bytes, or fewer if the connection ends before.
    pub fn read_exactly(&mut self, len: usize) -> Vec<u8> {
        while self.buf.len() < len && self.fill() {}
        let len = len.min(self.buf.len());
        self.buf.drain(..len).collect()
    }

    /// Everything up to the end of the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buf)
    }

    /// Everything up to and with this text.
    pub fn read_until(&mut self, text: &str) -> String {
        let found = self.read_until_or_end(text);
        found.unwrap_or_else(|| panic!("the stream ended before {text:?}: {}", String::from_utf8_lossy(&self.buf)))
    }

    /// The same; `None` when the connection has ended before it.
    pub fn read_until_or_end(&mut self, text: &str) -> Option<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buf, text.as_bytes()) {
                let bytes: Vec<u8> = self.buf.drain(..at + text.len()).collect();
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }
}

fn parse_frame(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (len, mut at) = match second & 0x7f {
        126 => (u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize, 4),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize, 10),
        len => (len as usize, 2),
    };
    let masked = second & 0x80 != 0;
    let key: [u8; 4] = if masked { *bytes.get(at..)?.first_chunk()? } else { [0; 4] };
    at += if masked { 4 } else { 0 };
    let payload = bytes.get(at..at.checked_add(len)?)?;
    let payload = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    Some((Frame { fin: first & 0x80 != 0, rsv: first >> 4 & 7, opcode: first & 15, masked, payload }, at + len))
}

/// A whole exchange on a connection of its own: request line and header lines as given, then a body.
pub fn request(method: &str, url: &str, headers: &str, body: &[u8]) -> Answer {
    let (host, port, path) = split_url(url);
    let mut raw = Raw::connect(&host, port);
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    raw.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n{length}{headers}\r\n"));
    raw.send(body);
    let mut answer = raw.read_head();
    let rest = raw.read_to_end();
    answer.body = if answer.header("transfer-encoding") == Some("chunked") { unchunked(&rest) } else { rest };
    answer
}

pub fn get(url: &str) -> Answer {
    request("GET", url, "", b"")
}

pub fn post(url: &str, body: impl AsRef<[u8]>) -> Answer {
    request("POST", url, "", body.as_ref())
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let len = usize::from_str_radix(String::from_utf8_lossy(&rest[..end]).trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(end + 2..end + 2 + len).filter(|chunk| !chunk.is_empty()) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + len..).unwrap_or_default();
    }
    body
}

/// A server that a test plays itself.
pub struct Server(TcpListener);

impl Server {
    pub fn new() -> Self {
        Server(TcpListener::bind("localhost:0").expect("a port"))
    }

    /// `localhost:PORT`.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.0.local_addr().expect("an address").port())
    }

    /// The next connection and its request's head.
    pub fn accept(&self) -> (Raw, String) {
        self.0.set_nonblocking(true).expect("non-blocking");
        let (stream, _) = super::eventually("a connection", || self.0.accept().ok());
        stream.set_nonblocking(false).expect("blocking");
        let mut raw = Raw::over(stream);
        let head = raw.read_head_text().expect("a request");
        (raw, head)
    }

    /// Whether nobody has connected since the last connection was accepted.
    pub fn is_untouched(&self) -> bool {
        self.0.set_nonblocking(true).expect("non-blocking");
        matches!(self.0.accept(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The next connection, upgraded; `headers` (each ending in CRLF) go into the answer.
    pub fn accept_websocket(&self, headers: &str) -> (Raw, String) {
        let (mut raw, head) = self.accept();
        let key = header_of(&head, "sec-websocket-key").expect("a key");
        let accept = derive_accept_key(key.as_bytes());
        raw.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{headers}\r\n"
        ));
        (raw, head)
    }

    /// Answers every connection with these bytes, for as long as the test runs.
    pub fn answer_all(self, bytes: impl Into<Vec<u8>>) -> String {
        let (address, bytes) = (self.address(), bytes.into());
        std::thread::spawn(move || {
            for stream in self.0.incoming().flatten() {
                let mut raw = Raw::over(stream);
                let _ = raw.read_head_text().map(|_| raw.try_send(&bytes));
            }
        });
        address
    }
}

/// A header's value in a head's text.
pub fn header_of(head: &str, name: &str) -> Option<String> {
    let found = |line: &&str| line.split(':').next().is_some_and(|known| known.eq_ignore_ascii_case(name));
    head.split("\r\n").find(found).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
}
