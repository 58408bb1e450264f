//! One core's table of watches: which of its connections want to hear of which path.
//!
//! A server may hold a million watches, most of them one-shot, on a znode that exists, and alone there; each costs under
//! 25 bytes (`tests/memory.rs`). So they hang on the znode's number rather than on its path (`places`), both kinds (data
//! and child, client-protocol 4.1) in one word, and a connection's list of places forgets lazily: triggering never
//! searches it. Everything that one connection watches at one path is in one place, so that pairs can be counted.
//!
//! Numbers of znodes mean what they mean in the tree because a core sees every change in order: it reads the tree only
//! when all changes up to there have been triggered, and the end of a znode uses up what hangs on its number.
//!
//! `WatchFilter` is what the pipeline sees of it. Knows connections by a number and sends nothing: `trigger` calls back
//! for each event. ACLs are the caller's to check, since a one-shot watch is used up even if its event is not for the
//! watcher's eyes. Runs on its core.

mod filter;
mod places;

pub use filter::{PathHashes, WatchFilter};

use crate::random::{FastMap, PrefixHashes};
use crate::wire::client::EventKind;
use places::{Place, Places, Who};
use std::borrow::Cow;
use std::sync::Arc;

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

/// Where watches hang.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At<'t> {
    Path(&'t str),
    /// Its number in the tree.
    Znode(u32),
}

/// A change of the tree that watchers may have to hear of.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// NodeCreated, NodeDeleted or NodeDataChanged.
    pub kind: EventKind,
    pub path: &'a str,
    /// The number that the znode has in the tree, or had.
    pub znode: u32,
    /// Its parent's; means nothing for a change of data, or of the root.
    pub parent: u32,
}

// The modes of one connection at one place, in both tables.
const DATA: u8 = 1;
const DATA_PERSISTENT: u8 = 2;
const RECURSIVE: u8 = 4;
const CHILD: u8 = 8;
const CHILD_PERSISTENT: u8 = 16;
const IN_DATA_TABLE: u8 = DATA | DATA_PERSISTENT | RECURSIVE;
const IN_CHILD_TABLE: u8 = CHILD | CHILD_PERSISTENT;

/// Bytes that a watch counts as: 25 at most are measured (`tests/memory.rs`).
const WATCH_BYTES: usize = 32;
/// Bytes that a path counts as beside its text, where a watch hangs on one.
const PATH_BYTES: usize = 64;

/// A connection watches as much as it may; nothing has been registered.
#[derive(Debug)]
pub struct Full;

#[derive(Default)]
struct Watcher {
    /// Places, each kind by its number; some may be outdated or there twice.
    paths: Vec<u32>,
    znodes: Vec<u32>,
    /// Places at which it really is.
    live: u32,
    /// What those count as; a path that others watch, too, counts for each.
    bytes: usize,
    /// Places at which it is in the data table.
    data_places: u32,
    /// Has a watch in the data table or had one that fired: it counts as watching nothing then, as in ZooKeeper. Not
    /// after it has removed the last one by itself.
    had_data: bool,
}

impl Watcher {
    fn list(&mut self, place: Place) {
        let (list, number) = match place {
            Place::Path(number) => (&mut self.paths, number),
            Place::Znode(number) => (&mut self.znodes, number),
        };
        if list.len() == list.capacity() {
            // A quarter more, not twice as much: there are as many of these as watches.
            list.reserve_exact((list.len() / 4).max(4));
        }
        list.push(number);
    }
}

/// All watches of a core's connections.
pub struct WatchTable {
    places: Places,
    watchers: FastMap<ConnectionId, Watcher>,
    filter: Arc<WatchFilter>,
    /// Pairs of path and connection in each table.
    data_count: usize,
    child_count: usize,
    /// Pairs with a recursive watch; triggers walk up only if there are any.
    recursive_count: usize,
    /// What the watches of one connection may count as.
    connection_bytes: usize,
    /// No connection's have ever counted as more: until that is near the limit, `add` need not look.
    most_bytes: usize,
    hearers: Vec<ConnectionId>,
}

