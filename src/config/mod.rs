//! What the operator said, turned into a checked `Config` before anything else happens.
//!
//! The server takes ZooKeeper's place with ZooKeeper's files, so it has to read them as ZooKeeper does: the same
//! syntax, the same strictness key by key, the same order of precedence, the same words and exit status where it
//! refuses. And it should say what ZooKeeper keeps to itself: keys that are misspelt, set twice, or without effect.
//! So the result is a `Config` and a list of notices for the log, which can't be written yet when they arise.
//!
//! Promises: nothing but the file, the dynamic file and `myid` is read, nothing is written; no input makes it panic; files
//! beyond 1 MiB are refused before they are read. Leaves to others: making directories, listening, printing.
//!
//! Runs on: the starting thread, before any other exists.

mod ensemble;
mod gather;
pub mod keys;
mod members;
pub mod properties;
mod read;
pub mod servers;
#[cfg(test)]
mod tests;
mod values;

pub use ensemble::Ensemble;
pub use values::{
    Config, ConnectionThrottle, Containers, Purge, PurgeWhen, RequestThrottle, SNAP_COUNT, WordList, default_cores,
};

use crate::fatal::Fatal;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest file that is read. A real one has a few kilobytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Notices beyond this many are counted and not told: a file of nonsense shall not fill the log.
const NOTICES_MAX: usize = 1_000;

/// Where settings come from. `Default` is a server without any, on one processor.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// `name=value` of each `-D`, in order.
    pub defines: Vec<String>,
    /// ZooKeeper's form without a file.
    pub positional: Option<Positional>,
    /// The environment variables `SERVER_JVMFLAGS` and `JVMFLAGS`.
    pub server_jvm_flags: Option<String>,
    pub jvm_flags: Option<String>,
    /// Of this machine.
    pub processors: usize,
}

/// `<port> <dataDir> [tickTime] [maxcnxns]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Positional {
    pub client_port: u16,
    pub data_dir: PathBuf,
    pub tick_time_ms: Option<u32>,
    pub max_client_cnxns: Option<u32>,
}

/// How much a notice matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// A line for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    pub level: Level,
    pub text: String,
}

impl Notice {
    fn new(level: Level, text: String) -> Notice {
        Notice { level, text }
    }
}

/// A checked configuration, and what to say about it.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    pub config: Config,
    pub notices: Vec<Notice>,
}

/// Reads the file, if there is one, and all other sources.
///
/// Errors: `Fatal::Config` for what is wrong in a file, `Fatal::Usage` for what is wrong on the command line or in the
/// environment; both end with status 2.
pub fn load(sources: &Sources) -> Result<Loaded, Fatal> {
    let mut notices = Vec::new();
    let bytes = match &sources.file {
        None => Vec::new(),
        Some(path) => {
            if path.is_relative() && !path.starts_with(".") {
                let text = format!("{} is relative. Prepend ./ to indicate that you're sure!", path.display());
                notices.push(Notice::new(Level::Warn, text));
            }
            read_file(path)?
        }
    };
    interpret(sources, &bytes, notices)
}

/// The part of `load` that reads no file but those that the settings name.
fn interpret(sources: &Sources, bytes: &[u8], mut notices: Vec<Notice>) -> Result<Loaded, Fatal> {
    let entries = properties::parse(bytes).map_err(|malformed| Fatal::Config {
        file: sources.file.clone().unwrap_or_default(),
        line: malformed.line,
        problem: malformed.problem,
    })?;
    let gathered = gather::gather(sources, &entries, &mut notices);
    let reader = read::Reader { gathered: &gathered, sources, notices: &mut notices };
    let mut config = reader.config()?;
    if let Some(positional) = &sources.positional {
        positional.apply(&mut config)?;
    }
    if notices.len() > NOTICES_MAX {
        let more = notices.len() - NOTICES_MAX;
        notices.truncate(NOTICES_MAX);
        notices.push(Notice::new(Level::Warn, format!("and {more} more of these")));
    }
    Ok(Loaded { config, notices })
}

impl Positional {
    fn apply(&self, config: &mut Config) -> Result<(), Fatal> {
        config.client_port = self.client_port;
        config.data_dir = self.data_dir.clone();
        config.data_log_dir = self.data_dir.clone();
        if let Some(tick) = self.tick_time_ms {
            if tick == 0 {
                return Err(Fatal::Usage { problem: "tickTime is 0".into() });
            }
            config.tick_time_ms = tick;
            config.min_session_timeout_ms = tick.saturating_mul(2).min(i32::MAX as u32);
            config.max_session_timeout_ms = tick.saturating_mul(20).min(i32::MAX as u32);
        }
        if let Some(limit) = self.max_client_cnxns {
            config.max_client_cnxns = limit;
        }
        Ok(())
    }
}

/// All bytes of a file of the configuration, `myid` among them. Links are followed, as Java does.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Fatal> {
    let problem = |problem: String| Fatal::Config { file: path.to_owned(), line: 0, problem };
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => problem("file is missing".into()),
        _ => problem(format!("cannot be read: {error}")),
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file that grows, or has no length, is noticed as well.
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(problem(format!("larger than {FILE_BYTES_MAX} bytes; this is not a configuration file")));
    }
    Ok(bytes)
}
