//! Delivers the feed: events to watchers, replies to writers, verdicts on sessions; strictly in its order.

use super::Parts;
use super::connection::{Connection, State, Wait};
use super::process::FORSAKEN;
use crate::clock::Now;
use crate::ids::{SessionId, Zxid};
use crate::limits;
use crate::server::feed::{Entry, FeedBatch, Told};
use crate::server::queue::{ConnId, Item};
use crate::server::reports::Gather;
use crate::server::shared::{CoreLink, Shared};
use crate::tree::Tree;
use crate::watch::{AclOf, Change};
use crate::wire::OpCode;
use crate::wire::client::{EventKind, write_event};
use std::sync::Arc;

const TOO_MUCH_AT_ONCE: &str =
    "a change is told to so many, and has so long a path, that it takes more than ostler.coreOutputBytes";

impl Parts {
    /// Everything that is in the feed now, or as much as one turn may do: then `false`, and the rest stays in the batch. `tree` is
    /// the guard that is held; see `IoCore::serve_under_guard`.
    pub fn deliver(&mut self, batch: &mut FeedBatch, tree: &Tree, link: &CoreLink, shared: &Shared) -> bool {
        let mut reports = Vec::new();
        // What is left of an earlier turn, which may have nothing left to do but its reports; then what has come since. Of
        // what is applied nothing comes under the guard.
        let is_told = (batch.entries.is_empty() || self.tell(batch, tree, &mut reports, shared))
            && (!link.feed.take(batch) || self.tell(batch, tree, &mut reports, shared));
        self.verdicts.clear();
        link.feed.set_behind(!is_told);
        if !is_told {
            batch.entries.extend(reports.into_iter().map(Entry::Report));
            return false;
        }
        for gather in reports {
            let sessionless_ms = shared.settings.sessionless_ms;
            gather.core(self, tree, |connection| connection.silence_max_ms(sessionless_ms));
        }
        true
    }

    /// All of a batch, or as much as there is room for in this turn: then `false`.
    fn tell(&mut self, batch: &mut FeedBatch, tree: &Tree, reports: &mut Vec<Arc<Gather>>, shared: &Shared) -> bool {
        let mut entries = std::mem::take(&mut batch.entries);
        while !self.has_told_enough()
            && let Some(entry) = entries.pop_front()
        {
            match entry {
                Entry::Event { zxid, told } => self.deliver_event(zxid, &told, shared),
                Entry::Reply { conn, op, frame, zxid, received, then_close } => {
                    self.deliver_reply(conn, op, batch.frame(&frame), zxid, received, then_close);
                }
                Entry::Connected { conn, frame, session, timeout_ms, began } => {
                    let Some(connection) = self.get(conn) else { continue };
                    connection.state = State::Open;
                    connection.session = session;
                    connection.timeout_ms = timeout_ms;
                    self.append(conn.slot(), batch.frame(&frame));
                    match began {
                        Some(asked) => self.answered(conn.slot(), OpCode::CreateSession, 0, tree.zxid(), asked),
                        None => {
                            self.connections[conn.slot()].facts.sent += 1;
                            self.tally.sent();
                        }
                    }
                    self.go_on(conn.slot());
                }
                Entry::Refused { conn, frame } => {
                    let Some(connection) = self.get(conn) else { continue };
                    connection.state = State::Closing;
                    connection.facts.sent += 1;
                    self.tally.sent();
                    self.append(conn.slot(), batch.frame(&frame));
                }
                Entry::Close { conn } => match self.get(conn) {
                    Some(connection) => {
                        connection.state = State::Closing;
                        connection.is_let_go = true;
                        self.doomed.push(conn.slot());
                    }
                    // It went by itself. Whoever asks waits for the answer all the same.
                    None => self.outgoing.items.push_back(Item::Closed { conn, session: SessionId::NONE }),
                },
                Entry::CloseAll => {
                    self.take_back_requests(|_| true);
                    for (slot, connection) in &mut self.connections {
                        if !matches!(connection.state, State::FourLetter | State::Closing) {
                            connection.state = State::Closing;
                            connection.is_let_go = true;
                            self.doomed.push(slot);
                        }
                    }
                }
                // After all events: before them the watches know znodes by numbers that the tree may have given to others.
                Entry::Report(gather) => reports.push(gather),
                Entry::Stall => self.stall(),
                Entry::GoOn => self.go_on_all(shared),
                Entry::Text { conn, text } => {
                    let Some(connection) = self.get(conn) else { continue };
                    connection.state = State::Closing;
                    connection.facts.sent += 1;
                    self.tally.sent();
                    self.append(conn.slot(), text.as_bytes());
                }
            }
        }
        batch.entries = entries;
        if batch.entries.is_empty() {
            batch.clear();
        }
        batch.entries.is_empty()
    }

    fn has_told_enough(&self) -> bool {
        self.told_bytes >= limits::EVENTS_TURN_BYTES || self.verdicts.has_done_enough()
    }

    /// Nobody is answered for the moment. Those that have a session wait; those that want one look for another server.
    fn stall(&mut self) {
        self.take_back_requests(|item| matches!(item, Item::Connect { .. }));
        for (slot, connection) in &mut self.connections {
            match connection.state {
                State::Fresh | State::FourLetter | State::Closing => {}
                _ if connection.may_be_kept() => {
                    connection.wait = Wait::Leader;
                    connection.is_kept = true;
                }
                _ => {
                    connection.state = State::Closing;
                    connection.is_let_go = true;
                    self.doomed.push(slot);
                }
            }
        }
    }

