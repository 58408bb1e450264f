//! The election of one server over real sockets, and nothing else of it: what the pipeline will do with `Election` and
//! `ElectionLinks`, in as few lines as it takes. Whatever role it is given, it does not play it.
//!
//! Runs on: the test's thread decides; one thread for each socket reads, one for each call connects.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ostler::clock;
use ostler::config::servers::Role;
use ostler::ids::{Epoch, ServerId, Zxid};
use ostler::wire::election::{InitialMessage, Notification, PeerState, notification_length};
use ostler::zab::election::{Election, Output, Timing, Vote};
use ostler::zab::election_links::{ConnId, ElectionLinks, LinkLimits, LinkOutput, Target};
use ostler::zab::ensemble::{Configs, EnsembleConfig};
use ostler::zab::quorum::ServerSet;

enum Event {
    Accepted(TcpStream),
    Dialed(ConnId, Option<TcpStream>),
    Introduced(ConnId, InitialMessage),
    Frame(ConnId, Vec<u8>),
    Malformed(ConnId),
    Closed(ConnId),
}

pub struct ElectionServer {
    me: ServerId,
    configs: Configs,
    election: Election,
    links: ElectionLinks,
    streams: BTreeMap<ConnId, TcpStream>,
    /// Where calls of strangers have come from.
    callers: BTreeMap<ConnId, SocketAddr>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    own_address: String,
    pub decided: Option<(Vote, PeerState)>,
    pub lookers: usize,
    /// The last that each server has said: its state, its vote, its configuration.
    pub heard: BTreeMap<ServerId, (PeerState, i64, Vec<u8>)>,
}

impl ElectionServer {
    /// `listener` is on this server's election address. Silent until `start`.
    pub fn new(me: u8, config: EnsembleConfig, listener: TcpListener) -> ElectionServer {
        let me = ServerId(me);
        let observes = config.server(me).is_some_and(|line| line.role == Role::Observer);
        let role = if observes { Role::Observer } else { Role::Participant };
        let members: ServerSet = config.servers().iter().map(|line| ServerId(line.id as u8)).collect();
        let configs = Configs::new(Arc::new(config), None);
        let (sender, events) = channel();
        let own_address = listener.local_addr().unwrap().to_string();
        let accepting = sender.clone();
        std::thread::spawn(move || {
            // Ends with the first connection after the receiver is gone; `drop` makes one.
            for stream in listener.incoming().flatten() {
                if accepting.send(Event::Accepted(stream)).is_err() {
                    return;
                }
            }
        });
        ElectionServer {
            me,
            election: Election::new(me, role, configs.clone(), Timing::default()),
            links: ElectionLinks::new(me, members, LinkLimits::default()),
            configs,
            streams: BTreeMap::new(),
            callers: BTreeMap::new(),
            sender,
            events,
            own_address,
            decided: None,
            lookers: 0,
            heard: BTreeMap::new(),
        }
    }

    pub fn start(&mut self, last: Option<Zxid>, epoch: Epoch) {
        self.decided = None;
        let mut out = Vec::new();
        self.election.start(last, epoch, clock::now(), &mut out);
        self.elect(out);
    }

    /// Takes what has happened, waiting a little if nothing has.
    pub fn turn(&mut self) {
        let event = self.events.recv_timeout(Duration::from_millis(1)).ok();
        let now = clock::now();
        let mut links = Vec::new();
        match event {
            None => {}
            Some(Event::Accepted(stream)) => {
                let conn = self.links.accepted(now, &mut links);
                self.callers.extend(stream.peer_addr().ok().map(|address| (conn, address)));
                self.adopt(conn, stream, true);
            }
            Some(Event::Dialed(conn, stream)) => {
                let connected = stream.is_some();
                if let Some(stream) = stream {
                    self.adopt(conn, stream, false);
                }
                self.links.dialed(conn, connected, now, &mut links);
            }
            Some(Event::Introduced(conn, message)) => self.links.introduced(conn, &message, now, &mut links),
            Some(Event::Frame(conn, body)) => self.hear(conn, &body),
            Some(Event::Malformed(conn)) => self.links.malformed(conn, now, &mut links),
            Some(Event::Closed(conn)) => {
                self.streams.remove(&conn);
                self.links.closed(conn, now, &mut links);
            }
        }
        self.links.tick(now, &mut links);
        self.link(links);
        let mut out = Vec::new();
        self.election.tick(now, &mut out);
        self.elect(out);
    }

