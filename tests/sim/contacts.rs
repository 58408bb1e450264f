//! When a leader last heard of each session (checker E): none ends before its timeout is over, and none lives on long after.
//!
//! Beside the server's own table and its buckets, and by the leader's own clock, which is the one that counts.

use crate::server::{Ctx, Server};
use ostler::clock::Now;
use ostler::ids::SessionId;
use ostler::session::SessionState;
use std::collections::BTreeMap;
use std::time::Duration;

/// A process that has not looked at its clock for so long stood still, and could hear nobody.
const STOOD_STILL: Duration = Duration::from_millis(200);

#[derive(Default)]
pub struct Contacts {
    heard: BTreeMap<SessionId, Now>,
    /// Since when it leads, or runs again: every session has its whole time from then on.
    began: Now,
    running_since: Now,
    looked: Now,
}

impl Contacts {
    pub fn begin(&mut self, now: Now) {
        *self = Contacts { heard: BTreeMap::new(), began: now, running_since: now, looked: now };
    }

    pub fn heard(&mut self, sessions: &[SessionId], now: Now) {
        self.heard.extend(sessions.iter().map(|&session| (session, now)));
    }

    fn since(&self, session: SessionId) -> Now {
        self.heard.get(&session).copied().unwrap_or(self.began).max(self.began)
    }
}

impl Server {
    /// These have just been found expired, and are to be ended.
    pub fn judge_expiry(&mut self, expired: &[SessionId], ctx: &Ctx<'_>) {
        let (me, now) = (self.me.0, ctx.now);
        if now.since(self.contacts.looked) > STOOD_STILL {
            self.contacts.running_since = now;
        }
        self.contacts.looked = now;
        let timeout = |session: SessionId| {
            Duration::from_millis(self.sessions.timeout_ms(session).expect("it is in the table") as u64)
        };
        for &session in expired {
            let silent = now.since(self.contacts.since(session));
            assert!(silent >= timeout(session), "checker E: {session} ends on {me} after {silent:?}");
        }
        let late = Duration::from_millis(2 * ctx.knobs.timing.tick_ms + 100);
        for (session, _) in self.sessions.timeouts() {
            let silent = now.since(self.contacts.since(session).max(self.contacts.running_since));
            let lives = self.sessions.state(session) == SessionState::Live;
            assert!(!lives || silent <= timeout(session) + late, "checker E: {session} lives on {me} after {silent:?}");
        }
    }
}
