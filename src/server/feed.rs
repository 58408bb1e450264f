//! How the pipeline tells the cores what has been committed: one sequence in zxid order for each core.
//!
//! The pipeline appends to every core's feed *before* it lets go of the tree's write guard. So whoever holds a read
//! guard has in the feed every event up to the tree's zxid; a core drains the feed first and answers reads second, under
//! one guard, and no client sees data before the event that announces it. Within a transaction its events stand before
//! its reply.

use crate::clock::Now;
use crate::ids::{SessionId, Zxid};
use crate::limits;
use crate::server::queue::ConnId;
use crate::server::reports::Gather;
use crate::tree::Touched;
use crate::watch::Triggered;
use crate::wire::OpCode;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// One thing for a core to deliver. Ranges are into the batch's bytes.
pub enum Entry {
    /// A znode changed, and this core may have watchers of it.
    Event { zxid: Zxid, told: Arc<Told> },
    /// The reply to a write or a sync: a whole frame.
    Reply { conn: ConnId, op: OpCode, frame: Range<u32>, zxid: Zxid, received: Now, then_close: bool },
    /// The answer to a connect request: a whole frame; the connection has a session now.
    /// `began`: when the session was asked for that has begun with it; `None` where it has been taken up again.
    Connected { conn: ConnId, frame: Range<u32>, session: SessionId, timeout_ms: i32, began: Option<Now> },
    /// The refusal of a connect request: a whole frame, then the connection is closed.
    Refused { conn: ConnId, frame: Range<u32> },
    /// The connection is closed without a word: its session moved, or is over.
    Close { conn: ConnId },
    /// This server does not serve any more: every connection is closed, its session lives on.
    CloseAll,
    /// This server does not serve for the moment: what connections with a session ask waits, until it serves again or everyone
    /// has to go.
    Stall,
    /// It serves again: what was asked and has no answer has it now, or will get it once the pipeline knows that the client is
    /// `StillHere`.
    GoOn,
    /// An operator asks: the core adds what it knows.
    Report(Arc<Gather>),
    /// The answer to a four-letter word; then the connection is closed.
    Text { conn: ConnId, text: String },
}

/// A change on its way to several cores, and how many watchers it has met: an operator is told of all of them at once.
pub struct Told {
    pub touched: Touched,
    /// Cores that have it in their feed and have not delivered it.
    cores: AtomicU32,
    heard: [AtomicU32; 3],
}

impl Told {
    pub fn new(touched: Touched) -> Told {
        Told { touched, cores: AtomicU32::new(0), heard: Default::default() }
    }

    /// Before the feed is pushed.
    pub fn one_more_core(&self) {
        self.cores.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds what one core's table has triggered. The last one gets the sums.
    pub fn add(&self, heard: Triggered) -> Option<[u32; 3]> {
        for (sum, here) in self.heard.iter().zip([heard.data, heard.child, heard.parent]) {
            sum.fetch_add(here as u32, Ordering::Relaxed);
        }
        let last = self.cores.fetch_sub(1, Ordering::AcqRel) == 1;
        last.then(|| std::array::from_fn(|at| self.heard[at].load(Ordering::Relaxed)))
    }
}

#[derive(Default)]
pub struct FeedBatch {
    pub bytes: Vec<u8>,
    pub entries: VecDeque<Entry>,
    /// What its events hold: their paths, and lists that perhaps nobody else has any more.
    held: usize,
}

impl FeedBatch {
    /// Room that an entry takes beside its bytes; an estimate is enough, it only bounds.
    const ENTRY_BYTES: usize = 128;

    pub fn size(&self) -> usize {
        self.bytes.len() + self.entries.len() * Self::ENTRY_BYTES + self.held
    }

    pub fn tell(&mut self, zxid: Zxid, told: Arc<Told>) {
        self.held += told.touched.size();
        self.entries.push_back(Entry::Event { zxid, told });
    }

