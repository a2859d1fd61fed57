//! One client's connection, from its CONNECT to its end.

use super::{
    channel::{Carrier, Channel},
    handshake::{self, Member, Refused},
    packet::{Connect, Fault, Packet, Publish, Subscribe, Version, property, reason},
    read,
    seats::{MAX_EXPIRY, Seated, Sitter},
    session::{Reader, Session},
    speech::{self, Speech},
    write,
};
use crate::{
    inbound::Stream,
    proto::{auth, line::Moved, shard::STALLED, ws::frame},
    recorder::AppendError,
    site::Site,
    tally::Ending,
    units::now_ms,
};
use bytes::BytesMut;
use std::{
    any::Any,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Nothing more is written while so much waits for the socket; nor is anything heard that would be answered.
const ENOUGH: usize = 64 << 10;
/// Between two looks at the kernel's view of a client that a topic waits for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Why a message is not acknowledged.
const NOT_WRITTEN: &str = "the journal cannot be written";
/// Nothing is due.
const NEVER: Duration = Duration::from_secs(3600);

/// How a connection ends.
enum End {
    /// It is not there any more.
    Gone(String),
    /// The client has said goodbye, for this reason.
    Farewell(u8),
    /// We say goodbye, for this reason.
    Goodbye(u8, &'static str, Ending),
    /// The WebSocket around it broke a rule.
    Broken(frame::Fault),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        End::Goodbye(fault.code, fault.why, Ending::Fault)
    }
}

/// Serves a connection until its end. `early` came already; `bearer` is a token that came with a WebSocket's request.
pub async fn serve(
    site: Arc<Site>,
    stream: Stream,
    carrier: Carrier,
    early: &[u8],
    bearer: Option<String>,
    permit: Box<dyn Any + Send>,
) {
    let peer = stream.peer_addr();
    let mut channel = Channel::new(stream, carrier, early);
    let connect = match timeout(site.rules.handshake_timeout, handshake::connect(&mut channel)).await {
        Ok(Ok(connect)) => connect,
        Ok(Err(Refused::Fault(fault))) => return refuse(channel, Version::V4, fault.code, fault.why, peer).await,
        Ok(Err(Refused::Broken(fault))) => return channel.close(Some(fault)).await,
        Ok(Err(Refused::Gone(error))) => return tracing::debug!(?peer, %error, "no MQTT client"),
        Err(_) => return tracing::debug!(?peer, "no CONNECT in time"),
    };
    match handshake::admit(&site, &connect, bearer.as_deref()) {
        Err(code) => refuse(channel, connect.version, code, "not let in", peer).await,
        Ok(Member { grant, name }) => {
            let reader = handshake::reader(&connect, grant);
            site.mqtt.clients.fetch_add(1, Ordering::Relaxed);
            sit(&site, channel, connect, (reader, name), peer).await;
            site.mqtt.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
    drop(permit);
}

/// CONNACK with a reason, where one is due: what is no MQTT is not answered (MQTT 3.1.1 §3.1.4).
async fn refuse(mut channel: Channel, version: Version, code: u8, why: &str, peer: Option<SocketAddr>) {
    tracing::debug!(?peer, code, why, "MQTT client refused");
    if !matches!(code, reason::MALFORMED | reason::PROTOCOL_ERROR | reason::TOO_LARGE | reason::BAD_TOPIC) {
        let mut out = BytesMut::new();
        write::connack(&mut out, version, false, code, &[]);
        channel.send(out.freeze());
    }
    channel.close(None).await;
}

/// From the CONNACK to the end of the session's turn.
async fn sit(
    site: &Arc<Site>,
    mut channel: Channel,
    connect: Connect,
    (reader, owner): (Reader, String),
    peer: Option<SocketAddr>,
) {
    let given = connect.client_id.is_empty().then(|| format!("wsevent-{:016x}", rand::random::<u64>()));
    let name = given.as_deref().unwrap_or(&connect.client_id);
    // No client identifier has U+0000 in it.
    let Some(mut seated) = site.mqtt.seats.take(&format!("{owner}\0{name}")).await else {
        return channel.close(None).await;
    };
    if connect.clean {
        *seated.session = None;
    }
    let (present, asked) = (seated.session.is_some(), handshake::expiry(&connect));
    let shorter = (asked > MAX_EXPIRY && connect.version == Version::V5).then_some(MAX_EXPIRY);
    channel.send(handshake::welcome(site, connect.version, present, given.as_deref(), shorter).freeze());
    seated.session.get_or_insert_default().resume(site, &reader);
    let mut connection = Connection {
        site: site.clone(),
        channel,
        expires: reader.grant.as_ref().and_then(|grant| grant.ends).map(auth::instant_of),
        reader,
        out: BytesMut::new(),
        silence: Some(connect.keep_alive).filter(|secs| *secs > 0).map(|secs| Duration::from_secs(secs.into()) * 3 / 2),
        heard: Instant::now(),
        expiry: asked,
        will: connect.will,
        waiting: None,
    };
    let sitter = seated.sitter.clone();
    let end = connection.run(seated.session.get_or_insert_default(), sitter).await;
    connection.leave(seated, end, peer).await;
}

struct Connection {
    site: Arc<Site>,
    channel: Channel,
    reader: Reader,
    /// Written and not handed to the channel yet.
    out: BytesMut,
    /// One and a half times what the client promised to be silent at most.
    silence: Option<Duration>,
    heard: Instant,
    /// When its token ends.
    expires: Option<Instant>,
    /// How long its session is kept.
    expiry: Duration,
    will: Option<(Publish, u32)>,
    /// What it said and there is no room for yet.
    waiting: Option<Speech>,
}

impl Connection {
    async fn run(&mut self, session: &mut Session, mut sitter: Sitter) -> End {
        let site = self.site.clone();
        let (drained, mut named) = (site.turn_to_leave(), site.topics.watch());
        tokio::pin!(drained);
        // Something may have been named since the session was resumed.
        named.mark_changed();
        let mut end = self.take_input(session);
        loop {
            if let Some(end) = end.take() {
                return end;
            }
            self.deliver(session);
            if session.has_ended() && self.channel.is_clear() {
                return End::Goodbye(reason::SHUTTING_DOWN, "the stream has ended", Ending::Done);
            }
            let full = self.channel.waiting() >= ENOUGH;
            let listening = self.waiting.is_none() && !full;
            if !listening {
                // It is not silent: it is not heard.
                self.heard = Instant::now();
            }
            let due = self.due(session);
            tokio::select! {
                moved = self.channel.go_on(listening) => match moved {
                    Ok(Moved::Read(0)) => return End::Gone("closed by the peer".into()),
                    Ok(Moved::Read(_)) => end = self.take_input(session),
                    Ok(Moved::Flushed) => session.settle(),
                    Err(error) => return End::Gone(error.to_string()),
                },
                () = session.changed(), if !full => {}
                _ = named.changed() => session.find_places(&site, &self.reader),
                () = room(self.waiting.as_ref()), if self.waiting.is_some() => {
                    end = self.say_waiting(session).or_else(|| self.take_input(session));
                }
                () = tokio::time::sleep_until(due.into()) => end = self.overdue(session),
                () = sitter.taken_over() => return End::Goodbye(reason::TAKEN_OVER, "session taken over", Ending::Left),
                () = &mut drained => return End::Goodbye(reason::SHUTTING_DOWN, "restart", Ending::Restart),
            }
        }
    }

    fn deliver(&mut self, session: &mut Session) {
        if self.channel.waiting() < ENOUGH {
            session.deliver(&self.reader, &mut self.out, ENOUGH);
        }
        self.channel.send(self.out.split().freeze());
    }

    /// When to look again though nothing happened.
    fn due(&self, session: &Session) -> Instant {
        let silent = self.silence.map(|silence| self.heard + silence);
        let look = session.is_pinned().then(|| Instant::now() + LOOK_EVERY);
        [silent, look, self.expires].into_iter().flatten().min().unwrap_or_else(|| Instant::now() + NEVER)
    }

    fn overdue(&self, session: &Session) -> Option<End> {
        let now = Instant::now();
        if self.expires.is_some_and(|expires| expires <= now) {
            return Some(End::Goodbye(reason::EXPIRED, "the token has ended", Ending::Refused));
        }
        if self.silence.is_some_and(|silence| self.heard + silence <= now) {
            return Some(End::Goodbye(reason::KEEP_ALIVE, "silent for too long", Ending::Silent));
        }
        let view = if session.is_pinned() { self.channel.stream().kernel_view() } else { None };
        let dead = view.is_some_and(|view| !view.all_received() && view.last_ack >= STALLED);
        dead.then(|| End::Gone("its kernel is silent".into()))
    }

    /// What the client said; how to end, if it or its mistakes ask for that.
    fn take_input(&mut self, session: &mut Session) -> Option<End> {
        self.heard = Instant::now();
        match self.channel.unwrap() {
            Ok(true) => {}
            Ok(false) => return Some(End::Gone("closed by the peer".into())),
            Err(fault) => return Some(End::Broken(fault)),
        }
        let max = handshake::max_packet(&self.site);
        while self.waiting.is_none() {
            let frame = match read::frame(&mut self.channel.inbound, max) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(fault) => return Some(fault.into()),
            };
            let heard = read::packet(frame, Some(self.reader.version));
            if let Some(end) = heard.map_or_else(|fault| Some(fault.into()), |packet| self.obey(packet, session)) {
                return Some(end);
            }
        }
        if self.channel.inbound.is_empty() {
            // An idle client holds no buffer.
            self.channel.inbound = BytesMut::new();
        }
        None
    }

    fn obey(&mut self, packet: Packet, session: &mut Session) -> Option<End> {
        let version = self.reader.version;
        match packet {
            Packet::Publish(publish) => return self.publish(publish, session),
            Packet::Acknowledge(id) => session.acknowledge(id),
            Packet::Subscribe(wanted) => return self.subscribe(&wanted, session),
            Packet::Unsubscribe(id, filters) => {
                let codes: Vec<u8> = filters.iter().map(|filter| session.unsubscribe(filter)).collect();
                write::unsuback(&mut self.out, version, id, &codes);
            }
            Packet::Ping => write::pingresp(&mut self.out),
            Packet::Disconnect(code, expiry) => {
                let expiry = expiry.map(|secs| Duration::from_secs(secs.into()));
                if self.expiry.is_zero() && expiry.is_some_and(|expiry| !expiry.is_zero()) {
                    return Some(Fault::protocol("a session that was to end lives on").into());
                }
                self.expiry = expiry.unwrap_or(self.expiry);
                return Some(End::Farewell(code));
            }
            Packet::Connect(_) => return Some(Fault::protocol("second CONNECT").into()),
        }
        None
    }

    fn subscribe(&mut self, wanted: &Subscribe, session: &mut Session) -> Option<End> {
        if wanted.properties.number(property::SUBSCRIPTION_ID).is_some() {
            let fault = Fault { code: reason::NO_SUBSCRIPTION_IDS, why: "there are no subscription identifiers here" };
            return Some(fault.into());
        }
        let codes = wanted.filters.iter().map(|wish| session.subscribe(&self.site, &self.reader, wish));
        let codes: Vec<u8> = codes.collect();
        write::suback(&mut self.out, self.reader.version, wanted.id, &codes);
        None
    }

    /// Says what the client wants to be said, once there is room; or refuses to. Without QoS nobody waits for an answer;
    /// 3.1.1 has none, so that who must not be left in the belief that it was heard is disconnected.
    fn publish(&mut self, publish: Publish, session: &mut Session) -> Option<End> {
        let version = self.reader.version;
        if publish.qos == 2 {
            return Some(Fault { code: reason::NO_QOS, why: "there is no QoS 2 here" }.into());
        }
        if publish.retain && version == Version::V5 {
            return Some(Fault { code: reason::NO_RETAIN, why: "nothing is retained here" }.into());
        }
        match speech::of(&self.site, self.reader.grant.as_ref(), publish) {
            Ok(said) => {
                let room = said.topic.log.has_room();
                self.waiting = Some(said);
                if room {
                    return self.say_waiting(session);
                }
                None
            }
            Err((code, id)) => self.refuse(code, id, "this may not be said here"),
        }
    }

    /// Says that a message was not published; how to end where the protocol has no word for that.
    fn refuse(&mut self, code: u8, id: Option<u16>, why: &'static str) -> Option<End> {
        let version = self.reader.version;
        tracing::debug!(code, why, "MQTT message refused");
        match (version, id) {
            (_, None) => None,
            (Version::V5, Some(id)) => {
                write::puback(&mut self.out, version, id, code);
                None
            }
            (Version::V4, Some(_)) => Some(Fault { code, why }.into()),
        }
    }

    fn say_waiting(&mut self, session: &mut Session) -> Option<End> {
        let Speech { topic, event, id } = self.waiting.take()?;
        match topic.publish(vec![event], now_ms()) {
            Ok(published) => {
                if let Some((first, last, _)) = published {
                    session.said(&topic.path, first, last);
                }
                if let Some(id) = id {
                    write::puback(&mut self.out, self.reader.version, id, reason::SUCCESS);
                }
                None
            }
            Err(AppendError::Unrecordable { full: true, .. }) => self.refuse(reason::QUOTA, id, NOT_WRITTEN),
            Err(_) => self.refuse(reason::IMPLEMENTATION, id, NOT_WRITTEN),
        }
    }

    /// The goodbye, and what is left behind.
    async fn leave(mut self, mut seated: Seated, end: End, peer: Option<SocketAddr>) {
        let (how, fault) = match &end {
            End::Goodbye(code, why, how) => {
                write::disconnect(&mut self.out, self.reader.version, *code, why);
                (*how, None)
            }
            End::Broken(fault) => (Ending::Fault, Some(*fault)),
            End::Gone(_) | End::Farewell(_) => (Ending::Left, None),
        };
        let why = match &end {
            End::Gone(why) => why,
            End::Farewell(_) => "disconnected",
            End::Goodbye(_, why, _) => *why,
            End::Broken(fault) => fault.reason,
        };
        tracing::debug!(?peer, why, "MQTT client gone");
        if let Some(session) = seated.session.as_mut() {
            session.pause(how);
        }
        let sitter = seated.sitter.clone();
        self.site.mqtt.seats.leave(seated, self.expiry);
        if let Some((will, delay)) = self.will.take().filter(|_| !matches!(end, End::Farewell(reason::SUCCESS))) {
            speech::leave_will(&self.site, self.reader.grant.take(), will, self.expiry.min(delay_of(delay)), sitter);
        }
        if !matches!(end, End::Gone(_)) {
            self.channel.send(self.out.split().freeze());
            self.channel.close(fault).await;
        }
    }
}

fn delay_of(secs: u32) -> Duration {
    Duration::from_secs(secs.into())
}

/// Resolves when there may be room for what waits.
async fn room(waiting: Option<&Speech>) {
    if let Some(said) = waiting {
        said.topic.log.room().await;
    }
}
