//! Clients of servers that stay, while the leader goes: they keep their connections, and with them their watches; what they
//! had asked is answered, once, and what they ask meanwhile waits for the next leader.

mod support;

use std::io::ErrorKind;
use std::time::Duration;

use support::client::{self, Client, EPHEMERAL, SEQUENTIAL, err, op};
use support::ensemble::{Ensemble, Layout, SOON, session};
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

    let before = clients[0].last_zxid >> 32;
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
    assert!(epochs.iter().all(|&epoch| epoch > before && epoch == epochs[0]), "{before}, {epochs:?}");
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

/// A client's requests of every kind, many at once, and what their answers have to be.
struct Burst {
    base: String,
    xids: Vec<i32>,
}

impl Burst {
    /// Of each kind.
    const EACH: usize = 40;

    fn send(client: &mut Client, base: &str) -> Burst {
        let mut xids = Vec::new();
        let mut send = |op, body| xids.push(client.send(op, body).expect("it takes requests"));
        send(op::CREATE, client::create(base, b"", 0));
        for n in 0..Burst::EACH {
            send(op::SET, client::set(base, n.to_string().as_bytes()));
            send(op::CREATE, client::create(&format!("{base}/s-"), b"", SEQUENTIAL));
            let set = (op::SET, client::set(base, b"in a multi"));
            send(op::MULTI, client::multi(&[set, (op::CREATE, client::create(&format!("{base}/m-{n}"), b"", 0))]));
            // Refused by every server for what it is, and by the leader for what there is.
            send(op::CREATE, Writer::new());
            send(op::CREATE, client::create(base, b"", 0));
            send(op::GET, Writer::new().text(base).bool(false));
            send(op::SYNC, Writer::new().text(base));
        }
        Burst { base: base.to_owned(), xids }
    }

    /// Every request is answered, in its order, on the connection on which it was sent, and has happened once.
    fn receive(self, client: &mut Client) {
        let Burst { base, xids } = self;
        let mut replies = xids.into_iter().map(|xid| {
            let reply = client.receive().expect("the connection it had");
            assert_eq!(reply.xid, xid, "in its order");
            reply
        });
        let mut last = replies.next().expect("of the create").zxid;
        for n in 0..Burst::EACH as i32 {
            let mut next = || replies.next().expect("one for each request");
            let (set, sequential, multi, refused, failed, get, sync) =
                (next(), next(), next(), next(), next(), next(), next());
            assert_eq!((set.err, set.stat().unwrap().version), (0, 2 * n + 1), "done once: {base} {n}");
            assert_eq!(sequential.path().unwrap(), format!("{base}/s-{:010}", 2 * n), "done once: {base} {n}");
            assert_eq!((multi.err, refused.err, failed.err), (0, err::MARSHALLING, err::NODE_EXISTS), "{base} {n}");
            assert_eq!(get.data().unwrap().1.version, 2 * n + 2, "it reads its own writes: {base} {n}");
            for write in [set.zxid, sequential.zxid, multi.zxid, failed.zxid] {
                assert!(write > last, "{base} {n}: {write:x} after {last:x}");
                last = write;
            }
            assert_eq!(sync.err, 0);
        }
        drop(replies);
        let children = client.children(&base).unwrap().unwrap();
        assert_eq!(children.len(), 2 * Burst::EACH, "{base}");
    }
}

/// Clients on the servers that stay, with many requests under way when the leader goes: each is answered, on the connection
/// that it was sent on.
fn requests_under_way_are_answered(end: impl Fn(&mut Ensemble, usize)) {
    let mut ensemble = Ensemble::start(Layout::of(3));
    for round in 0..3 {
        let leader = ensemble.leader();
        let followers = ensemble.followers();
        let mut clients: Vec<Client> = followers.iter().map(|&at| ensemble.client(at, 30_000)).collect();
        let mut bursts = Vec::new();
        for (at, client) in clients.iter_mut().enumerate() {
            bursts.push(Burst::send(client, &format!("/{round}-{at}")));
        }
        // Wherever they are now.
        end(&mut ensemble, leader);
        for (client, burst) in clients.iter_mut().zip(bursts) {
            burst.receive(client);
        }
        ensemble.restart(leader);
    }
}

#[test]
fn requests_under_way_are_answered_when_the_leader_is_killed() {
    requests_under_way_are_answered(|ensemble, leader| ensemble.kill(leader));
}

