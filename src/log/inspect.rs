//! Reads a log that no server has open: what each segment holds and where the first bad place is; and cuts it, when an
//! operator says so.
//!
//! A server that finds damage stops and changes nothing. What to give up is then an operator's decision, made with the
//! list of `survey` and carried out by `cut`, which keeps everything up to one zxid and sets the rest aside: files are
//! renamed or copied to `cut.<name>`, those of a second cut to `cut.2.<name>`, never deleted. While a cut is under way a
//! file `cut` says so, and recovery refuses the log: half a cut is neither the old history nor the new one.
//!
//! Runs on: the command's thread; the caller holds the lock of the directory, but where it only reads and the file system takes no lock.

use super::recover::{self, remove_leftover};
use super::salvage::{copy_good_part, refuse_other_versions};
use super::scan::{Reader, Scanner, Step, Tail, Why, is_damage};
use super::segment::{FirstSector, PREPARING, RECORDS_START, other_version, segment_number, segment_path};
use super::truncate;
use super::watermark::{Watermark, WatermarkFile};
use crate::disk::{self, BACKGROUND_BYTES, Disk, File, SECTOR};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use std::io;
use std::path::{Path, PathBuf};

/// The file that is there while a cut is under way.
pub const CUT: &str = "cut";

/// What one segment holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    pub path: PathBuf,
    pub number: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// First and last zxid of the whole records at its beginning; `None` if there is none.
    pub zxids: Option<(Zxid, Zxid)>,
    pub records: u64,
    pub groups: u64,
    /// Where the whole records end.
    pub end: u64,
    pub state: State,
}

impl Survey {
    /// The reason to stop that it is, if it is one.
    pub fn damage(&self) -> Option<Fatal> {
        match &self.state {
            State::Good | State::Prepared | State::Torn => None,
            State::OtherVersion(version) => Some(other_version(&self.path, *version)),
            State::Unreadable { kind, problem } => {
                Some(Fatal::Io { file: self.path.clone(), source: io::Error::new(*kind, problem.clone()) })
            }
            State::Damaged { offset, problem } => Some(Fatal::LogCorrupt {
                file: self.path.clone(),
                offset: *offset,
                last_good: self.zxids.map_or(Zxid::ZERO, |(_, last)| last),
                problem: problem.clone(),
            }),
        }
    }
}

/// How a segment ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Ends where the next one says it ends, or in zeros.
    Good,
    /// Made ahead and not begun.
    Prepared,
    /// Of another version of this program, which may find it good.
    OtherVersion(u32),
    /// It may be good: why it can't be read says nothing of what it holds (a permission).
    Unreadable {
        kind: io::ErrorKind,
        problem: String,
    },
    /// The remains of an append that a crash interrupted; the server cuts them off by itself.
    Torn,
    Damaged {
        offset: u64,
        problem: String,
    },
}

/// The watermark of a log: `Ok(None)` where there is none, an error where it is damaged or can't be read.
pub type Durable = Result<Option<Watermark>, Fatal>;

/// The reason not to go on that a log with these segments and no watermark is, as for a server.
pub fn no_watermark(dir: &Path, surveys: &[Survey]) -> Fatal {
    let last = surveys.iter().filter_map(|survey| survey.zxids).next_back();
    recover::no_watermark(dir, last.map_or(Zxid::ZERO, |(_, last)| last))
}

/// All segments of a log, in order, and the watermark. Damage and what can't be read are part of the answer; an error is only
/// a directory that can't be read at all.
pub fn survey<D: Disk>(disk: &D, dir: &Path) -> Result<(Vec<Survey>, Durable), Fatal> {
    walk(disk, dir, |_, _| {})
}

