//! Names and data of all znodes, packed into chunks: no allocation of its own for each, and so no header, no pointer of
//! sixteen bytes, and no rounding to what an allocator likes. For the usual znode that is a sixth of all it takes.
//!
//! A chunk has places of one size: multiples of eight bytes up to 256, from there on steps of an eighth. What is longer than
//! `LARGE` is allocated alone. A freed place is the next one to be used; a chunk that is empty is given back, so a tree that
//! has shrunk takes less. What a handle means, together with the length, only its holder knows.
//!
//! Runs wherever the tree does; the writer changes it, readers look.

use slab::Slab;
use std::num::NonZeroU32;

/// A handle counts places of this size.
const GRANULE: usize = 8;
const CHUNK_BYTES: usize = 64 << 10;
const CHUNK_GRANULES: usize = CHUNK_BYTES / GRANULE;
const LARGE: usize = 2048;
const CLASSES: usize = 56;

/// Marks a handle of something large.
const IS_LARGE: u32 = 1 << 31;
/// Sixteen gigabytes; beyond them everything is treated as large.
const CHUNKS_MAX: usize = IS_LARGE as usize / CHUNK_GRANULES - 1;

/// No free place.
const NONE: u16 = u16::MAX;

/// Where a text is. Not zero, so that a slab of what holds it needs no room to say what is vacant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Handle(NonZeroU32);

impl Handle {
    /// Of no text: nobody may look there.
    pub(super) const NOWHERE: Handle = Handle(NonZeroU32::MAX);

    fn small(chunk: usize, offset: usize) -> Handle {
        let place = (chunk * CHUNK_GRANULES + offset / GRANULE) as u32 + 1;
        Handle(NonZeroU32::new(place).expect("one was added"))
    }

    /// Of a part of the texts, what it is in the whole (`Texts::whole`).
    pub(super) fn in_whole(self, part: usize, parts: usize) -> Handle {
        match self.resolve() {
            Ok(number) => Handle::large(number * parts + part),
            Err((chunk, offset)) => Handle::small(chunk * parts + part, offset),
        }
    }

    fn large(number: usize) -> Handle {
        assert!(number < (IS_LARGE - 1) as usize, "two billion large texts don't fit a machine");
        Handle(NonZeroU32::new(IS_LARGE | number as u32).expect("the highest bit is set"))
    }

    /// The number of something large; else the chunk and the offset in it.
    #[inline]
    fn resolve(self) -> Result<usize, (usize, usize)> {
        let raw = self.0.get();
        if raw & IS_LARGE != 0 {
            return Ok((raw & !IS_LARGE) as usize);
        }
        let place = (raw - 1) as usize;
        Err((place / CHUNK_GRANULES, place % CHUNK_GRANULES * GRANULE))
    }
}

struct Chunk {
    /// Grows to its capacity as places are used for the first time.
    bytes: Vec<u8>,
    class: u8,
    /// The free place that was freed last, in granules; each begins with the one freed before it.
    free: u16,
    live: u16,
}

impl Chunk {
    fn vacant() -> Chunk {
        Chunk { bytes: Vec::new(), class: 0, free: NONE, live: 0 }
    }
}

pub(super) struct Texts {
    chunks: Vec<Chunk>,
    chunks_max: usize,
    /// Chunks without memory, of no class.
    vacant: Vec<u32>,
    /// For each class the chunks with room; the last one is used.
    room: [Vec<u32>; CLASSES],
    large: Slab<Box<[u8]>>,
}

fn class_of(len: usize) -> usize {
    match len {
        0..=256 => len.div_ceil(8).max(1) - 1,
        _ => {
            let doublings = (len - 1).ilog2() as usize;
            32 + (doublings - 8) * 8 + ((len - 1) >> (doublings - 3)) - 8
        }
    }
}

/// Bytes of a place.
fn class_bytes(class: usize) -> usize {
    match class {
        0..32 => (class + 1) * 8,
        _ => (9 + (class - 32) % 8) << (5 + (class - 32) / 8),
    }
}

fn class_places(class: usize) -> usize {
    CHUNK_BYTES / class_bytes(class)
}

impl Texts {
    pub(super) fn new() -> Texts {
        Texts::part_of(1)
    }

    /// One of so many parts that are filled apart, each by a thread of its own, and become a whole. Handles of a part become
    /// those of the whole by `Handle::in_whole`.
    pub(super) fn part_of(parts: usize) -> Texts {
        Texts {
            chunks: Vec::new(),
            chunks_max: CHUNKS_MAX / parts,
            vacant: Vec::new(),
            room: std::array::from_fn(|_| Vec::new()),
            large: Slab::new(),
        }
    }

