//! Ensembles of real processes at the limits of what a server holds at once: what is full has to become empty again, with
//! nobody's help, and nothing that was accepted may be lost or be waited for in vain.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use ostler::ids::SessionId;
use ostler::limits;
use ostler::wire::quorum::{PacketType, Request};

use support::client::{self, Client, op};
use support::ensemble::{Ensemble, Layout, SOON};
use support::jute::Writer;
use support::learner::Learner;
use support::servers::wait_for;
use support::trees;

/// More than `limits::PROPOSALS_OUTSTANDING_BYTES` together.
const LARGE: usize = 900_000;
const LARGE_WRITES: usize = 50;

/// A client that sends large writes without waiting, and counts them; then it reads all replies.
fn writer(mut client: Client, path: String, sent: Arc<AtomicUsize>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut asked = Vec::new();
        for n in 0..LARGE_WRITES {
            asked.push(client.send(op::SET, client::set(&path, &vec![n as u8; LARGE])).unwrap());
            sent.fetch_add(1, Ordering::SeqCst);
        }
        for xid in asked {
            let reply = client.receive().expect("a reply to each");
            assert_eq!((reply.xid, reply.err), (xid, 0));
        }
        let (data, stat) = client.get(&path, false).unwrap().unwrap();
        assert_eq!((data[0] as usize, stat.version as usize), (LARGE_WRITES - 1, LARGE_WRITES));
    })
}

/// Clients write through these servers; while the others stand still if there is no quorum without them.
fn fills_up_and_moves_on(through: impl Fn(&Ensemble) -> Vec<usize>) {
    // What is many megabytes takes its time on a slow disk.
    let ensemble = Ensemble::start(Layout::of(3).with("syncLimit=300"));
    let places = through(&ensemble);
    let sent = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut client = ensemble.client(places[n % places.len()], 30_000);
        let path = format!("/large-{n}");
        client.create(&path, b"", 0).unwrap().unwrap();
        clients.push((client, path));
    }
    let stopped: Vec<usize> = (0..ensemble.len()).filter(|at| !places.contains(at)).collect();
    for &at in &stopped {
        ensemble.signal(at, "STOP");
    }
    let start = |(client, path)| writer(client, path, sent.clone());
    let writers: Vec<JoinHandle<()>> = clients.into_iter().map(start).collect();
    wait_for("the line to fill", SOON, || (sent.load(Ordering::SeqCst) * LARGE > 75_000_000).then_some(()));
    for &at in &stopped {
        ensemble.signal(at, "CONT");
    }
    for writer in writers {
        writer.join().expect("every write is answered");
    }
    trees::compare(&ensemble, &[0, 1, 2]);
}

#[test]
fn a_leader_that_has_all_it_may_have_outstanding_goes_on_when_its_followers_do() {
    fills_up_and_moves_on(|ensemble| vec![ensemble.leader()]);
}

#[test]
fn large_writes_through_every_server_at_once_are_all_answered() {
    fills_up_and_moves_on(|ensemble| (0..ensemble.len()).collect());
}

/// A follower of ZooKeeper's forwards whatever its clients ask, and acknowledges behind it.
#[test]
fn an_acknowledgement_behind_many_requests_is_heard() {
    let mut ensemble = Ensemble::start(Layout::of(3).with("syncLimit=300"));
    let leader = ensemble.leader();
    let followers = ensemble.followers();
    ensemble.kill(followers[0]);
    let mut learner = Learner::join(ensemble.quorum_address(leader), followers[0] as i64 + 1);
    let sent = Arc::new(AtomicUsize::new(0));
    let mut writers = Vec::new();
    for n in 0..2 {
        let mut client = ensemble.client(leader, 30_000);
        let path = format!("/large-{n}");
        client.create(&path, b"", 0).unwrap().unwrap();
        writers.push((client, path));
    }
    // From here on there is no quorum without the learner.
    ensemble.kill(followers[1]);
    let start = |(client, path)| writer(client, path, sent.clone());
    let writers: Vec<JoinHandle<()>> = writers.into_iter().map(start).collect();
    let mut last = 0;
    let mut bytes = 0;
    while bytes < limits::PROPOSALS_OUTSTANDING_BYTES {
        let proposal = learner.until(PacketType::Proposal);
        (last, bytes) = (proposal.zxid, bytes + proposal.data.len());
    }
    let record = vec![0; LARGE];
    for cxid in 0..100 {
        learner.request(&Request { session: SessionId(7), cxid, op: op::SET, record: &record });
    }
    learner.ack(last);
    let learner = std::thread::spawn(move || learner.follow());
    for writer in writers {
        writer.join().expect("every write is answered");
    }
    drop(ensemble);
    learner.join().unwrap();
}

