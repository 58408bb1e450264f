//! What the transactions that are made and not yet applied will have done to the tree (upstream: `ChangeRecord`,
//! `outstandingChanges`).
//!
//! A record per path, absolute: how the znode will be, or that it will be gone. It stands until the last transaction
//! that changed it has been applied. Inside a multi, what is overwritten is kept, so that a failure can take it all back.
//!
//! The tree's digest is kept ahead too. A node's digest is a CRC-32 over its path, its data and 60 bytes of its stat, and
//! crc(a ‖ b) = shift(crc(a)) ^ crc(b), where the shift depends on the length of b alone. So when only the stat changes,
//! the new digest is the old one ^ crc(old stat) ^ crc(new stat), and the data is not read.

use crate::ids::{Owner, OwnerRules, SessionId, Zxid};
use crate::random::FastMap;
use crate::tree::{NodeRef, Numbers, Tree, in_tree_digest, node_digest};
use crate::wire::txn::Acl;
use hashbrown::hash_map::EntryRef;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};

/// A znode as far as checks and the digest need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub numbers: Numbers,
    pub children: u32,
    pub data_len: u32,
    /// Meaningless where the digest is off or the path has no part in it.
    pub digest: u32,
    /// A container that a create with an ephemeral flag made: no parent for the rest of its multi.
    pub odd_container: bool,
}

impl Node {
    pub fn of_tree(node: NodeRef<'_>) -> Node {
        Node {
            numbers: node.numbers(),
            children: node.num_children() as u32,
            data_len: node.data_len() as u32,
            digest: node.digest(),
            odd_container: false,
        }
    }

    pub fn owner(&self, rules: OwnerRules) -> Owner {
        Owner::from_stored(self.numbers.owner, rules)
    }
}

/// CRC-32 of the numbers alone: what the digest of the root would be if it had no data.
fn numbers_crc(numbers: &Numbers) -> u32 {
    node_digest("/", None, numbers)
}

/// A znode's access control list while it is pending.
#[derive(Clone, Debug)]
pub(super) enum PendingAcl {
    /// The tree's.
    Unchanged,
    /// `world:anyone`, everything: nearly every list there is.
    Open,
    List(Arc<[Acl]>),
}

static OPEN: LazyLock<[Acl; 1]> = LazyLock::new(|| [Acl::world(Acl::ALL)]);

impl PendingAcl {
    pub fn of_list(list: &[Acl]) -> PendingAcl {
        if list == &OPEN[..] { PendingAcl::Open } else { PendingAcl::List(list.into()) }
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

/// A znode to be looked at: pending, or the tree's where nothing is pending.
pub(super) struct View<'a> {
    pub node: Node,
    pub acl: &'a [Acl],
}

#[derive(Default)]
pub(super) struct Pending {
    changes: FastMap<Arc<str>, Change>,
    /// What was changed by which transaction, in order, to find what can be forgotten.
    order: VecDeque<(Zxid, Arc<str>)>,
    /// The ephemerals among `changes`, by session.
    ephemerals: BTreeSet<(SessionId, Arc<str>)>,
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
    overwritten: Vec<(Arc<str>, Option<Change>)>,
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

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// The znode as it will be. `None` if there will be none.
    pub fn view<'a>(&'a self, tree: &'a Tree, path: &str) -> Option<View<'a>> {
        let of_tree = || tree.lookup(path);
        match self.changes.get(path) {
            Some(change) => {
                let node = change.node?;
                let acl = match &change.acl {
                    PendingAcl::Open => &OPEN[..],
                    PendingAcl::List(list) => list,
                    // Not there only if what has been forgotten was never applied; then nobody is let in.
                    PendingAcl::Unchanged => of_tree()?.acl(),
                };
                Some(View { node, acl })
            }
            None => of_tree().map(|node| View { node: Node::of_tree(node), acl: node.acl() }),
        }
    }

    /// A znode will be there that wasn't. `node.digest` is filled in.
    pub fn created(&mut self, path: &str, mut node: Node, data: &[u8], acl: PendingAcl) {
        if self.counts(path) {
            node.digest = node_digest(path, Some(data), &node.numbers);
            self.adjust(0, node.digest);
        }
        self.put(path, Some(node), Some(acl));
    }

