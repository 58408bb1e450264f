//! Proposals to everyone, commits in order, pings, and the proof that a quorum still follows.

use super::{Leader, LeaderOutput, Learner, Link, Phase, Stage};
use crate::clock::Now;
use crate::ids::{ServerId, Zxid};
use crate::limits::{LEARNER_SYNCS_MAX, PROPOSALS_OUTSTANDING_MAX};
use crate::wire::quorum::{PacketType, SessionValid};
use crate::zab::history::History;
use crate::zab::quorum::ServerSet;
use std::collections::VecDeque;

/// Syncs that wait. A sync is answered when a quorum has answered a ping that was sent after the sync came: only then is it
/// certain that no other leader had committed anything by then (fault model 1.3).
#[derive(Default)]
pub(super) struct Syncs {
    /// Of the pings sent last.
    round: u64,
    /// The round that each waits for, what was proposed when it came, and whose it is (`None`: a client of this server).
    waiting: VecDeque<(u64, Zxid, Option<Link>)>,
}

impl Leader {
    /// The next transaction, made by this server; it stands in `history` already.
    pub fn propose(&mut self, zxid: Zxid, record: &[u8]) {
        assert_eq!(self.phase, Phase::Broadcast, "only an established leader proposes");
        assert!(zxid.epoch() == self.epoch && zxid.counter() == self.next_counter(), "{zxid} is not the next");
        self.proposed = zxid;
        for learner in self.learners.values_mut() {
            if learner.stage >= Stage::Forwarding && !learner.observer {
                learner.send(PacketType::Proposal, zxid.to_wire(), Some(record));
                learner.sent = zxid;
            }
        }
    }

    fn next_counter(&self) -> u32 {
        if self.proposed.epoch() == self.epoch { self.proposed.counter() + 1 } else { 1 }
    }

    /// The zxid that the next transaction gets; `None` when this epoch has no more.
    pub fn next_zxid(&self) -> Option<Zxid> {
        let counter = self.next_counter();
        (counter <= self.start.counter_max).then(|| Zxid::new(self.epoch, counter))
    }

    /// This server's own log is durable up to here.
    pub fn durable(&mut self, up_to: Zxid, history: &mut History) {
        if self.phase == Phase::Broadcast && up_to > self.durable {
            assert!(up_to <= self.proposed, "durable before it was proposed");
            self.durable = up_to;
            self.commit(history);
        }
    }

    pub(super) fn ack(&mut self, link: Link, zxid: Zxid, history: &mut History) {
        let epoch = self.epoch;
        let proposed = self.proposed;
        let Some(learner) = self.learners.get_mut(&link) else { return };
        if zxid.counter() == 0 {
            if zxid.epoch() == epoch && learner.stage == Stage::Forwarding {
                learner.stage = Stage::Synced;
                learner.synced_at = learner.heard;
                if self.phase == Phase::Broadcast {
                    self.up_to_date(link);
                    self.commit(history);
                } else {
                    let now = learner_heard(self.learners.get(&link));
                    self.look_for_newleader_acks(history, now);
                }
            }
            return;
        }
        if zxid > proposed {
            return self.close(link, format!("an ACK of {zxid}, which was never proposed"));
        }
        // What is older than this epoch was acknowledged with NEWLEADER.
        if learner.observer || zxid.epoch() != epoch {
            return;
        }
        if zxid > learner.acked {
            learner.acked = zxid;
            if learner.stage >= Stage::Synced {
                self.commit(history);
            }
        }
    }

    pub(super) fn look_for_newleader_acks(&mut self, history: &mut History, now: Now) {
        if self.phase != Phase::Sync {
            return;
        }
        let synced = self.voters(|learner| learner.stage >= Stage::Synced);
        if !self.start.quorum.contains_quorum(synced) {
            return;
        }
        self.enter(Phase::Broadcast, now);
        self.next_check = now.plus_ms(self.start.timing.tick_ms);
        self.marks.clear();
        self.outputs.push(LeaderOutput::Established { epoch: self.epoch, up_to: self.initial });
        let waiting: Vec<Link> =
            self.learners.iter().filter(|(_, l)| l.stage == Stage::Synced).map(|(&l, _)| l).collect();
        for link in waiting {
            self.up_to_date(link);
        }
        self.keep(history);
    }

