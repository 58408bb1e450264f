//! The clients of a server that followed, while it has no leader: they stay connected and nothing is answered, for
//! `syncLimit` at most. What they had asked is answered out of the next leader's history or asked of it again
//! (`session::owed`), and what they ask meanwhile waits with it.
//!
//! Nothing that such a client could have seen changes: what the next leader says is applied only when it is certain, and if
//! the state is replaced they have to go; so they have where their requests can't be told of: a truncated one has been
//! forgotten, and behind a snapshot nobody knows what happened.
//!
//! Their sessions are nobody's under the next leader, and the first to use one has it (`check_session`). That leader must
//! be the next there was: under another one a client may have gone elsewhere without this server or the leader knowing. For
//! the same reason nothing is asked again before the core that has the connection has said that the client is there, and a
//! connection is closed as soon as a transaction says that its client is elsewhere.
//!
//! Runs on: the pipeline's thread.

use super::forward::Forwarded;
use super::{Effect, Pending, Pipeline, ReplyTo};
use crate::auth::AuthIds;
use crate::clock::Now;
use crate::ids::{Epoch, SessionId, Zxid};
use crate::prepare::reply::Shape;
use crate::server::feed::Entry;
use crate::server::queue::ConnId;
use crate::wire::ErrorCode;
use crate::wire::OpCode;
use crate::wire::txn::{Txn, TxnHeader};
use crate::zab::Role;
use std::collections::VecDeque;

/// Until when, and for whom.
#[derive(Clone, Copy)]
pub struct Kept {
    /// syncLimit after the leader was last heard from.
    pub until: Now,
    /// The epoch in which they were served.
    pub epoch: Epoch,
}

impl Pipeline {
    /// The role that this server had is over, and its clients stay or have gone. What is in the log may yet be committed, by
    /// whoever leads next: it stays in the line, with those who wait for it.
    pub(super) fn empty_the_line(&mut self) {
        let Some(member) = &mut self.member else { return };
        let keeps = member.kept.is_some();
        let line = std::mem::take(&mut self.pending);
        for mut pending in line {
            if !keeps {
                pending.reply = None;
            }
            let Pending { zxid, effect, mut reply, bytes } = pending;
            if let Some(to) = &mut reply
                && to.after_sync > member.forwards.syncs_answered
            {
                // A transaction of the same session says that the leader has seen them; what was refused here stands before one.
                let syncs = member.forwards.take_syncs(to.conn, to.after_sync);
                let before = |(reply, record)| sync_before(zxid, reply, record);
                self.pending.extend(syncs.into_iter().map(before));
            }
            if let Some(to) = &mut reply {
                to.after_sync = 0;
            }
            let effect = match effect {
                // The client is let go before it knows its session.
                Effect::Open { header, timeout_ms, .. } => {
                    let txn = Txn::CreateSession { timeout_ms };
                    Effect::Txn { header, shape: Shape::Single(txn.op()), txn, digest: None }
                }
                Effect::Attach(_) => continue,
                Effect::Sync { .. } | Effect::Refused(_) if reply.is_none() => continue,
                other => other,
            };
            self.pending.push_back(Pending { zxid, effect, reply, bytes });
        }
        self.pending_bytes = self.pending.iter().map(|pending| pending.bytes).sum();
        if keeps {
            member.forwards.hold();
        } else {
            member.forwards.clear();
        }
    }

    /// What was asked before a request that this transaction answers, and is not answered by one itself. A leader has seen it
    /// if it has seen what came behind it.
    pub(super) fn line_up_passed_over(&mut self, zxid: Zxid, is_answer: bool) {
        let Some(member) = &mut self.member else { return };
        for Forwarded { reply, refused, body, .. } in std::mem::take(&mut member.forwards.passed_over) {
            match refused {
                Some(code) if is_answer => {
                    self.pending.push_back(Pending::waiting(zxid, Effect::Refused(code), Some(reply)));
                }
                None if is_answer && reply.op == OpCode::Sync => {
                    let sync = sync_before(zxid, reply, body);
                    self.pending_bytes += sync.bytes;
                    self.pending.push_back(sync);
                }
                // A leader answers in order, so no answer will come; or the client is on another server.
                _ => self.tell(reply.conn, Entry::Close { conn: reply.conn }),
            }
        }
    }

