//! A whole server in this process, and clients that ask much of it at once, or read slowly: what that does to others, and to
//! themselves.

mod raw;

use ostler::clock;
use ostler::ids::SessionId;
use ostler::server::boot;
use ostler::wire::client::ConnectRequest;
use ostler::wire::client::xid::AUTH;
use ostler::wire::writer::Jute;
use ostler::wire::{OpCode, Reader};
use raw::{Raw, config, create, get, ping, read, request};
use std::io::{ErrorKind, Read};
use std::time::Duration;

const EPHEMERAL: i32 = 1;

/// How long another client may wait for its answer, on a machine that has much else to do.
const PATIENCE_MS: u128 = 1_000;

fn get_ephemerals(xid: i32, prefix: &str) -> Vec<u8> {
    request(xid, OpCode::GetEphemerals.to_wire(), |out| out.put_text(prefix))
}

/// The paths in a reply.
fn paths(body: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(body);
    let count = reader.int("count").unwrap();
    let paths = (0..count).map(|_| reader.text("path").unwrap().unwrap().into_owned()).collect();
    assert!(reader.rest().is_empty());
    paths
}

#[test]
fn ephemerals_are_those_of_the_session_whose_paths_begin_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut client = Raw::connect(server.address);
    let mut other = Raw::connect(server.address);
    assert_eq!(other.call(&create(1, "/other", b"", EPHEMERAL)).err, 0);
    for path in ["/a", "/a/b", "/a/\u{e4}"] {
        assert_eq!(client.call(&create(1, path, b"", 0)).err, 0);
    }
    let mine = ["/a/b/one", "/a/bc", "/a/\u{e4}/x", "/e", "/a/b/two"];
    for path in mine {
        assert_eq!(client.call(&create(1, path, b"", EPHEMERAL)).err, 0);
    }
    let prefixes = [
        "",
        " ",
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/a/b/",
        "/a/b/o",
        "/a/b/one",
        "/a/b/onee",
        "/a/b/oni",
        "/b/b",
        "a",
        "/e",
        "/e/",
        "/a/\u{e4}",
        "/a/\u{e5}",
        "/other",
        "one",
    ];
    for prefix in prefixes {
        let all = matches!(prefix.trim(), "" | "/");
        let expected: Vec<&str> = mine.into_iter().filter(|path| all || path.starts_with(prefix)).collect();
        let reply = client.call(&get_ephemerals(2, prefix));
        assert_eq!(
            (reply.err, paths(&reply.body)),
            (0, expected.iter().map(|it| it.to_string()).collect()),
            "{prefix:?}"
        );
    }
    server.stop().unwrap();
}

/// A request of forty bytes asks for what one of a megabyte made, once for each ephemeral.
#[test]
fn ephemerals_of_long_paths_are_refused_where_no_client_takes_them_and_keep_nobody_waiting() {
    const MARSHALLING_ERROR: i32 = -5;
    const EPHEMERALS: usize = 80;
    const ASKED: i32 = 1_500;
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut client = Raw::connect(server.address);
    let mut other = Raw::connect(server.address);
    let parent = format!("/{}", "x".repeat(900_000));
    assert_eq!(client.call(&create(1, &parent, b"", 0)).err, 0);
    for at in 0..EPHEMERALS {
        assert_eq!(client.call(&create(1, &format!("{parent}/{at}"), b"", EPHEMERAL)).err, 0);
        if at == 5 {
            assert_eq!(paths(&client.call(&get_ephemerals(2, "/x")).body).len(), 6);
        }
    }
    let reply = client.call(&get_ephemerals(3, "/x"));
    assert_eq!((reply.err, reply.body.len()), (MARSHALLING_ERROR, 0));
    // Those that are few enough are told.
    assert_eq!(paths(&client.call(&get_ephemerals(4, &format!("{parent}/7"))).body).len(), 11);
    // What does not begin so is not even put together.
    client.send(&(0..ASKED).flat_map(|xid| get_ephemerals(xid, "/y")).collect::<Vec<u8>>());
    let asked = clock::now();
    assert_eq!(other.call(&ping()).xid, -2);
    let took = clock::now().since(asked).as_millis();
    assert!(took < PATIENCE_MS, "another client waited for {took} ms");
    for xid in 0..ASKED {
        let reply = client.reply();
        assert_eq!((reply.xid, paths(&reply.body).len()), (xid, 0));
    }
    server.stop().unwrap();
}

