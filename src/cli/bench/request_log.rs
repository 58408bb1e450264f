//! A file of requests as clients have sent them, and the stranger that writes it.
//!
//! The recorder stands between clients and a server: clients connect to it, it connects to the server and passes everything
//! on unchanged, keeping each request with its connection and time, and of each reply the error code. Data of replies is
//! not kept.
//!
//! The file: the line `ostler-requests 1`, then records, big-endian: kind (1 byte: 1 request, 2 reply, 3 connection closed),
//! connection (4 bytes), microseconds since the first record (8), length (4), and so many bytes: of a request the
//! frame without its length; of a reply xid and error code. The end of a file that was cut short is ignored.
//!
//! Runs on: a thread for each connection and direction; the calling thread accepts.

use super::args::{BenchArgs, Target};
use super::live;
use crate::cli::output::say;
use crate::clock::{self, Now};
use crate::fatal::Fatal;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MAGIC: &[u8] = b"ostler-requests 1\n";
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const CLOSED: u8 = 3;
/// A longer frame is none: four-letter words look like one. What follows is passed on and not kept.
const FRAME_MAX: usize = 64 << 20;

/// One thing that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What<'a> {
    /// A frame without its length. The first of each connection is its handshake.
    Request(&'a [u8]),
    Reply {
        xid: i32,
        err: i32,
    },
    Closed,
}

/// When, on which connection, what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    pub connection: u32,
    pub at_us: u64,
    pub what: What<'a>,
}

fn put(out: &mut Vec<u8>, kind: u8, connection: u32, at_us: u64, bytes: &[u8]) {
    out.push(kind);
    out.extend(connection.to_be_bytes());
    out.extend(at_us.to_be_bytes());
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a whole file's records in their order. Errors: it is no such file.
pub fn records(bytes: &[u8]) -> io::Result<impl Iterator<Item = Record<'_>>> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| {
        io::Error::new(ErrorKind::InvalidData, "not a file of requests: it does not begin with `ostler-requests 1`")
    })?;
    Ok(std::iter::from_fn(move || {
        let (head, tail) = rest.split_first_chunk::<17>()?;
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (connection, len) = (number(1), number(13) as usize);
        let at_us = u64::from(number(5)) << 32 | u64::from(number(9));
        let (body, tail) = tail.split_at_checked(len)?;
        let what = match head[0] {
            REQUEST => What::Request(body),
            REPLY => {
                let (xid, err) = (body.first_chunk::<4>()?, body.get(4..)?.first_chunk::<4>()?);
                What::Reply { xid: i32::from_be_bytes(*xid), err: i32::from_be_bytes(*err) }
            }
            CLOSED => What::Closed,
            _ => return None,
        };
        rest = tail;
        Some(Record { connection, at_us, what })
    }))
}

struct Recorder {
    file: Mutex<File>,
    begin: Mutex<Option<Now>>,
    requests: AtomicU64,
}

impl Recorder {
    /// Appends records that `write` makes with the time that it is given. Errors: the file's.
    fn keep(&self, write: impl FnOnce(u64, &mut Vec<u8>)) -> io::Result<()> {
        let now = clock::now();
        let at_us = {
            let mut begin = self.begin.lock().map_err(|_| io::Error::other("a recorder has failed"))?;
            now.since(*begin.get_or_insert(now)).as_micros() as u64
        };
        let mut out = Vec::new();
        write(at_us, &mut out);
        self.file.lock().map_err(|_| io::Error::other("a recorder has failed"))?.write_all(&out)
    }
}

