//! The network of a simulated ensemble: connections that carry bytes in order, and everything that happens to them.
//!
//! ZAB leans on TCP, so what is simulated are connections and not datagrams: a direction delays, is stalled, breaks at any
//! byte; one side may not know that the other is gone. While the way from one host to another is blocked, what was sent
//! waits; when it opens again, the connections either go on or break.
//!
//! Leaves to the world: when events happen; who is at an end. Time comes in, chance too.

use ostler::random::Rng;
use std::collections::{BTreeMap, VecDeque};

/// Nanoseconds of the world's own clock.
pub type Time = u64;
pub const MS: Time = 1_000_000;

/// Which door of a server a connection goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    Election,
    Quorum,
    Client,
}

/// Bytes on the way in one direction above which a sender has to wait: the buffers of both sockets.
const WINDOW: usize = 64 << 10;

enum Chunk {
    Bytes(Vec<u8>),
    /// The end: nothing follows.
    End,
}

#[derive(Default)]
struct Direction {
    chunks: VecDeque<(Time, Chunk)>,
    in_flight: usize,
    last_at: Time,
    /// An event for the first chunk is under way.
    armed: bool,
    /// Nothing moves before this.
    stalled_until: Time,
    /// The sender had to wait for room.
    wants_room: bool,
}

pub struct Conn {
    /// The opener's host and the acceptor's.
    pub hosts: [usize; 2],
    open: [bool; 2],
    /// Towards that side.
    towards: [Direction; 2],
}

/// What an arrival brings.
pub enum Arrival {
    Nothing,
    Bytes(Vec<u8>),
    End,
}

/// What has to be looked at again, and when: a connection's direction.
pub type Again = (Time, u32, usize);

pub struct Net {
    conns: BTreeMap<u32, Conn>,
    next: u32,
    hosts: usize,
    blocked: Vec<bool>,
    pub latency: (Time, Time),
    /// Of a thousand chunks, so many arrive in two pieces.
    pub split_per_mille: u64,
}

impl Net {
    pub fn new(hosts: usize) -> Net {
        Net {
            conns: BTreeMap::new(),
            next: 1,
            hosts,
            blocked: vec![false; hosts * hosts],
            latency: (MS / 10, 2 * MS),
            split_per_mille: 20,
        }
    }

