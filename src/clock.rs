//! The only reader of clocks. Everyone else is given `Now` (monotonic) or a wall time as an argument, so that the
//! simulator can hand in its own and a jump of the wall clock can't expire anything.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the process (or the simulation) began. Monotonic. Nothing compares it across machines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Now(pub u64);

impl Now {
    pub const START: Now = Now(0);

    /// The end of a wait. One that is too long for this clock (585 years) never ends.
    pub fn plus(self, wait: Duration) -> Now {
        Now(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    pub fn plus_ms(self, ms: u64) -> Now {
        Now(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// How long from `earlier` until `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub fn millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// Monotonic time since the first call.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    Now(start.elapsed().as_nanos() as u64)
}

/// The moment of a wall time since 1970 that was taken a little while ago, as a kernel stamps what arrives. A step of the
/// wall clock in between moves it by as much.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn of_wall(at: Duration) -> Now {
    let ago = SystemTime::now().duration_since(UNIX_EPOCH + at).unwrap_or_default();
    Now(now().0.saturating_sub(ago.as_nanos() as u64))
}

/// Wall time in milliseconds since 1970, as it goes into transactions. May jump; nothing waits by it.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_has_no_end_here_ends_never_and_not_at_once() {
        let now = Now(5);
        assert_eq!(now.plus(Duration::from_millis(1)), Now(1_000_005));
        // 2^64 nanoseconds are 585 years; tickTime and a limit of ticks can be multiplied to more.
        let longest = Duration::from_nanos(u64::MAX) + Duration::from_nanos(1);
        for wait in [longest, longest * 3, Duration::MAX, Duration::from_millis(u64::MAX)] {
            assert_eq!(now.plus(wait), Now(u64::MAX), "{wait:?}");
        }
        assert_eq!(now.plus_ms(u64::MAX), Now(u64::MAX));
    }
}
