//! Requests that are no stream on a fresh connection: taken apart by the HTTP server, put together again for a back end,
//! or an instance of a registered service.
//!
//! A request is repeated elsewhere only where that is safe: before it was sent, or when it has no body and its method
//! may be repeated (RFC 9110 §9.2.2).

use super::{
    headers::{self, Arrival},
    is_failure,
    search::{Deadlines, Hold, Search},
    splice::{self, Ways},
};
use crate::{
    net::Connection,
    proto::subscribe::{Refusal, wants_websocket},
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
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
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
    let (response, held) = answered(search, parts, fields, body, tls).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && wants_upgrade {
        let relay = Relay { held, _counted: search.count_relay(), deadlines: search.deadlines() };
        return Ok(switch(site.clone(), relay, response, upgrade));
    }
    let (mut head, body) = response.into_parts();
    headers::strip(&mut head.headers);
    Ok(Response::from_parts(head, Relayed { body: Some(body), _held: Some(Box::new(held)) }))
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
    body: Incoming,
    tls: bool,
) -> Result<(Response<Incoming>, Held<S::Hold>), Refusal> {
    let repeatable = body.is_end_stream() && parts.method.is_idempotent();
    let sent = Arc::new(AtomicU64::new(0));
    let mut body = Some(body);
    loop {
        let (hold, connection) = search.next().await?;
        let outbound = match body.take() {
            Some(body) if !body.is_end_stream() => Counted { body, sent: sent.clone() }.boxed_unsync(),
            _ => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        };
        let request = request(&search.target(&hold, parts), parts, &fields, outbound)?;
        match exchange(connection, request, &sent, search.deadlines().answer).await {
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
            Err(why) => {
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

/// Sends the request; a back end that neither takes more of it nor answers for that long has failed.
async fn exchange(
    connection: Connection,
    request: Request<Outbound>,
    sent: &AtomicU64,
    patience: Duration,
) -> Result<(Response<Incoming>, JoinHandle<()>), String> {
    let shaken = http1::handshake(TokioIo::new(connection.boxed())).await;
    let (mut sender, driver) = shaken.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(async move {
        let _ = driver.with_upgrades().await;
    });
    let response = sender.send_request(request);
    tokio::pin!(response);
    let mut before = 0;
    let failure = loop {
        match timeout(patience, &mut response).await {
            Ok(Ok(response)) => return Ok((response, driver)),
            Ok(Err(error)) => break error.to_string(),
            Err(_) if sent.load(Ordering::Relaxed) == before => break "no answer in time".into(),
            Err(_) => before = sent.load(Ordering::Relaxed),
        }
    };
    driver.abort();
    Err(failure)
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
    Response::from_parts(head, Relayed { body: None, _held: None })
}

/// A request's body that counts what has gone.
struct Counted {
    body: Incoming,
    sent: Arc<AtomicU64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, and the hold on who gives it.
pub struct Relayed {
    body: Option<Incoming>,
    _held: Option<Box<dyn Any + Send>>,
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
