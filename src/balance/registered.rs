//! The back ends that a registry lists: its list, which says where it stands among the registry's events, and those
//! events from there on, over a link. What they tell is a reason to read the list again, for it says more than they do.

use super::member::Member;
use crate::{
    id::{Epoch, Id, Since},
    link::POSITION_HEADER,
    log::{Entry, Item, Limits, Log, Numbering},
    net::{Dialer, redacted},
    proto::admin::fetch,
    source::{
        credentials::Credentials,
        feed::Feed,
        health::Health,
        place::Marks,
        upstream::{self, Outcome, Upstream},
    },
    topic::{Policy, Topic},
    units::printable,
};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tracing::warn;
use url::Url;

/// What stands before a registry's URL.
pub const PREFIX: &str = "registry+";
/// Where a registry tells its events.
const EVENTS: &str = "/events";
/// Those that change the list.
const CHANGES: [&str; 3] = ["service_registered", "service_deregistered", "service_unhealthy"];
/// The list is read again so often, whatever was told: weights and maintenance change without an event.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A registry that begins anew knows nobody: whom it knew has so long to register again.
const GRACE: Duration = Duration::from_secs(30);
/// What is kept of the events until it is looked at.
const LIMITS: Limits = Limits { events: 1000, bytes: 1 << 20, age: None };
/// Bytes of it at once.
const TURN: usize = 256 << 10;

/// A service of a registry, as typed.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The registry: `http` or `https`, without a path.
    pub registry: Url,
    /// What it calls the service.
    pub name: String,
    /// The path of one topic of each instance; else they are whole servers.
    pub topic: Option<String>,
    /// Its first line is what the registry is shown.
    pub token_file: Option<PathBuf>,
}

impl FromStr for Service {
    type Err = String;

    /// `registry+http://H:P/SERVICE`, and perhaps the path of a topic behind that.
    fn from_str(text: &str) -> Result<Self, String> {
        let example =
            "type registry+http://H:P/SERVICE, or registry+http://H:P/SERVICE/PATH for one topic of each instance";
        let wrong = |why: &str| format!("`{}` {why}: {example}", printable(text));
        let url = text.strip_prefix(PREFIX).and_then(|text| Url::parse(text).ok());
        let mut url = url.filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(|| wrong("is no URL"))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("what stands behind `{PREFIX}` says more than where a service is listed: {example}"));
        }
        let path = url.path().trim_start_matches('/').to_owned();
        let (name, topic) = path.split_once('/').map_or((&*path, None), |(name, topic)| (name, Some(topic)));
        if name.is_empty() {
            return Err(wrong("names no service"));
        }
        url.set_path("");
        let topic = topic.filter(|topic| !topic.is_empty()).map(|topic| format!("/{topic}"));
        Ok(Service { registry: url, name: name.to_owned(), topic, token_file: None })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}{}{}", redacted(&self.registry), self.name, self.topic.as_deref().unwrap_or_default())
    }
}

impl Service {
    fn credentials(&self) -> Credentials {
        Credentials { headers: Vec::new(), token_file: self.token_file.clone() }
    }

    /// Of those that the registry names, whoever may be sent somebody.
    fn members(&self, list: &Value) -> Vec<Member> {
        let instances = list["instances"].as_array().into_iter().flatten();
        instances.filter(|instance| instance["maintenance"] != true).filter_map(|one| self.member(one)).collect()
    }

    fn member(&self, instance: &Value) -> Option<Member> {
        let (address, metadata) = (instance["address"].as_str()?, &instance["metadata"]);
        let scheme = metadata["scheme"].as_str().unwrap_or("http");
        let weight = metadata["weight"].as_f64().unwrap_or(1.0);
        let text = format!("{scheme}://{address}{} weight={weight}", self.topic.as_deref().unwrap_or_default());
        text.parse().inspect_err(|why| warn!(%why, "an instance is no back end")).ok()
    }
}

/// What a registry listed.
#[derive(Debug)]
pub struct List {
    /// The instances, in the order of their registration.
    pub members: Vec<Member>,
    /// Its place among the events.
    position: Id,
}

/// Follows a service of a registry.
pub struct Follower {
    service: Service,
    dialer: Dialer,
    patience: Duration,
    listed: watch::Sender<Vec<Member>>,
    /// How the registry is doing.
    health: Arc<Health>,
}

impl Follower {
    /// Tells `listed` who is there; an answer may take as long as `patience`.
    pub fn new(service: Service, dialer: Dialer, patience: Duration, listed: watch::Sender<Vec<Member>>) -> Self {
        Follower { service, dialer, patience, listed, health: Arc::default() }
    }

