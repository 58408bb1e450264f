//! What concerns the snapshots and the log of a server together: they are one history, and change as one.
//!
//! A server alone only ever appends to its history. One of an ensemble may have to take back its end (TRUNC), or give all
//! of it for a snapshot of the leader's (SNAP). Then files in two directories change, and a crash may come between any two
//! of them; after it, there must be the old history or the new one. Each change is written down in a note before it
//! begins (`disk::note`), and `resume` finishes or undoes what a crash has interrupted.
//!
//! Leaves to the caller: the tree and the sessions; that no snapshot is begun or purged while a history changes; the
//! epochs, in the order of the fault model's R1 (history, then current epoch, then the acknowledgement).
//!
//! Runs on: the starting thread; the thread that has the log.

mod apart;
mod fuzzy;
mod install;
mod quarantine;
mod truncate;

pub use apart::{LOG_DIRECTORY, absent_log, note_log_directory, refuse_absent_log, refuse_misplaced};
pub use fuzzy::{FUZZY, may_be_fuzzy, refuse_fuzzy, settle};
pub use install::Install;
pub use quarantine::{QUARANTINE, Quarantine, is_damage, quarantine, quarantined, recover, recover_alone, release};
pub use truncate::truncate;

use crate::disk::{self, Disk};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::{Sizes, inspect};
use crate::snapshot;
use std::io;
use std::path::{Path, PathBuf};

/// Where a server keeps its history: `dataDir` and `dataLogDir`, which may be one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dirs {
    pub snapshots: PathBuf,
    pub log: PathBuf,
}

impl Dirs {
    /// Where the epochs are: beside the log.
    pub fn epochs(&self) -> &Path {
        &self.log
    }
}

/// Finishes or undoes what a crash has interrupted. Before anything of the history is read, snapshots too; both
/// directories exist and are locked. Does nothing after an orderly end. `Fatal::Unfinished` if an operator's cut was
/// interrupted, which only its command can finish.
pub fn resume<D: Disk>(disk: &D, dirs: &Dirs, sizes: Sizes) -> Result<(), Fatal> {
    // A full disk may need the room for what follows.
    snapshot::discard_unfinished(disk, &dirs.snapshots);
    quarantine::resume_setting_aside(disk, dirs, sizes)?;
    // A history that is half cut may look damaged, snapshots beside it too old or too new.
    inspect::refuse_unfinished_cut(disk, &dirs.log)?;
    install::resume(disk, dirs, sizes)
}

/// Removes the snapshots that are not wanted, newest first, durably.
fn remove_snapshots<D: Disk>(disk: &D, dir: &Path, is_unwanted: impl Fn(Zxid) -> bool) -> Result<(), Fatal> {
    let mut removed = false;
    for zxid in snapshot::list(disk, dir)?.into_iter().filter(|&zxid| is_unwanted(zxid)) {
        let path = snapshot::snapshot_path(dir, zxid);
        match disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk::fatal(&path, 0, error)),
            _ => removed = true,
        }
    }
    if removed { disk.sync_dir(dir).map_err(|e| disk::sync_failed(dir, e)) } else { Ok(()) }
}
