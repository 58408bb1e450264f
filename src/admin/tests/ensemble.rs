//! The same of members of an ensemble: three participants and an observer (4), the leader 2, captured from each in turn.

use super::*;
use crate::config::servers::parse_server;
use crate::ids::ServerId;
use crate::metrics::Recorder;
use crate::zab::ensemble::EnsembleConfig;

/// The configuration of a member, and the text of what it says about the ensemble.
fn member(me: u8, lines: &[&str], groups: &[(i64, Vec<u64>)], weights: &[(u64, u64)]) -> (Config, String) {
    let lines: Vec<_> = lines.iter().zip(1..).map(|(line, id)| parse_server(&format!("{id}"), line).unwrap()).collect();
    let text = EnsembleConfig::new(Zxid::ZERO, lines.clone(), groups, weights).unwrap().text().to_owned();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("myid"), me.to_string()).unwrap();
    let mut file = format!(
        "dataDir={}\nclientPort=1\ninitLimit=10\nsyncLimit=5\ntickTime=1000\nmultiAddress.enabled=true\n",
        dir.path().display()
    );
    lines.iter().for_each(|line| file += &format!("server.{}={line}\n", line.id));
    let path = dir.path().join("zoo.cfg");
    std::fs::write(&path, file.replace("clientPort=1\n", if file.contains(';') { "" } else { "clientPort=1\n" }))
        .unwrap();
    let sources = crate::config::Sources { file: Some(path), ..Default::default() };
    let mut config = crate::config::load(&sources).unwrap().config;
    (config.data_dir, config.data_log_dir) = ("/data".into(), "/data".into());
    (config, text)
}

const FOUR: [&str; 4] =
    ["127.0.0.1:45919:54641", "127.0.0.1:53351:58293", "127.0.0.1:46871:50517", "127.0.0.1:38153:35799:observer"];

const WITH_ALL: [&str; 4] = [
    "127.0.0.1:36013:33055|127.0.0.1:42829:41617;34161",
    "127.0.0.1:54201:47861|127.0.0.1:53997:39563;32995",
    "127.0.0.1:33745:33175|127.0.0.1:33373:53789;55965",
    "127.0.0.1:36755:41305:observer|127.0.0.1:35321:38249:observer;44265",
];

#[test]
fn conf_of_a_member_is_zookeepers_to_the_byte() {
    let (config, text) = member(1, &FOUR, &[], &[]);
    assert_eq!(conf(&config, 53367, 67109538, 67109538, Some(&text)), include_str!("../golden/conf_follower.txt"));
    assert_eq!(conf(&config, 53367, 67109538, 67109538, None), include_str!("../golden/conf_read_only.txt"));
    let (config, text) = member(4, &FOUR, &[], &[]);
    assert_eq!(conf(&config, 42905, 67109538, 67109538, Some(&text)), include_str!("../golden/conf_observer.txt"));
    let (config, text) = member(3, &WITH_ALL, &[(1, vec![1, 2]), (2, vec![3])], &[(3, 2)]);
    assert_eq!(conf(&config, 55965, 857, 857, Some(&text)), include_str!("../golden/conf_groups.txt"));
}

fn leader() -> LeaderStatus {
    LeaderStatus { learners: 3, synced_followers: 2, synced_observers: 1, uptime_ms: 3426, ..LeaderStatus::default() }
}

/// After nine requests of one client.
fn busy(mode: Mode) -> ServerStatus {
    ServerStatus { mode, zxid: Zxid(0x100000020), node_count: 13, connections: 2, ..status() }
}

/// Nine latencies with these bounds and this sum.
fn nine(packets: u64, min: u64, sum: u64, max: u64) -> Arc<Metrics> {
    let (metrics, recorders) = Metrics::new(1);
    recorders[0].packets_received(packets);
    recorders[0].packets_sent(packets + 1);
    for latency in with_totals(9, min, sum, max) {
        recorders[0].request_latency(latency, 1);
    }
    metrics
}

