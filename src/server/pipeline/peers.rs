//! What learners and the leader say, and what they are told: packets are decoded where they have arrived, handed to the
//! role, and what they bring is done here; what the roles have to say is sent at the end of a turn.
//!
//! Nothing that only another packet can end may keep packets from being read, or a full line would be full for ever: a
//! leader reads acknowledgements however many proposals wait for them, and puts requests aside for which there is no room;
//! a learner reads on while its line waits for a commit. What waits for a disk or for a core does stop the reading.
//!
//! Runs on: the pipeline's thread.

use super::kept::tells_of_its_client;
use super::{Pending, Pipeline};
use crate::clock::Now;
use crate::fatal::Fatal;
use crate::ids::{SessionId, Zxid};
use crate::limits;
use crate::server::queue::ConnId;
use crate::wire::opcode::OpCode;
use crate::wire::quorum::{FIXED, PacketType, QuorumPacket, Request, SessionTimeout};
use crate::wire::txn::{Txn, read_txn};
use crate::zab::Role;
use crate::zab::leader::{Heard, Link};
use crate::zab::learner::Brought;
use std::collections::{BTreeMap, VecDeque};

/// Bytes of packets that are worked off in one turn.
const TURN_BYTES: usize = 4 << 20;

/// Connections that make room for others in one turn.
const ROOM_PER_TURN: usize = 64;

/// A request of a learner that has to wait.
enum Later {
    Request { session: SessionId, cxid: i32, op: i32, record: Vec<u8>, auth: Vec<(String, String)> },
    Revalidate(SessionTimeout),
}

/// Requests of learners for which there is no room yet, or that came before this leader serves. In order for each link; a
/// link that has too many is not read from.
#[derive(Default)]
pub struct PutAside {
    /// No queue is empty.
    links: BTreeMap<Link, (VecDeque<Later>, usize)>,
    /// Whose turn was last: one turn of the pipeline may not have room for more than one.
    last: Option<Link>,
}

impl PutAside {
    /// Room that one takes beside its record.
    const FIXED_BYTES: usize = 128;

    fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    fn has(&self, link: Link) -> bool {
        self.links.contains_key(&link)
    }

    /// Whether nothing more can be put aside for this link.
    fn is_full(&self, link: Link) -> bool {
        self.links.get(&link).is_some_and(|(_, bytes)| *bytes >= limits::LEARNER_REQUESTS_BYTES)
    }

    fn put(&mut self, link: Link, later: Later) {
        let (queue, bytes) = self.links.entry(link).or_default();
        *bytes += size(&later);
        queue.push_back(later);
    }

    /// The oldest of the link that comes after the last, so that each has its turn.
    fn next(&mut self) -> Option<(Link, Later)> {
        let links = &mut self.links;
        let beyond = self.last.and_then(|after| links.keys().copied().find(|link| *link > after));
        let link = beyond.or_else(|| links.keys().next().copied())?;
        let (queue, bytes) = links.get_mut(&link)?;
        let later = queue.pop_front()?;
        *bytes -= size(&later);
        if queue.is_empty() {
            links.remove(&link);
        }
        self.last = Some(link);
        Some((link, later))
    }

    pub fn forget(&mut self, link: Link) {
        self.links.remove(&link);
    }

    pub fn clear(&mut self) {
        self.links.clear();
    }
}

fn size(later: &Later) -> usize {
    match later {
        Later::Request { record, auth, .. } => {
            let ids: usize = auth.iter().map(|(scheme, id)| scheme.len() + id.len() + 48).sum();
            PutAside::FIXED_BYTES + record.len() + ids
        }
        Later::Revalidate(_) => PutAside::FIXED_BYTES,
    }
}

impl Pipeline {
    /// Whether peers have said something that may be worked off now.
    pub(super) fn peers_have_work(&self) -> bool {
        let Some(member) = &self.member else { return false };
        match &member.peer.role {
            Role::Looking => false,
            Role::Leading(_) => {
                let may_go_on = !member.put_aside.is_empty() && member.leads() && self.has_room();
                may_go_on || member.net.readable().any(|link| !member.put_aside.is_full(link))
            }
            Role::Learning { .. } => member.net.leader_has_work() && self.may_hear_leader(),
        }
    }

