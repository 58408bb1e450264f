//! Sessions that do nothing, with watches or without: what a server pays for being there.
//!
//! With `--pid` it tells the bytes that each session and each watch takes, and how often the server wakes up and how much CPU
//! it uses while nobody asks for anything; with `--connections 0` that of a server alone. Pings, which sessions send every
//! third of their timeout, are what is measured as latency. At the end a sample of the watches has to fire.
//!
//! Runs on: the main thread.

use super::args::{BenchArgs, Target};
use super::crowd::{Crowd, News, PING};
use super::dialect::{Names, write_read};
use super::link::invalid;
use super::outcome::Outcome;
use super::process::{self, Memory};
use super::{live, setup};
use crate::clock::{self, Now};
use crate::fatal::Fatal;
use crate::wire::client::EventKind;
use crate::wire::{ErrorCode, OpCode};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Handshakes in flight: less than the backlog that servers have by default.
pub const AT_ONCE: usize = 40;

/// Measures, from making the znodes that are watched to removing them.
pub fn measure(args: &BenchArgs, target: &Target) -> Result<Outcome, Fatal> {
    let (addresses, root) = target.resolve(&args.root)?;
    let run = || -> io::Result<Outcome> {
        setup::prepare(args, target, &addresses, &root)?;
        let outcome = idle(args, target, &addresses, &root)?;
        if !args.keep {
            setup::clean_up(target, &addresses, &root)?;
        }
        Ok(outcome)
    };
    run().map_err(|error| target.failed(error))
}

fn idle(args: &BenchArgs, target: &Target, addresses: &[SocketAddr], root: &str) -> io::Result<Outcome> {
    let (pids, sessions, watches) = (&target.pids, args.connections() as usize, args.watches);
    let mut outcome = Outcome::new();
    let bar = live::bar(&target.name, sessions as u64);
    let before = Memory::of(pids);
    let mut crowd = Crowd::new(args, addresses, sessions, args.session_timeout)?;
    crowd.connect_all(AT_ONCE, &bar)?;
    let connected = Memory::of(pids);
    let mut names = Names::new(root, args.size);
    if watches > 0 {
        watch_all(&mut crowd, args, &mut names)?;
        let watching = Memory::of(pids);
        let (anonymous, heap) = watching.each(connected, sessions as u64 * u64::from(watches));
        outcome.known("bytes_per_watch", anonymous);
        outcome.known("heap_bytes_per_watch", heap);
    }
    if sessions > 0 {
        let (anonymous, heap) = connected.each(before, sessions as u64);
        outcome.known("bytes_per_session", anonymous);
        outcome.known("heap_bytes_per_session", heap);
    }

    let begin = clock::now();
    let end = begin.plus(Duration::from_secs_f64(args.seconds));
    let (cpu, wakeups) = (process::cpu_nanos(pids), process::wakeups(pids));
    bar.set_length(end.since(begin).as_millis() as u64);
    let mut overdue = false;
    loop {
        let now = clock::now();
        if now >= end || overdue {
            break;
        }
        bar.set_position(now.since(begin).as_millis() as u64);
        bar.set_message(format!("{sessions} sessions idle, {} pings answered", outcome.answered));
        let wait = end.since(now).min(Duration::from_millis(200));
        crowd.turn(wait, |_, news| take(&mut outcome, news, begin, end))?;
        overdue = crowd.is_overdue(now);
    }
    outcome.seconds = clock::now().since(begin).as_secs_f64();
    if !pids.is_empty() {
        let seconds = outcome.seconds.max(1e-3);
        // Less than before: a thread has ended, and its count with it.
        let per_second = |from: Option<u64>, to: Option<u64>| Some(to?.checked_sub(from?)? as f64 / seconds);
        outcome.known("wakeups_per_second", per_second(wakeups, process::wakeups(pids)));
        let cpu_nanos = per_second(cpu, process::cpu_nanos(pids));
        outcome.known("cpu_ms_per_second", cpu_nanos.map(|nanos| nanos / 1e6));
        outcome.known("anonymous_mb", process::anonymous_bytes(pids).map(|bytes| bytes as f64 / 1e6));
    }
    // Pings that are still without an answer.
    let owed = |crowd: &Crowd| {
        let pings = crowd.voices.iter().flat_map(|voice| &voice.in_flight);
        pings.filter(|ping| ping.written < end).count()
    };
    while !overdue && owed(&crowd) > 0 {
        let now = clock::now();
        crowd.turn(Duration::from_millis(100), |_, news| take(&mut outcome, news, begin, end))?;
        overdue = crowd.is_overdue(now);
    }
    if overdue {
        outcome.wrong(format!("a ping had no answer within --patience; {} are without one", owed(&crowd)));
    }
    if watches > 0 && !overdue && crowd.voices.iter().any(|voice| voice.up) {
        fire_some(&mut crowd, args, addresses, &mut names)?;
    }
    crowd.end_sessions();
    bar.finish_and_clear();
    Ok(outcome)
}

