//! The real disk: files as Linux gives them.
//!
//! A name in the data directory may be anything (a link, a pipe, a device), put there by a backup script or by someone
//! with a purpose. So files are opened without following links, and only regular ones.
//!
//! Runs on: any thread.

use super::direct::{self, BLOCK, ZEROS};
use super::mapped::MappedFile;
use super::{Disk, File, fatal, removal};
use crate::fatal::Fatal;
use memmap2::MmapMut;
use parking_lot::Mutex;
use rustix::fs::{Access, Advice, FallocateFlags, FlockOperation, OFlags};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The name of the lock file in a locked directory.
pub const LOCK_FILE: &str = "ostler.lock";

/// The operating system's files.
#[derive(Clone, Copy, Default, Debug)]
pub struct RealDisk;

/// An open regular file.
pub struct RealFile {
    file: fs::File,
    /// What goes past the page cache, once that was asked for.
    window: Option<Mutex<Window>>,
}

/// A piece of a file on its way past the page cache, in memory that the disk can use.
struct Window {
    blocks: MmapMut,
    /// Where in the file what was read last begins, and its length.
    at: u64,
    len: usize,
}

impl RealFile {
    fn new(file: fs::File) -> RealFile {
        RealFile { file, window: None }
    }

    /// Writes the whole blocks that `bytes` begins with past the page cache; how many bytes they were.
    fn write_blocks(&self, window: &mut Window, at: u64, bytes: &[u8]) -> io::Result<usize> {
        window.len = 0;
        let mut written = 0;
        while at.is_multiple_of(BLOCK as u64) && bytes.len() - written >= BLOCK {
            let count = direct::block_of((bytes.len() - written).min(window.blocks.len()));
            window.blocks[..count].copy_from_slice(&bytes[written..written + count]);
            self.file.write_all_at(&window.blocks[..count], at + written as u64)?;
            written += count;
        }
        Ok(written)
    }

    /// As `read_at`, by whole blocks past the page cache; who reads on finds in the window what comes next.
    fn read_blocks(&self, window: &mut Window, mut at: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            if at < window.at || at >= window.at + window.len as u64 {
                window.at = at / BLOCK as u64 * BLOCK as u64;
                window.len = 0;
                window.len = self.file.read_at(&mut window.blocks, window.at)?;
            }
            let skip = (at - window.at) as usize;
            let count = window.len.saturating_sub(skip).min(into.len());
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            into[..count].copy_from_slice(&window.blocks[skip..skip + count]);
            into = &mut into[count..];
            at += count as u64;
        }
        Ok(())
    }
}

/// The lock of a directory: released by the kernel when the process ends, however it ends.
pub struct DirLock {
    _file: fs::File,
}

impl Disk for RealDisk {
    type File = RealFile;
    type Map = MappedFile;
    type Lock = DirLock;

    fn create(&self, path: &Path, len: u64) -> io::Result<RealFile> {
        let file = open_regular(path, OpenOptions::new().read(true).write(true).create(true).truncate(true))?;
        if let Err(error) = fill(&file, len) {
            // A half-filled file would keep the room that someone needs to get out of here.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(RealFile::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<RealFile> {
        open_regular(path, OpenOptions::new().read(true).write(true)).map(RealFile::new)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<RealFile> {
        open_regular(path, OpenOptions::new().read(true)).map(RealFile::new)
    }

    fn map(&self, file: RealFile) -> io::Result<MappedFile> {
        MappedFile::new(file.file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        removal::remove(path, || ())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
            self.create_dir(above)?;
        }
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(fs::File::open(dir)?)?)
    }

    fn lock(&self, dir: &Path) -> Result<DirLock, Fatal> {
        let path = dir.join(LOCK_FILE);
        let io = |source| fatal(&path, 0, source);
        // A directory in which no file can be made is of no use, whatever the disk is like.
        let mut file = open_regular(&path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .map_err(|source| match source.kind() {
                // The file may be somebody else's in a directory of our own.
                io::ErrorKind::PermissionDenied if rustix::fs::access(dir, Access::WRITE_OK).is_ok() => io(source),
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory => Fatal::DataDir { dir: dir.to_owned(), source },
                _ => io(source),
            })?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = [0; 16];
                let count = file.read_at(&mut text, 0).unwrap_or(0);
                let pid = std::str::from_utf8(&text[..count]).ok().and_then(|text| text.trim().parse().ok());
                return Err(Fatal::DataDirLocked { dir: dir.to_owned(), holder_pid: pid.unwrap_or(0) });
            }
            Err(errno) => return Err(io(errno.into())),
        }
        file.set_len(0).map_err(io)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io)?;
        Ok(DirLock { _file: file })
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        if let Some(window) = &self.window {
            match self.read_blocks(&mut window.lock(), at, into) {
                // Not on this file system, after all.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && direct::set(&self.file, false) => {}
                other => return other,
            }
        }
        self.file.read_exact_at(into, at)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(window) = &self.window else { return self.file.write_all_at(bytes, at) };
        let written = match self.write_blocks(&mut window.lock(), at, bytes) {
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
            // Not on this file system, after all; or what is left is no whole block.
            Err(_) => 0,
            Ok(written) if written == bytes.len() => return Ok(()),
            Ok(written) => written,
        };
        if !direct::set(&self.file, false) {
            return Err(io::Error::other("the file can't be used through the page cache any more"));
        }
        self.window = None;
        self.file.write_all_at(&bytes[written..], at + written as u64)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn zero(&mut self, from: u64, to: u64) -> io::Result<()> {
        zero(&self.file, from, to)
    }

