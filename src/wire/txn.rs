//! Transactions as ZooKeeper encodes them in its log and in a PROPOSAL (upstream: `TxnHeader`, `SerializeUtils`).
//!
//! A transaction carries results, not wishes: the sequence suffix is in the path, versions are absolute, `auth` ids are
//! expanded. So applying the same records to the same tree gives the same tree everywhere.

use super::opcode::OpCode;
use super::reader::{Malformed, Reader};
use super::writer::Jute;
use crate::ids::{SessionId, Zxid};
use std::sync::{Arc, LazyLock};

/// Who asked for a transaction, where it stands in history, and when the leader made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnHeader {
    /// The session that asked; `NONE` for the server itself.
    pub session: SessionId,
    /// The xid of the request; 0 for the server itself.
    pub cxid: i32,
    pub zxid: Zxid,
    /// Milliseconds since 1970 by the leader's wall clock.
    pub time: i64,
}

/// One entry of an access control list, as stored. `perms` is kept as the client gave it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Acl {
    pub perms: i32,
    pub scheme: String,
    pub id: String,
}

/// A list that transactions share: nearly all have `Acl::open`.
pub type AclList = Arc<[Acl]>;

static OPEN: LazyLock<AclList> = LazyLock::new(|| Arc::from([Acl::world(Acl::ALL)]));

impl Acl {
    pub const ALL: i32 = 31;
    pub const READ: i32 = 1;
    pub const WRITE: i32 = 2;
    pub const CREATE: i32 = 4;
    pub const DELETE: i32 = 8;
    pub const ADMIN: i32 = 16;

    /// A list of `Acl::open`, encoded.
    pub(super) const OPEN_BYTES: [u8; 27] = *b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone";

    /// `world:anyone` with the given permissions.
    pub fn world(perms: i32) -> Acl {
        Acl { perms, scheme: "world".into(), id: "anyone".into() }
    }

    /// Only `world:anyone` with all permissions: always the same list, so that it is known by its address.
    #[inline]
    pub fn open() -> &'static AclList {
        &OPEN
    }

    /// Whether a list is `open`, if that can be told at a glance.
    #[inline]
    pub fn is_shared_open(list: &[Acl]) -> bool {
        std::ptr::eq(list, &**OPEN)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_int(self.perms);
        out.put_text(&self.scheme);
        out.put_text(&self.id);
    }

    pub fn write_list(list: &[Acl], out: &mut Vec<u8>) {
        out.put_int(list.len() as i32);
        for acl in list {
            acl.write(out);
        }
    }

    /// A list for a transaction: no allocation for the usual one.
    pub fn read_shared(reader: &mut Reader<'_>) -> Result<AclList, Malformed> {
        if reader.skip_if(&Acl::OPEN_BYTES) {
            return Ok(OPEN.clone());
        }
        Acl::read_list(reader).map(AclList::from)
    }

    pub fn read_list(reader: &mut Reader<'_>) -> Result<Vec<Acl>, Malformed> {
        let count = reader.count("acl")?.unwrap_or(0);
        let mut list = Vec::with_capacity(reader.capacity(count, 12));
        for _ in 0..count {
            list.push(Acl {
                perms: reader.int("perms")?,
                scheme: reader.written("scheme")?.into_owned(),
                id: reader.written("id")?.into_owned(),
            });
        }
        Ok(list)
    }
}

/// What kind of znode a create makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeKind {
    Persistent,
    /// Owned by the session in the transaction's header.
    Ephemeral,
    Container,
    /// Time to live in milliseconds.
    Ttl(i64),
}

/// What a transaction does. `op` fields keep the number under which it is logged where several mean the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Txn {
    CreateSession {
        timeout_ms: i32,
    },
    /// `None` as older servers wrote it: then every ephemeral of the session is deleted.
    CloseSession {
        paths: Option<Vec<String>>,
    },
    /// A request that failed; it has its place in the order all the same.
    Error {
        code: i32,
    },
    /// `op` is Create, Create2, CreateContainer or CreateTtl, and agrees with `kind`. `parent_cversion` is the parent's
    /// stored cversion afterwards; -1 (from before 3.4) means one more than it has.
    Create {
        op: OpCode,
        path: String,
        data: Option<Vec<u8>>,
        acl: AclList,
        kind: NodeKind,
        parent_cversion: i32,
    },
    /// `op` is Delete or DeleteContainer.
    Delete {
        op: OpCode,
        path: String,
    },
    /// `op` is SetData or Reconfig. `version` is the new one.
    SetData {
        op: OpCode,
        path: String,
        data: Option<Vec<u8>>,
        version: i32,
    },
    /// `version` is the new aversion.
    SetAcl {
        path: String,
        acl: AclList,
        version: i32,
    },
    /// Only inside a multi.
    Check {
        path: String,
        version: i32,
    },
    /// With an `Error` among them nothing is applied: the ones before it keep their records, the later ones are -2.
    Multi(Vec<Txn>),
}

/// The digest of the whole tree after a transaction (upstream: `TxnDigest`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnDigest {
    pub version: i32,
    pub tree: u64,
}

