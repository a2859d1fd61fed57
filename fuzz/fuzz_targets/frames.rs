//! WebSocket frames of either role, in pieces of any size: the pieces do not matter, what the scanner passes on is what
//! the assembler would have said, and after a refused message the next one is read.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wsevent::{
    event::{Event, Run},
    proto::ws::{
        assemble::{Assembler, Got},
        frame::{Fault, masked, op, scan},
    },
};

const MAX: usize = 200;

fuzz_target!(|data: &[u8]| {
    let Some((&how, bytes)) = data.split_first() else { return };
    let (masked, step) = (how & 1 == 1, usize::from(how >> 1) % 17 + 1);
    let whole = assemble(masked, bytes, bytes.len().max(1));
    let pieces = assemble(masked, bytes, step);
    // A frame that is refused by its header alone is refused before the rest of it has come; nothing else differs.
    assert_eq!(whole, pieces);
    for got in &whole.0 {
        check(got);
    }
    if !masked {
        agree(bytes);
    }
    go_on(bytes, step);
});

fn assemble(masked: bool, bytes: &[u8], step: usize) -> (Vec<Got>, Option<Fault>) {
    let mut assembler = Assembler::new(masked, MAX);
    let mut all = Vec::new();
    for piece in bytes.chunks(step) {
        assembler.buf.extend_from_slice(piece);
        loop {
            match assembler.next() {
                Ok(Some(got)) => all.push(got),
                Ok(None) => break,
                Err(fault) => return (all, Some(fault)),
            }
        }
    }
    (all, None)
}

/// What was accepted is within the limits, and survives being said by a client.
fn check(got: &Got) {
    let Got::Message { text, payload } = got else { return };
    assert!(payload.len() <= MAX);
    assert!(!text || std::str::from_utf8(payload).is_ok());
    let frame = masked(if *text { op::TEXT } else { op::BINARY }, payload, [1, 2, 3, 4]);
    assert_eq!(assemble(true, &frame, 3), (vec![got.clone()], None));
}

/// The verbatim stretch is the same messages.
fn agree(bytes: &[u8]) {
    for limit in [MAX / 4, usize::MAX] {
        let stretch = scan(bytes, limit, MAX);
        assert!(stretch.len <= limit || stretch.count <= 1);
        let (got, fault) = assemble(false, &bytes[..stretch.len], usize::MAX);
        assert_eq!((got.len(), fault), (stretch.count as usize, None));
        let run = Run::from_frames(Bytes::copy_from_slice(&bytes[..stretch.len]), stretch.count);
        let laid: Vec<Got> = run
            .messages()
            .map(|m| Got::Message { text: m.text, payload: run.bytes().slice(m.payload) })
            .collect();
        assert_eq!(laid, got);
        let events: Vec<Event> =
            run.messages().map(|m| Event { payload: run.bytes().slice(m.payload), text: m.text, attrs: None }).collect();
        assert_eq!(Run::of(&events).len(), events.len());
    }
}

/// As a link does it: a message that is refused costs itself only, and reading ends.
fn go_on(bytes: &[u8], step: usize) {
    let mut assembler = Assembler::new(false, MAX);
    let mut turns = 0;
    for piece in bytes.chunks(step) {
        assembler.buf.extend_from_slice(piece);
        loop {
            turns += 1;
            assert!(turns <= 2 * bytes.len() + 2, "no progress");
            match assembler.next() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(fault) if assembler.refuse(&fault) => {}
                Err(_) => return,
            }
        }
    }
}
