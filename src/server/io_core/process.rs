//! Works off what a connection has sent: frames, the handshake, reads answered on the spot, writes for the pipeline.

use super::Parts;
use super::connection::{State, Wait};
use crate::admin::{self, Word};
use crate::ids::{SessionId, Zxid};
use crate::limits;
use crate::read::{self, Asker};
use crate::server::admin_thread::FourLetterRequest;
use crate::server::queue::Item;
use crate::server::shared::Shared;
use crate::session;
use crate::tree::Tree;
use crate::wire::client::{AuthPacket, ConnectRequest, PASSWORD_BYTES, ReplyHeader, RequestHeader, xid};
use crate::wire::writer::{Frame, Jute};
use crate::wire::{ErrorCode, OpCode, Reader};
use std::borrow::Cow;
use std::sync::atomic::Ordering;

/// What may be done under one guard of the tree.
#[derive(Default)]
pub struct Budget {
    bytes: usize,
    requests: usize,
}

impl Budget {
    pub fn is_spent(&self) -> bool {
        self.bytes >= limits::READ_GUARD_BYTES || self.requests >= limits::READ_GUARD_REQUESTS
    }

    /// What has been done, in small reads.
    pub fn requests(&self) -> usize {
        self.requests.max(self.bytes / limits::READ_REQUEST_BYTES)
    }
}

/// So much of `Asker::work` takes about as long as a small read.
const WORK_OF_A_REQUEST: usize = 4;

/// What became of a frame.
enum Step {
    /// Worked off; on to the next.
    Done,
    /// Not now: the frame stays.
    Wait(Wait),
    /// Nothing more is read from this connection.
    Stop,
    /// The connection is to be closed, without a word.
    Close(&'static str),
}

/// The zxid in a reply that no state of the tree stands behind.
const NO_ZXID: i64 = 0;
const UNKNOWN_OP_ZXID: i64 = -1;

pub(super) const FORSAKEN: &str =
    "it has been silent for long and through a change of leader; its client may have gone elsewhere meanwhile";

impl Parts {
    /// Works off bytes that lie in the arena; what is left moves to the connection's own input.
    pub fn process_arrived(&mut self, slot: usize, bytes: &[u8], tree: &Tree, shared: &Shared, budget: &mut Budget) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.wait == Wait::Leader {
            // It has begun to wait in this very turn.
            if connection.is_forsaken(self.now) {
                return self.doom(slot, FORSAKEN);
            }
            connection.input.push(bytes, &mut self.pool);
            return self.heard_from(slot);
        }
        let done = self.process(slot, bytes, tree, shared, budget);
        if done < bytes.len() {
            let connection = &mut self.connections[slot];
            if matches!(connection.state, State::Fresh | State::Connecting | State::Open) {
                connection.input.push(&bytes[done..], &mut self.pool);
            }
        }
    }

    /// For what has come when a turn has done enough: it goes on in the next one.
    pub fn keep_arrived(&mut self, slot: usize, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.is_forsaken(self.now) {
            return self.doom(slot, FORSAKEN);
        }
        connection.input.push(bytes, &mut self.pool);
        if connection.state == State::Open {
            self.heard_from(slot);
        }
        self.make_ready(slot);
    }

    /// Its kept input is worked off in its turn.
    pub fn make_ready(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if !std::mem::replace(&mut connection.is_ready, true) {
            self.ready.push_back(slot);
        }
    }

