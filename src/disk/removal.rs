//! Takes files away without holding up the disk for everyone else.
//!
//! A large file whose last name goes gives all its blocks back in one step. Where the file system tells the disk about it at
//! once (`discard`), other files' syncs wait until the disk is through: 60 to 130 ms for 140 MB, where steps of `STEP` let
//! them in after 3. So a large file first loses its name, and then, if nobody else has it in any way, its end, step by step.
//!
//! Runs on: any thread; the removal as a whole takes half as long again.

#![allow(unsafe_code)]

use super::real::open_regular;
use nix::errno::Errno;
use nix::libc::{F_GETLEASE, F_SETLEASE, F_UNLCK, F_WRLCK, SIGURG, c_int, fcntl};
use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes given back at a time.
const STEP: u64 = 1 << 20;

/// Takes the name away, and the file with it if that was its last.
///
/// Whoever has the file open, mapped or under another name keeps all of it. `rest` is called after each step.
pub fn remove(path: &Path, rest: impl Fn()) -> io::Result<()> {
    // What can't be opened like this may still lose its name; and the error of that is the one to tell.
    let large = open_regular(path, OpenOptions::new().read(true).write(true))
        .ok()
        .filter(|file| file.metadata().is_ok_and(|found| found.len() > STEP));
    remove_file(path)?;
    if let Some(file) = large {
        shrink(&file, rest);
    }
    Ok(())
}

/// The name is gone: what fails here leaves to the last close what it would have done anyway.
fn shrink(file: &File, rest: impl Fn()) {
    let Ok(found) = file.metadata() else { return };
    if found.nlink() != 0 || !tells_all_openers(file) || !take_lease(file) {
        return;
    }
    let mut len = found.len();
    while len > 0 && has_lease(file) {
        len = len.saturating_sub(STEP);
        if file.set_len(len).is_err() {
            return;
        }
        rest();
    }
}

/// Whether a file that is open here has another name, or is open elsewhere as far as the kernel says.
pub fn is_shared(file: &File) -> bool {
    if file.metadata().is_ok_and(|found| found.nlink() > 1) {
        return true;
    }
    if !tells_all_openers(file) {
        return false;
    }
    // Who has no right to a lease learns nothing.
    let taken = take_lease(file);
    let shared = !taken && Errno::last() == Errno::EAGAIN;
    if taken {
        // Who opens it from here on finds a name of ours.
        // SAFETY: the call has a number for an argument, and the descriptor is open as long as `file` is borrowed.
        unsafe { fcntl(file.as_raw_fd(), F_SETLEASE, F_UNLCK) };
    }
    shared
}

/// Whether the kernel knows of everyone who has the file open. It doesn't where the files are another kernel's, or another
/// file system's below this one.
fn tells_all_openers(file: &File) -> bool {
    // As statfs(2) numbers them: ext4, XFS, Btrfs, F2FS, tmpfs.
    const LOCAL: [u64; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x0102_1994];
    rustix::fs::fstatfs(file).is_ok_and(|found| LOCAL.contains(&(found.f_type as u64)))
}

/// A lease for writing: given if this is the only open file, in this process or another, that the bytes are reached through
/// (a map counts as one), and given back by the close. Whoever has found the file by its name before that went, and opens it
/// only now, waits until then, and `has_lease` says so.
fn take_lease(file: &File) -> bool {
    // The signal that tells of such a one ends a process, but for this, which is ignored. As in all of Linux; the library
    // leaves it out.
    const F_SETSIG: c_int = 10;
    // SAFETY: both calls have a number for an argument, and the descriptor is open as long as `file` is borrowed.
    unsafe { fcntl(file.as_raw_fd(), F_SETSIG, SIGURG) == 0 && fcntl(file.as_raw_fd(), F_SETLEASE, F_WRLCK) == 0 }
}

