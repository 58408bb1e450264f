//! A member of an ensemble of ZooKeeper servers: killed while it writes, read, made ours, written again, and it joins the
//! others as if nothing had been. What it must not forget is what it has promised: its epochs.

use super::commands::said;
use super::java::{files, read};
use super::support::client::{Client, create, op, set};
use super::support::ensemble::{Ensemble, Layout, SOON};
use super::support::servers::{Kind, wait_for};
use super::support::trees;
use ostler::ids::{Epoch, Zxid};

/// Creates, sets and deletes below /written, in flight by the dozen.
fn write(client: &mut Client, round: u64, count: u64) {
    let mut in_flight = 0;
    for at in 0..count {
        let path = format!("/written/n{}", at % 37);
        let (op, body) = match at % 5 {
            0 => (op::CREATE, create(&path, b"", 0)),
            4 if at % 3 == 0 => (op::DELETE, super::support::jute::Writer::new().text(&path).int(-1)),
            _ => (op::SET, set(&path, format!("{round} {at}").as_bytes())),
        };
        client.send(op, body).expect("it takes requests");
        in_flight += 1;
        if in_flight == 40 {
            (0..in_flight).for_each(|_| drop(client.receive().expect("an answer")));
            in_flight = 0;
        }
    }
    (0..in_flight).for_each(|_| drop(client.receive().expect("an answer")));
}

fn epoch_file(ensemble: &Ensemble, at: usize, name: &str) -> Epoch {
    let text = std::fs::read_to_string(ensemble.data(at).join("version-2").join(name)).unwrap();
    Epoch(text.trim().parse().unwrap())
}

#[test]
#[ignore = "needs Java and ZooKeeper 3.9.5 (tools/peers.sh)"]
fn a_member_of_an_ensemble_comes_back_with_what_it_had_and_what_it_had_promised() {
    let mut layout = Layout::of(3).kind(Kind::Java);
    layout.options = layout.options.property("zookeeper.snapCount=150").property("zookeeper.preAllocSize=64");
    let mut ensemble = Ensemble::start(layout);
    {
        let mut client = ensemble.client(0, 30_000);
        client.create("/written", b"", 0).unwrap().unwrap();
        client.close();
    }
    for round in 0..3 {
        // A follower, the leader, whoever is the last.
        let leader = ensemble.leader();
        let victim = if round == 1 { leader } else { (leader + 1) % 3 };
        let mut client = ensemble.client(victim, 30_000);
        write(&mut client, round, 400);
        for at in 0..100 {
            client.send(op::SET, set(&format!("/written/n{}", at % 37), b"in flight")).expect("it takes requests");
        }
        ensemble.kill(victim);
        let last_seen = Zxid(client.last_zxid as u64);

        // What it had, to the last transaction that it showed anybody.
        let imported = read(&ensemble.data(victim));
        let (accepted, current) =
            (epoch_file(&ensemble, victim, "acceptedEpoch"), epoch_file(&ensemble, victim, "currentEpoch"));
        assert_eq!((imported.epochs.accepted, imported.epochs.current), (accepted, current));
        assert!(imported.tree.zxid() >= last_seen && last_seen.epoch() == current, "{last_seen}");
        assert!(imported.report.record_digests > 0 || imported.report.snapshot_digest);

        // The others go on meanwhile.
        let alive = wait_for("a leader of two", SOON, || ensemble.leading_now().filter(|&at| at != victim));
        let mut client = ensemble.client(alive, 30_000);
        write(&mut client, round, 100);
        client.close();

        let config = ensemble.data(victim).parent().unwrap().join("zoo.cfg");
        said(&["import"], &config);
        let data = ensemble.data(victim);
        said(&["export", "--set-aside", "--to", data.to_str().unwrap()], &config);
        assert_eq!(epoch_file(&ensemble, victim, "acceptedEpoch"), accepted);
        assert_eq!(epoch_file(&ensemble, victim, "currentEpoch"), current);
        let again = read(&data);
        assert_eq!((again.tree.digest(), again.tree.zxid()), (imported.tree.digest(), imported.tree.zxid()));
        // What ostler has of it goes, so that the next round begins with ZooKeeper's alone.
        for kind in ["snap.", "segment.", "watermark", "epochs", "zookeeper.imported", "aside."] {
            files(&data, kind).iter().for_each(|path| std::fs::remove_file(path).unwrap());
        }

        ensemble.restart(victim);
        let mut clients: Vec<Client> = (0..3).map(|at| ensemble.client(at, 30_000)).collect();
        let first = trees::read(&mut clients[0], "/written");
        for (at, client) in clients.iter_mut().enumerate().skip(1) {
            trees::differ(
                &first,
                &trees::read(client, "/written"),
                &format!("round {round}: server 1 and server {}", at + 1),
            );
        }
        clients.into_iter().for_each(Client::close);
        for at in 0..3 {
            assert!(!ensemble.whole_log(at).contains("not matching"), "{}", ensemble.log(at));
        }
    }
}
