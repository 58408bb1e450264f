//! A rolling migration, as `docs/migration.md` tells an operator to do it: three ZooKeeper servers become ostlers one at a
//! time, and ZooKeeper servers again, while applications go on: kazoo clients with a lock, a watch and an ephemeral, and
//! the clients of `load.rs`.
//!
//! OSTLER_CYCLES: how often there and back. Each time the whole is stopped for a moment, compared, and judged.
//! OSTLER_MIGRATION=3.8.0 begins with Debian's ZooKeeper.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::cluster::{Cluster, Kind, java_kinds};
use super::load::{Load, judge};
use super::scalpel::timed;
use crate::support::{
    peers,
    servers::{ostler, pause, wait_for},
    setting,
};

/// The programs of `applications.py`.
struct Applications {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Applications {
    fn start(addresses: &str) -> Applications {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mixed/applications.py");
        let mut command = Command::new(peers().join("venv/bin/python"));
        command.arg(source).arg(addresses).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Python is installed");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Applications { child, input, output }
    }

    /// What they have seen; panics if they have seen what must not be.
    fn ask(&mut self) -> Seen {
        let input = self.input.as_mut().expect("it runs");
        input.write_all(b"?\n").and_then(|()| input.flush()).expect("the applications have ended");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("an answer");
        let number = |name: &str| -> u64 {
            let at = line.find(&format!("\"{name}\": ")).unwrap_or_else(|| panic!("no {name} in {line}"));
            let rest = &line[at + name.len() + 4..];
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse().unwrap_or_else(|_| panic!("{name} in {line}"))
        };
        assert!(line.contains("\"failures\": []"), "an application has failed: {line}");
        assert_eq!(number("lost"), 0, "a session has expired: {line}");
        assert_eq!(number("overlaps"), 0, "two have held the lock: {line}");
        assert_eq!(number("backwards"), 0, "the watcher has seen the counter go back: {line}");
        assert!(line.contains("\"ephemeral\": true"), "the ephemeral is gone, or another's: {line}");
        assert!(number("counter") >= number("writes"), "an acknowledged write is lost: {line}");
        let pause = Duration::from_millis(number("longest_pause_ms"));
        Seen { writes: number("writes"), locks: number("locks"), watched: number("watched"), pause }
    }
}

struct Seen {
    writes: u64,
    locks: u64,
    watched: u64,
    /// The longest time without a write since the last question.
    pause: Duration,
}

impl Drop for Applications {
    fn drop(&mut self) {
        // It ends when its input does; whoever hangs is killed.
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of ostler's commands on a server's configuration.
fn run_ostler(cluster: &Cluster, id: u8, words: &[&str]) {
    let output = Command::new(ostler()).args(words).arg(cluster.config_file(id)).output().expect("ostler runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ostler {words:?} on server {id}: {}\n{said}", output.status);
}

/// Stops a server, and starts another program in its place, on its data.
fn replace(cluster: &mut Cluster, id: u8, kind: Kind) {
    cluster.stop(id);
    cluster.becomes(id, kind);
    let data = cluster.data(id).display().to_string();
    if kind.is_java() {
        run_ostler(cluster, id, &["export", "--to", &data, "--set-aside"]);
    } else if cluster.was_ostler(id) {
        // What it has of its own is from the last time.
        run_ostler(cluster, id, &["import", "--replace"]);
    }
    cluster.start(id);
    cluster.leader();
}

/// All servers, the leader last; the longest time in which no write was acknowledged.
fn replace_all(cluster: &mut Cluster, load: &Load, applications: &mut Applications, kind: Kind) -> Vec<Duration> {
    let leader = cluster.leader();
    let mut order: Vec<u8> = cluster.ids().filter(|id| *id != leader).collect();
    order.push(leader);
    let mut pauses = Vec::new();
    for id in order {
        applications.ask();
        load.longest_pause();
        let ((), took) = timed(|| replace(cluster, id, kind));
        load.progress(20);
        let seen = applications.ask();
        let longest = load.longest_pause().max(seen.pause);
        println!("  server {id} is {kind:?} after {took:?}; longest pause of writes {longest:?}");
        pauses.push(longest);
    }
    pauses
}

#[test]
#[ignore = "needs Java, ZooKeeper's jars and Python with kazoo: tools/peers.sh"]
fn three_servers_are_replaced_one_at_a_time_and_back_under_applications() {
    let cycles = setting("OSTLER_CYCLES", 2);
    let old = std::env::var("OSTLER_MIGRATION").is_ok_and(|version| version == "3.8.0");
    let java = java_kinds()[usize::from(old)];
    let mut cluster = Cluster::new("zzz", java);
    cluster.start_all();
    cluster.leader();
    let load = Load::start(&cluster.client_ports(), 2, 0x3a7e);
    let mut applications = Applications::start(&cluster.addresses());
    wait_for("the applications to begin", Duration::from_secs(60), || {
        pause(Duration::from_millis(50));
        let seen = applications.ask();
        (seen.locks > 0 && seen.watched > 0 && seen.writes > 0).then_some(())
    });
    let mut pauses = Vec::new();
    let ((), took) = timed(|| {
        for cycle in 0..cycles {
            for kind in [Kind::Ostler, java] {
                println!("cycle {}: to {kind:?}", cycle + 1);
                pauses.extend(replace_all(&mut cluster, &load, &mut applications, kind));
            }
        }
    });
    let seen = applications.ask();
    drop(applications);
    load.away();
    let records = load.end();
    let tree = crate::equal_trees(&cluster);
    assert_eq!(records.iter().map(|record| record.expired).sum::<usize>(), 0, "sessions have expired");
    pauses.sort();
    let (longest, middle) = (pauses[pauses.len() - 1], pauses[pauses.len() / 2]);
    println!(
        "{cycles} cycles, {} swaps in {took:?}; {} znodes judged; {} writes, {} locks of applications; \
         longest pause of writes {longest:?}, median {middle:?}",
        pauses.len(),
        judge(&records, &tree),
        seen.writes,
        seen.locks
    );
    let limit = Duration::from_millis(setting("OSTLER_PAUSE_MAX_MS", 15_000));
    assert!(longest <= limit, "writes paused for {longest:?}");
}
