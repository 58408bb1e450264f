//! Histories that are replaced: this server's by its leader's, and a learner's by this one's.
//!
//! What is cut or replaced is on disk before anyone is told; a crash between leaves the one or the other (`log`). The tree
//! is kept where it has nothing of what was cut, and read anew from disk where it has.
//!
//! Runs on: the pipeline's thread. A learner that is being replaced has no clients, so it may take its time.

use super::Pipeline;
use super::member::UNTIL_SYNCHRONISED;
use crate::clock::{self, Now};
use crate::disk::RealDisk;
use crate::fatal::Fatal;
use crate::ids::{SessionId, Zxid};
use crate::log::{Batch, TruncateError};
use crate::metrics::Counter;
use crate::server::ensemble::outflow::{self, Outflow, Problem};
use crate::server::recovery;
use crate::server::snapshotter::Outcome;
use crate::snapshot::zookeeper::{DecodeError, DecodeLimits, Decoded, Decoder};
use crate::snapshot::{self, SnapshotWriter, snapshot_path};
use crate::storage::{self, Install};
use crate::tree::{Progress, Tree, TreeOptions};
use crate::zab::Role;
use crate::zab::leader::Link;

/// The leader's state, as it comes in.
pub struct SnapReceiver {
    zxid: Zxid,
    decoder: Decoder,
}

impl SnapReceiver {
    /// `item_bytes`: of the largest znode.
    pub fn new(zxid: Zxid, options: TreeOptions, item_bytes: usize) -> SnapReceiver {
        let limits = DecodeLimits { item_bytes, ..DecodeLimits::default() };
        SnapReceiver { zxid, decoder: Decoder::of_snap(options, limits) }
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        self.decoder.push(bytes)
    }

    pub fn is_whole(&self) -> bool {
        self.decoder.is_whole()
    }

    /// The usage of what is under a quota is counted, as ZooKeeper does when it has loaded a state: a leader that went on
    /// while it sent this has sent znodes that its usage did not have yet, and their creation, which follows, changes nothing
    /// any more. No digest has the usage in it.
    fn finish(self) -> Result<Decoded, DecodeError> {
        let mut decoded = self.decoder.finish(self.zxid)?;
        decoded.tree.recount_quotas();
        Ok(decoded)
    }
}

/// What of its files a leader has found that it can't read. Whoever is sent it would come back for the same again and again. It
/// is known for as long as the files are there: whoever is let go may be one that the quorum needs, and then each attempt to
/// bring it up is in a role of its own.
#[derive(Default)]
pub struct Unreadable {
    snapshot: Option<Zxid>,
    /// The log behind this record.
    behind: Option<Zxid>,
}

impl Unreadable {
    fn note_snapshot(&mut self, zxid: Zxid, fatal: &Fatal) {
        self.snapshot = Some(zxid);
        let advice = fatal.advice();
        tracing::error!(
            "{fatal}. The snapshot at zxid {zxid} can't be read, so no learner is sent it; a new one is taken. {advice}"
        );
    }

    fn note_log(&mut self, behind: Zxid, fatal: &Fatal) {
        self.behind = self.behind.max(Some(behind));
        let advice = fatal.advice();
        tracing::error!(
            "{fatal}. A learner that lacks what the log has behind zxid {behind} gets a snapshot instead. {advice}"
        );
    }

    /// This server's history ends here now; its snapshots behind it are gone.
    fn cut(&mut self, to: Zxid) {
        self.snapshot.take_if(|snapshot| *snapshot > to);
        self.behind.take_if(|behind| *behind >= to);
    }

    /// Whether the log can't be read from here on.
    fn is_behind(&self, after: Zxid) -> bool {
        self.behind.is_some_and(|behind| after <= behind)
    }
}

