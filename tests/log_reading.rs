//! Reading a log back while it is written: every record once and in order, nothing that is not durable, and an error
//! where the log has gone on without the reader.

mod histories;

use histories::{Model, Records, SIZES, dir, new_disk, recover, zxid};
use ostler::disk::sim::{Keep, SimDisk};
use ostler::disk::{Disk, RealDisk};
use ostler::fatal::Fatal;
use ostler::ids::Zxid;
use ostler::log::{Batch, Log, LogCursor, ReadError, Recovery};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

const ALL: Zxid = Zxid(u64::MAX);

/// A log of several segments and three epochs.
fn filled() -> (SimDisk, Log<SimDisk>, Model) {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, Zxid::ZERO).unwrap();
    let mut model = Model::default();
    for group in 0..40 {
        model.append(&mut log, [0, 2, 3][group / 15], 1 + group % 4).unwrap();
    }
    (disk, log, model)
}

/// Reads until there is nothing more, in batches of so many bytes.
fn read_all<D: Disk>(cursor: &mut LogCursor<D>, up_to: Zxid, bytes: usize) -> Result<Records, ReadError> {
    let (mut batch, mut records) = (Batch::new(), Records::new());
    loop {
        cursor.read(up_to, bytes, &mut batch)?;
        if batch.is_empty() {
            return Ok(records);
        }
        let longest = batch.records().map(|(_, body)| body.len()).max().unwrap();
        assert!(batch.body_bytes() < bytes.max(1) + longest, "more than was asked for");
        records.extend(batch.records().map(|(zxid, body)| (zxid, body.to_vec())));
    }
}

fn behind(model: &Model, from: Zxid) -> Records {
    model.records.iter().filter(|record| record.0 > from).cloned().collect()
}

#[test]
fn what_comes_after_any_record_is_read_in_batches_of_any_size() {
    let (_disk, log, model) = filled();
    let view = log.view();
    for from in [Zxid::ZERO].into_iter().chain(model.records.iter().map(|record| record.0)) {
        for bytes in [0, 100, 1000, 1 << 20] {
            let mut cursor = view.read_after(from).unwrap();
            assert_eq!(read_all(&mut cursor, ALL, bytes).unwrap(), behind(&model, from), "{from}, {bytes} bytes");
            assert_eq!(cursor.position(), model.last());
        }
    }
    let to = model.records[30].0;
    let mut cursor = view.read_after(Zxid::ZERO).unwrap();
    assert_eq!(read_all(&mut cursor, to, 500).unwrap(), model.records[..31]);
    assert_eq!(read_all(&mut cursor, ALL, 500).unwrap(), model.records[31..], "goes on where it was");
    for absent in [zxid(0, 999), zxid(1, 0), zxid(2, 999), zxid(3, 999), zxid(4, 0)] {
        assert!(matches!(view.read_after(absent), Err(ReadError::Gone { after }) if after == absent), "{absent}");
    }
    // Where epochs begin: behind everything before them. One without records is certain only to its own server.
    for (epoch, own) in [(2, false), (3, false), (1, true), (4, true)] {
        let from = zxid(epoch, 0);
        let mut cursor = if own { view.read_after_own(from) } else { view.read_after(from) }.unwrap();
        assert_eq!(read_all(&mut cursor, ALL, 500).unwrap(), behind(&model, from), "epoch {epoch}");
    }
}

#[test]
fn nothing_is_handed_out_before_it_is_durable() {
    let (_disk, mut log, mut model) = filled();
    let view = log.view();
    let mut cursor = view.read_after(model.last()).unwrap();
    let before = model.last();
    let mut batch = Batch::new();
    for _ in 0..60 {
        let new = model.batch(3, 3);
        log.append(&new).unwrap();
        cursor.read(ALL, 1 << 20, &mut batch).unwrap();
        assert!(batch.is_empty(), "not synced yet");
        assert!(!view.contains(model.last()));
        log.sync().unwrap();
        cursor.read(ALL, 1 << 20, &mut batch).unwrap();
        assert!(batch.records().eq(new.records()));
        assert!(view.contains(model.last()) && view.last() == model.last());
    }
    assert_eq!(read_all(&mut view.read_after(before).unwrap(), ALL, 777).unwrap(), behind(&model, before));
}

