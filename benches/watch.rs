//! What watches cost: setting one, firing to a thousand connections, and, most of all, a change that nobody watches.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ostler::watch::{Change, PathHashes, WatchFilter, WatchKind, WatchTable};
use ostler::wire::client::EventKind;
use std::hint::black_box;
use std::sync::Arc;

fn change(kind: EventKind, path: &str, znode: u32) -> Change<'_> {
    Change { kind, path, znode, parent: 0 }
}

fn watches(c: &mut Criterion) {
    let mut group = c.benchmark_group("watch");
    let filter = Arc::new(WatchFilter::new());
    let mut table = WatchTable::new(filter.clone(), usize::MAX);
    let path = |n: u32| format!("/services/some-service/instances/{n:020}");
    for connection in 0..100 {
        (0..100).for_each(|n| {
            table
                .add(connection, &path(connection * 100 + n), Some(connection * 100 + n), WatchKind::Data)
                .expect("room")
        });
    }
    let unwatched = "/services/some-service/other/00000000000000000001";
    group.bench_function("filter: nobody watches", |b| {
        b.iter(|| black_box(filter.might_watch(&PathHashes::new(&change(EventKind::NodeDeleted, unwatched, 1 << 20)))));
    });
    group.bench_function("trigger: nobody watches, among 10,000 watches", |b| {
        b.iter(|| table.trigger(&change(EventKind::NodeDeleted, unwatched, 1 << 20), &mut |_, _, _, _| {}));
    });
    let mut n = 0;
    group.bench_function("set a one-shot watch and fire it", |b| {
        b.iter_batched(
            || {
                n = (n + 1) % 10_000;
                (path(n), n)
            },
            |(path, n)| {
                table.add(1000, &path, Some(n), WatchKind::Data).expect("room");
                let mut told = 0;
                table.trigger(&change(EventKind::NodeDataChanged, &path, n), &mut |_, _, _, _| told += 1);
                told
            },
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(1000));
    group.bench_function("fire to 1000 persistent watches", |b| {
        (0..1000).for_each(|connection| {
            table.add(connection, "/config", Some(20_000), WatchKind::Persistent).expect("room")
        });
        b.iter(|| {
            let mut told = 0;
            table.trigger(&change(EventKind::NodeDataChanged, "/config", 20_000), &mut |_, _, _, _| told += 1);
            assert_eq!(told, 1000);
        });
    });
    group.bench_function("set 1000 one-shot watches and fire them", |b| {
        b.iter(|| {
            (0..1000)
                .for_each(|connection| table.add(connection, "/leader", Some(20_001), WatchKind::Data).expect("room"));
            let mut told = 0;
            table.trigger(&change(EventKind::NodeDeleted, "/leader", 20_001), &mut |_, _, _, _| told += 1);
            assert_eq!(told, 1000);
        });
    });
    group.finish();
}

criterion_group!(benches, watches);
criterion_main!(benches);
