//! Counters and summaries under the names that dashboards know from ZooKeeper.
//!
//! Every request touches some, so they may not cost a contended cache line, nor an atomic read-modify-write. Each
//! thread that counts has a `Recorder` of its own; only it writes there, with plain relaxed stores, and whoever asks
//! adds up all of them. Setting back (`srst`) can't write into another thread's counters without such costs either:
//! it raises a generation that each recorder notices at its next count, and clears itself; until then its numbers are
//! of an old generation and count as nothing.
//!
//! All of ZooKeeper's names are here, also those of parts that this server doesn't have: an alert on a name that went
//! missing fires, an alert on a zero doesn't. What a thread knows best when asked (nodes, watches, connections) is not
//! counted here; it is in `admin::status`.
//!
//! Promises: no lock, no allocation after the start; a sum read while others count is a sum of some moment's values for
//! each of them. Runs on: all threads.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

mod names;

pub use names::{Counter, Summary};

/// A summary's buckets: 0 to 7 by themselves, then four for each power of two up to 2^32, the last one beyond.
const BUCKETS: usize = 124;

/// All metrics of a server.
pub struct Metrics {
    shards: Box<[Shard]>,
    generation: AtomicU32,
}

/// The right to count in one shard. One for each thread; it can be given to a thread and not shared by two.
pub struct Recorder {
    metrics: Arc<Metrics>,
    shard: usize,
    not_shared: PhantomData<Cell<()>>,
}

/// Its own cache lines, so that neighbours don't slow each other down.
#[repr(align(128))]
struct Shard {
    generation: AtomicU32,
    packets_received: AtomicU64,
    packets_sent: AtomicU64,
    request_latency: Cells,
    response_size: Cells,
    response_size_last: AtomicI64,
    response_size_last_ms: AtomicU64,
    counters: [AtomicU64; Counter::COUNT],
    summaries: [Cells; Summary::COUNT],
    /// One row for each of `Summary::WITH_PERCENTILES`.
    buckets: Box<[[AtomicU64; BUCKETS]]>,
}

struct Cells {
    count: AtomicU64,
    sum: AtomicU64,
    /// `u64::MAX` while the count is 0.
    min: AtomicU64,
    max: AtomicU64,
}

/// Count, sum and bounds of what was observed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Totals {
    pub count: u64,
    pub sum: u64,
    min: u64,
    pub max: u64,
}

