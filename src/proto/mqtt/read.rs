//! Reading packets: where one ends, and what a client's says. Strict: what the standard calls malformed is refused with
//! its reason code, whatever the version.

use super::{
    fields::{Fields, variable},
    packet::{Connect, Fault, Packet, Properties, Publish, Subscribe, Version, Wish, kind, property, reason},
};
use bytes::{Buf, Bytes, BytesMut};

/// A packet as it came: its type, flags and the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// The low half of the first byte.
    pub flags: u8,
    /// What the remaining length counts.
    pub body: Bytes,
}

/// Takes the first packet off the front; `None` when more bytes are needed. `max` bounds it, header included.
///
/// # Errors
/// A length of more than four bytes, or over `max`: that is known before the packet is there.
pub fn frame(buf: &mut BytesMut, max: usize) -> Result<Option<Frame>, Fault> {
    let Some((length, digits)) = variable(buf.get(1..).unwrap_or_default())? else { return Ok(None) };
    let (head, length) = (1 + digits, length as usize);
    if head + length > max {
        return Err(Fault { code: reason::TOO_LARGE, why: "packet is too large" });
    }
    if buf.len() < head + length {
        return Ok(None);
    }
    let first = buf[0];
    buf.advance(head);
    Ok(Some(Frame { kind: first >> 4, flags: first & 0x0f, body: buf.split_to(length).freeze() }))
}

/// What a client's packet says. Before the first one the version is not known: only CONNECT can be read then.
///
/// # Errors
/// The reason to close with.
pub fn packet(frame: Frame, version: Option<Version>) -> Result<Packet, Fault> {
    let Frame { kind, flags, body } = frame;
    let expected = if matches!(kind, kind::SUBSCRIBE | kind::UNSUBSCRIBE | kind::PUBREL) { 2 } else { 0 };
    if kind != kind::PUBLISH && flags != expected {
        return Err(Fault::malformed("reserved flags are wrong"));
    }
    let mut fields = Fields(body);
    let packet = match (kind, version) {
        (kind::CONNECT, None) => Packet::Connect(Box::new(fields.connect()?)),
        (kind::CONNECT, Some(_)) => return Err(Fault::protocol("second CONNECT")),
        (_, None) => return Err(Fault::protocol("the first packet is no CONNECT")),
        (kind::PUBLISH, Some(version)) => Packet::Publish(fields.publish(flags, version)?),
        (kind::PUBACK, Some(version)) => Packet::Acknowledge(fields.acknowledge(version)?),
        (kind::SUBSCRIBE, Some(version)) => Packet::Subscribe(fields.subscribe(version)?),
        (kind::UNSUBSCRIBE, Some(version)) => fields.unsubscribe(version)?,
        (kind::PINGREQ, Some(_)) => Packet::Ping,
        (kind::DISCONNECT, Some(version)) => fields.disconnect(version)?,
        (kind::PUBREC | kind::PUBREL | kind::PUBCOMP, _) => return Err(Fault::protocol("there is no QoS 2 here")),
        (kind::AUTH, Some(Version::V5)) => return Err(Fault::protocol("AUTH without a method")),
        (kind::CONNACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP, _) => {
            return Err(Fault::protocol("a packet that only servers send"));
        }
        _ => return Err(Fault::malformed("no such packet type")),
    };
    if fields.0.is_empty() { Ok(packet) } else { Err(Fault::malformed("bytes behind the packet's end")) }
}

impl Fields {
    fn connect(&mut self) -> Result<Connect, Fault> {
        use property as p;
        let version = self.version()?;
        let flags = self.byte()?;
        let (has_will, will_qos, will_retain) = (flags & 0x04 != 0, flags >> 3 & 3, flags & 0x20 != 0);
        if flags & 1 != 0 || will_qos == 3 || (!has_will && (will_qos != 0 || will_retain)) {
            return Err(Fault::malformed("connect flags contradict each other"));
        }
        let keep_alive = self.two()?;
        let properties = self.properties(
            version,
            &[
                p::SESSION_EXPIRY,
                p::RECEIVE_MAXIMUM,
                p::MAXIMUM_PACKET,
                p::TOPIC_ALIAS_MAXIMUM,
                p::REQUEST_PROBLEM,
                p::REQUEST_RESPONSE,
                p::USER,
                p::AUTH_METHOD,
                p::AUTH_DATA,
            ],
        )?;
        let client_id = self.text()?;
        let will = has_will.then(|| self.will(version, will_qos, will_retain)).transpose()?;
        if flags & 0x80 != 0 {
            self.text()?;
        } else if flags & 0x40 != 0 && version == Version::V4 {
            return Err(Fault::malformed("a password without a user name"));
        }
        let password = (flags & 0x40 != 0).then(|| self.binary()).transpose()?;
        Ok(Connect { version, clean: flags & 2 != 0, keep_alive, client_id, will, password, properties })
    }

