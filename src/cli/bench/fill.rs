//! Fills a server with znodes in the shape that real trees have, and tells what memory each takes.
//!
//! The shape: paths of 115 bytes in the mean, the last part 24, data of 46 bytes; three of ten znodes under one of three very
//! wide parents, the others in folders of about sixty. Every path and value follows from the znode's number, so that what is
//! there can be checked and the same tree be made again.
//!
//! `--churn` deletes znodes at random and creates as many new ones, without a restart: what a heap keeps of a tree that lives is
//! not what it takes for one that was only loaded.
//!
//! Runs on: the main thread, and `steady`'s.

use super::args::{BenchArgs, Target};
use super::dialect::{Names, write_create, write_read};
use super::outcome::Outcome;
use super::process::Memory;
use super::{setup, steady};
use crate::fatal::Fatal;
use crate::random::Rng;
use crate::wire::txn::Acl;
use crate::wire::{ErrorCode, OpCode};
use std::io;
use std::net::SocketAddr;

/// Very wide parents.
const WIDE: u64 = 3;
/// Znodes in each of the other folders.
const FOLDER: u64 = 60;

/// Which znodes there are, and what is in them.
#[derive(Clone)]
pub struct Shape {
    root: String,
    folders: u64,
}

impl Shape {
    /// The shape of `count` znodes below `root`.
    pub fn new(root: &str, count: u64) -> Shape {
        Shape { root: root.into(), folders: (count * 7 / 10 / FOLDER).max(1) }
    }

    /// All parents: those above come first.
    fn parents(&self) -> impl Iterator<Item = String> + '_ {
        let areas = (0..AREAS).map(|area| format!("{}/area-{area:02}", self.root));
        areas.chain((0..WIDE + self.folders).map(|folder| self.folder(folder)))
    }

    /// The path of a folder; the first ones are the wide ones.
    fn folder(&self, folder: u64) -> String {
        let mut path = format!("{}/area-{:02}/service-{folder:07}-", self.root, folder % AREAS);
        // 90 bytes in the mean, of which the root is a part: 25 more or less, so that no two lengths are the usual one.
        let len = if folder < WIDE { 90 } else { 65 + Rng::new(folder).below(51) as usize };
        while path.len() < len {
            path.push("abcdefghijklmnopqrstuvwxyz".as_bytes()[path.len() % 26] as char);
        }
        path
    }

    /// The path of a znode: 115 bytes in the mean, of which the last part is 24.
    pub fn path(&self, number: u64) -> String {
        let mut rng = Rng::new(number ^ 0x7a6e_6f64_6500_0000);
        let folder = if rng.below(10) < 3 { rng.below(WIDE) } else { WIDE + rng.below(self.folders) };
        format!("{}/member-{number:017}", self.folder(folder))
    }

    /// The data of a znode: 46 bytes in the mean.
    pub fn data(number: u64, out: &mut Vec<u8>) {
        let len = 23 + Rng::new(!number).below(47) as usize;
        out.clear();
        out.extend_from_slice(format!("{{\"host\":\"{number:016x}\"").as_bytes());
        out.truncate(len);
        out.resize(len, b'.');
    }
}

const AREAS: u64 = 16;

