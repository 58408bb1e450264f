//! A server that leads: it finds an epoch with a quorum of learners, brings each of them to its own history, and then
//! broadcasts (upstream: `Leader`, `LearnerHandler`).
//!
//! ```text
//! Discovery ── quorum of FOLLOWERINFO, epoch durable ──► EpochAck ── quorum of ACKEPOCH, epoch durable ──► Sync
//!   Sync ── quorum has acknowledged NEWLEADER ──► Broadcast        any ── no quorum in time ──► resigned
//! ```
//!
//! A quorum that has promised the new epoch can follow no older leader, and among its members none has a later history
//! than this server; so this server's history has everything that was ever committed, and becomes the epoch's beginning.
//! When a quorum has it durably (the acknowledgements of NEWLEADER), it is committed, and proposals begin.
//!
//! Without I/O, clock or threads. What is to be sent stands in each link's output; what else has to be done is in
//! `outputs`, in order. Rules that hold by construction: the epoch is durable here before anyone hears of it (R1); a
//! learner's history is continued only from an entry of this history (R3, `sync`); forwarding begins in the same step that
//! computes where a learner's synchronisation ends (C-29), so nothing falls between; only voters count, each once (R9).

mod broadcast;
mod discovery;
mod sync;

use super::Timing;
use super::ensemble::EnsembleConfig;
use super::history::History;
use super::quorum::{Quorum, ServerSet};
use crate::clock::Now;
use crate::ids::{Epoch, ServerId, Zxid};
use crate::wire::quorum::{PacketType, QuorumPacket, Request, SessionTimeout, SessionValid};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A connection of a learner; the number is the caller's, and never used twice in one leadership.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Link(pub u32);

/// What the surroundings have to do, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaderOutput {
    /// Make these durable, then call `epochs_stored`; nothing else may be told meanwhile.
    StoreEpochs { accepted: Epoch, current: Epoch },
    /// Close this link when what stands in its output has been sent as far as it goes without waiting.
    Close { link: Link, why: String },
    /// Get a snapshot of this server's committed state, call `snapshot_begins`, send it behind what `output` then has, and
    /// call `snapshot_sent`.
    SendSnapshot { link: Link },
    /// The learner's history ends at `after`, before what is in memory. If the log has that record, and all behind it,
    /// call `catch_up_begins` and hand what follows to `catch_up`, piece by piece as the link drains; else
    /// `cannot_catch_up`.
    CatchUp { link: Link, after: Zxid },
    /// The whole history up to here is committed, and this server serves: requests may be prepared once it is applied.
    Established { epoch: Epoch, up_to: Zxid },
    /// A quorum is durable. Apply what is durable here too, then answer.
    Commit { up_to: Zxid },
    /// So many local syncs, in the order asked for, are answered by a quorum.
    SyncsDone { count: usize },
    /// This server does not lead any more: all links are closed, and an election begins.
    Resign { why: String },
}

/// What a learner's packet means for others than the leader itself.
#[derive(PartialEq, Eq, Debug)]
pub enum Heard<'a> {
    Nothing,
    /// A client's write.
    Request {
        request: Request<'a>,
        auth: Vec<(String, String)>,
    },
    /// A client wants its session back.
    Revalidate(SessionTimeout),
    /// The sessions that this learner has heard from (`SessionTimeout::read_all`).
    Sessions(&'a [u8]),
}

/// How many initLimits a learner has to make a whole state durable. It says nothing meanwhile, and if it were dropped it would
/// come back for the same. It counts for nothing until it is done, and what it could cost is bounded (`output_max`).
const INSTALL_LIMITS: u32 = 10;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    Discovery,
    /// The accepted epoch is being stored.
    EpochChosen,
    EpochAck,
    /// The current epoch is being stored.
    EpochAcked,
    Sync,
    Broadcast,
    Resigned,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    /// Nothing has come yet.
    Hello,
    /// It has said who it is.
    Known,
    /// It knows the epoch.
    Told,
    /// It has acknowledged the epoch, and waits for its history.
    AckedEpoch,
    /// Its history comes from the log or as a snapshot; it is not yet forwarded to.
    CatchingUp,
    /// NEWLEADER is behind its history; from here on it is forwarded to.
    Forwarding,
    /// It has this history durably.
    Synced,
    Serving,
}

