//! What of a damaged log is good, and setting the rest aside.
//!
//! A server alone stops at damage, because there is nobody to ask. One of an ensemble can go on without a vote and have its
//! history repaired by the others. For that it needs a log that is sound again: the good records in front of the damage,
//! which are a true beginning of its history, or none. What is damaged is renamed and never deleted or written to: an
//! operator may need it, and it may be the last copy of something.
//!
//! A segment that is good up to some place is set aside as a whole, and its good part is copied into a new file of its
//! name. Everything here may be done again after a crash; the caller has written down what `plan` said.
//!
//! Runs on: the starting thread.

use super::record::MARK_BYTES;
use super::recover::begins_epoch;
use super::scan::{Reader, Scanner, Step, is_damage};
use super::segment::{
    FirstSector, PREPARING, RECORDS_START, SegmentHeader, other_version, segment_number, segment_path,
};
use super::watermark::{WATERMARK, Watermark, WatermarkFile};
use super::{Log, Sizes};
use crate::disk::{self, Disk, File};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes copied at once.
const PIECE: usize = 1 << 20;

/// The good part of a log: segments `first..=segment`, the last one up to `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Salvage {
    /// Zxid of the last good record.
    pub last: Zxid,
    pub first: u64,
    pub segment: u64,
    pub end: u64,
    /// Something stands behind `end`, so that the segment has to be copied.
    pub copy: bool,
}

/// The path under which a file is set aside for the `round`th time that this was necessary.
pub fn aside_path(path: &Path, round: u32) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("damaged.{round}.{name}"))
}

/// The round in the name of a file that was set aside.
pub fn aside_round(name: &str) -> Option<u32> {
    name.strip_prefix("damaged.")?.split('.').next()?.parse().ok()
}

/// Sets a file aside, durably. One that was set aside in this round already is left as it is.
pub fn move_aside<D: Disk>(disk: &D, path: &Path, round: u32) -> Result<(), Fatal> {
    let aside = aside_path(path, round);
    if exists(disk, &aside)? || !exists(disk, path)? {
        return Ok(());
    }
    tracing::error!("setting {} aside as {}", path.display(), aside.display());
    disk.rename(path, &aside).map_err(|e| disk::fatal(path, 0, e))?;
    sync_dir_of(disk, path)
}

/// A number for a segment that no file of this directory has.
pub fn unused_number<D: Disk>(disk: &D, dir: &Path) -> Result<u64, Fatal> {
    Ok(numbers(disk, dir)?.last().map_or(1, |last| last + 1))
}

/// What of the log is good behind `from` (the zxid of a sound snapshot, or zero) and before `below`, if that is given.
/// `None` if not even `from` can be reached: then nothing of the log is of use. Changes nothing.
pub fn plan<D: Disk>(disk: &D, dir: &Path, from: Zxid, below: Option<Zxid>) -> Result<Option<Salvage>, Fatal> {
    let numbers = numbers(disk, dir)?;
    let headers = numbers.iter().map(|&number| header(disk, dir, number)).collect::<Result<Vec<_>, _>>()?;
    let begins = |index: usize| headers[index].map(|(header, _)| header.after);
    let Some(start) = (0..numbers.len()).rev().find(|&index| begins(index).is_some_and(|after| after <= from)) else {
        return Ok(None);
    };
    let mut first = start;
    // Older ones stay if recovery takes them.
    while first > 0
        && numbers[first - 1] + 1 == numbers[first]
        && begins(first - 1).is_some_and(|after| Some(after) <= begins(first))
    {
        first -= 1;
    }
    let mut index = start;
    let Some(mut scanner) = open(disk, dir, headers[start])? else { return Ok(None) };
    let (end, last, stopped) = loop {
        let (end, before) = (scanner.offset, scanner.last);
        match scanner.step() {
            Err(error) if is_damage(&error) => break (end, before, true),
            Err(error) => return Err(disk::fatal(&segment_path(dir, numbers[index]), 0, error)),
            Ok(Step::Record { zxid, .. }) if below.is_some_and(|below| zxid >= below) => break (end, before, true),
            Ok(Step::Record { zxid, .. }) if before < from && from < zxid && !begins_epoch(from) => return Ok(None),
            Ok(Step::Record { .. } | Step::Mark) => {}
            Ok(Step::End(_)) => {
                let ends = (scanner.offset, scanner.chain, scanner.last);
                let next = headers.get(index + 1).copied().flatten().filter(|(next, _)| {
                    next.number == scanner.header.number + 1
                        && (next.previous_end, next.previous, next.after) == ends
                        && !scanner.in_group()
                });
                match open(disk, dir, next)? {
                    Some(next) => (scanner, index) = (next, index + 1),
                    None => break (end, before, false),
                }
            }
        }
    };
    if last < from && !begins_epoch(from) {
        return Ok(None);
    }
    let is_short = scanner.reader.len < end + MARK_BYTES as u64;
    let copy = stopped || is_short || !matches!(scanner.reader.last_nonzero(end), Ok(None));
    Ok(Some(Salvage { last, first: numbers[first], segment: numbers[index], end, copy }))
}