/// As `survey`, and hands out each whole record: zxid and bytes of its body.
pub fn walk<D: Disk>(
    disk: &D,
    dir: &Path,
    mut record: impl FnMut(Zxid, usize),
) -> Result<(Vec<Survey>, Durable), Fatal> {
    let durable = Watermark::load(disk, dir);
    let watermark = durable.as_ref().ok().copied().flatten();
    let numbers = numbers(disk, dir)?;
    let mut surveys: Vec<Survey> = Vec::new();
    // Where the segment before ends; `None` behind one that can't be read.
    let mut before: Option<Joint> = None;
    for (index, &number) in numbers.iter().enumerate() {
        let mut survey = Survey::new(segment_path(dir, number), number);
        let scanned = scan_segment(disk, watermark, &mut survey, &mut |zxid, body: &[u8]| record(zxid, body.len()));
        let closed = numbers.get(index + 1).is_some_and(|&next| begun(disk, dir, next));
        match scanned {
            Err(error) => {
                survey.state = if is_damage(&error) {
                    State::Damaged { offset: survey.end, problem: error.to_string() }
                } else {
                    State::Unreadable { kind: error.kind(), problem: error.to_string() }
                };
                before = None;
            }
            Ok(None) => before = None,
            Ok(Some(scanned)) => {
                survey.state = scanned.state(closed, survey.end);
                if index > 0 && number != numbers[index - 1] + 1 {
                    let problem = "the segment before it is not there".to_owned();
                    survey.state = State::Damaged { offset: 0, problem };
                } else if before.is_some_and(|before| before != scanned.begins) {
                    // The one before it is as good as it looks only if this one continues it.
                    let problem = "the next segment does not continue it".to_owned();
                    if let Some(before) = surveys.last_mut().filter(|before| before.state == State::Good) {
                        before.state = State::Damaged { offset: before.end, problem };
                    }
                }
                before = Some(scanned.ends);
            }
        }
        surveys.push(survey);
    }
    Ok((surveys, durable))
}

/// Reads one segment alone and hands out each whole record at its beginning, with its body. `Torn` or `Damaged` is what
/// its end is when nothing follows it; with the segments around it, `survey` knows better.
pub fn read_segment<D: Disk>(disk: &D, path: &Path, mut record: impl FnMut(Zxid, &[u8])) -> Result<Survey, Fatal> {
    let Some(number) = segment_number(&name(path)) else {
        return Err(Fatal::Usage { problem: format!("{} has not the name of a segment", path.display()) });
    };
    let mut survey = Survey::new(path.to_owned(), number);
    let scanned = scan_segment(disk, None, &mut survey, &mut record).map_err(|e| disk::fatal(path, 0, e))?;
    if let Some(scanned) = scanned {
        survey.state = scanned.state(false, survey.end);
    }
    Ok(survey)
}

/// Where one segment ends and the next begins: offset, crc and zxid of the last record.
type Joint = (u64, u32, Zxid);

/// A segment whose header could be read.
struct Scanned {
    begins: Joint,
    ends: Joint,
    why: Why,
    tail: Tail,
}

impl Scanned {
    /// `closed`: another segment follows, so that nothing may be torn.
    fn state(&self, closed: bool, offset: u64) -> State {
        match (&self.why, &self.tail) {
            (Why::Bad(problem), _) => State::Damaged { offset, problem: problem.clone() },
            (Why::BadBody(_), _) if closed => {
                State::Damaged { offset, problem: "the checksum of a record is wrong".to_owned() }
            }
            // Whether a closed one ends where it should, the next one knows.
            _ if closed => State::Good,
            (_, Tail::Damaged(problem)) => State::Damaged { offset, problem: problem.clone() },
            (_, Tail::Torn { .. }) => State::Torn,
            (_, Tail::Clean) => State::Good,
        }
    }
}

impl Survey {
    fn new(path: PathBuf, number: u64) -> Survey {
        Survey { path, number, bytes: 0, zxids: None, records: 0, groups: 0, end: 0, state: State::Good }
    }
}

/// Fills the survey in; `None` for a segment without a header.
fn scan_segment<D: Disk>(
    disk: &D,
    watermark: Option<Watermark>,
    survey: &mut Survey,
    record: &mut impl FnMut(Zxid, &[u8]),
) -> io::Result<Option<Scanned>> {
    let mut reader = Reader::new(disk.open_to_read(&survey.path)?)?;
    survey.bytes = reader.len;
    let (header, identity) = match reader.first_sector(survey.number)? {
        FirstSector::Header(header, identity) => (header, identity),
        FirstSector::OtherVersion(version) => {
            survey.state = State::OtherVersion(version);
            return Ok(None);
        }
        FirstSector::Bad(problem) => {
            survey.state = State::Damaged { offset: 0, problem: problem.to_owned() };
            return Ok(None);
        }
        FirstSector::Unfinished => {
            survey.state = match reader.last_nonzero(RECORDS_START as u64)? {
                None => State::Prepared,
                Some(_) => State::Damaged { offset: 0, problem: "the segment header is missing".to_owned() },
            };
            return Ok(None);
        }
    };
    let mut scanner = Scanner::new(reader, header, identity);
    let why = loop {
        survey.end = scanner.offset;
        match scanner.step()? {
            Step::Record { zxid, body_at, length } => {
                survey.records += 1;
                survey.zxids = Some((survey.zxids.map_or(zxid, |(first, _)| first), zxid));
                record(zxid, scanner.reader.bytes(body_at, length)?);
            }
            Step::Mark => survey.groups += 1,
            Step::End(why) => break why,
        }
    };
    let durable_end = watermark.filter(|place| place.segment == survey.number).map(|place| place.end);
    let tail = scanner.judge(&why, durable_end)?;
    let begins = (header.previous_end, header.previous, header.after);
    Ok(Some(Scanned { begins, ends: (scanner.offset, scanner.chain, scanner.last), why, tail }))
}

