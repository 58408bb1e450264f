//! Elections of whole ensembles on a small simulated network, from one seed each.
//!
//! What runs here is elections and nothing else: roles are a few lines that gather followers, give up, and let
//! histories grow apart, so that there is always something to decide. Messages are delayed each on its own, so they
//! overtake each other (worse than TCP); they are lost; servers crash, forgetting all but epoch and zxid; links are cut, in
//! one direction too.
//!
//! Checked all the time: whoever is decided by votes had a quorum that cast that very vote in that round, none of it
//! with a better history; whoever joins, joins one who did lead. At the end, when nothing fails any more: within
//! bounded time one leader, everyone at it, observers too; and one who is started anew finds it and disturbs nobody.

use super::*;
use crate::random::Rng;
use crate::zab::ensemble::EnsembleConfig;
use std::collections::BTreeSet;
use std::sync::Arc;

const MS: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Event {
    Deliver {
        from: u8,
        to: u8,
        life: u32,
        bytes: Vec<u8>,
    },
    Reach {
        at: u8,
        life: u32,
        peer: u8,
        reach: Reach,
    },
    Tick {
        at: u8,
        life: u32,
    },
    /// A role looks around.
    Role {
        at: u8,
        life: u32,
    },
    Start {
        at: u8,
    },
    Crash {
        at: u8,
    },
    Cut {
        one: u8,
        other: u8,
    },
    Heal {
        one: u8,
        other: u8,
    },
}

struct Server {
    election: Election,
    /// Counts restarts: what was under way to an earlier life is lost.
    life: u32,
    up: bool,
    // What is on disk.
    epoch: u32,
    zxid: u64,
    // The role since the last decision.
    decided: Option<(Vote, PeerState)>,
    established: Option<u32>,
    /// Until when it tries.
    patience: u64,
    /// Voters that look for a leader although this one leads.
    strayed: ServerSet,
}

struct World {
    rng: Rng,
    now: u64,
    count: u64,
    queue: BTreeMap<(u64, u64), Event>,
    servers: BTreeMap<u8, Server>,
    configs: Configs,
    /// Pairs, smaller first.
    cut: BTreeSet<(u8, u8)>,
    linked: BTreeSet<(u8, u8)>,
    /// From whom nothing arrives at whom. Connections stay, new ones are not made.
    mute: BTreeSet<(u8, u8)>,
    /// How long a server waits for the leader that it has elected.
    wait_ms: u64,
    faults: bool,
    /// Who cast which vote, with which history, ever.
    cast: BTreeSet<(u8, (u8, u64, u64, u32))>,
    led: BTreeSet<u8>,
    elections: u64,
    /// How often each has been taken for the leader by others.
    chosen: BTreeMap<u8, u64>,
}

fn pair(a: u8, b: u8) -> (u8, u8) {
    (a.min(b), a.max(b))
}

fn key(vote: Vote) -> (u8, u64, u64, u32) {
    (vote.leader.0, vote.zxid.0, vote.round, vote.epoch.0)
}

impl World {
    fn new(seed: u64, voters: u8, observers: u8) -> World {
        let line = |id: u8| {
            let role = if id <= voters { "participant" } else { "observer" };
            format!("server.{id}=h{id}:1:2:{role}\n")
        };
        let text: String = (1..=voters + observers).map(line).collect();
        let configs = Configs::new(Arc::new(EnsembleConfig::parse(text.as_bytes()).unwrap()), None);
        let mut world = World {
            rng: Rng::new(seed),
            now: 0,
            count: 0,
            queue: BTreeMap::new(),
            servers: BTreeMap::new(),
            configs,
            cut: BTreeSet::new(),
            linked: BTreeSet::new(),
            mute: BTreeSet::new(),
            wait_ms: 700,
            faults: true,
            cast: BTreeSet::new(),
            led: BTreeSet::new(),
            elections: 0,
            chosen: BTreeMap::new(),
        };
        for id in 1..=voters + observers {
            let (epoch, zxid) = (world.rng.below(2) as u32, world.rng.below(4));
            let server = Server {
                election: world.fresh(id),
                life: 0,
                up: false,
                epoch,
                zxid: (epoch as u64) << 32 | zxid,
                decided: None,
                established: None,
                patience: 0,
                strayed: ServerSet::EMPTY,
            };
            world.servers.insert(id, server);
            let late = world.rng.below(400);
            world.at(late, Event::Start { at: id });
        }
        world
    }