impl Default for Totals {
    fn default() -> Totals {
        Totals { count: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl Totals {
    /// Adds `times` observations of one value.
    pub fn observe(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        self.count += times;
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    pub fn merge(&mut self, other: Totals) {
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// 0 when nothing was observed, as ZooKeeper has it.
    pub fn min(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// 0 when nothing was observed.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The mean cut to an integer, as `cons` prints it.
    pub fn mean_cut(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }
}

/// Sizes of replies in bytes; -1 when there was none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResponseSizes {
    pub last: i64,
    pub min: i64,
    pub max: i64,
}

impl Metrics {
    /// Metrics with `recorders` threads that count.
    pub fn new(recorders: usize) -> (Arc<Metrics>, Vec<Recorder>) {
        let shards = (0..recorders).map(|_| Shard::new()).collect();
        let metrics = Arc::new(Metrics { shards, generation: AtomicU32::new(0) });
        let recorder = |shard| Recorder { metrics: metrics.clone(), shard, not_shared: PhantomData };
        let all = (0..recorders).map(recorder).collect();
        (metrics, all)
    }

    /// Sets everything back to nothing, as `srst` does. Takes effect for readers at once.
    pub fn reset(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn current(&self) -> impl Iterator<Item = &Shard> {
        let generation = self.generation.load(Ordering::Relaxed);
        // Acquire: a shard of this generation shows its cleared cells and not older ones.
        self.shards.iter().filter(move |shard| shard.generation.load(Ordering::Acquire) == generation)
    }

    pub fn packets_received(&self) -> u64 {
        self.current().map(|shard| shard.packets_received.load(Ordering::Relaxed)).sum()
    }

    pub fn packets_sent(&self) -> u64 {
        self.current().map(|shard| shard.packets_sent.load(Ordering::Relaxed)).sum()
    }

    /// Milliseconds from a request's arrival to its reply; what `srvr` prints.
    pub fn request_latency(&self) -> Totals {
        self.merged(|shard| &shard.request_latency)
    }

    pub fn response_sizes(&self) -> ResponseSizes {
        let totals = self.merged(|shard| &shard.response_size);
        if totals.count == 0 {
            return ResponseSizes { last: -1, min: -1, max: -1 };
        }
        let latest = self.current().max_by_key(|shard| shard.response_size_last_ms.load(Ordering::Relaxed));
        let last = latest.map_or(-1, |shard| shard.response_size_last.load(Ordering::Relaxed));
        ResponseSizes { last, min: totals.min() as i64, max: totals.max as i64 }
    }

    pub fn counter(&self, counter: Counter) -> u64 {
        self.current().map(|shard| shard.counters[counter as usize].load(Ordering::Relaxed)).sum()
    }

    pub fn summary(&self, summary: Summary) -> Totals {
        self.merged(|shard| &shard.summaries[summary as usize])
    }

    /// The values below which these shares of the observations lie, rounded down to a bucket (12 to 25 percent wide).
    /// Zeros for a summary that keeps no percentiles.
    pub fn percentiles<const N: usize>(&self, summary: Summary, shares: [f64; N]) -> [u64; N] {
        let Some(row) = summary.percentile_row() else { return [0; N] };
        let mut counts = [0u64; BUCKETS];
        for shard in self.current() {
            for (count, cell) in counts.iter_mut().zip(&shard.buckets[row]) {
                *count += cell.load(Ordering::Relaxed);
            }
        }
        let total: u64 = counts.iter().sum();
        let bounds = self.summary(summary);
        shares.map(|share| {
            let rank = (total as f64 * share).ceil() as u64;
            let mut below = 0;
            for (bucket, count) in counts.iter().enumerate() {
                below += count;
                if below >= rank && *count > 0 {
                    return bucket_floor(bucket).max(bounds.min()).min(bounds.max);
                }
            }
            0
        })
    }

    fn merged(&self, cells: impl Fn(&Shard) -> &Cells) -> Totals {
        let mut totals = Totals::default();
        for shard in self.current() {
            totals.merge(cells(shard).load());
        }
        totals
    }
}

impl Recorder {
    #[inline]
    pub fn packets_received(&self, packets: u64) {
        bump(&self.shard().packets_received, packets);
    }

    #[inline]
    pub fn packets_sent(&self, packets: u64) {
        bump(&self.shard().packets_sent, packets);
    }

    /// `requests` requests were answered, each `ms` milliseconds after its arrival.
    #[inline]
    pub fn request_latency(&self, ms: u64, requests: u64) {
        self.shard().request_latency.observe(ms, requests);
    }

    /// A reply of `bytes` bytes was encoded at `now_ms` (monotonic; only decides whose reply was the last).
    #[inline]
    pub fn response_size(&self, bytes: u64, now_ms: u64) {
        let shard = self.shard();
        shard.response_size.observe(bytes, 1);
        shard.response_size_last.store(bytes as i64, Ordering::Relaxed);
        shard.response_size_last_ms.store(now_ms, Ordering::Relaxed);
    }

    #[inline]
    pub fn count(&self, counter: Counter, by: u64) {
        bump(&self.shard().counters[counter as usize], by);
    }

    /// Adds `times` observations of one value. Units are in the summary's name, milliseconds where there are none.
    #[inline]
    pub fn observe(&self, summary: Summary, value: u64, times: u64) {
        let shard = self.shard();
        shard.summaries[summary as usize].observe(value, times);
        if let Some(row) = summary.percentile_row() {
            bump(&shard.buckets[row][bucket_of(value)], times);
        }
    }

    /// All metrics, to read.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The shard, cleared if it is of an old generation.
    #[inline]
    fn shard(&self) -> &Shard {
        let shard = &self.metrics.shards[self.shard];
        let generation = self.metrics.generation.load(Ordering::Relaxed);
        if shard.generation.load(Ordering::Relaxed) != generation {
            shard.clear();
            shard.generation.store(generation, Ordering::Release);
        }
        shard
    }
}

/// Only a shard's recorder writes to it, so a load and a store are as good as an addition, and much cheaper.
#[inline]
fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl Shard {
    fn new() -> Shard {
        let row = || std::array::from_fn(|_| AtomicU64::new(0));
        Shard {
            generation: AtomicU32::new(0),
            packets_received: AtomicU64::new(0),
            packets_sent: AtomicU64::new(0),
            request_latency: Cells::new(),
            response_size: Cells::new(),
            response_size_last: AtomicI64::new(-1),
            response_size_last_ms: AtomicU64::new(0),
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
            summaries: std::array::from_fn(|_| Cells::new()),
            buckets: (0..Summary::WITH_PERCENTILES).map(|_| row()).collect(),
        }
    }

    fn clear(&self) {
        self.packets_received.store(0, Ordering::Relaxed);
        self.packets_sent.store(0, Ordering::Relaxed);
        self.request_latency.clear();
        self.response_size.clear();
        self.response_size_last.store(-1, Ordering::Relaxed);
        self.response_size_last_ms.store(0, Ordering::Relaxed);
        self.counters.iter().for_each(|cell| cell.store(0, Ordering::Relaxed));
        self.summaries.iter().for_each(Cells::clear);
        self.buckets.iter().flatten().for_each(|cell| cell.store(0, Ordering::Relaxed));
    }
}

impl Cells {
    fn new() -> Cells {
        let zero = || AtomicU64::new(0);
        Cells { count: zero(), sum: zero(), min: AtomicU64::new(u64::MAX), max: zero() }
    }

    #[inline]
    fn observe(&self, value: u64, times: u64) {
        let mut totals = self.load();
        totals.observe(value, times);
        self.store(totals);
    }

    fn clear(&self) {
        self.store(Totals::default());
    }

    fn load(&self) -> Totals {
        Totals {
            count: self.count.load(Ordering::Relaxed),
            sum: self.sum.load(Ordering::Relaxed),
            min: self.min.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
        }
    }

    fn store(&self, totals: Totals) {
        self.count.store(totals.count, Ordering::Relaxed);
        self.sum.store(totals.sum, Ordering::Relaxed);
        self.min.store(totals.min, Ordering::Relaxed);
        self.max.store(totals.max, Ordering::Relaxed);
    }
}

#[inline]
fn bucket_of(value: u64) -> usize {
    if value < 8 {
        return value as usize;
    }
    let power = value.ilog2() as usize;
    let quarter = (value >> (power - 2)) as usize & 3;
    (8 + (power - 3) * 4 + quarter).min(BUCKETS - 1)
}

/// The smallest value of a bucket.
fn bucket_floor(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let (power, quarter) = ((bucket - 8) / 4 + 3, (bucket - 8) % 4);
    (4 + quarter as u64) << (power - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorders_are_added_up() {
        let (metrics, recorders) = Metrics::new(2);
        recorders[0].packets_received(3);
        recorders[1].packets_received(4);
        recorders[0].request_latency(2, 3);
        recorders[1].request_latency(6, 1);
        recorders[1].count(Counter::BytesReceivedCount, 10);
        assert_eq!(metrics.packets_received(), 7);
        assert_eq!(metrics.counter(Counter::BytesReceivedCount), 10);
        let latency = metrics.request_latency();
        assert_eq!((latency.min(), latency.mean(), latency.max, latency.count), (2, 3.0, 6, 4));
    }

    #[test]
    fn nothing_observed_reads_as_zeros() {
        let (metrics, _recorders) = Metrics::new(1);
        let latency = metrics.request_latency();
        assert_eq!((latency.min(), latency.mean(), latency.mean_cut(), latency.max), (0, 0.0, 0, 0));
        assert_eq!(metrics.response_sizes(), ResponseSizes { last: -1, min: -1, max: -1 });
        assert_eq!(metrics.percentiles(Summary::Readlatency, [0.5, 0.999]), [0, 0]);
    }

    #[test]
    fn a_reset_shows_at_once_and_counting_begins_anew() {
        let (metrics, recorders) = Metrics::new(2);
        recorders[0].observe(Summary::Readlatency, 9, 5);
        recorders[1].packets_sent(1);
        recorders[0].response_size(100, 1);
        metrics.reset();
        assert_eq!(metrics.summary(Summary::Readlatency), Totals::default());
        assert_eq!(metrics.packets_sent(), 0);
        recorders[0].observe(Summary::Readlatency, 4, 1);
        assert_eq!(metrics.summary(Summary::Readlatency).max, 4);
        assert_eq!(metrics.percentiles(Summary::Readlatency, [0.5]), [4]);
        assert_eq!(metrics.packets_sent(), 0, "the other recorder has not counted since");
        assert_eq!(metrics.response_sizes().last, -1);
    }

    #[test]
    fn the_last_response_size_is_that_of_whoever_was_last() {
        let (metrics, recorders) = Metrics::new(2);
        recorders[1].response_size(50, 2);
        recorders[0].response_size(10, 1);
        assert_eq!(metrics.response_sizes(), ResponseSizes { last: 50, min: 10, max: 50 });
    }

    #[test]
    fn threads_count_while_others_read_and_reset() {
        let (metrics, recorders) = Metrics::new(2);
        std::thread::scope(|scope| {
            for recorder in recorders {
                scope.spawn(move || (0..10_000).for_each(|_| recorder.observe(Summary::Readlatency, 3, 1)));
            }
            for _ in 0..100 {
                let totals = metrics.summary(Summary::Readlatency);
                assert!(totals.count <= 20_000 && totals.max <= 3);
                metrics.percentiles(Summary::Readlatency, [0.5]);
                metrics.reset();
            }
        });
        assert!(metrics.summary(Summary::Readlatency).count <= 20_000);
    }

    #[test]
    fn buckets_cover_all_values_in_order() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(bucket_floor(bucket)), bucket);
            if bucket > 0 {
                assert_eq!(bucket_of(bucket_floor(bucket) - 1), bucket - 1);
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_within_a_bucket_of_the_truth() {
        let (metrics, recorders) = Metrics::new(1);
        for value in 1..=1000 {
            recorders[0].observe(Summary::Updatelatency, value, 1);
        }
        let [p50, p95, p999] = metrics.percentiles(Summary::Updatelatency, [0.5, 0.95, 0.999]);
        assert!((400..=500).contains(&p50), "{p50}");
        assert!((760..=950).contains(&p95), "{p95}");
        assert!((800..=999).contains(&p999), "{p999}");
    }
}
