//! Which connection of the election port to keep (upstream: `QuorumCnxManager`).
//!
//! Any two servers share one connection. Both may dial, at the same moment too, and both have to come to the same
//! choice without asking: the one that the server with the larger id has made is kept. So a server with a smaller id
//! that has something to say dials, introduces itself, hangs up, and is called back.
//!
//! ```text
//!   to a smaller id:   dial ──▶ introduce ──▶ kept
//!   to a larger id:    dial ──▶ introduce ──▶ close ──▶ (call back) accepted ──▶ kept
//!   from a larger id:  accepted ──▶ introduced ──▶ kept; an older one is closed
//!   from a smaller id: accepted ──▶ introduced ──▶ close, and dial; an older one is closed, the peer has lost it
//! ```
//!
//! Peers are not authenticated, and anyone can connect. So: one live connection a peer; a bounded number that have not
//! said who they are, the oldest making room; a deadline for every step; one dial at a time to a peer, and only when
//! there is something to say to it or it has called. A peer that is slow or dead holds up nobody else: the notification
//! that waits for it is one, the newest.
//!
//! Names and addresses that come in a message are never dialled; members are dialled where the configuration has them.
//! A server that is not a member yet (it will be, when it has joined) is called back where it called from, on the port
//! that it names; few of these at a time, and none where the limit says so.
//!
//! Departures from ZooKeeper: a smaller id that calls while our own call to it has just come through is not a reason
//! to close that (both dial when both start, and ZooKeeper then connects twice); a call with our own id is closed; what
//! was sent last is not repeated on a new connection, since `Election` says what is right by then.
//!
//! Leaves to others: sockets, names, reading and writing bytes. Runs on: the pipeline thread, or the simulator.

use super::election::{Ballot, Reach};
use super::quorum::ServerSet;
use crate::clock::Now;
use crate::ids::ServerId;
use crate::limits::{ELECTION_PENDING_MAX, ELECTION_STRANGERS_MAX};
use crate::wire::election::{InitialMessage, PeerState};
use std::collections::BTreeMap;

/// A connection, dialled or accepted, for as long as the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u64);

/// What is waited for, in milliseconds, and how many may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkLimits {
    /// For a dial to come through (`zookeeper.cnxTimeout`).
    pub dial_ms: u64,
    /// For an accepted connection to say who it is (`zookeeper.quorumCnxnTimeoutMs`, by default syncLimit ticks).
    pub introduction_ms: u64,
    /// For a larger id to call back, before it is dialled again: so long the first time, since it may have been about to
    /// go; twice as long each time after that,
    pub call_back_first_ms: u64,
    /// until this.
    pub call_back_ms: u64,
    /// For the socket to take one notification.
    pub write_ms: u64,
    /// Connections that have not said who they are.
    pub pending: usize,
    /// Connections of servers that are not members.
    pub strangers: usize,
}

impl Default for LinkLimits {
    fn default() -> LinkLimits {
        LinkLimits {
            dial_ms: 5_000,
            introduction_ms: 10_000,
            call_back_first_ms: 50,
            call_back_ms: 1_000,
            write_ms: 5_000,
            pending: ELECTION_PENDING_MAX,
            strangers: ELECTION_STRANGERS_MAX,
        }
    }
}

/// For so long a link that we have made is not given up for a call of the same peer.
const YOUNG_MS: u64 = 500;

/// Where to dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The election address that the configurations in force have for it, its name resolved anew.
    Configured,
    /// The address at the other end of this connection (still open now), with this port.
    Caller { of: ConnId, port: u16 },
}

/// What the surroundings have to do, in the order given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkOutput {
    /// Connect, without blocking; report `dialed`, or `closed`.
    Dial { conn: ConnId, to: ServerId, target: Target },
    /// Write our initial message, in one segment.
    Introduce { conn: ConnId },
    /// Write a notification; report `written` when the last byte has been taken by the socket.
    Write { conn: ConnId, ballot: Ballot },
    /// Close, after what has been written. Not to be reported. `why`: a line for the log, where it is somebody's fault.
    Close { conn: ConnId, why: Option<&'static str> },
    /// For `Election::reach`.
    Reach { peer: ServerId, reach: Reach },
}

/// All connections of the election port.
#[derive(Debug)]
pub struct ElectionLinks {
    me: ServerId,
    limits: LinkLimits,
    members: ServerSet,
    next_conn: u64,
    conns: BTreeMap<ConnId, Conn>,
    /// One for each that is a member or has a connection.
    peers: BTreeMap<ServerId, Peer>,
}

