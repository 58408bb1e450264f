//! Clients: sessions that write, read, sync and move between servers, and write down what they saw.
//!
//! Every written value is unique, so that a value that is read says which write it was. A client sends several requests
//! without waiting for answers; when its connection breaks, the fate of what is unanswered is unknown to it, and it goes
//! on with another server. Bytes are those of the client protocol.
//!
//! Leaves to the world: when a client wakes; to `checkers` what it all means.

use crate::network::{MS, Time};
use crate::serving::take_frame;
use ostler::ids::{SessionId, Zxid};
use ostler::random::Rng;
use ostler::session;
use ostler::wire::client::{
    AclEntry, ConnectRequest, ConnectResponse, CreateRequest, PathVersion, PathWatch, ReplyHeader, RequestHeader,
    SetDataRequest, flags,
};
use ostler::wire::multi::{self, MultiOp};
use ostler::wire::writer::{Frame, Jute};
use ostler::wire::{ErrorCode, OpCode, Reader};
use std::collections::VecDeque;

/// A request, as a client meant it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Create { path: String, data: String, ephemeral: bool, sequential: bool },
    Set { path: String, data: String, version: i32 },
    Delete { path: String, version: i32 },
    Check { path: String, version: i32 },
    Multi(Vec<Op>),
    Get(String),
    Exists(String),
    Children(String),
    Sync(String),
    Close,
}

impl Op {
    pub fn is_write(&self) -> bool {
        !matches!(self, Op::Get(_) | Op::Exists(_) | Op::Children(_) | Op::Sync(_))
    }

    pub fn code(&self) -> OpCode {
        match self {
            Op::Create { .. } => OpCode::Create2,
            Op::Set { .. } => OpCode::SetData,
            Op::Delete { .. } => OpCode::Delete,
            Op::Check { .. } => OpCode::Check,
            Op::Multi(_) => OpCode::Multi,
            Op::Get(_) => OpCode::GetData,
            Op::Exists(_) => OpCode::Exists,
            Op::Children(_) => OpCode::GetChildren2,
            Op::Sync(_) => OpCode::Sync,
            Op::Close => OpCode::CloseSession,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Op::Multi(ops) => {
                ops.iter().for_each(|op| op.write_in_multi(out));
                multi::write_header(out, -1, true, -1);
            }
            Op::Create { path, data, ephemeral, sequential } => {
                create(path, data, *ephemeral, *sequential).write(out, OpCode::Create2);
            }
            Op::Set { path, data, version } => set(path, data, *version).write(out),
            Op::Delete { path, version } | Op::Check { path, version } => path_version(path, *version).write(out),
            Op::Get(path) | Op::Exists(path) | Op::Children(path) => {
                PathWatch { path: Some(path.into()), watch: false }.write(out);
            }
            Op::Sync(path) => out.put_text(path),
            Op::Close => {}
        }
    }

    fn write_in_multi(&self, out: &mut Vec<u8>) {
        match self {
            Op::Create { path, data, ephemeral, sequential } => {
                MultiOp::Create(OpCode::Create2, create(path, data, *ephemeral, *sequential)).write(out);
            }
            Op::Set { path, data, version } => MultiOp::SetData(set(path, data, *version)).write(out),
            Op::Delete { path, version } => MultiOp::Delete(path_version(path, *version)).write(out),
            Op::Check { path, version } => MultiOp::Check(path_version(path, *version)).write(out),
            _ => unreachable!("no part of a multi"),
        }
    }
}

fn create<'a>(path: &'a str, data: &'a str, ephemeral: bool, sequential: bool) -> CreateRequest<'a> {
    let flags = match (ephemeral, sequential) {
        (false, false) => flags::PERSISTENT,
        (true, false) => flags::EPHEMERAL,
        (false, true) => flags::PERSISTENT_SEQUENTIAL,
        (true, true) => flags::EPHEMERAL_SEQUENTIAL,
    };
    let acl = AclEntry { perms: 31, scheme: Some("world".into()), id: Some("anyone".into()) };
    CreateRequest { path: Some(path.into()), data: Some(data.as_bytes()), acl: Some(vec![acl].into()), flags, ttl: -1 }
}

