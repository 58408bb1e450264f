use super::*;
use crate::zab::ensemble::EnsembleConfig;
use proptest::prelude::*;
use std::sync::Arc;

const T0: Now = Now(1_000_000_000);

fn configs(text: &str) -> Configs {
    Configs::new(Arc::new(EnsembleConfig::parse(text.as_bytes()).unwrap()), None)
}

fn three() -> Configs {
    configs("server.1=h:1:2\nserver.2=h:1:3\nserver.3=h:1:4\nserver.4=h:1:5:observer")
}

/// An election of server `me` that has started with this zxid in epoch 1, and what it said. No peer is connected.
fn started(me: u8, configs: Configs, zxid: u64) -> (Election, Vec<Output>) {
    let role = if me == 4 { Role::Observer } else { Role::Participant };
    let mut election = Election::new(ServerId(me), role, configs, Timing::default());
    let mut out = Vec::new();
    election.start(Some(Zxid(zxid)), Epoch(1), T0, &mut out);
    (election, out)
}

fn vote(leader: u8, zxid: u64, round: u64, epoch: u32) -> Vote {
    Vote { leader: ServerId(leader), zxid: Zxid(zxid), round, epoch: Epoch(epoch) }
}

/// Lets it hear `vote` from a peer; what it does then.
fn hear(election: &mut Election, from: u8, state: PeerState, vote: Vote) -> Vec<Output> {
    hear_raw(election, from, &notification(vote.ballot(state)))
}

fn notification(ballot: Ballot) -> Notification<'static> {
    Notification {
        state: ballot.state,
        leader: ballot.leader,
        zxid: ballot.zxid,
        round: ballot.round,
        peer_epoch: ballot.epoch,
        version: Notification::VERSION,
        config: Some(b"version=0"),
    }
}

fn hear_raw(election: &mut Election, from: u8, notification: &Notification<'_>) -> Vec<Output> {
    let mut out = Vec::new();
    election.receive(ServerId(from), notification, T0, &mut out);
    out
}

fn reach(election: &mut Election, peer: u8, reach: Reach) -> Vec<Output> {
    let mut out = Vec::new();
    election.reach(ServerId(peer), reach, T0, &mut out);
    out
}

fn tick(election: &mut Election, ms: u64) -> Vec<Output> {
    let mut out = Vec::new();
    election.tick(T0.plus_ms(ms), &mut out);
    out
}

fn sends(to: &[u8], vote: Vote, state: PeerState) -> Vec<Output> {
    to.iter().map(|&to| Output::Send { to: ServerId(to), ballot: vote.ballot(state) }).collect()
}

fn decided(vote: Vote, state: PeerState) -> Output {
    Output::Decided { vote, state }
}

use PeerState::{Following, Leading, Looking as Looks, Observing};

#[test]
fn a_server_votes_for_itself_first_and_tells_all_other_voters() {
    let (election, out) = started(2, three(), 7);
    assert_eq!(out, sends(&[1, 3], vote(2, 7, 1, 1), Looks));
    assert_eq!(election.state(), Looks);
    assert_eq!(election.deadline(), Some(T0.plus_ms(200)));
}

#[test]
fn a_better_vote_is_adopted_and_told_and_a_worse_one_is_answered_once() {
    for (other, better) in [
        (vote(1, 7, 1, 2), true),
        (vote(1, 8, 1, 1), true),
        (vote(3, 7, 1, 1), true),
        (vote(1, 7, 1, 1), false),
        (vote(3, 6, 1, 1), false),
        (vote(3, 9, 1, 0), false),
    ] {
        let (mut election, _) = started(2, three(), 7);
        let from = other.leader.0;
        let out = hear(&mut election, from, Looks, other);
        let answer = || sends(&[from], vote(2, 7, 1, 1), Looks);
        assert_eq!(out, if better { sends(&[1, 3], other, Looks) } else { answer() }, "{other:?}");
        assert!(hear(&mut election, from, Looks, other).is_empty(), "the same again is no news");
    }
}

#[test]
fn a_voter_that_had_a_leader_when_it_was_told_a_vote_is_told_again_when_it_looks_too() {
    let (mut election, _) = started(2, three(), 7);
    reach(&mut election, 3, Reach::Unreachable);
    hear(&mut election, 1, Following, vote(3, 5, 1, 1));
    assert_eq!(hear(&mut election, 1, Looks, vote(1, 7, 1, 1)), sends(&[1], vote(2, 7, 1, 1), Looks));
    assert_eq!(hear(&mut election, 1, Looks, vote(2, 7, 1, 1)), [decided(vote(2, 7, 1, 1), Leading)]);
}

