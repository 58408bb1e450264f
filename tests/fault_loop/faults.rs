//! The faults: which there are, how each is done, and that all recover from it.
//!
//! Runs on: the test's thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ostler::clock;
use ostler::random::Rng;

use super::actor::Shared;
use super::disk::Disk;
use super::history::{Cut, Time};
use super::network::Network;
use super::witness::{self, Silence};
use super::{SESSION_MS, SILENCE};
use crate::support::ensemble::{Ensemble, SOON};
use crate::support::servers::{pause, wait_for};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    KillLeader,
    KillFollower,
    KillMost,
    KillAll,
    StopLeader,
    StopFollower,
    /// Cut off both ways: the leader and perhaps others, some followers, each from everybody, one from one.
    PartLeader,
    PartFollowers,
    PartEveryone,
    PartPair,
    /// Nothing arrives, in one direction: at or from the leader, from one server at another.
    MuteLeader,
    DeafLeader,
    MutePair,
    FillDisk,
    /// SIGTERM.
    EndLeader,
    EndAny,
}

use Fault::*;

impl Fault {
    /// What kind of fault it is, as the issue tracker names them.
    pub fn kind(self) -> &'static str {
        match self {
            KillLeader | KillFollower | KillMost | KillAll => "kill -9",
            StopLeader | StopFollower => "SIGSTOP",
            PartLeader | PartFollowers | PartEveryone | PartPair => "cut both ways",
            MuteLeader | DeafLeader | MutePair => "cut one way",
            FillDisk => "disk full",
            EndLeader | EndAny => "SIGTERM",
        }
    }
}

/// `OSTLER_FAULTS`: some of them only.
pub fn only() -> Option<String> {
    std::env::var("OSTLER_FAULTS").ok()
}

pub struct Faults {
    pub ensemble: Ensemble,
    pub network: Option<Network>,
    pub disk: Option<Disk>,
    pub shared: Arc<Shared>,
    pub rng: Rng,
    /// Every wait is so many times shorter.
    pub haste: u64,
    bag: Vec<Fault>,
    pub cuts: Vec<Cut>,
    pub counts: BTreeMap<Fault, u64>,
    pub silence: Silence,
    /// What happened when: the fault, when it began, when it was over, when all had recovered.
    pub rounds: Vec<(Fault, Time, Time, Time)>,
    /// Times in which no quorum was alive and connected.
    pub without_quorum: Vec<(Time, Time)>,
}

impl Faults {
    pub fn new(
        ensemble: Ensemble,
        network: Option<Network>,
        disk: Option<Disk>,
        shared: Arc<Shared>,
        rng: Rng,
        haste: u64,
    ) -> Faults {
        let (bag, cuts, counts, silence) = (Vec::new(), Vec::new(), BTreeMap::new(), Silence::default());
        let (rounds, without_quorum) = (Vec::new(), Vec::new());
        Faults { ensemble, network, disk, shared, rng, haste, bag, cuts, counts, silence, rounds, without_quorum }
    }

    pub fn time(&self) -> Time {
        clock::now().since(self.shared.begin).as_nanos() as u64
    }

    fn any(&mut self) -> usize {
        self.rng.below(self.ensemble.len() as u64) as usize
    }

    /// Some milliseconds, by chance.
    fn wait(&mut self, least: u64, most: u64) {
        pause(Duration::from_millis((least + self.rng.below(most - least)) / self.haste));
    }

    /// All that this machine allows.
    pub fn possible(&self) -> Vec<Fault> {
        let mut all = vec![KillLeader, KillFollower, KillMost, KillAll, StopLeader, StopFollower, EndLeader, EndAny];
        if self.network.is_some() {
            all.extend([PartLeader, PartFollowers, PartEveryone, PartPair, MuteLeader, DeafLeader, MutePair]);
        }
        if self.disk.is_some() {
            all.push(FillDisk);
        }
        if let Some(only) = only() {
            all.retain(|fault| only.split(',').any(|name| format!("{fault:?}") == name));
        }
        all
    }

    /// Whether every fault has had its turn equally often.
    pub fn is_bag_empty(&self) -> bool {
        self.bag.is_empty()
    }

    /// Each fault in its turn, in an order by chance; then all again.
    fn choose(&mut self) -> Fault {
        if let Some(fault) = self.bag.pop() {
            return fault;
        }
        let mut all = self.possible();
        while !all.is_empty() {
            let at = self.rng.below(all.len() as u64) as usize;
            self.bag.push(all.swap_remove(at));
        }
        self.choose()
    }