    /// Packets of learners.
    pub(super) fn hear_learners(&mut self, now: Now) -> Result<(), Fatal> {
        let Some(member) = &mut self.member else { return Ok(()) };
        let Role::Leading(leader) = &mut member.peer.role else { return Ok(()) };
        for _ in 0..ROOM_PER_TURN {
            for link in member.net.accept(now) {
                leader.connected(link, now);
            }
            if !member.net.is_full() {
                break;
            }
            // Learners speak at once; whoever has said nothing for the longest time makes room.
            let Some(silent) = leader.oldest_silent() else { break };
            leader.closed(silent);
            member.net.close(silent);
            if member.log_rate.allows(now) {
                tracing::warn!("quorum port: too many connections that say nothing; the oldest is closed");
            }
        }
        let time_ms = crate::clock::wall_ms();
        self.take_up(now, time_ms);
        let Some(member) = &mut self.member else { return Ok(()) };
        let readable: Vec<Link> = member.net.readable().collect();
        for link in readable {
            self.hear_learner(link, now, time_ms)?;
        }
        Ok(())
    }

    /// What was put aside, as far as there is room now.
    fn take_up(&mut self, now: Now, time_ms: i64) {
        while self.has_room() {
            let Some(member) = &mut self.member else { return };
            if !member.leads() {
                return;
            }
            let Some((link, later)) = member.put_aside.next() else { return };
            match later {
                Later::Request { session, cxid, op, record, auth } => {
                    let request = Request { session, cxid, op, record: &record };
                    self.forwarded_request(link, &request, auth, now, time_ms);
                }
                Later::Revalidate(asked) => self.revalidate_for(link, asked, now),
            }
        }
    }

    fn hear_learner(&mut self, link: Link, now: Now, time_ms: i64) -> Result<(), Fatal> {
        let mut budget = TURN_BYTES;
        loop {
            let packet_max = self.packet_max(link);
            let Some(member) = &mut self.member else { return Ok(()) };
            let Some(stream) = member.net.link(link) else { return Ok(()) };
            let mut alive = match stream.fill(input_max(packet_max)) {
                Ok(alive) => alive,
                Err(error) => {
                    tracing::debug!("a learner's connection: {error}");
                    false
                }
            };
            let input = stream.lend();
            let mut at = 0;
            let mut waits;
            // Acknowledgements say "and everything before it": of a run of them the last one is enough.
            let mut ack = None;
            loop {
                waits = self.member.as_ref().is_some_and(|member| member.put_aside.is_full(link));
                if waits {
                    break;
                }
                match QuorumPacket::read(&input.bytes()[at..], packet_max) {
                    Ok(Some((packet, taken))) => {
                        at += taken;
                        if is_ack_of_proposal(&packet) {
                            ack = Some(packet);
                            continue;
                        }
                        if let Some(ack) = ack.take() {
                            self.learner_packet(link, ack, now, time_ms);
                        }
                        self.learner_packet(link, packet, now, time_ms);
                    }
                    Ok(None) => break,
                    Err(problem) => {
                        if self.member.as_mut().is_some_and(|member| member.log_rate.allows(now)) {
                            tracing::warn!(
                                "quorum port: a packet that is malformed ({problem}); the connection is closed"
                            );
                        }
                        alive = false;
                        break;
                    }
                }
            }
            if let Some(ack) = ack {
                self.learner_packet(link, ack, now, time_ms);
            }
            let Some(member) = &mut self.member else { return Ok(()) };
            let Role::Leading(leader) = &mut member.peer.role else { return Ok(()) };
            let Some(stream) = member.net.link(link) else { return Ok(()) };
            stream.give_back(input, at, waits);
            if !alive {
                leader.closed(link);
                member.forget(link);
                return Ok(());
            }
            budget = budget.saturating_sub(at);
            if waits || at == 0 || budget == 0 || !stream.is_readable() {
                return Ok(());
            }
        }
    }

    /// Bytes that a packet on a link may have: few, before it has said who it is. Nobody sends more before that is answered.
    fn packet_max(&self, link: Link) -> usize {
        const HELLO_BYTES: usize = 256;
        let Some(member) = &self.member else { return HELLO_BYTES };
        let known = matches!(&member.peer.role, Role::Leading(leader) if leader.server(link).is_some());
        if known { member.net.packet_max() } else { HELLO_BYTES }
    }

