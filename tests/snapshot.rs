//! Snapshots on a disk that fails: fault model S19 to S24 and S26, and exactness while transactions go on.

#[path = "support/txns.rs"]
mod txns;

use ostler::disk::Disk;
use ostler::disk::sim::{Keep, SimDisk};
use ostler::fatal::Fatal;
use ostler::ids::{OwnerRules, SessionId, Zxid};
use ostler::random::Rng;
use ostler::snapshot::zookeeper::{DecodeLimits, Decoder, stream_snap};
use ostler::snapshot::{Keeper, SessionRecord, SnapshotInfo, SnapshotWriter, load, load_newest, snapshot_path, verify};
use ostler::tree::{Applied, Progress, Tree, TreeOptions};
use ostler::wire::OpCode;
use ostler::wire::txn::{Txn, TxnHeader};
use std::path::Path;
use txns::random_txn;

const DIR: &str = "/data";
const SESSIONS: [SessionRecord; 2] = [(SessionId(0x1_0000_0001), 4000), (SessionId(-5), 30_000)];

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn options() -> TreeOptions {
    TreeOptions { owner_rules: OwnerRules { extended_types: true, emulate_353_ttl: false }, digest: true }
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(dir()).unwrap();
    disk
}

fn snapshot(disk: &SimDisk, tree: &Tree, sessions: &[SessionRecord]) -> Result<SnapshotInfo, Fatal> {
    let mut writer = SnapshotWriter::begin(disk.clone(), dir(), tree.begin_freeze(), sessions).inspect_err(|_| {
        tree.end_freeze();
    })?;
    // Small ones, so that there are several writes.
    writer = writer.slices_of(500);
    loop {
        let progress = writer.take(tree);
        if let Err(fatal) = writer.store() {
            writer.abandon(tree).discard();
            return Err(fatal);
        }
        if progress == Progress::Done {
            return writer.finish();
        }
    }
}

const QUOTAS: [&str; 3] =
    ["/zookeeper/quota/p1", "/zookeeper/quota/p1/zookeeper_limits", "/zookeeper/quota/p1/zookeeper_stats"];

fn make_txn(rng: &mut Rng, tree: &Tree) -> (TxnHeader, Txn) {
    let zxid = Zxid(tree.zxid().0 + 1);
    let session = SESSIONS[rng.below(2) as usize].0;
    let header = TxnHeader { session, cxid: 0, zxid, time: 7 * zxid.0 as i64 };
    (header, random_txn(rng, tree, session, &QUOTAS))
}

fn grow(tree: &mut Tree, rng: &mut Rng, count: usize, log: &mut Vec<(TxnHeader, Txn)>) {
    for _ in 0..count {
        let (header, txn) = make_txn(rng, tree);
        tree.apply(&header, txn.clone(), &mut Applied::default());
        log.push((header, txn));
    }
}

fn grown(seed: u64, count: usize) -> Tree {
    let mut tree = Tree::new(options());
    grow(&mut tree, &mut Rng::new(seed), count, &mut Vec::new());
    tree
}

/// Everything that can be seen, znode by znode.
fn assert_same(a: &Tree, b: &Tree) {
    assert_eq!((a.zxid(), a.digest(), a.node_count()), (b.zxid(), b.digest(), b.node_count()));
    assert_eq!(a.ephemeral_count(), b.ephemeral_count());
    let mut left = vec!["/".to_owned()];
    while let Some(path) = left.pop() {
        let (x, y) = (a.lookup(&path).unwrap(), b.lookup(&path).unwrap());
        assert_eq!(x.numbers(), y.numbers(), "{path}");
        assert_eq!((x.stat(), x.data(), x.acl()), (y.stat(), y.data(), y.acl()), "{path}");
        assert_eq!(a.all_children_number(&path), b.all_children_number(&path));
        assert_eq!(a.quota_of(&path), b.quota_of(&path));
        left.extend(x.children().map(|name| format!("{}/{name}", path.trim_end_matches('/'))));
    }
}

