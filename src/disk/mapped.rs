//! A mapped file on the real disk: the one place of this module tree that needs `unsafe`. Everything outside sees
//! `disk::Map`.
//!
//! What is stored between two syncs gathers in a buffer and reaches the mapped pages, and the disk, in one call:
//! `pwritev2` with `RWF_DSYNC`, whose bytes appear in the mapping as it is the same memory of the kernel's. A store into a
//! page that the last sync has cleaned faults, marks as dirty all of the (large) folio that the page is in, and has the
//! other cores' TLBs flushed; the call marks the blocks that it writes. Measured in docs/log-format.md: two thirds of the
//! time and of the CPU. Only what is larger than the buffer may become goes through the mapping, with one `fdatasync`.
//!
//! Two things can go wrong with a mapping that can't with a write. The file may be shorter than the map
//! (someone truncated it), or its page can't be read or given room: either is a SIGBUS, at any store. Room is reserved
//! before a file is mapped, and the data directory is locked; for what is left there is a handler that says what
//! happened and ends the process at once, so that nothing is acknowledged after it.
//!
//! A file system that knows no `RWF_DSYNC` gets a plain write and `fdatasync`, which is what it stands for.
//!
//! Runs on: the log writer.
#![allow(unsafe_code)]

use super::Map;
use memmap2::MmapRaw;
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the handler of SIGBUS says. One string, because a handler may neither allocate nor format.
const BUS_ERROR: &[u8] = b"ostler: an access to the mapped log failed (SIGBUS): the segment was truncated by someone, \
or the disk is failing. Nothing was acknowledged after it. Check the disk (dmesg, smartctl) and start again.\n";

/// Exit status of a process stopped by SIGBUS: that of `Fatal::Io`.
const BUS_STATUS: i32 = 10;

/// Bytes that gather between two syncs; thousands of usual records. What goes beyond is stored through the mapping.
const STAGED_MAX: usize = 1 << 20;

/// The whole of one file, mapped shared and writable.
pub struct MappedFile {
    map: MmapRaw,
    file: File,
    /// What has been stored since the last sync, from `staged_at` on. Empty if it went through the mapping.
    staged: Vec<u8>,
    staged_at: usize,
    /// Something was stored through the mapping since the last sync: all that follows has to as well.
    through_map: bool,
}

impl MappedFile {
    /// Maps `file` at its present length, which must not be 0.
    pub fn new(file: File) -> io::Result<MappedFile> {
        stop_on_bus_error()?;
        let map = MmapRaw::map_raw(&file)?;
        Ok(MappedFile { map, file, staged: Vec::new(), staged_at: 0, through_map: false })
    }

    /// Puts `bytes` into the buffer, if that is where they go.
    #[inline]
    fn stage(&mut self, at: usize, bytes: &[u8]) -> bool {
        if self.staged.is_empty() && !self.through_map {
            self.staged_at = at;
        }
        let from = at.wrapping_sub(self.staged_at);
        if self.through_map || from > STAGED_MAX || bytes.len() > STAGED_MAX - from {
            self.leave_the_buffer();
            return false;
        }
        if from >= self.staged.len() {
            // What is skipped is zeros in the file as well: nothing was ever stored there.
            self.staged.resize(from, 0);
            self.staged.extend_from_slice(bytes);
        } else {
            let end = from + bytes.len();
            self.staged.resize(self.staged.len().max(end), 0);
            self.staged[from..end].copy_from_slice(bytes);
        }
        true
    }

    /// From here to the next sync everything goes through the mapping.
    #[cold]
    fn leave_the_buffer(&mut self) {
        self.through_map = true;
        let staged = std::mem::take(&mut self.staged);
        self.copy(self.staged_at, &staged);
    }

    /// Ends the process, by SIGBUS, if someone has truncated the file: a write would only make it longer again, with a hole
    /// where acknowledged records were. Costs a load, where asking for the length would cost a system call.
    fn touch_end(&self) {
        // SAFETY: the last byte is inside the mapping, which is never empty; nobody holds a reference into it, and the
        // value, which may change meanwhile, is not used.
        unsafe { self.map.as_ptr().add(self.map.len() - 1).read_volatile() };
    }

    fn copy(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.map.len() && bytes.len() <= self.map.len() - at, "stored beyond the end of the map");
        // SAFETY: `at..at + bytes.len()` is inside the mapping (asserted above), which lives as long as `self`. Nobody
        // in this process holds a reference into it: the trait gives none out, and `&mut self` keeps other writers
        // away. `bytes` can't overlap it for the same reason. Other processes are kept away by the directory's lock.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(at), bytes.len()) };
    }
}

/// Writes all of `bytes` at `at`, durably.
fn write_through(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwritev2(file, &[IoSlice::new(bytes)], at, ReadWriteFlags::DSYNC) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                file.write_all_at(bytes, at)?;
                return Ok(rustix::fs::fdatasync(file)?);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

impl Map for MappedFile {
    fn len(&self) -> usize {
        self.map.len()
    }

    fn store(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.map.len() && bytes.len() <= self.map.len() - at, "stored beyond the end of the map");
        if !self.stage(at, bytes) {
            self.copy(at, bytes);
        }
    }

    fn publish(&mut self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8) && at + 8 <= self.map.len(), "published across a word or beyond the end");
        if self.stage(at, &word.to_le_bytes()) {
            return;
        }
        // SAFETY: the eight bytes are inside the mapping and aligned (asserted above; a mapping begins at a page), and
        // nobody holds a reference to them, as in `store`.
        let cell = unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(at).cast()) };
        cell.store(word.to_le(), Ordering::Release);
    }

    fn sync(&mut self, _from: usize, _to: usize) -> io::Result<()> {
        if std::mem::take(&mut self.through_map) {
            return Ok(rustix::fs::fdatasync(&self.file)?);
        }
        self.touch_end();
        write_through(&self.file, &self.staged, self.staged_at as u64)?;
        self.staged.clear();
        Ok(())
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
