//! Named streams: topics that the process itself names while it runs, and sends that reach some of their readers.
//!
//! A named stream is a topic like any other, so every protocol serves it. What is special is said by its [`Manner`], and
//! who sends hears how many readers that reached.

mod filter;

pub use filter::{BadFilter, Filter};

use crate::{
    event::Event,
    id::Epoch,
    log::{Limits, Log, Numbering},
    topic::{Manner, Policy, Topic},
    topics::{Topics, comparable, spelled},
    units::now_ms,
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

/// Characters that a path may have.
const MAX_PATH: usize = 200;
/// What stands below these is served by the process itself.
const RESERVED: [&str; 3] = ["/graphql", "/engine/graphql", "/-"];

/// Why there can be no stream at a path.
#[derive(Clone, Debug, PartialEq)]
pub struct BadPath(String);

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a send reached.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Readers that it is for and that get it.
    pub successful: usize,
    /// Readers that it is for and that are too far behind: they must come back.
    pub failed: usize,
}

impl Counts {
    /// The sentence for who sent it to this path or name.
    pub fn told(&self, name: &str) -> String {
        let Counts { successful, failed } = self;
        let matching = successful + failed;
        format!("Broadcast to '{name}': {successful} successful, {failed} failed ({matching} matching)")
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.successful += other.successful;
        self.failed += other.failed;
    }
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    /// Whatever is sent, also to all streams at once.
    Common,
    /// What is sent to it by name only.
    Own,
}

/// See the module's text.
pub struct Streams {
    topics: Arc<Topics>,
    window: Limits,
    policy: Policy,
    named: Mutex<Named>,
}

#[derive(Default)]
struct Named {
    open: HashMap<String, (Arc<Topic>, Use)>,
    /// Their readers were sent away. Where one is named again its numbers go on, so that who comes back gets the rest.
    closed: HashMap<String, Arc<Topic>>,
}

