//! Ensembles of real processes: what a client of any of the servers can rely on, while servers are killed, stopped and
//! started again. `fault_loop.rs` does the same at random, and for longer.
//!
//! OSTLER_ENSEMBLE_AGAINST=java asks the same of ZooKeeper 3.9.5, and so tests the tests.

#[path = "durability/writer.rs"]
mod writer;

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ostler::clock;

use support::client::{self, Client, EPHEMERAL, Refusal, SEQUENTIAL, err, multi, op};
use support::conn::{self, Conn, Next};
use support::ensemble::{Ensemble, Layout, SOON, session};
use support::jute::Writer;
use support::servers::{Kind, wait_for};
use support::trees;

fn kind() -> Kind {
    match std::env::var("OSTLER_ENSEMBLE_AGAINST").as_deref() {
        Ok("java") => Kind::Java,
        _ => Kind::Ostler,
    }
}

fn ensemble(voters: usize) -> Ensemble {
    Ensemble::start(Layout::of(voters).kind(kind()))
}

/// The servers but one.
fn others(ensemble: &Ensemble, but: usize) -> Vec<usize> {
    (0..ensemble.len()).filter(|&at| at != but).collect()
}

fn all(ensemble: &Ensemble) -> Vec<usize> {
    (0..ensemble.len()).collect()
}

/// Everything that a client does, through each server in turn, seen through all of them.
fn serves_through_each(voters: usize) {
    let ensemble = ensemble(voters);
    let modes: Vec<String> = (0..voters).map(|at| ensemble.serving(at)).collect();
    assert_eq!(modes.iter().filter(|mode| *mode == "leader").count(), 1, "{modes:?}");
    assert_eq!(modes.iter().filter(|mode| *mode == "follower").count(), voters - 1, "{modes:?}");
    let mut clients: Vec<Client> = (0..voters).map(|at| ensemble.client(at, 30_000)).collect();
    clients[0].create("/q", b"", 0).unwrap().unwrap();
    for at in 0..voters {
        let base = format!("/through-{at}");
        let watcher = (at + 1) % voters;
        clients[watcher].sync().unwrap();
        assert!(!clients[watcher].exists(&base, true).unwrap());

        let mine = &mut clients[at];
        assert_eq!(mine.create(&base, b"one", 0).unwrap(), Ok(base.clone()));
        assert_eq!(mine.get(&base, false).unwrap().unwrap().0, b"one", "it reads its own write");
        assert_eq!(mine.set(&base, b"two").unwrap().unwrap().version, 1);
        assert_eq!(mine.create(&base, b"", 0).unwrap(), Err(err::NODE_EXISTS));
        let both = multi(&[
            (op::CREATE, client::create(&format!("{base}/m"), b"m", 0)),
            (op::SET, client::set(&base, b"three")),
        ]);
        assert_eq!(mine.ask(op::MULTI, both).unwrap().err, 0);
        let neither = multi(&[
            (op::CREATE, client::create(&format!("{base}/n"), b"n", 0)),
            (op::DELETE, Writer::new().text("/none").int(-1)),
        ]);
        let refused = mine.ask(op::MULTI, neither).unwrap();
        assert!(!mine.exists(&format!("{base}/n"), false).unwrap(), "{refused:?}");
        assert_eq!(mine.create("/q/s-", b"", SEQUENTIAL).unwrap(), Ok(format!("/q/s-{at:010}")));
        mine.sync().unwrap();
        assert_eq!(mine.children("/q").unwrap().unwrap().len(), at + 1, "all sequences so far");
        mine.create(&format!("/e{at}"), b"", EPHEMERAL).unwrap().unwrap();

        let event = clients[watcher].event();
        assert_eq!((event.kind, event.path.as_str()), (1, base.as_str()), "the other server's client is told");
        for other in &mut clients {
            other.sync().unwrap();
            let (data, stat) = other.get(&base, false).unwrap().expect("written through another server");
            assert_eq!((data.as_slice(), stat.version), (&b"three"[..], 2));
        }
    }
    // Pipelined through a follower: answered in order, and a read behind a write sees it.
    let follower = ensemble.followers()[0];
    let mine = &mut clients[follower];
    for n in 0..200 {
        mine.send(op::SET, client::set("/q", n.to_string().as_bytes())).unwrap();
        mine.send(op::GET, Writer::new().text("/q").bool(false)).unwrap();
    }
    for n in 0..200 {
        let (written, read) = (mine.receive().unwrap(), mine.receive().unwrap());
        assert_eq!(written.err, 0);
        assert_eq!(read.data().unwrap().0, n.to_string().as_bytes());
        assert!(read.zxid >= written.zxid);
    }
    // Their sessions end, and their ephemerals on every server.
    clients.into_iter().for_each(Client::close);
    let mut looker = ensemble.client(0, 30_000);
    for at in 0..voters {
        assert!(!looker.exists(&format!("/e{at}"), false).unwrap());
    }
    looker.close();
    let (tree, digests) = trees::compare(&ensemble, &all(&ensemble));
    assert_eq!(tree.keys().filter(|path| path.starts_with("/q/")).count(), voters);
    assert!(digests > 0 || voters == 1, "no digest could be compared");
}

