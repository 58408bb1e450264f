//! The znodes by their slots, with their names and data, which lie elsewhere (`text`).

use super::listing::{self, Listing};
use super::node::Node;
use super::text::Texts;
use slab::Slab;
use std::ops::{Index, IndexMut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Every znode of a tree.
pub(super) struct Nodes {
    slab: Slab<Node>,
    /// One more than the highest slot that was ever taken.
    slots: usize,
    texts: Texts,
}

impl Nodes {
    pub(super) fn new() -> Nodes {
        Nodes { slab: Slab::new(), slots: 0, texts: Texts::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.slab.contains(slot as usize)
    }

    /// All slots are below. To look for the highest one in use would take long after many have gone.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn iter_mut(&mut self) -> slab::IterMut<'_, Node> {
        self.slab.iter_mut()
    }

    /// Takes in a znode that was made with this name and this data; gives it a slot.
    pub(super) fn insert(&mut self, mut node: Node, name: &[u8], data: Option<&[u8]>) -> usize {
        node.text = self.texts.insert(name, data.unwrap_or_default());
        assert!(node.is_of(name, data));
        self.insert_bare(node)
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, count: usize) {
        self.slab.reserve_exact(count);
    }

    /// Takes in a znode whose name and data are kept already, or will be (`adopt`).
    pub(super) fn insert_bare(&mut self, node: Node) -> usize {
        let slot = self.slab.insert(node);
        self.slots = self.slots.max(slot + 1);
        slot
    }

    /// The parts that hold names and data of all znodes that are here.
    pub(super) fn adopt(&mut self, texts: Vec<Texts>) {
        self.texts = Texts::whole(texts);
    }

    /// Takes a znode out; its name and its data are gone.
    pub(super) fn remove(&mut self, slot: u32) -> Node {
        let node = self.slab.remove(slot as usize);
        self.texts.remove(node.text);
        node
    }

    /// Lists the children of those of these parents that have many, on so many threads.
    pub(super) fn list_wide(&mut self, parents: &[u32], threads: usize) {
        let children = |slot: u32| self.slab[slot as usize].children();
        // A piece is a parent and the first of its children that is in it; of a very wide one there are many.
        let pieces = |slot: u32| (0..children(slot).len()).step_by(listing::PIECE).map(move |from| (slot, from));
        let wide = parents.iter().filter(|&&slot| children(slot).len() >= listing::WIDE);
        let pieces: Vec<(u32, usize)> = wide.flat_map(|&slot| pieces(slot)).collect();
        let next = AtomicUsize::new(0);
        let list_some = || {
            let mut listed = Vec::new();
            while let Some(&(slot, from)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                let children = &children(slot)[from..];
                listed.push((slot, from, self.listing_of(&children[..children.len().min(listing::PIECE)])));
            }
            listed
        };
        let mut listed = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(list_some)).collect();
            let mut listed = list_some();
            others.into_iter().for_each(|other| listed.extend(other.join().expect("it does not panic")));
            listed
        });
        listed.sort_unstable_by_key(|&(slot, from, _)| (slot, from));
        for (slot, _, piece) in listed {
            self.slab[slot as usize].extra_mut().listing.get_or_insert_default().append(piece);
        }
    }

    fn listing_of(&self, children: &[u32]) -> Listing {
        let mut listing = Listing::default();
        for (place, &child) in children.iter().enumerate() {
            listing.push(place, self.name(&self.slab[child as usize]));
        }
        listing
    }

    /// Enters a znode into its parent's list of children.
    pub(super) fn enlist(&mut self, parent: u32, slot: u32) {
        let extra = self.slab[parent as usize].extra_mut();
        let place = extra.children.len();
        extra.children.push(slot);
        let is_wide = extra.listing.is_some();
        self.slab[slot as usize].place = place as u32;
        if is_wide {
            let name = self.texts.get(self.slab[slot as usize].text, self.slab[slot as usize].name_len());
            let listing = self.slab[parent as usize].extra_mut().listing.as_mut();
            listing.expect("just seen").push(place, name);
        } else if place + 1 == listing::WIDE {
            let listing = self.listing_of(self.slab[parent as usize].children());
            self.slab[parent as usize].extra_mut().listing = Some(Box::new(listing));
        }
    }

    /// Takes a znode that has been removed out of its parent's list of children.
    pub(super) fn delist(&mut self, parent: u32, slot: u32, place: u32) {
        let extra = self.slab[parent as usize].extra_mut();
        let gone = extra.children.swap_remove(place as usize);
        assert!(gone == slot);
        match &mut extra.listing {
            Some(_) if extra.children.len() < listing::WIDE / 2 => extra.listing = None,
            Some(listing) => listing.swap_remove(place as usize, extra.children.len()),
            None => {}
        }
        if let Some(&moved) = extra.children.get(place as usize) {
            self.slab[moved as usize].place = place;
        }
    }

    /// Appends the names of a znode's children as text on the wire. `false` if `out` would have more than `max` bytes; what
    /// stands in it then is of no use.
    pub(super) fn encode_children(&self, node: &Node, out: &mut Vec<u8>, max: usize) -> bool {
        let children = node.children();
        if let Some(listing) = node.extra.as_ref().and_then(|extra| extra.listing.as_ref()) {
            let fits = out.len() + listing.len() <= max;
            if fits {
                out.reserve(listing.len());
                listing.blocks().for_each(|block| out.extend_from_slice(block));
            }
            return fits;
        }
        for &child in children {
            listing::put_name(self.name(&self.slab[child as usize]), out);
            if out.len() > max {
                return false;
            }
        }
        true
    }

    #[inline]
    pub(super) fn name(&self, node: &Node) -> &[u8] {
        self.texts.get(node.text, node.name_len())
    }

    /// `None` is null, which is not the empty data.
    #[inline]
    pub(super) fn data(&self, node: &Node) -> Option<&[u8]> {
        let text = || self.texts.get(node.text, node.name_len() + node.data_len());
        (!node.has_null_data()).then(|| &text()[node.name_len()..])
    }

    /// In place where it fits.
    pub(super) fn set_data(&mut self, slot: u32, data: Option<&[u8]>) {
        let node = &mut self.slab[slot as usize];
        let (name_len, len) = (node.name_len(), node.name_len() + node.data_len());
        node.text = self.texts.set_tail(node.text, len, name_len, data.unwrap_or_default());
        node.note_data(data);
    }
}

