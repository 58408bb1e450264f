//! Snapshots: the tree and the sessions at one zxid, in a file, so that a log need not be kept and replayed for ever.
//!
//! `SnapshotWriter` writes one from a frozen image while the server goes on; `load_newest` reads the newest sound one
//! back; `Keeper` says which may go. The format is our own (docs/snapshot-format.md): blocks under checksums, read by
//! several threads. A name in the directory stands for a whole snapshot, and a digest in it that does not depend on
//! order or on slots lets two servers compare theirs.
//!
//! Leaves to the caller: freezing at the right moment with the sessions of that moment; replaying the log from the
//! snapshot's zxid on, and noticing that it doesn't reach back that far; purging the log, up to `Kept::oldest` only.
//!
//! Runs on: the snapshotter; loading on the starting thread and helpers that are gone when it returns.

mod format;
mod load;
mod write;
pub mod zookeeper;

pub use format::{SessionRecord, SnapshotInfo};
pub use load::{Loaded, Newest, list, load, load_newest, verify};
pub use write::SnapshotWriter;

use crate::disk::{self, Disk};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// A snapshot that isn't finished. Whatever it holds, it is no snapshot.
const TMP_NAME: &str = "snap.tmp";
/// Not ZooKeeper's "snapshot.": the two must not be mistaken for each other.
const PREFIX: &str = "snap.";

/// The file of the snapshot at a zxid.
pub fn snapshot_path(dir: &Path, zxid: Zxid) -> PathBuf {
    dir.join(format!("{PREFIX}{:016x}", zxid.0))
}

/// The dual of `snapshot_path`: `None` for every other name, however similar.
pub fn snapshot_zxid(name: &str) -> Option<Zxid> {
    let digits = name.strip_prefix(PREFIX)?;
    let canonical = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if canonical { u64::from_str_radix(digits, 16).ok().map(Zxid) } else { None }
}

/// Whether a snapshot, finished or not, has this name.
pub fn is_snapshot_file(name: &str) -> bool {
    name == TMP_NAME || snapshot_zxid(name).is_some()
}

/// Removes what a crash has left of an unfinished snapshot. What can't be removed now is written over by the next one.
pub fn discard_unfinished<D: Disk>(disk: &D, dir: &Path) {
    let _ = disk.remove(&dir.join(TMP_NAME));
}

/// What a purge left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The oldest snapshot that is kept: the log is needed from here on. `None` if nothing may be purged, of the log
    /// either.
    pub oldest: Option<Zxid>,
    /// How many snapshots were removed.
    pub removed: usize,
    /// Damaged ones that are newer than the oldest kept. They stay, for whoever wants to look at them.
    pub damaged: Vec<Zxid>,
}

/// Which snapshots of a directory may go.
///
/// Remembers which ones it has read from end to end: reading gigabytes again for every purge would be too much.
pub struct Keeper<D: Disk> {
    disk: D,
    dir: PathBuf,
    verified: BTreeSet<Zxid>,
    /// Those that made no tree. All of their checksums may be right.
    damaged: BTreeSet<Zxid>,
}

impl<D: Disk> Keeper<D> {
    pub fn new(disk: D, dir: &Path) -> Keeper<D> {
        Keeper { disk, dir: dir.to_owned(), verified: BTreeSet::new(), damaged: BTreeSet::new() }
    }

    /// Where they are.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Counts a snapshot that has just been loaded as read.
    pub fn loaded(&mut self, zxid: Zxid) {
        self.verified.insert(zxid);
    }

    /// A snapshot could not be loaded: it never counts, whatever its checksums say.
    pub fn not_loaded(&mut self, zxid: Zxid) {
        self.damaged.insert(zxid);
    }

    /// Another file has this snapshot's name now, and nobody has read it yet.
    pub fn written(&mut self, zxid: Zxid) {
        self.verified.remove(&zxid);
        self.damaged.remove(&zxid);
    }

    /// What was read before counts no more: one that was sound then has been found damaged, or the files may be others.
    pub fn doubt(&mut self) {
        self.verified.clear();
    }

    /// Removes the snapshots that are older than the newest `keep` sound ones, oldest first. A snapshot is sound when it
    /// was read, not when it has a name; with fewer than `keep` of them nothing is removed (fault model S26).
    pub fn purge(&mut self, keep: usize) -> Result<Kept, Fatal> {
        assert!(keep > 0, "the last snapshot is never purged");
        let all = list(&self.disk, &self.dir)?;
        let (mut sound, mut damaged) = (0, Vec::new());
        let mut oldest = None;
        for (at, &zxid) in all.iter().enumerate() {
            match self.is_sound(zxid)? {
                Some(true) => {}
                Some(false) => {
                    damaged.push(zxid);
                    continue;
                }
                None => continue,
            }
            sound += 1;
            if sound == keep {
                oldest = Some((at, zxid));
                break;
            }
        }
        let Some((at, oldest)) = oldest else { return Ok(Kept { oldest: None, removed: 0, damaged }) };
        let (gone, mut removed) = (&all[at + 1..], 0);
        for &zxid in gone.iter().rev() {
            let path = snapshot_path(&self.dir, zxid);
            match self.disk.remove(&path) {
                // Reading the newer ones takes long, and an operator may have wanted the room sooner.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(disk::fatal(&path, 0, error)),
                Ok(()) => removed += 1,
            }
            self.verified.remove(&zxid);
            self.damaged.remove(&zxid);
        }
        if !gone.is_empty() {
            self.disk.sync_dir(&self.dir).map_err(|error| disk::sync_failed(&self.dir, error))?;
        }
        Ok(Kept { oldest: Some(oldest), removed, damaged })
    }

    /// `None` if somebody else has taken it away.
    fn is_sound(&mut self, zxid: Zxid) -> Result<Option<bool>, Fatal> {
        if self.damaged.contains(&zxid) {
            return Ok(Some(false));
        }
        if self.verified.contains(&zxid) {
            return Ok(Some(true));
        }
        match verify(&self.disk, &snapshot_path(&self.dir, zxid)) {
            Ok(_) => {
                self.verified.insert(zxid);
                Ok(Some(true))
            }
            Err(Fatal::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(Fatal::SnapshotCorrupt { .. } | Fatal::OtherVersion { .. } | Fatal::Io { .. }) => Ok(Some(false)),
            Err(fatal) => Err(fatal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_names_are_snapshots() {
        let path = snapshot_path(Path::new("/d"), Zxid(0x1_0000_00ff));
        assert_eq!(path, Path::new("/d/snap.00000001000000ff"));
        assert_eq!(snapshot_zxid("snap.00000001000000ff"), Some(Zxid(0x1_0000_00ff)));
        for name in
            ["snap.tmp", "snap.ff", "snap.00000001000000FF", "snap.+0000001000000ff", "snapshot.00000001000000ff"]
        {
            assert_eq!(snapshot_zxid(name), None, "{name}");
        }
    }
}
