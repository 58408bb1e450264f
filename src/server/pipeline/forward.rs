//! Requests between servers. On a learner: a client's write goes to the leader, and comes back as a transaction with the
//! same session and cxid; that is its answer (`session::owed`; what becomes of it when the leader is lost, `kept`). On the
//! leader: a learner's request is prepared like one of its own clients', but nobody here waits for it.
//!
//! A session belongs to one connection of one server; on the leader a learner's link stands for whatever connection it is
//! there. A request from elsewhere is refused (`SessionMoved`), and becomes an error transaction.
//!
//! Runs on: the pipeline's thread.

use super::connect::Reconnect;
use super::kept::tells_of_its_client;
use super::syncs::{Asked, Syncs};
use super::{Effect, Opened, Pending, Pipeline, ReplyTo};
use crate::auth::{AuthId, AuthIds};
use crate::clock::Now;
use crate::ids::{SessionId, Zxid};
use crate::limits;
use crate::metrics::Counter;
use crate::prepare::reply::Shape;
use crate::prepare::{Prepare, Prepared, SessionCheck, WriteRequest};
use crate::random::FastMap;
use crate::server::feed::Entry;
use crate::server::queue::ConnId;
use crate::session;
use crate::session::owed::Owed;
use crate::wire::quorum::{Request, SessionTimeout, SessionValid};
use crate::wire::txn::{Txn, TxnDigest, TxnHeader};
use crate::wire::writer::Jute;
use crate::wire::{ErrorCode, OpCode, Reader};
use crate::zab::Role;
use crate::zab::leader::Link;
use std::collections::VecDeque;

/// A request that was forwarded, or one that was refused here and has to wait for those before it.
pub(super) struct Forwarded {
    pub reply: ReplyTo,
    pub refused: Option<ErrorCode>,
    /// Syncs of the same session before it, by number: it is answered after them.
    after_sync: u64,
    /// As the client sent it: another leader may have to be asked.
    pub body: Vec<u8>,
    pub auth: AuthIds,
}

impl Forwarded {
    /// Room that one takes beside its record.
    const FIXED_BYTES: usize = 128;

    /// One that waits for a leader, behind every sync that was asked of the last one.
    pub fn kept(reply: ReplyTo, body: Vec<u8>, auth: AuthIds) -> Forwarded {
        Forwarded { reply, refused: None, after_sync: u64::MAX, body, auth }
    }
}

/// A client that has been promised a new session.
struct Opening {
    conn: ConnId,
    read_only: Option<bool>,
    received: Now,
}

/// What a learner has asked its leader, and waits for.
#[derive(Default)]
pub struct Forwards {
    pub(super) owed: Owed<Forwarded>,
    opening: FastMap<SessionId, Opening>,
    /// In the order of their questions.
    reconnects: FastMap<SessionId, VecDeque<Reconnect>>,
    syncs: Syncs,
    pub syncs_answered: u64,
    /// Sessions with something in the line that waits for a sync of theirs.
    wait_for_syncs: FastMap<SessionId, ()>,
    /// Sessions heard from since the leader last asked, and their timeouts.
    pub touched: FastMap<SessionId, i32>,
    /// Those that did not fit into the last answer, in their order.
    untold: Vec<(SessionId, i32)>,
    /// Requests behind which the last transaction of the leader's has answered another of the same session.
    pub(super) passed_over: Vec<Forwarded>,
}

impl Forwards {
    /// The leader is gone, and the clients too.
    pub fn clear(&mut self) {
        *self = Forwards::default();
    }

    /// The leader is gone, and the clients stay: what it was asked waits for the next one. Syncs do so in their places among
    /// the writes; those that waited for a session have no connection that is kept.
    pub(super) fn hold(&mut self) {
        let mut owed = std::mem::take(&mut self.owed);
        owed.leader_lost();
        for Asked { number, session, reply, record } in self.syncs.drain() {
            let sync = Forwarded { after_sync: number, ..Forwarded::kept(reply, record, AuthIds::default()) };
            owed.keep_between(session, sync, |other| other.after_sync >= number);
        }
        // The next leader's syncs have other numbers, and those of this one have their places before what waits for them.
        for forwarded in owed.each() {
            forwarded.reply.after_sync = 0;
            if forwarded.after_sync != u64::MAX {
                forwarded.after_sync = 0;
            }
        }
        *self = Forwards { owed, ..Forwards::default() };
    }

