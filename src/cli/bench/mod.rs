//! `ostler bench`: a load generator for any server that speaks ZooKeeper's client protocol, with Redis and an echo
//! beside it for scale.
//!
//! It measures what a client sees (throughput, latency) and, given the server's process ids, what the server pays for it
//! (CPU time per operation); it checks every reply, and fails on a wrong one: a fast wrong answer is no answer. Several
//! servers are measured in turn (A B A B ...), so that what the machine does meanwhile hits all alike.
//!
//! Runs on: one thread a `--threads`, each with its own poll and its share of the connections; the main thread shows
//! live figures.

mod args;
mod asked;
mod crowd;
mod dialect;
mod fail_over;
mod fan_out;
mod fill;
mod html;
mod idle;
mod link;
mod live;
mod outcome;
mod pace;
mod process;
mod replay;
mod report;
mod request_log;
mod setup;
mod steady;
mod storm;
mod workload;

pub use args::{BenchArgs, Keys, Protocol, Workload};

use crate::fatal::Fatal;
use crate::net::descriptors;
use args::Target;
use outcome::Outcome;

/// Measures, and prints and writes what was found. Errors: a server that could not be measured, or a wrong answer; the
/// figures are printed before.
pub fn run(args: &BenchArgs) -> Result<(), Fatal> {
    let args = &args.settled()?;
    let targets = args::targets(args)?;
    args::check_pids(&targets)?;
    let rounds = if targets.len() > 1 { args.rounds } else { 1 };
    descriptors::raise_limit();
    if let (Workload::Record, [target]) = (args.workload, targets.as_slice()) {
        return request_log::record(args, target);
    }
    let mut results: Vec<Vec<Outcome>> = targets.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (target, results) in targets.iter().zip(&mut results) {
            let outcome = measure(args, target)?;
            report::line(&target.name, round, &outcome)?;
            results.push(outcome);
        }
    }
    report::table(args, &targets, &results)?;
    report::files(args, &targets, &results)?;
    let wrong: u64 = results.iter().flatten().map(|outcome| outcome.wrong).sum();
    let first = results.iter().flatten().find_map(|outcome| outcome.first_wrong.as_deref());
    match first {
        None => Ok(()),
        Some(first) => Err(Fatal::Bench { problem: format!("{wrong} wrong answers, the first: {first}") }),
    }
}

/// One target's turn.
fn measure(args: &BenchArgs, target: &Target) -> Result<Outcome, Fatal> {
    let with_sessions = match args.workload {
        Workload::WatchOne | Workload::WatchMany => fan_out::measure,
        Workload::Idle => idle::measure,
        Workload::Storm => storm::measure,
        Workload::Fill => fill::measure,
        Workload::FailOver => fail_over::measure,
        Workload::Replay => replay::measure,
        Workload::Record => return Err(Fatal::Usage { problem: "record: one server at a time (--server)".into() }),
        _ => return steady::measure(args, target),
    };
    if target.protocol != Protocol::Zookeeper {
        return Err(target.failed("only ZooKeeper's protocol has what this workload needs"));
    }
    with_sessions(args, target)
}
