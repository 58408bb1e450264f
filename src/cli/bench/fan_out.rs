//! A change seen by those who watch: how long until the first and the last of them has been told.
//!
//! `watch-one`: all sessions watch one znode. `watch-many`: every one of `--keys` znodes is watched by one session. In each
//! round one writer sets every key to the number of the round; the time from the request to each event counts. Then each
//! session sets its watch again by a getData, which has to give exactly what the round has written: an event comes before the
//! data that fired it, and the watch is never missed.
//!
//! An event counts from the moment at which it was at its watcher's socket, as the kernel stamps it, and the last events of a
//! round are read when no more come: thousands of watchers would be on as many machines, and what this one thread takes to
//! read for all of them is not the server's, neither as time nor as a core of a machine that both share.
//!
//! Runs on: the main thread.

use super::args::{BenchArgs, Target, Workload};
use super::crowd::{Crowd, News, PING, Voice};
use super::dialect::{Names, write_read, write_set};
use super::idle::AT_ONCE;
use super::link::invalid;
use super::outcome::{Busy, Outcome, median};
use super::{live, process, setup};
use crate::clock::{self, Now};
use crate::fatal::Fatal;
use crate::wire::client::EventKind;
use crate::wire::{ErrorCode, OpCode};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Measures, from making the znodes to removing them.
pub fn measure(args: &BenchArgs, target: &Target) -> Result<Outcome, Fatal> {
    let (addresses, root) = target.resolve(&args.root)?;
    let run = || -> io::Result<Outcome> {
        setup::prepare(args, target, &addresses, &root)?;
        let outcome = fan_out(args, target, &addresses, &root)?;
        if !args.keep {
            setup::clean_up(target, &addresses, &root)?;
        }
        Ok(outcome)
    };
    run().map_err(|error| target.failed(error))
}

fn fan_out(args: &BenchArgs, target: &Target, addresses: &[SocketAddr], root: &str) -> io::Result<Outcome> {
    let watchers = args.connections() as usize;
    let bar = live::bar(&target.name, watchers as u64);
    // The last one writes.
    let mut crowd = Crowd::new(args, addresses, watchers + 1, args.session_timeout)?;
    crowd.stamp_arrivals();
    crowd.connect_all(AT_ONCE, &bar)?;
    let one = args.workload == Workload::WatchOne;
    let mut rounds = Rounds {
        watches: if one { watchers as u64 } else { args.keys().into() },
        keys: if one { 1 } else { args.keys() },
        one,
        watchers,
        names: Names::new(root, args.size),
        outcome: Outcome::new(),
        round: 0,
        armed: 0,
        told: Vec::new(),
        heard: Vec::new(),
        set: 0,
        written: Vec::new(),
        failed: None,
        patience: args.patience(),
    };
    rounds.arm(&mut crowd, 0)?;
    let begin = clock::now();
    let warm = begin.plus(Duration::from_secs_f64(args.warmup));
    let end = warm.plus(Duration::from_secs_f64(args.seconds));
    bar.set_length(end.since(begin).as_millis() as u64);
    let (mut busy, mut cpu, mut measuring) = (Busy::start(begin), None, false);
    let (mut first_ms, mut last_ms) = (Vec::new(), Vec::new());
    for round in 1.. {
        let now = clock::now();
        let enough = args.requests.is_some_and(|requests| last_ms.len() as u64 >= requests);
        if enough || (args.requests.is_none() && now >= end) {
            break;
        }
        if !measuring && (now >= warm || args.requests.is_some()) {
            (busy, cpu, measuring) = (Busy::start(now), process::cpu_nanos(&target.pids), true);
            rounds.outcome = Outcome::new();
            rounds.outcome.seconds = now.since(Now::START).as_secs_f64();
        }
        let (first, last) = rounds.write(&mut crowd, round, args.depth, warm)?;
        if measuring {
            first_ms.push(first);
            last_ms.push(last);
        }
        rounds.arm(&mut crowd, round)?;
        bar.set_position(clock::now().since(begin).as_millis() as u64);
        bar.set_message(format!("{round} rounds, the last one told after {last:.2} ms"));
    }
    let now = clock::now();
    let mut outcome = rounds.outcome;
    outcome.seconds = now.since(Now::START).as_secs_f64() - outcome.seconds;
    outcome.own_busy = busy.part(now);
    outcome.server_cpu_nanos = process::cpu_at_rest_since(&target.pids, cpu);
    outcome.figure("rounds", last_ms.len() as f64);
    outcome.figure("first_ms", median(first_ms));
    outcome.figure("last_ms", median(last_ms));
    crowd.end_sessions();
    bar.finish_and_clear();
    Ok(outcome)
}

