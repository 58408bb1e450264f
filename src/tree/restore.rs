//! A tree again from the images of a freeze, in any order. The images may be wrong in any way: nothing is believed
//! before it was checked, and no tree comes out unless all of them fit together.
//!
//! Decoding is most of the work and needs only a `Decoder`, so that it can be done on several threads; linking is one
//! pass afterwards. Slots are given out anew, without the holes that deletions left.

use super::acl::{self, NumberedAcl};
use super::freeze::Image;
use super::index::{self, ROOT};
use super::node::{NO_SLOT, Node, Numbers};
use super::nodes::Nodes;
use super::{Tree, TreeOptions};
use crate::ids::Zxid;
use crate::random::FastMap;
use std::sync::Arc;

/// What doesn't fit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{problem}")]
pub struct RestoreError {
    /// Where the image stands in the bytes that were given to `decode`; 0 if it is not about one image.
    pub offset: usize,
    pub problem: String,
}

fn wrong<T>(offset: usize, problem: impl Into<String>) -> Result<T, RestoreError> {
    Err(RestoreError { offset, problem: problem.into() })
}

/// A tree that is being put together.
pub struct Restore {
    tree: Tree,
    decoder: Decoder,
    has_root: bool,
}

/// Turns images into znodes that hang nowhere yet.
#[derive(Clone)]
pub struct Decoder {
    /// Numbers of ACLs in the images, to those in the tree.
    acl_ids: Arc<FastMap<u32, u32>>,
}

/// Decoded images. `place` holds the old slot and `parent` the old parent, until they are linked.
pub struct Batch {
    nodes: Vec<Node>,
    /// Their names and data, one behind the other.
    text: Vec<u8>,
}

impl Decoder {
    /// Reads a run of whole images.
    pub fn decode(&self, bytes: &[u8]) -> Result<Batch, RestoreError> {
        let (mut nodes, mut text) = (Vec::new(), Vec::new());
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = bytes.len() - rest.len();
            let Some((image, after)) = Image::read(rest) else { return wrong(offset, "not the image of a znode") };
            rest = after;
            let Some(&acl) = self.acl_ids.get(&image.acl) else {
                return wrong(offset, format!("ACL {} is nowhere", image.acl));
            };
            if image.name.contains(&b'/') || std::str::from_utf8(image.name).is_err() {
                return wrong(offset, format!("not a znode's name: {:?}", String::from_utf8_lossy(image.name)));
            }
            let mut node = Node::new(image.name, image.data, &image.numbers, acl);
            node.text_crc = image.text_crc;
            node.digest = node.fresh_digest();
            node.place = image.slot;
            node.parent = image.parent;
            nodes.push(node);
            text.extend_from_slice(image.name);
            text.extend_from_slice(image.data.unwrap_or_default());
        }
        Ok(Batch { nodes, text })
    }
}

impl Restore {
    /// Begins with the ACLs that the images name.
    pub fn new(options: TreeOptions, zxid: Zxid, acls: Vec<NumberedAcl>) -> Result<Restore, RestoreError> {
        let mut tree = Tree::bare(options);
        tree.zxid = zxid;
        let mut acl_ids = FastMap::default();
        for (id, list) in acls {
            if acl_ids.insert(id, tree.acls.intern(&list)).is_some() {
                return wrong(0, format!("ACL {id} is there twice"));
            }
        }
        acl_ids.insert(acl::OPEN, acl::OPEN);
        // Where the root will be.
        let slot = tree.nodes.insert(Node::new(b"", None, &Numbers::default(), acl::OPEN), b"", None);
        assert!(slot == ROOT as usize);
        Ok(Restore { tree, decoder: Decoder { acl_ids: Arc::new(acl_ids) }, has_root: false })
    }

    /// A decoder for the images of this tree.
    pub fn decoder(&self) -> Decoder {
        self.decoder.clone()
    }

    /// Takes decoded images in.
    pub fn add(&mut self, batch: Batch) -> Result<(), RestoreError> {
        let mut text = &batch.text[..];
        for node in batch.nodes {
            let (name, rest) = text.split_at(node.name_len());
            let (data, rest) = rest.split_at(node.data_len());
            let data = (!node.has_null_data()).then_some(data);
            text = rest;
            self.tree.acls.acquire_id(node.acl);
            if node.parent == NO_SLOT {
                if std::mem::replace(&mut self.has_root, true) {
                    return wrong(0, "two roots");
                }
                if !name.is_empty() {
                    return wrong(0, "the root has a name");
                }
                self.tree.nodes.replace(ROOT, node, name, data);
            } else {
                let slot = self.tree.nodes.insert(node, name, data);
                if slot >= NO_SLOT as usize {
                    return wrong(0, "more znodes than a tree can have");
                }
            }
        }
        Ok(())
    }

    /// Links everything. Fails unless the images are exactly one tree.
    pub fn finish(self) -> Result<Tree, RestoreError> {
        self.finish_on(1)
    }

