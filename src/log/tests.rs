//! The log on real files: what is appended comes back, over segments, giants, purges and restarts.

use super::segment::segment_path;
use super::*;
use crate::disk::{Disk, Map, RealDisk};
use crate::fatal::Fatal;
use crate::ids::Epoch;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::Arc;

const SMALL: Sizes = Sizes { first: 8 << 10, segment: 16 << 10 };

fn batch(zxids: std::ops::Range<u64>, bytes: usize) -> Batch {
    let mut batch = Batch::new();
    for zxid in zxids {
        batch.push(Zxid(zxid), &vec![zxid as u8; bytes]);
    }
    batch
}

type Opened = (Log<RealDisk>, Vec<(Zxid, Vec<u8>)>);

fn open(dir: &Path, from: Zxid) -> Result<Opened, Fatal> {
    open_with(dir, from, SMALL)
}

fn open_with(dir: &Path, from: Zxid, sizes: Sizes) -> Result<Opened, Fatal> {
    let mut recovery = Recovery::open(RealDisk, dir, from, sizes)?;
    let mut records = Vec::new();
    while let Some((zxid, body)) = recovery.next()? {
        records.push((zxid, body.to_vec()));
    }
    Ok((recovery.finish()?, records))
}

fn zxids(records: &[(Zxid, Vec<u8>)]) -> Vec<u64> {
    records.iter().map(|(zxid, _)| zxid.0).collect()
}

#[test]
fn what_is_appended_comes_back_in_order_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, records) = open(dir.path(), Zxid::ZERO).unwrap();
    assert!(records.is_empty());
    for first in (1..400).step_by(7) {
        log.append(&batch(first..first + 7, 100)).unwrap();
        assert_eq!(log.sync().unwrap().up_to(), Zxid(first + 6));
    }
    let last = log.durable();
    assert!(log.segments() > 2, "over several segments");
    drop(log);
    let (log, records) = open(dir.path(), Zxid::ZERO).unwrap();
    assert_eq!(zxids(&records), (1..=last.0).collect::<Vec<_>>());
    assert!(records.iter().all(|(zxid, body)| body == &vec![zxid.0 as u8; 100]));
    assert_eq!(log.durable(), last);
    drop(log);
    let (_, records) = open(dir.path(), Zxid(390)).unwrap();
    assert_eq!(zxids(&records), (391..=last.0).collect::<Vec<_>>(), "only what comes after the snapshot");
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own_and_a_batch_is_split() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Zxid::ZERO).unwrap();
    log.prepare_next().unwrap();
    let mut mixed = batch(1..4, 10);
    mixed.push(Zxid(4), &vec![7; 100_000]);
    mixed.push(Zxid(5), b"after");
    log.append(&mixed).unwrap();
    log.append_synced(&batch(6..100, 1000));
    assert_eq!(log.sync().unwrap().up_to(), Zxid(99));
    drop(log);
    let (_, records) = open(dir.path(), Zxid::ZERO).unwrap();
    assert_eq!(zxids(&records), (1..100).collect::<Vec<_>>());
    assert_eq!(records[3].1, vec![7; 100_000]);
}

impl Log<RealDisk> {
    fn append_synced(&mut self, batch: &Batch) {
        self.sync().unwrap();
        self.append(batch).unwrap();
    }
}

#[test]
fn a_new_epoch_begins_at_one_and_a_hole_is_refused_before_it_reaches_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Zxid::ZERO).unwrap();
    let mut batch = Batch::new();
    batch.push(Zxid(1), b"a");
    batch.push(Zxid::new(Epoch(3), 1), b"b");
    log.append(&batch).unwrap();
    log.sync().unwrap();
    let hole = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut batch = Batch::new();
        batch.push(Zxid::new(Epoch(3), 3), b"c");
        log.append(&batch)
    }));
    assert!(hole.is_err());
    drop(log);
    let (log, records) = open(dir.path(), Zxid::ZERO).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(log.durable(), Zxid::new(Epoch(3), 1));
}

