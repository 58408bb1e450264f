//! The consensus core: decides order and commitment, and knows neither paths nor sessions nor sockets.
//!
//! State machines without I/O, clock or threads: typed inputs in, typed outputs out, each output saying when it may be
//! done. A standalone server is a leader whose quorum is itself.

pub mod election;
pub mod election_links;
pub mod ensemble;
pub mod history;
pub mod leader;
pub mod leading;
pub mod learner;
pub mod members;
pub mod peer;
pub mod quorum;

pub use history::History;
pub use leading::{Input, Leading, Output};
pub use peer::{Candidacy, Peer, PeerSettings, Role};

use crate::ids::Epoch;
use std::time::Duration;

/// The newest epoch there can be. A zxid is a signed number to ZooKeeper, which takes a later epoch for a negative one.
pub const EPOCH_MAX: Epoch = Epoch(i32::MAX as u32);

/// An accepted epoch so far ahead of all that a server knows is no accident of elections (one after the other they would have
/// gone on for weeks), and must not use up the epochs there are: what has been accepted is never taken back.
const EPOCHS_AHEAD_MAX: u32 = 1 << 24;

/// The newest epoch that a server takes from others which knows of none so far: half of them are left.
const FIRST_EPOCH_MAX: u32 = 1 << 30;

/// Whether this epoch of somebody else's may count, where the newest so far is `known`.
fn is_plausible(epoch: Epoch, known: Epoch) -> bool {
    let max = if known == Epoch(0) { FIRST_EPOCH_MAX } else { known.0.saturating_add(EPOCHS_AHEAD_MAX) };
    epoch.0 <= max.min(EPOCH_MAX.0)
}

/// How long the servers of an ensemble wait for one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// `tickTime`, milliseconds: the leader pings every half tick.
    pub tick_ms: u64,
    /// `connectToLearnerMasterLimit`, ticks: for a learner to connect.
    pub connect_limit: u32,
    /// `initLimit`, ticks: for each phase from then on until a learner is synchronised.
    pub init_limit: u32,
    /// `syncLimit`, ticks: for everything afterwards.
    pub sync_limit: u32,
}

impl Timing {
    pub fn connect(&self) -> Duration {
        Duration::from_millis(self.tick_ms.saturating_mul(u64::from(self.connect_limit)))
    }

    pub fn init(&self) -> Duration {
        Duration::from_millis(self.tick_ms.saturating_mul(u64::from(self.init_limit)))
    }

    pub fn sync(&self) -> Duration {
        Duration::from_millis(self.tick_ms.saturating_mul(u64::from(self.sync_limit)))
    }
}

#[cfg(test)]
mod tests;
