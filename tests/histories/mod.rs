//! What the tests of a log that changes its mind share: a log over the simulated disk beside a plain list of what it
//! should hold. Bodies are drawn from a counter, so that two histories with the same zxids differ.

#![allow(dead_code, reason = "each test file uses its part")]

use ostler::disk::Disk;
use ostler::disk::sim::{Keep, SimDisk};
use ostler::fatal::Fatal;
use ostler::ids::{Epoch, SessionId, Zxid};
use ostler::log::{Batch, Log, Recovery, Sizes};
use ostler::snapshot::{SnapshotInfo, SnapshotWriter, load_newest};
use ostler::storage::Dirs;
use ostler::tree::{Applied, Progress, Tree, TreeOptions};
use ostler::wire::txn::{Txn, TxnHeader};
use std::path::Path;

pub const SIZES: Sizes = Sizes { first: 4 << 10, segment: 8 << 10 };

pub type Records = Vec<(Zxid, Vec<u8>)>;

pub fn dir() -> &'static Path {
    Path::new("/log")
}

pub fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(dir()).unwrap();
    disk
}

/// A copy of the disk to damage or to crash.
pub fn copy(disk: &SimDisk) -> SimDisk {
    disk.after_crash(Keep::Everything)
}

pub fn zxid(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// Every way in which a crash can leave the disk that the tests try.
pub fn keeps(seed: u64) -> impl Iterator<Item = Keep> {
    let seeds = (0..4).map(move |which| Keep::Some(which * 1_000_003 + seed));
    [Keep::Nothing, Keep::Everything, Keep::Bytes, Keep::Names].into_iter().chain(seeds)
}

/// What a log should hold, and in which order it came to be.
#[derive(Clone, Default, Debug)]
pub struct Model {
    pub records: Records,
    pub made: usize,
}

impl Model {
    pub fn last(&self) -> Zxid {
        self.records.last().map_or(Zxid::ZERO, |record| record.0)
    }

    /// A batch of `count` records that go on in the last epoch, or begin `epoch` if that is a later one.
    pub fn batch(&mut self, epoch: u32, count: usize) -> Batch {
        let mut batch = Batch::new();
        for _ in 0..count {
            let last = self.last();
            let next = if epoch > last.epoch().0 { zxid(epoch, 1) } else { last.next().unwrap() };
            self.made += 1;
            let length = self.made * 37 % 300;
            let body: Vec<u8> = (0..length).map(|at| (self.made * 31 + at * 7) as u8).collect();
            batch.push(next, &body);
            self.records.push((next, body));
        }
        batch
    }

    pub fn append(&mut self, log: &mut Log<SimDisk>, epoch: u32, count: usize) -> Result<(), Fatal> {
        let batch = self.batch(epoch, count);
        log.append(&batch)?;
        assert_eq!(log.sync()?.up_to(), self.last());
        Ok(())
    }

    pub fn truncate(&mut self, to: Zxid) {
        self.records.retain(|record| record.0 <= to);
    }
}

/// Recovers from `from` on: the log, and what it handed out.
pub fn recover(disk: &SimDisk, from: Zxid) -> Result<(Log<SimDisk>, Records), Fatal> {
    let mut recovery = Recovery::open(disk.clone(), dir(), from, SIZES)?;
    let mut records = Records::new();
    while let Some((zxid, body)) = recovery.next()? {
        records.push((zxid, body.to_vec()));
    }
    Ok((recovery.finish()?, records))
}

pub fn dirs() -> Dirs {
    Dirs { snapshots: Path::new("/data").to_owned(), log: dir().to_owned() }
}

pub fn options() -> TreeOptions {
    TreeOptions { digest: true, ..TreeOptions::default() }
}

/// Writes the snapshot of a small tree at `zxid`; `tag` is a session in it, so that two of one zxid can be told apart.
pub fn write_snapshot(disk: &SimDisk, zxid: Zxid, tag: i64) -> Result<SnapshotInfo, Fatal> {
    let mut tree = Tree::new(options());
    let header = TxnHeader { session: SessionId(1), cxid: 0, zxid, time: 0 };
    tree.apply(&header, Txn::Error { code: -110 }, &mut Applied::default());
    let sessions = [(SessionId(tag), 4000)];
    let begun = SnapshotWriter::begin(disk.clone(), &dirs().snapshots, tree.begin_freeze(), &sessions);
    let mut writer = begun.inspect_err(|_| tree.end_freeze())?;
    loop {
        let progress = writer.take(&tree);
        if let Err(fatal) = writer.store() {
            writer.abandon(&tree).discard();
            return Err(fatal);
        }
        if progress == Progress::Done {
            return writer.finish();
        }
    }
}

/// What a start makes of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Zxid and tag.
    pub snapshot: Option<(Zxid, i64)>,
    /// Behind it.
    pub records: Records,
}

impl Found {
    pub fn last(&self) -> Zxid {
        self.records.last().map_or(self.snapshot.map_or(Zxid::ZERO, |snapshot| snapshot.0), |record| record.0)
    }
}

/// As a server does it, when what a crash has interrupted is done.
pub fn read_history(disk: &SimDisk) -> Result<(Log<SimDisk>, Found), Fatal> {
    let newest = load_newest(disk, &dirs().snapshots, options(), 1)?;
    let snapshot = newest.loaded.map(|loaded| (loaded.info.zxid, loaded.sessions[0].0.0));
    let (log, records) = recover(disk, snapshot.map_or(Zxid::ZERO, |snapshot| snapshot.0))?;
    Ok((log, Found { snapshot, records }))
}

/// A history with two snapshots in it and, if asked for, without what is before the first.
pub fn with_snapshots(purged: bool) -> (SimDisk, Model, [Zxid; 2]) {
    let disk = new_disk();
    disk.create_dir(&dirs().snapshots).unwrap();
    let (mut log, _) = recover(&disk, Zxid::ZERO).unwrap();
    let mut model = Model::default();
    for group in 0..40 {
        model.append(&mut log, [0, 2, 3][group / 15], 1 + group % 4).unwrap();
    }
    let snapshots = [40, 70].map(|at| model.records[at].0);
    for (tag, zxid) in snapshots.into_iter().enumerate() {
        write_snapshot(&disk, zxid, tag as i64).unwrap();
    }
    if purged {
        log.purge(snapshots[0]).run().unwrap();
        assert!(log.oldest() > Zxid::ZERO);
    }
    (disk, model, snapshots)
}
