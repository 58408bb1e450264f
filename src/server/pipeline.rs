//! The life of a write, from a core's queue to every core's feed: prepare, propose, log, commit, apply, tell.
//!
//! One thread makes all transactions, so their order is the order of this loop. A request is prepared against the tree
//! plus what is pending; the transaction goes to the log at once; when it is durable on a quorum it is applied under the
//! write guard, and before the guard is let go its events and its reply stand in the feeds. What has no transaction of
//! its own but a place in the order (sync, a refused request, a reconnect) waits in the same line.
//!
//! Runs on: a thread of its own, the tree's only writer.

mod apply;
mod connect;
mod expiry;
mod forward;
mod kept;
mod member;
mod peers;
mod replace;
mod retries;
mod snapshots;
mod syncs;

pub use member::Member;

use crate::admin::status::Mode;
use crate::auth::AuthIds;
use crate::clock::{self, Now};
use crate::disk::RealDisk;
use crate::fatal::Fatal;
use crate::ids::{Epoch, ServerId, SessionId, Zxid};
use crate::limits;
use crate::log::{self, LogView};
use crate::metrics::{Counter, Recorder};
use crate::net::Alarm;
use crate::prepare::reply::Shape;
use crate::prepare::{Prepare, Prepared, WriteRequest};
use crate::random::{FastMap, Rng};
use crate::server::feed::{Entry, FeedBatch};
use crate::server::log_writer::LogWriter;
use crate::server::queue::{Batch, ConnId, Item};
use crate::server::shared::Shared;
use crate::server::snapshotter::SnapshotMail;
use crate::server::tree_lock;
use crate::session::{SessionIds, SessionState, SessionTable};
use crate::storage::Dirs;
use crate::tree::{Applied, TreeOptions};
use crate::wire::txn::{Txn, TxnDigest, TxnHeader, write_txn};
use crate::wire::{ErrorCode, OpCode};
use crate::zab::{Input, Leading, Output, Role};
use connect::Reconnect;
use expiry::SessionToClose;
use mio::event::Event;
use mio::{Events, Poll, Token};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Something with a place in the order, waiting for everything before it to be committed.
struct Pending {
    /// It may happen when this has been committed; for a transaction, its own zxid.
    zxid: Zxid,
    effect: Effect,
    reply: Option<ReplyTo>,
    /// Of its record in the log, or of what a sync echoes; counted in `Pipeline::pending_bytes`.
    bytes: usize,
}

impl Pending {
    /// Something without a transaction.
    fn waiting(zxid: Zxid, effect: Effect, reply: Option<ReplyTo>) -> Pending {
        let bytes = if let Effect::Sync { record, .. } = &effect { record.len() } else { 0 };
        Pending { zxid, effect, reply, bytes }
    }
}

enum Effect {
    Txn {
        header: TxnHeader,
        txn: Txn,
        /// What of the request its reply depends on.
        shape: Shape,
        /// What the leader says that the tree's digest is then; `None` where this server made the transaction.
        digest: Option<TxnDigest>,
    },
    /// The echo of a sync: its record, as the client sent it. In an ensemble a quorum has to confirm it first.
    Sync { record: Vec<u8>, confirmed: bool },
    /// A request that could not be made into a transaction.
    Refused(ErrorCode),
    /// A client that wants its session back.
    Attach(Reconnect),
    /// A new session's first connection: what it gets to know when its transaction has been applied.
    Open { header: TxnHeader, timeout_ms: i32, conn: ConnId, read_only: Option<bool>, received: Now },
}

/// A session whose createSession is under way.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Opened {
    /// The learner that has its client: it may have applied the createSession first, and the client moved on.
    owner: ConnId,
    /// Its closeSession is under way too.
    closing: bool,
}

/// Whom to answer.
#[derive(Clone, Copy)]
struct ReplyTo {
    conn: ConnId,
    op: OpCode,
    xid: i32,
    received: Now,
    /// Number of the forwarded sync of the same session that is answered before it; 0 without one.
    after_sync: u64,
}

/// Tokens of the pipeline's poll; its other numbers are in `server/ensemble`.
pub const BELL: Token = Token(0);
pub const ALARM: Token = Token(4);

/// Idleness after which the log is settled.
const SETTLE_MS: u64 = 1_000;

