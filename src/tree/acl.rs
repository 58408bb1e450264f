//! Each distinct ACL once. Trees have millions of znodes and a handful of lists; `world:anyone` with all permissions,
//! which nearly all have, is number 0 and isn't counted.

use crate::random::FastMap;
use crate::wire::txn::Acl;
use slab::Slab;
use std::sync::Arc;

/// `world:anyone` with all permissions.
pub(super) const OPEN: u32 = 0;

struct Entry {
    list: Arc<[Acl]>,
    /// Znodes that have this list.
    users: u32,
}

/// An access control list under its number.
pub type NumberedAcl = (u32, Arc<[Acl]>);

pub(super) struct AclTable {
    lists: Slab<Entry>,
    ids: FastMap<Arc<[Acl]>, u32>,
    /// Without users, but perhaps named by the image of a znode in a snapshot that is being taken.
    unused: Vec<u32>,
}

impl AclTable {
    pub(super) fn new() -> AclTable {
        let mut table = AclTable { lists: Slab::new(), ids: FastMap::default(), unused: Vec::new() };
        let open = Acl::open().clone();
        table.ids.insert(open.clone(), OPEN);
        let id = table.lists.insert(Entry { list: open, users: 0 });
        assert!(id == OPEN as usize);
        table
    }

    /// The number of a list, which has one more user now.
    pub(super) fn acquire(&mut self, list: &[Acl]) -> u32 {
        // The common case without a look at it, or without a hash.
        if Acl::is_shared_open(list) {
            return OPEN;
        }
        if let [acl] = list
            && acl.perms == Acl::ALL
            && acl.scheme == "world"
            && acl.id == "anyone"
        {
            return OPEN;
        }
        if let Some(&id) = self.ids.get(list) {
            self.acquire_id(id);
            return id;
        }
        let list: Arc<[Acl]> = list.into();
        let id = u32::try_from(self.lists.insert(Entry { list: list.clone(), users: 1 })).expect("fewer than znodes");
        self.ids.insert(list, id);
        id
    }

    /// For a number that is known to be there.
    pub(super) fn acquire_id(&mut self, id: u32) {
        if id != OPEN {
            self.lists[id as usize].users += 1;
        }
    }

    /// One user less. The last one's leaving frees the number at `sweep`.
    pub(super) fn release(&mut self, id: u32) {
        if id == OPEN {
            return;
        }
        let entry = &mut self.lists[id as usize];
        entry.users -= 1;
        if entry.users == 0 {
            self.unused.push(id);
        }
    }

    /// Frees what has no users. Not while a snapshot is being taken.
    pub(super) fn sweep(&mut self) {
        while let Some(id) = self.unused.pop() {
            if self.lists.get(id as usize).is_some_and(|entry| entry.users == 0) {
                let entry = self.lists.remove(id as usize);
                self.ids.remove(&entry.list);
            }
        }
    }

    pub(super) fn has_unused(&self) -> bool {
        !self.unused.is_empty()
    }

    pub(super) fn get(&self, id: u32) -> &Arc<[Acl]> {
        &self.lists[id as usize].list
    }

    /// `None` stands for `OPEN`.
    pub(super) fn shared(&self, id: u32) -> Option<Arc<[Acl]>> {
        (id != OPEN).then(|| self.get(id).clone())
    }

    /// The lists with numbers `from..from + count`, unused ones included.
    pub(super) fn range(&self, from: u32, count: u32) -> Vec<NumberedAcl> {
        let end = (from.saturating_add(count) as usize).min(self.lists.capacity()) as u32;
        (from..end).filter_map(|id| Some((id, self.lists.get(id as usize)?.list.clone()))).collect()
    }

    /// Whether all numbers are below `id`.
    pub(super) fn ends_before(&self, id: u32) -> bool {
        id as usize >= self.lists.capacity()
    }

    /// The lists that have users, without `OPEN`.
    pub(super) fn used(&self) -> Vec<NumberedAcl> {
        let used = self.lists.iter().filter(|(id, entry)| entry.users > 0 && *id != OPEN as usize);
        used.map(|(id, entry)| (id as u32, entry.list.clone())).collect()
    }

    /// A list's number without a new user. For a restore, which counts them later.
    pub(super) fn intern(&mut self, list: &[Acl]) -> u32 {
        let id = self.acquire(list);
        if id != OPEN {
            self.lists[id as usize].users -= 1;
        }
        id
    }

    /// After a restore: forgets the lists that no znode took.
    pub(super) fn sweep_all(&mut self) {
        self.unused = self.lists.iter().filter(|(id, e)| e.users == 0 && *id != 0).map(|(id, _)| id as u32).collect();
        self.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_number_as_long_as_it_is_used() {
        let mut table = AclTable::new();
        assert_eq!(table.acquire(&[Acl::world(Acl::ALL)]), OPEN);
        let id = table.acquire(&[Acl::world(Acl::READ)]);
        assert_eq!(table.acquire(&[Acl::world(Acl::READ)]), id);
        let other = table.acquire(&[]);
        assert_ne!(other, id);
        table.release(id);
        table.sweep();
        assert_eq!(table.get(id)[0].perms, Acl::READ);
        table.release(id);
        assert_eq!(table.get(id)[0].perms, Acl::READ, "not before the sweep");
        assert_eq!(table.acquire(&[Acl::world(Acl::READ)]), id, "and one that came back stays");
        table.sweep();
        assert!(table.lists.contains(id as usize));
        table.release(id);
        table.sweep();
        assert!(!table.lists.contains(id as usize) && table.lists.contains(other as usize));
    }
}
