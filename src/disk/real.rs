//! The real disk: files as Linux gives them.
//!
//! A name in the data directory may be anything (a link, a pipe, a device), put there by a backup script or by someone
//! with a purpose. So files are opened without following links, and only regular ones.
//!
//! Runs on: any thread.

use super::mapped::MappedFile;
use super::{Disk, File, fatal};
use crate::fatal::Fatal;
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The name of the lock file in a locked directory.
pub const LOCK_FILE: &str = "ostler.lock";

static ZEROS: [u8; 1 << 18] = [0; 1 << 18];

/// The operating system's files.
#[derive(Clone, Copy, Default, Debug)]
pub struct RealDisk;

/// An open regular file.
pub struct RealFile(fs::File);

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
        Ok(RealFile(file))
    }

    fn open(&self, path: &Path) -> io::Result<RealFile> {
        open_regular(path, OpenOptions::new().read(true).write(true)).map(RealFile)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<RealFile> {
        open_regular(path, OpenOptions::new().read(true)).map(RealFile)
    }

    fn map(&self, file: RealFile) -> io::Result<MappedFile> {
        MappedFile::new(file.0)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
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
        let mut file =
            open_regular(&path, OpenOptions::new().read(true).write(true).create(true).truncate(false)).map_err(io)?;
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
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, at)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn forget_cached(&self) {
        let _ = rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed);
    }
}

fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<fs::File> {
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
    let mut at = 0;
    while at < len {
        let step = (len - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..step as usize], at)?;
        at += step;
    }
    Ok(())
}
