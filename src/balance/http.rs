//! Requests that are no stream on a fresh connection: taken apart by the HTTP server, put together again for a back end,
//! or an instance of a registered service.
//!
//! A request is repeated elsewhere only where that is safe: before it was sent, or when it has no body and its method
//! may be repeated (RFC 9110 §9.2.2). A request that its client does not finish is no failure of the back end.

use super::{
    headers::{self, Arrival},
    is_failure,
    search::{Deadlines, Hold, Search},
    splice::{self, Ways},
    upload::{EarlyAnswerIo, Upload, UploadProgress},
};
use crate::{
    inbound::InputEnd,
    net::Connection,
    proto::{
        body,
        subscribe::{Refusal, wants_websocket},
        wire::Wire,
    },
    site::Site,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
    header::{self, HeaderValue},
    http::request::Parts,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use std::{
    any::Any,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{task::JoinHandle, time::timeout};

/// What goes to a back end.
type Outbound = UnsyncBoxBody<Bytes, hyper::Error>;

/// Passes the request on to who is found, and the answer back. `upgrade` is the client's side of what may become a
/// WebSocket.
///
/// # Errors
/// The refusal to answer with when nobody answers.
pub async fn forward<S: Search>(
    site: &Arc<Site>,
    search: &mut S,
    parts: &Parts,
    body: Incoming,
    upgrade: OnUpgrade,
) -> Result<Response<Relayed>, Refusal> {
    let (wants_upgrade, tls) = (wants_websocket(parts), site.tls.is_some());
    let mut fields = headers::for_backend(&parts.headers, Arrival::of(parts, tls));
    if wants_upgrade {
        fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    // A client that asks whether its body is wanted is answered before it sends any.
    let upload = match parts.headers.contains_key(header::EXPECT) {
        true => Upload::new(body),
        false => Upload::read_ahead(body).await?,
    };
    let (response, held) = answered(search, parts, fields, upload, tls).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && wants_upgrade {
        let relay = Relay { held, _counted: search.count_relay(), deadlines: search.deadlines() };
        return Ok(switch(site.clone(), relay, response, upgrade));
    }
    let (mut head, body) = response.into_parts();
    headers::strip(&mut head.headers);
    let probe = Probe::of(&head.headers, parts);
    Ok(Response::from_parts(head, Relayed { body: Some(body), probe, _held: Some(Box::new(held)) }))
}

/// What lasts as long as the answer: the hold on who gives it, and whoever drives the connection.
struct Held<H> {
    hold: H,
    driver: JoinHandle<()>,
}

impl<H> Drop for Held<H> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn answered<S: Search>(
    search: &mut S,
    parts: &Parts,
    fields: HeaderMap,
    upload: Upload,
    tls: bool,
) -> Result<(Response<Incoming>, Held<S::Hold>), Refusal> {
    let repeatable = upload.is_end_stream() && parts.method.is_idempotent();
    let progress = upload.progress();
    let mut upload = Some(upload);
    loop {
        let (hold, connection) = search.next().await?;
        let outbound = match upload.take() {
            Some(upload) if !upload.is_end_stream() => upload.boxed_unsync(),
            _ => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        };
        let request = request(&search.target(&hold, parts), parts, &fields, outbound)?;
        match exchange(connection, request, &progress, search.deadlines().answer).await {
            Ok((mut response, driver)) => {
                let failed = is_failure(response.status().as_u16());
                if failed {
                    hold.failed(&format!("it answered {}", response.status().as_u16()));
                } else {
                    hold.succeeded();
                }
                if !failed || !repeatable || !search.has_more() {
                    if let Some(cookie) = search.cookie(&hold, tls) {
                        response.headers_mut().append(header::SET_COOKIE, cookie);
                    }
                    return Ok((response, Held { hold, driver }));
                }
                driver.abort();
            }
            Err(ExchangeError::Client(refusal)) => return Err(refusal),
            Err(ExchangeError::BackEnd(why)) => {
                hold.failed(&why);
                if !repeatable {
                    return Err(Refusal::new(StatusCode::BAD_GATEWAY, "the back end did not answer"));
                }
            }
        }
    }
}

fn request(target: &str, parts: &Parts, fields: &HeaderMap, body: Outbound) -> Result<Request<Outbound>, Refusal> {
    let request = Request::builder().method(parts.method.clone()).uri(target).body(body);
    let mut request = request.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    *request.headers_mut() = fields.clone();
    Ok(request)
}

/// Why there is no answer, by whose fault that is.
enum ExchangeError {
    /// The client did not say all of its request.
    Client(Refusal),
    /// The back end did not do what it was asked.
    BackEnd(String),
}

impl From<hyper::Error> for ExchangeError {
    fn from(error: hyper::Error) -> Self {
        match error.is_user() {
            true => ExchangeError::Client(Refusal::new(StatusCode::BAD_REQUEST, "this request cannot be passed on")),
            false => ExchangeError::BackEnd(error.to_string()),
        }
    }
}

/// Sends the request; a back end that neither takes more of it nor answers for that long has failed.
async fn exchange(
    connection: Connection,
    request: Request<Outbound>,
    progress: &UploadProgress,
    patience: Duration,
) -> Result<(Response<Incoming>, JoinHandle<()>), ExchangeError> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(EarlyAnswerIo::new(connection.boxed()))).await?;
    let driver = tokio::spawn(async move {
        let _ = driver.with_upgrades().await;
    });
    let response = sender.send_request(request);
    tokio::pin!(response);
    let mut before = 0;
    let failed = loop {
        match timeout(patience, &mut response).await {
            Ok(Ok(response)) => return Ok((response, driver)),
            Ok(Err(error)) => break progress.refusal().map_or_else(|| error.into(), ExchangeError::Client),
            Err(_) if progress.pieces() != before => before = progress.pieces(),
            Err(_) if progress.awaits_client() => break ExchangeError::Client(body::late()),
            Err(_) => break ExchangeError::BackEnd("no answer in time".into()),
        }
    };
    driver.abort();
    Err(failed)
}

/// What lasts as long as a WebSocket.
struct Relay<H> {
    held: Held<H>,
    _counted: Arc<()>,
    deadlines: Deadlines,
}

/// Both sides become a WebSocket.
fn switch<H: Hold>(
    site: Arc<Site>,
    relay: Relay<H>,
    mut response: Response<Incoming>,
    client: OnUpgrade,
) -> Response<Relayed> {
    let backend = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    tokio::spawn(async move {
        let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else { return };
        let idle = relay.deadlines.idle;
        tokio::select! {
            _ = splice::between(TokioIo::new(client), TokioIo::new(backend), Ways::Both, idle) => {}
            () = relay.held.hold.has_aged() => {}
            () = site.turn_to_leave() => {}
        }
        drop(relay);
    });
    headers::strip(&mut head.headers);
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    Response::from_parts(head, Relayed { body: None, probe: None, _held: None })
}

/// A line for a client that has closed its sending side, between two lines of a stream of events: one that is gone answers
/// with a reset.
struct Probe {
    wire: Wire,
    between_lines: bool,
    input_end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Probe {
    /// For an answer that is such a stream, as it is.
    fn of(answer: &HeaderMap, parts: &Parts) -> Option<Self> {
        let kind = answer.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let wire = match kind.split(';').next()?.trim() {
            "text/event-stream" => Wire::Sse,
            "application/x-ndjson" => Wire::Ndjson,
            _ => return None,
        };
        let is_bare = !answer.contains_key(header::CONTENT_ENCODING) && !answer.contains_key(header::CONTENT_LENGTH);
        let input_end = parts.extensions.get::<InputEnd>().cloned().filter(|_| is_bare)?;
        let input_end = Box::pin(async move { InputEnd::told(Some(&input_end)).await });
        Some(Probe { wire, between_lines: true, input_end })
    }

    fn pass(&mut self, frame: &Frame<Bytes>) {
        if let Some(last) = frame.data_ref().and_then(|bytes| bytes.last()) {
            self.between_lines = *last == b'\n';
        }
    }

    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        self.between_lines && self.input_end.as_mut().poll(cx).is_ready()
    }
}

/// An answer's body, and the hold on who gives it.
pub struct Relayed {
    body: Option<Incoming>,
    probe: Option<Probe>,
    _held: Option<Box<dyn Any + Send>>,
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Relayed { body: Some(body), probe, .. } = &mut *self else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        let Some(waiting) = probe else { return polled };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            waiting.pass(frame);
        }
        if polled.is_pending() && waiting.is_due(cx) {
            let line = waiting.wire.probe();
            *probe = None;
            return Poll::Ready(Some(Ok(Frame::data(line))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
