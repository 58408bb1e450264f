//! Data directories of ZooKeeper: taken over whole or not at all, and given back.
//!
//! Real files of 3.9.5 and made ones on the simulated disk; then, where Java is there (`zookeeper_data/java.rs`), real
//! servers of 3.9.5 and 3.8.0 that write what ostler takes over and start from what ostler has exported.

#[path = "zookeeper_data/commands.rs"]
mod commands;
#[path = "zookeeper_data/damage.rs"]
mod damage;
#[path = "zookeeper_data/ensemble.rs"]
mod ensemble;
#[path = "zookeeper_data/java.rs"]
mod java;
#[path = "zookeeper_data/made.rs"]
mod made;
mod support;

use made::{Fuzzy, Made, adler, assert_same, dir, dirs, options, random_state};
use ostler::disk::Disk;
use ostler::disk::sim::{Keep, SimDisk};
use ostler::fatal::Fatal;
use ostler::ids::{Epoch, SessionId, Zxid};
use ostler::log::epochs::Epochs;
use ostler::log::inspect::{self, State};
use ostler::log::{Batch, Log, Sizes};
use ostler::random::Rng;
use ostler::snapshot::zookeeper::{
    Compression, DecodeLimits, Decoder, Dirs, ExportOptions, Files, ImportOptions, Imported, TakeOver, export, import,
    import_from, is_unfinished, our_files, put_state, read_state, remove_ours, take_over, write_file, write_log_header,
    write_log_record,
};
use ostler::tree::{Tree, TreeOptions};
use ostler::wire::txn::{Txn, TxnDigest, TxnHeader, write_txn};
use std::path::Path;

/// What 3.9.5 wrote: 362 records, and the snapshot at the last of them.
const LOG: &[u8] = include_bytes!("golden/zookeeper-3.9.5.log");
const SNAPSHOT: &[u8] = include_bytes!("golden/zookeeper-3.9.5.snapshot");
const LAST: Zxid = Zxid(0x16a);
const DIGEST: u64 = 0x9_0449_267c;

fn disk_with(files: &[(&str, &[u8])]) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(dir()).unwrap();
    for (name, bytes) in files {
        disk.put(&dir().join(name), bytes.to_vec());
    }
    disk
}

fn read(disk: &SimDisk) -> Result<Imported, Fatal> {
    read_with(disk, options())
}

fn read_with(disk: &SimDisk, options: ImportOptions) -> Result<Imported, Fatal> {
    import(disk, dir(), dir(), options, &mut |_, _| {}).map(|imported| imported.expect("there are files"))
}

/// File, offset and last good zxid of what is wrong.
fn refusal(result: Result<Imported, Fatal>) -> (String, u64, Zxid, String) {
    match result.map(|imported| imported.report) {
        Err(Fatal::ZooKeeperData { file, offset, last_good, problem }) => {
            (file.file_name().unwrap().to_str().unwrap().to_owned(), offset, last_good, problem)
        }
        other => panic!("taken: {other:?}"),
    }
}

/// Where the records of a log begin, and behind the last one.
fn places(log: &[u8]) -> Vec<usize> {
    let mut places = vec![16];
    let mut at = 16;
    while at + 12 <= log.len() {
        let length = u32::from_be_bytes(log[at + 8..at + 12].try_into().unwrap()) as usize;
        if length == 0 {
            break;
        }
        at += 12 + length + 1;
        places.push(at);
    }
    places
}

#[test]
fn real_files_give_the_state_that_their_server_had() {
    // The log alone, the snapshot alone, both; compressed; with the zeros behind that the server reserves.
    let padded = [LOG, &[0; 100_000]].concat();
    let whole = read(&disk_with(&[("log.1", LOG)])).unwrap();
    assert_eq!((whole.report.records, whole.report.snapshot.clone()), (362, None));
    assert!(whole.report.record_digests > 100);
    for (files, records) in [
        (&[("snapshot.16a", SNAPSHOT)][..], 0),
        (&[("snapshot.16a", SNAPSHOT), ("log.1", LOG)], 0),
        (&[("log.1", &padded)], 362),
    ] {
        let imported = read(&disk_with(files)).unwrap();
        let report = &imported.report;
        assert_eq!((report.zxid, report.digest, report.records), (LAST, DIGEST, records));
        assert_eq!(report.notes, [""; 0]);
        assert_eq!(report.snapshot_digest, report.snapshot.is_some());
        assert_same(&imported.tree, &whole.tree);
        assert_eq!(imported.sessions, whole.sessions);
        assert_eq!(report.sessions, 3);
    }
}

#[test]
fn without_a_snapshot_that_is_old_enough_and_a_log_there_is_nothing_to_go_back_to() {
    let early = ImportOptions { up_to: Some(Zxid(0x10)), ..options() };
    let refused = read_with(&disk_with(&[("snapshot.16a", SNAPSHOT)]), early);
    assert!(matches!(refused, Err(Fatal::Usage { .. })));
}

