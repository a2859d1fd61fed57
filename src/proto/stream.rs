//! A topic as an asynchronous sequence of encoded pieces: for readers that a shard cannot hold (HTTP/2, TLS, a request
//! behind another one on the same connection).

use super::{wire::Wire, ws::encode};
use crate::{
    id::Since,
    log::{Entry, Gap, Item, Lost, Start},
    topic::{Policy, Topic},
    units::now_ms,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Bytes of the log per piece.
const PIECE: usize = 64 << 10;

/// One reader's way through a topic.
pub struct Steps {
    topic: Arc<Topic>,
    wire: Wire,
    start: Option<Option<Since>>,
    cursor: u64,
    changes: watch::Receiver<u64>,
    keep_alive: Duration,
    items: Vec<Item>,
    done: bool,
}

impl Steps {
    /// Begins where `since` says; the first piece tells the position (LINKS 7).
    pub fn new(topic: Arc<Topic>, wire: Wire, since: Option<Since>, keep_alive: Duration) -> Self {
        let changes = topic.log.watch();
        let start = Some(since);
        Steps { topic, wire, start, cursor: 0, changes, keep_alive, items: Vec::new(), done: false }
    }

    /// The pieces, until the stream ends or the reader must go.
    pub fn pieces(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut steps| async move { steps.next().await.map(|piece| (piece, steps)) })
    }

    async fn next(&mut self) -> Option<Bytes> {
        while !self.done {
            self.changes.borrow_and_update();
            let piece = match self.start.take() {
                Some(since) => self.begin(since),
                None => self.read(),
            };
            if !piece.is_empty() {
                return Some(piece);
            }
            if !self.done && tokio::time::timeout(self.keep_alive, self.changes.changed()).await.is_err() {
                return Some(self.wire.position(None, 0, 0)).filter(|piece| !piece.is_empty()).or(Some(Bytes::new()));
            }
        }
        None
    }

    fn begin(&mut self, since: Option<Since>) -> Bytes {
        let told = |wire: Wire, offset| wire.hello(self.topic.log.position(offset).as_ref());
        match self.topic.log.seek(since.as_ref(), now_ms()) {
            Start::At(offset) => {
                self.cursor = offset;
                told(self.wire, offset)
            }
            Start::Gap(gap, offset) => {
                self.cursor = offset;
                self.wire.gap(&gap)
            }
            Start::Ahead(since) => {
                self.start = Some(Some(since));
                Bytes::new()
            }
            Start::Unknown => {
                self.start = Some(since);
                Bytes::new()
            }
        }
    }

    fn read(&mut self) -> Bytes {
        self.items.clear();
        match self.topic.log.read(self.cursor, PIECE, &mut self.items) {
            Ok(next) => {
                let piece = self.encode();
                self.cursor = next;
                piece
            }
            Err(lost) => self.lost(&lost),
        }
    }

    fn encode(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        for item in &self.items {
            match &item.entry {
                Entry::Batch(batch) => {
                    let from = self.cursor.saturating_sub(item.offset) as usize;
                    let bytes = match self.wire {
                        Wire::Link => encode::link_frames_with_positions(batch, from, 0),
                        wire => wire.events(batch, from),
                    };
                    out.extend_from_slice(&bytes);
                }
                Entry::Gap(gap) => out.extend_from_slice(&self.wire.gap(gap)),
                Entry::End => self.done = item.offset + 1 == self.topic.log.end(),
            }
        }
        out.freeze()
    }

    fn lost(&mut self, lost: &Lost) -> Bytes {
        let last = self.topic.log.position(self.cursor);
        self.cursor = lost.resume;
        self.done = matches!(self.topic.policy(), Policy::Disconnect | Policy::Block);
        match (last, lost.to.clone()) {
            (Some(from), Some(to)) if !self.done => {
                self.wire.gap(&Gap { from, to, count: lost.count, reason: "slow reader".into() })
            }
            _ => Bytes::new(),
        }
    }
}