    fn version(&mut self) -> Result<Version, Fault> {
        const NEITHER: Fault = Fault { code: reason::BAD_VERSION, why: "neither MQTT 3.1.1 nor 5.0" };
        match &self.binary()?[..] {
            b"MQTT" => match self.byte()? {
                4 => Ok(Version::V4),
                5 => Ok(Version::V5),
                _ => Err(NEITHER),
            },
            // What 3.1 was called.
            b"MQIsdp" => Err(NEITHER),
            _ => Err(Fault::malformed("this is not MQTT")),
        }
    }

    fn will(&mut self, version: Version, qos: u8, retain: bool) -> Result<(Publish, u32), Fault> {
        use property as p;
        let properties = self.properties(
            version,
            &[
                p::WILL_DELAY,
                p::PAYLOAD_FORMAT,
                p::MESSAGE_EXPIRY,
                p::CONTENT_TYPE,
                p::RESPONSE_TOPIC,
                p::CORRELATION,
                p::USER,
            ],
        )?;
        let topic = self.topic()?;
        let payload = self.binary()?;
        let delay = properties.number(p::WILL_DELAY).unwrap_or(0);
        Ok((Publish { qos, retain, topic, id: None, payload, properties }, delay))
    }

    /// The name of a topic that something is said on (MQTT 5 §4.7).
    fn topic(&mut self) -> Result<String, Fault> {
        let topic = self.text()?;
        if topic.contains(['+', '#']) || topic.is_empty() {
            return Err(Fault { code: reason::BAD_TOPIC, why: "a topic's name is empty or has wildcards" });
        }
        Ok(topic)
    }

    fn publish(&mut self, flags: u8, version: Version) -> Result<Publish, Fault> {
        use property as p;
        let (qos, retain) = (flags >> 1 & 3, flags & 1 != 0);
        if qos == 3 || (qos == 0 && flags & 8 != 0) {
            return Err(Fault::malformed("a QoS that there is not"));
        }
        if version == Version::V5 && self.0.starts_with(&[0, 0]) {
            return Err(Fault { code: reason::BAD_ALIAS, why: "a topic alias that was never agreed" });
        }
        let topic = self.topic()?;
        let id = (qos > 0).then(|| self.identifier()).transpose()?;
        let properties = self.properties(
            version,
            &[
                p::PAYLOAD_FORMAT,
                p::MESSAGE_EXPIRY,
                p::TOPIC_ALIAS,
                p::RESPONSE_TOPIC,
                p::CORRELATION,
                p::USER,
                p::CONTENT_TYPE,
            ],
        )?;
        if properties.number(p::TOPIC_ALIAS).is_some() {
            return Err(Fault { code: reason::BAD_ALIAS, why: "a topic alias that was never agreed" });
        }
        let payload = std::mem::take(&mut self.0);
        Ok(Publish { qos, retain, topic, id, payload, properties })
    }

    fn acknowledge(&mut self, version: Version) -> Result<u16, Fault> {
        let id = self.identifier()?;
        if version == Version::V5 && !self.0.is_empty() {
            self.byte()?;
            self.closing_properties(&[property::REASON_STRING, property::USER])?;
        }
        Ok(id)
    }

    /// Those at a packet's end, which may be left out with their length.
    fn closing_properties(&mut self, allowed: &[u8]) -> Result<Properties, Fault> {
        if self.0.is_empty() { Ok(Properties::default()) } else { self.properties(Version::V5, allowed) }
    }

