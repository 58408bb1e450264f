//! The sockets between the servers of an ensemble, on the pipeline's poll: the election port (`election_net`), the quorum
//! port (`quorum_net`), the names behind it (`resolver`), what a learner is sent that is not in memory (`outflow`); and
//! where this server itself is found (`own_ports`).
//!
//! They move bytes and know connections; what is said on them is `zab`'s, and what it means for requests and the tree is
//! the pipeline's.

pub mod election_net;
pub mod outflow;
pub mod own_ports;
pub mod quorum_net;
pub mod resolver;
