//! A session: what a client wants to hear, and how far it has come. It is a cursor in each topic and the identifiers of
//! what was sent and not acknowledged, never a queue: what waits for a client waits in the topic's log, and what the log
//! has let go of is lost for the client, which is told.

use super::{
    filter::Filter,
    naming::{Naming, path_of_name},
    packet::{Version, Wish, reason},
    place::{Delivery, Place},
};
use crate::{
    audience::Viewer, id::Id, registry::access::RESERVED, site::Site, tally::Ending, token::Grant, topic::Topic,
};
use bytes::BytesMut;
use futures_util::future::select_all;
use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

/// Filters of one session, and bytes of all of them.
pub(super) const MAX_FILTERS: usize = 1000;
const MAX_FILTER_BYTES: usize = 64 << 10;
/// What a client said itself and must not hear again is remembered this far.
const MAX_OWN: usize = 1024;
/// The largest QoS here.
const MAX_QOS: u8 = 1;

/// What one connection may and can hear.
pub struct Reader {
    /// What it speaks.
    pub version: Version,
    /// Its metadata.
    pub viewer: Arc<Viewer>,
    /// What its token says, where access is controlled.
    pub grant: Option<Grant>,
    /// How many messages may wait for an acknowledgement.
    pub window: usize,
    /// Bytes that a packet to it may have.
    pub max_packet: usize,
}

impl Reader {
    /// One that has nothing and is told what anybody is.
    pub fn anybody() -> Self {
        Reader { version: Version::V4, viewer: Arc::default(), grant: None, window: usize::MAX, max_packet: usize::MAX }
    }

    /// Whether it may hear this topic at all.
    pub fn may_read(&self, path: &str) -> bool {
        self.grant.as_ref().is_none_or(|grant| grant.may_subscribe(path))
    }

    /// Whether it may hear events of a registry with this name.
    pub fn may_hear(&self, event: &str) -> bool {
        let has_role = |grant: &Grant| grant.is_static || grant.roles.iter().any(|role| role == RESERVED.1);
        !event.starts_with(RESERVED.0) || self.grant.as_ref().is_some_and(has_role)
    }
}

/// The filters of a session.
#[derive(Debug, Default)]
pub struct Filters(Vec<Subscription>);

#[derive(Debug)]
struct Subscription {
    filter: Filter,
    qos: u8,
    no_local: bool,
}

impl Filters {
    /// With which QoS an event of this name is wanted, if it is; `own` is what the client said itself.
    pub fn qos(&self, name: &str, own: bool) -> Option<u8> {
        let wanted = |one: &&Subscription| !(own && one.no_local) && one.filter.matches(name);
        self.0.iter().filter(wanted).map(|one| one.qos).max()
    }

    /// Whether an event of a topic that is called (or called below) so may be wanted.
    fn reach(&self, name: &str) -> bool {
        self.0.iter().any(|one| one.filter.reaches(name))
    }

    fn add(&mut self, filter: Filter, wish: &Wish) -> Option<u8> {
        let qos = wish.qos.min(MAX_QOS);
        let bytes: usize = self.0.iter().map(|one| one.filter.as_str().len()).sum();
        let full = self.0.len() >= MAX_FILTERS || bytes + wish.filter.len() > MAX_FILTER_BYTES;
        match self.0.iter_mut().find(|one| one.filter == filter) {
            Some(known) => (known.qos, known.no_local) = (qos, wish.no_local),
            None if full => return None,
            None => self.0.push(Subscription { filter, qos, no_local: wish.no_local }),
        }
        Some(qos)
    }

    fn remove(&mut self, filter: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|one| one.filter.as_str() != filter);
        self.0.len() < before
    }
}

/// Packet identifiers, each in use once (MQTT 5 §2.2.1).
#[derive(Debug, Default)]
pub struct Identifiers {
    last: u16,
    used: HashSet<u16>,
}

impl Identifiers {
    /// A free one.
    pub fn give(&mut self) -> u16 {
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            // There are far more than may be in use at once.
            if self.used.insert(self.last) {
                return self.last;
            }
        }
    }

    /// It is free again.
    pub fn take_back(&mut self, id: u16) {
        self.used.remove(&id);
    }

    /// How many are in use.
    pub fn in_use(&self) -> usize {
        self.used.len()
    }
}

/// See the module's text.
#[derive(Default)]
pub struct Session {
    filters: Filters,
    places: Vec<Place>,
    identifiers: Identifiers,
    own: VecDeque<(Id, Id)>,
    /// Topics that were looked at, of all that were ever named.
    looked_at: usize,
    /// Whose turn it is to be read first.
    turn: usize,
}

