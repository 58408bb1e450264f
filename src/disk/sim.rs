//! A disk that forgets, tears, flips and lies on command: the same trait, in memory, deterministic.
//!
//! It keeps two pictures of everything: what the programs see, and what would be found after a power cut. A sync of a
//! file copies its sectors from one to the other, a sync of a directory its names. Between syncs each 512-byte sector
//! goes its own way: at a crash it is found as it was at the last sync, as it is now, or as it was at some moment in
//! between; and names made, moved or removed may be found in any combination.
//!
//! Every operation is counted, stores into maps too. `stop_after(n)` lets n of them happen and then the power is off:
//! run a scenario once to count its operations, then once for each n, and look at what recovery makes of each image
//! (`after_crash`).
//!
//! Promises: no clock, no thread, no chance but from the seed in `Keep::Some`. Leaves to the test: which promise of the
//! server is broken by which fault.
//!
//! Runs on: any thread, but one at a time.

use super::{Disk, File, Map, SECTOR};
use crate::fatal::Fatal;
use crate::random::Rng;
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Moments of a sector that are remembered between two syncs.
const MOMENTS_MAX: usize = 8;

/// The pid that a simulated lock is held by.
const LOCK_PID: u32 = 1;

/// A handle on one simulated disk.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

/// What a crash leaves of the things that no sync has covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// All: what a killed process leaves.
    Everything,
    /// Bytes but not names.
    Bytes,
    /// Names but not bytes.
    Names,
    /// Each sector and each name by chance, drawn from this seed.
    Some(u64),
}

#[derive(Clone, Default)]
struct World {
    inodes: Vec<Inode>,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names that no sync has covered, in order.
    pending: Vec<Change>,
    locked: BTreeSet<PathBuf>,
    operations: u64,
    syncs: u64,
    stop_after: Option<u64>,
    fail_sync: Option<u64>,
    lose_syncs_of: Option<PathBuf>,
    capacity: Option<u64>,
    read_only: bool,
    bad_sectors: BTreeMap<(usize, u64), Errno>,
    /// Files of somebody else's, which may be read.
    foreign: BTreeSet<usize>,
    /// Files of somebody else's, which may not.
    forbidden: BTreeSet<usize>,
    /// When a file of the first name is opened next, the second name goes.
    lose_at_open: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync, each with what it held at moments in between.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
}

#[derive(Clone)]
enum Change {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    /// The second half of a rename, behind the link: a crash may leave both names, as where they are on different blocks, but no
    /// journal loses the old one before it has the new one.
    Move(PathBuf, PathBuf, usize),
}

/// An open file of a `SimDisk`.
pub struct SimFile {
    disk: SimDisk,
    inode: usize,
}

/// A mapped file of a `SimDisk`.
pub struct SimMap {
    file: SimFile,
    len: usize,
}

/// A locked directory of a `SimDisk`.
pub struct SimLock {
    disk: SimDisk,
    dir: PathBuf,
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk with a root directory.
    pub fn new() -> SimDisk {
        let mut world = World::default();
        world.dirs.insert(PathBuf::from("/"));
        SimDisk { world: Arc::new(Mutex::new(world)) }
    }

    /// A disk of its own with what a crash at this moment leaves; on it everything is durable. This one stays as it is,
    /// so that one crash can be looked at in several ways.
    pub fn after_crash(&self, keep: Keep) -> SimDisk {
        let world = self.lock_world();
        let mut rng = Rng::new(if let Keep::Some(seed) = keep { seed } else { 0 });
        let keep_bytes = matches!(keep, Keep::Everything | Keep::Bytes);
        let mut found = World { dirs: world.dirs.clone(), ..World::default() };
        for inode in &world.inodes {
            let bytes = match keep {
                Keep::Some(_) => inode.torn(&mut rng),
                _ if keep_bytes => inode.now.clone(),
                _ => inode.durable.clone(),
            };
            found.inodes.push(Inode { now: bytes.clone(), durable: bytes, dirty: BTreeMap::new() });
        }
        found.names = match keep {
            Keep::Everything | Keep::Names => world.names.clone(),
            Keep::Nothing | Keep::Bytes => world.durable_names.clone(),
            Keep::Some(_) => {
                let mut names = world.durable_names.clone();
                world.pending.iter().filter(|_| rng.below(2) == 0).for_each(|change| change.apply(&mut names));
                names
            }
        };
        found.durable_names = found.names.clone();
        found.bad_sectors = world.bad_sectors.clone();
        found.foreign = world.foreign.clone();
        found.forbidden = world.forbidden.clone();
        SimDisk { world: Arc::new(Mutex::new(found)) }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.lock_world().operations
    }

