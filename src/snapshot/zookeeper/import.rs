//! The state of a ZooKeeper server out of its data directory: the newest sound snapshot, and every record behind it.
//!
//! ZooKeeper passes over much in silence: records behind a run of zeros or a bad mark, log files that are missing, a
//! gap where one epoch ends and the next begins. Here the history has to be whole. It goes from the snapshot to the last
//! record without a missing zxid; it reaches at least as far as every snapshot and log file says in its name, and as far
//! as the newest change that a fuzzy snapshot has caught; and the tree has the digest that each record and the snapshot
//! say. What is wrong is an error with its file, offset and the last good zxid, and nothing is written.
//!
//! Left out, with a note, are only the remains of the newest file's last append, which a crash interrupted. A damaged
//! snapshot is left out too if an older one and the log behind it reach past it.
//!
//! Runs on: the starting thread, or a command's.

use super::dir::{self, Files, LogName};
use super::file::{FileError, SnapshotFile, StoredDigest, read_file};
use super::log::{End, LogReader, Next, Record};
use super::{DecodeLimits, is_missing_acl};
use crate::disk::{self, Disk, File};
use crate::fatal::Fatal;
use crate::ids::{Epoch, Owner, OwnerRules, SessionId, Zxid};
use crate::log::epochs::Epochs;
use crate::snapshot::SessionRecord;
use crate::tree::{Applied, Tree, TreeOptions};
use crate::wire::txn::{Txn, TxnDigest, TxnHeader, read_txn};
use adler2::adler32_slice;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

/// Records that are remembered, to know one that comes again.
const RECENT: usize = 4096;
/// Notes of one kind that are made one by one.
const NOTES_MAX: usize = 20;

/// How a directory is read.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    pub tree: TreeOptions,
    /// `item_bytes` bounds log records as well.
    pub limits: DecodeLimits,
    /// Give up everything behind this transaction.
    pub up_to: Option<Zxid>,
    /// Whether a tree that has not the digest that a record says is an error. Else it is a note.
    pub check_digests: bool,
    /// Of a member of an ensemble: epochs that contradict the history are an error. A server that is alone pays no attention
    /// to them, in ZooKeeper neither; then they are a note.
    pub member: bool,
}

/// A server's state.
pub struct Imported {
    pub tree: Tree,
    /// In the order of their ids.
    pub sessions: Vec<SessionRecord>,
    /// Of the server as a member of an ensemble; those of its history if it never was one.
    pub epochs: Epochs,
    /// The earliest transaction after which the tree is known to be exact: from there on the records may stay a log. The
    /// last transaction, where none is known.
    pub exact: Zxid,
    pub report: Report,
}

/// What was read, for an operator.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The snapshot that was loaded; `None` if the log has everything from the first transaction on.
    pub snapshot: Option<PathBuf>,
    /// Log files that were read, and records that were applied.
    pub logs: usize,
    pub records: u64,
    /// The last transaction.
    pub zxid: Zxid,
    /// Znodes, the root counted once.
    pub nodes: u64,
    pub sessions: usize,
    pub digest: u64,
    /// Whether the snapshot's digest was there and right; how many records' digests were.
    pub snapshot_digest: bool,
    pub record_digests: u64,
    /// What was left out or put right, in words.
    pub notes: Vec<String>,
}

/// Told how many bytes have been read, and how many there are about.
pub type ProgressBar<'a> = &'a mut dyn FnMut(u64, u64);

/// Reads ZooKeeper's files in two directories, which may be one. `None` if there are none. Changes nothing.
pub fn import<D: Disk>(
    disk: &D,
    snapshot_dir: &Path,
    log_dir: &Path,
    options: ImportOptions,
    progress: ProgressBar<'_>,
) -> Result<Option<Imported>, Fatal> {
    let files = Files::list(disk, snapshot_dir, log_dir)?;
    if files.is_empty() {
        return Ok(None);
    }
    let mut bar = Bar { done: 0, total: 0, progress };
    let mut import = Import::begin(disk, &files, options, &mut bar)?;
    import.replay(disk, &files, &mut bar)?;
    import.check_reach(&files)?;
    import.put_right()?;
    for path in &files.unfinished {
        import.report.notes.push(format!("{}: a snapshot that was never finished, left out", path.display()));
    }
    let epochs = match dir::epochs(disk, snapshot_dir, import.tree.zxid()) {
        Err(Fatal::EpochsDamaged { file, problem }) if !options.member => {
            let epochs = dir::least_epochs(disk, snapshot_dir, import.tree.zxid())?;
            import.report.notes.push(format!(
                "{}: {problem}; alone no server needs it, and its epochs are accepted {}, current {} from now on",
                file.display(),
                epochs.accepted.0,
                epochs.current.0
            ));
            epochs
        }
        other => other?,
    };
    let exact = import.exact.unwrap_or(import.last);
    let (tree, sessions, report) = import.finish();
    Ok(Some(Imported { tree, sessions, epochs, exact, report }))
}

