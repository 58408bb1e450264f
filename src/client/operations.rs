//! What a client can ask, one function an operation: encode, send, and how to read the reply.
//!
//! Paths are the client's own here (below its chroot); they are joined with the chroot on the way out and freed of it on
//! the way back, but for getEphemerals, where ZooKeeper's clients leave it.
//!
//! Runs on: the caller's thread.

use super::driver::{Effect, Input, Submission};
use super::watches::{Kind, Watcher};
use super::{Client, Error, Event, check_path};
use crate::wire::client::{
    AclEntries, AclEntry, CreateRequest, PathMode, PathVersion, PathWatch, ReconfigRequest, SetAclRequest,
    SetDataRequest, flags, read_acl,
};
use crate::wire::multi::{self, MultiOp};
use crate::wire::reader::{Malformed, Text};
use crate::wire::writer::Jute;
use crate::wire::{ErrorCode, OpCode, Reader, Stat};
use std::borrow::Cow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// Permission bits of an ACL entry.
pub mod perms {
    pub const READ: i32 = 1;
    pub const WRITE: i32 = 2;
    pub const CREATE: i32 = 4;
    pub const DELETE: i32 = 8;
    pub const ADMIN: i32 = 16;
    pub const ALL: i32 = 31;
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Bits of `perms`.
    pub perms: i32,
    pub scheme: String,
    pub id: String,
}

/// Everyone may do everything.
pub fn open_acl() -> Vec<Acl> {
    vec![Acl { perms: perms::ALL, scheme: "world".into(), id: "anyone".into() }]
}

/// What kind of node to create. The constants are the kinds without a time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateMode {
    flags: i32,
    ttl_ms: i64,
}

impl CreateMode {
    pub const PERSISTENT: CreateMode = CreateMode { flags: flags::PERSISTENT, ttl_ms: -1 };
    pub const EPHEMERAL: CreateMode = CreateMode { flags: flags::EPHEMERAL, ttl_ms: -1 };
    pub const PERSISTENT_SEQUENTIAL: CreateMode = CreateMode { flags: flags::PERSISTENT_SEQUENTIAL, ttl_ms: -1 };
    pub const EPHEMERAL_SEQUENTIAL: CreateMode = CreateMode { flags: flags::EPHEMERAL_SEQUENTIAL, ttl_ms: -1 };
    pub const CONTAINER: CreateMode = CreateMode { flags: flags::CONTAINER, ttl_ms: -1 };

    /// A node that goes when it has been without children and changes for `ttl_ms` milliseconds.
    pub fn with_ttl(ttl_ms: i64, sequential: bool) -> CreateMode {
        let flags = if sequential { flags::PERSISTENT_SEQUENTIAL_WITH_TTL } else { flags::PERSISTENT_WITH_TTL };
        CreateMode { flags, ttl_ms }
    }

    fn op(self, wanted: OpCode) -> OpCode {
        match self.flags {
            flags::CONTAINER => OpCode::CreateContainer,
            ttl if flags::is_ttl(ttl) => OpCode::CreateTtl,
            _ => wanted,
        }
    }
}

/// Whether a read leaves a watch, and who hears of it.
#[derive(Clone, Debug, Default)]
pub enum Watch {
    #[default]
    No,
    /// The function that the client was opened with.
    Default,
    To(Sender<Event>),
}

impl Watch {
    fn watcher(self) -> Option<Watcher> {
        match self {
            Watch::No => None,
            Watch::Default => Some(Watcher::Default),
            Watch::To(sender) => Some(Watcher::Channel(sender)),
        }
    }
}

/// A watch that stays: on one node, or on it and all below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddWatchMode {
    Persistent = 0,
    PersistentRecursive = 1,
}

/// Which watches to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchType {
    Children = 1,
    Data = 2,
    Any = 3,
    Persistent = 4,
    PersistentRecursive = 5,
}

