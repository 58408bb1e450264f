//! An exact image of the tree at one zxid, read in slices while the pipeline goes on changing the tree.
//!
//! The snapshotter walks the slots with a cursor. What the pipeline is about to change or remove before the cursor has
//! come by is saved first, as it was; what is born ahead of the cursor is marked and passed over. So reader and writer
//! never wait for each other, and nothing is copied but what changes. The image of a znode holds all there is to know
//! (the parent by its slot, so that a path isn't written a hundred times).
//!
//! The pipeline watches `frozen_bytes` and waits for the snapshotter above `limits::SNAPSHOT_SAVED_BYTES`. Numbers of
//! ACLs are not freed while an image is being taken.
//!
//! Who runs what: `begin_freeze` by whoever has any access at the moment that counts; saving by the pipeline, inside
//! `apply`; the rest by the snapshotter, which has `&Tree` a slice at a time.

use super::acl::NumberedAcl;
use super::node::{NO_SLOT, Numbers};
use super::nodes::Nodes;
use super::{Tree, digest};
use crate::ids::Zxid;
use std::sync::atomic::Ordering;

/// Slots that one slice looks at, at most, however few znodes it finds there.
const SLICE_SLOTS: usize = 4096;

/// What stands still: the tree's state when the freeze began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frozen {
    pub zxid: Zxid,
    pub digest: u64,
    /// How many images there will be.
    pub nodes: u64,
}

/// Whether there is more to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    More,
    Done,
}

pub(super) struct Freeze {
    /// Slots below have been visited.
    cursor: usize,
    /// Slots from here on didn't exist yet.
    end: usize,
    /// One bit a slot: don't visit, it is saved already or was born later.
    settled: Vec<u64>,
    /// Images of what changed before it was visited.
    saved: Vec<u8>,
}

impl Freeze {
    fn ahead(&self, slot: usize) -> bool {
        slot >= self.cursor && slot < self.end
    }

    fn is_settled(&self, slot: usize) -> bool {
        self.settled.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    fn settle(&mut self, slot: usize) {
        if self.settled.len() <= slot / 64 {
            self.settled.resize(slot / 64 + 1, 0);
        }
        self.settled[slot / 64] |= 1 << (slot % 64);
    }

    #[inline]
    pub(super) fn save_before_change(&mut self, slot: u32, nodes: &Nodes) {
        let at = slot as usize;
        if self.ahead(at) && !self.is_settled(at) {
            self.settle(at);
            Image::of(slot, nodes).write(&mut self.saved);
        }
    }

    pub(super) fn saved_bytes(&self) -> usize {
        self.saved.len()
    }

    pub(super) fn born(&mut self, slot: u32) {
        if self.ahead(slot as usize) {
            self.settle(slot as usize);
        }
    }
}

impl Tree {
    /// Freezes the image of this moment. One at a time.
    pub fn begin_freeze(&self) -> Frozen {
        let mut freeze = self.freeze.lock();
        assert!(freeze.is_none(), "one snapshot at a time");
        *freeze = Some(Box::new(Freeze { cursor: 0, end: self.nodes.slots(), settled: Vec::new(), saved: Vec::new() }));
        Frozen { zxid: self.zxid, digest: self.digest, nodes: self.nodes.len() as u64 }
    }

    /// Bytes of images that were saved and not fetched yet; 0 when nothing is frozen. Waits for nobody.
    pub fn frozen_bytes(&self) -> usize {
        self.saved_bytes.load(Ordering::SeqCst)
    }

    /// Appends the next images to `out`, whole ones, until there are about `bytes` more. Bounded work.
    pub fn read_frozen(&self, bytes: usize, out: &mut Vec<u8>) -> Progress {
        let mut guard = self.freeze.lock();
        let freeze = guard.as_mut().expect("begun before");
        let full = out.len() + bytes;
        if out.is_empty() {
            std::mem::swap(out, &mut freeze.saved);
        } else {
            out.append(&mut freeze.saved);
        }
        self.saved_bytes.store(0, Ordering::SeqCst);
        let stop = freeze.end.min(freeze.cursor + SLICE_SLOTS);
        while freeze.cursor < stop && out.len() < full {
            let slot = freeze.cursor;
            freeze.cursor += 1;
            if freeze.is_settled(slot) {
                continue;
            }
            if self.nodes.contains(slot as u32) {
                Image::of(slot as u32, &self.nodes).write(out);
            }
        }
        // Once the cursor has passed, nothing is saved any more.
        if freeze.cursor == freeze.end { Progress::Done } else { Progress::More }
    }

    /// The ACLs with numbers `from..from + count`, and whether there may be more. The images may name any of them, and
    /// some may be named by none.
    pub fn frozen_acls(&self, from: u32, count: u32) -> (Vec<NumberedAcl>, Progress) {
        assert!(self.freeze.lock().is_some(), "else they could be freed");
        let acls = self.acls.range(from, count);
        (acls, if self.acls.ends_before(from.saturating_add(count)) { Progress::Done } else { Progress::More })
    }

