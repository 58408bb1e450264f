//! What has to be true when a run is over: the checkers of fault model 1 over the histories that the clients wrote down.
//!
//! W: each acknowledged write stands in the order at the zxid of its answer, once, with the result that the model gives;
//! real time is kept. F: what one session sent takes effect in its order. S: reads give the model's state at their zxid.
//! M, E: multis and ephemerals are part of the model. D: all servers end with the model's tree. And a second opinion that
//! looks at no zxid (`linear`).

use crate::clients::{Op, Record};
use crate::linear;
use crate::model::{Model, sort_children};
use crate::network::Time;
use crate::server::Server;
use crate::world::World;
use ostler::disk::sim::Keep;
use ostler::ids::{SessionId, Zxid};
use ostler::session::SessionState;
use ostler::tree::Tree;
use ostler::wire::ErrorCode;
use ostler::wire::txn::{Txn, read_txn};
use std::collections::{BTreeMap, BTreeSet};

/// Whether these servers have everything that is committed, and no session is about to end. One that stays so is refused to
/// its client for ever, and never ends.
pub fn has_converged(world: &World, present: &[bool]) -> bool {
    let last = world.invariants.last_committed();
    world.hosts.iter().zip(present).filter(|(_, present)| **present).all(|(host, _)| {
        let has_all = |server: &Server| {
            let sessions = server.sessions.timeouts();
            let ends = sessions.iter().any(|&(id, _)| server.sessions.state(id) == SessionState::Closing);
            server.tree.zxid() == last && server.is_at_base() && !(server.is_established() && ends)
        };
        host.server.as_deref().is_some_and(has_all)
    })
}

/// What the checkers looked at.
#[derive(Clone, Copy, Default, Debug)]
pub struct Checked {
    pub writes: usize,
    pub reads: usize,
    pub syncs: usize,
    pub linear: linear::Effort,
}

pub fn check(world: &World) -> Checked {
    let records: Vec<&Record> = world.clients.iter().flat_map(|client| &client.history).collect();
    let mut checked = Checked::default();
    let (model, placed) = replay(world, &records, &mut checked);
    real_time(&records, &placed, &mut checked);
    sessions_in_order(world, &records, &placed);
    for (at, host) in world.hosts.iter().enumerate() {
        if let Some(server) = &host.server {
            same_tree(&model, &server.tree, at);
            let live: BTreeSet<SessionId> = server.sessions.timeouts().into_iter().map(|(id, _)| id).collect();
            assert_eq!(live, model.sessions, "checker E: the sessions of server {}", at + 1);
        }
    }
    for session in world.clients.iter().flat_map(|client| &client.expired) {
        assert!(world.invariants.ended.contains(session), "1.6: {session} is called expired, and nobody has ended it");
    }
    disks(world);
    checked.linear = linear::check(&records);
    checked
}

/// D, I13: if all lost power now, with everything that no sync has covered, each would start with what it serves.
fn disks(world: &World) {
    for (at, host) in world.hosts.iter().enumerate() {
        let Some(server) = &host.server else { continue };
        let recovered = match crate::storage::recover(&host.disk.after_crash(Keep::Nothing)) {
            Ok(recovered) => recovered,
            Err(fatal) => panic!("I13: server {} would not start: {fatal}", at + 1),
        };
        assert!(!recovered.quarantined || host.damaged, "I13: server {} would distrust its disk", at + 1);
        let (found, serves) = (&recovered.tree, &server.tree);
        assert_eq!(found.zxid(), serves.zxid(), "checker D: server {} would have lost something", at + 1);
        assert_eq!(found.digest(), serves.digest(), "checker D: server {} would start with another tree", at + 1);
        assert_eq!(recovered.sessions, server.sessions.timeouts(), "checker D: sessions of server {}", at + 1);
    }
}

/// Where each request that took effect stands in the order.
type Placed = BTreeMap<(SessionId, i32), Zxid>;

