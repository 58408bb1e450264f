//! Which sessions live, for how long, and who holds them (upstream: `SessionTrackerImpl`, `ExpiryQueue`).
//!
//! A session expires at a multiple of the tick: `((now + timeout) / tick + 1) * tick`, never early and at most one tick
//! late. Sessions are filed under that time, lazily: a touch only notes the new time, and a session whose time comes is
//! filed anew if it has been touched since. So a touch costs one look-up, and nothing is moved.
//!
//! Only time in which the server was able to hear counts: the table has its own clock, which moves with `Now` but by no
//! more than a tick between two looks at it. A server that was paused or starved gives its clients that time back.
//! Whoever runs the table therefore looks at it twice a tick (`wake_at`).
//!
//! Left to others: connections (an owner is a number that means something to the caller), transactions, and the order of
//! a reconnect (close the old connection, compare the password, then `reopen`). Runs on the pipeline's thread.

mod ids;
pub mod owed;

pub use ids::{SessionIds, password, password_is};

use crate::clock::Now;
use crate::ids::SessionId;
use crate::random::FastMap;
use std::collections::BTreeMap;

/// Clamps a requested timeout (milliseconds) into the configured range.
pub fn negotiate(requested_ms: i32, min_ms: i32, max_ms: i32) -> i32 {
    // Not `clamp`, which panics if the configuration has the bounds the wrong way round; the maximum is ZooKeeper's last word.
    requested_ms.max(min_ms).min(max_ms)
}

/// Whether a write of a session may become a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    Live,
    /// Its closeSession is on the way.
    Closing,
    Unknown,
}

/// The connection that holds a session; the number is the caller's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnerHandle(pub u64);

#[derive(Clone, Copy, Debug)]
struct Session {
    /// As createSession has it: replicated, in snapshots, unchanged by reconnects.
    timeout_ms: i32,
    /// As the last handshake gave it: what a touch adds.
    negotiated_ms: i32,
    owner: Option<u64>,
    /// When it expires, in ticks of the table's clock.
    expires: u64,
    /// Under which tick it is filed: `expires` or earlier. `NOT_FILED` while closing.
    filed: u64,
}

const NOT_FILED: u64 = u64::MAX;

/// So many entries of the buckets may stand for nothing, however few sessions there are.
const STALE_ENTRIES: usize = 1_000;

impl Session {
    fn closing(&self) -> bool {
        self.filed == NOT_FILED
    }
}

// One such entry and its key, in a table that is half full after growing, and 8 bytes where it is filed.
const _: () = assert!(2 * (size_of::<(SessionId, Session)>() + 1) + 8 <= 122);

/// One bucket of sessions that expire together, for the `dump` command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpiryBucket {
    /// Milliseconds from now; negative if it is overdue.
    pub in_ms: i64,
    /// Ascending.
    pub sessions: Vec<SessionId>,
}

/// All sessions of the ensemble (or of a standalone server).
pub struct SessionTable {
    tick_ms: u64,
    news_ms: u64,
    sessions: FastMap<SessionId, Session>,
    /// By tick: sessions to look at when it comes. Those that were removed or filed elsewhere are passed over.
    buckets: BTreeMap<u64, Vec<SessionId>>,
    /// Entries in all buckets.
    entries: usize,
    /// Time that counted, in milliseconds, and when that was last looked at.
    heard_ms: u64,
    looked: Now,
}

