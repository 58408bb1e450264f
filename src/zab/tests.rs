//! A leader and its learners without a network or a disk: packets are handed over when the test says so, and logs become
//! durable when it says so.

use super::Timing;
use super::ensemble::EnsembleConfig;
use super::history::History;
use super::leader::{Heard, Leader, LeaderOutput, LeaderStart, Link};
use super::learner::{Brought, Learner, LearnerOutput, LearnerStart};
use super::peer::{Peer, Role};
use super::quorum::{Quorum, ServerSet};
use crate::clock::Now;
use crate::ids::{Epoch, ServerId, SessionId, Zxid};
use crate::wire::quorum::{LearnerInfo, PROTOCOL_VERSION, PacketType, QuorumPacket, SessionValid};
use std::sync::Arc;

const TIMING: Timing = Timing { tick_ms: 1000, connect_limit: 7, init_limit: 10, sync_limit: 5 };

fn z(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

fn history(entries: &[Zxid]) -> History {
    let mut history = History::new(Zxid::ZERO, 1 << 20);
    for &zxid in entries {
        history.push(zxid, format!("{zxid}").as_bytes());
    }
    history
}

fn zxids(history: &History) -> Vec<Zxid> {
    history.between(Zxid::ZERO, Zxid(u64::MAX)).map(|(zxid, _)| zxid).collect()
}

fn leader_start(voters: ServerSet, current: u32, heard: Epoch) -> LeaderStart {
    LeaderStart {
        me: ServerId(1),
        quorum: Arc::new(Quorum::majority(voters, ServerSet::EMPTY)),
        timing: TIMING,
        config_text: b"version=0".as_slice().into(),
        config_version: 0,
        accepted: Epoch(current),
        current: Epoch(current),
        heard,
        counter_max: u32::MAX,
        output_max: 1 << 20,
    }
}

/// Three voters, and what else there is.
const MEMBERS: &str = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n";

fn config(more: &str) -> Arc<EnsembleConfig> {
    Arc::new(EnsembleConfig::parse(format!("{MEMBERS}{more}").as_bytes()).unwrap())
}

fn learner_start(me: u8, current: u32) -> LearnerStart {
    LearnerStart {
        me: ServerId(me),
        observer: false,
        timing: TIMING,
        config: config(""),
        accepted: Epoch(current),
        current: Epoch(current),
        quarantined: false,
    }
}

struct Follower {
    learner: Learner,
    history: History,
    epochs: (Epoch, Epoch),
    committed: Zxid,
    serving: bool,
    lost: Option<String>,
    /// What it was asked to do with its history.
    replaced: Vec<LearnerOutput>,
    /// Kinds of packets that it received.
    received: Vec<PacketType>,
    syncs: usize,
    /// Durable at once; else when the test says so.
    disk_is_fast: bool,
}

struct Lab {
    leader: Leader,
    history: History,
    followers: Vec<Follower>,
    events: Vec<LeaderOutput>,
    now: Now,
}

impl Lab {
    /// Server 1 leads; the others are voters 2, 3, …
    fn new(leader_history: &[Zxid], current: u32, others: &[(&[Zxid], u32)]) -> Lab {
        Lab::with_observers(0, leader_history, current, others)
    }

    /// The last of the others are observers.
    fn with_observers(observers: usize, leader_history: &[Zxid], current: u32, others: &[(&[Zxid], u32)]) -> Lab {
        let last_voter = (others.len() - observers) as u8 + 1;
        let voters: ServerSet = (1..=last_voter).map(ServerId).collect();
        let observers: ServerSet = (last_voter + 1..=others.len() as u8 + 1).map(ServerId).collect();
        let history_ = history(leader_history);
        let now = Now::START;
        let quorum = Arc::new(Quorum::majority(voters, observers));
        let start = LeaderStart { quorum, ..leader_start(voters, current, Epoch(0)) };
        let leader = Leader::new(start, &history_, now);
        let followers = others.iter().enumerate().map(|(at, &(entries, current))| {
            let history = history(entries);
            let id = at as u8 + 2;
            let start = LearnerStart { observer: observers.contains(ServerId(id)), ..learner_start(id, current) };
            Follower {
                learner: Learner::new(start, &history, now),
                history,
                epochs: (Epoch(current), Epoch(current)),
                committed: Zxid::ZERO,
                serving: false,
                lost: None,
                replaced: Vec::new(),
                received: Vec::new(),
                syncs: 0,
                disk_is_fast: true,
            }
        });
        Lab { leader, history: history_, followers: followers.collect(), events: Vec::new(), now }
    }

    fn connect(&mut self, follower: usize) {
        self.leader.connected(Link(follower as u32), self.now);
        self.followers[follower].learner.connected(self.now);
        self.run();
    }

    /// Until nothing moves any more.
    fn run(&mut self) {
        for _ in 0..100 {
            self.leader_turn();
            (0..self.followers.len()).for_each(|at| self.follower_turn(at));
        }
    }

    fn leader_turn(&mut self) {
        for output in self.leader.outputs() {
            match output {
                LeaderOutput::StoreEpochs { .. } => self.leader.epochs_stored(&mut self.history, self.now),
                LeaderOutput::CatchUp { link, .. } => self.leader.cannot_catch_up(link, &mut self.history),
                LeaderOutput::SendSnapshot { link } => {
                    let zxid = self.leader.committed();
                    self.leader.snapshot_begins(link, zxid);
                    self.leader.snapshot_sent(link, &mut self.history);
                }
                other => self.events.push(other),
            }
        }
    }

    fn follower_turn(&mut self, at: usize) {
        let follower = &mut self.followers[at];
        let link = Link(at as u32);
        for output in follower.learner.outputs() {
            match output {
                LearnerOutput::StoreEpochs { accepted, current } => {
                    follower.epochs = (accepted, current);
                    follower.learner.epochs_stored(self.now);
                }
                LearnerOutput::Truncate { to } => {
                    follower.history.truncate(to);
                    follower.replaced.push(LearnerOutput::Truncate { to });
                    follower.learner.truncated(to, self.now);
                }
                LearnerOutput::ReceiveSnapshot { zxid } => {
                    follower.history.reset(zxid);
                    follower.replaced.push(LearnerOutput::ReceiveSnapshot { zxid });
                    follower.learner.snapshot_installed(zxid);
                }
                LearnerOutput::Commit { up_to } => follower.committed = up_to,
                LearnerOutput::Serving { up_to, .. } => {
                    (follower.serving, follower.committed) = (true, up_to);
                }
                LearnerOutput::SyncDone => follower.syncs += 1,
                LearnerOutput::Lost { why } => follower.lost = Some(why),
                LearnerOutput::Activated { .. } | LearnerOutput::OtherMembers(_) => panic!("members are fixed"),
            }
        }
        if let Some(output) = self.leader.output(link) {
            let bytes = std::mem::take(output);
            let mut rest = &bytes[..];
            while !follower.learner.is_busy()
                && let Some((packet, taken)) = QuorumPacket::read(rest, 1 << 20).unwrap()
            {
                follower.received.push(packet.packet_type().unwrap());
                match follower.learner.packet(&packet, self.now) {
                    Brought::Proposal { zxid, record } => {
                        follower.history.push(zxid, record);
                        follower.learner.appended(zxid);
                    }
                    Brought::Ping => follower.learner.ping_answer(std::iter::empty()),
                    Brought::Valid(_) | Brought::Nothing => {}
                }
                rest = &rest[taken..];
            }
            let left = rest.to_vec();
            output.splice(0..0, left);
        }
        if follower.disk_is_fast {
            follower.learner.durable(follower.history.last());
        }
        let bytes = std::mem::take(&mut follower.learner.output);
        let mut rest = &bytes[..];
        while let Some((packet, taken)) = QuorumPacket::read(rest, 1 << 20).unwrap() {
            let heard = self.leader.packet(link, packet, &mut self.history, self.now);
            assert!(matches!(heard, Heard::Nothing | Heard::Sessions(_)));
            rest = &rest[taken..];
        }
    }

    fn propose(&mut self) -> Zxid {
        let zxid = self.leader.next_zxid().unwrap();
        self.history.push(zxid, b"a transaction");
        self.leader.propose(zxid, b"a transaction");
        zxid
    }

    fn own_disk(&mut self) {
        self.leader.durable(self.history.last(), &mut self.history);
    }

    fn after_ms(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.leader.tick(&mut self.history, self.now);
        self.run();
    }
}

#[test]
fn a_quorum_of_empty_servers_establishes_the_first_epoch_and_commits() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.run();
    assert!(lab.events.is_empty() && lab.followers[0].received.is_empty());
    lab.connect(0);
    assert_eq!(lab.events, [LeaderOutput::Established { epoch: Epoch(1), up_to: Zxid::ZERO }]);
    assert!(lab.followers[0].serving);
    assert_eq!(lab.followers[0].epochs, (Epoch(1), Epoch(1)));
    let expected = [PacketType::LeaderInfo, PacketType::Diff, PacketType::NewLeader, PacketType::UpToDate];
    assert_eq!(lab.followers[0].received, expected);

    lab.followers[0].disk_is_fast = false;
    let first = lab.propose();
    assert_eq!(first, z(1, 1));
    lab.own_disk();
    lab.run();
    assert_eq!(lab.leader.committed(), Zxid::ZERO, "one of three is no quorum");
    lab.followers[0].disk_is_fast = true;
    lab.run();
    assert_eq!(lab.events.last(), Some(&LeaderOutput::Commit { up_to: first }));
    assert_eq!(lab.followers[0].committed, first);
}