impl Index<usize> for Nodes {
    type Output = Node;
    #[inline]
    fn index(&self, slot: usize) -> &Node {
        &self.slab[slot]
    }
}

impl IndexMut<usize> for Nodes {
    #[inline]
    fn index_mut(&mut self, slot: usize) -> &mut Node {
        &mut self.slab[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::Numbers;
    use super::*;

    #[test]
    fn a_parent_that_becomes_wide_and_narrow_again_lists_its_children_as_they_are() {
        use crate::random::Rng;
        use crate::wire::writer::Jute;
        let (mut nodes, mut rng) = (Nodes::new(), Rng::new(3));
        let make = |nodes: &mut Nodes, name: &str| {
            nodes.insert(Node::new(name.as_bytes(), None, &Numbers::default(), 0), name.as_bytes(), None) as u32
        };
        let parent = make(&mut nodes, "");
        let mut wide = [0, 0];
        for round in 0..8_000 {
            let children = nodes[parent as usize].children();
            if round / 2_000 % 2 == 1 && !children.is_empty() {
                let slot = children[rng.below(children.len() as u64) as usize];
                let node = nodes.remove(slot);
                nodes.delist(parent, slot, node.place);
            } else {
                let slot =
                    make(&mut nodes, &format!("{}{round}", if rng.below(9) == 0 { "\u{1f980}" } else { "child-" }));
                nodes.enlist(parent, slot);
            }
            if round % 37 == 0 {
                let node = &nodes[parent as usize];
                let (mut expected, mut listed) = (Vec::new(), Vec::new());
                for (place, &child) in node.children().iter().enumerate() {
                    let child = &nodes[child as usize];
                    assert_eq!(child.place as usize, place);
                    expected.put_text(std::str::from_utf8(nodes.name(child)).unwrap());
                }
                assert!(nodes.encode_children(node, &mut listed, expected.len()) && listed == expected);
                assert!(expected.is_empty() || !nodes.encode_children(node, &mut Vec::new(), expected.len() - 1));
                wide[usize::from(node.extra.as_ref().is_some_and(|extra| extra.listing.is_some()))] += 1;
            }
        }
        assert!(wide.iter().all(|times| *times > 20), "{wide:?}");
    }

    #[test]
    fn null_and_empty_data_differ_and_a_change_keeps_the_name() {
        let mut nodes = Nodes::new();
        let slot = nodes.insert(Node::new(b"name", None, &Numbers::default(), 0), b"name", None);
        let seen = |nodes: &Nodes| {
            let node = &nodes[slot];
            assert_eq!(node.data_len(), nodes.data(node).map_or(0, <[u8]>::len));
            (nodes.name(node).to_vec(), nodes.data(node).map(<[u8]>::to_vec))
        };
        assert_eq!(seen(&nodes), (b"name".to_vec(), None));
        let long = vec![7; 5_000];
        for data in [Some(&b""[..]), Some(b"long data"), Some(b"same size"), Some(&long), Some(&long[1..]), None] {
            nodes.set_data(slot as u32, data);
            assert_eq!(seen(&nodes), (b"name".to_vec(), data.map(<[u8]>::to_vec)));
        }
    }
}