    fn up_to_date(&mut self, link: Link) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        learner.stage = Stage::Serving;
        learner.send(PacketType::UpToDate, -1, None);
    }

    /// This server, and those voters among the learners for which it holds.
    fn voters(&self, holds: impl Fn(&Learner) -> bool) -> ServerSet {
        let mut set = ServerSet::EMPTY;
        set.insert(self.start.me);
        for learner in self.learners.values().filter(|learner| learner.voter && holds(learner)) {
            set.insert(learner.server);
        }
        set
    }

    /// Commits what a quorum has, in order, and tells everyone.
    fn commit(&mut self, history: &mut History) {
        if self.phase != Phase::Broadcast {
            return;
        }
        let up_to = self.on_quorum();
        if up_to <= self.committed {
            return;
        }
        let from = self.committed;
        self.committed = up_to;
        for learner in self.learners.values_mut() {
            if learner.stage < Stage::Forwarding {
                continue;
            }
            for (zxid, record) in history.between(from, up_to) {
                if learner.observer {
                    learner.send(PacketType::Inform, zxid.to_wire(), Some(record));
                    learner.sent = zxid;
                } else {
                    learner.send(PacketType::Commit, zxid.to_wire(), None);
                }
            }
            learner.send_verdicts(up_to);
        }
        self.outputs.push(LeaderOutput::Commit { up_to });
        self.keep(history);
        self.answer_syncs();
    }

    /// The highest zxid that a quorum of voters has durably.
    fn on_quorum(&self) -> Zxid {
        let mut acked: Vec<(Zxid, ServerId)> = self
            .learners
            .values()
            .filter(|learner| learner.voter && learner.stage >= Stage::Synced)
            .map(|learner| (learner.acked, learner.server))
            .collect();
        acked.push((self.durable, self.start.me));
        acked.sort_unstable_by(|a, b| b.cmp(a));
        let mut set = ServerSet::EMPTY;
        for (zxid, server) in acked {
            set.insert(server);
            if self.start.quorum.contains_quorum(set) {
                return zxid;
            }
        }
        self.committed
    }

    pub(super) fn ping(&mut self, now: Now) {
        self.syncs.round += 1;
        let round = self.syncs.round;
        let proposed = self.proposed;
        for learner in self.learners.values_mut() {
            // Before UPTODATE a learner may pass over a ping, and then its answers would be counted for the wrong ones.
            if learner.stage == Stage::Serving {
                learner.send(PacketType::Ping, proposed.to_wire(), None);
                learner.pings.push_back(round);
            }
        }
        self.marks.push_back((now, proposed));
    }

    pub(super) fn ping_answered(&mut self, link: Link) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        if let Some(round) = learner.pings.pop_front() {
            learner.answered = round;
            self.answer_syncs();
        }
    }

    /// A sync: of a client here, or of a learner's. Several that come while a round of pings is under way share the next.
    pub fn sync_asked(&mut self, from: Option<Link>, now: Now) {
        if self.phase != Phase::Broadcast {
            return;
        }
        if let Some(link) = from {
            let Some(learner) = self.learners.get_mut(&link) else { return };
            learner.syncs += 1;
            if learner.syncs > LEARNER_SYNCS_MAX {
                return self.close(link, format!("it waits for more than {LEARNER_SYNCS_MAX} syncs"));
            }
        }
        let waits_for = self.syncs.round + 1;
        self.syncs.waiting.push_back((waits_for, self.proposed, from));
        let idle = self.syncs.waiting.front().is_some_and(|&(round, ..)| round == waits_for);
        if idle {
            self.ping(now);
        }
        self.answer_syncs();
    }

    /// Syncs that are not answered yet.
    pub fn pending_syncs(&self) -> usize {
        self.syncs.waiting.len()
    }

    fn answer_syncs(&mut self) {
        let mut here = 0;
        while let Some(&(round, zxid, from)) = self.syncs.waiting.front() {
            let confirmed = self.voters(|learner| learner.stage >= Stage::Synced && learner.answered >= round);
            if zxid > self.committed || !self.start.quorum.contains_quorum(confirmed) || round > self.syncs.round {
                break;
            }
            self.syncs.waiting.pop_front();
            match from {
                None => here += 1,
                Some(link) => {
                    if let Some(learner) = self.learners.get_mut(&link) {
                        learner.syncs -= 1;
                        learner.send(PacketType::Sync, 0, None);
                    }
                }
            }
        }
        if here > 0 {
            self.outputs.push(LeaderOutput::SyncsDone { count: here });
        }
        // What came while the round was under way has the next to itself.
        if self.syncs.waiting.front().is_some_and(|&(round, ..)| round > self.syncs.round) {
            let now = self.marks.back().map_or(self.phase_began, |&(at, _)| at);
            self.ping(now);
            // Where nobody else's answer is needed there is nothing to wait for.
            self.answer_syncs();
        }
    }

    /// A leader without a quorum that it has heard from lately leads no more.
    pub(super) fn check_quorum(&mut self, now: Now) {
        let limit = self.start.timing.sync();
        let heard = self.voters(|learner| learner.stage >= Stage::Synced && now.since(learner.heard) <= limit);
        if !self.start.quorum.contains_quorum(heard) {
            self.unheard = true;
            return self.resign("a quorum of followers was not heard from within syncLimit".to_owned());
        }
        // What was proposed so long ago has to be acknowledged by now.
        while let Some(&(at, zxid)) = self.marks.front() {
            if now.since(at) <= limit {
                break;
            }
            self.due = zxid;
            self.marks.pop_front();
        }
        let due = self.due;
        // What was proposed while it was synchronised it may begin to log only now.
        let is_late = |l: &Learner| {
            l.stage >= Stage::Synced && !l.observer && l.acked < due.min(l.sent) && now.since(l.synced_at) > limit
        };
        let late: Vec<Link> =
            self.learners.iter().filter(|(_, learner)| is_late(learner)).map(|(&link, _)| link).collect();
        for link in late {
            let name = self.learners.get(&link).map_or(0, |learner| learner.server.0);
            self.close(link, format!("server {name} has not acknowledged {due} within syncLimit"));
        }
    }

    /// The answer to a learner's `Heard::Revalidate`. A follower has the proposals before it, and lets the client in behind
    /// them; an observer hears of them only when they are committed, and until then has to wait for the answer: else the
    /// client would not find what it wrote through another server.
    pub fn revalidated(&mut self, link: Link, answer: SessionValid) {
        let (proposed, committed) = (self.proposed, self.committed);
        let Some(learner) = self.learners.get_mut(&link) else { return };
        let after = if learner.observer { proposed } else { Zxid::ZERO };
        learner.verdicts.push_back((after, answer));
        learner.send_verdicts(committed);
        if learner.verdicts.len() > PROPOSALS_OUTSTANDING_MAX {
            self.close(link, "it asks for too many sessions at once".to_owned());
        }
    }
}

fn learner_heard(learner: Option<&Learner>) -> Now {
    learner.map_or(Now::START, |learner| learner.heard)
}
