//! A whole server in this process, spoken to in bytes: the ordering rules, the handshake, bad input, four-letter words,
//! restart.

mod raw;

use ostler::disk::RealDisk;
use ostler::ids::{OwnerRules, SessionId};
use ostler::log::{Recovery, Sizes};
use ostler::server::boot::{self, Running};
use ostler::snapshot;
use ostler::tree::{Applied, TreeOptions};
use ostler::wire::OpCode;
use ostler::wire::txn::{Acl, Txn, read_txn};
use ostler::wire::writer::Jute;
use raw::{Raw, close, config, create, data, delete, get, ping, read, request, set};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn server(dir: &Path) -> Running {
    boot::start(config(dir, 2)).unwrap()
}

#[test]
fn a_read_between_two_writes_of_one_segment_sees_the_first_and_not_the_second() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = Raw::connect(server.address);
    assert_eq!(client.call(&create(1, "/x", b"0", 0)).err, 0);
    let mut xid = 2;
    for round in 0..200u32 {
        let (one, two) = (format!("{round}-1"), format!("{round}-2"));
        let mut segment = set(xid, "/x", one.as_bytes());
        segment.extend(get(xid + 1, "/x", false));
        segment.extend(set(xid + 2, "/x", two.as_bytes()));
        segment.extend(get(xid + 3, "/x", false));
        client.send(&segment);
        let replies: Vec<_> = (0..4).map(|_| client.reply()).collect();
        assert_eq!(replies.iter().map(|reply| reply.xid).collect::<Vec<_>>(), (xid..xid + 4).collect::<Vec<_>>());
        assert_eq!(data(&replies[1]), one.as_bytes());
        assert_eq!(data(&replies[3]), two.as_bytes());
        assert!(replies[1].zxid >= replies[0].zxid && replies[1].zxid < replies[2].zxid);
        xid += 4;
    }
    server.stop().unwrap();
}

#[test]
fn an_event_comes_before_the_data_that_fired_it_on_every_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut writer = Raw::connect(server.address);
    writer.call(&create(1, "/w", b"0", 0));
    let mut watchers: Vec<Raw> = (0..4).map(|_| Raw::connect(server.address)).collect();
    for round in 1..100i32 {
        for watcher in &mut watchers {
            watcher.call(&get(round, "/w", true));
        }
        writer.send(&set(round + 1, "/w", round.to_string().as_bytes()));
        for watcher in &mut watchers {
            // Reads until the new data shows; the event must have come before.
            let mut told = false;
            loop {
                watcher.send(&get(round, "/w", false));
                let mut reply = watcher.reply();
                if reply.xid == -1 {
                    told = true;
                    reply = watcher.reply();
                }
                if data(&reply) == round.to_string().as_bytes() {
                    assert!(told, "round {round}: data before its event");
                    break;
                }
            }
        }
        assert_eq!(writer.reply().err, 0);
    }
    server.stop().unwrap();
}

#[test]
fn a_sessions_own_event_precedes_the_reply_to_its_write() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = Raw::connect(server.address);
    client.call(&create(1, "/w", b"", 0));
    client.call(&get(2, "/w", true));
    client.send(&delete(3, "/w"));
    let (event, reply) = (client.reply(), client.reply());
    assert_eq!((event.xid, event.zxid), (-1, reply.zxid));
    assert_eq!(event.body[..8], [0, 0, 0, 2, 0, 0, 0, 3]);
    assert_eq!((reply.xid, reply.err), (3, 0));
    server.stop().unwrap();
}

