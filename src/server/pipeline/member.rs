//! A server of an ensemble: what its role brings is done here, in the order in which the role says it (`zab`).
//!
//! Packets come in, outputs come out; a proposal goes to the log and into the line, a commit lets the line move, a change
//! of role empties hands: only what is in the log stays in the line. The clients of a server that followed wait for the next
//! leader, if it comes soon, and with them what they have asked (`kept`); others are let go.
//!
//! Runs on: the pipeline's thread.

use super::Pipeline;
use super::forward::Forwards;
use super::kept::Kept;
use super::peers::PutAside;
use super::replace::{FailedSnapshot, SnapReceiver, SnapSender, Unreadable};
use super::retries::{Retries, Step};
use crate::admin::status::{LeaderStatus, Mode, ProposalSizes};
use crate::clock::{self, Now};
use crate::disk::RealDisk;
use crate::fatal::Fatal;
use crate::ids::{Epoch, ServerId, SessionId, Zxid};
use crate::log::epochs::Epochs;
use crate::metrics::{Counter, Summary};
use crate::net::Readiness;
use crate::random::FastSet;
use crate::server::ensemble::election_net::ElectionNet;
use crate::server::ensemble::quorum_net::QuorumNet;
use crate::server::feed::Entry;
use crate::server::log_rate::LogRate;
use crate::server::queue::ConnId;
use crate::storage;
use crate::zab::leader::{LeaderOutput, Link};
use crate::zab::learner::LearnerOutput;
use crate::zab::members::OtherMembers;
use crate::zab::{Peer, Role};

/// No digest is compared: a snapshot has been installed that may be fuzzy, and its leader's history is not yet all here.
pub(super) const UNTIL_SYNCHRONISED: Zxid = Zxid(u64::MAX);

/// What a pipeline has in an ensemble and alone has not.
pub struct Member {
    pub peer: Peer,
    pub net: QuorumNet,
    pub elections: ElectionNet,
    /// Everything up to here is committed.
    pub committed: Zxid,
    /// Clients are served once this has been applied.
    pub serve_at: Option<Zxid>,
    pub serving: bool,
    pub kept: Option<Kept>,
    /// The first time of serving (`Shared::serving_term`) since everyone had to go.
    pub clients_since: u64,
    /// On a leader: sessions of kept clients that nobody has used since. Who asks for one gets it.
    pub unclaimed: FastSet<SessionId>,
    /// Syncs of clients here that a quorum has answered, and that have not been told.
    pub syncs_confirmed: usize,
    pub forwards: Forwards,
    /// What learners have asked and had to wait.
    pub put_aside: PutAside,
    /// Snapshots on their way to learners.
    pub sending: Vec<SnapSender>,
    /// Found as a leader; true of its files in any role.
    pub unreadable: Unreadable,
    pub snapshot_failed: Option<FailedSnapshot>,
    /// The leader's, on its way here.
    pub receiving: Option<SnapReceiver>,
    /// Digests of what a fuzzy snapshot had ahead of its zxid are not compared before this.
    pub digests_from: Zxid,
    /// Transactions after which the tree was not what the leader said.
    pub digests_wrong: u64,
    pub proposal_sizes: ProposalSizes,
    /// Of lines about connections of the quorum port.
    pub log_rate: LogRate,
    /// Of lines about roles in which this server did not come to serve.
    pub role_rate: LogRate,
    pub retries: Retries,
    /// An election is under way.
    pub looking: bool,
    /// When it began to look for the leader whose role it has not begun yet.
    pub looking_since: Option<Now>,
    /// While clients are not served, or not since a leader was lost: since when.
    pub unavailable_since: Option<Now>,
    pub role_began: Now,
}