struct Learner {
    stage: Stage,
    server: ServerId,
    /// Takes part in quorums.
    voter: bool,
    /// Wishes INFORM instead of PROPOSAL and COMMIT.
    observer: bool,
    accepted: Epoch,
    /// It has been sent all of this server's state, and has to write it to its disk before it can say anything.
    replaced: bool,
    /// What it reported; `None` if its history can't be trusted.
    last: Option<Zxid>,
    /// Where its synchronisation stands: everything up to here stands in its output, or is its own.
    sent: Zxid,
    /// Everything up to here is durable at the learner, if it is synced.
    acked: Zxid,
    heard: Now,
    /// When it acknowledged its synchronisation.
    synced_at: Now,
    /// Rounds of the pings that are not answered.
    pings: VecDeque<u64>,
    /// Highest round answered.
    answered: u64,
    /// Its syncs that are not answered.
    syncs: usize,
    /// Answers to an observer's REVALIDATEs, and what has to be committed before each.
    verdicts: VecDeque<(Zxid, SessionValid)>,
    out: Vec<u8>,
}

impl Learner {
    fn send(&mut self, kind: PacketType, zxid: i64, data: Option<&[u8]>) {
        QuorumPacket::new(kind, zxid, data).write(&mut self.out);
    }

    /// Answers that what is committed by now comes before.
    fn send_verdicts(&mut self, committed: Zxid) {
        while let Some(&(after, answer)) = self.verdicts.front()
            && after <= committed
        {
            self.verdicts.pop_front();
            let mut data = Vec::with_capacity(9);
            answer.write(&mut data);
            self.send(PacketType::Revalidate, -1, Some(&data));
        }
    }
}

/// What a server knows when it begins to lead.
pub struct LeaderStart {
    pub me: ServerId,
    pub quorum: Arc<Quorum>,
    pub timing: Timing,
    /// Text of the configuration, as NEWLEADER carries it.
    pub config_text: Arc<[u8]>,
    pub config_version: i64,
    pub accepted: Epoch,
    pub current: Epoch,
    /// Newest epoch that any server said to an earlier leadership of this one that it had accepted.
    pub heard: Epoch,
    /// No zxid beyond this counter is given out in one epoch.
    pub counter_max: u32,
    /// Bytes waiting for one learner above which it is dropped.
    pub output_max: usize,
}

/// The role.
pub struct Leader {
    start: LeaderStart,
    phase: Phase,
    phase_began: Now,
    /// The new epoch; meaningless in `Discovery`.
    epoch: Epoch,
    /// End of the history that this server began with.
    initial: Zxid,
    learners: BTreeMap<Link, Learner>,
    /// Learners that did not need all of this server's state, to be counted.
    continued: u64,
    /// Newest epoch that anyone has accepted.
    newest_accepted: Epoch,
    from: ServerSet,
    /// Voters that have been looking for a leader since they last said something here.
    strayed: ServerSet,
    proposed: Zxid,
    committed: Zxid,
    /// Of this server's own log.
    durable: Zxid,
    next_ping: Now,
    next_check: Now,
    /// Times, and what was proposed at them: what a learner has not acknowledged of an old one is too old.
    marks: VecDeque<(Now, Zxid)>,
    /// Up to here it is too old.
    due: Zxid,
    syncs: broadcast::Syncs,
    unheard: bool,
    outputs: Vec<LeaderOutput>,
}