#[test]
fn a_voter_that_casts_the_vote_that_has_won_has_not_left() {
    let (mut election, _) = started(2, three(), 7);
    hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
    tick(&mut election, 200);
    let answer = sends(&[1], vote(2, 7, 1, 1), Leading);
    assert_eq!(hear(&mut election, 1, Looks, vote(2, 7, 1, 1)), answer);
    let left = Output::Looker { from: ServerId(1) };
    assert_eq!(hear(&mut election, 1, Looks, vote(1, 7, 2, 1)), [answer, vec![left]].concat());
}

#[test]
fn when_a_quorum_agrees_and_someone_may_still_come_it_waits_and_then_decides() {
    let (mut election, _) = started(2, three(), 7);
    hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
    assert_eq!(election.deadline(), Some(T0.plus_ms(200)));
    assert!(tick(&mut election, 199).is_empty());
    assert_eq!(tick(&mut election, 200), [decided(vote(2, 7, 1, 1), Leading)]);
    assert_eq!((election.state(), election.deadline()), (Leading, None));
}

#[test]
fn a_better_vote_within_the_wait_takes_its_place() {
    let (mut election, _) = started(1, three(), 7);
    hear(&mut election, 2, Looks, vote(2, 7, 1, 1));
    let out = hear(&mut election, 3, Looks, vote(3, 7, 1, 1));
    assert_eq!(out, sends(&[2, 3], vote(3, 7, 1, 1), Looks), "two voted for 2, and that is over");
    assert_eq!(election.deadline(), Some(T0.plus_ms(200)), "now two vote for 3");
    assert_eq!(tick(&mut election, 200), [decided(vote(3, 7, 1, 1), Following)]);
}

#[test]
fn nobody_is_waited_for_when_all_voters_have_cast_the_same_vote() {
    let (mut election, _) = started(3, three(), 7);
    hear(&mut election, 1, Looks, vote(3, 7, 1, 1));
    let out = hear(&mut election, 2, Looks, vote(3, 7, 1, 1));
    assert_eq!(out, [decided(vote(3, 7, 1, 1), Leading)]);
}

#[test]
fn a_voter_that_can_not_be_reached_is_not_waited_for_but_one_that_may_be_is() {
    let (mut election, _) = started(2, three(), 7);
    hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
    assert!(reach(&mut election, 3, Reach::Unknown).is_empty());
    assert_eq!(reach(&mut election, 3, Reach::Unreachable), [decided(vote(2, 7, 1, 1), Leading)]);
}

#[test]
fn who_knows_that_nobody_is_left_to_be_waited_for_tells_those_who_vote_alike() {
    let won = vote(2, 7, 1, 1);
    let (mut one, _) = started(1, three(), 7);
    reach(&mut one, 2, Reach::Connected);
    hear(&mut one, 2, Looks, won);
    let out = reach(&mut one, 3, Reach::Unreachable);
    assert_eq!(out, [sends(&[2], won, Following), vec![decided(won, Following)]].concat());

    let (mut other, _) = started(2, three(), 7);
    reach(&mut other, 1, Reach::Connected);
    assert!(hear(&mut other, 1, Looks, won).is_empty(), "3 may yet come, as far as it knows");
    assert_eq!(hear(&mut other, 1, Following, won), [decided(won, Leading)]);
    let (mut follower, _) = started(1, three(), 7);
    hear(&mut follower, 2, Looks, won);
    assert_eq!(hear(&mut follower, 2, Leading, won), [decided(won, Following)]);

    // Whoever has waited has nothing to tell: ZooKeeper's servers, who wait as long, would begin to wait anew.
    let (mut late, _) = started(2, three(), 7);
    reach(&mut late, 1, Reach::Connected);
    hear(&mut late, 1, Looks, won);
    assert_eq!(tick(&mut late, 200), [decided(won, Leading)]);
}

#[test]
fn a_connected_voter_that_has_not_voted_alike_is_waited_for() {
    let (mut election, _) = started(2, three(), 7);
    reach(&mut election, 3, Reach::Connected);
    hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
    assert_eq!(hear(&mut election, 3, Looks, vote(3, 6, 1, 1)), sends(&[3], vote(2, 7, 1, 1), Looks));
    let out = hear(&mut election, 3, Looks, vote(2, 7, 1, 1));
    assert_eq!(out.last(), Some(&decided(vote(2, 7, 1, 1), Leading)));
}

