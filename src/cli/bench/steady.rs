//! A load that is the same from beginning to end: requests and replies over many connections, counted.
//!
//! Sessions are made first, and only when the last one stands does the clock start; so a slow handshake is not taken for
//! a slow request. In a closed loop each reply calls for the next request. In an open loop requests are due at fixed
//! times whatever the server does, and latency counts from the time at which a request was due: a stall counts in full.
//!
//! Promises: every reply is checked; a lost connection or a reply that does not come ends the load with an error.
//! Runs on: one thread for each `--threads`, with its own poll and its share of the connections; the calling thread
//! shows live figures.

use super::args::{BenchArgs, Protocol, Target};
use super::asked::{Asked, Xids};
use super::crowd::LOOK;
use super::dialect::Dialect;
use super::link::{Framing, Link, end_sessions, invalid};
use super::outcome::{Busy, Outcome};
use super::pace::{self, Timer};
use super::setup::{self, write_hello};
use super::workload::{Ask, Chooser, Zipf};
use super::{live, process};
use crate::clock::{self, Now};
use crate::fatal::Fatal;
use crate::wire::client::ConnectResponse;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::Duration;

/// What the threads of one measurement share.
struct Plan {
    args: BenchArgs,
    protocol: Protocol,
    addresses: Vec<SocketAddr>,
    root: String,
    zipf: Option<Arc<Zipf>>,
    /// All sessions stand; and then: the times are set.
    ready: Barrier,
    times: OnceLock<Times>,
    /// A thread has given up: the others do so as well.
    over: AtomicBool,
    answered: AtomicU64,
}

#[derive(Clone, Copy)]
struct Times {
    begin: Now,
    measure_from: Now,
    /// `None` for a load that ends with its last request.
    end: Option<Now>,
}

/// Puts the load on `target`, from making the znodes to removing them.
pub fn measure(args: &BenchArgs, target: &Target) -> Result<Outcome, Fatal> {
    let (addresses, root) = target.resolve(&args.root)?;
    if let Some(ask) = Chooser::new(args, None, 0).next().filter(|&ask| !Dialect::can(target.protocol, ask)) {
        return Err(target.failed(format!("this protocol has no counterpart of {ask:?}")));
    }
    setup::prepare(args, target, &addresses, &root).map_err(|error| target.failed(error))?;
    let outcome = load(args, target, &addresses, &root)?;
    if !args.keep {
        setup::clean_up(target, &addresses, &root).map_err(|error| target.failed(error))?;
    }
    Ok(outcome)
}

/// The load alone, on znodes that are there.
pub fn load(args: &BenchArgs, target: &Target, addresses: &[SocketAddr], root: &str) -> Result<Outcome, Fatal> {
    let plan = Arc::new(Plan {
        args: args.clone(),
        protocol: target.protocol,
        addresses: addresses.into(),
        root: root.into(),
        zipf: Zipf::wanted(args),
        ready: Barrier::new(args.threads as usize + 1),
        times: OnceLock::new(),
        over: AtomicBool::new(false),
        answered: AtomicU64::new(0),
    });
    let threads: Vec<_> = (0..args.threads)
        .map(|thread| {
            let plan = plan.clone();
            std::thread::spawn(move || {
                let outcome = drive(&plan, thread);
                plan.over.fetch_or(outcome.is_err(), Ordering::Relaxed);
                outcome
            })
        })
        .collect();

    plan.ready.wait();
    let begin = clock::now();
    let bounded = args.total_requests().is_some();
    let measure_from = if bounded { begin } else { begin.plus(Duration::from_secs_f64(args.warmup)) };
    let end = (!bounded).then(|| measure_from.plus(Duration::from_secs_f64(args.seconds)));
    let times = *plan.times.get_or_init(|| Times { begin, measure_from, end });
    // Before the first request, since a bounded run may be over within a millisecond.
    let cpu = bounded.then(|| process::cpu_nanos(&target.pids));
    plan.ready.wait();

    let server_cpu = observe(&plan, times, target, cpu, || threads.iter().all(|thread| thread.is_finished()));
    let (mut outcome, mut links) = (Outcome::new(), Vec::new());
    for thread in threads {
        let driven = thread.join().map_err(|_| target.failed("a thread of the generator panicked"))?;
        let (counted, its_links) = driven.map_err(|error| target.failed(error))?;
        outcome.merge(counted);
        links.extend(its_links);
    }
    outcome.server_cpu_nanos = server_cpu;
    end_sessions(links);
    Ok(outcome)
}

