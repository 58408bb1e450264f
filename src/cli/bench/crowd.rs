//! Many sessions on one thread that come, wait, are lost and come back, as real clients do.
//!
//! A steady load wants its connections to stand; here a connection that is lost is news like any other, and the session
//! is taken up again on the next server with what a client has to bring: session, password, the newest zxid that it has seen.
//!
//! Promises: replies are handed on in the order of their requests, with an error where the server breaks it; a zxid that goes
//! back, also over a reconnect, is told as a wrong answer. Leaves to the workloads: what is asked, and what replies mean.
//! Runs on: the thread that calls `turn`.

use super::args::BenchArgs;
use super::asked::{Asked, Xids};
use super::link::{self, Framing, Link, invalid};
use super::pace::{self, Timer};
use crate::clock::{self, Now};
use crate::ids::SessionId;
use crate::wire::client::{ConnectRequest, ConnectResponse, EventKind, ReplyHeader, xid};
use crate::wire::{OpCode, Reader};
use mio::{Events, Interest, Poll, Token};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What happens to a session.
pub enum News<'a> {
    /// It stands: a new one, or the old one again.
    Up {
        resumed: bool,
    },
    /// The server knows it no longer. The next connection makes a new one.
    Expired,
    Reply {
        tag: u64,
        /// When the request was due.
        from: Now,
        header: ReplyHeader,
        body: Reader<'a>,
    },
    Event {
        kind: Option<EventKind>,
        path: Cow<'a, str>,
        /// When it was there: at the socket with `Crowd::stamp_arrivals`, else when it was read.
        at: Now,
    },
    /// The connection is gone, and the requests in flight with it: `Voice::in_flight` tells which.
    Lost(io::Error),
    Wrong(String),
}

/// How often connections are looked through for one that owes a reply for too long.
pub const LOOK: Duration = Duration::from_millis(100);

/// One session: what it has said and not been answered yet.
pub struct Voice {
    pub index: usize,
    pub session: SessionId,
    password: [u8; 16],
    /// What the server has granted, in milliseconds.
    pub timeout_ms: i32,
    pub last_zxid: i64,
    xids: Xids,
    pub in_flight: VecDeque<Asked<u64>>,
    output: Vec<u8>,
    pub up: bool,
    spoke: Now,
    /// Where it connects next, as a place in the list of servers.
    server: usize,
}

/// The tag of pings.
pub const PING: u64 = u64::MAX;
/// The tag of setWatches.
pub const WATCHES: u64 = u64::MAX - 1;

impl Voice {
    /// Asks for something that was due at `from`. `write` appends the frame with the xid that it is given; `tag` comes back
    /// with the reply.
    pub fn ask(&mut self, tag: u64, from: Now, write: impl FnOnce(i32, &mut Vec<u8>)) {
        let xid = self.xids.next();
        self.ask_as(xid, tag, from, |out| write(xid, out));
    }

