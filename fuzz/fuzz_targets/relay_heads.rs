//! The heads that a relay judges: what it passes on has one meaning, and the one that it was judged by.

#![no_main]

use bytes::{Bytes, BytesMut};
use hyper::header;
use libfuzzer_sys::fuzz_target;
use std::net::Ipv4Addr;
use wsevent::{
    balance::{
        answer,
        headers::{self, Arrival},
        relay,
    },
    proto::head::parse_head,
};

/// Heads with more fields are not read again: a relay adds some.
const FIELDS: usize = 50;

fuzz_target!(|data: &[u8]| {
    asked(data);
    answered(data);
});

fn asked(data: &[u8]) {
    let Ok(Some((parts, _))) = parse_head(&Bytes::copy_from_slice(data)) else { return };
    if !relay::is_direct(&parts) || parts.headers.len() > FIELDS {
        return;
    }
    let fields = headers::for_backend(&parts.headers, Arrival { peer: Ipv4Addr::LOCALHOST.into(), tls: false });
    let mut text = BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
    headers::write(&fields, &mut text);
    let text = text.freeze();
    let (again, len) = parse_head(&text).expect("a head").expect("a whole one");
    assert_eq!(len, text.len(), "one request, and nothing behind it");
    assert!(!again.headers.contains_key(header::CONTENT_LENGTH) && !again.headers.contains_key(header::TRANSFER_ENCODING));
    assert_eq!(again.headers.get_all(header::HOST).iter().count(), 1);
}

fn answered(data: &[u8]) {
    let Ok(Some((answer, len))) = answer::parse(data) else { return };
    assert!(len <= data.len());
    let passed = answer.to_bytes();
    let (again, end) = match answer::parse(&passed) {
        Ok(again) => again.expect("a whole head"),
        Err(why) => panic!("{why}: {passed:?}"),
    };
    assert_eq!((again.status, end), (answer.status, passed.len()));
    assert_eq!(again.body_left(), answer.body_left(), "as long as it was");
}
