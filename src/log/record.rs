//! One record of the log: a header, a body, a guard; and how to tell a whole one from the remains of one.
//!
//! ```text
//!  0  length      u32   bytes of the body
//!  4  crc         u32   crc32c of identity, offset, length, zxid, previous, group, kind, body
//!  8  zxid        u64   of this record; of a mark: that of the last record of its group
//! 16  previous    u32   `crc` of the record before it, of the segment header for the first: the chain
//! 20  header crc  u32   crc32c of identity, offset and everything else in the header
//! 24  group       u32   where the record's group begins in this segment, in units of 32 bytes
//! 28  kind        u32   "RECD" or "MARK": no byte of it is zero
//! 32  body, then one guard byte 0xe5, then zeros up to a multiple of 32 (a mark has neither body nor guard)
//! ```
//!
//! Little-endian. *Identity* is the crc of the segment's header, which holds the segment's number and a salt; together
//! with the offset it makes a record worthless anywhere but where it was written.
//!
//! Records begin at multiples of 32, so a header never lies in two sectors: a power cut leaves all of it or none. The
//! last eight bytes are stored last, in one piece, so a process killed between two stores leaves no kind. The guard shows that the
//! body's last byte got there even if that byte is zero. Each record says where its group began, so that one whole
//! header is enough to show that a group was begun *after* a bad place, which proves that the bad place was durable.

use crate::ids::Zxid;
use crc32c::crc32c_append;

/// Bytes of a header.
pub const HEADER: usize = 32;
/// Records begin at multiples of this.
pub const ALIGN: usize = 32;
/// Stands behind every body.
pub const GUARD: u8 = 0xe5;

const RECORD: u32 = u32::from_be_bytes(*b"RECD");
const MARK: u32 = u32::from_be_bytes(*b"MARK");

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A zxid and its bytes.
    Record,
    /// The end of a group.
    Mark,
}

/// The header of a record, without its two checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: Kind,
    pub length: u32,
    pub zxid: Zxid,
    pub previous: u32,
    /// Offset of the first record of its group, in bytes.
    pub group: u64,
    pub crc: u32,
}

/// Where a record is: part of both checksums.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub identity: u32,
    pub offset: u64,
}

/// Bytes that a record with a body of `length` takes in its segment.
pub fn record_bytes(length: usize) -> usize {
    (HEADER + length + 1).next_multiple_of(ALIGN)
}

/// Bytes that a mark takes.
pub const MARK_BYTES: usize = HEADER;

impl Header {
    /// The header of a new record, with its place in the chain.
    pub fn new(place: Place, kind: Kind, zxid: Zxid, previous: u32, group: u64, body: &[u8]) -> Header {
        let length = u32::try_from(body.len()).expect("bodies are bounded by jute.maxbuffer");
        let mut header = Header { kind, length, zxid, previous, group, crc: 0 };
        header.crc = header.content_crc(place, body);
        header
    }

    /// Bytes that the record takes, from its header to the next one.
    pub fn bytes(&self) -> usize {
        match self.kind {
            Kind::Record => record_bytes(self.length as usize),
            Kind::Mark => MARK_BYTES,
        }
    }

    /// Whether `body` is the body that was written with this header.
    pub fn matches(&self, place: Place, body: &[u8]) -> bool {
        self.content_crc(place, body) == self.crc
    }

    fn content_crc(&self, place: Place, body: &[u8]) -> u32 {
        let mut fixed = [0; 32];
        fixed[0..4].copy_from_slice(&self.length.to_le_bytes());
        fixed[4..8].copy_from_slice(&self.previous.to_le_bytes());
        fixed[8..16].copy_from_slice(&self.zxid.0.to_le_bytes());
        fixed[16..20].copy_from_slice(&group_units(self.group).to_le_bytes());
        fixed[20..24].copy_from_slice(&self.kind.code().to_le_bytes());
        fixed[24..32].copy_from_slice(&place.offset.to_le_bytes());
        crc32c_append(crc32c_append(place.identity, &fixed), body)
    }

