//! Writes a tree as ZooKeeper serializes it.
//!
//! The tree stands still meanwhile: it is one that was loaded from a finished snapshot, or the writer holds it. Memory is
//! one slice, the ACLs' pointers and the path; the tree is not copied.

use super::{END, OPEN_KEY, SNAP_SIGNATURE};
use crate::snapshot::SessionRecord;
use crate::tree::{NumberedAcl, Numbers, Progress, Tree, Walk};
use crate::wire::txn::Acl;
use crate::wire::writer::Jute;
use std::io::{self, Write};

/// Bytes of one write.
pub(super) const SLICE: usize = 64 << 10;

/// What is left to be written of a tree.
pub struct Encoder {
    stage: Stage,
}

enum Stage {
    Tables(Tables),
    Nodes(Walk),
    Done,
}

impl Encoder {
    /// Begins a tree with its sessions (id, timeout in milliseconds).
    pub fn new(sessions: Vec<SessionRecord>) -> Encoder {
        Encoder { stage: Stage::Tables(Tables::new(sessions)) }
    }

    /// Appends about `bytes` more to `out`; more by at most one znode or one ACL. The same tree each time, unchanged.
    pub fn take(&mut self, tree: &Tree, bytes: usize, out: &mut Vec<u8>) -> Progress {
        let full = out.len() + bytes;
        while out.len() < full {
            match &mut self.stage {
                Stage::Tables(tables) => {
                    if tables.take(|| tree.acl_lists(), full - out.len(), out) == Progress::Done {
                        self.stage = Stage::Nodes(Walk::new());
                    }
                }
                Stage::Nodes(walk) => match walk.next(tree) {
                    Some(node) => write_znode(walk.path(), node.data(), node.acl_number(), &node.numbers(), out),
                    None => {
                        out.put_text(END);
                        self.stage = Stage::Done;
                    }
                },
                Stage::Done => break,
            }
        }
        if matches!(self.stage, Stage::Done) { Progress::Done } else { Progress::More }
    }
}

/// What is left to be written of what comes before the znodes.
pub(super) struct Tables {
    sessions: Vec<SessionRecord>,
    stage: TablesStage,
}

enum TablesStage {
    Sessions { next: usize },
    Acls { lists: Vec<NumberedAcl>, next: usize },
}

impl Tables {
    pub(super) fn new(sessions: Vec<SessionRecord>) -> Tables {
        Tables { sessions, stage: TablesStage::Sessions { next: 0 } }
    }

    /// Appends about `bytes` more. `acls` is asked once: for the lists, without that of `OPEN_KEY`.
    pub(super) fn take(
        &mut self,
        mut acls: impl FnMut() -> Vec<NumberedAcl>,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> Progress {
        let full = out.len() + bytes;
        while out.len() < full {
            match &mut self.stage {
                TablesStage::Sessions { next } => {
                    if *next == 0 {
                        out.put_int(self.sessions.len() as i32);
                    }
                    let room = (full.saturating_sub(out.len())).div_ceil(12);
                    let end = self.sessions.len().min(*next + room.max(1));
                    for (session, timeout_ms) in &self.sessions[*next..end] {
                        out.put_long(session.0);
                        out.put_int(*timeout_ms);
                    }
                    *next = end;
                    if end == self.sessions.len() {
                        let lists = acls();
                        out.put_int(lists.len() as i32);
                        self.stage = TablesStage::Acls { lists, next: 0 };
                    }
                }
                TablesStage::Acls { lists, next } => match lists.get(*next) {
                    Some((number, list)) => {
                        out.put_long(*number as i64);
                        Acl::write_list(list, out);
                        *next += 1;
                    }
                    None => return Progress::Done,
                },
            }
        }
        Progress::More
    }
}

pub(super) fn write_znode(path: &str, data: Option<&[u8]>, acl: Option<u32>, n: &Numbers, out: &mut Vec<u8>) {
    out.put_text(path);
    out.put_buffer(data);
    out.put_long(acl.map_or(OPEN_KEY, i64::from));
    out.put_long(n.czxid.to_wire());
    out.put_long(n.mzxid.to_wire());
    out.put_long(n.ctime);
    out.put_long(n.mtime);
    out.put_int(n.version);
    out.put_int(n.cversion);
    out.put_int(n.aversion);
    out.put_long(n.owner);
    out.put_long(n.pzxid.to_wire());
}

/// Writes a whole tree; how many bytes that were.
pub fn write_tree(tree: &Tree, sessions: &[SessionRecord], out: &mut impl Write) -> io::Result<u64> {
    let mut encoder = Encoder::new(sessions.to_vec());
    let mut slice = Vec::new();
    let mut written = 0;
    loop {
        slice.clear();
        let progress = encoder.take(tree, SLICE, &mut slice);
        out.write_all(&slice)?;
        written += slice.len() as u64;
        if progress == Progress::Done {
            return Ok(written);
        }
        // The largest znode's room isn't kept.
        slice.shrink_to(2 * SLICE);
    }
}

/// Writes what follows the SNAP packet on the quorum port: the tree and the signature. Flushes nothing.
pub fn write_snap(tree: &Tree, sessions: &[SessionRecord], out: &mut impl Write) -> io::Result<u64> {
    let written = write_tree(tree, sessions, out)?;
    out.write_all(SNAP_SIGNATURE)?;
    Ok(written + SNAP_SIGNATURE.len() as u64)
}
