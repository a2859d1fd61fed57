//! What an MQTT client may send: nothing ends the process, no packet is larger than allowed, and how the bytes were cut
//! into reads changes nothing.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wsevent::proto::mqtt::{
    packet::{Fault, Packet, Version},
    read,
};

const MAX: usize = 4096;

fn heard(pieces: &[&[u8]]) -> (Vec<Packet>, Option<Fault>) {
    let (mut buf, mut packets, mut version) = (BytesMut::new(), Vec::new(), None::<Version>);
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            let frame = match read::frame(&mut buf, MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(fault) => return (packets, Some(fault)),
            };
            assert!(frame.body.len() < MAX);
            match read::packet(frame, version) {
                Ok(packet) => {
                    if let Packet::Connect(connect) = &packet {
                        version = Some(connect.version);
                    }
                    packets.push(packet);
                }
                Err(fault) => return (packets, Some(fault)),
            }
        }
        assert!(buf.len() <= MAX);
    }
    (packets, None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let bytes = &bytes[..bytes.len().min(MAX)];
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(cut).max(1)).collect();
    assert_eq!(heard(&[bytes]), heard(&pieces));
});
