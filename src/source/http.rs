//! An HTTP upstream: Server-Sent Events or NDJSON.

use super::{
    credentials::with_typed,
    feed::Feed,
    redirect::RequestTarget,
    upstream::{Answer, Failure, Upstream},
};
use crate::{
    event::{Attrs, Event},
    id::Id,
    link,
    log::Gap,
    proto::sse,
    units::now_ms,
};
use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use url::Url;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// Connects and reads until the connection ends; `Ok` means that the stream has (204).
///
/// # Errors
/// Why it ended otherwise.
pub async fn consume(upstream: &Upstream, feed: &mut Feed, on_open: &mut (dyn FnMut() + Send)) -> Result<(), Failure> {
    let mut target = RequestTarget::new(upstream);
    let (response, _driver) = ask(upstream, feed, &mut target).await?;
    let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let status = response.status().as_u16();
    if status == 204 {
        return Ok(());
    }
    if status != 200 {
        Answer::read(text).check_path(upstream, feed)?;
        let refusal = refusal(status, response.status().canonical_reason().unwrap_or(""), text("retry-after"));
        return Err(target.explain(refusal));
    }
    let kind = text("content-type").unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let parser = match kind.as_str() {
        "text/event-stream" => Parser::Sse(sse::Parser::new(upstream.max_message.saturating_mul(2))),
        "application/x-ndjson" | "application/jsonl" => Parser::Ndjson(BytesMut::new()),
        other => return Err(Failure::NoStream(format!("the answer is `{other}`, not a stream of events"))),
    };
    let opened = Answer::read(text).apply(upstream, feed)?;
    on_open();
    read(upstream, feed, response.into_body(), parser, opened.ours).await
}

/// Ends the connection's task with the consumer.
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The answer that is no redirect, and where it came from.
async fn ask(
    upstream: &Upstream,
    feed: &Feed,
    target: &mut RequestTarget,
) -> Result<(Response<Incoming>, Abort), Failure> {
    for _ in 0..=MAX_REDIRECTS {
        let io = target.dialer.dial(&target.url).await?;
        let shake = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
        let (mut sender, connection) = shake?;
        let driver = Abort(tokio::spawn(async move {
            let _ = connection.await;
        }));
        let sent = tokio::time::timeout(upstream.dialer.timeout, sender.send_request(request(upstream, feed, target)?));
        let response = sent.await.map_err(|_| Failure::lost(&"no answer in time"))??;
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok((response, driver));
        }
        target.follow(response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()))?;
    }
    Err(Failure::NoStream("too many redirects".into()))
}

/// `sse+http` and `ndjson+http` say what to ask for; the connection is plain HTTP.
pub fn plain(url: &Url) -> Url {
    let text = url.as_str();
    text.split_once('+')
        .filter(|(kind, _)| matches!(*kind, "sse" | "ndjson"))
        .and_then(|(_, rest)| Url::parse(rest).ok())
        .unwrap_or_else(|| url.clone())
}

fn request(upstream: &Upstream, feed: &Feed, target: &RequestTarget) -> Result<Request<Empty<Bytes>>, Failure> {
    let accept = match upstream.url.scheme().split_once('+') {
        Some(("sse", _)) => "text/event-stream",
        Some(("ndjson", _)) => "application/x-ndjson",
        _ => "text/event-stream, application/x-ndjson;q=0.5",
    };
    let (mut url, mut resume) = (target.url.clone(), None);
    match (feed.foreign_id(), feed.since()) {
        (Some(id), _) => resume = Some(id.to_owned()),
        (None, Some(crate::id::Since::After(id))) => resume = Some(id.to_string()),
        (None, since) => url = link::with_since(&url, since.as_ref()),
    }
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut ours = vec![
        ("host", host.to_owned()),
        ("accept", accept.to_owned()),
        ("cache-control", "no-store".to_owned()),
        (link::INSTANCE_HEADER, upstream.reader_name()),
    ];
    ours.extend(resume.map(|id| ("last-event-id", id)));
    let mut request = Request::get(path);
    for (name, value) in with_typed(ours, target.credentials(upstream)?) {
        let pair = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value));
        if let (Ok(name), Ok(value)) = pair {
            request = request.header(name, value);
        }
    }
    request.body(Empty::new()).map_err(|error| Failure::NoStream(error.to_string()))
}