/// How many watchers a change met: in the data table, in the child table of the znode, in that of its parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Triggered {
    pub data: usize,
    pub child: usize,
    pub parent: usize,
}

impl WatchTable {
    /// An empty table that keeps `filter` up to date. `connection_bytes`: what the watches of one connection may take, paths
    /// of znodes that are not there included.
    pub fn new(filter: Arc<WatchFilter>, connection_bytes: usize) -> WatchTable {
        WatchTable {
            places: Places::new(),
            watchers: FastMap::default(),
            filter,
            data_count: 0,
            child_count: 0,
            recursive_count: 0,
            connection_bytes,
            most_bytes: 0,
            hearers: Vec::new(),
        }
    }

    /// Registers a watch; one that is there already is no news. `znode` is the number of the znode that the path names
    /// now, if there is one; a path that is only another name of a znode, as "" is of the root, goes without.
    pub fn add(
        &mut self,
        connection: ConnectionId,
        path: &str,
        znode: Option<u32>,
        kind: WatchKind,
    ) -> Result<(), Full> {
        let (modes, is_one_shot) = match kind {
            WatchKind::Data => (DATA, true),
            WatchKind::Child => (CHILD, true),
            WatchKind::Persistent => (DATA_PERSISTENT | CHILD_PERSISTENT, false),
            WatchKind::Recursive => (RECURSIVE, false),
        };
        let on_znode = znode.filter(|_| is_one_shot);
        let bytes = WATCH_BYTES + if on_znode.is_some() { 0 } else { PATH_BYTES + path.len() };
        if self.most_bytes + bytes > self.connection_bytes {
            self.find_room(connection, path, znode, bytes)?;
        }
        if let Some(znode) = on_znode {
            self.add_at_znode(connection, path, znode, modes);
            return Ok(());
        }
        match self.place_of(connection, path, znode) {
            Some((place @ Place::Path(_), old)) => self.set_modes(place, connection, old, old | modes),
            // What stays for good needs the path, and what the connection has there already goes with it.
            Some((place, old)) => {
                self.set_modes(place, connection, old, 0);
                self.add_at_path(connection, path, old | modes);
            }
            None => self.add_at_path(connection, path, modes),
        }
        Ok(())
    }

    /// Whether the connection has room for what a watch adds to what it has at the path.
    #[cold]
    fn find_room(&self, connection: ConnectionId, path: &str, znode: Option<u32>, bytes: usize) -> Result<(), Full> {
        let has = self.watchers.get(&connection).map_or(0, |watcher| watcher.bytes);
        let added = match self.place_of(connection, path, znode) {
            None => bytes,
            Some((Place::Path(_), _)) => 0,
            Some((Place::Znode(_), _)) => bytes - WATCH_BYTES,
        };
        if has + added <= self.connection_bytes { Ok(()) } else { Err(Full) }
    }

    /// Makes room for so many one-shot watches more: their list grows once, and not by a quarter many times.
    pub fn expect(&mut self, connection: ConnectionId, one_shot: usize) {
        if one_shot > 0 {
            self.watchers.entry(connection).or_default().znodes.reserve_exact(one_shot);
        }
    }

    /// A one-shot watch on a znode that is there: a client that comes back has hundreds of them.
    fn add_at_znode(&mut self, connection: ConnectionId, path: &str, znode: u32, modes: u8) {
        if let Some(place) = self.places.find(path) {
            let old = self.places.modes(place, connection);
            if old != 0 {
                self.set_modes(place, connection, old, old | modes);
                return;
            }
        }
        let (old, is_first) = self.places.add_at_znode(znode, connection, modes);
        let place = Place::Znode(znode);
        if is_first {
            self.filter.place_changed(self.places.hash(place), true);
        }
        if old | modes != old {
            self.note_change(place, connection, old, old | modes);
        }
    }