/// How long no snapshot is begun for a learner behind one that failed, in milliseconds: each writes what there is room for, and
/// the disk may be full for days. Twice as long each time, up to the most.
const FAILED_PAUSE_MS: u64 = 10_000;
const FAILED_PAUSE_MAX_MS: u64 = 60_000;

/// The last snapshot could not be written.
pub struct FailedSnapshot {
    why: String,
    until: Now,
    pause_ms: u64,
}

impl FailedSnapshot {
    /// `before`: the attempt before this one, if that has failed too.
    fn new(why: String, at: Now, before: Option<FailedSnapshot>) -> FailedSnapshot {
        let pause_ms = before.map_or(FAILED_PAUSE_MS, |before| (2 * before.pause_ms).min(FAILED_PAUSE_MAX_MS));
        FailedSnapshot { why, until: at.plus_ms(pause_ms), pause_ms }
    }
}

/// What a learner is waiting for.
enum Sending {
    /// A snapshot that is being written.
    Snapshot,
    Tree(Outflow<Vec<u8>>),
    Log(Outflow<Batch>),
}

/// A learner that catches up with what is not in memory.
pub struct SnapSender {
    pub link: Link,
    sending: Sending,
}

impl SnapSender {
    /// Whether there is something for it now.
    pub fn has_more(&self) -> bool {
        match &self.sending {
            Sending::Snapshot => false,
            Sending::Tree(outflow) => outflow.has_more(),
            Sending::Log(outflow) => outflow.has_more(),
        }
    }
}

impl Pipeline {
    /// TRUNC: everything behind `to` never happened. The log is at rest.
    pub(super) fn truncate(&mut self, to: Zxid, now: Now) -> Result<(), Fatal> {
        tracing::warn!(
            "the leader's history goes another way from {to} on; this server takes back what it has behind it"
        );
        let applied = self.tree.peek().zxid();
        let snapshots = self.snapshots.clone();
        let _held = snapshots.hold();
        let dirs = self.dirs.clone();
        let truncated = self.log_writer.with_log(|log| storage::truncate(&RealDisk, &dirs, log, to));
        match truncated {
            Ok(()) => {}
            Err(TruncateError::Fatal(fatal)) => return Err(fatal),
            // A restart would find the same, and be told the same.
            Err(refused) => {
                self.ask_for_everything(&refused.to_string(), now);
                return Ok(());
            }
        }
        // (e, 0) is the end of whatever stands before (e, 1).
        let to = self.log_writer.with_log(|log| log.last_zxid());
        self.log_writer.mailbox.set_durable(to);
        if let Some(member) = &mut self.member {
            member.unreadable.cut(to);
        }
        self.cut_the_line(to);
        self.prepare.clear();
        if applied > to {
            let (tree, sessions) = recovery::rebuild(&RealDisk, &dirs.snapshots, &self.log_view, self.tree_options)?;
            assert_eq!(tree.zxid(), to, "the history ends where it was cut");
            self.replace_state(tree, &sessions);
        }
        let Some(member) = &mut self.member else { return Ok(()) };
        member.committed = member.committed.min(to);
        // The tree may have been read anew meanwhile, and the leader not.
        member.peer.truncated(to, clock::now());
        Ok(())
    }

    /// What the leader wants to be done with this server's history can't be done, so it gets another one: the same leader is
    /// asked for all of its own.
    fn ask_for_everything(&mut self, why: &str, now: Now) {
        let Some(member) = &self.member else { return };
        let Role::Learning { leader, .. } = member.peer.role else { return };
        tracing::error!("{why}; this server asks the leader for its whole state");
        self.leave_role("another history is needed", now);
        if let Some(member) = &mut self.member {
            member.peer.ask_for_everything(leader);
        }
    }

