//! The settings of a server that is one of several: who the others are, and how long they wait for each other.
//!
//! Servers of one ensemble must have the same members, groups and weights in their files; nothing checks that but the
//! votes that they exchange. The waits are counted in ticks or given in milliseconds as ZooKeeper's keys have them.
//!
//! Leaves to others: resolving hosts, at each connect; whether groups and weights ever give a quorum.
//!
//! Runs on: the starting thread; read by all.

use super::members::{self, Members};
use super::read::Reader;
use super::servers::{Role, ServerLine};
use super::values::Config;
use super::{Level, Notice};
use crate::fatal::Fatal;

/// What a member of an ensemble has beyond a standalone server. Each field names its key; defaults are 3.9.5's.
#[derive(Clone, PartialEq, Debug)]
pub struct Ensemble {
    /// `myid`, the file in `dataDir`: this server's id, also in [`Config::server_id`]. Always that of one of the lines.
    pub me: u8,
    /// `server.N`, of the file or of `dynamicConfigFile`: one line per id, ids at most 255, at least one participant.
    pub lines: Vec<ServerLine>,
    /// `group.G`: id and members. Empty: majorities, unless there are weights. No server is in two; every participant
    /// is in one if there is any group or weight.
    pub groups: Vec<(i64, Vec<u64>)>,
    /// `weight.N`: server and weight. Participants without one weigh 1.
    pub weights: Vec<(u64, u64)>,
    /// Zxid of the reconfiguration that made these members, from the name of `dynamicConfigFile`; 0 if it has none.
    pub version: u64,

    /// `initLimit`, in ticks, at least 1, no default: for a learner to connect and be synchronised.
    pub init_limit: u32,
    /// `syncLimit`, in ticks, at least 1, no default: of silence between a leader and a learner.
    pub sync_limit: u32,
    /// `connectToLearnerMasterLimit`, in ticks, at least 1: for a learner to connect. `initLimit` if not set, or 0.
    pub connect_to_learner_master_limit: u32,
    /// `quorumListenOnAllIPs`: the quorum and election ports are opened on all interfaces, not on the line's address.
    pub quorum_listen_on_all_ips: bool,
    /// `multiAddress.enabled`: a line may have several addresses. `false`: none has.
    pub multi_address: bool,

    /// `cnxTimeout`: for a connection to another server's election port. 5000. 0, or below: until the system gives up.
    pub cnx_timeout_ms: u64,
    /// `quorumCnxnTimeoutMs`: for who calls the election port to say who it is; then it may be silent, as in ZooKeeper.
    /// `None`, the default: `syncLimit`.
    pub quorum_cnxn_timeout_ms: Option<u64>,
    /// `electionPortBindRetry`: attempts to take the election port and the quorum port after the first, a second apart. 3. 0: for ever.
    pub election_bind_retries: u32,
    /// `tcpKeepAlive`: SO_KEEPALIVE on connections of the election port. `false`.
    pub tcp_keep_alive: bool,
    /// `fastleader.minNotificationInterval`: the first wait for votes. 200.
    pub min_notification_interval_ms: u64,
    /// `fastleader.maxNotificationInterval`: waits are doubled up to this. Not below the one above. 2000, where ZooKeeper has
    /// a minute: a lost message should not cost that.
    pub max_notification_interval_ms: u64,
    /// `observer.election.DelayMs`: an observer's wait for the election to settle. 200.
    pub observer_election_delay_ms: u64,
    /// `observer.reconnectDelayMs`: an observer's wait, of random length up to this, before it looks for a leader
    /// again. 0.
    pub observer_reconnect_delay_ms: u64,

