//! What comes before and after a load: a plain blocking connection that makes the znodes, and removes them again.
//!
//! Requests are sent in batches, so that a hundred thousand znodes are a matter of seconds even if every batch waits for
//! a disk. Only the batch size bounds what is in flight, so neither side's socket buffer can fill up for good.
//!
//! Runs on: the main thread.

use super::args::{BenchArgs, Protocol, Target, Workload};
use super::dialect::{Names, command, open, write_create, write_delete, write_read};
use super::link::invalid;
use crate::ids::SessionId;
use crate::wire::client::{ConnectRequest, ConnectResponse, ReplyHeader};
use crate::wire::txn::Acl;
use crate::wire::{ErrorCode, OpCode, Reader, Stat};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The handshake for a new session.
pub fn write_hello(timeout_ms: i32, out: &mut Vec<u8>) {
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms,
        session: SessionId::NONE,
        password: Some(&[0; 16]),
        read_only: Some(false),
    };
    request.write(out);
}

/// Makes the znodes of a steady load below `root`, after what an earlier run may have left there is gone.
pub fn prepare(args: &BenchArgs, target: &Target, addresses: &[SocketAddr], root: &str) -> io::Result<()> {
    let keys = match args.workload {
        Workload::Create | Workload::CreateDelete | Workload::Ping | Workload::Delete => 0,
        Workload::Fill | Workload::FailOver => 0,
        Workload::Idle | Workload::Storm if args.watches == 0 => 0,
        Workload::WatchOne => 1,
        _ => args.keys(),
    };
    let new = if args.workload == Workload::Delete { u64::from(args.keys()) } else { 0 };
    let mut names = Names::new(root, args.size);
    if target.protocol == Protocol::Echo {
        return Ok(());
    }
    if target.protocol == Protocol::Redis {
        let mut redis = Redis::connect(addresses)?;
        redis.remove(root)?;
        let mut words = Vec::new();
        for key in 0..keys {
            words.push((names.key(key).to_string(), names.value(key.into()).to_vec()));
        }
        for number in 0..new {
            words.push((names.new_znode(number).to_string(), names.value(number).to_vec()));
        }
        return redis.set_all(&words);
    }
    let mut plain = Plain::connect(addresses)?;
    plain.remove_tree(root)?;
    let acl = Acl::world(Acl::ALL);
    plain.make_parents(&format!("{root}/keys"))?;
    plain.make_parents(&format!("{root}/new"))?;
    plain.each(0..keys, &[], |key, xid, out| {
        let value = names.value(key.into()).to_vec();
        write_create(names.key(key), &value, &acl, xid, out);
    })?;
    plain.each(0..new, &[], |number, xid, out| {
        let value = names.value(number).to_vec();
        write_create(names.new_znode(number), &value, &acl, xid, out);
    })?;
    plain.close()
}

/// Removes `root` and all below it.
pub fn clean_up(target: &Target, addresses: &[SocketAddr], root: &str) -> io::Result<()> {
    match target.protocol {
        Protocol::Redis => return Redis::connect(addresses)?.remove(root),
        Protocol::Echo => return Ok(()),
        Protocol::Zookeeper => {}
    }
    let mut plain = Plain::connect(addresses)?;
    plain.remove_tree(root)?;
    plain.close()
}

/// A session that waits for each batch of its requests.
pub struct Plain {
    socket: TcpStream,
    xid: i32,
}

