//! The only source of chance, and the hash function of every table.
//!
//! Hash tables whose keys a client chooses need a seed that the client can't guess; the simulator needs the same seed
//! again. So the seed is drawn (or set) once, before any table exists, and every table uses `Hasher`.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

static SEED: OnceLock<u64> = OnceLock::new();

/// Fixes the seed for this process. For tests and the simulator; `false` if a seed has already been drawn.
pub fn set_seed(seed: u64) -> bool {
    SEED.set(seed).is_ok()
}

/// The seed of this process, drawn from the operating system unless `set_seed` came first.
pub fn seed() -> u64 {
    *SEED.get_or_init(|| RandomState::new().hash_one(0x6f73_746c_6572_u64))
}

/// A small deterministic generator (SplitMix64, Steele et al. 2014) for jitter and tests. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    #[expect(clippy::should_implement_trait, reason = "it never ends, and a caller should see no Option")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`; `bound` must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }
}

/// Seeded hash of a byte string: eight bytes a step, multiply and fold. Keyed by the process's seed, so that a client
/// can't aim at one bucket.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    #[inline]
    fn fold(a: u64, b: u64) -> u64 {
        let wide = a as u128 * b as u128;
        wide as u64 ^ (wide >> 64) as u64
    }
    let seed = seed();
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(K);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
        hash = fold(hash ^ word, K ^ seed.rotate_left(32));
    }
    let mut last = [0u8; 8];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    fold(hash ^ u64::from_le_bytes(last), K ^ seed.rotate_left(17))
}

/// The same for one word, such as a number that a table is keyed by.
#[inline]
pub fn hash_word(word: u32) -> u64 {
    let wide = (seed() ^ word as u64) as u128 * 0x9e37_79b9_7f4a_7c15_u128;
    wide as u64 ^ (wide >> 64) as u64
}

/// How many parts a large table is cut into; see `part_of`.
pub const PARTS: usize = 64;

/// Which part of a large table a hash belongs to.
///
/// A table in parts grows a part at a time, so that nothing stands still while a hundred million entries move at once.
/// The parts' shares differ, from one to nearly two: as each doubles when it is full, they do so at different times, and
/// all of them together are always about as full, instead of half empty at one size and full at the next.
#[inline]
pub fn part_of(hash: u32) -> usize {
    PART_OF_SHARE[((hash as u64 * SHARES as u64) >> 32) as usize] as usize
}

const fn shares(part: usize) -> usize {
    8 + part / 8
}

const SHARES: usize = {
    let (mut sum, mut part) = (0, 0);
    while part < PARTS {
        sum += shares(part);
        part += 1;
    }
    sum
};

static PART_OF_SHARE: [u8; SHARES] = {
    let mut table = [0; SHARES];
    let (mut at, mut part) = (0, 0);
    while part < PARTS {
        let end = at + shares(part);
        while at < end {
            table[at] = part as u8;
            at += 1;
        }
        part += 1;
    }
    table
};

/// `BuildHasher` for hashbrown tables, over `hash_bytes`' mixing.
#[derive(Clone, Copy, Default, Debug)]
pub struct Hasher;

/// State of one hash computation by `Hasher`.
pub struct HasherState(u64);

impl BuildHasher for Hasher {
    type Hasher = HasherState;
    fn build_hasher(&self) -> HasherState {
        HasherState(seed())
    }
}

impl std::hash::Hasher for HasherState {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = (self.0 ^ hash_bytes(bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    fn write_u64(&mut self, word: u64) {
        let wide = (self.0 ^ word) as u128 * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = wide as u64 ^ (wide >> 64) as u64;
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(word as u64);
    }
    fn write_i64(&mut self, word: i64) {
        self.write_u64(word as u64);
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The map of this crate: hashbrown's, with a seed that can be fixed.
pub type FastMap<K, V> = hashbrown::HashMap<K, V, Hasher>;
/// The set of this crate.
pub type FastSet<K> = hashbrown::HashSet<K, Hasher>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_has_a_part_and_no_part_is_twice_as_large_as_another() {
        let mut sizes = [0usize; PARTS];
        (0..1 << 16).for_each(|high: u32| sizes[part_of(high << 16 | 0xffff)] += 1);
        assert_eq!((part_of(0), part_of(u32::MAX)), (0, PARTS - 1));
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(*least > 0 && *most < 2 * least && *most > least * 3 / 2, "{least} to {most}");
    }
}
