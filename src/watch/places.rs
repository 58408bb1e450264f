//! Where watches hang, and who watches there.
//!
//! A one-shot watch on a znode that exists hangs on the znode, by its number in the tree: the number is four bytes where
//! the path would be a hundred, and it can't change hands unnoticed, since the znode's end uses up what hangs on it.
//! Everything else (the path of a znode that isn't there, watches that outlive one) hangs on the path, kept here.
//!
//! Who watches is one word: nearly always a single connection with what it wants to hear; only where there are several,
//! the number of a list. Runs on the core that owns the table.

use super::ConnectionId;
use crate::random::{PARTS, hash_bytes, hash_word, part_of};
use hashbrown::HashTable;
use slab::Slab;

const MODE_BITS: u32 = 5;

/// A connection and its modes at a place; or, without modes, the number of a crowd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Who(u32);

impl Who {
    /// One connection; `modes` is not 0.
    pub(super) fn only(connection: ConnectionId, modes: u8) -> Who {
        assert!(connection < 1 << (u32::BITS - MODE_BITS), "no core has so many connections");
        assert!(modes != 0 && modes < 1 << MODE_BITS);
        Who(connection << MODE_BITS | u32::from(modes))
    }

    fn crowd(number: usize) -> Who {
        assert!(number < 1 << (u32::BITS - MODE_BITS), "a crowd has two watches at least");
        Who((number as u32) << MODE_BITS)
    }

    /// 0 for a crowd.
    pub(super) fn modes(self) -> u8 {
        (self.0 & ((1 << MODE_BITS) - 1)) as u8
    }

    /// Of the connection, or of the crowd.
    pub(super) fn number(self) -> u32 {
        self.0 >> MODE_BITS
    }
}

/// What a watch hangs on: an entry of `Places::paths`, or a znode by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Path(u32),
    Znode(u32),
}

struct WatchedPath {
    path: Box<str>,
    who: Who,
}

/// The places that have watchers. A place is there as long as it has one.
pub(super) struct Places {
    paths: Slab<WatchedPath>,
    /// Entries of `paths`.
    index: [HashTable<u32>; PARTS],
    /// Znodes and who watches them.
    znodes: [HashTable<(u32, Who)>; PARTS],
    /// Watchers of places that have several, ordered by number.
    crowds: Slab<Vec<Who>>,
}

impl Places {
    pub(super) fn new() -> Places {
        Places {
            paths: Slab::new(),
            index: std::array::from_fn(|_| HashTable::new()),
            znodes: std::array::from_fn(|_| HashTable::new()),
            crowds: Slab::new(),
        }
    }

    /// The place of a path that is watched as such.
    pub(super) fn find(&self, path: &str) -> Option<Place> {
        if self.paths.is_empty() {
            return None;
        }
        self.find_hashed(path, hash_bytes(path.as_bytes()))
    }

    /// The same where the path's hash is known.
    pub(super) fn find_hashed(&self, path: &str, hash: u64) -> Option<Place> {
        let found = self.index[part_of(hash as u32)].find(hash, |&at| *self.paths[at as usize].path == *path);
        found.map(|&at| Place::Path(at))
    }

    /// Bytes of the path that a place is, if it is one.
    pub(super) fn path_len(&self, place: Place) -> Option<usize> {
        match place {
            Place::Path(at) => Some(self.paths[at as usize].path.len()),
            Place::Znode(_) => None,
        }
    }

    /// What the filter knows a place by.
    pub(super) fn hash(&self, place: Place) -> u64 {
        match place {
            Place::Path(at) => hash_bytes(self.paths[at as usize].path.as_bytes()),
            Place::Znode(znode) => hash_word(znode),
        }
    }

    fn who(&self, place: Place) -> Option<Who> {
        match place {
            Place::Path(at) => self.paths.get(at as usize).map(|watched| watched.who),
            Place::Znode(znode) => {
                let hash = hash_word(znode);
                self.znodes[part_of(hash as u32)].find(hash, |&(other, _)| other == znode).map(|&(_, who)| who)
            }
        }
    }

    fn set_who(&mut self, place: Place, new: Who) {
        match place {
            Place::Path(at) => self.paths[at as usize].who = new,
            Place::Znode(znode) => {
                let hash = hash_word(znode);
                let entry = self.znodes[part_of(hash as u32)].find_mut(hash, |&(other, _)| other == znode);
                entry.expect("a place that is watched").1 = new;
            }
        }
    }

    /// A path's first watcher.
    pub(super) fn insert_path(&mut self, path: &str, who: Who) -> Place {
        let hash = hash_bytes(path.as_bytes());
        let at = u32::try_from(self.paths.insert(WatchedPath { path: path.into(), who }));
        let at = at.expect("fewer than four billion paths");
        let paths = &self.paths;
        let rehash = |&at: &u32| hash_bytes(paths[at as usize].path.as_bytes());
        self.index[part_of(hash as u32)].insert_unique(hash, at, rehash);
        Place::Path(at)
    }

    /// A znode's first watcher.
    pub(super) fn insert_znode(&mut self, znode: u32, who: Who) {
        let hash = hash_word(znode);
        self.znodes[part_of(hash as u32)].insert_unique(hash, (znode, who), |&(znode, _)| hash_word(znode));
    }

