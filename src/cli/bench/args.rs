//! The words of `ostler bench`'s command line, and the defaults that depend on the workload.
//!
//! Every workload reads the same options; one that an option means nothing to ignores it, and the help says for which
//! ones it is meant.

use super::process;
use crate::client::ConnectString;
use crate::fatal::Fatal;
use crate::hosts;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What the load is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Workload {
    /// getData
    Get,
    /// exists
    Exists,
    /// getChildren of a parent with --keys children
    Children,
    /// the same, with one child created or deleted before each getChildren
    ChildrenChange,
    /// setData
    Set,
    /// create of a new znode each time
    Create,
    /// delete of --keys znodes, until none is left
    Delete,
    /// create of a new znode, then its delete
    CreateDelete,
    /// a multi of a check and a setData
    Multi,
    /// getData and setData, --read-ratio to one
    Mixed,
    /// ping: the cost of the protocol alone
    Ping,
    /// --connections watchers of one znode: how long until a change has been told to all
    WatchOne,
    /// --keys znodes with one watcher each, the same
    WatchMany,
    /// sessions that do nothing, with --watches each: memory, wake-ups, CPU
    Idle,
    /// all sessions come back at once, with their watches, after a cut or a restart by --during
    Storm,
    /// --keys znodes in the shape of a real tree, then --churn: memory of each
    Fill,
    /// creates while servers fail by --during: longest gap; then every acknowledged one is checked
    FailOver,
    /// pass on what comes in at --listen for --seconds, and keep the requests in --log
    Record,
    /// the requests of a --log again
    Replay,
}

/// How keys are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Keys {
    Uniform,
    /// Zipf's law with exponent 0.99, as YCSB has it
    Zipfian,
}

/// What a server speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Protocol {
    Zookeeper,
    /// GET, SET, EXISTS, DEL and PING of the same sizes
    Redis,
    /// tools/echo.rs: ZooKeeper's frames with nothing in them to be checked
    Echo,
}

impl Workload {
    /// As it is called on the command line.
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or(String::new(), |value| value.get_name().into())
    }
}

const EXAMPLES: &str = "\
Examples:
  ostler bench get --server 127.0.0.1:2181
      reads of 100 bytes, 50 connections with 16 requests in flight each, for 10 seconds
  ostler bench mixed --depth 8 --read-ratio 10 --pid $(pgrep -f 'ostler server')
      ten reads to one write, with the server's CPU time per operation
  ostler bench set --connections 1 --depth 1
      durable writes, one at a time: latency of a single client
  ostler bench mixed --rate 20000 --seconds 600
      open loop: requests are due at fixed times, and a stall of the server counts in full
  ostler bench set --rate 20000 --burst 16
      the same, each connection asking for sixteen things at a time
  ostler bench get --compare 127.0.0.1:2181=ostler --compare 127.0.0.1:2182=zookeeper \\
      --compare redis://127.0.0.1:6379=redis --rounds 5 --html result.html
      the same against three servers in turn: medians, ratios, and a page with plots

  ostler bench fill --keys 1000000 --churn 1000000 --pid $(pgrep -f 'ostler server')
      a million znodes in a realistic shape: bytes of memory for each, loaded and after a million changes
  ostler bench fail-over --server a:2181,b:2181,c:2181 --during 'ssh b systemctl kill -s KILL ostler'
      the longest time without an acknowledged write, and whether all that were are there afterwards
  ostler bench record --listen 127.0.0.1:2180 --server 127.0.0.1:2181 --seconds 60 --log requests
  ostler bench replay --log requests --server 127.0.0.1:2182
      what clients ask of one server, asked of another one

docs/bench.md has every workload, and the formats of the files.";

