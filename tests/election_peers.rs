//! Elections between this code and Apache ZooKeeper's, over real sockets: who is elected, and that both think so.
//!
//! Only the election of ostler's servers runs here (`election_peers/server.rs`); the ZooKeeper servers are whole. What those
//! believe is seen from what they tell to a third server that looks for a leader.

#[path = "election_peers/server.rs"]
mod server;
mod support;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ostler::clock;
use ostler::ids::{Epoch, ServerId, Zxid};
use ostler::wire::election::PeerState;
use ostler::zab::ensemble::EnsembleConfig;
use server::ElectionServer;
use support::conn;
use support::servers::{java_options, wait_for};
use tempfile::TempDir;

/// Long enough for a Java virtual machine to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// The ports of an ensemble on this machine, and its configuration.
struct Ensemble {
    lines: String,
    /// Election ports of ostler's servers; kept open from the start.
    listeners: Vec<Option<TcpListener>>,
    /// Their quorum ports, where ZooKeeper connects when it follows, and waits for an answer.
    _quorum_ports: Vec<TcpListener>,
    client_ports: Vec<u16>,
    folder: TempDir,
}

struct JavaServer {
    child: Child,
    client_port: u16,
    log: PathBuf,
}

fn bound() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, port)
}

impl Ensemble {
    /// Servers 1 to n: 'z' is ZooKeeper's, 'o' ostler's, 'O' an observer of ostler's, '-' one that never comes.
    fn new(kinds: &str) -> Ensemble {
        // All are held until all have been chosen, or two servers might be given one port.
        let ports: Vec<_> = kinds.chars().map(|kind| (kind, bound(), bound(), bound())).collect();
        let mut lines = String::new();
        for (at, (kind, quorum, election, _)) in ports.iter().enumerate() {
            let role = if *kind == 'O' { "observer" } else { "participant" };
            lines += &format!("server.{}=127.0.0.1:{}:{}:{role}\n", at + 1, quorum.1, election.1);
        }
        let client_ports = ports.iter().map(|(_, _, _, client)| client.1).collect();
        let (mut listeners, mut quorum_ports) = (Vec::new(), Vec::new());
        for (kind, quorum, election, _) in ports {
            let ours = matches!(kind, 'o' | 'O');
            listeners.push(ours.then_some(election.0));
            quorum_ports.extend(ours.then_some(quorum.0));
        }
        let folder = tempfile::Builder::new().prefix("ostler-test-").tempdir().expect("a temporary folder");
        Ensemble { lines, listeners, _quorum_ports: quorum_ports, client_ports, folder }
    }

    fn config(&self) -> EnsembleConfig {
        EnsembleConfig::parse(self.lines.as_bytes()).unwrap()
    }

    fn ostler(&mut self, id: u8) -> ElectionServer {
        let listener = self.listeners[id as usize - 1].take().expect("one of ostler's, once");
        ElectionServer::new(id, self.config(), listener)
    }

    /// `first`: jars that come before those of 3.9.5 in the class path.
    fn java_with(&self, id: u8, first: &str) -> JavaServer {
        let client_port = self.client_ports[id as usize - 1];
        let data = self.folder.path().join(format!("data{id}"));
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("myid"), id.to_string()).unwrap();
        let config = self.folder.path().join(format!("zoo{id}.cfg"));
        let text = format!(
            "tickTime=1000\ninitLimit=20\nsyncLimit=5\ndataDir={}\nclientPort={client_port}\n\
             clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\n{}",
            data.display(),
            self.lines
        );
        fs::write(&config, text).unwrap();
        let log = self.folder.path().join(format!("log{id}"));
        let output = File::create(&log).unwrap();
        let mut options = java_options();
        if let Some(path) = options.last_mut() {
            *path = format!("{first}{path}");
        }
        let child = Command::new("java")
            .args(options)
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .current_dir(self.folder.path())
            .spawn()
            .expect("java is installed");
        JavaServer { child, client_port, log }
    }

    fn java(&self, id: u8) -> JavaServer {
        self.java_with(id, "")
    }
}

