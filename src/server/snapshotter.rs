//! Writes snapshots while everything else goes on: the pipeline has frozen the tree at a zxid, this thread reads the
//! image slice by slice under its own part of the lock.
//!
//! When a snapshot is durable, older ones beyond those to be kept are removed, and the log writer is told up to where
//! the log is not needed any more.
//!
//! Runs on: a thread of its own, asleep between snapshots.

use crate::clock::{self, Now};
use crate::config::{Purge, PurgeWhen};
use crate::disk::{Hurry, QuietDisk};
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

#[derive(Default)]
struct Mail {
    order: Option<Order>,
    stop: bool,
    /// The history is about to change: nothing begins.
    held: bool,
}

impl Mail {
    /// How long until a purge that is due at a time. `None`: none is, or not before the history is let go.
    fn until_purge(&self, due: Option<Now>) -> Option<Duration> {
        due.filter(|_| !self.held).map(|at| at.since(clock::now()))
    }

    /// What is to be done now. `to_purge`: how long until a purge is due.
    fn take(&mut self, to_purge: Option<Duration>) -> Option<Task> {
        if self.stop {
            return Some(Task::Stop);
        }
        if let Some(order) = self.order.take() {
            return Some(Task::Write(order));
        }
        (to_purge == Some(Duration::ZERO)).then_some(Task::Purge)
    }
}

/// How the last attempt to write a snapshot has ended.
pub enum Outcome {
    Written(Zxid),
    /// There was no room for it.
    Failed {
        why: String,
        at: Now,
    },
}

/// As long as it lives, no snapshot is written, and none is removed but by its holder.
pub struct Held<'a>(&'a SnapshotMail);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.mail.lock().held = false;
        self.0.arrived.notify_one();
    }
}

/// How the pipeline talks with the snapshotter.
pub struct SnapshotMail {
    mail: Mutex<Mail>,
    arrived: Condvar,
    done: Condvar,
    busy: AtomicBool,
    outcome: Mutex<Option<Outcome>>,
    /// Bytes of the newest snapshot, 0 if there is none.
    last_bytes: AtomicU64,
    /// The pipeline waits for saved images to be written out.
    pipeline_waits: AtomicBool,
    /// What was known of the snapshots that are there may be wrong.
    doubted: AtomicBool,
    /// Where the snapshots are. It is in no hurry until someone waits for what is under way.
    disk: QuietDisk,
}

impl SnapshotMail {
    /// `last_bytes`: of the snapshot that has been loaded.
    pub fn new(disk: QuietDisk, last_bytes: u64) -> SnapshotMail {
        let idle = AtomicBool::new(false);
        let (mail, outcome, last_bytes) = (Mutex::default(), Mutex::default(), AtomicU64::new(last_bytes));
        let (arrived, done, pipeline_waits) = (Condvar::new(), Condvar::new(), AtomicBool::new(false));
        let doubted = AtomicBool::new(false);
        SnapshotMail { mail, arrived, done, busy: idle, outcome, last_bytes, pipeline_waits, doubted, disk }
    }

    /// One snapshot at a time.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// Bytes of the newest snapshot, 0 if there is none.
    pub fn last_bytes(&self) -> u64 {
        self.last_bytes.load(Ordering::Relaxed)
    }

    /// How the last snapshot has ended that was begun, once.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.lock().take()
    }

    /// The tree has been frozen.
    pub fn begin(&self, frozen: Frozen, sessions: Vec<(SessionId, i32)>) {
        self.disk.set_hurry(Hurry::Awaited, false);
        let mut mail = self.mail.lock();
        self.busy.store(true, Ordering::SeqCst);
        mail.order = Some(Order { frozen, sessions });
        self.arrived.notify_one();
    }

    /// Whether more may be changed while a snapshot is read; if not, the pipeline is rung when it may.
    pub fn has_room(&self, tree: &Tree) -> bool {
        let room = || !self.is_busy() || tree.frozen_bytes() < limits::SNAPSHOT_SAVED_BYTES;
        if self.is_busy() && tree.frozen_bytes() > limits::SNAPSHOT_SAVED_BYTES / 4 {
            self.disk.set_hurry(Hurry::Room, true);
        }
        if room() {
            return true;
        }
        self.pipeline_waits.store(true, Ordering::SeqCst);
        // It may have been made before anybody knew that it is waited for.
        room()
    }

    /// Somebody waits for what is under way.
    pub fn hurry(&self) {
        self.disk.set_hurry(Hurry::Awaited, true);
    }

    /// A snapshot has been found damaged: the next purge reads all of those anew that it counts on.
    pub fn doubt(&self) {
        self.doubted.store(true, Ordering::SeqCst);
    }

    /// Waits until no snapshot is being written, nor old ones removed: the history that they belong to is about to change.
    /// Others may have their names afterwards.
    pub fn hold(&self) -> Held<'_> {
        self.doubt();
        self.hurry();
        let mut mail = self.mail.lock();
        while self.is_busy() {
            self.done.wait(&mut mail);
        }
        mail.held = true;
        Held(self)
    }

    /// Waits for something to do. Whoever gets it is busy, until `finished`.
    fn next(&self, next_purge: Option<Now>) -> Task {
        let mut mail = self.mail.lock();
        loop {
            let to_purge = mail.until_purge(next_purge);
            if let Some(task) = mail.take(to_purge) {
                if matches!(task, Task::Purge) {
                    self.disk.set_hurry(Hurry::Awaited, false);
                    self.busy.store(true, Ordering::SeqCst);
                }
                return task;
            }
            match to_purge {
                Some(wait) => drop(self.arrived.wait_for(&mut mail, wait)),
                None => self.arrived.wait(&mut mail),
            }
        }
    }

    fn finished(&self) {
        let mail = self.mail.lock();
        self.busy.store(mail.order.is_some(), Ordering::SeqCst);
        self.done.notify_all();
    }

    pub fn stop(&self) {
        self.hurry();
        self.mail.lock().stop = true;
        self.arrived.notify_one();
    }
}