/// Put a load on a ZooKeeper-compatible server and report what it did.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub struct BenchArgs {
    /// What each request is
    #[arg(value_enum)]
    pub workload: Workload,
    /// The server, host:port; or the servers of an ensemble, host:port,host:port
    #[arg(long, default_value = "127.0.0.1:2181")]
    pub server: String,
    /// What --server speaks
    #[arg(long, value_enum, default_value = "zookeeper")]
    pub protocol: Protocol,
    /// Connections, each with a session of its own [default: 50; idle, storm, watch-one: 1000; fail-over: 10]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub connections: Option<u32>,
    /// Requests in flight on each connection (closed loop)
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub depth: u32,
    /// Requests a second over all connections (open loop); latency counts from when a request was due
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Requests of one connection that are due at the same time, as a client sends that asks for several things at once (open loop)
    #[arg(long, default_value_t = 1, requires = "rate", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub burst: u32,
    /// Seconds to measure, after --warmup
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub seconds: f64,
    /// Seconds of load before measuring
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub warmup: f64,
    /// Requests over all connections, instead of --seconds and --warmup
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Bytes of each value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub size: u32,
    /// Znodes that requests are spread over [default: 1000; delete: 100000; watch-many: 10000; fill: 1000000; idle, storm: one for each watch]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99_999_999))]
    pub keys: Option<u32>,
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
    /// Several servers in turn: [redis://|echo://]ADDRESS=NAME or …=NAME=PID[+PID...]; needs at least two
    #[arg(long, value_name = "ADDRESS=NAME[=PIDS]")]
    pub compare: Vec<String>,
    /// Times that each server of --compare gets its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Where the znodes are made; removed afterwards
    #[arg(long, default_value = "/ostler-bench")]
    pub root: String,
    /// Seconds that a reply, a session or an event may be waited for
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    pub patience: f64,
    /// Leave the znodes where they are
    #[arg(long)]
    pub keep: bool,
    /// The timeout that sessions ask for, in milliseconds
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    pub session_timeout: u32,
    /// A command for the shell, run when a third of the time has passed (bounded loads, storm: at once); {name} is the target's name
    #[arg(long, value_name = "COMMAND")]
    pub during: Option<String>,
    /// Watches of each session (idle, storm)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub watches: u32,
    /// Znodes deleted at random, and as many created, after a fill
    #[arg(long, default_value_t = 0)]
    pub churn: u32,
    /// The file of requests (record, replay)
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Where clients to be recorded connect
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2180")]
    pub listen: String,
    /// How many times as fast as recorded; 0: as fast as --depth allows (replay)
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    pub speed: f64,
    /// The load is the second part of a fill.
    #[arg(skip)]
    pub churning: bool,
    /// Seed of keys and values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the results as CSV
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write the results as one page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("not a number of seconds from 0 to 1000000".into()),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (0.0..=1e6).contains(&speed) => Ok(speed),
        _ => Err("not a factor from 0 to 1000000".into()),
    }
}

impl BenchArgs {
    /// How long a reply, a session or an event may be waited for.
    pub fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.patience)
    }

    pub fn connections(&self) -> u32 {
        let usual = match self.workload {
            Workload::Idle | Workload::Storm | Workload::WatchOne => 1_000,
            Workload::FailOver => 10,
            _ => 50,
        };
        self.connections.unwrap_or(usual)
    }

    pub fn keys(&self) -> u32 {
        let usual = match self.workload {
            Workload::Delete => 100_000,
            Workload::WatchMany => 10_000,
            Workload::Fill => 1_000_000,
            Workload::Idle | Workload::Storm => self.connections().saturating_mul(self.watches).max(1),
            _ => 1_000,
        };
        self.keys.unwrap_or(usual)
    }

    /// The same, with what the workload leaves no choice about; or what is wrong with it.
    pub fn settled(&self) -> Result<BenchArgs, Fatal> {
        let usage = |problem: &str| Err(Fatal::Usage { problem: problem.into() });
        if self.connections() == 0 && self.workload != Workload::Idle {
            return usage("--connections 0: this workload needs at least one");
        }
        if !self.root.starts_with('/') || self.root.len() < 2 || self.root.ends_with('/') {
            return usage("--root has to be a path like /ostler-bench: it is emptied before and removed afterwards");
        }
        if self.compare.len() == 1 {
            return usage("--compare: one server is not a comparison; name a second one, or use --server");
        }
        Ok(BenchArgs { threads: self.threads.min(self.connections().max(1)), ..self.clone() })
    }

    /// How many requests the whole load is, if that is bounded by their number and not by time.
    pub fn total_requests(&self) -> Option<u64> {
        match self.workload {
            Workload::Fill if !self.churning => Some(self.keys().into()),
            Workload::Delete => Some(self.requests.map_or(self.keys().into(), |count| count.min(self.keys().into()))),
            _ => self.requests,
        }
    }
}

