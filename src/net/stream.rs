//! A non-blocking connection with a buffer for each direction: what has arrived and is not decoded, what is to be sent and
//! the kernel has not taken. For links between servers, of which there are few; clients' connections have buffers of their
//! own kind (`buffers`).
//!
//! The poll is edge-triggered: whoever is told that there is something to read reads until there is nothing more, or
//! remembers that there is. That memory is here. A short read is the last of what was there, and costs no second one that
//! would only say so (epoll(7)), unless the poll has told of the connection's end: it will not tell again. Nor will it of what
//! is behind urgent data, before which a read ends early; that byte itself the kernel passes over, as ZooKeeper's does.

use mio::Interest;
use mio::event::Event;
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};

/// Read at a time.
const READ_BYTES: usize = 64 << 10;

/// What the poll is asked about.
pub const INTERESTS: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// What the poll has said of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    pub readable: bool,
    pub writable: bool,
    /// A short read is not the last of what was there. Either the other side sends no more, and what is left to be read ends
    /// with that, or with an error; or there is urgent data on the way.
    pub to_the_end: bool,
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Readiness {
        let ended = event.is_read_closed() || event.is_error();
        let to_the_end = ended || event.is_priority();
        Readiness {
            readable: event.is_readable() || to_the_end,
            writable: event.is_writable() || event.is_write_closed() || event.is_error(),
            to_the_end,
        }
    }
}

/// One connection.
pub struct BufferedStream {
    stream: TcpStream,
    /// As long as it ever was: what is read into is cleared once and not at each read.
    input: Vec<u8>,
    /// `taken..end` of it has arrived and is not decoded.
    taken: usize,
    end: usize,
    output: Vec<u8>,
    sent: usize,
    readable: bool,
    writable: bool,
    to_the_end: bool,
    /// What has arrived was not decoded to its end.
    unfinished: bool,
}

/// What has arrived on a connection, while it is being decoded: the connection may be closed meanwhile.
pub struct Lent {
    bytes: Vec<u8>,
    taken: usize,
    end: usize,
}

impl Lent {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.taken..self.end]
    }
}

impl BufferedStream {
    /// `connected`: it was accepted; else it is being connected, and is when it first is writable.
    pub fn new(stream: TcpStream, connected: bool) -> BufferedStream {
        // Small packets, each waited for by someone.
        let _ = stream.set_nodelay(true);
        BufferedStream {
            stream,
            input: Vec::new(),
            taken: 0,
            end: 0,
            output: Vec::new(),
            sent: 0,
            readable: connected,
            writable: connected,
            to_the_end: false,
            unfinished: false,
        }
    }

    /// For registering.
    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// What the poll said.
    pub fn note(&mut self, readiness: Readiness) {
        self.readable |= readiness.readable;
        self.writable |= readiness.writable;
        self.to_the_end |= readiness.to_the_end;
    }

