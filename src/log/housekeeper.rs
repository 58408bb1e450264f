//! The log's work that takes long and that nobody should wait for: making the next segment, taking old ones away.
//!
//! Writing 64 MiB of zeros and syncing them takes longer than a thousand writes. So the next segment is made while the
//! present one fills, by a helper thread. If the writer gets there first, it waits for the helper or does the work
//! itself; the lock between them sees to it that a segment is made once.
//!
//! A segment gets its name only when it is zeros from end to end, durably, and its name is durable before the writer
//! sees it: no acknowledged write may live in a file whose name could be lost. Purged segments are kept for reuse;
//! what they held is overwritten with zeros before they come back, so that no old record can follow a new one.
//!
//! Runs on: a helper; the log writer where it has to wait.

use super::Sizes;
use super::segment::{PREPARING, recycled_number, recycled_path, segment_path};
use super::view::{Index, LogView};
use super::writer::Opened;
use crate::disk::{self, Disk, File, Map};
use crate::fatal::Fatal;
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Purged segments that are kept for reuse. One is in use while one waits.
const RECYCLED_MAX: usize = 2;

/// A handle on the log's slow work. Clones work on the same log.
pub struct Housekeeper<D: Disk> {
    shared: Arc<Shared<D>>,
}

pub(super) struct Shared<D: Disk> {
    pub disk: D,
    pub dir: PathBuf,
    pub sizes: Sizes,
    slot: Mutex<Slot<D>>,
    /// Held by whoever takes files of the log away; behind `slot`, where both are. Taking one away may wait for the disk long:
    /// the writer, who needs the next segment, must not wait with it.
    files: Mutex<()>,
    /// For readers. Never held across I/O, nor while the slot is waited for.
    pub index: Mutex<Index>,
}

/// What is ready for the writer.
struct Slot<D: Disk> {
    /// Number of the next segment.
    next: u64,
    prepared: Option<D::Map>,
}

/// Segments that the log no longer counts as its own; their files are still there until `run`.
#[must_use = "the files are still there"]
pub struct Purge<D: Disk> {
    shared: Arc<Shared<D>>,
    numbers: Vec<u64>,
}

impl<D: Disk> Clone for Housekeeper<D> {
    fn clone(&self) -> Self {
        Housekeeper { shared: self.shared.clone() }
    }
}

impl<D: Disk> Housekeeper<D> {
    /// For a log whose next segment has the number `next`, which may have been prepared already.
    pub(super) fn new(disk: D, dir: PathBuf, sizes: Sizes, next: u64, prepared: Option<D::Map>) -> Housekeeper<D> {
        let slot = Mutex::new(Slot { next, prepared });
        Housekeeper {
            shared: Arc::new(Shared { disk, dir, sizes, slot, files: Mutex::default(), index: Mutex::default() }),
        }
    }

    /// Makes the next segment, unless it is there. Takes as long as writing and syncing a segment does.
    ///
    /// `Fatal::DiskFull` is no reason to stop yet: the present segment may have room for hours.
    pub fn prepare_next(&self) -> Result<(), Fatal> {
        let mut slot = self.shared.slot.lock();
        if slot.prepared.is_none() {
            slot.prepared = Some(self.shared.prepare(slot.next, self.shared.sizes.of(slot.next))?);
        }
        Ok(())
    }

    /// The next segment, with at least `min_bytes`: the prepared one, or one made now.
    pub(super) fn take(&self, min_bytes: u64) -> Result<(u64, D::Map), Fatal> {
        let mut slot = self.shared.slot.lock();
        let number = slot.next;
        let map = match slot.prepared.take() {
            Some(map) if map.len() as u64 >= min_bytes => map,
            // A prepared one that is too small is replaced under its name.
            _ => self.shared.prepare(number, self.shared.sizes.of(number).max(min_bytes))?,
        };
        slot.next += 1;
        Ok((number, map))
    }

    /// Whether the next segment is ready, and its size.
    pub(super) fn prepared_bytes(&self) -> Option<u64> {
        // A helper that is at work holds the lock for long; then nothing is ready yet.
        self.shared.slot.try_lock()?.prepared.as_ref().map(|map| map.len() as u64)
    }

    pub(super) fn purge(&self, numbers: Vec<u64>) -> Purge<D> {
        Purge { shared: self.shared.clone(), numbers }
    }

    /// Lets `change` have the files of the log to itself: nothing is prepared or purged meanwhile, and what had been
    /// prepared is let go first. It is given the number that the next segment would have had.
    pub(super) fn exclusively(
        &self,
        change: impl FnOnce(&Shared<D>, u64) -> Result<Opened<D>, Fatal>,
    ) -> Result<Opened<D>, Fatal> {
        let mut slot = self.shared.slot.lock();
        let _files = self.shared.files.lock();
        slot.prepared = None;
        let mut opened = change(&self.shared, slot.next)?;
        *slot = Slot { next: opened.live.number + 1, prepared: opened.prepared.take() };
        Ok(opened)
    }

