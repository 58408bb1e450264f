//! The seam under log and snapshots: the files of one server, and nothing else of the operating system.
//!
//! What a disk does to a file when the power fails can't be provoked with real files, and killing a process proves
//! nothing about it: the pages survive. So the code that must survive it, recovery above all, runs over this trait, and
//! `sim` is a disk that forgets, tears, flips and lies on command. Whatever is in the trait has to be simulated with
//! its failures; so there is little in it: no flags, no seek, no append position.
//!
//! Promises of every implementation: a file made by `create` has its space before anyone writes to it, so a store into
//! its map never meets a full disk. `sync` on a file covers its bytes and its length, not its name: the name is covered
//! by `sync_dir`. What no sync has covered may be kept, lost or kept in part.
//!
//! Leaves to the caller: never to go on after a sync has failed (the kernel forgets the failure and the data).
//!
//! Runs on: any thread; a `Disk` is a handle that can be cloned.

mod direct;
mod mapped;
pub mod note;
mod quiet;
mod real;
mod removal;
pub mod sim;

pub use quiet::{Hurry, QuietDisk};
pub use real::RealDisk;

use crate::fatal::Fatal;
use rustix::io::Errno;
use std::io;
use std::path::Path;

/// The unit in which a disk writes all or nothing, and the only one that recovery relies on.
pub const SECTOR: usize = 512;

/// Bytes given to the disk at a time by whoever nobody waits for. A disk works off what it is given in turn, so the log's next
/// group waits behind one such piece (docs/log-format.md has the times).
pub const BACKGROUND_BYTES: usize = 128 << 10;

/// Whether an error says that bytes of a file are lost: what file systems and, where reads go past the page cache, block devices
/// have for sectors that can't be read and for wrong checksums (Linux: `blk_status_to_errno`).
pub fn says_lost(error: &io::Error) -> bool {
    let lost = [Errno::IO, Errno::NODATA, Errno::REMOTEIO, Errno::ILSEQ, Errno::UCLEAN, Errno::BADMSG];
    lost.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A file system, as far as log and snapshots need one.
pub trait Disk: Clone + Send + Sync + 'static {
    type File: File;
    type Map: Map;
    /// Holds the lock of a directory until it is dropped.
    type Lock: Send;
    /// Bytes of a large file that are read or written at a time.
    const PIECE_BYTES: usize = 1 << 20;
    /// Bytes of a large file that are written between two syncs of it: one sync of gigabytes would hold up all others.
    const SYNC_BYTES: u64 = 16 << 20;

    /// Makes an empty file, in place of one that has this name, and fills it with `len` zeros: reserved first, then
    /// written, so that a later sync of stores into it carries no change of metadata. Nothing is synced.
    ///
    /// A full disk is an error of kind `StorageFull`; the file is gone again then.
    fn create(&self, path: &Path, len: u64) -> io::Result<Self::File>;

    /// Opens a regular file for reading and writing. Follows no symbolic link; anything but a regular file is an error
    /// of kind `InvalidInput`.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens a regular file that is only read, perhaps on a file system that takes no writes.
    fn open_to_read(&self, path: &Path) -> io::Result<Self::File> {
        self.open(path)
    }

    /// Maps the whole file for stores. The length of the file must not change while it is mapped.
    fn map(&self, file: Self::File) -> io::Result<Self::Map>;

    /// Gives `from` the name `to`, in place of a file that had it. Durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes the name away. Durable after `sync_dir`. Whoever has the file open, mapped or under another name keeps its bytes.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of everything in a directory, sorted. Names that are not UTF-8 are left out: none of ours is.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory and the missing ones above it, durably.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes every create, rename and remove in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a directory for this process; `Fatal::DataDirLocked` with the holder's pid if someone else has it, `Fatal::DataDir`
    /// where it can't be written or is none.
    fn lock(&self, dir: &Path) -> Result<Self::Lock, Fatal>;
}

