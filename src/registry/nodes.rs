//! Who is there: instances by id and by service, how long they may be silent, and which are left alone.
//!
//! Pure: time is a parameter, and each change returns the fact to tell.

mod checks;
mod circuits;
mod undo;

use super::{
    events::{Fact, Instance},
    guard::Guard,
    node::{Moment, Node, Patience, Traffic},
    registration::Registration,
};
use crate::balance::breaker::{Breaker, State};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};
use undo::Undo;

/// While the guard holds, silent instances are looked at again so soon.
const HELD_FOR: Duration = Duration::from_secs(1);

/// The instances of a service by their places.
#[derive(Debug, Default)]
pub struct Service {
    order: BTreeMap<u64, Arc<str>>,
    /// Behind the instance whose turn was last.
    pub turn: u64,
}

impl Service {
    /// Ids from a place on, then those before it: each once.
    pub fn from(&self, place: u64) -> impl Iterator<Item = &Arc<str>> {
        self.order.range(place..).chain(self.order.range(..place)).map(|(_, id)| id)
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Nodes {
    patience: Patience,
    by_id: HashMap<Arc<str>, Node>,
    by_address: HashMap<String, BTreeSet<Arc<str>>>,
    services: BTreeMap<Arc<str>, Service>,
    next_place: u64,
    looks: BTreeSet<(Instant, Arc<str>)>,
    reopenings: BTreeSet<(Instant, Arc<str>)>,
    checks: BTreeSet<(Instant, Arc<str>)>,
    guard: Guard,
    /// What is to be kept of these changed, and no fact says it.
    changed: Vec<Arc<str>>,
    /// What has changed since the last [commit](Self::commit), newest last.
    undo: Vec<Undo>,
}

impl Nodes {
    /// Nobody yet.
    pub fn new(patience: Patience) -> Self {
        Nodes {
            patience,
            by_id: HashMap::new(),
            by_address: HashMap::new(),
            services: BTreeMap::new(),
            next_place: 0,
            looks: BTreeSet::new(),
            reopenings: BTreeSet::new(),
            checks: BTreeSet::new(),
            guard: Guard::new(patience.expiry_guard, patience.heartbeat_timeout),
            changed: Vec::new(),
            undo: Vec::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All services, by name.
    pub fn services(&self) -> &BTreeMap<Arc<str>, Service> {
        &self.services
    }

    /// The service of this name.
    pub fn service_mut(&mut self, name: &str) -> Option<&mut Service> {
        self.services.get_mut(name)
    }

    /// The instances of a service, in the order of their registration.
    pub fn of(&self, service: &str) -> Option<impl Iterator<Item = &Node>> {
        Some(self.from(service, 0)?.map(|(_, node)| node))
    }

    /// The instances of a service with their places, beginning at one.
    pub fn from(&self, service: &str, place: u64) -> Option<impl Iterator<Item = (u64, &Node)>> {
        let ids = self.services.get(service)?.from(place);
        Some(ids.filter_map(|id| self.by_id.get(id)).map(|node| (node.place, node)))
    }

    /// By id, or by `host:port` where that names exactly one.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.by_id.get(name).or_else(|| {
            let ids = self.by_address.get(name).filter(|ids| ids.len() == 1)?;
            self.by_id.get(ids.first()?)
        })
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        let id = self.get(name)?.instance.node.clone();
        self.by_id.get_mut(&id)
    }

    /// Adds an instance, or hears from one that is there already; its id, and the fact if it is new.
    pub fn register(&mut self, registration: Registration, now: Moment) -> (Arc<str>, Option<Fact>) {
        let patience = registration.ttl.unwrap_or(self.patience.heartbeat_timeout);
        let id: Arc<str> = registration.node_id().into();
        let look = now.at + patience;
        if let Some(node) = self.by_id.get_mut(&id) {
            self.looks.remove(&(node.look, id.clone()));
            if (&node.metadata, node.ttl) != (&registration.metadata, registration.ttl) {
                self.undo.push(Undo::change(node));
                (node.metadata, node.ttl) = (registration.metadata, registration.ttl);
                self.changed.push(id.clone());
            }
            (node.heard, node.look) = (now, look);
            self.looks.insert((look, id.clone()));
            self.plan_check(&id, now.at);
            return (id, None);
        }
        let service = self.services.get_key_value(registration.service.as_str()).map(|(name, _)| name.clone());
        let service = service.unwrap_or_else(|| registration.service.into());
        let instance = Instance { service, node: id.clone() };
        let place = self.next_place;
        self.next_place += 1;
        let node = Node {
            instance: instance.clone(),
            address: registration.address,
            metadata: registration.metadata,
            heard: now,
            maintenance: false,
            breaker: Breaker::new(self.patience.breaker),
            last_failure: 0,
            next_try: 0,
            check: None,
            checked: None,
            next_check: None,
            traffic: Traffic::default(),
            response_time: None,
            place,
            ttl: registration.ttl,
            look,
        };
        self.insert(node);
        self.undo.push(Undo::Added(id.clone()));
        self.plan_check(&id, now.at);
        (id, Some(Fact::Registered(instance)))
    }

    fn insert(&mut self, node: Node) {
        let id = node.instance.node.clone();
        self.services.entry(node.instance.service.clone()).or_default().order.insert(node.place, id.clone());
        self.by_address.entry(node.address.clone()).or_default().insert(id.clone());
        self.looks.insert((node.look, id.clone()));
        self.by_id.insert(id, node);
    }

    /// Hears from an instance; `None` when it is unknown. Its next look is found to be due later when it comes, so that a
    /// heartbeat costs one table access.
    pub fn beat(&mut self, name: &str, now: Moment) -> Option<Fact> {
        let node = self.get_mut(name)?;
        node.heard = now;
        Some(Fact::Heartbeat(node.instance.clone()))
    }

    /// Takes an instance out; `None` when it is unknown.
    pub fn deregister(&mut self, name: &str) -> Option<Fact> {
        let id = self.get(name)?.instance.node.clone();
        self.take(&id).map(Fact::Deregistered)
    }

    /// Sends nobody to an instance, or again; whether it is known.
    pub fn set_maintenance(&mut self, name: &str, on: bool) -> bool {
        let Some(node) = self.get_mut(name) else { return false };
        let before = Undo::change(node);
        node.maintenance = on;
        let id = node.instance.node.clone();
        self.changed.push(id);
        self.undo.push(before);
        true
    }

    /// Instances of which something changed that no fact says, since this was asked last.
    pub fn take_changed(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.changed)
    }

