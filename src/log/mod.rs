//! The write-ahead log: what has been promised to clients, in zxid order, on the disk of one server.
//!
//! A log is a row of segments: files of one size, reserved and written through before use, mapped for appending. The
//! writer thread hands over a batch, the log makes one *group* of it: records chained by crc32c, a mark at the end, one
//! sync. While that sync runs, the next batch gathers in memory; it enters the map only after the sync has returned.
//! That order is what recovery reads the log by: whatever was followed by something had been durable.
//!
//! Recovery tells two things apart that look alike: a *torn tail*, the remains of an append that a crash interrupted,
//! which nobody was told about and which is cut off; and *damage*, anything bad that a client may have been told about.
//! Damage stops the server with the file, the offset and the last good zxid. It is never skipped or cut off in silence.
//!
//! The log knows zxids and bytes; what a transaction is, is not its business. Formats: docs/log-format.md. Rules:
//! the fault model, by the numbers S1 to S34, see tests/recovery.rs.
//!
//! Promises: `Durable` exists only after a sync that covers it. What `Recovery` hands out was written by this log, in
//! order, without a gap. After a failed sync the log refuses everything.
//!
//! A history that changes other than by growing: `Log::truncate` takes back its end, `Log::restart` all of it, `salvage` keeps
//! what is good of a damaged one. Where snapshots are concerned too, `storage` does it.
//!
//! Leaves to the caller: locking the directory; preparing segments off the request path (`Housekeeper`); which
//! snapshot recovery starts from, and up to where a purge may go.
//!
//! Runs on: recovery on the starting thread, or one that it waits for; `Log` on the log writer; `Housekeeper` on a helper; `LogView` and its cursors
//! on any thread.

mod anew;
pub mod epochs;
mod holdings;
mod housekeeper;
pub mod inspect;
mod record;
mod recover;
pub mod salvage;
mod scan;
mod segment;
mod truncate;
mod view;
mod watermark;
mod writer;

pub use anew::{INSTALL, clear};
pub use holdings::{Holdings, Run};
pub use housekeeper::{Housekeeper, Purge};
pub use record::follows;
pub use recover::{Recovery, Replay, Unbegun};
pub use truncate::{TRUNCATE, TruncateError, finish_interrupted};
pub use view::{LogCursor, LogView, ReadError};
pub use writer::Log;

use crate::ids::Zxid;
use crate::limits;

/// Whether a log has files of this name in its directory.
pub fn is_log_file(name: &str) -> bool {
    segment::segment_number(name).is_some()
        || segment::recycled_number(name).is_some()
        || [segment::PREPARING, watermark::WATERMARK, inspect::CUT, truncate::TRUNCATE, INSTALL].contains(&name)
}

/// Sizes of segments in bytes. Tests take small ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Of the first segment of a log; those after it are four times as large each, up to `segment`.
    pub first: u64,
    /// Of all others, unless a single record needs more.
    pub segment: u64,
}

impl Sizes {
    /// Of the segment with that number, from 1 on. What is read at a start has so much to do with what has been written: all
    /// of the last segment and of the one that was prepared behind it is read then.
    pub fn of(&self, number: u64) -> u64 {
        let doublings = number.saturating_sub(1).saturating_mul(2);
        if doublings > self.first.leading_zeros().into() {
            self.segment
        } else {
            (self.first << doublings).min(self.segment)
        }
    }
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { first: limits::LOG_FIRST_SEGMENT_BYTES as u64, segment: limits::LOG_SEGMENT_BYTES as u64 }
    }
}

/// Proof that everything up to a zxid has survived a sync. Only the log can make one; whoever acknowledges a write
/// asks for one.
#[derive(Debug)]
pub struct Durable {
    up_to: Zxid,
}

impl Durable {
    pub fn up_to(&self) -> Zxid {
        self.up_to
    }
}

/// Records that become durable together: one buffer for all bodies, and where each ends. Reused from batch to batch, so
/// that a full pipeline allocates nothing.
#[derive(Clone, Default, Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Zxid, and the end of its body in `bytes`. Bodies lie behind one another.
    records: Vec<(Zxid, usize)>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a record. Zxids must follow one another; the log asserts it.
    pub fn push(&mut self, zxid: Zxid, body: &[u8]) {
        self.bytes.extend_from_slice(body);
        self.records.push((zxid, self.bytes.len()));
    }

    /// Adds a record whose body `encode` appends to the buffer: no copy on the way. It must only append.
    pub fn push_with(&mut self, zxid: Zxid, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        encode(&mut self.bytes);
        assert!(self.bytes.len() >= before, "a body is appended, the bodies before it stay");
        self.records.push((zxid, self.bytes.len()));
    }

    /// Empties the batch; its memory stays for the next one.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes of all bodies.
    pub fn body_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Zxid of the last record.
    pub fn last_zxid(&self) -> Option<Zxid> {
        self.records.last().map(|&(zxid, _)| zxid)
    }

    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = (Zxid, &[u8])> {
        (0..self.records.len()).map(|index| self.record(index))
    }

    fn record(&self, index: usize) -> (Zxid, &[u8]) {
        let start = if index == 0 { 0 } else { self.records[index - 1].1 };
        let (zxid, end) = self.records[index];
        (zxid, &self.bytes[start..end])
    }
}

#[cfg(test)]
mod tests;
