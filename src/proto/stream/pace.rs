//! Consideration: publishers that may wait stay near a reader that keeps up, or only just stumbled, as they do near the
//! shards.

use super::Steps;
use crate::{log::Pump, proto::shard::PATIENCE_MS, topic::Topic};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// By topic (its address): pumps of the log that no reader uses now. A log never forgets one.
pub(super) type Pumps = Mutex<HashMap<usize, Vec<Arc<Pump>>>>;

fn address(topic: &Arc<Topic>) -> usize {
    Arc::as_ptr(topic) as usize
}

/// How a reader keeps up.
#[derive(Default)]
pub(super) struct Pace {
    /// What the log looks at; without one nobody waits for the reader.
    pump: Option<Arc<Pump>>,
    /// Since when it is not at the tip.
    fell: Option<Instant>,
}

impl Pace {
    pub(super) fn is_behind(&mut self, behind: bool, now: Instant) {
        self.fell = if behind { self.fell.or(Some(now)) } else { None };
    }
}

impl Steps {
    /// Publishers are considerate of this reader. Only for who asks for the next step whatever the socket does.
    pub fn with_patience(mut self) -> Self {
        let mut pumps = self.tasks.pumps.lock().unwrap_or_else(|p| p.into_inner());
        let free = pumps.entry(address(&self.topic)).or_default().pop();
        drop(pumps);
        self.pace.pump = Some(free.unwrap_or_else(|| self.topic.log.add_pump()));
        self
    }

    /// Says how far the reader has come.
    pub(super) fn keep_pace(&self, now: Instant) {
        let Some(pump) = &self.pace.pump else { return };
        let patience = Duration::from_millis(u64::from(PATIENCE_MS));
        let fresh = self.pace.fell.is_none_or(|fell| now.duration_since(fell) < patience);
        let at = (fresh && self.is_reading()).then_some((self.cursor, self.cursor));
        if pump.stand(at) {
            self.topic.log.pump_moved();
        }
    }

    /// Who sends is told whether this reader can still take it.
    pub(super) fn note_straggling(&self) {
        if let Some(straggler) = self.straggler.as_ref().filter(|_| self.is_reading()) {
            straggler.stands_at(self.cursor);
        }
    }

    pub(super) fn give_pump_back(&mut self) {
        let Some(pump) = self.pace.pump.take() else { return };
        pump.stand(None);
        self.topic.log.pump_moved();
        let mut pumps = self.tasks.pumps.lock().unwrap_or_else(|p| p.into_inner());
        pumps.entry(address(&self.topic)).or_default().push(pump);
    }
}