#[test]
fn followers_commit_what_the_leaders_own_disk_does_not_have_yet() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    lab.connect(1);
    let zxid = lab.propose();
    lab.run();
    assert_eq!(lab.followers[1].committed, zxid);
}

#[test]
fn a_learner_that_lacks_some_gets_just_these() {
    let all = [z(1, 1), z(1, 2), z(1, 3), z(2, 1)];
    let mut lab = Lab::new(&all, 2, &[(&all[..2], 2), (&all, 2)]);
    lab.connect(1);
    lab.connect(0);
    assert_eq!(zxids(&lab.followers[0].history), all);
    assert_eq!(lab.followers[0].committed, z(2, 1));
    assert!(lab.followers[0].replaced.is_empty());
}

#[test]
fn an_uncommitted_tail_of_the_same_epoch_is_cut_exactly() {
    let all = [z(1, 1), z(1, 2), z(2, 1)];
    let mut lab = Lab::new(&all, 2, &[(&all, 2), (&[z(1, 1), z(1, 2), z(1, 3), z(1, 4)], 1)]);
    lab.connect(0);
    lab.connect(1);
    assert_eq!(lab.followers[1].replaced, [LearnerOutput::Truncate { to: z(1, 2) }]);
    assert_eq!(zxids(&lab.followers[1].history), all);
    assert!(lab.followers[1].serving);
}

#[test]
fn a_history_that_lies_between_two_entries_but_is_of_another_epoch_is_replaced() {
    // ZOOKEEPER-2832: 2 has (2,1), which nobody committed; 1 and 3 are of epoch 3 and have nothing of epoch 2.
    let mut lab = Lab::new(&[z(1, 1), z(1, 2)], 3, &[(&[z(1, 1), z(1, 2), z(2, 1)], 2), (&[z(1, 1), z(1, 2)], 3)]);
    lab.connect(1);
    lab.connect(0);
    assert_eq!(lab.followers[0].replaced, [LearnerOutput::ReceiveSnapshot { zxid: z(1, 2) }]);
    assert_eq!(lab.followers[0].history.last(), z(1, 2));
}

#[test]
fn a_learner_with_a_later_history_unseats_the_leader() {
    let mut lab = Lab::new(&[z(1, 1)], 1, &[(&[z(1, 1), z(1, 2)], 1), (&[], 1)]);
    lab.connect(0);
    assert!(
        matches!(&lab.events[..], [LeaderOutput::Resign { why }] if why.contains("later history")),
        "{:?}",
        lab.events
    );
}

