//! The log as others see it while it is being written: what it holds, and a cursor that reads it back.
//!
//! A learner that was away for a while gets what it missed from the leader's log. It must be read beside the writer,
//! which appends, begins segments and purges them meanwhile, and neither may wait for the other's disk. So the two share
//! only a small index (which segments there are, which zxids are durable) under a lock that nobody holds across I/O. A
//! cursor reads files, never the map, and no byte behind the last durable record. A segment that a cursor is in may be
//! purged: then its file is removed and not used again, and the cursor reads on in what it has open.
//!
//! Promises: what a cursor hands out are durable records of one history, in order, without a gap; or an error.
//! `ReadError::Gone` where the log has gone on without the reader (purge, truncation, another history): start again, or
//! send a snapshot. A cursor's memory is a piece of a megabyte and what the caller asks for, or one record if that is
//! more.
//!
//! Runs on: any thread; a cursor blocks on the disk.

use super::Batch;
use super::holdings::{Holdings, Run};
use super::housekeeper::Shared;
use super::recover::begins_epoch;
use super::scan::{Reader, Scanner, Step, Why};
use super::segment::{FirstSector, other_version, segment_path};
use crate::disk::{self, Disk, File};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What the writer tells the readers.
#[derive(Default)]
pub(super) struct Index {
    /// Raised when records that may have been read are taken back.
    generation: u64,
    /// Number of each segment and zxid of the last record before it, in order.
    segments: Vec<(u64, Zxid)>,
    holdings: Holdings,
    /// Segments that cursors are in, and how many.
    readers: BTreeMap<u64, usize>,
}

impl Index {
    /// The log is this one from now on.
    pub fn reset(&mut self, segments: Vec<(u64, Zxid)>, holdings: Holdings) {
        self.generation += 1;
        (self.segments, self.holdings) = (segments, holdings);
    }

    /// A segment was begun behind `after`.
    pub fn begun(&mut self, number: u64, after: Zxid) {
        self.segments.push((number, after));
    }

    /// These records are durable now.
    pub fn durable(&mut self, runs: impl Iterator<Item = Run>) {
        runs.for_each(|run| self.holdings.push(run));
    }

    /// What is above `to` is going to be taken back.
    pub fn truncate(&mut self, to: Zxid) {
        self.generation += 1;
        self.holdings.truncate(to);
    }

    /// The log begins with segment `oldest` now.
    pub fn purged(&mut self, oldest: u64) {
        self.segments.retain(|&(number, _)| number >= oldest);
        let after = self.segments.first().map_or(Zxid::ZERO, |&(_, after)| after);
        self.holdings.forget(after);
    }

    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    pub fn is_read(&self, number: u64) -> bool {
        self.readers.contains_key(&number)
    }
}

/// The log as others than its writer see it. Clones are cheap and see the same log.
pub struct LogView<D: Disk> {
    pub(super) shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for LogView<D> {
    fn clone(&self) -> Self {
        LogView { shared: self.shared.clone() }
    }
}

/// Why a cursor has nothing more.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The place is not part of this log's history, or not any more.
    #[error("the log does not hold what comes after {after}")]
    Gone { after: Zxid },
    /// Damage, or the disk. The records up to here were good.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl<D: Disk> LogView<D> {
    /// Zxid of the last durable record.
    pub fn last(&self) -> Zxid {
        self.shared.index.lock().holdings.last()
    }

    /// Whether exactly this record is held, durably.
    pub fn contains(&self, zxid: Zxid) -> bool {
        self.shared.index.lock().holdings.contains(zxid)
    }

    /// See `Holdings::at_most`.
    pub fn at_most(&self, zxid: Zxid) -> Option<Zxid> {
        self.shared.index.lock().holdings.at_most(zxid)
    }

    /// See `Holdings::reaches`: then `read_after` can serve everything behind `from`.
    pub fn reaches(&self, from: Zxid) -> bool {
        self.shared.index.lock().holdings.reaches(from)
    }

    /// Everything that is held and durable at this moment.
    pub fn holdings(&self) -> Holdings {
        self.shared.index.lock().holdings.clone()
    }

