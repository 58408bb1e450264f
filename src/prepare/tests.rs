//! A server without threads, log and sockets: requests are prepared, applied and answered.

mod golden;
mod order;
mod pipelined;
mod sessions;

use super::reply::{Reply, Shape, write_reply};
use super::*;
use crate::tree::{Applied, NodeRef, TreeOptions};
use crate::wire::client::flags;
use crate::wire::multi;
use crate::wire::txn::Acl;
use crate::wire::writer::Jute;
use std::net::{IpAddr, Ipv4Addr};

pub const SESSION: SessionId = SessionId(0x0100_001d_35e2_0000);

pub fn extended() -> PrepareRules {
    let owner = OwnerRules { extended_types: true, emulate_353_ttl: false };
    PrepareRules { owner, ..PrepareRules::default() }
}

pub fn stranger() -> AuthIds {
    AuthIds::of_peer(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

pub fn root() -> AuthIds {
    let mut ids = stranger();
    ids.add("super", "");
    ids
}

pub struct Server {
    pub tree: Tree,
    pub prepare: Prepare,
    pub zxid: Zxid,
    pub time: i64,
    pub auth: AuthIds,
    pub session: SessionId,
    pub check: SessionCheck,
}

/// A transaction on its way, with what its reply needs.
pub struct InFlight {
    pub header: TxnHeader,
    pub txn: Txn,
    pub digest: Option<TxnDigest>,
    pub shape: Shape,
    pub xid: i32,
}

impl Server {
    pub fn new(rules: PrepareRules) -> Server {
        let tree = Tree::new(TreeOptions { owner_rules: rules.owner, ..TreeOptions::default() });
        Server {
            tree,
            prepare: Prepare::new(rules),
            zxid: Zxid::ZERO,
            time: 1_000_000,
            auth: stranger(),
            session: SESSION,
            check: SessionCheck::Live,
        }
    }

    /// Prepares one request; `Err` if it was refused.
    pub fn prepare(&mut self, op: OpCode, xid: i32, body: &[u8]) -> Result<InFlight, ErrorCode> {
        let request =
            WriteRequest { session: self.session, session_check: self.check, xid, op, body, auth: &self.auth };
        let next = self.zxid.next().unwrap();
        match self.prepare.write(&self.tree, &request, next, self.time) {
            Prepared::Refused(code) => Err(code),
            Prepared::Txn { header, txn, digest } => {
                assert_eq!(header.zxid, next);
                self.zxid = next;
                let shape = Shape::of(op, &txn);
                Ok(InFlight { header, txn, digest, shape, xid })
            }
        }
    }

    /// Applies what was prepared; the reply's frame.
    pub fn apply(&mut self, flight: InFlight) -> Vec<u8> {
        let InFlight { header, txn, digest, shape, xid } = flight;
        let is_error = matches!(txn, Txn::Error { .. });
        let mut bytes = Vec::new();
        crate::wire::txn::write_txn(&header, &txn, digest, &mut bytes);
        assert_eq!(crate::wire::txn::read_txn(&bytes).map(|read| read.1).as_ref(), Ok(&txn));
        let before = self.tree.digest();
        let mut applied = Applied::default();
        self.tree.apply(&header, txn, &mut applied);
        match digest {
            Some(digest) => assert_eq!(digest.tree, self.tree.digest(), "the digest that was foretold"),
            None => assert!(is_error && before == self.tree.digest(), "an error changes nothing"),
        }
        self.prepare.applied(header.zxid);
        let mut out = Vec::new();
        assert_eq!(write_reply(&mut out, &shape, xid, &header, &applied), Reply::Written);
        out
    }

    pub fn run(&mut self, op: OpCode, xid: i32, body: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let flight = self.prepare(op, xid, body)?;
        Ok(self.apply(flight))
    }

    /// The code in the reply's header.
    pub fn code(&mut self, op: OpCode, body: &[u8]) -> ErrorCode {
        match self.run(op, 7, body) {
            Err(code) => code,
            Ok(reply) => {
                let code = ErrorCode(i32::from_be_bytes(reply[16..20].try_into().unwrap()));
                assert!(code == ErrorCode::OK || reply.len() == 20, "an error has no body");
                code
            }
        }
    }

    /// Does something that has to succeed, as the super user.
    pub fn set_up(&mut self, op: OpCode, body: &[u8]) {
        let (auth, check) = (std::mem::replace(&mut self.auth, root()), self.check);
        self.check = SessionCheck::Live;
        assert_eq!(self.code(op, body), ErrorCode::OK, "{op:?} {}", String::from_utf8_lossy(body));
        (self.auth, self.check) = (auth, check);
    }

    /// Takes what `close_session` and `reap` return.
    pub fn take(&mut self, prepared: Prepared) {
        let Prepared::Txn { header, txn, digest } = prepared else { panic!("{prepared:?}") };
        assert_eq!(Some(header.zxid), self.zxid.next());
        self.zxid = header.zxid;
        let shape = Shape::Single(OpCode::CloseSession);
        self.apply(InFlight { header, txn, digest, shape, xid: 0 });
    }

    /// Everything about every znode.
    pub fn dump(&self) -> Vec<String> {
        fn below(node: NodeRef<'_>, out: &mut Vec<String>) {
            out.push(format!("{} {:?} {:?} {:?}", node.path(), node.numbers(), node.data(), node.acl()));
            let mut names: Vec<_> = node.children().collect();
            names.sort_unstable();
            for name in names {
                below(node.child(name).unwrap(), out);
            }
        }
        let mut out = Vec::new();
        below(self.tree.lookup("/").unwrap(), &mut out);
        out
    }
}

pub fn open() -> Vec<Acl> {
    vec![Acl::world(Acl::ALL)]
}

pub fn create_with(path: &str, data: Option<&[u8]>, acl: &[Acl], flags: i32, ttl: Option<i64>) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_text(path);
    out.put_buffer(data);
    Acl::write_list(acl, &mut out);
    out.put_int(flags);
    if let Some(ttl) = ttl {
        out.put_long(ttl);
    }
    out
}

pub fn create(path: &str, flags: i32) -> Vec<u8> {
    create_with(path, Some(b"x"), &open(), flags, None)
}

/// delete and check.
pub fn path_version(path: &str, version: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_text(path);
    out.put_int(version);
    out
}

pub fn set_data(path: &str, data: &[u8], version: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_text(path);
    out.put_buffer(Some(data));
    out.put_int(version);
    out
}

pub fn set_acl(path: &str, acl: &[Acl], version: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_text(path);
    Acl::write_list(acl, &mut out);
    out.put_int(version);
    out
}

pub fn multi(ops: &[(OpCode, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (op, body) in ops {
        multi::write_header(&mut out, op.to_wire(), false, -1);
        out.extend_from_slice(body);
    }
    multi::write_end(&mut out);
    out
}

/// The codes of a multi's results: 0 for each that was done.
pub fn multi_codes(reply: &[u8], ops: usize) -> Vec<i32> {
    assert_eq!(reply[16..20], [0; 4], "the header of a multi says nothing");
    let int = |at: usize| i32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
    if int(20) != -1 || reply[24] == 1 {
        return vec![0; ops];
    }
    (0..ops).map(|op| int(20 + op * 13 + 9)).collect()
}
