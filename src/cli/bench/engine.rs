//! Runs one measurement against one server: makes the znodes, puts the load on, counts, and cleans up.

use super::connection::{Answer, Connection};
use super::report::Outcome;
use super::workload::{Maker, write_create, write_delete, write_get_children};
use super::{BenchArgs, Target, Workload, cpu};
use crate::clock::{self, Now};
use crate::fatal::Fatal;
use crate::ids::SessionId;
use crate::wire::client::{ConnectRequest, ConnectResponse, ReplyHeader};
use crate::wire::txn::Acl;
use crate::wire::{ErrorCode, Reader};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use mio::{Events, Interest, Poll, Token};
use std::io::{Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the threads of one measurement share.
struct Plan {
    args: BenchArgs,
    address: SocketAddr,
    begin: Now,
    measure_from: Now,
    end: Now,
    answered: AtomicU64,
}

/// What one thread has counted.
struct Counted {
    answered: u64,
    latencies: Histogram<u64>,
    wrong: u64,
    first_wrong: Option<String>,
    per_second: Vec<u64>,
}

fn failed(address: &str, error: impl std::fmt::Display) -> Fatal {
    Fatal::Usage { problem: format!("{address}: {error}") }
}

pub fn measure(args: &BenchArgs, target: &Target, round: u32) -> Result<Outcome, Fatal> {
    let address = target.address.to_socket_addrs().map_err(|error| failed(&target.address, error))?.next();
    let address = address.ok_or_else(|| failed(&target.address, "no such address"))?;
    let mut setup = Setup::connect(address).map_err(|error| failed(&target.address, error))?;
    let root = format!("{}-{round}", args.root);
    let args = BenchArgs { root: root.clone(), ..args.clone() };
    setup.fill(&args).map_err(|error| failed(&target.address, error))?;

    let begin = clock::now();
    let measure_from = begin.plus(Duration::from_secs_f64(args.warmup));
    let end = measure_from.plus(Duration::from_secs_f64(args.seconds));
    let plan = Arc::new(Plan { address, begin, measure_from, end, answered: AtomicU64::new(0), args: args.clone() });
    let threads: Vec<_> = (0..args.threads)
        .map(|thread| {
            let plan = plan.clone();
            std::thread::spawn(move || drive(&plan, thread))
        })
        .collect();

    let (server_cpu, own_cpu) = watch(&plan, target);
    let mut outcome = Outcome::new();
    for thread in threads {
        let counted = thread.join().map_err(|_| failed(&target.address, "a thread of the generator panicked"))?;
        let counted = counted.map_err(|error| failed(&target.address, error))?;
        outcome.answered += counted.answered;
        outcome.wrong += counted.wrong;
        outcome.first_wrong = outcome.first_wrong.or(counted.first_wrong);
        outcome.latencies.add(&counted.latencies).map_err(|error| failed(&target.address, error))?;
        outcome.add_seconds(&counted.per_second);
    }
    outcome.seconds = args.seconds;
    outcome.server_cpu_nanos = server_cpu;
    outcome.own_cpu_nanos = own_cpu;
    outcome.threads = args.threads;
    setup.remove(&root).map_err(|error| failed(&target.address, error))?;
    Ok(outcome)
}

/// Shows live figures, and takes the processes' CPU time at the beginning and end of what is measured.
fn watch(plan: &Plan, target: &Target) -> (Option<u64>, u64) {
    let total = plan.end.since(plan.begin).as_millis() as u64;
    let bar = ProgressBar::new(total);
    let style =
        ProgressStyle::with_template("{prefix:>16} [{bar:40}] {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(target.name.clone());
    let mut start = None;
    let mut last = (clock::now(), 0);
    loop {
        let now = clock::now();
        if start.is_none() && now >= plan.measure_from {
            start = Some((cpu::nanos(&target.pids), cpu::own_nanos()));
        }
        if now >= plan.end {
            break;
        }
        let answered = plan.answered.load(Ordering::Relaxed);
        let since = now.since(last.0).as_secs_f64();
        if since > 0.2 {
            bar.set_position(now.since(plan.begin).as_millis() as u64);
            bar.set_message(format!("{:.0} a second", (answered - last.1) as f64 / since));
            last = (now, answered);
        }
        let next = if start.is_none() { plan.measure_from } else { plan.end };
        std::thread::park_timeout(next.since(now).min(Duration::from_millis(250)));
    }
    bar.finish_and_clear();
    let (server, own) = start.unwrap_or((None, 0));
    let server = match (server, cpu::nanos(&target.pids)) {
        (Some(from), Some(to)) if !target.pids.is_empty() => Some(to - from),
        _ => None,
    };
    (server, cpu::own_nanos() - own)
}

fn drive(plan: &Plan, thread: u32) -> std::io::Result<Counted> {
    let args = &plan.args;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Vec::new();
    for index in (0..args.connections).filter(|index| index % args.threads == thread) {
        let mut socket = mio::net::TcpStream::connect(plan.address)?;
        socket.set_nodelay(true)?;
        poll.registry().register(&mut socket, Token(connections.len()), Interest::READABLE | Interest::WRITABLE)?;
        connections.push(Connection::new(socket, Maker::new(args, index as u64)));
    }
    let mut counted = Counted {
        answered: 0,
        latencies: super::report::histogram(),
        wrong: 0,
        first_wrong: None,
        per_second: Vec::new(),
    };
    let gap = args.rate.map(|rate| Duration::from_secs_f64(f64::from(args.threads) / rate.max(1) as f64));
    let mut due = plan.begin;
    let mut turn = 0usize;
    let mut scratch = vec![0; 256 << 10];
    let mut answers: Vec<Answer> = Vec::new();
    loop {
        let now = clock::now();
        let over = now >= plan.end;
        if over && connections.iter().all(|connection| connection.in_flight.is_empty()) {
            return Ok(counted);
        }
        if now >= plan.end.plus(Duration::from_secs(30)) {
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no reply for 30 seconds"));
        }
        if let Some(gap) = gap {
            while due <= now && due < plan.end {
                let count = connections.len();
                // Round robin over those that have a session.
                if let Some(at) = (0..count).map(|step| (turn + step) % count).find(|&at| connections[at].ready) {
                    connections[at].ask(due);
                    turn = at + 1;
                }
                due = due.plus(gap);
            }
            for connection in connections.iter_mut().filter(|connection| connection.has_output()) {
                connection.send()?;
            }
        }
        let timeout = match gap {
            Some(_) if !over => due.since(clock::now()).min(Duration::from_millis(50)),
            _ => Duration::from_millis(50),
        };
        poll.poll(&mut events, Some(timeout))?;
        for event in &events {
            let connection = &mut connections[event.token().0];
            let was_ready = connection.ready;
            connection.receive(&mut scratch, &mut answers)?;
            let now = clock::now();
            if gap.is_none() && now < plan.end {
                let first = if !was_ready && connection.ready { args.depth as usize } else { 0 };
                for _ in 0..first + answers.len() {
                    connection.ask(now);
                }
            }
            connection.send()?;
            for answer in answers.drain(..) {
                counted.count(plan, now, answer);
            }
        }
    }
}

impl Counted {
    fn count(&mut self, plan: &Plan, now: Now, answer: Answer) {
        plan.answered.fetch_add(1, Ordering::Relaxed);
        if let Some(wrong) = answer.wrong {
            self.wrong += 1;
            self.first_wrong.get_or_insert(wrong);
        }
        if now < plan.measure_from || now >= plan.end {
            return;
        }
        self.answered += 1;
        let nanos = now.since(answer.from).as_nanos() as u64;
        self.latencies.saturating_record(nanos.max(1));
        let second = now.since(plan.measure_from).as_secs() as usize;
        if self.per_second.len() <= second {
            self.per_second.resize(second + 1, 0);
        }
        self.per_second[second] += 1;
    }
}

/// A plain connection for what comes before and after.
struct Setup {
    socket: std::net::TcpStream,
    xid: i32,
}

impl Setup {
    /// Requests sent before their replies are read.
    const BATCH: usize = 500;

    fn connect(address: SocketAddr) -> std::io::Result<Setup> {
        let mut socket = std::net::TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut out = Vec::new();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 30_000,
            session: SessionId::NONE,
            password: Some(&[0; 16]),
            read_only: Some(false),
        };
        request.write(&mut out);
        socket.write_all(&out)?;
        let mut setup = Setup { socket, xid: 0 };
        let frame = setup.frame()?;
        match ConnectResponse::read(&frame) {
            Ok(response) if response.timeout_ms > 0 => Ok(setup),
            _ => Err(std::io::Error::other("the server refused a session")),
        }
    }

    fn frame(&mut self) -> std::io::Result<Vec<u8>> {
        let mut head = [0; 4];
        self.socket.read_exact(&mut head)?;
        let len = usize::try_from(i32::from_be_bytes(head)).map_err(std::io::Error::other)?;
        let mut frame = Vec::new();
        (&mut self.socket).take(len as u64).read_to_end(&mut frame)?;
        Ok(frame)
    }

    /// Sends one request for each path, in batches; codes other than those in `fine` are errors.
    fn each(
        &mut self,
        paths: impl Iterator<Item = String>,
        fine: &[ErrorCode],
        write: impl Fn(&str, i32, &mut Vec<u8>),
    ) -> std::io::Result<()> {
        let mut paths = paths.peekable();
        while paths.peek().is_some() {
            let mut out = Vec::new();
            let mut count = 0;
            for path in paths.by_ref().take(Self::BATCH) {
                self.xid += 1;
                write(&path, self.xid, &mut out);
                count += 1;
            }
            self.socket.write_all(&out)?;
            for _ in 0..count {
                let frame = self.frame()?;
                let header = ReplyHeader::read(&mut Reader::new(&frame)).map_err(std::io::Error::other)?;
                if header.err != ErrorCode::OK && !fine.contains(&header.err) {
                    return Err(std::io::Error::other(format!("preparing the znodes: {:?}", header.err)));
                }
            }
        }
        Ok(())
    }

    fn fill(&mut self, args: &BenchArgs) -> std::io::Result<()> {
        let root = &args.root;
        self.remove(root)?;
        let acl = Acl::world(Acl::ALL);
        let value = vec![b'v'; args.size as usize];
        let create = |path: &str, xid: i32, out: &mut Vec<u8>| write_create(path, &value, &acl, xid, out);
        let parents = [root.clone(), format!("{root}/keys"), format!("{root}/new")];
        self.each(parents.into_iter(), &[], create)?;
        let keys = if matches!(args.workload, Workload::Create | Workload::CreateDelete | Workload::Ping) {
            0
        } else {
            args.keys
        };
        self.each((0..keys).map(|key| Maker::key_path(root, key)), &[], create)
    }

    fn children(&mut self, path: &str) -> std::io::Result<Vec<String>> {
        self.xid += 1;
        let mut out = Vec::new();
        write_get_children(path, self.xid, &mut out);
        self.socket.write_all(&out)?;
        let frame = self.frame()?;
        let mut r = Reader::new(&frame);
        let header = ReplyHeader::read(&mut r).map_err(std::io::Error::other)?;
        if header.err != ErrorCode::OK {
            return Ok(Vec::new());
        }
        let names = r.texts("children").map_err(std::io::Error::other)?.unwrap_or_default();
        Ok(names.into_iter().flatten().map(|name| format!("{path}/{name}")).collect())
    }

    fn remove(&mut self, root: &str) -> std::io::Result<()> {
        for parent in [format!("{root}/keys"), format!("{root}/new")] {
            let children = self.children(&parent)?;
            self.each(children.into_iter(), &[ErrorCode::NO_NODE], write_delete)?;
            self.each(std::iter::once(parent), &[ErrorCode::NO_NODE], write_delete)?;
        }
        self.each(std::iter::once(root.to_string()), &[ErrorCode::NO_NODE], write_delete)
    }
}
