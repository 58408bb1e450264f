//! How a core hands requests to the pipeline: one batch a loop turn, one wake-up a batch, and a limit.
//!
//! A batch is a list of items over one byte buffer: each request's record is copied out of the connection's input once,
//! into that buffer, and read there by `prepare`. Emptied batches go back to the core, so that a steady load allocates
//! nothing here.

use crate::auth::AuthIds;
use crate::clock::Now;
use crate::ids::SessionId;
use crate::limits;
use crate::session::OwnerHandle;
use crate::wire::OpCode;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A connection of this server: which core holds it, where, and which of all that were there.
///
/// Packed into 64 bits so that the session table can keep it without knowing what it is. 0 is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId(u64);

impl ConnId {
    pub const NONE: ConnId = ConnId(0);

    pub fn new(core: usize, slot: usize, generation: u32) -> ConnId {
        assert!((core as u64) < Self::LINKS && slot < 1 << 28);
        // Never 0, so neither is the whole; and never as the one before, or a late reply would be taken for another client's.
        let generation = u64::from(generation) % Self::GENERATIONS + 1;
        ConnId((core as u64) << 54 | (slot as u64) << 26 | generation)
    }

    /// Not a connection of this server's: a session that a learner's clients use, on the other side of that link.
    pub fn of_link(link: u32) -> ConnId {
        ConnId(Self::LINKS << 54 | u64::from(link) << 1 | 1)
    }

    /// In the place of a connection of the leader's that has closed: whoever comes now has to ask for the session first. No
    /// link has this number.
    pub const GONE: ConnId = ConnId(Self::LINKS << 54 | (u32::MAX as u64) << 1 | 1);

    pub fn is_link(self) -> bool {
        self.0 >> 54 == Self::LINKS
    }

    /// As many as 26 bits can tell apart without 0.
    const GENERATIONS: u64 = (1 << 26) - 1;

    /// In place of a core's number, which is smaller.
    const LINKS: u64 = (1 << 10) - 1;

    pub fn core(self) -> usize {
        (self.0 >> 54) as usize
    }

    pub fn slot(self) -> usize {
        (self.0 >> 26) as usize & 0xfff_ffff
    }
}

impl From<OwnerHandle> for ConnId {
    fn from(handle: OwnerHandle) -> ConnId {
        ConnId(handle.0)
    }
}

impl From<ConnId> for OwnerHandle {
    fn from(conn: ConnId) -> OwnerHandle {
        OwnerHandle(conn.0)
    }
}

/// What a core asks of the pipeline.
pub enum Item {
    /// A request that becomes a transaction. `body` is a range of the batch's bytes.
    Write { conn: ConnId, session: SessionId, xid: i32, op: OpCode, body: Range<u32>, auth: AuthIds, received: Now },
    /// sync: answered when everything proposed before it has been applied. `body` is the record.
    Sync { conn: ConnId, session: SessionId, xid: i32, body: Range<u32>, received: Now },
    /// A client's connect request. `password` is a range of the batch's bytes; `session` may be none.
    Connect {
        conn: ConnId,
        session: SessionId,
        password: Range<u32>,
        timeout_ms: i32,
        read_only: Option<bool>,
        received: Now,
    },
    /// The connection is gone, and every request that was read from it stands before this in the queue.
    Closed { conn: ConnId, session: SessionId },
    /// The connection has been kept through a change of leader, with requests that have no answer, and its client is still
    /// there (`Entry::GoOn`). What was read from it before stands before this in the queue.
    StillHere { conn: ConnId, session: SessionId },
}

/// What one turn of a core's loop hands over.
#[derive(Default)]
pub struct Batch {
    /// `Shared::serving_term` when its requests were read.
    pub term: u64,
    pub bytes: Vec<u8>,
    pub items: VecDeque<Item>,
    /// Items that were handed over.
    count: usize,
}

impl Batch {
    /// Copies a record into the batch and says where it is.
    pub fn keep(&mut self, body: &[u8]) -> Range<u32> {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(body);
        start..self.bytes.len() as u32
    }

    /// What one turn gathers is bounded like what waits for the pipeline.
    pub fn is_full(&self) -> bool {
        self.items.len() >= limits::CORE_TO_PIPELINE_REQUESTS || self.bytes.len() >= limits::CORE_TO_PIPELINE_BYTES
    }

    pub fn record(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn clear(&mut self) {
        self.items.clear();
        self.bytes.clear();
        // One burst of large records must not stay in memory for ever.
        self.bytes.shrink_to(limits::JUTE_MAXBUFFER);
    }
}

/// Wakes a thread that sleeps in its poll, at the cost of a system call only if it does sleep.
pub struct Doorbell {
    waker: mio::Waker,
    asleep: AtomicBool,
}

impl Doorbell {
    pub fn new(poll: &mio::Poll, token: mio::Token) -> std::io::Result<Doorbell> {
        Ok(Doorbell { waker: mio::Waker::new(poll.registry(), token)?, asleep: AtomicBool::new(false) })
    }

    /// After this, and before it sleeps, the owner looks at all its queues once more.
    pub fn about_to_sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// Whoever does not see it yet wakes it once for nothing.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Call after the queue has been filled.
    pub fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // It fails only when the eventfd is closed, and then nobody sleeps on it any more.
            let _ = self.waker.wake();
        }
    }
}

