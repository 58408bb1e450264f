//! Sockets of the quorum port: a leader's listener and its links to learners, or a learner's link to its leader.
//!
//! Bytes come in and go out here; packets are cut by who knows what may follow them. Everything is bounded: a link reads no
//! more than one packet ahead of what is decoded, writes only when what it had is gone (so that the backlog grows in `zab`,
//! which drops a learner that does not read), and no more connections are taken than there can be members, each several
//! times.
//!
//! Runs on: the pipeline's thread.

use crate::clock::Now;
use crate::config::servers::ServerLine;
use crate::fatal::Fatal;
use crate::net::{BufferedStream, INTERESTS, Port, Readiness};
use crate::server::ensemble::resolver::Resolver;
use crate::zab::leader::Link;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

/// The listeners' token; a link's is `LINKS` and its number.
pub const LISTENER: Token = Token(1);
/// The link to the leader.
pub const LEADER: Token = Token(2);
pub const LINKS: usize = 1 << 32;

/// Connections at once; a server has at most 255 peers, each of which may still have an old one.
const LINKS_MAX: usize = 1024;

/// After accepting has failed.
pub(super) const ACCEPT_PAUSE_MS: u64 = 500;

/// What connecting to a leader has come to.
enum Dial {
    Idle,
    /// The name is being looked up.
    Resolving,
    /// Not there (yet): the leader opens its port only when it leads.
    Waiting(Now),
    /// Until then: an address may answer nothing at all.
    Connecting(BufferedStream, Now),
    Connected(BufferedStream),
}

/// The sockets.
pub struct QuorumNet {
    registry: Registry,
    /// Listened on while this server leads.
    own: Vec<Port>,
    /// The same then.
    listeners: Vec<TcpListener>,
    /// Someone may be waiting to be accepted.
    calls: bool,
    /// Not before this: accepting has failed, perhaps for want of descriptors, and the poll says nothing of who waits.
    calls_at: Option<Now>,
    links: BTreeMap<Link, BufferedStream>,
    next_link: u32,
    dial: Dial,
    target: Option<ServerLine>,
    /// Since the leader was last connected, or there was nobody to be connected to.
    attempts: u32,
    addresses: Vec<SocketAddr>,
    /// The last that was asked.
    question: u64,
    pub resolver: Resolver,
    packet_max: usize,
}

/// Attempts to connect to a leader that has gone from the election too, which take a little more than half a second where they
/// are refused.
const ATTEMPTS_MAX: u32 = 12;

/// To one that is still there, which take five seconds: a ZooKeeper server may need so long before it listens, as upstream's
/// learners expect, and in an ensemble without anyone to spare it waits in vain for a follower that leaves it sooner.
const ATTEMPTS_HEARD_MAX: u32 = 40;

/// For an address to answer; a name server that gives several, or a line that has several, is tried further then.
const CONNECT_MS: u64 = 2_000;

/// Between two attempts to reach a leader: soon at first, since it may be about to listen.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(5 << (attempt / 2).min(5))
}

impl QuorumNet {
    /// `own`: the ports to listen on when this server leads; `packet_max`: bytes of the largest packet.
    pub fn new(registry: Registry, own: Vec<Port>, resolver: Resolver, packet_max: usize) -> QuorumNet {
        QuorumNet {
            registry,
            own,
            listeners: Vec::new(),
            calls: false,
            calls_at: None,
            links: BTreeMap::new(),
            next_link: 0,
            dial: Dial::Idle,
            target: None,
            attempts: 0,
            addresses: Vec::new(),
            question: 0,
            resolver,
            packet_max,
        }
    }

    /// Opens the quorum port.
    pub fn listen(&mut self) -> Result<(), Fatal> {
        for port in &self.own {
            let mut listener = TcpListener::from_std(port.listen_for_now()?);
            let registered = self.registry.register(&mut listener, LISTENER, Interest::READABLE);
            registered.map_err(|source| Fatal::Io { file: "epoll".into(), source })?;
            self.listeners.push(listener);
        }
        self.calls = true;
        Ok(())
    }

    /// Begins to connect to a leader; again and again until `close_all`.
    pub fn dial(&mut self, leader: ServerLine, now: Now) {
        self.target = Some(leader);
        self.attempts = 0;
        self.resolve();
        self.progress(now);
    }