#[test]
fn a_session_moves_to_the_new_connection_and_the_old_one_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut first = Raw::connect(server.address);
    assert_eq!(first.call(&create(1, "/e", b"", 1)).err, 0);
    let mut second = Raw::open(server.address).handshake(first.session, &first.password, 0);
    assert_eq!(second.session, first.session);
    assert_eq!(first.frame(), None);
    // The ephemeral is still the session's.
    assert_eq!(second.call(&read(1, OpCode::Exists, "/e", false)).err, 0);
    // A wrong password closes the rightful connection too, as ZooKeeper does, and is refused.
    let third = Raw::open(server.address).handshake(first.session, &[9; 16], 0);
    assert_eq!((third.session, third.timeout_ms), (SessionId::NONE, 0));
    assert_eq!(second.frame(), None);
    let mut fourth = Raw::open(server.address).handshake(first.session, &first.password, 0);
    assert_eq!(fourth.session, first.session);
    // One of another length is as wrong, also where it begins with the right one.
    for len in [0, 15, 17, 1_000_000] {
        let password: Vec<u8> = first.password.iter().copied().chain(std::iter::repeat(0)).take(len).collect();
        let mut other = Raw::open(server.address).handshake(first.session, &password, 0);
        assert_eq!((other.session, other.timeout_ms, other.password), (SessionId::NONE, 0, [0; 16]), "{len} bytes");
        assert_eq!(other.frame(), None);
        assert_eq!(fourth.frame(), None, "{len} bytes");
        fourth = Raw::open(server.address).handshake(first.session, &first.password, 0);
        assert_eq!(fourth.session, first.session);
    }
    assert_eq!(fourth.call(&close(2)).err, 0);
    assert_eq!(fourth.frame(), None);
    let gone = Raw::open(server.address).handshake(first.session, &first.password, 0);
    assert_eq!(gone.timeout_ms, 0, "a closed session is not given out again");
    server.stop().unwrap();
}

#[test]
fn a_client_that_has_seen_a_newer_zxid_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = Raw::open(server.address).handshake(SessionId::NONE, &[0; 16], 1 << 40);
    assert_eq!((client.timeout_ms, client.frame()), (0, None));
    server.stop().unwrap();
}

#[test]
fn bad_bytes_end_their_own_connection_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut bystander = Raw::connect(server.address);
    let bad: [&[u8]; 8] = [
        &[0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0, 0x10, 0, 0],
        &[0, 0, 0, 0],
        &[0, 0, 0, 3, 1, 2, 3],
        b"RUOK",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 99],
    ];
    for bytes in bad {
        let mut fresh = Raw::open(server.address);
        fresh.send(bytes);
        assert_eq!(fresh.rest(), b"", "{bytes:?} before the handshake");
    }
    for bytes in &bad[..5] {
        let mut client = Raw::connect(server.address);
        client.send(bytes);
        assert_eq!(client.rest(), b"", "{bytes:?} after the handshake");
    }
    for op in [0, -1, 10, 13, 20, -10, 99, i32::MIN] {
        let mut client = Raw::connect(server.address);
        let reply = client.call(&request(5, op, |_| {}));
        assert_eq!((reply.xid, reply.zxid, reply.err, reply.body.len()), (5, -1, -6, 0), "op {op}");
        assert_eq!(client.frame(), None);
    }
    // A record that does not decode is answered, and the connection stays.
    let mut client = Raw::connect(server.address);
    for op in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 15, 17, 18, 19, 21, 22, 101, 103, 104, 105, 106] {
        let reply = client.call(&request(op, op, |out| out.put_int(0x7fff_ffff)));
        assert_eq!((reply.err, reply.body.len()), (-5, 0), "op {op}");
    }
    assert_eq!(bystander.call(&ping()).xid, -2);
    server.stop().unwrap();
}

#[test]
fn requests_in_pieces_of_a_byte_are_put_together() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = Raw::connect(server.address);
    let mut bytes = create(1, "/piece", b"meal", 0);
    bytes.extend(get(2, "/piece", false));
    for byte in bytes {
        client.send(&[byte]);
    }
    assert_eq!(client.reply().xid, 1);
    assert_eq!(data(&client.reply()), b"meal");
    // The largest node that fits a frame, and one byte more.
    let largest = vec![7; 1_048_523];
    assert_eq!(client.call(&create(3, "/bigg", &largest, 0)).err, 0);
    assert_eq!(data(&client.call(&get(4, "/bigg", false))).len(), largest.len());
    // The server may close on the length alone, while the rest is still being sent.
    use std::io::Write;
    let _ = client.socket.write_all(&create(5, "/bigg", &vec![7; 1_048_524], 0));
    assert_eq!(client.rest(), b"");
    server.stop().unwrap();
}

