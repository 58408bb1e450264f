//! Wakes a poll at a time, without a timeout for each of its sleeps.
//!
//! A loop that sleeps with a timeout has the kernel set a timer before and take it away after each sleep, twenty thousand
//! times a second for one client that asks one thing at a time, though nothing is due for seconds. Here one timer stands
//! beside the poll and is left alone as long as it rings early enough. A deadline that has been put off meanwhile costs one
//! wake-up for nothing, at which the timer is set anew.
//!
//! Runs on: the thread of the poll that it was made for.

use crate::clock::Now;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

pub struct Alarm {
    timer: OwnedFd,
    rings_at: Option<Now>,
}

impl Alarm {
    /// Its ringing is an event of `token`, which says nothing but that it may be time.
    pub fn new(poll: &Poll, token: Token) -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        // Told once for each ringing, so nothing has to be read from it.
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Alarm { timer, rings_at: None })
    }

    /// Rings at `at` or before, and again later if it is asked then. Call before each sleep that may last. `woken`: a moment
    /// since the last sleep; what has rung after it is an event of the next.
    pub fn ring_by(&mut self, at: Now, woken: Now, now: impl FnOnce() -> Now) -> io::Result<()> {
        if self.rings_at.is_some_and(|rings_at| woken < rings_at && rings_at <= at) {
            return Ok(());
        }
        let wait = at.since(now());
        // A wait of nothing would turn it off.
        let nanos = if wait.is_zero() { 1 } else { wait.subsec_nanos().into() };
        let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: nanos };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        self.rings_at = Some(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use mio::Events;
    use std::time::Duration;

    /// The bound is for a machine that stands still; an alarm that does not ring is noticed by it.
    fn rings(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        events.iter().any(|event| event.token() == Token(7))
    }

    #[test]
    fn an_alarm_rings_each_time_it_was_set_and_never_before_its_time() {
        let mut poll = Poll::new().unwrap();
        let mut alarm = Alarm::new(&poll, Token(7)).unwrap();
        for wait_ms in [0, 2, 5] {
            let at = clock::now().plus_ms(wait_ms);
            alarm.ring_by(at, clock::now(), clock::now).unwrap();
            assert!(rings(&mut poll));
            assert!(clock::now() >= at);
        }
    }

    #[test]
    fn an_earlier_time_is_set_anew_and_a_later_one_when_the_first_is_over() {
        let mut poll = Poll::new().unwrap();
        let mut alarm = Alarm::new(&poll, Token(7)).unwrap();
        let now = clock::now();
        alarm.ring_by(now.plus_ms(3_600_000), now, || now).unwrap();
        alarm.ring_by(now.plus_ms(1), now, || now).unwrap();
        alarm.ring_by(now.plus_ms(7_200_000), now, || now).unwrap();
        assert!(rings(&mut poll), "the earlier one stands");
        let now = clock::now();
        alarm.ring_by(now.plus_ms(1), now, || now).unwrap();
        assert!(rings(&mut poll));
    }
}
