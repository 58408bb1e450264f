//! The commands: arguments in, a command's end out as an exit status.
//!
//! What stops a command is a `Fatal`: three lines on standard error (what happened, what to do, where to read on) and
//! its own exit status. A server that a signal has stopped ends with 143, as a JVM does, so that unit files written for
//! ZooKeeper stay quiet.
//!
//! Runs on: the main thread.

pub mod bench;
pub mod export;
pub mod import;
pub mod inspect;
pub mod log;
mod output;
mod progress;
pub mod server_args;
pub mod shell;

use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::server::boot;
use clap::Parser;
use std::process::ExitCode;

/// A coordination service that takes Apache ZooKeeper's place, without a JVM.
#[derive(Parser)]
#[command(name = "ostler", version, after_help = EXAMPLES, max_term_width = 120)]
enum Command {
    Server(server_args::ServerArgs),
    Shell(shell::ShellArgs),
    Bench(Box<bench::BenchArgs>),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Inspect(inspect::InspectArgs),
    Log(log::LogArgs),
    /// Print the version, and that of the ZooKeeper whose place it takes
    Version,
}

const EXAMPLES: &str = "\
Examples:
  ostler server
      a server on port 2181, its data in ./ostler-data
  ostler server /etc/zookeeper/conf/zoo.cfg
      in the place of a ZooKeeper server, with its file
  ostler shell -server localhost:2181 ls /
      one command of ZooKeeper's shell; without a command, a prompt
  ostler import --check /etc/zookeeper/conf/zoo.cfg
      whether the data of a stopped ZooKeeper server can be taken over
  ostler export --to /srv/zookeeper zoo.cfg
      a data directory that ZooKeeper starts from
  ostler inspect ostler-data
      what a data directory holds, ostler's or ZooKeeper's
  ostler log ostler-data/version-2
      what the log of a stopped server holds

`ostler help COMMAND` tells more about each.";

/// The exit status of a process that SIGTERM has ended, by the shell's convention and the JVM's.
const TERMINATED: u8 = 143;

pub fn run() -> ExitCode {
    match Command::parse() {
        Command::Server(args) => {
            start_log();
            let served = args.load().and_then(|loaded| boot::run(loaded.config, loaded.notices));
            finish(served.map(|()| TERMINATED))
        }
        Command::Shell(args) => finish(shell::run(&args)),
        Command::Bench(args) => finish(bench::run(&args).map(|()| 0)),
        Command::Version => {
            let (own, zookeeper) = (env!("CARGO_PKG_VERSION"), crate::admin::VERSION);
            finish(output::say!("ostler {own} (ZooKeeper {zookeeper})").map(|()| 0))
        }
        Command::Import(args) => finish(import::run(&args).map(|()| 0)),
        Command::Export(args) => finish(export::run(&args).map(|()| 0)),
        Command::Inspect(args) => finish(inspect::run(&args)),
        Command::Log(args) => finish(log::run(&args).map(|()| 0)),
    }
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OSTLER_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr).init();
}

fn finish(result: Result<u8, Fatal>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(status),
        Err(fatal) => {
            eprintln!("ostler: {fatal}\n{}\nThe log above and docs/operations.md tell more.", fatal.advice());
            ExitCode::from(fatal.exit_status())
        }
    }
}

/// A zxid as an argument: hexadecimal with 0x, or decimal.
fn zxid(text: &str) -> Result<Zxid, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map(Zxid).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxids_are_read_as_they_are_printed() {
        assert_eq!(zxid("0x10000000a"), Ok(Zxid(0x1_0000_000a)));
        assert_eq!(zxid("17"), Ok(Zxid(17)));
        assert!(zxid("0x").is_err() && zxid("-1").is_err());
    }
}
