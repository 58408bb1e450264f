//! The durability watermark: up to where a sync of the log is known to have returned.
//!
//! A power cut in the middle of an append and a bad sector under the last append look the same. Below the watermark
//! there is no doubt: a sync had returned there, so whatever is bad is damage, however torn it looks. It is written
//! lazily, with the next group, and synced only when a segment is begun and when there is nothing else to do: it may
//! always say too little, never too much.
//!
//! Two copies in sectors of their own, written in turn; the one with the higher counter counts. A file with no good
//! copy is damage: one of the two is always whole on a disk that writes sectors.
//!
//! ```text
//!  0  magic "OSTLRWMK"   8  counter u64   16  segment u64   24  end u64   32  zxid u64   40  crc32c u32
//! ```

use crate::disk::{self, Disk, File, SECTOR};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crc32c::crc32c;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the watermark's file.
pub const WATERMARK: &str = "watermark";

const MAGIC: [u8; 8] = *b"OSTLRWMK";
const ENCODED: usize = 44;
/// Two sectors, in two pages so that the kernel has no reason to write both at once.
const COPY_AT: [u64; 2] = [0, 4096];
const FILE_BYTES: u64 = 4096 + SECTOR as u64;

/// A place in the log up to which everything is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermark {
    pub segment: u64,
    /// Offset behind the last durable record's group in that segment.
    pub end: u64,
    pub zxid: Zxid,
}

impl Watermark {
    /// Reads the file; `None` if there is none.
    pub fn load<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Watermark>, Fatal> {
        let path = dir.join(WATERMARK);
        Ok(read(disk.open_to_read(&path), &path)?.map(|(_, _, value)| value))
    }
}

/// The watermark's file, open for the log's life.
pub struct WatermarkFile<F> {
    file: F,
    path: PathBuf,
    counter: u64,
    value: Watermark,
    /// Written since the last sync.
    dirty: bool,
}

impl<F: File> WatermarkFile<F> {
    /// Makes the file of a new log (or a new one for a log whose watermark has to move back), durably.
    pub fn create<D: Disk<File = F>>(disk: &D, dir: &Path, value: Watermark) -> Result<WatermarkFile<F>, Fatal> {
        let path = dir.join(WATERMARK);
        let mut bytes = vec![0; FILE_BYTES as usize];
        bytes[..ENCODED].copy_from_slice(&encode(1, value));
        bytes[COPY_AT[1] as usize..][..ENCODED].copy_from_slice(&encode(2, value));
        disk::replace_file(disk, &path, &bytes)?;
        let file = disk.open(&path).map_err(|e| disk::fatal(&path, 0, e))?;
        Ok(WatermarkFile { file, path, counter: 2, value, dirty: false })
    }

    /// Opens the file; `None` if there is none.
    pub fn open<D: Disk<File = F>>(disk: &D, dir: &Path) -> Result<Option<WatermarkFile<F>>, Fatal> {
        let path = dir.join(WATERMARK);
        let Some((file, counter, value)) = read(disk.open(&path), &path)? else { return Ok(None) };
        Ok(Some(WatermarkFile { file, path, counter, value, dirty: false }))
    }

    /// Writes a later place; durable some time, or with `sync`.
    pub fn write(&mut self, value: Watermark) -> Result<(), Fatal> {
        assert!((value.segment, value.end) >= (self.value.segment, self.value.end), "the watermark never falls");
        if value == self.value {
            return Ok(());
        }
        self.counter += 1;
        let at = COPY_AT[(self.counter % 2) as usize];
        self.file.write_at(at, &encode(self.counter, value)).map_err(|e| disk::fatal(&self.path, FILE_BYTES, e))?;
        self.value = value;
        self.dirty = true;
        Ok(())
    }

    pub fn sync(&mut self) -> Result<(), Fatal> {
        if self.dirty {
            self.file.sync().map_err(|e| disk::sync_failed(&self.path, e))?;
            self.dirty = false;
        }
        Ok(())
    }
}

/// What a file that was opened says: it, the counter of its newer copy, the place. `None` if it is not there.
fn read<F: File>(opened: io::Result<F>, path: &Path) -> Result<Option<(F, u64, Watermark)>, Fatal> {
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk::fatal(path, 0, error)),
    };
    file.forget_cached();
    let bytes = disk::read_whole(&file, FILE_BYTES).map_err(|e| disk::fatal(path, 0, e))?;
    let best =
        COPY_AT.iter().filter_map(|&at| decode(bytes.get(at as usize..at as usize + ENCODED)?)).max_by_key(|c| c.0);
    let Some((counter, value)) = best else {
        let problem = "neither copy of the durability watermark is whole".to_owned();
        return Err(Fatal::LogCorrupt { file: path.to_owned(), offset: 0, last_good: Zxid::ZERO, problem });
    };
    Ok(Some((file, counter, value)))
}

fn encode(counter: u64, value: Watermark) -> [u8; ENCODED] {
    let mut bytes = [0; ENCODED];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&counter.to_le_bytes());
    bytes[16..24].copy_from_slice(&value.segment.to_le_bytes());
    bytes[24..32].copy_from_slice(&value.end.to_le_bytes());
    bytes[32..40].copy_from_slice(&value.zxid.0.to_le_bytes());
    let crc = crc32c(&bytes[..40]);
    bytes[40..44].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, Watermark)> {
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    if bytes[0..8] != MAGIC || bytes[40..44] != crc32c(&bytes[..40]).to_le_bytes() {
        return None;
    }
    Some((long(8), Watermark { segment: long(16), end: long(24), zxid: Zxid(long(32)) }))
}