#[test]
fn a_client_that_does_not_read_is_no_burden_to_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut deaf = Raw::connect(server.address);
    assert_eq!(deaf.call(&create(1, "/big", &vec![1; 900_000], 0)).err, 0);
    let mut asked = 0;
    deaf.socket.set_write_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    // Reads of 900 KB until nothing more goes in: the server has stopped reading.
    while asked < 100_000 {
        use std::io::Write;
        if deaf.socket.write_all(&get(2 + asked, "/big", false)).is_err() {
            break;
        }
        asked += 1;
    }
    let mut other = Raw::connect(server.address);
    for xid in 1..100 {
        assert_eq!(other.call(&set(xid, "/big", b"small")).err, 0);
    }
    server.stop().unwrap();
}

#[test]
fn four_letter_words_are_answered_and_the_connection_closed() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = Raw::connect(server.address);
    client.call(&create(1, "/a", b"", 1));
    client.call(&get(2, "/a", true));
    let ask = |word: &[u8]| {
        let mut raw = Raw::open(server.address);
        raw.send(word);
        String::from_utf8(raw.rest()).unwrap()
    };
    assert_eq!(ask(b"ruok"), "imok");
    assert_eq!(ask(b"ruok\n"), "imok");
    assert_eq!(ask(b"isro"), "rw");
    assert!(ask(b"srvr").contains("\nMode: standalone\nNode count: 6\n"), "{}", ask(b"srvr"));
    assert!(ask(b"stat").contains("Clients:\n /127.0.0.1:"));
    assert!(ask(b"mntr").contains("zk_znode_count\t6\n"));
    assert_eq!(ask(b"wchs"), "1 connections watching 1 paths\nTotal watches:1\n");
    assert_eq!(ask(b"wchp"), format!("/a\n\t{}\n\n", client.session));
    assert_eq!(ask(b"wchc"), format!("{}\n\t/a\n\n", client.session));
    // One whose watch has fired is named still, as by ZooKeeper 3.9.5; and a write that has failed is no operation.
    let mut other = Raw::connect(server.address);
    other.call(&set(1, "/a", b"new"));
    other.call(&set(2, "/none", b"new"));
    assert_eq!(ask(b"wchs"), "1 connections watching 0 paths\nTotal watches:0\n");
    assert_eq!(ask(b"wchc"), format!("{}\n\n", client.session));
    assert!(ask(b"cons").contains(&format!("sid={},lop=NA,", other.session)));
    assert!(ask(b"dump").contains(&format!("Sessions with Ephemerals (1):\n{}:\n\t/a\n", client.session)));
    assert!(ask(b"cons").contains("lop=GETD"));
    assert!(ask(b"conf").contains(&format!("clientPort={}\n", server.address.port())));
    for word in ["dirs", "envi", "hash", "gtmk", "crst", "srst"] {
        ask(word.as_bytes());
    }
    server.stop().unwrap();
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_and_sessions_live_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = server(dir.path());
    let mut client = Raw::connect(first.address);
    for xid in 1..500 {
        assert_eq!(client.call(&create(xid, &format!("/n{xid}"), xid.to_string().as_bytes(), 0)).err, 0);
    }
    let last = client.call(&create(500, "/e", b"", 1));
    first.stop().unwrap();
    let second = server(dir.path());
    let mut client = Raw::open(second.address).handshake(client.session, &client.password, last.zxid);
    assert_ne!(client.timeout_ms, 0, "the session lives on");
    for xid in 1..500 {
        assert_eq!(data(&client.call(&get(xid, &format!("/n{xid}"), false))), xid.to_string().as_bytes());
    }
    assert_eq!(client.call(&read(1, OpCode::Exists, "/e", false)).err, 0);
    let next = client.call(&create(501, "/after", b"", 0));
    assert_eq!(next.zxid, last.zxid + 1, "history goes on without a gap");
    second.stop().unwrap();
}

