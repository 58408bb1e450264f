//! The election port: sockets, the decisions about them (`zab::election_links`) and the search for a leader
//! (`zab::election`).
//!
//! The listener is open until the server stops, not only while it looks for a leader, since a server that leads or follows
//! answers those who look. Everything that comes in is bounded: an introduction is at most 2 KiB, a notification half a MiB,
//! and who says nothing is forgotten.
//!
//! Runs on: the pipeline's thread.

use crate::clock::Now;
use crate::config::servers::PeerAddress;
use crate::fatal::Fatal;
use crate::ids::{Epoch, ServerId, Zxid};
use crate::net::{BufferedStream, INTERESTS, Readiness};
use crate::server::ensemble::quorum_net::ACCEPT_PAUSE_MS;
use crate::server::ensemble::resolver::Resolver;
use crate::server::log_rate::LogRate;
use crate::wire::election::{ADDRESSES_MAX, InitialMessage, NOTIFICATION_MAX, Notification, notification_length};
use crate::zab::Candidacy;
use crate::zab::election::{Election, Output, Vote};
use crate::zab::election_links::{ConnId, ElectionLinks, LinkOutput, Target};
use crate::zab::ensemble::EnsembleConfig;
use crate::zab::quorum::ServerSet;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

/// The listeners' token; a connection's is `CONNS` and its number.
pub const LISTENER: Token = Token(3);
pub const CONNS: usize = 1 << 40;

enum Socket {
    /// The name is being looked up.
    Resolving(Untried),
    Connecting(BufferedStream, Untried),
    Open(BufferedStream),
}

/// Where a server may be found if it is not where we look.
#[derive(Default)]
struct Untried {
    /// Of its line, with names.
    configured: VecDeque<PeerAddress>,
    /// Of the name that was looked up last.
    resolved: VecDeque<SocketAddr>,
    /// Earlier attempts to reach it, each of which began elsewhere.
    attempts: usize,
}

/// Sockets and state of the election port.
pub struct ElectionNet {
    registry: Registry,
    /// None: this server is stopping.
    listeners: Vec<TcpListener>,
    resolver: Resolver,
    config: Arc<EnsembleConfig>,
    me: ServerId,
    /// As others reach this server's election port.
    own: Vec<PeerAddress>,
    election: Election,
    links: ElectionLinks,
    sockets: BTreeMap<ConnId, Socket>,
    /// Attempts to reach each server, ever.
    attempts: BTreeMap<ServerId, usize>,
    /// Sockets that may have something for us.
    ready: Vec<ConnId>,
    decided: Option<Vote>,
    /// The configuration that a voter has told last.
    told_config: Vec<u8>,
    agreed: Zxid,
    /// Voters that were looking for a leader while this server had one, or followed another.
    lookers: Vec<ServerId>,
    /// Someone may be waiting to be accepted.
    calls: bool,
    /// When to try again, after there was no descriptor for one.
    calls_at: Option<Now>,
    /// Of lines about connections.
    log_rate: LogRate,
}

impl ElectionNet {
    /// The election port, which is open. `own`: how others reach it.
    pub fn new(
        registry: Registry,
        ports: Vec<std::net::TcpListener>,
        resolver: Resolver,
        me: ServerId,
        own: Vec<PeerAddress>,
        election: Election,
        links: ElectionLinks,
    ) -> Result<ElectionNet, Fatal> {
        let mut listeners: Vec<TcpListener> = ports.into_iter().map(TcpListener::from_std).collect();
        for listener in &mut listeners {
            let registered = registry.register(listener, LISTENER, Interest::READABLE);
            registered.map_err(|source| Fatal::Io { file: "epoll".into(), source })?;
        }
        let config = election.configs().current().clone();
        Ok(ElectionNet {
            registry,
            listeners,
            resolver,
            config,
            me,
            own,
            election,
            links,
            sockets: BTreeMap::new(),
            attempts: BTreeMap::new(),
            ready: Vec::new(),
            decided: None,
            told_config: Vec::new(),
            agreed: Zxid::ZERO,
            lookers: Vec::new(),
            calls: true,
            calls_at: None,
            log_rate: LogRate::default(),
        })
    }

    /// Begins to look for a leader.
    pub fn look(&mut self, candidacy: Candidacy, now: Now) {
        self.decided = None;
        self.lookers.clear();
        let mut out = Vec::new();
        let Candidacy { current, last, unheard } = candidacy;
        match unheard {
            true => self.election.start_unheard(last, current, now, &mut out),
            false => self.election.start(last, current, now, &mut out),
        }
        self.elected(out, now);
    }

