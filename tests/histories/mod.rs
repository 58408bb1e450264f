//! What the tests of a log that changes its mind share: a log over the simulated disk beside a plain list of what it
//! should hold. Bodies are drawn from a counter, so that two histories with the same zxids differ.

#![allow(dead_code, reason = "each test file uses its part")]

use ostler::disk::Disk;
use ostler::disk::sim::{Keep, SimDisk};
use ostler::fatal::Fatal;
use ostler::ids::{Epoch, Zxid};
use ostler::log::{Batch, Log, Recovery, Sizes};
use std::path::Path;

pub const SIZES: Sizes = Sizes { first: 4 << 10, segment: 8 << 10 };

pub type Records = Vec<(Zxid, Vec<u8>)>;

pub fn dir() -> &'static Path {
    Path::new("/log")
}

pub fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(dir()).unwrap();
    disk
}

/// A copy of the disk to damage or to crash.
pub fn copy(disk: &SimDisk) -> SimDisk {
    disk.after_crash(Keep::Everything)
}

pub fn zxid(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// Every way in which a crash can leave the disk that the tests try.
pub fn keeps(seed: u64) -> impl Iterator<Item = Keep> {
    let seeds = (0..4).map(move |which| Keep::Some(which * 1_000_003 + seed));
    [Keep::Nothing, Keep::Everything, Keep::Bytes, Keep::Names].into_iter().chain(seeds)
}

/// What a log should hold, and in which order it came to be.
#[derive(Clone, Default, Debug)]
pub struct Model {
    pub records: Records,
    pub made: usize,
}

impl Model {
    pub fn last(&self) -> Zxid {
        self.records.last().map_or(Zxid::ZERO, |record| record.0)
    }

    /// A batch of `count` records that go on in the last epoch, or begin `epoch` if that is a later one.
    pub fn batch(&mut self, epoch: u32, count: usize) -> Batch {
        let mut batch = Batch::new();
        for _ in 0..count {
            let last = self.last();
            let next = if epoch > last.epoch().0 { zxid(epoch, 1) } else { last.next().unwrap() };
            self.made += 1;
            let length = self.made * 37 % 300;
            let body: Vec<u8> = (0..length).map(|at| (self.made * 31 + at * 7) as u8).collect();
            batch.push(next, &body);
            self.records.push((next, body));
        }
        batch
    }

    pub fn append(&mut self, log: &mut Log<SimDisk>, epoch: u32, count: usize) -> Result<(), Fatal> {
        let batch = self.batch(epoch, count);
        log.append(&batch)?;
        assert_eq!(log.sync()?.up_to(), self.last());
        Ok(())
    }

    pub fn truncate(&mut self, to: Zxid) {
        self.records.retain(|record| record.0 <= to);
    }
}

/// Recovers from `from` on: the log, and what it handed out.
pub fn recover(disk: &SimDisk, from: Zxid) -> Result<(Log<SimDisk>, Records), Fatal> {
    let mut recovery = Recovery::open(disk.clone(), dir(), from, SIZES)?;
    let mut records = Records::new();
    while let Some((zxid, body)) = recovery.next()? {
        records.push((zxid, body.to_vec()));
    }
    Ok((recovery.finish()?, records))
}
