//! What a journal held when it was left, given back to a log.
//!
//! A file that ends inside a record was left so by a process that died while writing: nobody has seen that record, and
//! it is cut off. Anything else that does not fit is damage: what stands before it is served; the rest is renamed,
//! kept and reported, because somebody may have seen it.

pub use super::segment::MAGIC;
use super::{
    identity::{self, sync_dir},
    record::{self, Decoded, Read},
    segment::{self, Ordinal},
};
use crate::{
    id::{Epoch, Id},
    log::Log,
    recorder::{Note, Notes, Recorded, Restored, Tag, learn},
    units::now_ms,
};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The epoch that the log numbered itself last.
    pub own: Option<Epoch>,
    /// The newest lasting note of each name.
    pub notes: Notes,
    /// What was noted beside batches, oldest first; some of these may have left the window.
    pub tags: Vec<Tag>,
    /// What is whole, oldest first.
    pub segments: Vec<Piece>,
    /// Bytes of a torn tail that were cut off.
    pub torn: u64,
    /// What did not fit.
    pub damage: Option<Damage>,
    /// Files that were set aside, now and earlier.
    pub set_aside: u64,
}

impl Found {
    fn take(&mut self, note: Note, beside: &Recorded) {
        match beside {
            _ if note.lasting => learn(&mut self.notes, note),
            Recorded::Batch(batch) => {
                let (first, last) = (batch.id(0), batch.id(batch.len() - 1));
                self.tags.push(Tag { name: note.name, value: note.value, first, last });
            }
            _ => {}
        }
    }
}

/// A segment that was read.
#[derive(Debug)]
pub struct Piece {
    /// Its number.
    pub ordinal: Ordinal,
    /// Its bytes.
    pub len: u64,
    /// Where the log ended behind it.
    pub end: u64,
}

/// What did not fit, and what became of it.
#[derive(Debug)]
pub struct Damage {
    /// Where and why.
    pub what: String,
    /// The files that hold it now.
    pub set_aside: Vec<PathBuf>,
}

/// How a segment ends.
#[derive(Debug, PartialEq)]
pub enum Ending {
    /// Behind a record.
    Whole,
    /// Inside one.
    Torn,
    /// Where something else stands than was written; why.
    Damaged(&'static str),
}

/// Reads a segment's records in order; says how many bytes are sound, and what follows them.
pub fn read_segment(bytes: &Bytes, take: &mut dyn FnMut(Decoded)) -> (usize, Ending) {
    if !bytes.starts_with(MAGIC) {
        let is_torn = MAGIC.starts_with(bytes);
        return (0, if is_torn { Ending::Torn } else { Ending::Damaged("the file begins like no journal of ours") });
    }
    let (mut at, mut last): (usize, Option<Id>) = (MAGIC.len(), None);
    loop {
        match record::read(bytes, at) {
            Read::End => return (at, Ending::Whole),
            Read::Torn => return (at, Ending::Torn),
            Read::Damaged(why) => return (at, Ending::Damaged(why)),
            Read::Record(decoded, len) => {
                if !follows(&mut last, &decoded.what) {
                    return (at, Ending::Damaged("a record goes back"));
                }
                take(*decoded);
                at += len;
            }
        }
    }
}

/// Within an epoch positions only rise.
fn follows(last: &mut Option<Id>, what: &Recorded) -> bool {
    let (first, end, may_stay) = match what {
        Recorded::Batch(batch) => (batch.id(0), batch.id(batch.len() - 1), false),
        Recorded::Gap(gap) => (gap.to.clone(), gap.to.clone(), false),
        Recorded::Place(id, _) => (id.clone(), id.clone(), true),
        Recorded::Nothing => return true,
    };
    let rises = match last {
        Some(last) if last.epoch == first.epoch => first.seq > last.seq || (may_stay && first.seq == last.seq),
        _ => true,
    };
    *last = Some(end);
    rises
}

/// Reads what the directory holds into an empty log, repairs what was torn, sets aside what is damaged.
///
/// # Errors
/// When files cannot be read, cut or renamed.
pub fn recover(dir: &Path, log: &Log) -> io::Result<Found> {
    let ordinals = segment::list(dir)?;
    let mut found = Found::default();
    for (i, &ordinal) in ordinals.iter().enumerate() {
        let (sound, why) = match found.segments.last() {
            Some(before) if before.ordinal + 1 != ordinal => (0, Some("the segment before it is missing")),
            _ => read_into(dir, ordinal, i + 1 == ordinals.len(), log, &mut found)?,
        };
        if let Some(why) = why {
            // First: should we die before an epoch was begun, the next start must begin one, too.
            identity::withdraw(dir)?;
            let what = format!("{} byte {sound}: {why}", segment::path(dir, ordinal).display());
            let set_aside = set_aside(dir, &ordinals[i..], sound as u64)?;
            found.damage = Some(Damage { what, set_aside });
            break;
        }
    }
    found.set_aside = count_set_aside(dir)?;
    Ok(found)
}

/// Reads one segment; says how much of it is sound, and what is wrong with the rest.
fn read_into(
    dir: &Path,
    ordinal: Ordinal,
    is_last: bool,
    log: &Log,
    found: &mut Found,
) -> io::Result<(usize, Option<&'static str>)> {
    let path = segment::path(dir, ordinal);
    let (bytes, now) = (Bytes::from(fs::read(&path)?), now_ms());
    let (sound, ending) = read_segment(&bytes, &mut |decoded| {
        if let Some(note) = decoded.note {
            found.take(note, &decoded.what);
        }
        if let Recorded::Place(id, true) = &decoded.what {
            found.own = Some(id.epoch.clone());
        }
        let age = Duration::from_millis(now.saturating_sub(decoded.written));
        log.restore(Restored { what: decoded.what, age });
    });
    if sound > 0 {
        found.segments.push(Piece { ordinal, len: sound as u64, end: log.end() });
    }
    Ok(match ending {
        Ending::Whole => (sound, None),
        Ending::Damaged(why) => (sound, Some(why)),
        Ending::Torn if !is_last => (sound, Some("it ends inside a record, and others follow")),
        Ending::Torn => {
            found.torn = (bytes.len() - sound) as u64;
            match sound {
                0 => fs::remove_file(&path)?,
                _ => cut(&path, sound as u64)?,
            }
            (sound, None)
        }
    })
}

fn cut(path: &Path, len: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}

/// Moves what is not sound out of the way: the first segment from `sound` on, the others whole.
fn set_aside(dir: &Path, ordinals: &[Ordinal], sound: u64) -> io::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    for (i, &ordinal) in ordinals.iter().enumerate() {
        let path = segment::path(dir, ordinal);
        let aside = free_name(&path, if i == 0 { sound } else { 0 });
        if i == 0 && sound > 0 {
            // Copied first: whatever happens in between, nothing of it is lost.
            let rest = fs::read(&path)?.split_off(sound as usize);
            fs::write(&aside, rest)?;
            File::open(&aside)?.sync_all()?;
            cut(&path, sound)?;
        } else {
            fs::rename(&path, &aside)?;
        }
        moved.push(aside);
    }
    sync_dir(dir)?;
    Ok(moved)
}

const ASIDE: &str = ".damaged";

fn free_name(path: &Path, from: u64) -> PathBuf {
    let name = |n: u32| path.with_extension(format!("segment.{from}-{n}{ASIDE}"));
    (1..).map(name).find(|name| !name.exists()).unwrap_or_else(|| name(0))
}

fn count_set_aside(dir: &Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        count += u64::from(entry?.file_name().to_string_lossy().ends_with(ASIDE));
    }
    Ok(count)
}
