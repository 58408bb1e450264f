//! Reads a tree as ZooKeeper serializes it, from bytes that come in pieces.
//!
//! The bytes are a sequence of *items*: a count, a session, one entry of an ACL, a znode. A whole item is taken from the
//! piece that it came in, without a copy; an item that ends in a later piece waits in a buffer that is filled to exactly
//! what it is known to need. So the work for each piece is in proportion to it, and what is held back is never more than
//! one item.
//!
//! The sender may be broken or worse. Lengths are checked before anything is made of them: nothing is allocated for what
//! has not come, no item is larger than `DecodeLimits::item_bytes`, the whole is no larger than `total_bytes`. Negative
//! lengths, a child before its parent, the same path twice, a path that none can have, a key twice: all errors, and there
//! is no tree then.

use super::{END, NUMBERS, OPEN_KEY, SNAP_SIGNATURE, missing_acl};
use crate::ids::{SessionId, Zxid};
use crate::limits;
use crate::random::FastMap;
use crate::snapshot::SessionRecord;
use crate::tree::{AclId, Grow, Numbers, Tree, TreeOptions};
use crate::wire::reader::decode_written;
use crate::wire::txn::Acl;
use std::borrow::Cow;

/// How much a sender is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeLimits {
    /// Bytes of one string, one znode's data, or one whole ACL. ZooKeeper reads `jute.maxbuffer` and as much again
    /// (`zookeeper.jute.maxbuffer.extrasize`).
    pub item_bytes: usize,
    /// Bytes of everything.
    pub total_bytes: u64,
}

impl Default for DecodeLimits {
    /// With ZooKeeper's default `jute.maxbuffer`.
    fn default() -> DecodeLimits {
        DecodeLimits { item_bytes: 2 * limits::JUTE_MAXBUFFER, total_bytes: limits::ZOOKEEPER_TREE_BYTES }
    }
}

/// Bytes that are no tree of ZooKeeper's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("byte {offset}: {problem}")]
pub struct DecodeError {
    /// Where the item begins that is wrong, from the first byte that the decoder was given.
    pub offset: u64,
    pub problem: String,
}

/// A tree that was read.
pub struct Decoded {
    pub tree: Tree,
    /// In the order of their ids.
    pub sessions: Vec<SessionRecord>,
    /// Znodes that name an ACL which isn't there. They have a list that lets nobody in (`is_missing_acl`). Of a fuzzy
    /// snapshot that is no damage: replay gives each of them its list. One that is left after the replay is.
    pub missing_acls: u64,
}

/// Takes bytes in until the tree is whole.
pub struct Decoder {
    limits: DecodeLimits,
    /// Whether the signature of SNAP has to follow.
    signed: bool,
    stage: Stage,
    /// The beginning of an item, of which `need` bytes at least are wanted.
    pending: Vec<u8>,
    need: usize,
    /// Where the item begins.
    offset: u64,
    sessions: Vec<SessionRecord>,
    acls: FastMap<i64, AclId>,
    missing: FastMap<i64, AclId>,
    missing_acls: u64,
    grow: Grow,
}

/// What comes next. `left` counts what has not come, this one included.
enum Stage {
    SessionCount,
    Session { left: u32 },
    AclCount,
    AclHead { left: u32 },
    AclEntry { left: u32, key: i64, entries: u32, list: Vec<Acl>, bytes: usize },
    Node,
    Signature,
    Whole,
}

/// Why an item is not taken.
enum Stop {
    /// It has at least so many bytes.
    Need(usize),
    Wrong(String),
}

fn wrong<T>(problem: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Wrong(problem.into()))
}

impl Decoder {
    /// For a tree whose end is the path "/": that in a file.
    pub fn new(options: TreeOptions, limits: DecodeLimits) -> Decoder {
        Decoder {
            limits,
            signed: false,
            stage: Stage::SessionCount,
            pending: Vec::new(),
            need: 0,
            offset: 0,
            sessions: Vec::new(),
            acls: FastMap::default(),
            missing: FastMap::default(),
            missing_acls: 0,
            grow: Grow::new(options),
        }
    }

