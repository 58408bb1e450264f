//! What has to hold after every step (fault model 4.3), checked against shadows: what each server's disk is known to hold,
//! and the one order of everything that was ever committed.
//!
//! A history is compared by the chain of its records' digests: two that have the same chain at one zxid are equal up to
//! there. So "contains everything committed" is one look, and can be asked of every quorum after every sync (I7), at the
//! moment of a wrong acknowledgement and not when the data is finally lost.
//!
//! A violation is a panic; its message begins with the invariant's number.

use crate::rule::Rule;
use crate::server::{Report, hash};
use ostler::ids::{Epoch, ServerId, SessionId, Zxid};
use ostler::tree::{Applied, Tree, TreeOptions};
use ostler::wire::quorum::PacketType;
use ostler::wire::txn::read_txn;
use ostler::zab::history::follows;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A record that some disk holds.
#[derive(Clone)]
pub struct Entry {
    pub zxid: Zxid,
    /// Of the record before it.
    before: Zxid,
    chain: u64,
    pub record: Rc<[u8]>,
}

/// What a server's disk holds, at least.
#[derive(Clone, Default)]
pub struct Shadow {
    /// Before the first of `log`.
    pub base: Zxid,
    base_chain: u64,
    log: Vec<Entry>,
    pub accepted: Epoch,
    pub current: Epoch,
    /// Its disk was damaged: it makes no promises until it has a new history.
    pub quarantined: bool,
    /// What a replacement that is under way will end at.
    replacing: Option<Zxid>,
}

impl Shadow {
    pub fn last(&self) -> Zxid {
        self.log.last().map_or(self.base, |entry| entry.zxid)
    }

    pub fn has(&self, zxid: Zxid) -> bool {
        self.find(zxid).is_some()
    }

    fn chain_of_last(&self) -> u64 {
        self.log.last().map_or(self.base_chain, |entry| entry.chain)
    }

    fn find(&self, zxid: Zxid) -> Option<&Entry> {
        let at = self.log.partition_point(|entry| entry.zxid < zxid);
        self.log.get(at).filter(|entry| entry.zxid == zxid)
    }

    fn chain_at(&self, zxid: Zxid) -> Option<u64> {
        if zxid == self.base { Some(self.base_chain) } else { self.find(zxid).map(|entry| entry.chain) }
    }

    fn push(&mut self, zxid: Zxid, record: &Rc<[u8]>) -> &Entry {
        assert!(follows(self.last(), zxid), "I3: {zxid} is durable behind {}", self.last());
        let chain = link(self.chain_of_last(), zxid, record);
        self.log.push(Entry { zxid, before: self.last(), chain, record: record.clone() });
        self.log.last().expect("just pushed")
    }
}

