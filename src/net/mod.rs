//! Sockets made boring: a listener that says clearly why it can't listen, and the two buffers of a connection.

pub mod buffers;
pub mod listener;
pub mod stream;

pub use buffers::{Input, Output, Pool};
pub use listener::{Port, listen, take_port};
pub use stream::{BufferedStream, Lent, Readiness};
