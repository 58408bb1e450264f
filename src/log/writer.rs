//! Appends groups of records to the mapped segment and makes them durable.
//!
//! Three rules carry recovery. A group enters the map only after the sync of the group before it has returned, so what
//! follows proves what precedes. The last word of a record's header is stored last, so a process that is killed while it
//! stores through the mapping leaves no record rather than half of one; one killed in the call that writes a whole group
//! (`disk::mapped`) leaves what a power cut may leave. A segment's header is durable before its first record.
//!
//! After a failed sync the kernel has forgotten both the failure and the data (it marks the pages clean), and a second
//! sync would succeed without them. So nothing is retried: the log refuses everything from then on.
//!
//! Runs on: the log writer.

use super::holdings::{Holdings, Run};
use super::housekeeper::{Housekeeper, Purge};
use super::record::{HEADER, Header, Kind, MARK_BYTES, Place, follows, record_bytes};
use super::segment::{RECORDS_START, SegmentHeader, magic_word, segment_path};
use super::view::LogView;
use super::watermark::{Watermark, WatermarkFile};
use super::{Batch, Durable};
use crate::disk::{self, Disk, Map};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::random;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// The log of a running server.
pub struct Log<D: Disk> {
    pub(super) housekeeper: Housekeeper<D>,
    /// Closed segments in order: number, zxid of the last record before it, bytes of its file.
    pub(super) closed: Vec<Closed>,
    pub(super) live: Live<D::Map>,
    watermark: WatermarkFile<D::File>,
    /// durable <= appended
    appended: Zxid,
    durable: Zxid,
    /// Records that the next sync makes durable.
    unsynced: Vec<Run>,
    state: State,
    /// Someone has been asked to prepare the next segment.
    asked_to_prepare: bool,
}

/// A segment that takes no more records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Closed {
    pub number: u64,
    pub after: Zxid,
    pub bytes: u64,
}

/// The segment that takes records.
pub(super) struct Live<M> {
    pub map: M,
    pub number: u64,
    /// Part of every checksum in it.
    pub identity: u32,
    /// Zxid of the last record before it.
    pub after: Zxid,
    /// Where the next record goes.
    pub end: usize,
    /// Where the present group begins; group <= end.
    pub group: usize,
    /// Crc of the last record.
    pub chain: u32,
}

/// A log as it is on the disk, made ready.
pub(super) struct Opened<D: Disk> {
    pub closed: Vec<Closed>,
    pub live: Live<D::Map>,
    pub watermark: WatermarkFile<D::File>,
    pub holdings: Holdings,
    /// The segment behind the live one, if it was made already.
    pub prepared: Option<D::Map>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Everything appended is durable.
    Clean,
    /// A group is in the map and not synced.
    Unsynced,
    /// A sync failed, or a truncation.
    Poisoned,
}

impl<D: Disk> Log<D> {
    /// A log whose live segment is durable up to its end.
    pub(super) fn assemble(housekeeper: Housekeeper<D>, opened: Opened<D>) -> Log<D> {
        let Opened { closed, live, watermark, holdings, prepared: _ } = opened;
        let last = holdings.last();
        let log = Log {
            housekeeper,
            closed,
            live,
            watermark,
            appended: last,
            durable: last,
            unsynced: Vec::new(),
            state: State::Clean,
            asked_to_prepare: false,
        };
        log.show(holdings);
        log
    }

    /// Tells the readers that the log is another.
    fn show(&self, holdings: Holdings) {
        let live = (self.live.number, self.live.after);
        let segments = self.closed.iter().map(|segment| (segment.number, segment.after)).chain([live]);
        self.housekeeper.index().reset(segments.collect(), holdings);
    }

    /// What others see of the log: which zxids it holds, and a way to read them.
    pub fn view(&self) -> LogView<D> {
        self.housekeeper.view()
    }

    /// Stores a batch behind what is there; durable after the next `sync`, which has to come before the next `append`.
    ///
    /// One copy into the map, no allocation. Begins a new segment where the batch does not fit: usually that is the
    /// prepared one and costs two small syncs. A batch larger than a segment is stored in several groups, each synced
    /// here but the last; a record larger than a segment gets a segment of its own.
    ///
    /// Panics if zxids do not follow one another: a hole must never reach the disk. `Fatal::DiskFull` when a new
    /// segment can't be made; then nothing more may be acknowledged.
    pub fn append(&mut self, batch: &Batch) -> Result<(), Fatal> {
        self.refuse_if_poisoned()?;
        assert_eq!(self.state, State::Clean, "the group before this one has to be synced first");
        let mut first = 0;
        while first < batch.len() {
            let fitting = self.fitting(batch, first);
            if fitting == batch.len() {
                self.store_group(batch, first, fitting)?;
                break;
            }
            let rest: usize =
                MARK_BYTES + (first..batch.len()).map(|i| record_bytes(batch.record(i).1.len())).sum::<usize>();
            let segment = self.housekeeper.sizes().segment as usize;
            if RECORDS_START + rest <= segment {
                self.roll_to((RECORDS_START + rest).next_multiple_of(4096).min(segment))?;
            } else if fitting == first {
                let alone = RECORDS_START + record_bytes(batch.record(first).1.len()) + MARK_BYTES;
                self.roll_to(segment.max(alone.next_multiple_of(4096)))?;
            } else {
                self.store_group(batch, first, fitting)?;
                self.sync()?;
                first = fitting;
            }
        }
        Ok(())
    }