    fn learner_packet(&mut self, link: Link, packet: QuorumPacket<'_>, now: Now, time_ms: i64) {
        let has_room = self.has_room();
        let Some(member) = &mut self.member else { return };
        let Role::Leading(leader) = &mut member.peer.role else { return };
        let heard = leader.packet(link, packet, &mut member.peer.history, now);
        // In its order; and a leader that does not serve yet can say nothing about a session.
        let has_to_wait = !member.leads() || member.put_aside.has(link);
        match heard {
            Heard::Nothing => {}
            Heard::Request { request, auth } if has_to_wait || !has_room => {
                let Request { session, cxid, op, record } = request;
                member.put_aside.put(link, Later::Request { session, cxid, op, record: record.to_vec(), auth });
            }
            Heard::Request { request, auth } => self.forwarded_request(link, &request, auth, now, time_ms),
            Heard::Revalidate(asked) if has_to_wait => member.put_aside.put(link, Later::Revalidate(asked)),
            Heard::Revalidate(asked) => self.revalidate_for(link, asked, now),
            Heard::Sessions(data) => {
                if member.serving {
                    for touched in SessionTimeout::read_all(data).filter_map(Result::ok) {
                        // Whose client uses another connection by now says so with this.
                        let kept = member.unclaimed.contains(&touched.session);
                        let kept = kept.then(|| self.sessions.owner(touched.session)).flatten();
                        let owner = kept.unwrap_or(ConnId::of_link(link.0).into());
                        self.sessions.touch_elsewhere(touched.session, touched.timeout_ms, owner, now);
                    }
                }
            }
        }
    }

    /// Not while the line is full of what goes by itself, without a word of the leader's.
    fn may_hear_leader(&self) -> bool {
        let Some(member) = &self.member else { return false };
        let goes_by_itself = self.pending.front().is_some_and(|first| first.zxid <= member.committed);
        self.has_room() || !goes_by_itself || self.waits_for_sync()
    }

    /// Packets of the leader.
    pub(super) fn hear_leader(&mut self, now: Now) -> Result<(), Fatal> {
        let mut budget = TURN_BYTES;
        let Some(member) = &mut self.member else { return Ok(()) };
        let Role::Learning { leader, learner } = &mut member.peer.role else { return Ok(()) };
        if member.net.progress(now) {
            learner.connected(now);
        } else if member.net.gave_up(member.elections.is_connected(*leader)) {
            member.elections.pass_over(*leader, now);
            self.leave_role("the elected leader does not take connections", now);
            return Ok(());
        }
        loop {
            if self.member.as_ref().is_some_and(|member| member.receiving.is_some()) {
                if !self.receive_snapshot(&mut budget, now)? {
                    return Ok(());
                }
                continue;
            }
            let Some(member) = &mut self.member else { return Ok(()) };
            let packet_max = member.net.packet_max();
            let Some(stream) = member.net.leader() else { return Ok(()) };
            let alive = stream.fill(input_max(packet_max)).unwrap_or(false);
            let input = stream.lend();
            let mut at = 0;
            let mut waits = false;
            while self.takes_packets() {
                waits = !self.may_hear_leader();
                if waits {
                    break;
                }
                match QuorumPacket::read(&input.bytes()[at..], packet_max) {
                    Ok(Some((packet, taken))) => {
                        at += taken;
                        self.leader_packet(&packet, now);
                        self.do_outputs(now)?;
                    }
                    Ok(None) => break,
                    Err(problem) => {
                        self.leave_role(&format!("the leader has sent what is no packet: {problem}"), now);
                        return Ok(());
                    }
                }
            }
            let Some(member) = &mut self.member else { return Ok(()) };
            if matches!(member.peer.role, Role::Looking) {
                return Ok(());
            }
            let is_receiving = member.receiving.is_some();
            let Some(stream) = member.net.leader() else { return Ok(()) };
            stream.give_back(input, at, waits || is_receiving);
            if !alive && !waits && !is_receiving {
                self.leave_role("the leader has closed the connection", now);
                return Ok(());
            }
            budget = budget.saturating_sub(at);
            if !is_receiving && (waits || at == 0 || budget == 0 || !stream.is_readable()) {
                return Ok(());
            }
        }
    }

