//! One core's table of watches: which of its connections want to hear of which path.
//!
//! A server may hold a million watches, most of them one-shot and alone on their path; each costs about 40 bytes beside
//! the path's own allocation. So a path is held once for both tables (data and child, client-protocol 4.1), its only
//! watcher is kept in place, and a connection's list of paths forgets lazily: triggering never searches it.
//!
//! `WatchFilter` is what the other side sees of it: counters that say for certain that nobody watches a path, so that
//! the pipeline needn't tell a core of changes that don't concern it.
//!
//! Knows connections by a number and sends nothing: `trigger` calls back for each event. ACLs are the caller's to check,
//! since a one-shot watch is used up even if its event is not for the watcher's eyes. Runs on its core.

use crate::random::{FastMap, hash_bytes};
use crate::wire::client::EventKind;
use hashbrown::HashTable;
use slab::Slab;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// A connection's number on its core.
pub type ConnectionId = u32;

/// What is registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchKind {
    /// exists, getData: one event.
    Data,
    /// getChildren: one event.
    Child,
    /// addWatch 0: data and children of one path, for good.
    Persistent,
    /// addWatch 1: data of a path and of everything below, for good.
    Recursive,
}

/// What checkWatches asks for and removeWatches removes (upstream: `WatcherType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchType {
    Children,
    Data,
    Any,
    Persistent,
    PersistentRecursive,
}

impl WatchType {
    /// `None` for a number that is no type.
    pub fn from_wire(raw: i32) -> Option<WatchType> {
        Some(match raw {
            1 => WatchType::Children,
            2 => WatchType::Data,
            3 => WatchType::Any,
            4 => WatchType::Persistent,
            5 => WatchType::PersistentRecursive,
            _ => return None,
        })
    }
}

/// Whose ACL decides whether a watcher may hear of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AclOf {
    /// Of the znode that was created, changed or deleted.
    Node,
    /// Of its parent.
    Parent,
}

// The modes of one connection at one path, in both tables.
const DATA: u8 = 1;
const DATA_PERSISTENT: u8 = 2;
const RECURSIVE: u8 = 4;
const CHILD: u8 = 8;
const CHILD_PERSISTENT: u8 = 16;
const IN_DATA_TABLE: u8 = DATA | DATA_PERSISTENT | RECURSIVE;
const IN_CHILD_TABLE: u8 = CHILD | CHILD_PERSISTENT;

struct Entry {
    path: Box<str>,
    /// The only watcher; or, where `modes` is 0, a slot of `crowds`.
    watcher: u32,
    modes: u8,
}

/// Watchers of a path that has several, ordered by number.
type Crowd = Vec<(ConnectionId, u8)>;

#[derive(Default)]
struct Watcher {
    /// Slots of paths; some may be outdated or there twice.
    slots: Vec<u32>,
    /// Paths at which it really is.
    live: u32,
    /// Paths at which it is in the data table.
    data_paths: u32,
    /// Has a watch in the data table or had one that fired: it counts as watching nothing then, as in ZooKeeper. Not
    /// after it has removed the last one by itself.
    had_data: bool,
}

const PARTS: usize = 16;

/// All watches of a core's connections.
pub struct WatchTable {
    entries: Slab<Entry>,
    crowds: Slab<Crowd>,
    index: [HashTable<u32>; PARTS],
    watchers: FastMap<ConnectionId, Watcher>,
    filter: Arc<WatchFilter>,
    /// Pairs of path and connection in each table.
    data_count: usize,
    child_count: usize,
    /// Pairs with a recursive watch; triggers walk up only if there are any.
    recursive_count: usize,
    hearers: Vec<ConnectionId>,
}

/// How many watchers a change met: in the data table, in the child table of the znode, in that of its parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Triggered {
    pub data: usize,
    pub child: usize,
    pub parent: usize,
}

/// `wchs` of one core: the data table only, as ZooKeeper counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    pub connections: usize,
    /// Of this core: another one may watch the same.
    pub paths: usize,
    pub watches: usize,
}

