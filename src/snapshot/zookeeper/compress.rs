//! Snapshot files of ZooKeeper as streams of their uncompressed bytes: plain, gzip, or what the Java library snappy-java
//! calls its stream. Which of them a file is, its name says (disk-formats 2.2).
//!
//! ```text
//!  snappy  magic 82 53 4e 41 50 50 59 00, int version 1, int compatible version 1, then blocks: int length, raw snappy
//! ```
//!
//! A stream that ends early is an error here, where ZooKeeper sometimes takes it for an older format. No block makes
//! more than `SNAPPY_BLOCK_MAX` bytes, whatever it announces.

use crate::disk::File;
use flate2::Compression as Level;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use std::io::{self, BufRead, BufReader, Read, Write};

/// How a snapshot file is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    Plain,
    Gzip,
    Snappy,
}

impl Compression {
    /// By what ZooKeeper calls it in `snapshot.compression.method`.
    pub fn from_name(name: &str) -> Option<Compression> {
        match name {
            "" | "none" => Some(Compression::Plain),
            "gz" => Some(Compression::Gzip),
            "snappy" => Some(Compression::Snappy),
            _ => None,
        }
    }

    /// What a file's name ends with.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::Plain => "",
            Compression::Gzip => ".gz",
            Compression::Snappy => ".snappy",
        }
    }
}

const SNAPPY_HEADER: [u8; 16] = *b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";
/// What the Java library compresses at once.
const SNAPPY_BLOCK: usize = 32 << 10;
/// What it could be told to compress at once, at most.
const SNAPPY_BLOCK_MAX: usize = 64 << 20;

/// A file of the disk as a stream.
pub(super) struct Stream<'a, F> {
    file: &'a F,
    at: u64,
    len: u64,
    /// Bytes that have been read of the file, for whoever shows progress.
    seen: &'a mut dyn FnMut(u64),
}

impl<'a, F: File> Stream<'a, F> {
    pub(super) fn new(file: &'a F, seen: &'a mut dyn FnMut(u64)) -> io::Result<Stream<'a, F>> {
        Ok(Stream { len: file.len()?, file, at: 0, seen })
    }
}

impl<F: File> Read for Stream<'_, F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let some = into.len().min(usize::try_from(self.len - self.at).unwrap_or(usize::MAX));
        self.file.read_at(self.at, &mut into[..some])?;
        self.at += some as u64;
        (self.seen)(some as u64);
        Ok(some)
    }
}

/// The uncompressed bytes of a stream.
pub(super) enum Unpacked<R: Read> {
    Plain(R),
    Gzip(GzDecoder<BufReader<R>>),
    Snappy(Snappy<R>),
}

impl<R: Read> Unpacked<R> {
    pub(super) fn new(compression: Compression, input: R) -> Unpacked<R> {
        match compression {
            Compression::Plain => Unpacked::Plain(input),
            Compression::Gzip => Unpacked::Gzip(GzDecoder::new(BufReader::with_capacity(64 << 10, input))),
            Compression::Snappy => {
                Unpacked::Snappy(Snappy { input, begun: false, packed: Vec::new(), block: Vec::new(), at: 0 })
            }
        }
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Unpacked::Plain(input) => input.read(into),
            Unpacked::Gzip(input) => match input.read(into)? {
                // One member, and nothing behind it.
                0 if !into.is_empty() && !input.get_mut().fill_buf()?.is_empty() => {
                    Err(invalid("bytes behind the end of the gzip stream"))
                }
                count => Ok(count),
            },
            Unpacked::Snappy(input) => input.read(into),
        }
    }
}

pub(super) struct Snappy<R> {
    input: R,
    begun: bool,
    packed: Vec<u8>,
    block: Vec<u8>,
    at: usize,
}

