//! One server of a simulated ensemble: everything between the bytes of its connections and the sectors of its disk.
//!
//! The consensus core, the log, recovery, prepare, tree, sessions and snapshots are the server's own code; what is here is
//! what threads and sockets are in the real one: who is told when, and what waits for which disk. The rules are those of
//! the fault model: a role begins when the disk is at rest (R6), nothing is applied that is not durable here (R7), a tree
//! never has what a truncation takes away (R5).
//!
//! Leaves to the world: time, chance, the network, crashes; to `serving` the clients, to `storage` the disk.

use crate::broken::{Bug, is};
use crate::network::Time;
use crate::storage::{DiskOp, Recovered, Storage};
use ostler::clock::Now;
use ostler::fatal::Fatal;
use ostler::ids::{Epoch, ServerId, SessionId, Zxid};
use ostler::log::{Batch, LogCursor};
use ostler::prepare::{Prepare, PrepareRules};
use ostler::random::Rng;
use ostler::session::{SessionIds, SessionTable};
use ostler::snapshot::SessionRecord;
use ostler::snapshot::zookeeper::{DecodeLimits, Decoder, write_snap};
use ostler::tree::{Applied, Tree};
use ostler::wire::quorum::{PacketType, QuorumPacket};
use ostler::wire::txn::{Txn, read_txn};
use ostler::zab::History;
use ostler::zab::Timing;
use ostler::zab::leader::{Heard, Leader, LeaderOutput, LeaderStart, Link};
use ostler::zab::learner::{Brought, Learner, LearnerOutput, LearnerStart};
use ostler::zab::quorum::Quorum;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// The largest packet that a peer may send.
const PACKET_MAX: usize = 4 << 20;

/// What the world has to do, in the order given.
#[derive(Debug)]
pub enum Action {
    Send(u32, Vec<u8>),
    Close(u32),
    /// Connect to a server for this role; the answer is `dialed`.
    Dial(ServerId, u32),
    /// The disk is at work for so long; then `disk_done`.
    Disk(Time),
    /// The process ends itself.
    Exit(Fatal),
    Report(Report),
}

/// What the checkers are told.
#[derive(Clone, Debug)]
pub enum Report {
    /// These records are durable now.
    Durable(Vec<(Zxid, Rc<[u8]>)>),
    Epochs {
        accepted: Epoch,
        current: Epoch,
    },
    /// The history is about to become another that ends here: a crash may leave either.
    Replacing(Zxid),
    Truncated(Zxid),
    Installed(Zxid),
    Established {
        epoch: Epoch,
        up_to: Zxid,
    },
    Committed(Zxid),
    Serving {
        zxid: Zxid,
        digest: u64,
    },
    Applied {
        zxid: Zxid,
        record: Rc<[u8]>,
        digest: u64,
        sessions: u64,
    },
    /// A packet of a learner is on its way to its leader.
    Said {
        kind: PacketType,
        zxid: i64,
        /// In an ACKEPOCH.
        current: Option<Epoch>,
        /// The leader's.
        epoch: Epoch,
    },
    /// A doubtful history has been replaced.
    Trusted,
    RoleEnded(String),
}

/// What one call may use.
pub struct Ctx<'a> {
    pub now: Now,
    pub wall_ms: i64,
    pub rng: &'a mut Rng,
    pub actions: Vec<Action>,
    pub knobs: &'a Knobs,
}

impl Ctx<'_> {
    pub fn report(&mut self, report: Report) {
        self.actions.push(Action::Report(report));
    }
}

/// What a seed draws once for all servers.
#[derive(Clone, Debug)]
pub struct Knobs {
    pub timing: Timing,
    /// Shortest and longest time of a disk operation.
    pub disk: (Time, Time),
    /// Transactions between two snapshots.
    pub snap_count: u64,
    /// Of a thousand starts, so many begin with an empty history in memory (else with what the log gave).
    pub forget_history_per_mille: u64,
    /// How long a leader takes to send a snapshot.
    pub snap_delay: Time,
}