    /// The same with an xid that is the caller's, or has a meaning of its own.
    pub fn ask_as(&mut self, xid: i32, tag: u64, from: Now, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.output);
        self.in_flight.push_back(Asked { xid, tag, due: from, written: clock::now() });
    }

    pub fn ping(&mut self, now: Now) {
        self.ask_as(xid::PING, PING, now, |out| super::dialect::open(OpCode::Ping, xid::PING, out).close());
    }

    fn take(
        &mut self,
        frame: &[u8],
        arrived: Option<Duration>,
        each: &mut impl FnMut(&mut Voice, News<'_>),
    ) -> io::Result<()> {
        if !self.up {
            return self.greeted(frame, each);
        }
        let mut r = Reader::new(frame);
        let header = ReplyHeader::read(&mut r).map_err(|error| invalid(error.to_string()))?;
        if header.xid == xid::NOTIFICATION {
            let kind = EventKind::from_wire(r.int("type").map_err(|error| invalid(error.to_string()))?);
            let path = r.int("state").and_then(|_| r.string("path")).map_err(|error| invalid(error.to_string()))?;
            each(self, News::Event { kind, path, at: arrived.map_or_else(clock::now, clock::of_wall) });
            return Ok(());
        }
        let asked = self.in_flight.pop_front().ok_or_else(|| invalid("a reply to no request"))?;
        if header.xid != asked.xid {
            return Err(invalid(format!("reply to xid {} where {} was due", header.xid, asked.xid)));
        }
        if header.zxid < self.last_zxid {
            let problem = format!("the zxid went back from {:#x} to {:#x}", self.last_zxid, header.zxid);
            each(self, News::Wrong(problem));
        }
        self.last_zxid = self.last_zxid.max(header.zxid);
        each(self, News::Reply { tag: asked.tag, from: asked.due, header, body: r });
        Ok(())
    }

    fn greeted(&mut self, frame: &[u8], each: &mut impl FnMut(&mut Voice, News<'_>)) -> io::Result<()> {
        let response = ConnectResponse::read(frame).map_err(|error| invalid(error.to_string()))?;
        let resumed = self.session != SessionId::NONE;
        if response.timeout_ms <= 0 {
            self.session = SessionId::NONE;
            if !resumed {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the server refused a session"));
            }
            each(self, News::Expired);
            return Ok(());
        }
        if resumed && response.session != self.session {
            let problem = format!("session {} came back as {}", self.session, response.session);
            each(self, News::Wrong(problem));
        }
        self.session = response.session;
        self.timeout_ms = response.timeout_ms;
        self.password = response.password;
        self.up = true;
        each(self, News::Up { resumed });
        Ok(())
    }

    fn hello(&self, timeout_ms: u32, out: &mut Vec<u8>) {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: timeout_ms as i32,
            session: self.session,
            password: Some(&self.password),
            read_only: Some(false),
        };
        request.write(out);
    }
}

/// The timer's token; sessions have their index.
const TIMER: Token = Token(usize::MAX);
/// A shorter wait than this is by the timer, which is exact; the poll's own timeout is in whole milliseconds.
const TIMER_BELOW: Duration = Duration::from_millis(10);

/// Who waits for quiet waits no longer than this: sessions have to ping.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// What the poll said about a connection.
struct Ready {
    index: usize,
    readable: bool,
    closed: bool,
}

/// All of them.
pub struct Crowd {
    poll: Poll,
    timer: Timer,
    events: Events,
    ready: Vec<Ready>,
    links: Vec<Option<Link>>,
    pub voices: Vec<Voice>,
    addresses: Vec<SocketAddr>,
    timeout_ms: u32,
    patience: Duration,
    stamp: bool,
    scratch: Vec<u8>,
    /// When voices were last looked through for those that have to ping.
    pinged: Now,
    /// When `is_overdue` last looked.
    looked: Now,
}

impl Crowd {
    /// `count` sessions of these servers, none of which is connected yet. `timeout_ms` is what they ask for.
    pub fn new(args: &BenchArgs, addresses: &[SocketAddr], count: usize, timeout_ms: u32) -> io::Result<Crowd> {
        let voice = |index| Voice {
            index,
            session: SessionId::NONE,
            password: [0; 16],
            timeout_ms: 0,
            last_zxid: 0,
            xids: Xids::default(),
            in_flight: VecDeque::new(),
            output: Vec::new(),
            up: false,
            spoke: Now::START,
            server: index,
        };
        let poll = Poll::new()?;
        Ok(Crowd {
            timer: Timer::new(&poll, TIMER)?,
            poll,
            events: Events::with_capacity(4096),
            ready: Vec::new(),
            links: (0..count).map(|_| None).collect(),
            voices: (0..count).map(voice).collect(),
            addresses: addresses.into(),
            timeout_ms,
            patience: args.patience(),
            stamp: false,
            scratch: vec![0; 256 << 10],
            pinged: Now::START,
            looked: Now::START,
        })
    }

    /// Has the kernel stamp what arrives on connections that are made from now on.
    pub fn stamp_arrivals(&mut self) {
        self.stamp = true;
    }

    /// Whether it has a connection, which may not stand yet.
    pub fn is_connected(&self, index: usize) -> bool {
        self.links[index].is_some()
    }

