//! A client that keeps its session through lost connections, and the whole tree of one server as that server shows it.
//!
//! Runs on: the thread that uses it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::conn::{Conn, Next, granted, hello, request};
use crate::support::jute::{Acl, Reader, Stat, Writer};
use crate::support::servers::pause;
use ostler::clock;

/// How long a server may take to answer before the client tries another.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long one may take that has nobody to be asked instead of it.
const LONG: Duration = Duration::from_secs(40);

pub mod op {
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const GET_DATA: i32 = 4;
    pub const SET_DATA: i32 = 5;
    pub const GET_ACL: i32 = 6;
    pub const SET_ACL: i32 = 7;
    pub const SYNC: i32 = 9;
    pub const GET_CHILDREN2: i32 = 12;
    pub const MULTI: i32 = 14;
    pub const RECONFIG: i32 = 16;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const CREATE_TTL: i32 = 21;
    pub const AUTH: i32 = 100;
    pub const CLOSE: i32 = -11;
}

/// No answer has come: it may have been done or not.
#[derive(Debug)]
pub enum Lost {
    /// There is no connection, or sending on it has failed.
    Unsent,
    /// The server has closed the connection.
    Closed,
    /// The server has said nothing within the time allowed.
    Silent,
}

pub struct Answer {
    pub error: i32,
    pub body: Vec<u8>,
}

pub struct Client {
    ports: Vec<u16>,
    at: usize,
    conn: Option<Conn>,
    session: i64,
    password: Vec<u8>,
    timeout: i32,
    last_zxid: i64,
    xid: i32,
    /// How often a server has said that the session is over.
    pub expired: usize,
}

impl Client {
    /// It tries the ports in turn, beginning with `first`.
    pub fn new(ports: Vec<u16>, first: usize, timeout: i32) -> Client {
        let at = first % ports.len();
        let password = vec![0; 16];
        Client { ports, at, conn: None, session: 0, password, timeout, last_zxid: 0, xid: 0, expired: 0 }
    }

    /// One server only; panics if it does not grant a session.
    pub fn of(port: u16) -> Client {
        let mut client = Client::new(vec![port], 0, 60_000);
        assert!(client.connected(Duration::from_secs(40)), "no session on port {port}");
        client
    }

    pub fn session(&self) -> i64 {
        self.session
    }

    /// Goes away without a word; the session lives on.
    pub fn hang_up(&mut self) {
        self.conn = None;
    }

    /// Has a connection, or makes one: to the next server, and again. `false`: none within the limit.
    pub fn connected(&mut self, limit: Duration) -> bool {
        let begin = clock::now();
        while self.conn.is_none() {
            if let Some(conn) = self.connect_once() {
                self.conn = Some(conn);
                break;
            }
            if clock::now().since(begin) > limit {
                return false;
            }
            self.at = (self.at + 1) % self.ports.len();
            pause(Duration::from_millis(15));
        }
        true
    }

    fn connect_once(&mut self) -> Option<Conn> {
        let mut conn = Conn::open(self.ports[self.at]).ok()?;
        conn.send(&hello(self.last_zxid, self.timeout, self.session, &self.password, Some(0))).ok()?;
        let Next::Frame(frame) = conn.next(Duration::from_secs(3)) else { return None };
        let given = granted(&frame)?;
        if given.timeout <= 0 {
            self.expired += 1;
            (self.session, self.password) = (0, vec![0; 16]);
            return None;
        }
        (self.session, self.password) = (given.session, given.password);
        // ZooKeeper may drop a connection that it has just granted, when its leader is gone.
        Some(conn)
    }

    /// Sends without waiting; the xid.
    pub fn send(&mut self, op: i32, body: Writer) -> Result<i32, Lost> {
        self.xid += 1;
        let conn = self.conn.as_mut().ok_or(Lost::Unsent)?;
        let xid = match op {
            op::AUTH => -4,
            _ => self.xid,
        };
        if conn.send(&request(xid, op, body)).is_err() {
            self.conn = None;
            return Err(Lost::Unsent);
        }
        Ok(xid)
    }

    /// The next answer; events are passed over.
    pub fn receive(&mut self) -> Result<(i32, Answer), Lost> {
        self.receive_within(PATIENCE)
    }

    pub fn receive_within(&mut self, limit: Duration) -> Result<(i32, Answer), Lost> {
        loop {
            let next = self.conn.as_mut().ok_or(Lost::Unsent)?.next(limit);
            let Next::Frame(frame) = next else {
                self.conn = None;
                self.at = (self.at + 1) % self.ports.len();
                return Err(if next == Next::End { Lost::Closed } else { Lost::Silent });
            };
            let mut reader = Reader(&frame);
            let (Some(xid), Some(zxid), Some(error)) = (reader.int(), reader.long(), reader.int()) else {
                panic!("a reply without a header: {frame:?}");
            };
            if xid == -1 || xid == -2 {
                continue;
            }
            assert!(zxid <= 0 || zxid >= self.last_zxid, "zxid {zxid:#x} after {:#x}", self.last_zxid);
            self.last_zxid = self.last_zxid.max(zxid);
            return Ok((xid, Answer { error, body: reader.0.to_vec() }));
        }
    }

