//! The door: accepts, reads the first request's head, and sends the connection where it belongs.
//!
//! A plain stream subscription goes straight to a shard; everything else goes to the HTTP server with the bytes that
//! were read already. A handshake begins where the connection is accepted and is mostly over at once; one that waits or
//! takes a while goes on in a task of its own, under a deadline, so that it delays nobody.

use super::{
    auth,
    bind::{self, Succession},
    error::refuse,
    head::{self, Asked, read_head},
    host, http,
    mqtt::{self, channel::Carrier},
    proxied,
    route::{self, Owner, Route, RouteAccess},
    seat::{Seat, aside},
    secure,
    shard::Reader,
    subscribe::{self, Peer, Refusal, Subscription},
    wire::Wire,
};
use crate::{
    balance::{Balancer, relay},
    files::Watched,
    inbound::Stream,
    panics,
    site::Site,
    sys,
    tls::Identity,
};
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::{StatusCode, Version, http::request::Parts};
use std::{any::Any, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncWriteExt, unix::AsyncFdReadyGuard},
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;

/// Connections that are accepted in a row.
const AT_ONCE: usize = 32;
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

/// A listener's properties that matter to each of its connections.
#[derive(Clone, Copy)]
struct Endpoint {
    tongue: Tongue,
    checks_host: bool,
}

/// A connection's properties that matter to each of its requests.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// Whether the hosts of its requests are checked (see [`host`]).
    pub checks_host: bool,
}

/// Tells whether pages could reach this listener by DNS rebinding: it is bound to loopback, asks for no tokens, and no
/// proxy speaks first.
fn needs_host_check(site: &Site, listener: &TcpListener) -> bool {
    let local = listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    local && site.keys.is_none() && !site.rules.proxied
}

/// Accepts until the listener's `stop` turns true, and then whoever has got through already.
pub async fn run(
    site: Arc<Site>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
    succession: Succession,
    tongue: Tongue,
) {
    let endpoint = Endpoint { tongue, checks_host: needs_host_check(&site, &listener) };
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let listener = match sys::watched(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot listen"),
    };
    // A handshake is begun by who accepts: a panic in it ends that connection only.
    let let_in = |(stream, peer)| panics::contain_future(let_in(&site, stream, peer, endpoint, &refusals)).map(drop);
    let mut seat = Seat::default();
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    loop {
        let waiting = tokio::select! {
            waiting = listener.readable() => waiting,
            _ = &mut stopped => break,
        };
        if let Err(error) = let_all_in(waiting, &mut seat, &let_in).await {
            debug!(%error, "accept");
            // Out of descriptors, most likely: others must end first.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let patience = match succession {
        Succession::Inherited => return,
        Succession::None => WAITING,
        Succession::Beside => bind::hush(listener.get_ref()).map_or(WAITING, |()| HUSHED),
    };
    while let Ok(waiting) = timeout(patience, listener.readable()).await {
        if let_all_in(waiting, &mut seat, &let_in).await.is_err() {
            return;
        }
    }
}

/// Lets in who waits, so many in a row: others have something to do, too.
async fn let_all_in<F: Future<Output = ()> + Send + 'static>(
    waiting: io::Result<AsyncFdReadyGuard<'_, mio::net::TcpListener>>,
    seat: &mut Seat<F>,
    let_in: impl Fn((Stream, SocketAddr)) -> F,
) -> io::Result<()> {
    let mut waiting = waiting?;
    for _ in 0..AT_ONCE {
        let Ok(accepted) = waiting.try_io(|listener| listener.get_ref().accept()) else { return Ok(()) };
        let (socket, peer) = accepted?;
        seat.begin(let_in((Stream::fresh(socket.into()), peer))).await;
    }
    tokio::task::yield_now().await;
    Ok(())
}

/// Greets a connection, if there may be one more.
fn let_in(
    site: &Arc<Site>,
    stream: Stream,
    peer: SocketAddr,
    endpoint: Endpoint,
    refusals: &Arc<Semaphore>,
) -> impl Future<Output = ()> + Send + 'static {
    let permit = site.slots.clone().try_acquire_owned();
    let refusals = refusals.clone();
    let site = site.clone();
    async move {
        match permit {
            Ok(permit) => {
                if let Err(error) = greet(site, stream, peer, endpoint, Box::new(permit)).await {
                    debug!(%peer, %error, "connection refused");
                }
            }
            // Nothing can be said in plain text there, or before the client has said which version it speaks.
            Err(_) if site.tls.is_some() || endpoint.tongue == Tongue::Mqtt => {}
            Err(_) => {
                if let Ok(_turn) = refusals.try_acquire_owned() {
                    let _ = timeout(Duration::from_secs(2), Box::pin(turn_away(stream))).await;
                }
            }
        }
    }
}

