//! Clients of servers that stay, while the leader goes: they keep their connections, and with them their watches, and what
//! they ask meanwhile waits for the next leader; those are let go that can't be told what became of a request.

mod support;

use std::io::ErrorKind;
use std::time::Duration;

use support::client::{self, Client, EPHEMERAL, err, op};
use support::ensemble::{Ensemble, Layout, SOON};
use support::jute::Writer;
use support::servers::wait_for;

/// Clients on both followers, each with an ephemeral znode and a watch: on the very same connections everything goes on
/// when the leader has gone.
fn followers_keep_their_clients(end: impl Fn(&mut Ensemble, usize)) {
    let mut ensemble = Ensemble::start(Layout::of(3));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    assert_eq!(followers.len(), 2);
    let mut clients: Vec<Client> = followers.iter().map(|&at| ensemble.client(at, 30_000)).collect();
    clients[0].create("/w", b"", 0).unwrap().unwrap();
    for (at, client) in clients.iter_mut().enumerate() {
        client.create(&format!("/e{at}"), b"", EPHEMERAL).unwrap().unwrap();
        client.sync().unwrap();
        client.get("/w", true).unwrap().unwrap();
    }

    end(&mut ensemble, leader);
    // What is asked before the old one is missed has no answer, and no connection for one.
    ensemble.leader();

    for round in 0..2 {
        let stat = clients[round].set("/w", b"more").expect("the connection it had").unwrap();
        assert_eq!(stat.version, round as i32 + 1);
        for client in &mut clients {
            let event = client.event();
            assert_eq!((event.kind, event.path.as_str()), (3, "/w"), "told on the connection that it had");
            client.sync().expect("the connection it had");
            client.get("/w", true).expect("the connection it had").unwrap();
        }
    }
    let epochs: Vec<i64> = clients.iter().map(|client| client.last_zxid >> 32).collect();
    assert!(epochs.iter().all(|&epoch| epoch == 2), "{epochs:?}");
    for (at, client) in clients.iter_mut().enumerate() {
        for of in 0..2 {
            assert!(client.exists(&format!("/e{of}"), false).unwrap(), "session {of} lives, says {at}");
        }
    }
    // A session that moves leaves its old server's connection behind, and with it the right to write.
    let old = clients.remove(0);
    let (granted, zxid) = (old.granted.clone(), old.last_zxid);
    let mut moved = ensemble.resumed(&granted, zxid, followers[1]);
    moved.set("/w", b"moved").unwrap().unwrap();
    moved.close();
    assert!(!clients[0].exists("/e0", false).unwrap());
}

#[test]
fn clients_of_followers_stay_connected_when_the_leader_is_killed() {
    followers_keep_their_clients(|ensemble, leader| ensemble.kill(leader));
}

#[test]
fn clients_of_followers_stay_connected_when_the_leader_is_stopped() {
    followers_keep_their_clients(|ensemble, leader| {
        let _ = ensemble.terminate(leader);
    });
}

#[test]
fn a_connection_that_its_client_left_before_the_change_takes_nothing_from_the_one_that_it_uses() {
    let mut ensemble = Ensemble::start(Layout::of(3));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    // One is left on the server that will lead, the other on the one that will follow.
    let (mut left, mut used) = (Vec::new(), Vec::new());
    for (from, to) in [(0, 1), (1, 0)] {
        let mut client = ensemble.client(followers[from], 30_000);
        client.create(&format!("/{from}"), b"", 0).unwrap().unwrap();
        used.push(ensemble.resumed(&client.granted, client.last_zxid, followers[to]));
        left.push(client);
    }
    ensemble.kill(leader);
    ensemble.leader();
    for (at, client) in used.iter_mut().enumerate() {
        client.set(&format!("/{at}"), b"used").expect("the connection it had").unwrap();
    }
    for (at, client) in left.iter_mut().enumerate() {
        let answer = client.set(&format!("/{at}"), b"left");
        assert!(matches!(answer, Err(_) | Ok(Err(err::SESSION_MOVED))), "{answer:?}");
    }
    for (at, client) in used.iter_mut().enumerate() {
        assert_eq!(client.get(&format!("/{at}"), false).unwrap().unwrap().0, b"used");
    }
}

#[test]
fn a_client_whose_forwarded_write_has_no_answer_is_let_go_and_the_others_stay() {
    let mut ensemble = Ensemble::start(Layout::of(3));
    let leader = ensemble.leader();
    let follower = ensemble.followers()[0];
    let (mut writes, mut waits) = (ensemble.client(follower, 30_000), ensemble.client(follower, 30_000));
    writes.create("/a", b"", 0).unwrap().unwrap();
    ensemble.signal(leader, "STOP");
    writes.send(op::SET, client::set("/a", b"who knows")).unwrap();
    // Until the follower has taken the request: one more has been received than answered.
    let session = format!("sid=0x{:x}", writes.granted.session);
    wait_for("a request without an answer", SOON, || {
        let all = ensemble.word(follower, "cons")?;
        let line = all.lines().find(|line| line.contains(&session))?.to_owned();
        let number = |name: &str| -> Option<u64> {
            let digits = line.split(name).nth(1)?.split(',').next()?;
            digits.trim_end_matches(')').parse().ok()
        };
        (number("recved=")? > number("sent=")?).then_some(())
    });
    ensemble.kill(leader);
    assert!(writes.ended_within(SOON), "what became of its write is not known");
    ensemble.leader();
    waits.get("/a", false).expect("the connection it had").unwrap();
    waits.set("/a", b"known").expect("the connection it had").unwrap();
    let mut back = ensemble.moved(writes, follower);
    let (data, _) = back.get("/a", false).unwrap().unwrap();
    assert_eq!(data, b"known");
}

#[test]
fn what_is_asked_while_there_is_no_leader_waits_for_the_next_one() {
    let mut ensemble = Ensemble::start(Layout::of(3).with("syncLimit=150"));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    let mut client = ensemble.client(followers[0], 60_000);
    client.create("/a", b"", 0).unwrap().unwrap();
    ensemble.kill_all(&[leader, followers[1]]);
    wait_for("a follower to miss its leader", SOON, || ensemble.mode(followers[0]).is_none().then_some(()));
    client.send(op::SET, client::set("/a", b"patient")).unwrap();
    client.send(op::GET, Writer::new().text("/a").bool(false)).unwrap();
    client.patience = Duration::from_millis(300);
    assert!(client.receive().is_err_and(|error| error.kind() == ErrorKind::TimedOut), "nobody acknowledges anything");
    ensemble.spawn(leader);
    client.patience = SOON;
    assert_eq!(client.receive().expect("the connection it had").err, 0);
    assert_eq!(client.receive().expect("the connection it had").data().unwrap().0, b"patient");
}

#[test]
fn without_a_leader_for_synclimit_clients_are_let_go() {
    let mut ensemble = Ensemble::start(Layout::of(3).with("syncLimit=15"));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    let mut client = ensemble.client(followers[0], 30_000);
    client.create("/a", b"", 0).unwrap().unwrap();
    ensemble.kill_all(&[leader, followers[1]]);
    client.send(op::SET, client::set("/a", b"in vain")).unwrap();
    client.patience = Duration::from_secs(30);
    assert!(client.receive().is_err(), "nobody acknowledges anything");
    assert_eq!(ensemble.mode(followers[0]), None);
    ensemble.spawn(leader);
    let mut back = ensemble.moved(client, followers[0]);
    let (data, _) = back.get("/a", false).unwrap().unwrap();
    assert_eq!(data, b"");
}
