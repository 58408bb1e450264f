//! One core: its connections, from readiness to bytes out.
//!
//! A turn of the loop is the design; its order carries the ordering rules of docs/architecture.md:
//!
//! 1. receive what sockets have (system calls, no guard);
//! 2. under one guard of the tree: first the feed (what has been committed: events, then replies), then the reads;
//! 3. hand the writes over, send the replies, close what is to be closed (system calls, no guard).
//!
//! Requests are decoded where they were received. A connection whose next request has to wait keeps its bytes, and costs
//! nothing until the feed, room in the pipeline, or its socket lets it go on. So a read behind a write of the same
//! session waits for that write, and a write behind such a read is handed over only when the read has been answered.
//!
//! Runs on: a thread of its own, one for each core.

mod accept;
mod connection;
mod deliver;
mod hearing;
mod process;
mod send;
mod tally;

pub use accept::Acceptor;
pub use connection::{Connection, State, Wait};

use crate::clock::{self, Now};
use crate::ids::SessionId;
use crate::limits;
use crate::metrics::Recorder;
use crate::net::buffers::{Received, receive};
use crate::net::{Alarm, Pool};
use crate::server::feed::FeedBatch;
use crate::server::log_rate::LogRate;
use crate::server::queue::{Batch, Item};
use crate::server::shared::{CoreLink, Shared};
use crate::server::tree_lock;
use crate::watch::WatchTable;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::net::Shutdown;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tally::Tally;

/// The doorbell's token; the listener's and the alarm's are beside it, and connections have their slot.
pub const BELL: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
const ALARM: Token = Token(usize::MAX - 2);

/// Bytes that a turn receives before it answers, and the most from one connection in one system call.
const ARENA_BYTES: usize = 512 << 10;
const RECEIVE_BYTES: usize = 64 << 10;
/// Below this much free room the arena is worked off first.
const ARENA_MIN: usize = 8 << 10;

/// Connections that said nothing for too long are looked for this often, as upstream's buckets.
const SWEEP_MS: u64 = 10_000;

/// How long a stop waits for requests under way and clients that read slowly.
const DRAIN_MS: u64 = 2_000;

pub struct IoCore {
    index: usize,
    poll: Poll,
    alarm: Alarm,
    shared: Arc<Shared>,
    reader: tree_lock::Reader,
    acceptor: Option<Acceptor>,
    parts: Parts,
    /// Connections whose sockets may have bytes.
    readable: Vec<usize>,
    arena: Vec<u8>,
    arrived: Vec<(usize, Range<usize>)>,
    feed: FeedBatch,
    next_sweep: Now,
    next_report: Option<Now>,
}

/// What processing and delivery change: everything of a core but its poll, its guard and its arena.
pub struct Parts {
    index: usize,
    pub connections: Slab<Connection>,
    pub watches: WatchTable,
    pub pool: Pool,
    pub outgoing: Batch,
    /// Connections that may go on with input that they have kept.
    pub ready: VecDeque<usize>,
    pub verdicts: hearing::MayHear,
    pub flush: Vec<usize>,
    /// Bytes that have been left after the last send to each connection, all together.
    pub waiting: usize,
    /// Bytes of events that this turn has put into buffers.
    pub told_bytes: usize,
    /// Connections to be closed at the end of the turn.
    pub doomed: Vec<usize>,
    /// What the log says of connections that end badly; written when no guard is held.
    pub farewells: Vec<(usize, String)>,
    pub log_rate: LogRate,
    /// Connections that go on and have bytes left in their sockets.
    pub taken_up: Vec<usize>,
    /// Connections that wait for room in the pipeline.
    pub want_room: VecDeque<usize>,
    /// Sessions heard from since the last report.
    pub heard: Vec<SessionId>,
    pub heard_round: u32,
    /// Counts turns, for `Connection::received_in`.
    turn: u32,
    pub generation: u32,
    pub now: Now,
    pub tally: Tally,
}

impl Parts {
    /// Notes that a connection has output to be sent at the end of the turn.
    pub fn wants_flush(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if !connection.to_flush {
            connection.to_flush = true;
            self.flush.push(slot);
        }
    }