#[test]
fn what_is_outstanding_comes_behind_newleader_and_commits_with_the_late_ones_ack() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    lab.followers[0].disk_is_fast = false;
    let zxid = lab.propose();
    lab.own_disk();
    lab.run();
    lab.connect(1);
    assert_eq!(lab.leader.committed(), zxid);
    assert_eq!(lab.followers[1].committed, zxid);
    let received = &lab.followers[1].received;
    let at = |kind| received.iter().position(|&k| k == kind).unwrap();
    // ZooKeeper 3.8.0 can't take the commit of what came before.
    assert!(at(PacketType::NewLeader) < at(PacketType::Proposal));
    assert!(at(PacketType::Proposal) < at(PacketType::Commit));
}

#[test]
fn newleader_is_not_acknowledged_before_the_history_is_durable() {
    let all = [z(1, 1), z(1, 2)];
    let mut lab = Lab::new(&all, 1, &[(&all[..1], 1), (&all[..1], 1)]);
    lab.followers[0].disk_is_fast = false;
    lab.connect(0);
    assert_eq!(lab.followers[0].epochs, (Epoch(2), Epoch(1)), "the epoch is promised, its history not yet there");
    assert!(lab.events.is_empty());
    lab.followers[0].disk_is_fast = true;
    lab.run();
    assert_eq!(lab.followers[0].epochs, (Epoch(2), Epoch(2)));
    assert_eq!(lab.events, [LeaderOutput::Established { epoch: Epoch(2), up_to: z(1, 2) }]);
}

#[test]
fn a_quarantined_server_is_not_counted_and_gets_everything() {
    let all = [z(1, 1), z(1, 2)];
    let mut lab = Lab::new(&all, 1, &[(&all, 1), (&all, 1)]);
    let start = LearnerStart { quarantined: true, ..learner_start(2, 1) };
    lab.followers[0].learner = Learner::new(start, &lab.followers[0].history, lab.now);
    lab.connect(0);
    assert!(lab.events.is_empty(), "its word is no part of a quorum: {:?}", lab.events);
    lab.connect(1);
    assert_eq!(lab.followers[0].replaced, [LearnerOutput::ReceiveSnapshot { zxid: z(1, 2) }]);
    assert!(lab.followers[0].serving);
}

#[test]
fn a_sync_is_answered_when_a_quorum_has_answered_a_later_ping() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    lab.connect(1);
    lab.events.clear();
    lab.leader.sync_asked(None, lab.now);
    lab.leader.sync_asked(Some(Link(1)), lab.now);
    lab.leader_turn();
    assert!(lab.events.is_empty(), "nobody has been asked yet");
    lab.run();
    assert_eq!(lab.events, [LeaderOutput::SyncsDone { count: 1 }]);
    assert_eq!(lab.followers[1].syncs, 1);
}

#[test]
fn a_learner_that_waits_for_too_many_syncs_is_dropped_and_those_that_were_answered_do_not_count() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    lab.connect(1);
    let most = crate::limits::LEARNER_SYNCS_MAX;
    lab.leader.sync_asked(Some(Link(1)), lab.now);
    lab.run();
    assert_eq!(lab.followers[1].syncs, 1);
    (0..most).for_each(|_| lab.leader.sync_asked(Some(Link(1)), lab.now));
    assert!(lab.leader.server(Link(1)).is_some());
    lab.leader.sync_asked(Some(Link(1)), lab.now);
    assert!(lab.leader.server(Link(1)).is_none() && lab.leader.server(Link(0)).is_some());
    assert!(lab.leader.is_established());
}

#[test]
fn an_observer_hears_that_a_session_lives_behind_what_the_session_has_written() {
    let mut lab = Lab::with_observers(1, &[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    lab.connect(1);
    let heard_since = |lab: &mut Lab, at: usize| -> Vec<PacketType> {
        lab.run();
        let all = std::mem::take(&mut lab.followers[at].received);
        all.into_iter().filter(|kind| *kind != PacketType::Ping).collect()
    };
    heard_since(&mut lab, 0);
    heard_since(&mut lab, 1);
    lab.followers[0].disk_is_fast = false;
    lab.propose();
    for (link, session) in [(0, 7), (1, 7), (1, 8)] {
        lab.leader.revalidated(Link(link), SessionValid { session: SessionId(session), valid: true });
    }
    assert_eq!(heard_since(&mut lab, 0), [PacketType::Proposal, PacketType::Revalidate]);
    assert!(heard_since(&mut lab, 1).is_empty(), "what the session has written is not committed");
    lab.followers[0].disk_is_fast = true;
    lab.own_disk();
    lab.run();
    assert_eq!(heard_since(&mut lab, 1), [PacketType::Inform, PacketType::Revalidate, PacketType::Revalidate]);
}

#[test]
fn the_link_that_has_said_nothing_for_the_longest_time_is_known() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    assert_eq!(lab.leader.oldest_silent(), None);
    for stranger in [7, 8] {
        lab.leader.connected(Link(stranger), lab.now);
    }
    assert_eq!(lab.leader.oldest_silent(), Some(Link(7)));
    lab.leader.closed(Link(7));
    assert_eq!(lab.leader.oldest_silent(), Some(Link(8)));
}

#[test]
fn a_leader_that_hears_nothing_from_a_quorum_resigns_within_synclimit_and_a_tick() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    for _ in 0..6 {
        lab.after_ms(500);
    }
    assert!(lab.leader.is_established(), "pings are answered");
    for _ in 0..12 {
        lab.now = lab.now.plus_ms(500);
        lab.leader.tick(&mut lab.history, lab.now);
    }
    lab.leader_turn();
    assert!(matches!(lab.events.last(), Some(LeaderOutput::Resign { .. })), "{:?}", lab.events);
}

