//! A whole server in this process, at its limits: full buffers, replies that grow too large, who may come in at all, and
//! what an operator is told about it.

#[path = "support/files.rs"]
mod files;
mod raw;

use ostler::auth::{DigestAlgorithm, derive};
use ostler::clock;
use ostler::server::boot;
use ostler::wire::OpCode;
use ostler::wire::client::xid::AUTH;
use ostler::wire::txn::Acl;
use ostler::wire::writer::Jute;
use raw::{Raw, config, create, data, get, ping, read, request, set};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

fn auth(scheme: &str, secret: &[u8]) -> Vec<u8> {
    request(AUTH, OpCode::Auth.to_wire(), |out| {
        out.put_int(0);
        out.put_text(scheme);
        out.put_buffer(Some(secret));
    })
}

fn mntr(address: SocketAddr) -> impl Fn(&str) -> String {
    let mut raw = Raw::open(address);
    raw.send(b"mntr");
    let text = String::from_utf8(raw.rest()).unwrap();
    move |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("zk_{name}\t")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).to_string()
    }
}

#[test]
fn a_start_and_clients_that_come_back_or_just_go_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let first = Raw::connect(server.address);
    let again = Raw::open(server.address).handshake(first.session, &first.password, 0);
    let before = mntr(server.address);
    assert_eq!((before("connection_revalidate_count"), before("connection_drop_count")), ("1".into(), "0".into()));
    assert_eq!((before("cnt_dbinittime"), before("cnt_startup_txns_loaded")), ("1".into(), "1".into()));
    drop(again);
    // The end of a connection is seen whenever its core looks.
    let dropped = (0..10_000).any(|_| mntr(server.address)("connection_drop_count") == "1");
    assert!(dropped);
    server.stop().unwrap();
}

/// Paths of znodes that are not there, of 900 KB each: the limit is reached soon, in words that a client has and an operator sees.
#[test]
fn a_client_watches_no_more_than_the_limit_and_one_that_comes_back_with_more_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    const THROTTLED_OP: i32 = -127;
    const NO_NODE: i32 = -101;
    let path = |number: i32| format!("/{}{number:09}", "x".repeat(900_000 - 9));
    let fits = (ostler::limits::CONNECTION_WATCH_BYTES / 900_100) as i32;
    let mut client = Raw::connect(server.address);
    for number in 0..fits {
        assert_eq!(client.call(&read(number, OpCode::Exists, &path(number), true)).err, NO_NODE, "{number}");
    }
    assert_eq!(client.call(&read(1, OpCode::Exists, &path(fits), true)).err, THROTTLED_OP);
    // Without a watch it is told, and what it watches already it may watch again.
    assert_eq!(client.call(&read(2, OpCode::Exists, &path(fits), false)).err, NO_NODE);
    assert_eq!(client.call(&read(3, OpCode::Exists, &path(0), true)).err, NO_NODE);
    assert_eq!(mntr(server.address)("throttled_ops"), "1");
    let set_watches = |number: i32| {
        request(-8, OpCode::SetWatches.to_wire(), |out| {
            out.put_long(0);
            out.put_int(0);
            out.put_int(1);
            out.put_text(&path(number));
            out.put_int(0);
        })
    };
    assert_eq!(client.call(&set_watches(0)).err, 0);
    client.send(&set_watches(fits));
    // Its reply may still come, but nothing else does.
    let rest = client.rest();
    assert!(rest.len() <= 20, "{} bytes", rest.len());
    // Another client, and the same one again, begin from nothing.
    let mut other = Raw::connect(server.address);
    assert_eq!(other.call(&read(1, OpCode::Exists, &path(fits), true)).err, NO_NODE);
    server.stop().unwrap();
}