    /// For what follows the SNAP packet: a tree, then the signature.
    pub fn of_snap(options: TreeOptions, limits: DecodeLimits) -> Decoder {
        Decoder { signed: true, ..Decoder::new(options, limits) }
    }

    /// Takes the next bytes, and says how many of them were its own: all, unless the end was among them. Work in
    /// proportion to the bytes. After an error it is of no use any more.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        let mut rest = bytes;
        while !self.is_whole() {
            if self.pending.is_empty() {
                match self.item(rest)? {
                    Ok(taken) => rest = &rest[taken..],
                    Err(need) => {
                        self.pending.extend_from_slice(rest);
                        self.need = need;
                        return Ok(bytes.len());
                    }
                }
                continue;
            }
            let (some, after) = rest.split_at(rest.len().min(self.need - self.pending.len()));
            self.pending.extend_from_slice(some);
            rest = after;
            if self.pending.len() < self.need {
                return Ok(bytes.len());
            }
            let mut pending = std::mem::take(&mut self.pending);
            match self.item(&pending)? {
                Ok(taken) => {
                    assert!(taken == pending.len(), "no item was given more than it needs");
                    pending.clear();
                    // The largest znode's room isn't kept.
                    pending.shrink_to(limits::READ_GUARD_BYTES);
                }
                Err(need) => self.need = need,
            }
            self.pending = pending;
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether the end has come.
    pub fn is_whole(&self) -> bool {
        matches!(self.stage, Stage::Whole)
    }

    /// Znodes so far.
    pub fn nodes(&self) -> u64 {
        self.grow.len()
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.offset + self.pending.len() as u64
    }

    /// The tree, at the zxid that the SNAP packet or the file's name gives it. An error if the end has not come.
    pub fn finish(mut self, zxid: Zxid) -> Result<Decoded, DecodeError> {
        let offset = self.bytes();
        let error = |problem: String| DecodeError { offset, problem };
        if !self.is_whole() {
            return Err(error("the end is missing".into()));
        }
        self.sessions.sort_unstable_by_key(|(session, _)| *session);
        if let Some(twice) = self.sessions.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(error(format!("the session {} is there twice", twice[0].0)));
        }
        let tree = self.grow.finish(zxid).map_err(|misfit| error(misfit.to_string()))?;
        Ok(Decoded { tree, sessions: self.sessions, missing_acls: self.missing_acls })
    }

    /// Takes one item from the beginning of `bytes`: its length, or how many bytes it has at least.
    fn item(&mut self, bytes: &[u8]) -> Result<Result<usize, usize>, DecodeError> {
        let mut fields = Fields { bytes, at: 0, limit: self.limits.item_bytes };
        let taken = self.read(&mut fields).map(|()| fields.at);
        let reached = match taken {
            Ok(taken) => taken,
            Err(Stop::Need(need)) => need,
            Err(Stop::Wrong(problem)) => return Err(DecodeError { offset: self.offset, problem }),
        };
        if self.offset + reached as u64 > self.limits.total_bytes {
            let problem = format!("more than {} bytes", self.limits.total_bytes);
            return Err(DecodeError { offset: self.offset, problem });
        }
        match taken {
            Ok(taken) => {
                self.offset += taken as u64;
                Ok(Ok(taken))
            }
            _ => Ok(Err(reached)),
        }
    }

