//! The znodes: one plain, compact structure with one writer.
//!
//! It has to hold a hundred million znodes, answer a look-up in a fraction of a microsecond without allocating, and be
//! the same on every server after the same transactions. So: a slab of small nodes (`node`), found by a hash of the path
//! (`index`); `apply` is the only way to change it; what would need a scan is kept at hand (`owned`, `quota`, `digest`).
//!
//! It knows no threads. The pipeline changes it under the write side of the server's lock; cores read under their parts;
//! the snapshotter reads slices of a frozen image (`freeze`) while the pipeline goes on. It reports which paths were
//! touched and notifies nobody.

mod acl;
mod apply;
mod digest;
mod freeze;
mod grow;
mod index;
mod link;
mod listing;
mod node;
mod nodes;
mod owned;
mod quota;
mod restore;
mod text;
mod walk;

pub use acl::NumberedAcl;
pub use apply::{Applied, OpResult, Touched};
pub use digest::{counts as in_tree_digest, finish as digest_from_text_crc, node_digest, text_crc};
pub use freeze::{Frozen, Image, Progress};
pub use grow::{AclId, Grow, Misfit};
pub use index::{find_last_slash, find_slash};
pub use node::Numbers;
pub use quota::{LIMITS_NAME, QUOTA_ROOT, QuotaRef, STATS_NAME, Track};
pub use restore::{Batch, Decoder, Restore, RestoreError};
pub use walk::Walk;

use crate::ids::{Owner, OwnerRules, SessionId, Zxid};
use crate::random::{FastMap, FastSet};
use crate::wire::Stat;
use crate::wire::txn::{Acl, AclList};
use acl::AclTable;
use freeze::Freeze;
use index::{Index, ROOT};
use node::Node;
use nodes::Nodes;
use owned::Owned;
use parking_lot::Mutex;
use std::sync::atomic::AtomicUsize;

/// What is fixed at start.
#[derive(Clone, Copy, Debug)]
pub struct TreeOptions {
    pub owner_rules: OwnerRules,
    /// `zookeeper.digest.enabled`: whether a history of digests is kept for the four-letter word `hash`. The digest
    /// itself is always kept: snapshots are checked by it.
    pub digest: bool,
}

impl Default for TreeOptions {
    fn default() -> TreeOptions {
        TreeOptions { owner_rules: OwnerRules::default(), digest: true }
    }
}

/// All znodes of a server at one zxid.
pub struct Tree {
    options: TreeOptions,
    nodes: Nodes,
    index: Index,
    acls: AclTable,
    owned: Owned,
    /// Paths that have a limits node below `/zookeeper/quota`.
    quotas: FastSet<Box<str>>,
    /// Within a transaction: bytes of data from the znodes down whose quota has been counted in it.
    counted: FastMap<u32, i64>,
    zxid: Zxid,
    digest: u64,
    history: digest::History,
    /// Path lengths (in UTF-16 units) and data lengths.
    size: i64,
    /// A snapshot in progress. The snapshotter has only `&Tree`; the pipeline, with `&mut Tree`, needs no lock.
    freeze: Mutex<Option<Box<Freeze>>>,
    /// Bytes that the freeze has saved: for the pipeline, which mustn't wait for a slice being read.
    saved_bytes: AtomicUsize,
}

impl Tree {
    /// `/`, `/zookeeper`, `/zookeeper/quota` and `/zookeeper/config`, as an untouched ZooKeeper has them.
    pub fn new(options: TreeOptions) -> Tree {
        let mut tree = Tree::bare(options);
        let mut root = Node::new(b"", Some(b""), &Numbers::default(), acl::OPEN);
        root.hash = index::root_hash();
        let slot = tree.nodes.insert(root, b"", Some(b""));
        assert!(slot == ROOT as usize);
        tree.renew_text_crc(ROOT, "");
        let config_acl = tree.acls.acquire(&[Acl::world(Acl::READ)]);
        let config = Numbers { aversion: -1, ..Numbers::default() };
        for (path, numbers, acl) in [
            ("/zookeeper", Numbers::default(), acl::OPEN),
            ("/zookeeper/quota", Numbers::default(), acl::OPEN),
            ("/zookeeper/config", config, config_acl),
        ] {
            let (parent, name) = split(path).expect("a good path");
            let parent = tree.find(parent).expect("made before its children");
            tree.insert(parent, path, Some(b""), Node::new(name.as_bytes(), Some(b""), &numbers, acl));
        }
        tree
    }

