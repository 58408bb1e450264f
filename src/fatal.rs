//! Why the server stops itself: what happened, with the values; what to do about it; and an exit status of its own, so
//! that a supervisor can tell "fix the disk" from "fix the file". Bugs are not in here: they are assertions.
//!
//! Exit statuses are ZooKeeper's where it has one (operations: 1 start-up, 2 configuration, 3 data directory, 4 admin
//! port, 10 snapshot or log can't be written).

use crate::ids::Zxid;
use std::path::PathBuf;

/// A reason to stop. `Display` gives what happened; `advice` what to do.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// `line` 0 when the problem is not in one line of the file.
    #[error("{}{}: {problem}", file.display(), if *line > 0 { format!(":{line}") } else { String::new() })]
    Config { file: PathBuf, line: usize, problem: String },
    #[error("{problem}")]
    Usage { problem: String },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("{} is in use by pid {holder_pid}", dir.display())]
    DataDirLocked { dir: PathBuf, holder_pid: u32 },
    #[error("Unable to access datadir {}: {source}", dir.display())]
    DataDir { dir: PathBuf, source: std::io::Error },
    #[error("{}: no space left: {needed} bytes needed ({source})", path.display())]
    DiskFull { path: PathBuf, needed: u64, source: std::io::Error },
    /// After one failed fsync nothing that the kernel says about the file can be trusted, so nothing is retried.
    #[error("{}: sync failed: {source}", file.display())]
    SyncFailed { file: PathBuf, source: std::io::Error },
    #[error("{}: {source}", file.display())]
    Io { file: PathBuf, source: std::io::Error },
    #[error("{}: damaged at byte {offset}: {problem}; everything up to zxid {last_good} is good", file.display())]
    LogCorrupt { file: PathBuf, offset: u64, last_good: Zxid, problem: String },
    #[error("{}: damaged at byte {offset}: {problem}", file.display())]
    SnapshotCorrupt { file: PathBuf, offset: u64, problem: String },
    /// A record whose checksum is right and whose content is not: no transaction, or not one that follows.
    #[error("{}: the transaction {zxid} cannot be applied: {problem}", dir.display())]
    LogRecord { dir: PathBuf, zxid: Zxid, problem: String },
    /// The directory holds ZooKeeper's own files beside ours, and they are not those that were taken over.
    #[error("{}: {problem}", file.display())]
    ForeignData { file: PathBuf, problem: String },
    /// The configuration has `dataLogDir` elsewhere than the history lies: a part of it would be taken for nothing.
    #[error("{}: {problem}", file.display())]
    OtherDirectory { file: PathBuf, problem: String },
    /// A file of ZooKeeper's that can't be taken over as it is: damaged, or something is missing before or behind it.
    #[error("{}: byte {offset}: {problem}; everything up to zxid {last_good} is good", file.display())]
    ZooKeeperData { file: PathBuf, offset: u64, last_good: Zxid, problem: String },
    /// Files are missing or don't fit together: `from..=to` is what is needed and not there.
    #[error("{}: transactions {from} to {to} are missing: {problem}", dir.display())]
    HistoryGap { dir: PathBuf, from: Zxid, to: Zxid, problem: String },
    /// A change of the directory was interrupted, and what is there is neither the old state nor the new one. `problem` says
    /// who finishes it.
    #[error("{}: {problem}", file.display())]
    Unfinished { file: PathBuf, problem: String },
    /// A file of ours that an older or a newer server wrote. Nothing says that it is damaged.
    #[error("{}: written in version {version} of its format, and this server knows version {known}", file.display())]
    OtherVersion { file: PathBuf, version: u32, known: u32 },
    #[error("{}: {problem}", file.display())]
    EpochsDamaged { file: PathBuf, problem: String },
    /// The ensemble has changed its members while it ran, which this server can't follow.
    #[error("other servers vote in this ensemble than this server was given: there [{theirs}], here [{ours}]")]
    OtherMembers { theirs: String, ours: String },
    /// The load generator could not finish, or a server answered wrongly.
    #[error("{problem}")]
    Bench { problem: String },
}

