//! `ostler log`: what the log of a stopped server holds, and the explicit cut that a damaged one may need.
//!
//! Runs on: the command's thread.

use super::output::say;
use super::zxid;
use crate::disk::{Disk, RealDisk};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::inspect::{self, State, Survey};
use std::io::ErrorKind;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ostler log data/log
      each segment: its zxids, where its records end, and what is wrong with it
  ostler log --records data/log
      each record, too
  ostler log --cut 0x1f3 data/log
      give up everything after transaction 0x1f3; the files are kept under names that begin with cut.";

/// Show what a log directory holds (of a server that is not running), or cut it
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct LogArgs {
    /// The directory with the log's segments
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
    let _lock = lock(&disk, args)?;
    if let Some(up_to) = args.cut {
        let unread = inspect::cut(&disk, &args.dir, up_to)?;
        say!("Everything after {up_to} has been set aside (files cut.* in {}).", args.dir.display())?;
        if unread > 0 {
            say!("{unread} bytes of that could not be read, and are zeros there.")?;
        }
    }
    let mut records = Vec::new();
    let list = args.records;
    let (surveys, watermark) = inspect::walk(&disk, &args.dir, |zxid, bytes| {
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
        None => watermark.map(|_| ()),
    }
}

/// The directory's lock. Who only looks does without where no lock file can be written: on a mounted backup, or in a directory
/// of another user, whose server may be running, so that what is shown may be half of a change.
fn lock<D: Disk>(disk: &D, args: &LogArgs) -> Result<Option<D::Lock>, Fatal> {
    match disk.lock(&args.dir) {
        Err(Fatal::Io { source, .. })
            if args.cut.is_none()
                && matches!(source.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) =>
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
        let args = |cut| LogArgs { dir: "/log".into(), records: false, cut };
        let disk = SimDisk::new();
        disk.create_dir("/log".as_ref()).unwrap();
        let held = lock(&disk, &args(None)).unwrap();
        assert!(held.is_some());
        assert!(matches!(lock(&disk, &args(None)), Err(Fatal::DataDirLocked { .. })));
        drop(held);
        disk.mount_read_only();
        assert!(lock(&disk, &args(None)).unwrap().is_none());
        assert!(matches!(lock(&disk, &args(Some(Zxid(1)))), Err(Fatal::Io { .. })));
    }
}
