//! Writes snapshots while everything else goes on: the pipeline has frozen the tree at a zxid, this thread reads the
//! image slice by slice under its own part of the lock.
//!
//! When a snapshot is durable, older ones beyond those to be kept are removed, and the log writer is told up to where
//! the log is not needed any more.
//!
//! Runs on: a thread of its own, asleep between snapshots.

use crate::clock::{self, Now};
use crate::config::{Purge, PurgeWhen};
use crate::disk::QuietDisk;
use crate::fatal::Fatal;
use crate::ids::{SessionId, Zxid};
use crate::limits;
use crate::metrics::{Counter, Recorder, Summary};
use crate::server::log_writer::LogWriter;
use crate::server::shared::Shared;
use crate::server::tree_lock;
use crate::snapshot::{Keeper, SnapshotInfo, SnapshotWriter};
use crate::tree::{Frozen, Progress, Tree};
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What a snapshot holds beside the tree.
struct Order {
    frozen: Frozen,
    sessions: Vec<(SessionId, i32)>,
}

/// How the pipeline talks with the snapshotter.
pub struct SnapshotMail {
    order: Mutex<(Option<Order>, bool)>,
    arrived: Condvar,
    done: Condvar,
    busy: AtomicBool,
    /// Bytes of the newest snapshot, 0 if there is none.
    last_bytes: AtomicU64,
    /// The pipeline waits for saved images to be written out.
    pipeline_waits: AtomicBool,
    /// Where the snapshots are. It is in no hurry until someone waits for what is under way.
    disk: QuietDisk,
}

impl SnapshotMail {
    /// `last_bytes`: of the snapshot that has been loaded.
    pub fn new(disk: QuietDisk, last_bytes: u64) -> SnapshotMail {
        let idle = AtomicBool::new(false);
        let (order, last_bytes) = (Mutex::default(), AtomicU64::new(last_bytes));
        let (arrived, done, pipeline_waits) = (Condvar::new(), Condvar::new(), AtomicBool::new(false));
        SnapshotMail { order, arrived, done, busy: idle, last_bytes, pipeline_waits, disk }
    }

    /// One snapshot at a time.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// Bytes of the newest snapshot, 0 if there is none.
    pub fn last_bytes(&self) -> u64 {
        self.last_bytes.load(Ordering::Relaxed)
    }

    /// The tree has been frozen.
    pub fn begin(&self, frozen: Frozen, sessions: Vec<(SessionId, i32)>) {
        self.disk.set_hurry(false);
        self.busy.store(true, Ordering::SeqCst);
        self.order.lock().0 = Some(Order { frozen, sessions });
        self.arrived.notify_one();
    }

    /// Whether more may be changed while a snapshot is read; if not, the pipeline is rung when it may.
    pub fn has_room(&self, tree: &Tree) -> bool {
        let room = || !self.is_busy() || tree.frozen_bytes() < limits::SNAPSHOT_SAVED_BYTES;
        if self.is_busy() && tree.frozen_bytes() > limits::SNAPSHOT_SAVED_BYTES / 4 {
            self.disk.set_hurry(true);
        }
        if room() {
            return true;
        }
        self.pipeline_waits.store(true, Ordering::SeqCst);
        // It may have been made before anybody knew that it is waited for.
        room()
    }

    /// Waits until no snapshot is being written, nor old ones removed: the history that they belong to is about to change.
    pub fn wait_until_idle(&self) {
        self.disk.set_hurry(true);
        let mut order = self.order.lock();
        while self.is_busy() {
            self.done.wait(&mut order);
        }
    }

    fn finished(&self) {
        let _order = self.order.lock();
        self.busy.store(false, Ordering::SeqCst);
        self.done.notify_all();
    }

    pub fn stop(&self) {
        self.disk.set_hurry(true);
        self.order.lock().1 = true;
        self.arrived.notify_one();
    }
}

pub struct Snapshotter {
    pub dir: PathBuf,
    pub purge: Purge,
    pub keeper: Keeper<QuietDisk>,
    pub reader: tree_lock::Reader,
    pub mail: Arc<SnapshotMail>,
    pub log_writer: Arc<LogWriter>,
    pub shared: Arc<Shared>,
    pub recorder: Recorder,
}