    /// `leader.maxTimeToWaitForEpoch`: a new leader's wait for a quorum's epochs. `None`, the default: `initLimit`.
    pub max_time_to_wait_for_epoch_ms: Option<u64>,
    /// `leaderConnectDelayDuringRetryMs`: between a learner's attempts to connect. 100.
    pub leader_connect_delay_ms: u64,
    /// `leaderServes`: the leader serves clients. `true`; `false` for exactly `no`.
    pub leader_serves: bool,
    /// `leader.maxConcurrentSnapSyncs`: learners that are sent a snapshot at once. 10.
    pub max_concurrent_snap_syncs: u32,
    /// `leader.maxConcurrentDiffSyncs`: learners that are sent transactions at once. 100.
    pub max_concurrent_diff_syncs: u32,
    /// `forceSnapshotSync`: learners are always sent a snapshot. `false`.
    pub force_snapshot_sync: bool,
    /// `commitLogCount`: committed transactions kept in memory for learners. 500.
    pub commit_log_count: u32,
    /// `snapshotSizeFactor`: transactions are read from the log for a learner up to this part of a snapshot's size.
    /// 0.33. Below 0: never.
    pub snapshot_size_factor: f64,
    /// `db.autocreate`: an empty server votes. `true`. `false`: only if there is a file `initialize` in `dataDir`.
    pub db_autocreate: bool,
}

impl Ensemble {
    /// This server's own line.
    pub fn my_line(&self) -> &ServerLine {
        let mine = self.lines.iter().find(|line| line.id == u64::from(self.me));
        mine.expect("the own line was found when the settings were read")
    }
}

/// In the order of ZooKeeper: members, own id, client port, role, limits.
pub(super) fn read(
    reader: &mut Reader<'_>,
    config: &mut Config,
    members: Members,
    myid: Option<i64>,
    peer_type: Option<Role>,
) -> Result<(), Fatal> {
    warn_about_numbers(reader, &members);
    warn_about_addresses(reader, &members);
    let too_large = |id: u64| format!("server.{id}: ids above 255 are not supported");
    if let Some((line, given)) = members.lines.iter().find(|(line, _)| line.id > 255) {
        return Err(reader.fatal(given, too_large(line.id)));
    }
    let mine = myid.and_then(|own| members.line(u64::try_from(own).ok()?)).cloned();
    if let Some((line, given)) = &mine {
        members::client_address(reader, config, line, given)?;
    }
    if let (Some((line, _)), Some(named)) = (&mine, peer_type)
        && line.role != named
    {
        let name = |role| if role == Role::Observer { "OBSERVER" } else { "PARTICIPANT" };
        let text = format!(
            "Peer type from servers list ({}) doesn't match peerType ({}). Defaulting to servers list.",
            name(line.role),
            name(named)
        );
        reader.notices.push(Notice::new(Level::Warn, text));
    }
    let init_limit = limit(reader, "initLimit")?;
    let sync_limit = limit(reader, "syncLimit")?;
    let Some(own) = myid else {
        let path = config.data_dir.join("myid");
        return Err(Fatal::Config { file: path, line: 0, problem: "myid file is missing".into() });
    };
    let Some((line, _)) = mine else {
        let path = config.data_dir.join("myid");
        return Err(Fatal::Config { file: path, line: 1, problem: format!("My id {own} not in the peer list") });
    };
    let me = u8::try_from(line.id).map_err(|_| reader.fatal_file(too_large(line.id)))?;
    if me == u8::MAX && config.owner_rules.extended_types {
        let problem = "id 255 can't be used with extendedTypesEnabled=true: its sessions would look like times to live";
        return Err(reader.fatal_file(problem.into()));
    }
    if config.reconfig_enabled {
        let text = "reconfigEnabled=true: this build can't change the members of a running ensemble; reconfig is \
                    answered UNIMPLEMENTED, and no file is rewritten";
        reader.notices.push(Notice::new(Level::Warn, text.into()));
    }
    config.server_id = line.id;
    let connect_limit = reader.strict::<i32>("connectToLearnerMasterLimit")?.unwrap_or(0);
    let mut ms = |name: &str, default: i32| reader.number::<i32>(name, default).max(0) as u64;
    let min_notification_interval_ms = ms("fastleader.minNotificationInterval", 200).max(1);
    config.ensemble = Some(Ensemble {
        me,
        lines: members.lines.into_iter().map(|(line, _)| line).collect(),
        groups: members.groups,
        weights: members.weights,
        version: members.version,
        init_limit,
        sync_limit,
        connect_to_learner_master_limit: u32::try_from(connect_limit)
            .ok()
            .filter(|ticks| *ticks > 0)
            .unwrap_or(init_limit),
        cnx_timeout_ms: ms("cnxTimeout", 5_000),
        min_notification_interval_ms,
        max_notification_interval_ms: ms("fastleader.maxNotificationInterval", 2_000).max(min_notification_interval_ms),
        observer_election_delay_ms: ms("observer.election.DelayMs", 200),
        observer_reconnect_delay_ms: ms("observer.reconnectDelayMs", 0),
        leader_connect_delay_ms: ms("leaderConnectDelayDuringRetryMs", 100),
        quorum_cnxn_timeout_ms: Some(ms("quorumCnxnTimeoutMs", -1)).filter(|ms| *ms > 0),
        max_time_to_wait_for_epoch_ms: Some(ms("leader.maxTimeToWaitForEpoch", -1)).filter(|ms| *ms > 0),
        election_bind_retries: u32::try_from(reader.number::<i32>("electionPortBindRetry", 3)).unwrap_or(3),
        max_concurrent_snap_syncs: reader.number::<i32>("leader.maxConcurrentSnapSyncs", 10).max(1) as u32,
        max_concurrent_diff_syncs: reader.number::<i32>("leader.maxConcurrentDiffSyncs", 100).max(1) as u32,
        commit_log_count: reader.number::<i32>("commitLogCount", 500).max(1) as u32,
        snapshot_size_factor: snapshot_size_factor(reader),
        quorum_listen_on_all_ips: reader.strict_truth("quorumListenOnAllIPs")?.unwrap_or(false),
        multi_address: reader.is_true("multiAddress.enabled"),
        tcp_keep_alive: reader.truth("tcpKeepAlive", false),
        force_snapshot_sync: reader.truth("forceSnapshotSync", false),
        db_autocreate: reader.truth("db.autocreate", true),
        leader_serves: reader.yes_or_no("leaderServes", "yes") == "yes",
    });
    Ok(())
}

