//! GraphQL subscriptions by name: each is a named stream, read directly at its path or, through operations, at
//! `/graphql/sse` and over the WebSocket at `/graphql`.

mod document;
mod frames;
pub mod http;
mod operation;
mod shape;
mod shared;
mod socket;

use crate::{
    audience::Viewer,
    id::Since,
    log::Gap,
    streams::{BadPath, Counts, Filter, Streams},
    token::Grant,
    topic::Topic,
};
use bytes::Bytes;
use document::Request;
use futures_util::future::BoxFuture;
use hyper::{HeaderMap, Method};
use operation::{Operation, Reader};
use serde_json::{Map, Value};
use shape::Shape;
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tokio::sync::watch;

/// Where subscriptions are read directly, and where else.
const PATHS: [&str; 2] = ["/graphql/subscription/", "/engine/graphql/subscription/"];
/// Characters of a name, and of a schema.
const MAX_NAME: usize = 100;
const MAX_SCHEMA: usize = 100_000;
/// What no schema may speak of: scripts have these.
const UNFIT: [&str; 2] = ["__proto__", "constructor"];

/// Why there can be no such subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<BadPath> for Refusal {
    fn from(bad: BadPath) -> Self {
        Refusal(bad.to_string())
    }
}

/// What a subscriber asked, for whoever gives the first value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// The subscription's name.
    pub name: String,
    /// The root field's arguments.
    pub args: Map<String, Value>,
    /// Of the request.
    pub method: Method,
    /// Of the request, without its query.
    pub path: String,
    /// Of the request.
    pub headers: HeaderMap,
    /// The subscriber's metadata.
    pub query: HashMap<String, String>,
}

/// Who gives a subscription's first value.
pub trait Resolve: Send + Sync {
    /// `None` for no first value.
    ///
    /// # Errors
    /// What the subscriber is told; its subscription ends.
    fn resolve(&self, call: Call) -> BoxFuture<'static, Result<Option<Value>, String>>;
}

/// One of them.
struct Subscription {
    topic: Arc<Topic>,
    /// The offset at which the topic was when it got this name.
    begins: u64,
    /// The type of its values.
    declared: Option<String>,
    resolver: Option<Arc<dyn Resolve>>,
}

/// See the module's text.
pub struct Subscriptions {
    streams: Arc<Streams>,
    named: RwLock<HashMap<String, Arc<Subscription>>>,
    /// Raised when there are others.
    changed: watch::Sender<u64>,
    shared: Arc<shared::Shared>,
}

/// Who asks, and what stands beside the document.
struct Asker {
    viewer: Arc<Viewer>,
    grant: Option<Arc<Grant>>,
    since: Option<Since>,
    call: Call,
    /// The wire form that its readers count as.
    form: usize,
}

impl Subscriptions {
    /// None yet; they will be among these streams.
    pub fn new(streams: Arc<Streams>) -> Self {
        let (changed, _) = watch::channel(0);
        Subscriptions { streams, named: RwLock::default(), changed, shared: Arc::default() }
    }

    fn named(&self) -> RwLockReadGuard<'_, HashMap<String, Arc<Subscription>>> {
        self.named.read().unwrap_or_else(|p| p.into_inner())
    }

    fn named_mut(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Subscription>>> {
        self.named.write().unwrap_or_else(|p| p.into_inner())
    }

    /// From here on there is a subscription of this name; one that is there keeps its readers.
    ///
    /// # Errors
    /// What is wrong with the name or the schema.
    pub fn register(&self, name: &str, sdl: &str, resolver: Option<Arc<dyn Resolve>>) -> Result<(), Refusal> {
        let len = name.chars().count();
        if len == 0 || len > MAX_NAME || name.contains('/') {
            return Err(Refusal(format!("a subscription's name has 1 to {MAX_NAME} characters, none of them a /")));
        }
        if sdl.is_empty() || sdl.len() > MAX_SCHEMA {
            return Err(Refusal(format!("the schema of {name} has 1 to {MAX_SCHEMA} characters")));
        }
        if let Some(unfit) = UNFIT.iter().find(|unfit| sdl.contains(**unfit)) {
            return Err(Refusal(format!("the schema of {name} must not contain {unfit}")));
        }
        let declared =
            shape::declared(sdl, name).map_err(|why| Refusal(format!("the schema of {name} cannot be read: {why}")))?;
        let (topic, begins) = self.streams.register_own(&PATHS.map(|path| format!("{path}{name}")))?;
        let mut named = self.named_mut();
        let begins = begins.or_else(|| Some(named.get(name)?.begins)).unwrap_or_else(|| topic.log.end());
        named.insert(name.to_owned(), Arc::new(Subscription { topic, begins, declared, resolver }));
        drop(named);
        self.changed.send_modify(|times| *times += 1);
        Ok(())
    }

    /// There is no such subscription any more: its readers are told the end.
    pub fn remove(&self, name: &str) {
        if self.named_mut().remove(name).is_some() {
            PATHS.iter().for_each(|path| self.streams.remove(&format!("{path}{name}")));
        }
    }

    /// Sends to those subscribers that the filter admits, however they read. To nobody where there is no such name.
    pub fn send(&self, name: &str, payload: Bytes, filter: &Filter) -> Counts {
        self.streams.send(&format!("{}{name}", PATHS[0]), payload, filter)
    }

    /// Begins what a document asks for.
    ///
    /// # Errors
    /// What is wrong with it.
    fn begin(&self, asker: &Asker, request: &Request) -> Result<(Operation, Option<Arc<Gap>>), String> {
        let document::Asked { field, args } = document::read(request)?;
        let subscription = self.named().get(&field.name).cloned();
        let subscription = subscription.ok_or_else(|| format!("there is no subscription {}", field.name))?;
        if !asker.may_read(&subscription.topic) {
            return Err(format!("the token does not cover {}", subscription.topic.path));
        }
        let (reader, gap) = asker.read(&subscription.topic);
        // What it says next is said behind what is read from here on.
        let initial = subscription
            .resolver
            .as_ref()
            .filter(|_| asker.since.is_none())
            .map(|resolver| resolver.resolve(Call { name: field.name.clone(), args, ..asker.call.clone() }));
        let shape = Shape { field, declared: subscription.declared.clone() };
        Ok((Operation::new(reader, shape, initial), gap))
    }

    /// The others of those that there are now, as who names nothing sees them. Those that were named since the last look
    /// are read from their beginning.
    fn begin_others(&self, asker: &Asker, known: &mut HashSet<String>, later: bool) -> Vec<(String, Operation)> {
        let mut begun = Vec::new();
        for (name, subscription) in self.named().iter() {
            if asker.may_read(&subscription.topic) && known.insert(name.clone()) {
                let reader = match later {
                    true => asker.read_from(&subscription.topic, subscription.begins),
                    false => asker.read(&subscription.topic).0,
                };
                let shape = Shape::whole(name, subscription.declared.clone());
                begun.push((name.clone(), Operation::new(reader, shape, None)));
            }
        }
        begun
    }
}

impl Asker {
    fn may_read(&self, topic: &Topic) -> bool {
        self.grant.as_ref().is_none_or(|grant| grant.may_subscribe(&topic.path))
    }

    fn read(&self, topic: &Arc<Topic>) -> (Reader, Option<Arc<Gap>>) {
        Reader::new(topic.clone(), self.viewer.clone(), self.form, self.since.as_ref())
    }

    fn read_from(&self, topic: &Arc<Topic>, offset: u64) -> Reader {
        Reader::at(topic.clone(), self.viewer.clone(), self.form, offset)
    }
}
