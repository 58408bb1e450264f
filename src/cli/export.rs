//! `ostler export`: the data of a stopped server as a data directory that ZooKeeper 3.8 and 3.9 start from.
//!
//! Runs on: the command's thread.

use super::output::say;
use super::progress::bar;
use super::server_args::ServerArgs;
use crate::config;
use crate::disk::{self, Disk, RealDisk};
use crate::fatal::Fatal;
use crate::log::Sizes;
use crate::snapshot;
use crate::snapshot::zookeeper::{Compression, Dirs, ExportOptions, export, refuse_unfinished};
use crate::storage;
use crate::tree::TreeOptions;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  ostler export --to /srv/zookeeper /etc/ostler/zoo.cfg
      version-2 and myid in /srv/zookeeper, which becomes ZooKeeper's dataDir
  ostler export --to /var/lib/zookeeper --set-aside zoo.cfg
      back into the directory that was taken over; ZooKeeper's old files get names that begin with aside.

The digest that is printed is the one that ZooKeeper shows (`hash`, or /commands/hash) when it has started.";

/// Write the data of a stopped server as ZooKeeper has it
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// The dataDir to be written
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// The dataLogDir to be written, if it isn't the dataDir; for the configuration's own dataDir it is its dataLogDir
    #[arg(long, value_name = "DIR")]
    pub to_log: Option<PathBuf>,
    /// How the snapshot is compressed: none, gz or snappy
    #[arg(long, value_name = "METHOD", default_value = "none", value_parser = compression)]
    pub compression: Compression,
    /// Rename ZooKeeper's files that are there already instead of refusing
    #[arg(long)]
    pub set_aside: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

fn compression(name: &str) -> Result<Compression, String> {
    Compression::from_name(name).ok_or_else(|| "none, gz or snappy".into())
}

/// Runs the command.
pub fn run(args: &ExportArgs) -> Result<(), Fatal> {
    let config = args.server.load()?.config;
    let disk = RealDisk;
    let (snapshots, log) = (config.snapshot_dir(), config.log_dir());
    let _lock = disk.lock(&snapshots)?;
    let _log_lock = if log == snapshots { None } else { Some(disk.lock(&log)?) };
    let own = storage::Dirs { snapshots: snapshots.clone(), log: log.clone() };
    refuse_unfinished(&disk, &snapshots)?;
    storage::refuse_misplaced(&disk, &own)?;
    storage::refuse_absent_log(&disk, &own)?;
    storage::resume(&disk, &own, Sizes::default())?;
    let note = log.join(storage::QUARANTINE);
    if disk.open_to_read(&note).is_ok() {
        let problem =
            "this server has lost a part of its history and is waiting for the ensemble to give it back".into();
        return Err(Fatal::ForeignData { file: note, problem });
    }
    let newest = snapshot::list(&disk, &snapshots)?.first().copied();
    if let Some(zxid) = newest
        && storage::may_be_fuzzy(&disk, &own, zxid)?
    {
        storage::refuse_fuzzy(&own)?;
    }
    let myid = read_myid(&config.data_dir)?;
    // The way back: what is read with this configuration has to be seen, and set aside, where it has its logs.
    let own_log = is_same_dir(&args.to, &config.data_dir).then_some(&config.data_log_dir);
    let to_log = args.to_log.as_ref().or(own_log).unwrap_or(&args.to);
    let to = (args.to.join("version-2"), to_log.join("version-2"));
    for dir in [&to.0, &to.1] {
        disk.create_dir(dir).map_err(|source| Fatal::DataDir { dir: dir.clone(), source })?;
    }
    let options = ExportOptions {
        tree: TreeOptions { owner_rules: config.owner_rules, digest: config.digest_enabled },
        compression: args.compression,
        set_aside: args.set_aside,
    };
    let bar = bar();
    let mut progress = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let from = Dirs { snapshots: &snapshots, log: &log };
    let exported = export(&disk, from, Dirs { snapshots: &to.0, log: &to.1 }, options, &mut progress)?;
    bar.finish_and_clear();
    let myid = myid.map(|bytes| write_myid(&disk, &config.data_dir, &args.to, &bytes)).transpose()?;
    say!("snapshot   {}", exported.snapshot.display())?;
    match &exported.log {
        Some((path, records)) => say!("log        {} ({records} records)", path.display())?,
        None => say!("log        none: nothing is behind the snapshot")?,
    }
    say!("epochs     accepted {}, current {}", exported.epochs.accepted.0, exported.epochs.current.0)?;
    if let Some(myid) = myid {
        say!("myid       {myid}")?;
    }
    say!("zxid       {}", exported.zxid)?;
    say!("znodes     {}", exported.nodes)?;
    say!("sessions   {}", exported.sessions)?;
    say!("digest     {:#x}", exported.digest)?;
    for note in &exported.notes {
        say!("note: {note}")?;
    }
    Ok(())
}

/// A member of an ensemble has its number in its dataDir. What the server is started with is read, and so it is read as the
/// server reads it: whatever is mounted or linked there.
fn read_myid(from: &Path) -> Result<Option<Vec<u8>>, Fatal> {
    let path = from.join("myid");
    if !path.is_file() {
        return Ok(None);
    }
    config::read_file(&path).map(Some)
}

/// Puts it into the dataDir that is written, unless it is there already; what it says.
fn write_myid(disk: &RealDisk, from: &Path, to: &Path, bytes: &[u8]) -> Result<String, Fatal> {
    if !is_same_dir(from, to) {
        disk::replace_file(disk, &to.join("myid"), bytes)?;
    }
    Ok(String::from_utf8_lossy(bytes).trim().to_owned())
}

/// Whether two paths are of one directory, by whatever names.
fn is_same_dir(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    canonical(one) == canonical(other)
}