    /// The leader's state is here: on disk first, then in memory.
    pub(super) fn install_snapshot(&mut self, now: Now) -> Result<(), Fatal> {
        let Some(member) = &mut self.member else { return Ok(()) };
        let Some(receiver) = member.receiving.take() else { return Ok(()) };
        let zxid = receiver.zxid;
        let decoded = match receiver.finish() {
            Ok(decoded) => decoded,
            Err(problem) => {
                self.leave_role(&format!("the leader's state makes no tree: {problem}"), now);
                return Ok(());
            }
        };
        let nodes = decoded.tree.node_count();
        let snapshots = self.snapshots.clone();
        let _held = snapshots.hold();
        let (tree, dirs) = (decoded.tree, self.dirs.clone());
        let install = self.log_writer.with_log(|log| Install::begin(RealDisk, &dirs, log, zxid))?;
        let mut writer = SnapshotWriter::begin(RealDisk, &dirs.snapshots, tree.begin_freeze(), &decoded.sessions)?;
        loop {
            let progress = writer.take(&tree);
            writer.store()?;
            if progress == Progress::Done {
                break;
            }
        }
        writer.finish()?;
        self.log_writer.with_log(|log| install.commit(log))?;
        self.log_writer.mailbox.set_durable(zxid);
        self.pending.clear();
        self.pending_bytes = 0;
        self.prepare.clear();
        let config = tree.config().map(|(zxid, text)| (zxid, text.to_vec()));
        self.replace_state(tree, &decoded.sessions);
        // What was replayed at the start is no part of this server's history any more.
        self.owes_snapshot = false;
        let Some(member) = &mut self.member else { return Ok(()) };
        // Nothing is left of the files that there were.
        member.unreadable = Unreadable::default();
        member.committed = member.committed.min(zxid);
        member.digests_from = UNTIL_SYNCHRONISED;
        member.peer.snapshot_installed(zxid);
        if let Some((zxid, text)) = &config {
            member.peer.reconfigured(*zxid, text);
        }
        tracing::info!("this server has the leader's {nodes} znodes at zxid {zxid}, on disk too");
        Ok(())
    }

    /// Another tree takes the place of the one that everybody reads. Nobody has a connection then: no event says what has
    /// changed from the one to the other, and watches hang on the numbers that znodes had in the old one.
    fn replace_state(&mut self, mut tree: Tree, sessions: &[(SessionId, i32)]) {
        self.let_clients_go("the leader's state takes the place of this server's");
        let zxid = tree.zxid();
        if let Some(member) = &self.member {
            let config = &member.peer.settings().config;
            tree.set_config(config.text(), config.version(), clock::wall_ms());
        }
        *self.tree.write() = tree;
        self.sessions.clear();
        let now = clock::now();
        for &(session, timeout_ms) in sessions {
            self.sessions.add(session, timeout_ms, None, now);
        }
        self.shared.applied.store(zxid.0, std::sync::atomic::Ordering::Release);
        self.draw_next_snapshot();
    }

    /// A learner's history can't be continued: it gets a snapshot, the newest that there is or a new one.
    pub(super) fn send_snapshot(&mut self, link: Link, now: Now) {
        let Some(member) = &mut self.member else { return };
        member.sending.push(SnapSender { link, sending: Sending::Snapshot });
        self.begin_snapshots(now);
    }

    /// A learner's history ends before what is in memory: the log may have what follows.
    pub(super) fn send_log(&mut self, link: Link, after: Zxid) {
        let view = self.log_view.clone();
        let Some(member) = &mut self.member else { return };
        let Role::Leading(leader) = &mut member.peer.role else { return };
        match view.read_after(after) {
            Ok(cursor) if !member.unreadable.is_behind(after) => {
                leader.catch_up_begins(link);
                let sending = Sending::Log(outflow::of_log(cursor, leader.committed(), &self.shared));
                member.sending.push(SnapSender { link, sending });
            }
            _ => leader.cannot_catch_up(link, &mut member.peer.history),
        }
    }

