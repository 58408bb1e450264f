//! What bytes cost: requests in, replies out, transactions to and from the log.
//!
//! Informs: whether decoding in place is as cheap as it should be (a getData is two lengths and a check of UTF-8, tens of
//! nanoseconds), and what a request costs that has to allocate (create: its ACL; multi: its list). A getData whose reply
//! costs more than its look-up (`benches/tree.rs`) would be the first thing to mend. Paths have 33 bytes, values 100.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ostler::ids::{SessionId, Zxid};
use ostler::wire::client::{
    AclEntry, ConnectRequest, ConnectResponse, CreateRequest, EventKind, PathVersion, PathWatch, ReplyHeader,
    RequestHeader, SetDataRequest, write_event,
};
use ostler::wire::multi::{self, MultiOp};
use ostler::wire::txn::{Acl, NodeKind, Txn, TxnDigest, TxnHeader, read_txn, write_txn};
use ostler::wire::writer::{Frame, Jute};
use ostler::wire::{ErrorCode, OpCode, Reader, Stat};
use std::hint::black_box;

const PATH: &str = "/services/some-service/instance-7";
const VALUE: [u8; 100] = [7; 100];
/// Operations of the multi.
const OPS: usize = 8;

fn header() -> RequestHeader {
    RequestHeader { xid: 7, op: OpCode::GetData.to_wire() }
}

fn create() -> CreateRequest<'static> {
    let acl = vec![AclEntry { perms: Acl::ALL, scheme: Some("world".into()), id: Some("anyone".into()) }];
    CreateRequest { path: Some(PATH.into()), data: Some(&VALUE), acl: Some(acl.into()), flags: 0, ttl: -1 }
}

fn set_data() -> SetDataRequest<'static> {
    SetDataRequest { path: Some(PATH.into()), data: Some(&VALUE), version: -1 }
}

/// A record with its header before it, as it stands in a frame.
fn request(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    header().write(&mut bytes);
    write(&mut bytes);
    bytes
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let bytes = request(|out| PathWatch { path: Some(PATH.into()), watch: false }.write(out));
    group.throughput(Throughput::Elements(1));
    group.bench_function("getData", |b| {
        b.iter(|| {
            let mut r = Reader::new(black_box(&bytes));
            let header = RequestHeader::read(&mut r).unwrap();
            let watch = PathWatch::read(&mut r).unwrap();
            black_box((OpCode::from_wire(header.op), watch));
        });
    });
    let bytes = request(|out| set_data().write(out));
    group.bench_function("setData", |b| {
        b.iter(|| {
            let mut r = Reader::new(black_box(&bytes));
            black_box((RequestHeader::read(&mut r).unwrap(), SetDataRequest::read(&mut r).unwrap()));
        });
    });
    let bytes = request(|out| create().write(out, OpCode::Create));
    group.bench_function("create", |b| {
        b.iter(|| {
            let mut r = Reader::new(black_box(&bytes));
            black_box((RequestHeader::read(&mut r).unwrap(), CreateRequest::read(&mut r, OpCode::Create).unwrap()));
        });
    });
    let mut bytes = Vec::new();
    let connect = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms: 30_000,
        session: SessionId::NONE,
        password: Some(&[0; 16]),
        read_only: Some(false),
    };
    connect.write(&mut bytes);
    group.bench_function("connect request", |b| {
        b.iter(|| black_box(ConnectRequest::read(black_box(&bytes[4..])).unwrap()));
    });
    let bytes = request(|out| {
        for _ in 0..OPS / 4 {
            MultiOp::Check(PathVersion { path: Some(PATH.into()), version: 1 }).write(out);
            MultiOp::Create(OpCode::Create, create()).write(out);
            MultiOp::SetData(set_data()).write(out);
            MultiOp::Delete(PathVersion { path: Some(PATH.into()), version: 1 }).write(out);
        }
        multi::write_end(out);
    });
    group.throughput(Throughput::Elements(OPS as u64));
    group.bench_function("multi of 8", |b| {
        b.iter(|| {
            let mut r = Reader::new(black_box(&bytes));
            black_box((RequestHeader::read(&mut r).unwrap(), multi::read_ops(&mut r).unwrap()));
        });
    });
    group.finish();
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let stat = Stat { czxid: Zxid(7), mzxid: Zxid(9), data_length: VALUE.len() as i32, ..Stat::default() };
    let mut out = Vec::with_capacity(4096);
    group.throughput(Throughput::Elements(1));
    group.bench_function("getData reply", |b| {
        b.iter(|| {
            out.clear();
            let frame = Frame::reply(&mut out, 7, Zxid(9));
            frame.bytes.put_buffer(black_box(Some(&VALUE)));
            black_box(&stat).write(frame.bytes);
            frame.close();
            black_box(out.len());
        });
    });
    group.bench_function("setData reply", |b| {
        b.iter(|| {
            out.clear();
            let frame = Frame::reply(&mut out, 7, Zxid(9));
            black_box(&stat).write(frame.bytes);
            frame.close();
            black_box(out.len());
        });
    });
    group.bench_function("error reply", |b| {
        b.iter(|| {
            out.clear();
            ReplyHeader { xid: 7, zxid: 9, err: black_box(ErrorCode::NO_NODE) }.write_frame(&mut out);
            black_box(out.len());
        });
    });
    group.bench_function("watch event", |b| {
        b.iter(|| {
            out.clear();
            write_event(&mut out, EventKind::NodeDataChanged, black_box(PATH), 9);
            black_box(out.len());
        });
    });
    let response =
        ConnectResponse { timeout_ms: 30_000, session: SessionId(7), password: [7; 16], read_only: Some(false) };
    group.bench_function("connect response", |b| {
        b.iter(|| {
            out.clear();
            black_box(&response).write(&mut out);
            black_box(out.len());
        });
    });
    group.finish();
}

fn transactions(c: &mut Criterion) {
    let mut group = c.benchmark_group("txn");
    group.throughput(Throughput::Elements(1));
    let header = TxnHeader { session: SessionId(1), cxid: 7, zxid: Zxid(9), time: 1_700_000_000_000 };
    let digest = Some(TxnDigest { version: TxnDigest::VERSION, tree: 0x1234_5678_9abc_def0 });
    let data = || Some(VALUE.to_vec());
    let set = Txn::SetData { op: OpCode::SetData, path: PATH.into(), data: data(), version: 3 };
    let create = Txn::Create {
        op: OpCode::Create,
        path: PATH.into(),
        data: data(),
        acl: vec![Acl::world(Acl::ALL)].into(),
        kind: NodeKind::Persistent,
        parent_cversion: 1,
    };
    let multi = Txn::Multi((0..OPS).map(|at| if at % 2 == 0 { set.clone() } else { create.clone() }).collect());
    for (name, txn) in [("setData", &set), ("create", &create), ("multi of 8", &multi)] {
        let mut out = Vec::with_capacity(4096);
        group.bench_function(format!("write {name}"), |b| {
            b.iter(|| {
                out.clear();
                write_txn(&header, black_box(txn), digest, &mut out);
                black_box(out.len());
            });
        });
        // Reading makes a transaction that owns its parts: what a recovery and a follower pay, not a request.
        group.bench_function(format!("read {name}"), |b| b.iter(|| black_box(read_txn(black_box(&out)).unwrap())));
    }
    group.finish();
}

criterion_group!(benches, requests, replies, transactions);
criterion_main!(benches);