/// What may happen to a session that does nothing: an answer to its ping.
fn take(outcome: &mut Outcome, news: News<'_>, begin: Now, end: Now) {
    match news {
        News::Reply { tag: PING, from, .. } if from < end => outcome.answer(from, clock::now(), begin),
        News::Lost(error) => outcome.wrong(format!("an idle session lost its connection: {error}")),
        News::Wrong(problem) => outcome.wrong(problem),
        News::Event { path, .. } => outcome.wrong(format!("an event of {path}, which nobody has changed")),
        _ => {}
    }
}

/// The keys that a session watches: `--watches` of them, one after the other over all sessions.
pub fn keys_of(args: &BenchArgs, session: usize) -> impl Iterator<Item = u32> + use<> {
    let (keys, watches) = (u64::from(args.keys()), u64::from(args.watches));
    (0..watches).map(move |number| ((session as u64 * watches + number) % keys) as u32)
}

/// Sets every session's watches by getData, `--depth` in flight on each.
pub fn watch_all(crowd: &mut Crowd, args: &BenchArgs, names: &mut Names) -> io::Result<()> {
    let mut left: Vec<_> = (0..crowd.voices.len()).map(|session| keys_of(args, session)).collect();
    let mut open = 0u64;
    let mut failed = None;
    for (session, keys) in left.iter_mut().enumerate() {
        let now = clock::now();
        for key in keys.by_ref().take(args.depth as usize) {
            let voice = &mut crowd.voices[session];
            voice.ask(u64::from(key), now, |xid, out| write_read(OpCode::GetData, names.key(key), true, xid, out));
            open += 1;
        }
        crowd.send(session, now, |_, news| failed = failed.take().or(problem(news)));
    }
    let mut last = clock::now();
    while open > 0 {
        let now = clock::now();
        crowd.turn(Duration::from_millis(100), |voice, news| match news {
            News::Reply { tag, header, .. } if tag != PING => {
                last = now;
                open -= 1;
                if header.err != ErrorCode::OK {
                    failed = Some(invalid(format!("getData with a watch was answered with {:?}", header.err)));
                }
                if let Some(key) = left[voice.index].next() {
                    open += 1;
                    voice.ask(u64::from(key), now, |xid, out| {
                        write_read(OpCode::GetData, names.key(key), true, xid, out);
                    });
                }
            }
            news => failed = failed.take().or(problem(news)),
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if clock::now().since(last) > args.patience() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no reply within --patience"));
        }
    }
    Ok(())
}

/// What must not happen while watches are set.
pub fn problem(news: News<'_>) -> Option<io::Error> {
    match news {
        News::Lost(error) => Some(error),
        News::Wrong(problem) => Some(invalid(problem)),
        News::Event { path, .. } => Some(invalid(format!("an event of {path}, which nobody has changed"))),
        _ => None,
    }
}

/// Changes the first key of a hundred sessions: whoever watches it has to be told, and nobody else. Errors: who was not.
pub fn fire_some(crowd: &mut Crowd, args: &BenchArgs, addresses: &[SocketAddr], names: &mut Names) -> io::Result<()> {
    let step = crowd.voices.len().div_ceil(100).max(1);
    let mut changed: Vec<u32> = (0..crowd.voices.len()).step_by(step).filter_map(|s| keys_of(args, s).next()).collect();
    changed.sort_unstable();
    changed.dedup();
    let paths: Vec<String> = changed.iter().map(|&key| names.key(key).to_string()).collect();
    let mut due = 0usize;
    for voice in crowd.voices.iter().filter(|voice| voice.up) {
        due += keys_of(args, voice.index).filter(|key| changed.binary_search(key).is_ok()).count();
    }
    let mut writer = setup::Plain::connect(addresses)?;
    writer.each(changed.iter().copied(), &[], |key, xid, out| {
        let value = names.value(key.into()).to_vec();
        super::dialect::write_set(names.key(key), &value, xid, out);
    })?;
    let begin = clock::now();
    let mut failed = None;
    while due > 0 && failed.is_none() {
        crowd.turn(Duration::from_millis(50), |_, news| match news {
            News::Event { kind: Some(EventKind::NodeDataChanged), path, .. } if paths.iter().any(|p| *p == path) => {
                due = due.saturating_sub(1);
            }
            news => failed = failed.take().or(problem(news)),
        })?;
        if clock::now().since(begin) > Duration::from_secs(20) {
            return Err(invalid(format!("{due} watches were not told that their znode has changed")));
        }
    }
    failed.map_or(Ok(()), Err)?;
    writer.close()
}
