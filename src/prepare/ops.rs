//! What each operation checks, in ZooKeeper's order, and what it will do.

use super::pending::{Node, PendingAcl, View};
use super::{Context, Fail, Prepare, SessionCheck, path, quota};
use crate::auth::{FixError, fix_up, is_open};
use crate::ids::{Owner, TTL_MAX_MS, Zxid};
use crate::tree::{Numbers, Tree};
use crate::wire::client::{
    AclEntry, CreateRequest, PathVersion, ReconfigRequest, SetAclRequest, SetDataRequest, flags,
};
use crate::wire::multi::MultiOp;
use crate::wire::reader::Text;
use crate::wire::txn::{Acl, AclList, NodeKind, Txn};
use crate::wire::{ErrorCode, OpCode, Reader};
use std::fmt::Write;

/// A write that stands alone.
pub(super) enum Single<'a> {
    Create(OpCode, CreateRequest<'a>),
    Delete(PathVersion<'a>),
    SetData(SetDataRequest<'a>),
    SetAcl(SetAclRequest<'a>),
    Reconfig,
}

impl<'a> Single<'a> {
    /// `Err` is what a request is refused with.
    pub fn read(op: OpCode, reader: &mut Reader<'a>) -> Result<Single<'a>, ErrorCode> {
        let request = match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                CreateRequest::read(reader, op).map(|request| Single::Create(op, request))
            }
            OpCode::Delete => PathVersion::read(reader).map(Single::Delete),
            OpCode::SetData => SetDataRequest::read(reader).map(Single::SetData),
            OpCode::SetAcl => SetAclRequest::read(reader).map(Single::SetAcl),
            OpCode::Reconfig => ReconfigRequest::read(reader).map(|_| Single::Reconfig),
            _ => return Err(ErrorCode::UNIMPLEMENTED),
        };
        request.map_err(|_| ErrorCode::MARSHALLING_ERROR)
    }
}

/// Whether ZooKeeper would trip over the operation while it looks for what a failure would have to take back.
pub(super) fn path_is_null(op: &MultiOp<'_>) -> bool {
    match op {
        MultiOp::Create(_, request) => request.path.is_none(),
        MultiOp::Delete(request) | MultiOp::Check(request) => request.path.is_none(),
        MultiOp::SetData(request) => request.path.is_none(),
        MultiOp::GetData(request) | MultiOp::GetChildren(request) => request.path.is_none(),
    }
}

const fn fail(code: ErrorCode) -> Fail {
    match code {
        // No operation's answer: ZooKeeper gives it where it did not expect to fail.
        ErrorCode::MARSHALLING_ERROR => Fail::Request(code),
        code => Fail::Op(code),
    }
}

impl Prepare {
    pub(super) fn single(&mut self, tree: &Tree, context: &mut Context<'_>, op: Single<'_>) -> Result<Txn, Fail> {
        match op {
            Single::Create(op, request) => self.create(tree, context, op, request),
            Single::Delete(request) => self.delete(tree, context, request),
            Single::SetData(request) => self.set_data(tree, context, request),
            Single::SetAcl(request) => self.set_acl(tree, context, request),
            Single::Reconfig => self.reconfig(context),
        }
    }

    pub(super) fn multi_op(&mut self, tree: &Tree, context: &mut Context<'_>, op: MultiOp<'_>) -> Result<Txn, Fail> {
        // Type, length, and what no record has more of: a create with a time to live.
        context.spend(33)?;
        match op {
            MultiOp::Create(op, mut request) => {
                if op != OpCode::CreateTtl {
                    request.ttl = -1;
                }
                self.create(tree, context, op, request)
            }
            MultiOp::Delete(request) => self.delete(tree, context, request),
            MultiOp::SetData(request) => self.set_data(tree, context, request),
            MultiOp::Check(request) => self.check(tree, context, request),
            MultiOp::GetData(_) | MultiOp::GetChildren(_) => unreachable!("a multi with reads was refused as a whole"),
        }
    }

    fn create(
        &mut self,
        tree: &Tree,
        context: &mut Context<'_>,
        op: OpCode,
        request: CreateRequest<'_>,
    ) -> Result<Txn, Fail> {
        let CreateRequest { path, data, acl, flags, ttl } = request;
        let kind = self.kind_of_create(op, flags, ttl)?;
        if flags::is_ephemeral(flags) && context.session_check == SessionCheck::Unknown {
            return Err(fail(ErrorCode::SESSION_EXPIRED));
        }
        self.check_session(context)?;
        let path = path.ok_or(fail(ErrorCode::MARSHALLING_ERROR))?;
        let parent_path = path::parent_for_create(&path).ok_or(fail(ErrorCode::BAD_ARGUMENTS))?;
        let acl = self.fix_up(context, acl.as_deref())?;
        let View { node: parent, acl: parent_acl, spot: parent_spot } =
            self.pending.view(tree, parent_path).ok_or(fail(ErrorCode::NO_NODE))?;
        self.permit(context, parent_acl, Acl::CREATE)?;
        let cversion = parent.numbers.cversion;
        let parent_path_len = parent_path.len();
        let mut path = path.into_owned();
        if flags::is_sequential(flags) {
            write!(path, "{cversion:010}").expect("a String takes everything");
        }
        if !path::is_valid(&path) {
            return Err(fail(ErrorCode::BAD_ARGUMENTS));
        }
        let spot = self.pending.spot(&path);
        if self.pending.has_child(tree, &parent, &path, spot) {
            return Err(fail(ErrorCode::NODE_EXISTS));
        }
        let odd_in_this_multi = parent.odd_container && parent.numbers.czxid == context.zxid;
        if matches!(parent.owner(self.rules.owner), Owner::Session(_)) || odd_in_this_multi {
            return Err(fail(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS));
        }
        let data_len = data.map_or(0, <[u8]>::len);
        self.check_quota(tree, &path, 1, data_len as i64)?;
        context.spend(path.len() + data_len)?;

        let owner = match kind {
            NodeKind::Persistent => Owner::Nobody,
            NodeKind::Ephemeral => Owner::Session(context.session),
            NodeKind::Container => Owner::Container,
            NodeKind::Ttl(ttl) => Owner::Ttl(ttl),
        };
        let node = Node {
            numbers: Numbers {
                czxid: context.zxid,
                mzxid: context.zxid,
                pzxid: context.zxid,
                ctime: context.time_ms,
                mtime: context.time_ms,
                version: 0,
                cversion: 0,
                aversion: 0,
                owner: owner.to_stored(),
            },
            children: 0,
            data_len: data_len as u32,
            text_crc: 0,
            digest: 0,
            slot: None,
            odd_container: kind == NodeKind::Container && flags::is_ephemeral(flags),
        };
        let mut new_parent = parent;
        new_parent.children += 1;
        let parent_cversion = cversion.wrapping_add(1);
        // As the apply does it: a count that has run over stays, and so does pzxid.
        if parent_cversion > cversion {
            (new_parent.numbers.cversion, new_parent.numbers.pzxid) = (parent_cversion, context.zxid);
        }
        // A suffix doesn't change the parent; a path that ended in a slash has one slash more than its parent.
        self.pending.stat_set(parent_spot, &path[..parent_path_len], &parent, new_parent, None);
        self.pending.created(spot, &path, node, data.unwrap_or_default(), PendingAcl::of_list(&acl));
        Ok(Txn::Create { op, path, data: data.map(<[u8]>::to_vec), acl, kind, parent_cversion })
    }

    /// The kind comes from the operation; the flags have to be some, and to fit a TTL.
    fn kind_of_create(&self, op: OpCode, flags: i32, ttl: i64) -> Result<NodeKind, Fail> {
        if !(flags::PERSISTENT..=flags::PERSISTENT_SEQUENTIAL_WITH_TTL).contains(&flags) {
            return Err(fail(ErrorCode::BAD_ARGUMENTS));
        }
        if flags::is_ttl(flags) {
            if !self.rules.owner.extended_types {
                return Err(fail(ErrorCode::UNIMPLEMENTED));
            }
            if !(1..=TTL_MAX_MS).contains(&ttl) {
                return Err(fail(ErrorCode::BAD_ARGUMENTS));
            }
        }
        match op {
            OpCode::CreateContainer => Ok(NodeKind::Container),
            OpCode::CreateTtl if flags::is_ttl(flags) => Ok(NodeKind::Ttl(ttl)),
            // With a negative TTL, ZooKeeper takes it and dies of it.
            OpCode::CreateTtl => Err(fail(ErrorCode::BAD_ARGUMENTS)),
            _ if flags::is_ephemeral(flags) => Ok(NodeKind::Ephemeral),
            _ => Ok(NodeKind::Persistent),
        }
    }

    fn delete(&mut self, tree: &Tree, context: &mut Context<'_>, request: PathVersion<'_>) -> Result<Txn, Fail> {
        self.check_session(context)?;
        let path = request.path.ok_or(fail(ErrorCode::MARSHALLING_ERROR))?;
        let parent_path = path::parent_for_delete(&path).ok_or(fail(ErrorCode::BAD_ARGUMENTS))?;
        let parent = self.pending.view(tree, parent_path).ok_or(fail(ErrorCode::NO_NODE))?;
        self.permit(context, parent.acl, Acl::DELETE)?;
        let node = self.pending.view(tree, &path).ok_or(fail(ErrorCode::NO_NODE))?.node;
        next_version(node.numbers.version, request.version)?;
        if node.children > 0 {
            return Err(fail(ErrorCode::NOT_EMPTY));
        }
        context.spend(path.len())?;
        self.delete_pending(tree, &path, context.zxid);
        Ok(Txn::Delete { op: OpCode::Delete, path: path.into_owned() })
    }

    /// Notes that a znode will be gone, and what that does to its parent.
    pub(super) fn delete_pending(&mut self, tree: &Tree, path: &str, zxid: Zxid) {
        if let Some(View { node, spot, .. }) = self.pending.view(tree, path) {
            self.pending.deleted(spot, path, &node);
        }
        let parent_path = path::parent_for_create(path).unwrap_or("/");
        if let Some(View { node: parent, spot, .. }) = self.pending.view(tree, parent_path) {
            let mut new_parent = parent;
            new_parent.children = parent.children.saturating_sub(1);
            new_parent.numbers.pzxid = parent.numbers.pzxid.max(zxid);
            self.pending.stat_set(spot, parent_path, &parent, new_parent, None);
        }
    }

    fn set_data(&mut self, tree: &Tree, context: &mut Context<'_>, request: SetDataRequest<'_>) -> Result<Txn, Fail> {
        self.check_session(context)?;
        let path = valid(request.path)?;
        let View { node: old, acl, spot } = self.pending.view(tree, &path).ok_or(fail(ErrorCode::NO_NODE))?;
        self.permit(context, acl, Acl::WRITE)?;
        let data_len = request.data.map_or(0, <[u8]>::len);
        self.check_quota(tree, &path, 0, data_len as i64 - old.data_len as i64)?;
        let version = next_version(old.numbers.version, request.version)?;
        context.spend(path.len() + data_len)?;
        let mut new = old;
        new.numbers.version = version;
        new.numbers.mzxid = context.zxid;
        new.numbers.mtime = context.time_ms;
        new.data_len = data_len as u32;
        self.pending.data_set(spot, &path, &old, new, request.data.unwrap_or_default());
        let data = request.data.map(<[u8]>::to_vec);
        Ok(Txn::SetData { op: OpCode::SetData, path: path.into_owned(), data, version })
    }

    fn set_acl(&mut self, tree: &Tree, context: &mut Context<'_>, request: SetAclRequest<'_>) -> Result<Txn, Fail> {
        self.check_session(context)?;
        let path = valid(request.path)?;
        let acl = self.fix_up(context, request.acl.as_deref())?;
        let View { node: old, acl: old_acl, spot } = self.pending.view(tree, &path).ok_or(fail(ErrorCode::NO_NODE))?;
        self.permit(context, old_acl, Acl::ADMIN)?;
        let version = next_version(old.numbers.aversion, request.version)?;
        context.spend(path.len())?;
        let mut new = old;
        new.numbers.aversion = version;
        self.pending.stat_set(spot, &path, &old, new, Some(PendingAcl::of_list(&acl)));
        Ok(Txn::SetAcl { path: path.into_owned(), acl, version })
    }

    fn check(&mut self, tree: &Tree, context: &mut Context<'_>, request: PathVersion<'_>) -> Result<Txn, Fail> {
        self.check_session(context)?;
        let path = valid(request.path)?;
        let View { node, acl, .. } = self.pending.view(tree, &path).ok_or(fail(ErrorCode::NO_NODE))?;
        self.permit(context, acl, Acl::READ)?;
        // What is logged is the version after the one that was checked, as if it had been written.
        let version = next_version(node.numbers.version, request.version)?;
        context.spend(path.len())?;
        Ok(Txn::Check { path: path.into_owned(), version })
    }

    /// Members don't change while servers run: an ensemble answers as a server without any.
    fn reconfig(&mut self, context: &Context<'_>) -> Result<Txn, Fail> {
        if !self.rules.reconfig_enabled {
            return Err(fail(ErrorCode::RECONFIG_DISABLED));
        }
        self.check_session(context)?;
        Err(fail(ErrorCode::UNIMPLEMENTED))
    }

    fn check_session(&self, context: &Context<'_>) -> Result<(), Fail> {
        match context.session_check {
            SessionCheck::Live => Ok(()),
            SessionCheck::Closing => Err(fail(ErrorCode::SESSION_EXPIRED)),
            SessionCheck::Unknown if self.rules.ensemble => Err(fail(ErrorCode::SESSION_EXPIRED)),
            SessionCheck::Unknown => Err(fail(ErrorCode::UNKNOWN_SESSION)),
            SessionCheck::Moved => Err(fail(ErrorCode::SESSION_MOVED)),
        }
    }

    fn permit(&self, context: &mut Context<'_>, acl: &AclList, wanted: i32) -> Result<(), Fail> {
        match is_open(acl, wanted) || self.permit_slow(context, acl, wanted)? {
            true => Ok(()),
            false => Err(fail(ErrorCode::NO_AUTH)),
        }
    }

    /// A request with many parts often asks the same list again, and may ask many long ones.
    fn permit_slow(&self, context: &mut Context<'_>, acl: &AclList, wanted: i32) -> Result<bool, Fail> {
        /// A network is read anew each time.
        const NETWORK: usize = 16;
        let Context { verdicts, work, worked, auth, .. } = context;
        verdicts.judge(acl, wanted, auth, &self.rules.auth, |entries| {
            let networks = acl.iter().filter(|entry| entry.scheme == "ip").count();
            let cost = entries + auth.count() + NETWORK * networks;
            *worked += cost;
            *work = work.checked_sub(cost).ok_or(Fail::Request(ErrorCode::BAD_ARGUMENTS))?;
            Ok(())
        })
    }

    fn fix_up(&self, context: &mut Context<'_>, list: Option<&[AclEntry<'_>]>) -> Result<AclList, Fail> {
        let list = fix_up(list, context.auth, &self.rules.auth, context.budget).map_err(|why| match why {
            FixError::TooLarge => Fail::Request(why.code()),
            _ => fail(why.code()),
        })?;
        context.spend(list.iter().map(|acl| 12 + text_bytes(&acl.scheme) + text_bytes(&acl.id)).sum())?;
        Ok(list)
    }

    fn check_quota(&self, tree: &Tree, path: &str, count_change: i64, bytes_change: i64) -> Result<(), Fail> {
        if !self.rules.enforce_quota {
            return Ok(());
        }
        let Some(quota) = tree.quota_of(path) else { return Ok(()) };
        quota::check(&quota, count_change, bytes_change).map_err(fail)
    }
}

impl Context<'_> {
    /// A transaction that no server could read back is not made.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Fail> {
        self.budget = self.budget.checked_sub(bytes).ok_or(Fail::Request(ErrorCode::BAD_ARGUMENTS))?;
        Ok(())
    }
}

/// Encoded, at most: a character of four bytes is written in six.
fn text_bytes(text: &str) -> usize {
    text.len() + text.len() / 2
}

fn valid(path: Text<'_>) -> Result<std::borrow::Cow<'_, str>, Fail> {
    path.filter(|path| path::is_valid(path)).ok_or(fail(ErrorCode::BAD_ARGUMENTS))
}

/// The version after `current`, if `expected` is that or any (-1).
fn next_version(current: i32, expected: i32) -> Result<i32, Fail> {
    if expected != -1 && expected != current {
        return Err(fail(ErrorCode::BAD_VERSION));
    }
    Ok(current.wrapping_add(1))
}