#[test]
fn without_a_connection_to_the_winner_nothing_is_cut_short() {
    let (mut election, _) = started(1, three(), 7);
    reach(&mut election, 2, Reach::Unreachable);
    let out = hear(&mut election, 3, Looks, vote(3, 7, 1, 1));
    assert_eq!(out, sends(&[2, 3], vote(3, 7, 1, 1), Looks));
    assert_eq!(reach(&mut election, 3, Reach::Connected).last(), Some(&decided(vote(3, 7, 1, 1), Following)));
}

#[test]
fn a_later_round_begins_anew_and_an_earlier_one_is_answered() {
    let (mut election, _) = started(2, three(), 7);
    hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
    let out = hear(&mut election, 3, Looks, vote(3, 5, 4, 1));
    assert_eq!(out, sends(&[1, 3], vote(2, 7, 4, 1), Looks), "its own vote, in the new round");
    assert_eq!(election.deadline(), Some(T0.plus_ms(200)), "the vote of 1 does not count any more");
    assert!(tick(&mut election, 200).iter().all(|output| matches!(output, Output::Send { .. })));
    assert_eq!(hear(&mut election, 1, Looks, vote(1, 9, 1, 1)), sends(&[1], vote(2, 7, 4, 1), Looks));
    assert_eq!(election.round(), 4);
}

#[test]
fn a_round_far_ahead_is_ignored() {
    let (mut election, _) = started(2, three(), 7);
    for round in [2 + ROUNDS_AHEAD_MAX, i64::MAX as u64] {
        assert!(hear(&mut election, 3, Looks, vote(3, 9, round, 1)).is_empty());
        assert!(hear(&mut election, 3, Leading, vote(3, 9, round, 1)).is_empty());
    }
    assert_eq!(election.round(), 1);
    assert!(!hear(&mut election, 3, Looks, vote(3, 9, 1 + ROUNDS_AHEAD_MAX, 1)).is_empty());
}

#[test]
fn votes_are_repeated_less_and_less_often() {
    let (mut election, first) = started(2, three(), 7);
    let mut at = Vec::new();
    for _ in 0..7 {
        let deadline = election.deadline().unwrap();
        at.push(deadline.since(T0).as_millis());
        assert_eq!(tick(&mut election, deadline.since(T0).as_millis() as u64), first);
    }
    assert_eq!(at, [200, 600, 1400, 3000, 5000, 7000, 9000]);
}

#[test]
fn news_of_a_leader_are_a_reason_to_ask_again_soon() {
    let (mut election, _) = started(2, three(), 7);
    for ms in [200, 600, 1400, 3000, 5000] {
        tick(&mut election, ms);
    }
    let heard_at = T0.plus_ms(5_100);
    let mut out = Vec::new();
    for (at, asks_at) in [(heard_at, 5_300), (T0.plus_ms(5_300), 5_300)] {
        election.receive(ServerId(3), &notification(vote(3, 7, 4, 2).ballot(Leading)), at, &mut out);
        assert_eq!(election.deadline(), Some(T0.plus_ms(asks_at)));
    }
    tick(&mut election, 5_300);
    assert_eq!(election.deadline(), Some(T0.plus_ms(5_700)), "the same again is no news");
}

#[test]
fn a_server_that_distrusts_its_history_says_so_and_counts_for_nothing() {
    let mut election = Election::new(ServerId(1), Role::Participant, three(), Timing::default());
    let mut out = Vec::new();
    election.start(None, Epoch(1), T0, &mut out);
    let distrusted = Vote { zxid: Zxid::from_wire(-1), ..vote(1, 0, 1, 0) };
    assert_eq!(out, sends(&[2, 3], distrusted, Looks));
    assert!(hear(&mut election, 2, Looks, vote(3, 7, 1, 1)).is_empty());
    assert!(hear(&mut election, 3, Looks, vote(3, 7, 1, 1)).is_empty());
    assert!(hear(&mut election, 2, Following, vote(1, 7, 1, 1)).is_empty());
    assert!(hear(&mut election, 3, Following, vote(1, 7, 1, 1)).is_empty(), "it is asked to lead, and must not");
    hear(&mut election, 2, Following, vote(3, 7, 5, 2));
    assert_eq!(hear(&mut election, 3, Leading, vote(3, 7, 5, 2)), [decided(vote(3, 7, 5, 2), Following)]);

    // The other side: such a vote is neither adopted nor counted, and nobody waits for it.
    let (mut election, _) = started(2, three(), 7);
    assert!(hear(&mut election, 1, Looks, Vote { epoch: Epoch(9), ..distrusted }).is_empty());
    assert!(hear(&mut election, 1, Looks, Vote { zxid: Zxid::from_wire(-1), ..vote(2, 7, 1, 1) }).is_empty());
    assert_eq!(hear(&mut election, 3, Looks, vote(2, 7, 1, 1)).last(), Some(&decided(vote(2, 7, 1, 1), Leading)));
}

