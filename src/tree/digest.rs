//! The digest by which servers find out that their trees differ (quorum-protocol 7.2, version 2): a sum over znodes, so
//! that it can be kept up to date one znode at a time.
//!
//! A znode's part is a CRC-32 over path, data and numbers, in this order; so when only the numbers change it is taken
//! up again behind the data, however long that is.

use super::node::Numbers;
use crate::ids::Zxid;
use std::collections::VecDeque;

/// Every so many zxids the digest goes into the history.
const HISTORY_INTERVAL: u64 = 128;
const HISTORY_MAX: usize = 1024;

/// A znode's digest. `path` is empty for the root.
pub fn node_digest(path: &str, data: Option<&[u8]>, numbers: &Numbers) -> u32 {
    finish(text_crc(path, data), numbers)
}

/// Whether the tree's digest counts a znode.
pub fn counts(path: &str) -> bool {
    !path.starts_with("/zookeeper/")
}

/// CRC-32 of path and data: the beginning of a znode's digest.
pub fn text_crc(path: &str, data: Option<&[u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    // Only the root has a path of one slash, and its digest is that of the empty one.
    crc.update(if path == "/" { b"" } else { path.as_bytes() });
    crc.update(data.unwrap_or_default());
    crc.finalize()
}

/// Goes on from `text_crc` with the numbers.
pub fn finish(text_crc: u32, numbers: &Numbers) -> u32 {
    let mut bytes = [0u8; 60];
    bytes[0..8].copy_from_slice(&numbers.czxid.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&numbers.mzxid.0.to_be_bytes());
    bytes[16..24].copy_from_slice(&numbers.pzxid.0.to_be_bytes());
    bytes[24..32].copy_from_slice(&numbers.ctime.to_be_bytes());
    bytes[32..40].copy_from_slice(&numbers.mtime.to_be_bytes());
    bytes[40..44].copy_from_slice(&numbers.version.to_be_bytes());
    bytes[44..48].copy_from_slice(&numbers.cversion.to_be_bytes());
    bytes[48..52].copy_from_slice(&numbers.aversion.to_be_bytes());
    bytes[52..60].copy_from_slice(&numbers.owner.to_be_bytes());
    let mut crc = crc32fast::Hasher::new_with_initial(text_crc);
    crc.update(&bytes);
    crc.finalize()
}

/// The digests of the past, for the four-letter word `hash`.
#[derive(Default)]
pub(super) struct History(VecDeque<(Zxid, u64)>);

impl History {
    pub(super) fn note(&mut self, zxid: Zxid, digest: u64) {
        if zxid.0.is_multiple_of(HISTORY_INTERVAL) {
            if self.0.len() == HISTORY_MAX {
                self.0.pop_front();
            }
            self.0.push_back((zxid, digest));
        }
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (Zxid, u64)> {
        self.0.iter().copied()
    }
}
