//! MQTT's words: versions, reason codes, properties, and the packets that a client sends.
//!
//! 3.1.1 and 5.0 are one protocol here: what only 5.0 can say is empty or left out for the other. A reason is always
//! 5.0's code (MQTT 5 §2.4).

use bytes::Bytes;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    V4,
    /// 5.0.
    V5,
}

/// Packet types (MQTT 5 §2.1.2).
#[allow(missing_docs)]
pub mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;
}

/// Tells whether these bytes begin with a CONNECT packet of any version, `MQIsdp` of MQTT 3.1 included (MQTT 5 §3.1).
pub fn is_connect(bytes: &[u8]) -> bool {
    let [first, rest @ ..] = bytes else { return false };
    // The remaining length takes one to four bytes, each but the last with its highest bit.
    let length = rest.iter().take(4).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let body = rest.get(length..).unwrap_or_default();
    *first == kind::CONNECT << 4 && (body.starts_with(b"\0\x04MQTT") || body.starts_with(b"\0\x06MQIsdp"))
}

/// Reason codes (MQTT 5 §2.4), as this program uses them.
#[allow(missing_docs)]
pub mod reason {
    pub const SUCCESS: u8 = 0x00;
    pub const WITH_WILL: u8 = 0x04;
    pub const NO_SUBSCRIPTION: u8 = 0x11;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const IMPLEMENTATION: u8 = 0x83;
    pub const BAD_VERSION: u8 = 0x84;
    pub const BAD_CLIENT_ID: u8 = 0x85;
    pub const BAD_PASSWORD: u8 = 0x86;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SHUTTING_DOWN: u8 = 0x8b;
    pub const BAD_METHOD: u8 = 0x8c;
    pub const KEEP_ALIVE: u8 = 0x8d;
    pub const TAKEN_OVER: u8 = 0x8e;
    pub const BAD_FILTER: u8 = 0x8f;
    pub const BAD_TOPIC: u8 = 0x90;
    pub const BAD_ALIAS: u8 = 0x94;
    pub const TOO_LARGE: u8 = 0x95;
    pub const QUOTA: u8 = 0x97;
    pub const NO_RETAIN: u8 = 0x9a;
    pub const NO_QOS: u8 = 0x9b;
    pub const NO_SHARING: u8 = 0x9e;
    pub const EXPIRED: u8 = 0xa0;
    pub const NO_SUBSCRIPTION_IDS: u8 = 0xa1;
}

/// Property identifiers (MQTT 5 §2.2.2.2).
#[allow(missing_docs)]
pub mod property {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0b;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const AUTH_METHOD: u8 = 0x15;
    pub const AUTH_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const REQUEST_RESPONSE: u8 = 0x19;
    pub const SERVER_REFERENCE: u8 = 0x1c;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER: u8 = 0x26;
    pub const MAXIMUM_PACKET: u8 = 0x27;
    pub const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub const SHARING_AVAILABLE: u8 = 0x2a;
}

/// The peer broke the protocol, or a limit: it must go, for this reason.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// One of [`reason`].
    pub code: u8,
    /// What was wrong.
    pub why: &'static str,
}

impl Fault {
    /// What cannot be read (MQTT 5 §1.2).
    pub const fn malformed(why: &'static str) -> Self {
        Fault { code: reason::MALFORMED, why }
    }

    /// What can be read, and must not be said.
    pub const fn protocol(why: &'static str) -> Self {
        Fault { code: reason::PROTOCOL_ERROR, why }
    }
}

/// What a packet says beside its fields; always empty in 3.1.1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// By identifier: bytes, integers of two and four bytes, variable integers.
    pub numbers: Vec<(u8, u32)>,
    /// By identifier: texts.
    pub texts: Vec<(u8, String)>,
    /// User properties, in order.
    pub user: Vec<(String, String)>,
}

impl Properties {
    /// A number, if it was said.
    pub fn number(&self, id: u8) -> Option<u32> {
        self.numbers.iter().find(|(known, _)| *known == id).map(|(_, number)| *number)
    }

    /// A text, if it was said.
    pub fn text(&self, id: u8) -> Option<&str> {
        self.texts.iter().find(|(known, _)| *known == id).map(|(_, text)| text.as_str())
    }
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// It wants to be let in.
    Connect(Box<Connect>),
    /// It says something.
    Publish(Publish),
    /// It has received the message with this identifier.
    Acknowledge(u16),
    /// It wants to hear.
    Subscribe(Subscribe),
    /// It does not any more.
    Unsubscribe(u16, Vec<String>),
    /// It asks whether we are there.
    Ping,
    /// It goes: for this reason, with a new session expiry in seconds.
    Disconnect(u8, Option<u32>),
}

/// CONNECT (MQTT 5 §3.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    /// What it speaks.
    pub version: Version,
    /// Clean start: what is known of its session is forgotten.
    pub clean: bool,
    /// Seconds of silence; 0 is any.
    pub keep_alive: u16,
    /// What it calls itself; may be empty.
    pub client_id: String,
    /// What is published when it goes without a goodbye, and after how many seconds.
    pub will: Option<(Publish, u32)>,
    /// Bytes as they came.
    pub password: Option<Bytes>,
    /// What only 5.0 says.
    pub properties: Properties,
}

/// PUBLISH (MQTT 5 §3.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// 0 to 2.
    pub qos: u8,
    /// To be kept for those who come later.
    pub retain: bool,
    /// Without wildcards; not empty.
    pub topic: String,
    /// There unless the QoS is 0.
    pub id: Option<u16>,
    /// The message.
    pub payload: Bytes,
    /// What only 5.0 says.
    pub properties: Properties,
}

/// SUBSCRIBE (MQTT 5 §3.8).
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// To be acknowledged with.
    pub id: u16,
    /// At least one.
    pub filters: Vec<Wish>,
    /// What only 5.0 says.
    pub properties: Properties,
}

/// One filter that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// As typed.
    pub filter: String,
    /// 0 to 2, at most.
    pub qos: u8,
    /// Not what this client says itself.
    pub no_local: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_packet_is_known_by_its_first_bytes() {
        for (bytes, is) in [
            (&b"\x10\x12\0\x04MQTT\x04\x02\0\x3c\0\x06abcdef"[..], true),
            (b"\x10\x92\x01\0\x04MQTT\x05", true),
            (b"\x10\x80\x80\x80\x01\0\x04MQTT\x05", true),
            (b"\x10\x12\0\x06MQIsdp\x03", true),
            (b"\x10\x12\0\x04mqtt\x04", false),
            (b"\x20\x12\0\x04MQTT\x04", false),
            (b"\x10\x12\0\x04MQT", false),
            (b"\x10", false),
            (b"", false),
        ] {
            assert_eq!(is_connect(bytes), is, "{bytes:?}");
        }
    }
}
