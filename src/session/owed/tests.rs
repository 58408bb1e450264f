//! What becomes of requests when their leader goes: answered out of its successor's history, or asked again.

use super::Owed;
use crate::ids::SessionId;
use crate::random::Rng;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);

fn asked(count: i32) -> Owed<i32> {
    let mut owed = Owed::default();
    (1..=count).for_each(|cxid| owed.ask(A, cxid, 10, cxid));
    owed
}

#[test]
fn what_came_with_the_next_leaders_history_is_answered_and_the_rest_is_asked_again_in_its_order() {
    let mut owed = asked(4);
    assert_eq!(owed.asked(), (4, 40));
    let mut gone = Vec::new();
    assert_eq!(owed.claim(A, 1, true, &mut gone), Some(1));
    owed.leader_lost();
    assert_eq!(owed.asked(), (0, 0));
    assert_eq!(owed.claim(A, 2, true, &mut gone), Some(2));
    owed.keep(A, 5);
    assert!(owed.waits(A) && !owed.waits(B));
    assert_eq!(owed.ask_again(A), [3, 4, 5]);
    assert!(owed.is_empty() && gone.is_empty());
}

#[test]
fn what_no_leader_has_had_is_never_taken_for_answered() {
    let mut owed = asked(0);
    owed.keep(A, 7);
    let mut gone = Vec::new();
    assert_eq!(owed.claim(A, 0, false, &mut gone), None);
    assert_eq!(owed.ask_again(A), [7]);
}

#[test]
fn of_two_requests_with_one_number_each_has_its_own_transaction() {
    let mut owed = Owed::default();
    owed.ask(A, 5, 1, "first");
    owed.ask(A, 5, 1, "second");
    owed.leader_lost();
    let mut gone = Vec::new();
    assert_eq!(owed.claim(A, 5, true, &mut gone), Some("first"));
    assert_eq!(owed.ask_again(A), ["second"]);
}

#[test]
fn a_transaction_out_of_order_leaves_those_before_it_without_an_answer() {
    let mut owed = asked(3);
    let mut gone = Vec::new();
    assert_eq!(owed.claim(A, 3, true, &mut gone), Some(3));
    assert_eq!(gone, [1, 2]);
    assert!(owed.is_empty());
}

#[test]
fn a_transaction_that_nobody_here_asked_for_says_that_the_client_is_elsewhere() {
    let mut owed = asked(2);
    let mut gone = Vec::new();
    // One that a server made of its own accord, or refused because it came from the wrong server, says nothing.
    assert_eq!(owed.claim(A, 9, false, &mut gone), None);
    assert_eq!(owed.claim(B, 1, true, &mut gone), None);
    assert!(gone.is_empty());
    assert_eq!(owed.claim(A, 9, true, &mut gone), None);
    assert_eq!(gone, [1, 2]);
    assert!(owed.is_empty());
}

#[test]
fn what_is_refused_here_is_answered_behind_those_before_it_also_without_a_leader() {
    let mut owed = asked(1);
    owed.settle(A, 10, 2);
    owed.ask(A, 3, 10, 3);
    assert_eq!(owed.asked(), (3, 30));
    assert_eq!(owed.next_settled(A, |_| true), None);
    owed.leader_lost();
    assert_eq!(owed.next_settled(A, |_| true), None);
    let mut gone = Vec::new();
    assert_eq!(owed.claim(A, 1, true, &mut gone), Some(1));
    assert_eq!(owed.next_settled(A, |what| *what != 2), None, "not yet");
    assert_eq!(owed.next_settled(A, |_| true), Some(2));
    assert_eq!(owed.claim(A, 3, true, &mut gone), Some(3));
    assert!(owed.is_empty() && gone.is_empty());
}

