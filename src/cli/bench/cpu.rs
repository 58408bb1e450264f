//! CPU time of processes, from the kernel's scheduler statistics: nanoseconds, all threads that live.

use std::fs;

/// CPU time in nanoseconds that these processes have used; `None` if one can't be read.
pub fn nanos(pids: &[u32]) -> Option<u64> {
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

/// CPU time of this process itself.
pub fn own_nanos() -> u64 {
    nanos(&[std::process::id()]).unwrap_or(0)
}
