//! A client with a session that asks one thing at a time, or many in a row, and keeps the events that come in between.
//!
//! An error of a call means that the connection has ended or that the server kept silent: for a write, that its outcome
//! is unknown.
//!
//! Runs on: the test's thread.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::conn::{Conn, Granted, Next, PATIENCE, granted, hello, request};
use super::jute::{Acl, Reader, Stat, Writer};

pub mod op {
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const EXISTS: i32 = 3;
    pub const GET: i32 = 4;
    pub const SET: i32 = 5;
    pub const SYNC: i32 = 9;
    pub const PING: i32 = 11;
    pub const CHILDREN: i32 = 12;
    pub const MULTI: i32 = 14;
    pub const CREATE2: i32 = 15;
    pub const SET_WATCHES: i32 = 101;
    pub const CLOSE: i32 = -11;
}

pub mod err {
    pub const MARSHALLING: i32 = -5;
    pub const NO_NODE: i32 = -101;
    pub const NODE_EXISTS: i32 = -110;
    pub const SESSION_EXPIRED: i32 = -112;
    pub const SESSION_MOVED: i32 = -118;
}

pub const EPHEMERAL: i32 = 1;
pub const SEQUENTIAL: i32 = 2;

/// A reply, taken apart as far as all replies are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub xid: i32,
    pub zxid: i64,
    pub err: i32,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn read(frame: &[u8]) -> Option<Reply> {
        let mut reader = Reader(frame);
        Some(Reply { xid: reader.int()?, zxid: reader.long()?, err: reader.int()?, body: reader.0.to_vec() })
    }
    /// The path of a create's reply.
    pub fn path(&self) -> Option<String> {
        String::from_utf8(Reader(&self.body).bytes()??).ok()
    }
    /// Of a getData reply.
    pub fn data(&self) -> Option<(Vec<u8>, Stat)> {
        let mut reader = Reader(&self.body);
        Some((reader.bytes()?.unwrap_or_default(), reader.stat()?))
    }
    /// Of a setData or exists reply.
    pub fn stat(&self) -> Option<Stat> {
        Reader(&self.body).stat()
    }
    /// Of a getChildren2 reply, sorted.
    pub fn children(&self) -> Option<(Vec<String>, Stat)> {
        let mut reader = Reader(&self.body);
        let names = reader.list(Reader::bytes)??;
        let mut names: Vec<String> =
            names.into_iter().map(|name| String::from_utf8(name.unwrap_or_default()).ok()).collect::<Option<_>>()?;
        names.sort();
        Some((names, reader.stat()?))
    }
}

/// A watch event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub zxid: i64,
    /// 1 created, 2 deleted, 3 changed, 4 children.
    pub kind: i32,
    pub path: String,
}

pub struct Client {
    conn: Conn,
    xid: i32,
    pub granted: Granted,
    /// The newest state that it has seen.
    pub last_zxid: i64,
    pub events: Vec<Event>,
    /// How long it waits for anything.
    pub patience: Duration,
}

/// Why there is no session.
#[derive(Debug)]
pub enum Refusal {
    /// Refused, closed or silent: another server, or later.
    NotNow(io::Error),
    /// The server says that the session is over.
    Expired,
}

impl Client {
    /// A new session.
    pub fn open(address: SocketAddr, timeout_ms: i32) -> Result<Client, Refusal> {
        Client::enter(address, timeout_ms, 0, 0, &[0; 16], PATIENCE)
    }

    /// Takes a session up again.
    pub fn resume(address: SocketAddr, session: &Granted, last_zxid: i64) -> Result<Client, Refusal> {
        Client::enter(address, session.timeout, last_zxid, session.session, &session.password, PATIENCE)
    }

    pub fn enter(
        address: SocketAddr,
        timeout_ms: i32,
        last_zxid: i64,
        session: i64,
        password: &[u8],
        patience: Duration,
    ) -> Result<Client, Refusal> {
        let mut conn = Conn::open_at(address, patience).map_err(Refusal::NotNow)?;
        conn.send(&hello(last_zxid, timeout_ms, session, password, Some(0))).map_err(Refusal::NotNow)?;
        match conn.next(patience) {
            Next::Frame(frame) => match granted(&frame) {
                Some(granted) if granted.timeout > 0 => {
                    Ok(Client { conn, xid: 0, granted, last_zxid, events: Vec::new(), patience })
                }
                Some(_) => Err(Refusal::Expired),
                None => panic!("an answer to a connect request of {} bytes", frame.len()),
            },
            other => Err(Refusal::NotNow(io::Error::other(format!("{other:?}")))),
        }
    }

    /// Sends a request and waits for nothing; its xid.
    pub fn send(&mut self, op: i32, body: Writer) -> io::Result<i32> {
        self.xid += 1;
        self.conn.send(&request(self.xid, op, body))?;
        Ok(self.xid)
    }

    /// Goes in the middle of a request: nothing is owed to it, so nothing that is sent to it fails.
    pub fn leave_in_a_frame(mut self) {
        self.conn.send(&[0, 0]).unwrap();
    }