    /// Reads the list once.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn list(&self) -> Result<List, String> {
        let asked = timeout(self.patience, self.ask()).await;
        asked.unwrap_or_else(|_| Err("no answer in time".into())).inspect_err(|why| self.health.fail(why))
    }

    async fn ask(&self) -> Result<List, String> {
        let mut url = self.service.registry.clone();
        url.set_path(&format!("/services/{}", self.service.name));
        let shown = self.service.credentials().lines(&url).map_err(|error| error.to_string())?;
        let answer = fetch::get(&self.dialer, &url, &shown).await.map_err(|silence| silence.to_string())?;
        let position = answer.headers().get(POSITION_HEADER).and_then(|value| value.to_str().ok()).and_then(Id::parse);
        let members = match (answer.status(), serde_json::from_slice::<Value>(answer.body())) {
            (StatusCode::OK, Ok(list)) => self.service.members(&list),
            (StatusCode::NOT_FOUND, _) if position.is_some() => Vec::new(),
            (status, _) => return Err(format!("it answered {status} for its list")),
        };
        let position = position.ok_or("its list has no place among events: is it a registry of ours?")?;
        Ok(List { members, position })
    }

    /// Follows the registry for ever; `upstream` is how its events are read. While it is away everybody stays as it is.
    /// `answered` turns true with its first answer.
    pub async fn run(self: Arc<Self>, upstream: Upstream, answered: watch::Sender<bool>) {
        let mut url = self.service.registry.clone();
        url.set_path(EVENTS);
        let upstream = Upstream {
            url: super::stream::link_url(&url),
            credentials: self.service.credentials(),
            retries: None,
            terminal: false,
            adopt_block: None,
            health: self.health.clone(),
            ..upstream
        };
        let (mut roster, mut failures) = (Roster::default(), 0);
        loop {
            let Err(why) = self.follow(&upstream, &mut roster, &answered, &mut failures).await;
            if failures == 0 {
                warn!(registry = %self.service, why = %printable(&why), "no list: back ends stay as they are");
            }
            tokio::time::sleep(upstream::delay(failures, upstream.retry_max)).await;
            failures += 1;
        }
    }

    async fn follow(
        &self,
        upstream: &Upstream,
        roster: &mut Roster,
        answered: &watch::Sender<bool>,
        failures: &mut u32,
    ) -> Result<Infallible, String> {
        let mut events: Option<Events> = None;
        loop {
            let list = self.list().await?;
            *failures = 0;
            answered.send_replace(true);
            let goes_on = events.take().filter(|events| events.go_on(&list.position));
            let mut open = goes_on.unwrap_or_else(|| Events::open(upstream, list.position.clone()));
            let members = roster.take(list, Instant::now());
            self.listed.send_if_modified(|listed| {
                let differs = *listed != members;
                *listed = members;
                differs
            });
            open.wait(&self.service.name).await;
            events = Some(open);
        }
    }

    /// For the status.
    pub fn describe(&self) -> Value {
        let known = self.health.get();
        let error = known.last_error.map(|(time, text)| json!({ "time": time, "text": text }));
        json!({ "url": self.service.to_string(), "state": known.state.to_string(), "last_error": error })
    }
}

/// Who was listed, over the lives of a registry.
#[derive(Default)]
struct Roster {
    epoch: Option<Epoch>,
    members: Vec<Member>,
    /// Whom the registry knew in its last life, and has not named since; and until when they are believed in.
    before: Vec<Member>,
    until: Option<Instant>,
}

impl Roster {
    fn take(&mut self, list: List, now: Instant) -> Vec<Member> {
        let epoch = Some(list.position.epoch);
        if self.epoch != epoch {
            self.before = std::mem::take(&mut self.members);
            (self.epoch, self.until) = (epoch, Some(now + GRACE));
        }
        if self.until.is_none_or(|until| now >= until) {
            self.before.clear();
        }
        self.before.retain(|known| !list.members.iter().any(|member| member.url == known.url));
        self.members = list.members.into_iter().chain(self.before.iter().cloned()).collect();
        self.members.clone()
    }
}

/// A registry's events from a position on, as long as they can be told without a gap.
struct Events {
    topic: Arc<Topic>,
    cursor: u64,
    epoch: Epoch,
    lost: bool,
    _reading: JoinSet<Outcome>,
}

impl Events {
    fn open(upstream: &Upstream, position: Id) -> Self {
        let (log, epoch) = (Log::new(Numbering::Keep, LIMITS), position.epoch.clone());
        let topic = Arc::new(Topic::new(EVENTS.into(), log, Vec::new(), "", Policy::Disconnect));
        let feed = Feed::new(topic.clone(), true, false, Marks::default(), Some(Since::After(position)));
        let mut reading = JoinSet::new();
        reading.spawn(upstream::run(upstream.clone(), feed, watch::Sender::new(false)));
        Events { topic, cursor: 0, epoch, lost: false, _reading: reading }
    }