/// "What must be shown" 5, with every interleaving drawn from a seed.
#[test]
fn a_snapshot_under_load_is_the_log_replayed_up_to_its_zxid() {
    for seed in 0..150 {
        let mut rng = Rng::new(seed);
        let mut tree = Tree::new(options());
        let mut log = Vec::new();
        grow(&mut tree, &mut rng, 300, &mut log);
        let disk = disk();
        let frozen = tree.begin_freeze();
        let writer = SnapshotWriter::begin(disk.clone(), dir(), frozen, &SESSIONS).unwrap();
        let mut writer = writer.slices_of(1 + rng.below(1500) as usize);
        let per_slice = rng.below(60) as usize;
        loop {
            grow(&mut tree, &mut rng, per_slice, &mut log);
            let progress = writer.take(&tree);
            grow(&mut tree, &mut rng, per_slice, &mut log);
            writer.store().unwrap();
            if progress == Progress::Done {
                break;
            }
        }
        grow(&mut tree, &mut rng, 20, &mut log);
        let info = writer.finish().unwrap();
        let path = snapshot_path(dir(), frozen.zxid);
        let loaded = load(&disk, &path, options(), 2).unwrap();
        assert_eq!((loaded.info, &loaded.sessions[..]), (info, &SESSIONS[..]));
        assert_eq!(verify(&disk, &path).unwrap(), info);

        let mut replayed = Tree::new(options());
        let up_to = log.iter().position(|(header, _)| header.zxid > frozen.zxid).unwrap_or(log.len());
        for (header, txn) in &log[..up_to] {
            replayed.apply(header, txn.clone(), &mut Applied::default());
        }
        assert_same(&loaded.tree, &replayed);
        let mut sent = Vec::new();
        assert_eq!(stream_snap(&disk, &path, &mut sent).unwrap(), sent.len() as u64);
        let mut decoder = Decoder::of_snap(options(), DecodeLimits::default());
        assert_eq!(decoder.push(&sent).unwrap(), sent.len());
        let received = decoder.finish(frozen.zxid).unwrap();
        assert_same(&received.tree, &replayed);
        assert_eq!((received.missing_acls, received.sessions.len()), (0, SESSIONS.len()));
        assert_eq!(loaded.tree.approximate_data_size() > 0, replayed.approximate_data_size() > 0);
        let elsewhere = self::disk();
        let other = snapshot(&elsewhere, &replayed, &SESSIONS).unwrap();
        assert_eq!(other.content_digest, info.content_digest, "whatever the slots and the order");
        let again = snapshot(&elsewhere, &loaded.tree, &[SESSIONS[1], SESSIONS[0]]).unwrap();
        assert_eq!(again.content_digest, info.content_digest);

        let mut continued = loaded.tree;
        for (header, txn) in &log[up_to..] {
            continued.apply(header, txn.clone(), &mut Applied::default());
        }
        assert_same(&continued, &tree);
    }
}

#[test]
fn the_content_digest_sees_every_part() {
    let tree = grown(3, 200);
    let disk = disk();
    let base = snapshot(&disk, &tree, &SESSIONS).unwrap().content_digest;
    assert_ne!(snapshot(&disk, &tree, &SESSIONS[..1]).unwrap().content_digest, base, "a session");
    for change in ["acl", "data"] {
        let mut other = grown(3, 200);
        let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: other.zxid(), time: 0 };
        let path = "/zookeeper/quota".to_owned();
        let txn = match change {
            "acl" => Txn::SetAcl { path, acl: vec![].into(), version: 0 },
            _ => Txn::SetData { op: OpCode::SetData, path, data: Some(b"x".to_vec()), version: 0 },
        };
        other.apply(&header, txn, &mut Applied::default());
        assert_eq!(other.digest(), tree.digest(), "which ZooKeeper's digest doesn't see");
        assert_ne!(snapshot(&disk, &other, &SESSIONS).unwrap().content_digest, base, "{change}");
    }
}