    /// The elected leader can't be reached.
    pub fn pass_over(&mut self, leader: ServerId, now: Now) {
        self.election.pass_over(leader, now);
    }

    /// This server stops. Nobody reaches it here any more: who looks for a leader need not wait for its vote.
    pub fn close_all(&mut self) {
        // Closing a socket takes it out of the poll.
        self.listeners.clear();
        self.sockets.clear();
    }

    /// The vote that has won, once.
    pub fn decided(&mut self) -> Option<Vote> {
        self.decided.take()
    }

    pub fn has_lookers(&self) -> bool {
        !self.lookers.is_empty()
    }

    /// Voters that have been looking for a leader since the last call, while this server had one, or followed another.
    pub fn lookers(&mut self) -> Vec<ServerId> {
        std::mem::take(&mut self.lookers)
    }

    /// Newest version under which voters have told a configuration by which the same servers vote as by this server's.
    pub fn agreed(&self) -> Zxid {
        self.agreed
    }

    /// Servers whose election port can't be reached (`Election::unreachable`).
    pub fn unreachable(&self) -> ServerSet {
        self.election.unreachable()
    }

    pub fn is_connected(&self, peer: ServerId) -> bool {
        self.election.is_connected(peer)
    }

    /// This server's leader (or itself) is established.
    pub fn established(&mut self, epoch: Epoch, now: Now) {
        let mut out = Vec::new();
        self.election.established(epoch, &mut out);
        self.elected(out, now);
    }

    pub fn deadline(&self) -> Option<Now> {
        [self.election.deadline(), self.links.deadline(), self.calls_at].into_iter().flatten().min()
    }

    pub fn has_work(&self) -> bool {
        self.resolver.has_answers() || !self.ready.is_empty() || self.decided.is_some()
    }

    /// Something has happened to the socket of this token; `false` if it is none of these.
    pub fn note(&mut self, token: Token, readiness: Readiness) -> bool {
        if token == LISTENER {
            self.calls = true;
            return true;
        }
        if token.0 < CONNS {
            return false;
        }
        let conn = ConnId((token.0 - CONNS) as u64);
        if let Some(Socket::Connecting(stream, _) | Socket::Open(stream)) = self.sockets.get_mut(&conn) {
            stream.note(readiness);
            self.ready.push(conn);
        }
        true
    }

    /// Works off whatever there is.
    pub fn turn(&mut self, now: Now) {
        let again = self.calls_at.take_if(|at| *at <= now).is_some();
        if std::mem::take(&mut self.calls) || again {
            self.accept(now);
        }
        while let Some((question, answer)) = self.resolver.collect() {
            self.resolved(ConnId(question), answer, now);
        }
        for conn in std::mem::take(&mut self.ready) {
            self.serve(conn, now);
        }
        if self.deadline().is_none_or(|at| at > now) {
            return;
        }
        let mut out = Vec::new();
        self.links.tick(now, &mut out);
        self.carry_out(out, now);
        let mut out = Vec::new();
        self.election.tick(now, &mut out);
        self.elected(out, now);
    }

