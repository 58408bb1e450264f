//! `ostler import`, `export` and `inspect` as an operator types them.

use super::made::{Made, seal};
use super::support::servers::{java_options, ostler};
use super::{DIGEST, LAST, LOG, SNAPSHOT, places};
use ostler::ids::{SessionId, Zxid};
use ostler::random::Rng;
use ostler::snapshot::zookeeper::{write_log_header, write_log_record};
use ostler::wire::txn::{Txn, TxnDigest, TxnHeader, write_txn};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A data directory with these files in `version-2`, and a zoo.cfg for it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn with(files: &[(&str, &[u8])]) -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.version_2()).unwrap();
        for (name, bytes) in files {
            std::fs::write(place.version_2().join(name), bytes).unwrap();
        }
        let config = format!("dataDir={}\nclientPort=0\nextendedTypesEnabled=true\n", place.dir.path().display());
        std::fs::write(place.config(), config).unwrap();
        place
    }

    fn version_2(&self) -> PathBuf {
        self.dir.path().join("version-2")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("zoo.cfg")
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.version_2()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn run(words: &[&str], path: &Path) -> Output {
    let mut command = Command::new(ostler());
    command.args(words).arg(path).env_remove("SERVER_JVMFLAGS").env_remove("JVMFLAGS");
    command.output().expect("the program under test")
}

/// What a command that went well has printed.
pub fn said(words: &[&str], path: &Path) -> String {
    let output = run(words, path);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Exit status and what was said on standard error.
fn refused(words: &[&str], path: &Path) -> (i32, String) {
    let output = run(words, path);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_import_reports_what_it_took_and_writes_nothing_when_it_only_checks() {
    let place = Place::with(&[("snapshot.16a", SNAPSHOT), ("log.1", LOG)]);
    let before = place.names();
    let text = said(&["import", "--check"], &place.config());
    for line in
        ["zxid       0x16a", "znodes     31", "sessions   3", &format!("digest     {DIGEST:#x}: as the snapshot says")]
    {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert_eq!(place.names(), before);
    assert!(said(&["import"], &place.config()).contains("is ready"));
    assert!(said(&["import"], &place.config()).contains("nothing to do"));
    let (status, text) = refused(&["import", "--check"], &Place::with(&[]).config());
    assert_eq!(status, 3, "{text}");
}

#[test]
fn damage_is_named_with_file_offset_and_zxid_and_can_be_given_up() {
    let mut log = LOG.to_vec();
    let places = places(LOG);
    log[places[200]..places[201]].fill(0);
    let place = Place::with(&[("log.1", &log)]);
    for words in [&["import"][..], &["import", "--check"], &["server"]] {
        let (status, text) = refused(words, &place.config());
        let expected = format!("log.1: byte {}: ", places[200]);
        assert!(status == 11 && text.contains(&expected) && text.contains("0xc8"), "{words:?}: {status} {text}");
        assert!(!place.names().iter().any(|name| name.starts_with("snap.")), "nothing was begun");
    }
    assert!(said(&["import", "--up-to", "0xc8"], &place.config()).contains("zxid       0xc8"));
}

#[test]
fn data_of_elsewhere_is_imported_and_exported_to_elsewhere() {
    let theirs = Place::with(&[("snapshot.16a", SNAPSHOT)]);
    let ours = Place::with(&[]);
    std::fs::write(ours.dir.path().join("myid"), "7\n").unwrap();
    let from = theirs.dir.path().to_str().unwrap();
    said(&["import", "--from", from], &ours.config());
    let (status, text) = refused(&["import", "--from", from], &ours.config());
    assert!(status == 3 && text.contains("--replace"), "{text}");
    said(&["import", "--replace", "--from", from], &ours.config());
    assert_eq!(theirs.names(), ["snapshot.16a"], "not even a lock");

    let out = Place::with(&[]);
    let to = out.dir.path().to_str().unwrap();
    let text = said(&["export", "--compression", "gz", "--to", to], &ours.config());
    assert!(text.contains(&format!("digest     {DIGEST:#x}")) && text.contains("myid       7"), "{text}");
    assert_eq!(out.names(), ["acceptedEpoch", "currentEpoch", "snapshot.16a.gz"]);
    assert_eq!(std::fs::read(out.dir.path().join("myid")).unwrap(), b"7\n");
    let text = said(&["inspect", "--against", from], out.dir.path());
    assert!(text.contains("31 znodes are the same, 0 differ"), "{text}");
    assert_eq!(refused(&["export", "--to", to], &ours.config()).0, 3, "there is data of ZooKeeper's now");
}

#[test]
fn a_directory_is_listed_with_what_is_wrong_in_it() {
    let mut damaged = LOG.to_vec();
    damaged[places(LOG)[300] + 20] ^= 1;
    let torn = &SNAPSHOT[..2000];
    let place = Place::with(&[("snapshot.16a", SNAPSHOT), ("snapshot.170", torn), ("log.1", &damaged)]);
    let text = said(&["inspect"], place.dir.path());
    assert!(
        text.contains("snapshot.16a  3665 bytes  zxid 0x16a, 31 znodes, 3 sessions, digest 0x90449267c\n"),
        "{text}"
    );
    assert!(text.contains("snapshot.170  2000 bytes  zxid 0x170  DAMAGED: byte 2000:"), "{text}");
    assert!(text.contains("log.1  28559 bytes  0x1 to 0x12c, 300 records  DAMAGED: byte"), "{text}");
    assert!(text.contains("2 files are damaged"), "{text}");
    let (status, text) = refused(&["inspect"], &place.version_2().join("log.1"));
    assert!(status == 11 && text.contains("0x12c is good"), "{text}");

    // Both kinds, and ours first.
    let place = Place::with(&[("snapshot.16a", SNAPSHOT), ("log.1", LOG)]);
    said(&["import"], &place.config());
    let text = said(&["inspect"], place.dir.path());
    assert!(text.contains("snap.000000000000016a") && !text.contains("log.1"), "{text}");
    assert!(said(&["inspect", "--zookeeper"], place.dir.path()).contains("log.1"));
    let text = said(
        &["inspect", "--against", place.dir.path().to_str().unwrap()],
        &place.version_2().join("snap.000000000000016a"),
    );
    assert!(text.contains("31 znodes are the same"), "{text}");
}

#[test]
fn an_import_takes_what_a_server_with_the_same_file_takes_where_digests_are_not_compared() {
    let mut made = Made::new();
    let mut log = Vec::new();
    write_log_header(&mut log).unwrap();
    for entry in made.grow(&mut Rng::new(3), 29) {
        write_log_record(&entry, &mut log).unwrap();
    }
    let header = TxnHeader { session: SessionId(1), cxid: 1, zxid: Zxid(30), time: 5 };
    let digest = TxnDigest { version: TxnDigest::VERSION, tree: made.tree.digest() ^ 1 };
    let mut entry = Vec::new();
    write_txn(&header, &Txn::CreateSession { timeout_ms: 5 }, Some(digest), &mut entry);
    write_log_record(&entry, &mut log).unwrap();

    let place = Place::with(&[("log.1", &log)]);
    let config = std::fs::read_to_string(place.config()).unwrap();
    for words in [&["server"][..], &["import", "--check"], &["import"]] {
        let (status, text) = refused(words, &place.config());
        assert!(status == 11 && text.contains("digest"), "{words:?}: {status} {text}");
    }
    std::fs::write(place.config(), config + "digest.enabled=false\n").unwrap();
    for words in [&["import", "--check"][..], &["import"]] {
        let text = said(words, &place.config());
        assert!(text.contains("zxid       0x1e\n") && text.contains("note: "), "{words:?}: {text}");
    }
}

/// ZooKeeper writes such when a transaction was on its way into its tree at the end, and 3.8.0 of its first state always.
#[test]
fn a_snapshot_is_not_called_damaged_for_a_digest_that_only_the_log_explains() {
    let other_digest = |zxid: u64, digest: u64| {
        let mut bytes = SNAPSHOT[..SNAPSHOT.len() - 21 - 33].to_vec();
        bytes.extend_from_slice(&[&zxid.to_be_bytes()[..], &2i32.to_be_bytes(), &digest.to_be_bytes()].concat());
        seal(&mut bytes);
        bytes.extend_from_slice(&zxid.to_be_bytes());
        seal(&mut bytes);
        bytes
    };
    let (under_way, first) = (other_digest(LAST.0, DIGEST + 1), other_digest(0, 0));
    let place = Place::with(&[("snapshot.16a", &under_way), ("snapshot.0", &first)]);
    let text = said(&["inspect"], place.dir.path());
    let stated = format!("digest {DIGEST:#x}, where it says {:#x}: ", DIGEST + 1);
    assert!(text.contains(&stated) && !text.contains("damaged") && !text.contains("DAMAGED"), "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("snapshot.0 ") && line.ends_with(&format!("{DIGEST:#x}"))),
        "{text}"
    );
}

#[test]
fn two_states_are_compared_znode_by_znode() {
    let older = [&LOG[..16], &LOG[16..places(LOG)[250]]].concat();
    let (left, right) = (Place::with(&[("log.1", &older)]), Place::with(&[("snapshot.16a", SNAPSHOT)]));
    let output = run(&["inspect", "--against", right.dir.path().to_str().unwrap()], left.dir.path());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let only_right = text.lines().filter(|line| line.starts_with("+ /") && !line.contains("zxid")).count();
    assert!(only_right > 0 && text.contains(&format!("{only_right} only in the right")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("~ /") && line.contains("mzxid")), "{text}");
}

/// Every line of JSON is one object, by a reader that knows nothing else.
#[test]
fn everything_is_there_as_json_too() {
    let place = Place::with(&[("snapshot.16a", SNAPSHOT), ("log.1", LOG)]);
    let (dir, snapshot) = (place.dir.path().to_owned(), place.version_2().join("snapshot.16a"));
    let against = snapshot.to_str().unwrap().to_owned();
    for (words, path, lines) in [
        (vec!["inspect", "--json"], &dir, 2),
        (vec!["inspect", "--json", "--data"], &snapshot, 31 + 3 + 1),
        (vec!["inspect", "--json", "--znodes"], &dir, 31 + 3 + 1),
        (vec!["inspect", "--json", "--records"], &dir, 362),
        (vec!["inspect", "--json", "--summary"], &dir, 31),
        (vec!["inspect", "--json", "--against", &against], &snapshot, 1),
    ] {
        let text = said(&words, path);
        assert_eq!(text.lines().count(), lines, "{words:?}");
        for line in text.lines() {
            let mut rest = line.as_bytes();
            value(&mut rest).unwrap_or_else(|| panic!("{words:?}: {line}"));
            assert!(rest.is_empty() && line.starts_with('{'), "{line}");
        }
    }
}

/// Takes one JSON value from the beginning.
fn value(rest: &mut &[u8]) -> Option<()> {
    fn expect(rest: &mut &[u8], wanted: u8) -> Option<()> {
        *rest = rest.strip_prefix(&[wanted])?;
        Some(())
    }
    fn text(rest: &mut &[u8]) -> Option<()> {
        expect(rest, b'"')?;
        loop {
            let (first, after) = rest.split_first()?;
            *rest = after;
            match first {
                b'"' => return Some(()),
                b'\\' => *rest = rest.get(1..)?,
                0..0x20 => return None,
                _ => {}
            }
        }
    }
    fn list(rest: &mut &[u8], end: u8, one: fn(&mut &[u8]) -> Option<()>) -> Option<()> {
        *rest = &rest[1..];
        if rest.first() == Some(&end) {
            return expect(rest, end);
        }
        loop {
            one(rest)?;
            match rest.first()? {
                b',' => expect(rest, b',')?,
                _ => return expect(rest, end),
            }
        }
    }
    match rest.first()? {
        b'{' => list(rest, b'}', |rest| {
            text(rest)?;
            expect(rest, b':')?;
            value(rest)
        }),
        b'[' => list(rest, b']', value),
        b'"' => text(rest),
        _ => {
            let end = rest.iter().position(|byte| b",]}".contains(byte)).unwrap_or(rest.len());
            let word = std::str::from_utf8(&rest[..end]).ok()?;
            *rest = &rest[end..];
            (["true", "false", "null"].contains(&word) || word.parse::<f64>().is_ok()).then_some(())
        }
    }
}

/// Blocks of lines by the line that each begins with.
fn blocks(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for block in text.split("----\n") {
        let mut lines = block.lines().map(str::to_owned);
        let Some(first) = lines.next() else { continue };
        // What we show and SnapshotFormatter does not.
        all.insert(first, lines.filter(|line| !line.starts_with("  acl = ") && !line.starts_with("Digest")).collect());
    }
    all
}

#[test]
#[ignore = "needs Java and ZooKeeper 3.9.5 (tools/peers.sh)"]
fn a_snapshot_is_printed_as_snapshot_formatter_prints_it() {
    let place = Place::with(&[("snapshot.16a", SNAPSHOT)]);
    let path = place.version_2().join("snapshot.16a");
    for (theirs, ours) in [(None, &["inspect"][..]), (Some("-d"), &["inspect", "--data"])] {
        let mut command = Command::new("java");
        command.args(java_options()).arg("-Duser.timezone=UTC").arg("org.apache.zookeeper.server.SnapshotFormatter");
        let output = command.args(theirs).arg(&path).output().expect("java is there");
        assert!(output.status.success(), "{output:?}");
        let (theirs, ours) = (blocks(&String::from_utf8(output.stdout).unwrap()), blocks(&said(ours, &path)));
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        for (first, lines) in &theirs {
            let found = ours.get(first).unwrap_or_else(|| panic!("{first:?} is not among ours"));
            assert_eq!(sorted(found.clone()), sorted(lines.clone()), "{first}");
        }
        assert_eq!(ours.len(), theirs.len());
    }
}

#[test]
fn what_was_imported_or_is_to_be_exported_is_not_looked_for_without_its_log() {
    let place = Place::with(&[("snapshot.16a", SNAPSHOT)]);
    let together = std::fs::read_to_string(place.config()).unwrap();
    let log = place.dir.path().join("log");
    let apart = format!("{together}dataLogDir={}\n", log.display());
    std::fs::write(place.config(), &apart).unwrap();
    said(&["import"], &place.config());

    // The line goes, before the server has run.
    std::fs::write(place.config(), &together).unwrap();
    let to = place.dir.path().join("out");
    for words in [&["server"][..], &["import"], &["export", "--to", to.to_str().unwrap()]] {
        let (status, text) = refused(words, &place.config());
        assert!(status == 3 && text.contains(log.to_str().unwrap()), "{words:?}: {status} {text}");
    }
    assert!(!to.exists());

    // An import in place of what there is needs no log, but leaves none of it in the wrong directory.
    said(&["import", "--replace"], &place.config());
    assert!(!place.names().contains(&"log-directory".to_owned()), "{:?}", place.names());
    std::fs::write(place.config(), &apart).unwrap();
    let (status, text) = refused(&["import", "--replace"], &place.config());
    assert!(status == 3 && text.contains("this file belongs to a log"), "{text}");
}

#[test]
fn a_number_that_is_a_link_is_exported_as_a_file_and_left_a_link_in_its_own_place() {
    let place = Place::with(&[("snapshot.16a", SNAPSHOT)]);
    // As Debian's package and mounts of Kubernetes have it.
    let elsewhere = place.dir.path().join("conf-myid");
    std::fs::write(&elsewhere, "7\n").unwrap();
    let link = place.dir.path().join("myid");
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    said(&["import"], &place.config());
    let out = Place::with(&[]);
    let text = said(&["export", "--to", out.dir.path().to_str().unwrap()], &place.config());
    assert!(text.contains("myid       7\n"), "{text}");
    let copy = out.dir.path().join("myid");
    assert!(std::fs::read(&copy).unwrap() == b"7\n" && !copy.is_symlink());

    let same = format!("{}/.", place.dir.path().display());
    said(&["export", "--set-aside", "--to", &same], &place.config());
    assert!(link.is_symlink());

    // One that can't be read is found out before anything is written.
    let out = Place::with(&[]);
    std::fs::write(&elsewhere, vec![b' '; 2 << 20]).unwrap();
    let (status, text) = refused(&["export", "--to", out.dir.path().to_str().unwrap()], &place.config());
    assert!(status != 0 && text.contains("myid"), "{text}");
    assert!(out.names().is_empty(), "{:?}", out.names());
}

#[test]
fn the_way_back_into_two_directories_leaves_each_kind_in_its_own_and_no_old_log_in_sight() {
    let place = Place::with(&[]);
    let log = place.dir.path().join("log");
    std::fs::create_dir_all(log.join("version-2")).unwrap();
    std::fs::write(log.join("version-2/log.1"), LOG).unwrap();
    let config = std::fs::read_to_string(place.config()).unwrap() + &format!("dataLogDir={}\n", log.display());
    std::fs::write(place.config(), config).unwrap();
    said(&["import"], &place.config());

    // A path that is another name of the same directory.
    let to = format!("{}/.", place.dir.path().display());
    let (status, text) = refused(&["export", "--to", &to], &place.config());
    assert!(status == 3 && text.contains("log/version-2/log.1"), "what is in the other directory counts: {text}");
    let text = said(&["export", "--set-aside", "--to", &to], &place.config());
    let of_kind = |names: Vec<String>, kind: &str| -> Vec<String> {
        names.into_iter().filter(|name| name.starts_with(kind)).collect()
    };
    let in_log = || {
        let names = std::fs::read_dir(log.join("version-2")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of_kind(place.names(), "snapshot.").len(), 1, "{text}");
    assert_eq!(of_kind(place.names(), "log."), [""; 0]);
    assert_eq!(of_kind(in_log(), "aside."), ["aside.log.1"]);
    let logs = of_kind(in_log(), "log.");
    assert!(logs.len() == 1 && text.contains(&logs[0]), "{logs:?}: {text}");
    assert!(of_kind(in_log(), "snapshot.").is_empty());
}

#[test]
fn epochs_of_another_time_stop_a_member_and_not_a_server_that_is_alone() {
    // The history is of epoch 0: neither fits.
    let wrong: [&[(&str, &[u8])]; 3] = [
        &[("currentEpoch", b"4"), ("acceptedEpoch", b"3")],
        &[("currentEpoch", b"x"), ("acceptedEpoch", b"4\n")],
        &[("currentEpoch", b""), ("acceptedEpoch", b""), ("currentEpoch.tmp", b"4")],
    ];
    for (files, epochs) in
        wrong.into_iter().zip(["accepted 4, current 4", "accepted 4, current 0", "accepted 4, current 0"])
    {
        let place = Place::with(files);
        std::fs::write(place.version_2().join("snapshot.16a"), SNAPSHOT).unwrap();
        std::fs::write(place.dir.path().join("myid"), "1\n").unwrap();
        let alone = std::fs::read_to_string(place.config()).unwrap();
        let lines = "initLimit=5\nsyncLimit=5\nserver.1=127.0.0.1:1:2\nserver.2=127.0.0.1:3:4\n";
        std::fs::write(place.config(), format!("{alone}{lines}")).unwrap();
        let (status, text) = refused(&["import"], &place.config());
        assert!(status == 11 && text.contains("Epoch: it ") && text.contains("join anew"), "{text}");

        std::fs::write(place.config(), &alone).unwrap();
        for words in [&["import", "--check"][..], &["import"]] {
            let text = said(words, &place.config());
            let note = text.lines().find(|line| line.starts_with("note: ")).unwrap_or_else(|| panic!("{text}"));
            assert!(note.contains("Epoch: it ") && note.contains(epochs), "{note}");
        }
        // What was promised is not promised again.
        std::fs::write(place.config(), format!("{alone}{lines}")).unwrap();
        let out = Place::with(&[]);
        let text = said(&["export", "--to", out.dir.path().to_str().unwrap()], &place.config());
        assert!(text.contains(&format!("epochs     {epochs}")), "{text}");
    }
}

#[test]
fn what_is_beside_the_snapshots_is_not_taken_for_everything_where_the_log_is_elsewhere() {
    let place = Place::with(&[]);
    let (theirs, log) = (Place::with(&[("snapshot.16a", SNAPSHOT)]), tempfile::tempdir().unwrap());
    let config = format!("{}dataLogDir={}\n", std::fs::read_to_string(place.config()).unwrap(), log.path().display());
    std::fs::write(place.config(), config).unwrap();
    said(&["import", "--from", theirs.dir.path().to_str().unwrap()], &place.config());
    let data = place.dir.path();
    let text = said(&["inspect"], data);
    assert!(text.contains("log-directory") && text.contains(log.path().to_str().unwrap()), "{text}");
    let (status, text) = refused(&["inspect", "--znodes"], data);
    assert!(status == 2 && text.contains("--log-dir"), "{status}: {text}");
    let with_log = ["inspect", "--log-dir", log.path().to_str().unwrap()];
    let text = said(&with_log, data);
    assert!(text.contains("segment.") && !text.contains("log-directory"), "{text}");
    assert!(!said(&[&with_log[..], &["--znodes"]].concat(), data).is_empty());
}
