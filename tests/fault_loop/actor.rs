//! A client that writes, reads, loses its connection, and goes on elsewhere with the same session.
//!
//! Up to eight requests are in flight at once. Runs on: a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ostler::clock::{self, Now};
use ostler::random::Rng;

use super::history::{Answer, Asked, Entry, Expired, History, SINGLE, TOGETHER, Time};
use super::history::{appended, ephemeral, register};
use crate::support::client::{self, Client, Refusal, Reply, multi, op};
use crate::support::conn::Granted;
use crate::support::jute::{Reader, Writer};
use crate::support::servers::pause;

/// How long an answer may take before the client goes elsewhere.
const PATIENCE: Duration = Duration::from_millis(2_500);

pub struct Shared {
    pub begin: Now,
    pub over: AtomicBool,
    /// Answers so far, of all clients.
    pub answered: AtomicU64,
    /// Acknowledged writes so far, of all clients.
    pub written: AtomicU64,
    pub connections: AtomicU64,
    pub timeout_ms: i32,
}

pub struct Actor {
    pub number: usize,
    pub servers: Vec<SocketAddr>,
    pub shared: Arc<Shared>,
    pub rng: Rng,
    history: History,
    next_value: u64,
    appends: u64,
    ephemerals: u64,
    /// Of the present session, acknowledged.
    held: Vec<u64>,
    /// Newest versions it has seen.
    versions: [i32; SINGLE],
}

struct Session {
    granted: Granted,
    last_zxid: i64,
    last_sent: Time,
}

impl Actor {
    pub fn new(number: usize, servers: Vec<SocketAddr>, shared: Arc<Shared>, seed: u64) -> Actor {
        let rng = Rng::new(seed.wrapping_mul(1_000_003) ^ number as u64);
        let (next_value, appends, ephemerals) = (1, 0, 0);
        let (history, held, versions) = (History::default(), Vec::new(), [0; SINGLE]);
        Actor { number, servers, shared, rng, history, next_value, appends, ephemerals, held, versions }
    }

    fn now(&self) -> Time {
        clock::now().since(self.shared.begin).as_nanos() as u64
    }

