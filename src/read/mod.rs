//! Answers what changes nothing: a request, the tree under a guard, and a core's watches, into reply bytes.
//!
//! A read is decoded where it lies, looked up, and encoded straight into the connection's output buffer. The order of
//! checks and the codes are ZooKeeper's (client-protocol, section 2.4; upstream `FinalRequestProcessor`). A watch is
//! registered while the guard is held, so that it reports every change after the state that was read.
//!
//! Runs on: the core that holds the connection. No system call, no log line: a guard is held.

mod watching;

use crate::auth::{self, AuthIds, AuthRules, Verdicts};
use crate::ids::SessionId;
use crate::limits;
use crate::tree::{NodeRef, Tree};
use crate::watch::{Full, WatchKind, WatchTable};
use crate::wire::client::{PathWatch, ReplyHeader, read_path};
use crate::wire::multi::{self, MultiOp};
use crate::wire::txn::Acl;
use crate::wire::writer::{Frame, Jute};
use crate::wire::{ErrorCode, OpCode, Reader};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;

/// Who asks, and what decides what it may see. It lives no longer than the guard under which it is answered: it knows the
/// lists that it was judged by.
pub struct Asker<'a> {
    /// The connection's number in its core's watch table.
    pub conn: u32,
    pub session: SessionId,
    pub auth: &'a AuthIds,
    pub rules: &'a AuthRules,
    work: Cell<usize>,
    /// By lists that were gone through: a request with many parts often asks the same one again.
    verdicts: RefCell<Verdicts<&'a [Acl], &'a AuthIds, 8>>,
}

impl<'a> Asker<'a> {
    pub fn new(conn: u32, session: SessionId, auth: &'a AuthIds, rules: &'a AuthRules) -> Asker<'a> {
        Asker { conn, session, auth, rules, work: Cell::new(0), verdicts: RefCell::default() }
    }

    /// What answering took beside finding one znode and encoding it: entries of access lists, paths, parts; each some 100 ns.
    pub fn work(&self) -> usize {
        self.work.get()
    }

    fn worked(&self, count: usize) {
        self.work.set(self.work.get() + count);
    }
}

/// Why a read is answered with an error: a code, or bytes that don't decode.
enum Refusal {
    Code(ErrorCode),
    /// The reply has a body all the same.
    CodeWithBody(ErrorCode),
}

impl From<crate::wire::Malformed> for Refusal {
    fn from(_: crate::wire::Malformed) -> Refusal {
        Refusal::Code(ErrorCode::MARSHALLING_ERROR)
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Refusal {
        Refusal::Code(full.into())
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal::Code(code)
    }
}

const NULL: Refusal = Refusal::Code(ErrorCode::MARSHALLING_ERROR);

/// Appends the whole reply (and before it the events that setWatches makes up) to `out`. Returns the error code that it
/// carries. `op` must be one that `is_read` accepts.
pub fn answer<'a>(
    op: OpCode,
    xid: i32,
    body: &[u8],
    tree: &'a Tree,
    watches: &mut WatchTable,
    asker: &Asker<'a>,
    out: &mut Vec<u8>,
) -> ErrorCode {
    let zxid = tree.zxid();
    if matches!(op, OpCode::SetWatches | OpCode::SetWatches2) {
        asker.worked(body.len() / 32);
        let code = watching::set_watches(op, body, tree, watches, asker, out);
        ReplyHeader { xid, zxid: zxid.to_wire(), err: code }.write_frame(out);
        return code;
    }
    let frame = Frame::reply(out, xid, zxid);
    let body_start = frame.bytes.len();
    let (code, keep_body) = match record(op, body, tree, watches, asker, frame.bytes) {
        Ok(()) => (ErrorCode::OK, true),
        Err(Refusal::Code(code)) => (code, false),
        Err(Refusal::CodeWithBody(code)) => (code, true),
    };
    if code != ErrorCode::OK {
        if !keep_body {
            frame.bytes.truncate(body_start);
        }
        frame.bytes[body_start - 4..body_start].copy_from_slice(&code.0.to_be_bytes());
    }
    frame.close();
    code
}

