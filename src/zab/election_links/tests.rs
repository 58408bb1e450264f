use super::*;
use crate::random::Rng;
use std::collections::VecDeque;

const T0: Now = Now(1_000_000_000);

fn links(me: u8) -> ElectionLinks {
    ElectionLinks::new(ServerId(me), [1, 2, 3].map(ServerId).into_iter().collect(), LinkLimits::default())
}

fn ballot(round: i64) -> Ballot {
    Ballot { state: PeerState::Looking, leader: 1, zxid: 0, epoch: 0, round }
}

fn answer(round: i64) -> Ballot {
    Ballot { state: PeerState::Following, ..ballot(round) }
}

fn hello(server: i64) -> InitialMessage {
    InitialMessage { server, addresses: vec!["name.invalid:3888".into()] }
}

fn did(act: impl FnOnce(&mut Vec<LinkOutput>)) -> Vec<LinkOutput> {
    let mut out = Vec::new();
    act(&mut out);
    out
}

fn dial(conn: u64, to: u8) -> LinkOutput {
    LinkOutput::Dial { conn: ConnId(conn), to: ServerId(to), target: Target::Configured }
}

fn close(conn: u64) -> LinkOutput {
    LinkOutput::Close { conn: ConnId(conn), why: None }
}

fn reach(peer: u8, reach: Reach) -> LinkOutput {
    LinkOutput::Reach { peer: ServerId(peer), reach }
}

/// A call that has said who it is.
fn called(links: &mut ElectionLinks, by: i64) -> (ConnId, Vec<LinkOutput>) {
    let mut out = Vec::new();
    let conn = links.accepted(T0, &mut out);
    links.introduced(conn, &hello(by), T0, &mut out);
    (conn, out)
}

#[test]
fn a_call_to_a_smaller_id_is_kept() {
    let mut links = links(3);
    assert_eq!(did(|out| links.send(ServerId(1), ballot(1), T0, out)), [dial(0, 1)]);
    assert!(did(|out| links.send(ServerId(1), ballot(2), T0, out)).is_empty(), "one call at a time");
    let out = did(|out| links.dialed(ConnId(0), true, T0, out));
    assert_eq!(out, [LinkOutput::Introduce { conn: ConnId(0) }, reach(1, Reach::Connected)]);
    assert_eq!(links.peer_of(ConnId(0)), Some(ServerId(1)));
    let write = |round| LinkOutput::Write { conn: ConnId(0), ballot: ballot(round) };
    assert_eq!(did(|out| links.send(ServerId(1), ballot(3), T0, out)), [write(3)]);
    for round in 4..9 {
        assert!(did(|out| links.send(ServerId(1), ballot(round), T0, out)).is_empty());
    }
    assert_eq!(did(|out| links.written(ConnId(0), T0, out)), [write(8)], "the newest is the one that waits");
    assert!(did(|out| links.written(ConnId(0), T0, out)).is_empty());
}

#[test]
fn a_call_to_a_larger_id_is_closed_and_called_back() {
    let mut links = links(1);
    assert_eq!(did(|out| links.send(ServerId(3), answer(1), T0, out)), [dial(0, 3)]);
    let out = did(|out| links.dialed(ConnId(0), true, T0, out));
    assert_eq!(out, [LinkOutput::Introduce { conn: ConnId(0) }, close(0)]);
    assert!(did(|out| links.send(ServerId(3), answer(2), T0, out)).is_empty(), "it is about to call");
    let (conn, out) = called(&mut links, 3);
    let write = LinkOutput::Write { conn, ballot: answer(2) };
    assert_eq!(out, [reach(3, Reach::Connected), write], "an answer is not lost");
}

#[test]
fn a_larger_id_that_does_not_call_back_is_called_again_less_and_less_often() {
    let mut links = links(1);
    did(|out| links.send(ServerId(3), ballot(1), T0, out));
    let mut at = T0;
    for (number, wait_ms) in [50, 100, 200, 400, 800, 1_000, 1_000].into_iter().enumerate() {
        did(|out| links.dialed(ConnId(number as u64), true, at, out));
        assert_eq!(links.deadline(), Some(at.plus_ms(wait_ms)));
        assert!(did(|out| links.tick(at.plus_ms(wait_ms - 1), out)).is_empty());
        at = at.plus_ms(wait_ms);
        assert_eq!(did(|out| links.tick(at, out)), [dial(number as u64 + 1, 3)]);
    }
    called(&mut links, 3);
    assert_eq!(links.deadline(), None, "it has called");
}

