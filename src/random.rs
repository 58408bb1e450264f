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
    let seed = seed();
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(seed, |hash, word| hash_on(seed, hash, word));
    hash_end(seed, hash, rest, bytes.len())
}

const K: u64 = 0x9e37_79b9_7f4a_7c15;

/// Two words into one, by a product of which both halves count.
#[inline]
pub fn fold(a: u64, b: u64) -> u64 {
    let wide = a as u128 * b as u128;
    wide as u64 ^ (wide >> 64) as u64
}

#[inline]
fn hash_on(seed: u64, hash: u64, word: &[u8; 8]) -> u64 {
    fold(hash ^ u64::from_le_bytes(*word), K ^ seed.rotate_left(32))
}

/// The length counts at the end only, so that whatever begins alike has the way up to there in common.
#[inline]
fn hash_end(seed: u64, hash: u64, rest: &[u8], len: usize) -> u64 {
    // Up to seven bytes as a word, some of them twice, so that nothing is copied.
    let last = match rest {
        [a, b, c, d, ..] => {
            let [.., w, x, y, z] = rest else { unreachable!("four at least") };
            u64::from_le_bytes([*a, *b, *c, *d, *w, *x, *y, *z])
        }
        [] => 0,
        [first, .., last] => u64::from_le_bytes([*first, rest[1], *last, 0, 0, 0, 0, 0]),
        [only] => *only as u64,
    };
    fold(hash ^ last, seed.rotate_left(17) ^ (len as u64).wrapping_mul(K))
}

/// `hash_bytes` of one beginning of a byte string after the other, together in the time of the longest.
pub struct PrefixHashes<'a> {
    words: &'a [[u8; 8]],
    rest: &'a [u8],
    hashed: usize,
    hash: u64,
}

impl<'a> PrefixHashes<'a> {
    pub fn new(bytes: &'a [u8]) -> PrefixHashes<'a> {
        let (words, rest) = bytes.as_chunks();
        PrefixHashes { words, rest, hashed: 0, hash: seed() }
    }

    /// Of the first `len` bytes: not fewer than the last time.
    pub fn of(&mut self, len: usize) -> u64 {
        let seed = seed();
        let words = &self.words[self.hashed..len / 8];
        self.hash = words.iter().fold(self.hash, |hash, word| hash_on(seed, hash, word));
        self.hashed = len / 8;
        let partial = self.words.get(self.hashed).map_or(self.rest, |word| word);
        hash_end(seed, self.hash, &partial[..len % 8], len)
    }
}

/// The same for one word, such as a number that a table is keyed by.
#[inline]
pub fn hash_word(word: u32) -> u64 {
    fold(seed() ^ word as u64, K)
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
        self.0 = (self.0 ^ hash_bytes(bytes)).wrapping_mul(K).rotate_left(29);
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word, K);
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
    use std::collections::HashSet;

    #[test]
    fn a_beginning_hashes_alone_as_it_does_on_the_way_to_the_end() {
        let mut rng = Rng::new(1);
        for len in 0..80 {
            let bytes: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
            let mut hashes = PrefixHashes::new(&bytes);
            for len in (0..=len).filter(|_| rng.below(3) > 0) {
                assert_eq!(hashes.of(len), hash_bytes(&bytes[..len]));
                assert_eq!(hashes.of(len), hash_bytes(&bytes[..len]), "again");
            }
        }
    }

    #[test]
    fn every_byte_makes_another_hash() {
        let mut hashes = HashSet::new();
        for len in 0..30 {
            let mut bytes = vec![0; len];
            assert!(hashes.insert(hash_bytes(&bytes)));
            for at in 0..len {
                for byte in [1, 2, 255] {
                    bytes[at] = byte;
                    assert!(hashes.insert(hash_bytes(&bytes)), "{bytes:?}");
                }
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn every_hash_has_a_part_and_no_part_is_twice_as_large_as_another() {
        let mut sizes = [0usize; PARTS];
        (0..1 << 16).for_each(|high: u32| sizes[part_of(high << 16 | 0xffff)] += 1);
        assert_eq!((part_of(0), part_of(u32::MAX)), (0, PARTS - 1));
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(*least > 0 && *most < 2 * least && *most > least * 3 / 2, "{least} to {most}");
    }
}
