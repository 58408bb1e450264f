//! What ends because its time is over: sessions whose clients are silent, containers that are empty, znodes with a TTL. Each becomes a
//! transaction like any other.
//!
//! Runs on: the pipeline's thread, on a leader or a standalone server.

use super::{Effect, Pending, Pipeline, ReplyTo};
use crate::clock::{self, Now};
use crate::ids::{Owner, SessionId};
use crate::limits;
use crate::metrics::Counter;
use crate::prepare::reply::Shape;
use crate::prepare::{Closing, Prepared};
use crate::tree::Tree;

/// A session that ends: its client's request, if it was one, and who waits for the answer.
pub(super) struct SessionToClose {
    pub session: SessionId,
    pub xid: i32,
    pub time_ms: i64,
    pub reply: Option<ReplyTo>,
    /// Some of its ephemerals have been deleted; it has more.
    pub goes_on: bool,
}

/// A session with more ephemerals than one transaction can list goes on when no more than so many bytes are under way: each step
/// asks of all paths that are whether they are pending, and learners have to keep up with transactions of this size.
const CLOSING_BYTES: usize = 4 << 20;

impl Pipeline {
    /// Whether `go_on_closing` has something to do.
    pub(super) fn may_go_on_closing(&self) -> bool {
        let may =
            |closing: &SessionToClose| self.line_has_room() && (!closing.goes_on || self.pending_bytes < CLOSING_BYTES);
        self.closings.front().is_some_and(may)
    }

    /// Proposes what ends the sessions of `closings`, as far as there is room: one transaction each, or several where a
    /// session has more ephemerals than one can list; the last of them closes it and is answered.
    pub(super) fn go_on_closing(&mut self) {
        while self.may_go_on_closing()
            && let Some(&mut SessionToClose { session, xid, time_ms, ref mut goes_on, .. }) = self.closings.front_mut()
        {
            *goes_on = true;
            let Some(zxid) = self.next_zxid() else {
                // The role is about to end, and the connections with it; who leads next closes them when their time is over.
                return self.closings.clear();
            };
            let (prepared, closing) = self.prepare.close_session(self.tree.peek(), session, xid, zxid, time_ms);
            let Prepared::Txn { header, txn, digest } = prepared else {
                unreachable!("closing a session is never refused")
            };
            let bytes = self.propose(header, &txn, digest);
            let effect = Effect::Txn { header, shape: Shape::Single(txn.op()), txn, digest: None };
            let reply = match closing {
                Closing::Done => self.closings.pop_front().and_then(|closing| closing.reply),
                Closing::GoesOn => None,
            };
            self.pending.push_back(Pending { zxid: header.zxid, effect, reply, bytes });
        }
    }

    /// Closes the sessions whose clients have been silent for too long, as far as there is room for it.
    pub(super) fn expire_sessions(&mut self, now: Now) {
        if now < self.next_session_check {
            return;
        }
        if !self.has_room() {
            // Cores with more than they can hand over read from nobody, and so hear nobody.
            self.next_session_check = now.plus_ms((self.settings.tick_ms / 2).max(1));
            return;
        }
        let time_ms = clock::wall_ms();
        let expired = self.sessions.expired(now);
        self.next_session_check = self.sessions.wake_at(now);
        for session in expired {
            tracing::info!("session {session} has expired");
            self.recorder.count(Counter::StaleSessionsExpired, 1);
            self.close_session(session, 0, time_ms, None);
        }
    }

    /// Deletes containers and TTL nodes whose time has come, so many a minute.
    pub(super) fn reap(&mut self, now: Now) {
        if now < self.next_container_check {
            return;
        }
        let interval = self.settings.container_check_ms;
        self.next_container_check = now.plus_ms(interval);
        let time_ms = clock::wall_ms();
        self.wall.look(time_ms, now);
        let per_check = (self.settings.container_max_per_minute.saturating_mul(interval) / 60_000).max(1) as usize;
        let never_used = self.settings.container_never_used_ms;
        for path in reapable(self.tree.peek(), &self.wall, never_used, per_check) {
            let Some(zxid) = self.next_zxid() else { return };
            let age = |mtime| self.wall.age_ms(mtime);
            if let Some(Prepared::Txn { header, txn, digest }) =
                self.prepare.reap(self.tree.peek(), &path, age, zxid, time_ms)
            {
                let bytes = self.propose(header, &txn, digest);
                let effect = Effect::Txn { header, shape: Shape::Single(txn.op()), txn, digest: None };
                self.pending.push_back(Pending { zxid, effect, reply: None, bytes });
            }
        }
    }
}