impl Fatal {
    pub fn exit_status(&self) -> u8 {
        match self {
            Fatal::Listen { .. } | Fatal::Bench { .. } => 1,
            Fatal::Config { .. } | Fatal::Usage { .. } | Fatal::OtherMembers { .. } => 2,
            Fatal::DataDirLocked { .. }
            | Fatal::DataDir { .. }
            | Fatal::ForeignData { .. }
            | Fatal::OtherDirectory { .. } => 3,
            Fatal::DiskFull { .. } | Fatal::SyncFailed { .. } | Fatal::Io { .. } => 10,
            Fatal::LogCorrupt { .. }
            | Fatal::LogRecord { .. }
            | Fatal::SnapshotCorrupt { .. }
            | Fatal::ZooKeeperData { .. }
            | Fatal::EpochsDamaged { .. }
            | Fatal::Unfinished { .. }
            | Fatal::OtherVersion { .. }
            | Fatal::HistoryGap { .. } => 11,
        }
    }

    pub fn advice(&self) -> &'static str {
        match self {
            Fatal::Config { .. } => "Correct the file and start again.",
            Fatal::Usage { .. } => "See `ostler help`.",
            Fatal::OtherMembers { .. } => {
                "Put the members that are in force (`config` of the command-line client says them) into zoo.cfg and start again: best as ZooKeeper does, in a file that dynamicConfigFile names and whose name ends in their version (zoo.cfg.dynamic.100000007). Leave this server stopped if it is no member any more."
            }
            Fatal::Listen { .. } => "Stop what listens there, or set another port.",
            Fatal::DataDirLocked { .. } => "Stop the other process, or give this server its own dataDir.",
            Fatal::DataDir { .. } => "Create the directory, or make it writable for this user.",
            Fatal::DiskFull { .. } => "Free space on this file system and start again; nothing acknowledged was lost.",
            Fatal::SyncFailed { .. } => {
                "Check the disk (dmesg, smartctl) before starting again; what was acknowledged had been synced before."
            }
            Fatal::Io { .. } => "Check the disk and the permissions of the file.",
            Fatal::LogRecord { .. } => {
                "This is a bug, or the log was written with other settings (digest.enabled): keep the directory and report it."
            }
            Fatal::LogCorrupt { .. } => {
                "Restore the file from a backup, or see what it still holds and cut it with `ostler log`."
            }
            Fatal::SnapshotCorrupt { .. } => {
                "Restore the file from a backup, or remove it if an older snapshot is there."
            }
            Fatal::ForeignData { .. } => {
                "Decide which of the two goes on: `ostler import --replace` takes ZooKeeper's, moving its files away keeps ours."
            }
            Fatal::OtherDirectory { .. } => {
                "The data is as it was. Set dataDir and dataLogDir back, or move the files to where they point, if none of these names is there yet: snap.*, log-directory and zookeeper.imported to dataDir, all others of ostler's to dataLogDir (version-2 in each)."
            }
            Fatal::ZooKeeperData { .. } => {
                "Nothing was changed. Put the missing or sound file back, or give up what follows with `ostler import --up-to`."
            }
            Fatal::EpochsDamaged { .. } => {
                "Restore the file from a backup of this server. Without one, empty a member's dataDir and dataLogDir but for myid and let it join anew; a server that is alone, and stays so, can do without the file."
            }
            Fatal::Unfinished { .. } => {
                "Nothing was changed. Finish what was begun in the way that is said, and try again."
            }
            Fatal::OtherVersion { .. } => "Nothing was changed. Start the version of ostler that wrote the file.",
            Fatal::Bench { .. } => "What has been measured until then is not to be trusted.",
            Fatal::HistoryGap { .. } => "Put the missing files back into the data directory.",
        }
    }
}