    /// Where the connection has nothing so far.
    fn add_at_path(&mut self, connection: ConnectionId, path: &str, modes: u8) {
        match self.places.find(path) {
            Some(place) => self.set_modes(place, connection, 0, modes),
            None => {
                let place = self.places.insert_path(path, Who::only(connection, modes));
                self.filter.place_changed(self.places.hash(place), true);
                self.note_change(place, connection, 0, modes);
            }
        }
    }

    /// The one place where the connection has something of a path, and what.
    fn place_of(&self, connection: ConnectionId, path: &str, znode: Option<u32>) -> Option<(Place, u8)> {
        let at = |place: Place| match self.places.modes(place, connection) {
            0 => None,
            modes => Some((place, modes)),
        };
        znode.and_then(|znode| at(Place::Znode(znode))).or_else(|| self.places.find(path).and_then(at))
    }

    /// Reports what happened to a znode: calls `deliver` for each event, in ZooKeeper's order (client-protocol 4.3), and
    /// uses up one-shot watches. `deliver` gets the connection, the kind and path of its event, and whose ACL counts.
    pub fn trigger(
        &mut self,
        change: &Change<'_>,
        deliver: &mut impl FnMut(ConnectionId, EventKind, &str, AclOf),
    ) -> Triggered {
        let Change { kind, path, znode, parent: parent_znode } = *change;
        let mut heard = Triggered::default();
        if self.watchers.is_empty() {
            return heard;
        }
        let mut hearers = std::mem::take(&mut self.hearers);
        // Nothing hangs on a new znode yet, nor on one under another name.
        let is_old = kind != EventKind::NodeCreated && !path.is_empty();
        let own = [self.places.find(path), is_old.then_some(Place::Znode(znode))];
        for place in own.into_iter().flatten() {
            self.fire(place, IN_DATA_TABLE, DATA, &mut hearers);
        }
        if self.recursive_count > 0 {
            self.recursive_above(path, &mut hearers);
        }
        hearers.iter().for_each(|&connection| deliver(connection, kind, path, AclOf::Node));
        heard.data = hearers.len();
        if kind == EventKind::NodeDeleted {
            // Those who have just heard of it are not told twice.
            let told = hearers.len();
            hearers.sort_unstable();
            // Again: the path may have gone with its last watch.
            for place in [self.places.find(path), Some(Place::Znode(znode))].into_iter().flatten() {
                self.fire(place, IN_CHILD_TABLE, CHILD, &mut hearers);
            }
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
        {
            for place in [self.places.find(parent), Some(Place::Znode(parent_znode))].into_iter().flatten() {
                self.fire(place, IN_CHILD_TABLE, CHILD, &mut hearers);
            }
            let changed = EventKind::NodeChildrenChanged;
            hearers.iter().for_each(|&connection| deliver(connection, changed, parent, AclOf::Parent));
            heard.parent = hearers.len();
            hearers.clear();
        }
        self.hearers = hearers;
        heard
    }

    /// Whether the connection has such a watch at the path. `znode` as in `add`.
    pub fn check(&self, connection: ConnectionId, path: &str, znode: Option<u32>, what: WatchType) -> bool {
        let modes = match what {
            WatchType::Persistent => DATA_PERSISTENT,
            other => modes_of(other),
        };
        self.place_of(connection, path, znode).is_some_and(|(_, has)| has & modes != 0)
    }

    /// Removes such watches; `false` if there were none. `znode` as in `add`.
    pub fn remove(&mut self, connection: ConnectionId, path: &str, znode: Option<u32>, what: WatchType) -> bool {
        let Some((place, old)) = self.place_of(connection, path, znode) else { return false };
        let new = old & !modes_of(what);
        self.set_modes(place, connection, old, new);
        if old & !new & IN_DATA_TABLE != 0
            && let Some(watcher) = self.watchers.get_mut(&connection)
        {
            watcher.had_data = watcher.data_places > 0;
        }
        self.shrink_list(connection);
        new != old
    }

    /// Forgets a connection, in time that depends only on how much it watched.
    pub fn close(&mut self, connection: ConnectionId) {
        let Some(watcher) = self.watchers.get_mut(&connection) else { return };
        let (paths, znodes) = (std::mem::take(&mut watcher.paths), std::mem::take(&mut watcher.znodes));
        for place in paths.into_iter().map(Place::Path).chain(znodes.into_iter().map(Place::Znode)) {
            let old = self.places.modes(place, connection);
            self.set_modes(place, connection, old, 0);
        }
        self.watchers.remove(&connection);
    }

    /// Watches in both tables: pairs of path and connection in each.
    pub fn watch_count(&self) -> usize {
        self.data_count + self.child_count
    }

    /// Watches in the data table.
    #[cfg(test)]
    fn data_watch_count(&self) -> usize {
        self.data_count
    }

    /// Connections that have or had a watch in the data table, in no order: `wchc` names each, with or without paths.
    pub fn data_watchers(&self) -> impl Iterator<Item = ConnectionId> {
        self.watchers.iter().filter(|(_, watcher)| watcher.had_data).map(|(connection, _)| *connection)
    }

    /// The data table by path, for `wchp` (and, turned around, for `wchc`), in no order; a path may come twice, with
    /// other connections. `path_of` gives the path of a znode's number.
    pub fn data_watches<'t>(
        &'t self,
        path_of: impl Fn(u32) -> Option<String> + 't,
    ) -> impl Iterator<Item = (Cow<'t, str>, Vec<ConnectionId>)> {
        self.data_places().filter_map(move |(at, connections)| match at {
            At::Path(path) => Some((Cow::Borrowed(path), connections)),
            At::Znode(znode) => Some((Cow::Owned(path_of(znode)?), connections)),
        })
    }

