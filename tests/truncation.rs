//! Taking back the end of a log (fault model S27): at every crash the old history or the new one, never a third, and
//! nothing of what was taken back is ever seen again.

mod histories;

use histories::{Model, Records, SIZES, copy, dir, keeps, new_disk, recover, zxid};
use ostler::disk::RealDisk;
use ostler::disk::sim::{Keep, SimDisk};
use ostler::fatal::Fatal;
use ostler::ids::Zxid;
use ostler::log::{Log, Recovery, TruncateError};
use ostler::random::Rng;
use proptest::prelude::*;

/// A log of several segments and three epochs, in groups of 1 to 4 records.
fn filled() -> (SimDisk, Log<SimDisk>, Model) {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, Zxid::ZERO).unwrap();
    let mut model = Model::default();
    for group in 0..40 {
        model.append(&mut log, [0, 2, 3][group / 15], 1 + group % 4).unwrap();
    }
    assert!(log.segments() >= 4, "{}", log.segments());
    (disk, log, model)
}

fn records_of(disk: &SimDisk) -> Records {
    recover(disk, Zxid::ZERO).unwrap_or_else(|fatal| panic!("{fatal}")).1
}

#[test]
fn a_log_can_be_truncated_to_each_of_its_records_and_goes_on_from_there() {
    let (disk, log, model) = filled();
    drop(log);
    for to in [Zxid::ZERO].into_iter().chain(model.records.iter().map(|record| record.0)) {
        let disk = copy(&disk);
        let mut model = model.clone();
        let (mut log, _) = recover(&disk, Zxid::ZERO).unwrap();
        log.prepare_next().unwrap();
        log.truncate(to).unwrap();
        model.truncate(to);
        assert_eq!((log.last_zxid(), log.durable()), (to, to));
        assert_eq!(records_of(&disk.after_crash(Keep::Nothing)), model.records, "{to}");
        model.append(&mut log, 7, 3).unwrap();
        for _ in 0..12 {
            log.prepare_next().unwrap();
            model.append(&mut log, 7, 9).unwrap();
        }
        assert_eq!(records_of(&disk.after_crash(Keep::Nothing)), model.records, "{to}, appended to");
    }
}

#[test]
fn a_zxid_that_the_log_does_not_hold_is_refused_and_nothing_is_changed() {
    let (disk, mut log, model) = filled();
    let last = model.last();
    let absent = [last.next().unwrap(), zxid(1, 0), zxid(1, 1), zxid(2, 999), zxid(4, 0), zxid(9, 1), Zxid(u64::MAX)];
    let operations = disk.operations();
    for to in absent {
        match log.truncate(to) {
            Err(TruncateError::NotHeld { to: told, oldest, last: end }) => {
                assert_eq!((told, oldest, end), (to, Zxid::ZERO, last));
            }
            other => panic!("{to}: {other:?}"),
        }
    }
    assert!(disk.operations() - operations < 20, "it has only looked");
    assert_eq!(records_of(&copy(&disk)), model.records);

    // What was purged is held no longer; the zxid before the oldest record is the end of an empty log.
    log.purge(zxid(2, 3)).run().unwrap();
    let oldest = log.oldest();
    assert!(oldest > Zxid::ZERO && oldest <= zxid(2, 3));
    for gone in [Zxid(1), Zxid(oldest.0 - 1)] {
        assert!(matches!(log.truncate(gone), Err(TruncateError::NotHeld { .. })), "{gone}");
    }
    log.truncate(oldest).unwrap();
    let (log, records) = recover(&disk.after_crash(Keep::Nothing), oldest).unwrap();
    assert_eq!((log.last_zxid(), records.len()), (oldest, 0));
}

#[test]
fn an_epoch_can_be_taken_back_as_a_whole() {
    for epoch in [2, 3] {
        let (disk, mut log, mut model) = filled();
        log.truncate(zxid(epoch, 0)).unwrap();
        model.truncate(zxid(epoch, 0));
        assert!(model.last().epoch().0 < epoch && log.last_zxid() == model.last());
        model.append(&mut log, 4, 30).unwrap();
        assert_eq!(records_of(&disk.after_crash(Keep::Nothing)), model.records, "epoch {epoch}");
    }
}