    fn subscribe(&mut self, version: Version) -> Result<Subscribe, Fault> {
        let id = self.identifier()?;
        let properties = self.properties(version, &[property::SUBSCRIPTION_ID, property::USER])?;
        let mut filters = Vec::new();
        while !self.0.is_empty() {
            let (filter, options) = (self.text()?, self.byte()?);
            let qos = options & 3;
            let reserved = if version == Version::V4 { 0xfc } else { 0xc0 };
            if options & reserved != 0 || qos == 3 || options >> 4 & 3 == 3 {
                return Err(Fault::malformed("subscription options that there are not"));
            }
            filters.push(Wish { filter, qos, no_local: options & 4 != 0 });
        }
        if filters.is_empty() {
            return Err(Fault::protocol("a subscription to nothing"));
        }
        Ok(Subscribe { id, filters, properties })
    }

    fn unsubscribe(&mut self, version: Version) -> Result<Packet, Fault> {
        let id = self.identifier()?;
        self.properties(version, &[property::USER])?;
        let mut filters = Vec::new();
        while !self.0.is_empty() {
            filters.push(self.text()?);
        }
        if filters.is_empty() {
            return Err(Fault::protocol("an end of no subscription"));
        }
        Ok(Packet::Unsubscribe(id, filters))
    }

