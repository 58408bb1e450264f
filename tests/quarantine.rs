//! Damage on a server of an ensemble (fault model 2.2 rules 4 and 5): it is found, the server knows for good that it must
//! not vote, what it still has is a true beginning of its history, and not a byte of the damaged files is lost.

mod histories;

use histories::{
    Found, Model, SIZES, copy, dir, dirs, keeps, read_history, recover, with_snapshots, write_snapshot, zxid,
};
use ostler::disk::sim::{Keep, SimDisk};
use ostler::disk::{Disk, SECTOR};
use ostler::fatal::Fatal;
use ostler::ids::{Epoch, Zxid};
use ostler::log::Log;
use ostler::log::epochs::Epochs;
use ostler::random::Rng;
use ostler::snapshot::snapshot_path;
use ostler::storage::{self, Install, Quarantine};
use proptest::prelude::*;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

type Started = ((Log<SimDisk>, Found, Epochs), Option<Quarantine>);

/// As a server of an ensemble starts.
fn start(disk: &SimDisk) -> Result<Started, Fatal> {
    storage::recover(disk, &dirs(), SIZES, || {
        let (log, found) = read_history(disk)?;
        let epochs = Epochs::reconcile(Epochs::load(disk, dirs().epochs())?, found.last(), dirs().epochs())?;
        epochs.store(disk, dirs().epochs())?;
        Ok((log, found, epochs))
    })
}

/// Two snapshots, a log behind them and before them, and epochs; everything settled.
fn filled() -> (SimDisk, Model, [Zxid; 2]) {
    let (disk, mut model, snapshots) = with_snapshots(true);
    let (mut log, _) = recover(&disk, snapshots[0]).unwrap();
    for _ in 0..12 {
        model.append(&mut log, 3, 8).unwrap();
    }
    log.prepare_next().unwrap();
    log.settle().unwrap();
    drop(log);
    Epochs::new(Epoch(3), Epoch(3)).store(&disk, dirs().epochs()).unwrap();
    (disk.after_crash(Keep::Everything), model, snapshots)
}

fn segment(number: u64) -> PathBuf {
    dir().join(format!("segment.{number:016x}"))
}

/// Every file of both directories.
fn files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for dir in [dirs().snapshots, dirs().log] {
        for name in disk.list(&dir).unwrap() {
            let path = dir.join(name);
            files.push((path.clone(), disk.contents(&path).unwrap()));
        }
    }
    files
}

fn is_prefix(found: &Found, model: &Model) -> bool {
    let from = found.snapshot.map_or(Zxid::ZERO, |snapshot| snapshot.0);
    let mut behind = model.records.iter().filter(|record| record.0 > from);
    let is_in_history = from == Zxid::ZERO || model.records.iter().any(|record| record.0 == from);
    is_in_history && found.records.iter().all(|record| behind.next() == Some(record))
}

/// A start on this disk is quarantined, with a true beginning of the history, stays so, and has kept every file.
#[track_caller]
fn assert_quarantined(disk: &SimDisk, model: &Model, what: &str) -> Zxid {
    let before = files(disk);
    let ((log, found, epochs), quarantine) = start(disk).unwrap_or_else(|fatal| panic!("{what}: {fatal}"));
    let quarantine = quarantine.unwrap_or_else(|| panic!("{what}: not quarantined, ends at {}", found.last()));
    assert_eq!(quarantine.good, found.last(), "{what}");
    assert!(is_prefix(&found, model), "{what}: {:?}", found.snapshot);
    assert!(log.last_zxid() <= found.last() && epochs.current >= found.last().epoch(), "{what}");
    drop(log);
    let after = files(disk);
    for (path, bytes) in &before {
        let is_own_note = ["epochs", "watermark"].iter().any(|name| path.ends_with(name));
        let is_blank = bytes.iter().all(|&byte| byte == 0);
        let kept = after.iter().any(|(_, kept)| kept == bytes);
        assert!(kept || is_own_note || is_blank, "{what}: {} is lost", path.display());
    }
    for _ in 0..2 {
        let disk = disk.after_crash(Keep::Nothing);
        let ((_, again, _), still) = start(&disk).unwrap();
        assert_eq!((again, still.as_ref()), (found.clone(), Some(&quarantine)), "{what}: forgotten");
        let alone = storage::recover_alone(&disk, &dirs(), SIZES, || read_history(&disk));
        assert!(matches!(alone, Err(Fatal::HistoryGap { .. })), "{what}: a lone server must not go on");
    }
    quarantine.good
}

