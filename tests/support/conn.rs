//! One client connection: whole frames out, whole frames in, with a limit on how long it waits.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::jute::{Reader, Writer};

/// How long a server may keep a test waiting for a frame it owes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What comes next on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Frame(Vec<u8>),
    /// The server closed, or reset, the connection. Bytes of an unfinished frame count as an error of the server.
    End,
    /// Nothing within the time allowed.
    Silence,
}

pub struct Conn {
    stream: TcpStream,
    input: Vec<u8>,
    start: usize,
}

/// A granted session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub timeout: i32,
    pub session: i64,
    pub password: Vec<u8>,
    pub read_only: Option<u8>,
}

impl Conn {
    pub fn open(port: u16) -> io::Result<Conn> {
        Conn::open_at(([127, 0, 0, 1], port).into(), PATIENCE)
    }

    /// To any address; `patience` limits connecting and each later call.
    pub fn open_at(address: SocketAddr, patience: Duration) -> io::Result<Conn> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Conn { stream, input: Vec::new(), start: 0 })
    }

    /// Connects and asks for a new session.
    pub fn session(port: u16, timeout: i32) -> io::Result<(Conn, Granted)> {
        let mut conn = Conn::open(port)?;
        conn.send(&hello(0, timeout, 0, &[0; 16], Some(0)))?;
        match conn.next(PATIENCE) {
            Next::Frame(frame) => match granted(&frame) {
                Some(granted) if granted.timeout > 0 => Ok((conn, granted)),
                _ => Err(io::Error::other(format!("no session: {frame:?}"))),
            },
            other => Err(io::Error::other(format!("no session: {other:?}"))),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn half_close(&self) {
        // An error means that the server was quicker.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub fn local_port(&self) -> u16 {
        self.stream.local_addr().map_or(0, |address| address.port())
    }

    pub fn try_clone_stream(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    pub fn next(&mut self, patience: Duration) -> Next {
        let mut chunk = [0; 65536];
        loop {
            if let Some(frame) = self.buffered() {
                return Next::Frame(frame);
            }
            if self.stream.set_read_timeout(Some(patience)).is_err() {
                return Next::End;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Next::End,
                Ok(count) => {
                    self.input.drain(..self.start);
                    self.start = 0;
                    self.input.extend_from_slice(&chunk[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Next::Silence;
                }
                Err(_) => return Next::End,
            }
        }
    }

    fn buffered(&mut self) -> Option<Vec<u8>> {
        let mut reader = Reader(&self.input[self.start..]);
        let length = reader.int()?;
        assert!((0..64 << 20).contains(&length), "a server sent a frame length of {length}");
        let frame = reader.take(length as usize)?.to_vec();
        self.start += 4 + frame.len();
        Some(frame)
    }
}

/// A ConnectRequest, framed. Without `read_only` it is the short form of old clients.
pub fn hello(last_zxid: i64, timeout: i32, session: i64, password: &[u8], read_only: Option<u8>) -> Vec<u8> {
    let mut writer = Writer::new().int(0).long(last_zxid).int(timeout).long(session).bytes(Some(password));
    if let Some(read_only) = read_only {
        writer = writer.byte(read_only);
    }
    writer.frame()
}

/// Takes a ConnectResponse apart; `None` if it isn't exactly one.
pub fn granted(frame: &[u8]) -> Option<Granted> {
    let mut reader = Reader(frame);
    if reader.int()? != 0 {
        return None;
    }
    let timeout = reader.int()?;
    let session = reader.long()?;
    let password = reader.bytes()??;
    let read_only = reader.byte();
    reader.is_empty().then_some(Granted { timeout, session, password, read_only })
}

/// A request, framed.
pub fn request(xid: i32, op: i32, body: Writer) -> Vec<u8> {
    Writer::new().int(xid).int(op).raw(&body.0).frame()
}

/// Sends a four-letter word and reads the answer to its end.
pub fn word(port: u16, word: &str) -> io::Result<String> {
    word_within(PATIENCE, port, word)
}

/// The same, for a server that may not answer: ZooKeeper leaves a word unanswered that comes while it starts.
pub fn word_within(patience: Duration, port: u16, word: &str) -> io::Result<String> {
    word_at(patience, ([127, 0, 0, 1], port).into(), word)
}

/// The same, of a server with an address of its own.
pub fn word_at(patience: Duration, address: SocketAddr, word: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    String::from_utf8(answer).map_err(io::Error::other)
}