#[derive(Clone, Copy, Debug)]
enum Conn {
    /// Accepted; has not said who it is.
    Pending { until: Now },
    /// Being made to this peer.
    Dialing { to: ServerId, until: Now },
    /// The one connection with this peer.
    Link { peer: ServerId },
}

#[derive(Debug)]
struct Peer {
    link: Option<Link>,
    dial: Option<ConnId>,
    /// A larger id has been told that we want to talk,
    called_until: Option<Now>,
    /// so many times by now.
    calls: u32,
    /// The newest notification that has not begun to go out.
    waiting: Option<Ballot>,
    /// As last reported.
    reach: Reach,
}

#[derive(Debug)]
struct Link {
    conn: ConnId,
    since: Now,
    dialed: bool,
    /// Until when the notification under way has to be out.
    writing_until: Option<Now>,
}

impl Peer {
    fn new() -> Peer {
        Peer { link: None, dial: None, called_until: None, calls: 0, waiting: None, reach: Reach::Unknown }
    }
}

impl ElectionLinks {
    /// `members` are all servers of the configurations in force.
    pub fn new(me: ServerId, members: ServerSet, limits: LinkLimits) -> ElectionLinks {
        let mut links = ElectionLinks {
            me,
            limits,
            members: ServerSet::EMPTY,
            next_conn: 0,
            conns: BTreeMap::new(),
            peers: BTreeMap::new(),
        };
        links.set_members(members, &mut Vec::new());
        links
    }

    /// Other members. Connections with those who are none any more are closed.
    pub fn set_members(&mut self, mut members: ServerSet, out: &mut Vec<LinkOutput>) {
        members.remove(self.me);
        for gone in self.members.without(members).iter() {
            self.forget(gone, None, out);
        }
        self.members = members;
        for id in members.iter() {
            self.peers.entry(id).or_insert_with(Peer::new);
        }
    }

    /// Whose connection this is, once it has said so. Bytes of others are to be ignored.
    pub fn peer_of(&self, conn: ConnId) -> Option<ServerId> {
        match self.conns.get(&conn) {
            Some(Conn::Link { peer }) => Some(*peer),
            _ => None,
        }
    }

    /// Whether this connection still has to say who it is.
    pub fn is_pending(&self, conn: ConnId) -> bool {
        matches!(self.conns.get(&conn), Some(Conn::Pending { .. }))
    }

    /// Says something to a server, connecting if need be. Replaces what still waits for it.
    pub fn send(&mut self, to: ServerId, ballot: Ballot, now: Now, out: &mut Vec<LinkOutput>) {
        let write_until = now.plus_ms(self.limits.write_ms);
        let Some(peer) = self.peers.get_mut(&to) else { return };
        match &mut peer.link {
            Some(link) if link.writing_until.is_none() => {
                link.writing_until = Some(write_until);
                out.push(LinkOutput::Write { conn: link.conn, ballot });
            }
            Some(_) => peer.waiting = Some(ballot),
            None => {
                peer.waiting = Some(ballot);
                self.call(to, Target::Configured, now, out);
            }
        }
    }

    /// Somebody has connected. The connection's name from now on.
    pub fn accepted(&mut self, now: Now, out: &mut Vec<LinkOutput>) -> ConnId {
        let pending = self.conns.iter().filter(|(_, state)| matches!(state, Conn::Pending { .. }));
        let mut pending = pending.map(|(&conn, _)| conn);
        // The oldest has had the longest time to speak; servers speak at once.
        if let Some(oldest) = pending.next().filter(|_| pending.count() + 1 >= self.limits.pending) {
            self.drop_conn(oldest, Some("too many connections that do not say who they are"), out);
        }
        let until = now.plus_ms(self.limits.introduction_ms);
        self.open(Conn::Pending { until })
    }

    /// An accepted connection has said who it is.
    pub fn introduced(&mut self, conn: ConnId, message: &InitialMessage, now: Now, out: &mut Vec<LinkOutput>) {
        if !self.is_pending(conn) {
            return;
        }
        let from = match u8::try_from(message.server) {
            Ok(id) if ServerId(id) != self.me => ServerId(id),
            Ok(_) => return self.drop_conn(conn, Some("a server with the id of this one"), out),
            Err(_) => return self.drop_conn(conn, Some("an id that no server has"), out),
        };
        let port = message.addresses.iter().find_map(|address| address.rsplit_once(':')?.1.parse().ok());
        let target = match port {
            _ if self.members.contains(from) => Target::Configured,
            _ if self.limits.strangers == 0 => return self.drop_conn(conn, Some("not a member"), out),
            Some(port) => Target::Caller { of: conn, port },
            None if from > self.me => Target::Configured,
            None => return self.drop_conn(conn, Some("not a member, and no address to call back"), out),
        };
        self.make_room_for(from, out);
        let peer = self.peers.entry(from).or_insert_with(Peer::new);
        if from > self.me {
            return self.establish(from, conn, false, now, out);
        }
        let young = |link: &Link| link.dialed && now < link.since.plus_ms(YOUNG_MS);
        if !peer.link.as_ref().is_some_and(young) {
            self.unlink(from, None, out);
            self.call(from, target, now, out);
        }
        // After the dial, which may need the address.
        self.drop_conn(conn, None, out);
    }

