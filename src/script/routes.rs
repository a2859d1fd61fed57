//! Which handler answers a request: by its path, exactly or up to a trailing `/*`, and its method.

use super::claims::MAX_NAMED;
use crate::topics::comparable;
use std::collections::{BTreeMap, HashMap};

/// Handlers by method.
type Methods = BTreeMap<String, String>;

/// The routes of one script.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<String, Methods>,
    /// By what stands before the `*`.
    below: BTreeMap<String, Methods>,
    count: usize,
}

/// What a table says about a request.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// The handler's name.
    Handler(String),
    /// The path is known, with these methods.
    Other(Vec<String>),
    /// No route.
    Nothing,
}

impl Routes {
    /// Sends requests for the path with this method to the handler from here on.
    ///
    /// # Errors
    /// When no request could ever ask for it.
    pub fn add(&mut self, path: &str, method: &str, handler: &str) -> Result<(), String> {
        check(path, method)?;
        if self.count >= MAX_NAMED {
            return Err(format!("a script names at most {MAX_NAMED} routes"));
        }
        let path = comparable(path);
        let methods = match path.strip_suffix('*').filter(|before| before.ends_with('/')) {
            Some(before) => self.below.entry(before.into()).or_default(),
            None => self.exact.entry(path.into_owned()).or_default(),
        };
        self.count += usize::from(methods.insert(method.into(), handler.into()).is_none());
        Ok(())
    }

    /// The exact path first, then the longest one with `/*` behind. HEAD is as good as GET.
    pub fn find(&self, path: &str, method: &str) -> Found {
        let path = comparable(path);
        let below = || self.below.iter().filter(|(before, _)| path.starts_with(*before)).max_by_key(|(b, _)| b.len());
        let Some(methods) = self.exact.get(&*path).or_else(|| below().map(|(_, methods)| methods)) else {
            return Found::Nothing;
        };
        let as_get = (method == "HEAD").then(|| methods.get("GET")).flatten();
        match methods.get(method).or(as_get) {
            Some(handler) => Found::Handler(handler.clone()),
            None => Found::Other(methods.keys().cloned().collect()),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn check(path: &str, method: &str) -> Result<(), String> {
    let plain = comparable(path);
    if plain == "/-" || plain.starts_with("/-/") {
        return Err(format!("the path {path:?} is below /-/, which is wsevent's own"));
    }
    if path.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#')) {
        return Err(format!("the path {path:?} must not contain white space, ? or #"));
    }
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-') {
        return Err(format!("{method:?} is not a method"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_route_answers() {
        let mut routes = Routes::default();
        for (path, method, handler) in [
            ("/a", "GET", "get"),
            ("/a", "POST", "post"),
            ("/a/*", "GET", "below"),
            ("/a/b/*", "GET", "deep"),
            ("/é", "PUT", "put"),
        ] {
            routes.add(path, method, handler).expect(path);
        }
        let handler = |name: &str| Found::Handler(name.into());
        let other = |methods: &[&str]| Found::Other(methods.iter().map(|&method| method.into()).collect());
        for (path, method, found) in [
            ("/a", "GET", handler("get")),
            ("/a", "HEAD", handler("get")),
            ("/a", "POST", handler("post")),
            ("/a", "PUT", other(&["GET", "POST"])),
            ("/a/", "GET", handler("below")),
            ("/a/x/y", "GET", handler("below")),
            ("/a/b/x", "GET", handler("deep")),
            ("/a/b", "GET", handler("below")),
            ("/A", "GET", Found::Nothing),
            ("/ab", "GET", Found::Nothing),
            ("/%c3%a9", "PUT", handler("put")),
            ("/%61/%62/x", "GET", handler("deep")),
            ("/", "GET", Found::Nothing),
        ] {
            assert_eq!(routes.find(path, method), found, "{method} {path}");
        }
        routes.add("/a", "GET", "newer").expect("a route");
        assert_eq!(routes.find("/a", "GET"), handler("newer"));
        assert_eq!(routes.len(), 5);
    }

    #[test]
    fn a_route_that_nobody_can_ask_for_is_refused() {
        for (path, method) in
            [("/-/x", "GET"), ("/%2d/x", "GET"), ("/a b", "GET"), ("/a?b", "GET"), ("/a", ""), ("/a", "G T")]
        {
            assert!(Routes::default().add(path, method, "f").is_err(), "{method} {path}");
        }
    }
}
