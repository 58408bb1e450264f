//! Snapshots and log in two directories (`dataLogDir`): one changed line of the configuration, and the server sees only one half
//! of its history, or none of it and starts empty.
//!
//! Two things show it. A file of one kind in the other kind's directory, as ZooKeeper looks for it too: there `dataLogDir` was
//! added. And a file beside the snapshots that names the directory of the log, as long as that is another one: there was a
//! log, so one without a file of ours is the wrong one. Neither snapshots nor transactions need to be there for that.
//!
//! The name in the file is for whoever reads the message. It is not compared: a log may be moved, and the configuration with it.
//!
//! Leaves to the caller: to look before anything is taken for an empty directory, and to leave the file when the log is there
//! and before anything in it is acknowledged. Take-overs that are not finished are done again, and need no log.
//!
//! Runs on: the starting thread, or a command's; the caller holds the locks of both directories.

use super::{Dirs, FUZZY, QUARANTINE};
use crate::disk::{self, Disk, note};
use crate::fatal::Fatal;
use crate::log::epochs::EPOCHS;
use crate::log::is_log_file;
use crate::snapshot::snapshot_zxid;
use std::io;
use std::path::{Path, PathBuf};

/// Beside the snapshots: where the log is, if it is elsewhere.
pub const LOG_DIRECTORY: &str = "log-directory";

const FIRST_LINE: &str =
    "ostler: the log that belongs to the snapshots in this directory is in another one (dataLogDir):";
/// A path has at most 4 KiB.
const BYTES_MAX: u64 = 16 << 10;

/// An error if there is a file of the log beside the snapshots, or a snapshot beside the log, of a server that keeps them apart.
pub fn refuse_misplaced<D: Disk>(disk: &D, dirs: &Dirs) -> Result<(), Fatal> {
    if dirs.log == dirs.snapshots {
        return Ok(());
    }
    let refuse = |dir: &Path, name: &str, what: &str, both: bool| {
        let mut problem = format!(
            "{what}, and the configuration has snapshots in {} and the log in {} (dataDir, dataLogDir)",
            dirs.snapshots.display(),
            dirs.log.display()
        );
        if both {
            problem += ". There are such files where they belong, too: those that the server used last go on (the newer ones), \
                        and the others have to go somewhere else, never over files of the same name";
        }
        Err(Fatal::OtherDirectory { file: dir.join(name), problem })
    };
    let snapshot = |dir: &Path| Ok(list(disk, dir)?.into_iter().find(|name| snapshot_zxid(name).is_some()));
    if let Some(name) = log_files(disk, &dirs.snapshots)?.first() {
        let both = !log_files(disk, &dirs.log)?.is_empty();
        return refuse(&dirs.snapshots, name, "this file belongs to a log", both);
    }
    match snapshot(&dirs.log)? {
        Some(name) => refuse(&dirs.log, &name, "this is a snapshot", snapshot(&dirs.snapshots)?.is_some()),
        None => Ok(()),
    }
}

/// An error if the log was in another directory than the snapshots', and is not where it should be now.
pub fn refuse_absent_log<D: Disk>(disk: &D, dirs: &Dirs) -> Result<(), Fatal> {
    let Some(was) = absent_log(disk, dirs)? else { return Ok(()) };
    let problem = format!(
        "the log was in {was} when this server ran last, and {}, where the configuration has it (dataLogDir), has none: it may \
         not be mounted. Only if that log is lost for good, remove this file, on one member of an ensemble at a time",
        dirs.log.display()
    );
    Err(Fatal::OtherDirectory { file: note_path(dirs), problem })
}

/// Where the log was when the server ran last, if it was in another directory than the snapshots' and is not where `dirs` has it.
pub fn absent_log<D: Disk>(disk: &D, dirs: &Dirs) -> Result<Option<String>, Fatal> {
    let Some(text) = read(disk, &note_path(dirs))? else { return Ok(None) };
    if !log_files(disk, &dirs.log)?.is_empty() {
        return Ok(None);
    }
    Ok(Some(text.lines().nth(1).filter(|line| !line.is_empty()).unwrap_or("another directory").to_owned()))
}

/// Leaves beside the snapshots where the log is, durably; nothing, where it is beside them.
pub fn note_log_directory<D: Disk>(disk: &D, dirs: &Dirs) -> Result<(), Fatal> {
    let path = note_path(dirs);
    let there = read(disk, &path)?;
    if dirs.log == dirs.snapshots {
        return if there.is_some() { note::remove(disk, &path) } else { Ok(()) };
    }
    // The configuration may have a name that means something only where the server was started.
    let log = std::path::absolute(&dirs.log).unwrap_or_else(|_| dirs.log.clone());
    let text = format!("{FIRST_LINE}\n{}\n", log.display());
    if there.as_ref() == Some(&text) { Ok(()) } else { disk::replace_file(disk, &path, text.as_bytes()) }
}

fn note_path(dirs: &Dirs) -> PathBuf {
    dirs.snapshots.join(LOG_DIRECTORY)
}

/// What the note says; of one that was written over, something: that it is there is what counts.
fn read<D: Disk>(disk: &D, path: &Path) -> Result<Option<String>, Fatal> {
    let read = disk.open_to_read(path).and_then(|file| disk::read_whole(&file, BYTES_MAX));
    match read {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(String::new())),
        Err(error) => Err(disk::fatal(path, 0, error)),
    }
}

/// Names of what a server of ours keeps beside its log.
fn log_files<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<String>, Fatal> {
    let mut names = list(disk, dir)?;
    names.retain(|name| is_log_file(name) || [EPOCHS, QUARANTINE, FUZZY].contains(&name.as_str()));
    Ok(names)
}

fn list<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<String>, Fatal> {
    disk.list(dir).map_err(|source| Fatal::DataDir { dir: dir.to_owned(), source })
}