    pub fn frame(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// Moves everything of `other` behind what is here, and leaves `other` empty.
    fn append(&mut self, other: &mut FeedBatch) {
        if self.entries.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        let shift = self.bytes.len() as u32;
        self.held += std::mem::take(&mut other.held);
        self.bytes.append(&mut other.bytes);
        self.entries.extend(other.entries.drain(..).map(|mut entry| {
            if let Entry::Reply { frame, .. } | Entry::Connected { frame, .. } | Entry::Refused { frame, .. } =
                &mut entry
            {
                *frame = frame.start + shift..frame.end + shift;
            }
            entry
        }));
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.held = 0;
        self.bytes.clear();
        self.bytes.shrink_to(limits::JUTE_MAXBUFFER);
    }
}

/// One core's feed.
#[derive(Default)]
pub struct Feed {
    pending: Mutex<FeedBatch>,
    /// In one order with `pipeline_waits` and the doorbells.
    size: AtomicUsize,
    /// The pipeline waits for room; the core rings it after draining.
    pub pipeline_waits: AtomicBool,
    /// The core has taken more than it can tell in a turn. Nobody reads there until it has, so nothing more is applied: it would
    /// never come to that where as much is written as it can tell. In one order with `pipeline_waits`, too.
    is_behind: AtomicBool,
}

impl Feed {
    /// Whether another batch may be applied: asked before the write guard is taken, so that nothing waits under it.
    pub fn has_room(&self) -> bool {
        self.size.load(Ordering::SeqCst) < limits::FEED_BYTES && !self.is_behind.load(Ordering::SeqCst)
    }

    /// By the core. Where it is not any more, it rings a pipeline that waits.
    pub fn set_behind(&self, is_behind: bool) {
        if is_behind || self.is_behind.load(Ordering::Relaxed) {
            self.is_behind.store(is_behind, Ordering::SeqCst);
        }
    }

    /// Appends a batch and leaves it empty. The caller rings the core's doorbell after it has let go of the tree.
    pub fn push(&self, batch: &mut FeedBatch) {
        self.size.fetch_add(batch.size(), Ordering::SeqCst);
        self.pending.lock().append(batch);
    }

    /// Swaps what is pending with an empty batch. `false` if there was nothing.
    pub fn take(&self, into: &mut FeedBatch) -> bool {
        assert!(into.entries.is_empty());
        if self.size.load(Ordering::SeqCst) == 0 {
            return false;
        }
        std::mem::swap(&mut *self.pending.lock(), into);
        self.size.fetch_sub(into.size(), Ordering::SeqCst);
        true
    }

    pub fn is_empty(&self) -> bool {
        self.size.load(Ordering::SeqCst) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(batch: &mut FeedBatch, text: &[u8]) {
        let start = batch.bytes.len() as u32;
        batch.bytes.extend_from_slice(text);
        batch.entries.push_back(Entry::Reply {
            conn: ConnId::NONE,
            op: OpCode::SetData,
            frame: start..batch.bytes.len() as u32,
            zxid: Zxid::ZERO,
            received: Now::START,
            then_close: false,
        });
    }

    #[test]
    fn batches_that_pile_up_keep_their_order_and_their_bytes() {
        let feed = Feed::default();
        let mut batch = FeedBatch::default();
        for text in [&b"one"[..], b"two", b"three"] {
            reply(&mut batch, text);
            feed.push(&mut batch);
            assert!(batch.entries.is_empty());
        }
        let mut taken = FeedBatch::default();
        assert!(feed.take(&mut taken));
        let frames: Vec<&[u8]> = taken
            .entries
            .iter()
            .map(|entry| match entry {
                Entry::Reply { frame, .. } => taken.frame(frame),
                _ => unreachable!(),
            })
            .collect();
        assert_eq!(frames, [&b"one"[..], b"two", b"three"]);
        assert!(feed.is_empty() && !feed.take(&mut FeedBatch::default()));
    }
}