#[test]
fn three_servers_serve_through_each() {
    serves_through_each(3);
}

#[test]
fn five_servers_serve_through_each() {
    serves_through_each(5);
}

#[test]
fn a_client_that_says_something_and_goes_at_once_is_gone() {
    // A silent connection is given up after its session's time, which is far away here.
    let ensemble = Ensemble::start(Layout::of(3).kind(kind()).with("maxSessionTimeout=200000"));
    let client = ensemble.client(0, 150_000);
    assert!(client.granted.timeout > 100_000, "{:?}", client.granted);
    // Both are there when the server looks again: its poll tells it of them once, together.
    ensemble.signal(0, "STOP");
    client.leave_in_a_frame();
    ensemble.signal(0, "CONT");
    wait_for("the connection to be given up", SOON, || {
        ensemble.word(0, "srvr")?.contains("Connections: 1\n").then_some(())
    });
}

#[test]
fn a_session_moves_between_servers_with_all_that_it_holds() {
    let ensemble = ensemble(3);
    let mut mover = ensemble.client(0, 30_000);
    let session = mover.granted.session;
    mover.create("/held", b"", EPHEMERAL).unwrap().unwrap();
    mover.create("/node", b"", 0).unwrap().unwrap();
    for round in 0..9 {
        let to = (round + 1) % 3;
        mover = ensemble.moved(mover, to);
        assert_eq!(mover.granted.session, session);
        let (_, stat) = mover.get("/held", false).unwrap().expect("its ephemeral");
        assert_eq!(stat.owner, session);
        assert_eq!(mover.set("/node", &[round as u8]).unwrap().unwrap().version, round as i32 + 1);
    }
    // It leaves no connection behind that could still write: the old one is closed, or refused.
    let (at, to) = (0, 1);
    let mut old = ensemble.moved(mover, at);
    let granted = old.granted.clone();
    let mut new = ensemble.resumed(&granted, old.last_zxid, to);
    match old.set("/node", b"late") {
        Err(_) => {}
        Ok(result) => assert_eq!(result.unwrap_err(), err::SESSION_MOVED),
    }
    assert_eq!(new.get("/node", false).unwrap().unwrap().0, [8]);
    assert_eq!(new.set("/node", b"new").unwrap().unwrap().version, 10);
    // A wrong password is told that the session is over, on leader and followers. It costs the owner its connection
    // where that is on the same server, as in ZooKeeper, and no more.
    for at in 0..3 {
        let wrong = support::conn::Granted { password: vec![7; 16], ..granted.clone() };
        assert!(matches!(Client::resume(ensemble.address(at), &wrong, 0), Err(Refusal::Expired)), "server {}", at + 1);
    }
    let mut new = ensemble.resumed(&granted, new.last_zxid, to);
    assert!(new.exists("/held", false).unwrap(), "and the session lives on");
    new.close();
    for at in 0..3 {
        let again = Client::resume(ensemble.address(at), &granted, 0);
        assert!(matches!(again, Err(Refusal::Expired)), "a closed session, server {}", at + 1);
    }
    trees::compare(&ensemble, &all(&ensemble));
}

