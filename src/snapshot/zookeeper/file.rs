//! A snapshot file of ZooKeeper: the tree between a header and its seals (disk-formats 2).
//!
//! ```text
//!  header   int "ZKSN", int version 2, long dbid -1
//!  tree
//!  seal     long Adler-32 of every byte before it, string "/"
//!  digest   long zxid, int version, long digest (below version 2: a string); then a seal        since 3.6, optional
//!  zxid     long; then a seal                                                                   since 3.9, optional
//! ```
//!
//! Nothing in a file says which of the optional sections it has; ZooKeeper goes by its settings and refuses files that
//! were written under others. Here the length of what follows the first seal tells.

use super::compress::{Compression, Packed, Stream, Unpacked};
use super::{DecodeError, DecodeLimits, Decoded, Decoder, write_tree};
use crate::disk::File;
use crate::ids::Zxid;
use crate::snapshot::SessionRecord;
use crate::tree::{Tree, TreeOptions};
use crate::wire::txn::TxnDigest;
use crate::wire::writer::Jute;
use adler2::Adler32;
use std::io::{self, Read, Write};

/// "ZKSN", version 2, dbid -1.
const HEADER: [u8; 16] = *b"ZKSN\x00\x00\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff";
const SEAL: usize = 8 + 5;
const SEAL_END: [u8; 5] = *b"\x00\x00\x00\x01/";
const ZXID_SECTION: usize = 8 + SEAL;
/// Of a section with a digest as text: more than any has.
const TRAILER_MAX: usize = 256;
const BUFFER: usize = 64 << 10;

/// The tree's digest as a file gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredDigest {
    /// The transaction after which the tree had this digest: perhaps a later one than the file's name says. Zero: none.
    pub zxid: Zxid,
    pub digest: TxnDigest,
}

/// What a snapshot file holds.
pub struct SnapshotFile {
    pub decoded: Decoded,
    /// `None` if there is no such section, or it is of a version that nobody computes any more.
    pub digest: Option<StoredDigest>,
    /// The last section: the last transaction when the file was complete, so no earlier one than the name says.
    pub last_zxid: Option<Zxid>,
    /// Uncompressed bytes.
    pub bytes: u64,
}

/// Why a snapshot file can't be read. Offsets are in the uncompressed bytes.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("byte {}: {}", .0.offset, .0.problem)]
    Damaged(#[from] DecodeError),
}

fn damaged<T>(offset: u64, problem: impl Into<String>) -> Result<T, FileError> {
    Err(FileError::Damaged(DecodeError { offset, problem: problem.into() }))
}

/// Reads and checks every byte of a snapshot file whose name gives it `zxid`. `seen` is told of bytes as they are read.
pub fn read_file<F: File>(
    file: &F,
    compression: Compression,
    zxid: Zxid,
    options: TreeOptions,
    limits: DecodeLimits,
    seen: &mut dyn FnMut(u64),
) -> Result<SnapshotFile, FileError> {
    let mut input = Input::new(Unpacked::new(compression, Stream::new(file, seen)?));
    let magic: [u8; 16] = input.take("header")?;
    if magic[..4] != HEADER[..4] {
        return damaged(0, "not a snapshot of ZooKeeper");
    }
    let mut decoder = Decoder::new(options, limits);
    while !decoder.is_whole() {
        let piece = input.peek()?;
        if piece.is_empty() {
            return damaged(input.offset, "the file ends in the middle of the tree");
        }
        let taken = decoder.push(piece).map_err(|error| behind_header(error, &magic))?;
        input.consume(taken);
    }
    let decoded = decoder.finish(zxid).map_err(|error| behind_header(error, &magic))?;
    input.seal()?;
    let (digest, last_zxid) = input.trailer()?;
    if let Some(last) = last_zxid.filter(|last| *last < zxid) {
        let problem = format!("it holds the transactions up to {last}, and its name says {zxid}");
        return damaged(input.offset - ZXID_SECTION as u64, problem);
    }
    Ok(SnapshotFile { decoded, digest, last_zxid, bytes: input.offset })
}

fn behind_header(error: DecodeError, header: &[u8]) -> DecodeError {
    DecodeError { offset: error.offset + header.len() as u64, ..error }
}

/// Writes a snapshot file of a tree that is exactly that of its own zxid, both sections included; how many uncompressed
/// bytes that are. Flushes nothing.
pub fn write_file(
    tree: &Tree,
    sessions: &[SessionRecord],
    compression: Compression,
    output: &mut impl Write,
) -> io::Result<u64> {
    let writer = SnapshotFileWriter::begin(tree, sessions, compression, output)?;
    writer.finish(tree.zxid(), tree.digest()).map(|(_, bytes)| bytes)
}

/// A snapshot file of which the tree is written, and the digest not yet: of a tree that is not exactly that of its zxid, it
/// becomes known only when the log behind it has been replayed.
pub(super) struct SnapshotFileWriter<W: Write> {
    out: Summed<W>,
    zxid: Zxid,
}

impl<W: Write> SnapshotFileWriter<W> {
    pub(super) fn begin(
        tree: &Tree,
        sessions: &[SessionRecord],
        compression: Compression,
        output: W,
    ) -> io::Result<SnapshotFileWriter<W>> {
        let mut out = Summed { inner: Packed::new(compression, output), sum: Adler32::new(), bytes: 0 };
        out.write_all(&HEADER)?;
        write_tree(tree, sessions, &mut out)?;
        out.seal()?;
        Ok(SnapshotFileWriter { out, zxid: tree.zxid() })
    }

