//! Broadcast by a leader: a proposal is committed when a quorum of voters has made it durable.
//!
//! The leader's own disk is a voter like any other, so with one voter this is group commit: what the log has synced is
//! committed. Commitment only moves forward, in zxid order, and never past what was proposed.

use crate::ids::{ServerId, Zxid};

/// What can happen to a leader that broadcasts. Closed: if it is not here, it can't wake this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The next transaction has been made.
    Proposed { zxid: Zxid },
    /// A voter has everything up to here on its disk.
    Durable { by: ServerId, up_to: Zxid },
}

/// What the surroundings have to do, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A quorum is durable. Apply, then answer the client; never the other way round.
    Commit { up_to: Zxid },
}

/// The role. `committed <= proposed`, and `durable` never falls.
#[derive(Debug)]
pub struct Leading {
    voters: Vec<ServerId>,
    proposed: Zxid,
    committed: Zxid,
    /// Highest zxid that each voter has made durable, in the order of `voters`.
    durable: Vec<Zxid>,
    ranked: Vec<Zxid>,
}

impl Leading {
    /// A leader of `voters` whose history, durable on a quorum, ends at `start`.
    pub fn new(voters: Vec<ServerId>, start: Zxid) -> Leading {
        assert!(!voters.is_empty());
        let durable = vec![start; voters.len()];
        Leading { voters, proposed: start, committed: start, durable, ranked: Vec::new() }
    }

    pub fn proposed(&self) -> Zxid {
        self.proposed
    }

    pub fn committed(&self) -> Zxid {
        self.committed
    }

    /// The only way in. Pure: same state and same input, same outputs.
    pub fn step(&mut self, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Proposed { zxid } => {
                let follows = Some(zxid) == self.proposed.next();
                let opens_epoch = zxid.epoch() > self.proposed.epoch() && zxid.counter() == 1;
                assert!(follows || opens_epoch, "proposals have no gaps");
                self.proposed = zxid;
            }
            Input::Durable { by, up_to } => self.durable(by, up_to, out),
        }
        assert!(self.committed <= self.proposed);
    }

    fn durable(&mut self, by: ServerId, up_to: Zxid, out: &mut Vec<Output>) {
        assert!(up_to <= self.proposed, "durable before it was proposed");
        let Some(slot) = self.voters.iter().position(|&voter| voter == by) else { return };
        self.durable[slot] = self.durable[slot].max(up_to);
        self.ranked.clone_from(&self.durable);
        self.ranked.sort_unstable();
        let on_quorum = self.ranked[(self.ranked.len() - 1) / 2];
        if on_quorum > self.committed {
            self.committed = on_quorum;
            out.push(Output::Commit { up_to: on_quorum });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    fn zxid(counter: u32) -> Zxid {
        Zxid::new(Epoch(5), counter)
    }

    #[test]
    fn alone_what_is_durable_is_committed() {
        let mut leading = Leading::new(vec![ServerId(1)], zxid(0));
        let mut out = Vec::new();
        for counter in 1..=3 {
            leading.step(Input::Proposed { zxid: zxid(counter) }, &mut out);
        }
        assert!(out.is_empty());
        leading.step(Input::Durable { by: ServerId(1), up_to: zxid(2) }, &mut out);
        assert_eq!(out, [Output::Commit { up_to: zxid(2) }]);
    }

    #[test]
    fn a_proposal_commits_when_the_second_of_three_is_durable() {
        let mut leading = Leading::new(vec![ServerId(1), ServerId(2), ServerId(3)], zxid(0));
        let mut out = Vec::new();
        leading.step(Input::Proposed { zxid: zxid(1) }, &mut out);
        leading.step(Input::Durable { by: ServerId(2), up_to: zxid(1) }, &mut out);
        leading.step(Input::Durable { by: ServerId(9), up_to: zxid(1) }, &mut out);
        assert!(out.is_empty(), "one voter and a stranger are no quorum");
        leading.step(Input::Durable { by: ServerId(1), up_to: zxid(1) }, &mut out);
        assert_eq!(out, [Output::Commit { up_to: zxid(1) }]);
    }
}
