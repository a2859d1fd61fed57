//! The cookie that brings a client back to where it was.

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};

/// Which back end the request's cookie names, if it has one.
pub fn read(cookie: &str, headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == cookie)?;
    u64::from_str_radix(value, 16).ok()
}

/// What tells a client where it was.
pub fn write(cookie: &str, backend: u64, tls: bool) -> Option<HeaderValue> {
    let secure = if tls { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{cookie}={backend:016x}; Path=/; HttpOnly; SameSite=Lax{secure}")).ok()
}

/// Whether this can be a cookie's name (RFC 6265 §4.1.1: a token).
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let value = write("at", 0xabc, true).expect("a value");
        assert_eq!(value, "at=0000000000000abc; Path=/; HttpOnly; SameSite=Lax; Secure");
        let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static("x=1; at=0000000000000abc"))]);
        assert_eq!((read("at", &headers), read("x", &headers), read("y", &headers)), (Some(0xabc), Some(1), None));
        assert!(is_name("wsevent_at") && !is_name("a b") && !is_name("") && !is_name("a;b"));
    }
}
