//! What a read finds, what a transaction changes and what a snapshot copies, in a tree of 200,000 znodes with paths of
//! 115 bytes. Answers: is a look-up a fraction of a microsecond, is an apply near one, how long is a listing of 100,000
//! children, how much does a slice of a snapshot take of the guard's 100 microseconds?

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ostler::ids::{SessionId, Zxid};
use ostler::random::Rng;
use ostler::tree::{Applied, Progress, Tree, TreeOptions};
use ostler::wire::OpCode;
use ostler::wire::txn::{Acl, NodeKind, Txn, TxnHeader};
use std::hint::black_box;

const PARENTS: u64 = 20;
const LEAVES: u64 = 10_000;

fn header(tree: &Tree) -> TxnHeader {
    TxnHeader { session: SessionId(1), cxid: 1, zxid: Zxid(tree.zxid().0 + 1), time: 1_700_000_000_000 }
}

fn create(path: String, kind: NodeKind) -> Txn {
    let (data, acl) = (Some(vec![b'x'; 46]), vec![Acl::world(Acl::ALL)]);
    Txn::Create { op: OpCode::Create, path, data, acl: acl.into(), kind, parent_cversion: -1 }
}

fn parent_path(parent: u64) -> String {
    format!("/{:029}/{:029}/{parent:029}", 0, 0)
}

fn leaf_path(parent: u64, leaf: u64) -> String {
    format!("{}/{leaf:024}", parent_path(parent))
}

fn grown() -> Tree {
    let mut tree = Tree::new(TreeOptions::default());
    let mut out = Applied::default();
    let mut apply = |path| {
        let header = header(&tree);
        tree.apply(&header, create(path, NodeKind::Persistent), &mut out);
        out.clear();
    };
    apply(format!("/{:029}", 0));
    apply(format!("/{:029}/{:029}", 0, 0));
    for parent in 0..PARENTS {
        apply(parent_path(parent));
        (0..LEAVES).for_each(|leaf| apply(leaf_path(parent, leaf)));
    }
    apply("/many".to_owned());
    (0..100_000).for_each(|child| apply(format!("/many/{child:024}")));
    tree
}

fn reads(c: &mut Criterion) {
    let tree = grown();
    let mut rng = Rng::new(1);
    let paths: Vec<String> = (0..4096).map(|_| leaf_path(rng.below(PARENTS), rng.below(LEAVES))).collect();
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % paths.len();
        &paths[at]
    };
    let mut group = c.benchmark_group("tree");
    group.bench_function("look up a path of 115 bytes, get data and stat", |b| {
        b.iter(|| {
            let node = tree.lookup(next()).unwrap();
            black_box((node.data(), node.stat()))
        });
    });
    group
        .bench_function("look up a path that isn't there", |b| b.iter(|| black_box(tree.lookup("/a/b/c/d").is_none())));
    let mut names = Vec::new();
    group.bench_function("encode the names of 100,000 children", |b| {
        b.iter(|| {
            names.clear();
            assert!(tree.lookup("/many").unwrap().encode_children(&mut names, usize::MAX));
            black_box(names.len())
        });
    });
    group.bench_function("number of all descendants", |b| b.iter(|| black_box(tree.all_children_number("/"))));
    group.finish();
}

fn applies(c: &mut Criterion) {
    let mut tree = grown();
    let mut out = Applied::default();
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(1));
    let mut at = 0u64;
    let mut rng = Rng::new(2);
    group.bench_function("setData, same length", |b| {
        b.iter_batched(
            || {
                let path = leaf_path(rng.below(PARENTS), rng.below(LEAVES));
                Txn::SetData { op: OpCode::SetData, path, data: Some(vec![b'y'; 46]), version: 1 }
            },
            |txn| {
                out.clear();
                let header = header(&tree);
                tree.apply(&header, txn, &mut out);
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("create and delete", |b| {
        b.iter_batched(
            || {
                at += 1;
                let path = format!("{}/new{at:020}", parent_path(at % PARENTS));
                (create(path.clone(), NodeKind::Ephemeral), Txn::Delete { op: OpCode::Delete, path })
            },
            |(create, delete)| {
                for txn in [create, delete] {
                    out.clear();
                    let header = header(&tree);
                    tree.apply(&header, txn, &mut out);
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn freezes(c: &mut Criterion) {
    let tree = grown();
    let mut group = c.benchmark_group("freeze");
    let mut slice = Vec::new();
    tree.begin_freeze();
    group.throughput(Throughput::Bytes(64 << 10));
    group.bench_function("one slice of 64 KiB", |b| {
        b.iter(|| {
            slice.clear();
            if tree.read_frozen(64 << 10, &mut slice) == Progress::Done {
                tree.end_freeze();
                tree.begin_freeze();
            }
        });
    });
    group.finish();
}

criterion_group!(benches, reads, applies, freezes);
criterion_main!(benches);
