//! A server that follows, as a voter or as an observer: it promises the leader's epoch, takes over its history, and then
//! makes durable what is proposed (upstream: `Learner`, `Follower`, `Observer`).
//!
//! ```text
//! FOLLOWERINFO ► LEADERINFO: accepted epoch durable ► ACKEPOCH ► DIFF | TRUNC | SNAP, proposals ► NEWLEADER:
//! history durable, then current epoch durable ► ACK ► UPTODATE ► ACK, serving ► PROPOSAL: durable ► ACK; COMMIT: apply
//! ```
//!
//! Proposals go to the log as they come, also during synchronisation: whatever part of a leader's history stands behind
//! this server's own is that leader's history up to there, so stopping anywhere leaves a history that some leader had. What
//! is acknowledged is what is durable, one by one and in order (a Java leader needs that), and nothing before NEWLEADER is
//! (R1). Nothing is reported but what is on disk (R2). A hole is a reason to leave the leader (R4).
//!
//! Without I/O, clock or threads; what is to be sent stands in `output`.

use super::ensemble::EnsembleConfig;
use super::history::{History, follows};
use super::members::OtherMembers;
use super::{Timing, is_plausible};
use crate::clock::Now;
use crate::ids::{Epoch, ServerId, Zxid};
use crate::wire::quorum::{
    LearnerInfo, PROTOCOL_VERSION, PacketType, QuorumPacket, Request, SessionTimeout, SessionValid, epoch_zxid,
    write_current_epoch,
};
use std::sync::Arc;

/// What the surroundings have to do, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LearnerOutput {
    /// Make these durable, then call `epochs_stored`.
    StoreEpochs { accepted: Epoch, current: Epoch },
    /// Forget every record behind this one, on disk and in memory, then call `truncated`. If that can't be done exactly, the
    /// server must stop.
    Truncate { to: Zxid },
    /// The leader's state at this zxid follows on the connection, outside of packets. When it is complete and durable, and
    /// has taken the place of everything that was here, call `snapshot_installed`.
    ReceiveSnapshot { zxid: Zxid },
    /// Everything up to here is committed: apply what is durable of it.
    Commit { up_to: Zxid },
    /// This server's history is the leader's and is committed up to here: once it is applied, clients may be served.
    Serving { epoch: Epoch, up_to: Zxid },
    /// The oldest sync that was forwarded is answered: everything committed before it is in what came before.
    SyncDone,
    /// The reconfiguration at this zxid, which came with or before this, is in force: if others vote by it, the server must
    /// stop.
    Activated { zxid: Zxid },
    /// By the leader's configuration others vote than by this server's: it must stop. Nothing was acknowledged.
    OtherMembers(OtherMembers),
    /// The leader is gone, or is none that this server can follow: an election begins.
    Lost { why: String },
}

/// What a packet of the leader brings for others than the learner itself.
#[derive(PartialEq, Eq, Debug)]
pub enum Brought<'a> {
    Nothing,
    /// A transaction that stands directly behind all before it: to the log and to the history, then `appended`. One that
    /// can't be decoded must go nowhere: `fail`.
    Proposal {
        zxid: Zxid,
        record: &'a [u8],
    },
    /// The leader wants to know who was heard from: `ping_answer`.
    Ping,
    /// Whether a session lives, as this server asked with `revalidate`.
    Valid(SessionValid),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    Connecting,
    /// FOLLOWERINFO is sent.
    Hello,
    StoringAccepted,
    /// ACKEPOCH is sent.
    AckedEpoch,
    /// The history is cut, or a snapshot is read: no packet may come meanwhile.
    Replacing,
    Syncing,
    /// NEWLEADER has come; what came before it is not yet all durable.
    NewLeader,
    StoringCurrent,
    /// NEWLEADER is acknowledged.
    Synced,
    Serving,
    Lost,
}

/// What a server knows when it begins to follow.
pub struct LearnerStart {
    pub me: ServerId,
    pub observer: bool,
    pub timing: Timing,
    /// What this server was given.
    pub config: Arc<EnsembleConfig>,
    pub accepted: Epoch,
    pub current: Epoch,
    /// Its history can't be trusted (it may have lost something that it acknowledged): it asks for all of the leader's.
    pub quarantined: bool,
}

