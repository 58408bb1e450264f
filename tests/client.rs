//! The client library against a server in a process of its own: what the unit tests' played server can't show.
//!
//! Runs on: the test's thread; servers are child processes, killed by id.

mod support;

use ostler::client::{AddWatchMode, Client, CreateMode, EventType, Op, OpResult, Options, State, Watch, open_acl};
use ostler::wire::ErrorCode;
use std::sync::mpsc::channel;
use std::time::Duration;
use support::servers::{Kind, Options as ServerOptions, Server};

/// Longer than any answer takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

fn server() -> Server {
    Server::start(Kind::Ostler, &ServerOptions::usual())
}

fn client(server: &Server, chroot: &str) -> Client {
    Client::open(Options::new(&format!("{}{chroot}", server.address())), |_| ()).expect("a sound connect string")
}

#[test]
fn a_thousand_requests_in_flight_are_answered_in_order() {
    let server = server();
    let client = client(&server, "");
    client.create("/n", Some(b""), &open_acl(), CreateMode::PERSISTENT).wait().unwrap();
    let writes: Vec<_> = (0..1000).map(|n| client.set_data("/n", Some(n.to_string().as_bytes()), -1)).collect();
    let read = client.get_data("/n", Watch::No);
    for (version, write) in writes.into_iter().enumerate() {
        assert_eq!(write.wait().unwrap().version, version as i32 + 1);
    }
    assert_eq!(read.wait().unwrap().0.as_deref(), Some(&b"999"[..]));
}

#[test]
fn a_multi_happens_as_a_whole_or_not_at_all() {
    let server = server();
    let client = client(&server, "");
    let create = |path: &str, mode| Op::Create { path: path.into(), data: None, acl: open_acl(), mode };
    let results = client
        .multi(&[
            create("/m", CreateMode::PERSISTENT),
            create("/m/s-", CreateMode::PERSISTENT_SEQUENTIAL),
            create("/m/c", CreateMode::CONTAINER),
            Op::SetData { path: "/m".into(), data: Some(b"x".to_vec()), version: 0 },
            Op::Check { path: "/m".into(), version: 1 },
            Op::Delete { path: "/m/c".into(), version: -1 },
        ])
        .wait()
        .unwrap();
    assert!(matches!(&results[1], OpResult::Created(path, _) if path == "/m/s-0000000000"), "{results:?}");
    assert!(matches!(&results[2], OpResult::Created(path, Some(_)) if path == "/m/c"), "{results:?}");
    assert!(matches!(results[3], OpResult::Set(stat) if stat.version == 1), "{results:?}");
    assert_eq!(results[4..], [OpResult::Checked, OpResult::Deleted]);

    let failing = [
        create("/other", CreateMode::PERSISTENT),
        Op::Check { path: "/nope".into(), version: -1 },
        Op::Delete { path: "/m".into(), version: -1 },
    ];
    let codes = [ErrorCode::OK, ErrorCode::NO_NODE, ErrorCode::RUNTIME_INCONSISTENCY].map(OpResult::Failed);
    assert_eq!(client.multi(&failing).wait().unwrap(), codes);
    assert!(client.exists("/other", Watch::No).wait().unwrap_err().is(ErrorCode::NO_NODE));
}

#[test]
fn a_session_its_ephemerals_and_its_watches_outlive_the_server_s_process() {
    let mut server = server();
    let (sender, states) = channel();
    let client = Client::open(Options::new(&server.address()), move |event| {
        let _ = sender.send(event.state);
    })
    .unwrap();
    client.create("/e", Some(b"1"), &open_acl(), CreateMode::EPHEMERAL).wait().unwrap();
    let (one_shot, fired) = channel();
    client.get_data("/e", Watch::To(one_shot)).wait().unwrap();
    let (recursive, below) = channel();
    client.add_watch("/", AddWatchMode::PersistentRecursive, Watch::To(recursive)).wait().unwrap();
    let session = client.session_id();

    server.kill();
    server.restart();
    let next = || states.recv_timeout(PATIENCE).unwrap();
    assert_eq!([next(), next(), next()], [State::SyncConnected, State::Disconnected, State::SyncConnected]);
    assert_eq!(client.session_id(), session);
    client.set_data("/e", Some(b"2"), 0).wait().unwrap();
    let event = fired.recv_timeout(PATIENCE).unwrap();
    assert_eq!((event.kind, event.path.as_deref()), (EventType::NodeDataChanged, Some("/e")));
    assert_eq!(below.recv_timeout(PATIENCE).unwrap().kind, EventType::NodeDataChanged);
    client.close();

    let other = Client::open(Options::new(&server.address()), |_| ()).unwrap();
    assert!(other.exists("/e", Watch::No).wait().unwrap_err().is(ErrorCode::NO_NODE), "closed with its session");
}

#[test]
fn events_and_names_are_seen_from_the_chroot() {
    let server = server();
    let outside = client(&server, "");
    outside.create("/app", None, &open_acl(), CreateMode::PERSISTENT).wait().unwrap();
    let inside = client(&server, "/app");
    let (sender, events) = channel();
    inside.get_children("/", Watch::To(sender)).wait().unwrap();
    let (name, _) = inside.create("/x-", None, &open_acl(), CreateMode::PERSISTENT_SEQUENTIAL).wait().unwrap();
    assert_eq!(name, "/x-0000000000");
    assert_eq!(events.recv_timeout(PATIENCE).unwrap().path.as_deref(), Some("/"));
    assert!(outside.exists("/app/x-0000000000", Watch::No).wait().is_ok());
}