#[test]
fn segments_grow_fourfold_up_to_their_full_size_and_a_batch_that_needs_more_gets_it() {
    let sizes = Sizes { first: 8 << 10, segment: 256 << 10 };
    assert_eq!([1, 2, 3, 4, 40, u64::MAX].map(|number| sizes.of(number) >> 10), [8, 32, 128, 256, 256, 256]);
    let dir = tempfile::tempdir().unwrap();
    let bytes = |log: &Log<RealDisk>| -> Vec<u64> {
        let segments = 1..=log.segments() as u64 + 1;
        segments
            .filter_map(|number| Some(std::fs::metadata(segment_path(dir.path(), number)).ok()?.len() >> 10))
            .collect()
    };
    let (mut log, _) = open_with(dir.path(), Zxid::ZERO, sizes).unwrap();
    log.prepare_next().unwrap();
    let made = bytes(&log);
    assert_eq!(made, [8, 32]);
    // More than the second takes: it is made anew.
    log.append(&batch(1..51, 900)).unwrap();
    log.sync().unwrap();
    log.prepare_next().unwrap();
    let made = bytes(&log);
    assert_eq!((made[0], made[2]), (8, 128));
    assert!((48..64).contains(&made[1]), "{made:?}");
    // As after a snapshot.
    log.roll().unwrap();
    log.roll().unwrap();
    log.append(&batch(51..60, 900)).unwrap();
    log.sync().unwrap();
    log.roll().unwrap();
    assert_eq!(bytes(&log)[2..], [128, 256]);
    drop(log);
    let (_, records) = open_with(dir.path(), Zxid::ZERO, sizes).unwrap();
    assert_eq!(zxids(&records), (1..60).collect::<Vec<_>>());
}

#[test]
fn what_is_purged_and_has_its_files_yet_does_not_come_back_with_a_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Zxid::ZERO).unwrap();
    for first in (1..1000).step_by(10) {
        log.append(&batch(first..first + 10, 100)).unwrap();
        log.sync().unwrap();
    }
    let purge = log.purge(Zxid(500));
    assert!(purge.len() > 2);
    let (oldest, segments) = (log.oldest(), log.segments());
    log.truncate(Zxid(997)).unwrap();
    assert_eq!((log.oldest(), log.segments()), (oldest, segments));
    assert!(!log.view().holdings().reaches(Zxid(oldest.0 - 1)));
    purge.run().unwrap();
    log.append(&batch(998..999, 100)).unwrap();
    log.sync().unwrap();
    drop(log);
    let (log, records) = open(dir.path(), oldest).unwrap();
    assert_eq!(zxids(&records), (oldest.0 + 1..=998).collect::<Vec<_>>());
    assert_eq!(log.oldest(), oldest);
}

#[test]
fn purged_segments_are_used_again_and_history_reaches_back_to_the_oldest_left() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Zxid::ZERO).unwrap();
    for first in (1..2000).step_by(10) {
        log.append(&batch(first..first + 10, 100)).unwrap();
        log.sync().unwrap();
        if first % 500 == 1 {
            log.purge(Zxid(first.saturating_sub(200))).run().unwrap();
            let names = RealDisk.list(dir.path()).unwrap();
            let recycled = names.iter().filter(|name| name.starts_with("recycled.")).count();
            assert_eq!(recycled > 0, first > 1, "{names:?}");
            let before = names.len();
            log.roll().unwrap();
            let names = RealDisk.list(dir.path()).unwrap();
            assert_eq!(names.len(), before + (first == 1) as usize, "the new segment is a recycled one: {names:?}");
        }
    }
    let oldest = log.oldest();
    assert!(oldest > Zxid(1000) && oldest <= Zxid(1301), "{oldest}");
    drop(log);
    let (_, records) = open(dir.path(), Zxid(1301)).unwrap();
    assert_eq!(zxids(&records), (1302..2001).collect::<Vec<_>>());
    assert!(matches!(open(dir.path(), Zxid(500)), Err(Fatal::HistoryGap { .. })), "the log does not reach back");
}

/// As `cp -al` makes a copy.
#[test]
fn a_purged_segment_that_has_another_name_keeps_its_bytes_under_that() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Zxid::ZERO).unwrap();
    for first in (1..1000).step_by(10) {
        log.append(&batch(first..first + 10, 100)).unwrap();
        log.sync().unwrap();
    }
    let link = |path: &Path, name: &str| {
        let link = dir.path().join(name);
        std::fs::hard_link(path, &link).unwrap();
        (std::fs::read(&link).unwrap(), link)
    };
    let mut links = vec![link(&segment_path(dir.path(), 3), "copy")];
    assert_eq!(links[0].0.len() as u64, SMALL.segment);
    log.purge(Zxid(900)).run().unwrap();
    // One that is purged already can get one, too.
    let names = RealDisk.list(dir.path()).unwrap();
    let recycled: Vec<_> = names.iter().filter(|name| name.starts_with("recycled.")).collect();
    assert_eq!(recycled.len(), 2, "{names:?}");
    links.push(link(&dir.path().join(recycled[0]), "copy of a recycled one"));
    for _ in 0..4 {
        log.roll().unwrap();
        log.prepare_next().unwrap();
    }
    for (bytes, link) in links {
        assert!(std::fs::read(&link).unwrap() == bytes, "{}", link.display());
    }
}

