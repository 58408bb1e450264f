//! What clients ask and what they are told: the connect handshake, request headers and records, watch events.
//!
//! A request is a view into the connection's input buffer and lives no longer than the turn of the loop. Each record has
//! its `read`, as strict as ZooKeeper's; and `write` where our own client sends it.

use super::error_code::ErrorCode;
use super::opcode::OpCode;
use super::reader::{Malformed, Reader, Text};
use super::txn::Acl;
use super::writer::{Frame, Jute};
use crate::ids::SessionId;
use std::borrow::Cow;

/// xids with a meaning of their own.
pub mod xid {
    pub const NOTIFICATION: i32 = -1;
    pub const PING: i32 = -2;
    pub const AUTH: i32 = -4;
    pub const SET_WATCHES: i32 = -8;
}

/// Bytes of a session's password.
pub const PASSWORD_BYTES: usize = 16;

/// A client's first frame.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct ConnectRequest<'a> {
    pub protocol_version: i32,
    /// The newest zxid in any reply that the client has seen: a server that is behind it must not serve the client.
    pub last_zxid_seen: i64,
    pub timeout_ms: i32,
    pub session: SessionId,
    pub password: Option<&'a [u8]>,
    /// `None` from clients older than 3.4 and the Go client; the response then has no such byte either.
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    pub fn read(frame: &'a [u8]) -> Result<ConnectRequest<'a>, Malformed> {
        let mut r = Reader::new(frame);
        Ok(ConnectRequest {
            protocol_version: r.int("protocolVersion")?,
            last_zxid_seen: r.long("lastZxidSeen")?,
            timeout_ms: r.int("timeOut")?,
            session: SessionId(r.long("sessionId")?),
            password: r.buffer("passwd")?,
            read_only: if r.rest().is_empty() { None } else { Some(r.bool("readOnly")?) },
        })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let frame = Frame::open(out);
        frame.bytes.put_int(self.protocol_version);
        frame.bytes.put_long(self.last_zxid_seen);
        frame.bytes.put_int(self.timeout_ms);
        frame.bytes.put_long(self.session.0);
        frame.bytes.put_buffer(self.password);
        if let Some(read_only) = self.read_only {
            frame.bytes.put_bool(read_only);
        }
        frame.close();
    }
}

/// The answer to a `ConnectRequest`. A refused session has timeout 0, id 0 and a password of zeros.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct ConnectResponse {
    pub timeout_ms: i32,
    pub session: SessionId,
    pub password: [u8; PASSWORD_BYTES],
    /// Sent if and only if the request had the byte.
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    pub fn refused(read_only: Option<bool>) -> ConnectResponse {
        ConnectResponse { timeout_ms: 0, session: SessionId::NONE, password: [0; PASSWORD_BYTES], read_only }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let frame = Frame::open(out);
        frame.bytes.put_int(0);
        frame.bytes.put_int(self.timeout_ms);
        frame.bytes.put_long(self.session.0);
        frame.bytes.put_buffer(Some(&self.password));
        if let Some(read_only) = self.read_only {
            frame.bytes.put_bool(read_only);
        }
        frame.close();
    }

    pub fn read(frame: &[u8]) -> Result<ConnectResponse, Malformed> {
        let mut r = Reader::new(frame);
        r.int("protocolVersion")?;
        let timeout_ms = r.int("timeOut")?;
        let session = SessionId(r.long("sessionId")?);
        let password = r.buffer("passwd")?.ok_or(Malformed::Null("passwd"))?;
        let password = password.try_into().map_err(|_| Malformed::Length("passwd", password.len() as i32))?;
        let read_only = if r.rest().is_empty() { None } else { Some(r.bool("readOnly")?) };
        Ok(ConnectResponse { timeout_ms, session, password, read_only })
    }
}

/// Every later frame of a client begins with one. `op` is raw: it may be no operation at all.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct RequestHeader {
    pub xid: i32,
    pub op: i32,
}