/// Fills, measures memory, churns, measures again, and reads a sample back.
pub fn measure(args: &BenchArgs, target: &Target) -> Result<Outcome, Fatal> {
    let (addresses, root) = target.resolve(&args.root)?;
    let count = u64::from(args.keys());
    let shape = Shape::new(&root, count);
    let before = prepare(args, target, &addresses, &root, &shape).map_err(|error| target.failed(error))?;
    let mut outcome = steady::load(args, target, &addresses, &root)?;
    let parents = AREAS + WIDE + shape.folders;
    let all = count + parents;
    outcome.figure("znodes", all as f64);
    let filled = Memory::of(&target.pids);
    let memory = |outcome: &mut Outcome, now: Memory, names: [&'static str; 3]| {
        let (anonymous, heap) = now.each(before, all);
        outcome.known(names[0], anonymous);
        outcome.known(names[1], heap);
        outcome.known(names[2], now.mapped.map(|bytes| bytes as f64 / 1e6));
    };
    memory(&mut outcome, filled, ["bytes_per_znode", "heap_bytes_per_znode", "mapped_mb"]);
    let mut alive: Vec<u64> = (0..count).collect();
    if args.churn > 0 {
        let churn = BenchArgs { requests: Some(u64::from(args.churn) * 2), ..args.clone() };
        let churned = steady::load(&BenchArgs { churning: true, ..churn.clone() }, target, &addresses, &root)?;
        outcome.figure("churn_per_second", churned.throughput());
        outcome.wrong += churned.wrong;
        outcome.first_wrong = outcome.first_wrong.take().or(churned.first_wrong);
        let names = ["churned_bytes_per_znode", "churned_heap_bytes_per_znode", "churned_mapped_mb"];
        memory(&mut outcome, Memory::of(&target.pids), names);
        alive = super::workload::alive_after(&churn);
    }
    check(args, &addresses, &shape, &alive, &mut outcome).map_err(|error| target.failed(error))?;
    if !args.keep {
        setup::clean_up(target, &addresses, &root).map_err(|error| target.failed(error))?;
    }
    Ok(outcome)
}

/// Makes the parents; the memory before that.
fn prepare(
    args: &BenchArgs,
    target: &Target,
    addresses: &[SocketAddr],
    root: &str,
    shape: &Shape,
) -> io::Result<Memory> {
    setup::prepare(args, target, addresses, root)?;
    let before = Memory::of(&target.pids);
    let mut plain = setup::Plain::connect(addresses)?;
    let acl = Acl::world(Acl::ALL);
    plain.each(shape.parents(), &[], |path, xid, out| write_create(&path, b"", &acl, xid, out))?;
    plain.close()?;
    Ok(before)
}

/// Reads a thousand znodes back, those that have to be there and those that must not.
fn check(
    args: &BenchArgs,
    addresses: &[SocketAddr],
    shape: &Shape,
    alive: &[u64],
    outcome: &mut Outcome,
) -> io::Result<()> {
    let mut plain = setup::Plain::connect(addresses)?;
    let mut rng = Rng::new(args.seed);
    let sample: Vec<u64> = (0..1_000).map(|_| alive[rng.below(alive.len() as u64) as usize]).collect();
    let write = |number: u64, xid, out: &mut Vec<u8>| {
        write_read(OpCode::GetData, &shape.path(number), false, xid, out);
    };
    let mut value = Vec::new();
    plain.ask_each(sample, write, |number, code, _, r| {
        Shape::data(number, &mut value);
        if code != ErrorCode::OK || r.buffer("data").unwrap_or(None) != Some(&value[..]) {
            outcome.wrong(format!("{} is not there as it was made: {code:?}", shape.path(number)));
        }
        Ok(())
    })?;
    plain.close()
}

impl Names {
    /// Makes path and value those of a znode of a fill.
    pub fn fill(&mut self, shape: &Shape, number: u64) -> (&str, &[u8]) {
        self.set_path(shape.path(number));
        Shape::data(number, self.value_mut());
        self.path_and_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_what_it_says() {
        let shape = Shape::new("/ostler-bench", 100_000);
        let (mut paths, mut data, mut wide) = (0, 0, std::collections::BTreeMap::new());
        let mut value = Vec::new();
        let parents: std::collections::BTreeSet<String> = shape.parents().collect();
        for number in 0..100_000 {
            let path = shape.path(number);
            let (parent, name) = path.rsplit_once('/').unwrap();
            assert_eq!(name.len(), 24);
            assert!(parents.contains(parent), "{parent}");
            Shape::data(number, &mut value);
            (paths, data) = (paths + path.len(), data + value.len());
            *wide.entry(parent.to_string()).or_insert(0u32) += 1;
        }
        assert!((114..=116).contains(&(paths / 100_000)), "{paths}");
        assert!((45..=47).contains(&(data / 100_000)), "{data}");
        assert_eq!(wide.values().filter(|&&children| children > 5_000).count(), 3);
        assert!(wide.len() > 1_000);
    }
}