#[test]
fn a_directory_is_locked_by_one_process_and_the_second_is_told_by_whom() {
    let dir = tempfile::tempdir().unwrap();
    let lock = RealDisk.lock(dir.path()).unwrap();
    match RealDisk.lock(dir.path()) {
        Err(Fatal::DataDirLocked { holder_pid, .. }) => assert_eq!(holder_pid, std::process::id()),
        other => panic!("{:?}", other.map(|_| ())),
    }
    drop(lock);
    RealDisk.lock(dir.path()).unwrap();
}

/// S12, also in a log whose checksums are right: what this program would never write.
#[test]
fn s12_a_gap_a_repeat_and_a_step_back_of_zxids_are_damage() {
    use super::record::Kind;
    let epoch = |epoch, counter| Zxid::new(Epoch(epoch), counter);
    let wrong = [Zxid(3), Zxid(5), Zxid(2), epoch(1, 0), epoch(1, 2), Zxid::ZERO];
    for wrong in wrong {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path(), Zxid::ZERO).unwrap();
        log.append(&batch(1..4, 10)).unwrap();
        log.sync().unwrap();
        log.live.group = log.live.end;
        log.live.store(Kind::Record, wrong, b"body");
        log.live.store(Kind::Mark, wrong, &[]);
        log.live.map.sync(log.live.group, log.live.end).unwrap();
        drop(log);
        match open(dir.path(), Zxid::ZERO).map(|_| ()) {
            Err(Fatal::LogCorrupt { last_good, .. }) => assert_eq!(last_good, Zxid(3)),
            other => panic!("{wrong}: {other:?}"),
        }
    }
    assert!(open(tempfile::tempdir().unwrap().path(), Zxid::ZERO).is_ok());
}

type Hook = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

/// Tells of each file that is being removed; and opens no file to be changed, if there is a reason.
#[derive(Clone, Default)]
struct Watched(Hook, Arc<Mutex<Option<io::ErrorKind>>>);

impl Disk for Watched {
    type File = <RealDisk as Disk>::File;
    type Map = <RealDisk as Disk>::Map;
    type Lock = <RealDisk as Disk>::Lock;

    fn create(&self, path: &Path, len: u64) -> io::Result<Self::File> {
        RealDisk.create(path, len)
    }

    fn open(&self, path: &Path) -> io::Result<Self::File> {
        match *self.1.lock() {
            Some(kind) => Err(kind.into()),
            None => RealDisk.open(path),
        }
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Self::File> {
        RealDisk.open_to_read(path)
    }

    fn map(&self, file: Self::File) -> io::Result<Self::Map> {
        RealDisk.map(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if let Some(hook) = &mut *self.0.lock() {
            hook();
        }
        RealDisk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> Result<Self::Lock, Fatal> {
        RealDisk.lock(dir)
    }
}

#[test]
fn the_next_segment_is_there_for_the_writer_while_old_ones_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Watched::default();
    let mut log = Log::create(disk.clone(), dir.path(), Zxid::ZERO, SMALL).unwrap();
    for first in (1..1000).step_by(10) {
        log.append(&batch(first..first + 10, 100)).unwrap();
        log.sync().unwrap();
    }
    log.prepare_next().unwrap();
    let purge = log.purge(Zxid(900));
    let expected = purge.len();
    let (housekeeper, free) = (log.housekeeper().clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = free.clone();
    *disk.0.lock() = Some(Box::new(move || seen.lock().push(housekeeper.prepared_bytes().is_some())));
    purge.run().unwrap();
    *disk.0.lock() = None;
    let free = free.lock();
    assert!(free.len() > 2 && free.len() + 2 >= expected && free.iter().all(|&free| free), "{free:?}");
}

#[test]
fn a_purged_segment_that_can_not_be_opened_now_stays_for_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Watched::default();
    let mut log = Log::create(disk.clone(), dir.path(), Zxid::ZERO, SMALL).unwrap();
    for first in (1..1000).step_by(10) {
        log.append(&batch(first..first + 10, 100)).unwrap();
        log.sync().unwrap();
    }
    log.purge(Zxid(900)).run().unwrap();
    let recycled = || {
        let names = RealDisk.list(dir.path()).unwrap();
        names.into_iter().filter(|name| name.starts_with("recycled.")).count()
    };
    assert_eq!(recycled(), 2);
    let mut zxid = log.durable().0;
    let mut next = |kind| {
        *disk.1.lock() = kind;
        log.prepare_next().unwrap();
        *disk.1.lock() = None;
        zxid += 1;
        log.append(&batch(zxid..zxid + 1, 100)).unwrap();
        log.sync().unwrap();
        log.roll().unwrap();
        recycled()
    };
    assert_eq!(next(Some(io::ErrorKind::Other)), 2, "no descriptor left, no memory: it is as good as before");
    assert_eq!(next(None), 1);
    assert_eq!(next(Some(io::ErrorKind::PermissionDenied)), 0, "somebody else's");
}
