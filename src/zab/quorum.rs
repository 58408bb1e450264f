//! When are enough servers together? Majorities, and ZooKeeper's groups with weights.
//!
//! Everything that consensus decides is decided by a quorum: votes, epochs, acknowledgements, the leader's lease. They
//! all ask here, so that "only voters of the configurations in force count, each once" is one line of code and not
//! many: a set of servers can't hold one twice, and `contains_quorum` drops whoever has no vote.
//!
//! Hierarchical quorums (upstream: `QuorumHierarchical`): a group is won by more than half of its weight, the ensemble
//! by more than half of the groups that have any. All divisions round down, as in ZooKeeper: members of one ensemble
//! have to agree about what a quorum is. Two quorums always intersect, since weights are not negative.
//!
//! Leaves to others: where configurations come from (`ensemble`, `config`). Runs on: whichever thread asks; no state.

use crate::ids::ServerId;
use std::fmt;

/// A set of servers. Small and copied: one bit for each id there can be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ServerSet([u64; 4]);

impl ServerSet {
    pub const EMPTY: ServerSet = ServerSet([0; 4]);

    fn place(id: ServerId) -> (usize, u64) {
        (id.0 as usize / 64, 1 << (id.0 % 64))
    }

    /// `true` if it was not in it.
    pub fn insert(&mut self, id: ServerId) -> bool {
        let (word, bit) = ServerSet::place(id);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// `true` if it was in it.
    pub fn remove(&mut self, id: ServerId) -> bool {
        let (word, bit) = ServerSet::place(id);
        let had = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        had
    }

    pub fn contains(&self, id: ServerId) -> bool {
        let (word, bit) = ServerSet::place(id);
        self.0[word] & bit != 0
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        *self == ServerSet::EMPTY
    }

    pub fn clear(&mut self) {
        *self = ServerSet::EMPTY;
    }

    pub fn union(mut self, other: ServerSet) -> ServerSet {
        self.0.iter_mut().zip(other.0).for_each(|(word, theirs)| *word |= theirs);
        self
    }

    pub fn intersection(mut self, other: ServerSet) -> ServerSet {
        self.0.iter_mut().zip(other.0).for_each(|(word, theirs)| *word &= theirs);
        self
    }

    /// Those of this set that are not in the other.
    pub fn without(mut self, other: ServerSet) -> ServerSet {
        self.0.iter_mut().zip(other.0).for_each(|(word, theirs)| *word &= !theirs);
        self
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = ServerId> {
        (0..=u8::MAX).map(ServerId).filter(move |&id| self.contains(id))
    }
}

impl FromIterator<ServerId> for ServerSet {
    fn from_iter<I: IntoIterator<Item = ServerId>>(ids: I) -> ServerSet {
        let mut set = ServerSet::EMPTY;
        ids.into_iter().for_each(|id| {
            set.insert(id);
        });
        set
    }
}

impl fmt::Debug for ServerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|id| id.0)).finish()
    }
}

/// The largest weight of a server that is taken. Keeps every sum inside an integer.
pub const WEIGHT_MAX: u64 = u32::MAX as u64;

/// A group of servers, as a `group.N` line has it. A member need not be a voter: then its weight is never won.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    pub id: i64,
    pub members: ServerSet,
}

/// Who votes, and what a quorum of them is. One per configuration; never changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quorum {
    voters: ServerSet,
    observers: ServerSet,
    /// `None`: a majority of the voters.
    groups: Option<Box<Groups>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Groups {
    groups: Vec<Group>,
    /// By server id; 0 where there is none.
    weights: Box<[u64; 256]>,
}

impl Groups {
    fn weight(&self, of: ServerSet) -> u64 {
        of.iter().map(|id| self.weights[id.0 as usize]).sum()
    }
}

impl Quorum {
    /// More than half of the voters.
    pub fn majority(voters: ServerSet, observers: ServerSet) -> Quorum {
        assert!(!voters.is_empty(), "a quorum of nobody");
        Quorum { voters, observers: observers.without(voters), groups: None }
    }