#[test]
fn what_a_session_asked_elsewhere_does_not_come_true_behind_its_reconnect() {
    let ensemble = ensemble(5);
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    let mut old = ensemble.client(followers[0], 30_000);
    let mut other = ensemble.client(leader, 30_000);
    old.create("/node", b"", 0).unwrap().unwrap();
    old.create("/other", b"", 0).unwrap().unwrap();
    // The leader and one follower are no quorum: the reconnect waits for what was asked before it, and the late write comes
    // in between.
    followers[1..].iter().for_each(|&at| ensemble.signal(at, "STOP"));
    other.send(op::SET, client::set("/other", b"first")).unwrap();
    ensemble.wait_until_it_owes(leader, &session(&other));
    let address = ensemble.address(leader);
    let mut new = Conn::open_at(address, SOON).unwrap();
    let granted = old.granted.clone();
    new.send(&conn::hello(old.last_zxid, granted.timeout, granted.session, &granted.password, Some(0))).unwrap();
    ensemble.wait_until_it_owes(leader, &format!(":{}[", new.local_port()));
    let late = old.send(op::SET, client::set("/node", b"late")).unwrap();
    ensemble.wait_until_it_owes(followers[0], &session(&old));
    followers[1..].iter().for_each(|&at| ensemble.signal(at, "CONT"));

    let Next::Frame(frame) = new.next(SOON) else { panic!("the reconnect is answered") };
    assert_eq!(conn::granted(&frame).unwrap().session, granted.session);
    // Told, unless its connection was closed first.
    if let Ok(reply) = old.receive() {
        assert_eq!((reply.xid, reply.err), (late, err::SESSION_MOVED));
    }
    assert_eq!(other.receive().unwrap().err, 0);
    other.set("/other", b"second").unwrap().unwrap();
    assert_eq!(other.get("/node", false).unwrap().unwrap().0, b"");
}

#[test]
fn a_client_that_has_seen_more_is_not_served_until_its_server_has_seen_as_much() {
    let ensemble = ensemble(3);
    for at in 0..3 {
        let client = ensemble.client(at, 30_000);
        let ahead = Client::resume(ensemble.address(at), &client.granted, i64::MAX - 5);
        assert!(matches!(ahead, Err(Refusal::NotNow(_))), "server {}", at + 1);
    }
}

#[test]
fn a_session_whose_client_is_gone_expires_and_one_that_is_heard_from_through_a_follower_does_not() {
    let ensemble = ensemble(3);
    let follower = ensemble.followers()[0];
    let mut watcher = ensemble.client(ensemble.leader(), 30_000);
    let mut alive = ensemble.client(follower, 6_000);
    let mut dead = ensemble.client(follower, 6_000);
    assert_eq!((alive.granted.timeout, dead.granted.timeout), (6_000, 6_000));
    alive.create("/alive", b"", EPHEMERAL).unwrap().unwrap();
    let begin = clock::now();
    dead.create("/dead", b"", EPHEMERAL).unwrap().unwrap();
    alive.ping().unwrap();
    watcher.sync().unwrap();
    assert!(watcher.exists("/dead", true).unwrap());
    drop(dead);
    // Pings alone keep the other one.
    wait_for("the dead client's session to expire", SOON, || {
        alive.ping().unwrap();
        watcher.sync().unwrap();
        (!watcher.events.is_empty()).then_some(())
    });
    let took = clock::now().since(begin);
    assert!(took >= Duration::from_millis(6_000), "not before its time: {took:?}");
    assert_eq!(watcher.event().path, "/dead");
    assert!(watcher.exists("/alive", false).unwrap());
    alive.sync().unwrap();
}

