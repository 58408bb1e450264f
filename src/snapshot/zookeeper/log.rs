//! Transaction logs of ZooKeeper (disk-formats 3): reading one with an eye for how it ends, and writing one.
//!
//! ```text
//!  header  int "ZKLG", int version 2, long dbid 0
//!  record  long Adler-32 of the entry, int length, entry (as in a PROPOSAL), byte 'B'
//!  ...     then zeros, which the server has reserved
//! ```
//!
//! ZooKeeper takes the first length of zero and the first wrong mark for the end of a file, and never looks behind it: a
//! run of zeros in the middle of a log drops acknowledged transactions without a word. Here what follows an end decides
//! what it was. Nothing but zeros: the end. The remains of at most one record, of which nothing is whole: an append that
//! a crash interrupted, which nobody was told about. Anything else is damage.
//!
//! Runs on: whoever imports or inspects.

use crate::disk::File;
use crate::ids::Zxid;
use adler2::adler32_slice;
use std::io::{self, Write};

const HEADER: [u8; 16] = *b"ZKLG\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00";
/// Checksum and length.
const HEAD: usize = 12;
const MARK: u8 = b'B';
/// A transaction's header, without which there is no entry.
const ENTRY_MIN: usize = 32;
const BUFFER: usize = 256 << 10;
/// So many of the largest entries are summed at most, when whole records are looked for behind an end: what a client
/// has written may look like records at every byte, and to sum each would take quadratic time.
const SUMMED_ENTRIES: u64 = 64;

/// One log file, read from the beginning.
pub struct LogReader<F> {
    file: F,
    len: u64,
    entry_max: usize,
    /// A part of the file, from `buffer_at` on.
    buffer: Vec<u8>,
    buffer_at: u64,
    /// Where the next record begins.
    offset: u64,
}

/// A record: where it begins, its zxid, and its entry.
pub struct Record<'a> {
    pub offset: u64,
    pub zxid: Zxid,
    pub entry: &'a [u8],
}

/// How a log file goes on.
pub enum Next<'a> {
    Record(Record<'a>),
    End(End),
}

/// What is behind the last whole record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Nothing, or zeros.
    Clean { offset: u64 },
    /// The remains of one append. `complete`: all its bytes are there and their checksum is wrong, which ZooKeeper
    /// refuses to start with.
    Torn { offset: u64, complete: bool, problem: String },
    /// Bytes that no crash leaves behind.
    Damaged { offset: u64, problem: String },
}

/// What the bytes behind an end hold.
enum Behind {
    Nothing,
    /// A whole record, where.
    Record(u64, Zxid),
    /// Not all that looks like a record was tried.
    TooMuchLikeRecords,
}

impl<F: File> LogReader<F> {
    /// Begins to read. `entry_max` is the largest entry that is believed (`jute.maxbuffer` and its extra). The inner
    /// error says that the file has no sound header, and where.
    pub fn open(file: F, entry_max: usize) -> io::Result<Result<LogReader<F>, (u64, String)>> {
        let len = file.len()?;
        let mut header = [0; HEADER.len()];
        let there = len.min(header.len() as u64) as usize;
        file.read_at(0, &mut header[..there])?;
        if there < header.len() {
            return Ok(Err((len, format!("{len} bytes are too few for a log"))));
        }
        if header[..4] != HEADER[..4] {
            return Ok(Err((0, "not a log of ZooKeeper".into())));
        }
        let offset = HEADER.len() as u64;
        Ok(Ok(LogReader { file, len, entry_max, buffer: Vec::new(), buffer_at: 0, offset }))
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Where the next record begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record; at the end, always the same answer.
    #[expect(clippy::should_implement_trait, reason = "lends the entry out of its buffer; an Iterator can't")]
    pub fn next(&mut self) -> io::Result<Next<'_>> {
        let offset = self.offset;
        let head = self.len.saturating_sub(offset).min(HEAD as u64) as usize;
        if head < HEAD {
            return self.end(false, "the file ends in the head of a record");
        }
        let bytes = self.bytes_at(offset, HEAD)?;
        let sum = u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
        let length = i32::from_be_bytes(bytes[8..].try_into().expect("four bytes"));
        let length = match usize::try_from(length) {
            Ok(0) => return self.end(false, "a record of no length"),
            Ok(length) if (ENTRY_MIN..=self.entry_max).contains(&length) => length,
            _ => return self.end(false, &format!("a record of {length} bytes")),
        };
        if self.len - offset < (HEAD + length + 1) as u64 {
            return self.end(false, "the file ends in a record");
        }
        let bytes = self.bytes_at(offset + HEAD as u64, length + 1)?;
        let (marked, right) = (bytes[length] == MARK, adler32_slice(&bytes[..length]) as u64 == sum);
        match (right, marked) {
            (true, true) => {}
            (true, false) => return self.end(false, "the mark behind a record is wrong"),
            (false, true) => return self.end(true, "the checksum of a record is wrong"),
            (false, false) => return self.end(false, "checksum and mark of a record are wrong"),
        }
        self.offset = offset + (HEAD + length + 1) as u64;
        let entry = self.bytes_at(offset + HEAD as u64, length)?;
        Ok(Next::Record(Record { offset, zxid: zxid_of(entry), entry }))
    }

    /// So many bytes of the file, which has them.
    fn bytes_at(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let there = at >= self.buffer_at && at + count as u64 <= self.buffer_at + self.buffer.len() as u64;
        if !there {
            let fill = (BUFFER.max(count) as u64).min(self.len - at) as usize;
            self.buffer.resize(fill, 0);
            self.buffer_at = at;
            self.file.read_at(at, &mut self.buffer)?;
        }
        let start = (at - self.buffer_at) as usize;
        Ok(&self.buffer[start..start + count])
    }

