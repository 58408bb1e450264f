//! The clients of one simulated server: requests in, replies out, in the order of each session.
//!
//! Bytes are those of the client protocol; reads are answered by `read`, writes by `prepare` on the leader. A follower
//! sends writes on and answers them when their transaction is applied here; a read waits for the writes before it, a
//! write behind a waiting read waits for that.

use crate::broken::{Bug, is};
use crate::kept::{Ask, Asked};
use crate::server::{Action, Ctx, Opened, Report, Role, Server};
use ostler::auth::{AuthIds, AuthRules};
use ostler::clock::Now;
use ostler::ids::{SessionId, Zxid};
use ostler::prepare::reply::{Reply, Shape, write_reply};
use ostler::prepare::{Closing, Prepared, SessionCheck, WriteRequest};
use ostler::read::{self, Asker};
use ostler::session::{self, OwnerHandle, SessionState};
use ostler::tree::Applied;
use ostler::watch::{WatchFilter, WatchTable};
use ostler::wire::client::{ConnectRequest, ConnectResponse, ReplyHeader, RequestHeader};
use ostler::wire::quorum::{Request, SessionTimeout, SessionValid};
use ostler::wire::txn::{Txn, TxnHeader, write_txn};
use ostler::wire::{ErrorCode, OpCode, Reader};
use ostler::zab::leader::Link;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

struct Frame {
    xid: i32,
    op: OpCode,
    body: Vec<u8>,
}

/// What an answer waits for.
pub enum Wait {
    Txn,
    /// The leader's word.
    Sync,
    /// The tree.
    Apply(Zxid),
    Done(Vec<u8>),
}

pub struct Flight {
    pub xid: i32,
    op: OpCode,
    pub body: Vec<u8>,
    pub wait: Wait,
}

pub enum Stage {
    Hello,
    /// Its session is being made.
    Opening,
    /// The leader has been asked whether its session lives.
    Reviving,
    /// It does; the tree has to have what came before.
    Revived(Zxid),
    Live,
}

pub struct Client {
    rx: Vec<u8>,
    pub stage: Stage,
    pub session: SessionId,
    pub timeout_ms: i32,
    queue: VecDeque<Frame>,
    pub flights: VecDeque<Flight>,
    pub last_heard: Now,
    pub is_kept: bool,
    pub spoke_late: bool,
}

pub struct Clients {
    pub by_conn: BTreeMap<u32, Client>,
    pub by_session: BTreeMap<SessionId, u32>,
    /// Connections with a sync under way, in the order in which they were asked for, and what has to be applied first.
    pub syncs: VecDeque<(u32, Zxid)>,
    /// Heard from since the last ping.
    pub heard: BTreeSet<SessionId>,
    /// What a leader was asked for them.
    pub asked: Asked,
    watches: WatchTable,
    auth: AuthIds,
    rules: AuthRules,
}

impl Default for Clients {
    fn default() -> Clients {
        Clients {
            by_conn: BTreeMap::new(),
            by_session: BTreeMap::new(),
            syncs: VecDeque::new(),
            heard: BTreeSet::new(),
            asked: Asked::default(),
            watches: WatchTable::new(Arc::new(WatchFilter::new()), usize::MAX),
            auth: AuthIds::of_peer([127, 0, 0, 1].into()),
            rules: AuthRules::default(),
        }
    }
}

/// Who sent a write: a connection of this server, or a learner.
#[derive(Clone, Copy)]
pub enum Origin {
    Here(u32),
    Link(u32),
}

impl Origin {
    fn owner(self) -> OwnerHandle {
        match self {
            Origin::Here(conn) => OwnerHandle(u64::from(conn) << 1),
            Origin::Link(link) => OwnerHandle(u64::from(link) << 1 | 1),
        }
    }
}

impl Server {
    pub fn accepted_client(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        if !self.serving {
            return ctx.actions.push(Action::Close(conn));
        }
        let client = Client {
            rx: Vec::new(),
            stage: Stage::Hello,
            session: SessionId::NONE,
            timeout_ms: 0,
            queue: VecDeque::new(),
            flights: VecDeque::new(),
            last_heard: ctx.now,
            is_kept: false,
            spoke_late: false,
        };
        self.clients.by_conn.insert(conn, client);
    }

