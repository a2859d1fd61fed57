//! The rights that a token gives, and the claims that they are read from.
//!
//! A claim of a shape that is not known gives no right that its absence would not give: the token is refused.

use crate::topics::comparable;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// How far another machine's clock may be ahead of ours.
const CLOCK_SKEW_SECS: f64 = 30.0;
/// The role of who may only look.
const VIEWER: &str = "viewer";

/// What the bearer of a token may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// Path patterns in the form in which they are compared; `None` is every path.
    subscribe: Option<Vec<String>>,
    /// Likewise.
    publish: Vec<String>,
    /// For those who look at it.
    pub roles: Vec<String>,
    /// As a link it gets events whatever their audience (LINKS 24).
    pub relay: bool,
    /// A line of the token file.
    pub is_static: bool,
    /// In Unix milliseconds.
    pub ends: Option<u64>,
}

impl Grant {
    /// Whether this path may be read.
    pub fn may_subscribe(&self, path: &str) -> bool {
        self.subscribe.as_ref().is_none_or(|patterns| is_covered(patterns, path))
    }

    /// Whether this path may be published to.
    pub fn may_publish(&self, path: &str) -> bool {
        is_covered(&self.publish, path)
    }

    /// The rights of a line of the token file: all of them.
    pub(super) fn of_static_token() -> Self {
        Grant {
            subscribe: None,
            publish: vec!["*".into()],
            roles: Vec::new(),
            relay: true,
            is_static: true,
            ends: None,
        }
    }

    /// Whether it may change anything: who is only a viewer may not.
    pub fn may_write(&self) -> bool {
        self.roles.is_empty() || self.roles.iter().any(|role| role != VIEWER)
    }

    /// What signed claims say at `now` (Unix seconds).
    ///
    /// # Errors
    /// Why they say nothing.
    pub fn read(claims: &Map<String, Value>, audience: &[String], now: f64) -> Result<Self, &'static str> {
        let ends = said(claims, "exp").ok_or("it has no exp claim")?.as_f64().ok_or("its exp claim is no number")?;
        if ends <= now {
            return Err("it has expired");
        }
        let begins = |from: &Value| from.as_f64().is_some_and(|from| from <= now + CLOCK_SKEW_SECS);
        if !said(claims, "nbf").is_none_or(begins) {
            return Err("it is not valid yet");
        }
        if !said(claims, "aud").is_none_or(|aud| is_for(aud, audience)) {
            return Err("it is for somebody else: see --jwt-audience");
        }
        let relay = said(claims, "relay").map_or(Some(false), Value::as_bool);
        let subscribe = texts(claims, "subscribe", "its subscribe claim is neither a text nor an array of texts")?;
        let publish = texts(claims, "publish", "its publish claim is neither a text nor an array of texts")?;
        Ok(Grant {
            subscribe: subscribe.map(|patterns| patterns_of(&patterns)),
            publish: patterns_of(&publish.unwrap_or_default()),
            roles: roles(claims)?,
            relay: relay.ok_or("its relay claim is neither true nor false")?,
            is_static: false,
            ends: Some((ends * 1000.0) as u64),
        })
    }
}

/// A claim's value, where it is there and not `null`.
fn said<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).filter(|value| !value.is_null())
}

/// The roles of `roles` and `role`, each once.
fn roles(claims: &Map<String, Value>) -> Result<Vec<String>, &'static str> {
    let roles = texts(claims, "roles", "its roles claim is neither a text nor an array of texts")?;
    let role = texts(claims, "role", "its role claim is neither a text nor an array of texts")?;
    let mut all = roles.unwrap_or_default();
    for role in role.unwrap_or_default() {
        if !all.contains(&role) {
            all.push(role);
        }
    }
    Ok(all)
}

/// A claim that is a list. One text is a list of one, and `null` is an empty list: it must not give what only the absence
/// of a claim gives.
fn texts(claims: &Map<String, Value>, name: &str, wrong: &'static str) -> Result<Option<Vec<String>>, &'static str> {
    let text = |value: &Value| value.as_str().map(String::from).ok_or(wrong);
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(Vec::new())),
        Some(Value::Array(all)) => all.iter().map(text).collect::<Result<_, _>>().map(Some),
        Some(one) => Ok(Some(vec![text(one)?])),
    }
}

