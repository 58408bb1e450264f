//! TRUNC: takes back the end of a history, log and snapshots.
//!
//! Snapshots that are newer than the new end go before the log is cut, so a crash never leaves one that holds what the
//! log has taken back (fault model C-12, S27). Until the log is cut, the old history is whole without them.
//!
//! Runs on: the thread that has the log.

use super::{Dirs, is_damage, remove_snapshots};
use crate::disk::Disk;
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::{Log, TruncateError};
use crate::snapshot::{self, snapshot_path};

/// Removes everything above `to`, durably: snapshots, then records. `to` must be a record of the log, or what the log
/// begins behind; and the state at `to` must be there to be rebuilt: from a snapshot at or below `to`, which is read and
/// checked, or from the first transaction on. Otherwise `NotHeld` or `NoSnapshot`, and nothing has been changed; nor has the
/// history where the place of the cut is damaged (`Unreadable`), but snapshots that are newer may be gone.
///
/// Afterwards the caller builds the tree anew from the disk.
pub fn truncate<D: Disk>(disk: &D, dirs: &Dirs, log: &mut Log<D>, to: Zxid) -> Result<(), TruncateError> {
    log.sync()?;
    let (oldest, last) = (log.oldest(), log.last_zxid());
    if !log.view().reaches(to) {
        return Err(TruncateError::NotHeld { to, oldest, last });
    }
    if oldest > Zxid::ZERO && !has_snapshot(disk, dirs, oldest, to)? {
        return Err(TruncateError::NoSnapshot { to });
    }
    remove_snapshots(disk, &dirs.snapshots, |zxid| zxid > to)?;
    match log.truncate(to) {
        Err(TruncateError::Unreadable { problem, .. }) if !is_damage(&problem) => Err(problem.into()),
        other => other,
    }
}

/// Whether there is a sound snapshot in `oldest..=to`.
fn has_snapshot<D: Disk>(disk: &D, dirs: &Dirs, oldest: Zxid, to: Zxid) -> Result<bool, Fatal> {
    for zxid in snapshot::list(disk, &dirs.snapshots)?.into_iter().filter(|zxid| (oldest..=to).contains(zxid)) {
        match snapshot::verify(disk, &snapshot_path(&dirs.snapshots, zxid)) {
            Ok(_) => return Ok(true),
            Err(fatal) if is_damage(&fatal) || matches!(fatal, Fatal::OtherVersion { .. }) => {
                tracing::error!("{fatal}; looking for an older snapshot");
            }
            Err(fatal) => return Err(fatal),
        }
    }
    Ok(false)
}
