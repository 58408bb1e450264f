//! What answers are made of. Plain values, copied by whoever owns them.
//!
//! The I/O cores know connections and watches, the pipeline sessions, tree and log; each fills in its part.
//!
//! Runs on: whichever thread answers.

use crate::ids::{ServerId, SessionId, Zxid};
use crate::metrics::Totals;
use std::net::SocketAddr;

/// What a server is in its ensemble, while it serves. One that looks for a leader is none of these: `not_serving`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    #[default]
    Standalone,
    Leader(LeaderStatus),
    Follower,
    Observer {
        /// Whom it learns from: the leader.
        master: ServerId,
    },
    /// Without a leader, for clients that only read.
    ReadOnly,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Standalone => "standalone",
            Mode::Leader(_) => "leader",
            Mode::Follower => "follower",
            Mode::Observer { .. } => "observer",
            Mode::ReadOnly => "read-only",
        }
    }

    /// What `mntr` calls `peer_state`. `None` for a server that belongs to no quorum.
    pub fn peer_state(self) -> Option<&'static str> {
        match self {
            Mode::Standalone | Mode::ReadOnly => None,
            Mode::Leader(_) => Some("leading - broadcast"),
            Mode::Follower => Some("following - broadcast"),
            Mode::Observer { .. } => Some("observing - broadcast"),
        }
    }
}

/// What only a leader knows. Its default is a leader without learners that has proposed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaderStatus {
    pub proposal_sizes: ProposalSizes,
    /// Learners that are connected, synchronised or not.
    pub learners: u64,
    /// Participants among the synchronised learners; the leader itself is none.
    pub synced_followers: u64,
    /// Followers that are no participants in the configuration in force.
    pub synced_non_voting_followers: u64,
    pub synced_observers: u64,
    /// Requests for `sync` that wait for a proposal to be committed.
    pub pending_syncs: u64,
    /// Since it began to lead.
    pub uptime_ms: u64,
}

/// Bytes of the last, smallest and largest proposal: the transaction as it is sent, header included. Of one leader, since
/// it began to lead or since `srst`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProposalSizes {
    /// All -1 before the first.
    pub last: i64,
    pub min: i64,
    pub max: i64,
}

impl Default for ProposalSizes {
    fn default() -> ProposalSizes {
        ProposalSizes { last: -1, min: -1, max: -1 }
    }
}

impl ProposalSizes {
    pub fn observe(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.min = if self.min < 0 { bytes } else { self.min.min(bytes) };
        self.max = self.max.max(bytes);
        self.last = bytes;
    }
}

/// For `srvr`, `stat` and `mntr`.
#[derive(Clone, PartialEq, Debug)]
pub struct ServerStatus {
    pub mode: Mode,
    /// Voting members of the ensemble. Shown where `Mode::peer_state` is.
    pub quorum_size: u64,
    /// The last one applied.
    pub zxid: Zxid,
    /// As ZooKeeper counts: one more than there are znodes, since it files the root under two names.
    pub node_count: u64,
    pub ephemerals_count: u64,
    /// Bytes of paths and data.
    pub approximate_data_size: u64,
    /// Watches of both kinds, data and child.
    pub watch_count: u64,
    pub global_sessions: u64,
    pub local_sessions: u64,
    /// Open connections, the one that asks included.
    pub connections: u64,
    /// Requests received and not answered.
    pub outstanding: u64,
    pub uptime_ms: u64,
    pub open_file_descriptors: u64,
    pub max_file_descriptors: u64,
    /// Since the start; `srst` doesn't set it back.
    pub auth_failed: u64,
    /// 0 to 1.
    pub connection_drop_probability: f64,
    /// Connections without TLS, from this host and from others; ZooKeeper counts them only where there is TLS.
    pub non_mtls_local_connections: u64,
    pub non_mtls_remote_connections: u64,
    /// Sorted by name.
    pub namespaces: Vec<NamespaceStatus>,
    /// By learner. ZooKeeper shows those that it has had since its start, also when it leads no more.
    pub learner_queues: Vec<LearnerQueueStatus>,
}

/// What a leader has counted for one learner. A `None` has no line in `mntr`, as before the first observation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LearnerQueueStatus {
    pub learner: ServerId,
    /// `learner_handler_qp_size`: packets that wait to be sent to it.
    pub size: Option<Totals>,
    /// `learner_handler_qp_time_ms`: how long they wait.
    pub time_ms: Option<Spread>,
    /// `ack_latency`, in milliseconds: from a proposal to its acknowledgement.
    pub ack_latency: Option<Spread>,
}

/// Totals with percentiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    pub totals: Totals,
    /// p50, p95, p99 and p999.
    pub percentiles: [u64; 4],
}

/// What happened and what is allowed below one child of the root. A `None` has no line in `mntr`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamespaceStatus {
    /// The child's name.
    pub name: String,
    /// Bytes of requests: path, data and, of reads, the Stat.
    pub reads: Option<Totals>,
    pub writes: Option<Totals>,
    pub quota_exceeded: Option<u64>,
    pub quota_count_limit: Option<i64>,
    pub quota_bytes_limit: Option<i64>,
    pub quota_count_usage: Option<i64>,
    pub quota_bytes_usage: Option<i64>,
}

/// For `stat` and `cons`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionStatus {
    pub peer: SocketAddr,
    /// What the event loop waits for: 1 to read, 4 to write, 5 both, 0 neither (as the connection that asks).
    pub interest: u8,
    /// Requests of this connection that are not answered.
    pub queued: u64,
    pub received: u64,
    pub sent: u64,
    pub session: Option<SessionConnection>,
}

/// The part of a connection's status that is there once it has a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionConnection {
    pub id: SessionId,
    /// The last operation in four to six letters, `NA` if there was none (or since `crst`).
    pub last_operation: &'static str,
    /// Wall time.
    pub established_ms: i64,
    pub timeout_ms: i32,
    /// The last request's xid; negative: none to show.
    pub last_cxid: i32,
    /// As it was in the last reply's header; -1: none since `crst`.
    pub last_zxid: i64,
    /// Monotonic; 0: none since `crst`.
    pub last_response_ms: u64,
    pub last_latency_ms: u64,
    /// Milliseconds from request to reply.
    pub latency: Totals,
}

/// For `wchs`: data watches, so exists and getData; not those on children.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WatchSummary {
    pub connections: u64,
    pub paths: u64,
    pub watches: u64,
}

/// For `wchc`: a session's data watches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionWatches {
    pub session: SessionId,
    pub paths: Vec<String>,
}

/// For `wchp`: a path's data watches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathWatches {
    pub path: String,
    pub sessions: Vec<SessionId>,
}

/// For `dump`. Times are wall times in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionDump {
    pub sessions: SessionList,
    /// The paths that go with each session.
    pub ephemerals: Vec<(SessionId, Vec<String>)>,
    /// Connections by when they are given up, in order.
    pub connections: Vec<(i64, Vec<(SocketAddr, SessionId)>)>,
}

/// The sessions of the ensemble, as one of its servers knows them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionList {
    /// A server that decides when they expire, standalone or leader: by when they do, in order.
    ByExpiry(Vec<(i64, Vec<SessionId>)>),
    /// A follower, an observer, or a server in read-only mode: ascending, with their timeouts in milliseconds.
    Known(Vec<(SessionId, i32)>),
}

impl Default for SessionList {
    fn default() -> SessionList {
        SessionList::ByExpiry(Vec::new())
    }
}
