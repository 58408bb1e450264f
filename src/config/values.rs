//! What a server is told before it starts, checked, typed and with units: the only form in which settings travel.
//!
//! Each field names its key. Keys without a field are in `keys.rs` with the reason, and so is which of the fields nothing acts
//! on yet.
//!
//! Runs on: the starting thread; read by all.

use super::ensemble::Ensemble;
use crate::ids::OwnerRules;
use crate::limits;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Default of `snapCount`.
pub const SNAP_COUNT: u32 = 100_000;

/// The settings of one server.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,

    /// `dataDir`: snapshots. Files live in `version-2` below it, see [`Config::snapshot_dir`].
    pub data_dir: PathBuf,
    /// `dataLogDir`: the log; `dataDir` if not set.
    pub data_log_dir: PathBuf,
    /// `datadir.autocreate`: missing directories are made at start.
    pub datadir_autocreate: bool,
    /// This server's id in `server.N`, or 0 where there is no such line, as `conf` prints it.
    pub server_id: u64,
    /// The other servers, and what concerns them. `None`: this server stands alone.
    pub ensemble: Option<Ensemble>,

    /// `clientPort`. 0: the system chooses.
    pub client_port: u16,
    /// Port and address are those of a `server.N` line; `clientPort` is absent, or the same.
    pub client_port_from_server_line: bool,
    /// `clientPortAddress`. `None`: all interfaces, IPv4 and IPv6.
    pub client_port_address: Option<IpAddr>,
    /// `secureClientPort`, which isn't opened in this build; `conf` prints it.
    pub secure_client_port: Option<u16>,
    /// `clientPortListenBacklog`. `None`: the default, which `conf` prints as -1.
    pub client_port_listen_backlog: Option<u32>,
    /// `maxClientCnxns`: connections of one client address; 0: no limit.
    pub max_client_cnxns: u32,
    /// `maxCnxns`: connections of all clients; 0: no limit.
    pub max_cnxns: u32,
    /// `clientTcpKeepAlive`: SO_KEEPALIVE on client sockets.
    pub client_tcp_keep_alive: bool,
    /// `nio.sessionlessCnxnTimeout`: a socket that opens no session is closed after this.
    pub sessionless_cnxn_timeout_ms: u64,

    /// `tickTime`.
    pub tick_time_ms: u32,
    /// `minSessionTimeout`: the lower clamp in session negotiation.
    pub min_session_timeout_ms: u32,
    /// `maxSessionTimeout`: the upper clamp. Never below the lower one.
    pub max_session_timeout_ms: u32,

    /// `jute.maxbuffer`: the largest request frame in bytes.
    pub jute_max_buffer: usize,
    /// `jute.maxbuffer.extrasize`: what records of the log and of snapshots may have beyond that.
    pub jute_max_buffer_extra: usize,
    /// `globalOutstandingLimit`: requests in the server before it stops reading from clients that have some.
    pub global_outstanding_limit: u32,
    /// `largeRequestThreshold`: requests of more bytes count as large. `None`: off.
    pub large_request_threshold: Option<u32>,
    /// `largeRequestMaxBytes`: bytes of large requests in the server at once.
    pub large_request_max_bytes: u32,
    /// `maxResponseCacheSize`, `maxGetChildrenResponseCacheSize`: how many encoded replies may be kept; 0: none.
    pub max_response_cache_size: u32,
    pub max_get_children_response_cache_size: u32,
    /// `connection_throttle_*`. `None`: off.
    pub connection_throttle: Option<ConnectionThrottle>,
    /// `request_throttle_*`. `None`: off.
    pub request_throttle: Option<RequestThrottle>,
    /// `request_throttler.shutdownTimeout`: how long requests may finish when the server stops.
    pub shutdown_timeout_ms: u64,

    /// `extendedTypesEnabled`, `emulate353TTLNodes`.
    pub owner_rules: OwnerRules,
    /// `enforceQuota`: hard limits refuse.
    pub enforce_quota: bool,
    /// `reconfigEnabled`: `reconfig` is answered UNIMPLEMENTED instead of RECONFIGDISABLED.
    pub reconfig_enabled: bool,
    /// `digest.enabled`: the digest of the tree is kept and logged.
    pub digest_enabled: bool,
    /// `closeSessionTxn.enabled`: the transaction that closes a session carries the paths that go with it.
    pub close_session_txn_enabled: bool,
    /// `znode.container.*`.
    pub containers: Containers,

    /// `skipACL`: no permission is checked. Only the exact value `yes` does that.
    pub skip_acl: bool,
    /// `DigestAuthenticationProvider.enabled`: the scheme `digest` exists.
    pub digest_auth_enabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`: Java's name of the hash, in capitals; one that `auth` knows.
    pub digest_alg: String,
    /// `enforce.auth.schemes` where `enforce.auth.enabled`: a client needs an identity of one of them for any request.
    /// Empty: nothing is enforced. Only schemes that this build has.
    pub required_auth_schemes: Vec<String>,
    /// `DigestAuthenticationProvider.superDigest`: `super:` and a Base64 hash; who presents it may do anything.
    pub super_digest: Option<String>,

    /// `snapCount`: a snapshot after a random number of transactions in snapCount/2 up to this; at least 2. `SNAP_COUNT`
    /// adapts to the size of the tree.
    pub snap_count: u32,
    /// `snapSizeLimitInKb`, in bytes: a snapshot also after so much log. `None`: off.
    pub snap_size_limit_bytes: Option<u64>,
    /// `txnLogSizeLimitInKb`, in bytes: a new log file after so much. `None`: off.
    pub txn_log_size_limit_bytes: Option<u64>,
    /// `preAllocSize`, in bytes. `None`: not set, so that the log chooses.
    pub pre_alloc_bytes: Option<u64>,
    /// `forceSync`: false (the exact value `no`) acknowledges writes before they are on disk.
    pub force_sync: bool,
    /// `fsync.warningthresholdms`: a slower sync is worth a line in the log.
    pub fsync_warning_threshold_ms: u64,
    /// `flushDelay`: how long a write may wait for others to share its sync.
    pub flush_delay_ms: u64,
    /// `maxBatchSize`: transactions of one sync.
    pub max_batch_size: u32,
    /// `autopurge.*`.
    pub purge: Purge,

    /// `4lw.commands.whitelist`.
    pub four_letter_words: WordList,
    /// `readonlymode.enabled`; of a standalone server it only opens the word `isro`.
    pub read_only_mode: bool,

    /// `ostler.epochTransactions`: the leader of an ensemble opens a new epoch after so many transactions.
    pub epoch_transactions: u32,
    /// `ostler.connectionWatchBytes`: what the watches of one connection may take in memory.
    pub connection_watch_bytes: usize,
    /// `ostler.coreOutputBytes`: what may wait to be sent by one of these threads.
    pub core_output_bytes: usize,
    /// `ostler.cores`: threads for client connections.
    pub cores: usize,
    /// `ostler.pinCores`: threads are bound to processors. By default where there are four or more.
    pub pin_cores: bool,
}

impl Config {
    /// Where snapshots are.
    pub fn snapshot_dir(&self) -> PathBuf {
        self.data_dir.join("version-2")
    }

    /// Where the log is. `snapshot_dir`, letter by letter, where `dataLogDir` is only another name of that directory (a link):
    /// one directory is locked once, and holds both.
    pub fn log_dir(&self) -> PathBuf {
        let (snapshots, log) = (self.snapshot_dir(), self.data_log_dir.join("version-2"));
        if is_same_dir(&snapshots, &log) { snapshots } else { log }
    }

    /// What a server without a file has, on a machine with `processors` processors. What the others start from.
    pub fn defaults(processors: usize) -> Config {
        Config {
            file: None,
            data_dir: PathBuf::from("ostler-data"),
            data_log_dir: PathBuf::from("ostler-data"),
            datadir_autocreate: true,
            server_id: 0,
            ensemble: None,
            client_port: 2181,
            client_port_from_server_line: false,
            client_port_address: None,
            secure_client_port: None,
            client_port_listen_backlog: None,
            max_client_cnxns: 60,
            max_cnxns: 0,
            client_tcp_keep_alive: false,
            sessionless_cnxn_timeout_ms: 10_000,
            tick_time_ms: 2_000,
            min_session_timeout_ms: 4_000,
            max_session_timeout_ms: 40_000,
            jute_max_buffer: limits::JUTE_MAXBUFFER,
            jute_max_buffer_extra: limits::JUTE_MAXBUFFER,
            global_outstanding_limit: 1_000,
            large_request_threshold: None,
            large_request_max_bytes: 100 << 20,
            max_response_cache_size: 400,
            max_get_children_response_cache_size: 400,
            connection_throttle: None,
            request_throttle: None,
            shutdown_timeout_ms: 10_000,
            owner_rules: OwnerRules::default(),
            enforce_quota: false,
            reconfig_enabled: false,
            digest_enabled: true,
            close_session_txn_enabled: true,
            containers: Containers { check_interval_ms: 60_000, max_per_minute: 10_000, max_never_used_ms: 0 },
            skip_acl: false,
            digest_auth_enabled: true,
            digest_alg: "SHA1".into(),
            required_auth_schemes: Vec::new(),
            super_digest: None,
            snap_count: SNAP_COUNT,
            snap_size_limit_bytes: Some(4 << 30),
            txn_log_size_limit_bytes: None,
            pre_alloc_bytes: None,
            force_sync: true,
            fsync_warning_threshold_ms: 1_000,
            flush_delay_ms: 0,
            max_batch_size: 1_000,
            purge: Purge { snap_retain_count: 3, when: PurgeWhen::AfterSnapshot },
            four_letter_words: WordList::default(),
            read_only_mode: false,
            connection_watch_bytes: limits::CONNECTION_WATCH_BYTES,
            core_output_bytes: limits::CORE_OUTPUT_BYTES,
            cores: default_cores(processors),
            epoch_transactions: limits::EPOCH_TRANSACTIONS,
            pin_cores: processors >= 4,
        }
    }
}

/// One I/O core a processor, but one processor is left to the pipeline and the log writer.
pub fn default_cores(processors: usize) -> usize {
    processors.saturating_sub(1).max(1)
}

/// A token bucket for new sessions, with a chance of refusal that rises while it is empty.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnectionThrottle {
    /// Size of the bucket; above 0.
    pub tokens: u32,
    pub fill_time_ms: u32,
    pub fill_count: u32,
    /// Between two changes of the chance of refusal. `None`: it stays 0.
    pub freeze_time_ms: Option<u32>,
    /// Chances are within 0 and 1.
    pub drop_increase: f64,
    pub drop_decrease: f64,
    pub decrease_ratio: f64,
    /// Tokens by kind of session; 1 each unless weights are enabled.
    pub global_session_weight: u32,
    pub local_session_weight: u32,
    pub renew_session_weight: u32,
}

/// Requests wait before the pipeline while more than `max_requests` are in it.
#[derive(Clone, PartialEq, Debug)]
pub struct RequestThrottle {
    pub max_requests: u32,
    pub stall_time_ms: u32,
    /// Requests of connections that are gone are dropped instead of done.
    pub drop_stale: bool,
    pub stale_latency_check: bool,
    pub stale_connection_check: bool,
    /// A request that waited longer is answered THROTTLEDOP. `None`: off.
    pub throttled_op_wait_ms: Option<u32>,
}

/// How containers and nodes with a time to live are looked after.
#[derive(Clone, PartialEq, Debug)]
pub struct Containers {
    /// 0: never.
    pub check_interval_ms: u64,
    pub max_per_minute: u32,
    /// A container that never had children goes after this; 0: stays.
    pub max_never_used_ms: u64,
}

/// Which old snapshots and log files go.
#[derive(Clone, PartialEq, Debug)]
pub struct Purge {
    /// Snapshots kept, with the log from the oldest of them on; at least 3.
    pub snap_retain_count: u32,
    pub when: PurgeWhen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeWhen {
    /// `autopurge.purgeInterval=0`.
    Never,
    /// At start and every so many hours.
    EveryHours(u32),
    /// The interval is not set. ZooKeeper then keeps everything until the disk is full.
    AfterSnapshot,
}

/// The value of `4lw.commands.whitelist`. `srvr` is always allowed and not listed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WordList {
    pub all: bool,
    pub words: Vec<String>,
}

impl WordList {
    /// Words are separated by commas, blanks around them are dropped, `*` anywhere allows all.
    pub fn parse(text: &str) -> WordList {
        let mut list = WordList::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if word == "*" {
                list.all = true;
            } else if !list.words.iter().any(|known| known == word) {
                list.words.push(word.to_owned());
            }
        }
        list
    }
}

/// Whether two paths lead to one directory, or will when the last part of each has been made.
fn is_same_dir(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    match (id(one), id(other)) {
        (None, None) if one.file_name() == other.file_name() => {
            let parents = (one.parent().and_then(id), other.parent().and_then(id));
            parents.0.is_some() && parents.0 == parents.1
        }
        (one, other) => one.is_some() && one == other,
    }
}
