//! Standard output of the commands.
//!
//! A reader that has seen enough (`| head`) is no error: what a command does beside printing goes on, and its exit status
//! tells of that. What can't be written for another reason is one, like that of any file.
//!
//! Runs on: the command's thread.

use crate::fatal::Fatal;
use std::fmt;
use std::io::{self, Write};

/// Prints a line as `println!` does, and gives `Result<(), Fatal>`.
macro_rules! say {
    ($($word:tt)*) => { $crate::cli::output::print(format_args!("{}\n", format_args!($($word)*))) };
}
pub(crate) use say;

/// Prints text. Errors: as `written`.
pub fn print(text: fmt::Arguments<'_>) -> Result<(), Fatal> {
    let mut out = io::stdout().lock();
    written(out.write_fmt(text).and_then(|()| out.flush()))
}

/// What has come of writing to standard output. Errors: `Fatal::Io`, but for a reader that has gone away.
pub fn written(result: io::Result<()>) -> Result<(), Fatal> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fatal::Io { file: "standard output".into(), source })
        }
        _ => Ok(()),
    }
}