/// Reads again, up to the transaction where the tree is exact, and puts nothing right: what follows counts on it.
pub(super) fn import_exact<D: Disk>(
    disk: &D,
    files: &Files,
    options: ImportOptions,
    exact: Zxid,
) -> Result<(Tree, Vec<SessionRecord>), Fatal> {
    let options = ImportOptions { up_to: Some(exact), ..options };
    let mut bar = Bar { done: 0, total: 0, progress: &mut |_, _| {} };
    let mut import = Import::begin(disk, files, options, &mut bar)?;
    import.replay(disk, files, &mut bar)?;
    import.check_reach(files)?;
    let (tree, sessions, _) = import.finish();
    Ok((tree, sessions))
}

struct Bar<'a> {
    done: u64,
    total: u64,
    progress: ProgressBar<'a>,
}

impl Bar<'_> {
    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        (self.progress)(self.done.min(self.total), self.total);
    }
}

/// When the tree has to have the digest that a record says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    /// From this transaction on: before it the tree is that of a fuzzy snapshot.
    From(Zxid),
    /// From the first on that agrees: nobody knows how far a fuzzy snapshot without a digest has got.
    AfterAMatch,
}

struct Import {
    options: ImportOptions,
    tree: Tree,
    sessions: BTreeMap<SessionId, i32>,
    report: Report,
    missing_acls: u64,
    /// The transaction that the loaded snapshot stands for.
    base: Zxid,
    /// The last record that was applied, or `base`.
    last: Zxid,
    /// The last transaction after which the tree had the digest that it should have, or `base`.
    verified: Zxid,
    /// The first transaction after which the tree was known to be what it should be.
    exact: Option<Zxid>,
    stored: Option<StoredDigest>,
    /// The snapshot's digest was not the tree's: where, and what. The next digest settles it.
    doubt: Option<(PathBuf, u64, String)>,
    compare: Compare,
    mismatches: u64,
    repeated: u64,
    /// Snapshots that were damaged: their zxids and what was wrong.
    damaged: Vec<(PathBuf, Zxid)>,
    recent: VecDeque<(Zxid, u32)>,
    applied: Applied,
}

fn damage<T>(file: &Path, offset: u64, last_good: Zxid, problem: impl Into<String>) -> Result<T, Fatal> {
    Err(Fatal::ZooKeeperData { file: file.to_owned(), offset, last_good, problem: problem.into() })
}

/// The record after `zxid`, where there is one in the same epoch.
fn following(zxid: Zxid) -> Zxid {
    zxid.next().unwrap_or(Zxid::new(Epoch(zxid.epoch().0.saturating_add(1)), 0))
}

/// Whether nothing is missing between two records. An epoch begins with 1; a lone server counts through into the next.
fn follows(before: Zxid, after: Zxid) -> bool {
    after == following(before) || (after.epoch() > before.epoch() && after.counter() == 1)
}

/// What is missing before `zxid` when the record before it is not there.
fn missing_from(before: Zxid, zxid: Zxid) -> Zxid {
    if before.epoch() == zxid.epoch() { following(before) } else { Zxid::new(zxid.epoch(), 1) }
}