/// A directory that is ours, as a server would find it.
fn ours(disk: &SimDisk) -> (Tree, Vec<(SessionId, i32)>) {
    let state = read_state(disk, dirs(), options().tree, |_| Ok(())).unwrap();
    (state.tree, state.sessions)
}

fn take(disk: &SimDisk) -> Result<TakeOver, Fatal> {
    take_over(disk, dirs(), options(), false, &mut |_, _| {})
}

#[test]
fn a_directory_is_taken_over_once_and_its_files_stay_as_they_are() {
    let files =
        [("snapshot.16a", SNAPSHOT), ("log.1", LOG), ("acceptedEpoch", b"7".as_slice()), ("currentEpoch", b"5")];
    let disk = disk_with(&files);
    assert!(matches!(take(&disk), Ok(TakeOver::Done(_))));
    let (tree, sessions) = ours(&disk);
    assert_eq!((tree.digest(), tree.zxid(), sessions.len()), (DIGEST, LAST, 3));
    assert_eq!(Epochs::load(&disk, dir()).unwrap(), Some(Epochs::new(Epoch(7), Epoch(5))));
    for (name, bytes) in files {
        assert_eq!(disk.contents(&dir().join(name)).unwrap(), bytes, "{name}");
    }
    assert!(matches!(take(&disk), Ok(TakeOver::Before)));
    // Whoever removes ZooKeeper's files, when all is well, may.
    disk.remove(&dir().join("log.1")).unwrap();
    assert!(matches!(take(&disk), Ok(TakeOver::Before)));
    let none = disk_with(&[]);
    assert!(matches!(take(&none), Ok(TakeOver::Nothing)));
}

/// dataDir and dataLogDir apart, and a history of several epochs.
#[test]
fn a_member_with_two_directories_keeps_everything_in_its_place() {
    let (snapshots, log) = (Path::new("/data"), Path::new("/log"));
    let apart = Dirs { snapshots, log };
    let mut made = Made::new();
    let mut rng = Rng::new(4);
    let disk = disk_with(&[("acceptedEpoch", b"9"), ("currentEpoch", b"3")]);
    disk.create_dir(log).unwrap();
    for epoch in 1..4 {
        let mut bytes = Vec::new();
        write_log_header(&mut bytes).unwrap();
        for counter in 1..50 {
            write_log_record(&made.entry(&mut rng, Zxid::new(Epoch(epoch), counter)), &mut bytes).unwrap();
        }
        disk.put(&log.join(format!("log.{epoch}00000001")), bytes);
        if epoch == 2 {
            let mut bytes = Vec::new();
            write_file(&made.tree, &made.session_list(), Compression::Plain, &mut bytes).unwrap();
            disk.put(&snapshots.join(format!("snapshot.{:x}", made.tree.zxid().0)), bytes);
        }
    }
    let taken = take_over(&disk, apart, options(), false, &mut |_, _| {});
    assert!(matches!(taken, Ok(TakeOver::Done(report)) if report.records == 49));
    let state = read_state(&disk, apart, options().tree, |_| Ok(())).unwrap();
    assert_same(&state.tree, &made.tree);
    assert_eq!((state.epochs, state.records), (Epochs::new(Epoch(9), Epoch(3)), 49));
    assert_eq!(state.snapshot, Some(Zxid::new(Epoch(2), 49)));
    // Where a server looks for what it has promised: without that it has no vote.
    assert_eq!(Epochs::load(&disk, log).unwrap(), Some(Epochs::new(Epoch(9), Epoch(3))));
    assert_eq!(Epochs::load(&disk, snapshots).unwrap(), None);
    // Taken over once more, nothing of the first time is left.
    assert!(matches!(take_over(&disk, apart, options(), true, &mut |_, _| {}), Ok(TakeOver::Done(_))));
    assert_eq!(Epochs::load(&disk, log).unwrap(), Some(Epochs::new(Epoch(9), Epoch(3))));
    // And what the server has promised since is what is exported.
    Epochs::new(Epoch(11), Epoch(3)).store(&disk, log).unwrap();

    let (out, out_log) = (Path::new("/out"), Path::new("/out-log"));
    disk.create_dir(out).unwrap();
    disk.create_dir(out_log).unwrap();
    let options = ExportOptions { tree: options().tree, compression: Compression::Plain, set_aside: false };
    let to = Dirs { snapshots: out, log: out_log };
    let exported = export(&disk, apart, to, options, &mut |_, _| {}).unwrap();
    assert_eq!(exported.epochs, Epochs::new(Epoch(11), Epoch(3)));
    assert_eq!(disk.list(out).unwrap(), ["acceptedEpoch", "currentEpoch", "snapshot.200000031"]);
    assert_eq!(disk.list(out_log).unwrap(), ["log.300000001"]);
    let back = import(&disk, out, out_log, self::options(), &mut |_, _| {}).unwrap().unwrap();
    assert_same(&back.tree, &made.tree);
    assert_eq!(back.epochs, Epochs::new(Epoch(11), Epoch(3)));
}

