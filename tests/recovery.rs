//! What the log makes of a disk after whatever happened to it. The rules are the fault model's, S1 to S29 as far as they
//! concern the log of one server; each has a test with its number. Nearly all of it runs on the simulated disk: killing
//! a process proves nothing about a sync.
//!
//! "Stops" means: `Recovery` fails with a reason that names the place, and has changed nothing.

use ostler::disk::sim::{Keep, SimDisk};
use ostler::disk::{Disk, RealDisk, SECTOR};
use ostler::fatal::Fatal;
use ostler::ids::{Epoch, Zxid};
use ostler::log::epochs::Epochs;
use ostler::log::inspect::{self, State};
use ostler::log::{Batch, Log, Recovery, Sizes};
use ostler::random::Rng;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

const SIZES: Sizes = Sizes { first: 4 << 10, segment: 8 << 10 };
/// Where records begin in a segment.
const START: usize = 512;

fn dir() -> &'static Path {
    Path::new("/log")
}

fn segment(number: u64) -> PathBuf {
    dir().join(format!("segment.{number:016x}"))
}

fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(dir()).unwrap();
    disk
}

/// The body that record `zxid` has in every test: of all lengths, most without a zero, some nothing but zeros.
fn body(zxid: u64) -> Vec<u8> {
    let length = (zxid * 37 % 300) as usize;
    match zxid % 11 {
        7 => vec![0; length * 4],
        _ => (0..length).map(|i| (zxid as usize * 31 + i * 7) as u8 | 1).collect(),
    }
}

fn batch(zxids: RangeInclusive<u64>) -> Batch {
    let mut batch = Batch::new();
    for zxid in zxids {
        batch.push(Zxid(zxid), &body(zxid));
    }
    batch
}

fn append(log: &mut Log<SimDisk>, zxids: RangeInclusive<u64>) -> Result<u64, Fatal> {
    log.append(&batch(zxids))?;
    Ok(log.sync()?.up_to().0)
}

/// Recovers and returns the last zxid. Each record must be the one that was appended, and none may be missing.
fn recover(disk: &SimDisk, from: u64) -> Result<(Log<SimDisk>, u64), Fatal> {
    let mut recovery = Recovery::open(disk.clone(), dir(), Zxid(from), SIZES)?;
    let mut last = from;
    while let Some((zxid, bytes)) = recovery.next()? {
        assert_eq!(zxid, Zxid(last + 1), "a record is missing");
        assert_eq!(bytes, body(zxid.0), "record {zxid} is another");
        last += 1;
    }
    let log = recovery.finish()?;
    assert_eq!(log.durable(), Zxid(last));
    Ok((log, last))
}

#[track_caller]
fn recovered(disk: &SimDisk) -> u64 {
    recover(disk, 0).unwrap_or_else(|fatal| panic!("{fatal}")).1
}

/// Recovery must fail, and must leave every file as it was.
#[track_caller]
fn assert_stops(disk: &SimDisk, what: &str) -> Fatal {
    let before = image(disk);
    let fatal = match recover(disk, 0) {
        Ok((_, last)) => panic!("{what}: recovered up to {last}"),
        Err(fatal) => fatal,
    };
    assert_eq!(image(disk), before, "{what}: changed something");
    assert!(matches!(fatal.exit_status(), 10 | 11), "{fatal}");
    fatal
}

fn image(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list(dir()).unwrap();
    names.into_iter().map(|name| (name.clone(), disk.contents(&dir().join(name)).unwrap())).collect()
}

/// A copy of the disk to damage.
fn copy(disk: &SimDisk) -> SimDisk {
    disk.after_crash(Keep::Everything)
}

/// A log of several segments in groups of 1 to 4 records, all acknowledged and settled; and its last zxid.
fn filled() -> (SimDisk, u64) {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, 0).unwrap();
    let mut last = 0;
    for group in 0..40 {
        last = append(&mut log, last + 1..=last + 1 + group % 4).unwrap();
    }
    log.settle().unwrap();
    (disk, last)
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list(dir()).unwrap();
    names.iter().filter(|name| name.starts_with("segment.")).map(|name| dir().join(name)).collect()
}

fn recycled(disk: &SimDisk) -> usize {
    disk.list(dir()).unwrap().iter().filter(|name| name.starts_with("recycled.")).count()
}

/// Offset behind the last byte that is not zero.
fn end_of(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1)
}

/// Where the headers of a segment's records and marks begin.
fn headers(bytes: &[u8]) -> Vec<usize> {
    let is_header = |at: &usize| [*b"DCER", *b"KRAM"].iter().any(|kind| bytes[at + 28..at + 32] == kind[..]);
    (START..bytes.len() - 31).step_by(32).filter(is_header).collect()
}

/// A group that was acknowledged and followed by nothing, so that the watermark does not cover it; what comes before it
/// is covered. With the offsets between which it lies.
fn one_segment(group: RangeInclusive<u64>) -> (SimDisk, usize, usize) {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, 0).unwrap();
    append(&mut log, 1..=*group.start() - 1).unwrap();
    let before = end_of(&disk.contents(&segment(1)).unwrap());
    append(&mut log, group).unwrap();
    let after = end_of(&disk.contents(&segment(1)).unwrap());
    (disk, before.next_multiple_of(32), after)
}

