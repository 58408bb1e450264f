//! Every limit of the server, and how the limits hang together. A queue without a line here is a bug.

/// `jute.maxbuffer`'s default in bytes: the largest request frame.
pub const JUTE_MAXBUFFER: usize = 0xf_ffff;

/// Bytes that a connection's input buffer holds beyond one frame before its socket is no longer read.
pub const CONNECTION_INPUT_SLACK: usize = 64 << 10;

/// Unsent bytes after which no more requests are read from a connection; its socket has to drain first. That it sends something
/// is noticed all the same: its session lives while it pings.
pub const CONNECTION_OUTPUT_PAUSE: usize = 256 << 10;

/// Unsent bytes after which a connection is closed (its session lives on): watch events can't be held back.
pub const CONNECTION_OUTPUT_MAX: usize = 64 << 20;

/// Unsent bytes of all connections of one core together, by default (`ostler.coreOutputBytes`): above it those that have most are
/// closed. What one turn tells watchers may come to as much again.
pub const CORE_OUTPUT_BYTES: usize = 512 << 20;
pub const CORE_OUTPUT_BYTES_MIN: usize = CONNECTION_OUTPUT_MAX;
/// Bytes of events after which a core sends what it has before it delivers more.
pub const EVENTS_TURN_BYTES: usize = 32 << 20;
/// Entries of access lists, and identities held against them, that a core goes through before it lets go of the tree and looks at
/// its sockets, in the midst of what it has to deliver: each some 100 ns at most.
pub const EVENTS_TURN_WORK: usize = 200_000;

/// Writes that one connection may have in the pipeline before no more are taken from it.
pub const CONNECTION_IN_FLIGHT_MAX: usize = 1_000;

/// What the watches of one connection may take in memory, by default (`ostler.connectionWatchBytes`): two million on znodes that
/// exist, one in three of that with a path of a hundred bytes. And the least that may be set.
pub const CONNECTION_WATCH_BYTES: usize = 64 << 20;
pub const CONNECTION_WATCH_BYTES_MIN: usize = 64 << 10;

/// Identities that one connection may gather with auth packets; one more is refused as failed.
pub const CONNECTION_AUTH_IDS: usize = 1_000;
/// Their bytes together. A learner sends all of them with each of the connection's writes, and they are a part of each znode
/// that is made with the ACL of whoever makes it.
pub const CONNECTION_AUTH_BYTES: usize = 64 << 10;

/// Bytes and requests of one core that wait for the pipeline; a core above either stops handing over writes.
pub const CORE_TO_PIPELINE_BYTES: usize = 16 << 20;
pub const CORE_TO_PIPELINE_REQUESTS: usize = 65_536;

/// Bytes of replies and events that wait in one core's feed; the pipeline applies nothing more until there is room.
pub const FEED_BYTES: usize = 64 << 20;

/// Proposals made and not yet committed. Bounds the pipeline's memory.
pub const PROPOSALS_OUTSTANDING_MAX: usize = 65_536;
/// Their records' bytes; beside them the same values wait to be applied.
pub const PROPOSALS_OUTSTANDING_BYTES: usize = 64 << 20;

/// Bytes of replies that a core encodes before it lets go of the tree.
pub const READ_GUARD_BYTES: usize = 64 << 10;
/// Bytes of the reply to one multiRead, which can name the largest znode thirty thousand times.
pub const MULTI_READ_BYTES: usize = 64 << 20;
/// Entries of access lists that one multiRead goes through, each some 100 ns; the tree is held all the time.
pub const MULTI_READ_WORK: usize = 500_000;
/// Bytes of the reply to one getEphemerals, which has whole paths: far more than any client takes.
pub const EPHEMERALS_BYTES: usize = 64 << 20;
/// What going through them may take, in units of some 100 ns (`Asker::work`): half a million znodes, or fewer far down. The tree
/// is held all the time.
pub const EPHEMERALS_WORK: usize = 500_000;
/// Requests that a core answers before it lets go of the tree: about 100 microseconds' worth.
pub const READ_GUARD_REQUESTS: usize = 512;
/// Requests, or as much work, after which a core looks at its sockets and its feed again, and sends what it has: some
/// milliseconds' worth. What it has received and not answered goes on in the next turn, one connection after the other.
pub const READ_TURN_REQUESTS: usize = 32 * READ_GUARD_REQUESTS;
/// Bytes of replies that count as a request.
pub const READ_REQUEST_BYTES: usize = READ_GUARD_BYTES / READ_GUARD_REQUESTS;
/// Entries of access lists, and identities held against them, that one multi goes through: the pipeline does nothing else
/// meanwhile. Some 10 milliseconds' worth.
pub const MULTI_WRITE_WORK: usize = 2_000_000;
/// What the pipeline prepares before it looks at everything else again, its log and its peers, in units of some 5 ns: 20
/// milliseconds' worth. An entry of an access list, or an identity, is one; more where it is a network.
pub const WRITE_TURN_WORK: usize = 4_000_000;
/// A small request, beside two for each of its bytes.
pub const WRITE_WORK: usize = 200;
/// Changes (parts of a transaction that has several) that the pipeline applies before it lets go of the tree: about 100
/// microseconds' worth.
pub const WRITE_GUARD_TXNS: usize = 128;