#[test]
fn a_view_knows_what_the_log_holds_also_after_a_restart_from_a_snapshot() {
    let (disk, mut log, model) = filled();
    let from = zxid(3, 7);
    let check = |log: &Log<SimDisk>, after: Zxid| {
        let view = log.view();
        assert_eq!(view.holdings().after(), after);
        for epoch in 0..5 {
            for counter in 0..60 {
                let probe = zxid(epoch, counter);
                let held = |zxid: Zxid| zxid > after && model.records.iter().any(|record| record.0 == zxid);
                assert_eq!(view.contains(probe), held(probe), "{probe}");
                let begins = counter == 0 && probe > after && held(zxid(epoch, 1));
                assert_eq!(view.reaches(probe), held(probe) || probe == after || begins, "{probe}");
                let below = model.records.iter().map(|record| record.0).rfind(|&zxid| zxid <= probe && held(zxid));
                assert_eq!(view.at_most(probe), below.or((probe >= after).then_some(after)), "{probe}");
            }
        }
    };
    check(&log, Zxid::ZERO);
    drop(log);
    log = recover(&disk, from).unwrap().0;
    check(&log, Zxid::ZERO);
    log.purge(zxid(2, 9)).run().unwrap();
    let after = log.oldest();
    check(&log, after);
    assert!(after > Zxid::ZERO);
    drop(log);
    check(&recover(&disk, from).unwrap().0, after);
}

#[test]
fn an_old_segment_that_can_not_be_read_ends_what_is_held_and_not_the_server() {
    let (disk, log, model) = filled();
    drop(log);
    let found = model.records.iter().map(|record| record.0).find(|zxid| zxid.epoch().0 == 2).unwrap();
    // In which segment epoch 2 begins.
    let name = |number| dir().join(format!("segment.{number:016x}"));
    let needle = found.0.to_le_bytes();
    let has = |number: &u64| disk.contents(&name(*number)).unwrap()[512..].windows(8).any(|bytes| bytes == needle);
    let number = (1..20).find(has).unwrap();
    disk.damage(&name(number), |bytes| bytes[560] ^= 1);
    let log = recover(&disk, model.last()).unwrap().0;
    let view = log.view();
    assert!(!view.contains(found) && view.contains(model.last()));
    let after = view.holdings().after();
    assert!(after > found && log.oldest() == Zxid::ZERO);
    assert_eq!(read_all(&mut view.read_after(after).unwrap(), ALL, 1000).unwrap(), behind(&model, after));
}

#[test]
fn a_purged_segment_is_read_to_its_end_and_its_file_is_not_used_again_meanwhile() {
    let (disk, mut log, mut model) = filled();
    let view = log.view();
    while log.segments() < 8 {
        model.append(&mut log, 3, 4).unwrap();
    }
    // In the oldest segments: those would be used again first.
    let mut batch = Batch::new();
    let half = model.records.len() / 2;
    let mut cursors: Vec<_> = (0..half).map(|at| view.read_after(model.records[at].0).unwrap()).collect();
    for cursor in &mut cursors {
        cursor.read(ALL, 0, &mut batch).unwrap();
    }
    log.purge(model.last()).run().unwrap();
    let recycled = |disk: &SimDisk| disk.list(dir()).unwrap().iter().filter(|n| n.starts_with("recycled.")).count();
    assert_eq!(recycled(&disk), 2, "two that nobody reads");
    for _ in 0..3 {
        model.append(&mut log, 3, 8).unwrap();
        log.roll().unwrap();
    }
    assert_eq!(recycled(&disk), 0);
    let mut all_seen = 0;
    for mut cursor in cursors {
        let first = cursor.position();
        let mut seen = Records::new();
        let gone = loop {
            match cursor.read(ALL, 300, &mut batch) {
                Ok(()) => seen.extend(batch.records().map(|(zxid, body)| (zxid, body.to_vec()))),
                Err(error) => break error,
            }
            assert!(!batch.is_empty());
        };
        assert!(matches!(gone, ReadError::Gone { .. }), "{gone}");
        assert!(behind(&model, first).starts_with(&seen), "only what had been there");
        assert!(matches!(view.read_after(first), Err(ReadError::Gone { .. })));
        all_seen += seen.len();
    }
    assert!(all_seen > 8, "{all_seen}");
}