    /// Cuts a connection on which no session stands `limit` after it was begun, as clients do: a server that starts may
    /// accept a connection and never answer it.
    pub fn give_up(&mut self, index: usize, now: Now, limit: Duration) {
        let voice = &self.voices[index];
        if self.links[index].is_some() && !voice.up && now.since(voice.spoke) > limit {
            self.cut(index);
        }
    }

    /// Whether a connection has owed an answer, or its session, for longer than `--patience`. `now` has to be from before the
    /// last turn, which has read what had come by then.
    pub fn is_overdue(&mut self, now: Now) -> bool {
        // All are gone through; not in each of many turns.
        if now.since(self.looked) < LOOK {
            return false;
        }
        self.looked = now;
        self.voices.iter().filter(|voice| self.links[voice.index].is_some()).any(|voice| {
            let since = if voice.up { voice.in_flight.front().map(|asked| asked.written) } else { Some(voice.spoke) };
            since.is_some_and(|since| now.since(since) > self.patience)
        })
    }

    /// How long clients wait for the answer to a handshake: a third of the timeout that they ask for.
    pub fn handshake_limit(&self) -> Duration {
        Duration::from_millis(u64::from(self.timeout_ms) / 3)
    }

    /// Begins to connect; `Up`, `Expired` or `Lost` follows. Each time it is the next server's turn.
    pub fn connect(&mut self, index: usize, now: Now) -> io::Result<()> {
        let voice = &mut self.voices[index];
        let address = self.addresses[voice.server % self.addresses.len()];
        voice.server += 1;
        voice.spoke = now;
        voice.output.clear();
        let mut link = Link::connect(address, Framing::Length)?;
        if self.stamp {
            link.stamp_arrivals()?;
        }
        voice.hello(self.timeout_ms, &mut link.output);
        self.poll.registry().register(&mut link.socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        // On this machine it stands already as a rule; else the poll tells when it does, or that it never will.
        let _ = link.send();
        self.links[index] = Some(link);
        Ok(())
    }

    /// Cuts a connection as a crash of the client would; there is no news of it.
    pub fn cut(&mut self, index: usize) {
        self.links[index] = None;
        let voice = &mut self.voices[index];
        voice.up = false;
        voice.in_flight.clear();
    }

    /// Ends the sessions that stand (`link::end_sessions`).
    pub fn end_sessions(self) {
        let links = self.links.into_iter().zip(&self.voices);
        link::end_sessions(links.filter(|(_, voice)| voice.up).filter_map(|(link, _)| link).collect());
    }

    /// Connects all of them, no more than `at_once` handshakes at a time (a listener's backlog is short), and waits until
    /// the last one stands. Errors: one was refused or lost, or none came for as long as `--patience` lasts.
    pub fn connect_all(&mut self, at_once: usize, bar: &indicatif::ProgressBar) -> io::Result<()> {
        let count = self.voices.len();
        let (mut begun, mut stand) = (0, 0);
        let mut last = clock::now();
        while stand < count {
            while begun < count && begun - stand < at_once {
                self.connect(begun, clock::now())?;
                begun += 1;
            }
            let (mut failed, before) = (None, stand);
            self.turn(Duration::from_millis(50), |_, news| match news {
                News::Up { .. } => stand += 1,
                News::Lost(error) => failed = Some(error),
                News::Wrong(problem) => failed = Some(invalid(problem)),
                _ => {}
            })?;
            let now = clock::now();
            if stand > before {
                last = now;
                bar.set_position(stand as u64);
                bar.set_message(format!("{stand} sessions"));
            }
            if let Some(error) = failed {
                return Err(io::Error::new(error.kind(), format!("after {stand} sessions: {error}")));
            }
            if now.since(last) > self.patience {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no further session after {stand}")));
            }
        }
        Ok(())
    }

    /// Waits until `pause` has brought nothing new, for at most a second, and only then reads. So what arrives meanwhile
    /// wakes nobody, and its receiving takes no core from a server on the same machine. Else as `turn`.
    pub fn turn_when_quiet(&mut self, pause: Duration, mut each: impl FnMut(&mut Voice, News<'_>)) -> io::Result<()> {
        let give_up = clock::now().plus(QUIET_MAX);
        let mut ready = Vec::new();
        let mut quiet = false;
        while !quiet && clock::now() < give_up {
            std::thread::park_timeout(pause);
            let before = ready.len();
            self.poll(Duration::ZERO, &mut ready)?;
            quiet = ready.len() == before;
        }
        self.take_all(&mut ready, &mut each);
        self.ping_silent(&mut each);
        Ok(())
    }

    /// Adds which connections have something.
    fn poll(&mut self, wait: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        pace::wait(&mut self.poll, &mut self.events, wait)?;
        ready.extend(self.events.iter().filter(|event| event.token() != TIMER).map(|event| {
            let closed = event.is_read_closed();
            // Of a connection that only became writable there is nothing to receive.
            let readable = event.is_readable() || closed || event.is_error() || event.is_write_closed();
            Ready { index: event.token().0, readable, closed }
        }));
        Ok(())
    }

    fn take_all(&mut self, ready: &mut Vec<Ready>, each: &mut impl FnMut(&mut Voice, News<'_>)) {
        for Ready { index, readable, closed } in ready.drain(..) {
            let (Some(link), voice) = (&mut self.links[index], &mut self.voices[index]) else { continue };
            let received = if readable {
                link.receive(&mut self.scratch, closed, |frame, arrived| voice.take(frame, arrived, each))
            } else {
                Ok(())
            };
            if let Err(error) = received.and_then(|()| flush(link, voice)) {
                lose(&mut self.links[index], voice, error, each);
            }
        }
    }

    /// Sends what has been asked, waits for at most `wait`, hands the news on, and sends what was asked while it did so.
    /// Sessions that have been silent for a third of their timeout ping. Errors: the poll's own.
    pub fn turn(&mut self, wait: Duration, mut each: impl FnMut(&mut Voice, News<'_>)) -> io::Result<()> {
        if wait < TIMER_BELOW && !wait.is_zero() {
            self.timer.set(wait)?;
        }
        let mut ready = std::mem::take(&mut self.ready);
        let polled = self.poll(wait, &mut ready);
        self.take_all(&mut ready, &mut each);
        self.ready = ready;
        polled?;
        self.ping_silent(&mut each);
        Ok(())
    }

    /// Sessions that have been silent for a third of their timeout ping.
    fn ping_silent(&mut self, each: &mut impl FnMut(&mut Voice, News<'_>)) {
        let now = clock::now();
        if now.since(self.pinged) > Duration::from_millis(200) {
            self.pinged = now;
            for index in 0..self.voices.len() {
                let voice = &mut self.voices[index];
                let due = voice.up && now.since(voice.spoke).as_millis() as i64 * 3 > i64::from(voice.timeout_ms);
                if due {
                    voice.ping(now);
                    self.send(index, now, &mut *each);
                }
            }
        }
    }

    /// Sends what a session has been told to ask.
    pub fn send(&mut self, index: usize, now: Now, mut each: impl FnMut(&mut Voice, News<'_>)) {
        let (Some(link), voice) = (&mut self.links[index], &mut self.voices[index]) else { return };
        voice.spoke = now;
        if let Err(error) = flush(link, voice) {
            lose(&mut self.links[index], voice, error, &mut each);
        }
    }
}

fn flush(link: &mut Link, voice: &mut Voice) -> io::Result<()> {
    if voice.up {
        link.output.append(&mut voice.output);
    }
    link.send()
}

fn lose(link: &mut Option<Link>, voice: &mut Voice, error: io::Error, each: &mut impl FnMut(&mut Voice, News<'_>)) {
    if let Some(link) = link.take() {
        // Reset, so that thousands of connections to a dead server don't leave the kernel their farewells and timers.
        let _ = socket2::SockRef::from(&link.socket).set_linger(Some(Duration::ZERO));
    }
    voice.up = false;
    voice.output.clear();
    each(voice, News::Lost(error));
    voice.in_flight.clear();
}