    /// Of what this turn would have handed over.
    fn take_back_requests(&mut self, which: impl Fn(&Item) -> bool) {
        let is_request = |item: &Item| {
            matches!(item, Item::Write { .. } | Item::Sync { .. } | Item::Connect { .. } | Item::StillHere { .. })
        };
        self.outgoing.items.retain(|item| !is_request(item) || !which(item));
    }

    fn go_on_all(&mut self, shared: &Shared) {
        // What is read from here on belongs to the new time of serving.
        self.outgoing.term = shared.serving_term();
        let waits = |connection: &Connection| {
            connection.wait == Wait::Leader && matches!(connection.state, State::Open | State::Ending)
        };
        let waiting: Vec<usize> =
            self.connections.iter().filter(|(_, connection)| waits(connection)).map(|(slot, _)| slot).collect();
        for slot in waiting {
            let connection = &self.connections[slot];
            if connection.in_flight > 0 {
                if connection.may_have_been_left(self.now) {
                    self.doom(slot, FORSAKEN);
                    continue;
                }
                // Before whatever it asks from here on.
                let (conn, session) = (connection.id, connection.session);
                self.outgoing.items.push_back(Item::StillHere { conn, session });
            }
            self.go_on(slot);
        }
    }

    /// The connection, if it is still the one that is meant.
    fn get(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.connections.get_mut(conn.slot()).filter(|connection| connection.id == conn)
    }

    fn append(&mut self, slot: usize, bytes: &[u8]) {
        let connection = &mut self.connections[slot];
        connection.output.buffer(&mut self.pool).extend_from_slice(bytes);
        connection.pushed += bytes.len();
        self.wants_flush(slot);
    }

    fn deliver_reply(&mut self, conn: ConnId, op: OpCode, frame: &[u8], zxid: Zxid, received: Now, then_close: bool) {
        let Some(connection) = self.get(conn) else { return };
        assert!(connection.in_flight > 0, "a reply to nothing");
        connection.in_flight -= 1;
        if connection.is_let_go {
            return;
        }
        if connection.wait != Wait::Leader {
            connection.is_kept = false;
        }
        connection.spoke_late &= connection.in_flight > 0;
        let go_on = match connection.wait {
            Wait::Writes => connection.in_flight == 0,
            _ => false,
        };
        if then_close {
            connection.state = State::Closing;
        }
        self.tally.response(frame.len(), self.now);
        self.append(conn.slot(), frame);
        let int = |at: usize| i32::from_be_bytes(frame[at..at + 4].try_into().expect("a reply has a header"));
        let xid = int(4);
        // Upstream a write that has failed is noted as no operation at all; a multi's failure is in its body.
        let op = if int(16) != 0 && op.is_write() { OpCode::Error } else { op };
        self.answered(conn.slot(), op, xid, zxid, received);
        if go_on {
            self.go_on(conn.slot());
        }
    }

    fn answered(&mut self, slot: usize, op: OpCode, xid: i32, zxid: Zxid, received: Now) {
        let latency_ms = self.now.since(received).as_millis() as u64;
        self.connections[slot].facts.answered(op, xid, zxid, self.now, latency_ms);
        self.tally.answered_write(latency_ms);
    }

    /// Requests that were kept may be worked off now.
    fn go_on(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.wait = Wait::Nothing;
        if connection.readable {
            self.taken_up.push(slot);
        }
        if !connection.input.is_empty() {
            self.make_ready(slot);
        }
    }

    fn deliver_event(&mut self, zxid: Zxid, told: &Told, shared: &Shared) {
        let Parts { watches, connections, pool, flush, tally, verdicts, told_bytes, doomed, farewells, .. } = self;
        let touched = &told.touched;
        let change =
            Change { kind: touched.kind, path: &touched.path, znode: touched.slot, parent: touched.parent_slot };
        let heard = watches.trigger(&change, &mut |conn, kind, path, acl_of| {
            let slot = conn as usize;
            let connection = &mut connections[slot];
            let acl = match acl_of {
                AclOf::Node => &touched.acl,
                AclOf::Parent => &touched.parent_acl,
            };
            let may_know = match acl {
                None => true,
                Some(acl) => verdicts.may_hear(acl, &connection.auth, &shared.settings.auth),
            };
            if !may_know || !matches!(connection.state, State::Open | State::Ending) {
                return;
            }
            if *told_bytes > shared.settings.core_output_bytes {
                // What it misses here it is told when it comes back with its watches.
                connection.state = State::Closing;
                connection.is_let_go = true;
                farewells.push((slot, TOO_MUCH_AT_ONCE.to_owned()));
                doomed.push(slot);
                return;
            }
            let output = connection.output.buffer(pool);
            let before = output.len();
            write_event(output, kind, path, zxid.to_wire());
            let len = output.len() - before;
            connection.pushed += len;
            *told_bytes += len;
            connection.facts.sent += 1;
            tally.sent();
            if !connection.to_flush {
                connection.to_flush = true;
                flush.push(slot);
            }
        });
        if let Some([data, child, parent]) = told.add(heard) {
            tally.triggered(touched.kind, data);
            tally.triggered(touched.kind, child);
            tally.triggered(EventKind::NodeChildrenChanged, parent);
        }
    }
}