    pub fn delay(&self, rng: &mut Rng) -> Time {
        self.latency.0 + rng.below((self.latency.1 - self.latency.0).max(1))
    }

    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked[from * self.hosts + to]
    }

    pub fn block(&mut self, from: usize, to: usize) {
        if from != to {
            self.blocked[from * self.hosts + to] = true;
        }
    }

    pub fn heal(&mut self) {
        self.blocked.fill(false);
    }

    /// A new connection between two hosts, open at both ends.
    pub fn connect(&mut self, from: usize, to: usize) -> u32 {
        let id = self.next;
        self.next += 1;
        let conn = Conn { hosts: [from, to], open: [true; 2], towards: [Direction::default(), Direction::default()] };
        self.conns.insert(id, conn);
        id
    }

    pub fn get(&self, id: u32) -> Option<&Conn> {
        self.conns.get(&id)
    }

    /// The side of a host that is open, if there is one.
    pub fn side(&self, id: u32, host: usize) -> Option<usize> {
        let conn = self.conns.get(&id)?;
        (0..2).find(|&side| conn.hosts[side] == host && conn.open[side])
    }

    /// Whether more bytes can be taken from this side. If not, it will be said when there is room.
    pub fn has_room(&mut self, id: u32, from: usize) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return true };
        let direction = &mut conn.towards[1 - from];
        direction.wants_room = direction.in_flight >= WINDOW;
        !direction.wants_room
    }

    pub fn send(&mut self, now: Time, id: u32, from: usize, bytes: Vec<u8>, rng: &mut Rng) -> Option<Again> {
        let delay = self.delay(rng);
        let conn = self.conns.get_mut(&id).filter(|conn| conn.open[from])?;
        let direction = &mut conn.towards[1 - from];
        direction.in_flight += bytes.len();
        direction.push(now + delay, Chunk::Bytes(bytes));
        direction.arm(id, 1 - from, now)
    }

    /// This side closes: what it has sent still arrives, then the other side hears of the end. Not if `silent`.
    pub fn close(&mut self, now: Time, id: u32, side: usize, silent: bool, rng: &mut Rng) -> Option<Again> {
        let delay = self.delay(rng);
        let conn = self.conns.get_mut(&id)?;
        if !std::mem::replace(&mut conn.open[side], false) {
            return None;
        }
        let other = 1 - side;
        if !conn.open[other] {
            self.conns.remove(&id);
            return None;
        }
        if silent {
            return None;
        }
        let direction = &mut conn.towards[other];
        direction.push(now + delay, Chunk::End);
        direction.arm(id, other, now)
    }

    /// The connection breaks: of what is on the way a part arrives, cut at any byte, and both sides hear of the end.
    pub fn cut(&mut self, now: Time, id: u32, rng: &mut Rng) -> Vec<Again> {
        let delays = [self.delay(rng), self.delay(rng)];
        let Some(conn) = self.conns.get_mut(&id) else { return Vec::new() };
        let mut again = Vec::new();
        for (side, delay) in delays.into_iter().enumerate() {
            if !conn.open[side] {
                continue;
            }
            let direction = &mut conn.towards[side];
            let mut kept = rng.below(direction.in_flight as u64 + 1) as usize;
            let mut left = VecDeque::new();
            while let Some((at, Chunk::Bytes(mut bytes))) = direction.chunks.pop_front() {
                bytes.truncate(kept);
                kept -= bytes.len();
                if bytes.is_empty() {
                    break;
                }
                left.push_back((at, Chunk::Bytes(bytes)));
            }
            direction.in_flight = left.iter().map(|(_, chunk)| chunk.len()).sum();
            direction.chunks = left;
            direction.last_at = direction.chunks.back().map_or(0, |&(at, _)| at);
            direction.stalled_until = 0;
            direction.push(now + delay, Chunk::End);
            again.extend(direction.arm(id, side, now));
        }
        again
    }

    /// Nothing arrives at this side for a while.
    pub fn stall(&mut self, id: u32, side: usize, until: Time) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.towards[side].stalled_until = until;
        }
    }

    /// Something may have arrived at a side. `up` says whether its host runs.
    pub fn arrive(&mut self, now: Time, id: u32, side: usize, up: bool, rng: &mut Rng) -> (Arrival, Vec<Again>) {
        let split = rng.below(1000) < self.split_per_mille;
        let delay = self.delay(rng);
        let Some(conn) = self.conns.get_mut(&id) else { return (Arrival::Nothing, Vec::new()) };
        let blocked = self.blocked[conn.hosts[1 - side] * self.hosts + conn.hosts[side]];
        let direction = &mut conn.towards[side];
        direction.armed = false;
        if blocked {
            // Taken up again when the way is open (`resume`).
            return (Arrival::Nothing, Vec::new());
        }
        match direction.chunks.front() {
            Some(&(at, _)) if at.max(direction.stalled_until) <= now => {}
            _ => return (Arrival::Nothing, direction.arm(id, side, now).into_iter().collect()),
        }
        let (at, chunk) = direction.chunks.pop_front().expect("just looked");
        if !conn.open[side] {
            direction.chunks.clear();
            direction.in_flight = 0;
            if matches!(chunk, Chunk::End) {
                // Of one that has broken, the other side may have it still to hear.
                if !conn.open[1 - side] {
                    self.conns.remove(&id);
                }
                return (Arrival::Nothing, Vec::new());
            }
            // A host that is up and knows nothing of the connection says so.
            let mut again = Vec::new();
            if up && conn.open[1 - side] {
                let back = &mut conn.towards[1 - side];
                back.push(now + delay, Chunk::End);
                again.extend(back.arm(id, 1 - side, now));
            }
            return (Arrival::Nothing, again);
        }
        match chunk {
            Chunk::Bytes(mut bytes) => {
                if split && bytes.len() > 1 {
                    let at_byte = 1 + rng.below(bytes.len() as u64 - 1) as usize;
                    let rest = bytes.split_off(at_byte);
                    direction.chunks.push_front((at + delay, Chunk::Bytes(rest)));
                }
                direction.in_flight -= bytes.len();
                (Arrival::Bytes(bytes), direction.arm(id, side, now).into_iter().collect())
            }
            Chunk::End => {
                conn.open[side] = false;
                if !conn.open[1 - side] {
                    self.conns.remove(&id);
                }
                (Arrival::End, Vec::new())
            }
        }
    }

    /// A sender that had to wait and now has room: its side's host.
    pub fn take_room_wanted(&mut self, id: u32, towards: usize) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        let direction = &mut conn.towards[towards];
        direction.in_flight < WINDOW && std::mem::take(&mut direction.wants_room)
    }

    /// Ways have opened: what waits moves on.
    pub fn resume(&mut self, now: Time) -> Vec<Again> {
        let Net { conns, blocked, hosts, .. } = self;
        let mut again = Vec::new();
        for (&id, conn) in conns.iter_mut() {
            for side in 0..2 {
                if !blocked[conn.hosts[1 - side] * *hosts + conn.hosts[side]] {
                    again.extend(conn.towards[side].arm(id, side, now));
                }
            }
        }
        again
    }

    /// Connections that a host has open.
    pub fn of_host(&self, host: usize) -> Vec<u32> {
        (self.conns.iter())
            .filter(|(_, conn)| (0..2).any(|side| conn.hosts[side] == host && conn.open[side]))
            .map(|(&id, _)| id)
            .collect()
    }

    /// Connections of one of the first hosts, the servers, with another of them.
    pub fn between(&self, host: usize, servers: usize) -> Vec<u32> {
        let conns = self.conns.iter().filter(|(_, conn)| conn.hosts.contains(&host));
        conns.filter(|(_, conn)| conn.hosts.iter().all(|&at| at < servers)).map(|(&id, _)| id).collect()
    }

    pub fn all(&self) -> Vec<u32> {
        self.conns.keys().copied().collect()
    }
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::End => 0,
        }
    }
}

impl Direction {
    fn push(&mut self, at: Time, chunk: Chunk) {
        let at = at.max(self.last_at);
        self.last_at = at;
        self.chunks.push_back((at, chunk));
    }

    fn arm(&mut self, id: u32, side: usize, now: Time) -> Option<Again> {
        let &(at, _) = self.chunks.front().filter(|_| !self.armed)?;
        self.armed = true;
        Some((at.max(self.stalled_until).max(now), id, side))
    }
}
