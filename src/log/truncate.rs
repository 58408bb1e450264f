//! Takes back the end of a log: everything above one zxid, because the leader's history goes another way from there.
//!
//! Several files change, and a crash may come between any two of them. So what is going to happen is written down first,
//! in a note that is durable before anything is touched; from then on the shorter history is the true one, and recovery
//! finishes what the note says before it reads anything. Until then the log is the old one, whole. Each step may be done
//! twice.
//!
//! 1. The note: zxid, segment and offset at which the log will end. It names a record that was read, not a guess.
//! 2. The watermark moves back to that place, or recovery would take the cut for lost records.
//! 3. Later segments go, the last one first.
//! 4. The rest of the segment becomes zeros, synced: no record that was taken back may ever stand behind a new one.
//! 5. The note goes. Only then may anything be appended.
//!
//! Leaves to the caller: that no snapshot is newer than `to`; the tree; that nobody else believes in the old end.
//!
//! The note (`disk::note`, magic "OSTLRTRN"): to u64, segment u64, end u64.
//!
//! Runs on: the log writer; the starting thread where a crash came between.

use super::recover::begins_epoch;
use super::scan::{Reader, Scanner, Step, Why};
use super::segment::{FirstSector, RECORDS_START, other_version, segment_number, segment_path};
use super::watermark::{Watermark, WatermarkFile};
use super::{Log, Recovery};
use crate::disk::{self, Disk, File, note};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use std::io;
use std::path::Path;

/// Name of the note.
pub const TRUNCATE: &str = "truncate";

const MAGIC: [u8; 8] = *b"OSTLRTRN";

/// Why a log was not truncated.
#[derive(Debug, thiserror::Error)]
pub enum TruncateError {
    /// Nothing was changed: a cut at a place that is not in the history would make a third one.
    #[error("the log cannot be truncated to {to}: it goes from {oldest} to {last} and does not hold that transaction")]
    NotHeld { to: Zxid, oldest: Zxid, last: Zxid },
    /// Nothing was changed: what was cut could not be rebuilt (told by whoever has the snapshots; the log has none).
    #[error("the history cannot be truncated to {to}: there is no sound snapshot at or below it to start from")]
    NoSnapshot { to: Zxid },
    /// Nothing of the log was changed: the place of the cut can't be read.
    #[error("the log cannot be truncated to {to}: {problem}")]
    Unreadable { to: Zxid, problem: Fatal },
    /// The disk. The log refuses everything from then on; a restart finds the old history or the new one.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// Where the log is going to end: behind the record `to`, which ends at `end` in `segment`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Note {
    to: Zxid,
    segment: u64,
    end: u64,
}

impl<D: Disk> Log<D> {
    /// Removes every record above `to`, durably. `to` is the zxid of a record that the log holds, or `oldest()`: then
    /// nothing is left; or counter 0 of an epoch whose first record it holds: then it ends with the record before that,
    /// whose zxid is a lower one. Whatever was appended is synced first, so that the place can be read back.
    ///
    /// Takes as long as reading one segment and overwriting what follows.
    pub fn truncate(&mut self, to: Zxid) -> Result<(), TruncateError> {
        self.sync()?;
        let to = self.last_record_of(to);
        if to == self.last_zxid() {
            return Ok(());
        }
        let not_held = TruncateError::NotHeld { to, oldest: self.oldest(), last: self.last_zxid() };
        let note = match self.locate(to) {
            Ok(Some(note)) => note,
            Ok(None) => return Err(not_held),
            Err(problem) => return Err(TruncateError::Unreadable { to, problem }),
        };
        tracing::warn!("taking back the transactions {to} (exclusive) to {}", self.last_zxid());
        self.give_up_after(to);
        let housekeeper = self.housekeeper.clone();
        let (dir, sizes) = (housekeeper.dir(), housekeeper.sizes());
        let first = self.closed.first().map_or(self.live.number, |segment| segment.number);
        let oldest = self.oldest();
        let mut opened = housekeeper.exclusively(|shared, _| {
            note.store(&shared.disk, dir)?;
            note.carry_out(&shared.disk, dir)?;
            Recovery::open(shared.disk.clone(), dir, to, sizes)?.finish_again()
        })?;
        // What was purged may have its files yet, which `Purge::run` is going to take away.
        opened.closed.retain(|segment| segment.number >= first);
        opened.holdings.forget(oldest);
        assert_eq!(opened.holdings.last(), to, "the log ends where it was cut");
        self.reopened(opened);
        Ok(())
    }

    /// Where an epoch begins there is no record: with its first record, what is at or below that is known too.
    fn last_record_of(&self, to: Zxid) -> Zxid {
        let index = self.housekeeper.index();
        let begins = begins_epoch(to) && index.holdings().reaches(to);
        index.holdings().at_most(to).filter(|_| begins).unwrap_or(to)
    }

