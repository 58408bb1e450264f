//! Damage on a server of an ensemble: the files are set aside, and until its history has been repaired it has no vote.
//!
//! A server that lost something it may have acknowledged must not take part in deciding what the newest history is: a
//! quorum of such servers would elect a leader without the record, and that leader would make the healthy ones forget it
//! (fault model 2.2). So it joins *quarantined*: it names -1 as its last zxid, in elections and to a leader, which gives
//! it everything. That must outlive restarts; so it is a note, durable before any file is touched, and it stays until the
//! snapshot and the leader's epoch are durable.
//!
//! What is good is kept: the newest sound snapshot and the records behind it up to the damage are a true beginning of the
//! history, from which a leader of the same kind may go on, once there is a leader. It is never a vote.
//!
//! The note (`disk::note`, magic "OSTLRQUA"): stage u8 (1: files are being set aside, 2: done), good u64, snapshot u64 and
//! whether there is one u8, a plan for the log and whether there is one (u8, then five u64), number of a fresh segment u64,
//! round u32, whether everything goes u8, then the reason as text.
//!
//! Runs on: the starting thread.

use super::{Dirs, FUZZY, resume};
use crate::disk::{self, Disk, note};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::epochs::{EPOCHS, Epochs};
use crate::log::inspect::CUT;
use crate::log::salvage::{self, Salvage, aside_round, move_aside};
use crate::log::{INSTALL, Sizes, TRUNCATE};
use crate::snapshot::{self, snapshot_path};
use std::path::PathBuf;

/// Name of the note.
pub const QUARANTINE: &str = "quarantine";

const MAGIC: [u8; 8] = *b"OSTLRQUA";
/// Bytes of the note before its text.
const FIXED: usize = 1 + 8 + 9 + 41 + 8 + 4 + 1;
/// Bytes of the reason that are kept.
const REASON_MAX: usize = 1024;
/// Damage may hide behind damage; after this many rounds nothing is left that could be damaged.
const ROUNDS: usize = 3;

/// A server that must not vote: it names -1 as its last zxid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantine {
    /// The end of what is good, and of what the log and the snapshots hold now; zero if nothing was. Nothing that was
    /// acknowledged behind it can be ruled out.
    pub good: Zxid,
    /// What was found, with its place.
    pub reason: String,
    /// Damaged files were renamed to `damaged.<round>.<name>`.
    pub round: u32,
}

/// Recovers a history with `attempt`, which reads snapshots, log and epochs; before that, what a crash has interrupted is
/// finished. Where it finds damage, the files are set aside and it is tried again with what is good. Returns what `attempt`
/// did, and whether this server is quarantined, by this damage or an earlier one.
///
/// For a server of an ensemble; one that is alone uses `recover_alone`.
pub fn recover<D: Disk, T>(
    disk: &D,
    dirs: &Dirs,
    sizes: Sizes,
    mut attempt: impl FnMut() -> Result<T, Fatal>,
) -> Result<(T, Option<Quarantine>), Fatal> {
    let mut keep_good = true;
    for _ in 0..ROUNDS {
        let result = quarantined(disk, dirs).and_then(|_| resume(disk, dirs, sizes)).and_then(|()| attempt());
        match result {
            Err(fatal) if is_damage(&fatal) => {
                quarantine(disk, dirs, sizes, &fatal, keep_good)?;
                // What was taken for good wasn't.
                keep_good = false;
            }
            other => return Ok((other?, quarantined(disk, dirs)?)),
        }
    }
    resume(disk, dirs, sizes)?;
    Ok((attempt()?, quarantined(disk, dirs)?))
}

/// As `recover`, for a server that is alone: damage is a reason to stop, and so is an earlier quarantine, since nobody can
/// repair the history.
pub fn recover_alone<D: Disk, T>(
    disk: &D,
    dirs: &Dirs,
    sizes: Sizes,
    attempt: impl FnOnce() -> Result<T, Fatal>,
) -> Result<T, Fatal> {
    if let Some(quarantine) = quarantined(disk, dirs)? {
        let from = quarantine.good.next().unwrap_or(quarantine.good);
        let problem = format!("as a member of an ensemble this server found damage ({})", quarantine.reason);
        return Err(Fatal::HistoryGap { dir: dirs.log.clone(), from, to: from, problem });
    }
    resume(disk, dirs, sizes)?;
    attempt()
}

/// Whether this server is quarantined.
pub fn quarantined<D: Disk>(disk: &D, dirs: &Dirs) -> Result<Option<Quarantine>, Fatal> {
    Ok(Note::load(disk, dirs)?.map(|note| note.quarantine))
}

