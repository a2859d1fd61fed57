//! What a peer says about positions: pings, the window header, close reasons. What is understood survives its text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsevent::link::{GoAway, Signal, parse_window, window_text};

fuzz_target!(|data: &[u8]| {
    if let Some(signal) = Signal::parse(data) {
        let text = signal.to_text();
        assert_eq!(Signal::parse(text.as_bytes()).as_ref(), Some(&signal));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(window) = parse_window(text) {
        assert_eq!(parse_window(&window_text(&window)), Some(window));
    }
    if let Some(reason) = GoAway::parse(text) {
        assert_eq!(GoAway::parse(&reason.to_text()), Some(reason));
    }
});
