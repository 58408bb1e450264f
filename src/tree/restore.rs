//! A tree again from the images of a freeze, in any order. The images may be wrong in any way: nothing is believed
//! before it was checked, and no tree comes out unless all of them fit together.
//!
//! Decoding is most of the work. Each thread has a `Decoder` with a part of the tree's names and data of its own, so that
//! what is done one after the other (`add`) is a copy of the znodes alone. Linking (`link`) then keeps two threads at work, filling
//! the index and listing wide parents all of them. Slots are given out anew, without the holes that deletions left.

use super::acl::{self, NumberedAcl};
use super::freeze::Image;
use super::index::{self, ROOT};
use super::link::{self, Loose};
use super::node::{NO_SLOT, Node, Numbers};
use super::text::Texts;
use super::{Tree, TreeOptions, java_length};
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

pub(super) fn wrong<T>(offset: usize, problem: impl Into<String>) -> Result<T, RestoreError> {
    Err(RestoreError { offset, problem: problem.into() })
}

/// A tree that is being put together.
pub struct Restore {
    tree: Tree,
    acl_ids: Arc<FastMap<u32, u32>>,
    loose: Loose,
    has_root: bool,
}

/// Turns images into znodes that hang nowhere yet; keeps their names and data until `Restore::finish`.
pub struct Decoder {
    /// Numbers of ACLs in the images, to those in the tree.
    acl_ids: Arc<FastMap<u32, u32>>,
    texts: Texts,
    part: usize,
    parts: usize,
}

/// Decoded images. `place` holds the old slot, `parent` the old parent and `hash` that of the name, until they are linked.
pub struct Batch {
    nodes: Vec<Node>,
    /// What their names and data add to the tree's size, each counted once.
    size: i64,
}

impl Decoder {
    /// Reads a run of whole images.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Batch, RestoreError> {
        let mut nodes = Vec::with_capacity(bytes.len() / Image::BYTES_MIN);
        let (mut rest, mut size) = (bytes, 0);
        while !rest.is_empty() {
            let offset = bytes.len() - rest.len();
            let Some((image, after)) = Image::read(rest) else { return wrong(offset, "not the image of a znode") };
            rest = after;
            let acl = match image.acl {
                acl::OPEN => acl::OPEN,
                number => match self.acl_ids.get(&number) {
                    Some(&acl) => acl,
                    None => return wrong(offset, format!("ACL {number} is nowhere")),
                },
            };
            let Some(name) = std::str::from_utf8(image.name).ok().filter(|_| index::find_slash(image.name).is_none())
            else {
                return wrong(offset, format!("not a znode's name: {:?}", String::from_utf8_lossy(image.name)));
            };
            if image.parent != NO_SLOT {
                size += 1 + java_length(name);
            }
            size += image.data.map_or(0, <[u8]>::len) as i64;
            let mut node = Node::new(image.name, image.data, &image.numbers, acl);
            let text = self.texts.insert(image.name, image.data.unwrap_or_default());
            node.text = text.in_whole(self.part, self.parts);
            node.text_crc = image.text_crc;
            node.digest = image.digest();
            node.place = image.slot;
            node.parent = image.parent;
            node.hash = index::name_hash(image.name);
            nodes.push(node);
        }
        Ok(Batch { nodes, size })
    }
}

impl Restore {
    /// Begins with the ACLs that the images name. `expected`: how many images there will be, as far as that is known.
    pub fn new(
        options: TreeOptions,
        zxid: Zxid,
        acls: Vec<NumberedAcl>,
        expected: usize,
    ) -> Result<Restore, RestoreError> {
        let mut tree = Tree::bare(options);
        tree.zxid = zxid;
        let mut acl_ids = FastMap::default();
        for (id, list) in acls {
            if acl_ids.insert(id, tree.acls.intern(&list)).is_some() {
                return wrong(0, format!("ACL {id} is there twice"));
            }
        }
        // Where the root will be.
        let slot = tree.nodes.insert_bare(Node::new(b"", None, &Numbers::default(), acl::OPEN));
        assert!(slot == ROOT as usize);
        tree.nodes.reserve(expected);
        Ok(Restore { tree, acl_ids: Arc::new(acl_ids), loose: Loose::new(expected), has_root: false })
    }

    /// Decoders for the images of this tree, all there will be: one for each thread.
    pub fn decoders(&self, threads: usize) -> Vec<Decoder> {
        let decoder =
            |part| Decoder { acl_ids: self.acl_ids.clone(), texts: Texts::part_of(threads), part, parts: threads };
        (0..threads).map(decoder).collect()
    }

