//! Sockets made boring: a listener that says clearly why it can't listen, the two buffers of a connection, the alarm of a
//! poll, and how many there may be.

pub mod alarm;
pub mod buffers;
pub mod descriptors;
pub mod listener;
pub mod stream;

pub use alarm::Alarm;
pub use buffers::{Input, Output, Pool};
pub use listener::{Port, listen, take_port};
pub use stream::{BufferedStream, INTERESTS, Lent, Readiness};
