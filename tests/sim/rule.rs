//! When are servers enough? The judge's own statement of the rule, which has nothing of the server's (`zab::quorum`).
//!
//! Without groups: more than half of the voters. With groups: more than half of those groups that weigh anything, each won by
//! more than half of its weight; who is no voter has a weight that nobody wins. What is drawn here becomes the ensemble's
//! configuration, and what `zab::quorum` makes of that is compared for every set of servers at the beginning of such a run.

use ostler::ids::ServerId;
use ostler::random::Rng;
use ostler::zab::ensemble::{GroupLine, WeightLine};
use ostler::zab::quorum::{Quorum, ServerSet};

/// Servers by their place among the hosts, voters first.
#[derive(Clone, Debug)]
pub struct Rule {
    voters: usize,
    servers: usize,
    /// None: every voter counts for one.
    groups: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

impl Rule {
    pub fn majority(voters: usize, observers: usize) -> Rule {
        Rule { voters, servers: voters + observers, groups: Vec::new(), weights: Vec::new() }
    }

    /// Up to three groups, weights that differ and some that are nothing, now and then an observer that has one.
    pub fn draw(rng: &mut Rng, voters: usize, observers: usize) -> Rule {
        loop {
            let mut groups = vec![Vec::new(); 1 + rng.below(3) as usize];
            let choices: &[u64] = [&[1u64] as &[u64], &[0, 1, 1], &[0, 1, 2, 3]][rng.below(3) as usize];
            let servers = voters + observers;
            let mut weights = vec![0; servers];
            let counts_observers = rng.below(4) == 0;
            for at in (0..servers).filter(|&at| at < voters || counts_observers) {
                let group = rng.below(groups.len() as u64) as usize;
                groups[group].push(at);
                weights[at] = choices[rng.below(choices.len() as u64) as usize];
            }
            groups.retain(|group| !group.is_empty());
            let rule = Rule { voters, servers, groups, weights };
            if rule.is_quorum(|_| true) {
                return rule;
            }
        }
    }

    pub fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    pub fn is_voter(&self, at: usize) -> bool {
        at < self.voters
    }

    pub fn is_quorum(&self, among: impl Fn(usize) -> bool) -> bool {
        let counts = |at: usize| self.is_voter(at) && among(at);
        if !self.has_groups() {
            return 2 * (0..self.voters).filter(|&at| counts(at)).count() > self.voters;
        }
        let sum = |members: &mut dyn Iterator<Item = usize>| members.map(|at| self.weights[at]).sum::<u64>();
        let (mut with_weight, mut won) = (0, 0);
        for group in &self.groups {
            let whole = sum(&mut group.iter().copied());
            let here = sum(&mut group.iter().copied().filter(|&at| counts(at)));
            with_weight += usize::from(whole > 0);
            won += usize::from(2 * here > whole);
        }
        2 * won > with_weight
    }

    /// As the lines of a configuration have it.
    pub fn lines(&self) -> (Vec<GroupLine>, Vec<WeightLine>) {
        let id = |at: usize| at as u64 + 1;
        let groups = self.groups.iter().enumerate();
        let groups = groups.map(|(number, members)| (number as i64 + 1, members.iter().map(|&at| id(at)).collect()));
        let grouped = self.groups.iter().flatten();
        (groups.collect(), grouped.map(|&at| (id(at), self.weights[at])).collect())
    }

    /// The server's own rule says the same of every set of servers.
    pub fn agrees_with(&self, quorum: &Quorum) {
        for set in 0..1u32 << self.servers {
            let among = |at: usize| set >> at & 1 == 1;
            let ids: ServerSet = (0..self.servers).filter(|&at| among(at)).map(|at| ServerId(at as u8 + 1)).collect();
            assert_eq!(self.is_quorum(among), quorum.contains_quorum(ids), "R9: {ids:?} of {self:?}");
        }
    }
}