#[test]
fn s2_a_record_that_ends_in_zeros_at_any_byte_is_a_torn_tail() {
    for last in [3, 7, 10] {
        let (disk, from, to) = one_segment(last..=last);
        let whole = disk.contents(&segment(1)).unwrap();
        let mark = headers(&whole).pop().unwrap();
        let complete = end_of(&whole[..mark]);
        for cut in from..=to {
            let disk = copy(&disk);
            disk.damage(&segment(1), |bytes| bytes[cut..].fill(0));
            let expected = if cut >= complete { last } else { last - 1 };
            assert_eq!(recovered(&disk), expected, "{cut} of {from}..{to}");
            assert_eq!(recovered(&disk), expected, "again");
        }
    }
}

#[test]
fn s3_every_subset_of_the_sectors_of_the_last_group_is_a_torn_tail() {
    let (disk, from, to) = one_segment(4..=9);
    let sectors: Vec<usize> = (from / SECTOR..to.div_ceil(SECTOR)).collect();
    assert!((3..=8).contains(&sectors.len()), "{sectors:?}");
    let mut ends = BTreeSet::new();
    for subset in 0..1usize << sectors.len() {
        let disk = copy(&disk);
        disk.damage(&segment(1), |bytes| {
            for (_, &sector) in sectors.iter().enumerate().filter(|(index, _)| subset >> index & 1 == 0) {
                // As the sync before left it: what lies before the group, then zeros.
                bytes[(sector * SECTOR).max(from)..(sector + 1) * SECTOR].fill(0);
            }
        });
        let last = recovered(&disk);
        assert!((3..=9).contains(&last), "subset {subset:b}: {last}");
        ends.insert(last);
        assert_eq!(recovered(&disk), last, "again");
    }
    assert_eq!(ends.last(), Some(&9));
    assert!(ends.len() > 2, "{ends:?}");
}

#[test]
fn s4_what_looks_torn_below_the_watermark_or_in_a_closed_segment_is_damage() {
    let (disk, _) = filled();
    for path in segments(&disk) {
        let end = end_of(&disk.contents(&path).unwrap());
        for sectors in 1..=3 {
            let from = (end.div_ceil(SECTOR) - sectors) * SECTOR;
            let disk = copy(&disk);
            disk.damage(&path, |bytes| bytes[from..].fill(0));
            let fatal = assert_stops(&disk, &format!("{} from {from}", path.display()));
            assert!(matches!(fatal, Fatal::LogCorrupt { .. }), "{fatal}");
        }
    }
}

#[test]
fn s5_s6_every_flipped_bit_of_a_record_stops() {
    let (disk, _) = filled();
    let paths = segments(&disk);
    for path in [&paths[0], &paths[paths.len() / 2], &paths[paths.len() - 1]] {
        let whole = disk.contents(path).unwrap();
        let headers = headers(&whole);
        for index in [0, headers.len() / 2, headers.len() - 2] {
            // The bytes behind the guard are padding: nothing was said with them.
            let used = end_of(&whole[..headers[index + 1]]);
            for bit in headers[index] * 8..used * 8 {
                let flip = |bytes: &mut Vec<u8>| bytes[bit / 8] ^= 1 << (bit % 8);
                disk.damage(path, flip);
                let fatal = assert_stops(&disk, &format!("{} bit {bit}", path.display()));
                assert!(matches!(fatal, Fatal::LogCorrupt { file, .. } if file == *path));
                disk.damage(path, flip);
            }
        }
    }
}

#[test]
fn s5_a_flipped_bit_in_the_last_group_stops_even_above_the_watermark() {
    let (disk, from, to) = one_segment(5..=6);
    let whole = disk.contents(&segment(1)).unwrap();
    let mut borders: Vec<usize> = headers(&whole).into_iter().filter(|&at| at >= from).collect();
    borders.push(to);
    let mut flipped = 0;
    for record in borders.windows(2) {
        let used = end_of(&whole[..record[1]]);
        for bit in record[0] * 8..used * 8 {
            let flip = |bytes: &mut Vec<u8>| bytes[bit / 8] ^= 1 << (bit % 8);
            disk.damage(&segment(1), flip);
            assert_stops(&disk, &format!("bit {bit}"));
            disk.damage(&segment(1), flip);
            flipped += 1;
        }
    }
    assert!(flipped > 1000);
}

#[test]
fn s6_absurd_lengths_stop() {
    let (disk, _) = filled();
    let path = &segments(&disk)[0];
    let at = headers(&disk.contents(path).unwrap())[2];
    for length in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let disk = copy(&disk);
        disk.damage(path, |bytes| bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(length)));
        assert_stops(&disk, &format!("length {length}"));
    }
}

#[test]
fn s7_every_zeroed_sector_stops() {
    let (disk, _) = filled();
    for path in segments(&disk) {
        let whole = disk.contents(&path).unwrap();
        for sector in 0..end_of(&whole).div_ceil(SECTOR) {
            let place = sector * SECTOR..(sector + 1) * SECTOR;
            if whole[place.clone()].iter().all(|&byte| byte == 0) {
                continue; // It was zero before: part of a body of zeros.
            }
            let disk = copy(&disk);
            disk.damage(&path, |bytes| bytes[place].fill(0));
            assert_stops(&disk, &format!("{} sector {sector}", path.display()));
        }
    }
}

