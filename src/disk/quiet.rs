//! The real disk for work that nobody waits for: it rests after each piece, so that whoever is waited for finds disk and
//! processor free most of the time.
//!
//! Small pieces alone are not enough. A disk at work all the time makes each of the log's groups wait for the piece under
//! way; and on a virtual machine whose processor time is limited the host's part in it counts, until the whole machine is
//! stopped for the rest of its period (docs/performance-history.md, row 7).
//!
//! Runs on: the snapshotter. Others may set `Hurry`.

use super::mapped::MappedFile;
use super::real::{DirLock, RealFile};
use super::{BACKGROUND_BYTES, Disk, File, RealDisk, removal};
use crate::clock::{self, Now};
use crate::fatal::Fatal;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Rests for so many times as long as it worked.
const REST: u32 = 4;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(50);
/// Less work than this is made up for later: a shorter rest would cost more than it gives.
const WORK_MIN: Duration = Duration::from_micros(200);

/// `RealDisk`, at rest most of the time. A clone rests together with the one it was made of.
#[derive(Clone, Default)]
pub struct QuietDisk {
    inner: RealDisk,
    pace: Arc<Pace>,
}

/// Why work that nobody waits for is to be done soon after all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hurry {
    /// Somebody waits for its end.
    Awaited,
    /// What it takes memory for comes to be much.
    Room,
}

impl Hurry {
    const COUNT: usize = 2;
}

#[derive(Default)]
struct Pace {
    state: Mutex<State>,
    hurried: Condvar,
}

#[derive(Default)]
struct State {
    /// Why there is no rest now.
    hurry: [bool; Hurry::COUNT],
    /// When the last rest ended. Work since then, on the disk and between two calls, is what the next one makes up for.
    rested: Now,
}

impl Pace {
    /// After each piece of work.
    fn rest(&self) {
        let mut state = self.state.lock();
        if let Some(rest) = rest_after(clock::now().since(state.rested)) {
            self.wait(&mut state, rest);
            state.rested = clock::now();
        }
    }

    /// Until the time is over or there is a hurry. Returns whether there is one.
    fn wait(&self, state: &mut MutexGuard<'_, State>, rest: Duration) -> bool {
        !self.hurried.wait_while_for(state, |state| !state.hurry.contains(&true), rest).timed_out()
    }

    /// What was done until now is not made up for.
    fn begin(&self) {
        self.state.lock().rested = clock::now();
    }
}

/// `None`: not yet.
fn rest_after(worked: Duration) -> Option<Duration> {
    (worked >= WORK_MIN).then(|| worked.saturating_mul(REST).min(REST_MAX))
}

impl QuietDisk {
    /// From here on there is no rest, and the one under way ends; or there is again, but for the other reason.
    pub fn set_hurry(&self, why: Hurry, hurry: bool) {
        self.pace.state.lock().hurry[why as usize] = hurry;
        self.pace.hurried.notify_all();
    }

    fn file(&self, inner: RealFile) -> QuietFile {
        self.pace.begin();
        QuietFile { inner, pace: self.pace.clone() }
    }
}

impl Disk for QuietDisk {
    type File = QuietFile;
    type Map = MappedFile;
    type Lock = DirLock;
    const PIECE_BYTES: usize = BACKGROUND_BYTES;
    // The log's next sync may have to wait for as much to reach the disk.
    const SYNC_BYTES: u64 = 1 << 20;

    fn create(&self, path: &Path, len: u64) -> io::Result<QuietFile> {
        self.inner.create(path, len).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<QuietFile> {
        self.inner.open(path).map(|file| self.file(file))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<QuietFile> {
        self.inner.open_to_read(path).map(|file| self.file(file))
    }

    fn map(&self, file: QuietFile) -> io::Result<MappedFile> {
        self.inner.map(file.inner)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pace.begin();
        removal::remove(path, || self.pace.rest())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> Result<DirLock, Fatal> {
        self.inner.lock(dir)
    }
}

/// A file of a `QuietDisk`.
pub struct QuietFile {
    inner: RealFile,
    pace: Arc<Pace>,
}

impl QuietFile {
    fn then_rest<T>(&self, done: T) -> T {
        self.pace.rest();
        done
    }
}

impl File for QuietFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.then_rest(self.inner.read_at(at, into))
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let written = self.inner.write_at(at, bytes);
        self.then_rest(written)
    }

    fn sync(&mut self) -> io::Result<()> {
        let synced = self.inner.sync();
        self.then_rest(synced)
    }

    fn zero(&mut self, from: u64, to: u64) -> io::Result<()> {
        let done = self.inner.zero(from, to);
        self.then_rest(done)
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn forget_cached(&self) {
        self.inner.forget_cached();
    }

    fn bypass_cache(&mut self, piece: usize) {
        self.inner.bypass_cache(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_a_multiple_of_the_work_and_neither_tiny_nor_long() {
        assert_eq!(rest_after(Duration::ZERO), None);
        assert_eq!(rest_after(WORK_MIN - Duration::from_nanos(1)), None);
        assert_eq!(rest_after(WORK_MIN), Some(WORK_MIN * REST));
        assert_eq!(rest_after(Duration::from_millis(3)), Some(Duration::from_millis(12)));
        assert_eq!(rest_after(Duration::MAX), Some(REST_MAX));
    }

    #[test]
    fn a_rest_ends_when_somebody_begins_to_wait() {
        for why in [Hurry::Awaited, Hurry::Room] {
            let disk = QuietDisk::default();
            let (began, begun) = std::sync::mpsc::channel();
            let pace = disk.pace.clone();
            let resting = std::thread::spawn(move || {
                let mut state = pace.state.lock();
                // Whoever hears it and gets the lock finds this one at rest.
                began.send(()).unwrap();
                let hurried = pace.wait(&mut state, Duration::from_secs(60));
                hurried && pace.wait(&mut state, Duration::from_secs(60))
            });
            begun.recv().unwrap();
            disk.set_hurry(why, true);
            assert!(resting.join().unwrap(), "{why:?}");
            disk.set_hurry(why, false);
            assert!(!disk.pace.wait(&mut disk.pace.state.lock(), Duration::from_millis(1)), "there is a rest again");
        }
    }

    /// What it does is what the real disk does.
    #[test]
    fn files_are_those_of_the_real_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        let disk = QuietDisk::default();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for hurry in [false, true] {
            disk.set_hurry(Hurry::Awaited, hurry);
            let mut file = disk.create(&path, 0).unwrap();
            file.bypass_cache(1 << 20);
            file.write_at(0, &bytes).unwrap();
            file.sync().unwrap();
            drop(file);
            disk.rename(&path, &other).unwrap();
            disk.sync_dir(folder.path()).unwrap();
            let mut found = vec![0; bytes.len()];
            RealDisk.open(&other).unwrap().read_at(0, &mut found).unwrap();
            assert!(found == bytes);
            disk.open_to_read(&other).unwrap().read_at(7, &mut found[7..]).unwrap();
            assert!(found == bytes);
            assert_eq!(disk.list(folder.path()).unwrap(), ["other"]);
            disk.remove(&other).unwrap();
            assert!(disk.list(folder.path()).unwrap().is_empty());
        }
    }
}