    /// Lets operations happen until there were `count` of them; each one after that fails and changes nothing.
    pub fn stop_after(&self, count: u64) {
        self.lock_world().stop_after = Some(count);
    }

    /// Whether `stop_after` has taken effect.
    pub fn is_off(&self) -> bool {
        let world = self.lock_world();
        world.stop_after.is_some_and(|count| world.operations >= count)
    }

    /// Syncs so far, of files and directories.
    pub fn syncs(&self) -> u64 {
        self.lock_world().syncs
    }

    /// Lets the sync with this number (the first is 1) fail with EIO. As on Linux, the file counts as clean afterwards:
    /// another sync succeeds, and what was written is lost at a crash.
    pub fn fail_sync(&self, number: u64) {
        self.lock_world().fail_sync = Some(number);
    }

    /// From now on, syncs of this file return success and do nothing. `None` ends it.
    pub fn lose_syncs_of(&self, path: Option<&Path>) {
        self.lock_world().lose_syncs_of = path.map(Path::to_owned);
    }

    /// Bytes that all files together may take; what would go beyond fails with ENOSPC.
    pub fn limit(&self, bytes: Option<u64>) {
        self.lock_world().capacity = bytes;
    }

    /// From now on it is mounted for reading only: what would change something, or opens a file to change it, fails with EROFS.
    pub fn mount_read_only(&self) {
        self.lock_world().read_only = true;
    }

    /// Lets every read of a sector of this file fail with EIO.
    pub fn break_sector(&self, path: &Path, sector: u64) {
        self.break_sector_with(path, sector, Errno::IO);
    }

    /// The same with another error.
    pub fn break_sector_with(&self, path: &Path, sector: u64, errno: Errno) {
        let mut world = self.lock_world();
        let inode = world.names[path];
        world.bad_sectors.insert((inode, sector), errno);
    }

    /// Makes a file somebody else's: it can be read, renamed and removed; opened to be changed it can't (EACCES).
    pub fn give_away(&self, path: &Path) {
        let mut world = self.lock_world();
        let inode = world.names[path];
        world.foreign.insert(inode);
    }

    /// Makes a file somebody else's that can't be read either.
    pub fn forbid(&self, path: &Path) {
        self.give_away(path);
        let mut world = self.lock_world();
        let inode = world.names[path];
        world.forbidden.insert(inode);
    }

    /// Lets somebody else remove the file `gone`, durably, right before `opened` is opened for reading next.
    pub fn lose_at_open(&self, opened: &Path, gone: &Path) {
        self.lock_world().lose_at_open = Some((opened.to_owned(), gone.to_owned()));
    }

    /// Changes a file behind everyone's back, on the disk and in memory: flipped bits, zeroed sectors, sectors that were
    /// written to the wrong place, a shorter file.
    pub fn damage(&self, path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.lock_world();
        let inode = world.names[path];
        let inode = &mut world.inodes[inode];
        how(&mut inode.now);
        inode.durable = inode.now.clone();
        inode.dirty.clear();
    }