#[test]
fn s8_a_valid_record_in_another_ones_place_stops() {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, 0).unwrap();
    for first in (1..=605).step_by(4) {
        append(&mut log, first..=first + 3).unwrap();
    }
    log.settle().unwrap();
    let mut places = std::collections::BTreeMap::new();
    for path in segments(&disk) {
        let bytes = disk.contents(&path).unwrap();
        for at in headers(&bytes).into_iter().filter(|at| bytes[at + 28] == b'D') {
            let zxid = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
            places.insert(zxid, (path.clone(), at));
        }
    }
    // 300 apart, bodies have one length.
    for (from, to) in [(301, 1), (1, 301), (305, 5), (605, 305)] {
        let length = 32 + body(from).len() + 1;
        assert_eq!(body(from).len(), body(to).len());
        let (path, at) = &places[&from];
        let record = disk.contents(path).unwrap()[*at..at + length].to_vec();
        let (path, at) = &places[&to];
        let disk = copy(&disk);
        disk.damage(path, |bytes| bytes[*at..at + length].copy_from_slice(&record));
        assert_stops(&disk, &format!("{from} over {to}"));
    }
}

#[test]
fn s9_a_sync_that_lied_is_found_out_by_the_watermark_or_the_chain() {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, 0).unwrap();
    append(&mut log, 1..=2).unwrap();
    disk.lose_syncs_of(Some(&segment(1)));
    append(&mut log, 3..=4).unwrap();
    log.settle().unwrap();
    assert_stops(&disk.after_crash(Keep::Nothing), "a whole lost tail");

    let disk = new_disk();
    let (mut log, _) = recover(&disk, 0).unwrap();
    append(&mut log, 1..=2).unwrap();
    let before = disk.contents(&segment(1)).unwrap();
    append(&mut log, 3..=8).unwrap();
    append(&mut log, 9..=10).unwrap();
    let disk = disk.after_crash(Keep::Nothing);
    // One sector of the middle group never got there; the watermark did not get there either.
    disk.damage(&segment(1), |bytes| bytes[3 * SECTOR..4 * SECTOR].copy_from_slice(&before[3 * SECTOR..4 * SECTOR]));
    assert_stops(&disk, "a lost sector with another group behind it");
}

#[test]
fn s10_records_of_an_earlier_use_of_a_file_are_never_read() {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, 0).unwrap();
    let mut last = 0;
    while recycled(&disk) == 0 {
        last = append(&mut log, last + 1..=last + 5).unwrap();
        log.purge(Zxid(last)).run().unwrap();
    }
    let snapshot = last;
    let files = disk.list(dir()).unwrap().len();
    log.roll().unwrap();
    last = append(&mut log, last + 1..=last + 2).unwrap();
    assert_eq!((recycled(&disk), disk.list(dir()).unwrap().len()), (0, files), "the old file is in use again");
    for keep in [Keep::Nothing, Keep::Everything, Keep::Names, Keep::Bytes] {
        assert_eq!(recover(&disk.after_crash(keep), snapshot).unwrap().1, last);
    }
}

#[test]
fn s11_s22_missing_exchanged_and_doubled_files_stop() {
    let (disk, last) = filled();
    let paths = segments(&disk);
    assert!(paths.len() >= 4, "{}", paths.len());
    for path in &paths {
        let disk = copy(&disk);
        disk.lose_file(path);
        let fatal = assert_stops(&disk, &format!("without {}", path.display()));
        assert!(matches!(fatal, Fatal::HistoryGap { .. }), "{fatal}");
    }
    for (one, other) in [(0, 1), (1, 2), (2, 1)] {
        let disk = copy(&disk);
        disk.put(&paths[other], disk.contents(&paths[one]).unwrap());
        assert_stops(&disk, "a segment under another one's name");
    }
    let doubled = copy(&disk);
    doubled.put(&segment(paths.len() as u64 + 1), disk.contents(&paths[1]).unwrap());
    assert_stops(&doubled, "a segment twice");
    let without = copy(&disk);
    without.lose_file(&dir().join("watermark"));
    assert_stops(&without, "no watermark");
    for path in &paths {
        without.lose_file(path);
    }
    assert!(matches!(recover(&without, 5), Err(Fatal::HistoryGap { .. })), "a snapshot, but no log");
    assert_eq!(recovered(&without), 0, "nothing at all is a new server");
    assert_eq!(recovered(&disk), last);
}

#[test]
fn s11_another_logs_segment_of_the_same_number_stops() {
    let (disk, _) = filled();
    let other = new_disk();
    let (mut log, _) = recover(&other, 0).unwrap();
    let mut last = 0;
    for group in 0..40 {
        // The same records in other groups.
        last = append(&mut log, last + 1..=last + 1 + group % 5).unwrap();
    }
    disk.put(&segment(2), other.contents(&segment(2)).unwrap());
    assert_stops(&disk, "a foreign segment");
}

#[test]
fn s11_a_segment_with_the_same_zxids_and_other_contents_stops() {
    let (disk, _) = filled();
    let other = new_disk();
    let (mut log, _) = recover(&other, 0).unwrap();
    let mut last = 0;
    for group in 0..40 {
        let mut batch = Batch::new();
        for zxid in last + 1..=last + 1 + group % 4 {
            batch.push(Zxid(zxid), &body(zxid).iter().map(|byte| byte ^ 0x40).collect::<Vec<_>>());
        }
        last = batch.last_zxid().unwrap().0;
        log.append(&batch).unwrap();
        log.sync().unwrap();
    }
    let ours = disk.contents(&segment(2)).unwrap();
    disk.put(&segment(2), other.contents(&segment(2)).unwrap());
    assert_eq!(ours[32..48], disk.contents(&segment(2)).unwrap()[32..48], "only the chain can tell");
    assert_stops(&disk, "the same segment of another history");
}