    fn role_of(&self, id: u8) -> Role {
        if self.configs.current().quorum().is_voter(ServerId(id)) { Role::Participant } else { Role::Observer }
    }

    fn fresh(&self, id: u8) -> Election {
        Election::new(ServerId(id), self.role_of(id), self.configs.clone(), Timing::default())
    }

    fn at(&mut self, in_ms: u64, event: Event) {
        self.count += 1;
        let jitter = self.rng.below(MS);
        self.queue.insert((self.now + in_ms * MS + jitter, self.count), event);
    }

    /// Lets one server do something, and does what it asks for.
    fn with(&mut self, id: u8, act: impl FnOnce(&mut Election, Now, &mut Vec<Output>)) {
        let now = Now(self.now);
        let mut out = Vec::new();
        let server = self.servers.get_mut(&id).unwrap();
        act(&mut server.election, now, &mut out);
        let life = server.life;
        for output in out {
            match output {
                Output::Send { to, ballot } => self.send(id, to.0, ballot),
                Output::Decided { vote, state } => self.decided(id, vote, state),
                Output::Looker { from } => self.strays(id, from),
            }
        }
        if let Some(deadline) = self.servers[&id].election.deadline() {
            self.count += 1;
            self.queue.insert((deadline.0.max(self.now), self.count), Event::Tick { at: id, life });
        }
    }

    fn send(&mut self, from: u8, to: u8, ballot: Ballot) {
        if let Some(leader) = u8::try_from(ballot.leader).ok().filter(|_| ballot.state == PeerState::Looking) {
            self.cast.insert((from, (leader, ballot.zxid as u64, ballot.round as u64, ballot.epoch as u32)));
        }
        let mut bytes = Vec::new();
        ballot.notification(self.configs.current()).write(&mut bytes);
        let link = pair(from, to);
        let half_open = self.mute.contains(&(from, to)) || self.mute.contains(&(to, from));
        if self.cut.contains(&link) || half_open && !self.linked.contains(&link) {
            return;
        }
        if !self.servers[&to].up {
            let event = Event::Reach { at: from, life: self.servers[&from].life, peer: to, reach: Reach::Unreachable };
            return self.at(0, event);
        }
        let mut delay = self.rng.below(if self.faults { 60 } else { 3 });
        if self.linked.insert(link) {
            for (at, peer) in [(from, to), (to, from)] {
                let event = Event::Reach { at, life: self.servers[&at].life, peer, reach: Reach::Connected };
                self.at(delay, event);
            }
            delay += 1;
        }
        if self.faults && self.rng.below(8) == 0 {
            return;
        }
        self.at(delay, Event::Deliver { from, to, life: self.servers[&to].life, bytes });
    }

    fn decided(&mut self, id: u8, vote: Vote, state: PeerState) {
        self.elections += 1;
        let by_votes: ServerSet =
            self.cast.iter().filter(|(_, cast)| *cast == key(vote)).map(|(who, _)| ServerId(*who)).collect();
        if state == PeerState::Leading {
            let waiting = self.servers.iter().filter(|(_, server)| server.election.vote() == Some(vote));
            let waiting = waiting.map(|(&id, _)| ServerId(id)).collect();
            let elected = self.configs.contains_quorum(by_votes.union(waiting));
            assert!(elected, "{id} leads by {vote:?}, cast by {by_votes:?} only");
            self.led.insert(id);
        } else if !self.configs.contains_quorum(by_votes) {
            assert!(self.led.contains(&vote.leader.0), "{id} joins {vote:?}, who never led");
        }
        let patience = self.now + if state == PeerState::Leading { 2_000 } else { self.wait_ms } * MS;
        let server = self.servers.get_mut(&id).unwrap();
        (server.decided, server.established, server.patience) = (Some((vote, state)), None, patience);
        server.strayed = ServerSet::EMPTY;
        if state != PeerState::Leading {
            *self.chosen.entry(vote.leader.0).or_default() += 1;
        }
        let life = server.life;
        self.at(1, Event::Role { at: id, life });
    }