/// One step of a `multi`.
#[derive(Clone, Debug)]
pub enum Op {
    Create {
        path: String,
        data: Option<Vec<u8>>,
        acl: Vec<Acl>,
        mode: CreateMode,
    },
    /// Version -1: any.
    Delete {
        path: String,
        version: i32,
    },
    SetData {
        path: String,
        data: Option<Vec<u8>>,
        version: i32,
    },
    Check {
        path: String,
        version: i32,
    },
}

/// What became of one step of a `multi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// With the name it got; the stat where the server sends one.
    Created(String, Option<Stat>),
    Deleted,
    Set(Stat),
    Checked,
    /// `ErrorCode::OK` for a step before the one that failed, `RUNTIME_INCONSISTENCY` for one after it.
    Failed(ErrorCode),
}

/// What the server knows a client as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub scheme: String,
    pub user: String,
}

type Decode<T> = Box<dyn FnOnce(&mut Reader<'_>) -> Result<T, Malformed> + Send>;

/// A request that has been sent; its result comes with `wait`. Dropped, the request happens all the same.
#[must_use = "the request's outcome is in the handle: `wait` for it"]
pub struct Handle<T>(Inner<T>);

enum Inner<T> {
    Refused(Error),
    Sent { reply: Receiver<Result<Vec<u8>, ErrorCode>>, path: Option<String>, decode: Decode<T> },
}

impl<T> Handle<T> {
    /// Blocks for the result.
    pub fn wait(self) -> Result<T, Error> {
        match self.0 {
            Inner::Refused(error) => Err(error),
            Inner::Sent { reply, path, decode } => {
                read(reply.recv().unwrap_or(Err(ErrorCode::CONNECTION_LOSS)), path, decode)
            }
        }
    }

    /// As `wait`, but at most for `wait`; then `OPERATION_TIMEOUT`, and the request may still happen.
    pub fn wait_for(self, wait: Duration) -> Result<T, Error> {
        match self.0 {
            Inner::Refused(error) => Err(error),
            Inner::Sent { reply, path, decode } => {
                let outcome = reply.recv_timeout(wait).unwrap_or_else(|error| {
                    Err(match error {
                        RecvTimeoutError::Timeout => ErrorCode::OPERATION_TIMEOUT,
                        RecvTimeoutError::Disconnected => ErrorCode::CONNECTION_LOSS,
                    })
                });
                read(outcome, path, decode)
            }
        }
    }
}

fn read<T>(outcome: Result<Vec<u8>, ErrorCode>, path: Option<String>, decode: Decode<T>) -> Result<T, Error> {
    let body = outcome.map_err(|code| Error::Code { code, path })?;
    Ok(decode(&mut Reader::new(&body))?)
}

fn text(path: &str) -> Text<'_> {
    Some(Cow::Borrowed(path))
}

fn optional(text: Option<&str>) -> Text<'_> {
    text.map(Cow::Borrowed)
}

fn entries(acl: &[Acl]) -> AclEntries<'_> {
    Some(acl.iter().map(|one| AclEntry { perms: one.perms, scheme: text(&one.scheme), id: text(&one.id) }).collect())
}

fn read_names(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    let names = reader.texts("children")?.unwrap_or_default();
    Ok(names.into_iter().flatten().map(Cow::into_owned).collect())
}

fn read_data(reader: &mut Reader<'_>) -> Result<(Option<Vec<u8>>, Stat), Malformed> {
    Ok((reader.buffer("data")?.map(<[u8]>::to_vec), Stat::read(reader)?))
}

fn read_acl_reply(reader: &mut Reader<'_>) -> Result<(Vec<Acl>, Stat), Malformed> {
    let acl = read_acl(reader)?.unwrap_or_default().into_owned().into_iter().map(|entry| Acl {
        perms: entry.perms,
        scheme: entry.scheme.unwrap_or_default().into_owned(),
        id: entry.id.unwrap_or_default().into_owned(),
    });
    let acl = acl.collect();
    Ok((acl, Stat::read(reader)?))
}

