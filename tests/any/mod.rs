//! A reader of any protocol over any transport, so that one check can be made of all of them: WebSockets are made of
//! bytes, everything else is read by curl.

mod http;

use super::{
    common::{
        PATIENCE, Running, Wsevent,
        door::{self, Door},
        raw::{self, Answer, BINARY, CLOSE, Frame, PING, PONG, Raw, TEXT},
    },
    link::{Id, Link, Said},
};
use http::{Poll, Stream};
use serde_json::Value;

/// How events are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Protocol {
    WebSocket,
    Link,
    Sse,
    Ndjson,
    /// History, then one long poll after the other.
    Poll,
}

/// What that goes over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transport {
    Plain,
    Tls,
    Http2,
}

/// One column of the table.
#[derive(Clone, Copy, Debug)]
pub struct Way(pub Protocol, pub Transport);

/// A payload as the protocol tells it.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    Text(String),
    Binary(Vec<u8>),
}

/// What a reader hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The payload, and the type where the protocol tells it.
    Event(Payload, Option<String>),
    /// So many events are lost.
    Gap(Option<u64>),
    End(End),
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// A WebSocket was closed with a code and a reason.
    Closed(u16, String),
    /// The answer's body is complete.
    Complete,
    /// curl's exit code.
    Broken(i32),
    /// The next request was answered so.
    Refused(u16),
}

impl Way {
    pub fn is_websocket(self) -> bool {
        matches!(self.0, Protocol::WebSocket | Protocol::Link)
    }

    /// Whether it is a stream of answers rather than one.
    pub fn is_poll(self) -> bool {
        self.0 == Protocol::Poll
    }

    /// Whether events have their types with them.
    pub fn tells_types(self) -> bool {
        !matches!(self.0, Protocol::WebSocket | Protocol::Poll)
    }

    fn accept(self) -> &'static str {
        match self.0 {
            Protocol::Sse => "text/event-stream",
            Protocol::Ndjson => "application/x-ndjson",
            _ => "application/json",
        }
    }
}

/// A hub that is read in one way.
pub struct Server {
    pub running: Running,
    pub way: Way,
    /// Plain, or a door in front of TLS.
    pub url: String,
    /// The header lines of whoever publishes.
    pub publisher: String,
}

impl Server {
    pub fn new(way: Way, options: &str) -> Self {
        Server::of(way, Wsevent::line(&format!("--no-produce {options}")))
    }

    pub fn of(way: Way, line: Wsevent) -> Self {
        let line = if way.1 == Transport::Plain { line } else { line.args(door::args()) };
        let running = line.serve();
        let url = match running.url().starts_with("https:") {
            true => format!("http://localhost:{}/events", Door::open(running.port()).port),
            false => running.url().to_owned(),
        };
        Server { running, way, url, publisher: String::new() }
    }

    /// Publishes one event and says what it is called.
    pub fn publish(&self, payload: impl AsRef<[u8]>) -> String {
        self.publish_with("", "", payload)
    }

    /// With a query string (`?room=a`) and header lines.
    pub fn publish_with(&self, query: &str, headers: &str, payload: impl AsRef<[u8]>) -> String {
        let headers = format!("{headers}{}", self.publisher);
        let answer = raw::request("POST", &format!("{}{query}", self.url), &headers, payload.as_ref());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        answer["id"].as_str().unwrap_or_else(|| panic!("an id: {answer}")).to_owned()
    }

    pub fn publish_all(&self, payloads: &[&str]) -> Vec<String> {
        payloads.iter().map(|payload| self.publish(payload)).collect()
    }

    /// What every id begins with.
    pub fn epoch(&self) -> String {
        let next = self.topic()["next"].as_str().expect("an id").to_owned();
        next[..=next.rfind('-').expect("a number")].to_owned()
    }

    /// What `/-/status` says about the topic.
    pub fn topic(&self) -> Value {
        let own = self.url.replace("/events", "/-/status");
        let answer = raw::request("GET", &own, &self.publisher, b"");
        let status: Value = serde_json::from_slice(&answer.body).expect("JSON");
        status["topics"][0].clone()
    }

    /// curl's command line for one request.
    fn curl(&self, query: &str, headers: &str, accept: &str) -> Wsevent {
        let url = if self.running.url().starts_with("https:") { self.running.url() } else { &self.url };
        let [_, certificate, ..] = if self.way.1 == Transport::Plain { Default::default() } else { door::args() };
        let http2 = if self.way.1 == Transport::Http2 { "--http2" } else { "--http1.1" };
        let mut curl = Wsevent::program("curl").args(["-sSNgD-", "-m", &PATIENCE.as_secs().to_string(), http2]);
        if !certificate.is_empty() {
            curl = curl.args(["--cacert", &certificate]);
        }
        for header in headers.split("\r\n").filter(|header| !header.is_empty()) {
            curl = curl.args(["-H", header]);
        }
        curl.args(["-H", &format!("Accept: {accept}")]).arg(format!("{url}{query}"))
    }

    /// A reader from now on.
    pub fn read(&self) -> Reader {
        self.read_from("")
    }

    /// With a query string.
    pub fn read_from(&self, query: &str) -> Reader {
        self.try_read(query, "").unwrap_or_else(|answer| panic!("{:?} {query}: {answer:?}", self.way))
    }

