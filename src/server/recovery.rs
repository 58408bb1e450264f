//! State from disk: the newest sound snapshot, and the log behind it replayed.
//!
//! The log is read on a thread of its own (`ahead`), from the time on at which the snapshot begins to be loaded.
//!
//! Runs on: the starting thread; the pipeline's, where a learner has to take back what its tree has.

mod ahead;

use crate::clock;
use crate::disk::{QuietDisk, RealDisk};
use crate::fatal::Fatal;
use crate::ids::{SessionId, Zxid};
use crate::limits;
use crate::log::epochs::Epochs;
use crate::log::{Batch, Log, LogView, Sizes};
use crate::session::SessionTable;
use crate::snapshot::{self, Keeper};
use crate::storage::{self, Dirs, Quarantine};
use crate::tree::{Applied, Tree, TreeOptions};
use crate::wire::OpCode;
use crate::wire::txn::{Txn, TxnDigest, read_txn};
use crate::zab::History;
use ahead::Ahead;
use std::path::Path;

/// The state that the disk gave back.
pub struct Recovered {
    pub tree: Tree,
    pub sessions: SessionTable,
    pub keeper: Keeper<QuietDisk>,
    pub log: Log<RealDisk>,
    /// Bytes of the snapshot, 0 if there was none.
    pub snapshot_bytes: u64,
    /// Records behind the snapshot, and their bytes.
    pub replayed: (u64, u64),
    /// The snapshot is a leader's, and nothing shows yet that all which belongs to it is here (`storage::may_be_fuzzy`).
    pub fuzzy: bool,
    /// As `Part` has it.
    configs: Configs,
    /// Of a server of an ensemble.
    pub part: Option<Part>,
}

type Configs = Vec<(Zxid, Vec<u8>)>;

/// What a server of an ensemble has beside tree, sessions and log.
pub struct Part {
    /// The newest records.
    pub history: History,
    pub epochs: Epochs,
    pub quarantine: Option<Quarantine>,
    /// The members that the snapshot says (`Tree::config`) and those of each reconfiguration behind it, with their zxids.
    pub configs: Configs,
}

/// What a server that is alone has on its disk. Damage stops it.
pub fn recover_alone(disk: &RealDisk, dirs: &Dirs, options: TreeOptions, tick_ms: u64) -> Result<Recovered, Fatal> {
    let sizes = Sizes::default();
    let recovered = storage::recover_alone(disk, dirs, sizes, || read(disk, dirs, options, tick_ms, &mut None))?;
    if recovered.fuzzy {
        storage::refuse_fuzzy(dirs)?;
    }
    storage::settle(disk, dirs)?;
    // Alone it promises nobody anything; but the same directory may be a member's next time.
    let last = recovered.tree.zxid();
    let stored = Epochs::load(disk, &dirs.log)?;
    if stored.is_none_or(|epochs| epochs.current < last.epoch()) {
        let accepted = stored.map_or(last.epoch(), |epochs| epochs.accepted.max(last.epoch()));
        Epochs::new(accepted, last.epoch()).store(disk, &dirs.log)?;
    }
    Ok(recovered)
}

/// What a member of an ensemble has. What is damaged is set aside, and then it has no vote.
pub fn recover_member(disk: &RealDisk, dirs: &Dirs, options: TreeOptions, tick_ms: u64) -> Result<Recovered, Fatal> {
    let ((mut recovered, history, epochs), quarantine) = storage::recover(disk, dirs, Sizes::default(), || {
        let mut history = Some(History::new(Zxid::ZERO, limits::HISTORY_BYTES));
        let recovered = read(disk, dirs, options, tick_ms, &mut history)?;
        let stored = Epochs::load(disk, &dirs.log)?;
        let epochs = Epochs::reconcile(stored, recovered.tree.zxid(), &dirs.log)?;
        if stored != Some(epochs) {
            epochs.store(disk, &dirs.log)?;
        }
        Ok((recovered, history.expect("put there above"), epochs))
    })?;
    if !recovered.fuzzy {
        storage::settle(disk, dirs)?;
    }
    if let Some(quarantine) = &quarantine {
        tracing::error!(
            "this server's history is damaged ({}); it is good up to zxid {}. Damaged files were renamed to \
             damaged.{}.*. Until a leader has repaired it, this server does not vote; it joins as soon as the others \
             have a leader.",
            quarantine.reason,
            quarantine.good,
            quarantine.round
        );
    }
    let configs = std::mem::take(&mut recovered.configs);
    Ok(Recovered { part: Some(Part { history, epochs, quarantine, configs }), ..recovered })
}