impl Session {
    /// A client is there, with these rights: what it had not acknowledged comes again, and from there it goes on. QoS 0 is
    /// only for who is there.
    pub fn resume(&mut self, site: &Site, reader: &Reader) {
        self.places.retain(|place| reader.may_read(&place.topic().path));
        let mut identifiers = Identifiers { last: self.identifiers.last, used: HashSet::new() };
        identifiers.used.extend(self.places.iter().flat_map(Place::waiting));
        self.identifiers = identifiers;
        for place in &mut self.places {
            place.enter(reader, true);
            if !is_served(site, place.topic()) {
                place.forget_end();
            }
        }
        self.read_named(site, reader, true);
        // It may have more rights than before.
        self.read_all(site, reader);
    }

    /// The client is gone for now.
    pub fn pause(&mut self, how: Ending) {
        self.places.iter_mut().for_each(|place| place.exit(how));
        self.own.clear();
    }

    /// Adds a filter; the QoS that is granted, or the reason why not.
    pub fn subscribe(&mut self, site: &Site, reader: &Reader, wish: &Wish) -> u8 {
        if wish.filter.starts_with("$share/") {
            return reason::NO_SHARING;
        }
        let Some(filter) = Filter::parse(&wish.filter) else { return reason::BAD_FILTER };
        if !is_allowed(site, reader, &filter) {
            return reason::NOT_AUTHORIZED;
        }
        // What was named for the filters before must not be taken for what this one finds.
        self.find_places(site, reader);
        let Some(qos) = self.filters.add(filter, wish) else { return reason::QUOTA };
        self.read_all(site, reader);
        qos
    }

    /// Takes a filter away; the reason code.
    pub fn unsubscribe(&mut self, filter: &str) -> u8 {
        let known = self.filters.remove(filter);
        let filters = &self.filters;
        let (kept, gone) = std::mem::take(&mut self.places)
            .into_iter()
            .partition::<Vec<_>, _>(|place| filters.reach(place.name()) || place.waiting().next().is_some());
        self.places = kept;
        gone.into_iter().for_each(|mut place| place.exit(Ending::Left));
        if known { reason::SUCCESS } else { reason::NO_SUBSCRIPTION }
    }

    /// Begins to read what was named since the last look and a filter reaches, from its first message on.
    pub fn find_places(&mut self, site: &Site, reader: &Reader) {
        self.read_named(site, reader, false);
    }

    /// Does so for a client that may have been away meanwhile.
    fn read_named(&mut self, site: &Site, reader: &Reader, again: bool) {
        let named = site.topics.arrivals(self.looked_at);
        self.looked_at += named.len();
        for (topic, begins) in named {
            if let Some(naming) = self.naming_of(site, reader, &topic) {
                let mut place = Place::from(naming, topic, begins);
                place.enter(reader, again);
                self.places.push(place);
            }
        }
    }

    /// Begins to read every topic that a filter reaches, from now on; also one that is not served now, since it may be
    /// again.
    fn read_all(&mut self, site: &Site, reader: &Reader) {
        let named = site.topics.arrivals(0);
        self.looked_at = named.len();
        for (topic, _) in named {
            if let Some(naming) = self.naming_of(site, reader, &topic) {
                let is_served = is_served(site, &topic);
                let mut place = Place::new(naming, topic, is_served);
                place.enter(reader, false);
                self.places.push(place);
            }
        }
    }

    /// How a topic's events are called, where it is to be read and is not yet.
    fn naming_of(&self, site: &Site, reader: &Reader, topic: &Arc<Topic>) -> Option<Naming> {
        if self.filters.0.is_empty() {
            return None;
        }
        let naming = Naming::of(site, topic);
        let is_wanted = self.filters.reach(naming.base()) && reader.may_read(&topic.path);
        let is_new = || !self.places.iter().any(|place| Arc::ptr_eq(place.topic(), topic));
        (is_wanted && is_new()).then_some(naming)
    }

    /// Writes what is new, until `out` has about `enough` bytes or too much is unacknowledged.
    pub fn deliver(&mut self, reader: &Reader, out: &mut BytesMut, enough: usize) {
        let Session { filters, places, identifiers, own, turn, .. } = self;
        let mut delivery = Delivery { filters, identifiers, own, reader, out, enough };
        *turn = turn.wrapping_add(1);
        for i in 0..places.len() {
            let at = (*turn + i) % places.len();
            places[at].go_on(&mut delivery);
        }
    }

