//! From a path to its slot: a hash table of slots, keyed by a hash of the whole path that is made up name by name, so
//! that a child's hash follows from its parent's and the table never needs the path itself.
//!
//! Whether a slot is the right one is settled by comparing names up to the root. The table is in parts, so that it grows
//! a part at a time: no stop of seconds for a hundred million znodes at once.

use super::node::NO_SLOT;
use super::nodes::Nodes;
use crate::random::{self, PARTS, part_of};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The root's slot, always.
pub(super) const ROOT: u32 = 0;

/// Hash of the root's path.
pub(super) fn root_hash() -> u32 {
    (random::seed() >> 32) as u32
}

/// Hash of a child's path from its parent's.
#[inline]
pub(super) fn child_hash(parent: u32, name: &[u8]) -> u32 {
    step(random::seed(), parent, name)
}

/// Hash of a name, whoever has it.
pub(super) fn name_hash(name: &[u8]) -> u32 {
    hash_name(random::seed(), name)
}

/// As `child_hash`, where the name's is known.
#[inline]
pub(super) fn join_hashes(parent: u32, name: u32) -> u32 {
    join(random::seed(), parent, name)
}

/// Hash of a path, as its znode has it if there is one. `None` if no znode can have this path.
#[inline]
pub(super) fn path_hash(path: &str) -> Option<u32> {
    let Some(names) = path.strip_prefix('/') else { return path.is_empty().then(root_hash) };
    let mut hash = root_hash();
    let mut rest = names.as_bytes();
    if rest.is_empty() {
        return Some(hash);
    }
    let seed = random::seed();
    loop {
        match find_slash(rest) {
            Some(at) => {
                hash = step(seed, hash, &rest[..at]);
                rest = &rest[at + 1..];
            }
            None => return Some(step(seed, hash, rest)),
        }
    }
}

/// Where the first slash is. Names are short, so eight bytes at a time and no call.
#[inline]
pub fn find_slash(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        // A byte is zero where there was a slash; the lowest marked one is right, whatever the borrows above it do.
        let zeroed = u64::from_le_bytes(*word) ^ (ONES * b'/' as u64);
        let marks = zeroed.wrapping_sub(ONES) & !zeroed & (ONES << 7);
        if marks != 0 {
            return Some(at * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|&byte| byte == b'/').map(|at| words.len() * 8 + at)
}

/// One name onto a hash.
#[inline]
fn step(seed: u64, parent: u32, name: &[u8]) -> u32 {
    join(seed, parent, hash_name(seed, name))
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = a as u128 * b as u128;
    wide as u64 ^ (wide >> 64) as u64
}

/// A name's own hash apart from its parent's, so that a load can have it before it knows the parent.
#[inline]
fn join(seed: u64, parent: u32, name: u32) -> u32 {
    let hash = fold(seed.rotate_left(16) ^ (u64::from(parent) << 32 | u64::from(name)), 0xd6e8_feb8_6659_fd93);
    hash as u32 ^ (hash >> 32) as u32
}

/// Eight bytes a step, the last step overlapping the one before, so that nothing is copied.
#[inline]
fn hash_name(seed: u64, name: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let key = seed ^ K;
    let start = seed ^ (name.len() as u64).wrapping_mul(K);
    let (hash, last) = match name {
        [.., a, b, c, d, e, f, g, h] => {
            let tail = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            let words = name[..name.len() - 1].as_chunks::<8>().0;
            (words.iter().fold(start, |hash, word| fold(hash ^ u64::from_le_bytes(*word), key)), tail)
        }
        [a, b, c, d, ..] => {
            let [.., w, x, y, z] = name else { unreachable!("four at least") };
            (start, u64::from_le_bytes([*a, *b, *c, *d, *w, *x, *y, *z]))
        }
        [] => (start, 0),
        [first, .., last] => (start, u64::from_le_bytes([*first, name[1], *last, 0, 0, 0, 0, 1])),
        [only] => (start, *only as u64),
    };
    let hash = fold(hash ^ last, key.rotate_left(32));
    hash as u32 ^ (hash >> 32) as u32
}

pub(super) struct Index {
    parts: Box<[HashTable<u32>; PARTS]>,
}

#[inline]
fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    pub(super) fn new() -> Index {
        Index { parts: Box::new(std::array::from_fn(|_| HashTable::new())) }
    }

    /// Enters every znode but the root into an empty index; each of `threads` threads has parts of its own. Slots have no
    /// holes, and `hashes` has the hash of each: close together, since every thread looks at all. The error is the slot of a
    /// znode that is there twice.
    pub(super) fn fill(&mut self, nodes: &Nodes, hashes: &[u32], threads: usize) -> Result<(), u32> {
        let each = PARTS.div_ceil(threads.clamp(1, PARTS));
        if each == PARTS {
            return fill_parts(&mut self.parts[..], 0, nodes, hashes);
        }
        std::thread::scope(|scope| {
            let parts = self.parts.chunks_mut(each).enumerate();
            let filling: Vec<_> =
                parts.map(|(at, parts)| scope.spawn(move || fill_parts(parts, at * each, nodes, hashes))).collect();
            let results = filling.into_iter().map(|thread| thread.join().expect("it does not panic"));
            results.fold(Ok(()), Result::and)
        })
    }

    pub(super) fn insert(&mut self, nodes: &Nodes, slot: u32) {
        let hash = nodes[slot as usize].hash;
        self.parts[part_of(hash)].insert_unique(spread(hash), slot, |&slot| spread(nodes[slot as usize].hash));
    }

    /// The znode has to be there still.
    pub(super) fn remove(&mut self, nodes: &Nodes, slot: u32) {
        let hash = nodes[slot as usize].hash;
        let entry = self.parts[part_of(hash)].find_entry(spread(hash), |&candidate| candidate == slot);
        entry.expect("every znode is in the index").remove();
    }

    /// Slot of a path; "" and "/" are the root.
    #[inline]
    pub(super) fn find(&self, nodes: &Nodes, path: &str) -> Option<u32> {
        let hash = path_hash(path)?;
        if path.len() <= 1 {
            return Some(ROOT);
        }
        let matches = |&slot: &u32| nodes[slot as usize].hash == hash && has_path(nodes, slot, path.as_bytes());
        self.parts[part_of(hash)].find(spread(hash), matches).copied()
    }

    /// Slot of a child.
    pub(super) fn find_child(&self, nodes: &Nodes, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = child_hash(nodes[parent as usize].hash, name);
        let matches = |&slot: &u32| {
            let node = &nodes[slot as usize];
            node.hash == hash && node.parent == parent && nodes.name(node) == name
        };
        self.parts[part_of(hash)].find(spread(hash), matches).copied()
    }
}