    /// Everything behind `to` never happened. What a client asked of it could be asked again, but has been forgotten.
    pub(super) fn cut_the_line(&mut self, to: Zxid) {
        for Pending { reply, bytes, .. } in cut(&mut self.pending, to) {
            self.pending_bytes -= bytes;
            if let Some(ReplyTo { conn, .. }) = reply {
                self.tell(conn, Entry::Close { conn });
            }
        }
    }

    /// Those that waited for another leader have to look for another server.
    pub(super) fn let_clients_go(&mut self, why: &str) {
        let Some(member) = &mut self.member else { return };
        if member.kept.take().is_some() {
            tracing::info!("the clients that have waited are let go: {why}");
            member.forwards.clear();
            self.tell_all(|| Entry::CloseAll);
        }
    }

    /// Whether they have waited long enough, or in vain.
    pub(super) fn look_at_the_clock(&mut self, now: Now) {
        let Some(member) = &self.member else { return };
        let Some(kept) = member.kept else { return };
        if kept.until <= now {
            self.let_clients_go("there has been no leader for syncLimit");
        } else if self.shared.is_stopping() && matches!(member.peer.role, Role::Looking) && !member.looking {
            self.let_clients_go("this server is stopping, and looks for no other leader");
        }
    }

    /// This server will serve in that epoch.
    pub(super) fn look_at_kept(&mut self, epoch: Epoch) {
        let kept = self.member.as_ref().and_then(|member| member.kept);
        if kept.is_some_and(|kept| kept.epoch.0.checked_add(1) != Some(epoch.0)) {
            self.let_clients_go("the next epoch is not the one after theirs");
        }
    }

    /// Whether what was read from clients in that time of serving is for nobody: all of them have had to go since, and
    /// something before it was not done either.
    pub(super) fn is_stale(&self, term: u64) -> bool {
        match &self.member {
            None => false,
            Some(member) => term < member.clients_since || (member.kept.is_none() && !self.shared.is_serving()),
        }
    }

    /// Whether a request that was read in that time of serving has to wait for a leader: there is none, or something is before
    /// it in its session, or its core has yet to say that the client is still there.
    pub(super) fn has_to_wait(&self, session: SessionId, term: u64) -> bool {
        self.member.as_ref().is_some_and(|member| {
            !member.serving || term != self.shared.serving_term() || member.forwards.owed.waits(session)
        })
    }

    pub(super) fn keep_request(&mut self, session: SessionId, reply: ReplyTo, body: Vec<u8>, auth: AuthIds) {
        if let Some(member) = &mut self.member {
            member.forwards.owed.keep(session, Forwarded::kept(reply, body, auth));
        }
    }

    /// A client that has been kept is still there, and the leader's history is here: what is not in it has not happened.
    pub(super) fn ask_again(&mut self, session: SessionId, conn: ConnId, now: Now, time_ms: i64) {
        if !self.shared.is_serving() {
            // There has been another change: the core will say so again.
            return;
        }
        // What was refused before, and waited for a sync that has its place in the line now.
        self.release_refused(session);
        let Some(member) = &mut self.member else { return };
        for Forwarded { reply, body, auth, .. } in member.forwards.owed.ask_again(session) {
            if reply.conn != conn {
                // Of one that its client has left, and that is about to be closed.
                continue;
            }
            if reply.op == OpCode::Sync {
                self.sync(session, reply, body, now);
            } else {
                self.write(session, reply, &body, &auth, time_ms);
            }
        }
    }

