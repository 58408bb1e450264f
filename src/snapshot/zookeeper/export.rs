//! The way back: the data directory of a stopped server of ours becomes one that ZooKeeper 3.8 and 3.9 start from.
//!
//! What is written: our newest snapshot, as one of ZooKeeper's, with digest; the records that our log has behind it, as a
//! log of ZooKeeper's; the two epochs. Not one snapshot of everything: the last records of a member may never have been
//! committed, and a leader takes such records back out of a log (TRUNC), never out of a snapshot.
//!
//! Each file has a temporary name first and is durable before it gets its own, the snapshot last: a directory without it
//! is none that ZooKeeper would start from by mistake.
//!
//! ZooKeeper takes every log in its directory for its own history. So files that are there already go out of its sight
//! first, if the caller says so; else they are an error. It also starts with nothing where there is nothing; so there is a log
//! without records from before the first of them goes until the new snapshot has its name.
//!
//! Runs on: a command's thread; the caller holds the locks of the directories that are read.

use super::compress::Compression;
use super::dir::{ACCEPTED_EPOCH, CURRENT_EPOCH, Files, log_name, snapshot_name};
use super::file::SnapshotFileWriter;
use super::import::ProgressBar;
use super::log::{write_log_header, write_log_record};
use super::takeover::Dirs;
use crate::disk::{self, Disk, File};
use crate::fatal::Fatal;
use crate::ids::{Epoch, SessionId, Zxid};
use crate::log::epochs::Epochs;
use crate::log::{self, Replay};
use crate::snapshot::{SessionRecord, load_newest};
use crate::tree::{Applied, Tree, TreeOptions};
use crate::wire::txn::{Txn, TxnDigest, read_txn};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What files of ZooKeeper's get before their names so that it doesn't see them.
const ASIDE: &str = "aside.";
const BUFFER: usize = 256 << 10;
/// No history comes to this epoch.
const PLACE: Epoch = Epoch(0x7fff_ffff);

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
    /// The log, and how many records are in it. `None` if nothing was behind our snapshot.
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

/// What `read_state` comes by on its way.
pub enum Passed<'a> {
    /// The newest snapshot's tree and sessions; those of an empty server if there is none. First, and once.
    Snapshot(&'a Tree, &'a [SessionRecord]),
    /// A record behind it, its entry, the tree's digest after it, and whether the record says the same. A snapshot that a
    /// leader of ZooKeeper has sent is fuzzy; what counts is that the tree is right in the end.
    Record { zxid: Zxid, entry: &'a [u8], digest: u64, right: Option<bool> },
}

/// Reads the state of a server of ours and changes nothing, so it needs no lock. `Fatal::Unfinished` if a change of its log was
/// interrupted, or is under way.
pub fn read_state<D: Disk>(
    disk: &D,
    dirs: Dirs<'_>,
    options: TreeOptions,
    mut passed: impl FnMut(Passed<'_>) -> Result<(), Fatal>,
) -> Result<State, Fatal> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let newest = load_newest(disk, dirs.snapshots, options, threads)?;
    let notes = newest.damaged.iter().map(Fatal::to_string).collect();
    let snapshot = newest.loaded.as_ref().map(|loaded| loaded.info.zxid);
    let (mut tree, sessions) = match newest.loaded {
        Some(loaded) => (loaded.tree, loaded.sessions),
        None => (Tree::new(options), Vec::new()),
    };
    passed(Passed::Snapshot(&tree, &sessions))?;
    let mut sessions: BTreeMap<SessionId, i32> = sessions.into_iter().collect();
    let (mut applied, mut records, mut wrong) = (Applied::default(), 0, None);
    let mut replay = Replay::open(disk.clone(), dirs.log, tree.zxid())?;
    while let Some((zxid, entry)) = replay.next()? {
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
        let here = tree.digest();
        // Another version is a sum over other things.
        let said = digest.filter(|digest| options.digest && digest.version == TxnDigest::VERSION);
        let said = said.map(|digest| digest.tree);
        if let Some(said) = said {
            let problem = || format!("the tree's digest is {here:#x} where the log says {said:#x}");
            match said == here {
                true => wrong = None,
                // The first of those that nothing has put right is to blame.
                false => drop(wrong.get_or_insert_with(|| (zxid, problem()))),
            }
        }
        passed(Passed::Record { zxid, entry, digest: here, right: said.map(|said| said == here) })?;
        records += 1;
    }
    if let Some((zxid, problem)) = wrong {
        return Err(Fatal::LogRecord { dir: dirs.log.to_owned(), zxid, problem });
    }
    let last = tree.zxid();
    // A server that never was in an ensemble has none.
    let epochs = Epochs::load(disk, dirs.log)?.unwrap_or(Epochs::new(last.epoch(), last.epoch()));
    let epochs = Epochs::reconcile(Some(epochs), last, dirs.log)?;
    Ok(State { tree, sessions: sessions.into_iter().collect(), epochs, snapshot, records, notes })
}

