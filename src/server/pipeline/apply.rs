//! Applies what has been committed, and tells the cores.
//!
//! Under the write guard: a batch of transactions is applied, each one's events and then its reply go into the feeds,
//! and the feeds are pushed *before* the guard is let go (see `feed`). The reply to a write carries its own zxid and the
//! Stat from its own apply, never the state at delivery.

use super::{Effect, Pending, Pipeline, ReplyTo, connect};
use crate::clock;
use crate::ids::Zxid;
use crate::limits;
use crate::metrics::Counter;
use crate::prepare::reply::{self, Reply};
use crate::server::feed::{Entry, FeedBatch, Told};
use crate::server::queue::ConnId;
use crate::server::shared::Shared;
use crate::tree::{Applied, Tree};
use crate::watch::{Change, PathHashes};
use crate::wire::client::ReplyHeader;
use crate::wire::txn::{Txn, TxnDigest, TxnHeader};
use crate::wire::writer::{Frame, Jute};
use crate::wire::{ErrorCode, Reader};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Pipeline {
    pub(super) fn apply_committed(&mut self) {
        while self.can_apply() {
            // Asked before the guard is taken, so that nothing waits under it.
            for core in &self.shared.cores {
                if !core.feed.has_room() {
                    core.feed.pipeline_waits.store(true, Ordering::SeqCst);
                }
            }
            if !self.feeds_have_room() || !self.snapshots.has_room(self.tree.peek()) {
                break;
            }
            self.apply_batch();
            self.ring();
            self.snapshot_if_due();
        }
        // What needed no guard: refused and closed connections.
        self.push_feeds();
        self.ring();
    }

    fn apply_batch(&mut self) {
        let committed = self.applicable();
        let mut transactions = 0;
        let mut attach = None;
        let now = clock::now();
        let mut gate = self.sync_gate();
        let digests_from = self.member.as_ref().map_or(Zxid::ZERO, |member| member.digests_from);
        let mut mismatch = None;
        {
            let Pipeline { tree, pending, pending_bytes, feeds, applied, shared, sessions, opening, .. } = self;
            let mut tree = tree.write();
            while transactions < limits::WRITE_GUARD_TXNS && pending.front().is_some_and(|p| p.zxid <= committed) {
                if pending.front().is_some_and(|first| gate.is_shut(first)) {
                    break;
                }
                let Some(Pending { effect, reply, bytes, .. }) = pending.pop_front() else { break };
                transactions += 1;
                *pending_bytes -= bytes;
                match effect {
                    Effect::Txn { header, txn, shape, digest } => {
                        transactions += txn.parts();
                        let closes = matches!(txn, Txn::CloseSession { .. });
                        if let Txn::CreateSession { timeout_ms } = txn {
                            let opened = opening.remove(&header.session);
                            sessions.add(header.session, timeout_ms, opened.map(|opened| opened.owner.into()), now);
                            if opened.is_some_and(|opened| opened.closing) {
                                sessions.set_closing(header.session);
                            }
                        }
                        apply(&mut tree, &header, txn, applied, shared, feeds);
                        if let Some(digest) = digest.filter(|digest| digest.version == TxnDigest::VERSION)
                            && header.zxid > digests_from
                            && digest.tree != tree.digest()
                        {
                            mismatch.get_or_insert((header.zxid, digest.tree, tree.digest()));
                        }
                        if let Some(to) = reply {
                            let feed = &mut feeds[to.conn.core()];
                            let start = feed.bytes.len() as u32;
                            match reply::write_reply(&mut feed.bytes, &shape, to.xid, &header, applied) {
                                Reply::Written => {
                                    let frame = start..feed.bytes.len() as u32;
                                    answer(feed, to, frame, header.zxid, closes);
                                }
                                Reply::None => feed.entries.push_back(Entry::Close { conn: to.conn }),
                            }
                        }
                        if closes && let Some(owner) = sessions.remove(header.session) {
                            let owner = ConnId::from(owner);
                            // The one who asked is closed behind its reply.
                            if !owner.is_link() && reply.is_none_or(|to| to.conn != owner) {
                                feeds[owner.core()].entries.push_back(Entry::Close { conn: owner });
                            }
                        }
                    }
                    Effect::Open { header, timeout_ms, conn, read_only, received } => {
                        apply(&mut tree, &header, Txn::CreateSession { timeout_ms }, applied, shared, feeds);
                        sessions.add(header.session, timeout_ms, Some(conn.into()), now);
                        connect::connected(feeds, conn, header.session, timeout_ms, read_only, Some(received));
                    }
                    Effect::Sync { record, confirmed } => {
                        if !confirmed {
                            gate.pass();
                        }
                        let Some(to) = reply else { continue };
                        let zxid = tree.zxid();
                        let feed = &mut feeds[to.conn.core()];
                        let start = feed.bytes.len() as u32;
                        write_sync_reply(&mut feed.bytes, to.xid, zxid, &record);
                        let frame = start..feed.bytes.len() as u32;
                        answer(feed, to, frame, zxid, false);
                    }
                    Effect::Refused(err) => {
                        let Some(to) = reply else { continue };
                        let zxid = tree.zxid();
                        let feed = &mut feeds[to.conn.core()];
                        let start = feed.bytes.len() as u32;
                        ReplyHeader { xid: to.xid, zxid: zxid.to_wire(), err }.write_frame(&mut feed.bytes);
                        let frame = start..feed.bytes.len() as u32;
                        answer(feed, to, frame, zxid, false);
                    }
                    Effect::Attach(reconnect) => {
                        attach = Some(reconnect);
                        break;
                    }
                }
            }
            push(feeds, shared);
            shared.applied.store(tree.zxid().0, Ordering::Release);
            drop(tree);
        }
        self.prepare.applied(self.tree.peek().zxid());
        self.note_sync_gate(&gate);
        if let Some((zxid, theirs, here)) = mismatch {
            self.recorder.count(Counter::DigestMismatchesCount, 1);
            let wrong = self.member.as_mut().map_or(0, |member| {
                member.digests_wrong += 1;
                member.digests_wrong
            });
            // It stays wrong; the first times are news, then ever fewer of them.
            if wrong.is_power_of_two() {
                tracing::error!(
                    "after {zxid} this server's tree has the digest {here:#x}, the leader's {theirs:#x}: they differ. Stop \
                 one of the two, set its data directory aside and let it start empty; it gets the other's state."
                );
            }
        }
        if let Some(reconnect) = attach {
            self.attach(reconnect);
        }
        self.push_feeds();
    }

    pub(super) fn push_feeds(&mut self) {
        push(&mut self.feeds, &self.shared);
    }

    /// After the guard has been let go: whom the feed concerns is woken.
    pub(super) fn ring(&self) {
        for core in &self.shared.cores {
            if !core.feed.is_empty() {
                core.bell.ring();
            }
        }
    }
}