#[test]
fn a_larger_id_that_was_about_to_go_when_it_was_called_is_found_out_at_the_next_call() {
    let mut links = links(1);
    did(|out| links.send(ServerId(3), ballot(1), T0, out));
    assert!(!did(|out| links.dialed(ConnId(0), true, T0, out)).contains(&reach(3, Reach::Unreachable)));
    did(|out| links.tick(T0.plus_ms(50), out));
    let out = did(|out| links.dialed(ConnId(1), false, T0.plus_ms(50), out));
    assert_eq!(out, [reach(3, Reach::Unreachable)]);
}

#[test]
fn a_new_call_of_a_larger_id_replaces_the_old_one() {
    let mut links = links(1);
    let (first, _) = called(&mut links, 3);
    let (second, out) = called(&mut links, 3);
    assert_eq!(out, [close(first.0), reach(3, Reach::Connected)]);
    assert_eq!((links.peer_of(first), links.peer_of(second)), (None, Some(ServerId(3))));
    assert!(did(|out| links.closed(first, T0, out)).is_empty());
}

#[test]
fn a_call_of_a_larger_id_ends_our_own_call_to_it() {
    let mut links = links(1);
    did(|out| links.send(ServerId(3), ballot(1), T0, out));
    let (_, out) = called(&mut links, 3);
    assert_eq!(out, [close(0), reach(3, Reach::Connected)], "a vote that waited is out of date");
    assert!(did(|out| links.dialed(ConnId(0), true, T0, out)).is_empty());
}

#[test]
fn a_call_of_a_smaller_id_is_closed_and_answered_by_one() {
    let mut links = links(3);
    let (conn, out) = called(&mut links, 1);
    assert_eq!(out, [dial(conn.0 + 1, 1), close(conn.0)]);
    let (again, out) = called(&mut links, 1);
    assert_eq!(out, [close(again.0)], "one call at a time");
    did(|out| links.dialed(ConnId(conn.0 + 1), true, T0, out));
    let (young, out) = called(&mut links, 1);
    assert_eq!(out, [close(young.0)], "both have called at the same time");

    let later = T0.plus_ms(YOUNG_MS);
    let mut out = Vec::new();
    let late = links.accepted(later, &mut out);
    links.introduced(late, &hello(1), later, &mut out);
    assert_eq!(
        out,
        [close(conn.0 + 1), reach(1, Reach::Unknown), dial(late.0 + 1, 1), close(late.0)],
        "it has lost ours"
    );
}

#[test]
fn a_refused_call_says_that_the_peer_can_not_be_reached_and_its_call_that_it_can() {
    let mut links = links(2);
    did(|out| links.send(ServerId(3), ballot(1), T0, out));
    assert_eq!(did(|out| links.dialed(ConnId(0), false, T0, out)), [reach(3, Reach::Unreachable)]);
    assert_eq!(links.deadline(), None, "there is nothing left to do");
    did(|out| links.send(ServerId(3), ballot(2), T0, out));
    assert!(did(|out| links.dialed(ConnId(1), false, T0, out)).is_empty(), "it is known");
    did(|out| links.send(ServerId(3), ballot(3), T0, out));
    let out = did(|out| links.dialed(ConnId(2), true, T0, out));
    assert_eq!(out.last(), Some(&reach(3, Reach::Unknown)), "it is up, and will call");
}

#[test]
fn a_connection_that_ends_is_made_anew_if_something_waits() {
    let mut links = links(3);
    did(|out| links.send(ServerId(1), ballot(1), T0, out));
    did(|out| links.dialed(ConnId(0), true, T0, out));
    did(|out| links.send(ServerId(1), ballot(2), T0, out));
    did(|out| links.send(ServerId(1), ballot(3), T0, out));
    assert_eq!(did(|out| links.closed(ConnId(0), T0, out)), [reach(1, Reach::Unknown), dial(1, 1)]);
    did(|out| links.dialed(ConnId(1), true, T0, out));
    assert_eq!(did(|out| links.closed(ConnId(1), T0, out)), [reach(1, Reach::Unknown)], "and otherwise not");
}

