//! The HTTP server: everything that is not a plain stream subscription on a fresh connection.

use super::{
    admin::{self, Door},
    auth,
    error::refusal_body,
    folder::Page,
    history, host,
    listen::{self, ConnectionInfo, Opened},
    mqtt, origin, publish,
    rewound::Rewound,
    route::{self, Owner, Route},
    stream::{Step, Steps},
    subscribe::{self, Peer, Refusal, Subscription},
};
#[cfg(feature = "script")]
use crate::graphql;
use crate::{
    balance,
    id::Id,
    inbound::{InputEnd, Lookout, Stream},
    link::END_TRAILER,
    registry, script,
    site::Site,
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::{Frame, Incoming},
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    any::Any,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{fs::File, io::AsyncReadExt};

type Body = UnsyncBoxBody<Bytes, hyper::Error>;
/// The connection's slot, handed on when it turns into a stream.
type Permit = Arc<Mutex<Option<Box<dyn Any + Send>>>>;

/// Requests at once on one HTTP/2 connection: each may be a reader.
const MAX_STREAMS: u32 = 100;
/// Bytes of header fields in one HTTP/2 request.
const MAX_FIELDS: u32 = 32 << 10;
/// Bytes of a file at once.
const PIECE: usize = 64 << 10;
/// An HTTP/2 connection is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(25);

/// Serves a connection whose first bytes were read already.
///
/// # Errors
/// What ended the connection early.
pub async fn serve(
    site: Arc<Site>,
    stream: Stream,
    connection: ConnectionInfo,
    early: Bytes,
    permit: Box<dyn Any + Send>,
) -> io::Result<()> {
    let (http2, door) = (stream.is_http2(), Door(stream.local_addr()));
    let input_end = InputEnd::default();
    let lookout = (!http2).then(|| (Lookout::default(), input_end.clone()));
    let io = TokioIo::new(Rewound { early, stream, lookout });
    let permit: Permit = Arc::new(Mutex::new(Some(permit)));
    let (timeout, closing) = (site.rules.handshake_timeout, site.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(connection.peer.ip()));
        request.extensions_mut().insert(door);
        request.extensions_mut().insert(input_end.clone());
        let (site, permit) = (site.clone(), permit.clone());
        async move { Ok::<_, Infallible>(respond(site, request, permit, connection).await) }
    });
    if http2 {
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_FIELDS);
        server.keep_alive_interval(PING_EVERY);
        let connection = server.serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = &mut connection => return ended.map_err(io::Error::other),
            _ = closing.drain_begun() => connection.as_mut().graceful_shutdown(),
        }
        return connection.await.map_err(io::Error::other);
    }
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(timeout).max_buf_size(64 << 10);
    // A client that has closed its sending side still gets its answer.
    server.half_close(true);
    let connection = server.serve_connection(io, service).with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        // A request that has come is read before the drain is heard of: else it would be dropped.
        biased;
        ended = &mut connection => return ended.map_err(io::Error::other),
        _ = closing.drain_begun() => Pin::new(&mut *connection).graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}

async fn respond(
    site: Arc<Site>,
    request: Request<Incoming>,
    permit: Permit,
    connection: ConnectionInfo,
) -> Response<Body> {
    // Over HTTP/1.1 the server leaves the body out by itself.
    let head = request.method() == Method::HEAD && request.version() == Version::HTTP_2;
    let crosses = request.headers().contains_key(header::ORIGIN) && !request.uri().path().starts_with("/-/");
    let asked = crosses.then(|| request.headers().clone());
    let mut response =
        dispatch(site.clone(), request, permit, connection).await.unwrap_or_else(|refusal| refused(&refusal));
    // A page of a host that is not answered for must not learn more than that.
    if let Some(asked) = asked.filter(|_| response.status() != StatusCode::MISDIRECTED_REQUEST) {
        // A page may also know why it was refused.
        origin::allow_origin(&site.rules, &asked, response.headers_mut());
    }
    if head { response.map(|_| empty()) } else { response }
}