/// Bytes of paths that are reaped in one check, about: each may have a megabyte. The rest comes at the next one.
const REAP_BYTES: usize = limits::PROPOSALS_OUTSTANDING_BYTES / 4;

/// The wall clock, and when it was set ahead since the start: znodes know of their age only when they were written, by
/// this clock. Whichever way it is set, nothing goes too early; what was written behind the last time goes when it should.
pub(super) struct Wall {
    /// What it said when this server's time began, with all by which it was set since.
    began: (i64, Now),
    now_ms: i64,
    steps: Vec<Step>,
}

/// The clock was set ahead.
struct Step {
    /// What it had said at most.
    until: i64,
    by_ms: i64,
}

/// By less than that it is not set: the two clocks are read one after the other.
const STEP_MS: i64 = 1_000;
/// Of more the oldest become one.
const STEPS: usize = 64;

impl Wall {
    pub(super) fn new(wall_ms: i64, now: Now) -> Wall {
        Wall { began: (wall_ms, now), now_ms: wall_ms, steps: Vec::new() }
    }

    /// Before ages are asked for.
    fn look(&mut self, wall_ms: i64, now: Now) {
        let since = now.since(self.began.1).as_millis() as i64;
        let expected = self.began.0.saturating_add(since);
        let by_ms = wall_ms.saturating_sub(expected);
        self.now_ms = wall_ms.min(expected);
        if by_ms.abs() <= STEP_MS {
            return;
        }
        self.began.0 = self.began.0.saturating_add(by_ms);
        self.now_ms = wall_ms;
        if by_ms > 0 {
            if self.steps.len() == STEPS {
                let Step { until, by_ms } = self.steps.remove(0);
                let next = &mut self.steps[0];
                *next = Step { until: next.until.max(until), by_ms: next.by_ms.saturating_add(by_ms) };
            }
            self.steps.push(Step { until: expected, by_ms });
        }
    }

    /// Of what was written at that time, at least: without what the clock was set ahead since then.
    fn age_ms(&self, written_ms: i64) -> i64 {
        let steps = self.steps.iter().filter(|step| written_ms <= step.until);
        steps.fold(self.now_ms.saturating_sub(written_ms), |age, step| age.saturating_sub(step.by_ms))
    }
}

