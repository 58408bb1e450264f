//! One of the two servers of a comparison, with the connections that a script has open on it.
//!
//! After each step every connection is brought to rest: a ping goes out on it, and what arrives up to the ping's reply
//! belongs to the step. The server has by then told each client all that it has to tell, without a clock being asked.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::reply::{self, Names, Reply};
use crate::script::{After, Hello, Password, Request, Step, Wanted, op};
use crate::support::conn::{Conn, Granted, Next, PATIENCE, granted};
use crate::support::jute::{Writer, framed, show};
use crate::support::servers::Server;

/// What one step brought, by slot: first lines in order of arrival, then those that may overtake others.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Outcome(pub BTreeMap<usize, Vec<String>>);

/// What the generator learns from one side.
pub struct Learned {
    pub request: Request,
    pub reply: Reply,
}

struct Slot {
    conn: Conn,
    session: Option<usize>,
    /// Requests whose reply is due, oldest first.
    due: VecDeque<Request>,
}

pub struct Side<'a> {
    pub server: &'a Server,
    slots: BTreeMap<usize, Slot>,
    sessions: Vec<Granted>,
    ids: Vec<i64>,
    /// The time that belongs to a transaction, once seen. A server that tells two times for one zxid is wrong.
    times: BTreeMap<i64, i64>,
    pub learned: Vec<Learned>,
    pub last_zxid: i64,
}

const BARRIER: &str = "barrier";

/// Where an `Outcome` keeps what a `Step::Stranger` was told.
const STRANGER: usize = usize::MAX;

impl<'a> Side<'a> {
    pub fn new(server: &'a Server) -> Side<'a> {
        Side {
            server,
            slots: BTreeMap::new(),
            sessions: Vec::new(),
            ids: Vec::new(),
            times: BTreeMap::new(),
            learned: Vec::new(),
            last_zxid: 0,
        }
    }

    /// The session that a slot's connection holds, by order of opening.
    pub fn session(&self, slot: usize) -> Option<usize> {
        self.slots.get(&slot)?.session
    }

    pub fn names(&self) -> Names<'_> {
        Names(&self.ids)
    }

    /// A text of the server's with sessions and addresses by the names that both sides share.
    pub fn named(&self, text: &str) -> String {
        let mut text = text.to_string();
        for (slot, held) in &self.slots {
            text = text.replace(&format!("/127.0.0.1:{}", held.conn.local_port()), &format!("/slot {slot}"));
        }
        for (index, id) in self.ids.iter().enumerate() {
            text = text.replace(&format!("0x{id:x}"), &format!("s{index}"));
        }
        text
    }

    pub fn play(&mut self, step: &Step) -> Outcome {
        self.learned.clear();
        let mut outcome = Outcome::default();
        let mut closing = None;
        match step {
            Step::Connect { slot, hello, behind, after } => self.connect(*slot, hello, behind, *after, &mut outcome),
            Step::Send { slot, requests, after } => {
                let mut bytes = Vec::new();
                for request in requests {
                    bytes.extend_from_slice(&framed(&request.payload()));
                }
                if let Some(held) = self.slots.get_mut(slot) {
                    held.due.extend(requests.iter().cloned());
                    self.exchange(*slot, &bytes, *after, &mut outcome);
                }
                if requests.iter().any(|request| request.op == op::CLOSE) {
                    closing = Some(Some(self.last_zxid));
                }
            }
            Step::Garbage { slot, bytes } => self.exchange(*slot, bytes, After::Closed, &mut outcome),
            Step::Drop { slot } => {
                self.slots.remove(slot);
            }
            Step::AwaitClose { slot } => {
                self.receive(*slot, true, &mut outcome);
                closing = Some(None);
            }
            Step::AwaitEvents { slot, count } => {
                self.await_events(*slot, *count, &mut outcome);
                closing = Some(None);
            }
            Step::Stranger { bytes } => {
                let answer = self.stranger(bytes).unwrap_or_else(|error| format!("{error}"));
                outcome.0.entry(STRANGER).or_default().push(answer);
            }
        }
        let acted = match step {
            Step::Connect { slot, .. } => Some((*slot, true)),
            Step::Send { slot, .. } => Some((*slot, false)),
            _ => None,
        };
        self.settle(acted, &mut outcome);
        if let Some(zxid) = closing {
            outcome.sort_events_of(zxid);
        }
        outcome
    }

