//! Transactions, one a line: of a log file of ZooKeeper's, of a segment of ours, of all that a directory has.

use super::json::{Object, array, string};
use super::source::{dirs, is_zookeepers, limits, refuse_log_elsewhere};
use super::znodes::{acl_json, acl_text, data_json};
use super::{InspectArgs, Stop};
use crate::admin::java_date;
use crate::disk::{self, Disk, RealDisk};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::inspect;
use crate::snapshot::zookeeper::{Dirs, End, Files, LogReader, Next};
use crate::wire::txn::{NodeKind, Txn, TxnDigest, TxnHeader, read_txn};
use std::io::Write;
use std::path::Path;

/// A log file of ZooKeeper's. Damage is shown, and is an error.
pub(super) fn print_log(disk: &RealDisk, path: &Path, json: bool, out: &mut impl Write) -> Result<(), Stop> {
    let io = |error| Stop::Fatal(disk::fatal(path, 0, error));
    let file = disk.open_to_read(path).map_err(io)?;
    let damaged = |offset: u64, last_good: Zxid, problem: String| {
        Stop::Fatal(Fatal::ZooKeeperData { file: path.to_owned(), offset, last_good, problem })
    };
    let opened = LogReader::open(file, limits().item_bytes).map_err(io)?;
    let mut reader = opened.map_err(|(offset, problem)| damaged(offset, Zxid::ZERO, problem))?;
    let mut last = Zxid::ZERO;
    loop {
        match reader.next().map_err(io)? {
            Next::Record(record) => {
                last = record.zxid;
                print_record(record.zxid, record.entry, json, out)?;
            }
            Next::End(End::Clean { .. }) => return Ok(()),
            Next::End(End::Torn { offset, problem, .. }) => {
                note(out, json, &format!("byte {offset}: {problem}: an append that was interrupted"))?;
                return Ok(());
            }
            Next::End(End::Damaged { offset, problem }) => return Err(damaged(offset, last, problem)),
        }
    }
}

/// A segment of ours, as far as it is whole. Whether its end is where it should be, only the directory tells.
pub(super) fn print_segment(disk: &RealDisk, path: &Path, json: bool, out: &mut impl Write) -> Result<(), Stop> {
    let mut result = Ok(());
    let survey = inspect::read_segment(disk, path, |zxid, entry| {
        if result.is_ok() {
            result = print_record(zxid, entry, json, out);
        }
    })?;
    result?;
    survey.damage().map_or(Ok(()), |fatal| Err(fatal.into()))
}

/// Every log of a directory.
pub(super) fn print_directory(disk: &RealDisk, args: &InspectArgs, out: &mut impl Write) -> Result<(), Stop> {
    let (snapshots, log) = dirs(&args.path, args);
    let places = Dirs { snapshots: &snapshots, log: &log };
    if is_zookeepers(disk, places, args)? {
        for log in Files::list(disk, &snapshots, &log)?.logs {
            print_log(disk, &log.path, args.json, out)?;
        }
        return Ok(());
    }
    refuse_log_elsewhere(disk, places)?;
    for survey in inspect::survey(disk, &log)?.0 {
        if survey.records > 0 {
            print_segment(disk, &survey.path, args.json, out)?;
        }
    }
    Ok(())
}

fn note(out: &mut impl Write, json: bool, text: &str) -> std::io::Result<()> {
    match json {
        true => writeln!(out, "{}", Object::new().text("note", text).end()),
        false => writeln!(out, "note: {text}"),
    }
}

fn print_record(zxid: Zxid, entry: &[u8], json: bool, out: &mut impl Write) -> std::io::Result<()> {
    match read_txn(entry) {
        Ok((header, txn, digest)) if json => writeln!(out, "{}", record_json(&header, &txn, digest)),
        Ok((header, txn, digest)) => {
            let TxnHeader { session, cxid, zxid, time } = header;
            let date = java_date(time);
            write!(out, "{date} session {session} cxid {cxid:#x} zxid {zxid} {}", describe(&txn))?;
            match digest {
                Some(digest) => writeln!(out, " digest {:#x}", digest.tree),
                None => writeln!(out),
            }
        }
        Err(error) => note(out, json, &format!("{zxid}: not a transaction: {error}")),
    }
}