/// Shows live figures until the end, runs `--during`, and takes the server's CPU time of what is measured: since `start`
/// was read, or else since the time to measure from.
fn observe(
    plan: &Plan,
    times: Times,
    target: &Target,
    mut start: Option<Option<u64>>,
    finished: impl Fn() -> bool,
) -> Option<u64> {
    let total = plan.args.total_requests();
    let length = total.or(times.end.map(|end| end.since(times.begin).as_millis() as u64)).unwrap_or(0);
    let bar = live::bar(&target.name, length);
    let mut during = plan.args.during.as_deref();
    let during_at = times.end.map_or(times.begin, |end| times.measure_from.plus(end.since(times.measure_from) / 3));
    let mut last = (times.begin, 0);
    loop {
        let now = clock::now();
        if start.is_none() && now >= times.measure_from {
            start = Some(process::cpu_nanos(&target.pids));
        }
        if now >= during_at
            && let Some(command) = during.take()
        {
            live::run(&bar, command, &target.name);
        }
        if finished() || times.end.is_some_and(|end| now >= end) {
            break;
        }
        let answered = plan.answered.load(Ordering::Relaxed);
        let since = now.since(last.0).as_secs_f64();
        if since > 0.2 {
            bar.set_position(if total.is_some() { answered } else { now.since(times.begin).as_millis() as u64 });
            bar.set_message(format!("{:.0} a second", (answered - last.1) as f64 / since));
            last = (now, answered);
        }
        let next = if start.is_none() { times.measure_from } else { times.end.unwrap_or(now.plus_ms(20)) };
        std::thread::park_timeout(next.since(now).min(Duration::from_millis(100)));
    }
    bar.finish_and_clear();
    match total {
        Some(_) => process::cpu_at_rest_since(&target.pids, start.flatten()),
        None => process::cpu_since(&target.pids, start.flatten()),
    }
}

/// What one connection has been asked, and what it has answered.
struct Flow {
    dialect: Dialect,
    chooser: Chooser,
    in_flight: VecDeque<Asked<Ask>>,
    ready: bool,
    /// The chooser has no more.
    done: bool,
    xids: Xids,
}

/// When the request of a reply was due, and what is wrong with the reply.
type Answer = (Now, Option<String>);

impl Flow {
    /// Appends the next request, due at `due`; `false` when there is none.
    fn ask(&mut self, due: Now, now: Now, out: &mut Vec<u8>) -> bool {
        let Some(ask) = self.chooser.next() else {
            self.done = true;
            return false;
        };
        let xid = self.dialect.write(ask, self.xids.next(), out);
        self.in_flight.push_back(Asked { xid, tag: ask, due, written: now });
        true
    }

    fn take(&mut self, frame: &[u8], answers: &mut Vec<Answer>) -> io::Result<()> {
        if !self.ready {
            return match ConnectResponse::read(frame) {
                Ok(response) if response.timeout_ms > 0 => {
                    self.ready = true;
                    Ok(())
                }
                _ => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the server refused a session")),
            };
        }
        let asked = self.in_flight.pop_front().ok_or_else(|| invalid("a reply to no request"))?;
        self.dialect.in_order(asked.xid, frame).map_err(invalid)?;
        answers.push((asked.due, self.dialect.check(asked.tag, frame).err()));
        Ok(())
    }
}

struct Connection {
    link: Link,
    flow: Flow,
}

struct Driver<'a> {
    plan: &'a Plan,
    poll: Poll,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
    answers: Vec<Answer>,
    outcome: Outcome,
}

/// The timer's token; connections have their index.
const TIMER: Token = Token(usize::MAX);

/// What it has counted, and the connections, whose sessions stand.
fn drive(plan: &Plan, thread: u32) -> io::Result<(Outcome, Vec<Link>)> {
    let made = Driver::connect(plan, thread);
    plan.over.fetch_or(made.is_err(), Ordering::Relaxed);
    plan.ready.wait();
    plan.ready.wait();
    let mut driver = made?;
    match plan.times.get() {
        Some(times) if !plan.over.load(Ordering::Relaxed) => driver.run(*times)?,
        _ => {}
    }
    let links = driver.connections.into_iter().map(|connection| connection.link).collect();
    Ok((driver.outcome, links))
}

