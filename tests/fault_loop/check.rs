//! Judges recorded histories by what ZooKeeper promises: one order of all writes, each session's own order, reads that
//! are exactly the state at their zxid, syncs, nothing acknowledged lost, ephemerals, and silence of minorities.
//!
//! A write whose outcome is unknown may have happened once, at any time after it was sent. Where its value is seen, its
//! place is known; where it isn't, it still may have raised a version, and versions may only have gaps that such writes
//! can fill. The registers that only multis set, all at once, count as one: whoever can tell them apart has seen a part
//! of a multi.
//!
//! Pure: knows no server.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Answer, Asked, Cut, Entry, Expired, FIRST, SINGLE, TOGETHER, Time, appended, register};
use crate::support::client::err;
use crate::support::trees::Tree;

/// What was looked at, for the floor under it.
#[derive(Default, Debug, Clone, Copy)]
pub struct Counts {
    pub acked_writes: u64,
    pub unknown_writes: u64,
    pub reads: u64,
    pub syncs: u64,
    pub multis: u64,
    pub ephemerals: u64,
    pub sessions: u64,
    pub expired: u64,
    /// Answers to clients of servers that were cut off, while they were.
    pub from_minorities: u64,
}

pub struct Run<'a> {
    /// Each client's own in its order.
    pub entries: &'a [Entry],
    pub expired: &'a [Expired],
    pub cuts: &'a [Cut],
    /// What all servers hold at the end.
    pub last: &'a Tree,
    /// After this time without its quorum a server answers nobody.
    pub silence_after: Time,
}

/// Where a register's value came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fact {
    version: i32,
    value: u64,
}

const BAD_VERSION: i32 = -103;
const WRONG_MAX: usize = 20;

pub fn judge(run: &Run) -> (Counts, Vec<String>) {
    let mut judge = Judge { run, counts: Counts::default(), wrong: Vec::new(), by_completion: Vec::new() };
    judge.order();
    judge.sessions();
    for key in 0..=SINGLE {
        judge.register(key);
    }
    judge.appends();
    judge.expiries();
    judge.minorities();
    (judge.counts, judge.wrong)
}

struct Judge<'a> {
    run: &'a Run<'a>,
    counts: Counts,
    wrong: Vec<String>,
    /// Completions of acknowledged writes, and the highest zxid until then.
    by_completion: Vec<(Time, i64)>,
}

/// Takes part in the order of writes.
fn ordered(entry: &Entry) -> Option<(Time, Answer)> {
    entry.answer.filter(|(_, answer)| entry.asked.is_write() && matches!(answer.err, 0 | BAD_VERSION))
}

/// The register that it is about, those that are set together being one.
fn key_of(asked: Asked) -> Option<usize> {
    match asked {
        Asked::Set { key, .. } | Asked::Swap { key, .. } | Asked::Get { key } => Some(key.min(SINGLE)),
        Asked::Multi { .. } => Some(SINGLE),
        _ => None,
    }
}

fn value_of(asked: Asked) -> Option<u64> {
    match asked {
        Asked::Set { value, .. } | Asked::Swap { value, .. } | Asked::Multi { value } => Some(value),
        _ => None,
    }
}

