//! The way up and the way down: a checked configuration becomes recovered state, state becomes threads; a signal or a
//! broken disk ends them in order.
//!
//! Up: lock the directory, take the port, load the newest whole snapshot while the log behind it is read, replay, listen, start. Nothing listens before
//! the state is complete, so a client never sees half of it. Down: cores stop reading and wait for what they have handed
//! over, the pipeline finishes it, the log writer ends last.
//!
//! Runs on: the starting thread, which then waits for signals.

use crate::admin::Whitelist;
use crate::auth::{AuthRules, DigestAlgorithm};
use crate::clock;
use crate::config::{Config, Ensemble, Level, Notice};
use crate::disk::{Disk, RealDisk};
use crate::fatal::Fatal;
use crate::ids::{ServerId, Zxid};
use crate::limits;
use crate::metrics::{Metrics, Summary};
use crate::net::{self, Alarm, descriptors};
use crate::prepare::{Prepare, PrepareRules};
use crate::random::{self, Rng};
use crate::server::admin_thread::{AdminQueue, AdminThread};
use crate::server::admission::Admission;
use crate::server::ensemble::election_net::ElectionNet;
use crate::server::ensemble::own_ports::{self, OwnPorts};
use crate::server::ensemble::quorum_net::QuorumNet;
use crate::server::ensemble::resolver::{Names, Resolver};
use crate::server::feed::Feed;
use crate::server::helper::helper;
use crate::server::io_core::{self, IoCore};
use crate::server::log_writer::{LogWriter, Writer};
use crate::server::pipeline::{self, Ingredients, Member, Pipeline, PipelineSettings};
use crate::server::queue::{CoreQueue, Doorbell};
use crate::server::recovery::{self, Part, Recovered};
use crate::server::shared::{CoreLink, Settings, Shared};
use crate::server::snapshotter::{SnapshotMail, Snapshotter};
use crate::server::tree_lock;
use crate::session::SessionIds;
use crate::snapshot::zookeeper::{self, DecodeLimits, ImportOptions, TakeOver};
use crate::storage::{self, Dirs};
use crate::tree::TreeOptions;
use crate::zab::election::{self, Election};
use crate::zab::election_links::{ElectionLinks, LinkLimits};
use crate::zab::ensemble::{Configs, EnsembleConfig};
use crate::zab::{Peer, PeerSettings, Timing};
use mio::Poll;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Runs a server until SIGTERM or SIGINT, or until it has to stop. `Ok` after a signal.
pub fn run(config: Config, notices: Vec<Notice>) -> Result<(), Fatal> {
    for notice in notices {
        match notice.level {
            Level::Info => tracing::info!("{}", notice.text),
            Level::Warn => tracing::warn!("{}", notice.text),
            Level::Error => tracing::error!("{}", notice.text),
        }
    }
    tracing::debug!("up to {} files may be open", descriptors::raise_limit());
    let running = start(config)?;
    running.wait_for_signal()
}

/// A server's threads.
pub struct Running {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    log_writer: Arc<LogWriter>,
    snapshots: Arc<SnapshotMail>,
    cores: Vec<JoinHandle<()>>,
    pipeline: JoinHandle<()>,
    log_thread: JoinHandle<()>,
    helper: JoinHandle<()>,
    snapshotter: JoinHandle<()>,
    admin: JoinHandle<()>,
    _lock: <RealDisk as Disk>::Lock,
    _log_lock: Option<<RealDisk as Disk>::Lock>,
}

