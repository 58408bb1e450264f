//! What a server votes for, and when two votes are the same.
//!
//! Votes of servers that look for a leader are compared in full. Members of a running ensemble report what they once
//! voted with, which differs from one to the next; they agree if they name the same leader of the same epoch. Comparing
//! these in full keeps newcomers out for ever; comparing the others by less elects two leaders.
//!
//! Promises: `rank` is a total order, the only one by which a vote is better (a comparison that looks at the id before
//! the epoch lets votes run in circles). Runs on: whichever thread asks; plain values.

use crate::ids::{Epoch, ServerId, Zxid};
use crate::wire::election::{Notification, PeerState};
use crate::zab::ensemble::EnsembleConfig;

/// A vote for one server, in one round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    pub leader: ServerId,
    /// The last zxid in the log of the one voted for.
    pub zxid: Zxid,
    /// The election (upstream: `electionEpoch`). Counted by each process from 0, and carried from one to the next.
    pub round: u64,
    /// The current epoch of the one voted for; once the leader is established, the epoch that it leads.
    pub epoch: Epoch,
}

impl Vote {
    /// Higher is better: the later epoch, then the longer history, then the larger id. zxids compare as signed numbers,
    /// as they do in ZooKeeper.
    pub fn rank(&self) -> (Epoch, i64, ServerId) {
        (self.epoch, self.zxid.to_wire(), self.leader)
    }

    /// From a notification of a voter. `None` where a number is none: it was not sent by a voter in its right mind.
    pub fn read(notification: &Notification<'_>) -> Option<Vote> {
        Some(Vote {
            leader: ServerId(u8::try_from(notification.leader).ok()?),
            zxid: Zxid::from_wire(notification.zxid),
            round: u64::try_from(notification.round).ok()?,
            epoch: notification.epoch()?,
        })
    }

    /// Whether it comes from a server that does not trust its own history. Such votes are never counted.
    pub fn distrusts_itself(&self) -> bool {
        self.zxid.to_wire() < 0
    }

    pub fn ballot(&self, state: PeerState) -> Ballot {
        Ballot {
            state,
            leader: self.leader.0 as i64,
            zxid: self.zxid.to_wire(),
            round: self.round as i64,
            epoch: self.epoch.0 as i64,
        }
    }
}

/// A notification to be sent, without the configuration that goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ballot {
    pub state: PeerState,
    /// The three are `i64::MIN` in what an observer sends: it proposes nobody.
    pub leader: i64,
    pub zxid: i64,
    pub epoch: i64,
    pub round: i64,
}

impl Ballot {
    /// The message; `config` is the sender's configuration in force.
    pub fn notification<'a>(&self, config: &'a EnsembleConfig) -> Notification<'a> {
        Notification {
            state: self.state,
            leader: self.leader,
            zxid: self.zxid,
            round: self.round,
            peer_epoch: self.epoch,
            version: Notification::VERSION,
            config: Some(config.text().as_bytes()),
        }
    }
}

/// A vote as it was told, and by whom: a server that looks, follows or leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Told {
    pub vote: Vote,
    pub state: PeerState,
    /// From a server older than 3.5, which does not tell the epoch that is led.
    pub old: bool,
}

impl Told {
    pub fn looking(vote: Vote) -> Told {
        Told { vote, state: PeerState::Looking, old: false }
    }

    /// Whether both mean the same leader. `within_round`: both are of my round, and then the leader's name will do,
    /// since some members have learned the new epoch by now and some have not.
    pub fn agrees(&self, other: &Told, within_round: bool) -> bool {
        if self.state == PeerState::Looking || other.state == PeerState::Looking {
            return self.vote == other.vote;
        }
        self.vote.leader == other.vote.leader
            && (within_round || self.old != other.old || self.vote.epoch == other.vote.epoch)
    }
}
