//! What one simulated server keeps on its disk: log, epochs, snapshots; and the thread that writes them.
//!
//! Operations are done one after another, as by the log writer: each takes a while, and what it promises is true when it is
//! done. Proposals that gather meanwhile become one group. An append is in the map from its beginning, so that a crash
//! finds it unsynced. Recovery is the server's own, over `disk::sim`.

use crate::broken::{Bug, is};
use crate::network::Time;
use crate::server::{Action, Ctx, Report};
use ostler::disk::{Disk, sim::SimDisk};
use ostler::fatal::Fatal;
use ostler::ids::{Epoch, SessionId, Zxid};
use ostler::log::epochs::Epochs;
use ostler::log::{Batch, Log, Recovery, Sizes, TruncateError};
use ostler::snapshot::{self, Keeper, SessionRecord, SnapshotWriter};
use ostler::storage::{self, Dirs, Install};
use ostler::tree::{Applied, Progress, Tree, TreeOptions};
use ostler::wire::txn::{Txn, read_txn};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

pub const SIZES: Sizes = Sizes { first: 8 << 10, segment: 16 << 10 };
/// Snapshots that a purge keeps.
const KEEP: usize = 2;

pub fn dir() -> &'static Path {
    Path::new("/data")
}

fn dirs() -> Dirs {
    Dirs { snapshots: dir().to_owned(), log: dir().to_owned() }
}

pub enum DiskOp {
    Append(Batch),
    Epochs {
        accepted: Epoch,
        current: Epoch,
        role: u32,
    },
    /// `refused`: why it was not done, and nothing of the log was changed.
    Truncate {
        to: Zxid,
        role: u32,
        refused: Option<String>,
    },
    Install {
        zxid: Zxid,
        tree: Box<Tree>,
        sessions: Vec<SessionRecord>,
        role: u32,
    },
}

pub struct Storage {
    disk: SimDisk,
    log: Log<SimDisk>,
    queue: VecDeque<DiskOp>,
    running: Option<DiskOp>,
    /// What went wrong when the running operation began.
    failed: Option<Fatal>,
    snapshot: Option<SnapshotWriter<SimDisk>>,
    keeper: Keeper<SimDisk>,
    /// Zxid of the snapshot that the log was replayed over.
    pub replayed_from: Zxid,
}

/// What a disk gives back at a start.
pub struct Recovered {
    pub storage: Storage,
    pub tree: Tree,
    pub sessions: Vec<SessionRecord>,
    pub epochs: Epochs,
    pub records: Vec<(Zxid, Vec<u8>)>,
    pub quarantined: bool,
}

/// A snapshot and what the log adds to it.
struct Replayed {
    tree: Tree,
    sessions: BTreeMap<SessionId, i32>,
    from: Zxid,
    records: Vec<(Zxid, Vec<u8>)>,
    recovery: Recovery<SimDisk>,
}

fn replay(disk: &SimDisk) -> Result<Replayed, Fatal> {
    let newest = snapshot::load_newest(disk, dir(), TreeOptions::default(), 1)?;
    let (mut tree, mut sessions) = match newest.loaded {
        Some(loaded) => (loaded.tree, loaded.sessions.into_iter().collect()),
        None => (Tree::new(TreeOptions::default()), BTreeMap::new()),
    };
    let from = tree.zxid();
    let mut recovery = Recovery::open(disk.clone(), dir(), from, SIZES)?;
    let mut records = Vec::new();
    let mut applied = Applied::default();
    while let Some((zxid, record)) = recovery.next()? {
        records.push((zxid, record.to_vec()));
        let problem = |problem: String| Fatal::LogRecord { dir: dir().to_owned(), zxid, problem };
        let (header, txn, digest) = read_txn(record).map_err(|error| problem(error.to_string()))?;
        match &txn {
            Txn::CreateSession { timeout_ms } => drop(sessions.insert(header.session, *timeout_ms)),
            Txn::CloseSession { .. } => drop(sessions.remove(&header.session)),
            _ => {}
        }
        applied.clear();
        tree.apply(&header, txn, &mut applied);
        if digest.is_some_and(|digest| digest.tree != tree.digest()) {
            return Err(problem("another digest".to_owned()));
        }
    }
    Ok(Replayed { tree, sessions, from, records, recovery })
}