/// The input of the connection is full while it waits, first for its write and then for its client to read; what was
/// left in the socket meanwhile has to be taken up in the end, although the socket says nothing more of it.
#[test]
fn a_connection_whose_input_was_full_while_it_waited_goes_on_to_the_last_byte() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut client = Raw::connect(server.address);
    assert_eq!(client.call(&create(1, "/big", &vec![7; 1_000_000], 0)).err, 0);
    // So that the write of the one waits in the log behind these.
    let mut load = Raw::connect(server.address);
    let load_bytes: Vec<u8> = (0..30).flat_map(|xid| set(xid, "/big", &vec![8; 1_000_000])).collect();
    const PACKETS: usize = 150_000;
    let mut bytes = set(2, "/big", &vec![9; 1_000_000]);
    for xid in 3..6 {
        bytes.extend(get(xid, "/big", false));
    }
    for _ in 0..PACKETS {
        bytes.extend(auth("ip", b""));
    }
    let mut writer = client.socket.try_clone().unwrap();
    load.send(&load_bytes);
    let sender = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    for _ in 0..30 {
        assert_eq!(load.reply().err, 0);
    }
    assert_eq!(client.reply().xid, 2);
    for xid in 3..6 {
        let reply = client.reply();
        assert_eq!((reply.xid, data(&reply).len()), (xid, 1_000_000));
    }
    for _ in 0..PACKETS {
        assert_eq!(client.reply().xid, AUTH);
    }
    sender.join().unwrap();
    assert_eq!(client.call(&ping()).xid, -2);
    server.stop().unwrap();
}

/// A multiRead of these paths in turn.
fn reads(paths: &[&str], count: usize) -> Vec<u8> {
    request(2, OpCode::MultiRead.to_wire(), |out| {
        for path in paths.iter().cycle().take(count) {
            out.put_int(OpCode::GetData.to_wire());
            out.put_bool(false);
            out.put_int(-1);
            out.put_text(path);
            out.put_bool(false);
        }
        out.put_int(-1);
        out.put_bool(true);
        out.put_int(-1);
    })
}

/// Nobody else is served while its access lists are gone through.
#[test]
fn a_multi_read_of_long_access_lists_is_refused_where_it_takes_too_long() {
    const ENTRIES: i32 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut client = Raw::connect(server.address);
    let paths: Vec<String> = (0..10).map(|n| format!("/{n}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    for path in &paths {
        let created = request(1, OpCode::Create.to_wire(), |out| {
            out.put_text(path);
            out.put_buffer(None);
            let entry =
                |n: i32| Acl { perms: n << 5 | Acl::READ, scheme: "ip".into(), id: format!("9.9.9.{}", &path[1..]) };
            Acl::write_list(&(0..ENTRIES).map(entry).collect::<Vec<_>>(), out);
            out.put_int(0);
        });
        assert_eq!(client.call(&created).err, 0);
    }
    // Some: each part is refused by itself.
    let reply = client.call(&reads(&paths, 20));
    assert!(reply.err == 0 && !reply.body.is_empty());
    // The same lists again cost nothing.
    assert_eq!(client.call(&reads(&paths[..5], 1_000)).err, 0);
    let reply = client.call(&reads(&paths, 1_000));
    assert_eq!((reply.err, reply.body.len()), (-5, 0));
    server.stop().unwrap();
}

#[test]
fn a_multi_read_of_more_than_any_client_takes_is_refused_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut client = Raw::connect(server.address);
    assert_eq!(client.call(&create(1, "/big", &vec![7; 1_000_000], 0)).err, 0);
    let reads = |count: usize| reads(&["/big"], count);
    let reply = client.call(&reads(3));
    assert!(reply.err == 0 && reply.body.len() > 3_000_000, "{}", reply.err);
    // Without a bound this would be 40 GB.
    let reply = client.call(&reads(40_000));
    assert_eq!((reply.err, reply.body.len()), (-5, 0));
    assert_eq!(client.call(&ping()).xid, -2);
    server.stop().unwrap();
}

/// Also where an answer costs nothing and nothing else holds it back.
#[test]
fn a_client_that_does_not_read_is_not_read_from_whatever_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let sasl = request(7, OpCode::Sasl.to_wire(), |out| out.put_buffer(Some(b"")));
    for (what, frame) in [("auth", auth("ip", b"")), ("sasl", sasl)] {
        let mut stream = Raw::connect(server.address).socket;
        let frames = frame.repeat(4096);
        stream.set_nonblocking(true).unwrap();
        let mut written: usize = 0;
        let mut stuck = clock::now();
        // Until nothing goes out for a second: then its requests stand in the kernel's buffers.
        while clock::now().since(stuck).as_millis() < 1_000 {
            match stream.write(&frames[written % frames.len()..]) {
                // It is a test of where it ends: without an end it would go on for ever.
                Ok(count) => (written, stuck) = (written + count, clock::now()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{what}: {error}"),
            }
            assert!(written < 64 << 20, "{what}: a client that does not read is answered without end");
        }
    }
    server.stop().unwrap();
}

