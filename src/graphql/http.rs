//! `/graphql/sse` by every method that clients use, and the door of the WebSocket at `/graphql`.

use super::{
    Asker, Call, Subscriptions,
    document::{self, Request},
    frames::Frames,
    operation::{Operation, Told},
    shape::errors,
    shared::{Shared, Wrong},
    socket,
};
use crate::{
    audience::{self, Viewer},
    id::Since,
    inbound::InputEnd,
    log::Gap,
    proto::{
        auth, body, origin, sse,
        subscribe::{self, Refusal, query_pairs},
        wire::Wire,
    },
    site::Site,
};
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    stream::{self, SelectAll},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::{Frame, Incoming},
    header::{self, HeaderValue},
    http::request::Parts,
    upgrade::OnUpgrade,
};
use std::{
    any::Any,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};
use tokio::sync::watch;

const SSE: &str = "/graphql/sse";
const SOCKET: &str = "/graphql";
/// Parameters that are ours; all others are metadata.
const OURS: [&str; 5] = ["query", "variables", "operationName", "extensions", "token"];
/// Where the token of a shared stream stands, else in a parameter.
const TOKEN: &str = "x-graphql-event-stream-token";
const METHODS: &str = "GET, POST, PUT, DELETE, OPTIONS";
/// What a page may send beside its request.
const ASKED_HEADERS: &str = "Content-Type, Authorization, Last-Event-ID, X-GraphQL-Event-Stream-Token";

/// Of an answer.
pub type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// How a request's connection becomes a WebSocket.
pub struct Door {
    /// Resolves behind the answer.
    pub upgrade: OnUpgrade,
    /// Released when the connection ends.
    pub permit: Box<dyn Any + Send>,
}

/// Tells whether operations are served at this path.
pub fn is_endpoint(path: &str) -> bool {
    matches!(path, SSE | SOCKET)
}

/// Answers one.
///
/// # Errors
/// The refusal to answer with.
pub async fn answer(
    site: &Arc<Site>,
    graphql: &Arc<Subscriptions>,
    parts: &Parts,
    body: Incoming,
    door: Door,
) -> Result<Response<Body>, Refusal> {
    let for_all = site.rules.allow_origin.is_empty();
    if !for_all {
        origin::check_origin(&site.rules, &parts.headers)?;
    }
    let mut response = match (parts.uri.path(), &parts.method) {
        (_, &Method::OPTIONS) => preflight(),
        (SOCKET, &Method::GET) if subscribe::is_upgrade(&parts.headers) => {
            return socket::open(site, graphql, parts, door);
        }
        (SOCKET, _) => {
            let why = "a WebSocket with the subprotocol graphql-transport-ws is served here, results over SSE at /graphql/sse";
            let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, why);
            return Err(refusal.with(header::UPGRADE, "websocket"));
        }
        (_, &Method::GET) => get(site, graphql, parts)?,
        (_, &Method::POST) => post(site, graphql, parts, body).await?,
        (_, &Method::PUT) => {
            let token = graphql.shared.reserve().map_err(refusal)?;
            text(StatusCode::CREATED, "text/plain; charset=utf-8", token)
        }
        (_, &Method::DELETE) => stop(&graphql.shared, parts)?,
        _ => {
            let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this method means nothing here");
            return Err(refusal.with(header::ALLOW, METHODS));
        }
    };
    if for_all {
        origin::allow_all(response.headers_mut());
    }
    Ok(response)
}

fn get(site: &Arc<Site>, graphql: &Arc<Subscriptions>, parts: &Parts) -> Result<Response<Body>, Refusal> {
    let params = audience::from_query(query_pairs(parts));
    if let Some(token) = token(parts, &params) {
        let open = graphql.shared.open(token).map_err(refusal)?;
        let frames = stream::unfold(open, |mut open| async move { Some((open.frames.recv().await?, open)) });
        return Ok(streaming(site, parts, frames));
    }
    let mut asker = Asker::new(parts, &params, Wire::Sse);
    match Request::from_params(&params) {
        Ok(None) => {
            // Of many streams no one position can be told.
            asker.since = None;
            Ok(streaming(site, parts, listen(graphql.clone(), asker)))
        }
        Ok(Some(request)) => Ok(operate(site, graphql, parts, &asker, &request, Frames::Named)),
        Err(why) => Ok(streaming(site, parts, stream::iter([Frames::Named.failure(&why)]))),
    }
}

