//! The tree against a recording of ZooKeeper 3.9.5: the log of a few hundred random requests of three kazoo clients
//! (creates of all kinds, sets, deletes, ACLs, multis that fail and that don't, closed sessions, quotas), with the
//! server's digest in it after each transaction; and every znode as the server showed it at the end.

use ostler::ids::{OwnerRules, SessionId};
use ostler::tree::{Applied, Tree, TreeOptions};
use ostler::wire::txn::read_txn;

/// A file of ZooKeeper's log: a header of 16 bytes, then checksum, length, record, and the letter B.
const LOG: &[u8] = include_bytes!("golden/zookeeper-3.9.5.log");
/// A line a znode: path, data in hexadecimal, and the Stat's fields in the order of the wire.
const TREE: &str = include_str!("golden/zookeeper-3.9.5.tree");

#[test]
fn a_recorded_log_gives_the_recorded_digests_and_znodes() {
    let owner_rules = OwnerRules { extended_types: true, emulate_353_ttl: false };
    let mut tree = Tree::new(TreeOptions { owner_rules, digest: true });
    let mut digests = 0;
    let mut rest = &LOG[16..];
    while let [_, _, _, _, _, _, _, _, a, b, c, d, behind @ ..] = rest {
        let (record, after) = behind.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        rest = &after[1..];
        let (header, txn, digest) = read_txn(record).expect("a sound record");
        let text = format!("{} {txn:?}", header.zxid);
        tree.apply(&header, txn, &mut Applied::default());
        assert_eq!(tree.zxid(), header.zxid);
        if let Some(digest) = digest {
            assert_eq!(digest.tree, tree.digest(), "{text}");
            digests += 1;
        }
    }
    assert!(digests > 100, "{digests}");

    let mut size = 1;
    for line in TREE.lines() {
        let (path, rest) = line.split_once('|').expect("a path");
        let (data, stat) = rest.split_once('|').expect("data");
        let node = tree.lookup(path).unwrap_or_else(|| panic!("{path} is missing"));
        let hex: String = node.data().expect("kazoo writes no null").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, data, "{path}");
        let s = node.stat();
        let numbers = [
            s.czxid.to_wire(),
            s.mzxid.to_wire(),
            s.ctime,
            s.mtime,
            s.version.into(),
            s.cversion.into(),
            s.aversion.into(),
            s.ephemeral_owner,
            s.data_length.into(),
            s.num_children.into(),
            s.pzxid.to_wire(),
        ];
        assert_eq!(numbers.map(|number| number.to_string()).join(","), stat, "{path}");
        if s.ephemeral_owner != 0 {
            assert!(tree.ephemerals(SessionId(s.ephemeral_owner)).any(|other| other == path));
        }
        size += 1;
    }
    assert_eq!(tree.node_count(), size, "and no znode more");
}
