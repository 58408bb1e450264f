//! A rolling migration, as `docs/migration.md` tells an operator to do it: three ZooKeeper servers become ostlers one at a
//! time, and ZooKeeper servers again, while applications go on: kazoo's and Curator's clients with a lock, a watch and an
//! ephemeral each, and the clients of `load.rs`. A quota is full all the time.
//!
//! OSTLER_CYCLES: how often there and back. At the end all is stopped, compared, and judged.
//! OSTLER_JAVA=3.8.0 has it with Debian's ZooKeeper.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::client::Client;
use super::cluster::{Cluster, Kind, java_kinds};
use super::known;
use super::load::{Load, judge};
use super::scalpel::timed;
use crate::support::{
    peers,
    servers::{java_options, ostler, pause, wait_for},
    setting,
};

/// The programs of `applications.py` or of `CuratorApplications.java`.
struct Applications {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    _classes: tempfile::TempDir,
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mixed").join(name)
}

impl Applications {
    fn of_kazoo(addresses: &str) -> Applications {
        let mut command = Command::new(peers().join("venv/bin/python"));
        command.arg(source("applications.py")).arg(addresses);
        Applications::start("kazoo", command, tempfile::tempdir().expect("a temporary folder"))
    }

    fn of_curator(addresses: &str) -> Applications {
        let classes = tempfile::tempdir().expect("a temporary folder");
        let jars = format!("{}/java/*", peers().display());
        let mut compiler = Command::new("javac");
        compiler.args(["-nowarn", "-cp", &jars, "-d"]).arg(classes.path()).arg(source("CuratorApplications.java"));
        assert!(compiler.status().expect("javac is installed").success());
        let mut options = java_options();
        if let Some(path) = options.last_mut() {
            *path = format!("{}:{path}", classes.path().display());
        }
        let logging = classes.path().join("quiet.properties");
        fs::write(&logging, "status = off\nrootLogger.level = off\n").expect("a file in our folder");
        let mut command = Command::new("java");
        command.args(options).arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
        command.args(["CuratorApplications", addresses]);
        Applications::start("Curator", command, classes)
    }

