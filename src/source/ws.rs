//! A WebSocket upstream: a link of ours, or any server's stream.

use super::{
    credentials::with_typed,
    feed::Feed,
    upstream::{Answer, Failure, Opened, Upstream},
};
use crate::{
    event::{Attrs, Event, MAX_BATCH, Run},
    id::Id,
    link::{self, EXPIRED, GoAway, Signal, with_since},
    log::Gap,
    net::Io,
    proto::ws::{
        assemble::{Assembler, Got},
        deflate::{self, Inflater},
        frame::{Stretch, code, masked, op, scan},
    },
    units::now_ms,
};
use bytes::{Bytes, BytesMut};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

/// What is offered to one read, at first and at most.
const LEAST_READ: usize = 16 << 10;
const MOST_READ: usize = 256 << 10;
/// An answer's head at most.
const MAX_HEAD: usize = 32 << 10;
/// Between two `k`, so that acknowledgements cost nothing per event.
const KEEP_PACE: Duration = Duration::from_millis(20);

/// Connects and reads until the connection ends; `Ok` means that the stream has.
///
/// # Errors
/// Why it ended otherwise.
pub async fn consume(upstream: &Upstream, feed: &mut Feed, on_open: &mut (dyn FnMut() + Send)) -> Result<(), Failure> {
    let mut io = upstream.dialer.dial(&upstream.url).await?;
    let shake = tokio::time::timeout(upstream.dialer.timeout, shake_hands(upstream, feed, &mut io));
    let (Shaken { answer, is_link, inflater, .. }, rest) =
        shake.await.map_err(|_| Failure::lost(&"no answer to the handshake"))??;
    let opened = Answer { ours: is_link && feed.trusts_ids(), ..answer }.apply(upstream, feed)?;
    on_open();
    let mut session = Session::new(upstream, feed, io, opened);
    session.inbound = session.inbound.inflating(inflater);
    session.inbound.buf = rest;
    session.run().await
}

/// What the answer's head says.
struct Shaken {
    answer: Answer,
    is_link: bool,
    inflater: Option<Inflater>,
    /// Bytes of the head.
    len: usize,
}

/// With what came behind the answer's head.
async fn shake_hands(upstream: &Upstream, feed: &Feed, io: &mut Box<dyn Io>) -> Result<(Shaken, BytesMut), Failure> {
    let key = generate_key();
    io.write_all(request(upstream, feed, &key)?.as_bytes()).await?;
    let mut buf = BytesMut::with_capacity(4096);
    loop {
        if let Some(shaken) = parse_answer(&buf, &key, upstream, feed)? {
            let rest = buf.split_off(shaken.len);
            return Ok((shaken, rest));
        }
        if buf.len() > MAX_HEAD {
            return Err(Failure::NoStream("the answer's head is too large".into()));
        }
        if io.read_buf(&mut buf).await? == 0 {
            return Err(Failure::lost(&"closed in the handshake"));
        }
    }
}

fn request(upstream: &Upstream, feed: &Feed, key: &str) -> io::Result<String> {
    let url = with_since(&upstream.url, feed.since().as_ref());
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut ours = vec![
        ("Host", host.to_owned()),
        ("Upgrade", "websocket".into()),
        ("Connection", "Upgrade".into()),
        ("Sec-WebSocket-Key", key.to_owned()),
        ("Sec-WebSocket-Version", "13".into()),
        ("Sec-WebSocket-Protocol", link::SUBPROTOCOL.into()),
        (link::INSTANCE_HEADER, upstream.reader_name()),
        (link::MAX_MESSAGE_HEADER, upstream.max_message.to_string()),
    ];
    if upstream.deflate {
        ours.push(("Sec-WebSocket-Extensions", deflate::EXTENSION.into()));
    }
    let mut text = format!("GET {target} HTTP/1.1\r\n");
    for (name, value) in with_typed(ours, upstream.credentials.lines(&upstream.url)?) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    Ok(text)
}

