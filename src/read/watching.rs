//! The requests that are about watches: setWatches after a reconnect, addWatch, checkWatches, removeWatches
//! (client-protocol, sections 4.7 and 4.8).

use super::{Asker, NULL, Refusal, watched};
use crate::tree::Tree;
use crate::watch::{Full, WatchKind, WatchTable, WatchType};
use crate::wire::client::{EventKind, PathMode, SetWatchesRequest, write_event};
use crate::wire::writer::Jute;
use crate::wire::{ErrorCode, OpCode, Reader};

/// The zxid in the header of an event that no transaction caused just now.
const SYNTHESISED: i64 = -1;

impl From<Full> for ErrorCode {
    fn from(_: Full) -> ErrorCode {
        ErrorCode::THROTTLED_OP
    }
}

/// Registers what the client watched before it reconnected, and appends an event for each watch that would have fired
/// meanwhile. No ACL is asked, as upstream. A null list ends it with -5, and so does a null path in one of the first three;
/// what stood before it has been done. So with -127, where the connection may watch no more: who gets that must not stay, since
/// its client does not look.
pub fn set_watches(
    op: OpCode,
    body: &[u8],
    tree: &Tree,
    watches: &mut WatchTable,
    asker: &Asker<'_>,
    out: &mut Vec<u8>,
) -> ErrorCode {
    let Ok(request) = SetWatchesRequest::read(&mut Reader::new(body), op) else { return ErrorCode::MARSHALLING_ERROR };
    match set_all(request, tree, watches, asker, out) {
        Ok(()) => ErrorCode::OK,
        Err(code) => code,
    }
}

fn set_all(
    request: SetWatchesRequest<'_>,
    tree: &Tree,
    watches: &mut WatchTable,
    asker: &Asker<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    const NULL: ErrorCode = ErrorCode::MARSHALLING_ERROR;
    let since = request.relative_zxid;
    // As many as were decoded, not as many as were announced.
    let one_shot = [&request.data, &request.child].into_iter().flatten().map(Vec::len).sum();
    watches.expect(asker.conn, one_shot);
    for path in request.data.ok_or(NULL)? {
        let path = path.ok_or(NULL)?;
        match tree.lookup(&path) {
            None => write_event(out, EventKind::NodeDeleted, &path, SYNTHESISED),
            Some(node) if node.mzxid().to_wire() > since => {
                write_event(out, EventKind::NodeDataChanged, &path, SYNTHESISED);
            }
            node => watches.add(asker.conn, &path, watched(&path, node), WatchKind::Data)?,
        }
    }
    for path in request.exist.ok_or(NULL)? {
        let path = path.ok_or(NULL)?;
        match tree.lookup(&path) {
            Some(_) => write_event(out, EventKind::NodeCreated, &path, SYNTHESISED),
            None => watches.add(asker.conn, &path, None, WatchKind::Data)?,
        }
    }
    for path in request.child.ok_or(NULL)? {
        let path = path.ok_or(NULL)?;
        match tree.lookup(&path) {
            None => write_event(out, EventKind::NodeDeleted, &path, SYNTHESISED),
            Some(node) if node.pzxid().to_wire() > since => {
                write_event(out, EventKind::NodeChildrenChanged, &path, SYNTHESISED);
            }
            node => watches.add(asker.conn, &path, watched(&path, node), WatchKind::Child)?,
        }
    }
    for (paths, kind) in [(request.persistent, WatchKind::Persistent), (request.recursive, WatchKind::Recursive)] {
        for path in paths.ok_or(NULL)? {
            let path = path.as_deref().unwrap_or(NO_PATH);
            watches.add(asker.conn, path, watched(path, tree.lookup(path)), kind)?;
        }
    }
    Ok(())
}

/// Stands for the null path, which upstream is a key like any other: it can be watched, checked and removed. No
/// transaction ever touches it, and `wchp` shows it so.
const NO_PATH: &str = "null";

/// Neither path nor node nor permission is checked, as upstream.
pub fn add_watch(
    r: &mut Reader<'_>,
    tree: &Tree,
    watches: &mut WatchTable,
    asker: &Asker<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let request = PathMode::read(r)?;
    let kind = match request.mode {
        0 => WatchKind::Persistent,
        1 => WatchKind::Recursive,
        _ => return Err(NULL),
    };
    let path = request.path.as_deref().unwrap_or(NO_PATH);
    watches.add(asker.conn, path, watched(path, tree.lookup(path)), kind)?;
    out.put_int(0);
    Ok(())
}

pub fn check_watches(r: &mut Reader<'_>, tree: &Tree, watches: &WatchTable, asker: &Asker<'_>) -> Result<(), Refusal> {
    let request = PathMode::read(r)?;
    let what = WatchType::from_wire(request.mode).ok_or(NULL)?;
    let path = request.path.as_deref().unwrap_or(NO_PATH);
    let found = watches.check(asker.conn, path, watched(path, tree.lookup(path)), what);
    if found { Ok(()) } else { Err(ErrorCode::NO_WATCHER.into()) }
}

pub fn remove_watches(
    r: &mut Reader<'_>,
    tree: &Tree,
    watches: &mut WatchTable,
    asker: &Asker<'_>,
) -> Result<(), Refusal> {
    let request = PathMode::read(r)?;
    let what = WatchType::from_wire(request.mode).ok_or(NULL)?;
    let path = request.path.as_deref().unwrap_or(NO_PATH);
    let found = watches.remove(asker.conn, path, watched(path, tree.lookup(path)), what);
    if found { Ok(()) } else { Err(ErrorCode::NO_WATCHER.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AuthIds, AuthRules};
    use crate::ids::SessionId;
    use crate::tree::TreeOptions;
    use std::sync::Arc;

    #[test]
    fn a_null_path_can_be_watched_for_good_again_and_ends_the_other_lists() {
        let tree = Tree::new(TreeOptions::default());
        let (auth, rules) = (AuthIds::default(), AuthRules::default());
        let asker = Asker::new(1, SessionId(1), &auth, &rules);
        for (list, code) in [(0, -5), (1, -5), (2, -5), (3, 0), (4, 0)] {
            let paths = |this: usize| Some(if this == list { vec![None, Some("/a".into())] } else { Vec::new() });
            let request = SetWatchesRequest {
                relative_zxid: 0,
                data: paths(0),
                exist: paths(1),
                child: paths(2),
                persistent: paths(3),
                recursive: paths(4),
            };
            let (mut body, mut out) = (Vec::new(), Vec::new());
            request.write(&mut body, OpCode::SetWatches2);
            let mut watches = WatchTable::new(Arc::default(), usize::MAX);
            let answer = set_watches(OpCode::SetWatches2, &body, &tree, &mut watches, &asker, &mut out);
            assert_eq!((answer.0, out.len()), (code, 0), "list {list}");
            for path in [NO_PATH, "/a"] {
                assert_eq!(watches.check(1, path, None, WatchType::Persistent), list == 3, "{path}");
                assert_eq!(watches.check(1, path, None, WatchType::PersistentRecursive), list == 4, "{path}");
            }
        }
    }
}
