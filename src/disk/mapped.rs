//! A mapped file on the real disk: the one place of this module tree that needs `unsafe`. Everything outside sees
//! `disk::Map`.
//!
//! Two things can go wrong with a store into a mapping that can't with a write. The file may be shorter than the map
//! (someone truncated it), or its page can't be read or given room: either is a SIGBUS, at any store. Room is reserved
//! before a file is mapped, and the data directory is locked; for what is left there is a handler that says what
//! happened and ends the process at once, so that nothing is acknowledged after it.
//!
//! The sync is `fdatasync`, not `msync`: both end in the same function of the kernel's file system, which with data
//! written through before carries no metadata; see docs/log-format.md for the measurement.
//!
//! Runs on: the log writer.
#![allow(unsafe_code)]

use super::Map;
use memmap2::MmapRaw;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the handler of SIGBUS says. One string, because a handler may neither allocate nor format.
const BUS_ERROR: &[u8] = b"ostler: a store into the mapped log failed (SIGBUS): the segment was truncated by someone, \
or the disk is failing. Nothing was acknowledged after it. Check the disk (dmesg, smartctl) and start again.\n";

/// Exit status of a process stopped by SIGBUS: that of `Fatal::Io`.
const BUS_STATUS: i32 = 10;

/// The whole of one file, mapped shared and writable.
pub struct MappedFile {
    map: MmapRaw,
    file: File,
}

impl MappedFile {
    /// Maps `file` at its present length, which must not be 0.
    pub fn new(file: File) -> io::Result<MappedFile> {
        stop_on_bus_error()?;
        let map = MmapRaw::map_raw(&file)?;
        Ok(MappedFile { map, file })
    }
}

impl Map for MappedFile {
    fn len(&self) -> usize {
        self.map.len()
    }

    fn store(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.map.len() && bytes.len() <= self.map.len() - at, "stored beyond the end of the map");
        // SAFETY: `at..at + bytes.len()` is inside the mapping (asserted above), which lives as long as `self`. Nobody
        // in this process holds a reference into it: the trait gives none out, and `&mut self` keeps other writers
        // away. `bytes` can't overlap it for the same reason. Other processes are kept away by the directory's lock.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(at), bytes.len()) };
    }

    fn publish(&mut self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8) && at + 8 <= self.map.len(), "published across a word or beyond the end");
        // SAFETY: the eight bytes are inside the mapping and aligned (asserted above; a mapping begins at a page), and
        // nobody holds a reference to them, as in `store`.
        let cell = unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(at).cast()) };
        cell.store(word.to_le(), Ordering::Release);
    }

    fn sync(&mut self, _from: usize, _to: usize) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }
}

/// Installs the handler, once in a process.
fn stop_on_bus_error() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        let stop = || {
            let _ = rustix::io::write(std::io::stderr().as_fd(), BUS_ERROR);
            signal_hook::low_level::exit(BUS_STATUS);
        };
        // SAFETY: the handler makes two system calls (write, _exit) and touches no memory of the process but a constant.
        result = unsafe { signal_hook::low_level::register(signal_hook::consts::SIGBUS, stop) }.map(|_| ());
    });
    result
}
