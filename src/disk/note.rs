//! Notes: small checksummed records about what is under way or what must not be forgotten, each in a file of its own that
//! is replaced as a whole.
//!
//! A change that touches several files can be interrupted between any two. A note that is durable before the first of
//! them says what is going to happen, so that the next start can finish it or undo it. A note that can't be read is
//! damage: what it said was the truth about the other files.
//!
//! ```text
//!  0  magic, 8 bytes   8  the body   n-4  crc32c u32 of everything before it
//! ```
//!
//! The magic's last byte stands for the version: the next one has the next letter. A note of another version is no damage as
//! long as its checksum is right, whatever it says.

use super::{Disk, fatal, read_whole, replace_file, sync_failed};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crc32c::crc32c;
use std::io;
use std::path::Path;

/// The largest body.
pub const NOTE_MAX: usize = 4096;

/// Writes a note, durably. It takes the place of one that is there.
pub fn store<D: Disk>(disk: &D, path: &Path, magic: [u8; 8], body: &[u8]) -> Result<(), Fatal> {
    assert!(body.len() <= NOTE_MAX);
    let mut bytes = Vec::with_capacity(12 + body.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    replace_file(disk, path, &bytes)
}

/// The body of a note; `None` if there is none. `Fatal::LogCorrupt` if it is not what `store` wrote, `Fatal::OtherVersion` if
/// that of another version did.
pub fn load<D: Disk>(disk: &D, path: &Path, magic: [u8; 8]) -> Result<Option<Vec<u8>>, Fatal> {
    let file = match disk.open_to_read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fatal(path, 0, error)),
    };
    let bytes = match read_whole(&file, (12 + NOTE_MAX) as u64) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged(path)),
        other => other.map_err(|e| fatal(path, 0, e))?,
    };
    let Some((said, crc)) = bytes.split_last_chunk::<4>() else { return Err(damaged(path)) };
    let (known, name) = magic.split_last().expect("eight bytes");
    match said.strip_prefix(name).and_then(<[u8]>::split_first) {
        Some(_) if crc32c(said).to_le_bytes() != *crc => Err(damaged(path)),
        Some((version, body)) if version == known => Ok(Some(body.to_vec())),
        Some((version, _)) => {
            let version = 1 + u32::from(version.wrapping_sub(*known));
            Err(Fatal::OtherVersion { file: path.to_owned(), version, known: 1 })
        }
        None => Err(damaged(path)),
    }
}

/// Takes a note away, durably. Nothing happens if there is none.
pub fn remove<D: Disk>(disk: &D, path: &Path) -> Result<(), Fatal> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fatal(path, 0, error)),
        _ => {}
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(dir).map_err(|e| sync_failed(dir, e))
}

/// A note whose checksum is right or not, but that says nothing that makes sense.
pub fn damaged(path: &Path) -> Fatal {
    let problem = "a note about what was under way is damaged".to_owned();
    Fatal::LogCorrupt { file: path.to_owned(), offset: 0, last_good: Zxid::ZERO, problem }
}