    pub fn client_closed(&mut self, conn: u32) {
        let Some(client) = self.clients.by_conn.remove(&conn) else { return };
        if !is(Bug::AsksForClientsThatLeft) {
            self.clients.asked.owed.forget(client.session, |ask| ask.conn == conn);
        }
        if self.clients.by_session.get(&client.session) == Some(&conn) {
            self.clients.by_session.remove(&client.session);
            // On a leader it stays the last that held it, or a request that is late from an earlier server would pass.
            if !self.is_leading() || is(Bug::ClosedConnectionsOwnNothing) {
                self.sessions.disown(client.session, Origin::Here(conn).owner());
            }
        }
    }

    pub fn close_client(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        self.client_closed(conn);
        ctx.actions.push(Action::Close(conn));
    }

    pub fn drop_clients(&mut self, ctx: &mut Ctx<'_>) {
        let conns: Vec<u32> = self.clients.by_conn.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.close_client(conn, ctx));
        self.clients.syncs.clear();
        self.clients.heard.clear();
        self.clients.asked = Asked::default();
    }

    pub fn client_bytes(&mut self, conn: u32, bytes: &[u8], ctx: &mut Ctx<'_>) {
        let Some(client) = self.clients.by_conn.get_mut(&conn) else { return };
        client.rx.extend_from_slice(bytes);
        if !client.hear(ctx.now) && !is(Bug::AsksForClientsThatLeft) {
            return self.close_client(conn, ctx);
        }
        loop {
            let Some(client) = self.clients.by_conn.get_mut(&conn) else { return };
            let Some(frame) = take_frame(&mut client.rx) else { break };
            if matches!(client.stage, Stage::Hello) {
                self.hello(conn, &frame, ctx);
                continue;
            }
            let mut reader = Reader::new(&frame);
            let header = RequestHeader::read(&mut reader).expect("a client sends a header");
            let op = OpCode::from_wire(header.op).expect("a client sends what there is");
            let session = client.session;
            let body = reader.rest().to_vec();
            if op == OpCode::Ping && !self.serving {
                // Nobody is told anything now; it waits with the rest.
            } else if op == OpCode::Ping {
                let mut out = Vec::new();
                let zxid = self.tree.zxid().to_wire();
                ReplyHeader { xid: header.xid, zxid, err: ErrorCode::OK }.write_frame(&mut out);
                ctx.actions.push(Action::Send(conn, out));
            } else {
                client.queue.push_back(Frame { xid: header.xid, op, body });
            }
            self.heard_from(session, ctx);
        }
    }

    fn heard_from(&mut self, session: SessionId, ctx: &mut Ctx<'_>) {
        if self.is_leading() {
            self.sessions.touch(&[session], ctx.now);
            self.contacts.heard(&[session], ctx.now);
        } else {
            self.clients.heard.insert(session);
        }
    }

    fn hello(&mut self, conn: u32, frame: &[u8], ctx: &mut Ctx<'_>) {
        let request = ConnectRequest::read(frame).expect("a client's first frame");
        if Zxid::from_wire(request.last_zxid_seen) > self.tree.zxid() && !is(Bug::ServesClientsThatHaveSeenMore) {
            return self.close_client(conn, ctx);
        }
        let timeout_ms = request.timeout_ms;
        let right = session::password_is(request.session, request.password);
        let client = self.clients.by_conn.get_mut(&conn).expect("it has just sent something");
        client.timeout_ms = timeout_ms;
        if request.session == SessionId::NONE {
            let session = self.ids.next(&self.sessions);
            (client.session, client.stage) = (session, Stage::Opening);
            self.clients.by_session.insert(session, conn);
            let record = timeout_ms.to_be_bytes();
            self.write(Origin::Here(conn), session, 0, OpCode::CreateSession, &record, ctx);
            return;
        }
        if !right {
            return self.refuse(conn, ctx);
        }
        client.session = request.session;
        // One connection a session.
        if let Some(old) = self.clients.by_session.insert(request.session, conn)
            && old != conn
        {
            self.close_client(old, ctx);
            self.clients.by_session.insert(request.session, conn);
        }
        let session = request.session;
        match &mut self.role {
            Role::Leading(leader) => {
                let after = leader.proposed();
                if self.reopen(session, timeout_ms, Origin::Here(conn), ctx) {
                    self.stage(conn, Stage::Revived(after));
                } else {
                    self.refuse(conn, ctx);
                }
            }
            Role::Learning { learner, .. } => {
                learner.revalidate(SessionTimeout { session, timeout_ms });
                self.stage(conn, Stage::Reviving);
            }
            Role::Looking => self.close_client(conn, ctx),
        }
    }

    fn stage(&mut self, conn: u32, stage: Stage) {
        if let Some(client) = self.clients.by_conn.get_mut(&conn) {
            client.stage = stage;
        }
    }

    fn refuse(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        if is(Bug::NewSessionForAnOldOne) {
            let session = self.ids.next(&self.sessions);
            let Some(client) = self.clients.by_conn.get_mut(&conn) else { return };
            (client.session, client.stage) = (session, Stage::Opening);
            let record = client.timeout_ms.to_be_bytes();
            self.clients.by_session.insert(session, conn);
            return self.write(Origin::Here(conn), session, 0, OpCode::CreateSession, &record, ctx);
        }
        let mut out = Vec::new();
        ConnectResponse::refused(Some(false)).write(&mut out);
        ctx.actions.push(Action::Send(conn, out));
        self.close_client(conn, ctx);
    }

    fn welcome(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        let Some(client) = self.clients.by_conn.get_mut(&conn) else { return };
        client.stage = Stage::Live;
        client.last_heard = ctx.now;
        let session = client.session;
        self.clients.asked.owed.forget(session, |ask| ask.conn != conn);
        let client = &self.clients.by_conn[&conn];
        let password = session::password(session);
        let mut out = Vec::new();
        ConnectResponse { timeout_ms: client.timeout_ms, session, password, read_only: Some(false) }.write(&mut out);
        ctx.actions.push(Action::Send(conn, out));
        self.heard_from(session, ctx);
    }

    pub fn session_is_valid(&mut self, valid: SessionValid, ctx: &mut Ctx<'_>) {
        let Some(&conn) = self.clients.by_session.get(&valid.session) else { return };
        let reviving = matches!(self.clients.by_conn.get(&conn), Some(Client { stage: Stage::Reviving, .. }));
        match (reviving, valid.valid) {
            (false, _) => {}
            (true, true) => {
                let hurries = is(Bug::ServesClientsThatHaveSeenMore);
                let after = if hurries { Zxid::ZERO } else { self.history.last() };
                self.stage(conn, Stage::Revived(after));
            }
            (true, false) => self.refuse(conn, ctx),
        }
    }

    /// Takes up what clients wait for.
    pub fn serve(&mut self, ctx: &mut Ctx<'_>) {
        if !self.serving {
            return;
        }
        let conns: Vec<u32> = self.clients.by_conn.keys().copied().collect();
        for conn in conns {
            if let Some(Client { stage: Stage::Revived(after), .. }) = self.clients.by_conn.get(&conn)
                && *after <= self.tree.zxid()
            {
                self.welcome(conn, ctx);
            }
            self.serve_one(conn, ctx);
        }
    }

    fn serve_one(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        loop {
            self.answer_done(conn, ctx);
            let Some(client) = self.clients.by_conn.get_mut(&conn) else { return };
            if !matches!(client.stage, Stage::Live) {
                return;
            }
            let Some(frame) = client.queue.front() else { return };
            let session = client.session;
            if read::is_read(frame.op) {
                if !client.flights.is_empty() && !is(Bug::ReadsPassWrites) {
                    return;
                }
                let Frame { xid, op, body } = client.queue.pop_front().expect("just looked");
                let mut out = Vec::new();
                let Clients { watches, auth, rules, .. } = &mut self.clients;
                let asker = Asker::new(conn, session, auth, rules);
                read::answer(op, xid, &body, &self.tree, watches, &asker, &mut out);
                ctx.actions.push(Action::Send(conn, out));
                continue;
            }
            // Or its answer could be overtaken by what the sync waits for, and the zxid that the client sees would fall.
            let behind_sync = client.flights.iter().any(|flight| flight.op == OpCode::Sync);
            if behind_sync && !is(Bug::SyncsOvertaken) {
                return;
            }
            let Frame { xid, op, body } = client.queue.pop_front().expect("just looked");
            let wait = if op == OpCode::Sync { Wait::Sync } else { Wait::Txn };
            client.flights.push_back(Flight { xid, op, body: body.clone(), wait });
            if op == OpCode::Sync {
                self.sync(conn, session, xid, &body, ctx);
            } else {
                self.write(Origin::Here(conn), session, xid, op, &body, ctx);
            }
        }
    }

    pub fn sync(&mut self, conn: u32, session: SessionId, xid: i32, record: &[u8], ctx: &mut Ctx<'_>) {
        self.clients.syncs.push_back((conn, Zxid(u64::MAX)));
        match &mut self.role {
            Role::Leading(leader) => {
                if is(Bug::SyncWithoutQuorum) {
                    return self.sync_is_done();
                }
                leader.sync_asked(None, ctx.now);
            }
            Role::Learning { learner, .. } => {
                let request = Request { session, cxid: xid, op: OpCode::Sync.to_wire(), record };
                learner.forward(&request, None);
            }
            Role::Looking => {}
        }
    }

    /// The oldest sync is answered, when everything before it has been applied.
    pub fn sync_is_done(&mut self) {
        let after = match &self.role {
            Role::Leading(leader) => leader.committed(),
            _ => self.committed,
        };
        let waiting = self.clients.syncs.iter_mut().find(|(_, after)| *after == Zxid(u64::MAX));
        let Some((conn, at)) = waiting else { return };
        *at = after;
        let conn = *conn;
        self.clients.syncs.retain(|(_, after)| *after == Zxid(u64::MAX));
        if let Some(client) = self.clients.by_conn.get_mut(&conn)
            && let Some(flight) = client.flights.iter_mut().find(|flight| matches!(flight.wait, Wait::Sync))
        {
            flight.wait = Wait::Apply(after);
        }
    }

    /// Sends the answers that are due, in order.
    fn answer_done(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        loop {
            let zxid = self.tree.zxid();
            let Some(client) = self.clients.by_conn.get_mut(&conn) else { return };
            let Some(flight) = client.flights.front() else { return };
            let closes = flight.op == OpCode::CloseSession;
            let out = match &flight.wait {
                Wait::Done(out) => out.clone(),
                Wait::Apply(after) if *after <= zxid => {
                    let mut out = Vec::new();
                    // A sync's path comes back.
                    let frame = ostler::wire::writer::Frame::reply(&mut out, flight.xid, zxid);
                    frame.bytes.extend_from_slice(&flight.body);
                    frame.close();
                    out
                }
                _ => return,
            };
            client.flights.pop_front();
            ctx.actions.push(Action::Send(conn, out));
            if closes {
                self.close_client(conn, ctx);
            }
        }
    }

    /// A write, of a client here or forwarded by a learner.
    pub fn write(&mut self, from: Origin, session: SessionId, xid: i32, op: OpCode, body: &[u8], ctx: &mut Ctx<'_>) {
        match &mut self.role {
            Role::Learning { learner, .. } => {
                learner.forward(&Request { session, cxid: xid, op: op.to_wire(), record: body }, None);
                if let Origin::Here(conn) = from
                    && op != OpCode::CreateSession
                {
                    let ask = Ask { conn, session, xid, op, body: body.to_vec() };
                    self.clients.asked.owed.ask(session, xid, body.len(), ask);
                }
            }
            Role::Leading(leader) if leader.is_established() => match op {
                OpCode::CreateSession => {
                    let timeout_ms = i32::from_be_bytes(body.try_into().expect("four bytes"));
                    let Some(zxid) = self.next_zxid(ctx) else { return };
                    self.opening.insert(session, Opened { owner: from.owner(), closing: false });
                    let prepared = self.prepare.create_session(&self.tree, session, timeout_ms, zxid, ctx.wall_ms);
                    self.propose_prepared(prepared, ctx);
                }
                OpCode::CloseSession => self.close_session(session, xid, ctx),
                _ => self.leader_write(from, session, xid, op, body, ctx),
            },
            _ => {}
        }
    }

    fn next_zxid(&mut self, ctx: &mut Ctx<'_>) -> Option<Zxid> {
        let Role::Leading(leader) = &mut self.role else { return None };
        let next = leader.next_zxid();
        if next.is_none() {
            leader.step_down("the counter of this epoch is used up");
        }
        let _ = ctx;
        next
    }

    fn leader_write(&mut self, from: Origin, session: SessionId, xid: i32, op: OpCode, body: &[u8], ctx: &mut Ctx<'_>) {
        let check = match self.sessions.state(session) {
            SessionState::Live => match self.sessions.owner(session) {
                Some(owner) if owner != from.owner() && !is(Bug::OwnerNotChecked) => SessionCheck::Moved,
                Some(_) => SessionCheck::Live,
                None => {
                    let timeout_ms = self.sessions.timeout_ms(session).unwrap_or(0);
                    self.sessions.reopen(session, timeout_ms, from.owner(), ctx.now);
                    self.contacts.heard(&[session], ctx.now);
                    SessionCheck::Live
                }
            },
            // A follower may have applied its createSession while this server's disk has it not yet.
            SessionState::Unknown if !is(Bug::OpeningSessionsUnknown) => match self.opening.get(&session) {
                Some(Opened { closing: true, .. }) => SessionCheck::Closing,
                Some(Opened { owner, .. }) if *owner != from.owner() => SessionCheck::Moved,
                Some(_) => SessionCheck::Live,
                None => SessionState::Unknown.into(),
            },
            state => state.into(),
        };
        let Some(zxid) = self.next_zxid(ctx) else { return };
        let auth = self.clients.auth.clone();
        let request = WriteRequest { session, session_check: check, xid, op, body, auth: &auth };
        match self.prepare.write(&self.tree, &request, zxid, ctx.wall_ms) {
            Prepared::Refused(code) => panic!("a client's request was refused: {op:?} {code:?}"),
            prepared => self.propose_prepared(prepared, ctx),
        }
    }

    fn close_session(&mut self, session: SessionId, xid: i32, ctx: &mut Ctx<'_>) {
        if !self.sessions.set_closing(session) {
            // A learner's client may know that it has a session before this server has applied it.
            match self.opening.get_mut(&session) {
                Some(opened) if !opened.closing => opened.closing = true,
                _ => return,
            }
        }
        self.close_all_of(session, xid, ctx);
    }

    /// One transaction after the other, until the last one has closed it.
    fn close_all_of(&mut self, session: SessionId, xid: i32, ctx: &mut Ctx<'_>) {
        ctx.report(Report::Ends(session));
        while let Some(zxid) = self.next_zxid(ctx) {
            let (prepared, closing) = self.prepare.close_session(&self.tree, session, xid, zxid, ctx.wall_ms);
            self.propose_prepared(prepared, ctx);
            if closing == Closing::Done {
                return;
            }
        }
    }

    fn propose_prepared(&mut self, prepared: Prepared, ctx: &mut Ctx<'_>) {
        let Prepared::Txn { header, txn, digest } = prepared else { unreachable!("looked at before") };
        let mut record = Vec::new();
        write_txn(&header, &txn, digest, &mut record);
        self.propose(header.zxid, &record, ctx);
    }

    /// Sessions whose time is over.
    pub fn expire(&mut self, ctx: &mut Ctx<'_>) {
        if self.is_established() && self.serving {
            let expired = self.sessions.expired(ctx.now);
            self.judge_expiry(&expired, ctx);
            for session in expired {
                self.close_all_of(session, 0, ctx);
            }
        }
    }

    /// A learner's REQUEST.
    pub fn forwarded(&mut self, link: u32, request: &Request<'_>, ctx: &mut Ctx<'_>) {
        let op = OpCode::from_wire(request.op).expect("a learner forwards what there is");
        if op == OpCode::Sync {
            let Role::Leading(leader) = &mut self.role else { return };
            if is(Bug::SyncWithoutQuorum) {
                let out = leader.output(Link(link)).expect("it has just spoken");
                ostler::wire::quorum::QuorumPacket::new(ostler::wire::quorum::PacketType::Sync, 0, None).write(out);
                return;
            }
            leader.sync_asked(Some(Link(link)), ctx.now);
            return;
        }
        self.write(Origin::Link(link), request.session, request.cxid, op, request.record, ctx);
    }

    pub fn revalidate(&mut self, link: u32, asked: SessionTimeout, ctx: &mut Ctx<'_>) {
        let valid = self.reopen(asked.session, asked.timeout_ms, Origin::Link(link), ctx);
        let Role::Leading(leader) = &mut self.role else { return };
        leader.revalidated(Link(link), SessionValid { session: asked.session, valid });
    }

    /// A session has moved there, if it lives.
    fn reopen(&mut self, session: SessionId, timeout_ms: i32, to: Origin, ctx: &mut Ctx<'_>) -> bool {
        if self.sessions.reopen(session, timeout_ms, to.owner(), ctx.now) {
            self.contacts.heard(&[session], ctx.now);
            return true;
        }
        let opening = self.opening.get_mut(&session);
        opening.is_some_and(|opened| {
            opened.owner = to.owner();
            !opened.closing
        })
    }

    pub fn heard_sessions(&mut self, _link: u32, data: &[u8], ctx: &mut Ctx<'_>) {
        let heard: Vec<SessionId> =
            SessionTimeout::read_all(data).map(|session| session.expect("whole").session).collect();
        self.sessions.touch(&heard, ctx.now);
        self.contacts.heard(&heard, ctx.now);
    }

    pub fn answer_ping(&mut self) {
        let heard: Vec<SessionTimeout> = std::mem::take(&mut self.clients.heard)
            .into_iter()
            .map(|session| SessionTimeout { session, timeout_ms: self.sessions.timeout_ms(session).unwrap_or(0) })
            .collect();
        if let Role::Learning { learner, .. } = &mut self.role {
            learner.ping_answer(heard.into_iter());
        }
    }

    /// A transaction has been applied: whoever waits for it is answered.
    pub fn answer_applied(&mut self, header: &TxnHeader, txn: &Txn, applied: &Applied, ctx: &mut Ctx<'_>) {
        let claimed = self.clients.asked.claimed.remove(&header.zxid);
        let leads = self.is_leading();
        let Some(&conn) = self.clients.by_session.get(&header.session) else { return };
        let Some(client) = self.clients.by_conn.get_mut(&conn) else { return };
        if matches!(txn, Txn::CreateSession { .. }) {
            if matches!(client.stage, Stage::Opening) {
                self.welcome(conn, ctx);
                let owner = Origin::Here(conn).owner();
                let timeout_ms = self.sessions.timeout_ms(header.session).unwrap_or(0);
                if self.is_leading() {
                    self.sessions.reopen(header.session, timeout_ms, owner, ctx.now);
                    self.contacts.heard(&[header.session], ctx.now);
                }
            }
            return;
        }
        let flight = client.flights.iter_mut().find(|flight| matches!(flight.wait, Wait::Txn));
        let flight = flight.filter(|flight| flight.xid == header.cxid && header.cxid != 0);
        let is_claimed = claimed.is_some_and(|(by, _)| by == conn);
        assert!(!is_claimed || flight.is_some(), "{claimed:?} does not wait for {header:?}");
        if let Some(flight) = flight.filter(|_| is_claimed || leads) {
            client.is_kept = !self.serving;
            client.spoke_late = false;
            let mut out = Vec::new();
            let shape = Shape::of(flight.op, txn);
            match write_reply(&mut out, &shape, flight.xid, header, applied) {
                Reply::Written => flight.wait = Wait::Done(out),
                Reply::None => return self.close_client(conn, ctx),
            }
        } else if matches!(txn, Txn::CloseSession { .. }) {
            return self.close_client(conn, ctx);
        }
        self.answer_done(conn, ctx);
    }
}

/// The first whole frame of what has come.
pub fn take_frame(rx: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = rx.get(..4)?;
    let length = i32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
    if rx.len() < 4 + length {
        return None;
    }
    let frame = rx[4..4 + length].to_vec();
    rx.drain(..4 + length);
    Some(frame)
}