/// RFC 7519 §4.1.3: a token that names its audience is for nobody else. An empty list names nobody.
fn is_for(aud: &Value, audience: &[String]) -> bool {
    let named = |aud: &Value| aud.as_str().is_some_and(|aud| audience.iter().any(|known| known == aud));
    aud.as_array().map_or_else(|| named(aud), |all| all.is_empty() || all.iter().any(named))
}

/// Patterns in the form in which paths are compared; a path is the same with or without its leading slash.
fn patterns_of(texts: &[String]) -> Vec<String> {
    let pattern = |text: &String| match comparable(text) {
        Cow::Borrowed(text) if text.starts_with(['/', '*']) => text.to_owned(),
        Cow::Owned(text) if text.starts_with(['/', '*']) => text,
        other => format!("/{other}"),
    };
    texts.iter().map(pattern).collect()
}

fn is_covered(patterns: &[String], path: &str) -> bool {
    let path = comparable(path);
    let is_everything = |pattern: &String| matches!(pattern.as_str(), "*" | "/*");
    patterns.iter().any(is_everything) || !climbs(&path) && patterns.iter().any(|pattern| matches(pattern, &path))
}

/// Whether a server behind us may take the path for another one: a segment of it is `.` or `..`, however it is escaped.
fn climbs(path: &str) -> bool {
    let is_dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    path.contains('.') && {
        let plain: Cow<'_, [u8]> = percent_decode_str(path).into();
        plain.split(|byte| matches!(byte, b'/' | b'\\')).any(is_dots)
    }
}