pub enum Role {
    Looking,
    Leading(Box<Leader>),
    Learning { leader: ServerId, learner: Box<Learner> },
}

/// The connection to the leader.
pub struct Upstream {
    pub conn: Option<u32>,
    rx: Vec<u8>,
    /// A snapshot is being read.
    decoder: Option<(Zxid, Box<Decoder>)>,
    dials: u32,
    dial_at: Option<Now>,
}

/// A transfer of history to a learner.
enum Transfer {
    Snapshot(Now),
    Log(LogCursor<ostler::disk::sim::SimDisk>),
}

pub struct Server {
    pub me: ServerId,
    pub quorum: Arc<Quorum>,
    pub storage: Storage,
    pub history: History,
    pub role: Role,
    /// Counts roles, so that what the disk does for an old one is not told to the next.
    pub role_number: u32,
    pub accepted: Epoch,
    pub current: Epoch,
    pub quarantined: bool,
    pub durable: Zxid,
    /// Committed, as far as the present role knows.
    pub committed: Zxid,
    pub tree: Tree,
    pub sessions: SessionTable,
    pub prepare: Prepare,
    pub ids: SessionIds,
    /// Sessions that are proposed by this leader and not yet applied here.
    pub opening: BTreeSet<SessionId>,
    pub serving: bool,
    /// What has to be applied before this server serves.
    serve_at: Option<Zxid>,
    links: BTreeMap<u32, Vec<u8>>,
    transfers: BTreeMap<u32, Transfer>,
    pub upstream: Upstream,
    pub clients: crate::serving::Clients,
    applied: Applied,
    until_snapshot: u64,
    counted: u64,
}

/// A digest of a record, and of sets of them.
pub fn hash(bytes: &[u8]) -> u64 {
    ostler::random::hash_bytes(bytes)
}

impl Server {
    pub fn new(me: ServerId, quorum: Arc<Quorum>, recovered: Recovered, ctx: &mut Ctx<'_>) -> Server {
        let Recovered { storage, tree, sessions, epochs, records, quarantined } = recovered;
        let last = storage.log().last_zxid();
        let limit = 1 << 20;
        let mut history = History::new(last, limit);
        if ctx.rng.below(1000) >= ctx.knobs.forget_history_per_mille && !records.is_empty() {
            history = History::new(storage.replayed_from, limit);
            records.iter().for_each(|(zxid, record)| history.push(*zxid, record));
        }
        let table = session_table(&sessions, ctx);
        Server {
            me,
            quorum,
            storage,
            history,
            role: Role::Looking,
            role_number: 0,
            accepted: epochs.accepted,
            current: epochs.current,
            quarantined,
            durable: last,
            committed: Zxid::ZERO,
            tree,
            sessions: table,
            prepare: Prepare::new(PrepareRules { ensemble: true, ..PrepareRules::default() }),
            ids: SessionIds::new(me, ctx.wall_ms),
            opening: BTreeSet::new(),
            serving: false,
            serve_at: None,
            links: BTreeMap::new(),
            transfers: BTreeMap::new(),
            upstream: Upstream { conn: None, rx: Vec::new(), decoder: None, dials: 0, dial_at: None },
            clients: crate::serving::Clients::default(),
            applied: Applied::default(),
            until_snapshot: 1 + ctx.rng.below(ctx.knobs.snap_count),
            counted: 0,
        }
    }

    pub fn is_voter(&self) -> bool {
        self.quorum.is_voter(self.me)
    }

