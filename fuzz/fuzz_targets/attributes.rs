//! Announced attributes: what is understood survives the next hop.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsevent::event::Attrs;

fuzz_target!(|data: &[u8]| {
    let Some(attrs) = Attrs::from_json(data) else { return };
    let json = attrs.to_json();
    assert!(!json.contains('\n'), "one line");
    assert_eq!(Attrs::from_json(json.as_bytes()), Some(attrs));
});
