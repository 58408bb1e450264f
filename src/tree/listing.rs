//! The names of a wide parent's children, encoded as a reply has them: what getChildren is answered with is copied, and not
//! gathered from a hundred thousand places all over the memory.
//!
//! In blocks of the order of the list of children, so that a child that comes or goes changes one or two blocks: it comes at
//! the end; where one goes the last one takes its place, as in the list. Kept only where it pays: a name stands twice then.
//!
//! The writer keeps it in step, readers copy.

use crate::wire::writer::Jute;
use std::ops::Range;

/// A listing is kept from so many children on, and given up below half as many.
pub(super) const WIDE: usize = 512;

/// Names of a block.
const BLOCK: usize = 64;

/// Names that are encoded in one go when many are: whole blocks.
pub(super) const PIECE: usize = 64 * BLOCK;

/// Encoded names by place.
#[derive(Default)]
pub(super) struct Listing {
    blocks: Vec<Vec<u8>>,
}

/// Appends a znode's name as text on the wire.
#[inline]
pub(super) fn put_name(name: &[u8], out: &mut Vec<u8>) {
    match name.is_ascii() {
        true => out.put_buffer(Some(name)),
        false => out.put_text(std::str::from_utf8(name).expect("names were text when they came in")),
    }
}

impl Listing {
    /// The name at the end; `place` is how many there are before it.
    pub(super) fn push(&mut self, place: usize, name: &[u8]) {
        if place.is_multiple_of(BLOCK) {
            // Names of one parent are mostly of one length.
            let like = self.blocks.last().map_or(0, Vec::len);
            self.blocks.push(Vec::with_capacity(like));
        }
        put_name(name, self.blocks.last_mut().expect("just made if it was not there"));
    }

    /// Puts what follows behind whole blocks.
    pub(super) fn append(&mut self, mut rest: Listing) {
        self.blocks.append(&mut rest.blocks);
    }

    /// The name at `place` goes, and the one at `last` takes its place.
    pub(super) fn swap_remove(&mut self, place: usize, last: usize) {
        let end = self.blocks.last_mut().expect("not empty");
        let start = entry(end, last % BLOCK).start;
        let moved = end.split_off(start);
        if start == 0 {
            self.blocks.pop();
        }
        if place == last {
            return;
        }
        let block = &mut self.blocks[place / BLOCK];
        let range = entry(block, place % BLOCK);
        if range.len() == moved.len() {
            block[range].copy_from_slice(&moved);
        } else {
            block.splice(range, moved);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }

    /// All names, a few kilobytes at a time.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().map(Vec::as_slice)
    }
}

/// Where the entry with this number is in a block.
fn entry(block: &[u8], number: usize) -> Range<usize> {
    let len = |at: usize| 4 + u32::from_be_bytes(block[at..at + 4].try_into().expect("four bytes")) as usize;
    let start = (0..number).fold(0, |at, _| at + len(at));
    start..start + len(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    #[test]
    fn a_listing_is_the_list_encoded_whatever_comes_and_goes() {
        let mut rng = Rng::new(5);
        let (mut listing, mut names): (Listing, Vec<String>) = (Listing::default(), Vec::new());
        for round in 0..6_000u64 {
            let grows = round / 1_000 % 2 == 0;
            if names.is_empty() || rng.below(4) < if grows { 3 } else { 1 } {
                // Some of another length, some that the wire has in other bytes.
                let name = match rng.below(8) {
                    0 => format!("n{round}"),
                    1 => format!("\u{1f980}{round:05}\u{e4}"),
                    _ => format!("member-{round:017}"),
                };
                listing.push(names.len(), name.as_bytes());
                names.push(name);
            } else {
                let place = rng.below(names.len() as u64) as usize;
                listing.swap_remove(place, names.len() - 1);
                names.swap_remove(place);
            }
            if round % 50 == 0 {
                let mut expected = Vec::new();
                names.iter().for_each(|name| expected.put_text(name));
                assert_eq!(listing.blocks().collect::<Vec<_>>().concat(), expected);
                assert_eq!(listing.len(), expected.len());
            }
        }
    }
}