/// S20.
#[test]
fn every_flipped_bit_and_every_truncation_is_found_with_its_place() {
    let tree = grown(1, 12);
    let disk = disk();
    snapshot(&disk, &tree, &SESSIONS).unwrap();
    let path = snapshot_path(dir(), tree.zxid());
    let sound = disk.contents(&path).unwrap();
    let refused = |bytes: Vec<u8>, what: String| {
        let len = bytes.len() as u64;
        disk.put(&path, bytes);
        for result in [load(&disk, &path, options(), 2).map(|loaded| loaded.info), verify(&disk, &path)] {
            match result {
                Err(Fatal::SnapshotCorrupt { file, offset, problem }) => {
                    assert_eq!(file, path);
                    assert!(offset <= len && !problem.is_empty(), "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
        }
        assert!(stream_snap(&disk, &path, &mut Vec::new()).is_err(), "{what}");
    };
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            refused(bytes, format!("bit {bit} of byte {at}"));
        }
        refused(sound[..at].to_vec(), format!("cut at {at}"));
    }
    refused([&sound[..], &[0; 16]].concat(), "zeros behind the end".into());
    refused([&sound[..], &sound[..]].concat(), "twice".into());
    refused(vec![0; sound.len()], "zeros".into());
    disk.put(&path, sound);
    assert!(load(&disk, &path, options(), 2).is_ok());
}

#[test]
fn a_block_of_another_snapshot_and_a_wrong_name_are_found() {
    let disk = disk();
    let mut tree = grown(1, 30);
    snapshot(&disk, &tree, &SESSIONS).unwrap();
    let older = tree.zxid();
    let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: Zxid(older.0 + 1), time: 0 };
    tree.apply(&header, Txn::Error { code: -1 }, &mut Applied::default());
    snapshot(&disk, &tree, &SESSIONS).unwrap();
    let (old, new) = (snapshot_path(dir(), older), snapshot_path(dir(), tree.zxid()));
    let (one, two) = (disk.contents(&old).unwrap(), disk.contents(&new).unwrap());
    assert_eq!(one.len(), two.len());
    disk.put(&new, one.clone());
    assert!(matches!(load(&disk, &new, options(), 1), Err(Fatal::SnapshotCorrupt { .. })), "a copy under a wrong name");
    // The same block with the same content, but for its place in history.
    let mut mixed = two.clone();
    let body = 8 + 16 + 32;
    mixed[body..body + 16 + 24].copy_from_slice(&one[body..body + 16 + 24]);
    disk.put(&new, mixed);
    assert!(matches!(load(&disk, &new, options(), 1), Err(Fatal::SnapshotCorrupt { .. })));
}

/// S19, S20, S21.
#[test]
fn damage_falls_back_to_the_older_snapshot_and_never_to_an_empty_tree() {
    let disk = disk();
    let none = load_newest(&disk, dir(), options(), 1).unwrap();
    assert!(none.loaded.is_none() && none.damaged.is_empty());
    let (old, new) = (grown(1, 50), grown(1, 90));
    snapshot(&disk, &old, &SESSIONS).unwrap();
    snapshot(&disk, &new, &[]).unwrap();
    disk.put(&dir().join("snap.tmp"), b"half of one".to_vec());
    disk.put(&dir().join("snapshot.7"), b"someone else's".to_vec());
    let newest = load_newest(&disk, dir(), options(), 1).unwrap();
    assert_same(&newest.loaded.unwrap().tree, &new);
    assert!(newest.damaged.is_empty());

    let unreadable = disk.after_crash(Keep::Everything);
    unreadable.break_sector(&snapshot_path(dir(), new.zxid()), 1);
    disk.damage(&snapshot_path(dir(), new.zxid()), |bytes| bytes[300] ^= 4);
    for disk in [&disk, &unreadable] {
        let newest = load_newest(disk, dir(), options(), 1).unwrap();
        let loaded = newest.loaded.unwrap();
        assert_same(&loaded.tree, &old);
        assert_eq!(loaded.sessions, SESSIONS);
        assert_eq!(newest.damaged.len(), 1);
    }
    disk.damage(&snapshot_path(dir(), old.zxid()), |bytes| bytes.clear());
    assert!(matches!(load_newest(&disk, dir(), options(), 1), Err(Fatal::SnapshotCorrupt { .. })));
}