/// Containers that had children and have none, and TTL znodes without children whose time is over.
fn reapable(tree: &Tree, wall: &Wall, never_used_ms: i64, max: usize) -> Vec<String> {
    let containers = tree.containers().filter(|node| {
        let used = node.stored_cversion() > 0;
        let forgotten = never_used_ms > 0 && wall.age_ms(node.mtime()) > never_used_ms;
        node.num_children() == 0 && (used || forgotten)
    });
    let ttl = tree.ttl_nodes().filter(|node| match node.owner() {
        Owner::Ttl(ttl) => ttl != 0 && node.num_children() == 0 && wall.age_ms(node.mtime()) > ttl,
        _ => false,
    });
    let mut bytes = 0;
    let few = containers.chain(ttl).take(max).map(|node| node.path()).take_while(|path| {
        let before = bytes;
        bytes += path.len();
        before < REAP_BYTES
    });
    few.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OwnerRules, SessionId, Zxid};
    use crate::tree::{Applied, TreeOptions};
    use crate::wire::OpCode;
    use crate::wire::txn::{Acl, NodeKind, Txn, TxnHeader};

    #[test]
    fn a_clock_that_is_set_makes_nothing_older_than_it_is() {
        const HOUR: i64 = 3_600_000;
        const MINUTE: i64 = 60_000;
        let after = |minutes: i64| Now::START.plus_ms((minutes * MINUTE) as u64);
        let mut wall = Wall::new(10 * HOUR, after(0));
        wall.look(10 * HOUR + MINUTE, after(1));
        assert_eq!((wall.age_ms(10 * HOUR), wall.age_ms(9 * HOUR)), (MINUTE, HOUR + MINUTE));
        wall.look(12 * HOUR + 2 * MINUTE, after(2));
        assert_eq!((wall.age_ms(10 * HOUR), wall.age_ms(9 * HOUR)), (2 * MINUTE, HOUR + 2 * MINUTE), "set ahead");
        // Written since.
        wall.look(12 * HOUR + 5 * MINUTE, after(5));
        assert_eq!(wall.age_ms(12 * HOUR + 3 * MINUTE), 2 * MINUTE);
        assert_eq!(wall.age_ms(10 * HOUR), 5 * MINUTE);
        wall.look(8 * HOUR + 6 * MINUTE, after(6));
        assert!(wall.age_ms(10 * HOUR) < 6 * MINUTE && wall.age_ms(12 * HOUR) < 0, "set back");
        wall.look(8 * HOUR + 8 * MINUTE, after(8));
        assert!(wall.age_ms(8 * HOUR + 7 * MINUTE) <= MINUTE);
        // However often it is set, and by a little each time.
        for round in 0..1_000 {
            wall.look(8 * HOUR + (9 + 3 * round) * MINUTE, after(9 + round));
            assert!(wall.age_ms(8 * HOUR + 8 * MINUTE) <= (1 + round) * MINUTE);
            assert!(wall.steps.len() <= STEPS);
        }
    }

    /// As one does that starts with its clock at 1970 and hears of the time later.
    #[test]
    fn what_is_written_after_the_clock_was_set_ahead_has_its_time_too() {
        const YEARS: i64 = 56 * 365 * 24 * 3_600_000;
        let mut wall = Wall::new(1_000, Now::START);
        wall.look(YEARS, Now::START.plus_ms(60_000));
        wall.look(YEARS + 60_000, Now::START.plus_ms(120_000));
        assert_eq!(wall.age_ms(YEARS + 10_000), 50_000);
    }

    #[test]
    fn a_container_that_was_never_used_is_forgotten_some_time_after_its_last_data() {
        let mut tree = Tree::new(TreeOptions::default());
        let mut apply = |txn: Txn, time: i64| {
            let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: Zxid(tree.zxid().0 + 1), time };
            tree.apply(&header, txn, &mut Applied::default());
        };
        for path in ["/left", "/written"] {
            let (op, path) = (OpCode::CreateContainer, path.to_owned());
            let (acl, kind) = (Acl::open().clone(), NodeKind::Container);
            apply(Txn::Create { op, path, data: None, acl, kind, parent_cversion: -1 }, 1_000);
        }
        apply(Txn::SetData { op: OpCode::SetData, path: "/written".into(), data: None, version: 1 }, 1_500);
        for (wall, reaped) in
            [(1_100, &[][..]), (1_101, &["/left"]), (1_600, &["/left"]), (1_601, &["/left", "/written"])]
        {
            let mut found = reapable(&tree, &Wall::new(wall, Now::START), 100, 10);
            found.sort_unstable();
            assert_eq!(found, reaped, "at {wall}");
        }
        assert!(reapable(&tree, &Wall::new(i64::MAX, Now::START), 0, 10).is_empty(), "unless it is asked for");
    }

    #[test]
    fn a_ttl_is_over_too_where_those_of_3_5_3_are_read() {
        let owner_rules = OwnerRules { extended_types: true, emulate_353_ttl: true };
        let mut tree = Tree::new(TreeOptions { owner_rules, ..TreeOptions::default() });
        // A time to live of 0 comes from the disk only, and there it means for ever.
        for (path, ttl) in [("/short", 100), ("/forever", 0)] {
            let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: Zxid(tree.zxid().0 + 1), time: 1_000 };
            let (op, path, acl) = (OpCode::CreateTtl, path.to_owned(), Acl::open().clone());
            let txn = Txn::Create { op, path, data: None, acl, kind: NodeKind::Ttl(ttl), parent_cversion: -1 };
            tree.apply(&header, txn, &mut Applied::default());
        }
        assert!(reapable(&tree, &Wall::new(1_100, Now::START), 0, 10).is_empty());
        assert_eq!(reapable(&tree, &Wall::new(1_101, Now::START), 0, 10), ["/short"]);
    }
}
