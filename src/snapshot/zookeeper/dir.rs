//! Which files of a directory are ZooKeeper's, and the two epochs of a member of an ensemble (disk-formats 1 and 5).
//!
//! Runs on: whoever starts, imports or inspects; the directory is nobody's meanwhile.

use super::compress::Compression;
use crate::disk::{self, Disk};
use crate::fatal::Fatal;
use crate::ids::{Epoch, Zxid};
use crate::log::epochs::Epochs;
use std::io;
use std::path::{Path, PathBuf};

/// The newest epoch whose history the server has made its own.
pub(super) const CURRENT_EPOCH: &str = "currentEpoch";
/// What `CURRENT_EPOCH` was about to become.
const CURRENT_EPOCH_TMP: &str = "currentEpoch.tmp";
/// The newest epoch that it has promised to follow.
pub(super) const ACCEPTED_EPOCH: &str = "acceptedEpoch";

/// A snapshot file, by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotName {
    pub path: PathBuf,
    pub zxid: Zxid,
    pub compression: Compression,
}

/// A log file, by its name: the zxid of its first record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogName {
    pub path: PathBuf,
    pub first: Zxid,
}

/// ZooKeeper's files of one server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// Newest first.
    pub snapshots: Vec<SnapshotName>,
    /// Oldest first.
    pub logs: Vec<LogName>,
    /// Snapshots that were never finished (`*.tmp`).
    pub unfinished: Vec<PathBuf>,
}

impl Files {
    /// Lists the two directories, which may be one. A directory that isn't there is empty.
    ///
    /// A log among the snapshots of a server that keeps them apart, or the other way round, is an error as in ZooKeeper:
    /// nobody knows which of two histories is meant.
    pub fn list<D: Disk>(disk: &D, snapshot_dir: &Path, log_dir: &Path) -> Result<Files, Fatal> {
        let mut files = Files::default();
        for (dir, wrong) in [(snapshot_dir, "log"), (log_dir, "snapshot")] {
            let names = match disk.list(dir) {
                Ok(names) => names,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(source) => return Err(Fatal::DataDir { dir: dir.to_owned(), source }),
            };
            for name in names {
                let Some((kind, zxid, rest)) = split(&name) else { continue };
                let path = dir.join(&name);
                if snapshot_dir != log_dir && kind == wrong {
                    let problem = format!("a {kind} in the directory of the other kind (dataDir, dataLogDir)");
                    return Err(Fatal::ZooKeeperData { file: path, offset: 0, last_good: Zxid::ZERO, problem });
                }
                match (kind, rest) {
                    ("log", None) if dir == log_dir => files.logs.push(LogName { path, first: zxid }),
                    ("snapshot", Some("tmp")) if dir == snapshot_dir => files.unfinished.push(path),
                    ("snapshot", rest) if dir == snapshot_dir => {
                        let compression = match rest {
                            None => Compression::Plain,
                            Some("gz") => Compression::Gzip,
                            Some("snappy") => Compression::Snappy,
                            Some(_) => continue,
                        };
                        files.snapshots.push(SnapshotName { path, zxid, compression });
                    }
                    _ => {}
                }
            }
            if snapshot_dir == log_dir {
                break;
            }
        }
        files.snapshots.sort_by(|a, b| b.zxid.cmp(&a.zxid).then_with(|| a.path.cmp(&b.path)));
        files.logs.sort_by(|a, b| a.first.cmp(&b.first).then_with(|| a.path.cmp(&b.path)));
        Ok(files)
    }

    /// Whether there is neither a snapshot nor a log.
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.logs.is_empty()
    }

    /// All paths but those of unfinished snapshots.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let snapshots = self.snapshots.iter().map(|snapshot| snapshot.path.as_path());
        snapshots.chain(self.logs.iter().map(|log| log.path.as_path()))
    }
}

/// Kind, zxid and whatever follows of a name that ZooKeeper takes for its own.
fn split(name: &str) -> Option<(&str, Zxid, Option<&str>)> {
    let mut parts = name.splitn(3, '.');
    let kind = parts.next().filter(|kind| matches!(*kind, "snapshot" | "log"))?;
    let digits = parts.next().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    Some((kind, Zxid(u64::from_str_radix(digits, 16).ok()?), parts.next()))
}

/// The name of a snapshot.
pub(super) fn snapshot_name(zxid: Zxid, compression: Compression) -> String {
    format!("snapshot.{:x}{}", zxid.0, compression.suffix())
}

/// The name of a log whose first record is `first`.
pub(super) fn log_name(first: Zxid) -> String {
    format!("log.{:x}", first.0)
}