    fn disconnect(&mut self, version: Version) -> Result<Packet, Fault> {
        use property as p;
        if version == Version::V4 || self.0.is_empty() {
            return Ok(Packet::Disconnect(reason::SUCCESS, None));
        }
        let code = self.byte()?;
        let properties =
            self.closing_properties(&[p::SESSION_EXPIRY, p::REASON_STRING, p::USER, p::SERVER_REFERENCE])?;
        Ok(Packet::Disconnect(code, properties.number(p::SESSION_EXPIRY)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mqtt::write::{put_text, put_variable, variable_len};

    /// A packet: its first byte, and what the remaining length counts.
    fn laid(first: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        put_variable(&mut out, body.len());
        out.extend_from_slice(body);
        out
    }

    fn read_one(bytes: &[u8], version: Option<Version>) -> Result<Packet, Fault> {
        let mut buf = BytesMut::from(bytes);
        let frame = frame(&mut buf, 1 << 20)?.expect("a whole packet");
        assert!(buf.is_empty());
        packet(frame, version)
    }

    fn code(bytes: &[u8], version: Version) -> u8 {
        read_one(bytes, Some(version)).expect_err("a fault").code
    }

    fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
        laid(0x10, &[b"\0\x04MQTT", &[level, flags, 0, 60][..], rest].concat())
    }

    #[test]
    fn a_packet_ends_where_its_length_says() {
        for (length, digits) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_151, 3), (2_097_152, 4)] {
            let mut out = Vec::new();
            put_variable(&mut out, length);
            assert_eq!((out.len(), variable_len(length)), (digits, digits));
            assert_eq!(variable(&out), Ok(Some((length as u32, digits))));
            assert_eq!(variable(&out[..digits - 1]), Ok(None));
        }
        let whole = laid(0xc0, &[]);
        for cut in 0..whole.len() {
            assert_eq!(frame(&mut BytesMut::from(&whole[..cut]), 100), Ok(None));
        }
        let oversized = [0x30, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(
            frame(&mut BytesMut::from(&oversized[..]), 1 << 20).map_err(|fault| fault.code),
            Err(reason::TOO_LARGE)
        );
        let endless = [0x30, 0x80, 0x80, 0x80, 0x80];
        assert_eq!(
            frame(&mut BytesMut::from(&endless[..]), 1 << 20).map_err(|fault| fault.code),
            Err(reason::MALFORMED)
        );
    }

    #[test]
    fn a_client_says_who_it_is() {
        let Ok(Packet::Connect(old)) = read_one(&connect(4, 2, b"\0\x01a"), None) else { panic!("no CONNECT") };
        assert_eq!((old.version, old.clean, old.keep_alive, &old.client_id[..]), (Version::V4, true, 60, "a"));
        let mut rest = vec![11, 0x11, 0, 0, 0, 9, 0x21, 0, 7, 0x22, 0, 5, 0, 0];
        // The will: its delay, its topic, its payload; then name and password.
        rest.extend_from_slice(&[5, 0x18, 0, 0, 0, 3]);
        [&b"w/t"[..], b"bye", b"name", b"secret"].iter().for_each(|text| put_text(&mut rest, text));
        let Ok(Packet::Connect(new)) = read_one(&connect(5, 0b1110_1110, &rest), None) else { panic!("no CONNECT") };
        assert_eq!((new.properties.number(property::SESSION_EXPIRY), new.client_id.is_empty()), (Some(9), true));
        let (will, delay) = new.will.expect("a will");
        assert_eq!(
            (&will.topic[..], &will.payload[..], will.qos, will.retain, delay),
            ("w/t", &b"bye"[..], 1, true, 3)
        );
        assert_eq!(new.password.as_deref(), Some(&b"secret"[..]));
    }

    #[test]
    fn what_is_no_connect_is_refused() {
        for (bytes, reason) in [
            (connect(3, 2, b"\0\x01a"), reason::BAD_VERSION),
            (connect(6, 2, b"\0\x01a"), reason::BAD_VERSION),
            (laid(0x10, b"\0\x06MQIsdp\x03\x02\0\x3c\0\x01a"), reason::BAD_VERSION),
            (laid(0x10, b"\0\x04HTTP\x04\x02\0\x3c\0\x01a"), reason::MALFORMED),
            (connect(4, 3, b"\0\x01a"), reason::MALFORMED),
            (connect(4, 0b0001_1110, b"\0\x01a\0\x01t\0\0"), reason::MALFORMED),
            (connect(4, 0b0010_0010, b"\0\x01a"), reason::MALFORMED),
            (connect(4, 0b0100_0010, b"\0\x01a\0\x01p"), reason::MALFORMED),
            (connect(4, 2, b"\0\x01a!"), reason::MALFORMED),
            (connect(4, 2, b"\0\x05a"), reason::MALFORMED),
            (connect(4, 2, b"\0\x01\xff"), reason::MALFORMED),
            (connect(4, 2, b"\0\x01\0"), reason::MALFORMED),
            (connect(5, 2, b"\x03\x21\0\0\0\0"), reason::PROTOCOL_ERROR),
            (connect(5, 2, b"\x02\x23\x01\0\0"), reason::PROTOCOL_ERROR),
            (connect(5, 2, b"\x04\x17\x01\x17\x01\0\0"), reason::PROTOCOL_ERROR),
            (connect(4, 0b0000_0110, b"\0\x01a\0\x02t+\0\0"), reason::BAD_TOPIC),
            (laid(0xc0, b""), reason::PROTOCOL_ERROR),
            (laid(0x11, b""), reason::MALFORMED),
        ] {
            assert_eq!(read_one(&bytes, None).map_err(|fault| fault.code), Err(reason), "{bytes:x?}");
        }
        assert_eq!(code(&connect(4, 2, b"\0\x01a"), Version::V4), reason::PROTOCOL_ERROR);
    }

    #[test]
    fn messages_and_their_faults() {
        let Ok(Packet::Publish(said)) = read_one(&laid(0x3b, b"\0\x01t\0\x07hi"), Some(Version::V4)) else {
            panic!("no PUBLISH")
        };
        assert_eq!(
            (said.qos, said.retain, said.id, &said.topic[..], &said.payload[..]),
            (1, true, Some(7), "t", &b"hi"[..])
        );
        let five = laid(0x30, b"\0\x01t\x09\x26\0\x04type\0\x00hi");
        let Ok(Packet::Publish(said)) = read_one(&five, Some(Version::V5)) else { panic!("no PUBLISH") };
        assert_eq!((&said.properties.user[..], &said.payload[..]), (&[("type".into(), String::new())][..], &b"hi"[..]));
        for (first, body, version, reason) in [
            (0x36, &b"\0\x01t\0\x07"[..], Version::V4, reason::MALFORMED),
            (0x38, b"\0\x01t", Version::V4, reason::MALFORMED),
            (0x32, b"\0\x01t\0\0", Version::V4, reason::PROTOCOL_ERROR),
            (0x32, b"\0\x01t\0", Version::V4, reason::MALFORMED),
            (0x30, b"\0\0", Version::V4, reason::BAD_TOPIC),
            (0x30, b"\0\x03a/#", Version::V4, reason::BAD_TOPIC),
            (0x30, b"\0\x01\xff", Version::V4, reason::MALFORMED),
            (0x30, b"\0\x01t", Version::V5, reason::MALFORMED),
            (0x30, b"\0\0\x03\x23\0\x01", Version::V5, reason::BAD_ALIAS),
            (0x30, b"\0\x01t\x03\x23\0\x01", Version::V5, reason::BAD_ALIAS),
            (0x30, b"\0\x01t\x02\x0b\x01", Version::V5, reason::PROTOCOL_ERROR),
            (0x30, b"\0\x01t\x02\x01\x02", Version::V5, reason::PROTOCOL_ERROR),
        ] {
            assert_eq!(code(&laid(first, body), version), reason, "{body:x?}");
        }
    }

    #[test]
    fn wishes_and_their_faults() {
        let Ok(Packet::Subscribe(wanted)) = read_one(&laid(0x82, b"\0\x01\0\0\x01a\x2e"), Some(Version::V5)) else {
            panic!("no SUBSCRIBE")
        };
        assert_eq!((wanted.id, &wanted.filters[..]), (1, &[Wish { filter: "a".into(), qos: 2, no_local: true }][..]));
        let gone = read_one(&laid(0xa2, b"\0\x02\0\x01a\0\x01b"), Some(Version::V4));
        assert_eq!(gone, Ok(Packet::Unsubscribe(2, vec!["a".into(), "b".into()])));
        for (first, body, version, reason) in [
            (0x80, &b"\0\x01\0\x01a\0"[..], Version::V4, reason::MALFORMED),
            (0x82, b"\0\x01", Version::V4, reason::PROTOCOL_ERROR),
            (0x82, b"\0\0\0\x01a\0", Version::V4, reason::PROTOCOL_ERROR),
            (0x82, b"\0\x01\0\x01a", Version::V4, reason::MALFORMED),
            (0x82, b"\0\x01\0\x01a\x03", Version::V4, reason::MALFORMED),
            (0x82, b"\0\x01\0\x01a\x04", Version::V4, reason::MALFORMED),
            (0x82, b"\0\x01\0\0\x01a\x30", Version::V5, reason::MALFORMED),
            (0xa2, b"\0\x01", Version::V4, reason::PROTOCOL_ERROR),
            (0x50, b"\0\x01", Version::V4, reason::PROTOCOL_ERROR),
            (0x90, b"\0\x01\0", Version::V4, reason::PROTOCOL_ERROR),
            (0xf0, b"", Version::V4, reason::MALFORMED),
            (0xf0, b"", Version::V5, reason::PROTOCOL_ERROR),
            (0x00, b"", Version::V4, reason::MALFORMED),
            (0xc1, b"", Version::V4, reason::MALFORMED),
            (0xc0, b"x", Version::V4, reason::MALFORMED),
            (0xe0, b"\0\x01", Version::V4, reason::MALFORMED),
        ] {
            assert_eq!(code(&laid(first, body), version), reason, "{first:x} {body:x?}");
        }
    }

    #[test]
    fn short_forms() {
        for (first, body, version, packet) in [
            (0x40, &b"\0\x05"[..], Version::V4, Packet::Acknowledge(5)),
            (0x40, b"\0\x05\x10", Version::V5, Packet::Acknowledge(5)),
            (0x40, b"\0\x05\0\0", Version::V5, Packet::Acknowledge(5)),
            (0xc0, b"", Version::V5, Packet::Ping),
            (0xe0, b"", Version::V4, Packet::Disconnect(0, None)),
            (0xe0, b"", Version::V5, Packet::Disconnect(0, None)),
            (0xe0, b"\x04", Version::V5, Packet::Disconnect(4, None)),
            (0xe0, b"\0\x05\x11\0\0\0\x02", Version::V5, Packet::Disconnect(0, Some(2))),
        ] {
            assert_eq!(read_one(&laid(first, body), Some(version)), Ok(packet), "{first:x} {body:x?}");
        }
    }
}