impl Member {
    pub fn new(peer: Peer, net: QuorumNet, elections: ElectionNet, now: Now) -> Member {
        let retries = Retries::new(peer.settings().timing.init());
        Member {
            peer,
            net,
            elections,
            looking: false,
            looking_since: None,
            unavailable_since: Some(now),
            committed: Zxid::ZERO,
            serve_at: None,
            serving: false,
            kept: None,
            clients_since: 0,
            unclaimed: FastSet::default(),
            syncs_confirmed: 0,
            forwards: Forwards::default(),
            put_aside: PutAside::default(),
            sending: Vec::new(),
            unreadable: Unreadable::default(),
            snapshot_failed: None,
            receiving: None,
            digests_from: Zxid::ZERO,
            digests_wrong: 0,
            proposal_sizes: ProposalSizes::default(),
            log_rate: LogRate::default(),
            role_rate: LogRate::default(),
            retries,
            role_began: now,
        }
    }

    /// The snapshot that this server has started from may be fuzzy.
    pub fn compare_no_digest_yet(&mut self) {
        self.digests_from = UNTIL_SYNCHRONISED;
    }

    /// Whether this server makes transactions now.
    pub fn leads(&self) -> bool {
        self.serving && matches!(self.peer.role, Role::Leading(_))
    }

    /// What may be applied: committed, and durable here (fault model R7).
    pub fn applicable(&self) -> Zxid {
        self.committed.min(self.peer.last_durable())
    }

    /// What this server is, for the operator, and how many vote.
    pub fn standing(&mut self, now: Now, reset: bool) -> (Mode, u64) {
        if reset {
            self.proposal_sizes = ProposalSizes::default();
        }
        let mode = match &self.peer.role {
            Role::Leading(leader) => {
                let (followers, observers) = leader.synced();
                Mode::Leader(LeaderStatus {
                    proposal_sizes: self.proposal_sizes,
                    learners: leader.links().len() as u64,
                    synced_followers: followers as u64,
                    synced_non_voting_followers: 0,
                    synced_observers: observers as u64,
                    pending_syncs: leader.pending_syncs() as u64,
                    uptime_ms: now.since(self.role_began).as_millis() as u64,
                })
            }
            Role::Learning { leader, .. } if !self.peer.is_voter() => Mode::Observer { master: *leader },
            Role::Learning { .. } | Role::Looking => Mode::Follower,
        };
        (mode, self.peer.settings().config.quorum().voters().len() as u64)
    }

    /// The zxid behind which something without a transaction takes its place.
    pub fn end_of_line(&self) -> Zxid {
        self.peer.history.last()
    }

    /// Something has happened to a peer's socket.
    pub fn note(&mut self, token: mio::Token, readiness: Readiness) {
        if !self.elections.note(token, readiness) {
            self.net.note(token, readiness);
        }
    }