    /// Not even a root.
    fn bare(options: TreeOptions) -> Tree {
        Tree {
            options,
            nodes: Nodes::new(),
            index: Index::new(),
            acls: AclTable::new(),
            owned: Owned::default(),
            quotas: FastSet::default(),
            counted: FastMap::default(),
            zxid: Zxid::ZERO,
            digest: 0,
            history: digest::History::default(),
            // The root stands in ZooKeeper's table under two names, "" and "/".
            size: 1,
            freeze: Mutex::new(None),
            saved_bytes: AtomicUsize::new(0),
        }
    }

    /// The last transaction applied, errors included.
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The sum of the digests of all znodes that count (quorum-protocol 7.2, version 2).
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Zxids and digests of the past, oldest first: each zxid that is a multiple of 128, the last 1024 of them.
    pub fn digest_history(&self) -> impl ExactSizeIterator<Item = (Zxid, u64)> {
        self.history.iter()
    }

    /// The access control lists that znodes have, with their numbers, but for `world:anyone` with all permissions. Shares
    /// the lists.
    pub fn acl_lists(&self) -> Vec<NumberedAcl> {
        self.acls.used()
    }

    /// How this server reads stored owners.
    pub fn owner_rules(&self) -> OwnerRules {
        self.options.owner_rules
    }