#[test]
fn an_answer_to_an_operator_is_one_packet_and_no_response() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 2)).unwrap();
    let mut client = Raw::connect(server.address);
    assert_eq!(client.call(&create(1, "/a", b"", 0)).err, 0);
    let (before, after) = (mntr(server.address), mntr(server.address));
    let sent = |mntr: &dyn Fn(&str) -> String| mntr("packets_sent").parse::<u64>().unwrap();
    assert_eq!(sent(&after), sent(&before) + 1);
    for name in ["response_bytes", "last_client_response_size", "max_client_response_size"] {
        assert_eq!(after(name), before(name), "{name}");
    }
    server.stop().unwrap();
}

#[test]
fn mntr_shows_limits_and_usage_added_up_by_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut client = Raw::connect(server.address);
    let quota = "/zookeeper/quota";
    let znodes = [
        ("/a".to_string(), "12345"),
        ("/a/b".into(), "123"),
        (format!("{quota}/a"), ""),
        (format!("{quota}/a/zookeeper_limits"), "count=5,bytes=100=;byteHardLimit=50"),
        (format!("{quota}/a/zookeeper_stats"), ""),
        (format!("{quota}/a/b"), ""),
        (format!("{quota}/a/b/zookeeper_limits"), "count=7,bytes=-1"),
        (format!("{quota}/a/b/zookeeper_stats"), ""),
    ];
    for (path, data) in znodes {
        assert_eq!(client.call(&create(1, &path, data.as_bytes(), 0)).err, 0, "{path}");
    }
    let mntr = mntr(server.address);
    let shown = ["count_limit", "bytes_limit", "count_usage", "bytes_usage"]
        .map(|what| mntr(&format!("a_quota_{what}_per_namespace")).parse::<i64>().unwrap());
    assert_eq!(shown, [12, 49, 3, 11]);
    server.stop().unwrap();
}

#[test]
fn a_change_is_counted_once_with_all_of_its_watchers_whichever_core_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 2)).unwrap();
    let mut watchers: Vec<Raw> = (0..5).map(|_| Raw::connect(server.address)).collect();
    assert_eq!(watchers[0].call(&create(1, "/w", b"", 0)).err, 0);
    for watcher in &mut watchers {
        assert_eq!(watcher.call(&get(2, "/w", true)).err, 0);
    }
    watchers[0].send(&set(3, "/w", b"x"));
    for watcher in &mut watchers {
        assert_eq!(watcher.reply().xid, -1);
    }
    let mntr = mntr(server.address);
    assert_eq!((mntr("cnt_node_changed_watch_count"), mntr("sum_node_changed_watch_count")), ("1".into(), "5".into()));
    server.stop().unwrap();
}

