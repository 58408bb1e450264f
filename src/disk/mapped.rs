//! A mapped file on the real disk: the memory it needs `unsafe` for is reached here alone. Everything outside
//! sees `disk::Map`.
//!
//! What is stored between two syncs gathers in a buffer and reaches the disk in one call: `pwritev2` with `RWF_DSYNC`, of
//! whole blocks and past the page cache where the file system can (`direct`); the mapping shows it afterwards as any reader of
//! the file sees it. A store into a page that the last sync has cleaned faults, marks as dirty all of the (large) folio that
//! the page is in, and has the other cores' TLBs flushed. Measured in docs/log-format.md: two thirds of the time and of the
//! CPU. Only what is larger than the buffer may become goes through the mapping, with one `fdatasync`.
//!
//! A block in which one group ends and the next begins is written twice, the second time with the same bytes at its
//! beginning. A disk that loses power meanwhile leaves each sector as it was or as it is to be, hence what was durable stays.
//!
//! Two things can go wrong with a mapping that can't with a write. The file may be shorter than the map
//! (someone truncated it), or its page can't be read or given room: either is a SIGBUS, at any store. Room is reserved
//! before a file is mapped, and the data directory is locked; for what is left there is a handler that says what
//! happened and ends the process at once, so that nothing is acknowledged after it.
//!
//! A file system that can't write past the page cache, or knows no `RWF_DSYNC`, is written through the page cache, or gets a
//! plain write and `fdatasync`, which is what it stands for.
//!
//! Runs on: the log writer.
#![allow(unsafe_code)]

use super::Map;
use super::direct::{self, BLOCK, block_of};
use memmap2::{Advice, MmapMut, MmapRaw};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the handler of SIGBUS says. One string, because a handler may neither allocate nor format.
const BUS_ERROR: &[u8] = b"ostler: an access to the mapped log failed (SIGBUS): the segment was truncated by someone, \
or the disk is failing. Nothing was acknowledged after it. Check the disk (dmesg, smartctl) and start again.\n";

/// Exit status of a process stopped by SIGBUS: that of `Fatal::Io`.
const BUS_STATUS: i32 = 10;

/// Bytes that gather between two syncs; thousands of usual records. What goes beyond is stored through the mapping.
const STAGED_MAX: usize = 1 << 20;

/// The whole of one file, mapped shared and writable.
pub struct MappedFile {
    map: MmapRaw,
    file: File,
    staged: Staged,
    /// Something was stored through the mapping since the last sync: all that follows has to as well.
    through_map: bool,
    /// Writes of this file go past the page cache.
    direct: bool,
}

/// The part of the file that is being written, as it is to be: whole blocks, aligned in memory as in the file.
struct Staged {
    bytes: MmapMut,
    /// Where in the file it begins, at a block.
    base: usize,
    /// From `base` on so many bytes are as the file is to have them.
    filled: usize,
    /// Where what was stored since the last sync begins and ends, from `base` on; empty if nothing was.
    from: usize,
    to: usize,
}

impl Staged {
    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Whether `len` bytes at `at` have room here, beginning in a block that is here or behind the last one.
    fn has_room(&self, at: usize, len: usize) -> bool {
        let from = at.wrapping_sub(self.base);
        from <= STAGED_MAX && len <= STAGED_MAX - from
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let from = at - self.base;
        let to = from + bytes.len();
        if from > self.filled {
            self.fill(from);
        }
        self.bytes[from..to].copy_from_slice(bytes);
        self.filled = self.filled.max(to);
        (self.from, self.to) = if self.is_empty() { (from, to) } else { (self.from.min(from), self.to.max(to)) };
    }

    /// What is skipped is zeros in the file as well: nothing was ever stored there.
    fn fill(&mut self, to: usize) {
        self.bytes[self.filled..to].fill(0);
        self.filled = to;
    }

    /// What is to be written: whole blocks, but for the end of a file that has none there.
    fn blocks(&mut self, len: usize) -> (u64, &[u8]) {
        let whole = self.to.next_multiple_of(BLOCK);
        if whole > self.filled {
            self.fill(whole);
        }
        (self.base as u64, &self.bytes[..whole.min(len - self.base)])
    }

    /// What was stored is on the disk. The block that it ended in stays: what comes next begins there.
    fn written(&mut self) {
        let last = block_of(self.to);
        self.bytes.copy_within(last..self.filled.min(last + BLOCK), 0);
        self.filled -= last;
        self.base += last;
        (self.from, self.to) = (0, 0);
        assert!(self.filled <= BLOCK);
    }
}