/// A number of ticks without which there is no ensemble.
fn limit(reader: &Reader<'_>, name: &str) -> Result<u32, Fatal> {
    match reader.strict::<i32>(name)?.unwrap_or(0) {
        0 => Err(reader.fatal_key(name, format!("{name} is not set"))),
        ticks if ticks < 0 => Err(reader.fatal_key(name, format!("{name} {ticks} is below 1"))),
        ticks => Ok(ticks as u32),
    }
}

fn snapshot_size_factor(reader: &mut Reader<'_>) -> f64 {
    let given = reader.text("snapshotSizeFactor").map(str::to_owned);
    let Some(text) = given else { return 0.33 };
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() => factor,
        _ => {
            let text = format!("snapshotSizeFactor={text} is not a number; 0.33 counts");
            reader.notices.push(Notice::new(Level::Warn, text));
            0.33
        }
    }
}

fn warn_about_numbers(reader: &mut Reader<'_>, members: &Members) {
    let participants = members.lines.iter().filter(|(line, _)| line.role == Role::Participant).count();
    let text = match participants {
        0..=2 => "No server failure will be tolerated. You need at least 3 servers.",
        count if count % 2 == 0 => "Non-optimal configuration, consider an odd number of servers.",
        _ => return,
    };
    reader.notices.push(Notice::new(Level::Warn, text.into()));
}

/// ZooKeeper says nothing; then one of the two never finds its ports, or votes reach the wrong server.
fn warn_about_addresses(reader: &mut Reader<'_>, members: &Members) {
    let mut known: Vec<(&str, u16, u64)> = Vec::new();
    for (line, _) in &members.lines {
        for address in &line.addresses {
            for port in [address.quorum_port, address.election_port] {
                match known.iter().find(|(host, known, _)| (*host, *known) == (&address.host, port)) {
                    Some((host, port, other)) => {
                        let text = format!("server.{other} and server.{} both have {host}:{port}", line.id);
                        reader.notices.push(Notice::new(Level::Warn, text));
                    }
                    None => known.push((&address.host, port, line.id)),
                }
            }
        }
    }
}