/// Starts from a disk. An error is what the process ends with.
pub fn recover(disk: &SimDisk) -> Result<Recovered, Fatal> {
    disk.create_dir(dir()).map_err(|source| Fatal::DataDir { dir: dir().to_owned(), source })?;
    let (recovered, quarantine) = storage::recover(disk, &dirs(), SIZES, || attempt(disk))?;
    Ok(Recovered { quarantined: quarantine.is_some(), ..recovered })
}

fn attempt(disk: &SimDisk) -> Result<Recovered, Fatal> {
    let Replayed { tree, sessions, from, records, recovery } = replay(disk)?;
    let log = recovery.finish()?;
    let stored = Epochs::load(disk, dir())?;
    let epochs = if is(Bug::CurrentEpochIsThatOfTheLog) {
        let last = log.last_zxid().epoch();
        Epochs::new(stored.map_or(last, |stored| stored.accepted).max(last), last)
    } else {
        Epochs::reconcile(stored, log.last_zxid(), dir())?
    };
    if stored != Some(epochs) {
        epochs.store(disk, dir())?;
    }
    let mut keeper = Keeper::new(disk.clone(), dir());
    if from > Zxid::ZERO {
        keeper.loaded(from);
    }
    let storage = Storage {
        disk: disk.clone(),
        log,
        queue: VecDeque::new(),
        running: None,
        failed: None,
        snapshot: None,
        keeper,
        replayed_from: from,
    };
    Ok(Recovered { storage, tree, sessions: sessions.into_iter().collect(), epochs, records, quarantined: false })
}

impl Storage {
    pub fn log(&self) -> &Log<SimDisk> {
        &self.log
    }

    pub fn options(&self) -> TreeOptions {
        TreeOptions::default()
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.queue.is_empty()
    }

    pub fn submit(&mut self, op: DiskOp, ctx: &mut Ctx<'_>) {
        self.queue.push_back(op);
        self.start(ctx);
    }

    fn start(&mut self, ctx: &mut Ctx<'_>) {
        if self.running.is_some() {
            return;
        }
        let Some(mut op) = self.queue.pop_front() else { return };
        if let DiskOp::Append(batch) = &mut op {
            while let Some(DiskOp::Append(more)) = self.queue.front() {
                more.records().for_each(|(zxid, record)| batch.push(zxid, record));
                self.queue.pop_front();
            }
            self.failed = self.log.append(batch).err();
        }
        self.running = Some(op);
        let (least, most) = ctx.knobs.disk;
        ctx.actions.push(Action::Disk(least + ctx.rng.below((most - least).max(1))));
    }

    /// Finishes what is running: what it returns is durable.
    pub fn complete(&mut self, ctx: &mut Ctx<'_>) -> Result<DiskOp, Fatal> {
        let mut op = self.running.take().expect("something is running");
        if let Some(fatal) = self.failed.take() {
            return Err(fatal);
        }
        match &mut op {
            DiskOp::Append(batch) => {
                let durable = self.log.sync()?;
                assert_eq!(Some(durable.up_to()), batch.last_zxid());
            }
            DiskOp::Epochs { accepted, current, .. } => Epochs::new(*accepted, *current).store(&self.disk, dir())?,
            DiskOp::Truncate { to, refused, .. } => {
                ctx.report(Report::Replacing(*to));
                if !is(Bug::TruncatedInMemoryOnly) {
                    *refused = self.truncate(*to)?;
                }
            }
            DiskOp::Install { zxid, tree, sessions, .. } => {
                ctx.report(Report::Replacing(*zxid));
                if !is(Bug::SnapshotKeptInMemory) {
                    self.install(*zxid, tree, sessions)?;
                }
            }
        }
        self.start(ctx);
        Ok(op)
    }