#[test]
fn strangers_that_say_nothing_do_not_keep_a_follower_out() {
    const STRANGERS: usize = 1_200;
    if !support::files::allows(3 * STRANGERS) {
        return;
    }
    // Longer than the test waits: they go because there is no room for them, not because they are silent.
    let mut ensemble = Ensemble::start(Layout::of(3).with("initLimit=1000"));
    let leader = ensemble.leader();
    let follower = ensemble.followers()[0];
    ensemble.kill(follower);
    let call = |_| TcpStream::connect(ensemble.quorum_address(leader)).expect("the leader listens");
    let strangers: Vec<TcpStream> = (0..STRANGERS).map(call).collect();
    ensemble.restart(follower);
    assert_eq!(ensemble.serving(follower), "follower");
    let lines = ensemble.whole_log(leader);
    let told = lines.lines().filter(|line| line.contains("that say nothing")).count();
    assert!((1..=STRANGERS - 1_024).contains(&told), "{told} lines");
    drop(strangers);
}

/// Whoever has not said who it is has no megabytes to be read into.
#[test]
fn a_stranger_that_announces_a_large_packet_is_closed_before_it_has_sent_it() {
    let ensemble = Ensemble::start(Layout::of(3).with("initLimit=1000"));
    let leader = ensemble.leader();
    let mut stranger = TcpStream::connect(ensemble.quorum_address(leader)).expect("the leader listens");
    stranger.set_read_timeout(Some(SOON)).unwrap();
    // FOLLOWERINFO, a zxid, a million bytes of data, of which the first come.
    let mut packet =
        [11i32.to_be_bytes().to_vec(), 0i64.to_be_bytes().to_vec(), 1_000_000i32.to_be_bytes().to_vec()].concat();
    packet.extend_from_slice(&[0; 100]);
    stranger.write_all(&packet).unwrap();
    let end = stranger.read(&mut [0; 1]).map_err(|error| error.kind());
    assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "it is closed without an answer: {end:?}");
    assert_eq!(ensemble.serving(leader), "leader");
}

/// Anonymous memory of a process, in MiB.
fn anonymous(id: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says so");
    line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).expect("a number") >> 10
}

/// The most memory that a process has had since `forget_peak`, in MiB.
fn peak(id: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).expect("a number") >> 10
}

/// proc_pid_clear_refs(5).
fn forget_peak(id: u32) {
    std::fs::write(format!("/proc/{id}/clear_refs"), "5").expect("it is our own child");
}

/// Each ephemeral's path has its parent's long name, and so has what deletes it: all at once are many times the memory that the tree
/// takes for them. A server that fell over it fell again with each start, when the session expired.
#[test]
fn a_session_whose_ephemerals_have_long_paths_ends_without_all_of_them_in_memory() {
    const EPHEMERALS: usize = 100;
    let ensemble = Ensemble::start(Layout::of(3));
    let leader = ensemble.leader();
    let mut other = ensemble.client(leader, 60_000);
    let parent = format!("/{}", "p".repeat(LARGE));
    other.create(&parent, b"", 0).unwrap().unwrap();
    let follower = (leader + 1) % 3;
    let mut client = ensemble.client(follower, 60_000);
    for n in 0..EPHEMERALS {
        client.create(&format!("{parent}/{n}"), b"", 1).unwrap().unwrap();
    }
    let before: Vec<_> = (0..3).map(|at| anonymous(ensemble.id(at))).collect();
    (0..3).for_each(|at| forget_peak(ensemble.id(at)));
    // The close is answered behind all of it, and what another one asks meanwhile is answered.
    let closed = client.send(op::CLOSE, Writer::new()).unwrap();
    other.set("/", b"meanwhile").unwrap().unwrap();
    assert_eq!(client.receive().map(|reply| (reply.xid, reply.err)).unwrap(), (closed, 0));
    other.sync().unwrap();
    assert_eq!(other.children(&parent).unwrap(), Some(vec![]));
    for (at, before) in before.into_iter().enumerate() {
        let peak = peak(ensemble.id(at));
        // 90 MB of paths, each of which used to be there at least four times on the leader.
        assert!(peak < before + 250, "server {at} had {before} MiB and came to {peak} MiB");
    }
}

