//! A whole server in this process, and clients that ask much of it at once, or read slowly: what that does to others, and to
//! themselves.

mod raw;

use ostler::clock;
use ostler::ids::SessionId;
use ostler::server::boot;
use ostler::wire::client::ConnectRequest;
use ostler::wire::client::xid::AUTH;
use ostler::wire::stat::Stat;
use ostler::wire::txn::Acl;
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

/// Each of these waits with less than a connection may; all of them together are too much.
#[test]
fn where_too_much_waits_for_all_clients_together_those_with_most_of_it_go() {
    const CLIENTS: usize = 10;
    const READS: i32 = 30;
    let dir = tempfile::tempdir().unwrap();
    let mut narrow = config(dir.path(), 1);
    narrow.core_output_bytes = 2 << 20;
    let server = boot::start(narrow).unwrap();
    let mut other = Raw::connect(server.address);
    assert_eq!(other.call(&create(1, "/big", &vec![7; 1_000_000], 0)).err, 0);
    let asks: Vec<u8> = (0..READS).flat_map(|xid| get(xid, "/big", false)).collect();
    let mut slow: Vec<Raw> = (0..CLIENTS).map(|_| Raw::connect(server.address)).collect();
    slow.iter_mut().for_each(|client| client.send(&asks));
    let connections = || {
        let mut raw = Raw::open(server.address);
        raw.send(b"srvr");
        let text = String::from_utf8(raw.rest()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Connections: ")).unwrap();
        line.parse::<usize>().unwrap()
    };
    // The slow ones, the other, and the one that asks.
    assert!((0..2_000).any(|_| connections() < CLIENTS + 2), "nobody was let go");
    assert_eq!(other.call(&ping()).xid, -2);
    let mut stayed = 0;
    for client in &mut slow {
        let mut xid = 0;
        while xid < READS
            && let Some(reply) = client.reply_or_end()
        {
            assert_eq!((reply.xid, reply.err), (xid, 0));
            xid += 1;
        }
        stayed += usize::from(xid == READS);
    }
    assert!((1..CLIENTS).contains(&stayed), "{stayed} have all that they asked for");
    server.stop().unwrap();
}

/// A path of nearly a megabyte, and more who watch it than may be told at once.
#[test]
fn a_change_with_a_long_path_is_told_to_as_many_as_there_is_room_for_and_others_hear_of_it_when_they_come_back() {
    const WATCHERS: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let mut narrow = config(dir.path(), 1);
    narrow.core_output_bytes = 1 << 20;
    let server = boot::start(narrow).unwrap();
    let path = format!("/{}", "x".repeat(900_000));
    let mut watchers: Vec<Raw> = (0..WATCHERS).map(|_| Raw::connect(server.address)).collect();
    for watcher in &mut watchers {
        assert_eq!(watcher.call(&read(1, OpCode::Exists, &path, true)).err, -101);
    }
    let mut writer = Raw::connect(server.address);
    assert_eq!(writer.call(&create(1, &path, b"", 0)).err, 0);
    let mut told = 0;
    for watcher in &mut watchers {
        match watcher.reply_or_end() {
            Some(event) => {
                assert_eq!(event.xid, -1);
                told += 1;
            }
            None => {
                let mut back = Raw::open(server.address).handshake(watcher.session, &watcher.password, 0);
                assert_eq!(back.session, watcher.session, "its session lives on");
                back.send(&request(-8, OpCode::SetWatches.to_wire(), |out| {
                    out.put_long(0);
                    out.put_int(0);
                    out.put_int(1);
                    out.put_text(&path);
                    out.put_int(0);
                }));
                assert_eq!([back.reply().xid, back.reply().xid], [-1, -8]);
            }
        }
    }
    // One of them is the one with which it was too much.
    assert_eq!(told, 2);
    server.stop().unwrap();
}

const ZNODES: usize = 300;

/// Hundreds of znodes under `/p`, each with a long list of its own.
fn create_with_long_lists(writer: &mut Raw) {
    for at in 0..ZNODES {
        let frame = request(1, OpCode::Create.to_wire(), |out| {
            out.put_text(&format!("/p/{at:03}"));
            out.put_buffer(None);
            let entry = |of| Acl { perms: Acl::READ, scheme: "digest".into(), id: format!("{at}:{of:06}") };
            let mut list: Vec<Acl> = (0..1_000).map(entry).collect();
            list.push(Acl { perms: Acl::ALL, scheme: "ip".into(), id: "127.0.0.1".into() });
            Acl::write_list(&list, out);
            out.put_int(0);
        });
        assert_eq!(writer.call(&frame).err, 0);
    }
}

/// Deletes them all in one transaction.
fn delete_all() -> Vec<u8> {
    request(3, OpCode::Multi.to_wire(), |out| {
        for at in 0..ZNODES {
            out.put_int(OpCode::Delete.to_wire());
            out.put_bool(false);
            out.put_int(-1);
            out.put_text(&format!("/p/{at:03}"));
            out.put_int(-1);
        }
        out.put_int(-1);
        out.put_bool(true);
        out.put_int(-1);
    })
}

fn add_watch(path: &str, mode: i32) -> Vec<u8> {
    request(2, OpCode::AddWatch.to_wire(), |out| {
        out.put_text(path);
        out.put_int(mode);
    })
}

/// Such a transaction is told in pieces, and nobody reads between them.
#[test]
fn what_takes_long_to_tell_is_told_in_order_and_before_anything_newer_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut writer = Raw::connect(server.address);
    assert_eq!(writer.call(&create(1, "/p", b"", 0)).err, 0);
    create_with_long_lists(&mut writer);
    let mut watcher = Raw::connect(server.address);
    assert_eq!(watcher.call(&add_watch("/p", 1)).err, 0);
    writer.send(&delete_all());
    // Until it reads what is newer than all of them.
    let mut told = 0;
    loop {
        watcher.send(&read(4, OpCode::GetChildren, "/p", false));
        loop {
            let reply = watcher.reply();
            if reply.xid == 4 {
                let children = Reader::new(&reply.body).int("count").unwrap() as usize;
                assert_eq!(children, if told == 0 { ZNODES } else { 0 }, "{told} have been told");
                break;
            }
            let mut event = Reader::new(&reply.body);
            assert_eq!((event.int("type").unwrap(), event.int("state").unwrap()), (2, 3));
            assert_eq!(event.text("path").unwrap().unwrap(), format!("/p/{told:03}"));
            told += 1;
        }
        if told > 0 {
            break;
        }
    }
    assert_eq!((told, writer.reply().err), (ZNODES, 0));
    server.stop().unwrap();
}

