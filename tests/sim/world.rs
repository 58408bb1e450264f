//! A whole ensemble, its clients, network, disks and clocks, in one thread and from one seed.
//!
//! Events happen in the order of their times, and of their making where times are equal; each is given to one server or
//! client, and what that wants is done at once or becomes later events. Nothing else moves. All chance comes from
//! generators made of the seed, so a seed is a run, and `digest` says whether two runs were the same.

use crate::clients::{Client, Habits, Wish};
use crate::invariants::{Found, Invariants};
use crate::network::{Again, Arrival, MS, Net, Port, Time};
use crate::rule::Rule;
use crate::server::{Action, Ctx, Knobs, Report, Role, Server};
use crate::storage;
use ostler::clock::Now;
use ostler::disk::sim::{Keep, SimDisk};
use ostler::fatal::Fatal;
use ostler::ids::{ServerId, Zxid};
use ostler::random::Rng;
use ostler::zab::ensemble::EnsembleConfig;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// How long a connect takes to fail where nobody answers.
const DIAL_TIMEOUT: Time = 5_000 * MS;
/// How often a server looks at its clock.
const TICK: Time = 50 * MS;
/// The longest time that a disk operation takes.
const DISK_MOST: Time = 8_000 * MS;
/// Lines of the trace that a failure shows.
const TRACE_MAX: usize = 2_000;

/// What a seed has drawn.
#[derive(Clone, Debug)]
pub struct Setup {
    pub voters: usize,
    pub observers: usize,
    pub rule: Rule,
    pub clients: usize,
    pub knobs: Knobs,
    pub habits: Habits,
    pub latency: (Time, Time),
    /// Parts in a million by which clocks may run fast or slow.
    pub drift_ppm: u64,
}

impl Setup {
    pub fn servers(&self) -> usize {
        self.voters + self.observers
    }
}

#[derive(Clone, Debug)]
enum Event {
    Arrive {
        conn: u32,
        side: usize,
    },
    /// A connect that is under way.
    Connect {
        from: usize,
        to: usize,
        port: Port,
        process: u32,
        role: u32,
        until: Time,
    },
    Tick {
        server: usize,
        process: u32,
    },
    Disk {
        server: usize,
        process: u32,
    },
    Client {
        client: usize,
        number: u64,
    },
    Resume {
        server: usize,
    },
    Start {
        server: usize,
    },
}

pub struct Host {
    pub disk: SimDisk,
    pub server: Option<Box<Server>>,
    /// Counts the processes, so that what is meant for one does not reach the next.
    process: u32,
    rate_ppm: i64,
    pub wall_offset_ms: i64,
    paused_until: Time,
    held: VecDeque<Event>,
    /// How much slower than the others its disk is.
    pub disk_factor: u64,
    /// Stays down until someone starts it.
    pub stays_down: bool,
    /// Faults of the disk that may end the process.
    pub disk_may_fail: bool,
    /// Something of what it has may be damaged now; and was at any time.
    pub damaged: bool,
    pub was_damaged: bool,
    /// What the disk does is not finished.
    pub disk_held: bool,
    held_disk: Option<Event>,
}

#[derive(Default, Clone, Copy, Debug)]
pub struct Counts {
    pub events: u64,
    pub restarts: u64,
    pub establishments: u64,
    pub exits: u64,
    pub quarantines: u64,
    /// Runs in which some stayed away at the end, and with groups and weights.
    pub minorities: u64,
    pub weighed: u64,
    pub bytes: u64,
}

pub struct World {
    pub setup: Setup,
    pub now: Time,
    pub rng: Rng,
    queue: BinaryHeap<Reverse<(Time, u64, EventBox)>>,
    made: u64,
    pub net: Net,
    config: Arc<EnsembleConfig>,
    pub hosts: Vec<Host>,
    pub clients: Vec<Client>,
    client_wakes: Vec<u64>,
    pub invariants: Invariants,
    pub counts: Counts,
    pub digest: u64,
    trace: Option<VecDeque<String>>,
}