/// Settings of the pipeline alone.
pub struct PipelineSettings {
    pub server_id: ServerId,
    pub tick_ms: u64,
    /// Transactions between snapshots; each time a random number between half of it and all of it.
    pub snap_count: u64,
    /// The count is the default: a snapshot also waits until the log is half as large as the last one.
    pub snap_count_adapts: bool,
    /// Bytes of log between snapshots, likewise; 0 is no limit.
    pub snap_bytes: u64,
    pub container_check_ms: u64,
    pub container_max_per_minute: u64,
    /// Age above which a container that never had a child is reaped; 0 is never.
    pub container_never_used_ms: i64,
    /// Bytes of the largest record.
    pub record_bytes_max: usize,
}

pub struct Pipeline {
    poll: Poll,
    alarm: Alarm,
    shared: Arc<Shared>,
    settings: PipelineSettings,
    tree: tree_lock::Writer,
    sessions: SessionTable,
    ids: SessionIds,
    prepare: Prepare,
    /// Of a server that is alone.
    leading: Leading,
    outputs: Vec<Output>,
    /// Of a server in an ensemble.
    member: Option<Box<Member>>,
    /// Sessions whose createSession has been proposed for a learner's client and is not applied here yet.
    opening: FastMap<SessionId, Opened>,
    dirs: Dirs,
    tree_options: TreeOptions,
    log_view: LogView<RealDisk>,
    scratch: Vec<u8>,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Sessions that end. No request is taken before the last one has ended: what was asked behind it stands behind it.
    closings: VecDeque<SessionToClose>,
    log_writer: Arc<LogWriter>,
    batch: log::Batch,
    snapshots: Arc<SnapshotMail>,
    /// Transactions and bytes of log.
    until_snapshot: (u64, u64),
    /// Bytes of records since the last snapshot was begun.
    logged_since_snapshot: u64,
    /// This start has replayed so much that the next one should not have to.
    owes_snapshot: bool,
    /// When the log is told that nothing more has come.
    settle_at: Option<Now>,
    rng: Rng,
    recorder: Recorder,
    /// What each core has handed over and there was no room for yet.
    batches: Vec<VecDeque<Batch>>,
    first_core: usize,
    feeds: Vec<FeedBatch>,
    applied: Applied,
    reconnects: Vec<Reconnect>,
    next_container_check: Now,
    next_session_check: Now,
    /// For what ends when it is old.
    wall: expiry::Wall,
}

/// What `boot` has recovered and made for the pipeline.
pub struct Ingredients {
    pub poll: Poll,
    pub alarm: Alarm,
    pub shared: Arc<Shared>,
    pub settings: PipelineSettings,
    pub tree: tree_lock::Writer,
    pub sessions: SessionTable,
    pub ids: SessionIds,
    pub prepare: Prepare,
    /// `None`: a server that is alone.
    pub member: Option<Box<Member>>,
    pub dirs: Dirs,
    pub tree_options: TreeOptions,
    pub log_writer: Arc<LogWriter>,
    pub snapshots: Arc<SnapshotMail>,
    /// Records behind the snapshot that were replayed, and their bytes: they count towards the next one, or a server that
    /// never runs for long would replay more with each start.
    pub replayed: (u64, u64),
    pub rng: Rng,
    pub recorder: Recorder,
}

impl Pipeline {
    pub fn new(from: Ingredients) -> Pipeline {
        let Ingredients {
            poll,
            alarm,
            shared,
            settings,
            tree,
            sessions,
            ids,
            prepare,
            member,
            dirs,
            tree_options,
            log_writer,
            snapshots,
            replayed,
            rng,
            recorder,
        } = from;
        let last = tree.peek().zxid();
        let now = clock::now();
        let batches = shared.cores.iter().map(|_| VecDeque::new()).collect();
        let mut pipeline = Pipeline {
            leading: Leading::new(vec![settings.server_id], last),
            feeds: shared.cores.iter().map(|_| FeedBatch::default()).collect(),
            next_container_check: now.plus_ms(settings.container_check_ms),
            next_session_check: now,
            wall: expiry::Wall::new(clock::wall_ms(), now),
            poll,
            alarm,
            shared,
            settings,
            tree,
            sessions,
            ids,
            prepare,
            outputs: Vec::new(),
            member,
            opening: FastMap::default(),
            dirs,
            tree_options,
            log_view: log_writer.with_log(|log| log.view()),
            scratch: Vec::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            closings: VecDeque::new(),
            log_writer,
            batch: log::Batch::new(),
            snapshots,
            until_snapshot: (0, 0),
            logged_since_snapshot: 0,
            owes_snapshot: false,
            settle_at: None,
            rng,
            recorder,
            batches,
            first_core: 0,
            applied: Applied::default(),
            reconnects: Vec::new(),
        };
        pipeline.draw_next_snapshot();
        pipeline.count_replayed(replayed);
        pipeline
    }