    /// Lets go of the image, finished or not. Nothing happens if nothing is frozen.
    pub fn end_freeze(&self) {
        *self.freeze.lock() = None;
        self.saved_bytes.store(0, Ordering::SeqCst);
    }
}

const NULL_DATA: u8 = 1;
/// pzxid, cversion and owner follow; else they are czxid, 0 and 0.
const FULL: u8 = 2;

/// A znode as it stands in a snapshot. Little-endian; docs/snapshot-format.md has the layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image<'a> {
    /// Its number, by which its children name it.
    pub slot: u32,
    /// The parent's slot; the root's is u32::MAX.
    pub parent: u32,
    /// Number of its access control list.
    pub acl: u32,
    /// CRC-32 of path and data.
    pub text_crc: u32,
    pub numbers: Numbers,
    pub name: &'a [u8],
    pub data: Option<&'a [u8]>,
}

impl<'a> Image<'a> {
    fn of(slot: u32, nodes: &'a Nodes) -> Image<'a> {
        let node = &nodes[slot as usize];
        Image {
            slot,
            parent: node.parent,
            acl: node.acl,
            text_crc: node.text_crc,
            numbers: node.numbers(),
            name: nodes.name(node),
            data: nodes.data(node),
        }
    }

    /// No image is shorter.
    pub const BYTES_MIN: usize = 65;

    /// The number of the list that nearly all znodes have: `world:anyone` with all permissions.
    pub const OPEN_ACL: u32 = super::acl::OPEN;

    pub fn is_root(&self) -> bool {
        self.parent == NO_SLOT
    }

    /// The digest of the znode (quorum-protocol 7.2).
    pub fn digest(&self) -> u32 {
        digest::finish(self.text_crc, &self.numbers)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let n = &self.numbers;
        let full = n.pzxid != n.czxid || n.cversion != 0 || n.owner != 0;
        let data = self.data.unwrap_or_default();
        let flags = if self.data.is_none() { NULL_DATA } else { 0 } | if full { FULL } else { 0 };
        for word in [self.slot, self.parent, self.acl, self.text_crc, n.version as u32, n.aversion as u32] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [n.czxid.0, n.mzxid.0, n.ctime as u64, n.mtime as u64] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&(self.name.len() as u32).to_le_bytes());
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.push(flags);
        if full {
            out.extend_from_slice(&n.pzxid.0.to_le_bytes());
            out.extend_from_slice(&n.owner.to_le_bytes());
            out.extend_from_slice(&n.cversion.to_le_bytes());
        }
        out.extend_from_slice(self.name);
        out.extend_from_slice(data);
    }

    /// The first image of `bytes`, and what follows it. `None` if it isn't whole or says what none can say.
    pub fn read(bytes: &'a [u8]) -> Option<(Image<'a>, &'a [u8])> {
        let mut r = Fields(bytes);
        let (slot, parent, acl, text_crc) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        let (version, aversion) = (r.u32()? as i32, r.u32()? as i32);
        let (czxid, mzxid) = (Zxid(r.u64()?), Zxid(r.u64()?));
        let (ctime, mtime) = (r.u64()? as i64, r.u64()? as i64);
        let (name_len, data_len) = (r.u32()? as usize, r.u32()? as usize);
        let flags = r.take(1)?[0];
        if flags & !(NULL_DATA | FULL) != 0 || (flags & NULL_DATA != 0 && data_len != 0) {
            return None;
        }
        let (pzxid, owner, cversion) =
            if flags & FULL != 0 { (Zxid(r.u64()?), r.u64()? as i64, r.u32()? as i32) } else { (czxid, 0, 0) };
        let name = r.take(name_len)?;
        let data = r.take(data_len)?;
        let numbers = Numbers { czxid, mzxid, pzxid, ctime, mtime, version, cversion, aversion, owner };
        let data = (flags & NULL_DATA == 0).then_some(data);
        Some((Image { slot, parent, acl, text_crc, numbers, name, data }, r.0))
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_survives_its_bytes_and_no_truncation_is_one() {
        let short =
            Numbers { czxid: Zxid(7), mzxid: Zxid(9), pzxid: Zxid(7), ctime: -1, mtime: 5, ..Numbers::default() };
        let long = Numbers { pzxid: Zxid(8), cversion: -3, aversion: -1, version: 4, owner: i64::MIN, ..short };
        for numbers in [short, long] {
            for data in [None, Some(&b""[..]), Some(b"data")] {
                let image = Image { slot: 3, parent: NO_SLOT, acl: 1, text_crc: 77, numbers, name: b"name", data };
                let mut bytes = Vec::new();
                image.write(&mut bytes);
                for len in 0..bytes.len() {
                    assert_eq!(Image::read(&bytes[..len]), None);
                }
                bytes.push(0xaa);
                assert_eq!(Image::read(&bytes), Some((image, &[0xaa][..])));
            }
        }
    }
}
