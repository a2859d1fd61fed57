//! permessage-deflate (RFC 7692) on the wire: who offers it gets the same events in fewer bytes, and nobody else
//! notices. Other people's clients and servers with compression are in `clients.rs`.

mod common;

use common::{
    Running, Wsevent, eventually,
    raw::{BINARY, Frame, Raw, TEXT},
};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 1024);
    Compress::new(Compression::best(), false).compress_vec(payload, &mut out, FlushCompress::Sync).expect("room");
    assert!(out.ends_with(&TAIL));
    out.truncate(out.len() - TAIL.len());
    out
}

/// The payload of a frame, inflated if it says that it is compressed.
fn text(frame: &Frame) -> String {
    if frame.rsv == 0 {
        return frame.text();
    }
    assert_eq!(frame.rsv, 4, "RSV1 only");
    let mut out = Vec::with_capacity(1 << 20);
    let input = [&frame.payload[..], &TAIL].concat();
    Decompress::new(false).decompress_vec(&input, &mut out, FlushDecompress::Sync).expect("a deflate stream");
    String::from_utf8(out).expect("text")
}

fn compressed(opcode: u8, payload: &[u8]) -> Frame {
    Frame { rsv: 4, ..Frame::new(opcode, deflated(payload)) }
}

fn hub(options: &str) -> Running {
    Wsevent::line("--no-produce --deflate").args(options.split_whitespace()).serve()
}

fn event(n: usize) -> String {
    format!(r#"{{"n":{n},"text":"{}"}}"#, "all work and no play makes jack a dull boy ".repeat(10))
}

#[test]
fn who_offers_it_gets_the_same_events_in_fewer_bytes() {
    let mut producer = Wsevent::line("--produce - --deflate").piped().serve();
    let (mut packed, answer) = Raw::websocket_with(&producer.ws_url(), OFFER);
    let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(answer.header("sec-websocket-extensions"), Some(agreed));
    let (mut plain, answer) = Raw::websocket_with(&producer.ws_url(), "");
    assert_eq!(answer.header("sec-websocket-extensions"), None, "who does not offer is not asked");
    let events: Vec<String> = (0..50).map(event).chain(["short".into(), String::new()]).collect();
    producer.write(events.join("\n") + "\n");
    for event in &events {
        let (packed, plain) = (packed.read_message().expect("an event"), plain.read_message().expect("an event"));
        assert_eq!((&text(&packed), &plain.text()), (event, event));
        assert_eq!((packed.rsv == 4, plain.rsv), (event.len() > 100, 0), "compressed where it helps");
        assert!(event.len() < 100 || packed.payload.len() * 3 < plain.payload.len());
    }
}

#[test]
fn it_is_off_unless_asked_for_and_declined_where_it_cannot_be_kept() {
    let off = Wsevent::line("--no-produce").serve();
    assert_eq!(Raw::websocket_with(&off.ws_url(), OFFER).1.header("sec-websocket-extensions"), None);
    let on = hub("");
    for offer in ["permessage-deflate; server_max_window_bits=9", "permessage-deflate; x=1", "deflate-frame"] {
        let headers = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        assert_eq!(Raw::websocket_with(&on.ws_url(), &headers).1.header("sec-websocket-extensions"), None, "{offer}");
    }
}

/// Ids, resumption and audiences do not know of it: two compressed hops in a row.
#[test]
fn links_agree_on_it_and_keep_ids() {
    let mut origin = Wsevent::line("--produce - --deflate").piped().serve();
    let hop = |upstream: &Running| Wsevent::new(["--deflate", "--retry-max", "50ms", "--consume", &upstream.ws_url()]);
    let mut first = hop(&origin).serve();
    let second = hop(&first).serve();
    let write = |origin: &mut Running, from: usize, to: usize| {
        origin.write((from..to).map(|n| event(n) + "\n").collect::<String>());
        second.has("events", to as u64);
    };
    write(&mut origin, 0, 100);
    let delivered = || origin.topic()["delivered_bytes"].as_u64().expect("a number");
    let whole = event(0).len() as u64 * 100;
    assert!(eventually("what the link was sent", || Some(delivered()).filter(|&n| n > 0)) * 3 < whole);
    write(&mut origin, 100, 150);
    first.kill9();
    origin.write((150..200).map(|n| event(n) + "\n").collect::<String>());
    first.start_again();
    second.has("events", 200);
    let history = |server: &Running| {
        let answer = common::raw::get(&format!("{}?limit=200", server.url()));
        let lines = serde_json::from_slice::<serde_json::Value>(&answer.body).expect("JSON");
        lines.to_string()
    };
    assert_eq!(history(&second), history(&origin));
}

#[test]
fn what_a_publisher_compresses_is_read_whole_in_fragments_too() {
    let hub = hub("");
    let (mut publisher, _) = Raw::websocket_with(&hub.ws_url(), OFFER);
    let mut plain = Raw::websocket(&hub.ws_url());
    publisher.send_frame(&compressed(TEXT, event(1).as_bytes()));
    let halves = deflated(event(2).as_bytes());
    let (first, second) = halves.split_at(halves.len() / 2);
    publisher.send_frame(&Frame { rsv: 4, fin: false, ..Frame::new(TEXT, first) });
    publisher.send_frame(&Frame::new(common::raw::CONTINUATION, second));
    publisher.send_frame(&Frame::new(TEXT, event(3)));
    publisher.send_frame(&compressed(BINARY, &[0xff; 400]));
    for n in 1..=3 {
        assert_eq!(plain.read_message().map(|frame| frame.text()), Some(event(n)));
    }
    let last = plain.read_message().expect("the binary one");
    assert_eq!((last.opcode, last.payload), (BINARY, vec![0xff; 400]));
}

#[test]
fn a_bomb_garbage_and_compression_without_agreement_end_that_connection_only() {
    let hub = hub("--max-message 64KiB");
    let mut neighbour = Raw::websocket(&hub.ws_url());
    let garbage = Frame { rsv: 4, ..Frame::new(TEXT, vec![0xff; 40]) };
    for (frame, headers, code) in [
        (compressed(TEXT, &vec![b'a'; 32 << 20]), OFFER, 1009),
        (compressed(BINARY, &vec![0; (64 << 10) + 1]), OFFER, 1009),
        (garbage, OFFER, 1007),
        (compressed(TEXT, b"\xff\xfe no text"), OFFER, 1007),
        (compressed(TEXT, b"agreed on nothing"), "", 1002),
        (Frame { rsv: 2, ..Frame::new(TEXT, "x") }, OFFER, 1002),
    ] {
        let (mut peer, _) = Raw::websocket_with(&hub.ws_url(), headers);
        peer.send_frame(&frame);
        assert_eq!(peer.read_close().map(|close| close.close_code()), Some(code));
    }
    common::raw::post(hub.url(), "still here");
    assert_eq!(neighbour.read_message().map(|frame| frame.text()), Some("still here".into()));
}