impl MappedFile {
    /// Maps `file` at its present length, which must not be 0.
    pub fn new(file: File) -> io::Result<MappedFile> {
        stop_on_bus_error()?;
        let map = MmapRaw::map_raw(&file)?;
        // What is read here is a byte or a block; a page read around it would only have to be given up when it is written.
        let _ = map.advise(Advice::Random);
        let staged = Staged { bytes: direct::aligned(STAGED_MAX + BLOCK)?, base: 0, filled: 0, from: 0, to: 0 };
        // A block that is not whole can't be written so.
        let direct = map.len().is_multiple_of(BLOCK) && direct::set(&file, true);
        let mut mapped = MappedFile { map, file, staged, through_map: false, direct };
        mapped.begin_at(0);
        Ok(mapped)
    }

    /// Puts `bytes` into the buffer, if that is where they go.
    #[inline]
    fn stage(&mut self, at: usize, bytes: &[u8]) -> bool {
        if self.through_map {
            return false;
        }
        if self.staged.is_empty() && !(self.staged.base..=self.staged.base + self.staged.filled).contains(&at) {
            self.begin_at(at);
        }
        if !self.staged.has_room(at, bytes.len()) {
            self.leave_the_buffer();
            return false;
        }
        self.staged.put(at, bytes);
        true
    }

    /// What is stored next begins at `at`: the block there is fetched from the file.
    #[cold]
    fn begin_at(&mut self, at: usize) {
        let base = block_of(at);
        let count = BLOCK.min(self.map.len() - base);
        // SAFETY: `base..base + count` is inside the mapping, nobody holds a reference into it, and the buffer is other
        // memory. Other processes are kept away by the directory's lock, other threads only read.
        unsafe {
            std::ptr::copy_nonoverlapping(self.map.as_ptr().add(base), self.staged.bytes.as_mut_ptr(), count);
        }
        self.staged.bytes[count..BLOCK].fill(0);
        (self.staged.base, self.staged.filled, self.staged.from, self.staged.to) = (base, BLOCK, 0, 0);
    }

    /// From here to the next sync everything goes through the mapping.
    #[cold]
    fn leave_the_buffer(&mut self) {
        self.through_map = true;
        let Staged { base, from, to, .. } = self.staged;
        let staged = self.staged.bytes[from..to].to_vec();
        self.copy(base + from, &staged);
    }

    /// Ends the process, by SIGBUS, if someone has truncated the file: a write would only make it longer again, with a hole
    /// where acknowledged records were. Costs a load, where asking for the length would cost a system call.
    fn touch_end(&self) {
        // SAFETY: the last byte is inside the mapping, which is never empty; nobody holds a reference into it, and the
        // value, which may change meanwhile, is not used.
        unsafe { self.map.as_ptr().add(self.map.len() - 1).read_volatile() };
    }

    fn copy(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.map.len() && bytes.len() <= self.map.len() - at, "stored beyond the end of the map");
        // SAFETY: `at..at + bytes.len()` is inside the mapping (asserted above), which lives as long as `self`. Nobody
        // in this process holds a reference into it: the trait gives none out, and `&mut self` keeps other writers
        // away. `bytes` can't overlap it for the same reason. Other processes are kept away by the directory's lock.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(at), bytes.len()) };
    }
}

/// Writes all of `bytes` at `at`, durably. `direct`: past the page cache, as long as the file system lets it.
fn write_through(file: &File, bytes: &[u8], at: u64, direct: &mut bool) -> io::Result<()> {
    let durably = |bytes: &[u8], at| rustix::io::pwritev2(file, &[IoSlice::new(bytes)], at, ReadWriteFlags::DSYNC);
    write_all_through(durably, file, bytes, at, direct)
}

/// With `durably`, which writes some of its bytes and says how many.
fn write_all_through(
    mut durably: impl FnMut(&[u8], u64) -> Result<usize, Errno>,
    file: &File,
    mut bytes: &[u8],
    mut at: u64,
    direct: &mut bool,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match durably(bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                at += count as u64;
                // The rest of it begins within a block.
                if *direct && !count.is_multiple_of(BLOCK) {
                    use_page_cache(file, direct)?;
                }
            }
            Err(Errno::INTR) => {}
            // Larger sectors, or a file system that only seemed to know it.
            Err(Errno::INVAL) if *direct => use_page_cache(file, direct)?,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                use_page_cache(file, direct)?;
                file.write_all_at(bytes, at)?;
                return Ok(rustix::fs::fdatasync(file)?);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cold]