/// Recovers and starts; returns when clients can connect.
pub fn start(config: Config) -> Result<Running, Fatal> {
    let began = clock::now();
    let disk = RealDisk;
    let (snapshot_dir, log_dir) = (config.snapshot_dir(), config.log_dir());
    for dir in [&snapshot_dir, &log_dir] {
        prepare_dir(&disk, dir, &config)?;
    }
    let lock = disk.lock(&snapshot_dir)?;
    let log_lock = if log_dir == snapshot_dir { None } else { Some(disk.lock(&log_dir)?) };
    // Before anything slow, so that a port in use is found out at once; connections are refused until the end.
    let port = net::take_port(config.client_port_address, config.client_port)?;
    let backlog = config.client_port_listen_backlog.map_or(-1, |backlog| backlog as i32);
    let address = port.address();
    let own_ports = config.ensemble.as_ref().map(|ensemble| own_ports::take(ensemble, address)).transpose()?;

    let (options, dirs) = (tree_options(&config), dirs(&config));
    refuse_other_directories(&disk, &dirs)?;
    take_over_zookeeper(&disk, &config)?;
    let tick_ms = u64::from(config.tick_time_ms);
    let recovering = clock::now();
    let recovered = match &config.ensemble {
        None => recovery::recover_alone(&disk, &dirs, options, tick_ms)?,
        Some(_) => recovery::recover_member(&disk, &dirs, options, tick_ms)?,
    };
    let recovery_ms = clock::now().since(recovering).as_millis() as u64;
    // Now there is a log, and nobody has been promised anything in it yet.
    storage::note_log_directory(&disk, &dirs)?;
    let zxid = recovered.tree.zxid();
    tracing::info!(
        "recovered {} znodes and {} sessions up to zxid {zxid} in {} ms",
        recovered.tree.node_count(),
        recovered.sessions.len(),
        clock::now().since(began).as_millis()
    );
    let listener = port.listen(backlog)?;
    let running = spawn(config, recovered, recovery_ms, (listener, address), own_ports, lock, log_lock)?;
    tracing::info!("serving clients on {address} ({} ms after the start)", clock::now().since(began).as_millis());
    Ok(running)
}

fn prepare_dir(disk: &RealDisk, dir: &Path, config: &Config) -> Result<(), Fatal> {
    if !dir.is_dir() {
        if !config.datadir_autocreate {
            let source = std::io::Error::other("it does not exist, and datadir.autocreate is false");
            return Err(Fatal::DataDir { dir: dir.to_owned(), source });
        }
        disk.create_dir(dir).map_err(|source| Fatal::DataDir { dir: dir.to_owned(), source })?;
    }
    Ok(())
}

/// A history must not be taken for an empty one because it lies in another directory than the configuration says.
fn refuse_other_directories(disk: &RealDisk, dirs: &Dirs) -> Result<(), Fatal> {
    storage::refuse_misplaced(disk, dirs)?;
    // What a take-over has begun is thrown away, and the log may be gone already.
    if zookeeper::is_unfinished(disk, &dirs.snapshots)? { Ok(()) } else { storage::refuse_absent_log(disk, dirs) }
}

/// A directory of ZooKeeper's must not be taken for an empty one: what it holds is made ours, at the first start.
fn take_over_zookeeper(disk: &RealDisk, config: &Config) -> Result<(), Fatal> {
    let (snapshots, log) = (config.snapshot_dir(), config.log_dir());
    let options = ImportOptions {
        tree: tree_options(config),
        limits: DecodeLimits {
            item_bytes: config.jute_max_buffer + config.jute_max_buffer_extra,
            ..DecodeLimits::default()
        },
        up_to: None,
        check_digests: config.digest_enabled,
        member: config.ensemble.is_some(),
    };
    let dirs = zookeeper::Dirs { snapshots: &snapshots, log: &log };
    // Gigabytes take a while, and whoever waits wants to know.
    let mut told = 0;
    let mut progress = |done: u64, total: u64| {
        let tenths = done * 10 / total.max(1);
        if total > recovery::TELL_FROM_BYTES && tenths > told {
            told = tenths;
            tracing::info!("reading the data of Apache ZooKeeper: {} % of {} MiB", tenths * 10, total >> 20);
        }
    };
    if let TakeOver::Done(report) = zookeeper::take_over(disk, dirs, options, false, &mut progress)? {
        for note in &report.notes {
            tracing::warn!("{note}");
        }
        tracing::info!(
            "took over the data of Apache ZooKeeper: {} znodes and {} sessions up to zxid {}, digest {:#x}; its files \
             stay as they are",
            report.nodes,
            report.sessions,
            report.zxid,
            report.digest
        );
    }
    Ok(())
}