/// Whether `answer` takes this operation.
pub fn is_read(op: OpCode) -> bool {
    use OpCode::*;
    matches!(
        op,
        Exists
            | GetData
            | GetAcl
            | GetChildren
            | GetChildren2
            | GetAllChildrenNumber
            | GetEphemerals
            | MultiRead
            | SetWatches
            | SetWatches2
            | AddWatch
            | CheckWatches
            | RemoveWatches
            | WhoAmI
            | Ping
    )
}

fn record<'a>(
    op: OpCode,
    body: &[u8],
    tree: &'a Tree,
    watches: &mut WatchTable,
    asker: &Asker<'a>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let r = &mut Reader::new(body);
    match op {
        OpCode::GetData => {
            let request = PathWatch::read(r)?;
            let path = request.path.ok_or(NULL)?;
            let node = readable(tree, &path, asker)?;
            out.put_buffer(node.data());
            node.stat().write(out);
            if request.watch {
                watches.add(asker.conn, &path, watched(&path, Some(node)), WatchKind::Data)?;
            }
        }
        OpCode::Exists => {
            let request = PathWatch::read(r)?;
            let path = request.path.ok_or(NULL)?;
            if path.contains('\0') {
                return Err(ErrorCode::BAD_ARGUMENTS.into());
            }
            let node = tree.lookup(&path);
            if let Some(node) = node {
                permitted(node, Acl::READ, asker)?;
            }
            if request.watch {
                watches.add(asker.conn, &path, watched(&path, node), WatchKind::Data)?;
            }
            node.ok_or(ErrorCode::NO_NODE)?.stat().write(out);
        }
        OpCode::GetChildren | OpCode::GetChildren2 => {
            let request = PathWatch::read(r)?;
            let path = request.path.ok_or(NULL)?;
            let node = readable(tree, &path, asker)?;
            children(node, out)?;
            if op == OpCode::GetChildren2 {
                node.stat().write(out);
            }
            if request.watch {
                watches.add(asker.conn, &path, watched(&path, Some(node)), WatchKind::Child)?;
            }
        }
        OpCode::GetAcl => {
            let path = read_path(r)?.ok_or(NULL)?;
            let node = tree.lookup(&path).ok_or(ErrorCode::NO_NODE)?;
            permitted(node, Acl::READ | Acl::ADMIN, asker)?;
            let redact = permitted(node, Acl::ADMIN, asker).is_err();
            out.put_int(node.acl().len() as i32);
            for acl in node.acl() {
                out.put_int(acl.perms);
                out.put_text(&acl.scheme);
                let id = if redact { auth::redacted_id(&acl.scheme, &acl.id) } else { (&*acl.id).into() };
                out.put_text(&id);
            }
            node.stat().write(out);
        }
        OpCode::GetAllChildrenNumber => {
            let path = read_path(r)?.ok_or(NULL)?;
            readable(tree, &path, asker)?;
            // Upstream the root's alias counts the root, too: its paths all begin with "" and a slash.
            let alias = usize::from(path.is_empty());
            out.put_int((tree.all_children_number(&path) + alias) as i32);
        }
        OpCode::GetEphemerals => {
            let prefix = read_path(r)?.unwrap_or_default();
            // As Java's trim has it: without what is not above the space character.
            let all = matches!(prefix.trim_matches(|c| c <= ' '), "" | "/");
            ephemerals(tree, asker, (!all).then_some(&*prefix), out)?;
        }
        OpCode::MultiRead => multi_read(r, tree, asker, out)?,
        OpCode::WhoAmI => {
            let start = out.len();
            out.put_int(0);
            let mut count = 0i32;
            for (scheme, user) in asker.auth.who_am_i() {
                out.put_text(scheme);
                out.put_text(user);
                count += 1;
            }
            out[start..start + 4].copy_from_slice(&count.to_be_bytes());
        }
        OpCode::AddWatch => watching::add_watch(r, tree, watches, asker, out)?,
        OpCode::CheckWatches => watching::check_watches(r, tree, watches, asker)?,
        OpCode::RemoveWatches => watching::remove_watches(r, tree, watches, asker)?,
        OpCode::Ping => {}
        _ => unreachable!("the core sends only what is_read accepts"),
    }
    Ok(())
}

#[inline]
fn permitted<'a>(node: NodeRef<'a>, wanted: i32, asker: &Asker<'a>) -> Result<(), ErrorCode> {
    let acl = node.acl();
    if auth::is_open(acl, wanted) || permitted_by(acl, wanted, asker) { Ok(()) } else { Err(ErrorCode::NO_AUTH) }
}

