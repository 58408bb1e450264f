//! A server starts on the data directory of a ZooKeeper server and goes on where that one has stopped.
//!
//! Its own files lie in the same directory, under other names; ZooKeeper's stay as they are. So three things have to be
//! told apart at each start: a directory that is to be taken over, one of which that was begun and not finished, and one
//! of which it is done. A file `zookeeper.imported` says which. It is written before the first of our files and again
//! after the last; until then whatever is there of ours is thrown away.
//!
//! ```text
//!           checked, all of it        our files          done
//!   theirs ───────────────────► begun ─────────► written ────► ours go on, theirs stay
//!                                 ▲                 │
//!                                 └── after a crash ┘
//! ```
//!
//! A ZooKeeper server that is started again on such a directory sees only its own files, and goes on from where it was:
//! two histories. So the file also says what ZooKeeper's files looked like, and a server that finds one that has changed
//! or is new refuses to start. (That ZooKeeper does not notice, we can't help; `ostler export` is the way back.) Logs that
//! ZooKeeper may write into are summed up whole: it makes them as long as they will get, so neither their length nor their
//! beginning tells. The looks are taken before anything is read and compared afterwards: a server that is running still writes.
//!
//! Where files of another directory are taken over (`import_from`), the file is there only as long as that is not finished.
//!
//! Runs on: the starting thread, or a command's; the caller holds the locks of both directories.

use super::dir::{ACCEPTED_EPOCH, CURRENT_EPOCH, Files};
use super::import::{ImportOptions, Imported, ProgressBar, Report, first_log, import, import_exact};
use super::log::{LogReader, Next};
use crate::disk::{self, Disk, File};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::epochs::EPOCHS;
use crate::log::{Batch, Log, Sizes, is_log_file};
use crate::snapshot::{SessionRecord, SnapshotWriter, is_snapshot_file};
use crate::tree::{Progress, Tree};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

/// The file that says how far a take-over has got.
const IMPORTED: &str = "zookeeper.imported";
const FIRST_LINE: &str = "ostler: data of Apache ZooKeeper, taken over";
/// The note of a member whose history is damaged (`storage`).
const QUARANTINE: &str = "quarantine";
const FUZZY: &str = "fuzzy";
/// Bytes at the beginning of a file of ZooKeeper's by which it is known again.
const HEAD: usize = 4096;
/// In front of a checksum of all bytes.
const WHOLE: &str = "whole:";
/// Records that are copied in one group.
const BATCH_BYTES: usize = 1 << 20;

/// Where a server keeps its snapshots and its log; they may be one.
#[derive(Clone, Copy, Debug)]
pub struct Dirs<'a> {
    pub snapshots: &'a Path,
    pub log: &'a Path,
}

/// What `take_over` found.
pub enum TakeOver {
    /// No file of ZooKeeper's.
    Nothing,
    /// Done at an earlier start.
    Before,
    /// Done now.
    Done(Report),
}

/// What ZooKeeper's files look like, by name.
type Looks = BTreeMap<String, Look>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Look {
    len: u64,
    /// Of all bytes, or of the first `HEAD`.
    crc: u32,
    whole: bool,
}

#[derive(PartialEq, Eq, Debug)]
struct Marker {
    done: bool,
    /// With what it was begun; nothing, once it is done.
    choice: Choice,
    zxid: Zxid,
    looks: Looks,
}

/// What whoever imports has chosen; a server's start chooses nothing, and can't finish what was begun with a choice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Choice {
    up_to: Option<Zxid>,
    accept_digests: bool,
}

impl Choice {
    fn of(options: &ImportOptions) -> Choice {
        // Where `digest.enabled` is false nobody compares them, a server neither: it goes on with what was begun.
        Choice { up_to: options.up_to, accept_digests: options.tree.digest && !options.check_digests }
    }
}

/// An error if a take-over was begun here with another choice and not finished.
pub fn refuse_another_choice<D: Disk>(disk: &D, snapshots: &Path, options: &ImportOptions) -> Result<(), Fatal> {
    let path = snapshots.join(IMPORTED);
    let Some(Marker { done: false, choice, .. }) = Marker::load(disk, &path)? else { return Ok(()) };
    if choice == Choice::default() || choice == Choice::of(options) {
        return Ok(());
    }
    let mut words = String::new();
    if let Some(up_to) = choice.up_to {
        let _ = write!(words, " --up-to {up_to}");
    }
    if choice.accept_digests {
        words += " --accept-digests";
    }
    let problem = format!(
        "an import with{words} was begun and not finished; give the same command again, or another one with --replace"
    );
    Err(Fatal::ForeignData { file: path, problem })
}