impl WatchTable {
    /// An empty table that keeps `filter` up to date.
    pub fn new(filter: Arc<WatchFilter>) -> WatchTable {
        WatchTable {
            entries: Slab::new(),
            crowds: Slab::new(),
            index: std::array::from_fn(|_| HashTable::new()),
            watchers: FastMap::default(),
            filter,
            data_count: 0,
            child_count: 0,
            recursive_count: 0,
            hearers: Vec::new(),
        }
    }

    /// Registers a watch; one that is there already is no news.
    pub fn add(&mut self, connection: ConnectionId, path: &str, kind: WatchKind) {
        let modes = match kind {
            WatchKind::Data => DATA,
            WatchKind::Child => CHILD,
            WatchKind::Persistent => DATA_PERSISTENT | CHILD_PERSISTENT,
            WatchKind::Recursive => RECURSIVE,
        };
        let hash = hash_bytes(path.as_bytes());
        match self.find(hash, path) {
            Some(slot) => {
                let old = self.modes(slot, connection);
                self.set_modes(slot, connection, old, old | modes);
            }
            None => {
                let entry = Entry { path: path.into(), watcher: connection, modes };
                let slot = u32::try_from(self.entries.insert(entry)).expect("fewer than four billion paths");
                let entries = &self.entries;
                let rehash = |&slot: &u32| hash_bytes(entries[slot as usize].path.as_bytes());
                self.index[part(hash)].insert_unique(hash, slot, rehash);
                self.filter.path_added(hash);
                self.note_change(slot, connection, 0, modes);
            }
        }
    }

    /// Reports what happened to the znode at `path` (`kind` is NodeCreated, NodeDeleted or NodeDataChanged): calls
    /// `deliver` for each event, in ZooKeeper's order (client-protocol 4.3), and uses up one-shot watches. `deliver` gets
    /// the connection, the kind and path of its event, and whose ACL counts.
    pub fn trigger(
        &mut self,
        kind: EventKind,
        path: &str,
        deliver: &mut impl FnMut(ConnectionId, EventKind, &str, AclOf),
    ) -> Triggered {
        let mut heard = Triggered::default();
        if self.entries.is_empty() {
            return heard;
        }
        let mut hearers = std::mem::take(&mut self.hearers);
        let own = self.find(hash_bytes(path.as_bytes()), path);
        if let Some(slot) = own {
            self.fire(slot, IN_DATA_TABLE, DATA, &mut hearers);
        }
        if self.recursive_count > 0 {
            self.recursive_above(path, &mut hearers);
        }
        hearers.iter().for_each(|&connection| deliver(connection, kind, path, AclOf::Node));
        heard.data = hearers.len();
        if kind == EventKind::NodeDeleted
            && let Some(slot) = self.find(hash_bytes(path.as_bytes()), path)
        {
            // Those who have just heard of it are not told twice.
            let told = hearers.len();
            hearers.sort_unstable();
            self.fire(slot, IN_CHILD_TABLE, CHILD, &mut hearers);
            heard.child = hearers.len() - told;
            for at in told..hearers.len() {
                if hearers[..told].binary_search(&hearers[at]).is_err() {
                    deliver(hearers[at], kind, path, AclOf::Node);
                }
            }
        }
        hearers.clear();
        if kind != EventKind::NodeDataChanged
            && let Some(parent) = parent(path)
            && let Some(slot) = self.find(hash_bytes(parent.as_bytes()), parent)
        {
            self.fire(slot, IN_CHILD_TABLE, CHILD, &mut hearers);
            let changed = EventKind::NodeChildrenChanged;
            hearers.iter().for_each(|&connection| deliver(connection, changed, parent, AclOf::Parent));
            heard.parent = hearers.len();
            hearers.clear();
        }
        self.hearers = hearers;
        heard
    }

    /// Whether the connection has such a watch at the path.
    pub fn check(&self, connection: ConnectionId, path: &str, what: WatchType) -> bool {
        let Some(slot) = self.find(hash_bytes(path.as_bytes()), path) else { return false };
        let modes = match what {
            WatchType::Persistent => DATA_PERSISTENT,
            other => modes_of(other),
        };
        self.modes(slot, connection) & modes != 0
    }

