//! Snapshots and log change as one history (fault model S27, S28): whatever crash comes between, the next start finds the
//! old history or the new one, never a mix, and finds the same again.

mod histories;

use histories::{
    Found, Model, Records, SIZES, copy, dir, dirs, keeps, read_history, recover, with_snapshots, write_snapshot, zxid,
};
use ostler::disk::Disk;
use ostler::disk::sim::{Keep, SimDisk};
use ostler::fatal::Fatal;
use ostler::ids::Zxid;
use ostler::log::{Batch, Log, TruncateError};
use ostler::random::Rng;
use ostler::snapshot::snapshot_path;
use ostler::storage::{self, Install};

fn start(disk: &SimDisk) -> Result<(Log<SimDisk>, Found), Fatal> {
    storage::recover_alone(disk, &dirs(), SIZES, || read_history(disk))
}

#[track_caller]
fn started(disk: &SimDisk) -> (Log<SimDisk>, Found) {
    start(disk).unwrap_or_else(|fatal| panic!("{fatal}"))
}

const NEW: i64 = 77;

/// Gives the history up for a snapshot at `to`, and goes on behind it.
fn install(disk: &SimDisk, to: Zxid, told: &mut bool) -> Result<Records, Fatal> {
    let (mut log, _) = start(disk)?;
    log.prepare_next()?;
    let install = Install::begin(disk.clone(), &dirs(), &log, to)?;
    write_snapshot(disk, to, NEW)?;
    install.commit(&mut log)?;
    *told = true;
    assert_eq!((log.durable(), log.view().holdings().after()), (to, to));
    let mut behind = Model::default();
    // The log holds nothing; what comes is of a later epoch.
    behind.append(&mut log, to.epoch().0 + 1, 3)?;
    Ok(behind.records)
}

/// Runs a change with the power going off after each of its operations, and looks at what every kind of crash leaves.
fn at_every_crash(
    disk: &SimDisk,
    change: impl Fn(&SimDisk, &mut bool) -> Result<(), Fatal>,
    mut check: impl FnMut(&SimDisk, &Found, bool),
) -> usize {
    let whole = copy(disk);
    change(&whole, &mut false).unwrap();
    let operations = whole.operations();
    let mut images = 0;
    for count in 0..=operations {
        let disk = copy(disk);
        disk.stop_after(count);
        let mut told = false;
        let result = change(&disk, &mut told);
        assert_eq!(result.is_ok(), count >= operations, "operation {count}: {result:?}");
        for keep in keeps(count) {
            let image = disk.after_crash(keep);
            let again = copy(&image);
            let (mut log, found) = start(&image).unwrap_or_else(|fatal| panic!("operation {count}, {keep:?}: {fatal}"));
            check(&image, &found, told);
            let operations = image.operations();
            let mut next = Model::default();
            let new = next.batch(found.last().epoch().0 + 1, 2);
            log.append(&new).unwrap();
            log.sync().unwrap();
            drop(log);
            let appended = Found { records: [found.records.clone(), next.records].concat(), ..found.clone() };
            assert_eq!(started(&image.after_crash(Keep::Nothing)).1, appended, "operation {count}, {keep:?}");

            let mut rng = Rng::new(count * 8 + images as u64 % 8);
            again.stop_after(rng.below(operations + 1));
            let _ = start(&again);
            let image = again.after_crash(Keep::Some(rng.next()));
            assert_eq!(started(&image).1, found, "operation {count}, {keep:?}, twice");
            images += 1;
        }
    }
    images
}

#[test]
fn s28_a_crash_at_any_step_of_a_snap_leaves_the_old_history_or_the_new_one() {
    for purged in [false, true] {
        let (disk, model, snapshots) = with_snapshots(purged);
        let last = model.last();
        // Behind everything, before everything, inside, and where a snapshot is already.
        let some = if purged { [zxid(9, 77), zxid(0, 1)] } else { [zxid(5, 0), zxid(3, 4)] };
        for to in some.into_iter().chain([snapshots[1]]) {
            let old = started(&copy(&disk)).1;
            assert_eq!((old.snapshot, old.last()), (Some((snapshots[1], 1)), last));
            let mut told_records = Records::new();
            let whole = copy(&disk);
            told_records.extend(install(&whole, to, &mut false).unwrap());
            let new = started(&whole).1;
            assert_eq!(new, Found { snapshot: Some((to, NEW)), records: told_records });
            let mut seen = [0, 0];
            let images = at_every_crash(
                &disk,
                |disk, told| install(disk, to, told).map(|_| ()),
                |disk, found, told| {
                    let is_new = found.snapshot == new.snapshot && new.records.starts_with(&found.records);
                    // A snapshot of the same zxid is the same state, so the old history may have it.
                    let same = to == snapshots[1] && found.snapshot == new.snapshot && found.records == old.records;
                    assert!(is_new || (!told && (same || *found == old)), "{to}: {found:?}");
                    assert!(same || storage::may_be_fuzzy(disk, &dirs(), to).unwrap() == is_new, "{to}: {found:?}");
                    seen[is_new as usize] += 1;
                },
            );
            assert!(images > 400 && seen[0] > 50 && seen[1] > 50, "{to}: {images} images, {seen:?}");
        }
    }
}

