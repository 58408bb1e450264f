//! Opens a log after whatever happened, hands out what it holds, and makes it ready for appending.
//!
//! The walk begins in the segment that holds what follows the snapshot and goes through to the end; one pass checks and
//! replays. Older segments are looked at only for their headers: nothing needs what is in them. All rules of `scan` hold
//! at the end of the last segment; at the end of any other, the segment after it says where that end has to be.
//!
//! Promises: nothing is written before the end has been found good or torn, but for a truncation that was under way: that
//! is finished first (`truncate`). A second recovery, also of a crash in the first, finds the same records. What has been handed out is durable when `finish` returns: it syncs, because a killed
//! process may have left records in memory that never reached the disk.
//!
//! Runs on: the starting thread; or one that reads ahead of it, which then gives it back to be finished.

use super::Sizes;
use super::anew::INSTALL;
use super::holdings::{Holdings, Run};
use super::housekeeper::Housekeeper;
use super::inspect;
use super::record::{Kind, MARK_BYTES};
use super::scan::{Reader, Scanner, Step, Tail, Why};
use super::segment::{
    FirstSector, PREPARING, RECORDS_START, SegmentHeader, other_version, segment_number, segment_path,
};
use super::truncate;
use super::watermark::{WATERMARK, Watermark, WatermarkFile};
use super::writer::{Closed, Live, Log, Opened};
use crate::disk::{self, Disk, File, Map};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use std::io;
use std::path::{Path, PathBuf};

/// A log that is being read. `next` until it returns `None`, then `finish`.
pub struct Recovery<D: Disk> {
    disk: D,
    dir: PathBuf,
    sizes: Sizes,
    from: Zxid,
    /// All segments that were begun, in order.
    segments: Vec<Segment>,
    watermark: Option<Watermark>,
    /// A segment behind the last one that was not begun.
    prepared: Option<u64>,
    /// The segment in which the walk began, and the records that it has passed.
    began: usize,
    walked: Holdings,
    at: At<D::File>,
    /// Records handed out, and bytes of the segments that the walk is through with: for the operator.
    replayed: u64,
    passed: u64,
}

/// A log that is read and left as it is: for whoever need not have its lock. A truncation that is under way is not finished
/// but an error, for a server may be at it.
pub struct Replay<D: Disk>(Recovery<D>);

impl<D: Disk> Replay<D> {
    /// As `Recovery::open`. `Fatal::Unfinished` if a truncation was interrupted.
    pub fn open(disk: D, dir: &Path, from: Zxid) -> Result<Replay<D>, Fatal> {
        truncate::refuse_interrupted(&disk, dir)?;
        // Nothing is made, so sizes are of no use.
        let (recovery, unbegun) = Recovery::look(disk, dir, from, Sizes::default())?;
        unbegun.check()?;
        Ok(Replay(recovery))
    }

    /// As `Recovery::next`.
    #[expect(clippy::should_implement_trait, reason = "lends the body out of its buffer; an Iterator can't")]
    pub fn next(&mut self) -> Result<Option<(Zxid, &[u8])>, Fatal> {
        self.0.next()
    }
}

/// The segment behind the last one, that was made and not begun, if there is one. A start of a log of some size reads as much
/// of it as of records; so this may be done on another thread meanwhile.
pub struct Unbegun<F>(Option<Made<F>>);

struct Made<F> {
    reader: Reader<F>,
    path: PathBuf,
    last_good: Zxid,
}

