//! The door: accepts, reads the first request's head, and sends the connection where it belongs.
//!
//! A plain stream subscription goes straight to a shard; everything else goes to the HTTP server with the bytes that
//! were read already. Handshakes run in a task each, under a deadline, so that a slow one delays nobody.

use super::{
    auth,
    bind::{self, Succession},
    http,
    mqtt::{self, channel::Carrier},
    proxied, secure,
    shard::Reader,
    subscribe::{self, Peer, Refusal, Subscription},
    wire::Wire,
};
use crate::{balance::relay, graphql, inbound::Stream, registry, script, site::Site, sys};
use bytes::{Bytes, BytesMut};
use hyper::{HeaderMap, Request, StatusCode, Version, http::request::Parts};
use std::{any::Any, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, unix::AsyncFd},
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;

/// What a request head may have, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// Header fields at most.
const MAX_FIELDS: usize = 100;
/// Connections that are told to come back later, at once; more are closed without a word.
const MAX_REFUSALS: usize = 128;
/// Who waits to be let in is seen within this time.
const WAITING: Duration = Duration::from_millis(5);
/// Nobody came for so long behind the last one that could: the socket may close. Shorter than what TCP waits before it
/// knocks again (a second).
const HUSHED: Duration = Duration::from_millis(100);

/// What is spoken behind a door.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tongue {
    /// HTTP, and what it is upgraded to.
    Http,
    /// MQTT.
    Mqtt,
}

/// Accepts until the listener's `stop` turns true, and then whoever has got through already.
pub async fn run(
    site: Arc<Site>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
    succession: Succession,
    tongue: Tongue,
) {
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let listener = match sys::watched(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot listen"),
    };
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => let_in(&site, stream, peer, tongue, &refusals),
            Err(error) => {
                debug!(%error, "accept");
                // Out of descriptors, most likely: others must end first.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let patience = match succession {
        Succession::Inherited => return,
        Succession::None => WAITING,
        Succession::Beside => bind::hush(listener.get_ref()).map_or(WAITING, |()| HUSHED),
    };
    while let Ok(Ok((stream, peer))) = timeout(patience, accept(&listener)).await {
        let_in(&site, stream, peer, tongue, &refusals);
    }
}

async fn accept(listener: &AsyncFd<mio::net::TcpListener>) -> io::Result<(Stream, SocketAddr)> {
    let (socket, peer) = listener.async_io(Interest::READABLE, mio::net::TcpListener::accept).await?;
    Ok((Stream::fresh(socket.into()), peer))
}

/// Greets a connection in a task of its own, if there may be one more.
fn let_in(site: &Arc<Site>, stream: Stream, peer: SocketAddr, tongue: Tongue, refusals: &Arc<Semaphore>) {
    match site.slots.clone().try_acquire_owned() {
        Ok(permit) => {
            let site = site.clone();
            tokio::spawn(async move {
                if let Err(error) = greet(site, stream, peer, tongue, Box::new(permit)).await {
                    debug!(%peer, %error, "connection refused");
                }
            });
        }
        // Nothing can be said in plain text there, or before the client has said which version it speaks.
        Err(_) if site.tls.is_some() || tongue == Tongue::Mqtt => {}
        Err(_) => {
            if let Ok(turn) = refusals.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    let _ = timeout(Duration::from_secs(2), turn_away(stream)).await;
                    drop(turn);
                });
            }
        }
    }
}

/// `--max-connections` is reached.
async fn turn_away(mut stream: Stream) -> io::Result<()> {
    let _ = read_head(&mut stream, &mut BytesMut::new()).await?;
    let busy = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(busy.as_bytes()).await?;
    stream.shutdown().await
}

