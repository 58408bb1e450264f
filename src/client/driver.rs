//! One client's connection: the thread that owns the socket, the order of requests and the watches.
//!
//! Everything that happens reaches the driver through one channel: requests of callers, frames and the end of a connection
//! from the reader thread of that connection. So no lock guards the protocol, and events and replies are told in the order
//! in which the server sent them: an event is told before a reply that came after it completes.
//!
//! Promises: replies are matched first in, first out; a connection that breaks this is given up. Each request gets exactly
//! one outcome. After a reconnect: same session, identities again, watches again, in this order and before new requests.
//!
//! Runs on: the driver thread, one a client; and one reader thread a connection, which only cuts the stream into frames.

use super::address::Chroot;
use super::event::{Event, EventType, State};
use super::frames::read_frames;
use super::watches::{Kind, Watcher, Watches};
use crate::clock::{self, Now};
use crate::hosts;
use crate::ids::SessionId;
use crate::limits;
use crate::wire::client::{
    AuthPacket, ConnectRequest, ConnectResponse, EventKind, PASSWORD_BYTES, ReplyHeader, RequestHeader, xid,
};
use crate::wire::writer::Frame;
use crate::wire::{ErrorCode, OpCode, Reader};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What wakes the driver.
pub(super) enum Input {
    Submit(Submission),
    Auth {
        scheme: String,
        auth: Vec<u8>,
    },
    /// From the reader of connection number `.0`.
    Frame(u64, Vec<u8>),
    Gone(u64),
    Close,
}

/// A request on its way, with what its reply changes for the driver.
pub(super) struct Submission {
    pub op: OpCode,
    pub body: Vec<u8>,
    pub effect: Effect,
    pub reply: Option<Sender<Result<Vec<u8>, ErrorCode>>>,
    pub _permit: Option<Permit>,
}

/// What the driver does with its watches when the reply is there.
pub(super) enum Effect {
    None,
    /// Registers on success; an exists that finds nothing registers too.
    Watch(Kind, String, Watcher),
    /// Forgets watches of a type (as removeWatches numbers them) on a path; `local`: also when the server can't be asked.
    Forget {
        watch_type: i32,
        path: String,
        local: bool,
    },
}

impl Submission {
    fn finish(self, outcome: Result<Vec<u8>, ErrorCode>) {
        if let Some(reply) = self.reply {
            // Nobody may be waiting any more.
            let _ = reply.send(outcome);
        }
    }
}

/// What callers may look at while the driver works.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Clone, Copy)]
pub(super) struct Inner {
    pub state: State,
    pub session: SessionId,
    pub timeout_ms: i32,
    in_flight: usize,
}

