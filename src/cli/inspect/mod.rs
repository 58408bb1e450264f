//! `ostler inspect`: what snapshots and logs of both kinds hold, ZooKeeper's and ours; the state of a whole directory;
//! and how two of them differ. For servers that are not running: nothing is locked and nothing is changed.
//!
//! Text for people, in the form of ZooKeeper's own offline tools where they have one; with `--json`, one object a line.
//!
//! Runs on: the command's thread.

mod compare;
mod json;
mod overview;
mod records;
mod source;
mod znodes;

use super::output;
use crate::disk::RealDisk;
use crate::fatal::Fatal;
use source::Kind;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ostler inspect /var/lib/zookeeper
      every snapshot and log in the directory: what is in it, and whether it is sound
  ostler inspect /var/lib/zookeeper/version-2/snapshot.1000003e8
      every znode of a snapshot, as SnapshotFormatter prints them
  ostler inspect --json --data ostler-data/version-2/snap.00000001000003e8
      the same of one of ostler's, an object a line, with the data
  ostler inspect /var/lib/zookeeper/version-2/log.100000001
      every transaction of a log
  ostler inspect --summary --depth 2 /var/lib/zookeeper
      how many znodes and bytes are below each path, for the state that a server would start with
  ostler inspect --against /srv/zookeeper /var/lib/zookeeper
      how two states differ; the exit status is 1 if they do";

/// Show what snapshots, logs or whole data directories hold, ZooKeeper's or ostler's, or compare two
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// A snapshot, a log, or a data directory
    pub path: PathBuf,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// With the znodes' data, in base64
    #[arg(long)]
    pub data: bool,
    /// Compare with this snapshot or directory
    #[arg(long, value_name = "OTHER", conflicts_with_all = ["summary", "znodes", "records"])]
    pub against: Option<PathBuf>,
    /// Sum up what is below each path
    #[arg(long, conflicts_with_all = ["znodes", "records"])]
    pub summary: bool,
    /// Begin the summary here
    #[arg(long, value_name = "PATH", default_value = "/", requires = "summary")]
    pub at: String,
    /// Depth of the summary; 0: all of it
    #[arg(long, value_name = "LEVELS", default_value_t = 0, requires = "summary")]
    pub depth: usize,
    /// Of a directory, every znode of the state that a server would start with
    #[arg(long, conflicts_with = "records")]
    pub znodes: bool,
    /// Of a directory, every transaction of its logs
    #[arg(long)]
    pub records: bool,
    /// Of a directory with files of both kinds, take ZooKeeper's
    #[arg(long)]
    pub zookeeper: bool,
    /// The log's directory (dataLogDir), where it isn't the snapshots'
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
}

/// What a command has come to: an error of its own, or nobody who reads on.
enum Stop {
    Fatal(Fatal),
    Output(io::Error),
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Stop {
        Stop::Fatal(fatal)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Output(error)
    }
}

/// Runs the command; its exit status.
pub fn run(args: &InspectArgs) -> Result<u8, Fatal> {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = inspect(args, &mut out).and_then(|status| Ok(out.flush().map(|()| status)?));
    match result {
        Ok(status) => Ok(status),
        Err(Stop::Output(error)) => output::written(Err(error)).map(|()| 0),
        Err(Stop::Fatal(fatal)) => {
            // What was found up to there is worth seeing.
            let _ = out.flush();
            Err(fatal)
        }
    }
}

fn inspect(args: &InspectArgs, out: &mut impl Write) -> Result<u8, Stop> {
    let disk = RealDisk;
    let load = |path| source::load(&disk, path, args);
    if let Some(other) = &args.against {
        return compare::print(&load(&args.path)?, &load(other)?, args.json, out);
    }
    if args.summary {
        znodes::print_summary(&load(&args.path)?, args, out)?;
        return Ok(0);
    }
    match source::kind(&disk, &args.path)? {
        Kind::Directory if args.records => records::print_directory(&disk, args, out)?,
        Kind::Directory if !args.znodes => overview::print(&disk, args, out)?,
        Kind::Log => records::print_log(&disk, &args.path, args.json, out)?,
        Kind::Segment => records::print_segment(&disk, &args.path, args.json, out)?,
        Kind::Directory | Kind::Snapshot(_) | Kind::OurSnapshot => znodes::print(&load(&args.path)?, args, out)?,
    }
    Ok(0)
}
