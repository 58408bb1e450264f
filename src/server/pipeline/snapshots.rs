//! When a snapshot is begun: after so many transactions or so much log, and soon after a start that had much to replay. Writing
//! it is the snapshotter's business.
//!
//! Runs on: the pipeline's thread.

use super::Pipeline;
use crate::limits;

impl Pipeline {
    /// What a start has replayed counts towards the next snapshot, or a server that never runs for long would replay more with
    /// each start; if it is much, that snapshot is taken at once.
    pub(super) fn count_replayed(&mut self, (transactions, bytes): (u64, u64)) {
        self.count_towards_snapshot(transactions, bytes);
        self.owes_snapshot = is_much(bytes, self.snapshots.last_bytes());
    }

    pub(super) fn may_snapshot_for_start(&self) -> bool {
        self.owes_snapshot && self.has_certain_state() && !self.snapshots.is_busy() && !self.shared.is_stopping()
    }

    /// The snapshot that spares the next start what this one had to replay.
    pub(super) fn snapshot_for_start(&mut self) {
        if self.may_snapshot_for_start() {
            tracing::info!("a snapshot is taken, so that the next start has less of the log to replay");
            self.snapshot_now();
        }
    }

    /// A member that is being synchronised has applied what may yet be taken back, and so has one that has just started:
    /// nothing for a snapshot (C-12).
    fn has_certain_state(&self) -> bool {
        self.member.as_ref().is_none_or(|member| member.serving)
    }

    pub(super) fn count_towards_snapshot(&mut self, transactions: u64, bytes: u64) {
        self.logged_since_snapshot = self.logged_since_snapshot.saturating_add(bytes);
        self.until_snapshot.0 = self.until_snapshot.0.saturating_sub(transactions);
        self.until_snapshot.1 = self.until_snapshot.1.saturating_sub(bytes);
    }

    pub(super) fn draw_next_snapshot(&mut self) {
        let half = (self.settings.snap_count / 2).max(1);
        let bytes = match self.settings.snap_bytes {
            0 => u64::MAX,
            bytes => bytes / 2 + self.rng.below((bytes / 2).max(1)),
        };
        self.until_snapshot = (half + self.rng.below(half), bytes);
    }

    /// Begins a snapshot of the state as it is now: everything committed so far, applied.
    pub(super) fn snapshot_if_due(&mut self) {
        if !self.has_certain_state() {
            return;
        }
        // Of a large tree a snapshot costs more than to replay so much of the log.
        let is_worth_it =
            !self.settings.snap_count_adapts || self.logged_since_snapshot >= self.snapshots.last_bytes() / 2;
        let is_due = self.until_snapshot.1 == 0 || (self.until_snapshot.0 == 0 && is_worth_it);
        if !is_due || self.snapshots.is_busy() {
            return;
        }
        self.snapshot_now();
    }

    pub(super) fn snapshot_now(&mut self) {
        if self.snapshots.is_busy() {
            return;
        }
        self.note_outcome();
        self.draw_next_snapshot();
        self.logged_since_snapshot = 0;
        self.owes_snapshot = false;
        let sessions = self.sessions.timeouts();
        // Nothing is applied between this and the next batch: the freeze is of what every reader sees now.
        let frozen = self.tree.peek().begin_freeze();
        self.snapshots.begin(frozen, sessions);
    }
}

/// Whether replaying so many bytes of the log on top of a snapshot takes a start long.
fn is_much(replayed: u64, snapshot: u64) -> bool {
    replayed > limits::REPLAYED_BYTES && replayed > snapshot / limits::REPLAYED_PART
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_is_more_than_a_megabyte_and_more_than_a_part_of_the_snapshot() {
        const MIB: u64 = 1 << 20;
        assert!(!is_much(MIB, 0));
        assert!(is_much(MIB + 1, 0));
        assert!(is_much(MIB + 1, 16 * MIB));
        assert!(!is_much(4 * MIB, 64 * MIB));
        assert!(is_much(4 * MIB + 1, 64 * MIB));
    }
}