/// Whether nobody wants the file.
fn has_lease(file: &File) -> bool {
    // SAFETY: the call has no argument, and the descriptor is open as long as `file` is borrowed.
    unsafe { fcntl(file.as_raw_fd(), F_GETLEASE) == F_WRLCK }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::FileExt;

    const LEN: usize = 5 * STEP as usize / 2;

    fn large(path: &Path) -> Vec<u8> {
        let bytes: Vec<u8> = (0..LEN).map(|at| (at / 4096 % 251) as u8 + 1).collect();
        fs::write(path, &bytes).unwrap();
        bytes
    }

    #[test]
    fn a_file_of_any_length_is_gone_and_a_missing_one_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for len in [0, 1, STEP, STEP + 1, LEN as u64] {
            File::create(&path).unwrap().set_len(len).unwrap();
            remove(&path, || ()).unwrap();
            assert!(!path.exists(), "{len}");
        }
        assert_eq!(remove(&path, || ()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_with_another_name_keeps_its_bytes_under_that() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("backup"));
        let bytes = large(&path);
        fs::hard_link(&path, &other).unwrap();
        remove(&path, || ()).unwrap();
        assert!(fs::read(&other).unwrap() == bytes);
        // Its last name.
        remove(&other, || ()).unwrap();
        assert!(!other.exists());
    }

    #[test]
    fn who_has_the_file_open_or_mapped_reads_it_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes = large(&path);
        let reader = File::open(&path).unwrap();
        remove(&path, || ()).unwrap();
        let mut found = vec![0; LEN];
        reader.read_exact_at(&mut found, 0).unwrap();
        assert!(found == bytes);

        let bytes = large(&path);
        let writer = OpenOptions::new().write(true).read(true).open(&path).unwrap();
        remove(&path, || ()).unwrap();
        writer.read_exact_at(&mut found, 0).unwrap();
        assert!(found == bytes);

        let bytes = large(&path);
        let file = File::open(&path).unwrap();
        // SAFETY: nobody else knows of this file. That `remove` doesn't cut it is what is tested.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        drop(file);
        remove(&path, || ()).unwrap();
        assert!(map[..] == bytes[..]);
    }

    #[test]
    fn a_file_with_another_name_or_a_reader_is_shared() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("backup"));
        large(&path);
        let file = open_regular(&path, OpenOptions::new().read(true).write(true)).unwrap();
        // Twice: nothing of the question stays.
        assert!(!is_shared(&file) && !is_shared(&file));
        fs::hard_link(&path, &other).unwrap();
        assert!(is_shared(&file));
        fs::remove_file(&other).unwrap();
        assert!(!is_shared(&file));
        let reader = File::open(&path).unwrap();
        assert!(is_shared(&file) || !tells_all_openers(&file));
        drop(reader);
        assert!(!is_shared(&file));
    }

    #[test]
    fn a_file_that_nobody_else_has_is_given_back_in_steps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        large(&path);
        let file = open_regular(&path, OpenOptions::new().read(true).write(true)).unwrap();
        // With a name it stays whole, whoever has it.
        shrink(&file, || ());
        assert_eq!(file.metadata().unwrap().len(), LEN as u64);
        let reader = File::open(&path).unwrap();
        remove_file(&path).unwrap();
        shrink(&file, || ());
        assert_eq!(file.metadata().unwrap().len(), LEN as u64);
        drop(reader);
        // A file system that can't tell leaves the file whole for the last close.
        let left = if tells_all_openers(&file) { 0 } else { LEN as u64 };
        shrink(&file, || ());
        assert_eq!(file.metadata().unwrap().len(), left);
    }

    /// Also without the signal that ends a process.
    #[test]
    fn who_comes_while_it_is_given_back_ends_that() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        large(&path);
        let file = open_regular(&path, OpenOptions::new().read(true).write(true)).unwrap();
        if !tells_all_openers(&file) {
            return;
        }
        remove_file(&path).unwrap();
        let steps = std::cell::Cell::new(0);
        shrink(&file, || {
            steps.set(steps.get() + 1);
            // By a way that needs no name; it does not wait.
            let other = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
            use std::os::unix::fs::OpenOptionsExt;
            let refused = OpenOptions::new().read(true).custom_flags(flags).open(other).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        });
        assert_eq!(steps.get(), 1);
        assert_eq!(file.metadata().unwrap().len(), LEN as u64 - STEP);
    }

    #[test]
    fn a_link_loses_its_name_and_what_it_points_to_keeps_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        let bytes = large(&path);
        std::os::unix::fs::symlink(&path, &link).unwrap();
        remove(&link, || ()).unwrap();
        assert!(fs::symlink_metadata(&link).is_err());
        assert!(fs::read(&path).unwrap() == bytes);
    }
}