/// What is written while the pieces of such a transaction are told is told before it is read, too.
#[test]
fn what_is_written_while_much_is_told_is_told_before_it_is_read() {
    const WRITES: i32 = 400;
    const ROUNDS: i32 = 4;
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut writer = Raw::connect(server.address);
    for path in ["/p", "/q"] {
        assert_eq!(writer.call(&create(1, path, b"", 0)).err, 0);
    }
    let mut watcher = Raw::connect(server.address);
    assert_eq!(watcher.call(&add_watch("/p", 1)).err, 0);
    assert_eq!(watcher.call(&add_watch("/q", 0)).err, 0);
    let set = request(5, OpCode::SetData.to_wire(), |out| {
        out.put_text("/q");
        out.put_buffer(Some(b"x"));
        out.put_int(-1);
    });
    let mut told = 0;
    for round in 1..=ROUNDS {
        create_with_long_lists(&mut writer);
        writer.send(&[delete_all(), set.repeat(WRITES as usize)].concat());
        while told < round * WRITES {
            watcher.send(&read(4, OpCode::GetData, "/q", false));
            loop {
                let reply = watcher.reply();
                if reply.xid == 4 {
                    let mut body = Reader::new(&reply.body);
                    body.buffer("data").unwrap();
                    let version = Stat::read(&mut body).unwrap().version;
                    assert!(version <= told, "version {version} is read, and {told} changes have been told");
                    break;
                }
                let mut event = Reader::new(&reply.body);
                if (event.int("type").unwrap(), event.int("state").unwrap()) == (3, 3) {
                    told += 1;
                }
            }
        }
        for _ in 0..=WRITES {
            assert_eq!(writer.reply().err, 0);
        }
    }
    server.stop().unwrap();
}

/// Paths of nearly a megabyte: a few of them are more than is put together while others wait.
#[test]
fn words_whose_answers_would_be_too_large_say_so_and_are_counted_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 2)).unwrap();
    let mut clients = [Raw::connect(server.address), Raw::connect(server.address)];
    let ask = |word: &[u8]| {
        let mut raw = Raw::open(server.address);
        raw.send(word);
        String::from_utf8(raw.rest()).unwrap()
    };
    let parent = format!("/{}", "x".repeat(900_000));
    assert_eq!(clients[0].call(&create(1, &parent, b"", 0)).err, 0);
    for at in 0..20 {
        let path = format!("{parent}/{at}");
        assert_eq!(clients[0].call(&create(1, &path, b"", EPHEMERAL)).err, 0);
    }
    for at in 0..20 {
        // Half of them on znodes; the same again by another client, by path and for good, of the first one only.
        assert_eq!(clients[0].call(&read(2, OpCode::Exists, &format!("{parent}/{}", 2 * at), true)).xid, 2);
    }
    let add = request(3, OpCode::AddWatch.to_wire(), |out| {
        out.put_text(&format!("{parent}/0"));
        out.put_int(0);
    });
    assert_eq!(clients[1].call(&add).err, 0);
    assert_eq!(ask(b"wchs"), "2 connections watching 20 paths\nTotal watches:21\n");
    let too_many = "More than 16777216 bytes of paths: too many to gather while clients wait; ";
    for (word, instead) in [
        ("wchc", "wchs counts the watches"),
        ("wchp", "wchs counts the watches"),
        ("dump", "mntr counts the ephemeral nodes"),
    ] {
        let text = ask(word.as_bytes());
        assert!(text == format!("{too_many}{instead}.\n"), "{word}: {} bytes", text.len());
    }
    server.stop().unwrap();
}
