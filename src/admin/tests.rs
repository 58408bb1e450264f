//! Answers against those of ZooKeeper 3.9.5. The golden files are its words to the byte, captured with the clients named
//! below; only the version and the directory were replaced.

use super::status::*;
use super::*;
use crate::config::{Config, WordList};
use crate::ids::{SessionId, Zxid};
use crate::metrics::{Counter, Metrics, Summary, Totals};
use std::net::SocketAddr;
use std::sync::Arc;

mod ensemble;

const FIRST: SessionId = SessionId(0x100002ebf0f0002);
const SECOND: SessionId = SessionId(0x100002ebf0f0003);

fn golden(text: &str) -> String {
    text.replace("VERSION", VERSION)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn totals(values: &[u64]) -> Totals {
    let mut totals = Totals::default();
    values.iter().for_each(|value| totals.observe(*value, 1));
    totals
}

/// A server with two clients of two ephemeral nodes, three data watches and one on children.
fn status() -> ServerStatus {
    ServerStatus {
        mode: Mode::Standalone,
        quorum_size: 0,
        zxid: Zxid(0xd),
        node_count: 9,
        ephemerals_count: 2,
        approximate_data_size: 62,
        watch_count: 4,
        global_sessions: 2,
        local_sessions: 0,
        connections: 3,
        outstanding: 0,
        uptime_ms: 1000,
        open_file_descriptors: 56,
        max_file_descriptors: 20_000,
        auth_failed: 0,
        connection_drop_probability: 0.0,
        non_mtls_local_connections: 0,
        non_mtls_remote_connections: 0,
        namespaces: Vec::new(),
        learner_queues: Vec::new(),
    }
}

fn session(id: SessionId, last_operation: &'static str, cxid: i32) -> SessionConnection {
    let first = id == FIRST;
    SessionConnection {
        id,
        last_operation,
        established_ms: if first { 1795580659357 } else { 1795580659361 },
        timeout_ms: if first { 10_000 } else { 30_000 },
        last_cxid: cxid,
        last_zxid: 0xd,
        last_response_ms: if first { 3781754 } else { 3781753 },
        last_latency_ms: u64::from(!first),
        latency: if first { totals(&[2, 0, 0, 1, 1, 0]) } else { totals(&[1, 1, 1]) },
    }
}

fn connections(asking_port: u16) -> Vec<ConnectionStatus> {
    let plain = |peer, interest, packets, session| ConnectionStatus {
        peer,
        interest,
        queued: 0,
        received: packets,
        sent: if interest == 0 { 0 } else { packets },
        session,
    };
    vec![
        plain(local(39464), 1, 6, Some(session(FIRST, "GETC", 5))),
        plain(local(39472), 1, 3, Some(session(SECOND, "GETD", 2))),
        plain(local(asking_port), 0, 1, None),
    ]
}

/// What had been counted when `stat` was asked.
fn counted(received: u64, sent: u64) -> Arc<Metrics> {
    let (metrics, recorders) = Metrics::new(1);
    recorders[0].packets_received(received);
    recorders[0].packets_sent(sent);
    recorders[0].request_latency(3, 2);
    recorders[0].request_latency(1, 4);
    recorders[0].request_latency(0, 5);
    metrics
}

#[test]
fn srvr_and_stat_are_zookeepers_to_the_byte() {
    assert_eq!(srvr(&status(), &counted(31, 33)), golden(include_str!("golden/srvr.txt")));
    assert_eq!(stat(&status(), &counted(30, 32), &connections(39554)), golden(include_str!("golden/stat.txt")));
}

#[test]
fn cons_is_zookeepers_to_the_byte_also_after_crst() {
    let mut connections = connections(39540);
    // A connection's least latency is 0 in ZooKeeper until the first crst, whatever it was; here it is what it was.
    let text = cons(&connections).replace("minlat=1,avglat=1", "minlat=0,avglat=1");
    assert_eq!(text, include_str!("golden/cons.txt"));

    for connection in &mut connections {
        let Some(session) = &mut connection.session else { continue };
        (connection.received, connection.sent) = (0, 0);
        session.last_operation = "NA";
        session.last_cxid = -1;
        session.last_zxid = -1;
        session.last_response_ms = 0;
        session.last_latency_ms = 0;
        session.latency = Totals::default();
    }
    connections[2].peer = local(39576);
    assert_eq!(cons(&connections), include_str!("golden/cons_after_crst.txt"));
}

#[test]
fn watches_are_listed_as_zookeeper_lists_them() {
    let summary = WatchSummary { connections: 2, paths: 2, watches: 3 };
    assert_eq!(wchs(&summary), include_str!("golden/wchs.txt"));
    let by_session = [
        SessionWatches { session: FIRST, paths: vec!["/g".into(), "/nope".into()] },
        SessionWatches { session: SECOND, paths: vec!["/g".into()] },
    ];
    assert_eq!(wchc(&by_session), include_str!("golden/wchc.txt"));
    let by_path = [
        PathWatches { path: "/g".into(), sessions: vec![SECOND, FIRST] },
        PathWatches { path: "/nope".into(), sessions: vec![FIRST] },
    ];
    assert_eq!(wchp(&by_path), include_str!("golden/wchp.txt"));
    assert_eq!((wchc(&[]), wchp(&[])), ("\n".into(), "\n".into()), "as seen without watches");
}

#[test]
fn dump_is_zookeepers_to_the_byte() {
    // Sun Nov 22 06:58:26 UTC 2026 is 1795330706000.
    let at = |minute: i64, second: i64| 1_795_579_200_000 + (24 * 60 + (minute - 24) * 60 + second) * 1000;
    let full = SessionDump {
        sessions: SessionList::ByExpiry(vec![(at(24, 29), vec![FIRST]), (at(24, 49), vec![SECOND])]),
        ephemerals: vec![(SECOND, vec!["/h".into()]), (FIRST, vec!["/g/e".into()])],
        connections: vec![
            (at(24, 37), vec![(local(39464), FIRST), (local(39534), SessionId::NONE)]),
            (at(24, 57), vec![(local(39472), SECOND)]),
        ],
    };
    assert_eq!(dump(&full), include_str!("golden/dump.txt"));
    let empty = "SessionTracker dump:\nSession Sets (0)/(0):\nephemeral nodes dump:\nSessions with Ephemerals (0):\n\
                 Connections dump:\nConnections Sets (0)/(0):\n";
    assert_eq!(dump(&SessionDump::default()), empty);
}

#[test]
fn conf_and_dirs_are_zookeepers_to_the_byte() {
    let mut config = Config::defaults(2);
    config.data_dir = "/data".into();
    config.data_log_dir = "/data".into();
    assert_eq!(conf(&config, 21899, 67109358, 67109358, None), include_str!("golden/conf.txt"));
    assert_eq!(dirs(67109358, 67109358), include_str!("golden/dirs.txt"));
    config.client_port_listen_backlog = Some(128);
    assert!(conf(&config, 1, 0, 0, None).contains("\nclientPortListenBacklog=128\nserverId=0\n"));
}

#[test]
fn mntr_of_an_idle_server_has_zookeepers_lines() {
    let (metrics, recorders) = Metrics::new(3);
    recorders[0].packets_received(4);
    recorders[1].packets_sent(3);
    recorders[0].count(Counter::BytesReceivedCount, 16);
    recorders[2].observe(Summary::SyncProcessorQueueSize, 0, 1);
    recorders[2].observe(Summary::PrepProcessorQueueSize, 0, 1);
    recorders[2].observe(Summary::Snapshottime, 0, 1);
    recorders[2].observe(Summary::Dbinittime, 6, 1);
    recorders[2].observe(Summary::StartupSnapLoadTime, 1, 1);
    let mut status = status();
    status.node_count = 5;
    status.ephemerals_count = 0;
    status.approximate_data_size = 44;
    status.watch_count = 0;
    status.global_sessions = 0;
    status.connections = 1;
    status.uptime_ms = 227_737;
    status.open_file_descriptors = 53;
    let text = mntr(&status, &metrics);
    let expected = golden(include_str!("golden/mntr_fresh.txt"));
    let (mut ours, mut theirs): (Vec<&str>, Vec<&str>) = (text.lines().collect(), expected.lines().collect());
    assert_eq!(ours[..2], theirs[..2], "version and state come first");
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn mntr_has_percentiles_and_namespaces() {
    let (metrics, recorders) = Metrics::new(1);
    for latency in [1, 1, 1, 2] {
        recorders[0].observe(Summary::Readlatency, latency, 1);
    }
    recorders[0].response_size(84, 1);
    let mut status = status();
    status.namespaces.push(NamespaceStatus {
        name: "a".into(),
        writes: Some(totals(&[3, 4, 9])),
        quota_count_limit: Some(5),
        quota_exceeded: Some(2),
        ..NamespaceStatus::default()
    });
    let text = mntr(&status, &metrics);
    for line in [
        "zk_avg_readlatency\t1.25",
        "zk_p50_readlatency\t1",
        "zk_p95_readlatency\t2",
        "zk_avg_a_write_per_namespace\t5.3333",
        "zk_min_a_write_per_namespace\t3",
        "zk_max_a_write_per_namespace\t9",
        "zk_cnt_a_write_per_namespace\t3",
        "zk_sum_a_write_per_namespace\t16",
        "zk_a_quota_count_limit_per_namespace\t5",
        "zk_a_quota_exceeded_error_per_namespace\t2",
        "zk_last_client_response_size\t84",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    assert!(!text.contains("a_read_per_namespace"));
}

#[test]
fn envi_has_the_keys_in_zookeepers_order() {
    let text = envi(&Environment::of_this_process());
    let keys: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split_once('=')).map(|(key, _)| key).collect();
    let expected = "zookeeper.version host.name java.version java.vendor java.home java.class.path java.library.path \
                    java.io.tmpdir java.compiler os.name os.arch os.version user.name user.home user.dir \
                    os.memory.free os.memory.max os.memory.total";
    assert_eq!(keys.join(" "), expected);
    assert!(text.starts_with("Environment:\nzookeeper.version=3.9.5-ostler"));
    let free = text.lines().find_map(|line| line.strip_prefix("os.memory.free=")).unwrap();
    assert!(free.strip_suffix("MB").is_some_and(|mib| mib.parse::<u64>().is_ok()), "{free}");
}

#[test]
fn hash_lists_digests_by_zxid_without_a_prefix() {
    assert_eq!(hash(&[(Zxid(0x80), 70769881847), (Zxid(0x100), 84381337117)]), "80: 70769881847\n100: 84381337117\n");
    assert_eq!(hash(&[]), "");
}

#[test]
fn addresses_are_written_as_java_writes_them() {
    let peers = ["[::1]:7", "[::ffff:10.0.0.1]:8", "10.0.0.2:9"].map(|peer| peer.parse::<SocketAddr>().unwrap());
    let text =
        cons(&peers.map(|peer| ConnectionStatus { peer, interest: 5, queued: 2, received: 1, sent: 0, session: None }));
    let expected = " /[0:0:0:0:0:0:0:1]:7[5](queued=2,recved=1,sent=0)\n /10.0.0.1:8[5](queued=2,recved=1,sent=0)\n \
                    /10.0.0.2:9[5](queued=2,recved=1,sent=0)\n\n";
    assert_eq!(text, expected);
}

#[test]
fn words_are_told_from_lengths_and_the_list_decides() {
    for word in Word::ALL {
        let bytes: [u8; 4] = word.name().as_bytes().try_into().unwrap();
        assert_eq!(Word::from_bytes(bytes), Some(word));
    }
    for other in [b"RUOK", b"kill", b"reqs", b"wtch", &[0, 0, 0, 44]] {
        assert_eq!(Word::from_bytes(*other), None);
    }
    let list = |text: &str, read_only_mode| {
        let mut config = Config::defaults(1);
        config.four_letter_words = WordList::parse(text);
        config.read_only_mode = read_only_mode;
        let list = Whitelist::new(&config);
        Word::ALL.into_iter().filter(|word| list.allows(*word)).map(Word::name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list("", false), "srvr");
    assert_eq!(list("", true), "isro srvr");
    assert_eq!(list(" ruok,  mntr,nope,,", false), "mntr ruok srvr");
    assert_eq!(list("ruok,*", false).split(' ').count(), 18);
    assert_eq!(refusal(Word::Ruok), "ruok is not executed because it is not in the whitelist.\n");
}

#[test]
fn a_server_that_does_not_serve_answers_what_it_can() {
    assert_eq!(not_serving(Word::Ruok), None);
    assert_eq!(not_serving(Word::Isro), Some("null"));
    assert_eq!(not_serving(Word::Mntr), Some("This ZooKeeper instance is not currently serving requests\n"));
    assert_eq!(not_serving(Word::Hash), Some("This ZooKeeper instance is not currently serving requests"));
}