/// On two processors and more the sends of such a turn are shared by two threads.
#[test]
fn a_change_that_hundreds_watch_reaches_each_of_them_once_whoever_has_gone_or_does_not_read() {
    const WATCHERS: usize = 700;
    const REPLIES: i32 = 60;
    if !files::allows(4 * WATCHERS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut writer = Raw::connect(server.address);
    assert_eq!(writer.call(&create(1, "/w", b"0", 0)).err, 0);
    assert_eq!(writer.call(&create(2, "/big", &vec![7; 900_000], 0)).err, 0);
    let mut watchers: Vec<Raw> = (0..WATCHERS).map(|_| Raw::connect(server.address)).collect();
    for round in 1..4 {
        for watcher in &mut watchers {
            watcher.send(&get(round, "/w", true));
        }
        for watcher in &mut watchers {
            assert_eq!(watcher.reply().xid, round);
        }
        // One that has far more to read than its socket takes, and one that has gone without a word.
        let (silent, gone) = (round as usize, watchers.len() / 2);
        for xid in 0..REPLIES {
            watchers[silent].send(&get(100 + xid, "/big", false));
        }
        let gone = watchers.remove(gone);
        socket2::SockRef::from(&gone.socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(gone);
        assert_eq!(writer.call(&set(10 + round, "/w", &[round as u8])).err, 0);
        for (at, watcher) in watchers.iter_mut().enumerate().filter(|(at, _)| *at != silent) {
            assert_eq!(watcher.reply().xid, -1, "watcher {at} in round {round}");
            let reply = watcher.call(&get(50, "/w", false));
            assert_eq!((reply.xid, data(&reply)), (50, vec![round as u8]), "watcher {at} in round {round}");
        }
        let mut xids: Vec<i32> = (0..=REPLIES).map(|_| watchers[silent].reply().xid).collect();
        let event = xids.iter().position(|&xid| xid == -1).expect("the event is among them");
        xids.remove(event);
        assert!(xids.iter().copied().eq(100..100 + REPLIES), "{xids:?}");
    }
    server.stop().unwrap();
}

#[test]
fn sessions_of_a_standalone_server_begin_with_1_whatever_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut numbered = config(dir.path(), 1);
    numbered.server_id = 7;
    let server = boot::start(numbered).unwrap();
    let client = Raw::connect(server.address);
    assert_eq!(client.session.0 >> 56, 1);
    server.stop().unwrap();
}

#[test]
fn who_has_no_identity_of_a_required_scheme_is_answered_once_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut strict = config(dir.path(), 1);
    strict.required_auth_schemes = vec!["digest".into()];
    strict.digest_alg = "SHA-256".into();
    let server = boot::start(strict).unwrap();
    let mut stranger = Raw::connect(server.address);
    let reply = stranger.call(&get(1, "/", false));
    assert_eq!((reply.xid, reply.zxid, reply.err), (1, 0, -124));
    assert_eq!(stranger.frame(), None);
    let mut friend = Raw::connect(server.address);
    assert_eq!(friend.call(&auth("digest", b"me:secret")).err, 0);
    let mine = request(1, OpCode::Create.to_wire(), |out| {
        out.put_text("/mine");
        out.put_buffer(Some(b"x"));
        let id = derive("me:secret", DigestAlgorithm::Sha256);
        Acl::write_list(&[Acl { perms: Acl::ALL, scheme: "digest".into(), id }], out);
        out.put_int(0);
    });
    assert_eq!(friend.call(&mine).err, 0);
    assert_eq!(data(&friend.call(&get(2, "/mine", false))), b"x", "the algorithm is the configured one");
    server.stop().unwrap();
}

/// Of the znode's list, and of its parent's where that changes: for each by its own identities, whoever was asked before it.
#[test]
fn each_watcher_hears_by_its_own_identities() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mine = |path: &str| {
        request(1, OpCode::Create.to_wire(), |out| {
            out.put_text(path);
            out.put_buffer(Some(b"x"));
            let id = derive("me:secret", DigestAlgorithm::Sha1);
            Acl::write_list(&[Acl { perms: Acl::ALL, scheme: "digest".into(), id }], out);
            out.put_int(0);
        })
    };
    let mut owner = Raw::connect(server.address);
    assert_eq!(owner.call(&auth("digest", b"me:secret")).err, 0);
    assert_eq!(owner.call(&mine("/mine")).err, 0);
    let identities: [&[&[u8]]; 6] =
        [&[b"me:secret"], &[], &[b"other:x", b"me:secret"], &[b"other:x"], &[], &[b"me:secret"]];
    let mut watchers: Vec<(Raw, bool)> = Vec::new();
    for ids in identities {
        let mut watcher = Raw::connect(server.address);
        for id in ids {
            assert_eq!(watcher.call(&auth("digest", id)).err, 0);
        }
        // Persistent: nobody asks for permission.
        let add = request(2, OpCode::AddWatch.to_wire(), |out| {
            out.put_text("/mine");
            out.put_int(0);
        });
        assert_eq!(watcher.call(&add).err, 0);
        watchers.push((watcher, ids.contains(&&b"me:secret"[..])));
    }
    // Data of the znode, then its children: the second is told by the parent's list.
    assert_eq!(owner.call(&set(2, "/mine", b"y")).err, 0);
    assert_eq!(owner.call(&create(3, "/mine/child", b"", 0)).err, 0);
    for (at, (watcher, hears)) in watchers.iter_mut().enumerate() {
        watcher.send(&ping());
        for kind in [3, 4].into_iter().filter(|_| *hears) {
            let event = watcher.reply();
            assert_eq!((event.xid, event.body[..4].to_vec()), (-1, vec![0, 0, 0, kind]), "watcher {at}");
        }
        assert_eq!(watcher.reply().xid, -2, "watcher {at}");
    }
    server.stop().unwrap();
}

