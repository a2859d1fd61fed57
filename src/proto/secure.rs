//! Readers behind TLS: a task each, since a shard hands shared bytes to the kernel and nobody can share ciphertext. So
//! have those that are spoken with, since what they see changes.
//!
//! [`Steps`] says what the reader gets; this file writes it, hears the peer, and sees the connection off.

use super::{
    dialog::{Dialog, Said},
    line::{Line, Moved},
    listen::Opened,
    publish,
    stream::{Step, Steps},
    subscribe::Subscription,
    wire::{Farewell, Wire, chunked, last_chunk},
    ws::{
        assemble::{Assembler, Got},
        frame,
    },
};
use crate::{
    event::{Event, RunBuilder},
    inbound::Stream,
    site::Site,
    topic::Topic,
    units::now_ms,
};
use bytes::{Bytes, BytesMut};
use std::{
    any::Any,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// Between two looks at the kernel's view of a pinned reader.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pongs are left out while so much waits for the socket.
const MAX_WAITING: usize = 64 << 10;

/// Serves a stream until its end, in a task of its own.
pub fn spawn(site: &Site, stream: Stream, subscription: Subscription, opened: Opened, permit: Box<dyn Any + Send>) {
    let peer = stream.peer_addr();
    let session = Session::new(site, stream, subscription, opened);
    let path = session.topic.path.clone();
    tokio::spawn(async move {
        let why = session.run().await;
        tracing::debug!(?peer, topic = %path, %why, "reader gone");
        drop(permit);
    });
}

struct Session {
    line: Line,
    steps: Steps,
    topic: Arc<Topic>,
    wire: Wire,
    chunked: bool,
    may_publish: bool,
    /// Who hears what the peer says, if it is spoken with.
    dialog: Option<Box<dyn Dialog>>,
    /// When it must have said who it is.
    deadline: Option<Instant>,
    inbound: Assembler,
    /// Said by a publisher, and not published yet: there is no room.
    waiting: Vec<Event>,
    /// When the kernel was last asked.
    looked: Option<Instant>,
}

/// What happened first.
enum Next {
    Moved(io::Result<Moved>),
    Step(Step),
    Room,
    /// It did not say in time who it is.
    Late,
}

async fn until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

impl Session {
    fn new(site: &Site, stream: Stream, mut subscription: Subscription, opened: Opened) -> Self {
        let Opened { head, chunked, early } = opened;
        let (topic, may_publish) = (subscription.topic.clone(), subscription.may_publish);
        let wire = subscription.wire;
        let peer = stream.peer_addr();
        let dialog = subscription.dialog.take();
        let mut inbound = Assembler::new(true, site.rules.max_message).inflating(wire.inflater());
        inbound.buf.extend_from_slice(&early);
        Session {
            line: Line::new(stream, head),
            steps: Steps::new(site.tasks.clone(), subscription, peer).with_patience(),
            topic,
            wire,
            chunked,
            may_publish,
            dialog,
            deadline: None,
            inbound,
            waiting: Vec::new(),
            looked: None,
        }
    }

    /// Why it ended, for the log.
    async fn run(mut self) -> String {
        let begun = self.dialog.as_mut().map(|dialog| dialog.begin()).unwrap_or_default();
        let mut said = self.obey(begun).or_else(|| self.take_input());
        loop {
            if let Some(farewell) = said.take() {
                let last = self.steps.leave(&farewell);
                return self.leave(last).await;
            }
            self.look_at_kernel();
            let clear = self.line.is_clear();
            // Who does not take its answers is not heard meanwhile.
            let heard = self.waiting.is_empty() && (self.dialog.is_none() || self.line.waiting() < MAX_WAITING);
            let next = tokio::select! {
                moved = self.line.go_on(&mut self.inbound.buf, heard) => Next::Moved(moved),
                step = self.steps.next(clear) => Next::Step(step),
                _ = self.topic.log.room(), if !self.waiting.is_empty() => Next::Room,
                () = until(self.deadline), if self.deadline.is_some() => Next::Late,
            };
            match next {
                Next::Step(Step::Piece(piece)) => self.send(piece),
                Next::Step(last) => return self.leave(last).await,
                Next::Moved(Ok(Moved::Read(0))) if self.wire.is_websocket() => return "closed by the peer".into(),
                Next::Moved(Ok(Moved::Read(0))) => self.end_input(),
                Next::Moved(Ok(Moved::Read(_))) => said = self.take_input(),
                Next::Moved(Ok(Moved::Flushed)) => {}
                Next::Moved(Err(error)) => return error.to_string(),
                Next::Room => said = self.publish(),
                Next::Late => said = Some(Farewell::Refused),
            }
        }
    }

    fn look_at_kernel(&mut self) {
        let now = Instant::now();
        if self.steps.is_pinned() && self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY) {
            self.looked = Some(now);
            self.steps.see_kernel(self.line.stream.kernel_view());
        }
    }

    /// In the connection's transfer coding.
    fn send(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.line.send(if self.chunked { chunked(&piece) } else { piece });
        }
    }

    /// The peer has closed its sending side, and may read on: one that is gone answers a probe with a reset.
    fn end_input(&mut self) {
        self.line.await_loss();
        self.send(self.wire.probe());
    }

    /// What the peer said; how to close, if it or its mistakes ask for that.
    fn take_input(&mut self) -> Option<Farewell> {
        let now = Instant::now();
        self.steps.hear(now);
        if !self.wire.is_websocket() {
            self.inbound.buf.clear();
            return None;
        }
        let farewell = loop {
            match self.inbound.next() {
                Ok(None) => break None,
                Ok(Some(Got::Message { payload, .. })) if self.dialog.is_some() => {
                    let heard = self.dialog.as_mut().map(|dialog| dialog.hear(&payload)).unwrap_or_default();
                    if let Some(farewell) = self.obey(heard) {
                        break Some(farewell);
                    }
                }
                Ok(Some(Got::Message { text, payload })) if self.may_publish => {
                    match publish::message(self.wire, text, payload) {
                        Ok(event) => self.waiting.push(event),
                        Err(fault) => break Some(Farewell::Fault(fault)),
                    }
                }
                Ok(Some(Got::Message { .. })) => {}
                Ok(Some(Got::Ping(payload))) => self.answer(&payload, now),
                Ok(Some(Got::Pong(payload))) => self.steps.take_pong(&payload, now),
                Ok(Some(Got::Close(code, _))) => break Some(Farewell::Echo(code)),
                Err(fault) => break Some(Farewell::Fault(fault)),
            }
        };
        if self.inbound.is_idle() {
            // An idle reader holds no buffer.
            self.inbound.buf = BytesMut::new();
        }
        // What was said before a close, or before a fault, counts.
        if !self.waiting.is_empty() && (farewell.is_some() || self.topic.log.has_room()) {
            return self.publish().or(farewell);
        }
        farewell
    }

    /// Does what a dialog says; how to close, if that is what it says.
    fn obey(&mut self, all: Vec<Said>) -> Option<Farewell> {
        for said in all {
            match said {
                Said::Text(text) => {
                    let mut frame = RunBuilder::default();
                    frame.push(true, text.as_bytes());
                    self.line.send(frame.finish().bytes().clone());
                }
                Said::See(wanted) => self.steps.see(wanted),
                Said::From(since) => self.steps.seek(since),
                Said::Await(deadline) => self.deadline = deadline,
                Said::Expire(when) => self.steps.expire(when),
                Said::Refuse => return Some(Farewell::Refused),
            }
        }
        None
    }

    fn answer(&mut self, ping: &[u8], now: Instant) {
        self.steps.take_ping(ping, now);
        if self.line.waiting() < MAX_WAITING {
            self.line.send(frame::control(frame::op::PONG, ping).freeze());
        }
    }

    /// How to close if it was not taken.
    fn publish(&mut self) -> Option<Farewell> {
        self.steps.turn_publisher();
        let published = self.topic.publish(std::mem::take(&mut self.waiting), now_ms());
        published.is_err().then_some(Farewell::Unrecorded)
    }

    /// A WebSocket waits for the peer's close frame; HTTP ends here.
    async fn leave(mut self, last: Step) -> String {
        let Step::Last(goodbye, position) = last else {
            let Step::Gone(why) = last else { return String::new() };
            return why.into();
        };
        self.send(goodbye);
        if self.chunked {
            self.line.send(last_chunk(position).into());
        }
        let heard_out = self.line.see_off(self.wire.is_websocket()).await;
        if heard_out { "done" } else { "no answer to the goodbye" }.into()
    }
}