    fn connect(&mut self, slot: usize, hello: &Hello, behind: &[Request], after: After, outcome: &mut Outcome) {
        let lines = outcome.0.entry(slot).or_default();
        let mut bytes = framed(&self.hello(hello));
        for request in behind {
            bytes.extend_from_slice(&framed(&request.payload()));
        }
        let conn = Conn::open(self.server.port);
        let mut conn = match conn {
            Ok(conn) => conn,
            Err(error) => return lines.push(format!("no connection: {error}")),
        };
        // A server that closes at once makes the sending fail; what it said before is still read.
        let _ = conn.send(&bytes);
        let frame = match conn.next(PATIENCE) {
            Next::Frame(frame) => frame,
            Next::End => return lines.push("closed without a ConnectResponse".into()),
            Next::Silence => return lines.push("no ConnectResponse in time".into()),
        };
        let Some(granted) = granted(&frame) else {
            return lines.push(format!("not a ConnectResponse: {}", show(&frame)));
        };
        let mut session = None;
        if granted.timeout > 0 {
            session = self.ids.iter().position(|id| *id == granted.session);
            if session.is_none() {
                session = Some(self.ids.len());
                self.ids.push(granted.session);
                self.sessions.push(granted.clone());
            }
        }
        let known = session.map(|index| &self.sessions[index]);
        lines.push(format!(
            "connected timeout {} session {} password {} read-only {:?}",
            granted.timeout,
            self.names().session(granted.session),
            match known {
                Some(known) if known.password == granted.password => format!("its own {}", granted.password.len()),
                Some(_) => "not the one given before".into(),
                None => show(&granted.password),
            },
            granted.read_only
        ));
        self.slots.insert(slot, Slot { conn, session, due: behind.iter().cloned().collect() });
        if after == After::Closed || granted.timeout <= 0 {
            self.receive(slot, true, outcome);
        }
    }

    fn hello(&self, hello: &Hello) -> Vec<u8> {
        let (id, own) = match hello.wanted {
            Wanted::New => (0, None),
            Wanted::Unknown(id) => (id, None),
            Wanted::Opened(index) => match self.sessions.get(index) {
                Some(granted) => (granted.session, Some(granted.password.clone())),
                None => (0, None),
            },
        };
        let password = match &hello.password {
            Password::Right => own,
            Password::Wrong => own.map(|mut own| {
                own[7] ^= 1;
                own
            }),
            Password::These(bytes) => bytes.clone(),
        };
        let mut writer = Writer::new().int(hello.version).long(hello.last_zxid).int(hello.timeout).long(id);
        writer = writer.bytes(password.as_deref());
        if let Some(read_only) = hello.read_only {
            writer = writer.byte(read_only);
        }
        writer.raw(&hello.tail).0
    }

    /// Sends, and where the connection goes away, reads to its end.
    fn exchange(&mut self, slot: usize, bytes: &[u8], after: After, outcome: &mut Outcome) {
        let Some(held) = self.slots.get_mut(&slot) else { return };
        if after == After::Open {
            let mut bytes = bytes.to_vec();
            bytes.extend_from_slice(&held.barrier());
            let _ = held.conn.send(&bytes);
            self.receive(slot, false, outcome);
        } else {
            let _ = held.conn.send(bytes);
            self.receive(slot, true, outcome);
        }
    }

    /// Brings every connection to rest: first the one that acted (unless a barrier went out with what it sent).
    fn settle(&mut self, acted: Option<(usize, bool)>, outcome: &mut Outcome) {
        if let Some((slot, true)) = acted {
            self.rest(slot);
            self.receive(slot, false, outcome);
        }
        let others = self.slots.keys().copied().filter(|slot| acted.is_none_or(|(acted, _)| acted != *slot));
        let others: Vec<usize> = others.collect();
        others.iter().for_each(|slot| self.rest(*slot));
        others.iter().for_each(|slot| self.receive(*slot, false, outcome));
        outcome.0.retain(|_, lines| !lines.is_empty());
    }

    fn rest(&mut self, slot: usize) {
        if let Some(held) = self.slots.get_mut(&slot) {
            let barrier = held.barrier();
            // If the server has closed it, reading says so.
            let _ = held.conn.send(&barrier);
        }
    }