    /// By groups and weights. A voter without a weight has 1.
    ///
    /// Errors, as text for the operator: a voter in no group or a server in two; a member that is no voter and has no
    /// weight; a weight that is too large; weights with which there can never be a quorum.
    pub fn hierarchical(
        voters: ServerSet,
        observers: ServerSet,
        groups: Vec<Group>,
        given: &[(ServerId, u64)],
    ) -> Result<Quorum, String> {
        assert!(!voters.is_empty(), "a quorum of nobody");
        let mut weights = Box::new([0; 256]);
        let mut weighed = voters;
        voters.iter().for_each(|id| weights[id.0 as usize] = 1);
        for &(id, weight) in given {
            if weight > WEIGHT_MAX {
                return Err(format!("the weight of server {} is too large: {weight}", id.0));
            }
            weighed.insert(id);
            weights[id.0 as usize] = weight;
        }
        let mut grouped = ServerSet::EMPTY;
        for group in &groups {
            if let Some(id) = group.members.intersection(grouped).iter().next() {
                return Err(format!("server {} is in more than one group", id.0));
            }
            if let Some(id) = group.members.without(weighed).iter().next() {
                return Err(format!("server {} of group {} is no participant and has no weight", id.0, group.id));
            }
            grouped = grouped.union(group.members);
        }
        if let Some(id) = voters.without(grouped).iter().next() {
            return Err(format!("server {} is in no group", id.0));
        }
        let quorum =
            Quorum { voters, observers: observers.without(voters), groups: Some(Box::new(Groups { groups, weights })) };
        if !quorum.contains_quorum(voters) {
            return Err("with these groups and weights all servers together are no quorum".to_owned());
        }
        Ok(quorum)
    }

    /// Whether these servers are enough. Those without a vote are not counted.
    pub fn contains_quorum(&self, servers: ServerSet) -> bool {
        let counted = servers.intersection(self.voters);
        let Some(rule) = &self.groups else { return counted.len() > self.voters.len() / 2 };
        let (mut won, mut with_weight) = (0, 0);
        for group in &rule.groups {
            let weight = rule.weight(group.members);
            with_weight += (weight > 0) as usize;
            won += (rule.weight(group.members.intersection(counted)) > weight / 2) as usize;
        }
        won > with_weight / 2
    }

    pub fn voters(&self) -> ServerSet {
        self.voters
    }

    pub fn observers(&self) -> ServerSet {
        self.observers
    }

    pub fn is_voter(&self, id: ServerId) -> bool {
        self.voters.contains(id)
    }

    /// What its vote weighs; 0 for one that is not a voter.
    pub fn weight(&self, id: ServerId) -> u64 {
        match &self.groups {
            _ if !self.is_voter(id) => 0,
            None => 1,
            Some(rule) => rule.weights[id.0 as usize],
        }
    }

    /// Whether it may lead: a voter that weighs something.
    pub fn is_electable(&self, id: ServerId) -> bool {
        self.weight(id) > 0
    }

    /// Whether the same servers vote, and every set of them that is a quorum here is one there: however groups are called.
    pub fn decides_like(&self, other: &Quorum) -> bool {
        self.voters == other.voters && self.weighed_groups() == other.weighed_groups()
    }

    /// Whose votes are added up, and with which weights; ascending. What weighs nothing is left out.
    fn weighed_groups(&self) -> Vec<Vec<(ServerId, u64)>> {
        let Some(rule) = &self.groups else { return vec![self.voters.iter().map(|id| (id, 1)).collect()] };
        let weighed = |group: &Group| -> Vec<(ServerId, u64)> {
            group.members.iter().map(|id| (id, rule.weights[id.0 as usize])).filter(|(_, weight)| *weight > 0).collect()
        };
        let mut groups: Vec<_> = rule.groups.iter().map(weighed).filter(|group| !group.is_empty()).collect();
        groups.sort_unstable();
        groups
    }

    /// Its groups in the order given; none under majority.
    pub fn groups(&self) -> &[Group] {
        self.groups.as_ref().map_or(&[], |rule| &rule.groups)
    }
}

#[cfg(test)]
mod tests;