/// An open file. Reads and writes say where; there is no position.
#[expect(clippy::len_without_is_empty, reason = "no one asks whether a file is empty")]
pub trait File: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills `into` from `at`, or fails: `UnexpectedEof` beyond the end.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `at`; the file grows if it has to.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Durable on `Ok`. After `Err` the state of the file is unknown and the caller stops the server.
    fn sync(&mut self) -> io::Result<()>;

    /// Writes zeros to `from..to`; the file grows if it has to.
    fn zero(&mut self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; to.saturating_sub(from).min(1 << 18) as usize];
        let mut at = from;
        while at < to {
            let step = (to - at).min(zeros.len() as u64);
            self.write_at(at, &zeros[..step as usize])?;
            at += step;
        }
        Ok(())
    }

    /// Whether somebody else would see what is written: the file has another name, or is open elsewhere, as far as can be told.
    fn is_shared(&self) -> bool {
        false
    }

    /// Makes the next reads come from the disk and not from memory, as far as that can be had: after a failed sync of
    /// an earlier process the memory may hold what the disk never got. Dirty pages stay.
    fn forget_cached(&self);

    /// Makes all reads from here on come from the disk, and writes go there, in pieces of at most `piece` bytes, and leaves
    /// the memory of what is cached to others, as far as that can be had. For a file that is read once, to see whether it is
    /// sound, or written from its beginning to its end in whole blocks, with what is left at the end in one piece.
    fn bypass_cache(&mut self, _piece: usize) {
        self.forget_cached();
    }
}

/// A mapped file, as its only writer sees it. There is no way to read it: recovery reads through `File`, where a bad
/// sector is an error and not a signal.
#[expect(clippy::len_without_is_empty, reason = "a map of nothing is never made")]
pub trait Map: Send {
    /// Length in bytes; that of the file when it was mapped.
    fn len(&self) -> usize;

    /// Copies `bytes` to `at`; in the file, for other readers too, at the next `sync` at the latest. What no sync has covered
    /// may be lost with the process, as with the power. Panics beyond the end: the caller reserves room first.
    fn store(&mut self, at: usize, bytes: &[u8]);

    /// Stores one little-endian word at `at` (a multiple of 8) in one piece and after everything stored before it, so
    /// that a process killed at any moment leaves either all that the word announces or no word.
    fn publish(&mut self, at: usize, word: u64);

    /// Durable on `Ok` for everything stored in `from..to`. After `Err` nothing that this map says can be trusted.
    fn sync(&mut self, from: usize, to: usize) -> io::Result<()>;
}

/// Replaces a small file so that a reader finds the old bytes or the new ones whole, whatever happens on the way:
/// content durable before the name, name durable before the return.
///
/// The bytes go through `<name>.tmp` in the same directory; a `.tmp` that is left behind means nothing.
pub fn replace_file<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> Result<(), Fatal> {
    let tmp = path.with_extension("tmp");
    let mut file = disk.create(&tmp, bytes.len() as u64).map_err(|e| fatal(&tmp, bytes.len() as u64, e))?;
    file.write_at(0, bytes).map_err(|e| fatal(&tmp, bytes.len() as u64, e))?;
    file.sync().map_err(|e| sync_failed(&tmp, e))?;
    disk.rename(&tmp, path).map_err(|e| fatal(path, 0, e))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(dir).map_err(|e| sync_failed(dir, e))
}

/// Reads a whole file of at most `limit` bytes; a longer one is an error of kind `InvalidData`.
pub fn read_whole<F: File>(file: &F, limit: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{len} bytes where at most {limit} belong")));
    }
    let mut bytes = vec![0; len as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// The reason to stop that an error of create, write, read, open or rename is. `needed` is the room that was asked for.
pub fn fatal(path: &Path, needed: u64, source: io::Error) -> Fatal {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Fatal::DiskFull { path: path.to_owned(), needed, source }
        }
        _ => Fatal::Io { file: path.to_owned(), source },
    }
}

/// The reason to stop that an error of any sync is.
pub fn sync_failed(path: &Path, source: io::Error) -> Fatal {
    Fatal::SyncFailed { file: path.to_owned(), source }
}
