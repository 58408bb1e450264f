//! What the tests that talk to whole servers share: starting and killing them, and a client of the wire protocol that
//! knows nothing of ostler's own code, so that a mistake in ostler's codec can't hide behind itself.
//!
//! Runs on: the test's thread; servers are child processes, killed by id when their `Server` is dropped.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod client;
pub mod conn;
pub mod ensemble;
pub mod files;
pub mod jute;
pub mod learner;
pub mod servers;
pub mod trees;
pub mod txns;

use std::path::PathBuf;

/// Where `tools/peers.sh` puts what it brings.
pub fn peers() -> PathBuf {
    match std::env::var_os("OSTLER_PEERS") {
        Some(folder) => folder.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/ostler-peers"),
    }
}

/// A number from the environment, or `otherwise`.
pub fn setting(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => otherwise,
    }
}