/// An answer other than the asked stream.
pub fn refusal(status: u16, reason: &str, retry_after: Option<&str>) -> Failure {
    let text = format!("the server answered {status} {reason}").trim_end().to_owned();
    let wait = retry_after.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    match status {
        401 | 403 => Failure::Refused(text),
        408 | 425 | 429 | 500..=599 => Failure::Lost(text, wait),
        _ => Failure::NoStream(text),
    }
}

enum Parser {
    Sse(sse::Parser),
    Ndjson(BytesMut),
}

impl Parser {
    /// The line without a line feed at the end of another server's NDJSON, if it is whole.
    fn last_line(&mut self) -> Option<Told> {
        let Parser::Ndjson(buf) = self else { return None };
        let line = buf.split().freeze();
        let whole = serde_json::from_slice::<Value>(&line).is_ok();
        whole.then(|| Told::Event(None, Event::new(line), None))
    }
}

/// One event as a text protocol brings it.
enum Told {
    Event(Option<Id>, Event, Option<u64>),
    Foreign(String),
    Position(Id),
    Gap(Gap),
    Retry(Duration),
}

async fn read(
    upstream: &Upstream,
    feed: &mut Feed,
    mut body: Incoming,
    mut parser: Parser,
    ours: bool,
) -> Result<(), Failure> {
    let mut retry = None;
    // Only our own servers promise comments on idle streams.
    let idle = upstream.idle_timeout.filter(|_| ours).unwrap_or(Duration::from_secs(86_400));
    loop {
        let frame = match tokio::time::timeout(idle, body.frame()).await {
            Err(_) => return Err(Failure::Lost("silent for too long".into(), retry)),
            Ok(None) => {
                let rest = if ours { None } else { parser.last_line() };
                take(feed, rest.into_iter().collect(), upstream.max_message).await;
                return Err(Failure::Lost("the stream was closed".into(), retry));
            }
            Ok(Some(Err(error))) => return Err(Failure::from(error).not_before(retry)),
            Ok(Some(Ok(frame))) => frame,
        };
        if ours && frame.trailers_ref().is_some_and(|trailers| trailers.contains_key(link::END_TRAILER)) {
            return Ok(());
        }
        let Some(bytes) = frame.data_ref() else { continue };
        let mut told = Vec::new();
        let parsed = match &mut parser {
            Parser::Sse(parser) => sse_events(parser, bytes, ours, &mut told),
            Parser::Ndjson(buf) => ndjson_events(buf, bytes, ours, upstream.max_message, &mut told),
        };
        // What came before a fault counts.
        for wait in take(feed, told, upstream.max_message).await {
            retry = Some(wait);
        }
        parsed.map_err(|failure| failure.not_before(retry))?;
    }
}

async fn take(feed: &mut Feed, told: Vec<Told>, max: usize) -> Vec<Duration> {
    let (mut events, mut time, mut retries) = (Vec::new(), None, Vec::new());
    for told in told {
        match told {
            Told::Event(id, event, at) if event.payload.len() <= max => {
                time = time.or(at);
                events.push((id, event));
                continue;
            }
            Told::Retry(wait) => {
                retries.push(wait);
                continue;
            }
            _ => {}
        }
        let (before, at) = (std::mem::take(&mut events), time.take().unwrap_or_else(now_ms));
        if let Told::Foreign(id) = told {
            feed.foreign_events(before, at, id).await;
            continue;
        }
        feed.events(before, at).await;
        match told {
            Told::Event(id, ..) => feed.refuse(id, "larger than --max-message").await,
            Told::Gap(gap) => feed.gap(gap).await,
            Told::Position(id) => feed.advance(id),
            Told::Foreign(_) | Told::Retry(_) => {}
        }
    }
    if !events.is_empty() {
        feed.events(events, time.unwrap_or_else(now_ms)).await;
    }
    retries
}