impl Shared {
    pub fn new(timeout_ms: i32) -> Shared {
        let inner = Inner { state: State::Disconnected, session: SessionId::NONE, timeout_ms, in_flight: 0 };
        Shared { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds the lock can panic half-way: it only copies.
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn get(&self) -> Inner {
        *self.lock()
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `done` holds or `wait` is over; the state at that moment.
    pub fn wait(&self, wait: Duration, done: impl Fn(&Inner) -> bool) -> Inner {
        let guard = self.lock();
        let (guard, _) = self
            .changed
            .wait_timeout_while(guard, wait, |inner| !done(inner))
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *guard
    }

    /// Waits for room among the requests in flight.
    pub fn permit(self: &Arc<Shared>) -> Permit {
        let mut guard = self.lock();
        while guard.in_flight >= limits::CLIENT_IN_FLIGHT_MAX {
            guard = self.changed.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        guard.in_flight += 1;
        Permit(self.clone())
    }
}

/// One place among the requests in flight; given back when dropped.
pub(super) struct Permit(Arc<Shared>);

impl Drop for Permit {
    fn drop(&mut self) {
        let mut guard = self.0.lock();
        guard.in_flight -= 1;
        let was_full = guard.in_flight + 1 == limits::CLIENT_IN_FLIGHT_MAX;
        drop(guard);
        if was_full {
            self.0.changed.notify_all();
        }
    }
}

struct Connection {
    stream: TcpStream,
    number: u64,
    /// Whether the server has accepted the session on it.
    established: bool,
}

pub(super) struct Driver {
    pub inbox: Receiver<Input>,
    /// For the reader threads.
    pub sender: Sender<Input>,
    pub shared: Arc<Shared>,
    pub servers: Vec<(String, u16)>,
    pub chroot: Chroot,
    pub read_only: bool,
    pub watcher: Box<dyn FnMut(&Event) + Send>,
    pub link: Link,
}

/// The part of the driver that changes with every message.
#[derive(Default)]
pub(super) struct Link {
    connection: Option<Connection>,
    connections: u64,
    next_server: usize,
    retry_at: Now,
    session: SessionId,
    password: [u8; PASSWORD_BYTES],
    last_zxid: i64,
    xid: i32,
    last_sent: Now,
    last_heard: Now,
    identities: Vec<(String, Vec<u8>)>,
    watches: Watches,
    /// Not sent yet.
    queued: VecDeque<Submission>,
    /// Sent, in order, each with its xid.
    pending: VecDeque<(i32, Submission)>,
    out: Vec<u8>,
    closing: bool,
}

/// Pause after every server has been tried in vain.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// Inputs handled before what they made is written.
const BATCH: usize = 1024;

impl Driver {
    /// Until the session is closed and everything in the channel has had its outcome.
    pub fn run(mut self) {
        loop {
            let state = self.shared.get().state;
            if state == State::Closed || (self.link.closing && state.is_final()) {
                break;
            }
            let now = clock::now();
            if !state.is_final() && self.link.connection.is_none() && now >= self.link.retry_at {
                self.connect(now);
            }
            let wait = if state.is_final() { Duration::from_secs(3600) } else { self.until_next_duty(clock::now()) };
            match self.inbox.recv_timeout(wait) {
                Ok(input) => self.handle(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the driver holds a sender itself"),
            }
            for _ in 0..BATCH {
                let Ok(input) = self.inbox.try_recv() else { break };
                self.handle(input);
            }
            self.duties(clock::now());
            self.flush();
        }
        self.fail_all(ErrorCode::SESSION_EXPIRED);
        while let Ok(input) = self.inbox.try_recv() {
            if let Input::Submit(submission) = input {
                submission.finish(Err(ErrorCode::SESSION_EXPIRED));
            }
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.shared.get().timeout_ms.max(1) as u64)
    }

    /// How long a server may take to accept a connection and the session on it.
    fn connect_timeout(&self) -> Duration {
        (self.timeout() / self.servers.len() as u32).max(Duration::from_millis(100))
    }

    fn until_next_duty(&self, now: Now) -> Duration {
        let link = &self.link;
        let at = match &link.connection {
            None => link.retry_at,
            Some(connection) if !connection.established => link.last_heard.plus(self.connect_timeout()),
            Some(_) => {
                let ping = link.last_sent.plus(self.timeout() / 3);
                ping.min(link.last_heard.plus(self.timeout() * 2 / 3))
            }
        };
        at.since(now).max(Duration::from_millis(1))
    }

    fn duties(&mut self, now: Now) {
        let Some(connection) = &self.link.connection else { return };
        let quiet = now.since(self.link.last_heard);
        if !connection.established {
            if quiet >= self.connect_timeout() {
                self.disconnected();
            }
        } else if quiet >= self.timeout() * 2 / 3 {
            self.disconnected();
        } else if now.since(self.link.last_sent) >= self.timeout() / 3 {
            self.send(xid::PING, OpCode::Ping, &[]);
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Submit(submission) => self.submit(submission),
            Input::Auth { scheme, auth } => {
                if self.is_established() {
                    self.send_auth(&scheme, &auth);
                }
                self.link.identities.push((scheme, auth));
            }
            Input::Frame(number, frame) => {
                if self.link.connection.as_ref().is_some_and(|connection| connection.number == number) {
                    self.link.last_heard = clock::now();
                    if self.frame(&frame).is_none() {
                        self.disconnected();
                    }
                }
            }
            Input::Gone(number) => {
                if self.link.connection.as_ref().is_some_and(|connection| connection.number == number) {
                    self.disconnected();
                }
            }
            Input::Close => {
                self.link.closing = true;
                if self.is_established() {
                    let close = Submission {
                        op: OpCode::CloseSession,
                        body: Vec::new(),
                        effect: Effect::None,
                        reply: None,
                        _permit: None,
                    };
                    self.send_submission(close);
                } else if !self.shared.get().state.is_final() {
                    self.end(State::Closed);
                }
            }
        }
    }

    fn is_established(&self) -> bool {
        self.link.connection.as_ref().is_some_and(|connection| connection.established)
    }

    fn submit(&mut self, submission: Submission) {
        if let Effect::Forget { watch_type, path, .. } = &submission.effect
            && !self.link.watches.has(kinds(*watch_type), path)
        {
            return submission.finish(Err(ErrorCode::NO_WATCHER));
        }
        match self.shared.get().state {
            State::AuthFailed => submission.finish(Err(ErrorCode::AUTH_FAILED)),
            State::Expired | State::Closed => submission.finish(Err(ErrorCode::SESSION_EXPIRED)),
            _ if self.link.closing => submission.finish(Err(ErrorCode::SESSION_EXPIRED)),
            _ if self.is_established() => self.send_submission(submission),
            _ => self.link.queued.push_back(submission),
        }
    }

    // ---- out

    fn send(&mut self, xid: i32, op: OpCode, body: &[u8]) {
        self.write(xid, op, body);
        self.flush_much();
    }

    fn write(&mut self, xid: i32, op: OpCode, body: &[u8]) {
        let frame = Frame::open(&mut self.link.out);
        RequestHeader { xid, op: op.to_wire() }.write(frame.bytes);
        frame.bytes.extend_from_slice(body);
        frame.close();
        self.link.last_sent = clock::now();
    }

    fn flush_much(&mut self) {
        if self.link.out.len() >= 256 << 10 {
            self.flush();
        }
    }

    fn send_submission(&mut self, submission: Submission) {
        if self.link.connection.is_none() {
            // It was lost over the one before.
            return submission.finish(Err(ErrorCode::CONNECTION_LOSS));
        }
        self.link.xid = self.link.xid.checked_add(1).unwrap_or(1);
        let xid = self.link.xid;
        self.write(xid, submission.op, &submission.body);
        // Before it is flushed: if the connection is lost over that, it is among those that are told.
        self.link.pending.push_back((xid, submission));
        self.flush_much();
    }

    fn send_auth(&mut self, scheme: &str, auth: &[u8]) {
        let mut body = Vec::new();
        AuthPacket { scheme: Some(Cow::Borrowed(scheme)), auth: Some(auth) }.write(&mut body);
        self.send(xid::AUTH, OpCode::Auth, &body);
    }

    fn flush(&mut self) {
        if self.link.out.is_empty() {
            return;
        }
        let written = match &mut self.link.connection {
            Some(connection) => connection.stream.write_all(&self.link.out),
            None => Ok(()),
        };
        self.link.out.clear();
        if written.is_err() {
            self.disconnected();
        }
    }

    // ---- in

    /// `None`: the server said something that makes no sense; the connection has to go.
    fn frame(&mut self, frame: &[u8]) -> Option<()> {
        if !self.is_established() {
            return self.session_reply(ConnectResponse::read(frame).ok()?);
        }
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::read(&mut reader).ok()?;
        match header.xid {
            xid::PING => {}
            xid::NOTIFICATION => {
                let kind = EventKind::from_wire(reader.int("type").ok()?)?;
                reader.int("state").ok()?;
                let path = reader.string("path").ok()?;
                self.notify(kind.into(), &path, header.zxid);
            }
            xid::AUTH => {
                if header.err != ErrorCode::OK {
                    self.end(State::AuthFailed);
                }
            }
            xid => {
                if self.link.pending.front()?.0 != xid {
                    return None;
                }
                let (_, submission) = self.link.pending.pop_front()?;
                if header.zxid > 0 {
                    self.link.last_zxid = header.zxid;
                }
                self.answered(submission, header.err, reader.rest());
            }
        }
        Some(())
    }

    fn answered(&mut self, submission: Submission, err: ErrorCode, body: &[u8]) {
        if submission.op == OpCode::CloseSession {
            submission.finish(Ok(Vec::new()));
            return self.end(State::Closed);
        }
        let ok = err == ErrorCode::OK;
        match &submission.effect {
            Effect::Watch(kind, path, watcher) => {
                let kind = match (ok, err, submission.op) {
                    (true, ..) => Some(*kind),
                    (false, ErrorCode::NO_NODE, OpCode::Exists) => Some(Kind::Exist),
                    _ => None,
                };
                if let Some(kind) = kind {
                    self.link.watches.add(kind, path.clone(), watcher.clone());
                }
            }
            Effect::Forget { watch_type, path, .. } if ok => self.forget(*watch_type, &path.clone()),
            _ => {}
        }
        submission.finish(if ok { Ok(body.to_vec()) } else { Err(err) });
    }

    fn forget(&mut self, watch_type: i32, path: &str) {
        let state = self.shared.get().state;
        for (group, event_type) in [
            (&[Kind::Child][..], EventType::ChildWatchRemoved),
            (&[Kind::Data, Kind::Exist][..], EventType::DataWatchRemoved),
            (&[Kind::Persistent, Kind::Recursive][..], EventType::PersistentWatchRemoved),
        ] {
            let mut told = Vec::new();
            for kind in group.iter().filter(|kind| kinds(watch_type).contains(kind)) {
                told.extend(self.link.watches.remove(*kind, path));
            }
            let path = Some(self.chroot.strip(path).to_owned());
            self.tell(told, &Event { state, kind: event_type, path, zxid: -1 });
        }
    }

    fn notify(&mut self, kind: EventType, path: &str, zxid: i64) {
        let told = self.link.watches.fire(kind, path);
        let path = Some(self.chroot.strip(path).to_owned());
        self.tell(told, &Event { state: State::SyncConnected, kind, path, zxid });
    }

    fn tell(&mut self, watchers: Vec<Watcher>, event: &Event) {
        let mut default = false;
        for watcher in watchers {
            match watcher {
                Watcher::Default if default => {}
                Watcher::Default => {
                    default = true;
                    (self.watcher)(event);
                }
                // Nobody may be listening any more.
                Watcher::Channel(sender) => drop(sender.send(event.clone())),
            }
        }
    }

    // ---- the connection's life

    fn connect(&mut self, now: Now) {
        let (host, port) = self.servers[self.link.next_server].clone();
        self.link.next_server = (self.link.next_server + 1) % self.servers.len();
        if self.link.next_server == 0 {
            self.link.retry_at = now.plus(ROUND_PAUSE);
        }
        match self.open(&host, port) {
            Ok(stream) => {
                self.link.connections += 1;
                let number = self.link.connections;
                self.link.connection = Some(Connection { stream, number, established: false });
                self.link.last_heard = clock::now();
                self.link.last_sent = self.link.last_heard;
                self.link.out.clear();
                ConnectRequest {
                    protocol_version: 0,
                    last_zxid_seen: self.link.last_zxid,
                    timeout_ms: self.shared.get().timeout_ms,
                    session: self.link.session,
                    password: Some(&self.link.password),
                    read_only: Some(self.read_only),
                }
                .write(&mut self.link.out);
                self.flush();
            }
            Err(_) => self.disconnected(),
        }
    }

    /// Connects, and starts the thread that reads.
    fn open(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for address in hosts::look_up(host, port)? {
            match TcpStream::connect_timeout(&address, self.connect_timeout()) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(self.timeout()))?;
                    let reader = stream.try_clone()?;
                    let (number, inbox) = (self.link.connections + 1, self.sender.clone());
                    std::thread::Builder::new()
                        .name("client-reader".into())
                        .spawn(move || read_frames(reader, number, &inbox))?;
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn session_reply(&mut self, response: ConnectResponse) -> Option<()> {
        if response.timeout_ms <= 0 {
            self.end(State::Expired);
            return Some(());
        }
        self.link.connection.as_mut()?.established = true;
        self.link.session = response.session;
        self.link.password = response.password;
        let read_only = response.read_only == Some(true);
        let state = if read_only { State::ConnectedReadOnly } else { State::SyncConnected };
        self.shared.change(|inner| {
            inner.state = state;
            inner.session = response.session;
            inner.timeout_ms = response.timeout_ms;
        });
        (self.watcher)(&Event::of_state(state));

        for (scheme, auth) in self.link.identities.clone() {
            self.send_auth(&scheme, &auth);
        }
        let again: Vec<Submission> = self
            .link
            .watches
            .set_again(self.link.last_zxid)
            .into_iter()
            .map(|request| {
                let simple = [&request.persistent, &request.recursive].iter().all(|list| list.as_deref() == Some(&[]));
                let op = if simple { OpCode::SetWatches } else { OpCode::SetWatches2 };
                let mut body = Vec::new();
                request.write(&mut body, op);
                Submission { op, body, effect: Effect::None, reply: None, _permit: None }
            })
            .collect();
        for submission in again {
            self.send_submission(submission);
        }
        for submission in std::mem::take(&mut self.link.queued) {
            self.send_submission(submission);
        }
        Some(())
    }

    /// The connection is lost, or could not be made: requests are told, the session lives on.
    fn disconnected(&mut self) {
        if let Some(connection) = self.link.connection.take() {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        self.link.out.clear();
        if self.link.closing {
            return self.end(State::Closed);
        }
        let state = self.shared.get().state;
        if state.is_final() {
            return;
        }
        self.shared.change(|inner| inner.state = State::Disconnected);
        if state.is_connected() {
            (self.watcher)(&Event::of_state(State::Disconnected));
        }
        self.fail_all(ErrorCode::CONNECTION_LOSS);
    }

    /// The session is over.
    fn end(&mut self, state: State) {
        if let Some(connection) = self.link.connection.take() {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        self.link.out.clear();
        let code = if state == State::AuthFailed { ErrorCode::AUTH_FAILED } else { ErrorCode::SESSION_EXPIRED };
        // Told before anybody who waits for the state goes on (and may end the process).
        (self.watcher)(&Event::of_state(state));
        self.shared.change(|inner| inner.state = state);
        self.fail_all(code);
    }

    fn fail_all(&mut self, code: ErrorCode) {
        let pending = std::mem::take(&mut self.link.pending).into_iter().map(|(_, submission)| submission);
        for submission in pending.chain(std::mem::take(&mut self.link.queued)) {
            if let Effect::Forget { watch_type, path, local: true } = &submission.effect {
                self.forget(*watch_type, &path.clone());
                submission.finish(Ok(Vec::new()));
            } else {
                submission.finish(Err(code));
            }
        }
    }
}

/// The kinds that a removeWatches type means.
fn kinds(watch_type: i32) -> &'static [Kind] {
    match watch_type {
        1 => &[Kind::Child],
        2 => &[Kind::Data, Kind::Exist],
        4 => &[Kind::Persistent],
        5 => &[Kind::Recursive],
        _ => &[Kind::Data, Kind::Exist, Kind::Child, Kind::Persistent, Kind::Recursive],
    }
}
