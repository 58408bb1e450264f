//! One socket of the generator that never blocks, and the frames that come out of it.
//!
//! Input that arrives in one piece is cut where it was received; only the beginning of an unfinished frame is copied.
//! So the generator costs less than what it measures.
//!
//! Promises: `receive` hands on whole frames in their order, and never waits. Leaves to others: what they mean.
//! Runs on: the thread whose poll the socket is registered with.

use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;

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
}

pub fn invalid(problem: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem.into())
}

impl Link {
    /// Begins to connect; what is put into `output` leaves as soon as the connection stands.
    pub fn connect(address: SocketAddr, framing: Framing) -> io::Result<Link> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        Ok(Link { socket, framing, input: Vec::new(), done: 0, output: Vec::new(), sent: 0 })
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

    /// Reads what is there and hands each frame on. `closed`: the event said that the server has closed its side, of which
    /// there will be no second event; else a short read is the end of what is there, and saves a call. Errors: the socket's, an impossible length, `each`'s; and
    /// `UnexpectedEof` when the server has closed the connection.
    pub fn receive(
        &mut self,
        scratch: &mut [u8],
        closed: bool,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            let len = match self.socket.read(scratch) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
                Ok(len) => len,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
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
}