/// The power goes at any step: what is there is whole, or nothing, or said to be a part.
#[test]
fn an_import_from_elsewhere_that_ends_early_passes_for_nothing_whole() {
    let own = Dirs { snapshots: Path::new("/own"), log: Path::new("/own-log") };
    let whole =
        |disk: &SimDisk| read_state(disk, own, options().tree, |_| Ok(())).is_ok_and(|at| at.tree.zxid() == LAST);
    let import_there = |disk: &SimDisk, options: ImportOptions| {
        let imported = import(disk, dir(), dir(), options, &mut |_, _| {})?.expect("there are files");
        import_from(disk, dirs(), own, options, imported)
    };
    let mut unfinished = 0;
    for step in 0.. {
        let disk = disk_with(&[("snapshot.16a", SNAPSHOT), ("log.1", LOG)]);
        disk.create_dir(own.snapshots).unwrap();
        disk.create_dir(own.log).unwrap();
        disk.stop_after(disk.operations() + step);
        let result = import_there(&disk, options());
        for keep in [Keep::Nothing, Keep::Everything, Keep::Bytes, Keep::Names, Keep::Some(step)] {
            let after = disk.after_crash(keep);
            if is_unfinished(&after, own.snapshots).unwrap() {
                unfinished += 1;
                assert!(matches!(
                    take_over(&after, own, options(), false, &mut |_, _| {}),
                    Err(Fatal::ForeignData { .. })
                ));
                import_there(&after, options()).unwrap();
                assert!(whole(&after) && !is_unfinished(&after, own.snapshots).unwrap(), "step {step}");
            } else {
                assert!(whole(&after) || our_files(&after, own).unwrap().is_empty(), "step {step}");
            }
        }
        if result.is_ok() {
            break;
        }
        assert!(step < 10_000);
    }
    assert!(unfinished > 5, "{unfinished}");
}

/// What was chosen on the command line is not forgotten by the server that starts next.
#[test]
fn an_interrupted_import_with_options_is_not_finished_without_them() {
    let early = ImportOptions { up_to: Some(Zxid(0x100)), ..options() };
    let begun = (0..10_000).find_map(|step| {
        let disk = disk_with(&[("log.1", LOG)]);
        disk.stop_after(disk.operations() + step);
        assert!(take_over(&disk, dirs(), early, false, &mut |_, _| {}).is_err(), "before it is seen as begun");
        let after = disk.after_crash(Keep::Nothing);
        is_unfinished(&after, dir()).unwrap().then_some(after)
    });
    let disk = begun.expect("a step at which it has begun");
    let mut no_digests = options();
    (no_digests.tree.digest, no_digests.check_digests) = (false, false);
    let others = [options(), no_digests, ImportOptions { check_digests: false, ..options() }];
    for other in others.into_iter().chain([ImportOptions { up_to: Some(Zxid(0x101)), ..options() }]) {
        let refused = take_over(&disk, dirs(), other, false, &mut |_, _| {});
        assert!(matches!(refused, Err(Fatal::ForeignData { problem, .. }) if problem.contains("--up-to 0x100")));
    }
    assert!(matches!(take_over(&disk, dirs(), early, false, &mut |_, _| {}), Ok(TakeOver::Done(_))));
    assert_eq!(ours(&disk).0.zxid(), Zxid(0x100));
}

#[test]
fn two_histories_in_one_directory_are_refused() {
    let foreign = |disk: &SimDisk, name: &str| match take(disk) {
        Err(Fatal::ForeignData { file, .. }) => assert_eq!(file, dir().join(name)),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("taken"),
    };
    // ZooKeeper has gone on after the take-over: a new log, a log written over, another epoch.
    let taken = || {
        let disk = disk_with(&[("log.1", LOG), ("currentEpoch", b"5")]);
        assert!(matches!(take(&disk), Ok(TakeOver::Done(_))));
        disk
    };
    let disk = taken();
    disk.put(&dir().join("log.16b"), vec![0; 20]);
    foreign(&disk, "log.16b");
    let disk = taken();
    disk.damage(&dir().join("log.1"), |bytes| bytes[20] ^= 1);
    foreign(&disk, "log.1");
    let disk = taken();
    disk.put(&dir().join("currentEpoch"), b"6".to_vec());
    foreign(&disk, "currentEpoch");
    // But whoever says so gets what ZooKeeper has now.
    assert!(matches!(take_over(&disk, dirs(), options(), true, &mut |_, _| {}), Ok(TakeOver::Done(_))));
    assert!(matches!(take(&disk), Ok(TakeOver::Before)));

    // Ours first, then somebody copies ZooKeeper's beside them.
    let disk = disk_with(&[]);
    put_state(&disk, dirs(), &read(&disk_with(&[("log.1", LOG)])).unwrap()).unwrap();
    disk.put(&dir().join("snapshot.16a"), SNAPSHOT.to_vec());
    foreign(&disk, "snapshot.16a");
    // What came of a take-over is gone, but not what it came from.
    let disk = taken();
    remove_ours(&disk, dirs()).unwrap();
    foreign(&disk, "zookeeper.imported");
}