fn spawn(
    config: Config,
    recovered: Recovered,
    recovery_ms: u64,
    (listener, address): (std::net::TcpListener, SocketAddr),
    own_ports: Option<OwnPorts>,
    lock: <RealDisk as Disk>::Lock,
    log_lock: Option<<RealDisk as Disk>::Lock>,
) -> Result<Running, Fatal> {
    let Recovered { tree, sessions, keeper, log, snapshot_bytes, replayed, fuzzy, part, .. } = recovered;
    let io = |source| Fatal::Io { file: "epoll".into(), source };
    let cores = config.cores.max(1);
    // The cores, the pipeline, the log writer, the snapshotter.
    let (metrics, recorders) = Metrics::new(cores + 3);
    let mut recorders = recorders.into_iter();
    let mut recorder = || recorders.next().expect("one for each thread that counts");
    let members = config.ensemble.as_ref().map(|ensemble| members(&config, ensemble)).transpose()?;
    let membership = members.as_ref().map(|members| members.text().to_owned());
    let mut tree = tree;
    if let Some(members) = &members {
        tree.set_config(members.text(), members.version(), clock::wall_ms());
    }
    let (writer, mut readers) = tree_lock::split(tree, cores + 1);

    let pipeline_poll = Poll::new().map_err(io)?;
    let pipeline_bell = Doorbell::new(&pipeline_poll, pipeline::BELL).map_err(io)?;
    let pipeline_alarm = Alarm::new(&pipeline_poll, pipeline::ALARM).map_err(io)?;
    let mut polls = Vec::new();
    let mut links = Vec::new();
    for _ in 0..cores {
        let poll = Poll::new().map_err(io)?;
        links.push(CoreLink {
            feed: Feed::default(),
            queue: CoreQueue::default(),
            bell: Doorbell::new(&poll, io_core::BELL).map_err(io)?,
            arrivals: Default::default(),
            connections: Default::default(),
            watches: Default::default(),
        });
        polls.push(poll);
    }
    let admission = Admission::new(config.max_client_cnxns as usize, config.max_cnxns as usize);
    let shared =
        Arc::new(Shared::new(settings(&config), links, pipeline_bell, admission, AdminQueue::default(), metrics));
    let (helper_mail, helper) = helper();
    let member = match (&config.ensemble, members, part, own_ports) {
        (Some(ensemble), Some(members), Some(part), Some(ports)) => {
            let mut member = member(&config, (ensemble, members), part, ports, &pipeline_poll, &shared)?;
            if fuzzy {
                member.compare_no_digest_yet();
            }
            Some(member)
        }
        _ => {
            shared.set_serving(true);
            None
        }
    };
    let log_writer = Arc::new(LogWriter::new(Writer {
        log,
        helper: helper_mail,
        slow_sync_ms: config.fsync_warning_threshold_ms,
        recorder: recorder(),
        failed: false,
        rolled_for: None,
    }));
    assert_eq!(log_writer.mailbox.durable(), writer.peek().zxid(), "the tree has what the log has");
    let snapshots = Arc::new(SnapshotMail::new(keeper.disk().clone(), snapshot_bytes));

    let snapshotter = Snapshotter {
        dir: config.snapshot_dir(),
        purge: config.purge.clone(),
        keeper,
        reader: readers.pop().expect("one part more than cores"),
        mail: snapshots.clone(),
        log_writer: log_writer.clone(),
        shared: shared.clone(),
        recorder: recorder(),
    };
    let pipeline_recorder = recorder();
    pipeline_recorder.observe(Summary::Dbinittime, recovery_ms, 1);
    pipeline_recorder.observe(Summary::StartupTxnsLoaded, replayed.0, 1);
    let pipeline = Pipeline::new(Ingredients {
        poll: pipeline_poll,
        alarm: pipeline_alarm,
        shared: shared.clone(),
        settings: pipeline_settings(&config),
        tree: writer,
        sessions,
        ids: SessionIds::new(server_id(&config), clock::wall_ms()),
        prepare: Prepare::new(prepare_rules(&config)),
        member,
        dirs: dirs(&config),
        tree_options: tree_options(&config),
        log_writer: log_writer.clone(),
        snapshots: snapshots.clone(),
        replayed,
        rng: Rng::new(random::seed()),
        recorder: pipeline_recorder,
    });
    let mut io_cores = Vec::new();
    let mut listener = Some(listener);
    for (index, (poll, reader)) in polls.into_iter().zip(readers).enumerate() {
        let core = IoCore::new(index, poll, shared.clone(), reader, listener.take(), recorder()).map_err(io)?;
        io_cores.push(core);
    }
    let admin = AdminThread::new(config.clone(), membership, address, shared.clone());

    let snapshotter = thread("snapshotter", None, guarded(&shared, move || snapshotter.run()))?;
    let log_thread = {
        let (log_writer, shared) = (log_writer.clone(), shared.clone());
        thread("log-writer", None, guarded(&shared.clone(), move || log_writer.run(&shared)))?
    };
    let helper = thread("helper", None, guarded(&shared, move || helper.run()))?;
    let pipeline = thread("pipeline", None, move || pipeline.run())?;
    let admin = thread("admin", None, move || admin.run())?;
    let pins = if config.pin_cores { core_affinity::get_core_ids().unwrap_or_default() } else { Vec::new() };
    let mut handles = Vec::new();
    for (index, core) in io_cores.into_iter().enumerate() {
        let pin = if pins.len() > cores { pins.get(index).copied() } else { None };
        handles.push(thread(&format!("core-{index}"), pin, move || core.run())?);
    }
    Ok(Running {
        address,
        shared,
        log_writer,
        snapshots,
        cores: handles,
        pipeline,
        log_thread,
        helper,
        snapshotter,
        admin,
        _lock: lock,
        _log_lock: log_lock,
    })
}

