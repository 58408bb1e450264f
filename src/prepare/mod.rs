//! Turns a request into a transaction: what was wished, checked against the tree and everything that is pending, becomes
//! what will happen (upstream: `PrepRequestProcessor`).
//!
//! A request that fails becomes a transaction too, with its error: it has its place in the order and its zxid. The order
//! of the checks is part of the protocol, since the first failure is the answer. The tree is only read; what the
//! transactions in flight will have changed is kept here (`pending`) until `applied` says that the tree has it, so that
//! the next request is judged as if it came after them.
//!
//! Promises: a transaction made here can be applied, and gives the digest that came with it; nothing larger than
//! `record_bytes_max` is made, since it could not be read back; memory is bounded by the request's size and by the number
//! of transactions in flight. Left to others: which zxid is next, whether a session lives (`SessionCheck`), the log, the
//! apply. Runs on the pipeline's thread.

mod ops;
pub mod path;
mod pending;
mod quota;
pub mod reply;

use crate::auth::{AuthIds, AuthRules, Verdicts};
use crate::ids::{Owner, OwnerRules, SessionId, Zxid};
use crate::limits;
use crate::session::SessionState;
use crate::tree::Tree;
use crate::wire::multi::{MultiOp, read_ops};
use crate::wire::txn::{AclList, Txn, TxnDigest, TxnHeader};
use crate::wire::{ErrorCode, Malformed, OpCode, Reader};
use pending::Pending;

/// What the configuration says about writes. One per server, fixed at start.
#[derive(Clone, Debug)]
pub struct PrepareRules {
    pub auth: AuthRules,
    pub owner: OwnerRules,
    /// `enforceQuota`: hard limits refuse.
    pub enforce_quota: bool,
    /// `reconfigEnabled`.
    pub reconfig_enabled: bool,
    /// Part of an ensemble, not standalone: an unknown session is told that it expired.
    pub ensemble: bool,
    /// `zookeeper.digest.enabled`; the tree's setting.
    pub digest: bool,
    /// The largest encoded transaction that every server can read back: `jute.maxbuffer` and its `extrasize`.
    pub record_bytes_max: usize,
}

impl Default for PrepareRules {
    /// ZooKeeper's defaults, standalone.
    fn default() -> PrepareRules {
        PrepareRules {
            auth: AuthRules::default(),
            owner: OwnerRules::default(),
            enforce_quota: false,
            reconfig_enabled: false,
            ensemble: false,
            digest: true,
            record_bytes_max: 2 * crate::limits::JUTE_MAXBUFFER,
        }
    }
}

/// What is known about the session of a write when it is prepared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionCheck {
    Live,
    Closing,
    Unknown,
    /// Another connection has it by now: the answer is -118 in the log, and to the client none.
    Moved,
}

impl From<SessionState> for SessionCheck {
    fn from(state: SessionState) -> SessionCheck {
        match state {
            SessionState::Live => SessionCheck::Live,
            SessionState::Closing => SessionCheck::Closing,
            SessionState::Unknown => SessionCheck::Unknown,
        }
    }
}

/// A client's write, as it was received.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    pub session: SessionId,
    pub session_check: SessionCheck,
    pub xid: i32,
    /// One of `OpCode::is_write`, but CloseSession, which has a function of its own.
    pub op: OpCode,
    /// What follows the request's header.
    pub body: &'a [u8],
    /// As they were when the request was received.
    pub auth: &'a AuthIds,
}

/// What a request has become.
#[derive(Debug)]
pub enum Prepared {
    /// Takes the zxid that was given. May be `Txn::Error`, or a `Txn::Multi` that failed.
    Txn { header: TxnHeader, txn: Txn, digest: Option<TxnDigest> },
    /// Not a transaction: answered with this code and the zxid applied last; the zxid given is still free.
    Refused(ErrorCode),
}

/// Why a request fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fail {
    /// An operation's answer; inside a multi one of its results.
    Op(ErrorCode),
    /// The answer to the whole request, even if it is a multi.
    Request(ErrorCode),
}

/// What every operation of one request has in common.
struct Context<'a> {
    session: SessionId,
    session_check: SessionCheck,
    auth: &'a AuthIds,
    zxid: Zxid,
    time_ms: i64,
    /// Encoded bytes that the transaction may still have.
    budget: usize,
    /// Entries of access lists that may still be gone through.
    work: usize,
    /// By lists that have been. They are held, since a part of the request may replace or drop a list that is pending.
    verdicts: Verdicts<AclList, AuthIds, 8>,
    /// What it took beside the request's bytes, in the units of `limits::WRITE_TURN_WORK`.
    worked: usize,
}

/// The maker of transactions. One per pipeline.
pub struct Prepare {
    rules: PrepareRules,
    pending: Pending,
    /// What the requests of this turn have asked: a client may ask the same a thousand times.
    verdicts: Verdicts<AclList, AuthIds, 8>,
    /// What they took.
    worked: usize,
}