    /// Syncs of that connection's up to this number, which the leader has not answered.
    pub(super) fn take_syncs(&mut self, conn: ConnId, up_to: u64) -> Vec<(ReplyTo, Vec<u8>)> {
        self.syncs.take(conn, up_to).into_iter().map(|sync| (sync.reply, sync.record)).collect()
    }

    /// Whether more may be asked. What waits for a leader does not count: it is as much as there was when the last one was
    /// lost, and what cores had read by then (`CORE_TO_PIPELINE_*`).
    pub fn has_room(&self) -> bool {
        let (requests, bytes) = self.owed.asked();
        requests + self.opening.len() + self.syncs.len() < limits::FORWARDED_MAX
            && bytes + self.syncs.bytes() < limits::FORWARDED_BYTES
    }

    /// Sessions heard from, at most so many. Those that are left are the first the next time: the leader would take a second
    /// answer for that of the next ping.
    pub(super) fn take_touched(&mut self, at_most: usize) -> Vec<(SessionId, i32)> {
        let mut told = std::mem::take(&mut self.untold);
        for (session, _) in &told {
            self.touched.remove(session);
        }
        told.extend(self.touched.drain());
        self.untold = told.split_off(at_most.min(told.len()));
        told
    }

    /// A connection has closed.
    pub(super) fn forget(&mut self, session: SessionId, conn: ConnId) {
        self.owed.forget(session, |forwarded| forwarded.reply.conn == conn);
    }

    /// The session is on this connection now.
    pub(super) fn forget_others(&mut self, session: SessionId, conn: ConnId) {
        self.owed.forget(session, |forwarded| forwarded.reply.conn != conn);
    }

    /// What a transaction of the leader's is to clients here: what will be done, and whom it answers.
    pub(super) fn claim(
        &mut self,
        header: TxnHeader,
        txn: Txn,
        digest: Option<TxnDigest>,
    ) -> (Effect, Option<ReplyTo>) {
        if let Txn::CreateSession { timeout_ms } = txn
            && let Some(Opening { conn, read_only, received }) = self.opening.remove(&header.session)
        {
            return (Effect::Open { header, timeout_ms, conn, read_only, received }, None);
        }
        let tells = tells_of_its_client(&txn);
        let answered = self.owed.claim(header.session, header.cxid, tells, &mut self.passed_over);
        match answered {
            Some(Forwarded { reply, .. }) => {
                if reply.after_sync > self.syncs_answered {
                    self.wait_for_syncs.insert(header.session, ());
                }
                let shape = Shape::of(reply.op, &txn);
                (Effect::Txn { header, txn, shape, digest }, Some(reply))
            }
            None => (Effect::Txn { header, shape: Shape::Single(txn.op()), txn, digest }, None),
        }
    }
}

/// What the line waits for where clients have asked to sync: a sync for its quorum, and on a learner whatever its session
/// sent after it.
pub(super) struct SyncGate {
    confirmed: usize,
    answered: u64,
}

impl SyncGate {
    pub fn is_shut(&self, first: &Pending) -> bool {
        match first {
            Pending { effect: Effect::Sync { confirmed: false, .. }, .. } => self.confirmed == 0,
            Pending { reply: Some(to), .. } => to.after_sync > self.answered,
            _ => false,
        }
    }

    /// A sync that had to be confirmed has been told.
    pub fn pass(&mut self) {
        self.confirmed -= 1;
    }
}