/// Records for `--seconds` what comes in at `--listen` and passes it on to the target.
pub fn record(args: &BenchArgs, target: &Target) -> Result<(), Fatal> {
    let path = args.log.as_deref().ok_or(Fatal::Usage { problem: "record: --log FILE says where to".into() })?;
    let (addresses, _) = target.resolve(&args.root)?;
    let listener = TcpListener::bind(&args.listen)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|source| Fatal::Listen { address: args.listen.clone(), source })?;
    let broken = |source| Fatal::Io { file: path.to_owned(), source };
    let mut file = File::create(path).map_err(broken)?;
    file.write_all(MAGIC).map_err(broken)?;
    let recorder = Arc::new(Recorder { file: Mutex::new(file), begin: Mutex::new(None), requests: AtomicU64::new(0) });
    let end = clock::now().plus(Duration::from_secs_f64(args.seconds));
    let bar = live::bar(&target.name, (args.seconds * 1e3) as u64);
    say!("recording what comes in at {} for {} s", listener.local_addr().map_err(broken)?, args.seconds)?;
    let mut connections = 0u32;
    loop {
        let now = clock::now();
        if now >= end {
            break;
        }
        bar.set_position((args.seconds * 1e3) as u64 - end.since(now).as_millis() as u64);
        let requests = recorder.requests.load(Ordering::Relaxed);
        bar.set_message(format!("{requests} requests on {connections} connections"));
        match listener.accept() {
            Ok((client, _)) => {
                let address = addresses[connections as usize % addresses.len()];
                // A client that can't be served sees its connection closed, as the server would do it.
                if let Ok(server) = TcpStream::connect(address) {
                    let _ = pass(&recorder, connections, client, server);
                }
                connections += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::park_timeout(Duration::from_millis(5)),
            Err(error) => return Err(target.failed(error)),
        }
    }
    bar.finish_and_clear();
    let requests = recorder.requests.load(Ordering::Relaxed);
    say!("{requests} requests of {connections} connections are in {}", path.display())?;
    Ok(())
}

fn pass(recorder: &Arc<Recorder>, connection: u32, client: TcpStream, server: TcpStream) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (to_server, to_client) = (server.try_clone()?, client.try_clone()?);
    let (one, other) = (recorder.clone(), recorder.clone());
    std::thread::spawn(move || {
        // Errors: one side is gone, which the other is told by the shutdown.
        let _ = copy(&client, &to_server, |frame, _| {
            one.requests.fetch_add(1, Ordering::Relaxed);
            one.keep(|at, out| put(out, REQUEST, connection, at, frame))
        });
        let _ = one.keep(|at, out| put(out, CLOSED, connection, at, &[]));
        let _ = to_server.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = copy(&server, &to_client, |frame, first| match (frame.first_chunk::<4>(), frame.get(12..16)) {
            // The first is the handshake's; a notification answers nothing.
            (Some(xid), Some(err)) if !first && *xid != (-1i32).to_be_bytes() => {
                other.keep(|at, out| put(out, REPLY, connection, at, &[&xid[..], err].concat()))
            }
            _ => Ok(()),
        });
        let _ = to_client.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Passes bytes on, and hands on each whole frame before it leaves; and whether it is the connection's first.
fn copy(
    mut from: &TcpStream,
    mut to: &TcpStream,
    mut each: impl FnMut(&[u8], bool) -> io::Result<()>,
) -> io::Result<()> {
    let (mut input, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    let (mut first, mut framed) = (true, true);
    loop {
        let len = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if framed {
            input.extend_from_slice(&chunk[..len]);
            let mut used = 0;
            while let Some(head) = input[used..].first_chunk::<4>() {
                let frame = u32::from_be_bytes(*head) as usize;
                if frame > FRAME_MAX {
                    framed = false;
                    break;
                }
                let Some(bytes) = input.get(used + 4..used + 4 + frame) else { break };
                each(bytes, first)?;
                first = false;
                used += 4 + frame;
            }
            input.drain(..used);
        }
        to.write_all(&chunk[..len])?;
    }
}

/// The bytes of a file of requests.
pub fn read(path: &Path) -> Result<Vec<u8>, Fatal> {
    std::fs::read(path).map_err(|source| Fatal::Io { file: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written_and_a_torn_end_is_no_record() {
        let mut bytes = MAGIC.to_vec();
        put(&mut bytes, REQUEST, 3, 1 << 40, b"frame");
        put(&mut bytes, REPLY, 3, 7, &[0, 0, 0, 9, 0xff, 0xff, 0xff, 0x9b]);
        put(&mut bytes, CLOSED, 3, 8, &[]);
        let all: Vec<Record<'_>> = records(&bytes).unwrap().collect();
        let due = [What::Request(b"frame"), What::Reply { xid: 9, err: -101 }, What::Closed];
        assert_eq!(all.iter().map(|record| record.what).collect::<Vec<_>>(), due);
        assert_eq!((all[0].connection, all[0].at_us), (3, 1 << 40));
        for cut in MAGIC.len()..bytes.len() {
            assert!(records(&bytes[..cut]).unwrap().count() < 3);
        }
        assert!(records(b"something else").is_err());
        // A length that is not there allocates nothing.
        let torn = [MAGIC, &[REQUEST, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1]].concat();
        assert_eq!(records(&torn).unwrap().count(), 0);
    }
}