#[test]
fn damage_before_the_cut_is_no_reason_to_guess() {
    let (disk, mut log, model) = filled();
    let first = dir().join("segment.0000000000000001");
    disk.damage(&first, |bytes| bytes[560] ^= 1);
    let inside = model.records[10].0;
    assert!(matches!(log.truncate(inside), Err(TruncateError::Unreadable { problem: Fatal::LogCorrupt { .. }, .. })));
}

/// From a full log to a truncated one with new records; `truncated` says what the caller was told.
fn scenario(disk: &SimDisk, model: &mut Model, to: Zxid, truncated: &mut bool) -> Result<(), Fatal> {
    let (mut log, _) = recover(disk, Zxid::ZERO)?;
    log.prepare_next()?;
    match log.truncate(to) {
        Ok(()) => {}
        Err(TruncateError::Fatal(fatal) | TruncateError::Unreadable { problem: fatal, .. }) => return Err(fatal),
        Err(refused) => panic!("{refused}"),
    }
    model.truncate(to);
    *truncated = true;
    Ok(())
}

#[test]
fn s27_a_crash_after_any_operation_leaves_the_old_history_or_the_new_one() {
    let (filled_disk, log, model) = filled();
    drop(log);
    let ends = [0, 1, 17, 50, model.records.len() - 2].map(|at| model.records[at].0);
    let mut images = 0;
    for to in [Zxid::ZERO].into_iter().chain(ends) {
        let whole = copy(&filled_disk);
        let first = whole.operations();
        scenario(&whole, &mut model.clone(), to, &mut false).unwrap();
        let last = whole.operations();
        let mut seen = [0, 0];
        for count in first..=last {
            let disk = copy(&filled_disk);
            let first_here = disk.operations();
            disk.stop_after(first_here + (count - first));
            let (mut new, mut truncated) = (model.clone(), false);
            let result = scenario(&disk, &mut new, to, &mut truncated);
            assert_eq!(result.is_ok(), count == last, "{to}, operation {count}: {result:?}");
            new.truncate(to);
            for keep in keeps(count) {
                let found = disk.after_crash(keep);
                check_image(&found, &model, &new, truncated, count, &mut seen);
                images += 1;
            }
        }
        assert!(seen[0] > 10 && seen[1] > 10, "{to}: {seen:?}");
    }
    assert!(images > 1_000, "{images}");
}

/// Recovery of one image: whole, then appended to; and interrupted, then again.
fn check_image(found: &SimDisk, old: &Model, new: &Model, truncated: bool, count: u64, seen: &mut [usize; 2]) {
    let untouched = copy(found);
    let (mut log, records) = recover(found, Zxid::ZERO).unwrap_or_else(|fatal| panic!("operation {count}: {fatal}"));
    let mut is = if records == new.records {
        new.clone()
    } else {
        assert!(!truncated, "operation {count}: the old history is back");
        assert_eq!(records, old.records, "operation {count}: neither history");
        old.clone()
    };
    seen[(records == new.records) as usize] += 1;
    let operations = found.operations();
    is.append(&mut log, 9, 2).unwrap();
    drop(log);
    assert_eq!(records_of(found), is.records, "operation {count}, appended to");

    let mut rng = Rng::new(count);
    for _ in 0..2 {
        let disk = copy(&untouched);
        disk.stop_after(rng.below(operations + 1));
        let _ = recover(&disk, Zxid::ZERO);
        let disk = disk.after_crash(Keep::Some(rng.next()));
        assert_eq!(records_of(&disk), records, "operation {count}, twice");
    }
}

#[test]
fn s18_a_failed_sync_in_a_truncation_ends_the_log_and_leaves_one_history() {
    let (filled_disk, log, model) = filled();
    drop(log);
    let to = model.records[20].0;
    let whole = copy(&filled_disk);
    let (mut log, _) = recover(&whole, Zxid::ZERO).unwrap();
    let before = whole.syncs();
    log.truncate(to).unwrap();
    let syncs = whole.syncs() - before;
    assert!(syncs > 6, "{syncs}");
    let mut new = model.clone();
    new.truncate(to);
    for number in 1..=syncs {
        let disk = copy(&filled_disk);
        let (mut log, _) = recover(&disk, Zxid::ZERO).unwrap();
        disk.fail_sync(disk.syncs() + number);
        assert!(matches!(log.truncate(to), Err(TruncateError::Fatal(Fatal::SyncFailed { .. }))), "sync {number}");
        let mut next = model.clone();
        assert!(log.append(&next.batch(9, 1)).is_err(), "nothing is appended any more");
        assert!(log.truncate(to).is_err());
        for keep in keeps(number) {
            let records = records_of(&disk.after_crash(keep));
            assert!(records == model.records || records == new.records, "sync {number}, {keep:?}");
        }
    }
}