/// Cuts the log behind the record `up_to`, which must be whole and reachable from the beginning of its segment: everything
/// after it is set aside. Done again after a crash, it finishes. Returns how many bytes behind the cut could not be read; the
/// copy that is set aside has zeros in their place.
pub fn cut<D: Disk>(disk: &D, dir: &Path, up_to: Zxid) -> Result<u64, Fatal> {
    // It may be sound, and is no server's of this version to judge.
    refuse_other_versions(disk, dir)?;
    truncate::finish_interrupted(disk, dir)?;
    let numbers = numbers(disk, dir)?;
    let Some((number, end)) = find(disk, dir, &numbers, up_to)? else {
        let problem = format!(
            "no whole record {up_to} can be reached from the beginning of the segment of {} that it would be in",
            dir.display()
        );
        return Err(Fatal::Usage { problem });
    };
    let path = segment_path(dir, number);
    let sync_dir = || disk.sync_dir(dir).map_err(|e| disk::sync_failed(dir, e));
    let io = |e| disk::fatal(&path, 0, e);
    // In a new file: recovery reads to the end, and a sector that can't be read may stay so when zeros are written to it. First,
    // since it may lack room, or find more that can't be read: so far nothing has changed.
    let kept = dir.join(PREPARING);
    remove_leftover(disk, &kept)?;
    sync_dir()?;
    copy_good_part(disk, &path, &kept, end)?;
    let round = round(disk, dir, up_to)?;
    disk::replace_file(disk, &dir.join(CUT), format!("{up_to}\n{round}\n").as_bytes())?;

    let aside = aside_path(dir, round, &path);
    let mut unread = 0;
    if disk.open_to_read(&aside).is_err() {
        // A copy: the part that stays is needed here.
        let (bytes, lost) = disk.open_to_read(&path).and_then(|file| read_what_can_be_read(&file)).map_err(io)?;
        disk::replace_file(disk, &aside, &bytes)?;
        unread = lost;
    }
    WatermarkFile::create(disk, dir, Watermark { segment: number, end, zxid: up_to })?;
    // Latest first, so that the log has no gap on the way.
    for &later in numbers.iter().rev().filter(|&&later| later > number) {
        let later = segment_path(dir, later);
        let aside = aside_path(dir, round, &later);
        disk.rename(&later, &aside).map_err(|e| disk::fatal(&later, 0, e))?;
        sync_dir()?;
    }
    disk.rename(&kept, &path).map_err(io)?;
    sync_dir()?;
    disk.remove(&dir.join(CUT)).map_err(|e| disk::fatal(&dir.join(CUT), 0, e))?;
    sync_dir()?;
    Ok(unread)
}

/// A file's bytes, with zeros where the disk can't read them, and how many that are.
fn read_what_can_be_read<F: File>(file: &F) -> io::Result<(Vec<u8>, u64)> {
    let mut bytes = vec![0; file.len()? as usize];
    let (mut at, mut unread) = (0, 0);
    for piece in bytes.chunks_mut(BACKGROUND_BYTES) {
        if file.read_at(at, piece).is_err() {
            let mut at = at;
            for sector in piece.chunks_mut(SECTOR) {
                match file.read_at(at, sector) {
                    Err(error) if disk::says_lost(&error) => {
                        sector.fill(0);
                        unread += sector.len() as u64;
                    }
                    other => other?,
                }
                at += sector.len() as u64;
            }
        }
        at += piece.len() as u64;
    }
    Ok((bytes, unread))
}

