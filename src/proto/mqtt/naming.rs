//! What topics and events are called over MQTT, and their PUBLISH packets.
//!
//! A batch is laid out once for all readers of a version, as packets of QoS 0; a reader of QoS 1 gets the same bytes
//! behind another header.

use super::{
    packet::{Version, kind, property},
    session::Reader,
    write::{put_text, put_user, put_variable, variable_len},
};
use crate::{
    event::{self, Batch, Event},
    proto::wire::WIRE_SLOTS,
    site::Site,
    topic::Topic,
    topics::spelled,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// What a registry's events begin with.
const EVENT_MEMBER: &[u8] = br#"{"event":""#;

/// How a topic's events are called.
#[derive(Clone, Debug, PartialEq)]
pub enum Naming {
    /// All by the topic's path, without its leading slash.
    Path(String),
    /// Each by its own name below this one: a registry's.
    Below(String),
}

impl Naming {
    /// How this topic's are.
    pub fn of(site: &Site, topic: &Topic) -> Self {
        match site.registry.as_ref().is_some_and(|registry| registry.topic().path == topic.path) {
            true => Naming::Below(site.mqtt.base.clone()),
            false => Naming::Path(name_of_path(&topic.path)),
        }
    }

    /// The name of all events, or the one that their names begin with.
    pub fn base(&self) -> &str {
        match self {
            Naming::Path(name) | Naming::Below(name) => name,
        }
    }

    /// The name of one event's topic.
    fn name(&self, event: &Event) -> Cow<'_, str> {
        match self {
            Naming::Path(name) => Cow::Borrowed(name),
            Naming::Below(base) => match event_name(&event.payload) {
                Some(name) => Cow::Owned(format!("{base}/{name}")),
                None => Cow::Borrowed(base),
            },
        }
    }

    /// Whether a reader may hear an event that is called so.
    pub fn may_hear(&self, laid: &Laid, reader: &Reader) -> bool {
        let Naming::Below(base) = self else { return true };
        let event = laid.name().strip_prefix(base.as_str()).unwrap_or_default();
        reader.may_hear(event.trim_start_matches('/'))
    }

    /// The batch's events as packets, one for each.
    pub fn packets(&self, batch: &Batch, version: Version) -> Packets {
        let slot = WIRE_SLOTS + usize::from(version == Version::V5);
        Packets { rest: batch.form(slot, |batch| self.lay_out(batch, version)).clone(), version }
    }

    fn lay_out(&self, batch: &Batch, version: Version) -> Bytes {
        let mut out = BytesMut::with_capacity(batch.run().bytes().len() * 2);
        for (i, event) in batch.events() {
            let name = self.name(&event);
            let properties = if version == Version::V5 { properties(batch, i, &event) } else { Vec::new() };
            Header { qos: 0, again: false, id: None, name: &name }
                .put(&mut out, properties.len() + event.payload.len());
            out.put_slice(&properties);
            out.put_slice(&event.payload);
        }
        out.freeze()
    }
}

/// A topic's name over MQTT. What a URL escapes because it is not ASCII is not escaped there; what MQTT takes for a
/// wildcard is.
fn name_of_path(path: &str) -> String {
    let bare = path.strip_prefix('/').filter(|bare| !bare.is_empty()).unwrap_or(path);
    let decoded = percent_decode_str(bare).decode_utf8().unwrap_or(Cow::Borrowed(bare));
    let is_reversible = spelled(&decoded) == bare;
    let name = if is_reversible { decoded } else { Cow::Borrowed(bare) };
    name.replace('+', "%2B").replace('#', "%23")
}

/// The path that a topic's name over MQTT stands for.
pub fn path_of_name(name: &str) -> String {
    if name == "/" { name.to_owned() } else { format!("/{}", name.replace("%2B", "+")) }
}

/// The `event` of a registry's envelope, if it can be a level of a topic's name.
fn event_name(payload: &[u8]) -> Option<String> {
    let plain = payload.strip_prefix(EVENT_MEMBER).and_then(|rest| {
        let name = &rest[..memchr::memchr2(b'"', b'\\', rest)?];
        (rest[name.len()] == b'"').then(|| String::from_utf8_lossy(name).into_owned())
    });
    let parsed = || Some(event::value_of(payload)?.get("event")?.as_str()?.to_owned());
    let name = plain.or_else(parsed)?;
    (!name.is_empty() && name.len() < 1024 && !name.contains(['+', '#', '\0'])).then_some(name)
}

/// What 5.0 is told beside the payload, behind its length: whether it is text, the event's id and its type.
fn properties(batch: &Batch, i: usize, event: &Event) -> Vec<u8> {
    let mut said = Vec::new();
    if event.text {
        said.put_slice(&[property::PAYLOAD_FORMAT, 1]);
    }
    put_user(&mut said, "id", &batch.id(i).to_string());
    if let Some(kind) = event.attrs.as_ref().and_then(|attrs| attrs.kind.as_ref()) {
        put_user(&mut said, "type", kind);
    }
    let mut out = Vec::with_capacity(said.len() + 2);
    put_variable(&mut out, said.len());
    out.put_slice(&said);
    out
}

/// What stands before a PUBLISH packet's properties and payload.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// 0 or 1.
    pub qos: u8,
    /// It was sent before.
    pub again: bool,
    /// There unless the QoS is 0.
    pub id: Option<u16>,
    /// The topic's.
    pub name: &'a str,
}