    fn is_shared(&self) -> bool {
        removal::is_shared(&self.file)
    }

    fn forget_cached(&self) {
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    fn bypass_cache(&mut self, piece: usize) {
        match direct::aligned(piece.next_multiple_of(BLOCK)) {
            Ok(blocks) if direct::set(&self.file, true) => {
                self.window = Some(Mutex::new(Window { blocks, at: 0, len: 0 }));
            }
            _ => self.forget_cached(),
        }
    }
}

pub(super) fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<fs::File> {
    // NONBLOCK, or opening a pipe would wait for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = options.custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// Reserves `len` bytes and writes them through: reserved alone, an extent is "unwritten" and the first sync after each
/// store would have to change that, which is metadata.
fn fill(file: &fs::File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        // A file system that can't reserve still takes the room when the zeros are written.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(errno) => return Err(errno.into()),
    }
    zero(file, 0, len)
}

fn zero(file: &fs::File, from: u64, to: u64) -> io::Result<()> {
    if direct::zero(file, from, to)? {
        return Ok(());
    }
    let mut at = from;
    while at < to {
        let step = (to - at).min(ZEROS.0.len() as u64);
        file.write_all_at(&ZEROS.0[..step as usize], at)?;
        at += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether or not the file system can do it.
    #[test]
    fn a_file_past_the_page_cache_has_what_was_written_and_ends_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut file = RealDisk.create(&path, 0).unwrap();
        file.bypass_cache(1 << 18);
        file.write_at(0, &bytes[..1 << 20]).unwrap();
        file.write_at(1 << 20, &bytes[1 << 20..]).unwrap();
        file.sync().unwrap();
        assert!(fs::read(&path).unwrap() == bytes);

        let mut file = RealDisk.open(&path).unwrap();
        file.bypass_cache(1 << 17);
        for (at, len) in [(0, 5), (3, 4093), (4000, 200), (1 << 20, 70_000), (7, 2_999_993), (2_999_999, 1)] {
            let mut found = vec![0; len];
            file.read_at(at as u64, &mut found).unwrap();
            assert!(found == bytes[at..at + len], "{len} bytes at {at}");
        }
        let beyond = file.read_at(2_999_999, &mut [0; 2]).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(file.read_at(4_000_000, &mut [0]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn zeros_are_written_where_they_belong_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (from, to) in [(4096, 8 << 20), (5000, 7_000_000), (100, 100), (4096, 8192)] {
            fs::write(&path, vec![7; 8 << 20]).unwrap();
            let mut file = RealDisk.open(&path).unwrap();
            file.zero(from, to).unwrap();
            // Through the page cache again.
            file.write_at(1, b"x").unwrap();
            let mut expected = vec![7; 8 << 20];
            expected[from as usize..to as usize].fill(0);
            expected[1] = b'x';
            assert!(fs::read(&path).unwrap() == expected, "{from}..{to}");
        }
    }
}