    /// The same without the paths of znodes, which take long to put together.
    pub fn data_places(&self) -> impl Iterator<Item = (At<'_>, Vec<ConnectionId>)> {
        let connections = |place| {
            let mut connections = Vec::new();
            self.places.each(place, |connection, modes| {
                if modes & IN_DATA_TABLE != 0 {
                    connections.push(connection);
                }
            });
            (!connections.is_empty()).then_some(connections)
        };
        let paths = self.places.paths();
        let paths = paths.filter_map(move |(place, path)| Some((At::Path(path), connections(place)?)));
        let znodes = self.places.znodes();
        let znodes = znodes.filter_map(move |znode| Some((At::Znode(znode), connections(Place::Znode(znode))?)));
        paths.chain(znodes)
    }

    /// Appends the connections with one of `modes` at a place, and takes `used_up` from them.
    fn fire(&mut self, place: Place, modes: u8, used_up: u8, hearers: &mut Vec<ConnectionId>) {
        let from = hearers.len();
        let mut any_used_up = false;
        self.places.each(place, |connection, has| {
            if has & modes != 0 {
                hearers.push(connection);
                any_used_up |= has & used_up != 0;
            }
        });
        if !any_used_up {
            return;
        }
        let hash = self.places.hash(place);
        let bytes = self.bytes(place);
        // No recursive watch is ever used up, so only the lists and the counts of pairs change.
        let WatchTable { places, watchers, data_count, child_count, .. } = self;
        let gone = places.use_up(place, used_up, |connection, old, left| {
            let watcher = watchers.get_mut(&connection).expect("whoever watches is known");
            if used_up == DATA && left & IN_DATA_TABLE == 0 {
                *data_count -= 1;
                watcher.data_places -= 1;
            }
            if used_up == CHILD && left & IN_CHILD_TABLE == 0 {
                *child_count -= 1;
            }
            assert!(old & used_up != 0);
            if left == 0 {
                watcher.live -= 1;
                watcher.bytes -= bytes;
            }
        });
        if gone {
            self.filter.place_changed(hash, false);
        }
        for &connection in &hearers[from..] {
            self.shrink_list(connection);
        }
    }