    /// Whether a connection that was begun is there; an error if it was refused.
    pub fn finish_connecting(&mut self) -> io::Result<bool> {
        if !self.writable {
            return Ok(false);
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                self.writable = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads what there is, until `max` bytes wait to be decoded. `false`: the other side has ended it.
    pub fn fill(&mut self, max: usize) -> io::Result<bool> {
        if self.taken > 0 && (self.taken == self.end || self.taken >= READ_BYTES) {
            self.input.copy_within(self.taken..self.end, 0);
            (self.taken, self.end) = (0, self.end - self.taken);
        }
        while self.readable && self.end - self.taken < max {
            if self.input.len() < self.end + READ_BYTES {
                self.input.resize(self.end + READ_BYTES, 0);
            }
            let read = self.stream.read(&mut self.input[self.end..self.end + READ_BYTES]);
            self.end += *read.as_ref().unwrap_or(&0);
            match read {
                Ok(0) => return Ok(false),
                Ok(count) => self.readable = self.to_the_end || count == READ_BYTES,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// What has arrived and is not taken.
    pub fn input(&self) -> &[u8] {
        &self.input[self.taken..self.end]
    }

    /// Hands out what has arrived, to be decoded in place; `give_back` before anything else is read.
    pub fn lend(&mut self) -> Lent {
        let (taken, end) = (std::mem::take(&mut self.taken), std::mem::take(&mut self.end));
        Lent { bytes: std::mem::take(&mut self.input), taken, end }
    }

    /// So many bytes of it have been decoded. `unfinished`: there was no room for more, whether or not there is more.
    pub fn give_back(&mut self, lent: Lent, decoded: usize, unfinished: bool) {
        assert!(self.input.is_empty(), "nothing is read while it is lent");
        (self.input, self.taken, self.end, self.unfinished) = (lent.bytes, lent.taken, lent.end, unfinished);
        self.take(decoded);
    }

    pub fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        assert!(self.taken <= self.end);
    }

    /// Whether there may be more to read than has been.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether there may be anything to decode, here or in the kernel.
    pub fn has_work(&self) -> bool {
        self.readable || self.unfinished
    }

    /// Bytes that the kernel has not taken.
    pub fn backlog(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Takes over what is to be sent, if nothing waits before it: so a backlog grows where it is watched.
    pub fn offer(&mut self, bytes: &mut Vec<u8>) {
        if self.backlog() == 0 {
            self.output.clear();
            self.sent = 0;
            // A burst must not stay in memory for ever.
            self.output.shrink_to(1 << 20);
            std::mem::swap(&mut self.output, bytes);
        }
    }

    /// Puts bytes behind what is to be sent.
    pub fn append(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Takes over and sends `bytes` as far as the kernel takes them without waiting; what is left stays in `bytes` where
    /// something waits before it. After this either nothing is left, or the poll will say when there is room.
    pub fn send_all(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        loop {
            if !bytes.is_empty() {
                self.offer(bytes);
            }
            self.flush()?;
            if self.backlog() > 0 || bytes.is_empty() {
                return Ok(());
            }
        }
    }

    pub fn peer_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.stream.peer_addr()
    }

    /// Sends what the kernel takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.writable && self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::net::TcpListener;
    use std::time::Duration;

    struct Watched {
        poll: Poll,
        stream: BufferedStream,
    }

    fn connected() -> (std::net::TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        (peer, accepted)
    }

    impl Watched {
        fn new(accepted: std::net::TcpStream) -> Watched {
            accepted.set_nonblocking(true).unwrap();
            let poll = Poll::new().unwrap();
            let mut stream = BufferedStream::new(TcpStream::from_std(accepted), true);
            poll.registry().register(stream.source(), Token(0), INTERESTS).unwrap();
            Watched { poll, stream }
        }

        /// What is done with each answer of the poll, until `done`. Whether the other side is still there.
        fn fill_until(&mut self, done: impl Fn(&BufferedStream, bool) -> bool) -> bool {
            let mut events = Events::with_capacity(4);
            loop {
                self.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
                assert!(!events.is_empty(), "the poll has nothing to say any more");
                events.iter().for_each(|event| self.stream.note(event.into()));
                let alive = self.stream.fill(1 << 20).unwrap();
                if done(&self.stream, alive) {
                    return alive;
                }
            }
        }
    }

    #[test]
    fn an_end_that_came_with_the_last_bytes_is_seen_though_the_poll_says_nothing_more() {
        let (mut peer, accepted) = connected();
        peer.write_all(b"half a packet").unwrap();
        drop(peer);
        // Both are there before anything is read.
        let mut bytes = [0; 64];
        while accepted.peek(&mut bytes).unwrap() < 13 {}
        let mut watched = Watched::new(accepted);
        assert!(!watched.fill_until(|stream, alive| !stream.input().is_empty() || !alive));
        assert_eq!(watched.stream.input(), b"half a packet");
    }

    #[test]
    fn what_is_behind_urgent_data_is_read_though_the_poll_says_nothing_more() {
        let (mut peer, accepted) = connected();
        peer.set_nodelay(true).unwrap();
        peer.write_all(b"before").unwrap();
        assert_eq!(socket2::SockRef::from(&peer).send_out_of_band(b"!").unwrap(), 1);
        peer.write_all(b"behind").unwrap();
        // On this machine it is there at once. If it were not, the poll would tell of it, and the test would show less.
        let mut watched = Watched::new(accepted);
        assert!(watched.fill_until(|stream, _| stream.input().len() == 12));
        assert_eq!(watched.stream.input(), b"beforebehind");
    }

    #[test]
    fn a_short_read_is_the_last_until_the_poll_tells_of_more_or_of_the_end() {
        let (mut peer, accepted) = connected();
        let mut watched = Watched::new(accepted);
        for bytes in 1..4 {
            peer.write_all(b"x").unwrap();
            assert!(watched.fill_until(|stream, _| stream.input().len() == bytes));
            assert!(!watched.stream.is_readable(), "it would be read again for nothing");
        }
        drop(peer);
        assert!(!watched.fill_until(|_, alive| !alive));
        assert_eq!(watched.stream.input(), b"xxx");
    }
}
