//! What a snapshot file is made of: blocks, each with a checksum that also says which file and which place it belongs
//! to, so that a block from elsewhere is no block. docs/snapshot-format.md is the specification.

use crate::fatal::Fatal;
use crate::ids::{SessionId, Zxid};
use crate::tree::{Image, NumberedAcl};
use crate::wire::txn::Acl;
use std::path::Path;
use std::sync::Arc;

/// The first bytes of every snapshot; the last one is the version of the format.
pub(super) const MAGIC: [u8; 8] = *b"ostsnap\x01";

/// Bytes of a block's header.
pub(super) const BLOCK_HEADER: usize = 16;

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Kind {
    Header = 1,
    Nodes = 2,
    Acls = 3,
    Sessions = 4,
    Trailer = 5,
}

impl Kind {
    fn from_stored(raw: u32) -> Option<Kind> {
        Some(match raw {
            1 => Kind::Header,
            2 => Kind::Nodes,
            3 => Kind::Acls,
            4 => Kind::Sessions,
            5 => Kind::Trailer,
            _ => return None,
        })
    }
}

/// A block's header, as it is before its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockHeader {
    pub(super) kind: Kind,
    /// The blocks of a file are numbered from 0.
    pub(super) number: u32,
    /// Bytes of the body.
    pub(super) len: u32,
    crc: u32,
}

impl BlockHeader {
    pub(super) fn new(zxid: Zxid, kind: Kind, number: u32, body: &[u8]) -> BlockHeader {
        let len = u32::try_from(body.len()).expect("slices are far smaller");
        BlockHeader { kind, number, len, crc: crc(zxid, kind, number, body) }
    }