    /// Reads the item that is next. Changes nothing unless all of it is there.
    fn read(&mut self, fields: &mut Fields<'_>) -> Result<(), Stop> {
        match &mut self.stage {
            Stage::SessionCount => self.stage = after_sessions(fields.count("sessions")?),
            Stage::Session { left } => {
                let record = (SessionId(fields.long()?), fields.int()?);
                if record.0 == SessionId::NONE {
                    return wrong("a session without an id".to_owned());
                }
                self.sessions.push(record);
                self.stage = after_sessions(*left - 1);
            }
            Stage::AclCount => self.stage = after_acl(fields.count("ACLs")?),
            Stage::AclHead { left } => {
                let (left, key) = (*left, fields.long()?);
                let entries = fields.count("entries of an ACL")?;
                if key == OPEN_KEY || self.acls.contains_key(&key) {
                    return wrong(format!("the ACL {key} is there twice"));
                }
                self.stage = Stage::AclEntry { left, key, entries, list: Vec::new(), bytes: 0 };
                self.end_acl();
            }
            Stage::AclEntry { entries, list, bytes, .. } => {
                let perms = fields.int()?;
                let acl = Acl { perms, scheme: fields.text("scheme")?.into(), id: fields.text("id")?.into() };
                *bytes += fields.at;
                if *bytes > self.limits.item_bytes {
                    return wrong(format!("an ACL of more than {} bytes", self.limits.item_bytes));
                }
                list.push(acl);
                *entries -= 1;
                self.end_acl();
            }
            Stage::Node => {
                let path = fields.text("path")?;
                if path == END {
                    self.stage = if self.signed { Stage::Signature } else { Stage::Whole };
                    return Ok(());
                }
                let data = fields.buffer("data")?;
                let key = fields.long()?;
                let numbers = fields.numbers()?;
                let acl = self.acl(key);
                let added = self.grow.add(&path, data, &numbers, acl);
                added.or_else(|misfit| wrong(format!("the znode {path:?}: {misfit}")))?;
            }
            Stage::Signature => {
                if fields.take(SNAP_SIGNATURE.len())? != SNAP_SIGNATURE {
                    return wrong("the signature is missing at the end");
                }
                self.stage = Stage::Whole;
            }
            Stage::Whole => {}
        }
        Ok(())
    }

    /// Goes on to the next ACL if this one is complete.
    fn end_acl(&mut self) {
        if let Stage::AclEntry { left, key, entries: 0, list, .. } = &self.stage {
            let id = self.grow.acl(list);
            self.acls.insert(*key, id);
            self.stage = after_acl(*left - 1);
        }
    }

    fn acl(&mut self, key: i64) -> AclId {
        if key == OPEN_KEY {
            return AclId::OPEN;
        }
        if let Some(&id) = self.acls.get(&key) {
            return id;
        }
        self.missing_acls += 1;
        *self.missing.entry(key).or_insert_with(|| self.grow.acl(&[missing_acl(key)]))
    }
}

fn after_sessions(left: u32) -> Stage {
    if left == 0 { Stage::AclCount } else { Stage::Session { left } }
}

fn after_acl(left: u32) -> Stage {
    if left == 0 { Stage::Node } else { Stage::AclHead { left } }
}

/// The fields of one item, of which perhaps only the beginning is there.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    limit: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let end = self.at + len;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Need(end))?;
        self.at = end;
        Ok(taken)
    }

    fn int(&mut self) -> Result<i32, Stop> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn long(&mut self) -> Result<i64, Stop> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    fn count(&mut self, what: &str) -> Result<u32, Stop> {
        let count = self.int()?;
        u32::try_from(count).or_else(|_| wrong(format!("{count} {what}")))
    }

    /// `None` is null.
    fn buffer(&mut self, field: &str) -> Result<Option<&'a [u8]>, Stop> {
        let len = self.int()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.limit => self.take(len).map(Some),
            Err(_) if len == -1 => Ok(None),
            _ => wrong(format!("{field}: impossible length {len}")),
        }
    }

    fn text(&mut self, field: &str) -> Result<Cow<'a, str>, Stop> {
        let Some(bytes) = self.buffer(field)? else { return wrong(format!("{field}: null")) };
        Ok(decode_written(bytes))
    }

    fn numbers(&mut self) -> Result<Numbers, Stop> {
        // All or nothing, so that a short item asks for all of them at once.
        let mut fields = Fields { bytes: self.take(NUMBERS)?, at: 0, limit: 0 };
        let (czxid, mzxid) = (Zxid::from_wire(fields.long()?), Zxid::from_wire(fields.long()?));
        let (ctime, mtime) = (fields.long()?, fields.long()?);
        let (version, cversion, aversion) = (fields.int()?, fields.int()?, fields.int()?);
        let (owner, pzxid) = (fields.long()?, Zxid::from_wire(fields.long()?));
        Ok(Numbers { czxid, mzxid, pzxid, ctime, mtime, version, cversion, aversion, owner })
    }
}
