//! The first check that fails is the answer: requests that fail two at once (client-protocol 2.4).

use super::*;
use crate::wire::ErrorCode as E;

/// `/open` with a child; `/closed`, where strangers may do nothing, with a child; `/eph`; `/full`, whose quota is used up,
/// with a child and the ephemeral `/full/eph`.
fn server(rules: PrepareRules) -> Server {
    let mut server = Server::new(PrepareRules { enforce_quota: true, ..rules });
    let nobody = [Acl::world(0)];
    for path in ["/open", "/open/child", "/closed", "/closed/child", "/full", "/full/child"] {
        server.set_up(OpCode::Create, &create(path, 0));
    }
    server.set_up(OpCode::Create, &create("/eph", flags::EPHEMERAL));
    server.set_up(OpCode::Create, &create("/full/eph", flags::EPHEMERAL));
    server.set_up(OpCode::SetAcl, &set_acl("/closed", &nobody, -1));
    server.set_up(OpCode::SetAcl, &set_acl("/closed/child", &nobody, -1));
    server.set_up(OpCode::Create, &create("/zookeeper/quota/full", 0));
    let limits = b"count=-1,bytes=-1=;byteHardLimit=3;countHardLimit=3";
    let limits = create_with("/zookeeper/quota/full/zookeeper_limits", Some(limits), &open(), 0, None);
    server.set_up(OpCode::Create, &limits);
    server.set_up(OpCode::Create, &create("/zookeeper/quota/full/zookeeper_stats", 0));
    server
}

struct Case {
    what: &'static str,
    check: SessionCheck,
    op: OpCode,
    body: Vec<u8>,
    code: ErrorCode,
}

fn case(what: &'static str, check: SessionCheck, op: OpCode, body: Vec<u8>, code: ErrorCode) -> Case {
    Case { what, check, op, body, code }
}

fn judge(server: &mut Server, cases: Vec<Case>) {
    for Case { what, check, op, body, code } in cases {
        let before = server.dump();
        server.check = check;
        assert_eq!(server.code(op, &body), code, "{what}, alone");
        let in_multi = !matches!(op, OpCode::SetAcl | OpCode::Reconfig);
        if in_multi && !what.contains("alone") {
            let reply = server.run(OpCode::Multi, 1, &multi(&[(op, body)])).unwrap();
            assert_eq!(multi_codes(&reply, 1), [code.0], "{what}, in a multi");
        }
        assert_eq!(server.dump(), before, "{what}: nothing has changed");
        assert_eq!(server.prepare.pending_paths(), 0);
    }
}

use SessionCheck::{Closing, Live, Unknown};