fn sse_events(parser: &mut sse::Parser, bytes: &[u8], ours: bool, told: &mut Vec<Told>) -> Result<(), Failure> {
    let mut blocks = Vec::new();
    let parsed = parser.feed(bytes, &mut blocks);
    for block in blocks {
        told.extend(block.retry.map(|ms| Told::Retry(Duration::from_millis(ms))));
        let id = block.id.as_deref().filter(|_| ours).and_then(Id::parse);
        if ours && block.kind.as_deref() == Some("gap") {
            told.extend(block.data.as_deref().and_then(gap_of).map(Told::Gap));
            continue;
        }
        match (block.exact.filter(|_| ours), block.data) {
            (None, None) => told.extend(id.map(Told::Position)),
            (exact, data) => {
                let event = exact.unwrap_or_else(|| Event::new(data.unwrap_or_default()));
                let attrs = block.kind.map(|kind| Arc::new(Attrs { kind: Some(kind), ..Attrs::default() }));
                told.push(Told::Event(id, Event { attrs, ..event }, None));
            }
        }
        told.extend(block.id.filter(|_| !ours).map(Told::Foreign));
    }
    parsed.map_err(|_| Failure::lost(&"an event is larger than --max-message"))
}

fn gap_of(data: &str) -> Option<Gap> {
    let value: Value = serde_json::from_str(data).ok()?;
    gap_from(&value)
}

fn gap_from(value: &Value) -> Option<Gap> {
    let id = |name: &str| value.get(name)?.as_str().and_then(Id::parse);
    let count = value.get("count").and_then(Value::as_u64);
    Some(Gap { from: id("from")?, to: id("to")?, count, reason: "told by the upstream".into() })
}

fn ndjson_events(
    buf: &mut BytesMut,
    bytes: &[u8],
    ours: bool,
    max: usize,
    told: &mut Vec<Told>,
) -> Result<(), Failure> {
    buf.extend_from_slice(bytes);
    while let Some(end) = memchr::memchr(b'\n', buf) {
        let line = buf.split_to(end + 1).freeze();
        let line = line.slice(..end);
        if !line.trim_ascii().is_empty() {
            told.push(if ours { own_line(&line) } else { Told::Event(None, Event::new(line), None) });
        }
    }
    // A JSON string may be six times as long as what it spells.
    if buf.len() > max.saturating_mul(6).saturating_add(1024) {
        return Err(Failure::lost(&"a line is larger than --max-message"));
    }
    Ok(())
}

fn own_line(line: &Bytes) -> Told {
    let verbatim = || Told::Event(None, Event::new(line.clone()), None);
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return verbatim() };
    if let Some(gap) = value.get("gap").and_then(gap_from) {
        return Told::Gap(gap);
    }
    let id = value.get("id").and_then(Value::as_str).and_then(Id::parse);
    let kind = value.get("type").and_then(Value::as_str).map(String::from);
    let attrs = kind.map(|kind| Arc::new(Attrs { kind: Some(kind), ..Attrs::default() }));
    let text = value.get("data").and_then(Value::as_str).map(|text| Bytes::from(text.to_owned()));
    let binary = || BASE64.decode(value.get("data_base64")?.as_str()?.as_bytes()).ok().map(Bytes::from);
    let event = match text {
        Some(payload) => Event { payload, text: true, attrs },
        None => match binary() {
            Some(payload) => Event { payload, text: false, attrs },
            None => return verbatim(),
        },
    };
    Told::Event(id, event, value.get("time").and_then(Value::as_u64))
}