    /// R6: nothing that an earlier role began is under way.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.role, Role::Looking)
            && self.storage.is_idle()
            && (self.durable == self.history.last() || is(Bug::RoleWithoutBarrier))
    }

    pub fn is_looking(&self) -> bool {
        matches!(self.role, Role::Looking)
    }

    pub fn is_leading(&self) -> bool {
        matches!(self.role, Role::Leading(_))
    }

    pub fn is_established(&self) -> bool {
        matches!(&self.role, Role::Leading(leader) if leader.is_established())
    }

    pub fn elected(&mut self, leader: ServerId, ctx: &mut Ctx<'_>) {
        assert!(self.is_at_rest(), "a role begins when the disk is at rest");
        self.role_number += 1;
        self.committed = Zxid::ZERO;
        if leader == self.me {
            let start = LeaderStart {
                me: self.me,
                quorum: self.quorum.clone(),
                timing: ctx.knobs.timing,
                config_text: b"version=0".as_slice().into(),
                config_version: 0,
                accepted: self.accepted,
                current: self.current,
                output_max: 8 << 20,
            };
            self.role = Role::Leading(Box::new(Leader::new(start, &self.history, ctx.now)));
        } else {
            let start = LearnerStart {
                me: self.me,
                observer: !self.is_voter(),
                timing: ctx.knobs.timing,
                config_version: 0,
                accepted: self.accepted,
                current: self.current,
                quarantined: self.quarantined && !is(Bug::QuarantineForgotten),
            };
            let learner = Box::new(Learner::new(start, &self.history, ctx.now));
            self.role = Role::Learning { leader, learner };
            self.upstream = Upstream { conn: None, rx: Vec::new(), decoder: None, dials: 0, dial_at: Some(ctx.now) };
        }
        self.settle(ctx);
    }

    /// A learner has connected to the quorum port.
    pub fn accepted_learner(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        match &mut self.role {
            Role::Leading(leader) => {
                leader.connected(Link(conn), ctx.now);
                self.links.insert(conn, Vec::new());
            }
            _ => ctx.actions.push(Action::Close(conn)),
        }
        self.settle(ctx);
    }

    pub fn dialed(&mut self, conn: Option<u32>, role: u32, ctx: &mut Ctx<'_>) {
        let number = self.role_number;
        let Role::Learning { learner, .. } = &mut self.role else {
            conn.into_iter().for_each(|conn| ctx.actions.push(Action::Close(conn)));
            return;
        };
        if role != number || learner.is_lost() {
            conn.into_iter().for_each(|conn| ctx.actions.push(Action::Close(conn)));
            return;
        }
        match conn {
            Some(conn) => {
                self.upstream.conn = Some(conn);
                learner.connected(ctx.now);
            }
            None if self.upstream.dials >= 5 => learner.fail("the leader could not be reached"),
            None => self.upstream.dial_at = Some(ctx.now.plus_ms(100 + ctx.rng.below(300))),
        }
        self.settle(ctx);
    }

    pub fn bytes(&mut self, conn: u32, bytes: &[u8], ctx: &mut Ctx<'_>) {
        if let Some(rx) = self.links.get_mut(&conn) {
            rx.extend_from_slice(bytes);
            self.read_link(conn, ctx);
        } else if self.upstream.conn == Some(conn) {
            self.upstream.rx.extend_from_slice(bytes);
        } else {
            self.client_bytes(conn, bytes, ctx);
        }
        self.settle(ctx);
    }

    pub fn closed(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        if self.links.remove(&conn).is_some() {
            self.transfers.remove(&conn);
            if let Role::Leading(leader) = &mut self.role {
                leader.closed(Link(conn));
            }
        } else if self.upstream.conn == Some(conn) {
            self.upstream.conn = None;
            if let Role::Learning { learner, .. } = &mut self.role {
                learner.fail("the leader has closed the connection");
            }
        } else {
            self.client_closed(conn);
        }
        self.settle(ctx);
    }

    /// There is room again in a connection.
    pub fn writable(&mut self, ctx: &mut Ctx<'_>) {
        self.settle(ctx);
    }

    pub fn tick(&mut self, ctx: &mut Ctx<'_>) {
        match &mut self.role {
            Role::Leading(leader) => {
                leader.tick(&mut self.history, ctx.now);
                let due: Vec<u32> = (self.transfers.iter())
                    .filter(|(_, transfer)| matches!(transfer, Transfer::Snapshot(at) if *at <= ctx.now))
                    .map(|(&conn, _)| conn)
                    .collect();
                for conn in due {
                    self.transfers.remove(&conn);
                    leader.snapshot_sent(Link(conn), &mut self.history);
                }
                self.read_log_for_learners(ctx);
            }
            Role::Learning { leader, learner } => {
                learner.tick(ctx.now);
                let leader = *leader;
                if self.upstream.dial_at.is_some_and(|at| at <= ctx.now) {
                    self.upstream.dial_at = None;
                    self.upstream.dials += 1;
                    ctx.actions.push(Action::Dial(leader, self.role_number));
                }
            }
            Role::Looking => {}
        }
        self.expire(ctx);
        self.storage.snapshot_slice(&self.tree, ctx);
        self.settle(ctx);
    }

    /// The running disk operation is done.
    pub fn disk_done(&mut self, ctx: &mut Ctx<'_>) {
        let done = match self.storage.complete(ctx) {
            Ok(done) => done,
            Err(fatal) => return ctx.actions.push(Action::Exit(fatal)),
        };
        match done {
            DiskOp::Append(batch) => {
                let up_to = batch.last_zxid().expect("no empty batch is appended");
                let records = batch.records().map(|(zxid, record)| (zxid, record.into())).collect();
                ctx.report(Report::Durable(records));
                self.now_durable(up_to);
            }
            DiskOp::Epochs { accepted, current, role } => {
                (self.accepted, self.current) = (accepted, current);
                ctx.report(Report::Epochs { accepted, current });
                self.tell_epochs_stored(role, ctx);
            }
            DiskOp::Truncate { to, role } => {
                self.truncated(to, ctx);
                if let Role::Learning { learner, .. } = &mut self.role
                    && self.role_number == role
                {
                    learner.truncated(to);
                }
            }
            DiskOp::Install { zxid, tree, sessions, role } => {
                self.tree = *tree;
                self.sessions = session_table(&sessions, ctx);
                self.prepare.clear();
                self.history.reset(zxid);
                self.durable = zxid;
                ctx.report(Report::Installed(zxid));
                if let Role::Learning { learner, .. } = &mut self.role
                    && self.role_number == role
                {
                    learner.snapshot_installed(zxid);
                }
            }
        }
        self.settle(ctx);
    }

    fn tell_epochs_stored(&mut self, role: u32, ctx: &mut Ctx<'_>) {
        if self.role_number != role {
            return;
        }
        match &mut self.role {
            Role::Leading(leader) => leader.epochs_stored(&mut self.history, ctx.now),
            Role::Learning { learner, .. } => {
                learner.epochs_stored();
                // The history of a leader has taken the place of the doubtful one.
                if self.quarantined && self.current == learner.epoch() {
                    self.quarantined = false;
                    self.storage.end_quarantine();
                    ctx.report(Report::Trusted);
                }
            }
            Role::Looking => {}
        }
    }

    fn now_durable(&mut self, up_to: Zxid) {
        if up_to <= self.durable {
            return;
        }
        self.durable = up_to;
        match &mut self.role {
            Role::Leading(leader) => leader.durable(up_to, &mut self.history),
            Role::Learning { learner, .. } => learner.durable(up_to),
            Role::Looking => {}
        }
    }

    fn truncated(&mut self, to: Zxid, ctx: &mut Ctx<'_>) {
        if self.history.contains(to) {
            self.history.truncate(to)
        } else {
            self.history.reset(to)
        }
        self.durable = to;
        ctx.report(Report::Truncated(to));
        if self.tree.zxid() > to && !is(Bug::TreeKeptAfterTruncate) {
            // R5: what was replayed at the start of what is gone now.
            self.storage.abandon_snapshot(&self.tree);
            match self.storage.read_back(ctx) {
                Ok((tree, sessions)) => (self.tree, self.sessions) = (tree, sessions),
                Err(fatal) => ctx.actions.push(Action::Exit(fatal)),
            }
            self.prepare.clear();
        }
    }

    fn append(&mut self, zxid: Zxid, record: &[u8], ctx: &mut Ctx<'_>) {
        self.history.push(zxid, record);
        let mut batch = Batch::new();
        batch.push(zxid, record);
        self.storage.submit(DiskOp::Append(batch), ctx);
    }

    /// The next transaction of this leader.
    pub fn propose(&mut self, zxid: Zxid, record: &[u8], ctx: &mut Ctx<'_>) {
        self.append(zxid, record, ctx);
        let Role::Leading(leader) = &mut self.role else { unreachable!("only a leader proposes") };
        leader.propose(zxid, record);
        if is(Bug::LeaderCountsItselfBeforeItsDisk) {
            leader.durable(zxid, &mut self.history);
        }
    }

    fn read_link(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        loop {
            // The bytes are taken out, since what they say is given to the leader.
            let Some(rx) = self.links.get_mut(&conn) else { return };
            let bytes = std::mem::take(rx);
            let (packet, taken) = match QuorumPacket::read(&bytes, PACKET_MAX) {
                Ok(Some(read)) => read,
                Ok(None) => {
                    self.links.insert(conn, bytes);
                    return;
                }
                Err(error) => panic!("a learner sends what can't be read: {error}"),
            };
            let Role::Leading(leader) = &mut self.role else { return };
            match leader.packet(Link(conn), packet, &mut self.history, ctx.now) {
                Heard::Nothing => {}
                Heard::Request { request, .. } => self.forwarded(conn, &request, ctx),
                Heard::Revalidate(session) => self.revalidate(conn, session, ctx),
                Heard::Sessions(data) => self.heard_sessions(conn, data, ctx),
            }
            if let Some(rx) = self.links.get_mut(&conn) {
                *rx = bytes[taken..].to_vec();
            }
            self.leader_outputs(ctx);
        }
    }

    fn read_upstream(&mut self, ctx: &mut Ctx<'_>) {
        let bytes = std::mem::take(&mut self.upstream.rx);
        let mut rest = &bytes[..];
        loop {
            self.learner_outputs(ctx);
            let Role::Learning { learner, .. } = &mut self.role else { return };
            if let Some((zxid, decoder)) = &mut self.upstream.decoder {
                let taken = decoder.push(rest).expect("a leader sends a tree");
                rest = &rest[taken..];
                if !decoder.is_whole() {
                    break;
                }
                let zxid = *zxid;
                let (_, decoder) = self.upstream.decoder.take().expect("just looked");
                let decoded = decoder.finish(zxid).expect("it is whole");
                let (tree, sessions) = (Box::new(decoded.tree), decoded.sessions);
                self.storage.abandon_snapshot(&self.tree);
                let op = DiskOp::Install { zxid, tree, sessions, role: self.role_number };
                self.storage.submit(op, ctx);
                break;
            }
            if learner.is_busy() || learner.is_lost() {
                break;
            }
            let read = QuorumPacket::read(rest, PACKET_MAX).expect("a leader sends what can be read");
            let Some((packet, taken)) = read else { break };
            rest = &rest[taken..];
            match learner.packet(&packet, ctx.now) {
                Brought::Proposal { zxid, record } => {
                    if read_txn(record).is_err() {
                        learner.fail("a proposal that can't be decoded");
                        continue;
                    }
                    learner.appended(zxid);
                    let record = record.to_vec();
                    self.append(zxid, &record, ctx);
                    if is(Bug::AckBeforeSync)
                        && let Role::Learning { learner, .. } = &mut self.role
                    {
                        learner.durable(zxid);
                    }
                }
                Brought::Ping => self.answer_ping(),
                Brought::Valid(valid) => self.session_is_valid(valid, ctx),
                Brought::Nothing => {}
            }
        }
        self.upstream.rx = rest.to_vec();
    }

    fn learner_outputs(&mut self, ctx: &mut Ctx<'_>) {
        loop {
            let Role::Learning { learner, .. } = &mut self.role else { return };
            let outputs = learner.outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    LearnerOutput::StoreEpochs { accepted, current } => self.store_epochs(accepted, current, ctx),
                    LearnerOutput::Truncate { to } => {
                        self.storage.abandon_snapshot(&self.tree);
                        let op = DiskOp::Truncate { to, role: self.role_number };
                        self.storage.submit(op, ctx);
                    }
                    LearnerOutput::ReceiveSnapshot { zxid } => {
                        let decoder = Decoder::of_snap(self.storage.options(), DecodeLimits::default());
                        self.upstream.decoder = Some((zxid, Box::new(decoder)));
                    }
                    LearnerOutput::Commit { up_to } => self.committed = self.committed.max(up_to),
                    LearnerOutput::Serving { up_to, .. } => {
                        self.committed = self.committed.max(up_to);
                        self.serve_at = Some(self.committed);
                    }
                    LearnerOutput::SyncDone => self.sync_is_done(),
                    LearnerOutput::Lost { why } => return self.leave(why, ctx),
                }
            }
        }
    }

    fn leader_outputs(&mut self, ctx: &mut Ctx<'_>) {
        loop {
            let Role::Leading(leader) = &mut self.role else { return };
            let outputs = leader.outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    LeaderOutput::StoreEpochs { accepted, current } => self.store_epochs(accepted, current, ctx),
                    LeaderOutput::Close { link, why } => {
                        ctx.report(Report::RoleEnded(format!("closes a learner: {why}")));
                        self.links.remove(&link.0);
                        self.transfers.remove(&link.0);
                        ctx.actions.push(Action::Close(link.0));
                    }
                    LeaderOutput::SendSnapshot { link } => self.send_snapshot(link, ctx),
                    LeaderOutput::CatchUp { link, after } => self.catch_up(link, after, ctx),
                    LeaderOutput::Established { epoch, up_to } => {
                        ctx.report(Report::Established { epoch, up_to });
                        self.committed = self.committed.max(up_to);
                        self.serve_at = Some(up_to);
                        self.prepare.clear();
                        // Anew: a closeSession of an earlier leadership may never have come to pass.
                        self.sessions = session_table(&self.sessions.timeouts(), ctx);
                    }
                    LeaderOutput::Commit { up_to } => {
                        ctx.report(Report::Committed(up_to));
                        self.committed = self.committed.max(up_to);
                    }
                    LeaderOutput::SyncsDone { count } => (0..count).for_each(|_| self.sync_is_done()),
                    LeaderOutput::Resign { why } => return self.leave(why, ctx),
                }
            }
        }
    }

    fn store_epochs(&mut self, accepted: Epoch, current: Epoch, ctx: &mut Ctx<'_>) {
        if is(Bug::EpochsStoredLater) {
            (self.accepted, self.current) = (accepted, current);
            self.storage.submit(DiskOp::Epochs { accepted, current, role: u32::MAX }, ctx);
            return self.tell_epochs_stored(self.role_number, ctx);
        }
        self.storage.submit(DiskOp::Epochs { accepted, current, role: self.role_number }, ctx);
    }

    fn send_snapshot(&mut self, link: Link, ctx: &mut Ctx<'_>) {
        let Role::Leading(leader) = &mut self.role else { return };
        let zxid = self.tree.zxid();
        leader.snapshot_begins(link, zxid);
        let Some(out) = leader.output(link) else { return };
        write_snap(&self.tree, &self.sessions.timeouts(), out).expect("memory takes everything");
        let delay = ctx.rng.below(ctx.knobs.snap_delay.max(1));
        self.transfers.insert(link.0, Transfer::Snapshot(Now(ctx.now.0 + delay)));
    }

    fn catch_up(&mut self, link: Link, after: Zxid, ctx: &mut Ctx<'_>) {
        let Role::Leading(leader) = &mut self.role else { return };
        let view = self.storage.log().view();
        let cursor = if view.reaches(after) { view.read_after(after).ok() } else { None };
        match cursor {
            Some(cursor) => {
                leader.catch_up_begins(link);
                self.transfers.insert(link.0, Transfer::Log(cursor));
            }
            None => leader.cannot_catch_up(link, &mut self.history),
        }
        self.read_log_for_learners(ctx);
    }

    fn read_log_for_learners(&mut self, ctx: &mut Ctx<'_>) {
        let Role::Leading(leader) = &mut self.role else { return };
        let mut done = Vec::new();
        for (&conn, transfer) in &mut self.transfers {
            let Transfer::Log(cursor) = transfer else { continue };
            let mut batch = Batch::new();
            // The most recent committed record that is durable here; the rest comes from memory.
            let up_to = leader.committed().min(self.durable);
            match cursor.read(up_to, 2_000, &mut batch) {
                Ok(()) => {
                    if !leader.catch_up(Link(conn), batch.records(), &mut self.history) {
                        done.push(conn);
                    }
                }
                Err(error) => {
                    ctx.report(Report::RoleEnded(format!("cannot read the log for a learner: {error}")));
                    leader.closed(Link(conn));
                    ctx.actions.push(Action::Close(conn));
                    done.push(conn);
                }
            }
        }
        for conn in done {
            self.transfers.remove(&conn);
        }
    }

    /// The role is over. Connections go; what the disk has been given is finished before the next one (`is_at_rest`).
    fn leave(&mut self, why: String, ctx: &mut Ctx<'_>) {
        ctx.report(Report::RoleEnded(why));
        self.role = Role::Looking;
        self.serving = false;
        self.serve_at = None;
        for conn in std::mem::take(&mut self.links).into_keys().chain(self.upstream.conn.take()) {
            ctx.actions.push(Action::Close(conn));
        }
        self.transfers.clear();
        self.opening.clear();
        self.upstream.decoder = None;
        self.upstream.rx.clear();
        self.drop_clients(ctx);
        self.prepare.clear();
    }

    /// Does everything that can be done now.
    pub fn settle(&mut self, ctx: &mut Ctx<'_>) {
        for _ in 0..64 {
            let before = ctx.actions.len();
            self.leader_outputs(ctx);
            self.read_upstream(ctx);
            self.learner_outputs(ctx);
            self.apply(ctx);
            self.serve(ctx);
            if ctx.actions.len() == before {
                break;
            }
        }
        self.snapshot_if_due(ctx);
    }

    /// R7: what is committed and durable here.
    fn apply(&mut self, ctx: &mut Ctx<'_>) {
        let durable = if is(Bug::AppliedBeforeDurable) { self.history.last() } else { self.durable };
        let up_to = self.committed.min(durable);
        if up_to > self.tree.zxid() {
            let records: Vec<(Zxid, Vec<u8>)> =
                (self.history.between(self.tree.zxid(), up_to)).map(|(zxid, record)| (zxid, record.to_vec())).collect();
            let first = records.first().map(|record| record.0);
            assert!(
                first.is_some_and(|first| ostler::zab::history::follows(self.tree.zxid(), first)),
                "{first:?} is to be applied behind {}",
                self.tree.zxid()
            );
            for (zxid, record) in records {
                self.apply_one(zxid, record, ctx);
            }
        }
        if self.serve_at.is_some_and(|at| at <= self.tree.zxid()) {
            self.serve_at = None;
            self.serving = true;
            // What was replayed at the start and never applied since is known to be committed now.
            ctx.report(Report::Serving { zxid: self.tree.zxid(), digest: self.tree.digest() });
        }
    }

    fn apply_one(&mut self, zxid: Zxid, record: Vec<u8>, ctx: &mut Ctx<'_>) {
        let (header, txn, digest) = read_txn(&record).expect("it was read before it was logged");
        assert_eq!(header.zxid, zxid);
        let mut applied = std::mem::take(&mut self.applied);
        applied.clear();
        let closes = matches!(txn, Txn::CloseSession { .. });
        if let Txn::CreateSession { timeout_ms } = txn {
            self.sessions.add(header.session, timeout_ms, None, ctx.now);
            self.opening.remove(&header.session);
        }
        self.tree.apply(&header, txn.clone(), &mut applied);
        if let Some(digest) = digest {
            assert_eq!(digest.tree, self.tree.digest(), "the digest in the transaction {zxid}");
        }
        if closes {
            self.sessions.remove(header.session);
        }
        self.prepare.applied(zxid);
        self.counted += 1;
        let sessions = if zxid.counter().is_multiple_of(8) { self.sessions_hash() } else { 0 };
        ctx.report(Report::Applied { zxid, record: record.into(), digest: self.tree.digest(), sessions });
        self.answer_applied(&header, &txn, &applied, ctx);
        self.applied = applied;
    }

    pub fn sessions_hash(&self) -> u64 {
        let mut bytes = Vec::new();
        for (SessionId(id), timeout_ms) in self.sessions.timeouts() {
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&timeout_ms.to_le_bytes());
        }
        hash(&bytes) | 1
    }

    fn snapshot_if_due(&mut self, ctx: &mut Ctx<'_>) {
        if self.serving && self.counted >= self.until_snapshot && self.storage.can_snapshot() {
            self.counted = 0;
            self.until_snapshot = 1 + ctx.knobs.snap_count / 2 + ctx.rng.below(ctx.knobs.snap_count / 2 + 1);
            let sessions = self.sessions.timeouts();
            self.storage.begin_snapshot(&self.tree, &sessions, ctx);
        }
    }

    /// Takes what a connection to a peer may send now.
    pub fn take_output(&mut self, conn: u32, reports: &mut Vec<Report>) -> Vec<u8> {
        match &mut self.role {
            Role::Leading(leader) => leader.output(Link(conn)).map(std::mem::take).unwrap_or_default(),
            Role::Learning { learner, .. } if self.upstream.conn == Some(conn) => {
                let bytes = std::mem::take(&mut learner.output);
                said(&bytes, learner.epoch(), reports);
                bytes
            }
            _ => Vec::new(),
        }
    }

    /// Connections that may have something to send.
    pub fn peer_conns(&self) -> Vec<u32> {
        self.links.keys().copied().chain(self.upstream.conn).collect()
    }

    /// How it stands for election: its current epoch and the last zxid that it can vouch for.
    pub fn candidacy(&self) -> (Epoch, Option<Zxid>) {
        (self.current, (!self.quarantined || is(Bug::QuarantineForgotten)).then_some(self.durable))
    }

    pub fn describe(&self) -> String {
        let role = match &self.role {
            Role::Looking => "looking".to_owned(),
            Role::Leading(leader) => format!("leading {:?}", leader.epoch()),
            Role::Learning { leader, learner } => format!("following {} {:?}", leader.0, learner.epoch()),
        };
        format!(
            "{}: {role}, serving {}, accepted {} current {}, durable {} of {}, committed {}, applied {}, quarantined {}",
            self.me.0,
            self.serving,
            self.accepted.0,
            self.current.0,
            self.durable,
            self.history.last(),
            self.committed,
            self.tree.zxid(),
            self.quarantined
        )
    }
}

/// Sessions with their whole timeouts before them.
pub fn session_table(sessions: &[SessionRecord], ctx: &Ctx<'_>) -> SessionTable {
    let tick_ms = ctx.knobs.timing.tick_ms;
    let mut table = SessionTable::new(tick_ms as u32, tick_ms / 2 + 100, ctx.now);
    sessions.iter().for_each(|&(id, timeout_ms)| table.add(id, timeout_ms, None, ctx.now));
    table
}

/// What a learner says to its leader, for the checkers.
fn said(bytes: &[u8], epoch: Epoch, reports: &mut Vec<Report>) {
    let mut rest = bytes;
    while let Ok(Some((packet, taken))) = QuorumPacket::read(rest, PACKET_MAX) {
        rest = &rest[taken..];
        let Some(kind) = packet.packet_type() else { continue };
        if matches!(kind, PacketType::Ack | PacketType::AckEpoch | PacketType::FollowerInfo) {
            let current = match kind {
                PacketType::AckEpoch => {
                    ostler::wire::quorum::read_current_epoch(packet.data.unwrap_or_default()).ok().flatten()
                }
                _ => None,
            };
            reports.push(Report::Said { kind, zxid: packet.zxid, current, epoch });
        }
    }
}