#[test]
fn of_create() {
    let create_acl = |path: &str, acl: &[Acl], flags| create_with(path, None, acl, flags, None);
    let plain = PrepareRules::default();
    judge(
        &mut server(plain),
        vec![
            case("flags before session, alone", Closing, OpCode::Create, create("/x", 7), E::BAD_ARGUMENTS),
            case("negative flags, alone", Live, OpCode::Create, create("/x", -1), E::BAD_ARGUMENTS),
            case("no TTLs before their range, alone", Live, OpCode::Create, create("/x", 5), E::UNIMPLEMENTED),
            case("no TTLs before session, alone", Closing, OpCode::Create, create("/x", 6), E::UNIMPLEMENTED),
            case(
                "no TTLs before session",
                Closing,
                OpCode::CreateTtl,
                create_with("/x", None, &open(), 5, Some(-1)),
                E::UNIMPLEMENTED,
            ),
        ],
    );
    let ttl = |flags, ttl| create_with("/x", None, &open(), flags, Some(ttl));
    judge(
        &mut server(extended()),
        vec![
            case("a TTL that an op can't give, alone", Closing, OpCode::Create2, create("/x", 5), E::BAD_ARGUMENTS),
            case("TTL before session", Closing, OpCode::CreateTtl, ttl(5, 0), E::BAD_ARGUMENTS),
            case("TTL too long", Live, OpCode::CreateTtl, ttl(5, 1 << 40), E::BAD_ARGUMENTS),
            case("TTL negative", Live, OpCode::CreateTtl, ttl(6, -1), E::BAD_ARGUMENTS),
            case("TTL for a kind without, alone", Closing, OpCode::CreateTtl, ttl(0, 5), E::BAD_ARGUMENTS),
            case("what kills ZooKeeper, alone", Live, OpCode::CreateTtl, ttl(0, -1), E::BAD_ARGUMENTS),
            case("what kills ZooKeeper as a container, alone", Live, OpCode::CreateTtl, ttl(4, -1), E::BAD_ARGUMENTS),
            case("session before path", Closing, OpCode::Create, create("x", 0), E::SESSION_EXPIRED),
            case("unknown session", Unknown, OpCode::Create, create("x", 0), E::UNKNOWN_SESSION),
            case("unknown session, ephemeral", Unknown, OpCode::Create, create("x", 1), E::SESSION_EXPIRED),
            case("path before list", Live, OpCode::Create, create_acl("x", &[], 0), E::BAD_ARGUMENTS),
            case("NUL before list", Live, OpCode::Create, create_acl("/x\0", &[], 0), E::BAD_ARGUMENTS),
            case("list before parent", Live, OpCode::Create, create_acl("/no/x", &[], 0), E::INVALID_ACL),
            case("parent before full path", Live, OpCode::Create, create("/no/\x01", 0), E::NO_NODE),
            case("parent before permission", Live, OpCode::Create, create("no/x", 0), E::NO_NODE),
            case("permission before full path", Live, OpCode::Create, create("/closed/\x01", 0), E::NO_AUTH),
            case("permission before existence", Live, OpCode::Create, create("/closed/child", 0), E::NO_AUTH),
            case("full path before ephemeral parent", Live, OpCode::Create, create("/eph/.", 0), E::BAD_ARGUMENTS),
            case("full path before quota", Live, OpCode::Create, create("/full//", 0), E::NO_NODE),
            case("full path before quota too", Live, OpCode::Create, create("/full/", 0), E::BAD_ARGUMENTS),
            case("existence before quota", Live, OpCode::Create, create("/full/child", 0), E::NODE_EXISTS),
            case(
                "ephemeral parent before quota",
                Live,
                OpCode::Create,
                create("/full/eph/x", 0),
                E::NO_CHILDREN_FOR_EPHEMERALS,
            ),
            case("quota", Live, OpCode::Create, create("/full/x", 0), E::QUOTA_EXCEEDED),
            case("the root is there", Live, OpCode::Create, create("/", 0), E::NODE_EXISTS),
            case("no path", Live, OpCode::Create, create("", 0), E::BAD_ARGUMENTS),
        ],
    );
    let ensemble = PrepareRules { ensemble: true, ..PrepareRules::default() };
    let expired = case("unknown session in an ensemble", Unknown, OpCode::Create, create("/x", 0), E::SESSION_EXPIRED);
    judge(&mut server(ensemble), vec![expired]);
}

#[test]
fn of_delete() {
    let delete = path_version;
    judge(
        &mut server(extended()),
        vec![
            case("session before path", Closing, OpCode::Delete, delete("/", -1), E::SESSION_EXPIRED),
            case("path before parent", Live, OpCode::Delete, delete("/no/\0", -1), E::BAD_ARGUMENTS),
            case("what is always there", Live, OpCode::Delete, delete("/zookeeper/config", -1), E::BAD_ARGUMENTS),
            case("parent", Live, OpCode::Delete, delete("/no/x", -1), E::NO_NODE),
            case("permission before existence", Live, OpCode::Delete, delete("/closed/no", -1), E::NO_AUTH),
            case("permission before version", Live, OpCode::Delete, delete("/closed/child", 9), E::NO_AUTH),
            case("existence", Live, OpCode::Delete, delete("/open/no", 9), E::NO_NODE),
            case("version before children", Live, OpCode::Delete, delete("/open", 9), E::BAD_VERSION),
            case("only -1 is any version", Live, OpCode::Delete, delete("/open/child", -2), E::BAD_VERSION),
            case("children", Live, OpCode::Delete, delete("/open", 0), E::NOT_EMPTY),
        ],
    );
}

