//! Fast leader election: who should lead, as far as a server can tell from what the others say.
//!
//! Each server that looks for a leader votes for the best history it has heard of, at first its own, and tells all
//! voters whenever it changes its mind. When a quorum votes as it does, it waits a moment for a better vote and then
//! takes the role. Servers that have a leader answer those who look, so a newcomer finds it: a quorum has to name the
//! leader, and the leader itself has to say that it leads.
//!
//! ```text
//!          start                  quorum of equal votes, or of settled servers
//!   Idle ────────▶ Looking ────────────────────────────────────────────▶ Settled ──▶ established(epoch)
//!                    ▲                                                      │ start (the role has ended)
//!                    └──────────────────────────────────────────────────────┘
//! ```
//!
//! **Safety does not depend on this.** Two servers may believe to be elected, and the elected one may have the shorter
//! history: discovery asks a quorum for its epochs and histories before anything is written, and refuses. What depends
//! on it is how soon there is a leader, and that nobody is disturbed who has one.
//!
//! **The wait is cut short** where nothing can come of it. ZooKeeper always waits 200 ms after the last vote. Here it
//! ends at once when every voter that could still bring a better vote is accounted for: it has cast this same vote in
//! this round, or it can't be reached (the connection was refused, say), or it could not lead anyway and knows of
//! nobody else (weight 0, or it distrusts its own history). Can this choose a worse leader, when a better voter is
//! just coming up? Yes: one that refused the connection a moment ago is not waited for. ZooKeeper makes the same
//! choice 200 ms later. Nothing acknowledged is lost, since the quorum that voted has it, and the late one follows
//! and is brought to the leader's history. A voter whose connection is still being made is waited for. Who has not
//! waited tells those who vote alike, so that they need not either.
//!
//! **Who can't hear should not lead.** What a deaf server says arrives, so it would be elected, and nobody could reach it;
//! then it would be elected again. Three rules against that, for servers of either kind at the other end:
//! - A leader that has lost its quorum to silence (`start_unheard`) does not stand before it has heard from a quorum;
//!   until then it says what a server in quarantine says, which nobody counts or waits for. It votes for a better one.
//! - Who has taken a leader, and still hears it look for one `UNHEARD_MS` later, though it has been answered, leaves it and
//!   passes it over for `PASSED_OVER_MS`: not for ever, since it may be the only one with the whole history.
//! - Who is settled, and hears that a voter has settled on another in this round or a later one, says so (`Looker`): the votes
//!   that it was elected by were old.
//!
//! Departures from ZooKeeper, none of which a peer can tell from chance: a peer that can't be reached any more takes
//! its vote with it, and if it was the one voted for, a new round begins at once; whoever comes into a round with a
//! worse vote than ours is told ours, which it has passed over if it still had a leader a moment ago; answers are
//! repeated to those who asked when there is something new to say, so that nobody has to ask twice; an observer counts
//! settled servers only; a stranger is answered, but not more often than votes are repeated while there is nothing to
//! tell.
//!
//! Leaves to others: connections (`election_links`), what a role does. Configurations are those given at the start: of one that a
//! peer tells of only the version is heeded, and not here (docs/consensus.md).
//! Runs on: the pipeline thread, or the simulator. No I/O, clock or chance.

mod vote;

pub use vote::{Ballot, Vote};

use super::ensemble::Configs;
use super::quorum::ServerSet;
use crate::clock::Now;
use crate::config::servers::Role;
use crate::ids::{Epoch, ServerId, Zxid};
use crate::wire::election::{Notification, PeerState};
use std::collections::BTreeMap;
use vote::Told;

/// A round that is further ahead than this comes from a broken peer, and following it would use up the number.
const ROUNDS_AHEAD_MAX: u64 = 1 << 32;

/// A leader that has not noticed its election for so long does not hear: a slow network's round trip and ZooKeeper's wait are
/// far less.
const UNHEARD_MS: u64 = 1_000;

/// For so long one that could not lead is passed over. Then others may be out of the question, or it may hear again.
const PASSED_OVER_MS: u64 = 2_000;

/// How long things take, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// How long a better vote is waited for when a quorum agrees.
    pub finalize_wait_ms: u64,
    /// After how long without a leader votes are repeated (`fastleader.minNotificationInterval`); each time it doubles,
    pub repeat_min_ms: u64,
    /// until this (`fastleader.maxNotificationInterval`).
    pub repeat_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { finalize_wait_ms: 200, repeat_min_ms: 200, repeat_max_ms: 2_000 }
    }
}

