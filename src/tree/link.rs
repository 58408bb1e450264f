//! Znodes that hang nowhere become a tree: parents, hashes, lists of children, what is below whom. A part of `restore`.
//!
//! A tree of a million znodes is a hundred megabytes, so what costs is how often all of it is looked at: `link` does in one
//! go whatever follows from a znode's parent, `enlist` in a second what follows from a parent's children; the rest looks at
//! those that have children, which are few. Names are elsewhere in memory: they were looked at when they were decoded.

use super::index::{self, ROOT};
use super::java_length;
use super::node::NO_SLOT;
use super::nodes::Nodes;
use super::restore::{RestoreError, wrong};
use crate::random::FastMap;

/// From the slots that znodes had to those that they have.
pub(super) struct OldSlots {
    /// Nearly always old slots are dense enough for a plain table.
    table: Vec<u32>,
    table_max: usize,
    others: FastMap<u32, u32>,
}

impl OldSlots {
    /// `expected`: how many there will be.
    pub(super) fn new(expected: usize) -> OldSlots {
        OldSlots { table: Vec::new(), table_max: expected * 8 + 1024, others: FastMap::default() }
    }

    /// `false`: the old slot is there already.
    pub(super) fn put(&mut self, old: u32, new: u32) -> bool {
        let at = old as usize;
        if at >= self.table_max {
            return self.others.insert(old, new).is_none();
        }
        if at >= self.table.len() {
            self.table.resize(at + 1, NO_SLOT);
        }
        std::mem::replace(&mut self.table[at], new) == NO_SLOT
    }

    fn get(&self, old: u32) -> Option<u32> {
        match self.table.get(old as usize) {
            Some(&slot) => Some(slot).filter(|&slot| slot != NO_SLOT),
            None => self.others.get(&old).copied(),
        }
    }
}

/// What is known of a tree once everyone has a parent. Vectors have an entry for each slot.
pub(super) struct Linked {
    /// Hashes of paths.
    pub hashes: Vec<u32>,
    /// How many children each has.
    pub children: Vec<u32>,
    /// The tree's digest.
    pub digest: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Unknown,
    /// It has its parent, and waits for the parent's hash.
    Waits,
    Done,
}

/// Gives every znode its parent and its hash, which follows from the parent's; slots have no holes. Fails unless everything
/// hangs below the root.
pub(super) fn link(nodes: &mut Nodes, old_slots: &OldSlots) -> Result<Linked, RestoreError> {
    let count = nodes.len();
    let (mut hashes, mut children) = (vec![0; count], vec![0; count]);
    let root = &mut nodes[ROOT as usize];
    root.hash = index::root_hash();
    hashes[ROOT as usize] = root.hash;
    let mut digest = u64::from(root.digest);
    let mut marks = vec![Mark::Unknown; count];
    marks[ROOT as usize] = Mark::Done;
    // From a znode up to the first one that is done; nearly always that is its parent.
    let mut way = Vec::new();
    for start in ROOT + 1..count as u32 {
        let mut slot = start;
        while marks[slot as usize] != Mark::Done {
            if marks[slot as usize] == Mark::Waits {
                return wrong(0, "znodes that are their own ancestors");
            }
            marks[slot as usize] = Mark::Waits;
            way.push(slot);
            let Some(parent) = old_slots.get(nodes[slot as usize].parent) else {
                let name = nodes.name(&nodes[slot as usize]);
                return wrong(0, format!("{:?} has no parent", String::from_utf8_lossy(name)));
            };
            nodes[slot as usize].parent = parent;
            slot = parent;
        }
        while let Some(slot) = way.pop() {
            let above = nodes[slot as usize].parent as usize;
            let parent = &nodes[above];
            let outside = !parent.in_tree_digest() || (parent.parent == ROOT && nodes.name(parent) == b"zookeeper");
            let parent_hash = parent.hash;
            let node = &mut nodes[slot as usize];
            node.hash = index::join_hashes(parent_hash, node.hash);
            if outside {
                node.leave_out_of_tree_digest();
            } else {
                digest = digest.wrapping_add(u64::from(node.digest));
            }
            hashes[slot as usize] = node.hash;
            children[above] += 1;
            marks[slot as usize] = Mark::Done;
        }
    }
    Ok(Linked { hashes, children, digest })
}

/// Enters every znode into its parent's list, which `children` says the length of: growing step by step would move each list
/// again and again. `visit` is told of each znode meanwhile. Returns the parents.
pub(super) fn enlist(nodes: &mut Nodes, children: &[u32], mut visit: impl FnMut(&mut Nodes, u32)) -> Vec<u32> {
    let is_parent = |slot: &u32| children[*slot as usize] > 0;
    let parents: Vec<u32> = (ROOT..nodes.len() as u32).filter(is_parent).collect();
    for &slot in &parents {
        nodes[slot as usize].extra_mut().children.reserve_exact(children[slot as usize] as usize);
    }
    for slot in ROOT + 1..nodes.len() as u32 {
        nodes.enlist_slot(nodes[slot as usize].parent, slot);
        visit(nodes, slot);
    }
    parents
}

/// Counts what is below each of the parents, from below, so that each is looked at once. Returns what that adds to the
/// tree's size: a name is part of the paths of everything below it.
pub(super) fn count_descendants(nodes: &mut Nodes, parents: &[u32]) -> i64 {
    const DONE: u32 = u32::MAX;
    // How many of a parent's children are parents that are not counted yet.
    let mut left = vec![0u32; nodes.len()];
    for &slot in parents {
        let node = &mut nodes[slot as usize];
        let (above, below) = (node.parent, node.children().len() as u32);
        node.extra_mut().descendants = below;
        if slot != ROOT {
            left[above as usize] += 1;
        }
    }
    let mut size = 0;
    for &start in parents {
        let mut slot = start;
        // Into its parent once all of its own have been; then the parent may be next.
        while slot != ROOT && left[slot as usize] == 0 {
            left[slot as usize] = DONE;
            let node = &nodes[slot as usize];
            let (parent, below) = (node.parent, node.extra.as_ref().map_or(0, |extra| extra.descendants));
            let name = std::str::from_utf8(nodes.name(node)).expect("checked in decode");
            size += (1 + java_length(name)) * i64::from(below);
            nodes[parent as usize].extra_mut().descendants += below;
            left[parent as usize] -= 1;
            slot = parent;
        }
    }
    size
}