    /// Whether what follows this position is told here.
    fn go_on(&self, behind: &Id) -> bool {
        !self.lost && behind.epoch == self.epoch
    }

    /// Waits for something about this service, for a loss, or until it is time to look anyway.
    async fn wait(&mut self, service: &str) {
        let (mut changes, mut items) = (self.topic.log.watch(), Vec::new());
        let deadline = tokio::time::Instant::now() + LOOK_AGAIN;
        loop {
            changes.borrow_and_update();
            items.clear();
            match self.topic.log.read(self.cursor, TURN, &mut items) {
                Ok(read) if read.next > self.cursor => self.cursor = read.next,
                Ok(_) => match tokio::time::timeout_at(deadline, changes.changed()).await {
                    Ok(Ok(())) => continue,
                    _ => return,
                },
                Err(_) => self.lost = true,
            }
            self.lost |= items.iter().any(|item| !self.is_told_by(item));
            if self.lost || items.iter().any(|item| is_about(item, service)) {
                return;
            }
        }
    }

    fn is_told_by(&self, item: &Item) -> bool {
        matches!(&item.entry, Entry::Batch(batch) if *batch.epoch() == self.epoch)
    }
}

fn is_about(item: &Item, service: &str) -> bool {
    let Entry::Batch(batch) = &item.entry else { return false };
    batch.events().any(|(_, event)| {
        let told: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
        told["event"].as_str().is_some_and(|name| CHANGES.contains(&name)) && told["data"]["serviceName"] == service
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Seq;

    fn service(text: &str) -> Service {
        text.parse().expect(text)
    }

    fn list(epoch: u64, members: &[&str]) -> List {
        let position = Id { epoch: Epoch::new(epoch, 0), seq: Seq::whole(1) };
        List { members: members.iter().map(|text| text.parse().expect("a member")).collect(), position }
    }

    #[test]
    fn a_service_is_read_as_people_write_it() {
        for (text, registry, name, topic) in [
            ("registry+http://h:1/web", "http://h:1/", "web", None),
            ("registry+http://h:1/web/", "http://h:1/", "web", None),
            ("registry+https://h/web/a/b", "https://h/", "web", Some("/a/b")),
        ] {
            let service = service(text);
            let read = (service.registry.as_str(), service.name.as_str(), service.topic.as_deref());
            assert_eq!(read, (registry, name, topic));
            assert_eq!(service.to_string(), text.trim_end_matches('/'));
        }
        for wrong in
            ["registry+http://h:1", "registry+ws://h/web", "registry+http://u:p@h/web", "registry+http://h/w?x"]
        {
            let why = wrong.parse::<Service>().expect_err(wrong);
            assert!(why.contains("SERVICE/PATH") && !why.contains("u:p"), "{why}");
        }
    }

    #[test]
    fn who_may_be_sent_somebody_is_a_member() {
        let list = json!({ "instances": [
            { "address": "10.0.0.1:8080", "metadata": { "weight": 2.5 } },
            { "address": "[::1]:81", "metadata": { "scheme": "https" } },
            { "address": "10.0.0.2:80", "metadata": {}, "maintenance": true },
            { "address": "no where:1", "metadata": {} },
            { "metadata": {} },
        ] });
        let members = service("registry+http://h/web/events").members(&list);
        let shown: Vec<_> = members.iter().map(|member| (member.to_string(), member.weight)).collect();
        assert_eq!(shown, [("http://10.0.0.1:8080/events".into(), 2.5), ("https://[::1]:81/events".into(), 1.0)]);
    }

    #[test]
    fn a_registry_that_begins_anew_forgets_nobody_at_once() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        let take = |roster: &mut Roster, epoch, members: &[&str], seconds| {
            let members = roster.take(list(epoch, members), now + Duration::from_secs(seconds));
            members.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (a, b, c) = ("http://a", "http://b", "http://c");
        assert_eq!(take(&mut roster, 1, &[a, b], 0), [a, b]);
        assert_eq!(take(&mut roster, 1, &[b], 1), [b], "it says who went");
        assert_eq!(take(&mut roster, 1, &[b, a, c], 2), [b, a, c]);
        assert_eq!(take(&mut roster, 2, &[], 3), [b, a, c]);
        assert_eq!(take(&mut roster, 2, &[c], 4), [c, b, a]);
        assert_eq!(take(&mut roster, 2, &[], 5), [b, a], "who came back and went is gone");
        assert_eq!(take(&mut roster, 2, &[a], 33), [a]);
        assert_eq!(take(&mut roster, 2, &[], 34), [] as [&str; 0]);
    }
}