    /// As `server/pipeline/member.rs`: a role that has hardly begun ends where those it needs have gone.
    fn strays(&mut self, id: u8, from: ServerId) {
        let voters = self.configs.voters();
        let server = self.servers.get_mut(&id).unwrap();
        server.strayed.insert(from);
        let gone = server.decided.is_some_and(|(vote, state)| match state {
            PeerState::Leading => {
                let absent = server.strayed.union(server.election.unreachable());
                !self.configs.contains_quorum(voters.without(absent))
            }
            _ => vote.leader == from,
        });
        if gone && server.established.is_none() {
            self.look_again(id);
        }
    }

    fn look_again(&mut self, id: u8) {
        let server = self.servers.get_mut(&id).unwrap();
        let led = server.decided.is_some_and(|(_, state)| state == PeerState::Leading);
        let unheard = led && server.patience < self.now;
        (server.decided, server.established) = (None, None);
        let (zxid, epoch) = (Zxid(server.zxid), Epoch(server.epoch));
        self.with(id, |election, now, out| match unheard {
            true => election.start_unheard(Some(zxid), epoch, now, out),
            false => election.start(Some(zxid), epoch, now, out),
        });
        let vote = self.servers[&id].election.vote();
        // A vote that no one else is told is cast as well.
        if let Some(vote) = vote.filter(|vote| vote.leader.0 == id) {
            self.cast.insert((id, key(vote)));
        }
    }

    /// A role, every few milliseconds: gather, synchronise, give up.
    fn role(&mut self, id: u8) {
        let Some((vote, state)) = self.servers[&id].decided else { return };
        let reachable = |world: &World, other: u8| {
            let half_open = world.mute.contains(&(id, other)) || world.mute.contains(&(other, id));
            world.servers[&other].up && !half_open && !world.cut.contains(&pair(id, other))
        };
        if state == PeerState::Leading {
            let mine = (self.servers[&id].epoch, self.servers[&id].zxid);
            let with_me: ServerSet = self
                .servers
                .iter()
                .filter(|(other, server)| {
                    let follows = server.decided.is_some_and(|(vote, _)| vote.leader.0 == id);
                    let not_ahead = server.established.is_some() || (server.epoch, server.zxid) <= mine;
                    **other == id || (follows && not_ahead && reachable(self, **other))
                })
                .map(|(other, _)| ServerId(*other))
                .collect();
            let quorum = self.configs.contains_quorum(with_me);
            if quorum {
                let patience = self.now + 700 * MS;
                let epoch = self.servers.values().map(|server| server.epoch).max().unwrap() + 1;
                let grows = self.rng.below(4) == 0;
                let server = self.servers.get_mut(&id).unwrap();
                server.patience = patience;
                if server.established.is_none() {
                    (server.established, server.epoch, server.zxid) = (Some(epoch), epoch, (epoch as u64) << 32);
                    self.with(id, |election, _, out| election.established(Epoch(epoch), out));
                } else if grows {
                    server.zxid += 1;
                }
            }
        } else {
            let leader = &self.servers[&vote.leader.0];
            let leads = leader.decided.is_some_and(|(_, state)| state == PeerState::Leading);
            if leads && reachable(self, vote.leader.0) {
                let (epoch, zxid) = (leader.established, leader.zxid);
                let lags = self.rng.below(2) == 0;
                let patience = self.now + 700 * MS;
                let server = self.servers.get_mut(&id).unwrap();
                if let Some(epoch) = epoch {
                    server.patience = patience;
                    if server.established != Some(epoch) {
                        (server.established, server.epoch, server.zxid) = (Some(epoch), epoch, zxid);
                        self.with(id, |election, _, out| election.established(Epoch(epoch), out));
                    } else if !lags {
                        server.zxid = zxid;
                    }
                }
            }
        }
        if self.servers[&id].patience < self.now {
            return self.look_again(id);
        }
        let life = self.servers[&id].life;
        self.at(20, Event::Role { at: id, life });
    }

