//! What a path is, and the tree that it stands for: one snapshot's, or that with which a server would start.

use super::InspectArgs;
use crate::disk::{self, Disk, File, RealDisk};
use crate::fatal::Fatal;
use crate::ids::{OwnerRules, Zxid};
use crate::snapshot::zookeeper::{
    Compression, DecodeLimits, Dirs, FileError, Files, ImportOptions, import, is_unfinished, our_files, read_file,
    read_state,
};
use crate::snapshot::{self, SessionRecord, snapshot_zxid};
use crate::storage;
use crate::tree::{Tree, TreeOptions};
use std::path::{Path, PathBuf};

/// What a path names.
pub enum Kind {
    Directory,
    /// ZooKeeper's.
    Snapshot(Compression),
    Log,
    OurSnapshot,
    Segment,
}

/// A tree and where it came from.
pub struct Source {
    pub name: String,
    pub tree: Tree,
    pub sessions: Vec<SessionRecord>,
    pub notes: Vec<String>,
}

/// TTLs are read as such whether or not the server's settings know them: what is shown is what is stored.
pub fn tree_options() -> TreeOptions {
    TreeOptions { owner_rules: OwnerRules { extended_types: true, emulate_353_ttl: false }, digest: true }
}

/// Files may have been written under any setting of `jute.maxbuffer`.
pub fn limits() -> DecodeLimits {
    DecodeLimits { item_bytes: 1 << 30, ..DecodeLimits::default() }
}

fn not_ours(path: &Path) -> Fatal {
    let problem = format!("{}: neither a snapshot nor a log nor a data directory", path.display());
    Fatal::Usage { problem }
}

/// By the first bytes; a name may have been changed.
pub fn kind(disk: &RealDisk, path: &Path) -> Result<Kind, Fatal> {
    if path.is_dir() {
        return Ok(Kind::Directory);
    }
    let io = |error| disk::fatal(path, 0, error);
    let file = disk.open_to_read(path).map_err(io)?;
    let mut head = [0; 8];
    let len = file.len().map_err(io)?.min(8) as usize;
    file.read_at(0, &mut head[..len]).map_err(io)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(match &head {
        b"ostsnap\x01" => Kind::OurSnapshot,
        b"OSTLRLOG" => Kind::Segment,
        [b'Z', b'K', b'S', b'N', ..] => Kind::Snapshot(Compression::Plain),
        [b'Z', b'K', b'L', b'G', ..] => Kind::Log,
        [0x1f, 0x8b, ..] => Kind::Snapshot(Compression::Gzip),
        b"\x82SNAPPY\x00" => Kind::Snapshot(Compression::Snappy),
        // Damaged at its beginning, and shown as damaged.
        _ if name.starts_with("snapshot.") => Kind::Snapshot(Compression::Plain),
        _ if name.starts_with("log.") => Kind::Log,
        _ if snapshot_zxid(&name).is_some() => Kind::OurSnapshot,
        _ if name.starts_with("segment.") => Kind::Segment,
        _ => return Err(not_ours(path)),
    })
}

/// Snapshots and log of a data directory, which may be given itself or as what is in it.
pub fn dirs(path: &Path, args: &InspectArgs) -> (PathBuf, PathBuf) {
    let inside = |dir: &Path| if dir.join("version-2").is_dir() { dir.join("version-2") } else { dir.to_owned() };
    (inside(path), inside(args.log_dir.as_deref().unwrap_or(path)))
}

/// Whether a directory is to be read as ZooKeeper's.
pub fn is_zookeepers(disk: &RealDisk, dirs: Dirs<'_>, args: &InspectArgs) -> Result<bool, Fatal> {
    let theirs = !Files::list(disk, dirs.snapshots, dirs.log)?.is_empty();
    let ours = !our_files(disk, dirs)?.is_empty() || log_elsewhere(disk, dirs)?.is_some();
    if !theirs && (args.zookeeper || !ours) {
        return Err(not_ours(dirs.snapshots));
    }
    Ok(theirs && (args.zookeeper || !ours))
}

