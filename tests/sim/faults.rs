//! What goes wrong in a run: each seed draws which faults there are and how strong (all of them at full strength would only
//! be an outage), and then one fault after another strikes.

use crate::network::{MS, Time};
use crate::world::World;
use ostler::disk::Disk;
use ostler::disk::sim::{Keep, SimDisk};
use ostler::random::Rng;

/// The faults that there are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    Kill,
    Power,
    /// The power goes in the middle of a disk operation.
    PowerInside,
    /// Of all at once.
    PowerOfAll,
    /// Of the leader, at a moment when it has just been established or has just proposed.
    KillLeader,
    Pause,
    PauseLeader,
    Isolate,
    IsolateLeader,
    OneWay,
    Halves,
    Ring,
    CutConnection,
    Stall,
    SlowDisk,
    FailSync,
    WallClock,
    /// Bytes of a file of a server that is down change.
    Damage,
    DiskFull,
    /// The others' connections with the leader break, and nothing reaches it any more, that end neither: they have another
    /// leader while it still believes to be it.
    Depose,
}

/// What strikes in most runs.
const ALL: [Fault; 19] = [
    Fault::Kill,
    Fault::Power,
    Fault::PowerInside,
    Fault::PowerOfAll,
    Fault::KillLeader,
    Fault::Pause,
    Fault::PauseLeader,
    Fault::Isolate,
    Fault::IsolateLeader,
    Fault::OneWay,
    Fault::Halves,
    Fault::Ring,
    Fault::CutConnection,
    Fault::Stall,
    Fault::SlowDisk,
    Fault::FailSync,
    Fault::WallClock,
    Fault::Damage,
    Fault::DiskFull,
];

/// What strikes in this run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub faults: Vec<Fault>,
    /// The longest pause between two faults.
    pub pause: Time,
    /// The longest time that one lasts.
    pub lasts: Time,
}

impl Plan {
    pub fn draw(rng: &mut Rng) -> Plan {
        let density = 1 + rng.below(4);
        let mut faults: Vec<Fault> = ALL.iter().copied().filter(|_| rng.below(6) < density).collect();
        if faults.is_empty() {
            faults.push(ALL[rng.below(ALL.len() as u64) as usize]);
        }
        let pause = [300, 1_000, 3_000, 8_000][rng.below(4) as usize] * MS;
        let lasts = [200, 1_500, 6_000, 12_000][rng.below(4) as usize] * MS;
        Plan { faults, pause, lasts }
    }

    /// One leader after another is deposed and comes back, in one life of each server: what a leadership leaves behind in
    /// memory, or still says when it is over, is seen only then.
    pub fn of_leaders(rng: &mut Rng) -> Plan {
        let others = [Fault::IsolateLeader, Fault::PauseLeader, Fault::CutConnection];
        let other = others[rng.below(3) as usize];
        let pause = [3_000, 8_000][rng.below(2) as usize] * MS;
        Plan { faults: vec![Fault::Depose, Fault::Depose, other], pause, lasts: 6_000 * MS }
    }

    /// Servers need a whole state, of a leader whose disk lags behind what is committed.
    pub fn of_replacements(rng: &mut Rng) -> Plan {
        let pause = [1_000, 3_000][rng.below(2) as usize] * MS;
        Plan { faults: vec![Fault::Damage, Fault::Damage, Fault::SlowDisk], pause, lasts: 500 * MS }
    }

    /// Clients move from server to server, and what one of these says comes late.
    pub fn of_latecomers(rng: &mut Rng) -> Plan {
        let pause = [50, 300][rng.below(2) as usize] * MS;
        Plan { faults: vec![Fault::Stall, Fault::Stall, Fault::Stall, Fault::Pause], pause, lasts: 1_500 * MS }
    }
}

/// Goes through a plan.
pub struct Nemesis {
    plan: Plan,
    next: Time,
    heal_at: Option<Time>,
    slow_until: Vec<Time>,
}

impl Nemesis {
    pub fn new(plan: Plan, servers: usize) -> Nemesis {
        Nemesis { plan, next: 1_500 * MS, heal_at: None, slow_until: vec![0; servers] }
    }

    /// When something happens next.
    pub fn next(&self) -> Time {
        self.heal_at.map_or(self.next, |at| at.min(self.next))
    }

