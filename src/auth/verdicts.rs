//! Verdicts by access control lists that have been found out already: a list may have tens of thousands of entries, and the
//! parts of one request, or the events of one transaction, ask the same one again and again.
//!
//! A list is known by where it lies, which says nothing once it has been freed and another lies there. So each list that has
//! a verdict here is held: by a borrow where the caller has it for long enough (a read, under its guard), or by a counted
//! reference (`AclList`). Whose verdict it is belongs to the key too, by value: identities that have grown are others.
//!
//! Promises: the same as `permits` each time, at a cost in proportion to the lists only for what is not known; memory for
//! `KEPT` verdicts. Leaves to callers: lists that are open, which cost less than a look here (`is_open`). The
//! rules are fixed for as long as the server runs, and so in no key.

use super::{AuthIds, AuthRules, permits};
use crate::wire::txn::Acl;
use std::borrow::Borrow;

struct Known<L, I> {
    list: L,
    ids: I,
    wanted: i32,
    verdict: bool,
}

/// The last `KEPT` verdicts. `L` holds a list and `I` identities; a copy of `L` has to be the same list, at its place.
///
/// Nothing until the first one: nearly no request meets a list that has to be gone through, and each read has its own.
pub struct Verdicts<L, I, const KEPT: usize>(Option<Box<Memo<L, I, KEPT>>>);

struct Memo<L, I, const KEPT: usize> {
    known: [Option<Known<L, I>>; KEPT],
    /// Where the next one goes: over the oldest, once all are taken.
    next: usize,
}

impl<L, I, const KEPT: usize> Default for Verdicts<L, I, KEPT> {
    #[inline]
    fn default() -> Self {
        Verdicts(None)
    }
}

impl<L: Borrow<[Acl]> + Clone, I: Borrow<AuthIds> + Clone, const KEPT: usize> Verdicts<L, I, KEPT> {
    /// What `permits` says. If it has to be asked, `pay` is, before, for the number of entries that it may go through; its
    /// error ends this without a verdict.
    pub fn judge<E>(
        &mut self,
        list: &L,
        wanted: i32,
        ids: &I,
        rules: &AuthRules,
        pay: impl FnOnce(usize) -> Result<(), E>,
    ) -> Result<bool, E> {
        let acl: &[Acl] = list.borrow();
        let is_it = |known: &&Known<L, I>| {
            std::ptr::eq::<[Acl]>(known.list.borrow(), acl)
                && known.wanted == wanted
                && known.ids.borrow() == ids.borrow()
        };
        if let Some(known) = self.0.iter().flat_map(|memo| memo.known.iter().flatten()).find(is_it) {
            return Ok(known.verdict);
        }
        pay(acl.len())?;
        let verdict = permits(acl, wanted, ids.borrow(), rules);
        let memo = self.0.get_or_insert_with(|| Box::new(Memo { known: [const { None }; KEPT], next: 0 }));
        memo.known[memo.next] = Some(Known { list: list.clone(), ids: ids.clone(), wanted, verdict });
        memo.next = (memo.next + 1) % KEPT;
        Ok(verdict)
    }

    /// Holds nothing any longer.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::txn::AclList;
    use std::sync::Arc;

    /// A list that lets the one user read.
    fn list_of(user: &str) -> AclList {
        vec![Acl { perms: Acl::READ, scheme: "digest".into(), id: user.into() }; 3].into()
    }

    fn user(name: &str) -> AuthIds {
        let mut ids = AuthIds::of_peer([127, 0, 0, 1].into());
        assert!(ids.add("digest", name));
        ids
    }

    /// As a memo that holds counted references; how many entries were paid for.
    #[derive(Default)]
    struct Memo {
        verdicts: Verdicts<AclList, AuthIds, 2>,
        paid: usize,
    }

    impl Memo {
        fn judge(&mut self, list: &AclList, wanted: i32, ids: &AuthIds) -> bool {
            let pay = |entries| {
                self.paid += entries;
                Ok::<(), ()>(())
            };
            let verdict = self.verdicts.judge(list, wanted, ids, &AuthRules::default(), pay).unwrap();
            assert_eq!(verdict, permits(list, wanted, ids, &AuthRules::default()));
            verdict
        }
    }

