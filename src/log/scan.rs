//! Walks the records of one segment as they lie on the disk, and judges the place where they end.
//!
//! A crash leaves the remains of an append at the end; a bad disk leaves bad bytes anywhere. They call for opposite
//! answers: the first are cut off, because nobody was told about them; the second must not be, because a client may
//! have been. The bytes at the bad place are the same in both cases. What tells them apart:
//!
//! - below the watermark a sync had returned: damage;
//! - a whole header of a group that was begun after the bad place: the writer begins a group only when the one before
//!   it is durable: damage;
//! - no interrupted append looks like this (a whole header with wrong contents; a body that is wrong although each of
//!   its sectors got there): damage;
//! - otherwise: torn.
//!
//! Reads in pieces of a megabyte, through `read_at`: memory does not grow with the log, a sector that can't be read is
//! an error and not a signal, and no length from the disk is believed beyond the end of the file.
//!
//! Runs on: the starting thread, or one that reads ahead of it; any thread that has a cursor.

use super::record::{ALIGN, GUARD, HEADER, Header, Kind, Place, follows, is_unfinished};
use super::segment::{FirstSector, RECORDS_START, SegmentHeader};
use crate::disk::{self, File, SECTOR};
use crate::ids::Zxid;
use rustix::io::Errno;
use std::io;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// A file, a piece of it in memory.
pub(super) struct Reader<F> {
    file: F,
    pub len: u64,
    piece: Vec<u8>,
    start: u64,
    /// From the first piece on, reads are to go past the page cache.
    bypass: bool,
    /// And do.
    bypasses: bool,
    /// Bytes read at once: fewer where something can't be read, so that what is in front of it can be.
    at_once: usize,
}

/// Whether an error says that a file's bytes are lost. That it can't be opened, or there is no memory for it, says nothing of
/// them; what is wrong with the file itself does.
pub(super) fn is_damage(error: &io::Error) -> bool {
    // A link is no segment.
    disk::says_lost(error)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
        || matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput)
}

impl<F: File> Reader<F> {
    /// For recovery: what is read comes from the disk and not from memory. The file is good for nothing but reading then.
    pub fn new(file: F) -> io::Result<Reader<F>> {
        // Also where reads go past it: who writes to the file later finds a block's beginning there.
        file.forget_cached();
        Ok(Reader { bypass: true, ..Reader::cached(file)? })
    }

    /// For a file that this process has written.
    pub fn cached(file: F) -> io::Result<Reader<F>> {
        let len = file.len()?;
        Ok(Reader { file, len, piece: Vec::new(), start: 0, bypass: false, bypasses: false, at_once: PIECE })
    }

    /// Reads again from the file what is needed next.
    pub fn forget(&mut self) {
        self.piece.clear();
    }

    /// `count` bytes at `at`; the caller has seen to it that the file has them.
    pub fn bytes(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        assert!(at + count as u64 <= self.len);
        if at < self.start || at + count as u64 > self.start + self.piece.len() as u64 {
            if std::mem::take(&mut self.bypass) {
                // Not for the first sector alone: what goes past the cache is read in large pieces.
                self.file.bypass_cache(PIECE);
                self.bypasses = true;
            }
            let size = (self.len - at).min(count.max(self.at_once) as u64);
            // A longer piece than usual is not kept.
            self.piece.truncate(0);
            self.piece.shrink_to(PIECE);
            self.piece.resize(size as usize, 0);
            self.start = at;
            if let Err(error) = self.file.read_at(at, &mut self.piece) {
                self.piece.clear();
                return self.bytes_alone(at, count, error);
            }
        }
        let from = (at - self.start) as usize;
        Ok(&self.piece[from..from + count])
    }

    /// As `bytes`, where a larger piece gave `error`: a sector behind them may be the one that can't be read.
    fn bytes_alone(&mut self, at: u64, count: usize, error: io::Error) -> io::Result<&[u8]> {
        if self.at_once == PIECE {
            self.at_once = SECTOR;
            if self.bypasses {
                // Or each of them would read as much as before.
                self.file.bypass_cache(SECTOR);
            }
        }
        self.piece.resize(count, 0);
        match self.file.read_at(at, &mut self.piece) {
            Ok(()) => Ok(&self.piece),
            Err(_) => {
                self.piece.clear();
                Err(error)
            }
        }
    }

