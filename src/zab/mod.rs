//! The consensus core: decides order and commitment, and knows neither paths nor sessions nor sockets.
//!
//! State machines without I/O, clock or threads: typed inputs in, typed outputs out, each output saying when it may be
//! done. A standalone server is a leader whose quorum is itself.

pub mod ensemble;
pub mod leading;
pub mod quorum;

pub use leading::{Input, Leading, Output};
