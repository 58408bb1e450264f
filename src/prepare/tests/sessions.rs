//! What the server does by itself: sessions end, containers are reaped; and what is too large is not made.

use super::*;
use crate::limits;
use crate::wire::txn::NodeKind;

#[test]
fn a_session_takes_its_ephemerals_along_pending_ones_too() {
    let mut server = Server::new(extended());
    for path in ["/a", "/b", "/d"] {
        server.set_up(OpCode::Create, &create(path, flags::EPHEMERAL));
    }
    server.session = SessionId(77);
    server.set_up(OpCode::Create, &create("/other", flags::EPHEMERAL));
    server.session = SESSION;
    let mut flights: Vec<_> = [
        (OpCode::Delete, path_version("/a", -1)),
        (OpCode::Create, create("/c", flags::EPHEMERAL)),
        (OpCode::SetData, set_data("/d", b"new", -1)),
        (OpCode::Create, create("/e", flags::EPHEMERAL)),
        (OpCode::Delete, path_version("/e", -1)),
    ]
    .into_iter()
    .map(|(op, body)| server.prepare(op, 1, &body).unwrap())
    .collect();
    let failing = multi(&[(OpCode::Create, create("/f", 1)), (OpCode::Delete, path_version("/no", -1))]);
    flights.push(server.prepare(OpCode::Multi, 1, &failing).unwrap());
    let next = server.zxid.next().unwrap();
    let closed = server.prepare.close_session(&server.tree, SESSION, 9, next, server.time);
    let (Prepared::Txn { header, txn, digest }, Closing::Done) = closed else { panic!() };
    assert_eq!((header.session, header.cxid), (SESSION, 9));
    assert_eq!(txn, Txn::CloseSession { paths: Some(["/b", "/c", "/d"].map(String::from).into()) });
    server.zxid = next;
    // Behind the close, the paths are free.
    server.session = SessionId(77);
    let again = server.prepare(OpCode::Create, 1, &create("/c", flags::EPHEMERAL)).unwrap();
    for flight in flights {
        server.apply(flight);
    }
    let shape = Shape::of(OpCode::CloseSession, &txn);
    server.apply(InFlight { header, txn, digest, shape, xid: 9 });
    server.apply(again);
    let mut left: Vec<_> = server.tree.lookup("/").unwrap().children().collect();
    left.sort_unstable();
    assert_eq!(left, ["c", "other", "zookeeper"]);
}

#[test]
fn a_close_too_large_for_one_record_is_preceded_by_deletes() {
    let mut server = Server::new(PrepareRules { record_bytes_max: 2_000, ..extended() });
    for n in 0..100 {
        server.set_up(OpCode::Create, &create(&format!("/{}-{n}", "x".repeat(50)), flags::EPHEMERAL));
    }
    let mut steps = 0;
    loop {
        let next = server.zxid.next().unwrap();
        let (prepared, closing) = server.prepare.close_session(&server.tree, SESSION, 0, next, server.time);
        let Prepared::Txn { header, txn, digest } = &prepared else { panic!() };
        let mut bytes = Vec::new();
        crate::wire::txn::write_txn(header, txn, *digest, &mut bytes);
        assert!(bytes.len() <= 2_000, "{}", bytes.len());
        let is_close = matches!(txn, Txn::CloseSession { .. });
        assert_eq!(header.session, if is_close { SESSION } else { SessionId::NONE });
        assert_eq!(is_close, closing == Closing::Done);
        server.take(prepared);
        steps += 1;
        if is_close {
            break;
        }
    }
    assert_eq!(steps, 4, "100 paths of 54 bytes or so, 1,920 bytes a transaction");
    assert_eq!(server.tree.lookup("/").unwrap().num_children(), 1);
}

