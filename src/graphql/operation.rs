//! One running subscription: a cursor into its topic, and how its client sees payloads.

use super::shape::Shape;
use crate::{
    audience::Viewer,
    event::{Batch, Event},
    id::{Id, Since},
    log::{Entry, Gap, Item, Start},
    roll::{self, Straggler},
    tally::Ending,
    topic::{Policy, Topic},
    units::now_ms,
};
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};
use tokio::sync::watch;

/// Bytes of the log that are read at once.
const TURN: usize = 64 << 10;

/// What its client is told next.
#[derive(Debug, PartialEq)]
pub enum Told {
    /// A result, with the position of its event.
    Next(Option<Id>, String),
    /// It cannot go on, for this reason; nothing follows.
    Error(String),
    /// Nothing follows.
    Complete,
    /// It did not keep up; nothing follows.
    Slow,
}

/// See the module's text.
pub struct Operation {
    reader: Reader,
    shape: Shape,
    initial: Option<BoxFuture<'static, Result<Option<Value>, String>>>,
    waiting: VecDeque<(Id, Event)>,
}

impl Operation {
    /// On this topic, from now on or behind what is said; `initial` comes before everything else, and is asked for
    /// when what it must not miss is held already.
    pub fn new(
        reader: Reader,
        shape: Shape,
        initial: Option<BoxFuture<'static, Result<Option<Value>, String>>>,
    ) -> Self {
        Operation { reader, shape, initial, waiting: VecDeque::new() }
    }

    /// Nothing is lost when this is dropped in between.
    pub async fn next(&mut self) -> Told {
        if let Some(asked) = &mut self.initial {
            let answer = asked.await;
            self.initial = None;
            match answer {
                Err(why) => return Told::Error(why),
                Ok(None | Some(Value::Null)) => {}
                Ok(Some(Value::String(text))) => return Told::Next(None, self.shape.envelope(text.as_bytes())),
                Ok(Some(value)) => return Told::Next(None, self.shape.envelope(value.to_string().as_bytes())),
            }
        }
        loop {
            if let Some((id, event)) = self.waiting.pop_front() {
                return Told::Next(Some(id), self.shape.envelope(&event.payload));
            }
            match self.reader.next().await {
                Got::Events(events) => self.waiting = events,
                Got::End => return Told::Complete,
                Got::Lost => return Told::Slow,
            }
        }
    }
}

/// A cursor that is on its topic's roll as long as it lives.
pub struct Reader {
    topic: Arc<Topic>,
    viewer: Arc<Viewer>,
    /// The wire form that it counts as.
    form: usize,
    place: roll::Place,
    straggler: Arc<Straggler>,
    cursor: u64,
    changes: watch::Receiver<u64>,
    ending: Ending,
}

enum Got {
    Events(VecDeque<(Id, Event)>),
    End,
    Lost,
}

impl Reader {
    /// One that comes now. The gap, if what it asks for is not retained any more.
    pub fn new(topic: Arc<Topic>, viewer: Arc<Viewer>, form: usize, since: Option<&Since>) -> (Self, Option<Arc<Gap>>) {
        let (cursor, gap) = match topic.log.seek(since, now_ms()) {
            Start::At(offset) => (offset, None),
            Start::Gap(gap, offset) => (offset, Some(Arc::new(gap))),
            Start::Ahead(_) | Start::Unknown => (topic.log.end(), None),
        };
        (Reader::at(topic, viewer, form, cursor), gap)
    }

    /// One that comes now and reads from this offset on.
    pub fn at(topic: Arc<Topic>, viewer: Arc<Viewer>, form: usize, cursor: u64) -> Self {
        topic.readers.fetch_add(1, Ordering::Relaxed);
        topic.tally.enter(form);
        let (place, straggler) = (topic.roll.enter(&viewer), topic.roll.straggle(&viewer, cursor));
        let changes = topic.log.watch();
        Reader { topic, viewer, form, place, straggler, cursor, changes, ending: Ending::Left }
    }

    async fn next(&mut self) -> Got {
        loop {
            self.changes.borrow_and_update();
            let mut items = Vec::new();
            match self.topic.log.read(self.cursor, TURN, &mut items) {
                Ok(_) if items.is_empty() => {
                    if self.changes.changed().await.is_err() {
                        return Got::End;
                    }
                }
                Ok(_) => {
                    let events = self.take(&items);
                    if !events.is_empty() {
                        return Got::Events(events);
                    }
                    if self.topic.log.ended() && self.cursor == self.topic.log.end() {
                        self.ending = Ending::Done;
                        return Got::End;
                    }
                }
                Err(lost) if self.topic.policy() == Policy::DropOldest => {
                    self.topic.tally.skip(lost.resume.saturating_sub(self.cursor));
                    self.cursor = lost.resume;
                }
                Err(_) => {
                    self.ending = Ending::Slow;
                    return Got::Lost;
                }
            }
        }
    }

    /// What the viewer sees of these; the cursor goes behind them.
    fn take(&mut self, items: &[Item]) -> VecDeque<(Id, Event)> {
        let mut events = VecDeque::new();
        for item in items {
            let width = match &item.entry {
                Entry::Batch(batch) => {
                    self.see(batch, self.cursor.saturating_sub(item.offset) as usize, &mut events);
                    batch.len() as u64
                }
                Entry::Gap(_) | Entry::End => 1,
            };
            self.cursor = item.offset + width;
        }
        self.straggler.stands_at(self.cursor);
        let bytes = events.iter().map(|(_, event)| event.payload.len() as u64).sum();
        self.topic.tally.sent(self.form, 1, events.len() as u64, bytes);
        events
    }

    fn see(&self, batch: &Batch, from: usize, events: &mut VecDeque<(Id, Event)>) {
        let seen = self.viewer.of(batch, from);
        let visible = batch.events().skip(from).filter(|(i, _)| seen.has(*i));
        events.extend(visible.map(|(i, event)| (batch.id(i), event)));
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.topic.roll.leave(self.place);
        self.topic.readers.fetch_sub(1, Ordering::Relaxed);
        self.topic.tally.end(self.ending);
        self.topic.tally.leave(self.form);
    }
}