/// Whether a take-over was begun in this directory and not finished: what there is of ours may be a part only.
pub fn is_unfinished<D: Disk>(disk: &D, snapshots: &Path) -> Result<bool, Fatal> {
    Ok(Marker::load(disk, &snapshots.join(IMPORTED))?.is_some_and(|marker| !marker.done))
}

/// An error if it is.
pub fn refuse_unfinished<D: Disk>(disk: &D, snapshots: &Path) -> Result<(), Fatal> {
    if !is_unfinished(disk, snapshots)? {
        return Ok(());
    }
    let problem = "a take-over was begun and not finished; import again first, with the same command".into();
    Err(Fatal::ForeignData { file: snapshots.join(IMPORTED), problem })
}

/// Takes ZooKeeper's files over if there are any and it wasn't done before. `replace`: also where there are files of
/// ours, which go then.
pub fn take_over<D: Disk>(
    disk: &D,
    dirs: Dirs<'_>,
    options: ImportOptions,
    replace: bool,
    progress: ProgressBar<'_>,
) -> Result<TakeOver, Fatal> {
    let files = Files::list(disk, dirs.snapshots, dirs.log)?;
    let marker_path = dirs.snapshots.join(IMPORTED);
    let marker = Marker::load(disk, &marker_path)?;
    let Some(theirs) = files.paths().next() else {
        return match marker {
            Some(Marker { done: false, .. }) => {
                let problem = "a take-over was begun and not finished, and ZooKeeper's files are not here; bring them back, \
                               or import them from where they are (`ostler import --from`)";
                let problem = problem.into();
                Err(Fatal::ForeignData { file: marker_path, problem })
            }
            _ => Ok(TakeOver::Nothing),
        };
    };
    let ours = our_files(disk, dirs)?;
    if !replace {
        refuse_another_choice(disk, dirs.snapshots, &options)?;
    }
    match (&marker, ours.first()) {
        _ if replace => {}
        (None | Some(Marker { done: false, .. }), None) | (Some(Marker { done: false, .. }), Some(_)) => {}
        (None, Some(_)) => {
            let problem = "a file of ZooKeeper's beside ostler's own, which did not come from it".into();
            return Err(Fatal::ForeignData { file: theirs.to_owned(), problem });
        }
        (Some(Marker { done: true, zxid, .. }), None) => {
            let problem = format!("ZooKeeper's data was taken over at zxid {zxid}, and what came of it is gone");
            return Err(Fatal::ForeignData { file: marker_path, problem });
        }
        (Some(marker), Some(_)) => {
            let problem =
                format!("ZooKeeper has written it after its data had been taken over at zxid {}", marker.zxid);
            refuse_changed(disk, dirs, &files, &marker.looks, problem)?;
            return Ok(TakeOver::Before);
        }
    }
    let looks = look(disk, dirs, &files, None)?;
    let Some(imported) = import(disk, dirs.snapshots, dirs.log, options, progress)? else {
        return Ok(TakeOver::Nothing);
    };
    let problem = "it was written while it was read; stop the ZooKeeper server first";
    refuse_changed(disk, dirs, &Files::list(disk, dirs.snapshots, dirs.log)?, &looks, problem.into())?;
    let (choice, zxid) = (Choice::of(&options), imported.tree.zxid());
    let mut marker = Marker { done: false, choice, zxid, looks };
    marker.store(disk, &marker_path)?;
    remove_ours(disk, dirs)?;
    let report = import_into(disk, dirs, dirs, options, imported)?;
    (marker.done, marker.choice) = (true, Choice::default());
    marker.store(disk, &marker_path)?;
    Ok(TakeOver::Done(report))
}

/// The same with files of another directory, which were imported: `to` has none of ZooKeeper's, and loses what it has of ours.
pub fn import_from<D: Disk>(
    disk: &D,
    from: Dirs<'_>,
    to: Dirs<'_>,
    options: ImportOptions,
    imported: Imported,
) -> Result<Report, Fatal> {
    let path = to.snapshots.join(IMPORTED);
    let (choice, zxid) = (Choice::of(&options), imported.tree.zxid());
    Marker { done: false, choice, zxid, looks: Looks::new() }.store(disk, &path)?;
    remove_ours(disk, to)?;
    let report = import_into(disk, from, to, options, imported)?;
    disk.remove(&path).map_err(|error| disk::fatal(&path, 0, error))?;
    disk.sync_dir(to.snapshots).map_err(|error| disk::sync_failed(to.snapshots, error))?;
    Ok(report)
}