#[test]
fn the_leader_is_killed_and_nothing_but_time_is_lost() {
    for voters in [3, 5] {
        let mut ensemble = ensemble(voters);
        for round in 0..2 {
            let leader = ensemble.leader();
            let survivors = others(&ensemble, leader);
            // One client on the leader, one on a follower, each with an ephemeral and a watch.
            let mut on_leader = ensemble.client(leader, 20_000);
            let mut on_follower = ensemble.client(survivors[0], 20_000);
            let (base, held) = (format!("/r{round}"), format!("/held{round}"));
            on_leader.create(&base, b"before", 0).unwrap().unwrap();
            on_leader.create(&held, b"", EPHEMERAL).unwrap().unwrap();
            on_follower.create(&format!("{held}-too"), b"", EPHEMERAL).unwrap().unwrap();
            ensemble.kill(leader);
            let mut on_leader = ensemble.moved(on_leader, survivors[1]);
            let mut on_follower = ensemble.moved(on_follower, survivors[0]);
            assert_eq!(on_leader.get(&base, false).unwrap().unwrap().0, b"before");
            on_follower.set(&base, b"after").unwrap().unwrap();
            on_leader.sync().unwrap();
            assert_eq!(on_leader.get(&base, false).unwrap().unwrap().0, b"after");
            assert!(on_leader.exists(&held, false).unwrap());
            assert!(on_leader.exists(&format!("{held}-too"), false).unwrap());
            assert_ne!(ensemble.leader(), leader);
            ensemble.restart(leader);
            let mut late = ensemble.client(leader, 20_000);
            late.sync().unwrap();
            assert_eq!(late.get(&base, false).unwrap().unwrap().0, b"after");
            [on_leader, on_follower, late].into_iter().for_each(Client::close);
        }
        trees::compare(&ensemble, &all(&ensemble));
    }
}

/// The zxid's counter has 32 bits, and ZooKeeper lets everybody go when it is used up. Here it is used up every 100 writes.
#[test]
fn an_epoch_whose_zxids_are_used_up_is_followed_by_another_and_no_session_is_lost() {
    let ensemble = Ensemble::start(Layout::of(3).with("ostler.epochTransactions=100"));
    let mut clients: Vec<Client> = (0..3).map(|at| ensemble.client(at, 30_000)).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.create(&format!("/held{at}"), b"", EPHEMERAL).unwrap().unwrap();
    }
    clients[0].create("/n", b"", 0).unwrap().unwrap();
    let first = clients[0].last_zxid >> 32;
    let (mut acknowledged, mut in_doubt) = (0, 0);
    for n in 0..600 {
        let at = n % 3;
        // What is under way when the epoch ends may be lost, and its client is then let go.
        while clients[at].set("/n", n.to_string().as_bytes()).is_err() {
            in_doubt += 1;
            assert!(in_doubt < 100, "epochs end one after the other");
            let client = clients.remove(at);
            clients.insert(at, ensemble.moved(client, at));
        }
        acknowledged += 1;
    }
    assert_eq!(acknowledged, 600);
    for client in &mut clients {
        while client.sync().is_err() {
            in_doubt += 1;
            assert!(in_doubt < 100, "epochs end one after the other");
            let (session, zxid) = (client.granted.clone(), client.last_zxid);
            *client = ensemble.resumed(&session, zxid, 0);
        }
        let (data, stat) = client.get("/n", false).unwrap().unwrap();
        assert_eq!(data, b"599");
        assert!((600..600 + in_doubt + 1).contains(&stat.version), "{} with {in_doubt} in doubt", stat.version);
        for at in 0..3 {
            assert!(client.exists(&format!("/held{at}"), false).unwrap(), "a session was lost");
        }
    }
    assert!(clients[0].last_zxid >> 32 >= first + 5, "six hundred writes, a hundred an epoch");
    clients.into_iter().for_each(Client::close);
    trees::compare(&ensemble, &all(&ensemble));
}

