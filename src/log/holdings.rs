//! Which zxids a log holds, without reading it: within an epoch zxids have no gap, so one run for each epoch says all.
//!
//! A leader asks this when a learner names its last zxid: do I hold exactly that one, which is my largest below it, can I
//! send everything that came after. The answer must come at once and must not be a guess about files.
//!
//! Runs on: any thread.

use super::record::follows;
use crate::ids::Zxid;

/// The records of a log, by zxid.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holdings {
    after: Zxid,
    /// One for each epoch that has records, in order.
    runs: Vec<Run>,
}

/// Records of one epoch, without a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    pub first: Zxid,
    pub last: Zxid,
}

impl Holdings {
    /// Nothing yet, behind `after`.
    pub fn new(after: Zxid) -> Holdings {
        Holdings { after, runs: Vec::new() }
    }

    /// Zxid of the last record before the oldest that is held: that of a snapshot, or what a purge has reached. Everything
    /// that came after it is held.
    pub fn after(&self) -> Zxid {
        self.after
    }

    /// Zxid of the last record; `after` if there is none.
    pub fn last(&self) -> Zxid {
        self.runs.last().map_or(self.after, |run| run.last)
    }

    /// The runs, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Whether exactly this record is held.
    pub fn contains(&self, zxid: Zxid) -> bool {
        self.run_at_most(zxid).is_some_and(|run| zxid <= run.last)
    }

    /// The largest zxid at or below this one that is part of this history: a record, or `after`. `None` if this history
    /// is not known that far back.
    pub fn at_most(&self, zxid: Zxid) -> Option<Zxid> {
        match self.run_at_most(zxid) {
            Some(run) => Some(run.last.min(zxid)),
            None => (zxid >= self.after).then_some(self.after),
        }
    }

    /// Whether everything that came after `from` is held, and `from` is certainly part of this history: a record, or
    /// `after`, or the state in which an epoch begins whose first record is held.
    pub fn reaches(&self, from: Zxid) -> bool {
        let begins_held_epoch = || from.counter() == 0 && from > self.after && self.contains(Zxid(from.0 + 1));
        from == self.after || self.contains(from) || begins_held_epoch()
    }

    /// The last run that begins at or before `zxid`.
    fn run_at_most(&self, zxid: Zxid) -> Option<Run> {
        let later = self.runs.partition_point(|run| run.first <= zxid);
        later.checked_sub(1).map(|index| self.runs[index])
    }

    /// Adds records behind the last one.
    pub(super) fn push(&mut self, run: Run) {
        assert!(follows(self.last(), run.first) && run.first <= run.last, "{run:?} behind {}", self.last());
        assert_eq!(run.first.epoch(), run.last.epoch());
        match self.runs.last_mut() {
            Some(last) if last.last.next() == Some(run.first) => last.last = run.last,
            _ => self.runs.push(run),
        }
    }

    pub(super) fn push_record(&mut self, zxid: Zxid) {
        self.push(Run { first: zxid, last: zxid });
    }

    /// Takes away what is above `to`.
    pub(super) fn truncate(&mut self, to: Zxid) {
        self.runs.retain(|run| run.first <= to);
        if let Some(run) = self.runs.last_mut() {
            run.last = run.last.min(to);
        }
    }

    /// Takes away what is not above `after`.
    pub(super) fn forget(&mut self, after: Zxid) {
        if after <= self.after {
            return;
        }
        self.after = after;
        self.runs.retain(|run| run.last > after);
        if let Some(run) = self.runs.first_mut().filter(|run| run.first <= after) {
            run.first = after.next().expect("the run goes on behind it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;
    use proptest::prelude::*;

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn sample() -> Holdings {
        let mut holdings = Holdings::new(zxid(1, 3));
        for record in [zxid(1, 4), zxid(1, 5), zxid(2, 1), zxid(5, 1), zxid(5, 2)] {
            holdings.push_record(record);
        }
        holdings
    }

    #[test]
    fn a_zxid_is_held_exactly_or_something_below_it_is() {
        let holdings = sample();
        assert_eq!(holdings.runs().len(), 3);
        for held in [zxid(1, 4), zxid(1, 5), zxid(2, 1), zxid(5, 2)] {
            assert!(holdings.contains(held) && holdings.reaches(held));
            assert_eq!(holdings.at_most(held), Some(held));
        }
        let absent = [
            (zxid(1, 2), None),
            (zxid(1, 3), Some(zxid(1, 3))),
            (zxid(1, 6), Some(zxid(1, 5))),
            (zxid(2, 0), Some(zxid(1, 5))),
            (zxid(2, 2), Some(zxid(2, 1))),
            (zxid(4, 9), Some(zxid(2, 1))),
            (zxid(9, 9), Some(zxid(5, 2))),
        ];
        for (zxid, below) in absent {
            assert!(!holdings.contains(zxid), "{zxid}");
            assert_eq!(holdings.at_most(zxid), below, "{zxid}");
        }
        for (epoch, reached) in [(0, false), (1, false), (2, true), (3, false), (4, false), (5, true), (6, false)] {
            assert_eq!(holdings.reaches(zxid(epoch, 0)), reached, "the begin of epoch {epoch}");
        }
        for (place, reached) in [(zxid(1, 2), false), (zxid(1, 3), true), (zxid(1, 6), false), (zxid(2, 2), false)] {
            assert_eq!(holdings.reaches(place), reached, "{place}");
        }
        assert_eq!(Holdings::new(zxid(2, 0)).at_most(zxid(7, 1)), Some(zxid(2, 0)));
    }

    proptest! {
        /// Against a plain list.
        #[test]
        fn any_sequence_of_changes_is_as_a_list_has_it(steps in prop::collection::vec((0u8..8, any::<u32>()), 0..60)) {
            let mut holdings = Holdings::new(Zxid::ZERO);
            let (mut after, mut list) = (Zxid::ZERO, Vec::<Zxid>::new());
            for (what, pick) in steps {
                let last = list.last().copied().unwrap_or(after);
                let some = list.get(pick as usize % list.len().max(1)).copied().unwrap_or(after);
                match what {
                    0 => {
                        holdings.truncate(some);
                        list.retain(|&held| held <= some);
                    }
                    1 => {
                        holdings.forget(some);
                        list.retain(|&held| held > some);
                        after = some;
                    }
                    2 => {
                        list.push(zxid(last.epoch().0 + 1 + pick % 3, 1));
                        holdings.push_record(*list.last().unwrap());
                    }
                    _ => {
                        list.push(last.next().unwrap());
                        holdings.push_record(*list.last().unwrap());
                    }
                }
                prop_assert_eq!(holdings.after(), after);
                prop_assert_eq!(holdings.last(), list.last().copied().unwrap_or(after));
                for epoch in 0..=last.epoch().0 + 2 {
                    for counter in 0..8 {
                        let probe = zxid(epoch, counter);
                        prop_assert_eq!(holdings.contains(probe), list.contains(&probe));
                        let below = list.iter().rfind(|&&held| held <= probe).copied();
                        prop_assert_eq!(holdings.at_most(probe), below.or((probe >= after).then_some(after)));
                    }
                }
            }
        }
    }
}