fn thread(
    name: &str,
    pin: Option<core_affinity::CoreId>,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Fatal> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(move || {
        if let Some(core) = pin {
            core_affinity::set_for_current(core);
        }
        // No thread dies alone: after a bug nothing may be answered any more.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        if result.is_err() {
            tracing::error!("a thread of the server has panicked; this is a bug; stopping");
            std::process::abort();
        }
    });
    spawned.map_err(|source| Fatal::Io { file: format!("thread {name}").into(), source })
}

/// A thread whose failure is the disk's: the reason is kept, and the server stops.
fn guarded(
    shared: &Arc<Shared>,
    body: impl FnOnce() -> Result<(), Fatal> + Send + 'static,
) -> impl FnOnce() + Send + 'static {
    let shared = shared.clone();
    move || {
        if let Err(fatal) = body() {
            shared.fail_because(fatal);
        }
    }
}

/// A standalone server's sessions have 1 in their top byte, as ZooKeeper's do; a lone `server.N` changes nothing of that.
const STANDALONE_ID: ServerId = ServerId(1);

fn auth_rules(config: &Config) -> AuthRules {
    AuthRules {
        skip_acl: config.skip_acl,
        // The configuration takes only names that stand for something; another would be no provider, which lets nobody in.
        digest: DigestAlgorithm::from_name(&config.digest_alg).filter(|_| config.digest_auth_enabled),
        super_digest: config.super_digest.clone(),
        required_schemes: config.required_auth_schemes.clone(),
        bytes_max: limits::CONNECTION_AUTH_BYTES.min(config.jute_max_buffer + config.jute_max_buffer_extra),
    }
}

pub(super) fn settings(config: &Config) -> Settings {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Settings {
        tick_ms: config.tick_time_ms as u64,
        session_timeout_min_ms: config.min_session_timeout_ms.min(i32::MAX as u32) as i32,
        session_timeout_max_ms: config.max_session_timeout_ms.min(i32::MAX as u32) as i32,
        frame_max: config.jute_max_buffer,
        watch_bytes: config.connection_watch_bytes,
        core_output_bytes: config.core_output_bytes,
        sessionless_ms: config.sessionless_cnxn_timeout_ms,
        tcp_keep_alive: config.client_tcp_keep_alive,
        auth: auth_rules(config),
        words: Whitelist::new(config),
        has_spare_processor: config.cores < processors && !config.pin_cores,
    }
}

fn prepare_rules(config: &Config) -> PrepareRules {
    PrepareRules {
        auth: auth_rules(config),
        owner: config.owner_rules,
        enforce_quota: config.enforce_quota,
        reconfig_enabled: config.reconfig_enabled,
        digest: config.digest_enabled,
        record_bytes_max: config.jute_max_buffer + config.jute_max_buffer_extra,
        ensemble: config.ensemble.is_some(),
    }
}