    /// A transaction has come that no request here asked for.
    pub(super) fn heed_foreign(&mut self, header: &TxnHeader) {
        if let Some(conn) = self.local_owner(header.session) {
            // Its client is on another server; what may yet come from here is older than what it does there.
            self.sessions.disown(header.session, conn.into());
            self.tell(conn, Entry::Close { conn });
        }
    }
}

/// Takes out what is behind `to`, wherever it stands: a learner's sync may stand at the end for what was committed when it was
/// confirmed, behind proposals that are not.
fn cut(line: &mut VecDeque<Pending>, to: Zxid) -> VecDeque<Pending> {
    let (kept, cut) = std::mem::take(line).into_iter().partition(|pending| pending.zxid <= to);
    *line = kept;
    cut
}

/// A sync that a lost leader was asked before a write of the same session that it has made into a transaction. If that is
/// committed, everything that was acknowledged to anyone before the sync was asked has a smaller zxid: that leader was no
/// former one when it made the transaction, or the next one's history, which was fixed before anything was acknowledged in a
/// later epoch, would not have it.
fn sync_before(zxid: Zxid, reply: ReplyTo, record: Vec<u8>) -> Pending {
    let effect = Effect::Sync { record, confirmed: true };
    Pending::waiting(zxid, effect, Some(ReplyTo { after_sync: 0, ..reply }))
}

/// Whether a transaction says where its session's client is: it was made for a request of it, on the server that it is on.
pub(super) fn tells_of_its_client(txn: &Txn) -> bool {
    match txn {
        // Also when it has expired, or before it has a connection.
        Txn::CreateSession { .. } | Txn::CloseSession { .. } => false,
        Txn::Error { code } => is_behind_session_check(*code),
        Txn::Multi(parts) => {
            let mut codes =
                parts.iter().filter_map(|part| if let Txn::Error { code } = part { Some(*code) } else { None });
            codes.clone().next().is_none() || codes.any(is_behind_session_check)
        }
        _ => true,
    }
}

/// Whether a request fails so only when its session has been found to be on the server that it came from. With another code it
/// may have failed since it came from the wrong one.
fn is_behind_session_check(code: i32) -> bool {
    use ErrorCode as E;
    [E::NO_NODE, E::NO_AUTH, E::BAD_VERSION, E::NODE_EXISTS, E::NOT_EMPTY].iter().any(|it| it.0 == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_behind_the_session_check_tells_where_the_client_is_and_what_failed_by_it_does_not() {
        let error = |code: ErrorCode| Txn::Error { code: code.0 };
        for (code, tells) in [(ErrorCode::NO_NODE, true), (ErrorCode::SESSION_MOVED, false)] {
            assert_eq!(tells_of_its_client(&error(code)), tells);
            let rest = Txn::Error { code: -2 };
            assert_eq!(tells_of_its_client(&Txn::Multi(vec![error(code), rest])), tells);
        }
        let check = Txn::Check { path: "/a".into(), version: 1 };
        assert!(tells_of_its_client(&Txn::Multi(vec![check])));
    }

    #[test]
    fn what_is_taken_back_leaves_the_line_also_from_before_a_sync_that_stays() {
        let place = |counter, effect| Pending::waiting(Zxid::new(Epoch(1), counter), effect, None);
        let other = |counter| place(counter, Effect::Refused(ErrorCode::NO_NODE));
        let sync = |counter| place(counter, Effect::Sync { record: Vec::new(), confirmed: true });
        let mut line = VecDeque::from([other(4), other(5), sync(4), other(6), sync(6), sync(4)]);
        let counters = |line: &VecDeque<Pending>| line.iter().map(|pending| pending.zxid.counter()).collect::<Vec<_>>();
        let taken = cut(&mut line, Zxid::new(Epoch(1), 4));
        assert_eq!((counters(&line), counters(&taken)), (vec![4, 4, 4], vec![5, 6, 6]));
        assert!(cut(&mut line, Zxid::new(Epoch(1), 9)).is_empty());
    }
}