#[test]
fn a_second_server_on_the_same_directory_or_port_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let refused = boot::start(config(dir.path(), 1)).err().expect("the directory is in use");
    assert_eq!(refused.exit_status(), 3, "{refused}");
    let other = tempfile::tempdir().unwrap();
    let mut same_port = config(other.path(), 1);
    same_port.client_port = server.address.port();
    let refused = boot::start(same_port).err().expect("the port is in use");
    assert_eq!(refused.exit_status(), 1, "{refused}");
    server.stop().unwrap();
}

#[test]
fn connections_over_the_limit_of_an_address_are_closed_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let mut limited = config(dir.path(), 2);
    limited.max_client_cnxns = 3;
    let server = boot::start(limited).unwrap();
    let mut kept: Vec<Raw> = (0..3).map(|_| Raw::connect(server.address)).collect();
    assert_eq!(Raw::open(server.address).rest(), b"");
    assert_eq!(kept[0].call(&close(1)).err, 0);
    assert_eq!(kept[0].frame(), None);
    // The place is free once the server has seen the end; asking again is the only way to know.
    let admitted = (0..1000).any(|_| Raw::open(server.address).handshake(SessionId::NONE, &[], 0).timeout_ms > 0);
    assert!(admitted);
    server.stop().unwrap();
}

#[test]
fn a_server_that_never_runs_for_long_has_its_snapshot_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut often = config(dir.path(), 1);
    often.snap_count = 100;
    let snapshots = || snapshot::list(&RealDisk, &dir.path().join("version-2")).unwrap();
    // Each run writes less than the least after which a snapshot is due; all of them together much more.
    for run in 0..6 {
        let server = boot::start(often.clone()).unwrap();
        let mut client = Raw::connect(server.address);
        for at in 0..30 {
            assert_eq!(client.call(&create(at + 1, &format!("/n{run}-{at}"), b"x", 0)).err, 0);
        }
        // It is written while the server goes on; only a look tells when it is done.
        for _ in 0..2_000 {
            if run < 5 || !snapshots().is_empty() {
                break;
            }
            client.call(&ping());
        }
        let mut words = Raw::open(server.address);
        words.send(b"mntr");
        let counted = String::from_utf8(words.rest()).unwrap();
        assert!(counted.contains("zk_snap_count\t0\n"), "those are learners that got all of it: {counted}");
        server.stop().unwrap();
    }
    assert!(!snapshots().is_empty(), "180 transactions and more, and no snapshot at every 100");
}

#[test]
fn a_start_that_has_much_to_replay_is_followed_by_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = || snapshot::list(&RealDisk, &dir.path().join("version-2")).unwrap();
    let first = server(dir.path());
    let mut client = Raw::connect(first.address);
    let mut last = 0;
    for at in 0..20 {
        last = client.call(&create(at + 1, &format!("/n{at}"), &[7; 60_000], 0)).zxid;
    }
    first.stop().unwrap();
    assert_eq!(snapshots(), [], "far fewer transactions than after which one is due");

    let second = server(dir.path());
    let began = ostler::clock::now();
    // It is written while the server goes on; only a look tells when it is done. Nobody writes meanwhile.
    while snapshots().is_empty() {
        assert!(ostler::clock::now().since(began).as_secs() < 30);
        let mut raw = Raw::open(second.address);
        raw.send(b"ruok");
        assert_eq!(raw.rest(), b"imok");
    }
    second.stop().unwrap();
    assert_eq!(snapshots(), [ostler::ids::Zxid(last as u64)]);
}

