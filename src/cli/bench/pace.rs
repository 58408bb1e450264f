//! Wakes a poll at a time that is exact to microseconds.
//!
//! A poll's own timeout is in milliseconds, rounded up. In an open loop that would add up to a millisecond of the
//! generator's own to every latency; and spinning would take the core that the server needs.
//!
//! Runs on: the thread whose poll it is registered with.

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::time::Duration;

/// Waits for events. A signal (of a command beside the load that ends, for one) is no error, and the end of this wait.
pub fn wait(poll: &mut Poll, events: &mut Events, wait: Duration) -> io::Result<()> {
    match poll.poll(events, Some(wait)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        other => other,
    }
}

/// A kernel timer that goes off once each time that it is set.
pub struct Timer(OwnedFd);

impl Timer {
    /// Registers it with `poll` under `token`.
    pub fn new(poll: &Poll, token: Token) -> io::Result<Timer> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Timer(timer))
    }

    /// Sets it to go off after `wait`, in the place of an earlier time. Setting it also takes back that it went off.
    pub fn set(&mut self, wait: Duration) -> io::Result<()> {
        // 0 would switch it off.
        let nanos = wait.as_nanos().max(1);
        let value = Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as _ };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use rustix::time::timerfd_gettime;

    #[test]
    fn it_goes_off_once_each_time_and_is_not_rounded_up() {
        let mut poll = Poll::new().unwrap();
        let mut events = mio::Events::with_capacity(4);
        let mut timer = Timer::new(&poll, Token(7)).unwrap();
        for _ in 0..20 {
            let begin = clock::now();
            timer.set(Duration::from_micros(100)).unwrap();
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [Token(7)]);
            let took = clock::now().since(begin);
            assert!(took >= Duration::from_micros(100), "{took:?}");
        }
        let wait = Duration::from_micros(3_600_000_100);
        timer.set(wait).unwrap();
        let left = Duration::try_from(timerfd_gettime(&timer.0).unwrap().it_value).unwrap();
        assert!(left <= wait, "{left:?}");
    }
}