/// Bytes of a log segment; a larger record gets a segment of its own.
pub const LOG_SEGMENT_BYTES: usize = 64 << 20;
/// The first segment is small, and each after it four times as large, so that a server with little starts at once.
pub const LOG_FIRST_SEGMENT_BYTES: usize = 1 << 20;

/// At a start the log is read ahead of the tree that applies it: pieces that wait, and the records' bytes and number in one.
/// Few, since who falls behind is the tree; enough that neither waits for the other at each piece.
pub const REPLAY_PIECES: usize = 16;
pub const REPLAY_PIECE_BYTES: usize = 256 << 10;
pub const REPLAY_PIECE_TXNS: usize = 1_024;

/// After a start that replayed more bytes of the log than this, a snapshot is taken as soon as clients are served, so that the
/// next start is quick: below it, a replay takes milliseconds.
pub const REPLAYED_BYTES: u64 = 1 << 20;
/// But only if it was more than this part of the snapshot's bytes. A byte of the log takes about as long as one of a snapshot,
/// so less of it is not what a start takes its time for, and a large tree is not written for little.
pub const REPLAYED_PART: u64 = 16;

/// The leader opens a new epoch this many transactions before the counter of the old one is used up.
pub const EPOCH_COUNTER_MARGIN: u32 = 1 << 20;
/// Bytes of a path, whatever `jute.maxbuffer` allows: the tree keeps lengths of names in 30 bits.
pub const PATH_MAX: usize = 1 << 30;
/// Transactions of an epoch at most.
pub const EPOCH_TRANSACTIONS: u32 = u32::MAX - EPOCH_COUNTER_MARGIN;

/// Bytes of the newest records that a server of an ensemble keeps in memory for learners that were away for a moment.
pub const HISTORY_BYTES: usize = 32 << 20;
/// Bytes that wait for one learner before its leader drops it.
pub const LEARNER_OUTPUT_BYTES: usize = 256 << 20;

/// Bytes of requests of one learner that its leader puts aside while it has no room; above that it does not read from it. Much,
/// since what ends the want of room may be an acknowledgement of this learner's that stands behind them: ostler's followers
/// keep back what is above `FORWARDED_BYTES`, ZooKeeper's forward whatever their clients ask.
pub const LEARNER_REQUESTS_BYTES: usize = 256 << 20;
/// Requests that a learner has forwarded and that are not answered, and their bytes that its leader has not taken; above
/// either it takes no more from its clients.
pub const FORWARDED_MAX: usize = 65_536;
/// Syncs of one learner that are not answered, above which its leader drops it. No server's clients may ask for so many.
pub const LEARNER_SYNCS_MAX: usize = 4 * FORWARDED_MAX;
pub const FORWARDED_BYTES: usize = 16 << 20;

/// Bytes of saved node images that a snapshot in progress may hold before the pipeline waits for it.
pub const SNAPSHOT_SAVED_BYTES: usize = 64 << 20;

/// Bytes of a whole tree in ZooKeeper's form that a leader may send or a file may hold: more than fits any machine.
pub const ZOOKEEPER_TREE_BYTES: u64 = 1 << 42;

/// Connections of the election port that have not said who they are; the oldest makes room.
pub const ELECTION_PENDING_MAX: usize = 32;
/// Servers that are not members and have a connection there; likewise.
pub const ELECTION_STRANGERS_MAX: usize = 8;

/// Bytes of paths that the answer to one four-letter word may have: cores and the pipeline put them together, and do nothing else
/// meanwhile. Some 50 milliseconds' worth.
pub const WORD_PATH_BYTES: usize = 16 << 20;
/// Four-letter words whose answers are in preparation at once.
pub const FOUR_LETTER_PENDING: usize = 64;

/// Requests that one client of the client library may have in flight before the next one waits.
pub const CLIENT_IN_FLIGHT_MAX: usize = 16_384;
/// The largest reply that a client reads; a listing of many children is larger than any request.
pub const CLIENT_REPLY_MAX: usize = 256 << 20;

const _: () = {
    // The margin has to outlast everything that is already in the pipeline when it is noticed.
    assert!(EPOCH_COUNTER_MARGIN as usize > 4 * PROPOSALS_OUTSTANDING_MAX);
    // What is not committed stays in memory: a history holds up to four times its limit for it.
    assert!(4 * HISTORY_BYTES > PROPOSALS_OUTSTANDING_BYTES + (HISTORY_BYTES));
    // A connection that is paused for its output can still take the largest batch of replies of one turn.
    assert!(CONNECTION_OUTPUT_PAUSE + READ_GUARD_BYTES < CONNECTION_OUTPUT_MAX);
};