impl Snapshotter {
    /// Until the mail says stop. A snapshot under way is given up then: the log has everything that it would have had.
    pub fn run(mut self) -> Result<(), Fatal> {
        let mut next_purge = match self.purge.when {
            PurgeWhen::EveryHours(_) => Some(clock::now()),
            PurgeWhen::Never | PurgeWhen::AfterSnapshot => None,
        };
        loop {
            if let (Some(at), PurgeWhen::EveryHours(hours)) = (next_purge, self.purge.when)
                && at <= clock::now()
            {
                self.remove_old()?;
                next_purge = Some(clock::now().plus(Duration::from_secs(3600 * u64::from(hours))));
            }
            let order = {
                let mut mail = self.mail.order.lock();
                while mail.0.is_none() && !mail.1 && next_purge.is_none_or(|at| at > clock::now()) {
                    match next_purge {
                        Some(at) => drop(self.mail.arrived.wait_for(&mut mail, at.since(clock::now()))),
                        None => self.mail.arrived.wait(&mut mail),
                    }
                }
                if mail.1 {
                    return Ok(());
                }
                mail.0.take()
            };
            if let Some(order) = order {
                self.write(order)?;
            }
        }
    }

    fn write(&mut self, order: Order) -> Result<(), Fatal> {
        let started = clock::now();
        let zxid = order.frozen.zxid;
        let written = self.write_frozen(order);
        let written = self.conclude(zxid, started, written);
        self.mail.finished();
        // Whatever waited for room, or for the snapshot, has it now.
        self.shared.pipeline_bell.ring();
        written
    }

    fn conclude(
        &mut self,
        zxid: Zxid,
        started: Now,
        written: Result<Option<SnapshotInfo>, Fatal>,
    ) -> Result<(), Fatal> {
        match written {
            Ok(Some(info)) => {
                self.mail.last_bytes.store(info.bytes, Ordering::Relaxed);
                let took = clock::now().since(started).as_millis() as u64;
                self.recorder.observe(Summary::Snapshottime, took, 1);
                self.recorder.count(Counter::SnapCount, 1);
                tracing::info!("snapshot of {} znodes at zxid {zxid}: {} bytes in {took} ms", info.nodes, info.bytes);
                if self.purge.when == PurgeWhen::AfterSnapshot {
                    self.remove_old()?;
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            // The log goes on growing instead, and says so itself when there is no room for it.
            Err(fatal @ Fatal::DiskFull { .. }) => {
                self.recorder.count(Counter::SnapshotErrorCount, 1);
                tracing::error!("{fatal}; the snapshot was given up, the log is kept. {}", fatal.advice());
                Ok(())
            }
            Err(fatal) => Err(fatal),
        }
    }

    /// `None` if the server is stopping.
    fn write_frozen(&self, order: Order) -> Result<Option<SnapshotInfo>, Fatal> {
        let mut writer = match SnapshotWriter::begin(self.mail.disk.clone(), &self.dir, order.frozen, &order.sessions) {
            Ok(writer) => writer,
            Err(fatal) => {
                self.reader.read().end_freeze();
                return Err(fatal);
            }
        };
        loop {
            let progress = writer.take(&self.reader.read());
            if let Err(fatal) = writer.store() {
                writer.abandon(&self.reader.read());
                return Err(fatal);
            }
            if self.mail.pipeline_waits.swap(false, Ordering::SeqCst) {
                self.shared.pipeline_bell.ring();
            }
            if progress == Progress::Done {
                // So that a lost end of the log can't be taken for an older one that the snapshot has gone beyond.
                self.log_writer.with_log(|log| log.settle())?;
                return writer.finish().map(Some);
            }
            if self.shared.is_stopping() {
                writer.abandon(&self.reader.read());
                return Ok(None);
            }
        }
    }

    /// Old snapshots, and the log before the oldest that stays.
    fn remove_old(&mut self) -> Result<(), Fatal> {
        let kept = self.keeper.purge(self.purge.snap_retain_count as usize)?;
        for zxid in &kept.damaged {
            tracing::error!("the snapshot at zxid {zxid} is damaged; it is kept, and an older one in its place");
        }
        if let Some(oldest) = kept.oldest {
            self.log_writer.mailbox.purge(oldest);
        }
        if kept.removed > 0 {
            tracing::info!("removed {} old snapshots", kept.removed);
        }
        Ok(())
    }
}