fn link(chain: u64, zxid: Zxid, record: &[u8]) -> u64 {
    (chain ^ hash(record)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ zxid.0
}

/// A committed transaction.
pub struct Committed {
    pub zxid: Zxid,
    chain: u64,
    pub record: Rc<[u8]>,
    digest: u64,
    sessions: u64,
}

/// An epoch that began.
pub struct Led {
    by: ServerId,
    /// Where its history begins, and the last that was proposed in it.
    from: Zxid,
    last: Zxid,
}

pub struct Invariants {
    rule: Rule,
    pub shadows: Vec<Shadow>,
    pub order: Vec<Committed>,
    pub leaders: BTreeMap<Epoch, Led>,
    /// What leaders have made, as digests.
    proposed: BTreeMap<Zxid, u64>,
    /// Sessions that some leader has begun to end.
    pub ended: BTreeSet<SessionId>,
    /// Every record that was ever durable anywhere: a zxid is one record with one history before it.
    known: BTreeMap<Zxid, Entry>,
    /// Everything committed, applied by the server's own code.
    reference: Tree,
    scratch: Applied,
    /// How often which was checked.
    pub checks: u64,
}

impl Invariants {
    pub fn new(rule: Rule, servers: usize) -> Invariants {
        Invariants {
            rule,
            shadows: vec![Shadow::default(); servers],
            order: Vec::new(),
            leaders: BTreeMap::new(),
            proposed: BTreeMap::new(),
            ended: BTreeSet::new(),
            known: BTreeMap::new(),
            reference: Tree::new(TreeOptions::default()),
            scratch: Applied::default(),
            checks: 0,
        }
    }

    pub fn last_committed(&self) -> Zxid {
        self.order.last().map_or(Zxid::ZERO, |committed| committed.zxid)
    }

    fn last_chain(&self) -> u64 {
        self.order.last().map_or(0, |committed| committed.chain)
    }

    pub fn committed_at(&self, zxid: Zxid) -> Option<&Committed> {
        let at = self.order.partition_point(|committed| committed.zxid < zxid);
        self.order.get(at).filter(|committed| committed.zxid == zxid)
    }

    fn chain_at(&self, zxid: Zxid) -> Option<u64> {
        if zxid == Zxid::ZERO { Some(0) } else { self.known.get(&zxid).map(|entry| entry.chain) }
    }

    fn push(&mut self, at: usize, zxid: Zxid, record: &Rc<[u8]>) {
        let proposed = self.proposed.get(&zxid);
        assert_eq!(proposed, Some(&hash(record)), "I5: server {} has a {zxid} that no leader made", at + 1);
        let entry = self.shadows[at].push(zxid, record);
        let known = self.known.entry(zxid).or_insert_with(|| entry.clone());
        assert_eq!(known.chain, entry.chain, "I4: server {} has another {zxid} than one that there was", at + 1);
    }

    /// The records behind `last` that lead to `up_to`; the history of `up_to` may have gone past `last` another way.
    fn way(&self, last: Zxid, up_to: Zxid) -> Vec<&Entry> {
        let mut way = Vec::new();
        let mut at = up_to;
        while at > last {
            let entry = self.known.get(&at).unwrap_or_else(|| panic!("{at} was never durable anywhere"));
            way.push(entry);
            at = entry.before;
        }
        way.reverse();
        way
    }

    /// Whether a history that ends at `end` has everything that is committed.
    fn leads_to(&self, end: Zxid) -> bool {
        let last = self.last_committed();
        self.way(last, end).first().is_some_and(|first| first.before == last)
    }

    fn commit(&mut self, entry: &Entry) {
        assert!(
            follows(self.last_committed(), entry.zxid),
            "I3: {} commits behind {}",
            entry.zxid,
            self.last_committed()
        );
        let chain = link(self.last_chain(), entry.zxid, &entry.record);
        assert_eq!(chain, entry.chain, "I4: {} commits over another history", entry.zxid);
        let (header, txn, _) = read_txn(&entry.record).expect("a committed record can be read");
        self.scratch.clear();
        self.reference.apply(&header, txn, &mut self.scratch);
        let digest = self.reference.digest();
        self.order.push(Committed { zxid: entry.zxid, chain, record: entry.record.clone(), digest, sessions: 0 });
    }

    /// Everything up to here is committed: a quorum has it, the same.
    fn committed_up_to(&mut self, up_to: Zxid) {
        let last = self.last_committed();
        if up_to <= last {
            // Also what a leader says that a later one has overtaken.
            let known = up_to == Zxid::ZERO || self.committed_at(up_to).is_some();
            assert!(known, "I4: {up_to} is called committed, and is not part of the history up to {last}");
            return;
        }
        let voters: Vec<usize> = (0..self.shadows.len()).filter(|&at| self.rule.is_voter(at)).collect();
        let holds = |at: usize| !self.shadows[at].quarantined && self.shadows[at].chain_at(up_to).is_some();
        let holders: Vec<usize> = voters.iter().copied().filter(|&at| holds(at)).collect();
        // One that was damaged since may have had it, and said so.
        let had = |at: usize| holds(at) || self.shadows[at].quarantined;
        assert!(
            self.rule.is_quorum(had),
            "I8: {up_to} is called committed, and only {:?} have it",
            voters.iter().copied().filter(|&at| had(at)).map(id).collect::<Vec<_>>()
        );
        // Also if all of them were given it in a snapshot.
        let missing: Vec<Entry> = self.way(last, up_to).into_iter().cloned().collect();
        missing.iter().for_each(|entry| self.commit(entry));
        for &at in &holders {
            let chain = self.shadows[at].chain_at(up_to);
            assert_eq!(chain, Some(self.last_chain()), "I4: server {} has another history up to {up_to}", at + 1);
        }
    }

    pub fn report(&mut self, at: usize, report: &Report) {
        self.checks += 1;
        match report {
            Report::Durable(records) => {
                for (zxid, record) in records {
                    self.push(at, *zxid, record);
                }
                self.electable();
            }
            Report::Epochs { accepted, current } => {
                let shadow = &mut self.shadows[at];
                let was = (shadow.accepted, shadow.current);
                assert!(*accepted >= was.0 && *current >= was.1, "I2: epochs of server {} fall from {was:?}", at + 1);
                assert!(current <= accepted, "I2: current above accepted");
                (shadow.accepted, shadow.current) = (*accepted, *current);
                self.electable();
            }
            Report::Replacing(end) => self.shadows[at].replacing = Some(*end),
            Report::Kept => self.shadows[at].replacing = None,
            Report::Truncated(to) => {
                let shadow = &mut self.shadows[at];
                shadow.replacing = None;
                assert!(shadow.chain_at(*to).is_some(), "R5: truncated to {to}, which was not there");
                shadow.log.retain(|entry| entry.zxid <= *to);
                self.electable();
            }
            Report::Installed(zxid) => {
                // A leader's history, committed when its epoch is established; the leader may have lost it again.
                let chain = self.chain_at(*zxid);
                let shadow = &mut self.shadows[at];
                shadow.base = *zxid;
                shadow.replacing = None;
                shadow.base_chain = chain.unwrap_or_else(|| panic!("a snapshot of {zxid}, which nobody has"));
                shadow.log.clear();
                self.electable();
            }
            Report::Established { epoch, up_to } => self.established(at, *epoch, *up_to),
            Report::Committed(up_to) => self.committed_up_to(*up_to),
            Report::Serving { zxid, digest } => {
                let known = self.committed_at(*zxid);
                assert!(known.is_some() || *zxid == Zxid::ZERO, "server {} serves {zxid}: not committed", at + 1);
                if let Some(known) = known {
                    assert_eq!(*digest, known.digest, "I10: server {} serves another tree at {zxid}", at + 1);
                }
            }
            Report::Applied { zxid, record, digest, sessions } => self.applied(at, *zxid, record, *digest, *sessions),
            Report::Said { kind, zxid, current, epoch } => self.said(at, *kind, *zxid, *current, *epoch),
            Report::Proposed { zxid, record, applied } => self.made(at, *zxid, *record, *applied),
            Report::Ends(session) => drop(self.ended.insert(*session)),
            Report::Stands { current, last } => {
                let shadow = &self.shadows[at];
                assert_eq!(*current, shadow.current, "R2: server {} stands with another epoch", at + 1);
                let sound = (!shadow.quarantined).then(|| shadow.last());
                assert_eq!(*last, sound, "R2: server {} stands with another history than its disk has", at + 1);
            }
            Report::Trusted { .. } => self.shadows[at].quarantined = false,
            Report::RoleEnded(_) => {}
        }
    }

    fn established(&mut self, at: usize, epoch: Epoch, up_to: Zxid) {
        let led = Led { by: id(at), from: up_to, last: Zxid::new(epoch, 0) };
        let before = self.leaders.insert(epoch, led).map(|led| led.by);
        assert!(before.is_none(), "I1: epoch {} is led by {} and by {before:?}", epoch.0, at + 1);
        let newest = self.leaders.keys().next_back();
        let shadow = &self.shadows[at];
        assert_eq!((shadow.accepted, shadow.current), (epoch, epoch), "R1: the leader's own epochs");
        let (last, chain) = (self.last_committed(), self.last_chain());
        // A leader of an epoch that a later one has overtaken can't commit anything; it may still think it leads.
        if newest == Some(&epoch) {
            assert!(up_to >= last, "I11: epoch {} begins at {up_to}, and {last} was committed", epoch.0);
            if shadow.base <= last {
                assert_eq!(shadow.chain_at(last), Some(chain), "I6: the leader of {} has not {last}", epoch.0);
            }
        }
        self.committed_up_to(up_to);
    }

    /// I5, I6: the leader of its epoch makes each transaction once and in order, over everything that came before the epoch.
    fn made(&mut self, at: usize, zxid: Zxid, record: u64, applied: Zxid) {
        let led = self.leaders.get_mut(&zxid.epoch()).filter(|led| led.by == id(at));
        let led = led.unwrap_or_else(|| panic!("I5: server {} makes {zxid}, and does not lead that epoch", at + 1));
        assert_eq!(zxid.0, led.last.0 + 1, "I6: {zxid} is made behind {}", led.last);
        assert!(applied >= led.from, "I6: {zxid} is made over {applied}, and the epoch begins at {}", led.from);
        led.last = zxid;
        self.proposed.insert(zxid, record);
    }

    fn applied(&mut self, at: usize, zxid: Zxid, record: &Rc<[u8]>, digest: u64, sessions: u64) {
        let shadow = &self.shadows[at];
        let durable = zxid <= shadow.base || shadow.find(zxid).is_some_and(|entry| entry.record == *record);
        assert!(durable, "I9: server {} applies {zxid}, which is not durable there", at + 1);
        let index = self.order.partition_point(|committed| committed.zxid < zxid);
        let committed = self.order.get_mut(index).filter(|committed| committed.zxid == zxid);
        let committed = committed.unwrap_or_else(|| panic!("I4: server {} applies {zxid}: not committed", at + 1));
        assert!(committed.record == *record, "I4: server {} applies another {zxid}", at + 1);
        assert_eq!(committed.digest, digest, "I10: the tree of server {} at {zxid}", at + 1);
        if sessions != 0 {
            if committed.sessions == 0 {
                committed.sessions = sessions;
            }
            assert_eq!(committed.sessions, sessions, "I10: the sessions of server {} at {zxid}", at + 1);
        }
    }

    /// I8: what a learner promises is on its disk.
    fn said(&mut self, at: usize, kind: PacketType, zxid: i64, current: Option<Epoch>, epoch: Epoch) {
        let shadow = &self.shadows[at];
        let who = at + 1;
        match kind {
            PacketType::FollowerInfo => {
                let accepted = Zxid::from_wire(zxid).epoch();
                assert!(accepted == shadow.accepted, "I8: {who} says that it accepted {}", accepted.0);
            }
            PacketType::AckEpoch => {
                assert!(shadow.accepted >= epoch, "I8: {who} accepts epoch {} before it is stored", epoch.0);
                if zxid != -1 {
                    assert_eq!(Zxid::from_wire(zxid), shadow.last(), "I9: {who} reports another last zxid");
                    assert!(!shadow.quarantined, "2.2: {who} vouches for a history that was damaged");
                }
                assert!(current.is_none_or(|current| current == shadow.current), "I8: {who} reports its epoch");
            }
            PacketType::Ack => {
                let zxid = Zxid::from_wire(zxid);
                if zxid.counter() == 0 {
                    assert!(shadow.current >= epoch, "I8: {who} acknowledges NEWLEADER before the epoch is stored");
                } else {
                    assert!(shadow.chain_at(zxid).is_some(), "I8: {who} acknowledges {zxid}, which is not durable");
                }
            }
            _ => {}
        }
    }

    /// I7: whoever a quorum might elect now, if all lost power, has everything that is committed.
    fn electable(&mut self) {
        let last = self.last_committed();
        if last == Zxid::ZERO {
            return;
        }
        let chain = self.last_chain();
        let voters: Vec<usize> =
            (0..self.shadows.len()).filter(|&at| self.rule.is_voter(at) && !self.shadows[at].quarantined).collect();
        let rank = |at: usize| {
            let shadow = &self.shadows[at];
            (shadow.current.max(shadow.last().epoch()), shadow.last(), at)
        };
        // Those that lack it must not outrank everyone in any quorum: the worst quorum of each is made of all that rank
        // no higher.
        for &at in &voters {
            let shadow = &self.shadows[at];
            let has = shadow.chain_at(last) == Some(chain) || (shadow.base > last && self.leads_to(shadow.base));
            if has {
                continue;
            }
            let mine = rank(at);
            assert!(
                !self.rule.is_quorum(|other| !self.shadows[other].quarantined && rank(other) <= mine),
                "I7: server {} with {} of epoch {} could be elected, and {last} is committed",
                at + 1,
                shadow.last(),
                shadow.current.0
            );
        }
    }

    /// I13: what a server finds on its disk after a stop.
    pub fn recovered(&mut self, at: usize, found: Found) {
        let before = std::mem::take(&mut self.shadows[at]);
        let Found { from, records, accepted, current, quarantined } = found;
        let chain = self.chain_at(from);
        let base_chain = chain.unwrap_or_else(|| panic!("I13: server {} has a snapshot of {from}: whose?", at + 1));
        self.shadows[at] = Shadow { base: from, base_chain, accepted, current, quarantined, ..Shadow::default() };
        records.iter().for_each(|(zxid, record)| self.push(at, *zxid, record));
        let shadow = &self.shadows[at];
        if !quarantined {
            assert!(!before.quarantined, "2.2: server {} trusts itself again", at + 1);
            assert!(accepted >= before.accepted && current >= before.current, "I2: epochs after a restart");
            let (last, chain) = (before.last(), before.chain_of_last());
            let replaced = before.replacing.is_some_and(|end| shadow.last() == end);
            if last >= from && !replaced {
                assert_eq!(shadow.chain_at(last), Some(chain), "I13: server {} had {last}, and lost it", at + 1);
            }
        }
        self.electable();
    }
}

/// What recovery gave.
pub struct Found {
    pub from: Zxid,
    pub records: Vec<(Zxid, Rc<[u8]>)>,
    pub accepted: Epoch,
    pub current: Epoch,
    pub quarantined: bool,
}

fn id(at: usize) -> ServerId {
    ServerId(at as u8 + 1)
}
