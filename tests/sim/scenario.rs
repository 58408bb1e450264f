//! Scenarios in readable text: the traces of the catalogue (fault model, section 3), one a file in `scenarios/`.
//!
//! ```text
//! voters 3                 first: how many (A, B, C, ... are servers 1, 2, 3, ...); observers follow
//! observers 1
//! forget                   then, if at all: a server that starts has nothing of its history in memory,
//! memory 300               has so many bytes of it at most,
//! counter 6                and leads no further than to this counter of an epoch
//! start A B                processes begin
//! kill A | power A         the process ends; with `power`, what no sync has covered is gone. Down until `start`.
//! until A leads            also: `A serves`, `A follows`, `A down`, `acked w1`, `A has (1,2)`, `A applied (1,2)`,
//!                          `A epochs 1 2`, `sessions 3`
//! client A                 a client of A gets a session: the next zxid (`until client A`)
//! write w1 at A            a client of A creates /w1, and its answer is awaited only by `until acked w1`
//! hold disk A | free disk A        operations of the disk begin and do not end
//! full disk A              has no more room, until the process has ended
//! cut A B | cut A>B | heal         what is sent waits
//! run 500                  milliseconds
//! expect A has (1,2)       as with `until`, now; `expect not ...` too
//! ```
//!
//! (e,n) is a zxid; (2,0) has as its epoch whatever epoch that is. At the end all is repaired, and everything that the
//! random runs check is checked.

use crate::checkers;
use crate::clients::{Habits, Op};
use crate::network::{MS, Time};
use crate::recovery;
use crate::rule::Rule;
use crate::server::{Knobs, Role};
use crate::world::{Setup, World};
use ostler::disk::sim::Keep;
use ostler::ids::{Epoch, Zxid};
use ostler::zab::Timing;

/// How long `until` waits.
const PATIENCE: Time = 40_000 * MS;

/// What a scenario needs to be set up.
fn setup(text: &str) -> Setup {
    let count = |word: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(word));
        line.map_or(0, |rest| rest.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number"))
    };
    let (voters, observers) = (count("voters "), count("observers "));
    let or = |count: usize, default: usize| if count == 0 { default } else { count };
    let forgets = text.lines().any(|line| line.split_whitespace().next() == Some("forget"));
    Setup {
        voters,
        observers,
        rule: Rule::majority(voters, observers),
        clients: voters + observers,
        knobs: Knobs {
            timing: Timing { tick_ms: 400, connect_limit: 10, init_limit: 10, sync_limit: 5 },
            disk: (MS / 5, MS),
            snap_count: 1_000_000,
            forget_history_per_mille: if forgets { 1000 } else { 0 },
            snap_delay: MS,
            history_bytes: or(count("memory "), 1 << 20),
            counter_max: or(count("counter "), u32::MAX as usize) as u32,
        },
        habits: Habits {
            servers: voters + observers,
            timeout_ms: 600_000,
            pause: 100 * MS,
            burst: 1,
            keys: 1,
            moves_per_mille: 0,
            multis_per_mille: 0,
            ephemerals_per_mille: 0,
            reads_per_mille: 0,
            syncs_per_mille: 0,
        },
        latency: (MS / 10, MS),
        drift_ppm: 0,
    }
}

/// A scenario's world, before its first line: nobody runs, and each server has a client that does what it is told.
pub fn world(text: &str, seed: u64) -> World {
    let mut world = World::new(setup(text), seed, true);
    for at in 0..world.hosts.len() {
        world.hosts[at].stays_down = true;
        world.clients[at].told_to_use(at);
    }
    world
}

pub fn play(world: &mut World, text: &str) {
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let is_setup = |word: &str| ["voters", "observers", "forget", "memory", "counter"].contains(&word);
        if line.split_whitespace().next().is_none_or(is_setup) {
            continue;
        }
        world.note(|| format!("--- line {}: {line}", number + 1));
        command(world, line).unwrap_or_else(|problem| panic!("line {}: {line}: {problem}", number + 1));
    }
    recovery::recover(world);
    checkers::check(world);
}

fn server(world: &World, name: &str) -> Result<usize, String> {
    let at = name.bytes().next().map_or(usize::MAX, |letter| usize::from(letter.wrapping_sub(b'A')));
    if name.len() == 1 && at < world.hosts.len() { Ok(at) } else { Err(format!("{name} is no server")) }
}

fn zxid(text: &str) -> Result<Zxid, String> {
    let inside = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let (epoch, counter) = inside.and_then(|text| text.split_once(',')).ok_or("a zxid is (e,n)")?;
    let number = |text: &str| text.trim().parse::<u32>().map_err(|error| error.to_string());
    Ok(Zxid::new(Epoch(number(epoch)?), number(counter)?))
}