/// A list that lets everybody read, and takes long to find that out.
fn long_list(entries: usize, out: &mut Vec<u8>) {
    let mut list: Vec<Acl> =
        (0..entries).map(|at| Acl { perms: Acl::READ, scheme: "digest".into(), id: format!("a:{at:06}") }).collect();
    list.push(Acl { perms: Acl::ALL, scheme: "world".into(), id: "anyone".into() });
    Acl::write_list(&list, out);
}

fn create_with_long_list(path: &str, entries: usize) -> Vec<u8> {
    request(1, OpCode::Create.to_wire(), |out| {
        out.put_text(path);
        out.put_buffer(None);
        long_list(entries, out);
        out.put_int(0);
    })
}

/// What has much to do for one client is done in pieces: another one's request is answered before the first has all its replies.
#[test]
fn reads_that_take_long_leave_room_for_others_between_them() {
    const READS: i32 = 500;
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut greedy = Raw::connect(server.address);
    let mut modest = Raw::connect(server.address);
    assert_eq!(greedy.call(&create_with_long_list("/long", 5_000)).err, 0);
    let of_one = greedy.call(&get(2, "/long", false)).body.len() + 20;
    greedy.send(&(0..READS).flat_map(|xid| get(xid, "/long", false)).collect::<Vec<u8>>());
    modest.send(&ping());
    assert_eq!(modest.reply().xid, -2);
    greedy.socket.set_nonblocking(true).unwrap();
    let mut there = vec![0; of_one * READS as usize];
    let there = greedy.socket.peek(&mut there).unwrap_or(0);
    assert!(there < of_one * READS as usize, "the other was answered when all was done");
    greedy.socket.set_nonblocking(false).unwrap();
    for xid in 0..READS {
        assert_eq!(greedy.reply().xid, xid);
    }
    server.stop().unwrap();
}

/// What a client has sent before it went is done, also where its turn came later.
#[test]
fn who_sends_and_goes_while_others_have_much_to_do_is_not_forgotten() {
    // Each read is more than half of what a turn does.
    const GREEDY: usize = 8;
    const READS: i32 = 20;
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut greedy: Vec<Raw> = (0..GREEDY).map(|_| Raw::connect(server.address)).collect();
    let mut leaves = Raw::connect(server.address);
    assert_eq!(greedy[0].call(&create_with_long_list("/long", 35_000)).err, 0);
    for one in &mut greedy {
        one.send(&(0..READS).flat_map(|xid| get(xid, "/long", false)).collect::<Vec<u8>>());
    }
    leaves.send(&create(1, "/left", b"", 0));
    leaves.socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut word = Raw::open(server.address);
    word.send(b"srvr");
    word.socket.shutdown(std::net::Shutdown::Write).unwrap();
    for one in &mut greedy {
        for xid in 0..READS {
            assert_eq!(one.reply().xid, xid);
        }
    }
    assert!(!word.rest().is_empty());
    leaves.rest();
    assert_eq!(greedy[0].call(&read(1, OpCode::Exists, "/left", false)).err, 0);
    server.stop().unwrap();
}

/// Each list is gone through once; a multi that asks too many of them is refused.
#[test]
fn a_multi_that_would_go_through_long_access_lists_without_end_is_refused() {
    const LISTS: usize = 9;
    const BAD_ARGUMENTS: i32 = -8;
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let mut client = Raw::connect(server.address);
    for at in 0..LISTS {
        assert_eq!(client.call(&create_with_long_list(&format!("/n{at}"), 30_000 + at)).err, 0);
    }
    let checks = |lists: usize, count: usize| {
        request(2, OpCode::Multi.to_wire(), |out| {
            for at in 0..count {
                out.put_int(OpCode::Check.to_wire());
                out.put_bool(false);
                out.put_int(-1);
                out.put_text(&format!("/n{}", at % lists));
                out.put_int(-1);
            }
            out.put_int(-1);
            out.put_bool(true);
            out.put_int(-1);
        })
    };
    assert_eq!(client.call(&checks(1, 10_000)).err, 0, "one list");
    assert_eq!(client.call(&checks(LISTS, 5 * LISTS)).err, 0, "several");
    assert_eq!(client.call(&checks(LISTS, 10 * LISTS)).err, BAD_ARGUMENTS, "all over again");
    assert_eq!(client.call(&set(3, "/n0", b"x")).err, 0);
    server.stop().unwrap();
}