impl Leader {
    /// Begins to lead with a history that is durable up to its end.
    pub fn new(start: LeaderStart, history: &History, now: Now) -> Leader {
        assert!(start.quorum.is_voter(start.me), "only a voter can lead");
        let initial = history.last();
        let newest_accepted = start.accepted.max(start.current).max(start.heard).max(initial.epoch());
        let mut leader = Leader {
            phase: Phase::Discovery,
            phase_began: now,
            epoch: Epoch(0),
            initial,
            learners: BTreeMap::new(),
            continued: 0,
            newest_accepted,
            from: ServerSet::EMPTY,
            strayed: ServerSet::EMPTY,
            proposed: initial,
            committed: initial,
            durable: initial,
            next_ping: now,
            next_check: now,
            marks: VecDeque::new(),
            due: Zxid::ZERO,
            syncs: broadcast::Syncs::default(),
            unheard: false,
            outputs: Vec::new(),
            start,
        };
        leader.from.insert(leader.start.me);
        leader.look_for_epoch(now);
        leader
    }

    /// The configuration has got another version, and is the same for all that counts.
    pub fn agree(&mut self, config: &EnsembleConfig) {
        self.start.config_text = config.text().as_bytes().into();
        self.start.config_version = config.version().to_wire();
    }

    /// The epoch that is being established, once it is chosen.
    pub fn epoch(&self) -> Option<Epoch> {
        (self.phase > Phase::EpochChosen).then_some(self.epoch)
    }

    /// The newest epoch that this server or any learner is known to have accepted.
    pub fn newest_accepted(&self) -> Epoch {
        self.newest_accepted
    }

    /// Whether it has resigned since it has not heard from a quorum: the others may be gone, or it can't hear them.
    pub fn was_unheard(&self) -> bool {
        self.unheard
    }

    pub fn is_established(&self) -> bool {
        self.phase == Phase::Broadcast
    }

    pub fn proposed(&self) -> Zxid {
        self.proposed
    }

    pub fn committed(&self) -> Zxid {
        self.committed
    }

    /// What has to be done; takes it.
    pub fn outputs(&mut self) -> Vec<LeaderOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// Whether `outputs` has something: whoever sleeps looks here first.
    pub fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Bytes for a link; the caller takes off what it sends.
    pub fn output(&mut self, link: Link) -> Option<&mut Vec<u8>> {
        self.learners.get_mut(&link).map(|learner| &mut learner.out)
    }

    /// Bytes for each link, in the order in which they came; the caller takes off what it sends.
    pub fn each_output(&mut self) -> impl Iterator<Item = (Link, &mut Vec<u8>)> {
        self.learners.iter_mut().map(|(&link, learner)| (link, &mut learner.out))
    }

    /// Who is at the other end, once it has said so.
    pub fn server(&self, link: Link) -> Option<ServerId> {
        self.learners.get(&link).filter(|learner| learner.stage > Stage::Hello).map(|learner| learner.server)
    }

    /// Learners that serve: followers, and observers.
    pub fn synced(&self) -> (usize, usize) {
        let synced = self.learners.values().filter(|learner| learner.stage >= Stage::Synced);
        let (observers, followers): (Vec<_>, Vec<_>) = synced.partition(|learner| learner.observer);
        (followers.len(), observers.len())
    }

    /// All links, in the order in which they came.
    pub fn links(&self) -> Vec<Link> {
        self.learners.keys().copied().collect()
    }

    /// The surroundings can't bring this learner up.
    pub fn give_up(&mut self, link: Link, why: String) {
        self.close(link, why);
    }

    /// The oldest link on which nothing has been said.
    pub fn oldest_silent(&self) -> Option<Link> {
        self.learners.iter().find(|(_, learner)| learner.stage == Stage::Hello).map(|(&link, _)| link)
    }

