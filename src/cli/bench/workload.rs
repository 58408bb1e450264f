//! Which request comes next on a connection: the workload as a sequence, without a word of how it is written.
//!
//! Promises: the same arguments and connection number give the same sequence in every run. Leaves to `dialect` how a
//! request is written, and what its reply must be.
//!
//! Runs on: the connection's thread; pure.

use super::args::{BenchArgs, Keys, Workload};
use crate::random::Rng;
use std::sync::Arc;

/// One request. Keys are those that `setup` has made; the number of a new znode is the connection's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    Get(u32),
    Exists(u32),
    Set(u32),
    Children,
    Create(u64),
    Delete(u64),
    /// A child of the parent that `Children` lists.
    CreateChild(u32),
    DeleteChild(u32),
    /// A check and a setData of one key.
    Multi(u32),
    /// A znode of a fill.
    Fill(u64),
    FillDelete(u64),
    Ping,
}

/// Numbers of new znodes: the connection above, its own count below.
const OWN_BITS: u32 = 40;

/// The number of a connection's `count`th new znode.
pub fn own_number(connection: u32, count: u64) -> u64 {
    u64::from(connection) << OWN_BITS | count
}

/// The znodes of a fill that are a connection's own to delete, which stay in its order.
struct Churn {
    own: Vec<u64>,
    /// The place in `own` whose znode has been deleted and is to be replaced.
    gap: Option<usize>,
    next: u64,
}

/// Which znodes of a fill are there after these churning requests.
pub fn alive_after(args: &BenchArgs) -> Vec<u64> {
    let args = BenchArgs { churning: true, ..args.clone() };
    let mut alive = Vec::new();
    for connection in 0..args.connections() {
        let mut chooser = Chooser::new(&args, None, connection);
        while chooser.next().is_some() {}
        alive.extend(chooser.churn.into_iter().flat_map(|churn| churn.own));
    }
    alive
}

/// Chooses the requests of one connection.
pub struct Chooser {
    workload: Workload,
    connection: u32,
    connections: u32,
    keys: u32,
    read_ratio: u32,
    rng: Rng,
    zipf: Option<Arc<Zipf>>,
    made: u64,
    /// Requests that are still to be made.
    left: u64,
    churn: Option<Churn>,
}