    /// What was written in the place of a snapshot that can't be read can be; what could not be written is not tried again at
    /// once.
    pub(super) fn note_outcome(&mut self) {
        let outcome = self.snapshots.outcome();
        let Some(member) = &mut self.member else { return };
        match outcome {
            Some(Outcome::Written(zxid)) => {
                member.snapshot_failed = None;
                member.unreadable.snapshot.take_if(|unreadable| *unreadable == zxid);
            }
            Some(Outcome::Failed { why, at }) => {
                let before = member.snapshot_failed.take();
                member.snapshot_failed = Some(FailedSnapshot::new(why, at, before));
            }
            None => {}
        }
    }

    /// Those that wait for a snapshot get it when there is one whose end is in memory.
    fn begin_snapshots(&mut self, now: Now) {
        let waits = |sender: &SnapSender| matches!(sender.sending, Sending::Snapshot);
        let Some(member) = &mut self.member else { return };
        if !member.sending.iter().any(waits) {
            return;
        }
        if self.snapshots.is_busy() {
            self.snapshots.hurry();
            return;
        }
        // Before one is chosen: what is found out about it later is not to be taken back by that it was written.
        self.note_outcome();
        let Some(member) = &mut self.member else { return };
        let Role::Leading(leader) = &mut member.peer.role else { return };
        let newest = snapshot::list(&RealDisk, &self.dirs.snapshots).ok().and_then(|all| all.first().copied());
        let usable = newest.filter(|&zxid| {
            let is_readable = member.unreadable.snapshot != Some(zxid);
            is_readable && member.peer.history.contains(zxid) && zxid <= leader.committed()
        });
        match usable {
            Some(zxid) => {
                let learners = member.sending.iter().filter(|sender| waits(sender)).count();
                tracing::info!("the whole state, at zxid {zxid}, is sent to {learners} learners that need it");
                for sender in member.sending.iter_mut().filter(|sender| waits(sender)) {
                    leader.snapshot_begins(sender.link, zxid);
                    self.recorder.count(Counter::SnapCount, 1);
                    let path = snapshot_path(&self.dirs.snapshots, zxid);
                    sender.sending = Sending::Tree(outflow::of_snapshot(zxid, path, &self.shared));
                }
            }
            None if let Some(failed) = member.snapshot_failed.as_ref().filter(|failed| failed.until > now) => {
                let why = format!(
                    "it needs a snapshot, and there is none: {}; the next is tried in {} s, if one is needed then",
                    failed.why,
                    failed.until.since(now).as_millis().div_ceil(1_000)
                );
                for sender in member.sending.iter().filter(|sender| waits(sender)) {
                    leader.give_up(sender.link, why.clone());
                }
                member.sending.retain(|sender| !waits(sender));
            }
            None => {
                self.snapshot_now();
                self.snapshots.hurry();
            }
        }
    }