async fn dispatch(
    site: Arc<Site>,
    mut request: Request<Incoming>,
    permit: Permit,
    connection: ConnectionInfo,
) -> Result<Response<Body>, Refusal> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    name_host(&mut parts);
    if connection.checks_host {
        host::check_host(&site.rules, &parts)?;
    }
    let Route { owner, access } = route::route(&site, &parts).await;
    auth::authorize(&site, access, &mut parts)?;
    match owner {
        Owner::Admin => {
            let answer = admin::answer(&site, &parts).await?;
            Ok(json_answer(StatusCode::OK, answer.headers, answer.body))
        }
        Owner::Script => {
            let answer = script::http::answer(&site, &parts, body).await?;
            Ok(json_answer(answer.status, answer.headers, answer.body))
        }
        // Only scripts name subscriptions.
        #[cfg(feature = "script")]
        Owner::Graphql(graphql) => {
            let door = graphql::http::Door { upgrade, permit: Box::new(permit) };
            graphql::http::answer(&site, graphql, &parts, body, door).await
        }
        #[cfg(not(feature = "script"))]
        Owner::Graphql(_) => Err(Refusal::new(StatusCode::NOT_FOUND, "no subscriptions here")),
        Owner::Balancer(balancer) => {
            let mut search = balancer.search(&parts);
            let response = balance::http::forward(&site, &mut search, &parts, body, upgrade).await?;
            Ok(response.map(BodyExt::boxed_unsync))
        }
        Owner::Mqtt => open_mqtt(site, &parts, upgrade, permit),
        Owner::ServiceProxy(registry) => match registry::proxy::answer(&site, registry, &parts, body, upgrade).await {
            Ok(response) => Ok(response.map(BodyExt::boxed_unsync)),
            Err(answer) => Ok(json_answer(answer.status, *answer.headers, answer.body)),
        },
        Owner::Registry(registry) => {
            let answer = registry::http::answer(&site, registry, &parts, body).await;
            Ok(json_answer(answer.status, *answer.headers, answer.body))
        }
        Owner::Stream(wire, conversation) => {
            let subscription = subscribe::subscribe(&site, &parts, wire, conversation).await?;
            let input_end = parts.extensions.get().cloned();
            Ok(open_stream(site.clone(), subscription, input_end, upgrade, permit, connection.peer))
        }
        Owner::Topic => answer_topic(&site, &parts, body).await,
    }
}

/// Answers what is no stream: history, publishing, static files, preflights, and what is not there.
async fn answer_topic(site: &Arc<Site>, parts: &Parts, body: Incoming) -> Result<Response<Body>, Refusal> {
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    if let Some(folder) = site.folder.as_ref().filter(|_| is_read && site.topic(parts.uri.path()).is_none()) {
        return Ok(file_answer(folder.answer(parts).await?));
    }
    match parts.method {
        Method::GET | Method::HEAD => {
            let page = history::page(site, parts).await?;
            Ok(json_answer(StatusCode::OK, page.headers, page.body.freeze()))
        }
        Method::POST => {
            let answer = publish::publish(site, parts, body).await?;
            Ok(json_answer(StatusCode::OK, HeaderMap::new(), answer.to_string().into()))
        }
        Method::OPTIONS => Ok(preflight(site, parts)),
        _ => {
            subscribe::find_topic(site, parts)?;
            let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this method means nothing here");
            Err(refusal.with(header::ALLOW, "GET, HEAD, POST, OPTIONS"))
        }
    }
}

/// HTTP/2 says in another place whom it asks (RFC 9113 §8.3.1).
fn name_host(parts: &mut Parts) {
    let authority = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(authority) = authority.filter(|_| parts.version == Version::HTTP_2) {
        parts.headers.entry(header::HOST).or_insert(authority);
    }
}

/// A stream behind another request: WebSockets leave this server after all, the others are written from here.
fn open_stream(
    site: Arc<Site>,
    subscription: Subscription,
    input_end: Option<InputEnd>,
    upgrade: hyper::upgrade::OnUpgrade,
    permit: Permit,
    peer: SocketAddr,
) -> Response<Body> {
    let mut response = Response::builder().status(subscription.status);
    if let Some(headers) = response.headers_mut() {
        headers.extend(subscription.headers.clone());
    }
    if subscription.wire.is_websocket() {
        tokio::spawn(async move {
            let Some((stream, opened, permit)) = taken_out(upgrade, &permit).await else { return };
            if let Ok(Some(reader)) = listen::hand_over(&site, stream, subscription, opened, permit) {
                site.shards.serve(reader).await;
            }
        });
        return response.body(empty()).unwrap_or_default();
    }
    debug_assert!(!subscription.wire.is_websocket());
    let steps = Steps::new(site.tasks.clone(), subscription, Some(peer)).with_input_end(input_end);
    let body = Going::On(Box::new(steps));
    let frames = stream::unfold(body, |body| async { body.next().await.map(|(frame, body)| (Ok(frame), body)) });
    response.body(StreamBody::new(frames).boxed_unsync()).unwrap_or_default()
}