/// What comes is read at once.
const READ: Option<Duration> = None;
/// What comes is read when nothing more has come for so long.
const READ_WHEN_QUIET: Option<Duration> = Some(Duration::from_millis(5));

struct Rounds {
    one: bool,
    watchers: usize,
    keys: u32,
    /// Watches of each round.
    watches: u64,
    names: Names,
    outcome: Outcome,
    round: u64,
    armed: u64,
    /// When each event came, and of which key.
    told: Vec<(u32, Now)>,
    /// Whether each watch has fired in this round.
    heard: Vec<bool>,
    set: u32,
    /// When each key was written.
    written: Vec<Now>,
    failed: Option<io::Error>,
    patience: Duration,
}

impl Rounds {
    /// Sets every watch by a getData that has to give what `round` wrote.
    fn arm(&mut self, crowd: &mut Crowd, round: u64) -> io::Result<()> {
        (self.round, self.armed) = (round, 0);
        for number in 0..self.watches {
            let watcher = (number % self.watchers as u64) as usize;
            let key = if self.one { 0 } else { number as u32 };
            let names = &mut self.names;
            crowd.voices[watcher].ask(key.into(), clock::now(), |xid, out| {
                write_read(OpCode::GetData, names.key(key), true, xid, out);
            });
            // The last one of each session, or every now and then: nothing may pile up.
            if number + self.watchers as u64 >= self.watches || number % 4096 < self.watchers as u64 {
                crowd.send(watcher, clock::now(), |voice, news| self.take(voice, news));
            }
        }
        self.wait(crowd, READ, "replies to getData", |rounds| rounds.armed == rounds.watches)
    }

    /// Writes every key; milliseconds until the first and the last watcher had been told.
    fn write(&mut self, crowd: &mut Crowd, round: u64, depth: u32, warm: Now) -> io::Result<(f64, f64)> {
        self.round = round;
        self.told.clear();
        self.heard.clear();
        self.heard.resize(self.watches as usize, false);
        self.written.clear();
        self.set = 0;
        let begin = clock::now();
        let mut asked = 0;
        while asked < self.keys {
            while asked < self.keys && asked - self.set < depth {
                let now = clock::now();
                self.written.push(now);
                let value = self.names.value(round).to_vec();
                let names = &mut self.names;
                let writer = &mut crowd.voices[self.watchers];
                writer.ask(asked.into(), now, |xid, out| write_set(names.key(asked), &value, xid, out));
                asked += 1;
            }
            let writer = self.watchers;
            crowd.send(writer, clock::now(), |voice, news| self.take(voice, news));
            let before = self.set;
            if asked < self.keys {
                self.wait(crowd, READ, "replies to setData", |rounds| rounds.set > before)?;
            }
        }
        let keys = self.keys;
        let all = |rounds: &Rounds| rounds.told.len() as u64 >= rounds.watches && rounds.set == keys;
        self.wait(crowd, READ_WHEN_QUIET, "events", all)?;
        let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
        for &(key, at) in &self.told {
            let written = self.written[key as usize];
            first = first.min(at.since(begin));
            last = last.max(at.since(begin));
            self.outcome.answer(written, at, warm);
        }
        Ok((first.as_secs_f64() * 1e3, last.as_secs_f64() * 1e3))
    }

