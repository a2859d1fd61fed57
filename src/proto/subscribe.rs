//! From a request to a stream subscription: what is asked, whether it is allowed, and the answer's head.

use super::{auth, cloudevents, dialog::Dialog, mqtt, origin, wire::Wire, ws::deflate};
use crate::{
    audience::{self, Viewer},
    balance::headers::is_forwarded,
    id::Since,
    link,
    log::Start,
    matcher::Match,
    registry::{self, Registry},
    site::Site,
    topic::{Manner, Topic},
    units::now_ms,
};
use hyper::{
    HeaderMap, Method, StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use url::form_urlencoded;

/// How long a link's answer waits for the upstream's window (LINKS 8).
const WINDOW_WAIT: Duration = Duration::from_secs(5);

/// Why a request is refused.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The JSON `error`.
    pub error: String,
    /// More headers, such as `Allow` or `Retry-After`.
    pub headers: Box<HeaderMap>,
}

impl Refusal {
    /// A refusal without extra headers.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Refusal { status, error: error.into(), headers: Box::default() }
    }

    /// With one more header.
    pub fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }
}

/// An accepted stream subscription.
pub struct Subscription {
    /// What is read.
    pub topic: Arc<Topic>,
    /// How.
    pub wire: Wire,
    /// From where: fixed before the answer, so that nothing falls between the two.
    pub start: Start,
    /// What was asked.
    pub since: Option<Since>,
    /// The answer's status: 101 or 200.
    pub status: StatusCode,
    /// The answer's headers, without those of framing.
    pub headers: HeaderMap,
    /// What the reader may and wants to see.
    pub viewer: Arc<Viewer>,
    /// What the reader's process calls itself.
    pub owner: Option<String>,
    /// Whether its messages are published.
    pub may_publish: bool,
    /// When its token ends.
    pub expires: Option<Instant>,
    /// Who hears what it says, if that decides what it sees.
    pub dialog: Option<Box<dyn Dialog>>,
}

/// How the request wants to read; `None` when it is no stream subscription.
pub fn wanted_wire(parts: &Parts) -> Option<Wire> {
    if parts.method != Method::GET {
        return None;
    }
    if is_upgrade(&parts.headers) {
        return Some(Wire::Ws);
    }
    accepts(&parts.headers).flatten()
}

/// Tells whether the request is the opening handshake of a WebSocket (RFC 6455 §4.1).
pub fn wants_websocket(parts: &Parts) -> bool {
    parts.method == Method::GET && is_upgrade(&parts.headers)
}

/// Tells whether the request is a browser's question before a request of another origin (Fetch, CORS-preflight request).
pub fn is_preflight(parts: &Parts) -> bool {
    let asks = parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    parts.method == Method::OPTIONS && asks && parts.headers.contains_key(header::ORIGIN)
}

/// The same for what is served here: whoever comes to a named stream gets it, unless JSON is asked for.
pub fn wire_here(site: &Site, parts: &Parts) -> Option<Wire> {
    wanted_wire(parts).or_else(|| {
        let says_nothing = parts.method == Method::GET && accepts(&parts.headers).is_none();
        let is_open = || site.topic(parts.uri.path()).is_some_and(|topic| topic.manner == Manner::Open);
        (says_nothing && is_open()).then_some(Wire::Sse)
    })
}

/// Whether the request asks to become a WebSocket.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, header::UPGRADE, "websocket")
}

/// The first type of ours that `Accept` names: a stream, or JSON.
fn accepts(headers: &HeaderMap) -> Option<Option<Wire>> {
    let types = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = types.flat_map(|value| value.split(',')).filter_map(|range| range.split(';').next());
    types.find_map(|range| match range.trim().to_ascii_lowercase().as_str() {
        "text/event-stream" => Some(Some(Wire::Sse)),
        "application/x-ndjson" => Some(Some(Wire::Ndjson)),
        "application/json" => Some(None),
        _ => None,
    })
}

/// Whether a header that is a list has this word.
pub fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// The topic of a request.
///
/// # Errors
/// 404: a remote peer cannot create a topic.
pub fn find_topic(site: &Site, parts: &Parts) -> Result<Arc<Topic>, Refusal> {
    let path = parts.uri.path();
    site.topic(path).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("no topic at {path}")))
}

