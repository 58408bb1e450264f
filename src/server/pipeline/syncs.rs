//! The syncs that a learner's clients have asked and its leader has not answered: in the order of their numbers, which is that
//! of the answers, and for each session the number of its last one, which every write of the session waits for. There may be
//! tens of thousands under way, so a write must not look through them.
//!
//! Runs on: the pipeline's thread.

use super::ReplyTo;
use crate::ids::SessionId;
use crate::random::FastMap;
use crate::server::queue::ConnId;
use std::collections::VecDeque;

/// A sync under way, with its record as the client sent it.
pub struct Asked {
    pub number: u64,
    pub session: SessionId,
    pub reply: ReplyTo,
    pub record: Vec<u8>,
}

#[derive(Default)]
pub struct Syncs {
    asked: u64,
    under_way: VecDeque<Asked>,
    /// Of their records.
    bytes: usize,
    /// Number of the last one under way of each session that has any.
    last: FastMap<SessionId, u64>,
}

impl Syncs {
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The leader is being asked.
    pub fn push(&mut self, session: SessionId, reply: ReplyTo, record: Vec<u8>) {
        self.asked += 1;
        self.last.insert(session, self.asked);
        self.bytes += record.len();
        self.under_way.push_back(Asked { number: self.asked, session, reply, record });
    }

    /// The leader has answered the oldest one.
    pub fn pop(&mut self) -> Option<Asked> {
        let oldest = self.under_way.pop_front()?;
        self.bytes -= oldest.record.len();
        if self.last.get(&oldest.session) == Some(&oldest.number) {
            self.last.remove(&oldest.session);
        }
        Some(oldest)
    }

    /// Number of the session's last sync under way, 0 if there is none.
    pub fn last_of(&self, session: SessionId) -> u64 {
        self.last.get(&session).copied().unwrap_or(0)
    }

    /// Takes out those of a connection up to this number. At a change of role only: looks at all.
    pub fn take(&mut self, conn: ConnId, up_to: u64) -> Vec<Asked> {
        let all = std::mem::take(&mut self.under_way);
        let (its, others): (VecDeque<Asked>, _) =
            all.into_iter().partition(|sync| sync.reply.conn == conn && sync.number <= up_to);
        self.under_way = others;
        self.bytes -= its.iter().map(|sync| sync.record.len()).sum::<usize>();
        if !its.is_empty() {
            // The session may have moved, and have earlier ones from another connection.
            self.last = self.under_way.iter().map(|sync| (sync.session, sync.number)).collect();
        }
        its.into()
    }

    /// Nobody will answer them.
    pub fn drain(&mut self) -> impl Iterator<Item = Asked> {
        self.last.clear();
        self.bytes = 0;
        self.under_way.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::random::Rng;
    use crate::wire::OpCode;

    #[test]
    fn the_last_sync_of_a_session_is_the_one_that_a_search_finds() {
        let mut rng = Rng::new(7);
        let mut syncs = Syncs::default();
        let received = clock::now();
        for step in 0..20_000 {
            let conn = ConnId::new(0, rng.below(5) as usize, 0);
            match rng.below(20) {
                0 => drop(syncs.take(conn, syncs.asked - rng.below(4).min(syncs.asked))),
                1..10 => drop(syncs.pop()),
                _ => {
                    let reply = ReplyTo { conn, op: OpCode::Sync, xid: 1, received, after_sync: 0 };
                    syncs.push(SessionId(rng.below(4) as i64), reply, Vec::new());
                }
            }
            if step == 10_000 {
                assert!(syncs.drain().count() > 0);
            }
            for session in (0..4).map(SessionId) {
                let found = syncs.under_way.iter().rev().find(|sync| sync.session == session);
                assert_eq!(syncs.last_of(session), found.map_or(0, |sync| sync.number), "step {step}");
            }
        }
    }
}
