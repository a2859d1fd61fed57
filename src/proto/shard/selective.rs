//! Delivery at the tip where not everybody sees everything: events with an audience, readers with a match.
//!
//! A reader that sees none of what is new costs a test and no system call; on a named stream, where all that is new has an
//! audience, it costs nothing: readers are looked up. A match is evaluated once per event however many readers share it,
//! and equal selections are encoded once per wire form.

use super::{
    Shard,
    catch_up::width,
    conn::{Conn, Place, Wrote},
};
use crate::{
    audience::{Seen, Viewer},
    event::Batch,
    log::{Entry, Item},
    proto::wire::{Wire, chunked},
};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// What was found out for one group of readers in one turn.
struct Turn<'a> {
    items: &'a [Item],
    wire: Wire,
    in_chunks: bool,
    /// By match and batch: who shares a match shares its verdict.
    verdicts: HashMap<(usize, u64), Vec<usize>>,
    /// By batch and selection.
    encoded: HashMap<(u64, Option<Vec<usize>>), Bytes>,
    /// Events and bytes that the whole group was sent.
    sent: (u64, u64),
    /// The lane does not count these events for everybody at the tip: who is sent some counts them itself.
    is_selected: bool,
}

impl<'a> Turn<'a> {
    fn new(items: &'a [Item], wire: Wire, in_chunks: bool, is_selected: bool) -> Self {
        let (verdicts, encoded) = (HashMap::new(), HashMap::new());
        Turn { items, wire, in_chunks, verdicts, encoded, sent: (0, 0), is_selected }
    }

    fn seen(&mut self, viewer: &Viewer, batch: &Batch, offset: u64) -> Seen {
        let Some(wanted) = viewer.wanted.as_ref().filter(|_| viewer.relay || !batch.is_addressed()) else {
            return viewer.of(batch, 0);
        };
        let verdict =
            self.verdicts.entry((Arc::as_ptr(wanted) as usize, offset)).or_insert_with(|| match viewer.of(batch, 0) {
                Seen::All => (0..batch.len()).collect(),
                Seen::Some(indices) => indices,
            });
        if verdict.len() == batch.len() { Seen::All } else { Seen::Some(verdict.clone()) }
    }

    fn bytes(&mut self, batch: &Batch, offset: u64, seen: Seen) -> Bytes {
        let selection = match seen {
            Seen::All => None,
            Seen::Some(indices) => Some(indices),
        };
        let (wire, in_chunks) = (self.wire, self.in_chunks);
        let entry = self.encoded.entry((offset, selection));
        let selection = entry.key().1.clone();
        let encode = || {
            let bytes = match selection {
                None => wire.events(batch, 0),
                Some(indices) => batch.pick(&indices).map(|picked| wire.events(&picked, 0)).unwrap_or_default(),
            };
            if in_chunks && !bytes.is_empty() { chunked(&bytes) } else { bytes }
        };
        entry.or_insert_with(encode).clone()
    }
}

impl Shard {
    /// Sends each reader of a group what it sees of the batches.
    pub(super) fn deliver_each(&mut self, lane: usize, group: usize, wire: Wire, in_chunks: bool, items: &[Item]) {
        let mut turn = Turn::new(items, wire, in_chunks, false);
        let mut at = 0;
        while let Some(&key) = self.lanes[lane].tip[group].get(at) {
            if self.deliver_to(key, &mut turn) {
                at += 1;
            }
        }
        self.tally_turn(lane, &turn);
    }

    fn tally_turn(&self, lane: usize, turn: &Turn<'_>) {
        let (events, bytes) = turn.sent;
        self.lanes[lane].topic.tally.sent(turn.wire.protocol().index(), 1, events, bytes);
    }

    /// Sends the readers of a named stream what it has for them, and touches no others. Everything has an audience, and
    /// links are not among these readers.
    pub(super) fn deliver_selected(&mut self, lane: usize, items: &[Item]) {
        let by_pair = &self.lanes[lane].by_pair;
        let having = audiences(items).filter_map(|to| by_pair.having(to));
        let keys: BTreeSet<usize> = having.flatten().copied().collect();
        let mut turns: HashMap<(Wire, bool), Turn<'_>> = HashMap::new();
        for key in keys {
            let conn = &self.conns[key];
            if matches!(conn.place, Place::Tip(_)) {
                let (wire, in_chunks) = (conn.wire, conn.chunked);
                let turn = turns.entry((wire, in_chunks)).or_insert_with(|| Turn::new(items, wire, in_chunks, true));
                self.deliver_to(key, turn);
            }
        }
        turns.values().for_each(|turn| self.tally_turn(lane, turn));
    }

    /// Whether the reader is still at the tip.
    fn deliver_to(&mut self, key: usize, turn: &mut Turn<'_>) -> bool {
        let items = turn.items;
        let (live, last) = (self.lanes[self.conns[key].lane].live, self.lanes[self.conns[key].lane].last.clone());
        if !self.conns[key].is_clear() {
            self.leave_tip(key, live, last.as_ref());
            return false;
        }
        let (mut events, mut bytes) = (0, 0);
        for item in items {
            let Entry::Batch(batch) = &item.entry else { continue };
            let wrote = send_seen(&mut self.conns[key], turn, batch, item.offset);
            events += batch.len() as u64;
            bytes += batch.run().bytes().len() as u64;
            match wrote {
                Wrote::All => {}
                Wrote::Dead => {
                    self.drop_conn(key, "connection lost");
                    return false;
                }
                Wrote::Part(_) => {
                    self.leave_tip(key, item.offset + width(item), Some(&batch.id(batch.len() - 1)));
                    self.count_sent(key, if turn.is_selected { 0 } else { events }, bytes);
                    return false;
                }
            }
        }
        true
    }

    /// What a reader was sent in the turn in which it left the tip.
    pub(super) fn count_sent(&mut self, key: usize, events: u64, bytes: u64) {
        let conn = &mut self.conns[key];
        conn.mark = conn.mark.wrapping_add(events);
        if let Some(more) = &mut conn.more {
            more.since_told = more.since_told.wrapping_add(bytes);
        }
    }
}

/// The audiences of these events.
fn audiences(items: &[Item]) -> impl Iterator<Item = &Map<String, Value>> {
    let batches = items.iter().filter_map(|item| match &item.entry {
        Entry::Batch(batch) => Some(batch),
        _ => None,
    });
    batches.flat_map(|batch| (0..batch.len()).filter_map(|i| batch.attrs_of(i)?.to.as_ref()))
}

/// At the tip, the mark is the lane's count less what was sent: what is not sent raises it.
fn send_seen(conn: &mut Conn, turn: &mut Turn<'_>, batch: &Batch, offset: u64) -> Wrote {
    let viewer = conn.viewer.clone();
    let seen = turn.seen(&viewer, batch, offset);
    let sent = match &seen {
        Seen::All => batch.len(),
        Seen::Some(indices) => indices.len(),
    };
    conn.mark = match turn.is_selected {
        true => conn.mark.wrapping_sub(sent as u64),
        false => conn.mark.wrapping_add((batch.len() - sent) as u64),
    };
    if sent == 0 {
        return Wrote::All;
    }
    let bytes = turn.bytes(batch, offset, seen);
    turn.sent = (turn.sent.0 + sent as u64, turn.sent.1 + bytes.len() as u64);
    conn.send(bytes)
}
