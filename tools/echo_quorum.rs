//! The floor under a replicated write of one client: three processes that do nothing but the system calls, with one thread
//! each and no hand-over between threads.
//!
//! The leader takes a write from its client (as `echo`: a handshake, and an empty Stat for every write), sends it to both
//! followers, writes a block of its own file durably, and answers when the first follower has acknowledged; then it tells both.
//! A follower writes a block durably for each proposal, acknowledges it, and hears of the commit. A block is written as the log
//! writes one: into a file of zeros, past the page cache, by one `pwritev2` with `RWF_DSYNC`.
//!
//! `cargo run --release --example echo_quorum -- 127.0.0.1:2190 FOLDER` starts all three and prints their process ids:
//! `ostler bench set --connections 1 --depth 1 --compare echo://127.0.0.1:2190=floor=PID+PID+PID`. It serves one client at a time.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::io::ReadWriteFlags;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

const BLOCK: usize = 4096;
const FILE_BYTES: u64 = 64 << 20;
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A file of zeros whose blocks are written in turn.
struct Log {
    file: File,
    block: memmap2::MmapMut,
    at: u64,
}

impl Log {
    fn create(path: &Path) -> Result<Log> {
        let file = File::create(path)?;
        for at in (0..FILE_BYTES).step_by(1 << 20) {
            file.write_all_at(&vec![0; 1 << 20], at)?;
        }
        file.sync_all()?;
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        let file = OpenOptions::new().write(true).custom_flags(direct).open(path)?;
        Ok(Log { file, block: memmap2::MmapMut::map_anon(BLOCK)?, at: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let len = bytes.len().min(BLOCK);
        self.block[..len].copy_from_slice(&bytes[..len]);
        rustix::io::pwritev2(&self.file, &[IoSlice::new(&self.block)], self.at, ReadWriteFlags::DSYNC)?;
        self.at = (self.at + BLOCK as u64) % FILE_BYTES;
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "follow", leader, file] => follow(leader, Path::new(file)),
        [program, address, folder] => lead(program, address, Path::new(folder)),
        _ => Err("usage: echo_quorum ADDRESS FOLDER, for example echo_quorum 127.0.0.1:2190 /var/tmp".into()),
    }
}

/// Proposals of a write, which are longer than this, and commits, which have just so many bytes, come one at a time.
const COMMIT: &[u8] = b"committed";
const ACK: &[u8] = b"acknowledged";

fn follow(leader: &str, file: &Path) -> Result<()> {
    let mut log = Log::create(file)?;
    let stream = std::net::TcpStream::connect(leader)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut leader = TcpStream::from_std(stream);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut leader, Token(0), BOTH)?;
    let (mut events, mut bytes) = (Events::with_capacity(16), vec![0; 64 << 10]);
    loop {
        poll.poll(&mut events, None)?;
        match leader.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(len) if len > COMMIT.len() => {
                log.append(&bytes[..len])?;
                leader.write_all(ACK)?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn lead(program: &str, address: &str, folder: &Path) -> Result<()> {
    const LISTENER: Token = Token(9);
    const CLIENT: Token = Token(8);
    let own = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut poll = Poll::new()?;
    let (mut followers, mut pids) = (Vec::new(), vec![std::process::id().to_string()]);
    for number in 0..2 {
        let path = folder.join(format!("echo_quorum.{}", number + 1));
        let child = Command::new(program).args(["follow", &own.local_addr()?.to_string()]).arg(path).spawn()?;
        pids.push(child.id().to_string());
        let (stream, _) = own.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(number), BOTH)?;
        followers.push(stream);
    }
    let mut log = Log::create(&folder.join("echo_quorum.0"))?;
    let mut listener = TcpListener::bind(address.parse()?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("{}", pids.join("+"));
    let mut client: Option<(TcpStream, Vec<u8>, bool)> = None;
    // The xid of the write that no follower has acknowledged yet; writes so far, and bytes of each follower's acknowledgements:
    // the slower one's, of the write before, must not pass for one of this.
    let mut waiting: Option<Vec<u8>> = None;
    let (mut writes, mut acknowledged) = (0, [0; 2]);
    let (mut events, mut bytes) = (Events::with_capacity(16), vec![0; 256 << 10]);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => {
                    while let Ok((mut socket, _)) = listener.accept() {
                        socket.set_nodelay(true)?;
                        poll.registry().register(&mut socket, CLIENT, BOTH)?;
                        client = Some((socket, Vec::new(), false));
                    }
                }
                CLIENT => {
                    let Some((socket, input, greeted)) = &mut client else { continue };
                    match socket.read(&mut bytes) {
                        Ok(0) => {
                            client = None;
                            continue;
                        }
                        Ok(len) => input.extend_from_slice(&bytes[..len]),
                        Err(_) => continue,
                    }
                    let mut answers = Vec::new();
                    while let Some(frame) = take_frame(input) {
                        if !std::mem::replace(greeted, true) {
                            answers.extend([
                                0, 0, 0, 37, 0, 0, 0, 0, 0, 0, 0x75, 0x30, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 16,
                            ]);
                            answers.extend([0; 17]);
                        } else if frame[8..12] == [0, 0, 0, 5] {
                            for follower in &mut followers {
                                follower.write_all(&frame)?;
                            }
                            log.append(&frame)?;
                            waiting = Some(frame[4..8].to_vec());
                            writes += 1;
                        } else {
                            reply(&frame, &mut answers);
                        }
                    }
                    if !answers.is_empty() {
                        socket.write_all(&answers)?;
                    }
                }
                Token(number) => {
                    match followers[number].read(&mut bytes) {
                        Ok(0) => return Err("a follower has gone".into()),
                        Ok(len) => acknowledged[number] += len,
                        Err(_) => continue,
                    }
                    if acknowledged[number] < writes * ACK.len() {
                        continue;
                    }
                    let (Some(xid), Some((socket, ..))) = (waiting.take(), &mut client) else { continue };
                    let mut answer = vec![0, 0, 0, 84];
                    answer.extend(xid);
                    answer.resize(4 + 84, 0);
                    socket.write_all(&answer)?;
                    for follower in &mut followers {
                        follower.write_all(COMMIT)?;
                    }
                }
            }
        }
    }
}

/// The first request, once all of it is there, with its length before it.
fn take_frame(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = u32::from_be_bytes(input.get(..4)?.try_into().ok()?) as usize;
    // No request is shorter than its xid and its kind.
    (len >= 8 && input.len() >= 4 + len).then(|| input.drain(..4 + len).collect())
}

/// What is not a setData gets what the generator needs for its preparations.
fn reply(frame: &[u8], replies: &mut Vec<u8>) {
    let path = frame.get(12..16).map_or(0, |at| u32::from_be_bytes([at[0], at[1], at[2], at[3]]) as usize);
    let body = match frame[8..12] {
        [0, 0, 0, 1] => frame.get(12..16 + path).unwrap_or_default(),
        [0, 0, 0, 3] => &[0; 68],
        [0, 0, 0, 8] => &[0; 4],
        _ => &[],
    };
    replies.extend(((16 + body.len()) as u32).to_be_bytes());
    replies.extend_from_slice(&frame[4..8]);
    replies.extend([0; 12]);
    replies.extend(body);
}
