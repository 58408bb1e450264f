//! The clients of a simulated server that followed, while it has no leader: kept, with what they have asked, as the server's
//! own `pipeline/kept.rs` does it. What decides is the server's own `session::owed`.

use crate::broken::{Bug, is};
use crate::server::{Ctx, Role, Server};
use crate::serving::{Client, Origin, Stage, Wait};
use ostler::clock::Now;
use ostler::ids::{Epoch, SessionId, Zxid};
use ostler::session::owed::Owed;
use ostler::wire::OpCode;
use ostler::wire::txn::{Txn, read_txn};
use std::collections::BTreeMap;

/// A request of a client here.
pub struct Ask {
    pub conn: u32,
    pub session: SessionId,
    pub xid: i32,
    pub op: OpCode,
    pub body: Vec<u8>,
}

#[derive(Clone, Copy)]
pub struct Kept {
    until: Now,
    epoch: Epoch,
}

#[derive(Default)]
pub struct Asked {
    pub kept: Option<Kept>,
    pub owed: Owed<Ask>,
    /// Whom a transaction answers that is in the log and not in the tree.
    pub claimed: BTreeMap<Zxid, (u32, i32)>,
}

impl Client {
    fn is_silent(&self, now: Now) -> bool {
        now.since(self.last_heard).as_millis() as u64 > self.timeout_ms as u64 / 2
    }

    /// `false`: its client may long be on another server.
    pub fn hear(&mut self, now: Now) -> bool {
        let silent = matches!(self.stage, Stage::Live) && self.is_silent(now);
        if self.is_kept && silent {
            return false;
        }
        self.spoke_late |= silent;
        self.last_heard = now;
        true
    }

    fn waits(&self) -> bool {
        self.flights.iter().any(|flight| matches!(flight.wait, Wait::Txn | Wait::Sync))
    }
}

impl Server {
    /// The role is over, and was one in which clients were served. Whether they stay.
    pub fn keep_clients(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let Role::Learning { learner, .. } = &self.role else { return false };
        let kept = Kept { until: learner.deadline(), epoch: learner.epoch() };
        if kept.until <= ctx.now {
            return false;
        }
        let keeps = |client: &Client| {
            let late = client.spoke_late && client.waits() && !is(Bug::AsksForClientsThatLeft);
            matches!(client.stage, Stage::Live) && !late
        };
        let clients = &mut self.clients;
        let gone: Vec<u32> =
            clients.by_conn.iter().filter(|(_, client)| !keeps(client)).map(|(&conn, _)| conn).collect();
        gone.into_iter().for_each(|conn| self.close_client(conn, ctx));
        let clients = &mut self.clients;
        clients.asked.owed.leader_lost();
        for (&conn, client) in &mut clients.by_conn {
            client.is_kept = true;
            for flight in client.flights.iter().filter(|flight| matches!(flight.wait, Wait::Sync)) {
                // Nothing is asked behind a sync before it is answered.
                let session = client.session;
                let ask = Ask { conn, session, xid: flight.xid, op: OpCode::Sync, body: flight.body.clone() };
                clients.asked.owed.keep_between(client.session, ask, |_| false);
            }
        }
        clients.syncs.clear();
        clients.heard.clear();
        clients.asked.kept = Some(kept);
        true
    }

    pub fn look_at_kept(&mut self, ctx: &mut Ctx<'_>) {
        if self.clients.asked.kept.is_some_and(|kept| kept.until <= ctx.now) {
            self.drop_clients(ctx);
        }
    }

    /// This server will serve in that epoch.
    pub fn look_at_epoch(&mut self, epoch: Epoch, ctx: &mut Ctx<'_>) {
        if self.clients.asked.kept.is_some_and(|kept| kept.epoch.0 + 1 != epoch.0) {
            self.drop_clients(ctx);
        }
    }

    pub fn let_clients_go(&mut self, ctx: &mut Ctx<'_>) {
        if self.clients.asked.kept.is_some() {
            self.drop_clients(ctx);
        }
    }

    /// The history was cut: what was asked of what is gone has been forgotten.
    pub fn cut_answers(&mut self, to: Zxid, ctx: &mut Ctx<'_>) {
        let gone = self.clients.asked.claimed.split_off(&Zxid(to.0 + 1));
        gone.into_values().for_each(|(conn, _)| {
            if self.clients.by_conn.contains_key(&conn) {
                self.close_client(conn, ctx);
            }
        });
    }

    /// A transaction has come from the leader: whom it will answer.
    pub fn claim(&mut self, zxid: Zxid, record: &[u8], ctx: &mut Ctx<'_>) {
        let (header, txn, _) = read_txn(record).expect("it was read before");
        let tells = match &txn {
            Txn::CreateSession { .. } | Txn::CloseSession { .. } => false,
            Txn::Error { code } => is_behind_session_check(*code),
            Txn::Multi(parts) => {
                let codes =
                    parts.iter().filter_map(|part| if let Txn::Error { code } = part { Some(*code) } else { None });
                codes.clone().next().is_none() || codes.into_iter().any(is_behind_session_check)
            }
            _ => true,
        };
        if is(Bug::AsksAgainWhatHappened) && !self.serving {
            return;
        }
        let asked = &mut self.clients.asked;
        let mut passed_over = Vec::new();
        match asked.owed.claim(header.session, header.cxid, tells, &mut passed_over) {
            Some(ask) => {
                asked.claimed.insert(zxid, (ask.conn, ask.xid));
            }
            None if tells && !is(Bug::AsksForClientsThatLeft) => self.heed_foreign(header.session, ctx),
            None => {}
        }
        for ask in passed_over {
            if self.clients.by_conn.contains_key(&ask.conn) {
                self.close_client(ask.conn, ctx);
            }
        }
    }

    fn heed_foreign(&mut self, session: SessionId, ctx: &mut Ctx<'_>) {
        if let Some(&conn) = self.clients.by_session.get(&session)
            && matches!(self.clients.by_conn.get(&conn), Some(Client { stage: Stage::Live, .. }))
        {
            self.close_client(conn, ctx);
        }
    }

    /// It serves again: what is not in the history has not happened, and is asked again for those who are there.
    pub fn go_on(&mut self, ctx: &mut Ctx<'_>) {
        if self.clients.asked.kept.take().is_none() {
            return;
        }
        let mut waiting: Vec<(u32, SessionId, bool)> = (self.clients.by_conn.iter())
            .filter(|(_, client)| client.waits())
            .map(|(&conn, client)| (conn, client.session, client.is_silent(ctx.now)))
            .collect();
        if is(Bug::AsksForClientsThatLeft) {
            waiting = self.clients.asked.owed.each().map(|ask| (ask.conn, ask.session, false)).collect();
        }
        for (conn, session, is_silent) in waiting {
            if is_silent {
                self.close_client(conn, ctx);
                continue;
            }
            for Ask { xid, op, body, .. } in self.clients.asked.owed.ask_again(session) {
                if op == OpCode::Sync {
                    self.sync(conn, session, xid, &body, ctx);
                } else {
                    self.write(Origin::Here(conn), session, xid, op, &body, ctx);
                }
            }
        }
        assert!(
            self.is_leading()
                || self.clients.by_conn.values().all(|client| !self.clients.asked.owed.waits(client.session))
        );
    }
}

/// As `tells_of_its_client` has it: NoNode, NoAuth, BadVersion, NodeExists, NotEmpty.
fn is_behind_session_check(code: i32) -> bool {
    [-101, -102, -103, -110, -111].contains(&code)
}
