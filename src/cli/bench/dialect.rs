//! How a request is written and what its reply must be, in each protocol.
//!
//! A fast wrong answer is no answer, so every reply is read to its end: the error code, the zxid, the record, the data.
//! A value begins with the number of its znode, so that another znode's data is noticed; all connections write the same
//! value to one znode, so that any of them is right whichever came last.
//!
//! Runs on: the connection's thread; pure.

use super::args::{BenchArgs, Protocol};
use super::fill::Shape;
use super::workload::Ask;
use crate::wire::client::{ReplyHeader, xid};
use crate::wire::txn::Acl;
use crate::wire::writer::{Frame, Jute};
use crate::wire::{ErrorCode, OpCode, Reader, Stat};
use std::io::Write;

/// Bytes at the beginning of a value that name its znode: a number has so many digits. A shorter value has the last of them.
const MARK: usize = 16;

/// Paths and values, written without an allocation for each.
pub struct Names {
    root: String,
    path: String,
    value: Vec<u8>,
}

impl Names {
    /// `root` is the parent of everything; values have `size` bytes.
    pub fn new(root: &str, size: u32) -> Names {
        Names { root: root.into(), path: String::new(), value: vec![b'v'; size as usize] }
    }

    fn build(&mut self, folder: &str, number: u64, width: usize) -> &str {
        let mut digits = [b'0'; 20];
        let mut at = digits.len();
        let mut rest = number;
        while rest > 0 || at > digits.len() - width {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.path.clear();
        self.path.push_str(&self.root);
        self.path.push_str(folder);
        self.path.extend(digits[at..].iter().map(|&digit| digit as char));
        &self.path
    }

    pub fn key(&mut self, key: u32) -> &str {
        self.build("/keys/", key.into(), 8)
    }

    /// A znode that a connection makes.
    pub fn new_znode(&mut self, number: u64) -> &str {
        self.build("/new/", number, 14)
    }

    fn child(&mut self, number: u32) -> &str {
        self.build("/keys/c", number.into(), 7)
    }

    /// The value of the znode with that number.
    pub fn value(&mut self, number: u64) -> &[u8] {
        mark(&mut self.value, number);
        &self.value
    }

    pub fn set_path(&mut self, path: String) {
        self.path = path;
    }

    pub fn value_mut(&mut self) -> &mut Vec<u8> {
        &mut self.value
    }

    pub fn path_and_value(&self) -> (&str, &[u8]) {
        (&self.path, &self.value)
    }

    /// Whether these are the data of the znode with that number. Errors: how they differ.
    pub fn check_value(&mut self, number: u64, data: Option<&[u8]>) -> Result<(), String> {
        mark(&mut self.value, number);
        match data {
            Some(data) if data == self.value => Ok(()),
            Some(data) if data.len() == self.value.len() => {
                let shown = String::from_utf8_lossy(&data[..data.len().min(16)]).into_owned();
                Err(format!("other data than what was written: {shown:?}..."))
            }
            _ => Err(format!("data of {:?} bytes where {} were written", data.map(<[u8]>::len), self.value.len())),
        }
    }
}

/// Writes the number in hexadecimal over the beginning of a value.
fn mark(value: &mut [u8], number: u64) {
    let digits = value.len().min(MARK);
    for (at, byte) in value.iter_mut().take(digits).enumerate() {
        *byte = b"0123456789abcdef"[(number >> (4 * (digits - 1 - at)) & 15) as usize];
    }
}

/// One connection's way of writing and checking.
pub struct Dialect {
    protocol: Protocol,
    names: Names,
    shape: Shape,
    acl: Acl,
    last_zxid: i64,
    keys: usize,
    /// Children that others may have added to those of `keys`.
    more_children: usize,
}

impl Dialect {
    pub fn new(args: &BenchArgs, protocol: Protocol, root: &str) -> Dialect {
        Dialect {
            protocol,
            names: Names::new(root, args.size),
            shape: Shape::new(root, args.keys().into()),
            acl: Acl::world(Acl::ALL),
            last_zxid: 0,
            keys: args.keys() as usize,
            more_children: args.connections() as usize,
        }
    }