/// The role.
pub struct Learner {
    start: LearnerStart,
    phase: Phase,
    heard: Now,
    epoch: Epoch,
    /// Last record given to the log.
    appended: Zxid,
    durable: Zxid,
    /// Committed, as far as the leader has said.
    committed: Zxid,
    /// What has to be durable before NEWLEADER may be acknowledged: everything that came before it.
    before_new_leader: Zxid,
    /// Acknowledged, or committed before it had to be.
    acked: Zxid,
    /// Records that a leader sent twice (a bug of Java leaders that R4 says to survive): acknowledged twice.
    repeats: Vec<Zxid>,
    pub output: Vec<u8>,
    outputs: Vec<LearnerOutput>,
}

impl Learner {
    /// Begins to follow; the history is durable up to its end.
    pub fn new(start: LearnerStart, history: &History, now: Now) -> Learner {
        let last = history.last();
        Learner {
            start,
            phase: Phase::Connecting,
            heard: now,
            epoch: Epoch(0),
            appended: last,
            durable: last,
            committed: Zxid::ZERO,
            before_new_leader: Zxid::ZERO,
            acked: Zxid::ZERO,
            repeats: Vec::new(),
            output: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// What has to be done; takes it.
    pub fn outputs(&mut self) -> Vec<LearnerOutput> {
        std::mem::take(&mut self.outputs)
    }

    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    pub fn is_lost(&self) -> bool {
        self.phase == Phase::Lost
    }

    /// No packet may be given to it before what it has asked for is done.
    pub fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::StoringAccepted | Phase::Replacing | Phase::StoringCurrent)
    }

    fn send(&mut self, kind: PacketType, zxid: i64, data: Option<&[u8]>) {
        QuorumPacket::new(kind, zxid, data).write(&mut self.output);
    }

    /// The leader has taken the connection.
    pub fn connected(&mut self, now: Now) {
        assert_eq!(self.phase, Phase::Connecting);
        self.phase = Phase::Hello;
        self.heard = now;
        let info = LearnerInfo {
            server: i64::from(self.start.me.0),
            protocol_version: PROTOCOL_VERSION,
            config_version: self.start.config.version().to_wire(),
        };
        let mut data = Vec::with_capacity(20);
        info.write(&mut data);
        let kind = if self.start.observer { PacketType::ObserverInfo } else { PacketType::FollowerInfo };
        self.send(kind, epoch_zxid(self.start.accepted), Some(&data));
    }

    /// Up to where the leader has said that its history is committed. Before `Serving` it may be mistaken (it may not have
    /// its quorum yet), and a later leader may take it back (`Truncate`, `ReceiveSnapshot`); so it is for nobody's eyes, but
    /// it may be applied where it would pile up otherwise.
    pub fn said_committed(&self) -> Zxid {
        self.committed
    }

    /// Whether `outputs` has something: whoever sleeps looks here first.
    pub fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Bytes of a snapshot have come, or this server has done what kept it from hearing the leader.
    pub fn still_alive(&mut self, now: Now) {
        // Never back: what has come meanwhile is read in a turn that began before the disk was waited for.
        self.heard = self.heard.max(now);
    }

    /// Whatever has gone wrong between here and the leader.
    pub fn fail(&mut self, why: impl Into<String>) {
        if self.phase != Phase::Lost {
            self.phase = Phase::Lost;
            self.outputs.push(LearnerOutput::Lost { why: why.into() });
        }
    }

