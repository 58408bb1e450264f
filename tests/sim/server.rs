//! One server of a simulated ensemble: everything between the bytes of its connections and the sectors of its disk.
//!
//! The consensus core, the log, recovery, prepare, tree, sessions and snapshots are the server's own code; what is here is
//! what threads and sockets are in the real one: who is told when, and what waits for which disk. The rules are those of
//! the fault model: a role begins when the disk is at rest (R6), nothing is applied that is not durable here (R7), a tree
//! never has what a truncation takes away (R5).
//!
//! Leaves to the world: time, chance, the network, crashes; to `serving` the clients, to `storage` the disk.

use crate::broken::{Bug, is};
use crate::contacts::Contacts;
use crate::electing::Electing;
use crate::network::{Port, Time};
use crate::serving::Clients;
use crate::storage::{DiskOp, Recovered, Storage};
use ostler::clock::Now;
use ostler::fatal::Fatal;
use ostler::ids::{Epoch, ServerId, SessionId, Zxid};
use ostler::log::{Batch, LogCursor};
use ostler::prepare::{Prepare, PrepareRules};
use ostler::random::Rng;
use ostler::session::{OwnerHandle, SessionIds, SessionTable};
use ostler::snapshot::SessionRecord;
use ostler::snapshot::zookeeper::Decoder;
use ostler::tree::{Applied, Tree};
use ostler::wire::quorum::PacketType;
use ostler::wire::txn::{Txn, read_txn};
use ostler::zab::History;
use ostler::zab::Timing;
use ostler::zab::ensemble::EnsembleConfig;
use ostler::zab::leader::{Leader, Link};
use ostler::zab::learner::Learner;
use ostler::zab::quorum::Quorum;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// The largest packet that a peer may send.
pub const PACKET_MAX: usize = 4 << 20;

/// What the world has to do, in the order given.
#[derive(Debug)]
pub enum Action {
    Send(u32, Vec<u8>),
    Close(u32),
    /// Connect to a server, for the role with this number or under this name; the answer is `dialed`, `dialed_elector`.
    Dial(ServerId, Port, u32),
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
    /// It did not: nothing was changed.
    Kept,
    Installed(Zxid),
    Established {
        epoch: Epoch,
        up_to: Zxid,
    },
    Committed(Zxid),
    /// A leader makes a transaction; it has applied so much.
    Proposed {
        zxid: Zxid,
        record: u64,
        applied: Zxid,
    },
    /// A leader ends a session.
    Ends(SessionId),
    /// How a server stands for election: its epoch and its last zxid, if it vouches for that.
    Stands {
        current: Epoch,
        last: Option<Zxid>,
    },
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
    /// A doubtful history has been replaced; and whether the disk is known to say so.
    Trusted {
        released: bool,
    },
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
    /// Bytes of history in memory.
    pub history_bytes: usize,
    /// The last counter of an epoch: then another begins.
    pub counter_max: u32,
}

pub enum Role {
    Looking,
    Leading(Box<Leader>),
    Learning { leader: ServerId, learner: Box<Learner> },
}

/// The connection to the leader.
pub struct Upstream {
    pub conn: Option<u32>,
    pub rx: Vec<u8>,
    /// A snapshot is being read.
    pub decoder: Option<(Zxid, Box<Decoder>)>,
    pub dials: u32,
    pub dial_at: Option<Now>,
}

/// A transfer of history to a learner.
pub enum Transfer {
    Snapshot(Now),
    Log(LogCursor<ostler::disk::sim::SimDisk>),
}

/// A session whose createSession is under way: who has it, and whether its end is under way too.
#[derive(Clone, Copy)]
pub struct Opened {
    pub owner: OwnerHandle,
    pub closing: bool,
}

