//! What is wrong with files of ZooKeeper's: found, named with its place, and told from what a crash leaves behind.

use super::made::{Made, assert_same, dir, options, seal};
use super::{DIGEST, LAST, LOG, SNAPSHOT, disk_with, places, read, read_with, refusal};
use ostler::fatal::Fatal;
use ostler::ids::{Epoch, SessionId, Zxid};
use ostler::random::Rng;
use ostler::snapshot::zookeeper::{
    Compression, ImportOptions, write_file, write_log_header, write_log_record, write_tree,
};
use ostler::wire::txn::{Txn, TxnDigest, TxnHeader, write_txn};

#[test]
fn what_zookeeper_passes_over_in_silence_is_an_error_with_its_place() {
    let places = places(LOG);
    let (at, next) = (places[100], places[101]);
    let good = Zxid(100);
    // A run of zeros over one record; a bad mark; the rest cut off by a length of zero.
    let mut zeros = LOG.to_vec();
    zeros[at..next].fill(0);
    let mut mark = LOG.to_vec();
    mark[next - 1] = b'A';
    let mut length = LOG.to_vec();
    length[at + 8..at + 12].fill(0);
    let mut sum = LOG.to_vec();
    sum[at + 20] ^= 1;
    for bytes in [zeros, mark, length, sum] {
        let (file, offset, last_good, problem) = refusal(read(&disk_with(&[("log.1", &bytes)])));
        assert_eq!((file.as_str(), offset, last_good), ("log.1", at as u64, good), "{problem}");
    }

    // Log files: the record that is missing is named, and where it should have been.
    let log = |from: usize, to: usize| [&LOG[..16], &LOG[places[from]..places[to]]].concat();
    let (one, two, three) = (log(0, 100), log(100, 200), log(200, 362));
    let disk = disk_with(&[("log.1", &one), ("log.65", &two), ("log.c9", &three)]);
    assert_eq!(read(&disk).unwrap().report.digest, DIGEST);
    let (file, offset, last_good, problem) = refusal(read(&disk_with(&[("log.1", &one), ("log.c9", &three)])));
    assert_eq!((file.as_str(), offset, last_good), ("log.c9", 16, good));
    assert!(problem.contains("0x65 is missing"), "{problem}");
    let (file, ..) = refusal(read(&disk_with(&[("log.65", &two), ("log.c9", &three)])));
    assert_eq!(file, "log.65", "no snapshot, and not the beginning");
    // A snapshot behind which the log has a gap; a snapshot alone that is damaged; an empty log where there was one.
    let (file, _, last_good, _) = refusal(read(&disk_with(&[("snapshot.16a", SNAPSHOT), ("log.170", &one)])));
    assert_eq!((file.as_str(), last_good), ("log.170", LAST));
    let (file, ..) = refusal(read(&disk_with(&[("log.1", &one), ("log.c9", &LOG[..16])])));
    assert_eq!(file, "log.c9");
    let (file, ..) = refusal(read(&disk_with(&[("snapshot.16a", &SNAPSHOT[..3000])])));
    assert_eq!(file, "snapshot.16a", "ZooKeeper starts with an empty tree here");
    // A newer snapshot is damaged and the log does not reach it.
    let (file, ..) = refusal(read(&disk_with(&[("log.1", &one), ("snapshot.16a", &SNAPSHOT[..3000])])));
    assert_eq!(file, "snapshot.16a");
}

#[test]
fn a_damaged_snapshot_is_passed_over_where_the_log_reaches_past_it() {
    let older = {
        // The state after the first 100 records, written by ostler.
        let places = places(LOG);
        let log = [&LOG[..16], &LOG[16..places[100]]].concat();
        let imported = read(&disk_with(&[("log.1", &log)])).unwrap();
        let mut bytes = Vec::new();
        write_file(&imported.tree, &imported.sessions, Compression::Plain, &mut bytes).unwrap();
        bytes
    };
    for len in [0, 5, 100, 3000, SNAPSHOT.len() - 1] {
        let files = [("snapshot.64", &older[..]), ("snapshot.16a", &SNAPSHOT[..len]), ("log.1", LOG)];
        let imported = read(&disk_with(&files)).unwrap();
        assert_eq!((imported.report.digest, imported.report.records), (DIGEST, 262));
        assert!(imported.report.notes[0].contains("snapshot.16a"), "{:?}", imported.report.notes);
    }
}