/// The epochs of the server whose history ends at `last`. Files that are missing mean the epoch of the history; files
/// that contradict it are an error, as ZooKeeper would not start with them either.
pub(super) fn epochs<D: Disk>(disk: &D, snapshot_dir: &Path, last: Zxid) -> Result<Epochs, Fatal> {
    let wrong = |name: &str, problem: String| Err(Fatal::EpochsDamaged { file: snapshot_dir.join(name), problem });
    let history = last.epoch();
    let mut current = read_epoch(disk, &snapshot_dir.join(CURRENT_EPOCH))?.unwrap_or(history);
    if current < history {
        // The server was stopped between the history of an epoch and the rename of this file.
        current = read_epoch(disk, &snapshot_dir.join(CURRENT_EPOCH_TMP))?.unwrap_or(current).max(current);
        if current < history {
            return wrong(CURRENT_EPOCH, format!("it says {}, but there is history up to zxid {last}", current.0));
        }
    }
    let accepted = read_epoch(disk, &snapshot_dir.join(ACCEPTED_EPOCH))?.unwrap_or(current);
    if accepted < current {
        return wrong(
            ACCEPTED_EPOCH,
            format!("it says {}, which is less than {CURRENT_EPOCH}'s {}", accepted.0, current.0),
        );
    }
    Ok(Epochs::new(accepted, current))
}

/// The epochs of a server that was alone, whose files are left from another time or broken: none of those that can be read
/// is promised again, should it become a member.
pub(super) fn least_epochs<D: Disk>(disk: &D, snapshot_dir: &Path, last: Zxid) -> Result<Epochs, Fatal> {
    let read = |name: &str| match read_epoch(disk, &snapshot_dir.join(name)) {
        Err(Fatal::EpochsDamaged { .. }) => Ok(None),
        other => other,
    };
    let current = read(CURRENT_EPOCH)?.unwrap_or_default().max(last.epoch());
    let accepted = read(ACCEPTED_EPOCH)?.max(read(CURRENT_EPOCH_TMP)?).unwrap_or_default();
    Ok(Epochs::new(accepted.max(current), current))
}

/// `None` if there is no such file.
fn read_epoch<D: Disk>(disk: &D, path: &Path) -> Result<Option<Epoch>, Fatal> {
    let file = match disk.open_to_read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk::fatal(path, 0, error)),
    };
    let bytes = match disk::read_whole(&file, 64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Vec::new(),
        Err(error) => return Err(disk::fatal(path, 0, error)),
    };
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line).ok().and_then(|text| text.parse::<u32>().ok()) {
        Some(epoch) => Ok(Some(Epoch(epoch))),
        None => Err(Fatal::EpochsDamaged { file: path.to_owned(), problem: "it is not the number of an epoch".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn names_are_taken_as_zookeeper_takes_them() {
        let dir = Path::new("/d");
        let disk = SimDisk::new();
        disk.create_dir(dir).unwrap();
        for name in [
            "snapshot.ff",
            "snapshot.100000000.gz",
            "snapshot.A.snappy",
            "snapshot.7.tmp",
            "log.1",
            "log.100000001",
            "snapshot",
            "snapshot.",
            "snapshot.xyz",
            "snap.0000000000000001",
            "log.1.old",
            "myid",
            "snapshot.+5",
            "snapshot.1.zip",
        ] {
            disk.put(&dir.join(name), Vec::new());
        }
        let files = Files::list(&disk, dir, dir).unwrap();
        let names: Vec<_> = files.paths().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["snapshot.100000000.gz", "snapshot.ff", "snapshot.A.snappy", "log.1", "log.100000001"]);
        assert_eq!(files.unfinished, [dir.join("snapshot.7.tmp")]);
        assert!(Files::list(&disk, dir, Path::new("/none")).is_err(), "logs where only snapshots belong");
        assert_eq!(snapshot_name(Zxid(0x1_0000_00ff), Compression::Gzip), "snapshot.1000000ff.gz");
    }

    #[test]
    fn epochs_are_read_as_zookeeper_reads_them() {
        let dir = Path::new("/d");
        let read = |files: &[(&str, &str)], last: u64| {
            let disk = SimDisk::new();
            disk.create_dir(dir).unwrap();
            files.iter().for_each(|(name, text)| disk.put(&dir.join(name), text.as_bytes().to_vec()));
            epochs(&disk, dir, Zxid(last)).ok().map(|epochs| (epochs.accepted.0, epochs.current.0))
        };
        let last = 0x3_0000_0007;
        assert_eq!(read(&[], last), Some((3, 3)));
        assert_eq!(read(&[("currentEpoch", "4"), ("acceptedEpoch", "6\n")], last), Some((6, 4)));
        assert_eq!(read(&[("currentEpoch", "2"), ("acceptedEpoch", "6")], last), None);
        assert_eq!(
            read(&[("currentEpoch", "2"), ("currentEpoch.tmp", "3"), ("acceptedEpoch", "3")], last),
            Some((3, 3))
        );
        assert_eq!(read(&[("currentEpoch", "4"), ("acceptedEpoch", "3")], last), None);
        for text in ["", "x", "3 ", "-1", " 3"] {
            assert_eq!(read(&[("currentEpoch", text)], last), None, "{text:?}");
        }
    }
}
