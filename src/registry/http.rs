//! The registry's HTTP API: from a request to what it asks, and from the answer to JSON. What is asked is in `routes`.

use super::{Registry, access, conversation::Conversation, routes};
use crate::{
    matcher::Match,
    proto::{
        auth, body,
        dialog::Dialog,
        origin,
        subscribe::{Peer, Refusal, query_pairs},
    },
    recorder::AppendError,
    site::Site,
    topic::Topic,
};
use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode, body::Incoming, header, http::request::Parts};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

/// What can be asked, for programs (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("openapi.json");

/// Members of events that readers name by query parameters, and where they are.
const NAMED: [(&str, &str); 3] = [("event", "event"), ("serviceName", "data.serviceName"), ("nodeId", "data.nodeId")];

/// A request, taken apart.
pub struct Asked {
    /// Path segments, decoded.
    pub path: Vec<String>,
    /// The query string's last value of each name, where it is not empty.
    pub query: HashMap<String, String>,
    /// The body's members; none without a body.
    pub body: Map<String, Value>,
    /// Who asks.
    pub peer: IpAddr,
    /// The request's headers.
    pub headers: HeaderMap,
}

impl Asked {
    /// A parameter, from the query string.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Beside the usual ones.
    pub headers: Box<HeaderMap>,
    /// JSON, unless the headers say otherwise.
    pub body: Bytes,
}

impl Answer {
    /// With a JSON body.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        Answer { status, headers: Box::default(), body: body.to_string().into() }
    }

    /// 200.
    pub fn ok(body: &Value) -> Self {
        Answer::json(StatusCode::OK, body)
    }

    /// `{"error": …}`.
    pub fn error(status: StatusCode, error: &str) -> Self {
        Answer::json(status, &json!({ "error": error }))
    }

    /// 400.
    pub fn bad(error: &str) -> Self {
        Answer::error(StatusCode::BAD_REQUEST, error)
    }

    /// `{"message": …}`: not found, and not the fault of who asks.
    pub fn missing(message: &str) -> Self {
        Answer::json(StatusCode::NOT_FOUND, &json!({ "message": message }))
    }

    /// With one more header.
    pub fn with(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.insert(name, value);
        }
        self
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Answer { headers: refusal.headers, ..Answer::error(refusal.status, &refusal.error) }
    }
}

impl From<AppendError> for Answer {
    fn from(error: AppendError) -> Self {
        let refusal = Answer::error(StatusCode::SERVICE_UNAVAILABLE, &format!("not changed: {error}"));
        refusal.with(header::RETRY_AFTER, "1")
    }
}

/// What is said with the client of a WebSocket. Whose request brings a token need not say it again.
///
/// # Errors
/// 401 for a token that is not good.
pub fn converse(site: &Site, registry: &Registry, parts: &Parts) -> Result<Box<dyn Dialog>, Refusal> {
    let (access, path) = (registry.access.clone(), &registry.topic.path);
    let token = access.as_ref().and_then(|access| Some((access, auth::token_of(&site.rules, &parts.headers)?)));
    let member = token.map(|(access, token)| access.admit(token, path).ok_or_else(auth::unknown)).transpose()?;
    Ok(Box::new(Conversation::new(access, path, member)))
}

/// Which events a reader of the registry's topic names by the query string, each with exactly that value.
pub fn wanted(site: &Site, topic: &Topic, query: &HashMap<String, String>) -> Option<Match> {
    site.registry.as_ref().filter(|registry| registry.topic.path == topic.path)?;
    let named = |(name, path): &(&str, &str)| Some(((*path).to_owned(), query.get(*name)?.as_str().into()));
    let fields: Map<String, Value> = NAMED.iter().filter_map(named).collect();
    (!fields.is_empty()).then(|| Match::any(vec![fields]))
}

/// Whether a request changes what only some may change.
pub fn is_protected(registry: &Registry, parts: &Parts) -> bool {
    let (path, access) = (path_of(parts), registry.access.as_ref());
    let writes = !matches!(parts.method, Method::GET | Method::HEAD);
    match &path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["signin" | "refresh-token"] => false,
        ["config", "set" | "delete"] => writes,
        _ => writes && access.is_some_and(|access| access.protect_writes),
    }
}

fn path_of(parts: &Parts) -> Vec<String> {
    let decode = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
    parts.uri.path().split('/').skip(1).map(decode).collect()
}

/// Answers a request.
pub async fn answer(site: &Site, registry: &Registry, parts: &Parts, body: Incoming) -> Answer {
    let mut answer = match asked(site, parts, body).await {
        Ok(asked) if asked.path == ["signin"] && parts.method == Method::POST => {
            access::sign_in(registry, &asked).await
        }
        Ok(asked) => routes::answer(registry, &parts.method, &asked),
        Err(refusal) => refusal,
    };
    registry.count(answer.status.is_client_error());
    origin::allow_origin(&site.rules, &parts.headers, &mut answer.headers);
    answer
}

async fn asked(site: &Site, parts: &Parts, body: Incoming) -> Result<Asked, Answer> {
    origin::check_origin(&site.rules, &parts.headers)?;
    let body = match parts.method {
        Method::GET | Method::HEAD => Map::new(),
        _ => members(&body::read(body, site.rules.max_message, site.rules.handshake_timeout).await?)?,
    };
    Ok(Asked {
        path: path_of(parts),
        query: query_pairs(parts).filter(|(_, value)| !value.is_empty()).collect(),
        body,
        peer: parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0.to_canonical()),
        headers: parts.headers.clone(),
    })
}

fn members(body: &[u8]) -> Result<Map<String, Value>, Answer> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(Answer::bad("Invalid JSON")),
    }
}
