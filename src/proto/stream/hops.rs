//! The readers that are instances themselves, as status tells them: each keeps a card on which it says where it stands.

use super::{Place, Steps, Tasks};
use crate::{
    proto::{shard::Hop, wire::Wire},
    topic::Topic,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

/// What is known of one.
pub(super) struct Card {
    topic: Arc<Topic>,
    wire: Wire,
    instance: Option<String>,
    address: Option<SocketAddr>,
    now: Mutex<Now>,
}

/// Where it stands.
struct Now {
    place: &'static str,
    pinned: bool,
    received: u64,
}

/// The cards of the readers that there are.
pub(super) type Cards = Mutex<Vec<Weak<Card>>>;

impl Tasks {
    fn cards(&self) -> MutexGuard<'_, Vec<Weak<Card>>> {
        self.cards.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// The hops behind this process that no shard holds.
    pub fn hops(&self) -> Vec<Hop> {
        self.cards().iter().filter_map(Weak::upgrade).map(|card| card.describe()).collect()
    }
}

impl Card {
    fn describe(&self) -> Hop {
        let now = self.now.lock().unwrap_or_else(|p| p.into_inner());
        let log = &self.topic.log;
        let received = if now.place == "parked" { log.end() } else { now.received };
        Hop {
            topic: self.topic.path.clone(),
            wire: self.wire,
            instance: self.instance.clone(),
            address: self.address,
            place: now.place,
            pinned: now.pinned,
            lag_events: log.end().saturating_sub(received),
            lag_bytes: log.bytes_behind(received),
        }
    }
}

impl Steps {
    /// A card for a reader that is an instance.
    pub(super) fn take_card(&mut self) {
        if !self.wire.is_link() && self.owner.is_none() {
            return;
        }
        let card = Arc::new(Card {
            topic: self.topic.clone(),
            wire: self.wire,
            instance: self.owner.clone(),
            address: self.peer,
            now: Mutex::new(Now { place: "parked", pinned: false, received: 0 }),
        });
        let mut cards = self.tasks.cards();
        cards.retain(|card| card.strong_count() > 0);
        cards.push(Arc::downgrade(&card));
        drop(cards);
        self.card = Some(card);
    }

    /// Says on the card where the reader stands.
    pub(super) fn note_standing(&self) {
        let Some(card) = &self.card else { return };
        let place = match self.place {
            Place::Reading if self.cursor >= self.topic.log.end() => "tip",
            Place::Reading => "behind",
            _ => "parked",
        };
        let now = Now { place, pinned: self.pin.is_some(), received: self.told.received(self.cursor) };
        *card.now.lock().unwrap_or_else(|p| p.into_inner()) = now;
    }
}