#[test]
fn a_leader_without_an_epoch_gives_up_when_its_voters_look_for_a_leader_again() {
    let resigned = |lab: &Lab| lab.events.iter().any(|event| matches!(event, LeaderOutput::Resign { .. }));
    let others: [(&[Zxid], u32); 4] = [(&[], 0); 4];
    let mut lab = Lab::new(&[z(1, 1)], 1, &others);
    for stray in [2, 3] {
        lab.leader.strays(ServerId(stray), ServerSet::EMPTY);
        lab.run();
        assert!(!resigned(&lab), "three of five may yet come");
    }
    // One of them has found the way here.
    lab.connect(0);
    lab.leader.strays(ServerId(4), ServerSet::EMPTY);
    lab.leader.strays(ServerId(9), ServerSet::EMPTY);
    lab.run();
    assert!(!resigned(&lab), "three of five may yet come, and a stranger says nothing");
    lab.leader.strays(ServerId(5), ServerSet::EMPTY);
    lab.run();
    assert!(resigned(&lab));

    // With a quorum there is nothing to give up for: whoever looks is about to find it.
    let mut lab = Lab::new(&[z(1, 1)], 1, &others[..2]);
    lab.connect(0);
    lab.leader.strays(ServerId(2), ServerSet::EMPTY);
    lab.leader.strays(ServerId(3), ServerSet::EMPTY);
    lab.run();
    assert!(lab.leader.is_established() && !resigned(&lab));
}

#[test]
fn a_leader_without_an_epoch_does_not_wait_for_a_voter_that_nobody_reaches() {
    let resigned = |lab: &Lab| lab.events.iter().any(|event| matches!(event, LeaderOutput::Resign { .. }));
    let down: ServerSet = [ServerId(3)].into_iter().collect();
    let others: [(&[Zxid], u32); 4] = [(&[], 0); 4];
    let mut lab = Lab::new(&[z(1, 1)], 1, &others[..2]);
    lab.leader.strays(ServerId(2), down);
    lab.run();
    assert!(resigned(&lab), "the one voter that is there looks, and finds no quorum that names a leader");

    // The way to its election port says nothing of one that is here.
    let mut lab = Lab::new(&[z(1, 1)], 1, &others);
    lab.connect(1);
    lab.leader.strays(ServerId(2), down);
    lab.leader.strays(ServerId(4), down);
    lab.run();
    assert!(!resigned(&lab), "three of five may yet come");
    lab.leader.closed(Link(1));
    lab.leader.strays(ServerId(4), down);
    lab.run();
    assert!(resigned(&lab));
}

#[test]
fn a_hole_a_stranger_and_a_wrong_commit_end_the_connection_and_nothing_else() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    let packet = |kind, zxid: Zxid| QuorumPacket::new(kind, zxid.to_wire(), Some(b"record"));
    for (kind, zxid) in [(PacketType::Proposal, z(1, 2)), (PacketType::Commit, z(1, 1)), (PacketType::Diff, z(1, 1))] {
        let mut other = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
        other.connect(0);
        assert_eq!(other.followers[0].learner.packet(&packet(kind, zxid), other.now), Brought::Nothing);
        other.run();
        assert!(other.followers[0].lost.is_some(), "{kind:?}");
    }
    lab.leader.connected(Link(9), lab.now);
    let _ = lab.leader.packet(Link(9), packet(PacketType::FollowerInfo, Zxid::ZERO), &mut lab.history, lab.now);
    let _ = lab.leader.packet(Link(0), packet(PacketType::Ack, z(1, 7)), &mut lab.history, lab.now);
    lab.run();
    let closed = lab.events.iter().filter(|event| matches!(event, LeaderOutput::Close { .. })).count();
    assert_eq!(closed, 2, "{:?}", lab.events);
    assert!(lab.leader.is_established());
}

#[test]
fn each_proposal_is_acknowledged_on_its_own_in_order_and_a_repeated_one_twice() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    let follower = &mut lab.followers[0];
    for zxid in [z(1, 1), z(1, 2), z(1, 3)] {
        let packet = QuorumPacket::new(PacketType::Proposal, zxid.to_wire(), Some(b"record"));
        assert_eq!(follower.learner.packet(&packet, lab.now), Brought::Proposal { zxid, record: b"record" });
        follower.history.push(zxid, b"record");
        follower.learner.appended(zxid);
    }
    let again = QuorumPacket::new(PacketType::Proposal, z(1, 3).to_wire(), Some(b"record"));
    assert_eq!(follower.learner.packet(&again, lab.now), Brought::Nothing);
    follower.learner.durable(z(1, 3));
    let mut acks = Vec::new();
    let mut rest = &follower.learner.output[..];
    while let Some((packet, taken)) = QuorumPacket::read(rest, 100).unwrap() {
        acks.push((packet.packet_type().unwrap(), Zxid::from_wire(packet.zxid)));
        rest = &rest[taken..];
    }
    assert_eq!(acks, [1, 2, 3, 3].map(|counter| (PacketType::Ack, z(1, counter))));
}

/// Server 2 of three, in epoch 1.
fn peer(entries: &[Zxid], quarantined: bool) -> Peer {
    let settings = super::PeerSettings {
        me: ServerId(2),
        config: config(""),
        timing: TIMING,
        output_max: 1 << 20,
        counter_max: u32::MAX,
    };
    Peer::new(settings, history(entries), Epoch(1), Epoch(1), quarantined)
}

#[test]
fn a_quarantine_ends_with_the_leaders_history_also_within_the_same_epoch() {
    let mut peer = peer(&[z(1, 1)], true);
    assert_eq!(peer.candidacy().unwrap().last, None, "it does not vote");
    peer.elected(ServerId(1), Now::START);
    let Role::Learning { learner, .. } = &mut peer.role else { panic!("it follows") };
    learner.connected(Now::START);
    for (kind, zxid) in [(PacketType::LeaderInfo, z(1, 0)), (PacketType::Snap, z(1, 5))] {
        learner.packet(&QuorumPacket::new(kind, zxid.to_wire(), None), Now::START);
    }
    assert!(!peer.ends_quarantine(Epoch(2), Epoch(1)), "a promise alone changes nothing");
    peer.snapshot_installed(z(1, 5));
    let Role::Learning { learner, .. } = &mut peer.role else { panic!("it follows") };
    learner.packet(&QuorumPacket::new(PacketType::NewLeader, z(1, 0).to_wire(), None), Now::START);
    assert!(peer.ends_quarantine(Epoch(1), Epoch(1)));
    peer.epochs_stored(Epoch(1), Epoch(1), Now::START);
    assert!(!peer.is_quarantined());
}