pub struct Server {
    pub me: ServerId,
    pub quorum: Arc<Quorum>,
    pub storage: Storage,
    pub history: History,
    /// What is in the log and not in the tree.
    line: BTreeMap<Zxid, Vec<u8>>,
    pub role: Role,
    /// Counts roles, so that what the disk does for an old one is not told to the next.
    pub role_number: u32,
    pub accepted: Epoch,
    pub current: Epoch,
    /// Newest epoch that anyone has said to have accepted while this server led.
    pub heard: Epoch,
    pub quarantined: bool,
    /// In its next role as a learner it asks for the leader's whole state.
    pub wants_everything: bool,
    /// It led, and nobody was heard from.
    pub unheard: bool,
    pub durable: Zxid,
    /// Committed, as far as the present role knows.
    pub committed: Zxid,
    pub tree: Tree,
    pub sessions: SessionTable,
    pub prepare: Prepare,
    pub ids: SessionIds,
    /// Sessions that are proposed by this leader and not yet applied here.
    pub opening: BTreeMap<SessionId, Opened>,
    pub serving: bool,
    /// What has to be applied before this server serves.
    pub serve_at: Option<Zxid>,
    pub links: BTreeMap<u32, Vec<u8>>,
    pub transfers: BTreeMap<u32, Transfer>,
    pub upstream: Upstream,
    pub electing: Electing,
    pub clients: Clients,
    pub contacts: Contacts,
    applied: Applied,
    until_snapshot: u64,
    counted: u64,
}

/// A digest of a record, and of sets of them.
pub fn hash(bytes: &[u8]) -> u64 {
    ostler::random::hash_bytes(bytes)
}

impl Server {
    pub fn new(me: ServerId, config: Arc<EnsembleConfig>, recovered: Recovered, ctx: &mut Ctx<'_>) -> Server {
        let quorum = Arc::new(config.quorum().clone());
        let Recovered { storage, tree, sessions, epochs, records, quarantined } = recovered;
        let last = storage.log().last_zxid();
        let limit = ctx.knobs.history_bytes;
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
            line: BTreeMap::new(),
            role: Role::Looking,
            role_number: 0,
            accepted: epochs.accepted,
            current: epochs.current,
            heard: epochs.accepted,
            quarantined,
            wants_everything: false,
            unheard: false,
            durable: last,
            committed: Zxid::ZERO,
            tree,
            sessions: table,
            prepare: Prepare::new(PrepareRules { ensemble: true, ..PrepareRules::default() }),
            ids: SessionIds::new(me, ctx.wall_ms),
            opening: BTreeMap::new(),
            serving: false,
            serve_at: None,
            links: BTreeMap::new(),
            transfers: BTreeMap::new(),
            upstream: Upstream { conn: None, rx: Vec::new(), decoder: None, dials: 0, dial_at: None },
            electing: Electing::new(me, config),
            clients: Clients::default(),
            contacts: Contacts::default(),
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
        let at_rest = self.storage.is_idle() && self.durable == self.history.last();
        matches!(self.role, Role::Looking) && (at_rest || is(Bug::RoleWithoutBarrier))
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

    pub fn bytes(&mut self, conn: u32, bytes: &[u8], ctx: &mut Ctx<'_>) {
        if let Some(rx) = self.links.get_mut(&conn) {
            rx.extend_from_slice(bytes);
            self.read_link(conn, ctx);
        } else if self.upstream.conn == Some(conn) {
            self.upstream.rx.extend_from_slice(bytes);
        } else if self.electing.has(conn) {
            self.elector_bytes(conn, bytes, ctx);
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
        } else if self.electing.has(conn) {
            self.elector_closed(conn, ctx);
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
        self.look_at_kept(ctx);
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
                    ctx.actions.push(Action::Dial(leader, Port::Quorum, self.role_number));
                }
            }
            Role::Looking => {}
        }
        self.elect(ctx);
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
            DiskOp::Truncate { role, refused: Some(why), .. } => {
                ctx.report(Report::Kept);
                self.ask_for_everything(role, why, ctx);
            }
            DiskOp::Truncate { to, role, refused: None } => {
                self.truncated(to, ctx);
                if let Role::Learning { learner, .. } = &mut self.role
                    && self.role_number == role
                {
                    learner.truncated(to, ctx.now);
                }
            }
            DiskOp::Install { zxid, tree, sessions, role } => {
                self.tree = *tree;
                self.sessions = session_table(&sessions, ctx);
                self.prepare.clear();
                self.history.reset(zxid);
                self.line.clear();
                self.let_clients_go(ctx);
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
        self.line.split_off(&Zxid(to.0 + 1));
        self.cut_answers(to, ctx);
        ctx.report(Report::Truncated(to));
        if self.tree.zxid() > to && !is(Bug::TreeKeptAfterTruncate) {
            // R5: what was replayed at the start of what is gone now.
            self.let_clients_go(ctx);
            self.storage.abandon_snapshot(&self.tree);
            match self.storage.read_back(ctx) {
                Ok((tree, sessions)) => (self.tree, self.sessions) = (tree, sessions),
                Err(fatal) => ctx.actions.push(Action::Exit(fatal)),
            }
            self.prepare.clear();
        }
    }

