//! What carries the source's events: lines on standard output, messages of a WebSocket or a broker, or one POST each.

use super::{
    broker,
    open::{Opened, Target},
    wire::Wire,
};
use crate::{
    net::{Io, plain_words},
    proto::ws::frame::{code, op, put_masked},
    source::http::plain,
    stdio,
};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{cell::RefCell, io, rc::Rc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    task::spawn_local,
};
use url::{Position, Url};

/// Bytes that are collected before a write.
const WRITE: usize = 64 << 10;

/// The reason for which a source's events are not taken.
#[derive(Debug)]
pub enum Untaken {
    /// The reader of standard output has gone, as `head` does: an end like any other.
    HungUp,
    /// Something went wrong.
    Failed(String),
}

impl From<String> for Untaken {
    fn from(why: String) -> Self {
        Untaken::Failed(why)
    }
}

/// See the module's text.
pub enum Sink {
    /// For `wsevent --produce -`.
    Lines(BytesMut),
    /// To a topic whose peers may publish.
    Messages(WriteHalf<Box<dyn Io>>, Rc<RefCell<BytesMut>>),
    /// To a broker's topic.
    Broker(WriteHalf<Box<dyn Io>>, Rc<RefCell<BytesMut>>, Wire, String),
    /// The same, one by one.
    Posts(Poster),
}

/// A connection that is kept, and what each request says.
pub struct Poster {
    sender: http1::SendRequest<Full<Bytes>>,
    url: Url,
    headers: Vec<(String, String)>,
}

impl Sink {
    /// Standard output.
    pub fn lines() -> Self {
        Sink::Lines(BytesMut::with_capacity(2 * WRITE))
    }

    /// Connects.
    ///
    /// # Errors
    /// Why nothing can be published there.
    pub async fn open(target: &Target) -> Result<Self, String> {
        if target.is_websocket() || target.broker().is_some() {
            let Opened { io, rest, wire, .. } = target.open_to_publish().await?;
            let (reads, writes) = tokio::io::split(io);
            let out = Rc::new(RefCell::new(BytesMut::with_capacity(2 * WRITE)));
            spawn_local(drain(wire, reads, rest, out.clone()));
            return Ok(match target.broker() {
                Some(wire) => Sink::Broker(writes, out, wire, target.topic().to_owned()),
                None => Sink::Messages(writes, out),
            });
        }
        let url = plain(&target.url);
        let io = target.dialer.dial(&url).await.map_err(|error| plain_words(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|error| error.to_string())?;
        spawn_local(async move { drop(connection.await) });
        let headers = target.credentials.lines(&url).map_err(|error| error.to_string())?;
        Ok(Sink::Posts(Poster { sender, url, headers }))
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn put(&mut self, payload: &[u8]) -> Result<(), Untaken> {
        let full = match self {
            Sink::Lines(out) => {
                out.extend_from_slice(payload);
                out.extend_from_slice(b"\n");
                out.len() >= WRITE
            }
            Sink::Messages(_, out) => {
                put_masked(&mut out.borrow_mut(), op::TEXT, payload, rand::random());
                out.borrow().len() >= WRITE
            }
            Sink::Broker(_, out, wire, topic) => {
                broker::put(*wire, &mut out.borrow_mut(), topic, payload);
                out.borrow().len() >= WRITE
            }
            Sink::Posts(poster) => return Ok(poster.post(payload).await?),
        };
        if full { self.flush().await } else { Ok(()) }
    }

    /// Nothing is held back behind this.
    ///
    /// # Errors
    /// What does not take it any more.
    pub async fn flush(&mut self) -> Result<(), Untaken> {
        let done = match self {
            Sink::Lines(out) if !out.is_empty() => stdio::print_aside(out.split()).await,
            Sink::Messages(writes, out) | Sink::Broker(writes, out, ..) => {
                let bytes = out.borrow_mut().split();
                writes.write_all(&bytes).await
            }
            Sink::Lines(_) | Sink::Posts(_) => Ok(()),
        };
        done.map_err(|error| match (self, error.kind()) {
            (Sink::Lines(_), io::ErrorKind::BrokenPipe) => Untaken::HungUp,
            _ => Untaken::Failed(format!("publish: {}", plain_words(&error))),
        })
    }

    /// Says that this was all.
    ///
    /// # Errors
    /// What does not take it any more.
    pub async fn finish(&mut self) -> Result<(), Untaken> {
        if let Sink::Messages(_, out) = self {
            put_masked(&mut out.borrow_mut(), op::CLOSE, &code::DONE.to_be_bytes(), rand::random());
        }
        self.flush().await
    }
}

/// Whoever publishes on a WebSocket hears what is published: it is read, and pings are answered with the next events.
async fn drain(wire: Wire, mut reads: ReadHalf<Box<dyn Io>>, mut buf: BytesMut, answers: Rc<RefCell<BytesMut>>) {
    loop {
        let Ok(read) = wire.read(&buf, &mut |_| {}, &mut answers.borrow_mut()) else { return };
        let _ = buf.split_to(read.len);
        buf.reserve(WRITE);
        if read.end.is_some() || !matches!(reads.read_buf(&mut buf).await, Ok(1..)) {
            return;
        }
    }
}

impl Poster {
    async fn post(&mut self, payload: &[u8]) -> Result<(), String> {
        let words = |error: &dyn std::fmt::Display| format!("publish: {error}");
        let mut request = Request::post(&self.url[Position::BeforePath..Position::AfterQuery])
            .header(header::HOST, &self.url[Position::BeforeHost..Position::AfterPort])
            .header(header::CONTENT_TYPE, "text/plain");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(payload))).map_err(|error| words(&error))?;
        self.sender.ready().await.map_err(|error| words(&error))?;
        let response = self.sender.send_request(request).await.map_err(|error| words(&error))?;
        let status = response.status();
        response.into_body().collect().await.map_err(|error| words(&error))?;
        if status.is_success() { Ok(()) } else { Err(words(&format!("the server answered {status}"))) }
    }
}