impl Pipeline {
    /// A client's write, on a learner.
    pub(super) fn forward_write(&mut self, session: SessionId, reply: ReplyTo, body: &[u8], auth: &AuthIds) {
        let refused = match reply.op {
            OpCode::CloseSession => None,
            op => Prepare::refusal(op, body),
        };
        let Some(member) = &mut self.member else { return };
        let Role::Learning { learner, .. } = &mut member.peer.role else { return };
        let forwards = &mut member.forwards;
        let last_sync = forwards.syncs.last_of(session);
        let reply = ReplyTo { after_sync: last_sync, ..reply };
        let forwarded = Forwarded { reply, refused, after_sync: last_sync, body: body.to_vec(), auth: auth.clone() };
        let bytes = Forwarded::FIXED_BYTES + body.len();
        if refused.is_some() {
            forwards.owed.settle(session, bytes, forwarded);
            return self.release_refused(session);
        }
        forwards.owed.ask(session, reply.xid, bytes, forwarded);
        let ids = auth.iter().map(|AuthId { scheme, id }| (scheme.clone(), id.clone())).collect();
        let request = Request { session, cxid: reply.xid, op: reply.op.to_wire(), record: body };
        learner.forward(&request, Some(ids));
    }

    /// What was refused here is answered when nothing of its session is before it, syncs included: in the line, it would keep
    /// the place of the sync that it waits for, before what is committed meanwhile.
    pub(super) fn release_refused(&mut self, session: SessionId) {
        while let Some(member) = &mut self.member
            && let Forwards { owed, syncs_answered, .. } = &mut member.forwards
            && let Some(Forwarded { reply, refused, .. }) =
                owed.next_settled(session, |settled| settled.after_sync <= *syncs_answered)
        {
            let code = refused.expect("only what is refused is settled");
            self.wait_in_line(Effect::Refused(code), Some(reply));
        }
    }

    /// A client's sync, on a learner.
    pub(super) fn forward_sync(&mut self, session: SessionId, reply: ReplyTo, record: Vec<u8>) {
        let Some(member) = &mut self.member else { return };
        let Role::Learning { learner, .. } = &mut member.peer.role else { return };
        let request = Request { session, cxid: reply.xid, op: OpCode::Sync.to_wire(), record: &record };
        learner.forward(&request, None);
        member.forwards.syncs.push(session, reply, record);
    }

    /// The leader has answered the oldest sync: everything committed before it has been said to be.
    pub(super) fn sync_done(&mut self) {
        let Some(member) = &mut self.member else { return };
        let forwards = &mut member.forwards;
        let Some(Asked { number, session, reply, record }) = forwards.syncs.pop() else { return };
        forwards.syncs_answered = number;
        // Writes of the same client that came after it may have been committed already; they wait for it. Those of others wait
        // for a later one, and say nothing of where this one belongs.
        let waits =
            |pending: &Pending| pending.reply.is_some_and(|to| to.conn == reply.conn && to.after_sync >= number);
        let behind = match forwards.wait_for_syncs.contains_key(&session) {
            true => self.pending.iter().position(waits),
            false => None,
        };
        if forwards.syncs.last_of(session) == 0 {
            forwards.wait_for_syncs.remove(&session);
        }
        let at = behind.unwrap_or(self.pending.len());
        let zxid = match behind {
            Some(at) => self.pending[at].zxid.min(member.committed),
            None => member.committed,
        };
        let confirmed = Pending::waiting(zxid, Effect::Sync { record, confirmed: true }, Some(reply));
        self.pending_bytes += confirmed.bytes;
        self.pending.insert(at, confirmed);
        self.release_refused(session);
    }

    /// A new client, on a learner.
    pub(super) fn forward_open(&mut self, conn: ConnId, timeout_ms: i32, read_only: Option<bool>, received: Now) {
        let session = self.ids.next(&self.sessions);
        let Some(member) = &mut self.member else { return };
        let Role::Learning { learner, .. } = &mut member.peer.role else { return };
        let mut record = Vec::with_capacity(4);
        record.put_int(timeout_ms);
        let request = Request { session, cxid: 0, op: OpCode::CreateSession.to_wire(), record: &record };
        learner.forward(&request, None);
        member.forwards.opening.insert(session, Opening { conn, read_only, received });
    }