/// Reads the state of a server of ours in `from` and writes it as ZooKeeper has it into `to`, whose directories exist.
/// `progress` is told how many bytes of the snapshot there are, and nothing of the log.
pub fn export<'a, D: Disk>(
    disk: &'a D,
    from: Dirs<'_>,
    to: Dirs<'a>,
    options: ExportOptions,
    progress: ProgressBar<'a>,
) -> Result<Exported, Fatal> {
    let there = Files::list(disk, to.snapshots, to.log)?;
    if let (Some(path), false) = (there.paths().next(), options.set_aside) {
        let problem = "there are files of ZooKeeper's already, which it would take for the same history".into();
        return Err(Fatal::ForeignData { file: path.to_owned(), problem });
    }
    // The caller has the lock, so no server is at it.
    log::finish_interrupted(disk, from.log)?;
    let mut writing = Writing { disk, to, compression: options.compression, snapshot: None, log: None, exact: None };
    let mut progress = Some(progress);
    let read = read_state(disk, from, options.tree, |passed| match passed {
        Passed::Snapshot(tree, sessions) => writing.begin(tree, sessions, progress.take()),
        Passed::Record { zxid, entry, digest, right } => {
            match right {
                Some(true) => drop(writing.exact.get_or_insert((zxid, digest))),
                Some(false) => writing.exact = None,
                None => {}
            }
            writing.record(zxid, entry)
        }
    });
    let state = match read {
        Ok(state) => state,
        Err(fatal) => {
            writing.give_up();
            return Err(fatal);
        }
    };
    let sync = |dir: &Path| disk.sync_dir(dir).map_err(|error| disk::sync_failed(dir, error));
    let placeholder = match there.paths().next() {
        Some(_) => Some(writing.hold_the_place(&there)?),
        None => None,
    };
    let prefix = free_prefix(disk, &there);
    let set_aside =
        |path: &Path| disk.rename(path, &renamed(path, &prefix)).map_err(|error| disk::fatal(path, 0, error));
    // Snapshots first, the newest before the others: what is left of them has a log behind it at every step.
    for snapshot in &there.snapshots {
        set_aside(&snapshot.path)?;
        sync(to.snapshots)?;
    }
    there
        .unfinished
        .iter()
        .map(PathBuf::as_path)
        .chain(there.logs.iter().map(|log| log.path.as_path()))
        .try_for_each(set_aside)?;
    for dir in [to.log, to.snapshots] {
        sync(dir)?;
    }
    let (snapshot, log) = writing.finish(state.epochs)?;
    if let Some(path) = placeholder {
        disk.remove(&path).map_err(|error| disk::fatal(&path, 0, error))?;
        sync(to.log)?;
    }
    Ok(Exported {
        zxid: state.tree.zxid(),
        digest: state.tree.digest(),
        nodes: state.tree.node_count() as u64 - 1,
        sessions: state.sessions.len(),
        epochs: state.epochs,
        snapshot,
        log,
        notes: state.notes,
    })
}

/// What ZooKeeper's files get before their names: each time another, if there are files that were set aside before.
fn free_prefix<D: Disk>(disk: &D, there: &Files) -> String {
    let all = || there.paths().chain(there.unfinished.iter().map(PathBuf::as_path));
    let is_free = |prefix: &String| all().all(|path| disk.open_to_read(&renamed(path, prefix)).is_err());
    let later = (2..).map(|round: u32| format!("{ASIDE}{round}."));
    std::iter::once(ASIDE.to_owned()).chain(later).find(is_free).expect("a directory has fewer files")
}

