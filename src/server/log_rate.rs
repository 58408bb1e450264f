//! Bounds what a thread writes to the log about connections: a flood of bad ones must not become a flood of lines, nor
//! fill the disk that the data is on. Runs on: the thread that owns it.

use crate::clock::Now;

/// Lines that a thread may write about connections in one second.
const LINES_PER_SECOND: u32 = 20;

#[derive(Default)]
pub struct LogRate {
    /// Seconds since the start, of the second that `lines` counts.
    second: u64,
    lines: u32,
    hidden: u64,
}

impl LogRate {
    /// Whether a line may be written now. What is hidden is told in the first second that has room again.
    pub fn allows(&mut self, now: Now) -> bool {
        let second = now.millis() / 1_000;
        if second != self.second {
            (self.second, self.lines) = (second, 0);
            let hidden = std::mem::take(&mut self.hidden);
            if hidden > 0 {
                tracing::warn!("{hidden} more lines about connections were left out");
            }
        }
        let allowed = self.lines < LINES_PER_SECOND;
        self.lines += u32::from(allowed);
        self.hidden += u64::from(!allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_second_has_room_again() {
        let mut rate = LogRate::default();
        let allowed = |rate: &mut LogRate, ms: u64| (0..100).filter(|_| rate.allows(Now::START.plus_ms(ms))).count();
        assert_eq!(allowed(&mut rate, 500), 20);
        assert_eq!(allowed(&mut rate, 999), 0);
        assert_eq!(rate.hidden, 180);
        assert_eq!(allowed(&mut rate, 1_000), 20);
    }
}