/// So many znodes of so many bytes each, pipelined.
fn fill(client: &mut Client, base: &str, count: usize, bytes: usize) {
    client.create(base, b"", 0).unwrap().unwrap();
    let data = vec![b'x'; bytes];
    for from in (0..count).step_by(50) {
        let to = (from + 50).min(count);
        for n in from..to {
            client.send(op::CREATE, client::create(&format!("{base}/{n}"), &data, 0)).unwrap();
        }
        for _ in from..to {
            assert_eq!(client.receive().unwrap().err, 0);
        }
    }
}

#[test]
fn a_follower_that_was_away_catches_up_from_memory_from_the_log_and_from_a_snapshot() {
    let mut ensemble = ensemble(3);
    let follower = ensemble.followers()[0];
    let away = "the leader sends its whole state";
    let mut client = ensemble.client(ensemble.leader(), 30_000);
    // A little: from memory.
    fill(&mut client, "/before", 20, 10);
    ensemble.kill(follower);
    fill(&mut client, "/little", 300, 100);
    ensemble.restart(follower);
    trees::compare(&ensemble, &[ensemble.leader(), follower]);
    if kind() == Kind::Ostler {
        assert!(!ensemble.whole_log(follower).contains(away));
    }
    // More than the leader holds in memory (32 MiB): from its log.
    ensemble.kill(follower);
    fill(&mut client, "/much", 600, 70_000);
    ensemble.restart(follower);
    trees::compare(&ensemble, &[ensemble.leader(), follower]);
    if kind() == Kind::Ostler {
        assert!(!ensemble.whole_log(follower).contains(away));
    }
    // Everything lost: a snapshot.
    let snapshots_sent = ensemble.measured(ensemble.leader(), "snap_count");
    assert!(ensemble.measured(ensemble.leader(), "diff_count") > 0);
    ensemble.kill(follower);
    for entry in std::fs::read_dir(ensemble.data(follower)).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => std::fs::remove_dir_all(path).unwrap(),
            false if path.ends_with("myid") => {}
            false => std::fs::remove_file(path).unwrap(),
        }
    }
    fill(&mut client, "/last", 20, 10);
    ensemble.restart(follower);
    if kind() == Kind::Ostler {
        assert!(ensemble.whole_log(follower).contains(away), "{}", ensemble.log(follower));
    }
    let (tree, _) = trees::compare(&ensemble, &[ensemble.leader(), follower]);
    assert!(tree.len() > 940, "{}", tree.len());
    assert_eq!(ensemble.measured(ensemble.leader(), "snap_count"), snapshots_sent + 1);
    // What it got is durable there: it comes back from it.
    ensemble.kill(follower);
    ensemble.restart(follower);
    trees::compare(&ensemble, &all(&ensemble));
}

#[test]
fn the_death_of_a_leader_shows_in_what_the_others_count() {
    let mut ensemble = ensemble(3);
    let old = ensemble.leader();
    ensemble.kill(old);
    let leader = ensemble.leader();
    let follower = *ensemble.followers().first().expect("the third server follows");
    // One election at the start, and one now.
    for at in [leader, follower] {
        for name in ["cnt_election_time", "looking_count", "cnt_unavailable_time"] {
            assert!(ensemble.measured(at, name) >= 2, "{name} of server {}", at + 1);
        }
    }
    assert_eq!(ensemble.measured(leader, "cnt_leader_unavailable_time"), 1);
    assert_eq!(ensemble.measured(follower, "cnt_leader_unavailable_time"), 0);
    let mut client = ensemble.client(leader, 30_000);
    client.create("/counted", b"", 0).unwrap().unwrap();
    ensemble.moved(client, follower).close();
    for name in ["proposal_count", "commit_count", "revalidate_count", "diff_count"] {
        assert!(ensemble.measured(leader, name) > 0, "{name}");
    }
    assert!(ensemble.measured(follower, "connection_revalidate_count") > 0);
    for name in ["proposal_count", "commit_count"] {
        assert_eq!(ensemble.measured(follower, name), 0, "{name} is the leader's");
    }
}