#[test]
fn s12_a_snapshot_that_is_not_in_the_history_stops() {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, 0).unwrap();
    append(&mut log, 1..=5).unwrap();
    let mut batch = Batch::new();
    batch.push(Zxid::new(Epoch(2), 1), b"epoch 2");
    log.append(&batch).unwrap();
    log.sync().unwrap();
    let open = |from| {
        let mut recovery = Recovery::open(disk.clone(), dir(), from, SIZES)?;
        let mut count = 0;
        while recovery.next()?.is_some() {
            count += 1;
        }
        recovery.finish().map(|_| count)
    };
    assert_eq!(open(Zxid(5)).unwrap(), 1);
    assert_eq!(open(Zxid::new(Epoch(2), 1)).unwrap(), 0);
    // The state in which an epoch begins is that of everything before it.
    for (epoch, behind) in [(1, 1), (2, 1), (3, 0)] {
        assert_eq!(open(Zxid::new(Epoch(epoch), 0)).unwrap(), behind, "epoch {epoch}");
    }
    for from in [Zxid(6), Zxid::new(Epoch(1), 1), Zxid::new(Epoch(2), 2), Zxid::new(Epoch(3), 1)] {
        assert!(matches!(open(from), Err(Fatal::HistoryGap { .. })), "{from}");
    }
}

#[test]
fn s16_a_full_disk_lets_the_present_segment_fill_and_then_stops_without_half_a_state() {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, 0).unwrap();
    disk.limit(Some(SIZES.first + 5_000));
    assert!(matches!(log.housekeeper().prepare_next(), Err(Fatal::DiskFull { .. })), "no reason to stop yet");
    let mut acknowledged = 0;
    let fatal = loop {
        match append(&mut log, acknowledged + 1..=acknowledged + 2) {
            Ok(up_to) => acknowledged = up_to,
            Err(fatal) => break fatal,
        }
    };
    assert!(matches!(fatal, Fatal::DiskFull { .. }), "{fatal}");
    assert!(acknowledged > 4);
    disk.limit(None);
    for keep in [Keep::Nothing, Keep::Everything, Keep::Some(1), Keep::Some(2)] {
        assert_eq!(recovered(&disk.after_crash(keep)), acknowledged);
    }
}

#[test]
fn s17_a_segment_that_was_shortened_stops_or_still_has_everything() {
    let (disk, last) = filled();
    let live = segments(&disk).pop().unwrap();
    let end = end_of(&disk.contents(&live).unwrap());
    for length in [0, 100, 512, 600, end / 2, end - 1, end, end + 100] {
        let disk = copy(&disk);
        disk.damage(&live, |bytes| bytes.truncate(length));
        match recover(&disk, 0) {
            Ok((_, recovered)) => assert_eq!(recovered, last, "{length}"),
            Err(fatal) => assert!(length < end, "{length}: {fatal}"),
        }
    }
}

#[test]
fn s18_after_a_failed_sync_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    fn run(disk: &SimDisk, acknowledged: &mut u64) -> Result<(), Fatal> {
        let (mut log, _) = recover(disk, 0)?;
        for group in 0..12 {
            log.append(&batch(*acknowledged + 1..=*acknowledged + 1 + group % 3))?;
            match log.sync() {
                Ok(durable) => *acknowledged = durable.up_to().0,
                Err(fatal) => {
                    assert!(log.sync().is_err(), "a sync is never tried again");
                    assert!(log.append(&batch(1..=1)).is_err(), "nothing is appended any more");
                    return Err(fatal);
                }
            }
            log.prepare_next()?;
        }
        log.settle()
    }
    let disk = new_disk();
    run(&disk, &mut 0).unwrap();
    let syncs = disk.syncs();
    assert!(syncs > 20, "{syncs}");
    for number in 1..=syncs {
        let disk = new_disk();
        disk.fail_sync(number);
        let mut acknowledged = 0;
        let result = run(&disk, &mut acknowledged);
        assert!(matches!(result, Err(Fatal::SyncFailed { .. })), "sync {number}: {result:?}");
        for keep in [Keep::Nothing, Keep::Everything, Keep::Some(number), Keep::Some(number + 1000)] {
            let last = recovered(&disk.after_crash(keep));
            assert!(last >= acknowledged, "sync {number}, {keep:?}: {last} of {acknowledged}");
        }
    }
}

#[test]
fn s18_what_only_the_cache_has_after_a_failed_sync_is_not_recovered() {
    let disk = new_disk();
    let (mut log, _) = recover(&disk, 0).unwrap();
    append(&mut log, 1..=2).unwrap();
    disk.fail_sync(disk.syncs() + 1);
    assert!(append(&mut log, 3..=4).is_err());
    drop(log);
    // The same machine goes on; only the process has gone.
    assert_eq!(recovered(&disk), 2);
}

#[test]
fn s19_a_sector_that_can_not_be_read_stops() {
    let (disk, _) = filled();
    for path in segments(&disk) {
        for sector in [0, 1, 3] {
            let disk = copy(&disk);
            disk.break_sector(&path, sector);
            assert!(matches!(assert_stops(&disk, "EIO"), Fatal::Io { .. }));
        }
    }
}

/// What a scenario has told its clients when the power goes off.
#[derive(Clone, Copy, Default, Debug)]
struct Told {
    acknowledged: u64,
    /// Zxid of the oldest snapshot, durable before a purge.
    snapshot: u64,
    appended: u64,
}

impl Told {
    fn append(&mut self, log: &mut Log<SimDisk>, count: u64) -> Result<(), Fatal> {
        self.appended += count;
        self.acknowledged = append(log, self.acknowledged + 1..=self.appended)?;
        Ok(())
    }
}

