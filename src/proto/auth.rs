//! What a request may do: the token that it brings is judged before anything else is said, not even whether what it
//! asks for exists.
//!
//! A token comes as `Authorization: Bearer`, as a WebSocket subprotocol `bearer.<token>` or as a cookie (browsers cannot
//! send headers with `WebSocket` and `EventSource`), never in the URL: URLs stand in logs.

use super::{
    origin::is_named_origin,
    route::RouteAccess,
    subscribe::{Peer, Refusal},
};
use crate::{
    site::{Rules, Site},
    token::Grant,
    units::now_ms,
};
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName},
    http::request::Parts,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The cookie that may hold a token.
const COOKIE: &str = "wsevent_token";
/// What stands before the token among the WebSocket subprotocols.
const PROTOCOL_PREFIX: &str = "bearer.";
/// A timer cannot wait for longer, and nobody needs it.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Checks that the request's token, where access is controlled, gives the right that its route needs, and leaves the
/// [`Grant`] in the request's extensions.
///
/// # Errors
/// 401 without a good token, 403 when the token does not cover the path.
pub fn authorize(site: &Site, access: RouteAccess, parts: &mut Parts) -> Result<(), Refusal> {
    let Some(keys) = &site.keys else { return Ok(()) };
    if matches!(access, RouteAccess::Public | RouteAccess::Deferred) {
        return Ok(());
    }
    let token = token_of(&site.rules, &parts.headers).ok_or_else(unknown)?;
    let grant = keys.get().judge(token, now_ms()).map_err(|why| {
        tracing::debug!(peer = ?parts.extensions.get::<Peer>(), why, "token refused");
        unknown()
    })?;
    let path = parts.uri.path();
    let covered = match access {
        RouteAccess::Public | RouteAccess::Deferred => true,
        RouteAccess::Subscribe => grant.may_subscribe(path),
        RouteAccess::Publish => grant.may_publish(path),
        RouteAccess::Write => grant.may_write(),
    };
    if !covered {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "the token does not cover this"));
    }
    parts.extensions.insert(Arc::new(grant));
    Ok(())
}

/// Without a good token.
pub fn unknown() -> Refusal {
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "a valid token is needed");
    refusal.with(header::WWW_AUTHENTICATE, "Bearer")
}

/// The token, wherever it stands; the most explicit place wins.
pub fn token_of<'a>(rules: &Rules, headers: &'a HeaderMap) -> Option<&'a str> {
    let bearer = values(headers, header::AUTHORIZATION).find_map(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let protocols = values(headers, header::SEC_WEBSOCKET_PROTOCOL).flat_map(|value| value.split(','));
    let protocol = || protocols.map(str::trim).find_map(|protocol| protocol.strip_prefix(PROTOCOL_PREFIX));
    bearer.or_else(protocol).or_else(|| cookie_of(rules, headers))
}

/// A browser sends cookies with whatever page asks it to: they count for our own pages and those of an origin that was
/// named, not for those that only `--allow-origin '*'` lets in.
fn cookie_of<'a>(rules: &Rules, headers: &'a HeaderMap) -> Option<&'a str> {
    if !is_named_origin(rules, headers) {
        return None;
    }
    let pairs = values(headers, header::COOKIE).flat_map(|value| value.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

/// What the request's token allows, where access is controlled.
pub fn grant(parts: &Parts) -> Option<&Arc<Grant>> {
    parts.extensions.get()
}

/// Whether what this request or connection says is published.
pub fn may_publish(site: &Site, parts: &Parts) -> bool {
    publishes(site, grant(parts).map(|grant| &**grant), parts.uri.path())
}

/// Whether who has this grant, or none, publishes to this path.
pub fn publishes(site: &Site, grant: Option<&Grant>, path: &str) -> bool {
    let rules = &site.rules;
    grant.map_or(rules.accept_publish && site.keys.is_none(), |grant| {
        // Where peers do not publish, a claim that names the path still may; a line of the token file says nothing.
        let accepted = rules.accept_publish || (rules.publish_by_right && !grant.is_static);
        accepted && grant.may_publish(path)
    })
}

/// Whether the token gives a link everything, whatever its audience (LINKS 24); `None` where there are no tokens.
pub fn is_relay(site: &Site, parts: &Parts) -> Option<bool> {
    site.keys.as_ref().map(|_| grant(parts).is_some_and(|grant| grant.relay))
}

/// When the token ends.
pub fn expiry(parts: &Parts) -> Option<Instant> {
    grant(parts)?.ends.map(instant_of)
}

/// A time in Unix milliseconds by the clock that never jumps.
pub fn instant_of(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms.saturating_sub(now_ms())).min(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn rules(allow_origin: &[&str]) -> Rules {
        Rules { allow_origin: allow_origin.iter().map(|&origin| origin.into()).collect(), ..Rules::default() }
    }

    #[test]
    fn a_token_may_stand_in_three_places() {
        for (fields, token) in [
            (&[("authorization", "Bearer abc")][..], Some("abc")),
            (&[("authorization", "bearer  abc ")], Some("abc")),
            (&[("authorization", "Basic abc")], None),
            (&[("authorization", "Basic abc"), ("cookie", "a=b; wsevent_token=xyz; c=d")], Some("xyz")),
            (&[("sec-websocket-protocol", "wsevent.v1, bearer.a.b.c")], Some("a.b.c")),
            (&[("authorization", "Bearer abc"), ("sec-websocket-protocol", "bearer.xyz")], Some("abc")),
            (&[("cookie", "not_wsevent_token=xyz")], None),
            (&[("cookie", "wsevent_token=xyz"), ("origin", "https://h"), ("host", "h")], Some("xyz")),
            (&[("cookie", "wsevent_token=xyz"), ("origin", "https://named"), ("host", "h")], Some("xyz")),
            (&[("cookie", "wsevent_token=xyz"), ("origin", "https://evil"), ("host", "h")], None),
        ] {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let headers: HeaderMap = fields.iter().map(pair).collect();
            assert_eq!(token_of(&rules(&["*", "https://named"]), &headers), token, "{fields:?}");
        }
    }
}
