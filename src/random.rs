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