/// So many values with these bounds and this sum.
fn with_totals(count: u64, min: u64, sum: u64, max: u64) -> Vec<u64> {
    let mut values = match count {
        0 => vec![],
        1 => vec![sum],
        _ => vec![min, max],
    };
    while (values.len() as u64) < count {
        let left = count - values.len() as u64;
        values.push((sum - values.iter().sum::<u64>()).div_ceil(left));
    }
    values
}

#[test]
fn srvr_and_stat_of_a_member_are_zookeepers_to_the_byte() {
    let mut proposal_sizes = ProposalSizes::default();
    [48, 100, 163].iter().for_each(|bytes| proposal_sizes.observe(*bytes));
    let leading = busy(Mode::Leader(LeaderStatus { proposal_sizes, ..leader() }));
    assert_eq!(srvr(&leading, &nine(37, 2, 47, 11)), golden(include_str!("../golden/srvr_leader.txt")));
    let following = srvr(&busy(Mode::Follower), &nine(37, 3, 139, 56));
    assert_eq!(following, golden(include_str!("../golden/srvr_follower.txt")));
    let observing = srvr(&busy(Mode::Observer { master: ServerId(2) }), &nine(37, 3, 101, 26));
    assert_eq!(observing, golden(include_str!("../golden/srvr_observer.txt")));

    let connection = |port, interest, received, sent| ConnectionStatus {
        peer: local(port),
        interest,
        queued: 0,
        received,
        sent,
        session: None,
    };
    let clients = [connection(47316, 1, 9, 9), connection(56750, 0, 1, 0)];
    let text = stat(&leading, &nine(38, 2, 47, 11), &clients);
    assert_eq!(text, golden(include_str!("../golden/stat_leader.txt")));

    let (metrics, recorders) = Metrics::new(1);
    recorders[0].packets_received(13);
    recorders[0].packets_sent(13);
    let reading = ServerStatus { connections: 1, ..busy(Mode::ReadOnly) };
    let text = stat(&reading, &metrics, &[connection(44488, 0, 1, 0)]);
    assert_eq!(text, golden(include_str!("../golden/stat_read_only.txt")));
}

#[test]
fn a_new_leader_has_no_proposal_sizes() {
    let text = srvr(&busy(Mode::Leader(LeaderStatus::default())), &nine(0, 0, 0, 0));
    assert!(text.ends_with("Mode: leader\nNode count: 13\nProposal sizes last/min/max: -1/-1/-1\n"), "{text}");
}

#[test]
fn only_a_server_in_read_only_mode_says_ro() {
    let modes = [Mode::Leader(leader()), Mode::Follower, Mode::Observer { master: ServerId(2) }, Mode::Standalone];
    assert_eq!(modes.map(isro), ["rw"; 4]);
    assert_eq!(isro(Mode::ReadOnly), "ro");
}

#[test]
fn dump_of_a_learner_is_zookeepers_to_the_byte() {
    let ids = [0x1000244b32f0000, 0x2000244b33b0000, 0x3000244b38b0000, 0x4000244b3340000].map(SessionId);
    let node = |at: usize, path: &str| (ids[at], vec![path.to_owned()]);
    // Wed Nov 25 13:55:47 UTC 2026
    let base = 1_795_614_947_000;
    let full = SessionDump {
        sessions: SessionList::Known(ids.iter().map(|id| (*id, 20_000)).collect()),
        ephemerals: vec![node(3, "/c3/e"), node(0, "/c0/e"), node(1, "/c1/e"), node(2, "/c2/e")],
        connections: vec![
            (base, vec![]),
            (base + 10_000, vec![(local(51604), SessionId::NONE)]),
            (base + 20_000, vec![(local(49988), ids[0])]),
        ],
    };
    assert_eq!(dump(&full), include_str!("../golden/dump_follower.txt"));
}