/// Writes what was imported `from` as a server of ours has it: a snapshot where the state is exact, and a log of the records
/// behind it. A member's last records may never have been committed; a leader takes such back out of a log, and could not
/// out of a snapshot. `to`'s directories exist and have no files of ours.
fn import_into<D: Disk>(
    disk: &D,
    from: Dirs<'_>,
    to: Dirs<'_>,
    options: ImportOptions,
    imported: Imported,
) -> Result<Report, Fatal> {
    let last = imported.tree.zxid();
    if imported.exact == last {
        put_state(disk, to, &imported)?;
        return Ok(imported.report);
    }
    // One tree at a time: it may be most of the memory there is.
    let Imported { tree, epochs, exact, report, .. } = imported;
    drop(tree);
    let files = Files::list(disk, from.snapshots, from.log)?;
    let (tree, sessions) = import_exact(disk, &files, options, exact)?;
    write_snapshot(disk, to.snapshots, &tree, &sessions)?;
    drop(tree);
    epochs.store(disk, to.log)?;
    let mut log = Log::create(disk.clone(), to.log, exact, Sizes::default())?;
    copy_records(disk, &files, options, last, &mut log)?;
    Ok(report)
}

/// Appends ZooKeeper's records behind the end of `log` up to `last`. All of them have been read and found good before.
fn copy_records<D: Disk>(
    disk: &D,
    files: &Files,
    options: ImportOptions,
    last: Zxid,
    log: &mut Log<D>,
) -> Result<(), Fatal> {
    let mut batch = Batch::new();
    let mut at = log.last_zxid();
    'files: for file in &files.logs[first_log(files, at)..] {
        let io = |error| disk::fatal(&file.path, 0, error);
        let opened = disk.open_to_read(&file.path).map_err(io)?;
        // One that was hardly begun has no records.
        let Ok(mut reader) = LogReader::open(opened, options.limits.item_bytes).map_err(io)? else { continue };
        while let Next::Record(record) = reader.next().map_err(io)? {
            if record.zxid > last {
                break 'files;
            }
            if record.zxid <= at {
                continue;
            }
            at = record.zxid;
            batch.push(record.zxid, record.entry);
            if batch.body_bytes() > BATCH_BYTES {
                append(log, &mut batch)?;
            }
        }
    }
    append(log, &mut batch)?;
    if at != last {
        // The files have changed under our hands.
        let problem = format!("the log ended with {last} when it was checked, and ends with {at} now");
        let file = files.logs.last().map(|file| file.path.clone()).unwrap_or_default();
        return Err(Fatal::ZooKeeperData { file, offset: 0, last_good: at, problem });
    }
    Ok(())
}

fn append<D: Disk>(log: &mut Log<D>, batch: &mut Batch) -> Result<(), Fatal> {
    if !batch.is_empty() {
        log.append(batch)?;
        log.sync()?;
        batch.clear();
    }
    Ok(())
}

/// Writes a state as a server of ours has it: a snapshot, an empty log behind it, the epochs. For directories that exist
/// and have no such files.
pub fn put_state<D: Disk>(disk: &D, dirs: Dirs<'_>, state: &Imported) -> Result<(), Fatal> {
    write_snapshot(disk, dirs.snapshots, &state.tree, &state.sessions)?;
    state.epochs.store(disk, dirs.log)?;
    Log::create(disk.clone(), dirs.log, state.tree.zxid(), Sizes::default()).map(drop)
}

fn write_snapshot<D: Disk>(disk: &D, dir: &Path, tree: &Tree, sessions: &[SessionRecord]) -> Result<(), Fatal> {
    let mut writer = SnapshotWriter::begin(disk.clone(), dir, tree.begin_freeze(), sessions)?;
    loop {
        let progress = writer.take(tree);
        writer.store()?;
        if progress == Progress::Done {
            return writer.finish().map(drop);
        }
    }
}