/// ZooKeeper makes a log as long as it will get and writes into it: neither its length nor its beginning tell.
#[test]
fn what_zookeeper_appends_to_a_log_that_was_taken_over_is_noticed() {
    let padded = [LOG, &[0; 8192]].concat();
    let places = places(LOG);
    let record = LOG[places[places.len() - 2]..].to_vec();
    let append = |disk: &SimDisk| {
        disk.damage(&dir().join("log.1"), |bytes| bytes[LOG.len()..][..record.len()].copy_from_slice(&record));
    };
    let refused = |taken: Result<TakeOver, Fatal>| match taken {
        Err(Fatal::ForeignData { file, problem }) => {
            assert_eq!(file, dir().join("log.1"));
            problem
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("taken"),
    };
    for snapshot in [None, Some(("snapshot.16a", SNAPSHOT))] {
        let disk = disk_with(&[("log.1", &*padded)]);
        if let Some((name, bytes)) = snapshot {
            disk.put(&dir().join(name), bytes.to_vec());
        }
        assert!(matches!(take(&disk), Ok(TakeOver::Done(_))));
        assert!(matches!(take(&disk), Ok(TakeOver::Before)));
        append(&disk);
        assert!(refused(take(&disk)).contains("after its data had been taken over"));
    }

    // While it is read: nothing is made of it.
    let disk = disk_with(&[("log.1", &padded)]);
    let mut has_appended = false;
    let taken = take_over(&disk, dirs(), options(), false, &mut |_, _| {
        if !std::mem::replace(&mut has_appended, true) {
            append(&disk);
        }
    });
    assert!(refused(taken).contains("while"));
    assert_eq!(our_files(&disk, dirs()).unwrap(), Vec::<std::path::PathBuf>::new());
    assert!(matches!(take(&disk), Ok(TakeOver::Done(_))));
}

#[test]
fn a_crash_at_any_step_of_a_take_over_leaves_one_that_can_be_done_again() {
    let files = [("snapshot.16a", SNAPSHOT), ("log.1", LOG)];
    let operations = {
        let disk = disk_with(&files);
        let before = disk.operations();
        assert!(matches!(take(&disk), Ok(TakeOver::Done(_))));
        disk.operations() - before
    };
    for stop in 0..operations {
        let disk = disk_with(&files);
        disk.stop_after(disk.operations() + stop);
        assert!(take(&disk).is_err());
        for keep in [Keep::Nothing, Keep::Everything, Keep::Bytes, Keep::Names, Keep::Some(1), Keep::Some(2)] {
            let found = disk.after_crash(keep);
            for (name, bytes) in files {
                assert_eq!(found.contents(&dir().join(name)).unwrap(), bytes, "{name}");
            }
            let again = take(&found).unwrap_or_else(|fatal| panic!("stop {stop}, {keep:?}: {fatal}"));
            assert!(!matches!(again, TakeOver::Nothing));
            assert_eq!(ours(&found).0.digest(), DIGEST);
            assert!(matches!(take(&found), Ok(TakeOver::Before)));
        }
    }
    assert!(operations > 10, "{operations}");
}

/// Sections that older servers don't write, or that settings turn off.
#[test]
fn snapshots_of_every_form_are_read() {
    let seal = 13;
    let end = SNAPSHOT.len();
    let (tree_end, digest_end) = (end - 21 - 33, end - 21);
    // The seals sum up all bytes before them, so a section can be cut off at the end but not out of the middle.
    for (len, digest) in [(tree_end, false), (digest_end, true), (end, true)] {
        let imported = read(&disk_with(&[("snapshot.16a", &SNAPSHOT[..len])])).unwrap();
        assert_eq!((imported.report.digest, imported.report.snapshot_digest), (DIGEST, digest));
    }
    let mut only_zxid = SNAPSHOT[..tree_end].to_vec();
    only_zxid.extend_from_slice(&LAST.0.to_be_bytes());
    let sum = adler(&only_zxid);
    only_zxid.extend_from_slice(&(sum as u64).to_be_bytes());
    only_zxid.extend_from_slice(&SNAPSHOT[end - 5..]);
    assert_eq!(only_zxid.len(), tree_end + 8 + seal);
    assert_eq!(read(&disk_with(&[("snapshot.16a", &only_zxid)])).unwrap().report.digest, DIGEST);
}

/// A request that a leader cannot decode is logged under a zxid that is taken; a record may be logged twice.
#[test]
fn a_repeated_zxid_is_survived_and_another_transaction_under_it_is_not() {
    let places = places(LOG);
    let record = |from: usize, to: usize| &LOG[places[from]..places[to]];
    let header = TxnHeader { session: SessionId(1), cxid: 1, zxid: Zxid(51), time: 5 };
    let made = |txn: Txn| {
        let (mut entry, mut bytes) = (Vec::new(), Vec::new());
        write_txn(&header, &txn, None, &mut entry);
        write_log_record(&entry, &mut bytes).unwrap();
        bytes
    };
    for (again, taken) in [
        (made(Txn::Error { code: -6 }), true),
        (record(50, 51).to_vec(), true),
        (record(40, 41).to_vec(), true),
        (made(Txn::CreateSession { timeout_ms: 5 }), false),
    ] {
        let bytes = [&LOG[..16], record(0, 51), &again, record(51, 362)].concat();
        let result = read(&disk_with(&[("log.1", &bytes)]));
        if taken {
            assert_eq!(result.unwrap().report.notes, ["1 records were there twice"]);
        } else {
            refusal(result);
        }
    }
}

/// What a server of ZooKeeper's writes while its tree changes is right only with the log.
#[test]
fn a_fuzzy_snapshot_and_its_log_are_the_state_at_the_end() {
    let mut covered = 0;
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut fuzzy = Fuzzy::begin(&mut rng, 200);
        let (name, snapshot) = fuzzy.snapshot(&mut rng, 3);
        let (first, log) = fuzzy.log();
        let disk = disk_with(&[(&name, &snapshot), (&first, &log)]);
        let imported = read(&disk).unwrap_or_else(|fatal| panic!("seed {seed}: {fatal}"));
        assert_same(&imported.tree, &fuzzy.made.tree);
        assert_eq!(imported.sessions, fuzzy.made.session_list());
        assert!(imported.report.snapshot_digest, "seed {seed}");
        covered += imported.report.records;
        // Taken over, it is a snapshot where the state is exact, and the records behind that are a log: a leader may take
        // them back.
        assert!(matches!(take(&disk), Ok(TakeOver::Done(_))));
        let ours = read_state(&disk, dirs(), options().tree, |_| Ok(())).unwrap();
        assert_same(&ours.tree, &fuzzy.made.tree);
        assert_eq!((ours.sessions, ours.snapshot), (fuzzy.made.session_list(), Some(imported.exact)), "seed {seed}");
        assert_eq!(ours.records, ours.tree.zxid().0 - imported.exact.0);
        // The log ends before the snapshot's newest change.
        let cut = places(&log);
        let base = Zxid(u64::from_str_radix(name.split('.').nth(1).unwrap(), 16).unwrap());
        let kept = (base.0 + 1).saturating_sub(u64::from_str_radix(&first[4..], 16).unwrap()) as usize;
        let short = &log[..cut[kept]];
        let (file, _, last_good, _) = refusal(read(&disk_with(&[(&name, &snapshot), (&first, short)])));
        assert_eq!((file, last_good), (name, base));
    }
    assert!(covered > 1000);
}