    /// A client that wants its session back, on a learner: its old connection here is shut.
    pub(super) fn forward_revalidate(&mut self, reconnect: Reconnect) {
        let Some(member) = &mut self.member else { return };
        let Role::Learning { learner, .. } = &mut member.peer.role else { return };
        if !session::password_is(reconnect.session, Some(&reconnect.password)) {
            return self.refuse(&reconnect);
        }
        learner.revalidate(SessionTimeout { session: reconnect.session, timeout_ms: reconnect.timeout_ms });
        member.forwards.reconnects.entry(reconnect.session).or_default().push_back(reconnect);
    }

    /// The leader's word on it.
    pub(super) fn revalidated(&mut self, answer: SessionValid) {
        let Some(member) = &mut self.member else { return };
        let Some(waiting) = member.forwards.reconnects.get_mut(&answer.session) else { return };
        let Some(reconnect) = waiting.pop_front() else { return };
        if waiting.is_empty() {
            member.forwards.reconnects.remove(&answer.session);
        }
        if answer.valid {
            self.wait_in_line(Effect::Attach(reconnect), None);
        } else {
            self.refuse(&reconnect);
        }
    }

    /// Sessions heard from, on a learner: the leader is told with the answer to its next ping.
    pub(super) fn note_touched(&mut self, sessions: &[SessionId]) {
        let Some(member) = &mut self.member else { return };
        for &session in sessions {
            if let Some(timeout_ms) = self.sessions.negotiated_ms(session) {
                member.forwards.touched.insert(session, timeout_ms);
            }
        }
    }

    /// A request of a learner's client, on the leader.
    pub(super) fn forwarded_request(
        &mut self,
        link: Link,
        request: &Request<'_>,
        auth: Vec<(String, String)>,
        now: Now,
        time_ms: i64,
    ) {
        if !self.member.as_ref().is_some_and(|member| member.leads()) {
            return;
        }
        let Request { session, cxid, op, record } = *request;
        let op_code = OpCode::from_wire(op);
        match op_code {
            Some(OpCode::Sync) => {
                if let Some(member) = &mut self.member
                    && let Role::Leading(leader) = &mut member.peer.role
                {
                    leader.sync_asked(Some(link), now);
                }
            }
            Some(OpCode::CreateSession) => {
                let Ok(timeout_ms) = Reader::new(record).int("timeOut") else { return };
                if session == SessionId::NONE {
                    return;
                }
                let Some(zxid) = self.next_zxid() else { return };
                let prepared = self.prepare.create_session(self.tree.peek(), session, timeout_ms, zxid, time_ms);
                let owner = ConnId::of_link(link.0);
                self.opening.entry(session).or_insert(Opened { owner, closing: false });
                self.propose_for_nobody(prepared);
            }
            Some(OpCode::CloseSession) => self.close_session(session, cxid, time_ms, None),
            Some(op) if op.is_write() => {
                let session_check = self.check_session(session, ConnId::of_link(link.0));
                let list = auth.into_iter().map(|(scheme, id)| AuthId { scheme, id }).collect();
                let auth = AuthIds::from_list(list);
                let request = WriteRequest { session, session_check, xid: cxid, op, body: record, auth: &auth };
                let Some(zxid) = self.next_zxid() else { return };
                let prepared = match self.prepare.write(self.tree.peek(), &request, zxid, time_ms) {
                    // A zxid of its own, unlike upstream, whose log then has one twice.
                    Prepared::Refused(code) => {
                        self.prepare.failed(self.tree.peek(), session, cxid, code, zxid, time_ms)
                    }
                    prepared => prepared,
                };
                self.propose_for_nobody(prepared);
            }
            _ => {
                let Some(zxid) = self.next_zxid() else { return };
                let code = ErrorCode::UNIMPLEMENTED;
                let prepared = self.prepare.failed(self.tree.peek(), session, cxid, code, zxid, time_ms);
                self.propose_for_nobody(prepared);
            }
        }
    }

