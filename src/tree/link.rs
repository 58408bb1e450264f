//! Znodes that hang nowhere become a tree: parents, hashes, lists of children, what is below whom. A part of `restore`.
//!
//! A tree of a million znodes is a hundred megabytes, so what costs is how often all of it is looked at. What this works on
//! is kept beside the znodes, four bytes of each in a row (`Loose`), and comes into them in one go at the end, while another
//! thread fills the index. Names are elsewhere in memory: they were looked at when they were decoded.

use super::index::{self, Index, ROOT};
use super::java_length;
use super::node::{NO_SLOT, Node};
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

/// Znodes that hang nowhere yet: what their place in the tree follows from, by slot. Slots have no holes.
pub(super) struct Loose {
    /// The old slot of the parent; then its slot.
    parents: Vec<u32>,
    /// The hash of the name; then that of the path.
    hashes: Vec<u32>,
    old_slots: OldSlots,
}

/// What is known of a tree once everyone has a place.
pub(super) struct Linked {
    /// Of the whole tree.
    pub digest: u64,
    /// Slots of those that have children, in order.
    pub parents: Vec<u32>,
    /// Slots of those that have an owner, in order.
    pub owned: Vec<u32>,
}

impl Loose {
    /// `expected`: how many there will be.
    pub(super) fn new(expected: usize) -> Loose {
        let (mut parents, mut hashes) = (Vec::with_capacity(expected + 1), Vec::with_capacity(expected + 1));
        parents.push(NO_SLOT);
        hashes.push(index::root_hash());
        Loose { parents, hashes, old_slots: OldSlots::new(expected) }
    }

    /// Takes in what `Decoder::decode` has left in a znode. `false`: its old slot is there already.
    pub(super) fn put(&mut self, slot: u32, node: &Node) -> bool {
        let is_new = self.old_slots.put(node.place, slot);
        if is_new && slot != ROOT {
            assert!(slot as usize == self.parents.len());
            self.parents.push(node.parent);
            self.hashes.push(node.hash);
        }
        is_new
    }

    /// Gives every znode its place, enters all into the empty index, and adds up the digest. Fails unless everything hangs
    /// below the root and nothing is there twice.
    pub(super) fn link(mut self, nodes: &mut Nodes, index: &mut Index, threads: usize) -> Result<Linked, RestoreError> {
        assert!(nodes.len() == self.parents.len());
        if let Err(slot) = self.find_parents(threads) {
            let name = nodes.name(&nodes[slot as usize]);
            return wrong(0, format!("{:?} has no parent", String::from_utf8_lossy(name)));
        }
        let Loose { parents: above, mut hashes, old_slots } = self;
        drop(old_slots);
        let (mut children, parents) = Children::count(&above);
        let (places, by_part) = both(
            threads,
            || children.fill(&above),
            || {
                hash_paths(&mut hashes, &above, &parents)?;
                Ok(index::sort_by_part(&hashes))
            },
        );
        let by_part = by_part?;
        let filling = index.filling(&by_part, &hashes);
        let mut owned = Vec::new();
        let (mut digest, _) = both(
            threads,
            || {
                let mut digest = 0u64;
                for (slot, node) in nodes.iter_mut() {
                    (node.parent, node.place, node.hash) = (above[slot], places[slot], hashes[slot]);
                    digest = digest.wrapping_add(u64::from(node.digest));
                    let children = children.of(slot);
                    if !children.is_empty() {
                        node.extra_mut().children = children.to_vec();
                    }
                    // The root goes with no session, whatever it says.
                    if slot != ROOT as usize && node.owner() != 0 {
                        owned.push(slot as u32);
                    }
                }
                filling.work();
                digest
            },
            || {
                let work = || filling.work();
                std::thread::scope(|scope| {
                    (2..threads).for_each(|_| drop(scope.spawn(work)));
                    work();
                })
            },
        );
        for (one, other) in filling.finish() {
            let (node, other) = (&nodes[one as usize], &nodes[other as usize]);
            if node.parent == other.parent && nodes.name(node) == nodes.name(other) {
                return wrong(0, format!("{:?} is there twice", index::path_of(nodes, one)));
            }
        }
        // What is below /zookeeper does not count.
        let mut outside: Vec<u32> = Vec::new();
        outside.extend(index.find_child(nodes, ROOT, b"zookeeper"));
        while let Some(slot) = outside.pop() {
            for child in nodes[slot as usize].children().to_vec() {
                let node = &mut nodes[child as usize];
                node.leave_out_of_tree_digest();
                digest = digest.wrapping_sub(u64::from(node.digest));
                outside.push(child);
            }
        }
        Ok(Linked { digest, parents, owned })
    }