    /// Takes decoded images in.
    pub fn add(&mut self, batch: Batch) -> Result<(), RestoreError> {
        self.tree.size += batch.size;
        for node in batch.nodes {
            self.tree.acls.acquire_id(node.acl);
            let is_root = node.parent == NO_SLOT;
            if is_root && std::mem::replace(&mut self.has_root, true) {
                return wrong(0, "two roots");
            }
            if is_root && node.name_len() > 0 {
                return wrong(0, "the root has a name");
            }
            if self.tree.nodes.len() >= NO_SLOT as usize {
                return wrong(0, "more znodes than a tree can have");
            }
            let slot = if is_root { ROOT } else { self.tree.nodes.len() as u32 };
            if !self.loose.put(slot, &node) {
                return wrong(0, format!("slot {} is there twice", node.place));
            }
            if is_root {
                self.tree.nodes[ROOT as usize] = node;
            } else {
                let inserted = self.tree.nodes.insert_bare(node);
                assert!(inserted == slot as usize, "there are no holes");
            }
        }
        Ok(())
    }

    /// Links everything, on as many threads as there were decoders. Fails unless the images are exactly one tree.
    pub fn finish(self, decoders: Vec<Decoder>) -> Result<Tree, RestoreError> {
        let Restore { mut tree, loose, has_root, .. } = self;
        if !has_root {
            return wrong(0, "no root");
        }
        let threads = decoders.len();
        tree.nodes.adopt(decoders.into_iter().map(|decoder| decoder.texts).collect());
        let linked = loose.link(&mut tree.nodes, &mut tree.index, threads)?;
        tree.digest = linked.digest;
        for slot in linked.owned {
            tree.owned.add(&mut tree.nodes, slot, tree.options.owner_rules);
        }
        tree.nodes.list_wide(&linked.parents, threads);
        tree.size += link::count_descendants(&mut tree.nodes, &linked.parents);
        tree.acls.sweep_all();
        tree.find_quotas();
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Applied;
    use super::*;
    use crate::ids::SessionId;
    use crate::wire::txn::{Txn, TxnHeader};

    fn image(slot: u32, parent: u32, name: &str, owner: i64) -> Vec<u8> {
        let numbers = Numbers { owner, ..Numbers::default() };
        let mut bytes = Vec::new();
        Image { slot, parent, acl: acl::OPEN, text_crc: 0, numbers, name: name.as_bytes(), data: None }
            .write(&mut bytes);
        bytes
    }

    fn begin() -> Restore {
        Restore::new(TreeOptions::default(), Zxid(7), Vec::new(), 8).unwrap()
    }

    #[test]
    fn after_a_slot_that_is_there_twice_the_other_threads_may_go_on_and_are_no_panic() {
        let mut restore = begin();
        let mut decoders = restore.decoders(1);
        let mut batch = |images: &[Vec<u8>]| decoders[0].decode(&images.concat()).unwrap();
        let twice = batch(&[image(0, NO_SLOT, "", 0), image(1, 0, "a", 0), image(1, 0, "b", 0)]);
        assert!(restore.add(twice).is_err());
        assert!(restore.add(batch(&[image(2, 0, "c", 0)])).is_ok());
    }

    #[test]
    fn a_root_that_says_it_is_an_ephemeral_goes_with_no_session() {
        let mut restore = begin();
        let mut decoders = restore.decoders(1);
        let images = [image(0, NO_SLOT, "", 5), image(1, 0, "a", 5)].concat();
        restore.add(decoders[0].decode(&images).unwrap()).unwrap();
        let mut tree = restore.finish(decoders).unwrap();
        assert_eq!(tree.ephemeral_count(), 1);
        let header = TxnHeader { session: SessionId(5), cxid: 0, zxid: Zxid(8), time: 0 };
        tree.apply(&header, Txn::CloseSession { paths: None }, &mut Applied::default());
        assert_eq!(tree.ephemeral_count(), 0);
    }

    #[test]
    fn one_path_again_and_again_is_refused() {
        let mut restore = begin();
        let mut decoders = restore.decoders(2);
        let mut images = image(0, NO_SLOT, "", 0);
        (1..3_000).for_each(|slot| images.extend(image(slot, 0, "a", 0)));
        restore.add(decoders[0].decode(&images).unwrap()).unwrap();
        let problem = restore.finish(decoders).err().unwrap().problem;
        assert!(problem.contains("there twice"), "{problem}");
    }
}