/// What is known about the way to another server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// There is a connection. Said again when another one has replaced it.
    Connected,
    /// There is none, or not yet; it may well be up.
    Unknown,
    /// The last attempt to connect has failed, and it has not called either.
    Unreachable,
}

/// What the surroundings have to do, in the order given. Each of them at once: a vote promises nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Tell this server, connecting to it if need be. A later one to the same server replaces one that waits.
    Send { to: ServerId, ballot: Ballot },
    /// The search is over. `state` is the role to take: leading, following or observing.
    Decided { vote: Vote, state: PeerState },
    /// While settled: a voter is looking for a leader, and does not vote as it was decided here (it has been answered), or it
    /// has settled on another leader. A leader that still gathers its quorum may have lost this one (C-34). Of our leader
    /// itself: it does not know yet that it leads, and should by now.
    Looker { from: ServerId },
}

/// The search for a leader, and the answers to others who search.
#[derive(Debug)]
pub struct Election {
    me: ServerId,
    role: Role,
    timing: Timing,
    configs: Configs,
    /// Of the latest election. Never falls.
    round: u64,
    connected: ServerSet,
    unreachable: ServerSet,
    /// Who has been looking since this search began and may not know what we know.
    askers: ServerSet,
    /// One that was elected and could not lead, and until when it is not voted for.
    passed_over: Option<(ServerId, Now)>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Not started, or stopped. Silent.
    Idle,
    Looking(Box<Looking>),
    Settled {
        vote: Vote,
        state: PeerState,
        /// Decided then, and the leader is not established yet.
        since: Option<Now>,
    },
}

#[derive(Debug)]
struct Looking {
    /// Ourselves as we enter each round. Its zxid is -1 where we distrust our history.
    own: Ballot,
    /// The best vote of this round; `None` for one who doesn't vote: observer, stranger, in quarantine, or not yet.
    proposal: Option<Vote>,
    /// It does not stand before it has heard from a quorum; from these it has.
    unheard: Option<ServerSet>,
    /// The last that voters told in this round, ourselves included.
    heard: BTreeMap<ServerId, Told>,
    /// The last that settled voters told in any round.
    settled: BTreeMap<ServerId, Told>,
    /// Voters that say they distrust their own history.
    distrusted: ServerSet,
    /// Who has been connected at some time of this search.
    met: ServerSet,
    /// Who has been given an unasked or repeated message since votes were last repeated.
    spoken: ServerSet,
    repeat_at: Now,
    repeat_ms: u64,
    /// Set while a quorum agrees with the proposal.
    decide_at: Option<Now>,
}

impl Election {
    /// For server `me`, which is to be a voter or an observer. Silent until `start`.
    pub fn new(me: ServerId, role: Role, configs: Configs, timing: Timing) -> Election {
        Election {
            me,
            role,
            timing,
            configs,
            round: 0,
            connected: ServerSet::EMPTY,
            unreachable: ServerSet::EMPTY,
            askers: ServerSet::EMPTY,
            passed_over: None,
            phase: Phase::Idle,
        }
    }

    /// Looks for a leader, in a new round. `last` is the last zxid of what is durable here, `None` if this server must
    /// not vote with it (quarantine); `epoch` is its current epoch.
    pub fn start(&mut self, last: Option<Zxid>, epoch: Epoch, now: Now, out: &mut Vec<Output>) {
        self.begin(last, epoch, false, now, out);
    }

    /// The same, after this server has led and nobody was heard from: it may be that it can't hear.
    pub fn start_unheard(&mut self, last: Option<Zxid>, epoch: Epoch, now: Now, out: &mut Vec<Output>) {
        let alone = self.configs.contains_quorum([self.me].into_iter().collect());
        self.begin(last, epoch, !alone, now, out);
    }

