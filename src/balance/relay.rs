//! A stream or a WebSocket on a fresh connection: its request's head goes to a back end, the answer's head comes back,
//! and from there on bytes are relayed unread.
//!
//! A back end that does not answer, or not in HTTP, is left for the next one; the client has not seen a byte by then.

use super::{
    Balancer,
    answer::Answer,
    headers::{self, Arrival},
    is_failure,
    lease::Lease,
    search::{Hold, Search},
    splice::{self, Ways},
};
use crate::{
    inbound::Stream,
    net::{Connection, Io},
    proto::{
        error::refuse,
        subscribe::{Refusal, is_upgrade, wanted_wire},
    },
    site::Site,
};
use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap, Version,
    header::{self, HeaderValue},
    http::request::Parts,
};
use std::{any::Any, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tracing::debug;

/// Whether this is a request whose connection belongs to one stream from now on: nothing stands behind its head.
pub fn is_direct(parts: &Parts) -> bool {
    let fields = &parts.headers;
    let body = fields.contains_key(header::CONTENT_LENGTH) || fields.contains_key(header::TRANSFER_ENCODING);
    let host = fields.get_all(header::HOST).iter().count() == 1;
    parts.version == Version::HTTP_11 && host && !body && wanted_wire(parts).is_some()
}

/// Whether two servers could read differently where this request ends (RFC 9112 §6.1).
pub fn is_ambiguous(parts: &Parts) -> bool {
    parts.headers.contains_key(header::CONTENT_LENGTH) && parts.headers.contains_key(header::TRANSFER_ENCODING)
}

/// Serves a connection whose first request is [direct](is_direct). `early` is what came behind its head.
///
/// # Errors
/// What broke the connection.
pub async fn serve(
    site: &Arc<Site>,
    balancer: &Balancer,
    mut client: Stream,
    parts: Parts,
    early: Bytes,
    permit: Box<dyn Any + Send>,
) -> io::Result<()> {
    let upgrade = is_upgrade(&parts.headers);
    let arrival = Arrival::of(&parts, matches!(client, Stream::Tls(_)));
    let (lease, mut backend, answer) = match ask(balancer, &parts, arrival, upgrade).await {
        Ok(asked) => asked,
        Err(refusal) => return refuse(&mut client, &refusal, false).await,
    };
    client.write_all(&answer.to_bytes()).await?;
    let deadlines = balancer.settings.deadlines;
    let (ways, idle) = match (answer.status, answer.body_left()) {
        (101, _) => {
            backend.io().write_all(&early).await?;
            (Ways::Both, deadlines.idle)
        }
        (_, Some(left)) if upgrade => {
            return pass_body(&mut client, backend.io(), left, deadlines.answer).await;
        }
        // Whether it ends is between the two ends: who was refused does not wait for long.
        _ if upgrade => (Ways::Answer, Some(deadlines.answer)),
        // One of ours goes on behind the end of its input, and probes its reader.
        _ if answer.is_ours() => (Ways::Probed, deadlines.idle),
        _ => (Ways::Answer, deadlines.idle),
    };
    // A task that holds nothing of what came before: most of its life it is idle.
    let held = Held { site: site.clone(), lease, _relayed: balancer.count_relay(), _permit: permit };
    tokio::spawn(held.stay(client, backend, ways, idle));
    Ok(())
}

/// What belongs to a stream for as long as it is relayed.
struct Held {
    site: Arc<Site>,
    lease: Lease,
    _relayed: Arc<()>,
    _permit: Box<dyn Any + Send>,
}

impl Held {
    /// Relays until one of the two ends ends it, or it is time to move or to leave.
    async fn stay(self, client: Stream, backend: Connection, ways: Ways, idle: Option<Duration>) {
        tokio::select! {
            ended = splice::run(client, backend, ways, idle) => {
                drop(ended.inspect_err(|error| debug!(%error, "relay broke")));
            }
            () = self.lease.has_aged() => {}
            () = self.site.turn_to_leave() => {}
        }
    }
}

/// A back end's connection with its answer to this request.
async fn ask(
    balancer: &Balancer,
    parts: &Parts,
    arrival: Arrival,
    upgrade: bool,
) -> Result<(Lease, Connection, Answer), Refusal> {
    let mut fields = headers::for_backend(&parts.headers, arrival);
    let wish = if upgrade { "Upgrade" } else { "close" };
    fields.insert(header::CONNECTION, HeaderValue::from_static(wish));
    if upgrade {
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    let mut search = balancer.search(parts);
    loop {
        let (lease, mut backend) = search.next().await?;
        let head = request_head(&search.target(&lease, parts), &fields);
        let exchange = exchange(backend.io(), &head, upgrade);
        let answered = timeout(balancer.settings.deadlines.answer, exchange).await;
        match answered.unwrap_or_else(|_| Err("no answer in time".into())) {
            Ok(answer) if is_failure(answer.status) => {
                lease.failed(&format!("it answered {}", answer.status));
                if !search.has_more() {
                    return Ok((lease, backend, answer));
                }
            }
            Ok(mut answer) => {
                lease.succeeded();
                answer.set_cookie(search.cookie(&lease, arrival.tls));
                return Ok((lease, backend, answer));
            }
            Err(why) => lease.failed(&why),
        }
    }
}

async fn exchange(backend: &mut dyn Io, head: &[u8], upgrade: bool) -> Result<Answer, String> {
    // What was said before a connection broke still counts: reading tells how it ended.
    let _ = backend.write_all(head).await;
    Answer::read(backend, upgrade).await
}

fn request_head(target: &str, fields: &HeaderMap) -> Bytes {
    let mut text = BytesMut::from(format!("GET {target} HTTP/1.1\r\n").as_bytes());
    headers::write(fields, &mut text);
    text.freeze()
}

/// The rest of a refusal's body.
async fn pass_body(client: &mut Stream, backend: &mut dyn Io, left: u64, patience: Duration) -> io::Result<()> {
    let passed = timeout(patience, tokio::io::copy(&mut backend.take(left), client)).await;
    passed.map_err(|_| io::ErrorKind::TimedOut)??;
    client.shutdown().await
}
