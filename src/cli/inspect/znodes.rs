//! A tree, znode by znode or summed up.

use super::json::{Object, array};
use super::source::Source;
use super::{InspectArgs, Stop};
use crate::admin::java_date;
use crate::fatal::Fatal;
use crate::ids::Owner;
use crate::tree::{NodeRef, Walk};
use crate::wire::txn::Acl;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::io::Write;

const LETTERS: [(char, i32); 5] =
    [('c', Acl::CREATE), ('d', Acl::DELETE), ('r', Acl::READ), ('w', Acl::WRITE), ('a', Acl::ADMIN)];

/// `scheme:id:cdrwa`, with commas between.
pub fn acl_text(list: &[Acl]) -> String {
    let entry = |acl: &Acl| {
        let letters: String =
            LETTERS.iter().filter(|(_, bit)| acl.perms & bit != 0).map(|(letter, _)| *letter).collect();
        format!("{}:{}:{letters}", acl.scheme, acl.id)
    };
    list.iter().map(entry).collect::<Vec<_>>().join(",")
}

/// The same for programs.
pub fn acl_json(list: &[Acl]) -> String {
    let entry = |acl: &Acl| Object::new().raw("perms", acl.perms).text("scheme", &acl.scheme).text("id", &acl.id).end();
    array(list.iter().map(entry))
}

/// Data in base64; `null` is no text.
pub fn data_json(data: Option<&[u8]>) -> String {
    data.map_or("null".into(), |data| format!("\"{}\"", STANDARD.encode(data)))
}

fn path_of(walk: &Walk) -> &str {
    if walk.path().is_empty() { "/" } else { walk.path() }
}

/// Every znode and session.
pub(super) fn print(source: &Source, args: &InspectArgs, out: &mut impl Write) -> Result<(), Stop> {
    let tree = &source.tree;
    if !args.json {
        writeln!(out, "ZNode Details (count={}):\n----", tree.node_count())?;
    }
    let mut ephemerals: BTreeMap<i64, u64> = BTreeMap::new();
    let mut walk = Walk::sorted();
    while let Some(node) = walk.next(tree) {
        if let Owner::Session(session) = node.owner() {
            *ephemerals.entry(session.0).or_default() += 1;
        }
        match args.json {
            true => writeln!(out, "{}", znode_json(path_of(&walk), &node, args.data))?,
            false => print_znode(path_of(&walk), &node, args.data, out)?,
        }
    }
    if args.json {
        for (session, timeout_ms) in &source.sessions {
            let line = Object::new().hex("session", session.0 as u64).raw("timeout", timeout_ms);
            writeln!(out, "{}", line.end())?;
        }
        let line = Object::new().hex("zxid", tree.zxid().0).hex("digest", tree.digest());
        let line = line.raw("znodes", tree.node_count() - 1).raw("sessions", source.sessions.len());
        let notes = source.notes.iter().map(|note| super::json::string(note));
        writeln!(out, "{}", line.raw("notes", array(notes)).end())?;
        return Ok(());
    }
    writeln!(out, "Session Details (sid, timeout, ephemeralCount):")?;
    for (session, timeout_ms) in &source.sessions {
        let count = ephemerals.get(&session.0).copied().unwrap_or(0);
        writeln!(out, "{session}, {timeout_ms}, {count}")?;
    }
    writeln!(out, "----\nLast zxid: {}\nDigest: {:#x}", tree.zxid(), tree.digest())?;
    for note in &source.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn print_znode(path: &str, node: &NodeRef<'_>, data: bool, out: &mut impl Write) -> std::io::Result<()> {
    let n = node.numbers();
    writeln!(out, "{path}")?;
    writeln!(out, "  cZxid = 0x{:014x}\n  ctime = {}", n.czxid.0, java_date(n.ctime))?;
    writeln!(out, "  mZxid = 0x{:014x}\n  mtime = {}", n.mzxid.0, java_date(n.mtime))?;
    writeln!(out, "  pZxid = 0x{:014x}\n  cversion = {}", n.pzxid.0, n.cversion)?;
    writeln!(out, "  dataVersion = {}\n  aclVersion = {}", n.version, n.aversion)?;
    writeln!(out, "  ephemeralOwner = 0x{:014x}", n.owner)?;
    writeln!(out, "  acl = {}", acl_text(node.acl()))?;
    match node.data() {
        Some(bytes) if data => writeln!(out, "  data = {}", STANDARD.encode(bytes))?,
        Some(bytes) => writeln!(out, "  dataLength = {}", bytes.len())?,
        None => writeln!(out, "  no data")?,
    }
    writeln!(out, "----")
}

fn znode_json(path: &str, node: &NodeRef<'_>, data: bool) -> String {
    let n = node.numbers();
    let mut line = Object::new().text("path", path);
    line = if data { line.raw("data", data_json(node.data())) } else { line.raw("dataLength", node.data_len()) };
    let (kind, ttl) = match node.owner() {
        Owner::Nobody => ("persistent", None),
        Owner::Session(_) => ("ephemeral", None),
        Owner::Container => ("container", None),
        Owner::Ttl(ms) => ("ttl", Some(ms)),
    };
    line = line.text("kind", kind);
    if let Some(ms) = ttl {
        line = line.raw("ttl", ms);
    }
    line = line.hex("czxid", n.czxid.0).hex("mzxid", n.mzxid.0).hex("pzxid", n.pzxid.0);
    line = line.raw("ctime", n.ctime).raw("mtime", n.mtime);
    line = line.raw("version", n.version).raw("cversion", n.cversion).raw("aversion", n.aversion);
    line.hex("ephemeralOwner", n.owner as u64).raw("acl", acl_json(node.acl())).end()
}

/// Znodes and bytes below each path, as ZooKeeper's recursive summary has them: a znode's own data is counted with it.
pub(super) fn print_summary(source: &Source, args: &InspectArgs, out: &mut impl Write) -> Result<(), Stop> {
    let tree = &source.tree;
    let at = if args.at == "/" { "" } else { args.at.trim_end_matches('/') };
    if tree.lookup(at).is_none() {
        return Err(Fatal::Usage { problem: format!("{} is not in {}", args.at, source.name) }.into());
    }
    let depth_of = |path: &str| path.matches('/').count();
    let top = depth_of(at);
    // From the last znode back to the first, each adds to what is above it: children come behind their parents.
    let mut lines: Vec<(String, usize, u64)> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut walk = Walk::sorted();
    while let Some(node) = walk.next(tree) {
        let path = walk.path();
        let inside = path == at || path.strip_prefix(at).is_some_and(|rest| rest.starts_with('/'));
        if !inside {
            continue;
        }
        let depth = depth_of(path) - top;
        open.truncate(depth);
        for &above in &open {
            lines[above].1 += 1;
            lines[above].2 += node.data_len() as u64;
        }
        if args.depth == 0 || depth <= args.depth {
            open.push(lines.len());
            lines.push((path.to_owned(), 0, node.data_len() as u64));
        }
    }
    for (path, below, bytes) in &lines {
        let path = if path.is_empty() { "/" } else { path };
        if args.json {
            writeln!(out, "{}", Object::new().text("path", path).raw("children", below).raw("data", bytes).end())?;
            continue;
        }
        let depth = if path == "/" { 0 } else { depth_of(path) - top };
        let indent = "-- ".repeat(depth);
        let inner = if depth == 0 { "  ".to_owned() } else { format!("{indent}  ") };
        writeln!(out, "{indent}{path}\n{inner}children: {below}\n{inner}data: {bytes}")?;
    }
    Ok(())
}