fn nothing(_: &mut Reader<'_>) -> Result<(), Malformed> {
    Ok(())
}

impl Client {
    fn start<T>(
        &self,
        op: OpCode,
        path: Option<&str>,
        effect: Effect,
        encode: impl FnOnce(&mut Vec<u8>, &str),
        decode: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed> + Send + 'static,
    ) -> Handle<T> {
        let mut body = Vec::new();
        match path {
            None => encode(&mut body, ""),
            Some(path) => {
                if let Err(error) = check_path(path) {
                    return Handle(Inner::Refused(error));
                }
                encode(&mut body, &self.chroot.join(path));
            }
        }
        let (sender, reply) = std::sync::mpsc::channel();
        let _permit = Some(self.shared.permit());
        let submission = Submission { op, body, effect, reply: Some(sender), _permit };
        // If the driver has ended, the sender of the reply is dropped with the submission, and `wait` sees that.
        let _ = self.inbox.send(Input::Submit(submission));
        Handle(Inner::Sent { reply, path: path.map(str::to_owned), decode: Box::new(decode) })
    }

    fn watch_effect(&self, kind: Kind, path: &str, watch: Watch) -> Effect {
        match watch.watcher() {
            None => Effect::None,
            Some(watcher) => Effect::Watch(kind, self.chroot.join(path), watcher),
        }
    }

