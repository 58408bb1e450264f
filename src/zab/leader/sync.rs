//! Bringing a learner to this history: what it lacks, what it has too much, or all of it (upstream: `LearnerHandler.syncFollower`).
//!
//! Where a learner's history can be continued is decided by membership (fault model R3). Its last zxid is an entry of this
//! history: continue there. It is not, but an earlier entry of the *same epoch* is: within an epoch there was one leader and
//! no hole, so the learner has that entry too, and what it has behind it never was committed: cut there. Anything else can't be
//! proved from zxids alone: a snapshot.

use super::{Leader, LeaderOutput, Learner, Link, Phase, Stage};
use crate::ids::Zxid;
use crate::wire::quorum::{PacketType, epoch_zxid};
use crate::zab::history::History;

/// How a learner's history is continued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Plan {
    /// From its end.
    Diff,
    /// From this entry, behind which it has to forget.
    Trunc(Zxid),
    /// From its end, which is older than what is in memory.
    Log,
    Snapshot,
}

/// `last` is the learner's; `committed` is the end of what may be told to be committed.
pub(super) fn plan(last: Option<Zxid>, history: &History, committed: Zxid) -> Plan {
    let Some(last) = last else { return Plan::Snapshot };
    if last == committed {
        return Plan::Diff;
    }
    if last < history.base() {
        return if last == Zxid::ZERO { Plan::Snapshot } else { Plan::Log };
    }
    // (e, 0) is the end of a history that epoch e began with: everything of this one that is older is in it.
    let is_boundary = last.counter() == 0 && last < committed;
    if last < committed && (is_boundary || history.contains(last)) {
        return Plan::Diff;
    }
    match history.largest_up_to(last.min(committed)) {
        Some(entry) if entry.epoch() == last.epoch() && entry.counter() > 0 => Plan::Trunc(entry),
        _ => Plan::Snapshot,
    }
}

impl Leader {
    pub(super) fn sync(&mut self, link: Link, history: &mut History) {
        assert!(self.phase >= Phase::Sync);
        let committed = self.committed;
        let Some(learner) = self.learners.get_mut(&link) else { return };
        match plan(learner.last, history, committed) {
            Plan::Diff => {
                learner.sent = learner.last.expect("a DIFF begins where the learner's history ends");
                learner.send(PacketType::Diff, committed.to_wire(), None);
                self.continued += 1;
                self.forward_from_memory(link, history);
            }
            Plan::Trunc(entry) => {
                learner.sent = entry;
                learner.send(PacketType::Trunc, entry.to_wire(), None);
                self.continued += 1;
                self.forward_from_memory(link, history);
            }
            Plan::Log => {
                let after = learner.last.expect("known, or there would be no such plan");
                learner.stage = Stage::CatchingUp;
                learner.sent = after;
                self.outputs.push(LeaderOutput::CatchUp { link, after });
            }
            Plan::Snapshot => self.want_snapshot(link, history),
        }
    }

    fn want_snapshot(&mut self, link: Link, history: &mut History) {
        let committed = self.committed;
        let Some(learner) = self.learners.get_mut(&link) else { return };
        learner.stage = Stage::CatchingUp;
        learner.sent = committed;
        self.outputs.push(LeaderOutput::SendSnapshot { link });
        self.keep(history);
    }

    /// The log has the learner's last record and everything behind it.
    pub fn catch_up_begins(&mut self, link: Link) {
        let committed = self.committed;
        let Some(learner) = self.learners.get_mut(&link) else { return };
        learner.send(PacketType::Diff, committed.to_wire(), None);
        self.continued += 1;
    }

    /// How many learners have had their history continued, cut or not, since this was last asked.
    pub fn take_continued(&mut self) -> u64 {
        std::mem::take(&mut self.continued)
    }

    /// The log does not reach back so far, or has not that record.
    pub fn cannot_catch_up(&mut self, link: Link, history: &mut History) {
        self.want_snapshot(link, history);
    }