/// Writers that don't stop while snapshot after snapshot is taken; then each snapshot, with the log up to the next one
/// replayed on top, is compared with that next one.
#[test]
fn a_snapshot_under_full_write_load_is_the_state_at_its_zxid() {
    let dir = tempfile::tempdir().unwrap();
    let mut often = config(dir.path(), 2);
    often.snap_count = 2_000;
    often.purge.when = ostler::config::PurgeWhen::Never;
    let server = boot::start(often).unwrap();
    let address = server.address;
    let enough = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let enough = enough.clone();
            std::thread::spawn(move || {
                let mut client = Raw::connect(address);
                let mut acknowledged = Vec::new();
                for round in (0..).take_while(|round| *round < 60 || !enough.load(Ordering::SeqCst)) {
                    let mut segment = Vec::new();
                    for at in 0..100 {
                        let xid = round * 100 + at + 1;
                        let path = format!("/w{writer}-{}", at % 50);
                        segment.extend(match (round % 3, at % 2) {
                            (0, _) => create(xid, &path, &[b'a'; 300], i32::from(at % 7 == 0)),
                            (1, 0) => set(xid, &path, xid.to_string().as_bytes()),
                            _ => delete(xid, &path),
                        });
                    }
                    client.send(&segment);
                    acknowledged.extend((0..100).map(|_| client.reply().zxid));
                }
                acknowledged
            })
        })
        .collect();
    let files = dir.path().join("version-2");
    let began = ostler::clock::now();
    while snapshot::list(&RealDisk, &files).unwrap().len() < 3 {
        assert!(ostler::clock::now().since(began).as_secs() < 120, "three snapshots");
        std::thread::yield_now();
    }
    enough.store(true, Ordering::SeqCst);
    let mut zxids: Vec<i64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    server.stop().unwrap();
    let writes = zxids.len();
    zxids.sort_unstable();
    zxids.dedup();
    assert_eq!(zxids.len(), writes, "each write has a zxid of its own");

    let (disk, options) = (RealDisk, TreeOptions { owner_rules: OwnerRules::default(), digest: true });
    let mut snapshots = snapshot::list(&disk, &files).unwrap();
    snapshots.reverse();
    assert!(snapshots.len() >= 3, "{snapshots:?}");
    for pair in snapshots.windows(2) {
        let [from, to] =
            [pair[0], pair[1]].map(|at| snapshot::load(&disk, &snapshot::snapshot_path(&files, at), options, 2));
        let (from, to) = (from.unwrap(), to.unwrap());
        let mut tree = from.tree;
        let mut sessions: std::collections::BTreeMap<SessionId, i32> = from.sessions.into_iter().collect();
        let mut recovery = Recovery::open(disk, &files, pair[0], Sizes::default()).unwrap();
        let mut applied = Applied::default();
        while tree.zxid() < pair[1] {
            let (_, record) = recovery.next().unwrap().expect("the log reaches to the snapshot");
            let (header, txn, _) = read_txn(record).unwrap();
            match &txn {
                Txn::CreateSession { timeout_ms } => drop(sessions.insert(header.session, *timeout_ms)),
                Txn::CloseSession { .. } => drop(sessions.remove(&header.session)),
                _ => {}
            }
            applied.clear();
            tree.apply(&header, txn, &mut applied);
        }
        assert_eq!(tree.digest(), to.tree.digest());
        assert_eq!(sessions.into_iter().collect::<Vec<_>>(), to.sessions);
        assert_eq!(tree.node_count(), to.tree.node_count());
        let mut names: Vec<&str> = tree.lookup("/").unwrap().children().collect();
        names.sort_unstable();
        for name in names {
            let path = format!("/{name}");
            let (ours, theirs) = (tree.lookup(&path).unwrap(), to.tree.lookup(&path).unwrap());
            assert_eq!((ours.stat(), ours.data(), ours.acl()), (theirs.stat(), theirs.data(), theirs.acl()), "{path}");
        }
    }
}

#[test]
fn a_restart_goes_on_from_the_newest_snapshot_and_old_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut often = config(dir.path(), 1);
    often.snap_count = 100;
    let files = dir.path().join("version-2");
    let mut expected = 0;
    for start in 0..6 {
        let server = boot::start(often.clone()).unwrap();
        let mut client = Raw::connect(server.address);
        for at in 0..300 {
            assert_eq!(client.call(&create(at + 1, &format!("/n{start}-{at}"), b"x", 0)).err, 0);
            expected += 1;
        }
        let reply = client.call(&read(1, OpCode::GetAllChildrenNumber, "/", false));
        assert_eq!(i32::from_be_bytes(reply.body[..4].try_into().unwrap()), expected + 3);
        server.stop().unwrap();
    }
    let snapshots = snapshot::list(&RealDisk, &files).unwrap();
    assert!((1..=3).contains(&snapshots.len()), "{snapshots:?}");
}

