//! The limit of open files, which tests with many connections need raised.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises it to the system's limit, for this process and those that it starts; `false`, which is told, where `count` are not
/// to be had.
pub fn allows(count: usize) -> bool {
    let mut files = getrlimit(Resource::Nofile);
    if files.maximum.is_some_and(|maximum| maximum < count as u64) {
        eprintln!("skipped: {count} open files are not allowed here");
        return false;
    }
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).expect("up to the hard limit");
    true
}