#[test]
fn requests_under_way_are_answered_when_the_leader_is_stopped() {
    requests_under_way_are_answered(|ensemble, leader| {
        let _ = ensemble.terminate(leader);
    });
}

#[test]
fn requests_that_a_dead_leader_has_not_read_are_asked_again() {
    let mut ensemble = Ensemble::start(Layout::of(3));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    let mut clients: Vec<Client> = followers.iter().map(|&at| ensemble.client(at, 30_000)).collect();
    let mut leaves = ensemble.client(followers[0], 30_000);
    ensemble.signal(leader, "STOP");
    let mut bursts = Vec::new();
    for (at, client) in clients.iter_mut().enumerate() {
        bursts.push(Burst::send(client, &format!("/{at}")));
        ensemble.wait_until_it_owes(followers[at], &session(client));
    }
    leaves.send(op::CREATE, client::create("/left", b"", 0)).unwrap();
    ensemble.wait_until_it_owes(followers[0], &session(&leaves));
    drop(leaves);
    ensemble.kill(leader);
    for (client, burst) in clients.iter_mut().zip(bursts) {
        burst.receive(client);
    }
    assert!(!clients[0].exists("/left", false).unwrap(), "asked for a client that had gone");
}

#[test]
fn a_proposal_that_only_the_next_leader_has_is_the_answer_and_is_not_asked_again() {
    let mut ensemble = Ensemble::start(Layout::of(5));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    let mut client = ensemble.client(followers[0], 30_000);
    client.create("/a", b"", 0).unwrap().unwrap();
    // Leader and one follower are no quorum: what the follower's client asks is proposed to both, and not committed.
    followers[1..].iter().for_each(|&at| ensemble.signal(at, "STOP"));
    let burst = Burst::send(&mut client, "/b");
    client.patience = Duration::from_millis(300);
    assert!(client.receive().is_err_and(|error| error.kind() == ErrorKind::TimedOut), "no quorum has it");
    client.patience = SOON;
    ensemble.kill(leader);
    followers[1..].iter().for_each(|&at| ensemble.signal(at, "CONT"));
    burst.receive(&mut client);
}

#[test]
fn a_session_is_closed_by_the_next_leader_if_the_last_one_has_not_done_it() {
    let mut ensemble = Ensemble::start(Layout::of(3));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    let (mut closes, mut stays) = (ensemble.client(followers[0], 30_000), ensemble.client(followers[1], 30_000));
    closes.create("/mine", b"", EPHEMERAL).unwrap().unwrap();
    ensemble.signal(leader, "STOP");
    let set = closes.send(op::CREATE, client::create("/last", b"", 0)).unwrap();
    let close = closes.send(op::CLOSE, Writer::new()).unwrap();
    ensemble.wait_until_it_owes(followers[0], &session(&closes));
    ensemble.kill(leader);
    for xid in [set, close] {
        let reply = closes.receive().expect("the connection it had");
        assert_eq!((reply.xid, reply.err), (xid, 0));
    }
    assert!(closes.ended_within(SOON));
    stays.sync().expect("the connection it had");
    assert!(!stays.exists("/mine", false).unwrap());
    assert!(stays.exists("/last", false).unwrap());
}

#[test]
fn a_session_has_the_timeout_of_its_last_handshake_under_the_next_leader_too() {
    let mut ensemble = Ensemble::start(Layout::of(3));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    let short = ensemble.client(followers[0], 3_000);
    let (granted, address) = (short.granted.clone(), ensemble.address(followers[0]));
    drop(short);
    let mut client = Client::enter(address, 40_000, 0, granted.session, &granted.password, SOON).expect("it is back");
    assert_eq!((client.granted.session, client.granted.timeout), (granted.session, 40_000));
    client.create("/a", b"", EPHEMERAL).unwrap().unwrap();
    let mut dead = ensemble.client(followers[1], 6_000);
    dead.create("/dead", b"", EPHEMERAL).unwrap().unwrap();
    let mut watcher = ensemble.client(followers[1], 60_000);
    assert!(watcher.exists("/dead", true).unwrap());
    ensemble.kill(leader);
    drop(dead);
    // Silent for longer than it asked for at first, and than another session lives without its client.
    assert_eq!(watcher.event().path, "/dead");
    assert!(client.exists("/a", false).expect("the connection it had"));
    client.set("/a", b"written").unwrap().unwrap();
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
    let mut ensemble = Ensemble::start(Layout::of(3).with("syncLimit=30"));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    let mut client = ensemble.client(followers[0], 30_000);
    client.create("/a", b"", 0).unwrap().unwrap();
    ensemble.kill_all(&[leader, followers[1]]);
    client.send(op::SET, client::set("/a", b"in vain")).unwrap();
    client.patience = Duration::from_secs(60);
    assert!(client.receive().is_err(), "nobody acknowledges anything");
    assert_eq!(ensemble.mode(followers[0]), None);
    ensemble.spawn(leader);
    let mut back = ensemble.moved(client, followers[0]);
    let (data, _) = back.get("/a", false).unwrap().unwrap();
    assert_eq!(data, b"");
}