/// `None` when the head is not whole yet.
fn parse_answer(bytes: &[u8], key: &str, upstream: &Upstream, feed: &Feed) -> Result<Option<Shaken>, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        // A TLS record of type alert (RFC 8446 §5.1).
        Err(_) if bytes.starts_with(&[21, 3]) => {
            return Err(Failure::NoStream("there is TLS there (wss:// instead?)".into()));
        }
        Err(error) => return Err(Failure::NoStream(format!("the answer is not HTTP: {error}"))),
    };
    let get = |name: &str| {
        let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
    };
    let status = response.code.unwrap_or(0);
    if status != 101 {
        Answer::read(get).check_path(upstream, feed)?;
        return Err(super::http::refusal(status, response.reason.unwrap_or(""), get("retry-after")));
    }
    if get("sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err(Failure::NoStream("Sec-WebSocket-Accept does not fit the key".into()));
    }
    let inflater = match get("sec-websocket-extensions").filter(|extensions| !extensions.is_empty()) {
        Some(chosen) if upstream.deflate => Some(Inflater::agreed(chosen).map_err(Failure::NoStream)?),
        Some(_) => return Err(Failure::NoStream("the server chose an extension that was not offered".into())),
        None => None,
    };
    let is_link = get("sec-websocket-protocol") == Some(link::SUBPROTOCOL);
    Ok(Some(Shaken { answer: Answer::read(get), is_link, inflater, len }))
}

/// Where the next message stands, by the last `p`.
#[derive(Clone, Debug)]
struct Position {
    next: Id,
    ms: u64,
    told: Instant,
}

impl Position {
    /// The origin's time of the `p` plus local elapsed time, so that it rises (LINKS 9).
    fn time(&self) -> u64 {
        self.ms.saturating_add(self.told.elapsed().as_millis() as u64)
    }
}

/// How many bytes to offer to the next read: more while they are taken, so that little of what is read must be moved
/// because it ends within a message; fewer where they are not.
struct Appetite(usize);

impl Appetite {
    fn make_room(&self, buf: &mut BytesMut) {
        if buf.capacity() - buf.len() < self.0 / 4 {
            buf.reserve(self.0);
        }
    }

    fn took(&mut self, n: usize) {
        if n > self.0 / 2 {
            self.0 = MOST_READ.min(self.0 * 2);
        } else if n < self.0 / 8 {
            self.0 = LEAST_READ.max(self.0 / 2);
        }
    }
}

struct Session<'a> {
    upstream: &'a Upstream,
    feed: &'a mut Feed,
    io: Box<dyn Io>,
    inbound: Assembler,
    appetite: Appetite,
    /// Ids are ours, as long as positions come.
    is_link: bool,
    position: Option<Position>,
    /// The newest event's.
    time: u64,
    /// Data messages received, attributes not counted (LINKS 10).
    count: u64,
    attrs: Option<Option<Arc<Attrs>>>,
    /// Confirmed by a `p`: nothing up to here is missing.
    sure: Option<Id>,
    ended: bool,
    /// The upstream waits for our `k`.
    blocks: bool,
    kept: Option<Id>,
    /// When the last `k` was sent, and whether another may be due.
    kept_at: tokio::time::Instant,
    keep_due: bool,
}

impl<'a> Session<'a> {
    fn new(upstream: &'a Upstream, feed: &'a mut Feed, io: Box<dyn Io>, opened: Opened) -> Self {
        Session {
            upstream,
            feed,
            io,
            inbound: Assembler::new(false, upstream.max_message),
            appetite: Appetite(LEAST_READ),
            is_link: opened.ours,
            position: None,
            time: 0,
            count: 0,
            attrs: None,
            sure: None,
            ended: false,
            blocks: opened.ours && opened.blocks,
            kept: None,
            kept_at: tokio::time::Instant::now(),
            keep_due: opened.blocks,
        }
    }

    async fn run(&mut self) -> Result<(), Failure> {
        let mut acks = self.feed.topic.log.watch_acks();
        let (mut asked, mut busy) = (false, false);
        loop {
            self.take_buffered().await?;
            if std::mem::take(&mut busy) {
                // That was work for a moment: others have their turn.
                tokio::task::yield_now().await;
            }
            self.appetite.make_room(&mut self.inbound.buf);
            let quiet = self.upstream.idle_timeout.map_or(Duration::from_secs(3600), |idle| idle / 2);
            tokio::select! {
                read = tokio::time::timeout(quiet, self.io.read_buf(&mut self.inbound.buf)) => match read {
                    Ok(Ok(0)) => return Err(Failure::lost(&"closed without a close frame")),
                    Ok(Ok(n)) => {
                        self.appetite.took(n);
                        busy = n > MOST_READ / 4;
                        asked = false;
                        self.keep_due = self.blocks;
                    }
                    Ok(Err(error)) => return Err(error.into()),
                    Err(_) if asked => return Err(Failure::lost(&"silent for too long")),
                    Err(_) => {
                        asked = self.upstream.idle_timeout.is_some();
                        self.send(op::PING, b"").await?;
                    }
                },
                _ = acks.changed(), if self.blocks => self.keep_due = true,
                () = tokio::time::sleep_until(self.kept_at + KEEP_PACE), if self.keep_due => self.tell_kept().await?,
            }
        }
    }

