//! A connection's bytes, cut into frames for the driver.
//!
//! Runs on: the reader thread of a connection, which ends with it.

use super::driver::Input;
use crate::limits;
use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::mpsc::Sender;

/// Cuts the stream into frames until it ends.
pub(super) fn read_frames(stream: TcpStream, number: u64, inbox: &Sender<Input>) {
    let mut stream = io::BufReader::with_capacity(64 << 10, stream);
    while let Ok(frame) = read_frame(&mut stream) {
        if inbox.send(Input::Frame(number, frame)).is_err() {
            return;
        }
    }
    let _ = inbox.send(Input::Gone(number));
}

/// Memory grows with the bytes that arrive, not with the length that is announced.
fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > limits::CLIENT_REPLY_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = Vec::with_capacity(length.min(64 << 10));
    stream.take(length as u64).read_to_end(&mut frame)?;
    if frame.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(frame)
}