    /// Reads until nothing is due on the connection (or, `to_end`, until the server closes it).
    fn receive(&mut self, slot: usize, to_end: bool, outcome: &mut Outcome) {
        let Some(mut held) = self.slots.remove(&slot) else { return };
        let mut lines = outcome.0.remove(&slot).unwrap_or_default();
        let mut overtaking = Vec::new();
        let open = loop {
            if held.due.is_empty() && !to_end {
                break true;
            }
            match held.conn.next(PATIENCE) {
                Next::Frame(frame) => self.frame(&mut held, &frame, &mut lines, &mut overtaking),
                Next::End => {
                    lines.push("closed by the server".into());
                    break false;
                }
                Next::Silence => {
                    lines.push(format!("silent, while due: {:?}", held.due.front().map(Request::describe)));
                    break false;
                }
            }
        };
        lines.append(&mut overtaking);
        outcome.0.insert(slot, lines);
        if open {
            self.slots.insert(slot, held);
        }
    }

    fn frame(&mut self, held: &mut Slot, frame: &[u8], lines: &mut Vec<String>, overtaking: &mut Vec<String>) {
        let Some(header) = reply::header(frame) else {
            return lines.push(format!("a frame without a header: {}", show(frame)));
        };
        if header.xid == -1 {
            return lines.push(match reply::event(frame) {
                Some(event) => event.text,
                None => format!("a malformed event: {}", show(frame)),
            });
        }
        let early = held.due.iter().position(|due| due.out_of_band && due.xid == header.xid);
        let Some(request) = held.due.remove(early.unwrap_or(0)) else {
            return lines.push(format!("a frame that nobody asked for: {}", show(frame)));
        };
        let reply = reply::reply(request.op, frame).expect("it has a header");
        self.last_zxid = self.last_zxid.max(reply.zxid);
        self.check_times(&reply, lines);
        let text = self.names().reply(&reply);
        if request.out_of_band {
            overtaking.push(text);
        } else if request.note != BARRIER {
            lines.push(text);
        } else if text != format!("reply xid -2 zxid {} err 0 ", reply.zxid) {
            lines.push(format!("not a ping's reply: {text}"));
        }
        self.learned.push(Learned { request, reply });
    }

    fn check_times(&mut self, reply: &Reply, lines: &mut Vec<String>) {
        let mut stats = Vec::new();
        reply::stats(&reply.body, &mut stats);
        for stat in stats {
            for (zxid, time) in [(stat.czxid, stat.ctime), (stat.mzxid, stat.mtime)] {
                let known = *self.times.entry(zxid).or_insert(time);
                if known != time {
                    lines.push(format!("zxid {zxid} had time {known}, now {time}"));
                }
            }
        }
    }

    /// A connection that never gets a session: what comes back until the server closes it.
    fn stranger(&mut self, bytes: &[u8]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.server.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            // A reset is a close in a hurry: the server had not read all.
            Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
            _ => Ok(format!("answered {}", show(&answer))),
        }
    }

    fn await_events(&mut self, slot: usize, count: usize, outcome: &mut Outcome) {
        let Some(held) = self.slots.get_mut(&slot) else { return };
        let lines = outcome.0.entry(slot).or_default();
        for _ in 0..count {
            match held.conn.next(PATIENCE) {
                Next::Frame(frame) => match reply::event(&frame) {
                    Some(event) => lines.push(event.text),
                    None => lines.push(format!("not an event: {}", show(&frame))),
                },
                other => return lines.push(format!("an event was due, but {other:?}")),
            }
        }
    }
}

impl Slot {
    fn barrier(&mut self) -> Vec<u8> {
        let ping = Request::new(-2, op::PING, Writer::new(), BARRIER.into());
        let bytes = framed(&ping.payload());
        self.due.push_back(ping);
        bytes
    }
}

impl Outcome {
    /// A closing session's ephemerals go in an order that ZooKeeper leaves open: events with its zxid (or, `None`, with
    /// any one zxid) are a set.
    fn sort_events_of(&mut self, zxid: Option<i64>) {
        let zxid_of = |line: &String| line.strip_prefix("event zxid ")?.split(' ').next()?.parse::<i64>().ok();
        let loose = |line: &String| zxid_of(line).filter(|of| zxid.is_none_or(|zxid| zxid == *of));
        for lines in self.0.values_mut() {
            for run in lines.chunk_by_mut(|a, b| loose(a).is_some() && loose(a) == loose(b)) {
                if loose(&run[0]).is_some() {
                    run.sort();
                }
            }
        }
    }

    pub fn describe(&self, slot: usize) -> Vec<String> {
        self.0.get(&slot).cloned().unwrap_or_default()
    }
}
