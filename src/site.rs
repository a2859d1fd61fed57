//! What one process serves: its topics, by path, and what holds for all of them.

use crate::{proto::shard::Shards, topic::Topic};
use std::{
    collections::HashMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// What a listener allows.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whether peers may publish, by POST and by WebSocket message.
    pub accept_publish: bool,
    /// Origins that may read beside the same origin; `*` is all.
    pub allow_origin: Vec<String>,
    /// Bytes that one event may have.
    pub max_message: usize,
    /// For the request head to arrive and be answered.
    pub handshake_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
}

/// See the module's text.
pub struct Site {
    topics: RwLock<HashMap<String, Arc<Topic>>>,
    /// What the listeners allow.
    pub rules: Rules,
    /// Who fans out.
    pub shards: Shards,
    /// Names this process in `Wsevent-Path` (LINKS 25).
    pub instance: String,
    /// One permit per connection.
    pub slots: Arc<Semaphore>,
    ready: AtomicBool,
}

impl Site {
    /// A site without topics, not ready yet.
    pub fn new(rules: Rules, shards: Shards, instance: String) -> Self {
        let slots = Arc::new(Semaphore::new(rules.max_connections.min(Semaphore::MAX_PERMITS)));
        Site { topics: RwLock::default(), rules, shards, instance, slots, ready: AtomicBool::new(false) }
    }

    /// Serves the topic at its path. A remote peer cannot do this.
    pub fn add(&self, topic: Arc<Topic>) {
        self.topics.write().unwrap_or_else(|p| p.into_inner()).insert(topic.path.clone(), topic);
    }

    /// The topic at exactly this path.
    pub fn topic(&self, path: &str) -> Option<Arc<Topic>> {
        self.topics.read().unwrap_or_else(|p| p.into_inner()).get(path).cloned()
    }

    /// Every topic, by path.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.topics.read().unwrap_or_else(|p| p.into_inner()).values().cloned().collect();
        topics.sort_by(|a, b| a.path.cmp(&b.path));
        topics
    }

    /// For `/-/readyz`.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// All listeners are bound, every upstream has connected once, and no drain has begun.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}