impl<F: File> Unbegun<F> {
    /// Zeros from end to end but for the first sector; or this was a segment with records.
    pub fn check(self) -> Result<(), Fatal> {
        let Some(Made { mut reader, path, last_good }) = self.0 else { return Ok(()) };
        match reader.last_nonzero(RECORDS_START as u64).map_err(|e| disk::fatal(&path, 0, e))? {
            None => Ok(()),
            Some(offset) => {
                let problem = "there are bytes in a segment that was not begun".to_owned();
                Err(Fatal::LogCorrupt { file: path, offset, last_good, problem })
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Segment {
    header: SegmentHeader,
    identity: u32,
    bytes: u64,
}

enum At<F> {
    /// There is no log yet.
    Nowhere,
    /// In the segment with this index.
    In(usize, Scanner<F>),
    /// At the end of the last segment.
    End(Scanner<F>, Tail),
}

impl<D: Disk> Recovery<D> {
    /// Looks at the files of a log directory, which exists and is locked. Records up to `from`, the zxid of the snapshot
    /// that was loaded (or zero), are not handed out.
    ///
    /// `Fatal::HistoryGap` if records after `from` are missing, `Fatal::LogCorrupt` if a file is damaged, `Fatal::Io`
    /// if one can't be read. Nothing has been changed then (but that a truncation which was under way is done).
    pub fn open(disk: D, dir: &Path, from: Zxid, sizes: Sizes) -> Result<Recovery<D>, Fatal> {
        let (recovery, unbegun) = Recovery::open_in_parts(disk, dir, from, sizes)?;
        unbegun.check()?;
        Ok(recovery)
    }

    /// As `open`, but that the segment which was not begun has yet to be looked at: before `finish`, and whatever else goes
    /// wrong, what is wrong there is said in its place.
    pub fn open_in_parts(
        disk: D,
        dir: &Path,
        from: Zxid,
        sizes: Sizes,
    ) -> Result<(Recovery<D>, Unbegun<D::File>), Fatal> {
        inspect::refuse_unfinished_cut(&disk, dir)?;
        truncate::finish_interrupted(&disk, dir)?;
        Recovery::look(disk, dir, from, sizes)
    }

    /// What is left of `open_in_parts` when no truncation is under way. Changes nothing.
    fn look(disk: D, dir: &Path, from: Zxid, sizes: Sizes) -> Result<(Recovery<D>, Unbegun<D::File>), Fatal> {
        // What is between two histories is none.
        inspect::refuse_unfinished_cut(&disk, dir)?;
        let problem = "a snapshot is taking the place of the history; the next start of the server finishes that, and so does \
                       `ostler export`";
        inspect::refuse(&disk, &dir.join(INSTALL), problem)?;
        let watermark = Watermark::load(&disk, dir)?;
        let mut recovery = Recovery {
            disk,
            dir: dir.to_owned(),
            sizes,
            from,
            segments: Vec::new(),
            watermark,
            prepared: None,
            began: 0,
            walked: Holdings::default(),
            at: At::Nowhere,
            replayed: 0,
            passed: 0,
        };
        let unbegun = recovery.look_at_segments()?;
        if let Err(fatal) = recovery.begin() {
            // A segment that lost its header is not begun, and missing: its records say better what has happened.
            unbegun.check()?;
            return Err(fatal);
        }
        Ok((recovery, unbegun))
    }

    fn begin(&mut self) -> Result<(), Fatal> {
        self.check_against_watermark()?;
        if !self.segments.is_empty() {
            self.began = self.segment_of(self.from)?;
            self.walked = Holdings::new(self.segments[self.began].header.after);
            self.go_to(self.began)?;
        } else if self.from > Zxid::ZERO {
            return Err(self.gap(self.from, self.from, "there is a snapshot, but no log".to_owned()));
        }
        Ok(())
    }

    /// Bytes of the log that have been read, and about how many there are to be read.
    pub fn progress(&self) -> (u64, u64) {
        let read = match &self.at {
            At::Nowhere => 0,
            At::In(_, scanner) | At::End(scanner, _) => self.passed + scanner.offset,
        };
        let Some(last) = self.segments.last() else { return (0, 0) };
        let closed = self.segments[self.began + 1..].iter().map(|segment| segment.header.previous_end);
        let durable = self.watermark;
        let live = durable.filter(|place| place.segment == last.header.number).map_or(0, |place| place.end);
        (read, (closed.sum::<u64>() + live).max(read))
    }

    /// The next record after `from`.
    ///
    /// An error means that the log is damaged here: what was handed out is good but not all there was.
    #[expect(clippy::should_implement_trait, reason = "lends the body out of its buffer; an Iterator can't")]
    pub fn next(&mut self) -> Result<Option<(Zxid, &[u8])>, Fatal> {
        let Some((zxid, body_at, length)) = self.next_place()? else { return Ok(None) };
        self.replayed += 1;
        let At::In(index, scanner) = &mut self.at else {
            unreachable!("next_place stays in the segment of its record")
        };
        // Here and below: a path is made only where there is something to say of it, not for each record.
        let number = self.segments[*index].header.number;
        let body = scanner.reader.bytes(body_at, length);
        let body = body.map_err(|e| disk::fatal(&segment_path(&self.dir, number), 0, e))?;
        Ok(Some((zxid, body)))
    }

    /// Reads what is left, cuts a torn tail off, makes everything durable and opens the log for appending.
    pub fn finish(mut self) -> Result<Log<D>, Fatal> {
        while self.next_place()?.is_some() {}
        match std::mem::replace(&mut self.at, At::Nowhere) {
            At::Nowhere => Log::create(self.disk, &self.dir, self.from, self.sizes),
            At::End(scanner, tail) => {
                let (disk, dir, sizes) = (self.disk.clone(), self.dir.clone(), self.sizes);
                let mut opened = self.reopen(scanner, tail)?;
                let (next, prepared) = (opened.live.number + 1, opened.prepared.take());
                Ok(Log::assemble(Housekeeper::new(disk, dir, sizes, next, prepared), opened))
            }
            At::In(..) => unreachable!("next_place goes to the end"),
        }
    }

    /// As `finish`, for a log that has segments and whose housekeeper is there already.
    pub(super) fn finish_again(mut self) -> Result<Opened<D>, Fatal> {
        while self.next_place()?.is_some() {}
        match std::mem::replace(&mut self.at, At::Nowhere) {
            At::End(scanner, tail) => self.reopen(scanner, tail),
            At::Nowhere => Err(self.gap(self.from, self.from, "the segments are gone".to_owned())),
            At::In(..) => unreachable!("next_place goes to the end"),
        }
    }

    fn next_place(&mut self) -> Result<Option<(Zxid, u64, usize)>, Fatal> {
        loop {
            let At::In(index, scanner) = &mut self.at else { return Ok(None) };
            let index = *index;
            let closed_at = self.segments.get(index + 1).map(|next| next.header.previous_end);
            if closed_at == Some(scanner.offset) {
                self.go_to_segment(index + 1)?;
                continue;
            }
            let before = scanner.last;
            let number = scanner.header.number;
            match scanner.step().map_err(|e| disk::fatal(&segment_path(&self.dir, number), 0, e))? {
                Step::Record { zxid, body_at, length } => {
                    self.walked.push_record(zxid);
                    if zxid > self.from {
                        if before < self.from && !begins_epoch(self.from) {
                            return Err(self.not_in_history(before, zxid));
                        }
                        return Ok(Some((zxid, body_at, length)));
                    }
                }
                Step::Mark => {}
                Step::End(why) if closed_at.is_some() => {
                    return Err(corrupt(segment_path(&self.dir, number), scanner, closed_problem(&why)));
                }
                Step::End(why) => return self.end(segment_path(&self.dir, number), why).map(|()| None),
            }
        }
    }

    /// The records of the last segment have come to an end.
    fn end(&mut self, path: PathBuf, why: Why) -> Result<(), Fatal> {
        let At::In(_, mut scanner) = std::mem::replace(&mut self.at, At::Nowhere) else {
            unreachable!("called inside")
        };
        let durable = self.watermark;
        let durable_end = durable.filter(|place| place.segment == scanner.header.number).map(|place| place.end);
        let tail = scanner.judge(&why, durable_end).map_err(|e| disk::fatal(&path, 0, e))?;
        if let Tail::Damaged(problem) = tail {
            return Err(corrupt(path, &scanner, problem));
        }
        if scanner.in_group() && scanner.offset + MARK_BYTES as u64 > scanner.reader.len {
            // The writer keeps room for the mark of every group.
            return Err(corrupt(path, &scanner, "there is no room for the mark of the last group".to_owned()));
        }
        if scanner.last < self.from && !begins_epoch(self.from) {
            let problem = "the snapshot is newer than the end of the log".to_owned();
            return Err(Fatal::HistoryGap { dir: self.dir.clone(), from: after(scanner.last), to: self.from, problem });
        }
        self.at = At::End(scanner, tail);
        Ok(())
    }

    /// Goes on with the next segment, which has to continue this one.
    fn go_to_segment(&mut self, index: usize) -> Result<(), Fatal> {
        let At::In(_, scanner) = &self.at else { unreachable!("called inside a segment") };
        let segment = self.segments[index];
        let path = segment_path(&self.dir, segment.header.number);
        if scanner.in_group() || segment.header.previous != scanner.chain || segment.header.after != scanner.last {
            let problem = "the segment does not continue the one before it".to_owned();
            return Err(Fatal::LogCorrupt { file: path, offset: 0, last_good: scanner.last, problem });
        }
        self.passed += scanner.offset;
        self.go_to(index)
    }

    fn go_to(&mut self, index: usize) -> Result<(), Fatal> {
        let segment = self.segments[index];
        let path = segment_path(&self.dir, segment.header.number);
        let reader = self.disk.open_to_read(&path).and_then(Reader::new).map_err(|e| disk::fatal(&path, 0, e))?;
        self.at = At::In(index, Scanner::new(reader, segment.header, segment.identity));
        Ok(())
    }

    /// Opens every segment and reads its first sector. Numbers have no gap, and only the last may not have been begun.
    fn look_at_segments(&mut self) -> Result<Unbegun<D::File>, Fatal> {
        let mut unbegun = Unbegun(None);
        let names = self.disk.list(&self.dir).map_err(|source| Fatal::DataDir { dir: self.dir.clone(), source })?;
        let numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        for (index, &number) in numbers.iter().enumerate() {
            let path = segment_path(&self.dir, number);
            let io = |e| disk::fatal(&path, 0, e);
            if index > 0 && number != numbers[index - 1] + 1 {
                let last = self.segments.last().map_or(self.from, |segment| segment.header.after);
                let missing = segment_path(Path::new(""), numbers[index - 1] + 1);
                return Err(self.gap(last, self.from, format!("{} is not there", missing.display())));
            }
            let reader = self.disk.open_to_read(&path).and_then(Reader::new).map_err(io)?;
            let last_good = self.segments.last().map_or(Zxid::ZERO, |segment| segment.header.after);
            let bad = |offset, problem: &str| {
                let problem = problem.to_owned();
                Err(Fatal::LogCorrupt { file: path.clone(), offset, last_good, problem })
            };
            match reader.first_sector(number).map_err(io)? {
                FirstSector::OtherVersion(version) => return Err(other_version(&path, version)),
                FirstSector::Bad(problem) => return bad(0, problem),
                FirstSector::Unfinished if index + 1 < numbers.len() => {
                    return bad(0, "the segment header is missing, and another segment follows");
                }
                FirstSector::Unfinished => {
                    self.prepared = Some(number);
                    unbegun = Unbegun(Some(Made { reader, path, last_good }));
                }
                FirstSector::Header(header, identity) => {
                    if self.segments.last().is_some_and(|before| before.header.after > header.after) {
                        return bad(0, "the segment begins before the one before it");
                    }
                    self.segments.push(Segment { header, identity, bytes: reader.len });
                }
            }
        }
        Ok(unbegun)
    }

    fn check_against_watermark(&mut self) -> Result<(), Fatal> {
        let last = self.segments.last().map(|segment| segment.header);
        match (self.watermark, last) {
            (None, None) => Ok(()),
            // The file of a log whose first segment was never begun.
            (Some(Watermark { segment: 0, .. }), None) => Ok(()),
            (None, Some(header)) => Err(no_watermark(&self.dir, header.after)),
            (Some(place), last) => {
                let number = last.map_or(0, |header| header.number);
                if place.segment > number {
                    let missing = segment_path(Path::new(""), place.segment);
                    let known = last.map_or(self.from, |header| header.after);
                    let problem = format!("{} is not there or empty", missing.display());
                    return Err(self.gap(known, place.zxid, problem));
                }
                Ok(())
            }
        }
    }

    /// The last segment that begins at or before `from`.
    fn segment_of(&self, from: Zxid) -> Result<usize, Fatal> {
        match self.segments.iter().rposition(|segment| segment.header.after <= from) {
            Some(index) => Ok(index),
            None => {
                let oldest = self.segments[0].header.after;
                Err(self.gap(from, oldest, "the log does not reach back to the snapshot".to_owned()))
            }
        }
    }

    /// What the whole log holds. Segments before the walk are known by their headers; only one in which an epoch begins
    /// has to be read. What can't be read there is of no use to this server, so it is no reason to stop: the log is taken
    /// to begin behind it.
    fn holdings(&mut self) -> Holdings {
        let walked = std::mem::take(&mut self.walked);
        let mut held = Holdings::new(self.segments[0].header.after);
        for pair in self.segments[..=self.began].windows(2) {
            let (after, end) = (pair[0].header.after, pair[1].header.after);
            match after.next() {
                _ if after == end => {}
                Some(first) if after.epoch() == end.epoch() => held.push(Run { first, last: end }),
                _ => {
                    if let Err(problem) = self.read_epochs(&pair[0], &pair[1], &mut held) {
                        tracing::warn!("the log is read only from {end} on: {problem}");
                        held = Holdings::new(end);
                    }
                }
            }
        }
        walked.runs().iter().for_each(|&run| held.push(run));
        held
    }

    /// Reads a segment up to where the next one begins, for its zxids alone.
    fn read_epochs(&self, segment: &Segment, next: &Segment, held: &mut Holdings) -> Result<(), Fatal> {
        let path = segment_path(&self.dir, segment.header.number);
        let io = |e| disk::fatal(&path, 0, e);
        let reader = self.disk.open_to_read(&path).and_then(Reader::new).map_err(io)?;
        let mut scanner = Scanner::new(reader, segment.header, segment.identity);
        while scanner.offset < next.header.previous_end {
            match scanner.step().map_err(io)? {
                Step::Record { zxid, .. } => held.push_record(zxid),
                Step::Mark => {}
                Step::End(why) => return Err(corrupt(path, &scanner, closed_problem(&why))),
            }
        }
        if (scanner.last, scanner.chain) != (next.header.after, next.header.previous) {
            return Err(corrupt(path, &scanner, "the next segment does not continue it".to_owned()));
        }
        Ok(())
    }

    /// What comes after `known`, up to `to`, is missing.
    fn gap(&self, known: Zxid, to: Zxid, problem: String) -> Fatal {
        let from = after(known);
        Fatal::HistoryGap { dir: self.dir.clone(), from, to: to.max(from), problem }
    }

    fn not_in_history(&self, before: Zxid, zxid: Zxid) -> Fatal {
        let problem = format!("the snapshot is at {}, the log goes from {before} to {zxid}", self.from);
        Fatal::HistoryGap { dir: self.dir.clone(), from: after(before), to: self.from, problem }
    }

    /// Opens the log at the end that was found.
    fn reopen(mut self, scanner: Scanner<D::File>, tail: Tail) -> Result<Opened<D>, Fatal> {
        let holdings = self.holdings();
        let Recovery { disk, dir, segments, prepared, .. } = self;
        let mut watermark = WatermarkFile::open(&disk, &dir)?.ok_or_else(|| no_watermark(&dir, scanner.last))?;
        let number = scanner.header.number;
        let path = segment_path(&dir, number);
        let io = |e| disk::fatal(&path, 0, e);
        let sync_failed = |e| disk::sync_failed(&path, e);

        // The one that was read is open for reading past the page cache, in whole blocks.
        let mut file = disk.open(&path).map_err(io)?;
        if let Tail::Torn { last } = tail {
            tracing::warn!(
                "{}: an append was interrupted; bytes {} to {last} are cut off, nothing of them was acknowledged",
                path.display(),
                scanner.offset
            );
            file.zero(scanner.offset, last + 1).map_err(io)?;
        }
        // Also after a clean end: what a killed process left may be in memory only.
        file.sync().map_err(sync_failed)?;

        let in_group = scanner.group < scanner.offset;
        let mut live = Live {
            map: disk.map(file).map_err(io)?,
            number,
            identity: scanner.identity,
            after: scanner.header.after,
            end: scanner.offset as usize,
            group: scanner.group as usize,
            chain: scanner.chain,
        };
        // Records without a mark are kept: they are whole. The mark makes them a group like any other.
        if in_group {
            live.store(Kind::Mark, scanner.last, &[]);
            live.map.sync(live.group, live.end).map_err(sync_failed)?;
        }
        watermark.write(Watermark { segment: number, end: live.end as u64, zxid: scanner.last })?;
        watermark.sync()?;

        let prepared = match prepared {
            Some(number) => Some(reopen_prepared(&disk, &segment_path(&dir, number))?),
            None => None,
        };
        remove_leftover(&disk, &dir.join(PREPARING))?;
        let older = &segments[..segments.len() - 1];
        let closed =
            older.iter().map(|s| Closed { number: s.header.number, after: s.header.after, bytes: s.bytes }).collect();
        Ok(Opened { closed, live, watermark, holdings, prepared })
    }

    /// Records handed out so far.
    pub fn replayed(&self) -> u64 {
        self.replayed
    }
}

/// The segment after the last one: what a killed process may have begun of its header is taken away.
fn reopen_prepared<D: Disk>(disk: &D, path: &Path) -> Result<D::Map, Fatal> {
    let io = |e| disk::fatal(path, 0, e);
    let mut file = disk.open(path).map_err(io)?;
    file.zero(0, RECORDS_START as u64).map_err(io)?;
    file.sync().map_err(|e| disk::sync_failed(path, e))?;
    disk.map(file).map_err(io)
}

pub(super) fn remove_leftover<D: Disk>(disk: &D, path: &Path) -> Result<(), Fatal> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk::fatal(path, 0, error)),
        _ => Ok(()),
    }
}

/// Whether a zxid is no record's, but the state in which an epoch begins: everything before that epoch.
pub(super) fn begins_epoch(zxid: Zxid) -> bool {
    zxid.counter() == 0
}

pub(super) fn no_watermark(dir: &Path, last_good: Zxid) -> Fatal {
    let problem = "the file is not there, but segments are".to_owned();
    Fatal::LogCorrupt { file: dir.join(WATERMARK), offset: 0, last_good, problem }
}

fn closed_problem(why: &Why) -> String {
    match why {
        Why::Full | Why::Unfinished => "records are missing at the end of a closed segment".to_owned(),
        Why::BadBody(_) => "the checksum of a record is wrong".to_owned(),
        Why::Bad(problem) => problem.clone(),
    }
}

fn corrupt<F>(file: PathBuf, scanner: &Scanner<F>, problem: String) -> Fatal {
    Fatal::LogCorrupt { file, offset: scanner.offset, last_good: scanner.last, problem }
}

/// The first zxid that may be missing after `known`.
fn after(known: Zxid) -> Zxid {
    known.next().unwrap_or(known)
}
