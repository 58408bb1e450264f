//! A tree that grows znode by znode, parents before children, under their full paths: the order in which ZooKeeper
//! writes its tree. Whoever sends it may be wrong in any way; a znode that does not fit is an error and changes nothing.
//!
//! Each znode is in its place as soon as it has come, so there is no long step at the end: a learner that is sent a tree
//! takes it in as it arrives. (`Restore` takes images in any order and has to link them at the end.)
//!
//! Runs on: whoever reads; it waits for nothing.

use super::acl;
use super::index::{self, ROOT};
use super::node::{NO_SLOT, Node, Numbers};
use super::{Tree, TreeOptions, digest, split};
use crate::ids::Zxid;
use crate::wire::txn::Acl;

/// A tree that is not whole yet.
pub struct Grow {
    tree: Tree,
}

/// Number of an access control list in a growing tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AclId(u32);

impl AclId {
    /// `world:anyone` with all permissions.
    pub const OPEN: AclId = AclId(acl::OPEN);
}

/// Why a znode does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misfit {
    #[error("it is not a znode's path")]
    Path,
    #[error("its parent has not come before it")]
    Parent,
    #[error("it is there twice")]
    Twice,
    #[error("there are more znodes than a tree can have")]
    Many,
    #[error("there is no root")]
    NoRoot,
}

impl Grow {
    /// Begins with nothing, not even a root.
    pub fn new(options: TreeOptions) -> Grow {
        Grow { tree: Tree::bare(options) }
    }

    /// The number of a list for `add`. Lists that no znode takes are forgotten at the end.
    pub fn acl(&mut self, list: &[Acl]) -> AclId {
        AclId(self.tree.acls.intern(list))
    }

    /// Adds a znode; the root's path is empty, and it comes first. Work in proportion to the path and the data.
    pub fn add(&mut self, path: &str, data: Option<&[u8]>, numbers: &Numbers, AclId(acl): AclId) -> Result<(), Misfit> {
        if path.is_empty() {
            return self.add_root(data, numbers, acl);
        }
        let tree = &mut self.tree;
        let (parent_path, name) = split(path).ok_or(Misfit::Path)?;
        // The root is "", never "/": a parent that ends in a slash is the empty name of something.
        if name.is_empty() || parent_path.ends_with('/') || !path.starts_with('/') {
            return Err(Misfit::Path);
        }
        if tree.nodes.is_empty() {
            return Err(Misfit::Parent);
        }
        let parent = tree.find(parent_path).ok_or(Misfit::Parent)?;
        if tree.index.find_child(&tree.nodes, parent, name.as_bytes()).is_some() {
            return Err(Misfit::Twice);
        }
        if tree.nodes.len() >= NO_SLOT as usize {
            return Err(Misfit::Many);
        }
        tree.acls.acquire_id(acl);
        tree.insert(parent, path, data, Node::new(name.as_bytes(), data, numbers, acl));
        Ok(())
    }

    fn add_root(&mut self, data: Option<&[u8]>, numbers: &Numbers, acl: u32) -> Result<(), Misfit> {
        let tree = &mut self.tree;
        if !tree.nodes.is_empty() {
            return Err(Misfit::Twice);
        }
        tree.acls.acquire_id(acl);
        let mut root = Node::new(b"", data, numbers, acl);
        root.hash = index::root_hash();
        root.text_crc = digest::text_crc("", data);
        root.digest = root.fresh_digest();
        tree.digest = root.digest as u64;
        tree.size += root.data_len() as i64;
        let slot = tree.nodes.insert(root, b"", data);
        assert!(slot == ROOT as usize, "the first slot is the root's");
        // Whatever it says of an owner: the root goes with no session.
        Ok(())
    }

    /// Znodes so far.
    pub fn len(&self) -> u64 {
        self.tree.nodes.len() as u64
    }

    /// Whether not even the root has come.
    pub fn is_empty(&self) -> bool {
        self.tree.nodes.is_empty()
    }

    /// The tree, at the zxid that the caller knows it to have.
    pub fn finish(mut self, zxid: Zxid) -> Result<Tree, Misfit> {
        if self.is_empty() {
            return Err(Misfit::NoRoot);
        }
        self.tree.zxid = zxid;
        self.tree.acls.sweep_all();
        self.tree.find_quotas();
        Ok(self.tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::tree::Applied;
    use crate::wire::txn::{Txn, TxnHeader};

    fn add(grow: &mut Grow, path: &str) -> Result<(), Misfit> {
        grow.add(path, Some(b"x"), &Numbers::default(), AclId::OPEN)
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut grow = Grow::new(TreeOptions::default());
        assert_eq!(add(&mut grow, "/a"), Err(Misfit::Parent), "before the root");
        assert_eq!(add(&mut grow, ""), Ok(()));
        assert_eq!(add(&mut grow, ""), Err(Misfit::Twice));
        assert_eq!(add(&mut grow, "/a"), Ok(()));
        for path in ["/", "a", "a/b", "//", "//a", "/a/", "/a//b", "x/a"] {
            assert_eq!(add(&mut grow, path), Err(Misfit::Path), "{path}");
        }
        assert_eq!(add(&mut grow, "/a"), Err(Misfit::Twice));
        assert_eq!(add(&mut grow, "/b/c"), Err(Misfit::Parent));
        assert_eq!(grow.len(), 2);
        let tree = grow.finish(Zxid(7)).unwrap();
        assert_eq!((tree.zxid(), tree.node_count(), tree.all_children_number("/")), (Zxid(7), 3, 1));
        assert!(Grow::new(TreeOptions::default()).finish(Zxid(1)).is_err(), "no root");
    }

    #[test]
    fn a_root_that_says_it_is_an_ephemeral_goes_with_no_session() {
        let mut grow = Grow::new(TreeOptions::default());
        let owned = Numbers { owner: 5, ..Numbers::default() };
        for path in ["", "/a", "/a/b"] {
            grow.add(path, None, &owned, AclId::OPEN).unwrap();
        }
        let mut tree = grow.finish(Zxid(7)).unwrap();
        assert_eq!(tree.ephemeral_count(), 2);
        let header = TxnHeader { session: SessionId(5), cxid: 0, zxid: Zxid(8), time: 0 };
        tree.apply(&header, Txn::CloseSession { paths: None }, &mut Applied::default());
        assert_eq!((tree.ephemeral_count(), tree.node_count()), (0, 2));
    }
}