    /// What readers go by.
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.shared.index.lock()
    }

    pub(super) fn view(&self) -> LogView<D> {
        LogView { shared: self.shared.clone() }
    }

    pub(super) fn disk(&self) -> &D {
        &self.shared.disk
    }

    pub(super) fn shared(&self) -> &Shared<D> {
        &self.shared
    }

    pub(super) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    pub(super) fn sizes(&self) -> Sizes {
        self.shared.sizes
    }
}

impl<D: Disk> Shared<D> {
    /// Makes a segment of zeros, durably.
    pub fn prepare(&self, number: u64, bytes: u64) -> Result<D::Map, Fatal> {
        let tmp = self.dir.join(PREPARING);
        let mut file = match self.reuse(&tmp, bytes)? {
            Some(file) => file,
            None => self.disk.create(&tmp, bytes).map_err(|e| disk::fatal(&tmp, bytes, e))?,
        };
        file.sync().map_err(|e| disk::sync_failed(&tmp, e))?;
        let path = segment_path(&self.dir, number);
        self.disk.rename(&tmp, &path).map_err(|e| disk::fatal(&path, bytes, e))?;
        self.disk.sync_dir(&self.dir).map_err(|e| disk::sync_failed(&self.dir, e))?;
        self.disk.map(file).map_err(|e| disk::fatal(&path, bytes, e))
    }

    /// A purged segment of the right size, filled with zeros and called `tmp`; not synced.
    fn reuse(&self, tmp: &Path, bytes: u64) -> Result<Option<D::File>, Fatal> {
        let names = self.disk.list(&self.dir).map_err(|e| disk::fatal(&self.dir, 0, e))?;
        for number in names.iter().filter_map(|name| recycled_number(name)) {
            let path = recycled_path(&self.dir, number);
            let io = |e| disk::fatal(&path, bytes, e);
            let mut file = match self.disk.open(&path) {
                // Somebody's who keeps us from writing to it, or a copy's: a file that nothing needs is no reason to stop.
                Err(error) if is_useless(&error) => {
                    self.discard(&path);
                    continue;
                }
                // That it can't be opened now says nothing of it.
                Err(error) => {
                    if error.kind() != ErrorKind::NotFound {
                        tracing::warn!("{}: can't be used again now: {error}", path.display());
                    }
                    continue;
                }
                Ok(file) if file.is_shared() => {
                    self.discard(&path);
                    continue;
                }
                Ok(file) => file,
            };
            if file.len().map_err(io)? != bytes {
                continue;
            }
            self.disk.rename(&path, tmp).map_err(io)?;
            // The name under which it was part of the log may still be the durable one: a purge is under way, perhaps.
            self.disk.sync_dir(&self.dir).map_err(|error| disk::sync_failed(&self.dir, error))?;
            file.zero(0, bytes).map_err(io)?;
            return Ok(Some(file));
        }
        Ok(None)
    }

    /// Takes a purged segment away that can't be used again.
    fn discard(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path) {
            tracing::warn!("{}: can neither be used again nor removed: {error}", path.display());
        }
    }
}

/// Whether an error says that a purged segment is of no use to this server: another user's, or no file at all.
fn is_useless(error: &std::io::Error) -> bool {
    let is_link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    is_link || matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput)
}

impl<D: Disk> Purge<D> {
    /// Number of segments.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Takes the files away, oldest first, so that a crash on the way leaves a log without a gap: a few are renamed for
    /// reuse, the others removed, and those that a cursor is reading or that somebody else has or owns.
    pub fn run(self) -> Result<(), Fatal> {
        let Shared { disk, dir, sizes, files, index, .. } = &*self.shared;
        let names = disk.list(dir).map_err(|e| disk::fatal(dir, 0, e))?;
        let mut kept = names.iter().filter(|name| recycled_number(name).is_some()).count();
        for &number in &self.numbers {
            // `prepare` may be at work: it takes a file for reuse away at most, and then one is kept less than could be.
            let held = files.lock();
            let path = segment_path(dir, number);
            let io = |e| disk::fatal(&path, 0, e);
            let bytes = match disk.open_to_read(&path) {
                Ok(file) => file.len().map_err(io)?,
                // A truncation or another history came first.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(io(error)),
            };
            let right_size = bytes == sizes.segment;
            // The log has let go of it, so nobody begins to read it now; who has begun goes on in a file without a name.
            let is_read = index.lock().is_read(number);
            // What is used again is written over: it has to be ours, and nobody else's too. (A copy of a directory may be links.)
            let is_ours = || disk.open(&path).is_ok_and(|file| !file.is_shared());
            if right_size && kept < RECYCLED_MAX && !is_read && is_ours() {
                disk.rename(&path, &recycled_path(dir, number)).map_err(io)?;
                kept += 1;
            } else {
                disk.remove(&path).map_err(io)?;
            }
            // Between two of them, or the disk may lose the younger name and keep the older.
            disk.sync_dir(dir).map_err(|e| disk::sync_failed(dir, e))?;
            // Whoever changes the history comes between two files, and not behind all of them.
            MutexGuard::unlock_fair(held);
        }
        Ok(())
    }
}