    /// A znode's data will be another.
    pub fn data_set(&mut self, path: &str, old: &Node, mut new: Node, data: &[u8]) {
        if self.counts(path) {
            new.digest = node_digest(path, Some(data), &new.numbers);
            self.adjust(old.digest, new.digest);
        }
        self.put(path, Some(new), None);
    }

    /// A znode's stat will be another, its data won't. `acl` where that changes too.
    pub fn stat_set(&mut self, path: &str, old: &Node, mut new: Node, acl: Option<PendingAcl>) {
        if self.counts(path) {
            new.digest = old.digest ^ numbers_crc(&old.numbers) ^ numbers_crc(&new.numbers);
            self.adjust(old.digest, new.digest);
        }
        self.put(path, Some(new), acl);
    }

    /// A znode will be gone.
    pub fn deleted(&mut self, path: &str, old: &Node) {
        if self.counts(path) {
            self.adjust(old.digest, 0);
        }
        self.put(path, None, Some(PendingAcl::Unchanged));
    }

    /// Ephemerals of a session that are pending: created, or changed since. Ascending.
    pub fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = &str> {
        let from = (session, Arc::<str>::from(""));
        self.ephemerals.range(from..).take_while(move |(owner, _)| *owner == session).map(|(_, path)| &**path)
    }

    /// Whether the path will be gone, or another's, by what is pending.
    pub fn is_pending(&self, path: &str) -> bool {
        self.changes.contains_key(path)
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
        for (path, old) in undo.overwritten.into_iter().rev() {
            let node = self.changes.get(&path).and_then(|change| change.node);
            self.unindex(&path, node.as_ref());
            match old {
                None => {
                    self.changes.remove(&path);
                }
                Some(old) => {
                    self.index(&path, old.node.as_ref());
                    self.changes.insert(path, old);
                }
            }
        }
    }

    /// The tree has everything up to `zxid`.
    pub fn applied(&mut self, up_to: Zxid) {
        while self.order.front().is_some_and(|(zxid, _)| *zxid <= up_to) {
            let Some((zxid, path)) = self.order.pop_front() else { break };
            if let EntryRef::Occupied(entry) = self.changes.entry_ref(&*path)
                && entry.get().zxid == zxid
            {
                let change = entry.remove();
                self.unindex(&path, change.node.as_ref());
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
    fn put(&mut self, path: &str, node: Option<Node>, acl: Option<PendingAcl>) {
        let zxid = self.current;
        let (key, old) = match self.changes.entry_ref(path) {
            EntryRef::Occupied(mut entry) => {
                let key = entry.key().clone();
                let acl = acl.unwrap_or_else(|| entry.get().acl.clone());
                (key, Some(entry.insert(Change { zxid, node, acl })))
            }
            EntryRef::Vacant(entry) => {
                let acl = acl.unwrap_or(PendingAcl::Unchanged);
                (entry.insert_entry_with_key(Arc::from(path), Change { zxid, node, acl }).key().clone(), None)
            }
        };
        self.unindex(&key, old.as_ref().and_then(|old| old.node.as_ref()));
        self.index(&key, node.as_ref());
        if old.as_ref().is_none_or(|old| old.zxid != zxid) {
            self.order.push_back((zxid, key.clone()));
        }
        if let Some(undo) = &mut self.undo {
            undo.overwritten.push((key, old));
        }
    }

    fn index(&mut self, path: &Arc<str>, node: Option<&Node>) {
        if let Some(Owner::Session(session)) = node.map(|node| node.owner(self.rules)) {
            self.ephemerals.insert((session, path.clone()));
        }
    }

    /// Takes a path out of the index of ephemerals, where it stands by what it was.
    fn unindex(&mut self, path: &Arc<str>, node: Option<&Node>) {
        if let Some(Owner::Session(session)) = node.map(|node| node.owner(self.rules)) {
            self.ephemerals.remove(&(session, path.clone()));
        }
    }
}
