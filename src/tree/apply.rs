//! A committed transaction becomes a change of the tree (quorum-protocol 7.3), and may do so again: a log is replayed
//! over a snapshot that has seen some of it (7.4).
//!
//! So nothing is derived by counting, what is already there or already gone is answered and not complained about, and no
//! transaction can make this panic. What was touched is reported, with the ACLs that decide who may hear of it.

use super::Tree;
use super::node::{Node, Numbers};
use super::quota;
use crate::ids::{Owner, SessionId, Zxid};
use crate::random::FastMap;
use crate::wire::client::EventKind;
use crate::wire::txn::{Acl, NodeKind, Txn, TxnHeader};
use crate::wire::{ErrorCode, OpCode, Stat};
use std::sync::Arc;

/// Holds the members of an ensemble.
const CONFIG_NODE: &str = "/zookeeper/config";

/// What a transaction did. Its buffers are the caller's to use again.
#[derive(Default, Debug)]
pub struct Applied {
    /// One for a single operation, one per operation of a multi.
    pub results: Vec<OpResult>,
    /// In the order in which they happened.
    pub touched: Vec<Touched>,
}

impl Applied {
    pub fn clear(&mut self) {
        self.results.clear();
        self.touched.clear();
    }
}

/// What one operation did. A `Stat` is the znode's right after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpResult {
    /// `touched` is where the path stands in `Applied::touched`.
    Created {
        touched: usize,
        stat: Stat,
    },
    Deleted,
    DataSet {
        stat: Stat,
    },
    AclSet {
        stat: Stat,
    },
    Checked,
    /// `OK` for what stands before the failure in a failed multi.
    Error(ErrorCode),
    SessionCreated {
        timeout_ms: i32,
    },
    SessionClosed,
}

/// One path whose watchers may have to hear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Touched {
    /// `NodeCreated`, `NodeDeleted` or `NodeDataChanged`.
    pub kind: EventKind,
    pub path: String,
    /// The number that the znode has, or had, in the tree (`NodeRef::slot`), and its parent's.
    pub slot: u32,
    pub parent_slot: u32,
    /// The znode's list (before it went); `None` is `world:anyone` with all permissions.
    pub acl: Option<Arc<[Acl]>>,
    /// The same of its parent, for NodeChildrenChanged. `None` too where no child came or went.
    pub parent_acl: Option<Arc<[Acl]>>,
}

impl Touched {
    /// What it holds in memory, about, save what nearly every znode has.
    pub fn size(&self) -> usize {
        let entries = |list: &Option<Arc<[Acl]>>| list.as_ref().map_or(0, |list| list.len());
        self.path.len() + (entries(&self.acl) + entries(&self.parent_acl)) * size_of::<Acl>()
    }
}

/// A transaction's header where one operation needs it.
#[derive(Clone, Copy)]
struct At {
    zxid: Zxid,
    time: i64,
    session: SessionId,
}

impl Tree {
    /// Applies a committed transaction, appending to `out`. Never fails as a whole: what can't be done is a result.
    pub fn apply(&mut self, header: &TxnHeader, txn: Txn, out: &mut Applied) {
        if self.acls.has_unused() && self.freeze.get_mut().is_none() {
            self.acls.sweep();
        }
        let at = At { zxid: header.zxid, time: header.time, session: header.session };
        match txn {
            Txn::Multi(ops) if ops.iter().any(|op| matches!(op, Txn::Error { .. })) => failed_multi(&ops, out),
            Txn::Multi(ops) => {
                for op in ops {
                    self.apply_one(at, op, out);
                }
            }
            single => self.apply_one(at, single, out),
        }
        if !self.counted.is_empty() {
            self.counted = FastMap::default();
        }
        // Only now: a multi is one step, for a snapshot too.
        self.zxid = self.zxid.max(header.zxid);
        if self.options.digest {
            self.history.note(header.zxid, self.digest);
        }
    }

