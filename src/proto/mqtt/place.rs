//! A session's place in one topic: the cursor, what was sent and not acknowledged, what must be told as lost.

use super::{
    naming::{Header, Laid, Naming},
    session::{Filters, Identifiers, Reader},
};
use crate::{
    event::Batch,
    id::{Id, Since},
    log::{Entry, Item, Lost, Start},
    pins::PinId,
    proto::wire::MQTT_FORM,
    roll,
    tally::Ending,
    topic::Topic,
    units::now_ms,
};
use bytes::{BufMut, BytesMut};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};
use tokio::sync::watch;

/// Bytes of the log that are looked at together.
const PIECE: usize = 64 << 10;

/// What a delivery has to do with, beside the place.
pub struct Delivery<'a> {
    /// What is wanted.
    pub filters: &'a Filters,
    /// For QoS 1.
    pub identifiers: &'a mut Identifiers,
    /// What the client said itself: first and last of each.
    pub own: &'a mut VecDeque<(Id, Id)>,
    /// Who gets it.
    pub reader: &'a Reader,
    /// Where to.
    pub out: &'a mut BytesMut,
    /// So many bytes at once.
    pub enough: usize,
}

/// Sent with QoS 1, and not acknowledged.
#[derive(Debug)]
struct Sent {
    id: u16,
    offset: u64,
}

/// A connected reader, as the topic counts it.
struct Presence {
    listed: roll::Place,
    pin: Option<PinId>,
}

/// See the module's text.
pub struct Place {
    topic: Arc<Topic>,
    naming: Naming,
    changes: watch::Receiver<u64>,
    presence: Option<Presence>,
    /// What comes next; `None` while a mirror does not know yet what *now* is.
    cursor: Option<u64>,
    /// What *now* was when a mirror was asked that is still filling (LINKS 8).
    ahead: Option<Since>,
    /// What lies before came while the client was away: only QoS 1 is kept for it.
    live_from: u64,
    sent: VecDeque<Sent>,
    /// So many of them went over this connection.
    repeated: usize,
    /// Events that are lost since the last one that it got; `Some(None)` when nobody knows how many.
    lost: Option<Option<u64>>,
    /// Nothing can be sent before something is acknowledged.
    held: bool,
    ended: bool,
}

impl Place {
    /// At the end of the topic, as far as that is known. A topic that is not served has been silent since its end, and may
    /// go on behind it.
    pub fn new(naming: Naming, topic: Arc<Topic>, is_served: bool) -> Self {
        let mut place = Place {
            naming,
            changes: topic.log.watch(),
            topic,
            presence: None,
            cursor: None,
            ahead: None,
            live_from: 0,
            sent: VecDeque::new(),
            repeated: 0,
            lost: None,
            held: false,
            ended: false,
        };
        match is_served {
            true => place.seek(),
            false => place.cursor = Some(place.topic.log.end()),
        }
        place
    }

    /// At this offset of a topic that was named behind the subscription; a mirror begins where others begin to read it.
    pub fn from(naming: Naming, topic: Arc<Topic>, offset: u64) -> Self {
        let mut place = Place::new(naming, topic, true);
        place.cursor = place.cursor.map(|_| offset);
        place
    }

    /// What is read.
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// What the topic is called, or what its events are called below.
    pub fn name(&self) -> &str {
        self.naming.base()
    }

    /// The client is there; `again` where it was away since it subscribed.
    pub fn enter(&mut self, reader: &Reader, again: bool) {
        self.topic.readers.fetch_add(1, Ordering::Relaxed);
        self.topic.tally.enter(MQTT_FORM);
        self.presence = Some(Presence { listed: self.topic.roll.enter(&reader.viewer), pin: None });
        (self.repeated, self.held) = (0, false);
        if again {
            self.live_from = self.topic.log.end();
        }
        self.pin();
        self.changes.mark_changed();
    }

    /// The client is gone, for this reason.
    pub fn exit(&mut self, how: Ending) {
        let Some(Presence { listed, pin }) = self.presence.take() else { return };
        if let Some(pin) = pin {
            self.topic.log.unpin(pin, how == Ending::Done);
        }
        self.topic.readers.fetch_sub(1, Ordering::Relaxed);
        self.topic.tally.leave(MQTT_FORM);
        self.topic.tally.end(how);
        self.topic.roll.leave(listed);
    }

