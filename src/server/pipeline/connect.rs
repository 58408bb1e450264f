//! Sessions and their connections: opening one, taking one back, losing one.
//!
//! A session is on one connection at a time. A client that reconnects gets it only when the old connection has been
//! shut, on whatever core, and every write that was read from it has been applied or refused: so it can never see its
//! own past come true later.

use super::{Effect, Pending, Pipeline};
use crate::clock::{self, Now};
use crate::ids::SessionId;
use crate::prepare::Prepared;
use crate::server::feed::{Entry, FeedBatch};
use crate::server::queue::ConnId;
use crate::session;
use crate::wire::client::ConnectResponse;

/// A client that wants its session back.
pub(super) struct Reconnect {
    pub conn: ConnId,
    pub session: SessionId,
    pub password: Vec<u8>,
    pub timeout_ms: i32,
    pub read_only: Option<bool>,
    /// The connection that has to be shut first; none if there is none.
    pub old: ConnId,
}

impl Pipeline {
    pub(super) fn open_session(
        &mut self,
        conn: ConnId,
        timeout_ms: i32,
        read_only: Option<bool>,
        received: Now,
        time_ms: i64,
    ) {
        let session = self.ids.next(&self.sessions);
        let Some(zxid) = self.next_zxid() else { return };
        let prepared = self.prepare.create_session(self.tree.peek(), session, timeout_ms, zxid, time_ms);
        let Prepared::Txn { header, txn, digest } = prepared else {
            unreachable!("a new session is never refused by prepare")
        };
        let bytes = self.propose(header, &txn, digest);
        let effect = Effect::Open { header, timeout_ms, conn, read_only, received };
        self.pending.push_back(Pending { zxid, effect, reply: None, bytes });
    }

    /// First step: the old connection is shut, before the password is looked at, as upstream.
    pub(super) fn reconnect(&mut self, mut reconnect: Reconnect) {
        match self.local_owner(reconnect.session) {
            Some(owner) if owner != reconnect.conn => {
                self.tell(owner, Entry::Close { conn: owner });
                reconnect.old = owner;
                self.reconnects.push(reconnect);
            }
            _ => self.take_back(reconnect),
        }
    }

    /// Second step: on a learner, the leader is asked; then it waits for everything that is under way.
    fn take_back(&mut self, reconnect: Reconnect) {
        if self.leads() {
            if session::password_is(reconnect.session, Some(&reconnect.password)) {
                self.take_from_elsewhere(reconnect.session);
            }
            self.wait_in_line(Effect::Attach(reconnect), None);
        } else {
            self.forward_revalidate(reconnect);
        }
    }

    pub(super) fn connection_closed(&mut self, conn: ConnId, session: SessionId) {
        let mut waiting = std::mem::take(&mut self.reconnects);
        for reconnect in waiting.extract_if(.., |reconnect| reconnect.old == conn) {
            self.let_go(reconnect.session, conn);
            self.take_back(reconnect);
        }
        // Those that wait for another connection, and have gone themselves.
        waiting.retain(|reconnect| reconnect.conn != conn);
        self.reconnects = waiting;
        if let Some(member) = &mut self.member {
            member.forwards.forget(session, conn);
        }
        self.let_go(session, conn);
    }

    /// A connection holds its session no longer. On a leader nobody may have it without asking: a write that is late from a
    /// server on which the client was before must not take effect now (`check_session`).
    fn let_go(&mut self, session: SessionId, conn: ConnId) {
        let held = self.sessions.owner(session) == Some(conn.into());
        if let Some(member) = self.member.as_mut().filter(|member| held && member.leads()) {
            member.unclaimed.remove(&session);
            self.sessions.own(session, ConnId::GONE.into());
        } else {
            self.sessions.disown(session, conn.into());
        }
    }

    /// On a leader, a client that was on another server is here now: what it asked there and comes from there only now must
    /// not take effect behind the answer to its reconnect (`check_session`).
    fn take_from_elsewhere(&mut self, session: SessionId) {
        let Some(member) = &mut self.member else { return };
        member.unclaimed.remove(&session);
        let gone = ConnId::GONE;
        if self.sessions.owner(session).map(ConnId::from).is_none_or(ConnId::is_link) {
            self.sessions.own(session, gone.into());
        }
        if let Some(opened) = self.opening.get_mut(&session).filter(|opened| opened.owner.is_link()) {
            opened.owner = gone;
        }
    }

    /// Last step, when everything proposed before it has been applied.
    pub(super) fn attach(&mut self, reconnect: Reconnect) {
        let owner = self.local_owner(reconnect.session);
        if owner.is_some_and(|owner| owner != reconnect.conn) {
            // Another client of the same session was faster.
            return self.reconnect(reconnect);
        }
        let right = session::password_is(reconnect.session, Some(&reconnect.password));
        let now = clock::now();
        if !right || !self.sessions.reopen(reconnect.session, reconnect.timeout_ms, reconnect.conn.into(), now) {
            return self.refuse(&reconnect);
        }
        let Reconnect { conn, session, timeout_ms, read_only, .. } = reconnect;
        if let Some(member) = &mut self.member {
            member.unclaimed.remove(&session);
            member.forwards.forget_others(session, conn);
        }
        connected(&mut self.feeds, conn, session, timeout_ms, read_only, None);
    }

    pub(super) fn refuse(&mut self, reconnect: &Reconnect) {
        let conn = reconnect.conn;
        let feed = &mut self.feeds[conn.core()];
        let start = feed.bytes.len() as u32;
        ConnectResponse::refused(reconnect.read_only.map(|_| false)).write(&mut feed.bytes);
        let frame = start..feed.bytes.len() as u32;
        feed.entries.push_back(Entry::Refused { conn, frame });
    }

    pub(super) fn tell(&mut self, conn: ConnId, entry: Entry) {
        self.feeds[conn.core()].entries.push_back(entry);
    }
}

/// Tells a connection that it has a session.
pub(super) fn connected(
    feeds: &mut [FeedBatch],
    conn: ConnId,
    session: SessionId,
    timeout_ms: i32,
    read_only: Option<bool>,
    began: Option<Now>,
) {
    let response = ConnectResponse {
        timeout_ms,
        session,
        password: session::password(session),
        read_only: read_only.map(|_| false),
    };
    let feed = &mut feeds[conn.core()];
    let start = feed.bytes.len() as u32;
    response.write(&mut feed.bytes);
    let frame = start..feed.bytes.len() as u32;
    feed.entries.push_back(Entry::Connected { conn, frame, session, timeout_ms, began });
}
