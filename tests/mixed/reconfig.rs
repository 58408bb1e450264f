//! An operator calls `reconfig` all the same: what ostler does that can't change its members, and how it goes on.
//!
//! Runs on: the test's thread.

use super::client::{Client, op};
use super::cluster::{Cluster, Kind, PATIENCE, java_kinds};
use super::support::jute::Writer;
use super::support::servers::{free_port, pause, wait_for};
use std::time::Duration;

/// Two ZooKeeper servers, one of which leads, and an ostler that follows, as server 3.
const OSTLER: u8 = 3;

fn cluster(java: Kind) -> (Cluster, u8) {
    let mut cluster = Cluster::new("zzo", java);
    cluster.settings.push("reconfigEnabled=true".into());
    (1..OSTLER).for_each(|id| cluster.start(id));
    let leader = cluster.leader();
    cluster.start(OSTLER);
    assert_eq!(cluster.leader(), leader);
    (cluster, leader)
}

/// Changes the members; the version of the new configuration, which is in force.
fn reconfig(cluster: &Cluster, leader: u8, joining: Option<&str>, leaving: Option<&str>) -> u64 {
    let mut client = Client::of(cluster.member(leader).client_port);
    assert_eq!(client.create("/before", b"", 0).expect("an answer").error, 0);
    assert_eq!(client.auth("digest", "super:secret").expect("an answer").error, 0);
    let bytes = |text: Option<&str>| text.map(str::to_owned);
    let mut body = Writer::new();
    for text in [bytes(joining), bytes(leaving), None] {
        body = body.bytes(text.as_ref().map(String::as_bytes));
    }
    let answer = client.call(op::RECONFIG, body.long(-1)).expect("an answer");
    assert_eq!(answer.error, 0);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let version = text.split("version=").nth(1).expect("a configuration");
    let digits: String = version.chars().take_while(char::is_ascii_hexdigit).collect();
    // What follows the text is numbers, and the first of them begins with a zero.
    u64::from_str_radix(&digits, 16).expect("a version")
}

/// It has stopped, and says why.
fn stopped_with(cluster: &mut Cluster, of_others: &str) {
    assert_eq!(cluster.ended(OSTLER), Some(2), "{}", cluster.log(OSTLER));
    let log = cluster.log(OSTLER);
    let line = log.lines().find(|line| line.contains("other servers vote in this ensemble")).expect("a reason");
    assert!(line.contains(of_others) && line.contains("server.3="), "{line}");
    assert!(log.contains("dynamicConfigFile"), "and what to do: {log}");
}

/// The ostler is needed for a quorum of the new members as well as of the old ones. With the old ones it does not vote again,
/// and with the new ones it is one of them.
#[test]
#[ignore = "needs Java and ZooKeeper's jars: tools/peers.sh"]
fn a_reconfiguration_stops_an_ostler_that_follows_until_it_is_given_the_new_members() {
    for java in java_kinds() {
        let (mut cluster, leader) = cluster(java);
        let [quorum, election, client] = [(); 3].map(|()| free_port());
        let joining = format!("server.4=127.0.0.1:{quorum}:{election}:participant;127.0.0.1:{client}");
        let version = reconfig(&cluster, leader, Some(&joining), None);
        stopped_with(&mut cluster, "server.4=");

        cluster.start(OSTLER);
        wait_for("a word about its vote", PATIENCE, || {
            pause(Duration::from_millis(5));
            cluster.log(OSTLER).contains("this server has no vote").then_some(())
        });
        cluster.stop(OSTLER);

        (cluster.dynamic, cluster.version, cluster.strangers) = (true, version, format!("{joining}\n"));
        cluster.start(OSTLER);
        let leader = cluster.leader();
        for id in [leader, OSTLER] {
            assert!(cluster.tree(id).contains_key("/before"));
        }
        let mut client = Client::of(cluster.member(OSTLER).client_port);
        assert_eq!(client.create("/after", b"", 0).expect("an answer").error, 0);
        client.close();
    }
}

/// It was away, and hears of it with NEWLEADER, which it does not acknowledge.
#[test]
#[ignore = "needs Java and ZooKeeper's jars: tools/peers.sh"]
fn an_ostler_that_was_away_during_a_reconfiguration_does_not_come_back_with_the_old_members() {
    for java in java_kinds() {
        let (mut cluster, leader) = cluster(java);
        cluster.stop(OSTLER);
        reconfig(&cluster, leader, None, Some("3"));
        cluster.start(OSTLER);
        stopped_with(&mut cluster, "server.2=");
        assert!(!cluster.log(OSTLER).contains("following in epoch"));
        assert!(cluster.tree(leader).contains_key("/before"));
    }
}

/// With `reconfigEnabled` a ZooKeeper leader gives the members of a static file a version, and whoever follows it takes no leader
/// any more that has an older one.
#[test]
#[ignore = "needs Java and ZooKeeper's jars: tools/peers.sh"]
fn an_ostler_leads_zookeeper_servers_that_have_given_their_members_a_version() {
    for java in java_kinds() {
        let (mut cluster, leader) = cluster(java);
        cluster.kill(leader);
        assert_eq!(cluster.leader(), OSTLER, "of equals the one with the highest id");
        let mut client = Client::of(cluster.member(OSTLER).client_port);
        assert_eq!(client.create("/led", b"", 0).expect("an answer").error, 0);
        client.close();
        cluster.start(leader);
        cluster.leader();
        assert!(cluster.tree(leader).contains_key("/led"));
    }
}