/// Bytes around a record, at most: header (32), digest (12), the number of a multi's parts (4); and what a single one has
/// beside what is counted (24, of a create with a time to live).
const RECORD_OVERHEAD: usize = 80;
/// Bytes of a delete in a multi, beside its path.
const DELETE_OVERHEAD: usize = 12;

/// Whether `Prepare::close_session` has ended the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    Done,
    /// Some of its ephemerals have been deleted; it has more.
    GoesOn,
}

impl Prepare {
    pub fn new(rules: PrepareRules) -> Prepare {
        let pending = Pending::new(rules.owner, rules.digest);
        Prepare { rules, pending, verdicts: Verdicts::default(), worked: 0 }
    }

    /// Prepares a client's write. `zxid` is the next one, `time_ms` the wall time that goes into the transaction.
    pub fn write(&mut self, tree: &Tree, request: &WriteRequest<'_>, zxid: Zxid, time_ms: i64) -> Prepared {
        let mut context = Context {
            session: request.session,
            session_check: request.session_check,
            auth: request.auth,
            zxid,
            time_ms,
            budget: self.rules.record_bytes_max.saturating_sub(RECORD_OVERHEAD),
            work: limits::MULTI_WRITE_WORK,
            verdicts: std::mem::take(&mut self.verdicts),
            worked: limits::WRITE_WORK + 2 * request.body.len(),
        };
        let prepared = self.prepare(tree, request, &mut context);
        self.verdicts = context.verdicts;
        self.worked += context.worked;
        prepared
    }

    fn prepare(&mut self, tree: &Tree, request: &WriteRequest<'_>, context: &mut Context<'_>) -> Prepared {
        let (zxid, time_ms) = (context.zxid, context.time_ms);
        let reader = &mut Reader::new(request.body);
        if request.op == OpCode::Multi {
            let ops = read_ops(reader);
            // A null list of ACLs is found before there is a zxid, as upstream.
            if let Err(Malformed::Null(_)) = ops {
                return Prepared::Refused(ErrorCode::MARSHALLING_ERROR);
            }
            self.pending.begin(tree, zxid);
            // Unlike a single operation's, a list that can't be decoded has its zxid already.
            let outcome = match ops {
                Ok(ops) => self.multi(tree, context, ops),
                Err(_) => Err(Fail::Request(ErrorCode::MARSHALLING_ERROR)),
            };
            return self.finish(request.session, request.xid, zxid, time_ms, outcome);
        }
        let op = match ops::Single::read(request.op, reader) {
            Ok(op) => op,
            Err(code) => return Prepared::Refused(code),
        };
        self.pending.begin(tree, zxid);
        let outcome = self.single(tree, context, op);
        self.finish(request.session, request.xid, zxid, time_ms, outcome)
    }

    /// Whether enough has been prepared for one turn of the thread that does it: it has more to do than that.
    pub fn has_done_enough(&self) -> bool {
        self.worked >= limits::WRITE_TURN_WORK
    }

    /// A new turn, or another part of one. Lets the lists go that were asked.
    pub fn begin_turn(&mut self) {
        self.worked = 0;
        self.verdicts.clear();
    }

    /// With what a request is refused before it takes a zxid, if it is: for a server that forwards its writes, so that the
    /// leader gets only those that become transactions.
    pub fn refusal(op: OpCode, body: &[u8]) -> Option<ErrorCode> {
        let reader = &mut Reader::new(body);
        if op == OpCode::Multi {
            return matches!(read_ops(reader), Err(Malformed::Null(_))).then_some(ErrorCode::MARSHALLING_ERROR);
        }
        ops::Single::read(op, reader).err()
    }

    /// A request that fails for a reason that is not in the tree: it takes a zxid like any other.
    pub fn failed(
        &mut self,
        tree: &Tree,
        session: SessionId,
        xid: i32,
        code: ErrorCode,
        zxid: Zxid,
        time_ms: i64,
    ) -> Prepared {
        self.pending.begin(tree, zxid);
        self.finish(session, xid, zxid, time_ms, Err(Fail::Request(code)))
    }

    fn finish(&mut self, session: SessionId, cxid: i32, zxid: Zxid, time: i64, outcome: Result<Txn, Fail>) -> Prepared {
        let header = TxnHeader { session, cxid, zxid, time };
        match outcome {
            Ok(txn) => Prepared::Txn { header, txn, digest: self.txn_digest() },
            Err(Fail::Op(code) | Fail::Request(code)) => {
                Prepared::Txn { header, txn: Txn::Error { code: code.0 }, digest: None }
            }
        }
    }

    fn txn_digest(&self) -> Option<TxnDigest> {
        self.pending.digest().map(|tree| TxnDigest { version: TxnDigest::VERSION, tree })
    }