    /// One fault, from its beginning to its end; then everybody has to serve again.
    pub fn round(&mut self) {
        let fault = self.choose();
        let leader = self.ensemble.leader();
        let count = self.ensemble.len();
        let other = (leader + 1 + self.rng.below(count as u64 - 1) as usize) % count;
        let begin = self.time();
        match fault {
            KillLeader => self.kill(&[leader]),
            KillFollower => self.kill(&[other]),
            KillMost => {
                let first = self.any();
                let some: Vec<usize> = (0..=count / 2).map(|n| (first + n) % count).collect();
                self.kill(&some);
            }
            KillAll => self.kill(&(0..count).collect::<Vec<_>>()),
            StopLeader => self.stop(leader),
            StopFollower => self.stop(other),
            EndLeader => self.end(leader),
            EndAny => {
                let at = self.any();
                self.end(at);
            }
            PartLeader => {
                let mut minority = vec![leader];
                while minority.len() < count / 2 && self.rng.below(2) == 0 {
                    minority.push((minority[minority.len() - 1] + 1) % count);
                }
                self.part(minority);
            }
            PartFollowers => {
                let size = 1 + self.rng.below(count as u64 / 2) as usize;
                let minority = (0..size).map(|n| (other + n) % count).filter(|&at| at != leader).collect();
                self.part(minority);
            }
            PartEveryone => self.part((0..count).collect()),
            PartPair => {
                let one = self.any();
                let other = (one + 1 + self.rng.below(count as u64 - 1) as usize) % count;
                self.cut(&[(one, other), (other, one)]);
            }
            MuteLeader => self.cut(&(0..count).map(|at| (leader, at)).collect::<Vec<_>>()),
            DeafLeader => self.cut(&(0..count).map(|at| (at, leader)).collect::<Vec<_>>()),
            MutePair => {
                let one = self.any();
                let other = (one + 1 + self.rng.below(count as u64 - 1) as usize) % count;
                self.cut(&[(one, other)]);
            }
            FillDisk => {
                if let Some(disk) = &self.disk {
                    disk.fill();
                }
                self.wait(1_000, 3_000);
                if let Some(disk) = &self.disk {
                    disk.empty();
                }
                // It may have ended, or not; it is not asked to go on by itself.
                self.ensemble.kill(0);
                self.ensemble.spawn(0);
            }
        }
        *self.counts.entry(fault).or_default() += 1;
        let end = self.time();
        if matches!(fault, KillMost | KillAll | PartEveryone) {
            self.without_quorum.push((begin, end));
        }
        self.recover(fault, begin);
        self.rounds.push((fault, begin, end, self.time()));
        self.wait(100, 1_500);
    }

    fn kill(&mut self, which: &[usize]) {
        self.ensemble.kill_all(which);
        self.wait(0, 1_500);
        which.iter().for_each(|&at| self.ensemble.spawn(at));
    }

    fn stop(&mut self, at: usize) {
        self.ensemble.signal(at, "STOP");
        self.wait(100, 3_000);
        self.ensemble.signal(at, "CONT");
    }

    fn end(&mut self, at: usize) {
        self.ensemble.terminate(at);
        self.wait(0, 500);
        self.ensemble.spawn(at);
    }

    /// Cuts each of a minority off from the rest, or everybody from everybody, both ways, and looks at what it still does.
    fn part(&mut self, minority: Vec<usize>) {
        let count = self.ensemble.len();
        let all = minority.len() == count;
        let Some(network) = &self.network else { return };
        let clients = minority.iter().map(|&at| {
            let both = [0; 2].map(|_| self.ensemble.client(at, SESSION_MS));
            (at, self.ensemble.address(at), both)
        });
        let clients: Vec<_> = clients.collect();
        for (&one, other) in minority.iter().flat_map(|one| (0..count).map(move |other| (one, other))) {
            if other != one && (all || !minority.contains(&other)) {
                network.cut(one, other);
                network.cut(other, one);
            }
        }
        let (from, now) = (self.time(), clock::now());
        witness::watch(clients, now, SILENCE, &mut self.silence);
        self.wait(0, 3_000);
        let to = self.time();
        if let Some(network) = &self.network {
            network.heal_all();
        }
        self.cuts.push(Cut { minority, from, to });
    }

    fn cut(&mut self, ways: &[(usize, usize)]) {
        if let Some(network) = &self.network {
            ways.iter().filter(|(from, to)| from != to).for_each(|&(from, to)| network.cut(from, to));
        }
        self.wait(500, 4_000);
        if let Some(network) = &self.network {
            network.heal_all();
        }
    }

    /// Nothing is broken any more: soon all serve, and a write is acknowledged.
    fn recover(&mut self, fault: Fault, began: Time) {
        let began_ms = began / 1_000_000;
        for at in 0..self.ensemble.len() {
            wait_for(&format!("server {} after {fault:?}, begun at {began_ms} ms", at + 1), SOON, || {
                if !self.ensemble.is_running(at) {
                    panic!("server {} has ended by itself after {fault:?}:\n{}", at + 1, self.ensemble.log(at));
                }
                self.ensemble.mode(at)
            });
        }
        let written = self.shared.written.load(Ordering::Relaxed);
        wait_for(&format!("a write after {fault:?}, begun at {began_ms} ms"), SOON, || {
            (self.shared.written.load(Ordering::Relaxed) > written).then_some(())
        });
    }
}