    fn crash(&mut self, id: u8) {
        let server = self.servers.get_mut(&id).unwrap();
        (server.up, server.decided, server.established) = (false, None, None);
        server.life += 1;
        server.election.stop();
        let linked: Vec<(u8, u8)> = self.linked.iter().copied().filter(|&(a, b)| a == id || b == id).collect();
        for link in linked {
            self.linked.remove(&link);
            let peer = if link.0 == id { link.1 } else { link.0 };
            let event = Event::Reach { at: peer, life: self.servers[&peer].life, peer: id, reach: Reach::Unknown };
            self.at(1, event);
        }
    }

    fn step(&mut self) {
        let ((now, _), event) = self.queue.pop_first().expect("someone always has a deadline");
        self.now = now;
        let lives = |world: &World, at: u8, life: u32| world.servers[&at].up && world.servers[&at].life == life;
        match event {
            Event::Deliver { from, to, life, bytes }
                if lives(self, to, life) && !self.cut.contains(&pair(from, to)) && !self.mute.contains(&(from, to)) =>
            {
                let notification = Notification::read(&bytes[4..]).unwrap();
                self.with(to, |election, now, out| election.receive(ServerId(from), &notification, now, out));
            }
            // What is not true any more has been overtaken by what is.
            Event::Reach { at, life, peer, reach }
                if lives(self, at, life) && self.linked.contains(&pair(at, peer)) == (reach == Reach::Connected) =>
            {
                self.with(at, |election, now, out| election.reach(ServerId(peer), reach, now, out));
            }
            Event::Tick { at, life }
                if lives(self, at, life)
                    && self.servers[&at].election.deadline().is_some_and(|deadline| deadline.0 <= self.now) =>
            {
                self.with(at, |election, now, out| election.tick(now, out));
            }
            Event::Role { at, life } if lives(self, at, life) => self.role(at),
            Event::Start { at } if !self.servers[&at].up => {
                let election = self.fresh(at);
                let server = self.servers.get_mut(&at).unwrap();
                (server.up, server.election) = (true, election);
                self.look_again(at);
            }
            Event::Crash { at } if self.servers[&at].up => self.crash(at),
            Event::Cut { one, other } => {
                self.cut.insert(pair(one, other));
                if self.linked.remove(&pair(one, other)) {
                    for (at, peer) in [(one, other), (other, one)] {
                        let event = Event::Reach { at, life: self.servers[&at].life, peer, reach: Reach::Unknown };
                        self.at(5, event);
                    }
                }
            }
            Event::Heal { one, other } => {
                self.cut.remove(&pair(one, other));
            }
            _ => {}
        }
    }

    fn run_until(&mut self, ms: u64) {
        while self.queue.first_key_value().is_some_and(|(&(at, _), _)| at < ms * MS) {
            self.step();
        }
        self.now = ms * MS;
    }

    /// Something bad happens to someone, and ends after a while.
    fn mischief(&mut self) {
        let some = |world: &mut World| 1 + world.rng.below(world.servers.len() as u64) as u8;
        let lasts = 50 + self.rng.below(3_000);
        let one = some(self);
        if self.rng.below(2) == 0 {
            self.at(0, Event::Crash { at: one });
            self.at(lasts, Event::Start { at: one });
        } else {
            let other = some(self);
            if one != other {
                self.at(0, Event::Cut { one, other });
                self.at(lasts, Event::Heal { one, other });
            }
        }
    }

    /// The one leader that all who are up have settled on, in the epoch that it leads.
    fn agreed(&self) -> Option<Vote> {
        let mut up = self.servers.values().filter(|server| server.up);
        let vote = up.clone().next()?.election.vote()?;
        let leader = &self.servers[&vote.leader.0];
        let leads = leader.election.state() == PeerState::Leading && leader.established == Some(vote.epoch.0);
        let same = |server: &Server| {
            let theirs = server.election.vote();
            server.election.state() != PeerState::Looking
                && theirs.is_some_and(|theirs| (theirs.leader, theirs.epoch) == (vote.leader, vote.epoch))
        };
        (leads && up.all(same)).then_some(vote)
    }

