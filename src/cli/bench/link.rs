//! One socket of the generator that never blocks, and the frames that come out of it.
//!
//! Input that arrives in one piece is cut where it was received; only the beginning of an unfinished frame is copied.
//! So the generator costs less than what it measures.
//!
//! Promises: `receive` hands on whole frames in their order, and never waits. Leaves to others: what they mean.
//! Runs on: the thread whose poll the socket is registered with.

use super::dialect;
use crate::clock;
use crate::wire::OpCode;
use mio::net::TcpStream;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns};
use nix::sys::time::TimeSpec;
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How a stream is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// Four bytes of length, then so many; the frame is what follows the length.
    Length,
    /// Redis' replies: a line, or a line with a length and so many bytes; the frame is all of it.
    Resp,
}

pub struct Link {
    pub socket: TcpStream,
    framing: Framing,
    /// From `done` on: the beginning of a frame.
    input: Vec<u8>,
    done: usize,
    /// From `sent` on: what the socket has not taken yet.
    pub output: Vec<u8>,
    sent: usize,
    /// Room for the kernel's time of arrival, if it is wanted.
    stamp: Option<Vec<u8>>,
}

pub fn invalid(problem: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem.into())
}

impl Link {
    /// Begins to connect; what is put into `output` leaves as soon as the connection stands.
    pub fn connect(address: SocketAddr, framing: Framing) -> io::Result<Link> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        Ok(Link { socket, framing, input: Vec::new(), done: 0, output: Vec::new(), sent: 0, stamp: None })
    }

    /// Asks the kernel for the time at which it had what is received (SO_TIMESTAMPNS, socket(7)): without the time that
    /// this program takes to come and fetch it.
    pub fn stamp_arrivals(&mut self) -> io::Result<()> {
        setsockopt(&self.socket, ReceiveTimestampns, &true)?;
        self.stamp = Some(nix::cmsg_space!(TimeSpec));
        Ok(())
    }

    pub fn has_output(&self) -> bool {
        self.sent < self.output.len()
    }

    pub fn send(&mut self) -> io::Result<()> {
        while self.has_output() {
            match self.socket.write(&self.output[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads once; how much, and with `stamp_arrivals` the wall time since 1970 at which the last of it arrived.
    fn read(&mut self, scratch: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
        let Some(space) = &mut self.stamp else { return Ok((self.socket.read(scratch)?, None)) };
        let mut room = [IoSliceMut::new(scratch)];
        let message = recvmsg::<()>(self.socket.as_raw_fd(), &mut room, Some(space), MsgFlags::empty())?;
        let arrived = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        Ok((message.bytes, arrived))
    }

    /// Reads what is there and hands each frame on, with the time of `read`. `closed`: the event said that the server has closed its side, of which
    /// there will be no second event; else a short read is the end of what is there, and saves a call. Errors: the socket's, an impossible length, `each`'s; and
    /// `UnexpectedEof` when the server has closed the connection.
    pub fn receive(
        &mut self,
        scratch: &mut [u8],
        closed: bool,
        mut each: impl FnMut(&[u8], Option<Duration>) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            let (len, arrived) = match self.read(scratch) {
                Ok((0, _)) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut each = |frame: &[u8]| each(frame, arrived);
            if self.input.is_empty() {
                let used = cut(self.framing, &scratch[..len], &mut each)?;
                self.input.extend_from_slice(&scratch[used..len]);
            } else {
                self.input.extend_from_slice(&scratch[..len]);
                self.done += cut(self.framing, &self.input[self.done..], &mut each)?;
                if self.done == self.input.len() {
                    self.input.clear();
                    self.done = 0;
                } else if self.done > 1 << 20 {
                    self.input.drain(..self.done);
                    self.done = 0;
                }
            }
            if len < scratch.len() && !closed {
                return Ok(());
            }
        }
    }
}

/// The xid of the last request of a connection.
const LAST: i32 = i32::MAX;
/// No server needs so long to end the sessions of a load; one that has stopped answers nobody.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Ends the sessions of these connections, and returns when each server has answered, has closed the connection, or after
/// `END_LIMIT`: a session that is left to its timeout expires in the middle of what is measured next. What else
/// arrives is not looked at.
pub fn end_sessions(mut links: Vec<Link>) {
    links.retain(|link| link.framing == Framing::Length);
    for link in &mut links {
        dialect::open(OpCode::CloseSession, LAST, &mut link.output).close();
    }
    let mut scratch = vec![0; 64 << 10];
    let give_up = clock::now().plus(END_LIMIT);
    while !links.is_empty() && clock::now() < give_up {
        links.retain_mut(|link| {
            let mut ended = false;
            let received = link.send().and_then(|()| {
                link.receive(&mut scratch, false, |frame, _| {
                    ended |= frame.starts_with(&LAST.to_be_bytes());
                    Ok(())
                })
            });
            received.is_ok() && !ended
        });
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Hands on each whole frame; the bytes that they took.
fn cut(framing: Framing, bytes: &[u8], each: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<usize> {
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        let frame = match framing {
            Framing::Length => length_frame(rest)?,
            Framing::Resp => resp_frame(rest)?,
        };
        let Some(frame) = frame else { return Ok(used) };
        used += frame.end;
        each(&rest[frame])?;
    }
}

fn length_frame(bytes: &[u8]) -> io::Result<Option<Range<usize>>> {
    let Some(head) = bytes.first_chunk() else { return Ok(None) };
    let raw = i32::from_be_bytes(*head);
    let len = usize::try_from(raw).map_err(|_| invalid(format!("a frame with length {raw}")))?;
    Ok((bytes.len() >= 4 + len).then_some(4..4 + len))
}

fn resp_frame(bytes: &[u8]) -> io::Result<Option<Range<usize>>> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = end + 2;
    match bytes[0] {
        b'+' | b'-' | b':' => Ok(Some(0..line)),
        b'$' => {
            let text = String::from_utf8_lossy(&bytes[1..end]);
            let len: i64 = text.parse().map_err(|_| invalid(format!("a bulk reply with length {text}")))?;
            // Null has no bytes and no end of its own.
            let whole = usize::try_from(len).map_or(line, |len| line.saturating_add(len).saturating_add(2));
            Ok((bytes.len() >= whole).then_some(0..whole))
        }
        other => Err(invalid(format!("a reply of kind {:?}", other as char))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_and_in_order() {
        let all = |framing, bytes: &[u8]| {
            let mut frames: Vec<Vec<u8>> = Vec::new();
            let used = cut(framing, bytes, &mut |frame| {
                frames.push(frame.to_vec());
                Ok(())
            });
            used.map(|used| (frames, used)).ok()
        };
        let (frames, used) = all(Framing::Length, b"\0\0\0\x02ab\0\0\0\0\0\0\0\x03c").unwrap();
        assert_eq!((frames, used), (vec![b"ab".to_vec(), vec![]], 10));
        assert!(all(Framing::Length, &[0xff; 8]).is_none());
        let (frames, used) = all(Framing::Resp, b"+OK\r\n$3\r\na\r\n\r\n$-1\r\n:1\r\n$2\r\nab").unwrap();
        let expected: [&[u8]; 4] = [b"+OK\r\n", b"$3\r\na\r\n\r\n", b"$-1\r\n", b":1\r\n"];
        assert_eq!((frames, used), (expected.map(<[u8]>::to_vec).to_vec(), 23));
        assert!(all(Framing::Resp, b"*1\r\n").is_none());
        assert!(all(Framing::Resp, b"$x\r\n").is_none());
    }

    #[test]
    fn a_stamped_link_tells_when_bytes_arrived_and_not_when_they_were_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut link = Link::connect(listener.local_addr().unwrap(), Framing::Length).unwrap();
        link.stamp_arrivals().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        // The kernel begins with it a little later, in a work queue, if nobody else has asked for stamps yet.
        let has_begun = (0..10_000).any(|_| {
            server.write_all(b"\0\0\0\0").unwrap();
            let mut stamped = None;
            while stamped.is_none() {
                let note = |_: &[u8], arrived: Option<Duration>| {
                    stamped = Some(arrived.is_some());
                    Ok(())
                };
                link.receive(&mut [0; 64], false, note).unwrap();
                std::thread::yield_now();
            }
            stamped == Some(true)
        });
        assert!(has_begun, "the kernel stamps nothing");
        let before = clock::now();
        server.write_all(b"\0\0\0\x02ab").unwrap();
        // A close that lingers returns when all has been acknowledged, so bytes and end are there.
        socket2::SockRef::from(&server).set_linger(Some(Duration::from_secs(60))).unwrap();
        drop(server);
        let closed = clock::now();
        let late = closed.plus_ms(50);
        while clock::now() < late {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let mut frames = Vec::new();
        let end = link.receive(&mut [0; 64], true, |frame, arrived| {
            frames.push((frame.to_vec(), clock::of_wall(arrived.unwrap())));
            Ok(())
        });
        assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let (frame, arrived) = frames.pop().unwrap();
        // The two clocks are read one after the other: the moment is right to some microseconds.
        let slack = Duration::from_millis(5);
        assert_eq!(frame, b"ab");
        assert!(before <= arrived.plus(slack) && arrived <= closed.plus(slack), "{before:?} {arrived:?} {closed:?}");
    }
}