    /// Puts parts together: their chunks in turn, so that nobody has to know how many the others have.
    pub(super) fn whole(parts: Vec<Texts>) -> Texts {
        let count = parts.len();
        let longest = parts.iter().map(|part| part.chunks.len()).max().unwrap_or(0);
        let mut whole = Texts::new();
        let (mut chunks, mut large) = (Vec::new(), Vec::new());
        for (at, part) in parts.into_iter().enumerate() {
            let number = |number: u32| number * count as u32 + at as u32;
            for (of_whole, of_part) in whole.room.iter_mut().zip(part.room) {
                of_whole.extend(of_part.into_iter().map(number));
            }
            whole.vacant.extend(part.vacant.into_iter().map(number));
            whole.vacant.extend((part.chunks.len() as u32..longest as u32).map(number));
            large.extend(part.large.into_iter().map(|(number, text)| (number * count + at, text)));
            chunks.push(part.chunks.into_iter());
        }
        whole.chunks.reserve_exact(longest * count);
        for _ in 0..longest {
            whole.chunks.extend(chunks.iter_mut().map(|chunks| chunks.next().unwrap_or_else(Chunk::vacant)));
        }
        whole.large = large.into_iter().collect();
        whole
    }

    /// The bytes that were inserted under this handle, `len` of them.
    #[inline]
    pub(super) fn get(&self, handle: Handle, len: usize) -> &[u8] {
        match handle.resolve() {
            Err((chunk, offset)) => &self.chunks[chunk].bytes[offset..offset + len],
            Ok(large) => &self.large[large][..len],
        }
    }

    fn get_mut(&mut self, handle: Handle, len: usize) -> &mut [u8] {
        match handle.resolve() {
            Err((chunk, offset)) => &mut self.chunks[chunk].bytes[offset..offset + len],
            Ok(large) => &mut self.large[large][..len],
        }
    }

    /// Keeps `head` and `tail`, one behind the other.
    pub(super) fn insert(&mut self, head: &[u8], tail: &[u8]) -> Handle {
        let len = head.len() + tail.len();
        let class = class_of(len.min(LARGE));
        let Some(number) = (len <= LARGE).then(|| self.chunk_with_room(class)).flatten() else {
            return Handle::large(self.large.insert([head, tail].concat().into_boxed_slice()));
        };
        let chunk = &mut self.chunks[number];
        let offset = if chunk.free == NONE {
            let offset = chunk.bytes.len();
            chunk.bytes.extend_from_slice(head);
            chunk.bytes.extend_from_slice(tail);
            chunk.bytes.resize(offset + class_bytes(class), 0);
            offset
        } else {
            let offset = chunk.free as usize * GRANULE;
            let place = &mut chunk.bytes[offset..];
            chunk.free = u16::from_le_bytes([place[0], place[1]]);
            place[..head.len()].copy_from_slice(head);
            place[head.len()..len].copy_from_slice(tail);
            offset
        };
        chunk.live += 1;
        if chunk.live as usize == class_places(class) {
            let full = self.room[class].pop();
            assert!(full == Some(number as u32));
        }
        Handle::small(number, offset)
    }

