//! Known bugs, to be put back on purpose: the simulator must find each of them by chance, or it would not find others.
//!
//! A switch for each, of this thread, set for one run. Those that lie in how a server's parts are put together stand in
//! this test's own files.

use std::cell::Cell;

/// A bug of the catalogue (fault model, section 3), or of its family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// C-28: a role begins while the disk still works for the last one.
    RoleWithoutBarrier,
    /// C-20, C-21: what is not durable is acknowledged.
    AckBeforeSync,
    /// C-22, C-02: an epoch is promised before it is stored.
    EpochsStoredLater,
    /// C-01: the current epoch is derived from the log.
    CurrentEpochIsThatOfTheLog,
    /// C-12: the tree keeps what a truncation has taken away.
    TreeKeptAfterTruncate,
    /// C-17: the tree has what the disk does not.
    AppliedBeforeDurable,
    /// C-36: a server that lost its history votes.
    QuarantineForgotten,
    /// The leader counts itself before its own disk has the proposal.
    LeaderCountsItselfBeforeItsDisk,
    /// 1.3: a client that has seen more is served all the same.
    ServesClientsThatHaveSeenMore,
    /// 1.2: a read does not wait for the writes before it.
    ReadsPassWrites,
    /// 1.3: a sync is answered without asking a quorum.
    SyncWithoutQuorum,
    /// C-31, C-01: votes are compared without their epochs.
    VotesIgnoreTheEpoch,
    /// C-53: who owns a session is not looked at.
    OwnerNotChecked,
}

thread_local! {
    static BROKEN: Cell<Option<Bug>> = const { Cell::new(None) };
}

pub fn is(bug: Bug) -> bool {
    BROKEN.get() == Some(bug)
}

pub fn set(bug: Option<Bug>) {
    BROKEN.set(bug);
}