/// A server, or the servers of an ensemble, to be measured.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub address: String,
    pub protocol: Protocol,
    pub pids: Vec<u32>,
}

impl Target {
    /// What goes wrong with this target, as the reason to stop.
    pub fn failed(&self, error: impl std::fmt::Display) -> Fatal {
        Fatal::Bench { problem: format!("{} ({}): {error}", self.name, self.address) }
    }

    /// The addresses of its servers, in the order of the connect string; and its chroot with `path` below it.
    pub fn resolve(&self, path: &str) -> Result<(Vec<SocketAddr>, String), Fatal> {
        let parsed = ConnectString::parse(&self.address).map_err(|error| self.failed(error))?;
        let mut addresses = Vec::new();
        for (host, port) in &parsed.servers {
            addresses.extend(hosts::look_up(host, *port).map_err(|error| self.failed(error))?.first());
        }
        Ok((addresses, parsed.chroot.join(path)))
    }
}

/// The targets in their order, from `--compare` or `--server`.
pub fn targets(args: &BenchArgs) -> Result<Vec<Target>, Fatal> {
    if args.compare.is_empty() {
        let (name, address) = (args.server.clone(), args.server.clone());
        return Ok(vec![Target { name, address, protocol: args.protocol, pids: args.pid.clone() }]);
    }
    let parsed = args.compare.iter().map(|text| {
        target(text).ok_or_else(|| Fatal::Usage {
            problem: format!("--compare {text}: not ADDRESS=NAME or ADDRESS=NAME=PID[+PID]"),
        })
    });
    parsed.collect()
}

/// Errors: a process whose CPU time is to be told is not there.
pub fn check_pids(targets: &[Target]) -> Result<(), Fatal> {
    let mut pids = targets.iter().flat_map(|target| &target.pids);
    match pids.find(|&&pid| process::cpu_nanos(&[pid]).is_none()) {
        Some(pid) => {
            Err(Fatal::Usage { problem: format!("there is no process {pid} (--pid, --compare) to be measured") })
        }
        None => Ok(()),
    }
}

fn target(text: &str) -> Option<Target> {
    let (protocol, rest) = match text.split_once("://") {
        None => (Protocol::Zookeeper, text),
        Some((scheme, rest)) => (<Protocol as clap::ValueEnum>::from_str(scheme, false).ok()?, rest),
    };
    let mut parts = rest.split('=');
    let (address, name) = (parts.next()?, parts.next()?);
    let pids = parts.next().map(|pids| pids.split('+').map(str::parse).collect::<Result<Vec<u32>, _>>());
    let pids = pids.transpose().ok()?.unwrap_or_default();
    Some(Target { name: name.into(), address: address.into(), protocol, pids })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_an_address_a_name_and_perhaps_a_protocol_and_pids() {
        let plain = target("a:1,b:2=ensemble").unwrap();
        assert_eq!((plain.address.as_str(), plain.name.as_str()), ("a:1,b:2", "ensemble"));
        assert_eq!((plain.protocol, plain.pids.len()), (Protocol::Zookeeper, 0));
        let redis = target("redis://127.0.0.1:6379=redis=12+13").unwrap();
        assert_eq!((redis.address.as_str(), redis.protocol), ("127.0.0.1:6379", Protocol::Redis));
        assert_eq!(redis.pids, [12, 13]);
        for text in ["127.0.0.1:1", "etcd://a=b", "a=b=x"] {
            assert!(target(text).is_none(), "{text}");
        }
    }
}