    /// Works off bytes that the connection had to keep.
    pub fn process_kept(&mut self, slot: usize, tree: &Tree, shared: &Shared, budget: &mut Budget) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.is_ready = false;
        if connection.input.is_empty() || matches!(connection.wait, Wait::Output | Wait::Leader) {
            return;
        }
        connection.wait = Wait::Nothing;
        let mut input = std::mem::take(&mut connection.input);
        let done = self.process(slot, input.pending(), tree, shared, budget);
        input.consume(done, &mut self.pool);
        let connection = &mut self.connections[slot];
        match connection.state {
            State::Fresh | State::Connecting | State::Open => connection.input = input,
            _ => input.release(&mut self.pool),
        }
        if connection.readable && connection.wait == Wait::Nothing {
            // What is in its socket was left there while its input was full.
            self.taken_up.push(slot);
        }
    }

    /// Returns how many bytes have been worked off.
    fn process(&mut self, slot: usize, bytes: &[u8], tree: &Tree, shared: &Shared, budget: &mut Budget) -> usize {
        let mut done = 0;
        loop {
            let connection = &mut self.connections[slot];
            let rest = &bytes[done..];
            if rest.len() < 4 || !matches!(connection.state, State::Fresh | State::Open) {
                return done;
            }
            if budget.is_spent() {
                // It goes on when the pipeline has had its chance at the tree.
                self.make_ready(slot);
                return done;
            }
            let head: [u8; 4] = rest[..4].try_into().expect("four bytes");
            if connection.state == State::Fresh
                && let Some(step) = self.four_letter_word(slot, head, &rest[4..], shared)
            {
                if let Step::Close(why) = step {
                    self.doom(slot, why);
                }
                return bytes.len();
            }
            let len = i32::from_be_bytes(head);
            if len < 0 || len as usize > shared.settings.frame_max {
                self.doom_because(
                    slot,
                    format_args!("a frame of {len} bytes (jute.maxbuffer is {})", shared.settings.frame_max),
                );
                return bytes.len();
            }
            let Some(frame) = rest.get(4..4 + len as usize) else { return done };
            let connection = &mut self.connections[slot];
            if connection.is_forsaken(self.now) {
                self.doom(slot, FORSAKEN);
                return bytes.len();
            }
            connection.hear(self.now);
            let step = if connection.state == State::Fresh {
                self.connect(slot, frame, tree, shared)
            } else {
                self.request(slot, frame, tree, shared, budget)
            };
            match step {
                Step::Done => done += 4 + len as usize,
                Step::Wait(wait) => {
                    self.connections[slot].wait = wait;
                    if wait == Wait::Room {
                        self.want_room.push_back(slot);
                    }
                    return done;
                }
                Step::Stop => return bytes.len(),
                Step::Close(why) => {
                    self.doom(slot, why);
                    return bytes.len();
                }
            }
        }
    }

    pub(super) fn doom(&mut self, slot: usize, why: &'static str) {
        self.doom_because(slot, format_args!("{why}"));
    }

    /// Closes at the end of the turn, with one line in the log; the line is written then, not under the guard.
    fn doom_because(&mut self, slot: usize, why: std::fmt::Arguments<'_>) {
        let connection = &mut self.connections[slot];
        connection.state = State::Closing;
        self.farewells.push((slot, why.to_string()));
        self.doomed.push(slot);
    }

    /// `None` if the four bytes are no word that the server knows: then they are a length.
    fn four_letter_word(&mut self, slot: usize, head: [u8; 4], rest: &[u8], shared: &Shared) -> Option<Step> {
        let word = Word::from_bytes(head)?;
        let connection = &mut self.connections[slot];
        connection.facts.received += 1;
        self.tally.received();
        let at_once = match shared.settings.words.allows(word) {
            true => admin::at_once(word, shared.is_serving()).map(Cow::Borrowed),
            false => Some(admin::refusal(word).into()),
        };
        if let Some(text) = at_once {
            connection.state = State::Closing;
            connection.facts.sent += 1;
            connection.output.buffer(&mut self.pool).extend_from_slice(text.as_bytes());
            self.tally.sent();
            self.wants_flush(slot);
            return Some(Step::Stop);
        }
        let mask = rest.first_chunk().map(|bytes| i64::from_be_bytes(*bytes));
        if word == Word::Stmk && mask.is_none() {
            return Some(Step::Close("stmk without a mask"));
        }
        connection.state = State::FourLetter;
        match shared.admin.ask(FourLetterRequest { word, mask, conn: connection.id }) {
            true => Some(Step::Stop),
            false => Some(Step::Close("too many four-letter words at once")),
        }
    }

    fn connect(&mut self, slot: usize, frame: &[u8], tree: &Tree, shared: &Shared) -> Step {
        if !shared.is_serving() {
            return Step::Close("this server is not part of a quorum now; the client tries another");
        }
        let connection = &mut self.connections[slot];
        let Ok(request) = ConnectRequest::read(frame) else {
            return Step::Close("a connect request that is malformed");
        };
        connection.facts.received += 1;
        self.tally.received();
        self.tally.connection_request();
        // The newest zxid that a client has seen never goes back, whichever server it reconnects to.
        if request.last_zxid_seen > tree.zxid().to_wire() {
            return Step::Close("the client has seen a newer zxid than this server's; it must try another server");
        }
        let settings = &shared.settings;
        let timeout_ms =
            session::negotiate(request.timeout_ms, settings.session_timeout_min_ms, settings.session_timeout_max_ms);
        connection.state = State::Connecting;
        connection.session = request.session;
        // One of another length is wrong whatever it says. It is looked at later, and would wait there in all its length.
        let password = request.password.filter(|password| password.len() == PASSWORD_BYTES);
        let password = self.outgoing.keep(password.unwrap_or_default());
        if request.session != SessionId::NONE {
            self.tally.connection_revalidate();
        }
        self.outgoing.items.push_back(Item::Connect {
            conn: connection.id,
            session: request.session,
            password,
            timeout_ms,
            read_only: request.read_only,
            received: self.now,
        });
        Step::Done
    }

    fn request(&mut self, slot: usize, frame: &[u8], tree: &Tree, shared: &Shared, budget: &mut Budget) -> Step {
        let connection = &mut self.connections[slot];
        let mut reader = Reader::new(frame);
        let Ok(header) = RequestHeader::read(&mut reader) else { return Step::Close("a request without a header") };
        let body = reader.rest();
        let op = OpCode::from_wire(header.op);
        match op {
            _ if !shared.settings.auth.admits(&connection.auth) && !matches!(op, Some(OpCode::Auth | OpCode::Sasl)) => {
                if connection.in_flight > 0 {
                    return Step::Wait(Wait::Writes);
                }
                self.note_request(slot);
                self.reply_error(slot, header.xid, NO_ZXID, ErrorCode::SESSION_CLOSED_REQUIRE_SASL_AUTH);
                self.connections[slot].state = State::Closing;
                Step::Stop
            }
            Some(op) if read::is_read(op) => {
                if connection.in_flight > 0 {
                    return Step::Wait(Wait::Writes);
                }
                if self.has_much_output(slot) {
                    return Step::Wait(Wait::Output);
                }
                self.note_request(slot);
                self.answer(slot, op, header.xid, body, tree, shared, budget)
            }
            Some(op) if op.is_write() || op == OpCode::Sync => {
                if connection.in_flight as usize >= limits::CONNECTION_IN_FLIGHT_MAX {
                    return Step::Wait(Wait::Writes);
                }
                // Nobody gets what those who wait already have waited for.
                let is_next = self.want_room.is_empty();
                if !is_next || !shared.cores[self.index].queue.has_room() || self.outgoing.is_full() {
                    return Step::Wait(Wait::Room);
                }
                self.note_request(slot);
                budget.requests += 1;
                self.queue_write(slot, op, header.xid, body)
            }
            Some(OpCode::Auth) => {
                if self.has_much_output(slot) {
                    return Step::Wait(Wait::Output);
                }
                // It is held against each that is there already, and digested.
                let work = self.connections[slot].auth.count() + body.len() / 32;
                budget.requests += 1 + work / WORK_OF_A_REQUEST;
                self.note_request(slot);
                self.authenticate(slot, header.xid, body, shared)
            }
            Some(OpCode::Sasl) => {
                if self.has_much_output(slot) {
                    return Step::Wait(Wait::Output);
                }
                budget.requests += 1;
                self.note_request(slot);
                self.sasl(slot, header.xid, body)
            }
            _ => {
                if connection.in_flight > 0 {
                    return Step::Wait(Wait::Writes);
                }
                self.note_request(slot);
                self.reply_error(slot, header.xid, UNKNOWN_OP_ZXID, ErrorCode::UNIMPLEMENTED);
                self.connections[slot].state = State::Closing;
                Step::Stop
            }
        }
    }

    /// Any request keeps its session alive; the pipeline is told once every half tick.
    fn note_request(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.facts.received += 1;
        self.tally.received();
        self.heard_from(slot);
    }

    #[inline]
    pub(super) fn heard_from(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.hear(self.now);
        if connection.heard_round != self.heard_round {
            connection.heard_round = self.heard_round;
            self.heard.push(connection.session);
        }
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the one hot call; a struct would only be taken apart again")]
    fn answer(
        &mut self,
        slot: usize,
        op: OpCode,
        raw_xid: i32,
        body: &[u8],
        tree: &Tree,
        shared: &Shared,
        budget: &mut Budget,
    ) -> Step {
        let connection = &mut self.connections[slot];
        let xid = if op == OpCode::Ping { xid::PING } else { raw_xid };
        let asker = Asker::new(slot as u32, connection.session, &connection.auth, &shared.settings.auth);
        let out = connection.output.buffer(&mut self.pool);
        let before = out.len();
        let code = read::answer(op, xid, body, tree, &mut self.watches, &asker, out);
        let written = out.len() - before;
        budget.bytes += written;
        budget.requests += 1 + asker.work() / WORK_OF_A_REQUEST;
        connection.facts.answered(op, xid, tree.zxid(), self.now, 0);
        self.tally.answered_read(written, self.now);
        self.wants_flush(slot);
        if code == ErrorCode::THROTTLED_OP { self.watches_enough(slot, op) } else { Step::Done }
    }

    /// A client does not look at the answer to setWatches: with a part of its watches it would wait for events in vain.
    #[cold]
    fn watches_enough(&mut self, slot: usize, op: OpCode) -> Step {
        self.tally.throttled();
        if matches!(op, OpCode::SetWatches | OpCode::SetWatches2) {
            return Step::Close("more watches than ostler.connectionWatchBytes allows");
        }
        if self.log_rate.allows(self.now) {
            let address = self.connections[slot].address;
            tracing::warn!("{address} has as many watches as ostler.connectionWatchBytes allows; it gets no more");
        }
        Step::Done
    }

    fn queue_write(&mut self, slot: usize, op: OpCode, xid: i32, body: &[u8]) -> Step {
        let connection = &mut self.connections[slot];
        let body = self.outgoing.keep(body);
        connection.in_flight += 1;
        let (conn, session, received) = (connection.id, connection.session, self.now);
        self.outgoing.items.push_back(match op {
            OpCode::Sync => Item::Sync { conn, session, xid, body, received },
            _ => Item::Write { conn, session, xid, op, body, auth: connection.auth.clone(), received },
        });
        if op == OpCode::CloseSession {
            connection.state = State::Ending;
            return Step::Stop;
        }
        Step::Done
    }

    /// Answered at once and out of order, as upstream; what it changes counts for the requests behind it.
    fn authenticate(&mut self, slot: usize, xid: i32, body: &[u8], shared: &Shared) -> Step {
        let Ok(packet) = AuthPacket::read(&mut Reader::new(body)) else {
            return Step::Close("an auth packet that is malformed");
        };
        let connection = &mut self.connections[slot];
        let code = match connection.auth.authenticate(packet.scheme.as_deref(), packet.auth, &shared.settings.auth) {
            Ok(()) => ErrorCode::OK,
            Err(code) => code,
        };
        self.reply_error(slot, xid, NO_ZXID, code);
        if code == ErrorCode::OK {
            return Step::Done;
        }
        shared.auth_failed.fetch_add(1, Ordering::Relaxed);
        self.connections[slot].state = State::Closing;
        Step::Stop
    }

    /// Without credentials configured the server says so with a null token, which is no error.
    fn sasl(&mut self, slot: usize, xid: i32, body: &[u8]) -> Step {
        let token = Reader::new(body).buffer("token");
        if !matches!(token, Ok(Some(_))) {
            return Step::Close("a sasl packet without a token");
        }
        let connection = &mut self.connections[slot];
        let frame = Frame::reply(connection.output.buffer(&mut self.pool), xid, Zxid::ZERO);
        frame.bytes.put_null();
        frame.close();
        connection.facts.sent += 1;
        self.tally.sent();
        self.wants_flush(slot);
        Step::Done
    }

    /// Whether a client has to read first. What is answered here at once waits for that, so it needs no other bound.
    fn has_much_output(&mut self, slot: usize) -> bool {
        let has_much = self.connections[slot].output.len() > limits::CONNECTION_OUTPUT_PAUSE;
        if has_much {
            // What it asks has to wait; that it says something counts at once.
            self.heard_from(slot);
            self.wants_flush(slot);
        }
        has_much
    }

    /// A reply that is only a header.
    fn reply_error(&mut self, slot: usize, xid: i32, zxid: i64, err: ErrorCode) {
        let connection = &mut self.connections[slot];
        ReplyHeader { xid, zxid, err }.write_frame(connection.output.buffer(&mut self.pool));
        connection.facts.sent += 1;
        self.tally.sent();
        self.wants_flush(slot);
    }
}
