//! What a start makes of digests: of other versions, behind a snapshot that is fuzzy, and of a tree that is another one.

use super::*;
use crate::snapshot::SnapshotWriter;
use crate::snapshot::zookeeper::{DecodeLimits, Decoder, write_tree};
use crate::storage::Install;
use crate::tree::Progress;
use crate::wire::OpCode;
use crate::wire::txn::{Acl, NodeKind, TxnHeader, write_txn};

const OPTIONS: TreeOptions =
    TreeOptions { owner_rules: crate::ids::OwnerRules { extended_types: true, emulate_353_ttl: false }, digest: true };

#[test]
fn only_a_digest_of_the_version_that_is_computed_here_says_anything() {
    let mut tree = Tree::new(TreeOptions::default());
    let mut sessions = SessionTable::new(1000, 0, clock::now());
    for (zxid, version, says) in [(1, 1, None), (2, TxnDigest::VERSION, Some(77)), (3, 3, None)] {
        let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: Zxid(zxid), time: 0 };
        let mut record = Vec::new();
        let digest = Some(TxnDigest { version, tree: 77 });
        write_txn(&header, &Txn::CreateSession { timeout_ms: 1000 }, digest, &mut record);
        let said = replay(Zxid(zxid), &record, &mut tree, &mut sessions, &mut Applied::default(), &mut Vec::new());
        assert_eq!(said, Ok(says), "version {version}");
    }
}

fn txn(zxid: u64) -> Txn {
    let create = |path: &str| Txn::Create {
        op: OpCode::Create,
        path: path.into(),
        data: None,
        acl: Acl::open().clone(),
        kind: NodeKind::Persistent,
        parent_cversion: -1,
    };
    let set = |path: &str, version| Txn::SetData {
        op: OpCode::SetData,
        path: path.into(),
        data: Some(zxid.to_be_bytes().to_vec()),
        version,
    };
    match zxid {
        1 => create("/a"),
        2 => create("/b"),
        5 => create("/c"),
        6 => set("/a", 1),
        8 => set("/c", 1),
        _ => set("/b", zxid as i32 - 2),
    }
}

fn apply(tree: &mut Tree, zxid: u64, txn: Txn) {
    let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: Zxid(zxid), time: 0 };
    tree.apply(&header, txn, &mut Applied::default());
}

/// Records 4 up to `last`; those of `wrong` have a digest that no tree has.
fn records(last: u64, wrong: impl Fn(u64) -> bool) -> Batch {
    let (mut tree, mut batch) = (Tree::new(OPTIONS), Batch::new());
    for zxid in 1..=last {
        apply(&mut tree, zxid, txn(zxid));
        let digest = TxnDigest { version: TxnDigest::VERSION, tree: tree.digest() ^ u64::from(wrong(zxid)) };
        let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: Zxid(zxid), time: 0 };
        if zxid > 3 {
            batch.push_with(Zxid(zxid), |bytes| write_txn(&header, &txn(zxid), Some(digest), bytes));
        }
    }
    batch
}

/// A leader's tree of which it says that it is of transaction 3, and that has `ahead` in it already.
fn sent(ahead: Option<(u64, Txn)>) -> Tree {
    let mut tree = Tree::new(OPTIONS);
    (1..=3).for_each(|zxid| apply(&mut tree, zxid, txn(zxid)));
    if let Some((zxid, txn)) = ahead {
        apply(&mut tree, zxid, txn);
    }
    let mut bytes = Vec::new();
    write_tree(&tree, &[], &mut bytes).unwrap();
    let mut decoder = Decoder::new(OPTIONS, DecodeLimits::default());
    decoder.push(&bytes).unwrap();
    decoder.finish(Zxid(3)).unwrap().tree
}

/// That of transaction 6: what 4 and 5 leave is another tree than the log says, and from 6 on the same.
fn fuzzy() -> Tree {
    sent(Some((6, txn(6))))
}

/// One that no transaction of the log makes right: a znode more.
fn another() -> Tree {
    let Txn::Create { op, data, acl, kind, parent_cversion, .. } = txn(1) else { unreachable!() };
    sent(Some((3, Txn::Create { op, path: "/more".into(), data, acl, kind, parent_cversion })))
}

struct Files {
    _folder: tempfile::TempDir,
    dirs: Dirs,
}

/// A directory with this snapshot and these records behind it.
fn files(tree: &Tree, records: &Batch) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let dirs = Dirs { snapshots: folder.path().to_owned(), log: folder.path().to_owned() };
    write_snapshot(&dirs, tree);
    let mut log = Log::create(RealDisk, &dirs.log, tree.zxid(), Sizes::default()).unwrap();
    append(&mut log, records);
    Files { _folder: folder, dirs }
}