fn command(world: &mut World, line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match &words[..] {
        ["start", names @ ..] => {
            for name in names {
                let at = server(world, name)?;
                world.hosts[at].stays_down = false;
                world.start(at);
            }
        }
        ["kill", names @ ..] => crash(world, names, Keep::Everything)?,
        ["power", names @ ..] => crash(world, names, Keep::Nothing)?,
        ["until", condition @ ..] => {
            let limit = world.now + PATIENCE;
            while !holds(world, condition)? {
                if world.now >= limit {
                    return Err(format!("not within {} s\n{}", PATIENCE / MS / 1000, world.describe()));
                }
                // Finer than anything that happens by itself.
                let until = world.now + MS / 20;
                world.run_until(until);
            }
        }
        ["expect", "not", condition @ ..] => {
            if holds(world, condition)? {
                return Err(format!("it does\n{}", world.describe()));
            }
        }
        ["expect", condition @ ..] => {
            if !holds(world, condition)? {
                return Err(format!("it does not\n{}", world.describe()));
            }
        }
        ["write", name, "at", at] => {
            let at = server(world, at)?;
            world.wake_up(at);
            let limit = world.now + PATIENCE;
            while !world.clients[at].is_live() {
                if world.now >= limit {
                    return Err("its client gets no session".into());
                }
                let until = world.now + MS;
                world.run_until(until);
            }
            let op = Op::Create { path: format!("/{name}"), data: (*name).into(), ephemeral: false, sequential: false };
            let mut wishes = Vec::new();
            world.clients[at].request(op, world.now, &mut wishes);
            world.grant(at, wishes);
        }
        ["client", name] => {
            let at = server(world, name)?;
            world.wake_up(at);
        }
        ["hold", "disk", name] => {
            let at = server(world, name)?;
            world.hosts[at].disk_held = true;
        }
        ["free", "disk", name] => {
            let at = server(world, name)?;
            world.free_disk(at);
        }
        ["full", "disk", name] => {
            let at = server(world, name)?;
            world.hosts[at].disk_may_fail = true;
            world.hosts[at].disk.limit(Some(0));
        }
        ["cut", way] if way.contains('>') => {
            let (from, to) = way.split_once('>').ok_or("from>to")?;
            let (from, to) = (server(world, from)?, server(world, to)?);
            world.net.block(from, to);
        }
        ["cut", one, others @ ..] => {
            let one = server(world, one)?;
            for other in others {
                let other = server(world, other)?;
                world.net.block(one, other);
                world.net.block(other, one);
            }
        }
        ["heal"] => world.heal(),
        ["run", ms] => {
            let ms: Time = ms.parse().map_err(|_| "milliseconds")?;
            let until = world.now + ms * MS;
            world.run_until(until);
        }
        ["damage", name, "record", at] => {
            let host = server(world, name)?;
            let part: u64 = at.parse().map_err(|_| "a number of bytes")?;
            crate::faults::damage_log(world, host, part);
        }
        _ => return Err("no such command".into()),
    }
    Ok(())
}

fn crash(world: &mut World, names: &[&str], keep: Keep) -> Result<(), String> {
    for name in names {
        let at = server(world, name)?;
        world.hosts[at].stays_down = true;
        world.crash(at, keep);
    }
    Ok(())
}

fn holds(world: &World, condition: &[&str]) -> Result<bool, String> {
    let running = |name: &str| server(world, name).map(|at| world.hosts[at].server.as_deref());
    Ok(match condition {
        ["acked", name] => {
            let path = format!("/{name}");
            let is_it = |op: &Op| matches!(op, Op::Create { path: created, .. } if *created == path);
            let mut records = world.clients.iter().flat_map(|client| &client.history);
            records.any(|record| is_it(&record.op) && record.answer.is_some())
        }
        ["client", name] => world.clients[server(world, name)?].is_live(),
        ["sessions", number] => {
            let number: usize = number.parse().map_err(|_| "a number of sessions")?;
            let serving = world.hosts.iter().filter_map(|host| host.server.as_deref()).filter(|server| server.serving);
            serving.map(|server| server.sessions.len()).max() == Some(number)
        }
        [name, "down"] => running(name)?.is_none(),
        [name, "leads"] => running(name)?.is_some_and(|server| server.is_established() && server.serving),
        [name, "serves"] => running(name)?.is_some_and(|server| server.serving),
        [name, "follows"] => running(name)?.is_some_and(|server| matches!(server.role, Role::Learning { .. })),
        [name, "looks"] => running(name)?.is_some_and(|server| server.is_looking()),
        [name, "quarantined"] => running(name)?.is_some_and(|server| server.quarantined),
        [name, "appended", at] => {
            let zxid = zxid(at)?;
            running(name)?.is_some_and(|server| server.history.last() >= zxid)
        }
        [name, "has", at] => {
            let zxid = zxid(at)?;
            let at = server(world, name)?;
            let shadow = &world.invariants.shadows[at];
            shadow.has(zxid) || (zxid <= shadow.base && world.invariants.committed_at(zxid).is_some())
        }
        [name, "applied", at] => {
            let zxid = zxid(at)?;
            running(name)?.is_some_and(|server| server.tree.zxid() >= zxid)
        }
        [name, "epochs", accepted, current] => {
            let at = server(world, name)?;
            let shadow = &world.invariants.shadows[at];
            let number = |text: &str| text.parse().map(Epoch).map_err(|_| format!("{text} is no epoch"));
            (shadow.accepted, shadow.current) == (number(accepted)?, number(current)?)
        }
        _ => return Err(format!("no such condition: {condition:?}")),
    })
}
