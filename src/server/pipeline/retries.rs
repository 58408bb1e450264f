//! Roles that came to nothing: a learner that its leader lets go at once finds the same leader again at once, and would be
//! back a thousand times a second.
//!
//! The first time it is back without delay, since that belongs to an election in which not everybody knows everything yet.
//! Then it lets time pass, more with each time, from the beginning of the role that failed: one that took its time may be
//! followed at once. Only for the same leader: another one may well want it, and may need it for its quorum. Who leads itself
//! waits for nobody.
//!
//! Leaves to others: to look for a leader meanwhile when others do (`member::elect`).
//!
//! Runs on: the pipeline's thread.

use crate::clock::Now;
use crate::ids::ServerId;
use std::collections::BTreeMap;

/// Behind the second failure, in milliseconds; twice as long behind each one after it, up to the most.
const PAUSE_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 2_000;

/// A role with this leader begins then, if nothing comes between.
#[derive(Clone, Copy)]
pub struct Paused {
    pub leader: ServerId,
    pub until: Now,
}

struct Failed {
    times: u32,
    /// When the last of these roles began.
    began: Now,
}

/// How roles with each leader have failed since this server has served.
#[derive(Default)]
pub struct Retries(BTreeMap<ServerId, Failed>);

impl Retries {
    /// A role is over in which this server has served.
    pub fn served(&mut self) {
        self.0.clear();
    }

    /// One with this leader is over in which it has not.
    pub fn failed(&mut self, leader: ServerId, began: Now) {
        let failed = self.0.entry(leader).or_insert(Failed { times: 0, began });
        (failed.times, failed.began) = (failed.times.saturating_add(1), began);
    }

    /// The next one with this leader begins no sooner.
    pub fn not_before(&self, leader: ServerId) -> Now {
        let Some(failed) = self.0.get(&leader) else { return Now::START };
        let pause_ms = match failed.times {
            0 | 1 => 0,
            times => (PAUSE_MS << (times - 2).min(16)).min(PAUSE_MAX_MS),
        };
        failed.began.plus_ms(pause_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: ServerId = ServerId(3);

    #[test]
    fn the_first_retry_is_at_once_and_each_later_one_waits_twice_as_long_up_to_two_seconds() {
        let mut retries = Retries::default();
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
        let mut retries = Retries::default();
        let began = Now::START.plus_ms(10_000);
        (0..5).for_each(|_| retries.failed(LEADER, began));
        assert!(retries.not_before(LEADER) > began);
        assert!(retries.not_before(ServerId(1)) <= began);
        retries.served();
        assert!(retries.not_before(LEADER) <= began);
    }
}
