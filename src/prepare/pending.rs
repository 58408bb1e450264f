//! What the transactions that are made and not yet applied will have done to the tree (upstream: `ChangeRecord`,
//! `outstandingChanges`).
//!
//! A record per path, absolute: how the znode will be, or that it will be gone. It stands until the last transaction
//! that changed it has been applied. Inside a multi, what is overwritten is kept, so that a failure can take it all back.
//! Records have numbers, so that only what comes with a path is hashed, and what is forgotten is found without one.
//!
//! The tree's digest is kept ahead too. A node's digest is a CRC-32 over its path, its data and 60 bytes of its stat; so when
//! only the stat changes, the new one goes on from that of path and data, and the data is not read.

use crate::ids::{Owner, OwnerRules, SessionId, Zxid};
use crate::random::hash_bytes;
use crate::tree::{NodeRef, Numbers, Tree, digest_from_text_crc, find_last_slash, in_tree_digest, text_crc};
use crate::wire::txn::{Acl, AclList};
use hashbrown::HashTable;
use slab::Slab;
use std::collections::{BTreeSet, VecDeque};

/// A znode as far as checks and the digest need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub numbers: Numbers,
    pub children: u32,
    pub data_len: u32,
    /// CRC-32 of path and data. Meaningless, as `digest`, where the digest is off or the path has no part in it.
    pub text_crc: u32,
    pub digest: u32,
    /// Its number in the tree, if it was there when its record began: by which its children are found.
    pub slot: Option<u32>,
    /// A container that a create with an ephemeral flag made: no parent for the rest of its multi.
    pub odd_container: bool,
}

impl Node {
    pub fn of_tree(node: NodeRef<'_>) -> Node {
        Node {
            numbers: node.numbers(),
            children: node.num_children() as u32,
            data_len: node.data_len() as u32,
            text_crc: node.text_crc(),
            digest: node.digest(),
            slot: Some(node.slot()),
            odd_container: false,
        }
    }

    pub fn owner(&self, rules: OwnerRules) -> Owner {
        Owner::from_stored(self.numbers.owner, rules)
    }
}

/// A znode's access control list while it is pending.
#[derive(Clone, Debug)]
pub(super) enum PendingAcl {
    /// The tree's.
    Unchanged,
    /// `world:anyone`, everything: nearly every list there is.
    Open,
    List(AclList),
}

impl PendingAcl {
    pub fn of_list(list: &AclList) -> PendingAcl {
        if Acl::is_shared_open(list) { PendingAcl::Open } else { PendingAcl::List(list.clone()) }
    }
}

/// How a path will be: `node` is `None` when it will be gone.
#[derive(Clone, Debug)]
struct Change {
    /// The last transaction that changed it.
    zxid: Zxid,
    node: Option<Node>,
    acl: PendingAcl,
}

/// A change, and what it is found by.
#[derive(Debug)]
struct Record {
    hash: u64,
    path: Box<str>,
    change: Change,
}

/// Where a path is among what is pending, or would be: until the next change, it need not be looked for again.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    hash: u64,
    number: Option<u32>,
}

/// A znode to be looked at: pending, or the tree's where nothing is pending.
pub(super) struct View<'a> {
    pub node: Node,
    pub acl: &'a AclList,
    pub spot: Spot,
}

#[derive(Default)]
pub(super) struct Pending {
    records: Slab<Record>,
    /// The records' numbers by path.
    by_path: HashTable<u32>,
    /// What was changed by which transaction, in order, to find what can be forgotten.
    order: VecDeque<(Zxid, u32)>,
    /// The ephemerals among `records`, by session.
    ephemerals: BTreeSet<(SessionId, u32)>,
    /// The transaction being made, or the last that was.
    current: Zxid,
    /// The tree's digest after all of this; `None` when nothing is pending and the tree has it.
    digest: Option<u64>,
    with_digest: bool,
    rules: OwnerRules,
    undo: Option<Undo>,
}

struct Undo {
    digest: Option<u64>,
    order_len: usize,
    overwritten: Vec<(u32, Option<Change>)>,
}

impl Pending {
    pub fn new(rules: OwnerRules, with_digest: bool) -> Pending {
        Pending { rules, with_digest, ..Pending::default() }
    }