    /// Makes everything appended durable: one sync. The proof is for all of it.
    ///
    /// `Fatal::SyncFailed` is final: the server stops, and this log does nothing more.
    pub fn sync(&mut self) -> Result<Durable, Fatal> {
        self.refuse_if_poisoned()?;
        if self.state == State::Unsynced {
            if let Err(error) = self.live.map.sync(self.live.group, self.live.end) {
                self.state = State::Poisoned;
                return Err(disk::sync_failed(&segment_path(self.housekeeper.dir(), self.live.number), error));
            }
            self.state = State::Clean;
            self.durable = self.appended;
            self.housekeeper.index().durable(self.unsynced.drain(..));
        }
        Ok(Durable { up_to: self.durable })
    }

    /// Writes down and syncs what is durable. For the writer when it has nothing to do: it costs one small sync, and
    /// from then on even the last group's damage can't be taken for a torn tail.
    pub fn settle(&mut self) -> Result<(), Fatal> {
        self.refuse_if_poisoned()?;
        self.write_watermark()?;
        self.sync_watermark()
    }

    /// Begins a new segment although the present one has room: after a snapshot, so that the old one can be purged
    /// soon. Everything appended must be synced. Does nothing if the present one is empty.
    pub fn roll(&mut self) -> Result<(), Fatal> {
        self.refuse_if_poisoned()?;
        if self.live.end > RECORDS_START {
            self.roll_to(0)?;
        }
        Ok(())
    }

    /// Makes the next segment here and now. A server has `housekeeper` do it on a thread that may wait.
    pub fn prepare_next(&mut self) -> Result<(), Fatal> {
        self.housekeeper.prepare_next()
    }

    /// For a thread that may wait.
    pub fn housekeeper(&self) -> &Housekeeper<D> {
        &self.housekeeper
    }

    /// True once for each segment: now someone should call `Housekeeper::prepare_next`.
    pub fn wants_next(&mut self) -> bool {
        !std::mem::replace(&mut self.asked_to_prepare, true) && self.housekeeper.prepared_bytes().is_none()
    }

    /// Takes all segments off the log whose records are all at or below `up_to`, which is the zxid of the oldest
    /// snapshot that is kept. The live segment always stays. `Purge::run` takes their files away.
    pub fn purge(&mut self, up_to: Zxid) -> Purge<D> {
        let mut starts: Vec<Zxid> = self.closed.iter().skip(1).map(|segment| segment.after).collect();
        starts.push(self.live.after);
        // Segment i ends where segment i + 1 begins.
        let count = starts.iter().take_while(|&&after| after <= up_to).count().min(self.closed.len());
        let numbers: Vec<u64> = self.closed.drain(..count).map(|segment| segment.number).collect();
        if let Some(last) = numbers.last() {
            self.housekeeper.index().purged(last + 1);
        }
        self.housekeeper.purge(numbers)
    }

    /// Zxid of the last record that a sync has covered.
    pub fn durable(&self) -> Zxid {
        self.durable
    }

    /// Zxid of the last record.
    pub fn last_zxid(&self) -> Zxid {
        self.appended
    }

    /// Zxid of the last record before the oldest segment: history reaches back to here.
    pub fn oldest(&self) -> Zxid {
        self.closed.first().map_or(self.live.after, |segment| segment.after)
    }