    /// What is left after a send.
    #[inline]
    fn count_waiting(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let left = connection.output.len();
        self.waiting = self.waiting - connection.waiting + left;
        connection.waiting = left;
    }
}

impl IoCore {
    /// `poll` is the one that the core's doorbell was made for.
    pub fn new(
        index: usize,
        poll: Poll,
        shared: Arc<Shared>,
        reader: tree_lock::Reader,
        acceptor: Option<std::net::TcpListener>,
        recorder: Recorder,
    ) -> std::io::Result<IoCore> {
        let acceptor = match acceptor {
            Some(listener) => Some(Acceptor::new(listener, &poll, LISTENER, shared.settings.tcp_keep_alive)?),
            None => None,
        };
        let alarm = Alarm::new(&poll, ALARM)?;
        let watches = WatchTable::new(shared.cores[index].watches.clone(), shared.settings.watch_bytes);
        Ok(IoCore {
            index,
            poll,
            alarm,
            shared,
            reader,
            acceptor,
            parts: Parts {
                index,
                connections: Slab::new(),
                watches,
                pool: Pool::default(),
                outgoing: Batch::default(),
                ready: VecDeque::new(),
                verdicts: hearing::MayHear::default(),
                flush: Vec::new(),
                waiting: 0,
                told_bytes: 0,
                doomed: Vec::new(),
                farewells: Vec::new(),
                log_rate: LogRate::default(),
                taken_up: Vec::new(),
                want_room: VecDeque::new(),
                heard: Vec::new(),
                heard_round: 0,
                turn: 0,
                generation: 0,
                now: clock::now(),
                tally: Tally::new(recorder),
            },
            readable: Vec::new(),
            arena: vec![0; ARENA_BYTES],
            arrived: Vec::new(),
            feed: FeedBatch::default(),
            next_sweep: clock::now().plus_ms(SWEEP_MS),
            next_report: None,
        })
    }

    fn link(&self) -> &CoreLink {
        &self.shared.cores[self.index]
    }

