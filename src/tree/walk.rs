//! All znodes of a tree that stands still, parents before children, with their paths: for whoever writes it out or
//! compares it. The walk can be left and gone on with, so that the caller decides how long it holds the tree.
//!
//! Memory in proportion to the depth. Children come in the order of their parent's list, which two trees of the same
//! content need not share; `sorted` walks in the order of names instead, at the price of sorting each list.

use super::index::ROOT;
use super::{NodeRef, Tree};
use crate::ids::Zxid;

/// Where a walk stands.
#[derive(Default)]
pub struct Walk {
    /// The znodes from the root down to where the walk is.
    open: Vec<Open>,
    /// Path of the last znode that was given out; the root's is empty.
    path: String,
    /// The tree's zxid at the start, to notice a tree that moves under the walk.
    begun: Option<Zxid>,
    sorted: bool,
}

struct Open {
    slot: u32,
    /// Its next child.
    next: usize,
    path_len: usize,
    /// The children's slots in the order of their names, where that was asked for.
    order: Option<Box<[u32]>>,
}

impl Walk {
    pub fn new() -> Walk {
        Walk::default()
    }

    /// A walk that takes children in the order of their names.
    pub fn sorted() -> Walk {
        Walk { sorted: true, ..Walk::default() }
    }

    /// The next znode; `path` has its path then. `None` at the end. The tree must not have changed since the last call.
    pub fn next<'t>(&mut self, tree: &'t Tree) -> Option<NodeRef<'t>> {
        let begun = *self.begun.get_or_insert(tree.zxid);
        assert!(begun == tree.zxid, "a tree that is walked stands still");
        if self.path.is_empty() && self.open.is_empty() {
            return self.enter(tree, ROOT);
        }
        while let Some(open) = self.open.last_mut() {
            let children = open.order.as_deref().unwrap_or(tree.nodes[open.slot as usize].children());
            match children.get(open.next) {
                Some(&child) => {
                    open.next += 1;
                    self.path.truncate(open.path_len);
                    self.path.push('/');
                    let name = std::str::from_utf8(tree.nodes.name(&tree.nodes[child as usize]));
                    self.path.push_str(name.expect("names were text when they came in"));
                    return self.enter(tree, child);
                }
                None => drop(self.open.pop()),
            }
        }
        // Else the next call would begin again.
        self.path = "/".into();
        None
    }

    fn enter<'t>(&mut self, tree: &'t Tree, slot: u32) -> Option<NodeRef<'t>> {
        let order = self.sorted.then(|| {
            let mut slots: Box<[u32]> = tree.nodes[slot as usize].children().into();
            slots.sort_unstable_by_key(|&slot| tree.nodes.name(&tree.nodes[slot as usize]));
            slots
        });
        self.open.push(Open { slot, next: 0, path_len: self.path.len(), order });
        Some(tree.node_ref(slot))
    }

    /// Path of the znode that `next` gave last; the root's is empty.
    pub fn path(&self) -> &str {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::TreeOptions;

    #[test]
    fn a_walk_meets_every_znode_once_and_parents_first() {
        let tree = Tree::new(TreeOptions::default());
        let mut walk = Walk::sorted();
        let mut paths = Vec::new();
        while let Some(node) = walk.next(&tree) {
            assert_eq!(node.path().trim_end_matches('/'), walk.path());
            paths.push(walk.path().to_owned());
        }
        assert_eq!(paths, ["", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"]);
        assert!(walk.next(&tree).is_none() && walk.next(&tree).is_none(), "the end stays the end");
    }
}
