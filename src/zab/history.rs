//! The newest part of this server's history, in memory: what a learner that was away for a moment is brought up with.
//!
//! A contiguous run of records from just after `base` to `last`. Every record that goes to the log passes through here, by
//! whatever path it came, so the run has no hole (fault model R4) and a learner's last zxid can be looked for as an
//! *entry*, not compared as a number (R3). What was durable and committed before `base` is in the log and in snapshots only.
//!
//! Bounded: when it holds more than its limits, its oldest chunk goes, unless a learner's snapshot is under way that needs
//! what follows it, or would be with what is not applied yet (`pin`); a pin delays that by four times the limit at most.
//!
//! Runs wherever its owner runs: pure memory.

use crate::ids::Zxid;
use std::collections::VecDeque;

/// Records are kept in chunks of about so many bytes, so that none has an allocation of its own.
const CHUNK_BYTES: usize = 256 << 10;

struct Chunk {
    bytes: Vec<u8>,
    /// Zxid and where its record begins; it ends where the next one begins.
    entries: Vec<(Zxid, u32)>,
}

impl Chunk {
    /// Its records from entry number `at` on.
    fn records(&self, at: usize) -> impl Iterator<Item = (Zxid, &[u8])> {
        (at..self.entries.len()).map(|at| {
            let (zxid, start) = self.entries[at];
            let end = self.entries.get(at + 1).map_or(self.bytes.len(), |&(_, start)| start as usize);
            (zxid, &self.bytes[start as usize..end])
        })
    }
}

/// The run of records. `base <= last`; equal when it is empty.
pub struct History {
    chunks: VecDeque<Chunk>,
    base: Zxid,
    last: Zxid,
    bytes: usize,
    limit: usize,
    pin: Option<Zxid>,
    /// A chunk to be used again.
    spare: Option<Chunk>,
}

/// Whether `next` may stand behind `last` (R4): the next of the same epoch, or the first of a later one.
///
/// (e, 0) is never a transaction, but a snapshot of a leader that has just begun can end there.
pub fn follows(last: Zxid, next: Zxid) -> bool {
    Some(next) == last.next() || (next.epoch() > last.epoch() && next.counter() == 1)
}

impl History {
    /// An empty run behind `base`. `limit` is in bytes of records.
    pub fn new(base: Zxid, limit: usize) -> History {
        History { chunks: VecDeque::new(), base, last: base, bytes: 0, limit, pin: None, spare: None }
    }

    /// Everything at and before this is not here; it is the zxid of the record (or the snapshot) that the run follows.
    pub fn base(&self) -> Zxid {
        self.base
    }

    pub fn last(&self) -> Zxid {
        self.last
    }

    /// Bytes of records held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the next record. Panics on a hole: it must never get this far.
    pub fn push(&mut self, zxid: Zxid, record: &[u8]) {
        assert!(follows(self.last, zxid), "{zxid} does not follow {}", self.last);
        // The oldest one goes as a whole: of a small history it must not be most of it.
        let most = CHUNK_BYTES.min(self.limit / 4);
        let full = self.chunks.back().is_none_or(|chunk| chunk.bytes.len() + record.len() > most);
        if full {
            let chunk = self.spare.take().unwrap_or_else(|| Chunk { bytes: Vec::new(), entries: Vec::new() });
            self.chunks.push_back(chunk);
        }
        let chunk = self.chunks.back_mut().expect("just looked");
        chunk.entries.push((zxid, chunk.bytes.len() as u32));
        chunk.bytes.extend_from_slice(record);
        self.bytes += record.len();
        self.last = zxid;
        self.shrink();
    }

    /// Adds a leader's next record on a server that has applied everything up to `applied`. What is not applied yet stays: if
    /// this server leads next, a snapshot of its tree is of use only with all that follows it, and without a quorum the tree
    /// stays where it is, so no later snapshot would be better.
    pub fn push_behind(&mut self, zxid: Zxid, record: &[u8], applied: Zxid) {
        self.pin(Some(applied));
        self.push(zxid, record);
    }

    fn shrink(&mut self) {
        while self.chunks.len() > 1 && self.bytes > self.limit {
            let (end, _) = *self.chunks[0].entries.last().expect("a chunk has an entry");
            // What comes after the pin stays, within reason.
            if self.pin.is_some_and(|pin| end > pin) && self.bytes <= 4 * self.limit {
                return;
            }
            let mut chunk = self.chunks.pop_front().expect("more than one");
            self.bytes -= chunk.bytes.len();
            self.base = end;
            chunk.bytes.clear();
            chunk.entries.clear();
            chunk.bytes.shrink_to(CHUNK_BYTES);
            self.spare = Some(chunk);
        }
    }

    /// What follows this zxid is kept (`None`: nothing in particular).
    pub fn pin(&mut self, after: Option<Zxid>) {
        self.pin = after;
    }

    /// Whether what follows `zxid` is here, whole: `zxid` is an entry, or the base.
    pub fn contains(&self, zxid: Zxid) -> bool {
        zxid == self.base || self.largest_up_to(zxid) == Some(zxid)
    }