/// Serves one connection from its first byte. What goes on for longer is boxed: most connections only pass through here,
/// and each of them moves all that this future could become.
async fn greet(
    site: Arc<Site>,
    stream: Stream,
    peer: SocketAddr,
    tongue: Tongue,
    permit: Box<dyn Any + Send>,
) -> io::Result<()> {
    let deadline = Instant::now() + site.rules.handshake_timeout;
    let (stream, peer) = if site.rules.proxied { behind_proxy(stream, peer, deadline).await? } else { (stream, peer) };
    let mut stream = timeout_at(deadline, shake_hands(&site, stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if tongue == Tongue::Mqtt {
        Box::pin(mqtt::serve(site, stream, Carrier::Plain, &[], None, permit)).await;
        return Ok(());
    }
    if stream.is_http2() {
        return Box::pin(http::serve(site, stream, peer, Bytes::new(), permit)).await;
    }
    let mut buf = BytesMut::with_capacity(1024);
    let head = timeout_at(deadline, read_head(&mut stream, &mut buf));
    let parts = match head.await {
        Ok(Ok(Some((mut parts, len)))) => {
            parts.extensions.insert(Peer(peer.ip()));
            match (site.relay(&parts).await, subscribe::wire_here(&site, &parts)) {
                (Some(_), _) if relay::is_ambiguous(&parts) => {
                    let refusal = Refusal::new(StatusCode::BAD_REQUEST, "Content-Length beside Transfer-Encoding");
                    return Box::pin(refuse(&mut stream, &refusal, false)).await;
                }
                (Some(balancer), Some(_)) if relay::is_direct(&parts) => {
                    let early = buf.split_off(len).freeze();
                    return Box::pin(relay::serve(&site, balancer, stream, parts, early, permit)).await;
                }
                (None, Some(_)) if mqtt::upgrade::is_asked(&site, &parts) => {
                    let early = buf.split_off(len).freeze();
                    return Box::pin(open_mqtt(site, stream, &parts, early, permit)).await;
                }
                (None, Some(wire)) if !is_asked_otherwise(&site, &parts) => {
                    let early = buf.split_off(len).freeze();
                    return open_stream(&site, stream, parts, wire, early, permit).await;
                }
                _ => parts,
            }
        }
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => {
            let refusal = match error.kind() {
                io::ErrorKind::InvalidData => Refusal::new(StatusCode::BAD_REQUEST, error.to_string()),
                io::ErrorKind::FileTooLarge => {
                    Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, error.to_string())
                }
                _ => return Err(error),
            };
            Box::pin(refuse(&mut stream, &refusal, false)).await?;
            return Err(error);
        }
        Err(_) => {
            let late = Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time");
            return Box::pin(refuse(&mut stream, &late, false)).await;
        }
    };
    drop(parts);
    Box::pin(http::serve(site, stream, peer, buf.freeze(), permit)).await
}

/// Whether something else than a topic answers, whatever the request accepts.
fn is_asked_otherwise(site: &Site, parts: &Parts) -> bool {
    registry::http::is_asked(site, parts) || script::http::is_asked(site, parts) || graphql::http::is_asked(site, parts)
}

/// A proxy says who it is that connects (`--proxy-protocol`).
async fn behind_proxy(mut stream: Stream, proxy: SocketAddr, deadline: Instant) -> io::Result<(Stream, SocketAddr)> {
    let told = timeout_at(deadline, proxied::read(&mut stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok((stream, told.unwrap_or(proxy)))
}

async fn shake_hands(site: &Site, stream: Stream) -> io::Result<Stream> {
    match &site.tls {
        Some(identity) => {
            let Stream::Plain(stream) = stream.registered()? else { return Err(io::ErrorKind::NotConnected.into()) };
            let stream = Box::pin(identity.get().accept(stream)).await?;
            Ok(Stream::Tls(Box::new(stream)))
        }
        None => Ok(stream),
    }
}

async fn open_stream(
    site: &Site,
    mut stream: Stream,
    mut parts: Parts,
    wire: Wire,
    early: Bytes,
    permit: Box<dyn Any + Send>,
) -> io::Result<()> {
    let accepted = match auth::admit(site, &mut parts) {
        Ok(()) => subscribe::subscribe(site, &parts, wire).await,
        Err(refusal) => Err(refusal),
    };
    let subscription = match accepted {
        Ok(subscription) => subscription,
        Err(refusal) => return Box::pin(refuse(&mut stream, &refusal, parts.version == Version::HTTP_10)).await,
    };
    let chunked = !subscription.wire.is_websocket() && parts.version == Version::HTTP_11;
    let head = head_text(subscription.status, &subscription.headers, chunked, subscription.wire);
    if let Some(reader) = hand_over(site, stream, subscription, Opened { head, chunked, early }, permit)? {
        site.shards.serve(reader).await;
    }
    Ok(())
}

async fn open_mqtt(
    site: Arc<Site>,
    mut stream: Stream,
    parts: &Parts,
    early: Bytes,
    permit: Box<dyn Any + Send>,
) -> io::Result<()> {
    let headers = match mqtt::upgrade::open(&site, parts) {
        Ok(headers) => headers,
        Err(refusal) => return Box::pin(refuse(&mut stream, &refusal, parts.version == Version::HTTP_10)).await,
    };
    let head = head_text(StatusCode::SWITCHING_PROTOCOLS, &headers, false, Wire::Ws);
    let bearer = mqtt::upgrade::bearer(&site, parts);
    mqtt::upgrade::serve(site, stream, bearer, Opened { head, chunked: false, early }, permit).await;
    Ok(())
}

/// What belongs to a connection on which a stream begins.
pub struct Opened {
    /// The answer's head, to be sent first.
    pub head: Bytes,
    /// Whether the body goes in chunks (HTTP/1.1) or ends with the connection (HTTP/1.0).
    pub chunked: bool,
    /// What the peer sent behind its request already.
    pub early: Bytes,
}

/// Gives a connection to a task of its own, unless it is a reader for a shard, which is returned.
///
/// # Errors
/// When the system does not let go of the socket.
pub fn hand_over(
    site: &Site,
    stream: Stream,
    subscription: Subscription,
    opened: Opened,
    permit: Box<dyn Any + Send>,
) -> io::Result<Option<Box<Reader>>> {
    let socket = match stream {
        Stream::Fresh(Some(socket)) if subscription.dialog.is_none() => socket,
        Stream::Plain(socket) if subscription.dialog.is_none() => socket.into_std()?,
        stream => {
            secure::spawn(site, stream, subscription, opened, permit);
            return Ok(None);
        }
    };
    let Opened { head, chunked, early } = opened;
    let Subscription { topic, wire, start, since, viewer, owner, may_publish, expires, .. } = subscription;
    let skip = topic.policy() == crate::topic::Policy::DropOldest;
    Ok(Some(Box::new(Reader {
        socket,
        topic,
        wire,
        start,
        since,
        head,
        chunked,
        early,
        viewer,
        owner,
        may_publish,
        skip,
        expires,
        permit,
    })))
}

fn head_text(status: StatusCode, headers: &HeaderMap, chunked: bool, wire: Wire) -> Bytes {
    let mut text = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or(""));
    for (name, value) in headers {
        text.push_str(name.as_str());
        text.push_str(": ");
        text.push_str(value.to_str().unwrap_or(""));
        text.push_str("\r\n");
    }
    match (wire.is_websocket(), chunked) {
        (true, _) => {}
        (false, true) => text.push_str("transfer-encoding: chunked\r\n"),
        (false, false) => text.push_str("connection: close\r\n"),
    }
    text.push_str("\r\n");
    text.into()
}

/// Answers with a refusal, and closes.
///
/// # Errors
/// When the peer does not take it.
pub async fn refuse(stream: &mut Stream, refusal: &Refusal, old: bool) -> io::Result<()> {
    let body = refusal_body(refusal);
    let mut text = BytesMut::from(&head_text(refusal.status, &refusal.headers, false, Wire::Sse)[..]);
    text.truncate(text.len() - 2);
    let version = if old { "HTTP/1.0" } else { "HTTP/1.1" };
    text[..8].copy_from_slice(version.as_bytes());
    if refusal.status != StatusCode::NO_CONTENT {
        let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        text.extend_from_slice(length.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body.as_bytes());
    stream.write_all(&text).await?;
    stream.shutdown().await?;
    // Closing with unread input would reset the connection and take the answer with it.
    let mut rest = [0u8; 1024];
    let drain = async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} };
    let _ = timeout(Duration::from_millis(500), drain).await;
    Ok(())
}

/// `{"error": …}`, or nothing for 204.
pub fn refusal_body(refusal: &Refusal) -> String {
    if refusal.status == StatusCode::NO_CONTENT {
        return String::new();
    }
    serde_json::json!({ "error": refusal.error }).to_string()
}

/// Reads until the head is whole: the parsed request and the head's length. `None` when the peer left before a byte.
async fn read_head(stream: &mut Stream, buf: &mut BytesMut) -> io::Result<Option<(Parts, usize)>> {
    loop {
        if let Some(found) = parse_head(buf)? {
            return Ok(Some(found));
        }
        if buf.len() > MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the request head is too large"));
        }
        if stream.read_buf(buf).await? == 0 {
            return if buf.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// Parses a request head (RFC 9112); `Ok(None)` when it is not whole yet.
///
/// # Errors
/// `InvalidData` with what is wrong.
pub fn parse_head(bytes: &[u8]) -> io::Result<Option<(Parts, usize)>> {
    let invalid = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes).map_err(|error| match error {
        httparse::Error::TooManyHeaders => io::Error::new(io::ErrorKind::FileTooLarge, "too many header fields"),
        other => invalid(&other),
    });
    let len = match parsed? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(len) => len,
    };
    let version = if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut builder = Request::builder().version(version);
    builder = builder.method(request.method.unwrap_or("")).uri(request.path.unwrap_or(""));
    for field in request.headers {
        builder = builder.header(field.name, field.value);
    }
    let (parts, ()) = builder.body(()).map_err(|error| invalid(&error))?.into_parts();
    Ok(Some((parts, len)))
}