#[test]
fn a_sync_waits_in_its_place_and_a_write_that_happened_behind_it_leaves_it_without_an_answer() {
    let between = || {
        let mut owed = asked(3);
        owed.leader_lost();
        owed.keep_between(A, 100, |&what| what >= 2);
        owed.keep_between(A, 101, |&what| what == 3);
        owed
    };
    assert_eq!(between().ask_again(A), [1, 100, 2, 101, 3]);
    let mut gone = Vec::new();
    let mut owed = between();
    assert_eq!(owed.claim(A, 2, true, &mut gone), Some(2));
    assert_eq!(gone, [1, 100]);
    assert_eq!(owed.ask_again(A), [101, 3]);
    assert!(owed.is_empty());
}

#[test]
fn a_closed_connections_requests_are_not_asked_again() {
    let mut owed = asked(2);
    owed.settle(A, 10, 3);
    owed.forget(A, |_| true);
    assert_eq!(owed.asked(), (3, 30), "a leader has them, and answers in order");
    owed.leader_lost();
    assert!(owed.is_empty(), "closed before the leader was lost");
    let mut owed = asked(2);
    owed.ask(B, 1, 10, 4);
    owed.leader_lost();
    owed.keep(A, 3);
    owed.forget(B, |_| true);
    owed.forget(A, |&what| what != 2);
    assert!(!owed.waits(B), "closed while there was no leader");
    assert_eq!(owed.ask_again(A), [2]);
    assert!(owed.is_empty());
}

#[test]
#[should_panic(expected = "overtakes")]
fn nothing_overtakes_what_waits_for_a_leader() {
    let mut owed = asked(1);
    owed.leader_lost();
    owed.ask(A, 2, 10, 2);
}

/// A client, a server and leaders that go at any time, with any part of what they were asked in the history that stays:
/// everything happens once, in order, and is answered once, in order.
#[test]
fn through_any_number_of_leaders_each_request_happens_once_and_is_answered_once_in_its_order() {
    for seed in 0..2_000 {
        let mut rng = Rng::new(seed);
        let mut owed: Owed<i32> = Owed::default();
        let (mut next, mut answered) = (0, Vec::new());
        let mut happened: Vec<i32> = Vec::new();
        // Proposed by the present leader, and not known here yet.
        let mut under_way: Vec<i32> = Vec::new();
        let mut asked_of_leader: Vec<i32> = Vec::new();
        let mut serving = true;
        let mut gone = Vec::new();
        for _ in 0..60 {
            match rng.below(6) {
                0 | 1 => {
                    next += 1;
                    if serving && !owed.waits(A) {
                        owed.ask(A, next, 1, next);
                        asked_of_leader.push(next);
                    } else {
                        owed.keep(A, next);
                    }
                }
                2 if serving && !asked_of_leader.is_empty() => under_way.push(asked_of_leader.remove(0)),
                3 if serving && !under_way.is_empty() => {
                    let cxid = under_way.remove(0);
                    happened.push(cxid);
                    answered.extend(owed.claim(A, cxid, true, &mut gone));
                }
                4 if serving => {
                    serving = false;
                    owed.leader_lost();
                    asked_of_leader.clear();
                    // The history that stays has some of what was under way: a prefix.
                    under_way.truncate(rng.below(under_way.len() as u64 + 1) as usize);
                }
                5 if !serving => {
                    for cxid in under_way.drain(..) {
                        happened.push(cxid);
                        answered.extend(owed.claim(A, cxid, true, &mut gone));
                    }
                    serving = true;
                    for cxid in owed.ask_again(A) {
                        owed.ask(A, cxid, 1, cxid);
                        asked_of_leader.push(cxid);
                    }
                }
                _ => {}
            }
        }
        let order: Vec<i32> = (1..=happened.len() as i32).collect();
        assert_eq!(happened, order, "seed {seed}");
        assert_eq!(answered, happened, "seed {seed}");
        assert!(gone.is_empty(), "seed {seed}");
        let left = owed.asked().0 + owed.ask_again(A).len();
        assert_eq!(left + answered.len(), next as usize, "seed {seed}");
    }
}