impl SessionTable {
    /// `news_ms` is how long the news that a session was heard from may take to get here: it is added to every timeout,
    /// so that no session ends while its sign of life is under way.
    pub fn new(tick_ms: u32, news_ms: u64, now: Now) -> SessionTable {
        assert!(tick_ms > 0, "the configuration has a tick");
        SessionTable {
            tick_ms: tick_ms as u64,
            news_ms,
            sessions: FastMap::default(),
            buckets: BTreeMap::new(),
            entries: 0,
            heard_ms: now.millis(),
            looked: now,
        }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// A session begins (or is read from a snapshot): a full timeout from now. Nothing happens if it is there already.
    pub fn add(&mut self, id: SessionId, timeout_ms: i32, owner: Option<OwnerHandle>, now: Now) {
        assert!(id != SessionId::NONE, "0 is never a session");
        self.advance(now);
        if self.sessions.contains_key(&id) {
            return;
        }
        let expires = self.expiry_tick(timeout_ms);
        let owner = owner.map(|it| it.0);
        let session = Session { timeout_ms, negotiated_ms: timeout_ms, owner, expires, filed: expires };
        self.sessions.insert(id, session);
        self.file(id, expires);
    }

    /// A session's closeSession was applied. Returns who held it; `None` if nobody did.
    pub fn remove(&mut self, id: SessionId) -> Option<OwnerHandle> {
        self.sessions.remove(&id)?.owner.map(OwnerHandle)
    }

    pub fn state(&self, id: SessionId) -> SessionState {
        match self.sessions.get(&id) {
            None => SessionState::Unknown,
            Some(session) if session.closing() => SessionState::Closing,
            Some(_) => SessionState::Live,
        }
    }

    pub fn owner(&self, id: SessionId) -> Option<OwnerHandle> {
        self.sessions.get(&id)?.owner.map(OwnerHandle)
    }

    /// The timeout that createSession gave, in milliseconds.
    pub fn timeout_ms(&self, id: SessionId) -> Option<i32> {
        self.sessions.get(&id).map(|session| session.timeout_ms)
    }

    /// What the last handshake gave it, in milliseconds, as far as this server knows.
    pub fn negotiated_ms(&self, id: SessionId) -> Option<i32> {
        self.sessions.get(&id).map(|session| session.negotiated_ms)
    }

    /// Another server says that the session was heard from, and what its timeout is there. `owner` stands for that server: if
    /// the client is elsewhere by now, it has another timeout from there.
    pub fn touch_elsewhere(&mut self, id: SessionId, negotiated_ms: i32, owner: OwnerHandle, now: Now) {
        if let Some(session) = self.sessions.get_mut(&id)
            && negotiated_ms > 0
            && session.owner.is_none_or(|held| held == owner.0)
        {
            session.negotiated_ms = negotiated_ms;
        }
        self.touch(&[id], now);
    }

    /// A client is back, with the right password, on connection `owner`. `false` if the session is over or about to be.
    pub fn reopen(&mut self, id: SessionId, negotiated_ms: i32, owner: OwnerHandle, now: Now) -> bool {
        match self.sessions.get_mut(&id) {
            Some(session) if !session.closing() => {
                session.owner = Some(owner.0);
                session.negotiated_ms = negotiated_ms;
            }
            _ => return false,
        }
        self.touch(&[id], now);
        true
    }

    /// This one holds the session from now on, if it lives.
    pub fn own(&mut self, id: SessionId, owner: OwnerHandle) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.owner = Some(owner.0);
        }
    }

    /// A connection is gone. The session lives on, without an owner, unless another connection has it by now.
    pub fn disown(&mut self, id: SessionId, owner: OwnerHandle) {
        if let Some(session) = self.sessions.get_mut(&id)
            && session.owner == Some(owner.0)
        {
            session.owner = None;
        }
    }

    /// These were heard from. Unknown and closing ones are passed over.
    pub fn touch(&mut self, ids: &[SessionId], now: Now) {
        self.advance(now);
        for id in ids {
            let Some(&Session { negotiated_ms, .. }) = self.sessions.get(id) else { continue };
            let expires = self.expiry_tick(negotiated_ms);
            let session = self.sessions.get_mut(id).expect("it was there a line ago");
            if session.closing() {
                continue;
            }
            session.expires = expires;
            if expires < session.filed {
                session.filed = expires;
                self.file(*id, expires);
            }
        }
    }

    /// From here on the session can't be touched, reopened or write. `false` if it was closing already, or is unknown.
    pub fn set_closing(&mut self, id: SessionId) -> bool {
        match self.sessions.get_mut(&id) {
            Some(session) if !session.closing() => {
                session.filed = NOT_FILED;
                true
            }
            _ => false,
        }
    }

    /// The sessions whose time is over, ascending. They are closing now: the caller owes each a closeSession.
    pub fn expired(&mut self, now: Now) -> Vec<SessionId> {
        self.advance(now);
        let current = self.heard_ms / self.tick_ms;
        let mut over = Vec::new();
        while let Some(bucket) = self.buckets.first_entry()
            && *bucket.key() <= current
        {
            let (tick, ids) = bucket.remove_entry();
            self.entries -= ids.len();
            for id in ids {
                let Some(session) = self.sessions.get_mut(&id).filter(|session| session.filed == tick) else {
                    continue;
                };
                if session.expires > current {
                    session.filed = session.expires;
                    let expires = session.expires;
                    self.file(id, expires);
                } else {
                    session.filed = NOT_FILED;
                    over.push(id);
                }
            }
        }
        over.sort_unstable();
        over
    }

    /// A new leader, or a server that has just started: every session that isn't closing has its full timeout from now.
    pub fn restart_clocks(&mut self, now: Now) {
        self.looked = self.looked.max(now);
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        self.touch(&all, now);
    }

    /// This server's part in the ensemble has changed: nobody holds a session yet but those who keep theirs, what was only
    /// on its way to being closed is not, and every session has its full timeout from now.
    pub fn begin_anew_but(&mut self, keeps: impl Fn(OwnerHandle) -> bool, now: Now) {
        for session in self.sessions.values_mut() {
            session.owner = session.owner.filter(|&owner| keeps(OwnerHandle(owner)));
            // Under no bucket that there is: `restart_clocks` files it anew.
            session.filed = NOT_FILED - 1;
        }
        self.empty_buckets();
        self.restart_clocks(now);
    }

    /// Forgets all of them: the state that they belong to has been replaced.
    pub fn clear(&mut self) {
        self.sessions.clear();
        self.empty_buckets();
    }

    /// When to look again (`expired`): at the next bucket, and in half a tick at the latest.
    pub fn wake_at(&self, now: Now) -> Now {
        let half = now.plus_ms((self.tick_ms / 2).max(1));
        match self.buckets.first_key_value() {
            Some((tick, _)) => {
                half.min(self.looked.plus_ms((tick * self.tick_ms).saturating_sub(self.heard_ms))).max(now)
            }
            None => half,
        }
    }

    /// Sessions that somebody holds, in no order.
    pub fn owned(&self) -> impl Iterator<Item = (SessionId, OwnerHandle)> {
        self.sessions.iter().filter_map(|(&id, session)| Some((id, OwnerHandle(session.owner?))))
    }

    /// All sessions with the timeout they were created with, ascending by id: for snapshots and `dump` on a learner.
    pub fn timeouts(&self) -> Vec<(SessionId, i32)> {
        let mut list: Vec<_> = self.sessions.iter().map(|(id, session)| (*id, session.timeout_ms)).collect();
        list.sort_unstable();
        list
    }

    /// When which sessions expire, soonest first.
    pub fn dump(&self) -> Vec<ExpiryBucket> {
        let mut by_tick: BTreeMap<u64, Vec<SessionId>> = BTreeMap::new();
        for (id, session) in self.sessions.iter().filter(|(_, session)| !session.closing()) {
            by_tick.entry(session.expires).or_default().push(*id);
        }
        let buckets = by_tick.into_iter().map(|(tick, mut sessions)| {
            sessions.sort_unstable();
            ExpiryBucket { in_ms: (tick * self.tick_ms) as i64 - self.heard_ms as i64, sessions }
        });
        buckets.collect()
    }

    /// Into a bucket. Only `expired` takes out of them, and only a leader asks it; so when most entries are of sessions that
    /// are gone or are filed elsewhere too, all are filed anew. That comes after as many others, and costs each little.
    fn file(&mut self, id: SessionId, tick: u64) {
        self.buckets.entry(tick).or_default().push(id);
        self.entries += 1;
        if self.entries <= 2 * self.sessions.len() + STALE_ENTRIES {
            return;
        }
        self.empty_buckets();
        for (&id, session) in self.sessions.iter_mut().filter(|(_, session)| !session.closing()) {
            session.filed = session.expires;
            self.buckets.entry(session.expires).or_default().push(id);
            self.entries += 1;
        }
    }

    fn empty_buckets(&mut self) {
        self.buckets.clear();
        self.entries = 0;
    }

    fn expiry_tick(&self, timeout_ms: i32) -> u64 {
        (self.heard_ms + timeout_ms.max(0) as u64 + self.news_ms) / self.tick_ms + 1
    }

    /// Counts the time since the last look, up to one tick of it.
    fn advance(&mut self, now: Now) {
        let since_ms = now.millis().saturating_sub(self.looked.millis());
        self.heard_ms += since_ms.min(self.tick_ms);
        self.looked = self.looked.max(now);
    }
}

#[cfg(test)]
mod tests;