fn replay(world: &World, records: &[&Record], checked: &mut Checked) -> (Model, Placed) {
    let requests: BTreeMap<(SessionId, i32), &Record> =
        records.iter().filter(|r| r.op.is_write()).map(|r| ((r.session, r.xid), *r)).collect();
    let mut reads: BTreeMap<Zxid, Vec<&Record>> = BTreeMap::new();
    for record in records.iter().filter(|record| !record.op.is_write() && !matches!(record.op, Op::Sync(_))) {
        if let Some(answer) = &record.answer {
            reads.entry(answer.zxid).or_default().push(record);
        }
    }
    let mut model = Model::new();
    let mut placed = Placed::new();
    let mut read_at = |model: &Model, zxid: Zxid| {
        for record in reads.remove(&zxid).unwrap_or_default() {
            checked.reads += 1;
            let answer = record.answer.as_ref().expect("only answered ones were taken");
            let body = sort_children(record.op.code(), &answer.body);
            assert_eq!((answer.err, body), model.read(&record.op), "checker S: {record:?}");
        }
    };
    read_at(&model, Zxid::ZERO);
    for committed in &world.invariants.order {
        let (header, txn, _) = read_txn(&committed.record).expect("it was applied");
        let zxid = committed.zxid;
        match (requests.get(&(header.session, header.cxid)), &txn) {
            (_, Txn::CreateSession { .. }) => {
                assert!(!model.sessions.contains(&header.session), "checker E: {:?} twice", header.session);
                model.create_session(header.session);
            }
            (request, Txn::CloseSession { .. }) => {
                model.close_session(header.session, zxid);
                if let Some(request) = request.filter(|_| header.cxid != 0) {
                    assert_eq!(request.op, Op::Close);
                    placed.insert((header.session, header.cxid), zxid);
                }
            }
            (Some(request), txn) => {
                let before = placed.get(&(header.session, header.cxid));
                assert!(before.is_none(), "checker W: {request:?} at {before:?} and at {zxid}");
                if is_moved(txn) {
                    assert!(request.answer.is_none(), "a moved session's request is answered: {request:?}");
                    read_at(&model, zxid);
                    continue;
                }
                placed.insert((header.session, header.cxid), zxid);
                let expected = model.apply(&request.op, header.session, zxid, header.time);
                match txn {
                    Txn::Error { code } => assert_eq!(ErrorCode(*code), expected.0, "checker W: {zxid}: {request:?}"),
                    Txn::Multi(ops) => {
                        let fails = ops.iter().any(|op| matches!(op, Txn::Error { .. }));
                        let expects = expected.1.starts_with(&ostler::wire::OpCode::Error.to_wire().to_be_bytes());
                        assert_eq!(fails, expects, "checker M: {zxid}: {txn:?} for {request:?}");
                    }
                    _ => assert_eq!(expected.0, ErrorCode::OK, "checker W: {zxid}: {request:?}"),
                }
                if let Some(answer) = &request.answer {
                    checked.writes += 1;
                    assert_eq!(answer.zxid, zxid, "checker W: {request:?}");
                    assert_eq!((answer.err, &answer.body), (expected.0, &expected.1), "checker W: {request:?}");
                }
            }
            (None, txn) => panic!("checker W: {zxid} is nobody's: {txn:?}"),
        }
        read_at(&model, zxid);
    }
    if let Some((zxid, some)) = reads.first_key_value() {
        panic!("checker S: a read at {zxid}, which is no state: {:?}", some[0]);
    }
    for (key, request) in &requests {
        if let Some(answer) = &request.answer {
            assert_eq!(placed.get(key), Some(&answer.zxid), "checker W: acknowledged and lost: {request:?}");
        }
    }
    (model, placed)
}

/// Whether a request was refused because its session is on another server by now.
fn is_moved(txn: &Txn) -> bool {
    match txn {
        Txn::Error { code } => ErrorCode(*code) == ErrorCode::SESSION_MOVED,
        Txn::Multi(ops) => ops.iter().any(is_moved),
        _ => false,
    }
}