    /// How long an instance took to answer, in milliseconds; whether it is known.
    pub fn note_response_time(&mut self, name: &str, ms: f64) -> bool {
        let Some(node) = self.get_mut(name) else { return false };
        // The last few count: each new one for a fifth.
        node.response_time = Some(node.response_time.map_or(ms, |so_far| so_far * 0.8 + ms * 0.2));
        true
    }

    /// When something is due next.
    pub fn due(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, Arc<str>)>| set.first().map(|(due, _)| *due);
        [&self.looks, &self.reopenings, &self.checks].into_iter().filter_map(first).min()
    }

    /// Time passes: circuits become half open, and who was silent for too long goes, if anybody `may_go` now.
    pub fn tick(&mut self, now: Moment, may_go: bool) -> Vec<Fact> {
        let mut facts = self.half_open(now);
        facts.extend(self.expire(now, may_go));
        facts
    }

    fn expire(&mut self, now: Moment, may_go: bool) -> Vec<Fact> {
        let mut overdue = Vec::new();
        // Silence must be longer than allowed, not just as long.
        while let Some((_, id)) = pop_due(&mut self.looks, |due| due < now.at) {
            let Some(node) = self.by_id.get(&id) else { continue };
            let deadline = node.heard.at + node.ttl.unwrap_or(self.patience.heartbeat_timeout);
            if deadline < now.at { overdue.push(id) } else { self.look_again(&id, deadline) }
        }
        if overdue.is_empty() {
            return Vec::new();
        }
        if !may_go || !self.guard.lets_go(overdue.len(), self.by_id.len(), now.at) {
            overdue.iter().for_each(|id| self.look_again(id, now.at + HELD_FOR));
            return Vec::new();
        }
        overdue.iter().filter_map(|id| self.take(id)).map(Fact::Unhealthy).collect()
    }

    fn look_again(&mut self, id: &Arc<str>, due: Instant) {
        if let Some(node) = self.by_id.get_mut(id) {
            node.look = due;
            self.looks.insert((due, id.clone()));
        }
    }

    fn take(&mut self, id: &Arc<str>) -> Option<Instance> {
        let node = self.remove(id)?;
        let instance = node.instance.clone();
        self.undo.push(Undo::Taken(Box::new(node)));
        Some(instance)
    }

    fn remove(&mut self, id: &Arc<str>) -> Option<Node> {
        self.check_at(id, None);
        let node = self.by_id.remove(id)?;
        self.looks.remove(&(node.look, id.clone()));
        if let State::Open(until) = node.breaker.state() {
            self.reopenings.remove(&(until, id.clone()));
        }
        if let Some(ids) = self.by_address.get_mut(&node.address) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_address.remove(&node.address);
            }
        }
        let service = &node.instance.service;
        if let Some(known) = self.services.get_mut(service) {
            known.order.remove(&node.place);
            if known.order.is_empty() {
                self.services.remove(service);
            }
        }
        Some(node)
    }
}

