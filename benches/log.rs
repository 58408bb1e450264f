//! What the log costs: storing a group, and making it durable.
//!
//! Informs: how large a share of a write is the log's own work (`append`: copies, checksums) next to the sync that it
//! shares with its group; and by which way a group gets into a mapped segment and onto the disk (`sync/*`: stored into
//! the mapping, then `fdatasync` or `msync`; or one `pwritev2` with `RWF_DSYNC`, through the page cache or past it in whole
//! blocks, whose bytes the mapping shows as well). A
//! different ranking, on a file system that someone deploys on, would change `disk::mapped`. `recover` bounds how
//! long a restart takes for a full segment.
//!
//! `OSTLER_BENCH_DIR` names the directory, which should be on the disk that is meant; default: the temporary one.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ostler::disk::RealDisk;
use ostler::ids::Zxid;
use ostler::log::{Batch, Log, Recovery, Sizes};
use std::hint::black_box;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

const SIZES: Sizes = Sizes { first: 64 << 20, segment: 64 << 20 };
const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits() as i32;
/// Bytes of a setData transaction with 100 bytes of data.
const BODY: usize = 180;

fn directory() -> tempfile::TempDir {
    match std::env::var_os("OSTLER_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).expect("a directory"),
        None => tempfile::tempdir().expect("a directory"),
    }
}

fn open(dir: &tempfile::TempDir) -> Log<RealDisk> {
    let recovery = Recovery::open(RealDisk, dir.path(), Zxid::ZERO, SIZES).expect("a log");
    recovery.finish().expect("a log")
}

fn fill(batch: &mut Batch, after: Zxid, count: u64) {
    batch.clear();
    for i in 1..=count {
        batch.push(Zxid(after.0 + i), &[i as u8; BODY]);
    }
}

/// Keeps the bench's own files few: everything before the live segment goes.
fn tidy(log: &mut Log<RealDisk>) {
    if log.segments() > 2 {
        log.purge(log.last_zxid()).run().expect("purged");
    }
}

fn groups(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_and_sync");
    for count in [1, 16, 256] {
        let dir = directory();
        let mut log = open(&dir);
        let mut batch = Batch::new();
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                fill(&mut batch, log.last_zxid(), count);
                log.append(&batch).expect("appended");
                black_box(log.sync().expect("synced"));
                tidy(&mut log);
            });
        });
    }
    group.finish();
}

/// On a file system in memory the sync costs nothing: what is left is the log's own work.
fn own_work(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_in_memory");
    for count in [1, 16, 256] {
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
        let mut log = open(&dir);
        let mut batch = Batch::new();
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                fill(&mut batch, log.last_zxid(), count);
                log.append(&batch).expect("appended");
                black_box(log.sync().expect("synced"));
                tidy(&mut log);
            });
        });
    }
    group.finish();
}

fn system_calls(c: &mut Criterion) {
    let dir = directory();
    let path = dir.path().join("segment");
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
    let bytes = 64 << 20;
    for at in (0..bytes).step_by(1 << 18) {
        file.write_all_at(&[0; 1 << 18], at).expect("room");
    }
    file.sync_all().expect("synced");
    let mut map = OwnMap(memmap2::MmapRaw::map_raw(&file).expect("a map"), 0);
    for size in [200, 16_000, 160_000] {
        let group_bytes = vec![7; size];
        let mut group = c.benchmark_group(format!("sync_{size}"));
        group.bench_function("store_fdatasync", |b| {
            b.iter(|| {
                map.store(&group_bytes);
                file.sync_data().expect("synced");
            });
        });
        group.bench_function("store_msync", |b| {
            b.iter(|| {
                let at = map.store(&group_bytes);
                map.0.flush_range(at, size).expect("synced");
            });
        });
        group.bench_function("pwritev2_dsync", |b| {
            b.iter(|| {
                let at = map.next(size) as u64;
                let written = rustix::io::pwritev2(
                    &file,
                    &[std::io::IoSlice::new(&group_bytes)],
                    at,
                    rustix::io::ReadWriteFlags::DSYNC,
                );
                assert_eq!(written.expect("written"), size);
            });
        });
        let blocks = memmap2::MmapMut::map_anon(size.next_multiple_of(4096) + 4096).expect("memory");
        let direct = std::fs::File::options().write(true).custom_flags(O_DIRECT).open(&path).expect("O_DIRECT");
        group.bench_function("pwritev2_dsync_direct", |b| {
            b.iter(|| {
                let at = map.next(size);
                // The block in which the last group ended is written again.
                let (from, to) = (at & !4095, (at + size).next_multiple_of(4096));
                let written = rustix::io::pwritev2(
                    &direct,
                    &[std::io::IoSlice::new(&blocks[..to - from])],
                    from as u64,
                    rustix::io::ReadWriteFlags::DSYNC,
                );
                assert_eq!(written.expect("written"), to - from);
            });
        });
        group.finish();
    }
}

/// A mapping, and where the next group goes.
struct OwnMap(memmap2::MmapRaw, usize);

impl OwnMap {
    fn next(&mut self, size: usize) -> usize {
        if self.1 + size > self.0.len() {
            self.1 = 0;
        }
        self.1 += size;
        self.1 - size
    }

    #[expect(unsafe_code, reason = "what is measured is a store into a file's mapping")]
    fn store(&mut self, bytes: &[u8]) -> usize {
        let at = self.next(bytes.len());
        // SAFETY: `next` keeps `at..at + len` inside the mapping, to which nobody holds a reference.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.as_mut_ptr().add(at), bytes.len()) };
        at
    }
}

fn recover(c: &mut Criterion) {
    let dir = directory();
    let mut log = open(&dir);
    let mut batch = Batch::new();
    for _ in 0..1000 {
        fill(&mut batch, log.last_zxid(), 200);
        log.append(&batch).expect("appended");
        log.sync().expect("synced");
    }
    drop(log);
    let mut group = c.benchmark_group("recover");
    group.sample_size(10);
    group.throughput(Throughput::Elements(200_000));
    group.bench_function("200000_records", |b| {
        b.iter(|| {
            let mut recovery = Recovery::open(RealDisk, dir.path(), Zxid::ZERO, SIZES).expect("a log");
            let mut bytes = 0;
            while let Some((_, body)) = recovery.next().expect("a good log") {
                bytes += body.len();
            }
            black_box((bytes, recovery.finish().expect("a good log").durable()))
        });
    });
    group.finish();
}

criterion_group!(benches, groups, own_work, system_calls, recover);
criterion_main!(benches);