#[test]
fn every_step_has_its_deadline() {
    let mut links = links(3);
    did(|out| links.send(ServerId(1), ballot(1), T0, out));
    assert_eq!(links.deadline(), Some(T0.plus_ms(5_000)));
    let out = did(|out| links.tick(T0.plus_ms(5_000), out));
    assert_eq!(out, [close(0), reach(1, Reach::Unreachable)], "a call that never comes through");

    let mut out = Vec::new();
    let silent = links.accepted(T0, &mut out);
    assert_eq!(links.deadline(), Some(T0.plus_ms(10_000)));
    links.tick(T0.plus_ms(10_000), &mut out);
    assert_eq!(out, [LinkOutput::Close { conn: silent, why: Some("it did not say who it is") }]);

    did(|out| links.send(ServerId(1), ballot(1), T0, out));
    did(|out| links.dialed(ConnId(2), true, T0, out));
    did(|out| links.send(ServerId(1), ballot(2), T0, out));
    did(|out| links.send(ServerId(1), ballot(3), T0, out));
    let out = did(|out| links.tick(T0.plus_ms(5_000), out));
    let closed = LinkOutput::Close { conn: ConnId(2), why: Some("it does not read") };
    assert_eq!(out, [closed, reach(1, Reach::Unknown), dial(3, 1)]);
}

#[test]
fn who_says_nonsense_is_closed() {
    let mut links = links(2);
    for id in [-1, 2, 256, i64::MAX, i64::MIN] {
        let (conn, out) = called(&mut links, id);
        assert!(matches!(out[..], [LinkOutput::Close { conn: closed, why: Some(_) }] if closed == conn), "{id}");
    }
    let mut out = Vec::new();
    let conn = links.accepted(T0, &mut out);
    links.malformed(conn, T0, &mut out);
    links.malformed(conn, T0, &mut out);
    assert_eq!(out, [LinkOutput::Close { conn, why: Some("malformed message") }]);
    let (conn, _) = called(&mut links, 3);
    let out = did(|out| links.malformed(conn, T0, out));
    assert_eq!(out.last(), Some(&reach(3, Reach::Unknown)));
    assert!(did(|out| links.introduced(conn, &hello(3), T0, out)).is_empty());
}

#[test]
fn a_flood_of_silent_connections_leaves_room_for_one_that_speaks() {
    let mut links = links(2);
    let mut open = 0;
    for _ in 0..10_000 {
        let out = did(|out| {
            links.accepted(T0, out);
        });
        open = open + 1 - out.len();
        assert!(open <= LinkLimits::default().pending);
    }
    let (_, out) = called(&mut links, 3);
    assert_eq!(out.last(), Some(&reach(3, Reach::Connected)));
    assert_eq!(links.conns.len(), LinkLimits::default().pending);
}

#[test]
fn few_servers_that_are_not_members_are_served_and_the_first_makes_room() {
    let mut links = links(2);
    let (first, _) = called(&mut links, 100);
    for id in 101..200 {
        let (_, out) = called(&mut links, id);
        assert_eq!(out.last(), Some(&reach(id as u8, Reach::Connected)));
        let strangers = links.peers.keys().filter(|id| id.0 > 3).count();
        assert!(strangers <= LinkLimits::default().strangers);
    }
    assert_eq!(links.peer_of(first), None);
    assert!(links.conns.len() <= LinkLimits::default().strangers);

    let closed = LinkLimits { strangers: 0, ..LinkLimits::default() };
    let mut links = ElectionLinks::new(ServerId(2), [ServerId(1), ServerId(2)].into_iter().collect(), closed);
    for id in [0, 100] {
        let (conn, out) = called(&mut links, id);
        assert_eq!(out, [LinkOutput::Close { conn, why: Some("not a member") }]);
    }
}

#[test]
fn a_stranger_with_a_smaller_id_is_called_back_where_it_called_from() {
    let mut links = links(2);
    let (conn, out) = called(&mut links, 0);
    let target = Target::Caller { of: conn, port: 3888 };
    let back = ConnId(conn.0 + 1);
    assert_eq!(out, [LinkOutput::Dial { conn: back, to: ServerId(0), target }, close(conn.0)]);
    did(|out| links.dialed(back, true, T0, out));
    assert_eq!(did(|out| links.send(ServerId(0), answer(1), T0, out)).len(), 1);
    did(|out| links.closed(back, T0, out));
    assert!(did(|out| links.send(ServerId(0), answer(1), T0, out)).is_empty(), "it is not called unasked");
    let mut out = Vec::new();
    let old = links.accepted(T0, &mut out);
    links.introduced(old, &InitialMessage { server: 0, addresses: Vec::new() }, T0, &mut out);
    assert!(matches!(out[..], [LinkOutput::Close { why: Some(_), .. }]), "before 3.5 no address was sent");
}

