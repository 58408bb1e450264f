//! What an operator's question has to collect: each core knows its connections and watches, the pipeline sessions and
//! the tree. The one who asks leaves a `Gather` with each of them and waits; they add their part when they pass by.
//!
//! Runs on: the admin thread waits; cores (in the feed's order) and the pipeline fill in.

use crate::admin::status::{ConnectionStatus, Mode, NamespaceStatus, SessionConnection, SessionList};
use crate::ids::{SessionId, Zxid};
use crate::limits;
use crate::random::hash_bytes;
use crate::server::io_core::{Connection, Parts, State};
use crate::session::SessionTable;
use crate::tree::{Track, Tree};
use crate::watch::At;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What is asked for; what is not costs nothing.
#[derive(Clone, Copy, Default)]
pub struct Wants {
    pub connections: bool,
    /// Each data watch with its path.
    pub watches: bool,
    /// How many data watches there are, and at what.
    pub watch_counts: bool,
    pub sessions: bool,
    pub digests: bool,
    /// Limits and usage, by namespace.
    pub quotas: bool,
    /// Set the connections' numbers back (`crst`, `srst`).
    pub reset_connections: bool,
    /// Set the sizes of proposals back (`srst`).
    pub reset_proposals: bool,
}

/// The parts, put together.
#[derive(Default)]
pub struct Answers {
    pub connections: Vec<ConnectionStatus>,
    /// Milliseconds from now until each connection is given up for silence.
    pub connection_expiry: Vec<(i64, SocketAddr, SessionId)>,
    pub connection_count: u64,
    /// What of paths has been put together, and that there is more than may be: the rest is missing.
    path_bytes: usize,
    pub is_cut: bool,
    /// A number for each path with a data watch, perhaps several times; and all such watches.
    pub watched: Vec<u64>,
    pub data_watch_count: u64,
    /// (path, session) of each data watch.
    pub watches: Vec<(String, SessionId)>,
    /// Sessions whose connections have or had such a watch.
    pub watchers: Vec<SessionId>,
    pub watch_count: u64,
    pub in_flight: u64,
    pub zxid: Zxid,
    pub node_count: u64,
    pub ephemerals_count: u64,
    pub data_size: i64,
    pub session_count: u64,
    /// What this server is in its ensemble.
    pub mode: Mode,
    /// Voters of the ensemble; 0 of a server that is alone.
    pub quorum_size: u64,
    /// Milliseconds from now until each bucket of sessions expires; on a learner, which does not know, all with their timeouts.
    pub sessions: SessionList,
    pub ephemerals: Vec<(SessionId, Vec<String>)>,
    pub digests: Vec<(Zxid, u64)>,
    pub namespaces: Vec<NamespaceStatus>,
}

impl Answers {
    /// Whether the paths so far, with these, are as many as may be.
    fn has_room_for(&mut self, bytes: usize) -> bool {
        self.path_bytes += bytes;
        self.is_cut |= self.path_bytes > limits::WORD_PATH_BYTES;
        !self.is_cut
    }
}

/// The same for watches at one path, whether they hang on it or on its znode.
fn number(at: At<'_>, tree: &Tree) -> u64 {
    const NO_ZNODE: u64 = 1 << 63;
    match at {
        At::Znode(znode) => u64::from(znode),
        At::Path(path) => match tree.lookup(path) {
            Some(node) => u64::from(node.slot()),
            None => NO_ZNODE | hash_bytes(path.as_bytes()),
        },
    }
}

pub struct Gather {
    wants: Wants,
    state: Mutex<(usize, Answers)>,
    complete: Condvar,
}

impl Gather {
    pub fn wants(&self) -> Wants {
        self.wants
    }

    /// `parts` is how many have to answer.
    pub fn new(wants: Wants, parts: usize) -> Gather {
        Gather { wants, state: Mutex::new((parts, Answers::default())), complete: Condvar::new() }
    }

    /// Waits for all parts; `None` if one does not come in time (the server is stuck), or will not come any more: asked
    /// now and then, `is_over` says so.
    pub fn wait(&self, patience: Duration, is_over: impl Fn() -> bool) -> Option<Answers> {
        const LOOK: Duration = Duration::from_millis(50);
        let mut state = self.state.lock();
        let mut waited = Duration::ZERO;
        while state.0 > 0 && waited < patience && !is_over() {
            self.complete.wait_while_for(&mut state, |(missing, _)| *missing > 0, LOOK);
            waited += LOOK;
        }
        (state.0 == 0).then(|| std::mem::take(&mut state.1))
    }

    fn add(&self, fill: impl FnOnce(&mut Answers)) {
        let mut state = self.state.lock();
        fill(&mut state.1);
        state.0 = state.0.saturating_sub(1);
        self.complete.notify_all();
    }