    /// # Errors
    /// The refusal.
    pub fn try_read(&self, query: &str, headers: &str) -> Result<Reader, Answer> {
        let url = format!("{}{query}", self.url);
        let inner = match self.way.0 {
            Protocol::WebSocket => {
                let (mut raw, answer) = Raw::ask_websocket(&url, headers);
                match answer.status {
                    101 => Inner::WebSocket(raw),
                    _ => return Err(Answer { body: raw.read_to_end(), ..answer }),
                }
            }
            Protocol::Link => match Link::try_open(&url, headers) {
                Ok(link) => Inner::Link(Box::new(link)),
                // Its refusal's body is the same as a plain one's.
                Err(_) => {
                    let (mut raw, answer) = Raw::ask_websocket(&url, headers);
                    return Err(Answer { body: raw.read_to_end(), ..answer });
                }
            },
            Protocol::Sse | Protocol::Ndjson => {
                let mut stream = Stream::open(self.curl(query, headers, self.way.accept()));
                let head = stream.head();
                match head.status {
                    200 => Inner::Stream(stream),
                    _ => return Err(Answer { body: stream.rest(), ..head }),
                }
            }
            Protocol::Poll => {
                let (poll, position) = Poll::open(self, query, headers)?;
                return Ok(Reader { way: self.way, inner: Inner::Poll(poll), position, said_retry: false });
            }
        };
        Ok(Reader { way: self.way, inner, position: None, said_retry: false })
    }
}

enum Inner {
    WebSocket(Raw),
    Link(Box<Link>),
    Stream(Stream),
    Poll(Poll),
}

/// See the module's text.
pub struct Reader {
    way: Way,
    inner: Inner,
    position: Option<String>,
    /// An event stream was told how soon to come back.
    said_retry: bool,
}

impl Reader {
    /// The next event, gap or end.
    pub fn next(&mut self) -> Heard {
        let position = &mut self.position;
        match &mut self.inner {
            Inner::WebSocket(raw) => next_of_websocket(raw, position),
            Inner::Link(link) => next_of_link(link, position),
            Inner::Stream(stream) if self.way.0 == Protocol::Sse => stream.next_block(position, &mut self.said_retry),
            Inner::Stream(stream) => stream.next_line(position),
            Inner::Poll(poll) => poll.next(position),
        }
    }

    /// The next event's payload; panics at anything else.
    pub fn payload(&mut self) -> Payload {
        match self.next() {
            Heard::Event(payload, _) => payload,
            other => panic!("{:?}: no event: {other:?}", self.way),
        }
    }

    pub fn text(&mut self) -> String {
        match self.payload() {
            Payload::Text(text) => text,
            other => panic!("{:?}: no text: {other:?}", self.way),
        }
    }

    pub fn texts(&mut self, n: usize) -> Vec<String> {
        (0..n).map(|_| self.text()).collect()
    }

    /// Where it stands. A plain WebSocket hears that with the keep-alive only.
    pub fn position(&mut self) -> String {
        if let Inner::WebSocket(raw) = &mut self.inner {
            let before = self.position.take();
            while self.position.is_none() || self.position == before {
                take_frame(raw, &mut self.position);
            }
        }
        self.position.clone().expect("a position")
    }

    /// How the stream ends, and whatever was heard before.
    pub fn end(&mut self) -> (Vec<Heard>, End) {
        let mut before = Vec::new();
        loop {
            match self.next() {
                Heard::End(end) => return (before, end),
                heard => before.push(heard),
            }
        }
    }

    /// An event stream's hint how soon to come back.
    pub fn said_retry(&self) -> bool {
        self.said_retry
    }

    /// Reads nothing until [`Reader::go_on`].
    pub fn pause(&self) {
        if let Inner::Stream(stream) = &self.inner {
            stream.curl.signal("STOP");
        }
    }

    pub fn go_on(&self) {
        if let Inner::Stream(stream) = &self.inner {
            stream.curl.signal("CONT");
        }
    }
}

fn payload_of(text: bool, bytes: Vec<u8>) -> Payload {
    if text { Payload::Text(String::from_utf8(bytes).expect("UTF-8")) } else { Payload::Binary(bytes) }
}

fn next_of_websocket(raw: &mut Raw, position: &mut Option<String>) -> Heard {
    loop {
        if let Some(heard) = take_frame(raw, position) {
            return heard;
        }
    }
}

fn take_frame(raw: &mut Raw, position: &mut Option<String>) -> Option<Heard> {
    let Some(frame) = raw.read_frame() else { return Some(Heard::End(End::Broken(0))) };
    match frame.opcode {
        TEXT | BINARY => return Some(Heard::Event(payload_of(frame.opcode == TEXT, frame.payload), None)),
        CLOSE => {
            let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default()).into_owned();
            return Some(Heard::End(End::Closed(frame.close_code(), reason)));
        }
        PING => {
            let text = frame.text();
            let words: Vec<&str> = text.split(' ').collect();
            let _ = raw.try_send(Frame::new(PONG, frame.payload).to_bytes());
            match words[..] {
                ["p", next, ..] => *position = Some(Id::read(next).before().to_string()),
                ["g", .., count] => return Some(Heard::Gap(count.parse().ok())),
                _ => {}
            }
        }
        _ => {}
    }
    None
}

fn next_of_link(link: &mut Link, position: &mut Option<String>) -> Heard {
    let mut said = link.news();
    if let Said::End(last) = &said {
        link.keep(last);
        said = link.news();
    }
    match said {
        Said::Event { id, attrs, .. } => {
            *position = Some(id.to_string());
            let attrs: Value = attrs.map_or(Value::Null, |attrs| serde_json::from_str(&attrs).expect("JSON"));
            let payload = payload_of(link.message.opcode == TEXT, link.message.payload.clone());
            Heard::Event(payload, attrs["type"].as_str().map(String::from))
        }
        Said::Gap { to, count, .. } => {
            *position = Some(to.to_string());
            Heard::Gap(count)
        }
        Said::Close(code, reason) => Heard::End(End::Closed(code, reason)),
        Said::Gone => Heard::End(End::Broken(0)),
        said => panic!("{said:?}"),
    }
}

/// A query string's value for a JSON text.
pub fn quoted(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