    fn header(&mut self, at: u64) -> io::Result<[u8; HEADER]> {
        Ok(self.bytes(at, HEADER)?.try_into().expect("a header's bytes"))
    }

    /// Offset of the last byte at or behind `from` that is not zero.
    pub fn last_nonzero(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut last = None;
        let mut at = from;
        while at < self.len {
            let count = (self.len - at).min(PIECE as u64) as usize;
            let bytes = self.bytes(at, count)?;
            if !is_zero(bytes) {
                last = bytes.iter().rposition(|&byte| byte != 0).map(|index| at + index as u64);
            }
            at += count as u64;
        }
        Ok(last)
    }

    /// Reads the sector that says which segment this is.
    pub fn first_sector(&self, number: u64) -> io::Result<FirstSector> {
        if self.len < RECORDS_START as u64 {
            return Ok(FirstSector::Bad("the file is too short for a segment"));
        }
        let mut sector = [0; RECORDS_START];
        self.file.read_at(0, &mut sector)?;
        Ok(SegmentHeader::decode(number, &sector))
    }
}

/// What the next place in a segment holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A whole record; its body lies at `body_at`.
    Record { zxid: Zxid, body_at: u64, length: usize },
    /// The mark of a finished group.
    Mark,
    /// No whole record.
    End(Why),
}

/// Why there is no record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// No room for another header.
    Full,
    /// The header was not finished, or never begun.
    Unfinished,
    /// The header is whole, the body is not.
    BadBody(Header),
    /// Never the work of a crash.
    Bad(String),
}

/// What the place is at which the records of the last segment end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Tail {
    /// Only zeros follow.
    Clean,
    /// An append was interrupted; bytes up to this one (inclusive) are its remains.
    Torn {
        last: u64,
    },
    Damaged(String),
}

/// A walk through one segment.
pub(super) struct Scanner<F> {
    pub reader: Reader<F>,
    pub header: SegmentHeader,
    pub identity: u32,
    /// Of the next record.
    pub offset: u64,
    /// Crc of the last record.
    pub chain: u32,
    /// Zxid of the last record.
    pub last: Zxid,
    /// Where the present group begins. `offset` when there is none: the last record was a mark.
    pub group: u64,
}

impl<F: File> Scanner<F> {
    pub fn new(reader: Reader<F>, header: SegmentHeader, identity: u32) -> Scanner<F> {
        let start = RECORDS_START as u64;
        let (chain, last) = (header.previous, header.after);
        Scanner { reader, header, identity, offset: start, chain, last, group: start }
    }

    /// Whether records were read whose mark is not there.
    pub fn in_group(&self) -> bool {
        self.group < self.offset
    }

    fn place(&self, offset: u64) -> Place {
        Place { identity: self.identity, offset }
    }

    /// Reads what is at `offset` and, if it is whole and in its place, goes beyond it.
    pub fn step(&mut self) -> io::Result<Step> {
        let at = self.offset;
        if at + HEADER as u64 > self.reader.len {
            return Ok(Step::End(Why::Full));
        }
        let bytes = self.reader.header(at)?;
        if is_unfinished(&bytes) {
            return Ok(Step::End(Why::Unfinished));
        }
        let Some(header) = Header::decode(self.place(at), &bytes) else {
            return Ok(Step::End(Why::Bad("the checksum of a record header is wrong".to_owned())));
        };
        if let Some(problem) = self.misfit(&header) {
            return Ok(Step::End(Why::Bad(problem)));
        }
        let place = self.place(at);
        let body_at = at + HEADER as u64;
        match header.kind {
            Kind::Mark => {
                if !header.matches(place, &[]) {
                    return Ok(Step::End(Why::Bad("the checksum of a mark is wrong".to_owned())));
                }
                self.offset += header.bytes() as u64;
                self.group = self.offset;
                self.chain = header.crc;
                Ok(Step::Mark)
            }
            Kind::Record => {
                let length = header.length as usize;
                let body = self.reader.bytes(body_at, length + 1)?;
                if body[length] != GUARD || !header.matches(place, &body[..length]) {
                    return Ok(Step::End(Why::BadBody(header)));
                }
                self.offset += header.bytes() as u64;
                self.chain = header.crc;
                self.last = header.zxid;
                Ok(Step::Record { zxid: header.zxid, body_at, length })
            }
        }
    }

