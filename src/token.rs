//! Tokens: what the bearer may do, and until when (RFC 6750, RFC 7519).
//!
//! A static token is a line of a file and may do everything. A signed one says what it may do in its claims; the
//! algorithm follows from the key, never from the token alone.

mod grant;

pub use grant::Grant;

use crate::files;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use serde_json::{Map, Value, json};
use std::{
    io,
    path::{Path, PathBuf},
};

/// A shorter HS256 secret can be guessed from one token (RFC 7518 §3.2).
const GOOD_SECRET: usize = 32;

/// Where the keys are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyFiles {
    /// One static token per line.
    pub tokens: Option<PathBuf>,
    /// The secret of HS256.
    pub secret: Option<PathBuf>,
    /// Public keys (RFC 7517).
    pub jwks: Option<PathBuf>,
    /// Whom tokens with an `aud` claim must be for.
    pub audience: Vec<String>,
}

impl KeyFiles {
    /// The files that were named; with none, everybody may do everything.
    pub fn paths(&self) -> Vec<PathBuf> {
        [&self.tokens, &self.secret, &self.jwks].into_iter().flatten().cloned().collect()
    }
}

/// What tokens are judged by.
pub struct Keys {
    tokens: Vec<String>,
    signers: Vec<Signer>,
    /// To sign with, if there is a secret.
    pen: Option<EncodingKey>,
    audience: Vec<String>,
}

struct Signer {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Keys {
    /// Reads the files.
    ///
    /// # Errors
    /// Which one, and what is wrong with it.
    pub fn load(from: &KeyFiles) -> io::Result<Self> {
        let tokens = from.tokens.as_deref().map(read_tokens).transpose()?.unwrap_or_default();
        let mut signers = from.jwks.as_deref().map(read_jwks).transpose()?.unwrap_or_default();
        let secret = from.secret.as_deref().map(read_secret).transpose()?;
        let pen = secret.as_deref().map(EncodingKey::from_secret);
        signers.extend(secret.as_deref().map(Signer::from_secret));
        Ok(Keys { tokens, signers, pen, audience: from.audience.clone() })
    }

    /// A token with these claims (HS256); `None` without a secret.
    pub fn sign(&self, claims: &Map<String, Value>) -> Option<String> {
        encode(&Header::new(Algorithm::HS256), claims, self.pen.as_ref()?).ok()
    }

    /// What this token's bearer may do at `now_ms`.
    ///
    /// # Errors
    /// Why nothing: a sentence about the token that does not contain it.
    pub fn judge(&self, token: &str, now_ms: u64) -> Result<Grant, &'static str> {
        if self.is_known(token) {
            return Ok(Grant::of_static_token());
        }
        let claims = self.claims(token)?;
        Grant::read(&claims, &self.audience, now_ms as f64 / 1000.0)
    }

    /// What `check-token` prints.
    ///
    /// # Errors
    /// See [`Keys::judge`].
    pub fn describe(&self, token: &str, now_ms: u64) -> Result<Value, &'static str> {
        let grant = self.judge(token, now_ms)?;
        match grant.is_static {
            true => Ok(json!({ "static": true, "publish": ["*"], "relay": grant.relay })),
            false => self.claims(token).map(Value::from),
        }
    }

    fn is_known(&self, token: &str) -> bool {
        self.tokens.iter().fold(false, |known, line| known | is_same(line.as_bytes(), token.as_bytes()))
    }

    /// The claims behind a good signature.
    fn claims(&self, token: &str) -> Result<Map<String, Value>, &'static str> {
        let header =
            decode_header(token).map_err(|_| "it is neither known nor a signed token with an accepted algorithm")?;
        // RFC 7515 §4.1.11: we know no extension that would have to be understood.
        if header.crit.is_some() {
            return Err("its header asks for an extension");
        }
        let mut why = "no key here is for its algorithm and key id";
        for signer in self.signers.iter().filter(|signer| signer.may_have_signed(&header)) {
            match decode(token, &signer.key, &only(signer.algorithm)) {
                Ok(data) => return Ok(data.claims),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => why = "its signature is wrong",
                Err(_) => why = "it cannot be decoded",
            }
        }
        Err(why)
    }
}