    /// Removes such watches; `false` if there were none.
    pub fn remove(&mut self, connection: ConnectionId, path: &str, what: WatchType) -> bool {
        let Some(slot) = self.find(hash_bytes(path.as_bytes()), path) else { return false };
        let old = self.modes(slot, connection);
        let new = old & !modes_of(what);
        self.set_modes(slot, connection, old, new);
        if old & !new & IN_DATA_TABLE != 0
            && let Some(watcher) = self.watchers.get_mut(&connection)
        {
            watcher.had_data = watcher.data_paths > 0;
        }
        self.shrink_list(connection);
        new != old
    }

    /// Forgets a connection, in time that depends only on how much it watched.
    pub fn close(&mut self, connection: ConnectionId) {
        let Some(watcher) = self.watchers.get_mut(&connection) else { return };
        for slot in std::mem::take(&mut watcher.slots) {
            if self.entries.contains(slot as usize) {
                let old = self.modes(slot, connection);
                self.set_modes(slot, connection, old, 0);
            }
        }
        self.watchers.remove(&connection);
    }

    /// Watches in both tables: pairs of path and connection in each.
    pub fn watch_count(&self) -> usize {
        self.data_count + self.child_count
    }

    /// Counts of the data table.
    pub fn summary(&self) -> Summary {
        Summary {
            connections: self.data_watchers().count(),
            paths: self.data_watches().count(),
            watches: self.data_count,
        }
    }

    /// Connections that have or had a watch in the data table, in no order: `wchc` names each, with or without paths.
    pub fn data_watchers(&self) -> impl Iterator<Item = ConnectionId> {
        self.watchers.iter().filter(|(_, watcher)| watcher.had_data).map(|(connection, _)| *connection)
    }

    /// The data table by path, for `wchp` (and, turned around, for `wchc`), in no order.
    pub fn data_watches(&self) -> impl Iterator<Item = (&str, Vec<ConnectionId>)> {
        self.entries.iter().filter_map(|(slot, entry)| {
            let mut connections = Vec::new();
            self.each(slot as u32, |connection, modes| {
                if modes & IN_DATA_TABLE != 0 {
                    connections.push(connection);
                }
            });
            (!connections.is_empty()).then_some((&*entry.path, connections))
        })
    }

    fn find(&self, hash: u64, path: &str) -> Option<u32> {
        self.index[part(hash)].find(hash, |&slot| *self.entries[slot as usize].path == *path).copied()
    }

    fn each(&self, slot: u32, mut visit: impl FnMut(ConnectionId, u8)) {
        let entry = &self.entries[slot as usize];
        if entry.modes != 0 {
            visit(entry.watcher, entry.modes);
        } else {
            self.crowds[entry.watcher as usize].iter().for_each(|&(connection, modes)| visit(connection, modes));
        }
    }

    fn modes(&self, slot: u32, connection: ConnectionId) -> u8 {
        let entry = &self.entries[slot as usize];
        if entry.modes != 0 {
            return if entry.watcher == connection { entry.modes } else { 0 };
        }
        let crowd = &self.crowds[entry.watcher as usize];
        crowd.binary_search_by_key(&connection, |&(other, _)| other).map_or(0, |at| crowd[at].1)
    }

    /// Appends the connections with one of `modes` at a path, and takes `used_up` from them.
    fn fire(&mut self, slot: u32, modes: u8, used_up: u8, hearers: &mut Vec<ConnectionId>) {
        let from = hearers.len();
        let mut any_used_up = false;
        self.each(slot, |connection, has| {
            if has & modes != 0 {
                hearers.push(connection);
                any_used_up |= has & used_up != 0;
            }
        });
        if !any_used_up {
            return;
        }
        let entry = &mut self.entries[slot as usize];
        if entry.modes != 0 {
            let (connection, old) = (entry.watcher, entry.modes);
            self.set_modes(slot, connection, old, old & !used_up);
            self.shrink_list(connection);
            return;
        }
        // A whole crowd at once: one at a time would move the rest of it each time.
        let crowd_slot = entry.watcher as usize;
        let mut crowd = std::mem::take(&mut self.crowds[crowd_slot]);
        crowd.retain_mut(|(connection, has)| {
            let old = *has;
            *has &= !used_up;
            if *has != old {
                self.note_change(slot, *connection, old, *has);
            }
            *has != 0
        });
        self.crowds[crowd_slot] = crowd;
        self.thin_out(slot);
        for &connection in &hearers[from..] {
            self.shrink_list(connection);
        }
    }