#[test]
fn what_only_a_dead_leader_had_is_cut_off_when_it_comes_back() {
    let mut ensemble = ensemble(3);
    let leader = ensemble.leader();
    let followers = others(&ensemble, leader);
    let mut client = ensemble.client(leader, 20_000);
    client.create("/agreed", b"", 0).unwrap().unwrap();
    // Stopped, then killed: what stands in their sockets is lost with them.
    followers.iter().for_each(|&at| ensemble.signal(at, "STOP"));
    for n in 0..50 {
        client.send(op::CREATE, client::create(&format!("/alone-{n}"), b"", 0)).unwrap();
    }
    client.patience = Duration::from_millis(400);
    assert!(client.receive().is_err(), "nobody else has it: no answer");
    ensemble.kill_all(&all(&ensemble));
    followers.iter().for_each(|&at| ensemble.spawn(at));
    let mut other = ensemble.client(followers[0], 20_000);
    other.create("/since", b"", 0).unwrap().unwrap();
    ensemble.restart(leader);
    let (tree, _) = trees::compare(&ensemble, &all(&ensemble));
    assert!(tree.contains_key("/agreed") && tree.contains_key("/since"));
    assert!(!tree.keys().any(|path| path.starts_with("/alone")), "{tree:?}");
    // And its own log has forgotten it too.
    ensemble.kill_all(&all(&ensemble));
    (0..3).for_each(|at| ensemble.spawn(at));
    (0..3).for_each(|at| drop(ensemble.serving(at)));
    let (again, _) = trees::compare(&ensemble, &all(&ensemble));
    assert_eq!(again.keys().collect::<Vec<_>>(), tree.keys().collect::<Vec<_>>());
}

#[test]
fn a_minority_acknowledges_nothing_and_lets_its_clients_go() {
    for survivor_leads in [true, false] {
        let ensemble = Ensemble::start(Layout::of(3).kind(kind()).with("syncLimit=15"));
        let leader = ensemble.leader();
        let survivor = if survivor_leads { leader } else { ensemble.followers()[0] };
        let mut client = ensemble.client(survivor, 20_000);
        client.create("/before", b"", 0).unwrap().unwrap();
        let rest = others(&ensemble, survivor);
        // Silence, not closed connections, is what a partition looks like.
        rest.iter().for_each(|&at| ensemble.signal(at, "STOP"));
        let begin = clock::now();
        client.patience = Duration::from_millis(50);
        client.send(op::CREATE, client::create("/during", b"", 0)).unwrap();
        while clock::now().since(begin) < Duration::from_millis(400) {
            assert!(client.receive().is_err(), "a write was acknowledged by a minority");
        }
        // Within syncLimit, which fault_loop.rs looks at too; here it is only that it happens.
        assert!(client.ended_within(SOON), "its clients are let go");
        assert_eq!(ensemble.mode(survivor), None);
        rest.iter().for_each(|&at| ensemble.signal(at, "CONT"));
        let mut client = ensemble.moved(client, survivor);
        client.sync().unwrap();
        client.create("/after", b"", 0).unwrap().unwrap();
        (0..3).for_each(|at| drop(ensemble.serving(at)));
        trees::compare(&ensemble, &all(&ensemble));
    }
}