/// Appends, prepares, rolls, settles, purges, recycles, restarts; everything that a log does in its life.
fn life(disk: &SimDisk, told: &mut Told) -> Result<(), Fatal> {
    let (mut log, _) = recover(disk, told.snapshot)?;
    told.append(&mut log, 1)?;
    told.append(&mut log, 3)?;
    log.prepare_next()?;
    for _ in 0..4 {
        told.append(&mut log, 4)?;
    }
    log.roll()?;
    told.append(&mut log, 2)?;
    log.settle()?;
    told.snapshot = told.acknowledged - 1;
    log.purge(Zxid(told.snapshot)).run()?;
    for _ in 0..6 {
        told.append(&mut log, 6)?;
    }
    log.prepare_next()?;
    told.snapshot = told.acknowledged;
    log.purge(Zxid(told.snapshot)).run()?;
    log.roll()?;
    told.append(&mut log, 1)?;
    log.prepare_next()?;
    drop(log);
    let (mut log, last) = recover(disk, told.snapshot)?;
    assert_eq!(last, told.acknowledged);
    told.append(&mut log, 40)?;
    told.append(&mut log, 1)?;
    told.snapshot = told.acknowledged;
    log.purge(Zxid(told.snapshot)).run()?;
    log.prepare_next()?;
    told.append(&mut log, 5)
}

#[test]
fn s1_s13_s15_s25_s26_a_crash_after_any_operation_loses_nothing_acknowledged() {
    let disk = new_disk();
    let first = disk.operations();
    life(&disk, &mut Told::default()).unwrap();
    let last = disk.operations();
    assert!(recycled(&disk) > 0 && segment(1) != segments(&disk)[0], "it purged and recycled");
    assert!(last - first > 400, "{}", last - first);
    let mut images = 0;
    for count in first..=last {
        let disk = new_disk();
        disk.stop_after(count);
        let mut told = Told::default();
        let result = life(&disk, &mut told);
        assert_eq!(result.is_ok(), count == last, "operation {count}: {result:?}");
        let seeds = (0..4).map(|seed| Keep::Some(seed * 1_000_003 + count));
        for keep in [Keep::Nothing, Keep::Everything, Keep::Bytes, Keep::Names].into_iter().chain(seeds) {
            check_image(&disk.after_crash(keep), told, count, keep);
            images += 1;
        }
    }
    assert!(images > 3_000, "{images}");
}

/// Recovery of one image: whole, then appended to; and interrupted, then again.
fn check_image(found: &SimDisk, told: Told, count: u64, keep: Keep) {
    let what = || format!("after operation {count}, {keep:?}, {told:?}");
    let untouched = copy(found);
    let (mut log, last) = recover(found, told.snapshot).unwrap_or_else(|fatal| panic!("{}: {fatal}", what()));
    assert!((told.acknowledged..=told.appended).contains(&last), "{}: {last}", what());
    let operations = found.operations();
    append(&mut log, last + 1..=last + 2).unwrap();
    drop(log);
    let again = recover(found, told.snapshot).unwrap_or_else(|fatal| panic!("{}, appended to: {fatal}", what())).1;
    assert_eq!(again, last + 2, "{}", what());

    let mut rng = Rng::new(count);
    for _ in 0..2 {
        let disk = copy(&untouched);
        disk.stop_after(rng.below(operations + 1));
        let _ = recover(&disk, told.snapshot);
        let disk = disk.after_crash(Keep::Some(rng.next()));
        let again = recover(&disk, told.snapshot).unwrap_or_else(|fatal| panic!("{}, twice: {fatal}", what())).1;
        assert_eq!(again, last, "{}, twice", what());
    }
}

#[test]
fn s1_a_killed_process_leaves_every_prefix_of_its_stores_readable() {
    let run = |stop_after: Option<u64>| {
        let disk = new_disk();
        let (mut log, _) = recover(&disk, 0).unwrap();
        append(&mut log, 1..=2).unwrap();
        let before = disk.operations();
        if let Some(count) = stop_after {
            disk.stop_after(before + count);
        }
        let _ = append(&mut log, 3..=10);
        let stores = disk.operations() - before;
        (disk, stores)
    };
    let mut ends = BTreeSet::new();
    for count in 0..=run(None).1 {
        ends.insert(recovered(&run(Some(count)).0.after_crash(Keep::Everything)));
    }
    assert_eq!(ends, (2..=10).collect(), "each record is there as soon as its header is");
}

#[test]
fn s1_what_recovery_hands_out_survives_the_next_power_cut() {
    for stores in 0..60 {
        let disk = new_disk();
        let (mut log, _) = recover(&disk, 0).unwrap();
        append(&mut log, 1..=2).unwrap();
        let keep_all = disk.operations() + stores;
        disk.stop_after(keep_all);
        let _ = log.append(&batch(3..=10));
        drop(log);
        // The process was killed; the machine goes on, and what was stored is in its memory only.
        disk.stop_after(u64::MAX);
        let last = recovered(&disk);
        assert_eq!(recovered(&disk.after_crash(Keep::Nothing)), last, "after {stores} stores");
    }
}

