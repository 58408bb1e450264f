//! `ostler bench`: a load generator for any server that speaks ZooKeeper's client protocol.
//!
//! It measures what a client sees (throughput, latency) and, given the server's process ids, what the server pays for it
//! (CPU time per operation); it checks every reply, and fails on a wrong one, so that a fast wrong answer is no answer.
//! In a closed loop each connection keeps a fixed number of requests in flight; with `--rate` requests are due at fixed
//! times, and latency counts from the time at which a request was due, so that a stall of the server counts in full.
//!
//! Runs on: one thread a `--threads`, each with its own poll and its share of the connections.

mod connection;
mod cpu;
mod engine;
mod report;
mod workload;

pub use workload::{Keys, Workload};

use crate::fatal::Fatal;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ostler bench get --server 127.0.0.1:2181
      reads of 100 bytes, 50 connections with 16 requests in flight each, for 10 seconds
  ostler bench mixed --depth 8 --read-ratio 10 --pid $(pgrep -f 'ostler server')
      ten reads to one write, with the server's CPU time per operation
  ostler bench set --connections 1 --depth 1
      durable writes, one at a time: latency of a single client
  ostler bench mixed --compare 127.0.0.1:2181=ostler --compare 127.0.0.1:2182=zookeeper --rounds 5 --json result.json
      the same against two servers in turn, medians and ratios";

/// Put a load on a ZooKeeper-compatible server and report what it did.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// What each request is
    #[arg(value_enum)]
    pub workload: Workload,
    /// The server, host:port
    #[arg(long, default_value = "127.0.0.1:2181")]
    pub server: String,
    /// Connections, each with a session of its own
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Requests in flight on each connection (closed loop)
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub depth: u32,
    /// Requests a second over all connections (open loop); latency counts from when a request was due
    #[arg(long)]
    pub rate: Option<u64>,
    /// Seconds to measure, after --warmup
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds of load before measuring
    #[arg(long, default_value_t = 1.0)]
    pub warmup: f64,
    /// Bytes of each value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub size: u32,
    /// Znodes that requests are spread over
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub keys: u32,
    /// How they are chosen
    #[arg(long, value_enum, default_value = "uniform")]
    pub distribution: Keys,
    /// Reads for each write (workload mixed)
    #[arg(long, default_value_t = 10)]
    pub read_ratio: u32,
    /// Threads of the generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Process ids of the server (or servers): adds CPU time per operation
    #[arg(long, value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Several servers in turn: ADDRESS=NAME or ADDRESS=NAME=PID[+PID...]; needs at least two
    #[arg(long, value_name = "ADDRESS=NAME[=PIDS]")]
    pub compare: Vec<String>,
    /// Times that each server of --compare gets its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Where the znodes are made; removed afterwards
    #[arg(long, default_value = "/ostler-bench")]
    pub root: String,
    /// Seed of keys and values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the results as CSV
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
}

/// A server to be measured.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub name: String,
    pub address: String,
    pub pids: Vec<u32>,
}

pub fn run(args: &BenchArgs) -> Result<(), Fatal> {
    let targets = targets(args)?;
    let rounds = if targets.len() > 1 { args.rounds } else { 1 };
    let mut results: Vec<Vec<report::Outcome>> = targets.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        // A B A B: what the machine does meanwhile hits both alike.
        for (target, results) in targets.iter().zip(&mut results) {
            let outcome = engine::measure(args, target, round)?;
            report::line(&target.name, round, &outcome);
            results.push(outcome);
        }
    }
    report::table(args, &targets, &results);
    report::files(args, &targets, &results)?;
    let wrong: u64 = results.iter().flatten().map(|outcome| outcome.wrong).sum();
    if wrong > 0 {
        return Err(Fatal::Usage {
            problem: format!("{wrong} wrong answers: the server did not do what it was asked"),
        });
    }
    Ok(())
}

fn targets(args: &BenchArgs) -> Result<Vec<Target>, Fatal> {
    if args.compare.is_empty() {
        return Ok(vec![Target { name: args.server.clone(), address: args.server.clone(), pids: args.pid.clone() }]);
    }
    let parse = |text: &String| {
        let mut parts = text.split('=');
        let (address, name) = (parts.next()?, parts.next()?);
        let pids = parts.next().map(|pids| pids.split('+').map(str::parse).collect::<Result<Vec<u32>, _>>());
        Some(Target { name: name.into(), address: address.into(), pids: pids.transpose().ok()?.unwrap_or_default() })
    };
    let parsed = args.compare.iter().map(|text| {
        parse(text)
            .ok_or(Fatal::Usage { problem: format!("--compare {text}: not ADDRESS=NAME or ADDRESS=NAME=PID[+PID]") })
    });
    parsed.collect()
}
