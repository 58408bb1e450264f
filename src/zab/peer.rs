//! A server of an ensemble through its roles: looking for a leader, then leading or following, then looking again.
//!
//! What outlives a role is here: the history in memory, the two epochs, whether the history can be trusted. Between two
//! roles there is a barrier (fault model R6): a new one begins only when everything that the old one gave to the log is
//! durable, so what a server reports of itself is what is on its disk (R2).
//!
//! The election is beside this, not inside: it needs what `candidacy` says, and ends with `elected`.
//!
//! Without I/O, clock or threads. Runs on the pipeline's thread.

use super::Timing;
use super::ensemble::EnsembleConfig;
use super::history::History;
use super::leader::{Leader, LeaderStart};
use super::learner::{Learner, LearnerStart};
use super::members::{OtherMembers, Reconfigurations};
use crate::clock::Now;
use crate::ids::{Epoch, ServerId, Zxid};
use std::sync::Arc;

/// What does not change while a server runs.
#[derive(Clone)]
pub struct PeerSettings {
    pub me: ServerId,
    pub config: Arc<EnsembleConfig>,
    pub timing: Timing,
    /// Bytes that may wait for one learner before it is dropped.
    pub output_max: usize,
    /// Transactions of an epoch that this server leads.
    pub counter_max: u32,
}

/// What a server is doing in its ensemble.
pub enum Role {
    /// There is an election, or will be as soon as the log is at rest.
    Looking,
    Leading(Box<Leader>),
    /// Follows, as a voter or as an observer.
    Learning {
        leader: ServerId,
        learner: Box<Learner>,
    },
}

/// With what a server stands for election (`Vote`'s epoch and zxid).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidacy {
    pub current: Epoch,
    /// `None`: this history may have lost something, and must not be voted with.
    pub last: Option<Zxid>,
    /// It led, and nobody was heard from (`Election::start_unheard`).
    pub unheard: bool,
}

/// One server.
pub struct Peer {
    settings: PeerSettings,
    pub history: History,
    pub role: Role,
    accepted: Epoch,
    current: Epoch,
    /// Newest epoch that anyone has told this server, when it led, to have accepted: its next one as leader is newer.
    heard: Epoch,
    quarantined: bool,
    /// Whether its last role was to lead, and nobody was heard from.
    unheard: bool,
    reconfigurations: Reconfigurations,
    /// Newest version under which others have a configuration by which the same servers vote: it is what this server leads with.
    agreed: Zxid,
    /// Whose whole state it asks for in its next role.
    wants_all_of: Option<ServerId>,
    durable: Zxid,
}

impl Peer {
    /// After recovery: everything in `history` is durable.
    pub fn new(settings: PeerSettings, history: History, accepted: Epoch, current: Epoch, quarantined: bool) -> Peer {
        assert!(current <= accepted);
        let durable = history.last();
        Peer {
            settings,
            history,
            role: Role::Looking,
            accepted,
            current,
            heard: accepted,
            quarantined,
            unheard: false,
            reconfigurations: Reconfigurations::default(),
            agreed: Zxid::ZERO,
            wants_all_of: None,
            durable,
        }
    }

    pub fn settings(&self) -> &PeerSettings {
        &self.settings
    }

    pub fn is_voter(&self) -> bool {
        self.settings.config.quorum().is_voter(self.settings.me)
    }

    pub fn accepted(&self) -> Epoch {
        self.accepted
    }

    pub fn current(&self) -> Epoch {
        self.current
    }

    pub fn is_quarantined(&self) -> bool {
        self.quarantined
    }

    /// Last record that is durable here.
    pub fn last_durable(&self) -> Zxid {
        self.durable
    }

    /// A reconfiguration stands in the history at this zxid, in force or not, with this text.
    pub fn reconfigured(&mut self, zxid: Zxid, text: &[u8]) {
        self.reconfigurations.note(zxid, &self.settings.config, text);
    }

    /// With whom the history ends, if by that others vote than this server was given, and no leader has said that it is not so:
    /// then it has no vote.
    pub fn other_members(&self) -> Option<&OtherMembers> {
        self.reconfigurations.newest()
    }

    /// The reconfiguration at this zxid is in force. `Some`: others vote then, and this server must stop.
    pub fn activated(&mut self, zxid: Zxid) -> Option<OtherMembers> {
        self.reconfigurations.activated(zxid)
    }

    /// It serves (`LearnerOutput::Serving`). `true`: its history says others, who don't vote; to have a vote again when it
    /// begins anew it needs a snapshot that says its own members.
    pub fn serves(&mut self, up_to: Zxid) -> bool {
        match &self.role {
            Role::Learning { learner, .. } => self.reconfigurations.decided(learner.before_new_leader(), up_to),
            _ => false,
        }
    }

    /// Voters have a configuration of this version, by which the same servers vote as by this server's. ZooKeeper servers give
    /// one to the members of a static file, and take no leader any more that has an older one.
    pub fn agree(&mut self, version: Zxid) {
        if version <= self.agreed.max(self.settings.config.version()) {
            return;
        }
        self.agreed = version;
        if let Role::Leading(leader) = &mut self.role {
            leader.agree(&self.settings.config.with_version(version));
        }
    }

