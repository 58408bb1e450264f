//! Takes files away without holding up the disk for everyone else.
//!
//! A large file whose last name goes gives all its blocks back in one step. Where the file system tells the disk about it at
//! once (`discard`), other files' syncs wait until the disk is through: 60 to 130 ms for 140 MB, where steps of `STEP` let
//! them in after 3. So a large file first loses its name, and then, if nobody else has it in any way, its end, step by step.
//!
//! Runs on: any thread; the removal as a whole takes half as long again.

#![allow(unsafe_code)]

use super::real::open_regular;
use nix::libc::{F_SETLEASE, F_UNLCK, F_WRLCK, fcntl};
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
    if found.nlink() != 0 || !is_ours_alone(file) {
        return;
    }
    let mut len = found.len();
    while len > 0 {
        len = len.saturating_sub(STEP);
        if file.set_len(len).is_err() {
            return;
        }
        rest();
    }
}

/// Whether this is the only open file, in this process or another, that the bytes are reached through; a map counts as one.
///
/// A lease for writing is given under just this condition. It is given back at once: as long as it is held, who opens
/// the file would wait for us and we would get a signal, and nobody finds a file without a name.
fn is_ours_alone(file: &File) -> bool {
    // SAFETY: both calls have a number for an argument, and the descriptor is open as long as `file` is borrowed.
    unsafe { fcntl(file.as_raw_fd(), F_SETLEASE, F_WRLCK) == 0 && fcntl(file.as_raw_fd(), F_SETLEASE, F_UNLCK) == 0 }
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
        // A file system without leases never tells, and then the file stays whole for the last close.
        let left = if is_ours_alone(&file) { 0 } else { LEN as u64 };
        shrink(&file, || ());
        assert_eq!(file.metadata().unwrap().len(), left);
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