    /// The next reply to a request; events and pings' echoes are put aside.
    pub fn receive(&mut self) -> io::Result<Reply> {
        loop {
            let frame = match self.conn.next(self.patience) {
                Next::Frame(frame) => frame,
                Next::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                Next::Silence => return Err(io::ErrorKind::TimedOut.into()),
            };
            let reply = Reply::read(&frame).unwrap_or_else(|| panic!("a frame of {} bytes", frame.len()));
            match reply.xid {
                -1 => self.events.push(event(&reply)),
                -2 => {}
                _ => {
                    assert!(reply.zxid >= self.last_zxid, "zxid {:x} after {:x}", reply.zxid, self.last_zxid);
                    self.last_zxid = reply.zxid;
                    return Ok(reply);
                }
            }
        }
    }

    pub fn ask(&mut self, op: i32, body: Writer) -> io::Result<Reply> {
        let xid = self.send(op, body)?;
        let reply = self.receive()?;
        assert_eq!(reply.xid, xid, "replies come in the order of requests");
        Ok(reply)
    }

    /// The name that it got.
    pub fn create(&mut self, path: &str, data: &[u8], flags: i32) -> io::Result<Result<String, i32>> {
        let reply = self.ask(op::CREATE, create(path, data, flags))?;
        Ok(if reply.err == 0 { Ok(reply.path().expect("a path")) } else { Err(reply.err) })
    }

    pub fn set(&mut self, path: &str, data: &[u8]) -> io::Result<Result<Stat, i32>> {
        let reply = self.ask(op::SET, set(path, data))?;
        Ok(if reply.err == 0 { Ok(reply.stat().expect("a Stat")) } else { Err(reply.err) })
    }

    pub fn delete(&mut self, path: &str) -> io::Result<i32> {
        Ok(self.ask(op::DELETE, Writer::new().text(path).int(-1))?.err)
    }

    pub fn get(&mut self, path: &str, watch: bool) -> io::Result<Option<(Vec<u8>, Stat)>> {
        let reply = self.ask(op::GET, Writer::new().text(path).bool(watch))?;
        match reply.err {
            0 => Ok(Some(reply.data().expect("data and a Stat"))),
            err::NO_NODE => Ok(None),
            other => panic!("getData {path}: {other}"),
        }
    }

    pub fn exists(&mut self, path: &str, watch: bool) -> io::Result<bool> {
        Ok(self.ask(op::EXISTS, Writer::new().text(path).bool(watch))?.err == 0)
    }

    pub fn children(&mut self, path: &str) -> io::Result<Option<Vec<String>>> {
        let reply = self.ask(op::CHILDREN, Writer::new().text(path).bool(false))?;
        Ok((reply.err == 0).then(|| reply.children().expect("names").0))
    }

    pub fn sync(&mut self) -> io::Result<()> {
        let reply = self.ask(op::SYNC, Writer::new().text("/"))?;
        assert_eq!(reply.err, 0, "sync");
        Ok(())
    }

    /// A ping, whose echo is put aside.
    pub fn ping(&mut self) -> io::Result<()> {
        self.conn.send(&request(-2, op::PING, Writer::new()))
    }

    /// The next event.
    pub fn event(&mut self) -> Event {
        while self.events.is_empty() {
            let Next::Frame(frame) = self.conn.next(self.patience) else { panic!("no event has come") };
            let reply = Reply::read(&frame).expect("a header");
            match reply.xid {
                -1 => self.events.push(event(&reply)),
                -2 => {}
                other => panic!("a reply to xid {other}, which nobody waits for"),
            }
        }
        self.events.remove(0)
    }

    /// Ends the session.
    pub fn close(mut self) {
        // The server may be gone.
        let _ = self.ask(op::CLOSE, Writer::new());
    }

    /// Waits until the server ends the connection; what it still said is dropped. `false`: it didn't within that time.
    pub fn ended_within(&mut self, limit: Duration) -> bool {
        let begin = ostler::clock::now();
        while ostler::clock::now().since(begin) < limit {
            match self.conn.next(Duration::from_millis(50)) {
                Next::End => return true,
                Next::Frame(_) | Next::Silence => {}
            }
        }
        false
    }
}

fn event(reply: &Reply) -> Event {
    let mut reader = Reader(&reply.body);
    let (Some(kind), Some(_), Some(Some(path))) = (reader.int(), reader.int(), reader.bytes()) else {
        panic!("a malformed event: {reply:?}")
    };
    Event { zxid: reply.zxid, kind, path: String::from_utf8(path).expect("paths here are ASCII") }
}

pub fn create(path: &str, data: &[u8], flags: i32) -> Writer {
    Writer::new().text(path).bytes(Some(data)).acls(Some(&Acl::open())).int(flags)
}

pub fn set(path: &str, data: &[u8]) -> Writer {
    Writer::new().text(path).bytes(Some(data)).int(-1)
}

/// The body of a multi.
pub fn multi(parts: &[(i32, Writer)]) -> Writer {
    let mut body = Writer::new();
    for (op, part) in parts {
        body = body.int(*op).byte(0).int(-1).raw(&part.0);
    }
    body.int(-1).byte(1).int(-1)
}