impl JavaServer {
    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it serves, and says how: "leader", "follower".
    fn mode(&self) -> String {
        wait_for("ZooKeeper to serve", PATIENCE, || {
            let answer = conn::word_within(Duration::from_millis(300), self.client_port, "srvr").ok()?;
            let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "))?;
            Some(mode.to_owned())
        })
    }
}

impl Drop for JavaServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        self.kill();
    }
}

/// Lets the servers run until `done`.
fn run(
    servers: &mut [&mut ElectionServer],
    limit: Duration,
    mut done: impl FnMut(&[&mut ElectionServer]) -> bool,
) -> bool {
    let begin = clock::now();
    while clock::now().since(begin) < limit {
        servers.iter_mut().for_each(|server| server.turn());
        if done(servers) {
            return true;
        }
    }
    false
}

fn decide(servers: &mut [&mut ElectionServer]) {
    let all = |servers: &[&mut ElectionServer]| servers.iter().all(|server| server.decided.is_some());
    if !run(servers, PATIENCE, all) {
        let heard: Vec<_> = servers.iter().map(|server| (&server.decided, &server.heard)).collect();
        panic!("not all have decided: {heard:?}");
    }
}

fn outcome(server: &ElectionServer) -> (u8, PeerState) {
    let (vote, state) = server.decided.expect("it has decided");
    (vote.leader.0, state)
}