    pub fn strike(&mut self, world: &mut World) {
        if self.heal_at.is_some_and(|at| at <= world.now) {
            self.heal_at = None;
            world.heal();
        }
        for at in 0..world.hosts.len() {
            if self.slow_until[at] <= world.now {
                world.hosts[at].disk_factor = 1;
            }
        }
        if self.next > world.now {
            return;
        }
        self.next = world.now + MS + world.rng.below(self.plan.pause);
        let fault = self.plan.faults[world.rng.below(self.plan.faults.len() as u64) as usize];
        let lasts = MS + world.rng.below(self.plan.lasts);
        let servers = world.hosts.len();
        let victim = world.rng.below(servers as u64) as usize;
        let leader = (0..servers).find(|&at| world.hosts[at].server.as_ref().is_some_and(|s| s.is_leading()));
        world.note(|| format!("fault {fault:?} on {} for {} ms", victim + 1, lasts / MS));
        match fault {
            Fault::Kill => self.crash(world, victim, Keep::Everything, lasts),
            Fault::Power => {
                let keep = keep(&mut world.rng);
                self.crash(world, victim, keep, lasts);
            }
            Fault::PowerInside => {
                let host = &mut world.hosts[victim];
                // Where it is off already, it does not come back for a process that has not noticed.
                if host.server.is_some() && !host.disk.is_off() {
                    host.disk_may_fail = true;
                    host.disk.stop_after(host.disk.operations() + world.rng.below(12));
                }
            }
            Fault::PowerOfAll => {
                for at in 0..servers {
                    let keep = keep(&mut world.rng);
                    let after = world.rng.below(2_000 * MS);
                    self.crash(world, at, keep, after);
                }
            }
            Fault::KillLeader => {
                let keep = keep(&mut world.rng);
                self.crash(world, leader.unwrap_or(victim), keep, lasts);
            }
            Fault::Pause => world.pause(victim, lasts),
            Fault::PauseLeader => world.pause(leader.unwrap_or(victim), lasts),
            Fault::Isolate => self.isolate(world, victim, lasts),
            Fault::IsolateLeader => self.isolate(world, leader.unwrap_or(victim), lasts),
            Fault::OneWay => {
                let other = world.rng.below(servers as u64) as usize;
                let all = world.rng.below(3) == 0;
                for to in 0..servers {
                    if all || to == other {
                        world.net.block(victim, to);
                    }
                }
                self.heal_after(world, lasts);
            }
            Fault::Depose => {
                let deposed = leader.unwrap_or(victim);
                for other in 0..servers {
                    world.net.block(other, deposed);
                }
                for conn in world.net.between(deposed, servers) {
                    world.cut(conn);
                }
                self.heal_after(world, lasts);
            }
            Fault::Halves => {
                let side: Vec<bool> = (0..servers).map(|_| world.rng.below(2) == 0).collect();
                for from in 0..servers {
                    for to in 0..servers {
                        if side[from] != side[to] {
                            world.net.block(from, to);
                        }
                    }
                }
                self.heal_after(world, lasts);
            }
            Fault::Ring => {
                // Each sees its neighbours only: majorities that overlap.
                for from in 0..servers {
                    for to in 0..servers {
                        let apart = from.abs_diff(to).min(servers - from.abs_diff(to));
                        if apart > 1 {
                            world.net.block(from, to);
                        }
                    }
                }
                self.heal_after(world, lasts);
            }
            Fault::CutConnection => {
                let all = world.net.all();
                if !all.is_empty() {
                    let conn = all[world.rng.below(all.len() as u64) as usize];
                    world.cut(conn);
                }
            }
            Fault::Stall => {
                let all = world.net.all();
                if !all.is_empty() {
                    let conn = all[world.rng.below(all.len() as u64) as usize];
                    let side = world.rng.below(2) as usize;
                    world.net.stall(conn, side, world.now + lasts);
                }
            }
            Fault::SlowDisk => {
                world.hosts[victim].disk_factor = 1 << (2 + world.rng.below(9));
                self.slow_until[victim] = world.now + lasts;
            }
            Fault::FailSync => {
                let host = &mut world.hosts[victim];
                if host.server.is_some() {
                    host.disk_may_fail = true;
                    host.disk.fail_sync(host.disk.syncs() + 1 + world.rng.below(4));
                }
            }
            Fault::Damage => {
                // One at a time, and none without which there is no quorum: of what is committed a quorum has a copy, and one
                // more may be in doubt.
                let others_are_enough = world.setup.rule.is_quorum(|at| at != victim);
                if others_are_enough && world.hosts.iter().all(|host| !host.damaged) {
                    world.crash(victim, Keep::Everything);
                    damage(world, victim);
                    world.start_later(victim, lasts);
                }
            }
            Fault::DiskFull => {
                let host = &mut world.hosts[victim];
                if host.server.is_some() {
                    host.disk_may_fail = true;
                    host.disk.limit(Some(world.rng.below(20_000)));
                }
            }
            Fault::WallClock => {
                world.hosts[victim].wall_offset_ms += world.rng.below(20_000_000) as i64 - 10_000_000;
            }
        }
    }