impl Judge<'_> {
    fn wrong(&mut self, text: String) {
        if self.wrong.len() < WRONG_MAX {
            self.wrong.push(text);
        }
    }

    /// The highest zxid of the writes that were acknowledged before this time.
    fn acked_before(&self, time: Time) -> i64 {
        match self.by_completion.partition_point(|(at, _)| *at < time) {
            0 => 0,
            count => self.by_completion[count - 1].1,
        }
    }

    fn order(&mut self) {
        let mut zxids = BTreeMap::new();
        for entry in self.run.entries {
            if entry.asked.is_write() && entry.answer.is_none() {
                self.counts.unknown_writes += 1;
            }
            if let Some((_, answer)) = entry.answer
                && !matches!(answer.err, 0 | err::SESSION_MOVED | err::SESSION_EXPIRED)
                && !matches!((entry.asked, answer.err), (Asked::Swap { .. }, BAD_VERSION))
            {
                self.wrong(format!("an answer that nothing explains: {entry:?}"));
            }
            let Some((completed, answer)) = ordered(entry) else { continue };
            self.counts.acked_writes += 1;
            self.counts.multis += u64::from(matches!(entry.asked, Asked::Multi { .. }));
            self.counts.ephemerals += u64::from(matches!(entry.asked, Asked::Ephemeral { .. }));
            if let Some(other) = zxids.insert(answer.zxid, *entry) {
                self.wrong(format!("two writes with one zxid: {other:?} {entry:?}"));
            }
            self.by_completion.push((completed, answer.zxid));
        }
        self.by_completion.sort_unstable();
        let mut highest = 0;
        for (_, zxid) in &mut self.by_completion {
            highest = highest.max(*zxid);
            *zxid = highest;
        }
        for entry in self.run.entries {
            let Some((_, answer)) = ordered(entry) else { continue };
            let before = self.acked_before(entry.invoked);
            if answer.zxid <= before {
                self.wrong(format!("a write after {before:x} had been acknowledged: {entry:?}"));
            }
        }
    }

    fn sessions(&mut self) {
        let mut seen: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        let mut floors: BTreeMap<i64, i64> = BTreeMap::new();
        let mut cut_short = BTreeSet::new();
        for entry in self.run.entries {
            let Some((_, answer)) = entry.answer else {
                cut_short.insert(entry.connection);
                continue;
            };
            if cut_short.contains(&entry.connection) {
                self.wrong(format!("answered, though one before it was not: {entry:?}"));
            }
            if answer.err == err::SESSION_MOVED || answer.err == err::SESSION_EXPIRED {
                continue;
            }
            let (state, write) = seen.entry(entry.session).or_default();
            let floor = floors.get(&entry.session).copied().unwrap_or(0);
            let (state_before, write_before) = (*state, *write);
            *state = (*state).max(answer.zxid);
            if ordered(entry).is_some() {
                *write = (*write).max(answer.zxid);
            }
            if answer.zxid < state_before || (ordered(entry).is_some() && answer.zxid <= write_before) {
                self.wrong(format!("the session had seen {state_before:x}: {entry:?}"));
            }
            if answer.zxid < floor {
                self.wrong(format!("after a sync everything up to {floor:x} was due: {entry:?}"));
            }
            match entry.asked {
                Asked::Sync => {
                    self.counts.syncs += 1;
                    let due = self.acked_before(entry.invoked);
                    let floor = floors.entry(entry.session).or_default();
                    *floor = (*floor).max(due);
                }
                Asked::Held { .. } => {
                    self.counts.reads += 1;
                    if answer.stat.is_none_or(|stat| stat.owner != entry.session) {
                        self.wrong(format!("an ephemeral of a living session: {entry:?}"));
                    }
                }
                _ => {}
            }
        }
        self.counts.sessions = seen.len() as u64;
    }

    /// One register; `SINGLE` is all that are set together.
    fn register(&mut self, key: usize) {
        let about: Vec<&Entry> = self.run.entries.iter().filter(|entry| key_of(entry.asked) == Some(key)).collect();
        let mut written: BTreeMap<u64, &Entry> = BTreeMap::new();
        let mut facts: BTreeMap<i64, Fact> = BTreeMap::new();
        let mut zxid_of_value: BTreeMap<u64, i64> = BTreeMap::new();
        let mut learn = |judge: &mut Self, zxid: i64, fact: Fact, how: &dyn Fn() -> String| {
            let known = *facts.entry(zxid).or_insert(fact);
            let place = *zxid_of_value.entry(fact.value).or_insert(zxid);
            if known != fact || place != zxid {
                judge.wrong(format!("register {key}: {known:?} at {zxid:x}, the value also at {place:x}: {}", how()));
            }
        };
        for entry in &about {
            let Some(value) = value_of(entry.asked) else { continue };
            written.insert(value, entry);
            if let Some((_, answer)) = entry.answer
                && answer.err == 0
            {
                let version = answer.stat.map_or(-1, |stat| stat.version);
                if answer.stat.is_none_or(|stat| stat.mzxid != answer.zxid) {
                    self.wrong(format!("the Stat of another write: {entry:?}"));
                }
                if let Asked::Swap { version: expected, .. } = entry.asked
                    && version != expected + 1
                {
                    self.wrong(format!("a version that was not the one asked for: {entry:?}"));
                }
                learn(self, answer.zxid, Fact { version, value }, &|| format!("{entry:?}"));
            }
        }
        let reads: Vec<(&Entry, Answer)> = about
            .iter()
            .filter(|entry| matches!(entry.asked, Asked::Get { .. }))
            .filter_map(|entry| entry.answer.filter(|(_, answer)| answer.err == 0).map(|(_, answer)| (*entry, answer)))
            .collect();
        for (entry, answer) in &reads {
            self.counts.reads += 1;
            let Some(stat) = answer.stat else { continue };
            learn(self, stat.mzxid, Fact { version: stat.version, value: answer.value }, &|| format!("{entry:?}"));
        }
        let nodes = if key < SINGLE { key..key + 1 } else { SINGLE..SINGLE + TOGETHER };
        for node in nodes {
            let path = register(node);
            let Some((data, stat)) = self.run.last.get(&path) else {
                self.wrong(format!("{path} is gone"));
                continue;
            };
            let value = String::from_utf8_lossy(data).parse().unwrap_or(u64::MAX);
            learn(self, stat.mzxid, Fact { version: stat.version, value }, &|| format!("{path} at the end"));
        }
        self.unknown(key, &written, &facts);
        for (entry, answer) in &reads {
            let Some(stat) = answer.stat else { continue };
            let newest = facts.range(..=answer.zxid).next_back().map(|(zxid, _)| *zxid);
            if newest != Some(stat.mzxid) {
                self.wrong(format!("not the state at its zxid, where {newest:x?} was the newest: {entry:?}"));
            }
        }
        for entry in &about {
            if let (Asked::Swap { version, .. }, Some((_, answer))) = (entry.asked, entry.answer)
                && answer.err == BAD_VERSION
            {
                let before = facts.range(..answer.zxid).next_back().map(|(_, fact)| fact.version);
                let after = facts.range(answer.zxid..).next().map_or(i32::MAX, |(_, fact)| fact.version);
                if before == Some(version) && after == version + 1 {
                    self.wrong(format!("the version was right: {entry:?}"));
                }
            }
        }
    }

    /// What is known of a register has to be made of what was written, acknowledged or not.
    fn unknown(&mut self, key: usize, written: &BTreeMap<u64, &Entry>, facts: &BTreeMap<i64, Fact>) {
        let seen: BTreeSet<u64> = facts.values().map(|fact| fact.value).collect();
        let unseen =
            |entry: &&&Entry| entry.answer.is_none() && value_of(entry.asked).is_some_and(|v| !seen.contains(&v));
        let unseen = written.values().filter(unseen).count() as i32;
        // Its creation gave it version 0, whether anybody has seen that or not.
        let begins = facts.values().next().is_some_and(|fact| fact.value == FIRST);
        let (mut last_version, mut gaps) = (if begins { -1 } else { 0 }, 0);
        for (zxid, fact) in facts {
            gaps += fact.version - last_version - 1;
            if fact.version <= last_version || gaps > unseen {
                self.wrong(format!(
                    "register {key}: version {} at {zxid:x} after {last_version}; {gaps} writes nobody saw, {unseen} unknown",
                    fact.version
                ));
            }
            last_version = fact.version;
            if fact.value == FIRST {
                continue;
            }
            let Some(entry) = written.get(&fact.value) else {
                self.wrong(format!("register {key}: nobody wrote {}, at {zxid:x}", fact.value));
                continue;
            };
            match entry.answer {
                Some((_, answer)) if answer.err != 0 => self.wrong(format!("seen, though refused: {entry:?}")),
                Some(_) => {}
                None if *zxid <= self.acked_before(entry.invoked) => {
                    self.wrong(format!("at {zxid:x}, before writes that had been acknowledged: {entry:?}"));
                }
                None => {}
            }
        }
    }

    fn appends(&mut self) {
        let mut missing = BTreeSet::new();
        for entry in self.run.entries {
            let Asked::Append { index } = entry.asked else { continue };
            let path = appended(entry.client, index);
            let found = self.run.last.get(&path).map(|(_, stat)| stat.czxid);
            match (entry.answer, found) {
                (Some((_, answer)), Some(czxid)) if answer.err == 0 && czxid == answer.zxid => {}
                (Some((_, answer)), None) if answer.err != 0 => {}
                (Some(_), found) => self.wrong(format!("{path} at the end: {found:x?}: {entry:?}")),
                (None, None) => drop(missing.insert(entry.connection)),
                (None, Some(czxid)) => {
                    if missing.contains(&entry.connection) {
                        self.wrong(format!("it happened, and one sent before it did not: {entry:?}"));
                    }
                    if czxid <= self.acked_before(entry.invoked) {
                        self.wrong(format!("at {czxid:x}, before writes that had been acknowledged: {entry:?}"));
                    }
                }
            }
        }
        let left = self.run.last.keys().find(|path| path.starts_with("/ephemeral/")).cloned();
        if let Some(path) = left {
            self.wrong(format!("{path} is left, and every session is over"));
        }
    }

    fn expiries(&mut self) {
        for expired in self.run.expired {
            self.counts.expired += 1;
            if expired.told.saturating_sub(expired.last_sent) < expired.timeout as u64 * 1_000_000 {
                self.wrong(format!("expired before its time: {expired:?}"));
            }
        }
    }

    fn minorities(&mut self) {
        for cut in self.run.cuts {
            for entry in self.run.entries {
                let Some((completed, answer)) = entry.answer else { continue };
                if !cut.minority.contains(&entry.server) || completed >= cut.to || completed <= cut.from {
                    continue;
                }
                self.counts.from_minorities += 1;
                let agreed = (entry.asked.is_write() && answer.err == 0) || entry.asked == Asked::Sync;
                if agreed && entry.invoked > cut.from {
                    self.wrong(format!("a minority has agreed, {cut:?}: {entry:?}"));
                }
                if completed > cut.from + self.run.silence_after {
                    self.wrong(format!("a minority has answered for too long, {cut:?}: {entry:?}"));
                }
            }
        }
    }
}
