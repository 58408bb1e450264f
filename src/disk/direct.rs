//! Input and output past the page cache (`O_DIRECT`), which spares a copy of each byte, the pages that would hold it, and the
//! search for dirty ones at each sync.
//!
//! Whoever goes this way moves whole blocks between page-aligned memory and aligned places of the file. A file system that
//! can't do it says so at once, or refuses the first call; then the page cache is used, and nothing but time is lost.
//!
//! Runs on: any thread.

use super::BACKGROUND_BYTES;
use memmap2::MmapMut;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What is moved is a multiple of this, at a multiple of this; no disk has larger sectors.
pub const BLOCK: usize = 4096;

/// Aligned as memory that goes past the page cache has to be.
#[repr(align(4096))]
pub struct Blocks(pub [u8; BACKGROUND_BYTES]);

pub static ZEROS: Blocks = Blocks([0; BACKGROUND_BYTES]);

/// The beginning of the block that `at` is in.
pub fn block_of(at: usize) -> usize {
    at & !(BLOCK - 1)
}

/// Memory that begins at a page, of zeros; it takes room only where it is written.
pub fn aligned(bytes: usize) -> io::Result<MmapMut> {
    MmapMut::map_anon(bytes)
}

/// From here on reads and writes of this open file go past the page cache, or not. `false`: the file system can't.
pub fn set(file: &File, direct: bool) -> bool {
    let Ok(flags) = fcntl_getfl(file) else { return false };
    let flags = if direct { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
    fcntl_setfl(file, flags).is_ok()
}

/// Writes zeros to `from..to`, whole blocks past the page cache. Not synced. `false`: they have to be written otherwise.
pub fn zero(file: &File, from: u64, to: u64) -> io::Result<bool> {
    const STEP: u64 = BACKGROUND_BYTES as u64;
    let whole = from.is_multiple_of(BLOCK as u64) && to.is_multiple_of(BLOCK as u64);
    if !whole || to < from + STEP || !set(file, true) {
        return Ok(false);
    }
    let mut at = from;
    let mut done = Ok(true);
    while at < to {
        let step = (to - at).min(STEP);
        match file.write_all_at(&ZEROS.0[..step as usize], at) {
            Ok(()) => at += step,
            // The file system has larger sectors, or only seemed to know it.
            Err(error) => {
                done = if error.kind() == io::ErrorKind::InvalidInput { Ok(false) } else { Err(error) };
                break;
            }
        }
    }
    if !set(file, false) {
        return Err(io::Error::other("the file can't be used through the page cache any more"));
    }
    done
}