/// Accepts a stream subscription; with a registry, that of the WebSocket on which clients speak with it. A link waits here
/// until the window upstream is known (LINKS 8).
///
/// # Errors
/// The refusal to answer with.
pub async fn subscribe(
    site: &Site,
    parts: &Parts,
    wire: Wire,
    conversation: Option<&Arc<Registry>>,
) -> Result<Subscription, Refusal> {
    if parts.version == Version::HTTP_11 && !parts.headers.contains_key(header::HOST) {
        // RFC 9112 §3.2.
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "Host is missing"));
    }
    let topic = conversation.map_or_else(|| find_topic(site, parts), |registry| Ok(registry.topic().clone()))?;
    origin::check_page(&site.rules, &topic, &parts.headers)?;
    let mut headers = HeaderMap::with_capacity(8);
    let (wire, status) = match wire {
        Wire::Ws | Wire::Link => {
            (upgrade(parts, conversation.is_none(), &mut headers)?, StatusCode::SWITCHING_PROTOCOLS)
        }
        other => (other, StatusCode::OK),
    };
    let owner = parts.headers.get(link::INSTANCE_HEADER).and_then(|value| value.to_str().ok()).map(String::from);
    // A second upstream of one instance numbers itself behind the name.
    if owner.as_deref().and_then(|owner| owner.split(' ').next()) == Some(&site.instance) {
        return Err(Refusal::new(StatusCode::LOOP_DETECTED, "this instance would be its own upstream"));
    }
    let hop = wire.is_link() || owner.is_some();
    let asked = hop || topic.manner == Manner::Asked;
    let since = if asked { wanted_start(parts)? } else { told_start(parts).transpose()? };
    if hop {
        wait_for_window(site, &topic).await?;
    }
    if wire == Wire::Sse && topic.log.ended() && is_at_end(&topic, since.as_ref()) {
        return Err(Refusal::new(StatusCode::NO_CONTENT, ""));
    }
    // A hop wants the events themselves.
    let wire = if site.rules.envelope && owner.is_none() { wire.enveloped() } else { wire };
    let wire = if site.rules.deflate { agree_to_deflate(wire, &parts.headers, &mut headers) } else { wire };
    describe(site, &topic, wire, &mut headers);
    origin::allow_page(&site.rules, &topic, &parts.headers, &mut headers);
    let may_publish = wire.protocol() == Wire::Ws && auth::may_publish(site, parts);
    let viewer = viewer(site, &topic, parts, is_trusted_hop(site, parts, wire), asked)?;
    let start = topic.log.seek(since.as_ref(), now_ms());
    let expires = auth::expiry(parts);
    let dialog = conversation.map(|registry| registry::http::converse(site, registry, parts)).transpose()?;
    let viewer = Arc::new(viewer);
    Ok(Subscription { topic, wire, start, since, status, headers, viewer, owner, may_publish, expires, dialog })
}

/// Every query parameter is metadata; where parameters can ask for something, `match`, or what a registry takes for one, is
/// also the reader's own filter.
///
/// # Errors
/// 400 for a match that is not a JSON object.
pub fn viewer(site: &Site, topic: &Topic, parts: &Parts, relay: bool, asked: bool) -> Result<Viewer, Refusal> {
    let metadata = audience::from_query(query_pairs(parts));
    let wanted = metadata.get("match").filter(|_| asked).map(|text| Match::parse(text)).transpose();
    let wanted = wanted.map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, format!("Invalid match: {why}")))?;
    let wanted = wanted.or_else(|| registry::http::wanted(site, topic, &metadata));
    Ok(Viewer { metadata, relay, wanted: wanted.map(|wanted| topic.wishes.share(wanted)) })
}

/// LINKS 24: events for others go only to a link with the right to them. Without any access control that is a link
/// from this machine that is no web page, that no proxy brought from elsewhere, and that does not say by metadata whom it
/// reads for.
fn is_trusted_hop(site: &Site, parts: &Parts, wire: Wire) -> bool {
    if let Some(relay) = auth::is_relay(site, parts) {
        return wire.is_link() && relay;
    }
    let local = parts.extensions.get::<Peer>().is_some_and(|peer| peer.0.to_canonical().is_loopback());
    let anonymous = query_pairs(parts).all(|(name, _)| matches!(name.as_str(), "since" | "last_event_id" | "match"));
    let direct = !parts.headers.contains_key(header::ORIGIN) && !is_forwarded(&parts.headers);
    wire.is_link() && local && anonymous && direct
}

/// Who asks, in a request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The answer to a WebSocket's handshake, but for the subprotocol (RFC 6455 §4.2). The key is only echoed: it need not be
/// sixteen bytes, as the curl lines that people have show.
///
/// # Errors
/// 400 and 426.
pub fn shake_hands(parts: &Parts, headers: &mut HeaderMap) -> Result<(), Refusal> {
    let asked = &parts.headers;
    if parts.version < Version::HTTP_11 {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "an upgrade needs HTTP/1.1"));
    }
    if !has_token(asked, header::CONNECTION, "upgrade") {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "Connection: Upgrade is missing"));
    }
    if asked.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13");
        return Err(refusal.with(header::SEC_WEBSOCKET_VERSION, "13"));
    }
    let Some(key) = asked.get(header::SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty()) else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"));
    };
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(())
}

/// The same with the subprotocol, which says how the reader reads.
///
/// # Errors
/// See [`shake_hands`].
pub fn upgrade(parts: &Parts, may_link: bool, headers: &mut HeaderMap) -> Result<Wire, Refusal> {
    shake_hands(parts, headers)?;
    let asked = &parts.headers;
    if mqtt::upgrade::is_offered(parts) {
        // Its first packet would be published, with the password in it.
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "MQTT is not spoken here"));
    }
    if may_link && has_token(asked, header::SEC_WEBSOCKET_PROTOCOL, link::SUBPROTOCOL) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(link::SUBPROTOCOL));
        return Ok(Wire::Link);
    }
    if has_token(asked, header::SEC_WEBSOCKET_PROTOCOL, cloudevents::SUBPROTOCOL) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(cloudevents::SUBPROTOCOL));
        return Ok(Wire::CloudWs);
    }
    if has_token(asked, header::SEC_WEBSOCKET_PROTOCOL, link::PLAIN_SUBPROTOCOL) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(link::PLAIN_SUBPROTOCOL));
    }
    Ok(Wire::Ws)
}

