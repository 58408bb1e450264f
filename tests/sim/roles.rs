//! One simulated server in its roles: what it reads from peers, and what the leader or the learner wants done.

use crate::broken::{Bug, is};
use crate::server::{Action, Ctx, PACKET_MAX, Report, Role, Server, Transfer, Upstream};
use crate::storage::DiskOp;
use ostler::clock::Now;
use ostler::ids::{Epoch, ServerId, Zxid};
use ostler::log::Batch;
use ostler::snapshot::zookeeper::{DecodeLimits, Decoder, write_snap};
use ostler::wire::quorum::{PacketType, QuorumPacket};
use ostler::wire::txn::read_txn;
use ostler::zab::ensemble::EnsembleConfig;
use ostler::zab::leader::{Heard, Leader, LeaderOutput, LeaderStart, Link};
use ostler::zab::learner::{Brought, Learner, LearnerOutput, LearnerStart};
use ostler::zab::quorum::{Quorum, ServerSet};
use std::sync::Arc;

impl Server {
    /// The history can't be cut where the leader wants: it is asked for all of its own, without another election.
    pub fn ask_for_everything(&mut self, role: u32, why: String, ctx: &mut Ctx<'_>) {
        let Role::Learning { leader, .. } = &self.role else { return };
        let leader = *leader;
        if self.role_number != role {
            return;
        }
        self.leave(why, ctx);
        if self.is_at_rest() {
            self.wants_everything = true;
            self.elected(leader, ctx);
        }
    }

    fn config(&self) -> Arc<EnsembleConfig> {
        let line = |id: ServerId, role| format!("server.{0}=s{0}:1:2:{role}\n", id.0);
        let voters = self.quorum.voters().iter().map(|id| line(id, "participant"));
        let observers = self.quorum.observers().iter().map(|id| line(id, "observer"));
        let text: String = voters.chain(observers).collect();
        Arc::new(EnsembleConfig::parse(text.as_bytes()).expect("lines as they have to be"))
    }