#[test]
fn a_server_without_weight_is_neither_elected_nor_waited_for() {
    let weighted = || {
        let lines = "server.1=h:1:2\nserver.2=h:1:3\nserver.3=h:1:4\ngroup.1=1:2:3\nweight.3=0";
        Configs::new(Arc::new(EnsembleConfig::parse(lines.as_bytes()).unwrap()), None)
    };
    let (mut election, _) = started(2, weighted(), 7);
    assert_eq!(hear(&mut election, 3, Looks, vote(3, 9, 1, 1)), sends(&[3], vote(2, 7, 1, 1), Looks));
    assert_eq!(hear(&mut election, 1, Looks, vote(2, 7, 1, 1)), [decided(vote(2, 7, 1, 1), Leading)]);

    let (mut election, _) = started(3, weighted(), 9);
    hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
    let longer = sends(&[2], vote(3, 9, 1, 1), Looks);
    assert_eq!(hear(&mut election, 2, Looks, vote(2, 7, 1, 1)), longer, "its own history is longer");
    hear(&mut election, 1, Following, vote(2, 7, 1, 1));
    assert_eq!(hear(&mut election, 2, Leading, vote(2, 7, 1, 1)), [decided(vote(2, 7, 1, 1), Following)]);
}

#[test]
fn those_who_look_are_told_who_leads() {
    let (mut election, _) = started(2, three(), 7);
    hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
    tick(&mut election, 200);
    let looker = |from: u8| {
        let mut expected = sends(&[from], vote(2, 7, 1, 1), Leading);
        expected.push(Output::Looker { from: ServerId(from) });
        expected
    };
    assert_eq!(hear(&mut election, 3, Looks, vote(3, 9, 1, 1)), looker(3), "also when its history is longer");
    assert_eq!(hear(&mut election, 3, Looks, vote(3, 9, u64::MAX >> 2, 1)), looker(3), "whatever its round");
    assert!(hear(&mut election, 1, Following, vote(2, 7, 1, 1)).is_empty());
    assert!(hear(&mut election, 1, Leading, vote(2, 7, 9, 4)).is_empty());
}

#[test]
fn who_was_elected_by_votes_that_were_old_hears_that_the_voters_follow_another() {
    let (mut election, _) = started(2, three(), 7);
    hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
    tick(&mut election, 200);
    let gone = [Output::Looker { from: ServerId(1) }];
    assert_eq!(hear(&mut election, 1, Following, vote(3, 6, 2, 1)), gone);
    assert_eq!(hear(&mut election, 1, Leading, vote(1, 6, 1, 1)), gone, "in the same round too");
    // What a ZooKeeper server says for a moment when it has just been elected by: its state is new, its vote is not.
    let (mut election, _) = started(2, three(), 7);
    hear(&mut election, 1, Looks, vote(2, 7, 3, 1));
    tick(&mut election, 200);
    assert!(hear(&mut election, 1, Following, vote(3, 6, 2, 1)).is_empty());
}

#[test]
fn a_leader_that_heard_nobody_does_not_stand_before_it_hears_a_quorum_or_has_someone_better_to_vote_for() {
    let five = || configs("server.1=h:1:2\nserver.2=h:1:3\nserver.3=h:1:4\nserver.4=h:1:5\nserver.5=h:1:6");
    let unheard = || {
        let mut election = Election::new(ServerId(3), Role::Participant, five(), Timing::default());
        let mut out = Vec::new();
        election.start_unheard(Some(Zxid(7)), Epoch(1), T0, &mut out);
        let doubtful = Ballot { state: Looks, leader: 3, zxid: -1, epoch: 0, round: 1 };
        let all = [1, 2, 4, 5].map(|to| Output::Send { to: ServerId(to), ballot: doubtful });
        assert_eq!(out, all, "as one that distrusts its history");
        assert_eq!(election.vote(), None);
        election
    };
    let mut election = unheard();
    assert!(hear(&mut election, 1, Looks, vote(1, 6, 1, 1)).is_empty(), "two of five");
    let out = hear(&mut election, 2, Following, vote(4, 6, 1, 1));
    assert_eq!(out, sends(&[1, 2, 4, 5], vote(3, 7, 1, 1), Looks), "three of five");
    let mut election = unheard();
    let out = hear(&mut election, 4, Looks, vote(4, 7, 5, 1));
    assert_eq!(out.last(), sends(&[5], vote(4, 7, 5, 1), Looks).last(), "a better one gets its vote, in its round");
    // Alone it has nobody to hear.
    let mut alone = Election::new(ServerId(1), Role::Participant, configs("server.1=h:1:2"), Timing::default());
    let mut out = Vec::new();
    alone.start_unheard(Some(Zxid(7)), Epoch(1), T0, &mut out);
    assert_eq!(out, [decided(vote(1, 7, 1, 1), Leading)]);
}