/// That the log is somewhere else, if the server has left word of that.
pub fn log_elsewhere(disk: &RealDisk, dirs: Dirs<'_>) -> Result<Option<String>, Fatal> {
    let ours = storage::Dirs { snapshots: dirs.snapshots.to_owned(), log: dirs.log.to_owned() };
    let was = storage::absent_log(disk, &ours)?;
    Ok(was.map(|was| format!("its log is not here but in {was}, as log-directory says: name that with --log-dir")))
}

/// An error if it is: without it, what is here is no state.
pub fn refuse_log_elsewhere(disk: &RealDisk, dirs: Dirs<'_>) -> Result<(), Fatal> {
    match log_elsewhere(disk, dirs)? {
        Some(what) => Err(Fatal::Usage { problem: format!("{}: {what}", dirs.snapshots.display()) }),
        None => Ok(()),
    }
}

/// The zxid in the name of a snapshot of ZooKeeper's; zero if there is none.
fn named_zxid(path: &Path) -> Zxid {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let digits = name.split('.').nth(1).unwrap_or_default();
    Zxid(u64::from_str_radix(digits, 16).unwrap_or(0))
}

/// Loads the tree that a path stands for.
pub fn load(disk: &RealDisk, path: &Path, args: &InspectArgs) -> Result<Source, Fatal> {
    let name = path.display().to_string();
    let options = tree_options();
    match kind(disk, path)? {
        Kind::Log | Kind::Segment => {
            Err(Fatal::Usage { problem: format!("{name} is a log, and holds no tree; give a snapshot or a directory") })
        }
        Kind::OurSnapshot => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let loaded = snapshot::load(disk, path, options, threads)?;
            Ok(Source { name, tree: loaded.tree, sessions: loaded.sessions, notes: Vec::new() })
        }
        Kind::Snapshot(compression) => {
            let file = disk.open_to_read(path).map_err(|error| disk::fatal(path, 0, error))?;
            let zxid = named_zxid(path);
            let file = match read_file(&file, compression, zxid, options, limits(), &mut |_| {}) {
                Ok(file) => file,
                Err(FileError::Io(error)) => return Err(disk::fatal(path, 0, error)),
                Err(FileError::Damaged(error)) => {
                    let (offset, problem) = (error.offset, error.problem);
                    return Err(Fatal::ZooKeeperData { file: path.to_owned(), offset, last_good: Zxid::ZERO, problem });
                }
            };
            let mut notes = Vec::new();
            if let Some(stored) = file.digest.filter(|stored| stored.zxid > zxid) {
                notes.push(format!("fuzzy: it has changes up to {} in it", stored.zxid));
            }
            Ok(Source { name, tree: file.decoded.tree, sessions: file.decoded.sessions, notes })
        }
        Kind::Directory => {
            let (snapshots, log) = dirs(path, args);
            let dirs = Dirs { snapshots: &snapshots, log: &log };
            if is_zookeepers(disk, dirs, args)? {
                let options =
                    ImportOptions { tree: options, limits: limits(), up_to: None, check_digests: false, member: false };
                let imported = import(disk, dirs.snapshots, dirs.log, options, &mut |_, _| {})?;
                let Some(imported) = imported else { return Err(not_ours(path)) };
                let (sessions, notes) = (imported.sessions, imported.report.notes);
                return Ok(Source { name, tree: imported.tree, sessions, notes });
            }
            refuse_log_elsewhere(disk, dirs)?;
            let mut state = read_state(disk, dirs, options, |_| Ok(()))?;
            if is_unfinished(disk, dirs.snapshots)? {
                state.notes.push("an import was begun and not finished: this is a part of it".into());
            }
            Ok(Source { name, tree: state.tree, sessions: state.sessions, notes: state.notes })
        }
    }
}