#[test]
fn every_changed_byte_of_a_snapshot_is_found() {
    let end = SNAPSHOT.len();
    for at in 0..end {
        let mut bytes = SNAPSHOT.to_vec();
        bytes[at] ^= 1 << (at % 8);
        // Neither ZooKeeper nor we look at version and dbid, but for the checksum over them.
        refusal(read(&disk_with(&[("snapshot.16a", &bytes)])));
        // Where a section ends, an older server's file would end as well.
        if ![end - 21 - 33, end - 21].contains(&at) {
            refusal(read(&disk_with(&[("snapshot.16a", &SNAPSHOT[..at])])));
        }
    }
    refusal(read(&disk_with(&[("snapshot.16a", &[SNAPSHOT, b"x"].concat())])));
    refusal(read(&disk_with(&[("snapshot.16b", SNAPSHOT), ("log.1", LOG)])));
}

/// Cut anywhere, the last append is left out and all before it is kept; in the middle of the history nothing is.
#[test]
fn an_interrupted_append_is_left_out_with_a_note() {
    let places = places(LOG);
    let last = places[361];
    let before = read(&disk_with(&[("log.1", &LOG[..last])])).unwrap();
    assert_eq!((before.report.zxid, before.report.notes.len()), (Zxid(361), 0));
    for len in last + 1..LOG.len() {
        for zeros in [0, 5000] {
            let torn = [&LOG[..len], &vec![0; zeros]].concat();
            let imported = read(&disk_with(&[("log.1", &torn)])).unwrap();
            assert_eq!(imported.report.zxid, Zxid(361), "{len}");
            assert_eq!(imported.tree.digest(), before.tree.digest());
            // The first bytes of a checksum are zeros, which are nothing.
            assert!(imported.report.notes.len() == 1 || len < last + 5, "{len}");
        }
    }
    // Bytes of the last record that never got to the disk.
    for at in last..LOG.len() {
        let mut torn = [LOG, &[0; 600]].concat();
        torn[at..LOG.len()].fill(0);
        assert_eq!(read(&disk_with(&[("log.1", &torn)])).unwrap().report.zxid, Zxid(361), "{at}");
    }
    // The same with a log after it: the server had gone on, so this was no accident of the end.
    let follower = |from: usize| [&LOG[..16], &LOG[places[from]..]].concat();
    let torn = [&LOG[..places[300] + 30], &[0; 900]].concat();
    let imported = read(&disk_with(&[("log.1", &torn), ("log.12d", &follower(300))])).unwrap();
    assert_eq!(imported.report.digest, DIGEST);
    refusal(read(&disk_with(&[("log.1", &torn), ("log.12e", &follower(301))])));
    // A server that was killed when it had just begun a log.
    for bytes in [&LOG[..0], &LOG[..7], &LOG[..16], &[0; 500]] {
        let imported = read(&disk_with(&[("log.1", LOG), ("log.16b", bytes)])).unwrap();
        assert_eq!(imported.report.digest, DIGEST, "{}", bytes.len());
    }
    refusal(read(&disk_with(&[("log.1", &LOG[..7]), ("log.16b", LOG)])));
}

/// One byte of the log is changed: either that is an error, or only the last append is concerned.
#[test]
fn no_changed_byte_of_a_log_changes_the_history() {
    let last = places(LOG)[361];
    let mut rng = Rng::new(5);
    for _ in 0..400 {
        let at = 16 + rng.below(LOG.len() as u64 - 16) as usize;
        let mut bytes = LOG.to_vec();
        bytes[at] ^= 1 << rng.below(8);
        match read(&disk_with(&[("log.1", &bytes)])) {
            Ok(imported) => assert!(at >= last && imported.report.zxid == Zxid(361), "byte {at}"),
            Err(Fatal::ZooKeeperData { offset, .. }) => assert!(offset <= at as u64, "byte {at}"),
            Err(other) => panic!("{other}"),
        }
    }
}