    /// Identifiers of what is not acknowledged.
    pub fn waiting(&self) -> impl Iterator<Item = u16> {
        self.sent.iter().map(|sent| sent.id)
    }

    /// Resolves when the topic changed.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether only an acknowledgement helps.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Whether the topic has ended and nothing of it is left.
    pub fn is_over(&self) -> bool {
        self.topic.log.ended() && self.cursor == Some(self.topic.log.end())
    }

    /// Whether the client is to hear that nothing more will come.
    pub fn has_ended(&self) -> bool {
        self.ended && self.is_over()
    }

    /// The topic is not served any more, and the client has heard that: it waits for the topic's return.
    pub fn forget_end(&mut self) {
        self.ended = false;
    }

    /// Whether the topic waits for this reader.
    pub fn is_pinned(&self) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.pin.is_some())
    }

    /// The topic need not wait for this reader any more.
    pub fn release(&mut self) {
        if let Some(pin) = self.presence.as_mut().and_then(|presence| presence.pin.take()) {
            self.topic.log.unpin(pin, true);
        }
    }

    /// The client has received this.
    pub fn acknowledge(&mut self, id: u16) {
        self.held = false;
        if let Some(at) = self.sent.iter().position(|sent| sent.id == id) {
            self.sent.remove(at);
            self.repeated -= usize::from(at < self.repeated);
            self.settle();
        }
    }

    /// Everything before what is unacknowledged was received.
    pub fn settle(&self) {
        let pin = self.presence.as_ref().and_then(|presence| presence.pin);
        if let (Some(pin), Some(offset)) = (pin, self.behind()) {
            self.topic.log.ack(pin, offset);
        }
    }

    /// The first offset that the client may not have.
    fn behind(&self) -> Option<u64> {
        self.sent.front().map(|sent| sent.offset).or(self.cursor)
    }

    fn pin(&mut self) {
        let Some(offset) = self.behind() else { return };
        // Where it is not retained any more the next read says so.
        let joined = self.topic.log.join(offset, None, false);
        if let (Some(presence), Some(joined)) = (&mut self.presence, joined) {
            presence.pin = joined.pin;
        }
    }

    /// Writes what is new.
    pub fn go_on(&mut self, to: &mut Delivery<'_>) {
        self.changes.borrow_and_update();
        self.repeat(to);
        let mut items = Vec::new();
        while self.repeated == self.sent.len() && to.out.len() < to.enough {
            let Some(cursor) = self.cursor.or_else(|| self.begin()) else { return };
            items.clear();
            match self.topic.log.read(cursor, PIECE, &mut items) {
                Err(lost) => self.lose(cursor, &lost),
                Ok(_) if items.is_empty() => return,
                Ok(_) => {
                    if !items.iter().all(|item| self.pass(item, to)) {
                        return;
                    }
                }
            }
        }
    }

    fn begin(&mut self) -> Option<u64> {
        self.seek();
        self.pin();
        self.cursor
    }

    /// Finds *now*, or what it was when it was asked for first.
    fn seek(&mut self) {
        match self.topic.log.seek(self.ahead.as_ref(), now_ms()) {
            Start::At(offset) => self.cursor = Some(offset),
            Start::Gap(gap, offset) => {
                self.cursor = Some(offset);
                self.miss(gap.count);
            }
            Start::Ahead(since) => self.ahead = Some(since),
            Start::Unknown => {}
        }
    }

    /// What was sent over another connection and not acknowledged comes first, in order (MQTT 5 §4.4).
    fn repeat(&mut self, to: &mut Delivery<'_>) {
        while self.repeated < self.sent.len() && to.out.len() < to.enough && self.repeated < to.reader.window {
            let Sent { id, offset } = self.sent[self.repeated];
            let Some(laid) = self.laid_at(offset, to) else {
                self.sent.remove(self.repeated);
                to.identifiers.take_back(id);
                self.miss(Some(1));
                continue;
            };
            put(to.out, Some(id), true, &laid, None);
            self.repeated += 1;
        }
    }

    fn laid_at(&self, offset: u64, to: &Delivery<'_>) -> Option<Laid> {
        let mut items = Vec::new();
        self.topic.log.read(offset, 1, &mut items).ok()?;
        let item = items.first()?;
        let Entry::Batch(batch) = &item.entry else { return None };
        let i = (offset - item.offset) as usize;
        let laid = self.naming.packets(batch, to.reader.version).nth(i)?;
        // Whoever is back may have fewer rights.
        (to.reader.viewer.of(batch, i).has(i) && self.naming.may_hear(&laid, to.reader)).then_some(laid)
    }

    /// Goes behind an entry; false where that must wait.
    fn pass(&mut self, item: &Item, to: &mut Delivery<'_>) -> bool {
        let width = match &item.entry {
            Entry::Batch(batch) => {
                let from = self.cursor.unwrap_or(item.offset).saturating_sub(item.offset) as usize;
                if let Some(stopped) = self.events(batch, item.offset, from, to) {
                    self.cursor = Some(stopped);
                    self.held = true;
                    return false;
                }
                batch.len() as u64
            }
            Entry::Gap(gap) => {
                self.miss(gap.count);
                1
            }
            Entry::End => {
                self.ended = true;
                1
            }
        };
        self.cursor = Some(item.offset + width);
        true
    }

    /// Writes what the client wants of a batch; where it must stop because too much is unacknowledged.
    fn events(&mut self, batch: &Batch, offset: u64, from: usize, to: &mut Delivery<'_>) -> Option<u64> {
        let (seen, before) = (to.reader.viewer.of(batch, from), to.out.len());
        let (mut sent, mut stopped) = (0, None);
        for (i, laid) in
            self.naming.packets(batch, to.reader.version).enumerate().skip(from).filter(|(i, _)| seen.has(*i))
        {
            let at = offset + i as u64;
            let Some(qos) = self.wanted(batch, i, &laid, to).filter(|qos| *qos > 0 || at >= self.live_from) else {
                continue;
            };
            let header = Header { qos, again: false, id: (qos > 0).then_some(1), name: laid.name() };
            if header.packet_len(laid.behind().len()) > to.reader.max_packet {
                self.miss(Some(1));
                continue;
            }
            if qos > 0 && to.identifiers.in_use() >= to.reader.window {
                stopped = Some(at);
                break;
            }
            let id = (qos > 0).then(|| to.identifiers.give());
            put(to.out, id, false, &laid, self.lost.take());
            if let Some(id) = id {
                self.sent.push_back(Sent { id, offset: at });
                self.repeated += 1;
            }
            sent += 1;
        }
        self.topic.tally.sent(MQTT_FORM, 1, sent, (to.out.len() - before) as u64);
        stopped
    }

    /// With which QoS the client gets this event, if it does.
    fn wanted(&self, batch: &Batch, i: usize, laid: &Laid, to: &mut Delivery<'_>) -> Option<u8> {
        if !self.naming.may_hear(laid, to.reader) {
            return None;
        }
        let own = !to.own.is_empty() && is_own(to.own, &batch.id(i));
        to.filters.qos(laid.name(), own)
    }

    fn lose(&mut self, from: u64, lost: &Lost) {
        let count = lost.count.or(Some(lost.resume - from).filter(|_| lost.gapless));
        tracing::warn!(topic = %self.topic.path, lost = count, "an MQTT reader was too slow");
        self.topic.tally.skip(count.unwrap_or(0));
        self.miss(count);
        self.cursor = Some(lost.resume);
    }

    /// The next event says that some are missing.
    fn miss(&mut self, count: Option<u64>) {
        self.topic.tally.tell_gap();
        let before = self.lost.unwrap_or(Some(0));
        self.lost = Some(before.zip(count).map(|(before, count)| before + count));
    }
}

/// Whether the client said this itself; what lies before it is forgotten.
fn is_own(own: &mut VecDeque<(Id, Id)>, id: &Id) -> bool {
    let holds = |(first, last): &(Id, Id)| first.epoch == id.epoch && first.seq <= id.seq && id.seq <= last.seq;
    let Some(at) = own.iter().position(holds) else { return false };
    if own[at].1.seq == id.seq {
        own.remove(at);
    }
    true
}

fn put(out: &mut BytesMut, id: Option<u16>, again: bool, laid: &Laid, lost: Option<Option<u64>>) {
    if let (None, None) = (id, lost) {
        return out.put_slice(&laid.whole);
    }
    let qos = u8::from(id.is_some());
    let told = lost.map(|lost| laid.behind_gap(lost));
    let behind = told.as_deref().unwrap_or(laid.behind());
    Header { qos, again, id, name: laid.name() }.put(out, behind.len());
    out.put_slice(behind);
}