fn renamed(path: &Path, prefix: &str) -> PathBuf {
    path.with_file_name(format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// The files of an export that have no names yet.
struct Writing<'a, D: Disk> {
    disk: &'a D,
    to: Dirs<'a>,
    compression: Compression,
    /// The file, its zxid, and its tree's digest if that is exact.
    snapshot: Option<(SnapshotFileWriter<Output<'a, D>>, Zxid, u64)>,
    /// Its first record, how many there are, the file.
    log: Option<(Zxid, u64, Output<'a, D>)>,
    /// The first record from which on every digest is right: behind a fuzzy snapshot, not the very first.
    exact: Option<(Zxid, u64)>,
}

impl<'a, D: Disk> Writing<'a, D> {
    fn snapshot_tmp(&self) -> PathBuf {
        self.to.snapshots.join("export-snapshot.tmp")
    }

    fn log_tmp(&self) -> PathBuf {
        self.to.log.join("export-log.tmp")
    }

    fn begin(
        &mut self,
        tree: &Tree,
        sessions: &[SessionRecord],
        progress: Option<ProgressBar<'a>>,
    ) -> Result<(), Fatal> {
        let tmp = self.snapshot_tmp();
        let mut output = Output::create(self.disk, &tmp)?;
        output.seen = progress.map(|progress| (tree.approximate_data_size().max(0) as u64, progress));
        let begun = SnapshotFileWriter::begin(tree, sessions, self.compression, output);
        let begun = begun.map_err(|error| disk::fatal(&tmp, 0, error))?;
        self.snapshot = Some((begun, tree.zxid(), tree.digest()));
        Ok(())
    }

    fn record(&mut self, zxid: Zxid, entry: &[u8]) -> Result<(), Fatal> {
        let tmp = self.log_tmp();
        let (_, count, output) = match &mut self.log {
            Some(log) => log,
            None => {
                let mut output = Output::create(self.disk, &tmp)?;
                output.put(write_log_header)?;
                self.log.insert((zxid, 0, output))
            }
        };
        *count += 1;
        output.put(|output| write_log_record(entry, output))
    }

    /// A log without records, behind every other: with no snapshot beside it ZooKeeper does not start, where it would start
    /// empty with no file at all; beside what there is it says nothing.
    fn hold_the_place(&self, there: &Files) -> Result<PathBuf, Fatal> {
        let is_free = |zxid: &Zxid| there.logs.iter().all(|log| log.first != *zxid);
        let at = (1..).map(|counter| Zxid::new(PLACE, counter)).find(is_free).expect("there are fewer files");
        let path = self.to.log.join(log_name(at));
        let mut output = Output::create(self.disk, &self.to.log.join("export-place.tmp"))?;
        output.put(write_log_header)?;
        output.finish(&path)?;
        Ok(path)
    }

    /// Gives the files their names; the snapshot's and the log's.
    fn finish(self, epochs: Epochs) -> Result<(PathBuf, Option<(PathBuf, u64)>), Fatal> {
        let (disk, to) = (self.disk, self.to);
        let snapshot_tmp = self.snapshot_tmp();
        let mut log = None;
        let first = self.log.as_ref().map(|(first, ..)| *first);
        if let Some((first, count, output)) = self.log {
            let path = to.log.join(log_name(first));
            output.finish(&path)?;
            log = Some((path, count));
        }
        for (name, epoch) in [(ACCEPTED_EPOCH, epochs.accepted), (CURRENT_EPOCH, epochs.current)] {
            disk::replace_file(disk, &to.snapshots.join(name), epoch.0.to_string().as_bytes())?;
        }
        let (writer, zxid, digest) = self.snapshot.expect("a state begins with a snapshot");
        // Exact from the first record on: then the snapshot is, too.
        let (at, digest) = match self.exact {
            Some((exact, digest)) if Some(exact) != first => (exact, digest),
            _ => (zxid, digest),
        };
        let (output, _) = writer.finish(at, digest).map_err(|error| disk::fatal(&snapshot_tmp, 0, error))?;
        let path = to.snapshots.join(snapshot_name(zxid, self.compression));
        output.finish(&path)?;
        Ok((path, log))
    }

    /// What there is so far is nothing; a full disk needs the room.
    fn give_up(&self) {
        for tmp in [self.snapshot_tmp(), self.log_tmp()] {
            let _ = self.disk.remove(&tmp);
        }
    }
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
