//! One connection of the generator: its requests in flight, and the check of each reply.

use super::workload::{Expect, Maker};
use crate::clock::Now;
use crate::ids::SessionId;
use crate::wire::client::{ConnectRequest, ConnectResponse, ReplyHeader};
use crate::wire::{ErrorCode, Reader, Stat};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};

/// What a connection reports of a reply.
pub struct Answer {
    /// When the request was due (open loop) or sent.
    pub from: Now,
    pub wrong: Option<String>,
}

pub struct Connection {
    pub socket: mio::net::TcpStream,
    pub maker: Maker,
    pub in_flight: VecDeque<(i32, Expect, Now)>,
    pub ready: bool,
    input: Vec<u8>,
    done: usize,
    output: Vec<u8>,
    sent: usize,
    xid: i32,
    last_zxid: i64,
}

impl Connection {
    pub fn new(socket: mio::net::TcpStream, maker: Maker) -> Connection {
        let mut output = Vec::new();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 30_000,
            session: SessionId::NONE,
            password: Some(&[0; 16]),
            read_only: Some(false),
        };
        request.write(&mut output);
        Connection {
            socket,
            maker,
            in_flight: VecDeque::new(),
            ready: false,
            input: Vec::new(),
            done: 0,
            output,
            sent: 0,
            xid: 0,
            last_zxid: 0,
        }
    }

    /// Queues one more request, due at `from`.
    pub fn ask(&mut self, from: Now) {
        self.xid = if self.xid == i32::MAX { 1 } else { self.xid + 1 };
        let expect = self.maker.next(self.xid, &mut self.output);
        self.in_flight.push_back((self.xid, expect, from));
    }

    pub fn has_output(&self) -> bool {
        self.sent < self.output.len()
    }

    pub fn send(&mut self) -> std::io::Result<()> {
        while self.has_output() {
            match self.socket.write(&self.output[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads what is there and hands each answer on.
    pub fn receive(&mut self, scratch: &mut [u8], answers: &mut Vec<Answer>) -> std::io::Result<()> {
        loop {
            let len = match self.socket.read(scratch) {
                Ok(0) => return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.input.is_empty() {
                let used = self.frames(&scratch[..len], answers)?;
                self.input.extend_from_slice(&scratch[used..len]);
            } else {
                self.input.extend_from_slice(&scratch[..len]);
                let input = std::mem::take(&mut self.input);
                let used = self.frames(&input[self.done..], answers)?;
                self.done += used;
                self.input = input;
                if self.done == self.input.len() {
                    self.input.clear();
                    self.done = 0;
                } else if self.done > 1 << 20 {
                    self.input.drain(..self.done);
                    self.done = 0;
                }
            }
            if len < scratch.len() {
                return Ok(());
            }
        }
    }

    fn frames(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> std::io::Result<usize> {
        let mut used = 0;
        while let Some(head) = bytes.get(used..used + 4) {
            let len = i32::from_be_bytes(head.try_into().expect("four bytes"));
            let len =
                usize::try_from(len).map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "negative length"))?;
            let Some(frame) = bytes.get(used + 4..used + 4 + len) else { break };
            used += 4 + len;
            if !self.ready {
                match ConnectResponse::read(frame) {
                    Ok(response) if response.timeout_ms > 0 => self.ready = true,
                    _ => return Err(std::io::Error::new(ErrorKind::ConnectionRefused, "the server refused a session")),
                }
                continue;
            }
            let Some((xid, expect, from)) = self.in_flight.pop_front() else {
                return Err(std::io::Error::new(ErrorKind::InvalidData, "a reply to no request"));
            };
            answers.push(Answer { from, wrong: self.check(frame, xid, expect).err() });
        }
        Ok(used)
    }

    fn check(&mut self, frame: &[u8], xid: i32, expect: Expect) -> Result<(), String> {
        let mut r = Reader::new(frame);
        let header = ReplyHeader::read(&mut r).map_err(|error| error.to_string())?;
        if header.xid != xid && header.xid != crate::wire::client::xid::PING {
            return Err(format!("reply to xid {} where {xid} was due", header.xid));
        }
        if header.err != ErrorCode::OK {
            return Err(format!("answered with {:?}", header.err));
        }
        if header.zxid < self.last_zxid {
            return Err(format!("zxid went back from {:#x} to {:#x}", self.last_zxid, header.zxid));
        }
        self.last_zxid = header.zxid;
        let malformed = |error: crate::wire::Malformed| error.to_string();
        match expect {
            Expect::Data => {
                let data = r.buffer("data").map_err(malformed)?;
                if !self.maker.value_is_right(data) {
                    return Err(format!("a read of {:?} bytes, not what was written", data.map(<[u8]>::len)));
                }
                Stat::read(&mut r).map_err(malformed)?;
            }
            Expect::Stat => drop(Stat::read(&mut r).map_err(malformed)?),
            Expect::Children => {
                let children = r.texts("children").map_err(malformed)?.map_or(0, |list| list.len());
                if children != self.maker.keys() as usize {
                    return Err(format!("{children} children where {} are", self.maker.keys()));
                }
            }
            Expect::Path => drop(r.string("path").map_err(malformed)?),
            Expect::Multi => {
                if r.int("type").map_err(malformed)? != crate::wire::OpCode::Check.to_wire() {
                    return Err("a multi whose first result is no check".into());
                }
                return Ok(());
            }
            Expect::Nothing => {}
        }
        if r.rest().is_empty() { Ok(()) } else { Err(format!("{} bytes too many in a reply", r.rest().len())) }
    }
}