    pub fn deadline(&self) -> Option<Now> {
        let role = match &self.peer.role {
            Role::Looking => None,
            Role::Leading(leader) => Some(leader.deadline()),
            Role::Learning { learner, .. } => Some(learner.deadline()),
        };
        let kept = self.kept.map(|kept| kept.until);
        [role, self.net.deadline(), self.elections.deadline(), kept, self.retries.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether there is anything to do now, without waiting for an event. What has arrived from peers is asked for apart.
    pub fn has_work(&self, applied: Zxid) -> bool {
        let may_look = match self.retries.is_paused() {
            true => self.elections.has_lookers(),
            false => !self.looking && self.peer.candidacy().is_some(),
        };
        let may_serve = self.serve_at.is_some_and(|at| applied >= at);
        may_look
            || may_serve
            || self.peer.has_outputs()
            || self.net.has_work()
            || self.elections.has_work()
            || self.has_more_to_send()
    }

    /// Whether there is something for a learner that catches up, and room for it in its connection.
    fn has_more_to_send(&self) -> bool {
        let Role::Leading(leader) = &self.peer.role else { return false };
        let may_go = |link| self.net.has_sent_all(link) && leader.waiting(link) == 0;
        self.sending.iter().any(|sender| sender.has_more() && may_go(sender.link))
    }

    /// A learner's connection is gone, and what was put aside of it.
    pub fn forget(&mut self, link: Link) {
        self.net.close(link);
        self.sending.retain(|sender| sender.link != link);
        self.put_aside.forget(link);
    }
}

fn fatal(other: &OtherMembers) -> Fatal {
    Fatal::OtherMembers { theirs: other.theirs.clone(), ours: other.ours.clone() }
}

/// What one output wants of the pipeline, once the borrow of the role is over.
enum Todo {
    Leader(LeaderOutput),
    Learner(LearnerOutput),
}

impl Pipeline {
    /// One turn of everything between servers, but sending.
    pub(super) fn ensemble_turn(&mut self, now: Now) -> Result<(), Fatal> {
        let durable = self.log_writer.mailbox.durable();
        let Some(member) = &mut self.member else { return Ok(()) };
        member.peer.durable(durable);
        self.do_outputs(now)?;
        self.look_at_the_clock(now);
        self.elect(now)?;
        self.hear_learners(now)?;
        self.hear_leader(now)?;
        // Only now: what has been said lies in the sockets, however long this thread was kept from looking.
        let Some(member) = &mut self.member else { return Ok(()) };
        match &mut member.peer.role {
            Role::Leading(leader) => {
                self.recorder.count(Counter::DiffCount, leader.take_continued());
                leader.tick(&mut member.peer.history, now);
            }
            Role::Learning { learner, .. } => learner.tick(now),
            Role::Looking => {}
        }
        self.do_outputs(now)?;
        self.serve_if_ready(now);
        Ok(())
    }

    /// Between two roles: looks for a leader as soon as the log is at rest.
    fn elect(&mut self, now: Now) -> Result<(), Fatal> {
        let Some(member) = &mut self.member else { return Ok(()) };
        member.elections.turn(now);
        member.peer.agree(member.elections.agreed());
        self.heed_lookers(now)?;
        let Some(member) = &mut self.member else { return Ok(()) };
        if !matches!(member.peer.role, Role::Looking) {
            return Ok(());
        }
        if let Some(leader) = member.peer.wants_all_of() {
            return self.begin_role(leader, now);
        }
        if member.retries.is_paused() {
            // Taken, whatever comes of them: they are of this pause, and say nothing of the role behind it.
            let lookers = member.elections.lookers();
            match member.retries.step(&lookers, now) {
                Step::Wait => return Ok(()),
                Step::Begin(leader) => return self.begin_decided(leader, now),
                Step::Look => {}
            }
        }
        let Some(member) = &mut self.member else { return Ok(()) };
        if !member.looking {
            let Some(candidacy) = member.peer.candidacy() else { return Ok(()) };
            if self.shared.is_stopping() {
                return Ok(());
            }
            member.looking = true;
            if let Some(OtherMembers { theirs, ours }) = member.peer.other_members()
                && member.role_rate.allows(now)
            {
                tracing::error!(
                    "this server's data say that [{theirs}] vote, and its file that [{ours}] do. Until a leader says that \
                     its file is right, this server has no vote. If the file is wrong, put those members into it and start \
                     again. If it is right (the data are another ensemble's, or its members were changed by hand): put the \
                     server lines into a file of their own that dynamicConfigFile names, with a name that ends in the \
                     version of the data, such as zoo.cfg.dynamic.100000007, and start all servers again"
                );
            }
            member.looking_since.get_or_insert(now);
            self.recorder.count(Counter::LookingCount, 1);
            member.elections.look(candidacy, now);
        }
        if let Some(vote) = member.elections.decided() {
            member.looking = false;
            let me = member.peer.settings().me;
            let may_lead = !member.peer.is_quarantined() && member.peer.other_members().is_none();
            if vote.leader == me && !(may_lead && member.peer.is_voter()) {
                // What the others last heard of an earlier life of this server; it must not lead now.
                tracing::warn!("others would follow this server, which must not lead; it looks again");
                return Ok(());
            }
            if let Step::Begin(leader) = member.retries.decided(vote.leader, now) {
                self.begin_decided(leader, now)?;
            }
        }
        Ok(())
    }

    fn begin_decided(&mut self, leader: ServerId, now: Now) -> Result<(), Fatal> {
        let Some(member) = &mut self.member else { return Ok(()) };
        if member.role_rate.allows(now) {
            let is_me = leader == member.peer.settings().me;
            tracing::info!("elected: server {}{}", leader.0, if is_me { ", this one" } else { "" });
        }
        self.begin_role(leader, now)?;
        // Where a cut has ended, newer votes come right behind those that have just decided it.
        self.heed_lookers(now)
    }

    /// A role that has hardly begun ends where those it needs look for a leader again. Without a role this waits for the next.
    fn heed_lookers(&mut self, now: Now) -> Result<(), Fatal> {
        let Some(member) = &mut self.member else { return Ok(()) };
        match &mut member.peer.role {
            Role::Leading(leader) => {
                let unreachable = member.elections.unreachable();
                member.elections.lookers().into_iter().for_each(|voter| leader.strays(voter, unreachable));
                self.do_outputs(now)?;
            }
            Role::Learning { leader, learner } => {
                if member.elections.lookers().contains(leader) && !learner.is_serving() {
                    self.leave_role("the elected leader is looking for one itself", now);
                }
            }
            Role::Looking => {}
        }
        Ok(())
    }

    /// An election has been decided.
    pub(super) fn begin_role(&mut self, leader: ServerId, now: Now) -> Result<(), Fatal> {
        let Some(member) = &mut self.member else { return Ok(()) };
        member.retries.begun();
        let settings = member.peer.settings().clone();
        member.role_began = now;
        // An observer only hears of it (upstream counts in `Leader` and `Follower`).
        if let Some(since) = member.looking_since.take()
            && member.peer.is_voter()
        {
            self.recorder.observe(Summary::ElectionTime, now.since(since).as_millis() as u64, 1);
        }
        member.peer.elected(leader, now);
        match &member.peer.role {
            Role::Leading(_) => {
                // Taken since the start. That somebody else listens on it can be told only now, and the others can't go on
                // as long as one stands that can't be reached.
                member.net.listen()?;
            }
            Role::Learning { leader, .. } => {
                if let Some(line) = settings.config.server(*leader) {
                    member.net.dial(line.clone(), now);
                }
            }
            Role::Looking => {}
        }
        self.do_outputs(now)
    }

    /// The role is over; see the head of this file.
    pub(super) fn leave_role(&mut self, why: &str, now: Now) {
        let Some(member) = &mut self.member else { return };
        let was = match member.peer.role {
            Role::Looking => return,
            Role::Leading(_) => "leading",
            Role::Learning { .. } => "following",
        };
        if member.serving || member.role_rate.allows(now) {
            tracing::warn!("{was} ends: {why}");
        }
        match member.peer.role {
            _ if member.serving => member.retries.served(),
            Role::Learning { leader, .. } => member.retries.failed(leader, member.role_began),
            // Who leads has to be there when the others come.
            Role::Leading(_) | Role::Looking => {}
        }
        member.unavailable_since.get_or_insert(now);
        let kept = match &member.peer.role {
            Role::Learning { learner, .. } => Some(Kept { until: learner.deadline(), epoch: learner.epoch() }),
            // It may have been cut off for as long as that already.
            Role::Leading(_) | Role::Looking => None,
        };
        let kept = kept.filter(|kept| kept.until > now && !self.shared.is_stopping());
        member.peer.leave();
        member.net.close_all();
        member.sending.clear();
        member.put_aside.clear();
        member.receiving = None;
        member.serve_at = None;
        member.syncs_confirmed = 0;
        if std::mem::take(&mut member.serving) {
            self.shared.set_serving(false);
            member.kept = kept;
            member.unclaimed.clear();
            self.tell_all(|| if kept.is_some() { Entry::Stall } else { Entry::CloseAll });
        }
        self.reconnects.clear();
        self.prepare.clear();
        self.opening.clear();
        self.closings.clear();
        self.forget_owners(now);
        self.empty_the_line();
        // Made, and perhaps sent to others already: it belongs to this server's history.
        if !self.batch.is_empty() {
            self.log_writer.mailbox.post(&mut self.batch);
        }
    }

    /// Does what the role wants, until it wants nothing more.
    pub(super) fn do_outputs(&mut self, now: Now) -> Result<(), Fatal> {
        loop {
            let Some(member) = &mut self.member else { return Ok(()) };
            let todo: Vec<Todo> = match &mut member.peer.role {
                Role::Looking => return Ok(()),
                Role::Leading(leader) => leader.outputs().into_iter().map(Todo::Leader).collect(),
                Role::Learning { learner, .. } => learner.outputs().into_iter().map(Todo::Learner).collect(),
            };
            if todo.is_empty() {
                return Ok(());
            }
            for todo in todo {
                match todo {
                    Todo::Leader(output) => self.leader_output(output, now)?,
                    Todo::Learner(output) => self.learner_output(output, now)?,
                }
            }
        }
    }

    fn leader_output(&mut self, output: LeaderOutput, now: Now) -> Result<(), Fatal> {
        let Some(member) = &mut self.member else { return Ok(()) };
        match output {
            LeaderOutput::StoreEpochs { accepted, current } => self.store_epochs(accepted, current)?,
            LeaderOutput::Close { link, why } => {
                if member.log_rate.allows(now) {
                    tracing::warn!("a learner's connection is closed: {why}");
                }
                member.forget(link);
            }
            LeaderOutput::SendSnapshot { link } => self.send_snapshot(link, now),
            LeaderOutput::CatchUp { link, after } => self.send_log(link, after),
            LeaderOutput::Established { epoch, up_to } => {
                let took = now.since(member.role_began).as_millis();
                tracing::info!("leading epoch {} ({took} ms after the election); history up to {up_to}", epoch.0);
                member.committed = member.committed.max(up_to);
                member.serve_at = Some(up_to);
                member.proposal_sizes = ProposalSizes::default();
                member.elections.established(epoch, now);
                self.look_at_kept(epoch);
            }
            LeaderOutput::Commit { up_to } => {
                // A leader's zxids have no holes; what its epoch began with is committed by then.
                let same_epoch = member.committed.epoch() == up_to.epoch();
                let before = if same_epoch { member.committed.counter() } else { 0 };
                self.recorder.count(Counter::CommitCount, u64::from(up_to.counter().saturating_sub(before)));
                member.committed = up_to;
            }
            LeaderOutput::SyncsDone { count } => member.syncs_confirmed += count,
            LeaderOutput::Resign { why } => self.leave_role(&why, now),
        }
        Ok(())
    }

    fn learner_output(&mut self, output: LearnerOutput, now: Now) -> Result<(), Fatal> {
        let Some(member) = &mut self.member else { return Ok(()) };
        match output {
            LearnerOutput::StoreEpochs { accepted, current } => self.store_epochs(accepted, current)?,
            LearnerOutput::Truncate { to } => self.truncate(to, now)?,
            LearnerOutput::ReceiveSnapshot { zxid } => {
                tracing::info!("the leader sends its whole state, at zxid {zxid}");
                member.receiving = Some(SnapReceiver::new(zxid, self.tree_options, self.settings.record_bytes_max));
            }
            LearnerOutput::Commit { up_to } => member.committed = member.committed.max(up_to),
            LearnerOutput::Serving { epoch, up_to } => {
                let took = now.since(member.role_began).as_millis();
                tracing::info!("following in epoch {} ({took} ms after the election); history up to {up_to}", epoch.0);
                member.committed = member.committed.max(up_to);
                member.serve_at = Some(up_to);
                member.elections.established(epoch, now);
                self.owes_snapshot |= member.peer.serves(up_to);
                if member.digests_from == UNTIL_SYNCHRONISED {
                    // What a fuzzy snapshot had ahead of its zxid came before this.
                    member.digests_from = member.peer.history.last();
                    storage::settle(&RealDisk, &self.dirs)?;
                }
                self.look_at_kept(epoch);
            }
            LearnerOutput::SyncDone => self.sync_done(),
            LearnerOutput::Activated { zxid } => {
                if let Some(other) = member.peer.activated(zxid) {
                    return Err(fatal(&other));
                }
                tracing::warn!("the leader's configuration of {zxid} is in force; the same servers vote as before");
            }
            LearnerOutput::OtherMembers(other) => return Err(fatal(&other)),
            LearnerOutput::Lost { why } => self.leave_role(&why, now),
        }
        Ok(())
    }

    /// Both in one file, on disk before anyone is told.
    fn store_epochs(&mut self, accepted: Epoch, current: Epoch) -> Result<(), Fatal> {
        let Some(member) = &mut self.member else { return Ok(()) };
        Epochs::new(accepted, current).store(&RealDisk, &self.dirs.log)?;
        if member.peer.ends_quarantine(accepted, current) {
            // The leader's state has taken the place of the damaged history, and its epoch is stored.
            storage::release(&RealDisk, &self.dirs)?;
        }
        // The disk may have been waited for longer than anyone is given to be heard.
        member.peer.epochs_stored(accepted, current, clock::now());
        Ok(())
    }

    pub(super) fn serve_if_ready(&mut self, now: Now) {
        let applied = self.tree.peek().zxid();
        let Some(member) = &mut self.member else { return };
        if member.serve_at.is_some_and(|at| applied >= at) {
            member.serve_at = None;
            member.serving = true;
            if let Some(since) = member.unavailable_since.take() {
                let took = now.since(since).as_millis() as u64;
                self.recorder.observe(Summary::UnavailableTime, took, 1);
                if matches!(member.peer.role, Role::Leading(_)) {
                    self.recorder.observe(Summary::LeaderUnavailableTime, took, 1);
                }
            }
            self.prepare.clear();
            self.forget_owners(now);
            let Some(member) = &mut self.member else { return };
            let keeps = member.kept.take().is_some();
            if matches!(member.peer.role, Role::Leading(_)) {
                member.unclaimed = self.sessions.owned().map(|(session, _)| session).collect();
            }
            self.next_session_check = now;
            self.wall = super::expiry::Wall::new(crate::clock::wall_ms(), now);
            self.shared.set_serving(true);
            if keeps {
                if !self.leads() {
                    // The new leader knows of each only how it began.
                    let held: Vec<SessionId> = self.sessions.owned().map(|(session, _)| session).collect();
                    self.note_touched(&held);
                }
                // Behind the events of what the new leader has brought, and the answers that came with it.
                self.tell_all(|| Entry::GoOn);
            } else {
                member.clients_since = self.shared.serving_term();
            }
        }
    }

    /// Nobody holds a session, but for clients that are kept.
    fn forget_owners(&mut self, now: Now) {
        let keeps = self.member.as_ref().is_some_and(|member| member.kept.is_some());
        self.sessions.begin_anew_but(|owner| keeps && !ConnId::from(owner).is_link(), now);
    }

    /// A word to all cores, at once: it comes before whatever may be changed next.
    pub(super) fn tell_all(&mut self, entry: impl Fn() -> Entry) {
        for feed in &mut self.feeds {
            feed.entries.push_back(entry());
        }
        self.push_feeds();
        self.ring();
    }

    /// Who holds a session, if it is a connection of this server's.
    pub(super) fn local_owner(&self, session: SessionId) -> Option<ConnId> {
        self.sessions.owner(session).map(ConnId::from).filter(|owner| !owner.is_link())
    }
}