    /// Finds a znode; "" is the root too. No path is too odd to ask for. Allocates nothing.
    #[inline]
    pub fn lookup(&self, path: &str) -> Option<NodeRef<'_>> {
        self.find(path).map(|slot| self.node_ref(slot))
    }

    /// Finds a child of the znode with this number (`NodeRef::slot`), if that is still the one that `czxid` created.
    #[inline]
    pub fn lookup_child(&self, parent: u32, czxid: Zxid, name: &str) -> Option<NodeRef<'_>> {
        if !self.nodes.contains(parent) || self.nodes[parent as usize].czxid != czxid {
            return None;
        }
        let slot = self.index.find_child(&self.nodes, parent, name.as_bytes());
        slot.map(|slot| self.node_ref(slot))
    }

    /// Path of the znode with this number (`NodeRef::slot`), if there is one.
    pub fn path_of_slot(&self, slot: u32) -> Option<String> {
        self.nodes.contains(slot).then(|| index::path_of(&self.nodes, slot))
    }

    /// Znodes as ZooKeeper counts them: the root twice, so an untouched tree has 5.
    pub fn node_count(&self) -> usize {
        self.nodes.len() + 1
    }

    /// Znodes that a session owns.
    pub fn ephemeral_count(&self) -> usize {
        self.owned.ephemeral_count()
    }

    /// Path lengths and data lengths of all znodes, kept as ZooKeeper keeps it (44 when untouched).
    pub fn approximate_data_size(&self) -> i64 {
        self.size
    }

    /// Paths of a session's ephemerals, in no order.
    pub fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = String> {
        self.ephemeral_nodes(session).map(|node| node.path())
    }

    /// In the same order.
    pub fn ephemeral_nodes(&self, session: SessionId) -> impl Iterator<Item = NodeRef<'_>> {
        self.owned.of_session(session).iter().map(|&slot| self.node_ref(slot))
    }

    /// Sessions that own a znode, in no order.
    pub fn sessions_with_ephemerals(&self) -> impl Iterator<Item = SessionId> {
        self.owned.sessions()
    }

    /// Znodes anywhere below `path`; 0 if it isn't there.
    pub fn all_children_number(&self, path: &str) -> usize {
        self.find(path).map_or(0, |slot| self.nodes[slot as usize].descendants() as usize)
    }

    /// Container znodes, in no order (client-protocol 3.5).
    pub fn containers(&self) -> impl Iterator<Item = NodeRef<'_>> {
        self.owned.containers().iter().map(|&slot| self.node_ref(slot))
    }

    /// Znodes with a TTL, in no order; `owner()` has the TTL.
    pub fn ttl_nodes(&self) -> impl Iterator<Item = NodeRef<'_>> {
        self.owned.ttls().iter().map(|&slot| self.node_ref(slot))
    }

    #[inline]
    fn find(&self, path: &str) -> Option<u32> {
        self.index.find(&self.nodes, path)
    }

    #[inline]
    fn node_ref(&self, slot: u32) -> NodeRef<'_> {
        NodeRef { tree: self, node: &self.nodes[slot as usize], slot }
    }

    /// Hangs a znode below its parent. `path` is its path, `data` what it was made with.
    fn insert(&mut self, parent: u32, path: &str, data: Option<&[u8]>, mut node: Node) -> u32 {
        let name = &path.as_bytes()[path.len() - node.name_len()..];
        node.text_crc = digest::text_crc(path, data);
        node.digest = node.fresh_digest();
        node.parent = parent;
        node.hash = index::child_hash(self.nodes[parent as usize].hash, name);
        if digest::counts(path) {
            self.digest = self.digest.wrapping_add(node.digest as u64);
        } else {
            node.leave_out_of_tree_digest();
        }
        self.size += java_length(path) + node.data_len() as i64;
        let slot = u32::try_from(self.nodes.insert(node, name, data)).expect("four billion znodes don't fit a machine");
        self.index.insert(&self.nodes, slot);
        self.hang(parent, slot);
        self.note_bytes(slot, data.map_or(0, <[u8]>::len) as i64);
        self.owned.add(&mut self.nodes, slot, self.options.owner_rules);
        if let Some(freeze) = self.freeze.get_mut() {
            freeze.born(slot);
        }
        slot
    }

    /// Enters a znode into its parent's list and all the counts above.
    fn hang(&mut self, parent: u32, slot: u32) {
        self.nodes.enlist(parent, slot);
        self.count_up(parent, |descendants| *descendants += 1);
    }

    fn count_up(&mut self, from: u32, change: impl Fn(&mut u32)) {
        let mut slot = from;
        while slot != node::NO_SLOT {
            let node = &mut self.nodes[slot as usize];
            change(&mut node.extra_mut().descendants);
            slot = node.parent;
        }
    }

    /// Takes a childless znode out of everything. `path` is its path.
    fn remove(&mut self, slot: u32, path: &str) {
        self.before_change(slot);
        self.note_bytes(slot, -(self.nodes[slot as usize].data_len() as i64));
        self.counted.remove(&slot);
        self.owned.remove(&mut self.nodes, slot, self.options.owner_rules);
        self.index.remove(&self.nodes, slot);
        let node = self.nodes.remove(slot);
        assert!(node.children().is_empty(), "children go first");
        self.nodes.delist(node.parent, slot, node.place);
        self.count_up(node.parent, |descendants| *descendants -= 1);
        if node.in_tree_digest() {
            self.digest = self.digest.wrapping_sub(node.digest as u64);
        }
        self.size -= java_length(path) + node.data_len() as i64;
        self.acls.release(node.acl);
    }

    /// Every change of what a digest or a snapshot sees of a znode, but for its data, goes through here.
    fn change(&mut self, slot: u32, change: impl FnOnce(&mut Node)) {
        self.before_change(slot);
        let node = &mut self.nodes[slot as usize];
        change(node);
        let (old, new) = (node.digest, node.fresh_digest());
        node.digest = new;
        if node.in_tree_digest() {
            self.digest = self.digest.wrapping_sub(old as u64).wrapping_add(new as u64);
        }
    }

    /// New data, and whatever `and` changes beside it. `path` is the znode's.
    fn change_data(&mut self, slot: u32, path: &str, data: Option<&[u8]>, and: impl FnOnce(&mut Node)) {
        let text_crc = digest::text_crc(path, data);
        self.before_change(slot);
        let before = self.nodes[slot as usize].data_len() as i64;
        self.nodes.set_data(slot, data);
        self.note_bytes(slot, data.map_or(0, <[u8]>::len) as i64 - before);
        self.change(slot, |node| {
            node.text_crc = text_crc;
            and(node);
        });
    }

    fn renew_text_crc(&mut self, slot: u32, path: &str) {
        let text_crc = digest::text_crc(path, self.nodes.data(&self.nodes[slot as usize]));
        self.change(slot, |node| node.text_crc = text_crc);
    }

    fn before_change(&mut self, slot: u32) {
        if let Some(freeze) = self.freeze.get_mut() {
            freeze.save_before_change(slot, &self.nodes);
            *self.saved_bytes.get_mut() = freeze.saved_bytes();
        }
    }
}