impl Import {
    /// Loads the newest snapshot that is sound.
    fn begin<D: Disk>(disk: &D, files: &Files, options: ImportOptions, bar: &mut Bar<'_>) -> Result<Import, Fatal> {
        let wanted = |zxid: Zxid| options.up_to.is_none_or(|up_to| zxid <= up_to);
        let length = |path: &Path| disk.open_to_read(path).and_then(|file| file.len()).unwrap_or(0);
        let candidates = || files.snapshots.iter().filter(|snapshot| wanted(snapshot.zxid));
        let newest = candidates().next().map_or(Zxid::ZERO, |snapshot| snapshot.zxid);
        bar.total = candidates().next().map_or(0, |snapshot| length(&snapshot.path));
        bar.total += files.logs[first_log(files, newest)..].iter().map(|log| length(&log.path)).sum::<u64>();
        let mut damaged = Vec::new();
        let mut notes = Vec::new();
        let mut first_error = None;
        for snapshot in candidates() {
            let path = &snapshot.path;
            let read = disk.open_to_read(path).map_err(FileError::Io).and_then(|file| {
                let seen = &mut |bytes| bar.advance(bytes);
                read_file(&file, snapshot.compression, snapshot.zxid, options.tree, options.limits, seen)
            });
            match read {
                Ok(file) => return Import::of_snapshot(options, path, snapshot.zxid, file, damaged, notes),
                Err(error) => {
                    notes.push(format!("{}: damaged ({error}), an older snapshot was taken", path.display()));
                    damaged.push((path.clone(), snapshot.zxid));
                    first_error.get_or_insert((path, error));
                }
            }
        }
        match first_error {
            Some((path, FileError::Io(error))) => Err(disk::fatal(path, 0, error)),
            Some((path, FileError::Damaged(error))) => damage(path, error.offset, Zxid::ZERO, error.problem),
            None => {
                // A history that begins with the first transaction there can be needs no snapshot.
                let Some(first) = files.logs.first() else {
                    let problem = "there is no snapshot at or before that zxid, and no log".into();
                    return Err(Fatal::Usage { problem });
                };
                if first.first > Zxid::new(Epoch(1), 1) || !follows(Zxid::ZERO, first.first) {
                    let problem = format!("the log begins with {}, and there is no snapshot before it", first.first);
                    return damage(&first.path, 0, Zxid::ZERO, problem);
                }
                Ok(Import::new(options, Tree::new(options.tree), BTreeMap::new(), Zxid::ZERO))
            }
        }
    }

    fn new(options: ImportOptions, tree: Tree, sessions: BTreeMap<SessionId, i32>, base: Zxid) -> Import {
        Import {
            options,
            tree,
            sessions,
            report: Report::default(),
            missing_acls: 0,
            base,
            last: base,
            verified: base,
            // An empty server has an empty tree.
            exact: (base == Zxid::ZERO).then_some(base),
            stored: None,
            doubt: None,
            compare: if base == Zxid::ZERO { Compare::From(Zxid::ZERO) } else { Compare::AfterAMatch },
            mismatches: 0,
            repeated: 0,
            damaged: Vec::new(),
            recent: VecDeque::new(),
            applied: Applied::default(),
        }
    }

    fn of_snapshot(
        options: ImportOptions,
        path: &Path,
        zxid: Zxid,
        file: SnapshotFile,
        damaged: Vec<(PathBuf, Zxid)>,
        notes: Vec<String>,
    ) -> Result<Import, Fatal> {
        let sessions = file.decoded.sessions.into_iter().collect();
        let mut import = Import::new(options, file.decoded.tree, sessions, zxid);
        import.missing_acls = file.decoded.missing_acls;
        import.damaged = damaged;
        import.report.notes = notes;
        import.report.snapshot = Some(path.to_owned());
        // A digest of an earlier transaction says nothing: ZooKeeper has none of transactions that failed.
        let current = |stored: &StoredDigest| stored.zxid != Zxid::ZERO && stored.zxid >= zxid;
        import.stored = file.digest.filter(|stored| stored.digest.version == TxnDigest::VERSION).filter(current);
        if let Some(stored) = import.stored {
            import.compare = Compare::From(stored.zxid);
            if stored.zxid == zxid {
                import.compare_with_snapshot(path, 0);
            }
        }
        Ok(import)
    }

