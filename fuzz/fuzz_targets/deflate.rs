//! Compressed messages: never more than the bound, never a panic, and what is compressed here comes back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsevent::{
    event::{Event, Run},
    proto::ws::{
        assemble::{Assembler, Got},
        deflate::{self, Inflater},
    },
};

const MAX: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let mut kept = Inflater::agreed(deflate::EXTENSION).expect("the bare answer");
    for payload in data.chunks(97) {
        for inflater in [&mut Inflater::without_context(), &mut kept] {
            if let Ok(out) = inflater.inflate(payload, MAX) {
                assert!(out.len() <= MAX);
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = deflate::accept([text].into_iter());
        let _ = Inflater::agreed(text);
    }
    comes_back(data);
});

fn comes_back(data: &[u8]) {
    let events: Vec<Event> = data.chunks(200).map(|piece| Event::new(piece.to_vec())).collect();
    let packed = deflate::frames(Run::of(&events).bytes());
    let mut assembler = Assembler::new(false, MAX).inflating(Some(Inflater::without_context()));
    assembler.buf.extend_from_slice(&packed);
    for event in &events {
        let want = Got::Message { text: event.text, payload: event.payload.clone() };
        assert_eq!(assembler.next(), Ok(Some(want)));
    }
    assert_eq!(assembler.next(), Ok(None));
}