#[test]
fn a_leader_that_does_not_hear_of_its_election_is_left_and_passed_over_for_a_while() {
    let looks_at = |election: &mut Election, ms: u64, round: u64| {
        let mut out = Vec::new();
        election.receive(ServerId(3), &notification(vote(3, 9, round, 1).ballot(Looks)), T0.plus_ms(ms), &mut out);
        out
    };
    let won = vote(3, 9, 1, 1);
    let (mut election, _) = started(1, three(), 7);
    reach(&mut election, 3, Reach::Connected);
    hear(&mut election, 2, Looks, won);
    hear(&mut election, 3, Looks, won);
    assert_eq!(election.state(), Following);
    assert_eq!(looks_at(&mut election, 999, 1), sends(&[3], won, Following), "it may not know yet");
    let left = Output::Looker { from: ServerId(3) };
    assert_eq!(looks_at(&mut election, 1_000, 1), [sends(&[3], won, Following), vec![left]].concat());
    election.start(Some(Zxid(7)), Epoch(1), T0.plus_ms(1_001), &mut Vec::new());
    looks_at(&mut election, 1_002, 2);
    assert_eq!(election.vote(), Some(vote(1, 7, 2, 1)), "it is not voted for");
    looks_at(&mut election, 3_000, 2);
    assert_eq!(election.vote(), Some(vote(3, 9, 2, 1)), "it may be the only one with the whole history");
}

#[test]
fn when_the_leader_is_established_those_who_asked_before_are_told() {
    let (mut election, _) = started(2, three(), 7);
    for peer in [1, 3, 4] {
        reach(&mut election, peer, Reach::Connected);
    }
    let observer = Ballot { state: Looks, leader: i64::MIN, zxid: i64::MIN, epoch: i64::MIN, round: 1 };
    assert_eq!(hear_raw(&mut election, 4, &notification(observer)), sends(&[4], vote(2, 7, 1, 1), Looks));
    hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
    let mut expected = sends(&[4], vote(2, 7, 1, 1), Leading);
    expected.push(decided(vote(2, 7, 1, 1), Leading));
    assert_eq!(tick(&mut election, 200), expected);
    hear(&mut election, 3, Looks, vote(3, 6, 1, 1));
    let mut out = Vec::new();
    election.established(Epoch(2), &mut out);
    assert_eq!(out, sends(&[3, 4], vote(2, 7, 1, 2), Leading));
    out.clear();
    election.established(Epoch(2), &mut out);
    assert!(out.is_empty(), "once");
}

#[test]
fn observers_and_strangers_are_answered_and_not_counted() {
    for stranger in [4, 200] {
        let (mut election, _) = started(2, three(), 7);
        let ask = notification(vote(3, 9, 1, 1).ballot(Looks));
        assert_eq!(hear_raw(&mut election, stranger, &ask), sends(&[stranger], vote(2, 7, 1, 1), Looks));
        assert!(hear_raw(&mut election, stranger, &ask).is_empty(), "two strangers would never end");
        assert!(hear(&mut election, stranger, Leading, vote(3, 9, 1, 1)).is_empty());
        tick(&mut election, 200);
        assert_eq!(hear_raw(&mut election, stranger, &ask).len(), 1);
        hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
        tick(&mut election, 1000);
        assert_eq!(hear_raw(&mut election, stranger, &ask), sends(&[stranger], vote(2, 7, 1, 1), Leading));
        assert!(hear(&mut election, stranger, Following, vote(3, 9, 1, 1)).is_empty());
    }
}

#[test]
fn a_newcomer_needs_a_quorum_and_the_leaders_own_word() {
    let five = configs("server.1=h:1:2\nserver.2=h:1:3\nserver.3=h:1:4\nserver.4=h:1:5\nserver.5=h:1:6");
    let (mut election, _) = started(1, five.clone(), 7);
    hear(&mut election, 5, Leading, vote(5, 3, 9, 4));
    assert!(hear(&mut election, 2, Following, vote(5, 1, 6, 4)).is_empty(), "zxid and round are of no account");
    assert!(hear(&mut election, 4, Following, vote(5, 3, 9, 3)).is_empty(), "another epoch");
    assert_eq!(hear(&mut election, 3, Following, vote(5, 2, 8, 4)), [decided(vote(5, 2, 8, 4), Following)]);
    assert_eq!(election.round(), 8);

    let (mut election, _) = started(1, five, 7);
    for follower in [2, 3, 4] {
        let out = hear(&mut election, follower, Following, vote(5, 3, 9, 4));
        assert!(out.is_empty(), "the leader may be dead");
    }
    assert_eq!(hear(&mut election, 5, Leading, vote(5, 3, 9, 4)), [decided(vote(5, 3, 9, 4), Following)]);
}

