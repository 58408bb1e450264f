//! The hot paths one at a time, so often as is asked: for a counter of instructions, which needs a program that does
//! the one thing and nothing else.
//!
//! `cargo build --release --example hot_paths`, then `hot_paths NAME TIMES`; without arguments it lists the names.
//! `tests/costs.rs` runs each with two numbers of times under callgrind: what it does at its start cancels out of the
//! difference. Everything is seeded and of one size, so that two counts of one program agree to the instruction.

use ostler::auth::{AuthIds, AuthRules};
use ostler::disk::RealDisk;
use ostler::ids::{SessionId, Zxid};
use ostler::log::{Batch, Recovery, Sizes};
use ostler::prepare::{Prepare, PrepareRules, Prepared, SessionCheck, WriteRequest};
use ostler::read::{self, Asker};
use ostler::tree::{Applied, Tree, TreeOptions};
use ostler::watch::{Change, PathHashes, WatchFilter, WatchKind, WatchTable};
use ostler::wire::client::{EventKind, PathWatch, RequestHeader, write_event};
use ostler::wire::txn::{Acl, Txn, TxnHeader, write_txn};
use ostler::wire::writer::Jute;
use ostler::wire::{ErrorCode, OpCode, Reader};
use std::sync::Arc;

const ZNODES: u64 = 10_000;
const VALUE: [u8; 100] = [7; 100];
/// Transactions of a group: what the log gets at once, and what is applied under one guard.
const GROUP: u64 = 16;
/// Watchers of one znode.
const WATCHERS: u32 = 1_000;

/// Does its one thing so often.
type Path = fn(u64);

const PATHS: &[(&str, Path)] = &[
    ("read", read_path),
    ("set", set_path),
    ("create", create_path),
    ("log", log_path),
    ("fan-out", fan_out_path),
    ("unwatched", unwatched_path),
];

fn main() {
    // The same tables in the same order each time.
    assert!(ostler::random::set_seed(1));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = match &arguments[..] {
        [name, times] => PATHS.iter().find(|(known, _)| known == name).zip(times.parse().ok()),
        _ => None,
    };
    match asked {
        Some(((_, path), times)) => path(times),
        None => PATHS.iter().for_each(|(name, _)| println!("{name}")),
    }
}

fn znode(n: u64) -> String {
    format!("/services/some-service/instance-{:06}", n % ZNODES)
}

struct Server {
    tree: Tree,
    prepare: Prepare,
    auth: AuthIds,
    applied: Applied,
    in_flight: Vec<(TxnHeader, Txn)>,
    zxid: Zxid,
}

impl Server {
    fn new() -> Server {
        let mut server = Server {
            tree: Tree::new(TreeOptions::default()),
            prepare: Prepare::new(PrepareRules::default()),
            auth: AuthIds::of_peer([127, 0, 0, 1].into()),
            applied: Applied::default(),
            in_flight: Vec::new(),
            zxid: Zxid::ZERO,
        };
        let parents = ["/services".to_owned(), "/services/some-service".to_owned()];
        for path in parents.into_iter().chain((0..ZNODES).map(znode)) {
            server.write(OpCode::Create, &create(&path));
            server.apply();
        }
        server
    }