/// Events have an order only by time and number.
struct EventBox(Event);

impl PartialEq for EventBox {
    fn eq(&self, _: &EventBox) -> bool {
        true
    }
}
impl Eq for EventBox {}
impl PartialOrd for EventBox {
    fn partial_cmp(&self, other: &EventBox) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for EventBox {
    fn cmp(&self, _: &EventBox) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl World {
    pub fn new(setup: Setup, seed: u64, traced: bool) -> World {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let servers = setup.servers();
        let config = crate::electing::config(setup.voters, setup.observers, &setup.rule);
        if setup.rule.has_groups() {
            setup.rule.agrees_with(config.quorum());
        }
        let mut net = Net::new(servers + setup.clients);
        net.latency = setup.latency;
        let hosts = (0..servers)
            .map(|_| Host {
                disk: SimDisk::new(),
                server: None,
                process: 0,
                rate_ppm: rng.below(2 * setup.drift_ppm + 1) as i64 - setup.drift_ppm as i64,
                wall_offset_ms: rng.below(2000) as i64 - 1000,
                paused_until: 0,
                held: VecDeque::new(),
                disk_factor: 1,
                stays_down: false,
                disk_may_fail: false,
                damaged: false,
                was_damaged: false,
                disk_held: false,
                held_disk: None,
            })
            .collect();
        let clients: Vec<Client> = (0..setup.clients).map(|id| Client::new(id, rng.next())).collect();
        let mut world = World {
            now: 0,
            queue: BinaryHeap::new(),
            made: 0,
            net,
            invariants: Invariants::new(setup.rule.clone(), servers),
            config,
            hosts,
            client_wakes: vec![0; clients.len()],
            clients,
            counts: Counts::default(),
            digest: seed,
            trace: traced.then(VecDeque::new),
            rng,
            setup,
        };
        for server in 0..servers {
            let at = world.rng.below(200 * MS);
            world.at(at, Event::Start { server });
        }
        for client in 0..world.clients.len() {
            let at = 500 * MS + world.rng.below(1_000 * MS);
            world.wake_client(client, at);
        }
        world
    }

    fn at(&mut self, at: Time, event: Event) {
        self.made += 1;
        self.queue.push(Reverse((at, self.made, EventBox(event))));
    }

    fn again(&mut self, again: impl IntoIterator<Item = Again>) {
        for (at, conn, side) in again {
            self.at(at, Event::Arrive { conn, side });
        }
    }

    fn wake_client(&mut self, client: usize, at: Time) {
        self.client_wakes[client] += 1;
        let number = self.client_wakes[client];
        self.at(at, Event::Client { client, number });
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() >= TRACE_MAX.max(crate::number("OSTLER_SIM_TRACE").unwrap_or(0) as usize) {
                trace.pop_front();
            }
            trace.push_back(format!("{:>10.3} {}", self.now as f64 / 1e6, line()));
        }
    }

    pub fn trace(&self) -> impl Iterator<Item = &String> {
        self.trace.iter().flatten()
    }

    fn mix(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(27);
    }

    pub fn server_now(&self, at: usize) -> Now {
        let rate = self.hosts[at].rate_ppm;
        Now((self.now as i128 + self.now as i128 * rate as i128 / 1_000_000) as u64)
    }

    /// The next event; `false` if there is none before `until`.
    pub fn step(&mut self, until: Time) -> bool {
        match self.queue.peek() {
            Some(Reverse((at, _, _))) if *at <= until => {}
            _ => {
                self.now = self.now.max(until);
                return false;
            }
        }
        let Some(Reverse((at, _, EventBox(event)))) = self.queue.pop() else { return false };
        self.now = self.now.max(at);
        self.counts.events += 1;
        if let Some(server) = self.server_of(&event)
            && self.hosts[server].paused_until > self.now
        {
            self.hosts[server].held.push_back(event);
            return true;
        }
        self.handle(event);
        true
    }

    pub fn run_until(&mut self, until: Time) {
        while self.step(until) {}
    }

    /// Whose event it is, if it is one that a paused process does not see.
    fn server_of(&self, event: &Event) -> Option<usize> {
        match *event {
            Event::Arrive { conn, side } => {
                self.net.get(conn).map(|conn| conn.hosts[side]).filter(|&host| host < self.hosts.len())
            }
            Event::Tick { server, .. } | Event::Disk { server, .. } => Some(server),
            _ => None,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive { conn, side } => self.arrive(conn, side),
            Event::Connect { from, to, port, process, role, until } => {
                self.connect(from, to, port, process, role, until);
            }
            Event::Tick { server, process } => {
                if self.is_process(server, process) {
                    self.with(server, |server, ctx| server.tick(ctx));
                    self.at(self.now + TICK, Event::Tick { server, process });
                }
            }
            Event::Disk { server, process } => {
                if self.is_process(server, process) {
                    if self.hosts[server].disk_held {
                        self.hosts[server].held_disk = Some(Event::Disk { server, process });
                    } else {
                        self.with(server, |server, ctx| server.disk_done(ctx));
                    }
                }
            }
            Event::Client { client, number } => {
                if self.client_wakes[client] == number {
                    let wishes = self.clients[client].wake(self.now, &self.setup.habits);
                    self.grant(client, wishes);
                }
            }
            Event::Resume { server } => {
                if self.hosts[server].paused_until <= self.now {
                    let held = std::mem::take(&mut self.hosts[server].held);
                    // It hears what has come before it looks at its clock.
                    let (ticks, heard): (Vec<Event>, Vec<Event>) =
                        held.into_iter().partition(|event| matches!(event, Event::Tick { .. }));
                    heard.into_iter().chain(ticks).for_each(|event| self.at(self.now, event));
                }
            }
            Event::Start { server } => {
                if self.hosts[server].server.is_none() && !self.hosts[server].stays_down {
                    self.start(server);
                }
            }
        }
    }

    fn is_process(&self, server: usize, process: u32) -> bool {
        self.hosts[server].process == process && self.hosts[server].server.is_some()
    }

    fn arrive(&mut self, conn: u32, side: usize) {
        let Some(hosts) = self.net.get(conn).map(|conn| conn.hosts) else { return };
        let host = hosts[side];
        let is_server = host < self.hosts.len();
        let up = !is_server || self.hosts[host].server.is_some();
        let (arrival, again) = self.net.arrive(self.now, conn, side, up, &mut self.rng);
        self.again(again);
        let sender = hosts[1 - side];
        let wants_room = self.net.take_room_wanted(conn, side);
        match arrival {
            Arrival::Nothing => {}
            Arrival::Bytes(bytes) => {
                self.counts.bytes += bytes.len() as u64;
                let now = self.now;
                self.mix(now ^ u64::from(conn) << 40);
                self.mix(crate::server::hash(&bytes));
                self.note(|| format!("{} > {}: {} bytes on {conn}", hosts[1 - side] + 1, host + 1, bytes.len()));
                if is_server {
                    self.with(host, |server, ctx| server.bytes(conn, &bytes, ctx));
                } else {
                    let client = host - self.hosts.len();
                    let wishes = self.clients[client].bytes(conn, &bytes, now);
                    self.grant(client, wishes);
                }
            }
            Arrival::End => {
                self.note(|| format!("{} hears the end of {conn}", host + 1));
                if is_server {
                    self.with(host, |server, ctx| server.closed(conn, ctx));
                } else {
                    let client = host - self.hosts.len();
                    let wishes = self.clients[client].closed(conn, self.now);
                    self.grant(client, wishes);
                }
            }
        }
        if wants_room && sender < self.hosts.len() {
            self.with(sender, |server, ctx| server.writable(ctx));
        }
    }

    fn connect(&mut self, from: usize, to: usize, port: Port, process: u32, role: u32, until: Time) {
        let servers = self.hosts.len();
        if from < servers && !self.is_process(from, process) {
            return;
        }
        if self.net.is_blocked(from, to) || self.net.is_blocked(to, from) || self.hosts[to].paused_until > self.now {
            if self.now >= until {
                return self.dialed(from, None, port, role);
            }
            let pause = 100 * MS;
            return self.at(self.now + pause, Event::Connect { from, to, port, process, role, until });
        }
        let listens = self.hosts[to].server.as_ref().is_some_and(|server| match port {
            Port::Quorum => matches!(server.role, Role::Leading(_)),
            Port::Election => true,
            Port::Client => server.serving,
        });
        if !listens {
            return self.dialed(from, None, port, role);
        }
        let conn = self.net.connect(from, to);
        self.note(|| format!("{} connects to {} ({port:?}): {conn}", from + 1, to + 1));
        self.with(to, |server, ctx| match port {
            Port::Client => server.accepted_client(conn, ctx),
            Port::Election => server.accepted_elector(conn, ctx),
            Port::Quorum => server.accepted_learner(conn, ctx),
        });
        self.dialed(from, Some(conn), port, role);
    }

    fn dialed(&mut self, from: usize, conn: Option<u32>, port: Port, role: u32) {
        if from < self.hosts.len() {
            self.with(from, |server, ctx| match port {
                Port::Election => server.dialed_elector(role, conn, ctx),
                _ => server.dialed(conn, role, ctx),
            });
        } else {
            let client = from - self.hosts.len();
            let wishes = self.clients[client].dialed(conn, self.now, &self.setup.habits);
            self.grant(client, wishes);
        }
    }

    pub fn grant(&mut self, client: usize, wishes: Vec<Wish>) {
        let host = self.hosts.len() + client;
        for wish in wishes {
            match wish {
                Wish::Dial(to) => {
                    let at = self.now + self.net.delay(&mut self.rng);
                    let until = self.now + DIAL_TIMEOUT / 5;
                    self.at(at, Event::Connect { from: host, to, port: Port::Client, process: 0, role: 0, until });
                }
                Wish::Send(conn, bytes) => self.send(host, conn, bytes),
                Wish::Close(conn) => self.close(host, conn),
                Wish::WakeAt(at) => self.wake_client(client, at),
            }
        }
    }

    fn send(&mut self, host: usize, conn: u32, bytes: Vec<u8>) {
        if let Some(side) = self.net.side(conn, host) {
            let again = self.net.send(self.now, conn, side, bytes, &mut self.rng);
            self.again(again);
        }
    }

    fn close(&mut self, host: usize, conn: u32) {
        if let Some(side) = self.net.side(conn, host) {
            let again = self.net.close(self.now, conn, side, false, &mut self.rng);
            self.again(again);
        }
    }

    /// Calls a server, does what it wants, and sends what it has to say.
    pub fn with(&mut self, at: usize, call: impl FnOnce(&mut Server, &mut Ctx<'_>)) {
        let now = self.server_now(at);
        let wall_ms = 1_700_000_000_000 + (self.now / MS) as i64 + self.hosts[at].wall_offset_ms;
        let Some(mut server) = self.hosts[at].server.take() else { return };
        let mut ctx = Ctx { now, wall_ms, rng: &mut self.rng, actions: Vec::new(), knobs: &self.setup.knobs };
        call(&mut server, &mut ctx);
        let actions = ctx.actions;
        self.hosts[at].server = Some(server);
        let mut exit = None;
        for action in actions {
            match action {
                Action::Send(conn, bytes) => self.send(at, conn, bytes),
                Action::Close(conn) => self.close(at, conn),
                Action::Dial(to, port, role) => {
                    let process = self.hosts[at].process;
                    let when = self.now + self.net.delay(&mut self.rng);
                    let (to, until) = (to.0 as usize - 1, self.now + DIAL_TIMEOUT);
                    self.at(when, Event::Connect { from: at, to, port, process, role, until });
                }
                Action::Disk(time) => {
                    let process = self.hosts[at].process;
                    let time = (time * self.hosts[at].disk_factor).min(DISK_MOST);
                    self.at(self.now + time, Event::Disk { server: at, process });
                }
                Action::Exit(fatal) => exit = Some(fatal),
                Action::Report(report) => self.report(at, report),
            }
        }
        match exit {
            None => self.flush(at),
            Some(fatal) => self.exits(at, &fatal),
        }
    }

    fn report(&mut self, at: usize, report: Report) {
        match &report {
            Report::Established { epoch, up_to } => {
                self.counts.establishments += 1;
                self.mix(u64::from(epoch.0) << 8 | at as u64);
                self.note(|| format!("{} leads epoch {} from {up_to}", at + 1, epoch.0));
            }
            Report::Applied { zxid, digest, .. } => {
                let (zxid, digest) = (zxid.0, *digest);
                self.mix(zxid ^ digest.rotate_left(7));
                self.note(|| format!("{} applies {:#x}", at + 1, zxid));
            }
            Report::Durable(records) => {
                self.note(|| format!("{} durable {:?}", at + 1, records.last().map(|record| record.0)));
            }
            Report::Trusted { released } => self.hosts[at].damaged = !released,
            Report::RoleEnded(why) => self.note(|| format!("{}: {why}", at + 1)),
            other => self.note(|| format!("{} {other:?}", at + 1)),
        }
        self.invariants.report(at, &report);
    }

    fn flush(&mut self, at: usize) {
        let Some(mut server) = self.hosts[at].server.take() else { return };
        let mut reports = Vec::new();
        let mut sends = Vec::new();
        for conn in server.peer_conns() {
            let Some(side) = self.net.side(conn, at) else { continue };
            if self.net.has_room(conn, side) {
                let bytes = server.take_output(conn, &mut reports);
                if !bytes.is_empty() {
                    sends.push((conn, bytes));
                }
            }
        }
        self.hosts[at].server = Some(server);
        reports.into_iter().for_each(|report| self.report(at, report));
        for (conn, bytes) in sends {
            self.send(at, conn, bytes);
        }
    }

    /// A process ends itself.
    fn exits(&mut self, at: usize, fatal: &Fatal) {
        self.note(|| format!("{} stops: {fatal}", at + 1));
        let host = &self.hosts[at];
        let may_stop = host.disk_may_fail || (host.was_damaged && ostler::storage::is_damage(fatal));
        assert!(may_stop, "server {} stops, and its disk is good: {fatal}", at + 1);
        self.counts.exits += 1;
        let power = fatal.to_string().contains("the power is off");
        let keep = if power { crate::faults::keep(&mut self.rng) } else { Keep::Everything };
        self.crash(at, keep);
        let pause = self.rng.below(3_000 * MS);
        self.at(self.now + pause, Event::Start { server: at });
    }

    /// The process is gone. With `Keep::Everything` it was killed: the kernel closes what it had; else the power went.
    pub fn crash(&mut self, at: usize, keep: Keep) {
        if self.hosts[at].server.take().is_none() {
            return;
        }
        self.note(|| format!("{} crashes ({keep:?})", at + 1));
        let silent = keep != Keep::Everything;
        for conn in self.net.of_host(at) {
            if let Some(side) = self.net.side(conn, at) {
                let again = self.net.close(self.now, conn, side, silent, &mut self.rng);
                self.again(again);
            }
        }
        let host = &mut self.hosts[at];
        host.process += 1;
        host.disk = host.disk.after_crash(keep);
        host.paused_until = 0;
        host.disk_held = false;
        host.held_disk = None;
        let held = std::mem::take(&mut host.held);
        // What was on the way to it still arrives, at a host that knows nothing of it.
        for event in held.into_iter().filter(|event| matches!(event, Event::Arrive { .. })) {
            self.at(self.now, event);
        }
    }

    pub fn start_later(&mut self, at: usize, after: Time) {
        self.at(self.now + after, Event::Start { server: at });
    }

    pub fn start(&mut self, at: usize) {
        if self.hosts[at].server.is_some() {
            return;
        }
        let disk = self.hosts[at].disk.clone();
        let recovered = match storage::recover(&disk) {
            Ok(recovered) => recovered,
            Err(fatal) => {
                self.note(|| format!("{} can't start: {fatal}", at + 1));
                assert!(self.hosts[at].disk_may_fail, "I13: server {} does not start: {fatal}", at + 1);
                // Someone repairs the disk.
                self.hosts[at].disk = disk.after_crash(Keep::Everything);
                return self.start_later(at, 1_000 * MS);
            }
        };
        self.counts.restarts += 1;
        let quarantined = recovered.quarantined;
        // Damage that nothing is read from does no harm.
        self.hosts[at].damaged = quarantined;
        if quarantined {
            self.counts.quarantines += 1;
            assert!(self.hosts[at].was_damaged, "I13: server {} distrusts a disk that is good", at + 1);
        }
        let records: Vec<(Zxid, Rc<[u8]>)> =
            recovered.records.iter().map(|(zxid, record)| (*zxid, record.as_slice().into())).collect();
        let found = Found {
            from: recovered.storage.replayed_from,
            records,
            accepted: recovered.epochs.accepted,
            current: recovered.epochs.current,
            quarantined,
        };
        self.note(|| format!("{} starts, with {:?}", at + 1, recovered.storage.log().last_zxid()));
        self.invariants.recovered(at, found);
        let now = self.server_now(at);
        let wall_ms = 1_700_000_000_000 + (self.now / MS) as i64 + self.hosts[at].wall_offset_ms;
        let mut ctx = Ctx { now, wall_ms, rng: &mut self.rng, actions: Vec::new(), knobs: &self.setup.knobs };
        let server = Server::new(server_id(at), self.config.clone(), recovered, &mut ctx);
        let host = &mut self.hosts[at];
        host.process += 1;
        host.server = Some(Box::new(server));
        let process = host.process;
        let first = self.rng.below(TICK);
        self.at(self.now + first, Event::Tick { server: at, process });
    }

    pub fn pause(&mut self, at: usize, time: Time) {
        self.note(|| format!("{} is paused for {} ms", at + 1, time / MS));
        self.hosts[at].paused_until = self.now + time;
        self.at(self.now + time, Event::Resume { server: at });
    }

    /// A scenario's client begins.
    pub fn wake_up(&mut self, client: usize) {
        if self.clients[client].wake_up() {
            self.wake_client(client, self.now);
        }
    }

    pub fn free_disk(&mut self, at: usize) {
        self.hosts[at].disk_held = false;
        if let Some(event) = self.hosts[at].held_disk.take() {
            self.at(self.now, event);
        }
    }

    /// Stands still until it is resumed.
    pub fn freeze(&mut self, at: usize) {
        self.note(|| format!("{} is frozen", at + 1));
        self.hosts[at].paused_until = Time::MAX;
    }

    pub fn resume(&mut self, at: usize) {
        self.hosts[at].paused_until = 0;
        self.at(self.now, Event::Resume { server: at });
    }

    pub fn go_on_with_clients(&mut self) {
        for client in 0..self.clients.len() {
            self.clients[client].stopped = false;
            self.wake_client(client, self.now);
        }
    }

    pub fn cut(&mut self, conn: u32) {
        self.note(|| format!("connection {conn} breaks"));
        let again = self.net.cut(self.now, conn, &mut self.rng);
        self.again(again);
    }

    /// All ways are open again; each connection that had to wait goes on, or breaks.
    pub fn heal(&mut self) {
        self.note(|| "the network is whole again".to_owned());
        self.net.heal();
        let again = self.net.resume(self.now);
        let waiting: Vec<u32> = again.iter().map(|&(_, conn, _)| conn).collect();
        self.again(again);
        for conn in waiting {
            if self.rng.below(3) == 0 {
                self.cut(conn);
            }
        }
    }

    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (at, host) in self.hosts.iter().enumerate() {
            match &host.server {
                Some(server) => text += &format!("  {}\n", server.describe()),
                None => text += &format!("  {}: down\n", at + 1),
            }
        }
        text + &format!("  committed up to {}\n", self.invariants.last_committed())
    }
}

pub fn server_id(at: usize) -> ServerId {
    ServerId(at as u8 + 1)
}