fn append(log: &mut Log<RealDisk>, records: &Batch) {
    if !records.is_empty() {
        log.append(records).unwrap();
        log.sync().unwrap();
    }
}

fn write_snapshot(dirs: &Dirs, tree: &Tree) {
    let mut writer = SnapshotWriter::begin(RealDisk, &dirs.snapshots, tree.begin_freeze(), &[]).unwrap();
    while writer.take(tree) != Progress::Done {
        writer.store().unwrap();
    }
    writer.store().unwrap();
    writer.finish().unwrap();
}

fn alone(files: &Files) -> Result<Recovered, Fatal> {
    recover_alone(&RealDisk, &files.dirs, OPTIONS, 2000)
}

fn member(files: &Files) -> Part {
    recover_member(&RealDisk, &files.dirs, OPTIONS, 2000).unwrap().part.unwrap()
}

#[track_caller]
fn assert_blames(files: &Files, blamed: u64) {
    match alone(files) {
        Err(Fatal::LogRecord { zxid, .. }) => assert_eq!(zxid, Zxid(blamed)),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it started"),
    }
    let quarantine = member(files).quarantine.expect("set aside");
    assert_eq!(quarantine.good, Zxid(blamed - 1));
}

#[test]
fn a_fuzzy_snapshot_is_right_when_the_log_has_made_it_so() {
    let right = records(8, |_| false);
    for last in [6, 8] {
        let files = files(&fuzzy(), &records(last, |_| false));
        assert_eq!(alone(&files).unwrap().tree.zxid(), Zxid(last));
        assert!(member(&files).quarantine.is_none());
    }
    let files = files(&sent(None), &right);
    assert!(alone(&files).is_ok() && member(&files).quarantine.is_none());
}

#[test]
fn the_first_record_is_blamed_from_which_on_the_tree_stayed_another() {
    assert_blames(&files(&another(), &records(8, |_| false)), 4);
    assert_blames(&files(&sent(None), &records(8, |zxid| zxid == 5 || zxid > 6)), 7);
    assert_blames(&files(&fuzzy(), &records(8, |zxid| zxid > 6)), 7);
}

/// A member that a leader has given this state, and that has logged these records since.
fn installed(tree: &Tree, records: &Batch) -> Files {
    let files = files(&Tree::new(OPTIONS), &Batch::new());
    let mut log = recover_member(&RealDisk, &files.dirs, OPTIONS, 2000).unwrap().log;
    let install = Install::begin(RealDisk, &files.dirs, &log, tree.zxid()).unwrap();
    write_snapshot(&files.dirs, tree);
    install.commit(&mut log).unwrap();
    append(&mut log, records);
    files
}

#[test]
fn a_member_that_lacks_what_belongs_to_a_fuzzy_snapshot_is_not_damaged() {
    for last in [3, 5] {
        let files = installed(&fuzzy(), &records(last, |_| false));
        for _ in 0..2 {
            assert!(matches!(alone(&files), Err(Fatal::Unfinished { .. })), "it is the state of no transaction");
            let recovered = recover_member(&RealDisk, &files.dirs, OPTIONS, 2000).unwrap();
            let part = recovered.part.expect("a member");
            assert!(recovered.fuzzy && part.quarantine.is_none(), "{last}");
        }
        // The leader lets it serve.
        storage::settle(&RealDisk, &files.dirs).unwrap();
        assert_eq!(alone(&files).is_ok(), last == 3);
        assert_eq!(member(&files).quarantine.map(|quarantine| quarantine.good), (last == 5).then_some(Zxid(3)));
    }
}

#[test]
fn a_digest_that_is_right_settles_whether_a_snapshot_is_fuzzy() {
    let right = |count| records(count, |_| false);
    for (tree, last) in [(sent(None), 4), (fuzzy(), 6), (fuzzy(), 8)] {
        let files = installed(&tree, &right(last));
        assert!(storage::may_be_fuzzy(&RealDisk, &files.dirs, Zxid(3)).unwrap());
        assert!(!recover_member(&RealDisk, &files.dirs, OPTIONS, 2000).unwrap().fuzzy);
        assert!(!storage::may_be_fuzzy(&RealDisk, &files.dirs, Zxid(3)).unwrap());
        assert!(alone(&installed(&tree, &right(last))).is_ok());
    }
    assert_blames(&installed(&fuzzy(), &records(8, |zxid| zxid > 6)), 7);
}
