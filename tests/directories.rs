//! Snapshots and log in one directory or in two, and a configuration that says something else than the last time: what a
//! server has acknowledged is never taken for nothing.

mod raw;

use ostler::config::{self, Config, Sources};
use ostler::fatal::Fatal;
use ostler::server::boot;
use raw::{Raw, create, data, get};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Folders for one server's data.
struct Place(TempDir);

/// Server 1 of two, whose other one never answers.
fn member() -> String {
    let free = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let [quorum, election] = free.map(|listener| listener.local_addr().unwrap().port());
    format!("initLimit=5\nsyncLimit=5\nserver.1=127.0.0.1:{quorum}:{election}\nserver.2=127.0.0.1:1:2\n")
}

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        std::fs::create_dir(place.at("d")).unwrap();
        std::fs::write(place.at("d").join("myid"), "1\n").unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        let (dir, name) = name.split_once('/').unwrap();
        self.at(dir).join("version-2").join(name)
    }

    fn config(&self, log_dir: Option<&str>, lines: &str) -> Config {
        let log = log_dir.map_or(String::new(), |name| format!("dataLogDir={}\n", self.at(name).display()));
        let text = format!(
            "dataDir={}\n{log}clientPort=0\nclientPortAddress=127.0.0.1\nostler.cores=1\nadmin.enableServer=false\n{lines}",
            self.at("d").display()
        );
        let file = self.at("zoo.cfg");
        std::fs::write(&file, text).unwrap();
        config::load(&Sources { file: Some(file), processors: 1, ..Sources::default() }).unwrap().config
    }

    /// A lone server's write.
    fn write(&self, log_dir: Option<&str>, path: &str) {
        let server = boot::start(self.config(log_dir, "")).unwrap();
        assert_eq!(Raw::connect(server.address).call(&create(1, path, b"kept", 0)).err, 0);
        server.stop().unwrap();
    }

    fn assert_has(&self, log_dir: Option<&str>, path: &str) {
        let server = boot::start(self.config(log_dir, "")).unwrap();
        assert_eq!(data(&Raw::connect(server.address).call(&get(1, path, false))), b"kept", "{path}");
        server.stop().unwrap();
    }

    /// Neither a lone server nor a member starts, and the message has all of these.
    fn assert_refused(&self, log_dir: Option<&str>, says: &[&Path]) {
        for lines in [String::new(), member()] {
            let fatal = boot::start(self.config(log_dir, &lines)).err().expect("a history that is not seen");
            let text = fatal.to_string();
            assert!(matches!(fatal, Fatal::OtherDirectory { .. }) && fatal.exit_status() == 3, "{lines:?}: {text}");
            for path in says {
                assert!(text.contains(path.to_str().unwrap()), "{lines:?}: {} in {text}", path.display());
            }
        }
    }

    /// Renames what the log consists of.
    fn move_log(&self, from: &str, to: &str) {
        std::fs::create_dir_all(self.at(to).join("version-2")).unwrap();
        for entry in std::fs::read_dir(self.at(from).join("version-2")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if ["segment.", "watermark", "epochs"].iter().any(|kind| name.starts_with(kind)) {
                std::fs::rename(self.file(&format!("{from}/{name}")), self.file(&format!("{to}/{name}"))).unwrap();
            }
        }
    }
}

#[test]
fn a_log_directory_that_is_added_does_not_start_an_empty_server() {
    let place = Place::new();
    place.write(None, "/precious");
    place.assert_refused(Some("l"), &[&place.at("d/version-2"), &place.at("l/version-2")]);
    place.assert_has(None, "/precious");

    // As it is meant: the files go along.
    place.move_log("d", "l");
    place.assert_has(Some("l"), "/precious");
}

#[test]
fn a_log_directory_that_is_dropped_or_another_one_does_not_start_an_empty_server() {
    let place = Place::new();
    place.write(Some("l"), "/precious");
    place.assert_refused(None, &[&place.file("d/log-directory"), &place.at("l/version-2")]);
    place.assert_refused(Some("l2"), &[&place.file("d/log-directory"), &place.at("l/version-2"), &place.at("l2")]);
    place.assert_has(Some("l"), "/precious");

    // A log that was moved is the log, wherever it is now.
    place.move_log("l", "l2");
    place.assert_has(Some("l2"), "/precious");
    place.assert_refused(Some("l"), &[&place.at("l2/version-2")]);
    place.move_log("l2", "d");
    place.assert_has(None, "/precious");
    assert!(!place.file("d/log-directory").exists(), "the log is nowhere else any more");
}

#[test]
fn a_member_that_has_nothing_yet_knows_where_its_log_is_too() {
    let place = Place::new();
    boot::start(place.config(Some("l"), &member())).unwrap().stop().unwrap();
    place.assert_refused(None, &[&place.at("l/version-2")]);
    boot::start(place.config(Some("l"), &member())).unwrap().stop().unwrap();
}

#[test]
fn a_snapshot_beside_the_log_is_refused() {
    let place = Place::new();
    place.write(Some("l"), "/precious");
    let snapshot = place.file("l/snap.0000000000000001");
    std::fs::write(&snapshot, b"").unwrap();
    place.assert_refused(Some("l"), &[&snapshot, &place.at("d/version-2")]);
}

