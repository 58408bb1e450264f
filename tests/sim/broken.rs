//! Known bugs, to be put back on purpose: the simulator must find each of them by chance, or it would not find others.
//!
//! A switch for each, of this thread, set for one run. All of them lie in how a server's parts are put together (what is
//! told to whom before or after which durability), which is where most of the catalogue's bugs lay; so they stand in this
//! test's own files, and the server has nothing of them.

use std::cell::Cell;

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug of the catalogue (fault model, section 3), or of its family.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Bug { $($(#[$doc])* $name,)* }

        /// All of them.
        pub const BUGS: &[Bug] = &[$(Bug::$name,)*];
    };
}

bugs! {
    /// C-28: a role begins while the disk still works for the last one.
    RoleWithoutBarrier,
    /// C-21: what is not durable is acknowledged.
    AckBeforeSync,
    /// C-20, C-22, C-23: the same for what comes before NEWLEADER only, so the epoch is stored before its history.
    HistoryAfterEpoch,
    /// C-02: a follower promises an epoch before it is stored.
    FollowerEpochsStoredLater,
    /// C-02: a leader tells an epoch before it has stored it.
    LeaderEpochsStoredLater,
    /// C-03: the epoch that was accepted is forgotten with the role.
    AcceptedForgotten,
    /// C-01: the current epoch is derived from the log.
    CurrentEpochIsThatOfTheLog,
    /// C-01, C-31: votes are compared without their epochs.
    VotesIgnoreTheEpoch,
    /// C-04: observers count in the quorums of a leader.
    ObserversCount,
    /// C-12, C-27: the tree keeps what a truncation has taken away.
    TreeKeptAfterTruncate,
    /// C-45: a truncation does not reach the disk.
    TruncatedInMemoryOnly,
    /// C-10 (1156): a truncation cuts one too many.
    TruncationCutsTooMuch,
    /// C-15: a snapshot of the leader's is not durable when it counts.
    SnapshotKeptInMemory,
    /// C-16, C-41: a snapshot has another zxid than its state.
    SnapshotNamedAhead,
    /// C-43, C-51: the sessions are not in the snapshot.
    SessionsNotInSnapshot,
    /// C-17: the tree has what the disk does not.
    AppliedBeforeDurable,
    /// Clients see what is not committed.
    AppliedBeforeCommitted,
    /// C-17: the leader counts itself before its own disk has the proposal.
    LeaderCountsItselfBeforeItsDisk,
    /// C-36: a server that lost its history votes.
    QuarantineForgotten,
    /// 1.3: a client that has seen more is served all the same.
    ServesClientsThatHaveSeenMore,
    /// 1.2: a read does not wait for the writes before it.
    ReadsPassWrites,
    /// 1.3: a sync is answered without asking a quorum.
    SyncWithoutQuorum,
    /// 1.2: writes behind a sync do not wait for its answer, which then tells a later zxid than theirs.
    SyncsOvertaken,
    /// C-53: who owns a session is not looked at.
    OwnerNotChecked,
    /// 1.6: a session whose connection to the leader has closed is anyone's, an earlier server's too.
    ClosedConnectionsOwnNothing,
    /// C-59: a client that wants an ended session back gets another one.
    NewSessionForAnOldOne,
    /// A session whose end was never committed stays as good as ended.
    ClosingSessionsStay,
    /// A session that a follower has applied and the leader has not is unknown to the leader.
    OpeningSessionsUnknown,
    /// 1.1: what a lost leader was asked is asked again, although it may have happened.
    AsksAgainWhatHappened,
    /// 1.6: it is asked again for clients that have gone to other servers.
    AsksForClientsThatLeft,
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