impl RequestHeader {
    pub const BYTES: usize = 8;

    #[inline]
    pub fn read(r: &mut Reader<'_>) -> Result<RequestHeader, Malformed> {
        Ok(RequestHeader { xid: r.int("xid")?, op: r.int("type")? })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_int(self.xid);
        out.put_int(self.op);
    }
}

/// Every frame to a client begins with one, but for the first.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct ReplyHeader {
    pub xid: i32,
    pub zxid: i64,
    pub err: ErrorCode,
}

impl ReplyHeader {
    pub fn read(r: &mut Reader<'_>) -> Result<ReplyHeader, Malformed> {
        Ok(ReplyHeader { xid: r.int("xid")?, zxid: r.long("zxid")?, err: ErrorCode(r.int("err")?) })
    }

    /// A whole frame that is only a header: every error, and the success of what has no record.
    #[inline]
    pub fn write_frame(&self, out: &mut Vec<u8>) {
        let mut bytes = [0u8; 20];
        bytes[..4].copy_from_slice(&16i32.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.xid.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.zxid.to_be_bytes());
        bytes[16..].copy_from_slice(&self.err.0.to_be_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// What happened to a znode, as watchers are told.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
#[repr(i32)]
pub enum EventKind {
    NodeCreated = 1,
    NodeDeleted = 2,
    NodeDataChanged = 3,
    NodeChildrenChanged = 4,
}

impl EventKind {
    pub fn from_wire(raw: i32) -> Option<EventKind> {
        Some(match raw {
            1 => EventKind::NodeCreated,
            2 => EventKind::NodeDeleted,
            3 => EventKind::NodeDataChanged,
            4 => EventKind::NodeChildrenChanged,
            _ => return None,
        })
    }
}

/// The session state in every event that a server sends: SyncConnected.
pub const STATE_SYNC_CONNECTED: i32 = 3;

/// Appends a whole notification frame. `zxid` is that of the transaction, or -1 for an event made up by setWatches.
pub fn write_event(out: &mut Vec<u8>, kind: EventKind, path: &str, zxid: i64) {
    let frame = Frame::open(out);
    frame.bytes.put_int(xid::NOTIFICATION);
    frame.bytes.put_long(zxid);
    frame.bytes.put_int(0);
    frame.bytes.put_int(kind as i32);
    frame.bytes.put_int(STATE_SYNC_CONNECTED);
    frame.bytes.put_text(path);
    frame.close();
}

/// exists, getData, getChildren, getChildren2.
#[derive(Debug, PartialEq, Eq)]
pub struct PathWatch<'a> {
    pub path: Text<'a>,
    pub watch: bool,
}

impl<'a> PathWatch<'a> {
    #[inline]
    pub fn read(r: &mut Reader<'a>) -> Result<PathWatch<'a>, Malformed> {
        Ok(PathWatch { path: r.text("path")?, watch: r.bool("watch")? })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_text(out, &self.path);
        out.put_bool(self.watch);
    }
}

/// getACL, sync, getAllChildrenNumber, getEphemerals (a prefix), deleteContainer.
pub fn read_path<'a>(r: &mut Reader<'a>) -> Result<Text<'a>, Malformed> {
    r.text("path")
}

/// delete and check.
#[derive(Debug, PartialEq, Eq)]
pub struct PathVersion<'a> {
    pub path: Text<'a>,
    /// -1 for any.
    pub version: i32,
}