#[test]
fn learners_that_need_everything_at_once_do_not_fill_the_leaders_memory_and_clients_go_on() {
    const ZNODES: usize = 200_000;
    let mut ensemble = Ensemble::start(Layout::of(3).observers(4));
    let leader = ensemble.leader();
    let follower = (0..3).find(|at| *at != leader).expect("there are three");
    let learners = [follower, 3, 4, 5, 6];
    ensemble.kill_all(&learners);
    let mut client = ensemble.client(leader, 60_000);
    let mut waiting = 0;
    for n in 0..ZNODES {
        let path = if n % 100 == 0 { format!("/{}", n / 100) } else { format!("/{}/{n:09}", n / 100) };
        client.send(op::CREATE, client::create(&path, &[b'x'; 300], 0)).unwrap();
        waiting += 1;
        while waiting > 500 || (n + 1 == ZNODES && waiting > 0) {
            assert_eq!(client.receive().unwrap().err, 0);
            waiting -= 1;
        }
    }
    for &at in &learners {
        for entry in std::fs::read_dir(ensemble.data(at)).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => std::fs::remove_dir_all(entry).unwrap(),
                false if entry.ends_with("myid") => {}
                false => std::fs::remove_file(entry).unwrap(),
            }
        }
    }
    let before = anonymous(ensemble.id(leader));
    learners.iter().for_each(|&at| ensemble.spawn(at));
    let (mut most, mut slowest) = (before, std::time::Duration::ZERO);
    let began = ostler::clock::now();
    for n in 0.. {
        let asked = ostler::clock::now();
        client.set("/0", format!("{n}").as_bytes()).unwrap().unwrap();
        slowest = slowest.max(ostler::clock::now().since(asked));
        most = most.max(anonymous(ensemble.id(leader)));
        if n % 20 == 0 && learners.iter().all(|&at| ensemble.mode(at).is_some()) {
            break;
        }
        assert!(ostler::clock::now().since(began) < 5 * SOON, "they serve again");
    }
    let after = anonymous(ensemble.id(leader));
    let took = ostler::clock::now().since(began).as_millis();
    println!(
        "the leader had {before} MiB, {most} MiB at most while five learners got all of it ({took} ms), {after} MiB then"
    );
    let theirs: Vec<usize> = learners.iter().map(|&at| anonymous(ensemble.id(at))).collect();
    println!("the learners have {theirs:?} MiB; the slowest write took {} ms", slowest.as_millis());
    for &at in &learners {
        assert!(ensemble.whole_log(at).contains("the leader sends its whole state"), "{}", ensemble.log(at));
    }
    // Five trees more are 400.
    assert!(most < before + 200, "{before} MiB, then {most}");
    let znodes = |at: usize| {
        let text = wait_for("what it counts", SOON, || ensemble.word(at, "mntr"));
        text.lines().find_map(|line| line.strip_prefix("zk_znode_count").map(|rest| rest.trim().to_owned()))
    };
    let some = |at: usize| trees::read(&mut ensemble.client(at, 30_000), "/1234");
    for &at in &learners {
        assert_eq!(znodes(at), znodes(leader));
        trees::differ(&some(leader), &some(at), "the leader and a learner");
    }
}

#[test]
fn a_follower_that_is_further_behind_than_its_line_is_long_catches_up() {
    let mut ensemble = Ensemble::start(Layout::of(3));
    let follower = ensemble.followers()[0];
    ensemble.kill(follower);
    let mut client = ensemble.client(ensemble.leader(), 30_000);
    client.create("/n", b"", 0).unwrap().unwrap();
    // More than `limits::PROPOSALS_OUTSTANDING_MAX`.
    const WRITES: usize = 70_000;
    let mut answered = 0;
    for n in 0..WRITES {
        client.send(op::SET, client::set("/n", format!("{n}").as_bytes())).unwrap();
        if n % 500 == 499 {
            while answered <= n {
                assert_eq!(client.receive().unwrap().err, 0);
                answered += 1;
            }
        }
    }
    ensemble.restart(follower);
    trees::compare(&ensemble, &[ensemble.leader(), follower]);
    let mut there = ensemble.client(follower, 30_000);
    assert_eq!(there.get("/n", false).unwrap().unwrap().0, format!("{}", WRITES - 1).as_bytes());
}

#[test]
fn a_server_that_the_others_do_not_know_does_not_call_them_a_thousand_times_a_second() {
    let mut ensemble = Ensemble::prepare(Layout::of(4));
    for at in 0..3 {
        let text = std::fs::read_to_string(ensemble.config(at)).unwrap();
        let without: String =
            text.lines().filter(|line| !line.starts_with("server.4")).map(|line| format!("{line}\n")).collect();
        std::fs::write(ensemble.config(at), without).unwrap();
        ensemble.spawn(at);
    }
    ensemble.leader();
    ensemble.spawn(3);
    let ends = |ensemble: &Ensemble| ensemble.whole_log(3).matches("following ends").count();
    wait_for("it to be let go", SOON, || (ends(&ensemble) > 1).then_some(()));
    // 50, 100, 200, 400, 800 and 1,600 ms apart.
    let before = ostler::clock::now();
    wait_for("it to come back", SOON, || (ends(&ensemble) > 6).then_some(()));
    let took = ostler::clock::now().since(before).as_millis();
    assert!(took > 1_000, "{took} ms:\n{}", ensemble.log(3));
    let size = ensemble.whole_log(3).len();
    assert!(size < 20_000, "{size} bytes:\n{}", ensemble.log(3));
    assert!(ensemble.is_running(3));
}