    /// A packet of the leader.
    pub fn packet<'a>(&mut self, packet: &QuorumPacket<'a>, now: Now) -> Brought<'a> {
        assert!(!self.is_busy(), "a packet in the middle of something");
        if self.phase == Phase::Lost {
            return Brought::Nothing;
        }
        self.still_alive(now);
        // What is unknown is passed over, as upstream.
        let Some(kind) = packet.packet_type() else { return Brought::Nothing };
        let zxid = Zxid::from_wire(packet.zxid);
        let data = packet.data.unwrap_or_default();
        match (kind, self.phase) {
            (PacketType::LeaderInfo, Phase::Hello) => self.leader_info(zxid.epoch()),
            (PacketType::Diff, Phase::AckedEpoch) if self.start.quarantined => {
                self.fail("the leader sends what follows a history that is in doubt, instead of its own");
            }
            (PacketType::Diff, Phase::AckedEpoch) if zxid < self.appended => {
                self.fail(format!("the leader sends what follows {}, up to {zxid}", self.appended));
            }
            (PacketType::Diff, Phase::AckedEpoch) => {
                self.phase = Phase::Syncing;
                self.committed = self.committed.max(self.appended);
            }
            (PacketType::Trunc, Phase::AckedEpoch) => {
                self.phase = Phase::Replacing;
                self.outputs.push(LearnerOutput::Truncate { to: zxid });
            }
            (PacketType::Snap, Phase::AckedEpoch) => {
                self.phase = Phase::Replacing;
                self.outputs.push(LearnerOutput::ReceiveSnapshot { zxid });
            }
            (PacketType::Proposal, Phase::Syncing | Phase::NewLeader | Phase::Synced | Phase::Serving) => {
                return self.proposal(zxid, data);
            }
            (
                PacketType::Inform | PacketType::InformAndActivate,
                Phase::Syncing | Phase::NewLeader | Phase::Synced | Phase::Serving,
            ) => {
                // Before the transaction stands who is to lead then; that is found out in an election.
                let activates = kind == PacketType::InformAndActivate;
                let Some(record) = data.get(if activates { 8 } else { 0 }..) else {
                    self.fail("an INFORMANDACTIVATE of the leader that is malformed");
                    return Brought::Nothing;
                };
                // Proposal and commit in one: what has been committed counts when the record is in the log.
                let brought = self.proposal(zxid, record);
                if self.phase != Phase::Lost {
                    if activates {
                        self.activated(zxid);
                    }
                    self.commit_later(zxid);
                }
                return brought;
            }
            (
                PacketType::Commit | PacketType::CommitAndActivate,
                Phase::Syncing | Phase::NewLeader | Phase::Synced | Phase::Serving,
            ) => {
                if zxid > self.appended {
                    self.fail(format!("the leader commits {zxid}, which it has not proposed"));
                } else {
                    if kind == PacketType::CommitAndActivate {
                        self.activated(zxid);
                    }
                    self.commit_later(zxid);
                }
            }
            (PacketType::NewLeader, Phase::Syncing) => self.new_leader(zxid, data),
            (PacketType::UpToDate, Phase::Synced) => self.up_to_date(),
            (PacketType::UpToDate, Phase::Serving) => {}
            (PacketType::Ping, Phase::Serving) => return Brought::Ping,
            // A leader may ping as soon as NEWLEADER is out; before UPTODATE upstream's learners do not answer.
            (PacketType::Ping, _) => {}
            (PacketType::Revalidate, Phase::Serving) => match SessionValid::read(data) {
                Ok(valid) => return Brought::Valid(valid),
                Err(_) => self.fail("the leader's answer to REVALIDATE is malformed"),
            },
            (PacketType::Sync, Phase::Serving) => self.outputs.push(LearnerOutput::SyncDone),
            (kind, phase) => self.fail(format!("a {kind:?} of the leader where none is expected ({phase:?})")),
        }
        Brought::Nothing
    }

    fn leader_info(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        if epoch < self.start.accepted {
            let accepted = self.start.accepted.0;
            self.fail(format!("the leader's epoch {} is older than {accepted}, which was promised already", epoch.0));
        } else if !is_plausible(epoch, self.start.accepted) {
            let accepted = self.start.accepted.0;
            self.fail(format!(
                "the leader's epoch {} is one that no election can have reached ({accepted} here)",
                epoch.0
            ));
        } else if epoch > self.start.accepted {
            self.phase = Phase::StoringAccepted;
            self.outputs.push(LearnerOutput::StoreEpochs { accepted: epoch, current: self.start.current });
        } else {
            self.ack_epoch(None);
        }
    }

    fn ack_epoch(&mut self, current: Option<Epoch>) {
        let last = if self.start.quarantined { -1 } else { self.durable.to_wire() };
        assert!(self.durable == self.appended, "a role begins when the log is at rest");
        let mut data = Vec::with_capacity(4);
        write_current_epoch(current, &mut data);
        self.send(PacketType::AckEpoch, last, Some(&data));
        self.phase = Phase::AckedEpoch;
    }

    /// The epochs of the last `StoreEpochs` are durable. The leader waited for that, however long it took: it has its whole
    /// time from now.
    pub fn epochs_stored(&mut self, now: Now) {
        self.still_alive(now);
        match self.phase {
            Phase::StoringAccepted => {
                self.start.accepted = self.epoch;
                self.ack_epoch(Some(self.start.current));
            }
            Phase::StoringCurrent => {
                self.start.current = self.epoch;
                self.start.quarantined = false;
                self.phase = Phase::Synced;
                self.send(PacketType::Ack, epoch_zxid(self.epoch), None);
                self.acked = self.committed.max(self.acked);
                // What came uncommitted before NEWLEADER is durable too, and nothing else may come that would say so.
                self.acknowledge();
            }
            Phase::Lost => {}
            phase => unreachable!("no epochs were to be stored in {phase:?}"),
        }
    }

    /// The history ends at `to` now, on disk too.
    pub fn truncated(&mut self, to: Zxid, now: Now) {
        self.still_alive(now);
        self.replaced(to);
    }

    /// The history is the snapshot at `zxid` now, on disk too.
    pub fn snapshot_installed(&mut self, zxid: Zxid) {
        self.replaced(zxid);
    }

    fn replaced(&mut self, end: Zxid) {
        if self.phase == Phase::Lost {
            return;
        }
        assert_eq!(self.phase, Phase::Replacing);
        (self.appended, self.durable) = (end, end);
        self.committed = end;
        self.phase = Phase::Syncing;
    }

    fn proposal<'a>(&mut self, zxid: Zxid, record: &'a [u8]) -> Brought<'a> {
        if zxid == self.appended {
            // Upstream's leader gives the last zxid once more to a request that it can't decode; nothing is applied.
            if self.durable >= zxid && self.phase >= Phase::Synced {
                self.ack(zxid);
            } else {
                self.repeats.push(zxid);
            }
            return Brought::Nothing;
        }
        if !follows(self.appended, zxid) || zxid.epoch() > self.epoch {
            self.fail(format!("the leader proposes {zxid} behind {}", self.appended));
            return Brought::Nothing;
        }
        Brought::Proposal { zxid, record }
    }

    /// The record of the last `Brought::Proposal` has been given to the log.
    pub fn appended(&mut self, zxid: Zxid) {
        assert!(follows(self.appended, zxid));
        self.appended = zxid;
    }

    fn commit_later(&mut self, zxid: Zxid) {
        if zxid > self.committed {
            self.committed = zxid;
            // Until UPTODATE nothing of it is for anyone's eyes.
            if self.phase == Phase::Serving {
                self.outputs.push(LearnerOutput::Commit { up_to: zxid });
            }
        }
    }

    /// `config` is the newest configuration that the leader knows, in force or only proposed.
    fn new_leader(&mut self, zxid: Zxid, config: &[u8]) {
        if zxid.epoch() != self.epoch {
            return self.fail(format!("NEWLEADER of epoch {} from the leader of {}", zxid.epoch().0, self.epoch.0));
        }
        if let Some(other) = OtherMembers::of(&self.start.config, config) {
            self.phase = Phase::Lost;
            return self.outputs.push(LearnerOutput::OtherMembers(other));
        }
        self.phase = Phase::NewLeader;
        self.before_new_leader = self.appended;
        self.store_current();
    }

    /// What is in force before NEWLEADER comes is what that says, or older.
    fn activated(&mut self, zxid: Zxid) {
        if self.phase >= Phase::NewLeader {
            self.outputs.push(LearnerOutput::Activated { zxid });
        }
    }

    /// Where this server's history ended when NEWLEADER came.
    pub fn before_new_leader(&self) -> Zxid {
        self.before_new_leader
    }

    /// R1: history first, then the epoch, then the word that it is so.
    fn store_current(&mut self) {
        if self.durable >= self.before_new_leader {
            self.phase = Phase::StoringCurrent;
            self.outputs.push(LearnerOutput::StoreEpochs { accepted: self.epoch, current: self.epoch });
        }
    }

    fn up_to_date(&mut self) {
        self.phase = Phase::Serving;
        self.send(PacketType::Ack, epoch_zxid(self.epoch), None);
        self.outputs.push(LearnerOutput::Serving { epoch: self.epoch, up_to: self.committed });
    }

    /// The log is durable up to here.
    pub fn durable(&mut self, up_to: Zxid) {
        if up_to > self.durable {
            assert!(up_to <= self.appended, "durable before it was appended");
            self.durable = up_to;
            if self.phase == Phase::NewLeader {
                self.store_current();
            }
        }
        self.acknowledge();
    }

    /// One ACK for each proposal of this epoch that is durable and has none, in order. What is older was acknowledged with
    /// NEWLEADER; within an epoch there is no hole (R4), so the zxids need not be looked up.
    fn acknowledge(&mut self) {
        if self.start.observer || !matches!(self.phase, Phase::Synced | Phase::Serving) {
            return;
        }
        if self.durable > self.acked && self.durable.epoch() == self.epoch {
            let from = if self.acked.epoch() == self.epoch { self.acked.counter() } else { 0 };
            for counter in from + 1..=self.durable.counter() {
                self.ack(Zxid::new(self.epoch, counter));
            }
        }
        self.acked = self.acked.max(self.durable);
        if !self.repeats.is_empty() {
            let due: Vec<Zxid> = self.repeats.extract_if(.., |zxid| *zxid <= self.durable).collect();
            due.into_iter().for_each(|zxid| self.ack(zxid));
        }
    }

    fn ack(&mut self, zxid: Zxid) {
        if !self.start.observer {
            self.send(PacketType::Ack, zxid.to_wire(), None);
        }
    }

    /// The answer to `Brought::Ping`: the sessions that were heard from since the last one, each with its timeout.
    pub fn ping_answer(&mut self, sessions: impl Iterator<Item = SessionTimeout>) {
        let mut data = Vec::new();
        sessions.for_each(|session| session.write(&mut data));
        let zxid = self.appended.to_wire();
        self.send(PacketType::Ping, zxid, Some(&data));
    }

    /// A client's write goes to the leader; its answer is the transaction with the same session and cxid.
    pub fn forward(&mut self, request: &Request<'_>, auth: Option<Vec<(String, String)>>) {
        let mut data = Vec::with_capacity(16 + request.record.len());
        request.write(&mut data);
        let packet = QuorumPacket { kind: PacketType::Request as i32, zxid: -1, data: Some(&data), auth };
        packet.write(&mut self.output);
    }

    /// Asks whether a session lives; the answer is `Brought::Valid`.
    pub fn revalidate(&mut self, session: SessionTimeout) {
        let mut data = Vec::with_capacity(12);
        session.write(&mut data);
        self.send(PacketType::Revalidate, -1, Some(&data));
    }

    /// When `tick` has something to do if nothing is heard until then.
    pub fn deadline(&self) -> Now {
        let timing = &self.start.timing;
        self.heard.plus(match self.phase {
            Phase::Connecting => timing.connect(),
            phase if phase >= Phase::Synced => timing.sync(),
            _ => timing.init(),
        })
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        if now > self.deadline() {
            let quiet = now.since(self.heard).as_millis();
            let what = if self.phase == Phase::Connecting { "could not be reached" } else { "was silent" };
            self.fail(format!("the leader {what} for {quiet} ms"));
        }
    }

    /// The leader's epoch, once it is known.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}
