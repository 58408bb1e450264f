//! Begins a log: for a server without history, and for one whose history has been replaced by a snapshot.
//!
//! A new log holds nothing and begins behind a zxid. It is the only place where a zxid may be followed by one that does not
//! come next to what the disk held before; recovery finds no gap there, since the older log is gone as a whole. What makes
//! the exchange of one for the other whole in a crash is a note that the caller keeps (`INSTALL`): while it is there,
//! `Recovery` refuses the directory.
//!
//! Runs on: the starting thread; the log writer.

use super::holdings::Holdings;
use super::housekeeper::{Housekeeper, Shared};
use super::segment::{PREPARING, SegmentHeader, segment_number, segment_path};
use super::truncate::TRUNCATE;
use super::watermark::{WATERMARK, Watermark, WatermarkFile};
use super::writer::{Live, Opened, salt};
use super::{Log, Sizes};
use crate::disk::{self, Disk};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use std::io;
use std::path::Path;

/// Name of the note that is there while a snapshot takes the place of a history.
pub const INSTALL: &str = "install";

impl<D: Disk> Log<D> {
    /// Makes a new log whose first record comes after `after`, in a directory without segments; `Recovery` never takes a
    /// missing log for a new one. Each step on the way leaves something that `Recovery::open` takes for no log.
    pub fn create(disk: D, dir: &Path, after: Zxid, sizes: Sizes) -> Result<Log<D>, Fatal> {
        Log::create_from(disk, dir, after, sizes, 1)
    }

    /// As `create`; the first segment has this number.
    pub fn create_from(disk: D, dir: &Path, after: Zxid, sizes: Sizes, number: u64) -> Result<Log<D>, Fatal> {
        let housekeeper = Housekeeper::new(disk, dir.to_owned(), sizes, number + 1, None);
        let opened = begin(housekeeper.shared(), after, number)?;
        Ok(Log::assemble(housekeeper, opened))
    }

    /// The number that the next segment of this log will have. A number is not given again by a log that begins anew,
    /// because someone may still be about to purge the old one.
    pub fn next_number(&self) -> u64 {
        self.live.number + 1
    }

    /// Gives up everything and begins anew behind `after`, with a segment of this number (`next_number`, as it was). A
    /// crash on the way leaves neither log: the caller has an `INSTALL` note, and does it again with `clear` and
    /// `create_from`. Cursors are told.
    pub fn restart(&mut self, after: Zxid, number: u64) -> Result<(), Fatal> {
        assert!(number > self.live.number, "numbers go up");
        self.give_up_after(Zxid::ZERO);
        let housekeeper = self.housekeeper.clone();
        let opened = housekeeper.exclusively(|shared, _| {
            clear(&shared.disk, &shared.dir)?;
            begin(shared, after, number)
        })?;
        self.reopened(opened);
        Ok(())
    }
}

/// Removes a log's segments, its watermark and what was under way, durably. Purged segments stay, for being used again.
pub fn clear<D: Disk>(disk: &D, dir: &Path) -> Result<(), Fatal> {
    let names = disk.list(dir).map_err(|e| disk::fatal(dir, 0, e))?;
    let segments = names.iter().filter_map(|name| segment_number(name)).map(|number| segment_path(dir, number)).rev();
    for path in segments.chain([WATERMARK, TRUNCATE, PREPARING].map(|name| dir.join(name))) {
        match disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk::fatal(&path, 0, error)),
            _ => {}
        }
    }
    disk.sync_dir(dir).map_err(|e| disk::sync_failed(dir, e))
}

/// The first segment of a log.
fn begin<D: Disk>(shared: &Shared<D>, after: Zxid, number: u64) -> Result<Opened<D>, Fatal> {
    let Shared { disk, dir, sizes, .. } = shared;
    let mut watermark = WatermarkFile::create(disk, dir, Watermark { segment: 0, end: 0, zxid: after })?;
    let map = shared.prepare(number, sizes.first)?;
    let header = SegmentHeader { number, salt: salt(number, after), after, previous_end: 0, previous: 0 };
    let live = Live::begin(map, header).map_err(|e| disk::sync_failed(&segment_path(dir, number), e))?;
    watermark.write(Watermark { segment: number, end: live.end as u64, zxid: after })?;
    watermark.sync()?;
    Ok(Opened { closed: Vec::new(), live, watermark, holdings: Holdings::new(after), prepared: None })
}
