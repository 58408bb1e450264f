//! One znode in memory, as small as it gets: a tree of a hundred million of them has to fit a machine.
//!
//! Name and data share one allocation; what most znodes don't have (children, an owner) is behind one pointer. A znode
//! whose name has 24 bytes and whose data 46 takes 96 bytes here and 80 for that allocation; its parent's list of
//! children and the index add about 14 (measured in `tests/tree_model.rs`).

use super::digest;
use crate::ids::{CONTAINER_OWNER, Owner, OwnerRules, Zxid};
use crate::wire::Stat;

/// Data is null, which is not the same as empty.
const NULL_DATA: u8 = 1;
/// The path begins with `/zookeeper/`: the tree's digest leaves it out.
const OUTSIDE_DIGEST: u8 = 2;

/// No slot: the root's parent.
pub(super) const NO_SLOT: u32 = u32::MAX;

pub(crate) struct Node {
    /// Name, then data.
    text: Box<[u8]>,
    pub(super) extra: Option<Box<Extra>>,
    pub(super) czxid: Zxid,
    pub(super) mzxid: Zxid,
    pub(super) ctime: i64,
    pub(super) mtime: i64,
    name_len: u32,
    pub(super) parent: u32,
    /// Where this znode stands in its parent's list of children.
    pub(super) place: u32,
    pub(super) acl: u32,
    /// CRC-32 of path and data: where the digest goes on when only the numbers change.
    pub(super) text_crc: u32,
    /// The znode's digest with its numbers as they are.
    pub(super) digest: u32,
    /// Hash of the whole path, by which the index finds the slot.
    pub(super) hash: u32,
    pub(super) version: i32,
    pub(super) aversion: i32,
    flags: u8,
}

/// What a leaf that never had a child and has no owner does without.
pub(super) struct Extra {
    pub(super) pzxid: Zxid,
    /// As stored in `ephemeralOwner`.
    pub(super) owner: i64,
    /// Slots, in no order.
    pub(super) children: Vec<u32>,
    pub(super) cversion: i32,
    /// Where this znode stands in the list of its owner.
    pub(super) owner_place: u32,
    /// Znodes anywhere below.
    pub(super) descendants: u32,
}

/// The numbers of a znode, as a snapshot or a digest needs them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Numbers {
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub pzxid: Zxid,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    /// As stored: children ever created.
    pub cversion: i32,
    pub aversion: i32,
    /// As stored, containers and TTLs included.
    pub owner: i64,
}

impl Node {
    /// A znode that hangs nowhere yet: `parent`, `place`, `hash` are for the tree to set.
    pub(super) fn new(name: &[u8], data: Option<&[u8]>, numbers: &Numbers, acl: u32) -> Node {
        let mut node = Node {
            text: joined(name, data.unwrap_or_default()),
            extra: None,
            czxid: numbers.czxid,
            mzxid: numbers.mzxid,
            ctime: numbers.ctime,
            mtime: numbers.mtime,
            name_len: u32::try_from(name.len()).expect("a name is shorter than a frame"),
            parent: NO_SLOT,
            place: 0,
            acl,
            text_crc: 0,
            digest: 0,
            hash: 0,
            version: numbers.version,
            aversion: numbers.aversion,
            flags: if data.is_none() { NULL_DATA } else { 0 },
        };
        if numbers.pzxid != numbers.czxid || numbers.cversion != 0 || numbers.owner != 0 {
            let extra = node.extra_mut();
            (extra.pzxid, extra.cversion, extra.owner) = (numbers.pzxid, numbers.cversion, numbers.owner);
        }
        node
    }

    #[inline]
    pub(super) fn name(&self) -> &[u8] {
        &self.text[..self.name_len as usize]
    }

    #[inline]
    pub(super) fn data(&self) -> Option<&[u8]> {
        if self.flags & NULL_DATA != 0 { None } else { Some(&self.text[self.name_len as usize..]) }
    }

    #[inline]
    pub(super) fn data_len(&self) -> usize {
        self.text.len() - self.name_len as usize
    }

    /// In place where the length stays.
    pub(super) fn set_data(&mut self, data: Option<&[u8]>) {
        self.flags = if data.is_none() { self.flags | NULL_DATA } else { self.flags & !NULL_DATA };
        let data = data.unwrap_or_default();
        if data.len() == self.data_len() {
            self.text[self.name_len as usize..].copy_from_slice(data);
        } else {
            self.text = joined(self.name(), data);
        }
    }

    pub(super) fn in_tree_digest(&self) -> bool {
        self.flags & OUTSIDE_DIGEST == 0
    }

    pub(super) fn leave_out_of_tree_digest(&mut self) {
        self.flags |= OUTSIDE_DIGEST;
    }

    pub(super) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_with(|| {
            Box::new(Extra {
                pzxid: self.czxid,
                owner: 0,
                children: Vec::new(),
                cversion: 0,
                owner_place: 0,
                descendants: 0,
            })
        })
    }

    #[inline]
    pub(super) fn pzxid(&self) -> Zxid {
        self.extra.as_ref().map_or(self.czxid, |extra| extra.pzxid)
    }

    #[inline]
    pub(super) fn cversion(&self) -> i32 {
        self.extra.as_ref().map_or(0, |extra| extra.cversion)
    }

    #[inline]
    pub(super) fn owner(&self) -> i64 {
        self.extra.as_ref().map_or(0, |extra| extra.owner)
    }

    #[inline]
    pub(super) fn children(&self) -> &[u32] {
        self.extra.as_ref().map_or(&[], |extra| &extra.children)
    }

    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            czxid: self.czxid,
            mzxid: self.mzxid,
            pzxid: self.pzxid(),
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion(),
            aversion: self.aversion,
            owner: self.owner(),
        }
    }

    /// The digest that belongs to `text_crc` and the numbers.
    pub(super) fn fresh_digest(&self) -> u32 {
        digest::finish(self.text_crc, &self.numbers())
    }

    #[inline]
    pub(super) fn stat(&self, rules: OwnerRules) -> Stat {
        let (pzxid, cversion, owner, children) = match &self.extra {
            None => (self.czxid, 0, 0, 0),
            Some(extra) => (extra.pzxid, extra.cversion, extra.owner, extra.children.len() as i32),
        };
        let shown = match owner {
            0 | CONTAINER_OWNER => 0,
            raw => Owner::from_stored(raw, rules).to_stat(),
        };
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: cversion.wrapping_mul(2).wrapping_sub(children),
            aversion: self.aversion,
            ephemeral_owner: shown,
            data_length: self.data_len() as i32,
            num_children: children,
            pzxid,
        }
    }
}

fn joined(name: &[u8], data: &[u8]) -> Box<[u8]> {
    let mut text = Vec::with_capacity(name.len() + data.len());
    text.extend_from_slice(name);
    text.extend_from_slice(data);
    text.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_96_bytes_and_its_extra_56() {
        assert_eq!(size_of::<Node>(), 96);
        assert_eq!(size_of::<Extra>(), 56);
    }

    #[test]
    fn null_and_empty_data_differ_and_a_change_keeps_the_name() {
        let mut node = Node::new(b"name", None, &Numbers::default(), 0);
        assert_eq!((node.name(), node.data()), (&b"name"[..], None));
        for data in [Some(&b""[..]), Some(b"long data"), Some(b"same size"), None] {
            node.set_data(data);
            assert_eq!((node.name(), node.data()), (&b"name"[..], data));
            assert_eq!(node.data_len(), data.map_or(0, <[u8]>::len));
        }
    }
}