#[test]
fn s14_s15_s29_an_epoch_record_is_the_old_one_or_the_new_one_at_every_crash() {
    let (old, new) = (Epochs::new(Epoch(4), Epoch(3)), Epochs::new(Epoch(5), Epoch(5)));
    let disk = new_disk();
    let first = disk.operations();
    old.store(&disk, dir()).unwrap();
    let between = disk.operations();
    new.store(&disk, dir()).unwrap();
    let last = disk.operations();
    let mut seen = BTreeSet::new();
    for count in first..=last {
        let disk = new_disk();
        disk.stop_after(count);
        let result = old.store(&disk, dir()).and_then(|()| new.store(&disk, dir()));
        let keeps = [Keep::Nothing, Keep::Everything, Keep::Bytes, Keep::Names];
        for keep in keeps.into_iter().chain((0..16).map(Keep::Some)) {
            let found = Epochs::load(&disk.after_crash(keep), dir()).unwrap();
            match found {
                None => assert!(count < between, "operation {count}, {keep:?}"),
                Some(epochs) => assert!(epochs == old || epochs == new, "{epochs:?}"),
            }
            if result.is_ok() {
                assert_eq!(found, Some(new));
            }
            seen.insert(found.map(|epochs| epochs.accepted));
        }
    }
    assert_eq!(seen.len(), 3, "none, the old one, the new one");
}

#[test]
fn s29_a_damaged_epoch_record_stops_and_an_interrupted_update_is_finished() {
    let disk = new_disk();
    assert_eq!(Epochs::load(&disk, dir()).unwrap(), None);
    Epochs::new(Epoch(7), Epoch(6)).store(&disk, dir()).unwrap();
    let path = dir().join("epochs");
    let length = disk.contents(&path).unwrap().len();
    for bit in 0..length * 8 {
        let flip = |bytes: &mut Vec<u8>| bytes[bit / 8] ^= 1 << (bit % 8);
        disk.damage(&path, flip);
        assert!(Epochs::load(&disk, dir()).is_err(), "bit {bit}");
        disk.damage(&path, flip);
    }
    for length in 0..length {
        let disk = copy(&disk);
        disk.damage(&path, |bytes| bytes.truncate(length));
        assert!(Epochs::load(&disk, dir()).is_err(), "{length} bytes");
    }
    let reconcile = |stored, last| Epochs::reconcile(stored, last, dir());
    let at = |epoch| Zxid::new(Epoch(epoch), 9);
    let epochs = |accepted, current| Some(Epochs::new(Epoch(accepted), Epoch(current)));
    assert_eq!(reconcile(None, Zxid::ZERO).unwrap(), Epochs::default(), "a new server");
    assert_eq!(reconcile(None, at(0)).unwrap(), Epochs::default(), "a server that was alone");
    assert!(reconcile(None, at(1)).is_err(), "missing on a database with history");
    assert_eq!(reconcile(epochs(7, 6), at(6)).unwrap(), Epochs::new(Epoch(7), Epoch(6)));
    assert_eq!(reconcile(epochs(7, 6), at(7)).unwrap(), Epochs::new(Epoch(7), Epoch(7)), "the last step was missing");
    assert_eq!(reconcile(epochs(7, 6), at(5)).unwrap(), Epochs::new(Epoch(7), Epoch(6)), "nothing yet in epoch 6");
    assert!(reconcile(epochs(7, 6), at(8)).is_err(), "history of an epoch that was never accepted");
}

const CHILD: &str = "child_that_stores_beyond_the_end_of_its_file";

#[test]
#[ignore = "needs to be run by s17_a_store_beyond_the_end_of_its_file_ends_the_process_with_a_message"]
fn child_that_stores_beyond_the_end_of_its_file() {
    let Some(dir) = std::env::var_os("OSTLER_TEST_LOG_DIR").map(PathBuf::from) else { return };
    let mut log = Recovery::open(RealDisk, &dir, Zxid::ZERO, SIZES).unwrap().finish().unwrap();
    log.append(&batch(1..=1)).unwrap();
    log.sync().unwrap();
    let path = dir.join("segment.0000000000000001");
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    log.append(&batch(2..=2)).unwrap();
    log.sync().unwrap();
    println!("the store went through");
}

#[test]
fn s17_a_store_beyond_the_end_of_its_file_ends_the_process_with_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--ignored", "--nocapture"])
        .env("OSTLER_TEST_LOG_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(10), "{said}");
    assert!(said.contains("SIGBUS"), "{said}");
    assert!(!String::from_utf8_lossy(&child.stdout).contains("went through"));
    assert!(Recovery::open(RealDisk, dir.path(), Zxid::ZERO, SIZES).is_err(), "the acknowledged record is gone");
}

#[test]
fn links_directories_and_foreign_names_in_the_directory_are_no_segments() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Recovery::open(RealDisk, dir.path(), Zxid::ZERO, SIZES).and_then(Recovery::finish);
    let mut log = open().unwrap();
    log.append(&batch(1..=3)).unwrap();
    log.sync().unwrap();
    drop(log);
    for name in ["segment.1", "segment.000000000000000G", "segment.00000000000000FF", "log.1", "snapshot.0"] {
        std::fs::write(dir.path().join(name), b"foreign").unwrap();
    }
    assert_eq!(open().unwrap().durable(), Zxid(3));
    let second = dir.path().join("segment.0000000000000002");
    std::os::unix::fs::symlink("/dev/null", &second).unwrap();
    assert!(matches!(open(), Err(Fatal::Io { .. })));
    std::fs::remove_file(&second).unwrap();
    std::fs::create_dir(&second).unwrap();
    assert!(matches!(open(), Err(Fatal::Io { .. })));
}