    /// The largest entry (or the base) at or below `zxid`; `None` if even the base is above it.
    pub fn largest_up_to(&self, zxid: Zxid) -> Option<Zxid> {
        if zxid < self.base {
            return None;
        }
        let chunk = self.chunks.partition_point(|chunk| chunk.entries[0].0 <= zxid);
        if chunk == 0 {
            return Some(self.base);
        }
        let entries = &self.chunks[chunk - 1].entries;
        let at = entries.partition_point(|&(entry, _)| entry <= zxid);
        Some(entries[at - 1].0)
    }

    /// Records behind `after` up to and with `up_to`, in order. What `after` is need not be an entry.
    pub fn between(&self, after: Zxid, up_to: Zxid) -> impl Iterator<Item = (Zxid, &[u8])> {
        let first = self.chunks.partition_point(|chunk| chunk.entries.last().is_none_or(|&(last, _)| last <= after));
        let mut chunks = self.chunks.range(first..);
        // The first one is searched, not walked through: a leader asks this for each group of commits and each learner.
        let begin = chunks.next().map(|chunk| {
            let at = chunk.entries.partition_point(|&(entry, _)| entry <= after);
            chunk.records(at)
        });
        let rest = chunks.flat_map(|chunk| chunk.records(0));
        begin.into_iter().flatten().chain(rest).take_while(move |&(zxid, _)| zxid <= up_to)
    }

    /// Forgets every record after `zxid`, which is an entry or the base.
    pub fn truncate(&mut self, zxid: Zxid) {
        assert!(self.contains(zxid), "{zxid} is not in this history");
        while let Some(chunk) = self.chunks.back_mut() {
            let keep = chunk.entries.partition_point(|&(entry, _)| entry <= zxid);
            if keep == chunk.entries.len() {
                break;
            }
            let end = chunk.entries[keep].1 as usize;
            self.bytes -= chunk.bytes.len() - end;
            chunk.entries.truncate(keep);
            chunk.bytes.truncate(end);
            if keep > 0 {
                break;
            }
            self.chunks.pop_back();
        }
        self.last = zxid;
    }

    /// Begins anew behind `base`: the history before it has been replaced.
    pub fn reset(&mut self, base: Zxid) {
        *self = History::new(base, self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;
    use crate::random::Rng;

    fn z(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn all(history: &History) -> Vec<(Zxid, Vec<u8>)> {
        history.between(Zxid::ZERO, Zxid(u64::MAX)).map(|(zxid, record)| (zxid, record.to_vec())).collect()
    }

    #[test]
    fn a_zxid_is_found_as_an_entry_and_not_by_its_size() {
        let mut history = History::new(z(1, 4), 1 << 20);
        for zxid in [z(1, 5), z(1, 6), z(3, 1)] {
            history.push(zxid, b"record");
        }
        for (zxid, is_in) in [(z(1, 4), true), (z(1, 6), true), (z(2, 1), false), (z(3, 1), true), (z(1, 3), false)] {
            assert_eq!(history.contains(zxid), is_in, "{zxid}");
        }
        assert_eq!(history.largest_up_to(z(2, 1)), Some(z(1, 6)));
        assert_eq!(history.largest_up_to(z(1, 3)), None);
        assert_eq!(history.between(z(2, 9), z(3, 9)).map(|(zxid, _)| zxid).collect::<Vec<_>>(), [z(3, 1)]);
    }

    #[test]
    #[should_panic(expected = "does not follow")]
    fn a_hole_is_refused() {
        let mut history = History::new(z(1, 4), 1 << 20);
        history.push(z(1, 6), b"");
    }

    #[test]
    fn it_behaves_like_a_list_that_forgets_its_oldest() {
        let mut rng = Rng::new(7);
        for _ in 0..50 {
            let mut history = History::new(z(1, 0), 1 << 20);
            let mut model: Vec<(Zxid, Vec<u8>)> = Vec::new();
            let mut last = z(1, 0);
            for _ in 0..200 {
                match rng.below(20) {
                    0 => {
                        let at = model.len() * rng.below(100) as usize / 100;
                        let to = if at == 0 { history.base() } else { model[at - 1].0 };
                        if history.contains(to) {
                            history.truncate(to);
                            model.truncate(at);
                            last = to;
                        }
                    }
                    n => {
                        last = if n == 1 { z(last.epoch().0 + 1, 1) } else { last.next().unwrap() };
                        let record = vec![n as u8; rng.below(60_000) as usize];
                        history.push(last, &record);
                        model.push((last, record));
                    }
                }
                let forgotten = model.iter().take_while(|(zxid, _)| *zxid <= history.base()).count();
                model.drain(..forgotten);
                assert!(history.bytes() <= (1 << 20) + CHUNK_BYTES);
                assert_eq!(history.last(), last);
                assert_eq!(history.bytes(), model.iter().map(|(_, record)| record.len()).sum::<usize>());
            }
            assert_eq!(all(&history), model);
        }
    }

    #[test]
    fn a_pin_keeps_what_follows_it_for_a_while() {
        let mut history = History::new(z(1, 0), 1 << 20);
        history.pin(Some(z(1, 1)));
        let record = vec![0; 100_000];
        for counter in 1..=30 {
            history.push(z(1, counter), &record);
        }
        assert!(history.base() <= z(1, 1), "{}", history.base());
        for counter in 31..=90 {
            history.push(z(1, counter), &record);
        }
        assert!(history.base() > z(1, 1), "a pin does not hold more than four times the limit");
    }
}
