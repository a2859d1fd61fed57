//! A request's head, and what is asked in it.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wsevent::proto::{head::parse_head, subscribe};

fuzz_target!(|data: &[u8]| {
    let data = Bytes::copy_from_slice(data);
    let Ok(Some((parts, len))) = parse_head(&data) else { return };
    assert!(len <= data.len());
    // Whole means whole: nothing shorter is, and what follows does not matter.
    assert!(matches!(parse_head(&data.slice(..len - 1)), Ok(None)));
    assert!(matches!(parse_head(&data.slice(..len)), Ok(Some((_, same))) if same == len));
    let _ = subscribe::wanted_wire(&parts);
    let _ = subscribe::wanted_start(&parts);
    let _ = subscribe::query_pairs(&parts).count();
});
