//! From a path to its slot: a hash table of slots, keyed by a hash of the whole path that is made up name by name, so
//! that a child's hash follows from its parent's and the table never needs the path itself.
//!
//! Whether a slot is the right one is settled by comparing names up to the root. The table is in parts, so that it grows
//! a part at a time: no stop of seconds for a hundred million znodes at once.

use super::nodes::Nodes;
use crate::random::{self, PARTS, fold, part_of};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;

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

/// Where the last slash is, looked for as `find_slash` does.
#[inline]
pub fn find_last_slash(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let (rest, words) = bytes.as_rchunks::<8>();
    for (at, word) in words.iter().enumerate().rev() {
        // Without borrows: here the highest mark has to be right.
        let zeroed = u64::from_le_bytes(*word) ^ (0x0101_0101_0101_0101 * b'/' as u64);
        let marks = !(((zeroed & LOW) + LOW) | zeroed | LOW);
        if marks != 0 {
            return Some(rest.len() + at * 8 + 7 - marks.leading_zeros() as usize / 8);
        }
    }
    rest.iter().rposition(|&byte| byte == b'/')
}

/// One name onto a hash.
#[inline]
fn step(seed: u64, parent: u32, name: &[u8]) -> u32 {
    join(seed, parent, hash_name(seed, name))
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

    /// Enters znodes into an empty index, which any number of threads may do at once. `by_part`: as `sort_by_part` has
    /// them; `hashes`: of all, by slot.
    pub(super) fn filling<'a>(&'a mut self, by_part: &'a [Vec<Hashed>], hashes: &'a [u32]) -> Filling<'a> {
        let parts = self.parts.iter_mut().zip(by_part).map(|(part, some)| (part, some.as_slice())).collect();
        Filling { parts: Mutex::new(parts), hashes, alike: Mutex::new(Vec::new()) }
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

/// An index that is being filled.
pub(super) struct Filling<'a> {
    /// Those that nobody has begun with.
    parts: Mutex<Vec<(&'a mut HashTable<u32>, &'a [Hashed])>>,
    hashes: &'a [u32],
    alike: Mutex<Vec<(u32, u32)>>,
}

impl Filling<'_> {
    /// Fills parts until none is left.
    pub(super) fn work(&self) {
        let hash_of = |slot: u32| self.hashes[slot as usize];
        let next = || self.parts.lock().pop();
        let mut alike = Vec::new();
        // Many that are alike are one path again and again; some of them say as much.
        let many = self.hashes.len();
        while alike.len() <= many
            && let Some((part, some)) = next()
        {
            part.reserve(some.len(), |&slot| spread(hash_of(slot)));
            for &Hashed { hash, slot } in some {
                let note_alike = |&other: &u32| {
                    if hash_of(other) == hash {
                        alike.push((slot, other));
                    }
                    false
                };
                match part.entry(spread(hash), note_alike, |&slot| spread(hash_of(slot))) {
                    Entry::Vacant(vacant) => drop(vacant.insert(slot)),
                    Entry::Occupied(_) => unreachable!("none is said to be the same"),
                }
                if alike.len() > many {
                    break;
                }
            }
        }
        self.alike.lock().append(&mut alike);
    }

    /// Pairs of slots with equal hashes: they have the same path, or it is chance. If any path is there twice, it is among
    /// them.
    pub(super) fn finish(self) -> Vec<(u32, u32)> {
        let alike = self.alike.into_inner();
        assert!(self.parts.into_inner().is_empty() || alike.len() > self.hashes.len());
        alike
    }
}

/// A slot with the hash of its path.
#[derive(Clone, Copy)]
pub(super) struct Hashed {
    hash: u32,
    slot: u32,
}