#[test]
fn of_set_data() {
    let set = set_data;
    judge(
        &mut server(extended()),
        vec![
            case("session before path", Closing, OpCode::SetData, set("/no/", b"", -1), E::SESSION_EXPIRED),
            case("path before existence", Live, OpCode::SetData, set("/no/", b"", -1), E::BAD_ARGUMENTS),
            case("existence", Live, OpCode::SetData, set("/no", b"", 9), E::NO_NODE),
            case("permission before version", Live, OpCode::SetData, set("/closed", b"", 9), E::NO_AUTH),
            case("quota before version", Live, OpCode::SetData, set("/full", b"12", 9), E::QUOTA_EXCEEDED),
            case("version", Live, OpCode::SetData, set("/full", b"1", 9), E::BAD_VERSION),
        ],
    );
}

#[test]
fn of_set_acl() {
    let set = set_acl;
    judge(
        &mut server(extended()),
        vec![
            case("session before path", Closing, OpCode::SetAcl, set("/no/", &[], -1), E::SESSION_EXPIRED),
            case("path before list", Live, OpCode::SetAcl, set("/no/", &[], -1), E::BAD_ARGUMENTS),
            case("list before existence", Live, OpCode::SetAcl, set("/no", &[], -1), E::INVALID_ACL),
            case("existence", Live, OpCode::SetAcl, set("/no", &open(), 9), E::NO_NODE),
            case("permission before version", Live, OpCode::SetAcl, set("/closed", &open(), 9), E::NO_AUTH),
            case("version", Live, OpCode::SetAcl, set("/open", &open(), 9), E::BAD_VERSION),
        ],
    );
}

#[test]
fn of_check() {
    let mut server = server(extended());
    let table = [
        (Closing, path_version("/no/", 9), E::SESSION_EXPIRED),
        (Live, path_version("/no/", 9), E::BAD_ARGUMENTS),
        (Live, path_version("/no", 9), E::NO_NODE),
        (Live, path_version("/closed", 9), E::NO_AUTH),
        (Live, path_version("/open", 9), E::BAD_VERSION),
        (Live, path_version("/open", 0), E::OK),
        (Live, path_version("/open", -1), E::OK),
    ];
    for (check, body, code) in table {
        server.check = check;
        let reply = server.run(OpCode::Multi, 1, &multi(&[(OpCode::Check, body)])).unwrap();
        assert_eq!(multi_codes(&reply, 1), [code.0]);
    }
    assert_eq!(server.code(OpCode::Check, &path_version("/open", 0)), E::UNIMPLEMENTED, "not alone");
}

#[test]
fn of_reconfig() {
    let body = [[0xff; 12].to_vec(), vec![0; 8]].concat();
    judge(
        &mut server(extended()),
        vec![case("disabled before session", Closing, OpCode::Reconfig, body.clone(), E::RECONFIG_DISABLED)],
    );
    let mut server = server(PrepareRules { reconfig_enabled: true, ..extended() });
    judge(
        &mut server,
        vec![
            case("session before standalone", Closing, OpCode::Reconfig, body.clone(), E::SESSION_EXPIRED),
            case("standalone", Live, OpCode::Reconfig, body, E::UNIMPLEMENTED),
        ],
    );
    assert_eq!(server.prepare(OpCode::Reconfig, 1, &[]).err(), Some(E::MARSHALLING_ERROR));
}

#[test]
fn null_where_upstream_trips_is_minus_five_for_all_of_the_request() {
    let mut server = server(extended());
    let null_path = |mut rest: Vec<u8>| {
        rest.splice(..4 + "/x".len(), [0xff; 4]);
        rest
    };
    let delete = null_path(path_version("/x", -1));
    server.check = Closing;
    assert_eq!(server.code(OpCode::Delete, &delete), E::SESSION_EXPIRED);
    server.check = Live;
    let zxid = server.zxid;
    assert_eq!(server.code(OpCode::Delete, &delete), E::MARSHALLING_ERROR);
    assert_eq!(server.code(OpCode::Create, &null_path(create("/x", 0))), E::MARSHALLING_ERROR);
    assert_eq!(server.zxid, Zxid(zxid.0 + 2), "these were decoded, and have their zxids");
    assert_eq!(server.code(OpCode::SetData, &null_path(set_data("/x", b"", -1))), E::BAD_ARGUMENTS);
    assert_eq!(server.code(OpCode::SetAcl, &null_path(set_acl("/x", &open(), -1))), E::BAD_ARGUMENTS);
    let all =
        multi(&[(OpCode::Delete, path_version("/no", -1)), (OpCode::SetData, null_path(set_data("/x", b"", -1)))]);
    assert_eq!(server.code(OpCode::Multi, &all), E::MARSHALLING_ERROR);
}