/// "What must be shown" 4.
#[test]
fn import_export_import_keeps_everything() {
    for seed in 0..80 {
        let mut rng = Rng::new(seed);
        let state = random_state(&mut rng, 60, false);
        let compression = [Compression::Plain, Compression::Gzip, Compression::Snappy][seed as usize % 3];
        let mut bytes = Vec::new();
        write_file(&state.tree, &state.sessions, compression, &mut bytes).unwrap();
        let name = format!("snapshot.{:x}{}", state.tree.zxid().0, compression.suffix());
        let disk = disk_with(&[(&name, &bytes)]);
        let first = read(&disk).unwrap_or_else(|fatal| panic!("seed {seed}: {fatal}"));
        assert_eq!(first.report.notes, [""; 0]);
        assert_same(&first.tree, &state.tree);
        assert_eq!(first.sessions, state.sessions);

        // Into a server of ours, and out again.
        assert!(matches!(take(&disk), Ok(TakeOver::Done(_))));
        let out = disk_with(&[]);
        let exported = {
            // One simulated disk for both: the export goes to another directory of it.
            disk.create_dir("/out".as_ref()).unwrap();
            let to = Dirs { snapshots: "/out".as_ref(), log: "/out".as_ref() };
            let options = ExportOptions { tree: options().tree, compression, set_aside: false };
            export(&disk, dirs(), to, options, &mut |_, _| {}).unwrap()
        };
        assert_eq!((exported.digest, exported.zxid), (state.tree.digest(), state.tree.zxid()));
        for name in disk.list("/out".as_ref()).unwrap() {
            out.put(&dir().join(&name), disk.contents(&Path::new("/out").join(&name)).unwrap());
        }
        let second = read(&out).unwrap();
        assert_same(&second.tree, &state.tree);
        assert_eq!((second.sessions, second.epochs), (state.sessions, first.epochs));
    }
}