    /// Hands on what has gathered for learners that catch up, as far as their connections have room.
    pub(super) fn send_snapshots(&mut self, now: Now) {
        self.begin_snapshots(now);
        let Some(member) = &mut self.member else { return };
        let Role::Leading(leader) = &mut member.peer.role else { return };
        let history = &mut member.peer.history;
        let (net, unreadable, snapshots) = (&mut member.net, &mut member.unreadable, &self.snapshots);
        member.sending.retain(|sender| {
            let link = sender.link;
            let Some(stream) = net.link(link) else { return false };
            if stream.backlog() > 0 || leader.waiting(link) > 0 {
                return true;
            }
            // It has read everything that there was for it.
            leader.reads(link, now);
            match &sender.sending {
                Sending::Snapshot => true,
                Sending::Tree(outflow) => {
                    let (pieces, end) = outflow.take();
                    let mut bytes = pieces.concat();
                    stream.offer(&mut bytes);
                    match end {
                        None => true,
                        Some(Ok(())) => {
                            leader.snapshot_sent(link, history);
                            false
                        }
                        Some(Err(why)) => {
                            if let Problem::Unreadable { at, fatal } = &why {
                                unreadable.note_snapshot(*at, fatal);
                                snapshots.doubt();
                            }
                            leader.give_up(link, format!("the snapshot for a learner: {why}"));
                            false
                        }
                    }
                }
                Sending::Log(outflow) => {
                    let (batches, end) = outflow.take();
                    let mut more = true;
                    for batch in &batches {
                        more = more && leader.catch_up(link, batch.records(), history);
                    }
                    match end {
                        Some(Err(why)) if more => {
                            if let Problem::Unreadable { at, fatal } = &why {
                                unreadable.note_log(*at, fatal);
                            }
                            leader.give_up(link, format!("the log for a learner: {why}"));
                            false
                        }
                        Some(Ok(())) if more => {
                            leader.log_ended(link, history);
                            false
                        }
                        _ => more,
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::zookeeper::write_snap;
    use crate::tree::Applied;
    use crate::wire::OpCode;
    use crate::wire::txn::{Acl, NodeKind, Txn, TxnHeader};

    fn create(path: &str, data: &str) -> Txn {
        Txn::Create {
            op: OpCode::Create,
            path: path.into(),
            data: Some(data.into()),
            acl: Acl::open().clone(),
            kind: NodeKind::Persistent,
            parent_cversion: -1,
        }
    }

    fn apply(tree: &mut Tree, txn: Txn) {
        let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: Zxid(tree.zxid().0 + 1), time: 0 };
        tree.apply(&header, txn, &mut Applied::default());
    }

    #[test]
    fn usage_that_lags_behind_in_a_leaders_state_is_right_when_that_is_here() {
        let mut leaders = Tree::new(TreeOptions::default());
        let stats = "/zookeeper/quota/a/zookeeper_stats";
        for path in ["/a", "/zookeeper/quota/a", "/zookeeper/quota/a/zookeeper_limits", stats, "/a/b"] {
            apply(&mut leaders, create(path, "12345"));
        }
        // As it was before the last znode, which the state has already.
        let before =
            Txn::SetData { op: OpCode::SetData, path: stats.into(), data: Some("count=1,bytes=5".into()), version: 1 };
        apply(&mut leaders, before);
        let mut sent = Vec::new();
        write_snap(&leaders, &[], &mut sent).unwrap();

        let mut receiver = SnapReceiver::new(Zxid(4), TreeOptions::default(), 1 << 20);
        assert_eq!(receiver.push(&sent), Ok(sent.len()));
        let mut tree = receiver.finish().unwrap().tree;
        assert_eq!(tree.digest(), leaders.digest(), "nobody compares it");
        apply(&mut tree, create("/a/b", "12345"));
        apply(&mut tree, create("/a/c", "1"));
        assert_eq!(tree.lookup(stats).and_then(|node| node.data()), Some(&b"count=3,bytes=11"[..]));
    }

    #[test]
    fn what_can_not_be_read_is_known_until_it_is_cut() {
        let of = |snapshot: u64, behind: u64| Unreadable { snapshot: Some(Zxid(snapshot)), behind: Some(Zxid(behind)) };
        let cut = |mut unreadable: Unreadable, to: u64| {
            unreadable.cut(Zxid(to));
            (unreadable.snapshot, unreadable.behind)
        };
        assert_eq!(cut(of(7, 4), 7), (Some(Zxid(7)), Some(Zxid(4))));
        assert_eq!(cut(of(7, 4), 5), (None, Some(Zxid(4))));
        assert_eq!(cut(of(7, 4), 4), (None, None));
    }

    #[test]
    fn the_pause_behind_a_snapshot_that_failed_doubles_up_to_a_minute() {
        let at = Now::START.plus_ms(5_000);
        let mut failed = None;
        for seconds in [10, 20, 40, 60, 60] {
            let next = FailedSnapshot::new("no room".into(), at, failed);
            assert_eq!(next.until.since(at).as_secs(), seconds);
            failed = Some(next);
        }
    }
}