fn use_page_cache(file: &File, direct: &mut bool) -> io::Result<()> {
    *direct = false;
    match direct::set(file, false) {
        true => Ok(()),
        false => Err(io::Error::other("the file can't be used through the page cache any more")),
    }
}

impl Map for MappedFile {
    fn len(&self) -> usize {
        self.map.len()
    }

    fn store(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.map.len() && bytes.len() <= self.map.len() - at, "stored beyond the end of the map");
        if !self.stage(at, bytes) {
            self.copy(at, bytes);
        }
    }

    fn publish(&mut self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8) && at + 8 <= self.map.len(), "published across a word or beyond the end");
        if self.stage(at, &word.to_le_bytes()) {
            return;
        }
        // SAFETY: the eight bytes are inside the mapping and aligned (asserted above; a mapping begins at a page), and
        // nobody holds a reference to them, as in `store`.
        let cell = unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(at).cast()) };
        cell.store(word.to_le(), Ordering::Release);
    }

    fn sync(&mut self, _from: usize, _to: usize) -> io::Result<()> {
        if std::mem::take(&mut self.through_map) {
            rustix::fs::fdatasync(&self.file)?;
            // What the buffer remembers is no longer what the file has.
            let end = self.staged.base + self.staged.to;
            self.begin_at(end.min(self.map.len() - 1));
            return Ok(());
        }
        if self.staged.is_empty() {
            return Ok(());
        }
        self.touch_end();
        let (at, blocks) = self.staged.blocks(self.map.len());
        write_through(&self.file, blocks, at, &mut self.direct)?;
        self.staged.written();
        Ok(())
    }
}

