//! A segment: one file of the log, its name, its first sector.
//!
//! Segments are numbered without a gap and are never renumbered, so a missing file shows. The first sector says which
//! segment this is and where the one before it ended, so a missing *end* shows too:
//!
//! ```text
//!  0  magic         8    "OSTLRLOG", stored last
//!  8  version       u32  1
//! 16  number        u64  as in the file name
//! 24  salt          u64  makes every use of a file different
//! 32  after         u64  zxid of the last record before this segment
//! 40  previous end  u64  where the records of the segment before it end (0 for the first of a log)
//! 48  previous      u32  crc of the last record before this segment: the chain
//! 52  crc           u32  crc32c of everything before it: the segment's identity
//! 512 records
//! ```
//!
//! A segment that has been prepared and not begun is all zeros. Its header is durable before its first record is
//! stored, so records under a header that can't be read are damage and never a torn tail.

use crate::fatal::Fatal;
use crate::ids::Zxid;
use crc32c::crc32c;
use std::path::{Path, PathBuf};

/// Where records begin.
pub const RECORDS_START: usize = 512;

const MAGIC: [u8; 8] = *b"OSTLRLOG";
const VERSION: u32 = 1;
/// No format comes to a later version; so noise is hardly ever taken for one.
const VERSION_MAX: u32 = 255;
const ENCODED: usize = 56;

/// The first sector of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    pub number: u64,
    pub salt: u64,
    pub after: Zxid,
    pub previous_end: u64,
    pub previous: u32,
}

/// What the first sector of a segment turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstSector {
    /// A header and its crc, which is the identity of the segment's records.
    Header(SegmentHeader, u32),
    /// Not begun, or begun and not finished.
    Unfinished,
    /// The header of a segment that was written in this version of the format.
    OtherVersion(u32),
    /// Something else.
    Bad(&'static str),
}

impl SegmentHeader {
    /// The sector and the identity of the segment.
    pub fn encode(&self) -> ([u8; ENCODED], u32) {
        let mut bytes = [0; ENCODED];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.after.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.previous.to_le_bytes());
        let identity = crc32c(&bytes[..52]);
        bytes[52..56].copy_from_slice(&identity.to_le_bytes());
        (bytes, identity)
    }

    /// Reads the first sector of the segment that is called `number`.
    pub fn decode(number: u64, sector: &[u8; RECORDS_START]) -> FirstSector {
        let long = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().expect("eight bytes"));
        let word = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().expect("four bytes"));
        // The magic's last byte is never zero and is stored last.
        if sector[7] == 0 {
            return FirstSector::Unfinished;
        }
        if sector[0..8] != MAGIC {
            return FirstSector::Bad("the segment header does not begin as one");
        }
        // Before the rest, which another version may have elsewhere.
        if word(8) != VERSION {
            let mut ours: [u8; ENCODED] = sector[..ENCODED].try_into().expect("shorter than a sector");
            ours[8..12].copy_from_slice(&VERSION.to_le_bytes());
            let is_damage = word(52) == crc32c(&ours[..52]) || !(1..=VERSION_MAX).contains(&word(8));
            return match is_damage {
                true => FirstSector::Bad("the version in the segment header is damaged"),
                false => FirstSector::OtherVersion(word(8)),
            };
        }
        let identity = crc32c(&sector[..52]);
        if word(52) != identity || sector[ENCODED..].iter().any(|&byte| byte != 0) {
            return FirstSector::Bad("the checksum of the segment header is wrong");
        }
        let header = SegmentHeader {
            number: long(16),
            salt: long(24),
            after: Zxid(long(32)),
            previous_end: long(40),
            previous: word(48),
        };
        if header.number != number {
            return FirstSector::Bad("the segment has another segment's name");
        }
        FirstSector::Header(header, identity)
    }
}

/// The reason to stop that a segment of another version is.
pub fn other_version(file: &Path, version: u32) -> Fatal {
    Fatal::OtherVersion { file: file.to_owned(), version, known: VERSION }
}

/// The magic as the word that is published last.
pub fn magic_word() -> u64 {
    u64::from_le_bytes(MAGIC)
}

/// The path of a segment.
pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment.{number:016x}"))
}

/// The number in a segment's name; `None` for any other name.
pub fn segment_number(name: &str) -> Option<u64> {
    numbered(name, "segment.")
}

/// The path under which a purged segment waits for being used again.
pub fn recycled_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("recycled.{number:016x}"))
}

/// The number in a recycled segment's name.
pub fn recycled_number(name: &str) -> Option<u64> {
    numbered(name, "recycled.")
}

/// The name of a segment while it is being made.
pub const PREPARING: &str = "segment.tmp";

fn numbered(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    let canonical = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    canonical.then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_header_is_read_back_and_every_flipped_bit_is_seen() {
        let header = SegmentHeader { number: 3, salt: 0xabcd, after: Zxid(9), previous_end: 4096, previous: 77 };
        let mut sector = [0; RECORDS_START];
        let (bytes, identity) = header.encode();
        sector[..ENCODED].copy_from_slice(&bytes);
        assert_eq!(SegmentHeader::decode(3, &sector), FirstSector::Header(header, identity));
        assert!(matches!(SegmentHeader::decode(4, &sector), FirstSector::Bad(_)), "under another name");
        for bit in 0..RECORDS_START * 8 {
            let mut flipped = sector;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(SegmentHeader::decode(3, &flipped), FirstSector::Bad(_)), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(3, &[0; RECORDS_START]), FirstSector::Unfinished);
        sector[8] = 2;
        sector[12..].fill(0x5a);
        assert_eq!(SegmentHeader::decode(3, &sector), FirstSector::OtherVersion(2), "with anything behind it");
    }

    #[test]
    fn only_canonical_names_are_segments() {
        assert_eq!(segment_number("segment.00000000000000ff"), Some(255));
        for name in ["segment.ff", "segment.00000000000000FF", "segment.00000000000000f+", "segment.tmp", "snapshot.1"]
        {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }
}
