//! A fault of ZooKeeper 3.8.0's own that loses what it has told others, recognised by what the server itself has written.
//!
//! ZOOKEEPER-4712 (mended since): when its leader goes, a 3.8.0 server tells the zxid of its tree at the election, though its
//! log is not that far; what was on its way to the log is dropped, and what comes after the election is logged behind
//! the hole. Once it has been started again, its tree lacks those transactions, and nobody notices but the digests. A run in
//! which that happens says nothing of ostler: it is counted, shown, and done again.
//!
//! Runs on: the test's thread.

use std::collections::BTreeSet;
use std::process::Command;

use super::cluster::{Cluster, Kind};
use crate::support::servers::ostler;

/// The zxid behind a word in a line.
fn zxid_behind(line: &str, word: &str) -> Option<u64> {
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

/// A 3.8.0 server whose files go on behind a transaction that it told others it had, without it; in words.
pub fn forgotten(cluster: &Cluster) -> Option<String> {
    let old = cluster.ids().filter(|id| cluster.kind(*id) == Kind::Java380);
    old.into_iter().find_map(|id| {
        let on_disk = on_disk(cluster, id);
        let zxid = told(&cluster.log_since_wiped(id)).into_iter().find(|zxid| !on_disk.contains(zxid))?;
        let next = on_disk.range(zxid..).next()?;
        Some(format!("3.8.0 as server {id} told {zxid:#x} at an election; its files go on at {next:#x} without that"))
    })
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