    /// Until every core has ended and everything that they had read is answered.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(16);
        loop {
            if let Err(error) = self.sleep(&mut events) {
                tracing::error!("pipeline: poll failed: {error}");
                self.shared.stop();
                return;
            }
            for event in &events {
                self.note(event);
            }
            if self.shared.has_failed() {
                // Some of what was proposed is not in the log: nothing can follow it.
                return;
            }
            if let Err(fatal) = self.turn() {
                self.shared.fail_because(fatal);
                return;
            }
            if self.may_end() {
                self.take_leave();
                return;
            }
        }
    }

    /// A socket of a peer's.
    fn note(&mut self, event: &Event) {
        if let Some(member) = &mut self.member {
            member.note(event.token(), event.into());
        }
    }

    fn sleep(&mut self, events: &mut Events) -> std::io::Result<()> {
        self.shared.pipeline_bell.about_to_sleep();
        let pending = self.has_work();
        let at = self.next_deadline();
        if let (false, Some(at)) = (pending, at) {
            self.alarm.ring_by(at, clock::now(), clock::now)?;
        }
        let timeout = pending.then_some(Duration::ZERO);
        let polled = match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            other => other,
        };
        self.shared.pipeline_bell.awake();
        polled
    }

    fn has_work(&self) -> bool {
        let room = self.has_room();
        let durable = match &self.member {
            Some(member) => member.peer.last_durable(),
            None => self.leading.committed(),
        };
        (room && self.may_take_requests() && self.has_requests())
            || self.may_go_on_closing()
            || self.log_writer.mailbox.durable() > durable
            || self.member.as_ref().is_some_and(|member| member.has_work(self.tree.peek().zxid()))
            || self.peers_have_work()
            || (self.can_apply() && self.feeds_have_room() && self.snapshots.has_room(self.tree.peek()))
            || !self.shared.pipeline_reports.lock().is_empty()
            || self.may_snapshot_for_start()
            || self.may_end()
    }

    fn has_requests(&self) -> bool {
        self.batches.iter().any(|batches| !batches.is_empty())
            || self.shared.cores.iter().any(|core| !core.queue.is_empty())
    }

    /// Everything that the cores had read is answered, or there is nobody who could answer it. What nobody waits for may never
    /// end: others' requests in an ensemble, or an expired session of gigabytes.
    fn may_end(&self) -> bool {
        let is_ours = |pending: &Pending| {
            pending.reply.is_some() || matches!(pending.effect, Effect::Open { .. } | Effect::Attach(_))
        };
        let answers_somebody =
            || self.pending.iter().any(is_ours) || self.closings.iter().any(|closing| closing.reply.is_some());
        self.shared.cores_have_ended() && (!self.shared.is_serving() || !answers_somebody())
    }

    /// Whether clients' requests may be taken: a learner has to be able to hand them on.
    fn may_take_requests(&self) -> bool {
        let may_forward = match &self.member {
            None => true,
            Some(member) => match &member.peer.role {
                Role::Learning { learner, .. } => {
                    member.forwards.has_room() && learner.output.len() < limits::FORWARDED_BYTES
                }
                _ => true,
            },
        };
        may_forward && self.has_room()
    }

    /// Whether more may be asked, in this turn.
    fn has_room(&self) -> bool {
        self.closings.is_empty() && self.line_has_room() && !self.prepare.has_done_enough()
    }

    fn line_has_room(&self) -> bool {
        self.pending.len() < limits::PROPOSALS_OUTSTANDING_MAX
            && self.pending_bytes < limits::PROPOSALS_OUTSTANDING_BYTES
    }

    fn next_deadline(&self) -> Option<Now> {
        let sessions = (!self.sessions.is_empty()).then_some(self.next_session_check);
        let tree = self.tree.peek();
        let reapable = tree.containers().next().is_some() || tree.ttl_nodes().next().is_some();
        let containers = reapable.then_some(self.next_container_check);
        let member = self.member.as_ref().and_then(|member| member.deadline());
        let (sessions, containers) = if self.leads() { (sessions, containers) } else { (None, None) };
        [sessions, containers, self.settle_at, member].into_iter().flatten().min()
    }

    fn turn(&mut self) -> Result<(), Fatal> {
        let now = clock::now();
        self.ensemble_turn(now)?;
        self.commit(now)?;
        self.go_on_closing();
        // Learners have had theirs; what this server's clients ask comes on top of it.
        self.prepare.begin_turn();
        self.take_requests(now);
        self.prepare.begin_turn();
        if self.leads() {
            self.expire_sessions(now);
            self.reap(now);
        }
        self.post(now);
        self.commit(now)?;
        // What has just been applied may be what this server's clients waited for.
        self.serve_if_ready(now);
        self.snapshot_for_start();
        self.send_to_peers(now);
        self.answer_reports();
        Ok(())
    }

    /// Whether this server makes the transactions.
    fn leads(&self) -> bool {
        self.member.as_ref().is_none_or(|member| member.leads())
    }

    /// `None`: this server does not lead, or not any more.
    fn next_zxid(&mut self) -> Option<Zxid> {
        let Some(member) = &mut self.member else { return Some(self.next_zxid_alone()) };
        let Role::Leading(leader) = &mut member.peer.role else { return None };
        let next = leader.next_zxid();
        if next.is_none() {
            leader.step_down("the epoch's counter is nearly used up; a new epoch begins");
        }
        next
    }

    fn next_zxid_alone(&self) -> Zxid {
        let last = self.leading.proposed();
        match last.next() {
            Some(next) if last.counter() < u32::MAX - limits::EPOCH_COUNTER_MARGIN => next,
            // The counter must not wrap. Alone, a new epoch needs nobody's consent.
            _ => Zxid::new(Epoch(last.epoch().0 + 1), 1),
        }
    }

    fn take_requests(&mut self, now: Now) {
        let time_ms = clock::wall_ms();
        self.first_core = (self.first_core + 1) % self.shared.cores.len();
        let cores = self.shared.cores.len();
        for core in 0..cores {
            let heard = self.shared.cores[core].queue.take_heard();
            match self.leads() {
                _ if heard.is_empty() => {}
                true => self.sessions.touch(&heard, now),
                false => self.note_touched(&heard),
            }
        }
        for at in 0..cores {
            // When there is not room for all, each is the first in its turn.
            let core = (self.first_core + at) % cores;
            let mut batches = std::mem::take(&mut self.batches[core]);
            self.shared.cores[core].queue.take(&mut batches);
            while self.may_take_requests()
                && let Some(mut batch) = batches.pop_front()
            {
                if !self.work_off(&mut batch, now, time_ms) {
                    batches.push_front(batch);
                    break;
                }
                let queue = &self.shared.cores[core].queue;
                queue.recycle(batch);
                if queue.core_waits.swap(false, Ordering::SeqCst) {
                    self.shared.cores[core].bell.ring();
                }
            }
            self.batches[core] = batches;
        }
    }

    /// As long as there is room: what a record becomes may be much larger than it is. Returns whether it is done with all.
    fn work_off(&mut self, batch: &mut Batch, now: Now, time_ms: i64) -> bool {
        let mut items = std::mem::take(&mut batch.items);
        let is_stale = self.is_stale(batch.term);
        while self.may_take_requests()
            && let Some(item) = items.pop_front()
        {
            match item {
                Item::Write { .. } | Item::Sync { .. } | Item::StillHere { .. } if is_stale => {}
                item => self.item(item, batch, now, time_ms),
            }
        }
        batch.items = items;
        batch.items.is_empty()
    }

    fn item(&mut self, item: Item, batch: &Batch, now: Now, time_ms: i64) {
        match item {
            Item::Write { conn, session, xid, op, body, auth, received } => {
                let reply = ReplyTo { conn, op, xid, received, after_sync: 0 };
                let body = batch.record(&body);
                if self.has_to_wait(session, batch.term) {
                    self.keep_request(session, reply, body.to_vec(), auth);
                } else {
                    self.write(session, reply, body, &auth, time_ms);
                }
            }
            Item::Sync { conn, session, xid, body, received } => {
                let record = batch.record(&body).to_vec();
                let reply = ReplyTo { conn, op: OpCode::Sync, xid, received, after_sync: 0 };
                if self.has_to_wait(session, batch.term) {
                    self.keep_request(session, reply, record, AuthIds::default());
                } else {
                    self.sync(session, reply, record, now);
                }
            }
            Item::StillHere { conn, session } => self.ask_again(session, conn, now, time_ms),
            // One that was made in another time of serving goes by what was known then.
            Item::Connect { conn, .. } if !self.shared.is_serving() || batch.term != self.shared.serving_term() => {
                self.tell(conn, Entry::Close { conn });
            }
            Item::Connect { conn, session, password, timeout_ms, read_only, received } => {
                if session == SessionId::NONE && !self.leads() {
                    self.forward_open(conn, timeout_ms, read_only, received);
                } else if session == SessionId::NONE {
                    self.open_session(conn, timeout_ms, read_only, received, time_ms);
                } else {
                    let password = batch.record(&password).to_vec();
                    self.reconnect(Reconnect { conn, session, password, timeout_ms, read_only, old: ConnId::NONE });
                }
            }
            Item::Closed { conn, session } => self.connection_closed(conn, session),
        }
    }

    /// A client's write.
    fn write(&mut self, session: SessionId, reply: ReplyTo, body: &[u8], auth: &AuthIds, time_ms: i64) {
        let ReplyTo { conn, op, xid, .. } = reply;
        if !self.leads() {
            return self.forward_write(session, reply, body, auth);
        }
        if op == OpCode::CloseSession {
            return self.close_session(session, xid, time_ms, Some(reply));
        }
        let state = self.sessions.state(session);
        if state == SessionState::Unknown {
            // It ended between two frames; its connection is about to be closed, and nobody is answered.
            return;
        }
        let session_check = match &self.member {
            Some(_) => self.check_session(session, conn),
            None => state.into(),
        };
        let request = WriteRequest { session, session_check, xid, op, body, auth };
        let Some(zxid) = self.next_zxid() else { return };
        match self.prepare.write(self.tree.peek(), &request, zxid, time_ms) {
            Prepared::Txn { header, txn, digest } => {
                let bytes = self.propose(header, &txn, digest);
                let shape = Shape::of(op, &txn);
                let effect = Effect::Txn { header, txn, shape, digest: None };
                self.pending.push_back(Pending { zxid, effect, reply: Some(reply), bytes });
            }
            Prepared::Refused(code) => self.wait_in_line(Effect::Refused(code), Some(reply)),
        }
    }

    /// Numbers a transaction and sends it on its way to the log and to all peers. Returns the bytes of its record.
    fn propose(&mut self, header: TxnHeader, txn: &Txn, digest: Option<TxnDigest>) -> usize {
        let written = match &mut self.member {
            None => {
                self.leading.step(Input::Proposed { zxid: header.zxid }, &mut self.outputs);
                let before = self.batch.body_bytes();
                self.batch.push_with(header.zxid, |bytes| write_txn(&header, txn, digest, bytes));
                self.batch.body_bytes() - before
            }
            Some(member) => {
                self.scratch.clear();
                write_txn(&header, txn, digest, &mut self.scratch);
                self.batch.push(header.zxid, &self.scratch);
                member.peer.history.push(header.zxid, &self.scratch);
                let Role::Leading(leader) = &mut member.peer.role else {
                    unreachable!("only a leader makes transactions")
                };
                leader.propose(header.zxid, &self.scratch);
                member.proposal_sizes.observe(self.scratch.len() as u64);
                self.recorder.count(Counter::ProposalCount, 1);
                self.scratch.len()
            }
        };
        self.count_towards_snapshot(1, written as u64);
        self.pending_bytes += written;
        written
    }

    /// Gives something without a transaction its place in the order: behind all that has been proposed.
    fn wait_in_line(&mut self, effect: Effect, reply: Option<ReplyTo>) {
        let zxid = self.end_of_line();
        let waiting = Pending::waiting(zxid, effect, reply);
        self.pending_bytes += waiting.bytes;
        self.pending.push_back(waiting);
    }

    fn sync(&mut self, session: SessionId, reply: ReplyTo, record: Vec<u8>, now: Now) {
        if !self.leads() {
            return self.forward_sync(session, reply, record);
        }
        let mut confirmed = true;
        if let Some(member) = &mut self.member
            && let Role::Leading(leader) = &mut member.peer.role
        {
            leader.sync_asked(None, now);
            confirmed = false;
        }
        self.wait_in_line(Effect::Sync { record, confirmed }, Some(reply));
    }

    /// The server stops: others find out at once, and go on without it.
    fn take_leave(&mut self) {
        let now = clock::now();
        // Before its learners notice that they have lost it, they must not reach it to wait for its vote.
        if let Some(member) = &mut self.member {
            member.elections.close_all();
        }
        self.leave_role("this server is stopping", now);
    }

    fn close_session(&mut self, session: SessionId, xid: i32, time_ms: i64, reply: Option<ReplyTo>) {
        // An expired one is closing already; a client that asks for what is under way anyway gets its reply with it.
        if !self.sessions.set_closing(session) && self.sessions.state(session) == SessionState::Unknown {
            // A learner's client may know that it has a session before this server has applied it.
            match self.opening.get_mut(&session) {
                Some(opened) => opened.closing = true,
                // Its connection is about to be closed.
                None if reply.is_some() => return,
                // The learner waits for a transaction with this number, and nothing else answers it.
                None => {}
            }
        }
        self.closings.push_back(SessionToClose { session, xid, time_ms, reply, goes_on: false });
        self.go_on_closing();
    }

    fn post(&mut self, now: Now) {
        if self.batch.is_empty() {
            if self.settle_at.take_if(|at| *at <= now).is_some() {
                self.log_writer.mailbox.settle();
            }
            return;
        }
        self.settle_at = Some(now.plus_ms(SETTLE_MS));
        if self.member.is_some() {
            // The disks of all work at the same time.
            self.send_to_peers(now);
            if self.batch.is_empty() {
                // The connection to the leader has just ended; what was left to be written has been handed over.
                return;
            }
        }
        if !self.log_writer.mailbox.is_quick() {
            return self.log_writer.mailbox.post(&mut self.batch);
        }
        match self.log_writer.write_inline(&mut self.batch) {
            Ok(true) => {}
            Ok(false) => self.log_writer.mailbox.post(&mut self.batch),
            Err(fatal) => {
                self.shared.fail_because(fatal);
                self.batch.clear();
            }
        }
    }

    fn commit(&mut self, now: Now) -> Result<(), Fatal> {
        let up_to = self.log_writer.mailbox.durable();
        if let Some(member) = &mut self.member {
            member.peer.durable(up_to);
        } else if up_to > self.leading.committed() {
            self.leading.step(Input::Durable { by: self.settings.server_id, up_to }, &mut self.outputs);
        }
        // What `Leading` says is its `committed`; nothing else comes out of it yet.
        self.outputs.clear();
        self.do_outputs(now)?;
        self.apply_committed();
        Ok(())
    }

    fn can_apply(&self) -> bool {
        let applicable = self.applicable();
        self.pending.front().is_some_and(|pending| pending.zxid <= applicable) && !self.waits_for_sync()
    }

    /// Up to where the line may move: committed, and durable here.
    fn applicable(&self) -> Zxid {
        match &self.member {
            Some(member) => member.applicable(),
            None => self.leading.committed(),
        }
    }

    fn feeds_have_room(&self) -> bool {
        self.shared.cores.iter().all(|core| core.feed.has_room())
    }

    fn answer_reports(&mut self) {
        let reports = std::mem::take(&mut *self.shared.pipeline_reports.lock());
        let now = clock::now();
        for gather in reports {
            let (mode, quorum_size) = match &mut self.member {
                Some(member) => member.standing(now, gather.wants().reset_proposals),
                None => (Mode::Standalone, 0),
            };
            gather.pipeline(&self.sessions, self.tree.peek(), mode, quorum_size);
        }
    }
}