#[test]
fn what_came_uncommitted_before_newleader_is_acknowledged_though_nothing_follows_it() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0), (&[], 0), (&[], 0)]);
    lab.connect(0);
    lab.connect(1);
    lab.followers[0].disk_is_fast = false;
    lab.followers[1].disk_is_fast = false;
    let zxid = lab.propose();
    lab.own_disk();
    lab.run();
    // A learner whose disk says once, before NEWLEADER, that all is durable, and then is silent.
    lab.followers[2].disk_is_fast = false;
    lab.leader.connected(Link(2), lab.now);
    let (now, follower) = (lab.now, &mut lab.followers[2]);
    follower.learner.connected(now);
    for _ in 0..20 {
        lab.leader_turn();
        lab.follower_turn(2);
        let follower = &mut lab.followers[2];
        if follower.history.last() == zxid && !follower.received.contains(&PacketType::UpToDate) {
            follower.learner.durable(zxid);
        }
    }
    assert!(lab.followers[2].serving);
    // With the acknowledgement of one more the leader has its quorum: itself, this one and that one.
    lab.followers[0].disk_is_fast = true;
    lab.run();
    assert_eq!(lab.leader.committed(), zxid);
}

#[test]
fn each_of_more_proposals_than_the_history_remembers_is_acknowledged() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    let follower = &mut lab.followers[0];
    let record = vec![0; 100_000];
    for counter in 1..=40 {
        let packet = QuorumPacket::new(PacketType::Proposal, z(1, counter).to_wire(), Some(&record));
        assert!(matches!(follower.learner.packet(&packet, lab.now), Brought::Proposal { .. }));
        follower.history.push(z(1, counter), &record);
        follower.learner.appended(z(1, counter));
    }
    assert!(follower.history.base() > z(1, 1), "the history has forgotten the first ones");
    follower.learner.durable(z(1, 40));
    let mut rest = &follower.learner.output[..];
    let mut acks = 0;
    while let Some((packet, taken)) = QuorumPacket::read(rest, 100).unwrap() {
        acks += 1;
        assert_eq!(Zxid::from_wire(packet.zxid), z(1, acks));
        rest = &rest[taken..];
    }
    assert_eq!(acks, 40);
}

#[test]
fn a_learner_that_stops_reading_its_snapshot_is_dropped_and_a_leader_that_stops_sending_it_is_left() {
    let all = [z(1, 1), z(1, 2)];
    let mut lab = Lab::new(&all, 3, &[(&all, 3), (&[z(1, 1), z(1, 2), z(2, 1)], 2)]);
    lab.connect(0);
    assert!(lab.leader.is_established());
    lab.leader.connected(Link(1), lab.now);
    lab.followers[1].learner.connected(lab.now);
    lab.follower_turn(1);
    lab.follower_turn(1);
    lab.follower_turn(1);
    assert!(lab.leader.outputs().contains(&LeaderOutput::SendSnapshot { link: Link(1) }));
    lab.leader.snapshot_begins(Link(1), z(1, 2));
    let mut pass = |ms, reads| {
        for _ in 0..ms / 1_000 {
            lab.now = lab.now.plus_ms(1_000);
            if reads {
                lab.leader.reads(Link(1), lab.now);
            }
            lab.leader.tick(&mut lab.history, lab.now);
            lab.follower_turn(0);
        }
        lab.leader.server(Link(1)).is_some()
    };
    assert!(pass(30_000, true), "it reads, however slowly");
    assert!(!pass(11_000, false));
    let at = lab.now;

    let follower = &mut lab.followers[1];
    let packet = QuorumPacket::new(PacketType::Snap, z(1, 2).to_wire(), None);
    let _ = follower.learner.packet(&packet, at);
    follower.learner.still_alive(at.plus_ms(9_000));
    follower.learner.tick(at.plus_ms(18_000));
    assert!(!follower.learner.is_lost(), "bytes have come");
    follower.learner.tick(at.plus_ms(19_500));
    assert!(follower.learner.is_lost());
}

/// A leader with one follower that serves, and on link 1 another that has been sent a snapshot and makes it durable.
fn lab_with_one_that_installs() -> Lab {
    let all = [z(1, 1), z(1, 2)];
    let mut lab = Lab::new(&all, 3, &[(&all, 3), (&[z(1, 1), z(1, 2), z(2, 1)], 2)]);
    lab.connect(0);
    lab.leader.connected(Link(1), lab.now);
    lab.followers[1].learner.connected(lab.now);
    for _ in 0..3 {
        lab.follower_turn(1);
    }
    lab.leader.snapshot_begins(Link(1), z(1, 2));
    lab.leader.snapshot_sent(Link(1), &mut lab.history);
    lab
}

#[test]
fn a_learner_that_makes_a_whole_state_durable_may_be_silent_for_longer_than_initlimit() {
    let mut lab = lab_with_one_that_installs();
    let mut silent = |ms| {
        for _ in 0..ms / 1_000 {
            lab.now = lab.now.plus_ms(1_000);
            lab.leader.tick(&mut lab.history, lab.now);
            lab.follower_turn(0);
        }
        lab.leader.server(Link(1)).is_some()
    };
    assert!(silent(99_000));
    assert!(!silent(3_000), "but not for ever");
    assert!(lab.leader.is_established());
}