enum Task {
    Write(Order),
    Purge,
    Stop,
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
            match self.mail.next(next_purge) {
                Task::Stop => return Ok(()),
                Task::Write(order) => self.write(order)?,
                Task::Purge => {
                    let removed = self.remove_old();
                    self.mail.finished();
                    self.shared.pipeline_bell.ring();
                    removed?;
                    if let PurgeWhen::EveryHours(hours) = self.purge.when {
                        next_purge = Some(clock::now().plus(Duration::from_secs(3600 * u64::from(hours))));
                    }
                }
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
                self.keeper.written(zxid);
                self.mail.last_bytes.store(info.bytes, Ordering::Relaxed);
                *self.mail.outcome.lock() = Some(Outcome::Written(zxid));
                let took = clock::now().since(started).as_millis() as u64;
                self.recorder.observe(Summary::Snapshottime, took, 1);
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
                *self.mail.outcome.lock() = Some(Outcome::Failed { why: fatal.to_string(), at: clock::now() });
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
                self.give_up(writer);
                return Err(fatal);
            }
            if self.mail.pipeline_waits.swap(false, Ordering::SeqCst) {
                self.shared.pipeline_bell.ring();
            }
            if progress == Progress::Done {
                // No image is saved any more.
                self.mail.disk.set_hurry(Hurry::Room, false);
                // So that a lost end of the log can't be taken for an older one that the snapshot has gone beyond.
                if let Err(fatal) = self.log_writer.with_log(|log| log.settle()) {
                    self.give_up(writer);
                    return Err(fatal);
                }
                return writer.finish().map(Some);
            }
            if self.shared.is_stopping() {
                self.give_up(writer);
                return Ok(None);
            }
        }
    }

    fn give_up(&self, writer: SnapshotWriter<QuietDisk>) {
        // The room may be needed, and a stop waits.
        self.mail.hurry();
        let abandoned = writer.abandon(&self.reader.read());
        self.mail.disk.set_hurry(Hurry::Room, false);
        abandoned.discard();
    }

    /// Old snapshots, and the log before the oldest that stays.
    fn remove_old(&mut self) -> Result<(), Fatal> {
        if self.mail.doubted.swap(false, Ordering::SeqCst) {
            self.keeper.doubt();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::TreeOptions;

    fn mail() -> SnapshotMail {
        SnapshotMail::new(QuietDisk::default(), 0)
    }

    /// The purge by the hour is nobody's order, so it has to keep out of a change of history by itself.
    #[test]
    fn nothing_is_purged_while_the_history_is_held_and_a_purge_under_way_is_waited_for() {
        let mail = mail();
        let held = mail.hold();
        assert_eq!(mail.mail.lock().until_purge(Some(Now::START)), None);
        assert!(mail.doubted.load(Ordering::SeqCst), "other files may have the names of those that were read");
        std::thread::scope(|scope| {
            let snapshotter = scope.spawn(|| {
                // Due since long ago.
                let task = mail.next(Some(Now::START));
                assert!(matches!(task, Task::Purge));
                assert!(!mail.mail.lock().held, "it begins when the history has been changed");
                assert!(mail.is_busy());
                mail.finished();
            });
            drop(held);
            snapshotter.join().unwrap();
        });
        assert!(matches!(mail.next(Some(Now::START)), Task::Purge));
        std::thread::scope(|scope| {
            let changer = scope.spawn(|| {
                drop(mail.hold());
                assert!(!mail.is_busy());
            });
            mail.finished();
            changer.join().unwrap();
        });
    }

    #[test]
    fn an_order_that_comes_during_a_purge_is_still_to_be_done_after_it() {
        let mail = mail();
        assert!(matches!(mail.next(Some(Now::START)), Task::Purge));
        let tree = Tree::new(TreeOptions::default());
        mail.begin(tree.begin_freeze(), Vec::new());
        mail.finished();
        assert!(mail.is_busy());
        assert!(matches!(mail.next(None), Task::Write(_)));
        mail.finished();
        assert!(!mail.is_busy());
        mail.stop();
        assert!(matches!(mail.next(Some(Now::START)), Task::Stop));
    }
}