#[test]
fn containers_and_ttl_nodes_are_reaped_when_their_time_has_come_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut quick = config(dir.path(), 1);
    quick.owner_rules.extended_types = true;
    quick.containers.check_interval_ms = 20;
    let server = boot::start(quick).unwrap();
    let mut client = Raw::connect(server.address);
    let made = |op: OpCode, xid: i32, path: &str, flags: i32, ttl: Option<i64>| {
        request(xid, op.to_wire(), |out| {
            out.put_text(path);
            out.put_buffer(None);
            Acl::write_list(&[Acl::world(Acl::ALL)], out);
            out.put_int(flags);
            if let Some(ttl) = ttl {
                out.put_long(ttl);
            }
        })
    };
    for (at, path) in ["/used", "/unused", "/full"].into_iter().enumerate() {
        assert_eq!(client.call(&made(OpCode::CreateContainer, at as i32, path, 4, None)).err, 0);
    }
    assert_eq!(client.call(&made(OpCode::CreateTtl, 4, "/short", 5, Some(1))).err, 0);
    assert_eq!(client.call(&made(OpCode::CreateTtl, 5, "/long", 5, Some(1 << 39))).err, 0);
    client.call(&create(6, "/full/child", b"", 0));
    client.call(&create(7, "/used/child", b"", 0));
    assert_eq!(client.call(&read(8, OpCode::Exists, "/used", true)).err, 0);
    client.send(&delete(9, "/used/child"));
    assert_eq!(client.reply().err, 0);
    let event = client.reply();
    assert_eq!((event.xid, &event.body[..4]), (-1, &[0, 0, 0, 2][..]), "the container goes with its last child");
    // Gone some time after a millisecond; asking again is the only way to know.
    while client.call(&read(10, OpCode::Exists, "/short", false)).err == 0 {}
    for path in ["/unused", "/full", "/full/child", "/long"] {
        assert_eq!(client.call(&read(11, OpCode::Exists, path, false)).err, 0, "{path}");
    }
    server.stop().unwrap();
}

#[test]
fn a_session_whose_client_is_silent_ends_and_takes_its_ephemerals_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut quick = config(dir.path(), 1);
    quick.tick_time_ms = 50;
    quick.min_session_timeout_ms = 100;
    quick.max_session_timeout_ms = 1_000_000;
    let server = boot::start(quick).unwrap();
    let mut watcher = Raw::connect(server.address);
    let mut silent = Raw::open(server.address);
    let mut out = Vec::new();
    let short = ostler::wire::client::ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms: 4_000,
        session: SessionId::NONE,
        password: None,
        read_only: None,
    };
    short.write(&mut out);
    silent.send(&out);
    assert_eq!(silent.frame().unwrap().len(), 36);
    assert_eq!(silent.call(&create(1, "/e", b"", 1)).err, 0);
    assert_eq!(watcher.call(&read(1, OpCode::Exists, "/e", true)).err, 0);
    let event = watcher.reply();
    assert_eq!((event.xid, &event.body[..4]), (-1, &[0, 0, 0, 2][..]));
    assert_eq!(silent.frame(), None, "closed without a word");
    server.stop().unwrap();
}

#[test]
fn a_directory_of_zookeepers_is_not_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("version-2")).unwrap();
    std::fs::write(dir.path().join("version-2/snapshot.1a"), b"ZKSN").unwrap();
    let refused = boot::start(config(dir.path(), 1)).err().expect("foreign data");
    assert!(refused.to_string().contains("snapshot.1a"), "{refused}");
}

/// The directory goes away under the server: the next segment can't be made, while others go on writing small things.
#[test]
fn a_log_that_cannot_be_written_ends_the_server_with_its_reason() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path());
        let address = server.address;
        let mut client = Raw::connect(address);
        assert_eq!(client.call(&create(1, "/first", &vec![1; 900_000], 0)).err, 0);
        let others: Vec<Raw> = (0..4).map(|_| Raw::connect(address)).collect();
        std::fs::rename(dir.path().join("version-2"), dir.path().join("gone")).unwrap();
        let others: Vec<_> = others
            .into_iter()
            .map(|mut other| {
                std::thread::spawn(move || {
                    use std::io::Write;
                    while other.socket.write_all(&set(1, "/first", b"y")).is_ok() && other.reply_or_end().is_some() {}
                })
            })
            .collect();
        // One more segment may have been prepared ahead.
        let ended = (2..100).find(|xid| {
            use std::io::Write;
            let _ = client.socket.write_all(&set(*xid, "/first", &vec![1; 900_000]));
            client.reply_or_end().is_none()
        });
        assert!(ended.is_some());
        let fatal = server.stop().unwrap_err();
        assert_ne!(fatal.exit_status(), 0, "{fatal}");
        others.into_iter().for_each(|other| other.join().unwrap());
    }
}