fn push(feeds: &mut [FeedBatch], shared: &Shared) {
    for (feed, core) in feeds.iter_mut().zip(&shared.cores) {
        if !feed.entries.is_empty() {
            core.feed.push(feed);
        }
    }
}

fn answer(feed: &mut FeedBatch, to: ReplyTo, frame: std::ops::Range<u32>, zxid: Zxid, then_close: bool) {
    feed.entries.push_back(Entry::Reply { conn: to.conn, op: to.op, frame, zxid, received: to.received, then_close });
}

/// Applies one transaction and puts its events into the feeds of the cores that may have watchers.
fn apply(
    tree: &mut Tree,
    header: &TxnHeader,
    txn: Txn,
    applied: &mut Applied,
    shared: &Shared,
    feeds: &mut [FeedBatch],
) {
    applied.clear();
    tree.apply(header, txn, applied);
    for touched in &applied.touched {
        let (kind, path, parent) = (touched.kind, &*touched.path, touched.parent_slot);
        let hashes = PathHashes::new(&Change { kind, path, znode: touched.slot, parent });
        let mut told: Option<Arc<Told>> = None;
        for (feed, core) in feeds.iter_mut().zip(&shared.cores) {
            if core.watches.might_watch(&hashes) {
                let told = told.get_or_insert_with(|| Arc::new(Told::new(touched.clone())));
                told.one_more_core();
                feed.tell(header.zxid, told.clone());
            }
        }
    }
}

/// The path comes back as it was sent, even null; a record that does not decode is refused.
fn write_sync_reply(out: &mut Vec<u8>, xid: i32, zxid: Zxid, record: &[u8]) {
    let Ok(path) = crate::wire::client::read_path(&mut Reader::new(record)) else {
        ReplyHeader { xid, zxid: zxid.to_wire(), err: ErrorCode::MARSHALLING_ERROR }.write_frame(out);
        return;
    };
    let frame = Frame::reply(out, xid, zxid);
    match path {
        Some(path) => frame.bytes.put_text(&path),
        None => frame.bytes.put_null(),
    }
    frame.close();
}
