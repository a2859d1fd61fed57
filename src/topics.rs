//! The topics of one process, by path.

use crate::topic::Topic;
use percent_encoding::percent_encode_byte;
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tokio::sync::watch;

/// A topic, and the offset of its log behind what it held when it was added.
pub type TopicArrival = (Arc<Topic>, u64);

/// See the module's text.
#[derive(Default)]
pub struct Topics {
    listed: RwLock<TopicTable>,
    /// How many have arrived.
    arrived: watch::Sender<usize>,
}

#[derive(Default)]
struct TopicTable {
    by_path: HashMap<String, Arc<Topic>>,
    /// Every topic that was ever added, in that order. One that was removed may be served again.
    arrivals: Vec<TopicArrival>,
}

impl Topics {
    fn read(&self) -> RwLockReadGuard<'_, TopicTable> {
        self.listed.read().unwrap_or_else(|p| p.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, TopicTable> {
        self.listed.write().unwrap_or_else(|p| p.into_inner())
    }

    /// Serves a new topic at its path.
    pub fn add(&self, topic: Arc<Topic>) {
        let mut listed = self.write();
        listed.arrivals.push((topic.clone(), topic.log.end()));
        listed.by_path.insert(spelled(&topic.path), topic);
        let arrived = listed.arrivals.len();
        drop(listed);
        self.arrived.send_modify(|known| *known = arrived.max(*known));
    }

    /// Serves a topic that was added before at another path as well, or again.
    pub fn add_at(&self, path: &str, topic: Arc<Topic>) {
        self.write().by_path.insert(spelled(path), topic);
    }

    /// Changes when a topic was added.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.arrived.subscribe()
    }

    /// The topics that were added behind the first `known` ones, also those that were removed since.
    pub fn arrivals(&self, known: usize) -> Vec<TopicArrival> {
        self.read().arrivals.get(known..).unwrap_or_default().to_vec()
    }

    /// Nothing is at this path any more.
    pub fn remove(&self, path: &str) {
        self.write().by_path.remove(&spelled(path));
    }

    /// The topic at exactly this path, however its letters beyond ASCII are escaped.
    pub fn get(&self, path: &str) -> Option<Arc<Topic>> {
        let topics = &self.read().by_path;
        topics.get(path).or_else(|| topics.get(&spelled(path))).cloned()
    }

    /// Every topic once, by its own path.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        let topics = &self.read().by_path;
        let is_own = |(path, topic): &(&String, &Arc<Topic>)| **path == spelled(&topic.path);
        let mut topics: Vec<_> = topics.iter().filter(is_own).map(|(_, topic)| topic.clone()).collect();
        topics.sort_by(|a, b| a.path.cmp(&b.path));
        topics
    }
}

/// A path as topics are called by: bytes beyond ASCII escaped, escapes in capitals (RFC 3986 §6.2.2.1). Escaped ASCII
/// stays as it was typed.
pub fn spelled(path: &str) -> String {
    escaped_anew(path, |_| false, |byte| byte.is_ascii())
}

/// The form in which paths are compared, with each other and with the patterns of tokens (RFC 3986 §6.2.2): letters,
/// digits and `-._~` are not escaped, bytes that may not stand in a path are, and escapes are in capitals. An escaped
/// delimiter stays: `%2F` is no `/`.
pub fn comparable(path: &str) -> Cow<'_, str> {
    match path.bytes().all(may_stand) {
        true => Cow::Borrowed(path),
        false => Cow::Owned(escaped_anew(path, is_unreserved, may_stand)),
    }
}

/// Rewrites a path byte by byte: `bare` says which escapes are taken away, `stands` which other bytes stay as they are.
fn escaped_anew(path: &str, bare: fn(u8) -> bool, stands: fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(path.len() + 8);
    let mut rest = path.as_bytes();
    while let [first, behind @ ..] = rest {
        let escape = if *first == b'%' { escaped_byte(behind) } else { None };
        let byte = escape.unwrap_or(*first);
        if if escape.is_some() { bare(byte) } else { stands(byte) } {
            out.push(char::from(byte));
        } else {
            out.push_str(percent_encode_byte(byte));
        }
        rest = if escape.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    out
}

/// The byte that two hexadecimal digits stand for.
fn escaped_byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// RFC 3986 §3.3: what a path has beside escapes.
fn may_stand(byte: u8) -> bool {
    is_unreserved(byte) || b"/!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_mean_the_same_are_compared_in_one_form() {
        for (path, form, name) in [
            ("/events", "/events", "/events"),
            ("/%65vent%73", "/events", "/%65vent%73"),
            ("/%7euser/%2D%2e%5F", "/~user/-._", "/%7Euser/%2D%2E%5F"),
            ("/größe", "/gr%C3%B6%C3%9Fe", "/gr%C3%B6%C3%9Fe"),
            ("/gr%c3%b6%C3%9fe", "/gr%C3%B6%C3%9Fe", "/gr%C3%B6%C3%9Fe"),
            ("/a b\"{}", "/a%20b%22%7B%7D", "/a b\"{}"),
            ("/a%2fb%20c", "/a%2Fb%20c", "/a%2Fb%20c"),
            ("/a+b*c:@!$&'(),;=", "/a+b*c:@!$&'(),;=", "/a+b*c:@!$&'(),;="),
            ("/%2a%2b", "/%2A%2B", "/%2A%2B"),
            ("/100%", "/100%25", "/100%"),
            ("/%zz/%e", "/%25zz/%25e", "/%zz/%e"),
            ("/%2565", "/%2565", "/%2565"),
            ("", "", ""),
        ] {
            assert_eq!((&*comparable(path), &*spelled(path)), (form, name), "{path}");
            assert_eq!(comparable(form), form, "{path}: once is enough");
        }
    }
}
