//! What it costs to make a transaction, alone and with its apply; and to decide about access.
//!
//! Batches of 64 are in flight, as under load. The tree has 100,000 znodes, the parent's data is 1 KB.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ostler::auth::{AuthIds, AuthRules, permits};
use ostler::ids::{SessionId, Zxid};
use ostler::prepare::{Prepare, PrepareRules, Prepared, SessionCheck, WriteRequest};
use ostler::tree::{Applied, Tree, TreeOptions};
use ostler::wire::OpCode;
use ostler::wire::txn::{Acl, Txn, TxnHeader};
use ostler::wire::writer::Jute;
use std::hint::black_box;

const BATCH: u64 = 64;
const ZNODES: u64 = 100_000;

struct Server {
    tree: Tree,
    prepare: Prepare,
    auth: AuthIds,
    zxid: Zxid,
    applied: Applied,
    flights: Vec<(TxnHeader, Txn)>,
}

impl Server {
    fn new(rules: PrepareRules) -> Server {
        let mut server = Server {
            tree: Tree::new(TreeOptions::default()),
            prepare: Prepare::new(rules),
            auth: AuthIds::of_peer([127, 0, 0, 1].into()),
            zxid: Zxid::ZERO,
            applied: Applied::default(),
            flights: Vec::new(),
        };
        server.write(OpCode::Create, &create("/parent", &[7; 1024]));
        server.apply();
        for n in 0..ZNODES {
            server.write(OpCode::Create, &create(&format!("/parent/child-{n:06}"), &[7; 100]));
            server.apply();
        }
        server
    }

    fn write(&mut self, op: OpCode, body: &[u8]) {
        let request = WriteRequest {
            session: SessionId(1),
            session_check: SessionCheck::Live,
            xid: 1,
            op,
            body,
            auth: &self.auth,
        };
        self.zxid = Zxid(self.zxid.0 + 1);
        match self.prepare.write(&self.tree, &request, self.zxid, 1) {
            Prepared::Txn { header, txn, .. } if !matches!(txn, Txn::Error { .. }) => self.flights.push((header, txn)),
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self) {
        for (header, txn) in self.flights.drain(..) {
            self.applied.clear();
            self.tree.apply(&header, txn, &mut self.applied);
        }
        self.prepare.applied(self.tree.zxid());
    }

    /// What is in flight will never be applied.
    fn forget(&mut self) {
        self.flights.clear();
        self.prepare.clear();
        self.zxid = self.tree.zxid();
    }
}

fn create(path: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_text(path);
    out.put_buffer(Some(data));
    Acl::write_list(&[Acl::world(Acl::ALL)], &mut out);
    out.put_int(0);
    out
}

fn set_data(path: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_text(path);
    out.put_buffer(Some(data));
    out.put_int(-1);
    out
}

fn prepare(c: &mut Criterion) {
    let mut group = c.benchmark_group("prepare");
    group.throughput(Throughput::Elements(BATCH));
    for (name, digest) in [("", true), (", no digest", false)] {
        let mut server = Server::new(PrepareRules { digest, ..PrepareRules::default() });
        let bodies: Vec<_> = (0..BATCH).map(|n| create(&format!("/parent/new-{n:08}"), &[7; 100])).collect();
        group.bench_function(format!("create 64{name}"), |b| {
            b.iter(|| {
                for body in &bodies {
                    server.write(OpCode::Create, body);
                }
                server.forget();
            });
        });
        let bodies: Vec<_> =
            (0..BATCH).map(|n| set_data(&format!("/parent/child-{:06}", n * 997), &[8; 100])).collect();
        group.bench_function(format!("setData 64{name}"), |b| {
            b.iter(|| {
                for body in &bodies {
                    server.write(OpCode::SetData, body);
                }
                server.forget();
            });
        });
        group.bench_function(format!("setData 64 and apply{name}"), |b| {
            b.iter(|| {
                for body in &bodies {
                    server.write(OpCode::SetData, body);
                }
                server.apply();
            });
        });
    }
    group.finish();
}

fn access(c: &mut Criterion) {
    let (ids, rules) = (AuthIds::of_peer([127, 0, 0, 1].into()), AuthRules::default());
    let open = [Acl::world(Acl::ALL)];
    let network = [Acl { perms: Acl::ALL, scheme: "ip".into(), id: "127.0.0.0/8".into() }];
    c.bench_function("permits/world", |b| b.iter(|| permits(black_box(&open), Acl::READ, &ids, &rules)));
    c.bench_function("permits/ip", |b| b.iter(|| permits(black_box(&network), Acl::READ, &ids, &rules)));
}

criterion_group!(benches, prepare, access);
criterion_main!(benches);