    /// What an accepted connection has said first makes no sense, or what a peer says later.
    pub fn malformed(&mut self, conn: ConnId, now: Now, out: &mut Vec<LinkOutput>) {
        if self.conns.contains_key(&conn) {
            out.push(LinkOutput::Close { conn, why: Some("malformed message") });
            self.closed(conn, now, out);
        }
    }

    /// A dial has come through, or it has failed (refused, unreachable, no such name).
    pub fn dialed(&mut self, conn: ConnId, connected: bool, now: Now, out: &mut Vec<LinkOutput>) {
        let Some(&Conn::Dialing { to, .. }) = self.conns.get(&conn) else { return };
        if !connected {
            return self.closed(conn, now, out);
        }
        out.push(LinkOutput::Introduce { conn });
        if to < self.me {
            return self.establish(to, conn, true, now, out);
        }
        self.drop_conn(conn, None, out);
        let LinkLimits { call_back_first_ms, call_back_ms, .. } = self.limits;
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.dial = None;
            let patience_ms = (call_back_first_ms << peer.calls.min(16)).min(call_back_ms);
            peer.called_until = Some(now.plus_ms(patience_ms));
            peer.calls = peer.calls.saturating_add(1);
        }
        self.tell(to, Reach::Unknown, out);
    }

    /// The socket has taken the whole of the notification.
    pub fn written(&mut self, conn: ConnId, now: Now, out: &mut Vec<LinkOutput>) {
        let Some(id) = self.peer_of(conn) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(link) = &mut peer.link {
            link.writing_until = None;
        }
        if let Some(ballot) = peer.waiting.take() {
            self.send(id, ballot, now, out);
        }
    }

    /// A connection has ended without us, or a dial has failed.
    pub fn closed(&mut self, conn: ConnId, now: Now, out: &mut Vec<LinkOutput>) {
        match self.conns.remove(&conn) {
            None | Some(Conn::Pending { .. }) => {}
            Some(Conn::Dialing { to, .. }) => {
                if let Some(peer) = self.peers.get_mut(&to) {
                    (peer.dial, peer.calls) = (None, 0);
                    peer.waiting = None;
                }
                self.tell(to, Reach::Unreachable, out);
                self.tidy(to);
            }
            Some(Conn::Link { peer: id }) => self.lost(id, now, out),
        }
    }

    /// When `tick` wants to be called next.
    pub fn deadline(&self) -> Option<Now> {
        let conns = self.conns.values().filter_map(|conn| match conn {
            Conn::Pending { until } | Conn::Dialing { until, .. } => Some(*until),
            Conn::Link { .. } => None,
        });
        let writes = self.peers.values().filter_map(|peer| peer.link.as_ref()?.writing_until);
        let calls = self.peers.values().filter_map(|peer| peer.called_until);
        conns.chain(writes).chain(calls).min()
    }

    pub fn tick(&mut self, now: Now, out: &mut Vec<LinkOutput>) {
        let late: Vec<(ConnId, Conn)> = self.conns.iter().map(|(&conn, &state)| (conn, state)).collect();
        for (conn, state) in late {
            let why = match state {
                Conn::Pending { until } if until <= now => Some("it did not say who it is"),
                Conn::Dialing { until, .. } if until <= now => None,
                Conn::Link { peer } if self.writes_too_long(peer, now) => Some("it does not read"),
                _ => continue,
            };
            out.push(LinkOutput::Close { conn, why });
            self.closed(conn, now, out);
        }
        for id in self.members.iter() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if peer.called_until.is_some_and(|until| until <= now) {
                peer.called_until = None;
                if peer.waiting.is_some() {
                    self.call(id, Target::Configured, now, out);
                }
            }
        }
    }

    fn writes_too_long(&self, id: ServerId, now: Now) -> bool {
        let link = self.peers.get(&id).and_then(|peer| peer.link.as_ref());
        link.and_then(|link| link.writing_until).is_some_and(|until| until <= now)
    }

    fn open(&mut self, state: Conn) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.conns.insert(conn, state);
        conn
    }

    /// Dials, unless that is under way or the peer is expected to call.
    fn call(&mut self, to: ServerId, target: Target, now: Now, out: &mut Vec<LinkOutput>) {
        let until = now.plus_ms(self.limits.dial_ms);
        let idle = |peer: &Peer| peer.dial.is_none() && peer.called_until.is_none_or(|until| until <= now);
        let known = target != Target::Configured || self.members.contains(to);
        if !known || !self.peers.get(&to).is_some_and(idle) {
            return;
        }
        let conn = self.open(Conn::Dialing { to, until });
        let peer = self.peers.get_mut(&to).expect("it has just been looked at");
        peer.dial = Some(conn);
        out.push(LinkOutput::Dial { conn, to, target });
    }

    /// From now on this is the connection with that peer.
    fn establish(&mut self, id: ServerId, conn: ConnId, dialed: bool, now: Now, out: &mut Vec<LinkOutput>) {
        let Some(peer) = self.peers.get_mut(&id) else { return self.drop_conn(conn, None, out) };
        let others = [peer.link.take().map(|link| link.conn), peer.dial.take()];
        (peer.called_until, peer.calls) = (None, 0);
        peer.link = Some(Link { conn, since: now, dialed, writing_until: None });
        // Votes that waited are out of date; answers are not asked for again.
        let answer = peer.waiting.take().filter(|ballot| ballot.state != PeerState::Looking);
        for other in others.into_iter().flatten().filter(|&other| other != conn) {
            self.drop_conn(other, None, out);
        }
        self.conns.insert(conn, Conn::Link { peer: id });
        self.tell(id, Reach::Connected, out);
        if let Some(ballot) = answer {
            self.send(id, ballot, now, out);
        }
    }

    /// The connection with that peer is gone.
    fn lost(&mut self, id: ServerId, now: Now, out: &mut Vec<LinkOutput>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.link = None;
        let waits = peer.waiting.is_some();
        self.tell(id, Reach::Unknown, out);
        if waits {
            self.call(id, Target::Configured, now, out);
        }
        self.tidy(id);
    }

    /// Closes the connection with that peer, if there is one.
    fn unlink(&mut self, id: ServerId, why: Option<&'static str>, out: &mut Vec<LinkOutput>) {
        if let Some(link) = self.peers.get_mut(&id).and_then(|peer| peer.link.take()) {
            self.drop_conn(link.conn, why, out);
            self.tell(id, Reach::Unknown, out);
        }
    }

    /// Closes all that there is with that peer.
    fn forget(&mut self, id: ServerId, why: Option<&'static str>, out: &mut Vec<LinkOutput>) {
        self.unlink(id, why, out);
        if let Some(dial) = self.peers.remove(&id).and_then(|peer| peer.dial) {
            self.drop_conn(dial, None, out);
        }
    }

    fn drop_conn(&mut self, conn: ConnId, why: Option<&'static str>, out: &mut Vec<LinkOutput>) {
        self.conns.remove(&conn);
        out.push(LinkOutput::Close { conn, why });
    }

    fn tell(&mut self, id: ServerId, reach: Reach, out: &mut Vec<LinkOutput>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.reach != reach || reach == Reach::Connected {
            peer.reach = reach;
            out.push(LinkOutput::Reach { peer: id, reach });
        }
    }

    /// Nothing is kept of a stranger without a connection.
    fn tidy(&mut self, id: ServerId) {
        let idle = |peer: &Peer| peer.link.is_none() && peer.dial.is_none();
        if !self.members.contains(id) && self.peers.get(&id).is_some_and(idle) {
            self.peers.remove(&id);
        }
    }

    /// Before one more stranger, the one that came first goes.
    fn make_room_for(&mut self, id: ServerId, out: &mut Vec<LinkOutput>) {
        if self.members.contains(id) || self.peers.contains_key(&id) {
            return;
        }
        let conn = |peer: &Peer| peer.link.as_ref().map(|link| link.conn).or(peer.dial);
        let strangers = self.peers.iter().filter(|(id, _)| !self.members.contains(**id));
        let mut strangers: Vec<(Option<ConnId>, ServerId)> = strangers.map(|(&id, peer)| (conn(peer), id)).collect();
        strangers.sort_unstable();
        if strangers.len() >= self.limits.strangers
            && let Some(&(_, first)) = strangers.first()
        {
            self.forget(first, Some("too many servers that are not members"), out);
        }
    }
}

#[cfg(test)]
mod tests;
