//! The digest by which servers find out that their trees differ (quorum-protocol 7.2, version 2): a sum over znodes, so
//! that it can be kept up to date one znode at a time.
//!
//! A znode's part is a CRC-32 over path, data and numbers, in this order; so when only the numbers change it is taken
//! up again behind the data, however long that is.

use super::node::Numbers;
use crate::ids::Zxid;
use crc32fast::Hasher;
use std::collections::VecDeque;
use std::sync::LazyLock;

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
    let mut crc = EMPTY.clone();
    // Only the root has a path of one slash, and its digest is that of the empty one.
    crc.update(if path == "/" { b"" } else { path.as_bytes() });
    crc.update(data.unwrap_or_default());
    crc.finalize()
}

/// Goes on from `text_crc` with the numbers.
pub fn finish(text_crc: u32, numbers: &Numbers) -> u32 {
    // A checksum that goes on from another is that of the same bytes with the other one in the first four; and zeros before
    // them change nothing if there is no beginning. So there are four blocks of 16, and no rest that costs as much.
    let mut bytes = [0u8; 64];
    bytes[4..12].copy_from_slice(&numbers.czxid.0.to_be_bytes());
    bytes[12..20].copy_from_slice(&numbers.mzxid.0.to_be_bytes());
    bytes[20..28].copy_from_slice(&numbers.pzxid.0.to_be_bytes());
    bytes[28..36].copy_from_slice(&numbers.ctime.to_be_bytes());
    bytes[36..44].copy_from_slice(&numbers.mtime.to_be_bytes());
    bytes[44..48].copy_from_slice(&numbers.version.to_be_bytes());
    bytes[48..52].copy_from_slice(&numbers.cversion.to_be_bytes());
    bytes[52..56].copy_from_slice(&numbers.aversion.to_be_bytes());
    bytes[56..64].copy_from_slice(&numbers.owner.to_be_bytes());
    for (byte, before) in bytes[4..8].iter_mut().zip((!text_crc).to_le_bytes()) {
        *byte ^= before;
    }
    let mut crc = NOTHING_BEFORE.clone();
    crc.update(&bytes);
    crc.finalize()
}

/// Checksums to begin from: which instructions the processor has is asked once.
static EMPTY: LazyLock<Hasher> = LazyLock::new(Hasher::new);
/// The register is zero before the first byte, and not all ones.
static NOTHING_BEFORE: LazyLock<Hasher> = LazyLock::new(|| Hasher::new_with_initial(u32::MAX));

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_checksum_of_path_data_and_numbers_in_one() {
        let numbers = Numbers {
            czxid: Zxid(0x0102_0304_0506_0708),
            mzxid: Zxid(u64::MAX - 9),
            pzxid: Zxid(77),
            ctime: -1,
            mtime: 1_700_000_000_123,
            version: 5,
            cversion: -6,
            aversion: i32::MIN,
            owner: 0x0100_0000_0000_0007,
        };
        let mut bytes = Vec::new();
        for zxid in [numbers.czxid, numbers.mzxid, numbers.pzxid] {
            bytes.extend(zxid.0.to_be_bytes());
        }
        bytes.extend(numbers.ctime.to_be_bytes());
        bytes.extend(numbers.mtime.to_be_bytes());
        for version in [numbers.version, numbers.cversion, numbers.aversion] {
            bytes.extend(version.to_be_bytes());
        }
        bytes.extend(numbers.owner.to_be_bytes());
        for (path, data) in [("", None), ("/a", Some(&b"data"[..])), ("/long/path/of/some/length", Some(&[0; 300]))] {
            let whole = [path.as_bytes(), data.unwrap_or_default(), &bytes].concat();
            assert_eq!(node_digest(path, data, &numbers), crc32fast::hash(&whole), "{path}");
        }
    }
}
