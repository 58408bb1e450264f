//! The end of a run: what is broken is repaired, and then all has to be well soon (fault model 1.9).
//!
//! In half of the runs not everything is repaired at first. Servers that the rest can do without stay down, cut off or
//! frozen; the rest has to elect, come level and serve, with new writes acknowledged, while whoever is cut off serves nobody
//! (1.8). Then they come back, often with histories that nobody wanted, and have to come level too.

use crate::checkers;
use crate::network::{MS, Time};
use crate::server::Server;
use crate::world::World;
use ostler::disk::sim::Keep;
use ostler::random::Rng;
use ostler::wire::ErrorCode;

/// How servers stay away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Away {
    Down,
    /// From the other servers, and from the clients too.
    CutOff {
        clients_too: bool,
    },
    /// They hear nothing of the other servers, which hear them; or the other way round.
    HalfCutOff {
        deaf: bool,
    },
    /// The processes stand still, and their connections stay open.
    Frozen,
}

/// Servers that are up and well within a step of the recovery.
type Present = Vec<bool>;

/// Liveness: with everything repaired there is a leader soon, and all servers come to the same state.
pub fn recover(world: &mut World) {
    world.note(|| "everything is repaired".to_owned());
    world.heal();
    let all = vec![true; world.hosts.len()];
    repair(world, &all);
    come_level(world, &all, None);
}

/// The same, and before it the same of servers that are just enough.
pub fn recover_without_some(world: &mut World, rng: &mut Rng) {
    let present = choose(world, rng);
    let away = match rng.below(6) {
        0 => Away::Frozen,
        1 | 2 => Away::Down,
        3 => Away::HalfCutOff { deaf: rng.below(2) == 0 },
        _ => Away::CutOff { clients_too: rng.below(2) == 0 },
    };
    world.note(|| format!("repaired are {present:?}, the others are {away:?}"));
    // A client that leaves sooner than an answer can come has none to show.
    let moves = &mut world.setup.habits.moves_per_mille;
    *moves = (*moves).min(5);
    world.counts.minorities += u64::from(present.contains(&false));
    world.heal();
    stay_away(world, &present, away, rng);
    repair(world, &present);
    let began = world.now;
    come_level(world, &present, Some(began));
    if matches!(away, Away::CutOff { .. } | Away::HalfCutOff { .. }) {
        serve_nobody(world, &present, began);
    }
    let busy = rng.below(2) == 0;
    if busy {
        world.go_on_with_clients();
    }
    let came_back = world.now;
    recover_rest(world);
    let all = vec![true; world.hosts.len()];
    come_level(world, &all, busy.then_some(came_back));
}

fn recover_rest(world: &mut World) {
    world.note(|| "everything is repaired".to_owned());
    world.heal();
    let all = vec![true; world.hosts.len()];
    repair(world, &all);
}

/// Who does without whom: mostly as few as can be, without those whose histories are in doubt they are a quorum.
fn choose(world: &World, rng: &mut Rng) -> Present {
    let servers = world.hosts.len();
    let mut present = vec![true; servers];
    let most = if rng.below(3) == 0 { 1 + rng.below(servers as u64) as usize } else { servers };
    let mut order: Vec<usize> = (0..servers).collect();
    for at in (1..servers).rev() {
        order.swap(at, rng.below(at as u64 + 1) as usize);
    }
    for at in order.into_iter().take(most) {
        present[at] = false;
        let enough = world.setup.rule.is_quorum(|at| present[at] && !world.hosts[at].damaged);
        present[at] = !enough;
    }
    present
}

fn stay_away(world: &mut World, present: &Present, away: Away, rng: &mut Rng) {
    let servers = world.hosts.len();
    for at in (0..servers).filter(|&at| !present[at]) {
        match away {
            Away::Down => {
                let keep = if rng.below(2) == 0 { Keep::Everything } else { crate::faults::keep(&mut world.rng) };
                world.hosts[at].stays_down = true;
                world.crash(at, keep);
            }
            Away::CutOff { clients_too } => {
                world.resume(at);
                let clients = servers..servers + world.clients.len();
                let others = (0..servers).filter(|&other| present[other]);
                for other in others.chain(clients.filter(|_| clients_too)) {
                    world.net.block(at, other);
                    world.net.block(other, at);
                }
            }
            Away::HalfCutOff { deaf } => {
                world.resume(at);
                for other in (0..servers).filter(|&other| present[other]) {
                    let (from, to) = if deaf { (other, at) } else { (at, other) };
                    world.net.block(from, to);
                }
            }
            Away::Frozen => world.freeze(at),
        }
    }
}

/// What is wrong with these servers is not any more.
fn repair(world: &mut World, present: &Present) {
    for at in (0..present.len()).filter(|&at| present[at]) {
        world.resume(at);
        world.hosts[at].disk_factor = 1;
        world.hosts[at].stays_down = false;
        world.free_disk(at);
        let clean = world.hosts[at].disk.after_crash(Keep::Everything);
        match &world.hosts[at].server {
            // A disk with a fault to come: its process ends, and finds a good one.
            Some(_) if world.hosts[at].disk_may_fail => world.crash(at, Keep::Everything),
            Some(_) => {}
            None => world.hosts[at].disk = clean,
        }
        world.hosts[at].disk_may_fail = false;
        if world.hosts[at].server.is_none() {
            world.start(at);
        }
    }
}

/// These servers come to one state and serve it; if a time is given, with writes acknowledged that were asked for since.
fn come_level(world: &mut World, present: &Present, acknowledged_since: Option<Time>) {
    let tick = world.setup.knobs.timing.tick_ms * MS;
    // Silent ends are noticed by initLimit at the latest; then there are elections.
    let limit = world.now + tick * 60 + 30_000 * MS;
    let mut quiet = false;
    while world.now < limit {
        let until = world.now + 500 * MS;
        world.run_until(until);
        let serves = |at: usize| world.hosts[at].server.as_ref().is_some_and(|server| server.serving);
        let all_serve = (0..present.len()).all(|at| !present[at] || serves(at));
        if all_serve && !quiet && acknowledged_since.is_none_or(|since| has_acknowledged(world, since)) {
            quiet = true;
            world.clients.iter_mut().for_each(|client| client.stopped = true);
        } else if quiet && all_serve && checkers::has_converged(world, present) {
            return;
        }
    }
    let what = if quiet { "convergence" } else { "service" };
    panic!("liveness: no {what} of {present:?} within {} ticks:\n{}", 60, world.describe());
}

fn has_acknowledged(world: &World, since: Time) -> bool {
    world.clients.iter().any(|client| {
        let recent = client.history.iter().rev().take_while(|record| record.invoked >= since);
        recent.into_iter().any(|record| {
            record.op.is_write() && record.answer.as_ref().is_some_and(|answer| answer.err == ErrorCode::OK)
        })
    })
}

/// 1.8: whoever is without a quorum lets its clients go within syncLimit, by its own clock, which may be slow.
fn serve_nobody(world: &mut World, present: &Present, since: Time) {
    let timing = world.setup.knobs.timing;
    let limit = u64::from(timing.sync_limit + 2) * timing.tick_ms * MS;
    let until = world.now.max(since + limit + limit / 10 + 500 * MS);
    world.run_until(until);
    for at in (0..present.len()).filter(|&at| !present[at]) {
        let serves = |server: &Server| server.serving || server.is_established();
        let serves = world.hosts[at].server.as_deref().is_some_and(serves);
        assert!(!serves, "1.8: server {} is cut off, and serves:\n{}", at + 1, world.describe());
    }
}