    /// Gives a connection more at a znode, in one look-up: what it had there, and whether it is the znode's first watcher.
    pub(super) fn add_at_znode(&mut self, znode: u32, connection: ConnectionId, modes: u8) -> (u8, bool) {
        let hash = hash_word(znode);
        let part = &mut self.znodes[part_of(hash as u32)];
        let Some((_, who)) = part.find_mut(hash, |&(other, _)| other == znode) else {
            self.insert_znode(znode, Who::only(connection, modes));
            return (0, true);
        };
        if who.modes() != 0 && who.number() == connection {
            let old = who.modes();
            *who = Who::only(connection, old | modes);
            return (old, false);
        }
        if who.modes() != 0 {
            *who = Who::crowd(self.crowds.insert(vec![*who]));
        }
        let crowd = &mut self.crowds[who.number() as usize];
        match crowd.binary_search_by_key(&connection, |one| one.number()) {
            Ok(at) => {
                let old = crowd[at].modes();
                crowd[at] = Who::only(connection, old | modes);
                (old, false)
            }
            Err(at) => {
                crowd.insert(at, Who::only(connection, modes));
                (0, false)
            }
        }
    }

    /// After its last watcher.
    fn forget(&mut self, place: Place) {
        let hash = self.hash(place);
        match place {
            Place::Path(at) => {
                let entry = self.index[part_of(hash as u32)].find_entry(hash, |&other| other == at);
                entry.expect("every path is in the index").remove();
                self.paths.remove(at as usize);
            }
            Place::Znode(znode) => {
                let part = &mut self.znodes[part_of(hash as u32)];
                part.find_entry(hash, |&(other, _)| other == znode).expect("a place that is watched").remove();
                // A storm of events gives its memory back.
                if part.len() < part.capacity() / 8 && part.capacity() > 64 {
                    part.shrink_to(2 * part.len(), |&(znode, _)| hash_word(znode));
                }
            }
        }
    }

    /// Every watcher of a place, by number.
    #[inline]
    pub(super) fn each(&self, place: Place, mut visit: impl FnMut(ConnectionId, u8)) {
        match self.who(place) {
            None => {}
            Some(who) if who.modes() != 0 => visit(who.number(), who.modes()),
            Some(who) => {
                self.crowds[who.number() as usize].iter().for_each(|one| visit(one.number(), one.modes()));
            }
        }
    }

    /// What a connection has at a place, 0 if nothing.
    pub(super) fn modes(&self, place: Place, connection: ConnectionId) -> u8 {
        match self.who(place) {
            None => 0,
            Some(who) if who.modes() != 0 && who.number() == connection => who.modes(),
            Some(who) if who.modes() != 0 => 0,
            Some(who) => {
                let crowd = &self.crowds[who.number() as usize];
                crowd.binary_search_by_key(&connection, |one| one.number()).map_or(0, |at| crowd[at].modes())
            }
        }
    }

    /// Changes what a connection has at a place that has a watcher. At 0 it is gone; `true` if the place is, too.
    pub(super) fn set(&mut self, place: Place, connection: ConnectionId, modes: u8) -> bool {
        let who = self.who(place).expect("a place that is watched");
        if who.modes() != 0 && who.number() == connection {
            if modes == 0 {
                self.forget(place);
                return true;
            }
            self.set_who(place, Who::only(connection, modes));
            return false;
        }
        let crowd_number = if who.modes() != 0 { self.crowds.insert(vec![who]) } else { who.number() as usize };
        let crowd = &mut self.crowds[crowd_number];
        match (crowd.binary_search_by_key(&connection, |one| one.number()), modes) {
            (Ok(at), 0) => drop(crowd.remove(at)),
            (Ok(at), _) => crowd[at] = Who::only(connection, modes),
            (Err(_), 0) => {}
            (Err(at), _) => crowd.insert(at, Who::only(connection, modes)),
        }
        self.set_who(place, Who::crowd(crowd_number));
        self.thin_out(place)
    }

    /// Takes `used_up` from everyone at a place who has it, and calls `note` with what each had and has; a whole crowd at
    /// once, since one at a time would move the rest of it each time. `true` if the place is gone.
    pub(super) fn use_up(&mut self, place: Place, used_up: u8, mut note: impl FnMut(ConnectionId, u8, u8)) -> bool {
        let who = self.who(place).expect("a place that is watched");
        if who.modes() != 0 {
            let left = who.modes() & !used_up;
            note(who.number(), who.modes(), left);
            return self.set(place, who.number(), left);
        }
        self.crowds[who.number() as usize].retain_mut(|one| {
            let (connection, old) = (one.number(), one.modes());
            let left = old & !used_up;
            if left != old {
                note(connection, old, left);
            }
            if left != 0 {
                *one = Who::only(connection, left);
            }
            left != 0
        });
        self.thin_out(place)
    }

    /// After a crowd has lost members: one or none isn't a crowd. `true` if the place is gone.
    fn thin_out(&mut self, place: Place) -> bool {
        let who = self.who(place).expect("a place that is watched");
        let number = who.number() as usize;
        let crowd = &mut self.crowds[number];
        match crowd[..] {
            [] => {
                self.crowds.remove(number);
                self.forget(place);
                return true;
            }
            [one] => {
                self.crowds.remove(number);
                self.set_who(place, one);
            }
            _ if crowd.len() < crowd.capacity() / 4 => crowd.shrink_to_fit(),
            _ => {}
        }
        false
    }

    /// The places that are paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = (Place, &str)> {
        self.paths.iter().map(|(at, watched)| (Place::Path(at as u32), &*watched.path))
    }

    /// The numbers of the znodes that are places.
    pub(super) fn znodes(&self) -> impl Iterator<Item = u32> {
        self.znodes.iter().flat_map(|part| part.iter().map(|&(znode, _)| znode))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.znodes.iter().all(HashTable::is_empty)
    }

    #[cfg(test)]
    pub(super) fn crowd_count(&self) -> usize {
        self.crowds.len()
    }
}
