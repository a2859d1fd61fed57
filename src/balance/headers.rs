//! What a proxy changes in header fields: those of one connection go, those that say who asked come (RFC 9110 §7.6).

use crate::proto::{head, subscribe::Peer};
use bytes::BytesMut;
use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use std::net::{IpAddr, Ipv4Addr};

/// Fields that are about one connection even where `Connection` does not name them.
const OF_ONE_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What we call ourselves in `Via`.
const NAME: &str = "wsevent";

/// How a request came to us.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Who asks.
    pub peer: IpAddr,
    /// Whether over TLS.
    pub tls: bool,
}

impl Arrival {
    /// How this request did.
    pub fn of(parts: &Parts, tls: bool) -> Self {
        let peer = parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
        Arrival { peer: peer.to_canonical(), tls }
    }
}

/// The lines of a head behind its first one, and the blank line.
pub fn write(fields: &HeaderMap, to: &mut BytesMut) {
    head::put_fields(fields, to);
    to.extend_from_slice(b"\r\n");
}

/// A field in which a request says by itself that somebody forwarded it.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    [header::FORWARDED, FORWARDED_FOR, header::VIA].iter().any(|name| headers.contains_key(name))
}

/// Takes out what is about one connection only. Nobody can take out `Host` or a body's length by naming it in `Connection`.
pub fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> = named
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| ![header::HOST, header::CONTENT_LENGTH].contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_ONE_CONNECTION {
        headers.remove(name);
    }
}

/// The fields of a request as the back end gets them.
pub fn for_backend(asked: &HeaderMap, arrival: Arrival) -> HeaderMap {
    let trailers = asked.get(header::TE).is_some_and(|te| te.to_str().is_ok_and(|te| te.contains("trailers")));
    let mut headers = asked.clone();
    strip(&mut headers);
    // How long the body is, is said anew.
    headers.remove(header::CONTENT_LENGTH);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(&mut headers);
    let proto = if arrival.tls { "https" } else { "http" };
    let (peer, host) = (arrival.peer, asked.get(header::HOST).cloned());
    append(&mut headers, header::FORWARDED, &forwarded(peer, host.as_ref(), proto));
    append(&mut headers, FORWARDED_FOR, &peer.to_string());
    append(&mut headers, header::VIA, &format!("1.1 {NAME}"));
    // The first in front of the back ends knows; those behind it keep what it said.
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static(proto));
    if let Some(host) = host {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
    headers
}

/// HTTP/2 may cut cookies apart, HTTP/1.1 must not (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// RFC 7239: an IPv6 address is quoted and in brackets, and so is whatever is no token.
fn forwarded(peer: IpAddr, host: Option<&HeaderValue>, proto: &str) -> String {
    let by = match peer {
        IpAddr::V4(peer) => peer.to_string(),
        IpAddr::V6(peer) => format!("\"[{peer}]\""),
    };
    let host = host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\']));
    let host = host.map_or(String::new(), |host| format!(";host=\"{host}\""));
    format!("for={by}{host};proto={proto}")
}

/// Adds to the list that is there, as one field.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let before = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok());
    let list: Vec<&str> = before.chain([value]).collect();
    if let Ok(value) = HeaderValue::from_str(&list.join(", ")) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn what_is_of_one_connection_stays_there() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Private ,host"),
            ("x-private", "1"),
            ("host", "h"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("cookie", "a=b"),
            ("traceparent", "00-1-2-3"),
        ]);
        strip(&mut headers);
        assert_eq!(headers, map(&[("host", "h"), ("cookie", "a=b"), ("traceparent", "00-1-2-3")]));
    }

    #[test]
    fn a_back_end_is_told_who_asked() {
        let arrival = |peer: &str, tls| Arrival { peer: peer.parse().expect("an address"), tls };
        let asked = [("host", "h:1"), ("content-length", "3"), ("cookie", "a=1"), ("cookie", "b=2")];
        let first = for_backend(&map(&asked), arrival("10.0.0.1", false));
        assert_eq!(first["cookie"], "a=1; b=2");
        assert_eq!(first["forwarded"], "for=10.0.0.1;host=\"h:1\";proto=http");
        assert_eq!(first["x-forwarded-for"], "10.0.0.1");
        assert!(!first.contains_key("content-length"));
        let second = for_backend(&first, arrival("::1", true));
        assert_eq!(second["forwarded"], "for=10.0.0.1;host=\"h:1\";proto=http, for=\"[::1]\";host=\"h:1\";proto=https");
        assert_eq!(
            (&second["x-forwarded-for"], &second["x-forwarded-proto"]),
            (&HeaderValue::from_static("10.0.0.1, ::1"), &HeaderValue::from_static("http"))
        );
        assert_eq!(second["via"], "1.1 wsevent, 1.1 wsevent");
        assert!(is_forwarded(&first) && !is_forwarded(&map(&[("host", "h")])));
    }
}