    pub fn encode(&self, place: Place) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.zxid.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.previous.to_le_bytes());
        bytes[24..28].copy_from_slice(&group_units(self.group).to_le_bytes());
        bytes[28..32].copy_from_slice(&self.kind.code().to_le_bytes());
        let crc = header_crc(place, &bytes);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at `place`, if the bytes are whole and were written there.
    pub fn decode(place: Place, bytes: &[u8; HEADER]) -> Option<Header> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let kind = Kind::from_code(word(28))?;
        if word(20) != header_crc(place, bytes) {
            return None;
        }
        let zxid = Zxid(u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")));
        let group = word(24) as u64 * ALIGN as u64;
        Some(Header { kind, length: word(0), zxid, previous: word(16), group, crc: word(4) })
    }
}

impl Kind {
    fn code(self) -> u32 {
        match self {
            Kind::Record => RECORD,
            Kind::Mark => MARK,
        }
    }

    fn from_code(code: u32) -> Option<Kind> {
        match code {
            RECORD => Some(Kind::Record),
            MARK => Some(Kind::Mark),
            _ => None,
        }
    }
}

/// Whether a header was begun and not finished, or never begun: its last byte was not stored. No flip of a few bits
/// makes one of a whole header.
pub fn is_unfinished(bytes: &[u8; HEADER]) -> bool {
    bytes[HEADER - 1] == 0
}

/// Whether `zxid` is the one that comes after `last`: the next in its epoch, or the first of a later epoch. The log asserts
/// it; whoever takes records from a peer asks first.
pub fn follows(last: Zxid, zxid: Zxid) -> bool {
    last.next() == Some(zxid) || (zxid.epoch() > last.epoch() && zxid.counter() == 1)
}

fn header_crc(place: Place, bytes: &[u8; HEADER]) -> u32 {
    // In one piece: each call costs more than the bytes that it is for.
    let mut covered = [0; 8 + 28];
    covered[..8].copy_from_slice(&place.offset.to_le_bytes());
    covered[8..28].copy_from_slice(&bytes[..20]);
    covered[28..].copy_from_slice(&bytes[24..]);
    crc32c_append(place.identity, &covered)
}

fn group_units(group: u64) -> u32 {
    assert!(group.is_multiple_of(ALIGN as u64));
    u32::try_from(group / ALIGN as u64).expect("segments are shorter than 128 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    const PLACE: Place = Place { identity: 0x1234_5678, offset: 4096 };

    fn sample(body: &[u8]) -> Header {
        Header::new(PLACE, Kind::Record, Zxid(7), 99, 4096, body)
    }

    #[test]
    fn a_header_is_read_back_only_at_its_own_place() {
        let header = sample(b"body");
        let bytes = header.encode(PLACE);
        assert_eq!(Header::decode(PLACE, &bytes), Some(header));
        assert!(header.matches(PLACE, b"body"));
        assert_eq!(Header::decode(Place { offset: 4128, ..PLACE }, &bytes), None);
        assert_eq!(Header::decode(Place { identity: 1, ..PLACE }, &bytes), None);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen_and_none_looks_unfinished() {
        let bytes = sample(b"body").encode(PLACE);
        for bit in 0..HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(PLACE, &flipped), None, "bit {bit}");
            assert!(!is_unfinished(&flipped), "bit {bit}");
        }
    }

    #[test]
    fn a_header_cut_at_any_byte_is_unfinished() {
        let bytes = sample(b"body").encode(PLACE);
        for kept in 0..HEADER {
            let mut cut = bytes;
            cut[kept..].fill(0);
            assert!(is_unfinished(&cut), "{kept} bytes");
        }
    }

    #[test]
    fn zxids_follow_inside_an_epoch_or_begin_a_later_one_at_one() {
        let zxid = |epoch, counter| Zxid::new(Epoch(epoch), counter);
        assert!(follows(Zxid::ZERO, Zxid(1)));
        assert!(follows(zxid(1, 5), zxid(1, 6)));
        assert!(follows(zxid(1, 5), zxid(3, 1)));
        assert!(follows(zxid(2, 0), zxid(2, 1)));
        for wrong in [zxid(1, 5), zxid(1, 7), zxid(1, 4), zxid(2, 0), zxid(2, 2), zxid(0, 1)] {
            assert!(!follows(zxid(1, 5), wrong), "{wrong}");
        }
        assert!(!follows(zxid(1, u32::MAX), zxid(1, 0)));
    }
}