/// Installs the handler, once in a process.
fn stop_on_bus_error() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        let stop = || {
            let _ = rustix::io::write(std::io::stderr().as_fd(), BUS_ERROR);
            signal_hook::low_level::exit(BUS_STATUS);
        };
        // SAFETY: the handler makes two system calls (write, _exit) and touches no memory of the process but a constant.
        result = unsafe { signal_hook::low_level::register(signal_hook::consts::SIGBUS, stop) }.map(|_| ());
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    /// Groups as a log writes them, one behind the other; what is in the file is what was stored, whoever reads it.
    fn groups_arrive(direct: bool, len: usize, seed: u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(len as u64).unwrap();
        let mut mapped = MappedFile::new(file).unwrap();
        if !direct && mapped.direct {
            use_page_cache(&mapped.file, &mut mapped.direct).unwrap();
        }
        let reader = File::open(&path).unwrap();
        let mut expected = vec![0; len];
        let mut random = Rng::new(seed);
        let (mut end, mut large) = (0, 0);
        loop {
            let begin = end;
            // Now and then more than the buffer holds, which goes through the mapping.
            let stores = if random.below(40) == 0 { 4 } else { 1 + random.below(6) };
            for _ in 0..stores {
                let size = if stores == 4 { random.below(700_000) } else { random.below(3_000) } as usize;
                let skip = random.below(40) as usize;
                if end + skip + size + 16 > len {
                    break;
                }
                end += skip;
                let bytes: Vec<u8> = (0..size).map(|_| random.below(256) as u8).collect();
                mapped.store(end, &bytes);
                expected[end..end + size].copy_from_slice(&bytes);
                end = (end + size).next_multiple_of(8);
                mapped.publish(end, 0x1234_5678_9abc_def0);
                expected[end..end + 8].copy_from_slice(&0x1234_5678_9abc_def0_u64.to_le_bytes());
                end += 8;
            }
            if begin == end {
                break;
            }
            large += u32::from(mapped.through_map);
            mapped.sync(begin, end).unwrap();
            let from = begin.saturating_sub(5000);
            let mut found = vec![0; end - from];
            reader.read_exact_at(&mut found, from as u64).unwrap();
            assert!(found == expected[from..end], "{from} to {end}, seed {seed}");
        }
        drop(mapped);
        assert!(std::fs::read(&path).unwrap() == expected, "seed {seed}");
        assert!(large > 0 || len < 1 << 20);
    }

    /// Part of a block, or memory that begins within one: the disk refuses it, where the file system can write past the cache.
    #[test]
    fn what_the_disk_refuses_is_written_through_the_page_cache_and_from_then_on_so_is_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(3 * BLOCK as u64).unwrap();
        let mut direct = direct::set(&file, true);
        let mut memory = direct::aligned(3 * BLOCK).unwrap();
        memory.fill(5);
        write_through(&file, &memory[1..=BLOCK + 700], 0, &mut direct).unwrap();
        assert!(!direct);
        write_through(&file, &memory[..10], 2 * BLOCK as u64 + 1, &mut direct).unwrap();
        let mut expected = vec![0; 3 * BLOCK];
        expected[..BLOCK + 700].fill(5);
        expected[2 * BLOCK + 1..][..10].fill(5);
        assert!(std::fs::read(&path).unwrap() == expected);
    }

    /// What the kernel may answer, call for call: so many bytes at most, or an error. What follows writes all.
    #[test]
    fn what_is_taken_in_parts_is_written_whole_or_said_not_to_be() {
        const WHOLE: usize = usize::MAX;
        type Case<'a> = (&'a [Result<usize, Errno>], io::Result<()>, bool);
        let cases: &[Case<'_>] = &[
            (&[Ok(BLOCK), Ok(2 * BLOCK)], Ok(()), true),
            (&[Err(Errno::INTR), Ok(BLOCK), Err(Errno::INTR)], Ok(()), true),
            // The rest begins within a block, which only the page cache takes.
            (&[Ok(BLOCK), Ok(700), Ok(1)], Ok(()), false),
            (&[Ok(700), Err(Errno::INTR)], Ok(()), false),
            (&[Ok(BLOCK), Err(Errno::INVAL)], Ok(()), false),
            (&[Ok(BLOCK), Err(Errno::OPNOTSUPP)], Ok(()), false),
            (&[Err(Errno::INVAL), Ok(700), Err(Errno::INVAL)], Ok(()), false),
            (&[Err(Errno::NOSYS)], Ok(()), false),
            (&[Ok(BLOCK), Err(Errno::NOSPC), Ok(WHOLE)], Err(Errno::NOSPC.into()), true),
            (&[Ok(700), Err(Errno::IO), Ok(WHOLE)], Err(Errno::IO.into()), false),
            (&[Ok(BLOCK), Ok(0), Ok(WHOLE)], Err(io::ErrorKind::WriteZero.into()), true),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        let mut memory = direct::aligned(4 * BLOCK).unwrap();
        memory.iter_mut().zip(1..).for_each(|(byte, at): (_, u32)| *byte = (at % 251) as u8);
        for (number, (answers, outcome, stays_direct)) in cases.iter().enumerate() {
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            file.set_len(6 * BLOCK as u64).unwrap();
            // The flag stands for what the file is open with; that a write refuses is for the answers to say.
            let mut direct = true;
            let mut answers = answers.iter().copied();
            let durably = |bytes: &[u8], at| {
                let count = answers.next().unwrap_or(Ok(WHOLE))?.min(bytes.len());
                file.write_all_at(&bytes[..count], at).unwrap();
                Ok(count)
            };
            let written = write_all_through(durably, &file, &memory, BLOCK as u64, &mut direct);
            let kind = |result: &io::Result<()>| result.as_ref().map_err(io::Error::kind).copied();
            assert_eq!(kind(&written), kind(outcome), "case {number}");
            assert_eq!(direct, *stays_direct, "case {number}");
            let found = std::fs::read(&path).unwrap();
            if written.is_ok() {
                assert!(found[BLOCK..5 * BLOCK] == memory[..], "case {number}");
            } else {
                assert_eq!(answers.next(), Some(Ok(WHOLE)), "case {number}: nothing is written behind an error");
            }
            assert!(found[..BLOCK].iter().chain(&found[5 * BLOCK..]).all(|&byte| byte == 0), "case {number}");
        }
    }

    #[test]
    fn groups_of_all_sizes_are_in_the_file_as_they_were_stored() {
        for (seed, direct) in [(1, true), (2, false)] {
            groups_arrive(direct, 24 << 20, seed);
            // Its last block is not whole.
            groups_arrive(direct, 100_000, seed);
        }
    }

    #[test]
    fn a_segment_that_is_mapped_again_goes_on_behind_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        std::fs::write(&path, vec![0; 4 * BLOCK]).unwrap();
        let open = || MappedFile::new(File::options().read(true).write(true).open(&path).unwrap()).unwrap();
        let mut expected = vec![0; 4 * BLOCK];
        for (round, at) in [512, 3_000, 4_090, 9_000, 9_001].into_iter().enumerate() {
            let mut mapped = open();
            let bytes = [round as u8 + 1; 700];
            mapped.store(at, &bytes);
            mapped.sync(at, at + 700).unwrap();
            expected[at..at + 700].copy_from_slice(&bytes);
            assert!(std::fs::read(&path).unwrap() == expected, "round {round}");
        }
    }
}