async fn post(
    site: &Arc<Site>,
    graphql: &Arc<Subscriptions>,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    let body = body::read(body, site.rules.max_message, site.rules.handshake_timeout).await?;
    let params = audience::from_query(query_pairs(parts));
    let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why);
    let json = serde_json::from_slice(&body).map_err(|why| bad(format!("the body is not JSON: {why}")))?;
    let request = Request::from_json(&json).map_err(bad)?;
    let mut asker = Asker::new(parts, &params, Wire::Sse);
    if let Some(token) = token(parts, &params) {
        asker.since = None;
        let id = request.operation_id.as_deref().filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| bad("extensions.operationId is missing".into()))?;
        graphql.shared.check(token, id).map_err(refusal)?;
        let begun = graphql.begin(&asker, &request).map(|(operation, _)| operation);
        graphql.shared.start(token, id, begun).map_err(refusal)?;
        return Ok(text(StatusCode::ACCEPTED, "text/plain; charset=utf-8", ""));
    }
    let accepted = parts.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_named = accepted.into_iter().any(|types| types.to_ascii_lowercase().contains("text/event-stream"));
    if !is_named && !document::is_subscription(&request) {
        let why = document::read(&request).err().unwrap_or_default();
        return Ok(text(StatusCode::BAD_REQUEST, "application/json", errors(&why)));
    }
    let frames = if is_named { Frames::Named } else { Frames::Unnamed };
    Ok(operate(site, graphql, parts, &asker, &request, frames))
}

/// One operation as a stream of its own, or why not.
fn operate(
    site: &Arc<Site>,
    graphql: &Subscriptions,
    parts: &Parts,
    asker: &Asker,
    request: &Request,
    frames: Frames,
) -> Response<Body> {
    match graphql.begin(asker, request) {
        Ok((operation, gap)) => {
            // Whoever asks for a position reads with an `EventSource`, which passes over names that nobody listens to.
            let gap = gap.map(|gap: Arc<Gap>| Bytes::from(sse::gap(&gap)));
            streaming(site, parts, stream::iter(gap).chain(results(operation, frames)))
        }
        Err(why) => streaming(site, parts, stream::iter([frames.failure(&why)])),
    }
}

fn results(operation: Operation, frames: Frames) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(Some((operation, frames)), |running| async {
        let (mut operation, frames) = running?;
        let (bytes, last) = frames.write(operation.next().await);
        Some((bytes, (!last).then_some((operation, frames))))
    })
}

/// What a client hears that names no subscription.
struct Listening {
    graphql: Arc<Subscriptions>,
    asker: Asker,
    known: HashSet<String>,
    changed: watch::Receiver<u64>,
    all: SelectAll<stream::BoxStream<'static, (String, Told)>>,
}

fn listen(graphql: Arc<Subscriptions>, asker: Asker) -> impl Stream<Item = Bytes> + Send {
    let changed = graphql.changed.subscribe();
    let mut listening = Listening { graphql, asker, known: HashSet::new(), changed, all: SelectAll::new() };
    // Before the answer: whatever is said behind it is heard.
    listening.add(false);
    stream::unfold(listening, |mut listening| async { Some((listening.next().await?, listening)) })
}

impl Listening {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                Some((name, told)) = self.all.next() => match told {
                    Told::Next(_, result) => return Some(Frames::Unnamed.write(Told::Next(None, result)).0),
                    // Where it is there again under this name, it is listened to again.
                    Told::Complete | Told::Error(_) => {
                        self.known.remove(&name);
                        self.add(true);
                    }
                    Told::Slow => return None,
                },
                changed = self.changed.changed() => {
                    changed.ok()?;
                    self.add(true);
                }
            }
        }
    }

    fn add(&mut self, later: bool) {
        for (name, operation) in self.graphql.begin_others(&self.asker, &mut self.known, later) {
            let told = stream::unfold(Some((name, operation)), |running| async {
                let (name, mut operation) = running?;
                let told = operation.next().await;
                let goes_on = matches!(told, Told::Next(..));
                Some(((name.clone(), told), goes_on.then_some((name, operation))))
            });
            self.all.push(told.boxed());
        }
    }
}

