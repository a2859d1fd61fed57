//! The check of a request's host against DNS rebinding.
//!
//! A page of `evil.example` can have its own name resolve to 127.0.0.1: to the browser it is then of the same origin as
//! whatever listens there, so the origin check does not stop it. The host that it asks for does, since it is still
//! `evil.example`. A server that is bound to loopback and asks for no tokens therefore answers only for names of this
//! machine and for those that its operator gave.

use super::subscribe::Refusal;
use crate::site::Rules;
use hyper::{StatusCode, header, http::request::Parts};
use std::net::IpAddr;

/// Checks that every host the request names is one that this server answers for. A request without any passes: browsers
/// always send one.
///
/// # Errors
/// 421 (RFC 9110 §15.5.20), with the option that allows the host.
pub fn check_host(rules: &Rules, parts: &Parts) -> Result<(), Refusal> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let hosts = parts.headers.get_all(header::HOST).iter().map(|host| host.as_bytes());
    for host in authority.into_iter().chain(hosts) {
        let host = std::str::from_utf8(host).unwrap_or("?");
        if !is_allowed(rules, host) {
            let why = format!("this server does not answer for the host {host:?}: name it with --allow-host");
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, why));
        }
    }
    Ok(())
}

fn is_allowed(rules: &Rules, authority: &str) -> bool {
    let name = without_port(authority);
    is_local(name)
        || rules.allow_host.iter().any(|allowed| matches_host(allowed, authority, name))
        || rules.allow_origin.iter().any(|origin| origin == "*" || is_host_of(origin, name))
}

/// `localhost`, a name below it (RFC 6761 §6.3), a name of one label, or a loopback address. Nobody can register a name of
/// one label in the public DNS, so no page of the web has one.
fn is_local(name: &str) -> bool {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let local = |name: &str| name.eq_ignore_ascii_case("localhost");
    let has_one_label = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && name.starts_with(|first: char| first.is_ascii_alphabetic());
    if has_one_label || local(bare) || bare.rsplit_once('.').is_some_and(|(_, last)| local(last)) {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// `*` is every host, `NAME` that name with any port, `NAME:PORT` with that one.
fn matches_host(allowed: &str, authority: &str, name: &str) -> bool {
    allowed == "*" || allowed.eq_ignore_ascii_case(name) || allowed.eq_ignore_ascii_case(authority)
}

fn is_host_of(origin: &str, name: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, authority)| without_port(authority).eq_ignore_ascii_case(name))
}

/// The host of `HOST:PORT`; an IPv6 address keeps its brackets.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn rules(hosts: &[&str], origins: &[&str]) -> Rules {
        let owned = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect();
        Rules { allow_host: owned(hosts), allow_origin: owned(origins), ..Rules::default() }
    }

    #[test]
    fn only_names_of_this_machine_and_named_hosts_pass() {
        let named = rules(&["events.example", "10.0.0.9:8080"], &["https://pages.example:444"]);
        for (host, passes) in [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("localhost.:8080", true),
            ("a.localhost:1", true),
            ("127.0.0.1", true),
            ("127.9.8.7:65535", true),
            ("[::1]:8080", true),
            ("[::ffff:127.0.0.1]", true),
            ("events.example", true),
            ("Events.Example:9", true),
            ("10.0.0.9:8080", true),
            ("pages.example:8080", true),
            ("10.0.0.9:8081", false),
            ("10.0.0.9", false),
            ("0.0.0.0:8080", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("x", true),
            ("my-machine_1:8080", true),
            ("2130706433", false),
            ("x y", false),
            ("evil.", false),
            ("evil.x", false),
            ("localhost@evil.example", false),
            ("evil.example:localhost", false),
            ("[::2]:8080", false),
            ("events.example.evil.example", false),
            ("", false),
        ] {
            let request = Request::get("/events").header("host", host).body(()).expect("a request");
            let checked = check_host(&named, &request.into_parts().0);
            assert_eq!(checked.is_ok(), passes, "{host}");
        }
    }

    #[test]
    fn every_host_that_a_request_names_is_checked() {
        let check = |uri: &str, hosts: &[&str], rules: &Rules| {
            let request = hosts.iter().fold(Request::get(uri), |request, host| request.header("host", *host));
            check_host(rules, &request.body(()).expect("a request").into_parts().0).map_err(|why| why.status.as_u16())
        };
        let none = rules(&[], &[]);
        assert_eq!(check("/events", &[], &none), Ok(()));
        assert_eq!(check("http://evil.example/events", &["localhost"], &none), Err(421));
        assert_eq!(check("http://localhost/events", &["evil.example"], &none), Err(421));
        assert_eq!(check("/events", &["localhost", "evil.example"], &none), Err(421));
        assert_eq!(check("/events", &["evil.example"], &rules(&["*"], &[])), Ok(()));
        assert_eq!(check("/events", &["evil.example"], &rules(&[], &["*"])), Ok(()));
    }
}
