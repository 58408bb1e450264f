//! One znode in memory, as small as it gets: a tree of a hundred million of them has to fit a machine.
//!
//! Name and data lie elsewhere, packed (`text`); what most znodes don't have (children, an owner, an ACL that was changed) is
//! behind one pointer. A znode whose name has 24 bytes and whose data 46 takes 80 bytes here and 72 there; its parent's list of
//! children and the index add about 13 (measured in `tests/memory.rs`).

use super::digest;
use super::listing::Listing;
use super::text::Handle;
use crate::ids::{CONTAINER_OWNER, Owner, OwnerRules, Zxid};
use crate::wire::Stat;

/// Data is null, which is not the same as empty.
const NULL_DATA: u32 = 1 << 31;
/// The path begins with `/zookeeper/`: the tree's digest leaves it out.
const OUTSIDE_DIGEST: u32 = 1 << 30;
const NAME_LEN: u32 = OUTSIDE_DIGEST - 1;
const _: () = assert!(NAME_LEN as usize + 1 >= crate::limits::PATH_MAX);

/// No slot: the root's parent.
pub(super) const NO_SLOT: u32 = u32::MAX;

pub(crate) struct Node {
    pub(super) extra: Option<Box<Extra>>,
    pub(super) czxid: Zxid,
    pub(super) mzxid: Zxid,
    pub(super) ctime: i64,
    pub(super) mtime: i64,
    /// Name, then data; for `Nodes` to set.
    pub(super) text: Handle,
    /// And the flags above it.
    name_len: u32,
    data_len: u32,
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
}

/// What a leaf that never had a child, another ACL or an owner does without.
pub(super) struct Extra {
    pub(super) pzxid: Zxid,
    /// As stored in `ephemeralOwner`.
    pub(super) owner: i64,
    /// Slots, in no order; changed by `Nodes`, and set by a load (`link`).
    pub(super) children: Vec<u32>,
    /// Their names, encoded, if they are many.
    pub(super) listing: Option<Box<Listing>>,
    pub(super) cversion: i32,
    aversion: i32,
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
    /// A znode that hangs nowhere yet: `parent`, `place`, `hash` are for the tree to set, and `text` for `Nodes`, which
    /// take name and data again.
    pub(super) fn new(name: &[u8], data: Option<&[u8]>, numbers: &Numbers, acl: u32) -> Node {
        assert!(name.len() <= NAME_LEN as usize, "a name is shorter than a path may be");
        let mut node = Node {
            extra: None,
            czxid: numbers.czxid,
            mzxid: numbers.mzxid,
            ctime: numbers.ctime,
            mtime: numbers.mtime,
            text: Handle::NOWHERE,
            name_len: name.len() as u32,
            data_len: 0,
            parent: NO_SLOT,
            place: 0,
            acl,
            text_crc: 0,
            digest: 0,
            hash: 0,
            version: numbers.version,
        };
        node.note_data(data);
        node.set_aversion(numbers.aversion);
        if numbers.pzxid != numbers.czxid || numbers.cversion != 0 || numbers.owner != 0 {
            let extra = node.extra_mut();
            (extra.pzxid, extra.cversion, extra.owner) = (numbers.pzxid, numbers.cversion, numbers.owner);
        }
        node
    }

    #[inline]
    pub(super) fn name_len(&self) -> usize {
        (self.name_len & NAME_LEN) as usize
    }

    #[inline]
    pub(super) fn data_len(&self) -> usize {
        self.data_len as usize
    }

    #[inline]
    pub(super) fn has_null_data(&self) -> bool {
        self.name_len & NULL_DATA != 0
    }

    /// Whether it was made with this name, and has data like this.
    pub(super) fn is_of(&self, name: &[u8], data: Option<&[u8]>) -> bool {
        let data_fits = self.data_len() == data.map_or(0, <[u8]>::len) && self.has_null_data() == data.is_none();
        self.name_len() == name.len() && data_fits
    }

    /// After its data has become this.
    pub(super) fn note_data(&mut self, data: Option<&[u8]>) {
        self.name_len = if data.is_none() { self.name_len | NULL_DATA } else { self.name_len & !NULL_DATA };
        self.data_len = u32::try_from(data.map_or(0, <[u8]>::len)).expect("data is shorter than a frame");
    }

    #[inline]
    pub(super) fn aversion(&self) -> i32 {
        self.extra.as_ref().map_or(0, |extra| extra.aversion)
    }

    pub(super) fn set_aversion(&mut self, aversion: i32) {
        if aversion != self.aversion() {
            self.extra_mut().aversion = aversion;
        }
    }

    pub(super) fn in_tree_digest(&self) -> bool {
        self.name_len & OUTSIDE_DIGEST == 0
    }

    pub(super) fn leave_out_of_tree_digest(&mut self) {
        self.name_len |= OUTSIDE_DIGEST;
    }

    pub(super) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_with(|| {
            Box::new(Extra {
                pzxid: self.czxid,
                owner: 0,
                children: Vec::new(),
                listing: None,
                cversion: 0,
                aversion: 0,
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

    /// How many znodes are anywhere below.
    pub(super) fn descendants(&self) -> u32 {
        self.extra.as_ref().map_or(0, |extra| extra.descendants)
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
            aversion: self.aversion(),
            owner: self.owner(),
        }
    }

    /// The digest that belongs to `text_crc` and the numbers.
    pub(super) fn fresh_digest(&self) -> u32 {
        digest::finish(self.text_crc, &self.numbers())
    }

    #[inline]
    pub(super) fn stat(&self, rules: OwnerRules) -> Stat {
        let (pzxid, cversion, aversion, owner, children) = match &self.extra {
            None => (self.czxid, 0, 0, 0, 0),
            Some(extra) => (extra.pzxid, extra.cversion, extra.aversion, extra.owner, extra.children.len() as i32),
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
            aversion,
            ephemeral_owner: shown,
            data_length: self.data_len() as i32,
            num_children: children,
            pzxid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_80_bytes_in_a_slab_too_and_its_extra_64() {
        assert_eq!((size_of::<Node>(), size_of::<Option<Node>>()), (80, 80));
        assert_eq!(size_of::<Extra>(), 64);
    }
}