    fn begin(&mut self, last: Option<Zxid>, epoch: Epoch, unheard: bool, now: Now, out: &mut Vec<Output>) {
        self.round += 1;
        self.askers.clear();
        let takes_part = self.role == Role::Participant;
        let votes = takes_part && self.configs.current().quorum().is_voter(self.me);
        let last = last.filter(|zxid| zxid.to_wire() >= 0);
        let own = Ballot {
            state: PeerState::Looking,
            leader: if votes { self.me.0 as i64 } else { i64::MIN },
            zxid: if takes_part { last.map_or(-1, Zxid::to_wire) } else { i64::MIN },
            // In quarantine the lowest one: a waiting ZooKeeper server compares before it looks whether a vote counts, and
            // one that seems better ends its wait without a decision.
            epoch: if takes_part { last.map_or(0, |_| epoch.0 as i64) } else { i64::MIN },
            round: self.round as i64,
        };
        let stands = last.filter(|_| votes).map(|zxid| Vote { leader: self.me, zxid, round: self.round, epoch });
        let proposal = stands.filter(|_| !unheard);
        self.phase = Phase::Looking(Box::new(Looking {
            own,
            proposal,
            unheard: (unheard && stands.is_some()).then_some(ServerSet::EMPTY),
            heard: BTreeMap::new(),
            settled: BTreeMap::new(),
            distrusted: ServerSet::EMPTY,
            met: self.connected,
            spoken: ServerSet::EMPTY,
            repeat_at: now.plus_ms(self.timing.repeat_min_ms),
            repeat_ms: self.timing.repeat_min_ms,
            decide_at: None,
        }));
        self.propose(proposal, out);
        self.count(now, out);
    }

    /// This one was elected and can't be reached, or does not know of it: others are better for a while.
    pub fn pass_over(&mut self, leader: ServerId, now: Now) {
        self.passed_over = Some((leader, now.plus_ms(PASSED_OVER_MS)));
    }

    /// The leader of our vote is established in `epoch`: it has its quorum, or we have synchronised with it. From now on
    /// our vote says so, as that of all members has to, or newcomers would see them disagree.
    pub fn established(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        let Phase::Settled { vote, state, since } = &mut self.phase else { return };
        (vote.epoch, *since) = (epoch, None);
        let ballot = vote.ballot(*state);
        let told = self.askers.intersection(self.connected);
        out.extend(told.iter().map(|to| Output::Send { to, ballot }));
        self.askers.clear();
    }

    /// Falls silent: the server is going down.
    pub fn stop(&mut self) {
        self.phase = Phase::Idle;
    }

    pub fn configs(&self) -> &Configs {
        &self.configs
    }

    /// What we are doing. `Looking` also before the first start.
    pub fn state(&self) -> PeerState {
        match &self.phase {
            Phase::Settled { state, .. } => *state,
            _ => PeerState::Looking,
        }
    }

    /// Servers that the last attempt to connect has not reached, and that have not called since.
    pub fn unreachable(&self) -> ServerSet {
        self.unreachable
    }

    pub fn is_connected(&self, peer: ServerId) -> bool {
        self.connected.contains(peer)
    }

