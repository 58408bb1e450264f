//! `mntr`: everything that has a number, a line each, for programs.
//!
//! Names that have no true value here are printed with the zeros of an idle ZooKeeper: a graph or an alert on a name
//! that is missing breaks, one on a zero does not. The order, which ZooKeeper leaves to chance, is fixed here.
//!
//! Runs on: whichever thread answers.

use super::VERSION;
use super::java::{java_double, mean};
use super::status::{LearnerQueueStatus, Mode, NamespaceStatus, ServerStatus};
use crate::metrics::{Counter, Metrics, Summary, Totals};
use std::fmt::{Display, Write};

pub fn mntr(status: &ServerStatus, metrics: &Metrics) -> String {
    let mut lines = Lines(String::with_capacity(24 << 10));
    lines.put("version", VERSION);
    lines.put("server_state", status.mode.name());
    quorum_lines(&mut lines, status);
    gauges(&mut lines, status, metrics);
    for counter in Counter::ALL {
        lines.put(counter.name(), metrics.counter(*counter));
    }
    for summary in Summary::ALL {
        let name = summary.name();
        lines.totals(name, metrics.summary(*summary));
        if summary.percentile_row().is_some() {
            lines.percentiles(name, metrics.percentiles(*summary, [0.5, 0.95, 0.99, 0.999]));
        }
    }
    for queue in &status.learner_queues {
        learner_lines(&mut lines, queue);
    }
    for namespace in &status.namespaces {
        namespace_lines(&mut lines, namespace);
    }
    lines.0
}

/// Directly below the state, where ZooKeeper has the first two of them.
fn quorum_lines(lines: &mut Lines, status: &ServerStatus) {
    let Some(peer_state) = status.mode.peer_state() else { return };
    lines.put("peer_state", peer_state);
    if let Mode::Observer { master } = status.mode {
        lines.put("observer_master_id", master.0);
    }
    lines.put("quorum_size", status.quorum_size);
    let Mode::Leader(leader) = status.mode else { return };
    lines.put("learners", leader.learners);
    lines.put("synced_followers", leader.synced_followers);
    lines.put("synced_non_voting_followers", leader.synced_non_voting_followers);
    lines.put("synced_observers", leader.synced_observers);
    lines.put("pending_syncs", leader.pending_syncs);
    lines.put("leader_uptime", leader.uptime_ms);
    lines.put("last_proposal_size", leader.proposal_sizes.last);
    lines.put("max_proposal_size", leader.proposal_sizes.max);
    lines.put("min_proposal_size", leader.proposal_sizes.min);
}

fn learner_lines(lines: &mut Lines, queue: &LearnerQueueStatus) {
    let id = queue.learner.0;
    if let Some(size) = queue.size {
        lines.totals(&format!("{id}_learner_handler_qp_size"), size);
    }
    for (name, spread) in [("learner_handler_qp_time_ms", queue.time_ms), ("ack_latency", queue.ack_latency)] {
        if let Some(spread) = spread {
            let name = format!("{id}_{name}");
            lines.totals(&name, spread.totals);
            lines.percentiles(&name, spread.percentiles);
        }
    }
}

fn gauges(lines: &mut Lines, status: &ServerStatus, metrics: &Metrics) {
    let latency = metrics.request_latency();
    lines.put("avg_latency", mean(latency.mean()));
    lines.put("max_latency", latency.max);
    lines.put("min_latency", latency.min());
    lines.put("packets_received", metrics.packets_received());
    lines.put("packets_sent", metrics.packets_sent());
    lines.put("num_alive_connections", status.connections);
    lines.put("outstanding_requests", status.outstanding);
    lines.put("uptime", status.uptime_ms);
    lines.put("znode_count", status.node_count);
    lines.put("watch_count", status.watch_count);
    lines.put("ephemerals_count", status.ephemerals_count);
    lines.put("approximate_data_size", status.approximate_data_size);
    lines.put("global_sessions", status.global_sessions);
    lines.put("local_sessions", status.local_sessions);
    lines.put("open_file_descriptor_count", status.open_file_descriptors);
    lines.put("max_file_descriptor_count", status.max_file_descriptors);
    lines.put("connection_drop_probability", java_double(status.connection_drop_probability));
    let sizes = metrics.response_sizes();
    lines.put("last_client_response_size", sizes.last);
    lines.put("max_client_response_size", sizes.max);
    lines.put("min_client_response_size", sizes.min);
    lines.put("outstanding_tls_handshake", 0);
    lines.put("auth_failed_count", status.auth_failed);
    lines.put("non_mtls_remote_conn_count", status.non_mtls_remote_connections);
    lines.put("non_mtls_local_conn_count", status.non_mtls_local_connections);
}

fn namespace_lines(lines: &mut Lines, namespace: &NamespaceStatus) {
    let name = &namespace.name;
    if let Some(reads) = namespace.reads {
        lines.totals(&format!("{name}_read_per_namespace"), reads);
    }
    if let Some(writes) = namespace.writes {
        lines.totals(&format!("{name}_write_per_namespace"), writes);
    }
    if let Some(exceeded) = namespace.quota_exceeded {
        lines.put_two(name, "quota_exceeded_error_per_namespace", exceeded);
    }
    let gauges = [
        ("quota_count_limit_per_namespace", namespace.quota_count_limit),
        ("quota_bytes_limit_per_namespace", namespace.quota_bytes_limit),
        ("quota_count_usage_per_namespace", namespace.quota_count_usage),
        ("quota_bytes_usage_per_namespace", namespace.quota_bytes_usage),
    ];
    for (gauge, value) in gauges {
        if let Some(value) = value {
            lines.put_two(name, gauge, value);
        }
    }
}

struct Lines(String);

impl Lines {
    fn put(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "zk_{name}\t{value}");
    }

    fn put_two(&mut self, prefix: &str, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "zk_{prefix}_{name}\t{value}");
    }

    fn percentiles(&mut self, name: &str, values: [u64; 4]) {
        for (prefix, value) in ["p50", "p95", "p99", "p999"].iter().zip(values) {
            self.put_two(prefix, name, value);
        }
    }

    fn totals(&mut self, name: &str, totals: Totals) {
        self.put_two("avg", name, mean(totals.mean()));
        self.put_two("min", name, totals.min());
        self.put_two("max", name, totals.max);
        self.put_two("cnt", name, totals.count);
        self.put_two("sum", name, totals.sum);
    }
}
