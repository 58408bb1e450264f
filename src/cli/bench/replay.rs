//! The requests of a recorded file once more, against any server, in the same or another pace.
//!
//! Each recorded connection gets a session of its own; its requests leave at their recorded times (`--speed` times as fast),
//! or with `--speed 0` as fast as `--depth` in flight on each connection allows. Latency counts from when a request was due.
//!
//! Replies have to come in order, with zxids that never go back. An error code other than the recorded one is counted by its
//! kind and is no wrong answer: the order between connections, session ids and the znodes that were there may differ.
//!
//! Runs on: the main thread.

use super::args::{BenchArgs, Target};
use super::crowd::{Crowd, News, PING, Voice};
use super::link::invalid;
use super::outcome::{Busy, Outcome};
use super::request_log::{What, read, records};
use super::{live, process};
use crate::clock::{self, Now};
use crate::fatal::Fatal;
use crate::random::FastMap;
use crate::wire::client::{ConnectRequest, RequestHeader};
use crate::wire::{ErrorCode, OpCode, Reader};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

struct Request<'a> {
    at_us: u64,
    xid: i32,
    op: i32,
    frame: &'a [u8],
    /// The recorded reply's error code; `None` if none was recorded.
    err: Option<i32>,
}

/// One recorded connection.
#[derive(Default)]
struct Script<'a> {
    begin_us: u64,
    requests: Vec<Request<'a>>,
    timeout_ms: i32,
}

/// The connections of a file; those that never made a handshake are left out.
fn scripts(bytes: &[u8]) -> io::Result<Vec<Script<'_>>> {
    let mut found: Vec<Script<'_>> = Vec::new();
    let mut places: FastMap<u32, usize> = FastMap::default();
    // Which replies are still to come: a connection's are in the order of its requests.
    let mut answered: Vec<usize> = Vec::new();
    for record in records(bytes)? {
        let place = places.get(&record.connection).copied();
        match (record.what, place) {
            (What::Request(frame), None) => {
                let Ok(hello) = ConnectRequest::read(frame) else { continue };
                places.insert(record.connection, found.len());
                found.push(Script { begin_us: record.at_us, requests: Vec::new(), timeout_ms: hello.timeout_ms });
                answered.push(0);
            }
            (What::Request(frame), Some(place)) => {
                let Ok(header) = RequestHeader::read(&mut Reader::new(frame)) else { continue };
                let (at_us, xid, op) = (record.at_us, header.xid, header.op);
                found[place].requests.push(Request { at_us, xid, op, frame, err: None });
            }
            (What::Reply { xid, err }, Some(place)) => {
                if let Some(request) = found[place].requests.get_mut(answered[place])
                    && request.xid == xid
                {
                    request.err = Some(err);
                    answered[place] += 1;
                }
            }
            (What::Reply { .. } | What::Closed, _) => {}
        }
    }
    Ok(found)
}

/// A replay that takes longer is a mistake; the clock has room for more.
const SECONDS_MAX: f64 = 1e9;

/// Replays `--log` once.
pub fn measure(args: &BenchArgs, target: &Target) -> Result<Outcome, Fatal> {
    let path = args.log.as_deref().ok_or(Fatal::Usage { problem: "replay: --log FILE says what".into() })?;
    let (addresses, _) = target.resolve(&args.root)?;
    let bytes = read(path)?;
    let usage = |problem: String| Fatal::Usage { problem: format!("{}: {problem}", path.display()) };
    let scripts = scripts(&bytes).map_err(|error| usage(error.to_string()))?;
    let total: usize = scripts.iter().map(|script| script.requests.len()).sum();
    if total == 0 {
        return Err(usage("no request is in it".into()));
    }
    let times = scripts.iter().flat_map(|script| {
        let requests = script.requests.iter().map(|request| request.at_us);
        requests.chain([script.begin_us])
    });
    let last_us = times.max().unwrap_or(0);
    if args.speed > 0.0 && last_us as f64 / 1e6 / args.speed > SECONDS_MAX {
        return Err(usage(format!("at --speed {} its last request would leave in more than thirty years", args.speed)));
    }
    replay(args, target, &addresses, &scripts, total).map_err(|error| target.failed(error))
}