    /// There is no whole record at `offset`: what is there instead.
    fn end(&mut self, complete: bool, problem: &str) -> io::Result<Next<'static>> {
        let offset = self.offset;
        let Some(last) = self.last_nonzero(offset)? else { return Ok(Next::End(End::Clean { offset })) };
        let end = match self.whole_record(offset + 1, last)? {
            Behind::Record(at, zxid) => {
                End::Damaged { offset, problem: format!("{problem}; at byte {at} there is a whole one, {zxid}") }
            }
            Behind::TooMuchLikeRecords => {
                End::Damaged { offset, problem: format!("{problem}; more places look like a record than can be tried") }
            }
            Behind::Nothing if last - offset >= (HEAD + self.entry_max + 1) as u64 => {
                End::Damaged { offset, problem: format!("{problem}; more than one record's bytes follow") }
            }
            Behind::Nothing => End::Torn { offset, complete, problem: problem.to_owned() },
        };
        Ok(Next::End(end))
    }

    fn last_nonzero(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut last = None;
        let mut at = from;
        while at < self.len {
            let count = BUFFER.min((self.len - at) as usize);
            let bytes = self.bytes_at(at, count)?;
            last = bytes.iter().rposition(|&byte| byte != 0).map(|place| at + place as u64).or(last);
            at += count as u64;
        }
        Ok(last)
    }

    /// The first whole record in `from..=last`, at any byte.
    fn whole_record(&mut self, from: u64, last: u64) -> io::Result<Behind> {
        let mut summable = SUMMED_ENTRIES * self.entry_max as u64;
        let smallest = (HEAD + ENTRY_MIN + 1) as u64;
        let mut at = from;
        let mut window = Vec::new();
        while at + smallest <= last + 1 {
            let count = ((last + 1 - at) as usize).min(BUFFER);
            window.clear();
            window.extend_from_slice(self.bytes_at(at, count)?);
            for (place, head) in window.windows(HEAD).enumerate() {
                let (start, length) = (at + place as u64, u32::from_be_bytes([head[8], head[9], head[10], head[11]]));
                let (length, rest) = (length as usize, self.len - start);
                let fits = (ENTRY_MIN..=self.entry_max).contains(&length) && (HEAD + length + 1) as u64 <= rest;
                if head[..4] != [0; 4] || !fits {
                    continue;
                }
                let mut mark = [0];
                self.file.read_at(start + (HEAD + length) as u64, &mut mark)?;
                if mark[0] != MARK {
                    continue;
                }
                let Some(left) = summable.checked_sub(length as u64) else { return Ok(Behind::TooMuchLikeRecords) };
                summable = left;
                let mut entry = vec![0; length];
                self.file.read_at(start + HEAD as u64, &mut entry)?;
                if adler32_slice(&entry).to_be_bytes() == head[4..8] {
                    return Ok(Behind::Record(start, zxid_of(&entry)));
                }
            }
            at += (count - (HEAD - 1).min(count - 1)) as u64;
        }
        Ok(Behind::Nothing)
    }
}

/// From the transaction's header: session, cxid, zxid, time, type.
fn zxid_of(entry: &[u8]) -> Zxid {
    Zxid(u64::from_be_bytes(entry[12..20].try_into().expect("no entry is shorter than its header")))
}

/// Writes the header of a log.
pub fn write_log_header(output: &mut impl Write) -> io::Result<()> {
    output.write_all(&HEADER)
}

/// Writes one record; the entry is what our own log has, too.
pub fn write_log_record(entry: &[u8], output: &mut impl Write) -> io::Result<()> {
    assert!(entry.len() >= ENTRY_MIN, "a transaction begins with its header");
    output.write_all(&(adler32_slice(entry) as u64).to_be_bytes())?;
    output.write_all(&(entry.len() as u32).to_be_bytes())?;
    output.write_all(entry)?;
    output.write_all(&[MARK])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, RealDisk};

    const ENTRY_MAX: usize = 4 << 10;

    /// How a file ends that has these bytes behind its header.
    fn end_of(behind: &[u8]) -> End {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.1");
        std::fs::write(&path, [&HEADER[..], behind].concat()).unwrap();
        let file = RealDisk.open(&path).unwrap();
        let mut reader = LogReader::open(file, ENTRY_MAX).unwrap().unwrap();
        match reader.next().unwrap() {
            Next::End(end) => end,
            Next::Record(record) => panic!("a record at {}", record.offset),
        }
    }

    #[test]
    fn bytes_that_look_like_records_everywhere_are_not_summed_without_an_end() {
        // Every place begins with zeros and a length that fits, and its mark is right; no checksum is.
        let head = [0, 0, 0, 0, MARK, MARK, MARK, MARK, 0, 0, 0x07, 0xfe];
        let looks = head.repeat(ENTRY_MAX / head.len());
        let torn = |bytes: &[u8]| [&[1; HEAD], bytes].concat();
        let End::Damaged { offset: 16, problem } = end_of(&torn(&looks)) else { panic!("taken for a torn append") };
        assert!(problem.contains("look like a record"), "{problem}");
        // A few such places are what a client may well have written.
        assert!(matches!(
            end_of(&torn(&looks[..0x7fe + 20 * head.len()])),
            End::Torn { offset: 16, complete: false, .. }
        ));
    }
}