    /// The tree has this digest when the log has been replayed up to `zxid`. Gives back the output, and how many
    /// uncompressed bytes there are.
    pub(super) fn finish(self, zxid: Zxid, digest: u64) -> io::Result<(W, u64)> {
        let mut out = self.out;
        let mut section = Vec::new();
        section.put_long(zxid.to_wire());
        section.put_int(TxnDigest::VERSION);
        section.put_long(digest as i64);
        out.write_all(&section)?;
        out.seal()?;
        out.write_all(&self.zxid.to_wire().to_be_bytes())?;
        out.seal()?;
        Ok((out.inner.finish()?, out.bytes))
    }
}

/// Counts and sums what goes through.
struct Summed<W: Write> {
    inner: Packed<W>,
    sum: Adler32,
    bytes: u64,
}

impl<W: Write> Summed<W> {
    fn seal(&mut self) -> io::Result<()> {
        let sum = self.sum.checksum() as i64;
        self.write_all(&sum.to_be_bytes())?;
        self.write_all(&SEAL_END)
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.sum.write_slice(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The uncompressed bytes, with the sum over all that were taken.
struct Input<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    sum: Adler32,
    offset: u64,
}

impl<R: Read> Input<R> {
    fn new(inner: R) -> Input<R> {
        Input { inner, buffer: vec![0; BUFFER].into(), start: 0, end: 0, sum: Adler32::new(), offset: 0 }
    }

    /// What is there; nothing at the end.
    fn peek(&mut self) -> Result<&[u8], FileError> {
        if self.start == self.end {
            (self.start, self.end) = (0, self.inner.read(&mut self.buffer).or_else(|error| self.wrong(error))?);
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// A stream that is broken is damage of the file; a disk that can't be read is not.
    fn wrong<T>(&self, error: io::Error) -> Result<T, FileError> {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                damaged(self.offset, format!("the compressed stream is damaged: {error}"))
            }
            _ => Err(error.into()),
        }
    }

    fn consume(&mut self, count: usize) {
        self.sum.write_slice(&self.buffer[self.start..self.start + count]);
        self.start += count;
        self.offset += count as u64;
    }

    fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FileError> {
        let mut taken = [0; N];
        let mut have = 0;
        while have < N {
            let offset = self.offset;
            let piece = self.peek()?;
            if piece.is_empty() {
                return damaged(offset, format!("the file ends in its {what}"));
            }
            let some = piece.len().min(N - have);
            taken[have..have + some].copy_from_slice(&piece[..some]);
            self.consume(some);
            have += some;
        }
        Ok(taken)
    }

    fn seal(&mut self) -> Result<(), FileError> {
        let (sum, offset) = (self.sum.checksum(), self.offset);
        let seal: [u8; SEAL] = self.take("checksum")?;
        check_seal(&seal, sum, offset)
    }

    /// Digest and zxid, whichever are there.
    fn trailer(&mut self) -> Result<(Option<StoredDigest>, Option<Zxid>), FileError> {
        let (begin, mut sum) = (self.offset, self.sum);
        let mut rest = Vec::new();
        while !self.peek()?.is_empty() {
            rest.extend_from_slice(self.peek()?);
            self.consume(self.end - self.start);
            if rest.len() > TRAILER_MAX {
                return damaged(begin, "bytes behind the end");
            }
        }
        let mut rest = &rest[..];
        let len = rest.len();
        let mut take = |count: usize| {
            let offset = begin + (len - rest.len()) as u64;
            let before = sum.checksum();
            let Some((head, tail)) = rest.split_at_checked(count) else {
                return damaged(offset, "the file ends in its trailer");
            };
            sum.write_slice(head);
            rest = tail;
            Ok((head, before, offset, tail.len()))
        };
        let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        let mut digest = None;
        let mut left = len;
        if left != 0 && left != ZXID_SECTION {
            let (head, _, offset, _) = take(12)?;
            let (zxid, version) = (Zxid(word(&head[..8])), i32::from_be_bytes(head[8..].try_into().expect("four")));
            if version >= 2 {
                let (value, ..) = take(8)?;
                digest = Some(StoredDigest { zxid, digest: TxnDigest { version, tree: word(value) } });
            } else {
                let (text_len, ..) = take(4)?;
                let text_len = u32::from_be_bytes(text_len.try_into().expect("four bytes")) as usize;
                if text_len > TRAILER_MAX {
                    return damaged(offset, "not a digest");
                }
                take(text_len)?;
            }
            let (seal, before, offset, after) = take(SEAL)?;
            check_seal(seal, before, offset)?;
            left = after;
        }
        let mut last_zxid = None;
        if left != 0 {
            let (zxid, ..) = take(8)?;
            last_zxid = Some(Zxid(word(zxid)));
            let (seal, before, offset, after) = take(SEAL)?;
            check_seal(seal, before, offset)?;
            if after != 0 {
                return damaged(offset + SEAL as u64, "bytes behind the end");
            }
        }
        Ok((digest, last_zxid))
    }
}

fn check_seal(seal: &[u8], sum: u32, offset: u64) -> Result<(), FileError> {
    if seal[..8] != (sum as u64).to_be_bytes() {
        return damaged(offset, "the checksum is wrong");
    }
    if seal[8..] != SEAL_END {
        return damaged(offset + 8, "the mark behind the checksum is wrong");
    }
    Ok(())
}
