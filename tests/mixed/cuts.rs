//! The byte scalpel at work (`scalpel.rs`): a learner of one kind, a leader of the other, writes through both, and the
//! connection between the two cut, stalled or held up at a byte of the seed's choice, again and again.
//!
//! After most cuts: the learner serves again, and the two have the same tree; after the others the next one follows before
//! it has recovered. Cuts are meant for one of three: the stream of proposals and commits, the handshake and the
//! transactions that a learner has missed (it was kept away for some), a snapshot (it was made to start with nothing). What
//! is printed is where they fell.
//!
//! OSTLER_CUTS: how many for each pair of kinds and each direction of the bytes that are counted. OSTLER_CUTS_SEED.
//! OSTLER_MIXED=all has them with 3.8.0 too. OSTLER_CUTS_SHOW shows each.

use std::collections::BTreeMap;
use std::time::Duration;

use ostler::random::Rng;

use super::client::{Client, difference, digest, op};
use super::cluster::{Cluster, Kind, PATIENCE, java_kinds};
use super::scalpel::{Cut, Order, Scalpel, Side, timed};
use crate::support::jute::{Acl, Writer};
use crate::support::{servers::pause, setting};

const LEADER: u8 = 3;
const LEARNER: u8 = 1;

/// How many znodes there are at most: few, so that they can be compared after every cut.
const NODES: u64 = 40;

/// What the learner and its leader are doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    Steady,
    Diff,
    Snap,
}

struct Bench {
    cluster: Cluster,
    scalpel: Scalpel,
    rng: Rng,
    on_leader: Client,
    on_learner: Client,
    done: u64,
    compared: u64,
    /// How many cuts of each kind fell into what.
    fell: BTreeMap<(Phase, &'static str), u64>,
}

/// One of the writes that go on all the time; its outcome is the same for whoever applies it.
fn some_write(rng: &mut Rng) -> (i32, Writer) {
    let path = format!("/cut/n{:02}", rng.below(NODES));
    let data = vec![b'a' + rng.below(26) as u8; rng.below(400) as usize];
    match rng.below(10) {
        0..4 => (op::CREATE, Writer::new().text(&path).bytes(Some(&data)).acls(Some(&Acl::open())).int(0)),
        4..6 => (op::DELETE, Writer::new().text(&path).int(-1)),
        6 => (op::CREATE, Writer::new().text("/cut/seq/s").bytes(None).acls(Some(&Acl::open())).int(3)),
        _ => (op::SET_DATA, Writer::new().text(&path).bytes(Some(&data)).int(-1)),
    }
}

impl Bench {
    fn new(kinds: &str, java: Kind, seed: u64) -> Bench {
        let mut cluster = Cluster::new(kinds, java);
        let scalpel = Scalpel::new(cluster.member(LEADER).quorum_port);
        cluster.detours.push((LEADER, LEARNER, scalpel.port));
        cluster.start(2);
        cluster.start(LEADER);
        assert_eq!(cluster.leader(), LEADER);
        cluster.start(LEARNER);
        cluster.leader();
        let mut on_leader = Client::of(cluster.member(LEADER).client_port);
        for path in ["/cut", "/cut/seq"] {
            assert_eq!(on_leader.create(path, b"", 0).expect("an answer").error, 0);
        }
        // Enough for a snapshot to be worth cutting.
        for number in 0..60 {
            let path = format!("/cut/large{number}");
            assert_eq!(on_leader.create(&path, &[b'z'; 3000], 0).expect("an answer").error, 0);
        }
        let on_learner = Client::new(vec![cluster.member(LEARNER).client_port], 0, 60_000);
        let (rng, fell) = (Rng::new(seed), BTreeMap::new());
        Bench { cluster, scalpel, rng, on_leader, on_learner, done: 0, compared: 0, fell }
    }

    /// Writes through the leader, answered.
    fn write_on_leader(&mut self, count: u64) {
        self.send_on_leader(count);
        self.hear_leader(count);
    }

    fn send_on_leader(&mut self, count: u64) {
        for _ in 0..count {
            let (op, body) = some_write(&mut self.rng);
            self.on_leader.send(op, body).expect("the leader stays");
        }
    }

    fn hear_leader(&mut self, count: u64) {
        for _ in 0..count {
            let (_, answer) = self.on_leader.receive().expect("the leader stays");
            assert!(matches!(answer.error, 0 | -101 | -110), "error {}", answer.error);
        }
    }

    /// A few writes through the leader, and one through the learner, if it takes it.
    fn pump(&mut self) {
        let count = 1 + self.rng.below(8);
        self.send_on_leader(count);
        if self.on_learner.connected(Duration::ZERO) {
            let (op, body) = some_write(&mut self.rng);
            // Nobody can say what becomes of it if the connection is lost.
            let _ = self.on_learner.call(op, body);
        }
        self.hear_leader(count);
    }