#[test]
fn who_is_no_member_any_more_is_left() {
    let mut links = links(2);
    let (conn, _) = called(&mut links, 3);
    did(|out| links.send(ServerId(1), ballot(1), T0, out));
    let out = did(|out| links.set_members([2, 4].map(ServerId).into_iter().collect(), out));
    assert_eq!(out, [close(1), close(conn.0), reach(3, Reach::Unknown)]);
    assert!(links.conns.is_empty());
    assert_eq!(did(|out| links.send(ServerId(4), ballot(1), T0, out)), [dial(2, 4)]);
    assert!(did(|out| links.send(ServerId(3), ballot(1), T0, out)).is_empty());
}

/// Three servers' links over simulated connections, in which every step takes its own time.
struct Net {
    rng: Rng,
    now: Now,
    links: Vec<ElectionLinks>,
    /// Ends of connections, as (server, name there); each with the other end once accepted.
    ends: BTreeMap<(usize, ConnId), (usize, ConnId)>,
    dialing: Vec<(usize, ConnId, usize)>,
    /// What is under way to an end, in order.
    streams: BTreeMap<(usize, ConnId), VecDeque<Item>>,
    writing: Vec<(usize, ConnId)>,
    /// The newest that each has sent to each, and that has arrived.
    sent: BTreeMap<(usize, usize), i64>,
    arrived: BTreeMap<(usize, usize), i64>,
}

#[derive(Debug)]
enum Item {
    Hello(i64),
    Ballot(i64),
    End,
}

impl Net {
    fn perform(&mut self, at: usize, out: Vec<LinkOutput>) {
        for output in out {
            match output {
                LinkOutput::Dial { conn, to, target } => {
                    assert_eq!(target, Target::Configured);
                    self.dialing.push((at, conn, to.0 as usize));
                }
                LinkOutput::Introduce { conn } => self.put(at, conn, Item::Hello(at as i64)),
                LinkOutput::Write { conn, ballot } => {
                    self.put(at, conn, Item::Ballot(ballot.round));
                    self.writing.push((at, conn));
                }
                LinkOutput::Close { conn, .. } => {
                    self.dialing.retain(|dial| (dial.0, dial.1) != (at, conn));
                    self.put(at, conn, Item::End);
                    self.ends.remove(&(at, conn));
                    self.streams.remove(&(at, conn));
                }
                LinkOutput::Reach { peer, reach: Reach::Connected } => {
                    // As the election does: the vote goes to whoever is new.
                    let round = self.sent.get(&(at, peer.0 as usize)).copied().unwrap_or_default();
                    self.send(at, peer.0 as usize, round);
                }
                LinkOutput::Reach { .. } => {}
            }
        }
        let peer = |conn: &Conn| match conn {
            Conn::Link { peer } => Some(*peer),
            _ => None,
        };
        let mut peers: Vec<ServerId> = self.links[at].conns.values().filter_map(peer).collect();
        peers.sort_unstable();
        peers.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1], "two connections with one peer"));
    }

    fn put(&mut self, at: usize, conn: ConnId, item: Item) {
        if let Some(&other) = self.ends.get(&(at, conn))
            && self.ends.contains_key(&other)
        {
            self.streams.entry(other).or_default().push_back(item);
        }
    }

    fn send(&mut self, from: usize, to: usize, round: i64) {
        self.sent.insert((from, to), round);
        let mut out = Vec::new();
        self.links[from].send(ServerId(to as u8), ballot(round), self.now, &mut out);
        self.perform(from, out);
    }

    /// One thing that is under way arrives; `false` if nothing is.
    fn step(&mut self) -> bool {
        let busy: Vec<(usize, ConnId)> =
            self.streams.iter().filter(|(_, items)| !items.is_empty()).map(|(&end, _)| end).collect();
        let choices = self.dialing.len() + self.writing.len() + busy.len();
        if choices == 0 {
            return false;
        }
        self.now = Now(self.now.0 + self.rng.below(2_000_000));
        let pick = self.rng.below(choices as u64) as usize;
        let mut out = Vec::new();
        if pick < self.dialing.len() {
            let (at, conn, to) = self.dialing.swap_remove(pick);
            let accepted = self.links[to].accepted(self.now, &mut out);
            self.ends.insert((at, conn), (to, accepted));
            self.ends.insert((to, accepted), (at, conn));
            self.perform(to, std::mem::take(&mut out));
            self.links[at].dialed(conn, true, self.now, &mut out);
            self.perform(at, out);
        } else if pick < self.dialing.len() + self.writing.len() {
            let (at, conn) = self.writing.swap_remove(pick - self.dialing.len());
            self.links[at].written(conn, self.now, &mut out);
            self.perform(at, out);
        } else {
            let (at, conn) = busy[pick - self.dialing.len() - self.writing.len()];
            let item = self.streams.get_mut(&(at, conn)).unwrap().pop_front().unwrap();
            match item {
                Item::Hello(id) => self.links[at].introduced(conn, &hello(id), self.now, &mut out),
                Item::Ballot(round) => {
                    if let Some(peer) = self.links[at].peer_of(conn) {
                        self.arrived.insert((peer.0 as usize, at), round);
                    }
                }
                Item::End => {
                    self.ends.remove(&(at, conn));
                    self.links[at].closed(conn, self.now, &mut out);
                }
            }
            self.perform(at, out);
        }
        true
    }

    /// A connection breaks, for both ends.
    fn tear(&mut self) {
        let Some(&end) = self.ends.keys().nth(self.rng.below(self.ends.len().max(1) as u64) as usize) else { return };
        let other = self.ends.remove(&end);
        for (at, conn) in [Some(end), other].into_iter().flatten() {
            if self.ends.remove(&(at, conn)).is_some() || (at, conn) == end {
                self.streams.remove(&(at, conn));
                let mut out = Vec::new();
                self.links[at].closed(conn, self.now, &mut out);
                self.perform(at, out);
            }
        }
    }
}