/// All slots but the root's by the part that they belong to, so that what is filled fits the processor's cache.
pub(super) fn sort_by_part(hashes: &[u32]) -> Vec<Vec<Hashed>> {
    let mut counts = [0; PARTS];
    hashes[ROOT as usize + 1..].iter().for_each(|&hash| counts[part_of(hash)] += 1);
    let mut by_part: Vec<Vec<Hashed>> = counts.into_iter().map(Vec::with_capacity).collect();
    for (slot, &hash) in (0..).zip(hashes).skip(ROOT as usize + 1) {
        by_part[part_of(hash)].push(Hashed { hash, slot });
    }
    by_part
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

/// Bytes of the path of a slot that is not the root, and the names in it.
pub(super) fn path_size(nodes: &Nodes, slot: u32) -> (usize, usize) {
    let up = |slot: &u32| Some(nodes[*slot as usize].parent).filter(|&parent| parent != ROOT);
    let names = std::iter::successors(Some(slot), up).map(|slot| nodes[slot as usize].name_len() + 1);
    names.fold((0, 0), |(bytes, names), name| (bytes + name, names + 1))
}

/// Whether the path of a slot, which has `len` bytes and is not the root's, begins with this.
pub(super) fn path_starts_with(nodes: &Nodes, slot: u32, len: usize, prefix: &[u8]) -> bool {
    let (mut slot, mut end) = (slot, len);
    if prefix.len() > len {
        return false;
    }
    while slot != ROOT {
        let node = &nodes[slot as usize];
        let name = nodes.name(node);
        let start = end - name.len();
        let differs = prefix.get(start..prefix.len().min(end)).is_some_and(|there| !name.starts_with(there));
        if differs || prefix.get(start - 1).is_some_and(|&slash| slash != b'/') {
            return false;
        }
        end = start - 1;
        slot = node.parent;
    }
    true
}

/// The path of a slot; "/" for the root.
pub(super) fn path_of(nodes: &Nodes, slot: u32) -> String {
    if slot == ROOT {
        return "/".into();
    }
    let (len, _) = path_size(nodes, slot);
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
    fn the_first_and_the_last_slash_are_found_wherever_they_are() {
        for len in 0..40 {
            for at in 0..len {
                // Beside bytes that differ from a slash in one bit only.
                let mut bytes = vec![b'.'; len];
                bytes[at..].fill(b'/');
                assert_eq!(find_slash(&bytes), Some(at));
                bytes[at + 1..].fill(b'0');
                bytes[..at].fill(b'/');
                assert_eq!(find_last_slash(&bytes), Some(at));
            }
            assert_eq!((find_slash(&vec![0xaf; len]), find_last_slash(&vec![0xaf; len])), (None, None));
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

    #[test]
    fn an_index_filled_by_several_threads_has_every_slot_once_and_tells_those_that_are_alike() {
        // Some hashes stand for two slots, one for three.
        let hash_of = |slot: u32| slot.max(2).min(slot / 2 + 900).wrapping_mul(0x9e37_79b9);
        let hashes: Vec<u32> = (0..2_000).map(hash_of).collect();
        let by_part = sort_by_part(&hashes);
        let mut index = Index::new();
        let filling = index.filling(&by_part, &hashes);
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| filling.work()))));
        let mut alike = filling.finish();
        let mut slots: Vec<u32> = index.parts.iter().flat_map(|part| part.iter().copied()).collect();
        slots.sort_unstable();
        assert!(slots.into_iter().eq(1..2_000));
        let mut expected: Vec<(u32, u32)> = Vec::new();
        for slot in 1..2_000 {
            expected.extend((1..slot).filter(|&other| hash_of(other) == hash_of(slot)).map(|other| (slot, other)));
        }
        alike.sort_unstable();
        expected.sort_unstable();
        assert!(expected.len() > 90 && alike == expected, "{alike:?}");
        let found = |slot: u32| index.parts[part_of(hash_of(slot))].find(spread(hash_of(slot)), |&other| other == slot);
        assert!((1..2_000).all(|slot| found(slot) == Some(&slot)));
    }
}