/// What was proposed while it was being synchronised it begins to log only afterwards, and has syncLimit for it.
#[test]
fn what_a_learner_gets_with_its_synchronisation_is_not_late_yet() {
    let mut lab = lab_with_one_that_installs();
    let proposed = lab.propose();
    let seconds = |lab: &mut Lab, count| {
        for _ in 0..count {
            lab.now = lab.now.plus_ms(1_000);
            lab.own_disk();
            lab.leader.tick(&mut lab.history, lab.now);
            lab.follower_turn(0);
        }
    };
    seconds(&mut lab, 30);
    let from_learner = |lab: &mut Lab, zxid: Zxid| {
        let packet = QuorumPacket::new(PacketType::Ack, zxid.to_wire(), None);
        let _ = lab.leader.packet(Link(1), packet, &mut lab.history, lab.now);
    };
    from_learner(&mut lab, Zxid::new(proposed.epoch(), 0));
    seconds(&mut lab, 2);
    assert!(lab.leader.server(Link(1)).is_some(), "it has had no time");
    for _ in 0..30 {
        // It is heard from, and does not acknowledge that.
        from_learner(&mut lab, Zxid::new(proposed.epoch(), 0));
        seconds(&mut lab, 1);
    }
    assert!(lab.leader.server(Link(1)).is_none(), "but not for ever");
}

#[test]
fn a_diff_that_ends_before_the_learners_own_history_is_no_leader_to_follow() {
    let mut lab = Lab::new(&[], 0, &[(&[z(1, 1), z(1, 2)], 1), (&[], 0)]);
    let follower = &mut lab.followers[0];
    follower.learner.connected(lab.now);
    for (kind, zxid) in [(PacketType::LeaderInfo, z(2, 0)), (PacketType::Diff, z(1, 1))] {
        let version = 0x1_0000i32.to_be_bytes();
        let _ = follower.learner.packet(&QuorumPacket::new(kind, zxid.to_wire(), Some(&version)), lab.now);
        for output in follower.learner.outputs() {
            if matches!(output, LearnerOutput::StoreEpochs { .. }) {
                follower.learner.epochs_stored(lab.now);
            }
        }
    }
    assert!(follower.learner.is_lost());
}

#[test]
fn a_voter_that_accepted_an_epoch_which_never_began_is_given_a_newer_one() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.connect(0);
    assert!(lab.leader.is_established());
    let start = LearnerStart { accepted: Epoch(7), ..learner_start(3, 0) };
    lab.followers[1].learner = Learner::new(start, &lab.followers[1].history, lab.now);
    lab.connect(1);
    assert!(matches!(lab.events.last(), Some(LeaderOutput::Resign { .. })), "{:?}", lab.events);
    // Whoever leads next knows of it, also if that voter comes last again.
    let heard = lab.leader.newest_accepted();
    let mut next = Lab::new(&[], 1, &[(&[], 1), (&[], 1)]);
    let voters = [1, 2, 3].map(ServerId).into_iter().collect();
    next.leader = Leader::new(leader_start(voters, 1, heard), &next.history, next.now);
    next.connect(0);
    assert_eq!(next.events, [LeaderOutput::Established { epoch: Epoch(8), up_to: Zxid::ZERO }]);
}

/// TIMING gives 10 s before a learner is synchronised, and 5 s from then on.
#[test]
fn a_learner_whose_disk_took_long_does_not_take_that_for_the_leaders_silence() {
    let mut lab = Lab::new(&[], 0, &[(&[z(1, 1), z(1, 2)], 1), (&[], 0)]);
    let learner = &mut lab.followers[0].learner;
    let mut now = lab.now;
    learner.connected(now);
    let say = |learner: &mut Learner, kind, zxid: Zxid, now| {
        let version = 0x1_0000i32.to_be_bytes();
        let _ = learner.packet(&QuorumPacket::new(kind, zxid.to_wire(), Some(&version)), now);
    };
    say(learner, PacketType::LeaderInfo, z(2, 0), now);
    let mut slowly = |learner: &mut Learner, kind: PacketType| {
        let began = now;
        now = now.plus_ms(11_000);
        for output in learner.outputs() {
            match output {
                LearnerOutput::StoreEpochs { .. } => learner.epochs_stored(now),
                LearnerOutput::Truncate { to } => learner.truncated(to, now),
                other => panic!("{other:?}"),
            }
        }
        // What was there already is read in the turn that began before that.
        say(learner, kind, z(2, 0), began);
        learner.tick(now.plus_ms(4_000));
        assert!(!learner.is_lost(), "before {kind:?}");
        now
    };
    // Storing the promise; then what came uncommitted is cut; then the epoch that it is in.
    slowly(learner, PacketType::Ping);
    let trunc = QuorumPacket::new(PacketType::Trunc, z(1, 1).to_wire(), None);
    let _ = learner.packet(&trunc, lab.now);
    slowly(learner, PacketType::NewLeader);
    let now = slowly(learner, PacketType::Ping);
    learner.tick(now.plus_ms(5_001));
    assert!(learner.is_lost(), "from then on it has been silent");
}

#[test]
fn a_leader_whose_disk_took_long_does_not_take_that_for_its_learners_silence() {
    let mut lab = Lab::new(&[], 0, &[(&[], 0), (&[], 0)]);
    lab.leader.connected(Link(0), lab.now);
    lab.followers[0].learner.connected(lab.now);
    lab.follower_turn(0);
    // FOLLOWERINFO makes the quorum; the learner says nothing more before it knows the epoch.
    let began = lab.now;
    lab.now = began.plus_ms(11_000);
    lab.leader_turn();
    lab.leader.tick(&mut lab.history, lab.now);
    assert_eq!(lab.leader.server(Link(0)), Some(ServerId(2)));
    lab.run();
    assert!(lab.leader.is_established(), "{:?}", lab.events);
}

#[test]
fn what_is_not_applied_yet_stays_in_a_learners_memory_beyond_the_limit() {
    let mut history = History::new(z(1, 0), 1 << 20);
    let record = vec![0; 100_000];
    (1..=30).for_each(|counter| history.push_behind(z(1, counter), &record, z(1, counter.min(3))));
    assert!(history.contains(z(1, 3)), "a snapshot of the tree could be sent, and what follows it");
    (31..=60).for_each(|counter| history.push_behind(z(1, counter), &record, z(1, counter - 1)));
    assert!(history.bytes() <= 1 << 20, "what is applied goes");
}