/// A server of ours that has gone on: snapshot and log behind it, exported, are what it has.
#[test]
fn what_is_behind_our_snapshot_is_exported_as_a_log_too() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let disk = disk_with(&[("snapshot.16a", SNAPSHOT), ("log.1", LOG)]);
        let Ok(TakeOver::Done(_)) = take(&disk) else { panic!("not taken over") };
        let imported = read(&disk).unwrap();
        let mut made = Made { tree: imported.tree, sessions: imported.sessions.into_iter().collect() };
        let sizes = Sizes { first: 16 << 10, segment: 16 << 10 };
        let recovery = ostler::log::Recovery::open(disk.clone(), dir(), LAST, sizes).unwrap();
        let mut log: Log<SimDisk> = recovery.finish().unwrap();
        let mut batch = Batch::new();
        for entry in made.grow(&mut rng, 199) {
            let zxid = batch.last_zxid().unwrap_or(LAST);
            batch.push(Zxid(zxid.0 + 1), &entry);
        }
        log.append(&batch).unwrap();
        log.sync().unwrap();
        drop(log);

        let options = ExportOptions { tree: options().tree, compression: Compression::Plain, set_aside: false };
        let refused = export(&disk, dirs(), dirs(), options, &mut |_, _| {});
        assert!(matches!(refused, Err(Fatal::ForeignData { .. })), "ZooKeeper's own files are there");
        let options = ExportOptions { set_aside: true, ..options };
        let exported = export(&disk, dirs(), dirs(), options, &mut |_, _| {}).unwrap();
        assert_eq!(exported.log, Some((dir().join("log.16b"), 199)));
        assert_eq!((exported.snapshot.clone(), exported.zxid), (dir().join("snapshot.16a"), Zxid(LAST.0 + 199)));
        assert!(disk.contents(&dir().join("aside.log.1")).is_some_and(|bytes| bytes == LOG));

        // The directory is ZooKeeper's again, and says so to ours.
        assert!(matches!(take(&disk), Err(Fatal::ForeignData { .. })));
        let back = read(&disk).unwrap();
        assert_same(&back.tree, &made.tree);
        assert_eq!(back.tree.digest(), exported.digest);
        // The log alone leads there from the state before, too.
        disk.remove(&exported.snapshot).unwrap();
        disk.rename(&dir().join("aside.log.1"), &dir().join("log.1")).unwrap();
        assert_same(&read(&disk).unwrap().tree, &made.tree);
    }
}

/// A log of ours behind a snapshot of ours at `LAST`, and its records.
fn with_a_log(entries: &[Vec<u8>]) -> (SimDisk, Log<SimDisk>) {
    let disk = disk_with(&[("snapshot.16a", SNAPSHOT), ("log.1", LOG)]);
    assert!(matches!(take(&disk), Ok(TakeOver::Done(_))));
    let sizes = Sizes { first: 16 << 10, segment: 16 << 10 };
    let mut log = ostler::log::Recovery::open(disk.clone(), dir(), LAST, sizes).unwrap().finish().unwrap();
    let mut batch = Batch::new();
    for entry in entries {
        let zxid = batch.last_zxid().unwrap_or(LAST);
        batch.push(Zxid(zxid.0 + 1), entry);
    }
    log.append(&batch).unwrap();
    log.sync().unwrap();
    (disk, log)
}

fn grown(count: u64) -> Vec<Vec<u8>> {
    let imported = read(&disk_with(&[("snapshot.16a", SNAPSHOT), ("log.1", LOG)])).unwrap();
    let mut made = Made { tree: imported.tree, sessions: imported.sessions.into_iter().collect() };
    made.grow(&mut Rng::new(7), count)
}

fn image(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list(dir()).unwrap();
    names.into_iter().map(|name| (name.clone(), disk.contents(&dir().join(name)).unwrap())).collect()
}