    /// A cursor behind `from`, which this log `reaches`: whoever ends there has a beginning of this history. Reads nothing
    /// yet.
    pub fn read_after(&self, from: Zxid) -> Result<LogCursor<D>, ReadError> {
        self.read_if(from, |holdings| holdings.reaches(from))
    }

    /// As `read_after`, for a snapshot of this server's own, which may also be of an epoch that had no record: it is known
    /// to be part of the history.
    pub fn read_after_own(&self, snapshot: Zxid) -> Result<LogCursor<D>, ReadError> {
        self.read_if(snapshot, |holdings| holdings.reaches(snapshot) || begins_epoch(snapshot))
    }

    fn read_if(&self, from: Zxid, is_known: impl FnOnce(&Holdings) -> bool) -> Result<LogCursor<D>, ReadError> {
        let index = self.shared.index.lock();
        let generation = index.generation;
        // Where an epoch begins there is no record: it is behind the one before it.
        match index.holdings.at_most(from).filter(|_| is_known(&index.holdings)) {
            Some(last) => Ok(LogCursor { shared: self.shared.clone(), generation, last, at: None }),
            None => Err(ReadError::Gone { after: from }),
        }
    }
}

/// A place in the log from which records are read.
pub struct LogCursor<D: Disk> {
    shared: Arc<Shared<D>>,
    generation: u64,
    last: Zxid,
    at: Option<Open<D>>,
}

/// A segment that is being read, and that is not used for anything else meanwhile.
struct Open<D: Disk> {
    scanner: Scanner<D::File>,
    _kept: Kept<D>,
}

/// Keeps a purged segment's file from being used again.
struct Kept<D: Disk> {
    shared: Arc<Shared<D>>,
    number: u64,
}

impl<D: Disk> Drop for Kept<D> {
    fn drop(&mut self) {
        let mut index = self.shared.index.lock();
        if let Some(count) = index.readers.get_mut(&self.number) {
            *count -= 1;
            if *count == 0 {
                index.readers.remove(&self.number);
            }
        }
    }
}

impl<D: Disk> LogCursor<D> {
    /// Zxid of the last record that was handed out; at first, of the last one before those to come.
    pub fn position(&self) -> Zxid {
        self.last
    }

    /// Empties `batch` and fills it with the next records, none above `up_to`, until their bodies have `bytes` or more: so
    /// one record may go beyond. An empty batch means that `up_to` or the end of what is durable has been reached; later
    /// there may be more.
    ///
    /// The first call reads its segment from the beginning, up to 64 MiB. After an error the cursor is of no more use.
    pub fn read(&mut self, up_to: Zxid, bytes: usize, batch: &mut Batch) -> Result<(), ReadError> {
        batch.clear();
        let result = self.fill(up_to, bytes, batch);
        // What was read while the log was taken back may be of either history, or look like damage.
        if let Err(gone) = self.index(|_| ()) {
            batch.clear();
            return Err(gone);
        }
        result
    }

    fn fill(&mut self, up_to: Zxid, bytes: usize, batch: &mut Batch) -> Result<(), ReadError> {
        let bound = self.index(|index| index.holdings.last())?.min(up_to);
        if let Some(open) = &mut self.at {
            // What was behind the last durable record then may be something else now.
            open.scanner.reader.forget();
        }
        while self.last < bound && (batch.is_empty() || batch.body_bytes() < bytes) {
            let mut open = match self.at.take() {
                Some(open) => open,
                None => self.open_first()?,
            };
            let scanner = &mut open.scanner;
            // A path is made only where there is something to say of it, not for each record.
            let (dir, number) = (&self.shared.dir, scanner.header.number);
            let path = || segment_path(dir, number);
            let before = scanner.last;
            match scanner.step().map_err(|e| disk::fatal(&path(), 0, e))? {
                Step::Record { zxid, .. } if zxid <= self.last => {}
                Step::Record { .. } if before != self.last => {
                    return Err(damaged(&path(), scanner, "the record before it is missing"));
                }
                Step::Record { zxid, body_at, length } => {
                    let body = scanner.reader.bytes(body_at, length).map_err(|e| disk::fatal(&path(), 0, e))?;
                    batch.push(zxid, body);
                    self.last = zxid;
                }
                Step::Mark => {}
                Step::End(Why::Full | Why::Unfinished) if before == self.last => {
                    open = self.open_next(&path(), open)?
                }
                Step::End(Why::Full | Why::Unfinished) => return Err(damaged(&path(), scanner, "records are missing")),
                Step::End(Why::BadBody(_)) => {
                    return Err(damaged(&path(), scanner, "the checksum of a record is wrong"));
                }
                Step::End(Why::Bad(problem)) => return Err(damaged(&path(), scanner, &problem)),
            }
            self.at = Some(open);
        }
        Ok(())
    }

