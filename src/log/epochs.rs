//! The two epochs that a server of an ensemble must not forget: the newest it has promised to follow (`accepted`), and
//! the newest whose leader's history it has made its own (`current`).
//!
//! Both stand in one checksummed file that is replaced as a whole. In two files, one of them may be a step ahead after
//! a crash, and ZooKeeper then refuses to start for ever (fault model C-05). The history of an epoch is durable before
//! `current` says so; so `current` behind the history means one step was missing, and it is finished here. Anything else
//! that does not fit is no accident of timing: a guess might let this server promise one epoch twice.
//!
//! ```text
//!  0  magic "OSTLREPO"   8  accepted u32   12  current u32   16  crc32c u32 of everything before it
//! ```
//!
//! Runs on: the starting thread, then the log writer.

use crate::disk::{self, Disk};
use crate::fatal::Fatal;
use crate::ids::{Epoch, Zxid};
use crc32c::crc32c;
use std::path::Path;

/// Name of the file.
pub const EPOCHS: &str = "epochs";

const MAGIC: [u8; 8] = *b"OSTLREPO";
const ENCODED: usize = 20;

/// What is stored. `current` <= `accepted`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Epochs {
    pub accepted: Epoch,
    pub current: Epoch,
}

impl Epochs {
    pub fn new(accepted: Epoch, current: Epoch) -> Epochs {
        assert!(current <= accepted, "history of an epoch that was never accepted");
        Epochs { accepted, current }
    }

    /// Reads the file; `None` if there is none. `Fatal::EpochsDamaged` if it is not what `store` wrote.
    pub fn load<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Epochs>, Fatal> {
        let path = dir.join(EPOCHS);
        let file = match disk.open_to_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk::fatal(&path, 0, error)),
        };
        let damaged = |problem: &str| Fatal::EpochsDamaged { file: path.clone(), problem: problem.to_owned() };
        let bytes = match disk::read_whole(&file, ENCODED as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Err(damaged("it is too long")),
            Err(error) => return Err(disk::fatal(&path, 0, error)),
        };
        let bytes: [u8; ENCODED] = bytes.try_into().map_err(|_| damaged("it is too short"))?;
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if bytes[..8] != MAGIC || word(16) != crc32c(&bytes[..16]) {
            return Err(damaged("its checksum is wrong"));
        }
        let (accepted, current) = (Epoch(word(8)), Epoch(word(12)));
        if current > accepted {
            return Err(damaged("the current epoch is newer than the accepted one"));
        }
        Ok(Some(Epochs { accepted, current }))
    }

    /// Makes this the stored record, durably. Only then may the server act by it.
    pub fn store<D: Disk>(self, disk: &D, dir: &Path) -> Result<(), Fatal> {
        let mut bytes = [0; ENCODED];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.accepted.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.current.0.to_le_bytes());
        let crc = crc32c(&bytes[..16]);
        bytes[16..].copy_from_slice(&crc.to_le_bytes());
        disk::replace_file(disk, &dir.join(EPOCHS), &bytes)
    }

    /// What the stored record and the recovered history, which ends at `last`, mean together. If the result is not what
    /// was stored, the caller stores it before anything else.
    pub fn reconcile(stored: Option<Epochs>, last: Zxid, dir: &Path) -> Result<Epochs, Fatal> {
        let problem = match stored {
            // Epoch 0 is that of a server alone, which promises nothing to anybody and may become a member some day.
            None if last.epoch() == Epoch(0) => return Ok(Epochs::default()),
            None => format!("it is missing, but there is history up to zxid {last}"),
            Some(epochs) if last.epoch() > epochs.accepted => {
                format!("it accepted epoch {} at most, but there is history up to zxid {last}", epochs.accepted.0)
            }
            Some(epochs) => {
                return Ok(Epochs { accepted: epochs.accepted, current: epochs.current.max(last.epoch()) });
            }
        };
        Err(Fatal::EpochsDamaged { file: dir.join(EPOCHS), problem })
    }
}