/// A connection that leaves this server, once the answer to its upgrade is sent.
async fn taken_out(
    upgrade: hyper::upgrade::OnUpgrade,
    permit: &Permit,
) -> Option<(Stream, Opened, Box<dyn Any + Send>)> {
    let parts = upgrade.await.ok()?.downcast::<TokioIo<Rewound>>().ok()?;
    let Rewound { early, stream, .. } = parts.io.into_inner();
    let permit = permit.lock().unwrap_or_else(|p| p.into_inner()).take().unwrap_or_else(|| Box::new(()));
    let early = [parts.read_buf, early].concat().into();
    Some((stream, Opened { head: Bytes::new(), chunked: false, early }, permit))
}

fn open_mqtt(
    site: Arc<Site>,
    parts: &Parts,
    upgrade: hyper::upgrade::OnUpgrade,
    permit: Permit,
) -> Result<Response<Body>, Refusal> {
    let (headers, bearer) = (mqtt::upgrade::open(&site, parts)?, mqtt::upgrade::bearer(&site, parts));
    tokio::spawn(async move {
        let Some((stream, opened, permit)) = taken_out(upgrade, &permit).await else { return };
        mqtt::upgrade::serve(site, stream, bearer, opened, permit).await;
    });
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(headers);
    Ok(response)
}

/// A stream as a body: its pieces; where it has ended, its last position as a trailer field (LINKS 18).
enum Going {
    On(Box<Steps>),
    Ended(Option<Id>),
}

impl Going {
    async fn next(self) -> Option<(Frame<Bytes>, Going)> {
        match self {
            Going::On(mut steps) => match steps.next(true).await {
                Step::Piece(piece) => Some((Frame::data(piece), Going::On(steps))),
                Step::Last(piece, position) => Some((Frame::data(piece), Going::Ended(position))),
                Step::Gone(_) => None,
            },
            Going::Ended(position) => {
                let value = HeaderValue::from_str(&position?.to_string()).ok()?;
                let trailers = HeaderMap::from_iter([(HeaderName::from_static(END_TRAILER), value)]);
                Some((Frame::trailers(trailers), Going::Ended(None)))
            }
        }
    }
}

fn empty() -> Body {
    whole(Bytes::new())
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn json_answer(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().extend(headers);
    response
}

/// A file, piece by piece.
fn file_answer(page: Page) -> Response<Body> {
    let piece = |mut file: File| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        // What can be read no more breaks off short of its length, which the peer sees.
        let read = file.read_buf(&mut piece).await.unwrap_or(0);
        (read > 0).then(|| (Ok(Frame::data(piece.freeze())), file))
    };
    let body = page.file.map(|file| StreamBody::new(stream::unfold(file, piece)).boxed_unsync());
    let mut response = Response::new(body.unwrap_or_else(empty));
    (*response.status_mut(), *response.headers_mut()) = (page.status, page.headers);
    response
}

fn refused(refusal: &Refusal) -> Response<Body> {
    json_answer(refusal.status, (*refusal.headers).clone(), refusal_body(refusal).into())
}

/// What a page may send beside its request.
const ASKED_HEADERS: &str =
    "Last-Event-ID, Authorization, Content-Type, Event-Type, Event-Time, Event-Id, Idempotency-Key";

/// What a browser asks before a request with headers of its own (Fetch §3.2.2).
fn preflight(site: &Site, parts: &Parts) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    match site.topic(parts.uri.path()) {
        Some(topic) => origin::allow_page(&site.rules, &topic, &parts.headers, headers),
        None => origin::allow_origin(&site.rules, &parts.headers, headers),
    }
    headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ASKED_HEADERS));
        let methods = match site.scripts.files() {
            [] if site.registry.is_none() => "GET, POST",
            [] => "GET, POST, DELETE",
            _ => "GET, POST, PUT, PATCH, DELETE",
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}