fn pop_due(
    timers: &mut BTreeSet<(Instant, Arc<str>)>,
    is_due: impl Fn(Instant) -> bool,
) -> Option<(Instant, Arc<str>)> {
    timers.first().filter(|(due, _)| is_due(*due))?;
    timers.pop_first()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::breaker;
    use serde_json::json;

    const PATIENCE: Duration = Duration::from_secs(30);

    pub(super) struct World {
        pub nodes: Nodes,
        start: Instant,
    }

    impl World {
        pub fn new(expiry_guard: u32) -> Self {
            let breaker = breaker::Settings::default();
            let patience = Patience { heartbeat_timeout: PATIENCE, expiry_guard, breaker };
            World { nodes: Nodes::new(patience), start: Instant::now() }
        }

        pub fn at(&self, ms: u64) -> Moment {
            Moment { at: self.start + Duration::from_millis(ms), ms }
        }

        pub fn register(&mut self, service: &str, port: u16, ttl: Option<u64>, ms: u64) -> Option<Fact> {
            let body = json!({"serviceName": service, "host": "h", "port": port, "ttl": ttl});
            let read = Registration::read(body.as_object().expect("an object")).expect("in order");
            self.nodes.register(read, self.at(ms)).1
        }

        pub fn tick(&mut self, ms: u64) -> Vec<String> {
            let facts = self.nodes.tick(self.at(ms), true);
            facts.iter().map(|fact| format!("{} {}", fact.name(), node_of(fact))).collect()
        }
    }

    fn node_of(fact: &Fact) -> &str {
        match fact {
            Fact::Registered(of) | Fact::Unhealthy(of) | Fact::CircuitHalfOpen(of) | Fact::CircuitOpen(of, _) => {
                &of.node
            }
            _ => "",
        }
    }

    #[test]
    fn who_is_silent_for_longer_than_allowed_goes_once() {
        let mut world = World::new(100);
        assert!(world.register("a", 1, None, 0).is_some());
        assert!(world.register("a", 2, Some(500), 0).is_some());
        assert!(world.register("a", 2, Some(500), 100).is_none(), "it is there already");
        assert_eq!(world.tick(600), Vec::<String>::new(), "as long as allowed");
        assert_eq!(world.tick(601), ["service_unhealthy a:h:2"]);
        assert!(world.nodes.beat("a:h:1", world.at(20_000)).is_some());
        assert_eq!(world.tick(30_001), Vec::<String>::new());
        assert_eq!(world.nodes.due(), Some(world.at(50_000).at));
        assert_eq!(world.tick(50_001), ["service_unhealthy a:h:1"]);
        assert!(world.nodes.beat("a:h:1", world.at(50_002)).is_none());
        assert!(world.nodes.len() == 0 && world.nodes.services().is_empty() && world.nodes.due().is_none());
        assert!(world.nodes.by_address.is_empty());
    }

    #[test]
    fn the_guard_holds_until_they_are_heard_again() {
        let mut world = World::new(50);
        for port in 1..=4 {
            world.register("a", port, None, 0);
        }
        assert_eq!(world.tick(30_001), Vec::<String>::new());
        assert_eq!(world.nodes.len(), 4);
        for name in ["a:h:1", "a:h:2", "h:3"] {
            assert!(world.nodes.beat(name, world.at(31_000)).is_some());
        }
        assert_eq!(world.tick(31_500), ["service_unhealthy a:h:4"]);
    }

    #[test]
    fn an_address_names_an_instance_only_where_it_is_the_only_one() {
        let mut world = World::new(100);
        world.register("a", 1, None, 0);
        assert_eq!(world.nodes.get("h:1").map(|node| &*node.instance.node), Some("a:h:1"));
        world.register("b", 1, None, 0);
        assert!(world.nodes.get("h:1").is_none());
        assert!(world.nodes.deregister("a:h:1").is_some());
        assert!(world.nodes.deregister("h:1").is_some());
    }
}