#[test]
fn a_learner_connects_within_its_own_limit_and_is_synchronised_within_another() {
    let begun = Now::START;
    let mut learner = Learner::new(learner_start(2, 0), &history(&[]), begun);
    assert_eq!(learner.deadline(), begun.plus(TIMING.connect()));
    learner.connected(begun);
    assert_eq!(learner.deadline(), begun.plus(TIMING.init()));
}

/// What a learner that has accepted an epoch does with a leader's: the reason for which it leaves, if it does.
fn told_epoch(accepted: u32, epoch: u32) -> Option<String> {
    let start = LearnerStart { accepted: Epoch(accepted), ..learner_start(2, 0) };
    let mut learner = Learner::new(start, &history(&[]), Now::START);
    learner.connected(Now::START);
    let version = 0x1_0000i32.to_be_bytes();
    let packet = QuorumPacket::new(PacketType::LeaderInfo, z(epoch, 0).to_wire(), Some(&version));
    learner.packet(&packet, Now::START);
    match learner.outputs().pop() {
        Some(LearnerOutput::Lost { why }) => Some(why),
        Some(LearnerOutput::StoreEpochs { accepted, .. }) => {
            assert_eq!(accepted, Epoch(epoch));
            None
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_epoch_that_no_election_can_have_reached_is_not_accepted() {
    // Below 2^31, since a zxid is signed; and such that there are epochs left behind it.
    for (accepted, epoch) in [(0, 1 << 31), (5, u32::MAX), (0, i32::MAX as u32), (5, i32::MAX as u32), (5, 1 << 25)] {
        let why = told_epoch(accepted, epoch).unwrap_or_else(|| panic!("{epoch} is accepted behind {accepted}"));
        assert!(why.contains(&epoch.to_string()), "{why}");
    }
    // A new server knows of none, and one that was away for long of old ones.
    for (accepted, epoch) in [(0, 1), (0, 1 << 25), (5, 6), (5, 1 << 20), (i32::MAX as u32 - 1, i32::MAX as u32)] {
        assert_eq!(told_epoch(accepted, epoch), None, "{epoch} behind {accepted}");
    }
}

#[test]
fn a_leader_gives_out_no_epoch_that_zookeeper_takes_for_a_negative_one() {
    let last = i32::MAX as u32;
    let voters: ServerSet = [1, 2, 3].map(ServerId).into_iter().collect();
    let lead_with = |own: u32, theirs: u32| {
        let mut history = history(&[]);
        let mut leader = Leader::new(leader_start(voters, own, Epoch(0)), &history, Now::START);
        let start = LearnerStart { accepted: Epoch(theirs), ..learner_start(2, 0) };
        let mut learner = Learner::new(start, &history, Now::START);
        learner.connected(Now::START);
        leader.connected(Link(1), Now::START);
        let (hello, _) = QuorumPacket::read(&learner.output, 1 << 20).unwrap().unwrap();
        let _ = leader.packet(Link(1), hello, &mut history, Now::START);
        leader.outputs().pop()
    };
    let chosen = lead_with(last - 2, last - 1);
    assert!(
        matches!(chosen, Some(LeaderOutput::StoreEpochs { accepted, .. }) if accepted == Epoch(last)),
        "{chosen:?}"
    );
    let (used_up, absurd) = (lead_with(last, 5), lead_with(last - 2, last + 1));
    assert!(matches!(used_up, Some(LeaderOutput::Resign { .. })), "{used_up:?}");
    assert!(matches!(absurd, Some(LeaderOutput::Close { .. })), "{absurd:?}");
}

/// What the leader says to a learner, each with what stands in its packet.
fn say(learner: &mut Learner, packets: &[(PacketType, Zxid, &[u8])]) {
    for &(kind, zxid, data) in packets {
        let packet = QuorumPacket::new(kind, zxid.to_wire(), Some(data));
        if let Brought::Proposal { zxid, .. } = learner.packet(&packet, Now::START) {
            learner.appended(zxid);
        }
    }
}

/// Kinds of what a learner has sent.
fn sent(learner: &mut Learner) -> Vec<PacketType> {
    let bytes = std::mem::take(&mut learner.output);
    let (mut rest, mut kinds) = (&bytes[..], Vec::new());
    while let Some((packet, taken)) = QuorumPacket::read(rest, 1 << 20).unwrap() {
        kinds.push(packet.packet_type().unwrap());
        rest = &rest[taken..];
    }
    kinds
}

#[test]
fn a_leader_in_whose_ensemble_others_vote_is_not_acknowledged() {
    use PacketType::{Ack, AckEpoch, Diff, FollowerInfo, LeaderInfo, NewLeader};
    let other = format!("{MEMBERS}server.4=d:1:2\nserver.5=e:1:2\nversion=100000007");
    let same = format!("{MEMBERS}server.4=d:1:2:observer\nversion=100000007");
    for (text, others) in [(&other, true), (&same, false)] {
        let mut learner = Learner::new(learner_start(2, 1), &history(&[]), Now::START);
        learner.connected(Now::START);
        say(&mut learner, &[(LeaderInfo, z(1, 0), b""), (Diff, z(0, 0), b""), (NewLeader, z(1, 0), text.as_bytes())]);
        let outputs = learner.outputs();
        match &outputs[..] {
            [LearnerOutput::OtherMembers(found)] if others => {
                assert!(found.theirs.contains("server.5=e:1:2, version=100000007"), "{}", found.theirs);
                assert!(found.ours.contains("server.3=c:1:2:participant, version=0"), "{}", found.ours);
            }
            [LearnerOutput::StoreEpochs { .. }] if !others => learner.epochs_stored(Now::START),
            _ => panic!("{text}: {outputs:?}"),
        }
        learner.durable(z(0, 0));
        let acknowledged: &[_] = if others { &[] } else { &[Ack] };
        assert_eq!(sent(&mut learner), [&[FollowerInfo, AckEpoch], acknowledged].concat());
    }
}

#[test]
fn a_reconfiguration_is_in_force_when_the_leader_says_so_and_not_when_it_is_proposed() {
    use PacketType::{
        Commit, CommitAndActivate, Diff, Inform, InformAndActivate, LeaderInfo, NewLeader, Proposal, UpToDate,
    };
    for observer in [false, true] {
        let start = LearnerStart { observer, ..learner_start(2, 1) };
        let mut learner = Learner::new(start, &history(&[]), Now::START);
        learner.connected(Now::START);
        let begin: &[(PacketType, Zxid, &[u8])] = &[(LeaderInfo, z(1, 0), b""), (Diff, z(1, 1), b"")];
        let synced: &[_] = &[(NewLeader, z(1, 0), b"version=0".as_slice())];
        let (with, commit, activate) = match observer {
            false => (Proposal, Commit, CommitAndActivate),
            true => (Inform, Inform, InformAndActivate),
        };
        say(&mut learner, begin);
        say(&mut learner, &[(with, z(1, 1), b"12345678txn")]);
        if !observer {
            // What came before NEWLEADER is decided by what that says.
            say(&mut learner, &[(activate, z(1, 1), b"12345678"), (commit, z(1, 1), b"")]);
        }
        say(&mut learner, synced);
        learner.durable(z(1, 1));
        learner.epochs_stored(Now::START);
        say(&mut learner, &[(UpToDate, Zxid::ZERO, b"")]);
        let serving = LearnerOutput::Serving { epoch: Epoch(1), up_to: z(1, 1) };
        assert_eq!(learner.outputs().last(), Some(&serving));
        if !observer {
            say(&mut learner, &[(Proposal, z(1, 2), b"txn")]);
            assert_eq!(learner.outputs(), []);
        }
        let packet = QuorumPacket::new(activate, z(1, 2).to_wire(), Some(b"12345678txn"));
        match learner.packet(&packet, Now::START) {
            // Who is to lead stands before the transaction.
            Brought::Proposal { record, .. } => assert_eq!((observer, record), (true, b"txn".as_slice())),
            brought => assert_eq!((observer, brought), (false, Brought::Nothing)),
        }
        let outputs = [LearnerOutput::Activated { zxid: z(1, 2) }, LearnerOutput::Commit { up_to: z(1, 2) }];
        assert_eq!(learner.outputs(), outputs);
    }
}

/// Once it is in force, every quorum of the old voters has one of those that have it.
#[test]
fn who_has_a_reconfiguration_to_other_voters_has_no_vote_until_a_leader_has_said_who_votes() {
    use PacketType::{Diff, LeaderInfo, NewLeader, Proposal, UpToDate};
    let other = format!("{MEMBERS}server.4=d:1:2\nversion=100000002");
    let mut peer = peer(&[z(1, 1), z(1, 2)], false);
    assert_eq!(peer.candidacy().unwrap().last, Some(z(1, 2)));
    peer.reconfigured(z(1, 2), other.as_bytes());
    assert_eq!(peer.candidacy().unwrap().last, None);
    assert!(peer.activated(z(1, 2)).is_some() && !peer.is_quarantined());
    peer.truncated(z(1, 1), Now::START);
    assert_eq!(peer.candidacy().unwrap().last, Some(z(1, 1)), "it came to nothing");

    // A leader whose configuration is that of this server knows of all that came before it said so, and of nothing later.
    peer.reconfigured(z(1, 1), other.as_bytes());
    peer.elected(ServerId(1), Now::START);
    let Role::Learning { learner, .. } = &mut peer.role else { panic!("it follows") };
    learner.connected(Now::START);
    say(learner, &[(LeaderInfo, z(1, 0), b""), (Diff, z(1, 1), b""), (NewLeader, z(1, 0), MEMBERS.as_bytes())]);
    assert!(peer.other_members().is_some());
    peer.epochs_stored(Epoch(1), Epoch(1), Now::START);
    assert!(peer.other_members().is_some(), "the leader may not have its quorum");
    let Role::Learning { learner, .. } = &mut peer.role else { panic!("it follows") };
    say(learner, &[(UpToDate, Zxid::ZERO, b"")]);
    assert!(peer.serves(z(1, 1)) && peer.other_members().is_none());
    let Role::Learning { learner, .. } = &mut peer.role else { panic!("it follows") };
    say(learner, &[(Proposal, z(1, 2), b"txn")]);
    assert!(!learner.is_lost(), "it may come to nothing");
    peer.history.push(z(1, 2), b"txn");
    peer.reconfigured(z(1, 2), other.as_bytes());
    peer.durable(z(1, 2));
    peer.leave();
    assert_eq!(peer.candidacy().unwrap().last, None);
}

/// ZooKeeper servers with `reconfigEnabled` give the members of a static file a version, and take no leader with an older one.
#[test]
fn a_leader_has_the_version_that_the_others_give_to_the_same_members() {
    let begin = || {
        let mut peer = peer(&[], false);
        peer.elected(ServerId(2), Now::START);
        peer
    };
    let hello = |peer: &mut Peer, version: i64| {
        let Role::Leading(leader) = &mut peer.role else { panic!("it leads") };
        let mut data = Vec::new();
        LearnerInfo { server: 1, protocol_version: PROTOCOL_VERSION, config_version: version }.write(&mut data);
        leader.connected(Link(1), Now::START);
        let packet = QuorumPacket::new(PacketType::FollowerInfo, 0, Some(&data));
        let _ = leader.packet(Link(1), packet, &mut peer.history, Now::START);
        let outputs = leader.outputs();
        !outputs.iter().any(|output| matches!(output, LeaderOutput::Close { .. }))
    };
    let version = z(1, 0);
    assert!(!hello(&mut begin(), version.to_wire()), "nobody has said that it is the same");
    let mut leads = begin();
    leads.agree(version);
    assert!(hello(&mut leads, version.to_wire()));
    for (theirs, taken) in [(version.to_wire(), true), (version.to_wire() + 1, false)] {
        let mut peer = peer(&[], false);
        peer.agree(version);
        peer.agree(Zxid(1));
        peer.elected(ServerId(2), Now::START);
        assert_eq!(hello(&mut peer, theirs), taken, "{theirs:x}");
    }
}