fn set<'a>(path: &'a str, data: &'a str, version: i32) -> SetDataRequest<'a> {
    SetDataRequest { path: Some(path.into()), data: Some(data.as_bytes()), version }
}

fn path_version(path: &str, version: i32) -> PathVersion<'_> {
    PathVersion { path: Some(path.into()), version }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub at: Time,
    pub zxid: Zxid,
    pub err: ErrorCode,
    pub body: Vec<u8>,
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Record {
    pub client: usize,
    pub session: SessionId,
    /// Counts the connections of a client.
    pub connection: u32,
    pub xid: i32,
    pub op: Op,
    pub invoked: Time,
    /// `None`: the connection was lost before.
    pub answer: Option<Answer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Apart,
    Dialing,
    Hello,
    Live,
}

/// What a client wants.
#[derive(Debug)]
pub enum Wish {
    Dial(usize),
    Send(u32, Vec<u8>),
    Close(u32),
    WakeAt(Time),
}

/// How clients behave in a run.
#[derive(Clone, Debug)]
pub struct Habits {
    pub servers: usize,
    pub timeout_ms: i32,
    /// The longest pause between two bursts.
    pub pause: Time,
    pub burst: u64,
    pub keys: u64,
    /// Of a thousand bursts, after so many the client leaves for another server.
    pub moves_per_mille: u64,
    /// Of a thousand writes, so many are multis, and so many creates of ephemerals.
    pub multis_per_mille: u64,
    pub ephemerals_per_mille: u64,
    pub reads_per_mille: u64,
    pub syncs_per_mille: u64,
}

pub struct Client {
    pub id: usize,
    rng: Rng,
    stage: Stage,
    conn: Option<u32>,
    server: usize,
    rx: Vec<u8>,
    pub session: SessionId,
    last_zxid: Zxid,
    xid: i32,
    counter: u64,
    connections: u32,
    /// Places in the history that wait for an answer.
    flights: VecDeque<usize>,
    heard_at: Time,
    sent_at: Time,
    pub history: Vec<Record>,
    /// Sessions it has had that the servers call expired.
    pub expired: Vec<SessionId>,
    pub stopped: bool,
    /// It stays with this server, and does only what it is told.
    only: Option<usize>,
    asleep: bool,
}

impl Client {
    pub fn new(id: usize, seed: u64) -> Client {
        Client {
            id,
            rng: Rng::new(seed),
            stage: Stage::Apart,
            conn: None,
            server: 0,
            rx: Vec::new(),
            session: SessionId::NONE,
            last_zxid: Zxid::ZERO,
            xid: 0,
            counter: 0,
            connections: 0,
            flights: VecDeque::new(),
            heard_at: 0,
            sent_at: 0,
            history: Vec::new(),
            expired: Vec::new(),
            stopped: false,
            only: None,
            asleep: false,
        }
    }