    fn crash(&mut self, world: &mut World, at: usize, keep: Keep, down: Time) {
        world.crash(at, keep);
        world.start_later(at, down);
    }

    fn isolate(&mut self, world: &mut World, at: usize, lasts: Time) {
        for other in 0..world.hosts.len() {
            world.net.block(at, other);
            world.net.block(other, at);
        }
        self.heal_after(world, lasts);
    }

    fn heal_after(&mut self, world: &World, lasts: Time) {
        let at = world.now + lasts;
        self.heal_at = Some(self.heal_at.map_or(at, |heal| heal.max(at)));
    }
}

/// Flips a bit, zeroes a sector, or takes the end of a file away.
fn damage(world: &mut World, at: usize) {
    let dir = crate::storage::dir();
    let host = &mut world.hosts[at];
    let Ok(names) = host.disk.list(dir) else { return };
    let names: Vec<&String> = names.iter().filter(|name| !name.starts_with("damaged.")).collect();
    if names.is_empty() {
        return;
    }
    (host.damaged, host.was_damaged) = (true, true);
    let name = names[world.rng.below(names.len() as u64) as usize];
    let (how, place) = (world.rng.below(3), world.rng.next());
    let Some(below) = below_watermark(&host.disk, name) else { return };
    host.disk.damage(&dir.join(name), |bytes| {
        // Where something is written, mostly.
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1).min(below);
        if used == 0 {
            return;
        }
        let at = (place % used as u64) as usize;
        match how {
            0 => bytes[at] ^= 1 << (place >> 32 & 7),
            1 => {
                let sector = at / 512 * 512;
                let end = (sector + 512).min(used);
                bytes[sector..end].fill(0);
            }
            _ => bytes[at..used].iter_mut().take(64).for_each(|byte| *byte ^= 0xff),
        }
    });
    world.note(|| format!("{name} of {} is damaged", at + 1));
}

/// Up to where damage to a file can be told from the remains of an append that a crash interrupted: behind the durability
/// watermark the last group might be either (fault model 2.2, S9). `None`: nowhere.
fn below_watermark(disk: &SimDisk, name: &str) -> Option<usize> {
    let Some(number) = name.strip_prefix("segment.").and_then(|hex| u64::from_str_radix(hex, 16).ok()) else {
        return Some(usize::MAX);
    };
    let bytes = disk.contents(&crate::storage::dir().join("watermark"))?;
    let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let newest = [0, 4096].into_iter().max_by_key(|&at| long(at + 8))?;
    let (segment, end) = (long(newest + 16)?, long(newest + 24)?);
    match number.cmp(&segment) {
        std::cmp::Ordering::Less => Some(usize::MAX),
        std::cmp::Ordering::Equal => Some(end as usize),
        std::cmp::Ordering::Greater => None,
    }
}

/// Flips a bit of a server's first log segment, which is down.
pub fn damage_log(world: &mut World, at: usize, byte: u64) {
    let host = &mut world.hosts[at];
    (host.damaged, host.was_damaged) = (true, true);
    let names = host.disk.list(crate::storage::dir()).unwrap_or_default();
    if let Some(name) = names.iter().find(|name| name.starts_with("segment.")) {
        host.disk.damage(&crate::storage::dir().join(name), |bytes| bytes[byte as usize] ^= 1);
    }
}

/// What a power cut leaves.
pub fn keep(rng: &mut Rng) -> Keep {
    match rng.below(6) {
        0 => Keep::Nothing,
        1 => Keep::Bytes,
        2 => Keep::Names,
        _ => Keep::Some(rng.next()),
    }
}