/// `*` is any run of characters.
fn matches(pattern: &str, path: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(claims: Value) -> Result<Grant, String> {
        let claims = claims.as_object().cloned().expect("an object");
        Grant::read(&claims, &["us".into()], 1000.0).map_err(|why| why.to_owned())
    }

    /// What claims that end in time allow.
    fn granted(claims: Value) -> Grant {
        let mut all = json!({"exp": 2000});
        all.as_object_mut().expect("an object").extend(claims.as_object().cloned().expect("an object"));
        judge(all).unwrap_or_else(|why| panic!("{claims}: {why}"))
    }

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, path, covers) in [
            ("/events", "/events", true),
            ("events", "/events", true),
            ("/events", "/events2", false),
            ("*", "/anything/at/all", true),
            ("/a/*", "/a/b/c", true),
            ("/a/*", "/a", false),
            ("/*/log", "/x/y/log", true),
            ("*.json", "/a.json", true),
            ("/a*a", "/a", false),
            ("/a*b*c", "/a-b-b-c", true),
            ("/a*b*c", "/a-c-b", false),
            ("", "/", true),
            ("", "/events", false),
        ] {
            assert_eq!(is_covered(&patterns_of(&[pattern.into()]), path), covers, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_covers_a_path_however_both_are_spelled() {
        for (pattern, path, covers) in [
            ("/~user/a b", "/%7Euser/a%20b", true),
            ("/%7euser", "/~user", true),
            ("größe/*", "/gr%c3%b6%c3%9fe/x", true),
            ("/gr%c3%b6%C3%9fe", "/gr%C3%B6%C3%9Fe", true),
            ("%65vents", "/ev%65nts", true),
            ("/a/*", "/a%2Fb", false),
            ("/a%2fb", "/a%2Fb", true),
            ("/a%2fb", "/a/b", false),
            ("/a%2A", "/ab", false),
            ("/a%2A", "/a%2a", true),
            ("/%", "/%25", true),
        ] {
            let grant = granted(json!({"subscribe": pattern, "publish": [pattern]}));
            assert_eq!((grant.may_subscribe(path), grant.may_publish(path)), (covers, covers), "{pattern} {path}");
        }
    }

    #[test]
    fn a_path_that_climbs_is_covered_by_everything_only() {
        for path in ["/a/../b", "/a/%2e%2E/b", "/a/x%2F..%2f../b", "/a/..%5Cb", "/a/./b", "/a/.."] {
            let covered = |pattern: &str| granted(json!({"subscribe": pattern})).may_subscribe(path);
            assert!(!covered("/a/*") && !covered("/*b") && !covered(path), "{path}");
            assert!(covered("*") && covered("/*") && granted(json!({})).may_subscribe(path), "{path}");
        }
        let grant = granted(json!({"subscribe": "/a/*"}));
        assert!(["/a/.b", "/a/b..c", "/a/...", "/a/%252e%252e/b"].iter().all(|path| grant.may_subscribe(path)));
    }

    #[test]
    fn claims_are_taken_by_the_letter() {
        for (claims, hint) in [
            (json!({}), "no exp"),
            (json!({"exp": null}), "no exp"),
            (json!({"exp": "2000"}), "no number"),
            (json!({"exp": 1000}), "expired"),
            (json!({"exp": 2000, "nbf": 1100}), "not valid yet"),
            (json!({"exp": 2000, "nbf": "soon"}), "not valid yet"),
            (json!({"exp": 2000, "aud": "them"}), "somebody else"),
            (json!({"exp": 2000, "aud": ["them"]}), "somebody else"),
            (json!({"exp": 2000, "aud": [null]}), "somebody else"),
            (json!({"exp": 2000, "aud": 5}), "somebody else"),
            (json!({"exp": 2000, "aud": {}}), "somebody else"),
            (json!({"exp": 2000, "publish": [1]}), "publish"),
            (json!({"exp": 2000, "relay": 1}), "relay"),
            (json!({"exp": 2000, "relay": "true"}), "relay"),
            (json!({"exp": 2000, "relay": [true]}), "relay"),
        ] {
            let why = judge(claims.clone()).expect_err("refused");
            assert!(why.contains(hint), "{claims}: {why}");
        }
        let grant =
            judge(json!({"exp": 1000.5, "nbf": 1020, "aud": ["them", "us"], "subscribe": ["/a/*"]})).expect("good");
        assert_eq!(grant.ends, Some(1_000_500));
        assert!(
            grant.may_subscribe("/a/b") && !grant.may_subscribe("/b") && !grant.may_publish("/a/b") && !grant.relay
        );
        let wide = judge(json!({"exp": 1e300, "publish": ["*"], "relay": true})).expect("good");
        assert!(wide.may_subscribe("/any") && wide.may_publish("/any") && wide.relay);
    }

    #[test]
    fn a_list_of_another_shape_refuses_the_token() {
        let shapes = [json!(5), json!(true), json!({"a": 1}), json!([1]), json!(["a", null]), json!([["a"]])];
        for name in ["subscribe", "publish", "role", "roles"] {
            for shape in &shapes {
                let why = judge(json!({"exp": 2000, name: shape})).expect_err("refused");
                assert!(why.contains(&format!("its {name} claim")), "{name} {shape}: {why}");
            }
        }
    }

    #[test]
    fn one_text_is_a_list_of_one_and_null_gives_nothing() {
        let one = granted(json!({"subscribe": "/a", "publish": "/b"}));
        assert_eq!((one.may_subscribe("/a"), one.may_subscribe("/b")), (true, false));
        assert_eq!((one.may_publish("/b"), one.may_publish("/a")), (true, false));
        for nothing in [json!(null), json!([])] {
            let grant = granted(json!({"subscribe": nothing, "publish": nothing, "roles": nothing, "aud": nothing}));
            assert!(!grant.may_subscribe("/a") && !grant.may_publish("/a") && grant.roles.is_empty(), "{nothing}");
        }
        let null = granted(json!({"nbf": null, "aud": null, "relay": null, "role": null}));
        assert!(null.may_subscribe("/a") && !null.may_publish("/a") && !null.relay && null.roles.is_empty());
    }

    #[test]
    fn who_is_only_a_viewer_changes_nothing() {
        for (claims, roles, writes) in [
            (json!({}), &[][..], true),
            (json!({"role": null, "roles": []}), &[], true),
            (json!({"role": "service"}), &["service"], true),
            (json!({"role": "viewer"}), &["viewer"], false),
            (json!({"role": ["viewer"]}), &["viewer"], false),
            (json!({"roles": "viewer"}), &["viewer"], false),
            (json!({"roles": ["viewer"]}), &["viewer"], false),
            (json!({"role": ["viewer"], "roles": "viewer"}), &["viewer"], false),
            (json!({"role": "a", "roles": ["b", "a"]}), &["b", "a"], true),
            (json!({"role": "a"}), &["a"], true),
            (json!({"role": ["viewer", "editor"]}), &["viewer", "editor"], true),
            (json!({"roles": "a b"}), &["a b"], true),
        ] {
            let grant = granted(claims.clone());
            let known: Vec<&str> = grant.roles.iter().map(String::as_str).collect();
            assert_eq!((&known[..], grant.may_write()), (roles, writes), "{claims}");
        }
    }
}
