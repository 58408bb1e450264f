//! A client of bytes for tests: says exactly what it is told to, and shows exactly what comes back.
#![allow(dead_code, reason = "each test file uses its part")]

use ostler::config::Config;
use ostler::ids::SessionId;
use ostler::wire::client::{ConnectRequest, ConnectResponse, ReplyHeader, RequestHeader};
use ostler::wire::txn::Acl;
use ostler::wire::writer::Jute;
use ostler::wire::{OpCode, Reader};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// A server on a port of the kernel's choice, with its data in `dir`, without limits and with all four-letter words.
pub fn config(dir: &Path, cores: usize) -> Config {
    let mut config = Config::defaults(cores);
    config.client_port = 0;
    config.client_port_address = Some(IpAddr::from([127, 0, 0, 1]));
    config.data_dir = dir.to_owned();
    config.data_log_dir = dir.to_owned();
    config.max_client_cnxns = 0;
    config.four_letter_words.all = true;
    config.cores = cores;
    config
}

/// A frame from the server, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub xid: i32,
    pub zxid: i64,
    pub err: i32,
    pub body: Vec<u8>,
}

pub struct Raw {
    pub socket: TcpStream,
    pub session: SessionId,
    pub password: [u8; 16],
    pub timeout_ms: i32,
}

impl Raw {
    pub fn open(address: SocketAddr) -> Raw {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Raw { socket, session: SessionId::NONE, password: [0; 16], timeout_ms: 0 }
    }

    /// With a new session.
    pub fn connect(address: SocketAddr) -> Raw {
        Raw::open(address).handshake(SessionId::NONE, &[0; 16], 0)
    }

    /// Asks for a session, whatever the answer.
    pub fn handshake(mut self, session: SessionId, password: &[u8], last_zxid: i64) -> Raw {
        let mut out = Vec::new();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: last_zxid,
            timeout_ms: 40_000,
            session,
            password: Some(password),
            read_only: Some(false),
        };
        request.write(&mut out);
        self.send(&out);
        if let Some(frame) = self.frame() {
            let response = ConnectResponse::read(&frame).unwrap();
            self.session = response.session;
            self.password = response.password;
            self.timeout_ms = response.timeout_ms;
        }
        self
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next frame; `None` when the server has closed.
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        match self.socket.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
            Err(error) => panic!("waiting for a frame: {error}"),
        }
        let mut frame = vec![0; u32::from_be_bytes(head) as usize];
        self.socket.read_exact(&mut frame).unwrap();
        Some(frame)
    }

    pub fn reply(&mut self) -> Reply {
        let frame = self.frame().expect("the server has closed");
        let mut reader = Reader::new(&frame);
        let header = ReplyHeader::read(&mut reader).unwrap();
        Reply { xid: header.xid, zxid: header.zxid, err: header.err.0, body: reader.rest().to_vec() }
    }

    /// The next reply or event; `None` when the connection has ended, be it in the middle of one.
    pub fn reply_or_end(&mut self) -> Option<Reply> {
        let mut head = [0; 4];
        self.socket.read_exact(&mut head).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(head) as usize];
        self.socket.read_exact(&mut frame).ok()?;
        let mut reader = Reader::new(&frame);
        let header = ReplyHeader::read(&mut reader).unwrap();
        Some(Reply { xid: header.xid, zxid: header.zxid, err: header.err.0, body: reader.rest().to_vec() })
    }

    pub fn call(&mut self, frame: &[u8]) -> Reply {
        self.send(frame);
        self.reply()
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.socket.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("waiting for the end: {error}"),
        }
        bytes
    }
}

/// A request frame: xid, opcode, and what `record` writes.
pub fn request(xid: i32, op: i32, record: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    RequestHeader { xid, op }.write(&mut body);
    record(&mut body);
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

pub fn create(xid: i32, path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    request(xid, OpCode::Create.to_wire(), |out| {
        out.put_text(path);
        out.put_buffer(Some(data));
        Acl::write_list(&[Acl::world(Acl::ALL)], out);
        out.put_int(flags);
    })
}

pub fn set(xid: i32, path: &str, data: &[u8]) -> Vec<u8> {
    request(xid, OpCode::SetData.to_wire(), |out| {
        out.put_text(path);
        out.put_buffer(Some(data));
        out.put_int(-1);
    })
}

pub fn get(xid: i32, path: &str, watch: bool) -> Vec<u8> {
    read(xid, OpCode::GetData, path, watch)
}

pub fn read(xid: i32, op: OpCode, path: &str, watch: bool) -> Vec<u8> {
    request(xid, op.to_wire(), |out| {
        out.put_text(path);
        out.put_bool(watch);
    })
}

pub fn delete(xid: i32, path: &str) -> Vec<u8> {
    request(xid, OpCode::Delete.to_wire(), |out| {
        out.put_text(path);
        out.put_int(-1);
    })
}

pub fn ping() -> Vec<u8> {
    request(-2, OpCode::Ping.to_wire(), |_| {})
}

pub fn close(xid: i32) -> Vec<u8> {
    request(xid, OpCode::CloseSession.to_wire(), |_| {})
}

/// The data of a getData reply.
pub fn data(reply: &Reply) -> Vec<u8> {
    assert_eq!(reply.err, 0, "{reply:?}");
    Reader::new(&reply.body).buffer("data").unwrap().unwrap_or_default().to_vec()
}