#[test]
fn an_undamaged_history_is_not_quarantined_and_nothing_is_set_aside() {
    let (disk, model, _) = filled();
    let before = files(&disk);
    let ((log, found, _), quarantine) = start(&disk).unwrap();
    assert_eq!((quarantine, found.last(), log.last_zxid()), (None, model.last(), model.last()));
    drop(log);
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&files(&disk)), names(&before));
    assert_eq!(storage::quarantined(&disk, &dirs()).unwrap(), None);
    storage::release(&disk, &dirs()).unwrap();
}

#[test]
fn s5_s7_s11_damage_anywhere_in_the_log_quarantines_and_keeps_what_is_good_before_it() {
    let (disk, model, snapshots) = filled();
    let ours = files(&disk);
    let paths: Vec<&PathBuf> = ours.iter().map(|file| &file.0).filter(|p| has_name(p, "segment.")).collect();
    assert!(paths.len() >= 5, "{paths:?}");
    let mut ends = std::collections::BTreeSet::new();
    for (index, path) in paths.iter().enumerate() {
        let whole = disk.contents(path).unwrap();
        let end = whole.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
        for sector in 0..end / 512 {
            let disk = copy(&disk);
            disk.damage(path, |bytes| match sector % 2 {
                0 => bytes[sector * 512..(sector + 1) * 512].fill(0),
                _ => bytes[sector * 512 + 3] ^= 4,
            });
            ends.extend(quarantined_or_whole(&disk, &model, &format!("{} sector {sector}", path.display())));
        }
        if end > 0 {
            let disk = copy(&disk);
            disk.lose_file(path);
            let good = quarantined_or_whole(&disk, &model, &format!("without {}", path.display()));
            // Without the oldest, the log is as if it had been purged.
            assert_eq!(good.is_none(), index == 0, "{}", path.display());
            assert!(good.is_none_or(|good| good >= snapshots[1]), "the snapshot is sound");
        }
    }
    assert!(ends.len() > 10 && *ends.first().unwrap() == snapshots[1], "{ends:?}");
}

/// Before the newest snapshot nothing but headers is looked at, and padding says nothing.
#[track_caller]
fn quarantined_or_whole(disk: &SimDisk, model: &Model, what: &str) -> Option<Zxid> {
    match start(&copy(disk)).unwrap() {
        (_, Some(_)) => Some(assert_quarantined(disk, model, what)),
        ((_, found, _), None) => {
            assert_eq!(found.last(), model.last(), "{what}: a vote");
            None
        }
    }
}

/// The segment that takes records.
fn live(disk: &SimDisk) -> u64 {
    let is_begun = |number: &u64| disk.contents(&segment(*number)).is_some_and(|bytes| bytes[0] != 0);
    (1..100).rev().find(is_begun).unwrap()
}