    fn compare(&mut self) {
        let trees = [LEARNER, LEADER].map(|id| self.cluster.tree(id));
        let differ = difference(&trees[0], &trees[1]);
        assert!(
            differ.is_empty(),
            "after {} cuts the learner and its leader differ:\n{}",
            self.done,
            differ.join("\n")
        );
        assert_eq!(digest(&trees[0]), digest(&trees[1]));
        for id in [LEARNER, LEADER] {
            assert_eq!(self.cluster.measured(id, "zk_digest_mismatches_count"), 0, "server {id}");
        }
    }

    /// Where the next cut is meant to fall.
    fn phase(&mut self) -> Phase {
        // A ZooKeeper server that begins with nothing costs the start of a JVM.
        let snapshots = if self.cluster.kind(LEARNER).is_java() { 8 } else { 20 };
        match self.rng.below(100) {
            below if below < snapshots => Phase::Snap,
            below if below < 55 => Phase::Diff,
            _ => Phase::Steady,
        }
    }

    fn cut(&mut self, side: Side) {
        let phase = self.phase();
        let mut largest = match side {
            Side::Leader => 1 << (4 + self.rng.below(10)),
            Side::Learner => 1 << (4 + self.rng.below(7)),
        };
        let cut = match self.rng.below(8) {
            0 => Cut::Stall(Duration::from_millis(20 + self.rng.below(200))),
            1 => Cut::Pause(Duration::from_millis(20 + self.rng.below(400))),
            _ => Cut::Close,
        };
        match phase {
            Phase::Steady => {
                assert!(self.on_learner.connected(PATIENCE), "server {LEARNER} does not serve");
            }
            Phase::Diff => {
                self.scalpel.shut(true);
                let transactions = 1 + self.rng.below(30);
                (0..transactions).for_each(|_| self.write_on_leader(1));
                // The handshake and as much of the rest as there is, roughly.
                largest = match side {
                    Side::Leader => 120 + 250 * transactions,
                    Side::Learner => 100 + 25 * transactions,
                };
            }
            Phase::Snap => {
                self.cluster.kill(LEARNER);
                self.cluster.wipe(LEARNER);
                if side == Side::Leader {
                    largest = 200_000;
                }
            }
        }
        let order = Order { side, after: self.rng.below(largest), cut };
        self.scalpel.order(order);
        match phase {
            Phase::Steady => {}
            Phase::Diff => self.scalpel.shut(false),
            Phase::Snap => self.cluster.start(LEARNER),
        }
        let mut served = phase == Phase::Steady;
        let ((), took) = timed(|| {
            for turn in 0.. {
                if self.scalpel.is_done() {
                    break;
                }
                assert!(turn < 6_000, "{order:?}: so many bytes never come: {:?}", self.scalpel.passed());
                self.pump();
                if self.on_learner.connected(Duration::ZERO) {
                    served |= !self.scalpel.is_done();
                } else {
                    pause(Duration::from_millis(10));
                }
            }
        });
        self.done += 1;
        // What was meant for a synchronisation may have come after it.
        let fell = if served { Phase::Steady } else { phase };
        *self.fell.entry((fell, cut.name())).or_default() += 1;
        let show = std::env::var_os("OSTLER_CUTS_SHOW").is_some();
        if show {
            println!("{} {phase:?} {order:?}: in {fell:?} at byte {}, {took:?}", self.done, self.scalpel.place());
        }
        // Sometimes the next one follows before the learner has recovered.
        if self.rng.below(3) > 0 {
            self.pump();
            let (back, again) = timed(|| self.on_learner.connected(PATIENCE));
            assert!(back, "{order:?}: server {LEARNER} does not serve again");
            assert_eq!(self.cluster.serves(LEADER), "leader");
            self.compare();
            self.compared += 1;
            if show {
                println!("  in step after {again:?}");
            }
        }
    }
}

fn cuts(kinds: &str) {
    let each = setting("OSTLER_CUTS", 10);
    let every = std::env::var("OSTLER_MIXED").is_ok_and(|value| value == "all");
    let javas = java_kinds();
    for java in if every { &javas[..] } else { &javas[..1] } {
        let mut bench = Bench::new(kinds, *java, setting("OSTLER_CUTS_SEED", 1));
        let ((), took) = timed(|| {
            for _ in 0..each {
                bench.cut(Side::Leader);
                bench.cut(Side::Learner);
            }
            assert!(bench.on_learner.connected(PATIENCE), "server {LEARNER} does not serve again");
            bench.compare();
        });
        let expired = bench.on_learner.expired + bench.on_leader.expired;
        let kind = |id: u8| bench.cluster.kind(id);
        println!(
            "{:?} follows {:?}: {each} cuts in what each of them sends, {} comparisons, in {took:.0?}; {expired} sessions \
             expired",
            kind(LEARNER),
            kind(LEADER),
            bench.compared
        );
        bench.fell.iter().for_each(|((phase, cut), count)| println!("  {phase:?}, {cut}: {count}"));
    }
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars: tools/peers.sh"]
fn zookeeper_follows_ostler_through_a_connection_that_is_cut_anywhere() {
    cuts("zoo");
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars: tools/peers.sh"]
fn ostler_follows_zookeeper_through_a_connection_that_is_cut_anywhere() {
    cuts("ozz");
}
