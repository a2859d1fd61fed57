//! The HTTP server: everything that is not a plain stream subscription on a fresh connection.

use super::{
    admin, history, listen, publish,
    stream::Steps,
    subscribe::{self, Peer, Refusal, Subscription},
    wire::Wire,
};
use crate::site::Site;
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    any::Any,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

type Body = UnsyncBoxBody<Bytes, Infallible>;
/// The connection's slot, handed on when it turns into a stream.
type Permit = Arc<Mutex<Option<Box<dyn Any + Send>>>>;

/// A comment on an idle stream after this long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Serves a connection whose first bytes were read already.
///
/// # Errors
/// What ended the connection early.
pub async fn serve(
    site: Arc<Site>,
    stream: TcpStream,
    peer: SocketAddr,
    early: Bytes,
    permit: Box<dyn Any + Send>,
) -> io::Result<()> {
    let io = TokioIo::new(Rewound { early, stream });
    let permit: Permit = Arc::new(Mutex::new(Some(permit)));
    let timeout = site.rules.handshake_timeout;
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        let (site, permit) = (site.clone(), permit.clone());
        async move { Ok::<_, Infallible>(respond(site, request, permit).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(timeout).max_buf_size(64 << 10);
    server.serve_connection(io, service).with_upgrades().await.map_err(io::Error::other)
}

async fn respond(site: Arc<Site>, request: Request<Incoming>, permit: Permit) -> Response<Body> {
    route(site, request, permit).await.unwrap_or_else(|refusal| refused(&refusal))
}

async fn route(site: Arc<Site>, mut request: Request<Incoming>, permit: Permit) -> Result<Response<Body>, Refusal> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    if let Some(answer) = admin::answer(&site, &parts)? {
        return Ok(json_answer(StatusCode::OK, answer.headers, answer.body));
    }
    if let Some(wire) = subscribe::wanted_wire(&parts) {
        let subscription = subscribe::subscribe(&site, &parts, wire).await?;
        return Ok(open_stream(site, subscription, upgrade, permit));
    }
    match parts.method {
        Method::GET | Method::HEAD => {
            let page = history::page(&site, &parts).await?;
            Ok(json_answer(StatusCode::OK, page.headers, page.body.freeze()))
        }
        Method::POST => {
            let answer = publish::publish(&site, &parts, body).await?;
            Ok(json_answer(StatusCode::OK, HeaderMap::new(), answer.to_string().into()))
        }
        Method::OPTIONS => Ok(preflight(&site, &parts.headers)),
        _ => {
            subscribe::find_topic(&site, &parts)?;
            let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this method means nothing here");
            Err(refusal.with(header::ALLOW, "GET, HEAD, POST, OPTIONS"))
        }
    }
}

/// A stream behind another request: WebSockets go to a shard after all, the others are written from here.
fn open_stream(
    site: Arc<Site>,
    subscription: Subscription,
    upgrade: hyper::upgrade::OnUpgrade,
    permit: Permit,
) -> Response<Body> {
    let mut response = Response::builder().status(subscription.status);
    if let Some(headers) = response.headers_mut() {
        headers.extend(subscription.headers.clone());
    }
    if subscription.wire.is_websocket() {
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let Ok(parts) = upgraded.downcast::<TokioIo<Rewound>>() else { return };
            let Ok(socket) = parts.io.into_inner().stream.into_std() else { return };
            let permit = permit.lock().unwrap_or_else(|p| p.into_inner()).take().unwrap_or_else(|| Box::new(()));
            listen::hand_over(&site, socket, subscription, Bytes::new(), false, parts.read_buf, permit);
        });
        return response.body(empty()).unwrap_or_default();
    }
    let Subscription { topic, wire, since, .. } = subscription;
    debug_assert!(matches!(wire, Wire::Sse | Wire::Ndjson));
    let pieces = Steps::new(topic, wire, since, KEEP_ALIVE).pieces().map(|piece| Ok(Frame::data(piece)));
    response.body(StreamBody::new(pieces).boxed_unsync()).unwrap_or_default()
}

fn empty() -> Body {
    Full::default().boxed_unsync()
}

fn json_answer(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().extend(headers);
    response
}

fn refused(refusal: &Refusal) -> Response<Body> {
    json_answer(refusal.status, (*refusal.headers).clone(), listen::refusal_body(refusal).into())
}

/// What a browser asks before a request with headers of its own (Fetch §3.2.2).
fn preflight(site: &Site, asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    subscribe::allow_origin(&site.rules, asked, headers);
    headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        let allowed = HeaderValue::from_static("Last-Event-ID, Authorization, Content-Type");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

/// A connection whose first bytes were taken out and are given back.
struct Rewound {
    early: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..n]);
        self.early.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