/// Loads and replays. A server of an ensemble hands in an empty `history`, which gets the newest records.
///
/// A digest that is wrong half-way is no reason to stop if a later one is right: the snapshot may be of a leader that takes
/// fuzzy ones, whoever starts from it now. Where a note says that this one may lack what belongs to it, no digest is a reason
/// to stop before one was right.
fn read(
    disk: &RealDisk,
    dirs: &Dirs,
    options: TreeOptions,
    tick_ms: u64,
    history: &mut Option<History>,
) -> Result<Recovered, Fatal> {
    let (snapshot_dir, log_dir) = (&dirs.snapshots, &dirs.log);
    let began = clock::now();
    // How long the news takes that a session was heard from: half a tick here, and another from a learner to its leader.
    let news_ms = if history.is_some() { tick_ms } else { tick_ms / 2 + 100 };
    let mut sessions = SessionTable::new(tick_ms as u32, news_ms, began);
    let mut keeper = Keeper::new(QuietDisk::default(), snapshot_dir);
    // If the names can't be read, loading says so.
    let newest = snapshot::list(disk, snapshot_dir).ok().and_then(|all| all.first().copied());
    if let Some(zxid) = newest {
        tracing::info!("loading the snapshot at zxid {zxid}");
    }
    std::thread::scope(|scope| {
        let guess = newest.unwrap_or(Zxid::ZERO);
        let mut ahead = Ahead::start(scope, log_dir, guess);
        let (mut tree, snapshot_bytes) = load(disk, snapshot_dir, options, &mut sessions, &mut keeper)?;
        if tree.zxid() != guess {
            // Damaged, that one: the log is needed from an older one on.
            ahead.abandon();
            ahead = Ahead::start(scope, log_dir, tree.zxid());
        }
        if let Some(history) = history {
            history.reset(tree.zxid());
        }
        // A file may have given it a version that is newer than the history.
        let configs = tree.config().map(|(zxid, text)| (zxid.min(tree.zxid()), text.to_vec())).into_iter().collect();
        let mut replay = Replay {
            dir: log_dir,
            options,
            fuzzy: storage::may_be_fuzzy(disk, dirs, tree.zxid())?,
            tree: &mut tree,
            sessions: &mut sessions,
            history,
            applied: Applied::default(),
            configs,
            wrong: None,
        };
        let mut replayed = (0, 0);
        let mut told = Told::default();
        while let Some(piece) = ahead.next() {
            replayed = (replayed.0 + piece.records.len() as u64, replayed.1 + piece.records.body_bytes() as u64);
            if let Err(fatal) = replay.apply(&piece.records) {
                return Err(ahead.fail(fatal));
            }
            told.look(piece.progress);
            ahead.give_back(piece);
        }
        let recovery = ahead.finish()?;
        let configs = std::mem::take(&mut replay.configs);
        let fuzzy = replay.conclude()?;
        let log = recovery.finish()?;
        if replayed.0 > 0 {
            tracing::info!(
                "replayed {} transactions of the log, {} bytes, behind the snapshot",
                replayed.0,
                replayed.1
            );
        }
        sessions.restart_clocks(clock::now());
        Ok(Recovered { tree, sessions, keeper, log, snapshot_bytes, replayed, fuzzy, configs, part: None })
    })
}

/// The newest sound snapshot, or what is there without one; and its bytes.
fn load(
    disk: &RealDisk,
    dir: &Path,
    options: TreeOptions,
    sessions: &mut SessionTable,
    keeper: &mut Keeper<QuietDisk>,
) -> Result<(Tree, u64), Fatal> {
    let began = clock::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let newest = snapshot::load_newest(disk, dir, options, threads)?;
    for fatal in &newest.damaged {
        tracing::error!("{fatal}; going back to an older snapshot");
    }
    let Some(loaded) = newest.loaded else { return Ok((Tree::new(options), 0)) };
    let now = clock::now();
    let (info, ms) = (loaded.info, now.since(began).as_millis());
    tracing::info!("the snapshot at zxid {} has {} znodes, {} bytes ({ms} ms)", info.zxid, info.nodes, info.bytes);
    for newer in snapshot::list(disk, dir)?.into_iter().filter(|&zxid| zxid > info.zxid) {
        keeper.not_loaded(newer);
    }
    keeper.loaded(info.zxid);
    for &(session, timeout_ms) in &loaded.sessions {
        sessions.add(session, timeout_ms, None, now);
    }
    Ok((loaded.tree, info.bytes))
}

/// What the log is applied to.
struct Replay<'a> {
    dir: &'a Path,
    options: TreeOptions,
    tree: &'a mut Tree,
    sessions: &'a mut SessionTable,
    history: &'a mut Option<History>,
    applied: Applied,
    configs: Configs,
    /// The snapshot may be, and nothing has shown yet that the tree is right.
    fuzzy: bool,
    /// The first record behind which the tree was another than the log says, and has been so ever since.
    wrong: Option<(Zxid, String)>,
}

