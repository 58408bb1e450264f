//! Who may connect at all: so many connections from one address, so many in total (`maxClientCnxns`, `maxCnxns`).
//!
//! A refused socket is closed at once and without a word, as ZooKeeper does; that costs the server an accept and a close
//! and nothing else.

use crate::random::FastMap;
use parking_lot::Mutex;
use std::net::IpAddr;

pub struct Admission {
    per_address_max: usize,
    total_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    per_address: FastMap<IpAddr, u32>,
    total: usize,
}

impl Admission {
    /// 0 is no limit, for either.
    pub fn new(per_address_max: usize, total_max: usize) -> Admission {
        Admission { per_address_max, total_max, counts: Mutex::default() }
    }

    /// Counts a connection in, or refuses it.
    pub fn admit(&self, address: IpAddr) -> bool {
        let mut counts = self.counts.lock();
        if self.total_max > 0 && counts.total >= self.total_max {
            return false;
        }
        let here = counts.per_address.get(&address).copied().unwrap_or(0);
        if self.per_address_max > 0 && here as usize >= self.per_address_max {
            return false;
        }
        counts.per_address.insert(address, here + 1);
        counts.total += 1;
        true
    }

    pub fn release(&self, address: IpAddr) {
        let mut counts = self.counts.lock();
        counts.total -= 1;
        let left = match counts.per_address.get_mut(&address) {
            Some(count) => {
                *count -= 1;
                *count
            }
            None => unreachable!("released without having been admitted"),
        };
        if left == 0 {
            counts.per_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_at_its_limit_is_refused_until_one_of_its_connections_ends() {
        let admission = Admission::new(2, 3);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        assert!(admission.admit(one) && admission.admit(one) && !admission.admit(one));
        assert!(admission.admit(two) && !admission.admit(two), "three in total");
        admission.release(one);
        assert!(admission.admit(one));
    }
}