/// `--max-connections` is reached.
async fn turn_away(mut stream: Stream) -> io::Result<()> {
    let _ = read_head(&mut stream).await?;
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
    endpoint: Endpoint,
    permit: Box<dyn Any + Send>,
) -> io::Result<()> {
    let deadline = Instant::now() + site.rules.handshake_timeout;
    let (stream, peer) = if site.rules.proxied { behind_proxy(stream, peer, deadline).await? } else { (stream, peer) };
    let mut stream = match &site.tls {
        Some(identity) => shake_hands(identity, stream, deadline).await?,
        None => stream,
    };
    let connection = ConnectionInfo { peer, checks_host: endpoint.checks_host };
    if endpoint.tongue == Tongue::Mqtt {
        aside().await;
        Box::pin(mqtt::serve(site, stream, Carrier::Plain, &[], None, permit)).await;
        return Ok(());
    }
    if stream.is_http2() {
        return Box::pin(http::serve(site, stream, connection, Bytes::new(), permit)).await;
    }
    let head = timeout_at(deadline, read_head(&mut stream));
    let read = match head.await {
        Ok(Ok(Some(Asked { mut parts, read, len }))) => {
            parts.extensions.insert(Peer(peer.ip()));
            if connection.checks_host
                && let Err(refusal) = host::check_host(&site.rules, &parts)
            {
                return refuse(&mut stream, &refusal, parts.version == Version::HTTP_10).await;
            }
            if site.keys.is_some() || is_wide(&parts) {
                aside().await;
            }
            let early = read.slice(len..);
            let Route { owner, access } = route::route(&site, &parts).await;
            match owner {
                Owner::Balancer(_) if relay::is_ambiguous(&parts) => {
                    let refusal = Refusal::new(StatusCode::BAD_REQUEST, "Content-Length beside Transfer-Encoding");
                    return refuse(&mut stream, &refusal, false).await;
                }
                Owner::Balancer(balancer) if relay::is_direct(&parts) => {
                    aside().await;
                    return Box::pin(open_relay(&site, balancer, stream, access, parts, early, permit)).await;
                }
                Owner::Mqtt => {
                    aside().await;
                    return Box::pin(open_mqtt(site, stream, &parts, early, permit)).await;
                }
                Owner::Stream(wire, conversation) => {
                    let asked = match auth::authorize(&site, access, &mut parts) {
                        Ok(()) => subscribe::subscribe(&site, &parts, wire, conversation).await,
                        Err(refusal) => Err(refusal),
                    };
                    return open_stream(&site, stream, &parts, asked, early, permit).await;
                }
                _ => read,
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
            refuse(&mut stream, &refusal, false).await?;
            return Err(error);
        }
        Err(_) => {
            let late = Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time");
            return refuse(&mut stream, &late, false).await;
        }
    };
    aside().await;
    Box::pin(http::serve(site, stream, connection, read, permit)).await
}

/// Whether more is asked for than what is new: to look for a position, or to understand a filter, takes its time.
fn is_wide(parts: &Parts) -> bool {
    parts.uri.query().is_some() || parts.headers.contains_key("last-event-id")
}

/// A proxy says who it is that connects (`--proxy-protocol`).
async fn behind_proxy(mut stream: Stream, proxy: SocketAddr, deadline: Instant) -> io::Result<(Stream, SocketAddr)> {
    let told = timeout_at(deadline, proxied::read(&mut stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok((stream, told.unwrap_or(proxy)))
}

async fn shake_hands(identity: &Watched<Identity>, stream: Stream, deadline: Instant) -> io::Result<Stream> {
    aside().await;
    let Stream::Plain(stream) = stream.registered()? else { return Err(io::ErrorKind::NotConnected.into()) };
    let shaken = Box::pin(timeout_at(deadline, identity.get().accept(stream))).await;
    Ok(Stream::Tls(Box::new(shaken.map_err(|_| io::ErrorKind::TimedOut)??)))
}

async fn open_stream(
    site: &Site,
    mut stream: Stream,
    parts: &Parts,
    asked: Result<Subscription, Refusal>,
    early: Bytes,
    permit: Box<dyn Any + Send>,
) -> io::Result<()> {
    let subscription = match asked {
        Ok(subscription) => subscription,
        Err(refusal) => return refuse(&mut stream, &refusal, parts.version == Version::HTTP_10).await,
    };
    let chunked = !subscription.wire.is_websocket() && parts.version == Version::HTTP_11;
    let head = head::answer(subscription.status, &subscription.headers, chunked, subscription.wire).freeze();
    if let Some(reader) = hand_over(site, stream, subscription, Opened { head, chunked, early }, permit)? {
        site.shards.serve(reader).await;
    }
    Ok(())
}

async fn open_relay(
    site: &Arc<Site>,
    balancer: &Balancer,
    mut stream: Stream,
    access: RouteAccess,
    mut parts: Parts,
    early: Bytes,
    permit: Box<dyn Any + Send>,
) -> io::Result<()> {
    if let Err(refusal) = auth::authorize(site, access, &mut parts) {
        return refuse(&mut stream, &refusal, false).await;
    }
    relay::serve(site, balancer, stream, parts, early, permit).await
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
        Err(refusal) => return refuse(&mut stream, &refusal, parts.version == Version::HTTP_10).await,
    };
    let head = head::answer(StatusCode::SWITCHING_PROTOCOLS, &headers, false, Wire::Ws).freeze();
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
