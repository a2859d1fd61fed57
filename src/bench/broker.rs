//! Brokers that do not speak HTTP, so that they can be measured beside what does: NATS and MQTT 3.1.1, as much of them as
//! a reader and a publisher of one topic need.

use super::wire::{Read, Wire};
use bytes::{BufMut, BytesMut};

/// How a NATS server says that it has taken what was said before.
const PONG: &[u8] = b"PONG\r\n";
const CONNECT_NATS: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"wsevent bench\"}\r\n";
/// MQTT's packet types, in the upper half of the first byte (MQTT 3.1.1 §2.2.1).
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const SUBACK: u8 = 9;

/// The protocol of a URL, if it is one of these.
pub fn of(scheme: &str) -> Option<Wire> {
    match scheme {
        "nats" => Some(Wire::Nats),
        "mqtt" => Some(Wire::Mqtt),
        _ => None,
    }
}

/// What a client says first; a reader asks for the topic, too.
pub fn hello(wire: Wire, topic: &str, reads: bool) -> BytesMut {
    let mut out = BytesMut::new();
    if wire == Wire::Nats {
        out.put_slice(CONNECT_NATS);
        if reads {
            out.put_slice(format!("SUB {topic} 1\r\n").as_bytes());
        }
        out.put_slice(b"PING\r\n");
        return out;
    }
    // A clean session without a keep-alive.
    let id = format!("bench{:016x}", rand::random::<u64>());
    packet(&mut out, 0x10, &[b"\0\x04MQTT\x04\x02\0\0", &text(&id)[..]]);
    if reads {
        packet(&mut out, 0x82, &[b"\0\x01", &text(topic), b"\0"]);
    }
    out
}

/// The bytes of the answer to that; `None` while it is not whole.
///
/// # Errors
/// The broker's refusal.
pub fn answer(wire: Wire, bytes: &[u8], reads: bool) -> Result<Option<usize>, String> {
    if wire == Wire::Nats {
        if let Some(at) = memchr::memmem::find(bytes, b"-ERR") {
            return Err(String::from_utf8_lossy(&bytes[at..]).trim_end().to_owned());
        }
        return Ok(memchr::memmem::find(bytes, PONG).map(|at| at + PONG.len()));
    }
    let mut at = 0;
    for (wanted, granted) in [(CONNACK, 0), (SUBACK, 2)].into_iter().take(if reads { 2 } else { 1 }) {
        let Some(found) = next(&bytes[at..])? else { return Ok(None) };
        let body = &bytes[at + found.head..at + found.total];
        if found.kind >> 4 != wanted || body.last().is_none_or(|code| *code > granted) {
            return Err(format!("the broker refused: {:02x?}", &bytes[at..at + found.total]));
        }
        at += found.total;
    }
    Ok(Some(at))
}

/// Appends an event as a publisher says it.
pub fn put(wire: Wire, out: &mut BytesMut, topic: &str, payload: &[u8]) {
    if wire == Wire::Nats {
        out.put_slice(format!("PUB {topic} {}\r\n", payload.len()).as_bytes());
        out.put_slice(payload);
        return out.put_slice(b"\r\n");
    }
    packet(out, PUBLISH << 4, &[&text(topic), payload]);
}

/// Hands out the payload of each whole message; puts into `answers` what has to be sent back.
///
/// # Errors
/// What breaks the protocol.
pub fn messages(
    wire: Wire,
    bytes: &[u8],
    on_event: &mut dyn FnMut(&[u8]),
    answers: &mut BytesMut,
) -> Result<Read, String> {
    let len = if wire == Wire::Nats { nats(bytes, on_event, answers)? } else { mqtt(bytes, on_event)? };
    Ok(Read { len, end: None })
}

/// `MSG <subject> <sid> [reply] <bytes>`, then the payload, each behind a line end.
fn nats(bytes: &[u8], on_event: &mut dyn FnMut(&[u8]), answers: &mut BytesMut) -> Result<usize, String> {
    let mut at = 0;
    while let Some(end) = memchr::memmem::find(&bytes[at..], b"\r\n") {
        let (line, body) = (&bytes[at..at + end], at + end + 2);
        at = match line {
            [b'M', b'S', b'G', b' ', words @ ..] => {
                let len = std::str::from_utf8(words).ok().and_then(|words| words.rsplit(' ').next()?.parse().ok());
                let len: usize = len.ok_or("a message without a length")?;
                let Some(payload) = bytes.get(body..body.saturating_add(len).saturating_add(2)) else { break };
                on_event(&payload[..len]);
                body + len + 2
            }
            b"PING" => {
                answers.put_slice(PONG);
                body
            }
            [b'-', ..] => return Err(String::from_utf8_lossy(line).into_owned()),
            _ => body,
        };
    }
    Ok(at)
}