    /// Each attempt takes the next of the leader's addresses, and of those that its name has.
    fn resolve(&mut self) {
        let Some(target) = &self.target else { return };
        let address = &target.addresses[self.attempts as usize % target.addresses.len()];
        self.dial = Dial::Resolving;
        self.question += 1;
        self.resolver.ask(self.question, &address.host, address.quorum_port);
    }

    /// The role is over.
    pub fn close_all(&mut self) {
        self.calls_at = None;
        // The poll has the socket that stays.
        for (mut listener, port) in self.listeners.drain(..).zip(&self.own) {
            let _ = self.registry.deregister(&mut listener);
            port.pause();
        }
        // Closing a socket takes it out of the poll.
        self.links.clear();
        (self.dial, self.target) = (Dial::Idle, None);
    }

    pub fn close(&mut self, link: Link) {
        if let Some(mut stream) = self.links.remove(&link) {
            let _ = stream.flush();
        }
    }

    /// Something has happened to the socket of this token; `false` if it is none of these.
    pub fn note(&mut self, token: Token, readiness: Readiness) -> bool {
        match token {
            LISTENER => {
                self.calls = true;
                true
            }
            LEADER => {
                if let Dial::Connecting(stream, _) | Dial::Connected(stream) = &mut self.dial {
                    stream.note(readiness);
                }
                true
            }
            Token(number) if number >= LINKS => {
                if let Some(stream) = self.links.get_mut(&Link((number - LINKS) as u32)) {
                    stream.note(readiness);
                }
                true
            }
            _ => false,
        }
    }

    /// There is no room for those who may be waiting to be accepted.
    pub fn is_full(&self) -> bool {
        self.calls_at.is_some() && self.links.len() >= LINKS_MAX
    }