impl<R: Read> Snappy<R> {
    /// Fills `block`; false at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        if !self.begun {
            let mut header = [0; SNAPPY_HEADER.len()];
            self.input.read_exact(&mut header)?;
            if header[..8] != SNAPPY_HEADER[..8] {
                return Err(invalid("not a snappy stream"));
            }
            self.begun = true;
        }
        let mut length = [0; 4];
        if self.input.read(&mut length[..1])? == 0 {
            return Ok(false);
        }
        self.input.read_exact(&mut length[1..])?;
        let length = u32::from_be_bytes(length) as usize;
        if length > snap::raw::max_compress_len(SNAPPY_BLOCK_MAX) {
            return Err(invalid(format!("a snappy block of {length} bytes")));
        }
        self.packed.clear();
        // As much as there is, not as much as was announced.
        if (&mut self.input).take(length as u64).read_to_end(&mut self.packed)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let unpacked = snap::raw::decompress_len(&self.packed).map_err(invalid)?;
        // Snappy packs no denser than this; a block that says more is refused before it is given room.
        if unpacked > SNAPPY_BLOCK_MAX.min(length.saturating_mul(64)) {
            return Err(invalid(format!("a snappy block that becomes {unpacked} bytes")));
        }
        self.block.resize(unpacked, 0);
        let count = snap::raw::Decoder::new().decompress(&self.packed, &mut self.block).map_err(invalid)?;
        self.block.truncate(count);
        self.at = 0;
        Ok(true)
    }
}

impl<R: Read> Read for Snappy<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let some = into.len().min(self.block.len() - self.at);
        into[..some].copy_from_slice(&self.block[self.at..self.at + some]);
        self.at += some;
        Ok(some)
    }
}

fn invalid(problem: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_string())
}

/// Compresses what is written to it.
pub(super) enum Packed<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Snappy { output: W, block: Vec<u8>, begun: bool },
}

impl<W: Write> Packed<W> {
    pub(super) fn new(compression: Compression, output: W) -> Packed<W> {
        match compression {
            Compression::Plain => Packed::Plain(output),
            Compression::Gzip => Packed::Gzip(GzEncoder::new(output, Level::default())),
            Compression::Snappy => Packed::Snappy { output, block: Vec::with_capacity(SNAPPY_BLOCK), begun: false },
        }
    }

    /// Writes what is left and gives the output back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_block()?;
        match self {
            Packed::Plain(output) | Packed::Snappy { output, .. } => Ok(output),
            Packed::Gzip(encoder) => encoder.finish(),
        }
    }

    fn write_block(&mut self) -> io::Result<()> {
        let Packed::Snappy { output, block, begun } = self else { return Ok(()) };
        if !std::mem::replace(begun, true) {
            output.write_all(&SNAPPY_HEADER)?;
        }
        if !block.is_empty() {
            let packed = snap::raw::Encoder::new().compress_vec(block).map_err(invalid)?;
            output.write_all(&(packed.len() as u32).to_be_bytes())?;
            output.write_all(&packed)?;
            block.clear();
        }
        Ok(())
    }
}

impl<W: Write> Write for Packed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Packed::Plain(output) => output.write(bytes),
            Packed::Gzip(encoder) => encoder.write(bytes),
            Packed::Snappy { block, .. } => {
                let some = bytes.len().min(SNAPPY_BLOCK - block.len());
                block.extend_from_slice(&bytes[..some]);
                if block.len() == SNAPPY_BLOCK {
                    self.write_block()?;
                }
                Ok(some)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_gives_back_what_was_put_in_and_no_truncation_does() {
        let bytes: Vec<u8> = (0..100_000u32).flat_map(|i| (i % 977).to_le_bytes()).collect();
        for compression in [Compression::Plain, Compression::Gzip, Compression::Snappy] {
            let mut packed = Packed::new(compression, Vec::new());
            packed.write_all(&bytes).unwrap();
            let packed = packed.finish().unwrap();
            let unpack = |packed: &[u8]| {
                let mut out = Vec::new();
                Unpacked::new(compression, packed).read_to_end(&mut out).map(|_| out)
            };
            assert_eq!(unpack(&packed).unwrap(), bytes, "{compression:?}");
            if compression != Compression::Plain {
                assert!(packed.len() < bytes.len() / 2);
                for len in [0, 1, 7, 15, packed.len() / 2, packed.len() - 1] {
                    // Whole blocks are whole streams to snappy; the checksums behind them notice.
                    assert!(
                        unpack(&packed[..len]).map_or(true, |out| out.len() < bytes.len()),
                        "{compression:?} {len}"
                    );
                }
            }
            if compression == Compression::Gzip {
                assert!(unpack(&[&packed[..], b"x"].concat()).is_err());
            }
        }
    }
}