/// An error if a cut was interrupted: what is there is neither the old history nor the new one, and looks damaged where it is
/// only half of a change.
pub fn refuse_unfinished_cut<D: Disk>(disk: &D, dir: &Path) -> Result<(), Fatal> {
    let path = dir.join(CUT);
    let file = match disk.open_to_read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(disk::fatal(&path, 0, error)),
    };
    let note = disk::read_whole(&file, 4096).unwrap_or_default();
    let note = String::from_utf8_lossy(&note);
    let up_to = note.lines().next().filter(|line| line.starts_with("0x")).unwrap_or("ZXID");
    let problem = format!(
        "a cut of the log was interrupted and has to be run again: `ostler log --cut {up_to} {}`; a member of an ensemble can also \
         join anew, with nothing in its dataDir and dataLogDir but myid",
        dir.display()
    );
    Err(Fatal::Unfinished { file: path, problem })
}

/// An error if there is a file that says that a change is under way.
pub(super) fn refuse<D: Disk>(disk: &D, file: &Path, problem: &str) -> Result<(), Fatal> {
    match disk.open_to_read(file) {
        Ok(_) => Err(Fatal::Unfinished { file: file.to_owned(), problem: problem.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(disk::fatal(file, 0, error)),
    }
}

/// Where a segment is set aside: numbers are used again, so each cut has names of its own.
fn aside_path(dir: &Path, round: u32, segment: &Path) -> PathBuf {
    match round {
        1 => dir.join(format!("cut.{}", name(segment))),
        _ => dir.join(format!("cut.{round}.{}", name(segment))),
    }
}

/// Which cut of this directory it is: the one that was interrupted, if it is for the same place; or the first that has nothing
/// set aside. What an interrupted one for another place has set aside is more than what it may have left in the log.
fn round<D: Disk>(disk: &D, dir: &Path, up_to: Zxid) -> Result<u32, Fatal> {
    let names = disk.list(dir).map_err(|e| disk::fatal(dir, 0, e))?;
    if names.iter().any(|name| name == CUT) {
        let path = dir.join(CUT);
        let note =
            disk.open(&path).and_then(|file| disk::read_whole(&file, 4096)).map_err(|e| disk::fatal(&path, 0, e))?;
        let note = String::from_utf8_lossy(&note);
        let mut lines = note.lines();
        if lines.next() == Some(up_to.to_string().as_str()) {
            // An older note has the zxid only.
            return Ok(lines.next().and_then(|line| line.parse().ok()).unwrap_or(1));
        }
    }
    let is_taken = |round: &u32| {
        let path = aside_path(dir, *round, Path::new("segment."));
        names.iter().any(|taken| taken.starts_with(&name(&path)))
    };
    Ok((1..).find(|round| !is_taken(round)).expect("a directory has fewer files"))
}

/// The segment that holds the record `up_to`, and the offset behind it. Of the segments in front of that one nothing but the
/// headers is looked at: what is damaged there may be nothing that recovery needs.
fn find<D: Disk>(disk: &D, dir: &Path, numbers: &[u64], up_to: Zxid) -> Result<Option<(u64, u64)>, Fatal> {
    for &number in numbers.iter().rev() {
        let path = segment_path(dir, number);
        let io = |e| disk::fatal(&path, 0, e);
        let reader = disk.open_to_read(&path).and_then(Reader::new).map_err(io)?;
        // What has no header that can be read may be behind the cut.
        let Ok(FirstSector::Header(header, identity)) = reader.first_sector(number) else { continue };
        if header.after >= up_to {
            continue;
        }
        let mut scanner = Scanner::new(reader, header, identity);
        loop {
            match scanner.step().map_err(io)? {
                Step::Record { zxid, .. } if zxid == up_to => return Ok(Some((number, scanner.offset))),
                Step::Record { .. } | Step::Mark => {}
                Step::End(_) => return Ok(None),
            }
        }
    }
    Ok(None)
}

fn numbers<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<u64>, Fatal> {
    let names = disk.list(dir).map_err(|source| Fatal::DataDir { dir: dir.to_owned(), source })?;
    Ok(names.iter().filter_map(|name| segment_number(name)).collect())
}

/// Whether a segment has a header that can be read.
fn begun<D: Disk>(disk: &D, dir: &Path, number: u64) -> bool {
    let first = disk
        .open_to_read(&segment_path(dir, number))
        .and_then(Reader::new)
        .and_then(|reader| reader.first_sector(number));
    !matches!(first, Ok(FirstSector::Unfinished))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
