//! Many clients at once that do everything a client may do, and much that it should not: long pipelines, watches,
//! reconnects while writes are under way, half frames, sudden ends. What is promised is checked on every reply, and at
//! the end nothing of them may be left in the server.

mod raw;

use ostler::random::Rng;
use ostler::server::boot;
use ostler::wire::OpCode;
use ostler::wire::client::{ConnectRequest, ConnectResponse};
use ostler::wire::writer::Jute;
use raw::{Raw, Reply, close, config, create, data, delete, get, ping, read, request, set};
use std::net::SocketAddr;

const CORES: usize = 2;
const THREADS: u64 = 4;
const CLIENTS: u64 = 6;
const STEPS: u64 = 600;

fn mntr(address: SocketAddr, name: &str) -> i64 {
    let mut raw = Raw::open(address);
    raw.send(b"mntr");
    let text = String::from_utf8(raw.rest()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("zk_{name}\t")));
    line.unwrap_or_else(|| panic!("no {name}")).parse::<f64>().unwrap() as i64
}

/// What a client has asked for and not yet heard of.
#[derive(Clone, Copy)]
enum Asked {
    /// Sets its own counter to this.
    Set(u64),
    GetOwn,
    GetHot {
        watch: bool,
    },
    SetHot,
    Ephemeral,
    Other,
}

/// One session, over all its connections.
struct Client {
    address: SocketAddr,
    raw: Raw,
    path: String,
    /// The last value of its counter that was sent, and the last that was acknowledged.
    sent: u64,
    acknowledged: u64,
    /// The newest zxid that it has seen.
    zxid: i64,
    xid: i32,
    asked: std::collections::VecDeque<(i32, Asked)>,
    /// The version of /hot at which its watch of this connection was set.
    watched: Option<i32>,
}

fn version(reply: &Reply) -> i32 {
    let stat = &reply.body[reply.body.len() - 68..];
    i32::from_be_bytes(stat[32..36].try_into().unwrap())
}

impl Client {
    fn new(address: SocketAddr, number: u64) -> Client {
        let mut raw = Raw::connect(address);
        let path = format!("/own-{number}");
        let reply = raw.call(&create(1, &path, b"0", 0));
        assert_eq!(reply.err, 0);
        Client {
            address,
            raw,
            path,
            sent: 0,
            acknowledged: 0,
            zxid: reply.zxid,
            xid: 2,
            asked: Default::default(),
            watched: None,
        }
    }

    fn ask(&mut self, rng: &mut Rng, out: &mut Vec<u8>) {
        let xid = self.xid;
        self.xid += 1;
        let (frame, asked) = match rng.below(12) {
            0..3 => {
                self.sent += 1;
                (set(xid, &self.path, self.sent.to_string().as_bytes()), Asked::Set(self.sent))
            }
            3..5 => (get(xid, &self.path, false), Asked::GetOwn),
            5..8 => {
                let watch = rng.below(2) == 0;
                (get(xid, "/hot", watch), Asked::GetHot { watch })
            }
            8 => (set(xid, "/hot", &[b'h'; 200]), Asked::SetHot),
            9 => (create(xid, &format!("{}/e{}", self.path, xid % 5), b"", 1), Asked::Ephemeral),
            10 => (delete(xid, &format!("{}/e{}", self.path, xid % 5)), Asked::Ephemeral),
            _ => match rng.below(4) {
                0 => (request(xid, OpCode::Sync.to_wire(), |out| out.put_text("/hot")), Asked::Other),
                1 => (read(xid, OpCode::GetChildren2, &self.path, true), Asked::Other),
                2 => (read(xid, OpCode::Exists, "/nowhere", true), Asked::Ephemeral),
                _ => {
                    out.extend(ping());
                    self.asked.push_back((-2, Asked::Other));
                    return;
                }
            },
        };
        out.extend(frame);
        self.asked.push_back((xid, asked));
    }

    /// Checks one frame; `false` if it was an event.
    fn check(&mut self, reply: &Reply) -> bool {
        assert!(reply.zxid >= self.zxid, "{}: zxid {:#x} after {:#x}", self.path, reply.zxid, self.zxid);
        self.zxid = reply.zxid;
        if reply.xid == -1 {
            if reply.body.ends_with(b"\0\0\0\x04/hot") {
                assert!(self.watched.take().is_some(), "{}: an event without a watch", self.path);
            }
            return false;
        }
        let (xid, asked) = self.asked.pop_front().expect("an answer to nothing");
        assert_eq!(reply.xid, xid, "{}: out of order", self.path);
        match asked {
            Asked::Set(value) => {
                assert_eq!(reply.err, 0);
                self.acknowledged = value;
            }
            Asked::GetOwn => {
                let value: u64 = String::from_utf8(data(reply)).unwrap().parse().unwrap();
                assert_eq!(value, self.acknowledged, "{}: neither older nor newer than its own writes", self.path);
            }
            Asked::GetHot { watch } => {
                let version = version(reply);
                if let Some(watched) = self.watched {
                    assert_eq!(version, watched, "{}: new data before its event", self.path);
                }
                if watch {
                    self.watched = Some(version);
                }
            }
            Asked::Ephemeral => assert!(matches!(reply.err, 0 | -101 | -110), "{}", reply.err),
            Asked::SetHot | Asked::Other => assert_eq!(reply.err, 0),
        }
        true
    }