#[test]
fn a_log_directory_note_that_was_written_over_still_counts() {
    let place = Place::new();
    place.write(Some("l"), "/precious");
    for bytes in [&b""[..], b"\xff\xfe", &[b'x'; 1 << 15]] {
        std::fs::write(place.file("d/log-directory"), bytes).unwrap();
        place.assert_refused(None, &[&place.file("d/log-directory")]);
    }
    place.assert_has(Some("l"), "/precious");
}

/// Who really has no log any more takes the note away, and is not taken for a new server where a snapshot says better.
#[test]
fn a_member_whose_log_is_lost_for_good_does_not_vote_and_a_lone_server_does_not_start() {
    let place = Place::new();
    std::fs::create_dir(place.at("d/version-2")).unwrap();
    std::fs::write(place.file("d/snapshot.16a"), include_bytes!("golden/zookeeper-3.9.5.snapshot")).unwrap();
    let types = "extendedTypesEnabled=true\n";
    boot::start(place.config(Some("l"), types)).unwrap().stop().unwrap();
    std::fs::remove_dir_all(place.at("l")).unwrap();
    place.assert_refused(Some("l"), &[&place.file("d/log-directory"), &place.at("l/version-2")]);

    std::fs::remove_file(place.file("d/log-directory")).unwrap();
    let fatal = boot::start(place.config(Some("l"), types)).err().expect("a history without its end");
    assert!(matches!(fatal, Fatal::HistoryGap { .. }), "{fatal}");
    boot::start(place.config(Some("l"), &(types.to_owned() + &member()))).unwrap().stop().unwrap();
    assert!(place.file("l/quarantine").exists());
    boot::start(place.config(Some("l"), &(types.to_owned() + &member()))).unwrap().stop().unwrap();
}

/// Exit status, standard output and error of the program with these words.
fn run(command: &mut Command, words: &[&str]) -> std::io::Result<(i32, String, String)> {
    let command = command.args(words).env_remove("SERVER_JVMFLAGS").env_remove("JVMFLAGS");
    let output = command.output()?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ok((output.status.code().unwrap(), text(output.stdout), text(output.stderr)))
}

fn ostler() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ostler"))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_log_is_shown_by_its_data_directory_and_where_there_is_none_nothing_is_left() {
    let place = Place::new();
    place.write(None, "/a");
    let data = place.at("d");
    let show = |dir: &Path| run(&mut ostler(), &["log", dir.to_str().unwrap()]).unwrap();
    let (status, text, _) = show(&data);
    assert!(status == 0 && text.contains("known to be durable: up to 0x"), "{text}");
    assert_eq!(show(&data.join("version-2")).1, text);

    // A log whose end nobody knows: no server starts on it.
    std::fs::remove_file(place.file("d/watermark")).unwrap();
    let (status, text, error) = show(&data);
    assert!(status == 11 && text.contains("there is no watermark") && error.contains("watermark"), "{text}{error}");

    let apart = Place::new();
    apart.write(Some("l"), "/a");
    for (place, says) in [(&apart, "log-directory"), (&Place::new(), "no log of ostler's")] {
        let before = names(&place.at("d"));
        let (status, text, error) = show(&place.at("d"));
        assert!(status == 2 && text.is_empty() && error.contains(says), "{status}: {text}{error}");
        assert_eq!(names(&place.at("d")), before);
    }
    assert_eq!(show(&apart.at("l")).0, 0);
    assert_eq!(show(&apart.at("nowhere")).0, 2);
}

#[test]
fn a_data_directory_that_can_not_be_written_is_told_from_a_broken_disk() {
    let place = Place::new();
    place.config(None, "");
    let file = place.at("zoo.cfg");
    let refused = |command: &mut Command| run(command, &["server", file.to_str().unwrap()]);
    // A file in its place.
    let inside = place.at("d").join("version-2");
    std::fs::write(&inside, "").unwrap();
    let (status, _, error) = refused(&mut ostler()).unwrap();
    assert!(status == 3 && error.contains("Unable to access datadir"), "{status}: {error}");
    std::fs::remove_file(&inside).unwrap();

    // One that is there and another user's. Root may write anywhere, so it becomes somebody else.
    std::fs::create_dir(&inside).unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(&inside, 0o555);
    mode(place.0.path(), 0o755);
    let mut command = ostler();
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    match refused(&mut command) {
        Err(error) => eprintln!("skipped: the program can't be started as another user: {error}"),
        Ok((status, _, error)) => {
            assert!(status == 3 && error.contains("Unable to access datadir"), "{status}: {error}");
        }
    }
    mode(&inside, 0o755);
}

#[test]
fn another_name_of_the_same_directory_is_one_directory() {
    let place = Place::new();
    std::os::unix::fs::symlink(place.at("d"), place.at("link")).unwrap();
    place.write(Some("link"), "/a");
    place.assert_has(None, "/a");
    place.assert_has(Some("link"), "/a");
    // A link in the place of the inner directory.
    std::fs::create_dir(place.at("log")).unwrap();
    std::os::unix::fs::symlink(place.at("d").join("version-2"), place.at("log").join("version-2")).unwrap();
    place.write(Some("log"), "/b");
    place.assert_has(None, "/b");
    assert!(!place.file("d/log-directory").exists());
}