/// Name and operands in words.
fn describe(txn: &Txn) -> String {
    let bytes = |data: &Option<Vec<u8>>| data.as_ref().map_or("no data".into(), |data| format!("{} bytes", data.len()));
    match txn {
        Txn::CreateSession { timeout_ms } => format!("createSession {timeout_ms}"),
        Txn::CloseSession { paths: None } => "closeSession".into(),
        Txn::CloseSession { paths: Some(paths) } => format!("closeSession {}", paths.join(",")),
        Txn::Error { code } => format!("error {code}"),
        Txn::Create { path, data, acl, kind, parent_cversion, .. } => {
            let (name, kind) = kind_of(kind);
            format!("{name} {path} {} acl {} {kind} parentCVersion {parent_cversion}", bytes(data), acl_text(acl))
        }
        Txn::Delete { path, .. } => format!("delete {path}"),
        Txn::SetData { path, data, version, .. } => format!("setData {path} {} version {version}", bytes(data)),
        Txn::SetAcl { path, acl, version } => format!("setACL {path} acl {} version {version}", acl_text(acl)),
        Txn::Check { path, version } => format!("check {path} version {version}"),
        Txn::Multi(ops) => format!("multi {}", ops.iter().map(describe).collect::<Vec<_>>().join("; ")),
    }
}

fn kind_of(kind: &NodeKind) -> (&'static str, String) {
    match kind {
        NodeKind::Persistent => ("create", "persistent".into()),
        NodeKind::Ephemeral => ("create", "ephemeral".into()),
        NodeKind::Container => ("createContainer", "container".into()),
        NodeKind::Ttl(ms) => ("createTTL", format!("ttl {ms}")),
    }
}

fn record_json(header: &TxnHeader, txn: &Txn, digest: Option<TxnDigest>) -> String {
    let object = Object::new().hex("zxid", header.zxid.0).hex("session", header.session.0 as u64);
    let object = object.raw("cxid", header.cxid).raw("time", header.time).raw("txn", txn_json(txn));
    match digest {
        Some(digest) => object.hex("digest", digest.tree).end(),
        None => object.end(),
    }
}

fn txn_json(txn: &Txn) -> String {
    let object = Object::new();
    match txn {
        Txn::CreateSession { timeout_ms } => object.text("type", "createSession").raw("timeout", timeout_ms),
        Txn::CloseSession { paths } => {
            let object = object.text("type", "closeSession");
            match paths {
                Some(paths) => object.raw("paths", array(paths.iter().map(|path| string(path)))),
                None => object,
            }
        }
        Txn::Error { code } => object.text("type", "error").raw("code", code),
        Txn::Create { path, data, acl, kind, parent_cversion, .. } => {
            let (name, kind) = kind_of(kind);
            let object = object.text("type", name).text("path", path).raw("data", data_json(data.as_deref()));
            object.raw("acl", acl_json(acl)).text("kind", &kind).raw("parentCVersion", parent_cversion)
        }
        Txn::Delete { path, .. } => object.text("type", "delete").text("path", path),
        Txn::SetData { path, data, version, .. } => {
            let object = object.text("type", "setData").text("path", path).raw("data", data_json(data.as_deref()));
            object.raw("version", version)
        }
        Txn::SetAcl { path, acl, version } => {
            object.text("type", "setACL").text("path", path).raw("acl", acl_json(acl)).raw("version", version)
        }
        Txn::Check { path, version } => object.text("type", "check").text("path", path).raw("version", version),
        Txn::Multi(ops) => object.text("type", "multi").raw("ops", array(ops.iter().map(txn_json))),
    }
    .end()
}
