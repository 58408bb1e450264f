//! The two buffers of a connection, and the pool that they come from.
//!
//! Most connections are idle most of the time, so an idle one holds no buffer at all: what it needs is taken from its
//! core's pool with the first byte and given back with the last. Under a steady load nothing is allocated.

use std::io::{self, Read, Write};

/// Spare buffers of one core.
#[derive(Default)]
pub struct Pool {
    spare: Vec<Vec<u8>>,
}

impl Pool {
    /// Buffers kept, and the largest that is worth keeping.
    const KEPT: usize = 256;
    const KEPT_BYTES: usize = 256 << 10;

    pub fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= Self::KEPT_BYTES && self.spare.len() < Self::KEPT {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

/// Bytes that have been received and not yet worked off: a frame that is not whole, or requests that have to wait.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    done: usize,
}

/// How a read of a socket ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Received {
    /// Everything that was there. The socket will say when there is more.
    Drained,
    /// There may be more: the buffer was full.
    More,
    /// The peer has closed, or the connection broke.
    Gone,
}

/// One `recv` into `into`: how many bytes, and how it ended. A short read on a stream socket means that it is drained,
/// which saves the second system call that would only say so.
pub fn receive(socket: &mut impl Read, into: &mut [u8]) -> (usize, Received) {
    loop {
        return match socket.read(into) {
            Ok(0) => (0, Received::Gone),
            Ok(len) if len < into.len() => (len, Received::Drained),
            Ok(len) => (len, Received::More),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, Received::Drained),
            Err(_) => (0, Received::Gone),
        };
    }
}

impl Input {
    pub fn is_empty(&self) -> bool {
        self.done == self.bytes.len()
    }

    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.done..]
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.done
    }

    /// Keeps bytes for later.
    pub fn push(&mut self, bytes: &[u8], pool: &mut Pool) {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        self.compact();
        self.bytes.extend_from_slice(bytes);
    }

    /// Marks bytes from the front as worked off; gives the buffer back with the last one.
    pub fn consume(&mut self, len: usize, pool: &mut Pool) {
        self.done += len;
        assert!(self.done <= self.bytes.len());
        if self.is_empty() {
            pool.give(std::mem::take(&mut self.bytes));
            self.done = 0;
        }
    }

    /// Moves what is left to the front when that is cheap: less than half of the buffer.
    fn compact(&mut self) {
        if self.done > self.bytes.len() / 2 {
            self.bytes.drain(..self.done);
            self.done = 0;
        }
    }

    pub fn release(&mut self, pool: &mut Pool) {
        pool.give(std::mem::take(&mut self.bytes));
        self.done = 0;
    }
}

/// Bytes on their way to a client.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

/// How a write to a socket ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Sent {
    All,
    /// The socket is full and will say when it has room.
    Blocked,
    Gone,
}

impl Output {
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Bytes not sent yet.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Where replies are encoded to.
    #[inline]
    pub fn buffer(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        &mut self.bytes
    }

    /// Sends as much as the socket takes.
    pub fn send(&mut self, socket: &mut impl Write, pool: &mut Pool) -> Sent {
        while !self.is_empty() {
            match socket.write(&self.bytes[self.sent..]) {
                Ok(0) => return Sent::Gone,
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.sent > self.bytes.len() / 2 {
                        self.bytes.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Sent::Blocked;
                }
                Err(_) => return Sent::Gone,
            }
        }
        self.release(pool);
        Sent::All
    }

    pub fn release(&mut self, pool: &mut Pool) {
        pool.give(std::mem::take(&mut self.bytes));
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes, then blocks.
    struct Narrow {
        room: usize,
        got: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let len = bytes.len().min(self.room);
            self.got.extend_from_slice(&bytes[..len]);
            self.room -= len;
            Ok(len)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn output_arrives_whole_and_in_order_through_a_socket_that_blocks() {
        let (mut pool, mut output) = (Pool::default(), Output::default());
        let mut socket = Narrow { room: 0, got: Vec::new() };
        let mut expected = Vec::new();
        for round in 0..50u8 {
            output.buffer(&mut pool).extend([round; 7]);
            expected.extend([round; 7]);
            socket.room = 5;
            assert_eq!(output.send(&mut socket, &mut pool), Sent::Blocked);
        }
        socket.room = usize::MAX;
        assert_eq!(output.send(&mut socket, &mut pool), Sent::All);
        assert_eq!(socket.got, expected);
        assert!(output.is_empty());
    }

    #[test]
    fn an_idle_connection_holds_no_buffer() {
        let (mut pool, mut input) = (Pool::default(), Input::default());
        input.push(b"abc", &mut pool);
        input.push(b"def", &mut pool);
        input.consume(4, &mut pool);
        assert_eq!(input.pending(), b"ef");
        input.consume(2, &mut pool);
        assert_eq!(input.bytes.capacity(), 0);
        assert_eq!(pool.spare.len(), 1);
    }
}