const CRASHES: [Keep; 7] =
    [Keep::Nothing, Keep::Everything, Keep::Bytes, Keep::Names, Keep::Some(1), Keep::Some(2), Keep::Some(3)];

/// S24.
#[test]
fn a_crash_at_any_step_leaves_the_old_snapshot_or_the_new_one_whole() {
    let (old, new) = (grown(5, 40), grown(5, 400));
    let mut stops = 0;
    let operations = {
        let disk = disk();
        snapshot(&disk, &old, &SESSIONS).unwrap();
        let before = disk.operations();
        snapshot(&disk, &new, &[]).unwrap();
        disk.operations() - before
    };
    for stop in 0..=operations {
        let disk = disk();
        snapshot(&disk, &old, &SESSIONS).unwrap();
        disk.stop_after(disk.operations() + stop);
        let result = snapshot(&disk, &new, &[]);
        assert_eq!(result.is_ok(), stop == operations);
        for keep in CRASHES {
            let found = disk.after_crash(keep);
            let first = load_newest(&found, dir(), options(), 1).unwrap();
            assert!(first.damaged.is_empty(), "stop {stop}, {keep:?}: {:?}", first.damaged);
            let tree = first.loaded.unwrap().tree;
            assert_same(&tree, if tree.zxid() == new.zxid() { &new } else { &old });
            assert!(result.is_err() || tree.zxid() == new.zxid(), "finished is durable");
            // Recovery may crash too, and the next snapshot is not hindered by what lies around.
            let again = load_newest(&found.after_crash(keep), dir(), options(), 1).unwrap().loaded.unwrap();
            assert_eq!(again.tree.zxid(), tree.zxid());
            snapshot(&found, &new, &[]).unwrap();
            assert_same(&load(&found, &snapshot_path(dir(), new.zxid()), options(), 1).unwrap().tree, &new);
            stops += 1;
        }
    }
    assert!(operations > 6 && stops > 50, "{operations} operations");
}

/// S26.
#[test]
fn a_crash_at_any_step_of_a_purge_leaves_enough_sound_snapshots() {
    let trees: Vec<Tree> = (1..=5).map(|count| grown(9, count * 40)).collect();
    let prepared = || {
        let disk = disk();
        for tree in &trees {
            snapshot(&disk, tree, &SESSIONS).unwrap();
        }
        disk
    };
    let full = prepared();
    let before = full.operations();
    let kept = Keeper::new(full.clone(), dir()).purge(2).unwrap();
    assert_eq!((kept.oldest, kept.removed, kept.damaged.len()), (Some(trees[3].zxid()), 3, 0));
    let operations = full.operations() - before;
    assert_eq!(ostler::snapshot::list(&full, dir()).unwrap(), [trees[4].zxid(), trees[3].zxid()]);
    for stop in 0..=operations {
        let disk = prepared();
        disk.stop_after(disk.operations() + stop);
        let _ = Keeper::new(disk.clone(), dir()).purge(2);
        for keep in CRASHES {
            let found = disk.after_crash(keep);
            for tree in &trees[3..] {
                assert!(verify(&found, &snapshot_path(dir(), tree.zxid())).is_ok(), "stop {stop}, {keep:?}");
            }
            let kept = Keeper::new(found.clone(), dir()).purge(2).unwrap();
            assert_eq!(kept.oldest, Some(trees[3].zxid()));
        }
    }
}

#[test]
fn a_purge_counts_sound_snapshots_and_not_names() {
    let trees: Vec<Tree> = (1..=5).map(|count| grown(9, count * 40)).collect();
    let disk = disk();
    for tree in &trees {
        snapshot(&disk, tree, &SESSIONS).unwrap();
    }
    for tree in &trees[2..] {
        disk.damage(&snapshot_path(dir(), tree.zxid()), |bytes| bytes[200] ^= 1);
    }
    let mut keeper = Keeper::new(disk.clone(), dir());
    let kept = keeper.purge(3).unwrap();
    assert_eq!((kept.oldest, kept.removed, kept.damaged.len()), (None, 0, 3), "two are too few: nothing goes");
    let kept = keeper.purge(1).unwrap();
    assert_eq!((kept.oldest, kept.removed, kept.damaged.len()), (Some(trees[1].zxid()), 1, 3));
    assert_same(&load_newest(&disk, dir(), options(), 1).unwrap().loaded.unwrap().tree, &trees[1]);
}

