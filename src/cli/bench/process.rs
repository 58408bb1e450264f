//! What the kernel says of processes: CPU time, and how busy a thread is. From its files, all threads that live counted.

use std::fs;

/// CPU time in nanoseconds that these processes have used; `None` if one can't be read.
pub fn cpu_nanos(pids: &[u32]) -> Option<u64> {
    let mut total = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
            let path = task.ok()?.path().join("schedstat");
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(path) else { continue };
            total += text.split_whitespace().next()?.parse::<u64>().ok()?;
        }
    }
    Some(total)
}

/// Nanoseconds in which the calling thread ran, or would have if it had been given a core. 0 where the kernel keeps no
/// such account.
pub fn own_busy_nanos() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Raises the limit of open files to what the system allows; the limit then.
pub fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused: it stays as it was, and a connection too many will say so.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let own = [std::process::id()];
        assert!(cpu_nanos(&own).is_some_and(|nanos| nanos > 0));
        assert_eq!(cpu_nanos(&[u32::MAX]), None);
    }
}
