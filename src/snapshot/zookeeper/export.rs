//! The way back: the data directory of a stopped server of ours becomes one that ZooKeeper 3.8 and 3.9 start from.
//!
//! What is written: the records that our log still has behind its snapshot, as a log of ZooKeeper's (a leader of
//! ZooKeeper brings others up to date from it); a snapshot at the last of them, with digest; the two epochs. Each under
//! a temporary name first and durable before it gets its own, the snapshot last: a directory without it is none that
//! ZooKeeper would start from by mistake.
//!
//! ZooKeeper takes every log in its directory for its own history. So files that are there already go out of its sight
//! first, if the caller says so; else they are an error.
//!
//! Runs on: a command's thread; the caller holds the locks of the directories that are read.

use super::compress::Compression;
use super::dir::{ACCEPTED_EPOCH, CURRENT_EPOCH, Files, log_name, snapshot_name};
use super::file::write_file;
use super::import::ProgressBar;
use super::log::{write_log_header, write_log_record};
use super::takeover::Dirs;
use crate::disk::{self, Disk, File};
use crate::fatal::Fatal;
use crate::ids::{SessionId, Zxid};
use crate::log::epochs::Epochs;
use crate::log::{Recovery, Sizes};
use crate::snapshot::{SessionRecord, load_newest};
use crate::tree::{Applied, Tree, TreeOptions};
use crate::wire::txn::{Txn, read_txn};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What files of ZooKeeper's get before their names so that it doesn't see them.
const ASIDE: &str = "aside.";
const BUFFER: usize = 256 << 10;

/// A stopped server's state.
pub struct State {
    pub tree: Tree,
    /// In the order of their ids.
    pub sessions: Vec<SessionRecord>,
    pub epochs: Epochs,
    /// The snapshot that it began with; `None` if the log has everything.
    pub snapshot: Option<Zxid>,
    /// Records behind it.
    pub records: u64,
    /// Snapshots that are damaged, in words.
    pub notes: Vec<String>,
}

/// What was exported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exported {
    pub zxid: Zxid,
    pub digest: u64,
    pub nodes: u64,
    pub sessions: usize,
    pub epochs: Epochs,
    pub snapshot: PathBuf,
    /// The log, and how many records are in it. `None` if there was none behind our snapshot.
    pub log: Option<(PathBuf, u64)>,
    pub notes: Vec<String>,
}

/// How to export.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions {
    pub tree: TreeOptions,
    pub compression: Compression,
    /// Rename what there is of ZooKeeper's in the directory (to `aside.*`) instead of refusing.
    pub set_aside: bool,
}

/// Reads the state of a server of ours and changes nothing. `record` is given the entry of each record behind the
/// snapshot.
pub fn read_state<D: Disk>(
    disk: &D,
    dirs: Dirs<'_>,
    options: TreeOptions,
    mut record: impl FnMut(Zxid, &[u8]) -> Result<(), Fatal>,
) -> Result<State, Fatal> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let newest = load_newest(disk, dirs.snapshots, options, threads)?;
    let notes = newest.damaged.iter().map(Fatal::to_string).collect();
    let snapshot = newest.loaded.as_ref().map(|loaded| loaded.info.zxid);
    let (mut tree, sessions) = match newest.loaded {
        Some(loaded) => (loaded.tree, loaded.sessions),
        None => (Tree::new(options), Vec::new()),
    };
    let mut sessions: BTreeMap<SessionId, i32> = sessions.into_iter().collect();
    let (mut applied, mut records, mut wrong) = (Applied::default(), 0, None);
    let mut recovery = Recovery::open(disk.clone(), dirs.log, tree.zxid(), Sizes::default())?;
    while let Some((zxid, entry)) = recovery.next()? {
        let (header, txn, digest) = read_txn(entry).map_err(|error| {
            let problem = error.to_string();
            Fatal::LogRecord { dir: dirs.log.to_owned(), zxid, problem }
        })?;
        match &txn {
            Txn::CreateSession { timeout_ms } => drop(sessions.insert(header.session, *timeout_ms)),
            Txn::CloseSession { .. } => drop(sessions.remove(&header.session)),
            _ => {}
        }
        applied.clear();
        tree.apply(&header, txn, &mut applied);
        // A snapshot that a leader of ZooKeeper has sent is fuzzy: what counts is that the tree is right in the end.
        if let Some(digest) = digest.filter(|_| options.digest) {
            let here = tree.digest();
            let problem = || format!("the tree's digest is {here:#x} where the log says {:#x}", digest.tree);
            wrong = (digest.tree != here).then(|| (zxid, problem()));
        }
        record(zxid, entry)?;
        records += 1;
    }
    if let Some((zxid, problem)) = wrong {
        return Err(Fatal::LogRecord { dir: dirs.log.to_owned(), zxid, problem });
    }
    let last = tree.zxid();
    // A server that never was in an ensemble has none.
    let epochs = Epochs::load(disk, dirs.snapshots)?.unwrap_or(Epochs::new(last.epoch(), last.epoch()));
    let epochs = Epochs::reconcile(Some(epochs), last, dirs.snapshots)?;
    Ok(State { tree, sessions: sessions.into_iter().collect(), epochs, snapshot, records, notes })
}

