//! Faults of ZooKeeper's own, recognised by what the server itself has written.
//!
//! A transaction may be on its way into the tree when a snapshot ends, and not yet in the digest that the snapshot says. A
//! server that was killed then counts a digest that does not fit while it loads its files, before it has heard of anybody.
//! What it has counted is not held against the others; its tree is compared as always.
//!
//! 3.8.0 alone: ZOOKEEPER-4712 (mended since): when its leader goes, what a 3.8.0 server has begun in that role goes on beside the
//! election. It may tell the zxid of its tree though its log is not that far; what was on its way to the log is dropped,
//! and what comes after the election is logged behind the hole, so that its tree lacks those transactions once it has been
//! started again. Or its tree goes on while it is looking for a leader, and a digest does not fit.
//!
//! 3.8.0 alone, too: a server that had the same tree as the others, and was killed, lacks a znode of it when it has been started
//! again; the digests in its own log do not fit from the very next transaction on, before it has heard of anybody.
//!
//! 3.8.0 alone, too: ZOOKEEPER-4394 (mended since): a follower that a ZooKeeper leader brings up to date falls over a commit that
//! it does not expect, begins again, and logs a second time what it had logged; its files then have transactions out of
//! order, and it comes back from them with znodes that were deleted, or without what it has acknowledged since.
//!
//! 3.8.0 alone, too: ZOOKEEPER-4537 (mended since): a server with one client may leave that one's requests without an answer
//! until somebody else's transaction is committed, such as another session's beginning. Who reads its tree then asks again.
//!
//! A run in which one of the others happens says nothing of ostler: it is counted, shown, and done again, so many times at most.
//!
//! Runs on: the test's thread.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;

use super::cluster::{Cluster, Kind};
use crate::support::servers::ostler;

/// The zxid behind a word in a line.
pub fn zxid_behind(line: &str, word: &str) -> Option<u64> {
    let rest = line.split_once(word)?.1;
    let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
    u64::from_str_radix(&rest[..end], 16).ok()
}

/// What a server says of its history at elections, as far as it has not taken it back since.
fn told(log: &str) -> BTreeSet<u64> {
    let mut told = BTreeSet::new();
    for line in log.lines() {
        if let Some(zxid) = zxid_behind(line, "proposed zxid=0x").filter(|zxid| zxid & 0xffff_ffff != 0) {
            told.insert(zxid);
        } else if let Some(end) = zxid_behind(line, "Truncating log to get in sync with the leader 0x") {
            told.retain(|zxid| *zxid <= end);
        }
    }
    told
}

/// All that its files have: zxids of records, and those that snapshots are named by.
fn on_disk(cluster: &Cluster, id: u8) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let folders = [cluster.data(id), cluster.data_log(id)].map(|folder| folder.join("version-2"));
    for entry in folders.iter().flat_map(std::fs::read_dir).flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        found.extend(zxid_behind(&name, "snapshot."));
        if name.starts_with("log.") {
            let output = Command::new(ostler()).arg("inspect").arg(entry.path()).output().expect("ostler runs");
            let text = String::from_utf8_lossy(&output.stdout);
            found.extend(text.lines().filter_map(|line| zxid_behind(line, " zxid 0x")));
        }
    }
    found
}

/// The first digest that did not fit, if the server had no leader then: the zxid as it was written.
fn applied_without_a_leader(log: &str) -> Option<&str> {
    let mut state = "";
    for line in log.lines() {
        if let Some((_, new)) = line.split_once("Peer state changed: ") {
            state = new;
        } else if line.contains("Disconnected from leader") {
            // It says that it looks for another one when it is through with what it does now.
            state = "looking";
        } else if let Some((_, zxid)) = line.split_once("Digests are not matching. Value is Zxid. Value:") {
            return (state == "looking").then_some(zxid);
        }
    }
    None
}

/// Whether a server has counted a digest that did not fit already while it loaded its files. `log`: since its start.
pub fn counted_while_loading(log: &str) -> bool {
    let mut lines = log.lines().take_while(|line| !line.contains("Peer state changed: "));
    lines.any(|line| line.contains("Digests are not matching"))
}

/// The creation that a server has lost, if what was said of two trees that differ names it, and the server's own log did not
/// fit, while it was being loaded, from the transaction right behind it on. `log`: since its start.
fn lost_while_loading(log: &str, differ: &str) -> Option<u64> {
    let decimal = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse::<u64>().ok()
    };
    let mut lines = log.lines().take_while(|line| !line.contains("Peer state changed: "));
    let first =
        lines.find_map(|line| decimal(line.split_once("Digests are not matching. Value is Zxid. Value:")?.1))?;
    let of_one = differ.lines().filter(|line| line.ends_with(" / None") || line.contains(": None / Some("));
    let mut created = of_one.filter_map(|line| decimal(line.split_once("czxid: ")?.1));
    created.find(|created| created + 1 == first)
}

/// Whether a server has fallen over a commit of one of these leaders, by their quorum ports, and then logged out of order.
fn logged_twice(log: &str, leaders: &[u16]) -> bool {
    let mut lines = log.lines();
    while lines.by_ref().any(|line| line.contains("NullPointerException") && line.contains("\"pif\" is null")) {
        let left = lines.by_ref().find(|line| line.contains("Disconnected from leader (with address: "));
        if left.is_some_and(|line| leaders.iter().any(|port| line.contains(&format!(":{port}). Was connected")))) {
            return lines.any(|line| line.contains("FileTxnLog - Current zxid ") && line.contains(" is <= "));
        }
    }
    false
}

