//! From a path to its slot: a hash table of slots, keyed by a hash of the whole path that is made up name by name, so
//! that a child's hash follows from its parent's and the table never needs the path itself.
//!
//! Whether a slot is the right one is settled by comparing names up to the root. The table is in parts, so that it grows
//! a part at a time: no stop of seconds for a hundred million znodes at once.

use super::node::{NO_SLOT, Node};
use crate::random::{self, hash_bytes};
use hashbrown::HashTable;
use slab::Slab;

/// The root's slot, always.
pub(super) const ROOT: u32 = 0;

const PARTS_LOG2: u32 = 6;

/// Hash of the root's path.
pub(super) fn root_hash() -> u32 {
    (random::seed() >> 32) as u32
}

/// Hash of a child's path from its parent's.
#[inline]
pub(super) fn child_hash(parent: u32, name: &[u8]) -> u32 {
    let wide = (hash_bytes(name) ^ parent as u64) as u128 * 0xd6e8_feb8_6659_fd93_u128;
    ((wide as u64) ^ (wide >> 64) as u64) as u32 ^ parent.rotate_left(11)
}

/// Hash of a path, as its znode has it if there is one. `None` if no znode can have this path.
#[inline]
pub(super) fn path_hash(path: &str) -> Option<u32> {
    let Some(names) = path.strip_prefix('/') else { return path.is_empty().then(root_hash) };
    if names.is_empty() {
        return Some(root_hash());
    }
    Some(names.as_bytes().split(|&byte| byte == b'/').fold(root_hash(), child_hash))
}

pub(super) struct Index {
    parts: Box<[HashTable<u32>]>,
}

#[inline]
fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline]
fn part(hash: u32) -> usize {
    (hash >> (32 - PARTS_LOG2)) as usize
}

impl Index {
    pub(super) fn new() -> Index {
        Index { parts: (0..1 << PARTS_LOG2).map(|_| HashTable::new()).collect() }
    }

    /// Room for this many znodes without growing.
    pub(super) fn reserve(&mut self, nodes: &Slab<Node>, more: usize) {
        for part in &mut self.parts {
            part.reserve(more >> PARTS_LOG2, |&slot| spread(nodes[slot as usize].hash));
        }
    }

    pub(super) fn insert(&mut self, nodes: &Slab<Node>, slot: u32) {
        let hash = nodes[slot as usize].hash;
        self.parts[part(hash)].insert_unique(spread(hash), slot, |&slot| spread(nodes[slot as usize].hash));
    }

    /// The znode has to be there still.
    pub(super) fn remove(&mut self, nodes: &Slab<Node>, slot: u32) {
        let hash = nodes[slot as usize].hash;
        let entry = self.parts[part(hash)].find_entry(spread(hash), |&candidate| candidate == slot);
        entry.expect("every znode is in the index").remove();
    }

    /// Slot of a path; "" and "/" are the root.
    #[inline]
    pub(super) fn find(&self, nodes: &Slab<Node>, path: &str) -> Option<u32> {
        let hash = path_hash(path)?;
        if path.len() <= 1 {
            return Some(ROOT);
        }
        let matches = |&slot: &u32| nodes[slot as usize].hash == hash && has_path(nodes, slot, path.as_bytes());
        self.parts[part(hash)].find(spread(hash), matches).copied()
    }

    /// Slot of a child.
    pub(super) fn find_child(&self, nodes: &Slab<Node>, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = child_hash(nodes[parent as usize].hash, name);
        let matches = |&slot: &u32| {
            let node = &nodes[slot as usize];
            node.hash == hash && node.parent == parent && node.name() == name
        };
        self.parts[part(hash)].find(spread(hash), matches).copied()
    }
}

/// Compares names from the last to the first.
#[inline]
fn has_path(nodes: &Slab<Node>, slot: u32, path: &[u8]) -> bool {
    let mut rest = path;
    let mut slot = slot;
    while slot != ROOT {
        let node = &nodes[slot as usize];
        match rest.strip_suffix(node.name()) {
            Some([before @ .., b'/']) => rest = before,
            _ => return false,
        }
        slot = node.parent;
    }
    rest.is_empty()
}

/// The path of a slot; "/" for the root.
pub(super) fn path_of(nodes: &Slab<Node>, slot: u32) -> String {
    if slot == ROOT {
        return "/".into();
    }
    let up = |slot: &u32| Some(nodes[*slot as usize].parent).filter(|&parent| parent != NO_SLOT);
    let len =
        std::iter::successors(Some(slot), up).map(|slot| nodes[slot as usize].name().len() + 1).sum::<usize>() - 1;
    let mut path = vec![0u8; len];
    let mut end = len;
    let mut slot = slot;
    while slot != ROOT {
        let node = &nodes[slot as usize];
        let start = end - node.name().len();
        path[start..end].copy_from_slice(node.name());
        end = start - 1;
        path[end] = b'/';
        slot = node.parent;
    }
    String::from_utf8(path).expect("names were text when they came in")
}
