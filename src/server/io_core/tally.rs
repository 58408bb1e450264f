//! What a turn of a core counts; told to the metrics once, at its end.

use crate::metrics::{Counter, Recorder, Summary};
use crate::wire::client::EventKind;

/// Counts of one turn.
pub struct Tally {
    recorder: Recorder,
    received: u64,
    sent: u64,
    bytes: u64,
    reads: u64,
    response_bytes: u64,
    last_response: u64,
    dirty: bool,
}

impl Tally {
    pub fn new(recorder: Recorder) -> Tally {
        Tally { recorder, received: 0, sent: 0, bytes: 0, reads: 0, response_bytes: 0, last_response: 0, dirty: false }
    }

    pub fn received(&mut self) {
        self.received += 1;
        self.dirty = true;
    }

    pub fn bytes_received(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    pub fn sent(&mut self) {
        self.sent += 1;
        self.dirty = true;
    }

    /// A reply of so many bytes joined an output buffer.
    pub fn response(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
        self.last_response = bytes as u64;
    }

    #[inline]
    pub fn answered_read(&mut self, bytes: usize) {
        self.reads += 1;
        self.sent += 1;
        self.response_bytes += bytes as u64;
        self.last_response = bytes as u64;
    }

    pub fn answered_write(&mut self, latency_ms: u64) {
        self.sent();
        self.recorder.request_latency(latency_ms, 1);
        self.recorder.observe(Summary::Updatelatency, latency_ms, 1);
    }

    /// A change was told to so many watchers.
    pub fn triggered(&mut self, kind: EventKind, watchers: u32) {
        if watchers == 0 {
            return;
        }
        let summary = match kind {
            EventKind::NodeCreated => Summary::NodeCreatedWatchCount,
            EventKind::NodeDeleted => Summary::NodeDeletedWatchCount,
            EventKind::NodeDataChanged => Summary::NodeChangedWatchCount,
            EventKind::NodeChildrenChanged => Summary::NodeChildrenWatchCount,
        };
        self.recorder.observe(summary, watchers as u64, 1);
        self.dirty = true;
    }

    pub fn connection_request(&self) {
        self.recorder.count(Counter::ConnectionRequestCount, 1);
    }

    pub fn rejected(&self) {
        self.recorder.count(Counter::ConnectionRejected, 1);
    }

    pub fn sessionless_expired(&self) {
        self.recorder.count(Counter::SessionlessConnectionsExpired, 1);
    }

    pub fn throttled(&self) {
        self.recorder.count(Counter::ThrottledOps, 1);
    }

    /// A read takes no time that a clock of milliseconds would see: it is answered in the turn that received it.
    pub fn publish(&mut self, now_ms: u64) {
        if !std::mem::take(&mut self.dirty) && self.reads == 0 {
            return;
        }
        self.recorder.packets_received(std::mem::take(&mut self.received));
        self.recorder.packets_sent(std::mem::take(&mut self.sent));
        self.recorder.count(Counter::BytesReceivedCount, std::mem::take(&mut self.bytes));
        self.recorder.count(Counter::ResponseBytes, std::mem::take(&mut self.response_bytes));
        let reads = std::mem::take(&mut self.reads);
        if reads > 0 {
            self.recorder.request_latency(0, reads);
            self.recorder.observe(Summary::Readlatency, 0, reads);
        }
        if self.last_response > 0 {
            self.recorder.response_size(std::mem::take(&mut self.last_response), now_ms);
        }
    }
}
