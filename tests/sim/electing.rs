//! The election port of one simulated server: `zab::election` and `zab::election_links` with the simulator's connections.
//!
//! Both are the server's own state machines; here their connections are opened, closed, read and written.

use crate::broken::{Bug, is};
use crate::network::Port;
use crate::rule::Rule;
use crate::server::{Action, Ctx, Report, Role, Server};
use ostler::config::servers::{Role as MemberRole, parse_server};
use ostler::ids::{Epoch, ServerId, Zxid};
use ostler::wire::election::{InitialMessage, Notification, notification_length};
use ostler::zab::election::{Election, Output, Timing};
use ostler::zab::election_links::{ConnId, ElectionLinks, LinkLimits, LinkOutput};
use ostler::zab::ensemble::{Configs, EnsembleConfig};
use ostler::zab::quorum::ServerSet;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The configuration of an ensemble: so many voters, then so many observers, with the groups and weights of its rule.
pub fn config(voters: usize, observers: usize, rule: &Rule) -> Arc<EnsembleConfig> {
    let lines = (1..=voters + observers).map(|id| {
        let role = if id <= voters { "participant" } else { "observer" };
        parse_server(&id.to_string(), &format!("h{id}:2888:3888:{role}")).expect("a good line")
    });
    let (groups, weights) = rule.lines();
    Arc::new(EnsembleConfig::new(Zxid::ZERO, lines.collect(), &groups, &weights).expect("a good configuration"))
}

pub struct Electing {
    election: Election,
    links: ElectionLinks,
    config: Arc<EnsembleConfig>,
    /// Connections by the name that `links` has for them.
    sockets: BTreeMap<ConnId, u32>,
    by_conn: BTreeMap<u32, (ConnId, Vec<u8>)>,
    looking: bool,
    decided: Option<ServerId>,
    lookers: ServerSet,
}

impl Electing {
    pub fn new(me: ServerId, config: Arc<EnsembleConfig>) -> Electing {
        let role = if config.quorum().is_voter(me) { MemberRole::Participant } else { MemberRole::Observer };
        let members = config.quorum().voters().union(config.quorum().observers());
        let configs = Configs::new(config.clone(), None);
        Electing {
            election: Election::new(me, role, configs, Timing::default()),
            links: ElectionLinks::new(me, members, LinkLimits::default()),
            config,
            sockets: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            looking: false,
            decided: None,
            lookers: ServerSet::EMPTY,
        }
    }

    pub fn has(&self, conn: u32) -> bool {
        self.by_conn.contains_key(&conn)
    }
}

impl Server {
    /// A server has connected to the election port.
    pub fn accepted_elector(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        let mut out = Vec::new();
        let id = self.electing.links.accepted(ctx.now, &mut out);
        self.electing.sockets.insert(id, conn);
        self.electing.by_conn.insert(conn, (id, Vec::new()));
        self.link_outputs(out, ctx);
        self.settle(ctx);
    }

    pub fn dialed_elector(&mut self, id: u32, conn: Option<u32>, ctx: &mut Ctx<'_>) {
        let id = ConnId(u64::from(id));
        let mut out = Vec::new();
        if let Some(conn) = conn {
            self.electing.sockets.insert(id, conn);
            self.electing.by_conn.insert(conn, (id, Vec::new()));
        }
        self.electing.links.dialed(id, conn.is_some(), ctx.now, &mut out);
        let known = out.iter().any(|output| matches!(output, LinkOutput::Introduce { .. }));
        if let Some(conn) = conn.filter(|_| !known) {
            // Nobody waits for it any more.
            self.forget_elector(conn);
            ctx.actions.push(Action::Close(conn));
        }
        self.link_outputs(out, ctx);
        self.settle(ctx);
    }

    fn forget_elector(&mut self, conn: u32) -> Option<ConnId> {
        let (id, _) = self.electing.by_conn.remove(&conn)?;
        self.electing.sockets.remove(&id);
        Some(id)
    }

    pub fn elector_closed(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
        if let Some(id) = self.forget_elector(conn) {
            let mut out = Vec::new();
            self.electing.links.closed(id, ctx.now, &mut out);
            self.link_outputs(out, ctx);
        }
    }

    pub fn elector_bytes(&mut self, conn: u32, bytes: &[u8], ctx: &mut Ctx<'_>) {
        let Some((_, rx)) = self.electing.by_conn.get_mut(&conn) else { return };
        rx.extend_from_slice(bytes);
        loop {
            let Some((id, rx)) = self.electing.by_conn.get_mut(&conn) else { return };
            let id = *id;
            let mut out = Vec::new();
            if self.electing.links.is_pending(id) {
                let read = InitialMessage::read(rx).expect("a server introduces itself");
                let Some((message, taken)) = read else { return };
                rx.drain(..taken);
                self.electing.links.introduced(id, &message, ctx.now, &mut out);
                self.link_outputs(out, ctx);
                continue;
            }
            let Some(from) = self.electing.links.peer_of(id) else { return };
            let Some(&prefix) = rx.first_chunk::<4>() else { return };
            let length = notification_length(prefix).expect("a server sends lengths");
            let Some(body) = rx.get(4..4 + length) else { return };
            let body = body.to_vec();
            rx.drain(..4 + length);
            let notification = Notification::read(&body).expect("a server sends notifications");
            let mut told = Vec::new();
            self.electing.election.receive(from, &notification, ctx.now, &mut told);
            self.election_outputs(told, ctx);
        }
    }