#[test]
fn no_acknowledged_write_is_lost_when_all_servers_are_killed_under_load() {
    let mut ensemble = ensemble(3);
    for round in 0..3 {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let mut client = ensemble.client(writer % 3, 30_000);
                client.create(&writer::base(round, writer), b"", 0).unwrap().unwrap();
                let (conn, _) = Conn::session(ensemble.address(writer % 3).port(), 30_000).unwrap();
                let acks = Arc::new(AtomicU64::new(0));
                let counted = acks.clone();
                let thread = std::thread::spawn(move || writer::write(conn, round, writer, 30, u64::MAX, &counted));
                (acks, thread)
            })
            .collect();
        for (writer, (acks, _)) in writers.iter().enumerate() {
            wait_for(&format!("writer {writer} to have written"), SOON, || {
                (acks.load(Ordering::Relaxed) > 150).then_some(())
            });
        }
        ensemble.kill_all(&all(&ensemble));
        let records: Vec<writer::Record> =
            writers.into_iter().map(|(_, thread)| thread.join().expect("a writer")).collect();
        (0..3).for_each(|at| ensemble.spawn(at));
        (0..3).for_each(|at| drop(ensemble.serving(at)));
        let (tree, digests) = trees::compare(&ensemble, &all(&ensemble));
        assert!(digests > 0, "no digest could be compared");
        let mut zxids = std::collections::BTreeSet::new();
        for (writer, record) in records.iter().enumerate() {
            let base = writer::base(round, writer);
            assert!(record.acked.len() >= 150);
            for (index, (asked, ack)) in record.sent.iter().zip(&record.acked).enumerate() {
                assert!(zxids.insert(ack.zxid), "two writes with zxid {:x}", ack.zxid);
                let (path, text) = match asked {
                    writer::Asked::Sequential => (ack.path.clone().expect("its name"), index.to_string()),
                    writer::Asked::Multi => (format!("{base}/m{index}"), index.to_string()),
                    _ => continue,
                };
                let (data, stat) = tree.get(&path).unwrap_or_else(|| panic!("{path} was acknowledged and is lost"));
                assert_eq!((data.as_slice(), stat.czxid), (text.as_bytes(), ack.zxid), "{path}");
            }
            // The counter is no older than its last acknowledged setting.
            let last = record.acked.len() - 1;
            let (data, _) = &tree[&format!("{base}/counter")];
            let counter: usize = String::from_utf8_lossy(data).parse().expect("a number");
            let newest = (0..=last)
                .rev()
                .find(|index| matches!(record.sent[*index], writer::Asked::Counter | writer::Asked::Multi));
            assert!(Some(counter) >= newest, "counter {counter}, acknowledged {newest:?}");
            assert!(counter < record.sent.len());
        }
    }
}

#[test]
fn a_planned_stop_answers_all_that_was_read_and_no_session_expires() {
    for stop_leader in [false, true] {
        let mut ensemble = ensemble(3);
        let leader = ensemble.leader();
        let stopped = if stop_leader { leader } else { ensemble.followers()[0] };
        let rest = others(&ensemble, stopped);
        let mut bystander = ensemble.client(rest[0], 30_000);
        bystander.create("/kept", b"", EPHEMERAL).unwrap().unwrap();
        let mut client = ensemble.client(stopped, 30_000);
        client.create("/base", b"", 0).unwrap().unwrap();
        client.create("/held", b"", EPHEMERAL).unwrap().unwrap();
        for n in 0..200 {
            client.send(op::CREATE, client::create(&format!("/base/{n}"), b"", 0)).unwrap();
        }
        // Once the first is answered, the server has read more than that one; how many, nobody knows.
        assert_eq!(client.receive().unwrap().err, 0);
        let mut answered = 1;
        ensemble.signal(stopped, "TERM");
        while let Ok(reply) = client.receive() {
            assert_eq!(reply.err, 0);
            answered += 1;
        }
        let status = ensemble.terminate_sent(stopped);
        use std::os::unix::process::ExitStatusExt;
        assert!(status.code() == Some(143) || status.signal() == Some(15), "{status}");
        let mut client = ensemble.moved(client, rest[1]);
        client.sync().unwrap();
        let children = client.children("/base").unwrap().unwrap();
        // What was not answered was not read, and did not happen.
        assert_eq!(children.len(), answered, "stopped the leader: {stop_leader}; happened, and answered");
        assert!(client.exists("/held", false).unwrap());
        let mut bystander = match stop_leader {
            true => ensemble.moved(bystander, rest[0]),
            false => bystander,
        };
        assert!(bystander.exists("/kept", false).unwrap());
        ensemble.restart(stopped);
        trees::compare(&ensemble, &all(&ensemble));
    }
}