#[test]
fn a_snapshot_that_is_given_up_or_damaged_leaves_the_old_history() {
    let (disk, _, snapshots) = with_snapshots(true);
    let old = started(&copy(&disk)).1;
    for to in [zxid(9, 77), zxid(0, 1), snapshots[0]] {
        let disk = copy(&disk);
        let (mut log, _) = started(&disk);
        let install = Install::begin(disk.clone(), &dirs(), &log, to).unwrap();
        write_snapshot(&disk, to, NEW).unwrap();
        install.abandon().unwrap();
        let install = Install::begin(disk.clone(), &dirs(), &log, zxid(8, 8)).unwrap();
        assert!(matches!(install.commit(&mut log), Err(Fatal::Io { .. })), "nothing was written");
        let install = Install::begin(disk.clone(), &dirs(), &log, zxid(8, 8)).unwrap();
        write_snapshot(&disk, zxid(8, 8), NEW).unwrap();
        disk.damage(&snapshot_path(&dirs().snapshots, zxid(8, 8)), |bytes| bytes[99] ^= 1);
        assert!(matches!(install.commit(&mut log), Err(Fatal::SnapshotCorrupt { .. })));
        let new = Model { records: vec![(log.last_zxid(), Vec::new())], ..Model::default() }.batch(9, 1);
        log.append(&new).unwrap();
        log.sync().unwrap();
        drop(log);
        let found = started(&disk.after_crash(Keep::Nothing)).1;
        assert_eq!(found.snapshot, old.snapshot);
        assert_eq!(found.records.len(), old.records.len() + 1, "the log went on");
    }
}

/// It may have what a full disk lacks, and the next snapshot may be weeks away.
#[test]
fn a_snapshot_that_was_never_finished_goes_at_the_start() {
    let (disk, ..) = with_snapshots(true);
    let found = started(&copy(&disk)).1;
    let unfinished = dirs().snapshots.join("snap.tmp");
    disk.put(&unfinished, vec![1; 100_000]);
    assert_eq!(started(&disk).1, found);
    assert!(disk.contents(&unfinished).is_none());
}

