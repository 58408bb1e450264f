//! Roles that came to nothing: a learner that its leader lets go at once finds the same leader again at once, and would be
//! back a thousand times a second.
//!
//! The first time it is back without delay, since that belongs to an election in which not everybody knows everything yet.
//! Then it lets time pass, more with each time, from the beginning of the role that failed: one that took its time may be
//! followed at once. Only for the same leader: another one may well want it, and may need it for its quorum. Who leads itself
//! waits for nobody.
//!
//! A pause is short beside initLimit, or who waits for this server with its quorum would give up in each. It ends early where
//! others look for a leader, who may have lost that one and need this server's vote: always if that one looks itself (the role
//! would end as it begins), and once for anyone, or two that are both let go by one leader would keep each other looking.
//!
//! Runs on: the pipeline's thread.

use crate::clock::Now;
use crate::ids::ServerId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Behind the second failure, in milliseconds; twice as long behind each one after it, up to the most.
const PAUSE_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 2_000;

/// A role with this leader begins then, if nothing comes between.
#[derive(Clone, Copy)]
struct Paused {
    leader: ServerId,
    until: Now,
}

struct Failed {
    times: u32,
    /// When the last of these roles began.
    began: Now,
}

/// What a server does that waits with a role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Wait,
    /// There is an election again.
    Look,
    Begin(ServerId),
}

/// How roles with each leader have failed since this server has served, and the pause before the next one.
pub struct Retries {
    failed: BTreeMap<ServerId, Failed>,
    pause_max: Duration,
    /// It has been decided who leads, and this server does not follow yet.
    paused: Option<Paused>,
    /// Since the last role a pause has ended for someone who is not its leader.
    has_looked_again: bool,
}

impl Retries {
    /// `init_limit`: how long who leads waits for its quorum.
    pub fn new(init_limit: Duration) -> Retries {
        let pause_max = Duration::from_millis(PAUSE_MAX_MS).min(init_limit / 2);
        Retries { failed: BTreeMap::new(), pause_max, paused: None, has_looked_again: false }
    }

    /// A role is over in which this server has served.
    pub fn served(&mut self) {
        self.failed.clear();
    }

    /// One with this leader is over in which it has not.
    pub fn failed(&mut self, leader: ServerId, began: Now) {
        let failed = self.failed.entry(leader).or_insert(Failed { times: 0, began });
        (failed.times, failed.began) = (failed.times.saturating_add(1), began);
    }

    /// The next one with this leader begins no sooner.
    fn not_before(&self, leader: ServerId) -> Now {
        let Some(failed) = self.failed.get(&leader) else { return Now::START };
        let pause = match failed.times {
            0 | 1 => Duration::ZERO,
            times => Duration::from_millis(PAUSE_MS << (times - 2).min(16)).min(self.pause_max),
        };
        failed.began.plus(pause)
    }

    /// An election has been decided. `Wait` begins a pause.
    pub fn decided(&mut self, leader: ServerId, now: Now) -> Step {
        let until = self.not_before(leader);
        if until <= now {
            return Step::Begin(leader);
        }
        self.paused = Some(Paused { leader, until });
        Step::Wait
    }

    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// When `step` has something to say without anybody's looking.
    pub fn deadline(&self) -> Option<Now> {
        self.paused.map(|paused| paused.until)
    }

    /// In a pause: whether it ends. `lookers`: who has been found looking since the last call; each is told once, or one of long
    /// ago would end the role that follows.
    pub fn step(&mut self, lookers: &[ServerId], now: Now) -> Step {
        let Some(Paused { leader, until }) = self.paused else { return Step::Look };
        let looks = lookers.contains(&leader);
        if looks || (!lookers.is_empty() && !self.has_looked_again) {
            self.has_looked_again |= !looks;
            self.paused = None;
            return Step::Look;
        }
        if until > now { Step::Wait } else { Step::Begin(leader) }
    }

    /// A role begins.
    pub fn begun(&mut self) {
        (self.paused, self.has_looked_again) = (None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: ServerId = ServerId(3);
    const OTHER: ServerId = ServerId(2);

    fn retries() -> Retries {
        Retries::new(Duration::from_secs(20))
    }

    #[test]
    fn the_first_retry_is_at_once_and_each_later_one_waits_twice_as_long_up_to_two_seconds() {
        let mut retries = retries();
        let began = Now::START.plus_ms(10_000);
        assert!(retries.not_before(LEADER) <= began);
        let waits = [(); 9].map(|()| {
            retries.failed(LEADER, began);
            retries.not_before(LEADER).since(began).as_millis()
        });
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        (0..100).for_each(|_| retries.failed(LEADER, began));
        assert_eq!(retries.not_before(LEADER), began.plus_ms(2_000));
    }

    #[test]
    fn another_leader_is_followed_at_once_and_so_is_any_after_this_server_has_served() {
        let mut retries = retries();
        let began = Now::START.plus_ms(10_000);
        (0..5).for_each(|_| retries.failed(LEADER, began));
        assert!(retries.not_before(LEADER) > began);
        assert!(retries.not_before(ServerId(1)) <= began);
        retries.served();
        assert!(retries.not_before(LEADER) <= began);
    }

    #[test]
    fn a_pause_ends_for_a_leader_that_looks_again_each_time_and_once_for_anyone_else() {
        let mut retries = retries();
        let began = Now::START.plus_ms(10_000);
        (0..20).for_each(|_| retries.failed(LEADER, began));
        let until = began.plus_ms(2_000);
        assert_eq!(retries.decided(LEADER, began), Step::Wait);
        assert_eq!((retries.step(&[], began), retries.deadline()), (Step::Wait, Some(until)));
        assert_eq!(retries.step(&[OTHER], began), Step::Look);
        assert_eq!(retries.decided(LEADER, began), Step::Wait);
        assert_eq!(retries.step(&[OTHER], began), Step::Wait, "they would keep each other looking");
        for _ in 0..2 {
            // Its time for a quorum is over, and nobody else can vote.
            assert_eq!(retries.step(&[OTHER, LEADER], began), Step::Look);
            assert!(!retries.is_paused());
            assert_eq!(retries.decided(LEADER, began), Step::Wait);
        }
        assert_eq!(retries.step(&[], until), Step::Begin(LEADER));
        retries.begun();
        assert_eq!((retries.is_paused(), retries.deadline()), (false, None));
        assert_eq!(retries.decided(LEADER, began), Step::Wait);
        assert_eq!(retries.step(&[OTHER], began), Step::Look, "another role has been between");
        assert_eq!(retries.decided(LEADER, until), Step::Begin(LEADER));
    }

    #[test]
    fn a_pause_is_no_longer_than_half_of_the_time_in_which_a_leader_finds_its_quorum() {
        let mut retries = Retries::new(Duration::from_millis(1_000));
        (0..100).for_each(|_| retries.failed(LEADER, Now::START));
        assert_eq!(retries.not_before(LEADER), Now::START.plus_ms(500));
    }
}