    /// The tree is now at the transaction whose digest the snapshot has. If it has another digest, the next transaction may
    /// have been on its way into the tree when the snapshot was written: then that one makes it right.
    fn compare_with_snapshot(&mut self, file: &Path, offset: u64) {
        let Some(stored) = self.stored else { return };
        if stored.digest.tree == self.tree.digest() {
            self.report.snapshot_digest = true;
            self.exact = Some(stored.zxid);
            return;
        }
        let (here, said) = (self.tree.digest(), stored.digest.tree);
        let problem = format!("the tree's digest is {here:#x}, and the snapshot says {said:#x} for {}", stored.zxid);
        self.doubt = Some((file.to_owned(), offset, problem));
    }

    fn mismatch(&mut self, file: &Path, offset: u64, problem: String) -> Result<(), Fatal> {
        if self.options.check_digests {
            let problem = format!("{problem} (`ostler import --accept-digests` goes on all the same)");
            return damage(file, offset, self.verified, problem);
        }
        self.mismatches += 1;
        self.exact = None;
        if self.mismatches <= NOTES_MAX as u64 {
            self.report.notes.push(format!("{}: byte {offset}: {problem}", file.display()));
        }
        Ok(())
    }

    /// Applies everything behind the snapshot.
    fn replay<D: Disk>(&mut self, disk: &D, files: &Files, bar: &mut Bar<'_>) -> Result<(), Fatal> {
        let logs = &files.logs[first_log(files, self.base)..];
        for (index, log) in logs.iter().enumerate() {
            let newest = index + 1 == logs.len();
            let enough = self.options.up_to == Some(self.last);
            if enough || !self.replay_log(disk, log, newest, bar)? {
                break;
            }
        }
        Ok(())
    }

    /// False when no more is wanted.
    fn replay_log<D: Disk>(&mut self, disk: &D, log: &LogName, newest: bool, bar: &mut Bar<'_>) -> Result<bool, Fatal> {
        let path = &log.path;
        let io = |error| disk::fatal(path, 0, error);
        let file = disk.open_to_read(path).map_err(io)?;
        self.report.logs += 1;
        let mut reader = match LogReader::open(file, self.options.limits.item_bytes).map_err(io)? {
            Ok(reader) => reader,
            // A server that was killed before it had written the header.
            Err((len, _)) if newest && (0 < len && len < 16 || is_zeros(disk, path)?) => {
                self.note(path, len, "a log that was hardly begun, left out");
                return Ok(true);
            }
            Err((offset, problem)) => return damage(path, offset, self.last, problem),
        };
        let mut first = true;
        let mut seen = 0;
        let end = loop {
            let at = reader.offset();
            bar.advance(at - seen);
            seen = at;
            if self.options.up_to == Some(self.last) {
                return Ok(false);
            }
            match reader.next().map_err(io)? {
                Next::End(end) => break end,
                Next::Record(record) => {
                    if std::mem::replace(&mut first, false) && record.zxid != log.first {
                        let problem = format!("its first record is {}, which is not its name", record.zxid);
                        return damage(path, record.offset, self.last, problem);
                    }
                    if !self.take(path, &record)? {
                        return Ok(false);
                    }
                }
            }
        };
        bar.advance(reader.bytes() - seen);
        match end {
            End::Clean { .. } => {}
            End::Damaged { offset, problem } => return damage(path, offset, self.last, problem),
            // ZooKeeper would not have gone on behind it, so it was sound once.
            End::Torn { offset, complete: true, problem } if !newest => {
                return damage(path, offset, self.last, problem);
            }
            End::Torn { offset, problem, .. } => {
                self.note(path, offset, &format!("{problem}: an append that was interrupted, left out"));
            }
        }
        Ok(true)
    }

    fn note(&mut self, file: &Path, offset: u64, what: &str) {
        if self.report.notes.len() < 10 * NOTES_MAX {
            self.report.notes.push(format!("{}: byte {offset}: {what}", file.display()));
        }
    }

