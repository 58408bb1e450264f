//! The znodes by their slots, with their names and data, which lie elsewhere (`text`).

use super::node::Node;
use super::text::Texts;
use slab::Slab;
use std::ops::{Index, IndexMut};

/// Every znode of a tree.
pub(super) struct Nodes {
    slab: Slab<Node>,
    texts: Texts,
}

impl Nodes {
    pub(super) fn new() -> Nodes {
        Nodes { slab: Slab::new(), texts: Texts::new() }
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

    pub(super) fn iter(&self) -> slab::Iter<'_, Node> {
        self.slab.iter()
    }

    /// Takes in a znode that was made with this name and this data; gives it a slot.
    pub(super) fn insert(&mut self, mut node: Node, name: &[u8], data: Option<&[u8]>) -> usize {
        node.text = self.texts.insert(name, data.unwrap_or_default());
        assert!(node.is_of(name, data));
        self.slab.insert(node)
    }

    /// Puts another znode into a slot.
    pub(super) fn replace(&mut self, slot: u32, mut node: Node, name: &[u8], data: Option<&[u8]>) {
        node.text = self.texts.insert(name, data.unwrap_or_default());
        assert!(node.is_of(name, data));
        let old = std::mem::replace(&mut self.slab[slot as usize], node);
        self.texts.remove(old.text);
    }

    /// Takes a znode out; its name and its data are gone.
    pub(super) fn remove(&mut self, slot: u32) -> Node {
        let node = self.slab.remove(slot as usize);
        self.texts.remove(node.text);
        node
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
