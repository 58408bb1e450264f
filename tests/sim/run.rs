//! One run from one seed: draws a world, lets things go wrong for a while, repairs everything, and demands that all is well.

use crate::broken::{self, Bug};
use crate::checkers;
use crate::clients::Habits;
use crate::faults::{Nemesis, Plan};
use crate::network::{MS, Time};
use crate::recovery;
use crate::rule::Rule;
use crate::server::Knobs;
use crate::world::{Counts, Setup, World};
use ostler::random::Rng;
use ostler::zab::Timing;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// What a run was.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub digest: u64,
    pub counts: Counts,
    pub simulated: Time,
    pub committed: usize,
    pub checks: u64,
    pub operations: usize,
    pub answered: usize,
}

/// How a run failed.
pub struct Failure {
    pub seed: u64,
    pub why: String,
    pub trace: Vec<String>,
    pub state: String,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: RefCell<bool> = const { RefCell::new(false) };
}

/// The first panic of a run says what is wrong; it is kept, and not printed.
fn keep_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.with_borrow(|quiet| *quiet) {
                return before(info);
            }
            let text = text_of(info.payload());
            let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
            PANIC.set(Some(format!("{text} ({})", place.unwrap_or_default())));
        }));
    });
}

fn text_of(payload: &dyn std::any::Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len() as u64) as usize]
}

fn draw(rng: &mut Rng) -> (Setup, Plan, Time) {
    let voters = pick(rng, &[3, 3, 3, 4, 5, 5, 7]);
    let observers = pick(rng, &[0, 0, 1, 2]);
    let clients = 2 + rng.below(4) as usize;
    let slow = pick(rng, &[1, 4, 20, 100]);
    let mut knobs = Knobs {
        timing: Timing { tick_ms: pick(rng, &[400, 1_000]), connect_limit: 10, init_limit: 10, sync_limit: 5 },
        disk: (crate::storage::DISK_LEAST, MS * slow),
        snap_count: pick(rng, &[10, 40, 200, 100_000]),
        forget_history_per_mille: pick(rng, &[0, 300, 1000]),
        snap_delay: pick(rng, &[0, 50, 1_000]) * MS,
        history_bytes: pick(rng, &[1 << 20, 1 << 20, 20_000]),
        counter_max: pick(rng, &[u32::MAX, u32::MAX, 1_000, 100]),
    };
    let mut habits = Habits {
        servers: voters + observers,
        timeout_ms: pick(rng, &[2_000, 4_000, 10_000]),
        pause: pick(rng, &[20, 100, 400]) * MS,
        burst: pick(rng, &[1, 3, 6]),
        keys: pick(rng, &[2, 5, 20]),
        moves_per_mille: pick(rng, &[0, 5, 40]),
        multis_per_mille: pick(rng, &[0, 100, 300]),
        ephemerals_per_mille: pick(rng, &[0, 100, 300]),
        reads_per_mille: pick(rng, &[100, 300, 600]),
        syncs_per_mille: pick(rng, &[0, 50, 200]),
    };
    let latency = (MS / 10, MS * pick(rng, &[1, 1, 5, 30, 200]));
    let drift_ppm = pick(rng, &[0, 1_000, 50_000]);
    let mut plan = Plan::draw(rng);
    let mut lasts = pick(rng, &[10_000, 20_000, 40_000]) * MS;
    // Some runs are about one thing, which is rare in the others.
    match rng.below(16) {
        0 => {
            plan = Plan::of_leaders(rng);
            lasts = 40_000 * MS;
            habits = Habits {
                timeout_ms: pick(rng, &[2_000, 4_000]),
                pause: 100 * MS,
                moves_per_mille: pick(rng, &[0, 5]),
                // A write that the old leader can't commit holds up what its client asks behind it.
                reads_per_mille: 200,
                syncs_per_mille: 650,
                ..habits
            };
        }
        1 => {
            plan = Plan::of_latecomers(rng);
            habits = Habits {
                timeout_ms: 10_000,
                pause: 20 * MS,
                moves_per_mille: 100,
                reads_per_mille: 100,
                syncs_per_mille: 0,
                ..habits
            };
        }
        2 => {
            plan = Plan::of_replacements(rng);
            knobs.disk.1 = 100 * MS;
            habits = Habits { pause: 20 * MS, reads_per_mille: 100, ..habits };
        }
        _ => {}
    }
    let rule = Rule::majority(voters, observers);
    let setup = Setup { voters, observers, rule, clients, knobs, habits, latency, drift_ppm };
    (setup, plan, lasts)
}

/// Plays a scenario.
pub fn play(text: &str, seed: u64) -> Result<(), Failure> {
    keep_panics();
    QUIET.set(true);
    let mut world = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(crate::scenario::world(text, seed));
        crate::scenario::play(world, text);
    }));
    QUIET.set(false);
    result.map_err(|_| {
        let why = PANIC.take().unwrap_or_default();
        let trace = world.iter().flat_map(|world| world.trace().cloned()).collect();
        Failure { seed, why, trace, state: String::new() }
    })
}

/// Runs a seed; the failure has a trace if it was asked for.
pub fn run(seed: u64, bug: Option<Bug>, traced: bool) -> Result<Outcome, Failure> {
    keep_panics();
    broken::set(bug);
    QUIET.set(true);
    let mut world = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut rng = Rng::new(seed);
        let (mut setup, plan, lasts) = draw(&mut rng);
        // What came later is drawn beside the rest, which stays what it was.
        let mut more = Rng::new(seed ^ 0x9e37_79b9);
        if more.below(4) == 0 {
            setup.rule = Rule::draw(&mut more, setup.voters, setup.observers);
        }
        let world = world.insert(World::new(setup, rng.next(), traced));
        world.counts.weighed = world.setup.rule.has_groups().into();
        one(world, plan, lasts, more)
    }));
    QUIET.set(false);
    broken::set(None);
    match result {
        Ok(outcome) => Ok(outcome),
        Err(_) => {
            let why = PANIC.take().unwrap_or_default();
            let trace = world.iter().flat_map(|world| world.trace().cloned()).collect();
            let state =
                world.as_ref().map(|world| format!("{:?}\n{}", world.setup, world.describe())).unwrap_or_default();
            Err(Failure { seed, why, trace, state })
        }
    }
}

fn one(world: &mut World, plan: Plan, lasts: Time, mut more: Rng) -> Outcome {
    let leaves_some_away = more.below(2) == 0;
    world.note(|| format!("{plan:?}"));
    let mut nemesis = Nemesis::new(plan, world.hosts.len());
    while world.now < lasts {
        world.run_until(nemesis.next().min(lasts));
        nemesis.strike(world);
    }
    if leaves_some_away {
        recovery::recover_without_some(world, &mut more);
    } else {
        recovery::recover(world);
    }
    checkers::check(world);
    Outcome {
        digest: world.digest,
        counts: world.counts,
        simulated: world.now,
        committed: world.invariants.order.len(),
        checks: world.invariants.checks,
        operations: world.clients.iter().map(|client| client.history.len()).sum(),
        answered: (world.clients.iter())
            .map(|client| client.history.iter().filter(|record| record.answer.is_some()).count())
            .sum(),
    }
}
