//! The answers that people read, and `conf`.
//!
//! Runs on: whichever thread answers.

use super::java::{java_date, mean};
use super::status::*;
use super::{Environment, VERSION};
use crate::auth::address_text;
use crate::config::Config;
use crate::config::servers::{PeerAddress, Role};
use crate::ids::Zxid;
use crate::metrics::Metrics;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Writing to a string can't fail; this keeps that in one place.
macro_rules! put {
    ($text:expr, $($what:tt)*) => {{ let _ = write!($text, $($what)*); }};
}

pub fn srvr(status: &ServerStatus, metrics: &Metrics) -> String {
    let mut text = version_lines(status);
    numbers(&mut text, status, metrics);
    text
}

/// `srvr` with a line for each connection.
pub fn stat(status: &ServerStatus, metrics: &Metrics, connections: &[ConnectionStatus]) -> String {
    let mut text = version_lines(status);
    text.push_str("Clients:\n");
    for connection in connections {
        brief(&mut text, connection);
        text.push_str(")\n");
    }
    text.push('\n');
    numbers(&mut text, status, metrics);
    text
}

fn version_lines(status: &ServerStatus) -> String {
    let mut text = format!("Zookeeper version: {VERSION}\n");
    if status.mode == Mode::ReadOnly {
        text.push_str("READ-ONLY mode; serving only read-only clients\n");
    }
    text
}

fn numbers(text: &mut String, status: &ServerStatus, metrics: &Metrics) {
    let latency = metrics.request_latency();
    put!(text, "Latency min/avg/max: {}/{}/{}\n", latency.min(), mean(latency.mean()), latency.max);
    put!(text, "Received: {}\n", metrics.packets_received());
    put!(text, "Sent: {}\n", metrics.packets_sent());
    put!(text, "Connections: {}\n", status.connections);
    put!(text, "Outstanding: {}\n", status.outstanding);
    put!(text, "Zxid: {}\n", status.zxid);
    put!(text, "Mode: {}\n", status.mode.name());
    put!(text, "Node count: {}\n", status.node_count);
    if let Mode::Leader(LeaderStatus { proposal_sizes: ProposalSizes { last, min, max }, .. }) = status.mode {
        put!(text, "Proposal sizes last/min/max: {last}/{min}/{max}\n");
    }
}

pub fn cons(connections: &[ConnectionStatus]) -> String {
    let mut text = String::new();
    for connection in connections {
        brief(&mut text, connection);
        if let Some(session) = &connection.session {
            put!(text, ",sid={},lop={}", session.id, session.last_operation);
            put!(text, ",est={},to={}", session.established_ms, session.timeout_ms);
            if session.last_cxid >= 0 {
                put!(text, ",lcxid={:#x}", session.last_cxid);
            }
            put!(text, ",lzxid={:#x},lresp={}", session.last_zxid, session.last_response_ms);
            let latency = &session.latency;
            put!(text, ",llat={},minlat={}", session.last_latency_ms, latency.min());
            put!(text, ",avglat={},maxlat={}", latency.mean_cut(), latency.max);
        }
        text.push_str(")\n");
    }
    text.push('\n');
    text
}

/// The line without its closing bracket.
fn brief(text: &mut String, connection: &ConnectionStatus) {
    put!(text, " {}[{:x}](queued={}", address(connection.peer), connection.interest, connection.queued);
    put!(text, ",recved={},sent={}", connection.received, connection.sent);
}

/// As Java prints an address without a name.
fn address(peer: SocketAddr) -> String {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => format!("/{ip}:{}", peer.port()),
        ip => format!("/[{}]:{}", address_text(ip), peer.port()),
    }
}

pub fn wchs(watches: &WatchSummary) -> String {
    let WatchSummary { connections, paths, watches } = watches;
    format!("{connections} connections watching {paths} paths\nTotal watches:{watches}\n")
}

pub fn wchc(sessions: &[SessionWatches]) -> String {
    let mut text = String::new();
    for watches in sessions {
        put!(text, "{}\n", watches.session);
        for path in &watches.paths {
            put!(text, "\t{path}\n");
        }
    }
    text.push('\n');
    text
}

pub fn wchp(paths: &[PathWatches]) -> String {
    let mut text = String::new();
    for watches in paths {
        put!(text, "{}\n", watches.path);
        for session in &watches.sessions {
            put!(text, "\t{session}\n");
        }
    }
    text.push('\n');
    text
}

