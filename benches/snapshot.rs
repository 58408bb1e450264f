//! How long a server of 300,000 znodes takes to write its snapshot and, what an operator waits for, to load it; on one
//! thread and on two.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ostler::disk::RealDisk;
use ostler::ids::{SessionId, Zxid};
use ostler::snapshot::{SnapshotWriter, load, snapshot_path, verify};
use ostler::tree::{Applied, Progress, Tree, TreeOptions};
use ostler::wire::OpCode;
use ostler::wire::txn::{Acl, NodeKind, Txn, TxnHeader};
use std::path::Path;

fn grown() -> Tree {
    let mut tree = Tree::new(TreeOptions::default());
    let mut out = Applied::default();
    let mut apply = |path: String| {
        let zxid = Zxid(tree.zxid().0 + 1);
        let header = TxnHeader { session: SessionId(1), cxid: 1, zxid, time: 1_700_000_000_000 };
        let (data, acl, kind) = (Some(vec![b'x'; 46]), vec![Acl::world(Acl::ALL)], NodeKind::Persistent);
        tree.apply(
            &header,
            Txn::Create { op: OpCode::Create, path, data, acl: acl.into(), kind, parent_cversion: -1 },
            &mut out,
        );
        out.clear();
    };
    apply(format!("/{:059}", 0));
    for parent in 0..30 {
        let parent = format!("/{:059}/{parent:029}", 0);
        apply(parent.clone());
        (0..10_000).for_each(|leaf| apply(format!("{parent}/{leaf:024}")));
    }
    tree
}

fn write(tree: &Tree, dir: &Path) {
    let mut writer = SnapshotWriter::begin(RealDisk, dir, tree.begin_freeze(), &[]).unwrap();
    while writer.take(tree) == Progress::More {
        writer.store().unwrap();
    }
    writer.store().unwrap();
    writer.finish().unwrap();
}

fn snapshots(c: &mut Criterion) {
    let tree = grown();
    let dir = tempfile::tempdir().unwrap();
    write(&tree, dir.path());
    let path = snapshot_path(dir.path(), tree.zxid());
    let mut group = c.benchmark_group("snapshot");
    group.sample_size(10);
    group.throughput(Throughput::Elements(tree.node_count() as u64));
    group.bench_function("write", |b| b.iter(|| write(&tree, dir.path())));
    for threads in [1, 2] {
        let load = || load(&RealDisk, &path, TreeOptions::default(), threads).unwrap().tree;
        group.bench_function(format!("load on {threads}"), |b| b.iter_with_large_drop(load));
    }
    group.bench_function("verify", |b| b.iter(|| verify(&RealDisk, &path).unwrap()));
    group.finish();
}

criterion_group!(benches, snapshots);
criterion_main!(benches);
