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
use crate::log::{Batch, Durable, Log};
use crate::metrics::{Recorder, Summary};
use crate::server::helper::HelperMail;
use crate::server::shared::Shared;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
struct Mail {
    batch: Batch,
    /// Everything up to here is in the oldest snapshot that is kept; older segments may go.
    purge: Option<Zxid>,
    /// Nothing has come for a while: the watermark takes in the last group too.
    settle: bool,
    stop: bool,
}

/// How the pipeline talks with the log writer.
pub struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Condvar,
    durable: AtomicU64,
    /// Microseconds that the last write took, its sync included.
    last_write_us: AtomicU64,
}

impl Mailbox {
    pub fn new(durable: Zxid) -> Mailbox {
        // Nothing is known of the disk yet, so the first write is the thread's.
        let last_write_us = AtomicU64::new(QUICK_US);
        Mailbox { durable: AtomicU64::new(durable.0), last_write_us, mail: Mutex::default(), arrived: Condvar::new() }
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

    /// Tells the log on disk how far it is durable, the last group included: until then damage to exactly that group could
    /// pass for an append that a crash has interrupted.
    pub fn settle(&self) {
        self.mail.lock().settle = true;
        self.arrived.notify_one();
    }

    /// Ends the thread after it has written what was posted.
    pub fn stop(&self) {
        self.mail.lock().stop = true;
        self.arrived.notify_one();
    }

    /// The log has another end than before: it was cut, or replaced. Nothing may be waiting to be written.
    pub fn set_durable(&self, zxid: Zxid) {
        assert!(self.mail.lock().batch.is_empty(), "the log is at rest");
        self.durable.store(zxid.0, Ordering::Release);
    }

    /// Whether the disk was quick the last time: a thread that others wait for may then write a little itself.
    pub fn is_quick(&self) -> bool {
        self.last_write_us.load(Ordering::Relaxed) < QUICK_US
    }

    /// Everything up to here has survived a sync.
    pub fn durable(&self) -> Zxid {
        Zxid(self.durable.load(Ordering::Acquire))
    }
}

/// The log and what belongs to it; in the hands of one thread at a time.
pub struct Writer {
    pub log: Log<RealDisk>,
    pub helper: HelperMail,
    /// Milliseconds of a sync above which a warning is logged (`fsync.warningthresholdms`).
    pub slow_sync_ms: u64,
    pub recorder: Recorder,
    /// Something did not get into the log: nothing may follow it.
    pub failed: bool,
    /// The last purge for which a new segment was begun.
    pub rolled_for: Option<Zxid>,
}

impl Writer {
    /// Appends a batch as one group and syncs it.
    fn write(&mut self, batch: &Batch) -> Result<Durable, Fatal> {
        let started = crate::clock::now();
        self.failed = true;
        self.log.append(batch)?;
        let durable = self.log.sync()?;
        self.failed = false;
        let took = crate::clock::now().since(started).as_millis() as u64;
        self.recorder.observe(Summary::Fsynctime, took, 1);
        self.recorder.observe(Summary::SyncProcessorBatchSize, batch.len() as u64, 1);
        if took > self.slow_sync_ms {
            tracing::warn!("fsync-ing the write ahead log took {took} ms; this will adversely affect latency");
        }
        if self.log.wants_next() {
            self.helper.prepare_segment(self.log.housekeeper().clone());
        }
        Ok(durable)
    }

    /// Lets go what is in the oldest snapshot that is kept, and closes the segment for the next time: once for each snapshot,
    /// or a server that purges by the hour would have a segment for each.
    fn purge(&mut self, up_to: Zxid) -> Result<(), Fatal> {
        if self.rolled_for.is_none_or(|rolled_for| rolled_for < up_to) {
            self.failed = true;
            let segments = self.log.segments();
            match self.log.roll() {
                Ok(()) => self.rolled_for = Some(up_to),
                // Nothing has changed: the present segment has room, and what is purged may make some.
                Err(full @ Fatal::DiskFull { .. }) if self.log.segments() == segments => {
                    tracing::error!("{full}; the log goes on in its present segment. {}", full.advice());
                }
                Err(other) => return Err(other),
            }
            self.failed = false;
        }
        let purge = self.log.purge(up_to);
        self.helper.purge(purge);
        Ok(())
    }
}

/// The mailbox and the log: what the log writer's thread and the pipeline share.
pub struct LogWriter {
    pub mailbox: Mailbox,
    writer: Mutex<Writer>,
}

/// Microseconds of a write up to which a disk is quick: a hand-over to another thread and back costs as much.
const QUICK_US: u64 = 1_000;

/// Records above which a batch is worth a thread of its own: while that one syncs, the pipeline prepares the next. So many
/// take less time to prepare than the two hand-overs.
const INLINE_RECORDS_MAX: usize = 32;

impl LogWriter {
    pub fn new(writer: Writer) -> LogWriter {
        LogWriter { mailbox: Mailbox::new(writer.log.durable()), writer: Mutex::new(writer) }
    }