/// W 2 and 1.3: what was acknowledged before something began comes before it, also for a sync.
fn real_time(records: &[&Record], placed: &Placed, checked: &mut Checked) {
    let mut acked: Vec<(Time, Zxid)> = records
        .iter()
        .filter(|record| record.op.is_write())
        .filter_map(|record| record.answer.as_ref().map(|answer| (answer.at, answer.zxid)))
        .collect();
    acked.sort_unstable();
    let mut newest = Zxid::ZERO;
    for (_, zxid) in &mut acked {
        newest = newest.max(*zxid);
        *zxid = newest;
    }
    let before = |time: Time| {
        let at = acked.partition_point(|&(done, _)| done < time);
        if at == 0 { Zxid::ZERO } else { acked[at - 1].1 }
    };
    for record in records {
        if record.op.is_write() {
            if let Some(&zxid) = placed.get(&(record.session, record.xid)) {
                let newest = before(record.invoked);
                assert!(zxid > newest, "checker W: at {zxid}, and {newest} was acknowledged before: {record:?}");
            }
        } else if let (Op::Sync(_), Some(answer)) = (&record.op, &record.answer) {
            checked.syncs += 1;
            let newest = before(record.invoked);
            assert!(answer.zxid >= newest, "1.3: a sync at {}, after {newest}: {record:?}", answer.zxid);
        }
    }
}

/// F: zxids of a session's writes rise; of what was outstanding when a connection broke, a first part took effect.
fn sessions_in_order(world: &World, records: &[&Record], placed: &Placed) {
    let ends: BTreeMap<SessionId, Zxid> = (world.invariants.order.iter())
        .filter_map(|committed| {
            let (header, txn, _) = read_txn(&committed.record).expect("it was applied");
            matches!(txn, Txn::CloseSession { .. }).then_some((header.session, committed.zxid))
        })
        .collect();
    let mut by_connection: BTreeMap<(usize, u32, SessionId), Vec<&Record>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.op.is_write()) {
        by_connection.entry((record.client, record.connection, record.session)).or_default().push(record);
    }
    // Also from one connection to the next: what is still on its way from an earlier server is refused.
    let mut lasts: BTreeMap<SessionId, (Zxid, Option<&Record>)> = BTreeMap::new();
    for ((_, _, session), writes) in &by_connection {
        let last = lasts.entry(*session).or_insert((Zxid::ZERO, None));
        let mut missing: Option<&Record> = None;
        for record in writes {
            match placed.get(&(record.session, record.xid)) {
                // A session that is ending already is not ended once more.
                None if record.op == Op::Close => {}
                None => missing = missing.or(Some(record)),
                // The end that a client asked for comes from an earlier server too, as in ZooKeeper. What comes later than the
                // end is refused, however late.
                Some(zxid) if ends.get(session).is_some_and(|end| zxid >= end) => {}
                Some(&zxid) => {
                    assert!(missing.is_none(), "checker F: {record:?} took effect, and not {missing:?} before it");
                    assert!(zxid > last.0, "checker F: {zxid} after {last:?}: {record:?}");
                    *last = (zxid, Some(record));
                }
            }
        }
    }
}

/// D: a server's tree is the model's.
fn same_tree(model: &Model, tree: &Tree, at: usize) {
    for (path, node) in &model.nodes {
        let Some(found) = tree.lookup(path) else { panic!("checker D: server {} has no {path}", at + 1) };
        assert_eq!(found.stat(), node.stat(), "checker D: {path} of server {}", at + 1);
        assert_eq!(found.data().unwrap_or_default(), node.data, "checker D: {path} of server {}", at + 1);
    }
    // The root counts twice, and three znodes are there from the beginning.
    assert_eq!(tree.node_count(), model.nodes.len() + 4, "checker D: znodes of server {}", at + 1);
}