#[test]
fn an_install_that_was_interrupted_is_never_read_as_a_log() {
    let (disk, ..) = with_snapshots(false);
    let (log, found) = started(&disk);
    let install = Install::begin(disk.clone(), &dirs(), &log, zxid(9, 9)).unwrap();
    let from = found.snapshot.unwrap().0;
    assert!(matches!(recover(&copy(&disk), from), Err(Fatal::Unfinished { .. })), "without `resume`");
    assert_eq!(started(&copy(&disk)).1, found);
    let note = dir().join("install");
    for bit in 0..disk.contents(&note).unwrap().len() * 8 {
        let disk = copy(&disk);
        disk.damage(&note, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        assert!(start(&disk).is_err(), "bit {bit}");
    }
    install.abandon().unwrap();
    assert!(disk.contents(&note).is_none());
}

/// A purge that was handed to a helper before the history changed must not take the new log's files.
#[test]
fn a_purge_that_comes_late_does_not_harm_the_new_log() {
    let (disk, _, snapshots) = with_snapshots(false);
    let (mut log, _) = started(&disk);
    let purge = log.purge(snapshots[0]);
    assert!(!purge.is_empty());
    let install = Install::begin(disk.clone(), &dirs(), &log, zxid(9, 9)).unwrap();
    write_snapshot(&disk, zxid(9, 9), NEW).unwrap();
    install.commit(&mut log).unwrap();
    let mut model = Model { records: vec![(zxid(9, 9), Vec::new())], ..Model::default() };
    for _ in 0..10 {
        model.append(&mut log, 9, 20).unwrap();
    }
    purge.run().unwrap();
    model.append(&mut log, 10, 20).unwrap();
    drop(log);
    assert_eq!(started(&disk.after_crash(Keep::Nothing)).1.records, model.records[1..]);
}

/// As after a start by another user: readable, and not to be written to.
#[test]
fn segments_of_somebody_else_are_purged_and_read_and_not_used_again() {
    let (disk, _, snapshots) = with_snapshots(false);
    let (mut log, _) = started(&disk);
    let place = |kind: &str, number: u64| dir().join(format!("{kind}.{number:016x}"));
    for number in 1..log.segments() as u64 {
        disk.give_away(&place("segment", number));
    }
    let mut cursor = log.view().read_after(Zxid::ZERO).unwrap();
    let mut batch = Batch::new();
    while cursor.position() < log.durable() {
        cursor.read(log.durable(), 1000, &mut batch).unwrap();
    }
    drop(cursor);
    let purge = log.purge(snapshots[1]);
    let gone = purge.len() as u64;
    // The second is of the size that is used again.
    assert!(gone >= 2, "{gone}");
    purge.run().unwrap();
    for number in 1..=gone {
        assert_eq!(disk.contents(&place("segment", number)), None);
        assert_eq!(disk.contents(&place("recycled", number)), None);
    }
    // An earlier version has kept one all the same.
    disk.put(&place("recycled", 2), vec![7; SIZES.segment as usize]);
    disk.give_away(&place("recycled", 2));
    let mut model = Model { records: vec![(log.durable(), Vec::new())], ..Model::default() };
    for _ in 0..40 {
        model.append(&mut log, 4, 4).unwrap();
        log.prepare_next().unwrap();
    }
    assert_eq!(disk.contents(&place("recycled", 2)), None);
}

/// Takes the history back to `to`.
fn truncate(disk: &SimDisk, to: Zxid, told: &mut bool) -> Result<(), Fatal> {
    let (mut log, _) = start(disk)?;
    match storage::truncate(disk, &dirs(), &mut log, to) {
        Ok(()) => *told = true,
        Err(TruncateError::Fatal(fatal)) => return Err(fatal),
        // Where the power went off while a snapshot was read, it seems to be damaged.
        Err(refused) => return Err(Fatal::Usage { problem: refused.to_string() }),
    }
    Ok(())
}

#[test]
fn s27_a_crash_at_any_step_of_a_trunc_leaves_no_snapshot_of_what_was_taken_back() {
    for purged in [false, true] {
        let (disk, model, snapshots) = with_snapshots(purged);
        let inside = [[12, 55], [69, 75]][purged as usize].map(|at| model.records[at].0);
        for to in inside.into_iter().chain([snapshots[purged as usize]]) {
            let whole = copy(&disk);
            truncate(&whole, to, &mut false).unwrap();
            assert_eq!(started(&whole).1.last(), to);
            let mut seen = [0, 0];
            let images = at_every_crash(
                &disk,
                |disk, told| truncate(disk, to, told),
                |_, found, told| {
                    let from = found.snapshot.map_or(Zxid::ZERO, |snapshot| snapshot.0);
                    let is_new = found.last() == to;
                    assert!(is_new || (!told && found.last() == model.last()), "{to}: ends at {}", found.last());
                    assert!(!is_new || from <= to, "a snapshot of what was taken back");
                    let all = model.records.iter().filter(|r| r.0 > from && (!is_new || r.0 <= to));
                    assert!(all.eq(&found.records), "{to}: a third history");
                    seen[is_new as usize] += 1;
                },
            );
            assert!(images > 150 && seen[0] > 20 && seen[1] > 20, "{to}: {images} images, {seen:?}");
        }
    }
}

#[test]
fn a_truncation_that_could_not_be_rebuilt_is_refused_and_changes_nothing() {
    let (disk, model, snapshots) = with_snapshots(true);
    let (mut log, found) = started(&disk);
    let early = model.records.iter().map(|r| r.0).find(|&zxid| zxid >= log.oldest() && zxid < snapshots[0]).unwrap();
    let names = disk.list(&dirs().snapshots).unwrap();
    let refused = |log: &mut Log<SimDisk>, to| storage::truncate(&disk, &dirs(), log, to);
    assert!(matches!(refused(&mut log, early), Err(TruncateError::NoSnapshot { to }) if to == early));
    for absent in [zxid(0, 1), zxid(1, 1), zxid(1, 0), zxid(3, 999)] {
        assert!(matches!(refused(&mut log, absent), Err(TruncateError::NotHeld { .. })), "{absent}");
    }
    // The only snapshot below is damaged.
    let path = snapshot_path(&dirs().snapshots, snapshots[0]);
    disk.damage(&path, |bytes| bytes[50] ^= 1);
    assert!(matches!(refused(&mut log, model.records[50].0), Err(TruncateError::NoSnapshot { .. })));
    disk.damage(&path, |bytes| bytes[50] ^= 1);
    assert_eq!(disk.list(&dirs().snapshots).unwrap(), names);
    drop(log);
    assert_eq!(started(&disk).1, found);
    let (mut log, _) = started(&disk);
    storage::truncate(&disk, &dirs(), &mut log, model.records[50].0).unwrap();
    assert_eq!(started(&disk).1.last(), model.records[50].0);
}