/// Until then, damage to exactly the last group could pass for an append that a crash has interrupted.
#[test]
fn a_server_that_has_nothing_to_do_says_in_its_watermark_how_far_the_log_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = Raw::connect(server.address);
    let zxid = client.call(&create(1, "/x", b"0", 0)).zxid;
    let began = ostler::clock::now();
    let log_dir = config(dir.path(), 2).log_dir();
    let settled = || {
        ostler::log::inspect::survey(&RealDisk, &log_dir).unwrap().1.unwrap().map(|watermark| watermark.zxid.to_wire())
    };
    while settled() != Some(zxid) {
        assert!(ostler::clock::now().since(began).as_secs() < 30, "{:?} of {zxid}", settled());
        // Only not to read the file all the time.
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    server.stop().unwrap();
}

/// What is said of a damaged log is what a walk through it on one thread says, however far ahead it was read.
#[test]
fn a_start_finds_the_first_thing_that_is_wrong_with_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let first = server(dir.path());
    let mut client = Raw::connect(first.address);
    // Enough for a second segment, and one that is made behind it.
    let body = [7; 3_000];
    for xid in 1..1_200 {
        assert_eq!(client.call(&create(xid, &format!("/n{xid}"), &body, 0)).err, 0);
    }
    first.stop().unwrap();
    let segment = |number: u32| format!("version-2/segment.{number:016x}");
    assert!(dir.path().join(segment(3)).exists());

    // Where bytes are changed, in which segment.
    let mut cases: Vec<Vec<(u32, u64)>> = (0..3).map(|at| vec![(1, 600 + at * 300_000)]).collect();
    cases.extend((0..3).map(|at| vec![(2, 100 + at * 800_000)]));
    cases.extend([
        vec![(3, 9_000)],
        vec![(1, 700), (3, 9_000)],
        vec![(2, 900_000), (3, 9_000)],
        vec![(2, 3), (3, 513)],
    ]);
    for case in cases {
        let damaged = tempfile::tempdir().unwrap();
        let files = damaged.path().join("version-2");
        std::fs::create_dir(&files).unwrap();
        for entry in std::fs::read_dir(dir.path().join("version-2")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, files.join(path.file_name().unwrap())).unwrap();
        }
        for &(number, at) in &case {
            use std::os::unix::fs::FileExt;
            let file =
                std::fs::File::options().read(true).write(true).open(damaged.path().join(segment(number))).unwrap();
            let mut bytes = [0; 4_096];
            file.read_exact_at(&mut bytes, at).unwrap();
            // In a body, if there are any: what fills a record up to 32 bytes is under no checksum.
            let changed = bytes.windows(2).position(|pair| pair == [7; 2]).unwrap_or(0);
            file.write_all_at(&[!bytes[changed]], at + changed as u64).unwrap();
        }
        let walk = || {
            let mut recovery = Recovery::open(RealDisk, &files, snapshot_zxid(&files), Sizes::default())?;
            while recovery.next()?.is_some() {}
            Ok::<(), ostler::fatal::Fatal>(())
        };
        let expected = walk().unwrap_err().to_string();
        let found = boot::start(config(damaged.path(), 1)).err().expect("the log is damaged").to_string();
        assert_eq!(found, expected, "{case:?}");
    }
}

fn snapshot_zxid(files: &Path) -> ostler::ids::Zxid {
    snapshot::list(&RealDisk, files).unwrap().first().copied().unwrap_or(ostler::ids::Zxid::ZERO)
}