    fn propose_for_nobody(&mut self, prepared: Prepared) {
        let Prepared::Txn { header, txn, digest } = prepared else { return };
        let bytes = self.propose(header, &txn, digest);
        let effect = Effect::Txn { header, shape: Shape::Single(txn.op()), txn, digest: None };
        self.pending.push_back(Pending { zxid: header.zxid, effect, reply: None, bytes });
    }

    /// Whether a session may write from there. The first to use it after a change of leader has it.
    pub(super) fn check_session(&mut self, session: SessionId, from: ConnId) -> SessionCheck {
        let state = self.sessions.state(session);
        if state == crate::session::SessionState::Unknown {
            // Its createSession may be on its way here, and have arrived there.
            match self.opening.get(&session) {
                Some(Opened { closing: true, .. }) => return SessionCheck::Closing,
                Some(Opened { owner, .. }) if *owner != from => return SessionCheck::Moved,
                Some(_) => return SessionCheck::Live,
                None => {}
            }
        }
        if state == crate::session::SessionState::Live {
            let unclaimed = self.member.as_mut().is_some_and(|member| member.unclaimed.remove(&session));
            match self.sessions.owner(session).map(ConnId::from) {
                None => self.sessions.own(session, from.into()),
                Some(kept) if kept != from && unclaimed => {
                    // Its client uses another connection.
                    self.tell(kept, Entry::Close { conn: kept });
                    self.sessions.own(session, from.into());
                }
                Some(owner) if owner != from => return SessionCheck::Moved,
                Some(_) => {}
            }
        }
        state.into()
    }

    /// A learner asks for a client of its whether a session lives, on the leader: it has it from now on.
    pub(super) fn revalidate_for(&mut self, link: Link, asked: SessionTimeout, now: Now) {
        let SessionTimeout { session, timeout_ms } = asked;
        self.recorder.count(Counter::RevalidateCount, 1);
        let serving = self.member.as_ref().is_some_and(|member| member.leads());
        let owner = ConnId::of_link(link.0);
        if let Some(old) = self.local_owner(session) {
            self.tell(old, Entry::Close { conn: old });
        }
        if let Some(member) = &mut self.member {
            member.unclaimed.remove(&session);
        }
        let opens = |opened: &mut Opened| {
            opened.owner = owner;
            !opened.closing
        };
        let valid = serving
            && (self.sessions.reopen(session, timeout_ms, owner.into(), now)
                || self.opening.get_mut(&session).is_some_and(opens));
        if let Some(member) = &mut self.member
            && let Role::Leading(leader) = &mut member.peer.role
        {
            leader.revalidated(link, SessionValid { session, valid });
        }
    }

    /// Whether the first in line has to wait for a sync that a quorum has not answered.
    pub(super) fn waits_for_sync(&self) -> bool {
        self.pending.front().is_some_and(|first| self.sync_gate().is_shut(first))
    }

    pub(super) fn sync_gate(&self) -> SyncGate {
        match &self.member {
            None => SyncGate { confirmed: 0, answered: u64::MAX },
            Some(member) => SyncGate { confirmed: member.syncs_confirmed, answered: member.forwards.syncs_answered },
        }
    }

    /// What the gate has let through is used up.
    pub(super) fn note_sync_gate(&mut self, gate: &SyncGate) {
        if let Some(member) = &mut self.member {
            member.syncs_confirmed = gate.confirmed;
        }
    }

    /// Where the line ends.
    pub(super) fn end_of_line(&self) -> Zxid {
        match &self.member {
            Some(member) => member.end_of_line(),
            None => self.leading.proposed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_do_not_fit_one_answer_are_the_first_in_the_next() {
        let mut forwards = Forwards::default();
        let mut seen = Vec::new();
        for _ in 0..3 {
            // All of them are heard from again before each answer.
            forwards.touched.extend((1..=5).map(|session| (SessionId(session), 4_000)));
            let told = forwards.take_touched(2);
            assert_eq!(told.len(), 2);
            seen.extend(told.into_iter().map(|(session, _)| session.0));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [1, 2, 3, 4, 5]);
    }
}