#[test]
fn whoever_dials_first_all_end_up_with_one_connection_a_pair_and_the_newest_votes() {
    for seed in 0..1_000 {
        let mut net = Net {
            rng: Rng::new(seed),
            now: T0,
            links: (0..3)
                .map(|me| {
                    let members = (0..3).map(ServerId).collect();
                    ElectionLinks::new(ServerId(me), members, LinkLimits::default())
                })
                .collect(),
            ends: BTreeMap::new(),
            dialing: Vec::new(),
            streams: BTreeMap::new(),
            writing: Vec::new(),
            sent: BTreeMap::new(),
            arrived: BTreeMap::new(),
        };
        let mut round = 0;
        for _ in 0..200 {
            match net.rng.below(12) {
                0 | 1 => {
                    let from = net.rng.below(3) as usize;
                    round += 1;
                    (0..3).filter(|&to| to != from).for_each(|to| net.send(from, to, round));
                }
                2 if seed % 2 == 0 => net.tear(),
                _ => {
                    net.step();
                }
            }
        }
        // The election repeats its votes; nothing breaks any more.
        for _ in 0..3 {
            net.now = net.now.plus_ms(2_000);
            for from in 0..3 {
                let mut out = Vec::new();
                net.links[from].tick(net.now, &mut out);
                net.perform(from, out);
                round += 1;
                (0..3).filter(|&to| to != from).for_each(|to| net.send(from, to, round));
            }
            let mut steps = 0;
            while net.step() {
                steps += 1;
                assert!(steps < 1_000, "seed {seed}: it never ends");
            }
        }
        assert_eq!(net.arrived, net.sent, "seed {seed}");
        for (at, links) in net.links.iter().enumerate() {
            assert_eq!(links.conns.len(), 2, "seed {seed}: {at} has {:?}", links.conns);
            for (&conn, state) in &links.conns {
                let Conn::Link { peer } = *state else { panic!("seed {seed}: {state:?}") };
                let (other, name) = net.ends[&(at, conn)];
                assert_eq!(net.links[other].peer_of(name), Some(ServerId(at as u8)), "seed {seed}: both keep the same");
                let dialed = links.peers[&peer].link.as_ref().unwrap().dialed;
                assert_eq!(dialed, at > other, "seed {seed}: the larger id has made it");
            }
        }
    }
}