    /// `k`: nobody at or behind us needs anything up to here (LINKS 10).
    async fn tell_kept(&mut self) -> Result<(), Failure> {
        self.keep_due = false;
        self.kept_at = tokio::time::Instant::now();
        match self.feed.settled() {
            Some(id) if self.kept.as_ref() != Some(&id) => {
                self.send(op::PING, Signal::Keep(id.clone()).to_text().as_bytes()).await?;
                self.kept = Some(id);
            }
            _ => {}
        }
        Ok(())
    }

    async fn send(&mut self, op: u8, payload: &[u8]) -> Result<(), Failure> {
        let frame = masked(op, payload, rand::random());
        let sent = tokio::time::timeout(self.upstream.dialer.timeout, self.io.write_all(&frame)).await;
        // What was said before a connection broke still counts: reading tells how it ended.
        let _ = sent.map_err(|_| Failure::lost(&"the upstream does not read"))?;
        Ok(())
    }

    /// Everything that is whole: runs of plain messages as they are, the rest frame by frame.
    async fn take_buffered(&mut self) -> Result<(), Failure> {
        loop {
            if self.attrs.is_none() && !self.inbound.is_inside_message() && !self.upstream.echo {
                let stretch = self.plain_stretch();
                if stretch.count > 0 {
                    let topic = self.feed.topic.clone();
                    topic.log.room().await;
                    if topic.log.vitals().is_some() {
                        let (run, first) = self.take_run(&stretch);
                        self.feed.run_with_patience(run, first).await;
                    } else {
                        topic.log.at_once(|| self.take_runs(stretch));
                    }
                    continue;
                }
            }
            match self.inbound.next() {
                Ok(None) => return Ok(()),
                Ok(Some(got)) => self.take(got).await?,
                Err(fault) if self.is_link && self.inbound.refuse(&fault) => self.refuse(fault.reason).await,
                Err(fault) => {
                    let _ = self.close(fault.code, fault.reason).await;
                    if self.inbound.refuse(&fault) {
                        self.feed.refuse(None, fault.reason).await;
                    }
                    return Err(Failure::lost(&fault));
                }
            }
        }
    }

    /// The number of the next message; a link without positions is an upstream without ids (design section 4).
    fn number(&mut self, count: usize) -> Option<(Id, u64)> {
        self.count += count as u64;
        if self.is_link && self.position.is_none() {
            tracing::warn!("no position before the first message: something between us answers pings itself");
            self.is_link = false;
            self.feed.lose_ids(false);
        }
        let position = self.position.as_mut().filter(|_| self.is_link)?;
        let first = position.next.clone();
        position.next.seq = crate::id::Seq::whole(first.seq.n + count as u64);
        // Clamped, so that it rises (LINKS 9).
        self.time = self.time.max(position.time());
        Some((first, self.time))
    }

    fn plain_stretch(&self) -> Stretch {
        scan(&self.inbound.buf, MAX_BATCH, self.upstream.max_message)
    }

    /// What is plain at the front, as batches: as many as there is room for, and one where each of them may take a while.
    fn take_runs(&mut self, mut stretch: Stretch) {
        let goes_on = self.feed.topic.takes_at_once();
        while stretch.count > 0 {
            let (run, first) = self.take_run(&stretch);
            self.feed.run(run, first);
            if !goes_on || !self.feed.topic.log.has_room() {
                return;
            }
            stretch = self.plain_stretch();
        }
    }

    fn take_run(&mut self, stretch: &Stretch) -> (Run, Option<(Id, u64)>) {
        let run = Run::from_frames(self.inbound.buf.split_to(stretch.len).freeze(), stretch.count);
        let first = self.number(run.len());
        (run, first)
    }

    async fn take(&mut self, got: Got) -> Result<(), Failure> {
        match got {
            Got::Message { text, payload } => self.take_message(text, payload).await,
            Got::Ping(payload) => {
                self.send(op::PONG, &payload).await?;
                match Signal::parse(&payload) {
                    Some(signal) if self.is_link => self.take_signal(signal).await,
                    _ => Ok(()),
                }
            }
            Got::Pong(_) => Ok(()),
            Got::Close(code, reason) => Err(self.take_close(code, &reason).await),
        }
    }