#[test]
fn every_flipped_bit_of_the_note_stops() {
    let path = dir().join("truncate");
    let interrupted = |count: u64| {
        let (disk, mut log, model) = filled();
        disk.stop_after(disk.operations() + count);
        let _ = log.truncate(model.records[9].0);
        disk.after_crash(Keep::Everything)
    };
    let disk = (0..100).map(interrupted).find(|disk| disk.contents(&path).is_some()).unwrap();
    let note = disk.contents(&path).unwrap();
    for bit in 0..note.len() * 8 {
        let disk = copy(&disk);
        disk.damage(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        assert!(matches!(recover(&disk, Zxid::ZERO), Err(Fatal::LogCorrupt { .. })), "bit {bit}");
    }
    for length in 0..note.len() {
        let disk = copy(&disk);
        disk.damage(&path, |bytes| bytes.truncate(length));
        assert!(matches!(recover(&disk, Zxid::ZERO), Err(Fatal::LogCorrupt { .. })), "{length} bytes");
    }
}

#[test]
fn a_truncated_log_on_real_files_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let open = || Recovery::open(RealDisk, dir.path(), Zxid::ZERO, SIZES).unwrap().finish().unwrap();
    let mut log = open();
    for epoch in [1, 1, 2, 2, 2] {
        log.append(&model.batch(epoch, 40)).unwrap();
        log.sync().unwrap();
        log.prepare_next().unwrap();
    }
    let housekeeper = log.housekeeper().clone();
    log.truncate(zxid(1, 33)).unwrap();
    model.truncate(zxid(1, 33));
    housekeeper.prepare_next().unwrap();
    log.append(&model.batch(5, 90)).unwrap();
    log.sync().unwrap();
    drop(log);
    let mut recovery = Recovery::open(RealDisk, dir.path(), Zxid::ZERO, SIZES).unwrap();
    let mut records = Records::new();
    while let Some((zxid, body)) = recovery.next().unwrap() {
        records.push((zxid, body.to_vec()));
    }
    assert_eq!(records, model.records);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Groups, epochs, truncations, purges, restarts and crashes in any order: the log is what the list is.
    #[test]
    fn any_life_with_truncations_comes_back(
        steps in prop::collection::vec((0u8..10, 1usize..12, any::<u64>()), 1..40),
    ) {
        let mut disk = new_disk();
        let mut model = Model::default();
        let (mut log, _) = recover(&disk, Zxid::ZERO).unwrap();
        let mut epoch = 0;
        let mut snapshot = Zxid::ZERO;
        for (what, count, seed) in steps {
            match what {
                0 => log.roll().unwrap(),
                1 => log.prepare_next().unwrap(),
                2 => {
                    let held = model.records.iter().map(|record| record.0).filter(|&held| held >= snapshot);
                    let held: Vec<Zxid> = held.collect();
                    let Some(&to) = held.get(seed as usize % held.len().max(1)) else { continue };
                    log.truncate(to).unwrap();
                    model.truncate(to);
                }
                3 => {
                    disk = disk.after_crash(Keep::Some(seed));
                    let (reopened, records) = recover(&disk, snapshot).unwrap();
                    let behind = model.records.iter().filter(|record| record.0 > snapshot);
                    prop_assert_eq!(records, behind.cloned().collect::<Vec<_>>());
                    log = reopened;
                }
                4 => epoch += 1,
                5 => {
                    snapshot = snapshot.max(model.records.get(model.records.len() / 2).map_or(snapshot, |r| r.0));
                    log.purge(snapshot).run().unwrap();
                }
                _ => model.append(&mut log, epoch, count).unwrap(),
            }
            prop_assert_eq!(log.last_zxid().max(snapshot), model.last().max(snapshot));
        }
        drop(log);
        let behind = model.records.iter().filter(|record| record.0 > snapshot);
        let (_, records) = recover(&disk.after_crash(Keep::Nothing), snapshot).unwrap();
        prop_assert_eq!(records, behind.cloned().collect::<Vec<_>>());
    }
}
