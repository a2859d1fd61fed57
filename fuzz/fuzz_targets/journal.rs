//! A journal's records: any bytes are read without harm, and what was understood is written as it was meant.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wsevent::{
    journal::{
        record::{self, Decoded, Read},
        recover,
    },
    recorder::{Record, Recorded},
};

fuzz_target!(|data: &[u8]| {
    as_a_segment(data);
    as_a_body(data);
});

/// What is sound of a segment is read again, and is all of it.
fn as_a_segment(data: &[u8]) {
    let segment = Bytes::from([recover::MAGIC, data].concat());
    let mut records = 0;
    let (sound, _) = recover::read_segment(&segment, &mut |_| records += 1);
    let mut again = 0;
    let ending = recover::read_segment(&segment.slice(..sound), &mut |_| again += 1);
    assert_eq!((ending, again), ((sound, recover::Ending::Whole), records));
}

/// Checksums keep a fuzzer out: with the right ones it gets as far as the fields.
fn as_a_body(body: &[u8]) {
    let len = (body.len() as u32).to_le_bytes();
    let checks = [crc32fast::hash(&len).to_le_bytes(), crc32fast::hash(body).to_le_bytes()].concat();
    let bytes = Bytes::from([&len, &checks[..], body].concat());
    let Read::Record(decoded, read) = record::read(&bytes, 0) else { return };
    assert_eq!(read, bytes.len());
    let written = rewritten(&decoded);
    let Read::Record(again, _) = record::read(&written, 0) else { panic!("not read again: {decoded:?}") };
    assert_eq!(rewritten(&again), written);
}

fn rewritten(decoded: &Decoded) -> Bytes {
    let record = match &decoded.what {
        Recorded::Batch(batch) => Record::Batch(batch),
        Recorded::Gap(gap) => Record::Gap(gap),
        Recorded::Place(id, own) => Record::Place(id, *own),
        Recorded::Nothing => Record::Nothing,
    };
    let encoded = record::encode(&record, decoded.note.as_ref(), decoded.written);
    [encoded.front, encoded.frames].concat().into()
}