    /// Adds the connections that watch an ancestor recursively and aren't among the hearers yet.
    fn recursive_above(&self, path: &str, hearers: &mut Vec<ConnectionId>) {
        let own = hearers.len();
        let mut below = path;
        while let Some(above) = parent(below) {
            if let Some(slot) = self.find(hash_bytes(above.as_bytes()), above) {
                self.each(slot, |connection, modes| {
                    if modes & RECURSIVE != 0 {
                        hearers.push(connection);
                    }
                });
            }
            below = above;
        }
        if hearers.len() > own {
            hearers.sort_unstable();
            hearers.dedup();
        }
    }

    /// Changes what one connection has at a path; at 0 it is gone, and the path with its last watcher.
    fn set_modes(&mut self, slot: u32, connection: ConnectionId, old: u8, new: u8) {
        if old == new {
            return;
        }
        let entry = &mut self.entries[slot as usize];
        if entry.modes != 0 && entry.watcher == connection {
            if new == 0 {
                self.note_change(slot, connection, old, 0);
                self.forget_path(slot);
                return;
            }
            entry.modes = new;
        } else {
            if entry.modes != 0 {
                let alone = vec![(entry.watcher, entry.modes)];
                entry.modes = 0;
                entry.watcher = self.crowds.insert(alone) as u32;
            }
            let crowd = &mut self.crowds[entry.watcher as usize];
            match (crowd.binary_search_by_key(&connection, |&(other, _)| other), new) {
                (Ok(at), 0) => drop(crowd.remove(at)),
                (Ok(at), _) => crowd[at].1 = new,
                (Err(at), _) => crowd.insert(at, (connection, new)),
            }
        }
        self.note_change(slot, connection, old, new);
        self.thin_out(slot);
    }

    /// After a crowd lost members: one or none isn't a crowd.
    fn thin_out(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        if entry.modes != 0 {
            return;
        }
        let crowd_slot = entry.watcher as usize;
        let crowd = &mut self.crowds[crowd_slot];
        match crowd[..] {
            [] => {
                self.crowds.remove(crowd_slot);
                // So that it no longer names a crowd; nobody has this number at this path.
                entry.modes = DATA;
                self.forget_path(slot);
            }
            [(connection, modes)] => {
                (entry.watcher, entry.modes) = (connection, modes);
                self.crowds.remove(crowd_slot);
            }
            _ if crowd.len() < crowd.capacity() / 4 => crowd.shrink_to_fit(),
            _ => {}
        }
    }

    fn forget_path(&mut self, slot: u32) {
        let hash = hash_bytes(self.entries[slot as usize].path.as_bytes());
        let found = self.index[part(hash)].find_entry(hash, |&other| other == slot);
        found.expect("every path is in the index").remove();
        self.entries.remove(slot as usize);
        self.filter.path_removed(hash);
    }

    /// Keeps the counts and the connection's list in step with what `set_modes` did.
    fn note_change(&mut self, slot: u32, connection: ConnectionId, old: u8, new: u8) {
        let watcher = self.watchers.entry(connection).or_default();
        let step = |modes: u8| ((old & modes != 0) as usize, (new & modes != 0) as usize);
        let (before, after) = step(IN_DATA_TABLE);
        self.data_count = self.data_count + after - before;
        watcher.data_paths = watcher.data_paths + after as u32 - before as u32;
        watcher.had_data |= after > 0;
        let (before, after) = step(IN_CHILD_TABLE);
        self.child_count = self.child_count + after - before;
        let (before, after) = step(RECURSIVE);
        self.recursive_count = self.recursive_count + after - before;
        if before != after {
            let path = &self.entries[slot as usize].path;
            self.filter.recursive_changed(hash_bytes(path.as_bytes()), after > before);
        }
        if old == 0 {
            watcher.live += 1;
            watcher.slots.push(slot);
        } else if new == 0 {
            watcher.live -= 1;
        }
    }

