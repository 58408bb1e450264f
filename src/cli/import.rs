//! `ostler import`: what a server does by itself at its first start on ZooKeeper's data, done ahead of time, with a
//! progress bar, a report, and the choices that a server does not make alone.
//!
//! Runs on: the command's thread.

use super::output::say;
use super::progress::bar;
use super::server_args::ServerArgs;
use super::zxid;
use crate::config::Config;
use crate::disk::{Disk, RealDisk};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::snapshot::zookeeper::{
    self, DecodeLimits, Dirs, Files, ImportOptions, Report, TakeOver, import, import_from,
};
use crate::snapshot::{list, zookeeper::take_over};
use crate::storage;
use crate::tree::TreeOptions;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  ostler import --check /etc/zookeeper/conf/zoo.cfg
      read and check everything; write nothing
  ostler import /etc/zookeeper/conf/zoo.cfg
      make the data ostler's, as `ostler server` would at its first start with this file; ZooKeeper's files stay
  ostler import --from /backup/zookeeper zoo.cfg
      the same with ZooKeeper's files from elsewhere
  ostler import --up-to 0x10000002a zoo.cfg
      give up what follows a transaction, where what follows is damaged";

/// Take over the data of a stopped ZooKeeper server, or check it
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// Read and check everything, report, and write nothing
    #[arg(long)]
    pub check: bool,
    /// Where ZooKeeper's data is (its dataDir), if not in the dataDir of the configuration
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// ZooKeeper's dataLogDir, if it isn't its dataDir
    #[arg(long, value_name = "DIR", requires = "from")]
    pub from_log: Option<PathBuf>,
    /// Give up everything after this transaction (hexadecimal with 0x, or decimal)
    #[arg(long, value_name = "ZXID", value_parser = zxid)]
    pub up_to: Option<Zxid>,
    /// Go on where the tree has not the digest that a record says; ZooKeeper only logs that
    #[arg(long)]
    pub accept_digests: bool,
    /// Throw ostler's own data in the directory away first
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Runs the command.
pub fn run(args: &ImportArgs) -> Result<(), Fatal> {
    let config = args.server.load()?.config;
    let disk = RealDisk;
    let options = ImportOptions {
        tree: TreeOptions { owner_rules: config.owner_rules, digest: config.digest_enabled },
        limits: DecodeLimits {
            item_bytes: config.jute_max_buffer + config.jute_max_buffer_extra,
            ..DecodeLimits::default()
        },
        up_to: args.up_to,
        // As the server's first start with this file.
        check_digests: config.digest_enabled && !args.accept_digests,
        member: config.ensemble.is_some(),
    };
    let (snapshots, log) = (config.snapshot_dir(), config.log_dir());
    let own = Dirs { snapshots: &snapshots, log: &log };
    let from = source(args, &config);
    let theirs = Dirs { snapshots: &from.0, log: &from.1 };
    let bar = bar();
    let mut progress = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    if args.check {
        let imported = import(&disk, theirs.snapshots, theirs.log, options, &mut progress)?;
        bar.finish_and_clear();
        let Some(imported) = imported else { return Err(nothing(theirs)) };
        print(&imported.report)?;
        say!("epochs     accepted {}, current {}", imported.epochs.accepted.0, imported.epochs.current.0)?;
        return Ok(());
    }
    for dir in [&snapshots, &log] {
        disk.create_dir(dir).map_err(|source| Fatal::DataDir { dir: dir.clone(), source })?;
    }
    let _lock = disk.lock(&snapshots)?;
    let _log_lock = if log == snapshots { None } else { Some(disk.lock(&log)?) };
    let dirs = storage::Dirs { snapshots: snapshots.clone(), log: log.clone() };
    storage::refuse_misplaced(&disk, &dirs)?;
    if !args.replace && !zookeeper::is_unfinished(&disk, &snapshots)? {
        storage::refuse_absent_log(&disk, &dirs)?;
    }
    let report = match &args.from {
        Some(_) => {
            let Some(imported) = import(&disk, theirs.snapshots, theirs.log, options, &mut progress)? else {
                return Err(nothing(theirs));
            };
            check_room(&disk, own, &options, args.replace)?;
            import_from(&disk, theirs, own, options, imported)?
        }
        None => match take_over(&disk, own, options, args.replace, &mut progress)? {
            TakeOver::Done(report) => report,
            TakeOver::Nothing => return Err(nothing(own)),
            TakeOver::Before => {
                bar.finish_and_clear();
                say!("{}: taken over before, and unchanged since; nothing to do", snapshots.display())?;
                return Ok(());
            }
        },
    };
    bar.finish_and_clear();
    storage::note_log_directory(&disk, &dirs)?;
    print(&report)?;
    say!("\n{} is ready for `ostler server`.", config.data_dir.display())?;
    Ok(())
}