impl Streams {
    /// None yet. They will be among `topics` and retain that much.
    pub fn new(topics: Arc<Topics>, window: Limits, policy: Option<Policy>) -> Self {
        // Who sends never waits for a reader.
        let policy = policy.filter(|policy| *policy != Policy::Block).unwrap_or(Policy::Disconnect);
        Streams { topics, window, policy, named: Mutex::default() }
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// From here on there is a stream at this path. Says whether it is new; one that is there keeps its readers.
    ///
    /// # Errors
    /// When there can be none.
    pub fn register(&self, path: &str) -> Result<bool, BadPath> {
        check(path)?;
        Ok(self.open(path, Use::Common).1.is_some())
    }

    /// The stream for what is sent by name only, below a path of the process's own; it is at all of these. A new one is
    /// told with the offset at which it begins.
    ///
    /// # Errors
    /// When there can be none.
    pub fn register_own(&self, paths: &[String]) -> Result<(Arc<Topic>, Option<u64>), BadPath> {
        let [path, others @ ..] = paths else { return Err(BadPath("a stream needs a path".into())) };
        paths.iter().try_for_each(|path| check_letters(path))?;
        let (topic, begins) = self.open(path, Use::Own);
        let mut named = self.named();
        for other in others {
            let other = comparable(other);
            self.topics.add_at(&other, topic.clone());
            named.closed.remove(&*other);
            named.open.insert(other.into_owned(), (topic.clone(), Use::Own));
        }
        Ok((topic, begins))
    }

    /// The stream at this path, and where it begins if it is new.
    fn open(&self, path: &str, what_for: Use) -> (Arc<Topic>, Option<u64>) {
        let key = comparable(path);
        let mut named = self.named();
        if let Some((topic, _)) = named.open.get(&*key) {
            return (topic.clone(), None);
        }
        let closed = named.closed.remove(&*key);
        let topic = closed.clone().unwrap_or_else(|| Arc::new(self.topic(&spelled(path))));
        let begins = topic.log.end();
        match closed {
            Some(_) => {
                topic.log.reopen();
                self.topics.add_at(&key, topic.clone());
            }
            None => self.topics.add(topic.clone()),
        }
        named.open.insert(key.into_owned(), (topic.clone(), what_for));
        (topic, Some(begins))
    }

    fn topic(&self, path: &str) -> Topic {
        let log = Log::new(Numbering::Own(Epoch::new(now_ms(), rand::random())), self.window);
        let mut topic = Topic::new(path.to_owned(), log, Vec::new(), "", self.policy.clone());
        topic.manner = Manner::Open;
        topic
    }

    /// There is no stream at this path any more: its readers are told the end.
    pub fn remove(&self, path: &str) {
        let key = comparable(path);
        let mut named = self.named();
        let Some((topic, _)) = named.open.remove(&*key) else { return };
        self.topics.remove(&key);
        topic.log.finish();
        named.closed.insert(key.into_owned(), topic);
    }

    /// Sends to those readers of the stream that the filter admits, without waiting. To nobody where there is no stream.
    pub fn send(&self, path: &str, payload: Bytes, filter: &Filter) -> Counts {
        let topic = self.named().open.get(&*comparable(path)).map(|(topic, _)| topic.clone());
        topic.map_or_else(Counts::default, |topic| send(&topic, payload, filter))
    }

    /// Sends to every reader of every stream, except those that are sent to by name only.
    pub fn send_all(&self, payload: &Bytes) -> Counts {
        let common = |(topic, what_for): &(Arc<Topic>, Use)| (*what_for == Use::Common).then(|| topic.clone());
        let topics: Vec<_> = self.named().open.values().filter_map(common).collect();
        let mut counts = Counts::default();
        for topic in topics {
            counts += send(&topic, payload.clone(), &Filter::default());
        }
        counts
    }
}

fn send(topic: &Topic, payload: Bytes, filter: &Filter) -> Counts {
    let attrs = filter.attrs();
    let event = Event { attrs: attrs.cloned(), ..Event::new(payload) };
    let (matching, failed) = topic.roll.reached_by(attrs.map(|attrs| &**attrs), || {
        // It is kept in memory only, which takes everything.
        let _ = topic.publish(vec![event], now_ms());
        topic.log.base()
    });
    Counts { successful: matching - failed, failed }
}

/// # Errors
/// What is wrong with the path.
fn check(path: &str) -> Result<(), BadPath> {
    check_letters(path)?;
    let plain = comparable(path);
    let below =
        |reserved: &&&str| plain.strip_prefix(**reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match RESERVED.iter().find(below) {
        Some(reserved) => Err(BadPath(format!("stream path {path:?} is below {reserved}, which is reserved"))),
        None => Ok(()),
    }
}

/// The same for a path of the process's own.
fn check_letters(path: &str) -> Result<(), BadPath> {
    let bad = |why: &str| Err(BadPath(format!("stream path {path:?} {why}")));
    let len = path.chars().count();
    if !path.starts_with('/') {
        return bad("must start with /");
    }
    if len > MAX_PATH {
        return Err(BadPath(format!("the stream path has {len} characters: it may have {MAX_PATH}")));
    }
    if path.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '\\' | '?' | '#')) {
        return bad("must not contain white space, control characters, \\, ? or #");
    }
    if comparable(path).split('/').any(|segment| segment == "..") {
        return bad("must not contain a .. segment");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audience::{Viewer, from_query},
        log::Start,
    };

    fn streams(events: u64) -> (Streams, Arc<Topics>) {
        let topics = Arc::new(Topics::default());
        let window = Limits { events, bytes: 1 << 20, age: None };
        (Streams::new(topics.clone(), window, None), topics)
    }

    fn view(query: &str) -> Arc<Viewer> {
        let metadata = from_query(url::form_urlencoded::parse(query.as_bytes()).into_owned());
        Arc::new(Viewer { metadata, ..Viewer::default() })
    }

    fn filter(text: &str) -> Filter {
        Filter::parse(Some(text)).expect("a filter")
    }