#[test]
fn a_snapshot_that_was_sound_once_counts_no_more_when_it_is_doubted() {
    let trees: Vec<Tree> = (1..=4).map(|count| grown(9, count * 40)).collect();
    let disk = disk();
    let mut keeper = Keeper::new(disk.clone(), dir());
    for tree in &trees[..3] {
        snapshot(&disk, tree, &SESSIONS).unwrap();
    }
    assert_eq!(keeper.purge(2).unwrap().oldest, Some(trees[1].zxid()));
    disk.damage(&snapshot_path(dir(), trees[2].zxid()), |bytes| bytes[200] ^= 1);
    keeper.doubt();
    snapshot(&disk, &trees[3], &SESSIONS).unwrap();
    let kept = keeper.purge(2).unwrap();
    assert_eq!((kept.oldest, kept.removed), (Some(trees[1].zxid()), 0), "the log is needed from there on");
    assert_eq!(kept.damaged, [trees[2].zxid()]);
    keeper.not_loaded(trees[3].zxid());
    let kept = keeper.purge(1).unwrap();
    assert_eq!((kept.oldest, kept.damaged), (Some(trees[1].zxid()), vec![trees[3].zxid(), trees[2].zxid()]));
    keeper.written(trees[3].zxid());
    assert_eq!(keeper.purge(1).unwrap().oldest, Some(trees[3].zxid()));
}

#[test]
fn a_snapshot_that_somebody_else_removes_during_a_purge_is_no_error_and_not_damaged() {
    let trees: Vec<Tree> = (1..=4).map(|count| grown(9, count * 40)).collect();
    let path = |at: usize| snapshot_path(dir(), trees[at].zxid());
    // One that was to go; and one that was to be read, instead of which an older one is kept.
    for (opened, gone, oldest, removed) in [(2, 0, 2, 1), (2, 2, 1, 1)] {
        let disk = disk();
        for tree in &trees {
            snapshot(&disk, tree, &SESSIONS).unwrap();
        }
        disk.lose_at_open(&path(opened), &path(gone));
        let kept = Keeper::new(disk.clone(), dir()).purge(2).unwrap();
        assert_eq!((kept.oldest, kept.removed, kept.damaged), (Some(trees[oldest].zxid()), removed, vec![]), "{gone}");
        assert_eq!(ostler::snapshot::list(&disk, dir()).unwrap().len(), 2);
    }
}

#[test]
fn a_full_disk_is_an_error_that_gives_the_room_back_and_thaws_the_tree() {
    let disk = disk();
    let tree = grown(2, 300);
    let whole = snapshot(&disk, &tree, &SESSIONS).unwrap().bytes;
    let small = self::disk();
    for room in [0, 100, whole - 1] {
        small.limit(Some(room));
        assert!(matches!(snapshot(&small, &tree, &SESSIONS), Err(Fatal::DiskFull { .. })), "{room} bytes");
        assert_eq!(small.contents(&dir().join("snap.tmp")), None, "{room} bytes");
        small.limit(Some(whole));
        snapshot(&small, &tree, &SESSIONS).unwrap();
        small.lose_file(&snapshot_path(dir(), tree.zxid()));
    }
}

#[test]
fn a_failed_sync_is_never_a_snapshot() {
    let tree = grown(2, 50);
    for number in 1..=2 {
        let disk = disk();
        disk.fail_sync(disk.syncs() + number);
        assert!(matches!(snapshot(&disk, &tree, &SESSIONS), Err(Fatal::SyncFailed { .. })), "sync {number}");
    }
}