    /// Runs until all agree; how long that took, in milliseconds.
    fn agree_within(&mut self, ms: u64, seed: u64) -> (Vote, u64) {
        let began = self.now;
        loop {
            if let Some(vote) = self.agreed() {
                return (vote, (self.now - began) / MS);
            }
            self.step();
            if self.now > began + ms * MS {
                let view: Vec<_> = self
                    .servers
                    .iter()
                    .map(|(id, server)| (id, server.up, server.election.state(), server.election.vote()))
                    .collect();
                panic!("seed {seed}: after {ms} ms no leader that all agree on: {view:#?}");
            }
        }
    }
}

/// One history of an ensemble; how many decisions it had.
fn live(seed: u64, voters: u8, observers: u8) -> u64 {
    let mut world = World::new(seed, voters, observers);
    for at in 1..=30 {
        world.run_until(at * 400);
        if world.rng.below(3) > 0 {
            world.mischief();
        }
    }
    // Nothing fails any more, except that a minority may stay down.
    world.faults = false;
    world.run_until(16_000);
    world.cut.clear();
    for id in 1..=world.servers.len() as u8 {
        world.at(0, Event::Start { at: id });
    }
    let minority = world.rng.below((voters as u64).div_ceil(2)) as u8;
    for id in 1..=minority {
        world.at(2, Event::Crash { at: id });
    }
    world.run_until(16_010);
    let (leader, _) = world.agree_within(12_000, seed);

    // A newcomer finds it, and the leader stays.
    let until = world.now / MS + 2_000;
    world.run_until(until);
    assert_eq!(world.agreed(), Some(leader), "seed {seed}: nothing happened");
    let newcomer = (minority + 1..=voters + observers).rev().find(|id| *id != leader.leader.0);
    if let Some(id) = newcomer.filter(|_| voters - minority > voters / 2 + 1 || observers > 0) {
        world.at(0, Event::Crash { at: id });
        world.at(50, Event::Start { at: id });
        let until = world.now / MS + 60;
        world.run_until(until);
        let (vote, took) = world.agree_within(2_000, seed);
        assert_eq!(
            (vote.leader, vote.epoch),
            (leader.leader, leader.epoch),
            "seed {seed}: a newcomer changed the leader"
        );
        assert!(took < 200, "seed {seed}: the newcomer took {took} ms");
    }
    world.elections
}