    /// Adds the connections that watch an ancestor recursively and aren't among the hearers yet.
    fn recursive_above(&self, path: &str, hearers: &mut Vec<ConnectionId>) {
        let own = hearers.len();
        for (above, hash) in above(path) {
            if let Some(place) = self.places.find_hashed(above, hash) {
                self.places.each(place, |connection, modes| {
                    if modes & RECURSIVE != 0 {
                        hearers.push(connection);
                    }
                });
            }
        }
        if hearers.len() > own {
            hearers.sort_unstable();
            hearers.dedup();
        }
    }

    /// Changes what one connection has at a place; at 0 it is gone, and the place with its last watcher.
    fn set_modes(&mut self, place: Place, connection: ConnectionId, old: u8, new: u8) {
        if old == new {
            return;
        }
        let hash = self.places.hash(place);
        self.note_change(place, connection, old, new);
        if self.places.set(place, connection, new) {
            self.filter.place_changed(hash, false);
        }
    }

    /// Keeps the counts and the connection's lists in step with what a place has.
    fn note_change(&mut self, place: Place, connection: ConnectionId, old: u8, new: u8) {
        let bytes = self.bytes(place);
        let watcher = self.watchers.entry(connection).or_default();
        let step = |modes: u8| ((old & modes != 0) as usize, (new & modes != 0) as usize);
        let (before, after) = step(IN_DATA_TABLE);
        self.data_count = self.data_count + after - before;
        watcher.data_places = watcher.data_places + after as u32 - before as u32;
        watcher.had_data |= after > 0;
        let (before, after) = step(IN_CHILD_TABLE);
        self.child_count = self.child_count + after - before;
        let (before, after) = step(RECURSIVE);
        self.recursive_count = self.recursive_count + after - before;
        if before != after {
            assert!(matches!(place, Place::Path(_)), "what is recursive hangs on a path");
            self.filter.recursive_changed(self.places.hash(place), after > before);
        }
        if old == 0 {
            watcher.live += 1;
            watcher.bytes += bytes;
            self.most_bytes = self.most_bytes.max(watcher.bytes);
            watcher.list(place);
        } else if new == 0 {
            watcher.live -= 1;
            watcher.bytes -= bytes;
        }
    }

    /// What one watcher of a place counts as.
    fn bytes(&self, place: Place) -> usize {
        WATCH_BYTES + self.places.path_len(place).map_or(0, |len| PATH_BYTES + len)
    }

    /// Once most of a connection's lists is outdated, what is left is written anew: so it costs nothing much a watch.
    fn shrink_list(&mut self, connection: ConnectionId) {
        let Some(watcher) = self.watchers.get_mut(&connection) else { return };
        if watcher.paths.len() + watcher.znodes.len() <= 2 * watcher.live as usize + 32 {
            return;
        }
        let places = &self.places;
        let renew = |list: &mut Vec<u32>, place: fn(u32) -> Place| {
            list.sort_unstable();
            list.dedup();
            list.retain(|&number| places.modes(place(number), connection) != 0);
            list.shrink_to(list.len() + list.len() / 4);
            list.len()
        };
        let left = renew(&mut watcher.paths, Place::Path) + renew(&mut watcher.znodes, Place::Znode);
        assert!(left == watcher.live as usize);
        let paths = watcher.paths.iter().filter_map(|&number| places.path_len(Place::Path(number)));
        assert!(watcher.bytes == left * WATCH_BYTES + paths.map(|len| PATH_BYTES + len).sum::<usize>());
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

/// `None` for the root, and for what is no path at all.
fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() > 1 => Some("/"),
        0 => None,
        at => Some(&path[..at]),
    }
}

/// Everything above a path, from the top, with its hash. Each is hashed on from the one before: a path may have a
/// hundred thousand parts.
fn above(path: &str) -> impl Iterator<Item = (&str, u64)> {
    let mut hashes = PrefixHashes::new(path.as_bytes());
    let slashes = path.match_indices('/').filter(|_| path.len() > 1);
    slashes.map(move |(at, _)| (&path[..at.max(1)], hashes.of(at.max(1))))
}

#[cfg(test)]
mod tests;