fn stop(shared: &Shared, parts: &Parts) -> Result<Response<Body>, Refusal> {
    let params = audience::from_query(query_pairs(parts));
    let bad = |why| Refusal::new(StatusCode::BAD_REQUEST, why);
    let token = token(parts, &params).ok_or_else(|| bad("the stream's token is missing"))?;
    let id = operation_id(parts.uri.query().unwrap_or("")).ok_or_else(|| bad("operationId is missing"))?;
    shared.stop(token, &id).map_err(refusal)?;
    Ok(text(StatusCode::OK, "text/plain; charset=utf-8", ""))
}

/// Clients put `?operationId=` behind whatever URL they were given, which may have a query.
fn operation_id(query: &str) -> Option<String> {
    let pairs = query.split(['?', '&']).flat_map(|pair| url::form_urlencoded::parse(pair.as_bytes()));
    pairs.filter(|(name, _)| name == "operationId").last().map(|(_, id)| id.into_owned())
}

fn token<'a>(parts: &'a Parts, params: &'a HashMap<String, String>) -> Option<&'a str> {
    let header = parts.headers.get(TOKEN).and_then(|token| token.to_str().ok());
    header.or_else(|| params.get("token").map(String::as_str)).filter(|token| !token.is_empty())
}

fn refusal(wrong: Wrong) -> Refusal {
    match wrong {
        Wrong::Unknown => Refusal::new(StatusCode::NOT_FOUND, "there is no stream with this token"),
        Wrong::Taken => Refusal::new(StatusCode::CONFLICT, "the stream is open, or the operation runs"),
        Wrong::TooMany => Refusal::new(StatusCode::TOO_MANY_REQUESTS, "there are too many of them"),
    }
}

impl Asker {
    /// Who sent this request.
    pub(super) fn new(parts: &Parts, params: &HashMap<String, String>, wire: Wire) -> Self {
        let about = params.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
        let metadata: HashMap<_, _> = about.map(|(name, value)| (name.clone(), value.clone())).collect();
        let since = parts.headers.get("last-event-id").and_then(|value| value.to_str().ok());
        Asker {
            since: since.and_then(|id| Since::parse(id.trim()).ok()),
            grant: auth::grant(parts).cloned(),
            call: Call {
                method: parts.method.clone(),
                path: parts.uri.path().to_owned(),
                headers: parts.headers.clone(),
                query: metadata.clone(),
                ..Call::default()
            },
            viewer: Arc::new(Viewer { metadata, ..Viewer::default() }),
            form: wire.protocol().index(),
        }
    }
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn preflight() -> Response<Body> {
    let mut response = text(StatusCode::NO_CONTENT, "text/plain", "");
    let headers: &mut HeaderMap = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ASKED_HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Pieces as they come, comments while none do, until nothing more will come or the client must leave.
fn streaming(site: &Arc<Site>, parts: &Parts, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let quiet = site.tasks.tuning().keep_alive;
    let opening = stream::iter([Bytes::from_static(b"retry: 1000\n\n")]);
    let leaves = Box::pin(must_leave(site.clone(), auth::expiry(parts)));
    let input_end = parts.extensions.get::<InputEnd>().cloned();
    let open = (opening.chain(pieces).boxed(), leaves, input_end, site.tasks.enter());
    let frames = stream::unfold(open, move |(mut pieces, mut leaves, input_end, counted)| async move {
        let piece = tokio::select! {
            piece = pieces.next() => piece?,
            () = tokio::time::sleep(quiet) => Bytes::from_static(b":\n\n"),
            // A client that is gone, not only silent, answers this with a reset.
            () = InputEnd::told(input_end.as_ref()) => Wire::Sse.probe(),
            () = &mut leaves => return None,
        };
        Some((Ok(Frame::data(piece)), (pieces, leaves, input_end, counted)))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Resolves when the token has ended, or in a drain.
async fn must_leave(site: Arc<Site>, ends: Option<Instant>) {
    tokio::select! {
        () = site.turn_to_leave() => {}
        () = super::socket::until(ends) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_found_behind_any_question_mark() {
        for (query, id) in [
            ("operationId=1", Some("1")),
            ("user_id=u1?operationId=a-b", Some("a-b")),
            ("user_id=u1&operationId=a%20b", Some("a b")),
            ("a=1&token=x?operationId=2", Some("2")),
            ("user_id=u1", None),
            ("", None),
        ] {
            assert_eq!(operation_id(query).as_deref(), id, "{query}");
        }
    }
}