    pub(super) fn write(&self) -> [u8; BLOCK_HEADER] {
        let mut bytes = [0; BLOCK_HEADER];
        for (at, word) in [self.kind as u32, self.number, self.len, self.crc].into_iter().enumerate() {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None` if the kind is none.
    pub(super) fn read(bytes: &[u8; BLOCK_HEADER]) -> Option<BlockHeader> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Some(BlockHeader { kind: Kind::from_stored(word(0))?, number: word(4), len: word(8), crc: word(12) })
    }

    pub(super) fn fits(&self, zxid: Zxid, body: &[u8]) -> bool {
        self.crc == crc(zxid, self.kind, self.number, body)
    }
}

fn crc(zxid: Zxid, kind: Kind, number: u32, body: &[u8]) -> u32 {
    let mut place = [0; 20];
    place[..8].copy_from_slice(&zxid.0.to_le_bytes());
    place[8..12].copy_from_slice(&(kind as u32).to_le_bytes());
    place[12..16].copy_from_slice(&number.to_le_bytes());
    place[16..].copy_from_slice(&(body.len() as u32).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), body)
}

/// What a snapshot says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    pub zxid: Zxid,
    /// The tree's digest (quorum-protocol 7.2).
    pub tree_digest: u64,
    pub nodes: u64,
    pub sessions: u64,
    /// Of everything: znodes with all they have, ACLs, sessions, in no order. Two servers' snapshots at one zxid have the
    /// same.
    pub content_digest: u64,
    /// Of the file.
    pub bytes: u64,
}

/// The body of the first block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) zxid: Zxid,
    pub(super) tree_digest: u64,
    pub(super) nodes: u64,
    pub(super) sessions: u64,
}

impl Header {
    pub(super) const BYTES: usize = 32;

    pub(super) fn write(&self) -> [u8; Self::BYTES] {
        words([self.zxid.0, self.tree_digest, self.nodes, self.sessions])
    }

    pub(super) fn read(body: &[u8; Self::BYTES]) -> Header {
        let [zxid, tree_digest, nodes, sessions] = unwords(body);
        Header { zxid: Zxid(zxid), tree_digest, nodes, sessions }
    }
}

/// The body of the last block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Trailer {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    pub(super) acls: u64,
    pub(super) content_digest: u64,
}

impl Trailer {
    pub(super) const BYTES: usize = 32;

    pub(super) fn write(&self) -> [u8; Self::BYTES] {
        words([self.blocks, self.bytes, self.acls, self.content_digest])
    }

    pub(super) fn read(body: &[u8]) -> Option<Trailer> {
        let [blocks, bytes, acls, content_digest] = unwords(body.try_into().ok()?);
        Some(Trailer { blocks, bytes, acls, content_digest })
    }
}

fn words(words: [u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (at, word) in words.into_iter().enumerate() {
        bytes[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn unwords(bytes: &[u8; 32]) -> [u64; 4] {
    std::array::from_fn(|at| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("eight bytes")))
}

/// A session as a snapshot keeps it: its id and its timeout in milliseconds.
pub type SessionRecord = (SessionId, i32);

pub(super) fn write_session(session: &SessionRecord, out: &mut Vec<u8>) {
    out.extend_from_slice(&session.0.0.to_le_bytes());
    out.extend_from_slice(&session.1.to_le_bytes());
}

pub(super) fn read_sessions(body: &[u8], out: &mut Vec<SessionRecord>) -> Option<()> {
    let (records, []) = body.as_chunks::<12>() else { return None };
    out.extend(records.iter().map(|record| {
        let (id, timeout) = record.split_at(8);
        let id = i64::from_le_bytes(id.try_into().expect("eight bytes"));
        (SessionId(id), i32::from_le_bytes(timeout.try_into().expect("four bytes")))
    }));
    Some(())
}

pub(super) fn write_acl((id, list): &NumberedAcl, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.to_le_bytes());
    write_list(list, out);
}

fn write_list(list: &[Acl], out: &mut Vec<u8>) {
    out.extend_from_slice(&(list.len() as u32).to_le_bytes());
    for acl in list {
        out.extend_from_slice(&acl.perms.to_le_bytes());
        for text in [&acl.scheme, &acl.id] {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
}

pub(super) fn read_acls(body: &[u8], out: &mut Vec<NumberedAcl>) -> Option<()> {
    fn word(rest: &mut &[u8]) -> Option<u32> {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        Some(u32::from_le_bytes(*head))
    }
    fn text(rest: &mut &[u8]) -> Option<String> {
        let len = word(rest)? as usize;
        let (head, tail) = rest.split_at_checked(len)?;
        *rest = tail;
        Some(std::str::from_utf8(head).ok()?.to_owned())
    }
    let mut rest = body;
    while !rest.is_empty() {
        let (id, count) = (word(&mut rest)?, word(&mut rest)? as usize);
        // The count is only a claim.
        let mut list = Vec::with_capacity(count.min(rest.len() / 12));
        for _ in 0..count {
            let perms = word(&mut rest)? as i32;
            list.push(Acl { perms, scheme: text(&mut rest)?, id: text(&mut rest)? });
        }
        out.push((id, Arc::from(list)));
    }
    Some(())
}

/// The digest of everything, gathered in any order. Slots and numbers of ACLs, which differ between servers, are not in.
#[derive(Default)]
pub(super) struct ContentDigest {
    /// By number of the ACL, as long as its list isn't known.
    nodes: crate::random::FastMap<u32, u64>,
    sum: u64,
}

impl ContentDigest {
    /// `bytes` are the image's.
    pub(super) fn node(&mut self, image: &Image<'_>, bytes: &[u8]) {
        // The numbers of znode, parent and list are this server's own: as if they were 0.
        const NUMBERS: [u8; 12] = [0; 12];
        let crc = crc32c::crc32c_append(crc32c::crc32c(&NUMBERS), &bytes[NUMBERS.len()..]);
        let hash = mix((image.digest() as u64) << 32 | crc as u64);
        let sum = self.nodes.entry(image.acl).or_default();
        *sum = sum.wrapping_add(hash);
    }

    pub(super) fn acl(&mut self, (id, list): &NumberedAcl) {
        if let Some(nodes) = self.nodes.remove(id) {
            let mut bytes = Vec::new();
            write_list(list, &mut bytes);
            let hash = mix((crc32fast::hash(&bytes) as u64) << 32 | crc32c::crc32c(&bytes) as u64);
            self.sum = self.sum.wrapping_add(mix(nodes ^ hash));
        }
    }

    pub(super) fn session(&mut self, session: &SessionRecord) {
        self.sum = self.sum.wrapping_add(mix(mix(session.0.0 as u64) ^ session.1 as u64));
    }

    pub(super) fn finish(self) -> u64 {
        assert!(self.nodes.is_empty(), "every znode's list was among the ACLs");
        self.sum
    }
}

/// SplitMix64's finisher.
fn mix(word: u64) -> u64 {
    let z = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(super) fn corrupt<T>(file: &Path, offset: u64, problem: impl Into<String>) -> Result<T, Fatal> {
    Err(Fatal::SnapshotCorrupt { file: file.to_owned(), offset, problem: problem.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Numbers;

    #[test]
    fn the_content_digest_is_that_of_the_image_without_the_numbers_that_are_a_servers_own() {
        let numbers = Numbers { czxid: Zxid(7), pzxid: Zxid(9), version: 3, ..Numbers::default() };
        let image = |slot, parent, acl| Image {
            slot,
            parent,
            acl,
            text_crc: 5,
            numbers,
            name: b"name",
            data: Some(b"some data"),
        };
        let bytes_of = |image: &Image<'_>| {
            let mut bytes = Vec::new();
            image.write(&mut bytes);
            bytes
        };
        let bare = image(0, 0, 0);
        let expected = mix((bare.digest() as u64) << 32 | crc32c::crc32c(&bytes_of(&bare)) as u64);
        for (slot, parent, acl) in [(0, 0, 0), (1, 2, 3), (u32::MAX, 1, 1 << 20)] {
            let (image, mut digest) = (image(slot, parent, acl), ContentDigest::default());
            digest.node(&image, &bytes_of(&image));
            assert_eq!(digest.nodes.into_iter().collect::<Vec<_>>(), [(acl, expected)]);
        }
    }
}
