//! How many files the process may have open: sockets of clients are files, too, and so are the log's next segment, snapshots
//! and connections to other servers, which must not lack one because there are many clients.

use rustix::process::{Resource, getrlimit, setrlimit};

/// So many are not for clients, or a quarter of all where that is less.
const KEPT_BACK: u64 = 64;

/// Raises the limit to what the system allows, as a JVM does; the limit then.
pub fn raise_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused: it stays as it was, and a connection too many will say so.
    let _ = setrlimit(Resource::Nofile, limit);
    limit_now()
}

fn limit_now() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A client's socket with this number or a higher one is one too many: numbers are given out from the lowest free one on.
pub fn end_of_clients() -> u64 {
    kept_back_from(limit_now())
}

fn kept_back_from(limit: u64) -> u64 {
    limit - KEPT_BACK.min(limit / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_kept_back_and_never_all() {
        assert_eq!(kept_back_from(u64::MAX), u64::MAX - KEPT_BACK);
        assert_eq!(kept_back_from(1024), 960);
        assert_eq!(kept_back_from(40), 30);
        assert_eq!(kept_back_from(0), 0);
    }
}