/// Connections whose sockets are never empty take turns with the others, also where a core's turn has room for exactly so many.
#[test]
fn those_who_always_have_more_to_ask_leave_room_for_others() {
    const FLOODERS: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let over = AtomicBool::new(false);
    // 64 bytes, so that what a core receives at once ends with a frame, and nothing of it is kept for later.
    let ask = read(1, OpCode::Exists, &format!("/{}", "x".repeat(46)), false);
    assert_eq!(ask.len(), 64);
    let asks = ask.repeat(4096);
    let (over, asks) = (&over, &asks);
    std::thread::scope(|scope| {
        let mut patient = Raw::connect(server.address);
        for _ in 0..FLOODERS {
            let mut flooder = Raw::connect(server.address);
            let mut replies = flooder.socket.try_clone().unwrap();
            scope.spawn(move || {
                let mut scratch = vec![0; 1 << 18];
                while matches!(replies.read(&mut scratch), Ok(count) if count > 0) {}
            });
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    flooder.send(asks);
                }
                let _ = flooder.socket.shutdown(std::net::Shutdown::Both);
            });
        }
        for xid in 1..=30 {
            patient.send(&get(xid, "/", false));
            let answered = patient.reply_or_end().map(|reply| reply.xid);
            over.fetch_or(xid == 30 || answered != Some(xid), Ordering::Relaxed);
            assert_eq!(answered, Some(xid));
        }
    });
    server.stop().unwrap();
}

fn zxids_of_good(answers: Vec<(i32, i64)>) -> Vec<i64> {
    answers.into_iter().map(|(err, zxid)| if err == 0 { zxid } else { panic!("refused with {err}") }).collect()
}

/// More writes than there is room for, on every connection: those that have waited longest come first.
#[test]
fn writes_that_wait_for_room_are_taken_in_turn() {
    const WRITERS: usize = 30;
    const WRITES: usize = 80;
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 1)).unwrap();
    let all = Arc::new(Barrier::new(WRITERS));
    let mut clients: Vec<Raw> = (0..WRITERS).map(|_| Raw::connect(server.address)).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.call(&create(0, &format!("/{at}"), b"", 0)).err, 0);
    }
    // In which order they were taken is in the zxids, whoever got to read its answers first.
    let taken: Vec<Vec<i64>> = std::thread::scope(|scope| {
        let answers = clients.into_iter().enumerate().map(|(at, mut client)| {
            let path = format!("/{at}");
            let mut writer = client.socket.try_clone().unwrap();
            let all = all.clone();
            scope.spawn(move || {
                // Made before, so that nobody is late who has to write only.
                let mut frame = set(0, &path, &vec![b'x'; 100_000]);
                all.wait();
                for xid in 1..=WRITES as i32 {
                    frame[4..8].copy_from_slice(&xid.to_be_bytes());
                    writer.write_all(&frame).unwrap();
                }
            });
            let answers = move || (0..WRITES).map(|_| client.reply()).map(|reply| (reply.err, reply.zxid)).collect();
            scope.spawn(answers)
        });
        let answers: Vec<_> = answers.collect();
        answers.into_iter().map(|thread| thread.join().unwrap()).map(zxids_of_good).collect()
    });
    // What the others had when the first had everything.
    let first = taken.iter().map(|zxids| zxids[WRITES - 1]).min().unwrap();
    let least = taken.iter().map(|zxids| zxids.iter().filter(|zxid| **zxid <= first).count()).min().unwrap();
    assert!(least >= WRITES / 4, "of one {WRITES} writes were taken when of another {least} were");
    server.stop().unwrap();
}