/// Ends the quarantine, durably: the leader's snapshot is this server's history (`Install::commit`) and the leader's epoch
/// is stored as current. Nothing happens if there is none.
pub fn release<D: Disk>(disk: &D, dirs: &Dirs) -> Result<(), Fatal> {
    if Note::load(disk, dirs)?.is_some() {
        tracing::info!("the history has been repaired; this server takes part in elections again");
        note::remove(disk, &note_path(dirs))?;
    }
    Ok(())
}

/// Whether a reason to stop says that something of the history is lost or can't be trusted. A full disk or a missing
/// permission does not; nor does a file of another version, or a change that an operator has begun and can finish.
pub fn is_damage(fatal: &Fatal) -> bool {
    match fatal {
        Fatal::LogCorrupt { .. }
        | Fatal::LogRecord { .. }
        | Fatal::SnapshotCorrupt { .. }
        | Fatal::HistoryGap { .. }
        | Fatal::EpochsDamaged { .. } => true,
        Fatal::Io { source, .. } => disk::says_lost(source),
        _ => false,
    }
}

/// Sets aside what is damaged, unless there are files of another version: then that is the error, and nothing is changed. `cause` is what recovery said; without `keep_good` everything goes.
pub fn quarantine<D: Disk>(
    disk: &D,
    dirs: &Dirs,
    sizes: Sizes,
    cause: &Fatal,
    keep_good: bool,
) -> Result<Quarantine, Fatal> {
    salvage::refuse_other_versions(disk, &dirs.log)?;
    // Where a note can't be read, nobody knows which files count.
    let lost_a_note = match cause {
        Fatal::LogCorrupt { file, .. } | Fatal::Io { file, .. } => {
            [INSTALL, TRUNCATE, CUT, QUARANTINE, FUZZY].iter().any(|name| *file == dirs.log.join(name))
        }
        _ => false,
    };
    let everything = lost_a_note || !keep_good;
    let snapshot = if everything { None } else { newest_sound(disk, dirs)? };
    let from = snapshot.unwrap_or(Zxid::ZERO);
    let below = match cause {
        Fatal::LogRecord { zxid, .. } => Some(*zxid),
        _ => None,
    };
    let plan = if everything { None } else { salvage::plan(disk, &dirs.log, from, below)? };
    let good = plan.map_or(from, |plan| plan.last.max(from));
    let mut reason = cause.to_string();
    while reason.len() > REASON_MAX {
        reason.pop();
    }
    let quarantine = Quarantine { good, reason, round: next_round(disk, dirs)? };
    tracing::error!(
        "this server has lost a part of its history and does not vote until it has been repaired by the others: {cause}; \
         everything up to zxid {good} is good"
    );
    let fresh = salvage::unused_number(disk, &dirs.log)?;
    let note = Note { done: false, quarantine, snapshot, plan, fresh, everything };
    note.store(disk, dirs)?;
    note.carry_out(disk, dirs, sizes).map(|note| note.quarantine)
}

/// Goes on with setting aside what a crash has interrupted.
pub(super) fn resume_setting_aside<D: Disk>(disk: &D, dirs: &Dirs, sizes: Sizes) -> Result<(), Fatal> {
    match Note::load(disk, dirs)? {
        Some(note) if !note.done => note.carry_out(disk, dirs, sizes).map(|_| ()),
        _ => Ok(()),
    }
}

fn newest_sound<D: Disk>(disk: &D, dirs: &Dirs) -> Result<Option<Zxid>, Fatal> {
    for zxid in snapshot::list(disk, &dirs.snapshots)? {
        match snapshot::verify(disk, &snapshot_path(&dirs.snapshots, zxid)) {
            Ok(_) => return Ok(Some(zxid)),
            Err(fatal) if is_damage(&fatal) => {}
            Err(fatal) => return Err(fatal),
        }
    }
    Ok(None)
}

/// One more than that of any file that was set aside before.
fn next_round<D: Disk>(disk: &D, dirs: &Dirs) -> Result<u32, Fatal> {
    let mut last = 0;
    for dir in [&dirs.snapshots, &dirs.log] {
        let names = disk.list(dir).map_err(|source| Fatal::DataDir { dir: dir.clone(), source })?;
        last = names.iter().filter_map(|name| aside_round(name)).fold(last, u32::max);
    }
    Ok(last.saturating_add(1))
}

fn note_path(dirs: &Dirs) -> PathBuf {
    dirs.log.join(QUARANTINE)
}