pub fn dump(dump: &SessionDump) -> String {
    let mut text = String::from("SessionTracker dump:\n");
    match &dump.sessions {
        SessionList::ByExpiry(sets) => {
            let members: usize = sets.iter().map(|(_, sessions)| sessions.len()).sum();
            put!(text, "Session Sets ({})/({members}):\n", sets.len());
            for (expires_ms, sessions) in sets {
                put!(text, "{} expire at {}:\n", sessions.len(), java_date(*expires_ms));
                for session in sessions {
                    put!(text, "\t{session}\n");
                }
            }
        }
        SessionList::Known(sessions) => {
            put!(text, "Global Sessions({}):\n", sessions.len());
            for (session, timeout_ms) in sessions {
                put!(text, "{session}\t{timeout_ms}ms\n");
            }
        }
    }
    text.push_str("ephemeral nodes dump:\n");
    put!(text, "Sessions with Ephemerals ({}):\n", dump.ephemerals.len());
    for (session, paths) in &dump.ephemerals {
        put!(text, "{session}:\n");
        for path in paths {
            put!(text, "\t{path}\n");
        }
    }
    text.push_str("Connections dump:\n");
    let members: usize = dump.connections.iter().map(|(_, connections)| connections.len()).sum();
    put!(text, "Connections Sets ({})/({members}):\n", dump.connections.len());
    for (expires_ms, connections) in &dump.connections {
        put!(text, "{} expire at {}:\n", connections.len(), java_date(*expires_ms));
        for (peer, session) in connections {
            put!(text, "\tip: {} sessionId: {session}\n", address(*peer));
        }
    }
    text
}

/// `client_port` is the one that is open; sizes are in bytes; `membership` is the text of the configuration in force of a
/// member that has a leader (`EnsembleConfig::text`).
pub fn conf(config: &Config, client_port: u16, data_bytes: u64, log_bytes: u64, membership: Option<&str>) -> String {
    let mut text = String::new();
    put!(text, "clientPort={client_port}\n");
    // The port of the configuration isn't open, so it isn't shown.
    put!(text, "secureClientPort=-1\n");
    put!(text, "dataDir={}\n", absolute(&config.snapshot_dir()));
    put!(text, "dataDirSize={data_bytes}\n");
    put!(text, "dataLogDir={}\n", absolute(&config.data_log_dir.join("version-2")));
    put!(text, "dataLogSize={log_bytes}\n");
    put!(text, "tickTime={}\n", config.tick_time_ms);
    put!(text, "maxClientCnxns={}\n", config.max_client_cnxns);
    put!(text, "minSessionTimeout={}\n", config.min_session_timeout_ms);
    put!(text, "maxSessionTimeout={}\n", config.max_session_timeout_ms);
    match config.client_port_listen_backlog {
        Some(backlog) => put!(text, "clientPortListenBacklog={backlog}\n"),
        None => text.push_str("clientPortListenBacklog=-1\n"),
    }
    let Some(ensemble) = &config.ensemble else {
        // A standalone server has no id, whatever a server line says.
        text.push_str("serverId=0\n");
        return text;
    };
    put!(text, "serverId={}\n", ensemble.me);
    put!(text, "initLimit={}\nsyncLimit={}\n", ensemble.init_limit, ensemble.sync_limit);
    let mine = ensemble.my_line();
    let ports = |port: fn(&PeerAddress) -> u16| -> String {
        mine.addresses.iter().map(|address| port(address).to_string()).collect::<Vec<_>>().join("|")
    };
    put!(text, "electionAlg=3\nelectionPort={}\n", ports(|address| address.election_port));
    put!(text, "quorumPort={}\n", ports(|address| address.quorum_port));
    put!(text, "peerType={}\n", (mine.role == Role::Observer) as u8);
    if let Some(membership) = membership {
        // The blank is ZooKeeper's, and so is the missing newline at the end.
        put!(text, "membership: \n{membership}");
    }
    text
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Bytes of the files below the two `version-2` directories.
pub fn dirs(data_bytes: u64, log_bytes: u64) -> String {
    format!("datadir_size: {data_bytes}\nlogdir_size: {log_bytes}\n")
}

pub fn envi(environment: &Environment) -> String {
    environment.render()
}

/// The tree's digests, oldest first: one for every 128 transactions.
pub fn hash(history: &[(Zxid, u64)]) -> String {
    let mut text = String::new();
    for (zxid, digest) in history {
        put!(text, "{:x}: {digest}\n", zxid.0);
    }
    text
}

pub fn isro(mode: Mode) -> &'static str {
    if mode == Mode::ReadOnly { "ro" } else { "rw" }
}