/// RFC 7692 §5.1, for the wire forms that know compression.
fn agree_to_deflate(wire: Wire, asked: &HeaderMap, headers: &mut HeaderMap) -> Wire {
    let offers = asked.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let answer = deflate::accept(offers).and_then(|answer| HeaderValue::from_str(&answer).ok());
    match (wire.deflated(), answer) {
        (Some(deflated), Some(answer)) => {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, answer);
            deflated
        }
        _ => wire,
    }
}

/// What the answer says about the stream: type, window, path, policy, limit.
fn describe(site: &Site, topic: &Topic, wire: Wire, headers: &mut HeaderMap) {
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    match wire.protocol() {
        Wire::Sse => put("content-type", "text/event-stream".into()),
        Wire::Link => {}
        Wire::Ws => return,
        _ => put("content-type", "application/x-ndjson".into()),
    }
    put(link::VERSION_HEADER, "v1".into());
    if let Some(window) = topic.log.window() {
        put(link::WINDOW_HEADER, link::window_text(&window));
    }
    put(link::PATH_HEADER, path_text(site, topic));
    if let Some(view) = topic.view() {
        put(link::VIEW_HEADER, view);
    }
    put(link::POLICY_HEADER, topic.policy().to_string());
    put(link::MAX_MESSAGE_HEADER, site.rules.max_message.to_string());
    if !wire.is_link() {
        put("cache-control", "no-store, no-transform".into());
        put("x-accel-buffering", "no".into());
    }
}

/// This instance and those up to the origin (LINKS 25).
fn path_text(site: &Site, topic: &Topic) -> String {
    let upstream = topic.provenance();
    let separator = if upstream.is_empty() { "" } else { "," };
    format!("{}{separator}{upstream}", site.instance)
}

/// A hop's answer waits for the upstream's window (LINKS 8); a refusal says where it stands all the same, so that a
/// loop of hops that all wait for each other is found.
///
/// # Errors
/// 503 with `Retry-After`.
pub async fn wait_for_window(site: &Site, topic: &Topic) -> Result<(), Refusal> {
    let mut changes = topic.log.watch();
    let known = async {
        while topic.log.window().is_none() {
            if changes.changed().await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(WINDOW_WAIT, known).await.map_err(|_| {
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the upstream is not connected yet");
        let mut refusal = refusal.with(header::RETRY_AFTER, "1");
        if let Ok(path) = HeaderValue::from_str(&path_text(site, topic)) {
            refusal.headers.insert(HeaderName::from_static(link::PATH_HEADER), path);
        }
        refusal
    })
}

/// A reader that comes back to a stream that has ended, having seen all of it (LINKS 18).
fn is_at_end(topic: &Topic, since: Option<&Since>) -> bool {
    matches!((since, topic.log.last()), (Some(Since::After(id)), Some(last)) if *id == last)
}

/// `Last-Event-ID`, else `?since=` or `?last_event_id=`.
///
/// # Errors
/// 400 with the parameter's name.
pub fn wanted_start(parts: &Parts) -> Result<Option<Since>, Refusal> {
    let query = || {
        let mut pairs = query_pairs(parts).filter(|(_, value)| !value.is_empty());
        pairs.find_map(|(name, value)| match name.as_str() {
            "since" | "last_event_id" => Some(start(&name, &value)),
            _ => None,
        })
    };
    told_start(parts).or_else(query).transpose()
}

/// `Last-Event-ID` alone.
fn told_start(parts: &Parts) -> Option<Result<Since, Refusal>> {
    let value = parts.headers.get("last-event-id")?.to_str().unwrap_or("?").trim();
    (!value.is_empty()).then(|| start("Last-Event-ID", value))
}

fn start(name: &str, value: &str) -> Result<Since, Refusal> {
    Since::parse(value).map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, format!("Invalid {name}: {why}")))
}

/// The query string, decoded as forms are.
pub fn query_pairs(parts: &Parts) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn accept_chooses_the_first_type_it_names() {
        for (accept, wire) in [
            ("text/event-stream", Some(Some(Wire::Sse))),
            ("application/x-ndjson;q=0.9", Some(Some(Wire::Ndjson))),
            ("application/json, text/event-stream", Some(None)),
            ("*/*", None),
            ("text/html,application/xhtml+xml", None),
        ] {
            assert_eq!(accepts(&headers(&[("accept", accept)])), wire, "{accept}");
        }
    }

    #[test]
    fn tokens_are_found_in_lists() {
        let asked = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert!(is_upgrade(&asked) && has_token(&asked, header::CONNECTION, "upgrade"));
    }
}