fn mqtt(bytes: &[u8], on_event: &mut dyn FnMut(&[u8])) -> Result<usize, String> {
    let mut at = 0;
    while let Some(found) = next(&bytes[at..])? {
        let body = &bytes[at + found.head..at + found.total];
        if found.kind >> 4 == PUBLISH {
            let topic = body.first_chunk().map_or(0, |len| usize::from(u16::from_be_bytes(*len)));
            let id = if found.kind & 6 == 0 { 0 } else { 2 };
            on_event(body.get(2 + topic + id..).ok_or("a message that is cut short")?);
        }
        at += found.total;
    }
    Ok(at)
}

/// A packet's first byte, and where it ends.
struct Found {
    kind: u8,
    head: usize,
    total: usize,
}

/// The packet at the front, if it is whole (MQTT 3.1.1 §2.2).
fn next(bytes: &[u8]) -> Result<Option<Found>, String> {
    let mut len = 0;
    for i in 0..4 {
        let Some(&byte) = bytes.get(1 + i) else { return Ok(None) };
        len |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let (head, total) = (2 + i, 2 + i + len);
            return Ok((bytes.len() >= total).then_some(Found { kind: bytes[0], head, total }));
        }
    }
    Err("a packet's length has no end".into())
}

fn packet(out: &mut BytesMut, kind: u8, parts: &[&[u8]]) {
    out.put_u8(kind);
    let mut len: usize = parts.iter().map(|part| part.len()).sum();
    loop {
        let more = if len > 0x7f { 0x80 } else { 0 };
        out.put_u8(more | (len & 0x7f) as u8);
        len >>= 7;
        if more == 0 {
            break;
        }
    }
    parts.iter().for_each(|part| out.put_slice(part));
}

/// Behind its length in two bytes.
fn text(words: &str) -> Vec<u8> {
    [&(words.len() as u16).to_be_bytes()[..], words.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: Wire, bytes: &[u8]) -> (Vec<String>, usize, Vec<u8>) {
        let (mut events, mut answers) = (Vec::new(), BytesMut::new());
        let mut take = |payload: &[u8]| events.push(String::from_utf8_lossy(payload).into_owned());
        let read = messages(wire, bytes, &mut take, &mut answers).expect("well formed");
        (events, read.len, answers.to_vec())
    }

    #[test]
    fn half_a_message_waits() {
        let long = "x".repeat(200);
        let nats = format!("MSG a 1 3\r\none\r\nPING\r\n+OK\r\nMSG a 1 reply 200\r\n{long}\r\n").into_bytes();
        let mut mqtt = BytesMut::new();
        put(Wire::Mqtt, &mut mqtt, "a", b"one");
        mqtt.extend_from_slice(&[0xd0, 0]);
        put(Wire::Mqtt, &mut mqtt, "a", long.as_bytes());
        for (wire, bytes) in [(Wire::Nats, &nats[..]), (Wire::Mqtt, &mqtt[..])] {
            for cut in 0..=bytes.len() {
                let (first, done, _) = read(wire, &bytes[..cut]);
                let (second, ..) = read(wire, &bytes[done..]);
                assert_eq!([first, second].concat(), ["one", &long], "{wire:?} {cut}");
            }
        }
        assert_eq!(read(Wire::Nats, &nats).2, PONG);
        assert!(messages(Wire::Nats, b"-ERR 'Slow Consumer'\r\n", &mut |_| {}, &mut BytesMut::new()).is_err());
    }

    #[test]
    fn an_answer_is_whole_or_a_refusal() {
        assert_eq!(answer(Wire::Nats, b"INFO {}\r\n", true), Ok(None));
        assert_eq!(answer(Wire::Nats, b"INFO {}\r\nPONG\r\nMSG", true), Ok(Some(15)));
        assert!(answer(Wire::Nats, b"INFO {}\r\n-ERR 'Authorization Violation'\r\n", true).is_err());
        assert_eq!(answer(Wire::Mqtt, &[0x20, 2, 0], false), Ok(None));
        assert_eq!(answer(Wire::Mqtt, &[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0], true), Ok(Some(9)));
        assert!(answer(Wire::Mqtt, &[0x20, 2, 0, 5], true).is_err());
        assert!(answer(Wire::Mqtt, &[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0x80], true).is_err());
    }
}