    /// `None` when all handles are used up.
    fn chunk_with_room(&mut self, class: usize) -> Option<usize> {
        if let Some(&number) = self.room[class].last() {
            return Some(number as usize);
        }
        let bytes = Vec::with_capacity(class_places(class) * class_bytes(class));
        let chunk = Chunk { bytes, class: class as u8, free: NONE, live: 0 };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.chunks[number as usize] = chunk;
                number
            }
            None if self.chunks.len() >= self.chunks_max => return None,
            None => {
                self.chunks.push(chunk);
                self.chunks.len() as u32 - 1
            }
        };
        self.room[class].push(number);
        Some(number as usize)
    }

    /// Forgets what was inserted under this handle.
    pub(super) fn remove(&mut self, handle: Handle) {
        let (number, offset) = match handle.resolve() {
            Ok(large) => return drop(self.large.remove(large)),
            Err(place) => place,
        };
        let chunk = &mut self.chunks[number];
        let class = chunk.class as usize;
        let was_full = chunk.live as usize == class_places(class);
        chunk.bytes[offset..offset + 2].copy_from_slice(&chunk.free.to_le_bytes());
        chunk.free = (offset / GRANULE) as u16;
        chunk.live -= 1;
        let room = &mut self.room[class];
        if was_full {
            room.push(number as u32);
        }
        // One is kept, so that the same znode made and deleted again and again costs nothing here.
        if chunk.live == 0 && room.len() > 1 {
            chunk.bytes = Vec::new();
            chunk.free = NONE;
            let at = room.iter().rposition(|&other| other == number as u32).expect("an empty chunk has room");
            room.swap_remove(at);
            self.vacant.push(number as u32);
        }
    }

    /// Another tail for the `head_len` bytes before it; in place where it fits as well. `len` is the old length.
    pub(super) fn set_tail(&mut self, handle: Handle, len: usize, head_len: usize, tail: &[u8]) -> Handle {
        let new_len = head_len + tail.len();
        let fits = match handle.resolve() {
            Err(_) => new_len <= LARGE && class_of(new_len) == class_of(len),
            Ok(_) => new_len == len,
        };
        if fits {
            self.get_mut(handle, new_len)[head_len..].copy_from_slice(tail);
            return handle;
        }
        let head = self.get(handle, head_len).to_vec();
        self.remove(handle);
        self.insert(&head, tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    #[test]
    fn a_class_is_the_smallest_that_fits_and_none_wastes_more_than_an_eighth_or_seven_bytes() {
        for len in 0..=LARGE {
            let class = class_of(len);
            let bytes = class_bytes(class);
            assert!(bytes >= len && bytes.is_multiple_of(GRANULE) && class < CLASSES, "{len}");
            assert!(class == 0 || class_bytes(class - 1) < len, "{len}");
            assert!(bytes - len <= (len / 8).max(8), "{len}: {bytes}");
            assert!(class_places(class) * bytes <= CHUNK_BYTES);
        }
        assert_eq!(class_of(LARGE), CLASSES - 1);
    }

    #[test]
    fn parts_that_were_filled_apart_become_a_whole_with_all_texts_which_goes_on_as_any() {
        for parts in [1, 2, 3] {
            let mut rng = Rng::new(parts as u64);
            let mut model: Vec<(Handle, Vec<u8>)> = Vec::new();
            let mut filled = Vec::new();
            for part in 0..parts {
                let mut texts = Texts::part_of(parts);
                // One has nothing, one more than the others.
                for _ in 0..part * 3_000 {
                    let len = if rng.below(50) == 0 { rng.below(5_000) } else { rng.below(300) } as usize;
                    let text: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
                    let handle = texts.insert(&text[..len / 3], &text[len / 3..]);
                    match rng.below(10) {
                        0 => texts.remove(handle),
                        _ => model.push((handle.in_whole(part, parts), text)),
                    }
                }
                filled.push(texts);
            }
            let mut whole = Texts::whole(filled);
            let chunks = whole.chunks.len();
            for _ in 0..1_000 {
                let text = [9; 100];
                model.push((whole.insert(&text[..4], &text[4..]), text.to_vec()));
            }
            assert!(parts == 1 || whole.chunks.len() == chunks, "the places that nobody had are used first");
            assert!(model.iter().all(|(handle, text)| whole.get(*handle, text.len()) == text));
            model.drain(..).for_each(|(handle, _)| whole.remove(handle));
            assert!(whole.chunks.iter().all(|chunk| chunk.live == 0) && whole.large.is_empty());
        }
    }

    #[test]
    fn texts_come_back_as_they_were_however_they_come_and_go() {
        for seed in 0..8 {
            let mut rng = Rng::new(seed);
            let mut texts = Texts::new();
            let mut model: Vec<(Handle, Vec<u8>, usize)> = Vec::new();
            for round in 0..20_000 {
                // Grows, then shrinks, and again.
                let grows = round / 5_000 % 2 == 0;
                let len = if rng.below(50) == 0 { rng.below(5_000) } else { rng.below(300) } as usize;
                let text: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
                match rng.below(4) {
                    0 if !model.is_empty() => {
                        let at = rng.below(model.len() as u64) as usize;
                        let (handle, old, head_len) = &mut model[at];
                        *handle = texts.set_tail(*handle, old.len(), *head_len, &text);
                        old.truncate(*head_len);
                        old.extend_from_slice(&text);
                    }
                    1 | 2 if grows => {
                        let head_len = rng.below(len as u64 + 1) as usize;
                        let handle = texts.insert(&text[..head_len], &text[head_len..]);
                        model.push((handle, text, head_len));
                    }
                    1..4 if !grows && !model.is_empty() => {
                        let (handle, _, _) = model.swap_remove(rng.below(model.len() as u64) as usize);
                        texts.remove(handle);
                    }
                    _ => {}
                }
                if round % 500 == 0 {
                    assert!(model.iter().all(|(handle, text, _)| texts.get(*handle, text.len()) == text));
                }
            }
            model.drain(..).for_each(|(handle, _, _)| texts.remove(handle));
            let kept = texts.chunks.iter().filter(|chunk| chunk.bytes.capacity() > 0).count();
            assert!(kept <= CLASSES && texts.large.is_empty(), "{kept}");
            assert!(texts.chunks.iter().all(|chunk| chunk.live == 0));
        }
    }
}