    /// The leader's state, as far as it has arrived. `true` when it is here and in place, and packets follow.
    fn receive_snapshot(&mut self, budget: &mut usize, now: Now) -> Result<bool, Fatal> {
        let Some(member) = &mut self.member else { return Ok(false) };
        let packet_max = member.net.packet_max();
        let (Some(stream), Some(receiver)) = (member.net.leader(), &mut member.receiving) else { return Ok(false) };
        loop {
            let alive = stream.fill(input_max(packet_max)).unwrap_or(false);
            let input = stream.lend();
            let taken = receiver.push(input.bytes());
            // If it ends here, there may be packets behind it.
            let is_whole = receiver.is_whole();
            let spent = matches!(&taken, Ok(taken) if *taken >= *budget);
            stream.give_back(input, *taken.as_ref().unwrap_or(&0), is_whole || spent);
            match taken {
                Err(problem) => self.leave_role(&format!("the leader's state can't be read: {problem}"), now),
                Ok(_) if is_whole => {
                    self.install_snapshot(now)?;
                    let Some(member) = &mut self.member else { return Ok(false) };
                    let Role::Learning { learner, .. } = &mut member.peer.role else { return Ok(false) };
                    // What it has said meanwhile has not been read yet.
                    learner.still_alive(crate::clock::now());
                    return Ok(true);
                }
                Ok(_) if !alive => self.leave_role("the leader has closed the connection", now),
                Ok(taken) => {
                    if taken > 0
                        && let Role::Learning { learner, .. } = &mut member.peer.role
                    {
                        learner.still_alive(now);
                    }
                    *budget = budget.saturating_sub(taken);
                    if taken > 0 && *budget > 0 && stream.is_readable() {
                        continue;
                    }
                }
            }
            return Ok(false);
        }
    }

    fn takes_packets(&self) -> bool {
        self.member.as_ref().is_some_and(|member| match &member.peer.role {
            Role::Learning { learner, .. } => !learner.is_busy() && !learner.is_lost(),
            _ => false,
        })
    }

    fn leader_packet(&mut self, packet: &QuorumPacket<'_>, now: Now) {
        let Some(member) = &mut self.member else { return };
        let Role::Learning { learner, .. } = &mut member.peer.role else { return };
        let brought = learner.packet(packet, now);
        // Before this server serves too, or a long synchronisation would pile up here: nobody sees it, and what a leader
        // takes back is taken out of the tree. Where there are clients that would see it, it has to be certain.
        if member.kept.is_none() {
            member.committed = member.committed.max(learner.said_committed());
        }
        match brought {
            Brought::Nothing => {}
            Brought::Proposal { zxid, record } => self.take_proposal(zxid, record),
            Brought::Ping => {
                let fit = member.net.packet_max() / SessionTimeout::BYTES;
                let told = member.forwards.take_touched(fit);
                learner
                    .ping_answer(told.into_iter().map(|(session, timeout_ms)| SessionTimeout { session, timeout_ms }));
            }
            Brought::Valid(answer) => self.revalidated(answer),
        }
    }

    /// To the log, and into the line; what can't be decoded or makes no sense must go nowhere.
    fn take_proposal(&mut self, zxid: Zxid, record: &[u8]) {
        let Some(member) = &mut self.member else { return };
        let Role::Learning { learner, .. } = &mut member.peer.role else { return };
        let (header, txn, digest) = match read_txn(record) {
            Ok(read) if read.0.zxid == zxid => read,
            Ok(read) => return learner.fail(format!("the leader's proposal {zxid} says that it is {}", read.0.zxid)),
            Err(problem) => return learner.fail(format!("the leader's proposal {zxid} can't be decoded: {problem}")),
        };
        if matches!(txn, Txn::CreateSession { .. }) && header.session == SessionId::NONE {
            return learner.fail(format!("the leader's proposal {zxid} begins session 0"));
        }
        self.batch.push(zxid, record);
        member.peer.history.push_behind(zxid, record, self.tree.peek().zxid());
        learner.appended(zxid);
        if let Txn::SetData { op: OpCode::Reconfig, data, .. } = &txn {
            tracing::warn!("the leader proposes another configuration ({zxid}); this server can't change its members");
            member.peer.reconfigured(zxid, data.as_deref().unwrap_or_default());
        }
        let tells = tells_of_its_client(&txn);
        let (effect, reply) = member.forwards.claim(header, txn, digest);
        self.line_up_passed_over(zxid, reply.is_some());
        self.pending_bytes += record.len();
        self.pending.push_back(Pending { zxid, effect, reply, bytes: record.len() });
        self.count_towards_snapshot(1, record.len() as u64);
        if tells && reply.is_none() {
            self.heed_foreign(&header);
        }
        self.release_refused(header.session);
        if !self.has_room() {
            self.let_clients_go("this server has much to catch up with");
        }
    }