    pub fn append(&mut self, zxid: Zxid, record: &[u8], ctx: &mut Ctx<'_>) {
        match &self.role {
            Role::Learning { .. } => self.history.push_behind(zxid, record, self.tree.zxid()),
            Role::Leading(_) | Role::Looking => self.history.push(zxid, record),
        }
        self.line.insert(zxid, record.to_vec());
        let mut batch = Batch::new();
        batch.push(zxid, record);
        self.storage.submit(DiskOp::Append(batch), ctx);
    }

    /// The next transaction of this leader.
    pub fn propose(&mut self, zxid: Zxid, record: &[u8], ctx: &mut Ctx<'_>) {
        ctx.report(Report::Proposed { zxid, record: hash(record), applied: self.tree.zxid() });
        self.append(zxid, record, ctx);
        let Role::Leading(leader) = &mut self.role else { unreachable!("only a leader proposes") };
        leader.propose(zxid, record);
        if is(Bug::LeaderCountsItselfBeforeItsDisk) {
            leader.durable(zxid, &mut self.history);
        }
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
            self.take_role(ctx);
            if ctx.actions.len() == before {
                break;
            }
        }
        self.snapshot_if_due(ctx);
    }

    /// R7: what is committed and durable here.
    fn apply(&mut self, ctx: &mut Ctx<'_>) {
        let durable = if is(Bug::AppliedBeforeDurable) { self.history.last() } else { self.durable };
        let all = is(Bug::AppliedBeforeCommitted) && self.serving;
        let up_to = if all { durable } else { self.committed.min(durable) };
        if up_to > self.tree.zxid() {
            let later = self.line.split_off(&Zxid(up_to.0 + 1));
            let records = std::mem::replace(&mut self.line, later);
            let first = records.first_key_value().map(|(&zxid, _)| zxid);
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
            self.go_on(ctx);
        }
    }

    fn apply_one(&mut self, zxid: Zxid, record: Vec<u8>, ctx: &mut Ctx<'_>) {
        let (header, txn, digest) = read_txn(&record).expect("it was read before it was logged");
        assert_eq!(header.zxid, zxid);
        let mut applied = std::mem::take(&mut self.applied);
        applied.clear();
        let closes = matches!(txn, Txn::CloseSession { .. });
        if let Txn::CreateSession { timeout_ms } = txn {
            let opened = self.opening.remove(&header.session);
            let owner = opened.map(|opened| opened.owner);
            self.sessions.add(header.session, timeout_ms, owner, ctx.now);
            self.contacts.heard(&[header.session], ctx.now);
            if opened.is_some_and(|opened| opened.closing) {
                self.sessions.set_closing(header.session);
            }
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

    /// Nothing is left that waits for something: the end of a run in which nobody asks for anything.
    pub fn is_at_base(&self) -> bool {
        let Clients { syncs, asked, .. } = &self.clients;
        self.opening.is_empty()
            && self.transfers.is_empty()
            && self.line.is_empty()
            && self.storage.is_idle()
            && syncs.is_empty()
            && asked.claimed.is_empty()
            && asked.kept.is_none()
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