    /// How it stands for election; `None` while something that an earlier role gave to the log is not durable yet.
    pub fn candidacy(&self) -> Option<Candidacy> {
        let at_rest = matches!(self.role, Role::Looking) && self.durable == self.history.last();
        let last = (!self.quarantined && self.other_members().is_none()).then_some(self.durable);
        at_rest.then_some(Candidacy { current: self.current, last, unheard: self.unheard })
    }

    /// An election has been decided: this server leads, or follows. The caller opens the quorum port, or connects.
    pub fn elected(&mut self, leader: ServerId, now: Now) {
        assert!(self.candidacy().is_some(), "a role begins when the log is at rest");
        let PeerSettings { me, ref config, timing, output_max, counter_max } = self.settings;
        let wants_everything = self.wants_all_of.take() == Some(leader);
        self.role = if leader == me {
            assert!(!self.quarantined, "a server whose history is in doubt never leads");
            assert!(self.other_members().is_none(), "nor does one that may have no vote any more");
            let led = config.with_version(config.version().max(self.agreed));
            let start = LeaderStart {
                me,
                quorum: Arc::new(config.quorum().clone()),
                timing,
                config_text: led.text().as_bytes().into(),
                config_version: led.version().to_wire(),
                accepted: self.accepted,
                current: self.current,
                heard: self.heard,
                counter_max,
                output_max,
            };
            Role::Leading(Box::new(Leader::new(start, &self.history, now)))
        } else {
            let start = LearnerStart {
                me,
                observer: !self.is_voter(),
                timing,
                config: config.clone(),
                accepted: self.accepted,
                current: self.current,
                quarantined: self.quarantined || wants_everything,
            };
            Role::Learning { leader, learner: Box::new(Learner::new(start, &self.history, now)) }
        };
    }

    /// This server's history is sound, and yet can't be continued where the leader says. The role has been left; the next one
    /// is with the same leader, without an election, and asks for its whole state. Votes are what they were: what this server
    /// has, it has.
    pub fn ask_for_everything(&mut self, leader: ServerId) {
        self.wants_all_of = Some(leader);
    }

    /// With whom the next role is, if there need be no election.
    pub fn wants_all_of(&self) -> Option<ServerId> {
        self.wants_all_of
    }

    /// Whether the role wants something done.
    pub fn has_outputs(&self) -> bool {
        match &self.role {
            Role::Looking => false,
            Role::Leading(leader) => leader.has_outputs(),
            Role::Learning { learner, .. } => learner.has_outputs(),
        }
    }

    /// The role is over (`Resign`, `Lost`). The caller has closed its connections, or does so now.
    pub fn leave(&mut self) {
        self.unheard = false;
        if let Role::Leading(leader) = &self.role {
            self.heard = self.heard.max(leader.newest_accepted());
            self.unheard = leader.was_unheard();
        }
        self.role = Role::Looking;
        self.history.pin(None);
    }

    /// Whether these epochs, once they are durable, say that a leader's history has taken the place of the doubtful one: a
    /// learner makes the leader's epoch its current one when its history is the leader's, and not before.
    pub fn ends_quarantine(&self, accepted: Epoch, current: Epoch) -> bool {
        self.quarantined && current == accepted && matches!(self.role, Role::Learning { .. })
    }

    /// The epochs that a role wanted to be stored are durable. Files first, then memory. `now`: when they are, and not when
    /// the disk was asked.
    pub fn epochs_stored(&mut self, accepted: Epoch, current: Epoch, now: Now) {
        assert!(accepted >= self.accepted && current >= self.current && current <= accepted);
        if self.ends_quarantine(accepted, current) {
            self.quarantined = false;
        }
        (self.accepted, self.current) = (accepted, current);
        match &mut self.role {
            Role::Leading(leader) => leader.epochs_stored(&mut self.history, now),
            Role::Learning { learner, .. } => learner.epochs_stored(now),
            Role::Looking => {}
        }
    }

    /// The log is durable up to here.
    pub fn durable(&mut self, up_to: Zxid) {
        if up_to <= self.durable {
            return;
        }
        assert!(up_to <= self.history.last(), "durable before it was appended");
        self.durable = up_to;
        match &mut self.role {
            Role::Leading(leader) => leader.durable(up_to, &mut self.history),
            Role::Learning { learner, .. } => learner.durable(up_to),
            Role::Looking => {}
        }
    }

    /// The history was cut at `to`, on disk too (`LearnerOutput::Truncate`). What was in memory before it is kept.
    pub fn truncated(&mut self, to: Zxid, now: Now) {
        if self.history.contains(to) {
            self.history.truncate(to);
        } else {
            self.history.reset(to);
        }
        self.reconfigurations.truncate(to);
        self.durable = to;
        if let Role::Learning { learner, .. } = &mut self.role {
            learner.truncated(to, now);
        }
    }

    /// The history is the leader's snapshot now, on disk too (`LearnerOutput::ReceiveSnapshot`).
    pub fn snapshot_installed(&mut self, zxid: Zxid) {
        self.history.reset(zxid);
        self.reconfigurations.clear();
        self.durable = zxid;
        if let Role::Learning { learner, .. } = &mut self.role {
            learner.snapshot_installed(zxid);
        }
    }
}
