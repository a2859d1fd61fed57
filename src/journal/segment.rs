//! The files of a journal: numbered without a hole, each begun with the same line, only ever appended to.

use super::record::Encoded;
use std::{
    fs::{self, File},
    io::{self, IoSlice, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The first bytes of every segment: what it is, and which form it has.
pub const MAGIC: &[u8] = b"wsevent journal 1\n";

/// A segment's number, from its name.
pub type Ordinal = u64;

/// Where the segment of this number is.
pub fn path(dir: &Path, ordinal: Ordinal) -> PathBuf {
    dir.join(format!("{ordinal:016}.segment"))
}

/// Every segment's number, rising.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<Ordinal>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let ordinal = name.to_str().and_then(|name| name.strip_suffix(".segment")?.parse().ok());
        found.extend(ordinal.filter(|&ordinal| path(dir, ordinal).file_name() == Some(&name)));
    }
    found.sort_unstable();
    Ok(found)
}

/// The segment that is written to.
pub struct Segment {
    /// Its number.
    pub ordinal: Ordinal,
    /// Shared with who syncs it.
    pub file: Arc<File>,
    /// Bytes that count; more than that is there only after a write that failed.
    pub len: u64,
    /// A write failed and left bytes behind.
    torn: bool,
}

impl Segment {
    /// Goes on with a segment.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(dir: &Path, ordinal: Ordinal, len: u64) -> io::Result<Self> {
        let file = File::options().append(true).open(path(dir, ordinal))?;
        Ok(Segment { ordinal, file: Arc::new(file), len, torn: false })
    }

    /// Begins a segment with these records; there is none if that fails.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(dir: &Path, ordinal: Ordinal, records: &[Encoded]) -> io::Result<Self> {
        let path = path(dir, ordinal);
        let file = File::options().create_new(true).append(true).open(&path)?;
        let mut segment = Segment { ordinal, file: Arc::new(file), len: 0, torn: false };
        let begun = (&*segment.file).write_all(MAGIC).and_then(|()| {
            segment.len = MAGIC.len() as u64;
            segment.append(records)
        });
        if let Err(error) = begun {
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(segment)
    }

    /// Appends all of these or none.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append(&mut self, records: &[Encoded]) -> io::Result<()> {
        self.mend()?;
        self.torn = true;
        let mut slices: Vec<IoSlice<'_>> =
            records.iter().flat_map(|record| [IoSlice::new(&record.front), IoSlice::new(&record.frames)]).collect();
        if let Err(error) = write_all(&self.file, &mut slices) {
            // What is left behind would be taken for a torn tail, or hide what follows.
            let _ = self.cut(self.len);
            return Err(error);
        }
        self.torn = false;
        self.len += records.iter().map(|record| record.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Removes what a failed write left behind.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn mend(&mut self) -> io::Result<()> {
        if self.torn { self.cut(self.len) } else { Ok(()) }
    }

    /// Whether a failed write left something behind that could not be removed.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Takes back what was appended behind `len`.
    ///
    /// # Errors
    /// When the disk refuses; then the next append tries it again.
    pub fn cut(&mut self, len: u64) -> io::Result<()> {
        self.torn = true;
        self.len = len;
        self.file.set_len(len)?;
        self.torn = false;
        Ok(())
    }
}

fn write_all(mut file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
