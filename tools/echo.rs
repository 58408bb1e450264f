//! The floor under every comparison: a server that does nothing but the system calls.
//!
//! It speaks just enough of the client protocol for `ostler bench` to take it for a server: it answers the handshake,
//! every getData with the same bytes, every write with an empty Stat; no tree, no checks. With a file it appends each
//! turn's writes to that file and calls fdatasync once before it answers them. One thread, one poll, one `recv` and one
//! `send` for each connection and turn: nothing can answer with less.
//!
//! `cargo run --release --example echo -- 127.0.0.1:2190 [bytes of a value] [file]`

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::fs::File;
use std::io::{Read, Write};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    greeted: bool,
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:2190".into());
    let value_bytes = arguments.next().map_or(100, |text| text.parse().expect("bytes of a value"));
    let mut file = arguments.next().map(File::create).transpose()?;

    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address.parse().expect("an address like 127.0.0.1:2190"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Slab<Connection> = Slab::new();
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; 256 << 10];
    loop {
        poll.poll(&mut events, None)?;
        let mut written = Vec::new();
        let mut answered = Vec::new();
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    let entry = connections.vacant_entry();
                    let token = Token(entry.key());
                    let connection = entry.insert(Connection { socket, input: vec![], output: vec![], greeted: false });
                    poll.registry().register(&mut connection.socket, token, Interest::READABLE | Interest::WRITABLE)?;
                }
                continue;
            }
            let slot = event.token().0;
            let Some(connection) = connections.get_mut(slot) else { continue };
            match connection.socket.read(&mut scratch) {
                Ok(0) => {
                    connections.remove(slot);
                }
                Ok(len) => {
                    connection.input.extend_from_slice(&scratch[..len]);
                    connection.answer(value_bytes, &mut written);
                    answered.push(slot);
                }
                Err(_) => {}
            }
        }
        if let Some(file) = &mut file
            && !written.is_empty()
        {
            file.write_all(&written)?;
            file.sync_data()?;
        }
        for slot in answered {
            let Some(connection) = connections.get_mut(slot) else { continue };
            if connection.socket.write_all(&connection.output).is_err() {
                connections.remove(slot);
                continue;
            }
            connection.output.clear();
        }
    }
}

impl Connection {
    fn answer(&mut self, value_bytes: usize, written: &mut Vec<u8>) {
        let mut done = 0;
        while let Some(head) = self.input.get(done..done + 4) {
            let len = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
            let Some(frame) = self.input.get(done + 4..done + 4 + len) else { break };
            done += 4 + len;
            if !self.greeted {
                self.greeted = true;
                self.output.extend([0, 0, 0, 37, 0, 0, 0, 0, 0, 0, 0x75, 0x30, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 16]);
                self.output.extend([0; 17]);
                continue;
            }
            let (Some(xid), Some(op)) = (frame.get(..4), frame.get(4..8)) else { continue };
            let body = match op {
                [0, 0, 0, 4] => 4 + value_bytes + 68,
                [0, 0, 0, 3 | 5] => 68,
                // The path, at its usual place.
                [0, 0, 0, 1] => 4 + frame.get(11).map_or(0, |&len| len as usize),
                // No children: the generator's list is empty too.
                [0, 0, 0, 8] => 4,
                _ => 0,
            };
            self.output.extend(((16 + body) as u32).to_be_bytes());
            self.output.extend_from_slice(xid);
            self.output.extend([0; 12]);
            match op {
                [0, 0, 0, 4] => {
                    self.output.extend((value_bytes as u32).to_be_bytes());
                    self.output.resize(self.output.len() + value_bytes, b'v');
                    self.output.resize(self.output.len() + 68, 0);
                }
                [0, 0, 0, 1] => self.output.extend_from_slice(&frame[8..8 + body]),
                _ => self.output.resize(self.output.len() + body, 0),
            }
            if matches!(op, [0, 0, 0, 1 | 2 | 5]) {
                written.extend_from_slice(frame);
            }
        }
        self.input.drain(..done);
    }
}