impl TxnDigest {
    /// The version that 3.9 writes and checks.
    pub const VERSION: i32 = 2;
}

impl Txn {
    /// Of how many changes it is made, where that is not one: parts of a multi, znodes of a session.
    pub fn parts(&self) -> usize {
        match self {
            Txn::Multi(parts) => parts.len(),
            Txn::CloseSession { paths } => paths.as_ref().map_or(0, Vec::len),
            _ => 0,
        }
    }

    pub fn op(&self) -> OpCode {
        match self {
            Txn::CreateSession { .. } => OpCode::CreateSession,
            Txn::CloseSession { .. } => OpCode::CloseSession,
            Txn::Error { .. } => OpCode::Error,
            Txn::Create { op, .. } | Txn::Delete { op, .. } | Txn::SetData { op, .. } => *op,
            Txn::SetAcl { .. } => OpCode::SetAcl,
            Txn::Check { .. } => OpCode::Check,
            Txn::Multi(_) => OpCode::Multi,
        }
    }

    /// Appends the record without its header.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Txn::CreateSession { timeout_ms } => out.put_int(*timeout_ms),
            Txn::CloseSession { paths: None } => {}
            Txn::CloseSession { paths: Some(paths) } => {
                out.put_int(paths.len() as i32);
                for path in paths {
                    out.put_text(path);
                }
            }
            Txn::Error { code } => out.put_int(*code),
            Txn::Create { op, path, data, acl, kind, parent_cversion } => {
                out.put_text(path);
                out.put_buffer(data.as_deref());
                Acl::write_list(acl, out);
                match op {
                    OpCode::CreateContainer | OpCode::CreateTtl => {}
                    _ => out.put_bool(*kind == NodeKind::Ephemeral),
                }
                out.put_int(*parent_cversion);
                if let NodeKind::Ttl(ttl) = kind {
                    out.put_long(*ttl);
                }
            }
            Txn::Delete { path, .. } => out.put_text(path),
            Txn::SetData { path, data, version, .. } => {
                out.put_text(path);
                out.put_buffer(data.as_deref());
                out.put_int(*version);
            }
            Txn::SetAcl { path, acl, version } => {
                out.put_text(path);
                Acl::write_list(acl, out);
                out.put_int(*version);
            }
            Txn::Check { path, version } => {
                out.put_text(path);
                out.put_int(*version);
            }
            Txn::Multi(ops) => {
                out.put_int(ops.len() as i32);
                for op in ops {
                    out.put_int(op.op().to_wire());
                    let start = out.len();
                    out.put_int(0);
                    op.write(out);
                    let len = (out.len() - start - 4) as i32;
                    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
                }
            }
        }
    }

    fn read(op: i32, reader: &mut Reader<'_>) -> Result<Txn, Malformed> {
        let op = OpCode::from_wire(op).ok_or(Malformed::Unknown("txn type", op))?;
        Ok(match op {
            OpCode::CreateSession => Txn::CreateSession { timeout_ms: reader.int("timeOut")? },
            OpCode::CloseSession if reader.rest().is_empty() => Txn::CloseSession { paths: None },
            OpCode::CloseSession => {
                let paths = reader.texts("paths2Delete")?.unwrap_or_default();
                let paths = paths.into_iter().map(|path| path.map(|p| p.into_owned()).ok_or(Malformed::Null("path")));
                Txn::CloseSession { paths: Some(paths.collect::<Result<_, _>>()?) }
            }
            OpCode::Error => Txn::Error { code: reader.int("err")? },
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                let path = reader.string("path")?.into_owned();
                let data = reader.buffer("data")?.map(<[u8]>::to_vec);
                let acl = Acl::read_shared(reader)?;
                let mut kind = match op {
                    OpCode::CreateContainer => NodeKind::Container,
                    OpCode::CreateTtl => NodeKind::Ttl(0),
                    _ if reader.bool("ephemeral")? => NodeKind::Ephemeral,
                    _ => NodeKind::Persistent,
                };
                // The form from before 3.4 ends here.
                let parent_cversion = match op {
                    OpCode::Create if reader.rest().is_empty() => -1,
                    _ => reader.int("parentCVersion")?,
                };
                if op == OpCode::CreateTtl {
                    kind = NodeKind::Ttl(reader.long("ttl")?);
                }
                Txn::Create { op, path, data, acl, kind, parent_cversion }
            }
            OpCode::Delete | OpCode::DeleteContainer => Txn::Delete { op, path: reader.string("path")?.into_owned() },
            OpCode::SetData | OpCode::Reconfig => Txn::SetData {
                op,
                path: reader.string("path")?.into_owned(),
                data: reader.buffer("data")?.map(<[u8]>::to_vec),
                version: reader.int("version")?,
            },
            OpCode::SetAcl => Txn::SetAcl {
                path: reader.string("path")?.into_owned(),
                acl: Acl::read_shared(reader)?,
                version: reader.int("version")?,
            },
            OpCode::Check => Txn::Check { path: reader.string("path")?.into_owned(), version: reader.int("version")? },
            OpCode::Multi => {
                let count = reader.count("txns")?.unwrap_or(0);
                let mut ops = Vec::with_capacity(reader.capacity(count, 8));
                for _ in 0..count {
                    let op = reader.int("txn type")?;
                    if op == OpCode::Multi.to_wire() {
                        return Err(Malformed::Unknown("txn type in a multi", op));
                    }
                    let record = reader.buffer("txn data")?.ok_or(Malformed::Null("txn data"))?;
                    ops.push(Txn::read(op, &mut Reader::new(record))?);
                }
                Txn::Multi(ops)
            }
            _ => return Err(Malformed::Unknown("txn type", op.to_wire())),
        })
    }
}