    pub fn elected(&mut self, leader: ServerId, ctx: &mut Ctx<'_>) {
        assert!(self.is_at_rest(), "a role begins when the disk is at rest");
        self.role_number += 1;
        self.committed = Zxid::ZERO;
        let wants_everything = std::mem::take(&mut self.wants_everything);
        if leader == self.me {
            let start = LeaderStart {
                me: self.me,
                quorum: match is(Bug::ObserversCount) {
                    false => self.quorum.clone(),
                    true => {
                        let all = self.quorum.voters().union(self.quorum.observers());
                        Arc::new(Quorum::majority(all, ServerSet::EMPTY))
                    }
                },
                timing: ctx.knobs.timing,
                config_text: b"version=0".as_slice().into(),
                config_version: 0,
                accepted: self.accepted,
                current: self.current,
                heard: self.heard,
                counter_max: ctx.knobs.counter_max,
                output_max: 8 << 20,
            };
            self.role = Role::Leading(Box::new(Leader::new(start, &self.history, ctx.now)));
        } else {
            let start = LearnerStart {
                me: self.me,
                observer: !self.is_voter(),
                timing: ctx.knobs.timing,
                config: self.config(),
                accepted: if is(Bug::AcceptedForgotten) { self.current } else { self.accepted },
                current: self.current,
                quarantined: (self.quarantined && !is(Bug::QuarantineForgotten)) || wants_everything,
            };
            let learner = Box::new(Learner::new(start, &self.history, ctx.now));
            self.role = Role::Learning { leader, learner };
            self.upstream = Upstream { conn: None, rx: Vec::new(), decoder: None, dials: 0, dial_at: Some(ctx.now) };
        }
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

    pub fn tell_epochs_stored(&mut self, role: u32, ctx: &mut Ctx<'_>) {
        if self.role_number != role {
            return;
        }
        match &mut self.role {
            Role::Leading(leader) => leader.epochs_stored(&mut self.history, ctx.now),
            Role::Learning { learner, .. } => {
                learner.epochs_stored(ctx.now);
                // The history of a leader has taken the place of the doubtful one.
                if self.quarantined && self.current == learner.epoch() {
                    self.quarantined = false;
                    let released = self.storage.end_quarantine();
                    ctx.report(Report::Trusted { released: released.is_ok() });
                    if let Err(fatal) = released {
                        ctx.actions.push(Action::Exit(fatal));
                    }
                }
            }
            Role::Looking => {}
        }
    }

    pub fn read_link(&mut self, conn: u32, ctx: &mut Ctx<'_>) {
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

    pub fn read_upstream(&mut self, ctx: &mut Ctx<'_>) {
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
                    self.claim(zxid, &record, ctx);
                    self.append(zxid, &record, ctx);
                    if let Role::Learning { learner, .. } = &mut self.role
                        && (is(Bug::AckBeforeSync) || (is(Bug::HistoryAfterEpoch) && !learner.is_serving()))
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

    pub fn learner_outputs(&mut self, ctx: &mut Ctx<'_>) {
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
                        let too_much = is(Bug::TruncationCutsTooMuch) && to.counter() > 1;
                        let to = if too_much { Zxid(to.0 - 1) } else { to };
                        self.storage.abandon_snapshot(&self.tree);
                        let op = DiskOp::Truncate { to, role: self.role_number, refused: None };
                        self.storage.submit(op, ctx);
                    }
                    LearnerOutput::ReceiveSnapshot { zxid } => {
                        let decoder = Decoder::of_snap(self.storage.options(), DecodeLimits::default());
                        self.upstream.decoder = Some((zxid, Box::new(decoder)));
                    }
                    LearnerOutput::Commit { up_to } => self.committed = self.committed.max(up_to),
                    LearnerOutput::Serving { up_to, epoch } => {
                        self.look_at_epoch(epoch, ctx);
                        self.committed = self.committed.max(up_to);
                        self.serve_at = Some(self.committed);
                        self.leader_is_established(ctx);
                    }
                    LearnerOutput::SyncDone => self.sync_is_done(),
                    LearnerOutput::Activated { .. } | LearnerOutput::OtherMembers(_) => {
                        unreachable!("members are fixed")
                    }
                    LearnerOutput::Lost { why } => return self.leave(why, ctx),
                }
            }
        }
    }

    pub fn leader_outputs(&mut self, ctx: &mut Ctx<'_>) {
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
                        self.look_at_epoch(epoch, ctx);
                        self.committed = self.committed.max(up_to);
                        self.serve_at = Some(up_to);
                        self.leader_is_established(ctx);
                        self.prepare.clear();
                        self.contacts.begin(ctx.now);
                        // A closeSession of an earlier leadership may never have come to pass.
                        if is(Bug::ClosingSessionsStay) {
                            self.sessions.restart_clocks(ctx.now);
                        } else {
                            self.sessions.begin_anew_but(|_| false, ctx.now);
                        }
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

    pub fn store_epochs(&mut self, accepted: Epoch, current: Epoch, ctx: &mut Ctx<'_>) {
        let bug = if self.is_leading() { Bug::LeaderEpochsStoredLater } else { Bug::FollowerEpochsStoredLater };
        if is(bug) {
            (self.accepted, self.current) = (accepted, current);
            self.storage.submit(DiskOp::Epochs { accepted, current, role: u32::MAX }, ctx);
            return self.tell_epochs_stored(self.role_number, ctx);
        }
        self.storage.submit(DiskOp::Epochs { accepted, current, role: self.role_number }, ctx);
    }

    pub fn send_snapshot(&mut self, link: Link, ctx: &mut Ctx<'_>) {
        let Role::Leading(leader) = &mut self.role else { return };
        let ahead = is(Bug::SnapshotNamedAhead) && self.history.contains(self.committed);
        let zxid = if ahead { self.committed.max(self.tree.zxid()) } else { self.tree.zxid() };
        leader.snapshot_begins(link, zxid);
        let Some(out) = leader.output(link) else { return };
        let sessions = if is(Bug::SessionsNotInSnapshot) { Vec::new() } else { self.sessions.timeouts() };
        write_snap(&self.tree, &sessions, out).expect("memory takes everything");
        let delay = ctx.rng.below(ctx.knobs.snap_delay.max(1));
        self.transfers.insert(link.0, Transfer::Snapshot(Now(ctx.now.0 + delay)));
    }

    pub fn catch_up(&mut self, link: Link, after: Zxid, ctx: &mut Ctx<'_>) {
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

    pub fn read_log_for_learners(&mut self, ctx: &mut Ctx<'_>) {
        let Role::Leading(leader) = &mut self.role else { return };
        let mut done = Vec::new();
        for (&conn, transfer) in &mut self.transfers {
            let Transfer::Log(cursor) = transfer else { continue };
            let mut batch = Batch::new();
            // The most recent committed record that is durable here; the rest comes from memory.
            let up_to = leader.committed().min(self.durable);
            // Small pieces, so that much can happen between two; but whoever is far behind comes closer all the same.
            let behind = match cursor.position().epoch() == up_to.epoch() {
                true => up_to.counter().saturating_sub(cursor.position().counter()) as usize,
                false => 0,
            };
            match cursor.read(up_to, behind.max(2_000), &mut batch) {
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
    pub fn leave(&mut self, why: String, ctx: &mut Ctx<'_>) {
        ctx.report(Report::RoleEnded(why));
        self.unheard = false;
        let keeps = match self.serving {
            true => self.keep_clients(ctx),
            false => self.clients.asked.kept.is_some(),
        };
        if let Role::Leading(leader) = &self.role {
            self.heard = self.heard.max(leader.newest_accepted());
            self.unheard = leader.was_unheard();
        }
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
        if !keeps {
            self.drop_clients(ctx);
        }
        self.prepare.clear();
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