    /// Sends what stands in the roles' outputs.
    pub(super) fn send_to_peers(&mut self, now: Now) {
        self.send_snapshots(now);
        let Some(member) = &mut self.member else { return };
        match &mut member.peer.role {
            Role::Looking => {}
            Role::Leading(leader) => {
                let mut gone = Vec::new();
                let mut reading = Vec::new();
                for (link, output) in leader.each_output() {
                    let Some(stream) = member.net.link(link) else { continue };
                    if output.is_empty() && stream.backlog() == 0 {
                        continue;
                    }
                    let before = stream.backlog() + output.len();
                    let flushed = stream.send_all(output);
                    if flushed.is_err() {
                        gone.push(link);
                    } else if stream.backlog() + output.len() < before && !member.sending.is_empty() {
                        reading.push(link);
                    }
                }
                for link in reading {
                    leader.reads(link, now);
                }
                for &link in &gone {
                    leader.closed(link);
                }
                for link in gone {
                    member.forget(link);
                }
            }
            Role::Learning { learner, .. } => {
                let Some(stream) = member.net.leader() else { return };
                if let Err(error) = stream.send_all(&mut learner.output) {
                    self.leave_role(&format!("the connection to the leader: {error}"), now);
                }
            }
        }
    }
}

/// Bytes that may have arrived and not been decoded: one packet at least fits.
fn input_max(packet_max: usize) -> usize {
    2 * packet_max + FIXED
}

/// An acknowledgement whose fellows before it it makes superfluous; not that of NEWLEADER.
fn is_ack_of_proposal(packet: &QuorumPacket<'_>) -> bool {
    packet.packet_type() == Some(PacketType::Ack) && Zxid::from_wire(packet.zxid).counter() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cxid: i32, bytes: usize) -> Later {
        Later::Request { session: SessionId(1), cxid, op: 1, record: vec![0; bytes], auth: Vec::new() }
    }

    #[test]
    fn what_is_put_aside_keeps_its_order_for_each_link_and_every_link_has_its_turn() {
        let mut aside = PutAside::default();
        for cxid in 1..=3 {
            aside.put(Link(1), request(cxid, 10));
            aside.put(Link(2), request(10 * cxid, 10));
        }
        let mut order = Vec::new();
        while let Some((_, Later::Request { cxid, .. })) = aside.next() {
            order.push(cxid);
        }
        assert_eq!(order, [1, 10, 2, 20, 3, 30]);
        assert!(aside.is_empty() && !aside.has(Link(1)));
        // Also where the first always has something.
        [1, 2, 3].iter().for_each(|&link| aside.put(Link(link), request(1, 10)));
        for expected in [3, 1, 2] {
            let (link, _) = aside.next().unwrap();
            assert_eq!(link, Link(expected));
            aside.put(Link(1), request(2, 10));
        }
    }

    #[test]
    fn a_link_that_has_put_too_much_aside_is_full_until_some_of_it_is_taken_up() {
        let mut aside = PutAside::default();
        aside.put(Link(1), request(1, limits::LEARNER_REQUESTS_BYTES));
        assert!(aside.is_full(Link(1)) && !aside.is_full(Link(2)));
        assert!(aside.next().is_some());
        assert!(!aside.is_full(Link(1)));
        aside.put(Link(1), request(2, limits::LEARNER_REQUESTS_BYTES));
        aside.forget(Link(1));
        assert!(aside.is_empty());
    }
}