    /// All of it or nothing. After a failure the transaction has the records of what would have been done before it.
    fn multi(&mut self, tree: &Tree, context: &mut Context<'_>, ops: Vec<MultiOp<'_>>) -> Result<Txn, Fail> {
        if ops.iter().any(|op| op.is_read() || ops::path_is_null(op)) {
            return Err(Fail::Request(ErrorCode::MARSHALLING_ERROR));
        }
        self.pending.open_multi();
        let mut txns = Vec::with_capacity(ops.len());
        let mut failed = None;
        for op in ops {
            let outcome = match failed {
                None => self.multi_op(tree, context, op),
                // Type, length and code.
                Some(_) => context.spend(12).and(Err(Fail::Op(ErrorCode::RUNTIME_INCONSISTENCY))),
            };
            match outcome {
                Ok(txn) => txns.push(txn),
                Err(Fail::Op(code)) => {
                    failed.get_or_insert(code);
                    txns.push(Txn::Error { code: code.0 });
                }
                Err(fail @ Fail::Request(_)) => {
                    self.pending.close_multi(false);
                    return Err(fail);
                }
            }
        }
        self.pending.close_multi(failed.is_none());
        Ok(Txn::Multi(txns))
    }

    /// The server begins a session. `timeout_ms` is what was negotiated.
    pub fn create_session(
        &mut self,
        tree: &Tree,
        session: SessionId,
        timeout_ms: i32,
        zxid: Zxid,
        time_ms: i64,
    ) -> Prepared {
        self.pending.begin(tree, zxid);
        self.finish(session, 0, zxid, time_ms, Ok(Txn::CreateSession { timeout_ms }))
    }

    /// Ends a session, and deletes its ephemerals: those in the tree, and those that pending creates will have made.
    /// `xid` is the client's, or 0 when the session expired. Whether it is closing already is the caller's to know.
    ///
    /// Nearly always one transaction. Where one can't list all paths, this is a multi that deletes as many of them as fit,
    /// and it is to be called again with the next zxid: so no more than a record's bytes of paths is built at a time, of which a
    /// session may own gigabytes (its parent's long name is in each).
    pub fn close_session(
        &mut self,
        tree: &Tree,
        session: SessionId,
        xid: i32,
        zxid: Zxid,
        time_ms: i64,
    ) -> (Prepared, Closing) {
        let max = self.rules.record_bytes_max.saturating_sub(RECORD_OVERHEAD);
        let in_tree = tree.ephemerals(session).filter(|path| !self.pending.is_pending(path));
        let mut left = in_tree.chain(self.pending.ephemerals(session).map(str::to_owned));
        let (mut paths, mut close_bytes, mut delete_bytes) = (Vec::new(), 0, 0);
        let mut closing = Closing::Done;
        for path in left.by_ref() {
            close_bytes += 4 + path.len();
            delete_bytes += DELETE_OVERHEAD + path.len();
            paths.push(path);
            if close_bytes > max {
                closing = Closing::GoesOn;
                break;
            }
        }
        drop(left);
        if closing == Closing::GoesOn {
            // At least one stays, whatever its size: it was created, so it fits.
            while delete_bytes > max && paths.len() > 1 {
                delete_bytes -= paths.pop().map_or(0, |path| DELETE_OVERHEAD + path.len());
            }
        }
        paths.sort_unstable();
        self.pending.begin(tree, zxid);
        for path in &paths {
            self.delete_pending(tree, path, zxid);
        }
        let prepared = match closing {
            Closing::Done => self.finish(session, xid, zxid, time_ms, Ok(Txn::CloseSession { paths: Some(paths) })),
            Closing::GoesOn => {
                let deletes = paths.into_iter().map(|path| Txn::Delete { op: OpCode::Delete, path });
                self.finish(SessionId::NONE, 0, zxid, time_ms, Ok(Txn::Multi(deletes.collect())))
            }
        };
        (prepared, closing)
    }

    /// Deletes a container or a znode whose time to live is over; it was found in the tree, and is looked at again here.
    /// `None` if it is to stay: then `zxid` is still free. `age_ms` is that of what was written at some time.
    pub fn reap(
        &mut self,
        tree: &Tree,
        path: &str,
        age_ms: impl Fn(i64) -> i64,
        zxid: Zxid,
        time_ms: i64,
    ) -> Option<Prepared> {
        let node = self.pending.view(tree, path)?.node;
        let due = match node.owner(self.rules.owner) {
            Owner::Container => true,
            // Of 0 it comes from the disk only, and means for ever.
            Owner::Ttl(ttl_ms) => ttl_ms != 0 && age_ms(node.numbers.mtime) > ttl_ms,
            Owner::Nobody | Owner::Session(_) => false,
        };
        if !due || node.children > 0 {
            return None;
        }
        self.pending.begin(tree, zxid);
        self.delete_pending(tree, path, zxid);
        let txn = Txn::Delete { op: OpCode::DeleteContainer, path: path.to_owned() };
        Some(self.finish(SessionId::NONE, 0, zxid, time_ms, Ok(txn)))
    }

    /// The tree has every transaction up to and with `up_to`.
    pub fn applied(&mut self, up_to: Zxid) {
        self.pending.applied(up_to);
    }

    /// Forgets what is pending: it will never be applied, or the tree has been replaced.
    pub fn clear(&mut self) {
        self.pending.clear();
    }

    /// Paths that are kept because of transactions in flight.
    #[cfg(test)]
    fn pending_paths(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests;
