//! What an upstream is shown about us: the credentials in its URL, the headers that were typed, and the token file's
//! token, which is read at each connect because tokens end.

use super::http::plain;
use crate::token;
use data_encoding::BASE64;
use std::{io, path::PathBuf};
use url::Url;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Header lines as typed.
    pub headers: Vec<(String, String)>,
    /// Its first line is the bearer token.
    pub token_file: Option<PathBuf>,
}

impl Credentials {
    /// The header lines of a request to `url`, which is the `upstream` or where that redirects to. Another origin is not
    /// shown who we are (RFC 9110 §15.4).
    ///
    /// # Errors
    /// When there is no token in the token file.
    pub fn lines(&self, upstream: &Url, url: &Url) -> io::Result<Vec<(String, String)>> {
        let is_ours = plain(upstream).origin() == plain(url).origin();
        let secret = |name: &str| name.eq_ignore_ascii_case("authorization") || name.eq_ignore_ascii_case("cookie");
        let typed = self.headers.iter().filter(|(name, _)| is_ours || !secret(name)).cloned();
        let token = self.token_file.as_deref().filter(|_| is_ours).map(token::first_line).transpose()?;
        let bearer = token.map(|token| ("Authorization".into(), format!("Bearer {token}")));
        Ok(authorization(url).into_iter().chain(typed).chain(bearer).collect())
    }
}

/// The header lines of a request: ours, of which one that was typed takes the place, and the typed ones.
pub fn with_typed(ours: Vec<(&'static str, String)>, typed: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_typed = |name: &str| typed.iter().any(|(typed, _)| typed.eq_ignore_ascii_case(name));
    let kept: Vec<_> = ours.into_iter().filter(|(name, _)| !is_typed(name)).collect();
    kept.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(typed).collect()
}

/// Credentials in the URL as a header (RFC 7617).
fn authorization(url: &Url) -> Option<(String, String)> {
    let (user, password) = (url.username(), url.password());
    let text = format!("{user}:{}", password.unwrap_or(""));
    let known = !user.is_empty() || password.is_some();
    known.then(|| ("Authorization".into(), format!("Basic {}", BASE64.encode(text.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_origin_is_not_shown_who_we_are() {
        let url = |text: &str| Url::parse(text).expect(text);
        let typed = [("Cookie", "a=b"), ("AUTHORIZATION", "Bearer x"), ("X-Plain", "y")];
        let headers = typed.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let shown = Credentials { headers, token_file: None };
        for (to, lines) in [("https://h:443/other", 3), ("https://other/events", 1), ("http://h/events", 1)] {
            assert_eq!(shown.lines(&url("sse+https://h/events"), &url(to)).expect("headers").len(), lines, "{to}");
        }
    }
}