/// An epoch that is missing at its end shows in no zxid; the digests tell.
#[test]
fn a_log_lost_where_an_epoch_ends_is_found_by_the_digest() {
    let mut made = Made::new();
    let mut rng = Rng::new(9);
    let mut logs: Vec<(String, Vec<u8>)> = Vec::new();
    for epoch in 1..4u32 {
        let first = Zxid::new(Epoch(epoch), 1);
        let mut bytes = Vec::new();
        write_log_header(&mut bytes).unwrap();
        for counter in 1..40 {
            let zxid = Zxid::new(Epoch(epoch), counter);
            write_log_record(&made.entry(&mut rng, zxid), &mut bytes).unwrap();
        }
        logs.push((format!("log.{:x}", first.0), bytes));
    }
    let files = |logs: &[(String, Vec<u8>)]| {
        let disk = disk_with(&[]);
        logs.iter().for_each(|(name, bytes)| disk.put(&dir().join(name), bytes.clone()));
        disk
    };
    assert_same(&read(&files(&logs)).unwrap().tree, &made.tree);
    let whole = logs[1].1.clone();
    let mut found = 0;
    for cut in places(&whole).into_iter().rev().skip(1).step_by(5) {
        logs[1].1 = whole[..cut].to_vec();
        match read(&files(&logs)) {
            Err(Fatal::ZooKeeperData { file, last_good, .. }) => {
                assert!(file.ends_with("log.300000001"), "{file:?}");
                assert!(last_good < Zxid::new(Epoch(2), 39));
                found += 1;
            }
            Ok(imported) => assert_same(&imported.tree, &made.tree), // Only transactions that failed were cut off.
            Err(other) => panic!("{other}"),
        }
    }
    assert!(found > 3, "{found}");
}

#[test]
fn digests_that_do_not_agree_are_an_error_or_by_choice_a_note() {
    let mut made = Made::new();
    let mut rng = Rng::new(3);
    let mut bytes = Vec::new();
    write_log_header(&mut bytes).unwrap();
    for entry in made.grow(&mut rng, 29) {
        write_log_record(&entry, &mut bytes).unwrap();
    }
    let header = TxnHeader { session: SessionId(1), cxid: 1, zxid: Zxid(30), time: 5 };
    let mut entry = Vec::new();
    let digest = TxnDigest { version: 2, tree: made.tree.digest() ^ 1 };
    write_txn(&header, &Txn::CreateSession { timeout_ms: 5 }, Some(digest), &mut entry);
    write_log_record(&entry, &mut bytes).unwrap();
    let disk = disk_with(&[("log.1", &bytes)]);
    let (_, _, last_good, problem) = refusal(read(&disk));
    assert_eq!(last_good, Zxid(29), "{problem}");
    let imported = read_with(&disk, ImportOptions { check_digests: false, ..options() }).unwrap();
    assert_eq!((imported.report.zxid, imported.report.notes.len()), (Zxid(30), 1));
    // Or what follows is given up.
    let imported = read_with(&disk, ImportOptions { up_to: Some(Zxid(29)), ..options() }).unwrap();
    assert_same(&imported.tree, &made.tree);
    assert!(matches!(
        read_with(&disk, ImportOptions { up_to: Some(Zxid(77)), check_digests: false, ..options() }),
        Err(Fatal::Usage { .. })
    ));
}

/// A transaction may be on its way into the tree when the last of a snapshot is written: it is in the tree, and not yet in
/// the digest that the snapshot says. The next record settles it.
#[test]
fn a_transaction_that_was_under_way_when_the_snapshot_ended_is_no_damage() {
    let mut rng = Rng::new(6);
    let mut made = Made::new();
    let before = made.grow(&mut rng, 100);
    let digest = made.tree.digest();
    // One that changes the tree.
    let mut after = made.grow(&mut rng, 1);
    while made.tree.digest() == digest {
        after.extend(made.grow(&mut rng, 1));
    }
    let zxid = Zxid(made.tree.zxid().0 - 1);
    let mut snapshot = SNAPSHOT[..16].to_vec();
    write_tree(&made.tree, &made.session_list(), &mut snapshot).unwrap();
    seal(&mut snapshot);
    snapshot.extend_from_slice(&zxid.0.to_be_bytes());
    snapshot.extend_from_slice(&2i32.to_be_bytes());
    snapshot.extend_from_slice(&digest.to_be_bytes());
    seal(&mut snapshot);
    let log = |entries: &[Vec<u8>]| {
        let mut bytes = Vec::new();
        write_log_header(&mut bytes).unwrap();
        entries.iter().for_each(|entry| write_log_record(entry, &mut bytes).unwrap());
        bytes
    };
    let all = [before, after].concat();
    let name = format!("snapshot.{:x}", zxid.0);
    let whole = log(&all);
    let imported = read(&disk_with(&[(&name, &snapshot), ("log.1", &whole)])).unwrap();
    assert_same(&imported.tree, &made.tree);
    // Without that record it is a state that never was.
    let short = log(&all[..all.len() - 1]);
    let (file, ..) = refusal(read(&disk_with(&[(&name, &snapshot), ("log.1", &short)])));
    assert_eq!(file, name);
}