impl Replay<'_> {
    fn apply(&mut self, records: &Batch) -> Result<(), Fatal> {
        for (zxid, record) in records.records() {
            let fail = |problem| Fatal::LogRecord { dir: self.dir.to_owned(), zxid, problem };
            let configs = &mut self.configs;
            let digest = replay(zxid, record, self.tree, self.sessions, &mut self.applied, configs).map_err(fail)?;
            if let Some(digest) = digest.filter(|_| self.options.digest) {
                self.compare(zxid, digest);
            }
            if let Some(history) = self.history {
                history.push(zxid, record);
            }
        }
        Ok(())
    }

    /// Equal trees stay equal, so one right digest settles all that were wrong before it.
    fn compare(&mut self, zxid: Zxid, said: u64) {
        let here = self.tree.digest();
        if said == here {
            (self.wrong, self.fuzzy) = (None, false);
            return;
        }
        let problem = || format!("the tree's digest is {here:#x} where the log says {said:#x}");
        self.wrong.get_or_insert_with(|| (zxid, problem()));
    }

    /// A tree that is another than the log says, at its end, is damage, or a bug: the server must not go on with it. `true`: it
    /// may be another, since what belongs to a fuzzy snapshot is still to come.
    fn conclude(&mut self) -> Result<bool, Fatal> {
        match self.wrong.take() {
            Some((zxid, problem)) if !self.fuzzy => Err(Fatal::LogRecord { dir: self.dir.to_owned(), zxid, problem }),
            _ => Ok(self.fuzzy),
        }
    }
}

/// Bytes to be read above which a start says how far it is: it takes seconds then.
pub(super) const TELL_FROM_BYTES: u64 = 256 << 20;

/// What whoever waits for a long replay has been told.
#[derive(Default)]
struct Told {
    tenths: u64,
}

impl Told {
    fn look(&mut self, (read, total): (u64, u64)) {
        let tenths = read * 10 / total.max(1);
        if total > TELL_FROM_BYTES && tenths > self.tenths {
            self.tenths = tenths;
            tracing::info!("replaying the log: {} % of {} MiB", tenths * 10, total >> 20);
        }
    }
}

/// The tree and the sessions as snapshots and a log that is open have them, up to its end.
pub fn rebuild(
    disk: &RealDisk,
    snapshot_dir: &Path,
    log: &LogView<RealDisk>,
    options: TreeOptions,
) -> Result<(Tree, Vec<(SessionId, i32)>), Fatal> {
    let now = clock::now();
    let mut sessions = SessionTable::new(1000, 0, now);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut tree = match snapshot::load_newest(disk, snapshot_dir, options, threads)?.loaded {
        Some(loaded) => {
            for &(session, timeout_ms) in &loaded.sessions {
                sessions.add(session, timeout_ms, None, now);
            }
            loaded.tree
        }
        None => Tree::new(options),
    };
    let fail = |zxid, problem| Fatal::LogRecord { dir: snapshot_dir.to_owned(), zxid, problem };
    let mut applied = Applied::default();
    let mut batch = Batch::new();
    let begin = tree.zxid();
    let mut cursor = log.read_after_own(begin).map_err(|error| fail(begin, error.to_string()))?;
    loop {
        let position = cursor.position();
        cursor.read(log.last(), 1 << 20, &mut batch).map_err(|error| fail(position, error.to_string()))?;
        if batch.is_empty() {
            return Ok((tree, sessions.timeouts()));
        }
        for (zxid, record) in batch.records() {
            replay(zxid, record, &mut tree, &mut sessions, &mut applied, &mut Vec::new())
                .map_err(|problem| fail(zxid, problem))?;
        }
    }
}

/// One record of the log, and the digest that it says the tree has then. What does not decode or does not fit is damage that
/// the checksums did not see, or a bug: the server must not go on with it.
fn replay(
    zxid: Zxid,
    record: &[u8],
    tree: &mut Tree,
    sessions: &mut SessionTable,
    applied: &mut Applied,
    configs: &mut Configs,
) -> Result<Option<u64>, String> {
    let (header, txn, digest) = read_txn(record).map_err(|error| error.to_string())?;
    if header.zxid != zxid {
        return Err(format!("the transaction says that it is {}", header.zxid));
    }
    match &txn {
        Txn::CreateSession { timeout_ms } => sessions.add(header.session, *timeout_ms, None, clock::now()),
        Txn::CloseSession { .. } => drop(sessions.remove(header.session)),
        Txn::SetData { op: OpCode::Reconfig, data, .. } => {
            configs.push((zxid, data.as_deref().unwrap_or_default().to_vec()));
        }
        _ => {}
    }
    applied.clear();
    tree.apply(&header, txn, applied);
    // Another version is a sum over other things.
    Ok(digest.filter(|digest| digest.version == TxnDigest::VERSION).map(|digest| digest.tree))
}

#[cfg(test)]
mod tests;
