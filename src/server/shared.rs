//! What the threads of a server have in common: settings that don't change, queues, doorbells, counters.

use crate::admin::Whitelist;
use crate::auth::AuthRules;
use crate::fatal::Fatal;
use crate::metrics::Metrics;
use crate::server::admin_thread::AdminQueue;
use crate::server::admission::Admission;
use crate::server::feed::Feed;
use crate::server::queue::{CoreQueue, Doorbell};
use crate::server::reports::Gather;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The part of the configuration that the threads need while they run, in their units.
pub struct Settings {
    pub tick_ms: u64,
    pub session_timeout_min_ms: i32,
    pub session_timeout_max_ms: i32,
    /// `jute.maxbuffer`: the largest frame that a client may send.
    pub frame_max: usize,
    /// What the watches of one connection may take (`ostler.connectionWatchBytes`).
    pub watch_bytes: usize,
    /// What may wait to be sent by one core (`ostler.coreOutputBytes`).
    pub core_output_bytes: usize,
    /// A connection that never asks for a session is closed after this (`nio.sessionlessCnxnTimeout`).
    pub sessionless_ms: u64,
    /// SO_KEEPALIVE on client sockets (`clientTcpKeepAlive`).
    pub tcp_keep_alive: bool,
    pub auth: AuthRules,
    pub words: Whitelist,
    /// The cores leave a processor free, and may run there.
    pub has_spare_processor: bool,
}

/// One I/O core as the others see it.
pub struct CoreLink {
    pub feed: Feed,
    pub queue: CoreQueue,
    pub bell: Doorbell,
    /// Connections that the acceptor has chosen this core for.
    pub arrivals: Arrivals,
    /// Open connections, arrivals included: a new one goes to the core with the fewest.
    pub connections: AtomicUsize,
    pub watches: Arc<crate::watch::WatchFilter>,
}

/// Accepted connections on their way to a core, which looks in each of its turns.
#[derive(Default)]
pub struct Arrivals {
    waiting: AtomicBool,
    list: Mutex<Vec<Arrival>>,
}

pub type Arrival = (mio::net::TcpStream, SocketAddr);

impl Arrivals {
    pub fn push(&self, arrival: Arrival) {
        self.list.lock().push(arrival);
        self.waiting.store(true, Ordering::SeqCst);
    }

    pub fn is_empty(&self) -> bool {
        !self.waiting.load(Ordering::SeqCst)
    }

    pub fn take(&self) -> Vec<Arrival> {
        self.waiting.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.list.lock())
    }
}

pub struct Shared {
    pub settings: Settings,
    pub cores: Vec<CoreLink>,
    pub pipeline_bell: Doorbell,
    /// Reports that the pipeline is asked for.
    pub pipeline_reports: Mutex<Vec<Arc<Gather>>>,
    pub admission: Admission,
    pub admin: AdminQueue,
    pub metrics: Arc<Metrics>,
    pub auth_failed: AtomicU64,
    /// Clients may have sessions here: always, but in an ensemble only as part of a quorum. Odd while they may; it is raised
    /// with each change, so that what was read from a client before one can be told from what was read after it.
    serving: AtomicU64,
    stopping: AtomicBool,
    failed: AtomicBool,
    /// Why, if it was a reason of the disk's: the first one.
    reason: Mutex<Option<Fatal>>,
    cores_running: AtomicUsize,
    /// Last applied zxid, for those that must not wait for the tree.
    pub applied: AtomicU64,
}

impl Shared {
    pub fn new(
        settings: Settings,
        cores: Vec<CoreLink>,
        pipeline_bell: Doorbell,
        admission: Admission,
        admin: AdminQueue,
        metrics: Arc<Metrics>,
    ) -> Shared {
        let cores_running = AtomicUsize::new(cores.len());
        Shared {
            settings,
            cores,
            pipeline_bell,
            pipeline_reports: Mutex::default(),
            admission,
            admin,
            metrics,
            auth_failed: AtomicU64::new(0),
            serving: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            reason: Mutex::default(),
            cores_running,
            applied: AtomicU64::new(0),
        }
    }

    pub fn is_serving(&self) -> bool {
        self.serving_term() % 2 == 1
    }

    /// Which of the times of serving, or between two of them, this is.
    pub fn serving_term(&self) -> u64 {
        self.serving.load(Ordering::SeqCst)
    }

    /// Only the pipeline's thread and the starting one call this.
    pub fn set_serving(&self, serving: bool) {
        if self.is_serving() != serving {
            self.serving.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Asks every thread to end; each looks when it is woken.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for core in &self.cores {
            core.bell.ring();
        }
        self.pipeline_bell.ring();
    }

    /// Something is broken that nothing may be answered after: threads end without waiting for what is under way.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.stop();
    }

    /// As `fail`, with what to tell the operator.
    pub fn fail_because(&self, fatal: Fatal) {
        tracing::error!("{fatal}; stopping, nothing more is acknowledged");
        self.reason.lock().get_or_insert(fatal);
        self.fail();
    }

    pub fn take_reason(&self) -> Option<Fatal> {
        self.reason.lock().take()
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    pub fn core_ended(&self) {
        self.cores_running.fetch_sub(1, Ordering::SeqCst);
        self.pipeline_bell.ring();
    }

    pub fn cores_have_ended(&self) -> bool {
        self.cores_running.load(Ordering::SeqCst) == 0
    }
}
