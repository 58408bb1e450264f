//! What a person sees while a measurement runs: a bar with live figures; and commands that are run meanwhile.
//!
//! The bar is on standard error, and only if that is a terminal; standard output has the results alone.
//!
//! Runs on: the main thread.

use indicatif::{ProgressBar, ProgressStyle};
use std::process::{Command, Stdio};

/// A bar of `length` steps (requests, or milliseconds), with the target's name before and a message behind it.
pub fn bar(name: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{prefix:>16} [{bar:40}] {percent:>3} % {msg}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_prefix(name.to_string());
    bar.set_message("begins");
    bar
}

/// Runs a command of the user's by the shell, beside the load; what it says goes to standard error. It is not waited for: it
/// may start a server that has to go on. `{name}` in it becomes the target's name.
pub fn run(bar: &ProgressBar, command: &str, name: &str) {
    let command = &command.replace("{name}", name);
    bar.println(format!("now: {command}"));
    let started = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    if let Err(error) = started {
        bar.println(format!("{command}: {error}"));
    }
}