/// Appends header, record and, if given, digest: the bytes of a log record or of a PROPOSAL's data.
pub fn write_txn(header: &TxnHeader, txn: &Txn, digest: Option<TxnDigest>, out: &mut Vec<u8>) {
    out.put_long(header.session.0);
    out.put_int(header.cxid);
    out.put_long(header.zxid.to_wire());
    out.put_long(header.time);
    out.put_int(txn.op().to_wire());
    txn.write(out);
    if let Some(digest) = digest {
        out.put_int(digest.version);
        out.put_long(digest.tree as i64);
    }
}

/// The dual of `write_txn`. The digest is there if bytes for it are left.
pub fn read_txn(bytes: &[u8]) -> Result<(TxnHeader, Txn, Option<TxnDigest>), Malformed> {
    let mut reader = Reader::new(bytes);
    let session = SessionId(reader.long("clientId")?);
    let cxid = reader.int("cxid")?;
    let zxid = Zxid::from_wire(reader.long("zxid")?);
    let time = reader.long("time")?;
    let op = reader.int("type")?;
    // A closeSession without its list of paths is followed by the digest at once. A list in as many bytes would have one
    // path of four bytes, and so begin with 1; two paths don't fit.
    let digest_next = reader.rest().len() == 12 && reader.rest()[..4] == TxnDigest::VERSION.to_be_bytes();
    let txn = if op == OpCode::CloseSession.to_wire() && digest_next {
        Txn::CloseSession { paths: None }
    } else {
        Txn::read(op, &mut reader)?
    };
    let digest = match reader.rest().len() {
        0 => None,
        _ => Some(TxnDigest { version: reader.int("digest version")?, tree: reader.long("digest")? as u64 }),
    };
    Ok((TxnHeader { session, cxid, zxid, time }, txn, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> TxnHeader {
        TxnHeader {
            session: SessionId(0x0100_0012_968f_0000),
            cxid: 0,
            zxid: Zxid(0x1_0000_0001),
            time: 0x1a2_0207_6b8f,
        }
    }

    /// From a log that ZooKeeper 3.9.5 wrote: a session of eight seconds on an untouched database.
    #[test]
    fn the_bytes_of_a_real_create_session() {
        let mut out = Vec::new();
        let digest = TxnDigest { version: 2, tree: 0x51c6_d660 };
        write_txn(&header(), &Txn::CreateSession { timeout_ms: 8000 }, Some(digest), &mut out);
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "01000012968f0000000000000000000100000001000001a202076b8ffffffff600001f40000000020000000051c6d660"
        );
    }

    #[test]
    fn every_kind_survives_its_bytes_and_no_truncation_panics() {
        // Outside the basic plane: written as two surrogates, as Java does, and no two question marks when it is read.
        let id = "a\u{1f600}:b";
        let acl = vec![Acl::world(Acl::ALL), Acl { perms: 1, scheme: "digest".into(), id: id.into() }];
        let create = |op, kind| Txn::Create {
            op,
            path: "/a".into(),
            data: Some(b"x".to_vec()),
            acl: acl.clone().into(),
            kind,
            parent_cversion: 3,
        };
        let txns = vec![
            Txn::CreateSession { timeout_ms: 1 },
            Txn::CloseSession { paths: None },
            Txn::CloseSession { paths: Some(vec![]) },
            Txn::CloseSession { paths: Some(vec!["/a".into(), "/b/c".into()]) },
            Txn::Error { code: -101 },
            create(OpCode::Create, NodeKind::Ephemeral),
            create(OpCode::Create2, NodeKind::Persistent),
            create(OpCode::CreateContainer, NodeKind::Container),
            create(OpCode::CreateTtl, NodeKind::Ttl(77)),
            Txn::Delete { op: OpCode::Delete, path: "/a".into() },
            Txn::SetData { op: OpCode::SetData, path: "/a".into(), data: None, version: 4 },
            Txn::SetAcl { path: "/a".into(), acl: acl.into(), version: 1 },
            Txn::Multi(vec![Txn::Check { path: "/a".into(), version: 1 }, Txn::Error { code: -2 }]),
        ];
        for txn in txns {
            for digest in [None, Some(TxnDigest { version: 2, tree: u64::MAX })] {
                let mut out = Vec::new();
                write_txn(&header(), &txn, digest, &mut out);
                assert_eq!(read_txn(&out), Ok((header(), txn.clone(), digest)), "{txn:?}");
                for len in 0..out.len() {
                    let _ = read_txn(&out[..len]);
                }
            }
        }
    }
}