    /// One record; false when it and what follows is not wanted.
    fn take(&mut self, file: &Path, record: &Record<'_>) -> Result<bool, Fatal> {
        let Record { offset, zxid, entry } = *record;
        if self.options.up_to.is_some_and(|up_to| zxid > up_to) {
            return Ok(false);
        }
        if zxid <= self.base && self.last == self.base {
            return Ok(true);
        }
        let sum = adler32_slice(entry);
        let decoded = read_txn(entry);
        if zxid <= self.last {
            return self.take_again(file, record, sum, matches!(decoded, Ok((_, Txn::Error { .. }, _))));
        }
        if !follows(self.last, zxid) {
            let from = missing_from(self.last, zxid);
            return damage(file, offset, self.last, format!("{zxid} follows {}: {from} is missing", self.last));
        }
        if !crate::log::follows(self.last, zxid) {
            self.exact = None; // Our log would not take the two.
        }
        let (header, txn, digest) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return damage(file, offset, self.last, format!("{zxid} is no transaction: {error}")),
        };
        match &txn {
            Txn::CreateSession { timeout_ms } => drop(self.sessions.insert(header.session, *timeout_ms)),
            Txn::CloseSession { .. } => drop(self.sessions.remove(&header.session)),
            _ => {}
        }
        self.applied.clear();
        self.tree.apply(&header, txn, &mut self.applied);
        self.check_digest(file, record, digest)?;
        self.last = zxid;
        self.report.records += 1;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((zxid, sum));
        Ok(true)
    }

    fn check_digest(&mut self, file: &Path, record: &Record<'_>, digest: Option<TxnDigest>) -> Result<(), Fatal> {
        let at_stored = self.stored.is_some_and(|stored| stored.zxid == record.zxid);
        if at_stored {
            self.compare_with_snapshot(file, record.offset);
        }
        let Some(digest) = digest.filter(|digest| digest.version == TxnDigest::VERSION) else { return Ok(()) };
        let right = digest.tree == self.tree.digest();
        if at_stored && self.doubt.is_some() && !right {
            return Ok(());
        }
        match self.compare {
            Compare::From(from) if record.zxid < from => return Ok(()),
            Compare::AfterAMatch if right => {
                self.compare = Compare::From(record.zxid);
                self.exact = Some(record.zxid);
            }
            Compare::AfterAMatch => return Ok(()),
            Compare::From(_) => {}
        }
        if let Some((file, offset, problem)) = self.doubt.take().filter(|_| !right) {
            return self.mismatch(&file, offset, problem);
        }
        if right {
            self.exact.get_or_insert(record.zxid);
            self.report.record_digests += 1;
            self.verified = record.zxid;
            return Ok(());
        }
        let (here, said) = (self.tree.digest(), digest.tree);
        let problem = format!("the tree's digest is {here:#x}, and {} says {said:#x}", record.zxid);
        self.mismatch(file, record.offset, problem)
    }

    /// A zxid that was there before. A server may log a record twice, and a leader of ZooKeeper numbers a request that
    /// it cannot decode like the one before it.
    fn take_again(&mut self, file: &Path, record: &Record<'_>, sum: u32, is_error: bool) -> Result<bool, Fatal> {
        let before = self.recent.iter().rev().find(|(zxid, _)| *zxid == record.zxid);
        if before.is_some_and(|&(_, before)| before == sum || is_error) {
            self.repeated += 1;
            return Ok(true);
        }
        let problem = match before {
            Some(_) => format!("another transaction {}", record.zxid),
            None => format!("{} comes after {}", record.zxid, self.last),
        };
        damage(file, record.offset, self.last, problem)
    }

    /// What ZooKeeper does when it has loaded a state.
    fn put_right(&mut self) -> Result<(), Fatal> {
        self.remove_orphans()?;
        if self.missing_acls > 0 {
            self.note_missing_acls();
        }
        let more = self.mismatches.saturating_sub(NOTES_MAX as u64);
        if more > 0 {
            self.report.notes.push(format!("{more} more digests that the tree didn't have"));
        }
        if self.repeated > 0 {
            self.report.notes.push(format!("{} records were there twice", self.repeated));
        }
        Ok(())
    }

    fn finish(mut self) -> (Tree, Vec<SessionRecord>, Report) {
        self.tree.recount_quotas();
        let mut report = self.report;
        report.zxid = self.tree.zxid();
        report.nodes = self.tree.node_count() as u64 - 1;
        report.sessions = self.sessions.len();
        report.digest = self.tree.digest();
        (self.tree, self.sessions.into_iter().collect(), report)
    }

    /// Whether the history reaches as far as the files say.
    fn check_reach(&mut self, files: &Files) -> Result<(), Fatal> {
        let last = self.last;
        if let Some((file, offset, problem)) = self.doubt.take() {
            self.mismatch(&file, offset, problem)?;
        }
        if let Some(up_to) = self.options.up_to {
            if last < up_to {
                let problem = format!("there is no transaction {up_to}: the last one is {last}");
                return Err(Fatal::Usage { problem });
            }
        } else {
            if let Some((path, zxid)) = self.damaged.iter().find(|(_, zxid)| *zxid > last) {
                let problem = format!("this snapshot is damaged, and the log doesn't reach up to it ({zxid})");
                return damage(path, 0, last, problem);
            }
            if let Some(log) = files.logs.last().filter(|log| log.first > last && !follows(last, log.first)) {
                let from = missing_from(last, log.first);
                return damage(&log.path, 0, last, format!("{from} and what follows is missing before this log"));
            }
        }
        match (self.stored, &self.report.snapshot) {
            (Some(stored), Some(path)) if stored.zxid > last => {
                let problem = format!(
                    "this snapshot has changes up to {} in it, and the log ends with {last}: what it holds is no state",
                    stored.zxid
                );
                damage(path, 0, last, problem)
            }
            _ => Ok(()),
        }
    }

    /// Ephemerals whose session is not there: nobody would ever remove them. ZooKeeper does so when it has loaded.
    fn remove_orphans(&mut self) -> Result<(), Fatal> {
        let known = |session: &SessionId| self.sessions.contains_key(session);
        let mut orphans: Vec<SessionId> = self.tree.sessions_with_ephemerals().filter(|owner| !known(owner)).collect();
        orphans.sort_unstable();
        let extended = OwnerRules { extended_types: true, emulate_353_ttl: false };
        for owner in orphans {
            let paths: Vec<String> = self.tree.ephemerals(owner).collect();
            if let Owner::Ttl(_) = Owner::from_stored(owner.0, extended) {
                let problem = format!(
                    "{} has a time to live: set extendedTypesEnabled=true, as the server had that wrote it",
                    paths.first().map_or("a znode", String::as_str)
                );
                let file = self.report.snapshot.clone().unwrap_or_default();
                return damage(&file, 0, self.last, problem);
            }
            let what = format!("{} ephemerals of the session {owner}, which is not there, were removed", paths.len());
            self.report.notes.push(what);
            self.exact = None;
            let header = TxnHeader { session: owner, cxid: 0, zxid: self.tree.zxid(), time: 0 };
            self.applied.clear();
            self.tree.apply(&header, Txn::CloseSession { paths: None }, &mut self.applied);
        }
        Ok(())
    }

    fn note_missing_acls(&mut self) {
        if !self.tree.acl_lists().iter().any(|(_, list)| is_missing_acl(list)) {
            return; // Replay has given each its list.
        }
        self.exact = None;
        let mut walk = crate::tree::Walk::new();
        let mut left = 0;
        while let Some(node) = walk.next(&self.tree) {
            if is_missing_acl(node.acl()) {
                left += 1;
                if left <= NOTES_MAX {
                    let what =
                        format!("{}: its ACL is not in the snapshot; only the super user may use it", walk.path());
                    self.report.notes.push(what);
                }
            }
        }
        if left > NOTES_MAX {
            self.report.notes.push(format!("{} more znodes without their ACL", left - NOTES_MAX));
        }
    }
}

/// Where in `files.logs` to begin after a snapshot: the newest log that begins no later than the record after it.
pub(super) fn first_log(files: &Files, base: Zxid) -> usize {
    files.logs.iter().rposition(|log| log.first <= following(base)).unwrap_or(0)
}

fn is_zeros<D: Disk>(disk: &D, path: &Path) -> Result<bool, Fatal> {
    let look = || {
        let file = disk.open_to_read(path)?;
        let (len, mut buffer) = (file.len()?, vec![0; 64 << 10]);
        for at in (0..len).step_by(buffer.len()) {
            let some = buffer.len().min((len - at) as usize);
            file.read_at(at, &mut buffer[..some])?;
            if buffer[..some].iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    look().map_err(|error| disk::fatal(path, 0, error))
}