#[test]
fn what_a_server_said_when_it_had_a_leader_is_void_when_it_looks_or_is_gone() {
    for gone in [false, true] {
        let (mut election, _) = started(1, three(), 7);
        hear(&mut election, 2, Following, vote(3, 5, 4, 2));
        if gone {
            reach(&mut election, 2, Reach::Unreachable);
        } else {
            hear(&mut election, 2, Looks, vote(2, 5, 1, 2));
        }
        assert!(!hear(&mut election, 3, Leading, vote(3, 5, 4, 2)).contains(&decided(vote(3, 5, 4, 2), Following)));
    }
}

#[test]
fn a_voter_that_is_gone_takes_its_vote_with_it() {
    let five = configs("server.1=h:1:2\nserver.2=h:1:3\nserver.3=h:1:4\nserver.4=h:1:5\nserver.5=h:1:6");
    let (mut election, _) = started(5, five, 7);
    hear(&mut election, 1, Looks, vote(5, 7, 1, 1));
    reach(&mut election, 1, Reach::Unreachable);
    assert!(hear(&mut election, 2, Looks, vote(5, 7, 1, 1)).is_empty());
    assert!(!tick(&mut election, 200).contains(&decided(vote(5, 7, 1, 1), Leading)), "two of five");
    hear(&mut election, 3, Looks, vote(5, 7, 1, 1));
    assert_eq!(election.deadline(), Some(T0.plus_ms(200)), "three of five");
}

#[test]
fn what_was_said_in_an_earlier_round_is_not_of_this_one() {
    let (mut election, _) = started(1, three(), 9);
    hear(&mut election, 3, Leading, vote(3, 7, 1, 2));
    hear(&mut election, 2, Looks, vote(2, 7, 2, 1));
    assert_eq!(election.round(), 2);
    assert!(
        hear(&mut election, 2, Following, vote(3, 7, 2, 1)).is_empty(),
        "neither the epoch nor the round is the same"
    );
    assert_eq!(hear(&mut election, 3, Leading, vote(3, 7, 1, 1)), [decided(vote(3, 7, 1, 1), Following)]);
}

#[test]
fn in_one_round_followers_agree_by_the_leaders_name() {
    let (mut election, _) = started(1, three(), 9);
    hear(&mut election, 2, Following, vote(3, 7, 1, 1));
    assert_eq!(hear(&mut election, 3, Leading, vote(3, 7, 1, 2)), [decided(vote(3, 7, 1, 2), Following)]);
}

#[test]
fn one_who_is_waited_for_in_this_round_leads() {
    let (mut election, _) = started(3, three(), 9);
    let out = hear(&mut election, 1, Following, vote(3, 9, 1, 1));
    assert_eq!(out, [decided(vote(3, 9, 1, 1), Leading)], "our own vote is as good as another");
    let five = configs("server.1=h:1:2\nserver.2=h:1:3\nserver.3=h:1:4\nserver.4=h:1:5\nserver.5=h:1:6");
    let (mut election, _) = started(3, five, 9);
    hear(&mut election, 5, Looks, vote(5, 10, 1, 1));
    hear(&mut election, 1, Following, vote(3, 9, 1, 1));
    hear(&mut election, 2, Following, vote(3, 9, 1, 1));
    assert_eq!(hear(&mut election, 4, Following, vote(3, 9, 1, 1)), [decided(vote(3, 9, 1, 1), Leading)]);
    let (mut election, _) = started(3, three(), 9);
    for epoch in [1, 2] {
        hear(&mut election, 1, Following, vote(3, 8, 1, epoch));
        assert!(hear(&mut election, 2, Following, vote(3, 8, 1, epoch)).is_empty(), "they follow what it was before");
    }
    let (mut election, _) = started(3, three(), 9);
    hear(&mut election, 1, Following, vote(3, 9, 2, 1));
    assert!(hear(&mut election, 2, Following, vote(3, 9, 2, 1)).is_empty(), "of another round: from before a restart");
}

