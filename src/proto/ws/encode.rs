//! A batch as a link reads it: the very same frames, with attributes announced where an event has any.

use super::frame::{control, op};
use crate::{
    event::{Batch, Seqs, put_header},
    id::Id,
    link::Signal,
};
use bytes::{BufMut, Bytes, BytesMut};

/// The batch's cache slot for its link form.
pub const LINK_FORM: usize = 0;

/// A ping frame that carries a signal.
pub fn ping(signal: &Signal) -> BytesMut {
    control(op::PING, signal.to_text().as_bytes())
}

/// `p`: what comes next on this connection.
pub fn position(next: Id, ms: u64, n: u64) -> BytesMut {
    ping(&Signal::Position { next, ms, n })
}

/// Whether the events from index `from` on directly follow `expected` and each other, so that no `p` is needed.
pub fn is_contiguous(batch: &Batch, from: usize, expected: Option<&Id>) -> bool {
    let follows = expected.is_some_and(|id| id.epoch == *batch.epoch() && id.seq == batch.seq(from));
    follows && matches!(batch.seqs(), Seqs::From(_))
}

/// The frames from index `from` on, for a reader to whom the first was announced. Shared by all links when whole.
pub fn link_frames(batch: &Batch, from: usize) -> Bytes {
    match (batch.attrs().is_empty(), from) {
        (true, 0) => batch.run().bytes().clone(),
        (true, _) => batch.run().bytes().slice(batch.run().start_of(from)..),
        (false, 0) => batch.form(LINK_FORM, |batch| with_attributes(batch, 0)).clone(),
        (false, _) => with_attributes(batch, from),
    }
}

fn with_attributes(batch: &Batch, from: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(batch.run().bytes().len() * 2);
    for (i, message) in batch.run().messages().enumerate().skip(from) {
        put_attributes(&mut out, batch, i);
        out.put_slice(&batch.run().bytes()[message.frame]);
    }
    out.freeze()
}

/// `a <id>` and the attributes message, never apart from the event behind it (LINKS 12).
fn put_attributes(out: &mut BytesMut, batch: &Batch, i: usize) {
    if let Some(attrs) = batch.attrs_of(i) {
        let json = attrs.to_json();
        out.put_slice(&ping(&Signal::Attributes(batch.id(i))));
        put_header(out, 0x80 | op::TEXT, json.len());
        out.put_slice(json.as_bytes());
    }
}

/// The events from index `from` on with a `p` before the first and wherever the numbers jump (LINKS 11). `n` counts the
/// data messages sent so far on this connection.
pub fn link_frames_with_positions(batch: &Batch, from: usize, n: u64) -> Bytes {
    let mut expected = None;
    let mut out = BytesMut::with_capacity(batch.run().bytes().len() + 128);
    for (i, message) in batch.run().messages().enumerate().skip(from) {
        let id = batch.id(i);
        if expected.as_ref() != Some(&id) {
            out.put_slice(&position(id.clone(), batch.time(), n + (i - from) as u64));
        }
        put_attributes(&mut out, batch, i);
        out.put_slice(&batch.run().bytes()[message.frame]);
        expected = Some(Id { seq: id.seq.after(), ..id });
    }
    out.freeze()
}