fn replay(
    args: &BenchArgs,
    target: &Target,
    addresses: &[SocketAddr],
    scripts: &[Script<'_>],
    total: usize,
) -> io::Result<Outcome> {
    let bar = live::bar(&target.name, total as u64);
    let timeout = scripts.iter().map(|script| script.timeout_ms).max().unwrap_or(0).max(4_000);
    let mut crowd = Crowd::new(args, addresses, scripts.len(), timeout as u32)?;
    let begin = clock::now();
    let cpu = process::cpu_nanos(&target.pids);
    let busy = Busy::start(begin);
    let due_at = |at_us: u64| match args.speed {
        0.0 => begin,
        speed => begin.plus(Duration::from_secs_f64(at_us as f64 / 1e6 / speed)),
    };
    let paced = args.speed > 0.0;
    let mut played =
        Played { next: vec![0; scripts.len()], open: vec![true; scripts.len()], outcome: Outcome::new(), failed: None };
    while played.open.iter().any(|&open| open) {
        let now = clock::now();
        // Nothing else happens before this.
        let mut soon = now.plus_ms(50);
        for (index, script) in scripts.iter().enumerate().filter(|(index, _)| played.open[*index]).collect::<Vec<_>>() {
            if !crowd.is_connected(index) {
                let due = due_at(script.begin_us);
                if due <= now {
                    crowd.connect(index, now)?;
                } else {
                    soon = soon.min(due);
                }
                continue;
            }
            let voice = &mut crowd.voices[index];
            if !voice.up {
                continue;
            }
            let mut asked = false;
            while let Some(request) = script.requests.get(played.next[index]) {
                let due = due_at(request.at_us);
                if due > now || (!paced && voice.in_flight.len() >= args.depth as usize) {
                    soon = soon.min(due.max(now.plus(Duration::from_micros(100))));
                    break;
                }
                let from = if paced { due } else { now };
                voice.ask_as(request.xid, played.next[index] as u64, from, |out| {
                    out.extend((request.frame.len() as u32).to_be_bytes());
                    out.extend_from_slice(request.frame);
                });
                if paced {
                    played.outcome.late(due, now);
                }
                (asked, played.next[index]) = (true, played.next[index] + 1);
            }
            if asked {
                crowd.send(index, now, |voice, news| played.take(voice, news, scripts, begin));
            } else if played.next[index] == script.requests.len() && crowd.voices[index].in_flight.is_empty() {
                played.open[index] = false;
            }
        }
        let wait = soon.since(clock::now());
        crowd.turn(wait, |voice, news| played.take(voice, news, scripts, begin))?;
        if let Some(error) = played.failed.take() {
            return Err(error);
        }
        if crowd.is_overdue(now) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no reply within --patience"));
        }
        bar.set_position(played.outcome.answered);
    }
    let end = clock::now();
    let mut outcome = played.outcome;
    outcome.seconds = end.since(begin).as_secs_f64();
    outcome.own_busy = busy.part(end);
    outcome.server_cpu_nanos = process::cpu_at_rest_since(&target.pids, cpu);
    outcome.figure("recorded_connections", scripts.len() as f64);
    crowd.end_sessions();
    bar.finish_and_clear();
    Ok(outcome)
}

struct Played {
    /// Of each connection: its next request, and whether there is more to come.
    next: Vec<usize>,
    open: Vec<bool>,
    outcome: Outcome,
    failed: Option<io::Error>,
}

impl Played {
    fn take(&mut self, voice: &mut Voice, news: News<'_>, scripts: &[Script<'_>], begin: Now) {
        match news {
            News::Reply { tag: PING, .. } | News::Up { .. } | News::Event { .. } => {}
            News::Reply { tag, from, header, .. } => {
                self.outcome.answer(from, clock::now(), begin);
                let request = &scripts[voice.index].requests[tag as usize];
                if let Some(err) = request.err.filter(|&err| err != header.err.0) {
                    let op = OpCode::from_wire(request.op)
                        .map_or(format!("operation {}", request.op), |op| format!("{op:?}"));
                    self.outcome.error(format!(
                        "{op} answered with {:?}, recorded was {:?}",
                        header.err,
                        ErrorCode(err)
                    ));
                }
                if request.op == OpCode::CloseSession.to_wire() {
                    self.open[voice.index] = false;
                }
            }
            News::Lost(_) if !self.open[voice.index] => {}
            News::Lost(error) => self.failed = Some(error),
            News::Expired => self.failed = Some(invalid("a session has expired")),
            News::Wrong(problem) => self.outcome.wrong(problem),
        }
    }
}