    /// From the old slots of parents to their slots. The error is the slot of a znode whose parent is nowhere.
    fn find_parents(&mut self, threads: usize) -> Result<(), u32> {
        let old_slots = &self.old_slots;
        let find = |first: usize, parents: &mut [u32]| {
            for (at, parent) in parents.iter_mut().enumerate() {
                *parent = old_slots.get(*parent).ok_or((first + at) as u32)?;
            }
            Ok(())
        };
        let all = &mut self.parents[ROOT as usize + 1..];
        let each = all.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let find = &find;
            let parts = all.chunks_mut(each).enumerate();
            let finding: Vec<_> =
                parts.map(|(at, part)| scope.spawn(move || find(ROOT as usize + 1 + at * each, part))).collect();
            finding.into_iter().map(|thread| thread.join().expect("it does not panic")).fold(Ok(()), Result::and)
        })
    }
}

/// Does both, at once if there are threads for it.
fn both<A, B: Send>(threads: usize, one: impl FnOnce() -> A, other: impl FnOnce() -> B + Send) -> (A, B) {
    if threads < 2 {
        return (one(), other());
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        (one(), other.join().expect("it does not panic"))
    })
}

/// The children of all znodes: those of each one behind the other.
struct Children {
    slots: Vec<u32>,
    /// By parent.
    runs: Vec<Run>,
}

/// Where in the list of all children those of a parent are.
#[derive(Clone, Copy, Default)]
struct Run {
    start: u32,
    /// Where the next one comes; in the end behind the last one.
    end: u32,
}

impl Children {
    /// Room for the children of all; also the slots of those that have some. `above` has the parent of each.
    fn count(above: &[u32]) -> (Children, Vec<u32>) {
        let mut runs = vec![Run::default(); above.len()];
        for &parent in &above[ROOT as usize + 1..] {
            runs[parent as usize].end += 1;
        }
        let (mut parents, mut start) = (Vec::new(), 0);
        for (slot, run) in runs.iter_mut().enumerate() {
            let count = run.end;
            if count > 0 {
                parents.push(slot as u32);
            }
            *run = Run { start, end: start };
            start += count;
        }
        (Children { slots: vec![0; above.len() - 1], runs }, parents)
    }

    /// Enters everyone, in the order of slots. Returns the place of each in its parent's list.
    fn fill(&mut self, above: &[u32]) -> Vec<u32> {
        let mut places = vec![0; above.len()];
        for (slot, &parent) in above.iter().enumerate().skip(ROOT as usize + 1) {
            let run = &mut self.runs[parent as usize];
            self.slots[run.end as usize] = slot as u32;
            places[slot] = run.end - run.start;
            run.end += 1;
        }
        places
    }

    fn of(&self, slot: usize) -> &[u32] {
        let Run { start, end } = self.runs[slot];
        &self.slots[start as usize..end as usize]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Unknown,
    /// It waits for its parent's hash.
    Waits,
    Done,
}

/// From hashes of names to those of paths: first of the `parents`, each after its own, then of all others.
fn hash_paths(hashes: &mut [u32], above: &[u32], parents: &[u32]) -> Result<(), RestoreError> {
    let mut marks = vec![Mark::Unknown; above.len()];
    marks[ROOT as usize] = Mark::Done;
    let step = |hashes: &mut [u32], slot: usize| {
        hashes[slot] = index::join_hashes(hashes[above[slot] as usize], hashes[slot]);
    };
    // From a parent up to the first one that is done; nearly always that is its own.
    let mut way = Vec::new();
    for &start in parents {
        let mut slot = start as usize;
        while marks[slot] != Mark::Done {
            if marks[slot] == Mark::Waits {
                return wrong(0, "znodes that are their own ancestors");
            }
            marks[slot] = Mark::Waits;
            way.push(slot);
            slot = above[slot] as usize;
        }
        while let Some(slot) = way.pop() {
            step(hashes, slot);
            marks[slot] = Mark::Done;
        }
    }
    for (slot, _) in marks.iter().enumerate().filter(|(_, mark)| **mark == Mark::Unknown) {
        step(hashes, slot);
    }
    Ok(())
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