/// The part of `Index::fill` that concerns `parts`, of which the first is number `first`.
fn fill_parts(parts: &mut [HashTable<u32>], first: usize, nodes: &Nodes, hashes: &[u32]) -> Result<(), u32> {
    let hash_of = |slot: u32| hashes[slot as usize];
    let mut counts = vec![0; parts.len()];
    let own = |hash: u32| part_of(hash).wrapping_sub(first);
    for &hash in &hashes[ROOT as usize + 1..] {
        if let Some(count) = counts.get_mut(own(hash)) {
            *count += 1;
        }
    }
    for (part, count) in parts.iter_mut().zip(counts) {
        part.reserve(count, |&slot| spread(hash_of(slot)));
    }
    for (slot, &hash) in (ROOT + 1..).zip(&hashes[ROOT as usize + 1..]) {
        let Some(part) = parts.get_mut(own(hash)) else { continue };
        let same = |&other: &u32| {
            if hash_of(other) != hash {
                return false;
            }
            let (node, other) = (&nodes[slot as usize], &nodes[other as usize]);
            other.parent == node.parent && nodes.name(other) == nodes.name(node)
        };
        match part.entry(spread(hash), same, |&slot| spread(hash_of(slot))) {
            Entry::Occupied(_) => return Err(slot),
            Entry::Vacant(vacant) => drop(vacant.insert(slot)),
        }
    }
    Ok(())
}

/// Compares names from the last to the first.
#[inline]
fn has_path(nodes: &Nodes, slot: u32, path: &[u8]) -> bool {
    let mut rest = path;
    let mut slot = slot;
    while slot != ROOT {
        let node = &nodes[slot as usize];
        match rest.strip_suffix(nodes.name(node)) {
            Some([before @ .., b'/']) => rest = before,
            _ => return false,
        }
        slot = node.parent;
    }
    rest.is_empty()
}

/// The path of a slot; "/" for the root.
pub(super) fn path_of(nodes: &Nodes, slot: u32) -> String {
    if slot == ROOT {
        return "/".into();
    }
    let up = |slot: &u32| Some(nodes[*slot as usize].parent).filter(|&parent| parent != NO_SLOT);
    let len = std::iter::successors(Some(slot), up).map(|slot| nodes[slot as usize].name_len() + 1).sum::<usize>() - 1;
    let mut path = vec![0u8; len];
    let mut end = len;
    let mut slot = slot;
    while slot != ROOT {
        let node = &nodes[slot as usize];
        let start = end - node.name_len();
        path[start..end].copy_from_slice(nodes.name(node));
        end = start - 1;
        path[end] = b'/';
        slot = node.parent;
    }
    String::from_utf8(path).expect("names were text when they came in")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_path_hashes_as_its_names_do_one_by_one() {
        let letters = ["", "a", "ab", "abc", "abcd", "abcdefg", "abcdefgh", "abcdefghi", "0123456789abcdef", "\u{e4}"];
        for one in letters {
            for two in letters {
                for three in ["x", "exactly eight bytes and more"] {
                    let names = [one, two, three];
                    let by_name = names.iter().fold(root_hash(), |hash, name| child_hash(hash, name.as_bytes()));
                    assert_eq!(path_hash(&format!("/{one}/{two}/{three}")), Some(by_name), "{names:?}");
                }
            }
        }
        assert_eq!(path_hash("a/b"), None);
        assert_eq!((path_hash(""), path_hash("/")), (Some(root_hash()), Some(root_hash())));
    }

    #[test]
    fn the_first_slash_is_found_wherever_it_is() {
        for len in 0..40 {
            for at in 0..len {
                // Beside bytes that differ from a slash in one bit only.
                let mut bytes = vec![b'.'; len];
                bytes[at..].fill(b'/');
                assert_eq!(find_slash(&bytes), Some(at));
            }
            assert_eq!(find_slash(&vec![0xaf; len]), None);
        }
    }

    #[test]
    fn hashes_of_names_that_count_hardly_meet() {
        let names = (0..200_000).map(|n| format!("member-{n:010}"));
        let mut hashes: HashSet<u32> = names.map(|name| child_hash(root_hash(), name.as_bytes())).collect();
        hashes.extend((0..100_000u32).map(|n| child_hash(n, b"leader")));
        // 300,000 balls in 2^32 bins: about ten meet.
        assert!(hashes.len() > 299_900, "{}", hashes.len());
    }
}