/// Debian's jars of 3.8.0, in front of the others. What they depend on is there.
fn jars_of_3_8() -> String {
    let jars = ["zookeeper-3.8.0.jar", "zookeeper-jute-3.8.0.jar"].map(|jar| format!("/usr/share/java/{jar}"));
    jars.map(|jar| jar + ":").concat()
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars (tools/peers.sh)"]
fn zookeeper_votes_for_the_larger_id_and_tells_others_so() {
    let mut versions = vec![String::new()];
    if std::path::Path::new("/usr/share/java/zookeeper-3.8.0.jar").exists() {
        versions.push(jars_of_3_8());
    }
    for version in versions {
        let mut ensemble = Ensemble::new("zoo");
        let _java = ensemble.java_with(1, &version);
        let mut two = ensemble.ostler(2);
        // Server 3 is not there: its port is bound, and nobody answers. Then the wait can't be cut short.
        two.start(Some(Zxid::ZERO), Epoch(0));
        decide(&mut [&mut two]);
        assert_eq!(outcome(&two), (2, PeerState::Leading));
        let mut three = ensemble.ostler(3);
        // It only asks, since ZooKeeper may still be waiting for a better vote.
        three.start(None, Epoch(0));
        decide(&mut [&mut two, &mut three]);
        assert_eq!(outcome(&three), (2, PeerState::Following), "by the words of 1 and 2");
        let (_, leader, config) = &three.heard[&ServerId(1)];
        assert_eq!(*leader, 2);
        assert_eq!(String::from_utf8_lossy(config), ensemble.config().text(), "the text is the same, byte for byte");
    }
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars (tools/peers.sh)"]
fn zookeeper_votes_for_the_longer_history_of_a_smaller_id() {
    let mut ensemble = Ensemble::new("o-z");
    let _java = ensemble.java(3);
    let mut one = ensemble.ostler(1);
    one.start(Some(Zxid(5)), Epoch(0));
    decide(&mut [&mut one]);
    assert_eq!(outcome(&one), (1, PeerState::Leading));
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars (tools/peers.sh)"]
fn zookeeper_leads_when_it_is_the_better_one() {
    let mut ensemble = Ensemble::new("ooz");
    let _java = ensemble.java(3);
    let (mut one, mut two) = (ensemble.ostler(1), ensemble.ostler(2));
    one.start(Some(Zxid::ZERO), Epoch(0));
    decide(&mut [&mut one]);
    assert_eq!(outcome(&one), (3, PeerState::Following));
    // ZooKeeper may still be waiting for a better vote; so only ask at first.
    two.start(None, Epoch(0));
    decide(&mut [&mut one, &mut two]);
    assert_eq!(two.heard[&ServerId(3)].0, PeerState::Leading);
    two.start(Some(Zxid(7)), Epoch(0));
    decide(&mut [&mut one, &mut two]);
    assert_eq!(outcome(&two), (3, PeerState::Following), "too late, with whatever history");
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars (tools/peers.sh)"]
fn a_running_zookeeper_ensemble_is_found_and_not_disturbed() {
    let mut ensemble = Ensemble::new("zozO");
    let javas = [ensemble.java(1), ensemble.java(3)];
    assert_eq!((javas[0].mode(), javas[1].mode()), ("follower".to_owned(), "leader".to_owned()));
    let (mut voter, mut observer) = (ensemble.ostler(2), ensemble.ostler(4));
    // Even a later epoch and a longer history do not unseat a leader that has its quorum.
    voter.start(Some(Zxid(9 << 32 | 5)), Epoch(9));
    observer.start(Some(Zxid::ZERO), Epoch(0));
    decide(&mut [&mut voter, &mut observer]);
    assert_eq!(outcome(&voter), (3, PeerState::Following));
    assert_eq!(outcome(&observer), (3, PeerState::Observing));
    assert_eq!(voter.decided.unwrap().0.epoch, Epoch(1), "the epoch that it leads");
    assert_eq!((javas[0].mode(), javas[1].mode()), ("follower".to_owned(), "leader".to_owned()));
    for (_, (state, _, config)) in observer.heard.iter().filter(|(from, _)| from.0 != 2) {
        assert_ne!(*state, PeerState::Looking);
        assert_eq!(String::from_utf8_lossy(config), ensemble.config().text());
    }
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars (tools/peers.sh)"]
fn zookeeper_elects_nobody_with_a_server_in_quarantine_and_it_finds_who_is_elected_without_it() {
    let mut ensemble = Ensemble::new("zoo");
    let _java = ensemble.java(1);
    let mut damaged = ensemble.ostler(2);
    damaged.start(None, Epoch(5));
    let heard = |servers: &[&mut ElectionServer]| servers[0].heard.contains_key(&ServerId(1));
    assert!(run(&mut [&mut damaged], PATIENCE, heard));
    run(&mut [&mut damaged], Duration::from_secs(2), |servers| servers[0].decided.is_some());
    assert_eq!(damaged.decided, None);
    assert_eq!(damaged.heard[&ServerId(1)].0, PeerState::Looking);

    let mut sound = ensemble.ostler(3);
    sound.start(Some(Zxid::ZERO), Epoch(0));
    decide(&mut [&mut damaged, &mut sound]);
    assert_eq!(outcome(&sound), (3, PeerState::Leading));
    assert_eq!(outcome(&damaged), (3, PeerState::Following));
}

/// That they don't wait is shown where time is simulated (`zab/election/network.rs`).
#[test]
fn when_the_leader_is_gone_two_servers_elect_another() {
    for _ in 0..5 {
        let mut ensemble = Ensemble::new("ooo");
        let (mut one, mut two, mut three) = (ensemble.ostler(1), ensemble.ostler(2), ensemble.ostler(3));
        for server in [&mut one, &mut two, &mut three] {
            server.start(Some(Zxid::ZERO), Epoch(0));
        }
        decide(&mut [&mut one, &mut two, &mut three]);
        if [&one, &two].iter().any(|server| outcome(server) != (3, PeerState::Following)) {
            // The machine is so busy that server 3 was too late.
            continue;
        }
        // A server reads what comes at all times: also the last words of one that dies. More than they need is no harm.
        run(&mut [&mut one, &mut two, &mut three], Duration::from_millis(50), |_| false);
        drop(three);
        one.start(Some(Zxid::ZERO), Epoch(1));
        two.start(Some(Zxid::ZERO), Epoch(1));
        decide(&mut [&mut one, &mut two]);
        assert_eq!((outcome(&one), outcome(&two)), ((2, PeerState::Following), (2, PeerState::Leading)));
        return;
    }
}
