//! Answers the four-letter words that have to be collected, and those that take time: asks cores and pipeline, makes the
//! text, hands it to the core that holds the connection.
//!
//! Runs on: a thread of its own, asleep unless asked.

use crate::admin::status::{PathWatches, ServerStatus, SessionDump, SessionList, SessionWatches, WatchSummary};
use crate::admin::{self, Environment, Word};
use crate::clock::{self, Now};
use crate::config::Config;
use crate::ids::SessionId;
use crate::limits;
use crate::server::feed::{Entry, FeedBatch};
use crate::server::queue::ConnId;
use crate::server::reports::{Answers, Gather, Wants};
use crate::server::shared::Shared;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the others may take to add their part.
const PATIENCE: Duration = Duration::from_secs(5);

/// A word that a connection has sent.
pub struct FourLetterRequest {
    pub word: Word,
    /// The eight bytes behind `stmk`.
    pub mask: Option<i64>,
    pub conn: ConnId,
}

/// Words that wait to be answered.
#[derive(Default)]
pub struct AdminQueue {
    waiting: Mutex<(VecDeque<FourLetterRequest>, bool)>,
    arrived: Condvar,
}

impl AdminQueue {
    /// `false` when too many wait already: then the connection is closed.
    pub fn ask(&self, request: FourLetterRequest) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.0.len() >= limits::FOUR_LETTER_PENDING {
            return false;
        }
        waiting.0.push_back(request);
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    pub fn stop(&self) {
        self.waiting.lock().1 = true;
        self.arrived.notify_one();
    }

    fn next(&self) -> Option<FourLetterRequest> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.1 {
                return None;
            }
            if let Some(request) = waiting.0.pop_front() {
                return Some(request);
            }
            self.arrived.wait(&mut waiting);
        }
    }
}

pub struct AdminThread {
    config: Config,
    /// Text of the ensemble's configuration.
    membership: Option<String>,
    address: SocketAddr,
    shared: Arc<Shared>,
    started: Now,
    trace_mask: i64,
}

impl AdminThread {
    pub fn new(config: Config, membership: Option<String>, address: SocketAddr, shared: Arc<Shared>) -> AdminThread {
        AdminThread { config, membership, address, shared, started: clock::now(), trace_mask: admin::TRACE_MASK }
    }

    /// Until the queue is stopped.
    pub fn run(mut self) {
        while let Some(request) = self.shared.admin.next() {
            let text = self.answer(&request).unwrap_or_else(|| admin::NOT_SERVING.to_string());
            let core = &self.shared.cores[request.conn.core()];
            let mut batch = FeedBatch::default();
            batch.entries.push_back(Entry::Text { conn: request.conn, text });
            core.feed.push(&mut batch);
            core.bell.ring();
        }
    }

    /// `None` if the server does not answer itself: it is stopping.
    fn answer(&mut self, request: &FourLetterRequest) -> Option<String> {
        if !self.shared.is_serving()
            && let Some(text) = admin::not_serving(request.word)
        {
            return Some(text.to_string());
        }
        let metrics = &self.shared.metrics;
        Some(match request.word {
            Word::Ruok | Word::Isro => unreachable!("a core answers these itself"),
            Word::Gtmk => admin::trace_mask(self.trace_mask),
            Word::Stmk => {
                self.trace_mask = request.mask.unwrap_or(self.trace_mask);
                admin::trace_mask(self.trace_mask)
            }
            Word::Envi => admin::envi(&Environment::of_this_process()),
            Word::Conf => {
                let (data, log) = self.dir_bytes();
                admin::conf(&self.config, self.address.port(), data, log, self.membership.as_deref())
            }
            Word::Dirs => {
                let (data, log) = self.dir_bytes();
                admin::dirs(data, log)
            }
            Word::Srvr => admin::srvr(&self.status(&self.gather(Wants::default())?), metrics),
            Word::Mntr => {
                let answers = self.gather(Wants { quotas: true, ..Wants::default() })?;
                let namespaces = answers.namespaces.clone();
                admin::mntr(&ServerStatus { namespaces, ..self.status(&answers) }, metrics)
            }
            Word::Stat => {
                let answers = self.gather(Wants { connections: true, ..Wants::default() })?;
                admin::stat(&self.status(&answers), metrics, &answers.connections)
            }
            Word::Cons => admin::cons(&self.gather(Wants { connections: true, ..Wants::default() })?.connections),
            Word::Crst => {
                self.gather(Wants { reset_connections: true, ..Wants::default() })?;
                admin::CRST.to_string()
            }
            Word::Srst => {
                // Whatever the cores have counted by then goes, too.
                self.gather(Wants { reset_proposals: true, ..Wants::default() })?;
                metrics.reset();
                admin::SRST.to_string()
            }
            Word::Hash => admin::hash(&self.gather(Wants { digests: true, ..Wants::default() })?.digests),
            Word::Dump => {
                let answers = self.gather(Wants { sessions: true, connections: true, ..Wants::default() })?;
                match answers.is_cut {
                    true => too_many_paths("mntr counts the ephemeral nodes"),
                    false => admin::dump(&self.dump(answers)),
                }
            }
            Word::Wchs => {
                let mut answers = self.gather(Wants { watch_counts: true, ..Wants::default() })?;
                let count = |distinct: &mut Vec<u64>| {
                    distinct.sort_unstable();
                    distinct.dedup();
                    distinct.len() as u64
                };
                let mut sessions = answers.watchers.iter().map(|session| session.0 as u64).collect();
                admin::wchs(&WatchSummary {
                    connections: count(&mut sessions),
                    paths: count(&mut answers.watched),
                    watches: answers.data_watch_count,
                })
            }
            Word::Wchc | Word::Wchp => {
                let answers = self.gather(Wants { watches: true, ..Wants::default() })?;
                match request.word {
                    _ if answers.is_cut => too_many_paths("wchs counts the watches"),
                    Word::Wchc => admin::wchc(&by_session(&answers)),
                    _ => admin::wchp(&by_path(&answers.watches)),
                }
            }
        })
    }