#[test]
fn after_a_truncation_old_cursors_are_told_and_new_ones_read_the_new_history() {
    let (_disk, mut log, mut model) = filled();
    let view = log.view();
    let cursors = [0, 10, 30, 60].map(|at| model.records[at].0);
    let mut cursors = cursors.map(|from| view.read_after(from).unwrap());
    let mut batch = Batch::new();
    for cursor in &mut cursors[..2] {
        cursor.read(ALL, 1, &mut batch).unwrap();
    }
    let to = model.records[20].0;
    log.truncate(to).unwrap();
    model.truncate(to);
    assert_eq!((view.last(), view.at_most(ALL)), (to, Some(to)));
    model.append(&mut log, 9, 50).unwrap();
    for cursor in &mut cursors {
        assert!(matches!(cursor.read(ALL, 1000, &mut batch), Err(ReadError::Gone { .. })));
        assert!(batch.is_empty());
    }
    assert_eq!(read_all(&mut view.read_after(Zxid::ZERO).unwrap(), ALL, 1000).unwrap(), model.records);
}

#[test]
fn damage_is_an_error_with_its_place_and_no_end() {
    let (disk, log, model) = filled();
    let view = log.view();
    let path = dir().join("segment.0000000000000002");
    for sector in [0, 1, 3, 9] {
        let whole = disk.contents(&path).unwrap();
        disk.damage(&path, |bytes| bytes[sector * 512..(sector + 1) * 512].fill(0));
        let result = read_all(&mut view.read_after(Zxid::ZERO).unwrap(), ALL, 1000);
        match result {
            Err(ReadError::Fatal(Fatal::LogCorrupt { file, .. })) => assert_eq!(file, path, "sector {sector}"),
            other => panic!("sector {sector}: {other:?}"),
        }
        disk.damage(&path, |bytes| *bytes = whole);
    }
    disk.break_sector(&path, 2);
    let result = read_all(&mut view.read_after(Zxid::ZERO).unwrap(), ALL, 1000);
    assert!(matches!(result, Err(ReadError::Fatal(Fatal::Io { .. }))));
    let last = model.last();
    assert!(read_all(&mut view.read_after(last).unwrap(), ALL, 1000).unwrap().is_empty());
}

#[test]
fn records_larger_than_a_segment_are_read_with_small_batches() {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, Zxid::ZERO).unwrap();
    let mut batch = Batch::new();
    batch.push(Zxid(1), &vec![7; 100_000]);
    batch.push(Zxid(2), b"small");
    batch.push(Zxid(3), &vec![8; 50_000]);
    log.append(&batch).unwrap();
    log.sync().unwrap();
    let records: Records = batch.records().map(|(zxid, body)| (zxid, body.to_vec())).collect();
    for from in 0..3 {
        let mut cursor = log.view().read_after(Zxid(from)).unwrap();
        assert_eq!(read_all(&mut cursor, ALL, 10).unwrap(), records[from as usize..]);
    }
}

