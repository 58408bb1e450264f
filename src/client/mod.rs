//! A blocking ZooKeeper client: what the shell, the tests and the recipes are built on.
//!
//! A `Client` is a handle that can be shared between threads. Every operation is sent at once and returns a [`Handle`];
//! `wait` blocks for the result. So one caller can have many requests in flight, and the simple case stays one line:
//!
//! ```no_run
//! use ostler::client::{Client, CreateMode, Options, Watch, open_acl};
//!
//! # fn main() -> Result<(), ostler::client::Error> {
//! let client = Client::open(Options::new("127.0.0.1:2181/app"), |event| println!("{event}"))?;
//! client.create("/config", Some(b"v1"), &open_acl(), CreateMode::PERSISTENT).wait()?;
//! let (data, stat) = client.get_data("/config", Watch::Default).wait()?;
//! assert_eq!((data.as_deref(), stat.version), (Some(&b"v1"[..]), 0));
//!
//! let writes: Vec<_> = (0..1000).map(|n| client.set_data("/config", Some(format!("v{n}").as_bytes()), -1)).collect();
//! for write in writes {
//!     write.wait()?;
//! }
//! client.close();
//! # Ok(())
//! # }
//! ```
//!
//! Promises: requests of one client reach the server in the order in which they were made; after a lost connection the
//! client looks for another server by itself, with the same session, its identities and its watches; what was in flight
//! fails with `CONNECTION_LOSS`. Leaves to others: retrying.
//!
//! Runs on: any thread; `driver` says what runs behind it.

mod address;
mod driver;
mod error;
mod event;
mod frames;
mod operations;
mod watches;

pub use address::{Chroot, ConnectString, DEFAULT_PORT, check_path};
pub use error::Error;
pub use event::{Event, EventType, State};
pub use operations::{
    Acl, AddWatchMode, CreateMode, Handle, Identity, Op, OpResult, Watch, WatchType, open_acl, perms,
};
pub use watches::Watcher;

use crate::ids::SessionId;
use crate::random::{self, Rng};
use driver::{Driver, Input, Shared};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

/// How to reach the servers.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port,host:port/chroot`; the port may be left out.
    pub connect: String,
    /// The session's timeout as asked for; the server keeps it within its limits. Default 30 s.
    pub timeout: Duration,
    /// Whether a server that takes no writes will do.
    pub read_only: bool,
}

impl Options {
    pub fn new(connect: &str) -> Options {
        Options { connect: connect.into(), timeout: Duration::from_secs(30), read_only: false }
    }
}

/// One session with a ZooKeeper service.
pub struct Client {
    inbox: Sender<Input>,
    shared: Arc<Shared>,
    chroot: Chroot,
    driver: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts to connect and returns at once. `watcher` is told of changes of the session's state and of every watch set
    /// with `Watch::Default`; it runs on the client's own thread and must not wait for this client.
    ///
    /// Errors: `Error::Address` and `Error::Path` for a connect string that makes no sense.
    pub fn open(options: Options, watcher: impl FnMut(&Event) + Send + 'static) -> Result<Client, Error> {
        let mut parsed = ConnectString::parse(&options.connect)?;
        parsed.shuffle(&mut Rng::new(random::seed() ^ std::process::id() as u64));
        let timeout_ms = i32::try_from(options.timeout.as_millis()).unwrap_or(i32::MAX);
        let (sender, inbox) = std::sync::mpsc::channel();
        let shared = Arc::new(Shared::new(timeout_ms));
        let driver = Driver {
            inbox,
            sender: sender.clone(),
            shared: shared.clone(),
            servers: parsed.servers,
            chroot: parsed.chroot.clone(),
            read_only: options.read_only,
            watcher: Box::new(watcher),
            link: Default::default(),
        };
        let thread = std::thread::Builder::new().name("client".into()).spawn(move || driver.run());
        let thread = thread.map_err(|error| Error::Address(format!("cannot start a thread: {error}")))?;
        Ok(Client { inbox: sender, shared, chroot: parsed.chroot, driver: Some(thread) })
    }

    pub fn state(&self) -> State {
        self.shared.get().state
    }

    /// `SessionId::NONE` before the first connection.
    pub fn session_id(&self) -> SessionId {
        self.shared.get().session
    }

    /// The session's timeout as the server granted it; before the first connection, as asked for.
    pub fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.shared.get().timeout_ms.max(0) as u64)
    }

    /// Waits until the session is connected or over, at most for `wait`; the state then.
    pub fn wait_connected(&self, wait: Duration) -> State {
        self.shared.wait(wait, |inner| inner.state.is_connected() || inner.state.is_final()).state
    }

    /// Adds an identity, now and on every later connection. A server that refuses it ends the session (`AuthFailed`).
    pub fn add_auth(&self, scheme: &str, auth: &[u8]) {
        let _ = self.inbox.send(Input::Auth { scheme: scheme.into(), auth: auth.into() });
    }

    /// Closes the session: its ephemerals are gone when this returns, if the server could be told. Dropping does the same.
    pub fn close(self) {}

    /// Ends the use of this client without closing the session, which lives until its timeout; ephemerals stay as long.
    pub fn abandon(mut self) {
        // Its thread ends with the process.
        self.driver = None;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Some(driver) = self.driver.take() else { return };
        let _ = self.inbox.send(Input::Close);
        // The watcher may own the last handle of its own client: the driver can't wait for itself.
        if driver.thread().id() != std::thread::current().id() {
            let _ = driver.join();
        }
    }
}

#[cfg(test)]
mod tests;
