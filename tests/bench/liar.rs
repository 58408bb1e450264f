//! Servers that are not what they should be: a stranger between the load generator and a real server, who changes one
//! reply; and a Redis of a few commands.
//!
//! Runs on: a thread for each connection, which ends with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What is done to a reply's frame (what follows its length); `None` leaves it as it is.
pub type Lie = fn(&[u8]) -> Option<Change>;

pub enum Change {
    Other(Vec<u8>),
    /// The frame's length is announced, half of it sent, and the connection closed.
    Truncate,
    Drop,
    /// This frame before the true one.
    Before(Vec<u8>),
}

/// The port of a stranger in front of `server_port`. The lie is told to each connection from its `after`th reply on,
/// wherever it applies.
pub fn liar(server_port: u16, after: u64, lie: Lie) -> u16 {
    liar_to(server_port, after, move |_| Some(lie))
}

/// The same with a lie for each connection, by its number; `None`: it is told the truth.
pub fn liar_to(server_port: u16, after: u64, which: impl Fn(usize) -> Option<Lie> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let (client, lie) = (client.unwrap(), which(number).unwrap_or(|_| None));
            let server = TcpStream::connect(("127.0.0.1", server_port)).unwrap();
            let (mut requests, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut requests, &mut to_server);
                let _ = to_server.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                // Errors: one side is gone, and so is the connection.
                let _ = replies(server, &client, after, lie);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

fn replies(server: TcpStream, mut client: &TcpStream, after: u64, lie: Lie) -> std::io::Result<()> {
    let mut server = BufReader::new(server);
    let mut seen = 0;
    loop {
        let mut head = [0; 4];
        server.read_exact(&mut head)?;
        let mut frame = vec![0; u32::from_be_bytes(head) as usize];
        server.read_exact(&mut frame)?;
        seen += 1;
        // The first frame is the handshake's.
        let change = if seen > after + 1 { lie(&frame) } else { None };
        let framed = |frame: &[u8]| [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
        match change {
            None => client.write_all(&framed(&frame))?,
            Some(Change::Other(other)) => client.write_all(&framed(&other))?,
            Some(Change::Before(other)) => client.write_all(&[framed(&other), framed(&frame)].concat())?,
            Some(Change::Drop) => {}
            Some(Change::Truncate) => {
                client.write_all(&framed(&frame)[..4 + frame.len() / 2])?;
                return Ok(());
            }
        }
    }
}

/// The port of a Redis that knows GET, SET, DEL, EXISTS, SCAN and PING. A key that ends with `bad` gets another value.
pub fn redis(bad: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let values = Arc::new(Mutex::new(BTreeMap::new()));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, values) = (client.unwrap(), values.clone());
            std::thread::spawn(move || while command(&client, &values, bad).is_some() {});
        }
    });
    port
}

fn command(mut client: &TcpStream, values: &Mutex<BTreeMap<String, Vec<u8>>>, bad: &str) -> Option<()> {
    // A reader a connection would be faster; a byte at a time needs no state between the calls.
    let words = words(&mut BufReader::with_capacity(1, client))?;
    let key = words.get(1).map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default();
    let mut values = values.lock().unwrap();
    let reply = match words[0].as_slice() {
        b"SET" => {
            let value =
                if !bad.is_empty() && key.ends_with(bad) { vec![b'x'; words[2].len()] } else { words[2].clone() };
            values.insert(key, value);
            b"+OK\r\n".to_vec()
        }
        b"GET" => match values.get(&key) {
            Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
            None => b"$-1\r\n".to_vec(),
        },
        b"EXISTS" => format!(":{}\r\n", values.contains_key(&key) as u8).into_bytes(),
        b"DEL" => {
            let gone = words[1..].iter().filter(|key| values.remove(&*String::from_utf8_lossy(key)).is_some()).count();
            format!(":{gone}\r\n").into_bytes()
        }
        b"SCAN" => {
            let mut reply = format!("*2\r\n$1\r\n0\r\n*{}\r\n", values.len());
            values.keys().for_each(|key| reply.push_str(&format!("${}\r\n{key}\r\n", key.len())));
            reply.into_bytes()
        }
        _ => b"+PONG\r\n".to_vec(),
    };
    client.write_all(&reply).ok()
}

fn words(reader: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let number = |reader: &mut dyn BufRead| -> Option<usize> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.trim_end().get(1..)?.parse().ok()
    };
    let count = number(reader)?;
    (0..count)
        .map(|_| {
            let mut word = vec![0; number(reader)? + 2];
            reader.read_exact(&mut word).ok()?;
            word.truncate(word.len() - 2);
            Some(word)
        })
        .collect()
}
