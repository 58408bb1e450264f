//! The thread that makes transactions durable: takes whatever has gathered, appends it as one group, syncs once.
//!
//! While one sync runs the next group gathers in the mailbox, so the group grows by itself with the load, and nobody
//! waits for a batch to fill. What is durable is told to the pipeline; a failed append or sync stops the server, since
//! after it nothing that the kernel says about the file can be trusted.
//!
//! Runs on: a thread of its own.

use crate::disk::RealDisk;
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::{Batch, Log};
use crate::metrics::{Recorder, Summary};
use crate::server::helper::HelperMail;
use crate::server::shared::Shared;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
struct Mail {
    batch: Batch,
    /// Everything up to here is in the oldest snapshot that is kept; older segments may go.
    purge: Option<Zxid>,
    stop: bool,
}

/// How the pipeline talks with the log writer.
#[derive(Default)]
pub struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Condvar,
    durable: AtomicU64,
    /// Bytes that the log's files take, for `dirs` and `conf`.
    pub log_bytes: AtomicU64,
}

impl Mailbox {
    pub fn new(durable: Zxid) -> Mailbox {
        Mailbox { durable: AtomicU64::new(durable.0), ..Mailbox::default() }
    }

    /// Puts records behind those that wait. The pipeline bounds how many can wait.
    pub fn post(&self, batch: &mut Batch) {
        let mut mail = self.mail.lock();
        if mail.batch.is_empty() {
            std::mem::swap(&mut mail.batch, batch);
        } else {
            for (zxid, record) in batch.records() {
                mail.batch.push(zxid, record);
            }
        }
        drop(mail);
        batch.clear();
        self.arrived.notify_one();
    }

    pub fn purge(&self, up_to: Zxid) {
        self.mail.lock().purge = Some(up_to);
        self.arrived.notify_one();
    }

    /// Ends the thread after it has written what was posted.
    pub fn stop(&self) {
        self.mail.lock().stop = true;
        self.arrived.notify_one();
    }

    /// Everything up to here has survived a sync.
    pub fn durable(&self) -> Zxid {
        Zxid(self.durable.load(Ordering::Acquire))
    }
}

pub struct LogWriter {
    pub log: Log<RealDisk>,
    pub mailbox: Arc<Mailbox>,
    pub shared: Arc<Shared>,
    pub helper: HelperMail,
    /// Milliseconds of a sync above which a warning is logged (`fsync.warningthresholdms`).
    pub slow_sync_ms: u64,
    pub recorder: Recorder,
}

impl LogWriter {
    /// Until the mailbox says stop, or the disk fails.
    pub fn run(mut self) -> Result<(), Fatal> {
        let mut batch = Batch::new();
        self.look_after_log();
        loop {
            let (purge, stop) = {
                let mut mail = self.mailbox.mail.lock();
                while mail.batch.is_empty() && mail.purge.is_none() && !mail.stop {
                    self.mailbox.arrived.wait(&mut mail);
                }
                std::mem::swap(&mut mail.batch, &mut batch);
                (mail.purge.take(), mail.stop)
            };
            if !batch.is_empty() {
                self.write(&batch)?;
                batch.clear();
            } else if stop {
                return self.log.settle();
            }
            if let Some(up_to) = purge {
                self.log.roll()?;
                self.helper.purge(self.log.purge(up_to));
            }
            self.look_after_log();
        }
    }

    fn look_after_log(&mut self) {
        if self.log.wants_next() {
            self.helper.prepare_segment(self.log.housekeeper().clone());
        }
        self.mailbox.log_bytes.store(self.log.file_bytes(), Ordering::Relaxed);
    }

    fn write(&mut self, batch: &Batch) -> Result<(), Fatal> {
        let started = crate::clock::now();
        self.log.append(batch)?;
        let durable = self.log.sync()?;
        let took = crate::clock::now().since(started).as_millis() as u64;
        self.mailbox.durable.store(durable.up_to().0, Ordering::Release);
        self.shared.pipeline_bell.ring();
        self.recorder.observe(Summary::Fsynctime, took, 1);
        self.recorder.observe(Summary::SyncProcessorBatchSize, batch.len() as u64, 1);
        if took > self.slow_sync_ms {
            tracing::warn!("fsync-ing the write ahead log took {took} ms; this will adversely affect latency");
        }
        Ok(())
    }
}