    /// A learner has connected. It has as long as any phase to say who it is.
    pub fn connected(&mut self, link: Link, now: Now) {
        let learner = Learner {
            stage: Stage::Hello,
            server: self.start.me,
            voter: false,
            observer: false,
            accepted: Epoch(0),
            replaced: false,
            last: None,
            sent: Zxid::ZERO,
            acked: Zxid::ZERO,
            heard: now,
            synced_at: now,
            pings: VecDeque::new(),
            answered: 0,
            syncs: 0,
            verdicts: VecDeque::new(),
            out: Vec::new(),
        };
        let before = self.learners.insert(link, learner);
        assert!(before.is_none(), "a link's number is used once");
    }

    /// A link is gone, whoever closed it.
    pub fn closed(&mut self, link: Link) {
        self.learners.remove(&link);
    }

    /// A learner that catches up has read something of what it is sent, or it is not its fault that it has not: it is alive.
    pub fn reads(&mut self, link: Link, now: Now) {
        if let Some(learner) = self.learners.get_mut(&link)
            && learner.stage == Stage::CatchingUp
        {
            learner.heard = learner.heard.max(now);
        }
    }

    /// A voter is looking for a leader, and not for this one, or follows another: it will not be heard from before it has found one. Without a
    /// quorum of others there is nothing to wait for (C-34). Nor are those waited for that the election can't reach, unless they
    /// have found the way here: the voter that strays is answered, but the word of this server alone brings it back to none.
    pub fn strays(&mut self, voter: ServerId, unreachable: ServerSet) {
        if !self.start.quorum.is_voter(voter) || voter == self.start.me {
            return;
        }
        self.strayed.insert(voter);
        let known = self.learners.values().filter(|learner| learner.stage > Stage::Hello);
        let absent = unreachable.without(known.map(|learner| learner.server).collect());
        let others = self.start.quorum.voters().without(self.strayed).without(absent);
        if self.phase < Phase::Broadcast && !self.start.quorum.contains_quorum(others) {
            self.resign("the voters that it was elected by look for a leader again, or follow another".to_owned());
        }
    }

