//! Writes a snapshot file of ours as ZooKeeper serializes a tree, without making a tree of it: a leader may have several
//! learners that need its whole state at once, and its memory should not hold it once more for each.
//!
//! The file has znodes in the order of their slots, each with its parent's slot; what is sent has their paths, parents
//! before children. So the file is read from its beginning to its end twice or more: once to know which znodes have
//! children, then to write each znode whose parent has been written. Parents mostly stand before their children; where one
//! does not (a slot that was free is used again, or the image was saved before its turn), its children wait for another
//! pass. There are no more passes than the tree has levels, and one.
//!
//! Memory: a few bits a znode, the paths of those that have children, one block of the file; the numbers of slots say nothing
//! about how much. Nothing is believed before its checksum is right. What doesn't fit together is an error, and then the end is missing in what was written.
//!
//! Runs on: whoever may block.

use super::encode::{SLICE, Tables, write_znode};
use super::{END, SNAP_SIGNATURE};
use crate::disk::{Disk, File};
use crate::fatal::Fatal;
use crate::random::{FastMap, FastSet};
use crate::snapshot::format::{Kind, corrupt};
use crate::snapshot::load::{Block, Opened};
use crate::tree::{Image, Progress};
use crate::wire::writer::Jute;
use std::io::{self, Write};
use std::path::Path;

/// Why a file was not written out.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Read(#[from] Fatal),
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Writes what follows the SNAP packet on the quorum port: the tree of this snapshot, and the signature; how many bytes that
/// were. Flushes nothing. Sessions and ACLs go out before the file's znodes are read, so that the other end hears something.
pub fn stream_snap<D: Disk>(disk: &D, path: &Path, out: &mut impl Write) -> Result<u64, StreamError> {
    let file = Opened::open(disk, path, false)?;
    let (mut acls, sessions) = file.read_tables()?;
    // The list that has no number on the wire.
    acls.retain(|&(number, _)| number != Image::OPEN_ACL);
    let known = acls.iter().map(|&(number, _)| number).collect();
    let mut slices = Slices { out, slice: Vec::new(), written: 0 };
    let mut tables = Tables::new(sessions);
    while tables.take(|| std::mem::take(&mut acls), SLICE, &mut slices.slice) == Progress::More {
        slices.write_full()?;
    }
    slices.write_full()?;
    let (parents, written) = (Slots::default(), Slots::default());
    let mut stream = Stream { known, has_root: false, parents, written, paths: FastMap::default() };
    each_image(&file, |_, image| {
        stream.parents.insert(image.parent);
        Ok(())
    })?;
    let mut left = file.header().nodes;
    while left > 0 {
        let before = left;
        each_image(&file, |block, image| {
            if stream.write(image, &mut slices.slice).or_else(|problem| corrupt(path, block.offset, problem))? {
                left = match left.checked_sub(1) {
                    Some(left) => left,
                    None => corrupt(path, block.offset, "more znodes than it says")?,
                };
                slices.write_full()?;
            }
            Ok(())
        })?;
        if left == before {
            return Ok(corrupt(path, 0, format!("{left} znodes without a parent, or missing"))?);
        }
    }
    slices.slice.put_text(END);
    slices.slice.extend_from_slice(SNAP_SIGNATURE);
    slices.flush()?;
    Ok(slices.written)
}

/// All images of a file, block by block.
fn each_image<F: File>(
    file: &Opened<'_, F>,
    mut visit: impl FnMut(&Block, &Image<'_>) -> Result<(), StreamError>,
) -> Result<(), StreamError> {
    for block in file.of_kind(Kind::Nodes) {
        let body = file.read_block(block)?;
        let mut rest = &body[..];
        while !rest.is_empty() {
            let Some((image, after)) = Image::read(rest) else {
                return Ok(corrupt(file.path(), block.offset, "not the image of a znode")?);
            };
            rest = after;
            visit(block, &image)?;
        }
    }
    Ok(())
}

/// Bytes that go out in large pieces.
struct Slices<'a, W> {
    out: &'a mut W,
    slice: Vec<u8>,
    written: u64,
}

impl<W: Write> Slices<'_, W> {
    fn write_full(&mut self) -> io::Result<()> {
        if self.slice.len() < SLICE { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.slice)?;
        self.written += self.slice.len() as u64;
        self.slice.clear();
        // The largest znode's room isn't kept.
        self.slice.shrink_to(2 * SLICE);
        Ok(())
    }
}

/// A set of slots: words of 64, of those that have any, so that a number that makes no sense costs no more than another.
#[derive(Default)]
struct Slots(FastMap<u32, u64>);

impl Slots {
    /// `false`: it was there. The root's parent is none.
    fn insert(&mut self, slot: u32) -> bool {
        if slot == u32::MAX {
            return false;
        }
        let (word, bit) = (self.0.entry(slot / 64).or_default(), 1 << (slot % 64));
        let was = *word & bit;
        *word |= bit;
        was == 0
    }

    fn contains(&self, slot: u32) -> bool {
        self.0.get(&(slot / 64)).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }
}

struct Stream {
    /// Numbers of the ACLs.
    known: FastSet<u32>,
    has_root: bool,
    /// Znodes that have children,
    parents: Slots,
    /// those that are written,
    written: Slots,
    /// and the paths of those that are both.
    paths: FastMap<u32, Box<str>>,
}

impl Stream {
    /// `true` if it is written now; `false` if it was before, or its parent is not yet.
    fn write(&mut self, image: &Image<'_>, out: &mut Vec<u8>) -> Result<bool, String> {
        if self.written.contains(image.slot) {
            return Ok(false);
        }
        let name = std::str::from_utf8(image.name).ok().filter(|name| !name.contains('/'));
        let path = match (name, image.is_root()) {
            (Some(""), true) if !std::mem::replace(&mut self.has_root, true) => String::new(),
            (_, true) => return Err("two roots, or one with a name".into()),
            (Some(name), false) if !name.is_empty() => match self.paths.get(&image.parent) {
                Some(parent) => [parent, name].join("/"),
                None => return Ok(false),
            },
            _ => return Err(format!("not a znode's name: {:?}", String::from_utf8_lossy(image.name))),
        };
        if image.acl != Image::OPEN_ACL && !self.known.contains(&image.acl) {
            return Err(format!("ACL {} is nowhere", image.acl));
        }
        if !self.written.insert(image.slot) {
            return Err("a slot that none can have".into());
        }
        let acl = (image.acl != Image::OPEN_ACL).then_some(image.acl);
        write_znode(&path, image.data, acl, &image.numbers, out);
        if self.parents.contains(image.slot) {
            self.paths.insert(image.slot, path.into());
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_slots_takes_room_for_what_is_in_it_and_not_for_how_large_the_numbers_are() {
        let mut slots = Slots::default();
        for slot in [0, 63, 64, u32::MAX - 1] {
            assert!(!slots.contains(slot));
            assert!(slots.insert(slot));
            assert!(!slots.insert(slot));
            assert!(slots.contains(slot));
        }
        assert!(!slots.insert(u32::MAX), "the root's parent");
        assert!(!slots.contains(1) && !slots.contains(u32::MAX - 2));
        assert_eq!(slots.0.len(), 3);
    }
}
