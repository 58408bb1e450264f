//! SNAP: a snapshot of the leader's takes the place of this server's whole history.
//!
//! The snapshot is written under its final name beside the old ones, while a note says that it does not count yet. When it
//! is whole and durable, the note is replaced by one that says that nothing else counts: that is the moment of the change.
//! Then another note says that the snapshot may be fuzzy, old snapshots and the old log go, a log begins behind the snapshot,
//! and the first note goes. A start that finds the
//! first note removes the snapshot; one that finds the second does the rest. Nothing precious is ever renamed.
//!
//! A snapshot of the same zxid may be there already. It is the same state (a zxid is one transaction with one history
//! before it), so the new one may replace it, and undoing leaves whichever is there.
//!
//! The note (`disk::note`, magic "OSTLRINS"): zxid u64, number of the new log's first segment u64, then one byte: 0 the
//! snapshot does not count and is removed; 1 it does not count but was there before; 2 nothing else counts.
//!
//! Runs on: the thread that has the log; the starting thread.

use super::{Dirs, fuzzy, remove_snapshots};
use crate::disk::{Disk, note};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::{self, INSTALL, Log, Sizes};
use crate::snapshot::{self, SnapshotInfo, snapshot_path};
use std::path::PathBuf;

const MAGIC: [u8; 8] = *b"OSTLRINS";
const ENCODED: usize = 17;

/// A snapshot that is being received. The old history counts until `commit`; after a drop or a crash, `abandon` or
/// `resume` clears up.
#[must_use = "a note is on the disk"]
pub struct Install<D: Disk> {
    disk: D,
    dirs: Dirs,
    note: Note,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The old history counts.
    Writing { was_there: bool },
    /// The snapshot counts.
    Replacing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Note {
    zxid: Zxid,
    first_segment: u64,
    stage: Stage,
}

impl<D: Disk> Install<D> {
    /// Notes that a snapshot at `zxid` is coming. It is then written with a `SnapshotWriter` into the snapshots' directory;
    /// no other snapshot is begun and none is purged until the end.
    pub fn begin(disk: D, dirs: &Dirs, log: &Log<D>, zxid: Zxid) -> Result<Install<D>, Fatal> {
        let was_there = snapshot::list(&disk, &dirs.snapshots)?.contains(&zxid);
        let note = Note { zxid, first_segment: log.next_number(), stage: Stage::Writing { was_there } };
        note.store(&disk, dirs)?;
        Ok(Install { disk, dirs: dirs.clone(), note })
    }

    /// Checks the snapshot, which is written and durable, and makes it this server's history: on `Ok` there is nothing else,
    /// and the log is empty and takes what comes after the snapshot. Cursors of the old log are told.
    ///
    /// Until `settle` the snapshot may be fuzzy.
    ///
    /// A snapshot that is damaged or missing is given up, and the old history counts. After any other error (the disk's) the
    /// server stops; the next start finds one of the two.
    pub fn commit(mut self, log: &mut Log<D>) -> Result<SnapshotInfo, Fatal> {
        let zxid = self.note.zxid;
        let info = match snapshot::verify(&self.disk, &snapshot_path(&self.dirs.snapshots, zxid)) {
            Ok(info) => info,
            Err(fatal) => {
                self.abandon()?;
                return Err(fatal);
            }
        };
        self.note = Note { first_segment: log.next_number(), stage: Stage::Replacing, ..self.note };
        self.note.store(&self.disk, &self.dirs)?;
        tracing::info!("the snapshot at zxid {zxid} takes the place of the history up to {}", log.last_zxid());
        fuzzy::mark(&self.disk, &self.dirs, zxid)?;
        remove_snapshots(&self.disk, &self.dirs.snapshots, |other| other != zxid)?;
        log.restart(zxid, self.note.first_segment)?;
        note::remove(&self.disk, &note_path(&self.dirs))?;
        Ok(info)
    }

    /// Gives the snapshot up. The old history is what it was.
    pub fn abandon(self) -> Result<(), Fatal> {
        self.note.undo(&self.disk, &self.dirs)
    }
}

/// Finishes or undoes an install that a crash has interrupted.
pub(super) fn resume<D: Disk>(disk: &D, dirs: &Dirs, sizes: Sizes) -> Result<(), Fatal> {
    let Some(note) = Note::load(disk, dirs)? else { return Ok(()) };
    let zxid = note.zxid;
    if note.stage != Stage::Replacing {
        tracing::info!("a snapshot at zxid {zxid} was not received to its end; the history is what it was");
        return note.undo(disk, dirs);
    }
    tracing::info!("going on to put the snapshot at zxid {zxid} in the place of the history before it");
    fuzzy::mark(disk, dirs, zxid)?;
    remove_snapshots(disk, &dirs.snapshots, |other| other != zxid)?;
    log::clear(disk, &dirs.log)?;
    drop(Log::create_from(disk.clone(), &dirs.log, zxid, sizes, note.first_segment)?);
    note::remove(disk, &note_path(dirs))
}

fn note_path(dirs: &Dirs) -> PathBuf {
    dirs.log.join(INSTALL)
}

impl Note {
    fn undo<D: Disk>(&self, disk: &D, dirs: &Dirs) -> Result<(), Fatal> {
        if self.stage == (Stage::Writing { was_there: false }) {
            remove_snapshots(disk, &dirs.snapshots, |zxid| zxid == self.zxid)?;
        }
        note::remove(disk, &note_path(dirs))
    }

    fn store<D: Disk>(&self, disk: &D, dirs: &Dirs) -> Result<(), Fatal> {
        let mut body = [0; ENCODED];
        body[..8].copy_from_slice(&self.zxid.0.to_le_bytes());
        body[8..16].copy_from_slice(&self.first_segment.to_le_bytes());
        body[16] = match self.stage {
            Stage::Writing { was_there: false } => 0,
            Stage::Writing { was_there: true } => 1,
            Stage::Replacing => 2,
        };
        note::store(disk, &note_path(dirs), MAGIC, &body)
    }

    fn load<D: Disk>(disk: &D, dirs: &Dirs) -> Result<Option<Note>, Fatal> {
        let path = note_path(dirs);
        let Some(body) = note::load(disk, &path, MAGIC)? else { return Ok(None) };
        let body: [u8; ENCODED] = body.try_into().map_err(|_| note::damaged(&path))?;
        let long = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        let stage = match body[16] {
            0 => Stage::Writing { was_there: false },
            1 => Stage::Writing { was_there: true },
            2 => Stage::Replacing,
            _ => return Err(note::damaged(&path)),
        };
        Ok(Some(Note { zxid: Zxid(long(0)), first_segment: long(8), stage }))
    }
}