    fn over(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed)
    }

    /// Until it is over. The session is left behind, to expire.
    pub fn run(mut self) -> History {
        let mut session: Option<Session> = None;
        while !self.over() {
            let at = self.rng.below(self.servers.len() as u64) as usize;
            let address = self.servers[at];
            let entered = match &session {
                None => Client::enter(address, self.shared.timeout_ms, 0, 0, &[0; 16], PATIENCE),
                Some(Session { granted, last_zxid, .. }) => {
                    let (timeout, id) = (granted.timeout, granted.session);
                    Client::enter(address, timeout, *last_zxid, id, &granted.password, PATIENCE)
                }
            };
            match entered {
                Ok(mut client) => {
                    if let Some(Session { granted, .. }) = &session {
                        self.history.moves += 1;
                        if granted.session != client.granted.session {
                            self.history.wrong.push(format!("{granted:?} became {:?}", client.granted));
                        }
                    }
                    client.patience = PATIENCE;
                    let last_sent = self.stay(&mut client, at);
                    let before = session.as_ref().map_or(0, |session| session.last_sent);
                    let (granted, last_zxid) = (client.granted.clone(), client.last_zxid);
                    session = Some(Session { granted, last_zxid, last_sent: last_sent.unwrap_or(0).max(before) });
                }
                Err(Refusal::Expired) => {
                    if let Some(Session { granted, last_sent, .. }) = session.take() {
                        let (session, timeout) = (granted.session, granted.timeout);
                        let told = self.now();
                        self.history.expired.push(Expired { session, timeout, last_sent, told });
                    }
                    self.held.clear();
                }
                Err(Refusal::NotNow(_)) => pause(Duration::from_millis(10)),
            }
        }
        self.history
    }

    /// Until the connection is lost, or left; when the last answered request was sent.
    fn stay(&mut self, client: &mut Client, server: usize) -> Option<Time> {
        let connection = self.shared.connections.fetch_add(1, Ordering::Relaxed) as u32;
        let mut last_sent = None;
        while !self.over() {
            let count = 1 + self.rng.below(8) as usize;
            let first = self.history.entries.len();
            let mut xids = Vec::new();
            for _ in 0..count {
                let asked = self.choose();
                let (op, body) = self.request(asked);
                let invoked = self.now();
                let (client_number, session) = (self.number, client.granted.session);
                let entry = Entry { client: client_number, session, connection, server, invoked, asked, answer: None };
                self.history.entries.push(entry);
                match client.send(op, body) {
                    Ok(xid) => xids.push(xid),
                    Err(_) => break,
                }
            }
            if self.rng.below(100) == 0 {
                // Goes elsewhere, with requests in flight.
                return last_sent;
            }
            for (place, xid) in xids.iter().enumerate() {
                let before = client.last_zxid;
                let Ok(reply) = client.receive() else { return last_sent };
                let now = self.now();
                let at = first + place;
                if reply.xid != *xid || reply.zxid < before {
                    self.history.wrong.push(format!("{reply:?} after zxid {before:x}, xid {xid} was due"));
                }
                self.shared.answered.fetch_add(1, Ordering::Relaxed);
                self.answered(at, now, &reply);
                last_sent = Some(self.history.entries[at].invoked);
            }
            if xids.len() < count {
                return last_sent;
            }
            if self.rng.below(100) == 0 {
                // Goes elsewhere, with nothing in flight.
                return last_sent;
            }
            // Half an hour of this has to fit into memory.
            pause(Duration::from_millis(self.rng.below(16)));
        }
        last_sent
    }

    fn value(&mut self) -> u64 {
        let value = (self.next_value << 8) | self.number as u64;
        self.next_value += 1;
        value
    }

    fn choose(&mut self) -> Asked {
        let key = self.rng.below(SINGLE as u64) as usize;
        match self.rng.below(20) {
            0..6 => Asked::Set { key, value: self.value() },
            6..8 => Asked::Swap { key, value: self.value(), version: self.versions[key] },
            8..10 => Asked::Multi { value: self.value() },
            10..12 => {
                self.appends += 1;
                Asked::Append { index: self.appends }
            }
            12 => {
                self.ephemerals += 1;
                Asked::Ephemeral { index: self.ephemerals }
            }
            13 => match self.held.last() {
                Some(&index) => Asked::Held { index },
                None => Asked::Sync,
            },
            14 => Asked::Sync,
            _ => Asked::Get { key: self.rng.below((SINGLE + TOGETHER) as u64) as usize },
        }
    }

    fn request(&self, asked: Asked) -> (i32, Writer) {
        let text = |value: u64| value.to_string().into_bytes();
        match asked {
            Asked::Set { key, value } => (op::SET, client::set(&register(key), &text(value))),
            Asked::Swap { key, value, version } => {
                (op::SET, Writer::new().text(&register(key)).bytes(Some(&text(value))).int(version))
            }
            Asked::Multi { value } => {
                let set = |key| (op::SET, client::set(&register(key), &text(value)));
                (op::MULTI, multi(&(SINGLE..SINGLE + TOGETHER).map(set).collect::<Vec<_>>()))
            }
            Asked::Append { index } => (op::CREATE, client::create(&appended(self.number, index), b"", 0)),
            Asked::Ephemeral { index } => {
                (op::CREATE, client::create(&ephemeral(self.number, index), b"", client::EPHEMERAL))
            }
            Asked::Held { index } => (op::EXISTS, Writer::new().text(&ephemeral(self.number, index)).bool(false)),
            Asked::Get { key } => (op::GET, Writer::new().text(&register(key)).bool(false)),
            Asked::Sync => (op::SYNC, Writer::new().text("/")),
        }
    }

    fn answered(&mut self, at: usize, now: Time, reply: &Reply) {
        let mut answer = Answer { zxid: reply.zxid, err: reply.err, ..Answer::default() };
        let asked = self.history.entries[at].asked;
        if reply.err == 0 {
            match asked {
                Asked::Set { .. } | Asked::Swap { .. } | Asked::Held { .. } => answer.stat = reply.stat(),
                Asked::Get { .. } => {
                    if let Some((data, stat)) = reply.data() {
                        let text = String::from_utf8_lossy(&data);
                        answer.value = text.parse().unwrap_or(u64::MAX);
                        answer.stat = Some(stat);
                    }
                }
                // Of the first of the results: its header, then its Stat.
                Asked::Multi { .. } => {
                    let mut reader = Reader(&reply.body);
                    let _ = reader.take(9);
                    answer.stat = reader.stat();
                }
                Asked::Ephemeral { index } => self.held.push(index),
                Asked::Append { .. } | Asked::Sync => {}
            }
            if asked.is_write() {
                self.shared.written.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let (Some(stat), Asked::Set { key, .. } | Asked::Swap { key, .. } | Asked::Get { key }) =
            (answer.stat, asked)
            && key < SINGLE
        {
            self.versions[key] = self.versions[key].max(stat.version);
        }
        self.history.entries[at].answer = Some((now, answer));
    }
}