    /// A core's part. Its watches are in step with the tree.
    pub fn core(&self, parts: &mut Parts, tree: &Tree, silence_max_ms: impl Fn(&Connection) -> u64) {
        let now = parts.now;
        parts.tally.publish();
        self.add(|answers| {
            answers.watch_count += parts.watches.watch_count() as u64;
            answers.connection_count += parts.connections.len() as u64;
            for (_, connection) in &mut parts.connections {
                answers.in_flight += connection.in_flight as u64;
                if self.wants.reset_connections {
                    connection.facts.reset();
                }
                if self.wants.connections {
                    answers.connections.push(status(connection));
                    let left = silence_max_ms(connection) as i64 - now.since(connection.last_heard).as_millis() as i64;
                    answers.connection_expiry.push((left, connection.address, connection.session));
                }
            }
            if self.wants.watches {
                for (path, watchers) in parts.watches.data_watches(|slot| tree.path_of_slot(slot)) {
                    let watchers = watchers.into_iter().filter_map(|conn| parts.connections.get(conn as usize));
                    // One that is being closed may have watched a tree that has been replaced.
                    let watchers = watchers.filter(|connection| connection.state != State::Closing);
                    let before = answers.watches.len();
                    answers.watches.extend(watchers.map(|connection| (path.to_string(), connection.session)));
                    let more = answers.watches.len() - before;
                    if !answers.has_room_for(more * (path.len() + size_of::<(String, SessionId)>())) {
                        break;
                    }
                }
            }
            if self.wants.watch_counts {
                for (at, watchers) in parts.watches.data_places() {
                    let watchers = watchers.into_iter().filter_map(|conn| parts.connections.get(conn as usize));
                    let count = watchers.filter(|connection| connection.state != State::Closing).count();
                    if count > 0 {
                        answers.watched.push(number(at, tree));
                        answers.data_watch_count += count as u64;
                    }
                }
            }
            if self.wants.watches || self.wants.watch_counts {
                let watchers = parts.watches.data_watchers().filter_map(|conn| parts.connections.get(conn as usize));
                let watchers = watchers.filter(|connection| connection.state != State::Closing);
                answers.watchers.extend(watchers.map(|connection| connection.session));
            }
        });
    }

    /// The pipeline's part.
    pub fn pipeline(&self, sessions: &SessionTable, tree: &Tree, mode: Mode, quorum_size: u64) {
        self.add(|answers| {
            answers.mode = mode;
            answers.quorum_size = quorum_size;
            answers.zxid = tree.zxid();
            answers.node_count = tree.node_count() as u64;
            answers.ephemerals_count = tree.ephemeral_count() as u64;
            answers.data_size = tree.approximate_data_size();
            answers.session_count = sessions.len() as u64;
            if self.wants.sessions {
                let by_expiry = || sessions.dump().into_iter().map(|bucket| (bucket.in_ms, bucket.sessions)).collect();
                answers.sessions = match mode {
                    Mode::Standalone | Mode::Leader(_) => SessionList::ByExpiry(by_expiry()),
                    _ => SessionList::Known(sessions.timeouts()),
                };
                let mut owners: Vec<SessionId> = tree.sessions_with_ephemerals().collect();
                owners.sort_unstable();
                answers.ephemerals = owners
                    .into_iter()
                    .map_while(|session| {
                        let mut paths: Vec<String> = Vec::new();
                        for path in tree.ephemerals(session) {
                            if !answers.has_room_for(path.len() + size_of::<String>()) {
                                return None;
                            }
                            paths.push(path);
                        }
                        paths.sort_unstable();
                        Some((session, paths))
                    })
                    .collect();
            }
            if self.wants.quotas {
                answers.namespaces = namespaces(tree);
            }
            if self.wants.digests {
                answers.digests = tree.digest_history().collect();
            }
        });
    }
}

/// Limits and usage of all quotas below each child of the root, added up (upstream: `QuotaMetricsUtils`). Of limits the
/// hard one counts, if there is one. A text that can't be read is passed over.
fn namespaces(tree: &Tree) -> Vec<NamespaceStatus> {
    let mut by_name: BTreeMap<&str, NamespaceStatus> = BTreeMap::new();
    for quota in tree.quotas() {
        let name = quota.path.split('/').nth(1).unwrap_or_default();
        let namespace = by_name.entry(name).or_default();
        let add = |sum: &mut Option<i64>, value: i64| *sum = Some(sum.unwrap_or(0).wrapping_add(value));
        if let Ok(limits) = Track::parse(quota.limits) {
            let harder = |hard: i64, soft: i64| if hard > -1 { hard } else { soft };
            add(&mut namespace.quota_count_limit, harder(limits.count_hard_limit(), limits.count()));
            add(&mut namespace.quota_bytes_limit, harder(limits.byte_hard_limit(), limits.bytes()));
        }
        if let Ok(usage) = Track::parse(quota.stats.flatten()) {
            add(&mut namespace.quota_count_usage, usage.count());
            add(&mut namespace.quota_bytes_usage, usage.bytes());
        }
    }
    let named = by_name.into_iter().map(|(name, status)| NamespaceStatus { name: name.to_owned(), ..status });
    named.collect()
}

fn status(connection: &Connection) -> ConnectionStatus {
    let facts = &connection.facts;
    let session = (connection.session != SessionId::NONE).then_some(SessionConnection {
        id: connection.session,
        last_operation: facts.last_op,
        established_ms: facts.established,
        timeout_ms: connection.timeout_ms,
        last_cxid: facts.last_cxid,
        last_zxid: facts.last_zxid,
        last_response_ms: facts.last_response,
        last_latency_ms: facts.last_latency_ms,
        latency: facts.latency,
    });
    ConnectionStatus {
        peer: connection.address,
        interest: connection.interest(),
        queued: connection.in_flight as u64,
        received: facts.received,
        sent: facts.sent,
        session,
    }
}