impl Header<'_> {
    /// Writes it, for so many bytes behind it.
    pub fn put(&self, out: &mut BytesMut, behind: usize) {
        out.put_u8(kind::PUBLISH << 4 | u8::from(self.again) << 3 | self.qos << 1);
        put_variable(out, self.remaining(behind));
        put_text(out, self.name.as_bytes());
        if let Some(id) = self.id {
            out.put_u16(id);
        }
    }

    fn remaining(&self, behind: usize) -> usize {
        2 + self.name.len() + if self.id.is_some() { 2 } else { 0 } + behind
    }

    /// Bytes of the whole packet.
    pub fn packet_len(&self, behind: usize) -> usize {
        let remaining = self.remaining(behind);
        1 + variable_len(remaining) + remaining
    }
}

/// Packets of QoS 0, laid end to end; iterates over them in order.
#[derive(Clone, Debug)]
pub struct Packets {
    rest: Bytes,
    version: Version,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Laid {
    /// All of it.
    pub whole: Bytes,
    name: (usize, usize),
    version: Version,
}

impl Laid {
    /// The topic's name.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.whole[self.name.0..self.name.1]).unwrap_or_default()
    }

    /// What stands behind the name: properties (5.0) and payload.
    pub fn behind(&self) -> &[u8] {
        &self.whole[self.name.1..]
    }

    /// The same, where a reader must know that so many events before this one are lost for it (`None`: nobody knows how
    /// many). 3.1.1 has no words for it.
    pub fn behind_gap(&self, lost: Option<u64>) -> Vec<u8> {
        if self.version == Version::V4 {
            return self.behind().to_vec();
        }
        let mut said = Vec::new();
        put_user(&mut said, "gap", &lost.map_or_else(|| "?".into(), |count| count.to_string()));
        let (length, digits) = length_of(self.behind());
        let mut out = Vec::with_capacity(self.behind().len() + said.len() + 2);
        put_variable(&mut out, length + said.len());
        out.put_slice(&said);
        out.put_slice(&self.behind()[digits..]);
        out
    }
}

/// A variable byte integer that we wrote, and its own length.
fn length_of(bytes: &[u8]) -> (usize, usize) {
    let digits = bytes.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let value = bytes.iter().take(digits).rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    (value, digits)
}

impl Iterator for Packets {
    type Item = Laid;

    fn next(&mut self) -> Option<Laid> {
        if self.rest.is_empty() {
            return None;
        }
        let (remaining, digits) = length_of(&self.rest[1..]);
        let head = 1 + digits;
        let whole = self.rest.split_to(head + remaining);
        let name = usize::from((&whole[head..]).get_u16());
        Some(Laid { whole, name: (head + 2, head + 2 + name), version: self.version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Run, Seqs},
        id::Epoch,
    };

    fn batch(payloads: &[&str]) -> Batch {
        let events: Vec<Event> = payloads.iter().map(|payload| Event::new(payload.to_string())).collect();
        Batch::new(Epoch::new(1, 2), Seqs::From(1), 0, Run::of(&events), vec![])
    }

    #[test]
    fn topics_are_called_by_their_paths() {
        for (path, name) in [
            ("/events", "events"),
            ("/a/b", "a/b"),
            ("/", "/"),
            ("/a/", "a/"),
            ("/gr%C3%B6%C3%9Fe", "größe"),
            ("/a%20b%2Fc", "a%20b%2Fc"),
            ("/a+b", "a%2Bb"),
            ("/%FF", "%FF"),
        ] {
            assert_eq!(name_of_path(path), name, "{path}");
            assert_eq!(spelled(&path_of_name(name)), path, "{name}");
        }
    }

    #[test]
    fn a_registrys_events_have_names_of_their_own() {
        let naming = Naming::Below("base".into());
        for (payload, name) in [
            (r#"{"event":"circuit_open","data":{}}"#, "base/circuit_open"),
            (r#"{"data":1, "event" : "x"}"#, "base/x"),
            (r#"{"event":"a\u0062"}"#, "base/ab"),
            (r#"{"event":"a+"}"#, "base"),
            (r#"{"event":""}"#, "base"),
            (r#"{"event":5}"#, "base"),
            ("no json", "base"),
        ] {
            assert_eq!(naming.name(&Event::new(payload.to_string())), name, "{payload}");
        }
    }

    #[test]
    fn what_is_laid_out_is_found_again() {
        let long = "x".repeat(300);
        let batch = batch(&["one", "", &long]);
        let naming = Naming::Path("a/b".into());
        let laid: Vec<Laid> = naming.packets(&batch, Version::V4).collect();
        assert_eq!(&laid[0].whole[..], b"\x30\x08\x00\x03a/bone");
        assert!(laid.iter().all(|laid| laid.name() == "a/b"));
        assert_eq!(laid.iter().map(|laid| laid.behind().len()).collect::<Vec<_>>(), [3, 0, 300]);
        assert_eq!(laid[0].behind_gap(Some(3)), b"one");
        let first = naming.packets(&batch, Version::V5).next().expect("a packet");
        let id = batch.id(0).to_string();
        let said = [&[1, 1, 0x26, 0, 2][..], b"id", &[0, id.len() as u8], id.as_bytes()].concat();
        assert_eq!(first.behind(), [&[said.len() as u8][..], &said, b"one"].concat());
        let gap = b"\x26\x00\x03gap\x00\x01?";
        let with_gap = [&[(said.len() + gap.len()) as u8][..], gap, &said, b"one"].concat();
        assert_eq!(first.behind_gap(None), with_gap);
    }

    #[test]
    fn a_reader_of_qos_1_gets_the_same_behind_another_header() {
        let mut out = BytesMut::new();
        let header = Header { qos: 1, again: true, id: Some(7), name: "a" };
        header.put(&mut out, 3);
        assert_eq!(&out[..], b"\x3a\x08\x00\x01a\x00\x07");
        assert_eq!(header.packet_len(3), out.len() + 3);
    }
}