/// Who reads has no lock: a server may be at it.
#[test]
fn a_truncation_that_is_under_way_is_left_alone_by_who_reads_and_finished_by_an_export() {
    let to = Zxid(LAST.0 + 60);
    let entries = grown(199);
    let interrupted = |count: u64| {
        let (disk, mut log) = with_a_log(&entries);
        disk.stop_after(disk.operations() + count);
        let _ = log.truncate(to);
        disk.after_crash(Keep::Everything)
    };
    let has_note = |disk: &SimDisk| disk.contents(&dir().join("truncate")).is_some();
    let disk = (0..100).map(interrupted).find(has_note).unwrap();
    let before = image(&disk);
    let Err(fatal) = read_state(&disk, dirs(), options().tree, |_| Ok(())) else { panic!("half of a change was read") };
    assert!(image(&disk) == before, "changed something");
    assert_eq!(fatal.exit_status(), 11, "{fatal}");
    assert!(fatal.to_string().contains("`ostler export`"), "{fatal}");

    let disk = disk.after_crash(Keep::Everything);
    disk.create_dir("/out".as_ref()).unwrap();
    let out = Dirs { snapshots: "/out".as_ref(), log: "/out".as_ref() };
    let options = ExportOptions { tree: options().tree, compression: Compression::Plain, set_aside: false };
    assert_eq!(export(&disk, dirs(), out, options, &mut |_, _| {}).unwrap().zxid, to);
    assert!(!has_note(&disk));
    assert_eq!(read_state(&disk, dirs(), options.tree, |_| Ok(())).unwrap().tree.zxid(), to);
}

#[test]
fn a_digest_of_another_version_says_nothing_of_the_state() {
    let mut entries = grown(20);
    let zxid = Zxid(LAST.0 + 21);
    let header = TxnHeader { session: SessionId(9), cxid: 0, zxid, time: 1 };
    let mut entry = Vec::new();
    let digest = Some(TxnDigest { version: TxnDigest::VERSION + 1, tree: 77 });
    write_txn(&header, &Txn::CreateSession { timeout_ms: 1000 }, digest, &mut entry);
    entries.push(entry);
    let (disk, _log) = with_a_log(&entries);
    let state = read_state(&disk, dirs(), options().tree, |_| Ok(())).unwrap_or_else(|fatal| panic!("{fatal}"));
    assert_eq!(state.tree.zxid(), zxid);
}

#[test]
fn a_disk_that_takes_no_writes_can_be_read() {
    let (disk, log) = with_a_log(&grown(199));
    drop(log);
    Epochs::new(Epoch(3), Epoch(0)).store(&disk, dir()).unwrap();
    disk.mount_read_only();
    let state = read_state(&disk, dirs(), options().tree, |_| Ok(())).unwrap_or_else(|fatal| panic!("{fatal}"));
    assert_eq!((state.tree.zxid(), state.epochs.accepted), (Zxid(LAST.0 + 199), Epoch(3)));
    let snapshot = ostler::snapshot::snapshot_path(dir(), LAST);
    assert_eq!(ostler::snapshot::verify(&disk, &snapshot).unwrap().zxid, LAST);
    let (surveys, watermark) = inspect::survey(&disk, dir()).unwrap();
    assert!(!surveys.is_empty());
    for survey in &surveys {
        assert!(matches!(survey.state, State::Good | State::Prepared), "{survey:?}");
        inspect::read_segment(&disk, &survey.path, |_, _| ()).unwrap();
    }
    assert!(watermark.unwrap().unwrap().segment > 0);
}

/// A leader of ZooKeeper sends a fuzzy snapshot; a member of ours keeps it as it is, and the log makes it right.
#[test]
fn a_fuzzy_snapshot_of_ours_is_exported_with_the_place_where_it_is_exact() {
    let mut fuzzies = 0;
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let mut fuzzy = Fuzzy::begin(&mut rng, 200);
        let (name, snapshot) = fuzzy.snapshot(&mut rng, 3);
        let base = Zxid(u64::from_str_radix(name.split('.').nth(1).unwrap(), 16).unwrap());
        let mut decoder = Decoder::new(options().tree, DecodeLimits::default());
        decoder.push(&snapshot[16..]).unwrap();
        let decoded = decoder.finish(base).unwrap();
        let disk = disk_with(&[]);
        let exact = decoded.tree.digest() == fuzzy.digest_at(base);
        fuzzies += !exact as u64;
        let state = Imported {
            tree: decoded.tree,
            sessions: decoded.sessions,
            epochs: Epochs::default(),
            exact: base,
            report: Default::default(),
        };
        put_state(&disk, dirs(), &state).unwrap();
        let mut log: Log<SimDisk> =
            ostler::log::Recovery::open(disk.clone(), dir(), base, Sizes::default()).unwrap().finish().unwrap();
        let mut batch = Batch::new();
        for (zxid, entry) in fuzzy.entries_after(base) {
            batch.push(zxid, entry);
        }
        log.append(&batch).unwrap();
        log.sync().unwrap();
        drop(log);
        let options = ExportOptions { tree: options().tree, compression: Compression::Plain, set_aside: false };
        let exported = export(&disk, dirs(), dirs(), options, &mut |_, _| {}).unwrap();
        assert_eq!(exported.snapshot, dir().join(&name));
        let back = read(&disk).unwrap_or_else(|fatal| panic!("seed {seed}: {fatal}"));
        assert_same(&back.tree, &fuzzy.made.tree);
        assert!(back.report.snapshot_digest, "seed {seed}");
    }
    assert!(fuzzies > 20, "{fuzzies}");
}