#[test]
fn a_survey_shows_what_each_segment_holds_and_the_first_bad_place() {
    let (disk, last) = filled();
    let (surveys, watermark) = inspect::survey(&disk, dir()).unwrap();
    assert!(surveys.iter().all(|survey| survey.state == State::Good), "{surveys:?}");
    assert_eq!(surveys.iter().map(|survey| survey.records).sum::<u64>(), last);
    assert_eq!(surveys.iter().map(|survey| survey.groups).sum::<u64>(), 40);
    assert_eq!(watermark.unwrap().unwrap().zxid, Zxid(last));
    let second = surveys[1].clone();
    disk.damage(&second.path, |bytes| bytes[1000] ^= 1);
    let (surveys, _) = inspect::survey(&disk, dir()).unwrap();
    assert!(matches!(surveys[1].state, State::Damaged { offset, .. } if offset <= 1000), "{:?}", surveys[1]);
    assert!(surveys[1].records < second.records);
    assert_eq!(surveys.iter().filter(|survey| survey.state == State::Good).count(), surveys.len() - 1);

    // What may not be read says nothing of what it holds, nor of the one before it.
    let (disk_of_others, _) = filled();
    disk_of_others.forbid(&second.path);
    let (surveys, _) = inspect::survey(&disk_of_others, dir()).unwrap();
    assert!(!matches!(surveys[1].state, State::Damaged { .. }), "{:?}", surveys[1]);
    assert!(matches!(surveys[1].damage(), Some(Fatal::Io { file, source })
        if file == second.path && source.kind() == std::io::ErrorKind::PermissionDenied));
    assert_eq!(surveys.iter().filter(|survey| survey.state == State::Good).count(), surveys.len() - 1);

    let (torn, from, _) = one_segment(4..=9);
    torn.damage(&segment(1), |bytes| bytes[from + 40..].fill(0));
    assert_eq!(inspect::survey(&torn, dir()).unwrap().0[0].state, State::Torn);
    let mark = dir().join("watermark");
    let seen = |how: &dyn Fn(&SimDisk)| {
        let disk = copy(&disk);
        how(&disk);
        inspect::survey(&disk, dir()).unwrap().1
    };
    assert!(matches!(seen(&|disk| disk.lose_file(&mark)), Ok(None)));
    assert!(matches!(seen(&|disk| disk.damage(&mark, |bytes| bytes.fill(1))), Err(Fatal::LogCorrupt { .. })));
    assert!(matches!(seen(&|disk| disk.break_sector(&mark, 0)), Err(Fatal::Io { .. })));
    for path in segments(&disk) {
        let disk = copy(&disk);
        disk.lose_file(&path);
        let _ = inspect::survey(&disk, dir()).unwrap();
    }
}

#[test]
fn a_cut_gives_up_what_is_behind_it_and_keeps_the_files() {
    let (disk, last) = filled();
    let path = segment(2);
    let damaged = disk.contents(&path).unwrap();
    let at = headers(&damaged)[5];
    disk.damage(&path, |bytes| bytes[at + 1] ^= 1);
    let Fatal::LogCorrupt { last_good, file, offset, .. } = assert_stops(&disk, "damage") else { panic!() };
    assert_eq!((&file, offset), (&path, at as u64));
    assert!(inspect::cut(&disk, dir(), Zxid(last_good.0 + 1)).is_err(), "beyond the damage");
    let before = disk.operations();
    let whole = copy(&disk);
    inspect::cut(&disk, dir(), last_good).unwrap();
    let operations = disk.operations() - before;
    assert_eq!(recovered(&disk), last_good.0);
    assert!(last_good.0 < last);
    let kept = disk.list(dir()).unwrap().iter().filter(|name| name.starts_with("cut.")).count();
    assert_eq!(kept, segments(&whole).len() - 1, "the cut one and all behind it");

    // A second cut, of segments whose numbers have been used again, leaves alone what the first has set aside.
    let twice = copy(&disk);
    let aside = |name: &str| twice.contents(&dir().join(format!("{name}segment.{:016x}", 2)));
    let first = aside("cut.").unwrap();
    inspect::cut(&twice, dir(), Zxid(last_good.0 - 1)).unwrap();
    assert_eq!(recovered(&twice), last_good.0 - 1);
    assert!(aside("cut.").unwrap() == first && aside("cut.2.").is_some_and(|second| second != first));

    for count in 0..=operations {
        let disk = copy(&whole);
        disk.stop_after(disk.operations() + count);
        let done = inspect::cut(&disk, dir(), last_good).is_ok();
        for keep in [Keep::Nothing, Keep::Everything, Keep::Bytes, Keep::Names, Keep::Some(count)] {
            let disk = disk.after_crash(keep);
            match recover(&disk, 0) {
                Ok((_, found)) => assert_eq!(found, last_good.0, "operation {count}, {keep:?}"),
                Err(_) => assert!(!done || keep != Keep::Everything, "operation {count}, {keep:?}"),
            }
            // Another place instead: whatever the first had set aside is still there, whole.
            let other = copy(&disk);
            inspect::cut(&other, dir(), Zxid(2)).unwrap_or_else(|fatal| panic!("{count}, {keep:?}: {fatal}"));
            assert_eq!(recovered(&other), 2);
            let there: Vec<Vec<u8>> =
                other.list(dir()).unwrap().iter().filter_map(|name| other.contents(&dir().join(name))).collect();
            for path in segments(&whole) {
                assert!(there.contains(&whole.contents(&path).unwrap()), "{path:?}: {count}, {keep:?}");
            }
            inspect::cut(&disk, dir(), last_good).unwrap_or_else(|fatal| panic!("{count}, {keep:?}: {fatal}"));
            assert_eq!(recovered(&disk), last_good.0);
        }
    }
}