/// Counts what ZooKeeper had counted, so that its names, means and zeros can be compared.
fn replay(expected: &str, recorder: &Recorder) {
    let value = |name: &str| -> u64 {
        let found = expected.lines().find_map(|line| line.strip_prefix("zk_")?.strip_prefix(name)?.strip_prefix('\t'));
        found.unwrap_or_else(|| panic!("{name} is missing")).parse().unwrap()
    };
    for counter in Counter::ALL {
        recorder.count(*counter, value(counter.name()));
    }
    for summary in Summary::ALL {
        let of = |kind: &str| value(&format!("{kind}_{}", summary.name()));
        for observed in with_totals(of("cnt"), of("min"), of("sum"), of("max")) {
            recorder.observe(*summary, observed, 1);
        }
    }
    recorder.packets_received(value("packets_received"));
    recorder.packets_sent(value("packets_sent"));
}

fn compare_mntr(status: &ServerStatus, expected: &str, first_lines: usize) {
    let expected = golden(expected);
    let (metrics, recorders) = Metrics::new(1);
    replay(&expected, &recorders[0]);
    let text = mntr(status, &metrics);
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (text.lines().collect(), expected.lines().collect());
    assert_eq!(ours[..first_lines], theirs[..first_lines], "what comes first");
    let only_in = |of: &[&str], other: &[&str]| -> Vec<String> {
        of.iter().filter(|line| !other.contains(line)).map(|line| line.to_string()).collect()
    };
    assert_eq!((only_in(&ours, &theirs), only_in(&theirs, &ours)), (vec![], vec![]));
    assert_eq!(ours.len(), theirs.len());
}

fn idle(mode: Mode) -> ServerStatus {
    ServerStatus {
        mode,
        quorum_size: 3,
        node_count: 5,
        ephemerals_count: 0,
        approximate_data_size: 222,
        watch_count: 0,
        global_sessions: 0,
        connections: 1,
        ..status()
    }
}

#[test]
fn mntr_of_a_learner_has_zookeepers_lines() {
    let follower = ServerStatus { uptime_ms: 3483, open_file_descriptors: 47, ..idle(Mode::Follower) };
    compare_mntr(&follower, include_str!("../golden/mntr_follower.txt"), 3);
    let observer = Mode::Observer { master: ServerId(2) };
    let observer = ServerStatus { uptime_ms: 3653, open_file_descriptors: 47, ..idle(observer) };
    compare_mntr(&observer, include_str!("../golden/mntr_observer.txt"), 4);
    let read_only = ServerStatus { ephemerals_count: 4, global_sessions: 4, node_count: 13, ..idle(Mode::ReadOnly) };
    let read_only =
        ServerStatus { approximate_data_size: 750, uptime_ms: 2140, open_file_descriptors: 43, ..read_only };
    compare_mntr(&read_only, include_str!("../golden/mntr_read_only.txt"), 2);
}

#[test]
fn mntr_of_a_leader_has_zookeepers_lines() {
    let one = |value| Some(Spread { totals: totals(&[value]), percentiles: [value; 4] });
    let sizes = Some(totals(&[0, 2, 1, 0, 0, 0, 0, 0, 0, 0]));
    let queue = |learner, time_ms| LearnerQueueStatus {
        learner: ServerId(learner),
        size: sizes,
        time_ms: one(time_ms),
        ack_latency: None,
    };
    let status = ServerStatus {
        uptime_ms: 3596,
        open_file_descriptors: 50,
        learner_queues: vec![queue(1, 6), queue(3, 85), queue(4, 3)],
        ..idle(Mode::Leader(leader()))
    };
    compare_mntr(&status, include_str!("../golden/mntr_leader.txt"), 3);

    let acks = LearnerQueueStatus { ack_latency: one(7), size: None, time_ms: None, learner: ServerId(3) };
    let text = mntr(&ServerStatus { learner_queues: vec![acks], ..status }, &Metrics::new(1).0);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("_3_")).collect();
    let expected = "zk_avg_3_ack_latency\t7.0 zk_min_3_ack_latency\t7 zk_max_3_ack_latency\t7 zk_cnt_3_ack_latency\t1 \
                    zk_sum_3_ack_latency\t7 zk_p50_3_ack_latency\t7 zk_p95_3_ack_latency\t7 zk_p99_3_ack_latency\t7 \
                    zk_p999_3_ack_latency\t7";
    assert_eq!(lines.join(" "), expected);
}