    /// A packet of a learner.
    pub fn packet<'a>(&mut self, link: Link, packet: QuorumPacket<'a>, history: &mut History, now: Now) -> Heard<'a> {
        let Some(learner) = self.learners.get_mut(&link) else { return Heard::Nothing };
        if self.phase == Phase::Resigned {
            return Heard::Nothing;
        }
        learner.heard = learner.heard.max(now);
        if learner.stage > Stage::Hello {
            self.strayed.remove(learner.server);
        }
        let Some(kind) = packet.packet_type() else {
            // As upstream: a newer peer may say what this one does not know.
            return Heard::Nothing;
        };
        let stage = learner.stage;
        match (kind, stage) {
            (PacketType::FollowerInfo | PacketType::ObserverInfo, Stage::Hello) => {
                self.info(link, kind == PacketType::ObserverInfo, &packet, now);
            }
            (PacketType::AckEpoch, Stage::Told) => self.ack_epoch(link, &packet, history, now),
            (PacketType::Ack, Stage::Forwarding | Stage::Synced | Stage::Serving) => {
                self.ack(link, Zxid::from_wire(packet.zxid), history);
            }
            (PacketType::Ping, Stage::Forwarding | Stage::Synced | Stage::Serving) => {
                self.ping_answered(link);
                return Heard::Sessions(packet.data.unwrap_or_default());
            }
            (PacketType::Request, Stage::Synced | Stage::Serving) => {
                match Request::read(packet.data.unwrap_or_default()) {
                    Ok(request) => return Heard::Request { request, auth: packet.auth.unwrap_or_default() },
                    Err(_) => self.close(link, "a REQUEST that is malformed".to_owned()),
                }
            }
            (PacketType::Revalidate, Stage::Synced | Stage::Serving) => {
                match SessionTimeout::read(&mut crate::wire::Reader::new(packet.data.unwrap_or_default())) {
                    Ok(session) => return Heard::Revalidate(session),
                    Err(_) => self.close(link, "a REVALIDATE that is malformed".to_owned()),
                }
            }
            _ => self.close(link, format!("a {kind:?} where none is expected ({stage:?})")),
        }
        Heard::Nothing
    }

    /// The epochs of the last `StoreEpochs` are durable. The learners waited for that, however long it took: they have their
    /// whole time from now.
    pub fn epochs_stored(&mut self, history: &mut History, now: Now) {
        self.learners.values_mut().for_each(|learner| learner.heard = learner.heard.max(now));
        match self.phase {
            Phase::EpochChosen => self.tell_epoch(now),
            Phase::EpochAcked => self.begin_sync(history, now),
            Phase::Resigned => {}
            phase => unreachable!("no epochs were to be stored in {phase:?}"),
        }
    }

    fn enter(&mut self, phase: Phase, now: Now) {
        assert!(phase > self.phase, "{phase:?} comes before {:?}", self.phase);
        self.phase = phase;
        self.phase_began = now;
    }

    fn resign(&mut self, why: String) {
        if self.phase != Phase::Resigned {
            self.phase = Phase::Resigned;
            self.learners.clear();
            self.outputs.push(LeaderOutput::Resign { why });
        }
    }

    /// The counter is nearly used up, or an operator wants this server to stop: a new epoch begins, here or elsewhere.
    pub fn step_down(&mut self, why: &str) {
        self.resign(why.to_owned());
    }

    fn close(&mut self, link: Link, why: String) {
        if self.learners.remove(&link).is_some() {
            self.outputs.push(LeaderOutput::Close { link, why });
        }
    }

    /// When `tick` is to be called next, at the latest.
    pub fn deadline(&self) -> Now {
        self.next_ping
    }

    /// Time has passed.
    pub fn tick(&mut self, history: &mut History, now: Now) {
        if now < self.next_ping || self.phase == Phase::Resigned {
            return;
        }
        let timing = self.start.timing;
        self.next_ping = now.plus_ms(timing.tick_ms / 2);
        let phase_limit = timing.init();
        if self.phase < Phase::Broadcast && now.since(self.phase_began) > phase_limit {
            let what = match self.phase {
                Phase::Discovery | Phase::EpochChosen => "of servers that follow",
                Phase::EpochAck | Phase::EpochAcked => "that has accepted the new epoch",
                _ => "that has this server's history",
            };
            self.unheard = true;
            return self.resign(format!("no quorum {what} within initLimit ({} ms)", phase_limit.as_millis()));
        }
        self.drop_silent(now);
        if self.phase == Phase::Broadcast {
            self.ping(now);
        }
        if self.phase == Phase::Broadcast && now >= self.next_check {
            self.next_check = now.plus_ms(timing.tick_ms);
            self.check_quorum(now);
        }
        self.keep(history);
    }

    fn drop_silent(&mut self, now: Now) {
        let timing = self.start.timing;
        let silent: Vec<(Link, String)> = self
            .learners
            .iter()
            .filter_map(|(&link, learner)| {
                // While its history is being sent it has nothing to say; that it reads is heard of with `reads`.
                let limit = match learner.stage {
                    Stage::Serving => timing.sync(),
                    Stage::Forwarding if learner.replaced => timing.init() * INSTALL_LIMITS,
                    _ => timing.init(),
                };
                let quiet = now.since(learner.heard);
                let name = learner.server.0;
                if quiet > limit {
                    Some((link, format!("server {name} was silent for {} ms", quiet.as_millis())))
                } else if learner.out.len() > self.start.output_max {
                    Some((link, format!("server {name} reads too slowly: {} bytes wait for it", learner.out.len())))
                } else {
                    None
                }
            })
            .collect();
        for (link, why) in silent {
            self.close(link, why);
        }
    }

    /// What must stay in memory: whatever is not yet committed, and what a learner that catches up will need.
    fn keep(&self, history: &mut History) {
        let catching_up = self.learners.values().filter(|learner| learner.stage == Stage::CatchingUp);
        let oldest = catching_up.map(|learner| learner.sent).min();
        history.pin(Some(oldest.map_or(self.committed, |oldest| oldest.min(self.committed))));
    }
}
