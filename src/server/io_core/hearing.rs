//! Who may hear of a change: by the list of the znode, or of its parent, and the identities of each who watches.
//!
//! Nearly always the list lets everybody read, and that is one look. Else most who watch have the same identities, and the
//! verdict is known after the first. What is left are long lists and many watchers who are all somebody else: such a list is made
//! ready when it has been gone through a second time. What is done is counted, since the tree is held meanwhile.
//!
//! Runs on: the core, for its connections.

use crate::auth::{self, AuthIds, AuthRules, Index, Verdicts};
use crate::limits;
use crate::wire::txn::{Acl, AclList};
use std::convert::Infallible;

/// A list that is gone through sooner than it is found among verdicts.
const SHORT: usize = 4;
/// From so many entries on it is worth while to make a list ready.
const LONG: usize = 32;
/// What making one ready takes, for each entry.
const MAKING: usize = 4;

/// What one batch has asked so far. Holds the lists that it knows.
#[derive(Default)]
pub struct MayHear {
    verdicts: Verdicts<AclList, AuthIds, 16>,
    /// The list that was gone through last.
    last: Option<AclList>,
    index: Option<Index>,
    work: usize,
}

impl MayHear {
    pub fn begin_turn(&mut self) {
        self.work = 0;
    }

    /// Whether a turn has gone through enough; the tree is held.
    pub fn has_done_enough(&self) -> bool {
        self.work >= limits::EVENTS_TURN_WORK
    }

    /// Whether a watcher may hear of a change of a znode with this list.
    #[inline]
    pub fn may_hear(&mut self, acl: &AclList, ids: &AuthIds, rules: &AuthRules) -> bool {
        if auth::is_open(acl, Acl::READ) {
            return true;
        }
        if acl.len() <= SHORT {
            self.work += ids.count() / 8;
            return auth::permits(acl, Acl::READ, ids, rules);
        }
        self.judge(acl, ids, rules)
    }

    fn judge(&mut self, acl: &AclList, ids: &AuthIds, rules: &AuthRules) -> bool {
        self.work += ids.count() / 2;
        if let Some(index) = self.index.as_ref().filter(|index| index.is_of(acl)) {
            self.work += ids.count() / 2;
            return index.permits(ids);
        }
        let (work, mut is_new) = (&mut self.work, false);
        let Ok(verdict) = self.verdicts.judge(acl, Acl::READ, ids, rules, |entries| {
            (*work, is_new) = (*work + entries + ids.count(), true);
            Ok::<(), Infallible>(())
        });
        if is_new && acl.len() >= LONG {
            if self.last.as_ref().is_some_and(|last| std::ptr::eq::<[Acl]>(&**last, &**acl)) {
                self.work += MAKING * acl.len();
                self.index = Some(Index::new(acl, Acl::READ, rules));
            }
            self.last = Some(acl.clone());
        }
        verdict
    }

    /// Holds nothing any longer.
    pub fn clear(&mut self) {
        self.verdicts.clear();
        self.last = None;
        self.index = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: usize) -> AclList {
        let entry = |at| match at % 2 {
            0 => Acl { perms: Acl::READ, scheme: "digest".into(), id: format!("u{at}:x") },
            _ => Acl { perms: Acl::READ, scheme: "ip".into(), id: format!("10.{}.{}.0/24", at / 256, at % 256) },
        };
        (0..entries).map(entry).collect::<Vec<_>>().into()
    }

    fn user(at: usize) -> AuthIds {
        let mut ids = AuthIds::of_peer([10, (at / 256) as u8, (at % 256) as u8, 7].into());
        assert!(ids.add("digest", &format!("u{at}:x")));
        ids
    }

    /// Each by identities of its own: what that takes is in proportion to the list and to those who ask, not to their product.
    #[test]
    fn thousands_of_hearers_do_not_go_through_a_long_list_each() {
        const ENTRIES: usize = 10_000;
        let (acl, rules) = (list(ENTRIES), AuthRules::default());
        let mut hearing = MayHear::default();
        for at in 0..2 * ENTRIES {
            let ids = user(at);
            assert_eq!(hearing.may_hear(&acl, &ids, &rules), at < ENTRIES, "{at}");
        }
        assert!(hearing.work <= 2 * ENTRIES * 2 + 8 * ENTRIES, "{}", hearing.work);
    }

    #[test]
    fn what_everybody_may_hear_is_no_work_and_many_lists_are_some() {
        let rules = AuthRules::default();
        let mut hearing = MayHear::default();
        for at in 0..1_000 {
            assert!(hearing.may_hear(Acl::open(), &user(at), &rules));
        }
        assert_eq!(hearing.work, 0);
        let lists = (0..).take_while(|at| {
            hearing.may_hear(&list(1_000), &user(*at), &rules);
            !hearing.has_done_enough()
        });
        let lists = lists.count();
        assert!((100..300).contains(&lists), "{lists} lists are enough for a turn");
        hearing.begin_turn();
        assert!(!hearing.has_done_enough());
    }
}