#[test]
fn an_observer_serves_and_has_no_vote() {
    let mut ensemble = Ensemble::start(Layout::of(3).observers(1).kind(kind()));
    let observer = 3;
    assert_eq!(ensemble.serving(observer), "observer");
    let mut client = ensemble.client(observer, 20_000);
    client.create("/through", b"one", 0).unwrap().unwrap();
    client.create("/held", b"", EPHEMERAL).unwrap().unwrap();
    assert_eq!(client.get("/through", false).unwrap().unwrap().0, b"one");
    let mut other = ensemble.client(0, 20_000);
    other.set("/through", b"two").unwrap().unwrap();
    client.sync().unwrap();
    assert_eq!(client.get("/through", true).unwrap().unwrap().0, b"two");
    other.set("/through", b"three").unwrap().unwrap();
    assert_eq!(client.event().path, "/through");
    other.close();
    // The leader dies: it learns from the next one.
    let leader = ensemble.leader();
    ensemble.kill(leader);
    let mut client = ensemble.moved(client, observer);
    client.set("/through", b"four").unwrap().unwrap();
    // One voter of three is no quorum, whatever the observer says.
    let next = ensemble.leader();
    let last = (0..3).find(|&at| at != leader && at != next).unwrap();
    ensemble.kill(next);
    let ended = client.ended_within(SOON);
    assert!(ended, "its clients are let go\n{}\n---\n{}", ensemble.log(observer), ensemble.log(last));
    // Each notices by itself.
    wait_for("both to serve no more", SOON, || {
        (ensemble.mode(last).is_none() && ensemble.mode(observer).is_none()).then_some(())
    });
    ensemble.restart(leader);
    let mut client = ensemble.moved(client, observer);
    assert_eq!(client.get("/through", false).unwrap().unwrap().0, b"four");
    assert!(client.exists("/held", false).unwrap());
    client.close();
    ensemble.restart(next);
    (0..4).for_each(|at| drop(ensemble.serving(at)));
    trees::compare(&ensemble, &all(&ensemble));
}

#[test]
fn weights_and_groups_say_what_a_quorum_is() {
    // Server 1 weighs more than both others: it is a quorum by itself, and they are none.
    let layout = Layout::of(3).kind(kind()).with("group.1=1:2:3").with("weight.1=3").with("weight.2=1");
    let mut heavy = Ensemble::start(layout.with("weight.3=1"));
    assert!(heavy.serving(0) == "leader" || heavy.serving(0) == "follower");
    let mut client = heavy.client(0, 20_000);
    client.create("/one", b"", 0).unwrap().unwrap();
    heavy.kill_all(&[1, 2]);
    let mut client = heavy.moved(client, 0);
    client.create("/two", b"", 0).unwrap().unwrap();
    heavy.spawn(1);
    heavy.spawn(2);
    heavy.serving(1);
    heavy.serving(2);
    let mut light = heavy.client(1, 20_000);
    heavy.kill(0);
    let ended = light.ended_within(SOON);
    assert!(ended, "two light ones are no quorum\n{}\n---\n{}", heavy.log(1), heavy.log(2));
    wait_for("both to serve no more", SOON, || (heavy.mode(1).is_none() && heavy.mode(2).is_none()).then_some(()));
    heavy.restart(0);
    heavy.serving(1);
    heavy.serving(2);
    trees::compare(&heavy, &all(&heavy));
    drop(heavy);
    // Three groups of which two must agree, each by its own majority: any two whole groups go on, here 0 and 1.
    let layout = Layout::of(5).kind(kind()).with("group.1=1:2").with("group.2=3:4").with("group.3=5");
    let mut groups = Ensemble::start(layout);
    let mut client = groups.client(0, 20_000);
    client.create("/one", b"", 0).unwrap().unwrap();
    groups.kill(4);
    let mut client = groups.moved(client, 0);
    client.create("/two", b"", 0).unwrap().unwrap();
    // Of five servers three are left; but only one group has its majority.
    groups.kill(2);
    assert!(client.ended_within(SOON), "a majority of servers is none of groups");
    groups.restart(4);
    let mut client = groups.moved(client, 1);
    client.create("/three", b"", 0).unwrap().unwrap();
    groups.restart(2);
    (0..5).for_each(|at| drop(groups.serving(at)));
    trees::compare(&groups, &all(&groups));
}