    /// Resolves when there may be something new.
    pub async fn changed(&mut self) {
        let waits = self.places.iter_mut().filter(|place| !place.is_held()).map(|place| Box::pin(place.changed()));
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        select_all(waits).await;
    }

    /// The client has received this.
    pub fn acknowledge(&mut self, id: u16) {
        self.identifiers.take_back(id);
        self.places.iter_mut().for_each(|place| place.acknowledge(id));
    }

    /// All that was written is with the kernel: publishers that wait for this reader need not any more.
    pub fn settle(&self) {
        self.places.iter().for_each(Place::settle);
    }

    /// The client has said this itself.
    pub fn said(&mut self, topic: &str, first: Id, last: Id) {
        if self.filters.0.iter().any(|one| one.no_local) && self.own.len() < MAX_OWN {
            self.own.push_back((first, last));
        }
        // A topic that waits for its readers would wait for itself (LINKS 23).
        self.places.iter_mut().filter(|place| place.topic().path == topic).for_each(Place::release);
    }

    /// Whether it hears anything, and nothing more will come.
    pub fn has_ended(&self) -> bool {
        let told = self.places.iter().any(Place::has_ended) && self.places.iter().all(Place::is_over);
        told && self.identifiers.in_use() == 0
    }

    /// Whether a topic waits for it.
    pub fn is_pinned(&self) -> bool {
        self.places.iter().any(Place::is_pinned)
    }
}

/// Whether readers find this topic at its path.
fn is_served(site: &Site, topic: &Arc<Topic>) -> bool {
    site.topic(&topic.path).is_some_and(|served| Arc::ptr_eq(&served, topic))
}

/// A filter that can mean one topic only says whether the reader may read that; with wildcards it hears what it may.
fn is_allowed(site: &Site, reader: &Reader, filter: &Filter) -> bool {
    let Some(name) = filter.exact() else { return true };
    let event = name.strip_prefix(site.mqtt.base.as_str()).and_then(|rest| rest.strip_prefix('/'));
    match (&site.registry, event) {
        (Some(registry), Some(event)) => reader.may_read(&registry.topic().path) && reader.may_hear(event),
        _ => reader.may_read(&path_of_name(name.trim_start_matches('/'))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(filter: &str, qos: u8) -> Wish {
        Wish { filter: filter.into(), qos, no_local: false }
    }

    fn add(filters: &mut Filters, wish: &Wish) -> Option<u8> {
        filters.add(Filter::parse(&wish.filter).expect("a filter"), wish)
    }

    #[test]
    fn the_best_of_overlapping_filters_counts() {
        let mut filters = Filters::default();
        assert_eq!(add(&mut filters, &wish("a/#", 0)), Some(0));
        assert_eq!(add(&mut filters, &wish("a/+", 2)), Some(1), "there is no QoS 2");
        assert_eq!(
            (filters.qos("a/b", false), filters.qos("a/b/c", false), filters.qos("b", false)),
            (Some(1), Some(0), None)
        );
        assert_eq!(add(&mut filters, &Wish { no_local: true, ..wish("a/#", 1) }), Some(1));
        assert_eq!((filters.qos("a/b/c", false), filters.qos("a/b/c", true), filters.0.len()), (Some(1), None, 2));
        assert!(filters.remove("a/#") && !filters.remove("a/#"));
    }

    #[test]
    fn filters_are_bounded() {
        let mut filters = Filters::default();
        for n in 0..MAX_FILTERS {
            assert!(add(&mut filters, &wish(&n.to_string(), 0)).is_some());
        }
        assert_eq!(add(&mut filters, &wish("one more", 0)), None);
        assert!(add(&mut filters, &wish("1", 1)).is_some(), "one of them again");
        let mut filters = Filters::default();
        assert!(add(&mut filters, &wish(&"x".repeat(MAX_FILTER_BYTES - 5), 0)).is_some());
        assert_eq!(add(&mut filters, &wish("longer", 0)), None);
    }

    #[test]
    fn an_identifier_is_in_use_once() {
        let mut identifiers = Identifiers::default();
        let first = identifiers.give();
        for _ in 0..usize::from(u16::MAX) - 1 {
            let id = identifiers.give();
            assert!(id != 0 && id != first);
            identifiers.take_back(id);
        }
        assert_ne!(identifiers.give(), first);
        assert_eq!(identifiers.in_use(), 2);
    }
}