    pub fn wake(&mut self, now: Time, habits: &Habits) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let timeout = habits.timeout_ms as Time * MS;
        match self.stage {
            Stage::Apart if self.stopped || self.asleep => return wishes,
            Stage::Apart => {
                let any = self.rng.below(habits.servers as u64) as usize;
                self.server = self.only.unwrap_or(any);
                self.stage = Stage::Dialing;
                wishes.push(Wish::Dial(self.server));
                return wishes;
            }
            Stage::Dialing => {}
            Stage::Hello | Stage::Live if now - self.heard_at > timeout * 2 / 3 => {
                self.lost(&mut wishes);
                wishes.push(Wish::WakeAt(now + MS));
                return wishes;
            }
            Stage::Hello => {}
            Stage::Live => {
                let idle = now - self.sent_at > timeout / 3;
                let acts = !self.stopped && self.only.is_none();
                if acts && self.flights.len() < 8 && self.rng.below(1000) >= 100 {
                    self.burst(now, habits, &mut wishes);
                } else if idle {
                    self.send_frame(now, -2, OpCode::Ping, &[], &mut wishes);
                }
                if acts && self.rng.below(1000) < habits.moves_per_mille {
                    self.lost(&mut wishes);
                }
            }
        }
        let pause = if self.stopped { timeout / 4 } else { MS + self.rng.below(habits.pause) };
        wishes.push(Wish::WakeAt(now + pause));
        wishes
    }

    /// Gives up the connection; what is unanswered stays so.
    fn lost(&mut self, wishes: &mut Vec<Wish>) {
        wishes.extend(self.conn.take().map(Wish::Close));
        self.stage = Stage::Apart;
        self.flights.clear();
        self.rx.clear();
    }

    pub fn dialed(&mut self, conn: Option<u32>, now: Time, habits: &Habits) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let Some(conn) = conn else {
            self.stage = Stage::Apart;
            wishes.push(Wish::WakeAt(now + MS * (20 + self.rng.below(200))));
            return wishes;
        };
        self.conn = Some(conn);
        self.stage = Stage::Hello;
        self.connections += 1;
        (self.heard_at, self.sent_at) = (now, now);
        let password = session::password(self.session);
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid.to_wire(),
            timeout_ms: habits.timeout_ms,
            session: self.session,
            password: Some(if self.session == SessionId::NONE { &[0; 16] } else { &password }),
            read_only: Some(false),
        };
        let mut out = Vec::new();
        request.write(&mut out);
        wishes.push(Wish::Send(conn, out));
        wishes.push(Wish::WakeAt(now + MS * 200));
        wishes
    }

    pub fn closed(&mut self, conn: u32, now: Time) -> Vec<Wish> {
        let mut wishes = Vec::new();
        if self.conn == Some(conn) {
            self.conn = None;
            self.lost(&mut wishes);
            wishes.push(Wish::WakeAt(now + MS * (1 + self.rng.below(50))));
        }
        wishes
    }

    pub fn bytes(&mut self, conn: u32, bytes: &[u8], now: Time) -> Vec<Wish> {
        let mut wishes = Vec::new();
        if self.conn != Some(conn) {
            return wishes;
        }
        self.heard_at = now;
        self.rx.extend_from_slice(bytes);
        while let Some(frame) = take_frame(&mut self.rx) {
            if self.stage == Stage::Hello {
                let response = ConnectResponse::read(&frame).expect("a server answers the first frame");
                if response.timeout_ms == 0 {
                    assert!(self.session != SessionId::NONE, "a new session is not refused");
                    self.expired.push(self.session);
                    (self.session, self.xid) = (SessionId::NONE, 0);
                    self.lost(&mut wishes);
                    break;
                }
                let asked = self.session;
                assert!(asked == SessionId::NONE || asked == response.session, "C-59: another session than asked for");
                self.session = response.session;
                self.stage = Stage::Live;
                continue;
            }
            self.reply(&frame, now, &mut wishes);
        }
        wishes
    }

    fn reply(&mut self, frame: &[u8], now: Time, wishes: &mut Vec<Wish>) {
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::read(&mut reader).expect("a server sends a header");
        let zxid = Zxid::from_wire(header.zxid);
        if header.xid == -2 {
            return;
        }
        let at = self.flights.pop_front().expect("an answer to nothing");
        let record = &mut self.history[at];
        assert_eq!(record.xid, header.xid, "checker F: answers in the order of requests: {record:?}");
        record.answer = Some(Answer { at: now, zxid, err: header.err, body: reader.rest().to_vec() });
        assert!(zxid >= self.last_zxid, "checker S: {zxid} after {} in {record:?}", self.last_zxid);
        self.last_zxid = zxid;
        if record.op == Op::Close {
            (self.session, self.xid) = (SessionId::NONE, 0);
            self.lost(wishes);
        }
    }

    fn burst(&mut self, now: Time, habits: &Habits, wishes: &mut Vec<Wish>) {
        for _ in 0..1 + self.rng.below(habits.burst) {
            let op = self.choose(habits);
            let closes = op == Op::Close;
            self.request(op, now, wishes);
            if closes {
                break;
            }
        }
    }

    pub fn told_to_use(&mut self, server: usize) {
        (self.only, self.asleep) = (Some(server), true);
    }

    /// `true` if it has slept.
    pub fn wake_up(&mut self) -> bool {
        std::mem::take(&mut self.asleep)
    }

    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// Sends one request.
    pub fn request(&mut self, op: Op, now: Time, wishes: &mut Vec<Wish>) {
        self.xid += 1;
        let mut body = Vec::new();
        op.write(&mut body);
        self.send_frame(now, self.xid, op.code(), &body, wishes);
        self.flights.push_back(self.history.len());
        self.history.push(Record {
            client: self.id,
            session: self.session,
            connection: self.connections,
            xid: self.xid,
            op,
            invoked: now,
            answer: None,
        });
    }

    fn send_frame(&mut self, now: Time, xid: i32, op: OpCode, body: &[u8], wishes: &mut Vec<Wish>) {
        let mut out = Vec::new();
        let frame = Frame::open(&mut out);
        RequestHeader { xid, op: op.to_wire() }.write(frame.bytes);
        frame.bytes.extend_from_slice(body);
        frame.close();
        self.sent_at = now;
        wishes.push(Wish::Send(self.conn.expect("it is live"), out));
    }

    fn value(&mut self) -> String {
        self.counter += 1;
        format!("{}:{}", self.id, self.counter)
    }

    fn key(&mut self, habits: &Habits) -> String {
        format!("/k{}", self.rng.below(habits.keys))
    }

    fn choose(&mut self, habits: &Habits) -> Op {
        let dice = self.rng.below(1000);
        let path = self.key(habits);
        if dice < habits.reads_per_mille {
            return match self.rng.below(4) {
                0 => Op::Exists(path),
                1 => Op::Children("/".into()),
                _ => Op::Get(path),
            };
        }
        if dice < habits.reads_per_mille + habits.syncs_per_mille {
            return Op::Sync(path);
        }
        if self.rng.below(1000) < 4 {
            return Op::Close;
        }
        let dice = self.rng.below(1000);
        if dice < habits.multis_per_mille {
            return self.multi(habits);
        }
        let data = self.value();
        if dice < habits.multis_per_mille + habits.ephemerals_per_mille {
            let sequential = self.rng.below(3) == 0;
            let path = if sequential { "/s-".to_owned() } else { format!("/e{}", self.rng.below(8)) };
            return Op::Create { path, data, ephemeral: true, sequential };
        }
        match self.rng.below(20) {
            0 => Op::Delete { path, version: -1 },
            1..=3 => Op::Create { path, data, ephemeral: false, sequential: false },
            4 => Op::Delete { path: format!("/e{}", self.rng.below(8)), version: -1 },
            5 => Op::Set { path, data, version: self.rng.below(6) as i32 },
            _ => Op::Set { path, data, version: -1 },
        }
    }

    /// One token in several places, or in none.
    fn multi(&mut self, habits: &Habits) -> Op {
        let data = self.value();
        let mut ops = Vec::new();
        for place in 0..3 {
            let path = format!("/m{place}");
            ops.push(match self.rng.below(8) {
                0 => Op::Create { path, data: data.clone(), ephemeral: false, sequential: false },
                1 if place == 2 => Op::Check { path: self.key(habits), version: self.rng.below(4) as i32 },
                _ => Op::Set { path, data: data.clone(), version: -1 },
            });
        }
        Op::Multi(ops)
    }
}