fn has_name(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

#[test]
fn s19_a_sector_that_can_not_be_read_quarantines() {
    let (disk, model, snapshots) = filled();
    // What Linux says of one where reads go past the page cache, and file systems of a wrong checksum.
    let errors = [Errno::IO, Errno::NODATA, Errno::UCLEAN];
    for ((path, _), errno) in files(&disk).into_iter().flat_map(|file| errors.map(|errno| (file.clone(), errno))) {
        let disk = copy(&disk);
        disk.break_sector_with(&path, 0, errno);
        let needed = !has_name(&path, "recycled.") && path != snapshot_path(&dirs().snapshots, snapshots[0]);
        // The newest snapshot is not needed while the log reaches back to the one before.
        let newest = path == snapshot_path(&dirs().snapshots, snapshots[1]);
        if needed && !newest {
            assert_quarantined(&disk, &model, &format!("{} can't be read", path.display()));
        } else {
            let ((_, found, _), quarantine) = start(&disk).unwrap();
            assert_eq!((found.last(), quarantine), (model.last(), None), "{}", path.display());
        }
    }
}

/// What stops recovery is one thing, and what is found while the good part is looked for another.
#[test]
fn a_sector_that_can_not_be_read_behind_other_damage_quarantines_too() {
    let (disk, model, _) = filled();
    let segments = files(&disk).into_iter().filter(|(path, _)| has_name(path, "segment."));
    let sectors: Vec<_> =
        segments.flat_map(|(path, bytes)| [1, 2, 5].map(|at| (path.clone(), at, bytes.len()))).collect();
    for (path, sector, len) in sectors {
        let disk = copy(&disk);
        if (sector + 1) * SECTOR as u64 > len as u64 {
            continue;
        }
        disk.break_sector_with(&path, sector, Errno::NODATA);
        storage::quarantine(
            &disk,
            &dirs(),
            SIZES,
            &Fatal::HistoryGap { dir: dirs().log, from: Zxid(1), to: Zxid(1), problem: "damage elsewhere".into() },
            true,
        )
        .unwrap_or_else(|fatal| panic!("sector {sector} of {}: {fatal}", path.display()));
        let ((_, found, _), _) = start(&disk).unwrap();
        assert!(is_prefix(&found, &model), "sector {sector} of {}", path.display());
    }
}

/// A segment that may only be read is as good as any other.
#[test]
fn segments_of_somebody_else_are_not_set_aside() {
    let (disk, ..) = filled();
    let newest = live(&disk);
    disk.damage(&segment(newest), |bytes| bytes[600] ^= 1);
    let set_aside = |disk: &SimDisk| {
        let ((_, found, _), quarantine) = start(disk).unwrap();
        assert!(quarantine.is_some());
        let names = disk.list(dir()).unwrap();
        (found.last(), names.into_iter().filter(|name| name.starts_with("damaged.")).collect::<Vec<_>>())
    };
    let foreign = copy(&disk);
    for number in 1..newest {
        if foreign.contents(&segment(number)).is_some() {
            foreign.give_away(&segment(number));
        }
    }
    let (last, aside) = set_aside(&foreign);
    assert!(last > Zxid::ZERO);
    assert_eq!((last, aside), set_aside(&disk));
}

#[test]
fn s20_s21_damaged_snapshots_quarantine_unless_an_older_one_and_the_log_are_there() {
    let (disk, model, snapshots) = filled();
    let paths = snapshots.map(|zxid| snapshot_path(&dirs().snapshots, zxid));
    let flip = |disk: &SimDisk, path: &Path| disk.damage(path, |bytes| bytes[40] ^= 1);
    let newest = copy(&disk);
    flip(&newest, &paths[1]);
    let ((_, found, _), quarantine) = start(&newest).unwrap();
    assert_eq!((found.snapshot.unwrap().0, found.last(), quarantine), (snapshots[0], model.last(), None));

    let both = copy(&disk);
    paths.iter().for_each(|path| flip(&both, path));
    assert_eq!(assert_quarantined(&both, &model, "no sound snapshot, and the log does not reach back"), Zxid::ZERO);

    // All are gone, and the log has everything from the first transaction on: still an answer with doubt (S21).
    let (whole, model, _) = with_snapshots(false);
    Epochs::new(Epoch(3), Epoch(3)).store(&whole, dirs().epochs()).unwrap();
    paths.iter().for_each(|path| flip(&whole, path));
    assert_eq!(assert_quarantined(&whole, &model, "damaged snapshots beside a whole log"), model.last());

    let older = copy(&disk);
    flip(&older, &paths[1]);
    older.damage(&segment(2), |bytes| bytes.fill(7));
    older.damage(&segment(3), |bytes| bytes.fill(7));
    let good = assert_quarantined(&older, &model, "the newest snapshot, and the log behind the older one");
    assert!(good >= snapshots[0], "{good}");
}

#[test]
fn s29_lost_epochs_quarantine() {
    let (disk, model, _) = filled();
    let path = dirs().epochs().join("epochs");
    for what in ["missing", "flipped", "short", "older than the history"] {
        let disk = copy(&disk);
        match what {
            "missing" => disk.lose_file(&path),
            "flipped" => disk.damage(&path, |bytes| bytes[9] ^= 1),
            "short" => disk.damage(&path, |bytes| bytes.truncate(7)),
            _ => Epochs::new(Epoch(2), Epoch(1)).store(&disk, dirs().epochs()).unwrap(),
        }
        assert_eq!(assert_quarantined(&disk, &model, what), model.last(), "the history itself is good");
        assert_eq!(Epochs::load(&disk, dirs().epochs()).unwrap(), Some(Epochs::new(Epoch(3), Epoch(3))), "{what}");
    }
}

#[test]
fn a_record_that_can_not_be_applied_quarantines_with_what_is_before_it() {
    let (disk, model, snapshots) = filled();
    let bad = model.records[model.records.len() - 5].0;
    assert!(bad > snapshots[1]);
    let attempt = |disk: &SimDisk| {
        let (_, found) = read_history(disk)?;
        match found.records.iter().find(|record| record.0 == bad) {
            Some(_) => Err(Fatal::LogRecord { dir: dir().into(), zxid: bad, problem: "digest".into() }),
            None => Ok(found),
        }
    };
    let (found, quarantine) = storage::recover(&disk, &dirs(), SIZES, || attempt(&disk)).unwrap();
    let before = model.records[model.records.len() - 6].0;
    assert_eq!((found.last(), quarantine.unwrap().good), (before, before));
}

#[test]
fn only_damage_quarantines_and_a_full_disk_does_not() {
    let (disk, ..) = filled();
    for fatal in [
        || Fatal::Usage { problem: String::new() },
        || Fatal::Io { file: "x".into(), source: std::io::ErrorKind::PermissionDenied.into() },
        || Fatal::DiskFull { path: "x".into(), needed: 1, source: std::io::ErrorKind::StorageFull.into() },
    ] {
        let before = files(&disk);
        assert!(storage::recover(&disk, &dirs(), SIZES, || Err::<(), _>(fatal())).is_err());
        assert_eq!(files(&disk), before);
    }
    // Nor does it loop where `attempt` never succeeds.
    let mut tries = 0;
    let hopeless = storage::recover(&disk, &dirs(), SIZES, || {
        tries += 1;
        Err::<(), _>(Fatal::HistoryGap { dir: dir().into(), from: Zxid(1), to: Zxid(2), problem: "always".into() })
    });
    assert!(hopeless.is_err() && tries == 4, "{tries}");
}

/// A member must not start on this disk, and must not have changed anything; what it says.
#[track_caller]
fn assert_refused(disk: &SimDisk, what: &str) -> String {
    let before = files(disk);
    let fatal = start(disk).map(|(_, quarantine)| quarantine).expect_err(what);
    assert!(files(disk) == before, "{what}: changed something: {fatal}");
    assert!(fatal.exit_status() == 11 && !storage::is_damage(&fatal), "{what}: {fatal}");
    fatal.to_string()
}

#[test]
fn files_of_another_version_are_no_damage_and_stay_where_they_are() {
    let (disk, model, snapshots) = filled();
    let (before, live) = (segment(live(&disk) - 1), segment(live(&disk)));
    let other = |how: &dyn Fn(&mut Vec<u8>)| {
        let disk = copy(&disk);
        disk.damage(&live, |bytes| {
            bytes[8] = 2;
            how(bytes);
        });
        disk
    };
    // Whatever that version has behind its number.
    let same_form = other(&|bytes| {
        let crc = crc32c::crc32c(&bytes[..52]);
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    });
    for disk in [same_form, other(&|bytes| bytes[12..512].fill(0x5a))] {
        assert!(assert_refused(&disk, "segment").contains("version 2"));
        // Nor does it go when something else is damaged.
        disk.damage(&before, |bytes| bytes[6] ^= 1);
        assert_refused(&disk, "segment, and damage in front of it");
    }
    // One bit alone is damage: the checksum says that the number was another.
    assert_quarantined(&other(&|_| {}), &model, "a flipped bit");

    let newer = |disk: &SimDisk, at: Zxid| disk.damage(&snapshot_path(&dirs().snapshots, at), |bytes| bytes[7] = 2);
    let disk = copy(&disk);
    newer(&disk, snapshots[1]);
    // An older one and the log have everything.
    assert!(start(&copy(&disk)).unwrap().1.is_none());
    newer(&disk, snapshots[0]);
    assert!(assert_refused(&disk, "snapshots").contains("version 2"));
}

#[test]
fn notes_of_another_version_are_no_damage() {
    let (disk, ..) = filled();
    for (name, magic) in [("quarantine", b"OSTLRQUB"), ("truncate", b"OSTLRTRO"), ("install", b"OSTLRINT")] {
        let disk = copy(&disk);
        let mut note = [&magic[..], b"whatever that version says"].concat();
        note.extend_from_slice(&crc32c::crc32c(&note).to_le_bytes());
        disk.put(&dirs().log.join(name), note);
        assert!(assert_refused(&disk, name).contains("version 2"), "{name}");
    }
}

#[test]
fn an_operators_unfinished_cut_is_no_damage() {
    let (disk, _, snapshots) = filled();
    // Run again, it needs nothing of what is in the note.
    for (note, up_to) in [(&b"noise"[..], "ZXID"), (b"0x1\n1\n", "0x1")] {
        disk.put(&dirs().log.join("cut"), note.to_vec());
        let command = format!("`ostler log --cut {up_to} {}`", dirs().log.display());
        assert!(assert_refused(&disk, "cut").contains(&command), "{command}");
    }
    // What is half cut may look damaged, too.
    disk.damage(&dirs().log.join("watermark"), |bytes| bytes.fill(1));
    assert_refused(&disk, "watermark");
    snapshots.iter().for_each(|at| disk.damage(&snapshot_path(&dirs().snapshots, *at), |bytes| bytes[20] ^= 1));
    assert_refused(&disk, "snapshots");
}

#[test]
fn a_repaired_server_is_released_and_a_crash_on_the_way_leaves_it_quarantined() {
    let (disk, ..) = filled();
    disk.damage(&segment(live(&disk) - 1), |bytes| bytes[700] ^= 1);
    let repair = |disk: &SimDisk, released: &mut bool| -> Result<(), Fatal> {
        let ((mut log, _, epochs), quarantine) = start(disk)?;
        if quarantine.is_none() {
            return Ok(());
        }
        let to = zxid(7, 12);
        let install = Install::begin(disk.clone(), &dirs(), &log, to)?;
        write_snapshot(disk, to, 9)?;
        install.commit(&mut log)?;
        assert!(epochs.accepted < Epoch(7));
        Epochs::new(Epoch(7), Epoch(7)).store(disk, dirs().epochs())?;
        storage::release(disk, &dirs())?;
        *released = true;
        Ok(())
    };
    let whole = copy(&disk);
    repair(&whole, &mut false).unwrap();
    let operations = whole.operations();
    let mut seen = [0, 0];
    for count in 0..=operations {
        let disk = copy(&disk);
        disk.stop_after(count);
        let mut released = false;
        let _ = repair(&disk, &mut released);
        for keep in keeps(count).take(6) {
            let ((_, found, _), quarantine) = start(&disk.after_crash(keep)).unwrap();
            assert!(!released || quarantine.is_none(), "operation {count}, {keep:?}");
            let repaired = found.snapshot == Some((zxid(7, 12), 9));
            assert!(quarantine.is_some() || repaired, "operation {count}, {keep:?}: a vote for {}", found.last());
            seen[quarantine.is_none() as usize] += 1;
        }
    }
    // Six of them are those after the last operation.
    assert!(seen[0] > 200 && seen[1] > 6, "{seen:?}");
}

#[test]
fn a_crash_at_any_step_of_setting_aside_loses_neither_the_quarantine_nor_the_good_part() {
    let (disk, model, snapshots) = filled();
    let newest = snapshot_path(&dirs().snapshots, snapshots[1]);
    let live = live(&disk);
    let scenarios: [&dyn Fn(&SimDisk); 4] = [
        &|disk| disk.damage(&segment(live - 1), |bytes| bytes[700] ^= 1),
        &|disk| disk.lose_file(&segment(live - 1)),
        &|disk| {
            disk.damage(&newest, |bytes| bytes[40] ^= 1);
            disk.damage(&segment(live), |bytes| bytes[512..1024].fill(0));
        },
        &|disk| disk.damage(&segment(live), |bytes| bytes[16..600].fill(9)),
    ];
    for (which, damage) in scenarios.into_iter().enumerate() {
        let damaged = copy(&disk);
        damage(&damaged);
        let whole = copy(&damaged);
        let quarantine = start(&whole).unwrap().1.unwrap();
        let operations = whole.operations();
        let damaged_bytes = files(&damaged);
        for count in 0..=operations {
            let disk = copy(&damaged);
            disk.stop_after(count);
            let _ = start(&disk);
            for keep in keeps(count).take(6) {
                let image = disk.after_crash(keep);
                let what = format!("scenario {which}, operation {count}, {keep:?}");
                let again = copy(&image);
                let ((_, found, _), after) = start(&image).unwrap_or_else(|fatal| panic!("{what}: {fatal}"));
                let after = after.unwrap_or_else(|| panic!("{what}: forgotten"));
                assert!(after.good == found.last() && is_prefix(&found, &model), "{what}");
                // Names that go their own way may take a file with them; no real file system does that.
                if !matches!(keep, Keep::Some(_)) {
                    assert_eq!(after.good, quarantine.good, "{what}");
                    let now = files(&image);
                    for (path, bytes) in &damaged_bytes {
                        let is_own = has_name(path, "epochs") || has_name(path, "watermark");
                        let is_blank = bytes.iter().all(|&byte| byte == 0);
                        let kept = now.iter().any(|(_, kept)| kept == bytes);
                        assert!(kept || is_own || is_blank, "{what}: {} is lost", path.display());
                    }
                }
                let mut rng = Rng::new(count);
                again.stop_after(rng.below(60));
                let _ = start(&again);
                let again = again.after_crash(Keep::Some(rng.next()));
                let ((_, found, _), after) = start(&again).unwrap_or_else(|fatal| panic!("{what}, twice: {fatal}"));
                assert!(after.is_some() && is_prefix(&found, &model), "{what}, twice");
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_a_note_leaves_the_server_quarantined() {
    let (disk, model, _) = filled();
    disk.damage(&segment(live(&disk) - 1), |bytes| bytes[700] ^= 1);
    assert!(start(&disk).unwrap().1.is_some());
    let path = dir().join("quarantine");
    for bit in 0..disk.contents(&path).unwrap().len() * 8 {
        let disk = copy(&disk);
        disk.damage(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        assert!(storage::recover_alone(&disk, &dirs(), SIZES, || Ok(())).is_err());
        let ((_, found, _), quarantine) = start(&disk).unwrap();
        assert!(quarantine.is_some() && is_prefix(&found, &model), "bit {bit}");
    }
    for name in ["install", "truncate"] {
        let (disk, model, _) = filled();
        disk.put(&dir().join(name), b"noise".to_vec());
        assert_eq!(assert_quarantined(&disk, &model, name), Zxid::ZERO, "nobody knows which files count");
    }
}

thread_local! {
    static FILLED: (SimDisk, Model, [Zxid; 2]) = filled();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage of any kind to any files: the whole history and a vote, or a beginning of it and none.
    #[test]
    fn any_damage_quarantines_or_changes_nothing(
        damages in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..900, 0u8..6), 1..4),
    ) {
        let (disk, model) = FILLED.with(|filled| (copy(&filled.0), filled.1.clone()));
        for (file, place, length, how) in damages {
            let files = files(&disk);
            let path = &files[file.index(files.len())].0;
            let at = place.index(files[file.index(files.len())].1.len().max(1));
            if how == 5 {
                disk.lose_file(path);
                continue;
            }
            disk.damage(path, |bytes| {
                let end = (at + length).min(bytes.len());
                match how {
                    _ if at >= end => {}
                    0 => bytes[at..end].fill(0),
                    1 => bytes[at] ^= 1 << (length % 8),
                    2 => bytes[at..end].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7)),
                    3 => bytes.truncate(at),
                    _ => bytes.rotate_left(at),
                }
            });
        }
        let ((_, found, _), quarantine) = start(&disk).unwrap();
        prop_assert!(is_prefix(&found, &model));
        prop_assert!(quarantine.is_some() || found.last() == model.last(), "a vote for {}", found.last());
        let ((_, again, _), still) = start(&disk.after_crash(Keep::Nothing)).unwrap();
        prop_assert_eq!((again, still), (found, quarantine));
    }
}

/// It may be good: nothing is set aside, of other files neither.
#[test]
fn a_segment_that_may_not_be_read_is_no_damage() {
    let (disk, ..) = filled();
    for note in ["install", "watermark"] {
        let disk = copy(&disk);
        disk.forbid(&segment(live(&disk)));
        disk.put(&dir().join(note), b"nonsense".to_vec());
        let before = files(&disk);
        match start(&disk) {
            Err(Fatal::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied, "{note}"),
            Err(other) => panic!("{note}: {other}"),
            Ok(_) => panic!("{note}: it started"),
        }
        assert!(files(&disk) == before, "{note}: something has changed");
    }
}