    /// Whether this protocol has such a request at all.
    pub fn can(protocol: Protocol, ask: Ask) -> bool {
        use Ask::*;
        let only_zookeeper =
            matches!(ask, Children | CreateChild(_) | DeleteChild(_) | Multi(_) | Fill(_) | FillDelete(_));
        match protocol {
            Protocol::Zookeeper => true,
            Protocol::Redis => !only_zookeeper,
            Protocol::Echo => !matches!(ask, Multi(_)),
        }
    }

    /// Appends the request's frame; the xid that its reply must carry.
    pub fn write(&mut self, ask: Ask, xid: i32, out: &mut Vec<u8>) -> i32 {
        if self.protocol == Protocol::Redis {
            self.write_redis(ask, out);
            return xid;
        }
        match ask {
            Ask::Get(key) => read(OpCode::GetData, self.names.key(key), xid, out),
            Ask::Exists(key) => read(OpCode::Exists, self.names.key(key), xid, out),
            Ask::Children => {
                let path = format!("{}/keys", self.names.root);
                read(OpCode::GetChildren, &path, xid, out);
            }
            Ask::Set(key) => {
                mark(&mut self.names.value, key.into());
                self.names.key(key);
                write_set(&self.names.path, &self.names.value, xid, out);
            }
            Ask::Multi(key) => {
                let frame = open(OpCode::Multi, xid, out);
                crate::wire::multi::write_header(frame.bytes, OpCode::Check.to_wire(), false, -1);
                frame.bytes.put_text(self.names.key(key));
                frame.bytes.put_int(-1);
                crate::wire::multi::write_header(frame.bytes, OpCode::SetData.to_wire(), false, -1);
                mark(&mut self.names.value, key.into());
                put_set(&self.names.path, &self.names.value, frame.bytes);
                crate::wire::multi::write_end(frame.bytes);
                frame.close();
            }
            Ask::Create(number) => {
                mark(&mut self.names.value, number);
                self.names.new_znode(number);
                write_create(&self.names.path, &self.names.value, &self.acl, xid, out);
            }
            Ask::CreateChild(number) => {
                self.names.child(number);
                write_create(&self.names.path, &self.names.value, &self.acl, xid, out);
            }
            Ask::Delete(number) => write_delete(self.names.new_znode(number), xid, out),
            Ask::DeleteChild(number) => write_delete(self.names.child(number), xid, out),
            Ask::Fill(number) => {
                let (path, value) = self.names.fill(&self.shape, number);
                write_create(path, value, &self.acl, xid, out);
            }
            Ask::FillDelete(number) => write_delete(&self.shape.path(number), xid, out),
            Ask::Ping => {
                open(OpCode::Ping, xid::PING, out).close();
                return xid::PING;
            }
        }
        xid
    }