    fn gather(&self, wants: Wants) -> Option<Answers> {
        let gather = Arc::new(Gather::new(wants, self.shared.cores.len() + 1));
        for core in &self.shared.cores {
            let mut batch = FeedBatch::default();
            batch.entries.push_back(Entry::Report(gather.clone()));
            core.feed.push(&mut batch);
            core.bell.ring();
        }
        self.shared.pipeline_reports.lock().push(gather.clone());
        self.shared.pipeline_bell.ring();
        gather.wait(PATIENCE, || self.shared.cores_have_ended())
    }

    fn status(&self, answers: &Answers) -> ServerStatus {
        let queued: usize = self.shared.cores.iter().map(|core| core.queue.len()).sum();
        ServerStatus {
            mode: answers.mode,
            quorum_size: answers.quorum_size,
            zxid: answers.zxid,
            node_count: answers.node_count,
            ephemerals_count: answers.ephemerals_count,
            approximate_data_size: answers.data_size.max(0) as u64,
            watch_count: answers.watch_count,
            global_sessions: answers.session_count,
            local_sessions: 0,
            connections: answers.connection_count,
            outstanding: answers.in_flight.max(queued as u64),
            uptime_ms: clock::now().since(self.started).as_millis() as u64,
            open_file_descriptors: count_entries(Path::new("/proc/self/fd")),
            max_file_descriptors: rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(0),
            auth_failed: self.shared.auth_failed.load(Ordering::Relaxed),
            connection_drop_probability: 0.0,
            non_mtls_local_connections: 0,
            non_mtls_remote_connections: 0,
            namespaces: Vec::new(),
            learner_queues: Vec::new(),
        }
    }

    fn dump(&self, answers: Answers) -> SessionDump {
        let wall = clock::wall_ms();
        let mut connections: BTreeMap<i64, Vec<(SocketAddr, SessionId)>> = BTreeMap::new();
        // In the buckets in which silent connections are looked for.
        for (left, peer, session) in answers.connection_expiry {
            let at = (wall + left).div_euclid(10_000) * 10_000 + 10_000;
            connections.entry(at).or_default().push((peer, session));
        }
        SessionDump {
            sessions: match answers.sessions {
                SessionList::ByExpiry(sets) => {
                    SessionList::ByExpiry(sets.into_iter().map(|(left, sessions)| (wall + left, sessions)).collect())
                }
                known @ SessionList::Known(_) => known,
            },
            ephemerals: answers.ephemerals,
            connections: connections.into_iter().collect(),
        }
    }

    fn dir_bytes(&self) -> (u64, u64) {
        let (data, log) = (self.config.snapshot_dir(), self.config.log_dir());
        (file_bytes(&data), file_bytes(&log))
    }
}

/// In place of an answer for which everybody would wait.
fn too_many_paths(instead: &str) -> String {
    let most = limits::WORD_PATH_BYTES;
    format!("More than {most} bytes of paths: too many to gather while clients wait; {instead}.\n")
}

fn count_entries(dir: &Path) -> u64 {
    std::fs::read_dir(dir).map_or(0, |entries| entries.count() as u64)
}

fn file_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|meta| meta.is_file())
        .map(|meta| meta.len())
        .sum()
}

/// Those too that have no watch any more, as upstream.
fn by_session(answers: &Answers) -> Vec<SessionWatches> {
    let mut sessions: BTreeMap<SessionId, Vec<String>> =
        answers.watchers.iter().map(|session| (*session, Vec::new())).collect();
    for (path, session) in &answers.watches {
        sessions.entry(*session).or_default().push(path.clone());
    }
    sessions.into_iter().map(|(session, paths)| SessionWatches { session, paths }).collect()
}

fn by_path(watches: &[(String, SessionId)]) -> Vec<PathWatches> {
    let mut paths: BTreeMap<&str, Vec<SessionId>> = BTreeMap::new();
    for (path, session) in watches {
        paths.entry(path).or_default().push(*session);
    }
    paths.into_iter().map(|(path, sessions)| PathWatches { path: path.to_string(), sessions }).collect()
}
