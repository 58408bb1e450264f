//! Every file of a directory: what is in it, and whether it is sound. Damage is part of the answer.

use super::json::Object;
use super::source::{dirs, is_zookeepers, limits, log_elsewhere, tree_options};
use super::{InspectArgs, Stop};
use crate::disk::{self, Disk, File, RealDisk};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::epochs::Epochs;
use crate::log::inspect::{self, State};
use crate::snapshot::zookeeper::{Dirs, End, Files, LogName, LogReader, Next, SnapshotName, read_file};
use crate::snapshot::{self, snapshot_path};
use std::io::{self, Write};
use std::path::Path;

/// One file, in words.
struct Line {
    name: String,
    kind: &'static str,
    bytes: u64,
    /// What it holds.
    holds: String,
    problem: Option<String>,
    /// It can't be read, and may be good.
    unread: bool,
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Prints a line for each snapshot and each log.
pub(super) fn print(disk: &RealDisk, args: &InspectArgs, out: &mut impl Write) -> Result<(), Stop> {
    let (snapshots, log) = dirs(&args.path, args);
    let places = Dirs { snapshots: &snapshots, log: &log };
    let mut lines = Vec::new();
    let (mut epochs, mut elsewhere) = (None, None);
    if is_zookeepers(disk, places, args)? {
        let files = Files::list(disk, &snapshots, &log)?;
        lines.extend(files.snapshots.iter().map(|file| their_snapshot(disk, file)));
        lines.extend(files.logs.iter().map(|file| their_log(disk, file)));
    } else {
        for zxid in snapshot::list(disk, &snapshots)? {
            lines.push(our_snapshot(disk, &snapshot_path(&snapshots, zxid)));
        }
        lines.extend(our_log(disk, &log)?);
        epochs = Epochs::load(disk, &log)?;
        elsewhere = log_elsewhere(disk, places)?;
    }
    let damaged = lines.iter().filter(|line| line.problem.is_some() && !line.unread).count();
    for line in &lines {
        print_line(line, args.json, out)?;
    }
    if let Some(epochs) = epochs {
        match args.json {
            true => {
                let object = Object::new().raw("acceptedEpoch", epochs.accepted.0);
                writeln!(out, "{}", object.raw("currentEpoch", epochs.current.0).end())?;
            }
            false => writeln!(out, "epochs: accepted {}, current {}", epochs.accepted.0, epochs.current.0)?,
        }
    }
    if let Some(what) = elsewhere {
        match args.json {
            true => writeln!(out, "{}", Object::new().text("note", &what).end())?,
            false => writeln!(out, "{what}")?,
        }
    }
    if damaged > 0 && !args.json {
        writeln!(out, "{damaged} files are damaged")?;
    }
    Ok(())
}

fn print_line(line: &Line, json: bool, out: &mut impl Write) -> io::Result<()> {
    let Line { name, kind, bytes, holds, problem, unread } = line;
    if json {
        let object = Object::new().text("file", name).text("kind", kind).raw("bytes", bytes).text("holds", holds);
        let object = match problem {
            Some(problem) => object.text("problem", problem),
            None => object,
        };
        return writeln!(out, "{}", object.end());
    }
    match problem {
        Some(problem) if *unread => writeln!(out, "{name}  {bytes} bytes  {holds}  NOT READ: {problem}"),
        Some(problem) => writeln!(out, "{name}  {bytes} bytes  {holds}  DAMAGED: {problem}"),
        None => writeln!(out, "{name}  {bytes} bytes  {holds}"),
    }
}

fn their_snapshot(disk: &RealDisk, file: &SnapshotName) -> Line {
    let mut line = Line {
        name: name(&file.path),
        kind: "snapshot",
        bytes: 0,
        holds: format!("zxid {}", file.zxid),
        problem: None,
        unread: false,
    };
    let read = disk.open_to_read(&file.path).and_then(|opened| {
        line.bytes = opened.len()?;
        Ok(read_file(&opened, file.compression, file.zxid, tree_options(), limits(), &mut |_| {}))
    });
    match read {
        Err(error) => line.problem = Some(error.to_string()),
        Ok(Err(error)) => line.problem = Some(error.to_string()),
        Ok(Ok(read)) => {
            let tree = &read.decoded.tree;
            let (znodes, sessions) = (tree.node_count() - 1, read.decoded.sessions.len());
            let digest = match read.digest {
                // 3.8.0 says 0 of the state before the first transaction. Elsewhere a transaction may have been on its
                // way into the tree when the snapshot ended; only with the log can that be told from damage.
                Some(stored)
                    if stored.zxid == file.zxid
                        && stored.digest.tree != tree.digest()
                        && (file.zxid, stored.digest.tree) != (Zxid::ZERO, 0) =>
                {
                    format!(
                        "digest {:#x}, where it says {:#x}: `ostler import --check` tells whether the log makes it good",
                        tree.digest(),
                        stored.digest.tree
                    )
                }
                Some(stored) if stored.zxid > file.zxid => format!("with changes up to {}", stored.zxid),
                _ => format!("digest {:#x}", tree.digest()),
            };
            line.holds = format!("zxid {}, {znodes} znodes, {sessions} sessions, {digest}", file.zxid);
        }
    }
    line
}

fn their_log(disk: &RealDisk, file: &LogName) -> Line {
    let mut line = Line {
        name: name(&file.path),
        kind: "log",
        bytes: 0,
        holds: "no records".into(),
        problem: None,
        unread: false,
    };
    if let Err(error) = read_their_log(disk, file, &mut line) {
        line.problem = Some(error.to_string());
    }
    line
}

fn read_their_log(disk: &RealDisk, file: &LogName, line: &mut Line) -> io::Result<()> {
    let opened = disk.open_to_read(&file.path)?;
    line.bytes = opened.len()?;
    let mut reader = match LogReader::open(opened, limits().item_bytes)? {
        Ok(reader) => reader,
        Err((offset, problem)) => {
            line.problem = Some(format!("byte {offset}: {problem}"));
            return Ok(());
        }
    };
    let (mut first, mut last, mut records) = (None, None, 0u64);
    let end = loop {
        match reader.next()? {
            Next::Record(record) => {
                first.get_or_insert(record.zxid);
                last = Some(record.zxid);
                records += 1;
            }
            Next::End(end) => break end,
        }
    };
    if let (Some(first), Some(last)) = (first, last) {
        line.holds = format!("{first} to {last}, {records} records");
        if first != file.first {
            line.problem = Some(format!("its first record is {first}, which is not its name"));
        }
    }
    match end {
        End::Clean { .. } => {}
        End::Torn { offset, problem, .. } => {
            line.holds += &format!(", at byte {offset} the remains of an append that was interrupted ({problem})");
        }
        End::Damaged { offset, problem } => line.problem = Some(format!("byte {offset}: {problem}")),
    }
    Ok(())
}

fn our_snapshot(disk: &RealDisk, path: &Path) -> Line {
    let bytes = disk.open_to_read(path).and_then(|file| file.len()).unwrap_or(0);
    let mut line =
        Line { name: name(path), kind: "snapshot", bytes, holds: String::new(), problem: None, unread: false };
    match snapshot::verify(disk, path) {
        Ok(info) => {
            line.holds = format!(
                "zxid {}, {} znodes, {} sessions, digest {:#x}, content digest {:#x}",
                info.zxid, info.nodes, info.sessions, info.tree_digest, info.content_digest
            );
        }
        Err(fatal) => line.problem = Some(fatal.to_string()),
    }
    line
}

fn our_log(disk: &RealDisk, dir: &Path) -> Result<Vec<Line>, Fatal> {
    let (surveys, watermark) = inspect::survey(disk, dir)?;
    let mut lines: Vec<Line> = Vec::new();
    for survey in surveys {
        let mut holds = match survey.zxids {
            Some((first, last)) => format!("{first} to {last}, {} records", survey.records),
            None => "no records".into(),
        };
        let unread = matches!(survey.state, State::Unreadable { .. });
        let problem = match survey.state {
            State::Good => None,
            State::Prepared => {
                holds = "prepared".into();
                None
            }
            State::Torn => {
                holds += ", the remains of an append that was interrupted";
                None
            }
            State::OtherVersion(version) => {
                Some(format!("of version {version} of its format, which is not known here"))
            }
            State::Unreadable { problem, .. } => Some(problem),
            State::Damaged { offset, problem } => Some(format!("byte {offset}: {problem}")),
        };
        lines.push(Line { name: name(&survey.path), kind: "log", bytes: survey.bytes, holds, problem, unread });
    }
    let problem = match watermark {
        Ok(Some(_)) => None,
        Ok(None) if lines.is_empty() => None,
        Ok(None) => Some(disk::fatal(&dir.join("watermark"), 0, io::ErrorKind::NotFound.into())),
        Err(fatal) => Some(fatal),
    };
    if let Some(fatal) = problem {
        let path = dir.join("watermark");
        let bytes = disk.open_to_read(&path).and_then(|file| file.len()).unwrap_or(0);
        let problem = Some(fatal.to_string());
        lines.push(Line { name: name(&path), kind: "watermark", bytes, holds: String::new(), problem, unread: false });
    }
    Ok(lines)
}