/// Removes the files of a server of ours.
pub fn remove_ours<D: Disk>(disk: &D, dirs: Dirs<'_>) -> Result<(), Fatal> {
    for path in our_files(disk, dirs)? {
        disk.remove(&path).map_err(|error| disk::fatal(&path, 0, error))?;
    }
    for dir in [dirs.snapshots, dirs.log] {
        disk.sync_dir(dir).map_err(|error| disk::sync_failed(dir, error))?;
    }
    Ok(())
}

/// Files that a server of ours has written.
pub fn our_files<D: Disk>(disk: &D, dirs: Dirs<'_>) -> Result<Vec<PathBuf>, Fatal> {
    let list = |dir: &Path| disk.list(dir).map_err(|source| Fatal::DataDir { dir: dir.to_owned(), source });
    let mut ours = Vec::new();
    let of_snapshots = |name: &&String| is_snapshot_file(name);
    ours.extend(list(dirs.snapshots)?.iter().filter(of_snapshots).map(|name| dirs.snapshots.join(name)));
    let of_log = |name: &&String| is_log_file(name) || [QUARANTINE, FUZZY, EPOCHS].contains(&name.as_str());
    ours.extend(list(dirs.log)?.iter().filter(of_log).map(|name| dirs.log.join(name)));
    Ok(ours)
}

/// The path of a file of ZooKeeper's.
fn place(dirs: Dirs<'_>, name: &str) -> PathBuf {
    if name.starts_with("log.") { dirs.log.join(name) } else { dirs.snapshots.join(name) }
}

/// An error with this `problem` if a file is new or does not look any more as it did. One that is gone is none.
fn refuse_changed<D: Disk>(
    disk: &D,
    dirs: Dirs<'_>,
    files: &Files,
    before: &Looks,
    problem: String,
) -> Result<(), Fatal> {
    let looks = look(disk, dirs, files, Some(before))?;
    match looks.iter().find(|(name, look)| before.get(*name) != Some(look)) {
        None => Ok(()),
        Some((name, _)) => Err(Fatal::ForeignData { file: place(dirs, name), problem }),
    }
}

/// What the files look like, as far as each was looked at `before`. For the first time that is whole for the logs behind the
/// newest snapshot, which are read at an import anyway and are all that ZooKeeper may go on writing into.
fn look<D: Disk>(disk: &D, dirs: Dirs<'_>, files: &Files, before: Option<&Looks>) -> Result<Looks, Fatal> {
    let mut looks = Looks::new();
    let newest = files.snapshots.first().map_or(Zxid::ZERO, |snapshot| snapshot.zxid);
    let appended = &files.logs[first_log(files, newest)..];
    let epochs = [CURRENT_EPOCH, ACCEPTED_EPOCH].map(|name| dirs.snapshots.join(name));
    let mut piece = vec![0; D::PIECE_BYTES];
    for path in files.paths().chain(epochs.iter().map(PathBuf::as_path)) {
        let io = |error| disk::fatal(path, 0, error);
        let file = match disk.open_to_read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io(error)),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let whole = match before {
            // A new file is an error whatever is in it.
            Some(before) => before.get(&name).is_some_and(|look| look.whole),
            None => appended.iter().any(|log| log.path == path),
        };
        let len = file.len().map_err(io)?;
        let (mut at, mut crc) = (0, 0);
        let end = if whole { len } else { len.min(HEAD as u64) };
        while at < end {
            let count = (end - at).min(piece.len() as u64) as usize;
            file.read_at(at, &mut piece[..count]).map_err(io)?;
            crc = crc32c::crc32c_append(crc, &piece[..count]);
            at += count as u64;
        }
        looks.insert(name, Look { len, crc, whole });
    }
    Ok(looks)
}

impl Marker {
    /// Text, so that an operator who looks into it learns something.
    fn store<D: Disk>(&self, disk: &D, path: &Path) -> Result<(), Fatal> {
        let mut text = format!("{FIRST_LINE}\n");
        let mut state = String::from(if self.done { "done" } else { "begun" });
        if let Some(up_to) = self.choice.up_to {
            let _ = write!(state, " up-to {:x}", up_to.0);
        }
        if self.choice.accept_digests {
            state += " accept-digests";
        }
        let _ = writeln!(text, "{state} zxid {:#x}", self.zxid.0);
        for (name, Look { len, crc, whole }) in &self.looks {
            let _ = writeln!(text, "{len} {}{crc:08x} {name}", if *whole { WHOLE } else { "" });
        }
        let _ = writeln!(text, "crc32c {:08x}", crc32c::crc32c(text.as_bytes()));
        disk::replace_file(disk, path, text.as_bytes())
    }

