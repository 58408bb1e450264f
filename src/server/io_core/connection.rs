//! One client connection, as its core sees it.

use crate::auth::AuthIds;
use crate::clock::Now;
use crate::ids::{SessionId, Zxid};
use crate::metrics::Totals;
use crate::net::{Input, Output};
use crate::server::queue::ConnId;
use crate::wire::OpCode;
use mio::net::TcpStream;
use std::net::SocketAddr;

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing decoded yet: a connect request or a four-letter word is expected.
    Fresh,
    /// The pipeline has been asked for the session; nothing more is read from the input until it has answered.
    Connecting,
    Open,
    /// closeSession is in the pipeline: what the client sent after it is not looked at.
    Ending,
    /// A four-letter word is being answered.
    FourLetter,
    /// Closed as soon as the output has been sent.
    Closing,
}

/// Why requests that have arrived are not being worked off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    Nothing,
    /// A read stands behind writes of the same connection.
    Writes,
    /// The pipeline has no room for another write, or others have waited for it longer.
    Room,
    /// The client does not read its replies.
    Output,
    /// This server does not serve for the moment.
    Leader,
}

pub struct Connection {
    pub id: ConnId,
    pub socket: TcpStream,
    pub address: SocketAddr,
    pub state: State,
    pub wait: Wait,
    pub session: SessionId,
    /// Negotiated, in milliseconds.
    pub timeout_ms: i32,
    pub input: Input,
    pub output: Output,
    pub auth: AuthIds,
    /// Writes in the pipeline.
    pub in_flight: u32,
    /// The socket said that it has bytes, and they have not been received.
    pub readable: bool,
    /// The socket said that the other side sends nothing more. The poll does not say so again, so it is read to its end.
    pub half_closed: bool,
    /// In `Parts::ready` already.
    pub is_ready: bool,
    /// The last turn in which it was looked at for receiving.
    pub received_in: u32,
    /// The output waits for the socket to have room.
    pub blocked: bool,
    /// Bytes of output that did not wait for the client to read (events, replies of the pipeline), since all was sent last.
    pub pushed: usize,
    /// Bytes of output that it counts for in `Parts::waiting`.
    pub waiting: usize,
    /// In `IoCore::flush` already.
    pub to_flush: bool,
    /// The round of reports (see `IoCore::heard`) in which this session was noted last.
    pub heard_round: u32,
    pub last_heard: Now,
    /// Told to close by the pipeline: a reply that still comes for it would stand where others are missing.
    pub is_let_go: bool,
    /// It was kept through a change of leader, and no write has been answered since.
    pub is_kept: bool,
    /// It had been silent for longer than a living client is when it sent something that may have no answer yet.
    pub spoke_late: bool,
    pub facts: Facts,
}

impl Connection {
    /// The client has said something, or is found to have said it.
    pub fn hear(&mut self, now: Now) {
        if now != self.last_heard {
            self.spoke_late |= self.state == State::Open && self.is_silent(now);
            self.last_heard = now;
        }
    }

    /// For longer than a living client is: that is heard from each third of its timeout.
    fn is_silent(&self, now: Now) -> bool {
        now.since(self.last_heard).as_millis() as u64 > self.timeout_ms.max(0) as u64 / 2
    }

    /// Whether it can wait for another leader, and what it has asked with it.
    pub fn may_be_kept(&self) -> bool {
        matches!(self.state, State::Open | State::Ending) && !(self.spoke_late && self.in_flight > 0)
    }

    /// It has been kept with requests that have no answer: whether its client may have gone to another server meanwhile.
    pub fn may_have_been_left(&self, now: Now) -> bool {
        self.half_closed || self.is_forsaken(now)
    }

    /// A client that says something now may long have its session on another server, which a new leader does not know of.
    /// It left when it had heard nothing for two thirds of its timeout.
    pub fn is_forsaken(&self, now: Now) -> bool {
        self.is_kept && self.is_silent(now)
    }

    /// What the loop waits for, in the numbers of ZooKeeper's selector: 1 to read, 4 to write.
    pub fn interest(&self) -> u8 {
        let reads = self.wait == Wait::Nothing && matches!(self.state, State::Fresh | State::Connecting | State::Open);
        u8::from(reads) | u8::from(self.blocked) << 2
    }

    /// Milliseconds of silence after which it is closed.
    pub fn silence_max_ms(&self, sessionless_ms: u64) -> u64 {
        match self.state {
            State::Open | State::Ending | State::Connecting => self.timeout_ms.max(0) as u64,
            State::Fresh | State::FourLetter | State::Closing => sessionless_ms,
        }
    }
}

/// What `cons` and `stat` print of a connection.
#[derive(Clone, Debug)]
pub struct Facts {
    pub received: u64,
    pub sent: u64,
    /// Wall time in milliseconds.
    pub established: i64,
    /// As `cons` names it.
    pub last_op: &'static str,
    /// Negative: none to show.
    pub last_cxid: i32,
    /// As on the wire.
    pub last_zxid: i64,
    /// Milliseconds of the monotonic clock.
    pub last_response: u64,
    pub last_latency_ms: u64,
    pub latency: Totals,
}

impl Facts {
    pub fn new(established: i64) -> Facts {
        Facts {
            received: 0,
            sent: 0,
            established,
            // What upstream shows of a client that has taken its session up again and asked for nothing yet.
            last_op: "null",
            last_cxid: 0,
            last_zxid: 0,
            last_response: 0,
            last_latency_ms: 0,
            latency: Totals::default(),
        }
    }

    #[inline]
    pub fn answered(&mut self, op: OpCode, xid: i32, zxid: Zxid, now: Now, latency_ms: u64) {
        self.sent += 1;
        self.last_op = op.short_name();
        // Pings and their like leave the last ordinary one.
        if xid >= 0 {
            self.last_cxid = xid;
        }
        self.last_zxid = zxid.to_wire();
        self.last_response = now.millis();
        self.last_latency_ms = latency_ms;
        self.latency.observe(latency_ms, 1);
    }

    /// `crst`.
    pub fn reset(&mut self) {
        *self = Facts { last_op: "NA", last_cxid: -1, last_zxid: -1, ..Facts::new(self.established) };
    }
}