    /// The next transaction. Zxids only rise.
    pub fn begin(&mut self, tree: &Tree, zxid: Zxid) {
        assert!(zxid > self.current, "{zxid} was given out after {}", self.current);
        assert!(self.undo.is_none(), "the last multi has ended");
        self.current = zxid;
        if self.with_digest && self.digest.is_none() {
            self.digest = Some(tree.digest());
        }
    }

    /// The tree's digest after everything that is pending.
    pub fn digest(&self) -> Option<u64> {
        self.digest
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Where a path is.
    pub fn spot(&self, path: &str) -> Spot {
        let hash = hash_bytes(path.as_bytes());
        let is_it = |&number: &u32| {
            let record = &self.records[number as usize];
            record.hash == hash && *record.path == *path
        };
        Spot { hash, number: self.by_path.find(hash, is_it).copied() }
    }

    /// The znode as it will be. `None` if there will be none.
    pub fn view<'a>(&'a self, tree: &'a Tree, path: &str) -> Option<View<'a>> {
        self.view_at(self.spot(path), || tree.lookup(path))
    }

    /// Whether there will be a znode at the spot of this path, whose parent will be as it was seen.
    pub fn has_child(&self, tree: &Tree, parent: &Node, path: &str, spot: Spot) -> bool {
        let czxid = parent.numbers.czxid;
        let of_tree = || match (parent.slot, find_last_slash(path.as_bytes())) {
            // The root is nobody's child.
            (Some(slot), Some(slash)) if slash + 1 < path.len() => tree.lookup_child(slot, czxid, &path[slash + 1..]),
            _ => tree.lookup(path),
        };
        self.view_at(spot, of_tree).is_some()
    }

    fn view_at<'a>(&'a self, spot: Spot, of_tree: impl Fn() -> Option<NodeRef<'a>>) -> Option<View<'a>> {
        match spot.number {
            Some(number) => {
                let change = &self.records[number as usize].change;
                let node = change.node?;
                let acl = match &change.acl {
                    PendingAcl::Open => Acl::open(),
                    PendingAcl::List(list) => list,
                    // Not there only if what has been forgotten was never applied; then nobody is let in.
                    PendingAcl::Unchanged => of_tree()?.acl_list(),
                };
                Some(View { node, acl, spot })
            }
            None => of_tree().map(|node| View { node: Node::of_tree(node), acl: node.acl_list(), spot }),
        }
    }

    /// A znode will be there that wasn't. `node.digest` is filled in.
    pub fn created(&mut self, spot: Spot, path: &str, mut node: Node, data: &[u8], acl: PendingAcl) {
        if self.counts(path) {
            node.text_crc = text_crc(path, Some(data));
            node.digest = digest_from_text_crc(node.text_crc, &node.numbers);
            self.adjust(0, node.digest);
        }
        self.put(spot, path, Some(node), Some(acl));
    }

    /// A znode's data will be another.
    pub fn data_set(&mut self, spot: Spot, path: &str, old: &Node, mut new: Node, data: &[u8]) {
        if self.counts(path) {
            new.text_crc = text_crc(path, Some(data));
            new.digest = digest_from_text_crc(new.text_crc, &new.numbers);
            self.adjust(old.digest, new.digest);
        }
        self.put(spot, path, Some(new), None);
    }

    /// A znode's stat will be another, its data won't. `acl` where that changes too.
    pub fn stat_set(&mut self, spot: Spot, path: &str, old: &Node, mut new: Node, acl: Option<PendingAcl>) {
        if self.counts(path) {
            new.text_crc = old.text_crc;
            new.digest = digest_from_text_crc(old.text_crc, &new.numbers);
            self.adjust(old.digest, new.digest);
        }
        self.put(spot, path, Some(new), acl);
    }

    /// A znode will be gone.
    pub fn deleted(&mut self, spot: Spot, path: &str, old: &Node) {
        if self.counts(path) {
            self.adjust(old.digest, 0);
        }
        self.put(spot, path, None, Some(PendingAcl::Unchanged));
    }

    /// Ephemerals of a session that are pending: created, or changed since. In no order.
    pub fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = &str> {
        let of_session = self.ephemerals.range((session, 0)..=(session, u32::MAX));
        of_session.map(|&(_, number)| &*self.records[number as usize].path)
    }

    /// Whether the path will be gone, or another's, by what is pending.
    pub fn is_pending(&self, path: &str) -> bool {
        self.spot(path).number.is_some()
    }

    /// From here on everything can be taken back.
    pub fn open_multi(&mut self) {
        self.undo = Some(Undo { digest: self.digest, order_len: self.order.len(), overwritten: Vec::new() });
    }

    /// The multi stands, or is taken back.
    pub fn close_multi(&mut self, keep: bool) {
        let undo = self.undo.take().expect("a multi was opened");
        if keep {
            return;
        }
        self.digest = undo.digest;
        self.order.truncate(undo.order_len);
        for (number, old) in undo.overwritten.into_iter().rev() {
            self.unindex(number);
            match old {
                None => self.forget(number),
                Some(old) => {
                    self.records[number as usize].change = old;
                    self.index(number);
                }
            }
        }
    }

    /// The tree has everything up to `zxid`.
    pub fn applied(&mut self, up_to: Zxid) {
        while let Some(&(zxid, number)) = self.order.front().filter(|(zxid, _)| *zxid <= up_to) {
            self.order.pop_front();
            // One that was taken back with its multi may be gone, and its number another's: then not of this zxid.
            if self.records.get(number as usize).is_some_and(|record| record.change.zxid == zxid) {
                self.unindex(number);
                self.forget(number);
            }
        }
        if self.current <= up_to {
            self.digest = None;
        }
    }

    /// Nothing is pending any more: what was made will never be applied, or the tree is another.
    pub fn clear(&mut self) {
        *self = Pending::new(self.rules, self.with_digest);
    }

    fn counts(&self, path: &str) -> bool {
        self.with_digest && in_tree_digest(path)
    }

    fn adjust(&mut self, old: u32, new: u32) {
        if let Some(digest) = &mut self.digest {
            *digest = digest.wrapping_sub(old as u64).wrapping_add(new as u64);
        }
    }

    /// `acl`: `None` where it stays what it was.
    fn put(&mut self, Spot { hash, number }: Spot, path: &str, node: Option<Node>, acl: Option<PendingAcl>) {
        let zxid = self.current;
        debug_assert!(self.spot(path).hash == hash && self.spot(path).number == number);
        let (number, old) = match number {
            Some(number) => {
                self.unindex(number);
                let change = &mut self.records[number as usize].change;
                let acl = acl.unwrap_or_else(|| change.acl.clone());
                (number, Some(std::mem::replace(change, Change { zxid, node, acl })))
            }
            None => {
                let change = Change { zxid, node, acl: acl.unwrap_or(PendingAcl::Unchanged) };
                let number = self.records.insert(Record { hash, path: path.into(), change });
                let number = u32::try_from(number).expect("fewer than transactions in flight");
                self.by_path.insert_unique(hash, number, |&number| self.records[number as usize].hash);
                (number, None)
            }
        };
        self.index(number);
        if old.as_ref().is_none_or(|old| old.zxid != zxid) {
            self.order.push_back((zxid, number));
        }
        if let Some(undo) = &mut self.undo {
            undo.overwritten.push((number, old));
        }
    }

    /// Takes a record away. It is in no index of ephemerals any more.
    fn forget(&mut self, number: u32) {
        let hash = self.records[number as usize].hash;
        let entry = self.by_path.find_entry(hash, |&candidate| candidate == number);
        entry.expect("every record is found by its path").remove();
        self.records.remove(number as usize);
    }

    fn owner(&self, number: u32) -> Option<SessionId> {
        match self.records[number as usize].change.node?.owner(self.rules) {
            Owner::Session(session) => Some(session),
            _ => None,
        }
    }

    fn index(&mut self, number: u32) {
        if let Some(session) = self.owner(number) {
            self.ephemerals.insert((session, number));
        }
    }

    /// Takes a record out of the index of ephemerals, where it stands by what it is now.
    fn unindex(&mut self, number: u32) {
        if let Some(session) = self.owner(number) {
            self.ephemerals.remove(&(session, number));
        }
    }
}