    fn load<D: Disk>(disk: &D, path: &Path) -> Result<Option<Marker>, Fatal> {
        let file = match disk.open_to_read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk::fatal(path, 0, error)),
        };
        let bytes = disk::read_whole(&file, 1 << 24).map_err(|error| disk::fatal(path, 0, error))?;
        match Marker::parse(&bytes) {
            Some(marker) => Ok(Some(marker)),
            None => Err(Fatal::ForeignData { file: path.to_owned(), problem: "it is damaged".into() }),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Marker> {
        let text = std::str::from_utf8(bytes).ok()?;
        let sum_at = text.trim_end().rfind('\n')? + 1;
        let (text, sum) = text.split_at(sum_at);
        if sum.trim_end() != format!("crc32c {:08x}", crc32c::crc32c(text.as_bytes())) {
            return None;
        }
        let mut lines = text.lines();
        lines.next().filter(|line| *line == FIRST_LINE)?;
        let (state, zxid) = lines.next()?.split_once(" zxid 0x")?;
        let mut looks = Looks::new();
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let (len, crc) = (words.next()?.parse().ok()?, words.next()?);
            // A file of an earlier version has none of these; then a log's beginning has to do.
            let (whole, crc) = crc.strip_prefix(WHOLE).map_or((false, crc), |crc| (true, crc));
            let crc = u32::from_str_radix(crc, 16).ok()?;
            looks.insert(words.next()?.to_owned(), Look { len, crc, whole });
        }
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok().map(Zxid);
        let mut words = state.split(' ');
        let done = words.next()? == "done";
        let mut choice = Choice::default();
        while let Some(word) = words.next() {
            match word {
                "up-to" => choice.up_to = Some(number(words.next()?)?),
                "accept-digests" => choice.accept_digests = true,
                _ => return None,
            }
        }
        Some(Marker { done, choice, zxid: number(zxid)?, looks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_survives_its_text_and_a_changed_byte_is_none() {
        let disk = crate::disk::sim::SimDisk::new();
        let path = Path::new("/d/zookeeper.imported");
        disk.create_dir(Path::new("/d")).unwrap();
        let look = |len, crc, whole| Look { len, crc, whole };
        let looks =
            [("snapshot.16a", look(3665, 7, false)), ("log.1 ", look(0, u32::MAX, false)), ("log.2", look(9, 1, true))];
        let looks = looks.map(|(name, look)| (name.to_owned(), look)).into();
        let mut marker = Marker { done: true, choice: Choice::default(), zxid: Zxid(0x1_0000_0000), looks };
        for (done, up_to, accept_digests) in [
            (false, None, false),
            (false, Some(Zxid(0x2_0000_000a)), false),
            (false, Some(Zxid(7)), true),
            (true, None, false),
        ] {
            (marker.done, marker.choice) = (done, Choice { up_to, accept_digests });
            marker.store(&disk, path).unwrap();
            assert_eq!(Marker::load(&disk, path).unwrap().as_ref(), Some(&marker));
        }
        let bytes = disk.contents(path).unwrap();
        for at in 0..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(Marker::parse(&changed), None, "{at}");
            assert_eq!(Marker::parse(&bytes[..at]), None, "{at}");
        }
    }

    #[test]
    fn a_note_of_an_earlier_version_still_counts() {
        let dir = Path::new("/d");
        let dirs = Dirs { snapshots: dir, log: dir };
        let disk = crate::disk::sim::SimDisk::new();
        disk.create_dir(dir).unwrap();
        let mut bytes = vec![7; 9000];
        disk.put(&dir.join("log.1"), bytes.clone());
        let mut text = format!("{FIRST_LINE}\ndone zxid 0x5\n9000 {:08x} log.1\n", crc32c::crc32c(&bytes[..HEAD]));
        let _ = writeln!(text, "crc32c {:08x}", crc32c::crc32c(text.as_bytes()));
        let marker = Marker::parse(text.as_bytes()).unwrap();
        let files = Files::list(&disk, dir, dir).unwrap();
        let refuse = || refuse_changed(&disk, dirs, &files, &marker.looks, "changed".into());
        refuse().unwrap();
        bytes[HEAD - 1] = 8;
        disk.put(&dir.join("log.1"), bytes);
        assert!(matches!(refuse(), Err(Fatal::ForeignData { .. })));
    }
}
