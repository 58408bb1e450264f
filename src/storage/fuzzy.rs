//! A leader's snapshot that may be *fuzzy*: a leader of ZooKeeper goes on while it sends one, so changes behind the snapshot's
//! zxid may be in it. Together with the records that such a leader sends before it lets its learner serve, it is right; without
//! them it is the state of no transaction, and digests that don't fit are no damage.
//!
//! Which of the two it is must be known after a restart, too. So a note says that the snapshot of this zxid is still without
//! what belongs to it: written before the snapshot counts for good, removed when the learner has all of its leader's history
//! (`settle`). Nothing tells a leader's kind, so it is written for exact ones as well.
//!
//! The note (`disk::note`, magic "OSTLRFUZ"): zxid u64. One that is damaged is taken for one of any snapshot.
//!
//! Runs on: the thread that has the log; the starting thread.

use super::Dirs;
use crate::disk::{Disk, note};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use std::io;
use std::path::PathBuf;

/// Beside the log: the snapshot that has not been completed.
pub const FUZZY: &str = "fuzzy";

const MAGIC: [u8; 8] = *b"OSTLRFUZ";

/// Notes that the snapshot at `zxid` may be fuzzy, durably.
pub(super) fn mark<D: Disk>(disk: &D, dirs: &Dirs, zxid: Zxid) -> Result<(), Fatal> {
    note::store(disk, &note_path(dirs), MAGIC, &zxid.0.to_le_bytes())
}

/// Whether the snapshot at `zxid` may be fuzzy, and not all that belongs to it is known to be here.
pub fn may_be_fuzzy<D: Disk>(disk: &D, dirs: &Dirs, zxid: Zxid) -> Result<bool, Fatal> {
    match note::load(disk, &note_path(dirs), MAGIC) {
        Ok(None) => Ok(false),
        Ok(Some(body)) => Ok(body.len() != 8 || body == zxid.0.to_le_bytes()),
        Err(Fatal::LogCorrupt { .. }) => Ok(true),
        Err(fatal) => Err(fatal),
    }
}

/// All that belongs to the snapshot is here, durably. Nothing happens if there is no note.
pub fn settle<D: Disk>(disk: &D, dirs: &Dirs) -> Result<(), Fatal> {
    let path = note_path(dirs);
    match disk.open_to_read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => note::remove(disk, &path),
    }
}

/// For a server that is alone, whose snapshot may be fuzzy and whose log did not show that it is right.
pub fn refuse_fuzzy(dirs: &Dirs) -> Result<(), Fatal> {
    let problem = "as a member of an ensemble this server was given its leader's state, and did not get all that belongs to it: \
                   what it has may be the state of no transaction. Start it as a member once more, until it follows. Only if the \
                   ensemble is lost for good, remove this file"
        .to_owned();
    Err(Fatal::Unfinished { file: note_path(dirs), problem })
}

fn note_path(dirs: &Dirs) -> PathBuf {
    dirs.log.join(FUZZY)
}