    /// Whether a frame is the reply to the request with that xid. If it is not, nothing after it can be checked either.
    /// Errors: what is wrong.
    pub fn in_order(&self, xid: i32, frame: &[u8]) -> Result<(), String> {
        match frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes)) {
            _ if self.protocol == Protocol::Redis => Ok(()),
            Some(found) if found == xid => Ok(()),
            Some(found) => Err(format!("reply to xid {found} where {xid} was due")),
            None => Err("a reply without an xid".into()),
        }
    }

    /// Reads the reply to a request to its end. Errors: what is wrong with it.
    pub fn check(&mut self, ask: Ask, frame: &[u8]) -> Result<(), String> {
        if self.protocol == Protocol::Redis {
            return self.check_redis(ask, frame);
        }
        let mut r = Reader::new(frame);
        let header = ReplyHeader::read(&mut r).map_err(malformed)?;
        if header.err != ErrorCode::OK {
            return Err(format!("{ask:?} was answered with {:?}", header.err));
        }
        if self.protocol == Protocol::Echo {
            return Ok(());
        }
        if header.zxid < self.last_zxid {
            return Err(format!("the zxid went back from {:#x} to {:#x}", self.last_zxid, header.zxid));
        }
        self.last_zxid = header.zxid;
        match ask {
            Ask::Get(key) => {
                let data = r.buffer("data").map_err(malformed)?;
                self.names.check_value(key.into(), data)?;
                self.check_stat(&mut r)?;
            }
            Ask::Exists(_) | Ask::Set(_) => self.check_stat(&mut r)?,
            Ask::Children => self.check_children(&mut r)?,
            Ask::Create(number) => {
                self.names.new_znode(number);
                self.check_path(&mut r)?;
            }
            Ask::CreateChild(number) => {
                self.names.child(number);
                self.check_path(&mut r)?;
            }
            Ask::Fill(number) => {
                self.names.fill(&self.shape, number);
                self.check_path(&mut r)?;
            }
            Ask::Multi(_) => {
                result(&mut r, OpCode::Check.to_wire(), false)?;
                result(&mut r, OpCode::SetData.to_wire(), false)?;
                self.check_stat(&mut r)?;
                result(&mut r, -1, true)?;
            }
            Ask::Delete(_) | Ask::DeleteChild(_) | Ask::FillDelete(_) | Ask::Ping => {}
        }
        if r.rest().is_empty() { Ok(()) } else { Err(format!("{} bytes too many in a reply", r.rest().len())) }
    }

    fn check_stat(&self, r: &mut Reader<'_>) -> Result<(), String> {
        let stat = Stat::read(r).map_err(malformed)?;
        if stat.data_length as usize != self.names.value.len() {
            return Err(format!("a Stat with {} bytes of data where {} are", stat.data_length, self.names.value.len()));
        }
        // No reply may tell of a change that is newer than the reply itself.
        if stat.mzxid.0 > self.last_zxid as u64 {
            return Err(format!("changed at {:?}, which is after the reply's {:#x}", stat.mzxid, self.last_zxid));
        }
        Ok(())
    }

    fn check_children(&self, r: &mut Reader<'_>) -> Result<(), String> {
        let count = r.count("children").map_err(malformed)?.unwrap_or(0);
        if !(self.keys..=self.keys + self.more_children).contains(&count) {
            return Err(format!("{count} children where {} are", self.keys));
        }
        for _ in 0..count {
            let name = r.buffer("child").map_err(malformed)?.unwrap_or_default();
            if name.len() != 8 {
                return Err(format!("a child {:?} that nobody made", String::from_utf8_lossy(name)));
            }
        }
        Ok(())
    }

    fn check_path(&self, r: &mut Reader<'_>) -> Result<(), String> {
        let path = r.buffer("path").map_err(malformed)?.unwrap_or_default();
        if path == self.names.path.as_bytes() {
            return Ok(());
        }
        Err(format!("{:?} was created where {:?} was asked for", String::from_utf8_lossy(path), self.names.path))
    }

    fn write_redis(&mut self, ask: Ask, out: &mut Vec<u8>) {
        match ask {
            Ask::Get(key) => command(out, &[b"GET", self.names.key(key).as_bytes()]),
            Ask::Exists(key) => command(out, &[b"EXISTS", self.names.key(key).as_bytes()]),
            Ask::Set(key) => {
                mark(&mut self.names.value, key.into());
                self.names.key(key);
                command(out, &[b"SET", self.names.path.as_bytes(), &self.names.value]);
            }
            Ask::Create(number) => {
                mark(&mut self.names.value, number);
                self.names.new_znode(number);
                command(out, &[b"SET", self.names.path.as_bytes(), &self.names.value]);
            }
            Ask::Delete(number) => command(out, &[b"DEL", self.names.new_znode(number).as_bytes()]),
            // The rest has no counterpart, and `can` has said so.
            _ => command(out, &[b"PING"]),
        }
    }

    fn check_redis(&mut self, ask: Ask, frame: &[u8]) -> Result<(), String> {
        let due: &[u8] = match ask {
            Ask::Get(key) => {
                let start = frame.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                let data = frame.get(start..frame.len().saturating_sub(2)).filter(|_| frame.starts_with(b"$"));
                return self.names.check_value(key.into(), data);
            }
            Ask::Set(_) | Ask::Create(_) => b"+OK\r\n",
            Ask::Exists(_) | Ask::Delete(_) => b":1\r\n",
            _ => b"+PONG\r\n",
        };
        if frame == due {
            return Ok(());
        }
        Err(format!("{ask:?} was answered with {:?}", String::from_utf8_lossy(&frame[..frame.len().min(60)])))
    }
}

