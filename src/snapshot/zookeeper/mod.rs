//! The tree as Apache ZooKeeper serializes it: in its snapshot files, and on the quorum port where a leader sends its
//! whole state to a learner (SNAP; quorum-protocol 5.4).
//!
//! ```text
//!  sessions   int count, count x (long id, int timeout in ms)
//!  ACLs       int count, count x (long key, int count, count x (int perms, string scheme, string id))
//!  znodes     string path ("" is the root), buffer data, long ACL key (-1 is world:anyone:all), 60 bytes of numbers;
//!             parents before children; the path "/" ends them
//! ```
//!
//! `Encoder` writes that from a tree that stands still, a slice at a time; `write_tree` and `write_snap` drive it into
//! anything that takes bytes; `stream_snap` writes the same from a snapshot file of ours, without a tree. `Decoder` is given bytes as they arrive, in pieces of any size, and fills a new tree: it
//! never waits, so a learner runs it between two other packets, and a file is read with it as well.
//!
//! A snapshot that ZooKeeper took, of either kind, is *fuzzy*: transactions went on while it was written, and what the
//! tree holds is right only when all records behind its zxid have been applied over it (`Tree::apply` may see them
//! twice). It may name ACLs that it doesn't have, for the same reason; see `Decoded::missing_acls`.
//!
//! Runs on: encoding on whoever may block (a helper, a command); decoding anywhere.

mod compress;
mod decode;
mod dir;
mod encode;
mod export;
mod file;
mod import;
mod log;
mod stream;
mod takeover;

pub use compress::Compression;
pub use decode::{DecodeError, DecodeLimits, Decoded, Decoder};
pub use dir::{Files, LogName, SnapshotName};
pub use encode::{Encoder, write_snap, write_tree};
pub use export::{ExportOptions, Exported, Passed, State, export, read_state};
pub use file::{FileError, SnapshotFile, StoredDigest, read_file, write_file};
pub use import::{ImportOptions, Imported, ProgressBar, Report, import};
pub use log::{End, LogReader, Next, Record, write_log_header, write_log_record};
pub use stream::{StreamError, stream_snap};
pub use takeover::{
    Dirs, TakeOver, import_from, is_unfinished, our_files, put_state, refuse_another_choice, refuse_unfinished,
    remove_ours, take_over,
};

use crate::wire::txn::Acl;

/// What follows the tree where a leader sends it: the string "BenWasHere".
pub const SNAP_SIGNATURE: &[u8; 14] = b"\x00\x00\x00\x0aBenWasHere";

/// The path that ends the znodes.
const END: &str = "/";
/// The key of `world:anyone` with all permissions, which has no list.
const OPEN_KEY: i64 = -1;
/// Version, aversion and so on: what follows path, data and ACL key of a znode.
const NUMBERS: usize = 60;
/// A scheme that nobody can have, for znodes whose ACL is not there.
const MISSING_SCHEME: &str = "missing";

/// Lets nobody in, and says why to whoever asks for it.
fn missing_acl(key: i64) -> Acl {
    Acl { perms: 0, scheme: MISSING_SCHEME.into(), id: key.to_string() }
}

/// Whether a list stands for one that a decoded tree didn't have (`Decoded::missing_acls`).
pub fn is_missing_acl(list: &[Acl]) -> bool {
    matches!(list, [acl] if acl.perms == 0 && acl.scheme == MISSING_SCHEME)
}

#[cfg(test)]
mod tests;