#[test]
fn ensembles_agree_on_the_best_history_whatever_happens_before() {
    let seeds = std::env::var("OSTLER_ELECTION_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let mut elections = 0;
    for seed in 0..seeds {
        for (voters, observers) in [(3, 0), (3, 2), (5, 1), (7, 0)] {
            elections += live(seed, voters, observers);
        }
    }
    assert!(elections > seeds * 60, "{elections} decisions in {seeds} seeds: too little has happened");
}

/// All start within a moment, nothing fails: the best of those who had a say is elected, and without the fixed wait.
#[test]
fn where_nothing_fails_the_best_is_elected_at_once() {
    let mut waits = Vec::new();
    for seed in 0..200 {
        for voters in [3, 5, 7] {
            let mut world = World::new(seed, voters, 0);
            world.faults = false;
            world.queue.clear();
            let all_at_once = seed % 2 == 0;
            for id in 1..=voters {
                if all_at_once {
                    world.servers.get_mut(&id).unwrap().up = true;
                } else {
                    let late = world.rng.below(100);
                    world.at(late, Event::Start { at: id });
                }
            }
            if all_at_once {
                (1..=voters).for_each(|id| world.look_again(id));
            }
            let best = world.servers.iter().map(|(&id, server)| (server.epoch, server.zxid, id)).max().unwrap();
            while !world.servers.values().any(|server| server.decided.is_some()) {
                world.step();
            }
            if all_at_once {
                let winner = world.servers.values().find_map(|server| server.decided).unwrap().0.leader;
                assert_eq!(winner.0, best.2, "seed {seed}");
                waits.push(world.now / MS);
            }
            world.agree_within(3_000, seed);
        }
    }
    waits.sort_unstable();
    assert!(waits[waits.len() / 2] < 20, "half of the elections took {} ms and more", waits[waits.len() / 2]);
}

/// The leader dies; the others know at once that it can't be reached, and don't wait for it.
#[test]
fn a_dead_leader_is_replaced_without_waiting() {
    let mut gaps = Vec::new();
    for seed in 0..100 {
        for voters in [3, 5, 7] {
            let mut world = World::new(seed, voters, 0);
            world.faults = false;
            world.run_until(3_000);
            let (old, _) = world.agree_within(3_000, seed);
            world.run_until(7_000);
            let died = world.now;
            world.crash(old.leader.0);
            for id in 1..=voters {
                if id != old.leader.0 {
                    // They notice by their connections to it.
                    world.servers.get_mut(&id).unwrap().patience = 0;
                }
            }
            while !world
                .servers
                .values()
                .any(|server| server.decided.is_some_and(|(vote, _)| vote.leader != old.leader))
            {
                world.step();
            }
            gaps.push((world.now - died) / MS);
            let (new, _) = world.agree_within(3_000, seed);
            assert_ne!(new.leader, old.leader);
        }
    }
    gaps.sort_unstable();
    assert!(gaps[gaps.len() / 2] < 60, "half of them took {} ms and more", gaps[gaps.len() / 2]);
}

/// A server hears nothing (or one other), and all hear it. How long the others were without a leader of a quorum, in
/// milliseconds, and how often any of them took the deaf one for the leader meanwhile.
fn deafen(seed: u64, voters: u8, hears: u8, leads: bool) -> (u64, u64) {
    let mut world = World::new(seed, voters, 0);
    world.faults = false;
    world.wait_ms = 5_000;
    world.run_until(8_000);
    let (old, _) = world.agree_within(8_000, seed);
    let mut followers = (1..=voters).filter(|id| *id != old.leader.0).rev();
    let deaf = if leads { old.leader.0 } else { followers.next().unwrap() };
    let others: Vec<u8> = (1..=voters).filter(|id| *id != deaf).collect();
    world.mute = others.iter().skip(hears as usize).map(|id| (*id, deaf)).collect();
    let began = world.now;
    if !leads {
        // Its history is the best, and all lose their leader.
        world.servers.get_mut(&deaf).unwrap().zxid += 1;
        world.crash(old.leader.0);
        world.servers.values_mut().for_each(|server| server.patience = 0);
    }
    world.chosen.clear();
    let leader = loop {
        world.step();
        let established = |(id, server): (&u8, &Server)| {
            let leads = server.election.state() == PeerState::Leading && server.established.is_some();
            (leads && *id != deaf && *id != old.leader.0).then_some(*id)
        };
        if let Some(leader) = world.servers.iter().find_map(established) {
            break leader;
        }
        assert!(world.now < began + 60_000 * MS, "seed {seed}: no leader but the deaf one within a minute");
    };
    let gap = (world.now - began) / MS;
    // It stays, also when the deaf one hears again.
    let until = world.now / MS + 4_000;
    world.run_until(until);
    world.mute.clear();
    let chosen = world.chosen.get(&deaf).copied().unwrap_or_default();
    let until = world.now / MS + 3_000;
    world.run_until(until);
    assert_eq!(
        world.agree_within(100, seed).0.leader.0,
        leader,
        "seed {seed}: the one that was deaf disturbs the others"
    );
    (gap, chosen)
}

#[test]
fn a_server_that_hears_nobody_does_not_keep_the_others_from_having_a_leader() {
    for (what, leads, hears) in [
        ("the leader is deaf", true, 0),
        ("the leader hears one other", true, 1),
        ("the best follower is deaf, and the leader dies", false, 0),
        ("the best follower hears one other, and the leader dies", false, 1),
    ] {
        for voters in [5, 7] {
            let all: Vec<(u64, u64)> = (0..20).map(|seed| deafen(seed, voters, hears, leads)).collect();
            let worst = all.iter().map(|(gap, _)| *gap).max().unwrap();
            let chosen = all.iter().map(|(_, chosen)| *chosen).max().unwrap();
            println!(
                "{what}, {voters} voters: at most {worst} ms without a leader, it was taken for it {chosen} times"
            );
            // A leader is not missed for 700 ms.
            assert!(worst < if leads { 1_500 } else { 2_500 }, "{what}, {voters} voters: {worst} ms");
            assert!(chosen < if leads { 1 } else { voters as u64 }, "{what}, {voters} voters: more than once by each");
        }
    }
}
