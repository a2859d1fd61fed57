//! The topics of one process, by path.

use crate::topic::Topic;
use std::{
    collections::HashMap,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tokio::sync::watch;

/// See the module's text.
#[derive(Default)]
pub struct Topics {
    by_path: RwLock<HashMap<String, Arc<Topic>>>,
    /// How often one was added.
    added: watch::Sender<u64>,
}

impl Topics {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Arc<Topic>>> {
        self.by_path.read().unwrap_or_else(|p| p.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Topic>>> {
        self.by_path.write().unwrap_or_else(|p| p.into_inner())
    }

    /// Serves the topic at its path.
    pub fn add(&self, topic: Arc<Topic>) {
        self.add_at(topic.path.clone(), topic);
    }

    /// Serves the topic at another path as well.
    pub fn add_at(&self, path: String, topic: Arc<Topic>) {
        self.write().insert(path, topic);
        self.added.send_modify(|added| *added += 1);
    }

    /// Changes when a topic was added.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    /// Nothing is at this path any more.
    pub fn remove(&self, path: &str) {
        self.write().remove(path);
    }

    /// The topic at exactly this path, however its other letters are escaped.
    pub fn get(&self, path: &str) -> Option<Arc<Topic>> {
        let topics = self.read();
        topics.get(path).or_else(|| topics.get(&spelled(path))).cloned()
    }

    /// Every topic once, by its own path.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        let topics = self.read();
        let mut topics: Vec<_> =
            topics.iter().filter(|(path, topic)| **path == topic.path).map(|(_, topic)| topic.clone()).collect();
        topics.sort_by(|a, b| a.path.cmp(&b.path));
        topics
    }
}

/// A path in the one spelling that topics are kept by: bytes beyond ASCII escaped, escapes in capitals (RFC 3986 §6.2.2.1).
/// Escaped ASCII stays: `%2F` is no `/`.
pub fn spelled(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut escape = 0;
    for c in path.chars() {
        match c {
            '%' => escape = 3,
            c if !c.is_ascii() => {
                let mut utf8 = [0; 4];
                out.extend(c.encode_utf8(&mut utf8).bytes().map(|byte| format!("%{byte:02X}")));
                continue;
            }
            _ => {}
        }
        out.push(if escape > 0 { c.to_ascii_uppercase() } else { c });
        escape = if escape > 0 { escape - 1 } else { 0 };
    }
    out
}
