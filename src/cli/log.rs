//! `ostler log`: what the log of a stopped server holds, and the explicit cut that a damaged one may need.
//!
//! Runs on: the command's thread.

use super::output::say;
use super::zxid;
use crate::disk::{Disk, RealDisk};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::inspect::{self, State, Survey};
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
    let _lock = disk.lock(&args.dir)?;
    if let Some(up_to) = args.cut {
        inspect::cut(&disk, &args.dir, up_to)?;
        say!("Everything after {up_to} has been set aside (files cut.* in {}).", args.dir.display())?;
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
    match watermark {
        Some(place) => {
            say!("known to be durable: up to {} (segment {}, byte {})", place.zxid, place.segment, place.end)?
        }
        None => say!("known to be durable: nothing, the watermark is missing or damaged")?,
    }
    match surveys.iter().find_map(damage) {
        Some(fatal) => Err(fatal),
        None => Ok(()),
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
        State::Torn => "ends in an interrupted append, which the server cuts off".to_owned(),
        State::Damaged { offset, problem } => format!("DAMAGED at byte {offset}: {problem}"),
    };
    let name = survey.path.file_name().unwrap_or_default().to_string_lossy();
    let Survey { records, groups, end, bytes, .. } = survey;
    format!("{name}  {zxids}  {records} records in {groups} groups, {end} of {bytes} bytes  {state}")
}

fn damage(survey: &Survey) -> Option<Fatal> {
    let State::Damaged { offset, problem } = &survey.state else { return None };
    let last_good = survey.zxids.map_or(Zxid::ZERO, |(_, last)| last);
    let (file, problem) = (survey.path.clone(), problem.clone());
    Some(Fatal::LogCorrupt { file, offset: *offset, last_good, problem })
}