    /// Until the server stops.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut drain_until = None;
        loop {
            if self.shared.is_stopping() {
                let until = *drain_until.get_or_insert(clock::now().plus_ms(DRAIN_MS));
                if self.is_drained() || self.shared.has_failed() || clock::now() >= until {
                    break;
                }
            }
            if let Err(error) = self.sleep(&mut events, drain_until) {
                tracing::error!("core {}: poll failed: {error}", self.index);
                self.shared.fail();
                break;
            }
            self.turn(&events);
        }
        self.close_all();
        // Nobody waits for what it has not told.
        self.link().feed.set_behind(false);
        self.shared.core_ended();
    }

    /// Everything that was read before the stop has been answered, and the answers have been sent.
    fn is_drained(&self) -> bool {
        let idle = |connection: &Connection| {
            connection.in_flight == 0 && connection.output.is_empty() && connection.state != State::Connecting
        };
        self.parts.ready.is_empty()
            && self.parts.want_room.is_empty()
            && self.parts.connections.iter().all(|(_, connection)| idle(connection))
    }

    fn sleep(&mut self, events: &mut Events, drain_until: Option<Now>) -> std::io::Result<()> {
        let link = self.link();
        link.bell.about_to_sleep();
        let pending = (!self.readable.is_empty() && !self.shared.is_stopping())
            || !self.parts.ready.is_empty()
            || !link.feed.is_empty()
            || !self.feed.entries.is_empty()
            || !link.arrivals.is_empty()
            // Room that came before the pipeline was told that somebody waits for it.
            || (!self.parts.want_room.is_empty() && link.queue.has_room())
            || (self.shared.is_stopping() && drain_until.is_none());
        if !pending {
            for at in self.next_deadline().into_iter().chain(drain_until) {
                self.alarm.ring_by(at, self.parts.now, clock::now)?;
            }
        }
        let timeout = pending.then_some(Duration::ZERO);
        let polled = match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other,
        };
        self.link().bell.awake();
        polled
    }

    /// Asked before each sleep: hence compared as it is written here.
    fn next_deadline(&self) -> Option<Now> {
        let mut next = (!self.parts.connections.is_empty()).then_some(self.next_sweep);
        for at in [self.next_report, self.acceptor.as_ref().and_then(Acceptor::paused_until)] {
            if at.is_some() && (next.is_none() || at < next) {
                next = at;
            }
        }
        next
    }

    fn turn(&mut self, events: &Events) {
        self.parts.now = clock::now();
        // Before anything is read in this turn, and before its feed is looked at, which may say that everyone has to go.
        self.parts.outgoing.term = self.shared.serving_term();
        for event in events {
            match event.token() {
                BELL | ALARM => {} // What they announce is looked at in every turn.
                LISTENER => self.accept(),
                Token(slot) => self.wake(slot, event),
            }
        }
        self.adopt_arrivals();
        if !self.shared.is_stopping() {
            self.receive();
        }
        self.serve_under_guard();
        self.finish();
        self.deadlines();
    }

    fn wake(&mut self, slot: usize, event: &mio::event::Event) {
        let Some(connection) = self.parts.connections.get_mut(slot) else { return };
        if event.is_writable() && connection.blocked {
            connection.blocked = false;
            self.parts.wants_flush(slot);
        }
        let connection = &mut self.parts.connections[slot];
        connection.half_closed |= event.is_read_closed();
        let is_left = connection.readable || connection.wait == Wait::Output;
        if event.is_readable() && is_left && !connection.half_closed && connection.state == State::Open {
            // Something has come, and is left in its socket, perhaps since it reads slowly: all the same it is there, and
            // pings. Who is gone sends nothing, and its system soon takes nothing more either.
            if connection.is_forsaken(self.parts.now) {
                return self.parts.doom(slot, process::FORSAKEN);
            }
            self.parts.heard_from(slot);
        }
        let connection = &mut self.parts.connections[slot];
        if (event.is_readable() || event.is_read_closed() || event.is_error()) && !connection.readable {
            connection.readable = true;
            self.readable.push(slot);
        }
    }

    /// Receives once from every readable connection that may be read from, into the arena; what already waits in a
    /// connection's own input is joined there. What does not fit stays for the next turn, so that the feed gets its turn.
    fn receive(&mut self) {
        self.arrived.clear();
        self.parts.turn = self.parts.turn.wrapping_add(1);
        let (mut filled, mut taken) = (0, 0);
        // Those that have more behind what was taken from them now.
        let mut served = 0;
        // Those that go on in the next turn are put behind those of this one, in the same list: it keeps its memory.
        let candidates = self.readable.len();
        for at in 0..candidates {
            let slot = self.readable[at];
            let Some(connection) = self.parts.connections.get_mut(slot) else { continue };
            // Slots are used again, so a list of them may name one twice; what came second would be taken for first.
            if !connection.readable || connection.received_in == self.parts.turn {
                continue;
            }
            connection.received_in = self.parts.turn;
            let kept_max = self.shared.settings.frame_max + 4 + limits::CONNECTION_INPUT_SLACK;
            if matches!(connection.state, State::Closing | State::Ending | State::FourLetter) {
                // What it sends now is not looked at; whether it has gone shows when its answer is sent.
                connection.readable = false;
                continue;
            }
            if connection.input.len() >= kept_max || connection.wait == Wait::Output {
                // It stays readable, and is taken up again when it goes on.
                continue;
            }
            if connection.is_ready && connection.input.len() >= RECEIVE_BYTES {
                // It has enough to go on with when its turn comes.
                self.readable.push(slot);
                served += 1;
                continue;
            }
            let room = self.arena.len() - taken;
            if room < ARENA_MIN {
                self.readable.push(slot);
                continue;
            }
            let into = &mut self.arena[filled..filled + room.min(RECEIVE_BYTES)];
            let (len, end) = receive(&mut connection.socket, into);
            match end {
                Received::Drained if !connection.half_closed || len == 0 => connection.readable = false,
                Received::Drained | Received::More => {
                    self.readable.push(slot);
                    served += 1;
                }
                Received::Gone if connection.is_ready && !connection.input.is_empty() => {
                    // What came before the end is worked off first.
                    self.readable.push(slot);
                    served += 1;
                    continue;
                }
                Received::Gone => {
                    connection.readable = false;
                    // Those that are closed from here are not read from any more.
                    self.parts.tally.connection_drop();
                    self.parts.doomed.push(slot);
                    continue;
                }
            }
            if len == 0 {
                continue;
            }
            taken += len;
            self.parts.tally.bytes_received(len as u64);
            if connection.input.is_empty() && connection.wait == Wait::Nothing {
                self.arrived.push((slot, filled..filled + len));
                filled += len;
            } else {
                connection.input.push(&self.arena[filled..filled + len], &mut self.parts.pool);
                let (waits, is_open) = (connection.wait != Wait::Nothing, connection.state == State::Open);
                if connection.is_forsaken(self.parts.now) {
                    self.parts.doom(slot, process::FORSAKEN);
                    continue;
                }
                if is_open {
                    // What it says has to wait, perhaps for a slow disk; that it says something counts at once.
                    self.parts.heard_from(slot);
                }
                if !waits {
                    self.parts.make_ready(slot);
                }
            }
        }
        self.readable.drain(..candidates);
        // Nobody had room once somebody had none: so these are the first, and those who had none come before them next time.
        if served < self.readable.len() {
            self.readable.rotate_left(served);
        }
    }

    /// Feed first, reads second, under one guard. The pipeline appends to the feed *before* it lets go of the tree; so
    /// whoever holds a guard has in the feed every event up to the tree's zxid. Deliver those first, and no client sees
    /// data before the event that announces it. With the two swapped it does, rarely.
    fn serve_under_guard(&mut self) {
        let link = &self.shared.cores[self.index];
        if self.arrived.is_empty()
            && self.parts.ready.is_empty()
            && link.feed.is_empty()
            && self.feed.entries.is_empty()
            && self.parts.want_room.is_empty()
        {
            return;
        }
        if !self.parts.want_room.is_empty() && link.queue.has_room() {
            for slot in std::mem::take(&mut self.parts.want_room) {
                self.parts.make_ready(slot);
            }
        }
        let mut guard = self.reader.read();
        self.parts.verdicts.begin_turn();
        let mut is_told = self.parts.deliver(&mut self.feed, &guard, link, &self.shared);
        let mut budget = process::Budget::default();
        // What was kept comes before what has only now been received, and delivery may make more connections ready. What one
        // turn can't do goes on in the next, one connection after the other: the sockets have to be looked at, too.
        let mut arrived = self.arrived.drain(..);
        let mut done = 0;
        // Nobody reads what is newer than what has been told.
        while is_told {
            if budget.is_spent() {
                done += budget.requests();
                if done >= limits::READ_TURN_REQUESTS {
                    break;
                }
                guard.yield_to_writer();
                is_told = self.parts.deliver(&mut self.feed, &guard, link, &self.shared);
                budget = process::Budget::default();
                continue;
            }
            if let Some(slot) = self.parts.ready.pop_front() {
                self.parts.process_kept(slot, &guard, &self.shared, &mut budget);
            } else if let Some((slot, range)) = arrived.next() {
                self.parts.process_arrived(slot, &self.arena[range], &guard, &self.shared, &mut budget);
            } else {
                break;
            }
        }
        for (slot, range) in arrived {
            self.parts.keep_arrived(slot, &self.arena[range]);
        }
        drop(guard);
        if link.feed.pipeline_waits.swap(false, Ordering::SeqCst) {
            self.shared.pipeline_bell.ring();
        }
    }

    /// Writes to the pipeline first, so that it starts while replies are being sent.
    fn finish(&mut self) {
        self.hand_over();
        self.send_all();
        for (slot, why) in self.parts.farewells.drain(..) {
            let connection = &self.parts.connections[slot];
            if self.parts.log_rate.allows(self.parts.now) {
                let (address, session) = (connection.address, connection.session);
                tracing::info!("closing the connection of {address} (session {session}): {why}");
            }
        }
        let mut taken_up = std::mem::take(&mut self.parts.taken_up);
        for slot in taken_up.drain(..) {
            if self.parts.connections.contains(slot) {
                self.take_up(slot);
            }
        }
        self.parts.taken_up = taken_up;
        if !self.parts.doomed.is_empty() {
            let mut doomed = std::mem::take(&mut self.parts.doomed);
            for slot in doomed.drain(..) {
                self.close(slot);
            }
            self.parts.doomed = doomed;
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if !self.parts.outgoing.items.is_empty() {
            self.shared.cores[self.index].queue.push(&mut self.parts.outgoing);
            self.shared.pipeline_bell.ring();
        }
        let queue = &self.shared.cores[self.index].queue;
        if !self.parts.want_room.is_empty() {
            queue.core_waits.store(true, Ordering::SeqCst);
        }
    }

    /// Closes a connection for good. Its session, if it has one, lives on in the pipeline.
    fn close(&mut self, slot: usize) {
        let Some(mut connection) = self.parts.connections.try_remove(slot) else { return };
        let _ = self.poll.registry().deregister(&mut connection.socket);
        let _ = connection.socket.shutdown(Shutdown::Both);
        self.parts.waiting -= connection.waiting;
        self.parts.watches.close(slot as u32);
        connection.input.release(&mut self.parts.pool);
        connection.output.release(&mut self.parts.pool);
        if connection.state != State::Fresh && connection.state != State::FourLetter {
            self.parts.outgoing.items.push_back(Item::Closed { conn: connection.id, session: connection.session });
        }
        if self.parts.connections.is_empty() {
            self.parts.pool.trim();
        }
        self.shared.admission.release(connection.address.ip());
        self.link().connections.fetch_sub(1, Ordering::Relaxed);
    }

    fn close_all(&mut self) {
        let slots: Vec<usize> = self.parts.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.send(slot);
            self.close(slot);
        }
    }

    fn deadlines(&mut self) {
        let now = self.parts.now;
        if !self.parts.heard.is_empty() {
            let at = *self.next_report.get_or_insert(now.plus_ms(self.shared.settings.tick_ms / 2));
            if at <= now {
                self.next_report = None;
                self.parts.heard_round = self.parts.heard_round.wrapping_add(1);
                self.shared.cores[self.index].queue.hear(&mut self.parts.heard);
                self.shared.pipeline_bell.ring();
            }
        }
        if self.acceptor.as_ref().is_some_and(|acceptor| acceptor.paused_until().is_some_and(|at| at <= now)) {
            self.accept();
            self.adopt_arrivals();
        }
        if self.next_sweep <= now {
            self.next_sweep = now.plus_ms(SWEEP_MS);
            self.sweep(now);
        }
    }

    /// Closes connections that have been silent: without a session after `sessionless_ms`, with one after its timeout.
    fn sweep(&mut self, now: Now) {
        self.parts.pool.trim();
        let sessionless = self.shared.settings.sessionless_ms;
        for (slot, connection) in &self.parts.connections {
            if connection.state == State::Connecting {
                continue;
            }
            let limit = connection.silence_max_ms(sessionless);
            if now.since(connection.last_heard).as_millis() as u64 > limit {
                if connection.session == SessionId::NONE {
                    self.parts.tally.sessionless_expired();
                }
                if self.parts.log_rate.allows(now) {
                    tracing::info!(
                        "{} has been silent for over {limit} ms; closing its connection",
                        connection.address
                    );
                }
                self.parts.doomed.push(slot);
            }
        }
        if !self.parts.doomed.is_empty() {
            self.finish();
        }
    }

    fn register(&mut self, slot: usize) -> std::io::Result<()> {
        let connection = &mut self.parts.connections[slot];
        self.poll.registry().register(&mut connection.socket, Token(slot), Interest::READABLE | Interest::WRITABLE)
    }
}
