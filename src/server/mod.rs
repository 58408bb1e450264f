//! The threads, and how they talk. Everything that decides something lives below; here it is given sockets, files and
//! clocks.
//!
//! | file | thread |
//! | --- | --- |
//! | `io_core` | one core: accept, decode, read or queue, feed, reply |
//! | `pipeline` | requests to prepare to zab to log to apply to feed |
//! | `log_writer` | the log's segments and their sync |
//! | `snapshotter` | snapshot files and purge |
//! | `helper` | the log's next segment, purged files |
//! | `log_rate` | how many lines a thread may write about connections |
//! | `admin_thread` | answers to four-letter words |
//! | `boot` | the way up and the way down |

pub mod admin_thread;
pub mod admission;
pub mod boot;
pub mod ensemble;
pub mod feed;
pub mod helper;
pub mod io_core;
pub mod log_rate;
pub mod log_writer;
pub mod pipeline;
pub mod queue;
pub mod recovery;
pub mod reports;
pub mod shared;
pub mod snapshotter;
pub mod tree_lock;