#[test]
fn nothing_is_made_that_is_too_large_to_be_read_back() {
    let mut server = Server::new(extended());
    for n in 0..limits::CONNECTION_AUTH_IDS - 1 {
        assert!(server.auth.add("digest", &format!("user{n}:x")));
    }
    let auth: Vec<_> = (0..200).map(|n| Acl { perms: 31, scheme: "auth".into(), id: n.to_string() }).collect();
    let body = create_with("/a", None, &auth, 0, None);
    assert_eq!(server.code(OpCode::Create, &body), ErrorCode::BAD_ARGUMENTS);
    let one = create_with("/a", None, &auth[..1], 0, None);
    assert_eq!(server.code(OpCode::Create, &one), ErrorCode::OK);
    let ops: Vec<_> =
        (0..200).map(|n| (OpCode::Create, create_with(&format!("/{n}"), None, &auth[..1], 0, None))).collect();
    let before = server.dump();
    assert_eq!(server.code(OpCode::Multi, &multi(&ops)), ErrorCode::BAD_ARGUMENTS);
    assert_eq!(server.dump(), before);
    assert_eq!(server.prepare.pending_paths(), 0);
}

/// Of every kind, alone and in a multi, up to the first that is refused.
#[test]
fn what_is_made_is_no_larger_than_a_record_may_be() {
    const MAX: usize = 2_000;
    let short = [Acl { perms: 1, scheme: "ip".into(), id: "::".into() }];
    let make = |op: OpCode, path: &str, data: &[u8]| match op {
        OpCode::CreateTtl => create_with(path, Some(data), &short, 5, Some(1)),
        OpCode::CreateContainer => create_with(path, Some(data), &short, 4, None),
        OpCode::Create | OpCode::Create2 => create_with(path, Some(data), &short, 2, None),
        OpCode::SetData => set_data("/there", data, -1),
        OpCode::Check => path_version("/there", -1),
        _ => unreachable!(),
    };
    let fits = |server: &mut Server, op: OpCode, body: &[u8]| match server.prepare(op, 1, body) {
        Err(code) => panic!("{op:?}: {code:?}"),
        Ok(made) if matches!(made.txn, Txn::Error { .. }) => {
            assert_eq!(made.txn, Txn::Error { code: ErrorCode::BAD_ARGUMENTS.0 }, "{op:?}");
            false
        }
        Ok(made) => {
            let mut bytes = Vec::new();
            crate::wire::txn::write_txn(&made.header, &made.txn, made.digest, &mut bytes);
            assert!(bytes.len() <= MAX, "{op:?}: {}", bytes.len());
            true
        }
    };
    let server = || {
        let mut server = Server::new(PrepareRules { record_bytes_max: MAX, ..extended() });
        server.set_up(OpCode::Create, &create("/there", 0));
        server
    };
    use OpCode::*;
    for op in [Create, Create2, CreateTtl, CreateContainer, SetData, Check] {
        for data in [&b""[..], b"0123456789", &[b'x'; 300]] {
            let ops = |count: usize| (0..count).map(|n| (op, make(op, &format!("/{n}"), data))).collect::<Vec<_>>();
            let most = (1..200).take_while(|&count| fits(&mut server(), Multi, &multi(&ops(count)))).count();
            assert!(most > 2, "{op:?}: {most}");
            // One in the middle fails, and so do all behind it.
            let failing = |count: usize| {
                let mut all = ops(most - 1);
                all.extend((0..count).map(|_| (Delete, path_version("/missing", -1))));
                all
            };
            let failed = (1..500).take_while(|&count| fits(&mut server(), Multi, &multi(&failing(count)))).count();
            assert!(failed < 499, "{op:?}: {failed}");
        }
        if op != Check {
            let most = (0..3 * MAX).take_while(|&len| fits(&mut server(), op, &make(op, "/n", &vec![b'x'; len])));
            assert!(most.count() > MAX - 200);
        }
    }
}