#[test]
fn a_full_disk_stops_an_export_and_leaves_nothing_that_zookeeper_takes_for_data() {
    let disk = disk_with(&[("log.1", LOG)]);
    assert!(matches!(take(&disk), Ok(TakeOver::Done(_))));
    disk.create_dir("/out".as_ref()).unwrap();
    let to = Dirs { snapshots: "/out".as_ref(), log: "/out".as_ref() };
    let options = ExportOptions { tree: options().tree, compression: Compression::Plain, set_aside: false };
    disk.limit(Some(2000));
    assert!(matches!(export(&disk, dirs(), to, options, &mut |_, _| {}), Err(Fatal::DiskFull { .. })));
    let left = disk.list("/out".as_ref()).unwrap();
    assert!(!left.iter().any(|name| name.starts_with("snapshot") || name.starts_with("log")), "{left:?}");
    disk.limit(None);
    assert!(export(&disk, dirs(), to, options, &mut |_, _| {}).is_ok());
}

/// ZooKeeper starts with nothing where there is nothing, and from a snapshot without what was logged behind it; where there is
/// a log and no snapshot it does not start.
#[test]
fn an_export_that_sets_aside_leaves_nothing_less_wherever_it_is_interrupted() {
    let sets = [&[("log.1", LOG)][..], &[("snapshot.16a", SNAPSHOT)], &[("snapshot.16a", SNAPSHOT), ("log.1", LOG)]];
    for files in sets {
        let disk = disk_with(files);
        assert!(matches!(take(&disk), Ok(TakeOver::Done(_))));
        let options = ExportOptions { tree: options().tree, compression: Compression::Plain, set_aside: true };
        let before = disk.operations();
        let whole = disk.after_crash(Keep::Everything);
        assert!(export(&disk, dirs(), dirs(), options, &mut |_, _| {}).is_ok());
        let left = disk.list(dir()).unwrap();
        assert!(!left.iter().any(|name| name.starts_with("log.7")), "{left:?}");
        for count in 0..=disk.operations() - before {
            for keep in [Keep::Nothing, Keep::Everything, Keep::Bytes, Keep::Names, Keep::Some(count)] {
                let disk = whole.after_crash(Keep::Everything);
                disk.stop_after(disk.operations() + count);
                let _ = export(&disk, dirs(), dirs(), options, &mut |_, _| {});
                let disk = disk.after_crash(keep);
                let left = Files::list(&disk, dir(), dir()).unwrap();
                let what = format!("operation {count}, {keep:?}: {:?}", disk.list(dir()).unwrap());
                assert!(left.paths().next().is_some(), "{what}");
                if !left.snapshots.is_empty() {
                    let imported = read(&disk).unwrap_or_else(|fatal| panic!("{what}: {fatal}"));
                    assert_eq!((imported.report.zxid, imported.report.digest), (LAST, DIGEST), "{what}");
                }
                // What was set aside stays, when it is done again.
                export(&disk, dirs(), dirs(), options, &mut |_, _| {})
                    .unwrap_or_else(|fatal| panic!("{what}: {fatal}"));
                let kept = |name: &str| {
                    ["aside.", "aside.2.", "aside.3."].map(|aside| disk.contents(&dir().join(format!("{aside}{name}"))))
                };
                for (name, bytes) in files {
                    assert!(kept(name).iter().flatten().any(|kept| kept == bytes), "{what}: {name}");
                }
            }
        }
    }
}

/// Nobody would ever remove them: ZooKeeper does when it loads.
#[test]
fn ephemerals_without_their_session_go_and_nodes_with_a_ttl_want_their_setting() {
    let mut made = Made::new();
    made.grow(&mut Rng::new(1), 300);
    let tree = &made.tree;
    assert!(tree.ephemeral_count() > 0 && tree.ttl_nodes().next().is_some());
    let mut bytes = Vec::new();
    write_file(tree, &[], Compression::Plain, &mut bytes).unwrap();
    let name = format!("snapshot.{:x}", tree.zxid().0);
    let disk = disk_with(&[(&name, &bytes)]);
    let imported = read(&disk).unwrap();
    assert_eq!(imported.tree.ephemeral_count(), 0);
    assert!(!imported.report.notes.is_empty());
    let plain = ImportOptions { tree: TreeOptions::default(), ..options() };
    let (.., problem) = refusal(read_with(&disk, plain));
    assert!(problem.contains("extendedTypesEnabled"), "{problem}");
}