    fn accept(&mut self, now: Now) {
        let mut at = 0;
        while let Some(listener) = self.listeners.get(at) {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    let mut out = Vec::new();
                    let conn = self.links.accepted(now, &mut out);
                    if self.register(&mut stream, conn) {
                        self.sockets.insert(conn, Socket::Open(BufferedStream::new(stream, true)));
                        self.ready.push(conn);
                    } else {
                        self.links.closed(conn, now, &mut out);
                    }
                    self.carry_out(out, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => at += 1,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if self.log_rate.allows(now) {
                        tracing::warn!("election port: accept: {error}");
                    }
                    // The poll says of those who wait only once.
                    self.calls_at = Some(now.plus_ms(ACCEPT_PAUSE_MS));
                    return;
                }
            }
        }
    }

    fn register(&self, stream: &mut TcpStream, conn: ConnId) -> bool {
        let token = Token(CONNS + conn.0 as usize);
        self.registry.register(stream, token, INTERESTS).is_ok()
    }

    fn resolved(&mut self, conn: ConnId, answer: Result<Vec<SocketAddr>, String>, now: Now) {
        let Some(Socket::Resolving(untried)) = self.sockets.get_mut(&conn) else { return };
        let mut untried = std::mem::take(untried);
        match answer {
            Ok(addresses) => untried.resolved.extend(turned(addresses, untried.attempts)),
            Err(problem) => tracing::warn!("election port: {problem}"),
        }
        self.connect(conn, untried, now);
    }

    /// To the first address that can be tried.
    fn connect(&mut self, conn: ConnId, mut untried: Untried, now: Now) {
        while let Some(address) = untried.resolved.pop_front() {
            if let Ok(mut stream) = TcpStream::connect(address)
                && self.register(&mut stream, conn)
            {
                self.sockets.insert(conn, Socket::Connecting(BufferedStream::new(stream, false), untried));
                return;
            }
        }
        match untried.configured.pop_front() {
            Some(address) => {
                self.sockets.insert(conn, Socket::Resolving(untried));
                self.resolver.ask(conn.0, &address.host, address.election_port);
            }
            None => self.dial_failed(conn, now),
        }
    }

    fn dial_failed(&mut self, conn: ConnId, now: Now) {
        self.sockets.remove(&conn);
        let mut out = Vec::new();
        self.links.dialed(conn, false, now, &mut out);
        self.carry_out(out, now);
    }

    fn serve(&mut self, conn: ConnId, now: Now) {
        if let Some(Socket::Connecting(stream, untried)) = self.sockets.get_mut(&conn) {
            match stream.finish_connecting() {
                Ok(false) => return,
                Err(_) => {
                    let untried = std::mem::take(untried);
                    return self.connect(conn, untried, now);
                }
                Ok(true) => {
                    let Some(Socket::Connecting(stream, _)) = self.sockets.remove(&conn) else { return };
                    self.sockets.insert(conn, Socket::Open(stream));
                    let mut out = Vec::new();
                    self.links.dialed(conn, true, now, &mut out);
                    self.carry_out(out, now);
                }
            }
        }
        let Some(Socket::Open(stream)) = self.sockets.get_mut(&conn) else { return };
        let had = stream.backlog();
        let mut alive = stream.flush().is_ok();
        let written = had > 0 && stream.backlog() == 0;
        alive = alive && stream.fill(NOTIFICATION_MAX + 4).unwrap_or(false);
        let mut out = Vec::new();
        if written {
            self.links.written(conn, now, &mut out);
        }
        self.read(conn, now, &mut out);
        if !alive && self.sockets.remove(&conn).is_some() {
            self.links.closed(conn, now, &mut out);
        } else if let Some(Socket::Open(stream)) = self.sockets.get(&conn)
            && stream.is_readable()
        {
            self.ready.push(conn);
        }
        self.carry_out(out, now);
    }

    fn read(&mut self, conn: ConnId, now: Now, out: &mut Vec<LinkOutput>) {
        loop {
            let Some(Socket::Open(stream)) = self.sockets.get_mut(&conn) else { return };
            if self.links.is_pending(conn) {
                let begin = &stream.input()[..stream.input().len().min(ADDRESSES_MAX + 64)];
                match InitialMessage::read(begin) {
                    Ok(Some((message, taken))) => {
                        stream.take(taken);
                        self.links.introduced(conn, &message, now, out);
                    }
                    Ok(None) => return,
                    Err(_) => return self.links.malformed(conn, now, out),
                }
                continue;
            }
            let Some(from) = self.links.peer_of(conn) else { return };
            let Some(&prefix) = stream.input().first_chunk::<4>() else { return };
            let Ok(length) = notification_length(prefix) else { return self.links.malformed(conn, now, out) };
            let Some(body) = stream.input().get(4..4 + length) else { return };
            let mut told = Vec::new();
            // One that makes no sense is passed over; it must not cost the connection (ZOOKEEPER-3769).
            if let Ok(notification) = Notification::read(body) {
                let Notification { state, leader, zxid, round, peer_epoch, .. } = notification;
                tracing::debug!(
                    "server {} ({state:?}) votes for {leader} ({zxid:x} of epoch {peer_epoch}), round {round}",
                    from.0
                );
                self.election.receive(from, &notification, now, &mut told);
                let text = notification.config.unwrap_or_default();
                if self.config.quorum().is_voter(from) && self.told_config != text {
                    self.told_config = text.to_vec();
                    let theirs = EnsembleConfig::parse(text).ok();
                    let theirs = theirs.filter(|theirs| theirs.quorum().decides_like(self.config.quorum()));
                    let version = theirs.map_or(Zxid::ZERO, |theirs| theirs.version());
                    if version.to_wire() > 0 {
                        self.agreed = self.agreed.max(version);
                    }
                }
            }
            stream.take(4 + length);
            self.elected_into(told, now, out);
        }
    }

    fn elected(&mut self, out: Vec<Output>, now: Now) {
        let mut links = Vec::new();
        self.elected_into(out, now, &mut links);
        self.carry_out(links, now);
    }

    fn elected_into(&mut self, out: Vec<Output>, now: Now, links: &mut Vec<LinkOutput>) {
        for output in out {
            match output {
                Output::Send { to, ballot } => {
                    tracing::debug!("tells server {}: {ballot:?}", to.0);
                    self.links.send(to, ballot, now, links);
                }
                Output::Decided { vote, .. } => self.decided = Some(vote),
                Output::Looker { from } if !self.lookers.contains(&from) => self.lookers.push(from),
                Output::Looker { .. } => {}
            }
        }
    }

    fn carry_out(&mut self, out: Vec<LinkOutput>, now: Now) {
        let mut queue: std::collections::VecDeque<LinkOutput> = out.into();
        while let Some(output) = queue.pop_front() {
            let mut more = Vec::new();
            match output {
                LinkOutput::Dial { conn, to, target } => self.dial(conn, to, target, now),
                LinkOutput::Introduce { conn } => {
                    let mut bytes = Vec::new();
                    let address = |PeerAddress { host, election_port, .. }: &PeerAddress| match host.contains(':') {
                        true => format!("[{host}]:{election_port}"),
                        false => format!("{host}:{election_port}"),
                    };
                    let server = i64::from(self.me.0);
                    InitialMessage { server, addresses: self.own.iter().map(address).collect() }.write(&mut bytes);
                    self.write(conn, bytes);
                }
                LinkOutput::Write { conn, ballot } => {
                    let mut bytes = Vec::new();
                    ballot.notification(&self.config).write(&mut bytes);
                    if self.write(conn, bytes) {
                        self.links.written(conn, now, &mut more);
                    }
                }
                LinkOutput::Close { conn, why } => {
                    if let Some(Socket::Open(mut stream)) = self.sockets.remove(&conn) {
                        let _ = stream.flush();
                    }
                    if let Some(why) = why
                        && self.log_rate.allows(now)
                    {
                        tracing::warn!("election port: a connection is closed: {why}");
                    }
                }
                LinkOutput::Reach { peer, reach } => {
                    tracing::debug!("election port: server {} is {reach:?}", peer.0);
                    let mut told = Vec::new();
                    self.election.reach(peer, reach, now, &mut told);
                    self.elected_into(told, now, &mut more);
                }
            }
            queue.extend(more);
        }
    }

    /// `true` if the kernel has taken all of it.
    fn write(&mut self, conn: ConnId, bytes: Vec<u8>) -> bool {
        let Some(Socket::Open(stream)) = self.sockets.get_mut(&conn) else { return false };
        stream.append(&bytes);
        // An error shows up as the connection's end.
        stream.flush().is_ok() && stream.backlog() == 0
    }

    fn dial(&mut self, conn: ConnId, to: ServerId, target: Target, now: Now) {
        match target {
            Target::Configured => {
                let Some(line) = self.config.server(to) else { return self.dial_failed(conn, now) };
                let earlier = self.attempts.entry(to).or_insert(0);
                let attempts = *earlier;
                *earlier += 1;
                let configured = turned(line.addresses.clone(), attempts);
                self.connect(conn, Untried { configured, attempts, ..Untried::default() }, now);
            }
            Target::Caller { of, port } => {
                let caller = match self.sockets.get(&of) {
                    Some(Socket::Open(stream)) => stream.peer_addr().ok(),
                    _ => None,
                };
                match caller {
                    Some(caller) => {
                        let resolved = [SocketAddr::new(caller.ip(), port)].into();
                        self.connect(conn, Untried { resolved, ..Untried::default() }, now);
                    }
                    None => self.dial_failed(conn, now),
                }
            }
        }
    }
}

/// Each attempt begins at another one.
fn turned<T>(all: Vec<T>, attempts: usize) -> VecDeque<T> {
    let mut all = VecDeque::from(all);
    let count = all.len().max(1);
    all.rotate_left(attempts % count);
    all
}
