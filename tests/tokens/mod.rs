//! Signed tokens as openssl makes them: keys, a key set, and tokens that are right or wrong in one thing.

// Each test file uses a part of it.
#![allow(dead_code)]

use crate::common::Scratch;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use std::{
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

/// The secret of HS256.
pub const SECRET: &str = "a secret of the tests that is long enough";
/// A line of the token file.
pub const STATIC: &str = "static-token-0123456789abcdef";

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Claims that end in a minute.
pub fn claims(more: Value) -> Value {
    let mut claims = json!({ "exp": now() + 60 });
    claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    claims
}

/// Keys of every kind, in files as the options take them.
pub struct Keys {
    scratch: Scratch,
}

impl Keys {
    pub fn new() -> Self {
        let keys = Keys { scratch: Scratch::new() };
        for key in ["rsa", "ec", "ed", "stranger-rsa", "stranger-ec", "stranger-ed"] {
            let kind = match key.rsplit('-').next().expect("a kind") {
                "rsa" => "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
                "ec" => "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
                _ => "-algorithm ed25519",
            };
            openssl(&format!("genpkey {kind} -out {}", keys.scratch.arg(key)));
        }
        keys.scratch.file("tokens", format!("# for the tests\n\n{STATIC}\n"));
        keys.scratch.file("secret", format!("{SECRET}\n"));
        keys.scratch.file("jwks", keys.set().to_string());
        keys
    }

    /// The options that make a server take all of them.
    pub fn args(&self) -> [String; 6] {
        let file = |name: &str| self.scratch.arg(name);
        let [tokens, secret, jwks] = ["tokens", "secret", "jwks"].map(file);
        ["--token-file".into(), tokens, "--jwt-secret-file".into(), secret, "--jwks".into(), jwks]
    }

    /// A file of theirs, or one beside them.
    pub fn file(&self, name: &str) -> String {
        self.scratch.arg(name)
    }

    pub fn write(&self, name: &str, content: &str) -> String {
        self.scratch.file(name, content)
    }

    fn set(&self) -> Value {
        let public = |key: &str| {
            let der = openssl(&format!("pkey -in {} -pubout -outform DER", self.scratch.arg(key)));
            move |from_end: usize, len: usize| {
                let start = der.len() - from_end;
                BASE64URL_NOPAD.encode(&der[start..start + len])
            }
        };
        let modulus = openssl(&format!("rsa -in {} -noout -modulus", self.scratch.arg("rsa")));
        let modulus = String::from_utf8_lossy(&modulus).trim().replace("Modulus=", "").to_lowercase();
        let modulus = BASE64URL_NOPAD.encode(&HEXLOWER.decode(modulus.as_bytes()).expect("hexadecimal"));
        let (ec, ed) = (public("ec"), public("ed"));
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig", "n": modulus, "e": "AQAB" },
            { "kty": "EC", "kid": "ec", "crv": "P-256", "x": ec(64, 32), "y": ec(32, 32) },
            { "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": ed(32, 32) },
            { "kty": "EC", "kid": "unused", "crv": "P-521", "x": "AA", "y": "AA" },
        ] })
    }

    /// Signed with the secret.
    pub fn hs256(&self, claims: &Value) -> String {
        self.sign("HS256", SECRET, json!({}), claims)
    }

    /// Signed with a private key of that name, or a secret of that text.
    pub fn sign(&self, algorithm: &str, key: &str, header: Value, claims: &Value) -> String {
        let mut head = json!({ "typ": "JWT", "alg": algorithm });
        head.as_object_mut().expect("an object").extend(header.as_object().expect("an object").clone());
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let text = format!("{}.{}", part(&head), part(claims));
        let input = self.scratch.file("input", &text);
        let private = self.scratch.arg(key);
        let signature = match algorithm {
            "HS256" => {
                let key = HEXLOWER.encode(key.as_bytes());
                openssl(&format!("dgst -sha256 -mac HMAC -macopt hexkey:{key} -binary {input}"))
            }
            "RS256" => openssl(&format!("dgst -sha256 -sign {private} -binary {input}")),
            "ES256" => raw_signature(&openssl(&format!("dgst -sha256 -sign {private} -binary {input}"))),
            "EdDSA" => openssl(&format!("pkeyutl -sign -rawin -inkey {private} -in {input}")),
            _ => Vec::new(),
        };
        format!("{text}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    /// The public half of a key, as text.
    pub fn public(&self, key: &str) -> String {
        let pem = openssl(&format!("pkey -in {} -pubout", self.scratch.arg(key)));
        String::from_utf8(pem).expect("PEM is text")
    }

    /// Tokens that must all be refused, with what is wrong with them.
    pub fn wrong(&self) -> Vec<(&'static str, String)> {
        let good = claims(json!({}));
        let ended = json!({ "exp": now() - 1 });
        let whole = self.hs256(&good);
        let (head, rest) = whole.split_once('.').expect("three parts");
        let (body, signature) = rest.split_once('.').expect("three parts");
        let wider = BASE64URL_NOPAD.encode(claims(json!({ "publish": ["*"] })).to_string().as_bytes());
        vec![
            ("unknown", "not-a-token-of-ours".into()),
            ("empty", String::new()),
            ("dots", "..".into()),
            ("expired, HS256", self.hs256(&ended)),
            ("expired, RS256", self.sign("RS256", "rsa", json!({}), &ended)),
            ("without exp", self.hs256(&json!({ "sub": "me" }))),
            ("not valid yet", self.hs256(&claims(json!({ "nbf": now() + 600 })))),
            ("for somebody else", self.hs256(&claims(json!({ "aud": "another service" })))),
            ("alg none", self.sign("none", "", json!({}), &good)),
            ("alg none, with a signature", format!("{}.{body}.{signature}", part(r#"{"alg":"none"}"#))),
            ("alg None", self.sign("None", "", json!({}), &good)),
            ("another secret", self.sign("HS256", "another secret that is long enough too", json!({}), &good)),
            ("another RSA key", self.sign("RS256", "stranger-rsa", json!({ "kid": "rsa" }), &good)),
            ("another EC key", self.sign("ES256", "stranger-ec", json!({}), &good)),
            ("another Ed25519 key", self.sign("EdDSA", "stranger-ed", json!({}), &good)),
            ("another key's name", self.sign("ES256", "ec", json!({ "kid": "rsa" }), &good)),
            ("the public key as a secret", self.sign("HS256", &self.public("rsa"), json!({ "kid": "rsa" }), &good)),
            ("an extension", self.sign("HS256", SECRET, json!({ "crit": ["b64"], "b64": false }), &good)),
            ("other claims", format!("{head}.{wider}.{signature}")),
            ("without signature", format!("{head}.{body}.")),
            ("a claim of the wrong kind", self.hs256(&claims(json!({ "subscribe": { "*": true } })))),
            ("a pattern of the wrong kind", self.hs256(&claims(json!({ "publish": ["/a", 5] })))),
            ("a role of the wrong kind", self.hs256(&claims(json!({ "role": 5 })))),
        ]
    }
}

fn part(text: &str) -> String {
    BASE64URL_NOPAD.encode(text.as_bytes())
}

/// What it prints, which may be bytes.
fn openssl(line: &str) -> Vec<u8> {
    let out = Command::new("openssl").args(line.split(' ')).output().expect("openssl is installed");
    assert!(out.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Two integers in DER as two times 32 bytes (RFC 7518 §3.4).
fn raw_signature(der: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let len = usize::from(rest[1]);
        let digits = &rest[2..2 + len];
        let significant = &digits[digits.len().saturating_sub(32)..];
        raw.extend(std::iter::repeat_n(0, 32 - significant.len()));
        raw.extend(significant);
        rest = &rest[2 + len..];
    }
    raw
}