    fn read<T: 'static>(
        &self,
        (op, kind): (OpCode, Kind),
        path: &str,
        watch: Watch,
        decode: fn(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Handle<T> {
        let effect = self.watch_effect(kind, path, watch);
        let watch = !matches!(effect, Effect::None);
        self.start(op, Some(path), effect, |out, path| PathWatch { path: text(path), watch }.write(out), decode)
    }

    /// Creates a node; its name (longer than `path` if sequential) and stat.
    pub fn create(&self, path: &str, data: Option<&[u8]>, acl: &[Acl], mode: CreateMode) -> Handle<(String, Stat)> {
        let op = mode.op(OpCode::Create2);
        // A sequential node's name may be nothing but its number.
        let checked = if flags::is_sequential(mode.flags) { format!("{path}1") } else { path.to_owned() };
        if let Err(error) = check_path(&checked) {
            return Handle(Inner::Refused(error));
        }
        let full = self.chroot.join(path);
        let encode = |out: &mut Vec<u8>, _: &str| {
            let acl = entries(acl);
            CreateRequest { path: text(&full), data, acl, flags: mode.flags, ttl: mode.ttl_ms }.write(out, op);
        };
        let chroot = self.chroot.clone();
        let mut handle = self.start(op, None, Effect::None, encode, move |reader| {
            let path = chroot.strip(&reader.string("path")?).to_owned();
            Ok((path, Stat::read(reader)?))
        });
        if let Inner::Sent { path: about, .. } = &mut handle.0 {
            *about = Some(path.to_owned());
        }
        handle
    }

    /// Deletes a node without children; version -1: whatever its version is.
    pub fn delete(&self, path: &str, version: i32) -> Handle<()> {
        let encode = |out: &mut Vec<u8>, path: &str| PathVersion { path: text(path), version }.write(out);
        self.start(OpCode::Delete, Some(path), Effect::None, encode, nothing)
    }

    /// `NO_NODE` if there is none; the watch is set all the same.
    pub fn exists(&self, path: &str, watch: Watch) -> Handle<Stat> {
        self.read((OpCode::Exists, Kind::Data), path, watch, Stat::read)
    }

    pub fn get_data(&self, path: &str, watch: Watch) -> Handle<(Option<Vec<u8>>, Stat)> {
        self.read((OpCode::GetData, Kind::Data), path, watch, read_data)
    }

    /// The ensemble's configuration and the stat of its node, which no chroot hides.
    pub fn get_config(&self, watch: Watch) -> Handle<(Option<Vec<u8>>, Stat)> {
        const CONFIG: &str = "/zookeeper/config";
        let watcher = watch.watcher();
        let watch = watcher.is_some();
        let effect = watcher.map_or(Effect::None, |watcher| Effect::Watch(Kind::Data, CONFIG.into(), watcher));
        let encode = |out: &mut Vec<u8>, _: &str| PathWatch { path: text(CONFIG), watch }.write(out);
        self.start(OpCode::GetData, None, effect, encode, read_data)
    }

    /// The names of a node's children, in no order, and its stat.
    pub fn get_children(&self, path: &str, watch: Watch) -> Handle<(Vec<String>, Stat)> {
        self.read((OpCode::GetChildren2, Kind::Child), path, watch, |reader| {
            Ok((read_names(reader)?, Stat::read(reader)?))
        })
    }

    /// Version -1: whatever the node's version is.
    pub fn set_data(&self, path: &str, data: Option<&[u8]>, version: i32) -> Handle<Stat> {
        let encode = |out: &mut Vec<u8>, path: &str| SetDataRequest { path: text(path), data, version }.write(out);
        self.start(OpCode::SetData, Some(path), Effect::None, encode, Stat::read)
    }

    pub fn get_acl(&self, path: &str) -> Handle<(Vec<Acl>, Stat)> {
        self.start(OpCode::GetAcl, Some(path), Effect::None, |out, path| out.put_text(path), read_acl_reply)
    }

    /// `version` is that of the ACL; -1: any.
    pub fn set_acl(&self, path: &str, acl: &[Acl], version: i32) -> Handle<Stat> {
        let encode = |out: &mut Vec<u8>, path: &str| {
            SetAclRequest { path: text(path), acl: entries(acl), version }.write(out);
        };
        self.start(OpCode::SetAcl, Some(path), Effect::None, encode, Stat::read)
    }

    /// After this, reads see at least what the leader had committed when it was asked.
    pub fn sync(&self, path: &str) -> Handle<()> {
        self.start(OpCode::Sync, Some(path), Effect::None, |out, path| out.put_text(path), nothing)
    }

    /// The paths of this session's own ephemerals that begin with `prefix`; they begin with the chroot.
    pub fn get_ephemerals(&self, prefix: &str) -> Handle<Vec<String>> {
        self.start(OpCode::GetEphemerals, Some(prefix), Effect::None, |out, path| out.put_text(path), read_names)
    }

    /// How many nodes are below `path`.
    pub fn get_all_children_number(&self, path: &str) -> Handle<i32> {
        let encode = |out: &mut Vec<u8>, path: &str| out.put_text(path);
        self.start(OpCode::GetAllChildrenNumber, Some(path), Effect::None, encode, |reader| reader.int("totalNumber"))
    }

    pub fn who_am_i(&self) -> Handle<Vec<Identity>> {
        self.start(
            OpCode::WhoAmI,
            None,
            Effect::None,
            |_, _| (),
            |reader| {
                let count = reader.count("clientInfo")?.unwrap_or(0);
                let mut list = Vec::with_capacity(reader.capacity(count, 8));
                for _ in 0..count {
                    let scheme = reader.string("authScheme")?.into_owned();
                    list.push(Identity { scheme, user: reader.string("user")?.into_owned() });
                }
                Ok(list)
            },
        )
    }

    /// A watch that stays. `watch` must not be `Watch::No`.
    pub fn add_watch(&self, path: &str, mode: AddWatchMode, watch: Watch) -> Handle<()> {
        let kind = if mode == AddWatchMode::Persistent { Kind::Persistent } else { Kind::Recursive };
        let effect = self.watch_effect(kind, path, watch);
        assert!(!matches!(effect, Effect::None), "a watch that tells nobody");
        let encode = |out: &mut Vec<u8>, path: &str| PathMode { path: text(path), mode: mode as i32 }.write(out);
        self.start(OpCode::AddWatch, Some(path), effect, encode, nothing)
    }

    /// Removes this client's watches of one type. `NO_WATCHER` if it has none. `local`: also when no server can be asked.
    pub fn remove_watches(&self, path: &str, watch_type: WatchType, local: bool) -> Handle<()> {
        let number = watch_type as i32;
        let effect = Effect::Forget { watch_type: number, path: self.chroot.join(path), local };
        let encode = |out: &mut Vec<u8>, path: &str| PathMode { path: text(path), mode: number }.write(out);
        self.start(OpCode::RemoveWatches, Some(path), effect, encode, nothing)
    }

    /// Changes the ensemble; the new configuration and the stat of its node. `config_id` -1: whatever it is now.
    pub fn reconfig(
        &self,
        joining: Option<&str>,
        leaving: Option<&str>,
        members: Option<&str>,
        config_id: i64,
    ) -> Handle<(Option<Vec<u8>>, Stat)> {
        let request = ReconfigRequest {
            joining: optional(joining),
            leaving: optional(leaving),
            members: optional(members),
            config_id,
        };
        self.start(OpCode::Reconfig, None, Effect::None, |out, _| request.write(out), read_data)
    }

    /// All or nothing. The results tell which step failed; the handle itself fails only if there was no answer.
    pub fn multi(&self, ops: &[Op]) -> Handle<Vec<OpResult>> {
        let mut body = Vec::new();
        for op in ops {
            let (Op::Create { path, .. } | Op::Delete { path, .. } | Op::SetData { path, .. } | Op::Check { path, .. }) =
                op;
            let sequential = matches!(op, Op::Create { mode, .. } if flags::is_sequential(mode.flags));
            let checked = if sequential { check_path(&format!("{path}1")) } else { check_path(path) };
            if let Err(error) = checked {
                return Handle(Inner::Refused(error));
            }
            let full = self.chroot.join(path);
            let path = text(&full);
            match op {
                Op::Create { data, acl, mode, .. } => MultiOp::Create(
                    mode.op(OpCode::Create),
                    CreateRequest {
                        path,
                        data: data.as_deref(),
                        acl: entries(acl),
                        flags: mode.flags,
                        ttl: mode.ttl_ms,
                    },
                ),
                Op::Delete { version, .. } => MultiOp::Delete(PathVersion { path, version: *version }),
                Op::SetData { data, version, .. } => {
                    MultiOp::SetData(SetDataRequest { path, data: data.as_deref(), version: *version })
                }
                Op::Check { version, .. } => MultiOp::Check(PathVersion { path, version: *version }),
            }
            .write(&mut body);
        }
        multi::write_end(&mut body);
        let chroot = self.chroot.clone();
        let encode = |out: &mut Vec<u8>, _: &str| *out = body;
        self.start(OpCode::Multi, None, Effect::None, encode, move |reader| {
            let mut results = Vec::new();
            loop {
                let (raw, done) = (reader.int("type")?, reader.bool("done")?);
                reader.int("err")?;
                if done {
                    return Ok(results);
                }
                results.push(match OpCode::from_wire(raw) {
                    Some(OpCode::Create) => OpResult::Created(chroot.strip(&reader.string("path")?).to_owned(), None),
                    Some(OpCode::Create2) => {
                        let path = chroot.strip(&reader.string("path")?).to_owned();
                        OpResult::Created(path, Some(Stat::read(reader)?))
                    }
                    Some(OpCode::Delete) => OpResult::Deleted,
                    Some(OpCode::SetData) => OpResult::Set(Stat::read(reader)?),
                    Some(OpCode::Check) => OpResult::Checked,
                    Some(OpCode::Error) => OpResult::Failed(ErrorCode(reader.int("err")?)),
                    _ => return Err(Malformed::Unknown("result of a multi", raw)),
                });
            }
        })
    }
}