    /// The same on this many threads, which are gone when it returns.
    pub fn finish_on(mut self, threads: usize) -> Result<Tree, RestoreError> {
        if !self.has_root {
            return wrong(0, "no root");
        }
        self.link_parents()?;
        self.hash_from_the_root()?;
        let tree = &mut self.tree;
        let rules = tree.options.owner_rules;
        let count = tree.nodes.len() as u32;
        if let Err(slot) = tree.index.fill(&tree.nodes, threads) {
            return wrong(0, format!("{:?} is there twice", index::path_of(&tree.nodes, slot)));
        }
        // Lists of children as long as they will be: growing step by step would move each of them again and again.
        let mut children = vec![0u32; count as usize];
        for slot in ROOT + 1..count {
            children[tree.nodes[slot as usize].parent as usize] += 1;
        }
        for slot in (ROOT..count).filter(|&slot| children[slot as usize] > 0) {
            let expected = children[slot as usize] as usize;
            tree.nodes[slot as usize].extra_mut().children.reserve_exact(expected);
        }
        for slot in ROOT..count {
            let node = &tree.nodes[slot as usize];
            if node.in_tree_digest() {
                tree.digest = tree.digest.wrapping_add(node.digest as u64);
            }
            tree.size += node.data_len() as i64;
            if slot == ROOT {
                continue;
            }
            let parent = node.parent;
            tree.nodes.enlist(parent, slot);
            tree.owned.add(&mut tree.nodes, slot, rules);
        }
        count_descendants(&mut tree.nodes, children);
        // A name is part of the paths of everything below it.
        for (slot, node) in tree.nodes.iter() {
            if slot != ROOT as usize {
                let name = std::str::from_utf8(tree.nodes.name(node)).expect("checked in decode");
                let below = node.extra.as_ref().map_or(0, |extra| extra.descendants as i64);
                tree.size += (1 + super::java_length(name)) * (1 + below);
            }
        }
        tree.acls.sweep_all();
        tree.find_quotas();
        Ok(self.tree)
    }

    /// From old slots to new ones.
    fn link_parents(&mut self) -> Result<(), RestoreError> {
        let mut new_slots: FastMap<u32, u32> = FastMap::default();
        let nodes = &mut self.tree.nodes;
        // Nearly always old slots are dense enough for a plain table.
        let highest = nodes.iter().map(|(_, node)| node.place as usize).max().unwrap_or(0);
        let dense = highest < nodes.len() * 8 + 1024;
        let mut table = if dense { vec![NO_SLOT; highest + 1] } else { Vec::new() };
        for (slot, node) in nodes.iter() {
            let taken = if dense {
                std::mem::replace(&mut table[node.place as usize], slot as u32) != NO_SLOT
            } else {
                new_slots.insert(node.place, slot as u32).is_some()
            };
            if taken {
                return wrong(0, format!("slot {} is there twice", node.place));
            }
        }
        // Nothing has been removed, so the slots have no holes.
        for slot in ROOT + 1..nodes.len() as u32 {
            let parent = nodes[slot as usize].parent;
            let new = if dense {
                table.get(parent as usize).copied().filter(|&slot| slot != NO_SLOT)
            } else {
                new_slots.get(&parent).copied()
            };
            let Some(new) = new else {
                let name = nodes.name(&nodes[slot as usize]);
                return wrong(0, format!("{:?} has no parent", String::from_utf8_lossy(name)));
            };
            nodes[slot as usize].parent = new;
        }
        Ok(())
    }

    /// Hashes of paths, which follow from the parents' hashes; and whether everything hangs below the root at all.
    fn hash_from_the_root(&mut self) -> Result<(), RestoreError> {
        let nodes = &mut self.tree.nodes;
        let mut hashed = vec![0u64; nodes.len().div_ceil(64)];
        nodes[ROOT as usize].hash = index::root_hash();
        hashed[0] |= 1;
        let mut chain = Vec::new();
        for start in 0..nodes.len() as u32 {
            let mut slot = start;
            while hashed[slot as usize / 64] >> (slot % 64) & 1 == 0 {
                if chain.len() > nodes.len() {
                    return wrong(0, "znodes that are their own ancestors");
                }
                chain.push(slot);
                slot = nodes[slot as usize].parent;
            }
            while let Some(slot) = chain.pop() {
                let parent = &nodes[nodes[slot as usize].parent as usize];
                let below_zookeeper =
                    !parent.in_tree_digest() || (parent.parent == ROOT && nodes.name(parent) == b"zookeeper");
                let hash = index::child_hash(parent.hash, nodes.name(&nodes[slot as usize]));
                let node = &mut nodes[slot as usize];
                node.hash = hash;
                if below_zookeeper {
                    node.leave_out_of_tree_digest();
                }
                hashed[slot as usize / 64] |= 1 << (slot % 64);
            }
        }
        Ok(())
    }
}

/// Counts what is below each znode, from below, so that each is looked at once. `left` has how many children each has.
fn count_descendants(nodes: &mut Nodes, mut left: Vec<u32>) {
    const DONE: u32 = u32::MAX;
    for start in ROOT + 1..nodes.len() as u32 {
        let mut slot = start;
        // Into its parent once all of its own have been; then the parent may be next.
        while slot != ROOT && left[slot as usize] == 0 {
            left[slot as usize] = DONE;
            let node = &nodes[slot as usize];
            let (parent, below) = (node.parent, node.extra.as_ref().map_or(0, |extra| extra.descendants));
            nodes[parent as usize].extra_mut().descendants += below + 1;
            left[parent as usize] -= 1;
            slot = parent;
        }
    }
}