impl<'a> PathVersion<'a> {
    pub fn read(r: &mut Reader<'a>) -> Result<PathVersion<'a>, Malformed> {
        Ok(PathVersion { path: r.text("path")?, version: r.int("version")? })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_text(out, &self.path);
        out.put_int(self.version);
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct SetDataRequest<'a> {
    pub path: Text<'a>,
    pub data: Option<&'a [u8]>,
    /// -1 for any.
    pub version: i32,
}

impl<'a> SetDataRequest<'a> {
    pub fn read(r: &mut Reader<'a>) -> Result<SetDataRequest<'a>, Malformed> {
        Ok(SetDataRequest { path: r.text("path")?, data: r.buffer("data")?, version: r.int("version")? })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_text(out, &self.path);
        out.put_buffer(self.data);
        out.put_int(self.version);
    }
}

/// An entry of a client's ACL list, not checked yet.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct AclEntry<'a> {
    pub perms: i32,
    pub scheme: Text<'a>,
    pub id: Text<'a>,
}

/// A client's ACL list. `None` is a null list.
pub type AclEntries<'a> = Option<Cow<'a, [AclEntry<'a>]>>;

/// `Acl::open`, which nearly all clients send.
static OPEN: [AclEntry<'static>; 1] =
    [AclEntry { perms: Acl::ALL, scheme: Some(Cow::Borrowed("world")), id: Some(Cow::Borrowed("anyone")) }];

/// Reads a list; no allocation for the usual one.
pub fn read_acl<'a>(r: &mut Reader<'a>) -> Result<AclEntries<'a>, Malformed> {
    if r.skip_if(&Acl::OPEN_BYTES) {
        return Ok(Some(Cow::Borrowed(&OPEN)));
    }
    let Some(count) = r.count("acl")? else { return Ok(None) };
    let mut list = Vec::with_capacity(r.capacity(count, 12));
    for _ in 0..count {
        list.push(AclEntry { perms: r.int("perms")?, scheme: r.text("scheme")?, id: r.text("id")? });
    }
    Ok(Some(list.into()))
}

/// Appends an ACL list as `read_acl` reads it; `None` is a null list.
pub fn write_acl(out: &mut Vec<u8>, list: Option<&[AclEntry<'_>]>) {
    let Some(list) = list else { return out.put_null() };
    out.put_int(list.len() as i32);
    for entry in list {
        out.put_int(entry.perms);
        put_text(out, &entry.scheme);
        put_text(out, &entry.id);
    }
}

fn put_text(out: &mut Vec<u8>, text: &Text<'_>) {
    match text {
        None => out.put_null(),
        Some(text) => out.put_text(text),
    }
}

/// create, create2, createContainer; and createTTL, which alone has `ttl`.
#[derive(Debug, PartialEq, Eq)]
pub struct CreateRequest<'a> {
    pub path: Text<'a>,
    pub data: Option<&'a [u8]>,
    pub acl: AclEntries<'a>,
    pub flags: i32,
    /// Milliseconds; -1 where the record has none.
    pub ttl: i64,
}

impl<'a> CreateRequest<'a> {
    pub fn read(r: &mut Reader<'a>, op: OpCode) -> Result<CreateRequest<'a>, Malformed> {
        Ok(CreateRequest {
            path: r.text("path")?,
            data: r.buffer("data")?,
            acl: read_acl(r)?,
            flags: r.int("flags")?,
            ttl: if op == OpCode::CreateTtl { r.long("ttl")? } else { -1 },
        })
    }

    pub fn write(&self, out: &mut Vec<u8>, op: OpCode) {
        put_text(out, &self.path);
        out.put_buffer(self.data);
        write_acl(out, self.acl.as_deref());
        out.put_int(self.flags);
        if op == OpCode::CreateTtl {
            out.put_long(self.ttl);
        }
    }
}

/// The create flags on the wire (upstream: `CreateMode`).
pub mod flags {
    pub const PERSISTENT: i32 = 0;
    pub const EPHEMERAL: i32 = 1;
    pub const PERSISTENT_SEQUENTIAL: i32 = 2;
    pub const EPHEMERAL_SEQUENTIAL: i32 = 3;
    pub const CONTAINER: i32 = 4;
    pub const PERSISTENT_WITH_TTL: i32 = 5;
    pub const PERSISTENT_SEQUENTIAL_WITH_TTL: i32 = 6;

    pub fn is_ephemeral(flags: i32) -> bool {
        matches!(flags, EPHEMERAL | EPHEMERAL_SEQUENTIAL)
    }

    pub fn is_sequential(flags: i32) -> bool {
        matches!(flags, PERSISTENT_SEQUENTIAL | EPHEMERAL_SEQUENTIAL | PERSISTENT_SEQUENTIAL_WITH_TTL)
    }

    pub fn is_ttl(flags: i32) -> bool {
        matches!(flags, PERSISTENT_WITH_TTL | PERSISTENT_SEQUENTIAL_WITH_TTL)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct SetAclRequest<'a> {
    pub path: Text<'a>,
    pub acl: AclEntries<'a>,
    /// -1 for any.
    pub version: i32,
}

impl<'a> SetAclRequest<'a> {
    pub fn read(r: &mut Reader<'a>) -> Result<SetAclRequest<'a>, Malformed> {
        Ok(SetAclRequest { path: r.text("path")?, acl: read_acl(r)?, version: r.int("version")? })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_text(out, &self.path);
        write_acl(out, self.acl.as_deref());
        out.put_int(self.version);
    }
}

/// reconfig. Each list may be null.
#[derive(Debug, PartialEq, Eq)]
pub struct ReconfigRequest<'a> {
    pub joining: Text<'a>,
    pub leaving: Text<'a>,
    pub members: Text<'a>,
    pub config_id: i64,
}

impl<'a> ReconfigRequest<'a> {
    pub fn read(r: &mut Reader<'a>) -> Result<ReconfigRequest<'a>, Malformed> {
        Ok(ReconfigRequest {
            joining: r.text("joiningServers")?,
            leaving: r.text("leavingServers")?,
            members: r.text("newMembers")?,
            config_id: r.long("curConfigId")?,
        })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_text(out, &self.joining);
        put_text(out, &self.leaving);
        put_text(out, &self.members);
        out.put_long(self.config_id);
    }
}

/// setWatches (without the last two lists) and setWatches2. `None` is a null list.
#[derive(Debug, PartialEq, Eq)]
pub struct SetWatchesRequest<'a> {
    pub relative_zxid: i64,
    pub data: Option<Vec<Text<'a>>>,
    pub exist: Option<Vec<Text<'a>>>,
    pub child: Option<Vec<Text<'a>>>,
    pub persistent: Option<Vec<Text<'a>>>,
    pub recursive: Option<Vec<Text<'a>>>,
}

impl<'a> SetWatchesRequest<'a> {
    pub fn read(r: &mut Reader<'a>, op: OpCode) -> Result<SetWatchesRequest<'a>, Malformed> {
        let with_persistent = op == OpCode::SetWatches2;
        Ok(SetWatchesRequest {
            relative_zxid: r.long("relativeZxid")?,
            data: r.texts("dataWatches")?,
            exist: r.texts("existWatches")?,
            child: r.texts("childWatches")?,
            persistent: if with_persistent { r.texts("persistentWatches")? } else { Some(Vec::new()) },
            recursive: if with_persistent { r.texts("persistentRecursiveWatches")? } else { Some(Vec::new()) },
        })
    }

    pub fn write(&self, out: &mut Vec<u8>, op: OpCode) {
        out.put_long(self.relative_zxid);
        let lists = [&self.data, &self.exist, &self.child, &self.persistent, &self.recursive];
        for list in &lists[..if op == OpCode::SetWatches2 { 5 } else { 3 }] {
            let Some(paths) = list else {
                out.put_null();
                continue;
            };
            out.put_int(paths.len() as i32);
            for path in paths {
                put_text(out, path);
            }
        }
    }
}

/// addWatch (a mode: 0 persistent, 1 recursive), checkWatches and removeWatches (a type: 1..=5).
#[derive(Debug, PartialEq, Eq)]
pub struct PathMode<'a> {
    pub path: Text<'a>,
    pub mode: i32,
}

impl<'a> PathMode<'a> {
    pub fn read(r: &mut Reader<'a>) -> Result<PathMode<'a>, Malformed> {
        Ok(PathMode { path: r.text("path")?, mode: r.int("mode")? })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_text(out, &self.path);
        out.put_int(self.mode);
    }
}

/// auth. Its first field, a type, means nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct AuthPacket<'a> {
    pub scheme: Text<'a>,
    pub auth: Option<&'a [u8]>,
}

impl<'a> AuthPacket<'a> {
    pub fn read(r: &mut Reader<'a>) -> Result<AuthPacket<'a>, Malformed> {
        r.int("type")?;
        Ok(AuthPacket { scheme: r.text("scheme")?, auth: r.buffer("auth")? })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_int(0);
        put_text(out, &self.scheme);
        out.put_buffer(self.auth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// Captured from ZooKeeper 3.9.5.
    #[test]
    fn the_handshake_of_a_real_server() {
        let request = unhex(
            "0000002d 00000000 0000000000000000 00002710 0000000000000000 00000010 00000000000000000000000000000000 00",
        );
        let parsed = ConnectRequest::read(&request[4..]).unwrap();
        assert_eq!((parsed.timeout_ms, parsed.session, parsed.read_only), (10_000, SessionId::NONE, Some(false)));
        let old = ConnectRequest::read(&request[4..48]).unwrap();
        assert_eq!(old.read_only, None);
        for len in 0..44 {
            assert!(ConnectRequest::read(&request[4..4 + len]).is_err(), "{len} bytes");
        }
        let mut out = Vec::new();
        parsed.write(&mut out);
        assert_eq!(out, request);

        let response = ConnectResponse {
            timeout_ms: 10_000,
            session: SessionId(0x0100_001d_35e2_0000),
            password: unhex("ec9d001b09774a17aa90f303fa9c07e1").try_into().unwrap(),
            read_only: Some(false),
        };
        let bytes = unhex("00000025 00000000 00002710 0100001d35e20000 00000010 ec9d001b09774a17aa90f303fa9c07e1 00");
        let mut out = Vec::new();
        response.write(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(ConnectResponse::read(&bytes[4..]), Ok(response));
        let mut out = Vec::new();
        ConnectResponse { read_only: None, ..response }.write(&mut out);
        assert_eq!(out.len(), 40);
    }

    #[test]
    fn an_event_of_a_real_server() {
        let mut out = Vec::new();
        write_event(&mut out, EventKind::NodeDataChanged, "/a", 5);
        assert_eq!(out, unhex("0000001e ffffffff 0000000000000005 00000000 00000003 00000003 00000002 2f61"));
    }

    #[test]
    fn requests_of_a_real_client() {
        let create =
            unhex("00000002 2f61 00000002 6869 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000000");
        let request = CreateRequest::read(&mut Reader::new(&create), OpCode::Create).unwrap();
        assert_eq!(request.path.as_deref(), Some("/a"));
        assert_eq!(request.data, Some(&b"hi"[..]));
        assert_eq!((request.flags, request.ttl), (0, -1));
        let mut out = Vec::new();
        request.write(&mut out, OpCode::Create);
        assert_eq!(out, create);
        assert_eq!(request.acl.unwrap()[0].scheme.as_deref(), Some("world"));
        for len in 0..create.len() {
            assert!(CreateRequest::read(&mut Reader::new(&create[..len]), OpCode::Create).is_err());
        }
        let set_watches =
            unhex("0000000000000001 00000001 00000002 2f61 00000001 00000002 2f62 00000001 00000005 2f676f6e65");
        let request = SetWatchesRequest::read(&mut Reader::new(&set_watches), OpCode::SetWatches).unwrap();
        assert_eq!(request.relative_zxid, 1);
        let mut out = Vec::new();
        request.write(&mut out, OpCode::SetWatches);
        assert_eq!(out, set_watches);
        assert_eq!(request.child.unwrap()[0].as_deref(), Some("/gone"));
    }
}
