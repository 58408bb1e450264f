//! The words that every part of the server uses for "which one": zxid, epoch, session, server, znode slot.
//!
//! They are types and not integers with hopeful names, so that a session id can't be passed where a zxid is meant.
//! What is odd about a number (a sign that means nothing, a counter that may run out) is settled here, once.

use std::fmt;

/// The reign of one leader. Raised by discovery, never by hand. A standalone server stays in epoch 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u32);

/// A transaction's place in history: the leader's epoch (high 32 bits), then a counter inside it.
///
/// Packed with the epoch on top, so comparing two of them is comparing their places in history and `Ord` can be
/// derived. On the wire it is a signed long; the sign means nothing and is dropped at the edge (`from_wire`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(pub u64);

impl Zxid {
    pub const ZERO: Zxid = Zxid(0);

    pub fn new(epoch: Epoch, counter: u32) -> Zxid {
        Zxid((epoch.0 as u64) << 32 | counter as u64)
    }

    pub fn from_wire(raw: i64) -> Zxid {
        Zxid(raw as u64)
    }

    pub fn to_wire(self) -> i64 {
        self.0 as i64
    }

    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }

    pub fn counter(self) -> u32 {
        self.0 as u32
    }

    /// `None` when the epoch's counter is used up: the leader has to open a new epoch, not wrap into it.
    pub fn next(self) -> Option<Zxid> {
        self.counter().checked_add(1).map(|counter| Zxid::new(self.epoch(), counter))
    }
}

/// As ZooKeeper prints it, so that logs of mixed ensembles can be read side by side.
impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A client session. The top byte is the id of the server that made it; 0 is never a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub i64);

impl SessionId {
    /// No session: a new client in its connect request, and the server itself where it makes a transaction.
    pub const NONE: SessionId = SessionId(0);
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A server of the ensemble (`server.N` and `myid`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerId(pub u8);

/// Who owns a znode, as ZooKeeper stores it in `ephemeralOwner` (upstream: `EphemeralType`).
///
/// The stored number multiplexes: 0 nobody; i64::MIN a container; top byte 0xff a TTL in milliseconds (only where
/// extended types are enabled); anything else a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    Nobody,
    Session(SessionId),
    Container,
    /// Time to live in milliseconds, 1..=2^40-1; 0 for ever, only from a disk.
    Ttl(i64),
}

/// The stored form of a container's owner.
pub const CONTAINER_OWNER: i64 = i64::MIN;
/// Largest TTL in milliseconds that fits the stored form.
pub const TTL_MAX_MS: i64 = (1 << 40) - 1;
const TTL_MARK: u64 = 0xff00_0000_0000_0000;
const TTL_RESERVED: u64 = 0x00ff_ff00_0000_0000;

/// Which special owners exist (`extendedTypesEnabled`, `emulate353TTLNodes`). One per server, fixed at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnerRules {
    pub extended_types: bool,
    /// Reads any negative owner but the container's as a TTL, as 3.5.3 wrote them. Needs `extended_types`.
    pub emulate_353_ttl: bool,
}

impl Owner {
    pub fn from_stored(raw: i64, rules: OwnerRules) -> Owner {
        if raw == 0 {
            return Owner::Nobody;
        }
        if raw == CONTAINER_OWNER {
            return Owner::Container;
        }
        if rules.extended_types {
            if rules.emulate_353_ttl && raw < 0 {
                // A later one's own mark is above the bits that count.
                return Owner::Ttl(raw & TTL_MAX_MS);
            }
            let bits = raw as u64;
            if bits & TTL_MARK == TTL_MARK && bits & TTL_RESERVED == 0 {
                return Owner::Ttl((bits & !TTL_MARK) as i64);
            }
        }
        Owner::Session(SessionId(raw))
    }

    pub fn to_stored(self) -> i64 {
        match self {
            Owner::Nobody => 0,
            Owner::Session(id) => id.0,
            Owner::Container => CONTAINER_OWNER,
            Owner::Ttl(ms) => (TTL_MARK | ms as u64) as i64,
        }
    }

    /// What a Stat shows: only sessions are visible to clients.
    pub fn to_stat(self) -> i64 {
        match self {
            Owner::Session(id) => id.0,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxids_order_by_epoch_then_counter_and_never_wrap() {
        let last = Zxid::new(Epoch(1), u32::MAX);
        assert!(last < Zxid::new(Epoch(2), 0));
        assert_eq!(last.next(), None);
        assert_eq!(Zxid::new(Epoch(1), 7).next(), Some(Zxid::new(Epoch(1), 8)));
        assert_eq!(format!("{:?}", Zxid::new(Epoch(1), 10)), "0x10000000a");
    }

    #[test]
    fn owners_survive_their_stored_form() {
        let rules = OwnerRules { extended_types: true, emulate_353_ttl: false };
        let owners =
            [Owner::Nobody, Owner::Container, Owner::Ttl(1), Owner::Ttl(TTL_MAX_MS), Owner::Session(SessionId(77))];
        for owner in owners {
            assert_eq!(Owner::from_stored(owner.to_stored(), rules), owner);
        }
        // What this server writes itself, and what 3.5.3 wrote.
        let emulating = OwnerRules { emulate_353_ttl: true, ..rules };
        for stored in [Owner::Ttl(5).to_stored(), i64::MIN | 5] {
            assert_eq!(Owner::from_stored(stored, emulating), Owner::Ttl(5));
        }
        let ttl = Owner::Ttl(5).to_stored();
        assert!(matches!(Owner::from_stored(ttl, OwnerRules::default()), Owner::Session(_)), "as 3.9.5 reads it");
    }
}
