//! Writes that go on while servers fail: how long nothing is acknowledged, and whether anything that was is lost.
//!
//! Each session creates one znode after the other and remembers which were acknowledged. `--during` is the failure (it kills
//! a leader, stops a process, cuts a link); a session that loses its connection goes to the next server with its session.
//! Afterwards every server that answers is asked, after a sync, for every znode: one that was acknowledged has to be there
//! with its data, on all of them; one whose reply never came may be there or not, but on all servers alike.
//!
//! Runs on: the main thread.

use super::args::{BenchArgs, Target};
use super::crowd::{Crowd, News, PING, Voice};
use super::dialect::{Names, write_create, write_read};
use super::idle::AT_ONCE;
use super::outcome::{Busy, Outcome};
use super::workload::own_number;
use super::{live, process, setup};
use crate::clock::{self, Now};
use crate::fatal::Fatal;
use crate::wire::txn::Acl;
use crate::wire::{ErrorCode, OpCode, Reader};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Between two attempts of one session to connect.
const RETRY: Duration = Duration::from_millis(5);

/// Measures, from making the parent to removing all.
pub fn measure(args: &BenchArgs, target: &Target) -> Result<Outcome, Fatal> {
    let (addresses, root) = target.resolve(&args.root)?;
    let run = || -> io::Result<Outcome> {
        setup::prepare(args, target, &addresses, &root)?;
        let (mut outcome, written) = writes(args, target, &addresses, &root)?;
        check(args, &addresses, &root, &written, &mut outcome)?;
        if !args.keep {
            setup::clean_up(target, &addresses, &root)?;
        }
        Ok(outcome)
    };
    run().map_err(|error| target.failed(error))
}

/// What is known of each znode that was asked for.
#[derive(Default)]
struct Written {
    acknowledged: Vec<u64>,
    /// The connection was lost before the reply came, or the server said that it could not.
    unknown: Vec<u64>,
}

fn writes(args: &BenchArgs, target: &Target, addresses: &[SocketAddr], root: &str) -> io::Result<(Outcome, Written)> {
    let sessions = args.connections() as usize;
    let bar = live::bar(&target.name, (args.seconds * 1e3) as u64);
    let mut crowd = Crowd::new(args, addresses, sessions, args.session_timeout)?;
    crowd.connect_all(AT_ONCE, &bar)?;
    let begin = clock::now();
    let end = begin.plus(Duration::from_secs_f64(args.seconds));
    let during_at = begin.plus(end.since(begin) / 3);
    let mut during = args.during.as_deref();
    let mut load = Load {
        names: Names::new(root, args.size),
        acl: Acl::world(Acl::ALL),
        outcome: Outcome::new(),
        written: Written::default(),
        next: vec![0; sessions],
        last: vec![begin; sessions],
        gap: Duration::ZERO,
        gap_from: begin,
        own_gap: Duration::ZERO,
        last_of_all: begin,
        begin,
        over: false,
    };
    for index in 0..sessions {
        for _ in 0..args.depth {
            load.ask(&mut crowd.voices[index], begin);
        }
        crowd.send(index, begin, |voice, news| load.take(voice, news, args.depth));
    }
    let busy = Busy::start(begin);
    let cpu = process::cpu_nanos(&target.pids);
    let mut retry = vec![begin; sessions];
    loop {
        let now = clock::now();
        if now >= during_at
            && let Some(command) = during.take()
        {
            live::run(&bar, command, &target.name);
        }
        load.over = now >= end;
        let waiting = crowd.voices.iter().any(|voice| !voice.in_flight.is_empty());
        if load.over && (!waiting || now.since(end) > args.patience()) {
            break;
        }
        let limit = crowd.handshake_limit();
        for (index, retry) in retry.iter_mut().enumerate() {
            crowd.give_up(index, now, limit);
            if !load.over && !crowd.is_connected(index) && now >= *retry {
                *retry = now.plus(RETRY);
                // Refused at once: the next server is tried.
                let _ = crowd.connect(index, now);
            }
        }
        crowd.turn(RETRY, |voice, news| load.take(voice, news, args.depth))?;
        bar.set_position(now.since(begin).as_millis() as u64);
        bar.set_message(format!(
            "{} writes, longest gap {:.1} ms",
            load.outcome.answered,
            load.gap.as_secs_f64() * 1e3
        ));
    }
    // A gap that lasts to the end counts.
    load.gap_until(end);
    for &last in &load.last {
        load.own_gap = load.own_gap.max(end.since(last));
    }
    let (mut outcome, mut written) = (load.outcome, load.written);
    for voice in &crowd.voices {
        written.unknown.extend(voice.in_flight.iter().filter(|flight| flight.tag != PING).map(|flight| flight.tag));
    }
    outcome.seconds = args.seconds;
    outcome.own_busy = busy.part(clock::now());
    // None if a server has ended: it has no account any more.
    outcome.server_cpu_nanos = process::cpu_since(&target.pids, cpu);
    outcome.figure("gap_ms", load.gap.as_secs_f64() * 1e3);
    outcome.figure("gap_began_s", load.gap_from.since(begin).as_secs_f64());
    outcome.figure("gap_of_one_session_ms", load.own_gap.as_secs_f64() * 1e3);
    outcome.figure("acknowledged", written.acknowledged.len() as f64);
    outcome.figure("unknown", written.unknown.len() as f64);
    crowd.end_sessions();
    bar.finish_and_clear();
    Ok((outcome, written))
}

