//! What a core counts of its requests, beside the metrics: those are told when somebody asks for them, since what each turn
//! touches costs it a line of the cache.

use crate::clock::Now;
use crate::metrics::{Counter, Recorder, Summary};
use crate::wire::client::EventKind;

/// Counts since they were last told.
pub struct Tally {
    recorder: Recorder,
    received: u64,
    sent: u64,
    bytes: u64,
    reads: u64,
    response_bytes: u64,
    smallest_response: u64,
    largest_response: u64,
    last_response: u64,
    last_response_at: Now,
}

impl Tally {
    pub fn new(recorder: Recorder) -> Tally {
        Tally {
            recorder,
            received: 0,
            sent: 0,
            bytes: 0,
            reads: 0,
            response_bytes: 0,
            smallest_response: u64::MAX,
            largest_response: 0,
            last_response: 0,
            last_response_at: Now::START,
        }
    }

    pub fn received(&mut self) {
        self.received += 1;
    }

    pub fn bytes_received(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    pub fn sent(&mut self) {
        self.sent += 1;
    }

    /// A reply of so many bytes joined an output buffer.
    #[inline]
    pub fn response(&mut self, bytes: usize, now: Now) {
        let bytes = bytes as u64;
        self.response_bytes += bytes;
        self.smallest_response = self.smallest_response.min(bytes);
        self.largest_response = self.largest_response.max(bytes);
        self.last_response = bytes;
        self.last_response_at = now;
    }

    #[inline]
    pub fn answered_read(&mut self, bytes: usize, now: Now) {
        self.reads += 1;
        self.sent += 1;
        self.response(bytes, now);
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
    }

    pub fn connection_request(&self) {
        self.recorder.count(Counter::ConnectionRequestCount, 1);
    }

    /// A client wants a session back that it has.
    pub fn connection_revalidate(&self) {
        self.recorder.count(Counter::ConnectionRevalidateCount, 1);
    }

    /// A client went without waiting for this server to close the connection.
    pub fn connection_drop(&self) {
        self.recorder.count(Counter::ConnectionDropCount, 1);
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

    /// Tells the metrics all that has been counted since the last time. A read takes no time that a clock of milliseconds would
    /// see: it is answered in the turn that received it.
    pub fn publish(&mut self) {
        self.recorder.packets_received(std::mem::take(&mut self.received));
        self.recorder.packets_sent(std::mem::take(&mut self.sent));
        self.recorder.count(Counter::BytesReceivedCount, std::mem::take(&mut self.bytes));
        self.recorder.count(Counter::ResponseBytes, std::mem::take(&mut self.response_bytes));
        let reads = std::mem::take(&mut self.reads);
        self.recorder.request_latency(0, reads);
        self.recorder.observe(Summary::Readlatency, 0, reads);
        let largest = std::mem::take(&mut self.largest_response);
        if largest > 0 {
            let at = self.last_response_at.millis();
            self.recorder.response_size(std::mem::replace(&mut self.smallest_response, u64::MAX), at);
            self.recorder.response_size(largest, at);
            self.recorder.response_size(self.last_response, at);
        }
    }
}