#[test]
fn what_is_to_be_reaped_is_looked_at_again() {
    let mut server = Server::new(extended());
    server.set_up(OpCode::CreateContainer, &create("/c", 0));
    server.set_up(OpCode::CreateTtl, &create_with("/t", None, &open(), 5, Some(100)));
    server.set_up(OpCode::Create, &create("/p", 0));
    let reap = |server: &mut Server, path: &str| {
        let next = server.zxid.next().unwrap();
        let time = server.time;
        server.prepare.reap(&server.tree, path, |mtime| time - mtime, next, time)
    };
    assert!(reap(&mut server, "/p").is_none());
    assert!(reap(&mut server, "/no").is_none());
    server.time += 100;
    assert!(reap(&mut server, "/t").is_none(), "not over yet");
    server.time += 1;
    let child = server.prepare(OpCode::Create, 1, &create("/c/child", 0)).unwrap();
    assert!(reap(&mut server, "/c").is_none(), "a child is on the way");
    server.apply(child);
    server.set_up(OpCode::Delete, &path_version("/c/child", -1));
    let written = server.prepare(OpCode::SetData, 1, &set_data("/t", b"", -1)).unwrap();
    assert!(reap(&mut server, "/t").is_none(), "it was written to");
    server.apply(written);
    server.time += 101;
    for path in ["/t", "/c"] {
        let prepared = reap(&mut server, path).unwrap();
        let Prepared::Txn { header, txn, .. } = &prepared else { panic!() };
        assert_eq!((header.session, header.cxid), (SessionId::NONE, 0));
        assert_eq!(*txn, Txn::Delete { op: OpCode::DeleteContainer, path: path.into() });
        server.take(prepared);
        assert!(server.tree.lookup(path).is_none());
    }
}

#[test]
fn a_session_that_has_moved_is_not_answered() {
    let mut server = Server::new(extended());
    server.check = SessionCheck::Moved;
    for (op, body) in [(OpCode::Create, create("/a", 0)), (OpCode::Multi, multi(&[(OpCode::Create, create("/a", 0))]))]
    {
        let InFlight { header, txn, shape, xid, .. } = server.prepare(op, 1, &body).unwrap();
        let mut applied = Applied::default();
        server.tree.apply(&header, txn, &mut applied);
        let mut out = Vec::new();
        assert_eq!(write_reply(&mut out, &shape, xid, &header, &applied), Reply::None);
        assert!(out.is_empty());
    }
}

#[test]
fn after_clear_the_tree_alone_counts() {
    let mut server = Server::new(extended());
    server.prepare(OpCode::Create, 1, &create("/a", 0)).unwrap();
    server.prepare.clear();
    server.zxid = Zxid::ZERO;
    assert_eq!(server.code(OpCode::Create, &create("/a", 0)), ErrorCode::OK);
}

#[test]
fn with_nothing_in_flight_the_digest_goes_on_from_the_trees() {
    let mut server = Server::new(extended());
    server.set_up(OpCode::Create, &create("/a", 0));
    // Another tree, as after a snapshot from elsewhere; `apply` compares its digest with what was foretold.
    server.tree = Server::new(extended()).tree;
    server.set_up(OpCode::Create, &create("/b", 0));
}

/// Such a znode comes from the disk only, in the form of 3.5.3; no client can ask for one.
#[test]
fn a_time_to_live_of_0_is_never_over() {
    let rules = extended();
    let owner = OwnerRules { emulate_353_ttl: true, ..rules.owner };
    let mut server = Server::new(PrepareRules { owner, ..rules });
    for (path, ttl, ends) in [("/short", 1, true), ("/forever", 0, false)] {
        let zxid = server.zxid.next().unwrap();
        let header = TxnHeader { session: SESSION, cxid: 0, zxid, time: server.time };
        let (op, acl, kind) = (OpCode::CreateTtl, Acl::open().clone(), NodeKind::Ttl(ttl));
        let txn = Txn::Create { op, path: path.into(), data: None, acl, kind, parent_cversion: -1 };
        server.tree.apply(&header, txn, &mut Applied::default());
        server.zxid = zxid;
        let later = server.time + 1_000_000;
        let age = |mtime| later - mtime;
        let reaped = server.prepare.reap(&server.tree, path, age, zxid.next().unwrap(), later);
        assert_eq!(reaped.is_some(), ends, "{path}");
        server.prepare.clear();
    }
}