    fn read_all(&mut self) {
        while !self.asked.is_empty() {
            let reply = self.raw.reply();
            self.check(&reply);
        }
    }

    /// Takes the session to a new connection. `polite` reads what is left on the old one, which the server closes.
    fn reconnect(&mut self, polite: bool) {
        let raw = Raw::open(self.address);
        let (session, password) = (self.raw.session, self.raw.password);
        let mut old = std::mem::replace(&mut self.raw, raw);
        if !polite {
            drop(old);
        } else {
            // Both at once: the server must not wait for the old one to be read.
            self.hand_shake(session, &password);
            while let Some(frame) = old.reply_or_end() {
                self.check(&frame);
            }
            self.after_reconnect();
            return;
        }
        self.hand_shake(session, &password);
        self.after_reconnect();
    }

    fn hand_shake(&mut self, session: ostler::ids::SessionId, password: &[u8]) {
        let mut out = Vec::new();
        let wanted = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.zxid,
            timeout_ms: 20_000,
            session,
            password: Some(password),
            read_only: Some(false),
        };
        wanted.write(&mut out);
        self.raw.send(&out);
        let frame = self.raw.frame().expect("an answer to the handshake");
        let response = ConnectResponse::read(&frame).unwrap();
        assert_eq!(response.session, session, "{}: the session lives", self.path);
        self.raw.session = response.session;
        self.raw.password = response.password;
    }

    /// What was under way has happened or has not; which, the counter tells.
    fn after_reconnect(&mut self) {
        self.asked.clear();
        self.watched = None;
        let xid = self.xid;
        self.xid += 1;
        let reply = self.raw.call(&get(xid, &self.path, false));
        assert_eq!(reply.xid, xid);
        assert!(reply.zxid >= self.zxid);
        self.zxid = reply.zxid;
        let value: u64 = String::from_utf8(data(&reply)).unwrap().parse().unwrap();
        assert!(
            (self.acknowledged..=self.sent).contains(&value),
            "{}: {value}, acknowledged {}",
            self.path,
            self.acknowledged
        );
        (self.acknowledged, self.sent) = (value, value);
    }
}

fn live(address: SocketAddr, thread: u64) -> Vec<(String, u64)> {
    let mut rng = Rng::new(0x5eed + thread);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|at| Client::new(address, thread * CLIENTS + at)).collect();
    for _ in 0..STEPS {
        let client = &mut clients[rng.below(CLIENTS) as usize];
        let mut out = Vec::new();
        for _ in 0..1 + rng.below(40) {
            client.ask(&mut rng, &mut out);
        }
        match rng.below(8) {
            // Sends everything, then changes connections with all of it under way.
            0 => {
                client.raw.send(&out);
                client.reconnect(true);
            }
            // Dies in the middle of a frame.
            1 => {
                let cut = 1 + rng.below(out.len() as u64) as usize;
                client.raw.send(&out[..cut]);
                client.reconnect(false);
            }
            // In pieces.
            2 => {
                for piece in out.chunks(1 + rng.below(60) as usize) {
                    client.raw.send(piece);
                }
                client.read_all();
            }
            // A stranger comes and goes without a word, or with half a one.
            3 => {
                let mut stranger = Raw::open(address);
                stranger.send(&[0, 0, 0, 45, 0][..rng.below(6) as usize]);
                client.raw.send(&out);
                client.read_all();
            }
            _ => {
                client.raw.send(&out);
                client.read_all();
            }
        }
    }
    clients
        .into_iter()
        .map(|mut client| {
            client.raw.send(&close(client.xid));
            while let Some(frame) = client.raw.reply_or_end() {
                assert!(frame.xid == -1 || frame.xid == client.xid);
            }
            (client.path, client.acknowledged)
        })
        .collect()
}

#[test]
fn what_is_promised_holds_under_everything_at_once_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), CORES)).unwrap();
    let address = server.address;
    let nodes = mntr(address, "znode_count");
    let mut observer = Raw::connect(address);
    assert_eq!(observer.call(&create(1, "/hot", b"", 0)).err, 0);
    let threads: Vec<_> = (0..THREADS).map(|thread| std::thread::spawn(move || live(address, thread))).collect();
    let counters: Vec<(String, u64)> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    for (path, acknowledged) in &counters {
        let value = data(&observer.call(&get(2, path, false)));
        assert_eq!(String::from_utf8(value).unwrap(), acknowledged.to_string(), "{path}");
    }
    assert_eq!(observer.call(&close(3)).err, 0);
    assert_eq!(observer.frame(), None);

    // The server sees ends when it sees them; asking is the only way to know.
    let expected = [
        ("num_alive_connections", 1),
        ("watch_count", 0),
        ("global_sessions", 0),
        ("ephemerals_count", 0),
        ("outstanding_requests", 0),
        ("znode_count", nodes + 1 + (THREADS * CLIENTS) as i64),
    ];
    for (name, value) in expected {
        let seen = (0..1_000).map(|_| mntr(address, name)).find(|seen| *seen == value);
        assert_eq!(seen, Some(value), "{name} is {}", mntr(address, name));
    }
    server.stop().unwrap();
}