    fn start(name: &'static str, mut command: Command, classes: tempfile::TempDir) -> Applications {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is installed");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Applications { name, child, input, output, _classes: classes }
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
        assert!(line.contains("\"failures\": []"), "an application of {} has failed: {line}", self.name);
        assert_eq!(number("lost"), 0, "a session of {} has expired: {line}", self.name);
        assert_eq!(number("overlaps"), 0, "two of {} have held the lock: {line}", self.name);
        assert_eq!(number("backwards"), 0, "a watcher of {} has seen the counter go back: {line}", self.name);
        assert!(line.contains("\"ephemeral\": true"), "the ephemeral of {} is gone, or another's: {line}", self.name);
        assert!(number("counter") >= number("writes"), "an acknowledged write of {} is lost: {line}", self.name);
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

/// Back into its own directories; it knows its log's, which some have apart.
fn export(cluster: &Cluster, id: u8) {
    let data = cluster.data(id).display().to_string();
    run_ostler(cluster, id, &["export", "--set-aside", "--to", &data]);
}

/// Stops a server, and starts another program in its place, on its data.
fn replace(cluster: &mut Cluster, id: u8, kind: Kind) {
    cluster.stop(id);
    cluster.becomes(id, kind);
    if kind.is_java() {
        export(cluster, id);
    } else if cluster.was_ostler(id) {
        // What it has of its own is from the last time.
        run_ostler(cluster, id, &["import", "--replace"]);
    }
    cluster.start(id);
    cluster.leader();
}

/// Hard limits hold on every server, whatever it is just now, and as many znodes are counted.
fn assert_quota(cluster: &Cluster) {
    for id in cluster.ids() {
        let mut client = Client::of(cluster.member(id).client_port);
        assert_eq!(client.create("/limited/one-too-many", b"", 0).expect("it answers").error, QUOTA_EXCEEDED, "{id}");
        client.close();
    }
}

const QUOTA_EXCEEDED: i32 = -125;

/// A folder that may not grow.
fn set_quota(cluster: &Cluster) {
    let mut client = Client::of(cluster.member(1).client_port);
    let limits = "count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=4";
    let mut create = |path: &str, data: &str| {
        assert_eq!(client.create(path, data.as_bytes(), 0).expect("it answers").error, 0, "{path}");
    };
    create("/limited", "");
    create("/zookeeper/quota/limited", "");
    create("/zookeeper/quota/limited/zookeeper_limits", limits);
    create("/zookeeper/quota/limited/zookeeper_stats", "count=1,bytes=0");
    (0..3).for_each(|number| create(&format!("/limited/{number}"), "data"));
    client.close();
}

/// All servers, the leader last. For each, the longest time in which nobody's write was acknowledged, and the longest in which
/// one client's was not: it loses its server, and its library looks for another at its own pace.
fn replace_all(
    cluster: &mut Cluster,
    load: &Load,
    applications: &mut [Applications],
    kind: Kind,
) -> Vec<(Duration, Duration)> {
    let leader = cluster.leader();
    let mut order: Vec<u8> = cluster.ids().filter(|id| *id != leader).collect();
    order.push(leader);
    let mut pauses = Vec::new();
    for id in order {
        let led = cluster.leader() == id;
        for of in applications.iter_mut() {
            of.ask();
        }
        load.longest_pause();
        let ((), took) = timed(|| replace(cluster, id, kind));
        load.progress(20);
        let seen: Vec<Duration> = applications.iter_mut().map(|of| of.ask().pause).collect();
        let anybody = load.longest_pause();
        assert_quota(cluster);
        let role = if led { "leader" } else { "follower" };
        println!(
            "  server {id}, {role}, is {kind:?} after {took:.1?}; writes paused for {anybody:?}, kazoo's for {:?}, Curator's \
             for {:?}",
            seen[0], seen[1]
        );
        let all = || seen.iter().copied();
        pauses.push((all().fold(anybody, Duration::min), all().fold(anybody, Duration::max)));
    }
    pauses
}

#[test]
#[ignore = "needs Java, ZooKeeper's and Curator's jars, and Python with kazoo: tools/peers.sh"]
fn three_servers_are_replaced_one_at_a_time_and_back_under_applications() {
    let java = java_kinds()[0];
    known::judged(&format!("{java:?}, one at a time"), || with_quota(java), |cluster| roll(cluster, java));
}

fn roll(cluster: &mut Cluster, java: Kind) {
    let cycles = setting("OSTLER_CYCLES", 2);
    cluster.start_all();
    cluster.leader();
    set_quota(cluster);
    let mut load = Load::start(cluster, 2, 0x3a7e);
    let addresses = cluster.addresses();
    let mut applications = [Applications::of_kazoo(&addresses), Applications::of_curator(&addresses)];
    wait_for("the applications to begin", Duration::from_secs(60), || {
        pause(Duration::from_millis(50));
        let has_begun = |seen: Seen| seen.locks > 0 && seen.watched > 0 && seen.writes > 0;
        applications.iter_mut().all(|of| has_begun(of.ask())).then_some(())
    });
    let mut pauses = Vec::new();
    let ((), took) = timed(|| {
        for cycle in 0..cycles {
            for kind in [Kind::Ostler, java] {
                println!("cycle {}: to {kind:?}", cycle + 1);
                pauses.extend(replace_all(cluster, &load, &mut applications, kind));
            }
        }
    });
    let seen: Vec<Seen> = applications.iter_mut().map(Applications::ask).collect();
    drop(applications);
    load.away();
    let records = load.end();
    let tree = crate::equal_trees(cluster);
    assert_eq!(records.iter().map(|record| record.expired).sum::<usize>(), 0, "sessions have expired");
    let judged = judge(&records, &tree);
    assert_eq!(tree["/zookeeper/quota/limited/zookeeper_stats"].data.as_deref(), Some(b"count=4,bytes=12".as_slice()));
    let sorted = |mut all: Vec<Duration>| {
        all.sort();
        (all[all.len() - 1], all[all.len() / 2])
    };
    let (longest, middle) = sorted(pauses.iter().map(|pause| pause.0).collect());
    let (own, own_middle) = sorted(pauses.iter().map(|pause| pause.1).collect());
    println!(
        "{cycles} cycles with {java:?}, {} swaps in {took:.0?}; {judged} znodes judged; longest pause of all writes {longest:?}, \
         median {middle:?}; of one client's {own:?}, median {own_middle:?}",
        pauses.len()
    );
    for (name, seen) in ["kazoo", "Curator"].into_iter().zip(seen) {
        println!("  {name}: {} writes, {} locks, the counter was seen up to {}", seen.writes, seen.locks, seen.watched);
    }
    let limit = Duration::from_millis(setting("OSTLER_PAUSE_MAX_MS", 3000));
    assert!(longest <= limit, "writes paused for {longest:?}");
}

/// All ZooKeeper servers at once, while clients write; and all of ostler's, back. Sessions outlive both.
#[test]
#[ignore = "needs Java and ZooKeeper's jars: tools/peers.sh"]
fn a_stopped_ensemble_becomes_ours_as_a_whole_and_zookeepers_again() {
    for java in java_kinds() {
        known::judged(&format!("{java:?}, all at once"), || with_quota(java), |cluster| stop_all(cluster, java));
    }
}

fn with_quota(java: Kind) -> Cluster {
    let mut cluster = Cluster::new("zzz", java);
    cluster.dynamic = true;
    cluster.settings.push("enforceQuota=true".into());
    cluster
}

fn stop_all(cluster: &mut Cluster, java: Kind) {
    cluster.start_all();
    cluster.leader();
    set_quota(cluster);
    let mut load = Load::start(cluster, 3, 0x5709);
    load.progress(300);
    // In the middle of writes, so that what they have logged is not alike.
    cluster.ids().for_each(|id| cluster.kill(id));
    for id in cluster.ids() {
        cluster.becomes(id, Kind::Ostler);
        run_ostler(cluster, id, &["import", "--check"]);
    }
    cluster.start_all();
    let compare = |cluster: &mut Cluster| {
        cluster.leader();
        load.progress(200);
        load.away();
        let tree = crate::equal_trees(cluster);
        assert_quota(cluster);
        load.back();
        tree
    };
    compare(cluster);
    // A second time there, of which one begins with nothing when the others have begun.
    give_back(cluster, java);
    compare(cluster);
    let empty = cluster.leader();
    cluster.ids().for_each(|id| cluster.stop(id));
    for id in cluster.ids() {
        cluster.becomes(id, Kind::Ostler);
        if id == empty {
            cluster.wipe(id);
            continue;
        }
        run_ostler(cluster, id, &["import", "--replace"]);
        cluster.start(id);
    }
    cluster.leader();
    load.progress(50);
    cluster.start(empty);
    compare(cluster);
    load.away();
    let records = load.end();
    assert_eq!(records.iter().map(|record| record.expired).sum::<usize>(), 0, "sessions have expired");
    let judged = judge(&records, &crate::equal_trees(cluster));
    println!("{java:?}: there, back, and there, {judged} znodes judged");
}

/// All of ostler's servers are stopped, and ZooKeeper's start with what they had.
fn give_back(cluster: &mut Cluster, java: Kind) {
    cluster.ids().for_each(|id| cluster.stop(id));
    for id in cluster.ids() {
        cluster.becomes(id, java);
        export(cluster, id);
    }
    cluster.start_all();
}
