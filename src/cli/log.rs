//! `ostler log`: what the log of a stopped server holds, and the explicit cut that a damaged one may need.
//!
//! Runs on: the command's thread.

use super::output::say;
use super::zxid;
use crate::disk::{self, Disk, RealDisk};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::inspect::{self, State, Survey};
use crate::log::is_log_file;
use crate::storage::LOG_DIRECTORY;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  ostler log /var/lib/zookeeper
      each segment: its zxids, where its records end, and what is wrong with it
  ostler log --records /var/lib/zookeeper
      each record, too
  ostler log --cut 0x1f3 /var/lib/zookeeper
      give up everything after transaction 0x1f3; the files are kept under names that begin with cut.";

/// Show what a log directory holds (of a server that is not running), or cut it
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct LogArgs {
    /// The server's dataLogDir (its dataDir, if it has none), or version-2 in it, where the log's segments are
    pub dir: PathBuf,
    /// List every record: zxid and bytes
    #[arg(long)]
    pub records: bool,
    /// Keep everything up to this transaction (hexadecimal with 0x, or decimal) and set the rest aside
    #[arg(long, value_name = "ZXID", value_parser = zxid)]
    pub cut: Option<Zxid>,
}

/// Runs the command. Damage is shown and is an error, so that scripts see it.
pub fn run(args: &LogArgs) -> Result<(), Fatal> {
    let disk = RealDisk;
    let dir = &log_dir(&disk, &args.dir)?;
    let _lock = lock(&disk, dir, args.cut.is_none())?;
    if let Some(up_to) = args.cut {
        let unread = inspect::cut(&disk, dir, up_to)?;
        say!("Everything after {up_to} has been set aside (files cut.* in {}).", dir.display())?;
        if unread > 0 {
            say!("{unread} bytes of that could not be read, and are zeros there.")?;
        }
    }
    let mut records = Vec::new();
    let list = args.records;
    let (surveys, watermark) = inspect::walk(&disk, dir, |zxid, bytes| {
        // Printed with its segment, which is known only when it has been read.
        if list {
            records.push((zxid, bytes));
        }
    })?;
    let mut records = records.into_iter();
    for survey in &surveys {
        say!("{}", line(survey))?;
        for (zxid, bytes) in records.by_ref().take(if list { survey.records as usize } else { 0 }) {
            say!("    {zxid}  {bytes} bytes")?;
        }
    }
    match &watermark {
        Ok(Some(place)) => {
            say!("known to be durable: up to {} (segment {}, byte {})", place.zxid, place.segment, place.end)?
        }
        Ok(None) => say!("known to be durable: nothing, there is no watermark")?,
        Err(fatal) => say!("known to be durable: nothing that can be read; {fatal}")?,
    }
    match surveys.iter().find_map(Survey::damage) {
        Some(fatal) => Err(fatal),
        None => match watermark? {
            // No server starts on it: what is the log's end is not known.
            None if surveys.iter().any(|survey| survey.state != State::Prepared) => {
                Err(inspect::no_watermark(dir, &surveys))
            }
            _ => Ok(()),
        },
    }
}

/// Where the log is: what was given, or `version-2` in it. Where there is none nothing is locked, as that would leave a file.
fn log_dir<D: Disk>(disk: &D, given: &Path) -> Result<PathBuf, Fatal> {
    let inside = given.join("version-2");
    let dir = if inside.is_dir() { inside } else { given.to_owned() };
    let usage = |problem: String| Fatal::Usage { problem: format!("{}: {problem}", dir.display()) };
    let names = disk.list(&dir).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => usage(error.to_string()),
        _ => disk::fatal(&dir, 0, error),
    })?;
    if names.iter().any(|name| is_log_file(name)) {
        return Ok(dir);
    }
    let elsewhere = names.iter().any(|name| name == LOG_DIRECTORY);
    let hint = if elsewhere { "; it is in dataLogDir, which the file log-directory names" } else { "" };
    Err(usage(format!("there is no log of ostler's in it{hint}")))
}

/// The directory's lock. Who only looks does without where no lock file can be written: on a mounted backup, or in a directory
/// of another user, whose server may be running, so that what is shown may be half of a change.
fn lock<D: Disk>(disk: &D, dir: &Path, only_looks: bool) -> Result<Option<D::Lock>, Fatal> {
    match disk.lock(dir) {
        Err(Fatal::DataDir { source, .. })
            if only_looks && matches!(source.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn line(survey: &Survey) -> String {
    let zxids = match survey.zxids {
        Some((first, last)) => format!("{first} to {last}"),
        None => "no records".to_owned(),
    };
    let state = match &survey.state {
        State::Good => "good".to_owned(),
        State::Prepared => "prepared".to_owned(),
        State::OtherVersion(version) => format!("of version {version} of its format, which this program does not know"),
        State::Unreadable { problem, .. } => format!("CAN'T BE READ, and may be good: {problem}"),
        State::Torn => "ends in an interrupted append, which the server cuts off".to_owned(),
        State::Damaged { offset, problem } => format!("DAMAGED at byte {offset}: {problem}"),
    };
    let name = survey.path.file_name().unwrap_or_default().to_string_lossy();
    let Survey { records, groups, end, bytes, .. } = survey;
    format!("{name}  {zxids}  {records} records in {groups} groups, {end} of {bytes} bytes  {state}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn who_only_looks_does_without_a_lock_where_nothing_can_be_written() {
        let (dir, disk) = (Path::new("/log"), SimDisk::new());
        disk.create_dir(dir).unwrap();
        let held = lock(&disk, dir, true).unwrap();
        assert!(held.is_some());
        assert!(matches!(lock(&disk, dir, true), Err(Fatal::DataDirLocked { .. })));
        drop(held);
        disk.mount_read_only();
        assert!(lock(&disk, dir, true).unwrap().is_none());
        assert!(matches!(lock(&disk, dir, false), Err(Fatal::DataDir { .. })));
    }
}