/// Makes the log what `plan` found good; without a plan, one that is empty and begins after `from`, with a segment of the
/// number `fresh` (`unused_number`, as it was). Everything else is set aside. `false` if the good part is not there any
/// more, which an earlier try may have lost with the directory's changes: then it has to be done without a plan.
pub fn set_aside<D: Disk>(
    disk: &D,
    dir: &Path,
    plan: Option<&Salvage>,
    from: Zxid,
    fresh: u64,
    round: u32,
    sizes: Sizes,
) -> Result<bool, Fatal> {
    for number in numbers(disk, dir)? {
        let path = segment_path(dir, number);
        if plan.is_some_and(|plan| (plan.first..=plan.segment).contains(&number)) {
            continue;
        }
        // One that was not begun holds nothing; one of that number is from an earlier try.
        if number >= fresh || is_blank(disk, dir, number) {
            disk.remove(&path).map_err(|e| disk::fatal(&path, 0, e))?;
            sync_dir_of(disk, &path)?;
        } else {
            move_aside(disk, &path, round)?;
        }
    }
    let watermark = dir.join(WATERMARK);
    move_aside(disk, &watermark, round)?;
    let Some(plan) = plan else {
        drop(Log::create_from(disk.clone(), dir, from, sizes, fresh)?);
        return Ok(true);
    };
    let path = segment_path(dir, plan.segment);
    if plan.copy {
        let aside = aside_path(&path, round);
        let source = if exists(disk, &aside)? { aside } else { path.clone() };
        if !exists(disk, &source)? {
            return Ok(false);
        }
        copy_good_part(disk, &source, &dir.join(PREPARING), plan.end)?;
        move_aside(disk, &path, round)?;
        disk.rename(&dir.join(PREPARING), &path).map_err(|e| disk::fatal(&path, 0, e))?;
        sync_dir_of(disk, &path)?;
    } else if !exists(disk, &path)? {
        return Ok(false);
    }
    WatermarkFile::create(disk, dir, Watermark { segment: plan.segment, end: plan.end, zxid: plan.last })?;
    Ok(true)
}

/// An error if there is a segment of another version, or one that may not be read: nothing here could tell what of it is good.
pub fn refuse_other_versions<D: Disk>(disk: &D, dir: &Path) -> Result<(), Fatal> {
    for number in numbers(disk, dir)? {
        let path = segment_path(dir, number);
        let first = disk.open_to_read(&path).and_then(Reader::new).and_then(|reader| reader.first_sector(number));
        match first {
            Ok(FirstSector::OtherVersion(version)) => return Err(other_version(&path, version)),
            Err(error) if !is_damage(&error) => return Err(disk::fatal(&path, 0, error)),
            _ => {}
        }
    }
    Ok(())
}

/// A file as long as the other, with its first bytes and then zeros; durable but for its name.
pub(super) fn copy_good_part<D: Disk>(disk: &D, from: &Path, to: &Path, end: u64) -> Result<(), Fatal> {
    let source = disk.open_to_read(from).map_err(|e| disk::fatal(from, 0, e))?;
    let len = source.len().map_err(|e| disk::fatal(from, 0, e))?;
    let len = len.max((end + MARK_BYTES as u64).next_multiple_of(4096));
    let mut file = disk.create(to, len).map_err(|e| disk::fatal(to, len, e))?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < end {
        let count = (end - at).min(PIECE as u64) as usize;
        source.read_at(at, &mut piece[..count]).map_err(|e| disk::fatal(from, 0, e))?;
        file.write_at(at, &piece[..count]).map_err(|e| disk::fatal(to, len, e))?;
        at += count as u64;
    }
    file.sync().map_err(|e| disk::sync_failed(to, e))
}

type Head = (SegmentHeader, u32);

fn header<D: Disk>(disk: &D, dir: &Path, number: u64) -> Result<Option<Head>, Fatal> {
    let Some(reader) = reader(disk, dir, number)? else { return Ok(None) };
    match reader.first_sector(number) {
        Ok(FirstSector::Header(header, identity)) => Ok(Some((header, identity))),
        Ok(_) => Ok(None),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(disk::fatal(&segment_path(dir, number), 0, error)),
    }
}

fn open<D: Disk>(disk: &D, dir: &Path, head: Option<Head>) -> Result<Option<Scanner<D::File>>, Fatal> {
    let Some((header, identity)) = head else { return Ok(None) };
    Ok(reader(disk, dir, header.number)?.map(|reader| Scanner::new(reader, header, identity)))
}

/// `None` for what is no segment. One that we may not open may be good, and stops the server instead.
fn reader<D: Disk>(disk: &D, dir: &Path, number: u64) -> Result<Option<Reader<D::File>>, Fatal> {
    let path = segment_path(dir, number);
    match disk.open_to_read(&path).and_then(Reader::new) {
        Ok(reader) => Ok(Some(reader)),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(disk::fatal(&path, 0, error)),
    }
}

fn is_blank<D: Disk>(disk: &D, dir: &Path, number: u64) -> bool {
    let opened = disk.open_to_read(&segment_path(dir, number)).and_then(Reader::new);
    let Ok(mut reader) = opened else { return false };
    reader.len >= RECORDS_START as u64 && matches!(reader.last_nonzero(0), Ok(None))
}

fn exists<D: Disk>(disk: &D, path: &Path) -> Result<bool, Fatal> {
    match disk.open_to_read(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // Something of this name that is no regular file, or that can't be opened.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(true),
        Err(error) => Err(disk::fatal(path, 0, error)),
    }
}

fn numbers<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<u64>, Fatal> {
    let names = disk.list(dir).map_err(|source| Fatal::DataDir { dir: dir.to_owned(), source })?;
    Ok(names.iter().filter_map(|name| segment_number(name)).collect())
}

fn sync_dir_of<D: Disk>(disk: &D, path: &Path) -> Result<(), Fatal> {
    let dir = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(dir).map_err(|e| disk::sync_failed(dir, e))
}