    fn election_outputs(&mut self, outputs: Vec<Output>, ctx: &mut Ctx<'_>) {
        let mut out = Vec::new();
        self.electing.take(outputs, &mut out, ctx);
        self.link_outputs(out, ctx);
    }

    fn link_outputs(&mut self, outputs: Vec<LinkOutput>, ctx: &mut Ctx<'_>) {
        let mut queue: VecDeque<LinkOutput> = outputs.into();
        while let Some(output) = queue.pop_front() {
            let mut more = Vec::new();
            match output {
                LinkOutput::Dial { conn, to, .. } => {
                    ctx.actions.push(Action::Dial(to, Port::Election, conn.0 as u32));
                }
                LinkOutput::Introduce { conn } => {
                    let me = self.me.0;
                    let mut bytes = Vec::new();
                    InitialMessage { server: i64::from(me), addresses: vec![format!("h{me}:3888")] }.write(&mut bytes);
                    if let Some(&socket) = self.electing.sockets.get(&conn) {
                        ctx.actions.push(Action::Send(socket, bytes));
                    }
                }
                LinkOutput::Write { conn, ballot } => {
                    let mut bytes = Vec::new();
                    ballot.notification(&self.electing.config).write(&mut bytes);
                    if let Some(&socket) = self.electing.sockets.get(&conn) {
                        ctx.actions.push(Action::Send(socket, bytes));
                    }
                    self.electing.links.written(conn, ctx.now, &mut more);
                }
                LinkOutput::Close { conn, .. } => {
                    if let Some(socket) = self.electing.sockets.remove(&conn) {
                        self.electing.by_conn.remove(&socket);
                        ctx.actions.push(Action::Close(socket));
                    }
                }
                LinkOutput::Reach { peer, reach } => {
                    let mut told = Vec::new();
                    self.electing.election.reach(peer, reach, ctx.now, &mut told);
                    self.electing.take(told, &mut more, ctx);
                }
            }
            queue.extend(more);
        }
    }

    /// Time has passed: looks for a leader where there is no role.
    pub fn elect(&mut self, ctx: &mut Ctx<'_>) {
        let mut out = Vec::new();
        self.electing.links.tick(ctx.now, &mut out);
        self.link_outputs(out, ctx);
        let mut told = Vec::new();
        self.electing.election.tick(ctx.now, &mut told);
        self.election_outputs(told, ctx);
        self.take_role(ctx);
    }

    /// Begins to look, and takes the role that was decided.
    pub fn take_role(&mut self, ctx: &mut Ctx<'_>) {
        let lookers = std::mem::take(&mut self.electing.lookers);
        match &mut self.role {
            Role::Leading(leader) => {
                let unreachable = self.electing.election.unreachable();
                lookers.iter().for_each(|voter| leader.strays(voter, unreachable));
            }
            Role::Learning { leader, learner } if !learner.is_serving() && lookers.contains(*leader) => {
                learner.fail("the elected leader is looking for one itself");
            }
            _ => {}
        }
        if self.is_at_rest() && !self.electing.looking {
            self.electing.looking = true;
            self.electing.decided = None;
            let (epoch, last) = self.candidacy();
            ctx.report(Report::Stands { current: epoch, last });
            let epoch = if is(Bug::VotesIgnoreTheEpoch) { Epoch(0) } else { epoch };
            let mut told = Vec::new();
            match self.unheard {
                true => self.electing.election.start_unheard(last, epoch, ctx.now, &mut told),
                false => self.electing.election.start(last, epoch, ctx.now, &mut told),
            }
            self.election_outputs(told, ctx);
        }
        if let Some(leader) = self.electing.decided.take() {
            self.electing.looking = false;
            if self.is_looking() {
                self.elected(leader, ctx);
            }
        }
    }

    pub fn leader_is_established(&mut self, ctx: &mut Ctx<'_>) {
        let epoch = match &self.role {
            Role::Leading(leader) => leader.epoch(),
            Role::Learning { learner, .. } => Some(learner.epoch()),
            Role::Looking => None,
        };
        if let Some(epoch) = epoch {
            let mut told = Vec::new();
            self.electing.election.established(epoch, &mut told);
            self.election_outputs(told, ctx);
        }
    }
}

impl Electing {
    fn take(&mut self, outputs: Vec<Output>, links: &mut Vec<LinkOutput>, ctx: &mut Ctx<'_>) {
        for output in outputs {
            match output {
                Output::Send { to, ballot } => self.links.send(to, ballot, ctx.now, links),
                Output::Decided { vote, .. } => self.decided = Some(vote.leader),
                Output::Looker { from } => {
                    self.lookers.insert(from);
                }
            }
        }
    }
}