impl Chooser {
    /// `zipf` if keys are to be drawn by it; `connection` of `connections`, whose shares make up all requests.
    pub fn new(args: &BenchArgs, zipf: Option<Arc<Zipf>>, connection: u32) -> Chooser {
        let (all, index) = (u64::from(args.connections().max(1)), u64::from(connection));
        let left = args.total_requests().map_or(u64::MAX, |total| total / all + u64::from(index < total % all));
        let keys = u64::from(args.keys());
        let churn = args.churning.then(|| Churn {
            own: (index..keys).step_by(all as usize).collect(),
            gap: None,
            next: keys + index,
        });
        // What is deleted is replaced.
        let left = if args.churning { left & !1 } else { left };
        Chooser {
            workload: args.workload,
            connection,
            connections: args.connections(),
            keys: args.keys(),
            read_ratio: args.read_ratio,
            rng: Rng::new(args.seed ^ (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            zipf,
            made: 0,
            left,
            churn,
        }
    }

    fn key(&mut self) -> u32 {
        match &self.zipf {
            Some(zipf) => zipf.draw(&mut self.rng),
            None => self.rng.below(u64::from(self.keys)) as u32,
        }
    }

    /// The next request; `None` when this connection's share is done.
    pub fn next(&mut self) -> Option<Ask> {
        self.left = self.left.checked_sub(1)?;
        let made = self.made;
        self.made += 1;
        let own = own_number(self.connection, made);
        let share = made * u64::from(self.connections) + u64::from(self.connection);
        Some(match self.workload {
            Workload::Get => Ask::Get(self.key()),
            Workload::Exists => Ask::Exists(self.key()),
            Workload::Set => Ask::Set(self.key()),
            Workload::Multi => Ask::Multi(self.key()),
            Workload::Children => Ask::Children,
            Workload::ChildrenChange => match made % 4 {
                0 => Ask::CreateChild(self.connection),
                2 => Ask::DeleteChild(self.connection),
                _ => Ask::Children,
            },
            Workload::Create => Ask::Create(own),
            // Of those that `setup` made under connection 0: this one's share is every so-manieth.
            Workload::Delete => Ask::Delete(share),
            Workload::CreateDelete if made.is_multiple_of(2) => Ask::Create(own),
            Workload::CreateDelete => Ask::Delete(own - 1),
            Workload::Mixed if self.rng.below(u64::from(self.read_ratio) + 1) == 0 => Ask::Set(self.key()),
            Workload::Mixed => Ask::Get(self.key()),
            Workload::Ping => Ask::Ping,
            Workload::Fill => match &mut self.churn {
                None => Ask::Fill(share),
                Some(churn) => churn.next(&mut self.rng, self.connections)?,
            },
            // They have no steady load.
            Workload::WatchOne | Workload::WatchMany | Workload::Idle | Workload::Storm => return None,
            Workload::FailOver | Workload::Record | Workload::Replay => return None,
        })
    }
}

impl Churn {
    /// A delete and a create in turn; `None` for a connection that has no znode.
    fn next(&mut self, rng: &mut Rng, connections: u32) -> Option<Ask> {
        if let Some(gap) = self.gap.take() {
            self.own[gap] = self.next;
            self.next += u64::from(connections);
            return Some(Ask::Fill(self.own[gap]));
        }
        let place = (!self.own.is_empty()).then(|| rng.below(self.own.len() as u64) as usize)?;
        self.gap = Some(place);
        Some(Ask::FillDelete(self.own[place]))
    }
}

/// Zipf's law by rejection-inversion would save the table; with at most a hundred million keys a table of sums is
/// simpler.
pub struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    /// The table that these arguments call for.
    pub fn wanted(args: &BenchArgs) -> Option<Arc<Zipf>> {
        (args.distribution == Keys::Zipfian).then(|| Arc::new(Zipf::new(args.keys())))
    }

    fn new(keys: u32) -> Zipf {
        let mut sum = 0.0;
        let sums = (1..=keys).map(|rank| {
            sum += 1.0 / f64::from(rank).powf(0.99);
            sum
        });
        Zipf { sums: sums.collect() }
    }

    fn draw(&self, rng: &mut Rng) -> u32 {
        let total = self.sums.last().copied().unwrap_or(1.0);
        let point = (rng.next() >> 11) as f64 / (1u64 << 53) as f64 * total;
        (self.sums.partition_point(|&sum| sum < point) as u32).min(self.sums.len() as u32 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn sequence(line: &str, connection: u32) -> Vec<Ask> {
        let args = Line::parse_from(["bench"].into_iter().chain(line.split(' '))).args;
        let mut chooser = Chooser::new(&args, Zipf::wanted(&args), connection);
        std::iter::from_fn(|| chooser.next()).take(1_000).collect()
    }

    #[test]
    fn zipf_prefers_the_first_keys_and_stays_in_range() {
        let (zipf, mut rng) = (Zipf::new(100), Rng::new(7));
        let mut counts = [0u32; 100];
        for _ in 0..10_000 {
            counts[zipf.draw(&mut rng) as usize] += 1;
        }
        assert!(counts[0] > 1_000 && counts[0] > 5 * counts[20] && counts[99] < 100, "{counts:?}");
    }

    #[test]
    fn a_bounded_load_is_shared_out_without_a_rest() {
        let each: Vec<usize> = (0..3).map(|at| sequence("get --requests 10 --connections 3", at).len()).collect();
        assert_eq!(each, [4, 3, 3]);
    }

    #[test]
    fn every_znode_to_be_deleted_is_deleted_once() {
        let mut deleted: Vec<u64> = Vec::new();
        for connection in 0..7 {
            for ask in sequence("delete --keys 100 --connections 7", connection) {
                let Ask::Delete(number) = ask else { panic!("{ask:?}") };
                deleted.push(number);
            }
        }
        deleted.sort_unstable();
        assert_eq!(deleted, (0..100).collect::<Vec<u64>>());
    }

    #[test]
    fn what_churning_leaves_is_as_much_as_there_was() {
        let args = Line::parse_from(["bench", "fill", "--keys", "100", "--connections", "7"]).args;
        let args = BenchArgs { requests: Some(101), ..args };
        let mut alive: std::collections::BTreeSet<u64> = (0..100).collect();
        for connection in 0..7 {
            let mut chooser = Chooser::new(&BenchArgs { churning: true, ..args.clone() }, None, connection);
            for ask in std::iter::from_fn(|| chooser.next()) {
                match ask {
                    Ask::Fill(number) => assert!(alive.insert(number), "{number} is there already"),
                    Ask::FillDelete(number) => assert!(alive.remove(&number), "{number} is not there"),
                    other => panic!("{other:?}"),
                }
            }
        }
        let mut after = alive_after(&args);
        after.sort_unstable();
        assert_eq!(after, alive.into_iter().collect::<Vec<_>>());
        assert!(after.len() == 100 && after[99] >= 100);
    }

    #[test]
    fn the_mix_has_its_ratio_and_repeats_itself() {
        let asks = sequence("mixed --read-ratio 10", 3);
        let sets = asks.iter().filter(|ask| matches!(ask, Ask::Set(_))).count();
        assert!((60..130).contains(&sets), "{sets} of {}", asks.len());
        assert_eq!(asks, sequence("mixed --read-ratio 10", 3));
        assert_ne!(asks, sequence("mixed --read-ratio 10", 4));
    }
}