#[test]
fn readers_and_the_writer_of_real_files_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Recovery::open(RealDisk, dir.path(), Zxid::ZERO, SIZES).unwrap().finish().unwrap();
    let view = log.view();
    let done = AtomicBool::new(false);
    const RECORDS: u64 = 6_000;
    let body = |zxid: u64| vec![zxid as u8 | 1; (zxid * 37 % 300) as usize];
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (view, done) = (view.clone(), &done);
            scope.spawn(move || {
                let (mut batch, mut seen, mut gone) = (Batch::new(), 0, 0);
                let mut cursor = view.read_after(view.holdings().after());
                // Bounded by the writer, which ends by itself.
                loop {
                    let at_end = done.load(Ordering::Acquire);
                    let result = cursor.as_mut().map_err(|_| ()).map(|cursor| cursor.read(ALL, 2_000, &mut batch));
                    match result {
                        Ok(Ok(())) if batch.is_empty() && at_end => break,
                        Ok(Ok(())) => {}
                        Ok(Err(ReadError::Fatal(fatal))) => panic!("reader {reader}: {fatal}"),
                        Err(()) | Ok(Err(ReadError::Gone { .. })) => {
                            gone += 1;
                            cursor = view.read_after(view.holdings().after());
                            continue;
                        }
                    }
                    let mut next = None;
                    for (zxid, bytes) in batch.records() {
                        assert!(next.is_none_or(|next| next == zxid.0), "a gap before {zxid}");
                        assert_eq!(bytes, body(zxid.0), "{zxid}");
                        next = Some(zxid.0 + 1);
                        seen += 1;
                    }
                }
                assert_eq!(cursor.unwrap().position(), Zxid(RECORDS));
                assert!(seen > 0, "{gone}");
            });
        }
        let mut batch = Batch::new();
        for group in 0..RECORDS / 6 {
            batch.clear();
            for zxid in group * 6 + 1..=group * 6 + 6 {
                batch.push(Zxid(zxid), &body(zxid));
            }
            log.append(&batch).unwrap();
            log.sync().unwrap();
            if group % 50 == 49 {
                log.purge(Zxid(group * 6 - 150)).run().unwrap();
                log.prepare_next().unwrap();
            }
        }
        done.store(true, Ordering::Release);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Cursors in any number beside a log that appends, purges, truncates and restarts.
    #[test]
    fn any_interleaving_hands_out_one_history(
        steps in prop::collection::vec((0u8..12, 1usize..12, any::<u64>()), 1..50),
    ) {
        let mut disk = new_disk();
        let mut model = Model::default();
        let (mut log, _) = recover(&disk, Zxid::ZERO).unwrap();
        let mut cursors: Vec<LogCursor<SimDisk>> = Vec::new();
        let (mut epoch, mut snapshot) = (0, Zxid::ZERO);
        let mut batch = Batch::new();
        for (what, count, seed) in steps {
            let held: Vec<Zxid> = model.records.iter().map(|r| r.0).filter(|&zxid| zxid >= snapshot).collect();
            let some = held.get(seed as usize % held.len().max(1)).copied();
            match what {
                0 => log.roll().unwrap(),
                1 => epoch += 1,
                2 => {
                    snapshot = snapshot.max(some.unwrap_or(snapshot));
                    log.purge(snapshot).run().unwrap();
                }
                3 if let Some(to) = some => {
                    let cut = to < model.last();
                    log.truncate(to).unwrap();
                    model.truncate(to);
                    for cursor in cursors.iter_mut().filter(|_| cut) {
                        let is_gone = matches!(cursor.read(ALL, 10, &mut batch), Err(ReadError::Gone { .. }));
                        prop_assert!(is_gone);
                    }
                    if cut {
                        cursors.clear();
                    }
                }
                4 => {
                    cursors.clear();
                    disk = disk.after_crash(Keep::Some(seed));
                    log = recover(&disk, snapshot).unwrap().0;
                }
                5..=7 => {
                    let from = some.unwrap_or(snapshot);
                    if let Ok(cursor) = log.view().read_after(from) {
                        cursors.push(cursor);
                    } else {
                        prop_assert!(some.is_none());
                    }
                }
                _ => model.append(&mut log, epoch, count).unwrap(),
            }
            let mut kept = Vec::new();
            for mut cursor in std::mem::take(&mut cursors) {
                let from = cursor.position();
                match cursor.read(ALL, seed as usize % 2_000, &mut batch) {
                    Ok(()) => {
                        let read: Records = batch.records().map(|(zxid, body)| (zxid, body.to_vec())).collect();
                        let all = behind(&model, from);
                        prop_assert!(all.starts_with(&read) && read.is_empty() == all.is_empty());
                        kept.push(cursor);
                    }
                    Err(ReadError::Gone { .. }) => prop_assert!(from < log.oldest()),
                    Err(ReadError::Fatal(fatal)) => panic!("{fatal}"),
                }
            }
            cursors = kept;
        }
    }
}
