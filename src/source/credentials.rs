//! What an upstream is shown about us: the credentials in its URL, the headers that were typed, and the token file's
//! token, which is read at each connect because tokens end.

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
    /// The header lines of a request to the upstream. They are for its origin alone: see [`super::redirect`].
    ///
    /// # Errors
    /// When there is no token in the token file.
    pub fn lines(&self, upstream: &Url) -> io::Result<Vec<(String, String)>> {
        let token = self.token_file.as_deref().map(token::first_line).transpose()?;
        let bearer = token.map(|token| ("Authorization".into(), format!("Bearer {token}")));
        Ok(authorization(upstream).into_iter().chain(self.headers.iter().cloned()).chain(bearer).collect())
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