    #[test]
    fn which_paths_can_be_streams() {
        let long = |n: usize| format!("/{}", "x".repeat(n - 1));
        for good in ["/", "/events", "/chat/room-1", "/a..b", "/graphqlx", "/é", "/a%20b", &long(200)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let bad = [
            "",
            "chat",
            "/a/../b",
            "/..",
            "/a b",
            "/a?b",
            "/a#b",
            "/a\\b",
            "/a\n",
            "/graphql",
            "/graphql/x",
            "/-/x",
            "/a/%2e%2E/b",
            "/%67raphql/x",
            "/%2D/x",
        ];
        for bad in bad.into_iter().chain([&*long(201), "http://x/"]) {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_send_counts_whom_it_reaches() {
        let (streams, topics) = streams(100);
        assert_eq!(streams.send("/chat", "x".into(), &Filter::default()), Counts::default());
        assert_eq!((streams.register("/chat"), streams.register("/chat")), (Ok(true), Ok(false)));
        assert_eq!(streams.register("/%63hat"), Ok(false), "the same path");
        let topic = topics.get("/chat").expect("a topic");
        for query in ["", "user_id=u1", "user_id=u2"] {
            topic.roll.enter(&view(query));
        }
        for (said, successful) in [("", 3), ("{}", 3), (r#"{"user_id":"u1"}"#, 1), (r#"{"user_id":"u3"}"#, 0)] {
            let counts = streams.send("/chat", "x".into(), &filter(said));
            assert_eq!(counts, Counts { successful, failed: 0 }, "{said}");
        }
        assert_eq!(streams.register("/other"), Ok(true));
        let (own, begins) =
            streams.register_own(&["/graphql/subscription/x".into(), "/also/x".into()]).expect("a topic");
        assert_eq!(begins, Some(0));
        own.roll.enter(&view(""));
        assert_eq!(streams.send_all(&"x".into()).successful, 3);
        for path in ["/graphql/subscription/x", "/also/x"] {
            assert_eq!(streams.send(path, "x".into(), &filter("")).successful, 1);
        }
    }

    #[test]
    fn who_is_out_of_the_window_has_failed() {
        let (streams, topics) = streams(2);
        assert_eq!(streams.register("/s"), Ok(true));
        let topic = topics.get("/s").expect("a topic");
        let viewer = view("a=1");
        topic.roll.enter(&viewer);
        let _straggler = topic.roll.straggle(&viewer, 0);
        let counts: Vec<_> = (0..3).map(|_| streams.send("/s", "x".into(), &filter(r#"{"a":"1"}"#))).collect();
        assert_eq!(
            counts.iter().map(|counts| (counts.successful, counts.failed)).collect::<Vec<_>>(),
            [(1, 0), (1, 0), (0, 1)]
        );
        assert_eq!(streams.send("/s", "x".into(), &filter(r#"{"a":"2"}"#)), Counts::default());
    }

    #[test]
    fn a_stream_that_is_named_again_goes_on() {
        let (streams, topics) = streams(100);
        assert_eq!(streams.register("/s"), Ok(true));
        streams.send("/s", "one".into(), &Filter::default());
        let before = topics.get("/s").and_then(|topic| topic.log.last()).expect("an event");
        streams.remove("/s");
        assert!(topics.get("/s").is_none());
        assert_eq!(streams.send("/s", "lost".into(), &Filter::default()), Counts::default());
        assert_eq!(streams.register("/s"), Ok(true));
        let topic = topics.get("/s").expect("a topic");
        assert_eq!((topic.log.ended(), topic.log.seek(None, 0)), (false, Start::At(2)), "behind the event and the end");
        assert_eq!(topics.arrivals(0).len(), 1, "it is the topic that it was");
        streams.send("/s", "two".into(), &Filter::default());
        assert_eq!(topics.get("/s").and_then(|topic| topic.log.last()), Some(before.next()));
    }

    #[test]
    fn the_sentence_has_both_counts() {
        let counts = Counts { successful: 2, failed: 1 };
        assert_eq!(counts.told("/chat"), "Broadcast to '/chat': 2 successful, 1 failed (3 matching)");
    }
}