    /// Why it can't be done, if it can't.
    fn truncate(&mut self, to: Zxid) -> Result<Option<String>, Fatal> {
        match storage::truncate(&self.disk, &dirs(), &mut self.log, to) {
            Ok(()) => Ok(None),
            Err(TruncateError::Fatal(fatal)) => Err(fatal),
            Err(error @ TruncateError::NotHeld { to, oldest, .. }) if to >= oldest => {
                panic!("a leader asks for a wrong place: {error}")
            }
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    fn install(&mut self, zxid: Zxid, tree: &Tree, sessions: &[SessionRecord]) -> Result<(), Fatal> {
        let install = Install::begin(self.disk.clone(), &dirs(), &self.log, zxid)?;
        let mut writer = SnapshotWriter::begin(self.disk.clone(), dir(), tree.begin_freeze(), sessions)?;
        loop {
            let progress = writer.take(tree);
            writer.store()?;
            if progress == Progress::Done {
                break;
            }
        }
        writer.finish()?;
        install.commit(&mut self.log)?;
        self.keeper = Keeper::new(self.disk.clone(), dir());
        self.keeper.loaded(zxid);
        Ok(())
    }

    /// The state that the disk has: after a truncation.
    pub fn read_back(&self, ctx: &mut Ctx<'_>) -> Result<(Tree, ostler::session::SessionTable), Fatal> {
        let replayed = replay(&self.disk)?;
        let sessions: Vec<SessionRecord> = replayed.sessions.into_iter().collect();
        Ok((replayed.tree, crate::server::session_table(&sessions, ctx)))
    }

    pub fn end_quarantine(&mut self) -> Result<(), Fatal> {
        storage::release(&self.disk, &dirs())
    }

    /// Not while the history is about to change.
    pub fn can_snapshot(&self) -> bool {
        let changes = |op: &DiskOp| matches!(op, DiskOp::Truncate { .. } | DiskOp::Install { .. });
        self.snapshot.is_none() && !self.queue.iter().chain(&self.running).any(changes)
    }

    pub fn begin_snapshot(&mut self, tree: &Tree, sessions: &[SessionRecord], ctx: &mut Ctx<'_>) {
        match SnapshotWriter::begin(self.disk.clone(), dir(), tree.begin_freeze(), sessions) {
            Ok(writer) => self.snapshot = Some(writer.slices_of(600)),
            Err(fatal) => {
                tree.end_freeze();
                ctx.actions.push(Action::Exit(fatal));
            }
        }
    }

    pub fn abandon_snapshot(&mut self, tree: &Tree) {
        if let Some(writer) = self.snapshot.take() {
            writer.abandon(tree).discard();
        }
    }

    /// A piece of the snapshot that is being written; then what is older goes.
    pub fn snapshot_slice(&mut self, tree: &Tree, ctx: &mut Ctx<'_>) {
        let Some(writer) = &mut self.snapshot else { return };
        let progress = writer.take(tree);
        if let Err(fatal) = writer.store() {
            return ctx.actions.push(Action::Exit(fatal));
        }
        if progress == Progress::Done {
            let writer = self.snapshot.take().expect("it is being written");
            let purged = writer.finish().and_then(|info| {
                self.keeper.loaded(info.zxid);
                self.keeper.purge(KEEP)
            });
            let result = purged.and_then(|kept| match kept.oldest {
                Some(oldest) if self.running.is_none() => self.log.purge(oldest).run(),
                _ => Ok(()),
            });
            if let Err(fatal) = result {
                ctx.actions.push(Action::Exit(fatal));
            }
        }
    }
}

/// The shortest time of a disk operation in a quiet world.
pub const DISK_LEAST: Time = crate::network::MS / 5;