/// Parent and name of a path that some znode may have; `None` for the root and for what has no slash.
fn split(path: &str) -> Option<(&str, &str)> {
    let slash = find_last_slash(path.as_bytes())?;
    let (parent, name) = (&path[..slash], &path[slash + 1..]);
    if parent.is_empty() && name.is_empty() { None } else { Some((parent, name)) }
}

/// What Java's `String.length` says.
fn java_length(path: &str) -> i64 {
    if path.is_ascii() { path.len() as i64 } else { path.encode_utf16().count() as i64 }
}

/// One znode, for as long as the tree isn't changed.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    tree: &'a Tree,
    node: &'a Node,
    slot: u32,
}

impl<'a> NodeRef<'a> {
    /// Its path; the root's is "/". Allocates.
    pub fn path(&self) -> String {
        index::path_of(&self.tree.nodes, self.slot)
    }

    /// Bytes of its path, and names in it: what it takes to put it together. Not of the root.
    pub fn path_size(&self) -> (usize, usize) {
        index::path_size(&self.tree.nodes, self.slot)
    }

    /// Whether its path, whose length `path_size` says, begins with this; without putting it together. Not of the root.
    pub fn path_starts_with(&self, len: usize, prefix: &str) -> bool {
        index::path_starts_with(&self.tree.nodes, self.slot, len, prefix.as_bytes())
    }

