//! What one process serves: its topics, by path, and what holds for all of them.

use crate::{
    balance::Balancer,
    files::Watched,
    graphql::Subscriptions,
    proto::{
        admin::Inside,
        folder::Folder,
        mqtt::Mqtt,
        repeats::Repeats,
        shard::{Hop, Shards, Tuning},
        stream::Tasks,
    },
    registry::Registry,
    script::Scripts,
    streams::Streams,
    tls::Identity,
    token::Keys,
    topic::Topic,
    topics::Topics,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, watch};

/// What a listener allows.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Whether peers may publish, by POST and by WebSocket message.
    pub accept_publish: bool,
    /// Where they may not, whether a token whose `publish` claim covers the path may all the same.
    pub publish_by_right: bool,
    /// Origins that may read beside the same origin; `*` is all.
    pub allow_origin: Vec<String>,
    /// Hosts that a server on loopback answers for beside those of this machine; `*` is all.
    pub allow_host: Vec<String>,
    /// Bytes that one event may have.
    pub max_message: usize,
    /// Whether WebSocket peers that offer it get compressed messages (RFC 7692).
    pub deflate: bool,
    /// Whether readers get each event in a CloudEvent.
    pub envelope: bool,
    /// For the request head to arrive and be answered.
    pub handshake_timeout: Duration,
    /// Whether connections come from a proxy that says for whom (PROXY protocol).
    pub proxied: bool,
    /// Connections at once.
    pub max_connections: usize,
}

/// See the module's text.
pub struct Site {
    /// What can be read here.
    pub topics: Arc<Topics>,
    /// Those of them that scripts name.
    pub streams: Option<Arc<Streams>>,
    /// Those that are read by GraphQL operations, too.
    pub graphql: Option<Arc<Subscriptions>>,
    /// What the listeners allow.
    pub rules: Rules,
    /// Who names streams and answers requests.
    pub scripts: Scripts,
    /// Files to serve where nothing else is.
    pub folder: Option<Folder>,
    /// Who fans out.
    pub shards: Shards,
    /// Readers that no shard can hold.
    pub tasks: Arc<Tasks>,
    /// Who we are to TLS readers; with it, all are.
    pub tls: Option<Arc<Watched<Identity>>>,
    /// What tokens are judged by; with it, every request needs one.
    pub keys: Option<Arc<Watched<Keys>>>,
    /// In front of back ends.
    pub balancer: Option<Arc<Balancer>>,
    /// What is spoken with MQTT clients.
    pub mqtt: Mqtt,
    /// Services and their instances.
    pub registry: Option<Arc<Registry>>,
    /// Names this process in `Wsevent-Path` (LINKS 25).
    pub instance: String,
    /// One permit per connection.
    pub slots: Arc<Semaphore>,
    /// What was published under a key of the publisher's.
    pub repeats: Repeats,
    /// What can be seen of it.
    pub inside: Inside,
    ready: AtomicBool,
    /// Over how long goodbyes are spread, once they are said.
    drain: watch::Sender<Option<Duration>>,
}

impl Site {
    /// A site without topics, not ready yet.
    pub fn new(rules: Rules, tuning: Tuning, shards: Shards, instance: String) -> Self {
        let slots = Arc::new(Semaphore::new(rules.max_connections.min(Semaphore::MAX_PERMITS)));
        Site {
            topics: Arc::default(),
            streams: None,
            scripts: Scripts::default(),
            folder: None,
            graphql: None,
            rules,
            shards,
            tasks: Arc::new(Tasks::new(tuning)),
            tls: None,
            keys: None,
            balancer: None,
            mqtt: Mqtt::default(),
            registry: None,
            instance,
            slots,
            repeats: Repeats::default(),
            inside: Inside::default(),
            ready: AtomicBool::new(false),
            drain: watch::Sender::new(None),
        }
    }

    /// Serves the topic at its path. A remote peer cannot do this.
    pub fn add(&self, topic: Arc<Topic>) {
        self.topics.add(topic);
    }

    /// The topic at exactly this path, however its other letters are escaped.
    pub fn topic(&self, path: &str) -> Option<Arc<Topic>> {
        self.topics.get(path)
    }

    /// Every topic, by path.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.all()
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        let all = self.rules.max_connections.min(Semaphore::MAX_PERMITS);
        all.saturating_sub(self.slots.available_permits())
    }

    /// Readers connected now.
    pub fn readers(&self) -> usize {
        self.shards.readers() + self.tasks.count() + self.mqtt.clients()
    }

    /// Those of them that are instances, by topic and name.
    pub async fn hops(&self) -> Vec<Hop> {
        let mut hops = self.shards.hops().await;
        hops.extend(self.tasks.hops());
        hops.sort_by(|a, b| (&a.topic, &a.instance, a.address).cmp(&(&b.topic, &b.instance, b.address)));
        hops
    }

    /// Says goodbye to every reader, spread over that long.
    pub fn drain(&self, spread: Duration) {
        self.drain.send_replace(Some(spread));
        self.shards.drain(spread);
        self.tasks.drain(spread);
    }

    /// Resolves once the readers are told goodbye: what is asked from then on is the last on its connection.
    pub async fn drain_begun(&self) -> Duration {
        let mut drain = self.drain.subscribe();
        let begun = drain.wait_for(Option::is_some).await.ok().and_then(|spread| *spread);
        match begun {
            Some(spread) => spread,
            None => std::future::pending().await,
        }
    }

    /// Resolves when it is a relayed stream's turn to end in a drain.
    pub async fn turn_to_leave(&self) {
        let spread = self.drain_begun().await;
        tokio::time::sleep(spread.mul_f64(rand::random::<f64>())).await;
    }

    /// Forgets what is too old, also where no reader moves anything.
    pub async fn keep_house(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.mqtt.expire(Instant::now());
            for topic in self.topics() {
                topic.log.expire(Instant::now());
                let expired = topic.log.expire_pins(Instant::now());
                if expired > 0 {
                    tracing::warn!(topic = %topic.path, readers = expired, "gave up waiting for the return of slow readers");
                }
            }
        }
    }

    /// For `/-/readyz`.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// All listeners are bound, every upstream has connected once, every journal can be written, and no drain has begun.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && self.journal_fault().is_none()
    }

    /// Which journal cannot be written, and why.
    pub fn journal_fault(&self) -> Option<String> {
        self.topics().iter().find_map(|topic| {
            let error = topic.log.vitals()?.error()?;
            Some(format!("the journal of {} cannot be written: {error}", topic.path))
        })
    }
}
