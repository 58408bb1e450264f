//! Clients that were written for ZooKeeper, unmodified, at work on three servers of which the leader is killed, stopped
//! and started again under them: kazoo, the Java client, Curator.
//!
//! Each program knows all three servers. Its clients count under locks, hold ephemerals, watch, cache, elect leaders of
//! their own, and write many things at once; after each fault all of them have to get on, with the sessions that they
//! had. What was acknowledged is compared in the end with what each of the servers has.
//!
//! OSTLER_CLIENTS_AGAINST=java asks the same of three ZooKeeper servers, which proves that the tests ask for no more than
//! ZooKeeper gives.

#[path = "clients/program.rs"]
mod program;
mod support;

use std::process::Command;

use program::{Program, compiled, java, kind, source};
use support::ensemble::{Ensemble, Layout, SOON};
use support::servers::wait_for;
use support::{peers, trees};

/// What a JVM ends with on SIGTERM, and ostler too.
const TERMINATED: i32 = 143;

fn works_through_it(command: impl FnOnce(&str) -> Command) {
    let mut ensemble = Ensemble::start(Layout::of(3).kind(kind()));
    let mut program = Program::start(command(&ensemble.connect_text()));
    // One of its clients is on the leader each time.
    let join = |program: &mut Program, ensemble: &Ensemble| {
        let leader = ensemble.leader();
        let said = program.ask(&format!("join {leader}"));
        assert_eq!(said.last(), Some(&format!("joined {}", ensemble.address(leader).port())));
        leader
    };
    program.ask("step");

    let leader = join(&mut program, &ensemble);
    ensemble.kill(leader);
    program.ask("step");
    ensemble.restart(leader);
    program.ask("step");

    let leader = join(&mut program, &ensemble);
    assert_eq!(ensemble.terminate(leader).code(), Some(TERMINATED));
    program.ask("step");
    ensemble.restart(leader);

    // Started again at once, however far the others are.
    let leader = join(&mut program, &ensemble);
    ensemble.kill(leader);
    ensemble.restart(leader);
    program.ask("step");
    let leader = join(&mut program, &ensemble);
    assert_eq!(ensemble.terminate(leader).code(), Some(TERMINATED));
    ensemble.restart(leader);
    program.ask("step");

    let told = program.ask("end");
    let all: Vec<usize> = (0..ensemble.len()).collect();
    let (tree, _) = trees::compare(&ensemble, &all);
    let (mut acked, mut ephemerals) = (0, Vec::new());
    for line in &told {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["acked", path, data] => {
                let found = tree.get(path).map(|(data, _)| String::from_utf8_lossy(data));
                assert_eq!(found.as_deref(), Some(data), "{path} was acknowledged");
                acked += 1;
            }
            ["ephemeral", path, session] => {
                let owner = tree.get(path).map(|(_, stat)| stat.owner.to_string());
                assert_eq!(owner.as_deref(), Some(session), "{path} is held");
                ephemerals.push(path);
            }
            _ => println!("{line}"),
        }
    }
    assert!(acked >= 100 && ephemerals.len() >= 3, "{acked} writes, ephemerals {ephemerals:?}");
    program.ask("close");
    program.finish();
    // Its sessions are over, and what they held is gone, on each server.
    let mut clients: Vec<_> = all.iter().map(|&at| ensemble.client(at, 30_000)).collect();
    wait_for("ephemerals to go", SOON, || {
        clients
            .iter_mut()
            .all(|client| {
                client.sync().expect("nothing is broken any more");
                ephemerals.iter().all(|path| !client.exists(path, false).expect("an answer"))
            })
            .then_some(())
    });
}

#[test]
#[ignore = "needs Python with kazoo: tools/peers.sh"]
fn kazoo_works_through_kills_and_stops_of_the_leader() {
    works_through_it(|servers| {
        let mut command = Command::new(peers().join("venv/bin/python"));
        command.arg(source("fail_over.py")).arg(servers);
        command
    });
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars: tools/peers.sh"]
fn the_java_client_works_through_kills_and_stops_of_the_leader() {
    let classes = compiled("JavaFailOver.java");
    works_through_it(|servers| {
        let mut command = java(classes.path(), "JavaFailOver");
        command.arg(servers);
        command
    });
}

#[test]
#[ignore = "needs Java, ZooKeeper's and Curator's jars: tools/peers.sh"]
fn curator_works_through_kills_and_stops_of_the_leader() {
    let classes = compiled("CuratorFailOver.java");
    works_through_it(|servers| {
        let mut command = java(classes.path(), "CuratorFailOver");
        command.arg(servers);
        command
    });
}