#[test]
fn a_cut_needs_nothing_of_the_segments_in_front_of_its_own() {
    let (disk, _) = filled();
    let (surveys, _) = inspect::survey(&disk, dir()).unwrap();
    let (first, last) = surveys[2].zxids.unwrap();
    let up_to = Zxid(last.0 - 1);
    disk.damage(&segment(1), |bytes| bytes[START + 40] ^= 1);
    // From a snapshot on, recovery does not look there either.
    inspect::cut(&disk, dir(), up_to).unwrap_or_else(|fatal| panic!("{fatal}"));
    assert_eq!(recover(&disk, first.0).unwrap().1, up_to.0);
}

#[test]
fn a_cut_does_not_need_what_is_behind_it() {
    let (disk, _) = filled();
    let (surveys, _) = inspect::survey(&disk, dir()).unwrap();
    let (first, last) = surveys[1].zxids.unwrap();
    let up_to = Zxid((first.0 + last.0) / 2);
    let whole = disk.contents(&segment(2)).unwrap();
    let bad = surveys[1].end as usize / SECTOR - 1;
    disk.break_sector(&segment(2), bad as u64);
    for _ in 0..2 {
        inspect::cut(&disk, dir(), up_to).unwrap_or_else(|fatal| panic!("{fatal}"));
        assert_eq!(recovered(&disk), up_to.0);
        let mut kept = disk.contents(&dir().join("cut.segment.0000000000000002")).unwrap();
        assert!(kept[bad * SECTOR..][..SECTOR].iter().all(|&byte| byte == 0), "nobody can read that");
        kept[bad * SECTOR..][..SECTOR].copy_from_slice(&whole[bad * SECTOR..][..SECTOR]);
        assert!(kept == whole, "the rest is kept");
    }
}

#[test]
fn the_log_command_shows_damage_as_an_error_and_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Recovery::open(RealDisk, dir.path(), Zxid::ZERO, SIZES).and_then(Recovery::finish).unwrap();
    for zxid in 1..=20 {
        log.append(&batch(zxid..=zxid)).unwrap();
        log.sync().unwrap();
    }
    drop(log);
    let args = |cut| ostler::cli::log::LogArgs { dir: dir.path().to_owned(), records: true, cut };
    ostler::cli::log::run(&args(None)).unwrap();
    let path = dir.path().join("segment.0000000000000001");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1500] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let Err(Fatal::LogCorrupt { last_good, .. }) = ostler::cli::log::run(&args(None)) else { panic!("not found") };
    ostler::cli::log::run(&args(Some(last_good))).unwrap();
    let log = Recovery::open(RealDisk, dir.path(), Zxid::ZERO, SIZES).and_then(Recovery::finish).unwrap();
    assert_eq!(log.durable(), last_good);
}

thread_local! {
    static FILLED: (SimDisk, u64) = filled();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Groups of any size, restarts and crashes in between: what comes back is what was acknowledged, or a little more.
    #[test]
    fn any_sequence_of_groups_and_crashes_comes_back(
        steps in prop::collection::vec((0u8..8, 1u64..12, any::<u64>()), 1..40),
    ) {
        let mut disk = new_disk();
        let mut last = 0;
        let (mut log, _) = recover(&disk, 0).unwrap();
        for (what, count, seed) in steps {
            match what {
                0 => log.roll().unwrap(),
                1 => log.prepare_next().unwrap(),
                2 => log.settle().unwrap(),
                3 => {
                    // A group whose sync never came.
                    log.append(&batch(last + 1..=last + count)).unwrap();
                    disk = disk.after_crash(Keep::Some(seed));
                    let (reopened, found) = recover(&disk, 0).unwrap();
                    prop_assert!((last..=last + count).contains(&found));
                    last = found;
                    log = reopened;
                }
                _ => last = append(&mut log, last + 1..=last + count).unwrap(),
            }
        }
        drop(log);
        prop_assert_eq!(recovered(&disk.after_crash(Keep::Nothing)), last);
    }

    /// Damage of any kind to any file, everything being below the watermark: recovery stops or finds all of it.
    #[test]
    fn any_damage_stops_or_changes_nothing(
        file in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        length in 1usize..700,
        how in 0u8..5,
        noise in prop::collection::vec(any::<u8>(), 700),
    ) {
        let (disk, last) = FILLED.with(|filled| (copy(&filled.0), filled.1));
        let files = disk.list(dir()).unwrap();
        let path = dir().join(file.get(&files));
        let at = place.index(disk.contents(&path).unwrap().len());
        disk.damage(&path, |bytes| {
            let end = (at + length).min(bytes.len());
            match how {
                0 => bytes[at..end].fill(0),
                1 => bytes[at] ^= 1 << (length % 8),
                2 => bytes[at..end].copy_from_slice(&noise[..end - at]),
                3 => bytes.truncate(at),
                _ => bytes.rotate_left(at),
            }
        });
        if let Ok((_, found)) = recover(&disk, 0) {
            prop_assert_eq!(found, last);
        }
    }

    /// Files that are nothing but noise.
    #[test]
    fn noise_instead_of_files_never_panics(
        first in prop::collection::vec(any::<u8>(), 0..2000),
        second in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let disk = new_disk();
        disk.put(&segment(1), first);
        disk.put(&dir().join("watermark"), second);
        let _ = recover(&disk, 0);
    }
}