    #[test]
    fn what_is_known_is_not_paid_for_again() {
        let (mut memo, list, ann) = (Memo::default(), list_of("ann"), user("ann"));
        assert!(memo.judge(&list, Acl::READ, &ann));
        assert_eq!(memo.paid, 3);
        assert!(memo.judge(&list, Acl::READ, &ann.clone()));
        // The same list by another reference, and the same identities in another place.
        assert!(memo.judge(&list.clone(), Acl::READ, &user("ann")));
        assert_eq!(memo.paid, 3);
    }

    #[test]
    fn another_list_or_permission_or_other_identities_are_judged_anew() {
        let (mut memo, list, ann) = (Memo::default(), list_of("ann"), user("ann"));
        assert!(memo.judge(&list, Acl::READ, &ann));
        assert!(!memo.judge(&list, Acl::WRITE, &ann));
        assert!(!memo.judge(&list_of("bob"), Acl::READ, &ann));
        assert!(!memo.judge(&list, Acl::READ, &user("bob")));
        assert_eq!(memo.paid, 12);
    }

    /// An auth packet between two requests: the very same variable holds more.
    #[test]
    fn identities_that_have_grown_have_no_verdict_yet() {
        let (mut memo, list, mut ids) = (Memo::default(), list_of("bob"), user("ann"));
        assert!(!memo.judge(&list, Acl::READ, &ids));
        assert!(ids.add("digest", "bob"));
        assert!(memo.judge(&list, Acl::READ, &ids));
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut memo, ann) = (Memo::default(), user("ann"));
        let lists = ["ann", "bob", "eve"].map(list_of);
        for list in &lists {
            memo.judge(list, Acl::READ, &ann);
        }
        assert_eq!(memo.paid, 9);
        memo.judge(&lists[1], Acl::READ, &ann);
        memo.judge(&lists[2], Acl::READ, &ann);
        assert_eq!(memo.paid, 9);
        memo.judge(&lists[0], Acl::READ, &ann);
        assert_eq!(memo.paid, 12);
    }

    /// What is forgotten is let go: a list that nobody has any more must not stay for a memo.
    #[test]
    fn clearing_lets_go_of_everything() {
        let (mut memo, list, ann) = (Memo::default(), list_of("ann"), user("ann"));
        memo.judge(&list, Acl::READ, &ann);
        assert_eq!(Arc::strong_count(&list), 2);
        memo.verdicts.clear();
        assert_eq!(Arc::strong_count(&list), 1);
        memo.judge(&list, Acl::READ, &ann);
        assert_eq!(memo.paid, 6);
    }

    /// An allocator gives the place that was freed last to the next of the same size: so it would be here, if lists were not
    /// held.
    #[test]
    fn a_new_list_is_not_taken_for_one_that_nobody_else_has_any_more() {
        let (mut memo, ann) = (Memo::default(), user("ann"));
        for _ in 0..100 {
            let list = list_of("ann");
            let place = list.as_ptr();
            assert!(memo.judge(&list, Acl::READ, &ann));
            drop(list);
            let other = list_of("bob");
            assert_ne!(other.as_ptr(), place);
            assert!(!memo.judge(&other, Acl::READ, &ann));
        }
    }

    /// A borrow holds a list as well; that it does is the compiler's to see to.
    #[test]
    fn lists_may_be_borrowed() {
        let (list, ann) = (list_of("ann"), user("ann"));
        let (mut verdicts, mut paid) = (Verdicts::<&[Acl], &AuthIds, 2>::default(), 0);
        for wanted in [Acl::READ, Acl::READ, Acl::WRITE] {
            let pay = |entries| {
                paid += entries;
                Ok::<(), ()>(())
            };
            let verdict = verdicts.judge(&&*list, wanted, &&ann, &AuthRules::default(), pay);
            assert_eq!(verdict, Ok(wanted == Acl::READ));
        }
        assert_eq!(paid, 6);
    }

    #[test]
    fn what_can_not_be_paid_for_gets_no_verdict_and_is_not_known() {
        let (mut verdicts, list, ann) = (Verdicts::<AclList, AuthIds, 2>::default(), list_of("ann"), user("ann"));
        let rules = AuthRules::default();
        assert_eq!(verdicts.judge(&list, Acl::READ, &ann, &rules, |_| Err("too much")), Err("too much"));
        assert_eq!(verdicts.judge(&list, Acl::READ, &ann, &rules, |_| Ok::<(), &str>(())), Ok(true));
        assert_eq!(verdicts.judge(&list, Acl::READ, &ann, &rules, |_| Err("too much")), Ok(true));
    }
}