    /// Takes new connections, as long as there is room (`is_full`); their links.
    pub fn accept(&mut self, now: Now) -> Vec<Link> {
        let mut new = Vec::new();
        if self.calls_at.take_if(|at| *at <= now).is_some() {
            self.calls = true;
        }
        if !std::mem::take(&mut self.calls) {
            return new;
        }
        let mut at = 0;
        while let Some(listener) = self.listeners.get(at) {
            if self.links.len() >= LINKS_MAX {
                self.calls_at = Some(now);
                return new;
            }
            match listener.accept() {
                Ok((mut stream, _)) => {
                    let link = Link(self.next_link);
                    self.next_link += 1;
                    let token = Token(LINKS + link.0 as usize);
                    if self.registry.register(&mut stream, token, INTERESTS).is_ok() {
                        self.links.insert(link, BufferedStream::new(stream, true));
                        new.push(link);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => at += 1,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Of one connection, or of too few descriptors: neither ends the listener.
                    tracing::warn!("quorum port: accept: {error}");
                    self.calls_at = Some(now.plus_ms(ACCEPT_PAUSE_MS));
                    return new;
                }
            }
        }
        new
    }

    /// Goes on with connecting. `true` once, when the leader is connected.
    pub fn progress(&mut self, now: Now) -> bool {
        loop {
            match &mut self.dial {
                Dial::Idle | Dial::Connected(_) => return false,
                Dial::Resolving => {
                    let Some((question, answer)) = self.resolver.collect() else { return false };
                    if question != self.question {
                        // Of an earlier leader's name.
                        continue;
                    }
                    match answer {
                        Ok(addresses) if !addresses.is_empty() => self.addresses = addresses,
                        Ok(_) => self.addresses.clear(),
                        Err(problem) => {
                            tracing::warn!("the leader's address can't be resolved: {problem}");
                            self.addresses.clear();
                        }
                    }
                    self.connect(now);
                }
                Dial::Waiting(until) if *until <= now => self.resolve(),
                Dial::Waiting(_) => return false,
                Dial::Connecting(stream, until) => match stream.finish_connecting() {
                    Ok(false) if *until <= now => self.wait(now),
                    Ok(false) => return false,
                    Ok(true) => {
                        let Dial::Connecting(stream, _) = std::mem::replace(&mut self.dial, Dial::Idle) else {
                            unreachable!("matched above")
                        };
                        self.dial = Dial::Connected(stream);
                        self.attempts = 0;
                        return true;
                    }
                    Err(_) => self.wait(now),
                },
            }
        }
    }

    fn connect(&mut self, now: Now) {
        let count = self.addresses.len();
        if count == 0 {
            return self.wait(now);
        }
        let round = self.attempts as usize / self.target.as_ref().map_or(1, |target| target.addresses.len());
        let address = self.addresses[round % count];
        match TcpStream::connect(address) {
            Ok(mut stream) => match self.registry.register(&mut stream, LEADER, INTERESTS) {
                Ok(()) => {
                    let until = now.plus_ms(CONNECT_MS);
                    self.dial = Dial::Connecting(BufferedStream::new(stream, false), until);
                }
                Err(_) => self.wait(now),
            },
            Err(_) => self.wait(now),
        }
    }

    fn wait(&mut self, now: Now) {
        self.dial = Dial::Waiting(now.plus(pause(self.attempts)));
        self.attempts += 1;
    }

    /// The leader has refused so often that it will not come. `is_heard`: its election port is still connected.
    pub fn gave_up(&self, is_heard: bool) -> bool {
        self.attempts >= if is_heard { ATTEMPTS_HEARD_MAX } else { ATTEMPTS_MAX }
    }

    /// When `progress` has something to do without an event.
    pub fn deadline(&self) -> Option<Now> {
        let dial = match self.dial {
            Dial::Waiting(until) | Dial::Connecting(_, until) => Some(until),
            _ => None,
        };
        [dial, self.calls_at].into_iter().flatten().min()
    }

    /// The link to the leader, once it is connected.
    pub fn leader(&mut self) -> Option<&mut BufferedStream> {
        match &mut self.dial {
            Dial::Connected(stream) => Some(stream),
            _ => None,
        }
    }

    pub fn link(&mut self, link: Link) -> Option<&mut BufferedStream> {
        self.links.get_mut(&link)
    }

    /// Links on which something may have arrived.
    pub fn readable(&self) -> impl Iterator<Item = Link> {
        self.links.iter().filter(|(_, stream)| stream.has_work()).map(|(&link, _)| link)
    }

    /// Whether the kernel has taken everything that was to be sent there.
    pub fn has_sent_all(&self, link: Link) -> bool {
        self.links.get(&link).is_some_and(|stream| stream.backlog() == 0)
    }

    pub fn packet_max(&self) -> usize {
        self.packet_max
    }

    /// Whether there may be something of the leader's to decode.
    pub fn leader_has_work(&self) -> bool {
        matches!(&self.dial, Dial::Connected(stream) if stream.has_work())
    }

    /// Whether there is anything to do about connecting, without waiting for an event.
    pub fn has_work(&self) -> bool {
        matches!(self.dial, Dial::Resolving) && self.resolver.has_answers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::servers::{PeerAddress, Role};
    use crate::metrics::Metrics;
    use crate::server::admin_thread::AdminQueue;
    use crate::server::admission::Admission;
    use crate::server::queue::Doorbell;
    use crate::server::shared::Shared;
    use mio::{Events, Poll};
    use std::sync::Arc;

    #[test]
    fn a_leader_that_listens_late_has_not_given_up_once_it_is_connected() {
        let mut poll = Poll::new().unwrap();
        let bell = Doorbell::new(&poll, Token(0)).unwrap();
        let settings = crate::server::boot::settings(&Config::defaults(1));
        let (metrics, _) = Metrics::new(0);
        let shared = Shared::new(settings, Vec::new(), bell, Admission::new(1, 1), AdminQueue::default(), metrics);
        let resolver = Resolver::new(Arc::default(), Arc::new(shared));
        let mut net = QuorumNet::new(poll.registry().try_clone().unwrap(), Vec::new(), resolver, 1 << 20);
        // Bound, so that nobody else gets it, and not listened on: refused.
        let leader = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        leader.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let quorum_port = leader.local_addr().unwrap().as_socket().unwrap().port();
        let address = PeerAddress { host: "127.0.0.1".into(), quorum_port, election_port: 1 };
        let line = ServerLine { id: 1, addresses: vec![address], role: Role::Participant, client: None };
        let mut now = Now(1);
        net.dial(line, now);
        let mut events = Events::with_capacity(8);
        let mut go_on = |net: &mut QuorumNet| {
            poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
            for event in &events {
                net.note(event.token(), event.into());
            }
            now = now.plus_ms(200);
            net.progress(now)
        };
        while !net.gave_up(false) {
            assert!(!go_on(&mut net));
        }
        assert!(!net.gave_up(true));
        leader.listen(1).unwrap();
        while !go_on(&mut net) {
            assert!(!net.gave_up(true), "never connected");
        }
        assert!(!net.gave_up(false), "connected, and given up");
    }
}
