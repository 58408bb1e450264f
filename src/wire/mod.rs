//! Bytes to meaning and back, for everything that ZooKeeper puts on a wire or into a log. No I/O, no state.
//!
//! `reader` and `writer` are jute (upstream: `BinaryInputArchive`, `BinaryOutputArchive`); `client` has what clients and
//! servers say to each other, `quorum` and `election` what servers say among themselves, `txn` the transactions as they are
//! logged and proposed. Offsets, opcodes and error numbers live here only.

pub mod client;
pub mod election;
pub mod error_code;
pub mod multi;
pub mod opcode;
pub mod quorum;
pub mod reader;
pub mod stat;
pub mod txn;
pub mod writer;

pub use error_code::ErrorCode;
pub use opcode::OpCode;
pub use reader::{Malformed, Reader};
pub use stat::Stat;
