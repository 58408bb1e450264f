//! The two buffers of a connection, and the pool that they come from.
//!
//! Most connections are idle most of the time, so an idle one holds no buffer at all: what it needs is taken from its
//! core's pool with the first byte and given back with the last. Under a steady load nothing is allocated. Large buffers are
//! kept only for a while: fresh megabytes cost more than what is written into them (a page fault every four kilobytes), but
//! they are not kept for a load that is over.

use std::io::{self, Read, Write};

/// Spare buffers of one core.
#[derive(Default)]
pub struct Pool {
    spare: Vec<Vec<u8>>,
    /// Capacity of those among them that are large.
    large_bytes: usize,
}

impl Pool {
    /// Buffers kept; from where on one is large; and the bytes that large ones may have together.
    const KEPT: usize = 256;
    const LARGE_BYTES: usize = 256 << 10;
    const LARGE_KEPT_BYTES: usize = 16 << 20;

    fn is_large(buffer: &Vec<u8>) -> bool {
        buffer.capacity() > Self::LARGE_BYTES
    }

    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.spare.pop().unwrap_or_default();
        if Self::is_large(&buffer) {
            self.large_bytes -= buffer.capacity();
        }
        buffer
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity == 0 || self.spare.len() == Self::KEPT {
            return;
        }
        if Self::is_large(&buffer) {
            if self.large_bytes + capacity > Self::LARGE_KEPT_BYTES {
                return;
            }
            self.large_bytes += capacity;
        }
        buffer.clear();
        self.spare.push(buffer);
    }

    /// Lets go of large buffers that nobody needs at the moment: to be called every now and then.
    pub fn trim(&mut self) {
        self.spare.retain(|buffer| !Self::is_large(buffer));
        self.large_bytes = 0;
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
                    // What is left is moved when that is cheap beside what was sent.
                    if self.len() <= self.sent / 2 {
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

    #[test]
    fn large_buffers_are_used_again_up_to_a_bound_and_until_the_pool_is_trimmed() {
        let mut pool = Pool::default();
        for _ in 0..8 {
            pool.give(Vec::with_capacity(4 << 20));
        }
        pool.give(Vec::with_capacity(100));
        assert_eq!((pool.spare.len(), pool.large_bytes), (5, 16 << 20));
        assert_eq!((pool.take().capacity(), pool.take().capacity()), (100, 4 << 20));
        assert_eq!((pool.spare.len(), pool.large_bytes), (3, 12 << 20));
        pool.trim();
        assert_eq!((pool.spare.len(), pool.large_bytes), (0, 0));
    }
}
