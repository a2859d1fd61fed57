//! The readers that are instances themselves, and how far each has come: for status.
//!
//! Asked for, not kept: a shard looks at its connections when somebody wants to know.

use super::{
    Shard, Shards,
    conn::{Conn, Place},
    inbox::{Command, Inbox},
};
use crate::proto::wire::Wire;
use std::{net::SocketAddr, time::Duration};
use tokio::{sync::oneshot, time::timeout};

/// A busy shard is not waited for longer than this.
const PATIENCE: Duration = Duration::from_millis(500);

/// A reader that is an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    /// What it reads.
    pub topic: String,
    /// How.
    pub wire: Wire,
    /// What it calls itself, if it says.
    pub instance: Option<String>,
    /// Where it connects from.
    pub address: Option<SocketAddr>,
    /// `tip`, `behind` or `parked`.
    pub place: &'static str,
    /// Whether nothing behind it is forgotten (`block`).
    pub pinned: bool,
    /// Events that it has not acknowledged: *received*, not processed (LINKS 13).
    pub lag_events: u64,
    /// The same in bytes.
    pub lag_bytes: u64,
}

impl Shards {
    /// The hops behind this process, by topic and name.
    pub async fn hops(&self) -> Vec<Hop> {
        let ask = |inbox: &Inbox| {
            let (asking, answer) = oneshot::channel();
            inbox.send(Command::Describe(asking));
            answer
        };
        let answers: Vec<_> = self.inboxes.iter().map(|inbox| ask(inbox)).collect();
        let mut hops = Vec::new();
        for answer in answers {
            if let Ok(Ok(found)) = timeout(PATIENCE, answer).await {
                hops.extend(found);
            }
        }
        hops.sort_by(|a: &Hop, b| (&a.topic, &a.instance, a.address).cmp(&(&b.topic, &b.instance, b.address)));
        hops
    }
}

impl Shard {
    /// Behind the delivery of what is new, so that nobody looks slower than it is.
    pub(super) fn answer_askers(&mut self) {
        for asking in std::mem::take(&mut self.asking) {
            let hops = self.conns.iter().filter_map(|(_, conn)| self.describe_hop(conn)).collect();
            let _ = asking.send(hops);
        }
    }

    fn describe_hop(&self, conn: &Conn) -> Option<Hop> {
        let more = conn.more.as_ref().filter(|more| conn.wire.is_link() || more.owner.is_some())?;
        let lane = &self.lanes[conn.lane];
        let log = &lane.topic.log;
        let (place, sent) = match conn.place {
            Place::Tip(_) => ("tip", lane.live),
            Place::Behind(_) => ("behind", conn.cursor),
            Place::Parked(_) | Place::New => ("parked", log.end()),
            Place::Leaving => return None,
        };
        // Once every position told is acknowledged, what the kernel took since counts as received.
        let received = if more.told.is_empty() { sent } else { more.acked.min(sent) };
        Some(Hop {
            topic: lane.topic.path.clone(),
            wire: conn.wire,
            instance: more.owner.clone(),
            address: conn.peer(),
            place,
            pinned: more.pin.is_some(),
            lag_events: log.end().saturating_sub(received),
            lag_bytes: log.bytes_behind(received),
        })
    }
}