#[test]
fn servers_older_than_the_version_agree_by_the_leaders_name() {
    let old =
        |state, round| Notification { version: 0, config: None, ..notification(vote(3, 7, round, 1).ballot(state)) };
    let (mut election, _) = started(1, three(), 9);
    hear(&mut election, 2, Following, vote(3, 7, 5, 2));
    let out = hear_raw(&mut election, 3, &old(Leading, 5));
    assert_eq!(out, [decided(vote(3, 7, 5, 1), Following)], "one of the two does not tell the epoch");
    let (mut election, _) = started(1, three(), 7);
    assert!(!hear_raw(&mut election, 3, &old(Looks, 1)).is_empty(), "a vote like any other");
}

#[test]
fn an_observer_finds_the_leader_and_is_not_moved_by_votes() {
    let (mut election, out) = started(4, three(), 7);
    let ballot = Ballot { state: Looks, leader: i64::MIN, zxid: i64::MIN, epoch: i64::MIN, round: 1 };
    assert_eq!(out, [1, 2, 3].map(|to| Output::Send { to: ServerId(to), ballot }));
    for voter in [1, 2, 3] {
        assert!(hear(&mut election, voter, Looks, vote(3, 7, 1, 1)).is_empty());
    }
    hear(&mut election, 1, Following, vote(3, 7, 1, 2));
    assert_eq!(hear(&mut election, 3, Leading, vote(3, 7, 1, 2)), [decided(vote(3, 7, 1, 2), Observing)]);
}

#[test]
fn one_who_is_not_yet_a_member_follows_without_a_vote() {
    let (mut election, out) = started(9, three(), 7);
    let ballot = Ballot { state: Looks, leader: i64::MIN, zxid: 7, epoch: 1, round: 1 };
    assert_eq!(out.first(), Some(&Output::Send { to: ServerId(1), ballot }));
    hear(&mut election, 1, Following, vote(3, 7, 1, 2));
    assert_eq!(hear(&mut election, 3, Leading, vote(3, 7, 1, 2)), [decided(vote(3, 7, 1, 2), Following)]);
}

#[test]
fn when_the_one_voted_for_goes_away_a_new_round_begins_at_once() {
    let (mut election, _) = started(1, three(), 7);
    reach(&mut election, 3, Reach::Connected);
    hear(&mut election, 3, Looks, vote(3, 9, 1, 1));
    assert_eq!(reach(&mut election, 3, Reach::Unknown), sends(&[3], vote(3, 9, 1, 1), Looks), "it may come back");
    assert_eq!(reach(&mut election, 3, Reach::Unreachable), sends(&[2, 3], vote(1, 7, 2, 1), Looks));
    // Others may still vote for it, and we for it with them, but not round after round.
    hear(&mut election, 2, Looks, vote(3, 9, 2, 1));
    assert!(reach(&mut election, 3, Reach::Unreachable).is_empty());
    assert_eq!(election.round(), 2);
}

#[test]
fn a_new_connection_brings_the_vote_while_looking_and_nothing_after_it() {
    let (mut election, _) = started(2, three(), 7);
    assert_eq!(reach(&mut election, 3, Reach::Connected), sends(&[3], vote(2, 7, 1, 1), Looks));
    assert_eq!(reach(&mut election, 3, Reach::Connected), sends(&[3], vote(2, 7, 1, 1), Looks), "replaced by another");
    assert!(reach(&mut election, 4, Reach::Connected).is_empty(), "an observer asks");
    hear(&mut election, 1, Looks, vote(2, 7, 1, 1));
    tick(&mut election, 200);
    assert!(reach(&mut election, 3, Reach::Connected).is_empty());
}

#[test]
fn a_peer_that_hangs_up_again_and_again_is_not_called_each_time() {
    let (mut election, _) = started(2, three(), 7);
    let mut calls = 0;
    for _ in 0..100 {
        reach(&mut election, 3, Reach::Connected);
        calls += reach(&mut election, 3, Reach::Unknown).len();
    }
    assert_eq!(calls, 1);
}

#[test]
fn alone_it_leads_at_once() {
    let (election, out) = started(1, configs("server.1=h:1:2"), 7);
    assert_eq!(out, [decided(vote(1, 7, 1, 1), Leading)]);
    assert_eq!(election.vote(), Some(vote(1, 7, 1, 1)));
}