impl<'a> Driver<'a> {
    /// Makes this thread's sessions and waits until all of them stand.
    fn connect(plan: &'a Plan, thread: u32) -> io::Result<Driver<'a>> {
        let args = &plan.args;
        let framing = if plan.protocol == Protocol::Redis { Framing::Resp } else { Framing::Length };
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for index in (0..args.connections()).filter(|index| index % args.threads == thread) {
            let mut link = Link::connect(plan.addresses[index as usize % plan.addresses.len()], framing)?;
            let token = Token(connections.len());
            poll.registry().register(&mut link.socket, token, Interest::READABLE | Interest::WRITABLE)?;
            if framing == Framing::Length {
                write_hello(args.session_timeout as i32, &mut link.output);
            }
            let flow = Flow {
                dialect: Dialect::new(args, plan.protocol, &plan.root),
                chooser: Chooser::new(args, plan.zipf.clone(), index),
                in_flight: VecDeque::new(),
                ready: framing == Framing::Resp,
                done: false,
                xids: Xids::default(),
            };
            connections.push(Connection { link, flow });
        }
        let (scratch, answers, outcome) = (vec![0; 256 << 10], Vec::new(), Outcome::new());
        let mut driver = Driver { plan, poll, connections, scratch, answers, outcome };
        let mut events = Events::with_capacity(1024);
        let give_up = clock::now().plus(args.patience());
        while driver.connections.iter().any(|connection| !connection.flow.ready) {
            pace::wait(&mut driver.poll, &mut events, Duration::from_millis(100))?;
            for event in &events {
                driver.receive(event.token().0, event.is_read_closed())?;
                driver.connections[event.token().0].link.send()?;
            }
            if clock::now() > give_up {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no session within --patience"));
            }
        }
        Ok(driver)
    }

    fn receive(&mut self, at: usize, closed: bool) -> io::Result<()> {
        let Connection { link, flow } = &mut self.connections[at];
        link.receive(&mut self.scratch, closed, |frame, _| flow.take(frame, &mut self.answers))
    }

    fn run(&mut self, times: Times) -> io::Result<()> {
        let (plan, args) = (self.plan, &self.plan.args);
        let mut events = Events::with_capacity(1024);
        let gap = args.rate.map(|rate| f64::from(args.threads) * f64::from(args.burst) * 1e9 / rate as f64);
        let mut timer = gap.map(|_| Timer::new(&self.poll, TIMER)).transpose()?;
        // Bursts that have been due so far: their times follow from their number, so that no error adds up.
        let mut count = 0u64;
        let due_at = |count: u64| Now(times.begin.0 + (count as f64 * gap.unwrap_or(0.0)) as u64);
        let mut turn = 0;
        if gap.is_none() {
            for connection in &mut self.connections {
                let now = clock::now();
                for _ in 0..args.depth {
                    connection.flow.ask(now, now, &mut connection.link.output);
                }
                connection.link.send()?;
            }
        }
        let mut busy = Busy::start(clock::now());
        let mut warm = times.measure_from > times.begin;
        let (mut last_reply, mut looked) = (times.begin, times.begin);
        loop {
            let now = clock::now();
            if warm && now >= times.measure_from {
                (warm, busy) = (false, Busy::start(now));
            }
            let over = times.end.is_some_and(|end| now >= end);
            // Also, at the end, what was due before it: a stall there has to count.
            let is_due = |count| due_at(count) <= now && times.end.is_none_or(|end| due_at(count) < end);
            let asking = self.connections.iter().any(|connection| !connection.flow.done);
            if let Some(timer) = timer.as_mut().filter(|_| asking && (!over || is_due(count))) {
                while is_due(count) {
                    let due = due_at(count);
                    let Connection { link, flow } = &mut self.connections[turn];
                    for _ in 0..args.burst {
                        if flow.ask(due, now, &mut link.output) && !warm {
                            self.outcome.late(due, now);
                        }
                    }
                    let done = flow.done;
                    turn = (turn + 1) % self.connections.len();
                    count += 1;
                    if done && self.connections.iter().all(|connection| connection.flow.done) {
                        break;
                    }
                }
                for connection in self.connections.iter_mut().filter(|connection| connection.link.has_output()) {
                    connection.link.send()?;
                }
                timer.set(due_at(count).since(clock::now()))?;
            }
            let no_more = over || self.connections.iter().all(|connection| connection.flow.done);
            if no_more && self.connections.iter().all(|connection| connection.flow.in_flight.is_empty()) {
                break;
            }
            if plan.over.load(Ordering::Relaxed) {
                return Ok(());
            }
            pace::wait(&mut self.poll, &mut events, Duration::from_millis(50))?;
            for event in &events {
                if event.token() == TIMER {
                    continue;
                }
                let at = event.token().0;
                self.receive(at, event.is_read_closed())?;
                let now = clock::now();
                let Connection { link, flow } = &mut self.connections[at];
                if gap.is_none() && times.end.is_none_or(|end| now < end) {
                    for _ in 0..self.answers.len() {
                        flow.ask(now, now, &mut link.output);
                    }
                }
                link.send()?;
                if !self.answers.is_empty() {
                    last_reply = now;
                    plan.answered.fetch_add(self.answers.len() as u64, Ordering::Relaxed);
                }
                for (from, wrong) in self.answers.drain(..) {
                    if let Some(wrong) = wrong {
                        self.outcome.wrong(wrong);
                    }
                    // In an open loop what was due in time counts, however late its reply: else a stall at the end would be
                    // nobody's.
                    let counted = if gap.is_some() { from } else { now };
                    if counted >= times.measure_from && times.end.is_none_or(|end| counted < end) {
                        self.outcome.answer(from, now, times.measure_from);
                    }
                }
            }
            // By the time before this turn, which has read what had come by then.
            if now.since(looked) > LOOK {
                looked = now;
                let oldest = self.connections.iter().filter_map(|connection| connection.flow.in_flight.front());
                if oldest.map(|asked| asked.written).min().is_some_and(|since| now.since(since) > args.patience()) {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no reply within --patience"));
                }
            }
        }
        let end = times.end.unwrap_or(last_reply);
        self.outcome.own_busy = busy.part(clock::now());
        self.outcome.seconds = end.since(times.measure_from).as_secs_f64();
        Ok(())
    }
}
