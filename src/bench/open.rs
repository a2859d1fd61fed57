//! From a URL to a stream: one request, and what its answer promises.

use super::{body::Body, broker, wire::Wire};
use crate::{
    net::{Dialer, Io, plain_words},
    source::{
        credentials::{Credentials, with_typed},
        http::plain,
    },
};
use bytes::BytesMut;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use url::{Position, Url};

/// An answer's head at most.
const MAX_HEAD: usize = 32 << 10;

/// What is opened, and what is shown about us.
#[derive(Clone)]
pub struct Target {
    /// `ws`, `wss`, `http`, `https`, or one of the latter behind `sse+` or `ndjson+`; `nats` or `mqtt` with a port.
    pub url: Url,
    /// What the server is shown.
    pub credentials: Credentials,
    /// How it is reached.
    pub dialer: Dialer,
}

/// A stream whose head was read.
pub struct Opened {
    /// The connection.
    pub io: Box<dyn Io>,
    /// How events come.
    pub wire: Wire,
    /// What is around them.
    pub body: Body,
    /// What came behind the head.
    pub rest: BytesMut,
}

/// What an answer's head says.
struct Answer {
    wire: Wire,
    body: Body,
    len: usize,
}

impl Target {
    /// Connects and asks for the stream.
    ///
    /// # Errors
    /// Why there is none, in words that are the same for all readers.
    pub async fn open(&self) -> Result<Opened, String> {
        self.open_as(true).await
    }

    /// The same for a publisher, who reads what comes back; a broker is not asked for the topic.
    ///
    /// # Errors
    /// As [`Target::open`].
    pub async fn open_to_publish(&self) -> Result<Opened, String> {
        self.open_as(false).await
    }

    async fn open_as(&self, reads: bool) -> Result<Opened, String> {
        let wait = self.dialer.timeout;
        let mut io = self.dialer.dial(&plain(&self.url)).await.map_err(|error| plain_words(&error))?;
        let asked = tokio::time::timeout(wait, self.ask(&mut io, reads)).await;
        let (answer, rest) = asked.unwrap_or_else(|_| Err("no answer in time".into()))?;
        Ok(Opened { io, wire: answer.wire, body: answer.body, rest })
    }

    async fn ask(&self, io: &mut Box<dyn Io>, reads: bool) -> Result<(Answer, BytesMut), String> {
        let key = self.is_websocket().then(generate_key);
        let words = |error: io::Error| plain_words(&error);
        let hello = match self.broker() {
            Some(wire) => broker::hello(wire, self.topic(), reads).to_vec(),
            None => self.request(key.as_deref()).map_err(words)?.into_bytes(),
        };
        io.write_all(&hello).await.map_err(words)?;
        let mut buf = BytesMut::with_capacity(1024);
        loop {
            let answer = match self.broker() {
                Some(wire) => broker::answer(wire, &buf, reads)?.map(|len| Answer { wire, body: Body::Plain, len }),
                None => parse(&buf, key.as_deref())?,
            };
            if let Some(answer) = answer {
                let rest = buf.split_off(answer.len);
                return Ok((answer, rest));
            }
            if buf.len() > MAX_HEAD {
                return Err("the answer's head is too large".into());
            }
            if io.read_buf(&mut buf).await.map_err(words)? == 0 {
                return Err("closed in the handshake".into());
            }
        }
    }

    /// How it speaks, if it is a broker.
    pub fn broker(&self) -> Option<Wire> {
        broker::of(self.url.scheme())
    }

    /// What a broker calls the topic.
    pub fn topic(&self) -> &str {
        self.url.path().trim_start_matches('/')
    }

    /// Whether it speaks WebSocket.
    pub fn is_websocket(&self) -> bool {
        matches!(self.url.scheme(), "ws" | "wss")
    }

    fn request(&self, key: Option<&str>) -> io::Result<String> {
        let url = plain(&self.url);
        let mut ours = vec![("Host", url[Position::BeforeHost..Position::AfterPort].to_owned())];
        match key {
            Some(key) => ours.extend([
                ("Upgrade", "websocket".into()),
                ("Connection", "Upgrade".into()),
                ("Sec-WebSocket-Key", key.to_owned()),
                ("Sec-WebSocket-Version", "13".into()),
            ]),
            None => ours.push(("Accept", self.accepted().into())),
        }
        let mut text = format!("GET {} HTTP/1.1\r\n", &url[Position::BeforePath..Position::AfterQuery]);
        for (name, value) in with_typed(ours, self.credentials.lines(&self.url)?) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        Ok(text)
    }

    fn accepted(&self) -> &'static str {
        match self.url.scheme().split_once('+') {
            Some(("sse", _)) => "text/event-stream",
            Some(("ndjson", _)) => "application/x-ndjson",
            _ => "text/event-stream, application/x-ndjson;q=0.5",
        }
    }
}

/// `None` when the head is not whole yet.
fn parse(bytes: &[u8], key: Option<&str>) -> Result<Option<Answer>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("the answer is not HTTP: {error}")),
    };
    let get = |name: &str| {
        let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
    };
    let (status, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or(""));
    if status != if key.is_some() { 101 } else { 200 } {
        return Err(format!("the server answered {status} {reason}").trim_end().to_owned());
    }
    if let Some(key) = key {
        let fits = get("sec-websocket-accept") == Some(&derive_accept_key(key.as_bytes()));
        return match fits {
            true => Ok(Some(Answer { wire: Wire::Ws, body: Body::Plain, len })),
            false => Err("Sec-WebSocket-Accept does not fit the key".into()),
        };
    }
    let kind = get("content-type").unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let wire = match kind.as_str() {
        "text/event-stream" => Wire::Sse,
        "application/x-ndjson" | "application/jsonl" => Wire::Ndjson,
        other => return Err(format!("the answer is `{other}`, not a stream of events")),
    };
    Ok(Some(Answer { wire, body: Body::of(get("transfer-encoding")), len }))
}
