//! All sessions lose their connections at once and come back at once, with their watches: what follows a restart.
//!
//! The sessions are made and their watches set. Then `--during` is run, which is expected to restart the server; without it
//! the generator itself cuts all connections. While nothing answers, one session alone tries, so that the generator does not
//! take the core that the server needs to start; as soon as that one stands, all others come together. A session is back
//! when it has its session and the answer to its setWatches. At the end a sample of the watches has to fire.
//!
//! Runs on: the main thread.

use super::args::{BenchArgs, Target};
use super::crowd::{Crowd, News, Voice, WATCHES};
use super::dialect::{Names, open};
use super::idle::{AT_ONCE, fire_some, keys_of, watch_all};
use super::outcome::{Busy, Outcome};
use super::{live, setup};
use crate::clock::{self, Now};
use crate::fatal::Fatal;
use crate::wire::client::{SetWatchesRequest, xid};
use crate::wire::{ErrorCode, OpCode};
use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How long the sessions have to come back.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the one session tries.
const RETRY: Duration = Duration::from_millis(2);
/// How long it waits for an answer before it tries on another connection.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Measures, from making the znodes that are watched to removing them.
pub fn measure(args: &BenchArgs, target: &Target) -> Result<Outcome, Fatal> {
    let (addresses, root) = target.resolve(&args.root)?;
    let run = || -> io::Result<Outcome> {
        setup::prepare(args, target, &addresses, &root)?;
        let outcome = storm(args, target, &addresses, &root)?;
        if !args.keep {
            setup::clean_up(target, &addresses, &root)?;
        }
        Ok(outcome)
    };
    run().map_err(|error| target.failed(error))
}

fn storm(args: &BenchArgs, target: &Target, addresses: &[SocketAddr], root: &str) -> io::Result<Outcome> {
    let sessions = args.connections() as usize;
    let mut outcome = Outcome::new();
    let bar = live::bar(&target.name, sessions as u64);
    let mut crowd = Crowd::new(args, addresses, sessions, args.session_timeout)?;
    crowd.connect_all(AT_ONCE, &bar)?;
    let mut names = Names::new(root, args.size);
    watch_all(&mut crowd, args, &mut names)?;

    let begin = clock::now();
    let busy = Busy::start(begin);
    if let Some(command) = &args.during {
        live::run(&bar, command, &target.name);
    } else {
        (0..sessions).for_each(|index| crowd.cut(index));
    }
    let mut back = Back::new(sessions);
    let mut reachable = None;
    let mut retry = begin;
    while back.count < sessions {
        let now = clock::now();
        if now.since(begin) > PATIENCE {
            outcome.wrong(format!("a session did not come back within {} s", PATIENCE.as_secs()));
            break;
        }
        if reachable.is_none() {
            crowd.give_up(0, now, PROBE_LIMIT);
        }
        if reachable.is_none() && !crowd.is_connected(0) && now >= retry {
            retry = now.plus(RETRY);
            // Refused at once: it is tried again.
            let _ = crowd.connect(0, now);
        }
        crowd.turn(RETRY, |voice, news| back.take(voice, news, args, &mut names, &mut outcome, begin))?;
        if reachable.is_none() && back.first.is_some() {
            reachable = back.first;
        }
        if reachable.is_some() {
            let mut missing = 0;
            let limit = crowd.handshake_limit();
            for index in 0..sessions {
                crowd.give_up(index, now, limit);
                if !back.done[index] && !crowd.is_connected(index) && missing < BURST {
                    missing += 1;
                    // Refused at once: it is tried again in the next turn.
                    let _ = crowd.connect(index, clock::now());
                }
            }
        }
        bar.set_position(back.count as u64);
        bar.set_message(format!("{} sessions are back", back.count));
    }
    let end = clock::now();
    outcome.own_busy = busy.part(end);
    outcome.seconds = end.since(begin).as_secs_f64();
    let ms = |from: Now, to: Now| to.since(from).as_secs_f64() * 1e3;
    let first = reachable.unwrap_or(end);
    outcome.figure("first_back_ms", ms(begin, first));
    outcome.figure("all_back_ms", ms(begin, end));
    outcome.figure("all_back_after_first_ms", ms(first, end));
    outcome.figure("expired", back.expired as f64);
    if args.watches > 0 && back.count == sessions && back.expired == 0 {
        fire_some(&mut crowd, args, addresses, &mut names)?;
    }
    crowd.end_sessions();
    bar.finish_and_clear();
    Ok(outcome)
}

/// Connections begun in one turn of the loop: they are read from in between, so that a server's timeout for a handshake does
/// not pass meanwhile.
const BURST: usize = 2_000;

/// Who is back.
struct Back {
    done: Vec<bool>,
    count: usize,
    expired: usize,
    /// When the first session stood again.
    first: Option<Now>,
}

impl Back {
    fn new(sessions: usize) -> Back {
        Back { done: vec![false; sessions], count: 0, expired: 0, first: None }
    }

    fn take(
        &mut self,
        voice: &mut Voice,
        news: News<'_>,
        args: &BenchArgs,
        names: &mut Names,
        outcome: &mut Outcome,
        begin: Now,
    ) {
        match news {
            News::Lost(_) => {
                // Back, and lost again: it has to come back once more.
                if std::mem::take(&mut self.done[voice.index]) {
                    self.count -= 1;
                    outcome.error("a session that was back lost its connection again");
                }
            }
            News::Expired => {
                self.expired += 1;
                outcome.error("a session has expired");
            }
            News::Up { resumed } => {
                self.first.get_or_insert(clock::now());
                if !resumed || args.watches == 0 {
                    self.back(voice, outcome, begin);
                    return;
                }
                let paths = keys_of(args, voice.index).map(|key| Some(Cow::Owned(names.key(key).to_string())));
                let (relative_zxid, none) = (voice.last_zxid, || Some(Vec::new()));
                let request = SetWatchesRequest {
                    relative_zxid,
                    data: Some(paths.collect()),
                    exist: none(),
                    child: none(),
                    persistent: none(),
                    recursive: none(),
                };
                voice.ask_as(xid::SET_WATCHES, WATCHES, clock::now(), |out| {
                    let frame = open(OpCode::SetWatches, xid::SET_WATCHES, out);
                    request.write(frame.bytes, OpCode::SetWatches);
                    frame.close();
                });
            }
            News::Reply { tag: WATCHES, header, .. } => {
                if header.err != ErrorCode::OK {
                    outcome.wrong(format!("setWatches was answered with {:?}", header.err));
                }
                self.back(voice, outcome, begin);
            }
            News::Wrong(problem) => outcome.wrong(problem),
            News::Event { path, .. } => outcome.wrong(format!("an event of {path}, which nobody has changed")),
            News::Reply { .. } => {}
        }
    }

    fn back(&mut self, voice: &Voice, outcome: &mut Outcome, begin: Now) {
        if !std::mem::replace(&mut self.done[voice.index], true) {
            self.count += 1;
            outcome.answer(begin, clock::now(), begin);
        }
    }
}