#[test]
fn what_cannot_be_decoded_is_refused_and_only_a_multi_takes_a_zxid() {
    let mut server = server(extended());
    let zxid = server.zxid;
    for op in [OpCode::Create, OpCode::Create2, OpCode::CreateTtl, OpCode::Delete, OpCode::SetData, OpCode::SetAcl] {
        assert_eq!(server.prepare(op, 1, &[0, 0]).err(), Some(E::MARSHALLING_ERROR), "{op:?}");
    }
    assert_eq!(server.zxid, zxid);
    for body in [vec![0, 0], multi(&[(OpCode::GetData, vec![0, 0, 0, 1, b'/', 0])])] {
        assert_eq!(server.code(OpCode::Multi, &body), E::MARSHALLING_ERROR);
    }
    assert_eq!(server.zxid, Zxid(zxid.0 + 2));
    let null_list = |op, ttl: Option<i64>| {
        let mut body = create_with("/x", None, &[], flags::PERSISTENT_WITH_TTL * ttl.is_some() as i32, ttl);
        let count = 4 + "/x".len() + 4;
        body.splice(count..count + 4, [0xff; 4]);
        (op, body)
    };
    let (plain, with_ttl) = (null_list(OpCode::Create, None), null_list(OpCode::CreateTtl, Some(5)));
    assert_eq!(server.code(plain.0, &plain.1), E::INVALID_ACL);
    let zxid = server.zxid;
    assert_eq!(server.prepare(OpCode::Multi, 1, &multi(&[plain])).err(), Some(E::MARSHALLING_ERROR));
    assert_eq!(server.zxid, zxid);
    let reply = server.run(OpCode::Multi, 1, &multi(&[with_ttl])).unwrap();
    assert_eq!(multi_codes(&reply, 1), [E::INVALID_ACL.0]);
}

#[test]
fn the_op_makes_the_kind_and_in_a_multi_the_flags_do() {
    let mut server = Server::new(extended());
    server.set_up(OpCode::Create, &create("/plain", flags::CONTAINER));
    server.set_up(OpCode::CreateContainer, &create("/container", flags::EPHEMERAL));
    server.set_up(OpCode::Multi, &multi(&[(OpCode::Create, create("/in-multi", flags::CONTAINER))]));
    let degraded = create_with("/degraded", None, &open(), 0, Some(-1));
    server.set_up(OpCode::Multi, &multi(&[(OpCode::CreateTtl, degraded)]));
    let owner = |server: &Server, path| server.tree.lookup(path).unwrap().owner();
    assert_eq!(owner(&server, "/plain"), Owner::Nobody);
    assert_eq!(owner(&server, "/container"), Owner::Container);
    assert_eq!(owner(&server, "/in-multi"), Owner::Container);
    assert_eq!(owner(&server, "/degraded"), Owner::Nobody);
    server.set_up(OpCode::Create, &create("/container/child", 0));

    let odd = [(OpCode::CreateContainer, create("/odd", 1)), (OpCode::Create, create("/odd/child", 0))];
    let reply = server.run(OpCode::Multi, 1, &multi(&odd)).unwrap();
    assert_eq!(multi_codes(&reply, 2), [0, E::NO_CHILDREN_FOR_EPHEMERALS.0]);
}

