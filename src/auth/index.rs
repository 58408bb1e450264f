//! An access control list made ready for many who ask: a list may have tens of thousands of entries, and a change of its
//! znode thousands of hearers, each with identities of its own.
//!
//! Making one costs a few times what going through the list does, an answer as much as the asker has identities. Who asks
//! only once or twice goes through the list (`permits`).
//!
//! Promises: the same as `permits` each time, by the rules that it was made with. Runs on whatever thread holds it.

use super::{AuthId, AuthIds, AuthRules, address};
use crate::random::Hasher;
use crate::wire::txn::{Acl, AclList};
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Holds its list.
pub struct Index {
    list: AclList,
    /// Of whatever identity somebody is.
    everybody: bool,
    /// Entries that name one identity, by scheme and id.
    named: HashTable<u32>,
    networks: address::Networks,
}

impl Index {
    /// Of who has any of the `wanted` permissions by the list.
    pub fn new(list: &AclList, wanted: i32, rules: &AuthRules) -> Index {
        let mut everybody = rules.skip_acl || list.is_empty();
        let mut named = HashTable::new();
        let mut networks = address::Networks::default();
        let hash_of = |&at: &u32| hash(&list[at as usize].scheme, &list[at as usize].id);
        for (at, entry) in list.iter().enumerate().filter(|(_, entry)| entry.perms & wanted != 0) {
            match entry.scheme.as_str() {
                "world" if entry.id == "anyone" => everybody = true,
                "ip" => networks.add(&entry.id),
                scheme if rules.provides(scheme) => {
                    let at = at as u32;
                    let is_same = |&other: &u32| {
                        let other = &list[other as usize];
                        other.scheme == scheme && other.id == entry.id
                    };
                    // One of each: there may be thousands that differ in their permissions only.
                    if named.find(hash_of(&at), is_same).is_none() {
                        named.insert_unique(hash_of(&at), at, hash_of);
                    }
                }
                _ => {}
            }
        }
        Index { list: list.clone(), everybody, named, networks }
    }

    pub fn is_of(&self, list: &AclList) -> bool {
        std::ptr::eq::<[Acl]>(&*self.list, &**list)
    }

    pub fn permits(&self, ids: &AuthIds) -> bool {
        self.everybody || ids.is_super() || ids.iter().any(|id| self.permits_one(id))
    }

    fn permits_one(&self, AuthId { scheme, id }: &AuthId) -> bool {
        if scheme == "ip" {
            return self.networks.contain(id);
        }
        let is_it = |&at: &u32| {
            let entry = &self.list[at as usize];
            entry.scheme == *scheme && entry.id == *id
        };
        !self.named.is_empty() && self.named.find(hash(scheme, id), is_it).is_some()
    }
}

fn hash(scheme: &str, id: &str) -> u64 {
    Hasher.hash_one((scheme, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::permits;
    use crate::random::Rng;

    /// Whatever is in the list and whoever asks, also for nonsense, which a list from a ZooKeeper's disk may have.
    #[test]
    fn an_index_says_what_going_through_the_list_says() {
        let mut rng = Rng::new(5);
        let schemes = ["ip", "digest", "super", "world", "sasl", ""];
        let texts = [
            "127.0.0.1",
            "127.0.0.1/8",
            "127.0.0.2/32",
            "10.1.2.3",
            "10.0.0.0/9",
            "0.0.0.0/0",
            "1.2.3",
            "::1",
            "0:0:0:0:0:0:0:1",
            "fe80::/10",
            "fe80:0:0:0:1:2:3:4",
            "::/0",
            "fe80::/129",
            "127.0.0.1/-1",
            "anyone",
            "a:x",
            "b:x",
            "",
        ];
        let mut pick = |of: &[&str]| of[rng.below(of.len() as u64) as usize].to_owned();
        let mut permitted = 0;
        for round in 0..20_000u32 {
            let entries = (0..1 + round % 4).map(|_| Acl {
                perms: if round % 7 == 0 { Acl::WRITE } else { Acl::READ },
                scheme: pick(&schemes),
                id: pick(&texts),
            });
            let list: AclList = entries.collect::<Vec<_>>().into();
            let ids = (0..round % 3).map(|_| AuthId { scheme: pick(&schemes), id: pick(&texts) });
            let ids = AuthIds::from_list(ids.collect());
            let rules = AuthRules { skip_acl: round % 100 == 0, ..AuthRules::default() };
            let rules = if round % 5 == 0 { AuthRules { digest: None, ..rules } } else { rules };
            let expected = permits(&list, Acl::READ, &ids, &rules);
            assert_eq!(Index::new(&list, Acl::READ, &rules).permits(&ids), expected, "{list:?} {ids:?} {rules:?}");
            permitted += u32::from(expected);
        }
        assert!((2_000..18_000).contains(&permitted), "of either there are many: {permitted}");
    }
}