    pub fn call(&mut self, op: i32, body: Writer) -> Result<Answer, Lost> {
        let asked = self.send(op, body)?;
        let (xid, answer) = self.receive()?;
        assert_eq!(xid, asked, "an answer to another request");
        Ok(answer)
    }

    /// The error of an answer, asked for again from the next server where none comes: a 3.8.0 with one client may leave it
    /// without (ZOOKEEPER-4537). For what may be done twice.
    pub fn insist(&mut self, op: i32, body: &Writer) -> i32 {
        for _ in 0..5 {
            if self.connected(Duration::from_secs(40))
                && let Ok(answer) = self.call(op, body.clone())
            {
                return answer.error;
            }
        }
        panic!("no answer to op {op}, asked five times");
    }

    pub fn create(&mut self, path: &str, data: &[u8], flags: i32) -> Result<Answer, Lost> {
        self.call(op::CREATE, Writer::new().text(path).bytes(Some(data)).acls(Some(&Acl::open())).int(flags))
    }

    pub fn set(&mut self, path: &str, data: &[u8]) -> Result<Answer, Lost> {
        self.call(op::SET_DATA, Writer::new().text(path).bytes(Some(data)).int(-1))
    }

    pub fn delete(&mut self, path: &str) -> Result<Answer, Lost> {
        self.call(op::DELETE, Writer::new().text(path).int(-1))
    }

    pub fn sync(&mut self) -> Result<Answer, Lost> {
        self.call(op::SYNC, Writer::new().text("/"))
    }

    pub fn auth(&mut self, scheme: &str, text: &str) -> Result<Answer, Lost> {
        self.call(op::AUTH, Writer::new().int(0).text(scheme).bytes(Some(text.as_bytes())))
    }

    /// Ends the session.
    pub fn close(mut self) {
        // Whoever does not hear it lets the session expire.
        let _ = self.call(op::CLOSE, Writer::new());
    }
}

/// What one server has under a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub data: Option<Vec<u8>>,
    pub stat: Stat,
    pub acl: Vec<Acl>,
}

pub type Tree = BTreeMap<String, Node>;

/// All that a server has, after a sync. What each server keeps for itself (its configuration, counts of quotas' use that no
/// transaction carries) is left out as far as it may differ. Nobody may write meanwhile.
pub fn tree_of(port: u16) -> Result<Tree, Lost> {
    let mut client = Client::of(port);
    assert_eq!(client.auth("digest", "super:secret")?.error, 0);
    assert_eq!(client.sync()?.error, 0);
    let mut tree = Tree::new();
    let mut level = vec!["/".to_owned()];
    while !level.is_empty() {
        let mut below = Vec::new();
        // Not so many at once that both sides wait for the other to read.
        for paths in level.chunks(100) {
            for path in paths {
                client.send(op::GET_CHILDREN2, Writer::new().text(path).bool(false))?;
                client.send(op::GET_DATA, Writer::new().text(path).bool(false))?;
                client.send(op::GET_ACL, Writer::new().text(path))?;
            }
            for path in paths {
                let mut answer = || Ok(client.receive_within(LONG)?.1);
                let [children, data, acl] = [answer()?, answer()?, answer()?];
                assert_eq!((children.error, data.error, acl.error), (0, 0, 0), "{path}");
                let names = Reader(&children.body).list(|reader| reader.bytes()?).flatten().expect("names");
                for name in names {
                    let name = String::from_utf8(name).expect("text");
                    below.push(if path == "/" { format!("/{name}") } else { format!("{path}/{name}") });
                }
                let mut reader = Reader(&data.body);
                let bytes = reader.bytes().expect("data");
                let stat = reader.stat().expect("a stat");
                let acl = Reader(&acl.body).list(Reader::acl).flatten().expect("an access list");
                let node = match path.as_str() {
                    // Each server has made these from what it was started with, at its own time.
                    "/zookeeper/config" => Node { data: None, stat: Stat::default(), acl },
                    _ => Node { data: bytes, stat, acl },
                };
                tree.insert(path.clone(), node);
            }
        }
        level = below;
    }
    client.close();
    Ok(tree)
}

/// The digest that ZooKeeper's transactions carry (version 2), worked out from what a client sees.
pub fn digest(tree: &Tree) -> u64 {
    let mut sum = 0u64;
    for (path, node) in tree.iter().filter(|(path, _)| !path.starts_with("/zookeeper/")) {
        let mut crc = crc32fast::Hasher::new();
        crc.update(if path == "/" { b"" } else { path.as_bytes() });
        crc.update(node.data.as_deref().unwrap_or_default());
        let stat = &node.stat;
        // A client is shown twice the creations less the children that there are.
        let created = (stat.cversion + stat.children) / 2;
        let words = Writer::new().long(stat.czxid).long(stat.mzxid).long(stat.pzxid).long(stat.ctime).long(stat.mtime);
        crc.update(&words.int(stat.version).int(created).int(stat.aversion).long(stat.owner).0);
        sum = sum.wrapping_add(u64::from(crc.finalize()));
    }
    sum
}

/// What differs between two trees, in words.
pub fn difference(one: &Tree, other: &Tree) -> Vec<String> {
    let paths: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differ = paths.into_iter().filter(|path| one.get(*path) != other.get(*path));
    differ.map(|path| format!("{path}: {:?} / {:?}", one.get(path), other.get(path))).take(5).collect()
}