    fn apply_one(&mut self, at: At, txn: Txn, out: &mut Applied) {
        let result = match txn {
            Txn::CreateSession { timeout_ms } => Ok(OpResult::SessionCreated { timeout_ms }),
            Txn::CloseSession { paths } => {
                self.close_session(at, paths.unwrap_or_default(), out);
                Ok(OpResult::SessionClosed)
            }
            Txn::Error { code } => Err(ErrorCode(code)),
            Txn::Create { op, path, data, acl, kind, parent_cversion } => {
                self.create(at, op, path, data.as_deref(), &acl, kind, parent_cversion, out)
            }
            Txn::Delete { path, .. } => self.delete(at, path, out),
            Txn::SetData { path, data, version, .. } => self.set_data(at, path, data.as_deref(), version, out),
            Txn::SetAcl { path, acl, version } => self.set_acl(&path, &acl, version),
            Txn::Check { .. } => Ok(OpResult::Checked),
            // `wire::txn` lets none through inside another.
            Txn::Multi(_) => Err(ErrorCode::UNIMPLEMENTED),
        };
        out.results.push(result.unwrap_or_else(OpResult::Error));
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one record")]
    fn create(
        &mut self,
        at: At,
        op: OpCode,
        path: String,
        data: Option<&[u8]>,
        acl: &[Acl],
        kind: NodeKind,
        parent_cversion: i32,
        out: &mut Applied,
    ) -> Result<OpResult, ErrorCode> {
        let Some((parent_path, name)) = super::split(&path) else { return Err(ErrorCode::NODE_EXISTS) };
        let parent = self.find(parent_path).ok_or(ErrorCode::NO_NODE)?;
        let stored = self.nodes[parent as usize].cversion();
        let parent_cversion = if parent_cversion == -1 { stored.wrapping_add(1) } else { parent_cversion };
        if let Some(existing) = self.index.find_child(&self.nodes, parent, name.as_bytes()) {
            // A replay: the znode may have been created again with another list since the snapshot saw it.
            self.replace_acl(existing, acl, |_| {});
            if op == OpCode::Create {
                self.raise_cversion(parent, parent_cversion, at.zxid);
            }
            return Err(ErrorCode::NODE_EXISTS);
        }
        self.raise_cversion(parent, parent_cversion, at.zxid);
        let owner = match kind {
            NodeKind::Persistent => 0,
            NodeKind::Ephemeral => at.session.0,
            NodeKind::Container => Owner::Container.to_stored(),
            NodeKind::Ttl(ms) => Owner::Ttl(ms).to_stored(),
        };
        let numbers = Numbers {
            czxid: at.zxid,
            mzxid: at.zxid,
            pzxid: at.zxid,
            ctime: at.time,
            mtime: at.time,
            owner,
            ..Numbers::default()
        };
        let acl = self.acls.acquire(acl);
        let slot = self.insert(parent, &path, data, Node::new(name.as_bytes(), data, &numbers, acl));
        let stat = self.nodes[slot as usize].stat(self.options.owner_rules);
        self.quota_after_create(&path, data.map_or(0, <[u8]>::len) as i64);
        let touched = out.touched.len();
        let acl = self.acls.shared(acl);
        let parent_acl = self.acls.shared(self.nodes[parent as usize].acl);
        let kind = EventKind::NodeCreated;
        out.touched.push(Touched { kind, path, slot, parent_slot: parent, acl, parent_acl });
        Ok(OpResult::Created { touched, stat })
    }

    /// Only ever upwards: a replay must not set it back.
    fn raise_cversion(&mut self, slot: u32, cversion: i32, zxid: Zxid) {
        if cversion > self.nodes[slot as usize].cversion() {
            self.change(slot, |node| {
                let extra = node.extra_mut();
                extra.cversion = cversion;
                extra.pzxid = zxid;
            });
        }
    }

    fn delete(&mut self, at: At, path: String, out: &mut Applied) -> Result<OpResult, ErrorCode> {
        let (parent_path, name) = super::split(&path).ok_or(ErrorCode::BAD_ARGUMENTS)?;
        let parent = self.find(parent_path).ok_or(ErrorCode::NO_NODE)?;
        // Also when the znode is gone already: a snapshot may have seen that, but not this.
        if at.zxid > self.nodes[parent as usize].pzxid() {
            self.change(parent, |node| node.extra_mut().pzxid = at.zxid);
        }
        let slot = self.index.find_child(&self.nodes, parent, name.as_bytes()).ok_or(ErrorCode::NO_NODE)?;
        let node = &self.nodes[slot as usize];
        let acl = self.acls.shared(node.acl);
        if !node.children().is_empty() {
            self.remove_below(slot, out);
        }
        let bytes = self.nodes[slot as usize].data_len() as i64;
        self.remove(slot, &path);
        self.quota_after_delete(&path, bytes);
        let parent_acl = self.acls.shared(self.nodes[parent as usize].acl);
        let kind = EventKind::NodeDeleted;
        out.touched.push(Touched { kind, path, slot, parent_slot: parent, acl, parent_acl });
        Ok(OpResult::Deleted)
    }

    /// No server makes a transaction that needs this; but the replay of a log over a snapshot that ZooKeeper took while
    /// it was writing may delete a parent whose later children are already there. They come back further on.
    #[cold]
    fn remove_below(&mut self, top: u32, out: &mut Applied) {
        let mut below = vec![top];
        let mut seen = 0;
        while let Some(&slot) = below.get(seen) {
            below.extend_from_slice(self.nodes[slot as usize].children());
            seen += 1;
        }
        for slot in below.drain(1..).rev() {
            let path = super::index::path_of(&self.nodes, slot);
            let node = &self.nodes[slot as usize];
            let (parent_slot, bytes, acl) = (node.parent, node.data_len() as i64, self.acls.shared(node.acl));
            let parent_acl = self.acls.shared(self.nodes[parent_slot as usize].acl);
            self.remove(slot, &path);
            self.quota_after_delete(&path, bytes);
            // Whoever watches it must hear of its end, as of any: what hangs on its number goes with it.
            out.touched.push(Touched { kind: EventKind::NodeDeleted, path, slot, parent_slot, acl, parent_acl });
        }
    }

    fn close_session(&mut self, at: At, paths: Vec<String>, out: &mut Applied) {
        for path in paths {
            // Gone already, in a replay.
            let _ = self.delete(at, path, out);
        }
        // In an order that does not depend on how the list came about: a quota among them is counted by what is left.
        let mut left: Vec<String> = self.ephemerals(at.session).collect();
        left.sort_unstable();
        for path in left {
            // Gone already, with a parent that went before it.
            let _ = self.delete(at, path, out);
        }
        assert!(self.owned.of_session(at.session).is_empty(), "nothing outlives its session");
    }

    /// What `/zookeeper/config` says, and as of which zxid, unless a client has written it.
    pub fn config(&self) -> Option<(Zxid, &[u8])> {
        let node = self.lookup(CONFIG_NODE).filter(|node| node.version() == -1)?;
        Some((node.mzxid(), node.data()?))
    }

    /// What `/zookeeper/config` says from now on: the members of the ensemble, set by each server from its own configuration at the
    /// start and after each synchronisation, by no transaction (upstream: `DataTree.initConfigInZKDatabase`). `version`
    /// is that of the configuration.
    pub fn set_config(&mut self, text: &str, version: Zxid, time_ms: i64) {
        let at = At { zxid: version, time: time_ms, session: SessionId::NONE };
        // A tree from before 3.5 has no such node, and nobody who asks for it.
        let _ = self.set_data(at, CONFIG_NODE.to_owned(), Some(text.as_bytes()), -1, &mut Applied::default());
    }

    fn set_data(
        &mut self,
        at: At,
        path: String,
        data: Option<&[u8]>,
        version: i32,
        out: &mut Applied,
    ) -> Result<OpResult, ErrorCode> {
        let slot = self.find(&path).ok_or(ErrorCode::NO_NODE)?;
        let difference = data.map_or(0, <[u8]>::len) as i64 - self.nodes[slot as usize].data_len() as i64;
        self.change_data(slot, &path, data, |node| {
            node.version = version;
            node.mzxid = at.zxid;
            node.mtime = at.time;
        });
        self.size += difference;
        let node = &self.nodes[slot as usize];
        let (stat, parent_slot) = (node.stat(self.options.owner_rules), node.parent);
        let acl = self.acls.shared(node.acl);
        // Also when nothing changes: a usage that was written over is in order again then.
        self.charge(&path, difference, 0);
        let kind = EventKind::NodeDataChanged;
        out.touched.push(Touched { kind, path, slot, parent_slot, acl, parent_acl: None });
        Ok(OpResult::DataSet { stat })
    }

    fn set_acl(&mut self, path: &str, acl: &[Acl], version: i32) -> Result<OpResult, ErrorCode> {
        let slot = self.find(path).ok_or(ErrorCode::NO_NODE)?;
        self.replace_acl(slot, acl, |node| node.set_aversion(version));
        Ok(OpResult::AclSet { stat: self.nodes[slot as usize].stat(self.options.owner_rules) })
    }

    fn replace_acl(&mut self, slot: u32, list: &[Acl], and: impl FnOnce(&mut Node)) {
        let acl = self.acls.acquire(list);
        let old = self.nodes[slot as usize].acl;
        self.change(slot, |node| {
            node.acl = acl;
            and(node);
        });
        self.acls.release(old);
    }

    fn quota_after_create(&mut self, path: &str, bytes: i64) {
        if let Some(limited) = quota::limited_by(path) {
            self.quotas.insert(limited.into());
        } else if let Some(counted) = quota::counted_by(path) {
            self.recount(counted);
        }
        self.charge(path, bytes, 1);
    }

    fn quota_after_delete(&mut self, path: &str, bytes: i64) {
        if let Some(limited) = quota::limited_by(path) {
            self.quotas.remove(limited);
        }
        self.charge(path, -bytes, -1);
    }
}

/// Nothing is applied; what stands before the failure reads as done, what stands behind it as never tried.
fn failed_multi(ops: &[Txn], out: &mut Applied) {
    let mut failed = false;
    for op in ops {
        let code = match op {
            Txn::Error { code } => ErrorCode(*code),
            _ if failed => ErrorCode::RUNTIME_INCONSISTENCY,
            _ => ErrorCode::OK,
        };
        failed |= matches!(op, Txn::Error { .. });
        out.results.push(OpResult::Error(code));
    }
}
