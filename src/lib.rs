//! Ostler: a coordination service that takes Apache ZooKeeper's place.
//!
//! The modules below stand in the order in which they may know each other: each one only those above its own level.
//! `docs/architecture.md` is the map; `tests/tidy.rs` holds it.

// Level 0: words.
pub mod clock;
pub mod fatal;
pub mod hosts;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod random;

// Level 1: bytes.
pub mod config;
pub mod disk;
pub mod wire;

// Level 2: things with state, each alone.
pub mod auth;
pub mod client;
pub mod log;
pub mod net;
pub mod session;
pub mod tree;
pub mod watch;
pub mod zab;

// Level 3: two things meet.
pub mod admin;
pub mod prepare;
pub mod read;
pub mod snapshot;

// Level 4: one history of several files.
pub mod storage;

// Level 5: threads.
pub mod server;

// Level 6: commands.
pub mod cli;
