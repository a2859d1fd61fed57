//! Pages from elsewhere: which may read here, and what tells them so (CORS).

use super::subscribe::Refusal;
use crate::{
    site::Rules,
    topic::{Manner, Topic},
};
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
};

/// A page on the web must not read a stream on somebody's localhost: same origin unless `--allow-origin` says more.
///
/// # Errors
/// 403.
pub fn check_origin(rules: &Rules, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let allowed = origin.to_str().is_ok_and(|origin| {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        is_same_origin(origin, host) || is_allowed(rules, origin)
    });
    let refuse = || Refusal::new(StatusCode::FORBIDDEN, "this origin may not read here: see --allow-origin");
    if allowed { Ok(()) } else { Err(refuse()) }
}

/// The same for a topic: a named stream is for every page where no origins were named.
///
/// # Errors
/// 403.
pub fn check_page(rules: &Rules, topic: &Topic, headers: &HeaderMap) -> Result<(), Refusal> {
    if is_for_all(rules, topic) { Ok(()) } else { check_origin(rules, headers) }
}

/// Whether any page may read it.
pub fn is_for_all(rules: &Rules, topic: &Topic) -> bool {
    topic.manner == Manner::Open && rules.allow_origin.is_empty()
}

fn is_allowed(rules: &Rules, origin: &str) -> bool {
    rules.allow_origin.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
}

/// Whether the request comes from no page at all, or from one of the same origin or of an origin that was named: what a
/// browser sends along by itself counts for these only.
pub fn is_named_origin(rules: &Rules, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let named = |origin: &str| rules.allow_origin.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
    origin.to_str().is_ok_and(|origin| is_same_origin(origin, host) || named(origin))
}

/// The authority of the origin is the Host; default ports may be left out on either side.
fn is_same_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default = if scheme == "https" { ":443" } else { ":80" };
    let bare = |authority: &str| authority.strip_suffix(default).unwrap_or(authority).to_ascii_lowercase();
    bare(authority) == bare(host)
}

/// What a page may read beside the answer.
const TOLD_HEADERS: &str = "Wsevent-Position, Wsevent-Oldest, Wsevent-More, Wsevent-Gap, Retry-After";

/// `Access-Control-Allow-Origin` for an allowed cross origin.
pub fn allow_origin(rules: &Rules, asked: &HeaderMap, headers: &mut HeaderMap) {
    let origin = asked.get(header::ORIGIN);
    if let Some(origin) = origin.filter(|origin| origin.to_str().is_ok_and(|origin| is_allowed(rules, origin))) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(TOLD_HEADERS));
        if is_named_origin(rules, asked) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// What tells a page that it may read the topic.
pub fn allow_page(rules: &Rules, topic: &Topic, asked: &HeaderMap, headers: &mut HeaderMap) {
    if is_for_all(rules, topic) { allow_all(headers) } else { allow_origin(rules, asked, headers) }
}

/// `Access-Control-Allow-Origin` for every page.
pub fn allow_all(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(TOLD_HEADERS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_origin_knows_default_ports() {
        for (origin, host, same) in [
            ("http://example.com:80", "example.com:80", true),
            ("http://example.com", "example.com:80", true),
            ("http://localhost:8080", "LOCALHOST:8080", true),
            ("https://localhost", "localhost:443", true),
            ("http://evil.example", "localhost:8080", false),
            ("http://localhost:81", "localhost", false),
            ("null", "localhost", false),
        ] {
            assert_eq!(is_same_origin(origin, host), same, "{origin} {host}");
        }
    }
}