    /// `pause`: how long nothing may have come before it is read; none to read at once.
    fn wait(
        &mut self,
        crowd: &mut Crowd,
        pause: Option<Duration>,
        what: &str,
        enough: impl Fn(&Rounds) -> bool,
    ) -> io::Result<()> {
        let come = |rounds: &Rounds| rounds.armed + rounds.told.len() as u64 + u64::from(rounds.set);
        let mut last = (come(self), clock::now());
        while !enough(self) {
            match pause {
                Some(pause) => crowd.turn_when_quiet(pause, |voice, news| self.take(voice, news))?,
                None => crowd.turn(Duration::from_millis(100), |voice, news| self.take(voice, news))?,
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            // What follows a wrong answer here is only more of them.
            if let Some(wrong) = self.outcome.first_wrong.take() {
                return Err(invalid(wrong));
            }
            let now = clock::now();
            if come(self) != last.0 {
                last = (come(self), now);
            } else if now.since(last.1) > self.patience {
                let Rounds { watches, armed, told, .. } = self;
                let told = told.len();
                return Err(invalid(format!(
                    "{what} are missing: of {watches} watches {armed} are set, {told} have fired"
                )));
            }
        }
        Ok(())
    }

    /// Notes that a session has been told of a key. Errors: it is not its to be told, or not again.
    fn hear(&mut self, session: usize, key: u32) -> Result<(), String> {
        let watch = if self.one { session } else { key as usize };
        if session >= self.watchers || watch % self.watchers != session {
            return Err(format!("session {session} does not watch it"));
        }
        match self.heard.get_mut(watch) {
            Some(heard) if !*heard => {
                *heard = true;
                Ok(())
            }
            _ => Err(format!("session {session} has been told more often than it watches")),
        }
    }

    fn take(&mut self, voice: &mut Voice, news: News<'_>) {
        match news {
            News::Event { kind, path, at } => {
                // The key is the end of the path.
                let key = path.rsplit('/').next().and_then(|name| name.parse::<u32>().ok()).unwrap_or(u32::MAX);
                if kind != Some(EventKind::NodeDataChanged) || key >= self.keys || self.names.key(key) != path {
                    self.outcome.wrong(format!("an event {kind:?} of {path}, which nobody watches like that"));
                    return;
                }
                match self.hear(voice.index, key) {
                    Ok(()) => self.told.push((key, at)),
                    Err(problem) => self.outcome.wrong(format!("an event of {path}: {problem}")),
                }
            }
            News::Reply { tag: PING, .. } | News::Up { .. } => {}
            News::Reply { header, .. } if header.err != ErrorCode::OK => {
                self.failed = Some(invalid(format!("a reply with {:?}", header.err)));
            }
            News::Reply { .. } if voice.index == self.watchers => self.set += 1,
            News::Reply { tag, mut body, .. } => {
                self.armed += 1;
                // What was made before the first round carries the number of its key.
                let number = if self.round == 0 { tag } else { self.round };
                let data = body.buffer("data").unwrap_or(None);
                if let Err(problem) = self.names.check_value(number, data) {
                    self.outcome.wrong(format!("after the event of round {}: {problem}", self.round));
                }
            }
            News::Lost(error) => self.failed = Some(error),
            News::Expired => self.failed = Some(invalid("a session has expired")),
            News::Wrong(problem) => self.outcome.wrong(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(one: bool, watchers: usize, watches: u64) -> Rounds {
        Rounds {
            one,
            watchers,
            keys: if one { 1 } else { watches as u32 },
            watches,
            names: Names::new("/b", 10),
            outcome: Outcome::new(),
            round: 1,
            armed: 0,
            told: Vec::new(),
            heard: vec![false; watches as usize],
            set: 0,
            written: Vec::new(),
            failed: None,
            patience: Duration::ZERO,
        }
    }

    #[test]
    fn each_watch_fires_once_and_on_its_own_session() {
        let mut one = rounds(true, 2, 2);
        assert!(one.hear(0, 0).is_ok() && one.hear(0, 0).is_err() && one.hear(1, 0).is_ok());
        assert!(one.hear(2, 0).is_err(), "the writer watches nothing");
        // Key 3 of five is the second session's.
        let mut many = rounds(false, 2, 5);
        assert!(many.hear(0, 3).is_err() && many.hear(1, 3).is_ok() && many.hear(1, 3).is_err());
        assert!(many.hear(0, 4).is_ok() && many.hear(0, 0).is_ok() && many.hear(0, 5).is_err());
    }
}
