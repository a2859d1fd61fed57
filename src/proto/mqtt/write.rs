//! Writing packets: what a server says, and what the publisher says to a broker.

use super::packet::{Version, kind, property};
use bytes::{BufMut, BytesMut};

/// A variable byte integer (MQTT 5 §1.5.5); the largest is 268,435,455.
pub fn put_variable(out: &mut impl BufMut, mut value: usize) {
    loop {
        let digit = (value & 0x7f) as u8;
        value >>= 7;
        out.put_u8(if value > 0 { digit | 0x80 } else { digit });
        if value == 0 {
            return;
        }
    }
}

/// How many bytes [`put_variable`] takes.
pub fn variable_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// A text or bytes behind their length. What is longer than 65,535 bytes cannot be said: callers check.
pub fn put_text(out: &mut impl BufMut, text: &[u8]) {
    out.put_u16(text.len() as u16);
    out.put_slice(text);
}

/// A user property; what is longer than MQTT can say is cut off.
pub fn put_user(out: &mut impl BufMut, name: &str, value: &str) {
    out.put_u8(property::USER);
    put_text(out, name.as_bytes());
    put_text(out, value.get(..value.floor_char_boundary(usize::from(u16::MAX))).unwrap_or_default().as_bytes());
}

fn put(out: &mut BytesMut, first: u8, body: &[u8]) {
    out.put_u8(first);
    put_variable(out, body.len());
    out.put_slice(body);
}

fn with_properties(mut body: Vec<u8>, version: Version, properties: &[u8]) -> Vec<u8> {
    if version == Version::V5 {
        put_variable(&mut body, properties.len());
        body.put_slice(properties);
    }
    body
}

/// CONNACK; `code` is 5.0's, and told in 3.1.1's words where that is spoken (MQTT 3.1.1 §3.2.2.3).
pub fn connack(out: &mut BytesMut, version: Version, present: bool, code: u8, properties: &[u8]) {
    use super::packet::reason as r;
    let told = match (version, code) {
        (Version::V5, code) => code,
        (_, r::SUCCESS) => 0,
        (_, r::BAD_VERSION) => 1,
        (_, r::BAD_CLIENT_ID) => 2,
        (_, r::BAD_PASSWORD) => 4,
        (_, r::NOT_AUTHORIZED) => 5,
        _ => 3,
    };
    put(out, kind::CONNACK << 4, &with_properties(vec![u8::from(present), told], version, properties));
}

/// PUBACK.
pub fn puback(out: &mut BytesMut, version: Version, id: u16, code: u8) {
    let [high, low] = id.to_be_bytes();
    let body = if version == Version::V5 && code != 0 { vec![high, low, code] } else { vec![high, low] };
    put(out, kind::PUBACK << 4, &body);
}

/// SUBACK: what became of each filter, the QoS or a reason.
pub fn suback(out: &mut BytesMut, version: Version, id: u16, codes: &[u8]) {
    let mut body = with_properties(id.to_be_bytes().to_vec(), version, &[]);
    let failure = |code: u8| if version == Version::V4 && code >= 0x80 { 0x80 } else { code };
    body.extend(codes.iter().map(|&code| failure(code)));
    put(out, kind::SUBACK << 4, &body);
}

/// UNSUBACK.
pub fn unsuback(out: &mut BytesMut, version: Version, id: u16, codes: &[u8]) {
    let mut body = with_properties(id.to_be_bytes().to_vec(), version, &[]);
    if version == Version::V5 {
        body.extend_from_slice(codes);
    }
    put(out, kind::UNSUBACK << 4, &body);
}

/// PINGRESP.
pub fn pingresp(out: &mut BytesMut) {
    put(out, kind::PINGRESP << 4, &[]);
}

/// DISCONNECT with the reason in words; 3.1.1 knows none of a server's.
pub fn disconnect(out: &mut BytesMut, version: Version, code: u8, why: &str) {
    if version == Version::V5 {
        let mut properties = Vec::new();
        if !why.is_empty() {
            properties.put_u8(property::REASON_STRING);
            put_text(&mut properties, why.as_bytes());
        }
        put(out, kind::DISCONNECT << 4, &with_properties(vec![code], version, &properties));
    }
}

/// PINGREQ.
pub fn pingreq(out: &mut BytesMut) {
    put(out, kind::PINGREQ << 4, &[]);
}

/// CONNECT with a clean session in 3.1.1; `login` is name and password.
pub fn connect(out: &mut BytesMut, client_id: &str, keep_alive: u16, login: Option<&(String, String)>) {
    const CLEAN: u8 = 0x02;
    const NAME_AND_PASSWORD: u8 = 0xc0;
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.put_u8(if login.is_some() { CLEAN | NAME_AND_PASSWORD } else { CLEAN });
    body.put_u16(keep_alive);
    put_text(&mut body, client_id.as_bytes());
    if let Some((name, password)) = login {
        put_text(&mut body, name.as_bytes());
        put_text(&mut body, password.as_bytes());
    }
    put(out, kind::CONNECT << 4, &body);
}

#[cfg(test)]
mod tests {
    use super::{super::packet::reason, *};

    fn written(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out);
        out.to_vec()
    }

    #[test]
    fn each_version_has_its_form() {
        use Version::{V4, V5};
        for (packet, bytes) in [
            (written(|out| connack(out, V4, true, 0, &[])), &b"\x20\x02\x01\0"[..]),
            (written(|out| connack(out, V4, false, reason::NOT_AUTHORIZED, &[])), b"\x20\x02\0\x05"),
            (written(|out| connack(out, V4, false, reason::QUOTA, &[])), b"\x20\x02\0\x03"),
            (written(|out| connack(out, V5, false, reason::BAD_CLIENT_ID, &[0x24, 1])), b"\x20\x05\0\x85\x02\x24\x01"),
            (written(|out| puback(out, V4, 7, 0)), b"\x40\x02\0\x07"),
            (written(|out| puback(out, V5, 7, 0)), b"\x40\x02\0\x07"),
            (written(|out| puback(out, V5, 7, reason::BAD_TOPIC)), b"\x40\x03\0\x07\x90"),
            (written(|out| suback(out, V4, 7, &[1, reason::QUOTA])), b"\x90\x04\0\x07\x01\x80"),
            (written(|out| suback(out, V5, 7, &[1, reason::QUOTA])), b"\x90\x05\0\x07\0\x01\x97"),
            (written(|out| unsuback(out, V4, 7, &[0])), b"\xb0\x02\0\x07"),
            (written(|out| unsuback(out, V5, 7, &[0x11])), b"\xb0\x04\0\x07\0\x11"),
            (written(pingresp), b"\xd0\0"),
            (written(pingreq), b"\xc0\0"),
            (written(|out| disconnect(out, V4, 0x8e, "x")), b""),
            (written(|out| disconnect(out, V5, 0x8e, "")), b"\xe0\x02\x8e\0"),
            (written(|out| disconnect(out, V5, 0x8e, "x")), b"\xe0\x06\x8e\x04\x1f\0\x01x"),
            (written(|out| connect(out, "a", 60, None)), b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a"),
            (
                written(|out| connect(out, "a", 1, Some(&("u".into(), "p".into())))),
                b"\x10\x13\0\x04MQTT\x04\xc2\0\x01\0\x01a\0\x01u\0\x01p",
            ),
        ] {
            assert_eq!(packet, bytes);
        }
    }
}