#[test]
fn nonsense_is_dropped_and_the_next_vote_counts() {
    let (mut election, _) = started(2, three(), 7);
    let good = notification(vote(3, 9, 1, 1).ballot(Looks));
    for bad in [
        Notification { leader: 9, ..good.clone() },
        Notification { leader: 4, ..good.clone() },
        Notification { leader: -1, ..good.clone() },
        Notification { leader: i64::MAX, ..good.clone() },
        Notification { round: -1, ..good.clone() },
        Notification { round: i64::MAX, ..good.clone() },
        Notification { peer_epoch: -1, ..good.clone() },
        Notification { peer_epoch: i64::MAX, ..good.clone() },
        Notification { zxid: i64::MIN, ..good.clone() },
        Notification { state: Observing, ..good.clone() },
    ] {
        assert!(hear_raw(&mut election, 3, &bad).is_empty(), "{bad:?}");
    }
    assert!(hear_raw(&mut election, 2, &good).is_empty(), "from itself");
    assert_eq!(hear_raw(&mut election, 3, &good), sends(&[1, 3], vote(3, 9, 1, 1), Looks));
}

#[test]
fn while_two_configurations_are_in_force_both_have_to_agree() {
    let parse = |text: &str| Arc::new(EnsembleConfig::parse(text.as_bytes()).unwrap());
    let old = parse("server.1=h:1:2\nserver.2=h:1:3\nserver.3=h:1:4\nversion=1");
    let new = parse("server.1=h:1:2\nserver.4=h:1:5\nserver.5=h:1:6\nversion=2");
    let (mut election, out) = started(1, Configs::new(old, Some(new)), 7);
    assert_eq!(out, sends(&[2, 3, 4, 5], vote(1, 7, 1, 1), Looks));
    hear(&mut election, 2, Looks, vote(1, 7, 1, 1));
    hear(&mut election, 3, Looks, vote(1, 7, 1, 1));
    assert!(tick(&mut election, 200).iter().all(|output| matches!(output, Output::Send { .. })));
    hear(&mut election, 4, Looks, vote(1, 7, 1, 1));
    assert_eq!(hear(&mut election, 5, Looks, vote(1, 7, 1, 1)), [decided(vote(1, 7, 1, 1), Leading)]);
}

#[test]
fn before_the_start_and_after_the_stop_it_is_silent() {
    let mut election = Election::new(ServerId(2), Role::Participant, three(), Timing::default());
    assert!(hear(&mut election, 3, Looks, vote(3, 9, 1, 1)).is_empty());
    assert!(reach(&mut election, 3, Reach::Connected).is_empty());
    assert_eq!(election.deadline(), None);
    election.start(Some(Zxid(7)), Epoch(1), T0, &mut Vec::new());
    assert!(!hear(&mut election, 1, Looks, vote(1, 9, 1, 1)).is_empty());
    election.stop();
    assert!(hear(&mut election, 1, Looks, vote(1, 9, 1, 1)).is_empty());
}

fn any_vote() -> impl Strategy<Value = Vote> {
    (0..3u8, 0..3i64, 0..2u64, 0..3u32).prop_map(|(leader, zxid, round, epoch)| Vote {
        zxid: Zxid::from_wire(zxid - 1),
        ..vote(leader, 0, round, epoch)
    })
}

proptest! {
    /// C-31: an order that is not one lets votes run in circles.
    #[test]
    fn better_is_a_total_order(a in any_vote(), b in any_vote(), c in any_vote()) {
        let (election, _) = started(2, three(), 7);
        let better = |a: &Vote, b: &Vote| election.is_better(a, b, T0);
        prop_assert!(!(better(&a, &b) && better(&b, &a)));
        prop_assert!(!(better(&a, &b) && better(&b, &c)) || better(&a, &c));
        let same = (a.leader, a.zxid, a.epoch) == (b.leader, b.zxid, b.epoch);
        prop_assert!(same || better(&a, &b) || better(&b, &a));
    }

    #[test]
    fn no_message_makes_it_panic(
        messages in prop::collection::vec(
            (0..6u8, 0..4i32, -2..6i64, -2..4i64, any::<i64>(), -2..5i64, -1..4i32, 0..4u8),
            0..40,
        ),
    ) {
        let (mut election, mut out) = started(2, three(), 2);
        for (from, state, leader, zxid, round, epoch, version, what) in messages {
            let round = if what == 0 { round } else { round & 3 };
            let state = PeerState::from_wire(state).unwrap();
            let message = Notification { state, leader, zxid, round, peer_epoch: epoch, version, config: Some(b"version=9") };
            election.receive(ServerId(from), &message, T0, &mut out);
            match what {
                1 => election.reach(ServerId(from), Reach::Connected, T0, &mut out),
                2 => election.reach(ServerId(from), Reach::Unreachable, T0, &mut out),
                3 if election.state() != Looks => election.start(Some(Zxid(2)), Epoch(1), T0, &mut out),
                _ => {}
            }
            prop_assert!(election.round() <= 60 + ROUNDS_AHEAD_MAX * 41);
        }
    }
}