fn permitted_by<'a>(acl: &'a [Acl], wanted: i32, asker: &Asker<'a>) -> bool {
    let pay = |entries| {
        asker.worked(entries);
        Ok::<(), Infallible>(())
    };
    let Ok(verdict) = asker.verdicts.borrow_mut().judge(&acl, wanted, &asker.auth, asker.rules, pay);
    verdict
}

#[inline]
fn readable<'a>(tree: &'a Tree, path: &str, asker: &Asker<'a>) -> Result<NodeRef<'a>, ErrorCode> {
    let node = tree.lookup(path).ok_or(ErrorCode::NO_NODE)?;
    permitted(node, Acl::READ, asker)?;
    Ok(node)
}

/// The number that a watch on this path may hang on. "" is looked up as the root and yet is watched as a path of its own,
/// which nothing ever happens to.
fn watched(path: &str, node: Option<NodeRef<'_>>) -> Option<u32> {
    node.filter(|_| !path.is_empty()).map(|node| node.slot())
}

fn children(node: NodeRef<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    out.put_int(node.num_children() as i32);
    // No frame can hold more. ZooKeeper fails to serialise it and answers so.
    if node.encode_children(out, i32::MAX as usize - (1 << 20)) { Ok(()) } else { Err(NULL) }
}

/// The tree has only the names of these paths: one of a megabyte is in the path of each znode below it.
fn ephemerals(tree: &Tree, asker: &Asker<'_>, prefix: Option<&str>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    /// Bytes of a path that are compared, or copied, in the 100 ns that count as one.
    const PATH_BYTES: usize = 256;
    let start = out.len();
    out.put_int(0);
    let mut count = 0i32;
    for node in tree.ephemeral_nodes(asker.session) {
        let (len, names) = node.path_size();
        asker.worked(1 + names / 4 + prefix.map_or(0, str::len) / PATH_BYTES);
        if prefix.is_none_or(|prefix| node.path_starts_with(len, prefix)) {
            if out.len() - start + len > limits::EPHEMERALS_BYTES {
                return Err(NULL);
            }
            asker.worked(len / PATH_BYTES);
            out.put_text(&node.path());
            count += 1;
        }
        if asker.work() > limits::EPHEMERALS_WORK {
            return Err(NULL);
        }
    }
    out[start..start + 4].copy_from_slice(&count.to_be_bytes());
    Ok(())
}

/// Each part is answered by itself; a watch that it asks for is not set (upstream ignores it). A reply that no client
/// would take is refused, as upstream refuses what it can't serialise; and so is what would stop everybody else for long.
fn multi_read<'a>(r: &mut Reader<'_>, tree: &'a Tree, asker: &Asker<'a>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let ops = multi::read_ops(r)?;
    let first = out.len();
    for op in ops {
        let start = out.len();
        let (code, request) = match &op {
            MultiOp::GetData(request) => (OpCode::GetData, request),
            MultiOp::GetChildren(request) => (OpCode::GetChildren, request),
            _ => {
                multi::write_end(out);
                return Err(Refusal::CodeWithBody(ErrorCode::MARSHALLING_ERROR));
            }
        };
        // A null path is no operation's failure: it ends the list, as a write in it does.
        let Some(path) = request.path.as_deref() else {
            multi::write_end(out);
            return Err(Refusal::CodeWithBody(ErrorCode::MARSHALLING_ERROR));
        };
        multi::write_header(out, code.to_wire(), false, 0);
        let answered = match (readable(tree, path, asker), code) {
            (Ok(node), OpCode::GetData) => {
                out.put_buffer(node.data());
                node.stat().write(out);
                Ok(())
            }
            (Ok(node), _) => children(node, out),
            (Err(refusal), _) => Err(refusal.into()),
        };
        if let Err(Refusal::Code(code) | Refusal::CodeWithBody(code)) = answered {
            out.truncate(start);
            multi::write_error(out, code);
        }
        asker.worked(2);
        if out.len() - first > limits::MULTI_READ_BYTES || asker.work() > limits::MULTI_READ_WORK {
            return Err(NULL);
        }
    }
    multi::write_end(out);
    Ok(())
}