/// One core's queue to the pipeline.
#[derive(Default)]
pub struct CoreQueue {
    full: Mutex<Vec<Batch>>,
    empty: Mutex<Vec<Batch>>,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// Sessions that were heard from. Beside the requests: those may take long, and nobody may expire meanwhile who pings.
    heard: Mutex<Vec<SessionId>>,
    has_heard: AtomicBool,
    /// The core has requests that it could not hand over; the pipeline rings it when there is room.
    pub core_waits: AtomicBool,
}

impl CoreQueue {
    /// Whether the core may hand over more. Only the core itself adds, so the answer can only get better.
    pub fn has_room(&self) -> bool {
        // In one order with `core_waits` and the doorbell, so that one of the two threads sees what the other did.
        self.requests.load(Ordering::SeqCst) < limits::CORE_TO_PIPELINE_REQUESTS
            && self.bytes.load(Ordering::SeqCst) < limits::CORE_TO_PIPELINE_BYTES
    }

    /// Hands a batch over and leaves an empty one in its place.
    pub fn push(&self, batch: &mut Batch) {
        batch.count = batch.items.len();
        self.requests.fetch_add(batch.count, Ordering::Relaxed);
        self.bytes.fetch_add(batch.bytes.len(), Ordering::Relaxed);
        let next = self.empty.lock().pop().unwrap_or_default();
        self.full.lock().push(std::mem::replace(batch, next));
    }

    /// Appends all batches in order to `into`.
    pub fn take(&self, into: &mut VecDeque<Batch>) {
        into.extend(self.full.lock().drain(..));
    }

    /// Hands over which sessions were heard from, and leaves none in their place.
    pub fn hear(&self, sessions: &mut Vec<SessionId>) {
        self.heard.lock().append(sessions);
        self.has_heard.store(true, Ordering::SeqCst);
    }

    /// Sessions that were heard from since this was asked last.
    pub fn take_heard(&self) -> Vec<SessionId> {
        match self.has_heard.swap(false, Ordering::SeqCst) {
            true => std::mem::take(&mut *self.heard.lock()),
            false => Vec::new(),
        }
    }

    /// Gives a batch back whose items have been worked off.
    pub fn recycle(&self, mut batch: Batch) {
        assert!(batch.items.is_empty(), "there are requests left in it");
        self.requests.fetch_sub(batch.count, Ordering::SeqCst);
        self.bytes.fetch_sub(batch.bytes.len(), Ordering::SeqCst);
        batch.clear();
        let mut empty = self.empty.lock();
        if empty.len() < 4 {
            empty.push(batch);
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.has_heard.load(Ordering::SeqCst) && self.full.lock().is_empty()
    }

    /// Requests handed over and not yet prepared.
    pub fn len(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_survives_its_packed_form_and_is_never_none() {
        let conn = ConnId::new(3, 70_000, 0);
        assert_ne!(conn, ConnId::NONE);
        assert_eq!((conn.core(), conn.slot()), (3, 70_000));
    }

    /// Also where the count goes beyond what is kept of it, and where it begins again.
    #[test]
    fn connections_that_follow_one_another_in_a_place_are_not_taken_for_one_another() {
        for around in [1u32, 1 << 26, 2 << 26, 0] {
            let ids: Vec<ConnId> =
                (0..6).map(|at| ConnId::new(3, 70_000, around.wrapping_add(at).wrapping_sub(3))).collect();
            for (at, id) in ids.iter().enumerate() {
                assert!(*id != ConnId::NONE && (id.core(), id.slot()) == (3, 70_000));
                assert!(!ids[..at].contains(id), "generations around {around}: {ids:?}");
            }
        }
    }

    #[test]
    fn who_was_heard_from_stands_behind_no_request() {
        let queue = CoreQueue::default();
        let mut batch = Batch::default();
        batch.keep(&vec![0; limits::CORE_TO_PIPELINE_BYTES]);
        queue.push(&mut batch);
        let mut heard = vec![SessionId(1), SessionId(2)];
        queue.hear(&mut heard);
        queue.hear(&mut vec![SessionId(3)]);
        assert!(heard.is_empty() && !queue.has_room());
        assert_eq!(queue.take_heard(), [1, 2, 3].map(SessionId));
        let mut taken = VecDeque::new();
        queue.take(&mut taken);
        assert!(taken.len() == 1 && queue.is_empty() && queue.take_heard().is_empty());
        queue.hear(&mut vec![SessionId(1)]);
        assert!(!queue.is_empty(), "the pipeline must not sleep");
    }

    #[test]
    fn a_core_that_has_handed_over_too_much_has_no_room_until_the_pipeline_is_through() {
        let queue = CoreQueue::default();
        let mut batch = Batch::default();
        batch.keep(&vec![0; limits::CORE_TO_PIPELINE_BYTES]);
        queue.push(&mut batch);
        assert!(!queue.has_room());
        let mut taken = VecDeque::new();
        queue.take(&mut taken);
        assert!(!queue.has_room(), "taken is not yet done");
        queue.recycle(taken.pop_front().unwrap());
        assert!(queue.has_room());
    }
}
