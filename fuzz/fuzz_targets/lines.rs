//! Input cut into events, in pieces of any size: the pieces do not matter, lines are what they are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, ReadBuf};
use wsevent::{
    id::Epoch,
    log::{Entry, Limits, Log, Numbering},
    source::lines::{self, Framing},
    topic::{Policy, Topic},
};

const MAX: usize = 64;

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, bytes)) = data.split_first() else { return };
    let (framing, step) = (FRAMINGS[usize::from(how) % 3], usize::from(how) / 3 % 11 + 1);
    let pieces = cut(bytes, framing, step);
    assert!(pieces.iter().all(|event| event.len() <= MAX));
    let delimiter = match framing {
        Framing::Line => b'\n',
        Framing::Nul => 0,
        // Which values a broken input still gives depends on where it was cut.
        Framing::Json => return,
    };
    let rest = bytes.strip_suffix(&[delimiter]).unwrap_or(bytes);
    let lines = rest.split(|&byte| byte == delimiter).filter(|line| line.len() <= MAX);
    let expected: Vec<&[u8]> = if bytes.is_empty() { Vec::new() } else { lines.collect() };
    assert_eq!(pieces, expected);
});

const FRAMINGS: [Framing; 3] = [Framing::Line, Framing::Nul, Framing::Json];

fn cut(bytes: &[u8], framing: Framing, step: usize) -> Vec<Vec<u8>> {
    let limits = Limits { events: u64::MAX, bytes: u64::MAX, age: None };
    let log = Log::new(Numbering::Own(Epoch::new(1, 2)), limits);
    let topic = Arc::new(Topic::new("/events".into(), log, Vec::new(), "", Policy::Disconnect));
    RUNTIME.with(|runtime| {
        let cut = lines::run(&topic, Pieces { bytes, step }, framing, MAX);
        runtime.block_on(cut).expect("memory does not fail");
    });
    let mut items = Vec::new();
    let mut cursor = 0;
    while let Ok(read) = topic.log.read(cursor, usize::MAX, &mut items) {
        if read.next == cursor {
            break;
        }
        cursor = read.next;
    }
    let batches = items.iter().filter_map(|item| match &item.entry {
        Entry::Batch(batch) => Some(batch),
        _ => None,
    });
    batches.flat_map(|batch| batch.events().map(|(_, event)| event.payload.to_vec()).collect::<Vec<_>>()).collect()
}

/// Gives so many bytes at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let n = self.bytes.len().min(self.step).min(buf.remaining());
        let (now, later) = self.bytes.split_at(n);
        buf.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}
