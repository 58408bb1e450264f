//! What the pipeline sees of a core's watches: counters that say for certain that nobody watches a path, so that it needn't
//! tell the core of changes that don't concern it.
//!
//! Only the core writes, and what it adds it adds under its part of the tree's lock; the pipeline reads under all of
//! them. The lock orders the two, so the counters themselves are relaxed. A connection that is closed takes its watches
//! away without a guard: the pipeline may see that late, and then tells the core of what concerns nobody. A counter that
//! has reached its maximum stays there.

use super::{Change, above, parent};
use crate::random::{hash_bytes, hash_word};
use crate::wire::client::EventKind;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// Counters of a core's watched paths and znodes: `might_watch` is false only if nobody watches.
pub struct WatchFilter {
    pub(super) places: Box<[AtomicU16]>,
    pub(super) recursive: Box<[AtomicU16]>,
    recursive_total: AtomicU32,
}

const FILTER_COUNTERS: usize = 1 << 17;
const FILTER_RECURSIVE: usize = 1 << 10;

/// What a filter needs to know of a change, computed once for all cores.
#[derive(Clone, Copy, Debug)]
pub struct PathHashes<'a> {
    path: &'a str,
    /// Of the path and of the znode; for one that is new, only the path's counts.
    own: u64,
    znode: Option<u64>,
    /// The same of the parent, whose children change; for a change of data it doesn't count.
    parent: Option<(u64, u64)>,
}

impl<'a> PathHashes<'a> {
    pub fn new(change: &Change<'a>) -> PathHashes<'a> {
        let above = if change.kind == EventKind::NodeDataChanged { None } else { parent(change.path) };
        PathHashes {
            path: change.path,
            own: hash_bytes(change.path.as_bytes()),
            znode: (change.kind != EventKind::NodeCreated).then(|| hash_word(change.znode)),
            parent: above.map(|parent| (hash_bytes(parent.as_bytes()), hash_word(change.parent))),
        }
    }
}

impl Default for WatchFilter {
    fn default() -> WatchFilter {
        let counters = |len| (0..len).map(|_| AtomicU16::new(0)).collect();
        WatchFilter {
            places: counters(FILTER_COUNTERS),
            recursive: counters(FILTER_RECURSIVE),
            recursive_total: AtomicU32::new(0),
        }
    }
}

impl WatchFilter {
    pub fn new() -> WatchFilter {
        WatchFilter::default()
    }

    /// Whether a change could have anyone to tell.
    #[inline]
    pub fn might_watch(&self, hashes: &PathHashes<'_>) -> bool {
        let counts = |hash: u64| self.places[hash as usize % FILTER_COUNTERS].load(Ordering::Relaxed) > 0;
        counts(hashes.own)
            || hashes.znode.is_some_and(counts)
            || hashes.parent.is_some_and(|(path, znode)| counts(path) || counts(znode))
            || (self.recursive_total.load(Ordering::Relaxed) > 0 && self.might_watch_above(hashes.path))
    }

    fn might_watch_above(&self, path: &str) -> bool {
        above(path).any(|(_, hash)| self.recursive[hash as usize % FILTER_RECURSIVE].load(Ordering::Relaxed) > 0)
    }

    /// A path or a znode has its first watcher, or has lost its last one.
    pub(super) fn place_changed(&self, hash: u64, up: bool) {
        step(&self.places[hash as usize % FILTER_COUNTERS], up);
    }

    /// A path has one recursive watch more, or one less.
    pub(super) fn recursive_changed(&self, hash: u64, up: bool) {
        step(&self.recursive[hash as usize % FILTER_RECURSIVE], up);
        let total = self.recursive_total.load(Ordering::Relaxed);
        self.recursive_total.store(if up { total + 1 } else { total - 1 }, Ordering::Relaxed);
    }
}

fn step(counter: &AtomicU16, up: bool) {
    let count = counter.load(Ordering::Relaxed);
    if count != u16::MAX {
        counter.store(if up { count + 1 } else { count - 1 }, Ordering::Relaxed);
    }
}