    /// The settled vote, or the one proposed at this time.
    pub fn vote(&self) -> Option<Vote> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Looking(looking) => looking.proposal,
            Phase::Settled { vote, .. } => Some(*vote),
        }
    }

    pub fn round(&self) -> u64 {
        self.round
    }

    /// When `tick` wants to be called next.
    pub fn deadline(&self) -> Option<Now> {
        match &self.phase {
            Phase::Looking(looking) => Some(looking.decide_at.unwrap_or(looking.repeat_at)),
            _ => None,
        }
    }

    pub fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        let Phase::Looking(looking) = &mut self.phase else { return };
        if let Some(at) = looking.decide_at {
            if at <= now {
                let vote = looking.proposal.expect("a quorum agrees with it");
                self.decide(vote, false, now, out);
            }
            return;
        }
        if looking.repeat_at <= now {
            looking.repeat_ms = (looking.repeat_ms * 2).min(self.timing.repeat_max_ms);
            looking.repeat_at = now.plus_ms(looking.repeat_ms);
            looking.spoken.clear();
            self.tell_all(out);
        }
    }

    /// The way to a server has changed.
    pub fn reach(&mut self, peer: ServerId, reach: Reach, now: Now, out: &mut Vec<Output>) {
        let was_connected = self.connected.remove(peer);
        self.unreachable.remove(peer);
        match reach {
            Reach::Connected => self.connected.insert(peer),
            Reach::Unreachable => self.unreachable.insert(peer),
            Reach::Unknown => false,
        };
        let is_voter = peer != self.me && self.configs.voters().contains(peer);
        let Phase::Looking(looking) = &mut self.phase else { return };
        if !is_voter {
            return;
        }
        match reach {
            Reach::Connected => {
                looking.met.insert(peer);
                out.push(Output::Send { to: peer, ballot: looking.ballot(self.round) });
            }
            // Only once in a while: a peer that hangs up each time must not keep us busy.
            Reach::Unknown if was_connected && looking.spoken.insert(peer) => {
                out.push(Output::Send { to: peer, ballot: looking.ballot(self.round) });
            }
            Reach::Unknown => {}
            Reach::Unreachable => {
                looking.heard.remove(&peer);
                looking.settled.remove(&peer);
                looking.distrusted.remove(peer);
                let voted_for = looking.proposal.is_some_and(|vote| vote.leader == peer);
                if looking.met.remove(peer) && voted_for {
                    // All who vote for it are about to find out the same.
                    self.enter_round(self.round + 1, None, now, out);
                }
            }
        }
        self.count(now, out);
    }

    /// A notification of the server at the other end of a connection.
    pub fn receive(&mut self, from: ServerId, notification: &Notification<'_>, now: Now, out: &mut Vec<Output>) {
        if from == self.me || matches!(self.phase, Phase::Idle) {
            return;
        }
        let looks = notification.state == PeerState::Looking;
        let voters = self.configs.voters();
        if !voters.contains(from) {
            if looks {
                self.answer_stranger(from, out);
            }
            return;
        }
        if looks {
            self.askers.insert(from);
        }
        match (&self.phase, Vote::read(notification)) {
            (&Phase::Settled { vote, state, since }, cast) if looks => {
                out.push(Output::Send { to: from, ballot: vote.ballot(state) });
                // One that votes as we did is about to come to the same decision, or has and this was under way before.
                let due = since.is_some_and(|since| now >= since.plus_ms(UNHEARD_MS));
                let deaf = due && from == vote.leader;
                if deaf {
                    self.pass_over(from, now);
                }
                if cast != Some(vote) || deaf {
                    out.push(Output::Looker { from });
                }
            }
            // An older round than ours is what a ZooKeeper server says for a moment after its election.
            (Phase::Settled { vote, .. }, Some(theirs))
                if theirs.leader != vote.leader
                    && theirs.round >= vote.round
                    && matches!(notification.state, PeerState::Following | PeerState::Leading) =>
            {
                out.push(Output::Looker { from });
            }
            (Phase::Looking(_), Some(vote)) if vote.round <= self.round.saturating_add(ROUNDS_AHEAD_MAX) => {
                self.hears(from, &vote, looks, now, out);
                let told = Told { vote, state: notification.state, old: notification.version < 1 };
                let for_a_voter = voters.contains(vote.leader);
                match notification.state {
                    PeerState::Looking if for_a_voter => self.told_by_looker(from, vote, now, out),
                    PeerState::Following | PeerState::Leading if for_a_voter => {
                        self.told_by_settled(from, told, now, out);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Observers and strangers learn by our answers who leads, and no vote of theirs is counted.
    fn answer_stranger(&mut self, from: ServerId, out: &mut Vec<Output>) {
        self.askers.insert(from);
        let ballot = match &mut self.phase {
            Phase::Idle => return,
            Phase::Looking(looking) => {
                // Two servers that are strangers to each other would answer each other's answers for ever.
                if !looking.spoken.insert(from) {
                    return;
                }
                looking.ballot(self.round)
            }
            Phase::Settled { vote, state, .. } => vote.ballot(*state),
        };
        out.push(Output::Send { to: from, ballot });
    }

    /// One that has not stood so far stands when a quorum is heard, or there is a better vote to give.
    fn hears(&mut self, from: ServerId, vote: &Vote, looks: bool, now: Now, out: &mut Vec<Output>) {
        let Phase::Looking(looking) = &mut self.phase else { return };
        let Some(heard) = &mut looking.unheard else { return };
        heard.insert(from);
        heard.insert(self.me);
        let heard = *heard;
        let own = looking.own_vote(self.me, self.round);
        let better = looks && !vote.distrusts_itself() && self.is_better(vote, &own, now);
        if self.configs.contains_quorum(heard) || better {
            let Phase::Looking(looking) = &mut self.phase else { return };
            looking.unheard = None;
            self.propose(Some(own), out);
        }
    }

    fn told_by_looker(&mut self, from: ServerId, vote: Vote, now: Now, out: &mut Vec<Output>) {
        let Phase::Looking(looking) = &mut self.phase else { return };
        // It has no leader now, whatever it said before.
        looking.settled.remove(&from);
        if looking.heard.get(&from).is_some_and(|told| told.state != PeerState::Looking) {
            looking.heard.remove(&from);
        }
        if vote.round < self.round {
            out.push(Output::Send { to: from, ballot: looking.ballot(self.round) });
        }
        if vote.distrusts_itself() {
            looking.distrusted.insert(from);
            looking.heard.remove(&from);
        } else {
            looking.distrusted.remove(from);
            let Some(proposal) = looking.proposal else { return };
            let is_new = !looking.heard.contains_key(&from);
            if vote.round > self.round {
                self.enter_round(vote.round, Some(vote), now, out);
            } else if vote.round == self.round && self.is_better(&vote, &proposal, now) {
                self.propose(Some(vote), out);
            } else if vote.round == self.round && vote != proposal && is_new {
                // It has begun to look just now. What we told it before, it has heard as one that had a leader, and passed
                // over; it would not hear it again before votes are repeated.
                out.push(Output::Send { to: from, ballot: proposal.ballot(PeerState::Looking) });
            }
            if let Phase::Looking(looking) = &mut self.phase
                && vote.round == self.round
            {
                looking.heard.insert(from, Told::looking(vote));
            }
        }
        self.count(now, out);
    }

    fn told_by_settled(&mut self, from: ServerId, told: Told, now: Now, out: &mut Vec<Output>) {
        self.askers.remove(from);
        let Phase::Looking(looking) = &mut self.phase else { return };
        looking.distrusted.remove(from);
        if looking.settled.insert(from, told) != Some(told) {
            // There is a leader, it seems: those who did not know it before may know it soon.
            looking.repeat_ms = self.timing.repeat_min_ms;
            looking.repeat_at = looking.repeat_at.min(now.plus_ms(looking.repeat_ms));
        }
        if told.vote.round == self.round {
            looking.heard.insert(from, told);
            if self.is_settled(told, true) {
                return self.decide(told.vote, false, now, out);
            }
        }
        if self.is_settled(told, false) {
            return self.decide(told.vote, false, now, out);
        }
        self.count(now, out);
    }

    /// Whether a quorum is led by the one that this vote names, and that one says so.
    fn is_settled(&self, told: Told, within_round: bool) -> bool {
        let Phase::Looking(looking) = &self.phase else { return false };
        let votes = if within_round { &looking.heard } else { &looking.settled };
        let agreeing = votes.iter().filter(|(_, other)| told.agrees(other, within_round)).map(|(&id, _)| id);
        if !self.configs.contains_quorum(agreeing.collect()) {
            return false;
        }
        let leader = told.vote.leader;
        if leader == self.me {
            // We are being waited for; but only if it is us, in this very election, whom they mean. Followers of what
            // we were before a restart are about to find out that it is gone.
            return within_round
                && looking.proposal.is_some()
                && looking.own_vote(self.me, self.round) == told.vote
                && self.configs.current().quorum().is_electable(self.me);
        }
        votes.get(&leader).is_some_and(|other| other.state == PeerState::Leading)
    }

    fn is_better(&self, vote: &Vote, than: &Vote, now: Now) -> bool {
        if vote.leader != self.me && self.passes_over(vote.leader, now) {
            return false;
        }
        // One that isn't in the current configuration has the weight of any other, as in a majority.
        let quorum = self.configs.current().quorum();
        let barred = quorum.is_voter(vote.leader) && !quorum.is_electable(vote.leader);
        !barred && vote.rank() > than.rank()
    }

    fn passes_over(&self, id: ServerId, now: Now) -> bool {
        self.passed_over.is_some_and(|(leader, until)| leader == id && now < until)
    }

    /// A later round, in which nobody has been heard yet but the one who brought it.
    fn enter_round(&mut self, round: u64, brought: Option<Vote>, now: Now, out: &mut Vec<Output>) {
        assert!(round > self.round);
        self.round = round;
        let Phase::Looking(looking) = &mut self.phase else { return };
        looking.heard.clear();
        looking.repeat_ms = self.timing.repeat_min_ms;
        looking.repeat_at = now.plus_ms(looking.repeat_ms);
        let (own, stands) = (looking.own_vote(self.me, round), looking.proposal.is_some());
        let Some(own) = stands.then_some(own) else { return self.propose(None, out) };
        let better = brought.filter(|vote| self.is_better(vote, &own, now));
        self.propose(Some(better.unwrap_or(own)), out);
    }

    /// Casts our vote and tells everyone.
    fn propose(&mut self, proposal: Option<Vote>, out: &mut Vec<Output>) {
        let Phase::Looking(looking) = &mut self.phase else { return };
        looking.proposal = proposal;
        looking.decide_at = None;
        if let Some(vote) = proposal {
            looking.heard.insert(self.me, Told::looking(vote));
        }
        self.tell_all(out);
    }

    fn tell_all(&self, out: &mut Vec<Output>) {
        let Phase::Looking(looking) = &self.phase else { return };
        let ballot = looking.ballot(self.round);
        let others = self.configs.voters().iter().filter(|&id| id != self.me);
        out.extend(others.map(|to| Output::Send { to, ballot }));
    }

    /// Looks whether a quorum votes as we do, and whether that is all there is to wait for.
    fn count(&mut self, now: Now, out: &mut Vec<Output>) {
        let Phase::Looking(looking) = &mut self.phase else { return };
        let Some(proposal) = looking.proposal else { return };
        let same = Told::looking(proposal);
        let agreeing: ServerSet =
            looking.heard.iter().filter(|(_, told)| same.agrees(told, false)).map(|(&id, _)| id).collect();
        if !self.configs.contains_quorum(agreeing) || !electable(&self.configs, proposal.leader) {
            looking.decide_at = None;
            return;
        }
        let leader_is_there = proposal.leader == self.me || self.connected.contains(proposal.leader);
        let accounted = agreeing.union(self.unreachable).union(looking.distrusted);
        let open = self.configs.voters().without(accounted);
        let passed_over = self.passed_over.filter(|(_, until)| now < *until).map(|(leader, _)| leader);
        if leader_is_there && !open.iter().any(|id| electable(&self.configs, id) && passed_over != Some(id)) {
            self.decide(proposal, true, now, out);
        } else {
            looking.decide_at.get_or_insert(now.plus_ms(self.timing.finalize_wait_ms));
        }
    }

    /// `early`: without having waited. Others who vote alike may be waiting for someone of whom only we know that he is gone.
    fn decide(&mut self, vote: Vote, early: bool, now: Now, out: &mut Vec<Output>) {
        let Phase::Looking(looking) = &self.phase else { return };
        let same = Told::looking(vote);
        let know: ServerSet =
            looking.heard.iter().filter(|(_, told)| same.agrees(told, false)).map(|(&id, _)| id).collect();
        self.askers = self.askers.without(know);
        let allies = if early { know } else { ServerSet::EMPTY };
        let state = match self.role {
            _ if vote.leader == self.me => PeerState::Leading,
            Role::Participant => PeerState::Following,
            Role::Observer => PeerState::Observing,
        };
        self.round = self.round.max(vote.round);
        let ballot = vote.ballot(state);
        let told = self.askers.union(allies).intersection(self.connected);
        out.extend(told.iter().map(|to| Output::Send { to, ballot }));
        out.push(Output::Decided { vote, state });
        self.phase = Phase::Settled { vote, state, since: Some(now) };
    }
}

impl Looking {
    fn ballot(&self, round: u64) -> Ballot {
        match self.proposal {
            Some(vote) => vote.ballot(PeerState::Looking),
            // As one that distrusts its history: not counted, and not waited for.
            None if self.unheard.is_some() => Ballot { round: round as i64, zxid: -1, epoch: 0, ..self.own },
            None => Ballot { round: round as i64, ..self.own },
        }
    }

    /// The vote for ourselves, of one that stands.
    fn own_vote(&self, me: ServerId, round: u64) -> Vote {
        Vote { leader: me, zxid: Zxid::from_wire(self.own.zxid), round, epoch: Epoch(self.own.epoch as u32) }
    }
}

/// Whether a server may lead by one of the configurations in force.
fn electable(configs: &Configs, id: ServerId) -> bool {
    configs.current().quorum().is_electable(id) || configs.next().is_some_and(|next| next.quorum().is_electable(id))
}

#[cfg(test)]
mod network;
#[cfg(test)]
mod tests;
