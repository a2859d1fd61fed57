//! Requests for a script's routes.

use super::{answer::Answer, fault::Fault, request, routes::Found};
use crate::{
    proto::{body, origin, subscribe::Refusal},
    site::Site,
    topic::Manner,
};
use hyper::{
    Method, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    http::request::Parts,
};
use tracing::error;

/// Tells whether a script has a route for this request. A GET of a path that is also a script's stream is for the stream.
pub fn has_route(site: &Site, parts: &Parts) -> bool {
    let (path, reads) = (parts.uri.path(), matches!(parts.method, Method::GET | Method::HEAD));
    let is_stream = |path: &str| site.topic(path).is_some_and(|topic| topic.manner == Manner::Open);
    if path.starts_with("/-/") {
        return false;
    }
    match site.scripts.find(path, parts.method.as_str()) {
        None => false,
        Some(_) if reads && is_stream(path) => false,
        Some((_, _, Found::Other(_))) => parts.method != Method::OPTIONS,
        Some(_) => true,
    }
}

/// Calls the handler.
///
/// # Errors
/// 405 with the methods that there are, whatever is wrong with the body, 500 when the handler fails, 503 when too many
/// calls wait.
pub async fn answer(site: &Site, parts: &Parts, body: Incoming) -> Result<Answer, Refusal> {
    origin::check_origin(&site.rules, &parts.headers)?;
    let (script, version, handler) = match site.scripts.find(parts.uri.path(), parts.method.as_str()) {
        Some((script, version, Found::Handler(handler))) => (script, version, handler),
        Some((.., Found::Other(methods))) => return Err(not_allowed(&methods)),
        _ => return Err(Refusal::new(StatusCode::NOT_FOUND, "no route leads here")),
    };
    let body = match request::has_body(&parts.method) {
        true => body::read(body, site.rules.max_message, site.rules.handshake_timeout).await?,
        false => Default::default(),
    };
    let call = request::call(parts, &body, &script.name, &handler);
    let call = call.map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, why))?;
    let result = version.call("handle", call).await;
    let answer = result.and_then(|result| Answer::read(&result).map_err(Fault::Threw));
    answer.map_err(|fault| failed(&script.name, &handler, &fault))
}

fn not_allowed(methods: &[String]) -> Refusal {
    let mut refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this method means nothing here");
    if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
        refusal.headers.insert(header::ALLOW, methods);
    }
    refusal
}

/// What went wrong is for the log; who asked hears that it did.
fn failed(script: &str, handler: &str, fault: &Fault) -> Refusal {
    if *fault == Fault::Busy {
        let busy = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, fault.to_string());
        return busy.with(header::RETRY_AFTER, "1");
    }
    error!(script, handler, %fault, "the handler failed");
    let told = match fault {
        Fault::Threw(_) => format!("the handler {handler} failed"),
        other => format!("the handler {handler} {other}"),
    };
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, told)
}