    async fn take_message(&mut self, text: bool, payload: Bytes) -> Result<(), Failure> {
        let echo = self.upstream.echo.then(|| payload.clone());
        self.take_data(text, payload).await;
        // Behind the event, which counts also where nobody takes the echo.
        match echo {
            Some(payload) => self.send(if text { op::TEXT } else { op::BINARY }, &payload).await,
            None => Ok(()),
        }
    }

    async fn take_data(&mut self, text: bool, payload: Bytes) {
        // What follows an `a` is the attributes, then the event (LINKS 12).
        if self.attrs == Some(None) {
            let attrs = Attrs::from_json(&payload).unwrap_or_default();
            self.attrs = Some(Some(Arc::new(attrs)));
            return;
        }
        let attrs = self.attrs.take().flatten();
        let first = self.number(1);
        let time = first.as_ref().map_or_else(now_ms, |(_, time)| *time);
        self.feed.events(vec![(first.map(|(id, _)| id), Event { payload, text, attrs })], time).await;
    }

    async fn take_signal(&mut self, signal: Signal) -> Result<(), Failure> {
        match signal {
            Signal::Position { next, ms, n } => return self.take_position(next, ms, n).await,
            Signal::Gap { from, to, count } => {
                tracing::warn!(%from, %to, count, "upstream tells a gap");
                let (next, ms) = (Id { seq: to.seq.after(), ..to.clone() }, now_ms());
                self.position = Some(Position { next, ms, told: Instant::now() });
                self.feed.gap(Gap { from, to, count, reason: "told by the upstream".into() }).await;
            }
            Signal::Attributes(_) => self.attrs = Some(None),
            Signal::End(_) => {
                self.ended = true;
                self.feed.end();
                self.keep_due = self.blocks;
            }
            Signal::PathChanged => return Err(Failure::Moved),
            Signal::Keep(_) => {}
        }
        Ok(())
    }

    /// LINKS 11: the count must fit and the id must not go back, or something between us shifted the numbers.
    async fn take_position(&mut self, next: Id, ms: u64, n: u64) -> Result<(), Failure> {
        let back = self.feed.position().is_some_and(|last| last.epoch == next.epoch && next.seq <= last.seq);
        if n != self.count || back {
            let _ = self.close(code::PROTOCOL, "positions do not fit").await;
            self.feed.misfit(self.sure.take());
            return Err(Failure::Lost(
                format!("positions do not fit: {n} messages told, {} received", self.count),
                None,
            ));
        }
        let sure = Id { seq: next.seq.before(), ..next.clone() };
        self.feed.advance(sure.clone());
        self.sure = Some(sure);
        self.position = Some(Position { next, ms, told: Instant::now() });
        Ok(())
    }

    /// A message was refused: its place becomes a gap (LINKS 17). Of announced attributes only they are lost.
    async fn refuse(&mut self, reason: &str) {
        if self.attrs == Some(None) {
            self.attrs = Some(Some(Arc::default()));
            return;
        }
        self.attrs = None;
        let id = self.number(1).map(|(id, _)| id);
        self.feed.refuse(id, reason).await;
    }

    async fn close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        let frame = masked(op::CLOSE, &payload, rand::random());
        let _ = tokio::time::timeout(Duration::from_secs(1), self.io.write_all(&frame)).await;
        self.io.shutdown().await
    }

    async fn take_close(&mut self, code: u16, reason: &str) -> Failure {
        let _ = self.close(if code == code::NO_STATUS { code::DONE } else { code }, "").await;
        match (code, GoAway::parse(reason)) {
            // Another server's close is the end for a consumer; a hop's readers stay for what may come.
            (code::DONE, _) if self.ended || (!self.is_link && self.upstream.terminal) => Failure::Ended,
            // The token file may hold the next one by now.
            (code::POLICY, _) if reason == EXPIRED => Failure::Lost(format!("closed by the server: {EXPIRED}"), None),
            (code::POLICY, _) => Failure::Refused(format!("closed by the server: {code} {reason}")),
            (_, Some(GoAway::Retry(ms))) => Failure::Lost("not ready yet".into(), Some(Duration::from_millis(ms))),
            _ => Failure::Lost(format!("closed by the server: {code} {reason}"), None),
        }
    }
}
