//! Redirects of an HTTP upstream: where they may lead, and what a request there shows about us.
//!
//! Header fields that were typed, tokens, passwords and our certificate are for the upstream's origin alone (RFC 9110
//! §15.4). TLS is not left for plain HTTP, where everybody on the way could read and change the stream.

use super::{
    http::plain,
    upstream::{Failure, Upstream},
};
use crate::net::{Dialer, redacted};
use std::io;
use url::Url;

/// Where a request goes: to the upstream, or on from there.
pub struct RequestTarget {
    /// `http` or `https`.
    pub url: Url,
    /// How to connect there.
    pub dialer: Dialer,
    /// Whether no redirect has left the upstream's origin so far.
    is_ours: bool,
}

impl RequestTarget {
    /// The upstream itself.
    pub fn new(upstream: &Upstream) -> Self {
        RequestTarget { url: plain(&upstream.url), dialer: upstream.dialer.clone(), is_ours: true }
    }

    /// The header lines that a request shows; none to another origin, nor to the first one on the way back from there.
    ///
    /// # Errors
    /// When there is no token in the token file.
    pub fn credentials(&self, upstream: &Upstream) -> io::Result<Vec<(String, String)>> {
        if self.is_ours { upstream.credentials.lines(&upstream.url) } else { Ok(Vec::new()) }
    }

    /// Goes where a `Location` field leads.
    ///
    /// # Errors
    /// [`Failure::NoStream`] for one that is not followed.
    pub fn follow(&mut self, location: Option<&str>) -> Result<(), Failure> {
        let refused = |why: &str| Failure::NoStream(format!("a redirect {why} is not followed"));
        let to = location.and_then(|to| self.url.join(to).ok()).ok_or_else(|| refused("to nowhere"))?;
        match (self.url.scheme(), to.scheme()) {
            ("https", "http") => return Err(refused("from https to http")),
            (_, "http" | "https") => {}
            (_, other) => return Err(refused(&format!("to {other}"))),
        }
        if self.url.origin() != to.origin() {
            self.is_ours = false;
            self.dialer = self.dialer.for_strangers();
        }
        self.url = to;
        Ok(())
    }

    /// Says of a refusal by another origin that it was shown nothing of ours.
    pub fn explain(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Refused(why) if !self.is_ours => Failure::Refused(format!(
                "{why} after a redirect to {}, which is another origin: credentials are not shown there",
                redacted(&self.url)
            )),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls;
    use std::time::Duration;

    fn target(url: &str) -> RequestTarget {
        let tls = tls::client_config(None, None).expect("a configuration");
        let dialer = Dialer { tls, timeout: Duration::from_secs(1), at: Some([127, 0, 0, 1].into()) };
        RequestTarget { url: Url::parse(url).expect(url), dialer, is_ours: true }
    }

    #[test]
    fn redirects_lead_to_http_and_never_out_of_tls() {
        for (from, location, to) in [
            ("http://h/a/b", Some("c"), Ok("http://h/a/c")),
            ("http://h/a", Some("https://h/a"), Ok("https://h/a")),
            ("https://h/a", Some("//other/b"), Ok("https://other/b")),
            ("https://h/a", Some("http://h/a"), Err("from https to http")),
            ("https://h/a", Some("HTTP://other/"), Err("from https to http")),
            ("http://h/a", Some("ws://h/a"), Err("to ws")),
            ("http://h/a", Some("sse+http://h/a"), Err("to sse+http")),
            ("http://h/a", Some("file:///etc/passwd"), Err("to file")),
            ("http://h/a", Some("http://"), Err("to nowhere")),
            ("http://h/a", None, Err("to nowhere")),
        ] {
            let mut target = target(from);
            match (target.follow(location), to) {
                (Ok(()), Ok(to)) => assert_eq!(target.url.as_str(), to),
                (Err(Failure::NoStream(why)), Err(hint)) => assert!(why.contains(hint), "{why}"),
                (followed, _) => panic!("{from} {location:?}: {followed:?}"),
            }
        }
    }

    #[test]
    fn another_origin_is_a_stranger_and_so_is_the_way_back() {
        for (steps, is_ours) in [
            (&["/other", "http://h/again", "http://H:80/"][..], true),
            (&["http://u:p@h/other"], true),
            (&["https://h/"], false),
            (&["http://h:81/"], false),
            (&["//other/"], false),
            (&["//other/", "http://h/"], false),
        ] {
            let mut target = target("http://h/events");
            steps.iter().for_each(|step| target.follow(Some(step)).expect("followed"));
            // An address that was found for the one is not that of the other.
            assert_eq!((target.is_ours, target.dialer.at.is_some()), (is_ours, is_ours), "{steps:?}");
        }
    }
}
