//! What clients record: what they asked, when, of whom, and what they were told.
//!
//! Registers are znodes that are never deleted, so that the version of each counts its writes. Every written value is
//! written once only. Runs on: the clients' threads; judged on the test's.

use crate::support::jute::Stat;

/// Registers that are set one by one.
pub const SINGLE: usize = 12;
/// Registers that only multis set, all of them at once.
pub const TOGETHER: usize = 4;

/// Nanoseconds since the beginning of the run.
pub type Time = u64;

/// The value that every register begins with.
pub const FIRST: u64 = 0;

/// Where a register is.
pub fn register(key: usize) -> String {
    if key < SINGLE { format!("/single/{key}") } else { format!("/together/{}", key - SINGLE) }
}

pub fn appended(client: usize, index: u64) -> String {
    format!("/append/{client}/{index}")
}

pub fn ephemeral(client: usize, index: u64) -> String {
    format!("/ephemeral/{client}-{index}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Without a version.
    Set {
        key: usize,
        value: u64,
    },
    /// Only if it has this version.
    Swap {
        key: usize,
        value: u64,
        version: i32,
    },
    /// All of `TOGETHER`.
    Multi {
        value: u64,
    },
    /// A znode of one's own, numbered.
    Append {
        index: u64,
    },
    Ephemeral {
        index: u64,
    },
    /// Whether one's own ephemeral is there.
    Held {
        index: u64,
    },
    Get {
        key: usize,
    },
    Sync,
}

impl Asked {
    pub fn is_write(self) -> bool {
        !matches!(self, Asked::Held { .. } | Asked::Get { .. } | Asked::Sync)
    }
}

/// What an answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Answer {
    pub zxid: i64,
    pub err: i32,
    /// Of a register.
    pub value: u64,
    /// Where the answer has one.
    pub stat: Option<Stat>,
}

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub client: usize,
    pub session: i64,
    /// Of all clients' connections, in the order in which each made its own.
    pub connection: u32,
    pub server: usize,
    pub invoked: Time,
    pub asked: Asked,
    /// When it came; `None`: the connection was lost, and the outcome is unknown.
    pub answer: Option<(Time, Answer)>,
}

/// A session that a server called expired.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "the session is shown")]
pub struct Expired {
    pub session: i64,
    pub timeout: i32,
    /// When the last answered request of it was sent.
    pub last_sent: Time,
    pub told: Time,
}

/// One client's part, in the order of its requests.
#[derive(Default)]
pub struct History {
    pub entries: Vec<Entry>,
    pub expired: Vec<Expired>,
    pub moves: u64,
    pub wrong: Vec<String>,
}

/// A time during which these servers could not hear the others, nor be heard.
#[derive(Clone, Debug)]
pub struct Cut {
    pub minority: Vec<usize>,
    pub from: Time,
    pub to: Time,
}