/// What a 3.8.0 server has done by those faults, in words. `failure`: what the test says.
pub fn own_fault(cluster: &Cluster, failure: &str) -> Option<String> {
    let old = || cluster.ids().filter(|id| cluster.kind(*id) == Kind::Java380);
    let ports: Vec<u16> = old().map(|id| cluster.member(id).quorum_port).collect();
    old().find_map(|id| {
        // Also if its data has been taken away since: others may have followed it before.
        if logged_twice(&cluster.whole_log(id), &ports) {
            return Some(format!("3.8.0 as server {id} fell over a commit of its own kind and logged out of order"));
        }
        let log = cluster.log_since_wiped(id);
        if let Some(zxid) = applied_without_a_leader(&log) {
            return Some(format!("3.8.0 as server {id} applied {zxid} while it was looking for a leader"));
        }
        if let Some(zxid) = lost_while_loading(&cluster.log(id), failure) {
            return Some(format!("3.8.0 as server {id} lacks {zxid:#x} since its start, and its own digests say so"));
        }
        let on_disk = on_disk(cluster, id);
        let zxid = told(&log).into_iter().find(|zxid| !on_disk.contains(zxid))?;
        let next = on_disk.range(zxid..).next()?;
        Some(format!("3.8.0 as server {id} told {zxid:#x} at an election; its files go on at {next:#x} without that"))
    })
}

/// How often a run is done again because of them.
const REPEATS: usize = 4;

/// Runs a test with a cluster, and once more if it fails by one of them.
pub fn judged(what: &str, begin: impl Fn() -> Cluster, run: impl Fn(&mut Cluster)) {
    for _ in 0..=REPEATS {
        println!("--- {what}");
        let start = ostler::clock::now();
        let mut cluster = begin();
        let Err(failure) = catch_unwind(AssertUnwindSafe(|| run(&mut cluster))) else {
            return println!("{:.0?}", ostler::clock::now().since(start));
        };
        let text = failure.downcast_ref::<String>().map_or("", String::as_str);
        let Some(why) = own_fault(&cluster, text) else {
            cluster.show();
            resume_unwind(failure);
        };
        println!("not judged, a fault of ZooKeeper's own: {why}");
    }
    panic!("{what}: not judged even once");
}

#[test]
fn only_what_was_told_and_not_taken_back_counts() {
    let log = "x New election. My id = 1, proposed zxid=0x4000000e4\n\
        x New election. My id = 1, proposed zxid=0x500000000\n\
        x New election. My id = 1, proposed zxid=0x50000000d\n\
        x Truncating log to get in sync with the leader 0x500000007\n\
        x New election. My id =  1, proposed zxid=0x600000001\n";
    assert_eq!(told(log), BTreeSet::from([0x4_0000_00e4, 0x6_0000_0001]));
}

#[test]
fn only_the_creation_right_before_the_first_digest_that_did_not_fit_is_lost_while_loading() {
    let misfit = "x Digests are not matching. Value is Zxid. Value:12884901890\n";
    let log = format!("x Reading snapshot\n{misfit}x Peer state changed: looking\n");
    let differ =
        |czxid: u64, after: &str| format!("servers 1 and 2 differ:\n/a/b: Some(Node {{ czxid: {czxid}, x }}){after}");
    assert_eq!(lost_while_loading(&log, &differ(12_884_901_889, " / None")), Some(12_884_901_889));
    assert_eq!(lost_while_loading(&log, &differ(12_884_901_888, " / None")), None);
    assert_eq!(lost_while_loading(&log, &differ(12_884_901_889, " / Some(Node { czxid: 1 })")), None);
    let later = format!("x Peer state changed: looking\n{misfit}");
    assert_eq!(lost_while_loading(&later, &differ(12_884_901_889, " / None")), None);
}

#[test]
fn only_what_a_zookeeper_leader_had_it_log_twice_counts() {
    let fell = "java.lang.NullPointerException: Cannot read field \"hdr\" because \"pif\" is null\n";
    let left =
        "x Disconnected from leader (with address: /127.0.0.1:21022). Was connected for 34ms. Sync state: false\n";
    let again = "x FileTxnLog - Current zxid 8589934593 is <= 8589934835 for multi\n";
    let log = [fell, left, again].concat();
    assert!(logged_twice(&log, &[21_019, 21_022]));
    // The leader was another.
    assert!(!logged_twice(&log, &[21_019]));
    assert!(!logged_twice(&[again, fell, left].concat(), &[21_022]));
    assert!(!logged_twice(&[left, again].concat(), &[21_022]));
}

#[test]
fn only_a_digest_that_did_not_fit_without_a_leader_counts() {
    let looking = "x Peer state changed: looking\n";
    let follows = "x Peer state changed: following - broadcast\n";
    let left =
        "x Disconnected from leader (with address: /127.0.0.1:27703). Was connected for 724ms. Sync state: true\n";
    let digest = "x Message:Digests are not matching. Value is Zxid. Value:17179869522\n";
    for (log, found) in [
        ([looking, digest, follows].concat(), Some("17179869522")),
        ([follows, left, digest, looking].concat(), Some("17179869522")),
        ([looking, follows, digest].concat(), None),
        ([follows, digest, looking, digest].concat(), None),
    ] {
        assert_eq!(applied_without_a_leader(&log), found, "{log}");
    }
}

#[test]
fn only_what_was_counted_before_anybody_was_followed_is_of_the_loading() {
    let digest = "x Message:Digests are not matching. Value is Zxid. Value:4294967455\n";
    let follows = "x Peer state changed: following\n";
    assert!(counted_while_loading(&[digest, follows].concat()));
    assert!(!counted_while_loading(&[follows, digest].concat()));
}