/// What a server refuses by itself stands behind its own client's sync, and is in nobody else's way: the replies of each client
/// come in the order of its requests, and its sync after everything that it has written.
#[test]
fn a_refused_request_behind_a_sync_moves_no_other_clients_sync_forward() {
    const WRITES: usize = 10;
    let ensemble = Ensemble::start(Layout::of(3));
    let leader = ensemble.leader();
    let follower = ensemble.followers()[0];
    let mut writer = ensemble.client(follower, 30_000);
    let mut refused = ensemble.client(follower, 30_000);
    let sync = || Writer::new().text("/");
    ensemble.signal(leader, "STOP");
    let mut written: Vec<i32> =
        (0..WRITES).map(|at| writer.send(op::CREATE, client::create(&format!("/w{at}"), b"", 0)).unwrap()).collect();
    written.push(writer.send(op::SYNC, sync()).unwrap());
    ensemble.wait_until_it_owes(follower, &session(&writer));
    // A create that ends in the middle, between syncs.
    let broken = || Writer::new().text("/broken");
    let asked = [
        (refused.send(op::SYNC, sync()).unwrap(), 0),
        (refused.send(op::CREATE, broken()).unwrap(), err::MARSHALLING),
        (refused.send(op::SYNC, sync()).unwrap(), 0),
        (refused.send(op::CREATE, client::create("/after", b"", 0)).unwrap(), 0),
        (refused.send(op::CREATE, broken()).unwrap(), err::MARSHALLING),
        (refused.send(op::SYNC, sync()).unwrap(), 0),
    ];
    ensemble.wait_until_it_owes(follower, &session(&refused));
    ensemble.signal(leader, "CONT");
    for xid in written {
        let reply = writer.receive().unwrap();
        assert_eq!((reply.xid, reply.err), (xid, 0));
    }
    for (xid, error) in asked {
        let reply = refused.receive().unwrap();
        assert_eq!((reply.xid, reply.err), (xid, error));
    }
}

/// The same of one whose write behind the sync is in the next leader's history: what was refused behind both is answered by
/// whoever leads then, in its place.
#[test]
fn a_refused_request_behind_a_sync_and_a_write_is_answered_after_a_change_of_leader() {
    let mut ensemble = Ensemble::start(Layout::of(5));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    let mut client = ensemble.client(followers[0], 30_000);
    client.create("/a", b"", 0).unwrap().unwrap();
    // Leader and one follower are no quorum: the sync is not confirmed, and the write is proposed and not committed.
    followers[1..].iter().for_each(|&at| ensemble.signal(at, "STOP"));
    let asked = [
        (client.send(op::SYNC, Writer::new().text("/")).unwrap(), 0),
        (client.send(op::CREATE, client::create("/b", b"", 0)).unwrap(), 0),
        (client.send(op::CREATE, Writer::new().text("/broken")).unwrap(), err::MARSHALLING),
    ];
    client.patience = Duration::from_millis(300);
    assert!(client.receive().is_err_and(|error| error.kind() == ErrorKind::TimedOut), "no quorum has it");
    client.patience = SOON;
    ensemble.kill(leader);
    followers[1..].iter().for_each(|&at| ensemble.signal(at, "CONT"));
    for (xid, error) in asked {
        let reply = client.receive().unwrap();
        assert_eq!((reply.xid, reply.err), (xid, error));
    }
    assert!(client.exists("/b", false).unwrap());
}
