//! A leader with files that can't be read any more: what it can't send as it is, a learner gets in another way, without an
//! operator and without a restart.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use support::client::{self, Client, op};
use support::ensemble::{Ensemble, Layout, SOON};
use support::servers::wait_for;
use support::trees;

/// So many znodes of two hundred bytes, pipelined.
fn fill(client: &mut Client, base: &str, count: usize) {
    for n in 0..count {
        client.send(op::CREATE, client::create(&format!("/{base}{n:05}x"), &[b'x'; 200], 0)).unwrap();
    }
    for _ in 0..count {
        assert_eq!(client.receive().unwrap().err, 0);
    }
}

fn files(ensemble: &Ensemble, at: usize, prefix: &str) -> Vec<PathBuf> {
    let dir = fs::read_dir(ensemble.data(at).join("version-2")).unwrap();
    let mut all: Vec<PathBuf> = dir.map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    all.sort();
    all
}

/// One bit of it is another.
fn damage(path: &Path, at: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at as u64).unwrap();
}

/// Nothing but its id is left of a server that is down.
fn empty(ensemble: &Ensemble, at: usize) {
    for path in fs::read_dir(ensemble.data(at)).unwrap().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false if path.ends_with("myid") => {}
            false => fs::remove_file(path).unwrap(),
        }
    }
}

/// Stops these servers when each has a snapshot with everything that there is now; started again they take no more by
/// themselves. What they have in memory begins behind their newest snapshots then.
fn stop_with_snapshots(ensemble: &mut Ensemble, which: &[usize], mut client: Client) {
    let all = client.last_zxid as u64;
    let is_newer = |path: &PathBuf| *path > path.with_file_name(format!("snap.{all:016x}"));
    let mut batch = 0;
    wait_for("snapshots", SOON, || {
        fill(&mut client, &format!("more{batch}-"), 100);
        batch += 1;
        which.iter().all(|&at| files(ensemble, at, "snap.0").iter().any(is_newer)).then_some(())
    });
    for &at in which {
        ensemble.terminate(at);
        let text = fs::read_to_string(ensemble.config(at)).unwrap();
        fs::write(ensemble.config(at), text.replace("snapCount=200", "snapCount=1000000")).unwrap();
    }
}

#[test]
fn a_learner_gets_a_new_snapshot_where_the_newest_can_not_be_read() {
    let mut ensemble = Ensemble::start(Layout::of(3).with("snapCount=200"));
    let mut client = ensemble.client(ensemble.leader(), 30_000);
    fill(&mut client, "a", 300);
    stop_with_snapshots(&mut ensemble, &[0, 1, 2], client);
    (0..3).for_each(|at| ensemble.spawn(at));
    let leader = ensemble.leader();
    let follower = ensemble.followers()[0];
    let mut client = ensemble.client(leader, 30_000);
    // Without a write between, the new one has the zxid of the one before it.
    for (round, more) in [(1, 50), (2, 0), (3, 50)] {
        ensemble.kill(follower);
        empty(&ensemble, follower);
        fill(&mut client, &format!("round{round}-"), more);
        let newest = files(&ensemble, leader, "snap.0").pop().expect("there is one");
        damage(&newest, fs::metadata(&newest).unwrap().len() as usize / 2);
        ensemble.restart(follower);
        let said = ensemble.whole_log(leader);
        assert_eq!(said.matches("no learner is sent it").count(), round, "{}", ensemble.log(leader));
        assert_eq!(ensemble.leader(), leader);
        trees::compare(&ensemble, &[leader, follower]);
    }
    // Of two damaged ones the second was written in the place of the first, and is sound.
    ensemble.kill(leader);
    let before = ensemble.whole_log(leader).len();
    ensemble.restart(leader);
    trees::compare(&ensemble, &[0, 1, 2]);
    let said = ensemble.whole_log(leader)[before..].to_owned();
    assert!(said.contains("loading the snapshot") && !said.contains("damaged"), "{said}");
}

/// All that there ever were are kept, and so is the log.
fn keeps_its_log() -> Layout {
    Layout::of(3).with("snapCount=200").with("autopurge.snapRetainCount=100")
}

/// Stops a follower, and then the others when it lacks what their memories won't have when they are started again.
fn stop_with_one_far_behind(ensemble: &mut Ensemble) -> (usize, Vec<usize>) {
    let behind = ensemble.followers()[0];
    let others: Vec<usize> = (0..3).filter(|&at| at != behind).collect();
    let mut client = ensemble.client(ensemble.leader(), 30_000);
    fill(&mut client, "a", 100);
    ensemble.terminate(behind);
    fill(&mut client, "b", 300);
    stop_with_snapshots(ensemble, &others, client);
    (behind, others)
}

/// A piece of the log that the one behind lacks.
fn damage_the_log(ensemble: &Ensemble, at: usize) {
    let hit = files(ensemble, at, "segment.").into_iter().find_map(|path| {
        let bytes = fs::read(&path).unwrap();
        let place = bytes.windows(7).position(|window| window == b"/b00100")?;
        Some((path, place))
    });
    let (path, place) = hit.expect("it is in the log");
    damage(&path, place + 2);
}

#[test]
fn a_learner_gets_a_snapshot_where_the_log_with_what_it_lacks_can_not_be_read() {
    let mut ensemble = Ensemble::start(keeps_its_log());
    let (behind, others) = stop_with_one_far_behind(&mut ensemble);
    others.iter().for_each(|&at| ensemble.spawn(at));
    let leader = ensemble.leader();
    damage_the_log(&ensemble, leader);
    ensemble.restart(behind);
    let said = ensemble.whole_log(leader);
    assert_eq!(said.matches("gets a snapshot instead").count(), 1, "{}", ensemble.log(leader));
    assert!(ensemble.whole_log(behind).contains("the leader sends its whole state"), "{}", ensemble.log(behind));
    trees::compare(&ensemble, &[leader, behind]);
}

#[test]
fn a_learner_that_the_quorum_needs_gets_a_snapshot_where_the_log_can_not_be_read() {
    let mut ensemble = Ensemble::start(keeps_its_log());
    let (behind, others) = stop_with_one_far_behind(&mut ensemble);
    let leader = others[0];
    ensemble.spawn(leader);
    wait_for("an answer", SOON, || ensemble.word(leader, "srvr"));
    // Only now: it has gone through all of it, and would not stand for election.
    damage_the_log(&ensemble, leader);
    ensemble.spawn(behind);
    wait_for("a leader", SOON, || (ensemble.leading_now() == Some(leader)).then_some(()));
    assert_eq!(ensemble.followers(), [behind]);
    let said = ensemble.whole_log(leader);
    assert_eq!(said.matches("gets a snapshot instead").count(), 1, "{}", ensemble.log(leader));
    trees::compare(&ensemble, &[leader, behind]);
}