fn connect_first(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, Duration::from_secs(5)) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(Duration::from_secs(60)))?;
                return Ok(socket);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl Plain {
    /// Requests sent before their replies are read.
    const BATCH: usize = 500;

    /// A session with the first of the servers that gives one.
    pub fn connect(addresses: &[SocketAddr]) -> io::Result<Plain> {
        let mut failed = io::Error::other("no address");
        for address in addresses {
            match Plain::connect_to(*address) {
                Ok(plain) => return Ok(plain),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    pub fn connect_to(address: SocketAddr) -> io::Result<Plain> {
        let mut plain = Plain { socket: connect_first(&[address])?, xid: 0 };
        let mut out = Vec::new();
        write_hello(30_000, &mut out);
        plain.socket.write_all(&out)?;
        match ConnectResponse::read(&plain.frame()?) {
            Ok(response) if response.timeout_ms > 0 => Ok(plain),
            _ => Err(io::Error::other("the server refused a session")),
        }
    }

    fn frame(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; 4];
        self.socket.read_exact(&mut head).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no reply for a minute"),
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the server closed the connection"),
            _ => error,
        })?;
        let raw = i32::from_be_bytes(head);
        let len = usize::try_from(raw).map_err(|_| invalid(format!("a frame with length {raw}")))?;
        let mut frame = Vec::new();
        let taken = (&mut self.socket).take(len as u64).read_to_end(&mut frame)?;
        if taken < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(frame) }
    }

    /// Sends one request for each item, in batches, and hands each reply on: item, error code, zxid and record.
    pub fn ask_each<T: Clone>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(T, i32, &mut Vec<u8>),
        mut take: impl FnMut(T, ErrorCode, i64, &mut Reader<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut items = items.into_iter();
        loop {
            let batch: Vec<T> = items.by_ref().take(Self::BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let mut out = Vec::new();
            let first = self.xid + 1;
            for item in &batch {
                self.xid += 1;
                write(item.clone(), self.xid, &mut out);
            }
            self.socket.write_all(&out)?;
            for (item, xid) in batch.into_iter().zip(first..) {
                let frame = self.frame()?;
                let mut r = Reader::new(&frame);
                let header = ReplyHeader::read(&mut r).map_err(io::Error::other)?;
                if header.xid != xid {
                    return Err(invalid(format!("reply to xid {} where {xid} was due", header.xid)));
                }
                take(item, header.err, header.zxid, &mut r)?;
            }
        }
    }

    /// The same where only the error code matters; one that is not in `fine` is an error.
    pub fn each<T: Clone>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        fine: &[ErrorCode],
        write: impl FnMut(T, i32, &mut Vec<u8>),
    ) -> io::Result<()> {
        self.ask_each(items, write, |_, code, _, _| {
            if code == ErrorCode::OK || fine.contains(&code) {
                return Ok(());
            }
            Err(io::Error::other(format!("preparing the znodes: {code:?}")))
        })
    }

    /// Creates `path` and what is missing above it.
    pub fn make_parents(&mut self, path: &str) -> io::Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        let paths: Vec<String> = ends.map(|end| path[..end].to_string()).collect();
        let acl = Acl::world(Acl::ALL);
        self.each(paths, &[ErrorCode::NODE_EXISTS], |path, xid, out| write_create(&path, b"", &acl, xid, out))
    }

    /// Paths of the children; `None` if there is no such znode.
    pub fn children(&mut self, path: &str) -> io::Result<Option<Vec<String>>> {
        let mut found = None;
        let write = |path: &str, xid, out: &mut Vec<u8>| write_read(OpCode::GetChildren, path, false, xid, out);
        self.ask_each([path], write, |path, code, _, r| {
            if code == ErrorCode::OK {
                let names = r.texts("children").map_err(io::Error::other)?.unwrap_or_default();
                found = Some(names.into_iter().flatten().map(|name| format!("{path}/{name}")).collect());
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Removes a znode and all below it.
    pub fn remove_tree(&mut self, root: &str) -> io::Result<()> {
        // Folders are emptied when all below them are gone: the last one seen first. A childless znode is found to be one
        // by its Stat, many in a batch, so that wide parents cost no round trip a child.
        let mut folders = vec![root.to_string()];
        let mut at = 0;
        while at < folders.len() {
            let children = self.children(&folders[at])?.unwrap_or_default();
            let mut leaves = Vec::new();
            let write = |path: String, xid, out: &mut Vec<u8>| write_read(OpCode::Exists, &path, false, xid, out);
            self.ask_each(children, write, |path, code, _, r| {
                if code == ErrorCode::OK && Stat::read(r).map_err(io::Error::other)?.num_children > 0 {
                    folders.push(path);
                } else {
                    leaves.push(path);
                }
                Ok(())
            })?;
            self.each(leaves, &[ErrorCode::NO_NODE], |path, xid, out| write_delete(&path, xid, out))?;
            at += 1;
        }
        folders.reverse();
        self.each(folders, &[ErrorCode::NO_NODE], |path, xid, out| write_delete(&path, xid, out))
    }

    /// Ends the session and waits until the server has done so.
    pub fn close(mut self) -> io::Result<()> {
        self.each([()], &[], |(), xid, out| open(OpCode::CloseSession, xid, out).close())
    }
}

/// The same for Redis.
struct Redis {
    socket: BufReader<TcpStream>,
}

impl Redis {
    const BATCH: usize = 500;

    fn connect(addresses: &[SocketAddr]) -> io::Result<Redis> {
        Ok(Redis { socket: BufReader::new(connect_first(addresses)?) })
    }

    fn set_all(&mut self, words: &[(String, Vec<u8>)]) -> io::Result<()> {
        for batch in words.chunks(Self::BATCH) {
            let mut out = Vec::new();
            for (name, value) in batch {
                command(&mut out, &[b"SET", name.as_bytes(), value]);
            }
            self.socket.get_mut().write_all(&out)?;
            for _ in batch {
                self.reply()?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, root: &str) -> io::Result<()> {
        let pattern = format!("{root}/*");
        let mut cursor = b"0".to_vec();
        loop {
            let mut out = Vec::new();
            command(&mut out, &[b"SCAN", &cursor, b"MATCH", pattern.as_bytes(), b"COUNT", b"1000"]);
            self.socket.get_mut().write_all(&out)?;
            let mut found = self.reply()?;
            if found.is_empty() {
                return Err(invalid("a SCAN without a cursor"));
            }
            cursor = found.remove(0);
            if !found.is_empty() {
                let mut words: Vec<&[u8]> = vec![b"DEL"];
                words.extend(found.iter().map(Vec::as_slice));
                let mut out = Vec::new();
                command(&mut out, &words);
                self.socket.get_mut().write_all(&out)?;
                self.reply()?;
            }
            if cursor == b"0" {
                return Ok(());
            }
        }
    }

    /// One reply, its nested lists laid flat.
    fn reply(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut words = Vec::new();
        let mut due = 1u64;
        while due > 0 {
            due -= 1;
            let mut line = Vec::new();
            (&mut self.socket).take(4096).read_until(b'\n', &mut line)?;
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            let number = text.get(1..).and_then(|digits| digits.parse::<u64>().ok());
            match (text.bytes().next(), number) {
                (Some(b'*'), Some(count)) => due += count,
                (Some(b'$'), Some(len)) => {
                    let mut word = Vec::new();
                    (&mut self.socket).take(len + 2).read_to_end(&mut word)?;
                    word.truncate(len as usize);
                    words.push(word);
                }
                (Some(b'+' | b':'), _) => words.push(text.into_bytes()),
                _ => return Err(invalid(format!("Redis answered {text:?}"))),
            }
        }
        Ok(words)
    }
}