    /// Bytes that the log's files take.
    pub fn file_bytes(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|segment| segment.bytes).sum();
        closed + self.live.map.len() as u64 + self.housekeeper.prepared_bytes().unwrap_or(0)
    }

    /// Number of segments that hold records or may take them.
    pub fn segments(&self) -> usize {
        self.closed.len() + 1
    }

    /// Records `first..` of the batch up to the one returned fit into the live segment, with their mark.
    fn fitting(&self, batch: &Batch, first: usize) -> usize {
        let mut room = self.live.map.len().saturating_sub(self.live.end + MARK_BYTES);
        let mut index = first;
        while index < batch.len() {
            let need = record_bytes(batch.record(index).1.len());
            if need > room {
                break;
            }
            room -= need;
            index += 1;
        }
        index
    }

    fn store_group(&mut self, batch: &Batch, first: usize, end: usize) -> Result<(), Fatal> {
        // The sync of the group before has returned: now it may be said.
        self.write_watermark()?;
        self.live.group = self.live.end;
        self.state = State::Unsynced;
        for index in first..end {
            let (zxid, body) = batch.record(index);
            assert!(follows(self.appended, zxid), "{zxid} does not follow {}", self.appended);
            self.live.store(Kind::Record, zxid, body);
            match self.unsynced.last_mut() {
                Some(run) if run.last.next() == Some(zxid) => run.last = zxid,
                _ => self.unsynced.push(Run { first: zxid, last: zxid }),
            }
            self.appended = zxid;
        }
        self.live.store(Kind::Mark, self.appended, &[]);
        Ok(())
    }

    fn roll_to(&mut self, bytes: usize) -> Result<(), Fatal> {
        assert_eq!(self.state, State::Clean, "a segment is closed when all of it is durable");
        let (number, map) = self.housekeeper.take(bytes as u64)?;
        let header = SegmentHeader {
            number,
            salt: salt(number, self.appended),
            after: self.appended,
            previous_end: self.live.end as u64,
            previous: self.live.chain,
        };
        let live = match Live::begin(map, header) {
            Ok(live) => live,
            Err(error) => {
                self.state = State::Poisoned;
                return Err(disk::sync_failed(&segment_path(self.housekeeper.dir(), number), error));
            }
        };
        self.housekeeper.index().begun(number, self.appended);
        let old = std::mem::replace(&mut self.live, live);
        self.closed.push(Closed { number: old.number, after: old.after, bytes: old.map.len() as u64 });
        self.asked_to_prepare = false;
        // So that the new segment's file can't go missing unnoticed.
        self.write_watermark()?;
        self.sync_watermark()
    }

    fn write_watermark(&mut self) -> Result<(), Fatal> {
        if self.state == State::Clean {
            let place = Watermark { segment: self.live.number, end: self.live.end as u64, zxid: self.durable };
            self.watermark.write(place)?;
        }
        Ok(())
    }

    fn sync_watermark(&mut self) -> Result<(), Fatal> {
        let result = self.watermark.sync();
        if result.is_err() {
            self.state = State::Poisoned;
        }
        result
    }

    /// What is above `to` is going to be taken back: nothing works any more until the log is what `reopened` says.
    pub(super) fn give_up_after(&mut self, to: Zxid) {
        self.state = State::Poisoned;
        self.housekeeper.index().truncate(to);
    }

    /// The log is another from here on; `opened` is durable up to its end.
    pub(super) fn reopened(&mut self, opened: Opened<D>) {
        let Opened { closed, live, watermark, holdings, prepared: _ } = opened;
        let last = holdings.last();
        (self.closed, self.live, self.watermark) = (closed, live, watermark);
        (self.appended, self.durable, self.state) = (last, last, State::Clean);
        self.asked_to_prepare = false;
        self.unsynced.clear();
        self.show(holdings);
    }

    fn refuse_if_poisoned(&self) -> Result<(), Fatal> {
        if self.state == State::Poisoned {
            let file = segment_path(self.housekeeper.dir(), self.live.number);
            return Err(disk::sync_failed(&file, io::Error::other("an earlier sync or truncation had failed")));
        }
        Ok(())
    }
}

impl<M: Map> Live<M> {
    /// Writes the header of a prepared segment and makes it durable.
    pub fn begin(mut map: M, header: SegmentHeader) -> io::Result<Live<M>> {
        let (bytes, identity) = header.encode();
        map.store(8, &bytes[8..]);
        map.publish(0, magic_word());
        map.sync(0, RECORDS_START)?;
        Ok(Live {
            map,
            number: header.number,
            identity,
            after: header.after,
            end: RECORDS_START,
            group: RECORDS_START,
            chain: header.previous,
        })
    }

    /// Stores a record behind the last one. The caller has seen to it that there is room.
    pub fn store(&mut self, kind: Kind, zxid: Zxid, body: &[u8]) {
        let place = Place { identity: self.identity, offset: self.end as u64 };
        let header = Header::new(place, kind, zxid, self.chain, self.group as u64, body);
        let bytes = header.encode(place);
        self.map.store(self.end, &bytes[..24]);
        if kind == Kind::Record {
            self.map.store(self.end + HEADER, body);
            self.map.store(self.end + HEADER + body.len(), &[super::record::GUARD]);
        }
        self.map.publish(self.end + 24, u64::from_le_bytes(bytes[24..].try_into().expect("eight bytes")));
        self.end += header.bytes();
        self.chain = header.crc;
    }
}

/// A number that no earlier use of the same file had, and that a client can't know: bodies that look like records are
/// worthless without it.
pub(super) fn salt(number: u64, after: Zxid) -> u64 {
    // After a truncation a number and a zxid come again in one process.
    static USES: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..16].copy_from_slice(&after.0.to_le_bytes());
    bytes[16..].copy_from_slice(&USES.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    random::hash_bytes(&bytes)
}