fn tree_options(config: &Config) -> TreeOptions {
    TreeOptions { owner_rules: config.owner_rules, digest: config.digest_enabled }
}

fn dirs(config: &Config) -> Dirs {
    Dirs { snapshots: config.snapshot_dir(), log: config.log_dir() }
}

fn server_id(config: &Config) -> ServerId {
    config.ensemble.as_ref().map_or(STANDALONE_ID, |ensemble| ServerId(ensemble.me))
}

/// Who the members are, and what a quorum of them is.
fn members(config: &Config, ensemble: &Ensemble) -> Result<Arc<EnsembleConfig>, Fatal> {
    let version = Zxid(ensemble.version);
    let members = EnsembleConfig::new(version, ensemble.lines.clone(), &ensemble.groups, &ensemble.weights);
    let file = || config.file.clone().unwrap_or_default();
    members.map(Arc::new).map_err(|problem| Fatal::Config { file: file(), line: 0, problem })
}

/// What a server of an ensemble has beside: its epochs, and the ports between servers.
fn member(
    config: &Config,
    (ensemble, members): (&Ensemble, Arc<EnsembleConfig>),
    part: Part,
    ports: OwnPorts,
    poll: &Poll,
    shared: &Arc<Shared>,
) -> Result<Box<Member>, Fatal> {
    let now = clock::now();
    let me = ServerId(ensemble.me);
    let own = members.server(me).expect("the configuration has a line for this server");
    let role = own.role;

    let timing = quorum_timing(config, ensemble);
    let settings = PeerSettings {
        me,
        config: members.clone(),
        timing,
        output_max: limits::LEARNER_OUTPUT_BYTES,
        counter_max: config.epoch_transactions,
    };
    let mut peer =
        Peer::new(settings, part.history, part.epochs.accepted, part.epochs.current, part.quarantine.is_some());
    for (zxid, text) in &part.configs {
        peer.reconfigured(*zxid, text);
    }

    let io = |source| Fatal::Io { file: "epoll".into(), source };
    let registry = || poll.registry().try_clone().map_err(io);
    let names = Arc::new(Names::default());
    let resolver = || Resolver::new(names.clone(), shared.clone());
    let packet_max = config.jute_max_buffer + config.jute_max_buffer_extra;
    let net = QuorumNet::new(registry()?, ports.quorum, resolver(), packet_max);

    let configs = Configs::new(members.clone(), None);
    let all = members.servers().iter().map(|line| ServerId(line.id as u8)).collect();
    let elections = ElectionNet::new(
        registry()?,
        ports.election.into_iter().map(|port| port.listen(0)).collect::<Result<_, _>>()?,
        resolver(),
        me,
        own.addresses.clone(),
        Election::new(me, role, configs, election_timing(ensemble)),
        ElectionLinks::new(me, all, link_limits(ensemble, &timing)),
    )?;
    tracing::info!("server {} of an ensemble of {}", me.0, members.servers().len());
    Ok(Box::new(Member::new(peer, net, elections, now)))
}

/// The ensemble's waits, as its servers' roles know them.
fn quorum_timing(config: &Config, ensemble: &Ensemble) -> Timing {
    Timing {
        tick_ms: u64::from(config.tick_time_ms),
        connect_limit: ensemble.connect_to_learner_master_limit,
        init_limit: ensemble.init_limit,
        sync_limit: ensemble.sync_limit,
    }
}

fn election_timing(ensemble: &Ensemble) -> election::Timing {
    election::Timing {
        repeat_min_ms: ensemble.min_notification_interval_ms,
        repeat_max_ms: ensemble.max_notification_interval_ms,
        ..election::Timing::default()
    }
}

/// The system ends any attempt to connect long before this.
const DIAL_MAX_MS: u64 = 24 * 3600 * 1000;

fn link_limits(ensemble: &Ensemble, timing: &Timing) -> LinkLimits {
    LinkLimits {
        dial_ms: if ensemble.cnx_timeout_ms == 0 { DIAL_MAX_MS } else { ensemble.cnx_timeout_ms },
        introduction_ms: ensemble.quorum_cnxn_timeout_ms.unwrap_or(timing.sync().as_millis() as u64),
        ..LinkLimits::default()
    }
}