    /// What is wrong with a whole header at `offset`, if anything is.
    fn misfit(&self, header: &Header) -> Option<String> {
        let room = self.reader.len - self.offset;
        if header.length as u64 > room || header.bytes() as u64 > room {
            return Some("a record is longer than the rest of its segment".to_owned());
        }
        if header.previous != self.chain {
            return Some("a record does not continue the one before it".to_owned());
        }
        if header.group != self.group {
            return Some("a record belongs to another group".to_owned());
        }
        match header.kind {
            Kind::Record if !follows(self.last, header.zxid) => {
                Some(format!("zxid {} does not follow {}", header.zxid, self.last))
            }
            Kind::Mark if header.zxid != self.last || !self.in_group() || header.length != 0 => {
                Some("a mark does not belong to the group before it".to_owned())
            }
            _ => None,
        }
    }

    /// Judges the end of the last segment's records, which is at `offset` for the reason `why`. `durable_end` is the
    /// watermark, if it is in this segment.
    pub fn judge(&mut self, why: &Why, durable_end: Option<u64>) -> io::Result<Tail> {
        if let Some(end) = durable_end.filter(|&end| end > self.offset) {
            let what = match why {
                Why::Bad(problem) => problem,
                Why::BadBody(_) => "the checksum of a record is wrong",
                Why::Full | Why::Unfinished => "a record is missing",
            };
            return Ok(Tail::Damaged(format!("{what}, and a sync had returned up to byte {end}")));
        }
        if let Why::Bad(problem) = why {
            return Ok(Tail::Damaged(problem.clone()));
        }
        let Some(last) = self.reader.last_nonzero(self.offset)? else { return Ok(Tail::Clean) };
        if let Some(later) = self.later_group(last)? {
            return Ok(Tail::Damaged(format!("a record is not whole, and a later group follows at byte {later}")));
        }
        match why {
            Why::BadBody(header) if !self.lost_a_sector(header)? => {
                Ok(Tail::Damaged("the checksum of a record is wrong, and no sector of it is missing".to_owned()))
            }
            _ => Ok(Tail::Torn { last }),
        }
    }

    /// Offset of a whole header at or before `last` whose group was begun after the bad place.
    fn later_group(&mut self, last: u64) -> io::Result<Option<u64>> {
        let mut at = self.offset + ALIGN as u64;
        while at <= last && at + HEADER as u64 <= self.reader.len {
            let bytes = self.reader.header(at)?;
            if !is_unfinished(&bytes)
                && Header::decode(self.place(at), &bytes).is_some_and(|header| header.group > self.offset)
            {
                return Ok(Some(at));
            }
            at += ALIGN as u64;
        }
        Ok(None)
    }

    /// Whether the body at `offset` has a sector, or the part of one, in which nothing was stored: its guard or all of
    /// a sector behind the header's.
    fn lost_a_sector(&mut self, header: &Header) -> io::Result<bool> {
        let guard = self.offset + HEADER as u64 + header.length as u64;
        if self.reader.bytes(guard, 1)?[0] == 0 {
            return Ok(true);
        }
        let sector = SECTOR as u64;
        let mut at = (self.offset + HEADER as u64).next_multiple_of(sector);
        while at <= guard {
            let end = (at + sector).min(guard + 1);
            if is_zero(self.reader.bytes(at, (end - at) as usize)?) {
                return Ok(true);
            }
            at = end;
        }
        Ok(false)
    }
}

/// Whether all bytes are zero.
fn is_zero(bytes: &[u8]) -> bool {
    // In blocks, so that it runs at the speed of memory.
    let mut blocks = bytes.chunks_exact(64);
    blocks.by_ref().all(|block| block.iter().fold(0, |sum, &byte| sum | byte) == 0)
        && blocks.remainder().iter().all(|&byte| byte == 0)
}