    /// Writes a small batch here and now if nothing is before it: a lone client's write saves two hand-overs between
    /// threads, which cost as much as everything else that the server does for it. `false`, and the batch untouched, if
    /// it has to go through the mailbox.
    ///
    /// Only to be called while the disk is quick (`is_quick`): peers must not wait for a slow one (fault model S32), nor who
    /// asks how the server is. One write may still take long; from the next on the thread has the waiting.
    pub fn write_inline(&self, batch: &mut Batch) -> Result<bool, Fatal> {
        if batch.len() > INLINE_RECORDS_MAX {
            return Ok(false);
        }
        // The thread takes the writer before it takes mail; so with no mail and the writer in hand, nothing is between.
        let mail = self.mailbox.mail.lock();
        if !mail.batch.is_empty() || mail.purge.is_some() {
            return Ok(false);
        }
        let Some(mut writer) = self.writer.try_lock() else { return Ok(false) };
        if writer.failed {
            // The thread has ended; what waits in the mailbox now is never written and never answered.
            return Ok(false);
        }
        drop(mail);
        let durable = self.write(&mut writer, batch)?;
        self.mailbox.durable.store(durable.up_to().0, Ordering::Release);
        batch.clear();
        Ok(true)
    }

    fn write(&self, writer: &mut Writer, batch: &Batch) -> Result<Durable, Fatal> {
        let began = crate::clock::now();
        let durable = writer.write(batch)?;
        let took = crate::clock::now().since(began).as_micros() as u64;
        self.mailbox.last_write_us.store(took, Ordering::Relaxed);
        Ok(durable)
    }

    /// Something that needs the log itself, here and now.
    pub fn with_log<T>(&self, body: impl FnOnce(&mut Log<RealDisk>) -> T) -> T {
        body(&mut self.writer.lock().log)
    }

    /// The thread: until the mailbox says stop, or the disk fails.
    pub fn run(&self, shared: &Shared) -> Result<(), Fatal> {
        let mut batch = Batch::new();
        loop {
            {
                let mut mail = self.mailbox.mail.lock();
                while mail.batch.is_empty() && mail.purge.is_none() && !mail.settle && !mail.stop {
                    self.mailbox.arrived.wait(&mut mail);
                }
            }
            let mut writer = self.writer.lock();
            if writer.failed {
                // The pipeline has seen the error, and stops the server.
                return Ok(());
            }
            let (purge, settle, stop) = {
                let mut mail = self.mailbox.mail.lock();
                std::mem::swap(&mut mail.batch, &mut batch);
                (mail.purge.take(), std::mem::take(&mut mail.settle), mail.stop)
            };
            if !batch.is_empty() {
                let durable = self.write(&mut writer, &batch)?;
                self.mailbox.durable.store(durable.up_to().0, Ordering::Release);
                shared.pipeline_bell.ring();
                batch.clear();
            } else if stop {
                return writer.log.settle();
            } else if settle {
                writer.failed = true;
                writer.log.settle()?;
                writer.failed = false;
            }
            if let Some(up_to) = purge {
                writer.purge(up_to)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Recovery, Sizes};
    use crate::metrics::Metrics;
    use crate::server::helper::helper;

    #[test]
    fn nothing_is_waited_for_on_a_disk_that_nothing_is_known_of() {
        assert!(!Mailbox::new(Zxid::ZERO).is_quick());
    }

    #[test]
    fn a_purge_again_and_again_for_one_snapshot_begins_one_segment() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes { first: 8 << 10, segment: 16 << 10 };
        let log = Recovery::open(RealDisk, dir.path(), Zxid::ZERO, sizes).unwrap().finish().unwrap();
        let recorder = Metrics::new(1).1.remove(0);
        let mut writer =
            Writer { log, helper: helper().0, slow_sync_ms: 1_000, recorder, failed: false, rolled_for: None };
        let mut segments = Vec::new();
        for zxid in 1..=6 {
            let mut batch = Batch::new();
            batch.push(Zxid(zxid), b"record");
            writer.write(&batch).unwrap();
            // A snapshot at 3.
            writer.purge(Zxid(if zxid < 4 { 1 } else { 3 })).unwrap();
            segments.push(writer.log.segments());
        }
        // What was closed for 1 had nothing behind it and has gone; what was closed for 3 has 4.
        assert_eq!(segments, [1, 1, 1, 2, 2, 2]);
        assert!(!writer.failed);
    }
}