    fn write(&mut self, op: OpCode, body: &[u8]) {
        let (session, session_check, auth) = (SessionId(1), SessionCheck::Live, &self.auth);
        let request = WriteRequest { session, session_check, xid: 1, op, body, auth };
        self.zxid = Zxid(self.zxid.0 + 1);
        match self.prepare.write(&self.tree, &request, self.zxid, 1_700_000_000_000) {
            Prepared::Txn { header, txn, .. } if !matches!(txn, Txn::Error { .. }) => {
                self.in_flight.push((header, txn))
            }
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self) {
        for (header, txn) in self.in_flight.drain(..) {
            self.applied.clear();
            self.tree.apply(&header, txn, &mut self.applied);
        }
        self.prepare.applied(self.tree.zxid());
    }
}

fn create(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_text(path);
    out.put_buffer(Some(&VALUE));
    Acl::write_list(&[Acl::world(Acl::ALL)], &mut out);
    out.put_int(0);
    out
}

fn set_data(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_text(path);
    out.put_buffer(Some(&VALUE));
    out.put_int(-1);
    out
}

/// getData: header and record decoded, looked up, permitted, encoded.
fn read_path(times: u64) {
    let server = Server::new();
    let mut watches = WatchTable::new(Arc::new(WatchFilter::new()), usize::MAX);
    let rules = AuthRules::default();
    let asker = Asker::new(1, SessionId(1), &server.auth, &rules);
    let mut frames = Vec::new();
    for n in 0..256 {
        let mut frame = Vec::new();
        RequestHeader { xid: n as i32, op: OpCode::GetData.to_wire() }.write(&mut frame);
        PathWatch { path: Some(znode(n * 37).into()), watch: false }.write(&mut frame);
        frames.push(frame);
    }
    let mut out = Vec::with_capacity(64 << 10);
    for at in 0..times {
        if at % 64 == 0 {
            out.clear();
        }
        let mut r = Reader::new(&frames[at as usize % frames.len()]);
        let header = RequestHeader::read(&mut r).expect("a header");
        let op = OpCode::from_wire(header.op).expect("an operation");
        let code = read::answer(op, header.xid, r.rest(), &server.tree, &mut watches, &asker, &mut out);
        assert_eq!(code, ErrorCode::OK);
    }
}

/// setData: prepared in groups, then applied.
fn set_path(times: u64) {
    let mut server = Server::new();
    let bodies: Vec<_> = (0..256).map(|n| set_data(&znode(n * 37))).collect();
    writes(&mut server, OpCode::SetData, times, |at| &bodies[at as usize % bodies.len()]);
}

/// create below a parent of many children.
fn create_path(times: u64) {
    let mut server = Server::new();
    // As many as the longest count makes, however long this one is: what they cost must cancel out.
    let bodies: Vec<_> = (0..CREATES_MAX).map(|n| create(&format!("/services/some-service/new-{n:012}"))).collect();
    assert!(times <= CREATES_MAX);
    writes(&mut server, OpCode::Create, times, |at| &bodies[at as usize]);
}

const CREATES_MAX: u64 = 10_000;

fn writes<'b>(server: &mut Server, op: OpCode, times: u64, body: impl Fn(u64) -> &'b Vec<u8>) {
    for at in 0..times {
        server.write(op, body(at));
        if at % GROUP == GROUP - 1 {
            server.apply();
        }
    }
    server.apply();
}

/// A transaction into the log: encoded, its checksums, stored into the segment; the group's mark. The sync is a system
/// call, and not counted.
fn log_path(times: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let sizes = Sizes { first: 16 << 20, segment: 16 << 20 };
    let mut log = Recovery::open(RealDisk, dir.path(), Zxid::ZERO, sizes).and_then(Recovery::finish).expect("a log");
    let txn = Txn::SetData { op: OpCode::SetData, path: znode(7), data: Some(VALUE.to_vec()), version: 3 };
    let mut batch = Batch::new();
    for zxid in 1..=times {
        let header = TxnHeader { session: SessionId(1), cxid: 7, zxid: Zxid(zxid), time: 1_700_000_000_000 };
        batch.push_with(header.zxid, |bytes| write_txn(&header, &txn, None, bytes));
        if zxid % GROUP == 0 || zxid == times {
            log.append(&batch).expect("appended");
            log.sync().expect("synced");
            batch.clear();
        }
    }
}

/// One change told to many watchers: once for each notification, not for each change.
fn fan_out_path(times: u64) {
    let mut watches = WatchTable::new(Arc::new(WatchFilter::new()), usize::MAX);
    let path = znode(7);
    (0..WATCHERS).for_each(|connection| watches.add(connection, &path, Some(7), WatchKind::Persistent).expect("room"));
    let mut outputs = vec![Vec::with_capacity(64 << 10); WATCHERS as usize];
    for at in 0..times / u64::from(WATCHERS) {
        let mut told = 0;
        let change = Change { kind: EventKind::NodeDataChanged, path: &path, znode: 7, parent: 1 };
        watches.trigger(&change, &mut |connection, kind, path, _| {
            write_event(&mut outputs[connection as usize], kind, path, at as i64);
            told += 1;
        });
        assert_eq!(told, WATCHERS);
    }
}

/// A change that nobody watches: what the pipeline's thread pays to know that.
fn unwatched_path(times: u64) {
    let filter = Arc::new(WatchFilter::new());
    let mut watches = WatchTable::new(filter.clone(), usize::MAX);
    (0..ZNODES / 2)
        .for_each(|n| watches.add(n as u32 % WATCHERS, &znode(n), Some(n as u32), WatchKind::Data).expect("room"));
    let path = "/services/another-service/instance-1".to_owned();
    let mut seen = 0;
    for _ in 0..times {
        let path = std::hint::black_box(path.as_str());
        let change = Change { kind: EventKind::NodeDataChanged, path, znode: ZNODES as u32, parent: 1 };
        seen += u64::from(filter.might_watch(&PathHashes::new(&change)));
    }
    assert_eq!(seen, 0, "the filter has a false positive: choose another path");
}
