//! The commands: arguments in, a command's end out as an exit status.
//!
//! What stops a command is a `Fatal`: three lines on standard error (what happened, what to do, where to read on) and
//! its own exit status. A server that a signal has stopped ends with 143, as a JVM does, so that unit files written for
//! ZooKeeper stay quiet.

pub mod bench;
pub mod server_args;

use crate::fatal::Fatal;
use crate::server::boot;
use clap::Parser;
use std::process::ExitCode;

/// A coordination service that takes Apache ZooKeeper's place.
#[derive(Parser)]
#[command(name = "ostler", version)]
enum Command {
    Server(server_args::ServerArgs),
    Bench(bench::BenchArgs),
}

/// The exit status of a process that SIGTERM has ended, by the shell's convention and the JVM's.
const TERMINATED: u8 = 143;

pub fn run() -> ExitCode {
    match Command::parse() {
        Command::Server(args) => {
            start_log();
            let served = args.load().and_then(|loaded| boot::run(loaded.config, loaded.notices));
            finish(served, TERMINATED)
        }
        Command::Bench(args) => finish(bench::run(&args), 0),
    }
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OSTLER_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr).init();
}

fn finish(result: Result<(), Fatal>, status: u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::from(status),
        Err(fatal) => {
            eprintln!("ostler: {fatal}\n{}\nThe log above and docs/operations.md tell more.", fatal.advice());
            ExitCode::from(fatal.exit_status())
        }
    }
}
