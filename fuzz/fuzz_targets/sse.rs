//! An event stream from another server, in pieces of any size: the pieces do not matter, and a block is bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsevent::proto::sse::{Parsed, Parser};

const MAX: usize = 300;

fuzz_target!(|data: &[u8]| {
    let Some((&step, bytes)) = data.split_first() else { return };
    let whole = parse(bytes, bytes.len().max(1));
    let pieces = parse(bytes, usize::from(step) % 13 + 1);
    assert_eq!(whole, pieces);
    for block in &whole.0 {
        assert!(block.data.as_ref().is_none_or(|data| data.len() <= 3 * MAX));
        assert_ne!(*block, Parsed::default());
    }
});

/// The blocks before the first that is too big, and whether there was one.
fn parse(bytes: &[u8], step: usize) -> (Vec<Parsed>, bool) {
    let (mut parser, mut blocks) = (Parser::new(MAX), Vec::new());
    for piece in bytes.chunks(step) {
        if parser.feed(piece, &mut blocks).is_err() {
            return (blocks, true);
        }
    }
    (blocks, false)
}