/// Signatures only: times and audience are judged by [`Grant::read`].
fn only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

/// In a time that does not tell how much of it is right.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b))) == 0
}

impl Signer {
    fn may_have_signed(&self, header: &Header) -> bool {
        let named = match (&self.kid, &header.kid) {
            (Some(own), Some(asked)) => own == asked,
            _ => true,
        };
        named && header.alg == self.algorithm
    }

    fn from_secret(secret: &[u8]) -> Self {
        Signer { kid: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) }
    }

    /// `None` for a key that is not for signatures of a kind we take.
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return None,
        };
        let common = &jwk.common;
        let other_use = common.public_key_use.as_ref().is_some_and(|what| *what != PublicKeyUse::Signature);
        let other_algorithm = common.key_algorithm.is_some_and(|what| Algorithm::try_from(what) != Ok(algorithm));
        if other_use || other_algorithm {
            return None;
        }
        Some(Signer { kid: common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }
}

/// One token per line (RFC 6750 §2.1); blank lines and those that begin with `#` are for people.
fn read_tokens(path: &Path) -> io::Result<Vec<String>> {
    const OPTION: &str = "--token-file";
    let text =
        String::from_utf8(files::read(OPTION, path)?).map_err(|_| files::wrong(OPTION, path, &"it is no text"))?;
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    let mut tokens = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if !is_token(line) {
            return Err(files::wrong(OPTION, path, &format!("line {number} is no bearer token")));
        }
        tokens.push(line.to_owned());
    }
    if tokens.is_empty() {
        tracing::warn!(file = %path.display(), "the token file holds no token");
    }
    Ok(tokens)
}

/// The token that we show to an upstream.
///
/// # Errors
/// When the file cannot be read, or does not begin with a bearer token.
pub fn first_line(path: &Path) -> io::Result<String> {
    const OPTION: &str = "--consume-token-file";
    let text = String::from_utf8(files::read(OPTION, path)?).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default().trim();
    if is_token(line) {
        Ok(line.to_owned())
    } else {
        Err(files::wrong(OPTION, path, &"its first line is no bearer token"))
    }
}

/// RFC 6750 §2.1, `b64token`.
fn is_token(text: &str) -> bool {
    let bare = text.trim_end_matches('=');
    !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

/// The whole content, without one final line feed.
fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    const OPTION: &str = "--jwt-secret-file";
    let content = files::read(OPTION, path)?;
    let secret = content.strip_suffix(b"\n").unwrap_or(&content);
    if secret.is_empty() {
        return Err(files::wrong(OPTION, path, &"it is empty"));
    }
    if secret.len() < GOOD_SECRET {
        tracing::warn!(file = %path.display(), "the secret is shorter than 32 bytes: it can be guessed from a token");
    }
    Ok(secret.to_vec())
}

fn read_jwks(path: &Path) -> io::Result<Vec<Signer>> {
    const OPTION: &str = "--jwks";
    let set: JwkSet =
        serde_json::from_slice(&files::read(OPTION, path)?).map_err(|error| files::wrong(OPTION, path, &error))?;
    let signers: Vec<Signer> = set.keys.iter().filter_map(Signer::from_jwk).collect();
    if signers.is_empty() {
        return Err(files::wrong(OPTION, path, &"no RSA, P-256 or Ed25519 signature key in it"));
    }
    Ok(signers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(is_same(b"abc", b"abc") && !is_same(b"abc", b"abd") && !is_same(b"abc", b"ab") && !is_same(b"", b"a"));
        for (text, good) in [("a.b-c_d~e+f/g==", true), ("", false), ("==", false), ("a b", false), ("a=b", false)] {
            assert_eq!(is_token(text), good, "{text}");
        }
    }
}