struct Load {
    names: Names,
    acl: Acl,
    outcome: Outcome,
    written: Written,
    /// The count of each session's requests.
    next: Vec<u64>,
    /// When each session's last acknowledgement came, and that of any.
    last: Vec<Now>,
    last_of_all: Now,
    gap: Duration,
    gap_from: Now,
    own_gap: Duration,
    begin: Now,
    over: bool,
}

impl Load {
    fn ask(&mut self, voice: &mut Voice, now: Now) {
        let number = own_number(voice.index as u32, self.next[voice.index]);
        self.next[voice.index] += 1;
        let value = self.names.value(number).to_vec();
        let (path, acl) = (self.names.new_znode(number), &self.acl);
        voice.ask(number, now, |xid, out| write_create(path, &value, acl, xid, out));
    }

    fn gap_until(&mut self, now: Now) {
        let gap = now.since(self.last_of_all);
        if gap > self.gap {
            (self.gap, self.gap_from) = (gap, self.last_of_all);
        }
    }

    fn take(&mut self, voice: &mut Voice, news: News<'_>, depth: u32) {
        let now = clock::now();
        match news {
            News::Reply { tag: PING, .. } => {}
            News::Reply { tag, from, header, mut body } => {
                if header.err == ErrorCode::OK {
                    let path = body.string("path").unwrap_or_default();
                    if path != self.names.new_znode(tag) {
                        self.outcome
                            .wrong(format!("{path} was created where {} was asked for", self.names.new_znode(tag)));
                    }
                    self.written.acknowledged.push(tag);
                    if !self.over {
                        self.gap_until(now);
                    }
                    self.own_gap = self.own_gap.max(now.since(self.last[voice.index]));
                    (self.last_of_all, self.last[voice.index]) = (now, now);
                    self.outcome.answer(from, now, self.begin);
                } else if header.err == ErrorCode::NODE_EXISTS || header.err == ErrorCode::NO_NODE {
                    self.outcome.wrong(format!("the first create of a znode was answered with {:?}", header.err));
                } else {
                    self.outcome.error(format!("create was answered with {:?}", header.err));
                    self.written.unknown.push(tag);
                }
                if !self.over {
                    self.ask(voice, now);
                }
            }
            News::Up { .. } if !self.over => (0..depth).for_each(|_| self.ask(voice, now)),
            News::Up { .. } => {}
            News::Lost(error) => {
                let lost = voice.in_flight.iter().filter(|flight| flight.tag != PING).map(|flight| flight.tag);
                self.written.unknown.extend(lost);
                self.outcome.error(format!("connection lost: {error}"));
            }
            News::Expired => self.outcome.error("a session has expired"),
            News::Wrong(problem) => self.outcome.wrong(problem),
            News::Event { path, .. } => self.outcome.wrong(format!("an event of {path}, which nobody watches")),
        }
    }
}

/// Asks every server for every znode.
fn check(
    args: &BenchArgs,
    addresses: &[SocketAddr],
    root: &str,
    written: &Written,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let mut names = Names::new(root, args.size);
    let give_up = clock::now().plus(args.patience());
    while let Err(error) = setup::Plain::connect(addresses) {
        if clock::now() > give_up {
            return Err(io::Error::new(error.kind(), format!("no server answers after the load: {error}")));
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let mut checked = 0u64;
    // Whether an unknown one is there, as the first server that answered had it.
    let mut there: BTreeMap<u64, bool> = BTreeMap::new();
    let mut answering = 0;
    for address in addresses {
        // One has to answer; of the others those that do.
        let mut plain = match setup::Plain::connect_to(*address) {
            Ok(plain) => plain,
            Err(error) => {
                outcome.error(format!("{address} does not answer after the load: {error}"));
                continue;
            }
        };
        answering += 1;
        plain.each([root], &[], |path, xid, out| {
            let frame = super::dialect::open(OpCode::Sync, xid, out);
            crate::wire::writer::Jute::put_text(frame.bytes, path);
            frame.close();
        })?;
        let all = written.acknowledged.iter().map(|&number| (number, true));
        let all = all.chain(written.unknown.iter().map(|&number| (number, false)));
        let mut ask = Names::new(root, args.size);
        let write = |(number, _): (u64, bool), xid, out: &mut Vec<u8>| {
            write_read(OpCode::GetData, ask.new_znode(number), false, xid, out);
        };
        plain.ask_each(all, write, |(number, acknowledged), code, _, r: &mut Reader<'_>| {
            checked += u64::from(acknowledged);
            if code == ErrorCode::NO_NODE && acknowledged {
                outcome.wrong(format!("{}, which was acknowledged, is gone from {address}", names.new_znode(number)));
            } else if code == ErrorCode::OK {
                let data = r.buffer("data").unwrap_or(None);
                if let Err(problem) = names.check_value(number, data) {
                    outcome.wrong(format!("{} on {address}: {problem}", names.new_znode(number)));
                }
            } else if code != ErrorCode::NO_NODE {
                return Err(io::Error::other(format!("the check was answered with {code:?}")));
            }
            if !acknowledged && *there.entry(number).or_insert(code == ErrorCode::OK) != (code == ErrorCode::OK) {
                outcome.wrong(format!("{} is on one server and not on {address}", names.new_znode(number)));
            }
            Ok(())
        })?;
    }
    if answering == 0 {
        return Err(io::Error::other("no server answered for long enough to be checked"));
    }
    outcome.figure("checked", checked as f64);
    Ok(())
}