/// Snapshots and logs of ZooKeeper, in `version-2` below what was given.
fn source(args: &ImportArgs, config: &Config) -> (PathBuf, PathBuf) {
    match &args.from {
        None => (config.snapshot_dir(), config.log_dir()),
        Some(dir) => (version_2(dir), version_2(args.from_log.as_ref().unwrap_or(dir))),
    }
}

/// A data directory may be named itself, or what is in it.
fn version_2(dir: &Path) -> PathBuf {
    if dir.file_name().is_some_and(|name| name == "version-2") { dir.to_owned() } else { dir.join("version-2") }
}

/// Nothing of either kind may be where data of another place is to be, but what an interrupted import has left.
fn check_room(disk: &RealDisk, dirs: Dirs<'_>, options: &ImportOptions, replace: bool) -> Result<(), Fatal> {
    if let Some(theirs) = Files::list(disk, dirs.snapshots, dirs.log)?.paths().next() {
        let problem = "there are files of ZooKeeper's here too, and those of another place are to be taken over".into();
        return Err(Fatal::ForeignData { file: theirs.to_owned(), problem });
    }
    if !replace {
        zookeeper::refuse_another_choice(disk, dirs.snapshots, options)?;
    }
    let ours = zookeeper::our_files(disk, dirs)?;
    if let (Some(path), false) = (ours.first(), replace || zookeeper::is_unfinished(disk, dirs.snapshots)?) {
        let zxids = list(disk, dirs.snapshots)?;
        let problem = match zxids.first() {
            Some(zxid) => format!("there is data of ostler's already, up to zxid {zxid} or later"),
            None => "there is data of ostler's already".into(),
        };
        return Err(Fatal::ForeignData { file: path.clone(), problem });
    }
    Ok(())
}

fn nothing(dirs: Dirs<'_>) -> Fatal {
    let source = std::io::Error::other("there is no snapshot and no log of ZooKeeper's in it");
    Fatal::DataDir { dir: dirs.snapshots.to_owned(), source }
}

fn print(report: &Report) -> Result<(), Fatal> {
    match &report.snapshot {
        Some(path) => say!("snapshot   {}", path.display())?,
        None => say!("snapshot   none: the log begins with the first transaction")?,
    }
    say!("log        {} records behind it, in {} files", report.records, report.logs)?;
    say!("zxid       {}", report.zxid)?;
    say!("znodes     {}", report.nodes)?;
    say!("sessions   {}", report.sessions)?;
    say!("digest     {:#x}: {}", report.digest, digests(report))?;
    for note in &report.notes {
        say!("note: {note}")?;
    }
    Ok(())
}

fn digests(report: &Report) -> String {
    match (report.snapshot_digest, report.record_digests) {
        (false, 0) => "there was none to compare it with".into(),
        (true, 0) => "as the snapshot says".into(),
        (false, records) => format!("as {records} records said on the way"),
        (true, records) => format!("as the snapshot says, and {records} records said on the way"),
    }
}