    /// Its number in this tree for as long as it lives. Another znode may have it afterwards.
    #[inline]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// `None` is null, which is not the empty data.
    #[inline]
    pub fn data(&self) -> Option<&'a [u8]> {
        self.tree.nodes.data(self.node)
    }

    pub fn data_len(&self) -> usize {
        self.node.data_len()
    }

    /// As clients see it.
    #[inline]
    pub fn stat(&self) -> Stat {
        self.node.stat(self.tree.options.owner_rules)
    }

    /// The access control list as stored.
    #[inline]
    pub fn acl(&self) -> &'a [Acl] {
        self.acl_list()
    }

    /// The same for who may have to hold it longer than the tree does.
    #[inline]
    pub fn acl_list(&self) -> &'a AclList {
        self.tree.acls.get(self.node.acl)
    }

    /// The number of the list among `Tree::acl_lists`; `None` is `world:anyone` with all permissions.
    #[inline]
    pub fn acl_number(&self) -> Option<u32> {
        (self.node.acl != acl::OPEN).then_some(self.node.acl)
    }

    pub fn owner(&self) -> Owner {
        Owner::from_stored(self.node.owner(), self.tree.options.owner_rules)
    }

    pub fn version(&self) -> i32 {
        self.node.version
    }

    pub fn aversion(&self) -> i32 {
        self.node.aversion()
    }

    /// How many children were ever created; a Stat shows another number.
    pub fn stored_cversion(&self) -> i32 {
        self.node.cversion()
    }

    pub fn czxid(&self) -> Zxid {
        self.node.czxid
    }

    pub fn mzxid(&self) -> Zxid {
        self.node.mzxid
    }

    pub fn pzxid(&self) -> Zxid {
        self.node.pzxid()
    }

    pub fn ctime(&self) -> i64 {
        self.node.ctime
    }

    pub fn mtime(&self) -> i64 {
        self.node.mtime
    }

    /// All the numbers at once.
    pub fn numbers(&self) -> Numbers {
        self.node.numbers()
    }

    #[inline]
    pub fn num_children(&self) -> usize {
        self.node.children().len()
    }

    /// This znode's digest, whether or not the tree's counts it.
    pub fn digest(&self) -> u32 {
        self.node.digest
    }

    /// CRC-32 of path and data, from which `digest_from_text_crc` goes on.
    pub fn text_crc(&self) -> u32 {
        self.node.text_crc
    }

    /// Names of the children, in no order.
    pub fn children(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        self.child_names().map(|name| std::str::from_utf8(name).expect("names were text when they came in"))
    }

    /// The same as bytes, which are known to be text.
    pub fn child_names(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let nodes = &self.tree.nodes;
        self.node.children().iter().map(|&slot| nodes.name(&nodes[slot as usize]))
    }

    /// Appends the children's names, in the order of `children`, as a reply has them. `false` if `out` would have more than
    /// `max` bytes; what stands in it then is of no use.
    pub fn encode_children(&self, out: &mut Vec<u8>, max: usize) -> bool {
        self.tree.nodes.encode_children(self.node, out, max)
    }

    /// A child by its name.
    pub fn child(&self, name: &str) -> Option<NodeRef<'a>> {
        let slot = self.tree.index.find_child(&self.tree.nodes, self.slot, name.as_bytes())?;
        Some(self.tree.node_ref(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untouched_tree_is_zookeepers() {
        let tree = Tree::new(TreeOptions::default());
        assert_eq!(tree.digest(), 0x51c6_d660);
        assert_eq!((tree.node_count(), tree.approximate_data_size(), tree.ephemeral_count()), (5, 44, 0));
        assert_eq!(tree.all_children_number("/"), 3);
        let root = tree.lookup("/").unwrap();
        assert_eq!(root.path(), tree.lookup("").unwrap().path());
        assert_eq!(root.stat(), Stat { cversion: -1, num_children: 1, ..Stat::default() });
        let zookeeper = tree.lookup("/zookeeper").unwrap();
        assert_eq!(zookeeper.stat(), Stat { cversion: -2, num_children: 2, ..Stat::default() });
        let config = tree.lookup("/zookeeper/config").unwrap();
        assert_eq!(config.stat(), Stat { aversion: -1, ..Stat::default() });
        assert_eq!((config.data(), config.acl()), (Some(&b""[..]), &[Acl::world(Acl::READ)][..]));
        for nothing in ["/zookeeper/", "//zookeeper", "zookeeper", "/quota", "/zookeeper/quota/x", "/z", "//", "x"] {
            assert!(tree.lookup(nothing).is_none(), "{nothing}");
        }
    }

    #[test]
    fn the_members_of_an_ensemble_stand_in_the_configuration_node_and_in_no_digest() {
        let mut tree = Tree::new(TreeOptions::default());
        let (before, history) = (tree.digest(), tree.digest_history().count());
        tree.set_config("server.1=a:2888:3888:participant\nversion=0", Zxid(7), 1234);
        let config = tree.lookup("/zookeeper/config").unwrap();
        assert_eq!(config.data(), Some(&b"server.1=a:2888:3888:participant\nversion=0"[..]));
        assert_eq!((config.version(), config.mzxid(), config.mtime()), (-1, Zxid(7), 1234));
        assert_eq!((tree.digest(), tree.digest_history().count(), tree.zxid()), (before, history, Zxid::ZERO));
    }
}