    /// Records of the log behind what the learner was sent last; all of them are committed. `false`: enough, the rest goes
    /// from memory (or the link is gone). Panics on a hole.
    pub fn catch_up<'a>(
        &mut self,
        link: Link,
        records: impl Iterator<Item = (Zxid, &'a [u8])>,
        history: &mut History,
    ) -> bool {
        let committed = self.committed;
        let Some(learner) = self.learners.get_mut(&link) else { return false };
        for (zxid, record) in records {
            if zxid > learner.sent && zxid <= committed {
                assert!(crate::zab::history::follows(learner.sent, zxid), "{zxid} behind {}", learner.sent);
                committed_record(learner, zxid, record);
            }
        }
        let reached = history.contains(learner.sent) && learner.sent <= committed;
        if reached {
            self.forward_from_memory(link, history);
        }
        !reached
    }

    /// The log has no more records: the rest has to be in memory.
    pub fn log_ended(&mut self, link: Link, history: &mut History) {
        let committed = self.committed;
        let Some(learner) = self.learners.get_mut(&link) else { return };
        let sent = learner.sent;
        if history.contains(sent) && sent <= committed {
            self.forward_from_memory(link, history);
        } else {
            self.close(link, format!("the log ends at {sent}, and what follows is no longer in memory"));
        }
    }

    /// Bytes that wait for a learner: a caller that feeds it stops above what it thinks right.
    pub fn waiting(&self, link: Link) -> usize {
        self.learners.get(&link).map_or(0, |learner| learner.out.len())
    }

    /// A snapshot of the state at `zxid` will be sent, behind what the link's output has now.
    pub fn snapshot_begins(&mut self, link: Link, zxid: Zxid) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        (learner.sent, learner.replaced) = (zxid, true);
        learner.send(PacketType::Snap, zxid.to_wire(), None);
    }

    /// The snapshot has been sent, to its end.
    pub fn snapshot_sent(&mut self, link: Link, history: &mut History) {
        let Some(learner) = self.learners.get_mut(&link) else { return };
        let zxid = learner.sent;
        if history.contains(zxid) && zxid <= self.committed {
            self.forward_from_memory(link, history);
        } else {
            let why = format!("it took so long that what follows {zxid} is no longer in memory");
            self.close(link, format!("the snapshot for server {} is too old: {why}", self.server_name(link)));
        }
    }

    fn server_name(&self, link: Link) -> u8 {
        self.learners.get(&link).map_or(0, |learner| learner.server.0)
    }

    /// In one step: what is committed behind what it has, NEWLEADER, what is outstanding; from here on it is forwarded to.
    fn forward_from_memory(&mut self, link: Link, history: &mut History) {
        let (committed, proposed, epoch) = (self.committed, self.proposed, self.epoch);
        let config = self.start.config_text.clone();
        let Some(learner) = self.learners.get_mut(&link) else { return };
        assert!(learner.sent <= committed);
        for (zxid, record) in history.between(learner.sent, committed) {
            committed_record(learner, zxid, record);
        }
        learner.send(PacketType::NewLeader, epoch_zxid(epoch), Some(&config));
        // Behind NEWLEADER, where any later proposal would come: ZooKeeper 3.8.0 takes what came before it for done with, and
        // ends when the commit comes.
        if !learner.observer {
            for (zxid, record) in history.between(committed, proposed) {
                learner.send(PacketType::Proposal, zxid.to_wire(), Some(record));
                learner.sent = zxid;
            }
        }
        learner.stage = Stage::Forwarding;
        learner.acked = committed;
        self.keep(history);
    }
}

fn committed_record(learner: &mut Learner, zxid: Zxid, record: &[u8]) {
    learner.send(PacketType::Proposal, zxid.to_wire(), Some(record));
    learner.send(PacketType::Commit, zxid.to_wire(), None);
    learner.sent = zxid;
}