#[test]
fn suffixes_count_all_children_ever_and_see_what_is_pending() {
    let mut server = Server::new(extended());
    server.set_up(OpCode::Create, &create("/s", 0));
    server.set_up(OpCode::Create, &create("/s/plain", 0));
    let ops: Vec<_> = (0..2).map(|_| (OpCode::Create, create("/s/n-", flags::PERSISTENT_SEQUENTIAL))).collect();
    let flights: Vec<_> = [(OpCode::Multi, multi(&ops)), (OpCode::Create, create("/s/", 2))]
        .into_iter()
        .map(|(op, body)| server.prepare(op, 1, &body).unwrap())
        .collect();
    for flight in flights {
        server.apply(flight);
    }
    let mut names: Vec<_> = server.tree.lookup("/s").unwrap().children().collect();
    names.sort_unstable();
    assert_eq!(names, ["0000000003", "n-0000000001", "n-0000000002", "plain"]);
}

#[test]
fn a_pending_list_counts_and_so_does_a_pending_version() {
    let mut server = Server::new(extended());
    server.set_up(OpCode::Create, &create("/a", 0));
    let flights: Vec<_> = [
        (OpCode::SetAcl, set_acl("/a", &[Acl::world(Acl::READ)], 0)),
        (OpCode::SetData, set_data("/a", b"", -1)),
        (OpCode::SetAcl, set_acl("/a", &open(), -1)),
        (OpCode::Delete, path_version("/a", 0)),
        (OpCode::Create, create("/a", 0)),
        (OpCode::SetData, set_data("/a", b"", 0)),
        (OpCode::SetData, set_data("/a", b"", 0)),
    ]
    .into_iter()
    .map(|(op, body)| server.prepare(op, 1, &body).unwrap())
    .collect();
    let codes: Vec<_> = flights.iter().map(|it| if let Txn::Error { code } = it.txn { code } else { 0 }).collect();
    assert_eq!(codes, [0, E::NO_AUTH.0, E::NO_AUTH.0, 0, 0, 0, E::BAD_VERSION.0]);
    for flight in flights {
        server.apply(flight);
    }
    assert_eq!(server.prepare.pending_paths(), 0);
}

/// What a client asks again and again is found out once a turn; many lists are too much for one.
#[test]
fn a_turn_goes_through_a_long_list_once_for_each_who_asks_and_not_through_any_number_of_lists() {
    const ENTRIES: usize = 20_000;
    let create = |path: &str, network: bool| {
        let mut out = Vec::new();
        out.put_text(path);
        out.put_buffer(None);
        let entry = |at: usize| match network {
            true => Acl { perms: Acl::ALL, scheme: "ip".into(), id: format!("10.{}.{}.1", at / 256, at % 256) },
            false => Acl { perms: Acl::ALL, scheme: "digest".into(), id: format!("a:{at:06}") },
        };
        let mut list: Vec<Acl> = (0..ENTRIES).map(entry).collect();
        // Lists that are the same are one.
        list.push(Acl { perms: Acl::ALL, scheme: "digest".into(), id: format!("{}:x", &path[1..]) });
        Acl::write_list(&list, &mut out);
        out.put_int(0);
        out
    };
    let set = |path: &str| {
        let mut out = Vec::new();
        out.put_text(path);
        out.put_buffer(Some(b"x"));
        out.put_int(-1);
        out
    };
    let mut server = Server::new(PrepareRules::default());
    for at in 0..60 {
        assert_eq!(server.code(OpCode::Create, &create(&format!("/{at}"), at % 2 == 1)), ErrorCode::OK);
        server.prepare.begin_turn();
    }
    for _ in 0..2_000 {
        assert_eq!(server.code(OpCode::SetData, &set("/1")), ErrorCode::NO_AUTH);
    }
    assert!(!server.prepare.has_done_enough(), "the same list, asked again and again");
    server.prepare.begin_turn();
    let lists = (0..60).take_while(|at| {
        assert_eq!(server.code(OpCode::SetData, &set(&format!("/{at}"))), ErrorCode::NO_AUTH);
        !server.prepare.has_done_enough()
    });
    let lists = lists.count();
    assert!((15..40).contains(&lists), "{lists} lists are enough for a turn");
    server.prepare.begin_turn();
    assert!(!server.prepare.has_done_enough());
}