    /// The place behind the record `to`; `None` if it isn't held.
    fn locate(&self, to: Zxid) -> Result<Option<Note>, Fatal> {
        if to < self.oldest() || to > self.last_zxid() {
            return Ok(None);
        }
        let live = (self.live.number, self.live.after);
        let mut segments = self.closed.iter().map(|segment| (segment.number, segment.after)).chain([live]);
        if to == self.oldest() {
            let (segment, _) = segments.next().expect("the live one at least");
            return Ok(Some(Note { to, segment, end: RECORDS_START as u64 }));
        }
        // The last segment that begins before the record.
        let (number, _) = segments.rfind(|&(_, after)| after < to).expect("the oldest begins before it");
        let path = segment_path(self.housekeeper.dir(), number);
        let io = |e| disk::fatal(&path, 0, e);
        let reader = self.housekeeper.disk().open_to_read(&path).and_then(Reader::new).map_err(io)?;
        let (header, identity) = match reader.first_sector(number).map_err(io)? {
            FirstSector::Header(header, identity) => (header, identity),
            FirstSector::OtherVersion(version) => return Err(other_version(&path, version)),
            FirstSector::Unfinished => return Err(corrupt(&path, 0, self.oldest(), "the segment header is missing")),
            FirstSector::Bad(problem) => return Err(corrupt(&path, 0, self.oldest(), problem)),
        };
        let mut scanner = Scanner::new(reader, header, identity);
        loop {
            match scanner.step().map_err(io)? {
                Step::Record { zxid, .. } if zxid == to => {
                    return Ok(Some(Note { to, segment: number, end: scanner.offset }));
                }
                Step::Record { zxid, .. } if zxid > to => return Ok(None),
                Step::Record { .. } | Step::Mark => {}
                Step::End(why) => {
                    let problem = match &why {
                        Why::Bad(problem) => problem,
                        Why::BadBody(_) => "the checksum of a record is wrong",
                        Why::Full | Why::Unfinished if scanner.last < to => "records are missing",
                        Why::Full | Why::Unfinished => return Ok(None),
                    };
                    return Err(corrupt(&path, scanner.offset, scanner.last, problem));
                }
            }
        }
    }
}

/// Finishes a truncation that a crash has interrupted, if there is one. The directory is locked.
pub fn finish_interrupted<D: Disk>(disk: &D, dir: &Path) -> Result<(), Fatal> {
    match Note::load(disk, dir)? {
        None => Ok(()),
        Some(note) => {
            tracing::warn!("finishing the truncation of the log to {}", note.to);
            note.carry_out(disk, dir)
        }
    }
}

/// As `finish_interrupted` for whoever may change nothing: an error if there is one to be finished.
pub(super) fn refuse_interrupted<D: Disk>(disk: &D, dir: &Path) -> Result<(), Fatal> {
    let Some(note) = Note::load(disk, dir)? else { return Ok(()) };
    let problem = format!(
        "the log is being truncated to {}; where no server is running, its next start finishes that, and so does \
         `ostler export`",
        note.to
    );
    Err(Fatal::Unfinished { file: dir.join(TRUNCATE), problem })
}

impl Note {
    fn store<D: Disk>(&self, disk: &D, dir: &Path) -> Result<(), Fatal> {
        let body = [self.to.0, self.segment, self.end].map(u64::to_le_bytes).concat();
        note::store(disk, &dir.join(TRUNCATE), MAGIC, &body)
    }

    fn load<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Note>, Fatal> {
        let path = dir.join(TRUNCATE);
        let Some(body) = note::load(disk, &path, MAGIC)? else { return Ok(None) };
        let body: [u8; 24] = body.try_into().map_err(|_| note::damaged(&path))?;
        let long = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        Ok(Some(Note { to: Zxid(long(0)), segment: long(8), end: long(16) }))
    }

    /// Steps 2 to 5. May have been done before, in part or as a whole.
    fn carry_out<D: Disk>(&self, disk: &D, dir: &Path) -> Result<(), Fatal> {
        let sync_dir = || disk.sync_dir(dir).map_err(|e| disk::sync_failed(dir, e));
        WatermarkFile::create(disk, dir, Watermark { segment: self.segment, end: self.end, zxid: self.to })?;

        let names = disk.list(dir).map_err(|e| disk::fatal(dir, 0, e))?;
        let numbers = names.iter().filter_map(|name| segment_number(name));
        for later in numbers.filter(|&number| number > self.segment).collect::<Vec<_>>().into_iter().rev() {
            let path = segment_path(dir, later);
            disk.remove(&path).map_err(|e| disk::fatal(&path, 0, e))?;
            sync_dir()?;
        }

        let path = segment_path(dir, self.segment);
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => {
                corrupt(&path, 0, self.to, "a truncation was under way, and the segment is gone")
            }
            _ => disk::fatal(&path, 0, e),
        };
        let mut reader = disk.open(&path).and_then(Reader::new).map_err(io)?;
        let last = reader.last_nonzero(self.end).map_err(io)?;
        let mut file = disk.open(&path).map_err(io)?;
        if let Some(last) = last {
            file.zero(self.end, last + 1).map_err(io)?;
        }
        // Also where there are zeros: those of a killed process may be in memory only.
        file.sync().map_err(|e| disk::sync_failed(&path, e))?;

        note::remove(disk, &dir.join(TRUNCATE))
    }
}

fn corrupt(file: &Path, offset: u64, last_good: Zxid, problem: &str) -> Fatal {
    Fatal::LogCorrupt { file: file.to_owned(), offset, last_good, problem: problem.to_owned() }
}