    fn hear(&mut self, conn: ConnId, body: &[u8]) {
        let (Some(from), Ok(notification)) = (self.links.peer_of(conn), Notification::read(body)) else { return };
        let config = notification.config.unwrap_or_default().to_vec();
        self.heard.insert(from, (notification.state, notification.leader, config));
        let mut out = Vec::new();
        self.election.receive(from, &notification, clock::now(), &mut out);
        self.elect(out);
    }

    fn elect(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { to, ballot } => {
                    let mut links = Vec::new();
                    self.links.send(to, ballot, clock::now(), &mut links);
                    self.link(links);
                }
                Output::Decided { vote, state } => self.decided = Some((vote, state)),
                Output::Looker { .. } => self.lookers += 1,
            }
        }
    }

    fn link(&mut self, out: Vec<LinkOutput>) {
        for output in out {
            match output {
                LinkOutput::Dial { conn, to, target } => self.dial(conn, to, target),
                LinkOutput::Introduce { conn } => {
                    let server = self.me.0 as i64;
                    let mut bytes = Vec::new();
                    InitialMessage { server, addresses: vec![self.own_address.clone()] }.write(&mut bytes);
                    self.write(conn, &bytes);
                }
                LinkOutput::Write { conn, ballot } => {
                    let mut bytes = Vec::new();
                    ballot.notification(self.configs.current()).write(&mut bytes);
                    self.write(conn, &bytes);
                    let mut links = Vec::new();
                    self.links.written(conn, clock::now(), &mut links);
                    self.link(links);
                }
                LinkOutput::Close { conn, .. } => {
                    if let Some(stream) = self.streams.remove(&conn) {
                        // It may be closed by now.
                        let _ = stream.shutdown(Shutdown::Both);
                    }
                }
                LinkOutput::Reach { peer, reach } => {
                    let mut out = Vec::new();
                    self.election.reach(peer, reach, clock::now(), &mut out);
                    self.elect(out);
                }
            }
        }
    }

    fn dial(&self, conn: ConnId, to: ServerId, target: Target) {
        let address = match target {
            Target::Configured => {
                let address = &self.configs.server(to).unwrap().addresses[0];
                SocketAddr::new(address.host.parse().unwrap(), address.election_port)
            }
            Target::Caller { of, port } => SocketAddr::new(self.callers[&of].ip(), port),
        };
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok();
            let _ = sender.send(Event::Dialed(conn, stream));
        });
    }

    fn write(&self, conn: ConnId, bytes: &[u8]) {
        if let Some(mut stream) = self.streams.get(&conn) {
            // A broken connection is noticed by its reader.
            let _ = stream.write_all(bytes);
        }
    }

    fn adopt(&mut self, conn: ConnId, stream: TcpStream, accepted: bool) {
        stream.set_nodelay(true).unwrap();
        let reading = stream.try_clone().unwrap();
        self.streams.insert(conn, stream);
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let _ = sender.send(read(conn, reading, accepted, &sender));
        });
    }
}

impl Drop for ElectionServer {
    fn drop(&mut self) {
        for stream in self.streams.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Both channels' ends are gone when the thread that accepts sends its next event.
        let (sender, events) = channel();
        (self.sender, self.events) = (sender, events);
        let _ = TcpStream::connect(&self.own_address);
    }
}

/// Reads a connection to its end, which is the event that is returned.
fn read(conn: ConnId, mut stream: TcpStream, accepted: bool, sender: &Sender<Event>) -> Event {
    let mut input = Vec::new();
    let mut introduced = !accepted;
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => input.extend_from_slice(&chunk[..count]),
            _ => return Event::Closed(conn),
        }
        if !introduced {
            match InitialMessage::read(&input) {
                Ok(None) => continue,
                Ok(Some((message, used))) => {
                    input.drain(..used);
                    introduced = true;
                    let _ = sender.send(Event::Introduced(conn, message));
                }
                Err(_) => return Event::Malformed(conn),
            }
        }
        while let Some(prefix) = input.first_chunk::<4>() {
            let Ok(length) = notification_length(*prefix) else { return Event::Malformed(conn) };
            if input.len() < 4 + length {
                break;
            }
            let body = input[4..4 + length].to_vec();
            input.drain(..4 + length);
            let _ = sender.send(Event::Frame(conn, body));
        }
    }
}