struct Note {
    done: bool,
    quarantine: Quarantine,
    /// The newest sound snapshot; those above it go.
    snapshot: Option<Zxid>,
    plan: Option<Salvage>,
    fresh: u64,
    /// Nothing is good, notes about what was under way neither.
    everything: bool,
}

impl Note {
    /// May have been done before, in part or as a whole.
    fn carry_out<D: Disk>(mut self, disk: &D, dirs: &Dirs, sizes: Sizes) -> Result<Note, Fatal> {
        let round = self.quarantine.round;
        if self.everything {
            for name in [INSTALL, TRUNCATE, CUT, FUZZY] {
                move_aside(disk, &dirs.log.join(name), round)?;
            }
        }
        for zxid in snapshot::list(disk, &dirs.snapshots)? {
            if self.snapshot.is_none_or(|sound| zxid > sound) {
                move_aside(disk, &snapshot_path(&dirs.snapshots, zxid), round)?;
            }
        }
        let from = self.snapshot.unwrap_or(Zxid::ZERO);
        let is_there = salvage::set_aside(disk, &dirs.log, self.plan.as_ref(), from, self.fresh, round, sizes)?;
        if !is_there {
            self.plan = None;
            self.quarantine.good = from;
            self.store(disk, dirs)?;
            salvage::set_aside(disk, &dirs.log, None, from, self.fresh, round, sizes)?;
        }
        self.repair_epochs(disk, dirs)?;
        self.done = true;
        self.store(disk, dirs)?;
        Ok(self)
    }

    /// Epochs that are lost begin at those of the good history. They are only lower bounds; the leader's are taken over
    /// before this server counts for anything.
    fn repair_epochs<D: Disk>(&self, disk: &D, dirs: &Dirs) -> Result<(), Fatal> {
        let good = self.quarantine.good;
        let stored = match Epochs::load(disk, dirs.epochs()) {
            Ok(stored) => Ok(stored),
            Err(fatal) if is_damage(&fatal) => Err(fatal),
            Err(fatal) => return Err(fatal),
        };
        if stored.and_then(|stored| Epochs::reconcile(stored, good, dirs.epochs())).is_err() {
            move_aside(disk, &dirs.epochs().join(EPOCHS), self.quarantine.round)?;
            Epochs::new(good.epoch(), good.epoch()).store(disk, dirs.epochs())?;
        }
        Ok(())
    }

    fn store<D: Disk>(&self, disk: &D, dirs: &Dirs) -> Result<(), Fatal> {
        let mut body = Vec::with_capacity(FIXED + self.quarantine.reason.len());
        body.push(1 + u8::from(self.done));
        body.extend_from_slice(&self.quarantine.good.0.to_le_bytes());
        body.push(u8::from(self.snapshot.is_some()));
        body.extend_from_slice(&self.snapshot.unwrap_or(Zxid::ZERO).0.to_le_bytes());
        body.push(u8::from(self.plan.is_some()));
        let plan = self.plan.map_or([0; 5], |plan| [plan.last.0, plan.first, plan.segment, plan.end, plan.copy as u64]);
        plan.iter().for_each(|field| body.extend_from_slice(&field.to_le_bytes()));
        body.extend_from_slice(&self.fresh.to_le_bytes());
        body.extend_from_slice(&self.quarantine.round.to_le_bytes());
        body.push(u8::from(self.everything));
        assert_eq!(body.len(), FIXED);
        body.extend_from_slice(self.quarantine.reason.as_bytes());
        note::store(disk, &note_path(dirs), MAGIC, &body)
    }

    fn load<D: Disk>(disk: &D, dirs: &Dirs) -> Result<Option<Note>, Fatal> {
        let path = note_path(dirs);
        let Some(body) = note::load(disk, &path, MAGIC)? else { return Ok(None) };
        let Some((fixed, reason)) = body.split_at_checked(FIXED) else { return Err(note::damaged(&path)) };
        let done = match fixed[0] {
            1 => false,
            2 => true,
            _ => return Err(note::damaged(&path)),
        };
        let long = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
        let plan =
            Salvage { last: Zxid(long(19)), first: long(27), segment: long(35), end: long(43), copy: long(51) != 0 };
        let round = u32::from_le_bytes(fixed[67..71].try_into().expect("four bytes"));
        let reason = String::from_utf8_lossy(reason).into_owned();
        Ok(Some(Note {
            done,
            quarantine: Quarantine { good: Zxid(long(1)), reason, round },
            snapshot: (fixed[9] != 0).then(|| Zxid(long(10))),
            plan: (fixed[18] != 0).then_some(plan),
            fresh: long(59),
            everything: fixed[71] != 0,
        }))
    }
}