/// Reads the state of a server of ours in `from` and writes it as ZooKeeper has it into `to`, whose directories exist.
/// `progress` is told how many bytes of the snapshot there are, and nothing of the log.
pub fn export<D: Disk>(
    disk: &D,
    from: Dirs<'_>,
    to: Dirs<'_>,
    options: ExportOptions,
    progress: ProgressBar<'_>,
) -> Result<Exported, Fatal> {
    let there = Files::list(disk, to.snapshots, to.log)?;
    if let (Some(path), false) = (there.paths().next(), options.set_aside) {
        let problem = "there are files of ZooKeeper's already, which it would take for the same history".into();
        return Err(Fatal::ForeignData { file: path.to_owned(), problem });
    }
    let log_tmp = to.log.join("export-log.tmp");
    let mut log: Option<(Zxid, u64, Output<'_, D>)> = None;
    let state = read_state(disk, from, options.tree, |zxid, entry| {
        let (_, count, output) = match &mut log {
            Some(log) => log,
            None => {
                let mut output = Output::create(disk, &log_tmp)?;
                output.put(write_log_header)?;
                log.insert((zxid, 0, output))
            }
        };
        *count += 1;
        output.put(|output| write_log_record(entry, output))
    })?;
    for path in there.paths().chain(there.unfinished.iter().map(PathBuf::as_path)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(format!("{ASIDE}{name}"));
        disk.rename(path, &aside).map_err(|error| disk::fatal(path, 0, error))?;
    }
    let sync_dir = |dir: &Path| disk.sync_dir(dir).map_err(|error| disk::sync_failed(dir, error));
    sync_dir(to.log)?;
    sync_dir(to.snapshots)?;

    let mut log_file = None;
    if let Some((first, count, output)) = log {
        let path = to.log.join(log_name(first));
        output.finish(&path)?;
        log_file = Some((path, count));
    }
    for (name, epoch) in [(ACCEPTED_EPOCH, state.epochs.accepted), (CURRENT_EPOCH, state.epochs.current)] {
        disk::replace_file(disk, &to.snapshots.join(name), epoch.0.to_string().as_bytes())?;
    }
    let zxid = state.tree.zxid();
    let path = to.snapshots.join(snapshot_name(zxid, options.compression));
    let mut output = Output::create(disk, &to.snapshots.join("export-snapshot.tmp"))?;
    let total = state.tree.approximate_data_size().max(0) as u64;
    output.seen = Some((total, progress));
    output.put(|output| write_file(&state.tree, &state.sessions, options.compression, output).map(drop))?;
    output.finish(&path)?;
    Ok(Exported {
        zxid,
        digest: state.tree.digest(),
        nodes: state.tree.node_count() as u64 - 1,
        sessions: state.sessions.len(),
        epochs: state.epochs,
        snapshot: path,
        log: log_file,
        notes: state.notes,
    })
}

/// A file that gets its name when all of it is durable.
struct Output<'a, D: Disk> {
    disk: &'a D,
    tmp: PathBuf,
    file: D::File,
    at: u64,
    buffer: Vec<u8>,
    /// About how many bytes there will be, and who is told of them.
    seen: Option<(u64, ProgressBar<'a>)>,
}

impl<'a, D: Disk> Output<'a, D> {
    fn create(disk: &'a D, tmp: &Path) -> Result<Output<'a, D>, Fatal> {
        let file = disk.create(tmp, 0).map_err(|error| disk::fatal(tmp, 0, error))?;
        Ok(Output { disk, tmp: tmp.to_owned(), file, at: 0, buffer: Vec::with_capacity(BUFFER), seen: None })
    }

    /// Writes, and makes an error one of this file. A file that failed is taken away: a full disk needs the room.
    fn put(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<(), Fatal> {
        write(self).map_err(|error| {
            let _ = self.disk.remove(&self.tmp);
            disk::fatal(&self.tmp, self.at, error)
        })
    }

    fn finish(mut self, path: &Path) -> Result<(), Fatal> {
        self.put(|output| output.flush())?;
        self.file.sync().map_err(|error| disk::sync_failed(&self.tmp, error))?;
        self.disk.rename(&self.tmp, path).map_err(|error| disk::fatal(path, 0, error))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        self.disk.sync_dir(dir).map_err(|error| disk::sync_failed(dir, error))
    }
}

impl<D: Disk> Write for Output<'_, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(self.at, &self.buffer)?;
        self.at += self.buffer.len() as u64;
        if let Some((total, progress)) = &mut self.seen {
            progress(self.at.min(*total), *total);
        }
        self.buffer.clear();
        Ok(())
    }
}