/// Each is held against all the identities there are: what many of them take is done in pieces.
#[test]
fn identities_that_are_added_again_and_again_leave_room_for_others() {
    const GREEDY: usize = 7;
    const IDENTITIES: usize = 990;
    const AGAIN: usize = 1_300;
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let auth = |user: usize| {
        request(AUTH, OpCode::Auth.to_wire(), |out| {
            out.put_int(0);
            out.put_text("digest");
            out.put_buffer(Some(format!("{user}:x").as_bytes()));
        })
    };
    let again = auth(IDENTITIES - 1).repeat(AGAIN);
    let mut other = Raw::connect(server.address);
    let mut greedy: Vec<Raw> = (0..GREEDY).map(|_| Raw::connect(server.address)).collect();
    for one in &mut greedy {
        one.send(&(0..IDENTITIES).flat_map(auth).collect::<Vec<u8>>());
        for _ in 0..IDENTITIES {
            assert_eq!(one.reply().err, 0);
        }
    }
    for one in &mut greedy {
        one.send(&again);
    }
    assert_eq!(other.call(&ping()).xid, -2);
    let answers = AGAIN * 20;
    let mut scratch = vec![0; answers];
    let mut done = 0;
    for one in &mut greedy {
        one.socket.set_nonblocking(true).unwrap();
        done += usize::from(one.socket.peek(&mut scratch).unwrap_or(0) == answers);
        one.socket.set_nonblocking(false).unwrap();
    }
    assert!(done < GREEDY, "another client was answered when all was done");
    for one in &mut greedy {
        for _ in 0..AGAIN {
            assert_eq!(one.reply().err, 0);
        }
    }
    server.stop().unwrap();
}

fn connect_for(address: std::net::SocketAddr, timeout_ms: i32) -> Raw {
    let mut raw = Raw::open(address);
    let mut out = Vec::new();
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms,
        session: SessionId::NONE,
        password: None,
        read_only: None,
    };
    request.write(&mut out);
    raw.send(&out);
    assert!(raw.frame().is_some());
    raw
}

/// More than sockets hold is on its way to both. One of them goes on to ping, the other says and takes nothing.
#[test]
fn who_reads_slowly_keeps_its_session_while_it_pings_and_who_is_silent_does_not() {
    const TIMEOUT_MS: i32 = 3_000;
    const READS: i32 = 40;
    let dir = tempfile::tempdir().unwrap();
    let mut quick = config(dir.path(), 1);
    quick.tick_time_ms = 50;
    quick.min_session_timeout_ms = 100;
    quick.max_session_timeout_ms = 1_000_000;
    let server = boot::start(quick).unwrap();
    let mut watcher = Raw::connect(server.address);
    assert_eq!(watcher.call(&create(1, "/big", &vec![7; 1_000_000], 0)).err, 0);
    let mut asks: Vec<u8> = (0..READS).flat_map(|xid| get(xid, "/big", false)).collect();
    asks.extend(ping());
    let mut slow = connect_for(server.address, TIMEOUT_MS);
    assert_eq!(slow.call(&create(1, "/slow", b"", EPHEMERAL)).err, 0);
    slow.send(&asks);
    let mut pings = 1;
    // Two silent ones in turn, for a time that the slow one does not outlive by chance.
    for round in 0..2 {
        let path = format!("/silent{round}");
        let mut silent = connect_for(server.address, TIMEOUT_MS);
        assert_eq!(silent.call(&create(1, &path, b"", EPHEMERAL)).err, 0);
        assert_eq!(watcher.call(&read(1, OpCode::Exists, &path, true)).err, 0);
        silent.send(&asks);
        // The watcher's patience is the rhythm of the pings.
        watcher.socket.set_read_timeout(Some(Duration::from_millis(TIMEOUT_MS as u64 / 6))).unwrap();
        let started = clock::now();
        while watcher.socket.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            slow.send(&ping());
            pings += 1;
            assert!(clock::now().since(started).as_secs() < 60, "who takes nothing and says nothing lives for ever");
        }
        watcher.socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(watcher.reply().xid, -1);
        let taken = std::io::copy(&mut (&silent.socket).take(u64::MAX), &mut std::io::sink());
        assert!(
            taken.is_err() || taken.is_ok_and(|len| len < READS as u64 * 1_000_000),
            "it was let go before its end"
        );
    }
    assert_eq!(watcher.call(&read(2, OpCode::Exists, "/slow", false)).err, 0, "its session has expired");
    for xid in 0..READS {
        assert_eq!(slow.reply().xid, xid);
    }
    for _ in 0..pings {
        assert_eq!(slow.reply().xid, -2);
    }
    server.stop().unwrap();
}