    /// Once most of a connection's list is outdated, what is left is written anew: so it costs nothing much a watch.
    fn shrink_list(&mut self, connection: ConnectionId) {
        let Some(watcher) = self.watchers.get_mut(&connection) else { return };
        if watcher.slots.len() <= 2 * watcher.live as usize + 32 {
            return;
        }
        let mut slots = std::mem::take(&mut watcher.slots);
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|&slot| self.entries.contains(slot as usize) && self.modes(slot, connection) != 0);
        slots.shrink_to(2 * slots.len());
        let watcher = self.watchers.get_mut(&connection).expect("it was there");
        assert!(slots.len() == watcher.live as usize);
        watcher.slots = slots;
    }
}

fn modes_of(what: WatchType) -> u8 {
    match what {
        WatchType::Children => CHILD,
        WatchType::Data => DATA,
        WatchType::Any => IN_DATA_TABLE | IN_CHILD_TABLE,
        WatchType::Persistent => DATA_PERSISTENT | CHILD_PERSISTENT,
        WatchType::PersistentRecursive => RECURSIVE,
    }
}

fn part(hash: u64) -> usize {
    // Bits that hashbrown doesn't look at first.
    (hash >> 48) as usize % PARTS
}

/// `None` for the root, and for what is no path at all.
fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() > 1 => Some("/"),
        0 => None,
        at => Some(&path[..at]),
    }
}

/// Counters of a core's watched paths that the pipeline reads: `might_watch` is false only if nobody watches.
///
/// Only the core writes, under its part of the tree's lock, and the pipeline reads under all of them; the lock orders
/// the two, so the counters themselves are relaxed. One that has reached its maximum stays there.
pub struct WatchFilter {
    paths: Box<[AtomicU16]>,
    recursive: Box<[AtomicU16]>,
    recursive_total: AtomicU32,
}

const FILTER_COUNTERS: usize = 1 << 17;
const FILTER_RECURSIVE: usize = 1 << 10;

/// What a filter needs to know of a path, computed once for all cores.
#[derive(Clone, Copy, Debug)]
pub struct PathHashes<'a> {
    path: &'a str,
    own: u64,
    /// Of the parent, whose children change; for a change of data it doesn't count.
    parent: Option<u64>,
}

impl<'a> PathHashes<'a> {
    /// For a trigger of this kind.
    pub fn new(kind: EventKind, path: &'a str) -> PathHashes<'a> {
        let parent = if kind == EventKind::NodeDataChanged { None } else { parent(path) };
        PathHashes {
            path,
            own: hash_bytes(path.as_bytes()),
            parent: parent.map(|parent| hash_bytes(parent.as_bytes())),
        }
    }
}

impl Default for WatchFilter {
    fn default() -> WatchFilter {
        let counters = |len| (0..len).map(|_| AtomicU16::new(0)).collect();
        WatchFilter {
            paths: counters(FILTER_COUNTERS),
            recursive: counters(FILTER_RECURSIVE),
            recursive_total: AtomicU32::new(0),
        }
    }
}

impl WatchFilter {
    pub fn new() -> WatchFilter {
        WatchFilter::default()
    }

    /// Whether a trigger could have anyone to tell.
    #[inline]
    pub fn might_watch(&self, hashes: &PathHashes<'_>) -> bool {
        let counts = |hash: u64| self.paths[hash as usize % FILTER_COUNTERS].load(Ordering::Relaxed) > 0;
        counts(hashes.own)
            || hashes.parent.is_some_and(counts)
            || (self.recursive_total.load(Ordering::Relaxed) > 0 && self.might_watch_above(hashes.path))
    }

    fn might_watch_above(&self, path: &str) -> bool {
        std::iter::successors(parent(path), |path| parent(path)).any(|above| {
            let hash = hash_bytes(above.as_bytes());
            self.recursive[hash as usize % FILTER_RECURSIVE].load(Ordering::Relaxed) > 0
        })
    }

    fn path_added(&self, hash: u64) {
        step(&self.paths[hash as usize % FILTER_COUNTERS], true);
    }

    fn path_removed(&self, hash: u64) {
        step(&self.paths[hash as usize % FILTER_COUNTERS], false);
    }

    fn recursive_changed(&self, hash: u64, up: bool) {
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

#[cfg(test)]
mod tests;
