//! Disks that are full or fail: a small file system of a test's own, and a library that lets calls fail (preloaded).

// Each test file uses a part of it.
#![allow(dead_code)]

use crate::common::{Scratch, Wsevent, binary};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// A small disk, mounted at `journal` in a scratch directory.
pub struct SmallDisk(pub Scratch);

impl SmallDisk {
    /// One of this size; none where this user may not mount one.
    pub fn new(size: &str) -> Option<Self> {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path("journal")).expect("a directory");
        let options = format!("size={size},mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs", &scratch.arg("journal")]).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(scratch));
        }
        eprintln!("SKIPPED: a full disk needs a mount, and this user may not mount one");
        None
    }

    fn ballast(&self) -> PathBuf {
        self.0.path("journal/ballast")
    }

    /// Fills it to its end.
    pub fn fill(&self) {
        assert!(fs::write(self.ballast(), vec![0; 64 << 20]).is_err(), "the disk is full");
    }

    /// Fills it but for about so many bytes.
    pub fn fill_but(&self, bytes: u64) {
        self.fill();
        let len = fs::metadata(self.ballast()).expect("ballast").len();
        let ballast = fs::File::options().write(true).open(self.ballast()).expect("ballast");
        ballast.set_len(len.saturating_sub(bytes)).expect("a smaller file");
    }

    /// Makes room again.
    pub fn clear(&self) {
        fs::remove_file(self.ballast()).expect("remove the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path("journal")).output();
    }
}

/// Lets calls on the files of a topic's journal fail with EIO, as a file of the call's name in `$DISK_FAULTS` says.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int fails(const char *call, int fd) {
    const char *dir = getenv("DISK_FAULTS");
    char name[4096], file[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(name, file, sizeof file - 1);
    if (!dir || len < 0) return 0;
    file[len] = 0;
    if (!strstr(file, "/topic-")) return 0;
    snprintf(name, sizeof name, "%s/%s-once", dir, call);
    if (unlink(name) == 0) return 1;
    snprintf(name, sizeof name, "%s/%s", dir, call);
    return access(name, F_OK) == 0;
}

#define CALL(type, call, kind, parameters, arguments)                          \
    type call parameters {                                                     \
        static type (*real) parameters;                                        \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #call);                  \
        if (fails(kind, fd)) { errno = EIO; return -1; }                       \
        return real arguments;                                                 \
    }

CALL(int, fsync, "sync", (int fd), (fd))
CALL(int, fdatasync, "sync", (int fd), (fd))
CALL(ssize_t, write, "write", (int fd, const void *from, size_t len), (fd, from, len))
CALL(ssize_t, writev, "write", (int fd, const struct iovec *from, int count), (fd, from, count))
"#;

/// The compiled library; none without a C compiler, or where the program is not linked dynamically.
fn library() -> Option<&'static Path> {
    static LIBRARY_FILE: OnceLock<Option<(Scratch, PathBuf)>> = OnceLock::new();
    let compiled = LIBRARY_FILE.get_or_init(|| {
        let scratch = Scratch::new();
        let (source, file) = (scratch.file("faults.c", LIBRARY), scratch.path("faults.so"));
        let line = ["-shared", "-fPIC", "-O1", "-o"];
        let compiled = Command::new("cc").args(line).arg(&file).arg(source).arg("-ldl").output();
        if !compiled.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let probed = Command::new("ldd").arg(binary()).output();
        let dynamic = probed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("libc.so"));
        dynamic.then_some((scratch, file))
    });
    compiled.as_ref().map(|(_, file)| file.as_path())
}

/// A disk whose calls fail as long as a test says so.
pub struct FailingDisk(pub Scratch);

impl FailingDisk {
    /// Works at first; none where calls cannot be made to fail.
    pub fn new() -> Option<Self> {
        if library().is_none() {
            eprintln!("SKIPPED: a failing disk needs a C compiler and a program that is linked dynamically");
            return None;
        }
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path("faults")).expect("a directory");
        Some(FailingDisk(scratch))
    }

    /// The command line on this disk.
    pub fn under(&self, line: Wsevent) -> Wsevent {
        let library = library().and_then(Path::to_str).expect("a library");
        line.env("LD_PRELOAD", library).env("DISK_FAULTS", &self.0.arg("faults"))
    }

    /// From here on the call fails: `sync`, `write`, or with `-once` behind it one of them.
    pub fn fail(&self, call: &str) {
        self.0.file(&format!("faults/{call}"), "");
    }

    /// It works again.
    pub fn mend(&self, call: &str) {
        fs::remove_file(self.0.path(&format!("faults/{call}"))).expect("it failed");
    }

    /// Whether a call that was to fail once has done so.
    pub fn has_failed(&self, call: &str) -> bool {
        !self.0.path(&format!("faults/{call}")).exists()
    }
}