    /// What a program would read from the file; `None` if there is none.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.lock_world();
        world.names.get(path).map(|&inode| world.inodes[inode].now.clone())
    }

    /// Puts a file there, durably.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut world = self.lock_world();
        let inode = world.inodes.len();
        world.inodes.push(Inode { now: bytes.clone(), durable: bytes, dirty: BTreeMap::new() });
        world.names.insert(path.to_owned(), inode);
        world.durable_names.insert(path.to_owned(), inode);
    }

    /// Takes a file away, durably.
    pub fn lose_file(&self, path: &Path) {
        let mut world = self.lock_world();
        world.names.remove(path);
        world.durable_names.remove(path);
    }

    fn lock_world(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }

    /// The world, if the power is on for one more operation.
    fn operate(&self) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.lock_world();
        if world.stop_after.is_some_and(|count| world.operations >= count) {
            return Err(io::Error::other("the power is off"));
        }
        world.operations += 1;
        Ok(world)
    }

    /// As `operate`, for what changes something.
    fn operate_to_write(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.operate()?;
        if world.read_only {
            return Err(io::Error::from_raw_os_error(Errno::ROFS.raw_os_error()));
        }
        Ok(world)
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Map = SimMap;
    type Lock = SimLock;

    fn create(&self, path: &Path, len: u64) -> io::Result<SimFile> {
        let mut world = self.operate_to_write()?;
        world.dir_of(path)?;
        let old = world.names.get(path).copied();
        let freed = old.map_or(0, |inode| world.inodes[inode].now.len() as u64);
        world.reserve(len.saturating_sub(freed))?;
        let inode = old.unwrap_or_else(|| {
            world.inodes.push(Inode::default());
            world.inodes.len() - 1
        });
        world.inodes[inode].truncate_to_zeros(len as usize);
        if old.is_none() {
            world.change(Change::Link(path.to_owned(), inode));
        }
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        // A name that is not there is said first, as Linux does.
        let missing = !self.lock_world().names.contains_key(path);
        let world = if missing { self.operate()? } else { self.operate_to_write()? };
        let inode = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if world.foreign.contains(&inode) {
            return Err(io::Error::from_raw_os_error(Errno::ACCESS.raw_os_error()));
        }
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn open_to_read(&self, path: &Path) -> io::Result<SimFile> {
        let mut world = self.operate()?;
        if let Some((_, gone)) = world.lose_at_open.take_if(|(opened, _)| opened == path) {
            world.names.remove(&gone);
            world.durable_names.remove(&gone);
        }
        let inode = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if world.forbidden.contains(&inode) {
            return Err(io::Error::from_raw_os_error(Errno::ACCESS.raw_os_error()));
        }
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn map(&self, file: SimFile) -> io::Result<SimMap> {
        let len = file.len()? as usize;
        Ok(SimMap { file, len })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.operate_to_write()?;
        let inode = *world.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        world.change(Change::Link(to.to_owned(), inode));
        world.change(Change::Move(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.operate_to_write()?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change(Change::Unlink(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.operate()?;
        if !world.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = world.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.operate_to_write()?;
        world.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.operate()?;
        world.count_sync()?;
        let World { pending, durable_names, .. } = &mut *world;
        pending.retain(|change| {
            let here = change.path().parent() == Some(dir);
            if here {
                change.apply(durable_names);
            }
            !here
        });
        Ok(())
    }

    fn lock(&self, dir: &Path) -> Result<SimLock, Fatal> {
        if self.lock_world().read_only {
            let source = io::Error::from_raw_os_error(Errno::ROFS.raw_os_error());
            return Err(Fatal::DataDir { dir: dir.to_owned(), source });
        }
        if !self.lock_world().locked.insert(dir.to_owned()) {
            return Err(Fatal::DataDirLocked { dir: dir.to_owned(), holder_pid: LOCK_PID });
        }
        Ok(SimLock { disk: self.clone(), dir: dir.to_owned() })
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock_world().inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        // Not counted: a crash between two reads is a crash before the next write.
        let world = self.disk.lock_world();
        if into.is_empty() {
            return Ok(());
        }
        let sectors = at / SECTOR as u64..=(at + into.len() as u64 - 1) / SECTOR as u64;
        if let Some((_, errno)) =
            world.bad_sectors.range((self.inode, *sectors.start())..=(self.inode, *sectors.end())).next()
        {
            return Err((*errno).into());
        }
        let end = usize::try_from(at).ok().and_then(|at| at.checked_add(into.len()));
        let bytes = end.and_then(|end| world.inodes[self.inode].now.get(at as usize..end));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.disk.operate()?;
        let end = at + bytes.len() as u64;
        let grows = end.saturating_sub(world.inodes[self.inode].now.len() as u64);
        world.reserve(grows)?;
        world.inodes[self.inode].write(at as usize, bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.disk.operate()?;
        if let Err(error) = world.count_sync() {
            world.inodes[self.inode].dirty.clear();
            return Err(error);
        }
        if world.lose_syncs_of.as_ref().and_then(|path| world.names.get(path)) != Some(&self.inode) {
            world.inodes[self.inode].sync();
        }
        Ok(())
    }

    fn forget_cached(&self) {
        let mut world = self.disk.lock_world();
        // What is neither dirty nor on the disk was lost by a failed or a lying sync; only the cache has it.
        world.inodes[self.inode].forget_clean();
    }
}

impl Map for SimMap {
    fn len(&self) -> usize {
        self.len
    }

    fn store(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.len && bytes.len() <= self.len - at, "stored beyond the end of the map");
        if let Ok(mut world) = self.file.disk.operate() {
            world.inodes[self.file.inode].write(at, bytes);
        }
    }

    fn publish(&mut self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8));
        self.store(at, &word.to_le_bytes());
    }

    fn sync(&mut self, _from: usize, _to: usize) -> io::Result<()> {
        self.file.sync()
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock_world().locked.remove(&self.dir);
    }
}

impl World {
    fn dir_of(&self, path: &Path) -> io::Result<()> {
        match path.parent().is_some_and(|dir| self.dirs.contains(dir)) {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn reserve(&self, more: u64) -> io::Result<()> {
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        let used: u64 = named.iter().map(|&inode| self.inodes[inode].now.len() as u64).sum();
        if more > 0 && self.capacity.is_some_and(|capacity| used + more > capacity) {
            return Err(io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error()));
        }
        Ok(())
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.fail_sync == Some(self.syncs) {
            return Err(io::Error::from_raw_os_error(Errno::IO.raw_os_error()));
        }
        Ok(())
    }
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Change::Link(path, _) | Change::Unlink(path) | Change::Move(path, ..) => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Change::Link(path, inode) => names.insert(path.clone(), *inode),
            Change::Unlink(path) => names.remove(path),
            Change::Move(from, to, inode) => {
                names.insert(to.clone(), *inode);
                names.remove(from)
            }
        };
    }
}

impl Inode {
    fn sectors(from: usize, to: usize) -> std::ops::Range<usize> {
        from / SECTOR..to.div_ceil(SECTOR)
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        for sector in Self::sectors(at, end) {
            let held = sector_of(&self.now, sector).to_vec();
            match self.dirty.entry(sector) {
                // Before the first write it held what the last sync left.
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(Vec::new())),
                std::collections::btree_map::Entry::Occupied(mut entry) if entry.get().len() < MOMENTS_MAX => {
                    entry.get_mut().push(held);
                }
                _ => {}
            }
        }
        if end > self.now.len() {
            self.now.resize(end, 0);
        }
        self.now[at..end].copy_from_slice(bytes);
    }

    fn truncate_to_zeros(&mut self, len: usize) {
        let longest = len.max(self.now.len()).max(self.durable.len());
        self.now = vec![0; len];
        for sector in Self::sectors(0, longest) {
            self.dirty.entry(sector).or_default();
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            let from = (sector * SECTOR).min(self.now.len());
            let to = ((sector + 1) * SECTOR).min(self.now.len());
            self.durable[from..to].copy_from_slice(&self.now[from..to]);
        }
    }

    fn forget_clean(&mut self) {
        let len = self.now.len();
        for sector in Self::sectors(0, len).filter(|sector| !self.dirty.contains_key(sector)) {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(len));
            let mut held = sector_of(&self.durable, sector).to_vec();
            held.resize(to - from, 0);
            self.now[from..to].copy_from_slice(&held);
        }
    }

    /// What a crash may leave: each dirty sector as of the last sync, as of now, or of a moment in between.
    fn torn(&self, rng: &mut Rng) -> Vec<u8> {
        let mut found = self.durable.clone();
        let mut len = if rng.below(2) == 0 { self.durable.len() } else { self.now.len() };
        for (&sector, moments) in &self.dirty {
            let choice = rng.below(moments.len() as u64 + 2) as usize;
            let held = match choice {
                0 => continue,
                1 => sector_of(&self.now, sector),
                _ => &moments[choice - 2],
            };
            let (from, to) = (sector * SECTOR, sector * SECTOR + held.len());
            if found.len() < to {
                found.resize(to, 0);
            }
            found[from..to].copy_from_slice(held);
            // A sector that is there lies inside the file.
            len = len.max(to);
        }
        found.resize(len, 0);
        found
    }
}

/// The part of `bytes` that lies in a sector; shorter, or empty, at the end.
fn sector_of(bytes: &[u8], sector: usize) -> &[u8] {
    let from = (sector * SECTOR).min(bytes.len());
    &bytes[from..((sector + 1) * SECTOR).min(bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> &'static Path {
        Path::new("/file")
    }

    #[test]
    fn what_no_sync_covers_is_lost_with_the_power_and_kept_by_a_kill() {
        let disk = SimDisk::new();
        let mut file = disk.create(path(), 1024).unwrap();
        file.sync().unwrap();
        assert_eq!(disk.after_crash(Keep::Nothing).contents(path()), None, "the name is not durable");
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(600, b"x").unwrap();
        assert_eq!(disk.after_crash(Keep::Nothing).contents(path()), Some(vec![0; 1024]));
        assert_eq!(disk.after_crash(Keep::Everything).contents(path()).unwrap()[600], b'x');
        file.sync().unwrap();
        assert_eq!(disk.after_crash(Keep::Nothing).contents(path()).unwrap()[600], b'x');
    }

    #[test]
    fn a_file_that_is_renamed_has_one_of_its_names_at_least_whatever_a_crash_leaves() {
        let disk = SimDisk::new();
        disk.put(path(), vec![1]);
        let other = Path::new("/other");
        disk.rename(path(), other).unwrap();
        let names: BTreeSet<[bool; 2]> = (0..64)
            .map(|seed| disk.after_crash(Keep::Some(seed)))
            .map(|found| [path(), other].map(|name| found.contents(name).is_some()))
            .collect();
        assert_eq!(names, BTreeSet::from([[true, false], [true, true], [false, true]]));
    }

    #[test]
    fn sectors_go_their_own_way_and_one_seed_is_one_image() {
        let disk = SimDisk::new();
        let mut file = disk.create(path(), 4096).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(0, &[7; 4096]).unwrap();
        let mut images = BTreeSet::new();
        for seed in 0..64 {
            let image = disk.after_crash(Keep::Some(seed)).contents(path()).unwrap();
            assert_eq!(Some(&image), disk.after_crash(Keep::Some(seed)).contents(path()).as_ref());
            assert!(image.chunks(SECTOR).all(|sector| sector.iter().all(|&byte| byte == sector[0])), "torn inside");
            images.insert(image);
        }
        assert!(images.len() > 20, "{}", images.len());
    }

    #[test]
    fn after_a_failed_sync_the_next_succeeds_without_the_data() {
        let disk = SimDisk::new();
        let mut file = disk.create(path(), 512).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(0, b"x").unwrap();
        disk.fail_sync(disk.syncs() + 1);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        let mut byte = [0];
        file.read_at(0, &mut byte).unwrap();
        assert_eq!(&byte, b"x", "the cache still has it");
        file.forget_cached();
        file.read_at(0, &mut byte).unwrap();
        assert_eq!(byte, [0], "the disk never got it");
    }

    #[test]
    fn a_full_disk_refuses_and_a_stopped_one_changes_nothing() {
        let disk = SimDisk::new();
        disk.limit(Some(1000));
        assert_eq!(disk.create(path(), 1001).err().unwrap().kind(), io::ErrorKind::StorageFull);
        disk.create(path(), 1000).unwrap();
        disk.stop_after(disk.operations());
        assert!(disk.remove(path()).is_err());
        assert!(disk.contents(path()).is_some());
    }
}
