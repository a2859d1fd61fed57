//! The form of a record: a head of twelve bytes, then the body.
//!
//! The head is three little-endian 32-bit numbers: the body's length, the CRC-32 of those four bytes, the CRC-32 of the
//! body. So a length can be believed before the body is there, and a file that ends inside a record (a torn tail) is
//! told from one whose bytes have changed. The body of a batch ends with its frames exactly as they are in memory.

use crate::{
    event::{Attrs, Batch, Run, Seqs},
    id::{Epoch, Id, MAX_SEQ, Seq},
    log::Gap,
    recorder::{Note, Record, Recorded},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// Length, its check, the body's check.
const HEAD: usize = 12;

const BATCH: u8 = 1;
const GAP: u8 = 2;
const PLACE: u8 = 3;
const NOTHING: u8 = 4;

/// A record as it is written: two pieces, so that the frames need not be copied.
pub struct Encoded {
    /// Head, and the body up to the frames.
    pub front: Bytes,
    /// The frames, if any.
    pub frames: Bytes,
}

impl Encoded {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.front.len() + self.frames.len()
    }

    /// Never: there is always a head.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Writes a record; `written` is now, in Unix milliseconds.
pub fn encode(record: &Record<'_>, note: Option<&Note>, written: u64) -> Encoded {
    let mut front = BytesMut::with_capacity(128);
    front.put_bytes(0, HEAD);
    let mut frames = Bytes::new();
    match record {
        Record::Batch(batch) => {
            put_common(&mut front, BATCH, note, written);
            put_batch(&mut front, batch);
            frames = batch.run().bytes().clone();
        }
        Record::Gap(gap) => {
            put_common(&mut front, GAP, note, written);
            put_gap(&mut front, gap);
        }
        Record::Place(id, own) => {
            put_common(&mut front, PLACE, note, written);
            put_id(&mut front, id);
            front.put_u8((*own).into());
        }
        Record::Nothing => put_common(&mut front, NOTHING, note, written),
    }
    let len = ((front.len() - HEAD + frames.len()) as u32).to_le_bytes();
    let mut check = crc32fast::Hasher::new();
    check.update(&front[HEAD..]);
    check.update(&frames);
    front[..4].copy_from_slice(&len);
    front[4..8].copy_from_slice(&crc32fast::hash(&len).to_le_bytes());
    front[8..HEAD].copy_from_slice(&check.finalize().to_le_bytes());
    Encoded { front: front.freeze(), frames }
}

fn put_common(out: &mut BytesMut, kind: u8, note: Option<&Note>, written: u64) {
    out.put_u8(kind);
    out.put_u64_le(written);
    out.put_u8(note.map_or(0, |note| if note.lasting { 1 } else { 2 }));
    if let Some(note) = note {
        put_piece(out, note.name.as_bytes());
        put_piece(out, &note.value);
    }
}

fn put_batch(out: &mut BytesMut, batch: &Batch) {
    out.put_slice(batch.epoch().as_str().as_bytes());
    out.put_u64_le(batch.time());
    out.put_u32_le(batch.len() as u32);
    match batch.seqs() {
        Seqs::From(first) => {
            out.put_u8(0);
            out.put_u64_le(*first);
        }
        Seqs::Each(seqs) => {
            out.put_u8(1);
            seqs.iter().for_each(|seq| put_seq(out, *seq));
        }
    }
    out.put_u32_le(batch.attrs().len() as u32);
    for (at, attrs) in batch.attrs() {
        out.put_u32_le(*at);
        put_piece(out, attrs.to_json().as_bytes());
    }
}

fn put_gap(out: &mut BytesMut, gap: &Gap) {
    put_id(out, &gap.from);
    put_id(out, &gap.to);
    out.put_u8(gap.count.is_some().into());
    out.put_u64_le(gap.count.unwrap_or(0));
    put_piece(out, gap.reason.as_bytes());
}

fn put_id(out: &mut BytesMut, id: &Id) {
    out.put_slice(id.epoch.as_str().as_bytes());
    put_seq(out, id.seq);
}

fn put_seq(out: &mut BytesMut, seq: Seq) {
    out.put_u64_le(seq.n);
    out.put_u32_le(seq.k);
}

fn put_piece(out: &mut BytesMut, piece: &[u8]) {
    out.put_u32_le(piece.len() as u32);
    out.put_slice(piece);
}

/// A record as it was read.
#[derive(Debug)]
pub struct Decoded {
    /// What happened.
    pub what: Recorded,
    /// What was noted with it.
    pub note: Option<Note>,
    /// When it was written, in Unix milliseconds.
    pub written: u64,
}

/// What stands at some place of a segment.
#[derive(Debug)]
pub enum Read {
    /// A record, and its length.
    Record(Box<Decoded>, usize),
    /// Nothing more.
    End,
    /// The beginning of a record, and then the segment ends.
    Torn,
    /// Something else than was written; why.
    Damaged(&'static str),
}

/// Reads the record at `at`. Payloads share the memory of `bytes`.
pub fn read(bytes: &Bytes, at: usize) -> Read {
    let rest = bytes.slice(at.min(bytes.len())..);
    if rest.is_empty() {
        return Read::End;
    }
    let Some((head, body)) = rest.split_at_checked(HEAD) else { return Read::Torn };
    let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
    if crc32fast::hash(&head[..4]) != word(4) {
        return Read::Damaged("the head of a record does not fit its check");
    }
    let len = word(0) as usize;
    if body.len() < len {
        return Read::Torn;
    }
    if crc32fast::hash(&body[..len]) != word(8) {
        return Read::Damaged("a record does not fit its check");
    }
    match decode(rest.slice(HEAD..HEAD + len)) {
        Some(decoded) => Read::Record(Box::new(decoded), HEAD + len),
        None => Read::Damaged("a record makes no sense"),
    }
}

fn decode(mut body: Bytes) -> Option<Decoded> {
    let (kind, written) = (body.try_get_u8().ok()?, body.try_get_u64_le().ok()?);
    let note = match body.try_get_u8().ok()? {
        0 => None,
        kind @ 1..=2 => Some(Note { name: text(&mut body)?, value: piece(&mut body)?, lasting: kind == 1 }),
        _ => return None,
    };
    let what = match kind {
        BATCH => Recorded::Batch(batch(&mut body)?),
        GAP => Recorded::Gap(gap(&mut body)?),
        PLACE => Recorded::Place(id(&mut body)?, body.try_get_u8().ok()? == 1),
        NOTHING => Recorded::Nothing,
        _ => return None,
    };
    body.is_empty().then_some(Decoded { what, note, written })
}

fn batch(body: &mut Bytes) -> Option<Batch> {
    let (epoch, time) = (epoch(body)?, body.try_get_u64_le().ok()?);
    let count = body.try_get_u32_le().ok()?;
    let seqs = match body.try_get_u8().ok()? {
        0 => from(body.try_get_u64_le().ok()?, count)?,
        1 => each(body, count)?,
        _ => return None,
    };
    let (mut attrs, mut behind) = (Vec::new(), 0);
    for _ in 0..body.try_get_u32_le().ok()? {
        let at = body.try_get_u32_le().ok().filter(|&at| at >= behind && at < count)?;
        attrs.push((at, Arc::new(Attrs::from_json(&piece(body)?)?)));
        behind = at + 1;
    }
    let run = Run::parse(body.split_off(0), count)?;
    Some(Batch::new(epoch, seqs, time, run, attrs))
}

fn from(first: u64, count: u32) -> Option<Seqs> {
    (count > 0 && first <= MAX_SEQ && first + u64::from(count) - 1 <= MAX_SEQ).then_some(Seqs::From(first))
}

fn each(body: &mut Bytes, count: u32) -> Option<Seqs> {
    let mut seqs: Vec<Seq> = Vec::new();
    for _ in 0..count {
        let seq = seq(body)?;
        if seqs.last().is_some_and(|last| *last >= seq) {
            return None;
        }
        seqs.push(seq);
    }
    (!seqs.is_empty()).then(|| Seqs::Each(seqs.into()))
}

fn gap(body: &mut Bytes) -> Option<Gap> {
    let (from, to, counted) = (id(body)?, id(body)?, body.try_get_u8().ok()?);
    let count = body.try_get_u64_le().ok().map(|count| (counted == 1).then_some(count))?;
    Some(Gap { from, to, count, reason: text(body)?.into() })
}

fn id(body: &mut Bytes) -> Option<Id> {
    Some(Id { epoch: epoch(body)?, seq: seq(body)? })
}

fn epoch(body: &mut Bytes) -> Option<Epoch> {
    let spelled = take(body, Epoch::LEN)?;
    Epoch::parse(std::str::from_utf8(&spelled).ok()?)
}

fn seq(body: &mut Bytes) -> Option<Seq> {
    let n = body.try_get_u64_le().ok().filter(|&n| n <= MAX_SEQ)?;
    Some(Seq { n, k: body.try_get_u32_le().ok()? })
}

fn text(body: &mut Bytes) -> Option<String> {
    String::from_utf8(piece(body)?.into()).ok()
}

fn piece(body: &mut Bytes) -> Option<Bytes> {
    let len = body.try_get_u32_le().ok()?;
    take(body, len as usize)
}

fn take(body: &mut Bytes, len: usize) -> Option<Bytes> {
    (body.len() >= len).then(|| body.split_to(len))
}
