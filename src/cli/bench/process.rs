//! What the kernel says of processes: CPU time, memory, wake-ups; all threads counted.

use std::fs;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

/// CPU time in nanoseconds that these processes have used, with all their threads, those that have ended too; `None`
/// without a process or if one can't be asked. Of a thread that is running the kernel has the time as of its last tick,
/// some milliseconds ago; of one that waits it is exact.
pub fn cpu_nanos(pids: &[u32]) -> Option<u64> {
    let mut total = 0;
    for &pid in pids {
        // Ids end there (proc(5), pid_max), and a clock's number has no room for much more.
        if !(1..=1 << 22).contains(&pid) {
            return None;
        }
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
        total += Duration::from(clock.now().ok()?).as_nanos() as u64;
    }
    (!pids.is_empty()).then_some(total)
}

/// The CPU time since `cpu_nanos` was `from`; `None` if either can't be told.
pub fn cpu_since(pids: &[u32], from: Option<u64>) -> Option<u64> {
    // Less: an id has been given to another process.
    cpu_nanos(pids)?.checked_sub(from?)
}

/// The same when all that was asked has been answered: after a moment in which the processes' threads come to rest, so that
/// their time is exact. What was measured may have been shorter than a tick.
pub fn cpu_at_rest_since(pids: &[u32], from: Option<u64>) -> Option<u64> {
    if !pids.is_empty() {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    cpu_since(pids, from)
}

/// Nanoseconds in which the calling thread ran, or would have if it had been given a core. 0 where the kernel keeps no
/// such account.
pub fn own_busy_nanos() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// The processes' anonymous resident bytes: heaps and stacks, without mapped files.
pub fn anonymous_bytes(pids: &[u32]) -> Option<u64> {
    status_sum(pids, "RssAnon:")
}

/// The processes' resident bytes of mapped files (programs, libraries, a mapped log).
pub fn mapped_bytes(pids: &[u32]) -> Option<u64> {
    status_sum(pids, "RssFile:")
}

/// A line of `status` that is given in kB, summed; in bytes.
fn status_sum(pids: &[u32], name: &str) -> Option<u64> {
    if pids.is_empty() {
        return None;
    }
    let mut total = 0;
    for pid in pids {
        total += 1024 * number(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, name)?;
    }
    Some(total)
}

fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How often threads of the processes, of those that live, have been put on a core after they had waited.
pub fn wakeups(pids: &[u32]) -> Option<u64> {
    let mut total = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
            let Ok(text) = fs::read_to_string(task.ok()?.path().join("status")) else { continue };
            total += number(&text, "voluntary_ctxt_switches:")?;
        }
    }
    (!pids.is_empty()).then_some(total)
}

/// Bytes that live objects take in the Java processes among these; it costs each a full collection. `None` without one,
/// or without `jcmd`.
pub fn live_heap_bytes(pids: &[u32]) -> Option<u64> {
    let java =
        pids.iter().filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "java\n"));
    let mut total = None;
    for pid in java {
        let mut command = std::process::Command::new("jcmd");
        let output = command.args([&pid.to_string(), "GC.class_histogram"]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        // The last line: `Total  <objects>  <bytes>`.
        let line = text.lines().rev().find(|line| line.starts_with("Total"))?;
        *total.get_or_insert(0) += line.split_whitespace().nth(2)?.parse::<u64>().ok()?;
    }
    total
}

/// What processes hold at one time.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    pub anonymous: Option<u64>,
    pub mapped: Option<u64>,
    /// Of Java processes alone.
    pub live_heap: Option<u64>,
}

impl Memory {
    /// Costs a Java process a full collection.
    pub fn of(pids: &[u32]) -> Memory {
        // First, so that the resident bytes are those after the collection.
        let live_heap = live_heap_bytes(pids);
        Memory { anonymous: anonymous_bytes(pids), mapped: mapped_bytes(pids), live_heap }
    }

    /// Bytes more than `before` for each of `count` things: resident anonymous ones, and of the live heap.
    pub fn each(self, before: Memory, count: u64) -> (Option<f64>, Option<f64>) {
        let each =
            |after: Option<u64>, before: Option<u64>| Some((after? as f64 - before? as f64) / count.max(1) as f64);
        (each(self.anonymous, before.anonymous), each(self.live_heap, before.live_heap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let own = [std::process::id()];
        let before = cpu_nanos(&own);
        assert!(before.is_some_and(|nanos| nanos > 0));
        let begin = crate::clock::now();
        while cpu_since(&own, before) <= Some(0) {
            assert!(crate::clock::now().since(begin) < Duration::from_secs(20), "its clock moves while it runs");
        }
        assert_eq!((cpu_since(&own, None), cpu_since(&own, Some(u64::MAX))), (None, None));
        assert!(anonymous_bytes(&own).is_some_and(|bytes| bytes > 4096));
        assert!(mapped_bytes(&own).is_some_and(|bytes| bytes > 4096));
        assert!(wakeups(&own).is_some());
        assert_eq!((anonymous_bytes(&[]), wakeups(&[]), live_heap_bytes(&own)), (None, None, None));
        assert_eq!((cpu_nanos(&[u32::MAX]), cpu_nanos(&[i32::MAX as u32])), (None, None));
    }
}