pub fn malformed(error: crate::wire::Malformed) -> String {
    error.to_string()
}

/// Reads the header before a result of a multi.
pub fn result(r: &mut Reader<'_>, op: i32, done: bool) -> Result<(), String> {
    let found = (r.int("type").map_err(malformed)?, r.bool("done").map_err(malformed)?);
    r.int("err").map_err(malformed)?;
    if found == (op, done) { Ok(()) } else { Err(format!("a multi's result {found:?} where {:?} was due", (op, done))) }
}

/// Appends a Redis command.
pub fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing to a vector can't fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

pub fn open(op: OpCode, xid: i32, out: &mut Vec<u8>) -> Frame<'_> {
    let frame = Frame::open(out);
    frame.bytes.put_int(xid);
    frame.bytes.put_int(op.to_wire());
    frame
}

fn read(op: OpCode, path: &str, xid: i32, out: &mut Vec<u8>) {
    write_read(op, path, false, xid, out);
}

/// exists, getData and getChildren.
pub fn write_read(op: OpCode, path: &str, watch: bool, xid: i32, out: &mut Vec<u8>) {
    let frame = open(op, xid, out);
    frame.bytes.put_text(path);
    frame.bytes.put_bool(watch);
    frame.close();
}

pub fn write_create(path: &str, data: &[u8], acl: &Acl, xid: i32, out: &mut Vec<u8>) {
    let frame = open(OpCode::Create, xid, out);
    frame.bytes.put_text(path);
    frame.bytes.put_buffer(Some(data));
    Acl::write_list(std::slice::from_ref(acl), frame.bytes);
    frame.bytes.put_int(0);
    frame.close();
}

fn put_set(path: &str, data: &[u8], out: &mut Vec<u8>) {
    out.put_text(path);
    out.put_buffer(Some(data));
    out.put_int(-1);
}

pub fn write_set(path: &str, data: &[u8], xid: i32, out: &mut Vec<u8>) {
    let frame = open(OpCode::SetData, xid, out);
    put_set(path, data, frame.bytes);
    frame.close();
}

pub fn write_delete(path: &str, xid: i32, out: &mut Vec<u8>) {
    let frame = open(OpCode::Delete, xid, out);
    frame.bytes.put_text(path);
    frame.bytes.put_int(-1);
    frame.close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::workload::own_number;

    #[test]
    fn paths_have_their_width_and_values_their_mark() {
        let mut names = Names::new("/b", 10);
        assert_eq!(names.key(42), "/b/keys/00000042");
        assert_eq!(names.new_znode(0), "/b/new/00000000000000");
        assert_eq!(names.new_znode(3 << 40 | 7), format!("/b/new/{:014}", (3u64 << 40) + 7));
        assert_eq!(names.child(9), "/b/keys/c0000009");
        assert_eq!(names.value(0x2a), b"000000002a");
        assert!(names.check_value(0x2a, Some(b"000000002a")).is_ok());
        assert!(names.check_value(0x2b, Some(b"000000002a")).is_err());
        assert!(names.check_value(0x2a, Some(b"00000002a")).is_err());
        assert!(names.check_value(0x2a, None).is_err());
        assert_eq!(Names::new("/b", 3).value(0x12345678), b"678");
        let mut names = Names::new("/b", 17);
        assert_eq!(names.value(0x2a), b"000000000000002av");
        let one = names.value(own_number(1, 5)).to_vec();
        assert_ne!(names.value(own_number(2, 5)), one, "another connection's znode");
        assert!(names.check_value(own_number(2, 5), Some(&one)).is_err());
    }

    #[test]
    fn redis_gets_commands_in_its_own_form() {
        let mut out = Vec::new();
        command(&mut out, &[b"SET", b"/b/keys/1", b"v\r\n"]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$9\r\n/b/keys/1\r\n$3\r\nv\r\n\r\n");
    }
}