    /// Looks at the index, unless it is another history's by now.
    fn index<T>(&self, look: impl FnOnce(&mut Index) -> T) -> Result<T, ReadError> {
        let mut index = self.shared.index.lock();
        if index.generation != self.generation {
            return Err(self.gone());
        }
        Ok(look(&mut index))
    }

    fn gone(&self) -> ReadError {
        ReadError::Gone { after: self.last }
    }

    /// The segment that holds what comes after the cursor's place.
    fn open_first(&self) -> Result<Open<D>, ReadError> {
        let last = self.last;
        let number = self.index(|index| {
            let &(number, _) = index.segments.iter().rfind(|&&(_, after)| after <= last)?;
            *index.readers.entry(number).or_default() += 1;
            Some(number)
        })?;
        self.open(number.ok_or_else(|| self.gone())?)
    }

    /// The segment behind one that has been read to its end.
    fn open_next(&self, path: &Path, done: Open<D>) -> Result<Open<D>, ReadError> {
        let scanner = &done.scanner;
        let number = scanner.header.number + 1;
        let is_there = self.index(|index| {
            let is_there = index.segments.iter().any(|segment| segment.0 == number);
            if is_there {
                *index.readers.entry(number).or_default() += 1;
            }
            is_there
        })?;
        if !is_there {
            // Everything up to the bound was durable, so it was purged, or it never got there.
            let purged = self.index(|index| index.segments.first().is_some_and(|first| first.0 > number))?;
            return Err(if purged { self.gone() } else { damaged(path, scanner, "records are missing") });
        }
        let open = self.open(number)?;
        let header = open.scanner.header;
        if (header.previous_end, header.previous, header.after) != (scanner.offset, scanner.chain, scanner.last) {
            return Err(damaged(path, scanner, "the next segment does not continue it"));
        }
        Ok(open)
    }

    /// Opens a segment that is counted as being read already.
    fn open(&self, number: u64) -> Result<Open<D>, ReadError> {
        let kept = Kept { shared: self.shared.clone(), number };
        let path = segment_path(&self.shared.dir, number);
        let io = |e| disk::fatal(&path, 0, e);
        let file = match self.shared.disk.open_to_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let purged = self.index(|index| index.segments.iter().all(|segment| segment.0 != number))?;
                return Err(if purged { self.gone() } else { io(error).into() });
            }
            other => other.map_err(io)?,
        };
        let reader = Reader::cached(file).map_err(io)?;
        let bad = |problem: &str| Fatal::LogCorrupt {
            file: path.clone(),
            offset: 0,
            last_good: self.last,
            problem: problem.to_owned(),
        };
        match reader.first_sector(number).map_err(io)? {
            FirstSector::Header(header, identity) => {
                Ok(Open { scanner: Scanner::new(reader, header, identity), _kept: kept })
            }
            FirstSector::OtherVersion(version) => Err(other_version(&path, version).into()),
            FirstSector::Unfinished => Err(bad("the segment header is missing").into()),
            FirstSector::Bad(problem) => Err(bad(problem).into()),
        }
    }
}

fn damaged<F: File>(path: &Path, scanner: &Scanner<F>, problem: &str) -> ReadError {
    ReadError::Fatal(Fatal::LogCorrupt {
        file: path.to_owned(),
        offset: scanner.offset,
        last_good: scanner.last,
        problem: problem.to_owned(),
    })
}