fn pipeline_settings(config: &Config) -> PipelineSettings {
    PipelineSettings {
        server_id: server_id(config),
        tick_ms: config.tick_time_ms as u64,
        snap_count: config.snap_count as u64,
        snap_count_adapts: config.snap_count == crate::config::SNAP_COUNT,
        snap_bytes: config.snap_size_limit_bytes.unwrap_or(0),
        container_check_ms: config.containers.check_interval_ms,
        container_max_per_minute: config.containers.max_per_minute as u64,
        container_never_used_ms: config.containers.max_never_used_ms as i64,
        record_bytes_max: config.jute_max_buffer + config.jute_max_buffer_extra,
    }
}

impl Running {
    /// Waits for SIGTERM or SIGINT, or for the end that the disk has forced.
    fn wait_for_signal(self) -> Result<(), Fatal> {
        let mut signals =
            signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])
                .map_err(|source| Fatal::Io { file: "signals".into(), source })?;
        let handle = signals.handle();
        let shared = self.shared.clone();
        let waiter = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    let name = signal_hook::low_level::signal_name(signal).unwrap_or("signal");
                    tracing::info!("{name}: stopping; what has been read is being answered");
                    shared.stop();
                }
            })
            .map_err(|source| Fatal::Io { file: "thread signals".into(), source })?;
        let result = self.join();
        handle.close();
        let _ = waiter.join();
        result
    }

    /// Asks the server to stop, and waits until it has.
    pub fn stop(self) -> Result<(), Fatal> {
        self.shared.stop();
        self.join()
    }

    fn join(self) -> Result<(), Fatal> {
        for core in self.cores {
            let _ = core.join();
        }
        let _ = self.pipeline.join();
        self.log_writer.mailbox.stop();
        let _ = self.log_thread.join();
        self.snapshots.stop();
        let _ = self.snapshotter.join();
        // The helper ends when nobody can leave it a job any more.
        drop(self.log_writer);
        let _ = self.helper.join();
        self.shared.admin.stop();
        let _ = self.admin.join();
        match self.shared.take_reason() {
            Some(fatal) => Err(fatal),
            None => {
                tracing::info!("stopped");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Sources};

    /// The waits of a member whose file has these lines too.
    fn waits(lines: &str) -> (Timing, election::Timing, LinkLimits) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("myid"), "1").unwrap();
        let servers = "clientPort=2181\ntickTime=1000\ninitLimit=10\nsyncLimit=5\nserver.1=a:1:2\nserver.2=b:1:2\n";
        let file = dir.path().join("zoo.cfg");
        std::fs::write(&file, format!("dataDir={}\n{servers}{lines}", dir.path().display())).unwrap();
        let config = config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap().config;
        let ensemble = config.ensemble.as_ref().unwrap();
        let timing = quorum_timing(&config, ensemble);
        (timing, election_timing(ensemble), link_limits(ensemble, &timing))
    }

    #[test]
    fn the_waits_that_a_file_asks_for_are_those_that_count() {
        let (timing, election, links) = waits("");
        assert_eq!(timing, Timing { tick_ms: 1_000, connect_limit: 10, init_limit: 10, sync_limit: 5 });
        assert_eq!(election, election::Timing::default());
        assert_eq!((links.dial_ms, links.introduction_ms), (5_000, 5_000));

        let (timing, election, links) = waits(
            "connectToLearnerMasterLimit=3\nfastleader.minNotificationInterval=300\n\
             fastleader.maxNotificationInterval=60000\ncnxTimeout=7\nquorumCnxnTimeoutMs=8\n",
        );
        assert_eq!(timing.connect_limit, 3);
        assert_eq!((election.repeat_min_ms, election.repeat_max_ms), (300, 60_000));
        assert_eq!((links.dial_ms, links.introduction_ms), (7, 8));

        // A first wait beyond the longest one: nothing falls behind it.
        let (_, election, _) = waits("fastleader.minNotificationInterval=5000\n");
        assert_eq!((election.repeat_min_ms, election.repeat_max_ms), (5_000, 5_000));
        // Java's 0 is no deadline, and not one that has passed.
        assert!(waits("cnxTimeout=0\n").2.dial_ms > 3_600_000);
    }
}
